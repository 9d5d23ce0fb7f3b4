//! rano's side of a command that it runs: the supervisor is forked, told what to do, and listened to on a thread of its
//! own, so that a full output delays neither the records nor the end.

use std::ffi::{CString, OsString};
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStringExt as _;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use anyhow::{Context as _, Result, bail};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use rustix::thread::CapabilitySet;

use super::record::{self, Record, Who};
use super::supervisor::{self, Ends};
use super::sys::{self, Arguments};
use super::{caller, filter};
use crate::privileges;
use crate::stop::{Bell, Stop};

/// What an ordinary user may ask for as the size of a pipe (`fs.pipe-max-size`).
const ROOM: usize = 1 << 20;
/// Records that may wait for the pipeline; more are counted and dropped.
const WAITING_MAX: usize = 1 << 16;

/// How a command ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    Exited(u8),
    Killed(i32),
    /// It never ran.
    NotRun(Errno),
}

impl Outcome {
    /// As `waitpid` has it.
    fn of(status: i32) -> Self {
        match status & 0x7f {
            0 => Self::Exited(u8::try_from((status >> 8) & 0xff).unwrap_or(u8::MAX)),
            signal => Self::Killed(signal),
        }
    }

    /// The exit code by which a shell passes it on.
    pub fn code(self) -> u8 {
        let code = match self {
            Self::Exited(code) => return code,
            Self::Killed(signal) => 128 + signal,
            Self::NotRun(Errno::NOENT) => supervisor::NOT_FOUND,
            Self::NotRun(_) => supervisor::NOT_EXECUTABLE,
        };
        u8::try_from(code).unwrap_or(u8::MAX)
    }
}

/// A command that is going to be run.
pub struct Child {
    supervisor: u32,
    orders: Option<OwnedFd>,
    go: Option<OwnedFd>,
    records: OwnedFd,
    /// Of the records what was read and is not whole yet.
    pending: Vec<u8>,
}

impl Child {
    /// Forks the supervisor. To be called while there is one thread only.
    pub fn prepare(command: &[OsString]) -> Result<Self> {
        let texts: Result<Vec<CString>, _> =
            command.iter().map(|argument| CString::new(argument.clone().into_vec())).collect();
        let arguments = Arguments::new(texts.context("arguments hold no NUL")?);
        let programs = [filter::program(true), filter::program(false)];
        let pipe = || pipe_with(PipeFlags::CLOEXEC).context("make a pipe");
        let ((orders, to_supervisor), (records, from_supervisor), (go, let_go)) = (pipe()?, pipe()?, pipe()?);
        let _ = rustix::pipe::fcntl_setpipe_size(&from_supervisor, ROOM);
        match sys::fork().context("fork")? {
            None => {
                drop((to_supervisor, records, let_go));
                supervisor::run(Ends { orders, records: from_supervisor, go }, &arguments, programs)
            }
            Some(supervisor) => Ok(Self {
                supervisor,
                orders: Some(to_supervisor),
                go: Some(let_go),
                records,
                pending: Vec::new(),
            }),
        }
    }

    /// The process that the command and all that it starts descend from.
    pub fn supervisor(&self) -> u32 {
        self.supervisor
    }

    /// Has the filter put on what is going to run. `datagrams`: with the calls that only send some.
    pub fn install(&mut self, datagrams: bool) -> Result<(), Errno> {
        self.order(if datagrams { supervisor::INSTALL } else { supervisor::INSTALL_WITHOUT_DATAGRAMS })?;
        match self.next() {
            Some(Record::Installed { errno: 0 }) => Ok(()),
            Some(Record::Installed { errno }) => Err(Errno::from_raw_os_error(errno)),
            _ => Err(Errno::PIPE),
        }
    }

    fn order(&self, order: u8) -> Result<(), Errno> {
        let orders = self.orders.as_ref().ok_or(Errno::PIPE)?;
        rustix::io::retry_on_intr(|| rustix::io::write(orders, &[order])).map(drop)
    }

