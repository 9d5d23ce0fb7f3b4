//! Any source together with the names that somebody else sees: their evidence takes its place among the source's
//! changes, in the order of time.

use anyhow::Result;

use crate::event::{Moment, Protocol, SourceKind};
use crate::health::Gap;
use crate::names::feed::Feed;
use crate::names::{Evidence, Party};
use crate::process::{ProcessChange, ProcessId, Verdict};
use crate::source::{Intake, Open, Pumped, SocketChange, Source, SourceHealth, Stray};
use crate::stop::Stop;

/// Evidence that is passed on at once, before the source has its turn again.
const BATCH: usize = 1024;

pub struct Named {
    inner: Box<dyn Source>,
    feed: Feed,
    /// What the source is given to wait for: the stop it was made of, or the feed's bell.
    either: Option<Stop>,
}

impl Named {
    pub fn new(inner: Box<dyn Source>, feed: Feed) -> Self {
        Self { inner, feed, either: None }
    }

    /// The stop never changes while the source is pumped.
    fn either(&mut self, stop: &Stop) -> Result<Stop> {
        if let Some(either) = &self.either {
            return Ok(either.clone());
        }
        let either = match self.feed.bell() {
            Some(bell) => stop.or_bell(bell)?,
            None => stop.clone(),
        };
        self.either = Some(either.clone());
        Ok(either)
    }
}

/// Before the first event of a recording there is no time.
fn deliver(feed: &mut Feed, now: Moment, intake: &mut dyn Intake) {
    if now == Moment::default() {
        return;
    }
    for _ in 0..BATCH {
        let Some(evidence) = feed.take(now) else { return };
        intake.evidence(evidence);
    }
    if let Some(bell) = feed.bell() {
        bell.ring();
    }
}

/// Lets evidence through before each change.
struct Ordered<'a> {
    feed: &'a mut Feed,
    intake: &'a mut dyn Intake,
}

impl Intake for Ordered<'_> {
    fn process(&mut self, change: ProcessChange) -> Verdict {
        self.intake.process(change)
    }

    fn socket(&mut self, change: SocketChange) {
        deliver(self.feed, change.at(), self.intake);
        self.intake.socket(change);
    }

    fn evidence(&mut self, evidence: Evidence) {
        self.intake.evidence(evidence);
    }

    fn unattributed(&mut self, count: u64) {
        self.intake.unattributed(count);
    }

    fn stray(&mut self, stray: Stray) {
        self.intake.stray(stray);
    }

    fn left_out(&mut self, connections: u64) {
        self.intake.left_out(connections);
    }

    fn newly_tracked(&mut self) -> Vec<ProcessId> {
        self.intake.newly_tracked()
    }

    fn verdict(&self, id: ProcessId) -> Verdict {
        self.intake.verdict(id)
    }

    fn watches(&self, party: Party) -> bool {
        self.intake.watches(party)
    }

    fn open(&self, protocol: Protocol) -> Vec<Open> {
        self.intake.open(protocol)
    }
}

impl Source for Named {
    fn kind(&self) -> SourceKind {
        self.inner.kind()
    }

    fn pump(&mut self, until: Moment, stop: &Stop, intake: &mut dyn Intake) -> Result<Pumped> {
        let either = self.either(stop)?;
        if let Some(bell) = self.feed.bell() {
            bell.answer();
        }
        deliver(&mut self.feed, self.inner.now(), intake);
        self.inner.pump(until, &either, &mut Ordered { feed: &mut self.feed, intake })
    }

    fn finish(&mut self, intake: &mut dyn Intake) -> Result<()> {
        deliver(&mut self.feed, self.inner.now(), intake);
        self.inner.finish(&mut Ordered { feed: &mut self.feed, intake })?;
        deliver(&mut self.feed, self.inner.now(), intake);
        Ok(())
    }

    fn count(&mut self, intake: &mut dyn Intake) {
        self.inner.count(&mut Ordered { feed: &mut self.feed, intake });
    }

    fn health(&self) -> SourceHealth {
        let mut health = self.inner.health();
        health.gaps.add(Gap::NamesLost, self.feed.lost());
        if let Some(problem) = self.feed.problem() {
            health.reason =
                Some(health.reason.map_or(problem.clone(), |reason| format!("{reason}; {problem}")));
        }
        health
    }

    fn now(&self) -> Moment {
        self.inner.now()
    }
}
