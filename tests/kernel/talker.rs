//! Clients of sockets other than TCP's: the test executable under an agent's name plays one, says in a line of JSON
//! what it exchanged with whom, and ends.

use std::io;
use std::mem::size_of_val;
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd};
use std::process::{Child, Command, ExitCode, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use serde::{Deserialize, Serialize};

use crate::far_sockets;
use crate::support::namespace::Place;
use crate::support::stage;
use crate::support::trial::skip;

/// Set in a client; the value says what to do.
const MARKER: &str = "RANO_TEST_TALK";
const LOCALHOST: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 0);

/// What to do with sockets.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Talk {
    /// Connects to several places and sends nothing.
    Probe,
    /// A question to any address of this host, answered.
    ToAny,
    /// A question that another port answers.
    OtherPort,
    /// Bound, and only ever receives; asks from where.
    Receive,
    /// The same, with `recv`, which does not say.
    ReceiveNameless,
    /// An IPv6 socket connected to an IPv4 address.
    Mapped,
    /// A datagram from four calls, unconnected.
    Corked,
    /// The same, connected.
    CorkedConnected,
    /// Connected to one place, then to another.
    Again,
    /// An echo request by a raw socket, answered.
    IcmpRaw,
    /// The same by a ping socket.
    Ping,
    /// A packet of OSPF.
    RawProtocol,
    /// With a header of its own.
    RawHeader,
    UdpLite,
    UdpLiteConnected,
    /// A frame to the loopback device.
    Packet,
    Sctp,
    SctpToMany,
    Dccp,
    Vsock,
    Tipc,
    Rds,
    /// A raw socket, a packet socket, a connected UDP socket and one that is connected to port 0; until its standard
    /// input ends.
    Hold,
}

/// What was exchanged with one other end: its port, bytes sent, bytes received. In any order.
pub type Exchanged = Vec<(Option<u16>, i64, i64)>;

/// Plays one, as `claude`; skips where the machine cannot do it. Its pid, and what it exchanged.
pub fn play(place: &Place, talk: Talk) -> Result<(u32, Exchanged)> {
    let mut command = Command::new(stage::actor("claude")?);
    command.env_clear().env(MARKER, serde_json::to_string(&talk)?).current_dir("/");
    place.apply(&mut command);
    let ran = command.output().with_context(|| format!("play {talk:?}"))?;
    let said = String::from_utf8_lossy(&ran.stdout).into_owned();
    let answer: Result<(u32, Exchanged), String> = serde_json::from_str(&said)
        .with_context(|| format!("{said} {}", String::from_utf8_lossy(&ran.stderr)))?;
    answer.map_err(|why| skip(format!("{talk:?}: {why}")))
}

/// Plays one that stays until its standard input is dropped.
pub fn stay(place: &Place, talk: Talk) -> Result<Child> {
    let mut command = Command::new(stage::actor("claude")?);
    command.env_clear().env(MARKER, serde_json::to_string(&talk)?).current_dir("/");
    command.stdin(Stdio::piped()).stdout(Stdio::null());
    place.apply(&mut command);
    command.spawn().with_context(|| format!("play {talk:?}"))
}

pub fn play_if_asked() -> Option<ExitCode> {
    let talk = std::env::var(MARKER).ok()?;
    let answer = serde_json::from_str(&talk)
        .context("what to do")
        .and_then(act)
        .map(|exchanged| (std::process::id(), exchanged));
    let answer = answer.map_err(|error| format!("{error:#}"));
    println!("{}", serde_json::to_string(&answer).unwrap_or_default());
    Some(ExitCode::SUCCESS)
}

fn bound() -> io::Result<UdpSocket> {
    let socket = UdpSocket::bind(LOCALHOST)?;
    socket.set_read_timeout(Some(Duration::from_secs(20)))?;
    Ok(socket)
}

fn port(socket: &UdpSocket) -> io::Result<Option<u16>> {
    Ok(Some(socket.local_addr()?.port()))
}

