//! One row for each domain, endpoint, process, class or hour of what is selected.

use std::cmp::Reverse;
use std::collections::BTreeSet;

use rusqlite::params_from_iter;
use rusqlite::types::Value;
use rustc_hash::FxHashMap;

use super::details::{AllWays, Way};
use super::filter::Condition;
use super::report::{Counts, Report, Top};
use super::ways::{Rows, counts};
use crate::store::History;
use crate::store::rollup::{BYTES_MAX, HOUR_MS, WHOLE_SESSION};

/// The order of rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Sort {
    #[default]
    Sent,
    Received,
    Connections,
    Fails,
    First,
    Last,
    Name,
}

/// What a row is sorted by.
#[derive(Debug, Clone, Copy)]
pub(super) struct Sorted<'a> {
    pub(super) counts: &'a Counts,
    pub(super) first: Option<i64>,
    pub(super) last: Option<i64>,
    pub(super) name: &'a str,
}

impl Sort {
    pub const ALL: [Self; 7] =
        [Self::Sent, Self::Received, Self::Connections, Self::Fails, Self::First, Self::Last, Self::Name];

    pub const fn name(self) -> &'static str {
        match self {
            Self::Sent => "sent",
            Self::Received => "received",
            Self::Connections => "connections",
            Self::Fails => "fails",
            Self::First => "first",
            Self::Last => "last",
            Self::Name => "name",
        }
    }

    pub fn parse(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|sort| sort.name() == word)
    }

    /// Rows that are the same to it keep their order. What is not known comes last.
    pub(super) fn order<T>(self, rows: &mut [T], of: impl Fn(&T) -> Sorted<'_>) {
        match self {
            Self::Sent => rows.sort_by_key(|row| Reverse(of(row).counts.bytes_sent)),
            Self::Received => rows.sort_by_key(|row| Reverse(of(row).counts.bytes_received)),
            Self::Connections => rows.sort_by_key(|row| Reverse(of(row).counts.connects)),
            Self::Fails => rows.sort_by_key(|row| Reverse(of(row).counts.fails)),
            Self::First => rows.sort_by_key(|row| of(row).first.unwrap_or(i64::MAX)),
            Self::Last => rows.sort_by_key(|row| Reverse(of(row).last)),
            Self::Name => rows.sort_by(|a, b| of(a).name.cmp(of(b).name)),
        }
    }
}

/// Most connections first, then most attempts, most bytes, by name.
const RANKING: &str = "sum(connects) DESC, sum(fails) DESC, sum(bytes_sent) + sum(bytes_recv) DESC";

/// The order of a list of sums; times are not among them.
pub(super) fn ranking(sort: Option<Sort>, name: &str) -> String {
    let first = match sort {
        None | Some(Sort::First | Sort::Last | Sort::Connections) => return RANKING.to_owned(),
        Some(Sort::Sent) => "sum(bytes_sent) DESC",
        Some(Sort::Received) => "sum(bytes_recv) DESC",
        Some(Sort::Fails) => "sum(fails) DESC",
        Some(Sort::Name) => name,
    };
    format!("{first}, {RANKING}")
}

/// What rows are put together by, beside tool calls and agents.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Group {
    /// Names; addresses of what has none.
    Domain,
    /// The same with ports, where they are known.
    Endpoint,
    Process,
    Class,
    Hour,
}

/// What is not known, or has no meaning for the group, is absent.
#[derive(Debug, Clone, Default)]
pub struct GroupRow {
    pub label: String,
    pub counts: Counts,
    /// Unix milliseconds; of an hour its beginning.
    pub first_seen: Option<i64>,
    pub last_seen: Option<i64>,
    /// Agents, else providers.
    pub agents: BTreeSet<String>,
    pub is_named: bool,
    pub known_by: BTreeSet<String>,
    pub class: Option<&'static str>,
    pub port: Option<u16>,
    pub protocol: Option<String>,
    pub alerts: u64,
    pub is_new: bool,
    /// Of a process.
    pub run_id: Option<String>,
    pub pid: Option<u32>,
    pub agent_pid: Option<u32>,
    pub cmdline: Option<String>,
}

impl GroupRow {
    fn sorted(&self) -> Sorted<'_> {
        Sorted { counts: &self.counts, first: self.first_seen, last: self.last_seen, name: &self.label }
    }
}

