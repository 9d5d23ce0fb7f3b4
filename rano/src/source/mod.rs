//! Where events come from. A source delivers process and socket changes in the order in which they happened and
//! learns from the answer which processes are watched, so that it can leave the others alone.

pub mod health;
pub mod proc;

use std::time::{Duration, Instant};

use anyhow::Result;

use crate::event::{Address, Bytes, Moment, OwnerQuality, Protocol, SocketState, SourceKind};
use crate::process::{ProcessChange, ProcessId, Verdict};

pub use health::SourceHealth;

/// A socket's identity.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum SocketId {
    /// The kernel's socket cookie (`sock_gen_cookie`), never reused while the system runs. Unique per network
    /// namespace on kernels where the counter is per namespace, hence the namespace's inode beside it.
    Cookie { netns: u32, cookie: u64 },
    /// Where only text was to be had: inode numbers are unique among live sockets.
    Inode { netns: u32, inode: u64 },
}

/// What part a socket plays.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Role {
    /// It reached out.
    Connect,
    /// It came from a listener.
    Accept,
    /// It waits for others.
    Listen,
}

/// What a source learned about a socket.
#[derive(Debug, Clone, PartialEq)]
pub enum SocketChange {
    /// First sight.
    Opened(Opened),
    /// The state of an open socket changed (connecting to established, established to `close_wait`).
    State { id: SocketId, state: SocketState, at: Moment },
    /// It is gone. For a socket that was never `Opened` this is ignored; a source that knows more sends
    /// `Opened` first.
    Closed(Closed),
}

/// A socket when it is first seen.
#[derive(Debug, Clone, PartialEq)]
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
}

/// How a socket ended.
#[derive(Debug, Clone, PartialEq)]
pub struct Closed {
    pub id: SocketId,
    pub at: Moment,
    pub bytes: Option<Bytes>,
    /// Name of the errno with which it ended, `ECONNRESET`.
    pub error: Option<&'static str>,
    /// Known not to have been established: the attempt failed.
    pub never_established: bool,
    /// Where the source knows it better than the difference of the two moments.
    pub duration: Option<Duration>,
}

/// The receiving side of a source: the pipeline, or a recorder in front of it.
pub trait Intake {
    /// Applied at once; the answer holds for every later socket change of that process.
    fn process(&mut self, change: ProcessChange) -> Verdict;
    /// Goes all the way to the sinks before it returns.
    fn socket(&mut self, change: SocketChange);
    /// Connections that were seen only as they ended and have no owner; counted, not shown.
    fn unattributed(&mut self, count: u64);
    /// Processes that became tracked through another's change (a parent that was judged later); emptied by the call.
    fn newly_tracked(&mut self) -> Vec<ProcessId>;
    fn verdict(&self, id: ProcessId) -> Verdict;
}

/// What is left of a source after a pump.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pumped {
    More,
    /// A recording has been played to its end, or a single poll was asked for.
    Exhausted,
}

/// One way to observe.
pub trait Source {
    fn kind(&self) -> SourceKind;
    /// Deliver what happens until `deadline`, blocking as needed. Returns early when `stop` is raised.
    fn pump(
        &mut self,
        deadline: Instant,
        stop: &crate::stop::Stop,
        intake: &mut dyn Intake,
    ) -> Result<Pumped>;
    /// A last look when observation ends: what is pending is delivered.
    fn finish(&mut self, intake: &mut dyn Intake) -> Result<()>;
    fn health(&self) -> SourceHealth;
    /// The time now, or in a recording the time it has reached.
    fn now(&self) -> Moment;
}
