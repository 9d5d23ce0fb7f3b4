//! Packets that carry packets: IP in IP, GRE, VXLAN and Geneve. Total on any bytes.

use super::packet::Link;
use super::wrapping::{Inner, typed_as, unwrap};

/// IP in IP (RFC 2003), IPv6 in IPv4 (RFC 4213), GRE (RFC 2784).
const IPV4: u8 = 4;
const IPV6: u8 = 41;
const GRE: u8 = 47;
const UDP: u8 = 17;
/// VXLAN's port (RFC 7348), and the one that Linux took before it had one; Geneve's (RFC 8926).
const VXLAN: [u16; 2] = [4789, 8472];
const GENEVE: u16 = 6081;

/// What an IP packet's `payload` carries; `None` where that is no other packet.
pub(super) fn within(protocol: u8, payload: &[u8]) -> Option<Inner<'_>> {
    match protocol {
        IPV4 | IPV6 => Some(unwrap(Link::Ip, payload)),
        GRE => Some(gre(payload).unwrap_or(Inner::Hidden)),
        UDP => {
            let (header, datagram) = payload.split_first_chunk::<8>()?;
            let port = u16::from_be_bytes([header[2], header[3]]);
            match port {
                GENEVE => geneve(datagram),
                _ if VXLAN.contains(&port) => vxlan(datagram),
                _ => None,
            }
        }
        _ => None,
    }
}

/// `None`: it is cut off, or of version 1, whose PPP is mostly compressed and encrypted (RFC 2637).
fn gre(bytes: &[u8]) -> Option<Inner<'_>> {
    const SUM: u8 = 0x80;
    const KEY: u8 = 0x20;
    const SEQUENCE: u8 = 0x10;
    /// Mirrored frames behind a header of eight bytes.
    const ERSPAN: u16 = 0x88be;
    let ([flags, version, high, low], rest) = bytes.split_first_chunk::<4>()?;
    if version & 7 != 0 {
        return None;
    }
    let fields = [SUM, KEY, SEQUENCE].into_iter().filter(|flag| flags & flag != 0).count();
    let rest = rest.get(4 * fields..)?;
    match u16::from_be_bytes([*high, *low]) {
        ERSPAN if flags & SEQUENCE != 0 => Some(unwrap(Link::Ethernet, rest.get(8..)?)),
        ERSPAN => Some(unwrap(Link::Ethernet, rest)),
        kind => Some(typed_as(kind, rest)),
    }
}

/// `None` where the datagram is something else: all but the flag and the network's number is zero.
fn vxlan(datagram: &[u8]) -> Option<Inner<'_>> {
    match datagram.split_first_chunk::<8>()? {
        ([0x08, 0, 0, 0, _, _, _, 0], frame) => Some(unwrap(Link::Ethernet, frame)),
        _ => None,
    }
}

/// The same: the version and what is reserved is zero.
fn geneve(datagram: &[u8]) -> Option<Inner<'_>> {
    let ([first, flags, high, low, _, _, _, 0], rest) = datagram.split_first_chunk::<8>()? else {
        return None;
    };
    let has_zeros = first >> 6 == 0 && flags << 2 == 0;
    let options = 4 * usize::from(first & 0x3f);
    has_zeros.then(|| match rest.get(options..) {
        Some(rest) => typed_as(u16::from_be_bytes([*high, *low]), rest),
        None => Inner::Hidden,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const IP: [u8; 4] = [0x45, 1, 2, 3];
    const ETHER: [u8; 14] = [1, 1, 1, 1, 1, 1, 2, 2, 2, 2, 2, 2, 8, 0];

    fn check(protocol: u8, header: &[&[u8]], expected: Option<Inner<'_>>) {
        let bytes = [&header.concat()[..], &IP].concat();
        assert_eq!(within(protocol, &bytes), expected, "{protocol} {header:x?}");
        for length in 0..bytes.len() {
            let _ = within(protocol, &bytes[..length]);
        }
    }

    #[test]
    fn what_a_tunnel_carries_is_found() {
        let found = Some(Inner::Ip(&IP[..]));
        let udp = |port: u16| [&[0, 1][..], &port.to_be_bytes(), &[0; 4]].concat();
        check(IPV4, &[], found);
        check(IPV6, &[], found);
        check(GRE, &[&[0, 0, 8, 0]], found);
        check(GRE, &[&[0xb0, 0, 8, 0], &[7; 12]], found);
        check(GRE, &[&[0, 0, 0x65, 0x58], &ETHER], found);
        check(GRE, &[&[0x10, 0, 0x88, 0xbe], &[0; 12], &ETHER], found);
        let vxlan: &[u8] = &[8, 0, 0, 0, 0, 0, 42, 0];
        check(UDP, &[&udp(4789), vxlan, &ETHER], found);
        check(UDP, &[&udp(8472), vxlan, &ETHER], found);
        check(UDP, &[&udp(6081), &[1, 0, 0x65, 0x58, 0, 0, 42, 0], &[9; 4], &ETHER], found);
        check(UDP, &[&udp(6081), &[0, 0x40, 8, 0, 0, 0, 42, 0]], found);
    }

    #[test]
    fn what_is_no_tunnel_stays_what_it_is_and_what_is_hidden_is_said() {
        let udp = |port: u16| [&[0, 1][..], &port.to_be_bytes(), &[0; 4]].concat();
        check(UDP, &[&udp(53), &[8, 0, 0, 0, 0, 0, 42, 0], &ETHER], None);
        check(UDP, &[&udp(4789), &[8, 0, 0, 0, 0, 0, 42, 1], &ETHER], None);
        check(UDP, &[&udp(6081), &[0xc0, 0, 0x65, 0x58, 0, 0, 42, 0], &ETHER], None);
        check(6, &[&ETHER], None);
        check(GRE, &[&[0x20, 1, 0x88, 0x0b], &[0; 8]], Some(Inner::Hidden));
        check(GRE, &[&[0, 0, 8, 6]], Some(Inner::Nothing));
    }
}
