//! How far an address reaches: the special-purpose registries of IANA (RFC 6890 and its successors), and what an IPv6
//! address says of an IPv4 address that it carries.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// How far an address reaches.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reach {
    /// This machine.
    Host,
    /// An address that the Internet does not route, or a group.
    Site,
    World,
}

/// Those of the registry that are not globally reachable, with the lengths of their prefixes. The addresses of
/// documentation are left out: nobody's network has them, and whoever talks to one is worth a question.
const SITES_V4: &[(Ipv4Addr, u32)] = &[
    (Ipv4Addr::UNSPECIFIED, 8),
    (Ipv4Addr::new(10, 0, 0, 0), 8),
    // Behind a provider's translation (RFC 6598).
    (Ipv4Addr::new(100, 64, 0, 0), 10),
    (Ipv4Addr::new(169, 254, 0, 0), 16),
    (Ipv4Addr::new(172, 16, 0, 0), 12),
    // Protocol assignments; single ones are excepted below.
    (Ipv4Addr::new(192, 0, 0, 0), 24),
    (Ipv4Addr::new(192, 168, 0, 0), 16),
    // Benchmarks (RFC 2544), which proxies make use of.
    (Ipv4Addr::new(198, 18, 0, 0), 15),
    (Ipv4Addr::new(224, 0, 0, 0), 4),
    // Reserved (RFC 1112), broadcast included.
    (Ipv4Addr::new(240, 0, 0, 0), 4),
];

/// Port control and TURN anycast (RFC 7723, RFC 8155).
const ANYCAST_V4: [Ipv4Addr; 2] = [Ipv4Addr::new(192, 0, 0, 9), Ipv4Addr::new(192, 0, 0, 10)];

const SITES_V6: &[(Ipv6Addr, u32)] = &[
    // Translation within a network (RFC 8215).
    (Ipv6Addr::new(0x64, 0xff9b, 1, 0, 0, 0, 0, 0), 48),
    // Discarded, and the dummy prefix (RFC 6666, RFC 9780).
    (Ipv6Addr::new(0x100, 0, 0, 0, 0, 0, 0, 0), 64),
    (Ipv6Addr::new(0x100, 0, 0, 1, 0, 0, 0, 0), 64),
    // Protocol assignments; some are excepted below.
    (Ipv6Addr::new(0x2001, 0, 0, 0, 0, 0, 0, 0), 23),
    // Segment routing (RFC 9602).
    (Ipv6Addr::new(0x5f00, 0, 0, 0, 0, 0, 0, 0), 16),
    (Ipv6Addr::new(0xfc00, 0, 0, 0, 0, 0, 0, 0), 7),
    (Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 0), 10),
    // Site-local, until RFC 3879.
    (Ipv6Addr::new(0xfec0, 0, 0, 0, 0, 0, 0, 0), 10),
    (Ipv6Addr::new(0xff00, 0, 0, 0, 0, 0, 0, 0), 8),
];

/// Of the protocol assignments, what is globally reachable: anycast addresses, AMT, AS112, hashes of keys, drones.
const WORLD_V6: &[(Ipv6Addr, u32)] = &[
    (Ipv6Addr::new(0x2001, 1, 0, 0, 0, 0, 0, 1), 128),
    (Ipv6Addr::new(0x2001, 1, 0, 0, 0, 0, 0, 2), 128),
    (Ipv6Addr::new(0x2001, 1, 0, 0, 0, 0, 0, 3), 128),
    (Ipv6Addr::new(0x2001, 3, 0, 0, 0, 0, 0, 0), 32),
    (Ipv6Addr::new(0x2001, 4, 0x112, 0, 0, 0, 0, 0), 48),
    (Ipv6Addr::new(0x2001, 0x20, 0, 0, 0, 0, 0, 0), 28),
    (Ipv6Addr::new(0x2001, 0x30, 0, 0, 0, 0, 0, 0), 28),
];

pub fn reach(ip: IpAddr) -> Reach {
    match ip.to_canonical() {
        IpAddr::V4(ip) => reach_v4(ip),
        IpAddr::V6(ip) => reach_v6(ip),
    }
}

