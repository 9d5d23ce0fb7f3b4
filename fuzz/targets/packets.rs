//! Packets one after another, as a device or the kernel programs give them: each after a byte that says how it begins
//! and where it was seen, and two with its length.
#![no_main]

use libfuzzer_sys::fuzz_target;
use rano::internals::event::Moment;
use rano::internals::names::packet::{Link, parse};
use rano::internals::names::reader::{Reader, Seen};

const LINKS: [Link; 5] = [Link::Ip, Link::Ethernet, Link::Cooked, Link::Cooked2, Link::Loopback];

fuzz_target!(|bytes: &[u8]| {
    let mut reader = Reader::default();
    let mut out = Vec::new();
    let mut rest = bytes;
    let mut at = Moment::default();
    while let Some((&[how, high, low], after)) = rest.split_first_chunk() {
        let length = usize::from(u16::from_be_bytes([high, low])).min(after.len());
        let (packet, next) = after.split_at(length);
        rest = next;
        at.boot_ns += 1_000_000;
        let seen = match how >> 4 & 3 {
            0 | 1 => Seen::OnTheWay,
            2 => Seen::Sent { netns: 1, cookie: 2 },
            _ => Seen::Received { netns: 1, cookie: 2 },
        };
        if let Some(segment) = parse(LINKS[usize::from(how & 15) % LINKS.len()], packet) {
            reader.read(at, seen, &segment, &mut out);
        }
    }
    assert!(out.len() <= bytes.len());
});
