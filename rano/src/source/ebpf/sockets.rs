//! From records to socket changes. Each record is complete in itself, so a connection of which any one arrives is seen.

use std::collections::VecDeque;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6};
use std::ops::RangeInclusive;
use std::time::Duration;

use rano_common::{FlowBytes, FlowKey, Owner, SocketKind, SocketRecord, flags};
use rustc_hash::FxHashMap;

use super::processes::identity;
use crate::event::{Address, Bytes, Moment, OwnerQuality, Protocol, SocketState, SourceKind};
use crate::process::ProcessId;
use crate::source::{Closed, Opened, Role, SocketChange, SocketId};

/// `include/net/tcp_states.h`
const SYN_SENT: u8 = 2;
/// Open flows of datagrams that are kept, so that their end can be told.
const FLOWS_MAX: usize = 1 << 14;
/// Those of one socket: anybody may have it answer.
const FLOWS_OF_ONE: usize = FLOWS_MAX / 4;
/// Where datagrams are not seen, a connected socket is told before it has its local end; so long that is waited for.
const HOLD_NS: u64 = 50_000_000;

/// From where came what came from nobody knows where.
const NOWHERE: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), 0);

/// What must be remembered from record to record: the flows of each datagram socket.
pub struct Sockets {
    flows: FxHashMap<u64, Vec<Flow>>,
    flow_count: usize,
    /// Connected datagram sockets of which the local end is awaited, with the time until when; in order.
    held: VecDeque<(u64, Opened)>,
    /// The first record of sockets beyond IP, of whose end none tells.
    beyond_ip: FxHashMap<u64, SocketRecord>,
    /// Whether the kernel programs count the bytes of datagrams.
    counts_datagrams: bool,
    /// The rung that tells.
    source: SourceKind,
    /// Ports that the kernel gives by itself.
    ephemeral: RangeInclusive<u16>,
    /// Flows whose end will not be told, because too many are open.
    pub flows_full: u64,
    /// Flows that the kernel programs had forgotten, so that their bytes are not known.
    pub flows_forgotten: u64,
}

#[derive(Clone, Copy, PartialEq, Eq)]
struct Flow {
    id: SocketId,
    is_connected: bool,
    /// Of another kind than UDP's: all of its bytes are those of its flows.
    is_other: bool,
    protocol: Protocol,
    /// Told again: what was counted before is gone.
    is_forgotten: bool,
}

/// What a socket's own counters say: sent, received, and of the latter what came from nobody knows whom.
#[derive(Clone, Copy)]
struct OfSocket {
    bytes: FlowBytes,
    nameless: u64,
    has_nameless: bool,
    is_only_flow: bool,
}

impl OfSocket {
    fn new(flows: &[Flow], bytes: FlowBytes) -> Self {
        let is_connected = flows.iter().any(|flow| flow.is_connected);
        Self {
            bytes,
            nameless: if is_connected { 0 } else { bytes[1] },
            has_nameless: flows.iter().any(|flow| is_nameless(flow.id)),
            is_only_flow: flows.len() == 1,
        }
    }

    /// What one of its flows amounts to; `of_flow` has what is counted for it alone.
    fn share(&self, flow: &Flow, of_flow: TakeFlow<'_>) -> Option<FlowBytes> {
        if flow.is_connected {
            return Some(self.bytes);
        }
        let counted = if is_nameless(flow.id) && !flow.is_other {
            Some([0; 2])
        } else {
            key(flow.id).and_then(of_flow)
        };
        // Came from nobody knows whom: that is only clear where there is but one.
        let has_rest = if self.has_nameless { is_nameless(flow.id) } else { self.is_only_flow };
        counted.map(|[sent, received]| [sent, received + if has_rest { self.nameless } else { 0 }])
    }
}

/// Fetches what a flow amounted to.
pub type TakeFlow<'a> = &'a mut dyn FnMut(FlowKey) -> Option<FlowBytes>;

impl Sockets {
    pub fn new(source: SourceKind, counts_datagrams: bool, ephemeral: RangeInclusive<u16>) -> Self {
        Self {
            flows: FxHashMap::default(),
            flow_count: 0,
            held: VecDeque::new(),
            beyond_ip: FxHashMap::default(),
            counts_datagrams,
            source,
            ephemeral,
            flows_full: 0,
            flows_forgotten: 0,
        }
    }

