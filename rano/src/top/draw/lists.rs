//! The lists: tree, endpoints, connections, what deserves a look, events.

use ratatui_core::layout::Rect;

use super::paint::{Canvas, Column, Piece};
use super::span;
use crate::attention::Cause;
use crate::event::{Class, EventKind};
use crate::output::human::{Size, timestamp_seconds};
use crate::output::style::Paint;
use crate::store::query::connections::Standing;
use crate::top::state::connections::Connection;
use crate::top::state::endpoints::{Endpoint, EndpointBy};
use crate::top::state::event::StoredEvent;
use crate::top::state::{Focus, State, View, event_sign, process};

/// Rows below the titles.
fn height(area: Rect) -> usize {
    usize::from(area.height.saturating_sub(1))
}

fn of_class(canvas: &Canvas<'_>, class: Option<Class>) -> Paint {
    canvas.styles.class(class.unwrap_or(Class::Unknown)).into()
}

/// What is shown where a list is empty.
fn empty(canvas: &mut Canvas<'_>, area: Rect, text: &str) {
    let line = Rect { x: area.x + 1, y: area.y + 1, width: area.width.saturating_sub(1), height: 1 };
    let dim = canvas.styles.dim;
    if area.height > 1 {
        canvas.line(line, &[Piece::new(text, dim)]);
    }
}

fn rate(bytes: u64) -> String {
    if bytes == 0 { String::new() } else { format!("{}/s", Size(bytes)) }
}

pub(super) fn tree(canvas: &mut Canvas<'_>, area: Rect, state: &mut State) {
    const COLUMNS: [Column; 4] = [
        Column::wide("agent, tool call, process", 12, 1),
        Column::left("", 8).from(56),
        Column::right("rate", 11).from(44),
        Column::right("open/all", 9),
    ];
    let items: Vec<_> = state.tree_lines.iter().map(|line| line.node).collect();
    state.tree_cursor.place(&items, height(area));
    let has_focus = state.focus == Focus::Main;
    let (styles, now) = (canvas.styles, state.now);
    let rows = state.tree_lines.iter().skip(state.tree_cursor.offset).filter_map(|line| {
        let node = state.tree.node(line.node)?;
        let sums = &node.sums;
        let fold = match (node.has_children(), node.is_folded) {
            (true, true) => "▸ ",
            (true, false) => "▾ ",
            (false, _) => "  ",
        };
        let label = format!("{}{fold}{}", "  ".repeat(line.depth), state.tree.label(line.node));
        let paint: Paint = match (line.depth, sums.alerts > 0) {
            (_, true) => styles.critical.into(),
            (0, false) => styles.provider.into(),
            (_, false) => Paint::default(),
        };
        let mark = if sums.alerts > 0 { " !" } else { "" };
        let cells = vec![
            Piece { text: label + mark, paint },
            Piece::new(sums.recent.line(now), styles.bar),
            Piece::plain(rate(sums.recent.per_second(now))),
            Piece::plain(format!("{}/{}", sums.open, sums.total)),
        ];
        Some((cells, state.tree_cursor.selected == Some(line.node)))
    });
    canvas.table(area, &COLUMNS, rows, has_focus);
    if state.tree_lines.is_empty() {
        empty(canvas, area, nothing(state));
    }
}

fn nothing(state: &State) -> &'static str {
    match (&state.filter, state.only_new) {
        (Some(_), _) => "nothing fits the filter",
        (None, true) => "nothing that is new",
        (None, false) => "no connection yet",
    }
}

