//! The thread: process events or, without them, the last pid that was handed out; hints; looks that are due.

use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use rustc_hash::{FxHashMap, FxHashSet};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::time::{ClockId, clock_gettime};

use super::budget::Budget;
use super::connector::{Connector, ProcessEvent};
use super::hints::{Hints, Opened};
use super::young::{Found, How, Young};
use super::{Age, Caught, Facts, Met, Order, QUEUE, Shared, Sighting, socket, take_short_slices};
use crate::process::{Occasion, ProcessId};
use crate::source::proc::destroy::moment;
use crate::source::proc::files::{ProcFiles, Refusal, stat_buffer};
use crate::source::proc::image::read_image;
use crate::source::proc::new_pids::{self, last_pid};
use crate::source::proc::sock_diag::Dumper;
use crate::source::proc::threads;

/// Events are read together that come within this time, while nobody is watched or looks are too dear.
const CALM_NS: u64 = 25_000_000;
/// The same, while there are watched processes.
const KEEN_NS: u64 = 2_000_000;
/// Without process events, new pids are looked for this often.
const NEW_PIDS_NS: u64 = 20_000_000;
/// While no pid is handed out for that long, a program that begins is waited for (the loader's cache is opened).
const QUIET_NS: u64 = 1_000_000_000;
/// After a hint, all young processes are looked at this often, and this long.
const BURST_STEP_NS: u64 = 200_000;
const BURST_NS: u64 = 4_000_000;
/// Strangers that began a program are told of together.
const STRANGERS_NS: u64 = 100_000_000;
/// More of them are left to the next poll.
const STRANGERS_MAX: usize = 32;
/// Events read in one go.
const EVENTS_MAX: usize = 4_096;
/// Watched processes that are followed, and young ones that are looked at.
const FAMILY_MAX: usize = 65_536;
const YOUNG_MAX: usize = 512;
/// More new pids at once are left to the next poll.
const NEW_PIDS_MAX: u32 = 256;
/// A process of a watched family.
#[derive(Debug, Default)]
struct Member {
    /// `None` until it was read.
    id: Option<ProcessId>,
    forker: u32,
    /// The nearest process above it that was known when it was forked.
    anchor: Option<ProcessId>,
    /// It began a program that nobody was told of.
    executed: bool,
    signature: u64,
}

pub(super) struct Watcher {
    files: ProcFiles,
    shared: Arc<Shared>,
    pub(super) udp: bool,
    own_pid: u32,
    own_namespace: Option<u64>,
    connector: Option<Connector>,
    loadavg: Option<OwnedFd>,
    last_pid: u32,
    /// A pid is handed out some time before its process can be seen: each is looked for twice.
    before_last_pid: u32,
    hints: Option<Hints>,
    family: FxHashMap<u32, Member>,
    pub(super) young: FxHashMap<u32, Young>,
    strangers: FxHashSet<u32>,
    strangers_due_ns: u64,
    budget: Budget,
    is_throttled: bool,
    /// Events are not waited for before this time.
    calm_until_ns: u64,
    new_pids_ns: u64,
    /// When a new pid, or a hint at one, was seen last.
    stirred_ns: u64,
    burst_until_ns: u64,
    burst_next_ns: u64,
    /// Sockets that could not be copied: looked for in a list.
    pub(super) unlisted: FxHashMap<u64, (ProcessId, u8)>,
    pub(super) listed_ns: u64,
    pub(super) dumper: Option<Dumper>,
    bytes: Vec<u8>,
}

