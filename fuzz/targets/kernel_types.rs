//! The kernel's type information, in which the loader looks for fields.
#![no_main]

use libfuzzer_sys::fuzz_target;
use rano::internals::source::ebpf::btf::Btf;

fuzz_target!(|bytes: &[u8]| {
    if let Ok(types) = Btf::parse(bytes) {
        let _ = types.offset("outer", &["c", "e"]);
    }
});
