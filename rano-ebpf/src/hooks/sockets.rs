//! In the caller's own context: who connects, who sends to where, who binds, and the end of a socket's last descriptor.
//! Cgroup hooks, from Linux 5.9 on (`sock_release`); never skipped.

use aya_ebpf::EbpfContext as _;
use aya_ebpf::bindings::bpf_sock;
use aya_ebpf::helpers::generated::bpf_get_socket_cookie;
use aya_ebpf::macros::{cgroup_sock, cgroup_sock_addr};
use aya_ebpf::programs::{SockAddrContext, SockContext};
use rano_common::{FlowKey, LeftOut, Setting, flags};

use crate::datagrams::{
    bound, datagram_came, datagram_goes, datagrams_begin, datagrams_left_out, is_of_datagrams,
};
use crate::follow::{released, stream_begins};
use crate::listen::listens;
use crate::maps::{left_out, setting};
use crate::multipath::connects_by_itself;
use crate::others::inode;
use crate::socket::{Destination, IPPROTO_TCP, IPPROTO_UDP, address, bytes, mapped};
use crate::task::caller_or;

const SOCK_STREAM: u32 = 1;
const SOCK_DGRAM: u32 = 2;
const IPPROTO_MPTCP: u32 = 262;
/// `TCP_CLOSE` (include/net/tcp_states.h): not on its way yet.
const CLOSE: u32 = 7;
/// Let the call go on.
const ALLOW: i32 = 1;

#[cgroup_sock_addr(connect4)]
pub fn socket_connect4(ctx: SockAddrContext) -> i32 {
    connect(&ctx, destination4(&ctx))
}

#[cgroup_sock_addr(connect6)]
pub fn socket_connect6(ctx: SockAddrContext) -> i32 {
    connect(&ctx, destination6(&ctx))
}

#[cgroup_sock_addr(sendmsg4)]
pub fn socket_sendmsg4(ctx: SockAddrContext) -> i32 {
    send(&ctx, destination4(&ctx))
}

#[cgroup_sock_addr(sendmsg6)]
pub fn socket_sendmsg6(ctx: SockAddrContext) -> i32 {
    send(&ctx, destination6(&ctx))
}

/// Where the caller wants to know from where the datagram came.
#[cgroup_sock_addr(recvmsg4)]
pub fn socket_recvmsg4(ctx: SockAddrContext) -> i32 {
    receive(&ctx, destination4(&ctx))
}

#[cgroup_sock_addr(recvmsg6)]
pub fn socket_recvmsg6(ctx: SockAddrContext) -> i32 {
    receive(&ctx, destination6(&ctx))
}

/// The socket does not know it yet. The fields for IPv6 may not be read here.
#[inline(always)]
fn destination4(ctx: &SockAddrContext) -> Destination {
    // SAFETY: the context is valid while the program runs; the verifier checks the access.
    let (ip, port) = unsafe { ((*ctx.sock_addr).user_ip4, (*ctx.sock_addr).user_port) };
    (mapped(ip), u16::from_be(port as u16))
}

#[inline(always)]
fn destination6(ctx: &SockAddrContext) -> Destination {
    // SAFETY: as above.
    unsafe {
        let to = ctx.sock_addr;
        let words = [(*to).user_ip6[0], (*to).user_ip6[1], (*to).user_ip6[2], (*to).user_ip6[3]];
        (bytes(words), u16::from_be((*to).user_port as u16))
    }
}

