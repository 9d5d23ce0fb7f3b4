//! A report as Markdown, for an issue or a chat.

use std::fmt::Write as _;

use super::escape::Line;
use super::table::{Align, Column};

/// What is safe to show already, so that it means itself.
pub(super) fn text(safe: &str) -> String {
    let mut out = String::with_capacity(safe.len() + 8);
    for character in safe.chars() {
        match character {
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '&' => out.push_str("&amp;"),
            '*' | '_' | '`' | '[' | ']' | '#' | '~' => out.extend(['\\', character]),
            other => out.push(other),
        }
    }
    out
}

/// Rows of raw text. A column without any content is left out, and so are bars.
pub(super) fn table(columns: &[Column], rows: &[Vec<String>]) -> String {
    let has_content =
        |index: usize| rows.iter().any(|row| row.get(index).is_some_and(|cell| !cell.is_empty()));
    let shown: Vec<usize> =
        (0..columns.len()).filter(|&index| columns[index].1 != Align::Bar && has_content(index)).collect();
    if shown.is_empty() {
        return String::new();
    }
    let mut out = String::from("\n");
    let mut line = |cells: &mut dyn Iterator<Item = String>| {
        let cells: Vec<String> = cells.collect();
        writeln!(out, "| {} |", cells.join(" | ")).expect("writing into a String cannot fail");
    };
    line(&mut shown.iter().map(|&index| columns[index].0.to_owned()));
    line(&mut shown.iter().map(|&index| match columns[index].1 {
        Align::Right => "--:".to_owned(),
        Align::Left | Align::Cut | Align::Bar => "---".to_owned(),
    }));
    for row in rows {
        line(&mut shown.iter().map(|&index| cell(row.get(index).map_or("", String::as_str))));
    }
    out
}

/// A backslash and the sign between columns have a meaning in a table.
fn cell(raw: &str) -> String {
    text(&Line(raw).to_string().replace('\\', "\\\\").replace('|', "\\|"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_mean_themselves() {
        let columns =
            [("name", Align::Cut), ("", Align::Bar), ("count", Align::Right), ("none", Align::Left)];
        let rows = [vec!["a|b*\n<img src=x>\\".to_owned(), "██".to_owned(), "1".to_owned(), String::new()]];
        let expected = "\n| name | count |\n| --- | --: |\n| a\\|b\\*\\\\n&lt;img src=x&gt;\\\\ | 1 |\n";
        assert_eq!(table(&columns, &rows), expected);
        assert_eq!(text("[x](y) _z_ `c`"), "\\[x\\](y) \\_z\\_ \\`c\\`");
    }
}
