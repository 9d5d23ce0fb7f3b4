//! The keyboard: `q` is a wish to end. Keys are not echoed meanwhile, so that nothing stands in the middle of what rano
//! draws.

use std::io;
use std::sync::{Mutex, PoisonError};

use anyhow::{Context as _, Result};
use nix::sys::signal::{SigSet, Signal};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::termios::{LocalModes, OptionalActions, Termios, tcgetattr, tcgetpgrp, tcsetattr};
use rustix::thread::CapabilitySet;

use crate::output::stream;
use crate::privileges;
use crate::stop::Stop;

/// How the terminal was, until it is so again.
static BEFORE: Mutex<Option<Termios>> = Mutex::new(None);

/// Gives the terminal back when dropped.
#[derive(Debug)]
pub struct Keyboard(());

impl Drop for Keyboard {
    fn drop(&mut self) {
        restore();
    }
}

/// The terminal as it was before. To be called before the process ends by itself.
pub fn restore() {
    if let Some(before) = BEFORE.lock().unwrap_or_else(PoisonError::into_inner).take() {
        let _ = tcsetattr(io::stdin(), OptionalActions::Now, &before);
    }
}

/// From now on `q` raises `stop`, as long as the answer is kept. `None` where keys are not for this program: standard
/// input is no terminal, others have it, or another program reads what rano writes and keys may be for that one.
pub fn raise_on_q(stop: &Stop) -> Result<Option<Keyboard>> {
    let is_ours = stream::stdout_is_terminal() && stream::stderr_is_terminal() && is_in_foreground();
    let Some(before) = tcgetattr(io::stdin()).ok().filter(|_| is_ours) else { return Ok(None) };
    let mut quiet = before.clone();
    // Signals stay: Ctrl-C, Ctrl-Z.
    quiet.local_modes.remove(LocalModes::ICANON | LocalModes::ECHO);
    if tcsetattr(io::stdin(), OptionalActions::Now, &quiet).is_err() {
        return Ok(None);
    }
    *BEFORE.lock().unwrap_or_else(PoisonError::into_inner) = Some(before);
    let keyboard = Keyboard(());
    let stop = stop.clone();
    let watch = move || {
        privileges::keep_only(CapabilitySet::empty());
        // Who reads in the background is told by an error then, and not stopped.
        let mut blocked = SigSet::empty();
        blocked.add(Signal::SIGTTIN);
        let _ = blocked.thread_block();
        read_keys(&stop);
    };
    std::thread::Builder::new().name("rano-keys".to_owned()).spawn(watch).context("start a thread")?;
    Ok(Some(keyboard))
}

fn read_keys(stop: &Stop) {
    let stdin = io::stdin();
    while !stop.is_raised() {
        let stop_fd = stop.fd();
        let mut fds = [PollFd::new(&stdin, PollFlags::IN), PollFd::new(&stop_fd, PollFlags::IN)];
        match poll(&mut fds, None) {
            Ok(_) if fds[0].revents().is_empty() => continue,
            Ok(_) => {}
            Err(rustix::io::Errno::INTR) => continue,
            Err(_) => return,
        }
        let mut keys = [0; 64];
        // Once in the background the keys are another program's.
        match is_in_foreground().then(|| rustix::io::read(&stdin, &mut keys)) {
            Some(Ok(length @ 1..)) if keys[..length].contains(&b'q') => stop.raise(),
            Some(Ok(1..) | Err(rustix::io::Errno::INTR)) => {}
            Some(Ok(0) | Err(_)) | None => return,
        }
    }
}

fn is_in_foreground() -> bool {
    tcgetpgrp(io::stdin()).is_ok_and(|group| group == rustix::process::getpgrp())
}
