//! The person's side: events and the summary on stdout; stats and notices on stderr, the stats block redrawn in
//! place where that is a terminal. A closed stdout ends the observation as a signal would.

use std::io::{BufWriter, Write};

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
    /// Lines of the stats block that stand at the bottom of the terminal.
    drawn: usize,
    last_block: Vec<String>,
    line: String,
    bytes: Vec<u8>,
    stop: Stop,
    closed: bool,
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
            drawn: 0,
            last_block: Vec::new(),
            line: String::new(),
            bytes: Vec::new(),
            stop,
            closed: false,
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
            self.notice(&format!("cannot write to standard output: {error}; ending"));
        }
    }

    fn erase_block(&mut self) {
        if self.drawn > 0 {
            // Up to the block's first line, then clear to the end of the screen (ECMA-48 CUU, ED).
            let _ = write!(self.stderr.writer, "\r\x1b[{}A\x1b[J", self.drawn);
            let _ = self.stderr.writer.flush();
            self.drawn = 0;
        }
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
            self.drawn = block.len();
        }
        self.last_block = block;
    }

    fn update_stats(&mut self, frame: &Frame<'_>, force: bool) {
        let Some(stats) = &mut self.stats else { return };
        let due = stats.due(frame.now) || force;
        let displaced = self.stderr.is_terminal && self.drawn == 0 && !self.last_block.is_empty();
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
        self.drawn = 0;
        if self.format == Format::Pretty && !self.closed {
            let text = summary.render(&self.styles);
            self.write_stdout(text.as_bytes());
            self.flush_stdout();
        }
        if self.format == Format::Json || self.closed {
            let text = summary.render(&self.stderr.styles);
            let _ = self.stderr.writer.write_all(text.as_bytes());
        }
        let _ = self.stderr.writer.flush();
    }

    fn notice(&mut self, line: &str) {
        self.erase_block();
        let _ = writeln!(self.stderr.writer, "{line}");
        let _ = self.stderr.writer.flush();
    }
}
