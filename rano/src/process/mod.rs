//! Who: process identity, ancestry, which processes are watched, and on whose behalf they act.
//! Pure: it is fed by sources and never reads /proc itself.

pub mod ancestry;
mod interpreter;
pub mod matching;
pub mod agents;
pub mod roster;
mod program;
pub mod call;
pub mod provider;
pub mod redact;
mod secrets;
pub mod tree;

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::moment::Moment;

pub use call::{Call, Marks, Surroundings, Tool, Trace};

/// A process. A bare pid is never an identity: pids are reused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct ProcessId {
    /// As the initial (or rano's own) pid namespace numbers it.
    pub pid: u32,
    /// Clock ticks after boot, `/proc/<pid>/stat` field 22.
    pub start_time: u64,
}

/// What a process runs: changes with exec and with a rename.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Image {
    /// The thread group leader's name, at most 15 bytes in the kernel; lossy UTF-8, unescaped.
    pub comm: String,
    /// `/proc/<pid>/exe`; empty where it could not be read.
    pub exe: String,
    /// Lossy UTF-8, unescaped, unredacted; empty for a kernel thread or where it could not be read.
    pub argv: Vec<String>,
    /// Effective user.
    pub uid: u32,
}

/// What a source learned about a process.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ProcessChange {
    /// First sight, exec or rename. `parent` is the pid of the parent at that moment, which need not be where it came
    /// from.
    Seen {
        id: ProcessId,
        parent: u32,
        image: Image,
        at: Moment,
        #[serde(default, skip_serializing_if = "is_default")]
        birth: Birth,
        #[serde(default, skip_serializing_if = "is_default")]
        occasion: Occasion,
    },
    /// In what a process began its program. Sent after `Seen`, for a process that is tracked.
    Surroundings { id: ProcessId, surroundings: Surroundings },
    /// The whole thread group is gone.
    Gone { id: ProcessId, at: Moment },
}

impl ProcessChange {
    /// A process as it is, of which nothing else is known.
    pub fn found(id: ProcessId, parent: u32, image: Image, at: Moment) -> Self {
        Self::Seen { id, parent, image, at, birth: Birth::default(), occasion: Occasion::Found }
    }
}

/// What is known of where a process came from beside its parent, which is another one after `clone(CLONE_PARENT)`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Birth {
    /// The process that forked it: its place in the tree. `None`: its parent, as far as anybody knows.
    #[serde(default)]
    pub forker: Option<ProcessId>,
    /// A tracked process forked it, even if nobody knows any more which.
    #[serde(default)]
    pub of_tracked: bool,
    /// Pid of the leader of its session, which every process in it descends from. It tells where a process belongs
    /// whose parent ended before it was seen.
    #[serde(default)]
    pub session: Option<u32>,
}

/// Why a process is told of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Occasion {
    /// It was found as it is; what happened to it before is not known.
    #[default]
    Found,
    /// It was forked, and runs what its forker runs.
    Forked,
    /// It runs another program from now on.
    Executed,
    /// It runs the same program as before: only its name or arguments were written over, or nothing changed.
    Renamed,
}

fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

/// Whether a process is watched.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    Tracked,
    Ignored,
    /// It would be tracked, but it or an ancestor is excluded: what it opens is counted and not shown.
    Excluded,
}

/// What excludes left out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct LeftOut {
    /// Processes that would have been tracked.
    pub processes: u64,
    /// Connections that these opened or tried to.
    pub connections: u64,
}

impl std::fmt::Display for LeftOut {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { processes, connections } = *self;
        let plural = |count, one, many| if count == 1 { one } else { many };
        write!(
            f,
            "{processes} {}, {connections} {}",
            plural(processes, "process", "processes"),
            plural(connections, "connection", "connections")
        )
    }
}

/// A tracked process as events refer to it: one value per image, shared.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Process {
    /// Distinct for every image within one run of rano; what the store interns by.
    pub key: u64,
    /// Pid and start time.
    pub id: ProcessId,
    /// Its parent when it was first seen.
    pub ppid: u32,
    /// Effective user.
    pub uid: u32,
    /// Unescaped: `output` escapes when it shows.
    pub comm: String,
    /// Arguments joined by blanks, secrets redacted, cut at 4 KiB with `…`; unescaped.
    pub cmdline: String,
    /// What it runs; empty where it could not be read.
    pub exe: String,
    /// On whose behalf it acts; `unknown` where that is not known.
    pub provider: Arc<str>,
    /// From init to the process itself, as at the first sighting of this image.
    pub ancestry: Vec<Ancestor>,
    /// What a person calls it: the script or package that an interpreter runs, else the executable. Unescaped.
    pub program: String,
    /// The directory in which it began its program; unescaped.
    pub cwd: Option<Arc<str>>,
    /// The agent that it runs for, and on which tool call.
    pub call: Option<Arc<Call>>,
    /// Of its `TRACEPARENT`.
    pub trace: Option<Trace>,
}

impl Process {
    /// One of which nothing is known but who it is.
    pub fn unknown(id: ProcessId) -> Self {
        Self {
            key: 0,
            id,
            ppid: 0,
            uid: 0,
            comm: String::new(),
            cmdline: String::new(),
            exe: String::new(),
            provider: Arc::from(provider::UNKNOWN),
            ancestry: Vec::new(),
            program: String::new(),
            cwd: None,
            call: None,
            trace: None,
        }
    }
}

impl Process {
    /// Name of the file that it runs; empty where that could not be read.
    pub(crate) fn program_file(&self) -> &str {
        interpreter::basename(self.exe.trim_end_matches(" (deleted)"))
    }
}

/// One level of an ancestry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ancestor {
    /// Unescaped.
    pub comm: String,
    /// A bare number: it may be another's by now.
    pub pid: u32,
    /// As that of a [`Process`]; unescaped.
    pub program: String,
}
