//! Dumps and look-ups of the kernel's socket tables over `NETLINK_SOCK_DIAG`, for any user.
//! This is the hot path of a poll: one reused buffer, nothing allocated per socket.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use rustix::io::Errno;
use rustix::net::RecvFlags;

use super::inet::{ATTRIBUTE_INFO, InetSocket, SOCKET_ID, States};
use super::netlink::{Kind, Messages, Socket, request};
use super::unix::{self, UnixSocket};
use crate::event::Protocol;

/// `SOCK_DIAG_BY_FAMILY`
const BY_FAMILY: u16 = 20;
/// `TCPDIAG_GETSOCK`, of the older protocol: the only one that lists both families in a single walk of the tables.
const TCP_BOTH_FAMILIES: u16 = 18;
/// `NLM_F_REQUEST`
const REQUEST: u16 = 0x1;
/// `NLM_F_REQUEST | NLM_F_DUMP`
const DUMP: u16 = 0x301;
/// `NLM_F_DUMP_INTR`
const INTERRUPTED: u16 = 0x10;
/// `INET_DIAG_NOCOOKIE`, both halves.
const NO_COOKIE: [u8; 8] = [0xff; 8];
/// The kernel fills at most 32 KiB a datagram (`netlink_dump()`), and only as much as was last asked to receive.
const BUFFER: usize = 64 * 1024;
/// The kernel answers within the call that asks; this is for one that never does.
const PATIENCE: Duration = Duration::from_secs(5);

/// Whether `struct tcp_info` comes with each TCP socket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Info {
    Without,
    With,
}

/// Why a table could not be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DiagError {
    /// Not offered here at all (no `sock_diag`, or a sandbox): `/proc` text remains.
    Refused(Errno),
    /// The kernel module of that table is neither built in nor loadable: `/proc` text remains for that one.
    Missing(&'static str),
    /// The kernel's answer could not be understood.
    Malformed,
    /// Anything else; trying again may help.
    Failed(Errno),
}

impl fmt::Display for DiagError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Refused(errno) => write!(f, "socket tables over netlink are refused: {errno}"),
            Self::Missing(module) => write!(f, "the kernel has no {module} (modprobe {module} as root)"),
            Self::Malformed => write!(f, "the kernel's socket table came malformed"),
            Self::Failed(errno) => write!(f, "read a socket table: {errno}"),
        }
    }
}

impl std::error::Error for DiagError {}

/// How a dump went. A table that changes while it is walked can show a socket twice or leave one out: key by
/// cookie, and look again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Dumped {
    pub sockets: u64,
    /// Entries that were not understood.
    pub skipped: u64,
    /// The kernel says that the table changed (`NLM_F_DUMP_INTR`).
    pub interrupted: bool,
}

/// Reads the socket tables of the network namespace in which it was opened.
#[derive(Debug)]
pub struct Dumper {
    socket: Socket,
    sequence: u32,
    buffer: Vec<u8>,
    both_families: bool,
    /// An answer was given up half-way. The kernel starts no other dump on that socket (`EBUSY`).
    abandoned: bool,
}

impl Dumper {
    pub fn open() -> Result<Self, DiagError> {
        let socket = connect().map_err(DiagError::Refused)?;
        Ok(Self { socket, sequence: 0, buffer: vec![0; BUFFER], both_families: true, abandoned: false })
    }

    /// Every TCP socket in one of `states`, over IPv4 and IPv6.
    pub fn tcp(
        &mut self,
        states: States,
        info: Info,
        mut each: impl FnMut(&InetSocket),
    ) -> Result<Dumped, DiagError> {
        // A table entry is listed under the family of its socket: one that is IPv6 with a mapped address, and a
        // dual-stack listener, only under IPv6. So the two families together hold each socket once.
        if self.both_families {
            match self.inet(&legacy_request(states, info), TCP_BOTH_FAMILIES, Protocol::Tcp, &mut each) {
                Err(DiagError::Missing(_) | DiagError::Failed(Errno::INVAL | Errno::OPNOTSUPP)) => {
                    self.both_families = false;
                }
                other => return other,
            }
        }
        self.families(Protocol::Tcp, states, info, &mut each)
    }

    /// Every bound UDP socket in one of `states` (`Established` is connected, `Close` is not), IPv4 and IPv6.
    pub fn udp(&mut self, states: States, mut each: impl FnMut(&InetSocket)) -> Result<Dumped, DiagError> {
        self.families(Protocol::Udp, states, Info::Without, &mut each)
    }

