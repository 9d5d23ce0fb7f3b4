//! The ABI between the kernel programs and user space: fixed `repr(C)` records, their sizes and offsets
//! asserted at compile time, and a decoder that is total. Neither std nor the `rano` crate is visible here.
#![no_std]

mod decode;
mod offsets;
mod packet;
mod process;
mod settings;
mod socket;
mod words;

pub use decode::{Forker, Malformed, Record, Told, decode};
pub use offsets::{OFFSET_COUNT, OFFSETS_GLOBAL, Offset};
pub use packet::{HELLO_MAX, PACKET_CLASSES, PacketBytes, PacketKind, PacketRecord};
pub use process::{ARGUMENT_CLASSES, ForkRecord, ImageRecord, PATH, ProcessKind, ProcessRecord};
pub use settings::{SETTING_COUNT, SETTINGS_GLOBAL, Setting};
pub use socket::{SocketKind, SocketRecord};
pub use words::{
    DestinationWords, FlowBytes, Judgement, JudgementWords, ListenerWords, Owner, OwnerWords, Verdict, flags,
    owner_words,
};

/// Version of the record layout. The loader refuses an object that was built for another one.
pub const ABI_VERSION: u32 = 9;

/// Bytes that may wait in the ring buffer, unless the loader asks for another size. A power of two of pages.
pub const RING_BYTES: u32 = 4 << 20;
/// Processes that are not watched of which the kernel programs keep a verdict. The one that was needed longest ago
/// gives way, and is told of again.
pub const JUDGEMENTS_MAX: u32 = 1 << 16;
/// Watched processes. Further ones have their verdict among the others.
pub const TRACKED_MAX: u32 = 1 << 14;
/// Marks of pids of processes that may be watched. A power of two.
pub const TRACKED_MARKS_MAX: u32 = 1 << 16;
/// Open sockets of which the kernel programs keep the owner, unless the loader asks for another number.
pub const OWNERS_MAX: u32 = 1 << 16;
/// Groups of sockets that are told apart when it is asked whether any of them is followed. A power of two.
pub const FOLLOWED_GROUPS: u32 = 1 << 14;
/// Destinations of unconnected datagram sockets that are told apart.
pub const FLOWS_MAX: u32 = 1 << 14;
/// Connections of which a part of the `ClientHello` was sent.
pub const HELLOS_MAX: u32 = 1 << 10;
/// What excluded processes exchange datagrams with, so that it is counted once.
pub const LEFT_OUT_FLOWS_MAX: u32 = 1 << 12;
/// Sockets of other kinds than TCP and UDP of which it is remembered where the last packet went.
pub const DESTINATIONS_MAX: u32 = 1 << 10;
/// Places at which somebody listens.
pub const LISTENERS_MAX: u32 = 1 << 12;
/// Threads that are in the middle of a call.
pub const CALLS_MAX: u32 = 1 << 14;

/// The group of a socket by its key: neighbours are in groups beside one another, and share what the CPU has at hand.
#[expect(clippy::cast_possible_truncation, reason = "a few of its bits are taken")]
#[inline]
pub const fn group(key: u64) -> u32 {
    (key ^ key >> 14) as u32 & (FOLLOWED_GROUPS - 1)
}

/// The mark of a pid.
#[inline]
pub const fn tracked_mark(pid: u32) -> u32 {
    pid & (TRACKED_MARKS_MAX - 1)
}

/// What every record begins with.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header {
    /// [`SocketKind`], [`ProcessKind`] or [`PacketKind`].
    pub kind: u32,
    /// Bytes of the whole record, this header included.
    pub size: u32,
    /// `CLOCK_BOOTTIME`, nanoseconds.
    pub at_ns: u64,
}

/// Ways in which the kernel programs can lose something: one counter a CPU each.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
pub enum Loss {
    /// No room in the ring buffer for a socket's record.
    SocketRecord = 0,
    /// No room in the ring buffer for a process's record.
    ProcessRecord = 1,
    /// No room for another owner: that the socket was opened is told, and nothing more.
    OwnersFull = 2,
    /// No room for another verdict: the process is told of again and again.
    JudgementsFull = 3,
    /// The process that connects could not be read.
    TaskUnread = 4,
    /// A packet with a name was left out: the ring buffer was half full, or full.
    PacketRecord = 9,
    /// No room for another listener: what it accepts is not told.
    ListenersFull = 5,
    /// Several processes listen at one place: whose what came is, is not known.
    ListenersShared = 6,
    /// No room to remember a call until it returns: what it returned is not known.
    CallsFull = 7,
    /// No room for any record of a socket until it ended: nothing is known of it.
    Unheard = 8,
}

impl Loss {
    pub const ALL: [Self; 10] = [
        Self::SocketRecord,
        Self::ProcessRecord,
        Self::OwnersFull,
        Self::JudgementsFull,
        Self::TaskUnread,
        Self::PacketRecord,
        Self::ListenersFull,
        Self::ListenersShared,
        Self::CallsFull,
        Self::Unheard,
    ];
}

/// What excluded processes opened, which is counted and not told: one counter a CPU each.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
pub enum LeftOut {
    /// Calls that connect over TCP.
    Streams = 0,
    /// Destinations of datagram sockets.
    Datagrams = 1,
}

impl LeftOut {
    pub const ALL: [Self; 2] = [Self::Streams, Self::Datagrams];
}

/// The flow of datagrams from a socket to one destination.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FlowKey {
    pub cookie: u64,
    /// IPv4 as its mapped IPv6 address.
    pub remote: [u8; 16],
    pub remote_port: u64,
}

impl FlowKey {
    /// As user space gives it to the map.
    pub fn to_words(self) -> [u64; 4] {
        let half = |at: usize| {
            let mut bytes = [0; 8];
            bytes.copy_from_slice(&self.remote[at..at + 8]);
            u64::from_ne_bytes(bytes)
        };
        [self.cookie, half(0), half(8), self.remote_port]
    }
}

/// Where somebody listens.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ListenerKey {
    /// Inode of the network namespace.
    pub netns: u32,
    pub port: u16,
    /// Of the socket.
    pub family: u16,
    /// As in a [`SocketRecord`]; zero is any.
    pub local: [u8; 16],
}

impl ListenerKey {
    /// As user space gives it to the map.
    pub fn to_words(self) -> [u64; 3] {
        let half = |at: usize| {
            let mut bytes = [0; 8];
            bytes.copy_from_slice(&self.local[at..at + 8]);
            u64::from_ne_bytes(bytes)
        };
        let mut first = [0; 8];
        first[..4].copy_from_slice(&self.netns.to_ne_bytes());
        first[4..6].copy_from_slice(&self.port.to_ne_bytes());
        first[6..].copy_from_slice(&self.family.to_ne_bytes());
        [u64::from_ne_bytes(first), half(0), half(8)]
    }
}

const _: () = {
    assert!(size_of::<Header>() == 16);
    assert!(size_of::<FlowKey>() == 32);
    assert!(size_of::<ListenerKey>() == 24);
};

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn neighbours_are_in_groups_beside_one_another() {
        for key in [0, 1 << 40, u64::MAX << 12] {
            let first = group(key);
            assert!(first < FOLLOWED_GROUPS);
            for next in 1..4096 {
                assert_eq!(group(key + next).abs_diff(first), u32::try_from(next).expect("small"), "{key}");
            }
        }
    }
}
