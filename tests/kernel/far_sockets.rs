//! Exchanges over transports that most machines do not have: SCTP, DCCP, vsock, TIPC and RDS, each with itself. One end
//! sends thirty bytes, the other answers with forty.

use std::io;
use std::os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd};

use anyhow::{Context as _, Result, ensure};

use crate::talker::Exchanged;

const ASKED: u8 = 30;
const ANSWERED: u8 = 40;
/// `linux/dccp.h`: its type of socket, its level of options, the option that names the service.
const SOCK_DCCP: i32 = 6;
const SOL_DCCP: i32 = 269;
const DCCP_SOCKOPT_SERVICE: i32 = 2;
const IPPROTO_DCCP: i32 = 33;
/// `linux/vm_sockets.h`: this machine, and a port of the kernel's choice.
const VMADDR_CID_LOCAL: u32 = 1;
const VMADDR_PORT_ANY: u32 = u32::MAX;
/// `linux/tipc.h`: an address that is a service, seen from this node alone.
const TIPC_SERVICE_ADDR: u8 = 2;
const TIPC_NODE_SCOPE: u8 = 3;

struct Socket(OwnedFd);

/// An address as the kernel has it.
type Name = Vec<u8>;

impl Socket {
    fn new(family: i32, kind: i32, protocol: i32) -> io::Result<Self> {
        // SAFETY: the descriptor is new.
        let socket = unsafe { libc::socket(family, kind | libc::SOCK_CLOEXEC, protocol) };
        // SAFETY: as above.
        answer(socket).map(|()| Self(unsafe { OwnedFd::from_raw_fd(socket) }))
    }

    fn bind(&self, name: &[u8]) -> io::Result<()> {
        // SAFETY: the pointer is to as many bytes as is said.
        answer(unsafe { libc::bind(self.0.as_raw_fd(), name.as_ptr().cast(), length(name)) })
    }

    fn listen(&self) -> io::Result<()> {
        // SAFETY: no memory is involved.
        answer(unsafe { libc::listen(self.0.as_raw_fd(), 4) })
    }

    fn connect(&self, name: &[u8]) -> io::Result<()> {
        // SAFETY: the pointer is to as many bytes as is said.
        answer(unsafe { libc::connect(self.0.as_raw_fd(), name.as_ptr().cast(), length(name)) })
    }

    fn accept(&self) -> io::Result<Self> {
        // SAFETY: no address is asked for.
        let socket = unsafe { libc::accept(self.0.as_raw_fd(), std::ptr::null_mut(), std::ptr::null_mut()) };
        // SAFETY: the descriptor is new.
        answer(socket).map(|()| Self(unsafe { OwnedFd::from_raw_fd(socket) }))
    }

    fn name(&self) -> io::Result<Name> {
        let mut name = vec![0; 128];
        let mut size = length(&name);
        // SAFETY: the pointers are to as many bytes as is said.
        answer(unsafe { libc::getsockname(self.0.as_raw_fd(), name.as_mut_ptr().cast(), &raw mut size) })?;
        name.truncate(size as usize);
        Ok(name)
    }

    /// To `to`, or to where it is connected.
    fn send(&self, bytes: u8, to: &[u8]) -> Result<()> {
        let content = vec![7; bytes.into()];
        let name = if to.is_empty() { std::ptr::null() } else { to.as_ptr() };
        // SAFETY: both pointers are to as many bytes as is said.
        let sent = unsafe {
            libc::sendto(
                self.0.as_raw_fd(),
                content.as_ptr().cast(),
                content.len(),
                0,
                name.cast(),
                length(to),
            )
        };
        ensure!(u8::try_from(sent) == Ok(bytes), "send: {}", io::Error::last_os_error());
        Ok(())
    }

    /// From whom.
    fn receive(&self, bytes: u8) -> Result<Name> {
        let (mut content, mut name) = (vec![0; 256], vec![0; 128]);
        let mut size = length(&name);
        // SAFETY: the pointers are to as many bytes as is said.
        let received = unsafe {
            libc::recvfrom(
                self.0.as_raw_fd(),
                content.as_mut_ptr().cast(),
                content.len(),
                0,
                name.as_mut_ptr().cast(),
                &raw mut size,
            )
        };
        ensure!(u8::try_from(received) == Ok(bytes), "{received}: {}", io::Error::last_os_error());
        name.truncate(size as usize);
        Ok(name)
    }
}

