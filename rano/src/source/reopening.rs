//! Any source, interrupted when log files are to be opened again: also where nothing happens.

use anyhow::Result;

use crate::event::{Moment, SourceKind};
use crate::names::Evidence;
use crate::source::{Intake, Pumped, Source, SourceHealth};
use crate::stop::{ReopenLogs, Stop};

pub struct Reopening {
    inner: Box<dyn Source>,
    reopen: ReopenLogs,
    /// What the source is given to wait for.
    either: Option<Stop>,
}

impl Reopening {
    pub fn new(inner: Box<dyn Source>, reopen: ReopenLogs) -> Self {
        Self { inner, reopen, either: None }
    }

    /// The stop never changes while the source is pumped.
    fn either(&mut self, stop: &Stop) -> Result<Stop> {
        if let Some(either) = &self.either {
            return Ok(either.clone());
        }
        let either = stop.or_bell(&self.reopen.bell)?;
        Ok(self.either.insert(either).clone())
    }
}

impl Source for Reopening {
    fn kind(&self) -> SourceKind {
        self.inner.kind()
    }

    fn pump(&mut self, until: Moment, stop: &Stop, intake: &mut dyn Intake) -> Result<Pumped> {
        let either = self.either(stop)?;
        // Whoever opens the logs again looks between two pumps.
        if self.reopen.bell.answer() {
            return Ok(Pumped::More);
        }
        self.inner.pump(until, &either, intake)
    }

    fn count(&mut self, intake: &mut dyn Intake) {
        self.inner.count(intake);
    }

    fn learned(&mut self, evidence: &Evidence) {
        self.inner.learned(evidence);
    }

    fn finish(&mut self, intake: &mut dyn Intake) -> Result<()> {
        self.inner.finish(intake)
    }

    fn health(&self) -> SourceHealth {
        self.inner.health()
    }

    fn now(&self) -> Moment {
        self.inner.now()
    }
}
