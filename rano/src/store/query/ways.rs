//! Who sent what where: for each agent, tool call and program the endpoints, and what was first seen now. The stored
//! sums know neither tool calls nor ports nor reasons of failures: up to a number of events rano reads these, beyond
//! it the sums have to do.

use std::ops::Range;

use rusqlite::types::Value;
use rusqlite::{OptionalExtension as _, Statement, params_from_iter};
use rustc_hash::{FxHashMap, FxHashSet};

use super::filter::Condition;
use super::report::{Counts, Selection, add};
use super::sessions::StoredSession;
use crate::store::History;
use crate::store::rollup::{BYTES_MAX, HOUR_MS};

/// So many events are read for one answer: a tenth of a second.
pub(super) const EVENTS_MAX: i64 = 200_000;

/// So many of the latest events are searched for alerts where not all are read.
const ALERTS_READ: i64 = 2_000_000;

/// A process and what its connections came to.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct ProcessSum {
    pub(super) process: i64,
    /// Provider and command name.
    pub(super) actor: i64,
    pub(super) call: Option<i64>,
    pub(super) sums: [i64; 7],
    pub(super) first_seen: i64,
    pub(super) last_seen: i64,
}

/// Process, endpoint, remote port.
pub(super) type Key = (i64, i64, Option<u16>);

/// What passed between a process and an endpoint.
#[derive(Debug, Clone, Copy)]
pub(super) struct Sum {
    pub(super) sums: [i64; 7],
    /// Connections that an alert marked.
    pub(super) alerts: u64,
    pub(super) first_seen: i64,
    pub(super) last_seen: i64,
    /// The most bytes that one connection sent, and when it began.
    pub(super) most: i64,
    pub(super) at: i64,
}

/// Endpoint, remote port, reason.
pub(super) type Failure = (i64, Option<u16>, Option<String>);

/// Events, summed up in memory.
#[derive(Debug, Default)]
pub(super) struct Gathered {
    pub(super) ways: FxHashMap<Key, Sum>,
    /// How many, and the last time.
    pub(super) failures: FxHashMap<Failure, (u64, i64)>,
}

/// What stands in a row of `kind`.
struct Kind {
    /// Place in the sums: connect, close, fail.
    place: usize,
    is_alerted: bool,
    error: Option<String>,
}

/// Whose process it is, and for whom it runs.
#[derive(Debug, Clone, Default)]
pub(super) struct Who {
    pub(super) session: i64,
    pub(super) actor: i64,
    pub(super) call: Option<i64>,
    pub(super) provider: String,
    pub(super) program: Option<String>,
    pub(super) pid: Option<u32>,
    pub(super) cmdline: Option<String>,
    pub(super) agent: Option<String>,
    pub(super) agent_pid: Option<u32>,
    pub(super) agent_session: Option<String>,
    pub(super) tool: Option<String>,
    pub(super) tool_pid: Option<u32>,
    pub(super) tool_started: Option<i64>,
}

#[derive(Debug, Clone)]
pub(super) struct Endpoint {
    /// Name, else address or path.
    pub(super) name: String,
    pub(super) is_named: bool,
    pub(super) known_by: Option<String>,
    pub(super) remote: Option<String>,
    pub(super) class: String,
    pub(super) protocol: String,
    /// The port that a proxy at `remote` was asked for.
    pub(super) domain_port: Option<u16>,
    /// What it was opened for counts elsewhere.
    pub(super) is_relay: bool,
}

/// Rows by id, each read once.
pub(super) struct Rows<'a> {
    process: Statement<'a>,
    endpoint: Statement<'a>,
    processes: FxHashMap<i64, Who>,
    endpoints: FxHashMap<i64, Endpoint>,
}

impl<'a> Rows<'a> {
    pub(super) fn new(history: &'a History) -> rusqlite::Result<Self> {
        let process = history.connection.prepare(
            "SELECT process.session, process.actor, process.call, process.provider, ifnull(process.program, process.comm), process.pid,
                    process.cmdline, agent, agent_pid, agent_session, tool, tool_pid, tool_started
             FROM process LEFT JOIN tool_call ON tool_call.id = process.call WHERE process.id = ?1",
        )?;
        let endpoint = history.connection.prepare(
            "SELECT ifnull(domain, ifnull(remote, '?')), domain IS NOT NULL, domain_source, remote, ifnull(type, 'unknown'), protocol,
                    domain_port, relay_for IS NOT NULL
             FROM endpoint WHERE id = ?1",
        )?;
        Ok(Self { process, endpoint, processes: FxHashMap::default(), endpoints: FxHashMap::default() })
    }