impl History {
    /// The first `top`, and how many there are; [`History::report_by`] of the same history has to have made `report`.
    /// Rows that are new or alerted are there whatever their place.
    pub fn groups(
        &self,
        report: &Report,
        group: Group,
        (top, sort): (u32, Sort),
    ) -> rusqlite::Result<Top<GroupRow>> {
        let mut rows = Rows::new(self)?;
        let mut found = match group {
            Group::Domain | Group::Endpoint | Group::Class => {
                let ways = match self.all_ways(report, &mut rows)?.0 {
                    AllWays::Events { ways, .. } => ways,
                    AllWays::Sums { ways, .. } => ways.all(&mut rows)?,
                };
                folded(&ways, group)
            }
            Group::Process => self.each_process(report, &mut rows)?,
            Group::Hour => self.by_hour(report)?,
        };
        sort.order(&mut found, GroupRow::sorted);
        let all = found.len() as u64;
        let mut place = 0;
        found.retain(|row| {
            place += 1;
            place <= top || row.alerts > 0 || row.is_new
        });
        Ok(Top { rows: found, all })
    }

    fn each_process(&self, report: &Report, rows: &mut Rows<'_>) -> rusqlite::Result<Vec<GroupRow>> {
        let selection = &report.selection;
        let is_whole = selection.since.is_none() && selection.until.is_none() && selection.filter.is_none();
        let sums = if is_whole {
            self.process_sums(&report.sessions)?
        } else {
            self.processes_of_events(report, rows)?
        };
        let run_id = |id| {
            let session = report.sessions.iter().find(|session| session.id == id);
            session.map(|session| session.run_id.clone())
        };
        sums.into_iter()
            .map(|sum| {
                let who = rows.who(sum.process)?.clone();
                Ok(GroupRow {
                    label: who.program.unwrap_or_else(|| "unknown".to_owned()),
                    counts: counts(sum.sums),
                    first_seen: Some(sum.first_seen),
                    last_seen: Some(sum.last_seen),
                    agents: [who.agent.unwrap_or(who.provider)].into(),
                    run_id: run_id(who.session),
                    pid: who.pid,
                    agent_pid: who.agent_pid,
                    cmdline: who.cmdline,
                    ..GroupRow::default()
                })
            })
            .collect()
    }

    /// Hours of the Unix clock, the oldest first. Whole ones come from sums where these can tell.
    fn by_hour(&self, report: &Report) -> rusqlite::Result<Vec<GroupRow>> {
        let selection = &report.selection;
        let filter = selection.filter.as_ref();
        let (since, until) = (selection.since.unwrap_or(i64::MIN), selection.until.unwrap_or(i64::MAX));
        let ceiling = |ms: i64| ms.div_euclid(HOUR_MS) + i64::from(ms.rem_euclid(HOUR_MS) > 0);
        let first = selection.since.map_or(0, ceiling).max(0);
        let end = selection.until.map_or(i64::MAX, |until| until.div_euclid(HOUR_MS));
        let on_sums = filter.map_or_else(|| Some(Condition::default()), Condition::on_sums);
        let mut found: FxHashMap<i64, Counts> = FxHashMap::default();
        let mut parts: Vec<(String, Vec<Value>)> = Vec::new();
        for session in &report.sessions {
            let mut events = |since: i64, until: i64| {
                parts.push(hours_of_events(
                    session.id,
                    filter.map(Condition::of).unwrap_or_default(),
                    since,
                    until,
                ));
            };
            match &on_sums {
                Some(condition) if first < end => {
                    if selection.since.is_some_and(|since| since.rem_euclid(HOUR_MS) > 0) {
                        events(since, first.saturating_mul(HOUR_MS));
                    }
                    if selection.until.is_some_and(|until| until.rem_euclid(HOUR_MS) > 0) {
                        events(end.saturating_mul(HOUR_MS), until);
                    }
                    parts.push(hours_of_sums(session.id, condition, first, end));
                }
                _ => events(since, until),
            }
        }
        for (sql, values) in parts {
            let mut statement = self.connection.prepare(&sql)?;
            let mut rows = statement.query(params_from_iter(values))?;
            while let Some(row) = rows.next()? {
                found.entry(row.get(0)?).or_default().add(&Counts::from_row(row, 1)?);
            }
        }
        let mut hours: Vec<_> = found.into_iter().filter(|(_, counts)| counts.events() > 0).collect();
        hours.sort_unstable_by_key(|(hour, _)| *hour);
        let row = |(hour, counts): (i64, Counts)| GroupRow {
            label: String::new(),
            counts,
            first_seen: Some(hour.saturating_mul(HOUR_MS)),
            last_seen: Some(hour.saturating_mul(HOUR_MS)),
            ..GroupRow::default()
        };
        Ok(hours.into_iter().map(row).collect())
    }
}

