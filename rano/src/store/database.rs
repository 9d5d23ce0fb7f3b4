//! One file that is written: its connection, what was written through it, and whether it is still what it was.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rusqlite::config::DbConfig;
use rusqlite::ffi::{SQLITE_IOERR_CORRUPTFS, SQLITE_IOERR_SHORT_READ};
use rusqlite::{Connection, ErrorCode, InterruptHandle, Transaction, TransactionBehavior};

use super::defence::{Approval, Budget};
use super::held::HeldFile;
use super::ledger::{Ledger, insert_session};
use super::open::{OpenError, OpenProblem, Opened, open, remove_half_made};
use super::prune::{self, Pruner, Slice};
use super::queue::{End, Work};
use super::read::History;
use super::sigbus::Mappings;
use super::watch::{Loss, Watch, beside};
use super::{SealKey, Session};
use crate::update::Update;

/// How long another program's lock is waited for within a try.
const LOCK_PATIENCE: Duration = Duration::from_secs(1);

/// Statements that are kept prepared: all that a writer has.
const STATEMENTS: usize = 80;

/// Names that are tried for a fresh file.
const NAMES_MAX: u32 = 1000;

/// What a message is granted, as bytes of a file: a hundred times what it takes.
const BYTES_PER_MESSAGE: u64 = 1024;

/// Why nothing was written.
#[derive(Debug)]
pub(super) enum Failure {
    Sql(rusqlite::Error),
    /// The schema is another one by now.
    Schema(OpenProblem),
    /// Found before anything was written.
    Lost(Loss),
}

impl From<rusqlite::Error> for Failure {
    fn from(error: rusqlite::Error) -> Self {
        Self::Sql(error)
    }
}

impl From<Failure> for OpenProblem {
    fn from(failure: Failure) -> Self {
        match failure {
            Failure::Sql(error) => error.into(),
            Failure::Schema(problem) => problem,
            Failure::Lost(loss) => Self::Other(loss.to_string()),
        }
    }
}

impl Failure {
    /// Whether another try in the same file cannot succeed.
    fn is_final(&self) -> bool {
        match self {
            Self::Schema(problem) => matches!(
                problem,
                OpenProblem::Altered(_) | OpenProblem::Index(_) | OpenProblem::Damaged | OpenProblem::Endless
            ),
            Self::Lost(_) => true,
            Self::Sql(error) => match error.sqlite_error_code() {
                Some(
                    ErrorCode::DatabaseCorrupt
                    | ErrorCode::NotADatabase
                    | ErrorCode::ConstraintViolation
                    | ErrorCode::TypeMismatch
                    | ErrorCode::ReadOnly
                    | ErrorCode::SchemaChanged
                    | ErrorCode::FileLockingProtocolFailed
                    | ErrorCode::OperationInterrupted
                    | ErrorCode::Unknown,
                ) => true,
                Some(ErrorCode::SystemIoFailure) => error.sqlite_error().is_some_and(|error| {
                    [SQLITE_IOERR_SHORT_READ, SQLITE_IOERR_CORRUPTFS].contains(&error.extended_code)
                }),
                _ => false,
            },
        }
    }
}

/// Why a file is given up.
#[derive(Debug)]
pub(super) enum GivenUp {
    Lost(Loss),
    Unusable(String),
    /// A newer rano has migrated it, and reads what is in it.
    Outgrown(String),
}

pub(super) struct Database {
    connection: Connection,
    /// Holds the lock that says that the session goes on. Stands after the connection, and so is closed after it.
    file: HeldFile,
    ledger: Ledger,
    approval: Approval,
    budget: Budget,
    mappings: Mappings,
    watch: Watch,
    /// As the user named it.
    path: PathBuf,
    /// Something was written to it and was still there, and so can be.
    proven: bool,
}

impl Database {
    /// Enters the session: committed at once, so that a session that is killed is seen.
    pub(super) fn enter(
        path: PathBuf,
        opened: Opened,
        session: &Session,
        seal_key: Option<SealKey>,
    ) -> Result<Self, OpenProblem> {
        let made = opened.made.clone();
        let entered = Self::begin(path, opened, session, seal_key);
        if let (Err(_), Some(made)) = (&entered, made) {
            remove_half_made(&made);
        }
        entered
    }