    /// What a record tells.
    pub fn changes(
        &mut self,
        kind: SocketKind,
        record: &SocketRecord,
        at: Moment,
        take: TakeFlow<'_>,
        out: &mut Vec<SocketChange>,
    ) {
        if record.flags & flags::DATAGRAM != 0 {
            return self.datagram(kind, record, at, take, out);
        }
        let id = SocketId::Cookie { netns: record.netns, cookie: record.cookie };
        let source = self.source;
        let open = |state| opened(id, Protocol::Tcp, state, record, at, source);
        match kind {
            SocketKind::Attempt if record.flags & flags::UNFOLLOWED != 0 => {
                out.push(attempted(open(Some(SocketState::Connecting))));
            }
            SocketKind::Attempt | SocketKind::Datagram => out.push(open(Some(SocketState::Connecting))),
            SocketKind::Established => {
                // Ignored if the attempt was told.
                out.push(open(Some(SocketState::Established)));
                out.push(SocketChange::State { id, state: SocketState::Established, at });
            }
            SocketKind::Closed => {
                let established = record.established_ns != 0 || record.state_before != SYN_SENT;
                let state = if established { SocketState::Established } else { SocketState::Connecting };
                out.push(open(Some(state)));
                out.push(closed(id, record, established.then(|| bytes(record)), Some(established), at));
            }
            SocketKind::Released
                if record.flags & (flags::PREEXISTING | flags::LISTENER | flags::ADOPTED) != 0 =>
            {
                out.push(closed(id, record, Some(bytes(record)), Some(true), at));
            }
            SocketKind::Released if record.flags & flags::ACCEPTED != 0 => {
                out.push(open(Some(SocketState::Established)));
                out.push(closed(id, record, Some(bytes(record)), Some(true), at));
            }
            // It never got as far as a SYN, and the socket does not keep the error.
            SocketKind::Failed | SocketKind::Released => {
                out.push(open(Some(SocketState::Connecting)));
                out.push(closed(id, record, None, Some(false), at));
            }
            SocketKind::Accepted => out.push(open(Some(SocketState::Established))),
            SocketKind::Listening => out.push(open(None)),
            SocketKind::Bound => {}
        }
    }

    fn datagram(
        &mut self,
        kind: SocketKind,
        record: &SocketRecord,
        at: Moment,
        take: TakeFlow<'_>,
        out: &mut Vec<SocketChange>,
    ) {
        let itself = SocketId::Cookie { netns: record.netns, cookie: record.cookie };
        let is_other = record.flags & flags::OTHER != 0;
        let protocol = protocol(record);
        let remote = remote(record).or(is_other.then_some(NOWHERE));
        let flow = remote.map(|remote| SocketId::Flow { netns: record.netns, cookie: record.cookie, remote });
        match kind {
            SocketKind::Attempt | SocketKind::Datagram if record.flags & flags::UNFOLLOWED != 0 => {
                let Some(id) = flow else { return };
                out.push(attempted(opened(id, protocol, None, record, at, self.source)));
            }
            SocketKind::Attempt | SocketKind::Datagram => {
                let Some(id) = flow else { return };
                let is_connected = kind == SocketKind::Attempt;
                if is_connected && (record.flags & flags::TALKED == 0 || record.remote_port == 0) {
                    // It was connected elsewhere before, or not at all; its first datagram is still to come.
                    return self.end(record, at, take, out);
                }
                let known = self.flows.get_mut(&record.cookie).and_then(|known| {
                    known.iter_mut().find(|known| known.id == id && known.is_connected == is_connected)
                });
                if let Some(known) = known {
                    known.is_forgotten |= !is_connected;
                    return;
                }
                if is_other && !is_of_ip(record) {
                    self.beyond_ip.entry(record.cookie).or_insert(*record);
                }
                let flow = Flow { id, is_connected, is_other, protocol, is_forgotten: false };
                self.begin(flow, record, at, take, out);
            }
            SocketKind::Bound => {
                let Some(id) = flow else { return };
                if !self.knows(id) {
                    let flow = Flow { id, is_connected: true, is_other, protocol, is_forgotten: false };
                    self.begin(flow, record, at, take, out);
                } else if let Some(local) = local(record)
                    && !self.release_held(id, Some(&local), out)
                {
                    out.push(SocketChange::Local { id, local, at });
                }
            }
            SocketKind::Failed => {
                let Some(id) = flow else { return };
                if let Some(place) = self.held.iter().position(|(_, held)| held.id == id)
                    && let Some((_, held)) = self.held.remove(place)
                {
                    let state = Some(SocketState::Connecting);
                    out.push(SocketChange::Opened(Opened { state, ..held }));
                }
                self.forget(record.cookie, id);
                out.push(closed(id, record, None, Some(false), at));
            }
            SocketKind::Released => {
                if let Some(id) = flow.filter(|id| is_unheard(record) && !self.knows(*id)) {
                    // Nothing is known of its beginning.
                    out.push(opened(id, protocol, None, record, at, self.source));
                    out.push(SocketChange::Gone { id, at });
                }
                self.end(record, at, take, out);
                if record.flags & (flags::PREEXISTING | flags::LISTENER) != 0 {
                    out.push(closed(itself, record, None, None, at));
                }
            }
            SocketKind::Listening if !self.was_bound_by_kernel(record) => {
                out.push(opened(itself, protocol, None, record, at, self.source));
            }
            SocketKind::Listening | SocketKind::Established | SocketKind::Closed | SocketKind::Accepted => {}
        }
    }