pub(super) fn endpoints(canvas: &mut Canvas<'_>, area: Rect, state: &mut State) {
    const COLUMNS: [Column; 9] = [
        Column::left("class", 9).from(40),
        Column::wide("endpoint", 12, 3),
        Column::right("open/all", 9),
        Column::right("failed", 6).from(88),
        Column::right("sent", 10),
        Column::right("received", 10).from(50),
        Column::right("age", 6).from(76),
        Column::left("new", 3).from(60),
        Column::wide("last by", 10, 1).from(110),
    ];
    let items: Vec<_> = state.endpoints.iter().map(|endpoint| endpoint.key.clone()).collect();
    state.endpoint_cursor.place(&items, height(area));
    let has_focus =
        state.focus == Focus::Beside || state.focus == Focus::Main && state.view == View::Endpoints;
    let (styles, now) = (canvas.styles, state.now);
    let paints: Vec<Paint> =
        state.endpoints.iter().map(|endpoint| of_class(canvas, Some(endpoint.key.class))).collect();
    let first = state.endpoint_cursor.offset;
    let rows = state.endpoints.iter().zip(paints).skip(first).map(|(endpoint, paint)| {
        let Endpoint { key, is_new, sums, last_by, .. } = endpoint;
        let label =
            if state.endpoint_by == EndpointBy::Class { key.name.to_string() } else { endpoint.label() };
        let fails = if sums.fails > 0 { sums.fails.to_string() } else { String::new() };
        let cells = vec![
            Piece { text: key.class.name().to_owned(), paint },
            Piece { text: label, paint },
            Piece::plain(format!("{}/{}", sums.open, sums.total)),
            Piece::new(fails, styles.fail),
            Piece::plain(if sums.has_bytes { Size(sums.sent).to_string() } else { String::new() }),
            Piece::plain(if sums.has_bytes { Size(sums.received).to_string() } else { String::new() }),
            Piece::plain(span(now.saturating_sub(sums.first_at)).to_string()),
            Piece::new(if *is_new { "new" } else { "" }, styles.warning),
            Piece::plain(last_by.to_string()),
        ];
        (cells, state.endpoint_cursor.selected.as_ref() == Some(key))
    });
    canvas.table(area, &COLUMNS, rows, has_focus);
    if state.endpoints.is_empty() {
        empty(canvas, area, nothing(state));
    }
}

pub(super) fn connections(canvas: &mut Canvas<'_>, area: Rect, state: &mut State) {
    const COLUMNS: [Column; 13] = [
        Column::left("opened", 8).from(60),
        Column::right("pid", 7).from(90),
        Column::wide("process", 10, 1),
        Column::left("proto", 5).from(90),
        Column::wide("endpoint", 14, 2),
        Column::left("class", 9).from(96),
        Column::left("state", 12).from(46),
        Column::right("sent", 10),
        Column::right("received", 10).from(52),
        Column::right("for", 6).from(86),
        Column::wide("agent", 10, 1).from(130),
        Column::wide("tool call", 10, 1).from(150),
        Column::left("local", 21).from(170),
    ];
    let items = state.listed_ids();
    state.connection_cursor.place(&items, height(area));
    let has_focus = state.focus == Focus::Main;
    let first = state.connection_cursor.offset;
    let shown = state.listed.iter().skip(first).take(height(area));
    let rows: Vec<_> = shown
        .map(|index| {
            let row = &state.connections.rows()[*index];
            (connection_cells(canvas, row, state.now), state.connection_cursor.selected == Some(row.id))
        })
        .collect();
    canvas.table(area, &COLUMNS, rows.into_iter(), has_focus);
    if state.listed.is_empty() {
        empty(canvas, area, nothing(state));
    }
}

/// The word for how it stands: the kernel's for an open one, the error's name for one that failed.
fn state_word(row: &Connection) -> String {
    let word = match row.standing {
        Standing::Failed => row.event.error.as_deref(),
        Standing::Open => row.event.state.as_deref(),
        Standing::Closed | Standing::Listening => None,
    };
    word.unwrap_or(row.standing.word()).to_owned()
}

fn connection_cells(canvas: &Canvas<'_>, row: &Connection, now: i64) -> Vec<Piece> {
    let styles = &canvas.styles;
    let event = &row.event;
    let paint = of_class(canvas, event.class);
    let standing: Paint = match row.standing {
        Standing::Open => styles.connect.into(),
        Standing::Failed => styles.fail.into(),
        Standing::Listening => styles.serving.into(),
        Standing::Closed => styles.dim.into(),
    };
    let (sent, received) = event.bytes();
    let known = |bytes: Option<i64>, count| bytes.map_or(String::new(), |_| Size(count).to_string());
    let mark = if row.alert { "! " } else { "" };
    let name = if row.accepted { format!("from {}", event.endpoint()) } else { event.endpoint() };
    let (local, port) = &event.local;
    let local = local.as_deref().map(|local| crate::event::with_port(local, *port));
    let agent = event.agent.as_deref().unwrap_or(&event.provider);
    vec![
        Piece::plain(clock(row.opened_at)),
        Piece::plain(event.pid.map(|pid| pid.to_string()).unwrap_or_default()),
        Piece::plain(event.process_name().as_ref()),
        Piece::plain(event.protocol.to_string()),
        Piece {
            text: format!("{mark}{name}"),
            paint: if row.alert { styles.critical.into() } else { paint },
        },
        Piece { text: event.class.unwrap_or(Class::Unknown).name().to_owned(), paint },
        Piece { text: state_word(row), paint: standing },
        Piece::plain(known(event.sent, sent)),
        Piece::plain(known(event.received, received)),
        Piece::plain(match row.duration(now) {
            0 => String::new(),
            duration => span(duration).to_string(),
        }),
        Piece::plain(agent),
        Piece::plain(event.tool.as_deref().unwrap_or_default()),
        Piece::plain(local.unwrap_or_default()),
    ]
}

