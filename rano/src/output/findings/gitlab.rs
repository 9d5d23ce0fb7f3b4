//! GitLab's code quality report.

use serde_json::{Value as Json, json};

use super::words::sentence;
use crate::policy::{Finding, Kind, Verdict};

pub(super) fn gitlab(verdict: &Verdict) -> String {
    let issues: Vec<Json> = verdict.findings.iter().map(issue).collect();
    super::super::json::text(&issues) + "\n"
}

fn issue(finding: &Finding) -> Json {
    let severity = match finding.kind {
        Kind::Denied if finding.fails => "blocker",
        _ if finding.fails => "critical",
        Kind::Stale => "info",
        _ => "minor",
    };
    json!({
        "type": "issue",
        "check_name": format!("rano-{}", finding.kind.name()),
        "description": sentence(finding),
        "categories": ["Security"],
        "severity": severity,
        "fingerprint": finding.identity(),
        "location": {
            "path": finding.place.file.trim_start_matches("./"),
            "lines": { "begin": finding.place.line.max(1) },
        },
    })
}
