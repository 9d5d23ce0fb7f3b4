//! What was caught between two polls: children of watched processes, and sockets among their descriptors. A socket
//! without a remote end so far is a claim: when a table or the notification of its end shows it, its owner is known.

use rustc_hash::FxHashSet;

use super::ProcSource;
use super::catch::{Age, CatchHealth, Catcher, Caught, Sighting};
use super::own::OwnNamespace;
use super::sockets::{Holder, Seen};
use crate::bounded::FastBounded;
use crate::event::{Address, Moment, OwnerQuality, Protocol, SocketState};
use crate::process::ProcessId;
use crate::source::{self, Intake, SocketChange, SocketId};

/// Claims that are kept; the oldest go.
const CLAIMS: usize = 8_192;
/// Processes that are remembered after their end: their sockets may be told later.
const DEPARTED: usize = 4_096;

/// A socket is that process's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Claim {
    pub(super) process: ProcessId,
    pub(super) at: Moment,
    /// It was there in two looks: it is more than a question which address would be used.
    pub(super) lasts: bool,
}

/// Claims by cookie.
#[derive(Debug)]
pub(super) struct Claims {
    by_cookie: FastBounded<u64, Claim>,
}

impl Default for Claims {
    fn default() -> Self {
        Self { by_cookie: FastBounded::new(CLAIMS) }
    }
}

impl Claims {
    fn insert(&mut self, sighting: &Sighting) {
        if let Some(claim) = self.by_cookie.get_mut(&sighting.cookie) {
            claim.lasts |= sighting.lasts;
            return;
        }
        let claim = Claim { process: sighting.process, at: sighting.at, lasts: sighting.lasts };
        self.by_cookie.insert(sighting.cookie, claim);
    }

    pub(super) fn get(&self, id: SocketId) -> Option<Claim> {
        match id {
            SocketId::Cookie { cookie, .. } => self.by_cookie.get(&cookie).copied(),
            SocketId::Inode { .. } | SocketId::Flow { .. } => None,
        }
    }

    /// Of a socket that ended, if it says that something was sent: a datagram socket that was connected for a moment
    /// sent nothing, unless it asked for a name.
    pub(super) fn take(
        &mut self,
        id: SocketId,
        protocol: Protocol,
        remote: Option<&Address>,
    ) -> Option<Claim> {
        let SocketId::Cookie { cookie, .. } = id else { return None };
        let claim = self.by_cookie.remove(&cookie)?;
        let asks = matches!(remote, Some(Address::Ip(remote)) if remote.port() == 53);
        (protocol != Protocol::Udp || claim.lasts || asks).then_some(claim)
    }
}

/// Looks between polls, and who is followed.
pub(super) struct Quick {
    catcher: Option<Catcher>,
    followed: FxHashSet<ProcessId>,
    departed: FastBounded<ProcessId, ()>,
    caught: Vec<Caught>,
    overruns: u64,
}

impl Quick {
    pub(super) fn new(catcher: Option<Catcher>) -> Self {
        Self {
            catcher,
            followed: FxHashSet::default(),
            departed: FastBounded::new(DEPARTED),
            caught: Vec::new(),
            overruns: 0,
        }
    }

    pub(super) fn catcher(&self) -> Option<&Catcher> {
        self.catcher.as_ref()
    }

    pub(super) fn health(&self) -> CatchHealth {
        self.catcher.as_ref().map(Catcher::health).unwrap_or_default()
    }

    fn depart(&mut self, id: ProcessId) {
        if self.followed.remove(&id) {
            self.departed.insert(id, ());
        }
    }
}

impl ProcSource {
    /// Tells the other thread who is watched now.
    pub(super) fn follow(&mut self) {
        let Some(catcher) = self.quick.catcher() else { return };
        let tracked: FxHashSet<ProcessId> = self.scanner.tracked().collect();
        for &id in tracked.difference(&self.quick.followed) {
            catcher.watch(id, if self.polls > 1 { Age::New } else { Age::Settled });
        }
        let gone: Vec<ProcessId> = self.quick.followed.difference(&tracked).copied().collect();
        for &id in &gone {
            catcher.leave(id);
        }
        for id in gone {
            self.quick.depart(id);
        }
        self.quick.followed = tracked;
    }

