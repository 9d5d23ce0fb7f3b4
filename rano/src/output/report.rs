//! `rano report` as text and as JSON.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use serde_json::{Map, Value as Json, json};

use super::escape::{Escaped, Line};
use super::event_json::VERSION;
use super::fold::wrapped;
use super::human::{Size, timestamp_millis, timestamp_seconds};
use super::style::Styles;
use super::table::{Align, Column, Table, bar, grouped};
use crate::event::DomainSource;
use crate::event::SourceKind;
use crate::filter::Filter;
use crate::health::{Gap, Gaps, UNSEEN, Watched};
use crate::process::LeftOut;
use crate::store::query::report::{Counts, DomainRow, IpRow, Report, Top};
use crate::store::query::sessions::StoredSession;

/// Blocks of the longest bar.
const BAR: usize = 16;

/// How the text is to look.
#[derive(Debug, Clone, Copy)]
pub struct Look<'a> {
    pub styles: &'a Styles,
    /// Columns of the terminal; wide where there is none.
    pub width: usize,
    /// Length of each list.
    pub top: usize,
}

/// How a session ended, if it did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ending {
    Clean,
    Running,
    Unclean,
}

impl Ending {
    pub(super) fn of(session: &StoredSession, running: &[String]) -> Self {
        if session.clean_exit {
            Self::Clean
        } else if running.contains(&session.run_id) {
            Self::Running
        } else {
            Self::Unclean
        }
    }

    pub(super) const fn word(self) -> &'static str {
        match self {
            Self::Clean => "clean",
            Self::Running => "running",
            Self::Unclean => "unclean",
        }
    }
}

/// `running`: run ids of the sessions that go on.
pub fn text(report: &Report, running: &[String], look: &Look<'_>) -> String {
    let mut out = String::new();
    sessions(&mut out, report, running, look);
    summary(&mut out, report, look);
    providers(&mut out, &report.providers, look);
    domains(&mut out, &report.domains, look);
    ips(&mut out, &report.ips, look);
    completeness(&mut out, report, look);
    out
}

pub(super) fn heading(out: &mut String, look: &Look<'_>, text: &str) {
    let paint = look.styles.heading;
    let gap = if out.is_empty() { "" } else { "\n" };
    writeln!(out, "{gap}{paint}{text}{paint:#}").expect("writing into a String cannot fail");
}

fn line(out: &mut String, name: &str, value: &str) {
    writeln!(out, "  {name:10}{value}").expect("writing into a String cannot fail");
}

/// With what does not fit on lines of its own.
fn long_line(out: &mut String, name: &str, value: &str, look: &Look<'_>) {
    let names = std::iter::once(name).chain(std::iter::repeat(""));
    for (name, value) in names.zip(wrapped(value, look.width.saturating_sub(12))) {
        line(out, name, &value);
    }
}

pub(super) fn sessions(out: &mut String, report: &Report, running: &[String], look: &Look<'_>) {
    let selection = &report.selection;
    if selection.since.is_some() || selection.until.is_some() {
        heading(out, look, "Range");
        line(out, "from", &selection.since.map_or_else(|| "the beginning".to_owned(), timestamp_seconds));
        line(out, "until", &selection.until.map_or_else(|| "now".to_owned(), timestamp_seconds));
    }
    if let Some(asked) = &selection.filter {
        filter(out, asked, report.read_events, look);
    }
    match report.sessions.as_slice() {
        [] => {
            heading(out, look, "Session");
            out.push_str("  none\n");
        }
        [session] => one_session(out, session, Ending::of(session, running), look),
        many => session_list(out, many, running, look),
    }
}

/// What was asked for, and whether it took reading every event.
pub(super) fn filter(out: &mut String, filter: &Filter, read_events: bool, look: &Look<'_>) {
    heading(out, look, "Filter");
    long_line(out, "only", &Line(filter.text()).to_string(), look);
    if read_events {
        let how = "event by event; sums are kept by domain, ip, type, protocol and provider alone";
        long_line(out, "counted", how, look);
    }
}

