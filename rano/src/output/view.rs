//! What `rano serve` answers and an HTML report holds, as JSON.

use std::io;

use serde_json::{Map, Value as Json, json};

use super::export::JsonLines;
use super::human::{Size, timestamp_millis};
use super::report::{Ending, gaps, watched};
use super::report_json::{self, counts_json, object, session_json};
use super::table::grouped;
use crate::attention::{self, Cause, Facts};
use crate::event::Class;
use crate::store::History;
use crate::store::query::connections::{ConnectionRow, Connections, Owned};
use crate::store::query::export::{self, Cell, ExportError, FIELDS, Field, Kind, RowWriter};
use crate::store::query::paths::{PathRow, Paths};
use crate::store::query::report::{Counts, Report, Selection};
use crate::store::query::sessions::StoredSession;
use crate::store::query::timeline::Timeline;

/// Of each kind of finding so many are told one by one.
const FINDINGS_MAX: usize = 8;

/// Of a report's connections: with the rest it stays below 5 MB.
const ROWS_BYTES: usize = 4_000_000;

/// A list of sessions; `running`: run ids of those that go on.
pub fn sessions(sessions: &[(StoredSession, Option<Counts>)], running: &[String]) -> Json {
    let rows = sessions.iter().map(|(session, counts)| {
        let mut row = session_json(session, running);
        row["ending"] = Ending::of(session, running).word().into();
        if let (Some(counts), Some(row)) = (counts, row.as_object_mut()) {
            row.extend(counts_json(counts));
        }
        row
    });
    rows.collect::<Vec<_>>().into()
}

/// The ways of the map.
pub fn graph(paths: &Paths) -> Json {
    let rows =
        paths.rows.iter().map(|path| {
            let PathRow {
                provider,
                agent,
                tool,
                process,
                class,
                endpoint,
                is_named,
                known_by,
                protocol,
                counts,
            } = path;
            let mut row = counts_json(counts);
            for (name, text) in
                [("provider", provider), ("class", class), ("endpoint", endpoint), ("proto", protocol)]
            {
                row.insert(name.to_owned(), text.as_str().into());
            }
            row.insert("process".to_owned(), process.as_deref().unwrap_or("unknown").into());
            for (name, text) in [("agent", agent), ("tool", tool)] {
                if let Some(text) = text {
                    row.insert(name.to_owned(), text.as_str().into());
                }
            }
            row.insert("named".to_owned(), (*is_named).into());
            row.insert("domain_source".to_owned(), known_by.as_deref().unwrap_or("none").into());
            Json::Object(row)
        });
    let others = paths.others.iter().map(|(provider, class, counts)| {
        let mut row = counts_json(counts);
        row.insert("provider".to_owned(), provider.as_str().into());
        row.insert("class".to_owned(), class.as_str().into());
        Json::Object(row)
    });
    json!({
        "paths": rows.collect::<Vec<_>>(),
        "all": paths.all,
        "others": others.collect::<Vec<_>>(),
        "read_events": paths.read_events,
    })
}

/// Columns over time.
fn timeline(timeline: &Timeline) -> Json {
    let classes: Map<String, Json> = timeline
        .classes
        .iter()
        .map(|(class, parts)| {
            let (connects, bytes): (Vec<_>, Vec<_>) = parts.iter().copied().unzip();
            (class.clone(), json!({ "connects": connects, "bytes": bytes }))
        })
        .collect();
    json!({
        "from": timestamp_millis(timeline.from),
        "step_ms": timeline.step,
        "parts": timeline.parts,
        "classes": classes,
    })
}

/// The list under the map.
pub fn connections(connections: &Connections) -> Json {
    json!({
        "connections": connections.rows.iter().map(connection).collect::<Vec<_>>(),
        "before": connections.before,
    })
}

fn connection(row: &ConnectionRow) -> Json {
    let cells = FIELDS.iter().zip(&row.cells).filter_map(|(field, cell)| {
        let value = match (cell, field.kind) {
            (Owned::Null, _) => return None,
            (Owned::Integer(number), Kind::Time) => timestamp_millis(*number).into(),
            (Owned::Integer(number), Kind::Truth) => (*number != 0).into(),
            (Owned::Integer(number), _) => (*number).into(),
            (Owned::Text(text), _) => text.as_str().into(),
        };
        Some((field.name.to_owned(), value))
    });
    let mut fields: Map<String, Json> = cells.collect();
    fields.insert("standing".to_owned(), row.standing.word().into());
    fields.insert("alert".to_owned(), row.alert.into());
    if row.accepted {
        fields.insert("accepted".to_owned(), true.into());
    }
    let ended = |name: &str| match FIELDS.iter().position(|field| field.name == name).map(|at| &row.cells[at])
    {
        Some(Owned::Integer(number)) => Some(*number),
        _ => None,
    };
    // Where its beginning was not among what was read.
    let began = || Some(ended("ts")?.saturating_sub(ended("duration_ms")?));
    if let Some(at) = row.opened_at.or_else(began) {
        fields.insert("opened_at".to_owned(), timestamp_millis(at).into());
    }
    Json::Object(fields)
}

