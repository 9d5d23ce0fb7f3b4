//! The source that sees every connection as it happens: kernel programs (`rano-ebpf`) on cgroup hooks, raw
//! tracepoints and functions, read from a ring buffer and joined by socket cookie.

pub mod btf;
pub mod cgroup;
pub mod compare;
pub mod hooks;
pub mod kernel;
pub mod load;
pub mod lockdown;
mod misses;
pub mod names;
pub mod older;
pub mod orphans;
pub mod processes;
mod refusals;
pub mod sockets;
pub mod unix;

use std::os::unix::fs::MetadataExt as _;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use rano_common::{LeftOut, Loss, Record, SocketKind, SocketRecord, decode, flags};
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use crate::event::{Moment, OwnerQuality, Protocol, SourceKind};
use crate::health::{Bound, Bounds, Gap, Gaps};
use crate::privileges;
use crate::process::{ProcessId, Verdict};
use crate::source::counting::{self, By, QUESTIONS_MAX};
use crate::source::proc::sock_diag::Dumper;
use crate::source::proc::{ProcSettings, ephemeral_ports};
use crate::source::{self, Intake, Pumped, SocketChange, SocketId, Source, SourceHealth, transports, views};
use crate::stop::Stop;

use compare::Comparison;
use hooks::Hooks;
use load::{Programs, Wanted};
use names::Names;
use older::{OlderSockets, Told};
use orphans::Orphans;
use processes::{Acquaintance, Processes};
use sockets::Sockets;
use unix::UnixSockets;

/// The ring is not read more often: what comes within this time of a first record is read with it, on one wake-up.
const COALESCE: Duration = Duration::from_millis(20);
/// Records that are read at once, before the rest of the program has its turn.
const BATCH: usize = 8192;
/// How often it is looked for sockets beyond IP that are gone.
const BEYOND_IP_NS: u64 = 500_000_000;
/// After a look through /proc there is none for so many times as long.
const SCAN_IDLE_PARTS: u64 = 9;

/// How to observe.
#[derive(Debug, Clone, Copy)]
pub struct EbpfSettings {
    /// How to look for what is older than the observation.
    pub polling: ProcSettings,
    /// Only this rung.
    pub rung: Option<SourceKind>,
    /// Room for records in the kernel; 0 for the usual.
    pub ring_bytes: u32,
    /// Sockets that are followed at a time; 0 for the usual.
    pub owners_max: u32,
    /// Packets that hold names are looked at.
    pub names: bool,
    /// The thread keeps its privileges, and the process its limits.
    pub keep_privileges: bool,
}

/// Kernel programs and what their records come to.
pub struct EbpfSource {
    settings: EbpfSettings,
    programs: Programs,
    processes: Processes,
    sockets: Sockets,
    names: Names,
    orphans: Orphans,
    comparison: Comparison,
    /// Where unix sockets are wanted.
    unix: Option<UnixSockets>,
    started: bool,
    /// When the ring was last read to its end.
    emptied: Instant,
    malformed: u64,
    /// Sockets that are open at the end and of which every record was lost.
    unheard: u64,
    /// Connections of excluded processes that were counted so far.
    left_out: u64,
    /// Process records lost when /proc was read last.
    lost_at_scan: u64,
    /// Boot clock: when it is to be read again, if it is, and when at the earliest.
    scan_due_ns: Option<u64>,
    scan_not_before_ns: u64,
    /// Boot clock: when it is looked which sockets beyond IP are gone, if there are any.
    beyond_due_ns: Option<u64>,
    /// Opened when the bytes of open connections are first asked for.
    dumper: Option<Dumper>,
    /// rano's own network namespace.
    netns: u32,
    changes: Vec<SocketChange>,
    /// The one that is being read.
    record: Vec<u8>,
}

/// rano's own network namespace; 0 where that is not to be known.
fn own_netns() -> u32 {
    let namespace = std::fs::metadata("/proc/self/ns/net");
    namespace.ok().and_then(|namespace| u32::try_from(namespace.ino()).ok()).unwrap_or(0)
}

/// Loading reads the kernel's types into some ten megabytes of small pieces, which the allocator would keep for good.
fn give_back_memory() {
    #[cfg(target_env = "gnu")]
    // SAFETY: it takes no pointer, and glibc allows it at any time in any thread.
    unsafe {
        libc::malloc_trim(0);
    }
}

