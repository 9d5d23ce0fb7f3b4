//! Where understood events go: the store, log files, the terminal. A sink that fails says so once and counts; it
//! never ends the observation.

pub mod alerts;
pub mod log_file;
pub mod shown;
pub mod stats;
pub mod store;
pub mod terminal;

use crate::event::{ConnectionId, Domain, Event, KnownName, Moment};
use crate::output::summary::Summary;
use crate::sink::alerts::Alert;
use crate::source::SourceHealth;
use crate::totals::Totals;

/// What a sink may want to know when time has passed.
pub struct Frame<'a> {
    pub now: Moment,
    pub totals: &'a Totals,
    pub health: &'a SourceHealth,
}

/// One place where events go.
pub trait Sink {
    fn event(&mut self, event: &Event);
    /// A name became known after the connect, or a better one than `before`; `event` is the connection as it stands now.
    fn named(&mut self, _event: &Event, _before: &Domain) {}
    /// Another name became known, which is not the one that is shown.
    fn also_named(&mut self, _connection: ConnectionId, _name: &KnownName) {}
    /// A connection raised an alert after its connect was shown.
    fn alerted(&mut self, _connection: ConnectionId) {}
    /// An alert is to be shown, if this is the sink that talks to a person.
    fn alert(&mut self, _alert: &Alert<'_>) {}
    /// Called whenever the source has been drained, and when a tick that was asked for is due.
    fn tick(&mut self, frame: &Frame<'_>);
    /// When this sink next wants a tick, if it does.
    fn next_tick(&self) -> Option<Moment> {
        None
    }
    /// The last call. A sink that lost something adds it to the summary before later sinks show it.
    fn finish(&mut self, summary: &mut Summary);
    /// Lines for the person at the terminal, emptied by the call.
    fn take_notices(&mut self) -> Vec<String> {
        Vec::new()
    }
    /// Shows another sink's notice, if this is the sink that talks to a person.
    fn notice(&mut self, _line: &str) {}
}
