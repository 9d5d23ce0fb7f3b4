//! From records to socket changes. Each record is complete in itself, so a connection of which any one arrives is seen.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use rano_common::{SocketKind, SocketRecord, flags};
use rustc_hash::FxHashMap;

use super::processes::identity;
use crate::event::{Address, Bytes, Moment, OwnerQuality, Protocol, SocketState};
use crate::source::{Closed, Opened, Role, SocketChange, SocketId};

/// TCP states in which the other side has sent its FIN, which `bytes_received` counts (`include/net/tcp_states.h`).
const AFTER_FIN: [u8; 5] = [6, 7, 8, 9, 11];
const SYN_SENT: u8 = 2;
const FIN_WAIT2: u8 = 5;
/// Open flows of datagrams that are kept, so that their end can be told.
const FLOWS_MAX: usize = 1 << 14;

/// What must be remembered from record to record: the flows of each datagram socket.
#[derive(Default)]
pub struct Sockets {
    flows: FxHashMap<u64, Vec<SocketId>>,
    flow_count: usize,
    /// Flows whose end will not be told, because too many are open.
    pub flows_full: u64,
}

impl Sockets {
    /// What a record tells.
    pub fn changes(
        &mut self,
        kind: SocketKind,
        record: &SocketRecord,
        at: Moment,
        out: &mut Vec<SocketChange>,
    ) {
        if record.flags & flags::DATAGRAM != 0 {
            return self.datagram(kind, record, at, out);
        }
        let id = SocketId::Cookie { netns: record.netns, cookie: record.cookie };
        let preexisting = record.flags & flags::PREEXISTING != 0;
        match kind {
            SocketKind::Attempt | SocketKind::Datagram => {
                out.push(opened(id, Protocol::Tcp, Some(SocketState::Connecting), record, at));
            }
            SocketKind::Established => {
                // Ignored if the attempt was told.
                out.push(opened(id, Protocol::Tcp, Some(SocketState::Established), record, at));
                out.push(SocketChange::State { id, state: SocketState::Established, at });
            }
            SocketKind::Closed => {
                let established = record.established_ns != 0 || record.state_before != SYN_SENT;
                let state = if established { SocketState::Established } else { SocketState::Connecting };
                out.push(opened(id, Protocol::Tcp, Some(state), record, at));
                out.push(closed(id, record, established.then(|| bytes(record)), Some(established), at));
            }
            SocketKind::Released if preexisting => {
                out.push(closed(id, record, Some(bytes(record)), Some(true), at));
            }
            // No route: it never got as far as a SYN, and the socket does not keep the error.
            SocketKind::Released => {
                out.push(opened(id, Protocol::Tcp, Some(SocketState::Connecting), record, at));
                out.push(closed(id, record, None, Some(false), at));
            }
        }
    }

    fn datagram(&mut self, kind: SocketKind, record: &SocketRecord, at: Moment, out: &mut Vec<SocketChange>) {
        let ends = |id| closed(id, record, None, None, at);
        match kind {
            SocketKind::Attempt | SocketKind::Datagram => {
                let Some(remote) = remote(record) else { return };
                let id = SocketId::Flow { netns: record.netns, cookie: record.cookie, remote };
                let flows = self.flows.entry(record.cookie).or_default();
                if flows.contains(&id) {
                    return;
                }
                if kind == SocketKind::Attempt {
                    // Connected elsewhere.
                    self.flow_count -= flows.len();
                    out.extend(flows.drain(..).map(ends));
                }
                if self.flow_count < FLOWS_MAX {
                    self.flow_count += 1;
                    flows.push(id);
                } else {
                    self.flows_full += 1;
                }
                out.push(opened(id, Protocol::Udp, None, record, at));
            }
            SocketKind::Released => {
                let flows = self.flows.remove(&record.cookie).unwrap_or_default();
                self.flow_count -= flows.len();
                out.extend(flows.into_iter().map(ends));
                if record.flags & flags::PREEXISTING != 0 {
                    out.push(ends(SocketId::Cookie { netns: record.netns, cookie: record.cookie }));
                }
            }
            SocketKind::Established | SocketKind::Closed => {}
        }
    }
}

fn opened(
    id: SocketId,
    protocol: Protocol,
    state: Option<SocketState>,
    record: &SocketRecord,
    at: Moment,
) -> SocketChange {
    let remote = remote(record);
    SocketChange::Opened(Opened {
        id,
        role: Role::Connect,
        protocol,
        // A datagram socket gets its port only when the call goes on.
        local: address(record, &record.local, record.local_port)
            .filter(|local| local.port() != 0)
            .map(Address::ip),
        remote: remote.map(Address::ip),
        state,
        owner: Some(identity(record.pid, record.owner_start_ns)),
        quality: OwnerQuality::Exact,
        preexisting: false,
        at,
        netns: record.netns,
        peer_pid: None,
    })
}

fn closed(
    id: SocketId,
    record: &SocketRecord,
    bytes: Option<Bytes>,
    established: Option<bool>,
    at: Moment,
) -> SocketChange {
    let error = i32::try_from(record.error).ok().filter(|error| *error != 0);
    let since = record.header.at_ns.saturating_sub(record.established_ns);
    SocketChange::Closed(Closed {
        id,
        at,
        bytes,
        error,
        established,
        duration: (record.established_ns != 0).then(|| Duration::from_nanos(since)),
    })
}

