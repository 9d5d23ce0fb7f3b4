//! The words of every format: kinds of events, addresses, states, classes, and how surely something is known.

use std::net::{IpAddr, SocketAddr, SocketAddrV6};
use std::sync::Arc;

use serde::{Deserialize, Serialize};

/// What happened to a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum EventKind {
    /// Established; on a polling source first seen; for UDP the first datagram or a connected socket.
    Connect,
    /// A connection that had a `Connect` ended.
    Close,
    /// An attempt that never was established.
    Fail,
    /// The serving end of a connection.
    Accept,
    /// A listening TCP or bound UDP socket.
    Listen,
}

impl EventKind {
    /// Each of them.
    pub const ALL: [Self; 5] = [Self::Connect, Self::Close, Self::Fail, Self::Accept, Self::Listen];

    /// The word used in every format.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Connect => "connect",
            Self::Close => "close",
            Self::Fail => "fail",
            Self::Accept => "accept",
            Self::Listen => "listen",
        }
    }
}

/// What is to tell of connections.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[non_exhaustive]
pub enum Source {
    /// The best that works here; [`Snapshot::source_reason`](crate::Snapshot::source_reason) says why it is not a
    /// better one.
    #[default]
    Auto,
    /// Programs in the kernel, or an error. It takes root's rights.
    Ebpf,
    /// The calls of a command that rano runs, or an error. It takes no rights.
    Seccomp,
    /// Looks at the kernel's tables and at `/proc`, which takes no rights.
    Proc,
}

impl Source {
    /// What a user calls each of them.
    pub(crate) const WORDS: [(Self, &str); 4] =
        [(Self::Auto, "auto"), (Self::Ebpf, "ebpf"), (Self::Seccomp, "seccomp"), (Self::Proc, "proc")];
}

const ICMP: u8 = 1;
const ICMPV6: u8 = 58;
/// `IPPROTO_RAW`: the sender writes the headers.
const RAW: u8 = 255;

/// Each number that fits a byte, as text.
const DECIMALS: [&str; 256] = decimals();

const fn decimals() -> [&'static str; 256] {
    const TEN: &[u8; 10] = b"0123456789";
    /// Three digits each.
    const DIGITS: [u8; 768] = {
        let mut digits = [0; 768];
        let mut number = 0;
        while number < 256 {
            digits[number * 3] = TEN[number / 100];
            digits[number * 3 + 1] = TEN[number / 10 % 10];
            digits[number * 3 + 2] = TEN[number % 10];
            number += 1;
        }
        digits
    };
    let mut texts = [""; 256];
    let mut number = 0;
    while number < 256 {
        let width = if number < 10 {
            1
        } else if number < 100 {
            2
        } else {
            3
        };
        let (_, from) = DIGITS.split_at(number * 3 + 3 - width);
        let (text, _) = from.split_at(width);
        texts[number] = match std::str::from_utf8(text) {
            Ok(text) => text,
            Err(_) => "",
        };
        number += 1;
    }
    texts
}

/// Transport of a socket.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Protocol {
    /// Streams over IP.
    Tcp,
    /// Datagrams over IP.
    Udp,
    /// Sockets of this host alone.
    Unix,
    /// Packets of IP of that protocol (`/etc/protocols`), by raw and ping sockets.
    Ip(u8),
    /// UDP with partial checksums.
    UdpLite,
    /// Streams of messages over IP.
    Sctp,
    /// Datagrams over IP with congestion control.
    Dccp,
    /// Frames of a device.
    Packet,
    /// Between a virtual machine and its host.
    Vsock,
    /// Within a cluster.
    Tipc,
    /// Reliable datagrams.
    Rds,
    /// Frames of a device, past the kernel's own network layers.
    Xdp,
}

impl Protocol {
    /// Each of them; of those of IP the ones that have a word.
    pub const ALL: [Self; 13] = [
        Self::Tcp,
        Self::Udp,
        Self::Unix,
        Self::Ip(ICMP),
        Self::Ip(RAW),
        Self::UdpLite,
        Self::Sctp,
        Self::Dccp,
        Self::Packet,
        Self::Vsock,
        Self::Tipc,
        Self::Rds,
        Self::Xdp,
    ];

    /// Neither TCP, nor UDP, nor a unix socket.
    pub const fn is_other(self) -> bool {
        !matches!(self, Self::Tcp | Self::Udp | Self::Unix)
    }

    /// Whether its ends have ports.
    pub const fn has_ports(self) -> bool {
        !matches!(self, Self::Ip(_))
    }