    fn begin(
        &mut self,
        flow: Flow,
        record: &SocketRecord,
        at: Moment,
        take: TakeFlow<'_>,
        out: &mut Vec<SocketChange>,
    ) {
        if flow.is_connected {
            // It was connected elsewhere before, or not at all.
            self.end(record, at, take, out);
        }
        let of_socket = self.flows.get(&record.cookie).map_or(0, Vec::len);
        if self.flow_count < FLOWS_MAX && of_socket < FLOWS_OF_ONE {
            self.flow_count += 1;
            self.flows.entry(record.cookie).or_default().push(flow);
        } else {
            self.flows_full += 1;
        }
        match opened(flow.id, flow.protocol, None, record, at, self.source) {
            SocketChange::Opened(opened) if flow.is_connected && !is_whole(opened.local.as_ref()) => {
                self.held.push_back((record.header.at_ns.saturating_add(HOLD_NS), opened));
            }
            change => out.push(change),
        }
    }

    /// Ends the flows of a socket.
    fn end(&mut self, record: &SocketRecord, at: Moment, take: TakeFlow<'_>, out: &mut Vec<SocketChange>) {
        let flows = self.flows.remove(&record.cookie).unwrap_or_default();
        self.flow_count -= flows.len();
        let is_connected = flows.iter().any(|flow| flow.is_connected);
        let of_socket = OfSocket::new(&flows, [record.bytes_sent, record.bytes_received]);
        let OfSocket { nameless, has_nameless, .. } = of_socket;
        let is_released = record.header.kind == SocketKind::Released as u32;
        let local = local(record).filter(|local| is_connected && is_released && is_whole(Some(local)));
        for flow in &flows {
            let counted = of_socket.share(flow, take);
            let is_forgotten = flow.is_forgotten || counted.is_none() && self.counts_datagrams;
            self.flows_forgotten += u64::from(is_forgotten);
            let known = self.counts_datagrams && !is_forgotten;
            let bytes = counted.filter(|_| known).map(|[sent, received]| Bytes { sent, received });
            if !self.release_held(flow.id, local.as_ref(), out)
                && let Some(local) = local.clone().filter(|_| flow.is_connected)
            {
                out.push(SocketChange::Local { id: flow.id, local, at });
            }
            out.push(closed(flow.id, record, bytes, None, at));
        }
        if nameless > 0 && flows.len() > 1 && !has_nameless {
            let id = SocketId::Flow { netns: record.netns, cookie: record.cookie, remote: NOWHERE };
            out.push(opened(id, Protocol::Udp, None, record, at, self.source));
            let bytes = Bytes { sent: 0, received: nameless };
            out.push(closed(id, record, Some(bytes), None, at));
        }
    }

    /// What each open flow has come to so far; `owner` and `flow` look into the kernel's tables.
    pub fn so_far(
        &self,
        owner: impl Fn(u64) -> Option<Owner>,
        flow: impl Fn(FlowKey) -> Option<FlowBytes>,
        mut tell: impl FnMut(SocketId, Bytes),
    ) {
        if !self.counts_datagrams {
            return;
        }
        for (cookie, flows) in &self.flows {
            let Some(Owner { sent, received, .. }) = owner(*cookie) else { continue };
            let of_socket = OfSocket::new(flows, [sent, received]);
            for open in flows.iter().filter(|open| !open.is_forgotten) {
                if let Some([sent, received]) = of_socket.share(open, &mut |key| flow(key)) {
                    tell(open.id, Bytes { sent, received });
                }
            }
        }
    }

