//! Into the ring buffer. A submit that wakes the reader costs its process over a microsecond, so only the one does
//! whose record the reader would read next: it then waits a little for others and reads them all. The kernel decides
//! that when the record is complete (`bpf_ringbuf_commit()` in kernel/bpf/ringbuf.c), discarded ones included: whoever
//! decides before may find a reader at work that is asleep when the record is there.

use aya_ebpf::bindings::{BPF_RB_AVAIL_DATA, BPF_RB_RING_SIZE};
use aya_ebpf::helpers::generated::bpf_ktime_get_boot_ns;
use aya_ebpf::maps::ring_buf::RingBufEntry;

use crate::maps::EVENTS;

/// How full the ring may be, in sixteenths, when a record of a kind is put into it. Packets, datagrams and what comes
/// from a listener leave much room for the others; records of processes, and of beginnings, leave a little for the ends
/// of TCP connections, which tell all of it.
#[derive(Clone, Copy)]
pub struct Share(u64);

impl Share {
    /// Anybody's. With less room than sockets have, a swarm of short processes would lose what they run.
    pub const RENAME: Self = Self(15);
    /// Anybody's, for a rename and a socket, with arguments. It is asked again with its next socket.
    pub const SIGHT: Self = Self(15);
    /// Of a socket that is not watched: anybody's, for a packet of DNS. A name is lost.
    pub const STRANGERS_PACKET: Self = Self(4);
    /// The same of a watched socket.
    pub const PACKET: Self = Self(8);
    /// Anybody's, for a connection to a listener.
    pub const ARRIVAL: Self = Self(8);
    /// Of a watched process, one socket of which may have as many as it likes. A flow is told again with its next
    /// datagram.
    pub const DATAGRAM: Self = Self(8);
    /// Anybody's, for an exec, with arguments. It is told again with its next socket, and is in /proc.
    pub const EXEC: Self = Self(15);
    /// Anybody's, for a process. It is in /proc as long as it lives.
    pub const FORK: Self = Self(15);
    /// A socket's, once. What is open is compared with the kernel's table afterwards.
    pub const DATAGRAM_END: Self = Self(12);
    /// Of TCP. The end says all of it again.
    pub const BEGINNING: Self = Self(15);
    pub const END: Self = Self(16);
}

/// Room for a record, unless the ring is too full for one of its kind.
#[inline(always)]
pub fn reserve<T: 'static>(share: Share) -> Option<RingBufEntry<T>> {
    if has_room(share) { EVENTS.reserve::<T>(0) } else { None }
}

#[inline(always)]
pub fn has_room(share: Share) -> bool {
    EVENTS.query(BPF_RB_AVAIL_DATA as u64) <= EVENTS.query(BPF_RB_RING_SIZE as u64) / 16 * share.0
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
