use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use super::*;
use crate::names::dns::tests::{Record, answer, question};
use crate::names::quic::tests::{ID, crypto, initial};
use crate::names::tls::tests::{hello, hello_with, name_extension, records};

const CLIENT: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::new(10, 0, 0, 1)), 40_000);
const SERVER: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::new(192, 0, 2, 7)), 443);
const RESOLVER: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::new(10, 0, 0, 53)), 53);

/// One packet after another, a millisecond apart.
#[derive(Default)]
struct Wire {
    reader: Reader,
    now: Moment,
}

impl Wire {
    fn datagram(&mut self, source: SocketAddr, destination: SocketAddr, payload: &[u8]) -> Vec<Evidence> {
        self.segment(&Segment { source, destination, content: Content::Datagram(payload) })
    }

    fn tcp(
        &mut self,
        source: SocketAddr,
        destination: SocketAddr,
        sequence: u32,
        payload: &[u8],
    ) -> Vec<Evidence> {
        self.segment(&Segment {
            source,
            destination,
            content: Content::Tcp { sequence, opens: false, payload },
        })
    }

    fn syn(&mut self, sequence: u32) {
        let content = Content::Tcp { sequence, opens: true, payload: &[] };
        assert_eq!(self.segment(&Segment { source: CLIENT, destination: SERVER, content }), []);
    }

    fn segment(&mut self, segment: &Segment<'_>) -> Vec<Evidence> {
        self.now.boot_ns += 1_000_000;
        let mut out = Vec::new();
        self.reader.read(self.now, Seen::OnTheWay, segment, &mut out);
        out
    }
}

/// Name and source of a single greeting.
fn greeting(evidence: &[Evidence]) -> Option<(&str, DomainSource)> {
    match evidence {
        [] => None,
        [Evidence::Greeting(greeting)] => {
            let protocol = if greeting.by == DomainSource::Quic { Protocol::Udp } else { Protocol::Tcp };
            assert_eq!(greeting.from, Party::Flow { protocol, local: CLIENT, remote: SERVER });
            Some((&greeting.name, greeting.by))
        }
        other => panic!("{other:?}"),
    }
}

/// Host and port of a single request to a proxy.
fn requested(evidence: &[Evidence]) -> Option<(&str, u16)> {
    match evidence {
        [] => None,
        [Evidence::Greeting(greeting)] if greeting.by == DomainSource::Proxy => {
            Some((&greeting.name, greeting.port?))
        }
        other => panic!("{other:?}"),
    }
}

fn answered(evidence: &[Evidence]) -> Option<(&str, usize)> {
    match evidence {
        [] => None,
        [Evidence::Answer(answer)] => Some((&answer.asked, answer.addresses.len())),
        other => panic!("{other:?}"),
    }
}

fn one_address() -> [Record<'static>; 1] {
    [Record::Address("a.example", "192.0.2.7".parse().expect("valid"), 60)]
}

#[test]
fn an_answer_counts_once_and_only_for_whom_asked() {
    let mut wire = Wire::default();
    let reply = answer(7, "a.example", &one_address());
    assert_eq!(wire.datagram(RESOLVER, CLIENT, &reply), [], "nobody asked");
    wire.datagram(CLIENT, RESOLVER, &question(7, "A.Example"));
    assert_eq!(wire.datagram(RESOLVER, CLIENT, &answer(8, "a.example", &one_address())), [], "another id");
    assert_eq!(wire.datagram(RESOLVER, CLIENT, &answer(7, "b.example", &one_address())), [], "another name");
    let stranger = SocketAddr::new(SERVER.ip(), 53);
    assert_eq!(wire.datagram(stranger, CLIENT, &reply), [], "from somebody else");
    let evidence = wire.datagram(RESOLVER, CLIENT, &reply);
    assert_eq!(answered(&evidence), Some(("a.example", 1)));
    let [Evidence::Answer(Answer { to, .. })] = &evidence[..] else { panic!() };
    assert_eq!(*to, Party::Flow { protocol: Protocol::Udp, local: CLIENT, remote: RESOLVER });
    assert_eq!(wire.datagram(RESOLVER, CLIENT, &reply), [], "again");
    assert_eq!(wire.reader.unasked, 5);
}

