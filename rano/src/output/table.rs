//! Aligned columns and bars for texts that people read.

use std::fmt::Write as _;

use unicode_width::UnicodeWidthStr as _;

use super::escape::fit;
use super::style::Styles;

/// Columns of a table: its heading, and whether numbers stand in it.
pub type Column = (&'static str, Align);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Align {
    Left,
    Right,
    /// To the left, and cut where the line is too long.
    Cut,
    /// A bar, painted; left out where the line is too long.
    Bar,
}

/// Rows of raw text: escaped here.
pub struct Table<'a> {
    pub columns: &'a [Column],
    pub rows: Vec<Vec<String>>,
}

/// What a column that is cut keeps at least.
const LEAST: usize = 12;

/// The same of the first of them, what the row is about, as long as others may be left out for it.
const LEAST_NAME: usize = 24;

impl Table<'_> {
    /// Lines that begin with two spaces and are at most `width` columns wide, unless the first two columns need more.
    /// Empty without rows. A column without any content is left out, and so are the last ones where there is no room.
    pub fn render(&self, width: usize, styles: &Styles) -> String {
        if self.rows.is_empty() {
            return String::new();
        }
        let escaped: Vec<Vec<String>> =
            self.rows.iter().map(|row| row.iter().map(|cell| fit(cell, usize::MAX)).collect()).collect();
        let mut shown: Vec<usize> = (0..self.columns.len())
            .filter(|&index| escaped.iter().any(|row| row.get(index).is_some_and(|cell| !cell.is_empty())))
            .collect();
        let natural = |index: usize| {
            let cells = escaped.iter().filter_map(|row| row.get(index)).map(|cell| cell.width());
            cells.max().unwrap_or(0).max(self.columns[index].0.width())
        };
        let excess_of =
            |widths: &[usize]| (widths.iter().sum::<usize>() + 2 * widths.len()).saturating_sub(width);
        let mut widths: Vec<usize> = shown.iter().map(|&index| natural(index)).collect();
        if excess_of(&widths) > 0 {
            // The numbers are there too.
            shown.retain(|&index| self.columns[index].1 != Align::Bar);
            widths = shown.iter().map(|&index| natural(index)).collect();
        }
        let named = shown.iter().position(|&index| self.columns[index].1 == Align::Cut);
        let least = |place: usize, shown: &[usize], width: usize| match self.columns[shown[place]].1 {
            Align::Cut if named == Some(place) && place + 1 < shown.len() => width.min(LEAST_NAME),
            Align::Cut => width.min(LEAST),
            Align::Left | Align::Right | Align::Bar => width,
        };
        // Numbers without what they are about say nothing.
        let is_text = |index: &usize| matches!(self.columns[*index].1, Align::Left | Align::Cut);
        let kept = shown.iter().position(is_text).map_or(2, |first| first + 1).max(2);
        while shown.len() > kept {
            let least = widths.iter().enumerate().map(|(place, &width)| least(place, &shown, width));
            if excess_of(&least.collect::<Vec<_>>()) == 0 {
                break;
            }
            shown.pop();
            widths.pop();
        }
        let mut excess = excess_of(&widths);
        // The last ones give first: names matter more than remarks.
        for (place, &index) in shown.iter().enumerate().rev() {
            if self.columns[index].1 == Align::Cut {
                let give = excess.min(widths[place].saturating_sub(LEAST));
                widths[place] -= give;
                excess -= give;
            }
        }
        let mut text = String::new();
        let dim = styles.dim;
        let headings: Vec<&str> = shown.iter().map(|&index| self.columns[index].0).collect();
        let heading = self.line(&shown, &widths, &headings, &Styles::PLAIN);
        writeln!(text, "{dim}{heading}{dim:#}").expect("writing into a String cannot fail");
        for row in &escaped {
            let cells: Vec<&str> =
                shown.iter().map(|&index| row.get(index).map_or("", String::as_str)).collect();
            text.push_str(&self.line(&shown, &widths, &cells, styles));
            text.push('\n');
        }
        text
    }

    fn line(&self, shown: &[usize], widths: &[usize], cells: &[&str], styles: &Styles) -> String {
        let mut line = String::new();
        for ((&index, &width), cell) in shown.iter().zip(widths).zip(cells) {
            // Escaped before: only the width is left to see to.
            let cell = if cell.width() > width { cut(cell, width) } else { (*cell).to_owned() };
            let padding = " ".repeat(width.saturating_sub(cell.width()));
            line.push_str("  ");
            match self.columns[index].1 {
                Align::Right => line.extend([padding.as_str(), &cell]),
                Align::Left | Align::Cut => line.extend([cell.as_str(), &padding]),
                Align::Bar => {
                    let paint = styles.provider;
                    write!(line, "{paint}{cell}{paint:#}{padding}")
                        .expect("writing into a String cannot fail");
                }
            }
        }
        line.truncate(line.trim_end().len());
        line
    }
}

