//! The source that needs no privileges: `sock_diag` dumps and /proc at an interval, and between polls the kernel's
//! notifications of destroyed sockets.

mod caught;
pub mod catch;
pub mod closing;
pub mod destroy;
mod files;
pub mod gate;
mod image;
pub mod inet;
pub mod net_text;
pub mod netlink;
mod new_pids;
mod nobodys;
mod orphans;
pub mod others;
pub mod own;
pub mod processes;
pub mod sock_diag;
pub mod sockets;
pub(super) mod stat;
mod threads;
pub mod throttle;
pub mod unix;
pub mod unix_ends;

#[cfg(test)]
mod tests;

use std::ops::RangeInclusive;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result};
use rustc_hash::{FxHashMap, FxHashSet};
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use crate::event::{Moment, OwnerQuality, Protocol, SourceKind};
use crate::health::{Bound, Bounds, Gap, Gaps};
use crate::process::ProcessId;
use crate::process::agents::Agent;
use crate::source::{self, Intake, Pumped, SocketChange, SocketId, Source, SourceHealth, transports, views};
use crate::stop::Stop;

use catch::Catcher;
use caught::Quick;
use nobodys::Blind;
use others::OtherNamespaces;
use own::OwnNamespace;
use processes::{ProcessScanner, Walk};
use sockets::Holder;

/// How to poll.
#[derive(Debug, Clone, Copy)]
pub struct ProcSettings {
    pub interval: Duration,
    pub udp: bool,
    /// Transports beside TCP and UDP.
    pub other: bool,
    pub listening: bool,
    pub unix: bool,
    /// Connections without an owner are passed on and not only counted.
    pub unattributed: bool,
    /// Nothing but unix sockets: of the others another source tells.
    pub only_unix: bool,
    /// One poll, then the source is exhausted.
    pub once: bool,
    /// The end of every socket is told, whoever's it is: another source knows whose.
    pub every_end: bool,
    /// Bytes to ask for as receive buffer of the notifications; 0 leaves it to the system.
    pub receive_buffer: usize,
}

/// Where processes are.
pub const PROC: &str = "/proc";
/// Every so many polls, sockets are looked for that came to a watched process from outside (`SCM_RIGHTS`), and
/// processes that have moved to another network namespace.
const ROUND: u32 = 10;
/// Notifications that come within this time are passed on together: both ends of a connection on this host, and one
/// wake-up for many of them.
const COALESCE: Duration = Duration::from_millis(20);

/// Polls, and listens in between.
pub struct ProcSource {
    settings: ProcSettings,
    own: OwnNamespace,
    others: OtherNamespaces,
    scanner: ProcessScanner,
    quick: Quick,
    polls: u32,
    next_poll_ns: u64,
    /// How long the last look took.
    look_took_ns: u64,
    /// The next look asks each process for its network namespace.
    recheck: bool,
    /// Notifications are not waited for before this time.
    quiet_until_ns: u64,
    /// Searches through descriptors that broke off.
    broken_walks: u64,
    changes: Vec<SocketChange>,
    /// Why it is this source and no better one.
    instead: Option<String>,
}

impl ProcSource {
    pub fn start(settings: ProcSettings) -> Result<Self> {
        let scanner = ProcessScanner::new(Path::new(PROC))?;
        let namespace = std::fs::metadata(Path::new(PROC).join("self/ns/net"));
        let namespace = namespace.context("find rano's own network namespace")?;
        let netns = u32::try_from(namespace.ino()).context("the number of a network namespace")?;
        let ephemeral = ephemeral_ports();
        let mut sockets = OwnNamespace::open(settings, netns, ephemeral.clone());
        // Every pid namespace has a first process, and every /proc shows it to whom it shows others' processes.
        if scanner.identify(1).is_none() {
            sockets.give_reason("/proc hides other users' processes (hidepid): as root rano sees them too");
        }
        // A single poll has nothing between polls, and where every end is told somebody else knows whose it is.
        let is_alone = !settings.once && !settings.only_unix && !settings.every_end;
        let catcher = is_alone.then(|| Catcher::start(Path::new(PROC), settings.udp)).and_then(|catcher| {
            catcher
                .inspect_err(|error| sockets.give_reason(&format!("no looks between polls ({error:#})")))
                .ok()
        });
        if let Some(refused) = catcher.as_ref().and_then(|catcher| catcher.health().without_events) {
            sockets.give_reason(&refused);
        }
        Ok(Self {
            own: sockets,
            quick: Quick::new(catcher),
            others: OtherNamespaces::new(netns, ephemeral, settings.udp),
            scanner,
            settings,
            polls: 0,
            next_poll_ns: 0,
            look_took_ns: 0,
            recheck: false,
            quiet_until_ns: 0,
            broken_walks: 0,
            changes: Vec::new(),
            instead: None,
        })
    }

