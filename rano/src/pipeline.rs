//! The loop between a source and the sinks: track → enrich → sinks, in a fixed order. It has no state of its own but
//! for what was said already; it runs on recorded events as on live ones and never reads a clock.

mod alerting;
mod counting;
mod live;
mod naming;
mod outlet;
mod relays;
mod rooms;
mod tracker;

use std::sync::Arc;
use std::time::Duration;

use anyhow::Result;

use crate::alerts::{Judge, Reached, SeenEndpoints};
use crate::event::{Address, Moment};
use crate::health::{Gap, Gaps};
use crate::names::Evidence;
use crate::process::tree::Tree;
use crate::sink::Sink;
use crate::source::{Pumped, Source};
use crate::stop::Stop;
use crate::summary::Summary;
use crate::totals::{EndpointTally, Totals, View};
use crate::update::{Progress, Update};

use alerting::Alerting;
use counting::Counting;
pub use naming::Names;
use naming::{NamingNotes, NamingRoom};
use tracker::Tracker;

/// How long and how often a single look waits for names: 300 ms at most.
const NAME_WAIT: Duration = Duration::from_millis(10);
const NAME_WAITS: u32 = 30;

/// What is shown and stored, of what a source delivers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Scope {
    pub udp: bool,
    /// Transports beside TCP and UDP.
    pub other: bool,
    /// Accepts and listeners.
    pub listening: bool,
    pub unix: bool,
    /// Connections whose owner is not known become events; they are counted in any case.
    pub unattributed: bool,
    /// Attempts that are not established yet are shown at once and not when they succeed: a single look.
    pub pending: bool,
}

/// Runs a source until its end.
pub struct Pipeline {
    tracker: Tracker,
    counting: Counting,
    /// Bounds of which it was said that they were reached.
    full: Vec<Gap>,
    /// What agents have reached before, if that is known.
    seen: Option<SeenEndpoints>,
    /// What is excluded, as the summary says it.
    excludes: Vec<String>,
    /// Said once if the first look finds nobody to watch.
    idle_notice: Option<String>,
    /// Said first.
    warnings: Vec<String>,
    /// Called when the source has begun to deliver.
    ready: Option<Box<dyn FnOnce() + Send>>,
}

impl Pipeline {
    /// `sinks` in the order in which they see an event; the last one shows notices and the summary.
    pub fn new(tree: Tree, scope: Scope, sinks: Vec<Box<dyn Sink>>) -> Self {
        let tracker = Tracker::new(tree, scope, sinks);
        Self {
            counting: Counting::every(tracker.rooms.out.counts_every()),
            tracker,
            full: Vec::new(),
            seen: None,
            excludes: Vec::new(),
            idle_notice: None,
            warnings: Vec::new(),
            ready: None,
        }
    }

    /// How names become known.
    #[must_use]
    pub fn with_names(mut self, names: Names) -> Self {
        self.tracker.rooms.naming = NamingRoom::new(names);
        self
    }

    /// Warns of what `judge` finds.
    #[must_use]
    pub fn with_judge(mut self, judge: Judge) -> Self {
        self.tracker.rooms.alerting = Alerting::new(judge);
        let every = self.tracker.rooms.alerting.counts_every();
        self.counting = Counting::every(every.into_iter().chain(self.tracker.rooms.out.counts_every()).min());
        self
    }

    /// Counts for these views, whose standings sinks are told that asked for a tick.
    #[must_use]
    pub fn with_views(mut self, views: &[View]) -> Self {
        self.tracker.rooms.totals = Totals::with_views(views);
        self
    }

    /// What agents have reached before: the summary then says what is new.
    #[must_use]
    pub fn with_seen(mut self, seen: Option<SeenEndpoints>) -> Self {
        self.seen = seen;
        self
    }

    /// What to say before anything else.
    #[must_use]
    pub fn with_warnings(mut self, warnings: Vec<String>) -> Self {
        self.warnings = warnings;
        self
    }

    /// What the summary is to say is excluded.
    #[must_use]
    pub fn with_excludes(mut self, excludes: Vec<String>) -> Self {
        self.excludes = excludes;
        self
    }

    /// What to say if the first look finds nobody to watch.
    #[must_use]
    pub fn with_idle_notice(mut self, notice: String) -> Self {
        self.idle_notice = Some(notice);
        self
    }

    /// What to call when the source has begun to deliver.
    #[must_use]
    pub fn with_ready(mut self, ready: Box<dyn FnOnce() + Send>) -> Self {
        self.ready = Some(ready);
        self
    }

