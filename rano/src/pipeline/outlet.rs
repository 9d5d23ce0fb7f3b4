//! The sinks, in the order in which they see everything.

use std::sync::Arc;
use std::time::Duration;

use crate::event::Moment;
use crate::sink::Sink;
use crate::summary::Summary;
use crate::update::Update;

/// The last one shows notices and the summary.
pub(super) struct Outlet {
    sinks: Vec<Box<dyn Sink>>,
    wants_processes: bool,
}

impl Outlet {
    pub(super) fn new(sinks: Vec<Box<dyn Sink>>) -> Self {
        let wants_processes = sinks.iter().any(|sink| sink.wants_processes());
        Self { sinks, wants_processes }
    }

    /// How often a sink wants to know the bytes of open connections.
    pub(super) fn counts_every(&self) -> Option<Duration> {
        self.sinks.iter().filter_map(|sink| sink.counts_every()).min()
    }

    /// Whether a sink wants to know which processes are watched.
    pub(super) fn wants_processes(&self) -> bool {
        self.wants_processes
    }

    pub(super) fn send(&mut self, update: &Update) {
        for sink in &mut self.sinks {
            sink.update(update);
        }
    }

    /// A line for the person at the terminal.
    pub(super) fn say(&mut self, line: impl Into<Arc<str>>) {
        self.send(&Update::Notice(line.into()));
    }

    /// When the first sink wants a tick; boot clock.
    pub(super) fn next_tick(&self) -> Option<u64> {
        self.sinks.iter().filter_map(|sink| sink.next_tick()).map(|at| at.boot_ns).min()
    }

    pub(super) fn wants_tick(&self, now: Moment) -> bool {
        self.next_tick().is_some_and(|boot_ns| boot_ns <= now.boot_ns)
    }

    /// What one sink has to say goes to all.
    pub(super) fn pass_notices(&mut self) {
        let notices: Vec<String> = self.sinks.iter_mut().flat_map(|sink| sink.take_notices()).collect();
        for notice in notices {
            self.say(notice);
        }
    }

    /// One after the other: the summary that a sink shows holds what those before it have to report, and their last
    /// words come before it.
    pub(super) fn finish(&mut self, summary: &mut Summary) {
        for at in 0..self.sinks.len() {
            self.pass_notices();
            let report = self.sinks[at].finish(summary);
            summary.add(report);
        }
        self.pass_notices();
    }
}
