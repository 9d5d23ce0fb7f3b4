//! Functions of the kernel's TCP and UDP, by fentry and fexit (trampolines, from Linux 5.5 on) or by kprobe and
//! kretprobe: the same body under each. They add what the hooks of cgroups lack: what a call returned, who accepts,
//! datagrams' bytes. A firing that comes while another program of the kind runs on the same CPU is skipped, a kretprobe
//! also when its slots are used up: that costs a fact, the connection is told by others. Without hooks of cgroups they
//! tell of everything.

use aya_ebpf::bindings::BPF_ANY;
use aya_ebpf::macros::{fentry, fexit, kprobe, kretprobe};
use aya_ebpf::programs::{FEntryContext, FExitContext, ProbeContext, RetProbeContext};
use rano_common::{LeftOut, Loss, Offset, Setting};

use crate::datagrams::{datagram_goes, received, sent, sent_by};
use crate::follow::{attempted, connect_failed, connect_returned, has_owner, owned, released, remember};
use crate::listen::accepted;
use crate::maps::{CALLS, left_out, lost, setting};
use crate::socket::{AF_INET6, Destination, Given, destination, mapped};
use crate::task::{caller, caller_or, may_be_watched, read, read_at, thread};

/// Programs on the entry of a function: the body takes the socket, which is the first argument, and those that are
/// named.
macro_rules! entries {
    ($($body:ident($($argument:expr),*): $fentry:ident, $kprobe:ident;)+) => {$(
        #[fentry]
        pub fn $fentry(ctx: FEntryContext) -> i32 {
            $body(Given::Typed(ctx.arg(0)) $(, ctx.arg($argument))*);
            0
        }

        #[kprobe]
        pub fn $kprobe(ctx: ProbeContext) -> u32 {
            $body(Given::Address(ctx.arg(0).unwrap_or(0)) $(, ctx.arg($argument).unwrap_or(0))*);
            0
        }
    )+};
}

entries! {
    connects(): fentry_tcp_connect, kprobe_tcp_connect;
    closes(): fentry_tcp_close, kprobe_tcp_close;
    closes(): fentry_udp_destroy4, kprobe_udp_destroy4;
    closes(): fentry_udp_destroy6, kprobe_udp_destroy6;
    sends4(1): fentry_udp_send4, kprobe_udp_send4;
    sends6(1): fentry_udp_send6, kprobe_udp_send6;
    consumes(2): fentry_udp_consume, kprobe_udp_consume;
    accepted(): fentry_tcp_accept, kprobe_tcp_accept;
}

/// `void skb_consume_udp(struct sock *sk, struct sk_buff *skb, int len)`, at the end of a call that receives, of both
/// families. A negative length was only looked at (`MSG_PEEK`). The calls themselves wait, and would keep a kretprobe's
/// slots all the while.
#[inline(always)]
fn consumes(sk: Given, length: usize) {
    received(sk, length as i32, 0);
}

/// `int tcp_connect(struct sock *sk)`: addresses are known, the SYN is not sent yet.
#[inline(always)]
fn connects(sk: Given) {
    let Some(key) = sk.key() else { return };
    if attempted(sk.address() as *const u8, key) || setting(Setting::Alone) == 0 {
        return;
    }
    let Some(identity) = caller() else { return };
    remember(key, owned(identity, 0, destination(sk.address())));
    let _ = attempted(sk.address() as *const u8, key);
}

/// `void tcp_close(struct sock *sk, long timeout)`, for listeners and what never connected too, and of inherited
/// sockets not in the opener's process. `void udp_destroy_sock(struct sock *sk)` and its sister for IPv6 are the same
/// for datagrams.
#[inline(always)]
fn closes(sk: Given) {
    if let Some(key) = sk.key() {
        released(sk.address() as *const u8, key);
    }
}

#[inline(always)]
fn is_six(sk: Given) -> bool {
    sk.get::<u16>(Offset::SockFamily) == Some(AF_INET6)
}

/// `int udp_sendmsg(struct sock *sk, struct msghdr *msg, size_t len)`. Of an IPv6 socket it is called by the next.
#[inline(always)]
fn sends4(sk: Given, message: usize) {
    if !is_six(sk) {
        sends6(sk, message);
    }
}

/// `int udpv6_sendmsg(struct sock *sk, struct msghdr *msg, size_t len)`
#[inline(always)]
fn sends6(sk: Given, message: usize) {
    if setting(Setting::Alone) == 0 {
        return;
    }
    let name: usize = read(message, Offset::MessageName).unwrap_or(0);
    let to = if name == 0 { Some(destination(sk.address())) } else { named(name) };
    if let (Some(key), Some(to)) = (sk.key(), to) {
        datagram_goes(sk.address() as *const u8, key, to);
    }
}

/// `struct sockaddr_in` or `struct sockaddr_in6`, in kernel memory.
#[inline(always)]
fn named(address: usize) -> Option<Destination> {
    let family: u16 = read_at(address)?;
    let port: u16 = read_at(address + 2)?;
    let ip = if family == AF_INET6 { read_at(address + 8)? } else { mapped(read_at(address + 4)?) };
    Some((ip, u16::from_be(port)))
}

