//! The processes there are, as the kernel programs tell of them: what each runs is kept, because many are gone before
//! /proc can be read, and because a fork looks like its parent.

use std::path::Path;

use anyhow::Result;
use rano_common::{Judgement, ProcessKind, ProcessRecord, SocketRecord, Told, Verdict as KernelVerdict};
use rustc_hash::FxHashMap;

use super::load::Programs;
use crate::event::Moment;
use crate::names::Evidence;
use crate::process::{Image, ProcessChange, ProcessId, Verdict};
use crate::source::proc::PROC;
use crate::source::proc::processes::{ProcessScanner, arguments};
use crate::source::{Intake, SocketChange};

/// Nanoseconds of a clock tick, in which /proc gives start times (`USER_HZ` is 100).
const TICK_NS: u64 = 10_000_000;

/// Living processes and what they run.
pub struct Processes {
    scanner: ProcessScanner,
    known: FxHashMap<u32, Known>,
    /// Arguments that were longer than the kernel programs copy, of processes that were gone before they were read.
    pub arguments_cut: u64,
}

struct Known {
    start_time: u64,
    parent: u32,
    image: Image,
    /// Start in nanoseconds and number of the exec, once the kernel programs told of it: what a verdict is given for.
    told: Option<(u64, u32)>,
    verdict: Verdict,
}

/// Who a record is about.
pub fn identity(pid: u32, start_ns: u64) -> ProcessId {
    ProcessId { pid, start_time: start_ns / TICK_NS }
}

/// Start of a process that only /proc told of, as precisely as it does.
pub fn start_ns(id: ProcessId) -> u64 {
    id.start_time * TICK_NS
}

impl Processes {
    pub fn new() -> Result<Self> {
        let scanner = ProcessScanner::new(Path::new(PROC))?;
        Ok(Self { scanner, known: FxHashMap::default(), arguments_cut: 0 })
    }

    /// Reads all of /proc: at the start, and when records were lost.
    pub fn read_all(&mut self, now: Moment, intake: &mut dyn Intake) {
        self.scanner.scan_all(now, &mut Learner { intake, known: &mut self.known });
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
                if self.known.get(&id.pid).is_some_and(|known| known.start_time == id.start_time) {
                    self.known.remove(&id.pid);
                }
                intake.process(ProcessChange::Gone { id, at });
                return;
            }
            ProcessKind::Fork => self.like_its_parent(record),
            ProcessKind::Rename => match self.known.get(&id.pid) {
                Some(known) if known.start_time == id.start_time => {
                    Image { comm: comm(record), ..known.image.clone() }
                }
                // Told of before the fork could be: the exec or the first socket tells the rest.
                Some(_) | None => return,
            },
            ProcessKind::Exec | ProcessKind::Sight => self.image(id, told),
        };
        if self.known.get(&id.pid).is_some_and(|known| known.start_time != id.start_time) {
            // Its exit was missed.
            self.forget(id.pid, at, intake);
        }
        let inherited = self.known.get(&record.parent).map(|parent| parent.verdict);
        let change = ProcessChange::Seen { id, parent: record.parent, image: image.clone(), at };
        let verdict = intake.process(change);
        let known = Known {
            start_time: id.start_time,
            parent: record.parent,
            image,
            told: Some((record.start_ns, record.exec_id)),
            verdict,
        };
        self.known.insert(id.pid, known);
        // A fork has its parent's verdict already.
        if kind != ProcessKind::Fork || inherited != Some(verdict) {
            self.answer(id.pid, programs);
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
        };
        programs.judge(pid, Judgement { start_ns: *start_ns, exec_id: *exec_id, verdict });
    }

    /// Whether anything was told of a living process.
    pub fn knows(&self, id: ProcessId) -> bool {
        self.known.get(&id.pid).is_some_and(|known| known.start_time == id.start_time)
    }

    /// Whether a socket's owner ran another image when it opened the socket: what is judged now is not who opened it.
    pub fn has_changed(&self, record: &SocketRecord) -> bool {
        let known = self.known.get(&record.pid);
        known.and_then(|known| known.told).is_some_and(|told| told != (record.owner_start_ns, record.exec_id))
    }

    /// Processes that became tracked through another's change.
    fn spread(&mut self, at: Moment, programs: &mut Programs, intake: &mut dyn Intake) {
        for id in intake.newly_tracked() {
            let Some(known) = self.known.get_mut(&id.pid).filter(|known| known.start_time == id.start_time)
            else {
                continue;
            };
            let image = known.image.clone();
            known.verdict = intake.process(ProcessChange::Seen { id, parent: known.parent, image, at });
            self.answer(id.pid, programs);
        }
    }

    fn forget(&mut self, pid: u32, at: Moment, intake: &mut dyn Intake) {
        if let Some(known) = self.known.remove(&pid) {
            let id = ProcessId { pid, start_time: known.start_time };
            intake.process(ProcessChange::Gone { id, at });
        }
    }

    fn like_its_parent(&mut self, record: &ProcessRecord) -> Image {
        let image = match self.known.get(&record.parent) {
            Some(parent) => parent.image.clone(),
            None => Image::default(),
        };
        Image { comm: comm(record), uid: record.uid, ..image }
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
            Some(known) if path.is_empty() && known.start_time == id.start_time => known.image.exe.clone(),
            Some(_) | None => String::from_utf8_lossy(path).into_owned(),
        };
        Image { comm: comm(record), exe, argv, uid: record.uid }
    }
}

fn comm(record: &ProcessRecord) -> String {
    let end = record.comm.iter().position(|&b| b == 0).unwrap_or(record.comm.len());
    String::from_utf8_lossy(&record.comm[..end]).into_owned()
}

/// Keeps what a scan of /proc tells the pipeline.
struct Learner<'a> {
    intake: &'a mut dyn Intake,
    known: &'a mut FxHashMap<u32, Known>,
}

impl Intake for Learner<'_> {
    fn process(&mut self, change: ProcessChange) -> Verdict {
        match &change {
            ProcessChange::Seen { id, parent, image, .. } => {
                let known = Known {
                    start_time: id.start_time,
                    parent: *parent,
                    image: image.clone(),
                    told: None,
                    verdict: Verdict::Ignored,
                };
                let pid = id.pid;
                // What the kernel programs told stays: it is needed for the answer.
                let told = self.known.get(&pid).filter(|old| old.start_time == id.start_time);
                let told = told.and_then(|old| old.told);
                let verdict = self.intake.process(change);
                self.known.insert(pid, Known { told, verdict, ..known });
                verdict
            }
            ProcessChange::Gone { id, .. } => {
                if self.known.get(&id.pid).is_some_and(|known| known.start_time == id.start_time) {
                    self.known.remove(&id.pid);
                }
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

    fn newly_tracked(&mut self) -> Vec<ProcessId> {
        self.intake.newly_tracked()
    }

    fn verdict(&self, id: ProcessId) -> Verdict {
        self.intake.verdict(id)
    }
}
