//! What was sent and received through sockets: raw tracepoints of the socket layer, from Linux 6.3 on. In the caller's
//! context, after the call. They skip a firing that comes while another program of the kind runs on the same CPU.

use aya_ebpf::macros::raw_tracepoint;
use aya_ebpf::programs::RawTracePointContext;
use rano_common::{Offset, owner_words};

use crate::datagrams::exchanged_by;
use crate::follow::has_owner;
use crate::others::used;
use crate::socket::{Given, IPPROTO_UDP, IPPROTO_UDPLITE};
use crate::task::may_be_watched;

/// `sock_send_length(struct sock *sk, int ret, int flags)`
#[raw_tracepoint(tracepoint = "sock_send_length")]
pub fn socket_sent(ctx: RawTracePointContext) -> i32 {
    let (sk, returned): (u64, i32) = (ctx.arg(0), ctx.arg(1));
    any(Given::Address(sk as usize), owner_words::SENT, returned, 0);
    0
}

/// `sock_recv_length(struct sock *sk, int ret, int flags)`
#[raw_tracepoint(tracepoint = "sock_recv_length")]
pub fn socket_received(ctx: RawTracePointContext) -> i32 {
    let (sk, returned, flags): (u64, i32, u32) = (ctx.arg(0), ctx.arg(1), ctx.arg(2));
    any(Given::Address(sk as usize), owner_words::RECEIVED, returned, flags);
    0
}

/// Attached where datagrams are counted in another way; so is the next.
#[raw_tracepoint(tracepoint = "sock_send_length")]
pub fn other_sent(ctx: RawTracePointContext) -> i32 {
    let (sk, returned): (u64, i32) = (ctx.arg(0), ctx.arg(1));
    but_udp(Given::Address(sk as usize), owner_words::SENT, returned, 0);
    0
}

#[raw_tracepoint(tracepoint = "sock_recv_length")]
pub fn other_received(ctx: RawTracePointContext) -> i32 {
    let (sk, returned, flags): (u64, i32, u32) = (ctx.arg(0), ctx.arg(1), ctx.arg(2));
    but_udp(Given::Address(sk as usize), owner_words::RECEIVED, returned, flags);
    0
}

#[inline(always)]
fn any(sk: Given, place: usize, returned: i32, flags: u32) {
    let protocol: u16 = sk.get(Offset::SockProtocol).unwrap_or(0);
    if protocol == u16::from(IPPROTO_UDP) || is_hooked_lite(sk, protocol) {
        exchanged_by(sk, returned, place, flags);
    } else if may_be_watched() {
        used(sk, protocol, place, returned, flags);
    }
}

#[inline(always)]
fn but_udp(sk: Given, place: usize, returned: i32, flags: u32) {
    if !may_be_watched() {
        return;
    }
    let protocol: u16 = sk.get(Offset::SockProtocol).unwrap_or(0);
    if protocol != u16::from(IPPROTO_UDP) && !is_hooked_lite(sk, protocol) {
        used(sk, protocol, place, returned, flags);
    }
}

/// No hook tells that a UDP-Lite socket connects; one that sends to where a call says is followed as UDP's are.
#[inline(always)]
fn is_hooked_lite(sk: Given, protocol: u16) -> bool {
    protocol == u16::from(IPPROTO_UDPLITE) && sk.key().is_some_and(has_owner)
}
