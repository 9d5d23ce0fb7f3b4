//! The only way to the cells of the screen: every text is escaped and cut to its columns here.

use ratatui_core::buffer::Buffer;
use ratatui_core::layout::Rect;
use ratatui_core::style::{Color, Modifier, Style};

use crate::output::escape::{Line, cut};
use crate::output::style::{Paint, Styles};

/// A screen that is being drawn.
pub(super) struct Canvas<'a> {
    buffer: &'a mut Buffer,
    pub(super) styles: Styles,
}

/// A text with its colours.
#[derive(Debug, Clone, Default)]
pub(super) struct Piece {
    pub(super) text: String,
    pub(super) paint: Paint,
}

impl Piece {
    pub(super) fn plain(text: impl Into<String>) -> Self {
        Self { text: text.into(), paint: Paint::default() }
    }

    pub(super) fn new(text: impl Into<String>, paint: impl Into<Paint>) -> Self {
        Self { text: text.into(), paint: paint.into() }
    }
}

/// A column of a table.
pub(super) struct Column {
    pub(super) title: &'static str,
    pub(super) width: u16,
    /// Its share of the room that is left.
    pub(super) share: u16,
    pub(super) is_right: bool,
    /// Columns that the table must have for this one to be there.
    pub(super) from: u16,
}

impl Column {
    pub(super) const fn left(title: &'static str, width: u16) -> Self {
        Self { title, width, share: 0, is_right: false, from: 0 }
    }

    pub(super) const fn right(title: &'static str, width: u16) -> Self {
        Self { is_right: true, ..Self::left(title, width) }
    }

    pub(super) const fn wide(title: &'static str, width: u16, share: u16) -> Self {
        Self { share, ..Self::left(title, width) }
    }

    pub(super) const fn from(self, from: u16) -> Self {
        Self { from, ..self }
    }
}

impl<'a> Canvas<'a> {
    pub(super) fn new(buffer: &'a mut Buffer, styles: Styles) -> Self {
        Self { buffer, styles }
    }

    /// Writes into at most `width` columns, and returns how many it took.
    pub(super) fn write(&mut self, x: u16, y: u16, width: u16, text: &str, paint: Paint) -> u16 {
        let text = cut(&Line(text).to_string(), width.into());
        let (end, _) = self.buffer.set_stringn(x, y, text, width.into(), style(paint));
        end.saturating_sub(x)
    }

    /// Writes one after the other, for as long as there is room.
    pub(super) fn line(&mut self, area: Rect, pieces: &[Piece]) -> u16 {
        let mut used = 0;
        for Piece { text, paint } in pieces {
            used += self.write(area.x + used, area.y, area.width - used, text, *paint);
        }
        used
    }

    /// The same at the right end; what has no room there is not written.
    pub(super) fn line_at_right(&mut self, area: Rect, pieces: &[Piece]) {
        let width = |piece: &Piece| ratatui_core::text::Span::raw(Line(&piece.text).to_string()).width();
        let width: usize = pieces.iter().map(width).sum();
        if let Some(left) = u16::try_from(width).ok().and_then(|width| area.width.checked_sub(width)) {
            self.line(Rect { x: area.x + left, width: area.width - left, ..area }, pieces);
        }
    }

    pub(super) fn invert(&mut self, area: Rect) {
        self.buffer.set_style(area, Style::new().add_modifier(Modifier::REVERSED));
    }

    pub(super) fn clear(&mut self, area: Rect) {
        for y in area.y..area.bottom() {
            for x in area.x..area.right() {
                if let Some(cell) = self.buffer.cell_mut((x, y)) {
                    cell.reset();
                }
            }
        }
    }

    /// A frame around `area`, which it empties; returns what is inside.
    pub(super) fn boxed(&mut self, area: Rect, title: &str) -> Rect {
        self.clear(area);
        let inside = Rect {
            x: area.x + 2,
            y: area.y + 1,
            width: area.width.saturating_sub(4),
            height: area.height.saturating_sub(2),
        };
        let bar = "─".repeat(usize::from(area.width.saturating_sub(2)));
        let dim = self.styles.dim.into();
        self.write(area.x, area.y, area.width, &format!("┌{bar}┐"), dim);
        for y in area.y + 1..area.bottom().saturating_sub(1) {
            self.write(area.x, y, 1, "│", dim);
            self.write(area.right() - 1, y, 1, "│", dim);
        }
        self.write(area.x, area.bottom() - 1, area.width, &format!("└{bar}┘"), dim);
        let heading = self.styles.heading.into();
        self.write(area.x + 2, area.y, area.width.saturating_sub(4), &format!(" {title} "), heading);
        inside
    }