fn reach_v4(ip: Ipv4Addr) -> Reach {
    let is_in = |(net, length): &(Ipv4Addr, u32)| (ip.to_bits() ^ net.to_bits()) >> (32 - length) == 0;
    if ip.is_loopback() || ip.is_unspecified() {
        Reach::Host
    } else if SITES_V4.iter().any(is_in) && !ANYCAST_V4.contains(&ip) {
        Reach::Site
    } else {
        Reach::World
    }
}

fn reach_v6(ip: Ipv6Addr) -> Reach {
    let is_in = |(net, length): &(Ipv6Addr, u32)| (ip.to_bits() ^ net.to_bits()) >> (128 - length) == 0;
    if ip.is_loopback() || ip.is_unspecified() {
        Reach::Host
    } else if let Some(carried) = carried(ip) {
        reach_v4(carried)
    } else if SITES_V6.iter().any(is_in) && !WORLD_V6.iter().any(is_in) {
        Reach::Site
    } else {
        Reach::World
    }
}

/// The IPv4 address at which what is sent to an IPv6 address comes out.
fn carried(ip: Ipv6Addr) -> Option<Ipv4Addr> {
    let of = |high: u16, low: u16| Some(Ipv4Addr::from_bits(u32::from(high) << 16 | u32::from(low)));
    match ip.segments() {
        // Translated (RFC 6052), compatible or translated in the ways of before (RFC 4291, RFC 2765), 6to4 (RFC 3056).
        [0x64, 0xff9b, 0, 0, 0, 0, high, low]
        | [0, 0, 0, 0, 0 | 0xffff, 0, high, low]
        | [0x2002, high, low, ..] => of(high, low),
        // Teredo (RFC 4380): the client's address, every bit turned.
        [0x2001, 0, .., high, low] => of(!high, !low),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_registries_decide() {
        for (ip, expected) in [
            ("127.255.0.1", Reach::Host),
            ("0.0.0.0", Reach::Host),
            ("0.1.2.3", Reach::Site),
            ("10.255.255.255", Reach::Site),
            ("11.0.0.0", Reach::World),
            ("100.63.255.255", Reach::World),
            ("100.127.255.255", Reach::Site),
            ("172.32.0.0", Reach::World),
            ("192.0.0.8", Reach::Site),
            ("192.0.0.9", Reach::World),
            ("192.0.0.171", Reach::Site),
            ("192.0.1.1", Reach::World),
            ("192.31.196.1", Reach::World),
            ("192.88.99.1", Reach::World),
            ("192.175.48.1", Reach::World),
            ("198.17.255.255", Reach::World),
            ("198.19.0.1", Reach::Site),
            ("203.0.113.7", Reach::World),
            ("224.0.0.251", Reach::Site),
            ("240.0.0.1", Reach::Site),
            ("255.255.255.255", Reach::Site),
            ("::1", Reach::Host),
            ("::", Reach::Host),
            ("::ffff:10.0.0.1", Reach::Site),
            ("::ffff:9.9.9.9", Reach::World),
            ("64:ff9b::a00:1", Reach::Site),
            ("64:ff9b::7f00:1", Reach::Host),
            ("64:ff9b::909:909", Reach::World),
            ("64:ff9b:1::909:909", Reach::Site),
            ("100::1", Reach::Site),
            ("100:0:0:1::1", Reach::Site),
            ("100:0:0:2::1", Reach::World),
            // Teredo from 10.0.0.1, and from 9.9.9.9.
            ("2001:0:1::f5ff:fffe", Reach::Site),
            ("2001:0:1::f6f6:f6f6", Reach::World),
            ("2001:1::1", Reach::World),
            ("2001:1::4", Reach::Site),
            ("2001:2::1", Reach::Site),
            ("2001:3::1", Reach::World),
            ("2001:4:112::1", Reach::World),
            ("2001:10::1", Reach::Site),
            ("2001:20::1", Reach::World),
            ("2001:30::1", Reach::World),
            ("2001:200::1", Reach::World),
            ("2001:db8::1", Reach::World),
            ("2002:a00:1::1", Reach::Site),
            ("2002:909:909::1", Reach::World),
            ("2606:4700::1111", Reach::World),
            ("3fff::1", Reach::World),
            ("5f00::1", Reach::Site),
            ("fd00::1", Reach::Site),
            ("febf::1", Reach::Site),
            ("fec0::1", Reach::Site),
            ("ff02::fb", Reach::Site),
        ] {
            assert_eq!(reach(ip.parse().expect("an address")), expected, "{ip}");
        }
    }
}
