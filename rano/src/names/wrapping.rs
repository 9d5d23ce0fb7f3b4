//! What stands before an IP packet in a capture: the headers of links and tunnels, one peeled off after another. Total
//! on any bytes.

use super::packet::Link;

/// What is behind them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Inner<'a> {
    /// It begins with an IPv4 or IPv6 header.
    Ip(&'a [u8]),
    /// No IP: ARP, spanning tree, time.
    Nothing,
    /// It may carry IP, in a way that is not understood, encrypted, or cut off.
    Hidden,
}

/// More headers than this are not real.
const MAX_HEADERS: usize = 16;
/// Field values up to this are lengths (IEEE 802.3), others types.
const LONGEST_FRAME: u16 = 1500;

mod ether_type {
    pub(super) const IPV4: u16 = 0x0800;
    pub(super) const IPV6: u16 = 0x86dd;
    /// 802.1Q, 802.1ad, and what was used before it.
    pub(super) const TAGS: [u16; 5] = [0x8100, 0x88a8, 0x9100, 0x9200, 0x9300];
    /// 802.1BR, VN-Tag: a tag of another length.
    pub(super) const LONG_TAGS: [(u16, usize); 2] = [(0x893f, 6), (0x8926, 4)];
    pub(super) const MPLS: [u16; 2] = [0x8847, 0x8848];
    pub(super) const PPPOE: u16 = 0x8864;
    /// Provider backbone: an Ethernet frame behind four bytes.
    pub(super) const BACKBONE: u16 = 0x88e7;
    pub(super) const BRIDGED: u16 = 0x6558;
    /// `MACsec`, TRILL, `FabricPath`, NSH.
    pub(super) const HIDDEN: [u16; 4] = [0x88e5, 0x22f3, 0x8903, 0x894f];
}

/// What the next bytes are.
#[derive(Clone, Copy)]
enum Next {
    Ether,
    /// By its type.
    Type(u16),
    /// Logical link control (IEEE 802.2).
    Llc,
    Ppp,
    PppOverEthernet,
    /// By the version in its first byte.
    Ip,
    Hidden,
    Nothing,
}

/// The IP packet within what a link of this kind carried.
pub(super) fn unwrap(link: Link, bytes: &[u8]) -> Inner<'_> {
    match begin(link, bytes) {
        Some((next, rest)) => peel(next, rest),
        None => Inner::Hidden,
    }
}

/// The IP packet within what an Ethernet type stands for.
pub(super) fn typed_as(kind: u16, bytes: &[u8]) -> Inner<'_> {
    peel(Next::Type(kind), bytes)
}

fn peel(mut next: Next, mut rest: &[u8]) -> Inner<'_> {
    for _ in 0..MAX_HEADERS {
        let step = match next {
            Next::Ip => {
                return match rest.first().map(|first| first >> 4) {
                    Some(4 | 6) => Inner::Ip(rest),
                    _ => Inner::Hidden,
                };
            }
            Next::Nothing => return Inner::Nothing,
            Next::Hidden => return Inner::Hidden,
            Next::Ether => rest.get(12..).and_then(typed),
            Next::Type(kind) => by_type(kind, rest),
            Next::Llc => llc(rest),
            Next::Ppp => ppp(rest),
            Next::PppOverEthernet => rest.get(6..).map(|rest| (Next::Ppp, rest)),
        };
        let Some((then, after)) = step else { return Inner::Hidden };
        (next, rest) = (then, after);
    }
    Inner::Hidden
}

fn begin(link: Link, bytes: &[u8]) -> Option<(Next, &[u8])> {
    let after = |next, at: usize| bytes.get(at..).map(|rest| (next, rest));
    match link {
        Link::Ethernet => Some((Next::Ether, bytes)),
        Link::Ip => Some((Next::Ip, bytes)),
        Link::Loopback => after(Next::Ip, 4),
        // ARPHRD_… stands before: of other devices than Ethernet too, whose type is the same.
        Link::Cooked => typed(bytes.get(14..)?),
        Link::Cooked2 => after(Next::Type(u16_at(bytes, 0)?), 20),
        Link::Ppp => Some((Next::Ppp, bytes)),
        Link::PppWithDirection => after(Next::Ppp, 1),
        Link::PppOverEthernet => Some((Next::PppOverEthernet, bytes)),
        Link::Hdlc => typed(bytes.get(2..)?),
        Link::Wireless => wireless(bytes),
        Link::Radiotap => {
            wireless(bytes.get(usize::from(u16::from_le_bytes(*bytes.get(2..)?.first_chunk()?))..)?)
        }
        // BSD's filter log: its length, to a multiple of four.
        Link::FilterLog => after(Next::Ip, usize::from(*bytes.first()?).next_multiple_of(4)),
        Link::Encapsulated => after(Next::Ip, 12),
        Link::NetfilterLog => netfilter(bytes),
        Link::PacketTap => packet_tap(bytes),
    }
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_be_bytes(*bytes.get(at..)?.first_chunk()?))
}

