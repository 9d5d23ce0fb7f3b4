//! Is the record what was written? Follows the chain of seals over a whole file and compares each with the rows it
//! covers, then everything else that a report reads: counters, sums, names.

use rusqlite::{Connection, OptionalExtension as _, params};
use rustc_hash::FxHashMap;

use super::super::ledger::stored_state;
use super::super::open_sum::OpenSum;
use super::super::schema;
use super::super::seal::{
    Field, RowsHash, SEAL_COLUMNS, Seal, SealKey, hex, name_digest, put_parts, put_rows, shared_hash,
    state_hash,
};
use crate::store::History;

/// Findings that are kept one by one.
const FINDINGS_MAX: usize = 100;

/// What the answer depends on beside the file.
#[derive(Debug, Clone, Copy, Default)]
pub struct Question<'a> {
    /// A seal that has to be in the chain, in hexadecimal digits.
    pub head: Option<&'a str>,
    pub key: Option<&'a SealKey>,
}

/// What was found in a file.
#[derive(Debug, Clone, Default)]
pub struct Verified {
    pub seals: u64,
    /// Sessions that are there and have seals.
    pub sessions: u64,
    /// Those without a sealed end: they run, or were killed.
    pub unended: u64,
    /// Sessions that are older than the seals in this file.
    pub older: u64,
    /// Sessions that `--retain` took out and that have left their stub.
    pub pruned: u64,
    /// Events that seals cover, without those of sessions that were taken out.
    pub events: u64,
    /// The last seal, in hexadecimal digits.
    pub head: Option<String>,
    /// Seals were made with a key.
    pub is_keyed: bool,
    /// The key that they were made with was not given: nothing else was looked at.
    pub lacks_key: bool,
    pub findings: Vec<Finding>,
    /// Further ones.
    pub more: u64,
}

/// One thing that is not as it was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    pub session: Option<Named>,
    pub from: Option<Place>,
    pub fault: Fault,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Named {
    pub run_id: String,
    pub name: Option<String>,
}

/// Where it begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place {
    pub seal: i64,
    /// The first event under that seal, and its time in Unix milliseconds.
    pub event: Option<(i64, i64)>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// Nothing in the file has a seal.
    NoSeals,
    /// The chain lacks seals, up to this one.
    SealsMissing(i64),
    /// No seal is the one that was named.
    HeadMissing,
    /// A seal does not follow from the one before.
    Link,
    /// Made without the key, after seals that were made with it.
    Unkeyed,
    /// Events, their processes or tool calls, or what the session says of itself.
    Rows,
    /// Endpoints, addresses, directories or kinds that events refer to.
    Shared,
    /// A late name or mark of this event is not the one that was sealed.
    Amended(i64),
    /// The names that an event may go by.
    Names(i64),
    /// A session that has seals is gone.
    SessionMissing(i64),
    /// It says when it was pruned, and no seal covers that.
    Stub,
    /// A session without a seal, among those that have them.
    NotSealed,
    /// So many events that no seal covers.
    Unsealed(i64),
    /// Counters, or bytes of open connections.
    State,
    /// It says that it ended in order, and no seal does.
    End,
    /// Sums that are kept beside the rows, by the name of their table.
    Sums(&'static str),
}

impl Fault {
    /// The end of the record is gone, rather than something in it.
    pub fn is_cut(self) -> bool {
        matches!(self, Self::SealsMissing(_) | Self::HeadMissing | Self::SessionMissing(_))
    }
}

impl Verified {
    pub fn is_whole(&self) -> bool {
        self.findings.is_empty() && !self.lacks_key
    }

    fn find(&mut self, session: Option<&Session>, from: Option<Place>, fault: Fault) {
        if self.findings.len() >= FINDINGS_MAX {
            self.more += 1;
            return;
        }
        self.findings.push(Finding { session: session.map(|session| session.named.clone()), from, fault });
    }
}

/// What is known of a session while its seals are followed.
#[derive(Debug)]
struct Session {
    named: Named,
    clean_exit: bool,
    state_seal: Option<Vec<u8>>,
    /// Its last seal.
    link: Option<(Vec<u8>, bool)>,
    ends: bool,
    events: i64,
    open: OpenSum,
    /// Faults of this kind were found in it: what follows from them is not told again.
    has_fault: bool,
}

