//! The sections of a report beyond its totals: what deserves a look, who sent what where, processes, tool calls,
//! failures, look-ups.

use std::collections::BTreeMap;

use serde_json::{Value as Json, json};

use super::calls;
use super::escape::{Escaped, cut};
use super::human::{Size, timestamp_millis};
use super::report::{self, Look, bullet, heading, more, table};
use super::report_json::{counts_json, object};
use super::table::{Align, Column, grouped};
use crate::attention::Cause;
use crate::event::{self, DomainSource};
use crate::store::query::details::{Details, FailureRow, Finding, ProcessRow, Way};
use crate::store::query::report::{Counts, Report};
use crate::store::query::sessions::StoredSession;

/// Causes and numbers stand to the right of what they are about, who it was below.
pub(super) fn look_at_these(out: &mut String, report: &Report, details: &Details, look: &Look<'_>) {
    heading(out, look, &more("Look at these", details.all_findings, details.findings.len()));
    let times = times(report);
    let findings = &details.findings;
    let moments: Vec<String> = findings
        .iter()
        .map(|finding| finding.way.at.map_or_else(String::new, |at| look.moment(at, &times)))
        .collect();
    let amounts: Vec<String> = findings.iter().map(|finding| amount(&finding.counts)).collect();
    let width = |texts: &[String]| texts.iter().map(|text| text.chars().count()).max().unwrap_or(0);
    let (moment_width, amount_width) = (width(&moments), width(&amounts));
    let gap = if moment_width == 0 { "" } else { "  " };
    for ((finding, moment), amount) in findings.iter().zip(&moments).zip(&amounts) {
        let paint = look.styles.warning;
        let causes: Vec<_> = finding.causes.iter().map(|cause| words(*cause, finding)).collect();
        let endpoint = Escaped(&endpoint(&finding.way)).to_string();
        bullet(
            out,
            &format!(
                "{moment:moment_width$}{gap}{amount:>amount_width$}  {endpoint}  {paint}{}{paint:#}",
                causes.join(", ")
            ),
            look,
        );
        let indent = if look.form == report::Form::Markdown { "  " } else { "      " };
        let room = look.width.saturating_sub(indent.len());
        out.push_str(indent);
        out.push_str(&paint_free(&cut(&who_and_why(finding), room), look));
        out.push('\n');
    }
    if findings.is_empty() {
        bullet(out, "nothing", look);
    }
    if (details.findings.len() as u64) < details.all_findings {
        bullet(out, "all of them: rano report --top 1000, or --by endpoint", look);
    }
    if !details.is_compared {
        bullet(out, "no earlier session in this history: what is new cannot be told", look);
    }
}

fn paint_free(text: &str, look: &Look<'_>) -> String {
    if look.form == report::Form::Markdown { super::markdown::text(text) } else { text.to_owned() }
}

/// The words of a cause with their number.
fn words(cause: Cause, finding: &Finding) -> String {
    match cause {
        Cause::Alert if finding.alerts > 1 => format!("{} alerts", grouped(finding.alerts)),
        Cause::Failing => format!("{}: {} failed", cause.words(), grouped(finding.counts.fails)),
        Cause::Alert | Cause::Sent | Cause::New | Cause::Unknown => cause.words().to_owned(),
    }
}

/// `↑40.0 MiB`, else how many.
fn amount(counts: &Counts) -> String {
    match (counts.bytes_sent, counts.bytes_received) {
        (0, 0) => format!("×{}", grouped(counts.connects.saturating_add(counts.fails))),
        (0, received) => format!("↓{}", Size(received)),
        (sent, _) => format!("↑{}", Size(sent)),
    }
}

/// `curl(22078) ← claude(21914) | curl -T x https://…`, safe to show.
fn who_and_why(finding: &Finding) -> String {
    let way = &finding.way;
    let mut text = if way.is_inferred { "most of it by ".to_owned() } else { String::new() };
    text += &Escaped(&program(way)).to_string();
    let is_agent = way.agent_pid.is_some() && way.agent_pid == way.pid;
    text += &match agent(way.agent.as_deref(), way.agent_pid) {
        Some(_) if is_agent => String::new(),
        Some(agent) => [" ← ", &Escaped(&agent).to_string()].concat(),
        None => [" (", &Escaped(&way.provider).to_string(), ")"].concat(),
    };
    if finding.ways > 1 {
        text += &[" and ", &grouped(finding.ways - 1), " more"].concat();
    }
    text += &match (&way.tool, &way.cmdline) {
        (Some(tool), _) => [" | tool call: ", &Escaped(tool).to_string()].concat(),
        (None, Some(line)) => [" | ", &Escaped(line).to_string()].concat(),
        (None, None) => String::new(),
    };
    text
}

