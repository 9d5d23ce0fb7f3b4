//! The processes there are, as the kernel programs tell of them: what each runs is kept, because many are gone before
//! /proc can be read, and because a fork looks like its parent.

use std::path::Path;

use anyhow::Result;
use rano_common::{
    Judgement, Owner, ProcessKind, ProcessRecord, SocketRecord, Told, Verdict as KernelVerdict,
};
use rustc_hash::FxHashMap;

use super::cgroup;
use super::load::Programs;
use crate::bounded::FastBounded;
use crate::event::{Moment, Protocol};
use crate::names::{Evidence, Party};
use crate::process::{Birth, Image, Occasion, ProcessChange, ProcessId, Verdict};
use crate::source::proc::PROC;
use crate::source::proc::processes::{ProcessScanner, arguments};
use crate::source::{Intake, Open, SocketChange, Stray, views};

/// Nanoseconds of a clock tick, in which /proc gives start times (`USER_HZ` is 100).
const TICK_NS: u64 = 10_000_000;

/// Processes that have ended are remembered for the sockets that end after them; so many.
const DEPARTED: usize = 1 << 13;
/// Parents that are looked up in /proc for one process.
const DEEPEST_ANCESTRY: usize = 256;

/// Living processes and what they run.
pub struct Processes {
    scanner: ProcessScanner,
    known: FxHashMap<u32, Known>,
    departed: Departed,
    /// Clock tick before the programs were attached: of what is older they know no forker.
    since: u64,
    /// Somebody is left out, so that there is something to count.
    pub leaves_out: bool,
    /// Arguments that were longer than the kernel programs copy, of processes that were gone before they were read.
    pub arguments_cut: u64,
    strays: Strays,
}

/// Watched processes whose sockets the programs do not see, because they are on other cgroups.
#[derive(Debug, Default)]
struct Strays {
    /// The programs are on a part of the cgroups only.
    subtree: bool,
    count: u64,
}

impl Strays {
    fn note(&mut self, pid: u32, before: Option<Verdict>, verdict: Verdict) {
        if self.subtree && verdict == Verdict::Tracked && before != Some(Verdict::Tracked) {
            self.count += u64::from(cgroup::is_outside(pid));
        }
    }
}

struct Known {
    start_time: u64,
    parent: u32,
    image: Image,
    /// Start in nanoseconds and number of the exec, once the kernel programs told of it: what a verdict is given for.
    told: Option<(u64, u32)>,
    verdict: Verdict,
    /// Number of the exec by which it became tracked.
    tracked_from: Option<u32>,
    /// By a new name alone, so far.
    by_rename: bool,
}

impl Known {
    fn is(&self, id: ProcessId) -> bool {
        self.start_time == id.start_time
    }

    fn id(&self, pid: u32) -> ProcessId {
        ProcessId { pid, start_time: self.start_time }
    }

    /// Whether it runs the program that it is known to run. Where its execs were not counted yet, a program in the same
    /// file is taken for that: an exec would have been told.
    fn still_runs(&self, exec_id: u32, image: &Image) -> bool {
        match self.told {
            Some((_, last)) => last == exec_id,
            None => self.runs_same_file(image),
        }
    }

    fn runs_same_file(&self, image: &Image) -> bool {
        !image.exe.is_empty() && self.image.exe == image.exe
    }

    fn execs(&self) -> Execs {
        Execs { last: self.told.map(|told| told.1), tracked_from: self.tracked_from }
    }
}

/// How well the owner of a socket is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Acquaintance {
    Alive,
    Departed,
    /// It came and went unseen, or what it ran when it opened the socket is not known.
    Unknown,
}

/// The last processes that ended.
type Departed = FastBounded<ProcessId, Execs>;

/// Numbers of execs of a process: the last that was told, and the one by which it became tracked.
#[derive(Debug, Clone, Copy, Default)]
struct Execs {
    last: Option<u32>,
    tracked_from: Option<u32>,
}

/// Who a record is about.
pub fn identity(pid: u32, start_ns: u64) -> ProcessId {
    ProcessId { pid, start_time: views::here(start_ns) / TICK_NS }
}

/// Start of a process that only /proc told of, as precisely as it does.
pub fn start_ns(id: ProcessId) -> u64 {
    views::in_kernel(id.start_time * TICK_NS)
}

impl Processes {
    /// `attached` is a time before the programs were.
    pub fn new(attached: Moment, subtree: bool) -> Result<Self> {
        Ok(Self {
            scanner: ProcessScanner::new(Path::new(PROC))?,
            known: FxHashMap::default(),
            departed: Departed::new(DEPARTED),
            since: attached.boot_ns / TICK_NS,
            leaves_out: false,
            arguments_cut: 0,
            strays: Strays { subtree, count: 0 },
        })
    }

