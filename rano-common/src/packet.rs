//! A packet that may hold a name: bounded bytes of it, which user space parses.

use core::mem::offset_of;

use crate::Header;

/// Which way a packet went, as its socket sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
pub enum PacketKind {
    /// A DNS question, or what a client says first in TLS or QUIC.
    Sent = 48,
    /// A DNS answer.
    Received = 49,
}

impl PacketKind {
    pub const ALL: [Self; 2] = [Self::Sent, Self::Received];
}

/// Room for a packet; the smallest that holds it is used. What is longer than the last is cut.
pub const PACKET_CLASSES: [usize; 3] = [512, 2048, 8192];
/// Bytes at the beginning of a stream in which a `ClientHello` must lie.
pub const HELLO_MAX: u32 = 16 * 1024;

/// A packet; native byte order.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PacketRecord {
    pub header: Header,
    pub cookie: u64,
    pub netns: u32,
    /// Bytes of the packet that follow, from its IP header on.
    pub length: u32,
    /// TCP: the place of its first payload byte in the stream, counted from zero, modulo 2^32.
    pub place: u32,
    /// The socket's user, as the first user namespace counts.
    pub uid: u32,
}

/// A packet with its bytes, of which `packet.length` count.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PacketBytes<const N: usize> {
    pub packet: PacketRecord,
    pub bytes: [u8; N],
}

const _: () = {
    assert!(size_of::<PacketRecord>() == 40);
    assert!(offset_of!(PacketRecord, cookie) == 16);
    assert!(offset_of!(PacketRecord, place) == 32);
    assert!(offset_of!(PacketBytes<512>, bytes) == 40);
};