fn answer(returned: i32) -> io::Result<()> {
    if returned < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

fn length(name: &[u8]) -> libc::socklen_t {
    libc::socklen_t::try_from(name.len()).unwrap_or(0)
}

/// What every address begins with.
fn family(family: i32) -> Name {
    u16::try_from(family).unwrap_or(0).to_ne_bytes().to_vec()
}

/// `struct sockaddr_in`: 127.0.0.1, and a port of the kernel's choice.
fn localhost() -> Name {
    let mut name = family(libc::AF_INET);
    name.extend([0, 0, 127, 0, 0, 1]);
    name.resize(16, 0);
    name
}

fn port(name: &[u8]) -> Option<u16> {
    name.get(2..4).map(|port| u16::from_be_bytes([port[0], port[1]]))
}

/// A listener and a client of it.
fn with_connection(
    server: &Socket,
    client: &Socket,
    at: &[u8],
    port: fn(&[u8]) -> Option<u16>,
) -> Result<Exchanged> {
    server.bind(at).context("bind")?;
    server.listen().context("listen")?;
    let name = server.name()?;
    client.connect(&name).context("connect")?;
    let accepted = server.accept().context("accept")?;
    client.send(ASKED, &[])?;
    accepted.receive(ASKED)?;
    accepted.send(ANSWERED, &[])?;
    client.receive(ANSWERED)?;
    Ok(vec![(port(&name), ASKED.into(), ANSWERED.into())])
}

/// Two that are connected to nobody.
fn without_connection(server: &Socket, client: &Socket, to: &[u8], port: Option<u16>) -> Result<Exchanged> {
    client.send(ASKED, to)?;
    let asker = server.receive(ASKED)?;
    server.send(ANSWERED, &asker)?;
    client.receive(ANSWERED)?;
    Ok(vec![(port, ASKED.into(), ANSWERED.into())])
}

pub fn sctp() -> Result<Exchanged> {
    let new = || Socket::new(libc::AF_INET, libc::SOCK_STREAM, libc::IPPROTO_SCTP);
    with_connection(&new()?, &new()?, &localhost(), port)
}

/// Of the other style: one socket for many.
pub fn sctp_to_many() -> Result<Exchanged> {
    let new = || Socket::new(libc::AF_INET, libc::SOCK_SEQPACKET, libc::IPPROTO_SCTP);
    let (server, client) = (new()?, new()?);
    server.bind(&localhost())?;
    server.listen()?;
    let to = server.name()?;
    without_connection(&server, &client, &to, port(&to))
}

pub fn dccp() -> Result<Exchanged> {
    let new = || -> io::Result<Socket> {
        let socket = Socket::new(libc::AF_INET, SOCK_DCCP, IPPROTO_DCCP)?;
        let service = 42_u32.to_be_bytes();
        let (value, size) = (service.as_ptr().cast(), length(&service));
        // SAFETY: the pointer is to as many bytes as is said.
        answer(unsafe {
            libc::setsockopt(socket.0.as_raw_fd(), SOL_DCCP, DCCP_SOCKOPT_SERVICE, value, size)
        })?;
        Ok(socket)
    };
    with_connection(&new()?, &new()?, &localhost(), port)
}

/// `struct sockaddr_vm`
pub fn vsock() -> Result<Exchanged> {
    let new = || Socket::new(libc::AF_VSOCK, libc::SOCK_STREAM, 0);
    let mut name = family(libc::AF_VSOCK);
    name.extend([0, 0]);
    name.extend(VMADDR_PORT_ANY.to_ne_bytes());
    name.extend(VMADDR_CID_LOCAL.to_ne_bytes());
    name.resize(16, 0);
    with_connection(&new()?, &new()?, &name, |_| None)
}

/// `struct sockaddr_tipc`: a service of this test's.
pub fn tipc() -> Result<Exchanged> {
    let new = || Socket::new(libc::AF_TIPC, libc::SOCK_RDM, 0);
    let (server, client) = (new()?, new()?);
    let mut name = family(libc::AF_TIPC);
    name.extend([TIPC_SERVICE_ADDR, TIPC_NODE_SCOPE]);
    name.extend(4711_u32.to_ne_bytes());
    name.extend(1_u32.to_ne_bytes());
    name.resize(16, 0);
    server.bind(&name)?;
    without_connection(&server, &client, &name, None)
}

pub fn rds() -> Result<Exchanged> {
    let new = || -> io::Result<Socket> {
        let socket = Socket::new(libc::AF_RDS, libc::SOCK_SEQPACKET, 0)?;
        socket.bind(&localhost())?;
        Ok(socket)
    };
    let (server, client) = (new()?, new()?);
    let to = server.name()?;
    without_connection(&server, &client, &to, port(&to))
}