    /// The word used in every format; a protocol of IP that has none goes by its number.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
            Self::Unix => "unix",
            Self::Ip(ICMP | ICMPV6) => "icmp",
            Self::Ip(0 | RAW) => "raw",
            Self::Ip(number) => DECIMALS[number as usize],
            Self::UdpLite => "udplite",
            Self::Sctp => "sctp",
            Self::Dccp => "dccp",
            Self::Packet => "packet",
            Self::Vsock => "vsock",
            Self::Tipc => "tipc",
            Self::Rds => "rds",
            Self::Xdp => "xdp",
        }
    }
}

/// What part a socket plays.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// It reached out.
    Connect,
    /// It came from a listener.
    Accept,
    /// It waits for others.
    Listen,
}

/// One end of a socket.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Address {
    /// An IPv4 or IPv6 end. IPv4-mapped IPv6 is stored as IPv4 (see [`Address::ip`]).
    Ip(SocketAddr),
    /// An end of a transport without ports.
    Host(IpAddr),
    /// A unix socket's path; abstract names start with `@`. Raw: escape before showing.
    Path(Arc<str>),
}

impl Address {
    /// An IP end; `::ffff:a.b.c.d` becomes `a.b.c.d`, because that is what a person would call it. A link-local one
    /// keeps its zone: the same address on another link is another end.
    pub fn ip(address: SocketAddr) -> Self {
        match address {
            SocketAddr::V6(v6) if v6.ip().is_unicast_link_local() => {
                Self::Ip(SocketAddrV6::new(*v6.ip(), v6.port(), 0, v6.scope_id()).into())
            }
            _ => Self::Ip(SocketAddr::new(address.ip().to_canonical(), address.port())),
        }
    }

    /// The address, if it is an IP end.
    pub fn ip_addr(&self) -> Option<IpAddr> {
        match self {
            Self::Ip(address) => Some(address.ip()),
            Self::Host(ip) => Some(*ip),
            Self::Path(_) => None,
        }
    }

    /// The interface of a link-local IP end, by its number in the connection's network namespace; else 0.
    pub fn zone(&self) -> u32 {
        match self {
            Self::Ip(SocketAddr::V6(address)) => address.scope_id(),
            Self::Ip(SocketAddr::V4(_)) | Self::Host(_) | Self::Path(_) => 0,
        }
    }

    /// The IP address as records carry it, with its zone; `None` of another end.
    pub fn host(&self) -> Option<String> {
        Some(host_text(self.ip_addr()?, self.zone()))
    }
}

/// An IP address as records carry it: without a port, with its zone (`fe80::1%2`) unless that is 0.
pub fn host_text(ip: IpAddr, zone: u32) -> String {
    let ip = ip.to_string();
    if zone == 0 { ip } else { ip + "%" + &zone.to_string() }
}

/// A host or name with its port: `1.2.3.4:443`, `[::1]:443`, `name:443`.
pub fn with_port(host: &str, port: Option<impl std::fmt::Display>) -> String {
    match port {
        Some(port) if host.contains(':') => format!("[{host}]:{port}"),
        Some(port) => format!("{host}:{port}"),
        None => host.to_owned(),
    }
}

/// Payload bytes of a connection, without retransmissions and control segments.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Bytes {
    /// By this end.
    pub sent: u64,
    /// From the other end.
    pub received: u64,
}

/// How surely the owner of a socket is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OwnerQuality {
    /// Taken where the call ran in the process's own context.
    Exact,
    /// The socket came over fork, from a listener, or in a message.
    Inherited,
    /// Found in the process's descriptors some time after.
    Polled,
    /// Nobody could be named.
    Unattributed,
}

impl OwnerQuality {
    /// Each of them.
    pub const ALL: [Self; 4] = [Self::Exact, Self::Inherited, Self::Polled, Self::Unattributed];

    /// The word used in every format.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Exact => "exact",
            Self::Inherited => "inherited",
            Self::Polled => "polled",
            Self::Unattributed => "unattributed",
        }
    }
}

/// The capture rung that tells of a socket.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SourceKind {
    /// Programs in the kernel at its functions' entries and exits.
    EbpfFentry,
    /// Programs in the kernel at probes.
    EbpfKprobe,
    /// Programs in the kernel at tracepoints and cgroup hooks alone.
    EbpfTracepoint,
    /// The calls of a command that rano runs, each before the kernel acts on it.
    Seccomp,
    /// Looks at the kernel's tables and `/proc`.
    #[default]
    Proc,
}

impl SourceKind {
    /// Each of them.
    pub const ALL: [Self; 5] =
        [Self::EbpfFentry, Self::EbpfKprobe, Self::EbpfTracepoint, Self::Seccomp, Self::Proc];

    /// The word used in every format.
    pub const fn name(self) -> &'static str {
        match self {
            Self::EbpfFentry => "ebpf-fentry",
            Self::EbpfKprobe => "ebpf-kprobe",
            Self::EbpfTracepoint => "ebpf-tracepoint",
            Self::Seccomp => "seccomp",
            Self::Proc => "proc",
        }
    }
}

