//! Live stats: when the block is due, and how the standings are drawn.

use std::collections::HashMap;
use std::time::Duration;

use crate::event::{Bytes, Moment};
use crate::output::stats::{self, Line, Rates};
use crate::output::style::Styles;
use crate::process::ProcessId;
use crate::totals::{Standing, Standings, View};

/// How the block looks and how often it is made.
#[derive(Debug, Clone)]
pub struct StatsSettings {
    /// Zero for a block at the end only.
    pub interval: Duration,
    /// Columns of a bar.
    pub width: usize,
    /// Most lines of a view.
    pub top: usize,
    /// One below the other, or one after the other with a cycle.
    pub views: Vec<View>,
    /// How long each view stays; zero for all at once.
    pub cycle: Duration,
}

/// The room there is for a block.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Room {
    pub columns: usize,
    pub rows: usize,
}

impl Room {
    /// A file or a pipe.
    pub const ENDLESS: Self = Self { columns: usize::MAX, rows: usize::MAX };
}

/// When the block is drawn, and which part of it.
pub struct LiveStats {
    settings: StatsSettings,
    /// The first tick, from which cycles are counted.
    started: Option<Moment>,
    next: Moment,
    pace: Pace,
}

/// What agents had sent and received at a tick, and how much a second since the one before.
#[derive(Default)]
struct Pace {
    at: Moment,
    sums: HashMap<Option<ProcessId>, Bytes>,
    rates: Rates,
}

impl Pace {
    fn take(&mut self, now: Moment, standings: &Standings) {
        let passed = now.since(self.at).as_millis();
        let agents = standings.views.iter().filter_map(|standing| match standing {
            Standing::Agents { rows, .. } => Some(rows),
            Standing::Providers { .. } | Standing::Ranked { .. } => None,
        });
        let sums: HashMap<_, _> = agents.flatten().map(|agent| (agent.id, agent.bytes)).collect();
        let a_second = |now: u64, before: u64| {
            let bytes = u128::from(now.saturating_sub(before)) * 1000;
            u64::try_from(bytes.checked_div(passed).unwrap_or(0)).unwrap_or(u64::MAX)
        };
        // One that was not counted before has no rate yet.
        let known = sums.iter().filter_map(|(id, now)| Some((*id, now, self.sums.get(id)?)));
        let rates = known.map(|(id, now, before)| {
            let sent = a_second(now.sent, before.sent);
            (id, Bytes { sent, received: a_second(now.received, before.received) })
        });
        self.rates = rates.collect();
        (self.at, self.sums) = (now, sums);
    }
}

impl LiveStats {
    pub fn new(settings: StatsSettings) -> Self {
        Self { settings, started: None, next: Moment::default(), pace: Pace::default() }
    }

    pub fn has_views(&self) -> bool {
        !self.settings.views.is_empty()
    }

    /// `None` where the block is made once.
    pub fn interval(&self) -> Option<Duration> {
        Some(self.settings.interval).filter(|interval| !interval.is_zero())
    }

    /// Most lines of a view.
    pub fn top(&self) -> usize {
        self.settings.top
    }

    pub fn next_tick(&self) -> Moment {
        self.next
    }

    /// Whether the block is due; the next one is then due an interval, or a change of view, later.
    pub fn due(&mut self, now: Moment) -> bool {
        let is_first = self.started.is_none();
        self.started.get_or_insert(now);
        let due = now.boot_ns >= self.next.boot_ns;
        if due {
            let mut wait = nanos(self.settings.interval);
            if self.cycles() {
                let cycle = nanos(self.settings.cycle);
                wait = wait.min(cycle - self.running(now) % cycle);
            }
            let boot_ns = now.boot_ns.saturating_add(wait);
            self.next = Moment { boot_ns, unix_ms: now.unix_ms };
        }
        due && !is_first
    }

    /// A tick was due: rates are those since the one before.
    pub fn ticked(&mut self, now: Moment, standings: &Standings) {
        self.pace.take(now, standings);
    }

    fn cycles(&self) -> bool {
        self.settings.views.len() > 1 && !self.settings.cycle.is_zero()
    }

    /// Nanoseconds since the first tick.
    fn running(&self, now: Moment) -> u64 {
        now.boot_ns.saturating_sub(self.started.unwrap_or(now).boot_ns)
    }

    /// What is shown at `now`.
    fn current<'a>(&self, now: Moment, views: &'a [Standing]) -> &'a [Standing] {
        if !self.cycles() || views.is_empty() {
            return views;
        }
        let turn = self.running(now) / nanos(self.settings.cycle);
        let at = usize::try_from(turn % views.len() as u64).expect("a remainder of a usize fits one");
        &views[at..=at]
    }

    /// The lines of the block at `now`, none wider and together not higher than `room`.
    pub fn render(&self, now: Moment, standings: &Standings, room: Room, styles: &Styles) -> Vec<Line> {
        let current = self.current(now, &standings.views);
        // A heading, a line for what is left out, the provider view's last line.
        let rows = room.rows / current.len().max(1);
        let top = self.settings.top.min(rows.saturating_sub(3).max(1));
        let mut lines: Vec<Line> = Vec::new();
        for standing in current {
            let size = (self.settings.width, top);
            lines.extend(stats::lines(standing, standings, &self.pace.rates, size, room.columns, styles));
        }
        lines.truncate(room.rows);
        lines
    }
}

/// Never, for a duration of zero.
fn nanos(duration: Duration) -> u64 {
    match u64::try_from(duration.as_nanos()) {
        Ok(0) | Err(_) => u64::MAX,
        Ok(nanoseconds) => nanoseconds,
    }
}
