//! From the bytes of a packet to a UDP datagram or a TCP segment. Total on any bytes.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use etherparse::{LaxNetSlice, LaxSlicedPacket, TransportSlice};

use super::tunnels;
use super::wrapping::{Inner, unwrap};

/// Tunnels within tunnels, more of which are not real.
const TUNNELS_MAX: u8 = 4;

/// How a packet begins, by the numbers that capture files and libpcap use (<https://www.tcpdump.org/linktypes.html>).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Link {
    Ethernet,
    /// IPv4 or IPv6 without anything before it.
    Ip,
    /// BSD loopback: four bytes that say which IP it is, as the packet itself does.
    Loopback,
    /// What Linux gives on the device `any`.
    Cooked,
    Cooked2,
    /// With or without the bytes of HDLC before it.
    Ppp,
    PppWithDirection,
    PppOverEthernet,
    /// Cisco's HDLC.
    Hdlc,
    /// IEEE 802.11, and the same behind what the radio says of it.
    Wireless,
    Radiotap,
    /// What OpenBSD's filter logs, and its decrypted packets.
    FilterLog,
    Encapsulated,
    /// What Linux's filter logs.
    NetfilterLog,
    /// Of macOS.
    PacketTap,
}

impl Link {
    pub fn from_number(number: i32) -> Option<Self> {
        match number {
            0 | 108 => Some(Self::Loopback),
            1 => Some(Self::Ethernet),
            // 12 and 14 are what different systems call raw IP in `pcap_datalink`.
            12 | 14 | 101 | 228 | 229 => Some(Self::Ip),
            113 => Some(Self::Cooked),
            276 => Some(Self::Cooked2),
            9 | 50 | 166 => Some(Self::Ppp),
            51 => Some(Self::PppOverEthernet),
            104 => Some(Self::Hdlc),
            105 => Some(Self::Wireless),
            109 => Some(Self::Encapsulated),
            117 => Some(Self::FilterLog),
            127 => Some(Self::Radiotap),
            149 | 258 => Some(Self::PacketTap),
            204 => Some(Self::PppWithDirection),
            239 => Some(Self::NetfilterLog),
            _ => None,
        }
    }
}

/// A datagram or a segment, with the ends that the packet names. IPv4-mapped IPv6 is IPv4.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Segment<'a> {
    pub source: SocketAddr,
    pub destination: SocketAddr,
    pub content: Content<'a>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Content<'a> {
    Datagram(&'a [u8]),
    Tcp {
        /// Number of the payload's first byte.
        sequence: u32,
        /// It opens a connection: SYN without ACK.
        opens: bool,
        payload: &'a [u8],
    },
}

/// What a packet is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Look<'a> {
    Segment(Segment<'a>),
    /// Neither UDP nor TCP.
    Other,
    /// It may be a datagram or a segment: a fragment, or behind a header that is not understood.
    Hidden,
}

/// The same, where it is said what became of those that are no segments.
pub fn look(link: Link, bytes: &[u8]) -> Look<'_> {
    match unwrap(link, bytes) {
        Inner::Ip(packet) => within(packet, TUNNELS_MAX),
        Inner::Nothing => Look::Other,
        Inner::Hidden => Look::Hidden,
    }
}

/// An IP packet, or what it carries through so many tunnels.
fn within(packet: &[u8], tunnels: u8) -> Look<'_> {
    let Ok(sliced) = LaxSlicedPacket::from_ip(packet) else { return Look::Other };
    let payload =
        sliced.net.as_ref().and_then(LaxNetSlice::ip_payload_ref).filter(|payload| !payload.fragmented);
    match payload.and_then(|payload| tunnels::within(payload.ip_number.0, payload.payload)) {
        Some(Inner::Ip(packet)) if tunnels > 0 => within(packet, tunnels - 1),
        Some(Inner::Ip(_) | Inner::Hidden) => Look::Hidden,
        Some(Inner::Nothing) => Look::Other,
        None => match segment(sliced) {
            Some(segment) => Look::Segment(segment),
            None if is_first_fragment(packet) => Look::Hidden,
            None => Look::Other,
        },
    }
}

