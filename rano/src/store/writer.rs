//! The thread that writes. A batch is one transaction; one that fails is kept and tried again, while the queue fills
//! and then counts what it cannot take.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use rusqlite::ErrorCode;

use super::database::{Database, Failure, GivenUp};
use super::open::{OpenProblem, Opened, is_size_limit};
use super::prune::{self, Pruner, Slice};
use super::queue::{End, Shared, Work};
use super::{Finished, SealKey, Session, StoreOptions};
use crate::update::Update;

/// Between two tries to write a batch.
const RETRY_PAUSE: Duration = Duration::from_millis(500);

/// The same when everybody waits for the end.
const END_RETRY_PAUSE: Duration = Duration::from_millis(50);

/// How long the end of a session is tried to be written.
const END_PATIENCE: Duration = Duration::from_secs(5);

/// Where this many files in a row hold nothing, the next one would not either.
const IN_VAIN_MAX: u32 = 3;

/// Writes one session, into one file after the other if need be.
pub(super) struct Writer {
    /// `None` while no file can be made.
    database: Option<Database>,
    shared: Arc<Shared>,
    session: Session,
    /// The file that the user named.
    path: PathBuf,
    pruner: Option<Pruner>,
    seal_key: Option<SealKey>,
    /// Events in files that were given up, as far as they can be read there.
    kept: u64,
    /// Events that went with such files.
    lost: u64,
    has_moved: bool,
    /// Files in a row that were given up before anything was known to be kept in them.
    in_vain: u32,
}

impl Writer {
    /// Enters the session.
    pub(super) fn new(
        opened: Opened,
        session: &Session,
        options: &StoreOptions,
        shared: Arc<Shared>,
    ) -> Result<Self, OpenProblem> {
        let cutoff = options.retain.map(|retain| prune::cutoff(session.started_at, retain));
        let database = Database::enter(options.path.clone(), opened, session, options.seal_key.clone())?;
        if database.triggers() > 0 {
            shared.notify_user(format!(
                "sqlite: {} has {} trigger(s) on the tables of rano; they do not run",
                options.path.display(),
                database.triggers()
            ));
        }
        let pruner = Some(Pruner::new(database.session(), cutoff));
        shared.writes_to(&database);
        Ok(Self {
            database: Some(database),
            shared,
            session: session.clone(),
            path: options.path.clone(),
            pruner,
            seal_key: options.seal_key.clone(),
            kept: 0,
            lost: 0,
            has_moved: false,
            in_vain: 0,
        })
    }

    /// Writes until the end comes.
    pub(super) fn run(mut self) -> Finished {
        if let Some(database) = &self.database {
            database.claim_thread();
        }
        let mut batch = Vec::new();
        // Also where the end comes at once: what is old is hidden.
        self.prune();
        loop {
            let next_slice = self.pruner.as_ref().map(Pruner::due);
            if let Some(work) = self.shared.take(&mut batch, next_slice) {
                let end = work.end;
                if let Err(error) = self.write(&mut batch, work) {
                    return self.lose(&mut batch, &error);
                }
                if end.is_some() {
                    return self.close();
                }
            }
            self.prune();
        }
    }

    /// Removes a little of what is not to be kept. Whatever fails may wait: the next session goes on with it.
    fn prune(&mut self) {
        let (Some(pruner), Some(database)) = (&mut self.pruner, &mut self.database) else { return };
        match database.prune(pruner) {
            Ok(Slice::NotYet) => {}
            Ok(Slice::Hidden(sessions)) => {
                let path = self.path.display();
                self.shared
                    .notify_user(format!("sqlite: {sessions} old session(s) are being removed from {path}"));
            }
            Ok(Slice::Done) => self.pruner = None,
            Err(failure) if is_lock(&failure) => {}
            Err(failure) => {
                let path = self.path.display();
                let error = OpenProblem::from(failure);
                self.shared.notify_user(format!("sqlite: cannot remove old sessions from {path}: {error}"));
                self.pruner = None;
            }
        }
    }

    /// Tries until it is written to a file that is there; an error, in words, only when the end came and would not
    /// wait.
    fn write(&mut self, batch: &mut Vec<Update>, mut work: Work) -> Result<(), String> {
        let end = work.end;
        let mut failing = false;
        let mut give_up = None;
        loop {
            let problem = match self.try_to_write(batch, &work, end) {
                Ok(names_dropped) => {
                    self.shared.committed(batch, names_dropped);
                    if failing {
                        let path = self.database.as_ref().map_or(&*self.path, Database::path).display();
                        self.shared.notify_user(format!("sqlite: {path} is written again"));
                    }
                    return Ok(());
                }
                Err(Trouble::GoOn) => continue,
                Err(Trouble::Wait { words, notice }) => {
                    if !failing {
                        failing = true;
                        self.shared.notify_user(notice);
                    }
                    words
                }
            };
            if work.end.is_some() {
                let now = Instant::now();
                if now >= *give_up.get_or_insert(now + END_PATIENCE) || self.shared.is_stopped() {
                    return Err(problem);
                }
                thread::sleep(END_RETRY_PAUSE);
            } else {
                work = self.shared.pause(RETRY_PAUSE);
            }
        }
    }