    /// Reads all of /proc: at the start, and when records were lost. Those of which the end was lost are gone then.
    pub fn read_all(&mut self, now: Moment, judgement: Judgements<'_>, intake: &mut dyn Intake) {
        let Self { scanner, known, departed, since, leaves_out, strays, .. } = self;
        let births = Births { judgement, since: *since };
        scanner.scan_all(now, &mut Learner { intake, known, departed, births, leaves_out, strays });
        let ids = known.iter().map(|(&pid, known)| ProcessId { pid, start_time: known.start_time });
        // The scanner tells the end of those that it has met.
        let gone: Vec<ProcessId> = ids.filter(|id| !scanner.has_met(*id) && scanner.is_gone(*id)).collect();
        for id in gone {
            depart(id, known, departed);
            intake.process(ProcessChange::Gone { id, at: now });
        }
    }

    /// Inode number of the network namespace of a socket's owner, if that is still there.
    pub fn netns(&self, owner: &Owner) -> Option<u32> {
        self.scanner.netns(identity(owner.pid, owner.start_ns))
    }

    /// Watched processes whose sockets are not seen.
    pub fn strays(&self) -> u64 {
        self.strays.count
    }

    /// Processes that were there and gone before they could be read.
    pub fn vanished(&self) -> u64 {
        self.scanner.vanished()
    }

    /// A record has come.
    pub fn record(&mut self, told: &Told<'_>, at: Moment, programs: &mut Programs, intake: &mut dyn Intake) {
        let (kind, record) = (told.kind, &told.process);
        let id = identity(record.pid, record.start_ns);
        let image = match kind {
            ProcessKind::Exit => {
                depart(id, &mut self.known, &mut self.departed);
                intake.process(ProcessChange::Gone { id, at });
                return;
            }
            ProcessKind::Fork => self.like_its_forker(told),
            ProcessKind::Rename => match self.known.get(&id.pid) {
                Some(known) if known.is(id) => Image { comm: comm(record), ..known.image.clone() },
                // Told of before the fork could be: the exec or the first socket tells the rest.
                Some(_) | None => return,
            },
            ProcessKind::Exec | ProcessKind::Sight => self.image(id, told),
        };
        let birth = self.birth(id, told, programs);
        let occasion = self.occasion(id, told, &image);
        let inherited = birth.forker.and_then(|forker| self.verdict(forker));
        let numbers = (record.start_ns, record.exec_id);
        let was_tracked = self.verdict(id) == Some(Verdict::Tracked);
        let change = ProcessChange::Seen { id, parent: record.parent, image, at, birth, occasion };
        let verdict = self.learn(id, change, numbers, intake);
        if verdict == Verdict::Tracked
            && (!was_tracked || kind != ProcessKind::Rename)
            && kind != ProcessKind::Fork
        {
            self.surround(id, intake);
        }
        if let Some(known) = self.known.get_mut(&id.pid) {
            known.by_rename = kind == ProcessKind::Rename && !was_tracked;
        }
        // A fork has its forker's verdict already.
        if kind != ProcessKind::Fork || inherited != Some(verdict) {
            self.answer(id.pid, programs);
        } else if verdict == Verdict::Tracked {
            programs.mark(id.pid);
        }
        self.spread(at, programs, intake);
    }

    /// Tells the kernel programs again what a process is, because it still asks.
    pub fn answer(&self, pid: u32, programs: &mut Programs) {
        let Some(Known { told: Some((start_ns, exec_id)), verdict, .. }) = self.known.get(&pid) else {
            return;
        };
        let verdict = match verdict {
            Verdict::Tracked => KernelVerdict::Tracked,
            Verdict::Ignored => KernelVerdict::Ignored,
            Verdict::Excluded => KernelVerdict::Excluded,
        };
        // Who forked it is known here.
        programs.judge(pid, Judgement { start_ns: *start_ns, exec_id: *exec_id, verdict, forker: 0 });
    }

