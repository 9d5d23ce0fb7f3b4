//! The person's side: events and the summary on stdout; stats and notices on stderr, the stats block redrawn in
//! place where that is a terminal. A closed stdout ends the observation as a signal would.

use std::io::{BufWriter, Write};

use unicode_width::UnicodeWidthStr as _;

use crate::event::{Event, Moment};
use crate::output::style::Styles;
use crate::output::summary::Summary;
use crate::output::{event_json, event_line};
use crate::sink::stats::LiveStats;
use crate::sink::{Frame, Sink};
use crate::stop::Stop;

/// Shape of the events.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    Pretty,
    Json,
}

/// A stream and what is known of it.
pub struct Stream {
    pub writer: Box<dyn Write>,
    pub is_terminal: bool,
    pub styles: Styles,
}

/// Everything a terminal sink is made of.
pub struct Terminal {
    stdout: BufWriter<Box<dyn Write>>,
    is_tty: bool,
    styles: Styles,
    stderr: Stream,
    format: Format,
    /// Events are shown; without it only the summary is.
    show_events: bool,
    run_id: String,
    stats: Option<LiveStats>,
    /// Columns of the terminal now; asked each time, because windows are resized.
    columns: fn() -> usize,
    /// Widths of the lines of the stats block that stand at the bottom of the terminal.
    drawn: Vec<usize>,
    last_block: Vec<String>,
    line: String,
    bytes: Vec<u8>,
    stop: Stop,
    closed: bool,
    /// It was not closed by its reader: something is wrong with it.
    failed: bool,
}

/// What a terminal shows.
pub struct TerminalSettings {
    pub format: Format,
    pub show_events: bool,
    pub run_id: String,
    pub stats: Option<LiveStats>,
    pub columns: fn() -> usize,
}

impl Terminal {
    pub fn new(stdout: Stream, stderr: Stream, settings: TerminalSettings, stop: Stop) -> Self {
        Self {
            stdout: BufWriter::with_capacity(32 * 1024, stdout.writer),
            is_tty: stdout.is_terminal,
            styles: stdout.styles,
            stderr,
            format: settings.format,
            show_events: settings.show_events,
            run_id: settings.run_id,
            stats: settings.stats,
            columns: settings.columns,
            drawn: Vec::new(),
            last_block: Vec::new(),
            line: String::new(),
            bytes: Vec::new(),
            stop,
            closed: false,
            failed: false,
        }
    }

    pub fn stderr_styles(&self) -> Styles {
        self.stderr.styles
    }

    fn write_stdout(&mut self, bytes: &[u8]) {
        if self.closed {
            return;
        }
        if let Err(error) = self.stdout.write_all(bytes) {
            self.stdout_failed(&error);
        }
    }

    fn flush_stdout(&mut self) {
        if self.closed {
            return;
        }
        if let Err(error) = self.stdout.flush() {
            self.stdout_failed(&error);
        }
    }

    /// Nobody reads any more: history goes on until everything is written, then the run ends in order.
    fn stdout_failed(&mut self, error: &std::io::Error) {
        self.closed = true;
        self.stop.raise();
        if error.kind() != std::io::ErrorKind::BrokenPipe {
            self.failed = true;
            self.notice(&format!("cannot write to standard output: {error}; ending"));
        }
    }

    fn erase_block(&mut self) {
        if self.drawn.is_empty() {
            return;
        }
        // A window made narrower has wrapped the lines that were drawn before.
        let columns = (self.columns)().max(1);
        let rows: usize = self.drawn.drain(..).map(|width| width.div_ceil(columns).max(1)).sum();
        // Up to the block's first row, then clear to the end of the screen (ECMA-48 CUU, ED).
        let _ = write!(self.stderr.writer, "\r\x1b[{rows}A\x1b[J");
        let _ = self.stderr.writer.flush();
    }

    fn draw_block(&mut self, block: Vec<String>) {
        let mut text = String::new();
        for line in &block {
            text.push_str(line);
            text.push('\n');
        }
        self.erase_block();
        // A closed stderr is nobody's loss: stats and notices are for a person.
        let _ = self.stderr.writer.write_all(text.as_bytes());
        let _ = self.stderr.writer.flush();
        if self.stderr.is_terminal {
            self.drawn = block.iter().map(|line| width_without_styles(line)).collect();
        }
        self.last_block = block;
    }

    fn update_stats(&mut self, frame: &Frame<'_>, force: bool) {
        let Some(stats) = &mut self.stats else { return };
        let due = stats.due(frame.now) || force;
        let displaced = self.stderr.is_terminal && self.drawn.is_empty() && !self.last_block.is_empty();
        if !due && !displaced {
            return;
        }
        let columns = if self.stderr.is_terminal { (self.columns)() } else { usize::MAX };
        let block = stats.render(frame.totals, columns, &self.stderr.styles);
        if block != self.last_block || displaced {
            self.draw_block(block);
        }
    }
}

