//! Who makes a call and with what, read while the caller stands still. Nothing here allocates or panics.

use std::ffi::CStr;
use std::io::Write as _;
use std::net::{IpAddr, SocketAddr, SocketAddrV6};
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};

use libc::seccomp_notif;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{CWD, Mode, OFlags};
use rustix::process::{Pid, PidfdFlags, PidfdGetfdFlags, pidfd_getfd, pidfd_open};

use super::record::{Facts, Who};
use super::sys;
use crate::source::proc::stat::Stat;

/// Threads whose process is remembered.
const THREADS: usize = 128;
/// A stat line has 52 numbers and a name.
const STAT: usize = 1024;

/// What is known of a thread that called before.
#[derive(Debug)]
pub(super) struct Known {
    pub(super) thread: u32,
    pub(super) who: Who,
    /// What it ran when it was told of.
    pub(super) program: u64,
    /// It was about to run another program.
    pub(super) is_stale: bool,
    pidfd: OwnedFd,
}

/// Callers by thread.
#[derive(Debug)]
pub(super) struct Callers {
    slots: [Option<Known>; THREADS],
}

/// The stat line of a process, in the form that is kept.
#[derive(Debug, Clone, Copy)]
pub(super) struct Line {
    pub(super) who: Who,
    pub(super) parent: u32,
    pub(super) program: u64,
    comm: [u8; 64],
    comm_length: usize,
}

impl Line {
    pub(super) fn comm(&self) -> &[u8] {
        self.comm.get(..self.comm_length).unwrap_or_default()
    }
}

/// A path below /proc.
struct ProcPath([u8; 48]);

impl ProcPath {
    fn new(arguments: std::fmt::Arguments<'_>) -> Self {
        let mut path = [0; 48];
        // One that is too long ends up as another one, which does not exist.
        let _ = path[..47].as_mut().write_fmt(arguments);
        Self(path)
    }

    fn text(&self) -> &CStr {
        CStr::from_bytes_until_nul(&self.0).unwrap_or_default()
    }
}

/// As much of a file as fits.
fn read_file<'b>(path: &ProcPath, into: &'b mut [u8]) -> Option<&'b [u8]> {
    let file = rustix::fs::openat(CWD, path.text(), OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty()).ok()?;
    let mut length = 0;
    while let Some(room) = into.get_mut(length..).filter(|room| !room.is_empty()) {
        match rustix::io::read(&file, room) {
            Ok(0) | Err(_) => break,
            Ok(count) => length += count,
        }
    }
    into.get(..length)
}

pub(super) fn line_of(pid: u32) -> Option<Line> {
    let mut bytes = [0; STAT];
    let stat = Stat::parse(read_file(&ProcPath::new(format_args!("/proc/{pid}/stat")), &mut bytes)?)?;
    let mut line = Line {
        who: Who { pid, start_time: stat.start_time },
        parent: stat.parent,
        program: stat.program.unwrap_or(0),
        comm: [0; 64],
        comm_length: 0,
    };
    if let (Some(place), Some(comm)) =
        (line.comm.get_mut(..stat.comm.len().min(64)), stat.comm.get(..stat.comm.len().min(64)))
    {
        place.copy_from_slice(comm);
        line.comm_length = comm.len();
    }
    Some(line)
}

/// The processes that descend from one. This one allocates: it is for rano's side.
pub(super) fn descendants(of: u32) -> Vec<u32> {
    let Ok(entries) = std::fs::read_dir("/proc") else { return Vec::new() };
    let names = entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    let lines: Vec<Line> = names.filter_map(line_of).collect();
    let (mut found, mut at) = (vec![of], 0);
    while let Some(&above) = found.get(at) {
        found.extend(lines.iter().filter(|line| line.parent == above).map(|line| line.who.pid));
        at += 1;
    }
    found.remove(0);
    found
}

/// Whether this process has a controlling terminal (`tty_nr`, the fifth field behind the name).
pub(super) fn has_terminal() -> bool {
    let mut bytes = [0; STAT];
    let line = read_file(&ProcPath::new(format_args!("/proc/self/stat")), &mut bytes).unwrap_or_default();
    let fields = line.iter().rposition(|&byte| byte == b')').and_then(|at| line.get(at + 2..));
    let terminal = fields.and_then(|fields| fields.split(|&byte| byte == b' ').nth(4));
    terminal.is_some_and(|number| number != b"0")
}

/// Whether a process was stopped by a signal.
pub(super) fn stands_still(pid: u32) -> bool {
    let mut bytes = [0; STAT];
    let line = read_file(&ProcPath::new(format_args!("/proc/{pid}/stat")), &mut bytes).unwrap_or_default();
    let state = line.iter().rposition(|&byte| byte == b')').and_then(|at| line.get(at + 2));
    state == Some(&b'T')
}

/// Effective user of a process: whose its directory is.
pub(super) fn uid_of(pid: u32) -> u32 {
    let path = ProcPath::new(format_args!("/proc/{pid}"));
    rustix::fs::stat(path.text()).map_or(u32::MAX, |stat| stat.st_uid)
}

