//! Values of the maps that both sides write, as plain words, so that either side can treat them as bytes.

/// What user space said of a process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
pub enum Verdict {
    /// It has been told of; the answer is awaited.
    Asked = 0,
    Tracked = 1,
    Ignored = 2,
    /// It would be tracked, but is left out: what it opens is counted and not told.
    Excluded = 3,
    /// Nobody said anything yet, or what was said is void.
    Undecided = 4,
}

impl Verdict {
    #[inline]
    pub const fn of(word: u32) -> Option<Self> {
        match word {
            0 => Some(Self::Asked),
            1 => Some(Self::Tracked),
            2 => Some(Self::Ignored),
            3 => Some(Self::Excluded),
            4 => Some(Self::Undecided),
            _ => None,
        }
    }
}

/// A verdict, and of whom: it is void for another process of that pid and after another exec.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Judgement {
    pub start_ns: u64,
    pub exec_id: u32,
    pub verdict: Verdict,
    /// Pid of the process that forked it, for the case that the record of that is lost; 0 where it does not matter.
    pub forker: u32,
}

pub type JudgementWords = [u64; 2];

/// Bits of the second word: number of the exec, forker, verdict. No pid has more than 22 bits (`PID_MAX_LIMIT`).
const FORKER_AT: u32 = 32;
const FORKER_MASK: u64 = (1 << 28) - 1;
const VERDICT_AT: u32 = 60;

impl Judgement {
    #[inline]
    pub const fn to_words(self) -> JudgementWords {
        let forker = self.forker as u64 & FORKER_MASK;
        [self.start_ns, self.exec_id as u64 | forker << FORKER_AT | (self.verdict as u64) << VERDICT_AT]
    }

    /// The verdict, if it is of this process and this image, and was given.
    #[expect(clippy::cast_possible_truncation, reason = "parts of words are taken apart")]
    #[inline]
    pub const fn of(words: JudgementWords, start_ns: u64, exec_id: u32) -> Option<Verdict> {
        if words[0] != start_ns || words[1] as u32 != exec_id {
            return None;
        }
        match Verdict::of((words[1] >> VERDICT_AT) as u32) {
            Some(Verdict::Undecided) | None => None,
            given => given,
        }
    }

    /// What is said of whatever process these words are of, whatever it ran then.
    #[expect(clippy::cast_possible_truncation, reason = "parts of words are taken apart")]
    #[inline]
    pub const fn from_words(words: JudgementWords) -> Option<Self> {
        let Some(verdict) = Verdict::of((words[1] >> VERDICT_AT) as u32) else { return None };
        let forker = (words[1] >> FORKER_AT & FORKER_MASK) as u32;
        Some(Self { start_ns: words[0], exec_id: words[1] as u32, verdict, forker })
    }
}

/// Of a socket.
pub mod flags {
    /// Its attempt was told.
    pub const ATTEMPTED: u32 = 1;
    /// It is older than the observation.
    pub const PREEXISTING: u32 = 2;
    /// A datagram socket.
    pub const DATAGRAM: u32 = 4;
    /// It came from a listener.
    pub const ACCEPTED: u32 = 8;
    /// It waits for others.
    pub const LISTENER: u32 = 16;
    /// The owner is that of the listener; who took the connection is not known.
    pub const INHERITED: u32 = 32;
    /// That it was accepted was told.
    pub const TOLD: u32 = 64;
    /// A datagram socket that is connected.
    pub const CONNECTED: u32 = 128;
    /// A datagram was exchanged, or nobody would see one.
    pub const TALKED: u32 = 256;
    /// A record of it found room before this one.
    pub const HEARD: u32 = 512;
    /// In a record of an end: the other side's FIN came, and is counted in the bytes received.
    pub const FIN: u32 = 1024;
    /// Its opener was not judged yet, or somebody else's packet opened it: such sockets leave half of the room.
    pub const LIMITED: u32 = 2048;
    /// Of another kind than TCP and UDP: its key is the inode of its file, marked.
    pub const OTHER: u32 = 8192;
    /// It was connected by somebody else, and is its first watched user's.
    pub const ADOPTED: u32 = 16_384;
    /// There was no room to follow it: nothing more is told of it.
    pub const UNFOLLOWED: u32 = 4096;
}

