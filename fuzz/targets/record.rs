//! What the kernel programs write into the ring buffer.
#![no_main]

use libfuzzer_sys::fuzz_target;
use rano_common::{PATH, Record, decode};

fuzz_target!(|bytes: &[u8]| {
    if let Ok(Record::Process(told)) = decode(bytes) {
        assert!(told.path.len() < PATH && !told.path.contains(&0));
        assert!(told.arguments.is_empty() || told.arguments.len() == told.process.arguments as usize);
    }
});
