//! What is written of a session into one file: its rows, the sums kept beside them, and its counters.

use std::collections::BTreeMap;
use std::sync::Arc;

use rusqlite::types::ValueRef;
use rusqlite::{CachedStatement, Connection, params};

use super::Session;
use super::intern::{Interned, RecentRows, integer, keep_name, mark_alert, rename};
use super::open_sum::OpenSum;
use super::queue::{End, Work};
use super::rollup::{Rollup, stored_bytes};
use super::seal::{SealKey, Sealer, hex, state_bytes};
use super::so_far::{Change, SoFar};
use crate::event::{Address, ConnectionId, Event, EventKind, Role};
use crate::health::Gap;
use crate::update::{Renamed, Update};

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
        if let Some(bytes) = stored_bytes(event) {
            self.bytes_sent = self.bytes_sent.saturating_add(bytes.sent);
            self.bytes_received = self.bytes_received.saturating_add(bytes.received);
        }
    }

    /// What an open connection has come to.
    fn add_bytes(&mut self, (sent, received): Change) {
        self.bytes_sent = self.bytes_sent.saturating_add_signed(sent);
        self.bytes_received = self.bytes_received.saturating_add_signed(received);
    }

    fn events(&self) -> u64 {
        self.connects + self.closes + self.fails + self.accepts + self.listens
    }
}

/// What the rows written so far mean to those that follow.
pub(super) struct Ledger {
    session: i64,
    update_session: String,
    interned: Interned,
    recent: RecentRows,
    so_far: SoFar,
    sealer: Sealer,
    counters: Counters,
    /// Open connections by provider.
    active: BTreeMap<Arc<str>, u64>,
    rollup: Rollup,
    /// As they were before the open transaction.
    before: (Counters, BTreeMap<Arc<str>, u64>),
}

impl Ledger {
    pub(super) fn new(session: i64, seal_key: Option<SealKey>) -> Self {
        Self {
            session,
            update_session: update_session(),
            interned: Interned::new(session),
            recent: RecentRows::new(),
            so_far: SoFar::default(),
            sealer: Sealer::new(session, seal_key),
            counters: Counters::default(),
            rollup: Rollup::default(),
            active: BTreeMap::new(),
            before: Default::default(),
        }
    }

    pub(super) fn session(&self) -> i64 {
        self.session
    }

    /// Events in the file.
    pub(super) fn events(&self) -> u64 {
        self.counters.events()
    }

    /// The last seal of the session, in hexadecimal digits.
    pub(super) fn head(&self) -> Option<String> {
        self.sealer.head().map(|head| hex(&head))
    }

    /// Seals what the session's row says from its beginning, in the transaction that made it.
    pub(super) fn begin(&mut self, connection: &Connection) -> rusqlite::Result<()> {
        self.sealer.seal(connection, self.interned.inserted(), None)?;
        self.seal_stored_state(connection)
    }

    /// Enters that a session is taken out, before it is.
    pub(super) fn prune(
        &mut self,
        connection: &Connection,
        session: i64,
        cutoff: i64,
    ) -> rusqlite::Result<()> {
        self.sealer.prune(connection, session, cutoff)
    }

    /// Seals what was entered of sessions that are taken out.
    pub(super) fn seal_pruned(&mut self, connection: &Connection) -> rusqlite::Result<()> {
        self.sealer.seal(connection, self.interned.inserted(), None)?;
        self.seal_stored_state(connection)
    }

    fn seal_stored_state(&self, connection: &Connection) -> rusqlite::Result<()> {
        let state = stored_state(connection, self.session, self.so_far.sum())?;
        connection
            .execute(
                "UPDATE session SET state_seal = ?2 WHERE id = ?1",
                params![self.session, self.sealer.state(&state)],
            )
            .map(drop)
    }

    pub(super) fn committed(&mut self) {
        self.interned.committed();
        self.so_far.committed();
        self.sealer.committed();
        self.before.0 = self.counters;
        self.before.1.clone_from(&self.active);
    }

    pub(super) fn rolled_back(&mut self) {
        self.interned.rolled_back();
        self.so_far.rolled_back();
        self.sealer.rolled_back();
        self.counters = self.before.0;
        self.active.clone_from(&self.before.1);
        self.rollup.clear();
    }