/// `curl(22078)`, `curl ×3`.
fn program(way: &Way) -> String {
    let name = way.program.as_deref().unwrap_or("unknown");
    match (way.processes, way.pid) {
        (2.., _) => format!("{name} ×{}", way.processes),
        (_, Some(pid)) => format!("{name}({pid})"),
        (_, None) => name.to_owned(),
    }
}

fn agent(name: Option<&str>, pid: Option<u32>) -> Option<String> {
    match (name, pid) {
        (Some(name), Some(pid)) => Some(format!("{name}({pid})")),
        (name, _) => name.map(str::to_owned),
    }
}

/// Name or address with its port; a name that is a guess carries `~`.
fn endpoint(way: &Way) -> String {
    let guess = way.is_named && way.known_by.as_deref() == Some(DomainSource::Ptr.name());
    let endpoint = with_port(&way.endpoint, way.port, guess);
    match &way.via {
        Some(proxy) => format!("{endpoint} via {proxy}"),
        None => endpoint,
    }
}

pub(super) fn with_port(name: &str, port: Option<u16>, guess: bool) -> String {
    let mark = if guess { "~" } else { "" };
    format!("{mark}{}", event::with_port(name, port))
}

/// From where to where the selection goes.
pub(super) fn times(report: &Report) -> Vec<i64> {
    let first = report.sessions.iter().map(|session| session.started_at).min();
    let last = report.sessions.iter().filter_map(StoredSession::end).max();
    [report.selection.since.or(first), last].into_iter().flatten().collect()
}

const WAYS: [Column; 9] = [
    ("time", Align::Left),
    ("sent", Align::Right),
    ("received", Align::Right),
    ("who", Align::Cut),
    ("where", Align::Cut),
    ("", Align::Left),
    ("class", Align::Left),
    ("count", Align::Right),
    ("tool call", Align::Cut),
];

pub(super) fn who_sent_what_where(out: &mut String, report: &Report, details: &Details, look: &Look<'_>) {
    heading(out, look, &more("Who sent what where", details.all_ways, details.ways.len()));
    let times = times(report);
    let rows = details.ways.iter().map(|way| {
        vec![
            way.at.map_or_else(String::new, |at| look.moment(at, &times)),
            Size(way.counts.bytes_sent).to_string(),
            Size(way.counts.bytes_received).to_string(),
            who(way),
            endpoint(way),
            marks(way).to_owned(),
            way.class.name().to_owned(),
            grouped(way.counts.connects.saturating_add(way.counts.fails)),
            way.tool.clone().unwrap_or_default(),
        ]
    });
    table(out, &WAYS, rows.collect(), look);
    if details.hidden > 0 {
        bullet(out, &format!("{} more that are new or alerted", grouped(details.hidden)), look);
    }
    if details.unlisted > 0 {
        bullet(out, &format!("{} sums had no room in this list", grouped(details.unlisted)), look);
    }
    if !details.read_events {
        let why = "many events, so the totals answer: they know no port, and no tool call but where one process sent most of \
                   it; --since and --until narrow it down";
        bullet(out, why, look);
    }
}

/// `claude(1700)›curl(2003)`.
fn who(way: &Way) -> String {
    let program = program(way);
    match agent(way.agent.as_deref(), way.agent_pid) {
        Some(agent) if way.agent_pid.is_some() && way.agent_pid == way.pid && way.processes < 2 => agent,
        Some(agent) => format!("{agent}›{program}"),
        None => program,
    }
}

/// What a row is marked with, whatever its place.
fn marks(way: &Way) -> &'static str {
    match (way.alerts > 0, way.is_new) {
        (true, true) => "! new",
        (true, false) => "!",
        (false, true) => "new",
        (false, false) => "",
    }
}

/// What only reading all of very many events would tell.
fn too_many(out: &mut String, by: &str, look: &Look<'_>) {
    bullet(out, &format!("too many events to read them here; rano report --by {by} does"), look);
}

