//! What was sent and received through datagram sockets: raw tracepoints of the socket layer, from Linux 6.3 on. In the
//! caller's context, after the call. They skip a firing that comes while another program of the kind runs on the same
//! CPU.

use aya_ebpf::macros::raw_tracepoint;
use aya_ebpf::programs::RawTracePointContext;

use crate::datagrams::{received, sent};
use crate::socket::Given;

/// `sock_send_length(struct sock *sk, int ret, int flags)`
#[raw_tracepoint(tracepoint = "sock_send_length")]
pub fn socket_sent(ctx: RawTracePointContext) -> i32 {
    let (sk, returned): (u64, i32) = (ctx.arg(0), ctx.arg(1));
    sent(Given::Address(sk as usize), returned);
    0
}

/// `sock_recv_length(struct sock *sk, int ret, int flags)`
#[raw_tracepoint(tracepoint = "sock_recv_length")]
pub fn socket_received(ctx: RawTracePointContext) -> i32 {
    let (sk, returned, flags): (u64, i32, u32) = (ctx.arg(0), ctx.arg(1), ctx.arg(2));
    received(Given::Address(sk as usize), returned, flags);
    0
}
