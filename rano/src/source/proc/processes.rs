//! The processes in /proc, found with as little work as can be: new ones by their pids, changed ones by a signature of
//! their stat line; tracked and young ones are looked at every time, settled ones in turn.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::Result;

use super::files::{ProcFiles, ProcessDirectory, Refusal, stat_buffer};
pub use super::image::arguments;
use super::image::read_image;
use super::new_pids::{self, NewPids, Search};
use super::orphans::{self, Candidate, Marking, Marks, Suspect};
use super::stat::Stat;
use super::threads::{self, Compare};
use rustc_hash::FxHashMap;

use crate::event::Moment;
use crate::process::agents::Agent;
use crate::process::{Birth, Image, Occasion, ProcessChange, ProcessId, Surroundings, Verdict};
use crate::source::Intake;

/// A process is young for so many scans, and a settled one is looked at once in so many.
const ROUND: u32 = 10;
/// What is older than this at the first scan has settled.
const SETTLED_AGE_NS: u64 = 10_000_000_000;
/// Clock ticks a second in /proc: a constant of the kernel's interface, not its timer frequency.
const USER_HZ: u64 = 100;
const DEEPEST_ANCESTRY: usize = 256;

/// Finds processes and their changes by polling, and reads what belongs to single ones.
#[derive(Debug)]
pub struct ProcessScanner {
    files: ProcFiles,
    compare: Compare,
    new_pids: NewPids,
    table: BTreeMap<u32, Entry>,
    scans: u32,
    /// When the last one was over; boot clock.
    scanned_ns: u64,
    became_tracked: Vec<ProcessId>,
    marking: Marking,
    /// New in this scan.
    suspects: Vec<Suspect>,
    unplaced: u64,
    vanished: u64,
    permission_denied: u64,
    /// Reused from scan to scan.
    pids: Vec<u32>,
    due: Vec<u32>,
    bytes: Vec<u8>,
}

#[derive(Debug)]
struct Entry {
    start_time: u64,
    signature: u64,
    /// When it was met.
    session: u32,
    /// As in [`Stat`].
    program: Option<u64>,
    /// Number of the scan from which on it counts as settled.
    settles: u32,
    /// Number of the scan in which it was looked at last.
    looked_at: u32,
    state: State,
    /// Tracked, or left out of what would be: what it opens counts.
    tracked: bool,
    /// Was counted as one whose descriptors cannot be read.
    counted_denied: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Alive,
    /// Dead, but its pid is still taken.
    Zombie,
    /// There, but not to be read (`hidepid=1`).
    Hidden,
}

/// How a walk through a process's descriptors ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Walk {
    Complete,
    /// All descriptors, of which one is an `io_uring`: that may hold sockets without one.
    Ring,
    /// The process is gone; what was found before is still true of it.
    Gone,
    /// Not allowed to look.
    Denied,
    /// Broken off by another error, such as no free descriptor.
    Failed,
}

impl ProcessScanner {
    /// `root` is `/proc`, or a directory that looks like it.
    pub fn new(root: &Path) -> Result<Self> {
        let files = ProcFiles::open_root(root)?;
        Ok(Self {
            new_pids: NewPids::new(&files),
            compare: Compare::probe(files.own_pid().filter(|_| new_pids::sees_own_namespace(&files))),
            files,
            table: BTreeMap::new(),
            scans: 0,
            scanned_ns: 0,
            became_tracked: Vec::new(),
            marking: Marking::built_in(),
            suspects: Vec::new(),
            unplaced: 0,
            vanished: 0,
            permission_denied: 0,
            pids: Vec::new(),
            due: Vec::new(),
            bytes: Vec::new(),
        })
    }

    /// These agents, instead of the built-in ones, leave marks in the environment of what they start.
    pub(super) fn go_by_marks_of(&mut self, agents: &[Agent]) {
        self.marking = Marking::of_agents(agents);
    }

    /// Tells `intake` of new, changed and vanished processes. Returns those that became tracked by it.
    ///
    /// A settled process's exec, rename or end is noticed within ten scans, everything else at once.
    pub fn scan(&mut self, now: Moment, intake: &mut dyn Intake) -> &[ProcessId] {
        let search = self.new_pids.search(self.table.len());
        self.run(&search, Reach::Due, now, intake)
    }