    fn try_to_write(&mut self, batch: &[Update], work: &Work, end: Option<End>) -> Result<u64, Trouble> {
        if self.database.is_none() {
            self.begin_anew().map_err(|error| Trouble::Wait {
                notice: format!("sqlite: {error}; {ADVICE}"),
                words: error,
            })?;
        }
        let Some(database) = &mut self.database else { return Err(Trouble::GoOn) };
        let before = database.events();
        let work = Work { dropped: work.dropped + self.lost, ..*work };
        let result = database.write(batch, &work, end);
        if let Some(why) = database.why_given_up(&result) {
            self.give_up(&why, before);
            return Err(Trouble::GoOn);
        }
        result.map_err(|failure| Trouble::Wait {
            notice: explain(database.path(), &failure),
            words: OpenProblem::from(failure).to_string(),
        })
    }

    /// The batch that was written last is written again elsewhere; `before` it were so many events.
    fn give_up(&mut self, why: &GivenUp, before: u64) {
        let Some(database) = self.database.take() else { return };
        let path = database.path().to_owned();
        let proven = database.is_proven();
        let kept = database.give_up(why, &self.session.run_id).min(before);
        self.kept += kept;
        self.lost += before - kept;
        self.pruner = None;
        self.in_vain = if proven { 0 } else { self.in_vain + 1 };
        let what = match why {
            GivenUp::Lost(loss) => format!("{}{} {loss}", path.display(), loss.file()),
            GivenUp::Unusable(error) => format!("{} cannot be used any more: {error}", path.display()),
            GivenUp::Outgrown(error) => format!("{} cannot be written any more: {error}", path.display()),
        };
        let lost = match before - kept {
            0 => String::new(),
            lost => format!("; {lost} event(s) of this session are lost with it"),
        };
        match self.begin_anew() {
            Ok(()) => {
                let now = self.database.as_ref().map_or(&*self.path, Database::path).display();
                self.shared.notify_user(format!("sqlite: {what}{lost}; the history goes on in {now}"));
            }
            // Said again with the next try, which is a failure like any other.
            Err(_) => self.shared.notify_user(format!("sqlite: {what}{lost}")),
        }
    }

    fn begin_anew(&mut self) -> Result<(), String> {
        if self.in_vain >= IN_VAIN_MAX {
            return Err(format!("{IN_VAIN_MAX} files beside {} were lost at once", self.path.display()));
        }
        let database = Database::fresh(&self.path, &self.session, self.seal_key.clone())
            .map_err(|error| error.to_string())?;
        self.shared.writes_to(&database);
        self.has_moved = true;
        self.database = Some(database);
        Ok(())
    }

    /// What is left cannot be written.
    fn lose(self, batch: &mut Vec<Update>, error: &str) -> Finished {
        let (dropped, names_dropped) = self.shared.give_up(batch);
        let path = self.database.as_ref().map_or(&*self.path, Database::path);
        let error = format!("{}: the end of the session is not in it: {error}", path.display());
        Finished {
            stored: self.kept + self.database.as_ref().map_or(0, Database::events),
            dropped: dropped + self.lost,
            names_dropped,
            error: Some(error),
            warnings: Vec::new(),
            moved_to: self.moved_to(),
            head: self.database.as_ref().and_then(Database::head),
        }
    }

    fn close(mut self) -> Finished {
        let moved_to = self.moved_to();
        let mut finished = Finished {
            stored: self.kept,
            dropped: self.shared.dropped() + self.lost,
            names_dropped: self.shared.names_dropped(),
            error: None,
            warnings: Vec::new(),
            moved_to,
            head: self.database.as_ref().and_then(Database::head),
        };
        if let Some(database) = self.database.take() {
            finished.stored += database.events();
            let path = database.path().to_owned();
            let error = database.close().err();
            finished.error = error.map(|error| format!("close {}: {error}", path.display()));
        }
        finished
    }

    fn moved_to(&self) -> Option<PathBuf> {
        let path = self.database.as_ref().map_or(&*self.path, Database::path);
        self.has_moved.then(|| path.to_owned())
    }
}

/// Why a batch is not written.
enum Trouble {
    /// In another file it may be, at once.
    GoOn,
    /// Later it may be.
    Wait { words: String, notice: String },
}

const ADVICE: &str = "events wait in the queue; what it cannot hold is dropped and counted";

fn explain(path: &Path, failure: &Failure) -> String {
    let path = path.display();
    match failure {
        _ if is_lock(failure) => format!("sqlite: another program has {path} locked; {ADVICE}"),
        Failure::Sql(error) if error.sqlite_error_code() == Some(ErrorCode::DiskFull) => {
            format!("sqlite: no space left for {path}: free some; {ADVICE}")
        }
        Failure::Sql(error) if is_size_limit(error) => {
            format!("sqlite: a limit of file sizes (ulimit -f) does not let {path} grow; {ADVICE}")
        }
        Failure::Sql(error) => format!("sqlite: cannot write {path}: {error}; {ADVICE}"),
        Failure::Schema(problem) => format!("sqlite: cannot write {path}: {problem}; {ADVICE}"),
        Failure::Lost(loss) => format!("sqlite: cannot write {path}: it {loss}; {ADVICE}"),
    }
}

/// Another program's, and so over at some time.
fn is_lock(failure: &Failure) -> bool {
    match failure {
        Failure::Sql(error) => {
            matches!(error.sqlite_error_code(), Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked))
        }
        Failure::Schema(problem) => *problem == OpenProblem::Locked,
        Failure::Lost(_) => false,
    }
}
