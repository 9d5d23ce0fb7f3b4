//! Every truncation and many mutations of real messages: nothing panics, and nothing is invented out of nothing.

use std::net::{TcpListener, UdpSocket};

use rustix::net::RecvFlags;

use super::super::destroy::parse;
use super::super::inet::{Counters, InetSocket, TcpState, UnknownState};
use super::super::net_text::{parse_inet, parse_unix};
use super::super::netlink::{Attributes, Kind, Malformed, Message, Messages, Socket, request};
use super::super::unix::UnixSocket;
use super::{in_namespace, pair};
use crate::event::{Moment, Protocol};

/// xorshift64: the same bytes in every run.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn below(&mut self, limit: usize) -> usize {
        usize::try_from(self.next() % limit as u64).unwrap()
    }
}

/// Everything that parses bytes of the kernel; what comes out does not matter.
fn parse_all(bytes: &[u8]) {
    for message in Messages::new(bytes).flatten() {
        let _ = InetSocket::parse(message.body, Some(Protocol::Tcp));
        let _ = UnixSocket::parse(message.body);
        let _ = Counters::parse(message.body);
        assert!(Attributes::new(message.body).count() <= message.body.len());
    }
    let mut ends = Vec::new();
    parse(bytes, Moment::default(), &mut ends);
    for line in bytes.split(|&byte| byte == b'\n') {
        let _ = (parse_inet(line, Protocol::Udp), parse_unix(line));
    }
}

/// A datagram of each kind, as this kernel sends them.
fn datagrams() -> Vec<Vec<u8>> {
    let listener = Socket::open().unwrap();
    listener.set_groups(0b1111).unwrap();
    let server = TcpListener::bind("[::1]:0").unwrap();
    let ends = pair(&server);
    drop(UdpSocket::bind("127.0.0.1:0").unwrap());
    drop(ends);
    drop(std::os::unix::net::UnixDatagram::unbound().unwrap());
    let mut all = Vec::new();
    let mut buffer = vec![0; 32 * 1024];
    for _ in 0..3 {
        all.push(listener.receive(&mut buffer, RecvFlags::empty()).unwrap().to_vec());
    }
    let asker = Socket::open().unwrap();
    let mut tcp = vec![0, 0, 0, 2];
    tcp.extend_from_slice(&[0; 48]);
    tcp.extend_from_slice(&[0xff; 4]);
    tcp.extend_from_slice(&[0; 4]);
    for (kind, body) in [(18, tcp), (20, super::super::unix::REQUEST.to_vec()), (20, vec![2, 0])] {
        asker.send(&request(kind, 0x301, 7, &body)).unwrap();
        loop {
            let datagram = asker.receive(&mut buffer, RecvFlags::empty()).unwrap().to_vec();
            let over = Messages::new(&datagram)
                .any(|message| matches!(message.unwrap().kind, Kind::Done(_) | Kind::Error(_)));
            all.push(datagram);
            if over {
                break;
            }
        }
    }
    all
}

#[test]
fn every_truncation_of_every_message_is_borne() {
    in_namespace(|| {
        for datagram in datagrams() {
            for length in 0..datagram.len().min(4_096) {
                parse_all(&datagram[..length]);
            }
        }
    });
}

#[test]
fn thousands_of_mutations_are_borne() {
    in_namespace(|| {
        let datagrams = datagrams();
        let mut random = Random(0x5eed);
        for _ in 0..20_000 {
            let mut bytes = datagrams[random.below(datagrams.len())].clone();
            for _ in 0..=random.below(4) {
                let at = random.below(bytes.len());
                // Lengths stand early: change those more often than the rest.
                let at = if random.below(2) == 0 { at % 96 % bytes.len() } else { at };
                bytes[at] = u8::try_from(random.next() & 0xff).unwrap();
            }
            bytes.truncate(1 + random.below(bytes.len()));
            parse_all(&bytes);
        }
        for _ in 0..20_000 {
            let bytes: Vec<u8> =
                (0..random.below(300)).map(|_| u8::try_from(random.next() & 0xff).unwrap()).collect();
            parse_all(&bytes);
        }
    });
}

#[test]
fn mutated_lines_of_text_are_borne() {
    let lines: [&[u8]; 3] = [
        b"   0: 0100007F:1F90 0200000A:01BB 01 0000000A:00000014 00:00000000 00000000  1000 0 12345 1 ffff 20",
        b"   0: 00000000000000000000000001000000:1F90 00000000000000000000000000000000:0000 0A 00000000:00000000 00:00000000 00000000 0 0 1 1",
        b"0000000000000000: 00000002 00000000 00010000 0001 01 12345 /run/a path",
    ];
    let mut random = Random(0x7e47);
    for line in lines {
        for length in 0..line.len() {
            let _ = (parse_inet(&line[..length], Protocol::Tcp), parse_unix(&line[..length]));
        }
        for _ in 0..5_000 {
            let mut line = line.to_vec();
            let at = random.below(line.len());
            line[at] = u8::try_from(random.next() & 0xff).unwrap();
            let _ = (parse_inet(&line, Protocol::Tcp), parse_unix(&line));
        }
    }
    assert_eq!(parse_inet(b"0: 0100007F:1F90", Protocol::Tcp), None);
    assert_eq!(parse_unix(b"0: 2 0 0 0001 01"), None);
}

#[test]
fn a_length_beyond_the_end_or_below_the_header_is_malformed_and_ends_it() {
    let good = request(20, 0, 1, &[1, 2, 3]);
    let message = Message { kind: Kind::Payload(20), flags: 0, sequence: 1, body: &[1, 2, 3] };
    assert_eq!(Messages::new(&good).collect::<Vec<_>>(), [Ok(message)]);
    for length in [0u32, 15, 20, u32::MAX] {
        let mut bad = good.clone();
        bad[..4].copy_from_slice(&length.to_ne_bytes());
        assert_eq!(Messages::new(&bad).collect::<Vec<_>>(), [Err(Malformed)], "{length}");
    }
}

#[test]
fn every_state_number_is_a_state_or_an_error() {
    for raw in 0..=u8::MAX {
        match TcpState::try_from(raw) {
            Ok(state) => assert_eq!(state as u8, raw),
            Err(UnknownState(number)) => assert!(number == raw && !(1..=13).contains(&raw)),
        }
    }
}

#[test]
fn what_is_not_understood_is_counted() {
    let mut ends = Vec::new();
    let message = request(20, 0, 0, &[0; 72]);
    assert_eq!(parse(&message, Moment::default(), &mut ends), 1);
    assert_eq!(parse(&message[..40], Moment::default(), &mut ends), 1);
    assert_eq!(parse(&[], Moment::default(), &mut ends), 0);
    assert!(ends.is_empty());
}
