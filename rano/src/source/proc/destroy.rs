//! What the kernel tells any user about TCP and UDP sockets as they are destroyed in its network namespace
//! (`sock_diag` multicast, what `ss -E` shows): read on a thread of its own, handed over in a bounded queue.

use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Context as _, Result};
use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll};
use rustix::io::{Errno, retry_on_intr};
use rustix::net::RecvFlags;
use rustix::net::sockopt::{set_socket_recv_buffer_size, set_socket_recv_buffer_size_force};
use rustix::thread::CapabilitySet;
use rustix::time::{ClockId, clock_gettime};

use super::gate::{Gate, OWN_NAMESPACE};
use super::inet::{Counters, InetSocket};
use super::netlink::{Kind, Messages, Socket};
use super::throttle::{RateLimits, Throttle};
use crate::event::{Moment, Protocol};
use crate::privileges;

/// `SKNLGRP_INET_TCP_DESTROY` and `SKNLGRP_INET6_TCP_DESTROY` as bits.
const TCP_GROUPS: u32 = 0b0101;
/// `SKNLGRP_INET_UDP_DESTROY` and `SKNLGRP_INET6_UDP_DESTROY` as bits.
const UDP_GROUPS: u32 = 0b1010;
/// `NETLINK_NO_ENOBUFS`
const NO_ENOBUFS: libc::c_int = 5;
/// A message is about 400 bytes, each in a datagram of its own.
const DATAGRAM: usize = 8 * 1024;
/// Messages read between two hand-overs.
const BATCH: usize = 256;

/// A socket that has ended. Owner and inode are not told, and the kernel's last state is always closed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Destroyed {
    /// The one that dumps showed, if one did.
    pub cookie: u64,
    pub protocol: Protocol,
    pub local: SocketAddr,
    /// `None`: a listener, never connected, or disconnected.
    pub remote: Option<SocketAddr>,
    /// Disconnected before it ended, which clears the remote port and the counters (`tcp_disconnect()`): by a
    /// blocking connect that failed, or a close with `SO_LINGER` 0. Where the connection led to.
    pub disconnected_from: Option<IpAddr>,
    pub interface: u32,
    /// `rcv_nxt` − `copied_seq`: payload not read by the application, and an unread FIN.
    pub receive_queue: u32,
    /// `write_seq` − `snd_una`: payload and FIN not acknowledged.
    pub send_queue: u32,
    /// TCP only.
    pub counters: Option<Counters>,
    /// When the message was received: shortly after the socket's release, which is not `close()`.
    pub at: Moment,
}

/// How to listen.
#[derive(Debug, Clone)]
pub struct DestroySettings {
    pub udp: bool,
    /// Bytes to ask for, of which the kernel grants the double; the default holds about 166 messages. 0 asks for none.
    pub receive_buffer: usize,
    /// Messages kept for [`DestroyListener::drain`]; more are counted and dropped.
    pub queue: usize,
    pub rate: RateLimits,
    /// At the end, how long nothing must come, and how long that may take: the kernel makes the messages on a
    /// workqueue, some time after the close.
    pub quiet: Duration,
    pub farewell: Duration,
    /// Where `snmp` is read, for what is opened while nobody listens.
    pub net: PathBuf,
}

impl Default for DestroySettings {
    fn default() -> Self {
        Self {
            udp: true,
            receive_buffer: 4 << 20,
            queue: 16_384,
            rate: RateLimits::default(),
            quiet: Duration::from_millis(50),
            farewell: Duration::from_secs(1),
            net: PathBuf::from(OWN_NAMESPACE),
        }
    }
}

/// What was heard, and what was not.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct DestroyHealth {
    pub received: u64,
    /// Dropped by the kernel because the socket's receive buffer was full, as the socket itself counts it.
    pub lost: u64,
    /// Received and dropped because the queue was full.
    pub queue_full: u64,
    /// Received and not understood.
    pub malformed: u64,
    /// Times that nobody listened because there was too much, until now and altogether.
    pub gaps: u64,
    pub away: Duration,
    /// TCP connections opened meanwhile, both ends counted; of the present gap up to its last review.
    pub opened_unwatched: u64,
    pub listening: bool,
    /// Listening ended by itself.
    pub failed: Option<Errno>,
}

