//! The running sums of an observation: what the summary shows and `sessions` keeps.

use std::borrow::Borrow;
use std::collections::BTreeMap;
use std::hash::Hash;
use std::net::IpAddr;
use std::sync::Arc;

use rustc_hash::FxHashMap;

use crate::event::{Bytes, Class, Domain, Event, EventKind};
use crate::process::LeftOut;

/// Sums over all events so far.
#[derive(Debug, Clone, Default)]
pub struct Totals {
    pub connects: u64,
    pub closes: u64,
    pub fails: u64,
    pub accepts: u64,
    pub listens: u64,
    /// Connects without a close.
    pub active: u64,
    pub peak: u64,
    pub bytes: Bytes,
    pub alerts: u64,
    /// Alerts that were not given because of a cooldown.
    pub alerts_held_back: u64,
    /// Connects by provider.
    pub providers: BTreeMap<Arc<str>, u64>,
    /// Connects by remote address.
    pub remote_ips: Ranking<IpAddr>,
    /// Connects by name.
    pub domains: Ranking<Arc<str>>,
    /// What excludes left out.
    pub left_out: LeftOut,
    /// What each class of endpoints came to.
    pub classes: BTreeMap<Class, ClassTotals>,
}

/// Connects to endpoints of one class, and the payload of those that have ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ClassTotals {
    pub connects: u64,
    pub bytes: Bytes,
}

impl Totals {
    pub fn count(&mut self, event: &Event) {
        match event.kind {
            EventKind::Connect => {
                self.connects += 1;
                self.active += 1;
                self.peak = self.peak.max(self.active);
                *self.providers.entry(Arc::clone(&event.provider)).or_default() += 1;
                if let Some(ip) = event.remote.as_ref().and_then(crate::event::Address::ip_addr) {
                    self.remote_ips.count(&ip);
                }
                if let Domain::Observed { name, .. } = &event.domain {
                    self.domains.count(name);
                }
                self.classes.entry(event.class).or_default().connects += 1;
            }
            EventKind::Close => {
                self.closes += 1;
                self.active = self.active.saturating_sub(1);
            }
            EventKind::Fail => self.fails += 1,
            EventKind::Accept => self.accepts += 1,
            EventKind::Listen => self.listens += 1,
        }
        if let Some(bytes) = event.bytes {
            self.bytes.sent = self.bytes.sent.saturating_add(bytes.sent);
            self.bytes.received = self.bytes.received.saturating_add(bytes.received);
            add(&mut self.classes.entry(event.class).or_default().bytes, bytes);
        }
    }

    /// A connect that was counted goes by another name; `event` is the connection as it is now, `bytes` what was told
    /// with its end, if it has ended.
    pub fn renamed(&mut self, event: &Event, bytes: Option<Bytes>, before: &Domain, class_before: Class) {
        if let Domain::Observed { name, .. } = before {
            self.domains.discount(name);
        }
        if let Domain::Observed { name, .. } = &event.domain {
            self.domains.count(name);
        }
        if class_before != event.class {
            let former = self.classes.entry(class_before).or_default();
            former.connects = former.connects.saturating_sub(1);
            self.classes.entry(event.class).or_default().connects += 1;
            if let Some(bytes) = bytes {
                let former = &mut self.classes.entry(class_before).or_default().bytes;
                former.sent = former.sent.saturating_sub(bytes.sent);
                former.received = former.received.saturating_sub(bytes.received);
                add(&mut self.classes.entry(event.class).or_default().bytes, bytes);
            }
        }
    }
}

fn add(sum: &mut Bytes, bytes: Bytes) {
    sum.sent = sum.sent.saturating_add(bytes.sent);
    sum.received = sum.received.saturating_add(bytes.received);
}

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
