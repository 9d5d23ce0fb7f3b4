//! Seals: each committed batch is a link of a chain over what it added, so that a later change is found. A seal covers
//! an append-only journal: the first form of each row, and each amendment of it. What changes all the time (counters,
//! bytes of open connections) has a seal of its own in the session's row, until the last batch takes it in.
//!
//! The writer and the check (`query/verify.rs`) share the canonical form here; docs/store.md describes it.

use std::fmt;

use hmac::digest::KeyInit as _;
use hmac::{Hmac, Mac as _};
use rusqlite::types::ValueRef;
use rusqlite::{CachedStatement, Connection, OptionalExtension as _, Params, params};
use sha2::{Digest as _, Sha256};

use super::open_sum::OpenSum;

/// SHA-256, or HMAC-SHA-256 with a key.
pub(super) type Hash = [u8; 32];

/// Says what a link of the chain is; another layout gets another one.
const LINK: &[u8] = b"rano seal 1";

/// The same of what changes all the time.
const STATE: &[u8] = b"rano state 1";

/// A secret that seals are made with.
#[derive(Clone, PartialEq, Eq)]
pub struct SealKey(Vec<u8>);

impl SealKey {
    /// Fewer bytes could be guessed.
    pub const LEAST: usize = 16;

    /// What a key file holds, without white space around it. `None` for less than [`SealKey::LEAST`] bytes.
    pub fn new(bytes: &[u8]) -> Option<Self> {
        let key = bytes.trim_ascii();
        (key.len() >= Self::LEAST).then(|| Self(key.to_vec()))
    }
}

impl fmt::Debug for SealKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SealKey")
    }
}

/// Tables whose rows sessions share, and which never lose one; a seal covers those that are new since the one before.
pub(super) const SHARED: [&str; 5] = ["kind", "endpoint", "address", "directory", "actor"];

/// Columns of `endpoint` when seals came; later ones are sealed where they are not NULL.
const ENDPOINT_COLUMNS: usize = 7;
const LATER_COLUMNS: u8 = 5;

/// What stands in a session's row from its beginning.
pub(super) const SESSION_START: &str = "SELECT id, run_id, name, started_at, host, user, args, patterns, config_files, \
                                        source, source_reason, excludes FROM session WHERE id = ?1";

/// Which part of a row an amendment is of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Field {
    Endpoint = 0,
    Kind = 1,
    /// `after` is the digest of a name, see [`name_digest`].
    NameAdded = 2,
    NameRemoved = 3,
}

/// A row of `seal`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Seal {
    pub(super) id: i64,
    pub(super) session: i64,
    pub(super) is_keyed: bool,
    /// It is the session's last one, and its end was orderly.
    pub(super) ends: bool,
    /// The first id and how many.
    pub(super) events: (i64, i64),
    pub(super) amendments: (i64, i64),
    pub(super) processes: (i64, i64),
    pub(super) calls: (i64, i64),
    /// The last ids of [`SHARED`].
    pub(super) shared_to: [i64; 5],
    /// Of their new rows; `None` where there are none.
    pub(super) shared: Option<Vec<u8>>,
    /// Of the session's new rows.
    pub(super) rows: Vec<u8>,
    pub(super) hash: Vec<u8>,
}

pub(super) const SEAL_COLUMNS: &str = "id, session, keyed, ends, first_event, events, first_amendment, amendments, \
                                       first_process, processes, first_call, calls, kinds, endpoints, addresses, \
                                       directories, actors, shared, rows, hash";

impl Seal {
    pub(super) fn from_row(row: &rusqlite::Row<'_>) -> rusqlite::Result<Self> {
        let pair = |at: usize| -> rusqlite::Result<(i64, i64)> { Ok((row.get(at)?, row.get(at + 1)?)) };
        Ok(Self {
            id: row.get(0)?,
            session: row.get(1)?,
            is_keyed: row.get(2)?,
            ends: row.get(3)?,
            events: pair(4)?,
            amendments: pair(6)?,
            processes: pair(8)?,
            calls: pair(10)?,
            shared_to: [row.get(12)?, row.get(13)?, row.get(14)?, row.get(15)?, row.get(16)?],
            shared: row.get(17)?,
            rows: row.get(18)?,
            hash: row.get(19)?,
        })
    }

