//! The terminal of an observation: what it shows, in which shape.

use std::time::Duration;

use super::Run;
use crate::commands::beside::Talk;
use crate::config::{Field, FormatChoice};
use crate::output::human::Clock;
use crate::output::stream::{self, Stream};
use crate::output::style::Styles;
use crate::sink::shown::Shown;
use crate::sink::stats::{LiveStats, Room, StatsSettings};
use crate::sink::terminal::{Format, Terminal, TerminalSettings};
use crate::stop::Stop;
use crate::totals::View;

impl Run<'_> {
    fn format(&self) -> Format {
        match self.settings.format {
            FormatChoice::Auto if self.settings.once => Format::Table,
            FormatChoice::Auto if stream::stdout_is_terminal() && !self.is_command => Format::Line,
            FormatChoice::Auto | FormatChoice::Pretty => Format::Pretty,
            FormatChoice::Line => Format::Line,
            FormatChoice::Json => Format::Json,
        }
    }

    /// A single look is a table, or objects for a program, which has its summary on standard error.
    fn shows_summary(&self) -> bool {
        let settings = self.settings;
        !settings.once || settings.with_summary || settings.summary_only || settings.is_json()
    }

    pub(super) fn terminal(&self, stop: &Stop, talk: Talk) -> Terminal {
        let interval = Duration::from_millis(self.settings.stats_interval_ms);
        let stats = StatsSettings {
            interval,
            width: self.settings.stats_width,
            top: self.settings.stats_top,
            views: self.views(),
            cycle: Duration::from_millis(self.settings.stats_cycle_ms),
        };
        let settings = TerminalSettings {
            format: self.format(),
            show_summary: self.shows_summary(),
            show_events: !self.settings.summary_only && talk == Talk::OnStdout,
            shown: self.shown(),
            run_id: self.id.clone(),
            stats: self.wants_stats().then(|| LiveStats::new(stats)),
            bell: self.settings.alert_bell,
            room: terminal_room,
            columns: row_columns,
            clock: if self.settings.local { Clock::local() } else { Clock::Utc },
            is_quiet: false,
        };
        let stdout = match talk {
            Talk::OnStdout => Stream::stdout(self.styles(stream::stdout_is_terminal())),
            Talk::OnStderr => Stream::stderr(self.styles(stream::stderr_is_terminal())),
            Talk::AfterScreen => Stream::after_screen(self.styles(stream::stderr_is_terminal())),
        };
        let stderr_styles = self.styles(stream::stderr_is_terminal());
        let mut stderr = match talk {
            Talk::OnStdout | Talk::OnStderr => Stream::stderr(stderr_styles),
            Talk::AfterScreen => Stream::after_screen(stderr_styles),
        };
        stderr.is_terminal &= !self.context.environment.is_dumb_terminal();
        Terminal::new(stdout, stderr, settings, stop.clone())
    }

    /// Standard output is the command's, and the terminal while it runs.
    pub(super) fn terminal_of_command(&self, stop: &Stop) -> Terminal {
        let is_terminal = stream::stderr_is_terminal();
        let settings = TerminalSettings {
            format: Format::Pretty,
            show_events: false,
            show_summary: true,
            shown: self.shown(),
            run_id: self.id.clone(),
            stats: None,
            bell: false,
            room: terminal_room,
            columns: row_columns,
            clock: Clock::Utc,
            is_quiet: is_terminal,
        };
        let stderr = || Stream::stderr(self.styles(is_terminal));
        Terminal::new(stderr(), stderr(), settings, stop.clone())
    }

    pub(super) fn wants_stats(&self) -> bool {
        !self.is_command
            && !self.settings.is_json()
            && !self.settings.once
            && self.settings.stats_interval_ms > 0
    }

    pub(super) fn shown(&self) -> Shown {
        Shown::new(self.settings.filter.clone())
    }

    pub(super) fn views(&self) -> Vec<View> {
        if !self.configuration.is_given(Field::stats_view) && self.settings.stats_cycle_ms > 0 {
            View::ALL.into()
        } else {
            self.settings.stats_view.clone()
        }
    }

    pub(super) fn styles(&self, is_terminal: bool) -> Styles {
        crate::commands::styles(self.configuration, &self.context.environment, is_terminal)
    }
}

/// Size of the terminal that stderr is; 80 by 24 where it does not say.
fn terminal_room() -> Room {
    let size = rustix::termios::tcgetwinsize(stream::stderr_end()).ok();
    let or = |cells: Option<u16>, usual| cells.filter(|cells| *cells > 0).map_or(usual, usize::from);
    Room { columns: or(size.map(|size| size.ws_col), 80), rows: or(size.map(|size| size.ws_row), 24) }
}

/// Of the terminal that standard output is. A file has room, and is read on some screen one day.
fn row_columns() -> usize {
    stream::stdout_columns().unwrap_or(160)
}