    /// The rows of a batch, the session's counters and, where `end` is given, its end, into the open transaction.
    /// Returns how many names found no row.
    pub(super) fn write(
        &mut self,
        connection: &Connection,
        batch: &[Update],
        work: &Work,
        end: Option<End>,
    ) -> rusqlite::Result<u64> {
        let mut names_dropped = 0;
        let mut insert = connection.prepare_cached(INSERT_EVENT)?;
        for update in batch {
            let found = match update {
                Update::Event(event) => {
                    self.insert(connection, &mut insert, event)?;
                    true
                }
                Update::Renamed(Renamed { connection: named, .. }) => {
                    self.for_rows(named.id, |row, rollup, sealer| {
                        if let Some(moved) = rename(connection, row, named, sealer)? {
                            rollup.rename(&moved);
                        }
                        Ok(())
                    })?
                }
                Update::OtherName { connection: id, name } => {
                    self.for_rows(*id, |row, _, sealer| keep_name(connection, row, name, sealer))?
                }
                Update::Marked(id) => {
                    self.for_rows(*id, |row, _, sealer| mark_alert(connection, row, sealer))?
                }
                Update::Changed(open) => {
                    let change = self.so_far.read(connection, open, &mut self.rollup)?;
                    self.counters.add_bytes(change);
                    true
                }
                // Never queued.
                Update::Alert(_)
                | Update::Left(_)
                | Update::Watched(_)
                | Update::Unwatched(_)
                | Update::UnknownEndpoint { .. }
                | Update::MoreUnknownEndpoints(_)
                | Update::Notice(_)
                | Update::Progress(_) => true,
            };
            names_dropped += u64::from(!found);
        }
        self.rollup.write(connection, self.session)?;
        let ended_at = match end {
            Some(End::Clean { ended_at }) => Some(moment(ended_at)),
            Some(End::Abandoned) | None => None,
        };
        self.write_counters(connection, work, ended_at)?;
        if let Some(ended_at) = ended_at {
            connection.execute(
                "UPDATE session SET ended_at = ?2, clean_exit = 1 WHERE id = ?1",
                params![self.session, ended_at],
            )?;
        }
        Ok(names_dropped)
    }

    /// Whether any row of the connection is still known.
    fn for_rows(
        &mut self,
        id: ConnectionId,
        mut change: impl FnMut(i64, &mut Rollup, &mut Sealer) -> rusqlite::Result<()>,
    ) -> rusqlite::Result<bool> {
        let mut found = false;
        for row in self.recent.get(id) {
            change(row, &mut self.rollup, &mut self.sealer)?;
            found = true;
        }
        Ok(found)
    }

    /// Seals the batch, and last of all the counters. `ended_at` seals the session's end.
    fn write_counters(
        &mut self,
        connection: &Connection,
        work: &Work,
        ended_at: Option<i64>,
    ) -> rusqlite::Result<()> {
        let Counters { connects, closes, fails, accepts, listens, bytes_sent, bytes_received } =
            self.counters;
        let mut gaps = work.counters.gaps;
        gaps.set(Gap::SqliteDropped, work.dropped);
        let counts = [
            connects,
            closes,
            fails,
            accepts,
            listens,
            work.counters.active,
            work.counters.peak_active,
            bytes_sent,
            bytes_received,
            work.counters.alerts,
            work.counters.away.sent,
            work.counters.away.received,
            work.counters.loopback.sent,
            work.counters.loopback.received,
            work.counters.left_out.processes,
            work.counters.left_out.connections,
        ];
        let counts = counts.into_iter().chain(Gap::ALL.map(|gap| gaps.get(gap)));
        let active = self.active.iter().filter(|(_, active)| **active > 0);
        let active: BTreeMap<&str, u64> = active.map(|(name, active)| (&**name, *active)).collect();
        let active = serde_json::to_string(&active).expect("names and numbers have a JSON form");
        let mut state: Vec<_> = counter_columns()
            .zip(counts.clone())
            .map(|(name, count)| (name, ValueRef::Integer(integer(count))))
            .collect();
        state.push((ACTIVE, ValueRef::Text(active.as_bytes())));
        if let Some(ended_at) = ended_at {
            state.push(("ended_at", ValueRef::Integer(ended_at)));
            state.push(("clean_exit", ValueRef::Integer(1)));
        }
        let state = state_bytes(state, self.so_far.sum());
        self.sealer.seal(connection, self.interned.inserted(), ended_at.map(|_| &*state))?;
        let state_seal = self.sealer.state(&state);
        let mut next = 2;
        let mut update = connection.prepare_cached(&self.update_session)?;
        update.raw_bind_parameter(1, self.session)?;
        for count in counts {
            update.raw_bind_parameter(next, integer(count))?;
            next += 1;
        }
        update.raw_bind_parameter(next, active)?;
        update.raw_bind_parameter(next + 1, state_seal)?;
        update.raw_execute().map(drop)
    }

    /// Accepted ones never count.
    fn count_active(&mut self, event: &Event) {
        let active = self.active.entry(Arc::clone(&event.connection.provider)).or_default();
        match event.kind {
            EventKind::Connect => *active += 1,
            EventKind::Close if event.connection.role == Role::Connect => *active = active.saturating_sub(1),
            EventKind::Close | EventKind::Fail | EventKind::Accept | EventKind::Listen => {}
        }
    }

