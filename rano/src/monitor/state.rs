//! What is so now, kept for readers by a sink on the observing thread. The lock is held for one change, or for the
//! copying of a list of pointers; nobody waits for the kernel or for /proc.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rustc_hash::FxHashMap;
use tokio::sync::{broadcast, oneshot};

use super::error::Error;
use super::watch::{ConnectionEvent, Watch};
use crate::connection::Connection;
use crate::event::{Bytes, ConnectionId, Event, EventKind, Moment, Role, SourceKind};
use crate::health::Gaps;
use crate::process::{LeftOut, Process, ProcessId};
use crate::sink::{Sink, SinkReport};
use crate::summary::Summary;
use crate::update::{Renamed, Update};

/// Everything that is known at one moment.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Snapshot {
    /// How far the observation had come.
    pub at: Moment,
    /// When it began.
    pub since: Moment,
    /// What tells of connections.
    pub source: SourceKind,
    /// Why it is not a better one, and what would help.
    pub source_reason: Option<String>,
    /// Where names come from, in words.
    pub names: String,
    /// What works less well than was asked for, in words.
    pub warnings: Vec<String>,
    /// What is open, in the order in which it was first seen. An attempt is not listed before it succeeds.
    pub connections: Vec<Arc<Connection>>,
    /// The processes that are watched, by pid.
    pub processes: Vec<Arc<Process>>,
    /// The sums so far.
    pub totals: Totals,
    /// What may have been missed so far. Nothing is missed silently.
    pub missed: Gaps,
}

/// Sums over an observation.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct Totals {
    /// Connections that were established.
    pub connects: u64,
    /// Those that ended.
    pub closes: u64,
    /// Attempts that never were established.
    pub fails: u64,
    /// Connections that came from a listener.
    pub accepts: u64,
    /// Listeners.
    pub listens: u64,
    /// Connects without a close.
    pub active: u64,
    /// The most that were active at a time.
    pub peak_active: u64,
    /// Payload, of open connections as far as it was read.
    pub bytes: Bytes,
    /// Connects by provider.
    pub providers: BTreeMap<Arc<str>, u64>,
    /// What excludes left out.
    pub left_out: LeftOut,
}

impl Totals {
    fn count(&mut self, kind: EventKind, connection: &Connection) {
        match kind {
            EventKind::Connect => {
                self.connects += 1;
                self.active += 1;
                self.peak_active = self.peak_active.max(self.active);
                *self.providers.entry(Arc::clone(&connection.provider)).or_default() += 1;
            }
            EventKind::Close => {
                self.closes += 1;
                if connection.role == Role::Connect {
                    self.active = self.active.saturating_sub(1);
                }
            }
            EventKind::Fail => self.fails += 1,
            EventKind::Accept => self.accepts += 1,
            EventKind::Listen => self.listens += 1,
        }
    }

    /// The bytes of a connection, in the place of those that were read `before`.
    fn sum(&mut self, bytes: Option<Bytes>, before: Option<Bytes>) {
        let Some(bytes) = bytes else { return };
        let before = before.unwrap_or_default();
        self.bytes.sent = self.bytes.sent.saturating_sub(before.sent).saturating_add(bytes.sent);
        self.bytes.received =
            self.bytes.received.saturating_sub(before.received).saturating_add(bytes.received);
    }
}

/// What was found out when the observation was set up.
#[derive(Debug, Clone, Default)]
pub(super) struct Begun {
    pub(super) at: Moment,
    pub(super) source: SourceKind,
    pub(super) source_reason: Option<String>,
    pub(super) names: String,
    pub(super) warnings: Vec<String>,
}

/// Shared by the observing thread and all readers.
#[derive(Debug)]
pub(super) struct Shared {
    state: Mutex<State>,
    /// Not in the lock: whoever is woken by an event may read at once. `None` when it is over.
    events: Mutex<Option<broadcast::Sender<ConnectionEvent>>>,
}

#[derive(Debug, Default)]
struct State {
    begun: Begun,
    now: Moment,
    /// Those whose end will be noticed.
    open: FxHashMap<ConnectionId, Arc<Connection>>,
    watched: FxHashMap<ProcessId, Arc<Process>>,
    totals: Totals,
    missed: Gaps,
    end: Option<Error>,
}

