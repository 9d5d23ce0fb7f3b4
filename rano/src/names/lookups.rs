//! DNS answers by the addresses they gave, and which of them a connection to such an address may be owed to.
//!
//! An answer names connections for as long as its TTL and [`GRACE`] last. Where several names were answered with one
//! address, a connection goes by the one that was answered since the last connection, as long as lookups and
//! connections alternate; otherwise any of them may be meant, and none is chosen.
//!
//! Answers of everybody come here, so the room is shared out (`ledger.rs`): each watched tree and each other user has a
//! share, and a full one forgets its own oldest answer.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use rustc_hash::FxHashMap;

use crate::event::{DomainSource, KnownName, Protocol};
use crate::glob::Glob;
use crate::names::Answer;
use crate::names::ledger::{Ledger, Lookup};
use crate::process::ProcessId;

/// An answer is taken to be held for this much longer than its TTL: between lookup and connect lies the time of the
/// program, which may try another address first.
pub const GRACE: Duration = Duration::from_secs(10);
/// A TTL that is longer is taken for this long: programs ask again sooner, and the room is for those that were asked
/// lately.
const TTL_MAX: Duration = Duration::from_hours(1);
/// Uses of names that are remembered.
const USES_MAX: usize = 1 << 14;

/// Who received an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Receiver {
    /// `None`: nobody who is known, a resolver daemon perhaps.
    pub process: Option<ProcessId>,
    /// The root of the tracked tree it belongs to.
    pub root: Option<ProcessId>,
    /// The user it runs as.
    pub uid: Option<u32>,
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
    /// Only other users' processes looked that name up, and none of them is a resolver.
    pub is_hearsay: bool,
    /// What else it may be, or where nothing is chosen, all that it may be.
    pub others: Vec<KnownName>,
}

/// Whose connections count for the alternation of lookups and connections.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Scope {
    Process(ProcessId, Option<ProcessId>),
    Tree(ProcessId),
    /// The same user, root, and the accounts of resolvers.
    Vouched(Option<u32>),
    Everybody,
}

impl Scope {
    /// Narrow ones first: who was answered itself, who is kin to it, whom it must trust in any case, anybody.
    fn all_of(by: Receiver) -> impl Iterator<Item = Self> {
        let process = by.process.map(|process| Self::Process(process, by.root));
        let tree = by.root.map(Self::Tree);
        process.into_iter().chain(tree).chain([Self::Vouched(by.uid), Self::Everybody])
    }

    fn holds(self, receiver: Receiver, resolvers: &[u32]) -> bool {
        match self {
            // Of many that looked up the same it is not kept which ones they were.
            Self::Process(process, root) => {
                receiver.process == Some(process)
                    || receiver.process.is_none() && root.is_some() && receiver.root == root
            }
            Self::Tree(root) => receiver.root == Some(root),
            Self::Vouched(uid) => vouches(uid, receiver.uid, resolvers),
            Self::Everybody => true,
        }
    }

    /// Whether a receiver it holds may have its answers in that share.
    fn draws_on(self, share: Receiver, resolvers: &[u32]) -> bool {
        match self {
            Self::Process(_, root) => share.root == root,
            Self::Tree(root) => share.root == Some(root),
            Self::Vouched(uid) => vouches(uid, share.uid, resolvers),
            Self::Everybody => true,
        }
    }

    fn source(self, exact: bool) -> DomainSource {
        match self {
            Self::Process(..) | Self::Tree(_) if exact => DomainSource::Dns,
            Self::Process(..) | Self::Tree(_) | Self::Vouched(_) | Self::Everybody => DomainSource::SharedDns,
        }
    }
}

/// Whether what a process of user `receiver` looked up may be said of a connection of user `uid`.
fn vouches(uid: Option<u32>, receiver: Option<u32>, resolvers: &[u32]) -> bool {
    receiver.is_some_and(|receiver| receiver == 0 || Some(receiver) == uid || resolvers.contains(&receiver))
}

/// All answers that may still name something.
#[derive(Debug, Default)]
pub struct Lookups {
    ledger: Ledger,
    /// Users as whom the machine's resolvers run.
    resolvers: Vec<u32>,
    /// Names that were connected to, and a number for each, so that only here something long is hashed.
    used_names: HashMap<Arc<str>, u32>,
    /// When a name was last connected to.
    uses: FxHashMap<(Scope, Protocol, u32), u64>,
    /// How often all uses had to be forgotten.
    uses_forgotten: u64,
    /// The answers are to rano's own questions, which repeat those that were seen.
    is_asked: bool,
}

impl Lookups {
    /// `resolvers` are the users as whom the machine's resolvers run; what is `precious` is forgotten last.
    pub fn new(resolvers: Vec<u32>, precious: Vec<Glob>) -> Self {
        Self { ledger: Ledger::new(precious), resolvers, ..Self::default() }
    }

    /// The same, told of answers to rano's own questions.
    #[must_use]
    pub fn asked(self) -> Self {
        Self { is_asked: true, ..self }
    }

    /// Answers that found no room, or had to make room.
    pub fn forgotten(&self) -> u64 {
        self.ledger.forgotten + self.uses_forgotten
    }

    pub fn answered(&mut self, answer: &Answer, receiver: Receiver) {
        let at_ns = answer.at.boot_ns;
        for &(address, ttl) in &answer.addresses {
            let lasts = ttl.min(TTL_MAX) + GRACE;
            let until_ns = at_ns.saturating_add(u64::try_from(lasts.as_nanos()).unwrap_or(u64::MAX));
            self.ledger.note(address.to_canonical(), &answer.asked, receiver, (at_ns, until_ns));
        }
    }

