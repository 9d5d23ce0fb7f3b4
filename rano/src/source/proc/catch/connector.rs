//! The kernel's process events (netlink connector, `CN_IDX_PROC`; `include/uapi/linux/cn_proc.h`): every fork, exec and
//! exit. From Linux 6.6 on ordinary users may listen, in the first user, pid and network namespaces.

use std::fmt;
use std::os::fd::{AsFd, AsRawFd as _, BorrowedFd, OwnedFd};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::{Errno, retry_on_intr};
use rustix::net::netlink::{CONNECTOR, SocketAddrNetlink};
use rustix::net::sockopt::{set_socket_recv_buffer_size, set_socket_recv_buffer_size_force};
use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, bind, recv, send, socket_with,
};

use super::super::netlink::{Kind, Messages, request, u32_at};

/// `CN_IDX_PROC` and `CN_VAL_PROC`; the first is the multicast group too.
const INDEX: u32 = 1;
const VALUE: u32 = 1;
/// `PROC_CN_MCAST_LISTEN`
const LISTEN: u32 = 1;
/// Length of `struct cn_msg`.
const CONNECTOR_HEADER: usize = 20;
/// `event_data` within `struct proc_event`.
const DATA: usize = 16;
const FORK: u32 = 1;
const EXEC: u32 = 2;
const EXIT: u32 = 0x8000_0000;
/// `NLMSG_DONE`: the type of each message of a connector.
const DONE: u16 = 3;
/// Asked for; the system grants up to `net.core.rmem_max`. An event takes about 800 bytes of it.
const RECEIVE_BUFFER: usize = 4 << 20;
/// A message is 76 bytes and comes alone.
const DATAGRAM: usize = 1024;
/// `PROC_PID_INIT_INO` and `PROC_USER_INIT_INO` (`include/linux/proc_ns.h`).
const FIRST_PID_NAMESPACE: u64 = 0xEFFF_FFFC;
const FIRST_USER_NAMESPACE: u64 = 0xEFFF_FFFD;
/// How long the first event may take, which is made within the call that causes it.
const PATIENCE: Duration = Duration::from_millis(500);

/// What happened to a process; pids are of the first pid namespace.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ProcessEvent {
    Forked {
        parent: u32,
        child: u32,
    },
    Executed {
        pid: u32,
    },
    /// All of its threads have.
    Exited {
        pid: u32,
    },
}

/// Why there are no process events here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refused {
    /// The kernel does not let us listen: older than 6.6, or a network namespace of its own.
    Kernel(Errno),
    /// It let us, and said nothing: another user or pid namespace, or a kernel without `CONFIG_PROC_EVENTS`.
    Silent,
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Kernel(Errno::PERM | Errno::ACCESS) => {
                f.write_str("only root may ask for process events before Linux 6.6")
            }
            Self::Kernel(Errno::CONNREFUSED) => f.write_str("no process events in this network namespace"),
            Self::Kernel(errno) => write!(f, "no process events: {errno}"),
            Self::Silent => f.write_str("no process events in this container or kernel"),
        }
    }
}

/// Listens until it is dropped.
#[derive(Debug)]
pub struct Connector {
    socket: OwnedFd,
    /// Times that the kernel had no room for an event.
    pub overruns: u64,
}

impl Connector {
    /// Whether this works shows by trying: a thread is started, whose birth must be told with our own numbers.
    pub fn open() -> Result<Self, Refused> {
        // Elsewhere the kernel ignores the request.
        if !is_first("pid", FIRST_PID_NAMESPACE) || !is_first("user", FIRST_USER_NAMESPACE) {
            return Err(Refused::Silent);
        }
        let socket = open().map_err(Refused::Kernel)?;
        let connector = Self { socket, overruns: 0 };
        connector.probe()?;
        filter_threads(&connector.socket).map_err(Refused::Kernel)?;
        Ok(connector)
    }

    fn probe(&self) -> Result<(), Refused> {
        let born = std::thread::Builder::new()
            .stack_size(64 * 1024)
            .spawn(|| rustix::thread::gettid().as_raw_nonzero());
        let thread = born.ok().and_then(|thread| thread.join().ok()).ok_or(Refused::Silent)?;
        let expected = (rustix::process::getpid().as_raw_nonzero().get(), thread.get());
        let patience = Timespec::try_from(PATIENCE).unwrap_or_default();
        let mut buffer = [0; DATAGRAM];
        loop {
            match poll(&mut [PollFd::new(&self.socket, PollFlags::IN)], Some(&patience)) {
                Ok(0) => return Err(Refused::Silent),
                Ok(_) | Err(Errno::INTR) => {}
                Err(errno) => return Err(Refused::Kernel(errno)),
            }
            match retry_on_intr(|| recv(&self.socket, &mut buffer[..], RecvFlags::DONTWAIT)) {
                Ok((length, _)) => match births(&buffer[..length]) {
                    Some(Birth::Refused(errno)) => return Err(Refused::Kernel(errno)),
                    Some(Birth::Of { process, thread })
                        if (process.cast_signed(), thread.cast_signed()) == expected =>
                    {
                        return Ok(());
                    }
                    Some(Birth::Of { .. }) | None => {}
                },
                Err(Errno::AGAIN | Errno::NOBUFS) => {}
                Err(errno) => return Err(Refused::Kernel(errno)),
            }
        }
    }

