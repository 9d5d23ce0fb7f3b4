//! A table that has a size: when it is full, the oldest entry makes room.

use std::collections::{HashMap, VecDeque};
use std::hash::Hash;

/// Keys come from the network, hence the keyed hash of the standard library.
pub struct Bounded<K, V> {
    entries: HashMap<K, (u64, V)>,
    /// In the order of insertion; an entry that is gone leaves its key here until its turn comes.
    order: VecDeque<(K, u64)>,
    next: u64,
    room: usize,
}

impl<K: Hash + Eq + Clone, V> Bounded<K, V> {
    pub fn new(room: usize) -> Self {
        Self { entries: HashMap::new(), order: VecDeque::new(), next: 0, room }
    }

    /// The entry that had to go, if one had.
    pub fn insert(&mut self, key: K, value: V) -> Option<V> {
        self.next += 1;
        self.order.push_back((key.clone(), self.next));
        self.entries.insert(key, (self.next, value));
        let mut gone = None;
        while self.entries.len() > self.room || self.order.len() > 2 * self.room {
            let Some((oldest, number)) = self.order.pop_front() else { break };
            if self.entries.get(&oldest).is_some_and(|(inserted, _)| *inserted == number) {
                gone = self.entries.remove(&oldest).map(|(_, value)| value);
            }
        }
        gone
    }

    pub fn get(&self, key: &K) -> Option<&V> {
        self.entries.get(key).map(|(_, value)| value)
    }

    pub fn get_mut(&mut self, key: &K) -> Option<&mut V> {
        self.entries.get_mut(key).map(|(_, value)| value)
    }

    pub fn remove(&mut self, key: &K) -> Option<V> {
        self.entries.remove(key).map(|(_, value)| value)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_makes_room() {
        let mut table = Bounded::new(2);
        assert_eq!((table.insert(1, 'a'), table.insert(2, 'b')), (None, None));
        assert_eq!(table.insert(1, 'c'), None, "replaced, and young again");
        assert_eq!(table.insert(3, 'd'), Some('b'));
        assert_eq!((table.get(&1), table.get(&2), table.get(&3)), (Some(&'c'), None, Some(&'d')));
    }

    #[test]
    fn neither_replacing_nor_removing_lets_it_grow() {
        let mut table = Bounded::new(4);
        for round in 0..1000 {
            table.insert(round % 3, round);
            table.remove(&(round % 2));
        }
        assert!(table.order.len() <= 8 && table.entries.len() <= 4);
    }
}
