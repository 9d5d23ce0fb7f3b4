//! Where events come from. A source delivers process and socket changes in the order in which they happened and
//! learns from the answer which processes are watched, so that it can leave the others alone.

pub mod ebpf;
pub mod examine;
pub mod health;
pub mod named;
pub mod proc;
pub mod reopening;
pub mod replay;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Result;
use rustix::time::{ClockId, clock_gettime};
use serde::{Deserialize, Serialize};

use crate::event::{Address, Bytes, DomainSource, Moment, OwnerQuality, Protocol, SocketState, SourceKind};
use crate::names::{Evidence, Party};
use crate::process::{ProcessChange, ProcessId, Verdict};
use crate::stop::Stop;

pub use crate::event::Role;
pub use health::SourceHealth;

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
    /// It was opened, and there was no room to follow it: whether it is established, and when it ends, will not be told.
    Attempted(Opened),
    /// The state of an open socket changed (connecting to established, established to `close_wait`).
    State { id: SocketId, state: SocketState, at: Moment },
    /// Its local end became known, or better known, after it was opened.
    Local { id: SocketId, local: Address, at: Moment },
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

/// Anything a source delivers, as recordings hold it: one JSON object a line.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RawEvent {
    /// The first line: what was recorded. Older recordings have none.
    Recorded {
        source: SourceKind,
    },
    Process(ProcessChange),
    Socket(SocketChange),
    Evidence(Evidence),
    Unattributed {
        count: u64,
    },
    LeftOut {
        connections: u64,
    },
    /// Time has come this far without anything else happening.
    Clock(Moment),
}

/// The receiving side of a source: the pipeline, or a recorder in front of it.
pub trait Intake {
    /// Applied at once; the answer holds for every later socket change of that process.
    fn process(&mut self, change: ProcessChange) -> Verdict;
    /// Goes all the way to the sinks before it returns.
    fn socket(&mut self, change: SocketChange);
    /// What was learned of names, in the order of the packets and sockets.
    fn evidence(&mut self, evidence: Evidence);
    /// Connections that were seen only as they ended and have no owner; counted, not shown.
    fn unattributed(&mut self, count: u64);
    /// Connections of excluded processes that were not told; counted.
    fn left_out(&mut self, connections: u64);
    /// Processes that became tracked or left out through another's change (a parent that was judged later); emptied by the call.
    fn newly_tracked(&mut self) -> Vec<ProcessId>;
    fn verdict(&self, id: ProcessId) -> Verdict;
    /// Whether a packet's party is the socket of a watched process, as far as is known.
    fn watches(&self, party: Party) -> bool;
    /// The sockets of a protocol that were opened and not closed, as far as they are shown.
    fn open(&self, protocol: Protocol) -> Vec<Open>;
}

/// A socket of which an end is to be told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Open {
    pub id: SocketId,
    /// It is not known to be established.
    pub is_pending: bool,
}

/// What is left of a source after a pump.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pumped {
    More,
    /// A recording has been played to its end, or a single poll was asked for.
    Exhausted,
}

/// The time now on both clocks.
pub fn now() -> Moment {
    let boot = clock_gettime(ClockId::Boottime);
    let wall = clock_gettime(ClockId::Realtime);
    let boot_ns = boot.tv_sec.cast_unsigned() * 1_000_000_000 + boot.tv_nsec.cast_unsigned();
    Moment { boot_ns, unix_ms: wall.tv_sec * 1000 + wall.tv_nsec / 1_000_000 }
}

/// One way to observe.
pub trait Source {
    fn kind(&self) -> SourceKind;
    /// Deliver what happens until `until` (its boot clock counts), blocking as needed. May return early, and does
    /// when `stop` is raised.
    fn pump(&mut self, until: Moment, stop: &Stop, intake: &mut dyn Intake) -> Result<Pumped>;
    /// A last look when observation ends: what is pending is delivered.
    fn finish(&mut self, intake: &mut dyn Intake) -> Result<()>;
    /// What became known to the pipeline by other means than through its intake, for a record of everything.
    fn learned(&mut self, _evidence: &Evidence) {}
    fn health(&self) -> SourceHealth;
    /// The time now, or in a recording the time it has reached.
    fn now(&self) -> Moment;
}
