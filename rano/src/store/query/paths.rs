//! Who talked to what: the paths from an agent through its tool calls and programs to an endpoint, with their sums.
//! The map shows them. The stored sums know neither tool calls nor programs; where there are few events, rano reads
//! these.

use rusqlite::params_from_iter;
use rusqlite::types::Value;
use rustc_hash::FxHashMap;

use super::filter::Condition;
use super::report::{Counts, Selection};
use super::sessions::StoredSession;
use crate::filter::Filter;
use crate::store::History;
use crate::store::rollup::{BYTES_MAX, HOUR_MS, WHOLE_SESSION};

/// A way from a provider to an endpoint.
#[derive(Debug, Clone)]
pub struct PathRow {
    pub provider: String,
    /// Where events were read.
    pub agent: Option<String>,
    /// The same; `None` too for what the agent does itself.
    pub tool: Option<String>,
    /// What it runs, else its command name; `None` where nobody could be named.
    pub process: Option<String>,
    /// Endpoint class.
    pub class: String,
    /// Name of the endpoint, else its address.
    pub endpoint: String,
    pub is_named: bool,
    /// How the name became known.
    pub known_by: Option<String>,
    pub protocol: String,
    pub counts: Counts,
}

/// The ways of what was selected.
#[derive(Debug, Clone, Default)]
pub struct Paths {
    /// Most bytes first, then most connections.
    pub rows: Vec<PathRow>,
    /// How many there are.
    pub all: u64,
    /// The sums of those that are left out of `rows`, by provider and class.
    pub others: Vec<(String, String, Counts)>,
    /// The sums could not answer: events were read.
    pub read_events: bool,
}

/// What tells two ways apart: provider, agent, tool, process, class, endpoint.
type Identity = [Option<String>; 6];

/// So many events are read for a map with tool calls: a tenth of a second.
const EVENTS_MAX: i64 = 100_000;

/// What a scope is of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Scope {
    /// Actors, as in the sums.
    Actors,
    Processes,
}

impl History {
    /// Of `sessions`, within the range and the filter of `selection`; at most `most` rows.
    pub fn paths(
        &self,
        sessions: &[StoredSession],
        selection: &Selection,
        most: usize,
    ) -> rusqlite::Result<Paths> {
        if selection.filter.is_some() {
            Condition::prepare(&self.connection)?;
        }
        let mut found: FxHashMap<Identity, PathRow> = FxHashMap::default();
        let mut read_events = false;
        let (since, until) = (selection.since.unwrap_or(i64::MIN), selection.until.unwrap_or(i64::MAX));
        let is_short = self.events_in(sessions, since, until)? <= EVENTS_MAX;
        for session in sessions {
            let (sql, values, scope) = if is_short {
                let (sql, values) =
                    of_events(session.id, selection.filter.as_ref(), since, until, Scope::Processes);
                (sql, values, Scope::Processes)
            } else {
                statement(session.id, selection)
            };
            read_events |= scope == Scope::Processes && !is_short;
            self.add_paths(&mut found, &sql, &values, scope)?;
        }
        let mut rows: Vec<PathRow> = found.into_values().collect();
        rows.sort_by_cached_key(|row| {
            let PathRow { provider, process, endpoint, counts, .. } = row;
            let bytes = counts.bytes_sent.saturating_add(counts.bytes_received);
            let first = (bytes, counts.connects.saturating_add(counts.fails));
            (std::cmp::Reverse(first), endpoint.clone(), provider.clone(), process.clone())
        });
        let all = rows.len() as u64;
        let mut others: FxHashMap<(String, String), Counts> = FxHashMap::default();
        for row in rows.drain(most.min(rows.len())..) {
            others.entry((row.provider, row.class)).or_default().add(&row.counts);
        }
        let mut others: Vec<_> =
            others.into_iter().map(|((provider, class), counts)| (provider, class, counts)).collect();
        others.sort_by(|a, b| (&a.0, &a.1).cmp(&(&b.0, &b.1)));
        Ok(Paths { rows, all, others, read_events })
    }

    fn add_paths(
        &self,
        found: &mut FxHashMap<Identity, PathRow>,
        rows: &str,
        values: &[Value],
        scope: Scope,
    ) -> rusqlite::Result<()> {
        let (who, tables) = match scope {
            Scope::Actors => {
                ("actor.provider, NULL, NULL, actor.comm", "CROSS JOIN actor ON actor.id = who".to_owned())
            }
            Scope::Processes => (
                "process.provider, tool_call.agent, tool_call.tool, ifnull(process.program, process.comm)",
                "CROSS JOIN process ON process.id = who LEFT JOIN tool_call ON tool_call.id = process.call"
                    .to_owned(),
            ),
        };
        let mut statement = self.connection.prepare(&format!(
            "SELECT {who}, ifnull(endpoint.type, 'unknown'), ifnull(endpoint.domain, ifnull(endpoint.remote, '?')),
                    endpoint.domain IS NOT NULL, endpoint.domain_source, endpoint.protocol,
                    connects, closes, fails, accepts, listens, bytes_sent, bytes_recv
             FROM (SELECT who, endpoint AS what, sum(connects) AS connects, sum(closes) AS closes,
                          sum(fails) AS fails, sum(accepts) AS accepts, sum(listens) AS listens,
                          sum(bytes_sent) AS bytes_sent, sum(bytes_recv) AS bytes_recv
                   FROM ({rows}) GROUP BY who, endpoint)
             {tables} CROSS JOIN endpoint ON endpoint.id = what
             WHERE connects + closes + fails + accepts + listens > 0 AND endpoint.relay_for IS NULL"
        ))?;
        let mut rows = statement.query(params_from_iter(values))?;
        while let Some(row) = rows.next()? {
            let counts = Counts::from_row(row, 9)?;
            let mut identity: Identity = Default::default();
            for (index, part) in identity.iter_mut().enumerate() {
                *part = row.get(index)?;
            }
            if let Some(known) = found.get_mut(&identity) {
                known.counts.add(&counts);
                continue;
            }
            let [provider, agent, tool, process, class, endpoint] = identity.clone();
            let path = PathRow {
                provider: provider.unwrap_or_default(),
                agent,
                tool,
                process,
                class: class.unwrap_or_default(),
                endpoint: endpoint.unwrap_or_default(),
                is_named: row.get(6)?,
                known_by: row.get(7)?,
                protocol: row.get(8)?,
                counts,
            };
            found.insert(identity, path);
        }
        Ok(())
    }
}

