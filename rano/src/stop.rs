//! The wish to end, raised by a signal or a closed output, as something that can be waited for.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Context as _, Result};
use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, epoll, eventfd, poll};

/// Raised once, never lowered. Cloning shares it.
#[derive(Debug, Clone)]
pub struct Stop {
    flag: Flag,
    /// Bells that interrupt too.
    bells: Vec<Bell>,
    /// What is readable when any of them does.
    any: Option<Arc<OwnedFd>>,
}

#[derive(Debug, Clone)]
struct Flag {
    raised: Arc<AtomicBool>,
    wake: Arc<OwnedFd>,
}

impl Flag {
    fn new() -> Result<Self> {
        let wake = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK).context("create an eventfd")?;
        Ok(Self { raised: Arc::new(AtomicBool::new(false)), wake: Arc::new(wake) })
    }

    fn raise(&self) {
        // The descriptor first: whoever lowers it finds both, and leaves nothing that would be readable for ever. A
        // full counter is readable too, so a failed write changes nothing.
        let _ = rustix::io::write(&self.wake, &1u64.to_ne_bytes());
        self.raised.store(true, Ordering::Release);
    }

    fn is_raised(&self) -> bool {
        self.raised.load(Ordering::Acquire)
    }
}

impl Stop {
    pub fn new() -> Result<Self> {
        Ok(Self { flag: Flag::new()?, bells: Vec::new(), any: None })
    }

    /// This one, interrupted by `bell` too until that is answered. What raises any is seen by whoever waits.
    pub fn or_bell(&self, bell: &Bell) -> Result<Self> {
        let either = epoll::create(epoll::CreateFlags::CLOEXEC).context("create an epoll descriptor")?;
        let bells: Vec<Bell> = self.bells.iter().chain([bell]).cloned().collect();
        for flag in bells.iter().map(|bell| &bell.0).chain([&self.flag]) {
            epoll::add(&either, &*flag.wake, epoll::EventData::new_u64(0), epoll::EventFlags::IN)
                .context("wait for either of two events")?;
        }
        Ok(Self { flag: self.flag.clone(), bells, any: Some(Arc::new(either)) })
    }

    pub fn raise(&self) {
        self.flag.raise();
    }

    pub fn is_raised(&self) -> bool {
        self.flag.is_raised() || self.bells.iter().any(|bell| bell.0.is_raised())
    }

    /// Sleeps until it is raised.
    pub fn wait(&self) {
        while !self.is_raised() {
            // A signal may end the waiting early.
            let _ = poll(&mut [PollFd::new(&self.fd(), PollFlags::IN)], None);
        }
    }

    /// Sleeps until it is raised, or for so long.
    pub fn wait_for(&self, most: Duration) {
        if let Ok(most) = Timespec::try_from(most) {
            let _ = poll(&mut [PollFd::new(&self.fd(), PollFlags::IN)], Some(&most));
        }
    }

    /// Readable from the moment it is raised.
    pub fn fd(&self) -> BorrowedFd<'_> {
        match &self.any {
            Some(any) => any.as_fd(),
            None => self.flag.wake.as_fd(),
        }
    }
}

/// Rung by one thread to interrupt another's waiting, as often as need be. Cloning shares it.
#[derive(Debug, Clone)]
pub struct Bell(Flag);

impl Bell {
    pub fn new() -> Result<Self> {
        Flag::new().map(Self)
    }

    pub fn ring(&self) {
        if !self.0.is_raised() {
            self.0.raise();
        }
    }

    /// Whether it was rung. To be called before looking at what it was rung for, and nobody is to wait in between.
    pub fn answer(&self) -> bool {
        let is_rung = self.0.raised.swap(false, Ordering::AcqRel);
        if is_rung {
            let _ = rustix::io::read(&self.0.wake, &mut [0; 8]);
        }
        is_rung
    }
}

/// The wish that log files are opened again. Cloning shares it.
#[derive(Debug, Clone)]
pub struct ReopenLogs {
    times: Arc<AtomicU64>,
    /// Rung with each.
    pub bell: Bell,
}

impl ReopenLogs {
    pub fn new() -> Result<Self> {
        Ok(Self { times: Arc::default(), bell: Bell::new()? })
    }

    pub fn ask(&self) {
        self.times.fetch_add(1, Ordering::Release);
        self.bell.ring();
    }

    /// How often it was wished.
    pub fn times(&self) -> u64 {
        self.times.load(Ordering::Acquire)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn is_readable(stop: &Stop) -> bool {
        let fd = stop.fd();
        let at_once = Timespec { tv_sec: 0, tv_nsec: 0 };
        poll(&mut [PollFd::new(&fd, PollFlags::IN)], Some(&at_once)).expect("polled") > 0
    }

    #[test]
    fn a_bell_interrupts_until_it_is_answered_and_a_stop_for_good() {
        let (stop, bell) = (Stop::new().expect("made"), Bell::new().expect("made"));
        let either = stop.or_bell(&bell).expect("made");
        for _ in 0..3 {
            assert!(!either.is_raised() && !is_readable(&either));
            bell.ring();
            bell.ring();
            assert!(either.is_raised() && is_readable(&either) && !stop.is_raised());
            assert!(bell.answer() && !bell.answer());
        }
        stop.raise();
        assert!(either.is_raised() && is_readable(&either));
    }

    #[test]
    fn each_of_several_bells_interrupts() {
        let (stop, inner, outer) =
            (Stop::new().expect("made"), Bell::new().expect("made"), Bell::new().expect("made"));
        let any = stop.or_bell(&outer).and_then(|stop| stop.or_bell(&inner)).expect("made");
        for bell in [&inner, &outer] {
            bell.ring();
            assert!(any.is_raised() && is_readable(&any) && !stop.is_raised());
            bell.answer();
            assert!(!any.is_raised() && !is_readable(&any));
        }
    }
}
