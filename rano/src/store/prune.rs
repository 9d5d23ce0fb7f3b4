//! Takes out sessions that are older than what is to be kept: all of them are hidden at once, and their rows removed a
//! slice at a time, so that nobody waits. Interned rows stay, because running writers remember their ids; the room that
//! was freed is used again.

use std::fs::File;
use std::time::{Duration, Instant};

use nix::fcntl::{FcntlArg, fcntl};
use rusqlite::{Connection, OptionalExtension as _, Transaction, TransactionBehavior, params};

use super::database::Failure;
use super::defence::Approval;
use super::ledger::Ledger;

/// How long other writers are kept waiting.
const SLICE: Duration = Duration::from_millis(20);

/// The least time between two slices; others take turns in it.
const PAUSE: Duration = Duration::from_millis(20);

/// Ids that are looked at before the clock is.
const STEP: i64 = 1000;

/// Byte of the database file that stands for the session 0: far behind the file's end and the bytes SQLite locks
/// (<https://sqlite.org/fileformat.html#the_lock_byte_page>).
const FIRST_LOCK: i64 = 1 << 60;

/// Sessions that ended before this moment, in Unix milliseconds, are not to be kept.
pub(super) fn cutoff(now_ms: i64, retain: Duration) -> i64 {
    now_ms.saturating_sub(i64::try_from(retain.as_millis()).unwrap_or(i64::MAX))
}

/// Says for as long as the file is open that a session goes on. The kernel takes the lock away when its holder dies. A
/// filesystem without locks has none to look for either: there nothing is pruned.
pub(super) fn mark_live(file: &File, session: i64) {
    let _ = fcntl(file, FcntlArg::F_OFD_SETLK(&lock(libc::F_WRLCK, session)));
}

/// Whether a session goes on, or nobody can tell.
fn is_live(file: &File, session: i64) -> bool {
    let mut lock = lock(libc::F_WRLCK, session);
    fcntl(file, FcntlArg::F_OFD_GETLK(&mut lock)).is_err() || i32::from(lock.l_type) != libc::F_UNLCK
}

fn lock(kind: i32, session: i64) -> libc::flock {
    libc::flock {
        l_type: i16::try_from(kind).expect("a small constant"),
        l_whence: i16::try_from(libc::SEEK_SET).expect("a small constant"),
        l_start: FIRST_LOCK + session,
        l_len: 1,
        // Has to be 0 for locks of open file descriptions (fcntl(2)).
        l_pid: 0,
    }
}

/// How far a slice came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Slice {
    NotYet,
    /// So many sessions were hidden in it.
    Hidden(usize),
    /// Nothing is left to be removed.
    Done,
}

/// Goes on with what another run began, too.
#[derive(Debug)]
pub(super) struct Pruner {
    /// The session that goes on here.
    own: i64,
    /// `None` hides none, or no more.
    cutoff: Option<i64>,
    due: Instant,
}

impl Pruner {
    pub(super) fn new(own: i64, cutoff: Option<i64>) -> Self {
        Self { own, cutoff, due: Instant::now() }
    }

    /// When the next slice is.
    pub(super) fn due(&self) -> Instant {
        self.due
    }

    pub(super) fn slice_if_due(
        &mut self,
        connection: &Connection,
        file: &File,
        approval: &mut Approval,
        ledger: &mut Ledger,
    ) -> Result<Slice, Failure> {
        let begin = Instant::now();
        if begin < self.due {
            return Ok(Slice::NotYet);
        }
        let outcome = self.slice(connection, file, approval, ledger, begin);
        let now = Instant::now();
        self.due = now + PAUSE.max(now - begin);
        outcome
    }

    /// One transaction. The first one hides; an error in it leaves that to the next.
    fn slice(
        &mut self,
        connection: &Connection,
        file: &File,
        approval: &mut Approval,
        ledger: &mut Ledger,
        begin: Instant,
    ) -> Result<Slice, Failure> {
        if self.cutoff.is_none() && next(connection)?.is_none() {
            return Ok(Slice::Done);
        }
        let transaction = Transaction::new_unchecked(connection, TransactionBehavior::Immediate)?;
        approval.renew(&transaction).map_err(Failure::Schema)?;
        if let Some(cutoff) = self.cutoff {
            let hidden = hide(&transaction, file, self.own, cutoff, ledger)?;
            transaction.commit()?;
            self.cutoff = None;
            return Ok(if hidden > 0 { Slice::Hidden(hidden) } else { Slice::NotYet });
        }
        while let Some(rest) = next(&transaction)? {
            rest.remove_some(&transaction)?;
            if begin.elapsed() >= SLICE {
                break;
            }
        }
        transaction.commit()?;
        Ok(Slice::NotYet)
    }
}

/// From then on no view and no question knows of the sessions. Returns how many they are.
fn hide(
    connection: &Connection,
    file: &File,
    own: i64,
    cutoff: i64,
    ledger: &mut Ledger,
) -> rusqlite::Result<usize> {
    let old: Vec<i64> = connection
        .prepare(
            "SELECT id FROM session
             WHERE id <> ?1 AND coalesce(ended_at,
                 (SELECT max(ts) FROM event WHERE event.id IN
                     (SELECT last_event FROM activity WHERE session = session.id ORDER BY hour DESC LIMIT 8)),
                 started_at) < ?2",
        )?
        .query_map([own, cutoff], |row| row.get(0))?
        .collect::<rusqlite::Result<_>>()?;
    let old: Vec<i64> = old.into_iter().filter(|session| !is_live(file, *session)).collect();
    let mut enter = connection.prepare(
        "INSERT INTO pruning (session, next_event, last_event, next_process, last_process)
         SELECT ?1, ifnull(min(first_event), 1), ifnull(max(last_event), 0), 0, -1 FROM activity WHERE session = ?1",
    )?;
    let mut leave = connection.prepare("DELETE FROM activity WHERE session = ?1")?;
    let mut end = connection.prepare("DELETE FROM session WHERE id = ?1")?;
    for session in &old {
        ledger.prune(connection, *session, cutoff)?;
        enter.execute([session])?;
        leave.execute([session])?;
        end.execute([session])?;
    }
    ledger.seal_pruned(connection)?;
    Ok(old.len())
}