    /// The link after the one with the hash `before`.
    pub(super) fn link(&self, before: &[u8], key: Option<&SealKey>) -> Hash {
        let mut bytes = Vec::with_capacity(256);
        put(&mut bytes, ValueRef::Blob(before));
        let numbers = [self.id, self.session, i64::from(self.is_keyed), i64::from(self.ends)];
        let ranges = [self.events, self.amendments, self.processes, self.calls];
        let ranges = ranges.into_iter().flat_map(|(first, count)| [first, count]);
        for number in numbers.into_iter().chain(ranges).chain(self.shared_to) {
            put(&mut bytes, ValueRef::Integer(number));
        }
        put(&mut bytes, self.shared.as_deref().map_or(ValueRef::Null, ValueRef::Blob));
        put(&mut bytes, ValueRef::Blob(&self.rows));
        authenticate(LINK, &bytes, key)
    }
}

/// Of what changes all the time, after the session's link `link`.
pub(super) fn state_hash(link: &[u8], state: &[u8], key: Option<&SealKey>) -> Hash {
    let mut bytes = Vec::with_capacity(64 + state.len());
    put(&mut bytes, ValueRef::Blob(link));
    bytes.extend_from_slice(state);
    authenticate(STATE, &bytes, key)
}

fn authenticate(what: &[u8], bytes: &[u8], key: Option<&SealKey>) -> Hash {
    match key {
        None => Sha256::new().chain_update(what).chain_update(bytes).finalize().into(),
        Some(SealKey(key)) => {
            let mac = Hmac::<Sha256>::new_from_slice(key).expect("HMAC takes keys of any length");
            mac.chain_update(what).chain_update(bytes).finalize().into_bytes().into()
        }
    }
}

/// Counters by name that are not zero, in the order of their names; then the sum of open connections.
pub(super) fn state_bytes<'a>(mut counters: Vec<(&'a str, ValueRef<'a>)>, open: &OpenSum) -> Vec<u8> {
    counters.retain(|(_, value)| !matches!(value, ValueRef::Null | ValueRef::Integer(0)));
    counters.sort_unstable_by_key(|(name, _)| *name);
    let mut bytes = Vec::with_capacity(512);
    for (name, value) in counters {
        put(&mut bytes, ValueRef::Text(name.as_bytes()));
        put(&mut bytes, value);
    }
    put(&mut bytes, ValueRef::Blob(&open.digest()));
    bytes
}

/// One value, so that two lists of values never look the same: its type, then a number of a variable length, or the
/// length and the bytes.
pub(super) fn put(bytes: &mut Vec<u8>, value: ValueRef<'_>) {
    match value {
        ValueRef::Null => bytes.push(0),
        ValueRef::Integer(number) => {
            bytes.push(1);
            #[expect(clippy::cast_sign_loss, reason = "zigzag: small numbers of either sign are short")]
            put_length(bytes, ((number << 1) ^ (number >> 63)) as u64);
        }
        ValueRef::Real(number) => {
            bytes.push(2);
            bytes.extend_from_slice(&number.to_bits().to_le_bytes());
        }
        ValueRef::Text(text) => {
            bytes.push(3);
            put_length(bytes, text.len() as u64);
            bytes.extend_from_slice(text);
        }
        ValueRef::Blob(blob) => {
            bytes.push(4);
            put_length(bytes, blob.len() as u64);
            bytes.extend_from_slice(blob);
        }
    }
}

fn put_length(bytes: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        bytes.push(u8::try_from(number & 0x7f).expect("seven bits") | 0x80);
        number >>= 7;
    }
    bytes.push(u8::try_from(number).expect("seven bits"));
}

/// All columns of all rows of a query, in order. Returns how many rows there are.
pub(super) fn put_rows(
    bytes: &mut Vec<u8>,
    statement: &mut CachedStatement<'_>,
    params: impl Params,
) -> rusqlite::Result<i64> {
    let columns = statement.column_count();
    let mut rows = statement.query(params)?;
    let mut count = 0;
    while let Some(row) = rows.next()? {
        for column in 0..columns {
            put(bytes, row.get_ref(column)?);
        }
        count += 1;
    }
    Ok(count)
}