fn cut(cell: &str, width: usize) -> String {
    use unicode_width::UnicodeWidthChar as _;
    let mut used = 0;
    let kept = cell.chars().take_while(|character| {
        used += character.width().unwrap_or(0);
        used < width
    });
    kept.chain(['…']).collect()
}

/// A share as a bar of at most `width` blocks; what is not nothing shows at least a sliver.
pub fn bar(part: u64, whole: u64, width: usize) -> String {
    if part == 0 || whole == 0 {
        return String::new();
    }
    let eighths = (u128::from(part) * 8 * width as u128).div_ceil(u128::from(whole)).min(8 * width as u128);
    let eighths = usize::try_from(eighths).expect("no more than eight times a width");
    let mut bar = "█".repeat(eighths / 8);
    bar.extend(["", "▏", "▎", "▍", "▌", "▋", "▊", "▉"].get(eighths % 8).copied());
    bar
}

/// `1,234,567`.
pub fn grouped(count: u64) -> String {
    let digits = count.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    const COLUMNS: [Column; 4] =
        [("name", Align::Cut), ("count", Align::Right), ("", Align::Bar), ("note", Align::Left)];

    fn render(width: usize, rows: &[[&str; 4]]) -> String {
        let rows = rows.iter().map(|row| row.iter().map(|cell| (*cell).to_owned()).collect()).collect();
        Table { columns: &COLUMNS, rows }.render(width, &Styles::PLAIN)
    }

    #[test]
    fn columns_are_aligned_cut_and_left_out() {
        let rows = [["日本", "1", "", ""], ["a-rather-long-name.example", "22", "", ""]];
        let wide = [
            "  name                        count",
            "  日本                            1",
            "  a-rather-long-name.example     22",
        ];
        assert_eq!(render(80, &rows).lines().collect::<Vec<_>>(), wide);
        let narrow =
            ["  name                 count", "  日本                     1", "  a-rather-long-name…     22"];
        assert_eq!(render(28, &rows).lines().collect::<Vec<_>>(), narrow);
    }

    #[test]
    fn bars_give_way_to_names() {
        let rows = [["name", "1", "████", "note"]];
        assert_eq!(render(26, &rows), "  name  count        note\n  name      1  ████  note\n");
        assert_eq!(render(24, &rows), "  name  count  note\n  name      1  note\n");
    }

    #[test]
    fn the_last_columns_give_way_where_nothing_else_helps() {
        const COLUMNS: [Column; 4] = [
            ("count", Align::Right),
            ("domain", Align::Cut),
            ("sent", Align::Right),
            ("known by", Align::Cut),
        ];
        let row = ["1,234", "api.service.example.com", "12.3 MiB", "dns"].map(str::to_owned);
        let table = Table { columns: &COLUMNS, rows: vec![row.into()] };
        let rows = |width| table.render(width, &Styles::PLAIN).lines().nth(1).expect("a row").to_owned();
        assert_eq!(rows(60), "  1,234  api.service.example.com  12.3 MiB  dns");
        assert_eq!(rows(50), "  1,234  api.service.example.com  12.3 MiB");
        assert_eq!(rows(40), "  1,234  api.service.example.com");
        assert_eq!(rows(21), "  1,234  api.service…");
    }

    #[test]
    fn a_name_at_the_end_gives_way_to_what_it_explains() {
        const COLUMNS: [Column; 4] =
            [("count", Align::Right), ("address", Align::Left), ("sent", Align::Right), ("name", Align::Cut)];
        let row = ["12", "203.0.113.7", "12.3 MiB", "api.example.com"].map(str::to_owned);
        let table = Table { columns: &COLUMNS, rows: vec![row.into()] };
        let rows = |width| table.render(width, &Styles::PLAIN).lines().nth(1).expect("a row").to_owned();
        assert_eq!(rows(44), "     12  203.0.113.7  12.3 MiB  api.example…");
        assert_eq!(rows(40), "     12  203.0.113.7  12.3 MiB");
        assert_eq!(rows(20), "     12  203.0.113.7");
    }

    #[test]
    fn hostile_cells_stay_in_their_line() {
        assert_eq!(
            render(80, &[["a\n\x1b[31m", "1", "", ""]]),
            "  name         count\n  a\\n\\x1b[31m      1\n"
        );
    }

    #[test]
    fn a_bar_shows_the_share() {
        for (part, whole, expected) in
            [(0, 5, ""), (5, 5, "████"), (1, 2, "██"), (1, 1_000_000, "▏"), (1, 0, ""), (9, 5, "████")]
        {
            assert_eq!(bar(part, whole, 4), expected, "{part}/{whole}");
        }
    }

    #[test]
    fn thousands_are_grouped() {
        for (count, expected) in [(0, "0"), (999, "999"), (1000, "1,000"), (1_234_567, "1,234,567")] {
            assert_eq!(grouped(count), expected);
        }
    }
}