impl EbpfSource {
    /// Attaches the programs; an error says why this is not possible here.
    pub fn start(settings: EbpfSettings) -> Result<Self> {
        let begun = source::now();
        let wanted = Wanted {
            rung: settings.rung,
            listening: settings.polling.listening,
            uses: settings.polling.other,
            ring_bytes: settings.ring_bytes,
            owners_max: settings.owners_max,
            names: settings.names,
            keep_limits: settings.keep_privileges,
        };
        let programs = Programs::attach(wanted).map_err(lockdown::explained)?;
        give_back_memory();
        let unix = settings.polling.unix && !settings.polling.once;
        let rung = programs.hooks.rung;
        let processes = Processes::new(begun, programs.hooks.subtree)?;
        let counts_datagrams = programs.hooks.has(hooks::DATAGRAM_BYTES);
        Ok(Self {
            settings,
            programs,
            processes,
            names: Names::default(),
            sockets: Sockets::new(rung, counts_datagrams, ephemeral_ports()),
            unix: unix.then(|| UnixSockets::start(settings.polling)).transpose()?,
            orphans: Orphans::default(),
            comparison: Comparison::default(),
            started: false,
            emptied: Instant::now(),
            malformed: 0,
            unheard: 0,
            left_out: 0,
            lost_at_scan: 0,
            scan_due_ns: None,
            scan_not_before_ns: 0,
            beyond_due_ns: None,
            dumper: None,
            netns: own_netns(),
            changes: Vec::new(),
            record: Vec::new(),
        })
    }

    /// Why no names come from packets although they were asked for.
    pub fn without_names(&self) -> Option<&str> {
        self.settings.names.then(|| self.programs.hooks.why_no_names()).flatten()
    }

    /// Which hooks are in use, and why not others.
    pub fn hooks(&self) -> &Hooks {
        &self.programs.hooks
    }

    /// What there is already: processes, then what has happened since the programs were attached, then older sockets.
    fn begin(&mut self, intake: &mut dyn Intake) -> Result<()> {
        self.processes.read_all(source::now(), &|pid| self.programs.judgement(pid), intake);
        let older = OlderSockets::look(self.settings.polling, intake)?;
        let mut told = Told::default();
        while self.drain(intake, Some(&mut told)) == BATCH {}
        older.tell(&told, &mut self.programs, &mut self.comparison, intake);
        if !self.settings.keep_privileges {
            self.give_up_privileges();
        }
        Ok(())
    }

    /// Everything is attached, and other network namespaces need not be entered any more.
    fn give_up_privileges(&self) {
        let mut keep = privileges::OTHERS_PROCESSES;
        let probed = privileges::OWN_MAPS.union(privileges::INSTEAD_OF_OWN_MAPS);
        if !privileges::works_without(probed, || self.programs.are_within_reach()) {
            keep |= privileges::OWN_MAPS;
        }
        privileges::keep_only(keep);
    }

    /// Reads at most [`BATCH`] records; how many there were. `told` collects the sockets they are about.
    fn drain(&mut self, intake: &mut dyn Intake, mut told: Option<&mut Told>) -> usize {
        #[cfg(feature = "kernel-log")]
        self.programs.tell_lines();
        let now = source::now();
        let mut count = 0;
        let mut bytes = std::mem::take(&mut self.record);
        while count < BATCH {
            let Some(item) = self.programs.ring.next() else { break };
            count += 1;
            bytes.clear();
            bytes.extend_from_slice(&item);
            // Its room in the ring is given back.
            drop(item);
            match decode(&bytes) {
                Ok(Record::Packet(kind, mut packet, content)) => {
                    packet.header.at_ns = views::here(packet.header.at_ns);
                    self.names.read(kind, &packet, content, moment(packet.header.at_ns, now), intake);
                }
                Ok(Record::Socket(kind, mut record)) => {
                    record.header.at_ns = views::here(record.header.at_ns);
                    if record.established_ns != 0 {
                        record.established_ns = views::here(record.established_ns);
                    }
                    if let Some(told) = &mut told {
                        told.add(&record);
                    }
                    let (record, local) = self.comparison.continued(kind, record);
                    if let Some(local) = local {
                        let id = SocketId::Cookie { netns: record.netns, cookie: record.cookie };
                        let at = moment(record.header.at_ns, now);
                        intake.socket(SocketChange::Local { id, local, at });
                    }
                    self.socket(kind, &record, moment(record.header.at_ns, now), intake);
                }
                Ok(Record::Process(mut told)) => {
                    told.process.header.at_ns = views::here(told.process.header.at_ns);
                    self.process(&told, now, intake);
                }
                Err(_) => self.malformed += 1,
            }
        }
        self.record = bytes;
        self.comparison.note(self.programs.lost(Loss::SocketRecord) + self.sockets.flows_full);
        self.read_processes_again(intake);
        self.count_left_out(intake);
        count
    }

