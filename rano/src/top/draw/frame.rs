//! What stands above and below the lists: the session, the views, what is typed, the keys.

use ratatui_core::layout::Rect;

use super::paint::{Canvas, Piece};
use super::span;
use crate::output::human::{Size, timestamp_seconds};
use crate::output::report;
use crate::output::style::Paint;
use crate::output::table::grouped;
use crate::top::state::endpoints::EndpointBy;
use crate::top::state::tree::TreeBy;
use crate::top::state::{Focus, Popup, Purpose, Session, State, View};

pub(super) fn head(canvas: &mut Canvas<'_>, area: Rect, state: &State) {
    let line = |y| Rect { y: area.y + y, height: 1, ..area };
    let pieces = first(canvas, state);
    canvas.line(line(0), &pieces);
    if area.height > 2 {
        let pieces = second(canvas, state);
        canvas.line(line(1), &pieces);
    }
    if area.height > 1 {
        views(canvas, line(area.height - 1), state);
    }
}

/// How it stands now.
fn first(canvas: &Canvas<'_>, state: &State) -> Vec<Piece> {
    let styles = &canvas.styles;
    let mut pieces = vec![Piece::new("rano", styles.heading), Piece::plain("  ")];
    if state.is_paused {
        pieces.push(Piece::new("PAUSED  ", styles.warning));
    }
    let Some(session) = &state.session else {
        let why = state.trouble.as_deref().unwrap_or("no session yet");
        pieces.push(Piece::new(why, styles.warning));
        return pieces;
    };
    let Session { stored, is_running, .. } = session;
    let (word, paint): (_, Paint) = match (is_running, stored.clean_exit) {
        (true, _) => ("● live".to_owned(), styles.connect.into()),
        (false, true) => (format!("○ ended {}", timestamp_seconds(state.now)), styles.dim.into()),
        (false, false) => (format!("○ unclean end {}", timestamp_seconds(state.now)), styles.warning.into()),
    };
    pieces.push(Piece::new(word, paint));
    pieces.push(Piece::plain(format!("  {}", stored.source)));
    let up = state.now.saturating_sub(stored.started_at);
    pieces.push(Piece::plain(match (*is_running, up) {
        // It is not drawn anew each second.
        (true, ..60_000) => "  up <1m".to_owned(),
        (true, _) => format!("  up {}", span(up)),
        // A recording may end before it was played.
        (false, ..=0) => String::new(),
        (false, _) => format!("  lasted {}", span(up)),
    }));
    pieces.push(Piece::plain(format!("  active {} (peak {})", stored.active, stored.peak_active)));
    if *is_running {
        let (sent, received) = state.connections.rates(state.now);
        pieces.push(Piece::plain(format!("  sent {}/s  received {}/s", Size(sent), Size(received))));
    }
    if let Some(name) = &stored.name {
        pieces.push(Piece::new(format!("  {name}"), styles.name));
    }
    pieces
}

/// What it came to, and what was missed.
fn second(canvas: &Canvas<'_>, state: &State) -> Vec<Piece> {
    let styles = &canvas.styles;
    let Some(Session { stored, counts, .. }) = &state.session else { return Vec::new() };
    let mut pieces = vec![Piece::plain(format!("connects {}", grouped(counts.connects)))];
    if counts.fails > 0 {
        pieces.push(Piece::new(format!("  failed {}", grouped(counts.fails)), styles.fail));
    }
    pieces.push(Piece::plain(format!(
        "  sent {}  received {}",
        Size(counts.bytes_sent),
        Size(counts.bytes_received)
    )));
    if stored.alerts > 0 {
        pieces.push(Piece::new(format!("  alerts {}", grouped(stored.alerts)), styles.critical));
    }
    let mut gaps = stored.gaps.present().peekable();
    if let Some(trouble) = &state.trouble {
        pieces.push(Piece::new(format!("  {trouble}"), styles.warning));
    } else if gaps.peek().is_some() {
        let missed: Vec<_> =
            gaps.map(|(gap, count)| format!("{} {}", grouped(count), gap.name().replace('_', " "))).collect();
        pieces.push(Piece::new(format!("  missed: {}", missed.join(", ")), styles.warning));
    } else {
        let watched = report::watched(std::slice::from_ref(stored));
        let watched = watched.as_deref().unwrap_or("nothing missed of what this source sees");
        pieces.push(Piece::new(format!("  {watched}"), styles.dim));
    }
    pieces
}

