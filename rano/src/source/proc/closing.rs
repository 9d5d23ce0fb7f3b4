//! How a TCP connection went, out of the message about its end: which side it was, whether it ever was
//! established, and its payload to the byte.
//!
//! The kernel counts sequence numbers, in which a SYN or FIN takes one. Whether `bytes_received` holds the other
//! side's FIN depends on who closed first and how fast (measured on Linux 6.18, all orders of closing, in the tests):
//!
//! - They closed first: their FIN came before our end (`LAST_ACK`), it is counted, and no mini-socket remains.
//! - We closed first and their FIN came with the acknowledgement of ours, or both crossed: counted, and unread.
//! - We closed first and their acknowledgement came alone: the socket is replaced by a `FIN_WAIT2` mini-socket and
//!   destroyed before their FIN, which is not counted.
//! - We only shut down writing, and read until their FIN: counted and read, and a `TIME_WAIT` mini-socket
//!   remains, which looks like the case before once their FIN has come there. If both ends are on this
//!   host, what the other end sent decides. Else the mini-socket's age: it begins anew with their FIN, which
//!   is the last segment our socket acknowledged (then it was counted) or later (then it was not).

use std::net::SocketAddr;
use std::ops::RangeInclusive;
use std::time::Duration;

use super::destroy::{Destroyed, moment};
use super::inet::{Counters, TcpState};
use super::sock_diag::{Dumper, Info};
use crate::bounded::FastBounded;
use crate::event::{Bytes, Protocol};

/// `TCP_TIMEWAIT_LEN`: how long a mini-socket stays after the FIN came.
const TIME_WAIT: Duration = Duration::from_mins(1);
/// Both times compared are known to a tick of the kernel (10 ms at 100 Hz) each, and reading takes a while.
const TICKS: Duration = Duration::from_millis(25);
/// Ends on this host that are remembered.
const ENDS: usize = 4_096;
/// The two ends of a connection closed in order are destroyed within moments. Ports are reused after a second.
const TOGETHER: Duration = Duration::from_secs(1);

/// Which side of a connection a socket was.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    Connecting,
    Accepting,
    /// The counters fit both: mostly a connection that was reset, or UDP.
    Unknown,
}

/// A connection's payload.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Payload {
    Exact(Bytes),
    /// Reset, or not to be told apart: `received` may be one too high or low.
    Likely(Bytes),
}

impl Payload {
    pub const fn bytes(self) -> Bytes {
        match self {
            Self::Exact(bytes) | Self::Likely(bytes) => bytes,
        }
    }
}

/// Which side it was. Only the connecting side's SYN is counted as acknowledged.
pub fn side(destroyed: &Destroyed) -> Side {
    let Some((counters, _)) = connection(destroyed) else { return Side::Unknown };
    if !answered(&counters) {
        return Side::Connecting;
    }
    if counters.bytes_acked == 0 {
        return Side::Accepting;
    }
    // What was acknowledged beyond the payload: our SYN, our FIN.
    let beyond = counters.bytes_acked.checked_sub(counters.sent());
    match (beyond, destroyed.send_queue) {
        (Some(2..), _) | (Some(1), 1..) => Side::Connecting,
        (Some(0), 0) => Side::Accepting,
        // One of the two. A FIN that travelled alone was delivered beside the data (of which each
        // transmission counts, and at most each was delivered) and the handshake.
        (Some(1), 0) => match counters.delivered.wrapping_sub(counters.data_segments_out) {
            2 => Side::Accepting,
            // Without data there is nothing for a FIN to travel with: it was the SYN.
            1 if counters.data_segments_out == 0 && counters.retransmits == 0 => Side::Connecting,
            _ => Side::Unknown,
        },
        (Some(0) | None, _) => Side::Unknown,
    }
}

/// Like [`side`], and where the counters leave it open a guess: whoever connects has a port out of `ephemeral`
/// (`/proc/sys/net/ipv4/ip_local_port_range`), whoever accepts mostly has none of those.
pub fn side_by_ports(destroyed: &Destroyed, ephemeral: &RangeInclusive<u16>) -> Side {
    let told = side(destroyed);
    let Some((_, remote)) = connection(destroyed).filter(|_| told == Side::Unknown) else { return told };
    match (ephemeral.contains(&destroyed.local.port()), ephemeral.contains(&remote.port())) {
        (true, false) => Side::Connecting,
        (false, true) => Side::Accepting,
        (true, true) | (false, false) => Side::Unknown,
    }
}

/// A TCP connection that was tried, and never answered or refused; whether the caller waited for it or not.
pub fn never_established(destroyed: &Destroyed) -> bool {
    match (connection(destroyed), destroyed.counters) {
        (Some((counters, _)), _) => !answered(&counters),
        // Of what tells, disconnecting leaves the window.
        (None, Some(counters)) => destroyed.disconnected_from.is_some() && counters.send_window == 0,
        (None, None) => false,
    }
}

/// Both ends of a connection are on this host, so there will be a message about the other end too.
pub fn same_host(destroyed: &Destroyed) -> bool {
    destroyed.remote.is_some_and(|remote| remote.ip() == destroyed.local.ip() || remote.ip().is_loopback())
}

/// TCP with two ends.
fn connection(destroyed: &Destroyed) -> Option<(Counters, SocketAddr)> {
    destroyed.counters.zip(destroyed.remote).filter(|_| destroyed.protocol == Protocol::Tcp)
}

/// The other side took part in the handshake. A refusal is one segment, and offers no window.
fn answered(counters: &Counters) -> bool {
    counters.bytes_acked > 0
        || counters.bytes_received > 0
        || counters.send_window > 0
        || counters.segments_in > 1
}