/// Listens until it is stopped or dropped. Costs no wake-up while nothing ends.
#[derive(Debug)]
pub struct DestroyListener {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Debug)]
struct Shared {
    state: Mutex<State>,
    /// Readable while the queue is not empty.
    filled: OwnedFd,
    stop: OwnedFd,
    stopping: AtomicBool,
}

#[derive(Debug, Default)]
struct State {
    queue: Vec<Destroyed>,
    health: DestroyHealth,
    /// Since when nobody listens, and up to when that is part of `health.away`.
    away_since: Option<Duration>,
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        // Nothing that is done under the lock can leave it half-done.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl DestroyListener {
    /// Starts to listen in the calling thread's network namespace.
    pub fn start(settings: DestroySettings) -> Result<Self> {
        let socket = Socket::open().context("open a sock_diag socket")?;
        if settings.receive_buffer > 0 {
            // The second works for everybody, up to net.core.rmem_max. What is granted shows in what is lost.
            let _ = set_socket_recv_buffer_size_force(&socket, settings.receive_buffer)
                .or_else(|_| set_socket_recv_buffer_size(&socket, settings.receive_buffer));
        }
        keep_going_when_full(&socket).context("set NETLINK_NO_ENOBUFS")?;
        let groups = TCP_GROUPS | if settings.udp { UDP_GROUPS } else { 0 };
        socket.set_groups(groups).context("join the sock_diag destroy groups")?;
        let gate = Gate::open(&settings.net).with_context(|| format!("open {}", settings.net.display()))?;
        let flag = || eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK).context("create an eventfd");
        let shared = Arc::new(Shared {
            state: Mutex::default(),
            filled: flag()?,
            stop: flag()?,
            stopping: AtomicBool::new(false),
        });
        shared.state().health.listening = true;
        let reader = Reader {
            throttle: Throttle::new(settings.rate, now()),
            settings,
            socket,
            gate,
            groups,
            shared: Arc::clone(&shared),
            dropped: 0,
            gap: None,
            buffer: vec![0; DATAGRAM],
            batch: Vec::with_capacity(BATCH),
        };
        let builder = std::thread::Builder::new().name("destroyed".to_owned()).stack_size(128 * 1024);
        let listen = move || {
            privileges::keep_only(CapabilitySet::empty());
            reader.run();
        };
        let thread = builder.spawn(listen).context("start the thread for destroy messages")?;
        Ok(Self { shared, thread: Some(thread) })
    }

    /// Appends what has come, oldest first.
    pub fn drain(&self, into: &mut Vec<Destroyed>) {
        let mut state = self.shared.state();
        into.append(&mut state.queue);
        // Under the lock, so that no filling in between goes unnoticed.
        let _ = rustix::io::read(&self.shared.filled, &mut [0; 8]);
    }

    /// Readable while there is something to drain.
    pub fn wake_fd(&self) -> BorrowedFd<'_> {
        self.shared.filled.as_fd()
    }

    pub fn health(&self) -> DestroyHealth {
        let state = self.shared.state();
        let mut health = state.health;
        health.away += state.away_since.map_or(Duration::ZERO, |since| now().saturating_sub(since));
        health
    }

    /// Waits shortly for what the kernel is about to tell, drains it and ends.
    pub fn stop(mut self, into: &mut Vec<Destroyed>) -> DestroyHealth {
        self.join();
        self.drain(into);
        self.health()
    }

    fn join(&mut self) {
        self.shared.stopping.store(true, Ordering::Release);
        // A full counter is readable too.
        let _ = rustix::io::write(&self.shared.stop, &1u64.to_ne_bytes());
        if let Some(thread) = self.thread.take() {
            // A panic has been reported by the thread itself; what was queued is still there.
            let _ = thread.join();
        }
    }
}

impl Drop for DestroyListener {
    fn drop(&mut self) {
        self.join();
    }
}

/// A time during which nobody listens.
#[derive(Debug, Clone, Copy)]
struct GapInTime {
    /// `None`: could not be read.
    opened_before: Option<u64>,
    reviewed_at: Duration,
    until: Duration,
}

/// The thread's side.
struct Reader {
    settings: DestroySettings,
    socket: Socket,
    gate: Gate,
    groups: u32,
    shared: Arc<Shared>,
    throttle: Throttle,
    /// `SK_MEMINFO_DROPS` as last read.
    dropped: u32,
    gap: Option<GapInTime>,
    buffer: Vec<u8>,
    batch: Vec<Destroyed>,
}

