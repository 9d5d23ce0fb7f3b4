//! The thread that writes. A batch is one transaction; one that fails is kept and tried again, while the queue fills and
//! then counts what it cannot take.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use rusqlite::{CachedStatement, Connection, ErrorCode, Transaction, TransactionBehavior, params};

use super::intern::{Interned, RecentRows, integer, keep_name, mark_alert, rename};
use super::open::{OpenProblem, Opened};
use super::prune::{self, Pruner, Slice};
use super::queue::{End, Message, Shared, Work};
use super::rollup::Rollup;
use super::{Finished, Session, StoreOptions};
use crate::event::{Address, Event, EventKind};
use crate::source::health::Gap;

/// Between two tries to write a batch.
const RETRY_PAUSE: Duration = Duration::from_millis(500);

/// The same when everybody waits for the end.
const END_RETRY_PAUSE: Duration = Duration::from_millis(50);

/// How long another program's lock is waited for within a try.
const LOCK_PATIENCE: Duration = Duration::from_secs(1);

/// How long the end of a session is tried to be written.
const END_PATIENCE: Duration = Duration::from_secs(5);

/// 9999-12-31T23:59:59.999Z, the last moment SQLite's date functions know.
const LAST_MOMENT: i64 = 253_402_300_799_999;

const INSERT_EVENT: &str =
    "INSERT INTO event (ts, kind, process, endpoint, local, local_port, remote_port, duration_ms, bytes_sent, bytes_recv)
     VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10)";

/// What was written of a session.
#[derive(Debug, Clone, Copy, Default)]
struct Counters {
    connects: u64,
    closes: u64,
    fails: u64,
    accepts: u64,
    listens: u64,
    bytes_sent: u64,
    bytes_received: u64,
}

impl Counters {
    fn count(&mut self, event: &Event) {
        match event.kind {
            EventKind::Connect => self.connects += 1,
            EventKind::Close => self.closes += 1,
            EventKind::Fail => self.fails += 1,
            EventKind::Accept => self.accepts += 1,
            EventKind::Listen => self.listens += 1,
        }
        // A connection's bytes count once, when it ends.
        if let (EventKind::Close | EventKind::Fail, Some(bytes)) = (event.kind, event.bytes) {
            self.bytes_sent = self.bytes_sent.saturating_add(bytes.sent);
            self.bytes_received = self.bytes_received.saturating_add(bytes.received);
        }
    }

    fn events(&self) -> u64 {
        self.connects + self.closes + self.fails + self.accepts + self.listens
    }
}

/// The file's owner of everything: its connection, and what was written through it.
pub(super) struct Writer {
    connection: Connection,
    /// Holds the lock that says that the session goes on. Stands after the connection, and so is closed after it.
    opened: File,
    ledger: Ledger,
    shared: Arc<Shared>,
    path: PathBuf,
    update_session: String,
    pruner: Option<Pruner>,
    file: Option<FileId>,
    /// Events written before the file was lost, if it was.
    kept: Option<u64>,
}

/// What the rows written so far mean to those that follow.
struct Ledger {
    session: i64,
    interned: Interned,
    recent: RecentRows,
    counters: Counters,
    rollup: Rollup,
}

/// Device and inode.
type FileId = (u64, u64);

impl Writer {
    /// Enters the session.
    pub(super) fn new(
        opened: Opened,
        session: &Session,
        options: &StoreOptions,
        shared: Arc<Shared>,
    ) -> Result<Self, OpenProblem> {
        let Opened { connection, file: opened } = opened;
        let cutoff = options.retain.map(|retain| prune::cutoff(session.started_at, retain));
        let session = enter_session(&connection, &opened, session)?;
        connection.busy_timeout(LOCK_PATIENCE)?;
        Ok(Self {
            connection,
            opened,
            ledger: Ledger {
                session,
                interned: Interned::new(session),
                recent: RecentRows::new(),
                counters: Counters::default(),
                rollup: Rollup::default(),
            },
            shared,
            path: options.path.clone(),
            update_session: update_session(),
            pruner: Some(Pruner::new(session, cutoff)),
            file: file_id(&options.path),
            kept: None,
        })
    }