    /// Takes in what a process runs, and answers whether it is tracked.
    fn learn(
        &mut self,
        id: ProcessId,
        change: ProcessChange,
        told: (u64, u32),
        intake: &mut dyn Intake,
    ) -> Verdict {
        let ProcessChange::Seen { parent, ref image, at, .. } = change else { return intake.process(change) };
        let image = image.clone();
        depart_before(id, at, &mut self.known, &mut self.departed, intake);
        // An exec renames first, and closes sockets: they are not the new program's.
        let is_the_exec =
            |known: &Known| known.by_rename && known.told.is_some_and(|before| before.1 < told.1);
        let before = self.known.get(&id.pid).filter(|known| !is_the_exec(known));
        let tracked_from = before.and_then(|known| known.tracked_from);
        let verdict_before = before.map(|known| known.verdict);
        let verdict = intake.process(change);
        self.leaves_out |= verdict == Verdict::Excluded;
        self.strays.note(id.pid, verdict_before, verdict);
        let tracked_from = tracked_from.or((verdict == Verdict::Tracked).then_some(told.1));
        let known = Known {
            start_time: id.start_time,
            parent,
            image,
            told: Some(told),
            verdict,
            tracked_from,
            by_rename: false,
        };
        self.known.insert(id.pid, known);
        verdict
    }

    /// How well the owner of a socket is known. One whose records were lost is looked for in /proc, with its ancestors.
    pub fn meet(
        &mut self,
        record: &SocketRecord,
        at: Moment,
        programs: &mut Programs,
        intake: &mut dyn Intake,
    ) -> Acquaintance {
        let id = identity(record.pid, record.owner_start_ns);
        if let Some(acquaintance) = self.remembered(id, record.exec_id) {
            return acquaintance;
        }
        let mut line = Vec::new();
        let mut next = Some(id);
        while let Some(id) = next {
            let Some((parent, image)) = self.scanner.read(id) else { break };
            line.push((id, parent, image));
            let is_known = parent == 0 || self.known.contains_key(&parent) || line.len() == DEEPEST_ANCESTRY;
            next = if is_known { None } else { self.scanner.identify(parent) };
        }
        if line.is_empty() {
            return Acquaintance::Unknown;
        }
        while let Some((id, parent, image)) = line.pop() {
            // Of an ancestor it is not known how often it ran another program, so it is not judged in the kernel.
            let Self { known, departed, since, leaves_out, strays, .. } = self;
            let births = Births { judgement: &|pid| programs.judgement(pid), since: *since };
            let (birth, occasion) = (births.of(id, known, departed), Occasion::Found);
            // It is about to end: of what it ran its name is left.
            let is_bare = image.exe.is_empty() && image.argv.is_empty();
            let change = ProcessChange::Seen { id, parent, image, at, birth, occasion };
            if line.is_empty() {
                let numbers = (record.owner_start_ns, record.exec_id);
                let verdict = self.learn(id, change, numbers, intake);
                if verdict == Verdict::Tracked {
                    self.surround(id, intake);
                } else if is_bare {
                    // It may have been anybody.
                    if let Some(known) = self.known.get_mut(&id.pid) {
                        known.told = None;
                    }
                    return Acquaintance::Unknown;
                }
            } else {
                Learner { intake, known, departed, births, leaves_out, strays }.process(change);
            }
        }
        self.spread(at, programs, intake);
        Acquaintance::Alive
    }

    /// The same, as far as records told; `None`: /proc is to be asked.
    fn remembered(&self, id: ProcessId, exec_id: u32) -> Option<Acquaintance> {
        // Whoever ran another program since it was last told of is not known. Nor is whoever only /proc told of: it may
        // have been read between a fork and an exec that were both lost.
        let is_told = |execs: Execs| execs.last.is_some_and(|last| exec_id <= last);
        if let Some(known) = self.known.get(&id.pid).filter(|known| known.is(id)) {
            return is_told(known.execs()).then_some(Acquaintance::Alive);
        }
        let is_told = is_told(*self.departed.get(&id)?);
        Some(if is_told { Acquaintance::Departed } else { Acquaintance::Unknown })
    }

    /// Whether a socket's owner was no agent yet when it opened the socket: what it is now is not who opened it.
    pub fn has_changed(&self, record: &SocketRecord) -> bool {
        let id = identity(record.pid, record.owner_start_ns);
        let execs = match self.known.get(&id.pid).filter(|known| known.is(id)) {
            Some(known) => known.execs(),
            None => self.departed.get(&id).copied().unwrap_or_default(),
        };
        execs.tracked_from.is_some_and(|from| record.exec_id < from)
    }