impl Reader {
    fn run(mut self) {
        let ended = self.listen().and_then(|()| self.farewell());
        if self.gap.is_some() {
            self.count_gap(now());
        }
        let mut state = self.shared.state();
        state.health.listening = false;
        state.health.failed = ended.err();
    }

    fn listen(&mut self) -> Result<(), Errno> {
        while !self.shared.stopping.load(Ordering::Acquire) {
            let patience = self.gap.map(|gap| gap.until.saturating_sub(now()));
            self.wait(patience, true)?;
            let heard = self.read()?;
            let now = now();
            match self.gap {
                None if !self.throttle.spend(heard, now) => self.leave(now)?,
                Some(gap) if gap.until <= now => self.review(gap, now)?,
                None | Some(_) => {}
            }
        }
        Ok(())
    }

    fn farewell(&mut self) -> Result<(), Errno> {
        let end = now() + self.settings.farewell;
        loop {
            let left = end.saturating_sub(now());
            self.wait(Some(left.min(self.settings.quiet)), false)?;
            if self.read()? == 0 || left.is_zero() {
                return Ok(());
            }
        }
    }

    fn wait(&self, patience: Option<Duration>, until_stopped: bool) -> Result<(), Errno> {
        let patience = patience.map(|time| Timespec::try_from(time).unwrap_or_default());
        let mut fds =
            [PollFd::new(&self.socket, PollFlags::IN), PollFd::new(&self.shared.stop, PollFlags::IN)];
        let watched = if until_stopped { 2 } else { 1 };
        retry_on_intr(|| poll(&mut fds[..watched], patience.as_ref())).map(drop)
    }

    /// Hands over what is there, a batch at most. Returns how many messages there were, lost ones included.
    fn read(&mut self) -> Result<u64, Errno> {
        let mut malformed = 0;
        while self.batch.len() < BATCH {
            match self.socket.receive(&mut self.buffer, RecvFlags::DONTWAIT) {
                Ok(datagram) => malformed += parse(datagram, moment(), &mut self.batch),
                Err(Errno::AGAIN) => break,
                // Impossible by NETLINK_NO_ENOBUFS; and such a message is none that is understood.
                Err(Errno::NOBUFS | Errno::MSGSIZE) => malformed += 1,
                Err(errno) => return Err(errno),
            }
        }
        let dropped = socket_drops(&self.socket)?;
        let lost = u64::from(dropped.wrapping_sub(self.dropped));
        self.dropped = dropped;
        let received = self.batch.len() as u64 + malformed;
        if received + lost > 0 {
            self.hand_over(received, malformed, lost);
        }
        Ok(received + lost)
    }

    fn hand_over(&mut self, received: u64, malformed: u64, lost: u64) {
        let mut state = self.shared.state();
        let room = self.settings.queue.saturating_sub(state.queue.len()).min(self.batch.len());
        let was_empty = state.queue.is_empty();
        state.queue.extend_from_slice(&self.batch[..room]);
        state.health.received += received;
        state.health.malformed += malformed;
        state.health.lost += lost;
        state.health.queue_full += (self.batch.len() - room) as u64;
        if was_empty && !state.queue.is_empty() {
            let _ = rustix::io::write(&self.shared.filled, &1u64.to_ne_bytes());
        }
        self.batch.clear();
    }

    fn leave(&mut self, now: Duration) -> Result<(), Errno> {
        self.socket.set_groups(0)?;
        let opened_before = self.gate.tcp_opens().ok();
        let until = now + self.throttle.leave(now);
        self.gap = Some(GapInTime { opened_before, reviewed_at: now, until });
        let mut state = self.shared.state();
        state.health.gaps += 1;
        state.health.listening = false;
        state.away_since = Some(now);
        Ok(())
    }

    fn review(&mut self, gap: GapInTime, now: Duration) -> Result<(), Errno> {
        let opened = self.count_gap(now);
        if let Some(longer) = self.throttle.review(opened, now.saturating_sub(gap.reviewed_at), now) {
            if let Some(gap) = &mut self.gap {
                gap.until = now + longer;
            }
            return Ok(());
        }
        self.socket.set_groups(self.groups)?;
        // What was opened since it was counted a moment ago is closed before our eyes or counts as watched.
        self.gap = None;
        let mut state = self.shared.state();
        state.health.listening = true;
        state.away_since = None;
        Ok(())
    }

