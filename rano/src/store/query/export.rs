//! Stored events one by one, in the order in which they were stored; memory does not grow with their number.

use std::fmt;
use std::io;

use rusqlite::types::{Value, ValueRef};
use rusqlite::{Params, params_from_iter};

use super::filter::{Condition, PROGRAM, domain_column};
use crate::filter;
use crate::glob::Glob;
use crate::store::History;
use crate::store::rollup::HOUR_MS;

/// What a field holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Text,
    Integer,
    Truth,
    /// Unix milliseconds.
    Time,
}

/// A column of the view `events`.
#[derive(Debug, PartialEq, Eq)]
pub struct Field {
    pub name: &'static str,
    pub kind: Kind,
    /// The view's expression, but for the time as a number.
    sql: &'static str,
}

const fn field(name: &'static str, kind: Kind, sql: &'static str) -> Field {
    Field { name, kind, sql }
}

/// How many of [`FIELDS`], from the first, are exported by default.
pub const DEFAULT_FIELDS: usize = 15;

pub static FIELDS: [Field; 45] = [
    field("ts", Kind::Time, "event.ts"),
    field("run_id", Kind::Text, "session.run_id"),
    field("event", Kind::Text, "kind.event"),
    field("provider", Kind::Text, "process.provider"),
    field("pid", Kind::Integer, "process.pid"),
    field("comm", Kind::Text, "ifnull(process.comm, 'unknown')"),
    field("cmdline", Kind::Text, "process.cmdline"),
    field("proto", Kind::Text, "endpoint.protocol"),
    field("local_ip", Kind::Text, "address.address"),
    field("local_port", Kind::Integer, "event.local_port"),
    field("remote_ip", Kind::Text, "endpoint.remote"),
    field("remote_port", Kind::Integer, "event.remote_port"),
    field("domain", Kind::Text, "endpoint.domain"),
    field("ancestry_path", Kind::Text, "process.ancestry"),
    field("duration_ms", Kind::Integer, "event.duration_ms"),
    field("id", Kind::Integer, "event.id"),
    field("alert", Kind::Truth, "kind.alert"),
    field("ppid", Kind::Integer, "process.ppid"),
    field("uid", Kind::Integer, "process.uid"),
    field("exe", Kind::Text, "process.exe"),
    field("endpoint_type", Kind::Text, "endpoint.type"),
    field("bytes_sent", Kind::Integer, "event.bytes_sent"),
    field("bytes_recv", Kind::Integer, "event.bytes_recv"),
    field("error", Kind::Text, "kind.error"),
    field("state", Kind::Text, "kind.state"),
    field("source", Kind::Text, "kind.source"),
    field("owner_quality", Kind::Text, "kind.owner_quality"),
    field("domain_source", Kind::Text, "ifnull(endpoint.domain_source, 'none')"),
    field("preexisting", Kind::Truth, "kind.preexisting"),
    field("netns", Kind::Integer, "process.netns"),
    field("peer_pid", Kind::Integer, "endpoint.peer_pid"),
    field("session_name", Kind::Text, "session.name"),
    field("agent", Kind::Text, "tool_call.agent"),
    field("agent_pid", Kind::Integer, "tool_call.agent_pid"),
    field("agent_session", Kind::Text, "tool_call.agent_session"),
    field("program", Kind::Text, PROGRAM),
    field("cwd", Kind::Text, "directory.path"),
    field("tool", Kind::Text, "tool_call.tool"),
    field("tool_pid", Kind::Integer, "tool_call.tool_pid"),
    field("tool_started", Kind::Time, "tool_call.tool_started"),
    field("trace_id", Kind::Text, "process.trace_id"),
    field("span_id", Kind::Text, "process.span_id"),
    field("via", Kind::Text, VIA),
    field("domain_port", Kind::Integer, "endpoint.domain_port"),
    field("relay_for", Kind::Integer, "endpoint.relay_for"),
];

/// The proxy that was asked for the name.
const VIA: &str = "CASE WHEN endpoint.domain_port IS NULL THEN NULL
            WHEN instr(endpoint.remote, ':') THEN '[' || endpoint.remote || ']:' || event.remote_port
            ELSE endpoint.remote || ':' || event.remote_port END";

/// Other names of fields, with the field that they mean.
static ALIASES: [Field; 1] = [field("class", Kind::Text, "endpoint.type")];

/// The default where each row is a connection.
pub const CONNECTION_FIELDS: [&str; 20] = [
    "ts",
    "run_id",
    "event",
    "provider",
    "agent",
    "tool",
    "pid",
    "program",
    "proto",
    "local_ip",
    "local_port",
    "remote_ip",
    "remote_port",
    "domain",
    "class",
    "duration_ms",
    "bytes_sent",
    "bytes_recv",
    "error",
    "alert",
];

