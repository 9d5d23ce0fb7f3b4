//! What is known of a single process, and those that died recently.

use std::sync::Arc;

use crate::bounded::FastBounded;
use crate::process::provider::{OwnProvider, ProviderIndex};
use crate::process::{Call, Process, ProcessId, Trace};

/// Dead tracked processes that are remembered for sockets that close late, oldest forgotten first.
pub(super) const DEAD_TRACKED: usize = 2048;
/// Other dead processes that are remembered as links between the living and their ancestors.
const DEAD_OTHERS: usize = 1024;

#[derive(Debug)]
pub(super) struct Node {
    pub(super) start_time: u64,
    pub(super) place: Place,
    pub(super) comm: Box<str>,
    /// Where there is more to say than its comm.
    pub(super) who: Option<Box<Who>>,
    pub(super) detail: Option<Box<Detail>>,
    /// The real parent, whoever forked it.
    pub(super) ppid: u32,
    pub(super) uid: u32,
    pub(super) own: Option<OwnProvider>,
    pub(super) standing: Standing,
    pub(super) state: State,
    /// Was counted among those that are left out.
    pub(super) is_counted: bool,
}

/// What most processes do without.
#[derive(Debug, Default)]
pub(super) struct Who {
    /// What a person calls it, where that is not its comm.
    pub(super) program: Option<Box<str>>,
    /// The known agent that it is.
    pub(super) agent: Option<AgentMark>,
}

/// That a process is a known agent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct AgentMark {
    pub(super) name: Arc<str>,
    /// By what it runs, not only by what it calls itself.
    pub(super) is_it: bool,
    /// It goes by the agent's name, not by its executable alone.
    pub(super) is_named: bool,
}

/// Below whom a process stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) pid: u32,
    pub(super) link: Link,
    pub(super) start_time: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Link {
    /// Nobody.
    None,
    /// Whoever has the pid, who was not seen yet.
    Waiting,
    /// A certain process that was not seen yet.
    WaitingFor,
    Known,
}

/// What the rules say of the process itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Standing {
    Plain,
    Root,
    /// Although it matches otherwise or not.
    Excluded {
        root: bool,
    },
    /// rano or an ancestor of it.
    Never,
}

/// What comes of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum State {
    Ignored,
    Tracked,
    /// It would be tracked, but runs what is excluded.
    LeftOut,
    /// It would be tracked, but for an ancestor that runs or ran what is excluded.
    Below,
}

/// What only a process needs that events refer to.
#[derive(Debug)]
pub(super) struct Detail {
    pub(super) process: Arc<Process>,
    /// Ancestry or provider became better known since `process` was made.
    pub(super) stale: bool,
    /// Provider it acts for unless its own match is strong; what it had before an exec counts as inherited.
    pub(super) inherited: Option<ProviderIndex>,
    /// Nearest tracked ancestor.
    pub(super) via: Option<ProcessId>,
    /// For whom it runs, and where it began.
    pub(super) call: Option<Arc<Call>>,
    pub(super) cwd: Option<Arc<str>>,
    pub(super) trace: Option<Trace>,
    /// Stays tracked over an exec. Without descendants a child must not: until its exec it only looks like its parent.
    pub(super) sticky: bool,
}

impl Node {
    pub(super) fn id(&self, pid: u32) -> ProcessId {
        ProcessId { pid, start_time: self.start_time }
    }

    pub(super) fn program(&self) -> &str {
        let program = self.who.as_ref().and_then(|who| who.program.as_deref());
        program.unwrap_or(&self.comm)
    }

    pub(super) fn agent(&self) -> Option<&AgentMark> {
        self.who.as_ref()?.agent.as_ref()
    }

    pub(super) fn is_tracked(&self) -> bool {
        self.state == State::Tracked
    }
}

impl Place {
    pub(super) const NOWHERE: Self = Self { pid: 0, link: Link::None, start_time: 0 };

    pub(super) fn known(id: ProcessId) -> Self {
        Self { pid: id.pid, link: Link::Known, start_time: id.start_time }
    }

    pub(super) fn id(self) -> ProcessId {
        ProcessId { pid: self.pid, start_time: self.start_time }
    }
}

impl Detail {
    /// For a process that is not tracked.
    pub(super) fn of(process: Arc<Process>) -> Self {
        Self {
            process,
            stale: false,
            inherited: None,
            via: None,
            call: None,
            cwd: None,
            trace: None,
            sticky: false,
        }
    }
}

/// The provider a process matches after a change of its name or arguments: what it runs is as it was, so nothing that
/// stands there now is more than a claim.
pub(super) fn renamed(before: Option<OwnProvider>, now: Option<OwnProvider>) -> Option<OwnProvider> {
    match (before, now) {
        (Some(before), _) if !before.weak => Some(before),
        (_, Some(now)) => Some(OwnProvider { weak: true, ..now }),
        (before, None) => before,
    }
}

/// The provider a tracked process acts for.
pub(super) fn effective(own: Option<OwnProvider>, inherited: Option<ProviderIndex>) -> Option<ProviderIndex> {
    match own {
        Some(own) if !own.weak => Some(own.provider),
        Some(own) => Some(inherited.unwrap_or(own.provider)),
        None => inherited,
    }
}

/// The provider that it passes on, to what it starts and to the program that it runs next: a guess is nobody else's.
pub(super) fn passed_on(own: Option<OwnProvider>, inherited: Option<ProviderIndex>) -> Option<ProviderIndex> {
    effective(own.filter(|own| !own.guess), inherited)
}

/// Those who died recently: others push out none who was watched.
#[derive(Debug)]
pub(super) struct Dead {
    tracked: FastBounded<ProcessId, Node>,
    others: FastBounded<ProcessId, Node>,
}

impl Default for Dead {
    fn default() -> Self {
        Self { tracked: FastBounded::new(DEAD_TRACKED), others: FastBounded::new(DEAD_OTHERS) }
    }
}

impl Dead {
    pub(super) fn insert(&mut self, id: ProcessId, node: Node) {
        let of_its_kind = if node.is_tracked() { &mut self.tracked } else { &mut self.others };
        of_its_kind.insert(id, node);
    }

    pub(super) fn get(&self, id: &ProcessId) -> Option<&Node> {
        self.tracked.get(id).or_else(|| self.others.get(id))
    }

    pub(super) fn get_mut(&mut self, id: &ProcessId) -> Option<&mut Node> {
        match self.tracked.get_mut(id) {
            Some(node) => Some(node),
            None => self.others.get_mut(id),
        }
    }

    pub(super) fn ids(&self) -> impl Iterator<Item = ProcessId> {
        self.tracked.keys().chain(self.others.keys()).copied()
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.tracked.len() + self.others.len()
    }
}
