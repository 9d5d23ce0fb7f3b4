//! Names out of a capture file, pcap or pcapng, as any tool writes them. Needs neither privileges nor libpcap. A file
//! is read as its evidence is asked for; a pipe in its place is read as it is written (`super::pcap`).

use std::collections::VecDeque;
use std::fs::File;
use std::io::{Read, Seek as _};

use anyhow::{Context as _, Result, bail};
use pcap_parser::traits::{PcapNGPacketBlock as _, PcapReaderIterator};
use pcap_parser::{Block, Linktype, PcapBlockOwned, PcapError, create_reader};

use super::Evidence;
use super::packet::{self, Link, Look};
use super::reader::{Reader, Seen};
use crate::event::Moment;

const BUFFER: usize = 64 * 1024;
/// No packet is longer (`MAXIMUM_SNAPLEN` of libpcap is a quarter of a megabyte).
const BUFFER_MAX: usize = 4 << 20;
/// How a pcapng file begins, and the fewest bytes of its blocks: type, length, length again.
const SECTION: [u8; 4] = [0x0a, 0x0d, 0x0d, 0x0a];
const BLOCK_MIN: u32 = 12;
/// Interfaces of one section of a pcapng file.
const INTERFACES_MAX: usize = 4096;

/// The packets of a capture, one after another.
pub struct Packets {
    blocks: Box<dyn PcapReaderIterator + Send>,
    buffer: usize,
    /// It consists of blocks (pcapng).
    has_blocks: bool,
    section: Section,
    /// Of the packet before, for those that have no time of their own.
    unix_ns: u64,
    /// Why reading ended before the end.
    pub broken: Option<&'static str>,
}

/// What a pcapng section has said so far; a pcap file is one with one interface.
#[derive(Default)]
struct Section {
    big_endian: bool,
    interfaces: Vec<Interface>,
}

#[derive(Clone, Copy)]
struct Interface {
    link: Option<Link>,
    /// Units of a second in which its times count.
    resolution: u64,
    /// Seconds to add to them.
    offset: i64,
}

const CUT: &str = "it ends within a packet";
const BROKEN: &str = "it is broken";
const UNREADABLE: &str = "it cannot be read any further";

/// What a step through the file came to.
enum Step {
    /// Bytes that were looked at.
    Block(usize),
    More,
    End,
}

impl Packets {
    /// Fails where it does not begin like a capture.
    pub fn open(input: impl Read + Send + 'static) -> Result<Self> {
        match create_reader(BUFFER, input) {
            Ok(blocks) => {
                let has_blocks = blocks.data().starts_with(&SECTION);
                Ok(Self {
                    blocks,
                    buffer: BUFFER,
                    has_blocks,
                    section: Section::default(),
                    unix_ns: 0,
                    broken: None,
                })
            }
            Err(PcapError::ReadError) => bail!("it cannot be read"),
            Err(_) => bail!("it is no capture file (pcap or pcapng)"),
        }
    }

    /// Calls `each` with the next packet: when it was seen, in nanoseconds of Unix time, how it begins, its bytes. The
    /// link is `None` where it is of a kind that is not understood. `false` at the end.
    pub fn next(&mut self, mut each: impl FnMut(u64, Option<Link>, &[u8])) -> bool {
        loop {
            let mut found = false;
            match self.step(|unix_ns, link, bytes| {
                found = true;
                each(unix_ns, link, bytes);
            }) {
                Step::Block(length) => {
                    self.blocks.consume(length);
                    if found {
                        return true;
                    }
                }
                Step::More => {}
                Step::End => return false,
            }
        }
    }

    /// The parser subtracts from the length of a block before it is sure that it can. Whichever way round the section
    /// has its numbers: a length that is allowed looks like a large one the other way round.
    fn has_impossible_block(&self) -> bool {
        let length = self.blocks.data().get(4..8).and_then(|length| length.try_into().ok());
        let is_short = |length| u32::from_le_bytes(length).min(u32::from_be_bytes(length)) < BLOCK_MIN;
        self.has_blocks && length.is_some_and(is_short)
    }

