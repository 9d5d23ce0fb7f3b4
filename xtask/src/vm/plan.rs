//! Which guests there are, and what each has to show.

use std::path::Path;
use std::time::Duration;

use super::kernels::Kernel;
use super::results::{Outcome, Results};

/// Series of Debian's kernels: the oldest that is supported, and those that its releases and backports run.
pub(crate) const KERNELS: [&str; 4] = ["5.10", "6.1", "6.12", "6.18"];

/// Ways of attaching. Each of these kernels has all of them.
pub(crate) const RUNGS: [&str; 3] = ["fentry", "kprobe", "tracepoint"];

/// How many connections the swarm makes.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Size {
    /// What an emulated machine does in some ten seconds.
    Quick,
    /// As on a real machine.
    Full,
}

/// One guest.
pub(crate) struct Scenario<'a> {
    pub name: String,
    pub kernel: &'a Kernel,
    /// Of [`RUNGS`]; the others are not taken then.
    pub rung: Option<&'static str>,
    /// Kernel parameters.
    pub append: &'static str,
    /// Only tests whose names contain it.
    pub tests: Option<&'static str>,
    pub size: Size,
    pub patience: Duration,
}

/// Full preemption is a parameter from 5.12 on; these take it where not every kernel is to.
const PREEMPTED: [(&str, &str); 3] = [("6.1", "fentry"), ("6.12", "kprobe"), ("6.18", "tracepoint")];

pub(crate) fn scenarios<'a>(kernels: &'a [Kernel], rungs: &[String], size: Size) -> Vec<Scenario<'a>> {
    let mut scenarios = Vec::new();
    let patience = Duration::from_secs(if size == Size::Full { 1800 } else { 400 });
    for kernel in kernels {
        for rung in
            RUNGS.into_iter().filter(|rung| rungs.is_empty() || rungs.iter().any(|wanted| wanted == rung))
        {
            let of = |name: String, append| Scenario {
                name,
                kernel,
                rung: Some(rung),
                append,
                tests: None,
                size,
                patience,
            };
            let preempted = PREEMPTED.contains(&(kernel.series, rung));
            if size == Size::Full || !preempted {
                scenarios.push(of(format!("{} {rung}", kernel.series), ""));
            }
            if preempted || size == Size::Full && kernel.series != "5.10" {
                scenarios.push(of(format!("{} {rung} preempted", kernel.series), "preempt=full"));
            }
        }
    }
    scenarios
}

impl Scenario<'_> {
    /// What the guest's shell runs.
    pub(crate) fn command(&self, test: &Path, filter: Option<&str>) -> String {
        let mut environment = String::new();
        if let Some(rung) = self.rung {
            environment.push_str(&format!("export RANO_TEST_RUNG={rung}\n"));
        }
        if self.size == Size::Quick {
            environment.push_str("export RANO_TEST_SIZE=small\n");
        }
        let filter = filter.or(self.tests).unwrap_or_default();
        format!("{environment}ulimit -n 65536\n{} --color never --test-threads 2 {filter}\n", test.display())
    }

    /// Turns what may not be skipped into failures.
    pub(crate) fn expect(&self, results: &mut Results) {
        let all_skipped = results.tests.iter().all(|(_, outcome)| matches!(outcome, Outcome::Skipped(_)));
        if all_skipped {
            for (_, outcome) in &mut results.tests {
                *outcome = Outcome::Failed;
            }
        }
    }
}
