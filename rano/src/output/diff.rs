//! `rano diff` as text and as JSON.

use std::fmt::Write as _;

use serde_json::{Value as Json, json};

use super::escape::Escaped;
use super::event_json::VERSION;
use super::human::{Size, timestamp_millis, timestamp_seconds};
use super::report::{self, Look};
use super::table::{Align, Column, Table, grouped};
use crate::filter::Filter;
use crate::store::query::diff::{Change, Changes, LEAST_BYTES, LEAST_CHANGE, Snapshot, Traffic};
use crate::store::query::sessions::StoredSession;

/// What was asked for.
#[derive(Debug, Clone, Copy)]
pub struct Question<'a> {
    /// Least change that counts, in percent.
    pub threshold: u64,
    /// Only what it holds of.
    pub filter: Option<&'a Filter>,
}

/// Of each list, the first `look.top` are shown.
pub fn text(
    old: &Snapshot,
    new: &Snapshot,
    changes: &Changes,
    question: &Question<'_>,
    look: &Look<'_>,
) -> String {
    let mut out = String::new();
    let paint = look.styles.heading;
    writeln!(out, "{paint}Sessions{paint:#}").expect("writing into a String cannot fail");
    for (word, snapshot) in [("old", old), ("new", new)] {
        let session = &snapshot.session;
        let name = session.name.as_deref().map(|name| format!(" {}", Escaped(name))).unwrap_or_default();
        let start = timestamp_seconds(session.started_at);
        writeln!(out, "  {word}  {}{name}, started {start}", Escaped(&session.run_id))
            .expect("writing into a String cannot fail");
    }
    if let Some(filter) = question.filter {
        report::filter(&mut out, filter, old.read_events, look);
    }
    if changes.is_empty() {
        out.push_str("\nNo differences\n");
    }
    let by_how_much = format!(
        "Changed domains (by {} % and {LEAST_CHANGE} connections, failures, or 1 MiB or more)",
        question.threshold
    );
    for (title, list) in [
        ("New domains", &changes.new_domains),
        ("Removed domains", &changes.removed_domains),
        (by_how_much.as_str(), &changes.changed_domains),
        ("New processes", &changes.new_processes),
        ("Provider changes", &changes.providers),
    ] {
        section(&mut out, title, list, look);
    }
    out
}

fn section(out: &mut String, title: &str, list: &[Change], look: &Look<'_>) {
    const COLUMNS: [Column; 6] = [
        ("old", Align::Right),
        ("new", Align::Right),
        ("change", Align::Right),
        ("name", Align::Cut),
        ("old bytes", Align::Right),
        ("new bytes", Align::Right),
    ];
    if list.is_empty() {
        return;
    }
    let paint = look.styles.heading;
    writeln!(out, "\n{paint}{title} ({}){paint:#}", grouped(list.len() as u64))
        .expect("writing into a String cannot fail");
    let rows = list.iter().take(look.top).map(|change| {
        vec![
            grouped(change.old.connects),
            grouped(change.new.connects),
            percent(change),
            change.name.clone(),
            Size(change.old.bytes).to_string(),
            Size(change.new.bytes).to_string(),
        ]
    });
    out.push_str(&Table { columns: &COLUMNS, rows: rows.collect() }.render(look.width, look.styles));
    if list.len() > look.top {
        writeln!(out, "  … and {} more (--json has all)", list.len() - look.top)
            .expect("writing into a String cannot fail");
    }
}

fn percent(change: &Change) -> String {
    match change.percent() {
        None => "new".to_owned(),
        Some(_) if change.new == Traffic::default() => "gone".to_owned(),
        Some(percent) => format!("{percent:+.0} %"),
    }
}

/// One object with all changes.
pub fn json(old: &Snapshot, new: &Snapshot, changes: &Changes, question: &Question<'_>) -> String {
    super::json::text(&value(old, new, changes, question)) + "\n"
}

/// The same before it is text.
pub fn value(old: &Snapshot, new: &Snapshot, changes: &Changes, question: &Question<'_>) -> Json {
    let list = |list: &[Change]| list.iter().map(change_json).collect::<Vec<_>>();
    let mut json = json!({
        "v": VERSION,
        "type": "diff",
        "old": session_json(&old.session),
        "new": session_json(&new.session),
        "threshold_percent": question.threshold,
        "least_change": LEAST_CHANGE,
        "least_bytes": LEAST_BYTES,
        "differs": !changes.is_empty(),
        "new_domains": list(&changes.new_domains),
        "removed_domains": list(&changes.removed_domains),
        "changed_domains": list(&changes.changed_domains),
        "new_processes": list(&changes.new_processes),
        "provider_changes": list(&changes.providers),
    });
    if let Some(filter) = question.filter {
        json["filter"] = json!({ "expression": filter.text(), "read_events": old.read_events });
    }
    json
}

fn session_json(session: &StoredSession) -> Json {
    let mut json = json!({ "run_id": session.run_id, "started_at": timestamp_millis(session.started_at) });
    if let Some(name) = &session.name {
        json["name"] = name.as_str().into();
    }
    json
}

fn change_json(change: &Change) -> Json {
    let Change { name, old, new } = change;
    let mut json = json!({
        "name": name,
        "old": old.connects,
        "new": new.connects,
        "old_fails": old.fails,
        "new_fails": new.fails,
        "old_bytes": old.bytes,
        "new_bytes": new.bytes,
    });
    if let Some(percent) = change.percent() {
        json["percent"] = ((percent * 10.0).round() / 10.0).into();
    }
    json
}
