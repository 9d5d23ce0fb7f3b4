//! Where understood events go: the store, log files, the terminal. A sink that fails says so once and counts; it
//! never ends the observation.

#[cfg(feature = "cli")]
pub mod gate;
#[cfg(feature = "cli")]
pub mod held;
#[cfg(feature = "cli")]
pub mod log_file;
#[cfg(feature = "cli")]
pub mod shown;
#[cfg(feature = "cli")]
pub mod stats;
#[cfg(feature = "cli")]
pub mod store;
#[cfg(feature = "cli")]
pub mod terminal;

use std::time::Duration;

use crate::event::Moment;
use crate::summary::Summary;
use crate::update::Update;

pub use crate::update::SinkReport;

/// One place where events go.
pub trait Sink: Send {
    fn update(&mut self, update: &Update);
    /// When this sink next wants to know the standings, if it does.
    fn next_tick(&self) -> Option<Moment> {
        None
    }
    /// How often this sink wants to know what open connections have sent and received, if it does.
    fn counts_every(&self) -> Option<Duration> {
        None
    }
    /// Whether this sink wants to know which processes are watched.
    fn wants_processes(&self) -> bool {
        false
    }
    /// Lines for the person at the terminal, emptied by the call.
    fn take_notices(&mut self) -> Vec<String> {
        Vec::new()
    }
    /// The last call. `summary` holds what the sinks before this one reported.
    fn finish(&mut self, summary: &Summary) -> SinkReport;
}
