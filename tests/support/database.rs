//! Questions to a database that rano wrote, by the contract's names only.

use std::path::Path;

use anyhow::{Context as _, Result};
use rusqlite::{Connection, OpenFlags, Row};

use super::actor::{Transport, Tuple};

/// A row of the view `events`; the columns that the tests look at.
#[derive(Debug, Clone, PartialEq)]
pub struct EventRow {
    pub event: String,
    pub provider: String,
    pub pid: Option<u32>,
    pub comm: Option<String>,
    pub cmdline: Option<String>,
    pub ancestry_path: Option<String>,
    pub duration_ms: Option<i64>,
    pub uid: Option<u32>,
    pub bytes_sent: Option<i64>,
    pub bytes_recv: Option<i64>,
    pub source: String,
    pub owner_quality: String,
    pub preexisting: bool,
}

const COLUMNS: &str = "event, provider, pid, comm, cmdline, ancestry_path, duration_ms, uid, bytes_sent, \
                       bytes_recv, source, owner_quality, preexisting";

impl EventRow {
    fn from_row(row: &Row<'_>) -> rusqlite::Result<Self> {
        Ok(Self {
            event: row.get("event")?,
            provider: row.get("provider")?,
            pid: row.get("pid")?,
            comm: row.get("comm")?,
            cmdline: row.get("cmdline")?,
            ancestry_path: row.get("ancestry_path")?,
            duration_ms: row.get("duration_ms")?,
            uid: row.get("uid")?,
            bytes_sent: row.get("bytes_sent")?,
            bytes_recv: row.get("bytes_recv")?,
            source: row.get("source")?,
            owner_quality: row.get("owner_quality")?,
            preexisting: row.get("preexisting")?,
        })
    }
}

pub struct Database {
    connection: Connection,
}

impl Database {
    /// Read-only; works beside a running writer.
    pub fn open(path: &Path) -> Result<Self> {
        let connection = Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_ONLY)
            .with_context(|| format!("open {}", path.display()))?;
        Ok(Self { connection })
    }

    /// The events of a connection in the order in which they were stored.
    pub fn events_of(&self, transport: Transport, tuple: Tuple) -> Result<Vec<EventRow>> {
        let protocol = match transport {
            Transport::Tcp => "tcp",
            Transport::Udp => "udp",
        };
        let mut statement = self.connection.prepare(&format!(
            "SELECT {COLUMNS} FROM events WHERE proto = ?1 AND local_ip = ?2 AND local_port = ?3 \
             AND remote_ip = ?4 AND remote_port = ?5 ORDER BY id"
        ))?;
        let rows = statement.query_map(
            (
                protocol,
                tuple.local.ip().to_string(),
                tuple.local.port(),
                tuple.remote.ip().to_string(),
                tuple.remote.port(),
            ),
            EventRow::from_row,
        )?;
        rows.collect::<rusqlite::Result<_>>().context("read events")
    }

    pub fn events_of_pid(&self, pid: u32) -> Result<Vec<EventRow>> {
        let mut statement =
            self.connection.prepare(&format!("SELECT {COLUMNS} FROM events WHERE pid = ?1 ORDER BY id"))?;
        let rows = statement.query_map([pid], EventRow::from_row)?;
        rows.collect::<rusqlite::Result<_>>().context("read events")
    }

    /// A single number.
    pub fn count(&self, query: &str) -> Result<i64> {
        self.connection.query_row(query, [], |row| row.get(0)).with_context(|| query.to_owned())
    }

    /// A single text.
    pub fn text(&self, query: &str) -> Result<String> {
        self.connection.query_row(query, [], |row| row.get(0)).with_context(|| query.to_owned())
    }

    /// `ok`, or what is wrong.
    pub fn integrity(&self) -> Result<String> {
        self.text("PRAGMA integrity_check")
    }
}
