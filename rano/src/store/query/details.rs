//! What a report says beyond its totals: who sent what where, what deserves a look first, processes and tool calls,
//! failures by reason, look-ups.

use std::cmp::Reverse;

use rustc_hash::{FxHashMap, FxHashSet};

use super::calls::CallRow;
use super::filter::Condition;
use super::groups::{Sort, Sorted};
use super::report::{Counts, Report, Top, add};
use super::sum_ways::SumWays;
use super::ways::{EVENTS_MAX, Gathered, ProcessSum, Rows, Who, counts};
use crate::attention::{Cause, Facts, causes, gravity};
use crate::event::{Class, with_port};
use crate::store::History;

/// Beyond the length of the list so many are shown because they are new or alerted; the rest is counted.
pub(super) const EXTRA_MAX: usize = 200;

/// A way from an agent, through a tool call and a program, to an endpoint.
#[derive(Debug, Clone, Default)]
pub struct Way {
    /// `None` where the sums of several sessions told.
    pub run_id: Option<String>,
    pub provider: String,
    pub agent: Option<String>,
    pub agent_pid: Option<u32>,
    pub agent_session: Option<String>,
    /// `None` too for what the agent does itself.
    pub tool: Option<String>,
    pub tool_pid: Option<u32>,
    /// Unix milliseconds, as all times here.
    pub tool_started: Option<i64>,
    /// What it runs, else its command name; `None` where nobody could be named.
    pub program: Option<String>,
    /// Of the process that sent most.
    pub pid: Option<u32>,
    pub cmdline: Option<String>,
    /// 0 where the sums do not tell.
    pub processes: u64,
    /// The process is inferred from sums: no other can have sent most of it.
    pub is_inferred: bool,
    /// Name of the endpoint, else its address.
    pub endpoint: String,
    pub is_named: bool,
    pub known_by: Option<String>,
    pub ip: Option<String>,
    /// The proxy that was asked for the endpoint; `port` is then the one asked for.
    pub via: Option<String>,
    /// `None` where the sums do not tell.
    pub port: Option<u16>,
    pub protocol: String,
    pub class: Class,
    /// Of connections; without accepts and listens.
    pub counts: Counts,
    /// Connections that an alert marked.
    pub alerts: u64,
    /// No earlier session has the endpoint.
    pub is_new: bool,
    /// When the connection that sent most began.
    pub at: Option<i64>,
    pub first_seen: Option<i64>,
    pub last_seen: Option<i64>,
}

/// An endpoint that deserves a look.
#[derive(Debug, Clone)]
pub struct Finding {
    pub causes: Vec<Cause>,
    /// Of all ways to this endpoint.
    pub counts: Counts,
    pub alerts: u64,
    /// The way that sent most, else the one that failed most.
    pub way: Way,
    /// How many ways there are.
    pub ways: u64,
}

#[derive(Debug, Clone)]
pub struct ProcessRow {
    pub run_id: String,
    pub provider: String,
    pub agent: Option<String>,
    pub agent_pid: Option<u32>,
    pub program: Option<String>,
    pub pid: Option<u32>,
    pub cmdline: Option<String>,
    pub counts: Counts,
    pub first_seen: i64,
    pub last_seen: i64,
}

#[derive(Debug, Clone)]
pub struct FailureRow {
    /// Name of the errno; `None` where nobody told it, and where the sums do not tell.
    pub error: Option<String>,
    pub endpoint: String,
    pub port: Option<u16>,
    pub class: Class,
    pub count: u64,
    pub last_seen: Option<i64>,
}

#[derive(Debug, Clone)]
pub struct LookupRow {
    /// Whom they asked.
    pub server: String,
    pub counts: Counts,
}

