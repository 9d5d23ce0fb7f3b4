//! Exported rows: CSV as RFC 4180 has it, made safe for spreadsheets, and JSON lines.

use std::fmt::Write as _;
use std::io::{self, Write};

use crate::output::escape::{Line, is_dangerous};
use crate::output::human::timestamp_millis;
use crate::output::json;
use crate::store::query::export::{Cell, Field, RowWriter};

/// Times as text; most rows share the second of the row before.
#[derive(Debug, Default)]
struct Clock {
    second: Option<i64>,
    text: String,
}

impl Clock {
    fn text(&mut self, unix_ms: i64) -> &str {
        let second = unix_ms.div_euclid(1000);
        if self.second == Some(second) && self.text.len() > 4 {
            let millis = unix_ms.rem_euclid(1000);
            self.text.truncate(self.text.len() - 4);
            let digit =
                |value: i64| char::from_digit(u32::try_from(value % 10).unwrap_or(0), 10).unwrap_or('0');
            self.text.extend([digit(millis / 100), digit(millis / 10), digit(millis), 'Z']);
        } else {
            self.text = timestamp_millis(unix_ms);
            // Far out of range the text stands for another second.
            self.second = (0..=253_402_000_000).contains(&second).then_some(second);
        }
        &self.text
    }
}

/// What is done to cells that hold more than their text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Guard {
    /// What a spreadsheet would compute gets a leading `'`.
    pub formulas: bool,
    /// It is no file but a terminal that the cells go to: nothing in them may move the cursor.
    pub terminal: bool,
}

/// Commas, CRLF, quotes where needed.
pub struct Csv<W: Write> {
    writer: csv::Writer<W>,
    clock: Clock,
    digits: itoa::Buffer,
    guard: Guard,
    guarded: String,
}

impl<W: Write> Csv<W> {
    pub fn new(writer: W, guard: Guard) -> Self {
        let writer = csv::WriterBuilder::new()
            .terminator(csv::Terminator::CRLF)
            .buffer_capacity(1 << 16)
            .from_writer(writer);
        Self { writer, clock: Clock::default(), digits: itoa::Buffer::new(), guard, guarded: String::new() }
    }

    pub fn header(&mut self, fields: &[&Field]) -> io::Result<()> {
        self.writer.write_record(fields.iter().map(|field| field.name)).map_err(plain)
    }

    pub fn finish(mut self) -> io::Result<()> {
        self.writer.flush()
    }
}

/// The error underneath, so that a closed pipe is told apart.
fn plain(error: csv::Error) -> io::Error {
    match error.into_kind() {
        csv::ErrorKind::Io(error) => error,
        other => io::Error::other(format!("{other:?}")),
    }
}

impl<W: Write> RowWriter for Csv<W> {
    fn cell(&mut self, _: &Field, cell: Cell<'_>) -> io::Result<()> {
        let text = match cell {
            Cell::Null => "",
            Cell::Text(text) => guarded(text, self.guard, &mut self.guarded),
            Cell::Integer(number) => self.digits.format(number),
            Cell::Truth(truth) => ["0", "1"][usize::from(truth)],
            Cell::Time(unix_ms) => self.clock.text(unix_ms),
        };
        self.writer.write_field(text).map_err(plain)
    }

    fn end_row(&mut self) -> io::Result<()> {
        self.writer.write_record(None::<&[u8]>).map_err(plain)
    }
}

/// The cell itself, or what stands for it in `room`.
fn guarded<'a>(text: &'a str, guard: Guard, room: &'a mut String) -> &'a str {
    let quote = if guard.formulas && is_formula(text) { "'" } else { "" };
    if quote.is_empty() && !guard.terminal {
        return text;
    }
    room.clear();
    room.push_str(quote);
    if guard.terminal {
        write!(room, "{}", Line(text)).expect("writing into a String cannot fail");
    } else {
        room.push_str(text);
    }
    room
}

/// Whether a spreadsheet would compute it (OWASP, "CSV injection"): some pass over blanks before the sign, some take
/// the full-width forms of East Asian keyboards for the sign itself. A plain option and a login shell's name are none.
fn is_formula(text: &str) -> bool {
    let begun = text.trim_start_matches(is_blank);
    let is_bare = begun.len() == text.len();
    match begun.chars().next() {
        Some('=' | '+' | '@' | '＝' | '＋' | '＠' | '－') => true,
        Some('-') => {
            let word = begun.strip_prefix("--").unwrap_or(&begun[1..]);
            let is_option = word.starts_with(|first: char| first.is_ascii_alphabetic())
                && word.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_');
            !(is_option && is_bare)
        }
        // A cell that begins with one of these may begin anew in what reads it.
        _ => text.starts_with(['\t', '\r', '\n']),
    }
}

/// What takes no place of its own before a sign, or only room.
fn is_blank(character: char) -> bool {
    character.is_whitespace() || is_dangerous(character)
}

/// One object a line, without what is null.
pub struct JsonLines<W: Write> {
    writer: W,
    line: Vec<u8>,
    clock: Clock,
}

impl<W: Write> JsonLines<W> {
    pub fn new(writer: W) -> Self {
        Self { writer, line: Vec::new(), clock: Clock::default() }
    }

    pub fn finish(mut self) -> io::Result<()> {
        self.writer.flush()
    }
}

