//! Bytes of the last seconds, in slots of a clock that is passed in.

/// Milliseconds of a slot.
const SLOT: i64 = 2000;
const SLOTS: usize = 8;
/// The same, to count with.
const SPAN: i64 = 8;

/// A sliding window of 16 seconds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Recent {
    /// Of the last element.
    slot: i64,
    bytes: [u64; SLOTS],
}

impl Recent {
    pub fn add(&mut self, at: i64, bytes: u64) {
        self.add_to(at.div_euclid(SLOT), bytes);
    }

    fn add_to(&mut self, slot: i64, bytes: u64) {
        if bytes == 0 {
            return;
        }
        self.advance(slot);
        let back = usize::try_from(self.slot - slot).unwrap_or(SLOTS);
        if let Some(place) = (SLOTS - 1).checked_sub(back) {
            self.bytes[place] = self.bytes[place].saturating_add(bytes);
        }
    }

    fn advance(&mut self, slot: i64) {
        let steps = slot.saturating_sub(self.slot);
        if steps <= 0 {
            return;
        }
        let steps = usize::try_from(steps).unwrap_or(SLOTS).min(SLOTS);
        self.bytes.rotate_left(steps);
        self.bytes[SLOTS - steps..].fill(0);
        self.slot = slot;
    }

    /// Adds another's bytes, as of `now`.
    pub fn merge(&mut self, other: &Self, now: i64) {
        if other.is_quiet(now) {
            return;
        }
        for (slot, bytes) in (0..).zip(other.bytes) {
            self.add_to(other.slot - SPAN + 1 + slot, bytes);
        }
    }

    /// Nothing of it is recent any more.
    pub fn is_quiet(&self, now: i64) -> bool {
        now.div_euclid(SLOT) - self.slot >= SPAN || self.bytes == [0; SLOTS]
    }

    /// The average.
    pub fn per_second(&self, now: i64) -> u64 {
        self.slots(now).iter().fold(0, |sum: u64, bytes| sum.saturating_add(*bytes)) / (SLOTS as u64 * 2)
    }

    /// From the oldest to the one of `now`.
    pub fn slots(&self, now: i64) -> [u64; SLOTS] {
        let mut moved = *self;
        moved.advance(now.div_euclid(SLOT));
        moved.bytes
    }

    /// One character a slot, the highest one full; empty where nothing was sent or received.
    pub fn line(&self, now: i64) -> String {
        const LEVELS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];
        if self.is_quiet(now) {
            return String::new();
        }
        let slots = self.slots(now);
        let highest = u128::from(slots.into_iter().max().unwrap_or(0)).max(1);
        let level = |bytes: u64| match bytes {
            0 => ' ',
            bytes => LEVELS[usize::try_from(u128::from(bytes) * 7 / highest).unwrap_or(0).min(7)],
        };
        slots.into_iter().map(level).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_window_forgets_what_is_older() {
        let mut recent = Recent::default();
        recent.add(100_000, 1600);
        assert_eq!(recent.per_second(100_500), 100);
        assert_eq!(recent.line(100_500), "       █");
        recent.add(104_000, 800);
        assert_eq!(recent.line(104_000), "     █ ▄");
        // Late, and still inside; far too late.
        recent.add(102_000, 1);
        recent.add(1, 1_000_000);
        assert_eq!(recent.per_second(104_000), 150);
        assert_eq!(recent.line(104_000), "     █▁▄");
        assert!(!recent.is_quiet(115_000) && recent.is_quiet(120_001));
        assert_eq!((recent.per_second(130_000), recent.line(130_000).as_str()), (0, ""));
    }

    #[test]
    fn windows_add_up() {
        let (mut one, mut other) = (Recent::default(), Recent::default());
        one.add(100_000, 16);
        other.add(96_000, 32);
        let mut both = Recent::default();
        both.merge(&one, 100_000);
        both.merge(&other, 100_000);
        assert_eq!(both.per_second(100_000), 3);
        both.merge(&other, 200_000);
        assert_eq!(both.per_second(100_000), 3);
    }
}
