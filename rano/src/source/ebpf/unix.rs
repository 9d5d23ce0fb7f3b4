//! Unix sockets, of which the kernel programs do not tell: looked for in /proc now and then.

use anyhow::Result;

use crate::event::Protocol;
use crate::health::{Gap, Gaps};
use crate::names::{Evidence, Party};
use crate::process::{ProcessChange, ProcessId, Verdict};
use crate::source::proc::{ProcSettings, ProcSource};
use crate::source::{self, Intake, Open, SocketChange, Source as _, Stray};
use crate::stop::Stop;

/// Polls for unix sockets and nothing else.
pub struct UnixSockets {
    poll: ProcSource,
}

impl UnixSockets {
    pub fn start(polling: ProcSettings) -> Result<Self> {
        let settings = ProcSettings { only_unix: true, unix: true, once: false, ..polling };
        Ok(Self { poll: ProcSource::start(settings)? })
    }

    /// Boot clock.
    pub fn next_due(&self) -> u64 {
        self.poll.next_poll_ns()
    }

    pub fn poll(&mut self, stop: &Stop, intake: &mut dyn Intake) -> Result<()> {
        self.poll.pump(source::now(), stop, &mut OnlyUnix { intake }).map(|_| ())
    }

    pub fn finish(&mut self, intake: &mut dyn Intake) -> Result<()> {
        self.poll.finish(&mut OnlyUnix { intake })
    }

    /// What was missed here.
    pub fn add_gaps(&self, gaps: &mut Gaps) {
        let own = self.poll.health().gaps;
        for gap in [Gap::PermissionDenied, Gap::Unread] {
            gaps.add(gap, own.get(gap));
        }
    }
}

/// Of processes the kernel programs tell.
struct OnlyUnix<'a> {
    intake: &'a mut dyn Intake,
}

impl Intake for OnlyUnix<'_> {
    fn process(&mut self, change: ProcessChange) -> Verdict {
        match change {
            ProcessChange::Seen { id, .. }
            | ProcessChange::Surroundings { id, .. }
            | ProcessChange::Gone { id, .. } => self.intake.verdict(id),
        }
    }

    fn socket(&mut self, change: SocketChange) {
        self.intake.socket(change);
    }

    fn evidence(&mut self, evidence: Evidence) {
        self.intake.evidence(evidence);
    }

    fn unattributed(&mut self, _count: u64) {}

    fn stray(&mut self, _stray: Stray) {}

    fn left_out(&mut self, _: u64) {}

    fn newly_tracked(&mut self) -> Vec<ProcessId> {
        Vec::new()
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
