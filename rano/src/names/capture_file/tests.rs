use std::io::Cursor;

use etherparse::PacketBuilder;

use super::*;
use crate::names::dns::tests::{Record, answer, question};

/// A question and its answer a millisecond later, as IP packets with their times in milliseconds.
pub(in crate::rooms::names) fn lookup(at_ms: u64, name: &str) -> Vec<(u64, Vec<u8>)> {
    let packet = |builder: etherparse::PacketBuilderStep<etherparse::UdpHeader>, payload: &[u8]| {
        let mut bytes = Vec::new();
        builder.write(&mut bytes, payload).expect("a vector has room");
        bytes
    };
    let (client, resolver) = ([10, 0, 0, 1], [10, 0, 0, 53]);
    let asked = packet(PacketBuilder::ipv4(client, resolver, 64).udp(4000, 53), &question(9, name));
    let reply = answer(9, name, &[Record::Address(name, "192.0.2.1".parse().expect("valid"), 60)]);
    let answered = packet(PacketBuilder::ipv4(resolver, client, 64).udp(53, 4000), &reply);
    vec![(at_ms, asked), (at_ms + 1, answered)]
}

/// A pcap file.
pub(in crate::rooms::names) fn legacy(link: u32, packets: &[(u64, Vec<u8>)]) -> Vec<u8> {
    let mut file = Vec::new();
    for word in [0xa1b2_c3d4, 0x0004_0002, 0, 0, 65_535, link] {
        file.extend(u32::to_le_bytes(word));
    }
    for (at_ms, packet) in packets {
        let length = u32::try_from(packet.len()).expect("short");
        let (seconds, micros) = (at_ms / 1000, at_ms % 1000 * 1000);
        let words =
            [u32::try_from(seconds).expect("soon"), u32::try_from(micros).expect("small"), length, length];
        file.extend(words.into_iter().flat_map(u32::to_le_bytes));
        file.extend(packet);
    }
    file
}

fn block(kind: u32, content: &[u8]) -> Vec<u8> {
    let padded = content.len().div_ceil(4) * 4;
    let length = u32::try_from(padded + 12).expect("short").to_le_bytes();
    let mut block = [&kind.to_le_bytes()[..], &length, content].concat();
    block.resize(8 + padded, 0);
    block.extend(length);
    block
}

/// A pcapng file with two interfaces, the second of which counts nanoseconds and has the packets.
fn next_generation(packets: &[(u64, Vec<u8>)]) -> Vec<u8> {
    let mut file =
        block(0x0a0d_0d0a, &[&0x1a2b_3c4d_u32.to_le_bytes()[..], &[1, 0, 0, 0], &[0xff; 8]].concat());
    file.extend(block(1, &[1, 0, 0, 0, 0, 0, 0, 0]));
    file.extend(block(1, &[101, 0, 0, 0, 0, 0, 0, 0, 9, 0, 1, 0, 9, 0, 0, 0, 0, 0, 0, 0]));
    for (at_ms, packet) in packets {
        let ticks = at_ms * 1_000_000;
        let length = u32::try_from(packet.len()).expect("short");
        let (high, low) =
            (u32::try_from(ticks >> 32).expect("half"), u32::try_from(ticks & 0xffff_ffff).expect("half"));
        let words: Vec<u8> = [1, high, low, length, length].into_iter().flat_map(u32::to_le_bytes).collect();
        file.extend(block(6, &[&words[..], packet].concat()));
    }
    file
}

fn capture(file: Vec<u8>) -> CaptureEvidence {
    CaptureEvidence::new(Packets::open(Cursor::new(file)).expect("a capture"))
}

fn evidence(file: Vec<u8>) -> (Vec<Evidence>, Option<&'static str>) {
    let mut capture = CaptureEvidence::new(Packets::open(Cursor::new(file)).expect("a capture"));
    let all = std::iter::from_fn(|| capture.take()).collect();
    (all, capture.broken())
}

fn many() -> Vec<(u64, Vec<u8>)> {
    (0..2000).flat_map(|second| lookup(second * 1000, "a.example")).collect()
}

