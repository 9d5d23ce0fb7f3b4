//! The process between rano and the command: parent of the command, and of what loses its parent below it. Where the
//! filter is installed, it answers every call that the kernel asks about, always with "go on", after it has told who
//! calls what. A listener that nobody answers cuts the command's network for good, so this process ends only when no
//! child is left, ignores what can be ignored, and neither allocates nor panics once the command runs.
//!
//! It has the filter itself: what it forks has it from its first instruction, and it makes none of those calls.

use std::ffi::c_int;
use std::os::fd::{AsFd as _, OwnedFd};

use libc::seccomp_notif;
use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;
use rustix::time::{ClockId, clock_gettime};

use super::caller::{self, Callers, Known, Line, OwnNetns, Passed, Socket};
use super::cursor::Out;
use super::filter::{self, Call, Entry};
use super::message;
use super::record::{self, Facts, Way, Who, kind};
use super::sys::{self, Arguments};

/// Orders, a byte each.
pub(super) const INSTALL: u8 = b'F';
/// The same without the calls that only send datagrams.
pub(super) const INSTALL_WITHOUT_DATAGRAMS: u8 = b'f';
pub(super) const START: u8 = b'S';

/// Exit codes of a command that cannot be run, as a shell has them (POSIX, Shell Command Language, 2.8.2).
pub(super) const NOT_EXECUTABLE: c_int = 126;
pub(super) const NOT_FOUND: c_int = 127;

/// Where look-ups go.
const DNS: u16 = 53;
/// Ancestors of a caller that are told with it.
const ANCESTORS: usize = 64;
/// Processes that were told, and flows that were; the next one with the same place takes it.
const TOLD: usize = 1024;
/// Messages of one `sendmmsg` that are looked at.
const MESSAGES: u64 = 32;
/// Standing still, as `waitpid` has it.
const STOPPED: c_int = 0x7f;
/// Going on after it stood still.
const CONTINUED: c_int = 0xffff;

/// This end of the pipes.
pub(super) struct Ends {
    pub(super) orders: OwnedFd,
    pub(super) records: OwnedFd,
    /// A byte lets the command run, the end of it ends it.
    pub(super) go: OwnedFd,
}

/// Does what it is told until there is nothing left to do. Called in a process of its own.
pub(super) fn run(ends: Ends, command: &Arguments, programs: [Vec<libc::sock_filter>; 2]) -> ! {
    let _ = rustix::process::set_child_subreaper(Some(rustix::process::getpid()));
    let _ = rustix::thread::set_name(c"rano-run");
    let own = OwnNetns::ask();
    let rano = std::os::unix::process::parent_id();
    let mut teller = Teller { records: ends.records, out: Out::new(), lost: 0, is_unheard: false };
    let mut listener = None;
    loop {
        let mut order = [0];
        match rustix::io::read(&ends.orders, &mut order) {
            Err(Errno::INTR) => {}
            Ok(0) | Err(_) => sys::exit(0),
            Ok(_) => match order[0] {
                INSTALL | INSTALL_WITHOUT_DATAGRAMS if listener.is_none() => {
                    let program = &programs[usize::from(order[0] == INSTALL_WITHOUT_DATAGRAMS)];
                    let installed = sys::install(program);
                    let errno = installed.as_ref().err().map_or(0, |errno| errno.raw_os_error());
                    teller.tell(kind::INSTALLED, |out| out.i32(errno));
                    listener = installed.ok().map(|(listener, _)| listener);
                }
                START => break,
                _ => {}
            },
        }
    }
    drop(programs);
    let mask = sys::block_sigchld();
    let child = match sys::fork() {
        Ok(Some(pid)) => pid,
        Ok(None) => {
            mask.restore();
            become_command(&ends.go, command, &mut teller);
        }
        Err(errno) => {
            teller.tell(kind::NOT_RUN, |out| out.i32(errno.raw_os_error()));
            sys::exit(0)
        }
    };
    let Ok(children) = sys::sigchld_descriptor() else { sys::exit(0) };
    drop(ends.go);
    drop(ends.orders);
    sys::ignore_signals();
    let _ = rustix::process::setsid();
    let _ = rustix::process::chdir(c"/");
    let mut kept =
        [Some(children.as_fd()), Some(teller.records.as_fd()), listener.as_ref().map(OwnedFd::as_fd)];
    kept.sort_unstable_by_key(|descriptor| {
        descriptor.map_or(i32::MAX, |fd| std::os::fd::AsRawFd::as_raw_fd(&fd))
    });
    let kept = kept.map(|descriptor| descriptor.unwrap_or_else(|| children.as_fd()));
    sys::let_go_of_descriptors(&kept);
    if let Some(listener) = &listener {
        sys::wake_up_in_place(listener.as_fd());
        let flags = rustix::io::fcntl_getfd(listener).unwrap_or(rustix::io::FdFlags::empty());
        let _ = rustix::io::fcntl_setfd(listener, flags | rustix::io::FdFlags::CLOEXEC);
    }
    let _ = rustix::io::ioctl_fionbio(&teller.records, true);
    let line = caller::line_of(child).map_or(Who { pid: child, start_time: 0 }, |line| line.who);
    teller.tell(kind::STARTED, |out| record::put_who(out, line));
    let mut supervisor = Supervisor {
        child,
        own_pid: std::process::id(),
        rano,
        children,
        listener,
        own,
        teller,
        callers: Callers::new(),
        processes: vec![(Who { pid: 0, start_time: 0 }, 0); TOLD].into_boxed_slice(),
        flows: vec![0; TOLD].into_boxed_slice(),
    };
    supervisor.watch()
}

