//! A database file is what somebody else may have written, also while it is open. Nothing in it is run: no trigger, no
//! view, no expression; rano's own tables have to be as its migrations made them, and no statement goes on for ever.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};

use rusqlite::config::DbConfig;
use rusqlite::limits::Limit;
use rusqlite::{Connection, Row};
use sha2::{Digest as _, Sha256};

use super::open::OpenProblem;
use super::schema;

/// Settings of SQLite that keep what a file holds from acting (<https://sqlite.org/security.html>).
const SETTINGS: [(DbConfig, bool); 8] = [
    (DbConfig::SQLITE_DBCONFIG_DEFENSIVE, true),
    (DbConfig::SQLITE_DBCONFIG_TRUSTED_SCHEMA, false),
    (DbConfig::SQLITE_DBCONFIG_ENABLE_TRIGGER, false),
    // rano asks its tables only; the views in the file are for other programs.
    (DbConfig::SQLITE_DBCONFIG_ENABLE_VIEW, false),
    // References are kept by construction, and checking four of them would double the cost of an event; somebody else's
    // could delete rows.
    (DbConfig::SQLITE_DBCONFIG_ENABLE_FKEY, false),
    (DbConfig::SQLITE_DBCONFIG_DQS_DML, false),
    (DbConfig::SQLITE_DBCONFIG_DQS_DDL, false),
    (DbConfig::SQLITE_DBCONFIG_ENABLE_ATTACH_WRITE, false),
];

/// The longest text that rano writes is a session's arguments: Linux takes 2 MiB of them by default.
const LONGEST: i32 = 32 << 20;

const LIMITS: [(Limit, i32); 5] = [
    (Limit::SQLITE_LIMIT_LENGTH, LONGEST),
    (Limit::SQLITE_LIMIT_SQL_LENGTH, 1 << 20),
    (Limit::SQLITE_LIMIT_ATTACHED, 0),
    (Limit::SQLITE_LIMIT_TRIGGER_DEPTH, 1),
    (Limit::SQLITE_LIMIT_WORKER_THREADS, 0),
];

/// To be called before the first statement, which is what reads the schema.
pub(super) fn harden(connection: &Connection) -> rusqlite::Result<()> {
    for (setting, on) in SETTINGS {
        connection.set_db_config(setting, on)?;
    }
    for (limit, most) in LIMITS {
        connection.set_limit(limit, most)?;
    }
    connection.pragma_update(None, "cell_size_check", true)
}

/// Instructions of SQLite's machine between two looks at the budget: some microseconds.
const STEP: i32 = 1000;

/// What a question may take whatever the size of the file: some tenths of a second.
const LEAST_BUDGET: i64 = 20_000_000;

/// The same for each byte that was really written to the file. An export of every field takes less than ten.
const BUDGET_PER_BYTE: i64 = 200;

/// How many instructions are left. A file whose pages point at each other in circles has rows without end; a sound one
/// has no more than it has room for.
#[derive(Debug, Clone, Default)]
pub(super) struct Budget(Arc<Account>);

#[derive(Debug, Default)]
struct Account {
    steps: AtomicI64,
    stopped: AtomicBool,
}

impl Budget {
    /// Ends statements of the connection that take more than they are granted.
    pub(super) fn bind(&self, connection: &mut Connection) -> rusqlite::Result<()> {
        let account = Arc::clone(&self.0);
        let over = move || {
            account.steps.fetch_sub(STEP.into(), Ordering::Relaxed) <= 0
                || account.stopped.load(Ordering::Relaxed)
        };
        connection.progress_handler(STEP, Some(over))
    }

    /// For what is done next, in a database of so many bytes.
    pub(super) fn grant(&self, bytes: u64) {
        let bytes = i64::try_from(bytes).unwrap_or(i64::MAX);
        let steps = LEAST_BUDGET.saturating_add(bytes.saturating_mul(BUDGET_PER_BYTE));
        self.0.steps.store(steps, Ordering::Relaxed);
    }

    /// Whatever runs now or begins later ends at once.
    pub(super) fn stop(&self) {
        self.0.stopped.store(true, Ordering::Relaxed);
    }

    pub(super) fn is_stopped(&self) -> bool {
        self.0.stopped.load(Ordering::Relaxed)
    }
}

/// Bytes of a database and its log that take room on the disk: a file can be made to look larger for nothing.
pub(super) fn bytes_on_disk(database: &Path) -> u64 {
    let mut log = database.as_os_str().to_owned();
    log.push("-wal");
    [database.as_os_str(), &log]
        .iter()
        .filter_map(|path| rustix::fs::stat(*path).ok())
        .map(|stat| u64::try_from(stat.st_size.min(stat.st_blocks.saturating_mul(512))).unwrap_or(0))
        .sum()
}

/// What a table's or an index's row in `sqlite_schema` says.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Object {
    kind: String,
    name: String,
    table: String,
    sql: Option<String>,
}

impl Object {
    fn from_row(row: &Row<'_>) -> rusqlite::Result<Self> {
        Ok(Self { kind: row.get(0)?, name: row.get(1)?, table: row.get(2)?, sql: row.get(3)? })
    }
}

/// The schema of a file that is written, as it was found good.
#[derive(Debug, Default)]
pub(super) struct Approval {
    cookie: Option<i64>,
    triggers: usize,
}

