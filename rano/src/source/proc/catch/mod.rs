//! Looks between polls, on a thread of its own: it follows the children of watched processes by the kernel's process
//! events, and looks at the descriptors of each while it is young, above all when it is about to connect.

mod budget;
pub mod connector;
mod hints;
mod listing;
mod socket;
mod watcher;
mod young;

use std::net::SocketAddr;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Context as _, Result};
use rustix::event::{EventfdFlags, eventfd};

use super::files::ProcFiles;
use super::stat::Stat;
use crate::event::{Moment, Protocol};
use crate::privileges;
use crate::process::{Image, Occasion, ProcessId};

use watcher::Watcher;

/// Kept for [`Catcher::drain`]; more are dropped and counted.
const QUEUE: usize = 16_384;

/// What the stat line of a process says that a poll compares.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Facts {
    pub(super) start_time: u64,
    pub(super) signature: u64,
    pub(super) session: u32,
    pub(super) program: Option<u64>,
}

impl Facts {
    pub(super) fn of(stat: &Stat<'_>) -> Self {
        let Stat { start_time, signature, session, program, .. } = *stat;
        Self { start_time, signature, session, program }
    }
}

/// A child of a watched process, as it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Met {
    pub id: ProcessId,
    pub parent: u32,
    /// Who forked it, where that is known.
    pub forker: Option<ProcessId>,
    pub image: Image,
    pub(super) facts: Facts,
    pub occasion: Occasion,
    pub at: Moment,
}

/// A socket among the descriptors of a watched process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sighting {
    pub process: ProcessId,
    pub protocol: Protocol,
    pub inode: u64,
    pub cookie: u64,
    /// Local and remote; `None` while it is not connected.
    pub ends: Option<(SocketAddr, SocketAddr)>,
    /// In two looks.
    pub lasts: bool,
    pub at: Moment,
}

/// In the order in which it happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Caught {
    Process(Box<Met>),
    Gone(ProcessId, Moment),
    Socket(Sighting),
    /// These began a program and are nobody's so far: one may be an agent.
    Strangers(Vec<u32>),
}

/// How it goes.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct CatchHealth {
    /// Why there are no process events; `None` if there are.
    pub without_events: Option<String>,
    /// Times that the kernel had no room for a process event.
    pub overruns: u64,
    /// Sightings and processes that found no room.
    pub queue_full: u64,
    /// Times that looks were left out because they would have cost too much.
    pub throttled: u64,
}

/// What the thread is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Order {
    Watch(ProcessId, Age),
    Leave(ProcessId),
}

/// Whether a process is to be looked at between polls itself, and not only what it starts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Age {
    /// Older than the observation.
    Settled,
    /// As long as it is young.
    New,
}

/// Watches until it is dropped. Costs no wake-up while no process begins.
#[derive(Debug)]
pub struct Catcher {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Debug)]
struct Shared {
    state: Mutex<State>,
    /// Readable while something is caught.
    filled: OwnedFd,
    /// Readable while there are orders.
    ordered: OwnedFd,
    stopping: AtomicBool,
}

#[derive(Debug, Default)]
struct State {
    caught: Vec<Caught>,
    orders: Vec<Order>,
    health: CatchHealth,
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        // Nothing that is done under the lock can leave it half-done.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn ring(&self) {
        let _ = rustix::io::write(&self.ordered, &1u64.to_ne_bytes());
    }
}

impl Catcher {
    /// `udp`: datagram sockets too. In the calling thread's network namespace.
    pub fn start(proc: &Path, udp: bool) -> Result<Self> {
        let files = ProcFiles::open_root(proc)?;
        let flag = || eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK).context("create an eventfd");
        let shared = Arc::new(Shared {
            state: Mutex::default(),
            filled: flag()?,
            ordered: flag()?,
            stopping: AtomicBool::new(false),
        });
        let watcher = Watcher::new(files, udp, Arc::clone(&shared));
        let builder = std::thread::Builder::new().name("young".to_owned()).stack_size(256 * 1024);
        let watch = move || {
            privileges::keep_only(privileges::OTHERS_PROCESSES);
            watcher.run();
        };
        let thread = builder.spawn(watch).context("start the thread that looks at young processes")?;
        Ok(Self { shared, thread: Some(thread) })
    }

    /// What this process starts is looked at from now on.
    pub fn watch(&self, id: ProcessId, age: Age) {
        self.order(Order::Watch(id, age));
    }

    /// It is not watched after all.
    pub fn leave(&self, id: ProcessId) {
        self.order(Order::Leave(id));
    }

    fn order(&self, order: Order) {
        self.shared.state().orders.push(order);
        self.shared.ring();
    }

    /// Appends what was caught.
    pub fn drain(&self, into: &mut Vec<Caught>) {
        let mut state = self.shared.state();
        into.append(&mut state.caught);
        // Under the lock, so that no filling in between goes unnoticed.
        let _ = rustix::io::read(&self.shared.filled, &mut [0; 8]);
    }

    /// Readable while there is something to drain.
    pub fn wake_fd(&self) -> BorrowedFd<'_> {
        self.shared.filled.as_fd()
    }

    pub fn health(&self) -> CatchHealth {
        self.shared.state().health.clone()
    }
}

impl Drop for Catcher {
    fn drop(&mut self) {
        self.shared.stopping.store(true, Ordering::Release);
        self.shared.ring();
        if let Some(thread) = self.thread.take() {
            // A panic has been reported by the thread itself.
            let _ = thread.join();
        }
    }
}

/// A slice of processor time so short that a look comes soon after it is due, on a busy machine too (from Linux 6.12
/// on, without any right). Best effort.
fn take_short_slices() {
    /// `struct sched_attr` (include/uapi/linux/sched/types.h), first version.
    #[repr(C)]
    #[derive(Default)]
    struct Attributes {
        size: u32,
        policy: u32,
        flags: u64,
        nice: i32,
        priority: u32,
        runtime: u64,
        deadline: u64,
        period: u64,
    }
    let mut attributes = Attributes::default();
    let size = u32::try_from(size_of::<Attributes>()).expect("48 bytes");
    // SAFETY: the kernel writes at most `size` bytes, those of the struct, of plain integers.
    let read = unsafe { libc::syscall(libc::SYS_sched_getattr, 0, &raw mut attributes, size, 0) };
    if read != 0 || attributes.policy != 0 {
        return;
    }
    attributes.size = size;
    attributes.runtime = u64::try_from(Duration::from_micros(100).as_nanos()).expect("short");
    // SAFETY: the kernel reads the `size` bytes of the struct.
    let _ = unsafe { libc::syscall(libc::SYS_sched_setattr, 0, &raw const attributes, 0) };
    // The kernel may otherwise be 50 µs late with each wake-up.
    // SAFETY: this option takes a number.
    let _ = unsafe { libc::prctl(libc::PR_SET_TIMERSLACK, 1) };
}
