//! Where understood events go: the store, log files, the terminal. A sink that fails says so once and counts; it
//! never ends the observation.

pub mod log_file;
pub mod shown;
pub mod stats;
pub mod store;
pub mod terminal;

use crate::event::Moment;
use crate::output::summary::Summary;
use crate::update::Update;

pub use crate::update::SinkReport;

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