/// What the ends on this host have sent, so that the other ends know what they received. Bounded: the oldest go.
#[derive(Debug)]
pub struct Ends {
    sent: FastBounded<(SocketAddr, SocketAddr), End>,
}

#[derive(Debug, Clone, Copy)]
struct End {
    sent: u64,
    boot_ns: u64,
}

impl Default for Ends {
    fn default() -> Self {
        Self { sent: FastBounded::new(ENDS) }
    }
}

impl Ends {
    /// To be called for every message before the first [`Ends::payload`]: the two ends come in either order.
    pub fn note(&mut self, destroyed: &Destroyed) {
        let Some((counters, remote)) = connection(destroyed) else { return };
        if !same_host(destroyed) {
            return;
        }
        let key = (destroyed.local, remote);
        let end = End { sent: counters.sent(), boot_ns: destroyed.at.boot_ns };
        self.sent.insert(key, end);
    }

    /// The payload of an ended TCP connection; `None` for anything else. `side` is what is known, at best from
    /// when it was open. A `Likely` of a [`same_host`] connection may become `Exact` when the other end's message
    /// has come, a few milliseconds later.
    pub fn payload(&self, destroyed: &Destroyed, side: Side, dumper: &mut Dumper) -> Option<Payload> {
        let (counters, remote) = connection(destroyed)?;
        let bytes = |received| Bytes { sent: counters.sent(), received };
        let received = counters.bytes_received;
        if received == 0 {
            return Some(Payload::Exact(bytes(0)));
        }
        if let Some(sent) = self.sent_to(destroyed, remote)
            && received.wrapping_sub(sent) <= 1
        {
            return Some(Payload::Exact(bytes(sent)));
        }
        let syn = u64::from(side != Side::Accepting);
        let acked_beyond = counters.bytes_acked.saturating_sub(counters.sent());
        let closed_in_order = destroyed.send_queue == 0 && acked_beyond == syn + 1;
        let perhaps_in_order = side == Side::Unknown && acked_beyond == 1;
        if !closed_in_order && !perhaps_in_order {
            return Some(Payload::Likely(bytes(received)));
        }
        let fin = their_fin(destroyed, remote, &counters, dumper);
        Some(match fin {
            Fin::Counted if closed_in_order => Payload::Exact(bytes(received - 1)),
            Fin::NotCounted if closed_in_order => Payload::Exact(bytes(received)),
            Fin::Counted | Fin::MaybeCounted => Payload::Likely(bytes(received - 1)),
            Fin::NotCounted => Payload::Likely(bytes(received)),
        })
    }

    fn sent_to(&self, destroyed: &Destroyed, remote: SocketAddr) -> Option<u64> {
        let end = self.sent.get(&(remote, destroyed.local))?;
        let apart = Duration::from_nanos(end.boot_ns.abs_diff(destroyed.at.boot_ns));
        (apart <= TOGETHER).then_some(end.sent)
    }
}

/// Whether their FIN is among the bytes received.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fin {
    Counted,
    NotCounted,
    MaybeCounted,
}

/// The rule for a connection whose own FIN was acknowledged.
fn their_fin(destroyed: &Destroyed, remote: SocketAddr, counters: &Counters, dumper: &mut Dumper) -> Fin {
    if destroyed.receive_queue == 1 {
        return Fin::Counted;
    }
    let Ok(remains) = dumper.find_tcp(destroyed.local, remote, destroyed.interface, Info::Without) else {
        return Fin::MaybeCounted;
    };
    let looked_at = moment();
    match remains {
        // Unread payload and no mini-socket: our own close reset the connection.
        None if destroyed.receive_queue > 1 => Fin::NotCounted,
        None => Fin::Counted,
        Some(_) if destroyed.receive_queue > 1 => Fin::Counted,
        Some(mini) if mini.state == TcpState::FinWait2 => Fin::NotCounted,
        Some(mini) if mini.state == TcpState::TimeWait => {
            let age = TIME_WAIT.saturating_sub(Duration::from_millis(mini.expires_ms.into()));
            let since_ended = looked_at.since(destroyed.at);
            let since_acknowledged =
                since_ended + Duration::from_millis(counters.last_ack_received_ms.into());
            if age + TICKS < since_acknowledged { Fin::NotCounted } else { Fin::MaybeCounted }
        }
        // A new connection has the same addresses already.
        Some(_) => Fin::MaybeCounted,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_ends_that_are_remembered_are_bounded_and_the_oldest_go() {
        let mut ends = Ends::default();
        let end = |port: u16| Destroyed {
            cookie: 0,
            protocol: Protocol::Tcp,
            local: SocketAddr::from(([127, 0, 0, 1], port)),
            remote: Some(SocketAddr::from(([127, 0, 0, 1], 80))),
            disconnected_from: None,
            interface: 0,
            receive_queue: 0,
            send_queue: 0,
            counters: Some(Counters { bytes_sent: u64::from(port), ..Counters::default() }),
            at: crate::event::Moment::default(),
        };
        for port in 1..=10_000 {
            ends.note(&end(port));
            ends.note(&end(port));
        }
        assert_eq!(ends.sent.len(), ENDS);
        let other = |port| Destroyed {
            local: SocketAddr::from(([127, 0, 0, 1], 80)),
            remote: Some(SocketAddr::from(([127, 0, 0, 1], port))),
            ..end(80)
        };
        assert_eq!(ends.sent_to(&other(10_000), other(10_000).remote.expect("given")), Some(10_000));
        assert_eq!(ends.sent_to(&other(1), other(1).remote.expect("given")), None);
    }
}