    /// Processes that became tracked through another's change.
    fn spread(&mut self, at: Moment, programs: &mut Programs, intake: &mut dyn Intake) {
        for id in intake.newly_tracked() {
            let Some(known) = self.known.get_mut(&id.pid).filter(|known| known.is(id)) else { continue };
            let image = known.image.clone();
            let (parent, birth, occasion) = (known.parent, Birth::default(), Occasion::Renamed);
            let before = Some(known.verdict);
            known.verdict = intake.process(ProcessChange::Seen { id, parent, image, at, birth, occasion });
            self.strays.note(id.pid, before, known.verdict);
            self.leaves_out |= known.verdict == Verdict::Excluded;
            if known.verdict == Verdict::Tracked {
                known.tracked_from = known.tracked_from.or(known.told.map(|told| told.1));
                self.surround(id, intake);
            }
            self.answer(id.pid, programs);
        }
    }

    /// Tells in what a process began its program, if it is still there.
    fn surround(&mut self, id: ProcessId, intake: &mut dyn Intake) {
        if let Some(surroundings) = self.scanner.surroundings(id) {
            intake.process(ProcessChange::Surroundings { id, surroundings });
        }
    }

    /// As it was told last, of a living process.
    fn verdict(&self, id: ProcessId) -> Option<Verdict> {
        self.known.get(&id.pid).filter(|known| known.is(id)).map(|known| known.verdict)
    }

    fn like_its_forker(&self, told: &Told<'_>) -> Image {
        let forker = told.forker.map(|forker| identity(forker.pid, forker.start_ns));
        let of_forker = forker.and_then(|id| self.known.get(&id.pid).filter(|known| known.is(id)));
        let image = of_forker.map(|known| known.image.clone()).unwrap_or_default();
        Image { comm: comm(&told.process), uid: told.process.uid, ..image }
    }

    fn birth(&self, id: ProcessId, told: &Told<'_>, programs: &Programs) -> Birth {
        match told.forker {
            Some(forker) => Birth {
                forker: Some(identity(forker.pid, forker.start_ns)),
                of_tracked: forker.verdict == KernelVerdict::Tracked,
                session: None,
            },
            None => Births { judgement: &|pid| programs.judgement(pid), since: self.since }.of(
                id,
                &self.known,
                &self.departed,
            ),
        }
    }

    fn occasion(&self, id: ProcessId, told: &Told<'_>, image: &Image) -> Occasion {
        match (told.kind, self.known.get(&id.pid).filter(|known| known.is(id))) {
            (ProcessKind::Fork, _) => Occasion::Forked,
            (ProcessKind::Exec, _) => Occasion::Executed,
            (ProcessKind::Rename, _) => Occasion::Renamed,
            (ProcessKind::Sight, Some(known)) if known.still_runs(told.process.exec_id, image) => {
                Occasion::Renamed
            }
            (ProcessKind::Sight | ProcessKind::Exit, _) => Occasion::Found,
        }
    }

    /// What it runs: as /proc has it if that is still the same, else as far as the record tells.
    fn image(&mut self, id: ProcessId, told: &Told<'_>) -> Image {
        let Told { process: record, path, arguments: argv, .. } = told;
        let argv = arguments(argv);
        let whole = record.arguments == record.arguments_total;
        if let Some((_, image)) = self.scanner.read(id) {
            let (last, first) =
                argv.split_last().map_or((None, &[][..]), |(last, first)| (Some(last), first));
            let same = if whole {
                image.argv == argv
            } else {
                // The last one is cut.
                image.argv.starts_with(first)
                    && image.argv.get(first.len()).zip(last).is_none_or(|(all, cut)| all.starts_with(&**cut))
            };
            if same {
                return Image { comm: comm(record), ..image };
            }
        }
        self.arguments_cut += u64::from(!whole);
        let exe = match self.known.get(&id.pid) {
            Some(known) if path.is_empty() && known.is(id) => known.image.exe.clone(),
            Some(_) | None => String::from_utf8_lossy(path).into_owned(),
        };
        Image { comm: comm(record), exe, argv, uid: record.uid }
    }
}

/// It has ended; its sockets may end after it.
fn depart(id: ProcessId, known: &mut FxHashMap<u32, Known>, departed: &mut Departed) {
    if let Some(ended) = known.get(&id.pid).filter(|known| known.is(id)) {
        departed.insert(id, ended.execs());
        known.remove(&id.pid);
    }
}

/// Somebody had the pid before, and the exit was missed.
fn depart_before(
    id: ProcessId,
    at: Moment,
    known: &mut FxHashMap<u32, Known>,
    departed: &mut Departed,
    intake: &mut dyn Intake,
) {
    if let Some(before) = known.get(&id.pid).filter(|known| !known.is(id)) {
        let before = ProcessId { start_time: before.start_time, ..id };
        depart(before, known, departed);
        intake.process(ProcessChange::Gone { id: before, at });
    }
}

