//! DNS messages, questions and answers.
#![no_main]

use libfuzzer_sys::fuzz_target;
use rano::internals::names::dns::{Said, read};

fuzz_target!(|bytes: &[u8]| {
    if let Said::Asked(question) | Said::Answered(question, _) = read(bytes) {
        let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"-_.".contains(&byte);
        assert!(!question.name.is_empty() && question.name.len() <= 253 && question.name.bytes().all(plain));
    }
});