pub(super) fn processes(out: &mut String, report: &Report, details: &Details, look: &Look<'_>) {
    const COLUMNS: [Column; 7] = [
        ("process", Align::Cut),
        ("agent", Align::Cut),
        ("sent", Align::Right),
        ("received", Align::Right),
        ("count", Align::Right),
        ("fails", Align::Right),
        ("last", Align::Left),
    ];
    let Some(processes) = &details.processes else {
        heading(out, look, "Top Processes");
        return too_many(out, "process", look);
    };
    heading(out, look, &more("Top Processes", processes.all, processes.rows.len()));
    let times = times(report);
    let rows = processes.rows.iter().map(|row| {
        let ProcessRow { program, pid, agent: name, agent_pid, provider, counts, last_seen, .. } = row;
        vec![
            agent(Some(program.as_deref().unwrap_or("unknown")), *pid).unwrap_or_default(),
            agent(name.as_deref(), *agent_pid).unwrap_or_else(|| provider.clone()),
            Size(counts.bytes_sent).to_string(),
            Size(counts.bytes_received).to_string(),
            grouped(counts.connects),
            if counts.fails > 0 { grouped(counts.fails) } else { String::new() },
            look.moment(*last_seen, &times),
        ]
    });
    table(out, &COLUMNS, rows.collect(), look);
}

pub(super) fn tool_calls(out: &mut String, details: &Details, look: &Look<'_>) {
    if let Some(tools) = &details.tools {
        return calls::tool_table(out, tools, look);
    }
    heading(out, look, "Tool Calls");
    too_many(out, "tool", look);
}

/// An alert that a cooldown held back still marks its connection.
pub(super) fn alerts(out: &mut String, report: &Report, details: &Details, look: &Look<'_>) {
    let given = report::alerts(report);
    if given == 0 && details.marked == 0 {
        return;
    }
    heading(out, look, "Alerts");
    let marked = grouped(details.marked);
    let cut = if details.alerts_cut { " among the latest 2 million events" } else { "" };
    bullet(
        out,
        &format!("{} given; {marked} connections marked{cut}, those held back included", grouped(given)),
        look,
    );
    bullet(out, "each one: rano export --format jsonl --rows connections --filter alert:true", look);
}

pub(super) fn failures(out: &mut String, details: &Details, look: &Look<'_>) {
    const COLUMNS: [Column; 4] =
        [("count", Align::Right), ("reason", Align::Left), ("where", Align::Cut), ("class", Align::Left)];
    if details.failures.rows.is_empty() {
        return;
    }
    heading(out, look, &more("Failures", details.failures.all, details.failures.rows.len()));
    let rows = details.failures.rows.iter().map(|row| {
        vec![
            grouped(row.count),
            row.error
                .clone()
                .unwrap_or_else(|| if details.read_events { "unknown".to_owned() } else { String::new() }),
            with_port(&row.endpoint, row.port, false),
            row.class.name().to_owned(),
        ]
    });
    table(out, &COLUMNS, rows.collect(), look);
}

pub(super) fn lookups(out: &mut String, details: &Details, look: &Look<'_>) {
    const COLUMNS: [Column; 4] =
        [("count", Align::Right), ("server", Align::Cut), ("sent", Align::Right), ("received", Align::Right)];
    if details.lookups.rows.is_empty() {
        return;
    }
    heading(out, look, &more("Look-ups", details.lookups.all, details.lookups.rows.len()));
    let rows = details.lookups.rows.iter().map(|row| {
        vec![
            grouped(row.counts.connects),
            row.server.clone(),
            Size(row.counts.bytes_sent).to_string(),
            Size(row.counts.bytes_received).to_string(),
        ]
    });
    table(out, &COLUMNS, rows.collect(), look);
}

