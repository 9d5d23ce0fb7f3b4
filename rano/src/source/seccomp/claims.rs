//! Whose each socket is, as the calls told, joined with what the kernel's tables tell of the same sockets. A call says
//! who and what was asked for; what became of it, and with whom, the kernel says. Pure: it reads no clock and no /proc.

use std::collections::VecDeque;
use std::net::{IpAddr, SocketAddr};

use crate::bounded::FastBounded;
use crate::event::{Address, Moment, OwnerQuality, Protocol, SocketState, SourceKind};
use crate::process::ProcessId;
use crate::source::{Closed, Intake, Opened, Role, SocketChange, SocketId};

/// Sockets that are known at a time; the oldest make room.
const CLAIMS_MAX: usize = 1 << 16;
/// Receivers of one datagram socket that are told.
const FLOWS_MAX: usize = 64;
/// How long the kernel's tables have to show what a call asked for.
const PATIENCE_NS: u64 = 3_000_000_000;

/// What a call asks for.
#[derive(Debug, Clone, Copy)]
pub(super) struct Call {
    pub(super) owner: ProcessId,
    pub(super) at: Moment,
    pub(super) protocol: Protocol,
    /// What the caller passed.
    pub(super) remote: SocketAddr,
    /// Number of the network namespace.
    pub(super) netns: u32,
}

/// A socket in a call.
#[derive(Debug, Clone)]
pub(super) struct Claim {
    pub(super) owner: ProcessId,
    pub(super) at: Moment,
    pub(super) protocol: Protocol,
    /// What the caller passed.
    pub(super) remote: SocketAddr,
    /// Number of the network namespace.
    pub(super) netns: u32,
    told: Told,
    /// Receivers of datagrams.
    flows: Vec<SocketAddr>,
    /// Their local end was told.
    has_local: bool,
}

/// What the pipeline knows of a socket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Told {
    Nothing,
    /// It is open.
    Opening,
    /// It failed, and the socket is still there: it may be connected again.
    Failure,
}

/// What became of a socket that no table showed in time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fate {
    /// It is there: its end will be told.
    Open,
    /// It is there and not connected.
    Failed,
    /// Nobody knows.
    Unknown,
}

/// What a claim makes of a socket that a table shows.
#[derive(Debug)]
pub(super) enum Seen {
    /// With its owner.
    Claimed(Opened),
    Unclaimed(Opened),
    /// The local end of datagram flows.
    Bound(Vec<SocketId>, Address),
    /// Nothing new.
    Told,
}

/// All that was claimed and has not ended.
#[derive(Debug)]
pub(super) struct Claims {
    table: FastBounded<SocketId, Claim>,
    /// What no table has shown yet, and when it is no longer waited for.
    waiting: VecDeque<(u64, SocketId)>,
    /// Connects that ended up elsewhere than the caller said.
    pub(super) address_changed: u64,
    /// Datagram sockets that were connected and closed without a datagram that was seen.
    pub(super) silent: u64,
}

impl Claims {
    pub(super) fn new() -> Self {
        Self { table: FastBounded::new(CLAIMS_MAX), waiting: VecDeque::new(), address_changed: 0, silent: 0 }
    }

    /// Claims that had to make room.
    pub(super) fn forgotten(&self) -> u64 {
        self.table.pushed_out()
    }

    /// Somebody connects a socket. A call that a signal interrupted is told twice.
    pub(super) fn connect(&mut self, id: SocketId, call: Call, now_ns: u64) {
        let Call { owner, at, protocol, remote, netns } = call;
        if remote.port() == 0 && protocol == Protocol::Udp {
            // A question about routes.
            return;
        }
        match self.table.get_mut(&id) {
            Some(claim) if claim.told == Told::Opening => return,
            Some(claim) if claim.told == Told::Nothing && claim.owner == owner => {
                claim.remote = remote;
                return;
            }
            Some(_) | None => {}
        }
        let claim = Claim {
            owner,
            at,
            protocol,
            remote,
            netns,
            told: Told::Nothing,
            flows: Vec::new(),
            has_local: false,
        };
        self.table.insert(id, claim);
        self.waiting.push_back((now_ns.saturating_add(PATIENCE_NS), id));
    }

