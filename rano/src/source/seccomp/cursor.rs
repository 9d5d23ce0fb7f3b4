//! Writing and reading one record. Nothing here allocates or panics: the supervisor depends on it.

use super::record::{HEADER, LONGEST};

/// A record that is being written. What finds no room is left out.
#[derive(Debug)]
pub(super) struct Out {
    bytes: [u8; LONGEST],
    length: usize,
}

impl Out {
    pub(super) const fn new() -> Self {
        Self { bytes: [0; LONGEST], length: 0 }
    }

    pub(super) fn begin(&mut self, kind: u8) {
        self.length = HEADER - 1;
        self.u8(kind);
    }

    /// The whole record.
    pub(super) fn finish(&mut self) -> &[u8] {
        let [low, high] = u16::try_from(self.length).unwrap_or(0).to_ne_bytes();
        if let Some(head) = self.bytes.first_chunk_mut::<2>() {
            *head = [low, high];
        }
        self.bytes.get(..self.length).unwrap_or_default()
    }

    fn room(&self) -> usize {
        LONGEST.saturating_sub(self.length)
    }

    pub(super) fn raw(&mut self, bytes: &[u8]) {
        let end = self.length.saturating_add(bytes.len());
        if let Some(place) = self.bytes.get_mut(self.length..end) {
            place.copy_from_slice(bytes);
            self.length = end;
        }
    }

    pub(super) fn u8(&mut self, number: u8) {
        self.raw(&[number]);
    }

    pub(super) fn u16(&mut self, number: u16) {
        self.raw(&number.to_ne_bytes());
    }

    pub(super) fn u32(&mut self, number: u32) {
        self.raw(&number.to_ne_bytes());
    }

    pub(super) fn i32(&mut self, number: i32) {
        self.raw(&number.to_ne_bytes());
    }

    pub(super) fn u64(&mut self, number: u64) {
        self.raw(&number.to_ne_bytes());
    }

    /// At most `most` bytes of it, with their number in front.
    pub(super) fn text(&mut self, bytes: &[u8], most: usize) {
        let length = bytes.len().min(most).min(self.room().saturating_sub(2)).min(usize::from(u16::MAX));
        self.u16(u16::try_from(length).unwrap_or(0));
        self.raw(bytes.get(..length).unwrap_or_default());
    }
}

/// What is left of a record that is being read.
#[derive(Debug)]
pub(super) struct In<'a>(&'a [u8]);

impl<'a> In<'a> {
    pub(super) const fn new(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }

    pub(super) fn array<const N: usize>(&mut self) -> Option<&'a [u8; N]> {
        let (array, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(array)
    }

    pub(super) fn u8(&mut self) -> Option<u8> {
        self.array().map(|[byte]| *byte)
    }

    pub(super) fn u16(&mut self) -> Option<u16> {
        self.array().map(|bytes| u16::from_ne_bytes(*bytes))
    }

    pub(super) fn u32(&mut self) -> Option<u32> {
        self.array().map(|bytes| u32::from_ne_bytes(*bytes))
    }

    pub(super) fn i32(&mut self) -> Option<i32> {
        self.array().map(|bytes| i32::from_ne_bytes(*bytes))
    }

    pub(super) fn u64(&mut self) -> Option<u64> {
        self.array().map(|bytes| u64::from_ne_bytes(*bytes))
    }

    pub(super) fn text(&mut self) -> Option<&'a [u8]> {
        let length = usize::from(self.u16()?);
        let (text, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        Some(text)
    }
}
