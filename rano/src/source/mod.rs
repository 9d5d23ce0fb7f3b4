//! Where events come from. A source delivers process and socket changes in the order in which they happened and
//! learns from the answer which processes are watched, so that it can leave the others alone.

pub mod ebpf;
#[cfg(feature = "cli")]
pub mod examine;
#[cfg(feature = "cli")]
pub mod named;
pub mod proc;
#[cfg(feature = "cli")]
pub mod reopening;
#[cfg(feature = "cli")]
pub mod replay;
#[cfg(feature = "cli")]
pub mod seccomp;
pub mod views;
mod counting;
mod transports;

use std::net::SocketAddr;

use anyhow::Result;
use serde::{Deserialize, Serialize};

use crate::moment::Moment;
use crate::names::{Evidence, Party};
use crate::process::{ProcessChange, ProcessId, Verdict};
use crate::stop::Stop;
use crate::words::{Protocol, SourceKind};

pub use crate::change::{Closed, Opened, SocketChange, SocketId, Stray};
pub use crate::health::SourceHealth;
pub use crate::moment::now;
pub use crate::words::Role;

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
    Stray(Stray),
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
    /// Connections of which nothing is known but that they were there, and nobody's; counted.
    fn unattributed(&mut self, count: u64);
    /// A connection that was seen only as it ended and has no owner; summed up and judged, not shown.
    fn stray(&mut self, stray: Stray);
    /// Connections of excluded processes that were not told; counted.
    fn left_out(&mut self, connections: u64);
    /// Processes that became tracked or left out through another's change (a parent that was judged later); emptied by
    /// the call.
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
    /// Local and remote end, where both are known.
    pub ends: Option<(SocketAddr, SocketAddr)>,
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
    /// Deliver what happens until `until` (its boot clock counts), blocking as needed. May return early, and does
    /// when `stop` is raised.
    fn pump(&mut self, until: Moment, stop: &Stop, intake: &mut dyn Intake) -> Result<Pumped>;
    /// A last look when observation ends: what is pending is delivered.
    fn finish(&mut self, intake: &mut dyn Intake) -> Result<()>;
    /// Tells how many bytes each open connection has sent and received so far, where that can be read.
    fn count(&mut self, _intake: &mut dyn Intake) {}
    /// What became known to the pipeline by other means than through its intake, for a record of everything.
    fn learned(&mut self, _evidence: &Evidence) {}
    fn health(&self) -> SourceHealth;
    /// The time now, or in a recording the time it has reached.
    fn now(&self) -> Moment;
}