    /// One that is missing, in a file that somebody changed, is nobody.
    pub(super) fn who(&mut self, process: i64) -> rusqlite::Result<&Who> {
        if !self.processes.contains_key(&process) {
            let who = self.process.query_row([process], |row| {
                Ok(Who {
                    session: row.get(0)?,
                    actor: row.get(1)?,
                    call: row.get(2)?,
                    provider: row.get(3)?,
                    program: row.get(4)?,
                    pid: row.get(5)?,
                    cmdline: row.get(6)?,
                    agent: row.get(7)?,
                    agent_pid: row.get(8)?,
                    agent_session: row.get(9)?,
                    tool: row.get(10)?,
                    tool_pid: row.get(11)?,
                    tool_started: row.get(12)?,
                })
            });
            self.processes.insert(process, who.optional()?.unwrap_or_default());
        }
        Ok(&self.processes[&process])
    }

    pub(super) fn endpoint(&mut self, endpoint: i64) -> rusqlite::Result<&Endpoint> {
        if !self.endpoints.contains_key(&endpoint) {
            let found = self.endpoint.query_row([endpoint], |row| {
                Ok(Endpoint {
                    name: row.get(0)?,
                    is_named: row.get(1)?,
                    known_by: row.get(2)?,
                    remote: row.get(3)?,
                    class: row.get(4)?,
                    protocol: row.get(5)?,
                    domain_port: row.get::<_, Option<i64>>(6)?.and_then(|port| u16::try_from(port).ok()),
                    is_relay: row.get(7)?,
                })
            });
            let nothing = || Endpoint {
                name: "?".to_owned(),
                is_named: false,
                known_by: None,
                remote: None,
                class: "unknown".to_owned(),
                protocol: String::new(),
                domain_port: None,
                is_relay: false,
            };
            self.endpoints.insert(endpoint, found.optional()?.unwrap_or_else(nothing));
        }
        Ok(&self.endpoints[&endpoint])
    }
}

impl History {
    /// Connects, closes and fails of what is selected, read one by one.
    pub(super) fn gather_ways(
        &self,
        sessions: &[StoredSession],
        selection: &Selection,
    ) -> rusqlite::Result<Gathered> {
        let kinds = self.kinds()?;
        self.read_ways(sessions, selection, &kinds, i64::MIN)
    }

    /// Those alone that an alert marked; and whether older events were left out.
    pub(super) fn gather_alerted(
        &self,
        sessions: &[StoredSession],
        selection: &Selection,
    ) -> rusqlite::Result<(Gathered, bool)> {
        let mut kinds = self.kinds()?;
        kinds.retain(|_, kind| kind.is_alerted);
        if kinds.is_empty() || sessions.iter().all(|session| session.alerts == 0) {
            return Ok((Gathered::default(), false));
        }
        let ids = self.ids(sessions, selection)?;
        let from = ids.end.saturating_sub(ALERTS_READ);
        Ok((self.read_ways(sessions, selection, &kinds, from)?, from > ids.start))
    }

    fn kinds(&self) -> rusqlite::Result<FxHashMap<i64, Kind>> {
        let mut statement = self.connection.prepare("SELECT id, event, alert, error FROM kind")?;
        let mut rows = statement.query([])?;
        let mut kinds = FxHashMap::default();
        while let Some(row) = rows.next()? {
            let event: String = row.get(1)?;
            let place = ["connect", "close", "fail"].iter().position(|word| *word == event);
            let Some(place) = place else { continue };
            kinds.insert(row.get(0)?, Kind { place, is_alerted: row.get(2)?, error: row.get(3)? });
        }
        Ok(kinds)
    }

    /// The ids between which the events are.
    fn ids(&self, sessions: &[StoredSession], selection: &Selection) -> rusqlite::Result<Range<i64>> {
        let since = selection.since.map_or(i64::MIN, |since| since.div_euclid(HOUR_MS));
        let until = selection.until.map_or(i64::MAX, |until| until.div_euclid(HOUR_MS));
        let mut statement = self.connection.prepare(
            "SELECT min(first_event), max(last_event) FROM activity WHERE session = ?1 AND hour BETWEEN ?2 AND ?3",
        )?;
        let mut all: Option<(i64, i64)> = None;
        for session in sessions {
            let ids = statement.query_row([session.id, since, until], |row| {
                Ok((row.get::<_, Option<i64>>(0)?, row.get::<_, Option<i64>>(1)?))
            })?;
            let (Some(first), Some(last)) = ids else { continue };
            let (from, to) = all.unwrap_or((first, last));
            all = Some((from.min(first), to.max(last)));
        }
        Ok(all.map_or(0..0, |(first, last)| first..last.saturating_add(1)))
    }