#[derive(Debug, Clone, Default)]
pub struct Details {
    /// Most bytes sent first; those that are new or alerted are among them whatever their place.
    pub ways: Vec<Way>,
    pub all_ways: u64,
    /// New or alerted ways that are not in the list.
    pub hidden: u64,
    /// Sums that had no room among the ways.
    pub unlisted: u64,
    /// The gravest first.
    pub findings: Vec<Finding>,
    pub all_findings: u64,
    /// `None` where only reading all of very many events would tell.
    pub processes: Option<Top<ProcessRow>>,
    pub tools: Option<Top<CallRow>>,
    pub failures: Top<FailureRow>,
    pub lookups: Top<LookupRow>,
    /// Connections that alerts marked, and whether older ones were not searched.
    pub marked: u64,
    pub alerts_cut: bool,
    /// There is an earlier session, so that what is new can be told.
    pub is_compared: bool,
    /// Events were read one by one: ports, tool calls and reasons are known.
    pub read_events: bool,
}

/// The ways of a selection before a list is cut, and what they are from.
pub(super) enum AllWays<'a> {
    Events { ways: Vec<Way>, gathered: Gathered },
    Sums { ways: SumWays<'a>, processes: Option<Vec<ProcessSum>>, alerts_cut: bool },
}

impl History {
    /// Of what `report` is about, which [`History::report_by`] of the same history has to have made. At most `findings`
    /// of what deserves a look, and lists of `top`.
    pub fn details(
        &self,
        report: &Report,
        (top, sort): (u32, Sort),
        findings: usize,
    ) -> rusqlite::Result<Details> {
        let top = usize::try_from(top).unwrap_or(usize::MAX);
        let mut rows = Rows::new(self)?;
        let (all, is_compared) = self.all_ways(report, &mut rows)?;
        let mut details = Details { is_compared, lookups: self.lookups(top)?, ..Details::default() };
        let processes = match all {
            AllWays::Events { mut ways, gathered } => {
                let found = findings_in(&ways);
                details.all_ways = ways.len() as u64;
                details.all_findings = found.len() as u64;
                details.findings = found.into_iter().take(findings).collect();
                details.marked = ways.iter().map(|way| way.alerts).sum();
                details.failures = ranked(failures(&gathered, &mut rows)?, top);
                details.read_events = true;
                sort.order(&mut ways, |way| Sorted {
                    counts: &way.counts,
                    first: way.first_seen,
                    last: way.last_seen,
                    name: &way.endpoint,
                });
                (details.ways, details.hidden) = shown(ways, top);
                Some(by_process(&gathered, &mut rows)?)
            }
            AllWays::Sums { ways, processes, alerts_cut } => {
                (details.findings, details.all_findings) = ways.findings(findings, &mut rows)?;
                details.all_ways = ways.count();
                details.unlisted = report.pairs.unlisted;
                details.marked = ways.alerts();
                details.alerts_cut = alerts_cut;
                details.failures = ranked(ways.failures(), top);
                (details.ways, details.hidden) = ways.shown(top, sort, &mut rows)?;
                processes
            }
        };
        if let Some(processes) = processes {
            let own = self.own_calls(&report.sessions)?;
            details.tools = Some(tools(&processes, &own, report, top, &mut rows)?);
            details.processes = Some(top_processes(processes, report, top, &mut rows)?);
        }
        Ok(details)
    }