    /// As [`scan`](Self::scan), but looks at every process.
    pub fn scan_all(&mut self, now: Moment, intake: &mut dyn Intake) -> &[ProcessId] {
        self.new_pids.search(self.table.len());
        self.run(&Search::Everywhere, Reach::Everyone, now, intake)
    }

    /// Living processes that are tracked or left out, by pid.
    pub fn tracked(&self) -> impl Iterator<Item = ProcessId> {
        self.table.iter().filter(|(_, entry)| entry.tracked).map(|(&pid, entry)| entry.id(pid))
    }

    /// Calls `each` with descriptor number and inode of every socket the process has open.
    pub fn fds(&mut self, id: ProcessId, each: impl FnMut(u32, u64)) -> Walk {
        let compare = self.compare;
        let found = self.files.process_if(id);
        match found.and_then(|(process, life)| process.sockets_of_threads(id.pid, life, compare, each)) {
            Ok(false) => Walk::Complete,
            Ok(true) => Walk::Ring,
            Err(Refusal::Gone) => Walk::Gone,
            Err(Refusal::Failed) => Walk::Failed,
            Err(Refusal::Denied) => {
                match self.table.get_mut(&id.pid).filter(|entry| entry.start_time == id.start_time) {
                    Some(entry) if entry.counted_denied => {}
                    Some(entry) => {
                        entry.counted_denied = true;
                        self.permission_denied += 1;
                    }
                    None => self.permission_denied += 1,
                }
                Walk::Denied
            }
        }
    }

    /// Fills in who holds the sockets with these inodes, among all processes that may be looked at; of several the
    /// oldest.
    pub fn find_holders(&self, wanted: &mut FxHashMap<u64, Option<ProcessId>>) {
        for (&pid, entry) in &self.table {
            let Ok(process) = self.files.process(pid) else { continue };
            let id = entry.id(pid);
            // Whoever may not be looked at holds nothing that we know of.
            let _ = process.sockets(|_, inode| {
                if let Some(holder) = wanted.get_mut(&inode)
                    && holder.is_none_or(|other| (id.start_time, id.pid) < (other.start_time, other.pid))
                {
                    *holder = Some(id);
                }
            });
        }
    }

    /// Effective user of a process that is there.
    pub fn uid(&self, id: ProcessId) -> Option<u32> {
        self.files.process_if(id).ok()?.0.uid().ok()
    }

    /// Inode number of the process's network namespace; `None` where it is gone or may not be asked.
    pub fn netns(&self, id: ProcessId) -> Option<u32> {
        self.network_namespaces(id).first().map(|(netns, _)| *netns)
    }

    /// Inode numbers of the network namespaces in which threads of a process are, the main thread's first, each with
    /// the number of a thread that is there. None where it is gone or may not be asked.
    pub fn network_namespaces(&self, id: ProcessId) -> Vec<(u32, u32)> {
        let Ok((process, life)) = self.files.process_if(id) else { return Vec::new() };
        let found = process.network_namespaces(id.pid, life).unwrap_or_default();
        found.into_iter().filter_map(|(inode, thread)| Some((u32::try_from(inode).ok()?, thread))).collect()
    }

    /// Who has that pid now.
    pub fn identify(&self, pid: u32) -> Option<ProcessId> {
        let mut buffer = stat_buffer();
        let stat = self.files.stat(pid, &mut buffer).ok().filter(|stat| !stat.is_thread())?;
        Some(ProcessId { pid, start_time: stat.start_time })
    }

    /// Whether a process was there in a scan, and has not ended since as far as scans show.
    pub fn has_met(&self, id: ProcessId) -> bool {
        self.table.get(&id.pid).is_some_and(|entry| entry.start_time == id.start_time)
    }

    /// Whether a process is there no more. One that cannot be read for another reason may be.
    pub fn is_gone(&self, id: ProcessId) -> bool {
        let mut buffer = stat_buffer();
        match self.files.stat(id.pid, &mut buffer) {
            Ok(stat) => stat.start_time != id.start_time,
            Err(Refusal::Gone) => true,
            Err(Refusal::Denied | Refusal::Failed) => false,
        }
    }

    /// Parent and image of a process that is there now.
    pub fn read(&mut self, id: ProcessId) -> Option<(u32, Image)> {
        let (process, _) = self.files.process_if(id).ok()?;
        let mut buffer = stat_buffer();
        let stat = process.stat(&mut buffer).ok()?;
        let image = read_image(&process, id.pid, &stat, &mut self.bytes).ok()?;
        Some((stat.parent, image))
    }

