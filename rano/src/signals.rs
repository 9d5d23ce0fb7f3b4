//! Signals and a closed output, as the wish to end.

use anyhow::{Context as _, Result};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::thread::CapabilitySet;
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM, SIGUSR1};
use signal_hook::iterator::Signals;

use crate::output::stream;
use crate::privileges;
use crate::stop::{ReopenLogs, Stop};

/// What a shell reports for a process that SIGINT ended.
const KILLED_BY_SIGINT: i32 = 130;

/// From now on SIGINT, SIGTERM and SIGHUP raise `stop`, a second one ends the process at once, and SIGUSR1 asks to
/// `reopen` the logs.
///
/// A SIGHUP that was ignored when rano began (`nohup`) stays ignored.
pub fn raise_on_signals(stop: &Stop, reopen: &ReopenLogs) -> Result<()> {
    let mut wanted = vec![SIGINT, SIGTERM, SIGUSR1];
    if !is_ignored(SIGHUP) {
        wanted.push(SIGHUP);
    }
    let mut signals = Signals::new(wanted).context("install signal handlers")?;
    let (stop, reopen) = (stop.clone(), reopen.clone());
    let watch = move || {
        privileges::keep_only(CapabilitySet::empty());
        for signal in signals.forever() {
            if signal == SIGUSR1 {
                reopen.ask();
                continue;
            }
            if stop.is_raised() {
                std::process::exit(KILLED_BY_SIGINT);
            }
            stop.raise();
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