    /// Observes until the source is exhausted or `stop` is raised. Rankings have `top` lines.
    pub fn run(mut self, source: &mut dyn Source, stop: &Stop, top: usize) -> Result<Summary> {
        let mut outcome = Ok(());
        self.tracker.passed(source.now());
        for warning in std::mem::take(&mut self.warnings) {
            self.say(warning);
        }
        while !stop.is_raised() {
            let counting = self.counting.next_due(&self.tracker);
            let boot_ns = self.tracker.next_due().into_iter().chain(counting).min().unwrap_or(u64::MAX);
            match source.pump(Moment { boot_ns, unix_ms: i64::MAX }, stop, &mut self.tracker) {
                Ok(pumped) => {
                    if let Some(ready) = self.ready.take() {
                        ready();
                    }
                    self.say_if_idle();
                    self.counting.passed(source, &mut self.tracker);
                    self.tick(source, top);
                    if pumped == Pumped::Exhausted {
                        self.wait_for_names(source, stop, top);
                        break;
                    }
                }
                Err(error) => {
                    outcome = Err(error);
                    break;
                }
            }
        }
        if outcome.is_ok() {
            outcome = source.finish(&mut self.tracker);
            source.count(&mut self.tracker);
        }
        self.tracker.finish(source.now());
        self.tick(source, top);
        let summary = self.finish(source, top);
        outcome.map(|()| summary)
    }

    /// Of a single look, while there are any to come, and not for long.
    fn wait_for_names(&mut self, source: &mut dyn Source, stop: &Stop, top: usize) {
        let mut waits = if self.tracker.is_single_look() { NAME_WAITS } else { 0 };
        while waits > 0 && self.tracker.rooms.naming.is_asking() && !stop.is_raised() {
            waits -= 1;
            stop.wait_for(NAME_WAIT);
            self.tick(source, top);
        }
    }

    /// The source has been drained.
    fn tick(&mut self, source: &mut dyn Source, top: usize) {
        let now = source.now();
        for pointer in self.tracker.passed(now) {
            source.learned(&Evidence::Pointer(pointer));
        }
        let counters = self.tracker.counters(source.health().gaps);
        self.say_what_is_full(&counters.gaps);
        let rooms = &mut self.tracker.rooms;
        let standings = rooms.out.wants_tick(now).then(|| rooms.totals.standings(top));
        rooms.out.send(&Update::Progress(Arc::new(Progress { now, counters, standings })));
        rooms.out.pass_notices();
    }

    fn finish(mut self, source: &dyn Source, top: usize) -> Summary {
        let mut health = source.health();
        let counters = self.tracker.counters(health.gaps);
        health.gaps = counters.gaps;
        self.tracker.add_bounds(&mut health.bounds);
        let has_watched = self.tracker.tree.has_tracked();
        let uncounted = self.tracker.live.uncounted();
        let rooms = &mut self.tracker.rooms;
        let mut totals = std::mem::take(&mut rooms.totals);
        totals.uncounted = uncounted;
        totals.alerts = counters.alerts;
        totals.alerts_held_back = rooms.alerting.held_back();
        totals.left_out = counters.left_out;
        if let Some(seen) = &self.seen {
            totals.endpoints.mark_new(|tally| is_new(tally, seen));
        }
        let mut summary = Summary {
            totals,
            health,
            has_watched,
            excludes: self.excludes,
            names: rooms.naming.from().to_owned(),
            top,
            log_lost: 0,
            history_moved: None,
            seal_head: None,
            output_failed: false,
        };
        rooms.out.finish(&mut summary);
        summary
    }

    fn say(&mut self, line: String) {
        self.tracker.rooms.out.say(line);
    }

    fn say_if_idle(&mut self) {
        if let Some(notice) = self.idle_notice.take()
            && self.tracker.tree.tracked().next().is_none()
        {
            self.say(notice);
        }
    }

    /// Once for each bound; how much it cost in the end is in the summary.
    fn say_what_is_full(&mut self, gaps: &Gaps) {
        for gap in Gap::OF_ROOM {
            if gaps.get(gap) > 0 && !self.full.contains(&gap) {
                self.full.push(gap);
                self.say(format!("warning: no room left: {}; counted in the summary", gap.meaning()));
            }
        }
    }
}

fn is_new(tally: &EndpointTally, seen: &SeenEndpoints) -> bool {
    let remote = match tally.remote {
        Address::Ip(remote) => Some(remote),
        Address::Host(_) | Address::Path(_) => None,
    };
    let Some((agent, _)) = tally.agent.as_ref().filter(|_| remote.is_some()) else { return false };
    !seen.has(Reached { agent, name: tally.sure_name(), remote })
}

#[cfg(test)]
mod tests;