impl Field {
    /// The field of that name.
    pub fn named(name: &str) -> Option<&'static Self> {
        FIELDS.iter().chain(&ALIASES).find(|field| field.name == name)
    }
}

/// Tables that are joined only where something is asked of them, each after those it needs.
const JOINS: [(&str, &str); 7] = [
    ("kind.", " CROSS JOIN kind ON kind.id = event.kind"),
    ("process.", " CROSS JOIN process ON process.id = event.process"),
    ("session.", " CROSS JOIN session ON session.id = process.session"),
    ("tool_call.", " LEFT JOIN tool_call ON tool_call.id = process.call"),
    ("directory.", " LEFT JOIN directory ON directory.id = process.cwd"),
    ("endpoint.", " CROSS JOIN endpoint ON endpoint.id = event.endpoint"),
    ("address.", " LEFT JOIN address ON address.id = event.local"),
];

/// Which events; all conditions hold together. Times are Unix milliseconds, `since` inside, `until` not.
#[derive(Debug, Clone, Default)]
pub struct Filter {
    pub since: Option<i64>,
    pub until: Option<i64>,
    /// A run id or the name of a session.
    pub run: Option<String>,
    pub provider: Option<String>,
    /// The name fits any of these, unless there are none.
    pub domains: Vec<Glob>,
    /// All that else has to hold.
    pub matching: Option<filter::Filter>,
    /// Only events with a larger id.
    pub after: Option<i64>,
    /// Only events with a smaller id.
    pub before: Option<i64>,
    /// Only these ids, unless there are none.
    pub ids: Vec<i64>,
    /// So many from the first.
    pub most: Option<u64>,
    /// So many from the last, the last one first.
    pub latest: Option<u64>,
}

/// A value of a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cell<'a> {
    Null,
    Text(&'a str),
    Integer(i64),
    Truth(bool),
    Time(i64),
}