/// Where one of a process's links leads; one that does not fit is as good as none.
pub(super) fn link_of<'b>(pid: u32, link: &str, into: &'b mut [u8]) -> &'b [u8] {
    let room = into.len();
    let path = ProcPath::new(format_args!("/proc/{pid}/{link}"));
    match rustix::fs::readlinkat_raw(CWD, path.text(), &mut *into) {
        Ok(length) if length < room => into.get(..length).unwrap_or_default(),
        Ok(_) | Err(_) => &[],
    }
}

/// As `/proc/<pid>/cmdline` has them.
pub(super) fn arguments_of(pid: u32, into: &mut [u8]) -> &[u8] {
    read_file(&ProcPath::new(format_args!("/proc/{pid}/cmdline")), into).unwrap_or_default()
}

/// Inode of the network namespace that a thread is in.
fn netns_of(thread: u32) -> u32 {
    let mut target = [0; 32];
    let path = ProcPath::new(format_args!("/proc/{thread}/ns/net"));
    let Ok(length) = rustix::fs::readlinkat_raw(CWD, path.text(), &mut target[..]) else { return 0 };
    let digits = target.get(5..length.saturating_sub(1)).unwrap_or_default();
    std::str::from_utf8(digits).ok().and_then(|digits| digits.parse().ok()).unwrap_or(0)
}

/// The process that a thread belongs to.
fn process_of(thread: u32) -> Option<u32> {
    let mut bytes = [0; 512];
    let status = read_file(&ProcPath::new(format_args!("/proc/{thread}/status")), &mut bytes)?;
    let at = status.windows(6).position(|window| window == b"Tgid:\t")?;
    let digits = status.get(at + 6..)?.split(|byte| !byte.is_ascii_digit()).next()?;
    std::str::from_utf8(digits).ok()?.parse().ok()
}

fn open_pidfd(pid: u32) -> Option<OwnedFd> {
    let pid = i32::try_from(pid).ok().and_then(Pid::from_raw)?;
    pidfd_open(pid, PidfdFlags::empty()).ok()
}

fn is_dead(pidfd: &OwnedFd) -> bool {
    let now = Timespec { tv_sec: 0, tv_nsec: 0 };
    let mut fds = [PollFd::new(pidfd, PollFlags::IN)];
    !matches!(poll(&mut fds, Some(&now)), Ok(0))
}

impl Callers {
    pub(super) fn new() -> Self {
        Self { slots: [const { None }; THREADS] }
    }

    /// Who a thread that stands still belongs to, and its stat line where that was read. `None`: it is gone, or /proc
    /// does not show it.
    pub(super) fn identify(&mut self, thread: u32) -> Option<(&mut Known, Option<Line>)> {
        let slot = self.slots.get_mut(thread as usize % THREADS)?;
        if slot.as_ref().is_some_and(|known| known.thread == thread && known.still_holds()) {
            let known = slot.as_mut()?;
            // It may run another program by now.
            let line = if known.is_stale { line_of(known.who.pid) } else { None };
            known.is_stale = false;
            return Some((known, line));
        }
        // What leads no group of threads has no pidfd of this kind.
        let (pid, pidfd) = if let Some(pidfd) = open_pidfd(thread) {
            (thread, pidfd)
        } else {
            let pid = process_of(thread)?;
            (pid, open_pidfd(pid)?)
        };
        let line = line_of(pid)?;
        let known = Known { thread, who: line.who, program: 0, is_stale: false, pidfd };
        Some((slot.insert(known), Some(line)))
    }

    /// A process is about to run another program.
    pub(super) fn expect_exec(&mut self, who: Who) {
        for known in self.slots.iter_mut().flatten().filter(|known| known.who == who) {
            known.is_stale = true;
        }
    }
}

impl Known {
    /// The thread's number is still its own, and its process is alive.
    fn still_holds(&self) -> bool {
        if is_dead(&self.pidfd) {
            return false;
        }
        if self.thread == self.who.pid {
            return true;
        }
        let path = ProcPath::new(format_args!("/proc/{}/task/{}", self.who.pid, self.thread));
        rustix::fs::access(path.text(), rustix::fs::Access::EXISTS).is_ok()
    }

    /// Another descriptor for one of its files; to be closed at once.
    fn descriptor(&self, number: i32) -> rustix::io::Result<OwnedFd> {
        pidfd_getfd(&self.pidfd, number, PidfdGetfdFlags::empty())
    }
}

/// What a descriptor of the caller's turned out to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Socket {
    Inet(Facts),
    /// A unix socket, another kind, or none.
    Other,
    /// It may not be looked at.
    Refused,
}

/// Tells the supervisor's own network namespace from others.
#[derive(Debug, Clone, Copy)]
pub(super) struct OwnNetns {
    pub(super) inode: u32,
    pub(super) cookie: Option<u64>,
}

