//! Live stats: what is counted and when the block is due. Running counts over a bounded number of keys, so that their
//! cost does not grow with history.

mod views;

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use rustc_hash::FxHashSet;

use crate::event::{Address, Domain, Event, EventKind, Moment};
use crate::output::style::Styles;
use crate::totals::{Ranking, Totals};

pub use views::Line;

/// What a block is counted by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum View {
    Provider,
    Domain,
    Port,
    Process,
}

impl View {
    pub const ALL: [Self; 4] = [Self::Provider, Self::Domain, Self::Port, Self::Process];

    pub const fn name(self) -> &'static str {
        match self {
            Self::Provider => "provider",
            Self::Domain => "domain",
            Self::Port => "port",
            Self::Process => "process",
        }
    }
}

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

/// The state behind the block.
pub struct LiveStats {
    settings: StatsSettings,
    /// The first tick, from which cycles are counted.
    started: Option<Moment>,
    next: Moment,
    providers: BTreeMap<Arc<str>, ProviderStats>,
    domains: Ranking<Arc<str>>,
    /// Connects whose name is not known.
    nameless: u64,
    ports: Ranking<u16>,
    processes: Ranking<String>,
    closes: u64,
    duration_sum: Duration,
}

#[derive(Default)]
struct ProviderStats {
    connects: u64,
    domains: Distinct<Arc<str>>,
    ips: Distinct<IpAddr>,
}

impl LiveStats {
    /// Views that are given twice are shown once.
    pub fn new(mut settings: StatsSettings) -> Self {
        let mut seen = Vec::new();
        settings.views.retain(|view| {
            !seen.contains(view) && {
                seen.push(*view);
                true
            }
        });
        Self {
            settings,
            started: None,
            next: Moment::default(),
            providers: BTreeMap::new(),
            domains: Ranking::default(),
            nameless: 0,
            ports: Ranking::default(),
            processes: Ranking::default(),
            closes: 0,
            duration_sum: Duration::ZERO,
        }
    }

    /// Counts for the views that are shown, and no others.
    pub fn event(&mut self, event: &Event) {
        match event.kind {
            EventKind::Connect => {
                for at in 0..self.settings.views.len() {
                    self.connected(self.settings.views[at], event);
                }
            }
            EventKind::Close => {
                if let Some(duration) = event.duration {
                    self.closes += 1;
                    self.duration_sum += duration;
                }
            }
            EventKind::Fail | EventKind::Accept | EventKind::Listen => {}
        }
    }

    fn connected(&mut self, view: View, event: &Event) {
        match view {
            View::Provider => {
                let stats = self.provider(&event.provider);
                stats.connects += 1;
                if let Some(ip) = event.remote.as_ref().and_then(Address::ip_addr) {
                    stats.ips.add(&ip);
                }
                if let Domain::Observed { name, .. } = &event.domain {
                    stats.domains.add(name);
                }
            }
            View::Domain => match &event.domain {
                Domain::Observed { name, .. } => self.domains.count(name),
                Domain::Unknown => self.nameless += 1,
            },
            View::Port => {
                if let Some(Address::Ip(remote)) = event.remote {
                    self.ports.count(&remote.port());
                }
            }
            View::Process => match &event.process {
                Some(process) => self.processes.count(process.comm.as_str()),
                None => self.processes.count("unknown"),
            },
        }
    }

    /// A connection that was counted as `before` got a name.
    pub fn named(&mut self, event: &Event, before: &Domain) {
        let Domain::Observed { name, .. } = &event.domain else { return };
        for at in 0..self.settings.views.len() {
            match self.settings.views[at] {
                View::Provider => {
                    self.provider(&event.provider).domains.add(name);
                }
                View::Domain => {
                    match before {
                        Domain::Unknown => self.nameless = self.nameless.saturating_sub(1),
                        Domain::Observed { name: former, .. } => self.domains.discount(former),
                    }
                    self.domains.count(name);
                }
                View::Port | View::Process => {}
            }
        }
    }

    fn provider(&mut self, name: &Arc<str>) -> &mut ProviderStats {
        if !self.providers.contains_key(name) {
            self.providers.insert(Arc::clone(name), ProviderStats::default());
        }
        self.providers.get_mut(name).expect("it is there by now")
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

    fn cycles(&self) -> bool {
        self.settings.views.len() > 1 && !self.settings.cycle.is_zero()
    }

    /// Nanoseconds since the first tick.
    fn running(&self, now: Moment) -> u64 {
        now.boot_ns.saturating_sub(self.started.unwrap_or(now).boot_ns)
    }

    /// What is shown at `now`.
    fn current(&self, now: Moment) -> &[View] {
        let views = &self.settings.views;
        if !self.cycles() {
            return views;
        }
        let turn = self.running(now) / nanos(self.settings.cycle);
        let at = usize::try_from(turn % views.len() as u64).expect("a remainder of a usize fits one");
        &views[at..=at]
    }

    /// The lines of the block at `now`, none wider and together not higher than `room`.
    pub fn render(&self, now: Moment, totals: &Totals, room: Room, styles: &Styles) -> Vec<Line> {
        let current = self.current(now);
        // A heading, a line for what is left out, the provider view's last line.
        let rows = room.rows / current.len().max(1);
        let top = self.settings.top.min(rows.saturating_sub(3).max(1));
        let mut lines: Vec<Line> =
            current.iter().flat_map(|view| self.view(*view, totals, top, room.columns, styles)).collect();
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

/// How many different values there were, up to a bound above which it says `4096+`.
struct Distinct<K>(FxHashSet<K>);

impl<K> Default for Distinct<K> {
    fn default() -> Self {
        Self(FxHashSet::default())
    }
}

impl<K: Eq + std::hash::Hash + Clone> Distinct<K> {
    const MAX: usize = 4096;

    fn add(&mut self, key: &K) {
        if self.0.len() < Self::MAX && !self.0.contains(key) {
            self.0.insert(key.clone());
        }
    }

    fn count(&self) -> String {
        let more = if self.0.len() == Self::MAX { "+" } else { "" };
        format!("{}{more}", self.0.len())
    }
}