fn one_session(out: &mut String, session: &StoredSession, ending: Ending, look: &Look<'_>) {
    heading(out, look, "Session");
    line(out, "run id", &Escaped(&session.run_id).to_string());
    if let Some(name) = &session.name {
        line(out, "name", &Escaped(name).to_string());
    }
    line(out, "start", &timestamp_seconds(session.started_at));
    match (ending, session.end()) {
        (Ending::Running, _) => line(out, "end", "still running"),
        (_, Some(end)) if session.ended_at.is_some() => line(out, "end", &timestamp_seconds(end)),
        (_, Some(end)) => line(out, "end", &format!("{} (its last event)", timestamp_seconds(end))),
        (_, None) => line(out, "end", "unknown"),
    }
    if let Some(end) = session.end() {
        line(out, "duration", &duration(end - session.started_at));
    }
    line(out, "host", &Escaped(&session.host).to_string());
    line(out, "user", &Escaped(&session.user).to_string());
    long_line(out, "patterns", &Escaped(&session.patterns.join(", ")).to_string(), look);
    if !session.excludes.is_empty() {
        long_line(out, "excluded", &Escaped(&session.excludes.join(", ")).to_string(), look);
    }
    line(out, "source", &Escaped(&session.source).to_string());
    let warning = look.styles.warning;
    match ending {
        Ending::Clean => line(out, "exit", "clean"),
        Ending::Running => line(out, "exit", "running"),
        Ending::Unclean => {
            line(
                out,
                "exit",
                &format!("{warning}not clean{warning:#}: rano was killed or the machine stopped"),
            );
        }
    }
}

fn session_list(out: &mut String, sessions: &[StoredSession], running: &[String], look: &Look<'_>) {
    const COLUMNS: [Column; 6] = [
        ("run id", Align::Left),
        ("name", Align::Cut),
        ("start", Align::Left),
        ("duration", Align::Right),
        ("exit", Align::Left),
        ("source", Align::Left),
    ];
    let title = more("Sessions", sessions.len() as u64, look.top.min(sessions.len()));
    heading(out, look, &title);
    let rows = sessions.iter().rev().take(look.top).map(|session| {
        vec![
            session.run_id.clone(),
            session.name.clone().unwrap_or_default(),
            timestamp_seconds(session.started_at),
            session.end().map_or_else(String::new, |end| duration(end - session.started_at)),
            Ending::of(session, running).word().to_owned(),
            session.source.clone(),
        ]
    });
    out.push_str(&Table { columns: &COLUMNS, rows: rows.collect() }.render(look.width, look.styles));
}

fn summary(out: &mut String, report: &Report, look: &Look<'_>) {
    let totals = &report.totals;
    heading(out, look, "Summary");
    line(out, "events", &grouped(totals.events()));
    line(out, "connects", &grouped(totals.connects));
    line(out, "closes", &grouped(totals.closes));
    let fail = if totals.fails > 0 { look.styles.fail } else { Styles::PLAIN.fail };
    line(out, "fails", &format!("{fail}{}{fail:#}", grouped(totals.fails)));
    for (name, count) in [("accepts", totals.accepts), ("listens", totals.listens)] {
        if count > 0 {
            line(out, name, &grouped(count));
        }
    }
    let active = match report.active {
        0 => "0".to_owned(),
        open => format!("{} still open, bytes so far", grouped(open)),
    };
    line(out, "active", &active);
    let away = report.away;
    line(out, "sent", &Size(away.bytes_sent).to_string());
    line(out, "received", &Size(away.bytes_received).to_string());
    let traffic = |of: &Counts| format!("sent {}, received {}", Size(of.bytes_sent), Size(of.bytes_received));
    if (report.loopback.bytes_sent, report.loopback.bytes_received) != (0, 0) {
        line(out, "loopback", &traffic(&report.loopback));
    }
    if report.lookups.connects > 0 {
        line(out, "look-ups", &format!("{}, {}", grouped(report.lookups.connects), traffic(&report.lookups)));
    }
    line(out, "alerts", &grouped(alerts(report)));
}

/// Alerts are counted by session, not by hour.
fn alerts(report: &Report) -> u64 {
    report.sessions.iter().map(|session| session.alerts).sum()
}

fn providers(out: &mut String, providers: &[(String, Counts)], look: &Look<'_>) {
    const COLUMNS: [Column; 6] = [
        ("provider", Align::Cut),
        ("events", Align::Right),
        ("connections", Align::Right),
        ("", Align::Bar),
        ("sent", Align::Right),
        ("received", Align::Right),
    ];
    heading(out, look, "Providers");
    let most = providers.iter().map(|(_, counts)| counts.connects).max().unwrap_or(0);
    let rows = providers.iter().map(|(provider, counts)| {
        vec![
            provider.clone(),
            grouped(counts.events()),
            grouped(counts.connects),
            bar(counts.connects, most, BAR),
            Size(counts.bytes_sent).to_string(),
            Size(counts.bytes_received).to_string(),
        ]
    });
    table(out, &COLUMNS, rows.collect(), look);
}

