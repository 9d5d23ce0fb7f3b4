//! Looks at the descriptors of one process that began a program a moment ago.

use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;

use rustc_hash::FxHashSet;
use rustix::fs::{RawDir, SeekFrom, seek};

use super::super::files::{self, ProcessDirectory, Refusal, Target};
use super::super::stat::number;
use super::socket::{self, Copied, InetCopy};

/// Looked at so long after an exec or fork, then each [`LATER_NS`] until it is grown up.
const FIRST_NS: [u64; 3] = [3_000_000, 12_000_000, 40_000_000];
const LATER_NS: u64 = 60_000_000;
pub(super) const YOUTH_NS: u64 = 1_000_000_000;
/// While it waits for the answer to a look-up it is looked at this often.
const EXPECTING_NS: u64 = 1_000_000;
/// More descriptors of one process are not looked at.
const MOST: usize = 256;
/// A descriptor that was the same in so many looks is read in every fourth only.
const SETTLED: u8 = 2;

/// What a look found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Found {
    pub(super) inode: u64,
    /// `None` where the copy was refused.
    pub(super) copy: Option<InetCopy>,
    /// It was there in an earlier look too.
    pub(super) again: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum How {
    /// Every descriptor.
    Whole,
    /// Those that changed lately, and the numbers that are handed out next.
    Quick,
}

#[derive(Debug)]
pub(super) struct Young {
    began_ns: u64,
    looks: usize,
    pub(super) next_ns: u64,
    directory: Option<OwnedFd>,
    pidfd: Option<OwnedFd>,
    descriptors: Vec<Descriptor>,
    /// Sockets that are done with: told with both ends, or nothing for us.
    done: FxHashSet<u64>,
    /// Sockets without a remote end so far.
    waiting: FxHashSet<u64>,
    expects_until_ns: u64,
}

#[derive(Debug, Clone, Copy)]
struct Descriptor {
    number: u32,
    path: Option<u64>,
    /// In so many looks after the first it was the same file, and no socket.
    same: u8,
}

impl Young {
    pub(super) fn new(began_ns: u64) -> Self {
        Self {
            began_ns,
            looks: 0,
            next_ns: began_ns + FIRST_NS[0],
            directory: None,
            pidfd: None,
            descriptors: Vec::new(),
            done: FxHashSet::default(),
            waiting: FxHashSet::default(),
            expects_until_ns: 0,
        }
    }

    /// It runs another program from now on. What it holds stays.
    pub(super) fn begins_anew(&mut self, at_ns: u64) {
        self.began_ns = at_ns;
        self.looks = 0;
        self.next_ns = at_ns + FIRST_NS[0];
        self.descriptors.clear();
    }

    pub(super) fn is_grown_up(&self, now_ns: u64) -> bool {
        now_ns >= self.began_ns + YOUTH_NS && now_ns >= self.expects_until_ns
    }

    /// When it is looked at after a look at `now_ns` that was due.
    pub(super) fn schedule(&mut self, now_ns: u64) {
        self.looks += 1;
        let planned = match FIRST_NS.get(self.looks) {
            Some(after) => self.began_ns + after,
            None => now_ns + LATER_NS,
        };
        let soon = now_ns < self.expects_until_ns;
        self.next_ns = if soon { now_ns + EXPECTING_NS } else { planned.max(now_ns + EXPECTING_NS) };
    }

