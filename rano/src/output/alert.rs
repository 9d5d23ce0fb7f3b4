//! An alert, as a line of text or of JSON.

use std::net::SocketAddr;
use std::sync::Arc;

use serde::Serialize;

use crate::alerts::{Reason, Severity};
use crate::connection::Connection;
use crate::event::{Address, KnownName};
use crate::output::escape::Escaped;
use crate::output::human::{Size, timestamp_millis, timestamp_seconds};
use crate::output::style::Styles;
use crate::output::{json, line};
use crate::update::Alert;

/// Columns of a command line on a terminal: two rows of a small one.
const COMMAND_MAX: usize = 160;

/// `[ALERT] time | CRITICAL | kind | what | curl(22078) ← claude(21914) | command line`. No newline. A terminal, which
/// has a width, gets the beginning of a long command line.
pub fn line(alert: &Alert, width: Option<usize>, styles: &Styles) -> String {
    let (paint, severity) = match alert.reason.severity() {
        Severity::Critical => (styles.critical, "CRITICAL"),
        Severity::Warning => (styles.warning, "WARNING"),
    };
    let time = timestamp_seconds(alert.at.unix_ms);
    let kind = alert.reason.kind();
    let message = message(&alert.reason, &alert.connection);
    let mut line =
        format!("{paint}[ALERT]{paint:#} {time} | {paint}{severity}{paint:#} | {kind} | {message}");
    if let Some(process) = &alert.connection.process {
        line::write_who(&mut line, process, width.map_or(usize::MAX, |_| COMMAND_MAX));
    }
    line
}

/// What was found, names escaped.
fn message(reason: &Reason, connection: &Connection) -> String {
    // One that is known by a reverse look-up alone is a guess.
    let shown = |name: &Arc<str>| {
        let known = connection.name.iter().chain(&connection.others).find(|known| known.name == *name);
        Escaped(&known.map_or_else(|| Arc::clone(name), KnownName::shown)).to_string()
    };
    match reason {
        Reason::DomainMatch { pattern, domain, is_possible } => {
            let possible = if *is_possible { " (possible)" } else { "" };
            format!("{} matched {}{possible}", shown(domain), Escaped(pattern))
        }
        Reason::MaxConnections { active, limit } => format!("{active}/{limit} active connections"),
        Reason::MaxPerProvider { provider, active, limit } => {
            format!("{} {active}/{limit} active connections", Escaped(provider))
        }
        Reason::LongDuration { elapsed, limit } => {
            format!("{}ms > {}ms", elapsed.as_millis(), limit.as_millis())
        }
        Reason::UnknownDomain { remote, possible } if possible.is_empty() => format!("{remote} has no name"),
        Reason::UnknownDomain { remote, possible } => {
            let names: Vec<_> = possible.iter().map(shown).collect();
            format!("{remote} has no name (possible: {})", names.join(", "))
        }
        Reason::Sent { sent, limit } => {
            format!("{} > {} sent to {}", Size(*sent), Size(*limit), line::endpoint(connection))
        }
        Reason::NewEndpoint { agent } => {
            format!("{} was never reached by {} before", line::endpoint(connection), Escaped(agent))
        }
        Reason::Class { class } => format!("{} is of class {}", line::endpoint(connection), class.name()),
    }
}

/// What is said of unknown endpoints that were too many to be told one by one. No newline.
pub fn more_unknown_endpoints(count: u64) -> String {
    format!("⚠ Unknown endpoints: {count} more, too fast to be shown; the history has every connection")
}

/// What is said of an endpoint of which nobody knows what it is. No newline.
pub fn unknown_endpoint(connection: &Connection, remote: SocketAddr) -> String {
    let who = connection.process.as_ref().map_or_else(String::new, |process| {
        let call = process.call.as_ref().filter(|call| call.agent_id != process.id);
        let agent = call.map(|call| format!(" ← {}({})", Escaped(&call.agent), call.agent_id.pid));
        format!(" | {} ({}){}", Escaped(&process.program), process.id.pid, agent.unwrap_or_default())
    });
    let name = connection.name.as_ref();
    let domain = name.map_or_else(String::new, |known| format!(" | domain={}", Escaped(&known.shown())));
    format!("⚠ Unknown endpoint: {remote}{who}{domain}")
}