    fn step(&mut self, each: impl FnMut(u64, Option<Link>, &[u8])) -> Step {
        if self.has_impossible_block() {
            self.broken = Some(BROKEN);
            return Step::End;
        }
        let missing = match self.blocks.next() {
            Ok((length, block)) => {
                block_read(&block, &mut self.section, &mut self.unix_ns, each);
                return Step::Block(length);
            }
            Err(PcapError::Eof) => return Step::End,
            Err(PcapError::Incomplete(_)) => Ok(false),
            Err(PcapError::BufferTooSmall) => Ok(true),
            Err(PcapError::UnexpectedEof) => Err(CUT),
            Err(PcapError::ReadError) => Err(UNREADABLE),
            Err(_) => Err(BROKEN),
        };
        match missing.and_then(|too_small| self.refill(too_small)) {
            Ok(()) => Step::More,
            Err(broken) => {
                self.broken = Some(broken);
                Step::End
            }
        }
    }

    fn refill(&mut self, too_small: bool) -> Result<(), &'static str> {
        let before = self.blocks.data().len();
        if self.blocks.reader_exhausted() {
            return Err(CUT);
        }
        if too_small || before >= self.buffer / 2 {
            self.buffer *= 2;
            if self.buffer > BUFFER_MAX || !self.blocks.grow(self.buffer) {
                return Err("it has a block that is too long");
            }
        }
        self.blocks.refill().map_err(|_| UNREADABLE)
    }
}

fn block_read(
    block: &PcapBlockOwned<'_>,
    section: &mut Section,
    unix_ns: &mut u64,
    mut each: impl FnMut(u64, Option<Link>, &[u8]),
) {
    match block {
        PcapBlockOwned::LegacyHeader(header) => {
            let resolution = if header.is_nanosecond_precision() { 1_000_000_000 } else { 1_000_000 };
            section.interfaces = vec![Interface { link: link(header.network), resolution, offset: 0 }];
        }
        PcapBlockOwned::Legacy(packet) => {
            let Some(interface) = section.interfaces.first() else { return };
            let scale = 1_000_000_000 / interface.resolution;
            *unix_ns = u64::from(packet.ts_sec) * 1_000_000_000 + u64::from(packet.ts_usec) * scale;
            each(*unix_ns, interface.link, packet.data);
        }
        PcapBlockOwned::NG(Block::SectionHeader(header)) => {
            *section = Section { big_endian: header.big_endian(), interfaces: Vec::new() };
        }
        PcapBlockOwned::NG(Block::InterfaceDescription(described)) => {
            if section.interfaces.len() < INTERFACES_MAX {
                section.interfaces.push(Interface {
                    link: link(described.linktype),
                    resolution: described.ts_resolution().unwrap_or(1_000_000),
                    offset: described.ts_offset(),
                });
            }
        }
        PcapBlockOwned::NG(Block::EnhancedPacket(packet)) => {
            let Some(interface) = section.interfaces.get(packet.if_id as usize) else { return };
            let ticks = u64::from(packet.ts_high) << 32 | u64::from(packet.ts_low);
            *unix_ns = interface.unix_ns(ticks);
            each(*unix_ns, interface.link, packet.packet_data());
        }
        PcapBlockOwned::NG(Block::SimplePacket(packet)) => {
            let Some(interface) = section.interfaces.first() else { return };
            each(*unix_ns, interface.link, packet.packet_data());
        }
        PcapBlockOwned::NG(Block::Unknown(block)) if block.block_type == OldPacket::KIND => {
            let Some(packet) = OldPacket::read(block.data, section.big_endian) else { return };
            let Some(interface) = section.interfaces.get(packet.interface) else { return };
            *unix_ns = interface.unix_ns(packet.ticks);
            each(*unix_ns, interface.link, packet.bytes);
        }
        // Statistics, names, secrets, comments.
        PcapBlockOwned::NG(_) => {}
    }
}

/// The upper half of a pcap file's field says how long the check sums of its frames are.
fn link(kind: Linktype) -> Option<Link> {
    Link::from_number(kind.0 & 0xffff)
}