    /// rano itself, its parent, and so on up, as far as can be seen.
    pub fn self_and_ancestors(&self) -> Vec<ProcessId> {
        let mut found = Vec::new();
        let mut next = self.files.own_pid();
        while let Some(pid) = next.filter(|&pid| pid > 0 && found.len() < DEEPEST_ANCESTRY) {
            let mut buffer = stat_buffer();
            let Ok(stat) = self.files.stat(pid, &mut buffer) else { break };
            found.push(ProcessId { pid, start_time: stat.start_time });
            next = Some(stat.parent);
        }
        found
    }

    /// Processes that were listed and gone before they could be read.
    pub fn vanished(&self) -> u64 {
        self.vanished
    }

    /// Processes whose forker was gone before it was seen, and that may be a watched one's.
    pub fn unplaced(&self) -> u64 {
        self.unplaced
    }

    /// Processes whose descriptors, or whose very existence, we were not allowed to look at; each counted once.
    pub fn permission_denied(&self) -> u64 {
        self.permission_denied
    }

    fn run(&mut self, search: &Search, reach: Reach, now: Moment, intake: &mut dyn Intake) -> &[ProcessId] {
        self.scans = self.scans.wrapping_add(1);
        self.became_tracked.clear();
        let listed = self.find_candidates(search);
        let mut due = std::mem::take(&mut self.due);
        due.clear();
        due.extend(
            self.table
                .iter()
                .filter(|&(&pid, entry)| {
                    let missing = listed && self.pids.binary_search(&pid).is_err();
                    reach == Reach::Everyone || missing || entry.is_due(pid, self.scans)
                })
                .map(|(&pid, _)| pid),
        );
        for &pid in &due {
            self.look(pid, now, intake);
        }
        self.due = due;
        let pids = std::mem::take(&mut self.pids);
        for &pid in &pids {
            match self.table.get(&pid) {
                None => self.meet(pid, listed, now, intake),
                // Handed out anew to somebody else?
                Some(entry) if !listed && entry.looked_at != self.scans => self.look(pid, now, intake),
                Some(_) => {}
            }
        }
        self.pids = pids;
        self.read_newly_tracked(now, intake);
        self.place_orphans(now, intake);
        self.scanned_ns = crate::source::now().boot_ns;
        &self.became_tracked
    }

    /// Fills `pids`, in ascending order, with where new processes can be; whether these are all there are.
    fn find_candidates(&mut self, search: &Search) -> bool {
        self.pids.clear();
        match search {
            Search::Nowhere => false,
            Search::Among(range) => {
                self.pids.extend(range.clone());
                false
            }
            Search::Everywhere => {
                let listed = self.files.list(&mut self.pids).is_ok();
                self.pids.sort_unstable();
                listed
            }
        }
    }

    /// Looks at a known process again.
    fn look(&mut self, pid: u32, now: Moment, intake: &mut dyn Intake) {
        let Some(entry) = self.table.get_mut(&pid) else { return };
        entry.looked_at = self.scans;
        let mut buffer = stat_buffer();
        let stat = match self.files.stat(pid, &mut buffer) {
            Ok(stat) => stat,
            Err(Refusal::Gone) => return self.remove(pid, now, intake),
            Err(Refusal::Denied | Refusal::Failed) => return,
        };
        if entry.state == State::Hidden || stat.start_time != entry.start_time {
            self.remove(pid, now, intake);
            return self.meet(pid, true, now, intake);
        }
        if stat.is_dead() {
            if entry.state == State::Alive {
                entry.state = State::Zombie;
                entry.tracked = false;
                intake.process(ProcessChange::Gone { id: entry.id(pid), at: now });
            }
            return;
        }
        let headless = stat.life().is_headless.then(|| self.files.process(pid));
        let stat = match headless {
            Some(Ok(process)) => threads::complete(&process, pid, stat),
            Some(Err(_)) | None => stat,
        };
        if stat.signature != entry.signature {
            self.read_again(pid, now, intake);
        }
    }

    fn remove(&mut self, pid: u32, now: Moment, intake: &mut dyn Intake) {
        if let Some(entry) = self.table.remove(&pid).filter(|entry| entry.state == State::Alive) {
            intake.process(ProcessChange::Gone { id: entry.id(pid), at: now });
        }
    }

