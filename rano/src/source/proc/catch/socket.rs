//! A socket of another process, by a copy of its descriptor (`pidfd_getfd(2)`) that is closed at once: addresses and
//! the cookie, which the notification of its end has too.

use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsRawFd as _, OwnedFd};

use rustix::io::Errno;
use rustix::net::sockopt::{socket_acceptconn, socket_cookie, socket_domain, socket_protocol};
use rustix::net::{
    AddressFamily, SocketAddrAny, SocketFlags, SocketType, getpeername, getsockname, ipproto, socket_with,
};
use rustix::process::{Pid, PidfdFlags, PidfdGetfdFlags, pidfd_getfd, pidfd_open};

use super::super::inet::canonical;
use crate::event::Protocol;

/// `SO_NETNS_COOKIE` (include/uapi/asm-generic/socket.h), from Linux 5.14 on.
const NETNS_COOKIE: libc::c_int = 71;

/// What a descriptor turned out to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Copied {
    Inet(InetCopy),
    /// Neither TCP nor UDP, a listener, or of another network namespace.
    Other,
    /// Closed before it could be copied.
    Gone,
    /// Not allowed (Yama's `ptrace_scope`, containers), or a kernel before 5.6.
    Refused,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct InetCopy {
    pub(super) protocol: Protocol,
    pub(super) cookie: u64,
    /// Not connected, or still connecting: then there is no remote end yet.
    pub(super) ends: Option<(SocketAddr, SocketAddr)>,
}

/// The process that a descriptor is copied from.
pub(super) fn open(pid: u32) -> Option<OwnedFd> {
    pidfd_open(Pid::from_raw(pid.cast_signed())?, PidfdFlags::empty()).ok()
}

/// A number of the calling thread's network namespace; `None` where the kernel does not tell.
pub(super) fn own_namespace() -> Option<u64> {
    let probe = socket_with(AddressFamily::INET, SocketType::DGRAM, SocketFlags::CLOEXEC, None).ok()?;
    namespace(&probe)
}

/// `own`: as [`own_namespace`] says.
pub(super) fn copy(pidfd: &OwnedFd, descriptor: u32, own: Option<u64>) -> Copied {
    let copied = match pidfd_getfd(pidfd, descriptor.cast_signed(), PidfdGetfdFlags::empty()) {
        Ok(copied) => copied,
        Err(Errno::BADF | Errno::SRCH) => return Copied::Gone,
        Err(_) => return Copied::Refused,
    };
    examine(&copied, own).map_or(Copied::Other, Copied::Inet)
}

fn examine(socket: &OwnedFd, own: Option<u64>) -> Option<InetCopy> {
    if !matches!(socket_domain(socket).ok()?, AddressFamily::INET | AddressFamily::INET6)
        || namespace(socket) != own
    {
        return None;
    }
    let protocol = match socket_protocol(socket).ok()? {
        // Multipath TCP's own socket has neither cookie nor end of the one on the wire.
        Some(ipproto::TCP) if !socket_acceptconn(socket).ok()? => Protocol::Tcp,
        Some(ipproto::UDP) => Protocol::Udp,
        Some(_) | None => return None,
    };
    let cookie = socket_cookie(socket).ok()?;
    let remote = getpeername(socket).ok().flatten().and_then(address);
    let ends = remote.and_then(|remote| Some((address(getsockname(socket).ok()?)?, remote)));
    Some(InetCopy { protocol, cookie, ends })
}

fn address(any: SocketAddrAny) -> Option<SocketAddr> {
    match SocketAddr::try_from(any).ok()? {
        SocketAddr::V4(four) => Some(SocketAddr::V4(four)),
        SocketAddr::V6(six) => {
            let found = canonical(*six.ip(), six.port(), six.scope_id());
            debug_assert!(!matches!(found.ip(), IpAddr::V6(ip) if ip.to_ipv4_mapped().is_some()));
            Some(found)
        }
    }
}

fn namespace(socket: &OwnedFd) -> Option<u64> {
    let mut value = 0u64;
    let mut length = libc::socklen_t::try_from(size_of_val(&value)).expect("eight bytes");
    // SAFETY: the kernel writes at most `length` bytes, the size of a plain integer.
    let result = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            NETNS_COOKIE,
            std::ptr::from_mut(&mut value).cast(),
            &raw mut length,
        )
    };
    (result == 0).then_some(value)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::{TcpListener, TcpStream, UdpSocket};
    use std::os::fd::AsRawFd;

    fn copied(socket: &impl AsRawFd) -> Copied {
        let own = open(std::process::id()).expect("pidfd_open, from Linux 5.3 on");
        copy(&own, socket.as_raw_fd().cast_unsigned(), own_namespace())
    }

    #[test]
    fn a_connection_is_known_by_its_ends_and_a_listener_is_none() {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let stream = TcpStream::connect(listener.local_addr().expect("bound")).expect("it listens");
        let Copied::Inet(found) = copied(&stream) else {
            return println!("not tried: pidfd_getfd is refused");
        };
        let ends = (stream.local_addr().expect("bound"), stream.peer_addr().expect("connected"));
        assert_eq!((found.protocol, found.ends), (Protocol::Tcp, Some(ends)));
        assert_eq!(Ok(found.cookie), socket_cookie(&stream));
        assert_eq!(copied(&listener), Copied::Other);
        let idle = UdpSocket::bind("127.0.0.1:0").expect("a port");
        assert!(matches!(copied(&idle), Copied::Inet(InetCopy { protocol: Protocol::Udp, ends: None, .. })));
        let unix = std::os::unix::net::UnixDatagram::unbound().expect("a socket");
        assert_eq!(copied(&unix), Copied::Other);
        let own = open(std::process::id()).expect("as above");
        assert_eq!(copy(&own, 1_000_000, own_namespace()), Copied::Gone);
    }
}