    /// Sockets of whose end no record tells, with their processes.
    pub fn beyond_ip(&self) -> Vec<(u64, u32)> {
        self.beyond_ip.iter().map(|(cookie, record)| (*cookie, record.pid)).collect()
    }

    /// One of them is gone.
    pub fn end_beyond_ip(
        &mut self,
        cookie: u64,
        at: Moment,
        take: TakeFlow<'_>,
        out: &mut Vec<SocketChange>,
    ) {
        if let Some(record) = self.beyond_ip.remove(&cookie) {
            self.end(&record, at, take, out);
        }
    }

    /// The open flows that are kept.
    pub fn flows(&self) -> impl Iterator<Item = SocketId> + '_ {
        self.flows.values().flatten().map(|flow| flow.id)
    }

    /// Whether the end of a flow will be told with that of its socket.
    pub fn knows(&self, id: SocketId) -> bool {
        self.flow(id).is_some()
    }

    /// Whether a flow is that of a connected socket.
    pub fn is_connected(&self, id: SocketId) -> bool {
        self.flow(id).is_some_and(|flow| flow.is_connected)
    }

    fn flow(&self, id: SocketId) -> Option<&Flow> {
        let SocketId::Flow { cookie, .. } = id else { return None };
        self.flows.get(&cookie)?.iter().find(|flow| flow.id == id)
    }

    /// A flow ended unseen.
    pub fn gone(&mut self, id: SocketId, take: TakeFlow<'_>, out: &mut Vec<SocketChange>) {
        let Some(key) = key(id) else { return };
        self.release_held(id, None, out);
        self.forget(key.cookie, id);
        // What is left of it there is not all of it.
        let _ = take(key);
    }

    fn forget(&mut self, cookie: u64, id: SocketId) {
        if let Some(flows) = self.flows.get_mut(&cookie) {
            let before = flows.len();
            flows.retain(|flow| flow.id != id);
            self.flow_count -= before - flows.len();
            if flows.is_empty() {
                self.flows.remove(&cookie);
            }
        }
    }

    /// Passes on what is held back. Whether it was.
    fn release_held(&mut self, id: SocketId, local: Option<&Address>, out: &mut Vec<SocketChange>) -> bool {
        let Some(place) = self.held.iter().position(|(_, held)| held.id == id) else { return false };
        if let Some((_, mut held)) = self.held.remove(place) {
            held.local = local.cloned().or(held.local);
            out.push(SocketChange::Opened(held));
        }
        true
    }

    /// Passes on what was held back until `now`, and what is of a process that is about to change.
    pub fn release(&mut self, now_ns: u64, of: Option<ProcessId>, out: &mut Vec<SocketChange>) {
        while self.held.front().is_some_and(|(until, _)| *until <= now_ns)
            && let Some((_, opened)) = self.held.pop_front()
        {
            out.push(SocketChange::Opened(opened));
        }
        let is_of = |(_, held): &(u64, Opened)| of.is_some() && held.owner == of;
        // Mostly there is none, and this is asked with every record of a process.
        if self.held.iter().any(is_of) {
            let (due, held): (VecDeque<_>, _) = std::mem::take(&mut self.held).into_iter().partition(is_of);
            self.held = held;
            out.extend(due.into_iter().map(|(_, opened)| SocketChange::Opened(opened)));
        }
    }

    /// Until when something is held back.
    pub fn next_due(&self) -> Option<u64> {
        self.held.front().map(|(until, _)| *until)
    }

    /// An unbound socket that sends gets the wildcard address and a port of the ephemeral range (`inet_autobind()`).
    fn was_bound_by_kernel(&self, record: &SocketRecord) -> bool {
        record.local == [0; 16] && self.ephemeral.contains(&record.local_port)
    }
}

/// The inode of a socket of another kind than TCP's and UDP's, by its key.
pub fn inode(key: u64) -> u64 {
    key & !(1 << 63)
}

fn is_of_ip(record: &SocketRecord) -> bool {
    matches!(i32::from(record.family), libc::AF_INET | libc::AF_INET6)
}

/// What a record of datagrams and the like is of.
fn protocol(record: &SocketRecord) -> Protocol {
    if record.flags & flags::OTHER == 0 {
        let is_lite = i32::from(record.protocol) == libc::IPPROTO_UDPLITE;
        return if is_lite { Protocol::UdpLite } else { Protocol::Udp };
    }
    match i32::from(record.family) {
        libc::AF_PACKET => Protocol::Packet,
        libc::AF_RDS => Protocol::Rds,
        libc::AF_TIPC => Protocol::Tipc,
        libc::AF_VSOCK => Protocol::Vsock,
        libc::AF_XDP => Protocol::Xdp,
        _ => match i32::from(record.protocol) {
            libc::IPPROTO_SCTP => Protocol::Sctp,
            libc::IPPROTO_DCCP => Protocol::Dccp,
            libc::IPPROTO_UDPLITE => Protocol::UdpLite,
            _ => Protocol::Ip(record.protocol),
        },
    }
}