    fn insert(
        &mut self,
        connection: &Connection,
        insert: &mut CachedStatement<'_>,
        event: &Event,
    ) -> rusqlite::Result<()> {
        let references = self.interned.references(connection, event)?;
        let observed = &*event.connection;
        let duration =
            observed.duration().map(|duration| i64::try_from(duration.as_millis()).unwrap_or(i64::MAX));
        let ts = moment(event.at.unix_ms);
        insert.raw_bind_parameter(1, ts)?;
        insert.raw_bind_parameter(2, references.kind)?;
        insert.raw_bind_parameter(3, references.process)?;
        insert.raw_bind_parameter(4, references.endpoint)?;
        insert.raw_bind_parameter(5, references.local)?;
        insert.raw_bind_parameter(6, port(observed.local.as_ref()))?;
        insert.raw_bind_parameter(7, port(observed.remote.as_ref()))?;
        insert.raw_bind_parameter(8, duration)?;
        let bytes = stored_bytes(event);
        insert.raw_bind_parameter(9, bytes.map(|bytes| integer(bytes.sent)))?;
        insert.raw_bind_parameter(10, bytes.map(|bytes| integer(bytes.received)))?;
        insert.raw_execute()?;
        let row = connection.last_insert_rowid();
        let values = [
            Some(ts),
            Some(references.kind),
            Some(references.process),
            Some(references.endpoint),
            references.local,
            port(observed.local.as_ref()).map(i64::from),
            port(observed.remote.as_ref()).map(i64::from),
            duration,
            bytes.map(|bytes| integer(bytes.sent)),
            bytes.map(|bytes| integer(bytes.received)),
        ];
        self.sealer.event(row, &values);
        for name in &observed.others {
            keep_name(connection, row, name, &mut self.sealer)?;
        }
        self.recent.insert(observed.id, event.kind, row);
        if event.kind == EventKind::Close {
            let change = self.so_far.ended(connection, observed, &mut self.rollup)?;
            self.counters.add_bytes(change);
        } else {
            self.so_far.opened(event, row);
        }
        self.rollup.count(event, &references, row, ts);
        self.counters.count(event);
        self.count_active(event);
        Ok(())
    }
}

/// Enters the session. Returns its id.
pub(super) fn insert_session(connection: &Connection, session: &Session) -> rusqlite::Result<i64> {
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

/// Open connections by provider, see [`COUNTERS`].
pub(super) const ACTIVE: &str = "active_providers";

/// Columns of `session` that change all the time, in the order of [`Ledger::write_counters`]; the gaps follow.
const COUNTERS: [&str; 16] = [
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
    "away_sent",
    "away_recv",
    "loopback_sent",
    "loopback_recv",
    "excluded_processes",
    "excluded_connections",
];

pub(super) fn counter_columns() -> impl Iterator<Item = &'static str> {
    COUNTERS.into_iter().chain(Gap::ALL.map(Gap::name))
}

/// Parameter 1 is the session, then the columns in the order of [`Ledger::write_counters`].
fn update_session() -> String {
    let columns: Vec<String> = counter_columns()
        .chain([ACTIVE, "state_seal"])
        .enumerate()
        .map(|(index, column)| format!("{column} = ?{}", index + 2))
        .collect();
    format!("UPDATE session SET {} WHERE id = ?1", columns.join(", "))
}

/// What changes all the time, as it stands in the session's row: what [`state_bytes`] makes of it.
pub(super) fn stored_state(
    connection: &Connection,
    session: i64,
    open: &OpenSum,
) -> rusqlite::Result<Vec<u8>> {
    let columns: Vec<&str> = counter_columns().chain([ACTIVE, "ended_at", "clean_exit"]).collect();
    let sql = format!("SELECT {} FROM session WHERE id = ?1", columns.join(", "));
    connection.prepare(&sql)?.query_row([session], |row| {
        let values = columns.iter().enumerate().map(|(index, name)| Ok((*name, row.get_ref(index)?)));
        Ok(state_bytes(values.collect::<rusqlite::Result<_>>()?, open))
    })
}

/// A JSON array.
fn list(items: &[String]) -> String {
    serde_json::to_string(items).expect("strings have a JSON form")
}

/// A clock that is off by ages is moved to the nearest moment that can be shown.
pub(super) fn moment(unix_ms: i64) -> i64 {
    unix_ms.clamp(0, LAST_MOMENT)
}

fn port(address: Option<&Address>) -> Option<u16> {
    match address? {
        Address::Ip(address) => Some(address.port()),
        Address::Host(_) | Address::Path(_) => None,
    }
}
