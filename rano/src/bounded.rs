//! A table that has a size: when it is full, the oldest entry makes room, and is counted.

use std::collections::hash_map::RandomState;
use std::collections::{HashMap, VecDeque};
use std::fmt;
use std::hash::{BuildHasher, Hash};

use rustc_hash::FxBuildHasher;

/// For keys that are nobody's choice: a kernel's numbers.
pub type FastBounded<K, V> = Bounded<K, V, FxBuildHasher>;

/// With the keyed hash of the standard library, because keys may come from the network, unless another one is named.
#[derive(Clone)]
pub struct Bounded<K, V, S = RandomState> {
    entries: HashMap<K, (u64, V), S>,
    /// In the order of insertion; an entry that is gone leaves its key here until its turn comes.
    order: VecDeque<(K, u64)>,
    next: u64,
    room: usize,
    pushed_out: u64,
}

impl<K, V, S> fmt::Debug for Bounded<K, V, S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { entries, room, pushed_out, .. } = self;
        write!(f, "Bounded({} of {room}, {pushed_out} pushed out)", entries.len())
    }
}

impl<K: Hash + Eq + Clone, V, S: BuildHasher + Default> Bounded<K, V, S> {
    pub fn new(room: usize) -> Self {
        Self { entries: HashMap::default(), order: VecDeque::new(), next: 0, room, pushed_out: 0 }
    }

    /// Entries that had to make room so far.
    pub fn pushed_out(&self) -> u64 {
        self.pushed_out
    }

    pub fn len(&self) -> usize {
        self.entries.len()
    }

    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
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
                self.pushed_out += 1;
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

    pub fn contains(&self, key: &K) -> bool {
        self.entries.contains_key(key)
    }

    pub fn keys(&self) -> impl Iterator<Item = &K> {
        self.entries.keys()
    }

    /// In no particular order.
    pub fn values(&self) -> impl Iterator<Item = &V> {
        self.entries.values().map(|(_, value)| value)
    }

    pub fn remove(&mut self, key: &K) -> Option<V> {
        self.entries.remove(key).map(|(_, value)| value)
    }

    /// Takes the oldest entry out, if `is_over`.
    pub fn take_oldest_if(&mut self, is_over: impl Fn(&V) -> bool) -> Option<V> {
        while let Some((key, number)) = self.order.front() {
            match self.entries.get(key) {
                Some((inserted, value)) if inserted == number => {
                    return if is_over(value) {
                        let (key, _) = self.order.pop_front()?;
                        self.remove(&key)
                    } else {
                        None
                    };
                }
                // Gone, or replaced by a younger one.
                Some(_) | None => drop(self.order.pop_front()),
            }
        }
        None
    }
}

/// Whose an entry is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Whose {
    /// A watched process's.
    Watched,
    /// Anybody's, or it is not known whose.
    Anybodys,
}

/// Two such tables: what is of anybody does not push out what is of watched processes.
pub struct Parted<K, V> {
    watched: Bounded<K, V>,
    anybodys: Bounded<K, V>,
}

impl<K: Hash + Eq + Clone, V> Parted<K, V> {
    /// `room` in each.
    pub fn new(room: usize) -> Self {
        Self { watched: Bounded::new(room), anybodys: Bounded::new(room) }
    }

    /// The entry that had to go, if one had.
    pub fn insert(&mut self, whose: Whose, key: K, value: V) -> Option<V> {
        // It may have become known since whose it is.
        let (to, from) = match whose {
            Whose::Watched => (&mut self.watched, &mut self.anybodys),
            Whose::Anybodys => (&mut self.anybodys, &mut self.watched),
        };
        from.remove(&key);
        to.insert(key, value)
    }

    pub fn get(&self, key: &K) -> Option<&V> {
        self.watched.get(key).or_else(|| self.anybodys.get(key))
    }

    pub fn get_mut(&mut self, key: &K) -> Option<&mut V> {
        match self.watched.get_mut(key) {
            Some(value) => Some(value),
            None => self.anybodys.get_mut(key),
        }
    }

    pub fn remove(&mut self, key: &K) -> Option<V> {
        self.watched.remove(key).or_else(|| self.anybodys.remove(key))
    }

    /// In no particular order.
    pub fn values(&self) -> impl Iterator<Item = &V> {
        self.watched.values().chain(self.anybodys.values())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_makes_room() {
        let mut table = Bounded::<_, _>::new(2);
        assert_eq!((table.insert(1, 'a'), table.insert(2, 'b')), (None, None));
        assert_eq!(table.insert(1, 'c'), None, "replaced, and young again");
        assert_eq!(table.insert(3, 'd'), Some('b'));
        assert_eq!((table.get(&1), table.get(&2), table.get(&3)), (Some(&'c'), None, Some(&'d')));
        assert_eq!((table.len(), table.pushed_out()), (2, 1));
    }

    #[test]
    fn those_that_are_over_are_taken_oldest_first() {
        let mut table = Bounded::<_, _>::new(4);
        for (key, value) in [(1, 10), (2, 20), (1, 30), (3, 5)] {
            table.insert(key, value);
        }
        let mut over = |until| table.take_oldest_if(|value| *value < until);
        assert_eq!((over(20), over(25), over(25)), (None, Some(20), None));
        assert_eq!((over(99), over(99), over(99)), (Some(30), Some(5), None));
        assert_eq!((table.is_empty(), table.pushed_out()), (true, 0));
    }

    #[test]
    fn neither_replacing_nor_removing_lets_it_grow() {
        let mut table = Bounded::<_, _>::new(4);
        for round in 0..1000 {
            table.insert(round % 3, round);
            table.remove(&(round % 2));
        }
        assert!(table.order.len() <= 8 && table.entries.len() <= 4);
    }

    #[test]
    fn what_is_of_anybody_pushes_out_nothing_of_the_watched() {
        let mut table = Parted::new(4);
        table.insert(Whose::Watched, 1, 'a');
        let gone = (2..100).filter(|key| table.insert(Whose::Anybodys, *key, 'b').is_some()).count();
        assert_eq!((table.get(&1), gone), (Some(&'a'), 94));
        table.insert(Whose::Anybodys, 1, 'c');
        assert_eq!(table.get_mut(&1), Some(&mut 'c'));
        assert_eq!((table.remove(&1), table.remove(&1)), (Some('c'), None));
    }
}
