//! Sessions as they are stored, and how one is found by what a user calls it.

use rusqlite::{Connection, OptionalExtension as _, Row};
use rustc_hash::FxHashSet;

use super::report::Counts;
use crate::event::Bytes;
use crate::health::{Gap, Gaps};
use crate::process::LeftOut;
use crate::store::History;

/// A stored session. Times are in Unix milliseconds.
#[derive(Debug, Clone)]
pub struct StoredSession {
    pub(super) id: i64,
    pub run_id: String,
    pub name: Option<String>,
    pub started_at: i64,
    /// `None` while it runs, and where it was killed.
    pub ended_at: Option<i64>,
    /// When somebody asked who knows that it goes on.
    pub running_at: Option<i64>,
    /// Time of its last event.
    pub last_event_at: Option<i64>,
    pub host: String,
    pub user: String,
    pub patterns: Vec<String>,
    /// What was left out.
    pub excludes: Vec<String>,
    pub left_out: LeftOut,
    /// `None` where nobody told them apart.
    pub ways: Option<Ways>,
    pub source: String,
    pub source_reason: Option<String>,
    pub clean_exit: bool,
    /// Connections without a close, when it was last written.
    pub active: u64,
    pub peak_active: u64,
    pub alerts: u64,
    pub gaps: Gaps,
}

/// Which way a session's bytes went. Of a connection within the machine whose two ends were watched the bytes count
/// once.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Ways {
    pub away: Bytes,
    pub loopback: Bytes,
}

/// Selects what [`StoredSession::from_row`] reads, from `session`. A reader changes nothing, so that a file may be
/// older than a column: nobody counted then.
pub(super) fn columns(connection: &Connection) -> rusqlite::Result<String> {
    let there = session_columns(connection)?;
    let or = |column: &str, absent: &str| {
        if there.contains(column) { column.to_owned() } else { absent.to_owned() }
    };
    let gaps = Gap::ALL.map(|gap| or(gap.name(), "0")).join(", ");
    let excludes = or("excludes", "'[]'");
    let left_out = ["excluded_processes", "excluded_connections"].map(|column| or(column, "0")).join(", ");
    let ways = ["away_sent", "away_recv", "loopback_sent", "loopback_recv"];
    let ways = ways.map(|column| or(column, "NULL")).join(", ");
    Ok(format!(
        "id, run_id, name, started_at, ended_at,
         (SELECT max(ts) FROM event
          WHERE event.id IN (SELECT last_event FROM activity WHERE session = session.id ORDER BY hour DESC LIMIT 8)),
         host, user, patterns, source, source_reason, clean_exit, active, peak_active, alerts,
         {excludes}, {left_out}, {ways}, {gaps}"
    ))
}

/// Those that the file has.
pub(super) fn session_columns(connection: &Connection) -> rusqlite::Result<FxHashSet<String>> {
    let mut statement = connection.prepare("SELECT name FROM pragma_table_info('session')")?;
    let names = statement.query_map([], |row| row.get(0))?;
    names.collect()
}

impl StoredSession {
    pub(super) fn from_row(row: &Row<'_>) -> rusqlite::Result<Self> {
        let list = |column| -> rusqlite::Result<Vec<String>> {
            let text: String = row.get(column)?;
            Ok(serde_json::from_str(&text).unwrap_or_default())
        };
        let mut gaps = Gaps::default();
        for (index, gap) in Gap::ALL.into_iter().enumerate() {
            gaps.set(gap, count(row, 22 + index)?);
        }
        Ok(Self {
            id: row.get(0)?,
            run_id: row.get(1)?,
            name: row.get(2)?,
            started_at: row.get(3)?,
            ended_at: row.get(4)?,
            running_at: None,
            last_event_at: row.get(5)?,
            host: row.get(6)?,
            user: row.get(7)?,
            patterns: list(8)?,
            excludes: list(15)?,
            left_out: LeftOut { processes: count(row, 16)?, connections: count(row, 17)? },
            ways: match row.get::<_, Option<i64>>(18)? {
                None => None,
                Some(_) => Some(Ways {
                    away: Bytes { sent: count(row, 18)?, received: count(row, 19)? },
                    loopback: Bytes { sent: count(row, 20)?, received: count(row, 21)? },
                }),
            },
            source: row.get(9)?,
            source_reason: row.get(10)?,
            clean_exit: row.get(11)?,
            active: count(row, 12)?,
            peak_active: count(row, 13)?,
            alerts: count(row, 14)?,
            gaps,
        })
    }