    /// What excluded processes opened since it was last asked.
    fn count_left_out(&mut self, intake: &mut dyn Intake) {
        if !self.processes.leaves_out {
            return;
        }
        let datagrams =
            if self.settings.polling.udp { self.programs.left_out(LeftOut::Datagrams) } else { 0 };
        let so_far = self.programs.left_out(LeftOut::Streams) + datagrams;
        let new = so_far.saturating_sub(self.left_out);
        if new > 0 {
            self.left_out = so_far;
            intake.left_out(new);
        }
    }

    /// When records of processes were lost, but not for more than a part of the time: who can make them lost can do so
    /// for long.
    fn read_processes_again(&mut self, intake: &mut dyn Intake) {
        let lost = self.programs.lost(Loss::ProcessRecord);
        let now = source::now();
        self.scan_due_ns = (lost != self.lost_at_scan).then_some(self.scan_not_before_ns);
        if self.scan_due_ns.is_some_and(|due| due <= now.boot_ns) {
            self.lost_at_scan = lost;
            self.scan_due_ns = None;
            self.processes.read_all(now, &|pid| self.programs.judgement(pid), intake);
            let end = source::now().boot_ns;
            self.scan_not_before_ns = end + SCAN_IDLE_PARTS * end.saturating_sub(now.boot_ns);
        }
    }

    fn process(&mut self, told: &rano_common::Told<'_>, now: Moment, intake: &mut dyn Intake) {
        let at = moment(told.process.header.at_ns, now);
        let id = processes::identity(told.process.pid, told.process.start_ns);
        self.release(at.boot_ns, Some(id), intake);
        self.processes.record(told, at, &mut self.programs, intake);
    }

    fn socket(&mut self, kind: SocketKind, record: &SocketRecord, at: Moment, intake: &mut dyn Intake) {
        let is_owned = self.judge(kind, record, at, intake);
        let changed = self.processes.has_changed(record);
        if sockets::is_first(record) && self.comparison.may_be_open(record.cookie) {
            let id = SocketId::Cookie { netns: record.netns, cookie: record.cookie };
            intake.socket(SocketChange::Gone { id, at });
        }
        let Self { programs, sockets, .. } = self;
        sockets.changes(kind, record, at, &mut |flow| programs.take_flow(flow), &mut self.changes);
        if record.flags & flags::OTHER != 0 && self.beyond_due_ns.is_none() && !sockets.beyond_ip().is_empty()
        {
            self.beyond_due_ns = Some(at.boot_ns + BEYOND_IP_NS);
        }
        if changed {
            // It is not waited for what will not be told.
            let owner = processes::identity(record.pid, record.owner_start_ns);
            sockets.release(0, Some(owner), &mut self.changes);
        }
        for mut change in self.changes.drain(..) {
            if let SocketChange::Opened(opened) | SocketChange::Attempted(opened) = &mut change {
                if changed {
                    // Whoever opened it then was not watched, or it was told of then, or that was lost.
                    let is_first = record.flags & (flags::HEARD | flags::PREEXISTING) == 0;
                    intake.unattributed(u64::from(is_first));
                    continue;
                }
                if !is_owned {
                    opened.owner = None;
                    opened.quality = OwnerQuality::Unattributed;
                }
            }
            intake.socket(change);
        }
    }

    /// A socket of a process that is ignored tells that its verdict did not arrive. One of a process that nobody knows
    /// tells that records were lost: /proc may still have it. Whether the socket is to be passed on as its owner's.
    fn judge(
        &mut self,
        kind: SocketKind,
        record: &SocketRecord,
        at: Moment,
        intake: &mut dyn Intake,
    ) -> bool {
        let owner = processes::identity(record.pid, record.owner_start_ns);
        if intake.verdict(owner) != Verdict::Tracked {
            match self.processes.meet(record, at, &mut self.programs, intake) {
                Acquaintance::Alive => self.processes.answer(record.pid, &mut self.programs),
                Acquaintance::Departed => {}
                // Shown, it is counted as it is.
                Acquaintance::Unknown if self.settings.polling.unattributed => return false,
                Acquaintance::Unknown => {
                    intake.unattributed(self.orphans.told(kind, record));
                    return true;
                }
            }
        }
        self.orphans.adopted(record.cookie);
        true
    }

