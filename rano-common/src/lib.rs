//! The ABI between the kernel programs and user space: fixed `repr(C)` records, their sizes and offsets
//! asserted at compile time, and a decoder that is total. Neither std nor the `rano` crate is visible here.
#![no_std]

/// Version of the record layout. The loader refuses an object that was built for another one.
pub const ABI_VERSION: u32 = 1;