/// A type or a length, and what follows.
fn typed(bytes: &[u8]) -> Option<(Next, &[u8])> {
    let kind = u16_at(bytes, 0)?;
    let next = if kind <= LONGEST_FRAME { Next::Llc } else { Next::Type(kind) };
    Some((next, &bytes[2..]))
}

fn by_type(kind: u16, bytes: &[u8]) -> Option<(Next, &[u8])> {
    use ether_type as of;
    if kind == of::IPV4 || kind == of::IPV6 {
        return Some((Next::Ip, bytes));
    }
    if of::TAGS.contains(&kind) {
        return typed(bytes.get(2..)?);
    }
    if let Some((_, length)) = of::LONG_TAGS.iter().find(|(tag, _)| *tag == kind) {
        return typed(bytes.get(*length..)?);
    }
    if of::MPLS.contains(&kind) {
        return labels(bytes);
    }
    match kind {
        of::PPPOE => Some((Next::PppOverEthernet, bytes)),
        of::BRIDGED => Some((Next::Ether, bytes)),
        of::BACKBONE => Some((Next::Ether, bytes.get(4..)?)),
        _ if of::HIDDEN.contains(&kind) => Some((Next::Hidden, bytes)),
        // `Cooked` has a length's place for frames without a type: 1 is 802.3, 4 is 802.2.
        1 | 4 => Some((Next::Llc, bytes)),
        _ => Some((Next::Nothing, bytes)),
    }
}

/// MPLS (RFC 3032): labels to the one that says it is the last. Nothing says what is behind it but its first bits;
/// zeros are the control word of a pseudowire (RFC 4448).
fn labels(mut bytes: &[u8]) -> Option<(Next, &[u8])> {
    loop {
        let (label, rest) = bytes.split_first_chunk::<4>()?;
        bytes = rest;
        if label[2] & 1 == 1 {
            break;
        }
    }
    match bytes.first()? >> 4 {
        4 | 6 => Some((Next::Ip, bytes)),
        0 => Some((Next::Ether, bytes.get(4..)?)),
        _ => Some((Next::Ether, bytes)),
    }
}

/// SNAP (RFC 1042) and the few others that carry IP.
fn llc(bytes: &[u8]) -> Option<(Next, &[u8])> {
    match bytes {
        [0xaa | 0xab, 0xaa | 0xab, 0x03, 0, 0, 0 | 0xf8, rest @ ..] => typed(rest),
        // ISIS and IP under NLPID.
        [0xfe, 0xfe, 0x03, 0xcc, rest @ ..] | [0x06, 0x06, 0x03, rest @ ..] => Some((Next::Ip, rest)),
        [_, _, _, ..] => Some((Next::Nothing, bytes)),
        _ => None,
    }
}

/// RFC 1661 and 1662: address and control, and the first byte of the protocol, may be left out.
fn ppp(bytes: &[u8]) -> Option<(Next, &[u8])> {
    let bytes =
        bytes.strip_prefix(&[0xff, 0x03]).or_else(|| bytes.strip_prefix(&[0x0f, 0x00])).unwrap_or(bytes);
    let (protocol, rest) = match bytes {
        [odd, rest @ ..] if odd & 1 == 1 => (u16::from(*odd), rest),
        [first, second, rest @ ..] => (u16::from_be_bytes([*first, *second]), rest),
        _ => return None,
    };
    let next = match protocol {
        0x0021 | 0x0057 | 0x0800 | 0x86dd => Next::Ip,
        0x0281 | 0x0283 => return labels(rest),
        // Compressed, encrypted, or one of several parts.
        0x003d | 0x0053 | 0x00fd | 0x002d | 0x002f => Next::Hidden,
        _ => Next::Nothing,
    };
    Some((next, rest))
}

/// A frame of IEEE 802.11. Most are encrypted; data that is not has LLC.
fn wireless(bytes: &[u8]) -> Option<(Next, &[u8])> {
    const PROTECTED: u8 = 0x40;
    const ORDER: u8 = 0x80;
    let [control, flags, ..] = bytes else { return None };
    let (kind, subtype) = ((control >> 2) & 3, control >> 4);
    // Of the data frames, those with bit 2 carry nothing.
    if kind != 2 || subtype & 4 != 0 {
        return Some((Next::Nothing, bytes));
    }
    if flags & PROTECTED != 0 {
        return Some((Next::Hidden, bytes));
    }
    let four_addresses = flags & 3 == 3;
    let has_quality = subtype & 8 != 0;
    let length = 24
        + if four_addresses { 6 } else { 0 }
        + if has_quality { 2 } else { 0 }
        + if has_quality && flags & ORDER != 0 { 4 } else { 0 };
    Some((Next::Llc, bytes.get(length..)?))
}