impl OwnNetns {
    pub(super) fn ask() -> Self {
        let socket =
            rustix::net::socket(rustix::net::AddressFamily::UNIX, rustix::net::SocketType::DGRAM, None);
        let cookie = socket.ok().and_then(|socket| sys::netns_cookie(socket.as_fd()).ok());
        let inode =
            rustix::fs::stat(c"/proc/self/ns/net").ok().and_then(|stat| u32::try_from(stat.st_ino).ok());
        Self { inode: inode.unwrap_or(0), cookie }
    }
}

/// Looks at one of the caller's sockets. `ends`: with its addresses.
pub(super) fn socket(known: &Known, number: i32, ends: bool, own: OwnNetns) -> Socket {
    if number < 0 {
        return Socket::Other;
    }
    let Ok(socket) = known.descriptor(number) else {
        return Socket::Refused;
    };
    describe(socket.as_fd(), known.thread, ends, own).map_or(Socket::Other, Socket::Inet)
}

fn describe(socket: BorrowedFd<'_>, thread: u32, ends: bool, own: OwnNetns) -> Option<Facts> {
    use rustix::net::sockopt;
    let family = sockopt::socket_domain(socket).ok()?.as_raw();
    if !matches!(i32::from(family), libc::AF_INET | libc::AF_INET6) {
        return None;
    }
    let protocol = sockopt::socket_protocol(socket).ok()?.map_or(0, |protocol| protocol.as_raw().get());
    let netns = match (sys::netns_cookie(socket).ok(), own.cookie) {
        (Some(cookie), Some(own)) if cookie == own => 0,
        _ => netns_of(thread),
    };
    let (local, peer) = if ends {
        let local = rustix::net::getsockname(socket).ok().and_then(|end| SocketAddr::try_from(end).ok());
        let peer = rustix::net::getpeername(socket).ok().flatten();
        (local, peer.and_then(|end| SocketAddr::try_from(end).ok()))
    } else {
        (None, None)
    };
    Some(Facts {
        cookie: sockopt::socket_cookie(socket).ok()?,
        inode: if netns == 0 { 0 } else { rustix::fs::fstat(socket).map_or(0, |stat| stat.st_ino) },
        netns: if netns == own.inode { 0 } else { netns },
        family,
        protocol: u16::try_from(protocol).unwrap_or(0),
        local,
        peer,
    })
}

/// What a socket address in the caller's memory says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Passed {
    Address(SocketAddr),
    /// `AF_UNSPEC`: the socket is to forget its peer.
    Nobody,
    /// Another family.
    Other,
    /// It may not be read.
    Refused,
}

pub(super) fn address(thread: u32, at: u64, length: u64) -> Passed {
    let mut bytes = [0; 28];
    let length = usize::try_from(length).unwrap_or(usize::MAX).min(bytes.len());
    let Some(room) = bytes.get_mut(..length).filter(|room| room.len() >= 2) else { return Passed::Other };
    match sys::read_memory(thread, at, room) {
        Ok(count) if count == length => parse(room),
        // Nothing is there: the call will fail.
        Err(rustix::io::Errno::FAULT) | Ok(_) => Passed::Other,
        Err(_) => Passed::Refused,
    }
}

/// `struct sockaddr_in` and `sockaddr_in6`.
fn parse(bytes: &[u8]) -> Passed {
    let word = |at: usize| bytes.get(at..).and_then(|rest| rest.first_chunk::<4>()).copied();
    let Some([family_low, family_high, port_high, port_low]) = word(0) else { return Passed::Other };
    let port = u16::from_be_bytes([port_high, port_low]);
    match i32::from(u16::from_ne_bytes([family_low, family_high])) {
        libc::AF_UNSPEC => Passed::Nobody,
        libc::AF_INET => {
            word(4).map_or(Passed::Other, |ip| Passed::Address(SocketAddr::new(IpAddr::from(ip), port)))
        }
        libc::AF_INET6 => {
            let Some(ip) = bytes.get(8..).and_then(|rest| rest.first_chunk::<16>()).copied() else {
                return Passed::Other;
            };
            let zone = word(24).map_or(0, u32::from_ne_bytes);
            Passed::Address(SocketAddrV6::new(ip.into(), port, 0, zone).into())
        }
        _ => Passed::Other,
    }
}

/// The arguments of a call, fetched from memory where they lie there.
pub(super) fn arguments(notification: &seccomp_notif, is_indirect: bool) -> [u64; 6] {
    let registers = notification.data.args;
    if !is_indirect {
        return registers;
    }
    let mut words = [0; 24];
    let [_, at, ..] = registers;
    if sys::read_memory(notification.pid, at, &mut words).is_err() {
        return [0; 6];
    }
    let mut arguments = [0; 6];
    for (argument, word) in arguments.iter_mut().zip(words.as_chunks::<4>().0) {
        *argument = u64::from(u32::from_ne_bytes(*word));
    }
    arguments
}