    /// Looks at a pid that is not known. `expected`: it was there a moment ago.
    fn meet(&mut self, pid: u32, expected: bool, now: Moment, intake: &mut dyn Intake) {
        let (outcome, existed) = match self.files.process(pid) {
            Ok(process) => (self.read_new(pid, &process, now, intake), true),
            Err(refusal) => (Err(refusal), expected),
        };
        match outcome {
            Ok(()) | Err(Refusal::Failed) => {}
            Err(Refusal::Gone) => self.vanished += u64::from(existed),
            Err(Refusal::Denied) => {
                self.permission_denied += 1;
                self.table.insert(pid, Entry { state: State::Hidden, ..Entry::hidden(self.scans) });
            }
        }
    }

    fn read_new(
        &mut self,
        pid: u32,
        process: &ProcessDirectory,
        now: Moment,
        intake: &mut dyn Intake,
    ) -> Result<(), Refusal> {
        let mut buffer = stat_buffer();
        let stat = threads::complete(process, pid, process.stat(&mut buffer)?);
        if stat.is_thread() {
            return Ok(());
        }
        let mut entry = Entry::new(&stat, self.scans);
        let started_ns = stat.start_time.saturating_mul(1_000_000_000 / USER_HZ);
        if self.scans == 1 && started_ns.saturating_add(SETTLED_AGE_NS) < now.boot_ns {
            entry.settles = self.scans;
        }
        if stat.is_dead() {
            entry.state = State::Zombie;
            self.table.insert(pid, entry);
            return Ok(());
        }
        // The parent's pid may be in other hands than when it was looked at last.
        if self.table.get(&stat.parent).is_some_and(|parent| parent.looked_at != self.scans) {
            self.look(stat.parent, now, intake);
        }
        let image = read_image(process, pid, &stat, &mut self.bytes)?;
        self.table.insert(pid, entry);
        let session = Some(stat.session).filter(|&leader| leader != 0 && leader != pid);
        let birth = Birth { session, ..Birth::default() };
        self.tell(pid, stat.parent, image, (birth, Occasion::Found), now, intake);
        if let Some(entry) = self.table.get(&pid).filter(|entry| !entry.tracked && !stat.is_kernel_thread) {
            let above = self.table.get(&stat.parent).map(|parent| parent.session);
            self.suspects.extend(Suspect::of(entry.id(pid), stat.parent, stat.session, above));
        }
        Ok(())
    }

    /// Finds out whose the new processes are that seem to be nobody's.
    fn place_orphans(&mut self, now: Moment, intake: &mut dyn Intake) {
        let suspects = std::mem::take(&mut self.suspects);
        if suspects.is_empty() || !self.table.values().any(|entry| entry.tracked) {
            return;
        }
        for suspect in suspects {
            let id = suspect.id;
            if self.table.get(&id.pid).is_none_or(|entry| entry.tracked || entry.start_time != id.start_time)
            {
                continue;
            }
            let Ok((process, _)) = self.files.process_if(id) else { continue };
            let Ok(uid) = process.uid() else { continue };
            let may_be_ours = self.tracked().any(|tracked| self.uid(tracked) == Some(uid));
            let forker = match self.marking.read(&process, &mut self.bytes) {
                Marks::Of(agent) => {
                    let agent = agent.clone();
                    orphans::choose(suspect, &self.candidates(&agent, uid))
                }
                Marks::Nobodys | Marks::Unread if !suspect.is_orphan || !may_be_ours || self.scans == 1 => {
                    continue;
                }
                Marks::Nobodys | Marks::Unread => None,
            };
            let Some(forker) = forker else {
                self.unplaced += 1;
                continue;
            };
            let birth = Birth { forker: Some(forker), ..Birth::default() };
            let mut buffer = stat_buffer();
            let Ok(stat) = process.stat(&mut buffer) else { continue };
            let Ok(image) = read_image(&process, id.pid, &stat, &mut self.bytes) else { continue };
            self.tell(id.pid, stat.parent, image, (birth, Occasion::Found), now, intake);
        }
        self.read_newly_tracked(now, intake);
    }

