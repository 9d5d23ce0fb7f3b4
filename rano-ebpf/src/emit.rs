//! Into the ring buffer. A submit that wakes the reader costs its process over a microsecond, so only the one does whose
//! record the reader would read next: it then waits a little for others and reads them all. The kernel decides that when
//! the record is complete (`bpf_ringbuf_commit()` in kernel/bpf/ringbuf.c), discarded ones included: whoever decides
//! before may find a reader at work that is asleep when the record is there.

use aya_ebpf::helpers::generated::bpf_ktime_get_boot_ns;
use aya_ebpf::maps::ring_buf::RingBufEntry;

use crate::maps::EVENTS;

#[inline(always)]
pub fn reserve<T: 'static>() -> Option<RingBufEntry<T>> {
    EVENTS.reserve::<T>(0)
}

#[inline(always)]
pub fn submit<T>(room: RingBufEntry<T>) {
    room.submit(0);
}

#[inline(always)]
pub fn discard<T>(room: RingBufEntry<T>) {
    room.discard(0);
}

/// Boot clock.
#[inline(always)]
pub fn now() -> u64 {
    // SAFETY: takes nothing, returns a number.
    unsafe { bpf_ktime_get_boot_ns() }
}
