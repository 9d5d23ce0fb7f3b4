//! DNS answers by the addresses they gave, and which of them a connection to such an address may be owed to.
//!
//! An answer names connections for as long as its TTL and [`GRACE`] last. Where several names were answered with one
//! address, a connection goes by the one that was answered since the last connection, as long as lookups and connections
//! alternate; otherwise any of them may be meant, and none is chosen.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use rustc_hash::FxHashMap;

use crate::event::{DomainSource, KnownName, Protocol};
use crate::names::Answer;
use crate::process::ProcessId;

/// An answer is taken to be held for this much longer than its TTL: between lookup and connect lies the time of the
/// program, which may try another address first.
pub const GRACE: Duration = Duration::from_secs(10);
/// A TTL that is longer is taken for this long: programs ask again sooner, and the room is for those that were asked lately.
const TTL_MAX: Duration = Duration::from_hours(1);
/// Addresses that are kept. Some hundred bytes each.
const ADDRESSES_MAX: usize = 1 << 14;
/// Names that are kept of one address and receiver; with more of them nobody can say which one is meant.
const NAMES_MAX: usize = 32;
/// Uses of names that are remembered.
const USES_MAX: usize = 1 << 14;

/// Who received an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Receiver {
    /// `None`: nobody who is known, a resolver daemon perhaps.
    pub process: Option<ProcessId>,
    /// The root of the tracked tree it belongs to.
    pub root: Option<ProcessId>,
}

/// A connection for which a name is wanted.
#[derive(Debug, Clone, Copy)]
pub struct Connect {
    pub address: IpAddr,
    /// A UDP socket is often only a probe for a route; it has no bearing on TCP.
    pub protocol: Protocol,
    pub by: Receiver,
    pub at_ns: u64,
    /// `at_ns` is when it began, and not when it was first seen: only then is what was answered before surely older.
    pub exact: bool,
}

/// What the answers say of a connection.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Found {
    pub name: Option<KnownName>,
    /// What else it may be, or where nothing is chosen, all that it may be.
    pub others: Vec<KnownName>,
}

/// Whose connections count for the alternation of lookups and connections.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Scope {
    Process(ProcessId),
    Tree(ProcessId),
    Everybody,
}

impl Scope {
    /// Narrow ones first: who was answered itself, then who is kin to it, then anybody.
    fn all_of(by: Receiver) -> impl Iterator<Item = Self> {
        let process = by.process.map(Self::Process);
        let tree = by.root.map(Self::Tree);
        process.into_iter().chain(tree).chain([Self::Everybody])
    }

    fn holds(self, receiver: Receiver) -> bool {
        match self {
            Self::Process(process) => receiver.process == Some(process),
            Self::Tree(root) => receiver.root == Some(root),
            Self::Everybody => true,
        }
    }

    fn source(self, exact: bool) -> DomainSource {
        match self {
            Self::Process(_) | Self::Tree(_) if exact => DomainSource::Dns,
            Self::Process(_) | Self::Tree(_) | Self::Everybody => DomainSource::SharedDns,
        }
    }
}

#[derive(Debug)]
struct Lookup {
    name: Arc<str>,
    receiver: Receiver,
    /// Of the answers that followed one another before the one before had run out.
    first_ns: u64,
    last_ns: u64,
    until_ns: u64,
}

impl Lookup {
    fn is_valid(&self, at_ns: u64) -> bool {
        self.first_ns <= at_ns && at_ns <= self.until_ns
    }

    /// When it was answered last before a time at which it is valid.
    fn answered_ns(&self, before_ns: u64) -> u64 {
        if self.last_ns <= before_ns { self.last_ns } else { self.first_ns }
    }
}

#[derive(Debug, Default)]
struct Page {
    lookups: Vec<Lookup>,
    /// Until then there may have been names that found no room.
    crowded_until_ns: u64,
}

/// All answers that may still name something.
#[derive(Debug, Default)]
pub struct Lookups {
    /// Keys come from the network, hence the keyed hash of the standard library.
    pages: HashMap<IpAddr, Page>,
    /// Names that were connected to, and a number for each, so that only here something long is hashed.
    used_names: HashMap<Arc<str>, u32>,
    /// When a name was last connected to.
    uses: FxHashMap<(Scope, Protocol, u32), u64>,
    /// No page runs out before this time, as far as was looked.
    tidy_at_ns: u64,
    /// Answers that found no room.
    pub forgotten: u64,
}

impl Lookups {
    pub fn answered(&mut self, answer: &Answer, receiver: Receiver) {
        let at_ns = answer.at.boot_ns;
        for &(address, ttl) in &answer.addresses {
            let lasts = ttl.min(TTL_MAX) + GRACE;
            let until_ns = at_ns.saturating_add(u64::try_from(lasts.as_nanos()).unwrap_or(u64::MAX));
            if let Some(page) = self.page(address.to_canonical(), at_ns) {
                let has_room = page.note(&answer.asked, receiver, at_ns, until_ns);
                self.forgotten += u64::from(!has_room);
            } else {
                self.forgotten += 1;
            }
        }
    }

