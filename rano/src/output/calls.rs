//! `rano report --by tool` and `--by agent`.

use serde_json::Value as Json;

use super::human::{Size, timestamp_millis};
use super::report::{Look, heading, more, sessions, table};
use super::report_json::{counts_json, object, rows_json};
use super::table::{Align, Column, grouped};
use crate::process::provider::UNKNOWN;
pub use crate::store::query::calls::By;
use crate::store::query::calls::CallRow;
use crate::store::query::report::{Report, Top};

/// What stands for the tool call where there is none.
const ITSELF: &str = "(the agent itself)";

/// `running`: run ids of the sessions that go on.
pub fn text(report: &Report, running: &[String], by: By, calls: &Top<CallRow>, look: &Look<'_>) -> String {
    let mut out = String::new();
    sessions(&mut out, report, running, look);
    match by {
        By::Tool => tool_table(&mut out, calls, look),
        By::Agent => {
            heading(&mut out, look, &more("Agents", calls.all, calls.rows.len()));
            table(&mut out, &AGENTS, calls.rows.iter().map(|row| agent(row, look)).collect(), look);
        }
    }
    out
}

pub(super) fn tool_table(out: &mut String, calls: &Top<CallRow>, look: &Look<'_>) {
    heading(out, look, &more("Tool Calls", calls.all, calls.rows.len()));
    table(out, &TOOLS, calls.rows.iter().map(|row| tool(row, look)).collect(), look);
}

pub(super) fn tools_json(calls: &Top<CallRow>) -> Vec<Json> {
    calls.rows.iter().map(|row| row_json(row, By::Tool)).collect()
}

const TOOLS: [Column; 8] = [
    ("started", Align::Left),
    ("tool call", Align::Cut),
    ("agent", Align::Left),
    ("sent", Align::Right),
    ("received", Align::Right),
    ("count", Align::Right),
    ("fails", Align::Right),
    ("session", Align::Cut),
];

fn tool(row: &CallRow, look: &Look<'_>) -> Vec<String> {
    let [count, fails, sent, received] = sums(row);
    let tool = match (&row.tool, &row.agent) {
        (Some(tool), _) => tool.clone(),
        (None, Some(_)) => ITSELF.to_owned(),
        (None, None) => UNKNOWN.to_owned(),
    };
    let started = look.time(row.tool_started.unwrap_or(row.first_seen));
    let session = row.agent_session.clone().unwrap_or_default();
    vec![started, tool, who(row), sent, received, count, fails, session]
}

const AGENTS: [Column; 9] = [
    ("agent", Align::Left),
    ("tool calls", Align::Right),
    ("sent", Align::Right),
    ("received", Align::Right),
    ("count", Align::Right),
    ("fails", Align::Right),
    ("first", Align::Left),
    ("last", Align::Left),
    ("session", Align::Cut),
];

fn agent(row: &CallRow, look: &Look<'_>) -> Vec<String> {
    let [count, fails, sent, received] = sums(row);
    let (first, last) = (look.time(row.first_seen), look.time(row.last_seen));
    let session = row.agent_session.clone().unwrap_or_default();
    vec![who(row), grouped(row.calls), sent, received, count, fails, first, last, session]
}

/// `claude(2000)`.
fn who(row: &CallRow) -> String {
    match (&row.agent, row.agent_pid) {
        (Some(agent), Some(pid)) => format!("{agent}({pid})"),
        (Some(agent), None) => agent.clone(),
        (None, _) => UNKNOWN.to_owned(),
    }
}

fn sums(row: &CallRow) -> [String; 4] {
    let counts = &row.counts;
    let fails = if counts.fails > 0 { grouped(counts.fails) } else { String::new() };
    let [sent, received] = [counts.bytes_sent, counts.bytes_received].map(|bytes| Size(bytes).to_string());
    [grouped(counts.connects), fails, sent, received]
}

/// One object with `tools` or `agents`; what is not known is left out.
pub fn json(report: &Report, running: &[String], by: By, calls: &Top<CallRow>) -> String {
    let rows = calls.rows.iter().map(|row| row_json(row, by)).collect();
    let words = match by {
        By::Tool => ("tool", "tools"),
        By::Agent => ("agent", "agents"),
    };
    rows_json(report, running, words, (rows, calls.all))
}

fn row_json(row: &CallRow, by: By) -> Json {
    let mut json = object(&[
        ("run_id", row.run_id.as_str().into()),
        ("agent", row.agent.as_deref().into()),
        ("agent_pid", row.agent_pid.into()),
        ("agent_session", row.agent_session.as_deref().into()),
        ("tool", row.tool.as_deref().into()),
        ("tool_pid", row.tool_pid.into()),
        ("tool_started", row.tool_started.map(timestamp_millis).into()),
        ("tool_calls", (by == By::Agent).then_some(row.calls).into()),
        ("first_seen", timestamp_millis(row.first_seen).into()),
        ("last_seen", timestamp_millis(row.last_seen).into()),
    ]);
    if let Some(json) = json.as_object_mut() {
        let counts = counts_json(&row.counts).into_iter();
        json.extend(counts.filter(|(name, _)| name != "accepts" && name != "listens"));
    }
    json
}