fn domains(out: &mut String, domains: &Top<DomainRow>, look: &Look<'_>) {
    const COLUMNS: [Column; 9] = [
        ("count", Align::Right),
        ("fails", Align::Right),
        ("", Align::Bar),
        ("domain", Align::Cut),
        ("sent", Align::Right),
        ("received", Align::Right),
        ("provider", Align::Cut),
        ("class", Align::Left),
        ("known by", Align::Cut),
    ];
    heading(out, look, &more("Top Domains", domains.all, domains.rows.len()));
    let most = domains.rows.iter().map(|row| row.counts.connects).max().unwrap_or(0);
    let rows = domains.rows.iter().map(|row| {
        let mut cells = ranked(&row.counts, most);
        // What is known by the address alone.
        let is_guess =
            |by: &String| DomainSource::ALL.iter().any(|source| source.is_guess() && source.name() == by);
        let guess = if !row.known_by.is_empty() && row.known_by.iter().all(is_guess) { "~" } else { "" };
        cells.insert(3, format!("{guess}{}", row.domain));
        cells.extend([
            row.providers.join(","),
            row.class.clone().unwrap_or_default(),
            row.known_by.join(","),
        ]);
        cells
    });
    table(out, &COLUMNS, rows.collect(), look);
}

fn ips(out: &mut String, ips: &Top<IpRow>, look: &Look<'_>) {
    const COLUMNS: [Column; 7] = [
        ("count", Align::Right),
        ("fails", Align::Right),
        ("", Align::Bar),
        ("address", Align::Left),
        ("sent", Align::Right),
        ("received", Align::Right),
        ("name", Align::Cut),
    ];
    heading(out, look, &more("Top IPs", ips.all, ips.rows.len()));
    let most = ips.rows.iter().map(|row| row.counts.connects).max().unwrap_or(0);
    let rows = ips.rows.iter().map(|row| {
        let mut cells = ranked(&row.counts, most);
        cells.insert(3, row.ip.clone());
        let guess = if row.is_guess { "~" } else { "" };
        cells.push(row.name.as_ref().map_or_else(String::new, |name| format!("{guess}{name}")));
        cells
    });
    table(out, &COLUMNS, rows.collect(), look);
}

/// Count, fails, bar, sent, received.
fn ranked(counts: &Counts, most: u64) -> Vec<String> {
    vec![
        grouped(counts.connects),
        if counts.fails > 0 { grouped(counts.fails) } else { String::new() },
        bar(counts.connects, most, BAR),
        Size(counts.bytes_sent).to_string(),
        Size(counts.bytes_received).to_string(),
    ]
}

pub(super) fn table(out: &mut String, columns: &[Column], rows: Vec<Vec<String>>, look: &Look<'_>) {
    if rows.is_empty() {
        out.push_str("  none\n");
    }
    out.push_str(&Table { columns, rows }.render(look.width, look.styles));
}

/// `Top IPs (10 of 432)`.
pub(super) fn more(title: &str, all: u64, shown: usize) -> String {
    if all > shown as u64 { format!("{title} ({shown} of {})", grouped(all)) } else { title.to_owned() }
}

fn completeness(out: &mut String, report: &Report, look: &Look<'_>) {
    heading(out, look, "Completeness");
    for (source, reason) in sources(&report.sessions) {
        match reason {
            Some(reason) => {
                long_line(out, "source", &format!("{} ({})", Escaped(source), Escaped(reason)), look);
            }
            None => line(out, "source", &Escaped(source).to_string()),
        }
    }
    if report.sessions.iter().any(|session| !session.excludes.is_empty()) {
        long_line(out, "left out", &excluded(&report.sessions), look);
    }
    if report.sessions.len() > 1 && report.selection.since.or(report.selection.until).is_some() {
        out.push_str("  counted over the whole of each session:\n");
    }
    let gaps = gaps(&report.sessions);
    let warning = look.styles.warning;
    for (gap, count) in gaps.present() {
        let count = grouped(count);
        let painted = format!("{warning}{count}{warning:#}");
        let lines = wrapped(&format!("{count} {}", gap.meaning()), look.width.saturating_sub(4));
        for (place, line) in lines.iter().enumerate() {
            let indent = if place == 0 { "  " } else { "    " };
            let line = if place == 0 { line.replacen(&count, &painted, 1) } else { line.clone() };
            writeln!(out, "{indent}{line}").expect("writing into a String cannot fail");
        }
    }
    if gaps.present().next().is_none() {
        if report.sessions.is_empty() {
            out.push_str("  nothing observed\n");
        } else if let Some(watched) = watched(&report.sessions) {
            for (place, line) in wrapped(&watched, look.width.saturating_sub(4)).iter().enumerate() {
                writeln!(out, "{}{line}", if place == 0 { "  " } else { "    " }).expect("it is a String");
            }
        }
    }
}