    /// Writes until the end comes.
    pub(super) fn run(mut self) -> Finished {
        let mut batch = Vec::new();
        // Also where the end comes at once: what is old is hidden.
        self.prune();
        loop {
            let next_slice = self.pruner.as_ref().map(Pruner::due);
            if let Some(work) = self.shared.take(&mut batch, next_slice) {
                let end = work.end;
                let before = self.ledger.counters.events();
                if let Err(error) = self.write(&mut batch, work) {
                    return self.lose(&mut batch, &error);
                }
                self.notice_lost_file(before);
                if end.is_some() {
                    return self.close();
                }
            }
            self.prune();
        }
    }

    /// Removes a little of what is not to be kept. Whatever fails may wait: the next session goes on with it.
    fn prune(&mut self) {
        let Some(pruner) = &mut self.pruner else { return };
        match pruner.slice_if_due(&self.connection, &self.opened) {
            Ok(Slice::NotYet) => {}
            Ok(Slice::Hidden(sessions)) => {
                let path = self.path.display();
                self.shared
                    .notify_user(format!("sqlite: {sessions} old session(s) are being removed from {path}"));
            }
            Ok(Slice::Done) => self.pruner = None,
            Err(error) if is_lock(&error) => {}
            Err(error) => {
                let path = self.path.display();
                self.shared.notify_user(format!("sqlite: cannot remove old sessions from {path}: {error}"));
                self.pruner = None;
            }
        }
    }

    /// Tries until it is written; an error only when the end came and would not wait.
    fn write(&mut self, batch: &mut Vec<Message>, mut work: Work) -> rusqlite::Result<()> {
        let end = work.end;
        let mut failing = false;
        let mut give_up = None;
        loop {
            match self.transaction(batch, &work, end) {
                Ok(names_dropped) => {
                    self.shared.committed(batch, names_dropped);
                    if failing {
                        self.shared.notify_user(format!("sqlite: {} is written again", self.path.display()));
                    }
                    return Ok(());
                }
                Err(error) => {
                    if !failing {
                        failing = true;
                        self.shared.notify_user(self.explain(&error));
                    }
                    if work.end.is_some() {
                        let now = Instant::now();
                        if now >= *give_up.get_or_insert(now + END_PATIENCE) {
                            return Err(error);
                        }
                        thread::sleep(END_RETRY_PAUSE);
                    } else {
                        work = self.shared.pause(RETRY_PAUSE);
                    }
                }
            }
        }
    }

    /// One batch, the session's counters and, where `end` is given, its end: all or nothing. Returns how many names
    /// found no row.
    fn transaction(&mut self, batch: &[Message], work: &Work, end: Option<End>) -> rusqlite::Result<u64> {
        let counters = self.ledger.counters;
        let result = self.write_rows(batch, work, end);
        if result.is_ok() {
            self.ledger.interned.committed();
        } else {
            // SQLite rolls back by itself after some errors.
            if !self.connection.is_autocommit() {
                let _ = self.connection.execute_batch("ROLLBACK");
            }
            self.ledger.interned.rolled_back();
            self.ledger.counters = counters;
            self.ledger.rollup.clear();
        }
        result
    }