/// Events as JSON objects.
#[derive(Debug, Default)]
pub struct Events {
    /// Members of an array, without its brackets, on one line.
    pub text: String,
    pub count: u64,
    /// Id of the last one.
    pub last: Option<i64>,
    /// Ids of those with a name.
    pub named: Vec<i64>,
    /// Of those without, whose name may become known yet.
    pub nameless: Vec<i64>,
}

/// Those that `filter` lets through.
pub fn events(history: &History, filter: &export::Filter) -> Result<Events, ExportError> {
    let fields: Vec<_> = FIELDS.iter().collect();
    let mut bytes = Vec::new();
    let mut rows =
        Watching { lines: JsonLines::new(&mut bytes), events: Events::default(), id: 0, named: false };
    let count = history.export(filter, &fields, &mut rows, |_| {})?;
    let Watching { lines, events, .. } = rows;
    lines.finish()?;
    let text = String::from_utf8_lossy(&bytes).trim_end().replace('\n', ",");
    Ok(Events { text, count, ..events })
}

/// Lines, and a look at what passes.
struct Watching<W: io::Write> {
    lines: JsonLines<W>,
    events: Events,
    id: i64,
    named: bool,
}

impl<W: io::Write> RowWriter for Watching<W> {
    fn cell(&mut self, field: &Field, cell: Cell<'_>) -> io::Result<()> {
        match (field.name, cell) {
            ("id", Cell::Integer(id)) => self.id = id,
            ("domain", Cell::Text(_)) => self.named = true,
            _ => {}
        }
        self.lines.cell(field, cell)
    }

    fn end_row(&mut self) -> io::Result<()> {
        self.events.last = Some(self.id);
        let is_named = std::mem::take(&mut self.named);
        if is_named { &mut self.events.named } else { &mut self.events.nameless }.push(self.id);
        self.lines.end_row()
    }
}

/// How long the parts of a snapshot may be.
#[derive(Debug, Clone, Copy)]
pub struct Lengths {
    /// Lines of a ranking.
    pub top: u32,
    /// Ways of the map.
    pub paths: usize,
    /// Columns of the time strip, about.
    pub parts: u32,
}

/// Sums, findings, map and time strip of what is selected; `None` where a session was named that is not there.
pub fn snapshot(
    history: &History,
    selection: &Selection,
    running: &[String],
    lengths: &Lengths,
    now: i64,
) -> rusqlite::Result<Option<Json>> {
    let Some(mut found) = history.report(selection, lengths.top)? else { return Ok(None) };
    for session in found.sessions.iter_mut().filter(|session| running.contains(&session.run_id)) {
        session.running_at = Some(now);
    }
    let paths = history.paths(&found.sessions, selection, lengths.paths)?;
    let strip = history.timeline(&found.sessions, selection, lengths.parts, now)?;
    Ok(Some(json!({
        "v": 1,
        "now": timestamp_millis(now),
        "report": report_json::value(&found, running),
        "findings": findings(&found, &paths, running),
        "completeness": completeness(&found),
        "timeline": timeline(&strip),
        "graph": graph(&paths),
    })))
}

/// A report as a page shows it: `list` has its connections, `hash` says of which file it is.
pub fn report_page(mut snapshot: Json, list: &[Connections], hash: &str) -> Json {
    let report = snapshot["report"].take();
    let text = |pointer: &str| report.pointer(pointer).and_then(Json::as_str).unwrap_or_default().to_owned();
    let number = |pointer: &str| report.pointer(pointer).and_then(Json::as_u64).unwrap_or(0);
    let mut seen = rustc_hash::FxHashSet::default();
    let mut rows: Vec<Json> = Vec::new();
    let mut size = 0;
    for row in list.iter().flat_map(|list| &list.rows).map(connection) {
        if seen.insert(row["id"].as_i64()) {
            size += row.to_string().len();
            if size > ROWS_BYTES {
                break;
            }
            rows.push(row);
        }
    }
    let all = number("/summary/connects") + number("/summary/fails");
    let is_cut = all > rows.len() as u64;
    let findings = snapshot["findings"].as_array().map_or(0, Vec::len);
    let is_complete = report.pointer("/completeness/complete").and_then(Json::as_bool) == Some(true);
    let plural = |count: u64, one: &str, many: &str| {
        format!("{} {}", grouped(count), if count == 1 { one } else { many })
    };
    let verdict = format!(
        "{} to {}; {} sent, {} received. {} {}",
        plural(all, "connection", "connections"),
        plural(number("/domains"), "name", "names"),
        Size(number("/summary/bytes_sent")),
        Size(number("/summary/bytes_recv")),
        match findings {
            0 => "Nothing asks to be looked at.".to_owned(),
            1 => "One thing asks to be looked at.".to_owned(),
            more => format!("{more} things ask to be looked at."),
        },
        if is_complete { "Nothing was missed." } else { "Something may be missing: see Completeness." },
    );
    let about = match report["session"].as_object() {
        Some(_) => format!(
            "Session {} of {} on {}, watched by {} from {}. Report made {} by rano {}.",
            text("/session/run_id"),
            text("/session/user"),
            text("/session/host"),
            text("/session/source"),
            text("/session/started_at"),
            snapshot["now"].as_str().unwrap_or_default(),
            env!("CARGO_PKG_VERSION"),
        ),
        None => format!(
            "Report made {} by rano {}.",
            snapshot["now"].as_str().unwrap_or_default(),
            env!("CARGO_PKG_VERSION")
        ),
    };
    snapshot["report"] = report;
    json!({
        "snapshot": snapshot,
        "connections": { "connections": rows, "before": Json::Null },
        "more": if is_cut { Json::from(all) } else { Json::Null },
        "verdict": verdict,
        "about": about,
        "hash": hash,
    })
}