/// `None` for what is neither UDP nor TCP, for fragments, and for bytes that are no packet.
pub fn parse(link: Link, bytes: &[u8]) -> Option<Segment<'_>> {
    match look(link, bytes) {
        Look::Segment(segment) => Some(segment),
        Look::Other | Look::Hidden => None,
    }
}

/// The first of several fragments of a datagram or segment: the others follow it and are not counted.
fn is_first_fragment(packet: &[u8]) -> bool {
    let Ok(sliced) = LaxSlicedPacket::from_ip(packet) else { return false };
    match sliced.net {
        Some(LaxNetSlice::Ipv4(ip)) => {
            let header = ip.header();
            let is_of_interest = matches!(header.protocol().0, 6 | 17);
            is_of_interest && header.more_fragments() && header.fragments_offset().value() == 0
        }
        Some(LaxNetSlice::Ipv6(_)) => {
            // Behind the header of 40 bytes: what follows, a byte of nothing, and offset and flag (RFC 8200, 4.5).
            const FRAGMENT: u8 = 44;
            let offset = packet.get(42..44).map(|field| u16::from_be_bytes([field[0], field[1]]));
            packet[6] == FRAGMENT
                && matches!(packet.get(40), Some(6 | 17))
                && offset.is_some_and(|field| field & 0xfff9 == 1)
        }
        Some(LaxNetSlice::Arp(_)) | None => false,
    }
}

