//! Into the ring buffer. A submit that wakes the reader costs its process over a microsecond, so only the one that
//! finds the buffer empty does: the reader then waits a little for others and reads them all.

use aya_ebpf::bindings::{BPF_RB_AVAIL_DATA, BPF_RB_FORCE_WAKEUP, BPF_RB_NO_WAKEUP};
use aya_ebpf::helpers::generated::bpf_ktime_get_boot_ns;
use aya_ebpf::maps::ring_buf::RingBufEntry;

use crate::maps::EVENTS;

/// What was in the buffer before a record.
#[derive(Clone, Copy)]
pub struct Batch {
    wake: u64,
}

impl Batch {
    /// To be called before the reservation: of several at once, the first finds the buffer empty.
    #[inline(always)]
    pub fn begin() -> Self {
        let empty = EVENTS.query(BPF_RB_AVAIL_DATA as u64) == 0;
        Self { wake: if empty { BPF_RB_FORCE_WAKEUP } else { BPF_RB_NO_WAKEUP } as u64 }
    }

    #[inline(always)]
    pub fn reserve<T: 'static>(self) -> Option<RingBufEntry<T>> {
        EVENTS.reserve::<T>(0)
    }

    #[inline(always)]
    pub fn submit<T>(self, room: RingBufEntry<T>) {
        room.submit(self.wake);
    }
}

/// Boot clock.
#[inline(always)]
pub fn now() -> u64 {
    // SAFETY: takes nothing, returns a number.
    unsafe { bpf_ktime_get_boot_ns() }
}
