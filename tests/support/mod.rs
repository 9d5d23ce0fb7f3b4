//! What the end-to-end tests stand on: places to run in, scripted client programs, rano itself, its database.

pub mod actor;
pub mod caller;
pub mod browser;
pub mod database;
pub mod dns;
pub mod history;
pub mod home;
pub mod lookups;
pub mod namespace;
pub mod open_bytes;
pub mod program;
pub mod rano;
pub mod recording;
pub mod scene;
pub mod site;
pub mod stage;
pub mod terminal;
#[cfg(feature = "top")]
pub mod tmux;
pub mod tool_calls;
pub mod trial;
pub mod web;

use std::time::Duration;

/// How long anything may take before a test calls it missing; emulated machines are slow.
pub const PATIENCE: Duration = Duration::from_secs(90);

/// Pid of `child` in the type that system calls take.
pub fn pid_of(child: &std::process::Child) -> rustix::process::Pid {
    rustix::process::Pid::from_child(child)
}

/// Waits for the end of `child` without taking its exit status; `false` when `patience` ran out.
pub fn wait_for_end(child: &std::process::Child, patience: Duration) -> anyhow::Result<bool> {
    use rustix::event::{PollFd, PollFlags, Timespec, poll};
    let pidfd = rustix::process::pidfd_open(pid_of(child), rustix::process::PidfdFlags::empty())?;
    let timeout = Timespec::try_from(patience)?;
    let mut ends = [PollFd::new(&pidfd, PollFlags::IN)];
    Ok(poll(&mut ends, Some(&timeout))? > 0)
}

/// Waits until `is_so`, with an error that says `what` when patience ran out.
pub fn wait_until(what: &str, mut is_so: impl FnMut() -> anyhow::Result<bool>) -> anyhow::Result<()> {
    let deadline = std::time::Instant::now() + PATIENCE;
    while !is_so()? {
        anyhow::ensure!(std::time::Instant::now() < deadline, "patience ran out: {what}");
        std::thread::yield_now();
    }
    Ok(())
}
