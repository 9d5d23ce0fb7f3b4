//! What is worth a warning. A pure judge: it is shown every event before any sink sees it and told how far time has
//! come; it answers with what to say. Its state is bounded by the connections that are open and the cooldowns that run.

mod endpoints;
mod seen;
mod waits;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use rustc_hash::FxHashMap;

use crate::bounded::Bounded;
use crate::change::SocketId;
use crate::connection::Connection;
use crate::event::{Address, Class, ConnectionId, DomainSource, Moment};
use crate::glob::{Glob, folded_name};
use crate::process::ProcessId;
use endpoints::is_settled;
pub use seen::{Reached, SeenEndpoints};
use waits::{Place, Waits};

/// How long a connection may be without a name before that is remarkable: a look-up takes its time.
pub const NAME_PATIENCE: Duration = Duration::from_secs(2);

/// How often the bytes of open connections are read for their limit.
const COUNTED_EVERY: Duration = Duration::from_secs(1);

/// Subjects whose cooldown is remembered.
const COOLDOWNS_MAX: usize = 1 << 14;

/// What raises an alert; all of it is off by default.
#[derive(Debug, Clone, Default)]
pub struct AlertRules {
    /// What a name is compared with.
    pub domains: Vec<Glob>,
    /// Most connections that may be active at a time.
    pub max_connections: Option<u64>,
    /// The same for each provider.
    pub max_per_provider: Option<u64>,
    /// Longest time a connection may be open.
    pub duration: Option<Duration>,
    /// An endpoint without a name is worth an alert.
    pub unknown_domain: bool,
    /// Most bytes that a connection may send.
    pub sent: Option<u64>,
    /// Classes of endpoints.
    pub classes: Vec<Class>,
    /// Others than these are new.
    pub seen: Option<SeenEndpoints>,
    /// Time in which the same kind about the same subject is not said again.
    pub cooldown: Duration,
}

impl AlertRules {
    /// Nothing can ever raise an alert.
    pub fn is_empty(&self) -> bool {
        self.domains.is_empty()
            && self.max_connections.is_none()
            && self.max_per_provider.is_none()
            && self.duration.is_none()
            && !self.unknown_domain
            && self.sent.is_none()
            && self.classes.is_empty()
            && self.seen.is_none()
    }
}

/// Why an alert was raised.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reason {
    /// `is_possible`: it is one of several names that the connection may go by, or only other users say so.
    DomainMatch {
        pattern: Arc<str>,
        domain: Arc<str>,
        is_possible: bool,
    },
    MaxConnections {
        active: u64,
        limit: u64,
    },
    MaxPerProvider {
        provider: Arc<str>,
        active: u64,
        limit: u64,
    },
    LongDuration {
        elapsed: Duration,
        limit: Duration,
    },
    /// `possible`: names of which it is not known whether the connection goes by them.
    UnknownDomain {
        remote: SocketAddr,
        possible: Vec<Arc<str>>,
    },
    /// So far; bytes.
    Sent {
        sent: u64,
        limit: u64,
    },
    /// The agent never reached it before, as far as the history goes back.
    NewEndpoint {
        agent: Arc<str>,
    },
    Class {
        class: Class,
    },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Severity {
    Critical,
    Warning,
}

impl Severity {
    pub const fn name(self) -> &'static str {
        match self {
            Self::Critical => "critical",
            Self::Warning => "warning",
        }
    }
}

impl Reason {
    pub const fn kind(&self) -> &'static str {
        match self {
            Self::DomainMatch { .. } => "domain_match",
            Self::MaxConnections { .. } => "max_connections",
            Self::MaxPerProvider { .. } => "max_per_provider",
            Self::LongDuration { .. } => "long_duration",
            Self::UnknownDomain { .. } => "unknown_domain",
            Self::Sent { .. } => "sent",
            Self::NewEndpoint { .. } => "new_endpoint",
            Self::Class { .. } => "class",
        }
    }

    pub const fn severity(&self) -> Severity {
        match self {
            Self::DomainMatch { .. } => Severity::Critical,
            Self::MaxConnections { .. }
            | Self::MaxPerProvider { .. }
            | Self::LongDuration { .. }
            | Self::UnknownDomain { .. }
            | Self::Sent { .. }
            | Self::NewEndpoint { .. }
            | Self::Class { .. } => Severity::Warning,
        }
    }
}

/// What an open connection waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wait {
    /// To have been open too long.
    Duration,
    /// For a name.
    Name,
    /// For the name that says what the endpoint is.
    Endpoint,
}

