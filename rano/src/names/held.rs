//! Evidence that fits no socket yet: where sockets are looked for at an interval, packets are there before them.

use std::collections::{HashMap, VecDeque};
use std::net::{Ipv4Addr, SocketAddr};

use crate::event::Protocol;
use crate::names::{Evidence, Party};

/// Pieces that are held at a time; the oldest gives way.
const MOST: usize = 4096;
/// Pieces of one party: an honest one has a few questions and one greeting.
const OF_ONE: usize = 8;

/// What waits for its socket, by whose it is.
#[derive(Debug)]
pub(super) struct Held {
    /// How long it waits, nanoseconds.
    lasts_ns: u64,
    /// Keys come from the network, hence the keyed hash of the standard library.
    waiting: HashMap<Party, Vec<Evidence>>,
    order: VecDeque<(u64, Party)>,
    /// Greetings that had to go before their time.
    pub(super) forgotten: u64,
}

impl Held {
    pub(super) fn new(lasts_ns: u64) -> Self {
        Self { lasts_ns, waiting: HashMap::new(), order: VecDeque::new(), forgotten: 0 }
    }

    pub(super) fn lasts_ns(&self) -> u64 {
        self.lasts_ns
    }

    /// `now_ns` is when it came, which may be long after it was seen.
    pub(super) fn hold(&mut self, party: Party, evidence: Evidence, now_ns: u64) {
        self.expire(now_ns);
        if self.order.len() >= MOST
            && let Some((_, oldest)) = self.order.pop_front()
        {
            let dropped = self.drop_first(oldest);
            self.count(dropped.as_ref());
        }
        let party = key(party);
        let pieces = self.waiting.entry(party).or_default();
        if pieces.len() < OF_ONE {
            pieces.push(evidence);
            self.order.push_back((now_ns.saturating_add(self.lasts_ns), party));
        } else {
            self.count(Some(&evidence));
        }
    }

    /// An answer has its place in the lookups in any case.
    fn count(&mut self, dropped: Option<&Evidence>) {
        self.forgotten += u64::from(matches!(dropped, Some(Evidence::Greeting(_))));
    }

    /// What was held of a party whose socket is known now.
    pub(super) fn take(&mut self, party: Party) -> Vec<Evidence> {
        if self.waiting.is_empty() {
            Vec::new()
        } else {
            self.waiting.remove(&key(party)).unwrap_or_default()
        }
    }

    pub(super) fn expire(&mut self, now_ns: u64) {
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
        }
        Some(first)
    }
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
