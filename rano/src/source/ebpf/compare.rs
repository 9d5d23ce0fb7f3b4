//! After records were lost: what is shown as open is compared with the sockets that the kernel programs follow. What
//! they follow no more has ended, and what nobody heard of has begun.
//!
//! The programs put a socket's last record into the ring, or count it as lost, before they forget the socket. So one
//! that is forgotten, and of which the ring holds nothing either once it has been read to its end, ended unseen.

use std::net::{IpAddr, SocketAddr};
use std::os::unix::fs::MetadataExt as _;
use std::time::Duration;

use rano_common::{Header, Loss, OWNERS_MAX, Owner, SocketKind, SocketRecord, flags};
use rustc_hash::{FxHashMap, FxHashSet};

use super::load::Programs;
use super::moment;
use super::sockets::{Sockets, local};
use crate::event::{Address, Moment, Protocol, SocketState};
use crate::source::proc::inet::{InetSocket, States};
use crate::source::proc::sock_diag::{DiagError, Dumper, Info};
use crate::source::{Intake, Open, SocketChange, SocketId};

/// Not more often than this,
const INTERVAL: Duration = Duration::from_secs(1);
/// and not for more than one part in so many of the time.
const IDLE_PARTS: u32 = 50;
/// A look is settled so much later, when the ring has been read to its end again: a record that a program is just
/// making holds back those behind it.
pub const SETTLING: Duration = Duration::from_millis(40);

/// When to compare, and what came of it.
#[derive(Default)]
pub struct Comparison {
    /// Losses up to now, and up to the last look.
    lost: u64,
    reviewed: u64,
    /// Of some connections the source will not tell the end, so another look is owed.
    again: bool,
    /// Boot clock.
    not_before_ns: u64,
    pending: Option<Pending>,
    /// Sockets that are older than the programs, and those of them that they do not follow.
    older: FxHashSet<u64>,
    unfollowed: FxHashSet<SocketId>,
    /// Told because of a look, by cookie.
    retold: FxHashMap<u64, Retold>,
    /// Of those, how many ended without a record: the programs counted them as never heard of.
    pub counted_twice: u64,
}

/// What a look found, to be settled later.
struct Pending {
    /// Boot clock.
    due_ns: u64,
    gone: Vec<SocketId>,
    unheard: Vec<u64>,
}

#[derive(Clone, Copy)]
struct Retold {
    netns: u32,
    /// A record of it came since.
    is_heard: bool,
    is_located: bool,
}

/// A record that the programs could have made, of a socket that is open.
pub type Again = (SocketKind, SocketRecord);

impl Comparison {
    /// Losses so far, of records and of room to remember what was told.
    pub fn note(&mut self, lost: u64) {
        self.lost = lost;
    }

    /// An older socket, and whether the programs follow it.
    pub fn add_older(&mut self, id: SocketId, is_followed: bool) {
        if !is_followed {
            self.unfollowed.insert(id);
        } else if let Some(cookie) = cookie(id) {
            self.older.insert(cookie);
        }
    }

    /// Boot clock.
    pub fn next_due(&self) -> Option<u64> {
        match &self.pending {
            Some(pending) => Some(pending.due_ns),
            None => self.is_owed().then_some(self.not_before_ns),
        }
    }

    /// Something was lost since the last look, or that one is not settled.
    pub fn is_owed(&self) -> bool {
        self.pending.is_some() || self.again || self.lost != self.reviewed
    }

    /// Whether a look waits to be settled.
    pub fn is_pending(&self) -> bool {
        self.pending.is_some()
    }

    /// Whether a connection may be shown as open that has ended, so that another one goes by the number of its socket.
    pub fn may_be_open(&self, cookie: u64) -> bool {
        self.lost > 0 || self.older.contains(&cookie)
    }

    /// A record as it would be if the programs had told what a look told; and where the socket is, once a record says
    /// so.
    pub fn continued(&mut self, kind: SocketKind, record: SocketRecord) -> (SocketRecord, Option<Address>) {
        if self.retold.is_empty() {
            return (record, None);
        }
        let Some(retold) = self.retold.get_mut(&record.cookie) else { return (record, None) };
        retold.is_heard = true;
        let record = SocketRecord { netns: retold.netns, flags: record.flags | flags::HEARD, ..record };
        let is_stream = record.flags & flags::DATAGRAM == 0;
        let local = local(&record).filter(|_| is_stream && !retold.is_located);
        retold.is_located |= local.is_some();
        if matches!(kind, SocketKind::Closed | SocketKind::Released | SocketKind::Failed) {
            self.retold.remove(&record.cookie);
        }
        (record, local)
    }

