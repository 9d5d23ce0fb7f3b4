//! Multipath TCP. Whoever connects a socket connects its first subflow; further ones are connected by a worker of the
//! kernel's, and are that process's all the same. Which socket they belong to is in what the protocol keeps beside them
//! (`struct mptcp_subflow_context` in net/mptcp/protocol.h).

use aya_ebpf::helpers::bpf_probe_read_kernel;
use rano_common::{Loss, Offset, flags};

use crate::follow::owner_of;
use crate::maps::{lost, offset};
use crate::socket::Given;
use crate::task::{Identity, in_kernel_thread, read};

/// The beginning of `tcp_ulp_ops.name`.
const NAME: u64 = u64::from_le_bytes(*b"mptcp\0\0\0");
const NAME_BYTES: u64 = (1 << 48) - 1;
/// include/net/tcp_states.h
const CLOSE: u8 = 7;

/// Whether the kernel itself connects this socket, for the process that is returned if that is watched, or may be.
#[inline(always)]
pub fn connects_by_itself<T>(sk: *const T) -> (bool, Option<Identity>) {
    if offset(Offset::SubflowParent) == 0 || !in_kernel_thread() {
        return (false, None);
    }
    match first_beside(sk) {
        Some(first) => (true, owner(first)),
        None => (false, None),
    }
}

/// The first subflow of the socket to which this one is added.
#[inline(always)]
fn first_beside<T>(sk: *const T) -> Option<usize> {
    // Of a pointer whose type the verifier knows it is the number only once it was read.
    // SAFETY: what is read is on this stack.
    let sk = unsafe { bpf_probe_read_kernel(&raw const sk) }.ok()? as usize;
    let kind: usize = read(sk, Offset::SubflowOps)?;
    if kind == 0 || read::<u64>(kind, Offset::SubflowOpsName)? & NAME_BYTES != NAME {
        return None;
    }
    let parent: usize = read(read(sk, Offset::SubflowData)?, Offset::SubflowParent)?;
    read(parent, Offset::MultipathFirst).filter(|first| *first != sk)
}

#[inline(always)]
fn owner(first: usize) -> Option<Identity> {
    let given = Given::Address(first);
    if let Some(owner) = given.key().and_then(owner_of) {
        let (pid, exec_id, start_ns) = (owner.pid, owner.exec_id, owner.start_ns);
        return Some(Identity { pid, exec_id, start_ns, is_undecided: owner.flags & flags::LIMITED != 0 });
    }
    if first == 0 || given.get::<u8>(Offset::SockState) == Some(CLOSE) {
        // Whose it was is forgotten with its end.
        lost(Loss::TaskUnread);
    }
    None
}