    /// With the reason why no better source is used.
    #[must_use]
    pub fn instead_of(mut self, reason: Option<String>) -> Self {
        self.instead = reason;
        self
    }

    /// Finds the orphans of these agents by what they put into the environment of all that they start.
    #[must_use]
    pub fn with_marks_of(mut self, agents: &[Agent]) -> Self {
        self.scanner.go_by_marks_of(agents);
        self
    }

    /// Boot clock.
    pub fn next_poll_ns(&self) -> u64 {
        self.next_poll_ns
    }

    /// The next look is made by then (boot clock).
    pub fn look_by(&mut self, due_ns: u64) {
        self.next_poll_ns = self.next_poll_ns.min(due_ns);
    }

    /// Looks so far, and how long the last one took.
    pub fn looks(&self) -> (u32, u64) {
        (self.polls, self.look_took_ns)
    }

    pub fn own_netns(&self) -> u32 {
        self.own.table.netns()
    }

    pub fn processes(&self) -> &ProcessScanner {
        &self.scanner
    }

    pub fn processes_mut(&mut self) -> &mut ProcessScanner {
        &mut self.scanner
    }

    /// The last look held a socket.
    pub fn holds(&self, id: SocketId) -> bool {
        self.own.table.seen(id).is_some() || self.others.tables.values().any(|table| table.seen(id).is_some())
    }

    /// A watched process is in another network namespace than before.
    pub fn recheck_namespaces(&mut self) {
        self.recheck = true;
    }

    /// Takes what notifications come within `patience` of the first.
    pub fn hear(&mut self, patience: Duration, intake: &mut dyn Intake) {
        let patience = Timespec::try_from(patience).unwrap_or_default();
        let wake = self.own.wake_fd();
        let mut fds: Vec<_> = wake.iter().map(|fd| PollFd::new(fd, PollFlags::IN)).collect();
        // Interrupted or not, what is there is taken.
        let _ = poll(&mut fds, Some(&patience));
        drop(fds);
        self.drain(intake);
    }

    /// Looks once more, as at an interval.
    pub fn look_again(&mut self, intake: &mut dyn Intake) {
        self.poll(intake);
    }

    /// Every end was told so far.
    pub fn heard_every_end(&self) -> bool {
        let heard = self.own.health();
        heard.listening && heard.lost + heard.queue_full + heard.opened_unwatched == 0
    }

    fn poll(&mut self, intake: &mut dyn Intake) {
        let now = source::now();
        let is_first = self.polls == 0;
        let is_round = self.polls.is_multiple_of(ROUND);
        self.polls = self.polls.wrapping_add(1);
        self.drain(intake);
        let mut changes = std::mem::take(&mut self.changes);
        // Sockets first: whoever holds one of them then is either found below or gone, and that is counted.
        let missed = self.own.look(is_round, now, &mut changes);
        let newly_watched = !self.scanner.scan(now, intake).is_empty();
        self.follow();
        let watched: Vec<ProcessId> = self.scanner.tracked().collect();
        let mut missed = missed;
        if !self.settings.only_unix {
            let recheck = is_round || std::mem::take(&mut self.recheck);
            missed += self.others.look(&mut self.scanner, &watched, recheck, is_first, now, &mut changes);
        }
        if missed > 0 {
            intake.unattributed(missed);
        }
        // On a busy machine a look takes its time. What it found may have begun in it, after the answer that led there.
        let found = source::now();
        let nobodys = self.attribute(&watched, newly_watched || is_round, &mut changes);
        if nobodys > 0 {
            intake.unattributed(nobodys);
        }
        for mut change in changes.drain(..) {
            if let SocketChange::Opened(opened) = &mut change
                && opened.at == now
            {
                opened.at = found;
            }
            intake.socket(change);
        }
        self.changes = changes;
        self.drain(intake);
    }

