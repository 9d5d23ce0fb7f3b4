//! What is open now, as a table: one row a connection.

use std::sync::Arc;
use std::time::Duration;

use super::human::{Size, Span};
use super::line;
use super::style::Styles;
use super::table::{Align, Column, Table};
use crate::connection::Connection;
use crate::event::{Address, Moment, OwnerQuality, Role};
use crate::process::ProcessId;

const COLUMNS: [Column; 8] = [
    ("provider", Align::Left),
    ("agent", Align::Left),
    ("program", Align::Cut),
    ("remote", Align::Cut),
    ("class", Align::Left),
    ("age", Align::Right),
    ("sent", Align::Right),
    ("received", Align::Right),
];

/// Rows by agent, then in the order in which they were found. Lines of at most `width` columns.
pub fn render(open: &[Arc<Connection>], now: Moment, width: usize, styles: &Styles) -> String {
    let mut rows: Vec<&Connection> = open.iter().map(|connection| &**connection).collect();
    rows.sort_by_key(|connection| (Arc::clone(&connection.provider), agent_pid(connection), connection.id));
    let rows = rows.into_iter().map(|connection| row(connection, now)).collect();
    let table = Table { columns: &COLUMNS, rows }.render(width.saturating_add(2), styles);
    // The first column begins the line.
    table.lines().fold(String::new(), |text, line| text + without_indent(line) + "\n")
}

/// The indent stands before the text, or before the sequence that paints it.
fn without_indent(line: &str) -> &str {
    line.strip_prefix("  ").unwrap_or(line)
}

fn agent_pid(connection: &Connection) -> Option<u32> {
    Some(connection.process.as_ref()?.call.as_ref()?.agent_id.pid)
}

fn row(connection: &Connection, now: Moment) -> Vec<String> {
    let process = connection.process.as_deref();
    let call = process.and_then(|process| process.call.as_deref());
    let agent = call.map(|call| format!("{}({})", call.agent, call.agent_id.pid)).unwrap_or_default();
    let program = process
        .map_or_else(|| "unknown".to_owned(), |process| format!("{}({})", process.program, process.id.pid));
    let [sent, received] = match connection.bytes {
        Some(bytes) => [bytes.sent, bytes.received].map(|bytes| Size(bytes).to_string()),
        None => [String::new(), String::new()],
    };
    vec![
        connection.provider.to_string(),
        agent,
        program,
        remote(connection),
        connection.class.name().to_owned(),
        age(connection, now),
        sent,
        received,
    ]
}

fn remote(connection: &Connection) -> String {
    match (connection.role, &connection.local) {
        (Role::Listen, Some(Address::Ip(local))) => format!("listens on {local}"),
        (Role::Listen, Some(local)) => format!("listens on {local}"),
        (Role::Accept, _) => format!("from {}", line::endpoint_raw(connection)),
        _ => line::endpoint_raw(connection),
    }
}

/// A socket does not say when it was opened. It is no older than its process, unless that got it from another one.
fn age(connection: &Connection, now: Moment) -> String {
    if !connection.preexisting {
        return Span(now.since(connection.since)).to_string();
    }
    match &connection.process {
        Some(process) if connection.owner_quality != OwnerQuality::Inherited => {
            format!("≤{}", Span(age_of(process.id, now)))
        }
        _ => String::new(),
    }
}

fn age_of(process: ProcessId, now: Moment) -> Duration {
    Duration::from_nanos(now.boot_ns)
        .saturating_sub(Duration::from_millis(process.start_time.saturating_mul(10)))
}