fn views(canvas: &mut Canvas<'_>, line: Rect, state: &State) {
    let mut pieces = Vec::new();
    let active = Paint { bold: true, inverted: true, ..Paint::default() };
    for (number, view) in (1..).zip(View::ALL) {
        let count = match view {
            View::Alerts if !state.findings.is_empty() => format!(" {}", state.findings.len()),
            View::Tree | View::Endpoints | View::Connections | View::Alerts => String::new(),
        };
        let is_urgent = view == View::Alerts && state.findings.iter().any(|finding| finding.kind == "alert");
        let has_title = line.width >= 60 || view == state.view;
        let title = if has_title { format!(" {}", view.title()) } else { String::new() };
        let text = format!(" {number}{title}{count} ");
        let paint = match (view == state.view, is_urgent) {
            (true, _) => active,
            (false, true) => canvas.styles.fail.into(),
            (false, false) => Paint::default(),
        };
        pieces.push(Piece { text, paint });
    }
    let used = canvas.line(line, &pieces);
    let mut notes = Vec::new();
    if let Some(filter) = &state.filter {
        notes.push(format!("filter {}", filter.text()));
    }
    if let Some(scope) = state.scope.as_ref().filter(|_| state.view == View::Connections) {
        notes.push(format!("to {}", crate::event::with_port(&scope.name, scope.port)));
    }
    if let Some(node) = state.tree_cursor.selected.and_then(|id| state.tree.node(id))
        && matches!(state.view, View::Tree | View::Connections)
    {
        notes.push(format!("of {}", node.key.label()));
    }
    if state.only_new {
        notes.push("new only".to_owned());
    }
    match (state.view, state.focus) {
        (View::Tree, Focus::Main) if state.tree_by == TreeBy::Provider => {
            notes.push("by provider".to_owned());
        }
        (View::Tree | View::Endpoints, _) if state.endpoint_by != EndpointBy::Name => {
            notes.push(format!("by {}", state.endpoint_by.word()));
        }
        _ => {}
    }
    let order = if state.is_reversed[state.order_index()] { "↑" } else { "↓" };
    notes.push(format!("{}{order}", state.order_word()));
    if state.is_partial() {
        notes.push(format!("latest {}", grouped(state.connections.rows().len() as u64)));
    }
    let rest = Rect { x: line.x + used, width: line.width - used, ..line };
    let mut text = notes.join(" · ");
    if text.chars().count() > usize::from(rest.width.saturating_sub(1)) {
        text = crate::output::escape::cut(
            &crate::output::escape::Line(&text).to_string(),
            rest.width.saturating_sub(1).into(),
        );
    }
    let dim = canvas.styles.dim;
    canvas.line_at_right(rest, &[Piece::new(text, dim)]);
}

pub(super) fn foot(canvas: &mut Canvas<'_>, line: Rect, state: &State) {
    let styles = canvas.styles;
    if let Some(input) = &state.input {
        let prompt = match input.purpose {
            Purpose::Filter => "filter: ",
            Purpose::Export => "export to (.csv or .jsonl): ",
            Purpose::Report => "write the report to: ",
        };
        let error = input.error.as_deref().map(|error| format!("   {error}")).unwrap_or_default();
        // The end of a long text is what is being typed.
        let room = usize::from(line.width).saturating_sub(prompt.len() + 1).max(8);
        let skipped = input.text.chars().count().saturating_sub(room);
        let text: String = input.text.chars().skip(skipped).collect();
        let cursor = Paint { inverted: true, ..Paint::default() };
        let pieces = [
            Piece::new(prompt, styles.heading),
            Piece::plain(text),
            Piece { text: " ".to_owned(), paint: cursor },
            Piece::new(error, styles.fail),
        ];
        canvas.line(line, &pieces);
        return;
    }
    if let Some(message) = &state.message {
        canvas.line(line, &[Piece::new(message.as_str(), styles.warning)]);
        return;
    }
    let keys = match (&state.popup, state.view) {
        (Some(Popup::Help | Popup::Rule(_)), _) => "Esc close  ↑↓ scroll",
        (Some(Popup::Detail(_)), _) => "Esc close  ↑↓ scroll  y allow rule",
        (None, View::Tree) => {
            "? help  / filter  ↑↓←→ move, fold  Enter open  s sort  g group  Tab pane  q quit"
        }
        (None, View::Endpoints) => {
            "? help  / filter  ↑↓ move  Enter connections  s sort  g group  y allow rule  q quit"
        }
        (None, View::Connections) => {
            "? help  / filter  ↑↓ move  Enter detail  s sort  y allow rule  e export  q quit"
        }
        (None, View::Alerts) => {
            "? help  / filter  ↑↓ move  Enter detail  y allow rule  w write report  q quit"
        }
    };
    canvas.line(line, &[Piece::new(keys, styles.dim)]);
}