    /// How many sockets are open of which every record was lost. Those of processes that are known not to be watched do
    /// not count: whatever uses a socket before it is judged is followed, wherever it is.
    fn never_told(&mut self, intake: &mut dyn Intake) -> u64 {
        let now = source::now();
        let mut count = 0;
        for record in self.comparison.never_told(&self.programs, now) {
            let owner = processes::identity(record.pid, record.owner_start_ns);
            let is_strangers = intake.verdict(owner) != Verdict::Tracked
                && self.processes.meet(&record, now, &mut self.programs, intake) != Acquaintance::Unknown
                && intake.verdict(owner) != Verdict::Tracked;
            count += u64::from(!is_strangers);
        }
        count
    }

    /// Passes on what was held back for its local end until now, or because its process is about to change.
    fn release(&mut self, now_ns: u64, of: Option<ProcessId>, intake: &mut dyn Intake) {
        self.sockets.release(now_ns, of, &mut self.changes);
        for change in self.changes.drain(..) {
            intake.socket(change);
        }
    }

    /// Compares what is open with what the kernel programs follow, in two steps: what the ring still holds is read in
    /// between.
    fn compare(&mut self, intake: &mut dyn Intake) {
        let now = source::now();
        let Self { comparison, programs, processes, sockets, changes, .. } = self;
        if !comparison.is_pending() {
            return comparison.look(now, programs, sockets, intake);
        }
        let mut again = Vec::new();
        comparison.settle(now, programs, sockets, |owner| processes.netns(owner), (changes, &mut again));
        for change in self.changes.drain(..) {
            intake.socket(change);
        }
        for (kind, record) in again {
            self.socket(kind, &record, moment(record.header.at_ns, now), intake);
        }
    }

    /// No hook tells of the end of a socket beyond IP: it is gone when its process has it no more.
    fn look_beyond_ip(&mut self, intake: &mut dyn Intake) {
        let now = source::now();
        for (cookie, pid) in self.sockets.beyond_ip() {
            if older::sockets_of(pid).is_ok_and(|inodes| inodes.contains(&sockets::inode(cookie))) {
                continue;
            }
            let Self { programs, sockets, changes, .. } = self;
            sockets.end_beyond_ip(cookie, now, &mut |flow| programs.take_flow(flow), changes);
            let _ = programs.unfollow(cookie);
        }
        let is_any = !self.sockets.beyond_ip().is_empty();
        self.beyond_due_ns = is_any.then_some(now.boot_ns + BEYOND_IP_NS);
        for change in self.changes.drain(..) {
            intake.socket(change);
        }
    }

    fn wait(&self, patience: Duration, for_records: bool, stop: &Stop) -> Result<bool> {
        let patience = Timespec::try_from(patience).unwrap_or(Timespec { tv_sec: i64::MAX, tv_nsec: 0 });
        let stop_fd = stop.fd();
        let mut fds = vec![PollFd::new(&stop_fd, PollFlags::IN)];
        if for_records {
            fds.push(PollFd::new(&self.programs.ring, PollFlags::IN));
        }
        match poll(&mut fds, Some(&patience)) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error).context("wait for records of the kernel programs"),
        }
        Ok(fds.get(1).is_some_and(|fd| !fd.revents().is_empty()))
    }
}

/// When a record was made, on both clocks.
fn moment(at_ns: u64, now: Moment) -> Moment {
    let age_ms = i64::try_from(now.boot_ns.saturating_sub(at_ns) / 1_000_000).unwrap_or(i64::MAX);
    Moment { boot_ns: at_ns, unix_ms: now.unix_ms.saturating_sub(age_ms) }
}

impl Source for EbpfSource {
    fn kind(&self) -> SourceKind {
        self.programs.hooks.rung
    }

