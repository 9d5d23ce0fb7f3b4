//! Joins what is told of names with sockets: whose answer it was, whose greeting, and which connection each belongs to.
//! Learns of every socket that is opened, also of those that are not shown. It never reads a clock: time comes with
//! what happens.
//!
//! A greeting belongs to the socket that sent it, by cookie or by tuple and time: a tuple is used again, and what one
//! connection said is not said of the next. A DNS answer belongs to its receiver, see `lookups.rs`.

use std::collections::VecDeque;
use std::collections::hash_map::Entry;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use rustc_hash::FxHashMap;

use crate::change::{Closed, Opened, SocketId};
use crate::event::{Address, DomainSource, KnownName, Moment, OwnerQuality, Protocol, Role};
use crate::names::held::Held;
use crate::names::lookups::{Connect, Found, Lookups, Receiver};
use crate::names::{Answer, Evidence, Greeting, Party};

/// Sockets that are known at a time; more are not joined with anything, and counted. Those of processes that are not
/// watched leave half of the room.
const SOCKETS_MAX: usize = 1 << 17;
const STRANGERS_MAX: usize = SOCKETS_MAX / 2;
/// How long an ended socket is remembered for evidence that comes late.
const LINGER: Duration = Duration::from_secs(5);
/// Ended sockets that are remembered; the oldest is forgotten first.
const ENDED_MAX: usize = 4096;
/// Connections that no answer of their own names, for which one may still be under way, or become known as theirs.
const NAMELESS_MAX: usize = 256;
/// How much later than a connection an answer may be delivered that was received before it, or its receiver become
/// known.
const DELIVERY: Duration = Duration::from_secs(3);
/// Kernel and packets are stamped by different clocks that are put on one afterwards.
const CLOCK_SLACK: Duration = Duration::from_millis(5);

/// A name that a connection may go by.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Learned {
    pub socket: SocketId,
    pub name: KnownName,
    /// Of a name that a proxy was asked for: which port there.
    pub port: Option<u16>,
    /// It is what the connection goes by, unless a better one is known; otherwise one of several that fit.
    pub is_certain: bool,
    /// Only other users' processes say so: it neither tells what the endpoint is, nor that it is known.
    pub is_hearsay: bool,
    pub at: Moment,
}

/// The ends of a flow as its owner sees them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Flow {
    protocol: Protocol,
    local: SocketAddr,
    remote: SocketAddr,
}

/// As packets show it: IPv4 as itself, and without a zone.
fn canonical(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}

impl Flow {
    fn party(self) -> Party {
        Party::Flow { protocol: self.protocol, local: self.local, remote: self.remote }
    }

    /// As a datagram socket has it that is not bound to an address: packets show the one that the route gave.
    fn unbound(self) -> impl Iterator<Item = Self> {
        let anywhere = [IpAddr::V4(Ipv4Addr::UNSPECIFIED), IpAddr::V6(Ipv6Addr::UNSPECIFIED)];
        let of = move |ip| Self { local: SocketAddr::new(ip, self.local.port()), ..self };
        anywhere.into_iter().filter(move |_| self.protocol == Protocol::Udp).map(of)
    }
}

/// The sockets that have or had a flow.
#[derive(Debug, Clone, Copy)]
struct Holders {
    latest: SocketId,
    before: Option<SocketId>,
}

#[derive(Debug)]
struct Socket {
    flow: Option<Flow>,
    owner: Receiver,
    role: Role,
    protocol: Protocol,
    remote: Option<SocketAddr>,
    opened_ns: u64,
    /// `opened_ns` is when it began.
    exact: bool,
    /// What a packet of its flow said earlier was said of another socket.
    not_before_ns: u64,
    ended_ns: Option<u64>,
}

impl Socket {
    /// `found_within_ns`: how much later than its packets it may have been found.
    fn new(opened: &Opened, owner: Receiver, found_within_ns: u64) -> Self {
        let exact = opened.quality == OwnerQuality::Exact && !opened.preexisting;
        let opened_ns = opened.at.boot_ns;
        Self {
            flow: None,
            owner,
            role: opened.role,
            protocol: opened.protocol,
            remote: match &opened.remote {
                Some(Address::Ip(remote)) if remote.port() != 0 => Some(*remote),
                Some(Address::Ip(_) | Address::Host(_) | Address::Path(_)) | None => None,
            },
            opened_ns,
            exact,
            not_before_ns: match (opened.preexisting, exact) {
                (true, _) => 0,
                (false, true) => opened_ns.saturating_sub(nanos(CLOCK_SLACK)),
                (false, false) => opened_ns.saturating_sub(found_within_ns),
            },
            ended_ns: None,
        }
    }