/// What was written before there were enhanced packets: interface and drops, time, and two lengths.
struct OldPacket<'a> {
    interface: usize,
    ticks: u64,
    bytes: &'a [u8],
}

impl<'a> OldPacket<'a> {
    const KIND: u32 = 2;

    fn read(content: &'a [u8], big_endian: bool) -> Option<Self> {
        let word = |at: usize| {
            let bytes = *content.get(at..)?.first_chunk()?;
            Some(if big_endian { u32::from_be_bytes(bytes) } else { u32::from_le_bytes(bytes) })
        };
        let interface = *content.first_chunk()?;
        let interface =
            if big_endian { u16::from_be_bytes(interface) } else { u16::from_le_bytes(interface) };
        let ticks = u64::from(word(4)?) << 32 | u64::from(word(8)?);
        let length = usize::try_from(word(12)?).ok()?;
        Some(Self { interface: usize::from(interface), ticks, bytes: content.get(20..)?.get(..length)? })
    }
}

impl Interface {
    fn unix_ns(&self, ticks: u64) -> u64 {
        let ns = i128::from(ticks) * 1_000_000_000 / i128::from(self.resolution.max(1));
        let ns = ns + i128::from(self.offset) * 1_000_000_000;
        u64::try_from(ns.max(0)).unwrap_or(u64::MAX)
    }
}

/// The evidence in a capture. Its moments have the capture's time on both clocks: nanoseconds and milliseconds since
/// the Unix epoch.
pub struct CaptureEvidence {
    packets: Packets,
    reader: Reader,
    ready: VecDeque<Evidence>,
    buffer: Vec<Evidence>,
    /// Packets of links that are not understood.
    other_links: u64,
    /// Packets behind headers that are not understood, and fragments.
    hidden: u64,
}

impl CaptureEvidence {
    pub fn new(packets: Packets) -> Self {
        let (ready, buffer) = (VecDeque::new(), Vec::new());
        Self { packets, reader: Reader::default(), ready, buffer, other_links: 0, hidden: 0 }
    }

    /// What is next, without taking it.
    pub fn peek(&mut self) -> Option<&Evidence> {
        while self.ready.is_empty() {
            if !self.read_packet() {
                return None;
            }
        }
        self.ready.front()
    }

    pub fn take(&mut self) -> Option<Evidence> {
        self.peek()?;
        self.ready.pop_front()
    }

    fn read_packet(&mut self) -> bool {
        let Self { packets, reader, ready, buffer, other_links, hidden } = self;
        packets.next(|unix_ns, link, bytes| {
            let Some(link) = link else {
                *other_links += 1;
                return;
            };
            match packet::look(link, bytes) {
                Look::Segment(segment) => {
                    let unix_ms = i64::try_from(unix_ns / 1_000_000).unwrap_or(i64::MAX);
                    reader.read(Moment { boot_ns: unix_ns, unix_ms }, Seen::OnTheWay, &segment, buffer);
                    ready.extend(buffer.drain(..));
                }
                Look::Hidden => *hidden += 1,
                Look::Other => {}
            }
        })
    }

    /// Packets that held names and gave none, or that may have.
    pub fn unread(&self) -> u64 {
        self.reader.unread() + self.other_links + self.hidden
    }

    pub fn broken(&self) -> Option<&'static str> {
        self.packets.broken
    }
}

/// When the last packet of a capture was seen, in milliseconds of Unix time; `None` where it has none. The file is then
/// at its beginning again.
pub fn last_packet(file: &File) -> Result<Option<i64>> {
    let mut again = file.try_clone()?;
    let mut packets = Packets::open(file.try_clone()?)?;
    let mut last = None;
    while packets.next(|unix_ns, _, _| last = last.max(Some(unix_ns))) {}
    again.rewind().context("go back to its beginning")?;
    Ok(last.map(|unix_ns| i64::try_from(unix_ns / 1_000_000).unwrap_or(i64::MAX)))
}

#[cfg(test)]
pub(super) mod tests;
