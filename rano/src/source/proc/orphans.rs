//! Processes whose forker ended before anybody saw it: their parent is whoever takes in orphans. What an agent puts
//! into the environment of all that it starts says whose they are.

use super::files::{ProcessDirectory, Refusal};
use crate::process::agents::{self, Agent};
use crate::process::matching::Subject;
use crate::process::{self, Image, ProcessId};

/// Of every pid namespace: takes in orphans, unless there is a nearer reaper.
const INIT: u32 = 1;
/// More of an environment is not read.
const LONGEST_ENVIRONMENT: usize = 256 * 1024;

/// A new process below which nobody watched is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Suspect {
    pub(super) id: ProcessId,
    /// 0 where its leader cannot be told.
    pub(super) session: u32,
    /// Its parent did not fork it. Else that is only possible.
    pub(super) is_orphan: bool,
}

impl Suspect {
    /// `parents_session`: of whoever is its parent now, if that is known. A child is in its parent's session, or begins
    /// one of its own (setsid(2)).
    pub(super) fn of(id: ProcessId, parent: u32, session: u32, parents_session: Option<u32>) -> Option<Self> {
        let is_own = session == id.pid;
        if parent == 0 || parents_session == Some(session) && parent != INIT {
            return None;
        }
        Some(Self { id, session, is_orphan: parent == INIT || !is_own && parents_session.is_some() })
    }
}

/// What an environment says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Marks<'a> {
    Of(&'a Agent),
    Nobodys,
    Unread,
}

/// The agents that leave a mark, and the variables in which agents name their sessions.
#[derive(Debug)]
pub(super) struct Marking {
    agents: Vec<Agent>,
    sessions: Vec<String>,
}

impl Marking {
    pub(super) fn built_in() -> Self {
        Self::of_agents(&agents::built_in())
    }

    pub(super) fn of_agents(agents: &[Agent]) -> Self {
        let sessions = agents.iter().flat_map(|agent| agent.session.iter().cloned()).collect();
        let agents = agents.iter().filter(|agent| !agent.environment.is_empty()).cloned().collect();
        Self { agents, sessions }
    }

    /// What is kept of a process's environment; `None` where it cannot be read.
    pub(super) fn surroundings(
        &self,
        process: &ProcessDirectory,
        bytes: &mut Vec<u8>,
    ) -> Option<process::Marks> {
        let read = process.read(c"environ", LONGEST_ENVIRONMENT, bytes);
        // A process that is about to end shows an empty one.
        let marks =
            read.ok().filter(|()| !bytes.is_empty()).map(|()| process::Marks::of(bytes, &self.sessions));
        bytes.clear();
        marks
    }

    pub(super) fn read(&self, process: &ProcessDirectory, bytes: &mut Vec<u8>) -> Marks<'_> {
        let marks = match process.read(c"environ", LONGEST_ENVIRONMENT, bytes) {
            Ok(()) => self.of(bytes).map_or(Marks::Nobodys, Marks::Of),
            Err(Refusal::Gone) => Marks::Nobodys,
            Err(Refusal::Denied | Refusal::Failed) => Marks::Unread,
        };
        bytes.clear();
        marks
    }

    /// `NAME=value`, a NUL behind each.
    fn of(&self, environment: &[u8]) -> Option<&Agent> {
        let has = |name: &String| {
            let is_it =
                |entry: &[u8]| entry.strip_prefix(name.as_bytes()).is_some_and(|rest| rest.starts_with(b"="));
            environment.split(|&b| b == 0).any(is_it)
        };
        self.agents.iter().find(|agent| agent.environment.iter().any(has))
    }
}

/// A watched process that may have started an orphan.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Candidate {
    pub(super) id: ProcessId,
    pub(super) parent: u32,
    pub(super) session: u32,
}

pub(super) fn is_of(agent: &Agent, image: &Image) -> bool {
    agent.place_in(&Subject::of(image)).is_some()
}

/// Which of several it was, if that is clear: of one that only started another, the other; else the one in the same
/// session.
pub(super) fn choose(suspect: Suspect, candidates: &[Candidate]) -> Option<ProcessId> {
    let is_older = |one: &&Candidate| one.id.start_time <= suspect.id.start_time;
    let innermost = |one: &&Candidate| candidates.iter().all(|other| other.parent != one.id.pid);
    let able: Vec<_> = candidates.iter().filter(is_older).filter(innermost).collect();
    let in_session: Vec<_> = able.iter().filter(|one| one.session == suspect.session).collect();
    match (&able[..], &in_session[..]) {
        ([one], _) => Some(one.id),
        (_, [one]) => Some(one.id),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(pid: u32, start_time: u64) -> ProcessId {
        ProcessId { pid, start_time }
    }

    #[test]
    fn a_child_of_whom_it_could_be_is_no_suspect() {
        let check = |parent, session, parents| Suspect::of(id(9, 5), parent, session, parents);
        assert_eq!(check(4, 3, Some(3)), None, "in its parent's session");
        assert_eq!(
            check(4, 0, Some(0)),
            None,
            "in a session from outside of the pid namespace, as its parent"
        );
        assert!(check(1, 0, Some(0)).is_some_and(|suspect| suspect.is_orphan), "so too, but taken in");
        assert!(check(1, 3, Some(1)).is_some_and(|suspect| suspect.is_orphan));
        assert!(check(4, 3, Some(4)).is_some_and(|suspect| suspect.is_orphan), "taken in by a reaper");
        assert!(check(4, 9, Some(3)).is_some_and(|suspect| !suspect.is_orphan), "it began a session");
    }

    #[test]
    fn a_mark_is_a_whole_name() {
        let marking = Marking::built_in();
        let of = |environment: &[u8]| marking.of(environment).map(|agent| &*agent.name);
        assert_eq!(of(b"PATH=/bin\0CLAUDECODE=1\0"), Some("claude"));
        assert_eq!(of(b"GEMINI_CLI=1"), Some("gemini"));
        assert_eq!(of(b"PATH=/bin\0CLAUDECODEX=1\0MY_CLAUDECODE=1\0A=CLAUDECODE=1\0"), None);
        assert_eq!(of(b""), None);
    }

    #[test]
    fn of_several_agents_none_is_chosen_unless_it_is_clear() {
        let suspect = Suspect { id: id(50, 500), session: 7, is_orphan: true };
        let candidate = |pid, start, parent, session| Candidate { id: id(pid, start), parent, session };
        let (wrapper, agent) = (candidate(10, 100, 2, 7), candidate(11, 101, 10, 7));
        assert_eq!(choose(suspect, &[wrapper, agent]), Some(agent.id));
        let elsewhere = candidate(30, 300, 2, 8);
        assert_eq!(choose(suspect, &[wrapper, agent, elsewhere]), Some(agent.id));
        assert_eq!(choose(suspect, &[agent, candidate(31, 301, 2, 7)]), None);
        assert_eq!(choose(suspect, &[candidate(60, 600, 2, 7)]), None, "younger than the orphan");
        assert_eq!(choose(suspect, &[]), None);
    }
}
