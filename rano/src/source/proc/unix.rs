//! Unix sockets as `struct unix_diag_msg` tells of them (`include/uapi/linux/unix_diag.h`).

use super::inet::TcpState;
use super::netlink::{Attributes, u32_at};

/// Length of `struct unix_diag_msg`.
const MESSAGE: usize = 16;
const ATTRIBUTE_NAME: u16 = 0;
const ATTRIBUTE_PEER: u16 = 2;

/// `AF_UNIX`
const FAMILY: u8 = 1;

/// `struct unix_diag_req`: every state, with name and peer (`UDIAG_SHOW_NAME | UDIAG_SHOW_PEER`).
pub(super) const REQUEST: [u8; 24] = {
    let mut body = [0; 24];
    body[0] = FAMILY;
    let (mut index, show) = (0, 5u32.to_ne_bytes());
    while index < 4 {
        body[4 + index] = 0xff;
        body[12 + index] = show[index];
        index += 1;
    }
    body
};

/// What kind of unix socket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum UnixKind {
    Stream,
    Datagram,
    SequencedPacket,
}

impl UnixKind {
    pub(super) fn from_raw(raw: i32) -> Option<Self> {
        match raw {
            libc::SOCK_STREAM => Some(Self::Stream),
            libc::SOCK_DGRAM => Some(Self::Datagram),
            libc::SOCK_SEQPACKET => Some(Self::SequencedPacket),
            _ => None,
        }
    }
}

/// A unix socket at one moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UnixSocket {
    pub kind: UnixKind,
    /// `Established`, `Listen` or `Close` (not connected); text knows `SynSent` for connecting too.
    pub state: TcpState,
    pub inode: u64,
    /// Inode of the other end; `None` where there is none, or it was read from text.
    pub peer: Option<u64>,
    /// Where it is bound. Lossy UTF-8, unescaped; abstract names start with `@`. The accepting end carries its
    /// listener's, the connecting end usually none.
    pub path: Option<String>,
    /// `None` where it was read from text.
    pub cookie: Option<u64>,
}

impl UnixSocket {
    /// From a `struct unix_diag_msg` and its attributes; `None` if it is too short or of an unknown kind.
    pub fn parse(body: &[u8]) -> Option<Self> {
        let (fixed, attributes) = body.split_first_chunk::<MESSAGE>()?;
        let mut socket = Self {
            kind: UnixKind::from_raw(i32::from(fixed[1]))?,
            state: TcpState::try_from(fixed[2]).ok()?,
            inode: u64::from(u32_at(fixed, 4)?),
            peer: None,
            path: None,
            cookie: Some(u64::from(u32_at(fixed, 8)?) | u64::from(u32_at(fixed, 12)?) << 32),
        };
        for (kind, value) in Attributes::new(attributes) {
            match kind {
                ATTRIBUTE_NAME => socket.path = path(value),
                ATTRIBUTE_PEER => socket.peer = u32_at(value, 0).filter(|inode| *inode != 0).map(u64::from),
                _ => {}
            }
        }
        Some(socket)
    }
}

/// A path ends at its NUL; an abstract name begins with one and may hold more, shown as `@` like in
/// `/proc/net/unix`.
fn path(name: &[u8]) -> Option<String> {
    match name {
        [] => None,
        [0, rest @ ..] => {
            let shown: Vec<u8> = rest.iter().map(|&byte| if byte == 0 { b'@' } else { byte }).collect();
            Some(format!("@{}", String::from_utf8_lossy(&shown)))
        }
        name => {
            let end = name.iter().position(|&byte| byte == 0).unwrap_or(name.len());
            Some(String::from_utf8_lossy(&name[..end]).into_owned())
        }
    }
}