    fn fits(&self, at_ns: u64) -> bool {
        let slack_ns = nanos(CLOCK_SLACK);
        let until_ns = self.ended_ns.map_or(u64::MAX, |ended| ended.saturating_add(slack_ns));
        self.not_before_ns <= at_ns && at_ns <= until_ns
    }

    fn connect(&self) -> Option<Connect> {
        Some(Connect {
            address: self.remote.filter(|_| self.role == Role::Connect)?.ip(),
            protocol: self.protocol,
            by: self.owner,
            at_ns: self.opened_ns,
            exact: self.exact,
        })
    }
}

/// A connection that no answer of its own names.
#[derive(Debug)]
struct Nameless {
    opened_ns: u64,
    address: IpAddr,
    socket: SocketId,
    /// Somebody else's do.
    is_named: bool,
    /// And one of them is chosen, of somebody whom it must trust.
    is_settled: bool,
}

/// All that is known of names and whose they are.
#[derive(Debug)]
pub struct Book {
    /// Somebody reads packets; otherwise there is nothing to join.
    is_on: bool,
    now_ns: u64,
    sockets: FxHashMap<SocketId, Socket>,
    flows: FxHashMap<Flow, Holders>,
    /// Datagram sockets by namespace and cookie: a flow of theirs, and how many they have.
    datagrams: FxHashMap<(u32, u64), (SocketId, u32)>,
    ended: VecDeque<(u64, SocketId)>,
    lookups: Lookups,
    held: Held,
    /// Connections that no answer of their own named, by time.
    nameless: VecDeque<Nameless>,
    /// Sockets of processes that are not watched.
    strangers: usize,
    /// Sockets that found no room.
    sockets_full: u64,
    /// Ended sockets that made room before their time was over.
    pub ended_full: u64,
    /// Connections for which an answer was not awaited to the end.
    pub nameless_full: u64,
}

impl Book {
    /// `hold`: how much later than its packets a socket may be found.
    pub fn new(hold: Duration) -> Self {
        Self {
            is_on: true,
            now_ns: 0,
            sockets: FxHashMap::default(),
            flows: FxHashMap::default(),
            datagrams: FxHashMap::default(),
            ended: VecDeque::new(),
            lookups: Lookups::default(),
            held: Held::new(nanos(hold)),
            nameless: VecDeque::new(),
            strangers: 0,
            sockets_full: 0,
            ended_full: 0,
            nameless_full: 0,
        }
    }

    /// What it is to know of the answers that it will be told.
    #[must_use]
    pub fn with_lookups(mut self, lookups: Lookups) -> Self {
        self.lookups = lookups;
        self
    }

    /// One that nobody will tell anything.
    pub fn closed_for_good() -> Self {
        Self { is_on: false, ..Self::new(Duration::ZERO) }
    }

    /// Whether names may still be told.
    pub fn is_on(&self) -> bool {
        self.is_on
    }

    /// What found no room.
    pub fn forgotten(&self) -> u64 {
        self.lookups.forgotten() + self.held.forgotten() + self.sockets_full
    }

    /// Time has come this far.
    pub fn passed(&mut self, now: Moment) {
        self.now_ns = self.now_ns.max(now.boot_ns);
        while let Some((ended_ns, id)) = self.ended.front().copied() {
            let is_over = ended_ns.saturating_add(nanos(LINGER)) < self.now_ns;
            if !is_over && self.ended.len() <= ENDED_MAX {
                break;
            }
            self.ended_full += u64::from(!is_over);
            self.ended.pop_front();
            self.forget(id, ended_ns);
        }
        self.held.expire(self.now_ns);
    }

    /// Whether a party is the socket of a watched process.
    pub fn watches(&self, party: Party) -> bool {
        self.receiver(party, self.now_ns).is_some_and(|owner| owner.root.is_some())
    }