/// One that the kernel gives a port when it sends.
fn unbound(family: i32) -> io::Result<UdpSocket> {
    // SAFETY: the descriptor is new.
    let socket = unsafe { libc::socket(family, libc::SOCK_DGRAM | libc::SOCK_CLOEXEC, 0) };
    if socket < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: as above.
    let socket = UdpSocket::from(unsafe { OwnedFd::from_raw_fd(socket) });
    socket.set_read_timeout(Some(Duration::from_secs(20)))?;
    Ok(socket)
}

/// Sends with `MSG_MORE`, to `to` if it is not connected.
fn send_more(socket: &UdpSocket, piece: &[u8], to: Option<SocketAddr>) -> Result<()> {
    let (name, length) = match to {
        Some(SocketAddr::V4(to)) => {
            let name = libc::sockaddr_in {
                sin_family: libc::sa_family_t::try_from(libc::AF_INET)?,
                sin_port: to.port().to_be(),
                sin_addr: libc::in_addr { s_addr: u32::from(*to.ip()).to_be() },
                sin_zero: [0; 8],
            };
            (Some(name), size_of_val(&name))
        }
        Some(SocketAddr::V6(_)) => bail!("IPv4 here"),
        None => (None, 0),
    };
    let name = name.as_ref().map_or(std::ptr::null(), std::ptr::from_ref);
    // SAFETY: both pointers are to as many bytes as is said.
    let sent = unsafe {
        libc::sendto(
            socket.as_raw_fd(),
            piece.as_ptr().cast(),
            piece.len(),
            libc::MSG_MORE,
            name.cast(),
            libc::socklen_t::try_from(length)?,
        )
    };
    if sent < 0 { Err(io::Error::last_os_error().into()) } else { Ok(()) }
}

fn act(talk: Talk) -> Result<Exchanged> {
    let mut buffer = [0; 256];
    match talk {
        Talk::IcmpRaw => icmp(libc::SOCK_RAW),
        Talk::Ping => icmp(libc::SOCK_DGRAM),
        Talk::RawProtocol => send_raw(89, &[1; 30]),
        Talk::RawHeader => send_raw(libc::IPPROTO_RAW, &header(20)),
        Talk::UdpLite => lite(false),
        Talk::UdpLiteConnected => lite(true),
        Talk::Packet => packet(),
        Talk::Sctp => far_sockets::sctp(),
        Talk::SctpToMany => far_sockets::sctp_to_many(),
        Talk::Dccp => far_sockets::dccp(),
        Talk::Vsock => far_sockets::vsock(),
        Talk::Tipc => far_sockets::tipc(),
        Talk::Rds => far_sockets::rds(),
        Talk::Hold => hold(),
        Talk::Probe => {
            for to in ["127.0.0.1:0", "127.0.0.1:9", "127.0.0.1:53", "127.0.0.2:65535"] {
                unbound(libc::AF_INET)?.connect(to)?;
            }
            for to in ["[::1]:0", "[::1]:443"] {
                let _ = unbound(libc::AF_INET6).map(|socket| socket.connect(to));
            }
            Ok(Vec::new())
        }
        Talk::ToAny => {
            let (client, server) = (unbound(libc::AF_INET)?, bound()?);
            let (to, from) = (port(&server)?, &mut buffer);
            for _ in 0..3 {
                client.send_to(&[1; 10], (Ipv4Addr::UNSPECIFIED, to.unwrap_or(0)))?;
                let (_, asker) = server.recv_from(from)?;
                server.send_to(&[2; 12], asker)?;
                client.recv_from(from)?;
            }
            Ok(vec![(to, 30, 36), (port(&client)?, 36, 30)])
        }
        Talk::OtherPort => {
            let (client, server, other) = (bound()?, bound()?, bound()?);
            client.send_to(&[1; 10], server.local_addr()?)?;
            server.recv_from(&mut buffer)?;
            for _ in 0..2 {
                other.send_to(&[2; 20], client.local_addr()?)?;
                client.recv_from(&mut buffer)?;
            }
            let from = port(&client)?;
            Ok(vec![(port(&server)?, 10, 0), (port(&other)?, 0, 40), (from, 0, 10), (from, 40, 0)])
        }
        Talk::Receive | Talk::ReceiveNameless => {
            let (client, server) = (bound()?, bound()?);
            for _ in 0..3 {
                client.send_to(&[1; 7], server.local_addr()?)?;
                if talk == Talk::Receive {
                    server.recv_from(&mut buffer)?;
                } else {
                    server.recv(&mut buffer)?;
                }
            }
            let from = if talk == Talk::Receive { port(&client)? } else { None };
            Ok(vec![(port(&server)?, 21, 0), (from, 0, 21)])
        }
        Talk::Mapped => {
            let (client, server) = (unbound(libc::AF_INET6)?, bound()?);
            client.connect((Ipv4Addr::LOCALHOST.to_ipv6_mapped(), server.local_addr()?.port()))?;
            for _ in 0..2 {
                client.send(&[1; 30])?;
                let (_, asker) = server.recv_from(&mut buffer)?;
                server.send_to(&[2; 40], asker)?;
                client.recv(&mut buffer)?;
            }
            Ok(vec![(port(&server)?, 60, 80), (port(&client)?, 80, 60)])
        }
        Talk::Corked | Talk::CorkedConnected => {
            let (client, server) = (unbound(libc::AF_INET)?, bound()?);
            let to = Some(server.local_addr()?).filter(|_| talk == Talk::Corked);
            if to.is_none() {
                client.connect(server.local_addr()?)?;
            }
            for _ in 0..3 {
                send_more(&client, &[1; 25], to)?;
            }
            match to {
                Some(to) => client.send_to(&[1; 25], to)?,
                None => client.send(&[1; 25])?,
            };
            let (length, _) = server.recv_from(&mut buffer)?;
            anyhow::ensure!(length == 100, "{length} bytes arrived");
            Ok(vec![(port(&server)?, 100, 0), (port(&client)?, 0, 100)])
        }
        Talk::Again => again(),
    }
}

