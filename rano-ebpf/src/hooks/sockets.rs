//! In the caller's own context: who connects, who sends to where, and the end of a socket's last descriptor.
//! Cgroup hooks, from Linux 5.9 on (`sock_release`); never skipped.

use aya_ebpf::EbpfContext as _;
use aya_ebpf::bindings::BPF_ANY;
use aya_ebpf::helpers::generated::bpf_get_socket_cookie;
use aya_ebpf::macros::{cgroup_sock, cgroup_sock_addr};
use aya_ebpf::programs::{SockAddrContext, SockContext};
use rano_common::{FlowKey, Loss, Owner, ProcessKind, SocketKind, Verdict, flags};

use crate::maps::{FLOWS, JUDGEMENTS, OWNERS, lost};
use crate::socket::{IPPROTO_TCP, IPPROTO_UDP, Told, tell};
use crate::task::{Identity, current, tell_image};

const SOCK_STREAM: u32 = 1;
const SOCK_DGRAM: u32 = 2;
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
    datagram(&ctx, destination4(&ctx))
}

#[cgroup_sock_addr(sendmsg6)]
pub fn socket_sendmsg6(ctx: SockAddrContext) -> i32 {
    datagram(&ctx, destination6(&ctx))
}

/// Where to, as the caller says it: address and port. The socket does not know yet.
type Destination = ([u8; 16], u16);

/// The fields for IPv6 may not be read here.
#[inline(always)]
fn destination4(ctx: &SockAddrContext) -> Destination {
    // SAFETY: the context is valid while the program runs; the verifier checks the access.
    let (ip, port) = unsafe { ((*ctx.sock_addr).user_ip4, (*ctx.sock_addr).user_port) };
    let ip = ip.to_ne_bytes();
    let mut remote = [0; 16];
    remote[0] = ip[0];
    remote[1] = ip[1];
    remote[2] = ip[2];
    remote[3] = ip[3];
    (remote, u16::from_be(port as u16))
}

#[inline(always)]
fn destination6(ctx: &SockAddrContext) -> Destination {
    // SAFETY: as above; both shapes of an address are sixteen bytes, of which any are valid.
    unsafe {
        let to = ctx.sock_addr;
        let words = [(*to).user_ip6[0], (*to).user_ip6[1], (*to).user_ip6[2], (*to).user_ip6[3]];
        (core::mem::transmute::<[u32; 4], [u8; 16]>(words), u16::from_be((*to).user_port as u16))
    }
}

/// Who the caller is, unless it is ignored. A process that was never judged is told of first.
#[inline(always)]
fn caller() -> Option<Identity> {
    let task = current();
    let Some(identity) = Identity::of(task) else {
        lost(Loss::TaskUnread);
        return None;
    };
    match identity.verdict() {
        Some(Verdict::Ignored) => return None,
        Some(Verdict::Tracked | Verdict::Asked) => {}
        None => {
            // Before the record, so that the answer to it comes later.
            identity.judge(Verdict::Asked);
            if !tell_image(task, identity, ProcessKind::Sight, 0) {
                // To be told of with its next socket.
                let _ = JUDGEMENTS.remove(identity.pid);
            }
        }
    }
    Some(identity)
}

#[inline(always)]
fn owned(identity: Identity, flags: u32, (remote, remote_port): Destination) -> Owner {
    Owner {
        start_ns: identity.start_ns,
        established_ns: 0,
        pid: identity.pid,
        exec_id: identity.exec_id,
        flags,
        // SAFETY: both are sixteen bytes, of which any are valid.
        remote: unsafe { core::mem::transmute::<[u8; 16], [u64; 2]>(remote) },
        remote_port,
    }
}

#[inline(always)]
fn remember(cookie: u64, owner: Owner) {
    if OWNERS.insert(cookie, owner.to_words(), BPF_ANY as u64).is_err() {
        lost(Loss::OwnersFull);
    }
}