impl Approval {
    /// To be asked within each transaction that writes: others may change the schema between two of them. SQLite itself
    /// reads it anew only when this number has changed (<https://sqlite.org/pragma.html#pragma_schema_version>).
    pub(super) fn renew(&mut self, connection: &Connection) -> Result<(), OpenProblem> {
        let number = |pragma| connection.prepare_cached(pragma)?.query_row([], |row| row.get(0));
        // A migration of a newer rano may leave the tables of this one alone, and give their rows another meaning.
        if number("PRAGMA main.user_version")? != i64::from(schema::VERSION) {
            schema::version(connection)?;
        }
        let cookie = number("PRAGMA main.schema_version")?;
        if self.cookie != Some(cookie) {
            self.triggers = check_schema(connection, schema::VERSION, Purpose::Write)?;
            self.cookie = Some(cookie);
        }
        Ok(())
    }

    pub(super) fn cookie(&self) -> Option<i64> {
        self.cookie
    }

    /// Somebody's triggers on rano's tables. They do not run.
    pub(super) fn triggers(&self) -> usize {
        self.triggers
    }
}

/// What the file may hold beside rano's own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Purpose {
    /// Indexes are never looked into for a row that is not there.
    Read,
    /// An index is kept up to date with each row, and so must not compute anything, nor refuse a row.
    Write,
}

/// The tables and indexes that the migrations up to `version` make.
pub(super) fn expected(version: i32) -> rusqlite::Result<Vec<Object>> {
    let connection = Connection::open_in_memory()?;
    schema::build(&connection, version)?;
    let mut statement = connection
        .prepare("SELECT type, name, tbl_name, sql FROM sqlite_schema WHERE type IN ('table', 'index')")?;
    statement.query_map([], Object::from_row)?.collect()
}

/// Compares rano's own tables with what migrations up to `version` make of them; a user's further tables, views and
/// indexes may stand beside them. To be asked within the transaction that relies on the answer, and again when the
/// schema changed. Returns how many triggers wait for rano's rows, in vain.
pub(super) fn check_schema(
    connection: &Connection,
    version: i32,
    purpose: Purpose,
) -> Result<usize, OpenProblem> {
    let mut triggers = 0;
    let mut found = Vec::new();
    let mut statement = connection.prepare("SELECT type, name, tbl_name, sql FROM main.sqlite_schema")?;
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        let is_own = |table: &str| schema::TABLES.iter().any(|own| own.eq_ignore_ascii_case(table));
        if !row.get_ref(2)?.as_str().is_ok_and(is_own) {
            continue;
        }
        let object = Object::from_row(row)?;
        if object.kind == "trigger" {
            triggers += 1;
        } else {
            found.push(object);
        }
    }
    // To make them is dear.
    if version != schema::VERSION || fingerprint(&mut found) != schema::FINGERPRINT {
        compare(connection, expected(version)?, &found, purpose)?;
    }
    Ok(triggers)
}

fn compare(
    connection: &Connection,
    mut missing: Vec<Object>,
    found: &[Object],
    purpose: Purpose,
) -> Result<(), OpenProblem> {
    for object in found {
        if let Some(place) = missing.iter().position(|expected| expected == object) {
            missing.swap_remove(place);
        } else if object.kind != "index" {
            return Err(altered(object));
        } else if purpose == Purpose::Write {
            check_index(connection, object)?;
        }
    }
    missing.first().map_or(Ok(()), |object| Err(altered(object)))
}

/// SHA-256 of what the rows of `sqlite_schema` say, whatever their order.
pub(super) fn fingerprint(objects: &mut [Object]) -> String {
    objects.sort_unstable_by(|a, b| (&a.kind, &a.name).cmp(&(&b.kind, &b.name)));
    let mut hash = Sha256::new();
    for Object { kind, name, table, sql } in objects {
        for text in [kind.as_str(), name, table, sql.as_deref().unwrap_or_default()] {
            hash.update((text.len() as u64).to_le_bytes());
            hash.update(text);
        }
    }
    hash.finalize().iter().fold(String::new(), |text, byte| format!("{text}{byte:02x}"))
}

/// Named as rano names it.
fn altered(object: &Object) -> OpenProblem {
    let own = schema::TABLES.iter().find(|own| own.eq_ignore_ascii_case(&object.table));
    OpenProblem::Altered(own.map_or_else(|| object.table.clone(), |own| (*own).to_owned()))
}

/// Somebody else's index on one of rano's tables: columns in an order that SQLite brings with it, and nothing more.
fn check_index(connection: &Connection, index: &Object) -> Result<(), OpenProblem> {
    let refused = || OpenProblem::Index(index.name.clone());
    let plain: Option<bool> = connection
        .prepare("SELECT \"unique\" = 0 AND partial = 0 FROM pragma_index_list(?1, 'main') WHERE name = ?2 COLLATE NOCASE")?
        .query_map([&index.table, &index.name], |row| row.get(0))?
        .next()
        .transpose()?;
    let odd_columns: i64 = connection.query_row(
        "SELECT count(*) FROM pragma_index_xinfo(?1, 'main')
         WHERE cid = -2 OR upper(coll) NOT IN ('BINARY', 'NOCASE', 'RTRIM')",
        [&index.name],
        |row| row.get(0),
    )?;
    if plain == Some(true) && odd_columns == 0 { Ok(()) } else { Err(refused()) }
}
