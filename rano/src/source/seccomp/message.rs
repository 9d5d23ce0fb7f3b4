//! Message headers in the caller's memory: where a message goes and how it begins. Nothing here allocates or panics.

use super::record::QUESTION;
use super::sys;

/// Where the parts of one message lie.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Message {
    /// Address of the receiver; 0 where the socket knows it.
    pub(super) name: u64,
    pub(super) name_length: u64,
    vector: u64,
    vectors: u64,
    is_wide: bool,
}

/// Size of `struct msghdr` and, in an array, of `struct mmsghdr`.
pub(super) const fn sizes(is_wide: bool) -> (u64, u64) {
    if is_wide { (56, 64) } else { (28, 32) }
}

/// The header at `at`; `None` where it may not be read.
pub(super) fn header(thread: u32, at: u64, is_wide: bool) -> Option<Message> {
    let mut bytes = [0; 40];
    let length = if is_wide { 32 } else { 16 };
    let room = bytes.get_mut(..length)?;
    if sys::read_memory(thread, at, room) != Ok(length) {
        return None;
    }
    let word = |at: usize| Some(u64::from(u32::from_ne_bytes(*bytes.get(at..)?.first_chunk()?)));
    let long = |at: usize| Some(u64::from_ne_bytes(*bytes.get(at..)?.first_chunk()?));
    Some(if is_wide {
        Message { name: long(0)?, name_length: word(8)?, vector: long(16)?, vectors: long(24)?, is_wide }
    } else {
        Message { name: word(0)?, name_length: word(4)?, vector: word(8)?, vectors: word(12)?, is_wide }
    })
}

impl Message {
    /// Its first bytes, of at most two pieces: DNS over TCP alone has its length apart.
    pub(super) fn beginning<'b>(&self, thread: u32, into: &'b mut [u8; QUESTION]) -> &'b [u8] {
        let size: u8 = if self.is_wide { 16 } else { 8 };
        let mut filled = 0;
        for piece in 0..self.vectors.min(2) {
            let mut bytes = [0; 16];
            let Some(room) = bytes.get_mut(..usize::from(size)) else { break };
            if sys::read_memory(thread, self.vector.wrapping_add(piece * u64::from(size)), room)
                != Ok(room.len())
            {
                break;
            }
            let Some((at, length)) = pointer(&bytes, self.is_wide) else { break };
            filled += plain(thread, at, length, into.get_mut(filled..).unwrap_or_default());
        }
        into.get(..filled).unwrap_or_default()
    }
}

/// `struct iovec`
fn pointer(bytes: &[u8; 16], is_wide: bool) -> Option<(u64, u64)> {
    if is_wide {
        let (at, length) = bytes.split_first_chunk::<8>()?;
        return Some((u64::from_ne_bytes(*at), u64::from_ne_bytes(*length.first_chunk()?)));
    }
    let (at, rest) = bytes.split_first_chunk::<4>()?;
    Some((u32::from_ne_bytes(*at).into(), u32::from_ne_bytes(*rest.first_chunk()?).into()))
}

/// Copies at most `length` bytes that lie at `at`; how many.
pub(super) fn plain(thread: u32, at: u64, length: u64, into: &mut [u8]) -> usize {
    let length = usize::try_from(length).unwrap_or(usize::MAX).min(into.len());
    let Some(room) = into.get_mut(..length).filter(|room| !room.is_empty()) else { return 0 };
    sys::read_memory(thread, at, room).unwrap_or(0).min(length)
}
