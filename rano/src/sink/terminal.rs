//! The person's side: events and the summary on stdout; stats and notices on stderr, the stats block redrawn in
//! place where that is a terminal. A closed stdout ends the observation as a signal would.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use crate::connection::Connection;
use crate::event::{Event, Moment};
use crate::output::escape::Line as Message;
use crate::output::fold::folded;
use crate::output::human::Clock;
use crate::output::line::{self, Look};
use crate::output::stats::Line;
use crate::output::stream::{self, Control, Stream};
use crate::output::style::Styles;
use crate::output::{self, event_json, event_line, open_table};
use crate::sink::held::Held;
use crate::sink::shown::Shown;
use crate::sink::stats::{LiveStats, Room};
use crate::sink::{Sink, SinkReport};
use crate::stop::Stop;
use crate::summary::Summary;
use crate::totals::Standings;
use crate::update::{Alert, Progress, Renamed, Update};

/// Text that goes to no terminal is not cut.
pub(super) const WIDE: usize = 100_000;

/// Shape of the events.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// A row an event.
    Line,
    /// The long form.
    Pretty,
    Json,
    /// Once, at the end: what is open.
    Table,
}

/// Everything a terminal sink is made of.
pub struct Terminal {
    stdout: Stream,
    stderr: Stream,
    format: Format,
    /// Events are shown; without it only the summary is.
    show_events: bool,
    shown: Shown,
    run_id: String,
    stats: Option<LiveStats>,
    bell: bool,
    /// Of the terminal now; asked each time, because windows are resized.
    room: fn() -> Room,
    /// The same of the one that events go to.
    columns: fn() -> usize,
    clock: Clock,
    held: Held,
    /// Of a table.
    open: Vec<Arc<Connection>>,
    show_summary: bool,
    /// The stats block that stands at the bottom of the terminal, and the room it was drawn in.
    drawn: Vec<Line>,
    drawn_in: Room,
    /// The time for a first block has come.
    has_been_due: bool,
    /// The latest blocks of a stderr that is no terminal, by heading: nothing is said twice.
    printed: BTreeMap<String, Vec<Line>>,
    now: Moment,
    line: String,
    bytes: Vec<u8>,
    stop: Stop,
    closed: bool,
    /// It was not closed by its reader: something is wrong with it.
    failed: bool,
    is_quiet: bool,
}

/// What a terminal shows.
pub struct TerminalSettings {
    pub format: Format,
    pub show_events: bool,
    pub show_summary: bool,
    pub shown: Shown,
    pub run_id: String,
    pub stats: Option<LiveStats>,
    /// Ring with each alert.
    pub bell: bool,
    pub room: fn() -> Room,
    /// Columns of a row.
    pub columns: fn() -> usize,
    /// Of rows.
    pub clock: Clock,
    /// Nothing is written before the end: somebody else has the screen.
    pub is_quiet: bool,
}

impl Terminal {
    pub fn new(stdout: Stream, stderr: Stream, settings: TerminalSettings, stop: Stop) -> Self {
        Self {
            held: Held::new(stdout.is_terminal),
            open: Vec::new(),
            show_summary: settings.show_summary,
            stdout,
            stderr,
            format: settings.format,
            show_events: settings.show_events,
            shown: settings.shown,
            run_id: settings.run_id,
            stats: settings.stats,
            bell: settings.bell,
            room: settings.room,
            columns: settings.columns,
            clock: settings.clock,
            drawn: Vec::new(),
            drawn_in: Room::ENDLESS,
            has_been_due: false,
            printed: BTreeMap::new(),
            now: Moment::default(),
            line: String::new(),
            bytes: Vec::new(),
            stop,
            closed: false,
            failed: false,
            is_quiet: settings.is_quiet,
        }
    }

    pub fn stderr_styles(&self) -> Styles {
        self.stderr.styles
    }

    fn write_stdout(&mut self, text: &str) {
        if self.closed {
            return;
        }
        if let Err(error) = self.stdout.text(text) {
            self.stdout_failed(&error);
        }
    }

