//! What a report says beyond its totals: who sent what where, what deserves a look first, processes and tool calls,
//! failures by reason, look-ups.

use std::cmp::Reverse;

use rustc_hash::{FxHashMap, FxHashSet};

use super::calls::CallRow;
use super::filter::Condition;
use super::groups::{Sort, Sorted};
use super::paths::PathRow;
use super::report::{Counts, Report, Top, add};
use super::ways::{EVENTS_MAX, Gathered, ProcessSum, Rows, Who, counts};
use crate::attention::{Cause, Facts, causes, gravity};
use crate::event::Class;
use crate::store::History;

/// Beyond the length of the list so many are shown because they are new or alerted; the rest is counted.
const EXTRA_MAX: usize = 200;

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

/// All ways of a selection, before a list is cut.
#[derive(Default)]
pub(super) struct AllWays {
    pub(super) ways: Vec<Way>,
    /// `None` where only reading all of very many events would tell.
    pub(super) processes: Option<Vec<ProcessSum>>,
    /// `None` where the sums told.
    gathered: Option<Gathered>,
    is_compared: bool,
    alerts_cut: bool,
}

impl History {
    /// Of what `report` is about; it has to be asked in the same history before. At most `findings` of what deserves a
    /// look, and lists of `top`.
    pub fn details(
        &self,
        report: &Report,
        (top, sort): (u32, Sort),
        findings: usize,
    ) -> rusqlite::Result<Details> {
        let top = usize::try_from(top).unwrap_or(usize::MAX);
        let mut rows = Rows::new(self)?;
        let AllWays { mut ways, processes, gathered, is_compared, alerts_cut } =
            self.all_ways(report, &mut rows)?;
        let failures = match &gathered {
            Some(gathered) => failures(gathered, top, &mut rows)?,
            None => failures_of_sums(&ways, top),
        };
        let found = findings_in(&ways);
        let mut details = Details {
            all_ways: ways.len() as u64,
            all_findings: found.len() as u64,
            findings: found.into_iter().take(findings).collect(),
            failures,
            marked: ways.iter().map(|way| way.alerts).sum(),
            lookups: self.lookups(top)?,
            alerts_cut,
            is_compared,
            read_events: gathered.is_some(),
            ..Details::default()
        };
        sort.order(&mut ways, |way| Sorted {
            counts: &way.counts,
            first: way.first_seen,
            last: way.last_seen,
            name: &way.endpoint,
        });
        (details.ways, details.hidden) = shown(ways, top);
        if let Some(processes) = processes {
            let own = self.own_calls(&report.sessions)?;
            details.tools = Some(tools(&processes, &own, report, top, &mut rows)?);
            details.processes = Some(top_processes(processes, report, top, &mut rows)?);
        }
        Ok(details)
    }