impl Watcher {
    pub(super) fn new(files: ProcFiles, udp: bool, shared: Arc<Shared>) -> Self {
        let own_pid = files.own_pid().unwrap_or(0);
        let mut health = super::CatchHealth::default();
        // Events have pids of the first pid namespace: so must this /proc.
        let connector = if own_pid == std::process::id() {
            Connector::open().inspect_err(|refused| health.without_events = Some(refused.to_string())).ok()
        } else {
            health.without_events = Some("no process events in this container".to_owned());
            None
        };
        let loadavg = if connector.is_none() && new_pids::sees_own_namespace(&files) {
            files.open(c"loadavg").ok()
        } else {
            None
        };
        shared.state().health = health;
        Self {
            files,
            shared,
            udp,
            own_pid,
            own_namespace: socket::own_namespace(),
            connector,
            last_pid: 0,
            before_last_pid: 0,
            loadavg,
            hints: None,
            family: FxHashMap::default(),
            young: FxHashMap::default(),
            strangers: FxHashSet::default(),
            strangers_due_ns: u64::MAX,
            budget: Budget::new(now(), spent()),
            is_throttled: false,
            calm_until_ns: 0,
            new_pids_ns: 0,
            stirred_ns: 0,
            burst_until_ns: 0,
            burst_next_ns: 0,
            unlisted: FxHashMap::default(),
            listed_ns: 0,
            dumper: None,
            bytes: Vec::new(),
        }
    }

    pub(super) fn run(mut self) {
        take_short_slices();
        self.budget = Budget::new(now(), spent());
        while !self.shared.stopping.load(Ordering::Acquire) {
            let Ok(ready) = self.wait() else { return };
            self.is_throttled = !self.budget.settle(now(), spent());
            if self.is_throttled {
                self.shared.state().health.throttled += 1;
            }
            if ready.orders {
                self.obey();
            }
            let at = now_ns();
            if ready.events || at >= self.calm_until_ns && self.calm_until_ns != 0 || ready.hints {
                self.read_events(at);
            }
            if ready.hints {
                self.take_hints(at);
            }
            if at >= self.new_pids_ns && self.is_following_pids() {
                self.find_new_pids(at);
            }
            self.look(at);
            self.tell_of_strangers(at);
        }
    }

