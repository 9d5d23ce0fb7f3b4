//! Time, on the clock that never jumps and on the one that people read.

use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};
use serde::{Deserialize, Serialize};

/// A point in time on both clocks. They are never compared with one another.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Moment {
    /// `CLOCK_BOOTTIME`, nanoseconds: what durations are computed from.
    pub boot_ns: u64,
    /// Wall clock, milliseconds since the Unix epoch: what is shown and stored.
    pub unix_ms: i64,
}

impl Moment {
    /// Time from `earlier` to `self`; zero if `earlier` is later.
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_nanos(self.boot_ns.saturating_sub(earlier.boot_ns))
    }
}

/// The time now on both clocks.
pub fn now() -> Moment {
    let boot = clock_gettime(ClockId::Boottime);
    let wall = clock_gettime(ClockId::Realtime);
    let boot_ns = boot.tv_sec.cast_unsigned() * 1_000_000_000 + boot.tv_nsec.cast_unsigned();
    Moment { boot_ns, unix_ms: wall.tv_sec * 1000 + wall.tv_nsec / 1_000_000 }
}