    /// Most bytes sent first.
    pub(super) fn all_ways(&self, report: &Report, rows: &mut Rows<'_>) -> rusqlite::Result<AllWays> {
        let (sessions, selection) = (&report.sessions, &report.selection);
        let (since, until) = (selection.since.unwrap_or(i64::MIN), selection.until.unwrap_or(i64::MAX));
        let is_whole = selection.since.is_none() && selection.until.is_none() && selection.filter.is_none();
        let sums_tell = selection.filter.as_ref().is_none_or(|filter| Condition::on_sums(filter).is_some());
        let mut all = AllWays::default();
        let mut ways;
        if !sums_tell || self.events_in(sessions, since, until)? <= EVENTS_MAX {
            let gathered = self.gather_ways(sessions, selection)?;
            ways = from_events(&gathered, report, rows)?;
            all.processes = Some(by_process(&gathered, rows)?);
            all.gathered = Some(gathered);
        } else {
            let paths = self.paths_of_sums(sessions, selection)?;
            ways = paths.into_iter().map(|path| from_sums(path, report)).collect();
            if is_whole {
                let processes = self.process_sums(sessions)?;
                attribute(&mut ways, &processes, &self.actors()?, report, rows)?;
                all.processes = Some(processes);
            }
            let (alerted, is_cut) = self.gather_alerted(sessions, selection)?;
            let mut marked = from_events(&alerted, report, rows)?;
            mark(&mut ways, &mut marked);
            ways.extend(marked);
            all.alerts_cut = is_cut;
        }
        let before = self.seen_before(sessions)?;
        for way in &mut ways {
            way.is_new = before.as_ref().is_some_and(|before| !before.contains(&way.endpoint));
        }
        ways.sort_by_cached_key(|way| {
            let Counts { connects, fails, bytes_sent, .. } = way.counts;
            (Reverse((bytes_sent, connects, fails)), way.endpoint.clone(), way.tool_pid, way.pid)
        });
        Ok(AllWays { ways, is_compared: before.is_some(), ..all })
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
        let deserves = way.alerts > 0 || (way.is_new && !matches!(way.class, Class::Localhost | Class::Ipc));
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

/// Without the reasons.
fn failures_of_sums(ways: &[Way], top: usize) -> Top<FailureRow> {
    let mut found: FxHashMap<&str, FailureRow> = FxHashMap::default();
    for way in ways.iter().filter(|way| way.counts.fails > 0) {
        let row = found.entry(&way.endpoint).or_insert_with(|| FailureRow {
            error: None,
            endpoint: way.endpoint.clone(),
            port: way.port,
            class: way.class,
            count: 0,
            last_seen: None,
        });
        row.count += way.counts.fails;
    }
    ranked(found.into_values().collect(), top)
}

fn ranked(mut rows: Vec<FailureRow>, top: usize) -> Top<FailureRow> {
    rows.sort_by_cached_key(|row| (Reverse(row.count), row.endpoint.clone(), row.port, row.error.clone()));
    let all = rows.len() as u64;
    rows.truncate(top);
    Top { rows, all }
}

fn class(word: &str) -> Class {
    Class::ALL.into_iter().find(|class| class.name() == word).unwrap_or_default()
}

fn run_id(report: &Report, session: i64) -> String {
    let found = report.sessions.iter().find(|known| known.id == session);
    found.map_or_else(String::new, |session| session.run_id.clone())
}

/// What tells two ways apart: session, call, program, endpoint, its port, transport.
type Identity = (i64, Option<i64>, Option<String>, String, Option<u16>, String);

fn from_events(gathered: &Gathered, report: &Report, rows: &mut Rows<'_>) -> rusqlite::Result<Vec<Way>> {
    let mut found: FxHashMap<Identity, (Way, i64, FxHashSet<i64>)> = FxHashMap::default();
    for ((process, endpoint, port), sum) in &gathered.ways {
        let endpoint = rows.endpoint(*endpoint)?.clone();
        let who = rows.who(*process)?;
        let identity: Identity = (
            who.session,
            who.call,
            who.program.clone(),
            endpoint.name.clone(),
            *port,
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
                port: *port,
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

fn name(way: &mut Way, who: &Who) {
    let Who { provider, program, pid, cmdline, agent, agent_pid, agent_session, .. } = who.clone();
    let Who { tool, tool_pid, tool_started, .. } = who.clone();
    (way.provider, way.program, way.pid, way.cmdline) = (provider, program, pid, cmdline);
    (way.agent, way.agent_pid, way.agent_session) = (agent, agent_pid, agent_session);
    (way.tool, way.tool_pid, way.tool_started) = (tool, tool_pid, tool_started);
}

fn from_sums(path: PathRow, report: &Report) -> Way {
    let run_id = match report.sessions.as_slice() {
        [session] => Some(session.run_id.clone()),
        _ => None,
    };
    Way {
        run_id,
        provider: path.provider,
        program: path.process,
        class: class(&path.class),
        ip: (!path.is_named).then(|| path.endpoint.clone()),
        endpoint: path.endpoint,
        is_named: path.is_named,
        known_by: path.known_by,
        protocol: path.protocol,
        counts: Counts { accepts: 0, listens: 0, ..path.counts },
        ..Way::default()
    }
}

/// So many of the largest ways of sums are attributed to a process.
const ATTRIBUTED: usize = 50;

/// Of a command name, what all its processes but one have sent cannot be what that one has: where a way has more than
/// twice as much as all others together, most of it is of that process.
fn attribute(
    ways: &mut [Way],
    processes: &[ProcessSum],
    actors: &FxHashMap<(String, Option<String>), i64>,
    report: &Report,
    rows: &mut Rows<'_>,
) -> rusqlite::Result<()> {
    ways.sort_by_key(|way| Reverse(way.counts.bytes_sent));
    let mut by_actor: FxHashMap<i64, (i64, ProcessSum)> = FxHashMap::default();
    for sum in processes {
        let (total, most) = by_actor.entry(sum.actor).or_default();
        *total = total.saturating_add(sum.sums[5]);
        if sum.sums[5] > most.sums[5] {
            *most = *sum;
        }
    }
    for way in ways.iter_mut().take(ATTRIBUTED) {
        let actor = actors.get(&(way.provider.clone(), way.program.clone()));
        let Some((total, most)) = actor.and_then(|actor| by_actor.get(actor)) else { continue };
        let others = u64::try_from(total.saturating_sub(most.sums[5])).unwrap_or(u64::MAX);
        if others.saturating_mul(2) < way.counts.bytes_sent {
            let who = rows.who(most.process)?;
            name(way, who);
            way.run_id = Some(run_id(report, who.session));
            (way.first_seen, way.last_seen) = (Some(most.first_seen), Some(most.last_seen));
            (way.at, way.is_inferred) = (way.first_seen, true);
        }
    }
    Ok(())
}

/// Marks the ways of sums that the alerted events are part of. What fits none stays in `marked`.
fn mark(ways: &mut [Way], marked: &mut Vec<Way>) {
    let key = |way: &Way| (way.provider.clone(), way.endpoint.clone());
    let mut places: FxHashMap<(String, String), usize> = FxHashMap::default();
    for (place, way) in ways.iter().enumerate() {
        places.entry(key(way)).or_insert(place);
    }
    marked.retain(|alerted| {
        let Some(way) = places.get(&key(alerted)).and_then(|place| ways.get_mut(*place)) else { return true };
        way.alerts += alerted.alerts;
        if way.at.is_none() {
            way.port = alerted.port;
            (way.at, way.first_seen, way.last_seen) = (alerted.at, alerted.first_seen, alerted.last_seen);
            (way.agent, way.agent_pid) = (alerted.agent.clone(), alerted.agent_pid);
            (way.tool, way.tool_pid) = (alerted.tool.clone(), alerted.tool_pid);
            (way.tool_started, way.pid) = (alerted.tool_started, alerted.pid);
            (way.cmdline, way.is_inferred) = (alerted.cmdline.clone(), true);
        }
        false
    });
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

fn failures(gathered: &Gathered, top: usize, rows: &mut Rows<'_>) -> rusqlite::Result<Top<FailureRow>> {
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
    Ok(ranked(found.into_values().collect(), top))
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
