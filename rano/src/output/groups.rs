//! `rano report --by domain`, `endpoint`, `process`, `class` and `hour`.

use serde_json::Value as Json;

use super::details::{times, with_port};
use super::human::{Size, timestamp_millis};
use super::report::{Look, heading, more, sessions, table};
use super::report_json::{counts_json, object, rows_json};
use super::table::{Align, Column, bar, grouped};
use crate::event::DomainSource;
use crate::store::query::groups::{Group, GroupRow};
use crate::store::query::report::{Report, Top};

/// Blocks of the longest bar.
const BAR: usize = 16;

/// `running`: run ids of the sessions that go on.
pub fn text(
    report: &Report,
    running: &[String],
    group: Group,
    found: &Top<GroupRow>,
    look: &Look<'_>,
) -> String {
    let mut out = String::new();
    sessions(&mut out, report, running, look);
    heading(&mut out, look, &more(title(group), found.all, found.rows.len()));
    let times = times(report);
    let most = found.rows.iter().map(|row| row.counts.bytes_sent).max().unwrap_or(0);
    let moment = |unix_ms: Option<i64>| unix_ms.map_or_else(String::new, |at| look.moment(at, &times));
    let rows = found.rows.iter().map(|row| {
        let counts = &row.counts;
        let mut cells = vec![match group {
            Group::Hour => row.first_seen.map_or_else(String::new, |hour| look.time(hour)),
            Group::Domain | Group::Endpoint | Group::Process | Group::Class => label(row),
        }];
        cells.extend([
            marks(row).to_owned(),
            Size(counts.bytes_sent).to_string(),
            bar(counts.bytes_sent, most, BAR),
            Size(counts.bytes_received).to_string(),
            grouped(counts.connects),
            if counts.fails > 0 { grouped(counts.fails) } else { String::new() },
        ]);
        cells.push(agents(row));
        if matches!(group, Group::Domain | Group::Endpoint) {
            cells.push(row.class.unwrap_or_default().to_owned());
        } else {
            cells.push(String::new());
        }
        cells.extend(match group {
            Group::Hour => [String::new(), String::new()],
            _ => [moment(row.first_seen), moment(row.last_seen)],
        });
        cells.push(row.cmdline.clone().unwrap_or_default());
        cells
    });
    let columns: [Column; 12] = [
        (word(group), if group == Group::Hour { Align::Left } else { Align::Cut }),
        ("", Align::Left),
        ("sent", Align::Right),
        ("", Align::Bar),
        ("received", Align::Right),
        ("count", Align::Right),
        ("fails", Align::Right),
        ("agent", Align::Cut),
        ("class", Align::Left),
        ("first", Align::Left),
        ("last", Align::Left),
        ("command line", Align::Cut),
    ];
    table(&mut out, &columns, rows.collect(), look);
    out
}

const fn title(group: Group) -> &'static str {
    match group {
        Group::Domain => "Domains",
        Group::Endpoint => "Endpoints",
        Group::Process => "Processes",
        Group::Class => "Classes",
        Group::Hour => "Hours",
    }
}

/// As the option and JSON have it.
pub const fn word(group: Group) -> &'static str {
    match group {
        Group::Domain => "domain",
        Group::Endpoint => "endpoint",
        Group::Process => "process",
        Group::Class => "class",
        Group::Hour => "hour",
    }
}

fn label(row: &GroupRow) -> String {
    if let Some(pid) = row.pid {
        return format!("{}({pid})", row.label);
    }
    let is_guess = row.is_named && row.known_by.iter().all(|by| by == DomainSource::Ptr.name());
    with_port(&row.label, row.port, is_guess)
}

fn agents(row: &GroupRow) -> String {
    let names = row.agents.iter().map(String::as_str).collect::<Vec<_>>().join(",");
    match row.agent_pid {
        Some(pid) => format!("{names}({pid})"),
        None => names,
    }
}

fn marks(row: &GroupRow) -> &'static str {
    match (row.alerts > 0, row.is_new) {
        (true, true) => "! new",
        (true, false) => "!",
        (false, true) => "new",
        (false, false) => "",
    }
}

/// One object with `domains`, `endpoints`, `processes`, `classes` or `hours`; what is not known is left out.
pub fn json(report: &Report, running: &[String], group: Group, found: &Top<GroupRow>) -> String {
    let rows = found.rows.iter().map(|row| row_json(row, group)).collect();
    rows_json(report, running, (word(group), &title(group).to_ascii_lowercase()), (rows, found.all))
}

fn row_json(row: &GroupRow, group: Group) -> Json {
    let time = |unix_ms: Option<i64>| -> Json { unix_ms.map(timestamp_millis).into() };
    let is_endpoint = matches!(group, Group::Domain | Group::Endpoint);
    let mut json = match group {
        Group::Hour => object(&[("hour", time(row.first_seen))]),
        Group::Class => object(&[("class", row.label.as_str().into())]),
        Group::Process => object(&[
            ("run_id", row.run_id.as_deref().into()),
            ("program", row.label.as_str().into()),
            ("pid", row.pid.into()),
            ("agent_pid", row.agent_pid.into()),
            ("cmdline", row.cmdline.as_deref().into()),
        ]),
        Group::Domain | Group::Endpoint => object(&[
            ("endpoint", row.label.as_str().into()),
            ("domain", row.is_named.then_some(row.label.as_str()).into()),
            ("port", row.port.into()),
            ("proto", row.protocol.as_deref().into()),
            ("class", row.class.into()),
        ]),
    };
    if group != Group::Hour {
        json["agents"] = row.agents.iter().map(String::as_str).collect::<Vec<_>>().into();
        for (name, at) in [("first_seen", row.first_seen), ("last_seen", row.last_seen)] {
            if at.is_some() {
                json[name] = time(at);
            }
        }
    }
    if is_endpoint {
        json["domain_sources"] = row.known_by.iter().map(String::as_str).collect::<Vec<_>>().into();
        json["alerts"] = row.alerts.into();
        json["new"] = row.is_new.into();
    }
    if let Some(json) = json.as_object_mut() {
        let counts = counts_json(&row.counts).into_iter();
        json.extend(counts.filter(|(name, _)| name != "accepts" && name != "listens"));
    }
    json
}
