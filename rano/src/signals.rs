//! Signals and a closed output, as the wish to end.

pub mod keys;

use std::ops::RangeInclusive;

use anyhow::{Context as _, Result};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::thread::CapabilitySet;
use signal_hook::consts::{
    SIGALRM, SIGHUP, SIGINT, SIGIO, SIGPROF, SIGQUIT, SIGTERM, SIGUSR1, SIGUSR2, SIGVTALRM, SIGXCPU, SIGXFSZ,
};
use signal_hook::iterator::Signals;

use crate::output::stream;
use crate::privileges;
use crate::stop::{ReopenLogs, Stop};

/// signal-hook has no names for these.
const SIGPWR: i32 = 30;
const SIGSTKFLT: i32 = 16;

/// What a shell reports for a process that SIGINT ended.
const KILLED_BY_SIGINT: i32 = 130;

/// Those that end the observation as it should end, the ones included that say that time or power runs out.
const ENDING: [i32; 6] = [SIGINT, SIGTERM, SIGQUIT, SIGXCPU, SIGPWR, SIGHUP];
/// Those that would end the process and mean nothing to it: a limit of file sizes, which the writer is told of by an
/// error (EFBIG), and timers and notices that it did not ask for. What they mean to a child is for the child to say:
/// they are handled and not ignored, since a program inherits what is ignored.
const MEANINGLESS: [i32; 7] = [SIGXFSZ, SIGUSR2, SIGALRM, SIGVTALRM, SIGPROF, SIGIO, SIGSTKFLT];
/// The C library keeps the first ones to itself, glibc two of them, musl three.
fn real_time() -> RangeInclusive<i32> {
    libc::SIGRTMIN()..=libc::SIGRTMAX()
}

/// Passes a signal on to a command; 0 is none.
pub type ToCommand = Box<dyn Fn(i32) -> bool + Send>;

/// From now on what is in [`ENDING`] raises `stop`, a second one of them ends the process at once, and SIGUSR1 asks to
/// `reopen` the logs. Nothing else ends it but SIGKILL and its own faults.
///
/// A SIGHUP that was ignored when rano began (`nohup`) stays ignored, and none counts as a second one.
///
/// `command`: one that shares the terminal. What a terminal sends to both is its business while it runs, and the wish
/// to end is passed on to it; the answer is whether it still runs.
pub fn raise_on_signals(stop: &Stop, reopen: &ReopenLogs, command: Option<ToCommand>) -> Result<()> {
    let ending = ENDING.into_iter().filter(|signal| *signal != SIGHUP || !is_ignored(SIGHUP));
    let wanted = ending.chain(MEANINGLESS).chain(real_time()).chain([SIGUSR1]);
    let mut signals = Signals::new(wanted).context("install signal handlers")?;
    let (stop, reopen) = (stop.clone(), reopen.clone());
    let watch = move || {
        privileges::keep_only(CapabilitySet::empty());
        for signal in signals.forever() {
            if signal == SIGUSR1 {
                reopen.ask();
            } else if ENDING.contains(&signal) {
                let is_commands = command.as_ref().is_some_and(|command| match signal {
                    SIGTERM | SIGHUP => command(signal),
                    SIGINT | SIGQUIT => command(0),
                    _ => false,
                });
                if is_commands {
                    continue;
                }
                // A terminal that is closed raised it before its SIGHUP came, and a shell sends another one.
                if stop.is_raised() && signal != SIGHUP {
                    keys::restore();
                    std::process::exit(KILLED_BY_SIGINT);
                }
                stop.raise();
            }
        }
    };
    std::thread::Builder::new().name("rano-signals".to_owned()).spawn(watch).context("start a thread")?;
    Ok(())
}

/// Raises `stop` when nobody reads standard output any more, though nothing is written: `rano | head -1` must not
/// stay behind until the next event. A pipe says so by POLLERR, a socket and a terminal that is gone by POLLHUP.
pub fn raise_on_closed_stdout(stop: &Stop) -> Result<()> {
    let stop = stop.clone();
    let watch = move || {
        privileges::keep_only(CapabilitySet::empty());
        let stdout = stream::stdout_end();
        loop {
            let mut fds = [PollFd::new(&stdout, PollFlags::empty())];
            match poll(&mut fds, None) {
                Err(rustix::io::Errno::INTR) => {}
                Ok(_) if fds[0].revents().intersects(PollFlags::ERR | PollFlags::HUP | PollFlags::NVAL) => {
                    stop.raise();
                    return;
                }
                // A regular file never errs; without an answer there is nothing to wait for.
                Err(_) | Ok(_) => return,
            }
        }
    };
    std::thread::Builder::new().name("rano-stdout".to_owned()).spawn(watch).context("start a thread")?;
    Ok(())
}

fn is_ignored(signal: i32) -> bool {
    let mask = procfs::process::Process::myself()
        .and_then(|process| process.status())
        .map_or(0, |status| status.sigign);
    mask & (1 << (signal - 1)) != 0
}
