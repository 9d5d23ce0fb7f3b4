//! `rano sessions` as text and as JSON.

use std::path::PathBuf;

use serde_json::{Value as Json, json};

use super::event_json::VERSION;
use super::human::Size;
use super::report::{Ending, Look, duration, gaps, heading, more, table};
use super::report_json::{counts_json, session_json};
use super::table::{Align, Column, grouped};
use crate::store::query::report::Counts;
use crate::store::query::sessions::StoredSession;

/// A session, and the file that it is in.
#[derive(Debug, Clone)]
pub struct Listed {
    pub session: StoredSession,
    pub counts: Counts,
    /// Agents, else providers.
    pub agents: Vec<String>,
    pub file: PathBuf,
}

const COLUMNS: [Column; 9] = [
    ("session", Align::Cut),
    ("started", Align::Left),
    ("duration", Align::Right),
    ("count", Align::Right),
    ("sent", Align::Right),
    ("record", Align::Left),
    ("agents", Align::Cut),
    ("run id", Align::Left),
    ("file", Align::Cut),
];

/// The latest first; `all` is how many there are. `running`: run ids of those that go on.
pub fn text(listed: &[Listed], all: u64, running: &[String], look: &Look<'_>) -> String {
    let mut out = String::new();
    heading(&mut out, look, &more("Sessions", all, listed.len()));
    let rows = listed.iter().map(|listed| {
        let Listed { session, counts, agents, file } = listed;
        vec![
            session.name.clone().unwrap_or_else(|| session.run_id.clone()),
            look.time(session.started_at),
            session.end().map_or_else(String::new, |end| duration(end - session.started_at)),
            grouped(counts.connects),
            Size(counts.bytes_sent).to_string(),
            record(session, running).to_owned(),
            agents.join(","),
            session.run_id.clone(),
            file.display().to_string(),
        ]
    });
    table(&mut out, &COLUMNS, rows.collect(), look);
    out
}

/// Whether the record is whole.
fn record(session: &StoredSession, running: &[String]) -> &'static str {
    match Ending::of(session, running) {
        Ending::Running => "running",
        Ending::Unclean => "not clean",
        Ending::Clean if has_gaps(session) => "gaps",
        Ending::Clean => "complete",
    }
}

fn has_gaps(session: &StoredSession) -> bool {
    gaps(std::slice::from_ref(session)).present().next().is_some()
}

/// One object with `sessions`; what is not known is left out.
pub fn json(listed: &[Listed], all: u64, running: &[String]) -> String {
    let rows = listed.iter().map(|listed| {
        let Listed { session, counts, agents, file } = listed;
        let mut row = session_json(session, running);
        row["agents"] = agents.clone().into();
        row["record"] = record(session, running).into();
        row["complete"] = (Ending::of(session, running) == Ending::Clean && !has_gaps(session)).into();
        row["file"] = file.display().to_string().into();
        if let Some(row) = row.as_object_mut() {
            row.extend(counts_json(counts));
        }
        row
    });
    let rows: Vec<Json> = rows.collect();
    super::json::text(&json!({ "v": VERSION, "type": "sessions", "all": all, "sessions": rows })) + "\n"
}
