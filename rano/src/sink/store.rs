//! Hands events to the store, whose own thread writes them.

use crate::event::{ConnectionId, Domain, Event, KnownName};
use crate::output::summary::Summary;
use crate::sink::{Frame, Sink};
use crate::source::health::{Gap, Gaps};
use crate::store::{Progress, Store};
use crate::totals::Totals;

/// The history of this run.
pub struct StoreSink {
    /// `None` once finished.
    store: Option<Store>,
    last: Progress,
    /// Unix milliseconds of the last tick: what the session's end is, if nothing else tells.
    now_ms: i64,
    notices: Vec<String>,
}

impl StoreSink {
    pub fn new(store: Store) -> Self {
        Self { store: Some(store), last: Progress::default(), now_ms: 0, notices: Vec::new() }
    }
}

fn progress(totals: &Totals, gaps: Gaps) -> Progress {
    Progress {
        active: totals.active,
        peak_active: totals.peak,
        alerts: totals.alerts,
        left_out: totals.left_out,
        gaps,
    }
}

impl Sink for StoreSink {
    fn event(&mut self, event: &Event) {
        if let Some(store) = &self.store {
            store.push(event);
        }
    }

    fn named(&mut self, event: &Event, _before: &Domain) {
        if let Some(store) = &self.store {
            store.update_domain(event.connection, &event.domain, event.class);
        }
    }

    fn also_named(&mut self, connection: ConnectionId, name: &KnownName) {
        if let Some(store) = &self.store {
            store.add_name(connection, name);
        }
    }

    fn alerted(&mut self, connection: ConnectionId) {
        if let Some(store) = &self.store {
            store.mark_alert(connection);
        }
    }

    fn tick(&mut self, frame: &Frame<'_>) {
        self.now_ms = frame.now.unix_ms;
        let progress = progress(frame.totals, frame.health.gaps);
        if progress != self.last
            && let Some(store) = &self.store
        {
            store.progress(progress);
            self.last = progress;
        }
    }

    fn finish(&mut self, summary: &mut Summary) {
        let Some(store) = self.store.take() else { return };
        self.notices.extend(store.take_warnings());
        let finished = store.finish(progress(&summary.totals, summary.health.gaps), self.now_ms);
        self.notices.extend(finished.warnings);
        summary.health.gaps.add(Gap::SqliteDropped, finished.dropped);
        if finished.names_dropped > 0 {
            self.notices.push(format!(
                "warning: {} names or alerts came too late for the rows of their connections",
                finished.names_dropped
            ));
        }
        if let Some(error) = finished.error {
            self.notices.push(format!("warning: the end of the history was not written: {error}"));
        }
    }

    fn take_notices(&mut self) -> Vec<String> {
        if let Some(store) = &self.store {
            self.notices.extend(store.take_warnings());
        }
        std::mem::take(&mut self.notices)
    }
}
