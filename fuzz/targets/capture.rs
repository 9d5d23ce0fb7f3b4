//! Capture files, pcap and pcapng.
#![no_main]

use std::io::Cursor;

use libfuzzer_sys::fuzz_target;
use rano::internals::names::capture_file::{CaptureEvidence, Packets};

fuzz_target!(|bytes: &[u8]| {
    if let Ok(packets) = Packets::open(Cursor::new(bytes.to_vec())) {
        let mut capture = CaptureEvidence::new(packets);
        while capture.take().is_some() {}
    }
});
