//! What becomes of a TCP connection: the `sock_ops` hook of cgroups, callbacks from Linux 4.16 on; never skipped. It
//! may run in any context, so the owner is the one that `connect4` and `connect6` remembered.

use aya_ebpf::EbpfContext as _;
use aya_ebpf::bindings::BPF_ANY;
use aya_ebpf::helpers::generated::bpf_get_socket_cookie;
use aya_ebpf::macros::sock_ops;
use aya_ebpf::programs::SockOpsContext;
use rano_common::{Loss, Owner, SocketKind, flags};

use crate::emit::now;
use crate::maps::{OWNERS, lost};
use crate::socket::{IPPROTO_TCP, Told, tell};

/// `BPF_SOCK_OPS_TCP_CONNECT_CB`: in the caller's context, addresses are known, the SYN is not sent yet.
const TCP_CONNECT: u32 = 3;
/// `BPF_SOCK_OPS_ACTIVE_ESTABLISHED_CB`
const ACTIVE_ESTABLISHED: u32 = 4;
/// `BPF_SOCK_OPS_STATE_CB`
const STATE: u32 = 10;
/// `BPF_SOCK_OPS_STATE_CB_FLAG`
const STATE_FLAG: i32 = 4;
/// `TCP_CLOSE`
const CLOSE: u32 = 7;

#[sock_ops]
pub fn tcp_events(ctx: SockOpsContext) -> u32 {
    let kind = match ctx.op() {
        TCP_CONNECT => SocketKind::Attempt,
        ACTIVE_ESTABLISHED => SocketKind::Established,
        STATE if ctx.arg(1) == CLOSE => SocketKind::Closed,
        _ => return 1,
    };
    // SAFETY: the context is of a type this helper takes.
    let cookie = unsafe { bpf_get_socket_cookie(ctx.as_ptr()) };
    // SAFETY: an entry belongs to one socket, whose callbacks come one after another.
    let Some(words) = (unsafe { OWNERS.get(cookie) }) else { return 1 };
    let mut owner = Owner::from_words(*words);
    let state_before = if kind as u32 == SocketKind::Closed as u32 { ctx.arg(0) as u8 } else { 0 };
    match kind {
        SocketKind::Attempt => {
            owner.flags |= flags::ATTEMPTED;
            let _ = ctx.set_cb_flags(STATE_FLAG);
        }
        SocketKind::Established => owner.established_ns = now(),
        _ => {}
    }
    let told = Told { kind, cookie, owner, protocol: IPPROTO_TCP, state_before, remote: None };
    // SAFETY: the context is valid while the program runs; the verifier checks the access.
    let is_told = tell(unsafe { (*ctx.ops).__bindgen_anon_2.sk }, told);
    if is_told {
        owner.flags |= flags::HEARD;
    }
    if kind as u32 != SocketKind::Closed as u32 {
        let _ = OWNERS.insert(cookie, owner.to_words(), BPF_ANY as u64);
        return 1;
    }
    let _ = OWNERS.remove(cookie);
    if owner.flags & flags::HEARD == 0 {
        lost(Loss::Unheard);
    }
    1
}