    /// Looks what has gone and what was never told. The ring was read to its end a moment ago.
    pub fn look(&mut self, now: Moment, programs: &Programs, sockets: &Sockets, intake: &mut dyn Intake) {
        self.reviewed = self.lost;
        self.again = false;
        let mut gone = Vec::new();
        for Open { id, is_pending, .. } in intake.open(Protocol::Tcp) {
            let Some(cookie) = cookie(id).filter(|_| !self.unfollowed.contains(&id)) else { continue };
            match programs.owner(cookie) {
                None => gone.push(id),
                Some(Owner { established_ns, .. }) if is_pending && established_ns != 0 => {
                    let (state, at) = (SocketState::Established, moment(established_ns, now));
                    intake.socket(SocketChange::State { id, state, at });
                }
                Some(_) => {}
            }
        }
        let shown = intake.open(Protocol::Udp).into_iter().map(|open| open.id);
        let flows: FxHashSet<SocketId> = shown.chain(sockets.flows()).collect();
        for id in flows {
            let Some(cookie) = cookie(id).filter(|_| !self.unfollowed.contains(&id)) else { continue };
            let is_gone = programs.owner(cookie).is_none_or(|owner| is_elsewhere(id, owner, sockets));
            if is_gone {
                gone.push(id);
            } else if matches!(id, SocketId::Flow { .. }) && !sockets.knows(id) {
                self.again = true;
            }
        }
        if programs.lost(Loss::OwnersFull) > 0 {
            // It may be that they never followed it.
            gone = without_held(gone);
        }
        gone.sort_unstable_by_key(|id| cookie(*id));
        let unheard = programs.unheard().map(|(cookie, _)| cookie);
        let unheard: Vec<u64> = unheard.filter(|cookie| !self.retold.contains_key(cookie)).collect();
        if self.retold.len() > OWNERS_MAX as usize {
            self.retold.retain(|cookie, _| programs.follows(*cookie));
        }
        let due_ns = now.boot_ns + nanos(SETTLING);
        self.pending = Some(Pending { due_ns, gone, unheard });
        let took = Duration::from_nanos(crate::source::now().boot_ns.saturating_sub(now.boot_ns));
        self.not_before_ns = now.boot_ns + nanos(INTERVAL.max(took * IDLE_PARTS));
    }

    /// Tells what a look found, unless it was told meanwhile. What has begun unheard goes to `again`; `netns` finds the
    /// network namespace of a socket's owner.
    pub fn settle(
        &mut self,
        now: Moment,
        programs: &mut Programs,
        sockets: &mut Sockets,
        netns: impl Fn(&Owner) -> Option<u32>,
        (out, again): (&mut Vec<SocketChange>, &mut Vec<Again>),
    ) {
        let Some(Pending { gone, unheard, .. }) = self.pending.take() else { return };
        for id in gone {
            let Some(cookie) = cookie(id) else { continue };
            let owner = programs.owner(cookie);
            if owner.is_some_and(|owner| !is_elsewhere(id, owner, sockets)) {
                continue;
            }
            sockets.gone(id, &mut |flow| programs.take_flow(flow), out);
            out.push(SocketChange::Gone { id, at: now });
            if let Some(owner) = owner {
                again.extend(self.tell_again(cookie, owner, &netns, None, now));
            } else {
                let retold = self.retold.remove(&cookie);
                self.counted_twice += u64::from(retold.is_some_and(|retold| !retold.is_heard));
            }
        }
        let listed = if unheard.is_empty() { None } else { listed().ok() };
        for cookie in unheard {
            let Some(owner) = programs.owner(cookie).filter(Programs::is_unheard) else { continue };
            let local = listed.as_ref().and_then(|listed| listed.get(&cookie)).map(|socket| socket.local);
            again.extend(self.tell_again(cookie, owner, &netns, local, now));
        }
    }

    /// Nothing, where nobody knows in which network namespace it is.
    fn tell_again(
        &mut self,
        cookie: u64,
        owner: Owner,
        netns: impl Fn(&Owner) -> Option<u32>,
        local: Option<SocketAddr>,
        now: Moment,
    ) -> Option<Again> {
        let netns = netns(&owner)?;
        let is_heard = owner.flags & flags::HEARD != 0;
        self.retold.insert(cookie, Retold { netns, is_heard, is_located: local.is_some() });
        let (kind, record) = record(cookie, owner, netns, now.boot_ns);
        Some((kind, local.map_or(record, |local| at(local, record))))
    }