    fn begin(
        path: PathBuf,
        opened: Opened,
        session: &Session,
        seal_key: Option<SealKey>,
    ) -> Result<Self, OpenProblem> {
        let Opened { connection, file, mappings, budget, made: _ } = opened;
        connection.set_prepared_statement_cache_capacity(STATEMENTS);
        let mut approval = Approval::default();
        let transaction = Transaction::new_unchecked(&connection, TransactionBehavior::Immediate)?;
        approval.renew(&transaction)?;
        let id = insert_session(&transaction, session)?;
        // Known to go on before anybody else sees it.
        prune::mark_live(&file, id);
        let mut ledger = Ledger::new(id, seal_key);
        ledger.begin(&transaction)?;
        transaction.commit()?;
        ledger.committed();
        connection.busy_timeout(LOCK_PATIENCE)?;
        let watch = Watch::new(&connection, &file, &path, mappings, &approval)?;
        Ok(Self { connection, file, ledger, approval, budget, mappings, watch, path, proven: false })
    }

    /// Beside `path` under a name that nobody has. `first` is the name that the history had in the beginning.
    pub(super) fn fresh(
        first: &Path,
        session: &Session,
        seal_key: Option<SealKey>,
    ) -> Result<Self, OpenError> {
        let path = free_name(first).ok_or_else(|| OpenError {
            path: first.to_owned(),
            problem: OpenProblem::Other("no name is free beside it".to_owned()),
        })?;
        let opened = open(&path)?;
        Self::enter(path.clone(), opened, session, seal_key).map_err(|problem| OpenError { path, problem })
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    pub(super) fn is_proven(&self) -> bool {
        self.proven
    }

    pub(super) fn session(&self) -> i64 {
        self.ledger.session()
    }

    /// Events written to it.
    pub(super) fn events(&self) -> u64 {
        self.ledger.events()
    }

    /// The last seal of the session, in hexadecimal digits.
    pub(super) fn head(&self) -> Option<String> {
        self.ledger.head()
    }

    pub(super) fn triggers(&self) -> usize {
        self.approval.triggers()
    }

    pub(super) fn budget(&self) -> Budget {
        self.budget.clone()
    }

    pub(super) fn interrupt_handle(&self) -> InterruptHandle {
        self.connection.get_interrupt_handle()
    }

    /// It is used in this thread from now on.
    pub(super) fn claim_thread(&self) {
        self.mappings.claim_thread();
    }

    /// One batch, the session's counters and, where `end` is given, its end: all or nothing. Returns how many names
    /// found no row. That it was committed does not mean that it will be found again: see [`Database::why_given_up`].
    pub(super) fn write(&mut self, batch: &[Update], work: &Work, end: Option<End>) -> Result<u64, Failure> {
        self.budget.grant(BYTES_PER_MESSAGE.saturating_mul(batch.len() as u64));
        let result = self.transaction(batch, work, end);
        if result.is_ok() {
            self.ledger.committed();
        } else {
            // SQLite rolls back by itself after some errors.
            if !self.connection.is_autocommit() {
                let _ = self.connection.execute_batch("ROLLBACK");
            }
            self.ledger.rolled_back();
        }
        result
    }

    fn transaction(&mut self, batch: &[Update], work: &Work, end: Option<End>) -> Result<u64, Failure> {
        self.connection.execute_batch("BEGIN IMMEDIATE")?;
        self.approval.renew(&self.connection).map_err(Failure::Schema)?;
        if let Some(loss) = self.watch.look_ahead(&self.file, &self.approval) {
            return Err(Failure::Lost(loss));
        }
        let names_dropped = self.ledger.write(&self.connection, batch, work, end)?;
        self.connection.execute_batch("COMMIT")?;
        Ok(names_dropped)
    }

    /// To be asked after each try to write: whether the file has to be given up, and why.
    pub(super) fn why_given_up<T>(&mut self, result: &Result<T, Failure>) -> Option<GivenUp> {
        if self.budget.is_stopped() {
            return None;
        }
        if let Err(Failure::Lost(loss)) = result {
            return Some(GivenUp::Lost(*loss));
        }
        // The cause is better news than its consequence.
        if let Some(loss) = self.watch.look(&self.connection, &self.file, &self.approval) {
            return Some(GivenUp::Lost(loss));
        }
        let Err(failure) = result else {
            self.proven = true;
            return None;
        };
        if let Failure::Schema(problem @ OpenProblem::Newer { .. }) = failure {
            return Some(GivenUp::Outgrown(problem.to_string()));
        }
        // What fails in a file that is fresh is not the file's fault.
        (self.proven && failure.is_final()).then(|| GivenUp::Unusable(explain(failure)))
    }

    pub(super) fn prune(&mut self, pruner: &mut Pruner) -> Result<Slice, Failure> {
        self.budget.grant(super::defence::bytes_on_disk(&self.path));
        let slice = pruner.slice_if_due(&self.connection, &self.file, &mut self.approval, &mut self.ledger);
        if slice.is_ok() {
            self.ledger.committed();
        } else {
            self.ledger.rolled_back();
        }
        slice
    }

    /// Closes it in order; an error is in words. With readers about, the log stays and the next to open the file reads
    /// it.
    pub(super) fn close(self) -> Result<(), String> {
        let _ = self.connection.busy_timeout(Duration::ZERO);
        let _ = self.connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()));
        if self.mappings.were_cut() {
            let _ = self.connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true);
            return Err("its index (-shm) was cut short while it was closed".to_owned());
        }
        self.connection.close().map_err(|(_, error)| error.to_string())
    }

    /// Closes it and leaves everything as it is. Returns how many of the session's events can be read from what is
    /// there.
    pub(super) fn give_up(self, why: &GivenUp, run_id: &str) -> u64 {
        let moved = |file: &File| rustix::fs::fstat(file).is_ok_and(|stat| stat.st_nlink > 0);
        let is_whole_elsewhere = match why {
            GivenUp::Lost(Loss::Removed("")) => moved(&self.file) && self.empty_log(),
            // The log has no name any more, but here it is.
            GivenUp::Lost(Loss::Removed("-wal")) => self.empty_log(),
            GivenUp::Outgrown(_) => true,
            GivenUp::Lost(_) | GivenUp::Unusable(_) => false,
        };
        let events = self.ledger.events();
        let _ = self.connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true);
        let Self { connection, file, path, .. } = self;
        drop(connection);
        // Opening the file again takes away what locks this process has on it.
        drop(file);
        if is_whole_elsewhere {
            return events;
        }
        match why {
            // Its log and its index are all that was touched: what they still say is what is left.
            GivenUp::Lost(loss) if !loss.file().is_empty() => stored_events(&path, run_id).min(events),
            GivenUp::Unusable(_) => stored_events(&path, run_id).min(events),
            GivenUp::Lost(_) | GivenUp::Outgrown(_) => 0,
        }
    }

    /// Copies everything from the log into the file; whether all of it.
    fn empty_log(&self) -> bool {
        let mode = rusqlite::wal::CheckpointMode::PASSIVE;
        let copied = self.connection.wal_checkpoint_v2(Some("main"), mode);
        copied.is_ok_and(|(frames, copied)| frames == copied)
    }
}

fn explain(failure: &Failure) -> String {
    match failure {
        Failure::Sql(error) => error.to_string(),
        Failure::Schema(problem) => problem.to_string(),
        Failure::Lost(loss) => loss.to_string(),
    }
}

/// Events of a session, as its own row counts them.
fn stored_events(path: &Path, run_id: &str) -> u64 {
    History::ask(path, |history| history.events_of(run_id)).unwrap_or(0)
}

/// `observer-2.sqlite` for `observer.sqlite`, if nothing of that name is there.
fn free_name(path: &Path) -> Option<PathBuf> {
    let stem = path.file_stem()?.to_owned();
    (2..NAMES_MAX).find_map(|number| {
        let mut name = stem.clone();
        name.push(format!("-{number}"));
        if let Some(ending) = path.extension() {
            name.push(".");
            name.push(ending);
        }
        let path = path.with_file_name(name);
        let is_free = ["", "-wal", "-shm", "-journal"]
            .iter()
            .all(|suffix| rustix::fs::lstat(beside(&path, suffix)).err() == Some(rustix::io::Errno::NOENT));
        is_free.then_some(path)
    })
}