    /// Makes the command's process, which waits to be [let go](Running::go). `stop` is raised when it has ended, or if
    /// `waits` when all that it started has.
    pub fn start(mut self, stop: &Stop, waits: bool) -> Result<Running> {
        self.order(supervisor::START).context("start the command")?;
        drop(self.orders.take());
        let who = match self.next() {
            Some(Record::Started { who }) => who,
            Some(Record::NotRun { errno }) => {
                return Err(Errno::from_raw_os_error(errno)).context("fork");
            }
            _ => bail!("the supervisor ended"),
        };
        let pid = i32::try_from(who.pid).ok().and_then(Pid::from_raw).context("a pid")?;
        let pidfd = pidfd_open(pid, PidfdFlags::empty()).ok();
        rustix::io::ioctl_fionbio(&self.records, true).context("read records without waiting")?;
        let Self { supervisor, records, pending, go, .. } = self;
        let shared = Arc::new(Shared {
            records,
            stop: stop.clone(),
            waits,
            supervisor,
            who,
            pidfd,
            bell: Bell::new()?,
            state: Mutex::new(State { pending, ..State::default() }),
        });
        let listener = Listener { shared: Arc::clone(&shared) };
        let listen = move || {
            privileges::keep_only(CapabilitySet::empty());
            listener.run();
        };
        std::thread::Builder::new().name("rano-run".to_owned()).spawn(listen).context("start a thread")?;
        Ok(Running { go, shared })
    }

    /// The next record; `None` when there will be no more.
    fn next(&mut self) -> Option<Record> {
        next(self.records.as_fd(), &mut self.pending)
    }
}

/// Waits for the next record.
fn next(records: BorrowedFd<'_>, pending: &mut Vec<u8>) -> Option<Record> {
    let mut buffer = vec![0; 16 * record::LONGEST];
    loop {
        match record::read(pending) {
            Ok(Some((record, length))) => {
                pending.drain(..length);
                return Some(record);
            }
            Ok(None) => {}
            Err(_) => return None,
        }
        match rustix::io::read(records, &mut buffer) {
            Ok(0) => return None,
            Ok(count) => pending.extend_from_slice(&buffer[..count]),
            Err(Errno::INTR) => {}
            Err(Errno::AGAIN) => {
                let _ = poll(&mut [PollFd::new(&records, PollFlags::IN)], None);
            }
            Err(_) => return None,
        }
    }
}

/// A command that runs, or waits to be let go.
pub struct Running {
    go: Option<OwnedFd>,
    shared: Arc<Shared>,
}

struct Shared {
    records: OwnedFd,
    stop: Stop,
    waits: bool,
    supervisor: u32,
    who: Who,
    /// Of the command's process.
    pidfd: Option<OwnedFd>,
    bell: Bell,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// What was read and is no whole record yet.
    pending: Vec<u8>,
    records: Vec<Record>,
    /// Records that found no room, here or in the pipe.
    lost: u64,
    outcome: Option<Outcome>,
    /// Nothing that the command started is left.
    is_over: bool,
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Running {
    /// Lets the command run its program.
    pub fn go(&mut self) {
        if let Some(go) = self.go.take() {
            let _ = rustix::io::retry_on_intr(|| rustix::io::write(&go, &[1]));
        }
    }

    /// Another hold on the same.
    pub fn handle(&self) -> Handle {
        Handle(Arc::clone(&self.shared))
    }
}

/// What becomes of the command.
#[derive(Clone)]
pub struct Handle(Arc<Shared>);

impl Handle {
    pub fn outcome(&self) -> Option<Outcome> {
        self.0.state().outcome
    }

    pub fn pid(&self) -> u32 {
        self.0.who.pid
    }

    /// How many processes are left of what the command started.
    pub fn survivors(&self) -> usize {
        if self.0.state().is_over { 0 } else { caller::descendants(self.0.supervisor).len() }
    }

    /// Ends the command and all that it started, also what begins meanwhile.
    pub fn kill(&self) {
        const ROUNDS: usize = 8;
        self.signal(Signal::KILL.as_raw());
        for _ in 0..ROUNDS {
            let left = caller::descendants(self.0.supervisor);
            if left.is_empty() {
                break;
            }
            for pid in left {
                let pid = i32::try_from(pid).ok().and_then(Pid::from_raw);
                if let Some(pidfd) = pid.and_then(|pid| pidfd_open(pid, PidfdFlags::empty()).ok()) {
                    let _ = pidfd_send_signal(pidfd, Signal::KILL);
                }
            }
        }
    }