impl<W: Write> RowWriter for JsonLines<W> {
    fn cell(&mut self, field: &Field, cell: Cell<'_>) -> io::Result<()> {
        if cell == Cell::Null {
            return Ok(());
        }
        self.line.push(if self.line.is_empty() { b'{' } else { b',' });
        // Names of fields need no escapes.
        write!(self.line, "\"{}\":", field.name)?;
        match cell {
            Cell::Null => {}
            Cell::Text(text) => json::append(&mut self.line, &text),
            Cell::Integer(number) => write!(self.line, "{number}")?,
            Cell::Truth(truth) => write!(self.line, "{truth}")?,
            Cell::Time(unix_ms) => write!(self.line, "\"{}\"", self.clock.text(unix_ms))?,
        }
        Ok(())
    }

    fn end_row(&mut self) -> io::Result<()> {
        self.line.extend_from_slice(if self.line.is_empty() { b"{}\n" } else { b"}\n" });
        let written = self.writer.write_all(&self.line);
        self.line.clear();
        written
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::query::export::FIELDS;

    const FILE: Guard = Guard { formulas: true, terminal: false };

    fn csv(guard: Guard, rows: &[&[Cell<'_>]]) -> String {
        let mut bytes = Vec::new();
        let mut csv = Csv::new(&mut bytes, guard);
        write(&mut csv, rows);
        csv.finish().expect("memory");
        String::from_utf8(bytes).expect("UTF-8")
    }

    fn write(writer: &mut impl RowWriter, rows: &[&[Cell<'_>]]) {
        for row in rows {
            for (field, cell) in FIELDS.iter().zip(*row) {
                writer.cell(field, *cell).expect("memory");
            }
            writer.end_row().expect("memory");
        }
    }

    #[test]
    fn csv_quotes_what_rfc_4180_has_quoted() {
        let row = [
            Cell::Text("a,b"),
            Cell::Text("say \"hi\""),
            Cell::Text("two\nlines"),
            Cell::Null,
            Cell::Text("🦀"),
        ];
        assert_eq!(csv(FILE, &[&row]), "\"a,b\",\"say \"\"hi\"\"\",\"two\nlines\",,🦀\r\n");
    }

    #[test]
    fn formulas_are_guarded_and_options_are_not() {
        for (text, guarded) in [
            ("=1+1", true),
            ("+1", true),
            ("@SUM(A1)", true),
            ("\tx", true),
            ("-1+2", true),
            ("-", true),
            ("--", true),
            ("-x y", true),
            ("--model=large", true),
            ("\r=1", true),
            ("\rx", true),
            ("\nx", true),
            (" =1", true),
            ("\u{a0}=1", true),
            ("\u{3000}+1", true),
            ("\u{feff}@SUM(A1)", true),
            ("\u{200b}\u{2003}-1", true),
            ("\0=1", true),
            ("＝1", true),
            ("＋1", true),
            ("－1", true),
            (" ＠SUM(A1)", true),
            (" -bash", true),
            ("a\n=1", false),
            (" x", false),
            ("\u{a0}", false),
            ("-bash", false),
            ("-v", false),
            ("--no-color", false),
            ("a=b", false),
            ("", false),
        ] {
            assert_eq!(is_formula(text), guarded, "{text:?}");
        }
        assert_eq!(csv(FILE, &[&[Cell::Text("=1"), Cell::Integer(-1)]]), "'=1,-1\r\n");
        assert_eq!(csv(Guard { formulas: false, ..FILE }, &[&[Cell::Text("=1"), Cell::Null]]), "=1,\r\n");
    }

    #[test]
    fn a_terminal_gets_cells_that_leave_the_cursor_alone() {
        let row = [Cell::Text("a\x1b]0;x\x07\r"), Cell::Text("two\nlines"), Cell::Text("=\u{9b}31m")];
        let terminal = Guard { terminal: true, ..FILE };
        assert_eq!(csv(terminal, &[&row]), "a\\x1b]0;x\\x07\\r,two\\nlines,'=\\u{9b}31m\r\n");
        assert_eq!(csv(FILE, &[&row]), "\"a\x1b]0;x\x07\r\",\"two\nlines\",'=\u{9b}31m\r\n");
    }

    #[test]
    fn json_lines_leave_nulls_out() {
        let mut bytes = Vec::new();
        let mut lines = JsonLines::new(&mut bytes);
        let row = [Cell::Time(7), Cell::Null, Cell::Text("a\"\n\u{1b}\u{202e}"), Cell::Truth(true)];
        write(&mut lines, &[&row, &[Cell::Null]]);
        lines.finish().expect("memory");
        let text = String::from_utf8(bytes).expect("UTF-8");
        let expected = "{\"ts\":\"1970-01-01T00:00:00.007Z\",\"event\":\"a\\\"\\n\\u001b\\u202e\",\"provider\":true}\n{}\n";
        assert_eq!(text, expected);
    }

    #[test]
    fn times_within_a_second_share_its_text() {
        let mut clock = Clock::default();
        for (unix_ms, expected) in [
            (1_768_678_200_000, "2026-01-17T19:30:00.000Z"),
            (1_768_678_200_123, "2026-01-17T19:30:00.123Z"),
            (1_768_678_200_009, "2026-01-17T19:30:00.009Z"),
            (1_768_678_201_010, "2026-01-17T19:30:01.010Z"),
            (-1, "1969-12-31T23:59:59.999Z"),
            (-2, "1969-12-31T23:59:59.998Z"),
        ] {
            assert_eq!(clock.text(unix_ms), expected);
        }
    }
}
