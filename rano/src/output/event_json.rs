//! The JSON line of an event. Absent fields are left out; names are part of the contract and never change.

use serde::Serialize;

use crate::connection::{Connection, End};
use crate::event::{Address, Bytes, Event, Moment, SocketState};
use crate::output::human::timestamp_millis;
use crate::output::json;
use crate::process::ancestry;
use crate::update::Renamed;

/// Version of this shape: raised when a field changes its meaning.
pub const VERSION: u32 = 1;

#[derive(Serialize)]
struct EventJson<'a> {
    v: u32,
    ts: String,
    run_id: &'a str,
    event: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    pid: Option<u32>,
    comm: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    cmdline: Option<&'a str>,
    provider: &'a str,
    proto: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    local: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    remote: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    domain: Option<&'a str>,
    /// Milliseconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    duration_ms: Option<u128>,
    #[serde(skip_serializing_if = "Option::is_none")]
    ppid: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    uid: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    exe: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    ancestry_path: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    local_ip: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    local_port: Option<u16>,
    #[serde(skip_serializing_if = "Option::is_none")]
    remote_ip: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    remote_port: Option<u16>,
    endpoint_type: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    bytes_sent: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    bytes_recv: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    state: Option<&'static str>,
    source: &'static str,
    owner_quality: &'static str,
    domain_source: &'static str,
    #[serde(skip_serializing_if = "is_false")]
    preexisting: bool,
    #[serde(skip_serializing_if = "is_false")]
    late: bool,
    netns: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    peer_pid: Option<u32>,
    #[serde(skip_serializing_if = "is_false")]
    alert: bool,
    program: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    cwd: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    agent: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    agent_pid: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    agent_session: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    tool: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    tool_pid: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    tool_started: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    trace_id: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    span_id: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    via: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    domain_port: Option<u16>,
    #[serde(skip_serializing_if = "Option::is_none")]
    relay_for: Option<u32>,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes fields by reference")]
fn is_false(value: &bool) -> bool {
    !value
}

/// Appends the object and a newline.
pub fn write(line: &mut Vec<u8>, event: &Event, run_id: &str) {
    let Connection { ended, bytes, .. } = &*event.connection;
    let what = What { word: event.kind.name(), at: event.at, ended: ended.as_ref(), bytes: *bytes };
    append(line, &what, &event.connection, run_id);
}

/// Appends the line that tells a name which became known after the connect. How the connection ended stands in one line
/// only, so that a sum over all lines counts it once.
pub fn write_name(line: &mut Vec<u8>, renamed: &Renamed, run_id: &str) {
    let what = What { word: "name", at: renamed.at, ended: None, bytes: None };
    append(line, &what, &renamed.connection, run_id);
}

/// What differs between lines about one connection.
struct What<'a> {
    word: &'static str,
    at: Moment,
    ended: Option<&'a End>,
    bytes: Option<Bytes>,
}

fn append(line: &mut Vec<u8>, what: &What<'_>, connection: &Connection, run_id: &str) {
    let What { word, at, ended, bytes } = *what;
    let process = connection.process.as_deref();
    let name = connection.name.as_ref();
    let call = process.and_then(|process| process.call.as_deref());
    let tool = call.and_then(|call| call.tool.as_ref());
    let trace = process.and_then(|process| process.trace.as_ref());
    let text = |address: &Option<Address>| address.as_ref().map(Address::to_string);
    let ip = |address: &Option<Address>| address.as_ref()?.host();
    let port = |address: &Option<Address>| match address {
        Some(Address::Ip(address)) => Some(address.port()),
        Some(Address::Host(_) | Address::Path(_)) | None => None,
    };
    let json = EventJson {
        v: VERSION,
        ts: timestamp_millis(at.unix_ms),
        run_id,
        event: word,
        pid: process.map(|process| process.id.pid),
        comm: process.map_or("unknown", |process| &process.comm),
        cmdline: process.map(|process| &*process.cmdline),
        provider: &connection.provider,
        proto: connection.protocol.name(),
        local: text(&connection.local),
        remote: text(&connection.remote),
        domain: name.map(|known| &*known.name),
        duration_ms: ended.and_then(|end| end.duration).map(|duration| duration.as_millis()),
        ppid: process.map(|process| process.ppid),
        uid: process.map(|process| process.uid),
        exe: process.map(|process| &*process.exe).filter(|exe| !exe.is_empty()),
        ancestry_path: process.map(|process| ancestry::path(&process.ancestry)),
        local_ip: ip(&connection.local),
        local_port: port(&connection.local),
        remote_ip: ip(&connection.remote),
        remote_port: port(&connection.remote),
        endpoint_type: connection.class.name(),
        bytes_sent: bytes.map(|bytes| bytes.sent),
        bytes_recv: bytes.map(|bytes| bytes.received),
        error: ended.and_then(|end| end.error).map(error_name),
        state: connection.state.map(SocketState::name),
        source: connection.source.name(),
        owner_quality: connection.owner_quality.name(),
        domain_source: name.map_or("none", |known| known.by.name()),
        preexisting: connection.preexisting,
        late: ended.is_some_and(|end| end.is_late),
        netns: connection.netns,
        peer_pid: connection.peer_pid,
        alert: connection.alert,
        program: process.map_or("unknown", |process| &process.program),
        cwd: process.and_then(|process| process.cwd.as_deref()),
        agent: call.map(|call| &*call.agent),
        agent_pid: call.map(|call| call.agent_id.pid),
        agent_session: call.and_then(|call| call.session.as_deref()),
        tool: tool.map(|tool| &*tool.cmdline),
        tool_pid: tool.map(|tool| tool.id.pid),
        tool_started: tool.map(|tool| timestamp_millis(tool.started_ms)),
        trace_id: trace.map(|trace| &*trace.trace_id),
        span_id: trace.map(|trace| &*trace.span_id),
        via: connection.via().map(|proxy| proxy.to_string()),
        domain_port: connection.domain_port,
        relay_for: connection.relay_for,
    };
    json::append(line, &json);
    line.push(b'\n');
}

fn error_name(errno: i32) -> String {
    crate::errno::name(errno).map_or_else(|| format!("errno {errno}"), str::to_owned)
}