/// A row of `pruning`.
#[derive(Debug)]
struct Rest {
    session: i64,
    next_event: i64,
    last_event: i64,
    next_process: i64,
    last_process: i64,
}

fn next(connection: &Connection) -> rusqlite::Result<Option<Rest>> {
    connection
        .prepare_cached(
            "SELECT session, next_event, last_event, next_process, last_process FROM pruning ORDER BY session LIMIT 1",
        )?
        .query_row([], |row| {
            Ok(Rest {
                session: row.get(0)?,
                next_event: row.get(1)?,
                last_event: row.get(2)?,
                next_process: row.get(3)?,
                last_process: row.get(4)?,
            })
        })
        .optional()
}

impl Rest {
    fn remove_some(&self, connection: &Connection) -> rusqlite::Result<()> {
        if self.next_event <= self.last_event {
            self.remove_events(connection)
        } else if self.remove_sums(connection)? {
            Ok(())
        } else if self.next_process <= self.last_process {
            self.remove_processes(connection)
        } else if self.remove_tool_calls(connection)? || self.remove_amendments(connection)? {
            Ok(())
        } else {
            connection
                .prepare_cached("DELETE FROM port_traffic WHERE session = ?1")?
                .execute([self.session])?;
            connection
                .prepare_cached("DELETE FROM pruning WHERE session = ?1")?
                .execute([self.session])
                .map(drop)
        }
    }

    fn remove_events(&self, connection: &Connection) -> rusqlite::Result<()> {
        let (first, last) = (self.next_event, self.last_event.min(self.next_event + STEP - 1));
        let mut delete = connection.prepare_cached(
            "DELETE FROM event WHERE id BETWEEN ?1 AND ?2
             AND (SELECT session FROM process WHERE process.id = event.process) = ?3 RETURNING process",
        )?;
        let mut processes = (self.next_process, self.last_process);
        let mut rows = delete.query([first, last, self.session])?;
        while let Some(row) = rows.next()? {
            let process = row.get(0)?;
            let (first, last) = if processes.0 <= processes.1 { processes } else { (process, process) };
            processes = (first.min(process), last.max(process));
        }
        connection
            .prepare_cached(
                "DELETE FROM event_names WHERE event_id BETWEEN ?1 AND ?2
                 AND NOT EXISTS (SELECT 1 FROM event WHERE event.id = event_id)",
            )?
            .execute([first, last])?;
        connection
            .prepare_cached(
                "UPDATE pruning SET next_event = ?2, next_process = ?3, last_process = ?4 WHERE session = ?1",
            )?
            .execute(params![self.session, last + 1, processes.0, processes.1])
            .map(drop)
    }

    /// Whether there were any left.
    fn remove_sums(&self, connection: &Connection) -> rusqlite::Result<bool> {
        let last: Option<(i64, i64, i64)> = connection
            .prepare_cached(
                "SELECT hour, actor, endpoint FROM traffic WHERE session = ?1
                 ORDER BY hour, actor, endpoint LIMIT 1 OFFSET ?2",
            )?
            .query_row([self.session, STEP], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))
            .optional()?;
        let removed = match last {
            Some((hour, actor, endpoint)) => connection
                .prepare_cached(
                    "DELETE FROM traffic WHERE session = ?1 AND (hour, actor, endpoint) < (?2, ?3, ?4)",
                )?
                .execute([self.session, hour, actor, endpoint])?,
            None => connection
                .prepare_cached("DELETE FROM traffic WHERE session = ?1")?
                .execute([self.session])?,
        };
        Ok(removed > 0)
    }

    /// The same.
    fn remove_tool_calls(&self, connection: &Connection) -> rusqlite::Result<bool> {
        let removed = connection
            .prepare_cached(
                "DELETE FROM tool_call WHERE id IN (SELECT id FROM tool_call WHERE session = ?1 LIMIT ?2)",
            )?
            .execute([self.session, STEP])?;
        Ok(removed > 0)
    }

    /// The same.
    fn remove_amendments(&self, connection: &Connection) -> rusqlite::Result<bool> {
        let removed = connection
            .prepare_cached(
                "DELETE FROM amendment WHERE id IN (SELECT id FROM amendment WHERE session = ?1 LIMIT ?2)",
            )?
            .execute([self.session, STEP])?;
        Ok(removed > 0)
    }

    fn remove_processes(&self, connection: &Connection) -> rusqlite::Result<()> {
        let last = self.last_process.min(self.next_process + STEP - 1);
        connection
            .prepare_cached(
                "DELETE FROM process_traffic WHERE process BETWEEN ?1 AND ?2
                 AND (SELECT session FROM process WHERE process.id = process_traffic.process) = ?3",
            )?
            .execute([self.next_process, last, self.session])?;
        connection
            .prepare_cached("DELETE FROM process WHERE id BETWEEN ?1 AND ?2 AND session = ?3")?
            .execute([self.next_process, last, self.session])?;
        connection
            .prepare_cached("UPDATE pruning SET next_process = ?2 WHERE session = ?1")?
            .execute([self.session, last + 1])
            .map(drop)
    }
}