/// Programs on the return of a function: the body takes the socket, the second argument and what was returned; where
/// the call was not remembered, the other one only the latter.
macro_rules! exits {
    ($($body:ident or $other:ident($count:expr, $family:expr): $fexit:ident, $entry:ident, $kretprobe:ident;)+) => {$(
        #[fexit]
        pub fn $fexit(ctx: FExitContext) -> i32 {
            // `FExitContext::ret` takes Linux 5.17; what is returned lies behind the arguments.
            let returned: u64 = ctx.arg($count);
            $body(Given::Typed(ctx.arg(0)), ctx.arg(1), returned as i32);
            0
        }

        #[kprobe]
        pub fn $entry(ctx: ProbeContext) -> u32 {
            if let (Some(sk), Some(second)) = (ctx.arg(0), ctx.arg(1)) {
                enter(Given::Address(sk), second, $family);
            }
            0
        }

        #[kretprobe]
        pub fn $kretprobe(ctx: RetProbeContext) -> u32 {
            match leave($family) {
                Left::With(sk, second) => $body(sk, second, ctx.ret()),
                Left::Unknown => $other(ctx.ret()),
                Left::Nested => {}
            }
            0
        }
    )+};
}

exits! {
    connected4 or unknown(3, Family::Four): fexit_tcp_connect4, enter_tcp_connect4, leave_tcp_connect4;
    connected6 or unknown(3, Family::Any): fexit_tcp_connect6, enter_tcp_connect6, leave_tcp_connect6;
    tied or unknown(3, Family::Four): fexit_udp_connect4, enter_udp_connect4, leave_udp_connect4;
    tied or unknown(3, Family::Any): fexit_udp_connect6, enter_udp_connect6, leave_udp_connect6;
    sent4 or sent_first(3, Family::Four): fexit_udp_send4, enter_udp_send4, leave_udp_send4;
    sent6 or sent_first(3, Family::Any): fexit_udp_send6, enter_udp_send6, leave_udp_send6;
}

/// Whose calls a function takes.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Family {
    Any,
    /// Of IPv4 sockets. Those of the others came by way of their own function, which is still to return.
    Four,
}

impl Family {
    #[inline(always)]
    fn takes(self, sk: Given) -> bool {
        matches!(self, Self::Any) || !is_six(sk)
    }
}

/// Remembers a call until it returns, if its socket is followed.
#[inline(always)]
fn enter(sk: Given, second: usize, family: Family) {
    // What a thread sends first makes its socket followed on the way, and may give it its cookie.
    if (sk.key().is_some_and(has_owner) || may_be_watched() || setting(Setting::Alone) != 0)
        && family.takes(sk)
        && CALLS.insert(thread(), [sk.address() as u64, second as u64], BPF_ANY as u64).is_err()
    {
        lost(Loss::CallsFull);
    }
}

/// What is remembered of the call that returns.
enum Left {
    /// The socket and the second argument.
    With(Given, usize),
    /// The function that called this one is still to return.
    Nested,
    Unknown,
}

#[inline(always)]
fn leave(family: Family) -> Left {
    let thread = thread();
    // SAFETY: nobody else looks for this thread's entry.
    let Some([sk, second]) = unsafe { CALLS.get(thread) }.copied() else { return Left::Unknown };
    let sk = Given::Address(sk as usize);
    if !family.takes(sk) {
        return Left::Nested;
    }
    let _ = CALLS.remove(thread);
    Left::With(sk, second as usize)
}

/// `int tcp_v4_connect(struct sock *sk, struct sockaddr *uaddr, int addr_len)`. Of an IPv6 socket it is called by the
/// next.
#[inline(always)]
fn connected4(sk: Given, address: usize, returned: i32) {
    if !is_six(sk) {
        connected6(sk, address, returned);
    }
}

/// `int tcp_v6_connect(struct sock *sk, struct sockaddr *uaddr, int addr_len)`
#[inline(always)]
fn connected6(sk: Given, address: usize, returned: i32) {
    let Some(key) = sk.key() else { return };
    if connect_returned(sk, key, returned) || setting(Setting::Alone) == 0 || returned >= 0 {
        return;
    }
    // It did not get as far as a state, of which another hook would have told.
    let identity = caller_or(|| left_out(LeftOut::Streams));
    let (Some(identity), Some(to)) = (identity, named(address)) else { return };
    connect_failed(sk, key, owned(identity, 0, to), returned);
}

/// `int ip4_datagram_connect(struct sock *sk, struct sockaddr *uaddr, int addr_len)` and its sister for IPv6.
#[inline(always)]
fn tied(sk: Given, _: usize, returned: i32) {
    if let Some(key) = sk.key() {
        let _ = connect_returned(sk, key, returned);
    }
}

/// The first datagram of a socket that was not followed yet.
#[inline(always)]
fn sent_first(returned: i32) {
    sent_by(thread(), returned);
}

/// Of a socket that is not followed.
#[inline(always)]
fn unknown(_: i32) {}

#[inline(always)]
fn sent4(sk: Given, _: usize, returned: i32) {
    if !is_six(sk) {
        sent(sk, returned);
    }
}

#[inline(always)]
fn sent6(sk: Given, _: usize, returned: i32) {
    sent(sk, returned);
}

/// `struct sock *inet_csk_accept(struct sock *sk, struct proto_accept_arg *arg)`, where `void
/// security_sock_graft(struct sock *sk, struct socket *parent)` is not to be had: a call that waits since before it was
/// hooked is not seen to return.
#[fexit]
pub fn fexit_tcp_accept_of2(ctx: FExitContext) -> i32 {
    accepted(Given::Address(ctx.arg(2)));
    0
}

/// `struct sock *inet_csk_accept(struct sock *sk, int flags, int *err, bool kern)`, up to Linux 6.9.
#[fexit]
pub fn fexit_tcp_accept_of4(ctx: FExitContext) -> i32 {
    accepted(Given::Address(ctx.arg(4)));
    0
}
