//! The JSON line of an event. Absent fields are left out; names are part of the contract and never change.

use serde::Serialize;

use crate::event::{Address, Domain, Event};
use crate::output::human::timestamp_millis;
use crate::output::json;
use crate::process::ancestry;

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
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes fields by reference")]
fn is_false(value: &bool) -> bool {
    !value
}

/// Appends the object and a newline.
pub fn write(line: &mut Vec<u8>, event: &Event, run_id: &str) {
    write_as(line, event.kind.name(), event, run_id);
}

/// Appends the line that tells a name which became known after the connect; `event` is the connection with the name.
pub fn write_name(line: &mut Vec<u8>, event: &Event, run_id: &str) {
    write_as(line, "name", event, run_id);
}

fn write_as(line: &mut Vec<u8>, word: &'static str, event: &Event, run_id: &str) {
    let process = event.process.as_deref();
    let (domain, domain_source) = match &event.domain {
        Domain::Observed { name, by } => (Some(&**name), by.name()),
        Domain::Unknown => (None, "none"),
    };
    let text = |address: &Option<Address>| address.as_ref().map(Address::to_string);
    let ip = |address: &Option<Address>| address.as_ref()?.ip_addr().map(|ip| ip.to_string());
    let port = |address: &Option<Address>| match address {
        Some(Address::Ip(address)) => Some(address.port()),
        Some(Address::Path(_)) | None => None,
    };
    let json = EventJson {
        v: VERSION,
        ts: timestamp_millis(event.at.unix_ms),
        run_id,
        event: word,
        pid: process.map(|process| process.id.pid),
        comm: process.map_or("unknown", |process| &process.comm),
        cmdline: process.map(|process| &*process.cmdline),
        provider: &event.provider,
        proto: event.protocol.name(),
        local: text(&event.local),
        remote: text(&event.remote),
        domain,
        duration_ms: event.duration.map(|duration| duration.as_millis()),
        ppid: process.map(|process| process.ppid),
        uid: process.map(|process| process.uid),
        exe: process.map(|process| &*process.exe).filter(|exe| !exe.is_empty()),
        ancestry_path: process.map(|process| ancestry::path(&process.ancestry)),
        local_ip: ip(&event.local),
        local_port: port(&event.local),
        remote_ip: ip(&event.remote),
        remote_port: port(&event.remote),
        endpoint_type: event.class.name(),
        bytes_sent: event.bytes.map(|bytes| bytes.sent),
        bytes_recv: event.bytes.map(|bytes| bytes.received),
        error: event.error.map(error_name),
        state: event.state.map(crate::event::SocketState::name),
        source: event.source.name(),
        owner_quality: event.owner_quality.name(),
        domain_source,
        preexisting: event.preexisting,
        late: event.late,
        netns: event.netns,
        peer_pid: event.peer_pid,
        alert: event.alert,
    };
    json::append(line, &json);
    line.push(b'\n');
}

fn error_name(errno: i32) -> String {
    crate::errno::name(errno).map_or_else(|| format!("errno {errno}"), str::to_owned)
}
