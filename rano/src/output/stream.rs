//! Standard output and standard error: the only place that holds them. Text passes the screen of `escape` on its way;
//! what moves the cursor is a [`Control`], and never part of a text.

#![cfg_attr(
    not(test),
    expect(clippy::disallowed_methods, reason = "this is the place that others are kept away from")
)]

use std::io::{self, BufWriter, IsTerminal as _, Write};
use std::os::fd::AsFd;
use std::sync::{Mutex, PoisonError};

use super::base64::base64;
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

    /// Standard error, to be written to when a full-screen view has given the terminal back.
    pub fn after_screen(styles: Styles) -> Self {
        Self::new(Box::new(Talk), false, styles)
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
    let _ = Talk.write_all(screened(text, Colors::Painted).as_bytes());
}

/// Bytes of talk that wait while the screen is taken; of more, the first.
const WAITING_MAX: usize = 256 * 1024;

/// What is to be said when the screen is free again; `None` while it is free.
static WAITING: Mutex<Option<Vec<u8>>> = Mutex::new(None);

/// Standard error, or what waits for it while a full-screen view has the terminal.
struct Talk;

impl Write for Talk {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let mut waiting = WAITING.lock().unwrap_or_else(PoisonError::into_inner);
        match &mut *waiting {
            Some(waiting) => {
                let room = WAITING_MAX.saturating_sub(waiting.len());
                waiting.extend_from_slice(&bytes[..bytes.len().min(room)]);
                Ok(bytes.len())
            }
            None => io::stderr().lock().write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// What a full-screen view draws to.
pub type FullScreen = BufWriter<io::Stdout>;

/// The terminal for a full-screen view, which draws cells that hold screened text; talk waits from now on.
pub fn take_screen() -> FullScreen {
    take_screen_again();
    BufWriter::with_capacity(64 * 1024, io::stdout())
}

/// After it was free for a while.
pub fn take_screen_again() {
    WAITING.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert_default();
}

/// The same terminal, for what changes its mode.
pub fn screen() -> impl Write + Send + 'static {
    io::stdout()
}

/// Gives the terminal a text for its clipboard (xterm, "Operating System Commands", 52).
pub fn copy(text: &str) -> io::Result<()> {
    let mut stdout = io::stdout().lock();
    write!(stdout, "\x1b]52;c;{}\x07", base64(text.as_bytes())).and_then(|()| stdout.flush())
}

/// Says what waited.
pub fn free_screen() {
    let waiting = WAITING.lock().unwrap_or_else(PoisonError::into_inner).take();
    if let Some(waiting) = waiting {
        let _ = io::stderr().lock().write_all(&waiting);
    }
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
