//! Whose rights a thread has on file systems.

use std::cell::RefCell;
use std::io;

use nix::unistd::{Uid, setfsgid, setfsuid};
use rustix::process::Gid;
use rustix::thread::{CapabilitySet, capabilities, set_thread_groups};

use crate::privileges;

/// Who somebody is to file systems.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    pub uid: u32,
    pub gid: u32,
    /// Supplementary groups.
    pub groups: Vec<u32>,
}

/// With whose rights a path is opened, and so what others must not be able to have done to it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Rights {
    /// An ordinary user's own.
    Own,
    /// Root's. Links count only in directories that nobody else can write.
    Root,
    /// Root's, on behalf of a user who may not do it himself. The whole way must be closed to everybody else.
    RootAlone,
    /// The user's who invoked sudo.
    User(Identity),
}

thread_local! {
    static TAKEN: RefCell<Option<Rights>> = const { RefCell::new(None) };
}

impl Rights {
    /// Of the calling thread: those that it took, else its own.
    pub fn here() -> Self {
        let own = || if rustix::process::geteuid().is_root() { Self::Root } else { Self::Own };
        TAKEN.with_borrow(Option::clone).unwrap_or_else(own)
    }

    /// Gives the calling thread these rights for good; it must have root's for others than its own.
    pub fn take(&self) -> io::Result<()> {
        if let Self::User(identity) = self {
            identity.take()?;
        }
        TAKEN.set(Some(self.clone()));
        Ok(())
    }

    /// Whether `uid` may own what is used.
    pub(super) fn trust(&self, uid: u32) -> bool {
        let own = match self {
            Self::Own => rustix::process::geteuid().as_raw(),
            Self::Root | Self::RootAlone => 0,
            Self::User(identity) => identity.uid,
        };
        uid == 0 || uid == own
    }
}

impl Identity {
    /// Makes the calling thread this user to file systems, without any capability, for good. Real, effective and saved
    /// ids stay root's, so that the user cannot signal the process.
    fn take(&self) -> io::Result<()> {
        let groups: Vec<Gid> = self.groups.iter().map(|group| Gid::from_raw(*group)).collect();
        // The system call, which is the thread's alone: the C library's function of that name changes all threads.
        set_thread_groups(&groups)?;
        // These are the thread's alone, too (setfsuid(2)). They do not say whether they worked.
        setfsgid(nix::unistd::Gid::from_raw(self.gid));
        setfsuid(Uid::from_raw(self.uid));
        // No id is all ones: this only asks.
        let uid = setfsuid(Uid::from_raw(u32::MAX)).as_raw();
        let gid = setfsgid(nix::unistd::Gid::from_raw(u32::MAX)).as_raw();
        privileges::keep_only(CapabilitySet::empty());
        let left = capabilities(None)?;
        if (uid, gid) == (self.uid, self.gid) && (left.effective | left.permitted).is_empty() {
            Ok(())
        } else {
            Err(io::Error::other("the kernel keeps this thread root"))
        }
    }
}
