//! Lines about what is decided here, for whoever wonders why a socket was not seen. Without the feature `kernel-log`
//! there are none, and no trace of them in the object.

use rano_common::{Loss, SocketKind};

use crate::task::Identity;

#[cfg(feature = "kernel-log")]
mod lines {
    use aya_log_ebpf::info;

    // Programs of their own: each takes much of the stack, and many call them.

    #[inline(never)]
    pub fn verdict(pid: u32, exec_id: u32, verdict: u32) -> u32 {
        info!((), "verdict {} of process {}, exec {}", verdict, pid, exec_id);
        0
    }

    #[inline(never)]
    pub fn owner(key: u64, pid: u32, flags: u32) -> u32 {
        info!((), "owner of socket {} is process {}, flags {:x}", key, pid, flags);
        0
    }

    #[inline(never)]
    pub fn told(key: u64, kind: u32) -> u32 {
        info!((), "told of socket {}, kind {}", key, kind);
        0
    }

    #[inline(never)]
    pub fn skipped(key: u64) -> u32 {
        info!((), "skip socket {}: nobody follows it", key);
        0
    }

    #[inline(never)]
    pub fn full(what: u32) -> u32 {
        info!((), "full or unread: loss {}", what);
        0
    }
}

/// What is to become of whoever calls; a number of [`rano_common::Verdict`], [`UNJUDGED`] where nobody said.
#[inline(always)]
pub fn verdict(identity: &Identity, verdict: u32) {
    #[cfg(feature = "kernel-log")]
    lines::verdict(identity.pid, identity.exec_id, verdict);
    let _ = (identity, verdict);
}

pub const UNJUDGED: u32 = u32::MAX;

/// A socket is followed from now on.
#[inline(always)]
pub fn owner(key: u64, pid: u32, flags: u32) {
    #[cfg(feature = "kernel-log")]
    lines::owner(key, pid, flags);
    let _ = (key, pid, flags);
}

/// A record found room.
#[inline(always)]
pub fn told(key: u64, kind: SocketKind) {
    #[cfg(feature = "kernel-log")]
    lines::told(key, kind as u32);
    let _ = (key, kind);
}

/// A connection begins that no process was found for.
#[inline(always)]
pub fn skipped(key: u64) {
    #[cfg(feature = "kernel-log")]
    lines::skipped(key);
    let _ = key;
}

/// Something was lost.
#[inline(always)]
pub fn full(what: Loss) {
    #[cfg(feature = "kernel-log")]
    lines::full(what as u32);
    let _ = what;
}
