//! Threads of a process: each may have descriptors and a network namespace of its own (`clone(2)` without
//! `CLONE_FILES`, `unshare(2)`, `setns(2)`), and the main thread may end before the others.

use std::mem::MaybeUninit;

use rustix::fs::RawDir;

use super::files::{ProcessDirectory, Refusal, StatBuffer, stat_buffer};
use super::stat::{Stat, number};

/// More threads of one process are not looked at.
const MOST: usize = 4096;
/// `enum kcmp_type` in include/uapi/linux/kcmp.h.
const KCMP_FILES: libc::c_int = 2;

/// How threads are compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Compare {
    /// By `kcmp(2)`, exactly.
    Kernel,
    /// By the number of their descriptors, where the kernel does not compare or knows processes by other numbers.
    Size,
}

impl Compare {
    /// `pid` is rano's own, in the numbers that the kernel would be asked with; `None` if /proc has others.
    pub(super) fn probe(pid: Option<u32>) -> Self {
        match pid {
            Some(pid) if kernel_shares(pid, pid) == Some(true) => Self::Kernel,
            Some(_) | None => Self::Size,
        }
    }
}

impl ProcessDirectory {
    /// Numbers of its threads, in the order of the listing: the main thread first.
    pub(super) fn threads(&self) -> Result<Vec<u32>, Refusal> {
        let directory = self.open_directory(c"task")?;
        let mut buffer = [MaybeUninit::uninit(); 8192];
        let mut entries = RawDir::new(&directory, &mut buffer);
        let mut threads = Vec::new();
        while let Some(entry) = entries.next()
            && threads.len() < MOST
        {
            threads.extend(number::<u32>(entry?.file_name().to_bytes()));
        }
        Ok(threads)
    }

    /// Some thread that has not ended, of a process whose main thread has.
    pub(super) fn living_thread(&self, main: u32) -> Result<ProcessDirectory, Refusal> {
        for thread in self.threads()?.into_iter().filter(|&thread| thread != main) {
            let Ok(thread) = self.thread(thread) else { continue };
            let mut buffer = stat_buffer();
            if thread.stat(&mut buffer).is_ok_and(|stat| !stat.is_ended()) {
                return Ok(thread);
            }
        }
        Err(Refusal::Failed)
    }

    /// Calls `each` with the number and the inode of every socket that any thread has a descriptor of. Whether one of
    /// them is an `io_uring`. Fails if there is none whose descriptors are to be had.
    pub(super) fn sockets_of_threads(
        &self,
        main: u32,
        life: Life,
        compare: Compare,
        mut each: impl FnMut(u32, u64),
    ) -> Result<bool, Refusal> {
        let mut has_ring = false;
        // Those whose descriptors were read.
        let mut read = Vec::new();
        if !life.is_headless {
            has_ring |= self.sockets(&mut each)?;
            read.push(main);
        }
        if life.threads > 1 || life.is_headless {
            for thread in self.threads()?.into_iter().filter(|&thread| thread != main) {
                if read.iter().any(|&other| self.share_descriptors(other, thread, compare)) {
                    continue;
                }
                match self.thread(thread).and_then(|found| found.sockets(&mut each)) {
                    Ok(ring) => {
                        has_ring |= ring;
                        read.push(thread);
                    }
                    Err(Refusal::Gone) => {}
                    Err(refusal) => return Err(refusal),
                }
            }
        }
        if read.is_empty() { Err(Refusal::Failed) } else { Ok(has_ring) }
    }

    /// Where nothing is known of it, they do: mostly that is so.
    fn share_descriptors(&self, one: u32, other: u32, compare: Compare) -> bool {
        match compare {
            Compare::Kernel => kernel_shares(one, other).unwrap_or(true),
            Compare::Size => {
                // From Linux 6.2 on the size of the directory is the number of descriptors.
                let size = |thread| self.thread(thread).and_then(|thread| thread.descriptors());
                match (size(one), size(other)) {
                    (Ok(one), Ok(other)) => one == other,
                    _ => true,
                }
            }
        }
    }

    /// Network namespaces of its threads, each with one thread that is in it.
    pub(super) fn network_namespaces(&self, main: u32, life: Life) -> Result<Vec<(u64, u32)>, Refusal> {
        let mut found: Vec<(u64, u32)> = Vec::new();
        let mut add = |namespace: Option<u64>, thread: u32| {
            if let Some(namespace) = namespace
                && found.iter().all(|(known, _)| *known != namespace)
            {
                found.push((namespace, thread));
            }
        };
        if !life.is_headless {
            add(self.network_namespace()?, main);
        }
        if life.threads > 1 || life.is_headless {
            for thread in self.threads()?.into_iter().filter(|&thread| thread != main) {
                add(self.thread(thread).and_then(|thread| thread.network_namespace()).ok().flatten(), thread);
            }
        }
        Ok(found)
    }
}

/// What a stat line says of a process's threads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Life {
    /// The main thread has ended and others have not: what they share is to be had through them alone.
    pub(super) is_headless: bool,
    pub(super) threads: u32,
}

/// Of a process whose main thread has ended, the addresses are another thread's; the name stays.
pub(super) fn complete<'b>(process: &ProcessDirectory, main: u32, stat: Stat<'b>) -> Stat<'b> {
    if !stat.life().is_headless {
        return stat;
    }
    let mut buffer: StatBuffer = stat_buffer();
    let thread = process.living_thread(main);
    match thread.as_ref().map_err(|refusal| *refusal).and_then(|thread| thread.stat(&mut buffer)) {
        Ok(of_thread) => stat.with_addresses_of(&of_thread),
        Err(_) => stat,
    }
}

fn kernel_shares(one: u32, other: u32) -> Option<bool> {
    // SAFETY: it takes five numbers and no pointers (kcmp(2)).
    let order = unsafe { libc::syscall(libc::SYS_kcmp, one, other, KCMP_FILES, 0, 0) };
    match order {
        0 => Some(true),
        1..=3 => Some(false),
        _ => None,
    }
}
