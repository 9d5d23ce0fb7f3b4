//! `rano report` as JSON.

use std::collections::BTreeMap;

use serde_json::{Map, Value as Json, json};

use super::details::details_json;
use super::event_json::VERSION;
use super::human::timestamp_millis;
use super::report::{Ending, alerts, gaps, sources};
use crate::store::query::details::Details;
use crate::store::query::report::{Counts, DomainRow, IpRow, Report};
use crate::store::query::sessions::StoredSession;

/// One object; what is not known is left out.
pub fn json(report: &Report, details: &Details, running: &[String]) -> String {
    let mut json = value(report, running);
    if let (Some(json), Json::Object(details)) = (json.as_object_mut(), details_json(details)) {
        json.extend(details);
    }
    super::json::text(&json) + "\n"
}

/// What `--by` lists: one object, with the word for what a row is and for all of them, the rows, how many there are.
pub(super) fn rows_json(
    report: &Report,
    running: &[String],
    (by, all_of_them): (&str, &str),
    (rows, all): (Vec<Json>, u64),
) -> String {
    let sessions: Vec<Json> = report.sessions.iter().map(|session| session_json(session, running)).collect();
    let range = range_json(report);
    let mut json =
        json!({ "v": VERSION, "type": "report", "by": by, "range": range, "sessions": sessions, "all": all });
    json[all_of_them] = rows.into();
    if let Some(filter) = &report.selection.filter {
        json["filter"] = json!({ "expression": filter.text() });
    }
    super::json::text(&json) + "\n"
}

fn range_json(report: &Report) -> Json {
    object(&[
        ("since", report.selection.since.map(timestamp_millis).into()),
        ("until", report.selection.until.map(timestamp_millis).into()),
    ])
}

/// The sums alone, as a page has them.
pub fn value(report: &Report, running: &[String]) -> Json {
    let sessions: Vec<Json> = report.sessions.iter().map(|session| session_json(session, running)).collect();
    let mut summary = counts_json(&report.away);
    summary.insert("events".into(), report.totals.events().into());
    summary.insert("active".into(), report.active.into());
    summary.insert("alerts".into(), alerts(report).into());
    summary.insert("loopback".into(), counts_json(&report.loopback).into());
    summary.insert("lookups".into(), counts_json(&report.lookups).into());
    let providers = report.providers.iter().map(|(provider, counts)| {
        let mut row = counts_json(counts);
        row.insert("provider".into(), provider.as_str().into());
        row.insert("events".into(), counts.events().into());
        row.insert("connections".into(), counts.connects.into());
        Json::Object(row)
    });
    let missed: BTreeMap<_, _> =
        gaps(&report.sessions).present().map(|(gap, count)| (gap.name(), count)).collect();
    let sources = sources(&report.sessions)
        .into_iter()
        .map(|(source, reason)| object(&[("source", source.into()), ("reason", reason.into())]));
    let mut json = json!({
        "v": VERSION,
        "type": "report",
        "range": range_json(report),
        "summary": summary,
        "providers": providers.collect::<Vec<_>>(),
        "top_domains": report.domains.rows.iter().map(domain_json).collect::<Vec<_>>(),
        "domains": report.domains.all,
        "top_ips": report.ips.rows.iter().map(ip_json).collect::<Vec<_>>(),
        "ips": report.ips.all,
        "completeness": {
            "complete": missed.is_empty(),
            "missed": missed,
            "sources": sources.collect::<Vec<_>>(),
        },
    });
    if let Some(filter) = &report.selection.filter {
        json["filter"] = json!({ "expression": filter.text(), "read_events": report.read_events });
    }
    if let [session] = sessions.as_slice() {
        json["session"] = session.clone();
    }
    json["sessions"] = sessions.into();
    json
}

pub(super) fn session_json(session: &StoredSession, running: &[String]) -> Json {
    object(&[
        ("run_id", session.run_id.as_str().into()),
        ("name", session.name.as_deref().into()),
        ("started_at", timestamp_millis(session.started_at).into()),
        ("ended_at", session.ended_at.map(timestamp_millis).into()),
        ("last_event_at", session.last_event_at.map(timestamp_millis).into()),
        ("duration_ms", session.end().map(|end| (end - session.started_at).max(0)).into()),
        ("host", session.host.as_str().into()),
        ("user", session.user.as_str().into()),
        ("patterns", session.patterns.clone().into()),
        ("excludes", session.excludes.clone().into()),
        ("excluded_processes", session.left_out.processes.into()),
        ("excluded_connections", session.left_out.connections.into()),
        ("source", session.source.as_str().into()),
        ("source_reason", session.source_reason.as_deref().into()),
        ("clean_exit", session.clean_exit.into()),
        ("running", (Ending::of(session, running) == Ending::Running).into()),
        ("active", session.active.into()),
        ("peak_active", session.peak_active.into()),
        ("alerts", session.alerts.into()),
    ])
}

fn domain_json(row: &DomainRow) -> Json {
    let mut counts = counts_json(&row.counts);
    counts.insert("domain".into(), row.domain.as_str().into());
    counts.insert("count".into(), row.counts.connects.into());
    counts.insert("providers".into(), row.providers.clone().into());
    counts.insert("domain_sources".into(), row.known_by.clone().into());
    if let Some(class) = &row.class {
        counts.insert("class".into(), class.as_str().into());
    }
    Json::Object(counts)
}

fn ip_json(row: &IpRow) -> Json {
    let mut counts = counts_json(&row.counts);
    counts.insert("ip".into(), row.ip.as_str().into());
    counts.insert("count".into(), row.counts.connects.into());
    if let Some(name) = &row.name {
        counts.insert("domain".into(), name.as_str().into());
    }
    Json::Object(counts)
}

pub(super) fn counts_json(counts: &Counts) -> Map<String, Json> {
    let Counts { connects, closes, fails, accepts, listens, bytes_sent, bytes_received } = *counts;
    let fields = [
        ("connects", connects),
        ("closes", closes),
        ("fails", fails),
        ("accepts", accepts),
        ("listens", listens),
        ("bytes_sent", bytes_sent),
        ("bytes_recv", bytes_received),
    ];
    fields.into_iter().map(|(name, count)| (name.to_owned(), count.into())).collect()
}

/// Without what is null.
pub(super) fn object(fields: &[(&str, Json)]) -> Json {
    let present = fields.iter().filter(|(_, value)| !value.is_null());
    Json::Object(present.map(|(name, value)| ((*name).to_owned(), value.clone())).collect())
}
