//! Connections that no watched process was found to hold, and whether that says whose they are. What may not be read,
//! or is in no descriptor, may be a watched process's all the same: then the connection is counted.

use rustc_hash::{FxHashMap, FxHashSet};
use rustix::thread::{CapabilitySet, capabilities};

use super::ProcSource;
use super::processes::Walk;
use crate::event::Moment;
use crate::process::ProcessId;
use crate::source::{SocketChange, SocketId};

/// So many are asked for again in one look, after the search for their holders.
const ASKED_AGAIN: usize = 256;

/// Whose sockets can be held unseen.
#[derive(Debug, Default)]
pub(super) struct Blind {
    /// Users of watched processes that were not looked through to the end.
    uids: FxHashSet<u32>,
}

impl Blind {
    pub(super) fn note(&mut self, walk: Walk, uid: Option<u32>) {
        match walk {
            Walk::Denied | Walk::Ring => self.uids.extend(uid),
            Walk::Complete | Walk::Gone | Walk::Failed => {}
        }
    }
}

/// What this thread may read of others.
#[derive(Debug, Clone, Copy)]
pub(super) struct Reach {
    reads_all: bool,
    uid: u32,
}

impl Reach {
    pub(super) fn own() -> Self {
        let has = capabilities(None).map_or(CapabilitySet::empty(), |sets| sets.effective);
        let uid = rustix::process::geteuid().as_raw();
        Self { reads_all: has.contains(CapabilitySet::SYS_PTRACE), uid }
    }
}

impl ProcSource {
    /// Takes out of the new sockets those that were gone before their holders were searched, so that their end counts,
    /// and those that may be a watched process's unseen. How many of these are to be counted now; with
    /// `--include-unattributed` they are told instead.
    pub(super) fn sort_out(
        &mut self,
        found: &FxHashSet<SocketId>,
        blind: &Blind,
        searched: Moment,
        out: &mut Vec<SocketChange>,
    ) -> u64 {
        let reach = Reach::own();
        let mut unsure = Vec::new();
        let mut doubtful: FxHashMap<u64, Option<ProcessId>> = FxHashMap::default();
        for (at, seen) in self.own.table.unfound(found).into_iter().enumerate() {
            if at < ASKED_AGAIN && self.own.is_gone(&seen) {
                self.own.table.keep_unknown(seen.id);
                continue;
            }
            let Some(uid) = seen.uid else { continue };
            if !reach.reads_all && uid != reach.uid {
                unsure.push((seen.id, None));
            } else if blind.uids.contains(&uid) {
                doubtful.insert(seen.inode, None);
                unsure.push((seen.id, Some(seen.inode)));
            }
        }
        if !doubtful.is_empty() {
            self.scanner.find_holders(&mut doubtful);
        }
        let is_held =
            |inode: Option<u64>| inode.is_some_and(|inode| doubtful.get(&inode).copied().flatten().is_some());
        let mut count = 0;
        for (id, _) in unsure.into_iter().filter(|(_, inode)| !is_held(*inode)) {
            let told = self.own.table.give_to_nobody(id, searched, self.settings.unattributed, out);
            count += u64::from(!told);
        }
        count
    }
}
