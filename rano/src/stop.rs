//! The wish to end, raised by a signal or a closed output, as something that can be waited for.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::{Context as _, Result};
use rustix::event::{EventfdFlags, eventfd};

/// Raised once, never lowered. Cloning shares it.
#[derive(Debug, Clone)]
pub struct Stop {
    raised: Arc<AtomicBool>,
    wake: Arc<OwnedFd>,
}

impl Stop {
    pub fn new() -> Result<Self> {
        let wake = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK).context("create an eventfd")?;
        Ok(Self { raised: Arc::new(AtomicBool::new(false)), wake: Arc::new(wake) })
    }

    pub fn raise(&self) {
        self.raised.store(true, Ordering::Release);
        // A full counter is readable too, so a failed write changes nothing.
        let _ = rustix::io::write(&self.wake, &1u64.to_ne_bytes());
    }

    pub fn is_raised(&self) -> bool {
        self.raised.load(Ordering::Acquire)
    }

    /// Readable from the moment it is raised.
    pub fn fd(&self) -> BorrowedFd<'_> {
        self.wake.as_fd()
    }
}
