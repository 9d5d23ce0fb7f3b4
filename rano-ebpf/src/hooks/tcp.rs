//! What becomes of a TCP connection: the `sock_ops` hook of cgroups, callbacks from Linux 4.16 on; never skipped. It
//! may run in any context, so the owner is the one that `connect4` and `connect6` remembered.

use aya_ebpf::EbpfContext as _;
use aya_ebpf::helpers::generated::bpf_get_socket_cookie;
use aya_ebpf::macros::sock_ops;
use aya_ebpf::programs::SockOpsContext;
use rano_common::Setting;

use crate::follow::{attempted, closed, established};
use crate::listen::{arrived, listens};
use crate::maps::setting;
use crate::socket::Full;

/// `BPF_SOCK_OPS_TCP_CONNECT_CB`: in the caller's context, addresses are known, the SYN is not sent yet.
const TCP_CONNECT: u32 = 3;
/// `BPF_SOCK_OPS_ACTIVE_ESTABLISHED_CB`
const ACTIVE_ESTABLISHED: u32 = 4;
/// `BPF_SOCK_OPS_PASSIVE_ESTABLISHED_CB`
const PASSIVE_ESTABLISHED: u32 = 5;
/// `BPF_SOCK_OPS_STATE_CB`
const STATE: u32 = 10;
/// `BPF_SOCK_OPS_TCP_LISTEN_CB`: in the caller's context, after the socket began to listen.
const TCP_LISTEN: u32 = 11;
/// `BPF_SOCK_OPS_STATE_CB_FLAG`
const STATE_FLAG: i32 = 4;
/// `TCP_CLOSE`
const CLOSE: u32 = 7;

#[sock_ops]
pub fn tcp_events(ctx: SockOpsContext) -> u32 {
    let op = ctx.op();
    let of_listeners = op == PASSIVE_ESTABLISHED || op == TCP_LISTEN;
    let known = matches!(op, TCP_CONNECT | ACTIVE_ESTABLISHED) || (op == STATE && ctx.arg(1) == CLOSE);
    if !known && !(of_listeners && setting(Setting::Listening) != 0) {
        return 1;
    }
    // SAFETY: the context is of a type this helper takes.
    let key = unsafe { bpf_get_socket_cookie(ctx.as_ptr()) };
    // SAFETY: the context is valid while the program runs; the verifier checks the access.
    let socket = unsafe { (*ctx.ops).__bindgen_anon_2.sk }.cast_const().cast::<Full>();
    match op {
        TCP_CONNECT => {
            if attempted(socket, key) {
                let _ = ctx.set_cb_flags(STATE_FLAG);
            }
        }
        ACTIVE_ESTABLISHED => established(socket, key),
        PASSIVE_ESTABLISHED => {
            if arrived(socket, key) {
                let _ = ctx.set_cb_flags(STATE_FLAG);
            }
        }
        TCP_LISTEN => listens(socket, key, 0),
        _ => closed(socket, key, ctx.arg(0) as u8),
    }
    1
}