/// The copy that runs the command, once it is let.
fn become_command(go: &OwnedFd, command: &Arguments, teller: &mut Teller) -> ! {
    sys::default_sigpipe();
    loop {
        match rustix::io::read(go, &mut [0]) {
            Err(Errno::INTR) => {}
            Ok(1) => break,
            Ok(_) | Err(_) => sys::exit(0),
        }
    }
    let errno = command.execute();
    teller.tell(kind::NOT_RUN, |out| out.i32(errno.raw_os_error()));
    sys::exit(if errno == Errno::NOENT { NOT_FOUND } else { NOT_EXECUTABLE })
}

/// Tells rano; what finds no room is counted.
struct Teller {
    records: OwnedFd,
    out: Out,
    lost: u64,
    /// Nobody reads any more.
    is_unheard: bool,
}

impl Teller {
    fn tell(&mut self, kind: u8, fill: impl FnOnce(&mut Out)) {
        if self.is_unheard {
            return;
        }
        if self.lost > 0 {
            self.out.begin(kind::LOST);
            self.out.u64(self.lost);
            if self.write() {
                self.lost = 0;
            }
        }
        self.out.begin(kind);
        fill(&mut self.out);
        if !self.write() {
            self.lost = self.lost.saturating_add(1);
        }
    }

    fn write(&mut self) -> bool {
        let bytes = self.out.finish();
        loop {
            match rustix::io::write(&self.records, bytes) {
                Ok(_) => return true,
                Err(Errno::INTR) => {}
                Err(Errno::PIPE) => {
                    self.is_unheard = true;
                    return true;
                }
                Err(_) => return false,
            }
        }
    }
}

struct Supervisor {
    child: u32,
    own_pid: u32,
    rano: u32,
    children: OwnedFd,
    listener: Option<OwnedFd>,
    own: OwnNetns,
    teller: Teller,
    callers: Callers,
    /// Processes that were told, by pid, and what they ran.
    processes: Box<[(Who, u64)]>,
    /// Datagram flows that were told, by a hash of them.
    flows: Box<[u64]>,
}

/// A caller and what it asks for.
struct Asked {
    thread: u32,
    who: Who,
    entry: Entry,
    arguments: [u64; 6],
    at_ns: u64,
}

impl Supervisor {
    fn watch(&mut self) -> ! {
        loop {
            let (mut has_call, mut has_child) = (false, false);
            {
                let quiet = self.listener.as_ref().map_or(self.children.as_fd(), OwnedFd::as_fd);
                let mut fds =
                    [PollFd::new(&self.children, PollFlags::IN), PollFd::new(&quiet, PollFlags::IN)];
                if poll(&mut fds, None).is_ok() {
                    has_child = !fds[0].revents().is_empty();
                    has_call = self.listener.is_some() && fds[1].revents().contains(PollFlags::IN);
                }
            }
            if has_call {
                self.answer_next();
            }
            if has_child {
                self.look_after_children();
            }
        }
    }