/// That nothing was missed, and of what; `None` where a source could not see some transport of its kernel.
pub(super) fn watched(sessions: &[StoredSession]) -> Option<String> {
    let mut common: Option<Watched> = None;
    for session in sessions {
        let reason = session.source_reason.as_deref().unwrap_or_default();
        if reason.contains(UNSEEN) {
            return None;
        }
        let kind = SourceKind::ALL.into_iter().find(|kind| kind.name() == session.source)?;
        let one = Watched::recorded(kind, session.user == "root", reason);
        match &mut common {
            Some(common) => {
                common.transports.retain(|word| one.transports.contains(word));
                common.views.extend(one.views);
                common.views.sort_unstable();
                common.views.dedup();
            }
            None => common = Some(one),
        }
    }
    common.map(|common| format!("nothing missed ({common})"))
}

fn sources(sessions: &[StoredSession]) -> Vec<(&str, Option<&str>)> {
    let mut sources: Vec<_> =
        sessions.iter().map(|session| (session.source.as_str(), session.source_reason.as_deref())).collect();
    sources.sort_unstable();
    sources.dedup();
    sources
}

/// What all of them left out, and by what.
fn excluded(sessions: &[StoredSession]) -> String {
    let mut sum = LeftOut::default();
    let mut excludes: Vec<&str> = Vec::new();
    for session in sessions {
        sum.processes = sum.processes.saturating_add(session.left_out.processes);
        sum.connections = sum.connections.saturating_add(session.left_out.connections);
        excludes.extend(session.excludes.iter().map(String::as_str));
    }
    excludes.sort_unstable();
    excludes.dedup();
    format!("{sum} (excluded: {})", Escaped(&excludes.join(", ")))
}

pub(super) fn gaps(sessions: &[StoredSession]) -> Gaps {
    let mut all = Gaps::default();
    for session in sessions {
        for gap in Gap::ALL {
            all.set(gap, all.get(gap).saturating_add(session.gaps.get(gap)));
        }
    }
    all
}

/// `2d 3h`, `3h 5m`, `5m 7s`, `7s`, `0.250s`.
fn duration(millis: i64) -> String {
    let millis = millis.max(0);
    let seconds = millis / 1000;
    match (seconds / 86_400, seconds / 3600 % 24, seconds / 60 % 60, seconds % 60) {
        (0, 0, 0, 0) => format!("0.{millis:03}s"),
        (0, 0, 0, seconds) => format!("{seconds}s"),
        (0, 0, minutes, seconds) => format!("{minutes}m {seconds}s"),
        (0, hours, minutes, _) => format!("{hours}h {minutes}m"),
        (days, hours, ..) => format!("{days}d {hours}h"),
    }
}

/// One object; what is not known is left out.
pub fn json(report: &Report, running: &[String]) -> String {
    super::json::text(&value(report, running)) + "\n"
}

/// The same before it is text.
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
    let range = object(&[
        ("since", report.selection.since.map(timestamp_millis).into()),
        ("until", report.selection.until.map(timestamp_millis).into()),
    ]);
    let mut json = json!({
        "v": VERSION,
        "type": "report",
        "range": range,
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

#[cfg(test)]
mod tests {
    use super::duration;

    #[test]
    fn durations_have_two_units() {
        for (millis, expected) in [
            (-5, "0.000s"),
            (250, "0.250s"),
            (7_900, "7s"),
            (307_000, "5m 7s"),
            (11_100_000, "3h 5m"),
            (183_600_000, "2d 3h"),
        ] {
            assert_eq!(duration(millis), expected);
        }
    }
}