    /// Passes on what the other thread caught, and then the ends that notifications told: whose socket it was was seen
    /// before its end.
    pub(super) fn drain(&mut self, intake: &mut dyn Intake) {
        self.own.hear();
        self.take_caught(intake);
        self.own.pass_on_heard(intake);
    }

    fn take_caught(&mut self, intake: &mut dyn Intake) {
        let mut caught = std::mem::take(&mut self.quick.caught);
        let Some(catcher) = self.quick.catcher() else { return };
        catcher.drain(&mut caught);
        let overruns = catcher.health().overruns;
        if overruns > self.quick.overruns {
            // What was not told is found by looking.
            self.quick.overruns = overruns;
            self.next_poll_ns = 0;
        }
        let mut changes = std::mem::take(&mut self.changes);
        for one in caught.drain(..) {
            match one {
                Caught::Process(met) => {
                    let id = met.id;
                    if self.scanner.admit(*met, intake) {
                        self.quick.followed.insert(id);
                    } else if let Some(catcher) = self.quick.catcher() {
                        catcher.leave(id);
                    }
                }
                Caught::Gone(id, at) => {
                    self.scanner.bury(id, at, intake);
                    self.quick.depart(id);
                }
                Caught::Strangers(pids) => {
                    self.scanner.meet_some(&pids, source::now(), intake);
                    self.follow();
                }
                Caught::Socket(sighting) => {
                    let process = sighting.process;
                    if self.scanner.is_tracked(process) || self.quick.departed.contains(&process) {
                        self.scanner.freshen(process, sighting.at, intake);
                        self.own.sight(&sighting, &mut changes);
                        for change in changes.drain(..) {
                            intake.socket(change);
                        }
                    }
                }
            }
        }
        self.changes = changes;
        self.quick.caught = caught;
    }
}

impl OwnNamespace {
    /// A watched process has that socket.
    fn sight(&mut self, sighting: &Sighting, out: &mut Vec<SocketChange>) {
        if self.is_text(sighting.protocol) {
            return;
        }
        let id = SocketId::Cookie { netns: self.table.netns(), cookie: sighting.cookie };
        if self.table.is_watched(id) {
            return;
        }
        let Some((local, remote)) = sighting.ends.filter(|_| sighting.protocol == Protocol::Tcp) else {
            self.claims.insert(sighting);
            return;
        };
        let seen = Seen {
            id,
            protocol: sighting.protocol,
            local: Some(Address::ip(local)),
            remote: Some(Address::ip(remote)),
            // It has no peer before.
            state: Some(SocketState::Established),
            listening: false,
            peer: None,
            inode: sighting.inode,
            uid: None,
        };
        self.table.see(seen, sighting.at, out);
        self.check_side(id);
        let holder = Holder { process: sighting.process, quality: OwnerQuality::Polled };
        self.table.settle(&std::iter::once((id, holder)).collect(), None, out);
        self.sighted += 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sighting(cookie: u64, lasts: bool) -> Sighting {
        Sighting {
            process: ProcessId { pid: 7, start_time: 70 },
            protocol: Protocol::Udp,
            inode: 1,
            cookie,
            ends: None,
            lasts,
            at: Moment::default(),
        }
    }

    #[test]
    fn a_datagram_socket_of_a_moment_claims_nothing_unless_it_asked_for_a_name() {
        let check = |port: u16, lasts: bool| {
            let mut claims = Claims::default();
            claims.insert(&sighting(5, false));
            if lasts {
                claims.insert(&sighting(5, true));
            }
            let id = SocketId::Cookie { netns: 1, cookie: 5 };
            let remote = Address::ip(std::net::SocketAddr::from(([192, 0, 2, 1], port)));
            claims.take(id, Protocol::Udp, Some(&remote)).is_some()
        };
        assert!(check(53, false));
        assert!(!check(443, false));
        assert!(check(443, true));
    }
}
