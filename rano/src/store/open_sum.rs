//! A digest of a set that changes one element at a time: the bytes of the connections that are open now. Each element
//! is hashed to a long number, and the digest is their sum. (Bellare and Micciancio, "A new paradigm for collision-free
//! hashing", 1997: `AdHash`; with 2048 bits a collision takes some 2^90 steps.)

use sha2::{Digest as _, Sha256};

/// Words of 64 bits.
const WORDS: usize = 32;

/// Of rows of `event`, each with the bytes sent and received so far.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct OpenSum([u64; WORDS]);

impl Default for OpenSum {
    fn default() -> Self {
        Self([0; WORDS])
    }
}

impl OpenSum {
    pub(super) fn add(&mut self, row: i64, bytes: (i64, i64)) {
        let mut carry = false;
        for (word, other) in self.0.iter_mut().zip(element(row, bytes)) {
            let (sum, first) = word.overflowing_add(other);
            let (sum, second) = sum.overflowing_add(carry.into());
            *word = sum;
            carry = first || second;
        }
    }

    pub(super) fn remove(&mut self, row: i64, bytes: (i64, i64)) {
        let mut borrow = false;
        for (word, other) in self.0.iter_mut().zip(element(row, bytes)) {
            let (rest, first) = word.overflowing_sub(other);
            let (rest, second) = rest.overflowing_sub(borrow.into());
            *word = rest;
            borrow = first || second;
        }
    }

    pub(super) fn digest(&self) -> [u8; 32] {
        let mut hash = Sha256::new();
        for word in self.0 {
            hash.update(word.to_le_bytes());
        }
        hash.finalize().into()
    }
}

fn element(row: i64, (sent, received): (i64, i64)) -> impl Iterator<Item = u64> {
    (0..WORDS / 4).flat_map(move |block| {
        let mut bytes = [0; 32];
        let numbers = [row, sent, received, i64::try_from(block).expect("a small number")];
        for (place, number) in bytes.chunks_exact_mut(8).zip(numbers) {
            place.copy_from_slice(&number.to_le_bytes());
        }
        let hash: [u8; 32] = Sha256::digest(bytes).into();
        (0..4).map(move |word| {
            let bytes = hash[8 * word..8 * word + 8].try_into().expect("eight bytes");
            u64::from_le_bytes(bytes)
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_removed_leaves_no_trace_and_the_order_does_not_matter() {
        let (mut one, mut other) = (OpenSum::default(), OpenSum::default());
        for row in 1..100 {
            one.add(row, (row * 3, 7));
            other.add(100 - row, ((100 - row) * 3, 7));
        }
        assert_eq!(one, other);
        other.add(500, (1, 2));
        assert_ne!(one.digest(), other.digest());
        other.remove(500, (1, 2));
        assert_eq!(one.digest(), other.digest());
        for row in 1..100 {
            one.remove(row, (row * 3, 7));
        }
        assert_eq!(one, OpenSum::default());
    }
}