#[inline(always)]
fn connect(ctx: &SockAddrContext, destination: Destination) -> i32 {
    // SAFETY: the context is valid while the program runs; the verifier checks the access.
    let kind = unsafe { (*ctx.sock_addr).type_ };
    if kind != SOCK_STREAM && kind != SOCK_DGRAM {
        return ALLOW;
    }
    let Some(identity) = caller() else { return ALLOW };
    // SAFETY: the context is of a type this helper takes.
    let cookie = unsafe { bpf_get_socket_cookie(ctx.as_ptr()) };
    if kind == SOCK_STREAM {
        remember(cookie, owned(identity, 0, destination));
        return ALLOW;
    }
    flow(ctx, SocketKind::Attempt, cookie, owned(identity, flags::DATAGRAM, destination), destination);
    ALLOW
}

#[inline(always)]
fn datagram(ctx: &SockAddrContext, (remote, remote_port): Destination) -> i32 {
    // SAFETY: the context is of a type this helper takes.
    let cookie = unsafe { bpf_get_socket_cookie(ctx.as_ptr()) };
    let key = FlowKey { cookie, remote, remote_port: u64::from(remote_port) };
    // SAFETY: nothing but the presence is looked at.
    if unsafe { FLOWS.get(key) }.is_some() {
        return ALLOW;
    }
    let Some(identity) = caller() else { return ALLOW };
    let owner = owned(identity, flags::DATAGRAM, (remote, remote_port));
    // One that was not told is told with its next datagram.
    if flow(ctx, SocketKind::Datagram, cookie, owner, (remote, remote_port)) {
        let _ = FLOWS.insert(key, 1, BPF_ANY as u64);
    }
    ALLOW
}

/// Tells of a datagram socket's destination; whether there was room.
#[inline(always)]
fn flow(ctx: &SockAddrContext, kind: SocketKind, cookie: u64, mut owner: Owner, to: Destination) -> bool {
    // SAFETY: an entry belongs to one socket, of which one call is made after another.
    if let Some(words) = unsafe { OWNERS.get(cookie) } {
        owner.flags |= Owner::from_words(*words).flags & flags::HEARD;
    }
    let told = Told { kind, cookie, owner, protocol: IPPROTO_UDP, state_before: 0, remote: Some(to) };
    // SAFETY: the context is valid while the program runs; the verifier checks the access.
    let is_told = tell(unsafe { (*ctx.sock_addr).__bindgen_anon_1.sk }, told);
    if is_told {
        owner.flags |= flags::HEARD;
    }
    remember(cookie, owner);
    is_told
}

/// Runs before the protocol's own close: what is in `OWNERS` and was attempted will tell of its end itself.
#[cgroup_sock(sock_release)]
pub fn socket_release(ctx: SockContext) -> i32 {
    // SAFETY: the context is of a type this helper takes.
    let cookie = unsafe { bpf_get_socket_cookie(ctx.as_ptr()) };
    // SAFETY: an entry belongs to one socket, which only ends here.
    let Some(words) = (unsafe { OWNERS.get(cookie) }) else { return ALLOW };
    let owner = Owner::from_words(*words);
    if owner.flags & flags::ATTEMPTED != 0 {
        return ALLOW;
    }
    let protocol = if owner.flags & flags::DATAGRAM != 0 { IPPROTO_UDP } else { IPPROTO_TCP };
    let is_attempt = owner.flags & (flags::DATAGRAM | flags::PREEXISTING) == 0;
    // SAFETY: both are sixteen bytes, of which any are valid.
    let remote = unsafe { core::mem::transmute::<[u64; 2], [u8; 16]>(owner.remote) };
    let remote = if is_attempt { Some((remote, owner.remote_port)) } else { None };
    let told = Told { kind: SocketKind::Released, cookie, owner, protocol, state_before: 0, remote };
    let is_told = tell(ctx.sock, told);
    if !is_told && owner.flags & (flags::HEARD | flags::PREEXISTING) == 0 {
        lost(Loss::Unheard);
    }
    let _ = OWNERS.remove(cookie);
    ALLOW
}