impl History {
    /// Compares the file with its seals. Memory grows with the names that events may go by, and with the sessions.
    pub fn verify(&self, question: &Question<'_>) -> rusqlite::Result<Verified> {
        let mut verified = Verified::default();
        let version = schema::version(&self.connection).unwrap_or(0);
        if version < 5 {
            verified.find(None, None, Fault::NoSeals);
            return Ok(verified);
        }
        Check { connection: &self.connection, question, verified }.run()
    }
}

struct Check<'a> {
    connection: &'a Connection,
    question: &'a Question<'a>,
    verified: Verified,
}

impl Check<'_> {
    fn run(mut self) -> rusqlite::Result<Verified> {
        let keyed: i64 =
            self.connection.query_row("SELECT count(*) FROM seal WHERE keyed <> 0", [], |row| row.get(0))?;
        self.verified.is_keyed = keyed > 0;
        if keyed > 0 && self.question.key.is_none() {
            self.verified.lacks_key = true;
            return Ok(self.verified);
        }
        self.connection.execute_batch(FIRST_FORMS)?;
        let mut sessions = self.sessions()?;
        self.follow(&mut sessions)?;
        if self.verified.seals == 0 {
            self.verified.find(None, None, Fault::NoSeals);
            return Ok(self.verified);
        }
        if keyed == 0 && self.question.key.is_some() {
            self.verified.find(None, None, Fault::Unkeyed);
        }
        self.amendments(&mut sessions)?;
        self.names(&mut sessions)?;
        self.ends_of(&mut sessions)?;
        self.sums(&mut sessions)?;
        Ok(self.verified)
    }

    fn sessions(&self) -> rusqlite::Result<FxHashMap<i64, Session>> {
        let mut statement =
            self.connection.prepare("SELECT id, run_id, name, clean_exit, state_seal FROM session")?;
        let rows = statement.query_map([], |row| {
            let session = Session {
                named: Named { run_id: row.get(1)?, name: row.get(2)? },
                clean_exit: row.get::<_, i64>(3)? != 0,
                state_seal: row.get(4)?,
                link: None,
                ends: false,
                events: 0,
                open: OpenSum::default(),
                has_fault: false,
            };
            Ok((row.get(0)?, session))
        })?;
        let mut sessions: FxHashMap<i64, Session> = rows.collect::<rusqlite::Result<_>>()?;
        let mut statement = self.connection.prepare(
            "SELECT process.session, event.id, event.bytes_sent, ifnull(event.bytes_recv, -1)
             FROM event JOIN kind ON kind.id = event.kind JOIN process ON process.id = event.process
             WHERE kind.event IN ('connect', 'accept') AND event.bytes_sent IS NOT NULL",
        )?;
        let mut rows = statement.query([])?;
        while let Some(row) = rows.next()? {
            if let Some(session) = sessions.get_mut(&row.get(0)?) {
                session.open.add(row.get(1)?, (row.get(2)?, row.get(3)?));
            }
        }
        Ok(sessions)
    }

    /// The chain from its beginning.
    fn follow(&mut self, sessions: &mut FxHashMap<i64, Session>) -> rusqlite::Result<()> {
        let mut stubs = self.stubs()?;
        let mut missing: FxHashMap<i64, i64> = FxHashMap::default();
        let mut statement =
            self.connection.prepare(&format!("SELECT {SEAL_COLUMNS} FROM seal ORDER BY id"))?;
        let mut rows = statement.query([])?;
        let (mut before, mut shared_to, mut id) = (Vec::new(), [0; 5], 0);
        let mut has_head = self.question.head.is_none();
        let mut was_keyed = false;
        while let Some(row) = rows.next()? {
            let seal = Seal::from_row(row)?;
            let place = self.place(&seal)?;
            self.verified.seals += 1;
            let session = sessions.get_mut(&seal.session);
            let named = session.as_deref();
            if seal.id != id + 1 {
                self.verified.find(named, Some(place), Fault::SealsMissing(seal.id - 1));
            } else if was_keyed && !seal.is_keyed {
                self.verified.find(named, Some(place), Fault::Unkeyed);
            } else if seal.link(&before, self.question.key.filter(|_| seal.is_keyed))[..] != *seal.hash {
                self.verified.find(named, Some(place), Fault::Link);
            }
            was_keyed |= seal.is_keyed;
            has_head |= self.question.head == Some(&*hex(&seal.hash));
            if shared_hash(self.connection, shared_to, seal.shared_to)?.as_ref().map(<[u8; 32]>::as_slice)
                != seal.shared.as_deref()
            {
                self.verified.find(named, Some(place), Fault::Shared);
            }
            match session {
                Some(session) => self.rows(&seal, session, place)?,
                None => {
                    missing.entry(seal.session).or_insert(seal.id);
                }
            }
            (id, shared_to) = (seal.id, seal.shared_to);
            before = seal.hash;
        }
        if id > 0 {
            self.verified.head = Some(hex(&before));
        }
        if !has_head {
            self.verified.find(None, None, Fault::HeadMissing);
        }
        let mut missing: Vec<_> = missing.into_iter().collect();
        missing.sort_unstable();
        for (session, seal) in missing {
            let place = Place { seal, event: None };
            match stubs.remove(&session) {
                Some(covered) if covered <= id && covered > seal => self.verified.pruned += 1,
                Some(_) => self.verified.find(None, Some(place), Fault::Stub),
                None => self.verified.find(None, Some(place), Fault::SessionMissing(session)),
            }
        }
        // Those that are left were older than the seals.
        self.verified.pruned += stubs.values().filter(|covered| **covered <= id).count() as u64;
        Ok(())
    }

    /// The seals that cover what is left of sessions.
    fn stubs(&self) -> rusqlite::Result<FxHashMap<i64, i64>> {
        let mut statement = self.connection.prepare("SELECT session, seal FROM stub")?;
        statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?.collect()
    }

    fn place(&self, seal: &Seal) -> rusqlite::Result<Place> {
        let event = self
            .connection
            .prepare_cached("SELECT id, ts FROM event WHERE id = ?1")?
            .query_row([seal.events.0], |row| Ok((row.get(0)?, row.get(1)?)))
            .optional()?;
        Ok(Place { seal: seal.id, event: event.filter(|_| seal.events.1 > 0) })
    }

    fn rows(&mut self, seal: &Seal, session: &mut Session, place: Place) -> rusqlite::Result<()> {
        let end = |(first, count): (i64, i64)| first.saturating_add(count);
        let mut bytes = Vec::new();
        let events = if seal.events.1 == 0 {
            0
        } else {
            let range = params![seal.events.0, end(seal.events), seal.session];
            put_rows(&mut bytes, &mut self.connection.prepare_cached(EVENTS)?, range)?
        };
        let mut hash = RowsHash::new();
        hash.events(&bytes);
        hash.end_of_events();
        bytes.clear();
        if seal.amendments.1 > 0 {
            let range = params![seal.amendments.0, end(seal.amendments), seal.session];
            put_rows(&mut bytes, &mut self.connection.prepare_cached(AMENDMENTS)?, range)?;
            hash.events(&bytes);
            bytes.clear();
        }
        put_parts(&mut bytes, self.connection, seal, session.link.is_none())?;
        let state =
            if seal.ends { Some(stored_state(self.connection, seal.session, &session.open)?) } else { None };
        if hash.finish(bytes, state.as_deref()) != seal.rows && !session.has_fault {
            session.has_fault = true;
            self.verified.find(Some(session), Some(place), Fault::Rows);
        }
        session.link = Some((seal.hash.clone(), seal.is_keyed));
        session.ends |= seal.ends;
        session.events = session.events.saturating_add(events);
        Ok(())
    }

    /// What was amended last stands in the row.
    fn amendments(&mut self, sessions: &mut FxHashMap<i64, Session>) -> rusqlite::Result<()> {
        for (field, column) in [(Field::Endpoint, "endpoint"), (Field::Kind, "kind")] {
            let sql = format!(
                "SELECT last.session, last.event FROM
                     (SELECT session, event, after, max(id) FROM amendment WHERE field = ?1 GROUP BY event) AS last
                 LEFT JOIN event ON event.id = last.event
                 WHERE event.{column} IS NOT last.after"
            );
            let mut statement = self.connection.prepare(&sql)?;
            let mut rows = statement.query([field as i64])?;
            while let Some(row) = rows.next()? {
                let Some(session) = sessions.get_mut(&row.get(0)?) else { continue };
                if !std::mem::replace(&mut session.has_fault, true) {
                    self.verified.find(Some(session), None, Fault::Amended(row.get(1)?));
                }
            }
        }
        Ok(())
    }

    /// The names in `event_names` are those that were added and not removed.
    fn names(&mut self, sessions: &mut FxHashMap<i64, Session>) -> rusqlite::Result<()> {
        let mut names: FxHashMap<(i64, [u8; 16]), (i64, i64)> = FxHashMap::default();
        let mut statement = self
            .connection
            .prepare("SELECT event, field, after, session FROM amendment WHERE field >= 2 ORDER BY id")?;
        let mut rows = statement.query([])?;
        while let Some(row) = rows.next()? {
            let Some(digest) = row.get_ref(2)?.as_blob().ok().and_then(|blob| blob.try_into().ok()) else {
                continue;
            };
            let change = if row.get::<_, i64>(1)? == Field::NameAdded as i64 { 1 } else { -1 };
            names.entry((row.get(0)?, digest)).or_insert((0, row.get(3)?)).0 += change;
        }
        let mut statement = self.connection.prepare(
            "SELECT event_names.event_id, event_names.name, event_names.source, process.session
             FROM event_names JOIN event ON event.id = event_names.event_id
             JOIN process ON process.id = event.process",
        )?;
        let mut rows = statement.query([])?;
        while let Some(row) = rows.next()? {
            let (name, source): (String, String) = (row.get(1)?, row.get(2)?);
            names.entry((row.get(0)?, name_digest(&name, &source))).or_insert((0, row.get(3)?)).0 -= 1;
        }
        let mut odd: Vec<_> = names.into_iter().filter(|(_, (count, _))| *count != 0).collect();
        odd.sort_unstable_by_key(|((event, _), _)| *event);
        for ((event, _), (_, session)) in odd {
            let Some(session) = sessions.get_mut(&session).filter(|session| session.link.is_some()) else {
                continue;
            };
            if !std::mem::replace(&mut session.has_fault, true) {
                self.verified.find(Some(session), None, Fault::Names(event));
            }
        }
        Ok(())
    }

    /// Each session by itself: is all of it sealed, and its counters as they were left.
    fn ends_of(&mut self, sessions: &mut FxHashMap<i64, Session>) -> rusqlite::Result<()> {
        let first: i64 =
            self.connection
                .query_row("SELECT session FROM seal ORDER BY id LIMIT 1", [], |row| row.get(0))?;
        let mut counts = self.connection.prepare(
            "SELECT process.session, count(*) FROM event JOIN process ON process.id = event.process
             GROUP BY process.session",
        )?;
        let counts: FxHashMap<i64, i64> =
            counts.query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?.collect::<rusqlite::Result<_>>()?;
        let mut ids: Vec<_> = sessions.keys().copied().collect();
        ids.sort_unstable();
        for id in ids {
            let Some(session) = sessions.get_mut(&id) else { continue };
            let Some((link, is_keyed)) = session.link.clone() else {
                if id < first {
                    self.verified.older += 1;
                } else {
                    session.has_fault = true;
                    self.verified.find(Some(session), None, Fault::NotSealed);
                }
                continue;
            };
            self.verified.sessions += 1;
            self.verified.unended += u64::from(!session.ends);
            self.verified.events += u64::try_from(session.events).unwrap_or(0);
            if session.has_fault {
                continue;
            }
            let unsealed = counts.get(&id).copied().unwrap_or(0) - session.events;
            let state = stored_state(self.connection, id, &session.open)?;
            let key = self.question.key.filter(|_| is_keyed);
            let fault = if unsealed != 0 {
                Fault::Unsealed(unsealed)
            } else if session.clean_exit && !session.ends {
                Fault::End
            } else if session.state_seal.as_deref() != Some(&state_hash(&link, &state, key)) {
                Fault::State
            } else {
                continue;
            };
            session.has_fault = true;
            self.verified.find(Some(session), None, fault);
        }
        Ok(())
    }

    /// The sums that reports read are those of the rows.
    fn sums(&mut self, sessions: &mut FxHashMap<i64, Session>) -> rusqlite::Result<()> {
        for (table, kept, counted) in sums() {
            for (one, other) in [(&kept, &counted), (&counted, &kept)] {
                let sql = format!(
                    "SELECT DISTINCT session FROM (SELECT * FROM ({one}) EXCEPT SELECT * FROM ({other}))"
                );
                let mut statement = self.connection.prepare(&sql)?;
                let odd: Vec<i64> =
                    statement.query_map([], |row| row.get(0))?.collect::<rusqlite::Result<_>>()?;
                for id in odd {
                    let Some(session) = sessions.get_mut(&id).filter(|session| session.link.is_some()) else {
                        continue;
                    };
                    if !std::mem::replace(&mut session.has_fault, true) {
                        self.verified.find(Some(session), None, Fault::Sums(table));
                    }
                }
            }
        }
        Ok(())
    }
}

