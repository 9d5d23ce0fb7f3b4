//! The screen, from the state. Text is shaped here as in `output`; it reaches the screen through `paint` alone.

mod details;
mod frame;
mod lists;
mod paint;

use std::time::Duration;

use ratatui_core::buffer::Buffer;
use ratatui_core::layout::Rect;

use super::state::{Focus, Popup, State, View};
use crate::output::human::Span;
use crate::output::style::Styles;
use paint::Canvas;

/// Columns from which the endpoints stand beside the tree.
const BESIDE_FROM: u16 = 100;

/// A frame without its colours, a line a row: for tests, and for pictures of text.
pub fn text(state: &mut State, width: u16, height: u16) -> String {
    use unicode_width::UnicodeWidthStr as _;
    let mut buffer = Buffer::empty(Rect::new(0, 0, width, height));
    draw(state, &mut buffer, Styles::PLAIN);
    let mut text = String::new();
    for row in buffer.content().chunks(usize::from(width.max(1))) {
        let mut line = String::new();
        // What a wide character covers says nothing.
        let mut covered = 0;
        for cell in row {
            if covered == 0 {
                line.push_str(cell.symbol());
                covered = cell.symbol().width().max(1);
            }
            covered -= 1;
        }
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}

/// Milliseconds in a few columns.
fn span(millis: i64) -> Span {
    Span(Duration::from_millis(u64::try_from(millis).unwrap_or(0)))
}

/// Draws all of it.
pub fn draw(state: &mut State, buffer: &mut Buffer, styles: Styles) {
    let area = buffer.area;
    if area.is_empty() {
        return;
    }
    let mut canvas = Canvas::new(buffer, styles);
    if area.width < 16 || area.height < 3 {
        canvas.write(area.x, area.y, area.width, "rano", styles.heading.into());
        return;
    }
    let head = match area.height {
        0..=7 => 1,
        8..=11 => 2,
        _ => 3,
    };
    let events = match area.height {
        0..=15 => 0,
        16..=19 => 4,
        20..=39 => 6,
        _ => 10,
    };
    frame::head(&mut canvas, Rect { height: head, ..area }, state);
    let body = Rect { y: area.y + head, height: area.height - head - events - 1, ..area };
    // Without room of their own, the events take the place of the list.
    if events == 0 && state.focus == Focus::Events {
        lists::events(&mut canvas, body, state);
    } else {
        main(&mut canvas, body, state);
        if events > 0 {
            lists::events(&mut canvas, Rect { y: body.bottom(), height: events, ..area }, state);
        }
    }
    frame::foot(&mut canvas, Rect { y: area.bottom() - 1, height: 1, ..area }, state);
    let body = Rect { height: body.height + events, ..body };
    match state.popup.clone() {
        Some(Popup::Help) => details::help(&mut canvas, body, state),
        Some(Popup::Detail(id)) => details::connection(&mut canvas, body, state, id),
        Some(Popup::Rule(rule)) => details::rule(&mut canvas, body, state, &rule),
        None => {}
    }
}

fn main(canvas: &mut Canvas<'_>, body: Rect, state: &mut State) {
    match state.view {
        View::Tree if body.width >= BESIDE_FROM => {
            let left = body.width * 2 / 5;
            let beside = Rect { x: body.x + left + 1, width: body.width - left - 1, ..body };
            lists::tree(canvas, Rect { width: left, ..body }, state);
            lists::endpoints(canvas, beside, state);
        }
        View::Tree if state.focus == Focus::Beside => lists::endpoints(canvas, body, state),
        View::Tree => lists::tree(canvas, body, state),
        View::Endpoints => lists::endpoints(canvas, body, state),
        View::Connections => lists::connections(canvas, body, state),
        View::Alerts => lists::findings(canvas, body, state),
    }
}