#[test]
fn an_answer_that_comes_too_late_is_none() {
    let mut wire = Wire::default();
    wire.datagram(CLIENT, RESOLVER, &question(7, "a.example"));
    wire.now.boot_ns += 31_000_000_000;
    assert_eq!(wire.datagram(RESOLVER, CLIENT, &answer(7, "a.example", &one_address())), []);
}

#[test]
fn questions_nobody_answers_do_not_pile_up() {
    let mut wire = Wire::default();
    for id in 0..u16::MAX {
        wire.datagram(CLIENT, RESOLVER, &question(id, "flood.example"));
    }
    assert_eq!(wire.datagram(RESOLVER, CLIENT, &answer(0, "flood.example", &one_address())), []);
    let evidence = wire.datagram(RESOLVER, CLIENT, &answer(u16::MAX - 1, "flood.example", &[]));
    assert_eq!(evidence, [], "no address, no evidence");
    assert_eq!(wire.reader.unasked, 1);
}

#[test]
fn answers_over_tcp_are_read_across_segments() {
    let framed =
        |message: &[u8]| [&u16::try_from(message.len()).expect("short").to_be_bytes()[..], message].concat();
    let mut wire = Wire::default();
    let asked = [framed(&question(1, "a.example")), framed(&question(2, "b.example"))].concat();
    assert_eq!(wire.tcp(CLIENT, RESOLVER, 100, &asked), []);
    let address = "192.0.2.9".parse().expect("valid");
    let first = framed(&answer(1, "a.example", &one_address()));
    let second = framed(&answer(2, "b.example", &[Record::Address("b.example", address, 5)]));
    let both = [first, second].concat();
    assert_eq!(wire.tcp(RESOLVER, CLIENT, 900, &both[..1]), []);
    assert_eq!(wire.tcp(RESOLVER, CLIENT, 911, &both[11..]), [], "out of order");
    let evidence = wire.tcp(RESOLVER, CLIENT, 901, &both[1..11]);
    let names: Vec<_> = evidence
        .iter()
        .map(|evidence| match evidence {
            Evidence::Answer(answer) => &*answer.asked,
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(names, ["a.example", "b.example"]);
}

#[test]
fn a_hello_is_read_in_one_segment_or_many_and_in_any_order() {
    let bytes = records(&hello("sni.example"), 400);
    let (a, rest) = bytes.split_at(3);
    let (b, c) = rest.split_at(600);
    let (at_b, at_c) = (1000 + 3, 1000 + 603);
    let orders: [&[(u32, &[u8])]; 5] = [
        &[(1000, &bytes)],
        &[(1000, a), (at_b, b), (at_c, c)],
        &[(at_c, c), (at_b, b), (1000, a)],
        &[(1000, a), (1000, a), (at_c, c), (at_b, b)],
        &[(at_b, b), (1000, a), (at_c, c)],
    ];
    for pieces in orders {
        let mut wire = Wire::default();
        wire.syn(1000);
        let mut found = Vec::new();
        for (sequence, piece) in pieces {
            found.extend(wire.tcp(CLIENT, SERVER, *sequence, piece));
        }
        assert_eq!(greeting(&found), Some(("sni.example", DomainSource::Sni)));
        assert_eq!(wire.tcp(CLIENT, SERVER, 1000, &bytes), [], "a retransmission");
    }
}

#[test]
fn a_hello_counts_only_at_the_beginning_of_a_connection() {
    let bytes = records(&hello("late.example"), 16_000);
    let mut wire = Wire::default();
    wire.syn(1000);
    let request = b"CONNECT late.example:443 HTTP/1.1\r\n\r\n";
    assert_eq!(requested(&wire.tcp(CLIENT, SERVER, 1000, request)), Some(("late.example", 443)));
    assert_eq!(wire.tcp(CLIENT, SERVER, 1037, &bytes), [], "through a proxy");
    wire.syn(5000);
    assert_eq!(wire.tcp(CLIENT, SERVER, 5100, &bytes), [], "what came before was not seen");
    wire.syn(9000);
    assert!(greeting(&wire.tcp(CLIENT, SERVER, 9000, &bytes)).is_some(), "the address is used anew");
}

#[test]
fn a_connection_that_is_older_than_the_capture_may_still_greet() {
    let bytes = records(&hello("old.example"), 16_000);
    let mut wire = Wire::default();
    assert_eq!(wire.tcp(CLIENT, SERVER, 70, b"something else"), []);
    assert!(greeting(&wire.tcp(CLIENT, SERVER, 500, &bytes)).is_some());
}

#[test]
fn an_encrypted_hello_is_weaker() {
    let message = hello_with(&[(0xfe0d, vec![0; 99]), name_extension(b"front.example")]);
    let mut wire = Wire::default();
    let evidence = wire.tcp(CLIENT, SERVER, 1, &records(&message, 16_000));
    assert_eq!(greeting(&evidence), Some(("front.example", DomainSource::EchOuter)));
}

#[test]
fn half_hellos_are_bounded_and_counted() {
    let bytes = records(&hello("half.example"), 16_000);
    let mut wire = Wire::default();
    for port in 1001..=2000 {
        wire.tcp(SocketAddr::new(CLIENT.ip(), port), SERVER, 1, &bytes[..1000]);
    }
    assert_eq!(wire.reader.unread, 1000 - STREAMS_MAX as u64);
    assert_eq!(wire.reader.unread(), 1000, "those that may still be completed included");
}

#[test]
fn a_hello_that_is_never_completed_is_counted() {
    let bytes = records(&hello("cut.example"), 16_000);
    let mut wire = Wire::default();
    for (at, byte) in (1..).zip(&bytes[..70]) {
        assert_eq!(wire.tcp(CLIENT, SERVER, at, &[*byte]), []);
    }
    assert_eq!(wire.reader.unread(), 1);
    assert!(
        greeting(&wire.tcp(CLIENT, SERVER, 71, &bytes[70..])).is_some(),
        "in 71 pieces, the first of one byte"
    );
    assert_eq!(wire.reader.unread(), 0);
    wire.datagram(CLIENT, SERVER, &initial(1, &ID, 0, &crypto(0, &hello("cut.example")[..300])));
    assert_eq!(wire.reader.unread(), 1);
}

#[test]
fn a_quic_packet_may_be_padded_outside_of_it() {
    let hello = hello("quic.example");
    let [first, second] = [(0, &hello[..600]), (600, &hello[600..])]
        .map(|(at, part)| initial(1, &ID, u8::from(at > 0), &crypto(at, part)));
    let mut wire = Wire::default();
    let evidence = wire.datagram(CLIENT, SERVER, &[&first[..], &[0; 400], &second].concat());
    assert_eq!(greeting(&evidence), Some(("quic.example", DomainSource::Quic)));
}

#[test]
fn a_quic_hello_is_read_over_datagrams() {
    let hello = hello("quic.example");
    let mut wire = Wire::default();
    assert_eq!(wire.datagram(CLIENT, SERVER, &initial(1, &ID, 1, &crypto(600, &hello[600..]))), []);
    assert_eq!(wire.datagram(SERVER, CLIENT, &initial(1, b"server", 0, &[0; 30])), [], "another connection");
    let evidence = wire.datagram(CLIENT, SERVER, &initial(1, &ID, 0, &crypto(0, &hello[..600])));
    assert_eq!(greeting(&evidence), Some(("quic.example", DomainSource::Quic)));
}

#[test]
fn at_a_socket_only_its_own_side_counts() {
    let mut reader = Reader::default();
    let mut out = Vec::new();
    let (netns, cookie) = (4, 9);
    let bytes = records(&hello("own.example"), 16_000);
    let content = Content::Tcp { sequence: 0, opens: false, payload: &bytes };
    let segment = Segment { source: CLIENT, destination: SERVER, content };
    reader.read(Moment::default(), Seen::Received { netns, cookie }, &segment, &mut out);
    assert_eq!(out, []);
    reader.read(Moment::default(), Seen::Sent { netns, cookie }, &segment, &mut out);
    let [Evidence::Greeting(greeting)] = &out[..] else { panic!("{out:?}") };
    assert_eq!(greeting.from, Party::Socket(SocketId::Cookie { netns, cookie }));
    out.clear();
    let asked = question(3, "a.example");
    let content = Content::Datagram(&asked);
    reader.read(
        Moment::default(),
        Seen::Sent { netns, cookie },
        &Segment { source: CLIENT, destination: RESOLVER, content },
        &mut out,
    );
    let reply = answer(3, "a.example", &one_address());
    let content = Content::Datagram(&reply);
    reader.read(
        Moment::default(),
        Seen::Received { netns, cookie },
        &Segment { source: RESOLVER, destination: CLIENT, content },
        &mut out,
    );
    let [Evidence::Answer(answer)] = &out[..] else { panic!("{out:?}") };
    assert_eq!(answer.to, Party::Socket(SocketId::Flow { netns, cookie, remote: RESOLVER }));
}

#[test]
fn a_request_to_a_proxy_in_pieces_is_read() {
    let request = b"GET http://me:pw@api.example:81/secret HTTP/1.1\r\nCookie: secret\r\n\r\n";
    for size in 1..request.len() {
        let mut wire = Wire::default();
        wire.syn(1000);
        let mut found = Vec::new();
        for (at, piece) in (0..).zip(request.chunks(size)) {
            let sequence = 1000 + at * u32::try_from(size).expect("small");
            found.extend(wire.tcp(CLIENT, SERVER, sequence, piece));
        }
        assert_eq!(requested(&found), Some(("api.example", 81)), "{size}");
        assert!(!format!("{found:?}").contains("secret") && !format!("{found:?}").contains("pw"));
        assert_eq!(wire.reader.unread(), 0);
    }
}

#[test]
fn a_request_to_a_socks_server_is_read_behind_a_password() {
    let password = b"\x01\x02me\x02pw";
    for (methods, before) in [(&[5, 1, 0][..], &b""[..]), (&[5, 2, 0, 2], password)] {
        let mut wire = Wire::default();
        wire.syn(1000);
        let mut sequence = 1000;
        let mut said = Vec::new();
        for piece in
            [methods, before, &b"\x05\x01\x00\x03"[..], b"\x0bapi.example\x01\xbb", b"\x05\x01\0\x03\x01b"]
        {
            said.extend(wire.tcp(CLIENT, SERVER, sequence, piece));
            sequence += u32::try_from(piece.len()).expect("short");
        }
        assert_eq!(requested(&said), Some(("api.example", 443)), "{methods:?}");
        assert_eq!(wire.reader.unread(), 0);
    }
}

#[test]
fn a_request_counts_only_at_the_beginning_of_a_connection() {
    let request = b"CONNECT a.example:443 HTTP/1.1\r\n\r\n";
    let mut wire = Wire::default();
    assert_eq!(wire.tcp(CLIENT, SERVER, 70, request), [], "nobody saw the beginning");
    wire.syn(1000);
    assert_eq!(wire.tcp(CLIENT, SERVER, 1000, b"GET / HTTP/1.1\r\n\r\n"), []);
    assert_eq!(wire.tcp(CLIENT, SERVER, 1018, request), [], "a server's own request came first");
    wire.syn(2000);
    assert_eq!(wire.tcp(CLIENT, SERVER, 2000, b"HELP"), [], "it may become a method");
    assert_eq!(wire.tcp(CLIENT, SERVER, 2004, b"\r\n"), []);
    assert_eq!(wire.reader.unread(), 0);
}
