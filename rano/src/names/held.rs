//! Evidence that fits no socket yet: where sockets are looked for at an interval, packets are there before them.

use std::collections::{HashMap, VecDeque};
use std::net::{Ipv4Addr, SocketAddr};

use crate::event::Protocol;
use crate::names::{Evidence, Party};

/// Pieces of a kind that are held at a time; the oldest gives way.
const MOST: usize = 2048;
/// Pieces of one party: an honest one has a few questions and one greeting.
const OF_ONE: usize = 8;

/// What waits for its socket. Answers and greetings do not push one another out: anybody's answers come here.
#[derive(Debug)]
pub(super) struct Held {
    answers: Pieces,
    greetings: Pieces,
}

impl Held {
    pub(super) fn new(lasts_ns: u64) -> Self {
        Self { answers: Pieces::new(lasts_ns), greetings: Pieces::new(lasts_ns) }
    }

    pub(super) fn lasts_ns(&self) -> u64 {
        self.greetings.lasts_ns
    }

    /// Greetings that had to go before their time. An answer has its place in the lookups in any case.
    pub(super) fn forgotten(&self) -> u64 {
        self.greetings.forgotten
    }

    /// `now_ns` is when it came, which may be long after it was seen.
    pub(super) fn hold(&mut self, party: Party, evidence: Evidence, now_ns: u64) {
        match evidence {
            Evidence::Answer(_) => self.answers.hold(party, evidence, now_ns),
            Evidence::Greeting(_) => self.greetings.hold(party, evidence, now_ns),
            Evidence::Pointer(_) => {}
        }
    }

    /// What was held of a party whose socket is known now.
    pub(super) fn take(&mut self, party: Party) -> Vec<Evidence> {
        let mut taken = self.answers.take(party);
        taken.extend(self.greetings.take(party));
        taken
    }

    pub(super) fn expire(&mut self, now_ns: u64) {
        self.answers.expire(now_ns);
        self.greetings.expire(now_ns);
    }
}

/// Evidence of one kind, by whose it is.
#[derive(Debug)]
struct Pieces {
    /// How long it waits, nanoseconds.
    lasts_ns: u64,
    /// Keys come from the network, hence the keyed hash of the standard library.
    waiting: HashMap<Party, Vec<Evidence>>,
    /// How many of them are flows: most of those who ask for one kind have nothing to find.
    flows: usize,
    order: VecDeque<(u64, Party)>,
    /// What had to go before its time.
    forgotten: u64,
}

impl Pieces {
    fn new(lasts_ns: u64) -> Self {
        Self { lasts_ns, waiting: HashMap::new(), flows: 0, order: VecDeque::new(), forgotten: 0 }
    }

    fn hold(&mut self, party: Party, evidence: Evidence, now_ns: u64) {
        self.expire(now_ns);
        if self.order.len() >= MOST
            && let Some((_, oldest)) = self.order.pop_front()
        {
            self.forgotten += u64::from(self.drop_first(oldest).is_some());
        }
        let party = key(party);
        let flows = &mut self.flows;
        let pieces = self.waiting.entry(party).or_insert_with(|| {
            *flows += usize::from(is_flow(party));
            Vec::new()
        });
        if pieces.len() < OF_ONE {
            pieces.push(evidence);
            self.order.push_back((now_ns.saturating_add(self.lasts_ns), party));
        } else {
            self.forgotten += 1;
        }
    }

    fn take(&mut self, party: Party) -> Vec<Evidence> {
        let waiting = if is_flow(party) { self.flows } else { self.waiting.len() - self.flows };
        if waiting == 0 {
            return Vec::new();
        }
        let taken = self.waiting.remove(&key(party));
        self.flows -= usize::from(is_flow(party) && taken.is_some());
        taken.unwrap_or_default()
    }

    fn expire(&mut self, now_ns: u64) {
        while let Some((until_ns, party)) = self.order.front().copied()
            && until_ns < now_ns
        {
            self.order.pop_front();
            self.drop_first(party);
        }
    }

    /// Taken ones leave their place in the order until its time has come; what came since under the same key then goes
    /// a little early, which is as good as not having come.
    fn drop_first(&mut self, party: Party) -> Option<Evidence> {
        let pieces = self.waiting.get_mut(&party)?;
        let first = pieces.remove(0);
        if pieces.is_empty() {
            self.waiting.remove(&party);
            self.flows -= usize::from(is_flow(party));
        }
        Some(first)
    }
}

fn is_flow(party: Party) -> bool {
    matches!(party, Party::Flow { .. })
}

/// A datagram socket is often not bound to the address that its packets show.
fn key(party: Party) -> Party {
    match party {
        Party::Flow { protocol: Protocol::Udp, local, remote } => {
            let local = SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), local.port());
            Party::Flow { protocol: Protocol::Udp, local, remote }
        }
        Party::Flow { .. } | Party::Socket(_) => party,
    }
}