    /// The stored end, now for one that goes on, else the last sign of life.
    pub fn end(&self) -> Option<i64> {
        self.ended_at.or(self.running_at).or(self.last_event_at)
    }
}

impl History {
    /// The session that started last.
    pub fn latest_session(&self) -> rusqlite::Result<Option<StoredSession>> {
        let columns = columns(&self.connection)?;
        let sql = format!("SELECT {columns} FROM session ORDER BY started_at DESC, id DESC LIMIT 1");
        self.connection.query_row(&sql, [], StoredSession::from_row).optional()
    }

    /// The session with that run id, else the latest one with that name.
    pub fn session(&self, run_id_or_name: &str) -> rusqlite::Result<Option<StoredSession>> {
        let sql = format!(
            "SELECT {} FROM session WHERE run_id = ?1 OR name = ?1
             ORDER BY run_id = ?1 DESC, started_at DESC, id DESC LIMIT 1",
            columns(&self.connection)?
        );
        self.connection.query_row(&sql, [run_id_or_name], StoredSession::from_row).optional()
    }

    /// The sessions that started last, the last one first.
    pub fn sessions(&self, most: u32) -> rusqlite::Result<Vec<StoredSession>> {
        let columns = columns(&self.connection)?;
        let sql = format!("SELECT {columns} FROM session ORDER BY started_at DESC, id DESC LIMIT ?1");
        let mut statement = self.connection.prepare(&sql)?;
        let rows = statement.query_map([most], StoredSession::from_row)?;
        rows.collect()
    }

    /// How many there are.
    pub fn count_sessions(&self) -> rusqlite::Result<u64> {
        self.connection.query_row("SELECT count(*) FROM session", [], |row| count(row, 0))
    }

    /// For whom a session's processes ran: its agents, else its providers, in order.
    pub fn agents_of(&self, session: &StoredSession) -> rusqlite::Result<Vec<String>> {
        let names = |sql: &str| -> rusqlite::Result<Vec<String>> {
            let mut statement = self.connection.prepare(sql)?;
            statement.query_map([session.id], |row| row.get(0))?.collect()
        };
        let agents = names("SELECT DISTINCT agent FROM tool_call WHERE session = ?1 ORDER BY agent")?;
        if !agents.is_empty() {
            return Ok(agents);
        }
        names("SELECT DISTINCT provider FROM activity WHERE session = ?1 ORDER BY provider")
    }

    /// The largest id of an event; 0 where there is none.
    pub fn last_event(&self) -> rusqlite::Result<i64> {
        self.connection.query_row("SELECT ifnull(max(id), 0) FROM event", [], |row| row.get(0))
    }

    /// The sums that a session's row keeps, without reading its events.
    pub fn session_counts(&self, run_id: &str) -> rusqlite::Result<Option<Counts>> {
        let sql = "SELECT connects, closes, fails, accepts, listens, bytes_sent, bytes_recv FROM session WHERE run_id = ?1";
        self.connection.query_row(sql, [run_id], |row| Counts::from_row(row, 0)).optional()
    }

    /// How many events a session has, by its own count.
    pub(in crate::rooms::store) fn events_of(&self, run_id: &str) -> rusqlite::Result<u64> {
        let sql = "SELECT connects + closes + fails + accepts + listens FROM session WHERE run_id = ?1";
        self.connection.query_row(sql, [run_id], |row| count(row, 0))
    }

    /// Run ids and names of the latest sessions, for a hint.
    pub fn latest_names(&self, most: u32) -> rusqlite::Result<Vec<(String, Option<String>)>> {
        let mut statement = self
            .connection
            .prepare("SELECT run_id, name FROM session ORDER BY started_at DESC, id DESC LIMIT ?1")?;
        let rows = statement.query_map([most], |row| Ok((row.get(0)?, row.get(1)?)))?;
        rows.collect()
    }
}

/// A count; one that somebody made negative is 0.
pub(super) fn count(row: &Row<'_>, column: usize) -> rusqlite::Result<u64> {
    let count: Option<i64> = row.get(column)?;
    Ok(count.and_then(|count| u64::try_from(count).ok()).unwrap_or(0))
}