    /// The TCP socket or `TIME_WAIT` mini-socket between `local` and `remote`, bound to `interface` (0 is none).
    pub fn find_tcp(
        &mut self,
        local: SocketAddr,
        remote: SocketAddr,
        interface: u32,
        info: Info,
    ) -> Result<Option<InetSocket>, DiagError> {
        let family = if local.is_ipv4() { libc::AF_INET } else { libc::AF_INET6 };
        let mut id = Vec::with_capacity(SOCKET_ID);
        id.extend_from_slice(&local.port().to_be_bytes());
        id.extend_from_slice(&remote.port().to_be_bytes());
        id.extend_from_slice(&sixteen(local.ip()));
        id.extend_from_slice(&sixteen(remote.ip()));
        id.extend_from_slice(&interface.to_ne_bytes());
        id.extend_from_slice(&NO_COOKIE);
        let body = family_request(family, libc::IPPROTO_TCP, States::ALL, info, &id);
        let mut found = None;
        let answer = self.exchange(BY_FAMILY, REQUEST, &body, &mut |body| {
            found = InetSocket::parse(body, Some(Protocol::Tcp));
            found.is_some()
        });
        match answer {
            // The kernel offers a listener on the port where there is no connection.
            Ok(_) => Ok(found.filter(|socket| socket.local == local && socket.remote == Some(remote))),
            Err(Errno::NOENT) => Ok(None),
            Err(errno) => Err(classify(errno, "tcp_diag")),
        }
    }

    /// Every unix socket.
    pub fn unix(&mut self, mut each: impl FnMut(&UnixSocket)) -> Result<Dumped, DiagError> {
        let dumped = self.exchange(BY_FAMILY, DUMP, &unix::REQUEST, &mut |body| {
            UnixSocket::parse(body).inspect(&mut each).is_some()
        });
        dumped.map_err(|errno| classify(errno, "unix_diag"))
    }

    fn families(
        &mut self,
        protocol: Protocol,
        states: States,
        info: Info,
        each: &mut dyn FnMut(&InetSocket),
    ) -> Result<Dumped, DiagError> {
        let number = if protocol == Protocol::Tcp { libc::IPPROTO_TCP } else { libc::IPPROTO_UDP };
        let mut total = Dumped::default();
        for family in [libc::AF_INET, libc::AF_INET6] {
            let body = family_request(family, number, states, info, &[0; SOCKET_ID]);
            let dumped = self.inet(&body, BY_FAMILY, protocol, each)?;
            total.sockets += dumped.sockets;
            total.skipped += dumped.skipped;
            total.interrupted |= dumped.interrupted;
        }
        Ok(total)
    }

    fn inet(
        &mut self,
        body: &[u8],
        kind: u16,
        protocol: Protocol,
        each: &mut dyn FnMut(&InetSocket),
    ) -> Result<Dumped, DiagError> {
        let module = if protocol == Protocol::Tcp { "tcp_diag" } else { "udp_diag" };
        let dumped = self.exchange(kind, DUMP, body, &mut |body| {
            InetSocket::parse(body, Some(protocol)).inspect(|socket| each(socket)).is_some()
        });
        dumped.map_err(|errno| classify(errno, module))
    }

    /// Asks and hands each answer to `understand`, until the kernel says that it is done.
    fn exchange(
        &mut self,
        kind: u16,
        flags: u16,
        body: &[u8],
        understand: &mut dyn FnMut(&[u8]) -> bool,
    ) -> Result<Dumped, Errno> {
        if self.abandoned {
            self.socket = connect()?;
        }
        self.abandoned = true;
        self.sequence = self.sequence.wrapping_add(1);
        self.socket.send(&request(kind, flags, self.sequence, body))?;
        let mut answer = Answer { sequence: self.sequence, single: flags != DUMP, dumped: Dumped::default() };
        loop {
            let datagram = self.socket.receive(&mut self.buffer, RecvFlags::empty())?;
            if let Some(end) = answer.read(datagram, understand)? {
                self.abandoned = false;
                return end.map(|()| answer.dumped);
            }
        }
    }
}

/// What has come of an answer.
struct Answer {
    sequence: u32,
    /// One message is the whole answer; a dump ends with `NLMSG_DONE`.
    single: bool,
    dumped: Dumped,
}