/// The judge's notes on one open connection, kept with it.
#[derive(Debug, Clone, Copy, Default)]
pub struct Notes {
    /// It gave reason for an alert, told or held back.
    pub alert: bool,
    /// It waits to have been open too long; `None` once that was said.
    duration: Option<Place>,
    /// It waits for a name.
    name: Option<Place>,
    /// It waits for what its endpoint is.
    endpoint: Option<Place>,
    /// Its class gave reason for an alert.
    class: Option<Class>,
    /// Its endpoint was compared with those that are known.
    is_compared: bool,
    /// So did what it has sent.
    sent: bool,
    /// It was judged before.
    has_begun: bool,
}

/// Whom the cooldown of an alert is about, one for each kind. A duration has none: it is said once a connection. Where
/// a process is what reaches out, the tree it belongs to is part of the subject: what one agent does says nothing of
/// another's. A name that is only possible says nothing of one that is certain.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Subject {
    Everything,
    Provider(Arc<str>),
    Domain { name: Arc<str>, is_possible: bool, tree: Option<ProcessId> },
    Endpoint(SocketAddr, Option<ProcessId>),
    Class { class: Class, name: Option<Arc<str>>, remote: Option<Address>, tree: Option<ProcessId> },
}

/// A name that a connection goes by, or may go by.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Candidate {
    pub name: Arc<str>,
    /// It may be another one.
    pub is_possible: bool,
}

impl Candidate {
    /// The name that a connection is shown with.
    pub fn shown(connection: &Connection) -> Option<Self> {
        let known = connection.name.as_ref()?;
        let is_possible = connection.is_hearsay || known.by == DomainSource::Known;
        Some(Self { name: Arc::clone(&known.name), is_possible })
    }
}

/// Names that are listed with an alert.
const LISTED: usize = 3;

/// A connection whose time has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Due {
    pub socket: SocketId,
    pub connection: ConnectionId,
    pub wait: Wait,
    /// Boot clock at which it came.
    pub boot_ns: u64,
}

/// Decides what is worth an alert.
#[derive(Debug)]
pub struct Judge {
    rules: AlertRules,
    /// Active connections by provider; kept only where there is a limit.
    providers: FxHashMap<Arc<str>, u64>,
    /// For having been open too long.
    durations: Waits,
    /// For a name.
    nameless: Waits,
    /// For what their endpoint is.
    endpoints: Waits,
    cooldowns: Cooldowns,
}

impl Judge {
    pub fn new(rules: AlertRules) -> Self {
        Self {
            cooldowns: Cooldowns::new(rules.cooldown),
            rules,
            providers: FxHashMap::default(),
            durations: Waits::new(),
            nameless: Waits::new(),
            endpoints: Waits::new(),
        }
    }

    /// Alerts that a cooldown kept back.
    pub fn held_back(&self) -> u64 {
        self.cooldowns.held_back
    }

    /// Alerts whose cooldown was forgotten before it was over.
    pub fn without_cooldown(&self) -> u64 {
        self.cooldowns.last.pushed_out()
    }

    /// A connection began; `active` counts it already. `socket` is `None` where its end will not be noticed. `others`
    /// are names that it may go by besides the one that it is shown with.
    pub fn connected(
        &mut self,
        connection: &Connection,
        at: Moment,
        active: u64,
        socket: Option<SocketId>,
        others: &[Candidate],
        notes: &mut Notes,
    ) -> Vec<Reason> {
        let mut reasons = self.names(connection, at, others, notes);
        if let Some(limit) = self.rules.max_connections
            && active > limit
        {
            notes.alert = true;
            if self.cooldowns.allows(Subject::Everything, at) {
                reasons.push(Reason::MaxConnections { active, limit });
            }
        }
        if let Some(limit) = self.rules.max_per_provider {
            let provider = &connection.provider;
            let active = self.providers.entry(Arc::clone(provider)).or_default();
            *active += 1;
            let active = *active;
            let subject = || Subject::Provider(Arc::clone(provider));
            notes.alert |= active > limit;
            if active > limit && self.cooldowns.allows(subject(), at) {
                reasons.push(Reason::MaxPerProvider { provider: Arc::clone(provider), active, limit });
            }
        }
        reasons.extend(self.begin(connection, at, socket, notes));
        if let Some(socket) = socket {
            self.watch(connection, at, socket, notes);
        }
        reasons
    }

