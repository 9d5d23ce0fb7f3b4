//! What is known of the sockets of one network namespace, and how one look differs from the one before. Pure: it is
//! told what a look held and who owns what, and says what changed.

use std::ops::RangeInclusive;
use std::time::Duration;

use rustc_hash::{FxHashMap, FxHashSet};

use crate::bounded::FastBounded;
use crate::event::{Address, Bytes, Moment, OwnerQuality, Protocol, SocketState, SourceKind};
use crate::process::ProcessId;
use crate::source::{Closed, Opened, Role, SocketChange, SocketId};

/// Stands for every transport beside TCP, UDP and unix sockets where it is said what a look held.
pub const OTHERS: Protocol = Protocol::Ip(255);

/// How late a notification may be: the kernel makes them on a workqueue, and on a busy machine that waits its turn. One
/// that comes after its socket was given up would be taken for another connection.
const GRACE: Duration = Duration::from_millis(500);

/// A socket as one look shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seen {
    pub id: SocketId,
    pub protocol: Protocol,
    pub local: Option<Address>,
    pub remote: Option<Address>,
    /// `None` for a listener and for anything but TCP.
    pub state: Option<SocketState>,
    pub listening: bool,
    /// Inode of a unix socket's other end.
    pub peer: Option<u64>,
    /// Zero where no descriptor refers to it: not accepted yet, or closed by its process and still winding down.
    pub inode: u64,
    /// User that made it, where the look says.
    pub uid: Option<u32>,
}

/// A process that holds a socket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Holder {
    pub process: ProcessId,
    pub quality: OwnerQuality,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Owner {
    /// Not looked for yet, or it has no inode to look for.
    Unknown,
    /// A watched process has it, and the pipeline was told.
    Watched,
    /// Looked for among the watched processes at this moment and not found.
    Other(Moment),
}

#[derive(Debug)]
struct Known {
    seen: Seen,
    owner: Owner,
    /// Number of the look that last held it.
    look: u32,
    preexisting: bool,
    first_seen: Moment,
    /// Known to have come from a listener, though none is there any more.
    served: bool,
    /// Who has it, while it is not shown: a connect of a datagram socket sends nothing, so one more look must hold it.
    held: Option<Holder>,
}

/// Sockets whose end was told although no notification came. One may come all the same, any time later: a connection
/// that was reset, or half closed and then closed by the other side, is in no table any more while its process keeps
/// the descriptor. Bounded: the oldest go, and would then be counted once more.
type GivenUp = FastBounded<SocketId, ()>;

const GIVEN_UP_MAX: usize = 1 << 14;

/// What a notification's socket turned out to be.
#[derive(Debug, PartialEq, Eq)]
pub enum Ended {
    /// A watched process's: the pipeline knows it.
    Watched,
    /// Seen, and it belongs to somebody who is not watched; or its end was told without a notification.
    Other,
    /// Seen, but its process was gone or had let go of it before anybody could look.
    Orphan(Seen),
    /// Never seen.
    Unseen,
}

/// The sockets of one namespace.
pub struct SocketTable {
    netns: u32,
    known: FxHashMap<SocketId, Known>,
    /// Listeners by local port, to tell the serving end of a connection.
    listeners: FxHashMap<(Protocol, u16), u32>,
    /// Ports the kernel hands out by itself (`ip_local_port_range`): an unconnected datagram socket on one of them has
    /// sent something, one on another port serves.
    ephemeral: RangeInclusive<u16>,
    look: u32,
    /// The current look is the first of the observation: what it holds is older.
    preexisting: bool,
    grace: Duration,
    /// Absent from a look for the first time at that moment; for a while the notification may still arrive.
    missing: Vec<(SocketId, Moment)>,
    /// Not looked for yet.
    fresh: Vec<SocketId>,
    given_up: GivenUp,
    /// Datagram sockets that a second look held.
    lasting: Vec<(SocketId, Holder)>,
    /// A socket waits for that.
    holds_back: bool,
}

impl SocketTable {
    /// `preexisting`: what the first look holds is older than the observation.
    pub fn new(netns: u32, ephemeral: RangeInclusive<u16>, preexisting: bool) -> Self {
        Self {
            netns,
            known: FxHashMap::default(),
            listeners: FxHashMap::default(),
            ephemeral,
            look: 0,
            preexisting,
            grace: GRACE,
            missing: Vec::new(),
            fresh: Vec::new(),
            given_up: GivenUp::new(GIVEN_UP_MAX),
            lasting: Vec::new(),
            holds_back: false,
        }
    }

    /// Notifications are waited for this long.
    pub fn wait_for_notifications(&mut self, grace: Duration) {
        self.grace = grace;
    }

    pub fn netns(&self) -> u32 {
        self.netns
    }