    /// A socket was opened, or more became known of it. `by` is its owner. Names that are known for it go to `out`.
    pub fn opened(&mut self, opened: &Opened, by: Receiver, out: &mut Vec<Learned>) {
        if !self.is_on {
            return;
        }
        let is_open = self.sockets.get(&opened.id).map(|socket| socket.ended_ns.is_none());
        if is_open == Some(true) {
            self.complete(opened, out);
            return;
        }
        let is_stranger = by.root.is_none();
        if self.sockets.len() >= SOCKETS_MAX || is_stranger && self.strangers >= STRANGERS_MAX {
            self.sockets_full += 1;
            return;
        }
        let socket = Socket::new(opened, by, self.held.lasts_ns());
        let connect = socket.connect();
        if let SocketId::Flow { netns, cookie, .. } = opened.id
            && is_open.is_none()
        {
            let (latest, count) = self.datagrams.entry((netns, cookie)).or_insert((opened.id, 0));
            *latest = opened.id;
            *count += 1;
        }
        self.strangers += usize::from(is_stranger);
        if let Some(former) = self.sockets.insert(opened.id, socket) {
            self.strangers -= usize::from(former.owner.root.is_none());
        }
        if let Some(connect) = connect {
            let found = self.lookups.connected(connect);
            // Those of others are not shown.
            let concerns = !is_stranger || opened.owner.is_none();
            if concerns && !found.is_own() && (connect.exact || !found.is_settled()) {
                self.await_answer(connect, opened.id, &found);
            }
            learn(found, opened.id, opened.at, out);
        }
        self.settle(Party::Socket(opened.id), out);
        if let SocketId::Flow { netns, cookie, .. } = opened.id {
            self.settle(Party::Socket(SocketId::Cookie { netns, cookie }), out);
        }
        self.complete(opened, out);
    }

    /// An attempt was made of which nothing more will be told. Names that are known for it go to `out`.
    pub fn attempted(&mut self, opened: &Opened, by: Receiver, out: &mut Vec<Learned>) {
        if let Some(connect) = Socket::new(opened, by, 0).connect().filter(|_| self.is_on) {
            learn(self.lookups.connected(connect), opened.id, opened.at, out);
        }
    }

    fn await_answer(&mut self, connect: Connect, socket: SocketId, found: &Found) {
        if self.nameless.len() >= NAMELESS_MAX {
            // Of most of them none is under way: it is no gap.
            self.nameless_full += 1;
            self.nameless.pop_front();
        }
        let (opened_ns, address) = (connect.at_ns, connect.address);
        let (is_named, is_settled) = (*found != Found::default(), found.is_settled());
        self.nameless.push_back(Nameless { opened_ns, address, socket, is_named, is_settled });
    }

    fn complete(&mut self, opened: &Opened, out: &mut Vec<Learned>) {
        if let (Some(Address::Ip(local)), Some(Address::Ip(remote))) = (&opened.local, &opened.remote) {
            let flow =
                Flow { protocol: opened.protocol, local: canonical(*local), remote: canonical(*remote) };
            self.has_flow(opened.id, flow, out);
        }
    }

    /// A local end is often known only once the call has gone on.
    pub fn local(&mut self, id: SocketId, local: &Address, out: &mut Vec<Learned>) {
        if let Some(socket) = self.sockets.get(&id)
            && let (Address::Ip(local), Some(remote)) = (local, socket.remote)
        {
            self.has_flow(
                id,
                Flow { protocol: socket.protocol, local: canonical(*local), remote: canonical(remote) },
                out,
            );
        }
    }

    fn has_flow(&mut self, id: SocketId, flow: Flow, out: &mut Vec<Learned>) {
        let Some(socket) = self.sockets.get_mut(&id) else { return };
        if flow.local.port() == 0 || socket.flow == Some(flow) {
            return;
        }
        let former = socket.flow.replace(flow);
        if let Some(former) = former {
            self.leave(former, id);
        }
        let before = match self.flows.entry(flow) {
            Entry::Occupied(mut holders) => {
                let before = Some(holders.get().latest).filter(|latest| *latest != id);
                holders.insert(Holders { latest: id, before });
                before
            }
            Entry::Vacant(place) => {
                place.insert(Holders { latest: id, before: None });
                None
            }
        };
        // A socket that had the flow before has what was said before its end.
        let ended_ns = before.and_then(|before| self.sockets.get(&before)?.ended_ns);
        if let (Some(ended_ns), Some(socket)) = (ended_ns, self.sockets.get_mut(&id)) {
            socket.not_before_ns = socket.not_before_ns.max(ended_ns);
        }
        self.settle(flow.party(), out);
    }

