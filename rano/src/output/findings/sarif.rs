//! SARIF 2.1.0 (OASIS), for code scanning: each result points at the rule, or at where one would stand.

use serde_json::{Value as Json, json};

use super::super::human::timestamp_millis;
use super::json::properties;
use super::uri;
use super::words::{level, remark, sentence};
use crate::policy::{Finding, Kind, Verdict};

pub(super) fn sarif(verdict: &Verdict) -> String {
    let rules: Vec<Json> = Kind::ALL.into_iter().map(|kind| rule(kind, verdict)).collect();
    let results: Vec<Json> = verdict.findings.iter().map(result).collect();
    let notes: Vec<Json> = verdict
        .remarks
        .iter()
        .map(|said| json!({ "level": "note", "message": { "text": remark(said) } }))
        .collect();
    let mut invocation = json!({ "executionSuccessful": true, "toolExecutionNotifications": notes });
    if let Some(start) = verdict.observed.iter().map(|session| session.started_at).min() {
        invocation["startTimeUtc"] = timestamp_millis(start).into();
    }
    if let Some(end) = verdict.observed.iter().filter_map(|session| session.ended_at).max() {
        invocation["endTimeUtc"] = timestamp_millis(end).into();
    }
    let value = json!({
        "$schema": "https://json.schemastore.org/sarif-2.1.0.json",
        "version": "2.1.0",
        "runs": [{
            "tool": { "driver": {
                "name": "rano",
                "semanticVersion": env!("CARGO_PKG_VERSION"),
                "rules": rules,
            } },
            "artifacts": [{
                "location": { "uri": uri(&verdict.path) },
                "hashes": { "sha-256": verdict.sha256 },
            }],
            "invocations": [invocation],
            "columnKind": "unicodeCodePoints",
            "results": results,
        }],
    });
    super::super::json::text(&value) + "\n"
}

fn rule(kind: Kind, verdict: &Verdict) -> Json {
    let level = if verdict.fail_on.contains(&kind) { "error" } else { "warning" };
    json!({
        "id": kind.name(),
        "shortDescription": { "text": kind.meaning() },
        "defaultConfiguration": { "level": level },
    })
}

fn result(finding: &Finding) -> Json {
    let index = Kind::ALL.iter().position(|kind| *kind == finding.kind);
    let mut properties = finding.reached.as_ref().map(properties).unwrap_or_default();
    if let Some(allow) = &finding.allow {
        properties.insert("allow".to_owned(), allow.as_str().into());
    }
    json!({
        "ruleId": finding.kind.name(),
        "ruleIndex": index,
        "level": level(finding),
        "message": { "text": sentence(finding) },
        "locations": [{ "physicalLocation": {
            "artifactLocation": { "uri": uri(&finding.place.file) },
            "region": { "startLine": finding.place.line.max(1) },
        } }],
        "partialFingerprints": { "ranoFinding/v1": finding.identity() },
        "properties": properties,
    })
}