/// Whether a flow is what came from nobody knows where.
fn is_nameless(flow: SocketId) -> bool {
    matches!(flow, SocketId::Flow { remote, .. } if remote.port() == 0 && remote.ip().is_unspecified())
}

/// The last record of a socket is the first that arrived.
fn is_unheard(record: &SocketRecord) -> bool {
    record.flags & (flags::HEARD | flags::PREEXISTING | flags::LISTENER) == 0
}

/// Whether nothing that was told before is of the same connection: what is shown as open under that number was another
/// one, whose end was lost. The same socket connected again; or sockets are known by their address, which another one
/// has by now.
pub fn is_first(record: &SocketRecord) -> bool {
    record.flags & (flags::HEARD | flags::PREEXISTING | flags::LISTENER | flags::DATAGRAM) == 0
}

/// Whether a local end is more than a port.
fn is_whole(local: Option<&Address>) -> bool {
    local.and_then(Address::ip_addr).is_some_and(|ip| !ip.is_unspecified())
}

/// Where a socket's connect went.
pub fn destination(owner: &Owner) -> SocketAddr {
    SocketAddr::new(IpAddr::V6(Ipv6Addr::from(owner.remote_bytes())).to_canonical(), owner.remote_port)
}

/// Under which the kernel programs count a flow.
fn key(flow: SocketId) -> Option<FlowKey> {
    let SocketId::Flow { cookie, remote, .. } = flow else { return None };
    let ip = match remote.ip() {
        IpAddr::V4(ip) => ip.to_ipv6_mapped(),
        IpAddr::V6(ip) => ip,
    };
    Some(FlowKey { cookie, remote: ip.octets(), remote_port: u64::from(remote.port()) })
}

fn opened(
    id: SocketId,
    protocol: Protocol,
    state: Option<SocketState>,
    record: &SocketRecord,
    at: Moment,
    source: SourceKind,
) -> SocketChange {
    let is_listener = matches!(id, SocketId::Cookie { .. }) && record.flags & flags::LISTENER != 0;
    let role = match (is_listener, record.flags & flags::ACCEPTED != 0) {
        (true, _) => Role::Listen,
        (false, true) => Role::Accept,
        (false, false) => Role::Connect,
    };
    let inherited = record.flags & flags::INHERITED != 0;
    SocketChange::Opened(Opened {
        id,
        role,
        protocol,
        local: local(record).filter(|_| protocol.has_ports()),
        remote: remote(record).filter(|_| role != Role::Listen && !is_nameless(id)).map(|remote| {
            if protocol.has_ports() { zoned(remote, record) } else { Address::Host(remote.ip()) }
        }),
        state,
        owner: Some(identity(record.pid, record.owner_start_ns)),
        quality: if inherited { OwnerQuality::Inherited } else { OwnerQuality::Exact },
        preexisting: false,
        at,
        netns: record.netns,
        peer_pid: None,
        source,
    })
}

/// Nothing more is told of it.
fn attempted(opened: SocketChange) -> SocketChange {
    match opened {
        SocketChange::Opened(opened) => SocketChange::Attempted(opened),
        other => other,
    }
}

/// A datagram socket gets its port only when the call goes on.
pub fn local(record: &SocketRecord) -> Option<Address> {
    let local = address(record, &record.local, record.local_port).filter(|local| local.port() != 0);
    local.map(|local| zoned(local, record))
}

/// A link-local end is one on the interface that it binds the socket to. Without that a socket is known by its address
/// alone, as packets show it.
fn zoned(end: SocketAddr, record: &SocketRecord) -> Address {
    Address::ip(match end {
        SocketAddr::V6(six) => SocketAddrV6::new(*six.ip(), six.port(), 0, record.interface).into(),
        SocketAddr::V4(_) => end,
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
    let fin = record.flags & flags::FIN != 0;
    let received = record.bytes_received.saturating_sub(u64::from(fin));
    Bytes { sent: record.bytes_sent, received }
}

pub fn remote(record: &SocketRecord) -> Option<SocketAddr> {
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
pub(super) mod tests;