/// Events as they were written first, in the order of [`super::super::seal::Sealer::event`]. Bytes of a connection that
/// is open are sealed apart.
const EVENTS: &str = "
    SELECT event.id, event.ts, ifnull(first_kind.before, event.kind), event.process,
           ifnull(first_endpoint.before, event.endpoint), event.local, event.local_port, event.remote_port,
           event.duration_ms,
           CASE WHEN kind.event NOT IN ('connect', 'accept') THEN event.bytes_sent END,
           CASE WHEN kind.event NOT IN ('connect', 'accept') THEN event.bytes_recv END
    FROM event
    LEFT JOIN kind ON kind.id = event.kind
    LEFT JOIN temp.first_kind ON first_kind.event = event.id
    LEFT JOIN temp.first_endpoint ON first_endpoint.event = event.id
    WHERE event.id >= ?1 AND event.id < ?2
      AND (SELECT session FROM process WHERE process.id = event.process) = ?3
    ORDER BY event.id";

const AMENDMENTS: &str = "SELECT id, event, field, before, after FROM amendment
                          WHERE id >= ?1 AND id < ?2 AND session = ?3 ORDER BY id";

/// What stood in rows before their first amendment. Beside `min()` stands the row that has it
/// (<https://sqlite.org/lang_select.html#bareagg>).
const FIRST_FORMS: &str = "
    CREATE TEMP TABLE first_endpoint (event INTEGER PRIMARY KEY, before, id);
    CREATE TEMP TABLE first_kind (event INTEGER PRIMARY KEY, before, id);
    INSERT INTO temp.first_endpoint
        SELECT event, before, min(id) FROM main.amendment WHERE field = 0 GROUP BY event;
    INSERT INTO temp.first_kind
        SELECT event, before, min(id) FROM main.amendment WHERE field = 1 GROUP BY event;";