fn comm(record: &ProcessRecord) -> String {
    let end = record.comm.iter().position(|&b| b == 0).unwrap_or(record.comm.len());
    String::from_utf8_lossy(&record.comm[..end]).into_owned()
}

/// What the kernel programs hold of whoever has a pid.
type Judgements<'a> = &'a dyn Fn(u32) -> Option<Judgement>;

/// Who forked a process whose fork was not told: the kernel programs keep it with their verdict, because /proc names
/// only the parent, which after `clone(CLONE_PARENT)` is another.
struct Births<'a> {
    judgement: Judgements<'a>,
    since: u64,
}

impl Births<'_> {
    fn of(&self, id: ProcessId, known: &FxHashMap<u32, Known>, departed: &Departed) -> Birth {
        let was_told = known.get(&id.pid).is_some_and(|known| known.is(id) && known.told.is_some());
        if was_told || id.start_time < self.since {
            return Birth::default();
        }
        let held = (self.judgement)(id.pid).filter(|held| identity(id.pid, held.start_ns) == id);
        let Some(held) = held else { return Birth::default() };
        let of_tracked = held.verdict == KernelVerdict::Tracked;
        // Whoever had that pid when the process began.
        let was_there = |one: &ProcessId| one.pid == held.forker && one.start_time <= id.start_time;
        let living = known.get(&held.forker).map(|known| known.id(held.forker));
        let all = living.into_iter().chain(departed.keys().copied()).filter(was_there);
        Birth { forker: all.max_by_key(|one| one.start_time), of_tracked, session: None }
    }
}

/// Keeps what a scan of /proc tells the pipeline.
struct Learner<'a> {
    intake: &'a mut dyn Intake,
    known: &'a mut FxHashMap<u32, Known>,
    departed: &'a mut Departed,
    births: Births<'a>,
    leaves_out: &'a mut bool,
    strays: &'a mut Strays,
}

impl Intake for Learner<'_> {
    fn process(&mut self, mut change: ProcessChange) -> Verdict {
        match &mut change {
            // It has ended, and /proc still lists it: what is left there to be read is less than what was told.
            ProcessChange::Seen { id, .. } if self.departed.contains(id) => self.intake.verdict(*id),
            ProcessChange::Seen { id, parent, image, at, birth, occasion } => {
                depart_before(*id, *at, self.known, self.departed, self.intake);
                let known = Known {
                    start_time: id.start_time,
                    parent: *parent,
                    image: image.clone(),
                    told: None,
                    verdict: Verdict::Ignored,
                    tracked_from: None,
                    by_rename: false,
                };
                let id = *id;
                // What the kernel programs told stays: it is needed for the answer.
                let old = self.known.get(&id.pid).filter(|old| old.is(id));
                let before = old.map(|old| old.verdict);
                let (told, tracked_from) = old.map_or((None, None), |old| (old.told, old.tracked_from));
                if birth.forker.is_none() {
                    *birth =
                        Birth { session: birth.session, ..self.births.of(id, self.known, self.departed) };
                }
                // New to the scan, not to us: what it wrote over its arguments since is no other program.
                if *occasion == Occasion::Found && old.is_some_and(|old| old.runs_same_file(image)) {
                    *occasion = Occasion::Renamed;
                }
                let verdict = self.intake.process(change);
                *self.leaves_out |= verdict == Verdict::Excluded;
                self.strays.note(id.pid, before, verdict);
                self.known.insert(id.pid, Known { told, verdict, tracked_from, ..known });
                verdict
            }
            ProcessChange::Surroundings { .. } => self.intake.process(change),
            ProcessChange::Gone { id, .. } => {
                depart(*id, self.known, self.departed);
                self.intake.process(change)
            }
        }
    }

    fn socket(&mut self, change: SocketChange) {
        self.intake.socket(change);
    }

    fn evidence(&mut self, evidence: Evidence) {
        self.intake.evidence(evidence);
    }

    fn unattributed(&mut self, count: u64) {
        self.intake.unattributed(count);
    }

    fn stray(&mut self, stray: Stray) {
        self.intake.stray(stray);
    }

    fn left_out(&mut self, connections: u64) {
        self.intake.left_out(connections);
    }

    fn newly_tracked(&mut self) -> Vec<ProcessId> {
        self.intake.newly_tracked()
    }

    fn verdict(&self, id: ProcessId) -> Verdict {
        self.intake.verdict(id)
    }

    fn watches(&self, party: Party) -> bool {
        self.intake.watches(party)
    }

    fn open(&self, protocol: Protocol) -> Vec<Open> {
        self.intake.open(protocol)
    }
}

#[cfg(test)]
mod tests;
