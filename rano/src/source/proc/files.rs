//! Reading /proc with few system calls and no allocation for what did not change.

use std::ffi::CStr;
use std::hash::Hasher as _;
use std::io::Write as _;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::path::Path;

use anyhow::{Context as _, Result};
use rustc_hash::FxHasher;
use rustix::fs::{CWD, Mode, OFlags, RawDir};
use rustix::io::Errno;

use super::stat::{Stat, number};
use super::threads::Life;
use crate::process::ProcessId;

/// A stat line has 52 numbers and a name of at most 64 bytes (kernel workers).
const LONGEST_STAT: usize = 2048;

/// The root of /proc, or of a directory that looks like it.
#[derive(Debug)]
pub(super) struct ProcFiles {
    root: OwnedFd,
}

/// `/proc/<pid>`, held open: all that is read through it is of one process, whatever becomes of its pid.
#[derive(Debug)]
pub(super) struct ProcessDirectory(OwnedFd);

pub(super) type StatBuffer = [u8; LONGEST_STAT];

pub(super) const fn stat_buffer() -> StatBuffer {
    [0; LONGEST_STAT]
}

/// Why a process could not be looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Refusal {
    Gone,
    Denied,
    /// Out of descriptors or memory, or not what a stat line should be: nothing is known.
    Failed,
}

impl From<Errno> for Refusal {
    fn from(errno: Errno) -> Self {
        match errno {
            Errno::NOENT | Errno::SRCH | Errno::NOTDIR => Self::Gone,
            Errno::ACCESS | Errno::PERM => Self::Denied,
            _ => Self::Failed,
        }
    }
}

impl ProcFiles {
    pub(super) fn open_root(path: &Path) -> Result<Self> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let root = rustix::fs::openat(CWD, path, flags, Mode::empty())
            .with_context(|| format!("open {}", path.display()))?;
        Ok(Self { root })
    }

    pub(super) fn open(&self, path: &CStr) -> rustix::io::Result<OwnedFd> {
        rustix::fs::openat(&self.root, path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())
    }

    pub(super) fn process(&self, pid: u32) -> Result<ProcessDirectory, Refusal> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let mut buffer = [0; 32];
        let path = c_path(&mut buffer, pid, "");
        Ok(ProcessDirectory(rustix::fs::openat(&self.root, path, flags, Mode::empty())?))
    }

    /// The process with that identity, if it lives.
    pub(super) fn process_if(&self, id: ProcessId) -> Result<(ProcessDirectory, Life), Refusal> {
        let process = self.process(id.pid)?;
        let mut buffer = stat_buffer();
        let stat = process.stat(&mut buffer)?;
        if stat.start_time == id.start_time { Ok((process, stat.life())) } else { Err(Refusal::Gone) }
    }

    pub(super) fn stat<'b>(&self, pid: u32, buffer: &'b mut StatBuffer) -> Result<Stat<'b>, Refusal> {
        let mut path = [0; 32];
        read_stat(self.root.as_fd(), c_path(&mut path, pid, "/stat"), buffer)
    }

    /// The reader's own pid, as this /proc numbers it.
    pub(super) fn own_pid(&self) -> Option<u32> {
        let mut target = [0; 32];
        let length = rustix::fs::readlinkat_raw(&self.root, c"self", &mut target).ok()?;
        number(&target[..length])
    }

    /// Appends the numbers among the names in the root, in the order of the listing: ascending in a real /proc.
    pub(super) fn list(&self, pids: &mut Vec<u32>) -> rustix::io::Result<()> {
        rustix::fs::seek(&self.root, rustix::fs::SeekFrom::Start(0))?;
        // The kernel fills at most 32 KiB a call.
        let mut buffer = vec![MaybeUninit::uninit(); 32 * 1024];
        let mut entries = RawDir::new(&self.root, &mut buffer);
        while let Some(entry) = entries.next() {
            pids.extend(number::<u32>(entry?.file_name().to_bytes()).filter(|&pid| pid > 0));
        }
        Ok(())
    }

    /// Replaces what is in `into` by at most `limit` bytes of a file.
    pub(super) fn read(&self, path: &CStr, limit: usize, into: &mut Vec<u8>) -> Result<(), Refusal> {
        read(self.root.as_fd(), path, limit, into)
    }
}