/// Time of day, UTC.
fn clock(at: i64) -> String {
    timestamp_seconds(at).get(11..19).unwrap_or_default().to_owned()
}

pub(super) fn findings(canvas: &mut Canvas<'_>, area: Rect, state: &mut State) {
    const COLUMNS: [Column; 5] = [
        Column::left("time", 8).from(40),
        Column::left("why", 8),
        Column::wide("endpoint", 14, 2),
        Column::left("class", 9).from(70),
        Column::wide("process", 12, 1),
    ];
    let items: Vec<_> = state.findings.iter().map(|finding| finding.id.clone()).collect();
    state.finding_cursor.place(&items, height(area));
    let styles = canvas.styles;
    let rows: Vec<_> = state
        .findings
        .iter()
        .skip(state.finding_cursor.offset)
        .take(height(area))
        .map(|finding| {
            let paint = of_class(canvas, Some(finding.class));
            let why = if finding.kind == Cause::Unknown.name() { styles.warning } else { styles.critical };
            let cells = vec![
                Piece::plain(clock(finding.at)),
                Piece::new(finding.kind, why),
                Piece { text: finding.what.clone(), paint },
                Piece { text: finding.class.name().to_owned(), paint },
                Piece::plain(finding.who.as_str()),
            ];
            (cells, state.finding_cursor.selected.as_ref() == Some(&finding.id))
        })
        .collect();
    canvas.table(area, &COLUMNS, rows.into_iter(), state.focus == Focus::Main);
    if state.findings.is_empty() {
        let text = "no alert, no unknown endpoint, and none that only failed; --alert-domain and others ask for alerts";
        empty(canvas, area, text);
    }
}

pub(super) fn events(canvas: &mut Canvas<'_>, area: Rect, state: &State) {
    let styles = canvas.styles;
    let has_focus = state.focus == Focus::Events;
    let end = state.held_at.unwrap_or(state.events_end());
    let behind = state.events_end() - end;
    let note = if behind > 0 { format!(" {behind} below, f follows ") } else { String::new() };
    let title = format!(" Events{note} ");
    let bar = "─".repeat(usize::from(area.width));
    canvas.write(area.x, area.y, area.width, &bar, styles.dim.into());
    let paint = if has_focus {
        Paint { bold: true, inverted: true, ..Paint::default() }
    } else {
        styles.heading.into()
    };
    canvas.write(area.x + 1, area.y, area.width - 1, title.trim_end(), paint);
    let count = usize::try_from(end.saturating_sub(state.events_before)).unwrap_or(0).min(state.events.len());
    let first = count.saturating_sub(height(area));
    for (y, index) in (area.y + 1..area.bottom()).zip(first..count) {
        let line = Rect { y, height: 1, ..area };
        let pieces = event_line(canvas, &state.events[index], area.width);
        canvas.line(line, &pieces);
        if has_focus && index + 1 == count {
            canvas.invert(line);
        }
    }
}

fn event_line(canvas: &Canvas<'_>, event: &StoredEvent, width: u16) -> Vec<Piece> {
    let styles = &canvas.styles;
    let Some(kind) = event.kind else { return Vec::new() };
    let (sign, word) = event_sign(kind);
    let class = of_class(canvas, event.class);
    let mut pieces = vec![
        Piece::new(format!(" {} ", clock(event.at)), styles.dim),
        Piece::new(format!("{sign} {word:7} "), styles.event(kind)),
    ];
    if event.alert {
        pieces.push(Piece::new("alert ", styles.critical));
    }
    pieces.push(Piece::plain(format!("{} → ", process(event))));
    pieces.push(Piece { text: event.endpoint(), paint: class });
    if let Some(error) = &event.error {
        pieces.push(Piece::new(format!("  {error}"), styles.fail));
    }
    if matches!(kind, EventKind::Close) {
        let (sent, received) = event.bytes();
        let duration = event.duration.map(|ms| format!("  {}", span(ms))).unwrap_or_default();
        pieces.push(Piece::plain(format!("{duration}  ↑{} ↓{}", Size(sent), Size(received))));
    }
    if let Some(class) = event.class.filter(|_| width >= 100) {
        pieces.push(Piece::new(format!("  {}", class.name()), styles.dim));
    }
    if let Some(tool) = event.tool.as_ref().filter(|_| width >= 120) {
        pieces.push(Piece::new(format!("  {tool}"), styles.dim));
    }
    pieces
}