    /// Finds the holders of new sockets, and with `all` of every socket without a watched owner. How many may be a
    /// watched process's that cannot be told.
    fn attribute(&mut self, watched: &[ProcessId], all: bool, changes: &mut Vec<SocketChange>) -> u64 {
        let mut wanted = self.own.table.wanted(all);
        for table in self.others.tables.values() {
            wanted.extend(table.wanted(all));
        }
        let mut found: FxHashMap<SocketId, Holder> = FxHashMap::default();
        let mut complete = true;
        let mut blind = Blind::default();
        if !wanted.is_empty() {
            for &id in wanted.values() {
                if let Some(claim) = self.own.claims.get(id) {
                    found.insert(id, Holder { process: claim.process, quality: OwnerQuality::Polled });
                }
            }
            for &process in watched {
                let walk = self.scanner.fds(process, |_, inode| {
                    if let Some(&id) = wanted.get(&inode) {
                        found
                            .entry(id)
                            .and_modify(|holder| share(holder, process))
                            .or_insert(Holder { process, quality: OwnerQuality::Polled });
                    }
                });
                complete &= walk != Walk::Failed;
                if matches!(walk, Walk::Denied | Walk::Ring) {
                    blind.note(walk, self.scanner.uid(process));
                }
            }
        }
        self.broken_walks += u64::from(!complete);
        for &id in found.keys() {
            self.own.check_side(id);
        }
        let now = source::now();
        // What a walk that was broken off did not find may be there all the same: it is looked for again.
        let searched = complete.then_some(now);
        let mut nobodys = 0;
        if complete && !self.settings.only_unix {
            let found: FxHashSet<SocketId> = found.keys().copied().collect();
            nobodys = self.sort_out(&found, &blind, now, changes);
        }
        self.own.table.settle(&found, searched, changes);
        for table in self.others.tables.values_mut() {
            table.settle(&found, searched, changes);
        }
        if self.settings.unix {
            self.find_peers(changes);
        }
        nobodys
    }

    /// Who holds the other ends of unix sockets that are new: that takes a walk through everybody's descriptors.
    fn find_peers(&mut self, changes: &mut [SocketChange]) {
        let mut wanted = FxHashMap::default();
        let unix = changes.iter_mut().filter_map(|change| match change {
            SocketChange::Opened(opened) if opened.protocol == Protocol::Unix && opened.owner.is_some() => {
                Some(opened)
            }
            _ => None,
        });
        let mut ends: Vec<_> = unix
            .filter_map(|opened| {
                let peer = self.own.table.seen(opened.id)?.peer?;
                wanted.insert(peer, None);
                Some((opened, peer))
            })
            .collect();
        if ends.is_empty() {
            return;
        }
        self.scanner.find_holders(&mut wanted);
        for (opened, peer) in &mut ends {
            opened.peer_pid = wanted.get(peer).copied().flatten().map(|holder: ProcessId| holder.pid);
        }
    }

    fn wait(&mut self, until: Moment, stop: &Stop) -> Result<()> {
        let now = source::now().boot_ns;
        let deadline = until.boot_ns.min(self.next_poll_ns);
        let listens = now >= self.quiet_until_ns;
        let deadline = if listens { deadline } else { deadline.min(self.quiet_until_ns) };
        let patience = Duration::from_nanos(deadline.saturating_sub(now));
        let patience = Timespec::try_from(patience).unwrap_or(Timespec { tv_sec: i64::MAX, tv_nsec: 0 });
        let stop_fd = stop.fd();
        let mut fds = vec![PollFd::new(&stop_fd, PollFlags::IN)];
        let wake = [self.own.wake_fd(), self.quick.catcher().map(Catcher::wake_fd)];
        let wake = wake.map(|fd| fd.filter(|_| listens));
        fds.extend(wake.iter().flatten().map(|fd| PollFd::new(fd, PollFlags::IN)));
        match poll(&mut fds, Some(&patience)) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error).context("wait for notifications"),
        }
        let woken = fds[1..].iter().any(|fd| !fd.revents().is_empty());
        drop(fds);
        if woken {
            // The other end of the connection, and others, are about to be told too.
            self.quiet_until_ns = source::now().boot_ns + nanos(COALESCE);
        }
        Ok(())
    }
}