    fn read_ways(
        &self,
        sessions: &[StoredSession],
        selection: &Selection,
        kinds: &FxHashMap<i64, Kind>,
        from: i64,
    ) -> rusqlite::Result<Gathered> {
        let ids = self.ids(sessions, selection)?;
        let wanted: FxHashSet<i64> = sessions.iter().map(|session| session.id).collect();
        let filter = selection.filter.as_ref().map(Condition::of);
        let (tables, condition, further) = match &filter {
            Some(filter) => {
                Condition::prepare(&self.connection)?;
                let tables = " CROSS JOIN process ON process.id = event.process CROSS JOIN kind ON kind.id = event.kind
                     CROSS JOIN endpoint ON endpoint.id = event.endpoint
                     LEFT JOIN tool_call ON tool_call.id = process.call";
                (tables, format!(" AND ({})", filter.sql), filter.values.clone())
            }
            None => ("", String::new(), Vec::new()),
        };
        let mut statement = self.connection.prepare(&format!(
            "SELECT event.kind, event.process, event.endpoint, event.remote_port, event.ts, event.duration_ms,
                    event.bytes_sent, event.bytes_recv
             FROM event{tables} WHERE event.id >= ? AND event.id < ? AND event.ts >= ? AND event.ts < ?{condition}"
        ))?;
        let mut values: Vec<Value> = [
            ids.start.max(from),
            ids.end,
            selection.since.unwrap_or(i64::MIN),
            selection.until.unwrap_or(i64::MAX),
        ]
        .into_iter()
        .map(Value::from)
        .collect();
        values.extend(further);
        let mut session_of = self.connection.prepare("SELECT session FROM process WHERE process.id = ?1")?;
        let mut is_wanted: FxHashMap<i64, bool> = FxHashMap::default();
        let mut gathered = Gathered::default();
        let mut rows = statement.query(params_from_iter(values))?;
        while let Some(row) = rows.next()? {
            let Some(kind) = kinds.get(&row.get(0)?) else { continue };
            let process: i64 = row.get(1)?;
            let known = is_wanted.get(&process).copied();
            let wanted = if let Some(wanted) = known {
                wanted
            } else {
                let session: Option<i64> = session_of.query_row([process], |row| row.get(0)).optional()?;
                let is_one = session.is_some_and(|session| wanted.contains(&session));
                is_wanted.insert(process, is_one);
                is_one
            };
            if !wanted {
                continue;
            }
            let (endpoint, ts): (i64, i64) = (row.get(2)?, row.get(4)?);
            let port = row.get::<_, Option<i64>>(3)?.and_then(|port| u16::try_from(port).ok());
            let bytes = |column| -> rusqlite::Result<i64> {
                Ok(row.get::<_, Option<i64>>(column)?.unwrap_or(0).clamp(0, BYTES_MAX))
            };
            let (sent, received) = (bytes(6)?, bytes(7)?);
            let began = ts.saturating_sub(row.get::<_, Option<i64>>(5)?.unwrap_or(0).max(0));
            if kind.place == 2 {
                let failure = gathered.failures.entry((endpoint, port, kind.error.clone())).or_default();
                *failure = (failure.0 + 1, failure.1.max(ts));
            }
            let way = gathered.ways.entry((process, endpoint, port)).or_insert(Sum {
                sums: [0; 7],
                alerts: 0,
                first_seen: ts,
                last_seen: ts,
                most: -1,
                at: began,
            });
            let mut sums = [0; 7];
            sums[kind.place] = 1;
            (sums[5], sums[6]) = (sent, received);
            add(&mut way.sums, sums);
            way.first_seen = way.first_seen.min(ts);
            way.last_seen = way.last_seen.max(ts);
            // The close row has the mark too.
            way.alerts += u64::from(kind.is_alerted && kind.place != 1);
            if sent > way.most {
                (way.most, way.at) = (sent, began);
            }
        }
        Ok(gathered)
    }

