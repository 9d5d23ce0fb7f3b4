//! The beginning of a byte stream, put together from pieces that come in any order, twice or not at all.

/// What lies further behind the place that is waited for is not kept.
pub const ROOM: usize = 16 * 1024;
/// Pieces that may wait for one before them.
const PIECES_MAX: usize = 64;

/// A stream from a place on. Of bytes that come twice the first are kept.
pub struct Stream {
    /// Number of the first byte that is still of interest; counts modulo 2^32 as TCP does.
    start: u32,
    ready: Vec<u8>,
    /// Distance from `start`, sorted.
    waiting: Vec<(usize, Vec<u8>)>,
    waiting_bytes: usize,
}

impl Stream {
    pub fn new(start: u32) -> Self {
        Self { start, ready: Vec::new(), waiting: Vec::new(), waiting_bytes: 0 }
    }

    /// Number of the first byte that is ready.
    pub fn start(&self) -> u32 {
        self.start
    }

    /// Distance of a place from the first byte that is waited for; `None` where it is out of reach.
    pub fn distance(start: u32, sequence: u32) -> Option<usize> {
        let distance = sequence.wrapping_sub(start) as usize;
        (distance < ROOM).then_some(distance)
    }

    /// What is there without a gap.
    pub fn ready(&self) -> &[u8] {
        &self.ready
    }

    /// `false` where there was no room for it, so that the stream will not be whole.
    pub fn add(&mut self, sequence: u32, bytes: &[u8]) -> bool {
        let (at, bytes) = if let Some(distance) = Self::distance(self.start, sequence) {
            (distance, bytes)
        } else {
            // Sent before, or so far ahead that it is of no use.
            let before = self.start.wrapping_sub(sequence) as usize;
            match bytes.get(before..) {
                Some(rest) if before < ROOM => (0, rest),
                _ => return before < 1 << 31,
            }
        };
        let fits = bytes.len().min(ROOM - at);
        let whole = fits == bytes.len();
        let kept = self.keep(at, &bytes[..fits]);
        self.join();
        whole && kept
    }

    fn keep(&mut self, at: usize, bytes: &[u8]) -> bool {
        if at + bytes.len() <= self.ready.len() {
            return true;
        }
        if at <= self.ready.len() {
            self.ready.extend_from_slice(&bytes[self.ready.len() - at..]);
            return true;
        }
        if self.waiting.len() == PIECES_MAX || self.waiting_bytes + bytes.len() > ROOM {
            return false;
        }
        let place = self.waiting.partition_point(|(other, _)| *other <= at);
        self.waiting_bytes += bytes.len();
        self.waiting.insert(place, (at, bytes.to_vec()));
        true
    }

    fn join(&mut self) {
        while self.waiting.first().is_some_and(|(at, _)| *at <= self.ready.len()) {
            let (at, piece) = self.waiting.remove(0);
            self.waiting_bytes -= piece.len();
            if let Some(fresh) = piece.get(self.ready.len() - at..) {
                self.ready.extend_from_slice(fresh);
            }
        }
    }

    /// The first `count` ready bytes were read.
    pub fn consume(&mut self, count: usize) {
        let count = count.min(self.ready.len());
        self.ready.drain(..count);
        #[expect(clippy::cast_possible_truncation, reason = "it is at most ROOM")]
        let moved = count as u32;
        self.start = self.start.wrapping_add(moved);
        for (at, _) in &mut self.waiting {
            *at -= count;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(start: u32, pieces: &[(u32, &[u8])]) -> Vec<u8> {
        let mut stream = Stream::new(start);
        for (sequence, bytes) in pieces {
            stream.add(*sequence, bytes);
        }
        stream.ready
    }

    #[test]
    fn order_and_repetition_do_not_matter() {
        assert_eq!(read(10, &[(10, b"abc"), (13, b"def")]), b"abcdef");
        assert_eq!(read(10, &[(13, b"def"), (16, b"ghi"), (10, b"abc")]), b"abcdefghi");
        assert_eq!(read(10, &[(10, b"abcd"), (12, b"cdef"), (10, b"ab")]), b"abcdef");
        assert_eq!(read(10, &[(12, b"c"), (12, b"cde"), (10, b"ab")]), b"abcde");
        assert_eq!(read(10, &[(8, b"--abc")]), b"abc", "partly sent before");
        assert_eq!(read(10, &[(10, b"abc"), (14, b"ef")]), b"abc", "a gap");
    }

    #[test]
    fn numbers_wrap() {
        assert_eq!(read(u32::MAX - 1, &[(1, b"de"), (u32::MAX - 1, b"abc")]), b"abcde");
    }

    #[test]
    fn what_is_read_makes_room() {
        let mut stream = Stream::new(0);
        assert!(stream.add(0, &[1; ROOM]));
        stream.consume(ROOM - 1);
        assert!(stream.add(u32::try_from(ROOM).expect("small"), &[2; 2]));
        assert_eq!(stream.ready(), [1, 2, 2]);
        let end = u32::try_from(ROOM).expect("small");
        assert!(stream.add(end + 4, b"x"));
        stream.consume(3);
        assert!(stream.add(end + 2, &[3; 2]));
        assert_eq!(stream.ready(), [3, 3, b'x']);
    }

    #[test]
    fn it_does_not_grow_beyond_its_room() {
        let mut stream = Stream::new(0);
        for at in 1..2000 {
            stream.add(at * 16, &[0; 8]);
        }
        assert!(stream.waiting.len() <= PIECES_MAX);
        assert!(!stream.add(1, &vec![0; 2 * ROOM]));
        assert!(stream.ready.len() + stream.waiting_bytes <= 2 * ROOM);
        assert!(!stream.add(1 << 20, b"far"), "what is out of reach is missed");
    }
}