    /// Most bytes sent first; and whether there is an earlier session.
    pub(super) fn all_ways<'a>(
        &self,
        report: &'a Report,
        rows: &mut Rows<'_>,
    ) -> rusqlite::Result<(AllWays<'a>, bool)> {
        let (sessions, selection) = (&report.sessions, &report.selection);
        let (since, until) = (selection.since.unwrap_or(i64::MIN), selection.until.unwrap_or(i64::MAX));
        let is_whole = selection.since.is_none() && selection.until.is_none() && selection.filter.is_none();
        let sums_tell = selection.filter.as_ref().is_none_or(|filter| Condition::on_sums(filter).is_some());
        let before = self.seen_before(sessions)?;
        let is_new = |label: &str| before.as_ref().is_some_and(|before| !before.contains(label));
        if !sums_tell || self.events_in(sessions, since, until)? <= EVENTS_MAX {
            let gathered = self.gather_ways(sessions, selection)?;
            let mut ways = from_events(&gathered, report, rows)?;
            for way in &mut ways {
                way.is_new = is_new(&way.endpoint);
            }
            ways.sort_by_cached_key(|way| {
                let Counts { connects, fails, bytes_sent, .. } = way.counts;
                (Reverse((bytes_sent, connects, fails)), way.endpoint.clone(), way.tool_pid, way.pid)
            });
            return Ok((AllWays::Events { ways, gathered }, before.is_some()));
        }
        let processes = if is_whole { Some(self.process_sums(sessions)?) } else { None };
        let (alerted, alerts_cut) = self.gather_alerted(sessions, selection)?;
        let alerted = from_events(&alerted, report, rows)?;
        let sums = processes.as_deref().unwrap_or_default();
        let ways = SumWays::new(report, rows, self.actors()?, is_new, sums, alerted)?;
        Ok((AllWays::Sums { ways, processes, alerts_cut }, before.is_some()))
    }

    /// The processes of a selection of which the sums do not tell, from its events.
    pub(super) fn processes_of_events(
        &self,
        report: &Report,
        rows: &mut Rows<'_>,
    ) -> rusqlite::Result<Vec<ProcessSum>> {
        let gathered = self.gather_ways(&report.sessions, &report.selection)?;
        by_process(&gathered, rows)
    }

    /// Look-ups, by the server that they asked.
    fn lookups(&self, top: usize) -> rusqlite::Result<Top<LookupRow>> {
        let mut statement = self.connection.prepare(
            "SELECT ifnull(remote, '?'), sum(connects), sum(closes), sum(fails), sum(accepts), sum(listens), sum(bytes_sent),
                    sum(bytes_recv)
             FROM temp.scope CROSS JOIN endpoint ON endpoint.id = scope.endpoint
             WHERE type = 'dns' AND connects + closes + fails > 0
             GROUP BY 1 ORDER BY sum(connects) DESC, 1",
        )?;
        let rows = statement
            .query_map([], |row| Ok(LookupRow { server: row.get(0)?, counts: Counts::from_row(row, 1)? }))?;
        let mut rows: Vec<_> = rows.collect::<rusqlite::Result<_>>()?;
        let all = rows.len() as u64;
        rows.truncate(top);
        Ok(Top { rows, all })
    }
}

/// The first `top`, and those that are new or alerted whatever their place; and how many of these are too many.
fn shown(mut ways: Vec<Way>, top: usize) -> (Vec<Way>, u64) {
    let (mut place, mut extra, mut hidden) = (0, 0, 0);
    ways.retain(|way| {
        place += 1;
        let deserves = way.alerts > 0 || is_strange(way.is_new, way.class);
        if place <= top {
            return true;
        }
        extra += usize::from(deserves);
        let is_hidden = deserves && extra > EXTRA_MAX;
        hidden += u64::from(is_hidden);
        deserves && !is_hidden
    });
    (ways, hidden)
}

fn ranked(mut rows: Vec<FailureRow>, top: usize) -> Top<FailureRow> {
    rows.sort_by_cached_key(|row| (Reverse(row.count), row.endpoint.clone(), row.port, row.error.clone()));
    let all = rows.len() as u64;
    rows.truncate(top);
    Top { rows, all }
}

/// New, and not of this machine.
pub(super) fn is_strange(is_new: bool, class: Class) -> bool {
    is_new && !matches!(class, Class::Localhost | Class::Ipc)
}

pub(super) fn class(word: &str) -> Class {
    Class::ALL.into_iter().find(|class| class.name() == word).unwrap_or_default()
}

pub(super) fn run_id(report: &Report, session: i64) -> String {
    let found = report.sessions.iter().find(|known| known.id == session);
    found.map_or_else(String::new, |session| session.run_id.clone())
}

/// What tells two ways apart: session, call, program, endpoint, its port, transport.
type Identity = (i64, Option<i64>, Option<String>, String, Option<u16>, String);

