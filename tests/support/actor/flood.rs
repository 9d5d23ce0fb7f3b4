//! One thing many times, as fast as it goes: what fills a buffer that somebody else has to empty.

use std::ffi::CStr;
use std::net::{SocketAddr, TcpStream, UdpSocket};
use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use rustix::net::{AddressFamily, SendFlags, SocketFlags, SocketType, connect, send, socket_with};
use serde::{Deserialize, Serialize};

/// What is done many times.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Flood {
    /// TCP connections, each closed before the next.
    Connections,
    /// Datagrams from one socket, each to another port, counted from that of the address.
    Destinations,
    /// Datagram sockets that connect and are closed.
    Sockets,
    /// One datagram socket connects to another port each time.
    Reconnects,
    /// The process takes another name.
    Renames,
    /// It takes another name and connects a datagram socket.
    Disguises,
    /// Processes that end at once, with long arguments.
    Processes,
}

const NAMES: [&CStr; 2] = [c"one", c"two"];

impl Flood {
    pub fn run(self, to: SocketAddr, count: usize) -> Result<()> {
        let mut ports = (1024..=u16::MAX).cycle().skip(usize::from(to.port()));
        let mut next = || SocketAddr::new(to.ip(), ports.next().unwrap_or(to.port()));
        match self {
            Self::Connections => {
                for _ in 0..count {
                    TcpStream::connect(to).with_context(|| format!("connect to {to}"))?;
                }
            }
            Self::Destinations => {
                let socket = UdpSocket::bind(if to.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" })?;
                for _ in 0..count {
                    socket.send_to(b"x", next())?;
                }
            }
            Self::Sockets => {
                let family = if to.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
                for _ in 0..count {
                    let socket = socket_with(family, SocketType::DGRAM, SocketFlags::CLOEXEC, None)?;
                    connect(&socket, &to)?;
                    send(&socket, b"x", SendFlags::empty())?;
                }
            }
            Self::Reconnects => {
                let socket = UdpSocket::bind(if to.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" })?;
                for _ in 0..count {
                    socket.connect(next())?;
                    // That nobody listened at the last place may be told here.
                    if socket.send(b"x").is_err() {
                        let _ = socket.send(b"x");
                    }
                }
            }
            Self::Renames => {
                for name in NAMES.into_iter().cycle().take(count) {
                    rustix::thread::set_name(name)?;
                }
            }
            Self::Disguises => {
                let socket = UdpSocket::bind(if to.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" })?;
                for name in NAMES.into_iter().cycle().take(count) {
                    rustix::thread::set_name(name)?;
                    socket.connect(next())?;
                }
            }
            Self::Processes => {
                for _ in 0..count {
                    let status = Command::new("/bin/true").arg("x".repeat(4000)).status()?;
                    ensure!(status.success(), "{status}");
                }
            }
        }
        Ok(())
    }
}