/// What to look at first, the gravest first. Each has a `kind`; `filter` selects its events.
fn findings(report: &Report, paths: &Paths, running: &[String]) -> Json {
    let mut found = Vec::new();
    let alerts: u64 = report.sessions.iter().map(|session| session.alerts).sum();
    if alerts > 0 {
        found.push(json!({ "kind": "alerts", "count": alerts, "filter": "alert:true" }));
    }
    let of = |kind: &str, path: &PathRow| {
        let mut row = counts_json(&path.counts);
        row.insert("kind".to_owned(), kind.into());
        row.insert("provider".to_owned(), path.provider.as_str().into());
        row.insert("process".to_owned(), path.process.as_deref().unwrap_or("unknown").into());
        if let Some(tool) = &path.tool {
            row.insert("tool".to_owned(), tool.as_str().into());
        }
        row.insert("endpoint".to_owned(), path.endpoint.as_str().into());
        row.insert("class".to_owned(), path.class.as_str().into());
        row.insert("filter".to_owned(), path_filter(path).into());
        Json::Object(row)
    };
    let list = |kind: &'static str, wanted: &dyn Fn(&PathRow) -> bool| {
        let mut rows: Vec<_> = paths.rows.iter().filter(|path| wanted(path)).collect();
        rows.sort_by_key(|path| std::cmp::Reverse((path.counts.bytes_sent, path.counts.fails)));
        rows.into_iter().take(FINDINGS_MAX).map(|path| of(kind, path)).collect::<Vec<_>>()
    };
    let causes = |path: &PathRow| {
        attention::causes(&Facts {
            class: Class::parse(&path.class).unwrap_or_default(),
            connects: path.counts.connects,
            fails: path.counts.fails,
            bytes_sent: path.counts.bytes_sent,
            ..Facts::default()
        })
    };
    // Each path once: under the first of these.
    let kinds = [Cause::Unknown, Cause::Sent, Cause::Failing];
    for kind in kinds {
        let is_it = |path: &PathRow| {
            let causes = causes(path);
            kinds.into_iter().find(|kind| causes.contains(kind)) == Some(kind)
        };
        found.extend(list(kind.name(), &is_it));
    }
    for session in &report.sessions {
        if Ending::of(session, running) == Ending::Unclean {
            found.push(json!({ "kind": "unclean", "run_id": session.run_id }));
        }
    }
    for (gap, count) in gaps(&report.sessions).present() {
        found.push(json!({ "kind": "missed", "gap": gap.name(), "count": count, "meaning": gap.meaning() }));
    }
    found.into()
}

/// One sentence on what was watched and missed.
fn completeness(report: &Report) -> Json {
    let gaps = gaps(&report.sessions);
    let complete = gaps.present().next().is_none();
    object(&[
        ("complete", complete.into()),
        ("watched", watched(&report.sessions).filter(|_| complete).into()),
    ])
}

/// In the filter language.
fn path_filter(path: &PathRow) -> String {
    let endpoint = match (path.is_named, path.protocol.as_str()) {
        (true, _) => format!("domain:{}", quoted(&path.endpoint)),
        (false, "unix") => quoted(&path.endpoint),
        (false, _) => format!("ip:{}", path.endpoint),
    };
    match &path.process {
        Some(process) => format!("{endpoint} process:{}", quoted(process)),
        None => endpoint,
    }
}

/// A text that means itself in a filter, as the page writes it too.
fn quoted(text: &str) -> String {
    if !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(&byte)) {
        return text.to_owned();
    }
    format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\""))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::filter::Filter;

    #[test]
    fn any_text_can_stand_in_a_filter() {
        for text in ["curl", "a b", "say \"hi\"", "back\\slash", "a|b)", "*", "ünï\u{202e}"] {
            let filter = Filter::parse(&format!("process:{}", quoted(text)));
            assert!(filter.is_ok(), "{text:?}: {filter:?}");
        }
    }
}