    /// Passes a signal on to the command; whether it is still there.
    pub fn signal(&self, number: i32) -> bool {
        if self.outcome().is_some() {
            return false;
        }
        if let (Some(pidfd), Some(signal)) = (&self.0.pidfd, Signal::from_named_raw(number)) {
            let _ = pidfd_send_signal(pidfd, signal);
        }
        true
    }

    pub(super) fn bell(&self) -> &Bell {
        &self.0.bell
    }

    /// What was told since the last time, oldest first: everything that the supervisor has told by now.
    pub(super) fn take(&self) -> Vec<Record> {
        self.0.read();
        std::mem::take(&mut self.0.state().records)
    }

    pub(super) fn lost(&self) -> u64 {
        self.0.state().lost
    }
}

/// The thread that reads the records, also while the pipeline is held up.
struct Listener {
    shared: Arc<Shared>,
}

impl Listener {
    fn run(self) {
        loop {
            let mut fds = [PollFd::new(&self.shared.records, PollFlags::IN)];
            match poll(&mut fds, None) {
                Ok(_) | Err(Errno::INTR) => {}
                Err(_) => return,
            }
            self.shared.read();
            if self.shared.state().is_over {
                return;
            }
        }
    }
}

impl Shared {
    /// Reads what is there.
    fn read(&self) {
        let mut state = self.state();
        let mut buffer = vec![0; 16 * record::LONGEST];
        let mut is_over = false;
        while !is_over {
            match rustix::io::read(&self.records, &mut buffer) {
                Ok(0) => is_over = true,
                Ok(count) => state.pending.extend_from_slice(&buffer[..count]),
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => break,
                Err(_) => is_over = true,
            }
        }
        let mut read = 0;
        let mut has_stopped = false;
        loop {
            match record::read(state.pending.get(read..).unwrap_or_default()) {
                Ok(Some((record, length))) => {
                    read += length;
                    has_stopped |= record == Record::Stopped;
                    state.take(record);
                }
                Ok(None) => break,
                Err(_) => {
                    is_over = true;
                    break;
                }
            }
        }
        state.pending.drain(..read);
        state.is_over |= is_over;
        let has_news = read > 0 || is_over;
        let is_end = state.is_over || state.outcome.is_some() && !self.waits;
        drop(state);
        if has_news {
            self.bell.ring();
        }
        if is_end {
            self.stop.raise();
        }
        if has_stopped {
            self.stand_still();
        }
    }

    /// The shell that waits for rano must see that its job stands still, though the command stopped itself alone. It
    /// goes on together with rano; the supervisor wakes rano if somebody wakes the command.
    fn stand_still(&self) {
        // A stop that reached both at once is over by now.
        if !caller::has_terminal() || !caller::stands_still(self.who.pid) {
            return;
        }
        sys::stand_still();
        if let Some(pidfd) = &self.pidfd {
            let _ = pidfd_send_signal(pidfd, Signal::CONT);
        }
    }
}

impl State {
    fn take(&mut self, record: Record) {
        match record {
            Record::Stopped => {}
            Record::Ended { status } => {
                // Why it could not run is told before it ends.
                self.outcome.get_or_insert(Outcome::of(status));
            }
            Record::NotRun { errno } => {
                self.outcome.get_or_insert(Outcome::NotRun(Errno::from_raw_os_error(errno)));
            }
            Record::Lost { count } => self.lost += count,
            record if self.records.len() < WAITING_MAX => self.records.push(record),
            _ => self.lost += 1,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exit_codes_are_a_shells() {
        assert_eq!(Outcome::of(0).code(), 0);
        assert_eq!(Outcome::of(255 << 8).code(), 255);
        assert_eq!(Outcome::of(9).code(), 137);
        assert_eq!(Outcome::of(0x8b).code(), 139);
        assert_eq!(Outcome::NotRun(Errno::NOENT).code(), 127);
        assert_eq!(Outcome::NotRun(Errno::ACCESS).code(), 126);
        assert_eq!(Outcome::NotRun(Errno::NOEXEC).code(), 126);
    }
}