    fn pump(&mut self, until: Moment, stop: &Stop, intake: &mut dyn Intake) -> Result<Pumped> {
        if !self.started {
            self.started = true;
            self.begin(intake)?;
            return Ok(if self.settings.polling.once { Pumped::Exhausted } else { Pumped::More });
        }
        while !stop.is_raised() {
            let rest = COALESCE.saturating_sub(self.emptied.elapsed());
            if rest.is_zero() {
                let count = self.drain(intake, None);
                if count < BATCH {
                    self.emptied = Instant::now();
                }
                if count > 0 {
                    return Ok(Pumped::More);
                }
            }
            let now = source::now().boot_ns;
            if let Some(unix) = self.unix.as_mut().filter(|unix| unix.next_due() <= now) {
                unix.poll(stop, intake)?;
                return Ok(Pumped::More);
            }
            if self.sockets.next_due().is_some_and(|due| due <= now) {
                self.release(now, None, intake);
                return Ok(Pumped::More);
            }
            if self.scan_due_ns.is_some_and(|due| due <= now) {
                self.read_processes_again(intake);
                return Ok(Pumped::More);
            }
            // The ring was read to its end a moment ago.
            if self.comparison.next_due().is_some_and(|due| due <= now) {
                self.compare(intake);
                return Ok(Pumped::More);
            }
            if self.beyond_due_ns.is_some_and(|due| due <= now) {
                self.look_beyond_ip(intake);
                return Ok(Pumped::More);
            }
            let due = [
                self.beyond_due_ns,
                self.sockets.next_due(),
                self.unix.as_ref().map(UnixSockets::next_due),
                self.comparison.next_due(),
                self.scan_due_ns,
            ];
            let until = due.into_iter().flatten().fold(until.boot_ns, u64::min);
            let left = until.saturating_sub(now);
            if left == 0 {
                return Ok(Pumped::More);
            }
            let left = Duration::from_nanos(left);
            if !rest.is_zero() {
                self.wait(left.min(rest), false, stop)?;
            } else if self.wait(left, true, stop)? {
                self.wait(COALESCE, false, stop)?;
            }
        }
        Ok(Pumped::More)
    }

    fn finish(&mut self, intake: &mut dyn Intake) -> Result<()> {
        self.programs.detach();
        while self.drain(intake, None) == BATCH {}
        self.look_beyond_ip(intake);
        self.release(u64::MAX, None, intake);
        if self.comparison.is_pending() {
            self.compare(intake);
        }
        if self.comparison.is_owed() {
            self.compare(intake);
            self.compare(intake);
        }
        self.release(u64::MAX, None, intake);
        intake.unattributed(self.orphans.finish());
        self.unheard = self.never_told(intake);
        match &mut self.unix {
            Some(unix) => unix.finish(intake),
            None => Ok(()),
        }
    }

    fn count(&mut self, intake: &mut dyn Intake) {
        let at = source::now();
        let Self { sockets, programs, dumper, netns, changes, .. } = self;
        let mut tell = |id, bytes| changes.push(SocketChange::Bytes { id, bytes, at });
        sockets.so_far(|cookie| programs.owner(cookie), |flow| programs.flow(flow), &mut tell);
        let by = if programs.hooks.cgroups { By::Cookie } else { By::Ends };
        let open = intake.open(Protocol::Tcp);
        if !open.is_empty() {
            if dumper.is_none() {
                *dumper = Dumper::open().ok();
            }
            // Where that is refused, they are known when the connections end.
            let _ = dumper
                .as_mut()
                .map(|dumper| counting::tcp(dumper, *netns, open.into_iter(), by, QUESTIONS_MAX, tell));
        }
        for change in self.changes.drain(..) {
            intake.socket(change);
        }
    }

    fn health(&self) -> SourceHealth {
        let lost = |what| self.programs.lost(what);
        let mut gaps = Gaps::default();
        gaps.set(Gap::KernelDropped, lost(Loss::SocketRecord) + lost(Loss::ProcessRecord) + self.malformed);
        let unfollowed =
            [Loss::OwnersFull, Loss::TaskUnread, Loss::Unheard, Loss::ListenersFull, Loss::ListenersShared];
        let unfollowed = unfollowed.map(lost).iter().sum::<u64>() + self.unheard;
        gaps.set(Gap::KernelUnfollowed, unfollowed.saturating_sub(self.comparison.counted_twice));
        gaps.set(
            Gap::KernelSkipped,
            self.programs.skipped()
                + lost(Loss::CallsFull)
                + lost(Loss::JudgementsFull)
                + self.sockets.flows_forgotten,
        );
        gaps.set(Gap::TableFull, self.sockets.flows_full);
        gaps.set(Gap::NamesLost, lost(Loss::PacketRecord) + self.names.unread());
        gaps.set(Gap::Vanished, self.processes.vanished());
        gaps.set(Gap::PermissionDenied, self.processes.strays());
        if let Some(unix) = &self.unix {
            unix.add_gaps(&mut gaps);
        }
        let mut reason = self.programs.hooks.reason();
        let mut bounds = Bounds::default();
        let sees_uses = self.programs.hooks.has(hooks::USES);
        let wanted = (self.settings.polling.udp, self.settings.polling.other);
        let kind = (self.kind(), sees_uses, self.programs.hooks.outside().is_none());
        let watched = transports::watched(kind, wanted, &mut bounds, &mut reason);
        bounds.add(Bound::Arguments, self.processes.arguments_cut);
        SourceHealth { kind: self.kind(), reason, gaps, bounds, watched }
    }

    fn now(&self) -> Moment {
        source::now()
    }
}
