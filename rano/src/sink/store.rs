//! Hands events to the store, whose own thread writes them.

use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::output::escape::Escaped;
use crate::sink::{Sink, SinkReport};
use crate::store::Store;
use crate::summary::Summary;
use crate::update::Update;

/// Told of the file that is written from now on.
pub type OnMove = Box<dyn FnMut(&Path) + Send>;

/// The history of this run.
pub struct StoreSink {
    /// `None` once finished.
    store: Option<Store>,
    /// Unix milliseconds of the last tick: what the session's end is, if nothing else tells.
    now_ms: i64,
    notices: Vec<String>,
    path: PathBuf,
    on_move: OnMove,
    flush_interval: Duration,
}

impl StoreSink {
    /// What the database lacks is no older than `flush_interval`.
    pub fn new(store: Store, on_move: OnMove, flush_interval: Duration) -> Self {
        let path = store.path();
        Self { store: Some(store), now_ms: 0, notices: Vec::new(), path, on_move, flush_interval }
    }

    /// What SQLite says may quote the file, and its path may be anything.
    fn notice(&mut self, notice: &str) {
        self.notices.push(Escaped(notice).to_string());
    }
}

impl Sink for StoreSink {
    fn update(&mut self, update: &Update) {
        let Some(store) = &self.store else { return };
        store.push(update);
        if let Update::Progress(progress) = update {
            self.now_ms = progress.now.unix_ms;
            let path = store.path();
            if path != self.path {
                (self.on_move)(&path);
                self.path = path;
            }
        }
    }

    fn counts_every(&self) -> Option<Duration> {
        Some(self.flush_interval)
    }

    fn finish(&mut self, summary: &Summary) -> SinkReport {
        let Some(store) = self.store.take() else { return SinkReport::default() };
        let finished = store.finish(summary.counters(), self.now_ms);
        for warning in &finished.warnings {
            self.notice(warning);
        }
        if finished.names_dropped > 0 {
            self.notice(&format!(
                "warning: {} names or alerts came too late for the rows of their connections",
                finished.names_dropped
            ));
        }
        if let Some(error) = &finished.error {
            self.notice(&format!("warning: the end of the history was not written: {error}"));
        }
        SinkReport {
            sqlite_dropped: finished.dropped,
            has_failed: finished.error.is_some() || finished.moved_to.is_some(),
            history_moved: finished.moved_to,
            seal_head: finished.head,
            ..SinkReport::default()
        }
    }

    fn take_notices(&mut self) -> Vec<String> {
        if let Some(store) = &self.store {
            let warnings = store.take_warnings();
            for warning in &warnings {
                self.notice(warning);
            }
        }
        std::mem::take(&mut self.notices)
    }
}

/// A history that cannot be begun: what it lacks is counted, and the observation goes on.
pub struct LostHistory {
    events: u64,
    notices: Vec<String>,
}

impl LostHistory {
    /// `why`: as it is told, escaped.
    pub fn new(why: &str) -> Self {
        Self { events: 0, notices: vec![format!("warning: {why}; events are counted as lost")] }
    }
}

impl Sink for LostHistory {
    fn update(&mut self, update: &Update) {
        self.events += u64::from(matches!(update, Update::Event(_)));
    }

    fn finish(&mut self, _: &Summary) -> SinkReport {
        SinkReport { sqlite_dropped: self.events, has_failed: true, ..SinkReport::default() }
    }

    fn take_notices(&mut self) -> Vec<String> {
        std::mem::take(&mut self.notices)
    }
}
