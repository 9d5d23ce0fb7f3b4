//! The layout of the database file and how older files become newer ones. `PRAGMA user_version` counts the
//! migrations a file has been through; `PRAGMA application_id` marks the file as rano's.

use rusqlite::Connection;

use super::defence::{self, Purpose};
use super::open::OpenProblem;

/// `RANO` in ASCII, at offset 68 of the file.
pub(super) const APPLICATION_ID: i32 = 0x5241_4e4f;

/// Never edited once released: a change is a further entry.
const MIGRATIONS: [&str; 6] = [
    include_str!("migrations/0001_events.sql"),
    include_str!("migrations/0002_excludes.sql"),
    include_str!("migrations/0003_tool_calls.sql"),
    include_str!("migrations/0004_open.sql"),
    include_str!("migrations/0005_seals.sql"),
    include_str!("migrations/0006_proxies.sql"),
];

/// The schema version this program writes.
pub(super) const VERSION: i32 = 6;
const _: () = assert!(MIGRATIONS.len() == VERSION as usize, "VERSION counts the migrations");

/// The tables they make.
pub(super) const TABLES: [&str; 18] = [
    "session",
    "actor",
    "process",
    "kind",
    "endpoint",
    "address",
    "event",
    "activity",
    "traffic",
    "port_traffic",
    "process_traffic",
    "event_names",
    "pruning",
    "tool_call",
    "directory",
    "seal",
    "amendment",
    "stub",
];

/// Of those tables and their indexes at [`VERSION`], see [`defence::fingerprint`]. A test says what it has to be; a
/// wrong one costs each command that reads a millisecond, and nothing else.
pub(super) const FINGERPRINT: &str = "2a769d1be80ad0c8798fb7d91580758085593da9ccf26427cc68e9ca2b4786a3";

/// What a database file says about itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Identity {
    pub(super) application_id: i32,
    pub(super) user_version: i32,
    /// No table was ever made in it.
    pub(super) empty: bool,
}

impl Identity {
    /// Whether it may be written to, and how many migrations it has been through.
    pub(super) fn judge(self) -> Result<i32, OpenProblem> {
        if self.application_id == APPLICATION_ID {
            return if (0..=VERSION).contains(&self.user_version) {
                Ok(self.user_version)
            } else {
                Err(OpenProblem::Newer { found: self.user_version, known: VERSION })
            };
        }
        if self.empty && self.application_id == 0 && self.user_version == 0 {
            return Ok(0);
        }
        Err(OpenProblem::Foreign)
    }
}

/// Brings the file to [`VERSION`]. Each migration is a transaction of its own; several programs may try at once.
pub(super) fn migrate(connection: &Connection) -> Result<(), OpenProblem> {
    // Without the write lock: a file that is up to date can be opened while others write.
    if identity(connection)?.judge()? == VERSION {
        return Ok(());
    }
    loop {
        connection.execute_batch("BEGIN IMMEDIATE")?;
        let step = next_step(connection);
        connection.execute_batch(if step.is_ok() { "COMMIT" } else { "ROLLBACK" })?;
        if step? {
            return Ok(());
        }
    }
}

/// Runs one migration inside the open transaction; true when none is left.
fn next_step(connection: &Connection) -> Result<bool, OpenProblem> {
    let version = identity(connection)?.judge()?;
    let migration = usize::try_from(version).ok().and_then(|index| MIGRATIONS.get(index));
    let Some(migration) = migration else { return Ok(true) };
    if version > 0 {
        defence::check_schema(connection, version, Purpose::Write)?;
    }
    connection.execute_batch(migration)?;
    connection.pragma_update(None, "application_id", APPLICATION_ID)?;
    connection.pragma_update(None, "user_version", version + 1)?;
    Ok(false)
}

/// For a reader, who changes no file: of one that is older, what is missing is there and empty.
pub(super) fn stand_in(connection: &Connection, version: i32) -> rusqlite::Result<()> {
    if version < VERSION {
        connection.execute_batch(
            "CREATE TEMP VIEW endpoint AS SELECT *, NULL AS domain_port, NULL AS relay_for FROM main.endpoint",
        )?;
    }
    if version >= 3 {
        return Ok(());
    }
    connection.execute_batch(
        "CREATE TEMP VIEW process AS
             SELECT *, NULL AS program, NULL AS cwd, NULL AS call, NULL AS trace_id, NULL AS span_id
             FROM main.process;
         CREATE TEMP TABLE tool_call
             (id INTEGER PRIMARY KEY, session, agent, agent_pid, agent_session, tool, tool_pid, tool_started);
         CREATE TEMP TABLE directory (id INTEGER PRIMARY KEY, path);",
    )
}

/// What the first `version` migrations make, in a database that is empty.
pub(super) fn build(connection: &Connection, version: i32) -> rusqlite::Result<()> {
    let count = usize::try_from(version).unwrap_or(0);
    MIGRATIONS.iter().take(count).try_for_each(|migration| connection.execute_batch(migration))
}

/// The schema version of a database that is rano's.
pub(super) fn version(connection: &Connection) -> Result<i32, OpenProblem> {
    identity(connection)?.judge()
}

/// With brackets a table that somebody gave that name is none that is meant.
fn identity(connection: &Connection) -> rusqlite::Result<Identity> {
    connection.query_row(
        "SELECT (SELECT application_id FROM pragma_application_id()),
                (SELECT user_version FROM pragma_user_version()),
                NOT EXISTS (SELECT 1 FROM sqlite_schema)",
        [],
        |row| Ok(Identity { application_id: row.get(0)?, user_version: row.get(1)?, empty: row.get(2)? }),
    )
}
