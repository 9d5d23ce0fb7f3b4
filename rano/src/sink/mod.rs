//! Where understood events go: the store, log files, the terminal. A sink that fails says so once and counts; it
//! never ends the observation.

pub mod log_file;
pub mod shown;
pub mod stats;
pub mod store;
pub mod terminal;

use std::path::PathBuf;

use crate::event::Moment;
use crate::output::summary::Summary;
use crate::update::Update;

/// One place where events go.
pub trait Sink {
    fn update(&mut self, update: &Update);
    /// When this sink next wants to know the standings, if it does.
    fn next_tick(&self) -> Option<Moment> {
        None
    }
    /// Lines for the person at the terminal, emptied by the call.
    fn take_notices(&mut self) -> Vec<String> {
        Vec::new()
    }
    /// The last call. `summary` holds what the sinks before this one reported.
    fn finish(&mut self, summary: &Summary) -> SinkReport;
}

/// What a sink has to say of itself at the end.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct SinkReport {
    /// Events that are not in the database.
    pub sqlite_dropped: u64,
    /// Lines that a log file lacks.
    pub log_lost: u64,
    /// Where the history goes on, if the database that was named was lost.
    pub history_moved: Option<PathBuf>,
    /// Something that was asked for could not be written.
    pub has_failed: bool,
}