fn bytes(record: &SocketRecord) -> Bytes {
    let fin = AFTER_FIN.contains(&record.state_before) || record.state_before == FIN_WAIT2;
    let received = record.bytes_received.saturating_sub(u64::from(fin && record.error == 0));
    Bytes { sent: record.bytes_sent, received }
}

fn remote(record: &SocketRecord) -> Option<SocketAddr> {
    address(record, &record.remote, record.remote_port)
}

fn address(record: &SocketRecord, bytes: &[u8; 16], port: u16) -> Option<SocketAddr> {
    let ip = match i32::from(record.family) {
        libc::AF_INET => IpAddr::V4(Ipv4Addr::new(bytes[0], bytes[1], bytes[2], bytes[3])),
        libc::AF_INET6 => IpAddr::V6(Ipv6Addr::from(*bytes)).to_canonical(),
        _ => return None,
    };
    Some(SocketAddr::new(ip, port))
}

#[cfg(test)]
pub(super) mod tests {
    use rano_common::Header;

    use super::*;

    pub(in crate::source::ebpf) fn record(kind: SocketKind, flags: u32) -> SocketRecord {
        let mut local = [0; 16];
        local[..4].copy_from_slice(&[127, 0, 0, 1]);
        SocketRecord {
            header: Header { kind: kind as u32, size: 120, at_ns: 9_000_000 },
            cookie: 7,
            owner_start_ns: 50_000_000,
            established_ns: 0,
            bytes_sent: 10,
            bytes_received: 21,
            pid: 42,
            exec_id: 1,
            flags,
            netns: 4,
            error: 0,
            local_port: 40_000,
            remote_port: 443,
            family: 2,
            protocol: 6,
            state_before: 0,
            padding: 0,
            local,
            remote: local,
        }
    }

    fn changes(sockets: &mut Sockets, kind: SocketKind, record: &SocketRecord) -> Vec<SocketChange> {
        let mut out = Vec::new();
        sockets.changes(kind, record, Moment { boot_ns: 9_000_000, unix_ms: 9 }, &mut out);
        out
    }

    fn last_closed(changes: &[SocketChange]) -> &Closed {
        match changes.last() {
            Some(SocketChange::Closed(closed)) => closed,
            other => panic!("no end: {other:?}"),
        }
    }

    #[test]
    fn an_end_alone_is_a_whole_connection() {
        let last_ack = 9;
        let record = SocketRecord {
            established_ns: 4_000_000,
            state_before: last_ack,
            ..record(SocketKind::Closed, flags::ATTEMPTED)
        };
        let changes = changes(&mut Sockets::default(), SocketKind::Closed, &record);
        let SocketChange::Opened(opened) = &changes[0] else { panic!("{changes:?}") };
        assert_eq!(opened.owner, Some(crate::process::ProcessId { pid: 42, start_time: 5 }));
        assert_eq!(opened.state, Some(SocketState::Established));
        let closed = last_closed(&changes);
        assert_eq!(
            closed.bytes,
            Some(Bytes { sent: 10, received: 20 }),
            "the other side's FIN is no payload"
        );
        assert_eq!((closed.established, closed.duration), (Some(true), Some(Duration::from_millis(5))));
    }

    #[test]
    fn an_attempt_that_was_answered_with_a_reset_has_its_reason_and_no_bytes() {
        let refused = SocketRecord { error: 111, state_before: SYN_SENT, ..record(SocketKind::Closed, 0) };
        let changes = changes(&mut Sockets::default(), SocketKind::Closed, &refused);
        let closed = last_closed(&changes);
        assert_eq!((closed.error, closed.established, closed.bytes), (Some(111), Some(false), None));
    }

    #[test]
    fn datagrams_to_two_ends_are_two_flows_that_end_with_the_socket() {
        let mut sockets = Sockets::default();
        let first = record(SocketKind::Datagram, flags::DATAGRAM);
        let second = SocketRecord { remote_port: 53, ..first };
        assert_eq!(changes(&mut sockets, SocketKind::Datagram, &first).len(), 1);
        assert_eq!(changes(&mut sockets, SocketKind::Datagram, &first), [], "known");
        assert_eq!(changes(&mut sockets, SocketKind::Datagram, &second).len(), 1);
        assert_eq!(changes(&mut sockets, SocketKind::Released, &first).len(), 2);
        assert_eq!((sockets.flows.len(), sockets.flow_count), (0, 0));
    }

    #[test]
    fn a_datagram_socket_connected_elsewhere_ends_its_flows() {
        let mut sockets = Sockets::default();
        let first = record(SocketKind::Attempt, flags::DATAGRAM);
        changes(&mut sockets, SocketKind::Attempt, &first);
        let again = changes(&mut sockets, SocketKind::Attempt, &SocketRecord { remote_port: 53, ..first });
        assert!(matches!(&again[..], [SocketChange::Closed(_), SocketChange::Opened(_)]), "{again:?}");
    }
}
