//! Filters as a user types them.
#![no_main]

use libfuzzer_sys::fuzz_target;
use rano::internals::filter::Filter;
use rano::internals::glob::Glob;

fuzz_target!(|text: &str| {
    match Filter::parse(text) {
        Ok(filter) => assert_eq!(filter.text(), text),
        Err(error) => assert!((1..=text.chars().count() + 1).contains(&error.column()), "{error}"),
    }
    if let Ok(glob) = Glob::parse(text) {
        // What is handed to SQL means the same.
        let again = Glob::parse(glob.as_sql()).expect("a pattern");
        assert_eq!(again.matches(text), glob.matches(text));
        assert!(Glob::literal(text).matches(text));
    }
    if let Ok(glob) = Glob::of_names(text) {
        let _ = glob.matches_name(text);
        assert!(Glob::parse(glob.as_sql()).is_ok());
    }
});
