//! What the end of an observation tells, as data. `output/summary.rs` gives it its shape.

use std::path::PathBuf;

use crate::health::{Gap, SourceHealth};
use crate::totals::Totals;
use crate::update::{Counters, SinkReport};

/// Everything the end of an observation tells.
#[derive(Debug, Clone)]
pub struct Summary {
    pub totals: Totals,
    pub health: SourceHealth,
    /// Some process was watched.
    pub has_watched: bool,
    /// What was excluded.
    pub excludes: Vec<String>,
    /// Where names came from, in words.
    pub names: String,
    /// How long the rankings are.
    pub top: usize,
    /// Lines that a log file lacks.
    pub log_lost: u64,
    /// Where the history goes on, if the database that was named was lost.
    pub history_moved: Option<PathBuf>,
    /// The last seal of the history, in hexadecimal digits: it stands for all that was written before.
    pub seal_head: Option<String>,
    /// Something that was asked for could not be written: standard output, a log file, or the database.
    pub output_failed: bool,
}

impl Summary {
    /// Takes in what a sink has to report.
    pub fn add(&mut self, report: SinkReport) {
        self.health.gaps.add(Gap::SqliteDropped, report.sqlite_dropped);
        self.log_lost += report.log_lost;
        self.history_moved = report.history_moved.or(self.history_moved.take());
        self.seal_head = report.seal_head.or(self.seal_head.take());
        self.output_failed |= report.has_failed;
    }

    pub fn counters(&self) -> Counters {
        Counters {
            active: self.totals.active,
            peak_active: self.totals.peak,
            alerts: self.totals.alerts,
            away: self.totals.bytes,
            loopback: self.totals.loopback,
            left_out: self.totals.left_out,
            gaps: self.health.gaps,
        }
    }
}