    fn page(&mut self, address: IpAddr, now_ns: u64) -> Option<&mut Page> {
        if self.pages.len() >= ADDRESSES_MAX && !self.pages.contains_key(&address) {
            if now_ns < self.tidy_at_ns {
                return None;
            }
            self.pages.retain(|_, page| {
                page.crowded_until_ns >= now_ns || page.lookups.iter().any(|lookup| lookup.until_ns >= now_ns)
            });
            if self.pages.len() >= ADDRESSES_MAX {
                self.tidy_at_ns = now_ns.saturating_add(1_000_000_000);
                return None;
            }
        }
        Some(self.pages.entry(address).or_default())
    }

    /// Names a connection, and remembers that it was made.
    pub fn connected(&mut self, connect: Connect) -> Found {
        let Some(page) = self.pages.get(&connect.address) else { return Found::default() };
        let mut found = Found::default();
        let mut decided = false;
        for scope in Scope::all_of(connect.by) {
            let by = scope.source(connect.exact);
            let names = page.names(scope, connect.at_ns);
            if names.is_empty() {
                continue;
            }
            let chosen = if decided { None } else { self.choose(page, scope, connect, &names) };
            // Ambiguous here is not made up for by what strangers asked.
            decided = true;
            for name in names {
                let known = KnownName { name, by };
                if Some(&known.name) == chosen.as_ref() {
                    found.name = Some(known);
                } else if !found.all().any(|other| other.name == known.name) {
                    found.others.push(known);
                }
            }
        }
        if let Some(KnownName { name, .. }) = &found.name {
            let name = Arc::clone(name);
            self.used(connect, &name);
        }
        found
    }

    /// A connection goes by `name` for other reasons: it is no longer open for the next one.
    pub fn used(&mut self, connect: Connect, name: &Arc<str>) {
        if self.uses.len() >= USES_MAX {
            // What is forgotten counts as not connected to, which leads to nothing being chosen.
            self.uses.clear();
            self.used_names.clear();
        }
        // There are no more names than uses.
        let next = u32::try_from(self.used_names.len()).unwrap_or(u32::MAX);
        let name = *self.used_names.entry(Arc::clone(name)).or_insert(next);
        for scope in Scope::all_of(connect.by) {
            let used = self.uses.entry((scope, connect.protocol, name)).or_default();
            *used = connect.at_ns.max(*used);
        }
    }

    fn choose(&self, page: &Page, scope: Scope, connect: Connect, names: &[Arc<str>]) -> Option<Arc<str>> {
        if connect.at_ns <= page.crowded_until_ns {
            return None;
        }
        let used = |name: &Arc<str>| {
            let name = *self.used_names.get(&**name)?;
            self.uses.get(&(scope, connect.protocol, name)).copied()
        };
        let is_open = |name: &&Arc<str>| {
            let answered = page.answered_ns(name, scope, connect.at_ns);
            used(name).is_none_or(|used| used < answered)
        };
        let mut open = names.iter().filter(is_open);
        match (open.next(), open.next(), names) {
            (Some(name), None, _) | (None, None, [name]) => Some(Arc::clone(name)),
            (Some(_), Some(_), _) | (None, _, _) => None,
        }
    }
}

impl Found {
    /// Some of it was answered to the process itself or to its kin.
    pub fn is_own(&self) -> bool {
        self.all().any(|known| known.by == DomainSource::Dns)
    }

    fn all(&self) -> impl Iterator<Item = &KnownName> {
        self.name.iter().chain(&self.others)
    }
}

impl Page {
    /// Whether there was room.
    fn note(&mut self, name: &Arc<str>, receiver: Receiver, at_ns: u64, until_ns: u64) -> bool {
        let same = |lookup: &&mut Lookup| lookup.receiver == receiver && lookup.name == *name;
        if let Some(lookup) = self.lookups.iter_mut().find(same) {
            if at_ns > lookup.until_ns {
                lookup.first_ns = at_ns;
            }
            lookup.first_ns = lookup.first_ns.min(at_ns);
            lookup.last_ns = lookup.last_ns.max(at_ns);
            lookup.until_ns = lookup.until_ns.max(until_ns);
            return true;
        }
        if self.lookups.len() >= NAMES_MAX {
            self.lookups.retain(|lookup| lookup.until_ns >= at_ns);
        }
        if self.lookups.len() >= NAMES_MAX {
            self.crowded_until_ns = self.crowded_until_ns.max(until_ns);
            return false;
        }
        let name = Arc::clone(name);
        self.lookups.push(Lookup { name, receiver, first_ns: at_ns, last_ns: at_ns, until_ns });
        true
    }

    fn valid(&self, scope: Scope, at_ns: u64) -> impl Iterator<Item = &Lookup> {
        self.lookups.iter().filter(move |lookup| scope.holds(lookup.receiver) && lookup.is_valid(at_ns))
    }

    /// Each once.
    fn names(&self, scope: Scope, at_ns: u64) -> Vec<Arc<str>> {
        let mut names: Vec<Arc<str>> = Vec::new();
        for lookup in self.valid(scope, at_ns) {
            if !names.contains(&lookup.name) {
                names.push(Arc::clone(&lookup.name));
            }
        }
        names
    }

    fn answered_ns(&self, name: &Arc<str>, scope: Scope, at_ns: u64) -> u64 {
        let same = self.valid(scope, at_ns).filter(|lookup| lookup.name == *name);
        same.map(|lookup| lookup.answered_ns(at_ns)).max().unwrap_or(0)
    }
}