    /// Names a connection, and remembers that it was made.
    pub fn connected(&mut self, connect: Connect) -> Found {
        let Some(page) = self.ledger.page(&connect.address) else { return Found::default() };
        let mut found = Found::default();
        let mut decided = false;
        for scope in Scope::all_of(connect.by) {
            let by = match scope.source(connect.exact) {
                DomainSource::Dns if self.is_asked => DomainSource::Asked,
                by => by,
            };
            let names = names(self.valid(page, scope, connect));
            if names.is_empty() {
                continue;
            }
            let choice = if decided { None } else { self.choose(page, scope, connect, &names) };
            // Ambiguous here is not made up for by what strangers asked.
            decided = true;
            for name in &names {
                let known = KnownName { name: Arc::clone(name), by };
                if choice.as_ref() == Some(name) {
                    found.is_hearsay = scope == Scope::Everybody;
                    found.name = Some(known);
                } else if !found.all().any(|other| other.name == known.name) {
                    found.others.push(known);
                }
            }
            if let Some(name) = choice.filter(|name| !names.contains(name)) {
                found.is_hearsay = true;
                found.name = Some(KnownName { name, by: DomainSource::SharedDns });
            }
        }
        if let Some(KnownName { name, .. }) = &found.name {
            let name = Arc::clone(name);
            self.used(connect, &name);
        }
        found
    }

    fn valid<'a>(
        &'a self,
        page: &'a [Lookup],
        scope: Scope,
        connect: Connect,
    ) -> impl Iterator<Item = &'a Lookup> {
        page.iter().filter(move |lookup| {
            scope.holds(lookup.receiver, &self.resolvers) && lookup.is_valid(connect.at_ns)
        })
    }

    /// A connection goes by `name` for other reasons: it is no longer open for the next one.
    pub fn used(&mut self, connect: Connect, name: &Arc<str>) {
        if self.uses.len() >= USES_MAX {
            // What is forgotten counts as not connected to, which leads to nothing being chosen.
            self.uses.clear();
            self.used_names.clear();
            self.uses_forgotten += 1;
        }
        // There are no more names than uses.
        let next = u32::try_from(self.used_names.len()).unwrap_or(u32::MAX);
        let name = *self.used_names.entry(Arc::clone(name)).or_insert(next);
        for scope in Scope::all_of(connect.by) {
            let used = self.uses.entry((scope, connect.protocol, name)).or_default();
            *used = connect.at_ns.max(*used);
        }
    }

    /// Which of `names`, all that were looked up in the scope, is meant; or a name that somebody looked up of whom
    /// nothing is known, which may have been the process itself.
    fn choose(
        &self,
        page: &[Lookup],
        scope: Scope,
        connect: Connect,
        names: &[Arc<str>],
    ) -> Option<Arc<str>> {
        // What was forgotten of this address may be what is meant.
        let draws_on = |share| scope.draws_on(share, &self.resolvers);
        if self.ledger.has_forgotten(connect.address, connect.at_ns, draws_on) {
            return None;
        }
        let used = |name: &Arc<str>| {
            let name = *self.used_names.get(&**name)?;
            self.uses.get(&(scope, connect.protocol, name)).copied()
        };
        // Names that were looked up since they were last connected to.
        let mut open = Vec::new();
        let mut open_of_nobody = Vec::new();
        let is_own = matches!(scope, Scope::Process(..) | Scope::Tree(_));
        for lookup in page.iter().filter(|lookup| lookup.is_valid(connect.at_ns)) {
            let of_nobody = lookup.receiver == Receiver::default();
            let list = if scope.holds(lookup.receiver, &self.resolvers) {
                &mut open
            } else if of_nobody && !(is_own && connect.exact) {
                &mut open_of_nobody
            } else {
                continue;
            };
            let is_open = used(&lookup.name).is_none_or(|used| used < lookup.answered_ns(connect.at_ns));
            if is_open && !list.contains(&lookup.name) {
                list.push(Arc::clone(&lookup.name));
            }
        }
        open_of_nobody.retain(|name| !open.contains(name));
        match (&open[..], &open_of_nobody[..], names) {
            ([name], [], _) | ([], [name], _) | ([], [], [name]) => Some(Arc::clone(name)),
            ([name], _, _) if is_own => Some(Arc::clone(name)),
            _ => None,
        }
    }
}

/// Each once.
fn names<'a>(lookups: impl Iterator<Item = &'a Lookup>) -> Vec<Arc<str>> {
    let mut names: Vec<Arc<str>> = Vec::new();
    for lookup in lookups {
        if !names.contains(&lookup.name) {
            names.push(Arc::clone(&lookup.name));
        }
    }
    names
}

impl Found {
    /// Some of it was answered to the process itself or to its kin.
    pub fn is_own(&self) -> bool {
        self.all().any(|known| known.by == DomainSource::Dns)
    }

    /// One is chosen, and it is more than hearsay.
    pub fn is_settled(&self) -> bool {
        !self.is_hearsay && self.name.is_some()
    }

    fn all(&self) -> impl Iterator<Item = &KnownName> {
        self.name.iter().chain(&self.others)
    }
}

#[cfg(test)]
mod tests;
