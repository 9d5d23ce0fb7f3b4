//! What runs in the kernel: `maps`, `track`, `socket`, `emit`, and `hooks/`, one family a file.
//! Compiled for the BPF target only; no std, no allocation, no parsing beyond finding what to copy.
#![no_std]
#![no_main]

use rano_common::ABI_VERSION;

/// Read by the loader, which refuses an object of another layout.
#[unsafe(no_mangle)]
static RANO_ABI_VERSION: u32 = ABI_VERSION;

#[panic_handler]
fn panic(_info: &core::panic::PanicInfo) -> ! {
    // The verifier rejects any program from which this can be reached.
    loop {}
}
