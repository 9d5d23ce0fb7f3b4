//! What a hook tells of a process.

use core::mem::offset_of;

use crate::Header;

/// What happened to a process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
pub enum ProcessKind {
    /// A new thread group; it looks like its forker, whom it comes with.
    Fork = 16,
    /// The last thread is gone.
    Exit = 17,
    /// The leader has another name.
    Rename = 18,
    /// It runs another program. Comes with path and arguments.
    Exec = 19,
    /// It opens a socket and nobody has judged it yet. Comes with arguments.
    Sight = 20,
}

impl ProcessKind {
    pub const ALL: [Self; 5] = [Self::Fork, Self::Exit, Self::Rename, Self::Exec, Self::Sight];
}

/// Room for the path of the program.
pub const PATH: usize = 256;
/// Room for arguments; the smallest that holds them is used. What is longer than the last is cut.
pub const ARGUMENT_CLASSES: [usize; 3] = [256, 1024, 4096];

/// A process; native byte order.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ProcessRecord {
    pub header: Header,
    /// Boot clock, nanoseconds: with the pid, who it is.
    pub start_ns: u64,
    pub pid: u32,
    pub parent: u32,
    /// `self_exec_id`: another one after every exec.
    pub exec_id: u32,
    /// Effective user.
    pub uid: u32,
    /// Bytes of arguments that follow the path.
    pub arguments: u32,
    /// Bytes of arguments that the process has.
    pub arguments_total: u32,
    /// Ends with the first NUL.
    pub comm: [u8; 16],
}

/// A new process and who forked it, which after `clone(CLONE_PARENT)` is not its parent.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ForkRecord {
    pub process: ProcessRecord,
    /// Of the forker's group: boot clock, nanoseconds.
    pub forker_start_ns: u64,
    /// Pid of the forker's group; 0 where it could not be read.
    pub forker: u32,
    /// The forker's [`Verdict`](crate::Verdict), which the new process has inherited.
    pub verdict: u32,
}

/// A process with what it runs.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ImageRecord<const N: usize> {
    pub process: ProcessRecord,
    /// The executable as it was found, ended by a NUL; empty where it is not known or too long.
    pub path: [u8; PATH],
    /// NUL after each; `process.arguments` bytes count.
    pub arguments: [u8; N],
}

const _: () = {
    assert!(size_of::<ProcessRecord>() == 64);
    assert!(offset_of!(ProcessRecord, start_ns) == 16);
    assert!(offset_of!(ProcessRecord, arguments) == 40);
    assert!(offset_of!(ProcessRecord, comm) == 48);
    assert!(size_of::<ForkRecord>() == 80);
    assert!(offset_of!(ForkRecord, forker) == 72);
    assert!(offset_of!(ImageRecord<256>, path) == 64);
    assert!(offset_of!(ImageRecord<4096>, arguments) == 64 + PATH);
    assert!(size_of::<ImageRecord<256>>() == 64 + PATH + 256);
};
