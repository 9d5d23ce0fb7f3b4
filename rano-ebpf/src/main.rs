//! What runs in the kernel: `maps`, `task`, `socket`, `emit`, `follow`, `datagrams`, `others`, `listen`, `multipath`,
//! `log`, and `hooks/`, one family a file.
//! Compiled for the BPF target only; no std, no allocation, no parsing beyond finding what to copy.
#![no_std]
#![no_main]
#![feature(core_intrinsics)]
#![allow(internal_features, reason = "the library has no atomic addition for this target, which has one")]
#![expect(unreachable_pub, reason = "programs have no outside: `pub` marks what a file offers the others")]

mod datagrams;
mod emit;
mod follow;
mod hooks;
mod listen;
mod log;
mod maps;
mod multipath;
mod others;
mod socket;
mod task;

/// Helpers that read kernel memory are open to programs under a GPL-compatible licence only; this project's is both
/// MIT and Apache-2.0, of which the kernel knows the former by this name.
#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";

#[panic_handler]
fn panic(_info: &core::panic::PanicInfo) -> ! {
    // The verifier rejects any program from which this can be reached.
    loop {}
}