    /// What its endpoint is, as far as that is known, or for as long as nobody will know better.
    fn begin(
        &mut self,
        connection: &Connection,
        at: Moment,
        socket: Option<SocketId>,
        notes: &mut Notes,
    ) -> Vec<Reason> {
        notes.has_begun = true;
        let is_settled = is_settled(connection) || socket.is_none();
        if !is_settled
            && self.asks_for_endpoints()
            && let Some(socket) = socket
        {
            let due = at.boot_ns.saturating_add(nanos(NAME_PATIENCE));
            notes.endpoint = self.endpoints.insert(due, connection.id, socket);
        }
        self.endpoint(connection, at, is_settled, notes)
    }

    /// How often the bytes of open connections are to be read.
    pub fn counts_every(&self) -> Option<Duration> {
        self.rules.sent.map(|_| COUNTED_EVERY)
    }

    /// A name became known: any name, not only the one that is shown.
    pub fn named(
        &mut self,
        connection: &Connection,
        at: Moment,
        candidate: &Candidate,
        notes: &mut Notes,
    ) -> Vec<Reason> {
        let mut reasons = Vec::new();
        self.compare(candidate, connection, at, &mut reasons, notes);
        if !candidate.is_possible {
            forget(&mut self.nameless, &mut notes.name);
        }
        if notes.has_begun {
            let is_settled = is_settled(connection);
            if is_settled {
                forget(&mut self.endpoints, &mut notes.endpoint);
            }
            reasons.extend(self.endpoint(connection, at, is_settled, notes));
        }
        reasons
    }

    /// A connection ended.
    pub fn closed(&mut self, connection: &Connection, at: Moment, notes: &mut Notes) -> Vec<Reason> {
        let mut reasons = Vec::new();
        if self.rules.max_per_provider.is_some()
            && let Some(active) = self.providers.get_mut(&connection.provider)
        {
            *active = active.saturating_sub(1);
        }
        let was_not_too_long = forget(&mut self.durations, &mut notes.duration);
        if forget(&mut self.nameless, &mut notes.name) {
            reasons.extend(self.without_name(connection, at, notes));
        }
        forget(&mut self.endpoints, &mut notes.endpoint);
        reasons.extend(self.endpoint(connection, at, true, notes));
        reasons.extend(self.sent(connection, notes));
        // Where the source knows more of its beginning than when it was first seen.
        if let (true, Some(elapsed), Some(limit)) =
            (was_not_too_long, connection.duration(), self.rules.duration)
            && elapsed > limit
        {
            notes.alert = true;
            reasons.push(Reason::LongDuration { elapsed, limit });
        }
        reasons
    }

    /// An attempt failed.
    pub fn failed(
        &mut self,
        connection: &Connection,
        at: Moment,
        others: &[Candidate],
        notes: &mut Notes,
    ) -> Vec<Reason> {
        let mut reasons = self.names(connection, at, others, notes);
        reasons.extend(self.begin(connection, at, None, notes));
        reasons
    }

    /// When there is something to look at without any event.
    pub fn next_due(&self) -> Option<u64> {
        [&self.durations, &self.nameless, &self.endpoints].into_iter().filter_map(Waits::next_due).min()
    }

    /// A connection whose time has come at `boot_ns`; to be asked until there is none.
    pub fn take_due(&mut self, boot_ns: u64) -> Option<Due> {
        let due = self.next_due().filter(|due| *due <= boot_ns)?;
        let (waits, wait) = if self.durations.next_due() == Some(due) {
            (&mut self.durations, Wait::Duration)
        } else if self.nameless.next_due() == Some(due) {
            (&mut self.nameless, Wait::Name)
        } else {
            (&mut self.endpoints, Wait::Endpoint)
        };
        let (boot_ns, connection, socket) = waits.take_first()?;
        Some(Due { socket, connection, wait, boot_ns })
    }

    /// A connection that waits for a name, at the end of a single look: none will come any more.
    pub fn take_nameless(&mut self) -> Option<Due> {
        let (wait, first) = match self.nameless.take_first() {
            Some(first) => (Wait::Name, first),
            None => (Wait::Endpoint, self.endpoints.take_first()?),
        };
        let (boot_ns, connection, socket) = first;
        Some(Due { socket, connection, wait, boot_ns })
    }