/// Takes the cells of a row in the order of the fields, then its end.
pub trait RowWriter {
    fn cell(&mut self, field: &Field, cell: Cell<'_>) -> io::Result<()>;
    fn end_row(&mut self) -> io::Result<()>;
}

#[derive(Debug)]
pub enum ExportError {
    /// The session that was named is not there.
    NoSession,
    Database(rusqlite::Error),
    Output(io::Error),
}

impl ExportError {
    /// What a question to a session that is there, and without output, can fail with.
    pub fn into_database(self) -> rusqlite::Error {
        match self {
            Self::NoSession => rusqlite::Error::QueryReturnedNoRows,
            Self::Database(error) => error,
            Self::Output(error) => rusqlite::Error::UserFunctionError(error.into()),
        }
    }
}

impl From<rusqlite::Error> for ExportError {
    fn from(error: rusqlite::Error) -> Self {
        Self::Database(error)
    }
}

impl From<io::Error> for ExportError {
    fn from(error: io::Error) -> Self {
        Self::Output(error)
    }
}

impl fmt::Display for ExportError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoSession => f.write_str("no such session"),
            Self::Database(error) => error.fmt(f),
            Self::Output(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for ExportError {}

impl History {
    /// Gives every event that `filter` lets through to `writer`; `progress` hears of each row. Returns how many there
    /// were.
    pub fn export(
        &self,
        filter: &Filter,
        fields: &[&Field],
        writer: &mut impl RowWriter,
        mut progress: impl FnMut(u64),
    ) -> Result<u64, ExportError> {
        let (sql, values) = self.statement(filter, fields)?;
        let mut statement = self.connection.prepare(&sql)?;
        let mut rows = statement.query(params_from_iter(values))?;
        let mut count = 0;
        while let Some(row) = rows.next()? {
            for (index, field) in fields.iter().enumerate() {
                let value = row.get_ref(index)?;
                // Text in a file that somebody else wrote may be anything.
                match (value, field.kind) {
                    (ValueRef::Null, _) => writer.cell(field, Cell::Null)?,
                    (ValueRef::Integer(number), Kind::Time) => writer.cell(field, Cell::Time(number))?,
                    (ValueRef::Integer(number), Kind::Truth) => {
                        writer.cell(field, Cell::Truth(number != 0))?;
                    }
                    (ValueRef::Integer(number), _) => writer.cell(field, Cell::Integer(number))?,
                    (ValueRef::Real(number), _) => writer.cell(field, Cell::Text(&number.to_string()))?,
                    (ValueRef::Text(text) | ValueRef::Blob(text), _) => {
                        writer.cell(field, Cell::Text(&String::from_utf8_lossy(text)))?;
                    }
                }
            }
            writer.end_row()?;
            count += 1;
            progress(count);
        }
        Ok(count)
    }

    /// The most events that `filter` can let through, by the sums.
    pub fn most_events(&self, filter: &Filter) -> Result<u64, ExportError> {
        let (range, values) = self.hours(filter)?;
        let sql = format!(
            "SELECT ifnull(sum(connects + closes + fails + accepts + listens), 0) FROM activity WHERE {range}"
        );
        let count: i64 = one(self, &sql, params_from_iter(values))?;
        Ok(u64::try_from(count).unwrap_or(0))
    }

    fn hours(&self, filter: &Filter) -> Result<(String, Vec<Value>), ExportError> {
        let mut range = "hour >= ? AND hour <= ?".to_owned();
        let since = filter.since.map_or(i64::MIN, |since| since.div_euclid(HOUR_MS));
        let until = filter.until.map_or(i64::MAX, |until| until.div_euclid(HOUR_MS));
        let mut values = vec![since.into(), until.into()];
        if let Some(run) = &filter.run {
            let session = self.session(run)?.ok_or(ExportError::NoSession)?;
            range.push_str(" AND session = ?");
            values.push(session.id.into());
        }
        Ok((range, values))
    }

    fn statement(&self, filter: &Filter, fields: &[&Field]) -> Result<(String, Vec<Value>), ExportError> {
        self.statement_with(filter, fields, "")
    }

    /// With further columns, the first one after a comma.
    pub(super) fn statement_with(
        &self,
        filter: &Filter,
        fields: &[&Field],
        further: &str,
    ) -> Result<(String, Vec<Value>), ExportError> {
        let columns = fields.iter().map(|field| field.sql).collect::<Vec<_>>().join(", ") + further;
        let (range, hours) = self.hours(filter)?;
        let ids = |id: &str| format!("SELECT {id} FROM activity WHERE {range}");
        let first: Option<i64> = one(self, &ids("min(first_event)"), params_from_iter(hours.clone()))?;
        let last: Option<i64> = one(self, &ids("max(last_event)"), params_from_iter(hours))?;
        let mut conditions = "event.id BETWEEN ? AND ?".to_owned();
        // Ids begin with 1: nothing lies in this range where no hour does.
        let mut values: Vec<Value> = vec![first.unwrap_or(0).into(), last.unwrap_or(0).into()];
        let mut add = |condition: &str, value: Value| {
            conditions.push_str(" AND ");
            conditions.push_str(condition);
            values.push(value);
        };
        if let Some(since) = filter.since {
            add("event.ts >= ?", since.into());
        }
        if let Some(until) = filter.until {
            add("event.ts < ?", until.into());
        }
        if let Some(after) = filter.after {
            add("event.id > ?", after.into());
        }
        if let Some(before) = filter.before {
            add("event.id < ?", before.into());
        }
        if let Some(run) = &filter.run {
            let session = self.session(run)?.ok_or(ExportError::NoSession)?;
            add("process.session = ?", session.id.into());
        }
        if let Some(provider) = &filter.provider {
            add("process.provider = ?", provider.clone().into());
        }
        if !filter.ids.is_empty() {
            let marks = vec!["?"; filter.ids.len()].join(", ");
            conditions.extend([" AND event.id IN (", &marks, ")"]);
            values.extend(filter.ids.iter().map(|id| Value::from(*id)));
        }
        if !filter.domains.is_empty() {
            Condition::prepare(&self.connection)?;
            let each = filter.domains.iter().map(|glob| format!("lower({}) GLOB ?", domain_column(glob)));
            conditions.extend([" AND (", &each.collect::<Vec<_>>().join(" OR "), ")"]);
            values.extend(filter.domains.iter().map(|glob| Value::from(glob.as_sql().to_owned())));
        }
        if let Some(matching) = &filter.matching {
            Condition::prepare(&self.connection)?;
            let condition = Condition::of(matching);
            conditions.extend([" AND (", &condition.sql, ")"]);
            values.extend(condition.values);
        }
        let is_pruning: bool = one(self, "SELECT EXISTS (SELECT 1 FROM pruning)", [])?;
        if is_pruning {
            conditions.push_str(" AND process.session IN (SELECT id FROM session)");
        }
        let asked = format!("{columns} {conditions}");
        let of_process = ["session.", "tool_call.", "directory."];
        let needs = |table: &str| {
            asked.contains(table)
                || table == "process." && of_process.iter().any(|other| asked.contains(other))
        };
        let joins: String = JOINS.iter().filter(|(table, _)| needs(table)).map(|(_, join)| *join).collect();
        let (order, limit) = match (filter.most, filter.latest) {
            (_, Some(latest)) => (" DESC", format!(" LIMIT {latest}")),
            (Some(most), None) => ("", format!(" LIMIT {most}")),
            (None, None) => ("", String::new()),
        };
        let sql =
            format!("SELECT {columns} FROM event{joins} WHERE {conditions} ORDER BY event.id{order}{limit}");
        Ok((sql, values))
    }
}

fn one<T: rusqlite::types::FromSql>(
    history: &History,
    sql: &str,
    values: impl Params,
) -> rusqlite::Result<T> {
    history.connection.query_row(sql, values, |row| row.get(0))
}