    fn write_rows(&mut self, batch: &[Message], work: &Work, end: Option<End>) -> rusqlite::Result<u64> {
        let connection = &self.connection;
        connection.execute_batch("BEGIN IMMEDIATE")?;
        let mut names_dropped = 0;
        {
            let mut insert = connection.prepare_cached(INSERT_EVENT)?;
            for message in batch {
                match message {
                    Message::Event(event) => self.ledger.insert(connection, &mut insert, event)?,
                    Message::Name { connection: id, name, class } => {
                        let mut found = false;
                        for row in self.ledger.recent.get(*id) {
                            if let Some(moved) = rename(connection, row, name, *class)? {
                                self.ledger.rollup.rename(&moved);
                            }
                            found = true;
                        }
                        names_dropped += u64::from(!found);
                    }
                    Message::OtherName { connection: id, name } => {
                        let mut found = false;
                        for row in self.ledger.recent.get(*id) {
                            keep_name(connection, row, name)?;
                            found = true;
                        }
                        names_dropped += u64::from(!found);
                    }
                    Message::Alert { connection: id } => {
                        let mut found = false;
                        for row in self.ledger.recent.get(*id) {
                            mark_alert(connection, row)?;
                            found = true;
                        }
                        names_dropped += u64::from(!found);
                    }
                }
            }
        }
        self.ledger.rollup.write(connection, self.ledger.session)?;
        self.write_counters(work)?;
        if let Some(End::Clean { ended_at }) = end {
            connection.execute(
                "UPDATE session SET ended_at = ?2, clean_exit = 1 WHERE id = ?1",
                params![self.ledger.session, moment(ended_at)],
            )?;
        }
        connection.execute_batch("COMMIT")?;
        Ok(names_dropped)
    }

    fn write_counters(&self, work: &Work) -> rusqlite::Result<()> {
        let Counters { connects, closes, fails, accepts, listens, bytes_sent, bytes_received } =
            self.ledger.counters;
        let mut gaps = work.progress.gaps;
        gaps.set(Gap::SqliteDropped, work.dropped);
        let counts = [
            connects,
            closes,
            fails,
            accepts,
            listens,
            work.progress.active,
            work.progress.peak_active,
            bytes_sent,
            bytes_received,
            work.progress.alerts,
            work.progress.left_out.processes,
            work.progress.left_out.connections,
        ];
        let counts = counts.into_iter().chain(Gap::ALL.map(|gap| gaps.get(gap)));
        let mut update = self.connection.prepare_cached(&self.update_session)?;
        update.raw_bind_parameter(1, self.ledger.session)?;
        for (index, count) in counts.enumerate() {
            update.raw_bind_parameter(index + 2, integer(count))?;
        }
        update.raw_execute().map(drop)
    }

    /// A file that was removed while it is open takes rows without an error, and loses them. `before`: events that were
    /// written when it was last known to be there.
    fn notice_lost_file(&mut self, before: u64) {
        if self.file.is_some() && file_id(&self.path) != self.file {
            self.file = None;
            self.kept = Some(before);
            self.shared.notify_user(format!(
                "sqlite: {} was removed or replaced; what is written from now on is lost, start rano again to go on",
                self.path.display()
            ));
        }
    }

    fn explain(&self, error: &rusqlite::Error) -> String {
        let path = self.path.display();
        let advice = "events wait in the queue; what it cannot hold is dropped and counted";
        match error.sqlite_error_code() {
            _ if is_lock(error) => format!("sqlite: another program has {path} locked; {advice}"),
            Some(ErrorCode::DiskFull) => format!("sqlite: no space left for {path}: free some; {advice}"),
            _ => format!("sqlite: cannot write {path}: {error}; {advice}"),
        }
    }

    /// What is left cannot be written.
    fn lose(self, batch: &mut Vec<Message>, error: &rusqlite::Error) -> Finished {
        let (dropped, names_dropped) = self.shared.give_up(batch);
        let error = format!("{}: the end of the session is not in it: {error}", self.path.display());
        Finished {
            stored: self.ledger.counters.events(),
            dropped,
            names_dropped,
            error: Some(error),
            warnings: Vec::new(),
        }
    }

    fn close(self) -> Finished {
        // With readers about, the log stays and the next to open the file reads it.
        let _ = self.connection.busy_timeout(Duration::ZERO);
        let _ = self.connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()));
        let error =
            self.connection.close().err().map(|(_, error)| format!("close {}: {error}", self.path.display()));
        let written = self.ledger.counters.events();
        let stored = self.kept.unwrap_or(written);
        Finished {
            stored,
            dropped: self.shared.dropped() + (written - stored),
            names_dropped: self.shared.names_dropped(),
            error,
            warnings: Vec::new(),
        }
    }
}