fn segment(sliced: LaxSlicedPacket<'_>) -> Option<Segment<'_>> {
    let (from, to) = addresses(sliced.net.as_ref()?)?;
    let (from_port, to_port, content) = match sliced.transport? {
        TransportSlice::Udp(udp) => {
            (udp.source_port(), udp.destination_port(), Content::Datagram(udp.payload()))
        }
        TransportSlice::Tcp(tcp) => {
            // The SYN takes a number of its own.
            let sequence = tcp.sequence_number().wrapping_add(u32::from(tcp.syn()));
            let opens = tcp.syn() && !tcp.ack();
            (
                tcp.source_port(),
                tcp.destination_port(),
                Content::Tcp { sequence, opens, payload: tcp.payload() },
            )
        }
        TransportSlice::Icmpv4(_) | TransportSlice::Icmpv6(_) | TransportSlice::Igmp(_) => return None,
    };
    Some(Segment {
        source: SocketAddr::new(from.to_canonical(), from_port),
        destination: SocketAddr::new(to.to_canonical(), to_port),
        content,
    })
}

fn addresses(net: &LaxNetSlice<'_>) -> Option<(IpAddr, IpAddr)> {
    match net {
        LaxNetSlice::Ipv4(ip) => {
            let header = ip.header();
            let (from, to) = (Ipv4Addr::from(header.source()), Ipv4Addr::from(header.destination()));
            Some((from.into(), to.into()))
        }
        LaxNetSlice::Ipv6(ip) => {
            let header = ip.header();
            let (from, to) = (Ipv6Addr::from(header.source()), Ipv6Addr::from(header.destination()));
            Some((from.into(), to.into()))
        }
        LaxNetSlice::Arp(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use etherparse::{
        IpFragOffset, IpHeaders, IpNumber, Ipv6Extensions, Ipv6Header, Ipv6RawExtHeader, PacketBuilder,
    };

    use super::*;

    fn udp(builder: etherparse::PacketBuilderStep<etherparse::UdpHeader>) -> Vec<u8> {
        let mut bytes = Vec::new();
        builder.write(&mut bytes, b"payload").expect("a vector has room");
        bytes
    }

    fn check(link: Link, bytes: &[u8], source: &str) {
        let segment = parse(link, bytes).expect("a segment");
        assert_eq!(
            (segment.source.to_string(), segment.destination.port()),
            (source.to_owned(), 53),
            "{link:?}"
        );
        assert_eq!(segment.content, Content::Datagram(b"payload"));
        for length in 0..bytes.len() {
            let _ = parse(link, &bytes[..length]);
        }
    }

    fn ip() -> Vec<u8> {
        udp(PacketBuilder::ipv4([10, 0, 0, 1], [10, 0, 0, 2], 64).udp(4000, 53))
    }

    #[test]
    fn every_link_leads_to_the_same_packet() {
        let source = "10.0.0.1:4000";
        let headers: [(Link, &[u8]); 5] = [
            (Link::Ip, &[]),
            (Link::Loopback, &[2, 0, 0, 0]),
            (Link::Cooked, &[0, 4, 0, 1, 0, 6, 1, 2, 3, 4, 5, 6, 0, 0, 8, 0]),
            (Link::Cooked2, &[8, 0, 0, 0, 0, 0, 0, 1, 0, 1, 4, 6, 1, 2, 3, 4, 5, 6, 0, 0]),
            (Link::Ethernet, &[1, 1, 1, 1, 1, 1, 2, 2, 2, 2, 2, 2, 8, 0]),
        ];
        for (link, header) in headers {
            check(link, &[header, &ip()].concat(), source);
        }
        let tagged = [&headers[4].1[..12], &[0x88, 0xa8, 0, 1, 0x81, 0, 0, 2, 8, 0], &ip()].concat();
        check(Link::Ethernet, &tagged, source);
    }

    #[test]
    fn a_tunnel_leads_to_what_it_carries() {
        let frame = [&[1, 1, 1, 1, 1, 1, 2, 2, 2, 2, 2, 2, 8, 0][..], &ip()].concat();
        let vxlan = [&[8, 0, 0, 0, 0, 0, 42, 0][..], &frame].concat();
        let mut packet = Vec::new();
        let outer = PacketBuilder::ipv4([192, 0, 2, 1], [192, 0, 2, 2], 64).udp(50_000, 4789);
        outer.write(&mut packet, &vxlan).expect("a vector has room");
        check(Link::Ip, &packet, "10.0.0.1:4000");
        for _ in 0..2 {
            let mut header =
                etherparse::Ipv4Header::new(0, 64, IpNumber::GRE, [192, 0, 2, 1], [192, 0, 2, 2])
                    .expect("short");
            header.total_len = u16::try_from(20 + 4 + packet.len()).expect("short");
            packet = [&header.to_bytes()[..], &[0, 0, 8, 0], &packet].concat();
            check(Link::Ip, &packet, "10.0.0.1:4000");
        }
    }

    #[test]
    fn extension_headers_are_passed_over() {
        let extension = Ipv6RawExtHeader::new_raw(IpNumber::UDP, &[0; 6]).expect("eight bytes");
        let headers = IpHeaders::Ipv6(
            Ipv6Header {
                source: [0x20, 1, 0xd, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1],
                ..Ipv6Header::default()
            },
            Ipv6Extensions {
                destination_options: Some(extension.clone()),
                hop_by_hop_options: Some(extension),
                ..Ipv6Extensions::default()
            },
        );
        check(Link::Ip, &udp(PacketBuilder::ip(headers).udp(4000, 53)), "[2001:db8::1]:4000");
    }

    #[test]
    fn a_mapped_address_is_ipv4() {
        let mut mapped = [0; 16];
        mapped[10..].copy_from_slice(&[0xff, 0xff, 10, 0, 0, 1]);
        check(Link::Ip, &udp(PacketBuilder::ipv6(mapped, [1; 16], 64).udp(4000, 53)), "10.0.0.1:4000");
    }

    #[test]
    fn fragments_are_nothing() {
        let mut header =
            etherparse::Ipv4Header::new(8, 64, IpNumber::UDP, [10, 0, 0, 1], [10, 0, 0, 2]).expect("short");
        header.fragment_offset = IpFragOffset::try_new(10).expect("small");
        let mut bytes = header.to_bytes().to_vec();
        bytes.extend([0; 8]);
        assert_eq!(parse(Link::Ip, &bytes), None);
    }

    #[test]
    fn the_first_byte_after_a_syn_has_the_next_number() {
        let mut bytes = Vec::new();
        let builder =
            PacketBuilder::ipv4([10, 0, 0, 1], [10, 0, 0, 2], 64).tcp(4000, 443, u32::MAX, 100).syn();
        builder.write(&mut bytes, b"").expect("a vector has room");
        let segment = parse(Link::Ip, &bytes).expect("a segment");
        assert_eq!(segment.content, Content::Tcp { sequence: 0, opens: true, payload: &[] });
    }
}
