//! When the bytes of open connections are read: as often as a sink asks, while there are any.

use std::time::Duration;

use super::tracker::Tracker;
use crate::source::Source;

/// Not more often than this,
const LEAST: Duration = Duration::from_millis(100);
/// and not for more than one part in so many of the time.
const IDLE_PARTS: u64 = 50;

pub(super) struct Counting {
    every: Option<Duration>,
    /// Boot clock.
    due_ns: u64,
}

impl Counting {
    pub(super) fn every(every: Option<Duration>) -> Self {
        Self { every: every.map(|every| every.max(LEAST)), due_ns: 0 }
    }

    /// Boot clock.
    pub(super) fn next_due(&self, tracker: &Tracker) -> Option<u64> {
        (self.every.is_some() && !tracker.live.is_empty()).then_some(self.due_ns)
    }

    /// Reads if it is time.
    pub(super) fn passed(&mut self, source: &mut dyn Source, tracker: &mut Tracker) {
        let Some(every) = self.every else { return };
        let begun = source.now().boot_ns;
        if self.next_due(tracker).is_none_or(|due| due > begun) {
            return;
        }
        source.count(tracker);
        let took = source.now().boot_ns.saturating_sub(begun);
        let every = u64::try_from(every.as_nanos()).unwrap_or(u64::MAX);
        self.due_ns = begun.saturating_add(every.max(took.saturating_mul(IDLE_PARTS)));
    }
}
