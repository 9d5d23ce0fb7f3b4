//! What becomes of a TCP connection where there are no hooks of cgroups: the raw tracepoint `inet_sock_set_state`, from
//! Linux 4.16 on. The first change runs in the caller's context, later ones anywhere. It skips a firing that comes
//! while another program of the kind runs on the same CPU.

use aya_ebpf::macros::raw_tracepoint;
use aya_ebpf::programs::RawTracePointContext;
use rano_common::{LeftOut, Offset, Setting};

use crate::follow::{begin, closed, established, released};
use crate::listen::{arrived, listens};
use crate::maps::{left_out, setting};
use crate::multipath::connects_by_itself;
use crate::socket::{Given, IPPROTO_TCP, destination};
use crate::task::{caller_or, read};

/// include/net/tcp_states.h
const ESTABLISHED: i32 = 1;
const SYN_SENT: i32 = 2;
const SYN_RECEIVED: i32 = 3;
const CLOSE: i32 = 7;
const LISTEN: i32 = 10;

/// `inet_sock_set_state(const struct sock *sk, const int oldstate, const int newstate)`
#[raw_tracepoint(tracepoint = "inet_sock_set_state")]
pub fn tcp_states(ctx: RawTracePointContext) -> i32 {
    let (sk, before, now): (u64, i32, i32) = (ctx.arg(0), ctx.arg(1), ctx.arg(2));
    let sk = sk as usize;
    if read::<u16>(sk, Offset::SockProtocol) != Some(u16::from(IPPROTO_TCP)) {
        return 0;
    }
    let Some(key) = Given::Address(sk).key() else { return 0 };
    let socket = sk as *const u8;
    let listening = setting(Setting::Listening) != 0;
    match (before, now) {
        // The port from which it goes is chosen afterwards: the next record has it.
        (CLOSE, SYN_SENT) => {
            let (is_kernels, of) = connects_by_itself(socket);
            let connector = if is_kernels { of } else { caller_or(|| left_out(LeftOut::Streams)) };
            if let Some(identity) = connector {
                begin(socket, key, identity, destination(sk));
            }
        }
        (SYN_SENT, ESTABLISHED) => established(socket, key),
        (SYN_RECEIVED, ESTABLISHED) if listening => {
            let _ = arrived(socket, key);
        }
        (_, LISTEN) if listening => listens(socket, key, 0),
        (LISTEN, CLOSE) => released(socket, key),
        (_, CLOSE) => closed(socket, key, before as u8),
        _ => {}
    }
    0
}