impl Ledger {
    fn insert(
        &mut self,
        connection: &Connection,
        insert: &mut CachedStatement<'_>,
        event: &Event,
    ) -> rusqlite::Result<()> {
        let references = self.interned.references(connection, event)?;
        let duration = event.duration.map(|duration| i64::try_from(duration.as_millis()).unwrap_or(i64::MAX));
        let ts = moment(event.at.unix_ms);
        insert.raw_bind_parameter(1, ts)?;
        insert.raw_bind_parameter(2, references.kind)?;
        insert.raw_bind_parameter(3, references.process)?;
        insert.raw_bind_parameter(4, references.endpoint)?;
        insert.raw_bind_parameter(5, references.local)?;
        insert.raw_bind_parameter(6, port(event.local.as_ref()))?;
        insert.raw_bind_parameter(7, port(event.remote.as_ref()))?;
        insert.raw_bind_parameter(8, duration)?;
        insert.raw_bind_parameter(9, event.bytes.map(|bytes| integer(bytes.sent)))?;
        insert.raw_bind_parameter(10, event.bytes.map(|bytes| integer(bytes.received)))?;
        insert.raw_execute()?;
        let row = connection.last_insert_rowid();
        for name in &event.others {
            keep_name(connection, row, name)?;
        }
        self.recent.insert(event.connection, event.kind, row);
        self.rollup.count(event, &references, row, ts);
        self.counters.count(event);
        Ok(())
    }
}

/// Committed at once, so that a session that is killed is seen; known to go on before anybody else sees it.
fn enter_session(connection: &Connection, file: &File, session: &Session) -> rusqlite::Result<i64> {
    let transaction = Transaction::new_unchecked(connection, TransactionBehavior::Immediate)?;
    let id = insert_session(&transaction, session)?;
    prune::mark_live(file, id);
    transaction.commit()?;
    Ok(id)
}

fn insert_session(connection: &Connection, session: &Session) -> rusqlite::Result<i64> {
    connection
        .prepare(
            "INSERT INTO session (id, run_id, name, started_at, host, user, args, patterns, config_files, source, source_reason, excludes)
             VALUES (1 + max(ifnull((SELECT max(id) FROM session), 0), ifnull((SELECT max(session) FROM pruning), 0)),
                     ?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11)",
        )?
        .insert(params![
            session.run_id,
            session.name,
            moment(session.started_at),
            session.host,
            session.user,
            list(&session.args),
            list(&session.patterns),
            list(&session.config_files),
            session.source.name(),
            session.source_reason,
            list(&session.excludes),
        ])
}

/// Parameter 1 is the session, then the columns in the order of [`Writer::write_counters`].
fn update_session() -> String {
    let columns = [
        "connects",
        "closes",
        "fails",
        "accepts",
        "listens",
        "active",
        "peak_active",
        "bytes_sent",
        "bytes_recv",
        "alerts",
        "excluded_processes",
        "excluded_connections",
    ];
    let columns: Vec<String> = columns
        .into_iter()
        .chain(Gap::ALL.map(Gap::name))
        .enumerate()
        .map(|(index, column)| format!("{column} = ?{}", index + 2))
        .collect();
    format!("UPDATE session SET {} WHERE id = ?1", columns.join(", "))
}

/// Another program's, and so over at some time.
fn is_lock(error: &rusqlite::Error) -> bool {
    matches!(error.sqlite_error_code(), Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked))
}

/// A JSON array.
fn list(items: &[String]) -> String {
    serde_json::to_string(items).expect("strings have a JSON form")
}

/// A clock that is off by ages is moved to the nearest moment that can be shown.
fn moment(unix_ms: i64) -> i64 {
    unix_ms.clamp(0, LAST_MOMENT)
}

fn port(address: Option<&Address>) -> Option<u16> {
    match address? {
        Address::Ip(address) => Some(address.port()),
        Address::Path(_) => None,
    }
}

fn file_id(path: &Path) -> Option<FileId> {
    let stat = rustix::fs::stat(path).ok()?;
    Some((stat.st_dev, stat.st_ino))
}
