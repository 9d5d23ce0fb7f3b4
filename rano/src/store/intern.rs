//! Rows that repeat: each distinct process, kind, endpoint and local address is stored once and known by its id.
//! The caches are bounded: a full one is emptied and filled again from the database.

use std::borrow::Cow;
use std::collections::HashMap;
use std::hash::Hash;
use std::net::IpAddr;
use std::sync::Arc;

use rusqlite::{CachedStatement, Connection, OptionalExtension as _, Params, params};

use super::far_end::{EndpointKey, FarEnd, endpoint};
use super::ledger::moment;
use super::seal::{Field, Sealer};
use crate::connection::Connection as Observed;
use crate::errno;
use crate::event::{
    Address, ConnectionId, Event, EventKind, KnownName, OwnerQuality, SocketState, SourceKind, host_text,
};
use crate::process::{Call, Process, ancestry};

/// Entries a cache may hold. At some 200 bytes each, all of them together stay under 10 MiB.
const CACHE_MAX: usize = 8192;

/// Ids of rows by what they hold.
#[derive(Debug)]
struct Cache<K, V = i64> {
    ids: HashMap<K, V>,
    /// Added since the last commit: their rows vanish if the transaction is rolled back.
    uncommitted: Vec<K>,
}

impl<K: Hash + Eq + Clone, V: Copy> Cache<K, V> {
    fn new() -> Self {
        Self { ids: HashMap::new(), uncommitted: Vec::new() }
    }

    fn get_or_insert(
        &mut self,
        key: &K,
        insert: impl FnOnce() -> rusqlite::Result<V>,
    ) -> rusqlite::Result<V> {
        if let Some(&id) = self.ids.get(key) {
            return Ok(id);
        }
        let id = insert()?;
        if self.ids.len() >= CACHE_MAX {
            self.ids.clear();
            self.uncommitted.clear();
        }
        self.ids.insert(key.clone(), id);
        self.uncommitted.push(key.clone());
        Ok(id)
    }

    fn rolled_back(&mut self) {
        for key in self.uncommitted.drain(..) {
            self.ids.remove(&key);
        }
    }
}

/// An end without its port.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) enum Host {
    /// With the zone of a link-local one, else 0.
    Ip(IpAddr, u32),
    Path(Arc<str>),
}

impl Host {
    /// An unnamed unix socket has an empty path, which is no address.
    fn of(address: &Address) -> Option<Self> {
        match address {
            Address::Path(path) if path.is_empty() => None,
            Address::Path(path) => Some(Self::Path(Arc::clone(path))),
            Address::Ip(_) | Address::Host(_) => Some(Self::Ip(address.ip_addr()?, address.zone())),
        }
    }