    pub fn ephemeral(&self) -> &RangeInclusive<u16> {
        &self.ephemeral
    }

    /// A look begins; each socket it holds is passed to [`Self::see`], then [`Self::end_look`] follows.
    pub fn begin_look(&mut self) {
        self.look = self.look.wrapping_add(1);
        self.holds_back = false;
    }

    pub fn see(&mut self, seen: Seen, now: Moment, out: &mut Vec<SocketChange>) {
        if is_probe(&seen) {
            return;
        }
        if let Some(known) = self.known.get_mut(&seen.id) {
            known.look = self.look;
            if known.seen.remote == seen.remote
                && let Some(holder) = known.held.take()
            {
                self.lasting.push((seen.id, holder));
            }
            if known.seen == seen {
                return;
            }
            if known.seen.remote == seen.remote && known.seen.listening == seen.listening {
                if known.owner == Owner::Unknown && known.seen.inode == 0 && seen.inode != 0 {
                    self.fresh.push(seen.id);
                }
                if known.owner == Owner::Watched
                    && known.seen.state != seen.state
                    && let Some(state) = seen.state
                {
                    out.push(SocketChange::State { id: seen.id, state, at: now });
                }
                known.seen = seen;
                return;
            }
            // A datagram socket that was connected elsewhere, or a bound one that began to listen.
            self.forget(seen.id, now, out);
        }
        // Mini-sockets and what its process closed before anybody looked: nothing can be attributed.
        if seen.inode == 0 && matches!(seen.state, Some(SocketState::TimeWait | SocketState::Closed)) {
            return;
        }
        if seen.listening
            && let Some(port) = port(&seen)
        {
            *self.listeners.entry(port).or_default() += 1;
        }
        if seen.inode != 0 {
            self.fresh.push(seen.id);
        }
        let known = Known {
            owner: Owner::Unknown,
            look: self.look,
            preexisting: self.preexisting,
            first_seen: now,
            served: false,
            held: None,
            seen,
        };
        self.known.insert(known.seen.id, known);
    }

    /// The look is over and held every socket of the `looked_at` protocols. What was there before and is not now has
    /// ended: where a notification is to be expected, after one more look and `GRACE`, else at once.
    pub fn end_look(
        &mut self,
        looked_at: &[Protocol],
        notified: &[Protocol],
        now: Moment,
        out: &mut Vec<SocketChange>,
    ) {
        for (id, since) in std::mem::take(&mut self.missing) {
            let Some(known) = self.known.get(&id).filter(|known| known.look != self.look) else { continue };
            if !holds(looked_at, known.seen.protocol) || now.since(since) < self.grace {
                self.missing.push((id, since));
            } else {
                self.forget(id, since, out);
            }
        }
        let waiting: FxHashSet<SocketId> = self.missing.iter().map(|(id, _)| *id).collect();
        let absent: Vec<SocketId> = self
            .known
            .iter()
            .filter(|(id, known)| self.is_absent(known, looked_at) && !waiting.contains(id))
            .map(|(id, _)| *id)
            .collect();
        for id in absent {
            if notified.contains(&self.known[&id].seen.protocol) {
                self.missing.push((id, now));
            } else {
                self.forget(id, now, out);
            }
        }
        self.preexisting = false;
        for (id, holder) in std::mem::take(&mut self.lasting) {
            if let Some(known) = self.known.get(&id) {
                let opened = opening(known, self.role(&known.seen), Some(holder), self.netns);
                out.push(SocketChange::Opened(opened));
            }
        }
    }

    fn is_absent(&self, known: &Known, looked_at: &[Protocol]) -> bool {
        known.look != self.look && holds(looked_at, known.seen.protocol)
    }

    /// A look is owed, because something is known to be missing or unresolved that only a look can settle.
    pub fn needs_look(&self) -> bool {
        !self.missing.is_empty() || self.holds_back
    }

    /// Something new is to be attributed.
    pub fn has_fresh(&self) -> bool {
        !self.fresh.is_empty()
    }

    /// Connecting TCP sockets that the look of that moment was the first to hold.
    pub fn new_connects(&self, at: Moment) -> u64 {
        let fresh = self.fresh.iter().filter_map(|id| self.known.get(id));
        let connects = fresh.filter(|known| {
            known.first_seen == at
                && known.seen.protocol == Protocol::Tcp
                && self.role(&known.seen) == Role::Connect
        });
        connects.count() as u64
    }

    /// The inodes to look for: of new sockets, or with `all` of every socket that has no watched owner so far.
    pub fn wanted(&self, all: bool) -> FxHashMap<u64, SocketId> {
        let unowned = |known: &&Known| known.owner != Owner::Watched && known.seen.inode != 0;
        let by_inode = |known: &Known| (known.seen.inode, known.seen.id);
        if all {
            self.known.values().filter(unowned).map(by_inode).collect()
        } else {
            self.fresh.iter().filter_map(|id| self.known.get(id)).filter(unowned).map(by_inode).collect()
        }
    }