    fn wait(&mut self) -> Result<Ready, Errno> {
        let now = now_ns();
        let mut due = self.strangers_due_ns;
        let is_calm = now < self.calm_until_ns;
        if is_calm {
            due = due.min(self.calm_until_ns);
        }
        if self.is_following_pids() {
            due = due.min(self.new_pids_ns);
        }
        if !self.young.is_empty() {
            let next = self.young.values().map(|young| young.next_ns).min().unwrap_or(u64::MAX);
            due = due.min(next);
            if now < self.burst_until_ns {
                due = due.min(self.burst_next_ns);
            }
        }
        if self.is_throttled {
            due = due.max(now + CALM_NS);
        }
        let patience = (due != u64::MAX)
            .then(|| Timespec::try_from(Duration::from_nanos(due.saturating_sub(now))).unwrap_or_default());
        let mut fds = vec![PollFd::new(&self.shared.ordered, PollFlags::IN)];
        let hints = self.hints.as_ref().filter(|_| !self.is_throttled && self.hears_hints());
        let events = self.connector.as_ref().filter(|_| !is_calm);
        fds.extend(hints.map(|hints| PollFd::new(hints, PollFlags::IN)));
        fds.extend(events.map(|events| PollFd::new(events, PollFlags::IN)));
        match poll(&mut fds, patience.as_ref()) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(errno) => return Err(errno),
        }
        let is_ready = |at: usize| fds.get(at).is_some_and(|fd| !fd.revents().is_empty());
        let at_events = 1 + usize::from(hints.is_some());
        Ok(Ready {
            orders: is_ready(0),
            hints: hints.is_some() && is_ready(1),
            events: events.is_some() && is_ready(at_events),
        })
    }

    /// Without process events the loader's cache tells of programs that begin.
    fn hears_hints(&self) -> bool {
        !self.young.is_empty() || self.is_following_pids()
    }

    fn begin_to_follow_pids(&mut self) {
        self.last_pid = self.loadavg.as_ref().and_then(last_pid).unwrap_or(0);
        self.before_last_pid = self.last_pid;
        self.stirred_ns = now_ns();
        self.new_pids_ns = self.stirred_ns;
    }

    fn is_following_pids(&self) -> bool {
        self.loadavg.is_some() && !self.family.is_empty()
    }

    fn obey(&mut self) {
        let orders = {
            let mut state = self.shared.state();
            let _ = rustix::io::read(&self.shared.ordered, &mut [0; 8]);
            std::mem::take(&mut state.orders)
        };
        for order in orders {
            match order {
                Order::Watch(id, age) => self.adopt(id, age),
                Order::Leave(id) => {
                    if self.family.get(&id.pid).is_some_and(|member| member.id == Some(id)) {
                        self.family.remove(&id.pid);
                        self.young.remove(&id.pid);
                    }
                }
            }
        }
        if self.family.is_empty() {
            self.hints = None;
        } else if self.hints.is_none() {
            self.hints = Hints::open(self.connector.is_none()).ok();
            self.begin_to_follow_pids();
        }
    }

    /// A process that a poll found to be watched. It may be young, and have children already.
    fn adopt(&mut self, id: ProcessId, age: Age) {
        if self.family.get(&id.pid).is_some_and(|member| member.id == Some(id))
            || self.family.len() >= FAMILY_MAX
        {
            return;
        }
        let now = now_ns();
        self.family.insert(id.pid, Member { id: Some(id), ..Member::default() });
        self.young.remove(&id.pid);
        let started_ns = id.start_time.saturating_mul(10_000_000);
        if age == Age::New && now < started_ns.saturating_add(super::young::YOUTH_NS) {
            self.make_young(id.pid, now);
        }
    }

    fn make_young(&mut self, pid: u32, at_ns: u64) {
        if let Some(young) = self.young.get_mut(&pid) {
            young.begins_anew(at_ns);
        } else if self.young.len() < YOUNG_MAX {
            if self.young.is_empty()
                && let Some(hints) = &self.hints
            {
                // What was opened before there was anybody to look at.
                hints.read();
            }
            self.young.insert(pid, Young::new(at_ns));
        }
    }

    fn read_events(&mut self, at: u64) {
        let Some(mut connector) = self.connector.take() else { return };
        let before = connector.overruns;
        let mut executed = Vec::new();
        let mut count = 0;
        let read = connector.read(EVENTS_MAX, |event| {
            count += 1;
            match event {
                ProcessEvent::Forked { parent, child } => self.forked(parent, child, at),
                ProcessEvent::Executed { pid } => {
                    if let Some(member) = self.family.get_mut(&pid) {
                        member.executed = true;
                        self.make_young(pid, at);
                        executed.push(pid);
                    } else if pid != self.own_pid && self.strangers.len() < STRANGERS_MAX {
                        self.strangers.insert(pid);
                        self.strangers_due_ns = self.strangers_due_ns.min(at + STRANGERS_NS);
                    }
                }
                ProcessEvent::Exited { pid } => self.exited(pid),
            }
        });
        for pid in executed {
            self.introduce(pid);
        }
        if connector.overruns > before {
            self.shared.state().health.overruns += connector.overruns - before;
        }
        let is_keen = !self.family.is_empty() && !self.is_throttled && self.budget.is_ample();
        match read {
            // Until the next event there is nothing to wait for.
            Ok(true) if count == 0 => self.calm_until_ns = 0,
            Ok(true) => self.calm_until_ns = at + if is_keen { KEEN_NS } else { CALM_NS },
            Ok(false) => self.calm_until_ns = 0,
            Err(errno) => {
                self.shared.state().health.without_events = Some(format!("process events ended: {errno}"));
                if new_pids::sees_own_namespace(&self.files) {
                    self.loadavg = self.files.open(c"loadavg").ok();
                    self.begin_to_follow_pids();
                }
                self.calm_until_ns = 0;
                return;
            }
        }
        self.connector = Some(connector);
    }

    fn forked(&mut self, parent: u32, child: u32, at: u64) {
        // Whoever had the number has ended.
        self.exited(child);
        let Some(forker) = self.family.get(&parent) else { return };
        if self.family.len() >= FAMILY_MAX {
            return;
        }
        let anchor = forker.id.or(forker.anchor);
        self.family.insert(child, Member { forker: parent, anchor, ..Member::default() });
        self.make_young(child, at);
    }

    fn exited(&mut self, pid: u32) {
        self.strangers.remove(&pid);
        self.young.remove(&pid);
        if let Some(id) = self.family.remove(&pid).and_then(|member| member.id) {
            self.tell(Caught::Gone(id, moment()));
        }
    }

    /// Reads a member and tells of it, unless that was done. `None`: it is gone or may not be read.
    fn introduce(&mut self, pid: u32) -> Option<ProcessId> {
        let member = self.family.get(&pid)?;
        if let (Some(id), false) = (member.id, member.executed) {
            return Some(id);
        }
        let above = member.forker;
        // As of the time of the fork, if that one is gone.
        let forker = self.introduce_forker(above, 0).or(member_anchor(&self.family, pid));
        let process = self.files.process(pid).ok()?;
        let mut buffer = stat_buffer();
        let stat = threads::complete(&process, pid, process.stat(&mut buffer).ok()?);
        if stat.is_dead() || stat.is_thread() {
            return None;
        }
        let image = read_image(&process, pid, &stat, &mut self.bytes).ok()?;
        let facts = Facts::of(&stat);
        let id = ProcessId { pid, start_time: facts.start_time };
        let parent = stat.parent;
        let member = self.family.get_mut(&pid)?;
        if member.id.is_some_and(|known| known != id) {
            return None;
        }
        let occasion = match member.executed {
            true => Occasion::Executed,
            false if self.connector.is_some() => Occasion::Forked,
            // It may have begun a program since.
            false => Occasion::Found,
        };
        let is_new = member.id.is_none();
        member.id = Some(id);
        member.executed = false;
        member.signature = facts.signature;
        // It may be known as one that a poll found: then its place is known too.
        let forker = forker.filter(|_| is_new);
        let met = Met { id, parent, forker, image, facts, occasion, at: moment() };
        self.tell(Caught::Process(Box::new(met)));
        Some(id)
    }

    fn introduce_forker(&mut self, pid: u32, depth: u8) -> Option<ProcessId> {
        let member = self.family.get(&pid)?;
        if member.id.is_some() {
            return member.id;
        }
        if depth >= 8 {
            return member.anchor;
        }
        self.introduce(pid).or_else(|| member_anchor(&self.family, pid))
    }

    fn take_hints(&mut self, at: u64) {
        let Some(opened) = self.hints.as_ref().map(Hints::read) else { return };
        let Opened { before_a_connect, at_the_start } = opened;
        if (at_the_start || before_a_connect) && self.is_following_pids() {
            self.stirred_ns = at;
            self.find_new_pids(at);
        }
        if before_a_connect && !self.young.is_empty() {
            self.burst_until_ns = at + BURST_NS;
            self.burst_next_ns = at;
        }
    }

    /// New children by their pids, where the kernel tells of no events; and programs that members began.
    fn find_new_pids(&mut self, at: u64) {
        let Some(last) = self.loadavg.as_ref().and_then(last_pid) else { return };
        let from = std::mem::replace(&mut self.before_last_pid, self.last_pid);
        self.last_pid = last;
        if last != from {
            self.stirred_ns = at;
        }
        let is_quiet = self.hints.is_some() && self.young.is_empty() && at >= self.stirred_ns + QUIET_NS;
        self.new_pids_ns = if is_quiet { u64::MAX } else { at + NEW_PIDS_NS };
        if last > from && last - from <= NEW_PIDS_MAX {
            for pid in from + 1..=last {
                let mut buffer = stat_buffer();
                let Ok(stat) = self.files.stat(pid, &mut buffer) else { continue };
                if !stat.is_thread() && !stat.is_dead() && !self.family.contains_key(&pid) {
                    self.forked(stat.parent, pid, at);
                }
            }
        }
        let young: Vec<u32> = self.young.keys().copied().collect();
        for pid in young {
            let mut buffer = stat_buffer();
            if self.files.stat(pid, &mut buffer).is_err() {
                self.exited(pid);
            } else {
                self.refresh(pid);
            }
        }
    }

    /// A program that a member began since it was read, and that nobody told of so far, is what holds its sockets.
    fn refresh(&mut self, pid: u32) {
        let mut buffer = stat_buffer();
        let Ok(stat) = self.files.stat(pid, &mut buffer) else { return };
        if let Some(member) = self.family.get_mut(&pid)
            && member.id.is_some_and(|id| id.start_time == stat.start_time)
            && member.signature != 0
            && member.signature != stat.signature
        {
            member.executed = true;
            self.introduce(pid);
        }
    }

    /// Looks at whoever is due, or in a burst at all young ones.
    fn look(&mut self, at: u64) {
        if self.is_throttled {
            let grown_up = |young: &mut Young| {
                young.next_ns = young.next_ns.max(at + CALM_NS);
                !young.is_grown_up(at)
            };
            self.young.retain(|_, young| grown_up(young));
            return;
        }
        let bursts = at < self.burst_until_ns && at >= self.burst_next_ns;
        if bursts {
            self.burst_next_ns = at + BURST_STEP_NS;
        }
        let due: Vec<(u32, How)> = self
            .young
            .iter()
            .filter_map(|(&pid, young)| match (at >= young.next_ns, bursts) {
                (true, _) => Some((pid, How::Whole)),
                (false, true) => Some((pid, How::Quick)),
                (false, false) => None,
            })
            .collect();
        for (pid, how) in due {
            self.look_at(pid, how, at);
        }
        if !self.unlisted.is_empty() && at >= self.listed_ns + super::listing::LIST_NS {
            self.list(at);
        }
    }

    fn look_at(&mut self, pid: u32, how: How, at: u64) {
        let Some(mut young) = self.young.remove(&pid) else { return };
        let mut found = Vec::new();
        let looked = young.look(
            pid,
            || self.files.process(pid),
            how,
            at,
            self.own_namespace,
            |socket| found.push(socket),
        );
        if how == How::Whole {
            young.schedule(at);
        }
        match looked {
            Ok(()) | Err(Refusal::Failed) => {}
            // Gone, which its exit tells, or none that may be looked at.
            Err(Refusal::Gone | Refusal::Denied) => {
                if self.connector.is_none() {
                    self.exited(pid);
                }
                return;
            }
        }
        if how == How::Whole || !found.is_empty() {
            // Its forker's program may go on in it.
            self.introduce(pid);
        }
        if !found.is_empty() {
            self.refresh(pid);
        }
        if let Some(process) = self.family.get(&pid).and_then(|member| member.id) {
            for socket in found {
                self.sighted(process, socket);
            }
        }
        if !young.is_grown_up(at) {
            self.young.insert(pid, young);
        }
    }

    fn sighted(&mut self, process: ProcessId, found: Found) {
        let Some(copy) = found.copy else {
            if self.unlisted.len() < YOUNG_MAX {
                self.unlisted.entry(found.inode).or_insert((process, 0));
            }
            return;
        };
        if copy.protocol == crate::event::Protocol::Udp && !self.udp {
            return;
        }
        self.tell(Caught::Socket(Sighting {
            process,
            protocol: copy.protocol,
            inode: found.inode,
            cookie: copy.cookie,
            ends: copy.ends,
            lasts: found.again,
            at: moment(),
        }));
    }

    fn tell_of_strangers(&mut self, at: u64) {
        if at < self.strangers_due_ns {
            return;
        }
        self.strangers_due_ns = u64::MAX;
        let strangers: Vec<u32> = self.strangers.drain().collect();
        if !strangers.is_empty() && !self.is_throttled {
            self.tell(Caught::Strangers(strangers));
        }
    }

    pub(super) fn tell(&self, caught: Caught) {
        let mut state = self.shared.state();
        if state.caught.len() >= QUEUE {
            state.health.queue_full += 1;
            return;
        }
        let was_empty = state.caught.is_empty();
        state.caught.push(caught);
        if was_empty {
            let _ = rustix::io::write(&self.shared.filled, &1u64.to_ne_bytes());
        }
    }
}

struct Ready {
    orders: bool,
    hints: bool,
    events: bool,
}

fn member_anchor(family: &FxHashMap<u32, Member>, pid: u32) -> Option<ProcessId> {
    family.get(&pid).and_then(|member| member.anchor)
}

/// Boot clock.
fn now() -> Duration {
    Duration::try_from(clock_gettime(ClockId::Boottime)).unwrap_or_default()
}

fn now_ns() -> u64 {
    u64::try_from(now().as_nanos()).unwrap_or(u64::MAX)
}

/// Processor time of this thread so far.
fn spent() -> Duration {
    Duration::try_from(clock_gettime(ClockId::ThreadCPUTime)).unwrap_or_default()
}