/// The same of shared rows. Columns that a table got later stand behind a mark that no value begins with, and only
/// where they say something: rows that are older keep their seal.
fn put_shared(
    bytes: &mut Vec<u8>,
    table: &str,
    statement: &mut CachedStatement<'_>,
    params: impl Params,
) -> rusqlite::Result<i64> {
    let columns = statement.column_count();
    let first = if table == "endpoint" { ENDPOINT_COLUMNS.min(columns) } else { columns };
    let mut rows = statement.query(params)?;
    let mut count = 0;
    while let Some(row) = rows.next()? {
        for column in 0..first {
            put(bytes, row.get_ref(column)?);
        }
        let mut later = Vec::new();
        for column in first..columns {
            later.push(row.get_ref(column)?);
        }
        if later.iter().any(|value| *value != ValueRef::Null) {
            bytes.push(LATER_COLUMNS);
            for value in later {
                put(bytes, value);
            }
        }
        count += 1;
    }
    Ok(count)
}

/// A name that an event may go by, in an amendment.
pub(super) fn name_digest(name: &str, source: &str) -> [u8; 16] {
    let mut bytes = Vec::with_capacity(name.len() + source.len() + 8);
    put(&mut bytes, ValueRef::Text(name.as_bytes()));
    put(&mut bytes, ValueRef::Text(source.as_bytes()));
    let hash: Hash = Sha256::digest(&bytes).into();
    let mut short = [0; 16];
    short.copy_from_slice(&hash[..16]);
    short
}

/// What the rows of [`SHARED`] from `after` up to `to` say. Not all at once: an old file may have very many.
pub(super) fn shared_hash(
    connection: &Connection,
    after: [i64; 5],
    to: [i64; 5],
) -> rusqlite::Result<Option<Hash>> {
    if after == to {
        return Ok(None);
    }
    let mut hash = Sha256::new();
    let mut bytes = Vec::new();
    for (index, table) in SHARED.into_iter().enumerate() {
        let (mut from, to) = (after[index], to[index]);
        while from < to {
            let until = to.min(from.saturating_add(1000));
            let mut statement = connection
                .prepare_cached(&format!("SELECT * FROM {table} WHERE id > ?1 AND id <= ?2 ORDER BY id"))?;
            put(&mut bytes, ValueRef::Text(table.as_bytes()));
            let count = put_shared(&mut bytes, table, &mut statement, [from, until])?;
            put(&mut bytes, ValueRef::Integer(count));
            hash.update(&bytes);
            bytes.clear();
            from = until;
        }
    }
    Ok(Some(hash.finalize().into()))
}

/// The parts of a seal's `rows` that are read back from tables, the same for the writer and the check. `begins`: it is
/// the session's first seal. Returns how many rows of each range there are.
pub(super) fn put_parts(
    bytes: &mut Vec<u8>,
    connection: &Connection,
    seal: &Seal,
    begins: bool,
) -> rusqlite::Result<[i64; 2]> {
    if begins {
        put_rows(bytes, &mut connection.prepare_cached(SESSION_START)?, [seal.session])?;
    }
    let mut counts = [0; 2];
    let ranges = [("process", seal.processes), ("tool_call", seal.calls)];
    for (index, (table, (first, count))) in ranges.into_iter().enumerate() {
        if count > 0 {
            let sql =
                format!("SELECT * FROM {table} WHERE id >= ?1 AND id < ?2 AND session = ?3 ORDER BY id");
            let range = params![first, first.saturating_add(count), seal.session];
            counts[index] = put_rows(bytes, &mut connection.prepare_cached(&sql)?, range)?;
        }
    }
    let sql = "SELECT session, run_id, started_at, ended_at, events, pruned_before, seal FROM stub
               WHERE seal = ?1 ORDER BY session";
    put_rows(bytes, &mut connection.prepare_cached(sql)?, [seal.id])?;
    Ok(counts)
}

/// What is sealed next.
#[derive(Debug, Default)]
struct Batch {
    events: Vec<u8>,
    events_range: (i64, i64),
    amendments: Vec<u8>,
    amendments_range: (i64, i64),
    stubs: bool,
}

/// Seals what one session writes into one file.
#[derive(Debug)]
pub(super) struct Sealer {
    key: Option<SealKey>,
    session: i64,
    batch: Batch,
    /// The session's last link: committed, and in the open transaction.
    link: Option<Hash>,
    next_link: Option<Hash>,
}

