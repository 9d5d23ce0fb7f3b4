//! QUIC Initial packets, and the frames in them, which without keys nobody gets to see.
#![no_main]

use libfuzzer_sys::fuzz_target;
use rano::internals::names::quic::{Client, Crypto, begins_initial};

fuzz_target!(|bytes: &[u8]| {
    let _ = begins_initial(bytes);
    if let Some((mut client, _)) = Client::begin(bytes) {
        let _ = client.goes_on_with(bytes);
        let _ = client.read(bytes);
    }
    let mut crypto = Crypto::default();
    for frames in bytes.chunks(300) {
        let _ = crypto.take(frames);
        let _ = crypto.greeting();
    }
});