    /// Somebody sends a datagram. `ends`: of the socket, as the kernel has them.
    pub(super) fn send(
        &mut self,
        id: SocketId,
        call: Call,
        (local, peer): (Option<SocketAddr>, Option<SocketAddr>),
        intake: &mut dyn Intake,
    ) {
        let Call { owner, at, protocol, remote, netns } = call;
        let is_connected = peer == Some(remote);
        if !self.table.contains(&id) {
            let claim = Claim {
                owner,
                at,
                protocol,
                remote,
                netns,
                told: Told::Nothing,
                flows: Vec::new(),
                has_local: false,
            };
            self.table.insert(id, claim);
        }
        let Some(claim) = self.table.get_mut(&id) else { return };
        let local = local.filter(|local| local.port() != 0).map(Address::ip);
        let as_flow = flow(id, remote).filter(|_| !is_connected);
        let told = match as_flow {
            Some(_) if claim.flows.contains(&remote) || claim.flows.len() >= FLOWS_MAX => return,
            Some(flow) => {
                claim.flows.push(remote);
                flow
            }
            None if claim.told == Told::Opening => return,
            None => {
                claim.told = Told::Opening;
                id
            }
        };
        let claim = Claim { owner, at, remote, ..claim.clone() };
        let opened = Opened { local, ..claim.opened(told, None) };
        intake.socket(SocketChange::Opened(opened));
    }

    pub(super) fn knows(&self, id: SocketId) -> bool {
        self.table.contains(&id)
    }

    /// A table shows a socket, or a notification tells that there was one.
    pub(super) fn opened(&mut self, opened: Opened) -> Seen {
        let Some(claim) = self.table.get_mut(&opened.id) else { return Seen::Unclaimed(opened) };
        if !claim.flows.is_empty() {
            return match (&opened.local, opened.id) {
                (Some(local), id) if !claim.has_local => {
                    claim.has_local = true;
                    let flows = claim.flows.iter().filter_map(|remote| flow(id, *remote)).collect();
                    Seen::Bound(flows, local.clone())
                }
                _ => Seen::Told,
            };
        }
        if claim.protocol == Protocol::Udp && opened.owner.is_none() && claim.told == Told::Nothing {
            return Seen::Told;
        }
        let (remote, differs) = claim.settle(opened.remote.as_ref());
        self.address_changed += u64::from(differs && claim.told != Told::Opening);
        let at = if claim.at.boot_ns < opened.at.boot_ns { claim.at } else { opened.at };
        claim.told = Told::Opening;
        Seen::Claimed(Opened {
            role: Role::Connect,
            remote: Some(remote),
            owner: Some(claim.owner),
            quality: OwnerQuality::Exact,
            at,
            source: SourceKind::Seccomp,
            ..opened
        })
    }

    /// A socket has ended.
    pub(super) fn closed(&mut self, closed: Closed, intake: &mut dyn Intake) {
        let Some(mut claim) = self.table.remove(&closed.id) else {
            return intake.socket(SocketChange::Closed(closed));
        };
        let has_sent = !claim.flows.is_empty();
        for remote in std::mem::take(&mut claim.flows) {
            if let Some(id) = flow(closed.id, remote) {
                intake.socket(SocketChange::Closed(Closed { id, ..closed.clone() }));
            }
        }
        match (claim.told, claim.protocol) {
            (Told::Nothing, Protocol::Udp) => self.silent += u64::from(!has_sent),
            (Told::Nothing, _) => {
                let is_established = closed.established == Some(true);
                let state = if is_established { SocketState::Established } else { SocketState::Connecting };
                intake.socket(SocketChange::Opened(claim.opened(closed.id, Some(state))));
            }
            (Told::Opening | Told::Failure, _) => {}
        }
        intake.socket(SocketChange::Closed(closed));
    }

    /// The sockets that are no longer waited for.
    pub(super) fn overdue(&mut self, now_ns: u64) -> Vec<SocketId> {
        let mut overdue = Vec::new();
        while let Some(&(due, id)) = self.waiting.front().filter(|(due, _)| *due <= now_ns) {
            let _ = due;
            self.waiting.pop_front();
            if self.table.get(&id).is_some_and(|claim| claim.told == Told::Nothing && claim.flows.is_empty())
            {
                overdue.push(id);
            }
        }
        overdue
    }