    pub(super) fn text(&self) -> String {
        match self {
            Self::Ip(ip, zone) => host_text(*ip, *zone),
            Self::Path(path) => path.to_string(),
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct ProcessKey {
    image: Option<u64>,
    provider: Arc<str>,
    netns: u32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct KindKey {
    event: EventKind,
    state: Option<SocketState>,
    /// An errno.
    error: Option<i32>,
    source: SourceKind,
    owner_quality: OwnerQuality,
    preexisting: bool,
    alert: bool,
}

/// Ids of the rows an event refers to.
#[derive(Debug, Clone, Copy)]
pub(super) struct References {
    pub(super) process: i64,
    pub(super) actor: i64,
    pub(super) kind: i64,
    pub(super) endpoint: i64,
    pub(super) local: Option<i64>,
}

/// The interned rows one session uses.
#[derive(Debug)]
pub(super) struct Interned {
    session: i64,
    /// Rows that are new since the last commit: the first id and how many.
    new_processes: (i64, i64),
    new_calls: (i64, i64),
    /// Process and actor.
    processes: Cache<ProcessKey, (i64, i64)>,
    kinds: Cache<KindKey>,
    endpoints: Cache<EndpointKey>,
    addresses: Cache<Host>,
    calls: Cache<Arc<Call>>,
    directories: Cache<Arc<str>>,
}

impl Interned {
    pub(super) fn new(session: i64) -> Self {
        Self {
            session,
            new_processes: (0, 0),
            new_calls: (0, 0),
            processes: Cache::new(),
            kinds: Cache::new(),
            endpoints: Cache::new(),
            addresses: Cache::new(),
            calls: Cache::new(),
            directories: Cache::new(),
        }
    }

    pub(super) fn references(
        &mut self,
        connection: &Connection,
        event: &Event,
    ) -> rusqlite::Result<References> {
        let observed = &*event.connection;
        let local = match observed.local.as_ref().and_then(Host::of) {
            Some(host) => Some(self.addresses.get_or_insert(&host, || address(connection, &host.text()))?),
            None => None,
        };
        let (process, actor) = self.process(connection, observed)?;
        Ok(References {
            process,
            actor,
            kind: self.kind(connection, event)?,
            endpoint: self.endpoint(connection, observed)?,
            local,
        })
    }

    /// Processes and tool calls that are new since the last commit: the first id and how many.
    pub(super) fn inserted(&self) -> [(i64, i64); 2] {
        [self.new_processes, self.new_calls]
    }

    pub(super) fn committed(&mut self) {
        (self.new_processes, self.new_calls) = Default::default();
        self.processes.uncommitted.clear();
        self.kinds.uncommitted.clear();
        self.endpoints.uncommitted.clear();
        self.addresses.uncommitted.clear();
        self.calls.uncommitted.clear();
        self.directories.uncommitted.clear();
    }

    pub(super) fn rolled_back(&mut self) {
        (self.new_processes, self.new_calls) = Default::default();
        self.processes.rolled_back();
        self.kinds.rolled_back();
        self.endpoints.rolled_back();
        self.addresses.rolled_back();
        self.calls.rolled_back();
        self.directories.rolled_back();
    }

    fn process(&mut self, connection: &Connection, observed: &Observed) -> rusqlite::Result<(i64, i64)> {
        let process = observed.process.as_deref();
        let key = ProcessKey {
            image: process.map(|process| process.key),
            provider: Arc::clone(&observed.provider),
            netns: observed.netns,
        };
        let Self { session, processes, calls, directories, new_processes, new_calls, .. } = self;
        let session = *session;
        processes.get_or_insert(&key, || {
            let call = process.and_then(|process| process.call.as_ref());
            let call = call
                .map(|call| calls.get_or_insert(call, || insert_call(connection, session, call, new_calls)))
                .transpose()?;
            let cwd = process.and_then(|process| process.cwd.as_ref());
            let cwd =
                cwd.map(|cwd| directories.get_or_insert(cwd, || directory(connection, cwd))).transpose()?;
            let row = insert_process(connection, session, &key, process, (call, cwd))?;
            count_new(new_processes, row.0);
            Ok(row)
        })
    }

    fn kind(&mut self, connection: &Connection, event: &Event) -> rusqlite::Result<i64> {
        let observed = &*event.connection;
        let key = KindKey {
            event: event.kind,
            state: observed.state,
            error: observed.error(),
            source: observed.source,
            owner_quality: observed.owner_quality,
            preexisting: observed.preexisting,
            alert: observed.alert,
        };
        self.kinds.get_or_insert(&key, || kind(connection, &key))
    }

    fn endpoint(&mut self, connection: &Connection, observed: &Observed) -> rusqlite::Result<i64> {
        let key = EndpointKey {
            protocol: observed.protocol,
            remote: observed.remote.as_ref().and_then(Host::of),
            domain: observed.name.as_ref().map(|KnownName { name, by }| (Arc::clone(name), *by)),
            class: observed.class,
            peer_pid: observed.peer_pid,
            domain_port: observed.domain_port,
            relay_for: observed.relay_for,
        };
        self.endpoints.get_or_insert(&key, || key.row(connection))
    }
}

/// Not looked for first: a session's processes are its own. One that fell out of the cache gets a second row.
fn insert_process(
    connection: &Connection,
    session: i64,
    key: &ProcessKey,
    process: Option<&Process>,
    (call, cwd): (Option<i64>, Option<i64>),
) -> rusqlite::Result<(i64, i64)> {
    let comm = process.map(|process| process.comm.as_str());
    let actor = find_or_insert(
        connection,
        "SELECT id FROM actor WHERE provider = ?1 AND ifnull(comm, '') = ifnull(?2, '')",
        "INSERT INTO actor (provider, comm) VALUES (?1, ?2)",
        params![key.provider, comm],
    )?;
    let ancestry = process
        .filter(|process| !process.ancestry.is_empty())
        .map(|process| ancestry::path(&process.ancestry));
    let program = process.filter(|process| process.program != process.comm).map(|process| &*process.program);
    let trace = process.and_then(|process| process.trace.as_ref());
    let id = connection
        .prepare_cached(
            "INSERT INTO process (session, provider, netns, pid, ppid, uid, start_time, comm, cmdline, exe, ancestry, actor,
                                  program, cwd, call, trace_id, span_id)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16, ?17)",
        )?
        .insert(params![
            session,
            key.provider,
            key.netns,
            process.map(|process| process.id.pid),
            process.map(|process| process.ppid),
            process.map(|process| process.uid),
            process.map(|process| integer(process.id.start_time)),
            comm,
            process.map(|process| process.cmdline.as_str()).filter(|cmdline| !cmdline.is_empty()),
            process.map(|process| process.exe.as_str()).filter(|exe| !exe.is_empty()),
            ancestry,
            actor,
            program,
            cwd,
            call,
            trace.map(|trace| trace.trace_id.as_str()),
            trace.map(|trace| trace.span_id.as_str()),
        ])?;
    Ok((id, actor))
}

/// Not looked for first, as processes.
fn insert_call(
    connection: &Connection,
    session: i64,
    call: &Call,
    new: &mut (i64, i64),
) -> rusqlite::Result<i64> {
    let tool = call.tool.as_ref();
    let id = connection
        .prepare_cached(
            "INSERT INTO tool_call (session, agent, agent_pid, agent_session, tool, tool_pid, tool_started)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
        )?
        .insert(params![
            session,
            call.agent,
            call.agent_id.pid,
            call.session,
            tool.map(|tool| tool.cmdline.as_str()),
            tool.map(|tool| tool.id.pid),
            tool.map(|tool| moment(tool.started_ms)),
        ])?;
    count_new(new, id);
    Ok(id)
}

/// Ids of one transaction follow each other.
fn count_new((first, count): &mut (i64, i64), id: i64) {
    if *count == 0 {
        *first = id;
    }
    *count += 1;
}

fn directory(connection: &Connection, path: &str) -> rusqlite::Result<i64> {
    find_or_insert(
        connection,
        "SELECT id FROM directory WHERE path = ?1",
        "INSERT INTO directory (path) VALUES (?1)",
        params![path],
    )
}

fn kind(connection: &Connection, key: &KindKey) -> rusqlite::Result<i64> {
    let error = key
        .error
        .map(|errno| errno::name(errno).map_or_else(|| Cow::Owned(format!("errno {errno}")), Cow::Borrowed));
    find_or_insert(
        connection,
        "SELECT id FROM kind WHERE event = ?1 AND ifnull(state, '') = ifnull(?2, '')
             AND ifnull(error, '') = ifnull(?3, '') AND source = ?4 AND owner_quality = ?5
             AND preexisting = ?6 AND alert = ?7",
        "INSERT INTO kind (event, state, error, source, owner_quality, preexisting, alert)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
        params![
            key.event.name(),
            key.state.map(SocketState::name),
            error,
            key.source.name(),
            key.owner_quality.name(),
            key.preexisting,
            key.alert,
        ],
    )
}

fn address(connection: &Connection, text: &str) -> rusqlite::Result<i64> {
    find_or_insert(
        connection,
        "SELECT id FROM address WHERE address = ?1",
        "INSERT INTO address (address) VALUES (?1)",
        params![text],
    )
}

/// The write transaction is open: nobody else can insert the row between the two statements.
pub(super) fn find_or_insert(
    connection: &Connection,
    select: &str,
    insert: &str,
    params: impl Params + Copy,
) -> rusqlite::Result<i64> {
    let found = connection.prepare_cached(select)?.query_row(params, |row| row.get(0)).optional()?;
    match found {
        Some(id) => Ok(id),
        None => connection.prepare_cached(insert)?.insert(params),
    }
}

/// SQLite's integers are signed; nothing that is counted here comes near the end of them.
pub(super) fn integer(count: u64) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

/// Where the latest connections' rows are, for names that become known later. A connection's place is its number modulo
/// the size, so the memory is bounded and a newer connection displaces the one [`RecentRows::CAPACITY`] before it.
#[derive(Debug)]
pub(super) struct RecentRows {
    // Apart, because the allocator hands out zeroed arrays of integers without touching them.
    connections: Vec<u64>,
    opened: Vec<i64>,
    ended: Vec<i64>,
}

impl RecentRows {
    const CAPACITY: usize = 1 << 16;

    pub(super) fn new() -> Self {
        Self {
            connections: vec![0; Self::CAPACITY],
            opened: vec![0; Self::CAPACITY],
            ended: vec![0; Self::CAPACITY],
        }
    }

    pub(super) fn insert(&mut self, connection: ConnectionId, kind: EventKind, row: i64) {
        let slot = Self::slot(connection);
        if self.connections[slot] > connection.0 {
            return;
        }
        if self.connections[slot] < connection.0 {
            self.connections[slot] = connection.0;
            self.opened[slot] = 0;
            self.ended[slot] = 0;
        }
        match kind {
            EventKind::Close => self.ended[slot] = row,
            EventKind::Connect | EventKind::Fail | EventKind::Accept | EventKind::Listen => {
                self.opened[slot] = row;
            }
        }
    }

    /// The rows still known.
    pub(super) fn get(&self, connection: ConnectionId) -> impl Iterator<Item = i64> + use<> {
        let slot = Self::slot(connection);
        let rows = if self.connections[slot] == connection.0 {
            [self.opened[slot], self.ended[slot]]
        } else {
            [0; 2]
        };
        rows.into_iter().filter(|row| *row != 0)
    }

    fn slot(connection: ConnectionId) -> usize {
        usize::try_from(connection.0 % Self::CAPACITY as u64).expect("a remainder of a usize fits one")
    }
}

/// Says of a row that its connection raised an alert.
pub(super) fn mark_alert(connection: &Connection, row: i64, sealer: &mut Sealer) -> rusqlite::Result<()> {
    let before: Option<i64> = connection
        .prepare_cached("SELECT kind FROM event WHERE id = ?1")?
        .query_row([row], |row| row.get(0))
        .optional()?;
    let Some(before) = before else { return Ok(()) };
    let this = "event, state, error, source, owner_quality, preexisting";
    let kind = connection
        .prepare_cached(
            "SELECT marked.id FROM kind AS marked, kind AS plain
             WHERE plain.id = (SELECT kind FROM event WHERE id = ?1) AND marked.alert = 1
                 AND marked.event = plain.event AND marked.source = plain.source
                 AND ifnull(marked.state, '') = ifnull(plain.state, '')
                 AND ifnull(marked.error, '') = ifnull(plain.error, '')
                 AND marked.owner_quality = plain.owner_quality AND marked.preexisting = plain.preexisting",
        )?
        .query_row([row], |found| found.get::<_, i64>(0))
        .optional()?;
    let kind = match kind {
        Some(kind) => kind,
        None => connection
            .prepare_cached(&format!(
                "INSERT INTO kind ({this}, alert)
                 SELECT {this}, 1 FROM kind WHERE id = (SELECT kind FROM event WHERE id = ?1)"
            ))?
            .insert([row])?,
    };
    execute(connection.prepare_cached("UPDATE event SET kind = ?2 WHERE id = ?1")?, params![row, kind])?;
    sealer.amend(connection, row, Field::Kind, before, kind)
}

/// An event whose endpoint changed because its name did.
#[derive(Debug)]
pub(super) struct Moved {
    pub(super) ts: i64,
    pub(super) kind: EventKind,
    pub(super) actor: i64,
    /// Sent and received.
    pub(super) bytes: (i64, i64),
    pub(super) from: i64,
    pub(super) to: i64,
}

/// Gives a row another name; a name it had is kept in `event_names`. `None` where it has that name already.
pub(super) fn rename(
    connection: &Connection,
    row: i64,
    named: &Observed,
    sealer: &mut Sealer,
) -> rusqlite::Result<Option<Moved>> {
    let Some(KnownName { name, by }) = &named.name else { return Ok(None) };
    let mut find = connection.prepare_cached(
        "SELECT endpoint.protocol, endpoint.remote, endpoint.domain, endpoint.domain_source, event.ts, kind.event,
                process.actor, ifnull(event.bytes_sent, 0), ifnull(event.bytes_recv, 0), event.endpoint,
                endpoint.domain_port, endpoint.relay_for
         FROM event
         JOIN endpoint ON endpoint.id = event.endpoint
         JOIN kind ON kind.id = event.kind
         JOIN process ON process.id = event.process
         WHERE event.id = ?1",
    )?;
    let mut rows = find.query([row])?;
    let Some(found) = rows.next()? else { return Ok(None) };
    let (protocol, remote): (String, Option<String>) = (found.get(0)?, found.get(1)?);
    let (old_name, old_source): (Option<String>, Option<String>) = (found.get(2)?, found.get(3)?);
    let is_same = old_name.as_deref() == Some(&**name) && old_source.as_deref() == Some(by.name());
    if is_same
        && found.get::<_, Option<u16>>(10)? == named.domain_port
        && found.get::<_, Option<u32>>(11)? == named.relay_for
    {
        return Ok(None);
    }
    let event: String = found.get(5)?;
    let Some(kind) = EventKind::ALL.into_iter().find(|kind| kind.name() == event) else { return Ok(None) };
    let (ts, actor, from) = (found.get(4)?, found.get(6)?, found.get(9)?);
    let bytes = (found.get(7)?, found.get(8)?);
    let far = FarEnd {
        protocol: &protocol,
        remote: remote.as_deref(),
        domain: Some((name, by.name())),
        class: named.class,
        peer_pid: None,
        domain_port: named.domain_port,
        relay_for: named.relay_for,
    };
    let to = endpoint(connection, &far)?;
    execute(connection.prepare_cached("UPDATE event SET endpoint = ?2 WHERE id = ?1")?, params![row, to])?;
    sealer.amend(connection, row, Field::Endpoint, from, to)?;
    if let (Some(old_name), Some(old_source)) = (old_name, old_source)
        && old_name != **name
    {
        insert_name(connection, row, &old_name, &old_source, sealer)?;
    }
    let mut delete = connection
        .prepare_cached("DELETE FROM event_names WHERE event_id = ?1 AND name = ?2 RETURNING source")?;
    let mut removed = delete.query(params![row, name])?;
    while let Some(source) = removed.next()? {
        let source: String = source.get(0)?;
        sealer.name(connection, row, Field::NameRemoved, name, &source)?;
    }
    Ok(Some(Moved { ts, kind, actor, bytes, from, to }))
}

/// Keeps another name that a row may go by.
pub(super) fn keep_name(
    connection: &Connection,
    row: i64,
    known: &KnownName,
    sealer: &mut Sealer,
) -> rusqlite::Result<()> {
    insert_name(connection, row, &known.name, known.by.name(), sealer)
}

fn insert_name(
    connection: &Connection,
    row: i64,
    name: &str,
    source: &str,
    sealer: &mut Sealer,
) -> rusqlite::Result<()> {
    let inserted = connection
        .prepare_cached("INSERT OR IGNORE INTO event_names (event_id, name, source) VALUES (?1, ?2, ?3)")?
        .execute(params![row, name, source])?;
    if inserted > 0 {
        sealer.name(connection, row, Field::NameAdded, name, source)?;
    }
    Ok(())
}

fn execute(mut statement: CachedStatement<'_>, params: impl Params) -> rusqlite::Result<()> {
    statement.execute(params).map(drop)
}