    /// The watched processes have been looked through for what was [wanted](Self::wanted), until `searched`. Where that
    /// is `None` not all of them were, and what was not found is wanted again.
    pub fn settle(
        &mut self,
        found: &FxHashMap<SocketId, Holder>,
        searched: Option<Moment>,
        out: &mut Vec<SocketChange>,
    ) {
        if let Some(searched) = searched {
            for id in std::mem::take(&mut self.fresh) {
                if let Some(known) = self.known.get_mut(&id)
                    && known.owner == Owner::Unknown
                {
                    known.owner = Owner::Other(searched);
                }
            }
        } else {
            let known = &self.known;
            self.fresh.retain(|id| known.contains_key(id) && !found.contains_key(id));
        }
        let mut opened: Vec<(Moment, SocketId)> = found
            .keys()
            .filter_map(|id| self.known.get(id))
            .map(|known| (known.first_seen, known.seen.id))
            .collect();
        // Listeners first, so that the serving end of a connection is known as such, then in a fixed order.
        opened.sort_by_key(|(at, id)| (!self.known[id].seen.listening, at.boot_ns, order(id)));
        for (_, id) in opened {
            let holder = found[&id];
            let role = match self.role(&self.known[&id].seen) {
                Role::Connect if self.known[&id].served => Role::Accept,
                role => role,
            };
            let known = self.known.get_mut(&id).expect("it was listed just now");
            known.owner = Owner::Watched;
            let may_be_silent = known.seen.protocol == Protocol::Udp && role == Role::Connect;
            if may_be_silent && known.seen.remote.is_some() && !known.preexisting {
                known.held = Some(holder);
                self.holds_back = true;
                continue;
            }
            let opened = opening(known, role, Some(holder), self.netns);
            out.push(SocketChange::Opened(opened));
        }
    }

    /// New outgoing connections that are not among those whose holder was found.
    pub fn unfound(&self, found: &FxHashSet<SocketId>) -> Vec<Seen> {
        let fresh = self.fresh.iter().filter(|id| !found.contains(*id)).filter_map(|id| self.known.get(id));
        let outgoing = fresh.filter(|known| {
            known.owner == Owner::Unknown
                && !known.preexisting
                && matches!(known.seen.protocol, Protocol::Tcp | Protocol::Udp)
                && self.role(&known.seen) == Role::Connect
        });
        outgoing.map(|known| known.seen.clone()).collect()
    }

    /// Nobody could look whose it is: its end tells of an orphan.
    pub fn keep_unknown(&mut self, id: SocketId) {
        self.fresh.retain(|fresh| *fresh != id);
    }

    /// Nobody knows whose it is, and it is there. Whether it was told, and not only to be counted.
    pub fn give_to_nobody(
        &mut self,
        id: SocketId,
        searched: Moment,
        tell: bool,
        out: &mut Vec<SocketChange>,
    ) -> bool {
        self.fresh.retain(|fresh| *fresh != id);
        let netns = self.netns;
        let Some(known) = self.known.get_mut(&id) else { return false };
        if tell {
            known.owner = Owner::Watched;
            out.push(SocketChange::Opened(opening(known, Role::Connect, None, netns)));
        } else {
            known.owner = Owner::Other(searched);
        }
        tell
    }

    /// The pipeline was told of it, or will be if it lasts.
    pub fn is_watched(&self, id: SocketId) -> bool {
        self.known.get(&id).is_some_and(|known| known.owner == Owner::Watched && known.held.is_none())
    }

    /// It is a watched process's datagram socket, and not told of so far.
    pub fn is_held_back(&self, id: SocketId) -> bool {
        self.known.get(&id).is_some_and(|known| known.held.is_some())
    }

    /// A socket as the last look showed it.
    pub fn seen(&self, id: SocketId) -> Option<&Seen> {
        self.known.get(&id).map(|known| &known.seen)
    }

    /// The kernel's counters say that a listener made this socket.
    pub fn mark_served(&mut self, id: SocketId) {
        if let Some(known) = self.known.get_mut(&id) {
            known.served = true;
        }
    }

    /// A notification says that a socket is gone.
    pub fn ended(&mut self, id: SocketId, at: Moment) -> Ended {
        let Some(known) = self.remove(id) else {
            return if self.given_up.remove(&id).is_some() { Ended::Other } else { Ended::Unseen };
        };
        match known.owner {
            Owner::Watched => Ended::Watched,
            // It was there in the look and gone when the descriptors were searched: nobody knows whose it was.
            Owner::Other(settled) if at.boot_ns <= settled.boot_ns => Ended::Orphan(known.seen),
            Owner::Other(_) => Ended::Other,
            Owner::Unknown => Ended::Orphan(known.seen),
        }
    }

