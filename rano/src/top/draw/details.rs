//! What covers the lists: help, all about a connection, a rule.

use ratatui_core::layout::Rect;
use unicode_width::{UnicodeWidthChar as _, UnicodeWidthStr as _};

use super::paint::{Canvas, Piece};
use super::span;
use crate::event::with_port;
use crate::output::escape::Line;
use crate::output::fold::wrapped;
use crate::output::human::{Size, timestamp_millis};
use crate::top::keys::HELP;
use crate::top::state::State;
use crate::top::state::connections::Connection;
use crate::top::state::event::Text;

/// Columns of the names.
const NAMES: usize = 14;

/// A box of at most `width` by `rows`, in the middle of `area`.
fn middle(area: Rect, width: u16, rows: usize) -> Rect {
    let width = width.min(area.width);
    let height = u16::try_from(rows + 2).unwrap_or(u16::MAX).min(area.height);
    Rect { x: area.x + (area.width - width) / 2, y: area.y + (area.height - height) / 2, width, height }
}

/// Columns of a box at most.
const WIDTH: u16 = 110;

/// Names, of so many columns, and values; a value that is too long goes on below.
fn list(
    canvas: &mut Canvas<'_>,
    area: Rect,
    state: &mut State,
    title: &str,
    (rows, names): (&[(&str, String)], usize),
) {
    let columns = usize::from(area.width.min(WIDTH).saturating_sub(4)).saturating_sub(names).max(8);
    let mut lines: Vec<(&str, String)> = Vec::new();
    for (name, value) in rows {
        for (index, part) in broken(value, columns).into_iter().enumerate() {
            lines.push((if index == 0 { *name } else { "" }, part));
        }
    }
    let longest = lines.iter().map(|(_, value)| value.width()).max().unwrap_or(0);
    let longest = longest.max(title.width().saturating_sub(names));
    let width = u16::try_from(longest + names + 4).unwrap_or(WIDTH);
    let inside = canvas.boxed(middle(area, width, lines.len()), title);
    let most = lines.len().saturating_sub(inside.height.into());
    state.popup_offset = state.popup_offset.min(most);
    let dim = canvas.styles.dim;
    for (y, (name, value)) in (inside.y..inside.bottom()).zip(lines.iter().skip(state.popup_offset)) {
        let line = Rect { y, height: 1, ..inside };
        canvas.line(line, &[Piece::new(format!("{name:names$}"), dim), Piece::plain(value.as_str())]);
    }
}

/// What is safe to show, in lines of so many columns.
fn broken(text: &str, columns: usize) -> Vec<String> {
    let mut lines = Vec::new();
    for line in wrapped(&Line(text).to_string(), columns) {
        // A word that is longer than a line is broken anywhere.
        let (mut part, mut used) = (String::new(), 0);
        for character in line.chars() {
            let width = character.width().unwrap_or(0);
            if used + width > columns {
                lines.push(std::mem::take(&mut part));
                used = 0;
            }
            used += width;
            part.push(character);
        }
        lines.push(part);
    }
    lines
}

pub(super) fn help(canvas: &mut Canvas<'_>, area: Rect, state: &mut State) {
    let mut rows: Vec<(&str, String)> =
        HELP.iter().map(|(keys, meaning)| (*keys, (*meaning).to_owned())).collect();
    rows.push(("", String::new()));
    rows.push(("~ name", "a guess, from a reverse look-up or another process's question".to_owned()));
    rows.push(("rate", "bytes a second, the average of the last 16 seconds".to_owned()));
    rows.push(("new", "in no earlier session of this history".to_owned()));
    list(canvas, area, state, "Keys", (&rows, NAMES));
}

pub(super) fn rule(canvas: &mut Canvas<'_>, area: Rect, state: &mut State, rule: &str) {
    let mut rows: Vec<(&str, String)> = rule.lines().map(|line| ("", line.to_owned())).collect();
    rows.push(("", String::new()));
    rows.push(("", "Copied, if your terminal lets programs write its clipboard (OSC 52).".to_owned()));
    list(canvas, area, state, "A rule that allows it", (&rows, 0));
}

pub(super) fn connection(canvas: &mut Canvas<'_>, area: Rect, state: &mut State, id: i64) {
    let Some(row) = state.connections.by_id(id) else {
        state.popup = None;
        return;
    };
    let title = row.event.endpoint();
    let rows = facts(row, state.now);
    list(canvas, area, state, &title, (&rows, NAMES));
}