    /// An event, or a name that became known, in the shape that was asked for.
    fn write_json(&mut self, write: impl FnOnce(&mut Vec<u8>, &str)) {
        if self.closed {
            return;
        }
        self.bytes.clear();
        write(&mut self.bytes, &self.run_id);
        if let Err(error) = self.stdout.json(&mut self.bytes) {
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

    /// Nobody reads any more: history goes on until everything is written, then the run ends in order. A file that
    /// cannot grow is nobody's wish to end.
    fn stdout_failed(&mut self, error: &std::io::Error) {
        use std::io::ErrorKind::{FileTooLarge, QuotaExceeded, StorageFull};
        self.closed = true;
        if matches!(error.kind(), FileTooLarge | QuotaExceeded | StorageFull) {
            self.failed = true;
            return self.notice(&format!("cannot write to standard output: {error}; going on without it"));
        }
        self.stop.raise();
        if error.kind() != std::io::ErrorKind::BrokenPipe {
            self.failed = true;
            self.notice(&format!("cannot write to standard output: {error}; ending"));
        }
    }

    /// Takes the block away that stands at the bottom, and what it is to be replaced by comes there.
    fn erase_block(&mut self) {
        if self.drawn.is_empty() {
            return;
        }
        let room = (self.room)();
        // A terminal that has become narrower breaks lines that are there already.
        let rows = |line: &Line| line.width.div_ceil(room.columns.max(1)).max(1);
        let rows: usize = self.drawn.iter().map(rows).sum();
        self.drawn.clear();
        let _ = self.stderr.control(Control::EraseRows(rows.min(room.rows.saturating_sub(1))));
    }

    /// Talk for a person, above the block. A closed stderr is nobody's loss.
    fn say(&mut self, text: &str) {
        self.erase_block();
        let _ = self.stderr.text(text);
        let _ = self.stderr.flush();
    }

    fn draw_block(&mut self, block: Vec<Line>) {
        let text = block.iter().fold(String::new(), |text, line| text + &line.text + "\n");
        self.say(&text);
        if self.stderr.is_terminal {
            self.drawn = block;
        } else if let Some(heading) = block.first() {
            self.printed.insert(heading.text.clone(), block);
        }
    }

    /// Something was written in the place of the block.
    fn is_displaced(&self) -> bool {
        let has_views = self.stats.as_ref().is_some_and(LiveStats::has_views);
        self.stderr.is_terminal && self.has_been_due && self.drawn.is_empty() && has_views
    }

    fn update_stats(&mut self, standings: &Standings, when: When) {
        let is_displaced = self.is_displaced();
        let Some(stats) = &mut self.stats else { return };
        let due = stats.due(self.now) || when == When::AtTheEnd;
        self.has_been_due |= due;
        if due {
            stats.ticked(self.now, standings);
        }
        let is_terminal = self.stderr.is_terminal;
        if !due && !is_displaced {
            return;
        }
        let room = if is_terminal { (self.room)() } else { Room::ENDLESS };
        let resized = std::mem::replace(&mut self.drawn_in, room) != room;
        // The cursor stands in the row below the block.
        let room = Room { rows: room.rows.saturating_sub(1).max(1), ..room };
        let block = stats.render(self.now, standings, room, &self.stderr.styles);
        let shown = if is_terminal {
            block == self.drawn && !resized
        } else {
            block.first().is_some_and(|heading| self.printed.get(&heading.text) == Some(&block))
        };
        if !shown {
            self.draw_block(block);
        }
    }

    fn event(&mut self, event: &Event) {
        if !self.show_events || !self.shown.takes(event) || self.closed {
            return;
        }
        match self.format {
            Format::Line => self.rows(|held, out| held.take(event, out)),
            Format::Table => self.open.push(Arc::clone(&event.connection)),
            Format::Pretty | Format::Json => self.show(event),
        }
    }

    /// Shows what has waited long enough.
    fn rows(&mut self, pick: impl FnOnce(&mut Held, &mut Vec<Event>)) {
        let mut out = Vec::new();
        pick(&mut self.held, &mut out);
        for event in &out {
            self.show(event);
        }
    }

    fn show(&mut self, event: &Event) {
        if self.stdout.is_terminal && !self.drawn.is_empty() {
            self.say("");
        }
        if self.format == Format::Json {
            return self.write_json(|line, run_id| event_json::write(line, event, run_id));
        }
        let mut line = std::mem::take(&mut self.line);
        line.clear();
        if self.format == Format::Line {
            let look = Look { columns: (self.columns)(), clock: &self.clock, styles: &self.stdout.styles };
            line::write(&mut line, event, &look);
        } else {
            event_line::write(&mut line, event, &self.stdout.styles);
        }
        self.write_stdout(&line);
        self.line = line;
    }

    fn renamed(&mut self, renamed: &Renamed) {
        if !self.show_events || self.closed {
            return;
        }
        match self.format {
            Format::Line => self.rows(|held, out| held.renamed(renamed, out)),
            Format::Table => self.changed(&renamed.connection),
            Format::Json if self.shown.takes_name(renamed) => {
                self.write_json(|line, run_id| event_json::write_name(line, renamed, run_id));
            }
            Format::Pretty | Format::Json => {}
        }
    }

    /// Of what is in the table.
    fn changed(&mut self, connection: &Arc<Connection>) {
        if let Some(open) = self.open.iter_mut().find(|open| open.id == connection.id) {
            *open = Arc::clone(connection);
        }
    }

    fn write_table(&mut self) {
        if self.show_events && !self.closed {
            let width = stream::stdout_columns().filter(|_| self.stdout.is_terminal).unwrap_or(WIDE);
            let table = open_table::render(&self.open, self.now, width, &self.stdout.styles);
            self.write_stdout(&table);
        }
    }

    fn alert(&mut self, alert: &Alert) {
        self.rows(|held, out| held.release_of(alert.connection.id, out));
        if self.stdout.is_terminal {
            // The event stands above the alert that it raised.
            self.flush_stdout();
        }
        self.erase_block();
        let _ = match self.format {
            Format::Line | Format::Pretty | Format::Table => {
                let width = stream::stderr_columns().filter(|_| self.stderr.is_terminal);
                let line = output::alert::line(alert, width, &self.stderr.styles) + "\n";
                self.stderr.text(&folded(line, width, 2))
            }
            Format::Json => self.stderr.json(&mut output::alert::json(alert, &self.run_id)),
        };
        // A program that reads the objects has no ears.
        if self.bell && (self.format != Format::Json || self.stderr.is_terminal) {
            let _ = self.stderr.control(Control::Bell);
        }
        let _ = self.stderr.flush();
    }

    fn notice(&mut self, line: &str) {
        let width = stream::stderr_columns().filter(|_| self.stderr.is_terminal);
        self.say(&folded(format!("{}\n", Message(line)), width, 2));
    }

    fn progress(&mut self, progress: &Progress) {
        self.now = progress.now;
        self.rows(|held, out| held.passed(progress.now.boot_ns, out));
        self.flush_stdout();
        if let Some(standings) = &progress.standings {
            self.update_stats(standings, When::TimePassed);
        }
    }
}

/// Why stats are looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum When {
    TimePassed,
    AtTheEnd,
}

impl Sink for Terminal {
    fn update(&mut self, update: &Update) {
        if self.is_quiet {
            return;
        }
        match update {
            Update::Event(event) => self.event(event),
            Update::Renamed(renamed) => self.renamed(renamed),
            Update::Alert(alert) => self.alert(alert),
            Update::Notice(line) => self.notice(line),
            Update::Progress(progress) => self.progress(progress),
            Update::UnknownEndpoint { connection, remote } => {
                self.notice(&output::alert::unknown_endpoint(connection, *remote));
            }
            Update::MoreUnknownEndpoints(count) => {
                self.notice(&output::alert::more_unknown_endpoints(*count));
            }
            Update::Changed(connection) => self.changed(connection),
            Update::OtherName { .. }
            | Update::Marked(_)
            | Update::Left(_)
            | Update::Watched(_)
            | Update::Unwatched(_) => {}
        }
    }