fn again() -> Result<Exchanged> {
    let (client, first, second) = (unbound(libc::AF_INET)?, bound()?, bound()?);
    let mut exchanged = Vec::new();
    for (server, bytes) in [(&first, 11), (&second, 22)] {
        client.connect(server.local_addr()?)?;
        client.send(&[0; 64][..bytes])?;
        server.recv_from(&mut [0; 64])?;
        let bytes = i64::try_from(bytes)?;
        exchanged.extend([(port(server)?, bytes, 0), (port(&client)?, 0, bytes)]);
    }
    Ok(exchanged)
}

fn socket(family: i32, kind: i32, protocol: i32) -> io::Result<UdpSocket> {
    // SAFETY: the descriptor is new.
    let socket = unsafe { libc::socket(family, kind | libc::SOCK_CLOEXEC, protocol) };
    if socket < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: as above.
    let socket = UdpSocket::from(unsafe { OwnedFd::from_raw_fd(socket) });
    socket.set_read_timeout(Some(Duration::from_secs(20)))?;
    Ok(socket)
}

/// Eight bytes of header and 48 more; a raw socket reads the IP header too.
fn icmp(kind: i32) -> Result<Exchanged> {
    if kind == libc::SOCK_DGRAM {
        std::fs::write("/proc/sys/net/ipv4/ping_group_range", "0 2147483647")?;
    }
    let socket = socket(libc::AF_INET, kind, libc::IPPROTO_ICMP)?;
    let mut request = [0; 56];
    request[0] = 8;
    // The checksum of so many zeros behind the type.
    request[2] = 0xf7;
    request[3] = 0xff;
    let mut received = 0;
    socket.send_to(&request, (Ipv4Addr::LOCALHOST, 0))?;
    let mut buffer = [0; 256];
    loop {
        let length = socket.recv(&mut buffer)?;
        received += i64::try_from(length)?;
        // A raw socket hears its own request on this host, too.
        let kind = if kind == libc::SOCK_RAW { buffer[20] } else { buffer[0] };
        if kind == 0 {
            return Ok(vec![(None, 56, received)]);
        }
    }
}