impl Sealer {
    pub(super) fn new(session: i64, key: Option<SealKey>) -> Self {
        Self { key, session, batch: Batch::default(), link: None, next_link: None }
    }

    /// The session's last link that is committed.
    pub(super) fn head(&self) -> Option<Hash> {
        self.link
    }

    pub(super) fn committed(&mut self) {
        self.link = self.next_link;
        self.clear();
    }

    pub(super) fn rolled_back(&mut self) {
        self.next_link = self.link;
        self.clear();
    }

    fn clear(&mut self) {
        self.batch.events.clear();
        self.batch.amendments.clear();
        self.batch = Batch {
            events: std::mem::take(&mut self.batch.events),
            amendments: std::mem::take(&mut self.batch.amendments),
            ..Batch::default()
        };
    }

    /// A row of `event` as it is written: its id, then its other columns.
    pub(super) fn event(&mut self, row: i64, values: &[Option<i64>]) {
        let batch = &mut self.batch;
        if batch.events_range.1 == 0 {
            batch.events_range.0 = row;
        }
        batch.events_range.1 += 1;
        put(&mut batch.events, ValueRef::Integer(row));
        for value in values {
            put(&mut batch.events, value.map_or(ValueRef::Null, ValueRef::Integer));
        }
    }

    /// An event's endpoint or kind is another one.
    pub(super) fn amend(
        &mut self,
        connection: &Connection,
        event: i64,
        field: Field,
        before: i64,
        after: i64,
    ) -> rusqlite::Result<()> {
        if before == after {
            return Ok(());
        }
        self.enter(connection, event, field, ValueRef::Integer(before), ValueRef::Integer(after))
    }

    /// A name that it may go by was added or removed.
    pub(super) fn name(
        &mut self,
        connection: &Connection,
        event: i64,
        field: Field,
        name: &str,
        source: &str,
    ) -> rusqlite::Result<()> {
        let digest = name_digest(name, source);
        self.enter(connection, event, field, ValueRef::Null, ValueRef::Blob(&digest))
    }

    fn enter(
        &mut self,
        connection: &Connection,
        event: i64,
        field: Field,
        before: ValueRef<'_>,
        after: ValueRef<'_>,
    ) -> rusqlite::Result<()> {
        let row = connection
            .prepare_cached(
                "INSERT INTO amendment (session, event, field, before, after) VALUES (?1, ?2, ?3, ?4, ?5)",
            )?
            .insert(params![
                self.session,
                event,
                field as i64,
                rusqlite::types::ToSqlOutput::Borrowed(before),
                rusqlite::types::ToSqlOutput::Borrowed(after)
            ])?;
        let batch = &mut self.batch;
        if batch.amendments_range.1 == 0 {
            batch.amendments_range.0 = row;
        }
        batch.amendments_range.1 += 1;
        for value in [row, event, field as i64] {
            put(&mut batch.amendments, ValueRef::Integer(value));
        }
        put(&mut batch.amendments, before);
        put(&mut batch.amendments, after);
        Ok(())
    }

    /// A session is taken out; to be called before its rows go. The next seal covers what is left of it.
    pub(super) fn prune(
        &mut self,
        connection: &Connection,
        pruned: i64,
        cutoff: i64,
    ) -> rusqlite::Result<()> {
        connection
            .prepare_cached(
                "INSERT OR REPLACE INTO stub (session, run_id, started_at, ended_at, events, pruned_before, seal)
                 SELECT id, run_id, started_at, ended_at, connects + closes + fails + accepts + listens, ?2,
                        1 + ifnull((SELECT max(id) FROM seal), 0)
                 FROM session WHERE id = ?1",
            )?
            .execute([pruned, cutoff])?;
        self.batch.stubs = true;
        Ok(())
    }