    /// Of sockets that are open at the end, those of which nothing was told, as far as that can be told of them.
    pub fn never_told(&self, programs: &Programs, now: Moment) -> Vec<SocketRecord> {
        let untold = programs.unheard().filter(|(cookie, _)| !self.retold.contains_key(cookie));
        untold.map(|(cookie, owner)| record(cookie, owner, 0, now.boot_ns).1).collect()
    }
}

/// A connected datagram socket is connected to another place by now.
fn is_elsewhere(id: SocketId, owner: Owner, sockets: &Sockets) -> bool {
    let SocketId::Flow { remote, .. } = id else { return false };
    let is_connected = owner.flags & flags::CONNECTED != 0;
    is_connected && sockets.is_connected(id) && super::sockets::destination(&owner) != remote
}

fn cookie(id: SocketId) -> Option<u64> {
    match id {
        SocketId::Cookie { cookie, .. } | SocketId::Flow { cookie, .. } => Some(cookie),
        SocketId::Inode { .. } => None,
    }
}

/// A socket as the kernel lists it.
struct Listed {
    local: SocketAddr,
    /// Somebody has a descriptor of it.
    is_held: bool,
}

/// The sockets of rano's own network namespace, by cookie; into others it may not look.
fn listed() -> Result<FxHashMap<u64, Listed>, DiagError> {
    let mut listed = FxHashMap::default();
    let mut add = |socket: &InetSocket| {
        let is_held = socket.inode != 0;
        listed.extend(socket.cookie.map(|cookie| (cookie, Listed { local: socket.local, is_held })));
    };
    let mut dumper = Dumper::open()?;
    dumper.tcp(States::SOCKETS, Info::Without, &mut add)?;
    dumper.udp(States::ALL, &mut add)?;
    Ok(listed)
}

/// Those that nobody holds any more, as far as the kernel lists them.
fn without_held(gone: Vec<SocketId>) -> Vec<SocketId> {
    let Ok(listed) = listed() else { return Vec::new() };
    let own = std::fs::metadata("/proc/self/ns/net").map_or(0, |namespace| namespace.ino());
    let is_gone = |id: &SocketId| match *id {
        SocketId::Cookie { netns, cookie } | SocketId::Flow { netns, cookie, .. } => {
            u64::from(netns) == own && !listed.get(&cookie).is_some_and(|socket| socket.is_held)
        }
        SocketId::Inode { .. } => false,
    };
    gone.into_iter().filter(is_gone).collect()
}

/// What can be told of a socket by its owner.
fn record(cookie: u64, owner: Owner, netns: u32, now_ns: u64) -> Again {
    let is_datagram = owner.flags & flags::DATAGRAM != 0;
    let kind = if is_datagram && owner.flags & flags::CONNECTED == 0 {
        SocketKind::Datagram
    } else if is_datagram {
        SocketKind::Bound
    } else if owner.established_ns == 0 {
        SocketKind::Attempt
    } else {
        SocketKind::Established
    };
    let at_ns = if owner.established_ns == 0 { now_ns } else { owner.established_ns };
    let size = u32::try_from(size_of::<SocketRecord>()).unwrap_or(0);
    let protocol = if is_datagram { libc::IPPROTO_UDP } else { libc::IPPROTO_TCP };
    let record = SocketRecord {
        header: Header { kind: kind as u32, size, at_ns },
        cookie,
        owner_start_ns: owner.start_ns,
        established_ns: owner.established_ns,
        bytes_sent: 0,
        bytes_received: 0,
        pid: owner.pid,
        exec_id: owner.exec_id,
        flags: owner.flags,
        netns,
        error: 0,
        local_port: 0,
        remote_port: owner.remote_port,
        // Mapped addresses are those of IPv4.
        family: u16::try_from(libc::AF_INET6).unwrap_or(0),
        protocol: u8::try_from(protocol).unwrap_or(0),
        state_before: 0,
        interface: 0,
        local: [0; 16],
        remote: owner.remote_bytes(),
    };
    (kind, record)
}

/// The same with its local end.
fn at(local: SocketAddr, record: SocketRecord) -> SocketRecord {
    let six = match local.ip() {
        IpAddr::V4(four) => four.to_ipv6_mapped(),
        IpAddr::V6(six) => six,
    };
    SocketRecord { local: six.octets(), local_port: local.port(), ..record }
}

fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}
