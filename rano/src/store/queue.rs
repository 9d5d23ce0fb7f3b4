//! Between those who push and the thread that writes: a bounded queue that is handed over whole, so that an event costs
//! an uncontended lock, and the counters of what did not fit.

use std::fmt;
use std::mem;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rusqlite::InterruptHandle;
use rustc_hash::FxHashMap;

use super::StoreOptions;
use super::database::Database;
use super::defence::Budget;
use crate::connection::Connection;
use crate::event::ConnectionId;
use crate::update::{Counters, Update};

/// Between two warnings about the same thing.
const WARNING_INTERVAL: Duration = Duration::from_secs(10);

/// Warnings kept for [`Shared::take_warnings`]; a disk that fails and recovers again and again says it no more often.
const NOTICES_MAX: usize = 8;

/// How a session ends.
#[derive(Debug, Clone, Copy)]
pub(super) enum End {
    Clean {
        /// Unix milliseconds.
        ended_at: i64,
    },
    /// Nobody said that it was over.
    Abandoned,
}

/// What the writer is to do next.
#[derive(Debug)]
pub(super) struct Work {
    pub(super) counters: Counters,
    /// As `sqlite_dropped` stands in the session.
    pub(super) dropped: u64,
    /// Set when nothing will come any more.
    pub(super) end: Option<End>,
}

pub(super) struct Shared {
    state: Mutex<State>,
    wake_writer: Condvar,
    writer_ended: Condvar,
    /// The writer is not waited for any more.
    stopped: AtomicBool,
    batch_size: usize,
    flush_interval: Duration,
    queue_max: usize,
}

#[derive(Default)]
struct State {
    /// The file that is written now.
    path: PathBuf,
    /// Ends what SQLite does there.
    brakes: Option<(Budget, InterruptHandle)>,
    has_writer_ended: bool,
    queue: Vec<Update>,
    /// Open connections of which more bytes are known than were written, as they stand. No more than are open.
    so_far: FxHashMap<ConnectionId, Arc<Connection>>,
    /// When the oldest thing that waits came.
    since: Option<Instant>,
    /// It is written without waiting for more.
    is_due: bool,
    /// Handed over, not yet committed.
    in_flight: usize,
    counters: Counters,
    dropped: u64,
    names_dropped: u64,
    end: Option<End>,
    warned_dropped: u64,
    warned_at: Option<Instant>,
    notices: Vec<String>,
}

impl State {
    /// Counts what will not be in the database.
    fn lose(&mut self, update: &Update) {
        match update {
            Update::Event(_) => {
                self.dropped += 1;
                // The count itself is to be written in time.
                self.since.get_or_insert_with(Instant::now);
            }
            Update::Changed(_) => {}
            _ => self.names_dropped += 1,
        }
    }
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shared").field("queue_max", &self.queue_max).finish_non_exhaustive()
    }
}

impl Shared {
    pub(super) fn new(options: &StoreOptions) -> Self {
        let queue_max = options.queue_max.max(1);
        Self {
            state: Mutex::new(State { path: options.path.clone(), ..State::default() }),
            wake_writer: Condvar::new(),
            writer_ended: Condvar::new(),
            stopped: AtomicBool::new(false),
            batch_size: options.batch_size.clamp(1, queue_max),
            flush_interval: options.flush_interval,
            queue_max,
        }
    }

    /// Queues what the writer needs, and nothing else. Where there is no room it is dropped and counted.
    pub(super) fn push(&self, update: &Update) {
        match update {
            Update::Event(_) | Update::Renamed(_) | Update::OtherName { .. } | Update::Marked(_) => {}
            Update::Progress(progress) => return self.count(progress.counters),
            Update::Changed(connection) => return self.so_far(connection),
            Update::Alert(_)
            | Update::Left(_)
            | Update::Watched(_)
            | Update::Unwatched(_)
            | Update::UnknownEndpoint { .. }
            | Update::MoreUnknownEndpoints(_)
            | Update::Notice(_) => return,
        }
        let mut state = self.lock();
        if state.queue.len() + state.in_flight >= self.queue_max {
            state.lose(update);
            return;
        }
        state.queue.push(update.clone());
        self.queued(state);
    }

    /// The bytes of an open connection, so far. They are written at once: they come as often as a batch is due.
    fn so_far(&self, connection: &Arc<Connection>) {
        if connection.bytes.is_none() {
            return;
        }
        let mut state = self.lock();
        state.so_far.insert(connection.id, Arc::clone(connection));
        state.is_due = true;
        drop(state);
        self.wake_writer.notify_one();
    }

    /// Written with the next batch.
    pub(super) fn count(&self, counters: Counters) {
        let mut state = self.lock();
        if state.counters != counters {
            state.counters = counters;
            self.queued(state);
        }
    }

    pub(super) fn end(&self, end: End) {
        self.lock().end = Some(end);
        self.wake_writer.notify_one();
    }

    /// The file that is written from now on.
    pub(super) fn writes_to(&self, database: &Database) {
        let mut state = self.lock();
        database.path().clone_into(&mut state.path);
        let brakes = (database.budget(), database.interrupt_handle());
        // Stopped just before: this file is too late.
        if self.is_stopped() {
            brakes.0.stop();
        }
        state.brakes = Some(brakes);
    }

    /// The file that is written now.
    pub(super) fn path(&self) -> PathBuf {
        self.lock().path.clone()
    }

