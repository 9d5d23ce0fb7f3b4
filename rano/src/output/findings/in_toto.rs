//! A statement of in-toto with the predicate `runtime-trace` (version 0.2): what was reached, and by which policy it
//! was judged. It is not signed; a signer wraps it.

use serde_json::{Value as Json, json};

use super::super::human::{timestamp_millis, timestamp_seconds};
use super::json::properties;
use super::words::{remark, sentence};
use crate::policy::{Finding, Reached, Verdict};

const STATEMENT: &str = "https://in-toto.io/Statement/v1";
const PREDICATE: &str = "https://in-toto.io/attestation/runtime-trace/v0.2";

/// `database`: SHA-256 of the history, which is what the statement is about.
pub(super) fn statement(verdict: &Verdict, database: &str) -> String {
    let run_ids: Vec<&str> = verdict.observed.iter().map(|session| &*session.run_id).collect();
    let hosts: Vec<&str> = verdict.observed.iter().map(|session| session.host.as_str()).take(1).collect();
    let start = verdict.observed.iter().map(|session| session.started_at).min();
    let end = verdict.observed.iter().filter_map(|session| session.ended_at).max();
    let value = json!({
        "_type": STATEMENT,
        "subject": [{ "name": "rano history", "digest": { "sha256": database } }],
        "predicateType": PREDICATE,
        "predicate": {
            "monitor": {
                "type": concat!("urn:rano:monitor:", env!("CARGO_PKG_VERSION")),
                "configSource": { "name": verdict.path, "digest": { "sha256": verdict.sha256 } },
                "tracePolicy": {
                    "failOn": verdict.fail_on.iter().map(|kind| kind.name()).collect::<Vec<_>>(),
                    "passes": !verdict.fails(),
                    "findings": verdict.findings.iter().map(finding).collect::<Vec<_>>(),
                    "notes": verdict.remarks.iter().map(remark).collect::<Vec<_>>(),
                    "sources": verdict.observed.iter().map(|session| session.source.as_str()).collect::<Vec<_>>(),
                },
            },
            "monitoredProcess": {
                "hostID": format!("urn:rano:host:{}", super::uri(hosts.first().unwrap_or(&"unknown"))),
                "type": "urn:rano:agent-session",
                "event": run_ids.join(" "),
            },
            "monitorLog": { "network": verdict.contacts.iter().map(connection).collect::<Vec<_>>() },
            "metadata": {
                "buildStartedOn": start.map(timestamp_seconds),
                "buildFinishedOn": end.map(timestamp_seconds),
            },
        },
    });
    super::super::json::text(&value) + "\n"
}

fn finding(finding: &Finding) -> Json {
    json!({
        "kind": finding.kind.name(),
        "fails": finding.fails,
        "message": sentence(finding),
        "fingerprint": finding.identity(),
    })
}

fn connection(reached: &Reached) -> Json {
    let Reached { contact, name, .. } = reached;
    let known = properties(reached);
    let mut json = json!({
        "protocol": &*contact.protocol,
        "invokingProcess": {
            "pid": contact.pid,
            "program": &*contact.program,
            "exe": contact.exe.as_deref(),
            "agent": contact.agent.as_deref(),
            "tool": contact.tool.as_deref(),
        },
        "hostnameEvidence": name.as_ref().map(|known| &*known.by),
        "class": reached.class.name(),
        "count": contact.seen.count(),
        "bytesSent": known.get("bytes_sent"),
        "bytesReceived": known.get("bytes_recv"),
        "firstSeen": timestamp_millis(contact.seen.first),
        "lastSeen": timestamp_millis(contact.seen.last),
    });
    if let Some(ip) = contact.ip() {
        json["ip"] = ip.to_string().into();
    }
    if let Some(known) = name {
        json["hostname"] = (*known.name).into();
    }
    if let Some(port) = contact.port.filter(|port| *port > 0) {
        json["port"] = port.into();
    }
    json
}
