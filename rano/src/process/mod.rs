//! Who: process identity, ancestry, which processes are watched, and on whose behalf they act.
//! Pure: it is fed by sources and never reads /proc itself.

pub mod ancestry;
mod interpreter;
pub mod matching;
pub mod provider;
pub mod redact;
mod secrets;
pub mod tree;

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::event::Moment;

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
    /// First sight, exec or rename. `parent` is the pid of the parent at that moment.
    Seen { id: ProcessId, parent: u32, image: Image, at: Moment },
    /// The whole thread group is gone.
    Gone { id: ProcessId, at: Moment },
}

/// Whether a process is watched.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    Tracked,
    Ignored,
}

/// A tracked process as events refer to it: one value per image, shared.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Process {
    /// Distinct for every image within one run of rano; what the store interns by.
    pub key: u64,
    pub id: ProcessId,
    pub ppid: u32,
    pub uid: u32,
    /// Unescaped: `output` escapes when it shows.
    pub comm: String,
    /// Arguments joined by blanks, secrets redacted, cut at 4 KiB with `…`; unescaped.
    pub cmdline: String,
    pub exe: String,
    pub provider: Arc<str>,
    /// From init to the process itself, as at the first sighting of this image.
    pub ancestry: Vec<Ancestor>,
}

/// One level of an ancestry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ancestor {
    pub comm: String,
    pub pid: u32,
}
