//! What the kernel says of a TCP or UDP socket: `struct inet_diag_msg` and `struct tcp_info`
//! (`include/uapi/linux/inet_diag.h`, `tcp.h`), parsed from any bytes.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6};

use super::netlink::{Attributes, u32_at, u64_at};
use crate::event::Protocol;

/// Length of `struct inet_diag_msg`.
pub const MESSAGE: usize = 72;
/// Length of `struct inet_diag_sockid`, which stands four bytes into message and request.
pub const SOCKET_ID: usize = 48;
/// `INET_DIAG_INFO`.
pub const ATTRIBUTE_INFO: u16 = 2;
/// `INET_DIAG_PROTOCOL`.
pub const ATTRIBUTE_PROTOCOL: u16 = 10;
/// The fields of `struct tcp_info` up to `tcpi_snd_wnd`, there since Linux 5.4.
const TCP_INFO: usize = 232;

/// A kernel TCP state (`include/net/tcp_states.h`). UDP and unix sockets use `Established` for connected, `Close`
/// for unconnected and `Listen`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
pub enum TcpState {
    Established = 1,
    SynSent = 2,
    SynRecv = 3,
    FinWait1 = 4,
    FinWait2 = 5,
    TimeWait = 6,
    Close = 7,
    CloseWait = 8,
    LastAck = 9,
    Listen = 10,
    Closing = 11,
    /// A connection request that has no socket yet.
    NewSynRecv = 12,
    /// Bound but neither connected nor listening; listed from Linux 6.8 on if asked for.
    BoundInactive = 13,
}

impl TcpState {
    pub const ALL: [Self; 13] = [
        Self::Established,
        Self::SynSent,
        Self::SynRecv,
        Self::FinWait1,
        Self::FinWait2,
        Self::TimeWait,
        Self::Close,
        Self::CloseWait,
        Self::LastAck,
        Self::Listen,
        Self::Closing,
        Self::NewSynRecv,
        Self::BoundInactive,
    ];
}

/// A number that is no TCP state.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct UnknownState(pub u8);

impl TryFrom<u8> for TcpState {
    type Error = UnknownState;

    fn try_from(raw: u8) -> Result<Self, UnknownState> {
        let index = usize::from(raw).checked_sub(1);
        index.and_then(|index| Self::ALL.get(index)).copied().ok_or(UnknownState(raw))
    }
}

/// A set of states, as `idiag_states` has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct States(u32);

impl States {
    /// Everything that is or was a socket of a process, listeners too; no mini-sockets of connection requests.
    /// (`FinWait2` also lists the `TIME_WAIT` mini-sockets that still wait for a FIN: their inode is 0.)
    pub const SOCKETS: Self = Self::of(&TcpState::ALL)
        .without(TcpState::TimeWait)
        .without(TcpState::NewSynRecv)
        .without(TcpState::BoundInactive);
    /// [`States::SOCKETS`] without listeners, whose table is not even walked then.
    pub const CONNECTIONS: Self = Self::SOCKETS.without(TcpState::Listen);
    pub const ALL: Self = Self::of(&TcpState::ALL);

    pub const fn of(states: &[TcpState]) -> Self {
        let (mut bits, mut index) = (0, 0);
        while index < states.len() {
            bits |= 1 << states[index] as u8;
            index += 1;
        }
        Self(bits)
    }

    #[must_use]
    pub const fn without(self, state: TcpState) -> Self {
        Self(self.0 & !(1 << state as u8))
    }

    pub const fn bits(self) -> u32 {
        self.0
    }
}

/// Counters of a TCP socket, as `struct tcp_info` has them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Counters {
    /// Payload handed to the network, retransmissions included, SYN and FIN not.
    pub bytes_sent: u64,
    pub bytes_retransmitted: u64,
    /// Sequence numbers acknowledged: the connecting side's SYN and either side's FIN count one each, the
    /// accepting side's SYN does not.
    pub bytes_acked: u64,
    /// Sequence numbers received in order: the other side's FIN counts one.
    pub bytes_received: u64,
    pub segments_out: u32,
    pub segments_in: u32,
    pub data_segments_out: u32,
    /// Segments known to have arrived: one for the handshake on either side, a FIN of its own too.
    pub delivered: u32,
    pub retransmits: u32,
    /// Milliseconds from the last acknowledgement to the making of the message.
    pub last_ack_received_ms: u32,
    /// Window that the other side last offered; 0 while it never answered.
    pub send_window: u32,
}

impl Counters {
    /// From `struct tcp_info`; `None` if it is shorter than that of Linux 5.4.
    pub fn parse(info: &[u8]) -> Option<Self> {
        let info: &[u8; TCP_INFO] = info.first_chunk()?;
        Some(Self {
            last_ack_received_ms: u32_at(info, 56)?,
            retransmits: u32_at(info, 100)?,
            bytes_acked: u64_at(info, 120)?,
            bytes_received: u64_at(info, 128)?,
            segments_out: u32_at(info, 136)?,
            segments_in: u32_at(info, 140)?,
            data_segments_out: u32_at(info, 156)?,
            delivered: u32_at(info, 192)?,
            bytes_sent: u64_at(info, 200)?,
            bytes_retransmitted: u64_at(info, 208)?,
            send_window: u32_at(info, 228)?,
        })
    }

