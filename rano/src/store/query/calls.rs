//! What was done on each tool call, and by each agent. Of whole sessions the sums of processes tell; of a part of one,
//! and with a filter, its events are read.

use std::fmt::Write as _;

use rusqlite::types::Value;
use rusqlite::{Row, params_from_iter};

use super::filter::Condition;
use super::groups::Sort;
use super::report::{Counts, Selection, Top};
use super::sessions::{StoredSession, count};
use crate::store::History;
use crate::store::rollup::{BYTES_MAX, HOUR_MS};

/// Rows by tool call, or by agent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum By {
    Tool,
    Agent,
}

impl By {
    /// A bare pid is no identity: within a session they repeat less than names do.
    const fn columns(self) -> &'static str {
        match self {
            Self::Tool => {
                "part.session, part.agent, part.agent_pid, part.tool, part.tool_pid, part.tool_started"
            }
            Self::Agent => "part.session, part.agent, part.agent_pid",
        }
    }
}

/// The order of rows.
const fn order(sort: Sort) -> &'static str {
    match sort {
        Sort::Sent => "sum(part.sent) DESC",
        Sort::Received => "sum(part.received) DESC",
        Sort::Connections => "sum(part.connects) DESC",
        Sort::Fails => "sum(part.fails) DESC",
        Sort::First => "min(part.first)",
        Sort::Last => "max(part.last) DESC",
        Sort::Name => "max(part.tool), part.agent",
    }
}

/// What one tool call, or one agent, came to. Absent is what is not known, and of what the agent did itself the tool.
#[derive(Debug, Clone)]
pub struct CallRow {
    pub run_id: String,
    pub agent: Option<String>,
    pub agent_pid: Option<u32>,
    pub agent_session: Option<String>,
    pub tool: Option<String>,
    pub tool_pid: Option<u32>,
    /// Unix milliseconds, as the two below.
    pub tool_started: Option<i64>,
    pub first_seen: i64,
    pub last_seen: i64,
    /// Of connections; without accepts and listens.
    pub counts: Counts,
    /// Tool calls of an agent.
    pub calls: u64,
}

impl History {
    /// The first `top`, and how many there are. `sessions` are those of the selection.
    pub fn calls(
        &self,
        selection: &Selection,
        sessions: &[StoredSession],
        by: By,
        (top, sort): (u32, Sort),
    ) -> rusqlite::Result<Top<CallRow>> {
        let mut ids = String::new();
        for session in sessions {
            write!(ids, "{}{}", if ids.is_empty() { "" } else { "," }, session.id)
                .expect("writing into a String cannot fail");
        }
        let is_part = selection.since.is_some() || selection.until.is_some() || selection.filter.is_some();
        let (rows, values) = if is_part { of_events(selection, &ids) } else { of_sums(&ids) };
        if selection.filter.is_some() {
            Condition::prepare(&self.connection)?;
        }
        let groups = by.columns();
        let sql = format!(
            "SELECT session.run_id, part.agent, part.agent_pid, max(part.agent_session), max(part.tool), max(part.tool_pid),
                    max(part.tool_started), min(part.first), max(part.last), sum(part.connects), sum(part.closes),
                    sum(part.fails), 0, 0, sum(part.sent), sum(part.received),
                    count(DISTINCT part.tool_pid || ' ' || part.tool_started), count(*) OVER ()
             FROM ({rows}) AS part CROSS JOIN session ON session.id = part.session
             GROUP BY {groups}
             ORDER BY {}, sum(part.sent) DESC, sum(part.connects) + sum(part.fails) DESC, min(part.first), part.tool
             LIMIT {top}",
            order(sort)
        );
        let mut statement = self.connection.prepare(&sql)?;
        let mut rows = statement.query(params_from_iter(values))?;
        let mut all = 0;
        let mut found = Vec::new();
        while let Some(row) = rows.next()? {
            all = count(row, 17)?;
            found.push(call_row(row, by)?);
        }
        Ok(Top { rows: found, all })
    }
}

fn call_row(row: &Row<'_>, by: By) -> rusqlite::Result<CallRow> {
    let is_tool = by == By::Tool;
    let tool: Option<String> = row.get(4)?;
    Ok(CallRow {
        run_id: row.get(0)?,
        agent: row.get(1)?,
        agent_pid: row.get(2)?,
        agent_session: row.get(3)?,
        tool: tool.filter(|_| is_tool),
        tool_pid: row.get::<_, Option<u32>>(5)?.filter(|_| is_tool),
        tool_started: row.get::<_, Option<i64>>(6)?.filter(|_| is_tool),
        first_seen: row.get(7)?,
        last_seen: row.get(8)?,
        counts: Counts::from_row(row, 9)?,
        calls: count(row, 16)?,
    })
}

const CALL: &str = "process.session AS session, tool_call.agent AS agent, tool_call.agent_pid AS agent_pid,
     tool_call.agent_session AS agent_session, tool_call.tool AS tool, tool_call.tool_pid AS tool_pid,
     tool_call.tool_started AS tool_started";

fn of_sums(sessions: &str) -> (String, Vec<Value>) {
    let sql = format!(
        "SELECT {CALL}, first_seen AS first, last_seen AS last, connects, closes, fails, bytes_sent AS sent,
                bytes_recv AS received
         FROM process_traffic
         CROSS JOIN process ON process.id = process_traffic.process
         LEFT JOIN tool_call ON tool_call.id = process.call
         WHERE process.session IN ({sessions})"
    );
    (sql, Vec::new())
}

fn of_events(selection: &Selection, sessions: &str) -> (String, Vec<Value>) {
    let (since, until) = (selection.since.unwrap_or(i64::MIN), selection.until.unwrap_or(i64::MAX));
    let (first, last) = (since.div_euclid(HOUR_MS), until.div_euclid(HOUR_MS));
    let (condition, of_filter) = match selection.filter.as_ref().map(Condition::of) {
        Some(condition) => (condition.sql, condition.values),
        None => ("1".to_owned(), Vec::new()),
    };
    let hours = format!("FROM activity WHERE hour BETWEEN ? AND ? AND session IN ({sessions})");
    let bytes = |column: &str| {
        format!(
            "CASE WHEN kind.event = 'connect' THEN 0 ELSE min(max(ifnull(event.{column}, 0), 0), {BYTES_MAX}) END"
        )
    };
    let sql = format!(
        "SELECT {CALL}, event.ts AS first, event.ts AS last, kind.event = 'connect' AS connects,
                kind.event = 'close' AS closes, kind.event = 'fail' AS fails, {} AS sent, {} AS received
         FROM event
         CROSS JOIN process ON process.id = event.process
         CROSS JOIN kind ON kind.id = event.kind
         CROSS JOIN endpoint ON endpoint.id = event.endpoint
         LEFT JOIN tool_call ON tool_call.id = process.call
         WHERE event.id BETWEEN (SELECT min(first_event) {hours}) AND (SELECT max(last_event) {hours})
           AND event.ts >= ? AND event.ts < ? AND process.session IN ({sessions})
           AND kind.event IN ('connect', 'close', 'fail') AND ({condition})",
        bytes("bytes_sent"),
        bytes("bytes_recv"),
    );
    let mut values: Vec<Value> =
        [first, last, first, last, since, until].into_iter().map(Value::from).collect();
    values.extend(of_filter);
    (sql, values)
}