    /// What to say about a connection whose time has come at `now`.
    pub fn overdue(
        &mut self,
        wait: Wait,
        connection: &Connection,
        now: Moment,
        notes: &mut Notes,
    ) -> Vec<Reason> {
        match wait {
            Wait::Duration => {
                notes.duration = None;
                notes.alert = true;
                let elapsed = now.since(connection.since);
                let limit = self.rules.duration.into_iter();
                limit.map(|limit| Reason::LongDuration { elapsed, limit }).collect()
            }
            Wait::Name => {
                notes.name = None;
                self.without_name(connection, now, notes).into_iter().collect()
            }
            Wait::Endpoint => {
                notes.endpoint = None;
                self.endpoint(connection, now, true, notes)
            }
        }
    }

    fn watch(&mut self, connection: &Connection, at: Moment, socket: SocketId, notes: &mut Notes) {
        let due = |after: Duration| at.boot_ns.saturating_add(nanos(after));
        if let Some(limit) = self.rules.duration {
            // The first whole millisecond above the limit.
            let due = due(limit.saturating_add(Duration::from_millis(1)));
            notes.duration = self.durations.insert(due, connection.id, socket);
        }
        let is_ip = matches!(connection.remote, Some(Address::Ip(_)));
        if self.rules.unknown_domain && is_ip && is_nameless(connection) {
            notes.name = self.nameless.insert(due(NAME_PATIENCE), connection.id, socket);
        }
    }

    fn names(
        &mut self,
        connection: &Connection,
        at: Moment,
        others: &[Candidate],
        notes: &mut Notes,
    ) -> Vec<Reason> {
        let mut reasons = Vec::new();
        if let Some(shown) = Candidate::shown(connection) {
            self.compare(&shown, connection, at, &mut reasons, notes);
        }
        for candidate in others {
            self.compare(candidate, connection, at, &mut reasons, notes);
        }
        reasons
    }

    /// The first glob that matches speaks for all.
    fn compare(
        &mut self,
        candidate: &Candidate,
        connection: &Connection,
        at: Moment,
        reasons: &mut Vec<Reason>,
        notes: &mut Notes,
    ) {
        let text = folded_name(&candidate.name);
        let Some(glob) = self.rules.domains.iter().find(|glob| glob.matches_name(&text)) else { return };
        notes.alert = true;
        let pattern = Arc::clone(glob.written());
        let is_possible = candidate.is_possible;
        let subject = Subject::Domain { name: text.into(), is_possible, tree: connection.tree };
        if self.cooldowns.allows(subject, at) {
            let domain = Arc::clone(&candidate.name);
            reasons.push(Reason::DomainMatch { pattern, domain, is_possible });
        }
    }

    fn without_name(&mut self, connection: &Connection, at: Moment, notes: &mut Notes) -> Option<Reason> {
        let Some(Address::Ip(remote)) = connection.remote else { return None };
        if !is_nameless(connection) || connection.class == Class::Dns {
            return None;
        }
        notes.alert = true;
        if !self.cooldowns.allows(Subject::Endpoint(remote, connection.tree), at) {
            return None;
        }
        let names = connection.name.iter().chain(&connection.others);
        let possible = names.map(|known| Arc::clone(&known.name)).take(LISTED).collect();
        Some(Reason::UnknownDomain { remote, possible })
    }
}

fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

/// What only other users say is no name.
fn is_nameless(connection: &Connection) -> bool {
    connection.name.is_none() || connection.is_hearsay
}

/// Whether it waited still.
fn forget(waits: &mut Waits, place: &mut Option<Place>) -> bool {
    place.take().map(|place| waits.remove(place)).is_some()
}

/// When something was last said about each subject. The oldest makes room, and may be said again.
#[derive(Debug)]
struct Cooldowns {
    cooldown: Duration,
    last: Bounded<Subject, Moment>,
    held_back: u64,
}

impl Cooldowns {
    fn new(cooldown: Duration) -> Self {
        Self { cooldown, last: Bounded::new(COOLDOWNS_MAX), held_back: 0 }
    }

    fn allows(&mut self, subject: Subject, now: Moment) -> bool {
        if self.cooldown.is_zero() {
            return true;
        }
        let cooldown = self.cooldown;
        let runs = |last: &Moment| now.since(*last) < cooldown;
        if self.last.get(&subject).is_some_and(runs) {
            self.held_back += 1;
            return false;
        }
        // Those that are over come first: each was noted when it was said.
        while self.last.take_oldest_if(|last| !runs(last)).is_some() {}
        self.last.insert(subject, now);
        true
    }
}

#[cfg(test)]
mod tests;