    /// The sums of each process of whole sessions.
    pub(super) fn process_sums(&self, sessions: &[StoredSession]) -> rusqlite::Result<Vec<ProcessSum>> {
        let wanted: FxHashSet<i64> = sessions.iter().map(|session| session.id).collect();
        // Processes get their ids as they come: those of a session begin with that of its first event.
        let mut first = self.connection.prepare(
            "SELECT process FROM event WHERE id = (SELECT min(first_event) FROM activity WHERE session = ?1)",
        )?;
        let mut from: Option<i64> = None;
        for session in sessions {
            let process: Option<i64> = first.query_row([session.id], |row| row.get(0)).optional()?;
            from = from.into_iter().chain(process).min();
        }
        let mut statement = self.connection.prepare(
            "SELECT process_traffic.process, process.session, process.actor, process.call, connects, closes, fails, bytes_sent,
                    bytes_recv, first_seen, last_seen
             FROM process_traffic CROSS JOIN process ON process.id = process_traffic.process
             WHERE process_traffic.process >= ?1",
        )?;
        let mut rows = statement.query([from.unwrap_or(i64::MAX)])?;
        let mut found = Vec::new();
        while let Some(row) = rows.next()? {
            let session = row.get(1)?;
            if !wanted.contains(&session) {
                continue;
            }
            found.push(ProcessSum {
                process: row.get(0)?,
                actor: row.get(2)?,
                call: row.get(3)?,
                sums: [row.get(4)?, row.get(5)?, row.get(6)?, 0, 0, row.get(7)?, row.get(8)?],
                first_seen: row.get(9)?,
                last_seen: row.get(10)?,
            });
        }
        Ok(found)
    }

    /// Calls of these sessions that are no tool's: what agents did themselves.
    pub(super) fn own_calls(&self, sessions: &[StoredSession]) -> rusqlite::Result<FxHashSet<i64>> {
        let mut statement =
            self.connection.prepare("SELECT id FROM tool_call WHERE session = ?1 AND tool IS NULL")?;
        let mut own = FxHashSet::default();
        for session in sessions {
            let mut rows = statement.query([session.id])?;
            while let Some(row) = rows.next()? {
                own.insert(row.get(0)?);
            }
        }
        Ok(own)
    }

    /// Provider and command name of each actor.
    pub(super) fn actors(&self) -> rusqlite::Result<FxHashMap<i64, (String, Option<String>)>> {
        let mut statement = self.connection.prepare("SELECT id, provider, comm FROM actor")?;
        let rows = statement.query_map([], |row| Ok((row.get(0)?, (row.get(1)?, row.get(2)?))))?;
        rows.collect()
    }

    /// Names and addresses that were in the history before the first of these sessions; `None` without a session before
    /// it. Rows of `endpoint` are made in the order in which they were first needed and never go, so that those of
    /// earlier sessions are those up to the largest that one of these has.
    pub(super) fn seen_before(
        &self,
        sessions: &[StoredSession],
    ) -> rusqlite::Result<Option<FxHashSet<String>>> {
        let Some(began) = sessions.iter().map(|session| session.started_at).min() else { return Ok(None) };
        let own: FxHashSet<i64> = sessions.iter().map(|session| session.id).collect();
        let mut earlier = self.connection.prepare("SELECT id FROM session WHERE started_at <= ?1")?;
        let earlier =
            earlier.query_map([began], |row| row.get(0))?.collect::<rusqlite::Result<Vec<i64>>>()?;
        let earlier: Vec<i64> = earlier.into_iter().filter(|id| !own.contains(id)).collect();
        if earlier.is_empty() {
            return Ok(None);
        }
        // An actor at a time, each by the key of the table: there are few, and many endpoints of each.
        let mut next = self.connection.prepare(
            "SELECT actor FROM traffic WHERE session = ?1 AND hour = -1 AND actor > ?2 ORDER BY actor LIMIT 1",
        )?;
        let mut last = self
            .connection
            .prepare("SELECT max(endpoint) FROM traffic WHERE session = ?1 AND hour = -1 AND actor = ?2")?;
        let mut largest = 0;
        for session in earlier {
            let mut actor = i64::MIN;
            while let Some(found) = next.query_row([session, actor], |row| row.get(0)).optional()? {
                actor = found;
                let endpoint: Option<i64> = last.query_row([session, actor], |row| row.get(0))?;
                largest = largest.max(endpoint.unwrap_or(0));
            }
        }
        let mut statement = self.connection.prepare(
            "SELECT DISTINCT ifnull(domain, remote) FROM endpoint WHERE id <= ?1 AND ifnull(domain, remote) IS NOT NULL",
        )?;
        let names = statement.query_map([largest], |row| row.get(0))?;
        names.collect::<rusqlite::Result<_>>().map(Some)
    }
}

/// Sums as counts.
pub(super) fn counts(sums: [i64; 7]) -> Counts {
    Counts::of(sums)
}
