//! What a client says first over TLS, in records and without.
#![no_main]

use libfuzzer_sys::fuzz_target;
use rano::internals::names::tls::{Greeting, from_message, from_records};

fuzz_target!(|bytes: &[u8]| {
    for greeting in [from_message(bytes), from_records(bytes)] {
        if let Greeting::Finished(hello) = greeting {
            let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"-_.".contains(&byte);
            assert!(hello.name.is_none_or(|name| !name.is_empty() && name.bytes().all(plain)));
        }
    }
});