#[derive(Serialize)]
struct AlertJson<'a> {
    r#type: &'static str,
    ts: String,
    kind: &'static str,
    severity: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    pattern: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    domain: Option<&'a str>,
    /// It may be another name that the connection goes by.
    #[serde(skip_serializing_if = "Option::is_none")]
    possible: Option<bool>,
    /// Active connections.
    #[serde(skip_serializing_if = "Option::is_none")]
    active: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    limit: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    duration_ms: Option<u128>,
    #[serde(skip_serializing_if = "Option::is_none")]
    limit_ms: Option<u128>,
    #[serde(skip_serializing_if = "Option::is_none")]
    limit_bytes: Option<u64>,
    v: u32,
    run_id: &'a str,
    /// The latest event of its connection: a connect, a close, a fail.
    event: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    pid: Option<u32>,
    comm: &'a str,
    program: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    cmdline: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    agent: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    agent_pid: Option<u32>,
    endpoint_type: &'static str,
    provider: &'a str,
    proto: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    local: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    remote: Option<String>,
    /// So far.
    #[serde(skip_serializing_if = "Option::is_none")]
    bytes_sent: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    bytes_recv: Option<u64>,
}

/// One object and a newline.
pub fn json(alert: &Alert, run_id: &str) -> Vec<u8> {
    let connection = &*alert.connection;
    let process = connection.process.as_deref();
    let call = process.and_then(|process| process.call.as_deref());
    let text = |address: &Option<Address>| address.as_ref().map(Address::to_string);
    let mut json = AlertJson {
        r#type: "alert",
        ts: timestamp_millis(alert.at.unix_ms),
        kind: alert.reason.kind(),
        severity: alert.reason.severity().name(),
        pattern: None,
        domain: connection.name.as_ref().map(|known| &*known.name),
        possible: None,
        active: None,
        limit: None,
        duration_ms: None,
        limit_ms: None,
        limit_bytes: None,
        v: crate::output::event_json::VERSION,
        run_id,
        event: connection.last_event().name(),
        pid: process.map(|process| process.id.pid),
        comm: process.map_or("unknown", |process| &process.comm),
        program: process.map_or("unknown", |process| &process.program),
        cmdline: process.map(|process| &*process.cmdline),
        agent: call.map(|call| &*call.agent),
        agent_pid: call.map(|call| call.agent_id.pid),
        endpoint_type: connection.class.name(),
        provider: &connection.provider,
        proto: connection.protocol.name(),
        local: text(&connection.local),
        remote: text(&connection.remote),
        bytes_sent: connection.bytes.map(|bytes| bytes.sent),
        bytes_recv: connection.bytes.map(|bytes| bytes.received),
    };
    match &alert.reason {
        Reason::DomainMatch { pattern, domain, is_possible } => {
            json.pattern = Some(pattern);
            json.domain = Some(domain);
            json.possible = is_possible.then_some(true);
        }
        Reason::MaxConnections { active, limit } | Reason::MaxPerProvider { active, limit, .. } => {
            json.active = Some(*active);
            json.limit = Some(*limit);
        }
        Reason::LongDuration { elapsed, limit } => {
            json.duration_ms = Some(elapsed.as_millis());
            json.limit_ms = Some(limit.as_millis());
        }
        Reason::Sent { limit, .. } => json.limit_bytes = Some(*limit),
        Reason::UnknownDomain { .. } | Reason::NewEndpoint { .. } | Reason::Class { .. } => {}
    }
    let mut line = Vec::new();
    json::append(&mut line, &json);
    line.push(b'\n');
    line
}