    /// Passes on what has come, oldest first, at most `limit`. Whether that is all there was.
    pub fn read(&mut self, limit: usize, mut each: impl FnMut(ProcessEvent)) -> Result<bool, Errno> {
        let mut buffer = [0; DATAGRAM];
        for _ in 0..limit {
            match retry_on_intr(|| recv(&self.socket, &mut buffer[..], RecvFlags::DONTWAIT)) {
                Ok((length, _)) => parse(&buffer[..length], &mut each),
                Err(Errno::AGAIN) => return Ok(true),
                Err(Errno::NOBUFS) => self.overruns += 1,
                Err(errno) => return Err(errno),
            }
        }
        Ok(false)
    }
}

impl AsFd for Connector {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

fn is_first(kind: &str, inode: u64) -> bool {
    let found = std::fs::metadata(format!("/proc/self/ns/{kind}"));
    found.is_ok_and(|found| std::os::unix::fs::MetadataExt::ino(&found) == inode)
}

fn open() -> Result<OwnedFd, Errno> {
    let socket =
        socket_with(AddressFamily::NETLINK, SocketType::DGRAM, SocketFlags::CLOEXEC, Some(CONNECTOR))?;
    // The second works for everybody, up to net.core.rmem_max.
    let _ = set_socket_recv_buffer_size_force(&socket, RECEIVE_BUFFER)
        .or_else(|_| set_socket_recv_buffer_size(&socket, RECEIVE_BUFFER));
    bind(&socket, &SocketAddrNetlink::new(0, INDEX))?;
    let mut message = Vec::with_capacity(CONNECTOR_HEADER + 8);
    for word in [INDEX, VALUE, 0, 0] {
        message.extend_from_slice(&word.to_ne_bytes());
    }
    // `struct proc_input` with the events that are wanted, from Linux 6.6 on; before, only its first word is taken.
    message.extend_from_slice(&8u16.to_ne_bytes());
    message.extend_from_slice(&0u16.to_ne_bytes());
    message.extend_from_slice(&LISTEN.to_ne_bytes());
    message.extend_from_slice(&(FORK | EXEC | EXIT).to_ne_bytes());
    let ask = |body: &[u8]| retry_on_intr(|| send(&socket, &request(DONE, 0, 0, body), SendFlags::empty()));
    ask(&message)?;
    Ok(socket)
}

/// The body of a `struct proc_event`, with what it is.
fn events(datagram: &[u8]) -> impl Iterator<Item = (u32, &[u8])> {
    Messages::new(datagram).filter_map(|message| {
        let message = message.ok()?;
        // The connector sends everything as `NLMSG_DONE`, whose body is read for an errno that it is not.
        if !matches!(message.kind, Kind::Done(_))
            || u32_at(message.body, 0)? != INDEX
            || u32_at(message.body, 4)? != VALUE
        {
            return None;
        }
        let event = message.body.get(CONNECTOR_HEADER..)?;
        Some((u32_at(event, 0)?, event.get(DATA..)?))
    })
}

/// Passes on the events of whole processes in any bytes.
pub fn parse(datagram: &[u8], each: &mut impl FnMut(ProcessEvent)) {
    for (what, data) in events(datagram) {
        let word = |at: usize| u32_at(data, at * 4).filter(|&pid| pid > 0);
        let event = match what {
            FORK => match (word(1), word(2), word(3)) {
                (Some(parent), Some(thread), Some(child)) if thread == child => {
                    Some(ProcessEvent::Forked { parent, child })
                }
                _ => None,
            },
            EXEC => word(1).map(|pid| ProcessEvent::Executed { pid }),
            EXIT => match (word(0), word(1)) {
                (Some(thread), Some(pid)) if thread == pid => Some(ProcessEvent::Exited { pid }),
                _ => None,
            },
            _ => None,
        };
        if let Some(event) = event {
            each(event);
        }
    }
}

enum Birth {
    Of { process: u32, thread: u32 },
    Refused(Errno),
}

fn births(datagram: &[u8]) -> Option<Birth> {
    events(datagram).find_map(|(what, data)| match what {
        FORK => Some(Birth::Of { thread: u32_at(data, 8)?, process: u32_at(data, 12)? }),
        // `PROC_EVENT_NONE` answers the request, with an errno.
        0 => match u32_at(data, 0)? {
            errno @ 1..=4095 => Some(Birth::Refused(Errno::from_raw_os_error(errno.cast_signed()))),
            _ => None,
        },
        _ => None,
    })
}

/// Has the kernel leave out births and ends of threads, which are many.
fn filter_threads(socket: &OwnedFd) -> Result<(), Errno> {
    // Of the whole datagram; a load turns the byte order round.
    const WHAT: u32 = 36;
    let word = |number: u32| WHAT + 16 + number * 4;
    let load = |at| statement(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, at, 0, 0);
    let is = |value: u32, yes, no| {
        statement(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, u32::from_be(value), yes, no)
    };
    let same = |yes, no| statement(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_X, 0, yes, no);
    let keep = statement(libc::BPF_MISC | libc::BPF_TAX, 0, 0, 0);
    let answer = |length| statement(libc::BPF_RET | libc::BPF_K, length, 0, 0);
    let mut program = [
        load(WHAT),
        is(FORK, 2, 0),
        is(EXIT, 5, 0),
        is(EXEC, 8, 9),
        // A fork: the child's thread and process.
        load(word(2)),
        keep,
        load(word(3)),
        same(4, 5),
        // An exit: the thread and its process.
        load(word(0)),
        keep,
        load(word(1)),
        same(0, 1),
        answer(u32::MAX),
        answer(0),
    ];
    let filter = libc::sock_fprog {
        len: libc::c_ushort::try_from(program.len()).expect("a dozen"),
        filter: program.as_mut_ptr(),
    };
    // SAFETY: the option takes a `sock_fprog`, whose pointer and length are those of `program`, which outlives it.
    let result = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_ATTACH_FILTER,
            std::ptr::from_ref(&filter).cast(),
            libc::socklen_t::try_from(size_of_val(&filter)).expect("a few bytes"),
        )
    };
    if result == 0 {
        Ok(())
    } else {
        Err(Errno::from_io_error(&std::io::Error::last_os_error()).unwrap_or(Errno::IO))
    }
}