#[test]
fn both_formats_say_the_same() {
    let (first, broken) = evidence(legacy(101, &many()));
    assert_eq!((first.len(), broken), (2000, None));
    assert_eq!(first[3].at(), Moment { boot_ns: 3_001_000_000, unix_ms: 3001 });
    assert_eq!(evidence(next_generation(&many())), (first, None));
}

#[test]
fn a_file_that_is_cut_gives_what_it_has_and_says_so() {
    for whole in [legacy(101, &lookup(0, "a.example")), next_generation(&lookup(0, "a.example"))] {
        let (found, broken) = evidence([&whole[..], &whole[whole.len() - 90..whole.len() - 7]].concat());
        assert_eq!(found.len(), 1);
        assert!(broken.is_some());
        for length in 24..whole.len() {
            if let Ok(packets) = Packets::open(Cursor::new(whole[..length].to_vec())) {
                let mut capture = CaptureEvidence::new(packets);
                while capture.take().is_some() {}
            }
        }
    }
}

#[test]
fn packets_of_an_unknown_link_are_counted() {
    let packets = Packets::open(Cursor::new(legacy(147, &lookup(0, "a.example")))).expect("a capture");
    let mut capture = CaptureEvidence::new(packets);
    assert_eq!((capture.take(), capture.unread()), (None, 2));
}

#[test]
fn a_long_block_is_read_and_an_endless_one_is_not() {
    let long = (0, vec![0; 200_000]);
    let (found, broken) = evidence(legacy(101, &[vec![long], lookup(1, "a.example")].concat()));
    assert_eq!((found.len(), broken), (1, None));
    let endless = [
        &legacy(101, &[])[..],
        &[0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 0xff, 0x7f, 0, 0, 0, 0],
        &vec![0; 9 << 20],
    ]
    .concat();
    let (found, broken) = evidence(endless);
    assert!(found.is_empty() && broken.is_some(), "{broken:?}");
}

#[test]
fn a_block_that_cannot_be_as_short_as_it_says_ends_the_file() {
    let (whole, _) = evidence(next_generation(&many()));
    for kind in [1_u32, 6, 0x8000_0001, 0x7777] {
        for length in [0_u32, 4, 11] {
            let mut file = next_generation(&many());
            file.extend([kind.to_le_bytes(), length.to_le_bytes(), [0; 4], [0; 4]].concat());
            assert_eq!(evidence(file), (whole.clone(), Some(BROKEN)), "{kind:#x} {length}");
        }
    }
}

#[test]
fn the_length_of_check_sums_beside_the_link_does_not_matter() {
    let mut capture = capture(legacy(0x2400_0065, &lookup(5, "fcs.example")));
    assert!(matches!(capture.take(), Some(Evidence::Answer(answer)) if &*answer.asked == "fcs.example"));
    assert_eq!((capture.take(), capture.unread()), (None, 0));
}

#[test]
fn packets_of_old_blocks_are_read() {
    let mut file = next_generation(&[]);
    for (at_ms, packet) in lookup(7, "old.example") {
        let length = u32::try_from(packet.len()).expect("short");
        let ticks = u32::try_from(at_ms * 1_000_000).expect("small");
        let words: Vec<u8> = [1, 0, ticks, length, length].into_iter().flat_map(u32::to_le_bytes).collect();
        file.extend(block(2, &[&words[..], &packet].concat()));
    }
    let mut capture = capture(file);
    assert!(matches!(capture.take(), Some(Evidence::Answer(answer)) if answer.at.unix_ms == 8));
    assert_eq!((capture.take(), capture.unread()), (None, 0));
}

#[test]
fn what_may_hide_a_name_is_counted() {
    let packets = lookup(1, "a.example");
    let frame = |kind: [u8; 2], rest: &[u8]| [&[1; 12][..], &kind, rest].concat();
    let encrypted = frame([0x88, 0xe5], &packets[0].1);
    let mut fragment = packets[0].1.clone();
    fragment[6] = 0x20;
    let address = frame([8, 6], &[0; 28]);
    let all = [encrypted, frame([8, 0], &fragment), address].map(|packet| (1, packet));
    let mut capture = capture(legacy(1, &all));
    assert_eq!((capture.take(), capture.unread()), (None, 2));
}