    /// Payload that was put on the wire, each byte once.
    pub fn sent(&self) -> u64 {
        self.bytes_sent.saturating_sub(self.bytes_retransmitted)
    }
}

/// A TCP or UDP socket at one moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct InetSocket {
    pub protocol: Protocol,
    /// IPv4-mapped IPv6 is IPv4; an unbound end is `0.0.0.0:0` or `[::]:0`.
    pub local: SocketAddr,
    /// `None` where address and port are both zero: not connected, or a listener.
    pub remote: Option<SocketAddr>,
    pub state: TcpState,
    /// Interface the socket is bound to, or the scope of a link-local address; 0 is none.
    pub interface: u32,
    /// 0 where there is no descriptor any more (orphans, `TIME_WAIT`) and in destroy notifications.
    pub inode: u64,
    /// Who opened it; 0 where the inode is 0.
    pub uid: u32,
    /// `None` where it was read from text.
    pub cookie: Option<u64>,
    /// Received and not yet read by the application; a listener's pending connections. TCP: a FIN counts one.
    pub receive_queue: u32,
    /// Written and not yet acknowledged. TCP: a FIN counts one.
    pub send_queue: u32,
    /// Milliseconds until the timer of a `TIME_WAIT` mini-socket expires; else of no use here.
    pub expires_ms: u32,
    /// TCP, if they were asked for.
    pub counters: Option<Counters>,
}

impl InetSocket {
    /// From a `struct inet_diag_msg` and its attributes. `protocol` is what was asked for; an attribute that
    /// tells it wins. `None` if it is too short, of another family, protocol or of an unknown state.
    pub fn parse(body: &[u8], protocol: Option<Protocol>) -> Option<Self> {
        let (fixed, attributes) = body.split_first_chunk::<MESSAGE>()?;
        let scope = u32_at(fixed, 40)?;
        let family = fixed[0];
        let local = address(family, &fixed[8..24], &fixed[4..6], scope)?;
        let remote = address(family, &fixed[24..40], &fixed[6..8], scope)?;
        let (mut counters, mut protocol) = (None, protocol);
        for (kind, value) in Attributes::new(attributes) {
            match kind {
                ATTRIBUTE_INFO => counters = Counters::parse(value),
                ATTRIBUTE_PROTOCOL => protocol = value.first().copied().and_then(from_ip_protocol),
                _ => {}
            }
        }
        Some(Self {
            protocol: protocol?,
            local,
            remote: connected(remote),
            state: TcpState::try_from(fixed[1]).ok()?,
            interface: scope,
            inode: u64::from(u32_at(fixed, 68)?),
            uid: u32_at(fixed, 64)?,
            // The kernel writes the low half first, whatever the machine's byte order.
            cookie: Some(u64::from(u32_at(fixed, 44)?) | u64::from(u32_at(fixed, 48)?) << 32),
            receive_queue: u32_at(fixed, 56)?,
            send_queue: u32_at(fixed, 60)?,
            expires_ms: u32_at(fixed, 52)?,
            counters,
        })
    }
}

/// An end that is not `0.0.0.0:0` or `[::]:0`.
pub(super) fn connected(remote: SocketAddr) -> Option<SocketAddr> {
    (remote.port() != 0 || !remote.ip().is_unspecified()).then_some(remote)
}

/// An IPv6 address as people know it: mapped ones are IPv4, and only link-local ones carry their interface.
pub(super) fn canonical(ip: Ipv6Addr, port: u16, scope: u32) -> SocketAddr {
    match ip.to_canonical() {
        IpAddr::V4(ip) => SocketAddr::from((ip, port)),
        IpAddr::V6(ip) => {
            SocketAddrV6::new(ip, port, 0, if ip.is_unicast_link_local() { scope } else { 0 }).into()
        }
    }
}

fn address(family: u8, ip: &[u8], port: &[u8], scope: u32) -> Option<SocketAddr> {
    let port = u16::from_be_bytes(port.try_into().ok()?);
    match i32::from(family) {
        libc::AF_INET => Some(SocketAddr::from((Ipv4Addr::from(*ip.first_chunk::<4>()?), port))),
        libc::AF_INET6 => Some(canonical(Ipv6Addr::from(*ip.first_chunk::<16>()?), port, scope)),
        _ => None,
    }
}

fn from_ip_protocol(number: u8) -> Option<Protocol> {
    match i32::from(number) {
        libc::IPPROTO_TCP => Some(Protocol::Tcp),
        libc::IPPROTO_UDP => Some(Protocol::Udp),
        _ => None,
    }
}