    pub fn closed(&mut self, closed: &Closed) {
        let Some(socket) = self.sockets.get_mut(&closed.id) else { return };
        if socket.ended_ns.is_none() {
            socket.ended_ns = Some(closed.at.boot_ns);
            self.ended.push_back((closed.at.boot_ns, closed.id));
        }
    }

    /// What a piece of evidence means to sockets goes to `out`. Reverse look-ups are not this book's.
    pub fn evidence(&mut self, evidence: Evidence, out: &mut Vec<Learned>) {
        match evidence {
            Evidence::Answer(answer) => self.answer(answer, out),
            Evidence::Greeting(greeting) => {
                if !self.greet(&greeting, out) {
                    self.held.hold(greeting.from, Evidence::Greeting(greeting), self.now_ns);
                }
            }
            Evidence::Pointer(_) => {}
        }
    }

    fn answer(&mut self, answer: Answer, out: &mut Vec<Learned>) {
        let receiver = self.receiver(answer.to, answer.at.boot_ns);
        let nobody_known = Receiver { uid: answer.uid, ..Receiver::default() };
        self.lookups.answered(&answer, receiver.unwrap_or(nobody_known));
        self.name_the_nameless(&answer, out);
        if receiver.is_none() {
            self.held.hold(answer.to, Evidence::Answer(answer), self.now_ns);
        }
    }

    /// An answer that is delivered after the connection to which it led, or of which it is known late whose it is.
    fn name_the_nameless(&mut self, answer: &Answer, out: &mut Vec<Learned>) {
        let answered_ns = answer.at.boot_ns;
        let oldest_ns = self.now_ns.saturating_sub(nanos(DELIVERY));
        let concerns = |nameless: &Nameless| {
            let address = nameless.address;
            nameless.opened_ns >= answered_ns
                && nameless.opened_ns >= oldest_ns
                && answer.addresses.iter().any(|(given, _)| given.to_canonical() == address)
        };
        let (sockets, lookups) = (&self.sockets, &mut self.lookups);
        self.nameless.retain_mut(|nameless| {
            if !concerns(nameless) {
                return true;
            }
            let Some(connect) = sockets.get(&nameless.socket).and_then(Socket::connect) else { return false };
            let found = lookups.connected(connect);
            let is_own = found.is_own();
            let (is_named, is_settled) = (found != Found::default(), found.is_settled());
            // What somebody else asked besides makes no difference any more.
            if is_own || !nameless.is_named || is_settled && !nameless.is_settled {
                learn(found, nameless.socket, answer.at, out);
            }
            nameless.is_named |= is_named;
            nameless.is_settled |= is_settled;
            !is_own && (connect.exact || !is_settled)
        });
    }

    /// Whether its socket is known.
    fn greet(&mut self, greeting: &Greeting, out: &mut Vec<Learned>) -> bool {
        let Some(id) = self.socket(greeting.from, greeting.at.boot_ns) else { return false };
        let name = KnownName { name: Arc::clone(&greeting.name), by: greeting.by };
        let is_request = greeting.by == DomainSource::Proxy;
        // Whoever serves asks for nothing, whatever its answers look like.
        if is_request && self.sockets.get(&id).is_some_and(|socket| socket.role != Role::Connect) {
            return true;
        }
        // What a proxy is asked for is not at the proxy's address.
        if !is_request
            && greeting.by != DomainSource::EchOuter
            && let Some(connect) = self.sockets.get(&id).and_then(Socket::connect)
        {
            self.lookups.used(connect, &greeting.name);
        }
        let (port, at) = (greeting.port, greeting.at);
        out.push(Learned { socket: id, name, port, is_certain: true, is_hearsay: false, at });
        true
    }

    /// What was held for a socket that is known now.
    fn settle(&mut self, party: Party, out: &mut Vec<Learned>) {
        for evidence in self.held.take(party) {
            match evidence {
                Evidence::Answer(answer) => {
                    if let Some(receiver) = self.receiver(answer.to, answer.at.boot_ns) {
                        self.lookups.answered(&answer, receiver);
                        self.name_the_nameless(&answer, out);
                    }
                }
                Evidence::Greeting(greeting) => {
                    self.greet(&greeting, out);
                }
                Evidence::Pointer(_) => {}
            }
        }
    }

