//! What sources learn of sockets.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::moment::Moment;
use crate::process::ProcessId;
use crate::words::{Address, Bytes, DomainSource, OwnerQuality, Protocol, Role, SocketState, SourceKind};

/// A socket's identity.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SocketId {
    /// The kernel's socket cookie (`sock_gen_cookie`), never reused while the system runs. Unique per network
    /// namespace on kernels where the counter is per namespace, hence the namespace's inode beside it.
    Cookie { netns: u32, cookie: u64 },
    /// Where only text was to be had: inode numbers are unique among live sockets.
    Inode { netns: u32, inode: u64 },
    /// What a datagram socket exchanges with one other end.
    Flow { netns: u32, cookie: u64, remote: SocketAddr },
}

/// What a source learned about a socket.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SocketChange {
    /// First sight.
    Opened(Opened),
    /// It was opened, and there was no room to follow it: whether it is established, and when it ends, will not be
    /// told.
    Attempted(Opened),
    /// The state of an open socket changed (connecting to established, established to `close_wait`).
    State { id: SocketId, state: SocketState, at: Moment },
    /// Its local end became known, or better known, after it was opened.
    Local { id: SocketId, local: Address, at: Moment },
    /// What an open one has sent and received so far.
    Bytes { id: SocketId, bytes: Bytes, at: Moment },
    /// A name of its remote end became known.
    Named { id: SocketId, name: Arc<str>, by: DomainSource, at: Moment },
    /// It is gone. For a socket that was never `Opened` this is ignored; a source that knows more sends
    /// `Opened` first.
    Closed(Closed),
    /// It was gone by `at`: found out afterwards, because nothing told of its end. Ignored likewise.
    Gone { id: SocketId, at: Moment },
}

impl SocketChange {
    pub fn at(&self) -> Moment {
        match self {
            Self::Opened(opened) | Self::Attempted(opened) => opened.at,
            Self::State { at, .. }
            | Self::Local { at, .. }
            | Self::Bytes { at, .. }
            | Self::Named { at, .. }
            | Self::Gone { at, .. } => *at,
            Self::Closed(closed) => closed.at,
        }
    }
}

/// A socket when it is first seen.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Opened {
    pub id: SocketId,
    pub role: Role,
    pub protocol: Protocol,
    pub local: Option<Address>,
    /// `None` for listeners and unconnected datagram sockets.
    pub remote: Option<Address>,
    pub state: Option<SocketState>,
    /// `None`: nobody could be named.
    pub owner: Option<ProcessId>,
    pub quality: OwnerQuality,
    /// Older than the observation.
    pub preexisting: bool,
    /// When it was opened as far as the source knows; for a polled socket the poll.
    pub at: Moment,
    pub netns: u32,
    /// Who holds the other end of a unix socket, where that could be seen.
    #[serde(default)]
    pub peer_pid: Option<u32>,
    /// Which source tells of it. Recordings did not always say.
    #[serde(default)]
    pub source: SourceKind,
}

/// How a socket ended.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Closed {
    pub id: SocketId,
    pub at: Moment,
    pub bytes: Option<Bytes>,
    /// The errno with which it ended.
    pub error: Option<i32>,
    /// Whether it ever was established, where the source knows: it may have happened unseen.
    pub established: Option<bool>,
    /// Where the source knows it better than the difference of the two moments.
    pub duration: Option<Duration>,
}

/// A connection that only its end revealed.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Stray {
    pub opened: Opened,
    pub closed: Closed,
}
