//! A command that rano runs, and the source that sees each of its calls before the kernel acts on it: seccomp user
//! notifications, which take no privileges. The calls say who and what was asked for; `sock_diag` and its notifications
//! say by cookie what became of it, with the means of the polling source.

mod caller;
mod calls;
pub mod child;
mod claims;
mod cursor;
mod filter;
mod message;
mod record;
mod supervisor;
mod sys;

use std::time::Duration;

use anyhow::Result;
use rustix::io::Errno;

use crate::event::{Moment, Protocol, SourceKind};
use crate::health::{Bound, Gap};
use crate::names::asking::Asker;
use crate::process::ProcessChange;
use crate::source::proc::{ProcSettings, ProcSource};
use crate::source::{self, Intake, Pumped, SocketId, Source, SourceHealth};
use crate::stop::Stop;

use calls::Calls;
use child::{Child, Handle};
use claims::Fate;

/// Between two looks that are made because of calls, so many times as long as one takes.
const IDLE_PARTS: u64 = 20;
/// At the end, how long ends that are owed are waited for, and how often it is looked which are.
const FAREWELL: Duration = Duration::from_secs(5);
/// Answers to look-ups are waited for this long.
const NAMES: Duration = Duration::from_secs(1);
const STEP: Duration = Duration::from_millis(50);

/// Why the filter cannot be had, for people.
pub fn refusal(errno: Errno) -> String {
    match errno {
        Errno::BUSY => {
            "no seccomp: something above, such as a sandbox, already answers for these processes, and \
                        the kernel allows one (EBUSY)"
                .to_owned()
        }
        Errno::NOSYS | Errno::INVAL => {
            "no seccomp: the kernel has no user notifications (Linux 5.5)".to_owned()
        }
        Errno::OPNOTSUPP => "no seccomp: not for this architecture".to_owned(),
        other => format!("no seccomp: {other}"),
    }
}

/// Sees the calls of one command's processes.
pub struct SeccompSource {
    inner: ProcSource,
    calls: Calls,
    either: Option<Stop>,
    /// Boot clock: not before this is another look made because of a call.
    look_not_before_ns: u64,
}

impl SeccompSource {
    /// Puts the filter on what `child` is going to run; an error says why that is not possible here.
    /// `refused`: why it is no better one.
    pub fn start(child: &mut Child, settings: ProcSettings, refused: Option<String>) -> Result<Self, String> {
        child.install(settings.udp).map_err(refusal)?;
        let inner = ProcSource::start(ProcSettings { unattributed: true, every_end: true, ..settings })
            .map_err(|error| format!("no seccomp: {error:#}"))?
            .instead_of(refused);
        let calls = Calls::new(inner.own_netns(), settings.udp, settings.unattributed);
        Ok(Self { inner, calls, either: None, look_not_before_ns: 0 })
    }

    /// Who asks what the command's processes ask.
    pub fn ask_with(&mut self, asker: Option<Asker>) {
        self.calls.asker = asker;
    }

    /// Where the calls are told.
    pub fn listen_to(&mut self, handle: Handle) {
        self.calls.handle = Some(handle);
    }

    /// The stop never changes while the source is pumped.
    fn either(&mut self, stop: &Stop) -> Result<Stop> {
        if let Some(either) = &self.either {
            return Ok(either.clone());
        }
        let either = match &self.calls.handle {
            Some(handle) => stop.or_bell(handle.bell())?,
            None => stop.clone(),
        };
        Ok(self.either.insert(either).clone())
    }

    /// The kernel tells of ends some time after them: those that are owed are waited for, as long as they come.
    fn hear_the_rest(&mut self, intake: &mut dyn Intake) {
        let intake = &mut self.calls.fill(intake);
        self.inner.look_again(intake);
        let begun = std::time::Instant::now();
        while begun.elapsed() < FAREWELL {
            let inner = &self.inner;
            let is_named = !intake.awaits_names() || begun.elapsed() > NAMES;
            let is_told = !inner.heard_every_end() || !intake.owed(|id| inner.holds(id));
            if is_told && is_named {
                return;
            }
            self.inner.hear(STEP, intake);
        }
    }

    /// What the environment of new processes says, of those that are still there.
    fn look_around(&mut self, intake: &mut dyn Intake) {
        for id in std::mem::take(&mut self.calls.to_look_around) {
            if let Some(surroundings) = self.inner.processes_mut().surroundings(id) {
                intake.process(ProcessChange::Surroundings { id, surroundings });
            }
        }
    }

