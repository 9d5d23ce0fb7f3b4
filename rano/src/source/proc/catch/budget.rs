//! How much looking may cost: a share of one processor, measured on the thread's own clock.
//! Pure: times are arguments.

use std::time::Duration;

/// A hundredth of one processor.
const SHARE: u32 = 100;
/// Saved up for a burst: what ten seconds give.
const MOST: Duration = Duration::from_millis(100);

/// An account of processor time.
#[derive(Debug)]
pub(super) struct Budget {
    left: Duration,
    /// Spent beyond what was there.
    owed: Duration,
    at: Duration,
    spent: Duration,
}

impl Budget {
    /// `spent`: processor time of the thread so far.
    pub(super) fn new(now: Duration, spent: Duration) -> Self {
        Self { left: MOST, owed: Duration::ZERO, at: now, spent }
    }

    /// Whether there is something left.
    pub(super) fn settle(&mut self, now: Duration, spent: Duration) -> bool {
        let earned = now.saturating_sub(self.at) / SHARE;
        let cost = spent.saturating_sub(self.spent) + self.owed;
        self.at = now;
        self.spent = spent;
        let has = self.left + earned;
        self.left = has.saturating_sub(cost).min(MOST);
        self.owed = cost.saturating_sub(has).min(MOST);
        !self.left.is_zero()
    }

    /// Plenty: looks that are not urgent are worth it.
    pub(super) fn is_ample(&self) -> bool {
        self.left > MOST / 4
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    #[test]
    fn a_burst_is_paid_from_savings_and_then_a_hundredth_remains() {
        let mut budget = Budget::new(Duration::ZERO, Duration::ZERO);
        assert!(budget.settle(MS, 99 * MS));
        assert!(!budget.settle(2 * MS, 120 * MS), "more than there was");
        assert!(!budget.settle(1_000 * MS, 120 * MS), "what is owed is earned first");
        assert!(budget.settle(3_000 * MS, 120 * MS));
        assert!(!budget.is_ample());
        assert!(budget.settle(60_000 * MS, 120 * MS));
        assert!(budget.is_ample());
    }

    #[test]
    fn what_is_owed_is_bounded() {
        let mut budget = Budget::new(Duration::ZERO, Duration::ZERO);
        assert!(!budget.settle(MS, Duration::from_hours(1)));
        assert!(budget.settle(Duration::from_secs(11), Duration::from_hours(1)));
    }
}