    /// Calls `each` for what is new among its sockets. `Denied`: it lets nobody look.
    pub(super) fn look(
        &mut self,
        pid: u32,
        process: impl FnOnce() -> Result<ProcessDirectory, Refusal>,
        how: How,
        now_ns: u64,
        own_namespace: Option<u64>,
        mut each: impl FnMut(Found),
    ) -> Result<(), Refusal> {
        if self.directory.is_none() {
            self.directory = Some(process()?.open_directory(c"fd")?);
            self.pidfd = socket::open(pid);
        }
        let Some(directory) = self.directory.take() else { return Ok(()) };
        let read = match how {
            How::Quick if !self.descriptors.is_empty() => self.next_numbers(),
            How::Quick | How::Whole => self.list(&directory)?,
        };
        for descriptor in read {
            let inode = match files::target(&directory, descriptor)? {
                Target::Socket(inode) => inode,
                Target::File(path) => {
                    self.note(descriptor, Some(path));
                    continue;
                }
                Target::Closed => {
                    self.descriptors.retain(|known| known.number != descriptor);
                    continue;
                }
            };
            self.note(descriptor, None);
            if self.done.contains(&inode) {
                continue;
            }
            self.examine(descriptor, inode, now_ns, own_namespace, &mut each);
        }
        self.directory = Some(directory);
        Ok(())
    }

    fn examine(
        &mut self,
        descriptor: u32,
        inode: u64,
        now_ns: u64,
        own_namespace: Option<u64>,
        each: &mut impl FnMut(Found),
    ) {
        let copied = self
            .pidfd
            .as_ref()
            .map_or(Copied::Refused, |pidfd| socket::copy(pidfd, descriptor, own_namespace));
        let again = self.waiting.contains(&inode);
        match copied {
            Copied::Inet(copy) => {
                if copy.ends.is_some_and(|(_, remote)| remote.port() == 53) {
                    // An answer takes some tens of milliseconds, and then it connects.
                    self.expects_until_ns = now_ns + 50_000_000;
                    self.next_ns = self.next_ns.min(now_ns + EXPECTING_NS);
                }
                if copy.ends.is_some() && (again || copy.protocol == crate::event::Protocol::Tcp) {
                    self.waiting.remove(&inode);
                    self.done.insert(inode);
                } else {
                    self.waiting.insert(inode);
                }
                if !again || copy.ends.is_some() {
                    each(Found { inode, copy: Some(copy), again });
                }
            }
            Copied::Refused => {
                self.waiting.insert(inode);
                if !again {
                    each(Found { inode, copy: None, again });
                }
            }
            Copied::Other => drop(self.done.insert(inode)),
            Copied::Gone => {}
        }
    }

    /// It is known what that socket is.
    pub(super) fn settle(&mut self, inode: u64) {
        self.waiting.remove(&inode);
        self.done.insert(inode);
    }

    fn list(&mut self, directory: &OwnedFd) -> Result<Vec<u32>, Refusal> {
        seek(directory, SeekFrom::Start(0))?;
        let mut buffer = [MaybeUninit::uninit(); 4096];
        let mut entries = RawDir::new(directory, &mut buffer);
        let mut numbers = Vec::new();
        while let Some(entry) = entries.next()
            && numbers.len() < MOST
        {
            numbers.extend(number::<u32>(entry?.file_name().to_bytes()));
        }
        self.descriptors.retain(|known| numbers.binary_search(&known.number).is_ok());
        if !self.looks.is_multiple_of(4) {
            let descriptors = &self.descriptors;
            numbers.retain(|&number| {
                !descriptors.iter().any(|known| known.number == number && known.same >= SETTLED)
            });
        }
        Ok(numbers)
    }

    /// What changed lately, and the two lowest numbers that are free: the kernel hands out the lowest.
    fn next_numbers(&self) -> Vec<u32> {
        let unsettled = self.descriptors.iter().filter(|known| known.same < SETTLED);
        let mut numbers: Vec<u32> = unsettled.map(|known| known.number).take(8).collect();
        let is_free = |number: &u32| self.descriptors.iter().all(|known| known.number != *number);
        numbers.extend((0..).filter(is_free).take(2));
        numbers
    }

    /// `path`: of a file that is no socket.
    fn note(&mut self, number: u32, path: Option<u64>) {
        match self.descriptors.iter_mut().find(|known| known.number == number) {
            Some(known) if path.is_some() && known.path == path => known.same = known.same.saturating_add(1),
            Some(known) => *known = Descriptor { number, path, same: 0 },
            None => self.descriptors.push(Descriptor { number, path, same: 0 }),
        }
    }
}
