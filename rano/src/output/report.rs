//! `rano report` as text and as JSON.

use std::fmt::Write as _;

use super::details;
use super::escape::{Escaped, Line};
use super::fold::wrapped;
use super::human::{Size, clock, day_and_clock, seconds_in};
use super::markdown;
use super::style::Styles;
use super::table::{Align, Column, Table, bar, grouped};
use jiff::tz::TimeZone;

use crate::event::DomainSource;
use crate::event::SourceKind;
use crate::filter::Filter;
use crate::health::{Gap, Gaps, UNSEEN, Watched};
use crate::process::LeftOut;
use crate::store::query::details::Details;
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
    /// Of the times that are shown.
    pub zone: &'a TimeZone,
    pub form: Form,
}

/// What the text is written for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    Terminal,
    Markdown,
}

impl Look<'_> {
    /// `2026-01-17T19:30:00Z`
    pub(super) fn time(&self, unix_ms: i64) -> String {
        seconds_in(unix_ms, self.zone)
    }

    /// The time of day, with the day if any of `times` is a day away.
    pub(super) fn moment(&self, unix_ms: i64, times: &[i64]) -> String {
        const DAY_MS: i64 = 86_400_000;
        let is_far = |time: &i64| time.abs_diff(unix_ms) >= DAY_MS.unsigned_abs();
        if times.iter().any(is_far) { day_and_clock(unix_ms, self.zone) } else { clock(unix_ms, self.zone) }
    }

    fn is_markdown(&self) -> bool {
        self.form == Form::Markdown
    }
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
pub fn text(report: &Report, details: &Details, running: &[String], look: &Look<'_>) -> String {
    let mut out = String::new();
    sessions(&mut out, report, running, look);
    details::look_at_these(&mut out, report, details, look);
    details::who_sent_what_where(&mut out, report, details, look);
    summary(&mut out, report, look);
    providers(&mut out, &report.providers, look);
    domains(&mut out, &report.domains, look);
    ips(&mut out, &report.ips, look);
    details::processes(&mut out, report, details, look);
    details::tool_calls(&mut out, details, look);
    details::alerts(&mut out, report, details, look);
    details::failures(&mut out, details, look);
    details::lookups(&mut out, details, look);
    completeness(&mut out, report, look);
    out
}

pub(super) fn heading(out: &mut String, look: &Look<'_>, text: &str) {
    let gap = if out.is_empty() { "" } else { "\n" };
    if look.is_markdown() {
        writeln!(out, "{gap}## {}", markdown::text(text)).expect("writing into a String cannot fail");
        return;
    }
    let paint = look.styles.heading;
    writeln!(out, "{gap}{paint}{text}{paint:#}").expect("writing into a String cannot fail");
}

fn line(out: &mut String, name: &str, value: &str, look: &Look<'_>) {
    if look.is_markdown() {
        bullet(out, format!("{name} {value}").trim(), look);
    } else {
        writeln!(out, "  {name:10}{value}").expect("writing into a String cannot fail");
    }
}

/// A line of its own, of text that is safe to show; what does not fit stands under it.
pub(super) fn bullet(out: &mut String, text: &str, look: &Look<'_>) {
    if look.is_markdown() {
        let gap = if out.ends_with("|\n") || is_after_heading(out) { "\n" } else { "" };
        writeln!(out, "{gap}- {}", markdown::text(text)).expect("writing into a String cannot fail");
        return;
    }
    for (place, line) in wrapped(text, look.width.saturating_sub(4)).iter().enumerate() {
        let indent = if place == 0 { "  " } else { "    " };
        writeln!(out, "{indent}{line}").expect("writing into a String cannot fail");
    }
}

fn is_after_heading(out: &str) -> bool {
    out.lines().next_back().is_some_and(|line| line.starts_with("## "))
}

/// With what does not fit on lines of its own.
fn long_line(out: &mut String, name: &str, value: &str, look: &Look<'_>) {
    if look.is_markdown() {
        return line(out, name, value, look);
    }
    let names = std::iter::once(name).chain(std::iter::repeat(""));
    for (name, value) in names.zip(wrapped(value, look.width.saturating_sub(12))) {
        line(out, name, &value, look);
    }
}