    /// Tells the ends of processes that came and went between two looks.
    fn forget_the_gone(&mut self, intake: &mut dyn Intake) {
        let now = source::now();
        let scanner = self.inner.processes();
        self.calls.unmet.retain(|&id| {
            if scanner.has_met(id) {
                return false;
            }
            if scanner.is_gone(id) {
                intake.process(ProcessChange::Gone { id, at: now });
                return false;
            }
            true
        });
    }

    /// Tells of sockets that no table has shown in time.
    fn settle(&mut self, is_end: bool, intake: &mut dyn Intake) {
        let now = source::now();
        for id in self.calls.claims.overdue(if is_end { u64::MAX } else { now.boot_ns }) {
            let is_own = matches!(id, SocketId::Cookie { netns, .. } if netns == self.calls.own_netns);
            let fate = if self.inner.holds(id) {
                Fate::Open
            } else if is_own
                && self.inner.heard_every_end()
                && self.calls.claims.protocol(id) == Some(Protocol::Tcp)
            {
                Fate::Failed
            } else {
                Fate::Unknown
            };
            self.calls.claims.tell(id, fate, now, intake);
        }
    }
}

impl Source for SeccompSource {
    fn kind(&self) -> SourceKind {
        SourceKind::Seccomp
    }

    fn pump(&mut self, until: Moment, stop: &Stop, intake: &mut dyn Intake) -> Result<Pumped> {
        let either = self.either(stop)?;
        self.calls.read(intake);
        self.look_around(intake);
        let until =
            Moment { boot_ns: self.calls.claims.next_due().unwrap_or(u64::MAX).min(until.boot_ns), ..until };
        if let Some(due) = self.calls.look_due_ns.take() {
            self.inner.look_by(due.max(self.look_not_before_ns));
        }
        if std::mem::take(&mut self.calls.is_elsewhere) {
            self.inner.recheck_namespaces();
        }
        let looks = self.inner.looks().0;
        let pumped = self.inner.pump(until, &either, &mut self.calls.fill(intake));
        let (looks_now, took_ns) = self.inner.looks();
        let has_looked = looks_now != looks;
        if has_looked {
            self.look_not_before_ns = source::now().boot_ns + IDLE_PARTS * took_ns;
        }
        self.calls.read(intake);
        if has_looked {
            self.forget_the_gone(intake);
        }
        self.settle(false, intake);
        pumped
    }

    fn finish(&mut self, intake: &mut dyn Intake) -> Result<()> {
        self.calls.read(intake);
        self.hear_the_rest(intake);
        self.inner.finish(&mut self.calls.fill(intake))?;
        self.settle(true, intake);
        Ok(())
    }

    fn count(&mut self, intake: &mut dyn Intake) {
        self.inner.count(intake);
    }

    fn health(&self) -> SourceHealth {
        let mut health = self.inner.health();
        health.kind = self.kind();
        let lost = self.calls.handle.as_ref().map_or(0, Handle::lost) + self.calls.claims.forgotten();
        let rings = self.calls.rings.len() as u64;
        health.gaps.add(Gap::KernelDropped, lost);
        health.gaps.add(Gap::KernelUnfollowed, rings);
        health.gaps.add(Gap::PermissionDenied, self.calls.unread);
        health.bounds.add(Bound::AddressChanged, self.calls.claims.address_changed);
        health.bounds.add(Bound::SilentDatagrams, self.calls.claims.silent);
        let notes = [
            (
                self.calls.elsewhere,
                "calls in other network namespaces: neither their bytes nor what became of them is known",
            ),
            (rings, "processes with an io_uring, whose connects are not seen"),
            (self.calls.unread, "calls of processes that may not be looked into (not dumpable)"),
            (
                self.calls.privileged_seen,
                "programs run without the rights they should have got: no_new_privs; use --source proc",
            ),
        ];
        for (count, note) in notes.into_iter().filter(|(count, _)| *count > 0) {
            let note = format!("not exact: {count} {note}");
            health.reason = Some(health.reason.map_or(note.clone(), |reason| format!("{reason}; {note}")));
        }
        health
    }

    fn now(&self) -> Moment {
        source::now()
    }
}