    fn answer_next(&mut self) {
        let Some(listener) = &self.listener else { return };
        // It may have been killed, or called away by a signal.
        let Ok(notification) = sys::receive(listener.as_fd()) else { return };
        if !self.teller.is_unheard {
            self.tell_of(&notification);
        }
        if let Some(listener) = &self.listener {
            let _ = sys::go_on(listener.as_fd(), notification.id);
        }
    }

    /// The command's process, and those that lost their parent.
    fn look_after_children(&mut self) {
        let mut buffer = [0; 128];
        while rustix::io::read(&self.children, &mut buffer).is_ok_and(|count| count > 0) {}
        loop {
            match sys::next_child() {
                Ok(None) => return,
                Ok(Some((pid, status))) if pid == self.child => {
                    if status == CONTINUED {
                        self.wake_rano();
                    } else if status & 0xff == STOPPED {
                        self.teller.tell(kind::STOPPED, |_| ());
                    } else {
                        self.teller.tell(kind::ENDED, |out| out.i32(status));
                        self.child = 0;
                    }
                }
                Ok(Some(_)) | Err(Errno::INTR) => {}
                Err(_) => self.end(),
            }
        }
    }

    /// rano stands still with the command, and so goes on with it.
    fn wake_rano(&self) {
        let rano = rustix::process::getppid();
        if let Some(rano) = rano.filter(|rano| u32::try_from(rano.as_raw_pid()) == Ok(self.rano)) {
            let _ = rustix::process::kill_process(rano, rustix::process::Signal::CONT);
        }
    }

    /// Nobody is left who could call.
    fn end(&mut self) -> ! {
        // What is still to be told must not be lost for want of room.
        let _ = rustix::io::ioctl_fionbio(&self.teller.records, false);
        if self.teller.lost > 0 {
            let lost = self.teller.lost;
            self.teller.lost = 0;
            self.teller.tell(kind::LOST, |out| out.u64(lost));
        }
        sys::exit(0)
    }

    fn tell_of(&mut self, notification: &seccomp_notif) {
        let at_ns = now_ns();
        let number = u32::from_ne_bytes(notification.data.nr.to_ne_bytes());
        let Some(entry) = filter::entry(notification.data.arch, number, notification.data.args[0]) else {
            return;
        };
        let thread = notification.pid;
        let Some((known, line)) = self.callers.identify(thread) else {
            let is_connect = entry.call == Call::Connect;
            self.teller.tell(kind::UNREAD, |out| put_unread(out, Who::default(), is_connect));
            return;
        };
        let who = known.who;
        let changed = line.filter(|line| line.program != known.program);
        known.program = line.map_or(known.program, |line| line.program);
        if !self.is_waiting(notification) {
            return;
        }
        if let Some(line) = changed {
            self.tell_process(&line, at_ns);
        }
        let arguments = caller::arguments(notification, entry.is_indirect);
        let asked = Asked { thread, who, entry, arguments, at_ns };
        match entry.call {
            Call::Connect => self.connect(&asked, notification),
            Call::SendTo => self.send_to(&asked, notification),
            Call::SendMessage => {
                let [socket, at, ..] = arguments;
                self.send_message(&asked, socket, at, notification);
            }
            Call::SendMessages => {
                let [socket, at, count, ..] = arguments;
                let (_, size) = message::sizes(entry.is_wide);
                for index in 0..count.min(MESSAGES) {
                    self.send_message(&asked, socket, at.wrapping_add(index * size), notification);
                }
            }
            Call::Ring => self.teller.tell(kind::RING, |out| record::put_who(out, who)),
            Call::Exec => self.exec(&asked, 0),
            Call::ExecAt => self.exec(&asked, 1),
        }
    }

    fn is_waiting(&self, notification: &seccomp_notif) -> bool {
        self.listener.as_ref().is_some_and(|listener| sys::still_waits(listener.as_fd(), notification.id))
    }

    fn known(&mut self, thread: u32) -> Option<&mut Known> {
        self.callers.identify(thread).map(|(known, _)| known)
    }