/// A socket that several watched processes hold was opened by one and came to the others over fork or in a message.
fn share(holder: &mut Holder, process: ProcessId) {
    if holder.process == process {
        return;
    }
    holder.quality = OwnerQuality::Inherited;
    if (process.start_time, process.pid) < (holder.process.start_time, holder.process.pid) {
        holder.process = process;
    }
}

impl Source for ProcSource {
    fn kind(&self) -> SourceKind {
        SourceKind::Proc
    }

    fn pump(&mut self, until: Moment, stop: &Stop, intake: &mut dyn Intake) -> Result<Pumped> {
        while !stop.is_raised() {
            let now = source::now().boot_ns;
            if now >= self.next_poll_ns {
                self.poll(intake);
                self.look_took_ns = source::now().boot_ns.saturating_sub(now);
                // Polls that were slept through are not made up for.
                let interval = nanos(self.settings.interval);
                let due = self.next_poll_ns.saturating_add(interval);
                self.next_poll_ns = if due > now { due } else { now.saturating_add(interval) };
                return Ok(if self.settings.once { Pumped::Exhausted } else { Pumped::More });
            }
            if self.quiet_until_ns != 0 && now >= self.quiet_until_ns {
                self.quiet_until_ns = 0;
                self.drain(intake);
                return Ok(Pumped::More);
            }
            if now >= until.boot_ns {
                return Ok(Pumped::More);
            }
            self.wait(until, stop)?;
        }
        Ok(Pumped::More)
    }

    fn finish(&mut self, intake: &mut dyn Intake) -> Result<()> {
        if !self.settings.once {
            self.poll(intake);
            self.own.stop_listening();
            self.drain(intake);
        }
        Ok(())
    }

    fn count(&mut self, intake: &mut dyn Intake) {
        self.own.count(intake);
    }

    fn health(&self) -> SourceHealth {
        let heard = self.own.health();
        let mut gaps = Gaps::default();
        gaps.set(Gap::NotificationsLost, heard.lost + heard.queue_full + heard.malformed);
        gaps.set(Gap::OpenedUnwatched, heard.opened_unwatched);
        gaps.set(Gap::PermissionDenied, self.scanner.permission_denied() + self.others.refused);
        gaps.set(Gap::Vanished, self.scanner.vanished() + self.scanner.unplaced());
        let reasons = [
            self.instead.as_deref(),
            self.own.reason.as_deref(),
            views::own().outside(),
            self.others.without(),
        ];
        let reasons: Vec<&str> = reasons.into_iter().flatten().collect();
        let mut reason = (!reasons.is_empty()).then(|| reasons.join("; "));
        let mut bounds = Bounds::default();
        let quick = self.quick.health();
        bounds.add(Bound::ProcessEvents, quick.overruns + quick.queue_full);
        bounds.add(Bound::QuickLooks, quick.throttled);
        let wanted = (self.settings.udp, self.settings.other);
        let kind = (self.kind(), false, views::own().outside().is_none());
        let watched = transports::watched(kind, wanted, &mut bounds, &mut reason);
        gaps.set(Gap::Unread, self.own.unread + self.others.unread + self.broken_walks);
        SourceHealth { kind: self.kind(), reason, gaps, bounds, watched }
    }

    fn now(&self) -> Moment {
        source::now()
    }
}

fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

/// The ports from which the kernel chooses by itself; Linux's default where it does not say.
pub fn ephemeral_ports() -> RangeInclusive<u16> {
    let text = std::fs::read_to_string("/proc/sys/net/ipv4/ip_local_port_range").unwrap_or_default();
    let mut ports = text.split_ascii_whitespace().filter_map(|port| port.parse().ok());
    match (ports.next(), ports.next()) {
        (Some(first), Some(last)) => first..=last,
        _ => 32768..=60999,
    }
}
