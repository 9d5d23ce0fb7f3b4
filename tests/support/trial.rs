//! Tests as `libtest-mimic` runs them, with a skip that is printed and counted.

use std::fmt;

use libtest_mimic::{Completion, Failed, Trial};

/// The machine cannot run this test, and why. Returned as an error so that `?` carries it.
#[derive(Debug)]
pub struct Skip(pub String);

impl fmt::Display for Skip {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "skipped: {}", self.0)
    }
}

impl std::error::Error for Skip {}

/// An error that ends the test as skipped.
pub fn skip(reason: impl Into<String>) -> anyhow::Error {
    anyhow::Error::new(Skip(reason.into()))
}

pub type TestFunction = fn() -> anyhow::Result<()>;

/// The tests of one file, their names prefixed with the file's.
pub fn trials(file: &'static str, tests: &[(&'static str, TestFunction)]) -> Vec<Trial> {
    tests
        .iter()
        .map(|&(name, test)| Trial::ignorable_test(format!("{file}::{name}"), move || run(test)))
        .collect()
}

fn run(test: TestFunction) -> Result<Completion, Failed> {
    match test() {
        Ok(()) => Ok(Completion::Completed),
        Err(error) => match error.downcast_ref::<Skip>() {
            Some(Skip(reason)) => Ok(Completion::ignored_with(reason)),
            None => Err(format!("{error:?}").into()),
        },
    }
}

/// Lists functions under their own names.
#[macro_export]
macro_rules! tests {
    ($($test:ident),* $(,)?) => {
        pub fn all() -> Vec<libtest_mimic::Trial> {
            let file = module_path!().rsplit("::").next().unwrap_or_default();
            $crate::support::trial::trials(file, &[$((stringify!($test), $test as $crate::support::trial::TestFunction)),*])
        }
    };
}