    fn look_at(&mut self, asked: &Asked, number: u64, ends: bool) -> Socket {
        let own = self.own;
        let number = i32::try_from(number & 0xffff_ffff).unwrap_or(-1);
        self.known(asked.thread).map_or(Socket::Refused, |known| caller::socket(known, number, ends, own))
    }

    fn connect(&mut self, asked: &Asked, notification: &seccomp_notif) {
        let [socket, at, length, ..] = asked.arguments;
        let address = match caller::address(asked.thread, at, length & 0xffff_ffff) {
            Passed::Address(address) => Some(address),
            Passed::Nobody | Passed::Other => return,
            Passed::Refused => None,
        };
        let facts = self.look_at(asked, socket, false);
        if !self.is_waiting(notification) {
            return;
        }
        match (facts, address) {
            (Socket::Inet(facts), address) => self.tell_call(asked, Way::Connect, &facts, address),
            (Socket::Refused, Some(_)) | (_, None) => self.tell_unread(asked, true),
            (Socket::Other, Some(_)) => {}
        }
    }

    fn send_to(&mut self, asked: &Asked, notification: &seccomp_notif) {
        let [socket, at, length, _, name, name_length] = asked.arguments;
        let Passed::Address(address) = caller::address(asked.thread, name, name_length & 0xffff_ffff) else {
            return;
        };
        let facts = self.look_at(asked, socket, true);
        if !self.is_waiting(notification) {
            return;
        }
        match facts {
            Socket::Inet(facts) => {
                self.sent(asked, &facts, address);
                if address.port() == DNS {
                    let mut bytes = [0; record::QUESTION];
                    let count = message::plain(asked.thread, at, length, &mut bytes);
                    self.tell_question(asked, &facts, address, bytes.get(..count).unwrap_or_default());
                }
            }
            Socket::Other => {}
            Socket::Refused => self.tell_unread(asked, false),
        }
    }

    fn send_message(&mut self, asked: &Asked, socket: u64, at: u64, notification: &seccomp_notif) {
        let header = message::header(asked.thread, at, asked.entry.is_wide);
        let facts = self.look_at(asked, socket, true);
        if !self.is_waiting(notification) {
            return;
        }
        let facts = match facts {
            Socket::Inet(facts) => facts,
            Socket::Other => return,
            Socket::Refused => return self.tell_unread(asked, false),
        };
        let Some(header) = header else { return };
        let address = if header.name == 0 {
            // A stream was told when it was connected.
            if i32::from(facts.protocol) == libc::IPPROTO_TCP {
                return;
            }
            facts.peer
        } else {
            match caller::address(asked.thread, header.name, header.name_length) {
                Passed::Address(address) => Some(address),
                Passed::Nobody | Passed::Other | Passed::Refused => None,
            }
        };
        let Some(address) = address else { return };
        self.sent(asked, &facts, address);
        if address.port() == DNS {
            let mut bytes = [0; record::QUESTION];
            let beginning = header.beginning(asked.thread, &mut bytes);
            self.tell_question(asked, &facts, address, beginning);
        }
    }

    /// What goes to `address`; of datagrams the first is told.
    fn sent(&mut self, asked: &Asked, facts: &Facts, address: std::net::SocketAddr) {
        if i32::from(facts.protocol) == libc::IPPROTO_TCP {
            return self.tell_call(asked, Way::Connect, facts, Some(address));
        }
        let flow = hash(facts.cookie, &address);
        let place = usize::try_from(flow % TOLD as u64).unwrap_or(0);
        if let Some(place) = self.flows.get_mut(place) {
            if *place == flow {
                return;
            }
            *place = flow;
        }
        self.tell_call(asked, Way::Send, facts, Some(address));
    }

    fn tell_call(&mut self, asked: &Asked, way: Way, facts: &Facts, address: Option<std::net::SocketAddr>) {
        self.teller.tell(kind::CALLED, |out| {
            record::put_who(out, asked.who);
            out.u64(asked.at_ns);
            out.u8(way as u8);
            record::put_facts(out, facts);
            record::put_address(out, address);
        });
    }

    fn tell_unread(&mut self, asked: &Asked, is_connect: bool) {
        let who = asked.who;
        self.teller.tell(kind::UNREAD, |out| put_unread(out, who, is_connect));
    }