/// Indices into [`OwnerWords`] of what the programs change in place.
pub mod owner_words {
    pub const ESTABLISHED: usize = 1;
    /// The flags are the lower half.
    pub const FLAGS: usize = 3;
    /// Two words.
    pub const REMOTE: usize = 4;
    pub const SENT: usize = 6;
    pub const RECEIVED: usize = 7;
}

/// What went to one destination of an unconnected datagram socket, and came from it: sent, received.
pub type FlowBytes = [u64; 2];

/// Where a packet went: the address in two words, IPv4 as its mapped IPv6 address, and the port.
pub type DestinationWords = [u64; 3];

/// Who listens: the socket's cookie, start, pid and exec id of the owner. A pid of 0: several do.
pub type ListenerWords = [u64; 3];

/// Who opened a socket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Owner {
    pub start_ns: u64,
    pub established_ns: u64,
    pub pid: u32,
    pub exec_id: u32,
    /// See [`flags`].
    pub flags: u32,
    /// Where a connect went, in the bytes of the address: a socket that found no route does not know it. Of an
    /// unconnected datagram socket where it sent to last.
    pub remote: [u64; 2],
    pub remote_port: u16,
    /// Payload of a datagram socket; see the record's fields.
    pub sent: u64,
    pub received: u64,
}

pub type OwnerWords = [u64; 8];

impl Owner {
    #[inline]
    pub const fn to_words(self) -> OwnerWords {
        [
            self.start_ns,
            self.established_ns,
            self.pid as u64 | (self.exec_id as u64) << 32,
            self.flags as u64 | (self.remote_port as u64) << 32,
            self.remote[0],
            self.remote[1],
            self.sent,
            self.received,
        ]
    }

    /// Where a connect went; IPv4 as its mapped IPv6 address.
    pub fn remote_bytes(&self) -> [u8; 16] {
        let mut bytes = [0; 16];
        bytes[..8].copy_from_slice(&self.remote[0].to_ne_bytes());
        bytes[8..].copy_from_slice(&self.remote[1].to_ne_bytes());
        bytes
    }

    #[inline]
    #[expect(clippy::cast_possible_truncation, reason = "halves of words are taken apart")]
    pub const fn from_words(words: OwnerWords) -> Self {
        Self {
            start_ns: words[0],
            established_ns: words[1],
            pid: words[2] as u32,
            exec_id: (words[2] >> 32) as u32,
            flags: words[3] as u32,
            remote: [words[4], words[5]],
            remote_port: (words[3] >> 32) as u16,
            sent: words[6],
            received: words[7],
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_verdict_holds_for_one_image_of_one_process() {
        let forker = 4_194_304;
        let judgement = Judgement { start_ns: 7, exec_id: u32::MAX, verdict: Verdict::Ignored, forker };
        let words = judgement.to_words();
        assert_eq!(Judgement::from_words(words), Some(judgement));
        assert_eq!(Judgement::of(words, 7, u32::MAX), Some(Verdict::Ignored));
        assert_eq!(Judgement::of(words, 8, u32::MAX), None);
        assert_eq!(Judgement::of(words, 7, 0), None);
        assert_eq!(Judgement::of([7, 9 << VERDICT_AT], 7, 0), None, "a verdict that does not exist");
        assert_eq!(Judgement::from_words([7, 9 << VERDICT_AT]), None);
        let undecided = Judgement { verdict: Verdict::Undecided, ..judgement };
        assert_eq!(Judgement::of(undecided.to_words(), 7, u32::MAX), None, "none was given");
    }

    #[test]
    fn owners_survive_the_map() {
        let owner = Owner {
            start_ns: u64::MAX,
            established_ns: 3,
            pid: u32::MAX,
            exec_id: 5,
            flags: 7,
            remote: [1, u64::MAX],
            remote_port: 443,
            sent: 8,
            received: u64::MAX,
        };
        assert_eq!(Owner::from_words(owner.to_words()), owner);
    }
}