impl Shared {
    /// `capacity`: events that wait for the slowest reader.
    pub(super) fn new(capacity: usize) -> Self {
        let (events, _) = broadcast::channel(capacity.clamp(1, 1 << 20));
        Self { state: Mutex::default(), events: Mutex::new(Some(events)) }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Each change is complete in itself.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn events(&self) -> MutexGuard<'_, Option<broadcast::Sender<ConnectionEvent>>> {
        self.events.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn begin(&self, begun: Begun) {
        let mut state = self.state();
        state.now = begun.at;
        state.begun = begun;
    }

    /// From now on nothing is read but the totals, and who watches is told that this is the end.
    pub(super) fn end(&self, why: Error) {
        self.state().end.get_or_insert(why);
        *self.events() = None;
    }

    fn read<T>(&self, read: impl FnOnce(&State) -> T) -> Result<T, Error> {
        let state = self.state();
        match &state.end {
            Some(end) => Err(end.clone()),
            None => Ok(read(&state)),
        }
    }

    pub(super) fn connections(
        &self,
        wanted: impl Fn(&Connection) -> bool,
    ) -> Result<Vec<Arc<Connection>>, Error> {
        self.read(|state| state.connections(wanted)).map(in_order)
    }

    pub(super) fn processes(&self) -> Result<Vec<Arc<Process>>, Error> {
        self.read(State::processes).map(by_pid)
    }

    pub(super) fn snapshot(&self) -> Result<Snapshot, Error> {
        let mut snapshot = self.read(|state| {
            let begun = state.begun.clone();
            Snapshot {
                at: state.now,
                since: begun.at,
                source: begun.source,
                source_reason: begun.source_reason,
                names: begun.names,
                warnings: begun.warnings,
                connections: state.connections(|_| true),
                processes: state.processes(),
                totals: state.totals.clone(),
                missed: state.missed,
            }
        })?;
        snapshot.connections = in_order(snapshot.connections);
        snapshot.processes = by_pid(snapshot.processes);
        Ok(snapshot)
    }

    pub(super) fn watch(&self) -> Result<Watch, Error> {
        match &*self.events() {
            Some(events) => Ok(Watch::new(events.subscribe())),
            None => Err(self.state().end.clone().unwrap_or(Error::Over)),
        }
    }

    /// The sums, also after the end; an error where it failed.
    pub(super) fn totals(&self) -> Result<Totals, Error> {
        let state = self.state();
        match &state.end {
            None | Some(Error::Over) => Ok(state.totals.clone()),
            Some(failed) => Err(failed.clone()),
        }
    }

    fn tell(&self, event: ConnectionEvent) {
        if let Some(events) = &*self.events() {
            // Nobody watches: that is no error.
            let _ = events.send(event);
        }
    }
}

impl State {
    fn connections(&self, wanted: impl Fn(&Connection) -> bool) -> Vec<Arc<Connection>> {
        self.open.values().filter(|connection| wanted(connection)).cloned().collect()
    }

    fn processes(&self) -> Vec<Arc<Process>> {
        self.watched.values().cloned().collect()
    }

    fn event(&mut self, Event { kind, connection, .. }: &Event) {
        self.totals.count(*kind, connection);
        match kind {
            EventKind::Connect | EventKind::Accept | EventKind::Listen => {
                if connection.is_followed {
                    self.open.insert(connection.id, Arc::clone(connection));
                }
            }
            EventKind::Close | EventKind::Fail => {
                let before = self.open.remove(&connection.id).and_then(|known| known.bytes);
                self.totals.sum(connection.bytes, before);
            }
        }
    }

    fn changed(&mut self, connection: &Arc<Connection>) {
        if let Some(known) = self.open.get_mut(&connection.id) {
            self.totals.sum(connection.bytes, known.bytes);
            *known = Arc::clone(connection);
        }
    }
}

fn in_order(mut connections: Vec<Arc<Connection>>) -> Vec<Arc<Connection>> {
    connections.sort_unstable_by_key(|connection| connection.id);
    connections
}

fn by_pid(mut processes: Vec<Arc<Process>>) -> Vec<Arc<Process>> {
    processes.sort_unstable_by_key(|process| process.id);
    processes
}

/// How old the bytes of an open connection may be.
const COUNTING: Duration = Duration::from_secs(1);

/// The sink that keeps [`Shared`] as things are.
pub(super) struct Mirror {
    shared: Arc<Shared>,
    /// Told when the source has been drained for the first time.
    ready: Option<oneshot::Sender<Result<(), Error>>>,
}

impl Mirror {
    pub(super) fn new(shared: Arc<Shared>, ready: oneshot::Sender<Result<(), Error>>) -> Self {
        Self { shared, ready: Some(ready) }
    }
}

impl Sink for Mirror {
    fn update(&mut self, update: &Update) {
        match update {
            Update::Event(event) => {
                self.shared.state().event(event);
                let connection = Arc::clone(&event.connection);
                self.shared.tell(match event.kind {
                    EventKind::Connect | EventKind::Accept | EventKind::Listen => {
                        ConnectionEvent::New(connection)
                    }
                    EventKind::Close => ConnectionEvent::Closed(connection),
                    EventKind::Fail => ConnectionEvent::Failed(connection),
                });
            }
            Update::Renamed(Renamed { connection, before, .. }) => {
                self.shared.state().changed(connection);
                let (connection, before) = (Arc::clone(connection), before.clone());
                self.shared.tell(ConnectionEvent::Named { connection, before });
            }
            Update::Changed(connection) => self.shared.state().changed(connection),
            Update::Left(id) => {
                self.shared.state().open.remove(id);
            }
            Update::Watched(process) => {
                self.shared.state().watched.insert(process.id, Arc::clone(process));
            }
            Update::Unwatched(id) => {
                self.shared.state().watched.remove(id);
            }
            Update::Progress(progress) => {
                let mut state = self.shared.state();
                state.now = progress.now;
                state.missed = progress.counters.gaps;
                state.totals.left_out = progress.counters.left_out;
                drop(state);
                if let Some(ready) = self.ready.take() {
                    // Whoever began it may have gone away.
                    let _ = ready.send(Ok(()));
                }
            }
            Update::Notice(line) => self.shared.state().begun.warnings.push(line.to_string()),
            Update::OtherName { .. }
            | Update::Marked(_)
            | Update::Alert(_)
            | Update::UnknownEndpoint { .. }
            | Update::MoreUnknownEndpoints(_) => {}
        }
    }

    fn counts_every(&self) -> Option<Duration> {
        Some(COUNTING)
    }

    fn wants_processes(&self) -> bool {
        true
    }

    fn finish(&mut self, _summary: &Summary) -> SinkReport {
        SinkReport::default()
    }
}