/// Attributes after four bytes; the packet is one of them.
fn netfilter(bytes: &[u8]) -> Option<(Next, &[u8])> {
    const PAYLOAD: u16 = 9;
    let mut rest = bytes.get(4..)?;
    loop {
        let length = usize::from(u16::from_le_bytes(*rest.first_chunk()?));
        let kind = u16::from_le_bytes(*rest.get(2..)?.first_chunk()?);
        let value = rest.get(4..length)?;
        if kind == PAYLOAD {
            return Some((Next::Ip, value));
        }
        rest = rest.get(length.next_multiple_of(4)..)?;
    }
}

/// What macOS writes: its length, and the number of the link that follows.
fn packet_tap(bytes: &[u8]) -> Option<(Next, &[u8])> {
    let number = |at: usize| Some(u32::from_le_bytes(*bytes.get(at..)?.first_chunk()?));
    let length = usize::try_from(number(0)?).ok()?;
    let rest = bytes.get(length..)?;
    match Link::from_number(i32::try_from(number(8)?).ok()?)? {
        Link::PacketTap => None,
        link => begin(link, rest),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An IPv4 header's first byte, and something.
    const IP: [u8; 4] = [0x45, 1, 2, 3];

    fn check(link: Link, header: &[&[u8]]) {
        let bytes = [&header.concat()[..], &IP].concat();
        assert_eq!(unwrap(link, &bytes), Inner::Ip(&IP), "{link:?} {header:x?}");
        for length in 0..bytes.len() {
            let _ = unwrap(link, &bytes[..length]);
        }
    }

    #[test]
    fn headers_are_peeled_off() {
        let ether: &[u8] = &[1, 1, 1, 1, 1, 1, 2, 2, 2, 2, 2, 2];
        let snap: &[u8] = &[0xaa, 0xaa, 3, 0, 0, 0, 8, 0];
        let pppoe: &[u8] = &[0x11, 0, 0, 1, 0, 6];
        for rest in [
            &[&[8, 0][..]][..],
            &[&[0x88, 0xa8, 0, 1, 0x81, 0, 0, 2, 0x81, 0, 0, 3, 0x91, 0, 0, 4, 8, 0]],
            &[&[0x88, 0x47, 0, 1, 0, 64, 0, 1, 1, 64]],
            &[&[0x88, 0x47, 0, 1, 1, 64, 0, 0, 0, 0], ether, &[8, 0]],
            &[&[0, 12], snap],
            &[&[0x81, 0, 0, 1, 0, 12], snap],
            &[&[0x88, 0x64], pppoe, &[0, 0x21]],
            &[&[0x88, 0xe7, 0, 0, 0, 1], ether, &[8, 0]],
            &[&[0x89, 0x26, 0, 0, 0, 1, 8, 0]],
        ] {
            check(Link::Ethernet, &[&[ether], rest].concat());
        }
        check(Link::Ppp, &[&[0xff, 3, 0, 0x21]]);
        check(Link::Ppp, &[&[0x21]]);
        check(Link::PppWithDirection, &[&[0, 0xff, 3, 0, 0x21]]);
        check(Link::PppOverEthernet, &[pppoe, &[0, 0x57]]);
        check(Link::Hdlc, &[&[0x0f, 0, 8, 0]]);
        let data: &[u8] = &[0x88, 1, 0, 0];
        check(Link::Wireless, &[data, &[0; 22], snap]);
        check(Link::Radiotap, &[&[0, 0, 8, 0, 0, 0, 0, 0], &[0x08, 1, 0, 0], &[0; 20], snap]);
        check(Link::FilterLog, &[&[61], &[0; 63]]);
        check(Link::Encapsulated, &[&[0; 12]]);
        check(Link::NetfilterLog, &[&[2, 0, 0, 0], &[5, 0, 10, 0, 7, 0, 0, 0], &[8, 0, 9, 0]]);
        let tap = [&12_u32.to_le_bytes()[..], &[1, 0, 0, 0], &1_u32.to_le_bytes()].concat();
        check(Link::PacketTap, &[&tap, ether, &[8, 0]]);
    }

    #[test]
    fn what_carries_no_ip_is_told_from_what_is_hidden() {
        let ether = [1; 12];
        let frame = |rest: &[u8]| [&ether[..], rest].concat();
        for nothing in [&[8, 6, 1, 2][..], &[0x88, 0xcc, 1], &[0, 38, 0x42, 0x42, 3, 0]] {
            assert_eq!(unwrap(Link::Ethernet, &frame(nothing)), Inner::Nothing, "{nothing:x?}");
        }
        for hidden in [&[0x88, 0xe5, 1, 2][..], &[8, 0, 0xff], &[0x88, 0x47, 0, 1, 0, 64], &[0x81, 0]] {
            assert_eq!(unwrap(Link::Ethernet, &frame(hidden)), Inner::Hidden, "{hidden:x?}");
        }
        assert_eq!(unwrap(Link::Wireless, &[&[0x08, 0x41][..], &[0; 40]].concat()), Inner::Hidden);
        assert_eq!(unwrap(Link::Wireless, &[&[0x80, 0][..], &[0; 40]].concat()), Inner::Nothing, "a beacon");
    }
}