    fn tell_question(&mut self, asked: &Asked, facts: &Facts, server: std::net::SocketAddr, bytes: &[u8]) {
        if i32::from(facts.protocol) == libc::IPPROTO_TCP {
            return;
        }
        self.teller.tell(kind::QUESTION, |out| {
            record::put_who(out, asked.who);
            out.u64(asked.at_ns);
            record::put_facts(out, facts);
            record::put_address(out, Some(server));
            out.text(bytes, record::QUESTION);
        });
    }

    /// A program is about to be run: `first` is where the path stands among the arguments.
    fn exec(&mut self, asked: &Asked, first: usize) {
        self.callers.expect_exec(asked.who);
        let at = asked.arguments.get(first).copied().unwrap_or(0);
        let mut path = [0; 256];
        // The path may lie at the end of what can be read.
        let mut count = message::plain(asked.thread, at, path.len() as u64, &mut path);
        if count == 0 {
            let page = 4096 - at % 4096;
            count = message::plain(asked.thread, at, page, &mut path);
        }
        let path = path.get(..count).unwrap_or_default();
        let path = path.split(|&byte| byte == 0).next().unwrap_or_default();
        let who = asked.who;
        self.teller.tell(kind::EXEC, |out| {
            record::put_who(out, who);
            out.text(path, 256);
        });
    }

    /// A process and, before it, those above it that were not told yet as they are.
    fn tell_process(&mut self, line: &Line, at_ns: u64) {
        let mut above = [0u32; ANCESTORS];
        let mut parent = line.parent;
        let mut count = 0;
        for _ in 0..ANCESTORS {
            let Some(place) = above.get_mut(count) else { break };
            if parent <= 1 || parent == self.own_pid {
                break;
            }
            let Some(line) = caller::line_of(parent) else { break };
            if self.told(line.who) != Some(line.program) {
                *place = parent;
                count += 1;
            }
            parent = line.parent;
        }
        for &pid in above.get(..count).unwrap_or_default().iter().rev() {
            if let Some(line) = caller::line_of(pid) {
                self.tell_image(&line, at_ns);
            }
        }
        self.tell_image(line, at_ns);
    }

    /// What a process ran when it was told.
    fn told(&self, who: Who) -> Option<u64> {
        let (told, program) = self.processes.get(who.pid as usize % TOLD)?;
        (*told == who).then_some(*program)
    }

    fn tell_image(&mut self, line: &Line, at_ns: u64) {
        let has_changed = self.told(line.who).is_some_and(|program| program != line.program);
        if let Some(place) = self.processes.get_mut(line.who.pid as usize % TOLD) {
            *place = (line.who, line.program);
        }
        let pid = line.who.pid;
        let (mut exe, mut cwd, mut arguments) = ([0; 512], [0; 256], [0; record::ARGUMENTS]);
        let exe = caller::link_of(pid, "exe", &mut exe);
        let cwd = caller::link_of(pid, "cwd", &mut cwd);
        let arguments = caller::arguments_of(pid, &mut arguments);
        let uid = caller::uid_of(pid);
        self.teller.tell(kind::PROCESS, |out| {
            record::put_who(out, line.who);
            out.u32(line.parent);
            out.u32(uid);
            out.u8(u8::from(has_changed));
            out.u64(at_ns);
            out.text(line.comm(), 64);
            out.text(exe, 512);
            out.text(cwd, 256);
            out.text(arguments, record::ARGUMENTS);
        });
    }
}

fn put_unread(out: &mut Out, who: Who, is_connect: bool) {
    record::put_who(out, who);
    out.u8(u8::from(is_connect));
}

/// Never 0.
fn hash(cookie: u64, address: &std::net::SocketAddr) -> u64 {
    use std::hash::{Hash as _, Hasher as _};
    let mut hasher = rustc_hash::FxHasher::default();
    cookie.hash(&mut hasher);
    address.hash(&mut hasher);
    hasher.finish() | 1
}

/// Boot clock.
fn now_ns() -> u64 {
    let now = clock_gettime(ClockId::Boottime);
    let seconds = u64::try_from(now.tv_sec).unwrap_or(0);
    seconds.wrapping_mul(1_000_000_000).wrapping_add(u64::try_from(now.tv_nsec).unwrap_or(0))
}