    /// Makes the batch a link of the chain. `processes` and `calls` are the first new id and how many; `state` stands
    /// in the last seal of a session. Where there is nothing to seal there is no link.
    pub(super) fn seal(
        &mut self,
        connection: &Connection,
        [processes, calls]: [(i64, i64); 2],
        state: Option<&[u8]>,
    ) -> rusqlite::Result<()> {
        let begins = self.next_link.is_none();
        let batch = &self.batch;
        let is_empty = batch.events_range.1 == 0
            && batch.amendments_range.1 == 0
            && processes.1 == 0
            && calls.1 == 0
            && !batch.stubs
            && !begins
            && state.is_none();
        if is_empty {
            return Ok(());
        }
        let (before, sealed_to, shared_to) = ends(connection)?;
        let (id, before) = before.map_or((1, Vec::new()), |(id, hash)| (id + 1, hash));
        let mut seal = Seal {
            id,
            session: self.session,
            is_keyed: self.key.is_some(),
            ends: state.is_some(),
            events: batch.events_range,
            amendments: batch.amendments_range,
            processes,
            calls,
            shared_to,
            shared: shared_hash(connection, sealed_to, shared_to)?.map(Vec::from),
            rows: Vec::new(),
            hash: Vec::new(),
        };
        let mut rows = RowsHash::new();
        rows.events(&batch.events);
        rows.end_of_events();
        rows.0.update(&batch.amendments);
        let mut parts = Vec::new();
        put_parts(&mut parts, connection, &seal, begins)?;
        seal.rows = rows.finish(parts, state);
        let link = seal.link(&before, self.key.as_ref());
        seal.hash = link.to_vec();
        insert(connection, &seal)?;
        self.next_link = Some(link);
        Ok(())
    }

    /// The seal of what changes all the time.
    pub(super) fn state(&self, state: &[u8]) -> Option<Hash> {
        self.next_link.map(|link| state_hash(&link, state, self.key.as_ref()))
    }
}

/// `rows` of a seal: events, amendments, then the parts that are read back.
pub(super) struct RowsHash(Sha256);

impl RowsHash {
    pub(super) fn new() -> Self {
        Self(Sha256::new())
    }

    pub(super) fn events(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    pub(super) fn end_of_events(&mut self) {
        self.0.update([0xff]);
    }

    pub(super) fn finish(mut self, parts: Vec<u8>, state: Option<&[u8]>) -> Vec<u8> {
        self.0.update([0xff]);
        self.0.update(parts);
        if let Some(state) = state {
            self.0.update([0xff]);
            self.0.update(state);
        }
        self.0.finalize().to_vec()
    }
}

type LastLink = Option<(i64, Vec<u8>)>;

/// The last link, up to where the shared tables are sealed, and where they end.
fn ends(connection: &Connection) -> rusqlite::Result<(LastLink, [i64; 5], [i64; 5])> {
    let last = connection
        .prepare_cached(
            "SELECT id, hash, kinds, endpoints, addresses, directories, actors FROM seal ORDER BY id DESC LIMIT 1",
        )?
        .query_row([], |row| {
            let sealed = [row.get(2)?, row.get(3)?, row.get(4)?, row.get(5)?, row.get(6)?];
            Ok(((row.get(0)?, row.get(1)?), sealed))
        })
        .optional()?;
    let now = connection
        .prepare_cached(
            "SELECT ifnull((SELECT max(id) FROM kind), 0), ifnull((SELECT max(id) FROM endpoint), 0),
                    ifnull((SELECT max(id) FROM address), 0), ifnull((SELECT max(id) FROM directory), 0),
                    ifnull((SELECT max(id) FROM actor), 0)",
        )?
        .query_row([], |row| Ok([row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?, row.get(4)?]))?;
    Ok(match last {
        Some((link, sealed)) => (Some(link), sealed, now),
        None => (None, [0; 5], now),
    })
}

fn insert(connection: &Connection, seal: &Seal) -> rusqlite::Result<()> {
    let mut insert = connection.prepare_cached(&format!(
        "INSERT INTO seal ({SEAL_COLUMNS})
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16, ?17, ?18, ?19, ?20)"
    ))?;
    insert
        .execute(params![
            seal.id,
            seal.session,
            seal.is_keyed,
            seal.ends,
            seal.events.0,
            seal.events.1,
            seal.amendments.0,
            seal.amendments.1,
            seal.processes.0,
            seal.processes.1,
            seal.calls.0,
            seal.calls.1,
            seal.shared_to[0],
            seal.shared_to[1],
            seal.shared_to[2],
            seal.shared_to[3],
            seal.shared_to[4],
            seal.shared,
            seal.rows,
            seal.hash
        ])
        .map(drop)
}

/// As people copy it.
pub(super) fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::with_capacity(2 * bytes.len()), |text, byte| format!("{text}{byte:02x}"))
}