    /// Ends whatever SQLite does, now and later.
    pub(super) fn stop(&self) {
        let state = self.lock();
        self.stopped.store(true, Ordering::Release);
        if let Some((budget, handle)) = &state.brakes {
            budget.stop();
            handle.interrupt();
        }
    }

    pub(super) fn is_stopped(&self) -> bool {
        self.stopped.load(Ordering::Acquire)
    }

    /// Updates that are not in the database yet.
    pub(super) fn waiting(&self) -> usize {
        let state = self.lock();
        state.queue.len() + state.in_flight
    }

    pub(super) fn writer_has_ended(&self) {
        self.lock().has_writer_ended = true;
        self.writer_ended.notify_all();
    }

    /// Whether the writer ended before `patience` did.
    pub(super) fn wait_for_writer(&self, patience: Duration) -> bool {
        let deadline = Instant::now() + patience;
        let mut state = self.lock();
        while !state.has_writer_ended {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return false;
            }
            state = self.writer_ended.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
        }
        true
    }

    pub(super) fn dropped(&self) -> u64 {
        self.lock().dropped
    }

    pub(super) fn take_warnings(&self) -> Vec<String> {
        let mut state = self.lock();
        let mut warnings = mem::take(&mut state.notices);
        let silent = state.warned_at.is_none_or(|at| at.elapsed() >= WARNING_INTERVAL);
        if state.dropped > state.warned_dropped && silent {
            warnings.push(format!(
                "sqlite queue full: {} events are not in {} (--db-queue-max {} holds more when it is raised)",
                state.dropped,
                state.path.display(),
                self.queue_max,
            ));
            state.warned_dropped = state.dropped;
            state.warned_at = Some(Instant::now());
        }
        warnings
    }

    /// Waits until a batch is full or due, or until the end, and swaps the queue with `batch`, which is empty. `None`
    /// where none of it came before `until`.
    pub(super) fn take(&self, batch: &mut Vec<Update>, until: Option<Instant>) -> Option<Work> {
        let mut state = self.lock();
        while state.end.is_none() && !state.is_due && state.queue.len() < self.batch_size {
            let flush = state.since.map(|since| self.flush_interval.saturating_sub(since.elapsed()));
            if flush.is_some_and(|left| left.is_zero()) {
                break;
            }
            let left = until.map(|until| until.saturating_duration_since(Instant::now()));
            if left.is_some_and(|left| left.is_zero()) {
                return None;
            }
            state = match flush.into_iter().chain(left).min() {
                Some(left) => self.wait(state, left),
                None => self.wake_writer.wait(state).unwrap_or_else(PoisonError::into_inner),
            };
        }
        mem::swap(&mut state.queue, batch);
        state.since = None;
        state.is_due = false;
        state.in_flight = batch.len();
        // After their events, and without a place in the queue: the next ones would say the same.
        batch.extend(state.so_far.drain().map(|(_, connection)| Update::Changed(connection)));
        Some(Self::work(&state))
    }

    /// Waits for `pause`, or less if the end comes, before a batch that failed is tried again.
    pub(super) fn pause(&self, pause: Duration) -> Work {
        let deadline = Instant::now() + pause;
        let mut state = self.lock();
        while state.end.is_none() {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                break;
            }
            state = self.wait(state, left);
        }
        Self::work(&state)
    }

    /// The batch that was taken last is in the database.
    pub(super) fn committed(&self, batch: &mut Vec<Update>, names_dropped: u64) {
        batch.clear();
        // A burst's memory is given back.
        batch.shrink_to(2 * self.batch_size);
        let mut state = self.lock();
        state.in_flight = 0;
        state.names_dropped += names_dropped;
    }

    /// The batch that was taken last, and what is still queued, will never be in the database. Returns the events and
    /// the names dropped in all.
    pub(super) fn give_up(&self, batch: &mut Vec<Update>) -> (u64, u64) {
        let mut state = self.lock();
        let queue = mem::take(&mut state.queue);
        let before = state.dropped;
        for update in batch.drain(..).chain(queue) {
            state.lose(&update);
        }
        // The queue had room for them.
        state.warned_dropped += state.dropped - before;
        state.in_flight = 0;
        (state.dropped, state.names_dropped)
    }

    pub(super) fn names_dropped(&self) -> u64 {
        self.lock().names_dropped
    }

    pub(super) fn notify_user(&self, notice: String) {
        let mut state = self.lock();
        if state.notices.len() < NOTICES_MAX {
            state.notices.push(notice);
        }
    }

    /// Wakes the writer when a wait begins, so that it sets its alarm, and when a batch is full.
    fn queued(&self, mut state: MutexGuard<'_, State>) {
        let first = state.since.is_none();
        if first {
            state.since = Some(Instant::now());
        }
        let wake = first || state.queue.len() == self.batch_size;
        drop(state);
        if wake {
            self.wake_writer.notify_one();
        }
    }

    fn work(state: &State) -> Work {
        Work { counters: state.counters, dropped: state.dropped, end: state.end }
    }

    /// A panic elsewhere leaves counters and a queue that are still whole.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wait<'a>(&self, state: MutexGuard<'a, State>, timeout: Duration) -> MutexGuard<'a, State> {
        self.wake_writer.wait_timeout(state, timeout).unwrap_or_else(PoisonError::into_inner).0
    }
}