    /// Which part a socket plays, as far as its addresses tell.
    pub fn role(&self, seen: &Seen) -> Role {
        if seen.listening {
            return Role::Listen;
        }
        match seen.protocol {
            Protocol::Tcp if port(seen).is_some_and(|port| self.listeners.contains_key(&port)) => {
                Role::Accept
            }
            Protocol::Udp if seen.remote.is_none() && !self.was_bound_by_kernel(seen) => Role::Listen,
            Protocol::Unix if seen.remote.is_none() => Role::Accept,
            _ => Role::Connect,
        }
    }

    /// An unbound socket that sends gets the wildcard address and a port of the ephemeral range (`inet_autobind()`).
    fn was_bound_by_kernel(&self, seen: &Seen) -> bool {
        match &seen.local {
            Some(Address::Ip(local)) => local.ip().is_unspecified() && self.ephemeral.contains(&local.port()),
            Some(Address::Host(_) | Address::Path(_)) | None => false,
        }
    }

    /// Ends a socket of which no notification told.
    fn forget(&mut self, id: SocketId, now: Moment, out: &mut Vec<SocketChange>) {
        let Some(known) = self.remove(id) else { return };
        self.given_up.insert(id, ());
        if known.owner == Owner::Watched && known.held.is_none() {
            let established = known.seen.state != Some(SocketState::Connecting);
            out.push(closing(id, now, None, established.then_some(true)));
        }
    }

    fn remove(&mut self, id: SocketId) -> Option<Known> {
        let known = self.known.remove(&id)?;
        if known.seen.listening
            && let Some(port) = port(&known.seen)
            && let Some(count) = self.listeners.get_mut(&port)
        {
            *count -= 1;
            if *count == 0 {
                self.listeners.remove(&port);
            }
        }
        Some(known)
    }

    /// Everything watched ends: the namespace can no longer be looked into.
    pub fn close_all(&mut self, now: Moment, out: &mut Vec<SocketChange>) {
        let mut ids: Vec<SocketId> = self.known.keys().copied().collect();
        ids.sort_unstable_by_key(order);
        for id in ids {
            self.forget(id, now, out);
        }
    }

    pub fn len(&self) -> usize {
        self.known.len()
    }

    pub fn is_empty(&self) -> bool {
        self.known.is_empty()
    }
}

/// The opening of a socket that never was in a table: a notification alone told of it.
pub fn unattributed(seen: &Seen, role: Role, at: Moment, netns: u32) -> Opened {
    Opened {
        id: seen.id,
        role,
        protocol: seen.protocol,
        local: seen.local.clone(),
        remote: seen.remote.clone(),
        state: seen.state,
        owner: None,
        quality: OwnerQuality::Unattributed,
        preexisting: false,
        at,
        netns,
        peer_pid: None,
        source: SourceKind::Proc,
    }
}

/// The end of a socket as a notification tells it.
pub fn closing(id: SocketId, at: Moment, bytes: Option<Bytes>, established: Option<bool>) -> SocketChange {
    SocketChange::Closed(Closed { id, at, bytes, error: None, established, duration: None })
}

fn opening(known: &Known, role: Role, holder: Option<Holder>, netns: u32) -> Opened {
    Opened {
        owner: holder.map(|holder| holder.process),
        quality: holder.map_or(OwnerQuality::Unattributed, |holder| holder.quality),
        preexisting: known.preexisting,
        ..unattributed(&known.seen, role, known.first_seen, netns)
    }
}

/// Whether a look held the sockets of a protocol.
fn holds(looked_at: &[Protocol], protocol: Protocol) -> bool {
    looked_at.contains(if protocol.is_other() { &OTHERS } else { &protocol })
}

/// A datagram socket that is connected to port 0 sends nothing: somebody asks which address would be used.
fn is_probe(seen: &Seen) -> bool {
    seen.protocol == Protocol::Udp && matches!(&seen.remote, Some(Address::Ip(remote)) if remote.port() == 0)
}

fn port(seen: &Seen) -> Option<(Protocol, u16)> {
    match &seen.local {
        Some(Address::Ip(local)) => Some((seen.protocol, local.port())),
        Some(Address::Host(_) | Address::Path(_)) | None => None,
    }
}

/// Cookies and inodes both grow with time.
fn order(id: &SocketId) -> u64 {
    match id {
        SocketId::Cookie { cookie, .. } | SocketId::Flow { cookie, .. } => *cookie,
        SocketId::Inode { inode, .. } => *inode,
    }
}

#[cfg(test)]
mod tests;
