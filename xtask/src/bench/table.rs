//! Results as a Markdown table, so that they can be read in a terminal and pasted into docs/performance.md.

use std::fmt::Write as _;

pub(crate) struct Table {
    headings: Vec<&'static str>,
    rows: Vec<Vec<String>>,
    skipped: Vec<String>,
}

impl Table {
    pub(crate) fn new(headings: &[&'static str]) -> Self {
        Self { headings: headings.to_vec(), rows: Vec::new(), skipped: Vec::new() }
    }

    pub(crate) fn row(&mut self, cells: Vec<String>) {
        self.rows.push(cells);
    }

    /// Something that was not measured, and why.
    pub(crate) fn skip(&mut self, what: impl Into<String>) {
        self.skipped.push(what.into());
    }

    pub(crate) fn print(&self) {
        print!("{}", self.text());
    }

    fn text(&self) -> String {
        let width = |column: usize| {
            let cells = self.rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count());
            cells
                .max()
                .unwrap_or(0)
                .max(self.headings.get(column).map_or(0, |heading| heading.chars().count()))
        };
        let widths: Vec<_> = (0..self.headings.len()).map(width).collect();
        let line = |cells: Vec<&str>| {
            let padded = cells.iter().zip(&widths).map(|(cell, width)| format!(" {cell:<width$} |"));
            format!("|{}\n", padded.collect::<String>())
        };
        let mut text = line(self.headings.clone());
        text.push('|');
        for width in &widths {
            text.push_str(&"-".repeat(width + 2));
            text.push('|');
        }
        text.push('\n');
        for row in &self.rows {
            text.push_str(&line(row.iter().map(String::as_str).collect()));
        }
        for what in &self.skipped {
            let _ = writeln!(text, "skipped: {what}");
        }
        let _ = writeln!(text, "\n{} measured, {} skipped", self.rows.len(), self.skipped.len());
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_aligned_and_skips_counted() {
        let mut table = Table::new(&["what", "ms"]);
        table.row(vec!["a poll".into(), "1.5".into()]);
        table.skip("ss: not installed");
        let expected = "\
| what   | ms  |
|--------|-----|
| a poll | 1.5 |
skipped: ss: not installed

1 measured, 1 skipped
";
        assert_eq!(table.text(), expected);
    }
}
