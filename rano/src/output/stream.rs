//! Standard output and standard error: the only place that holds them. Text passes the screen of `escape` on its way;
//! what moves the cursor is a [`Control`], and never part of a text.

#![cfg_attr(
    not(test),
    expect(clippy::disallowed_methods, reason = "this is the place that others are kept away from")
)]

use std::io::{self, BufWriter, IsTerminal as _, Write};
use std::os::fd::AsFd;

use super::escape::{Colors, Line, screen_json, screened};
use super::fold::columns;
use super::style::Styles;

/// One of the two, or what stands in its place.
pub struct Stream {
    writer: BufWriter<Box<dyn Write + Send>>,
    pub is_terminal: bool,
    pub styles: Styles,
}

/// What rano does to a terminal beside writing text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Control {
    Bell,
    /// Clears the line of the cursor and so many rows above, and leaves the cursor in the uppermost (ECMA-48 CUU, EL).
    /// Not by clearing the rest of the screen: some terminals keep what they clear from the top as history.
    EraseRows(usize),
}

impl Stream {
    pub fn new(writer: Box<dyn Write + Send>, is_terminal: bool, styles: Styles) -> Self {
        Self { writer: BufWriter::with_capacity(32 * 1024, writer), is_terminal, styles }
    }

    pub fn stdout(styles: Styles) -> Self {
        Self::new(Box::new(io::stdout()), stdout_is_terminal(), styles)
    }

    pub fn stderr(styles: Styles) -> Self {
        Self::new(Box::new(io::stderr()), stderr_is_terminal(), styles)
    }

    /// Text for people: whole lines.
    pub fn text(&mut self, text: &str) -> io::Result<()> {
        let colors = if self.styles.is_plain() { Colors::Plain } else { Colors::Painted };
        self.writer.write_all(screened(text, colors).as_bytes())
    }

    /// Objects and their line ends.
    pub fn json(&mut self, lines: &mut Vec<u8>) -> io::Result<()> {
        screen_json(lines, 0);
        self.writer.write_all(lines)
    }

    pub fn control(&mut self, control: Control) -> io::Result<()> {
        match control {
            Control::Bell => self.writer.write_all(b"\x07"),
            Control::EraseRows(rows) => {
                self.writer.write_all(b"\r\x1b[2K")?;
                self.writer.write_all("\x1b[1A\x1b[2K".repeat(rows).as_bytes())
            }
        }
    }

    pub fn flush(&mut self) -> io::Result<()> {
        self.writer.flush()
    }
}

/// Text for people, or JSON of `output::json`, to standard output.
pub fn print(text: &str) -> io::Result<()> {
    write(screened(text, Colors::Painted).as_bytes())
}

/// Text that was written for a program and that holds nothing from outside: a script, a manual page.
pub fn print_own(text: &str) -> io::Result<()> {
    write(text.as_bytes())
}

fn write(bytes: &[u8]) -> io::Result<()> {
    let mut stdout = io::stdout().lock();
    stdout.write_all(bytes).and_then(|()| stdout.flush())
}

/// Talk, to standard error. Where that is closed there is nobody to tell.
pub fn say(text: &str) {
    let _ = io::stderr().lock().write_all(screened(text, Colors::Painted).as_bytes());
}

/// A line of progress in the place of the one before; `None` takes it away.
pub fn say_in_place(text: Option<&str>) {
    let line = match text {
        Some(text) => format!("\r{}", Line(text)),
        None => "\r\x1b[K".to_owned(),
    };
    let _ = io::stderr().lock().write_all(line.as_bytes());
}

/// Standard output for exports, which see to their content themselves.
pub fn exported() -> impl Write + Send + 'static {
    io::stdout()
}

pub fn stdout_is_terminal() -> bool {
    io::stdout().is_terminal()
}

pub fn stderr_is_terminal() -> bool {
    io::stderr().is_terminal()
}

/// Columns of the terminal that standard output is; `None` where it is none.
pub fn stdout_columns() -> Option<usize> {
    columns(io::stdout())
}

pub fn stderr_columns() -> Option<usize> {
    columns(io::stderr())
}

/// Standard output to wait for, not to write to.
pub fn stdout_end() -> impl AsFd + Send + 'static {
    io::stdout()
}

/// Standard error to ask for its size.
pub fn stderr_end() -> impl AsFd {
    io::stderr()
}
