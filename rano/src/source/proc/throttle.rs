//! When to stop listening to destroy notifications, and when to come back: the kernel makes each message at the
//! expense of whoever closes the socket (10 to 26 µs), so a busy server must not pay for being watched.
//! Pure: time is an argument, counted from any origin.

use std::time::Duration;

/// How much is listened to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RateLimits {
    /// Messages a second that may go on for ever.
    pub per_second: u32,
    /// Messages above that at once.
    pub burst: u32,
    /// How long to stay away at first; doubled while it stays busy.
    pub first_back_off: Duration,
    pub longest_back_off: Duration,
}

impl Default for RateLimits {
    fn default() -> Self {
        Self {
            per_second: 1_000,
            burst: 20_000,
            first_back_off: Duration::from_secs(10),
            longest_back_off: Duration::from_mins(1),
        }
    }
}

/// A token bucket with a back-off.
#[derive(Debug)]
pub struct Throttle {
    limits: RateLimits,
    /// In billionths, so that a nanosecond adds `per_second` of them.
    tokens: u64,
    refilled_at: Duration,
    back_off: Duration,
    returned_at: Option<Duration>,
}

const TOKEN: u64 = 1_000_000_000;

impl Throttle {
    pub fn new(limits: RateLimits, now: Duration) -> Self {
        let tokens = u64::from(limits.burst) * TOKEN;
        Self { limits, tokens, refilled_at: now, back_off: limits.first_back_off, returned_at: None }
    }

    /// Takes a token for each of `messages`; returns whether there were enough.
    pub fn spend(&mut self, messages: u64, now: Duration) -> bool {
        let elapsed = u64::try_from(now.saturating_sub(self.refilled_at).as_nanos()).unwrap_or(u64::MAX);
        let refilled = self.tokens.saturating_add(elapsed.saturating_mul(self.limits.per_second.into()));
        self.refilled_at = now;
        self.tokens = refilled.min(u64::from(self.limits.burst) * TOKEN);
        let wanted = messages.saturating_mul(TOKEN);
        let enough = wanted <= self.tokens;
        self.tokens = self.tokens.saturating_sub(wanted);
        enough
    }

    /// How long to stay away from now on: longer each time until a return lasted for the longest back-off.
    pub fn leave(&mut self, now: Duration) -> Duration {
        let relapse =
            self.returned_at.is_some_and(|at| now.saturating_sub(at) < self.limits.longest_back_off);
        self.back_off = if relapse { self.doubled() } else { self.limits.first_back_off };
        self.back_off
    }

    /// `opened` connections were counted over the last `period` away: how much longer to stay away, or `None` to
    /// come back.
    pub fn review(&mut self, opened: u64, period: Duration, now: Duration) -> Option<Duration> {
        let bearable = u128::from(self.limits.per_second) * period.as_millis();
        if u128::from(opened) * 1_000 > bearable {
            self.back_off = self.doubled();
            return Some(self.back_off);
        }
        self.tokens = u64::from(self.limits.burst) * TOKEN;
        self.refilled_at = now;
        self.returned_at = Some(now);
        None
    }

    fn doubled(&self) -> Duration {
        self.back_off.saturating_mul(2).min(self.limits.longest_back_off)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn throttle() -> Throttle {
        Throttle::new(RateLimits::default(), SECOND)
    }

    #[test]
    fn a_burst_passes_and_the_next_message_does_not() {
        let mut throttle = throttle();
        assert!(throttle.spend(20_000, SECOND));
        assert!(!throttle.spend(1, SECOND));
    }

    #[test]
    fn the_sustained_rate_passes_for_ever_and_twice_of_it_does_not() {
        let mut calm = throttle();
        assert!((2..3_600).all(|second| calm.spend(1_000, SECOND * second)));
        let mut busy = throttle();
        let refused = (2..3_600).find(|&second| !busy.spend(2_000, SECOND * second));
        assert_eq!(refused, Some(21), "the burst is used up by 1,000 a second");
    }

    #[test]
    fn the_back_off_doubles_while_it_stays_busy_up_to_the_longest() {
        let mut throttle = throttle();
        assert_eq!(throttle.leave(SECOND), SECOND * 10);
        assert_eq!(throttle.review(50_000, SECOND * 10, SECOND * 11), Some(SECOND * 20));
        assert_eq!(throttle.review(50_000, SECOND * 20, SECOND * 31), Some(SECOND * 40));
        assert_eq!(throttle.review(50_000, SECOND * 40, SECOND * 71), Some(SECOND * 60));
        assert_eq!(throttle.review(70_000, SECOND * 60, SECOND * 131), Some(SECOND * 60));
        assert_eq!(throttle.review(60_000, SECOND * 60, SECOND * 191), None);
        assert!(throttle.spend(20_000, SECOND * 191), "it comes back with a full bucket");
    }

    #[test]
    fn a_relapse_soon_after_the_return_stays_away_longer_and_a_late_one_does_not() {
        let mut throttle = throttle();
        throttle.leave(SECOND);
        assert_eq!(throttle.review(0, SECOND * 10, SECOND * 11), None);
        assert_eq!(throttle.leave(SECOND * 12), SECOND * 20);
        assert_eq!(throttle.review(0, SECOND * 20, SECOND * 32), None);
        assert_eq!(throttle.leave(SECOND * 92), SECOND * 10);
    }

    #[test]
    fn extreme_numbers_do_not_overflow() {
        let limits = RateLimits { per_second: u32::MAX, burst: u32::MAX, ..RateLimits::default() };
        let mut throttle = Throttle::new(limits, Duration::ZERO);
        assert!(!throttle.spend(u64::MAX, Duration::MAX));
        assert!(throttle.spend(1, Duration::ZERO) || throttle.tokens < TOKEN);
        assert!(throttle.review(u64::MAX, Duration::ZERO, Duration::MAX).is_some());
    }
}