impl Answer {
    /// Returns how the answer ended, once it has; an error if the rest cannot be understood.
    fn read(
        &mut self,
        datagram: &[u8],
        understand: &mut dyn FnMut(&[u8]) -> bool,
    ) -> Result<Option<Result<(), Errno>>, Errno> {
        for message in Messages::new(datagram) {
            // EBADMSG comes from nowhere else here; `classify` turns it into `Malformed`.
            let message = message.map_err(|_| Errno::BADMSG)?;
            if message.sequence != self.sequence {
                // The rest of an answer that was given up after an error.
                continue;
            }
            self.dumped.interrupted |= message.flags & INTERRUPTED != 0;
            match message.kind {
                Kind::Payload(_) => {
                    let understood = understand(message.body);
                    self.dumped.sockets += u64::from(understood);
                    self.dumped.skipped += u64::from(!understood);
                    if self.single {
                        return Ok(Some(Ok(())));
                    }
                }
                Kind::Error(Some(errno)) | Kind::Done(Some(errno)) => return Ok(Some(Err(errno))),
                Kind::Error(None) | Kind::Done(None) => return Ok(Some(Ok(()))),
                Kind::Overrun => return Err(Errno::NOBUFS),
                Kind::Noop => {}
            }
        }
        Ok(None)
    }
}

fn connect() -> Result<Socket, Errno> {
    let socket = Socket::open()?;
    socket.set_timeout(PATIENCE)?;
    Ok(socket)
}

fn classify(errno: Errno, module: &'static str) -> DiagError {
    match errno {
        Errno::NOENT => DiagError::Missing(module),
        Errno::PERM | Errno::ACCESS | Errno::PROTONOSUPPORT | Errno::NOSYS => DiagError::Refused(errno),
        Errno::BADMSG => DiagError::Malformed,
        other => DiagError::Failed(other),
    }
}

fn extensions(info: Info) -> u8 {
    match info {
        Info::Without => 0,
        Info::With => 1 << (ATTRIBUTE_INFO - 1),
    }
}

/// `struct inet_diag_req_v2`
fn family_request(family: i32, protocol: i32, states: States, info: Info, id: &[u8]) -> Vec<u8> {
    let byte = |number: i32| u8::try_from(number).expect("families and protocols asked for are below 256");
    let mut body = vec![byte(family), byte(protocol), extensions(info), 0];
    body.extend_from_slice(&states.bits().to_ne_bytes());
    body.extend_from_slice(id);
    body
}

/// `struct inet_diag_req`, in which the kernel ignores the family.
fn legacy_request(states: States, info: Info) -> Vec<u8> {
    let mut body = vec![0, 0, 0, extensions(info)];
    body.extend_from_slice(&[0; SOCKET_ID]);
    body.extend_from_slice(&states.bits().to_ne_bytes());
    body.extend_from_slice(&0u32.to_ne_bytes());
    body
}

/// As in `idiag_src`: IPv4 takes the first four bytes.
fn sixteen(ip: IpAddr) -> [u8; 16] {
    match ip {
        IpAddr::V4(ip) => {
            let mut bytes = [0; 16];
            bytes[..4].copy_from_slice(&ip.octets());
            bytes
        }
        IpAddr::V6(ip) => ip.octets(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_refused_and_what_is_missing_are_told_apart() {
        for errno in [Errno::PERM, Errno::ACCESS, Errno::PROTONOSUPPORT] {
            assert_eq!(classify(errno, "udp_diag"), DiagError::Refused(errno));
        }
        let missing = classify(Errno::NOENT, "udp_diag");
        assert_eq!(missing, DiagError::Missing("udp_diag"));
        assert!(missing.to_string().contains("udp_diag"));
        assert_eq!(classify(Errno::BADMSG, "tcp_diag"), DiagError::Malformed);
        assert_eq!(classify(Errno::NOBUFS, "tcp_diag"), DiagError::Failed(Errno::NOBUFS));
    }

    /// A kernel without that module answers like this to one that it does not know.
    #[test]
    fn a_table_that_the_kernel_does_not_have_is_an_error_and_the_next_dump_works() {
        let mut dumper = Dumper::open().expect("this kernel has sock_diag");
        let unknown = family_request(libc::AF_INET, libc::IPPROTO_EGP, States::ALL, Info::Without, &[0; 48]);
        let error = dumper.inet(&unknown, BY_FAMILY, Protocol::Udp, &mut |_| ());
        assert_eq!(error, Err(DiagError::Missing("udp_diag")));
        assert!(dumper.udp(States::ALL, |_| ()).is_ok());
    }

    #[test]
    fn an_answer_that_was_given_up_half_way_does_not_block_the_next() {
        let mut dumper = Dumper::open().expect("this kernel has sock_diag");
        let body = legacy_request(States::ALL, Info::Without);
        dumper.socket.send(&request(TCP_BOTH_FAMILIES, DUMP, 77, &body)).expect("it is asked");
        dumper.abandoned = true;
        assert!(dumper.tcp(States::ALL, Info::Without, |_| ()).is_ok());
    }
}