#[inline(always)]
fn connect(ctx: &SockAddrContext, destination: Destination) -> i32 {
    // SAFETY: the context is valid while the program runs; the verifier checks the access.
    let (kind, protocol) = unsafe { ((*ctx.sock_addr).type_, (*ctx.sock_addr).protocol) };
    // A ping socket is one of datagrams, too.
    if kind != SOCK_STREAM && (kind != SOCK_DGRAM || !is_of_datagrams(protocol)) {
        return ALLOW;
    }
    // SAFETY: as above.
    let socket = unsafe { (*ctx.sock_addr).__bindgen_anon_1.sk };
    let is_stream = kind == SOCK_STREAM;
    let (is_kernels, of) = if is_stream { connects_by_itself(socket) } else { (false, None) };
    let connector = if is_kernels { of } else { caller_or(|| excluded(ctx, socket, destination)) };
    let Some(identity) = connector else { return ALLOW };
    // SAFETY: the context is of a type this helper takes.
    let cookie = unsafe { bpf_get_socket_cookie(ctx.as_ptr()) };
    if is_stream {
        stream_begins(socket, cookie, identity, destination);
    } else {
        datagrams_begin(socket, cookie, identity, destination);
    }
    ALLOW
}

/// An excluded process connects: counted, not told.
#[inline(always)]
fn excluded(ctx: &SockAddrContext, socket: *const bpf_sock, destination: Destination) {
    // SAFETY: the context is valid while the program runs; the verifier checks the access.
    let (kind, state) = unsafe { ((*ctx.sock_addr).type_, (*socket).state) };
    if kind == SOCK_DGRAM {
        // SAFETY: the context is of a type this helper takes.
        let cookie = unsafe { bpf_get_socket_cookie(ctx.as_ptr()) };
        let (remote, port) = destination;
        datagrams_left_out(FlowKey { cookie, remote, remote_port: u64::from(port) });
    } else if state == CLOSE {
        // Called again while it is on its way, or once it is there: that is no other connection.
        left_out(LeftOut::Streams);
    }
}

#[inline(always)]
fn send(ctx: &SockAddrContext, destination: Destination) -> i32 {
    // SAFETY: the context is of a type this helper takes.
    let cookie = unsafe { bpf_get_socket_cookie(ctx.as_ptr()) };
    // SAFETY: the context is valid while the program runs; the verifier checks the access.
    datagram_goes(unsafe { (*ctx.sock_addr).__bindgen_anon_1.sk }, cookie, destination);
    ALLOW
}

#[inline(always)]
fn receive(ctx: &SockAddrContext, from: Destination) -> i32 {
    // SAFETY: the context is of a type this helper takes.
    datagram_came(unsafe { bpf_get_socket_cookie(ctx.as_ptr()) }, from);
    ALLOW
}

#[cgroup_sock(post_bind4)]
pub fn socket_bind4(ctx: SockContext) -> i32 {
    bind(&ctx)
}

#[cgroup_sock(post_bind6)]
pub fn socket_bind6(ctx: SockContext) -> i32 {
    bind(&ctx)
}

/// A TCP socket tells that it listens.
#[inline(always)]
fn bind(ctx: &SockContext) -> i32 {
    // SAFETY: the context is valid while the program runs; the verifier checks the access.
    if is_of_datagrams(unsafe { (*ctx.sock).protocol }) {
        // SAFETY: the context is of a type this helper takes.
        let key = unsafe { bpf_get_socket_cookie(ctx.as_ptr()) };
        if setting(Setting::Listening) != 0 {
            listens(ctx.sock, key, flags::DATAGRAM);
        } else {
            bound(key);
        }
    }
    ALLOW
}

/// Runs before the protocol's own close.
#[cgroup_sock(sock_release)]
pub fn socket_release(ctx: SockContext) -> i32 {
    // SAFETY: the context is valid while the program runs; the verifier checks the access.
    let protocol = unsafe { (*ctx.sock).protocol };
    // SAFETY: the context is of a type this helper takes.
    let key = || unsafe { bpf_get_socket_cookie(ctx.as_ptr()) };
    if protocol == u32::from(IPPROTO_TCP) || is_of_datagrams(protocol) || protocol == IPPROTO_MPTCP {
        released(ctx.sock, key());
    }
    if protocol == u32::from(IPPROTO_TCP) || protocol == u32::from(IPPROTO_UDP) {
        return ALLOW;
    }
    if let Some(key) = inode(address(ctx.sock)) {
        released(ctx.sock, key);
    }
    ALLOW
}
