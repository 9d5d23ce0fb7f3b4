//! For programs.

use serde_json::{Map, Value as Json, json};

use super::super::event_json::VERSION;
use super::super::human::timestamp_millis;
use super::words::{remark, sentence, title};
use crate::policy::{Finding, Observed, Reached, Verdict};

pub(super) fn json(verdict: &Verdict) -> String {
    let value = json!({
        "v": VERSION,
        "type": "check",
        "policy": { "path": verdict.path, "sha256": verdict.sha256 },
        "fail_on": verdict.fail_on.iter().map(|kind| kind.name()).collect::<Vec<_>>(),
        "passes": !verdict.fails(),
        "sessions": verdict.observed.iter().map(observed).collect::<Vec<_>>(),
        "endpoints": verdict.endpoints,
        "allowed": verdict.allowed,
        "connections": verdict.connections,
        "ignored": verdict.ignored,
        "findings": verdict.findings.iter().map(finding).collect::<Vec<_>>(),
        "notes": verdict.remarks.iter().map(remark).collect::<Vec<_>>(),
    });
    super::super::json::text(&value) + "\n"
}

fn observed(session: &Observed) -> Json {
    let mut json = json!({
        "run_id": &*session.run_id,
        "started_at": timestamp_millis(session.started_at),
        "source": session.source,
        "clean_exit": session.clean_exit,
    });
    if let Some(name) = &session.name {
        json["name"] = name.as_str().into();
    }
    json
}

fn finding(finding: &Finding) -> Json {
    let mut json = Map::new();
    let mut put = |key: &str, value: Json| {
        if !value.is_null() {
            json.insert(key.to_owned(), value);
        }
    };
    put("kind", finding.kind.name().into());
    put("fails", finding.fails.into());
    put("subject", title(finding).into());
    put("message", sentence(finding).into());
    put("run_id", finding.run_id.as_deref().into());
    put("file", (*finding.place.file).into());
    put("line", finding.place.line.into());
    put("allow", finding.allow.as_deref().into());
    put("fingerprint", finding.identity().into());
    if let Some(reached) = &finding.reached {
        for (key, value) in properties(reached) {
            json.entry(key).or_insert(value);
        }
    }
    Json::Object(json)
}

/// Everything that is known of an endpoint and of who reached it; absent fields are left out.
pub(super) fn properties(reached: &Reached) -> Map<String, Json> {
    let Reached { contact, name, class, more } = reached;
    let seen = &contact.seen;
    let json = json!({
        "run_id": &*contact.run_id,
        "endpoint": reached.endpoint(),
        "domain": name.as_ref().map(|known| &*known.name),
        "domain_source": name.as_ref().map(|known| &*known.by),
        "proto": &*contact.protocol,
        "remote_ip": contact.remote.as_deref(),
        "remote_port": contact.port,
        "endpoint_type": class.name(),
        "provider": &*contact.provider,
        "agent": contact.agent.as_deref(),
        "program": &*contact.program,
        "exe": contact.exe.as_deref(),
        "pid": contact.pid,
        "tool": contact.tool.as_deref(),
        "cmdline": contact.command.as_deref(),
        "count": seen.count(),
        "failed": seen.fails,
        "bytes_sent": seen.bytes.map(|bytes| bytes.sent),
        "bytes_recv": seen.bytes.map(|bytes| bytes.received),
        "first_seen": timestamp_millis(seen.first),
        "last_seen": timestamp_millis(seen.last),
        "more_calls": (*more > 0).then_some(more),
    });
    match json {
        Json::Object(map) => map.into_iter().filter(|(_, value)| !value.is_null()).collect(),
        _ => Map::new(),
    }
}