pub(super) fn sessions(out: &mut String, report: &Report, running: &[String], look: &Look<'_>) {
    let selection = &report.selection;
    if selection.since.is_some() || selection.until.is_some() {
        heading(out, look, "Range");
        line(
            out,
            "from",
            &selection.since.map_or_else(|| "the beginning".to_owned(), |since| look.time(since)),
            look,
        );
        line(out, "until", &selection.until.map_or_else(|| "now".to_owned(), |until| look.time(until)), look);
    }
    if let Some(asked) = &selection.filter {
        filter(out, asked, report.read_events, look);
    }
    match report.sessions.as_slice() {
        [] => {
            heading(out, look, "Session");
            bullet(out, "none", look);
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

/// Two lines, and a third of what was left out.
fn one_session(out: &mut String, session: &StoredSession, ending: Ending, look: &Look<'_>) {
    heading(out, look, "Session");
    let name = match &session.name {
        Some(name) => format!("{} ({})", Escaped(name), Escaped(&session.run_id)),
        None => Escaped(&session.run_id).to_string(),
    };
    let start = look.time(session.started_at);
    let took =
        session.end().map_or_else(String::new, |end| format!(", {}", duration(end - session.started_at)));
    let last = session.end().map_or_else(|| "an unknown end".to_owned(), |end| look.time(end));
    let warning = look.styles.warning;
    let span = match ending {
        Ending::Running => format!("{start} → now{took}, still running"),
        Ending::Clean => format!("{start} → {last}{took}, clean"),
        Ending::Unclean => format!(
            "{start} → {last} (its last event){took}, {warning}not clean{warning:#}: rano was killed or the machine stopped"
        ),
    };
    bullet(out, &format!("{name}  {span}"), look);
    let who = format!(
        "{} on {} by {}, source {}",
        Escaped(&some_of(&session.patterns)),
        Escaped(&session.host),
        Escaped(&session.user),
        Escaped(&session.source)
    );
    bullet(out, &who, look);
    if !session.excludes.is_empty() {
        bullet(out, &format!("excluded {}", Escaped(&session.excludes.join(", "))), look);
    }
}

/// The built-in agents are three dozen: the first of many stand for all.
fn some_of(patterns: &[String]) -> String {
    const SHOWN: usize = 3;
    match patterns.len() {
        0 => "no pattern".to_owned(),
        count if count <= SHOWN + 2 => patterns.join(", "),
        count => format!("{} and {} more", patterns[..SHOWN].join(", "), count - SHOWN),
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
            look.time(session.started_at),
            session.end().map_or_else(String::new, |end| duration(end - session.started_at)),
            Ending::of(session, running).word().to_owned(),
            session.source.clone(),
        ]
    });
    table(out, &COLUMNS, rows.collect(), look);
}

fn summary(out: &mut String, report: &Report, look: &Look<'_>) {
    let totals = &report.totals;
    heading(out, look, "Summary");
    line(out, "events", &grouped(totals.events()), look);
    line(out, "connects", &grouped(totals.connects), look);
    line(out, "closes", &grouped(totals.closes), look);
    let fail = if totals.fails > 0 { look.styles.fail } else { Styles::PLAIN.fail };
    line(out, "fails", &format!("{fail}{}{fail:#}", grouped(totals.fails)), look);
    for (name, count) in [("accepts", totals.accepts), ("listens", totals.listens)] {
        if count > 0 {
            line(out, name, &grouped(count), look);
        }
    }
    let active = match report.active {
        0 => "0".to_owned(),
        open => format!("{} still open, bytes so far", grouped(open)),
    };
    line(out, "active", &active, look);
    let away = report.away;
    line(out, "sent", &Size(away.bytes_sent).to_string(), look);
    line(out, "received", &Size(away.bytes_received).to_string(), look);
    let traffic = |of: &Counts| format!("sent {}, received {}", Size(of.bytes_sent), Size(of.bytes_received));
    if (report.loopback.bytes_sent, report.loopback.bytes_received) != (0, 0) {
        line(out, "loopback", &traffic(&report.loopback), look);
    }
    if report.lookups.connects > 0 {
        line(
            out,
            "look-ups",
            &format!("{}, {}", grouped(report.lookups.connects), traffic(&report.lookups)),
            look,
        );
    }
    line(out, "alerts", &grouped(alerts(report)), look);
}

/// Alerts are counted by session, not by hour.
pub(super) fn alerts(report: &Report) -> u64 {
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
        bullet(out, "none", look);
    } else if look.is_markdown() {
        out.push_str(&markdown::table(columns, &rows));
    } else {
        out.push_str(&Table { columns, rows }.render(look.width, look.styles));
    }
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
            None => line(out, "source", &Escaped(source).to_string(), look),
        }
    }
    if report.sessions.iter().any(|session| !session.excludes.is_empty()) {
        long_line(out, "left out", &excluded(&report.sessions), look);
    }
    if report.sessions.len() > 1 && report.selection.since.or(report.selection.until).is_some() {
        bullet(out, "counted over the whole of each session:", look);
    }
    let gaps = gaps(&report.sessions);
    let warning = look.styles.warning;
    for (gap, count) in gaps.present() {
        bullet(out, &format!("{warning}{}{warning:#} {}", grouped(count), gap.meaning()), look);
    }
    if gaps.present().next().is_none() {
        if report.sessions.is_empty() {
            bullet(out, "nothing observed", look);
        } else if let Some(watched) = watched(&report.sessions) {
            bullet(out, &watched, look);
        }
    }
}

/// That nothing was missed, and of what; `None` where a source could not see some transport of its kernel.
pub fn watched(sessions: &[StoredSession]) -> Option<String> {
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

pub(super) fn sources(sessions: &[StoredSession]) -> Vec<(&str, Option<&str>)> {
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
pub(super) fn duration(millis: i64) -> String {
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
