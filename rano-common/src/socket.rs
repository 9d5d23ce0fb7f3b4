//! What a hook tells of a socket.

use core::mem::offset_of;

use crate::Header;

/// What happened to a socket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
pub enum SocketKind {
    /// TCP: the SYN is about to be sent. UDP: connected, and what was told of the socket before has ended.
    Attempt = 1,
    Established = 2,
    /// TCP: the state became `CLOSE`, from `state_before`.
    Closed = 3,
    /// The last descriptor of a socket was closed that told nothing else: UDP, older than the observation, or a TCP
    /// attempt that found no route.
    Released = 4,
    /// The first datagram of an unconnected socket to this destination, or from there; to nowhere, port 0: it came from
    /// nobody knows where.
    Datagram = 5,
    /// A connect that got no further than the call: no route, no port. `error` is what it returned, 0 where that was
    /// not seen.
    Failed = 6,
    /// The first datagram of a connected socket, in either direction: with its local end.
    Bound = 7,
    /// A listener's connection was taken.
    Accepted = 8,
    /// TCP: it listens. UDP: it was bound to an address.
    Listening = 9,
}

impl SocketKind {
    pub const ALL: [Self; 9] = [
        Self::Attempt,
        Self::Established,
        Self::Closed,
        Self::Released,
        Self::Datagram,
        Self::Failed,
        Self::Bound,
        Self::Accepted,
        Self::Listening,
    ];
}

/// A socket and its owner; native byte order, except for addresses.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SocketRecord {
    pub header: Header,
    pub cookie: u64,
    /// Boot clock, nanoseconds: with the pid, who the owner is.
    pub owner_start_ns: u64,
    /// When it was established; 0 if it was not, or before the observation.
    pub established_ns: u64,
    /// TCP payload without retransmissions. UDP: to where it is, or was until this connect, connected.
    pub bytes_sent: u64,
    /// TCP payload; a FIN of the other side counts one. UDP: from there, and from whoever was not asked for their name.
    pub bytes_received: u64,
    pub pid: u32,
    /// The owner's `self_exec_id` at connect.
    pub exec_id: u32,
    /// See [`flags`](crate::flags).
    pub flags: u32,
    /// Inode of the network namespace.
    pub netns: u32,
    /// `sk_err`, or what the call returned.
    pub error: u32,
    pub local_port: u16,
    pub remote_port: u16,
    /// `AF_INET` or `AF_INET6`.
    pub family: u16,
    pub protocol: u8,
    /// TCP state that a `Closed` socket was in before.
    pub state_before: u8,
    /// Number of the interface that the socket is bound to, which a link-local address binds it to; else 0.
    pub interface: u32,
    /// Network byte order; of IPv4 the first four.
    pub local: [u8; 16],
    pub remote: [u8; 16],
}

const _: () = {
    assert!(size_of::<SocketRecord>() == 120);
    assert!(offset_of!(SocketRecord, cookie) == 16);
    assert!(offset_of!(SocketRecord, pid) == 56);
    assert!(offset_of!(SocketRecord, error) == 72);
    assert!(offset_of!(SocketRecord, family) == 80);
    assert!(offset_of!(SocketRecord, local) == 88);
    assert!(offset_of!(SocketRecord, remote) == 104);
};