/// For each table of sums: what it says, and what the rows do.
fn sums() -> [(&'static str, String, String); 4] {
    let columns = "connects, closes, fails, accepts, listens, bytes_sent, bytes_recv";
    let fewer = "connects, closes, fails, bytes_sent, bytes_recv";
    let kinds = "sum(kind.event = 'connect'), sum(kind.event = 'close'), sum(kind.event = 'fail')";
    let served = "sum(kind.event = 'accept'), sum(kind.event = 'listen')";
    let bytes = "sum(ifnull(event.bytes_sent, 0)), sum(ifnull(event.bytes_recv, 0))";
    let from = "FROM event JOIN process ON process.id = event.process JOIN kind ON kind.id = event.kind
                JOIN session ON session.id = process.session";
    let connections = "kind.event IN ('connect', 'close', 'fail')";
    let live = "session IN (SELECT id FROM session)";
    let any = "connects + closes + fails + accepts + listens + bytes_sent + bytes_recv <> 0";
    [
        (
            "activity",
            format!("SELECT session, hour, provider, {columns} FROM activity WHERE {live}"),
            format!(
                "SELECT process.session AS session, event.ts / 3600000, process.provider, {kinds}, {served}, {bytes}
                 {from} GROUP BY 1, 2, 3"
            ),
        ),
        (
            "traffic",
            format!("SELECT session, hour, actor, endpoint, {columns} FROM traffic WHERE {live} AND {any}"),
            format!(
                "SELECT process.session AS session, event.ts / 3600000, process.actor, event.endpoint, {kinds},
                        {served}, {bytes} {from} GROUP BY 1, 2, 3, 4
                 UNION ALL
                 SELECT process.session, -1, process.actor, event.endpoint, {kinds}, {served}, {bytes}
                 {from} GROUP BY 1, 3, 4"
            ),
        ),
        (
            "port_traffic",
            format!("SELECT session, provider, port, {fewer} FROM port_traffic WHERE {live}"),
            format!(
                "SELECT process.session AS session, process.provider, event.remote_port, {kinds}, {bytes} {from}
                 WHERE {connections} AND event.remote_port IS NOT NULL GROUP BY 1, 2, 3"
            ),
        ),
        (
            "process_traffic",
            format!(
                "SELECT process.session AS session, process_traffic.process, {fewer}
                 FROM process_traffic JOIN process ON process.id = process_traffic.process WHERE {live}"
            ),
            format!(
                "SELECT process.session AS session, event.process, {kinds}, {bytes} {from} WHERE {connections}
                 GROUP BY 1, 2"
            ),
        ),
    ]
}