    /// Titles, then rows: each with its cells, one a column, and whether it is selected. The first column of the
    /// screen marks the selection.
    pub(super) fn table(
        &mut self,
        area: Rect,
        columns: &[Column],
        rows: impl Iterator<Item = (Vec<Piece>, bool)>,
        has_focus: bool,
    ) {
        if area.height == 0 || area.width < 2 {
            return;
        }
        let widths = widths(columns, area.width - 1);
        let dim: Paint = self.styles.dim.into();
        let titles: Vec<_> = columns.iter().map(|column| Piece::new(column.title, dim)).collect();
        self.row(Rect { height: 1, ..area }, columns, &widths, &titles);
        for (y, (cells, is_selected)) in (area.y + 1..area.bottom()).zip(rows) {
            let line = Rect { y, height: 1, ..area };
            self.row(line, columns, &widths, &cells);
            if is_selected {
                self.write(line.x, y, 1, "›", self.styles.heading.into());
                if has_focus {
                    self.invert(line);
                }
            }
        }
    }

    fn row(&mut self, line: Rect, columns: &[Column], widths: &[u16], cells: &[Piece]) {
        let mut x = line.x + 1;
        for ((column, width), cell) in columns.iter().zip(widths).zip(cells) {
            if *width == 0 {
                continue;
            }
            let room = Rect { x, width: *width, ..line };
            if column.is_right {
                let text = cut(&Line(&cell.text).to_string(), (*width).into());
                self.line_at_right(room, &[Piece { text, paint: cell.paint }]);
            } else {
                self.line(room, std::slice::from_ref(cell));
            }
            x += width + 1;
        }
    }
}

/// 0 for a column that has no room.
fn widths(columns: &[Column], total: u16) -> Vec<u16> {
    let mut left = total;
    let mut widths: Vec<u16> = columns
        .iter()
        .map(|column| {
            let width = if total >= column.from { column.width.min(left) } else { 0 };
            left = left.saturating_sub(if width > 0 { width + 1 } else { 0 });
            width
        })
        .collect();
    // No blank stands after the last one.
    left = left.saturating_add(u16::from(left > 0));
    let shares: u16 =
        columns.iter().zip(&widths).filter(|(_, width)| **width > 0).map(|(it, _)| it.share).sum();
    let mut rest = left;
    for (column, width) in columns.iter().zip(&mut widths) {
        if *width > 0 && column.share > 0 {
            let more = u32::from(left) * u32::from(column.share) / u32::from(shares.max(1));
            let more = u16::try_from(more).unwrap_or(0).min(rest);
            *width += more;
            rest -= more;
        }
    }
    widths
}

fn style(paint: Paint) -> Style {
    let mut style = Style::new();
    if let Some(color) = paint.color {
        style = style.fg(Color::Indexed(color));
    }
    let effects =
        [(paint.bold, Modifier::BOLD), (paint.dim, Modifier::DIM), (paint.inverted, Modifier::REVERSED)];
    effects.into_iter().filter(|(has, _)| *has).fold(style, |style, (_, effect)| style.add_modifier(effect))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_fill_the_width_and_narrow_ones_go() {
        let columns = [
            Column::wide("a", 10, 2),
            Column::right("b", 5),
            Column::left("c", 8).from(60),
            Column::wide("d", 6, 1),
        ];
        for total in [0, 5, 20, 40, 59, 60, 100, 200] {
            let widths = widths(&columns, total);
            let gaps = widths.iter().filter(|width| **width > 0).count().saturating_sub(1);
            let used = usize::from(widths.iter().sum::<u16>()) + gaps;
            assert!(used <= usize::from(total), "{total}: {widths:?}");
            assert_eq!(widths[2] > 0, total >= 60, "{total}: {widths:?}");
        }
        assert_eq!(widths(&columns, 100), [55, 5, 8, 28]);
    }

    #[test]
    fn hostile_text_keeps_its_columns() {
        let area = Rect::new(0, 0, 20, 1);
        let mut buffer = Buffer::empty(area);
        let mut canvas = Canvas::new(&mut buffer, Styles::PLAIN);
        assert_eq!(canvas.write(0, 0, 8, "日本語日本語", Paint::default()), 7);
        canvas.write(8, 0, 12, "\u{202e}\x1b[2Jx", Paint::default());
        let text: String = buffer.content().iter().map(ratatui_core::buffer::Cell::symbol).collect();
        assert!(text.starts_with("日 本 語 …") && text.ends_with("\\u{202e}\\x1…"), "{text:?}");
    }
}
