//! History in SQLite: the only place that knows SQL. One thread writes, in batches; whoever pushes never waits for it.
//! The names users query (`events`, `sessions`, the `provider_*` views) are views over narrower rows.

mod open;
mod held;
mod defence;
mod sigbus;
mod so_far;
mod open_sum;
mod seal;
mod schema;
mod system;
mod watch;
mod queue;
mod writer;
mod database;
mod ledger;
mod intern;
mod far_end;
mod rollup;
mod prune;
mod read;
#[cfg(any(feature = "serve", feature = "top"))]
mod written;
pub mod query;

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc::sync_channel;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use rustix::thread::CapabilitySet;

use crate::event::SourceKind;
use crate::files::Rights;
use crate::privileges;
use crate::update::{Counters, Update};

use open::open;
pub use open::{OpenError, OpenProblem};
use queue::{End, Shared};
pub use read::History;
pub use seal::SealKey;
use writer::Writer;
#[cfg(any(feature = "serve", feature = "top"))]
pub use written::Written;

#[cfg(test)]
mod tests;

/// Where and how events are stored.
#[derive(Debug, Clone)]
pub struct StoreOptions {
    pub path: PathBuf,
    /// With which it is opened; they are the writing thread's for good.
    pub rights: Rights,
    /// Events that fill a batch; at least 1.
    pub batch_size: usize,
    /// The longest that an event waits for its batch to fill.
    pub flush_interval: Duration,
    /// Events that may wait, those being written included; at least 1.
    pub queue_max: usize,
    /// Sessions that ended longer ago are removed, a part at a time between the batches. `None` keeps all.
    pub retain: Option<Duration>,
    /// What seals are made with; without one anybody who can write the file can make them.
    pub seal_key: Option<SealKey>,
}

/// What is known of a session when it starts.
#[derive(Debug, Clone)]
pub struct Session {
    /// `<pid>-<start in Unix milliseconds>`.
    pub run_id: String,
    pub name: Option<String>,
    /// Unix milliseconds.
    pub started_at: i64,
    pub host: String,
    pub user: String,
    pub args: Vec<String>,
    pub patterns: Vec<String>,
    /// What is left out.
    pub excludes: Vec<String>,
    pub config_files: Vec<String>,
    pub source: SourceKind,
    /// Why it is not a better source.
    pub source_reason: Option<String>,
}

/// How long the end of a session may take: for a lock, for space, for the disk.
const END_PATIENCE: Duration = Duration::from_secs(10);

/// How much longer for each thing that is queued: a hundred times what it takes on a quiet machine.
const PATIENCE_EACH: Duration = Duration::from_millis(1);

/// The same for the thread that was told not to wait any more. One that is stuck in the kernel is left alone.
const LAST_PATIENCE: Duration = Duration::from_secs(2);

/// How the writing went.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finished {
    /// Events in the database.
    pub stored: u64,
    /// Events that are not.
    pub dropped: u64,
    /// Names and alerts that came too late or too many for their rows.
    pub names_dropped: u64,
    /// Why the end could not be written; the session then shows no clean exit.
    pub error: Option<String>,
    /// What a user should be told and was not yet.
    pub warnings: Vec<String>,
    /// Where the history goes on, if the file that was named was lost.
    pub moved_to: Option<PathBuf>,
    /// The last seal of this session, in hexadecimal digits.
    pub head: Option<String>,
}

/// A session being written. Dropping it writes what is queued, without a clean exit.
#[derive(Debug)]
pub struct Store {
    shared: Arc<Shared>,
    writer: Option<JoinHandle<Option<Finished>>>,
}

impl Store {
    /// Opens or makes the database, enters the session and starts to write.
    pub fn start(options: &StoreOptions, session: &Session) -> Result<Self, OpenError> {
        let shared = Arc::new(Shared::new(options));
        let failed = |problem| OpenError { path: options.path.clone(), problem };
        let (options, session, queue) = (options.clone(), session.clone(), Arc::clone(&shared));
        let (begun, outcome) = sync_channel(1);
        let writer = thread::Builder::new()
            .name("rano-store".to_owned())
            .spawn(move || {
                let _ended = Ended(Arc::clone(&queue));
                match begin(&options, &session, queue) {
                    Ok(writer) => {
                        let _ = begun.send(Ok(()));
                        Some(writer.run())
                    }
                    Err(error) => {
                        let _ = begun.send(Err(error));
                        None
                    }
                }
            })
            .map_err(|error| failed(error.into()))?;
        match outcome.recv() {
            Ok(begun) => begun?,
            Err(_) => return Err(failed(OpenProblem::Other("the thread that writes it failed".to_owned()))),
        }
        Ok(Self { shared, writer: Some(writer) })
    }

    /// Queues an event, or what became known of the rows of a connection that were pushed before: a name, which takes
    /// the place of the one they had, another name, an alert. Never waits for the disk: with a full queue it is dropped
    /// and counted. What an observation has come to is written with the next batch. The store has no use for other
    /// updates.
    pub fn push(&self, update: &Update) {
        self.shared.push(update);
    }

    /// Events that were dropped so far.
    pub fn dropped(&self) -> u64 {
        self.shared.dropped()
    }

    /// The file that is written now: another one than was named if that was lost.
    pub fn path(&self) -> PathBuf {
        self.shared.path()
    }

    /// What a user should be told, each thing once or now and then.
    pub fn take_warnings(&self) -> Vec<String> {
        self.shared.take_warnings()
    }

    /// Writes all that is queued and the session's end, and closes the file. Waits a few seconds for a lock or for
    /// space. `ended_at` is in Unix milliseconds.
    pub fn finish(mut self, counters: Counters, ended_at: i64) -> Finished {
        self.shared.count(counters);
        let finished = self
            .end(End::Clean { ended_at })
            .expect("the writer is only taken here and in drop, which comes later");
        Finished { warnings: self.shared.take_warnings(), ..finished }
    }

    fn end(&mut self, end: End) -> Option<Finished> {
        let writer = self.writer.take()?;
        self.shared.end(end);
        let queued = u32::try_from(self.shared.waiting()).unwrap_or(u32::MAX);
        let mut has_ended = self.shared.wait_for_writer(END_PATIENCE + PATIENCE_EACH.saturating_mul(queued));
        if !has_ended {
            self.shared.stop();
            has_ended = self.shared.wait_for_writer(LAST_PATIENCE);
        }
        let finished = has_ended.then(|| writer.join().ok()).flatten().flatten();
        Some(finished.unwrap_or_else(|| Finished {
            stored: 0,
            dropped: self.shared.dropped(),
            names_dropped: 0,
            error: Some("the thread that writes the database failed".to_owned()),
            warnings: Vec::new(),
            moved_to: None,
            head: None,
        }))
    }
}

/// In the thread that writes: SQLite opens and removes files beside the database as long as it is open.
fn begin(options: &StoreOptions, session: &Session, shared: Arc<Shared>) -> Result<Writer, OpenError> {
    let failed = |problem| OpenError { path: options.path.clone(), problem };
    options.rights.take().map_err(|error| failed(error.into()))?;
    let opened = open(&options.path)?;
    // Root owns its files without any.
    privileges::keep_only(CapabilitySet::empty());
    Writer::new(opened, session, options, shared).map_err(failed)
}

/// Tells that the writer ended, however it did.
struct Ended(Arc<Shared>);

impl Drop for Ended {
    fn drop(&mut self) {
        self.0.writer_has_ended();
    }
}

impl Drop for Store {
    fn drop(&mut self) {
        self.end(End::Abandoned);
    }
}