fn send_raw(protocol: i32, content: &[u8]) -> Result<Exchanged> {
    let socket = socket(libc::AF_INET, libc::SOCK_RAW, protocol)?;
    socket.send_to(content, (Ipv4Addr::new(127, 0, 0, 9), 0))?;
    Ok(vec![(None, i64::try_from(content.len())?, 0)])
}

/// Of an experimental protocol (RFC 3692), with so many bytes behind it.
fn header(rest: u8) -> Vec<u8> {
    let mut packet = vec![0x45, 0, 0, 20 + rest, 0, 0, 0, 0, 64, 253, 0, 0, 0, 0, 0, 0, 127, 0, 0, 9];
    packet.resize(20 + usize::from(rest), 7);
    packet
}

fn lite(connected: bool) -> Result<Exchanged> {
    let server = socket(libc::AF_INET, libc::SOCK_DGRAM, libc::IPPROTO_UDPLITE)?;
    let client = socket(libc::AF_INET, libc::SOCK_DGRAM, libc::IPPROTO_UDPLITE)?;
    bind(&server)?;
    let to = server.local_addr()?;
    for _ in 0..2 {
        if connected {
            client.connect(to)?;
            client.send(&[1; 21])?;
        } else {
            client.send_to(&[1; 21], to)?;
        }
        server.recv_from(&mut [0; 64])?;
    }
    Ok(vec![(Some(to.port()), 42, 0)])
}

/// To 127.0.0.1, port of the kernel's choice.
fn bind(socket: &UdpSocket) -> Result<()> {
    let name = libc::sockaddr_in {
        sin_family: libc::sa_family_t::try_from(libc::AF_INET)?,
        sin_port: 0,
        sin_addr: libc::in_addr { s_addr: u32::from(Ipv4Addr::LOCALHOST).to_be() },
        sin_zero: [0; 8],
    };
    let length = libc::socklen_t::try_from(size_of_val(&name))?;
    // SAFETY: the pointer is to as many bytes as is said.
    let bound = unsafe { libc::bind(socket.as_raw_fd(), std::ptr::from_ref(&name).cast(), length) };
    if bound < 0 { Err(io::Error::last_os_error().into()) } else { Ok(()) }
}

fn packet() -> Result<Exchanged> {
    let socket = socket(libc::AF_PACKET, libc::SOCK_DGRAM, 0)?;
    let name = libc::sockaddr_ll {
        sll_family: libc::sa_family_t::try_from(libc::AF_PACKET)?,
        // For experiments (IEEE 802).
        sll_protocol: 0x88b5_u16.to_be(),
        sll_ifindex: 1,
        sll_hatype: 0,
        sll_pkttype: 0,
        sll_halen: 6,
        sll_addr: [0; 8],
    };
    let (content, length) = ([7; 40], libc::socklen_t::try_from(size_of_val(&name))?);
    // SAFETY: both pointers are to as many bytes as is said.
    let sent = unsafe {
        libc::sendto(
            socket.as_raw_fd(),
            content.as_ptr().cast(),
            content.len(),
            0,
            std::ptr::from_ref(&name).cast(),
            length,
        )
    };
    anyhow::ensure!(sent == 40, "{}", io::Error::last_os_error());
    Ok(vec![(None, 40, 0)])
}

fn hold() -> Result<Exchanged> {
    let _raw = socket(libc::AF_INET, libc::SOCK_RAW, 89)?;
    let _packet = socket(libc::AF_PACKET, libc::SOCK_DGRAM, 0)?;
    let (connected, probe) = (unbound(libc::AF_INET)?, unbound(libc::AF_INET)?);
    connected.connect("127.0.0.1:9")?;
    probe.connect("127.0.0.1:0")?;
    io::copy(&mut io::stdin(), &mut io::sink())?;
    Ok(Vec::new())
}