    /// Adds the gap so far to the health; returns how many connections were opened since the last review.
    fn count_gap(&mut self, now: Duration) -> u64 {
        let Some(gap) = &mut self.gap else { return 0 };
        let opens = self.gate.tcp_opens().ok();
        let opened = opens.zip(gap.opened_before).map_or(0, |(now, before)| now.wrapping_sub(before));
        let mut state = self.shared.state();
        state.health.opened_unwatched += opened;
        state.health.away += now.saturating_sub(gap.reviewed_at);
        state.away_since = Some(now);
        gap.opened_before = opens;
        gap.reviewed_at = now;
        opened
    }
}

/// Appends the sockets of a datagram; returns how many messages were not understood.
pub fn parse(datagram: &[u8], at: Moment, into: &mut Vec<Destroyed>) -> u64 {
    let mut malformed = 0;
    for message in Messages::new(datagram) {
        let socket = match message {
            Ok(message) => match message.kind {
                Kind::Payload(_) => InetSocket::parse(message.body, None),
                Kind::Noop | Kind::Done(_) => continue,
                Kind::Error(_) | Kind::Overrun => None,
            },
            Err(_) => None,
        };
        match socket {
            Some(socket) => into.push(Destroyed {
                cookie: socket.cookie.unwrap_or_default(),
                protocol: socket.protocol,
                local: socket.local,
                remote: socket.remote.filter(|remote| remote.port() != 0),
                disconnected_from: socket
                    .remote
                    .filter(|remote| remote.port() == 0)
                    .map(|remote| remote.ip()),
                interface: socket.interface,
                receive_queue: socket.receive_queue,
                send_queue: socket.send_queue,
                counters: socket.counters,
                at,
            }),
            None => malformed += 1,
        }
    }
    malformed
}

/// A full receive buffer otherwise makes the kernel drop everything until the reader has emptied it, and report
/// `ENOBUFS` (`netlink_overrun()`). This way it drops what does not fit, and counts it all the same.
fn keep_going_when_full(socket: &Socket) -> Result<(), Errno> {
    let on: libc::c_int = 1;
    // SAFETY: the option takes an int; the pointer is to a live one and the length is its own.
    let result = unsafe {
        libc::setsockopt(
            std::os::fd::AsRawFd::as_raw_fd(&socket.as_fd()),
            libc::SOL_NETLINK,
            NO_ENOBUFS,
            std::ptr::from_ref(&on).cast(),
            libc::socklen_t::try_from(size_of_val(&on)).expect("an int is a few bytes"),
        )
    };
    if result == 0 { Ok(()) } else { Err(last_errno()) }
}

/// `SK_MEMINFO_DROPS` out of `SO_MEMINFO`: every message that did not fit into the receive buffer. Wraps.
fn socket_drops(socket: &Socket) -> Result<u32, Errno> {
    let mut values = [0u32; 16];
    let mut length = libc::socklen_t::try_from(size_of_val(&values)).expect("an array of 64 bytes");
    // SAFETY: the kernel writes at most `length` bytes, the array's own size, of plain integers.
    let result = unsafe {
        libc::getsockopt(
            std::os::fd::AsRawFd::as_raw_fd(&socket.as_fd()),
            libc::SOL_SOCKET,
            libc::SO_MEMINFO,
            values.as_mut_ptr().cast(),
            &raw mut length,
        )
    };
    if result != 0 {
        return Err(last_errno());
    }
    Ok(values[libc::SK_MEMINFO_DROPS as usize])
}

fn last_errno() -> Errno {
    Errno::from_io_error(&std::io::Error::last_os_error()).unwrap_or(Errno::IO)
}

/// Both clocks.
pub(super) fn moment() -> Moment {
    let wall = clock_gettime(ClockId::Realtime);
    Moment {
        boot_ns: u64::try_from(now().as_nanos()).unwrap_or(u64::MAX),
        unix_ms: wall.tv_sec.saturating_mul(1_000).saturating_add(wall.tv_nsec / 1_000_000),
    }
}

/// Time since boot, suspended time included.
fn now() -> Duration {
    Duration::try_from(clock_gettime(ClockId::Boottime)).unwrap_or_default()
}
