//! Counts by key, bounded.

use std::borrow::Borrow;
use std::hash::Hash;

use rustc_hash::FxHashMap;

/// Counts by key for a bounded number of keys. When they are too many, the rarer half goes, counted together: whatever
/// becomes frequent later still finds its place.
#[derive(Debug, Clone)]
pub struct Ranking<K> {
    counts: FxHashMap<K, u64>,
    /// Occurrences of keys that had to go.
    pub others: u64,
}

impl<K> Default for Ranking<K> {
    fn default() -> Self {
        Self { counts: FxHashMap::default(), others: 0 }
    }
}

impl<K: Eq + Hash + Ord + Clone> Ranking<K> {
    /// 65,536 keys take a few MiB, and no observation that a person reads has more.
    const KEYS_MAX: usize = 1 << 16;

    /// An owned key is made only for its first occurrence.
    pub fn count<Q>(&mut self, key: &Q)
    where
        K: Borrow<Q>,
        Q: Eq + Hash + ToOwned<Owned = K> + ?Sized,
    {
        if let Some(count) = self.counts.get_mut(key) {
            *count += 1;
        } else {
            if self.counts.len() >= Self::KEYS_MAX {
                self.drop_rare();
            }
            self.counts.insert(key.to_owned(), 1);
        }
    }

    /// Half of the keys at least.
    fn drop_rare(&mut self) {
        let mut counts: Vec<u64> = self.counts.values().copied().collect();
        let middle = counts.len() / 2;
        let (_, &mut median, _) = counts.select_nth_unstable(middle);
        let others = &mut self.others;
        self.counts.retain(|_, count| {
            let is_rare = *count <= median;
            *others += if is_rare { *count } else { 0 };
            !is_rare
        });
    }

    /// Takes back one occurrence.
    pub fn discount<Q>(&mut self, key: &Q)
    where
        K: Borrow<Q>,
        Q: Eq + Hash + ?Sized,
    {
        match self.counts.get_mut(key) {
            Some(1) => drop(self.counts.remove(key)),
            Some(count) => *count -= 1,
            None => self.others = self.others.saturating_sub(1),
        }
    }

    /// The most frequent first, equals in the order of their keys.
    pub fn top(&self, most: usize) -> Vec<(K, u64)> {
        let order =
            |(a_key, a): &(&K, &u64), (b_key, b): &(&K, &u64)| b.cmp(a).then_with(|| a_key.cmp(b_key));
        let mut all: Vec<_> = self.counts.iter().collect();
        if all.len() > most {
            // Many are counted and few are shown: only those are put in order.
            all.select_nth_unstable_by(most, order);
            all.truncate(most);
        }
        all.sort_unstable_by(order);
        all.into_iter().map(|(key, count)| (key.clone(), *count)).collect()
    }

    pub fn len(&self) -> usize {
        self.counts.len()
    }

    pub fn is_empty(&self) -> bool {
        self.counts.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_of_keys_hides_none_that_becomes_frequent() {
        let mut ranking = Ranking::default();
        for _ in 0..10 {
            ranking.count(&7);
        }
        for key in 0..200_000_u32 {
            ranking.count(&key);
        }
        for _ in 0..5 {
            ranking.count(&300_000);
        }
        assert_eq!(ranking.top(2), [(7, 11), (300_000, 5)]);
        assert!(ranking.len() <= Ranking::<u32>::KEYS_MAX);
        let kept: u64 = ranking.top(usize::MAX).iter().map(|(_, count)| count).sum();
        assert_eq!(kept + ranking.others, 10 + 200_000 + 5, "nothing is lost");
    }
}