fn from_events(gathered: &Gathered, report: &Report, rows: &mut Rows<'_>) -> rusqlite::Result<Vec<Way>> {
    let mut found: FxHashMap<Identity, (Way, i64, FxHashSet<i64>)> = FxHashMap::default();
    for ((process, endpoint, port), sum) in &gathered.ways {
        let endpoint = rows.endpoint(*endpoint)?.clone();
        if endpoint.is_relay {
            continue;
        }
        let who = rows.who(*process)?;
        let proxy = endpoint.remote.as_deref().filter(|_| endpoint.domain_port.is_some()).zip(*port);
        let via = proxy.map(|(host, port)| with_port(host, Some(port)));
        let port = endpoint.domain_port.or(*port);
        let identity: Identity = (
            who.session,
            who.call,
            who.program.clone(),
            endpoint.name.clone(),
            port,
            endpoint.protocol.clone(),
        );
        let (way, most, processes) = found.entry(identity).or_insert_with(|| {
            let way = Way {
                run_id: Some(run_id(report, who.session)),
                class: class(&endpoint.class),
                endpoint: endpoint.name,
                is_named: endpoint.is_named,
                known_by: endpoint.known_by,
                ip: endpoint.remote,
                via,
                port,
                protocol: endpoint.protocol,
                first_seen: Some(sum.first_seen),
                last_seen: Some(sum.last_seen),
                ..Way::default()
            };
            (way, i64::MIN, FxHashSet::default())
        });
        way.counts.add(&counts(sum.sums));
        way.alerts += sum.alerts;
        way.first_seen = way.first_seen.min(Some(sum.first_seen));
        way.last_seen = way.last_seen.max(Some(sum.last_seen));
        processes.insert(*process);
        way.processes = processes.len() as u64;
        if sum.most > *most || (sum.most == *most && way.at > Some(sum.at)) {
            (*most, way.at) = (sum.most, Some(sum.at));
            name(way, who);
        }
    }
    Ok(found.into_values().map(|(way, ..)| way).collect())
}

pub(super) fn name(way: &mut Way, who: &Who) {
    let Who { provider, program, pid, cmdline, agent, agent_pid, agent_session, .. } = who.clone();
    let Who { tool, tool_pid, tool_started, .. } = who.clone();
    (way.provider, way.program, way.pid, way.cmdline) = (provider, program, pid, cmdline);
    (way.agent, way.agent_pid, way.agent_session) = (agent, agent_pid, agent_session);
    (way.tool, way.tool_pid, way.tool_started) = (tool, tool_pid, tool_started);
}

fn by_process(gathered: &Gathered, rows: &mut Rows<'_>) -> rusqlite::Result<Vec<ProcessSum>> {
    let mut found: FxHashMap<i64, ProcessSum> = FxHashMap::default();
    for ((process, ..), sum) in &gathered.ways {
        let who = rows.who(*process)?;
        let of = found.entry(*process).or_insert(ProcessSum {
            process: *process,
            actor: who.actor,
            call: who.call,
            sums: [0; 7],
            first_seen: sum.first_seen,
            last_seen: sum.last_seen,
        });
        add(&mut of.sums, sum.sums);
        of.first_seen = of.first_seen.min(sum.first_seen);
        of.last_seen = of.last_seen.max(sum.last_seen);
    }
    Ok(found.into_values().collect())
}

fn failures(gathered: &Gathered, rows: &mut Rows<'_>) -> rusqlite::Result<Vec<FailureRow>> {
    let mut found: FxHashMap<(String, Option<u16>, Option<String>), FailureRow> = FxHashMap::default();
    for ((endpoint, port, error), (count, last_seen)) in &gathered.failures {
        let endpoint = rows.endpoint(*endpoint)?;
        let row = found.entry((endpoint.name.clone(), *port, error.clone())).or_insert_with(|| FailureRow {
            error: error.clone(),
            endpoint: endpoint.name.clone(),
            port: *port,
            class: class(&endpoint.class),
            count: 0,
            last_seen: None,
        });
        row.count += count;
        row.last_seen = row.last_seen.max(Some(*last_seen));
    }
    Ok(found.into_values().collect())
}