    /// Watched processes of a user that run an agent.
    fn candidates(&mut self, agent: &Agent, uid: u32) -> Vec<Candidate> {
        let tracked: Vec<ProcessId> = self.tracked().collect();
        let mut candidates = Vec::new();
        for id in tracked {
            if let Some((parent, image)) = self.read(id)
                && image.uid == uid
                && orphans::is_of(agent, &image)
            {
                let session = self.table.get(&id.pid).map_or(0, |entry| entry.session);
                candidates.push(Candidate { id, parent, session });
            }
        }
        candidates
    }

    /// Reads a known process's image anew and tells of it. Where that fails, the next look tries again.
    fn read_again(&mut self, pid: u32, now: Moment, intake: &mut dyn Intake) {
        let Some(id) = self.table.get(&pid).map(|entry| entry.id(pid)) else { return };
        let Ok((process, _)) = self.files.process_if(id) else { return };
        let mut buffer = stat_buffer();
        let Ok(stat) = process.stat(&mut buffer) else { return };
        let stat = threads::complete(&process, pid, stat);
        let Ok(image) = read_image(&process, pid, &stat, &mut self.bytes) else { return };
        let mut occasion = Occasion::Found;
        if let Some(entry) = self.table.get_mut(&pid) {
            // Code, stack and arguments lie where they lay: only what stands in them, or the name, is another.
            if entry.program.is_some() && entry.program == stat.program {
                occasion = Occasion::Renamed;
            }
            entry.signature = stat.signature;
            entry.program = stat.program;
            entry.settles = self.scans.wrapping_add(ROUND);
        }
        self.tell(pid, stat.parent, image, (Birth::default(), occasion), now, intake);
    }

    fn tell(
        &mut self,
        pid: u32,
        parent: u32,
        image: Image,
        (birth, occasion): (Birth, Occasion),
        now: Moment,
        intake: &mut dyn Intake,
    ) {
        let Some(entry) = self.table.get_mut(&pid) else { return };
        let id = entry.id(pid);
        let change = ProcessChange::Seen { id, parent, image, at: now, birth, occasion };
        let verdict = intake.process(change);
        let tracked = verdict != Verdict::Ignored;
        let is_new = tracked && !entry.tracked;
        if is_new {
            self.became_tracked.push(id);
        }
        entry.tracked = tracked;
        if verdict == Verdict::Tracked
            && (is_new || occasion != Occasion::Renamed)
            && let Some(surroundings) = self.surroundings(id)
        {
            intake.process(ProcessChange::Surroundings { id, surroundings });
        }
    }

    /// In what a process that is there now began; `None` for one that is gone.
    pub fn surroundings(&mut self, id: ProcessId) -> Option<Surroundings> {
        let (process, _) = self.files.process_if(id).ok()?;
        let mut target = [0; 4096];
        let cwd = process.link(c"cwd", &mut target).ok();
        let cwd = cwd.map(|path| String::from_utf8_lossy(path).into_owned());
        let marks = self.marking.surroundings(&process, &mut self.bytes);
        Some(Surroundings { cwd, marks })
    }

    /// The arguments of what was ignored before were not kept: they are read again.
    fn read_newly_tracked(&mut self, now: Moment, intake: &mut dyn Intake) {
        for id in intake.newly_tracked() {
            if self.table.get(&id.pid).is_some_and(|entry| entry.start_time == id.start_time) {
                self.read_again(id.pid, now, intake);
            }
        }
    }

    pub(super) fn is_tracked(&self, id: ProcessId) -> bool {
        self.table.get(&id.pid).is_some_and(|entry| entry.tracked && entry.start_time == id.start_time)
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Reach {
    Due,
    Everyone,
}

impl Entry {
    fn new(stat: &Stat<'_>, scan: u32) -> Self {
        let Stat { start_time, signature, program, session, .. } = *stat;
        Self { start_time, signature, session, program, ..Self::hidden(scan) }
    }

    fn hidden(scan: u32) -> Self {
        Self {
            start_time: 0,
            signature: 0,
            session: 0,
            program: None,
            settles: scan.wrapping_add(ROUND),
            looked_at: scan,
            state: State::Alive,
            tracked: false,
            counted_denied: false,
        }
    }

    fn id(&self, pid: u32) -> ProcessId {
        ProcessId { pid, start_time: self.start_time }
    }

    fn is_due(&self, pid: u32, scan: u32) -> bool {
        let young = self.state == State::Alive && scan < self.settles;
        self.tracked || young || pid.wrapping_add(scan).is_multiple_of(ROUND)
    }
}

mod told;

#[cfg(test)]
mod tests;
