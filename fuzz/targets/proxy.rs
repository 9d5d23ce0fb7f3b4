//! What a client asks a proxy for.
#![no_main]

use libfuzzer_sys::fuzz_target;
use rano::internals::names::proxy::{Request, from_socks_5, from_stream};

fuzz_target!(|bytes: &[u8]| {
    for request in [from_stream(bytes), from_socks_5(bytes)] {
        match request {
            Request::Finished(asked) => {
                let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"-_.:".contains(&byte);
                assert!(asked.port != 0 && !asked.host.is_empty() && asked.host.bytes().all(plain));
            }
            Request::SocksOffer(length) => assert!(length <= bytes.len()),
            Request::Unfinished => assert!(bytes.len() < 1024),
            Request::Other => {}
        }
    }
});