/// A TCP state as people are shown it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SocketState {
    /// The other end has not answered yet.
    Connecting,
    /// Both ends may send.
    Established,
    /// The other end has closed.
    CloseWait,
    /// Closed; late packets are waited for.
    TimeWait,
    /// It is over.
    Closed,
}

impl SocketState {
    /// Each of them.
    pub const ALL: [Self; 5] =
        [Self::Connecting, Self::Established, Self::CloseWait, Self::TimeWait, Self::Closed];

    /// The word used in every format.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Connecting => "connecting",
            Self::Established => "established",
            Self::CloseWait => "close_wait",
            Self::TimeWait => "time_wait",
            Self::Closed => "closed",
        }
    }
}

/// How a name became known, strongest first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DomainSource {
    /// The connection asked for it in its TLS greeting.
    Sni,
    /// The same in its QUIC greeting.
    Quic,
    /// The connection asked a proxy for it.
    Proxy,
    /// Its process looked it up.
    Dns,
    /// Its process asked for it, and rano asked the same.
    Asked,
    /// It is an address of the only endpoint, of those that its agent is known to use, that has it.
    Known,
    /// The outer name of an encrypted greeting: whoever serves the real one.
    EchOuter,
    /// Another process looked it up.
    SharedDns,
    /// A reverse look-up of the address.
    Ptr,
}

impl DomainSource {
    /// Each of them.
    pub const ALL: [Self; 9] = [
        Self::Sni,
        Self::Quic,
        Self::Proxy,
        Self::Dns,
        Self::Asked,
        Self::Known,
        Self::EchOuter,
        Self::SharedDns,
        Self::Ptr,
    ];

    /// Nobody said it of this connection: it is a guess, by the address alone.
    pub const fn is_guess(self) -> bool {
        matches!(self, Self::Known | Self::Ptr)
    }

    /// The word used in every format.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Sni => "sni",
            Self::Quic => "quic",
            Self::Proxy => "proxy",
            Self::Dns => "dns",
            Self::Asked => "asked",
            Self::Known => "known",
            Self::EchOuter => "ech_outer",
            Self::SharedDns => "shared_dns",
            Self::Ptr => "ptr",
        }
    }
}

/// A name and how it became known.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KnownName {
    /// Lower case, as a rule; from outside, so escape it before it is shown.
    pub name: Arc<str>,
    /// How it is known.
    pub by: DomainSource,
}

impl KnownName {
    /// As people see it: `~name` for one that is known by the address alone (of a reverse look-up, or of an endpoint
    /// that the agent is known to use), which is no more than a guess at what was asked for.
    pub fn shown(&self) -> Arc<str> {
        match self.by {
            DomainSource::Known | DomainSource::Ptr => format!("~{}", self.name).into(),
            DomainSource::Sni
            | DomainSource::Quic
            | DomainSource::Proxy
            | DomainSource::Dns
            | DomainSource::Asked
            | DomainSource::EchOuter
            | DomainSource::SharedDns => Arc::clone(&self.name),
        }
    }
}

/// What the remote end is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub enum Class {
    /// Models.
    LlmApi,
    /// Where code is kept.
    CodeHost,
    /// Packages.
    Registry,
    /// Reports on use and errors.
    Telemetry,
    /// This machine.
    Localhost,
    /// A private network.
    Private,
    /// A unix socket.
    Ipc,
    /// Look-ups.
    Dns,
    /// None of these, as far as is known.
    #[default]
    Unknown,
}

impl Class {
    /// Each of them.
    pub const ALL: [Self; 9] = [
        Self::LlmApi,
        Self::CodeHost,
        Self::Registry,
        Self::Telemetry,
        Self::Localhost,
        Self::Private,
        Self::Ipc,
        Self::Dns,
        Self::Unknown,
    ];

    /// The word used in every format.
    pub const fn name(self) -> &'static str {
        match self {
            Self::LlmApi => "llm_api",
            Self::CodeHost => "code_host",
            Self::Registry => "registry",
            Self::Telemetry => "telemetry",
            Self::Localhost => "localhost",
            Self::Private => "private",
            Self::Ipc => "ipc",
            Self::Dns => "dns",
            Self::Unknown => "unknown",
        }
    }

    /// The class a person means by a word; `github` is another word for `code_host`.
    pub fn parse(word: &str) -> Option<Self> {
        let word = if word == "github" { Self::CodeHost.name() } else { word };
        Self::ALL.into_iter().find(|class| class.name() == word)
    }
}

/// Number of a connection within one run of rano: its connect and its close carry the same one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ConnectionId(pub u64);