/// What a report has beyond its totals.
pub(super) fn details_json(details: &Details) -> Json {
    let mut by_reason: BTreeMap<&str, u64> = BTreeMap::new();
    for row in &details.failures.rows {
        *by_reason.entry(row.error.as_deref().unwrap_or("unknown")).or_default() += row.count;
    }
    let mut json = json!({
        "look_at_these": details.findings.iter().map(finding_json).collect::<Vec<_>>(),
        "findings": details.all_findings,
        "endpoints": details.ways.iter().map(way_json).collect::<Vec<_>>(),
        "endpoints_all": details.all_ways,
        "endpoints_read_events": details.read_events,
        "compared": details.is_compared,
        "alerts": { "marked": details.marked, "searched_all": !details.alerts_cut },
        "failures": details.failures.rows.iter().map(failure_json).collect::<Vec<_>>(),
        "failures_all": details.failures.all,
        "failures_by_reason": by_reason,
        "lookups": details.lookups.rows.iter().map(|row| {
            let mut json = counts_json(&row.counts);
            json.insert("server".into(), row.server.as_str().into());
            Json::Object(json)
        }).collect::<Vec<_>>(),
    });
    if let Some(processes) = &details.processes {
        json["processes"] = processes.rows.iter().map(process_json).collect::<Vec<_>>().into();
        json["processes_all"] = processes.all.into();
    }
    if let Some(tools) = &details.tools {
        json["tools"] = calls::tools_json(tools).into();
        json["tools_all"] = tools.all.into();
    }
    json
}

fn time(unix_ms: Option<i64>) -> Json {
    unix_ms.map(timestamp_millis).into()
}

fn way_json(way: &Way) -> Json {
    let mut json = object(&[
        ("run_id", way.run_id.as_deref().into()),
        ("provider", way.provider.as_str().into()),
        ("agent", way.agent.as_deref().into()),
        ("agent_pid", way.agent_pid.into()),
        ("agent_session", way.agent_session.as_deref().into()),
        ("tool", way.tool.as_deref().into()),
        ("tool_pid", way.tool_pid.into()),
        ("tool_started", time(way.tool_started)),
        ("program", way.program.as_deref().into()),
        ("pid", way.pid.into()),
        ("cmdline", way.cmdline.as_deref().into()),
        ("processes", (way.processes > 0).then_some(way.processes).into()),
        ("inferred", way.is_inferred.then_some(true).into()),
        ("endpoint", way.endpoint.as_str().into()),
        ("domain", way.is_named.then_some(way.endpoint.as_str()).into()),
        ("domain_source", way.known_by.as_deref().into()),
        ("ip", way.ip.as_deref().into()),
        ("port", way.port.into()),
        ("via", way.via.as_deref().into()),
        ("proto", way.protocol.as_str().into()),
        ("class", way.class.name().into()),
        ("alerts", way.alerts.into()),
        ("new", way.is_new.into()),
        ("at", time(way.at)),
        ("first_seen", time(way.first_seen)),
        ("last_seen", time(way.last_seen)),
    ]);
    if let Some(json) = json.as_object_mut() {
        json.extend(of_connections(&way.counts));
    }
    json
}

fn of_connections(counts: &Counts) -> impl Iterator<Item = (String, Json)> {
    counts_json(counts).into_iter().filter(|(name, _)| name != "accepts" && name != "listens")
}

fn finding_json(finding: &Finding) -> Json {
    let mut json = way_json(&finding.way);
    json["causes"] = finding.causes.iter().map(|cause| cause.name()).collect::<Vec<_>>().into();
    json["alerts"] = finding.alerts.into();
    json["ways"] = finding.ways.into();
    if let Some(json) = json.as_object_mut() {
        json.extend(of_connections(&finding.counts));
    }
    json
}

fn process_json(row: &ProcessRow) -> Json {
    let mut json = object(&[
        ("run_id", row.run_id.as_str().into()),
        ("provider", row.provider.as_str().into()),
        ("agent", row.agent.as_deref().into()),
        ("agent_pid", row.agent_pid.into()),
        ("program", row.program.as_deref().into()),
        ("pid", row.pid.into()),
        ("cmdline", row.cmdline.as_deref().into()),
        ("first_seen", time(Some(row.first_seen))),
        ("last_seen", time(Some(row.last_seen))),
    ]);
    if let Some(json) = json.as_object_mut() {
        json.extend(of_connections(&row.counts));
    }
    json
}

fn failure_json(row: &FailureRow) -> Json {
    object(&[
        ("error", row.error.as_deref().into()),
        ("endpoint", row.endpoint.as_str().into()),
        ("port", row.port.into()),
        ("class", row.class.name().into()),
        ("count", row.count.into()),
        ("last_seen", time(row.last_seen)),
    ])
}