fn hours_of_sums(session: i64, condition: &Condition, first: i64, end: i64) -> (String, Vec<Value>) {
    let mut values: Vec<Value> = vec![session.into(), first.into(), end.into()];
    if condition.sql.is_empty() {
        let sql = "SELECT hour, connects, closes, fails, 0, 0, bytes_sent, bytes_recv FROM activity
             WHERE session = ? AND hour >= ? AND hour < ?";
        return (sql.to_owned(), values);
    }
    values.extend(condition.values.iter().cloned());
    let sql = format!(
        "SELECT hour, sum(connects), sum(closes), sum(fails), 0, 0, sum(bytes_sent), sum(bytes_recv) FROM traffic
         CROSS JOIN actor ON actor.id = traffic.actor CROSS JOIN endpoint ON endpoint.id = traffic.endpoint
         WHERE traffic.session = ? AND hour > {WHOLE_SESSION} AND hour >= ? AND hour < ? AND ({}) GROUP BY hour",
        condition.sql
    );
    (sql, values)
}

fn hours_of_events(session: i64, condition: Condition, since: i64, until: i64) -> (String, Vec<Value>) {
    let and = if condition.sql.is_empty() { String::new() } else { format!(" AND ({})", condition.sql) };
    let hours = "activity WHERE session = ? AND hour >= ? AND hour <= ?";
    let bytes = |column: &str| format!("sum(min(max(ifnull(event.{column}, 0), 0), {BYTES_MAX}))");
    let sql = format!(
        "SELECT event.ts / {HOUR_MS}, sum(kind.event = 'connect'), sum(kind.event = 'close'), sum(kind.event = 'fail'), 0, 0,
                {}, {}
         FROM event CROSS JOIN process ON process.id = event.process CROSS JOIN kind ON kind.id = event.kind
         CROSS JOIN endpoint ON endpoint.id = event.endpoint LEFT JOIN tool_call ON tool_call.id = process.call
         WHERE event.id BETWEEN (SELECT min(first_event) FROM {hours}) AND (SELECT max(last_event) FROM {hours})
               AND process.session = ? AND event.ts >= ? AND event.ts < ? AND kind.event IN ('connect', 'close', 'fail'){and}
         GROUP BY 1",
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

/// Ways with the same name, endpoint or class as one.
fn folded(ways: &[Way], group: Group) -> Vec<GroupRow> {
    let mut found: FxHashMap<(String, Option<u16>), GroupRow> = FxHashMap::default();
    for way in ways {
        let class = way.class.name();
        let (label, port) = match group {
            Group::Class => (class.to_owned(), None),
            Group::Endpoint => (way.endpoint.clone(), way.port),
            Group::Domain | Group::Process | Group::Hour => (way.endpoint.clone(), None),
        };
        let row = found.entry((label.clone(), port)).or_insert_with(|| GroupRow {
            label,
            port,
            class: Some(class),
            is_named: way.is_named,
            protocol: (group == Group::Endpoint).then(|| way.protocol.clone()),
            first_seen: way.first_seen,
            ..GroupRow::default()
        });
        row.counts.add(&way.counts);
        row.first_seen = row.first_seen.into_iter().chain(way.first_seen).min();
        row.last_seen = row.last_seen.max(way.last_seen);
        row.agents.insert(way.agent.clone().unwrap_or_else(|| way.provider.clone()));
        row.known_by.extend(way.known_by.clone());
        row.alerts += way.alerts;
        row.is_new |= way.is_new && group != Group::Class;
    }
    let mut rows: Vec<_> = found.into_iter().collect();
    rows.sort_by(|a, b| a.0.cmp(&b.0));
    rows.into_iter().map(|(_, row)| row).collect()
}