impl Sink for Terminal {
    fn event(&mut self, event: &Event) {
        if let Some(stats) = &mut self.stats {
            stats.event(event);
        }
        if !self.show_events || self.closed {
            return;
        }
        if self.is_tty {
            self.erase_block();
        }
        let mut bytes = std::mem::take(&mut self.bytes);
        bytes.clear();
        match self.format {
            Format::Pretty => {
                self.line.clear();
                event_line::write(&mut self.line, event, &self.styles);
                bytes.extend_from_slice(self.line.as_bytes());
            }
            Format::Json => event_json::write(&mut bytes, event, &self.run_id),
        }
        self.write_stdout(&bytes);
        self.bytes = bytes;
    }

    fn tick(&mut self, frame: &Frame<'_>) {
        self.flush_stdout();
        self.update_stats(frame, false);
    }

    fn next_tick(&self) -> Option<Moment> {
        self.stats.as_ref().map(LiveStats::next_tick)
    }

    fn finish(&mut self, summary: &mut Summary) {
        self.flush_stdout();
        if self.stats.is_some() {
            let frame = Frame { now: Moment::default(), totals: &summary.totals, health: &summary.health };
            self.update_stats(&frame, true);
        }
        // What was drawn last stays on the screen above the summary.
        self.drawn.clear();
        if self.format == Format::Pretty && !self.closed {
            if self.is_tty {
                // Ctrl-C stands where the cursor is, as `^C`.
                self.write_stdout(b"\n");
            }
            let text = summary.render(&self.styles);
            self.write_stdout(text.as_bytes());
            self.flush_stdout();
        }
        if self.format == Format::Json || self.closed {
            let text = summary.render(&self.stderr.styles);
            let _ = self.stderr.writer.write_all(text.as_bytes());
        }
        summary.output_failed |= self.failed;
        let _ = self.stderr.writer.flush();
    }

    fn notice(&mut self, line: &str) {
        self.erase_block();
        let _ = writeln!(self.stderr.writer, "{line}");
        let _ = self.stderr.writer.flush();
    }
}

/// Columns that a line takes, whose only escape sequences are those of styles (ECMA-48 SGR).
fn width_without_styles(line: &str) -> usize {
    let mut pieces = line.split("\x1b[");
    let plain = pieces.next().map_or(0, unicode_width::UnicodeWidthStr::width);
    plain + pieces.map(|piece| piece.split_once('m').map_or(0, |(_, text)| text.width())).sum::<usize>()
}

#[cfg(test)]
mod tests {
    use std::cell::{Cell, RefCell};
    use std::rc::Rc;
    use std::time::Duration;

    use super::*;
    use crate::output::style::Theme;
    use crate::sink::stats::StatsSettings;

    thread_local! {
        static COLUMNS: Cell<usize> = const { Cell::new(80) };
    }

    #[derive(Clone, Default)]
    struct Screen(Rc<RefCell<Vec<u8>>>);

    impl Write for Screen {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.borrow_mut().extend_from_slice(bytes);
            Ok(bytes.len())
        }
        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_block_that_a_narrower_window_wrapped_is_erased_whole() {
        let screen = Screen::default();
        let stream = || Stream {
            writer: Box::new(screen.clone()),
            is_terminal: true,
            styles: Styles::new(Theme::Vivid),
        };
        let stats = StatsSettings { interval: Duration::from_secs(1), width: 40, top: 5 };
        let settings = TerminalSettings {
            format: Format::Pretty,
            show_events: true,
            run_id: "1-1".to_owned(),
            stats: Some(LiveStats::new(stats)),
            columns: || COLUMNS.get(),
        };
        let stop = Stop::new().expect("an eventfd is to be had");
        let mut terminal = Terminal::new(stream(), stream(), settings, stop);
        for (columns_before, columns_after, rows) in [(80, 80, 2), (80, 40, 3), (80, 20, 4), (60, 80, 2)] {
            COLUMNS.set(columns_before);
            let heading = Styles::new(Theme::Vivid).heading;
            terminal.draw_block(vec![format!("{heading}{}{heading:#}", "a".repeat(20)), "█".repeat(60)]);
            COLUMNS.set(columns_after);
            screen.0.borrow_mut().clear();
            terminal.notice("note");
            let expected = format!("\r\x1b[{rows}A\x1b[Jnote\n");
            let shown = String::from_utf8_lossy(&screen.0.borrow()).into_owned();
            assert_eq!(shown, expected, "{columns_before} to {columns_after} columns");
        }
    }
}