    /// Who a packet was for; `None` where its socket is not known.
    fn receiver(&self, party: Party, at_ns: u64) -> Option<Receiver> {
        let datagram = |id| match id {
            SocketId::Cookie { netns, cookie } => self.datagrams.get(&(netns, cookie)).map(|(id, _)| *id),
            SocketId::Inode { .. } | SocketId::Flow { .. } => None,
        };
        let id = self.socket(party, at_ns).or(match party {
            Party::Socket(id) => datagram(id),
            Party::Flow { .. } => None,
        })?;
        self.sockets.get(&id).map(|socket| socket.owner).filter(|owner| owner.process.is_some())
    }

    fn socket(&self, party: Party, at_ns: u64) -> Option<SocketId> {
        match party {
            Party::Socket(id) if self.sockets.contains_key(&id) => Some(id),
            Party::Socket(SocketId::Flow { netns, cookie, .. }) => {
                // One that is older than the observation is known as a whole.
                Some(SocketId::Cookie { netns, cookie }).filter(|id| self.sockets.contains_key(id))
            }
            Party::Socket(SocketId::Cookie { netns, cookie }) => match self.datagrams.get(&(netns, cookie)) {
                Some((id, 1)) => Some(*id),
                Some(_) | None => None,
            },
            Party::Socket(SocketId::Inode { .. }) => None,
            Party::Flow { protocol, local, remote } => {
                let flow = Flow { protocol, local: canonical(local), remote: canonical(remote) };
                self.holder(flow, at_ns)
                    .or_else(|| flow.unbound().find_map(|unbound| self.holder(unbound, at_ns)))
            }
        }
    }

    /// Whose a flow was at a time; nobody's where two sockets have it, in two network namespaces.
    fn holder(&self, flow: Flow, at_ns: u64) -> Option<SocketId> {
        let holders = self.flows.get(&flow)?;
        let fits = |id: &SocketId| self.sockets.get(id).is_some_and(|socket| socket.fits(at_ns));
        let has_ended = |id| self.sockets.get(&id).is_some_and(|socket| socket.ended_ns.is_some());
        match (Some(holders.latest).filter(fits), holders.before.filter(fits)) {
            (Some(latest), Some(before)) if has_ended(before) => Some(latest),
            (Some(id), None) | (None, Some(id)) => Some(id),
            (Some(_), Some(_)) | (None, None) => None,
        }
    }

    fn forget(&mut self, id: SocketId, ended_ns: u64) {
        let Entry::Occupied(socket) = self.sockets.entry(id) else { return };
        // Its identity may be in use again: that of a flow of datagrams.
        if socket.get().ended_ns != Some(ended_ns) {
            return;
        }
        let socket = socket.remove();
        self.strangers -= usize::from(socket.owner.root.is_none());
        if let Some(flow) = socket.flow {
            self.leave(flow, id);
        }
        if let SocketId::Flow { netns, cookie, .. } = id
            && let Some((_, count)) = self.datagrams.get_mut(&(netns, cookie))
        {
            *count = count.saturating_sub(1);
            if *count == 0 {
                self.datagrams.remove(&(netns, cookie));
            }
        }
    }

    fn leave(&mut self, flow: Flow, id: SocketId) {
        let Entry::Occupied(mut place) = self.flows.entry(flow) else { return };
        let holders = place.get_mut();
        if holders.before == Some(id) {
            holders.before = None;
        }
        if holders.latest == id {
            match holders.before.take() {
                Some(before) => holders.latest = before,
                None => {
                    place.remove();
                }
            }
        }
    }
}

fn learn(found: Found, socket: SocketId, at: Moment, out: &mut Vec<Learned>) {
    let Found { name, is_hearsay, others } = found;
    let chosen = name.map(|name| Learned { socket, name, port: None, is_certain: true, is_hearsay, at });
    let others = others.into_iter().map(|name| Learned {
        socket,
        name,
        port: None,
        is_certain: false,
        is_hearsay: false,
        at,
    });
    out.extend(chosen.into_iter().chain(others));
}

fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests;
