//! All state of the kernel programs.

use aya_ebpf::macros::map;
use aya_ebpf::maps::{HashMap, LruHashMap, PerCpuArray, RingBuf};
use rano_common::{
    FLOWS_MAX, FlowKey, JUDGEMENTS_MAX, JudgementWords, Loss, OFFSET_COUNT, OWNERS_MAX, Offset, OwnerWords,
    RING_BYTES,
};

#[map]
pub static EVENTS: RingBuf = RingBuf::with_byte_size(RING_BYTES, 0);

/// By pid of the thread group. Written by user space, and here when a process is told of, forks or ends.
#[map]
pub static JUDGEMENTS: HashMap<u32, JudgementWords> = HashMap::with_max_entries(JUDGEMENTS_MAX, 0);

/// By socket cookie.
#[map]
pub static OWNERS: HashMap<u64, OwnerWords> = HashMap::with_max_entries(OWNERS_MAX, 0);

/// Destinations that were told. A forgotten one is told again, and user space knows it.
#[map]
pub static FLOWS: LruHashMap<FlowKey, u64> = LruHashMap::with_max_entries(FLOWS_MAX, 0);

#[map]
pub static LOST: PerCpuArray<u64> = PerCpuArray::with_max_entries(Loss::COUNT as u32, 0);

/// Set by the loader from the running kernel's BTF; `rano_common::OFFSETS_GLOBAL` is its name.
#[unsafe(no_mangle)]
static RANO_OFFSETS_4: [u32; OFFSET_COUNT] = [0; OFFSET_COUNT];

#[inline(always)]
pub fn offset(of: Offset) -> usize {
    // SAFETY: the index is that of a variant, and so within the array; volatile because the loader changes it.
    unsafe { core::ptr::read_volatile(&raw const RANO_OFFSETS_4[of as usize]) as usize }
}

#[inline(always)]
pub fn lost(what: Loss) {
    if let Some(count) = LOST.get_ptr_mut(what as u32) {
        // SAFETY: the kernel returned a pointer to this CPU's value.
        unsafe { *count += 1 };
    }
}