fn statement(code: u32, k: u32, jt: u8, jf: u8) -> libc::sock_filter {
    libc::sock_filter { code: libc::c_ushort::try_from(code).expect("codes have 16 bits"), jt, jf, k }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn datagram(what: u32, words: &[u32]) -> Vec<u8> {
        let mut body = Vec::new();
        for word in [INDEX, VALUE, 7, 0] {
            body.extend_from_slice(&word.to_ne_bytes());
        }
        body.extend_from_slice(&40u16.to_ne_bytes());
        body.extend_from_slice(&0u16.to_ne_bytes());
        body.extend_from_slice(&what.to_ne_bytes());
        body.extend_from_slice(&[0; 12]);
        for word in words {
            body.extend_from_slice(&word.to_ne_bytes());
        }
        request(DONE, 0, 0, &body)
    }

    fn parsed(datagram: &[u8]) -> Vec<ProcessEvent> {
        let mut events = Vec::new();
        parse(datagram, &mut |event| events.push(event));
        events
    }

    #[test]
    fn whole_processes_are_told_and_threads_are_not() {
        let forked = ProcessEvent::Forked { parent: 20, child: 30 };
        assert_eq!(parsed(&datagram(FORK, &[21, 20, 30, 30])), [forked]);
        assert_eq!(parsed(&datagram(FORK, &[20, 20, 31, 20])), [], "a thread");
        assert_eq!(parsed(&datagram(EXEC, &[30, 30])), [ProcessEvent::Executed { pid: 30 }]);
        assert_eq!(parsed(&datagram(EXIT, &[30, 30, 0, 17, 20, 20])), [ProcessEvent::Exited { pid: 30 }]);
        assert_eq!(parsed(&datagram(EXIT, &[31, 30, 0, 17, 20, 20])), [], "a thread");
        assert_eq!(parsed(&datagram(0x200, &[30, 30, 1, 2, 3, 4])), [], "a rename");
    }

    #[test]
    fn any_bytes_are_accepted() {
        for what in [0, FORK, EXEC, EXIT, 77] {
            let whole = datagram(what, &[1, 1, 2, 2, 3, 3]);
            for end in 0..whole.len() {
                let _ = parsed(&whole[..end]);
                let mut broken = whole.clone();
                broken[end] ^= 0xff;
                let _ = (parsed(&broken), births(&broken).is_some());
            }
        }
        assert_eq!(parsed(&datagram(FORK, &[0, 0, 0, 0])), []);
    }

    #[test]
    fn the_life_of_a_child_is_told_where_the_kernel_tells_anything() {
        let mut connector = match Connector::open() {
            Ok(connector) => connector,
            Err(refused) => return println!("not tried: {refused}"),
        };
        std::thread::spawn(|| ()).join().expect("no panic");
        let mut child = std::process::Command::new("true").spawn().expect("true is installed");
        let pid = child.id();
        child.wait().expect("it ends");
        let mut of_child = Vec::new();
        let deadline = std::time::Instant::now() + Duration::from_secs(50);
        while of_child.last() != Some(&ProcessEvent::Exited { pid }) {
            assert!(std::time::Instant::now() < deadline, "{of_child:?}");
            let all = connector.read(100, |event| match event {
                ProcessEvent::Forked { child, .. } if child != pid => {}
                ProcessEvent::Executed { pid: other } | ProcessEvent::Exited { pid: other }
                    if other != pid => {}
                event => of_child.push(event),
            });
            all.expect("it can be read");
            std::thread::yield_now();
        }
        let parent = std::process::id();
        let forked = ProcessEvent::Forked { parent, child: pid };
        assert_eq!(of_child, [forked, ProcessEvent::Executed { pid }, ProcessEvent::Exited { pid }]);
    }
}