/// By endpoint with its port, the gravest first.
fn findings_in(ways: &[Way]) -> Vec<Finding> {
    let mut found: FxHashMap<(&str, Option<u16>), Finding> = FxHashMap::default();
    // Ways are in the order of what they sent: the first one is the largest.
    for way in ways {
        let finding = found.entry((&way.endpoint, way.port)).or_insert_with(|| Finding {
            causes: Vec::new(),
            counts: Counts::default(),
            alerts: 0,
            way: way.clone(),
            ways: 0,
        });
        finding.counts.add(&way.counts);
        finding.alerts += way.alerts;
        finding.ways += 1;
        let is_silent = finding.way.counts.bytes_sent == 0 && way.counts.bytes_sent == 0;
        if is_silent && (way.alerts, way.counts.fails) > (finding.way.alerts, finding.way.counts.fails) {
            finding.way = way.clone();
        }
    }
    let facts = |finding: &Finding| Facts {
        class: finding.way.class,
        is_new: finding.way.is_new,
        is_alerted: finding.alerts > 0,
        connects: finding.counts.connects,
        fails: finding.counts.fails,
        bytes_sent: finding.counts.bytes_sent,
    };
    let mut found: Vec<Finding> = found
        .into_values()
        .filter_map(|mut finding| {
            finding.causes = causes(&facts(&finding));
            (!finding.causes.is_empty()).then_some(finding)
        })
        .collect();
    found.sort_by_cached_key(|finding| {
        (Reverse(gravity(&finding.causes, &facts(finding))), finding.way.endpoint.clone(), finding.way.port)
    });
    found
}

/// The tool calls that sent most, and what agents did themselves.
fn tools(
    processes: &[ProcessSum],
    own: &FxHashSet<i64>,
    report: &Report,
    top: usize,
    rows: &mut Rows<'_>,
) -> rusqlite::Result<Top<CallRow>> {
    let mut found: FxHashMap<i64, ProcessSum> = FxHashMap::default();
    for sum in processes {
        let Some(call) = sum.call.filter(|call| !own.contains(call)) else { continue };
        let of = found.entry(call).or_insert(ProcessSum { sums: [0; 7], ..*sum });
        add(&mut of.sums, sum.sums);
        of.first_seen = of.first_seen.min(sum.first_seen);
        of.last_seen = of.last_seen.max(sum.last_seen);
    }
    let all = found.len() as u64;
    let found = largest(found.into_values().collect(), top);
    let rows = found.into_iter().map(|sum| {
        let who = rows.who(sum.process)?;
        Ok(CallRow {
            run_id: run_id(report, who.session),
            agent: who.agent.clone(),
            agent_pid: who.agent_pid,
            agent_session: who.agent_session.clone(),
            tool: who.tool.clone(),
            tool_pid: who.tool_pid,
            tool_started: who.tool_started,
            first_seen: sum.first_seen,
            last_seen: sum.last_seen,
            counts: counts(sum.sums),
            calls: 1,
        })
    });
    Ok(Top { rows: rows.collect::<rusqlite::Result<_>>()?, all })
}

fn top_processes(
    processes: Vec<ProcessSum>,
    report: &Report,
    top: usize,
    rows: &mut Rows<'_>,
) -> rusqlite::Result<Top<ProcessRow>> {
    let all = processes.len() as u64;
    let rows = largest(processes, top).into_iter().map(|sum| {
        let who = rows.who(sum.process)?.clone();
        Ok(ProcessRow {
            run_id: run_id(report, who.session),
            provider: who.provider,
            agent: who.agent,
            agent_pid: who.agent_pid,
            program: who.program,
            pid: who.pid,
            cmdline: who.cmdline,
            counts: counts(sum.sums),
            first_seen: sum.first_seen,
            last_seen: sum.last_seen,
        })
    });
    Ok(Top { rows: rows.collect::<rusqlite::Result<_>>()?, all })
}

/// Those that sent most, most first.
fn largest(mut sums: Vec<ProcessSum>, top: usize) -> Vec<ProcessSum> {
    let key =
        |sum: &ProcessSum| (Reverse((sum.sums[5], sum.sums[0], sum.sums[2])), sum.first_seen, sum.process);
    if top < sums.len() && top > 0 {
        sums.select_nth_unstable_by_key(top - 1, key);
    }
    sums.truncate(top);
    sums.sort_unstable_by_key(key);
    sums
}
