//! What flows from the pipeline to every sink, in order: one message for everything that becomes known.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use crate::alerts::Reason;
use crate::connection::Connection;
use crate::event::{Bytes, ConnectionId, Event, KnownName, Moment};
use crate::health::Gaps;
use crate::process::{LeftOut, Process, ProcessId};
use crate::totals::Standings;

/// Cheap to clone and to send: a sink may hand it to a thread of its own.
#[derive(Debug, Clone)]
pub enum Update {
    Event(Event),
    Renamed(Renamed),
    /// Another name of a connection became known, which is not the one that is shown.
    OtherName {
        connection: ConnectionId,
        name: KnownName,
    },
    /// A connection gave reason for an alert after its events were sent.
    Marked(ConnectionId),
    /// To be told, if this is a sink that talks to a person.
    Alert(Arc<Alert>),
    /// What is known of an open connection changed without an event: its state, its local end.
    Changed(Arc<Connection>),
    /// A connection that has no close is gone: an accepted one, a listener.
    Left(ConnectionId),
    /// A process is watched, and is what is said here; sent for sinks that want it
    /// ([`Sink::wants_processes`](crate::sink::Sink::wants_processes)).
    Watched(Arc<Process>),
    /// It is gone, or watched no more.
    Unwatched(ProcessId),
    /// An endpoint was reached of which it is not known what it is. Once an endpoint.
    UnknownEndpoint {
        connection: Arc<Connection>,
        remote: SocketAddr,
    },
    /// So many others were, too fast to be told one by one.
    MoreUnknownEndpoints(u64),
    /// A line for the person at the terminal. Not escaped for one yet.
    Notice(Arc<str>),
    /// Sent whenever the source has been drained.
    Progress(Arc<Progress>),
}

impl From<Event> for Update {
    fn from(event: Event) -> Self {
        Self::Event(event)
    }
}

/// A name became known after the first event of a connection, or a better one than before.
#[derive(Debug, Clone)]
pub struct Renamed {
    pub at: Moment,
    /// With its new name.
    pub connection: Arc<Connection>,
    pub before: Option<KnownName>,
}

/// A warning, with the connection that gave reason for it as it stood.
#[derive(Debug, Clone)]
pub struct Alert {
    pub at: Moment,
    pub reason: Reason,
    pub connection: Arc<Connection>,
}

/// How far an observation has come.
#[derive(Debug, Clone)]
pub struct Progress {
    pub now: Moment,
    pub counters: Counters,
    /// For sinks whose tick is due ([`Sink::next_tick`](crate::sink::Sink::next_tick)), else `None`: they cost more
    /// than the rest.
    pub standings: Option<Standings>,
}

/// The sums that only the pipeline knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Counters {
    /// Connections without a close.
    pub active: u64,
    pub peak_active: u64,
    pub alerts: u64,
    /// Payload so far that left the machine or came to it, and that stayed on it.
    pub away: Bytes,
    pub loopback: Bytes,
    pub left_out: LeftOut,
    /// [`Gap::SqliteDropped`](crate::health::Gap::SqliteDropped) is the store's own and not counted here.
    pub gaps: Gaps,
}

/// What a sink has to say of itself at the end.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct SinkReport {
    /// Events that are not in the database.
    pub sqlite_dropped: u64,
    /// Lines that a log file lacks.
    pub log_lost: u64,
    /// Where the history goes on, if the database that was named was lost.
    pub history_moved: Option<PathBuf>,
    /// The last seal of the history, in hexadecimal digits.
    pub seal_head: Option<String>,
    /// Something that was asked for could not be written.
    pub has_failed: bool,
}

/// What a filter kept back, for the summary.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hidden {
    pub filter: String,
    pub events: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_update_can_be_sent_and_kept_and_is_small() {
        fn is_send_and_clone<T: Send + Sync + Clone + 'static>() {}
        is_send_and_clone::<Update>();
        // A queue of them holds many.
        assert!(size_of::<Update>() <= 64, "{}", size_of::<Update>());
    }
}
