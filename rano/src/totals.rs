//! The running sums of an observation: what the summary and the stats show and `sessions` keeps.

mod agents;
mod endpoints;
mod pairs;
mod ranking;
mod standings;
mod strays;

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use crate::connection::Connection;
use crate::event::{Address, Bytes, Class, EventKind, KnownName, Role};
use crate::process::LeftOut;

#[cfg(feature = "cli")]
pub use agents::{AgentStanding, Last};
pub use endpoints::EndpointTally;
use endpoints::Endpoints;
use pairs::{Pairs, Path};
pub use ranking::Ranking;
use standings::Tallies;
#[cfg(feature = "cli")]
pub use standings::{ProviderStanding, Standing};
pub use standings::{Standings, View};
pub use strays::Strays;

/// Sums over all events so far.
#[derive(Debug, Clone, Default)]
pub struct Totals {
    pub connects: u64,
    pub closes: u64,
    pub fails: u64,
    pub accepts: u64,
    pub listens: u64,
    /// Connects without a close.
    pub active: u64,
    pub peak: u64,
    /// Of the active ones, those of which it is not known how many bytes they have sent and received.
    pub uncounted: u64,
    /// What left the machine, and what came to it.
    pub bytes: Bytes,
    /// What stayed on it, once where both ends are watched, as the end sees it that reached out.
    pub loopback: Bytes,
    pub alerts: u64,
    /// Alerts that were not given because of a cooldown.
    pub alerts_held_back: u64,
    /// Connects by provider.
    pub providers: BTreeMap<Arc<str>, u64>,
    /// Connects by remote address.
    pub remote_ips: Ranking<IpAddr>,
    /// Connects by name.
    pub domains: Ranking<Arc<str>>,
    /// Connects whose name is not known.
    pub nameless: u64,
    /// Far ends by agent.
    pub endpoints: Endpoints,
    /// What excludes left out.
    pub left_out: LeftOut,
    /// What each class of endpoints came to.
    pub classes: BTreeMap<Class, ClassTotals>,
    /// Connections that only their end revealed; in none of the other sums.
    pub strays: Strays,
    /// Closes whose duration is known, and the sum of these.
    timed: u64,
    duration_sum: Duration,
    tallies: Tallies,
    pairs: Pairs,
}

/// What was summed up of a connection so far: its bytes, and which way they went.
#[derive(Debug, Clone, Copy, Default)]
pub struct Summed(Option<(Path, Bytes)>);

/// Connects to endpoints of one class, and their payload so far.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ClassTotals {
    pub connects: u64,
    pub bytes: Bytes,
}

impl Totals {
    /// That can also tell the standings in `views`: what nobody asked for is not counted.
    pub fn with_views(views: &[View]) -> Self {
        Self { tallies: Tallies::of(views), ..Self::default() }
    }

    /// An event of a connection, which is as it is after it.
    pub fn count(&mut self, kind: EventKind, connection: &Connection) {
        match kind {
            EventKind::Connect => {
                self.connects += 1;
                self.active += 1;
                self.peak = self.peak.max(self.active);
                *self.providers.entry(Arc::clone(&connection.provider)).or_default() += 1;
                if let Some(ip) = connection.remote.as_ref().and_then(Address::ip_addr) {
                    self.remote_ips.count(&ip);
                }
                if connection.relay_for.is_none() {
                    self.count_name(connection);
                    self.classes.entry(connection.class).or_default().connects += 1;
                    self.endpoints.connected(connection);
                }
                self.tallies.connected(connection);
            }
            // That of an accepted one ends nothing that was counted.
            EventKind::Close if connection.role != Role::Connect => {}
            EventKind::Close => {
                self.closes += 1;
                self.active = self.active.saturating_sub(1);
                self.tallies.closed(connection);
                if let Some(duration) = connection.duration() {
                    self.timed += 1;
                    self.duration_sum += duration;
                }
            }
            EventKind::Fail => {
                self.fails += 1;
                self.endpoints.failed(connection);
            }
            EventKind::Accept => self.accepts += 1,
            EventKind::Listen => self.listens += 1,
        }
        self.pairs.note(kind, connection);
    }