const SUMS: &str = "connects, closes, fails, accepts, listens, bytes_sent, bytes_recv";

/// A statement for rows of who, endpoint and seven sums of a session, what its question marks stand for, and what `who`
/// is.
fn statement(session: i64, selection: &Selection) -> (String, Vec<Value>, Scope) {
    let filter = selection.filter.as_ref();
    let on_sums = filter.map_or_else(|| Some(Condition::default()), Condition::on_sums);
    let (since, until) = (selection.since.unwrap_or(i64::MIN), selection.until.unwrap_or(i64::MAX));
    let Some(on_sums) = on_sums else {
        let (sql, values) = of_events(session, filter, since, until, Scope::Processes);
        return (sql, values, Scope::Processes);
    };
    if (selection.since, selection.until) == (None, None) {
        let (sql, values) = of_sums(session, &on_sums, WHOLE_SESSION, WHOLE_SESSION + 1);
        return (sql, values, Scope::Actors);
    }
    // Whole hours from the sums, the parts of an hour at either end from events.
    let ceiling = |ms: i64| ms.div_euclid(HOUR_MS) + i64::from(ms.rem_euclid(HOUR_MS) > 0);
    let first = selection.since.map_or(0, ceiling).max(0);
    let end = selection.until.map_or(i64::MAX, |until| until.div_euclid(HOUR_MS));
    let mut parts = Vec::new();
    if first >= end {
        parts.push(of_events(session, filter, since, until, Scope::Actors));
    } else {
        if selection.since.is_some_and(|since| since.rem_euclid(HOUR_MS) > 0) {
            parts.push(of_events(session, filter, since, first.saturating_mul(HOUR_MS), Scope::Actors));
        }
        parts.push(of_sums(session, &on_sums, first, end));
        if selection.until.is_some_and(|until| until.rem_euclid(HOUR_MS) > 0) {
            parts.push(of_events(session, filter, end.saturating_mul(HOUR_MS), until, Scope::Actors));
        }
    }
    let (statements, values): (Vec<_>, Vec<_>) = parts.into_iter().unzip();
    (statements.join(" UNION ALL "), values.into_iter().flatten().collect(), Scope::Actors)
}

/// From `first` to before `end`, in hours.
fn of_sums(session: i64, condition: &Condition, first: i64, end: i64) -> (String, Vec<Value>) {
    let mut values: Vec<Value> = vec![session.into(), first.into(), end.into()];
    let (tables, and) = if condition.sql.is_empty() {
        ("", String::new())
    } else {
        values.extend(condition.values.iter().cloned());
        (
            " CROSS JOIN actor ON actor.id = traffic.actor CROSS JOIN endpoint ON endpoint.id = traffic.endpoint",
            format!(" AND ({})", condition.sql),
        )
    };
    let sql = format!(
        "SELECT traffic.actor AS who, traffic.endpoint AS endpoint, {SUMS} FROM traffic{tables}
         WHERE traffic.session = ? AND traffic.hour >= ? AND traffic.hour < ?{and}"
    );
    (sql, values)
}

/// From `since` to before `until`, in Unix milliseconds.
fn of_events(
    session: i64,
    filter: Option<&Filter>,
    since: i64,
    until: i64,
    scope: Scope,
) -> (String, Vec<Value>) {
    let who = match scope {
        Scope::Actors => "process.actor",
        Scope::Processes => "event.process",
    };
    let condition = filter.map(Condition::of).unwrap_or_default();
    let and = if condition.sql.is_empty() { String::new() } else { format!(" AND ({})", condition.sql) };
    let hours = "activity WHERE session = ? AND hour >= ? AND hour <= ?";
    let is = |word: &str| format!("kind.event = '{word}'");
    let bytes = |column: &str| format!("min(max(ifnull(event.{column}, 0), 0), {BYTES_MAX})");
    let sql = format!(
        "SELECT {who} AS who, event.endpoint AS endpoint, {} AS connects, {} AS closes, {} AS fails,
                {} AS accepts, {} AS listens, {} AS bytes_sent, {} AS bytes_recv
         FROM event CROSS JOIN process ON process.id = event.process CROSS JOIN kind ON kind.id = event.kind
         CROSS JOIN endpoint ON endpoint.id = event.endpoint LEFT JOIN tool_call ON tool_call.id = process.call
         WHERE event.id BETWEEN (SELECT min(first_event) FROM {hours}) AND (SELECT max(last_event) FROM {hours})
               AND process.session = ? AND event.ts >= ? AND event.ts < ?{and}",
        is("connect"),
        is("close"),
        is("fail"),
        is("accept"),
        is("listen"),
        bytes("bytes_sent"),
        bytes("bytes_recv"),
    );
    let hours: [Value; 3] =
        [session.into(), since.div_euclid(HOUR_MS).into(), until.div_euclid(HOUR_MS).into()];
    let mut values: Vec<Value> = hours.iter().chain(&hours).cloned().collect();
    values.extend([session.into(), since.into(), until.into()]);
    values.extend(condition.values);
    (sql, values)
}