    /// At once where the block is to be drawn again.
    fn next_tick(&self) -> Option<Moment> {
        if self.is_displaced() {
            return Some(Moment::default());
        }
        let stats = self.stats.as_ref().map(LiveStats::next_tick);
        let held = self.held.next_due().map(|boot_ns| Moment { boot_ns, unix_ms: 0 });
        stats.into_iter().chain(held).min_by_key(|moment| moment.boot_ns)
    }

    fn counts_every(&self) -> Option<Duration> {
        self.stats.as_ref().and_then(LiveStats::interval)
    }

    fn finish(&mut self, summary: &Summary) -> SinkReport {
        self.rows(Held::finish);
        self.flush_stdout();
        let hidden = self.shown.hidden().filter(|_| self.show_events);
        if let Some(stats) = &self.stats {
            let standings = summary.totals.standings(stats.top());
            self.update_stats(&standings, When::AtTheEnd);
        }
        // What was drawn last stays on the screen above the summary.
        self.drawn.clear();
        if self.format == Format::Table {
            self.write_table();
        }
        if self.format != Format::Json && !self.closed && self.show_summary {
            if self.stdout.is_terminal && !self.is_quiet {
                // Ctrl-C stands where the cursor is, as `^C`.
                self.write_stdout("\n");
            }
            let width = stream::stdout_columns().filter(|_| self.stdout.is_terminal);
            let text = summary.render(&self.stdout.styles, hidden.as_ref(), width.unwrap_or(WIDE));
            self.write_stdout(&folded(text, width, 6));
            self.flush_stdout();
        }
        if (self.format == Format::Json || self.closed) && self.show_summary {
            let _ = self.stderr.text(&summary.render(&self.stderr.styles, hidden.as_ref(), WIDE));
        }
        let _ = self.stderr.flush();
        SinkReport { has_failed: self.failed, ..SinkReport::default() }
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::io::Write;
    use std::sync::Mutex;
    use std::time::Duration;

    use super::*;
    use crate::output::style::Theme;
    use crate::sink::stats::StatsSettings;
    use crate::totals::View;

    thread_local! {
        static COLUMNS: Cell<usize> = const { Cell::new(80) };
    }

    #[derive(Clone, Default)]
    struct Screen(Arc<Mutex<Vec<u8>>>);

    impl Write for Screen {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().expect("no panic").extend_from_slice(bytes);
            Ok(bytes.len())
        }
        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    impl Screen {
        fn terminal(&self) -> Terminal {
            let stream = || Stream::new(Box::new(self.clone()), true, Styles::new(Theme::Vivid));
            let stats = StatsSettings {
                interval: Duration::from_secs(1),
                width: 40,
                top: 5,
                views: vec![View::Provider],
                cycle: Duration::ZERO,
            };
            let settings = TerminalSettings {
                format: Format::Pretty,
                show_events: true,
                show_summary: true,
                shown: Shown::default(),
                run_id: "1-1".to_owned(),
                stats: Some(LiveStats::new(stats)),
                bell: false,
                room: || Room { columns: COLUMNS.get(), rows: 24 },
                columns: || COLUMNS.get(),
                clock: Clock::Utc,
                is_quiet: false,
            };
            let stop = Stop::new().expect("an eventfd is to be had");
            Terminal::new(stream(), stream(), settings, stop)
        }

        /// What was written since the last call.
        fn take(&self) -> String {
            String::from_utf8_lossy(&std::mem::take(&mut *self.0.lock().expect("no panic"))).into_owned()
        }
    }

    #[test]
    fn a_block_that_a_narrower_window_wrapped_is_erased_whole() {
        let screen = Screen::default();
        let mut terminal = screen.terminal();
        for (columns_before, columns_after, rows) in [(80, 80, 2), (80, 40, 3), (80, 20, 4), (60, 80, 2)] {
            COLUMNS.set(columns_before);
            let line = |text: &str, width| Line { text: text.repeat(width), width };
            terminal.draw_block(vec![line("a", 20), line("█", 60)]);
            COLUMNS.set(columns_after);
            screen.take();
            terminal.notice("note");
            let expected = format!("\r\x1b[2K{}note\n", "\x1b[1A\x1b[2K".repeat(rows));
            assert_eq!(screen.take(), expected, "{columns_before} to {columns_after} columns");
        }
    }
    #[test]
    fn a_notice_is_one_line_whatever_it_repeats() {
        let screen = Screen::default();
        let mut terminal = screen.terminal();
        terminal.notice(
            "sqlite: cannot write a\\x07\x1b]0;x\x07\n\x1b[31m\u{9b}2J.sqlite: \u{202e}no; rows wait",
        );
        let expected =
            "sqlite: cannot write a\\x07\\x1b]0;x\\x07\\n\\x1b[31m\\u{9b}2J.sqlite: \\u{202e}no; rows wait\n";
        assert_eq!(screen.take(), expected);
    }
}
