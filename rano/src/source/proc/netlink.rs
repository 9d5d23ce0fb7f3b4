//! Netlink framing: a `NETLINK_SOCK_DIAG` socket, and iterators over messages and attributes. They read any bytes
//! without panicking; what breaks the framing ends the iteration with [`Malformed`].

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use rustix::io::{Errno, retry_on_intr};
use rustix::net::netlink::{SOCK_DIAG, SocketAddrNetlink};
use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, bind, getsockname, recv, send, socket_with,
};

/// Length of `struct nlmsghdr`.
pub const HEADER: usize = 16;
/// `NLMSG_ALIGNTO` and `NLA_ALIGNTO`.
const ALIGNMENT: usize = 4;
/// `NLMSG_MIN_TYPE`: lower types are control messages and mean the same in every family.
const FIRST_FAMILY_TYPE: u16 = 0x10;

/// The framing does not hold: a length that is too small, or larger than what was received.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Malformed;

/// A `NETLINK_SOCK_DIAG` socket of the calling thread's network namespace.
#[derive(Debug)]
pub struct Socket {
    fd: OwnedFd,
}

impl Socket {
    /// Fails with `EPROTONOSUPPORT` where the kernel has no `sock_diag`, and with `EPERM`, `EACCES` or
    /// `EAFNOSUPPORT` under a sandbox (seccomp, systemd's `RestrictAddressFamilies=`).
    pub fn open() -> rustix::io::Result<Self> {
        let fd = socket_with(AddressFamily::NETLINK, SocketType::RAW, SocketFlags::CLOEXEC, Some(SOCK_DIAG))?;
        Ok(Self { fd })
    }

    /// The longest a [`Socket::receive`] waits, after which it fails with `EAGAIN`.
    pub fn set_timeout(&self, timeout: Duration) -> rustix::io::Result<()> {
        rustix::net::sockopt::set_socket_timeout(&self.fd, rustix::net::sockopt::Timeout::Recv, Some(timeout))
    }

    /// Listens to exactly `groups` (bit n−1 is group n); 0 leaves all. What is already queued stays readable.
    pub fn set_groups(&self, groups: u32) -> rustix::io::Result<()> {
        // netlink_bind() replaces the first 32 groups if the port is the one the socket already has.
        let port = SocketAddrNetlink::try_from(getsockname(&self.fd)?)?.pid();
        bind(&self.fd, &SocketAddrNetlink::new(port, groups))
    }

    pub fn send(&self, message: &[u8]) -> rustix::io::Result<()> {
        retry_on_intr(|| send(&self.fd, message, SendFlags::empty())).map(drop)
    }

    /// One datagram: whole messages, several in a dump. `EMSGSIZE` if it did not fit into `buffer`.
    pub fn receive<'b>(&self, buffer: &'b mut [u8], flags: RecvFlags) -> rustix::io::Result<&'b [u8]> {
        // With MSG_TRUNC the kernel tells the length it would have had.
        let (_, length) = retry_on_intr(|| recv(&self.fd, &mut *buffer, flags | RecvFlags::TRUNC))?;
        buffer.get(..length).ok_or(Errno::MSGSIZE)
    }
}

impl AsFd for Socket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// What a message is, from `nlmsg_type`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Noop,
    /// `NLMSG_ERROR`, with the errno; `None` is an acknowledgement.
    Error(Option<Errno>),
    /// `NLMSG_DONE`: the dump is complete, or ended with an errno after it had begun.
    Done(Option<Errno>),
    /// `NLMSG_OVERRUN`: data was lost; no kernel sends it to `sock_diag` sockets.
    Overrun,
    /// Of the family itself.
    Payload(u16),
}

/// One message out of a datagram.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Message<'a> {
    pub kind: Kind,
    pub flags: u16,
    pub sequence: u32,
    pub body: &'a [u8],
}

/// The messages of a datagram.
#[derive(Debug, Clone)]
pub struct Messages<'a> {
    rest: &'a [u8],
}

impl<'a> Messages<'a> {
    pub fn new(datagram: &'a [u8]) -> Self {
        Self { rest: datagram }
    }
}

impl<'a> Iterator for Messages<'a> {
    type Item = Result<Message<'a>, Malformed>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.rest.is_empty() {
            return None;
        }
        let message = split_message(&mut self.rest);
        if message.is_none() {
            self.rest = &[];
        }
        Some(message.ok_or(Malformed))
    }
}

fn split_message<'a>(rest: &mut &'a [u8]) -> Option<Message<'a>> {
    let length = u32_at(rest, 0)? as usize;
    let (kind, flags, sequence) = (u16_at(rest, 4)?, u16_at(rest, 6)?, u32_at(rest, 8)?);
    let body = rest.get(HEADER..length)?;
    *rest = rest.get(length.next_multiple_of(ALIGNMENT)..).unwrap_or_default();
    let kind = match kind {
        1 => Kind::Noop,
        2 => Kind::Error(errno(u32_at(body, 0)?)),
        3 => Kind::Done(u32_at(body, 0).and_then(errno)),
        4 => Kind::Overrun,
        other if other < FIRST_FAMILY_TYPE => Kind::Noop,
        other => Kind::Payload(other),
    };
    Some(Message { kind, flags, sequence, body })
}

/// A negated errno; 0 is none. A number that is no errno is taken for `EINVAL`.
fn errno(code: u32) -> Option<Errno> {
    match code.cast_signed() {
        0 => None,
        code @ -4095..=-1 => Some(Errno::from_raw_os_error(-code)),
        _ => Some(Errno::INVAL),
    }
}

/// The attributes that follow a message's fixed part: type (without the nested and byte order flags) and value.
#[derive(Debug, Clone)]
pub struct Attributes<'a> {
    rest: &'a [u8],
}

impl<'a> Attributes<'a> {
    pub fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }
}

impl<'a> Iterator for Attributes<'a> {
    type Item = (u16, &'a [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        let length = usize::from(u16_at(self.rest, 0)?);
        let kind = u16_at(self.rest, 2)? & 0x3fff;
        let value = self.rest.get(ALIGNMENT..length)?;
        self.rest = self.rest.get(length.next_multiple_of(ALIGNMENT)..).unwrap_or_default();
        Some((kind, value))
    }
}

/// A message header in front of `body`, whose length is added up.
pub fn request(kind: u16, flags: u16, sequence: u32, body: &[u8]) -> Vec<u8> {
    let length = u32::try_from(HEADER + body.len()).expect("requests are built here and are short");
    let mut message = Vec::with_capacity(HEADER + body.len());
    message.extend_from_slice(&length.to_ne_bytes());
    message.extend_from_slice(&kind.to_ne_bytes());
    message.extend_from_slice(&flags.to_ne_bytes());
    message.extend_from_slice(&sequence.to_ne_bytes());
    message.extend_from_slice(&0u32.to_ne_bytes());
    message.extend_from_slice(body);
    message
}

pub(super) fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_ne_bytes(bytes.get(at..at.checked_add(2)?)?.try_into().ok()?))
}

pub(super) fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(bytes.get(at..at.checked_add(4)?)?.try_into().ok()?))
}

pub(super) fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_ne_bytes(bytes.get(at..at.checked_add(8)?)?.try_into().ok()?))
}