    /// Boot clock: when the next one is.
    pub(super) fn next_due(&self) -> Option<u64> {
        self.waiting.front().map(|(due, _)| *due)
    }

    /// Sockets of TCP whose end is owed, but for those that `are_there`.
    pub(super) fn owed(&self, netns: u32, are_there: impl Fn(SocketId) -> bool) -> bool {
        let is_owed = |id: &SocketId| {
            matches!(id, SocketId::Cookie { netns: its, .. } if *its == netns)
                && self
                    .table
                    .get(id)
                    .is_some_and(|claim| claim.protocol == Protocol::Tcp && claim.told != Told::Failure)
                && !are_there(*id)
        };
        self.table.keys().any(is_owed)
    }

    pub(super) fn protocol(&self, id: SocketId) -> Option<Protocol> {
        self.table.get(&id).map(|claim| claim.protocol)
    }

    /// Tells of a socket that nothing else told of.
    pub(super) fn tell(&mut self, id: SocketId, fate: Fate, now: Moment, intake: &mut dyn Intake) {
        let Some(claim) = self.table.get_mut(&id) else { return };
        if claim.protocol == Protocol::Udp {
            // It has sent nothing that was seen. Its end is waited for.
            return;
        }
        let state = if fate == Fate::Open { SocketState::Established } else { SocketState::Connecting };
        claim.told = Told::Opening;
        let opened = claim.opened(id, Some(state));
        intake.socket(SocketChange::Opened(opened));
        match fate {
            Fate::Open => {}
            Fate::Failed => {
                claim.told = Told::Failure;
                intake.socket(SocketChange::Closed(ended(id, now, Some(false))));
            }
            Fate::Unknown => {
                self.table.remove(&id);
                intake.socket(SocketChange::Gone { id, at: now });
            }
        }
    }
}

fn ended(id: SocketId, at: Moment, established: Option<bool>) -> Closed {
    Closed { id, at, bytes: None, error: None, established, duration: None }
}

/// The part of a datagram socket that is about one receiver.
fn flow(id: SocketId, remote: SocketAddr) -> Option<SocketId> {
    match id {
        SocketId::Cookie { netns, cookie } => Some(SocketId::Flow { netns, cookie, remote }),
        SocketId::Inode { .. } | SocketId::Flow { .. } => None,
    }
}

impl Claim {
    fn opened(&self, id: SocketId, state: Option<SocketState>) -> Opened {
        Opened {
            id,
            role: Role::Connect,
            protocol: self.protocol,
            local: None,
            remote: Some(Address::ip(self.remote)),
            state: state.filter(|_| self.protocol == Protocol::Tcp),
            owner: Some(self.owner),
            quality: OwnerQuality::Exact,
            preexisting: false,
            at: self.at,
            netns: self.netns,
            peer_pid: None,
            source: SourceKind::Seccomp,
        }
    }

    /// The other end as the kernel has it, completed by what the caller said; whether they differ.
    fn settle(&self, seen: Option<&Address>) -> (Address, bool) {
        let said = Address::ip(self.remote);
        match seen {
            Some(Address::Ip(kernel)) if kernel.port() != 0 => {
                let kernel = Address::ip(*kernel);
                let differs = kernel != said && !is_anywhere(self.remote);
                (kernel, differs)
            }
            // An attempt that failed leaves the address at most.
            Some(Address::Ip(kernel)) if !kernel.ip().is_unspecified() => {
                let ip = kernel.ip().to_canonical();
                let differs = ip != self.remote.ip().to_canonical() && !is_anywhere(self.remote);
                (Address::ip(SocketAddr::new(ip, self.remote.port())), differs)
            }
            Some(Address::Ip(_) | Address::Host(_) | Address::Path(_)) | None => (said, false),
        }
    }
}

/// The unspecified address leads to this host.
fn is_anywhere(address: SocketAddr) -> bool {
    let ip: IpAddr = address.ip().to_canonical();
    ip.is_unspecified()
}