    /// The bytes of a connection, in the place of those that were summed up of it before.
    pub fn sum(&mut self, connection: &Connection, summed: &mut Summed) {
        let Some(bytes) = connection.bytes else { return };
        let is_relay = connection.relay_for.is_some();
        if !is_relay {
            let class = &mut self.classes.entry(connection.class).or_default().bytes;
            if let Some((_, before)) = summed.0 {
                take(class, before);
            }
            add(class, bytes);
        }
        if let Some((path, before)) = summed.0
            && let Some(sum) = self.way(path)
        {
            take(sum, before);
        }
        let before = summed.0.map_or_else(Bytes::default, |(_, before)| before);
        self.tallies.summed(connection, before, bytes);
        if !is_relay {
            self.endpoints.summed(connection, before, bytes);
        }
        let path = self.pairs.path(connection);
        if let Some(sum) = self.way(path) {
            add(sum, bytes);
        }
        summed.0 = Some((path, bytes));
    }

    fn way(&mut self, path: Path) -> Option<&mut Bytes> {
        match path {
            Path::Away => Some(&mut self.bytes),
            Path::Within => Some(&mut self.loopback),
            Path::Twin => None,
        }
    }

    /// A connect that was counted goes by another name.
    pub fn renamed(&mut self, connection: &Connection, before: Option<&KnownName>, class_before: Class) {
        self.tallies.renamed(connection);
        if connection.relay_for.is_some() {
            return;
        }
        self.discount_name(before);
        self.count_name(connection);
        if connection.via().is_some() {
            self.endpoints.is_behind_proxy(connection);
        }
        self.endpoints.changed(connection);
        if class_before != connection.class {
            let former = self.classes.entry(class_before).or_default();
            former.connects = former.connects.saturating_sub(1);
            self.classes.entry(connection.class).or_default().connects += 1;
            if let Some(bytes) = connection.bytes {
                take(&mut self.classes.entry(class_before).or_default().bytes, bytes);
                add(&mut self.classes.entry(connection.class).or_default().bytes, bytes);
            }
        }
    }

    /// A connect that was counted relays what another connection stands for.
    pub fn relayed(&mut self, connection: &Connection) {
        self.discount_name(connection.name.as_ref());
        let bytes = connection.bytes.unwrap_or_default();
        let class = self.classes.entry(connection.class).or_default();
        class.connects = class.connects.saturating_sub(1);
        take(&mut class.bytes, bytes);
        self.endpoints.relayed(connection);
    }

    fn count_name(&mut self, connection: &Connection) {
        match &connection.name {
            Some(known) => self.domains.count(&known.shown()),
            None => self.nameless += 1,
        }
    }

    fn discount_name(&mut self, name: Option<&KnownName>) {
        match name {
            Some(known) => self.domains.discount(&known.shown()),
            None => self.nameless = self.nameless.saturating_sub(1),
        }
    }

    /// A connection gave reason for an alert between its events.
    pub fn marked(&mut self, connection: &Connection) {
        if connection.alert {
            self.endpoints.changed(connection);
        }
    }

    /// The `top` of each view that is counted.
    pub fn standings(&self, top: usize) -> Standings {
        self.tallies.standings(self, top)
    }

    /// Of the connections whose duration is known.
    fn average_duration(&self) -> Duration {
        self.duration_sum.checked_div(u32::try_from(self.timed).unwrap_or(u32::MAX)).unwrap_or_default()
    }
}

fn add(sum: &mut Bytes, bytes: Bytes) {
    sum.sent = sum.sent.saturating_add(bytes.sent);
    sum.received = sum.received.saturating_add(bytes.received);
}

fn take(sum: &mut Bytes, bytes: Bytes) {
    sum.sent = sum.sent.saturating_sub(bytes.sent);
    sum.received = sum.received.saturating_sub(bytes.received);
}