impl ProcessDirectory {
    pub(super) fn stat<'b>(&self, buffer: &'b mut StatBuffer) -> Result<Stat<'b>, Refusal> {
        read_stat(self.0.as_fd(), c"stat", buffer)
    }

    /// As [`ProcFiles::read`].
    pub(super) fn read(&self, path: &CStr, limit: usize, into: &mut Vec<u8>) -> Result<(), Refusal> {
        read(self.0.as_fd(), path, limit, into)
    }

    /// The effective user: `/proc/<pid>` itself belongs to it even where the process may not be dumped
    /// (`task_dump_owner`, fs/proc/base.c).
    pub(super) fn uid(&self) -> Result<u32, Refusal> {
        Ok(rustix::fs::fstat(&self.0)?.st_uid)
    }

    pub(super) fn link<'b>(&self, path: &CStr, buffer: &'b mut [u8]) -> Result<&'b [u8], Refusal> {
        let length = rustix::fs::readlinkat_raw(&self.0, path, &mut *buffer)?;
        Ok(&buffer[..length])
    }

    /// Calls `each` with the number and the inode of every descriptor that is a socket. Whether one is an `io_uring`,
    /// which may hold sockets that have no descriptor.
    pub(super) fn sockets(&self, mut each: impl FnMut(u32, u64)) -> Result<bool, Refusal> {
        let directory = self.open_directory(c"fd")?;
        let mut buffer = [MaybeUninit::uninit(); 8192];
        let mut entries = RawDir::new(directory.as_fd(), &mut buffer);
        let mut has_ring = false;
        while let Some(entry) = entries.next() {
            let entry = entry?;
            let Some(descriptor) = number::<u32>(entry.file_name().to_bytes()) else { continue };
            let mut target = [0; 64];
            match target_of(directory.as_fd(), entry.file_name(), &mut target) {
                Ok(target) => match inode_in(target, b"socket:[") {
                    Some(inode) => each(descriptor, inode),
                    None => has_ring |= target == b"anon_inode:[io_uring]",
                },
                // Closed since it was listed.
                Err(Refusal::Gone) => {}
                Err(refusal) => return Err(refusal),
            }
        }
        Ok(has_ring)
    }

    /// One of its threads, in the form of a process.
    pub(super) fn thread(&self, thread: u32) -> Result<Self, Refusal> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let mut path = [0; 32];
        write!(&mut path[..], "task/{thread}\0").expect("ten digits and a short prefix fit");
        let path = CStr::from_bytes_until_nul(&path).expect("a NUL was written");
        Ok(Self(rustix::fs::openat(&self.0, path, flags, Mode::empty())?))
    }

    /// The number of its descriptors, from Linux 6.2 on; 0 before.
    pub(super) fn descriptors(&self) -> Result<i64, Refusal> {
        Ok(rustix::fs::statat(&self.0, c"fd", rustix::fs::AtFlags::empty())?.st_size)
    }

    pub(super) fn open_directory(&self, path: &CStr) -> Result<OwnedFd, Refusal> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        Ok(rustix::fs::openat(&self.0, path, flags, Mode::empty())?)
    }

    /// Inode number of the network namespace.
    pub(super) fn network_namespace(&self) -> Result<Option<u64>, Refusal> {
        let mut target = [0; 64];
        Ok(inode_in(target_of(self.0.as_fd(), c"ns/net", &mut target)?, b"net:["))
    }
}

/// What a descriptor leads to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Target {
    /// With its inode.
    Socket(u64),
    /// With a number that stands for its path.
    File(u64),
    Closed,
}

/// `directory` is `/proc/<pid>/fd`.
pub(super) fn target(directory: &OwnedFd, descriptor: u32) -> Result<Target, Refusal> {
    let mut path = [0; 32];
    let mut target = [0; 64];
    match target_of(directory.as_fd(), c_path(&mut path, descriptor, ""), &mut target) {
        Ok(target) => {
            Ok(inode_in(target, b"socket:[").map_or_else(|| Target::File(hash(target)), Target::Socket))
        }
        Err(Refusal::Gone) => Ok(Target::Closed),
        Err(refusal) => Err(refusal),
    }
}

fn hash(bytes: &[u8]) -> u64 {
    let mut hasher = FxHasher::default();
    hasher.write(bytes);
    hasher.finish()
}

fn target_of<'b>(
    directory: BorrowedFd<'_>,
    link: &CStr,
    target: &'b mut [u8; 64],
) -> Result<&'b [u8], Refusal> {
    let length = rustix::fs::readlinkat_raw(directory, link, &mut target[..])?;
    Ok(&target[..length])
}

/// 123 of a link to `socket:[123]`.
fn inode_in(target: &[u8], prefix: &[u8]) -> Option<u64> {
    target.strip_prefix(prefix).and_then(|rest| rest.strip_suffix(b"]")).and_then(number)
}

fn read(directory: BorrowedFd<'_>, path: &CStr, limit: usize, into: &mut Vec<u8>) -> Result<(), Refusal> {
    let file = rustix::fs::openat(directory, path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?;
    into.clear();
    while into.len() < limit {
        let length = into.len();
        into.resize((length * 2).clamp(4096, limit.max(4096)), 0);
        let read = rustix::io::read(&file, &mut into[length..]);
        into.truncate(length + *read.as_ref().unwrap_or(&0));
        if read? == 0 {
            break;
        }
    }
    into.truncate(limit);
    Ok(())
}

fn read_stat<'b>(
    directory: BorrowedFd<'_>,
    path: &CStr,
    buffer: &'b mut StatBuffer,
) -> Result<Stat<'b>, Refusal> {
    let file = rustix::fs::openat(directory, path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?;
    let length = rustix::io::read(&file, &mut buffer[..])?;
    Stat::parse(&buffer[..length]).ok_or(Refusal::Failed)
}

/// `<pid><suffix>` with a NUL behind it.
fn c_path<'b>(buffer: &'b mut [u8; 32], pid: u32, suffix: &str) -> &'b CStr {
    write!(&mut buffer[..], "{pid}{suffix}\0").expect("ten digits and a short suffix fit");
    CStr::from_bytes_until_nul(buffer).expect("a NUL was written")
}