/// Everything that is known, in the order in which it is asked.
fn facts(row: &Connection, now: i64) -> Vec<(&'static str, String)> {
    let event = &row.event;
    let mut facts: Vec<(&'static str, String)> = Vec::new();
    let mut add = |name, value: Option<String>| facts.extend(value.map(|value| (name, value)));
    let text = |text: &Option<Text>| text.as_deref().map(str::to_owned);
    let place =
        |(host, port): &(Option<Text>, Option<i64>)| host.as_deref().map(|host| with_port(host, *port));
    add("standing", Some(row.standing.word().to_owned()));
    add("error", text(&event.error));
    add("state", text(&event.state));
    add("alert", row.alert.then(|| "it raised an alert".to_owned()));
    add("name", text(&event.domain));
    add("known by", text(&event.domain_source).map(|source| source_meaning(&source)));
    add("via", text(&event.via));
    add("relay for", event.relay_for.map(|pid| format!("pid {pid}, whose request it carries on")));
    add("class", event.class.map(|class| class.name().to_owned()));
    add("protocol", Some(event.protocol.to_string()));
    add("remote", place(&event.remote));
    add("local", place(&event.local));
    add("direction", row.accepted.then(|| "accepted here".to_owned()));
    let opened = timestamp_millis(row.opened_at);
    add("opened", Some(if event.preexisting { format!("before {opened}") } else { opened }));
    add("ended", row.ended_at.map(timestamp_millis));
    add("for", Some(span(row.duration(now)).to_string()));
    let (sent, received) = event.bytes();
    let bytes = |known: Option<i64>, count: u64| match known {
        Some(_) if count >= 1024 => format!("{} ({count} bytes)", Size(count)),
        Some(_) => Size(count).to_string(),
        None => "not known".to_owned(),
    };
    add("sent", Some(bytes(event.sent, sent)));
    add("received", Some(bytes(event.received, received)));
    add("process", Some(crate::top::state::process(event)));
    add("command name", (event.comm != *event.process_name()).then(|| event.comm.to_string()));
    add("command line", text(&event.cmdline));
    add("executable", text(&event.exe));
    add("directory", text(&event.cwd));
    add("user", event.uid.map(|uid| uid.to_string()));
    add("parent", event.ppid.map(|pid| pid.to_string()));
    add("ancestry", event.ancestry.as_deref().map(ancestry));
    let with = |name: Option<String>, pid: Option<i64>| match (name, pid) {
        (Some(name), Some(pid)) => Some(format!("{name} ({pid})")),
        (name, _) => name,
    };
    add("agent", with(text(&event.agent), event.agent_pid));
    add("agent session", text(&event.agent_session));
    add("tool call", with(text(&event.tool), event.tool_pid));
    add("tool began", event.tool_started.map(timestamp_millis));
    add("provider", Some(event.provider.to_string()));
    add("owner known", text(&event.quality));
    add("seen by", text(&event.source));
    add("namespace", event.netns.map(|netns| netns.to_string()));
    facts
}

/// `init:1,bash:1700` as `init(1) → bash(1700)`. In a name `,` `:` `%` are percent-encoded.
fn ancestry(path: &str) -> String {
    let step = |step: &str| match step.rsplit_once(':') {
        Some((name, pid)) => {
            let name = name.replace("%2C", ",").replace("%3A", ":").replace("%25", "%");
            format!("{name}({pid})")
        }
        None => step.to_owned(),
    };
    path.split(',').map(step).collect::<Vec<_>>().join(" → ")
}

/// Where a name comes from, in words.
fn source_meaning(source: &str) -> String {
    let meaning = match source {
        "sni" => "the TLS handshake",
        "quic" => "the QUIC handshake",
        "proxy" => "the request to the proxy",
        "dns" => "the process's own DNS look-up",
        "asked" => "the process's own question, asked again by rano",
        "ech_outer" => "the outer name of an encrypted handshake",
        "shared_dns" => "another process's DNS look-up: a guess",
        "ptr" => "a reverse look-up: a guess",
        "none" => return "no name is known".to_owned(),
        _ => return source.to_owned(),
    };
    format!("{source}: {meaning}")
}
