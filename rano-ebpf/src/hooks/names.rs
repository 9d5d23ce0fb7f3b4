//! Packets that may hold a name, with the socket they belong to: the hooks of cgroups for what a socket sends and
//! receives (`cgroup_skb`, from Linux 4.10 on; sockets and their numbers from 5.1 on), at the network layer of every
//! namespace. Here only: is it DNS, the beginning of a TLS connection, a request to a proxy, a QUIC Initial packet; and
//! a bounded copy.
//!
//! What they miss: fragments, IPv6 with extension headers, what a raw or packet socket sends.

use aya_ebpf::EbpfContext as _;
use aya_ebpf::bindings::{BPF_ANY, bpf_sock, bpf_tcp_sock};
use aya_ebpf::helpers::generated::{
    bpf_get_socket_cookie, bpf_sk_fullsock, bpf_skb_load_bytes, bpf_tcp_sock as tcp_sock,
};
use aya_ebpf::macros::{cgroup_skb, map};
use aya_ebpf::maps::LruHashMap;
use aya_ebpf::programs::SkBuffContext;
use rano_common::{
    HELLO_MAX, HELLOS_MAX, Header, Loss, Offset, PACKET_CLASSES, PacketBytes, PacketKind, PacketRecord,
    flags, owner_words,
};

use crate::emit::{Share, discard, has_room, now, reserve, submit};
use crate::maps::{DESTINATIONS, OWNERS, lost};
use crate::socket::{IPPROTO_TCP, IPPROTO_UDP};
use crate::task::read;

/// Let the packet go on.
const ALLOW: i32 = 1;
const DNS: u32 = 53;
const IPPROTO_DCCP: u8 = 33;
const IPPROTO_SCTP: u8 = 132;
/// Of a DNS connection in one direction; one that goes on for longer is a transfer of zones.
const DNS_SEGMENTS: u32 = 1024;
const LONG_HEADER: u8 = 0xc0;
const IPV4_HEADER: usize = 20;
const IPV6_HEADER: u32 = 40;
const UDP_HEADER: u32 = 8;
/// A datagram with an Initial packet of a client, IP included, is at least this long.
const INITIAL_MIN: u32 = 20 + UDP_HEADER + 1200;
/// Record header, message header.
const HELLO_HEADERS: u32 = 5 + 4;

/// A request to a proxy is looked for in so many bytes; behind its first line are headers, with secrets.
const REQUEST_MAX: u32 = 512;
/// The longest request of SOCKS 5 (RFC 1928, section 4).
const SOCKS_REQUEST_MAX: u32 = 4 + 1 + 255 + 2;
/// A SOCKS 5 server has answered with two bytes when the request comes, or with four after it was told a password.
const SOCKS_ANSWERS: u64 = 4;
/// In [`HELLOS`]: the client's offer to a SOCKS 5 server was sent, and its request not yet.
const SOCKS_OFFERED: u64 = 1 << 32;
/// In [`HELLOS`]: it is a request to a proxy.
const OF_REQUEST: u64 = 1 << 33;

/// Where the rest of a hello ends whose beginning was sent, by socket cookie.
#[map]
static HELLOS: LruHashMap<u64, u64> = LruHashMap::with_max_entries(HELLOS_MAX, 0);

#[cgroup_skb(ingress)]
pub fn names_received(ctx: SkBuffContext) -> i32 {
    // Of the socket: none for one that is not connected. A bulk transfer ends here.
    let port = u32::from_be(ctx.skb.remote_port());
    if port == DNS || port == 0 {
        received(&ctx);
    }
    ALLOW
}

#[cgroup_skb(egress)]
pub fn names_sent(ctx: SkBuffContext) -> i32 {
    sent(&ctx);
    ALLOW
}

#[inline(always)]
fn received(ctx: &SkBuffContext) -> Option<()> {
    // Every datagram of a socket that is not connected comes here: the packet first, which is one call.
    let packet = Packet::of(ctx)?;
    if packet.source_port() != DNS {
        return None;
    }
    if packet.protocol == IPPROTO_UDP {
        return copy(ctx, full_socket(ctx)?, PacketKind::Received, 0);
    }
    if packet.protocol != IPPROTO_TCP {
        return None;
    }
    let socket = full_socket(ctx)?;
    let tcp = numbers(socket)?;
    // SAFETY: the helper returned a pointer to the socket's numbers, which the verifier checked.
    let (segments, next, before) =
        unsafe { ((*tcp).data_segs_in, (*tcp).rcv_nxt, (*tcp).bytes_received as u32) };
    if segments > DNS_SEGMENTS {
        return None;
    }
    let segment = Segment::of(ctx, &packet)?;
    let place = segment.sequence.wrapping_sub(next).wrapping_add(before);
    copy(ctx, socket, PacketKind::Received, place)
}

/// All but the first packets of a connection leave after a look at the socket's numbers, which is one call.
#[inline(always)]
fn sent(ctx: &SkBuffContext) -> Option<()> {
    let socket = socket(ctx)?;
    let Some(tcp) = numbers(socket) else { return datagram(ctx) };
    // SAFETY: the helper returned a pointer to the socket's numbers, which the verifier checked.
    let (segments, under_way, acknowledged) =
        unsafe { ((*tcp).data_segs_out, (*tcp).snd_nxt.wrapping_sub((*tcp).snd_una), (*tcp).bytes_acked) };
    if u32::from_be(ctx.skb.remote_port()) == DNS {
        if segments == 0 || segments > DNS_SEGMENTS {
            return None;
        }
        return question(ctx, tcp);
    }
    // What has no payload before the first that has; a bulk transfer. However small the pieces are in which it is sent,
    // a `ClientHello` is among the first bytes. The SYN counts as one.
    if segments == 0 || acknowledged + u64::from(under_way) > u64::from(HELLO_MAX) {
        return None;
    }
    // A client speaks first in TLS; whoever was answered has said its hello, and who serves has heard one. SOCKS 5
    // alone is a short conversation.
    // SAFETY: as above.
    let heard = unsafe { (*tcp).bytes_received };
    if heard > SOCKS_ANSWERS {
        return None;
    }
    if heard == 0 { greeting(ctx, tcp) } else { socks_request(ctx, tcp) }
}

#[inline(always)]
fn question(ctx: &SkBuffContext, tcp: *const bpf_tcp_sock) -> Option<()> {
    let place = Segment::of(ctx, &Packet::of(ctx)?)?.place(tcp);
    copy(ctx, full_socket(ctx)?, PacketKind::Sent, place)
}

#[inline(always)]
fn greeting(ctx: &SkBuffContext, tcp: *const bpf_tcp_sock) -> Option<()> {
    let segment = Segment::of(ctx, &Packet::of(ctx)?)?;
    let place = segment.place(tcp);
    if place == 0 {
        let opening = opening(ctx, &segment)?;
        let cookie = cookie(ctx);
        // SAFETY: nothing but the presence is looked at.
        unsafe { OWNERS.get(cookie) }?;
        let (rest, is_hello) = match opening {
            Opening::Hello(expected) => (u64::from(expected), true),
            Opening::Request => (u64::from(REQUEST_MAX) | OF_REQUEST, false),
            Opening::SocksOffer => (SOCKS_OFFERED, false),
        };
        if rest == SOCKS_OFFERED || rest as u32 > segment.length {
            let _ = HELLOS.insert(cookie, rest, BPF_ANY as u64);
        }
        return if is_hello {
            copy(ctx, full_socket(ctx)?, PacketKind::Sent, place)
        } else {
            copy_short(ctx, full_socket(ctx)?, place)
        };
    }
    if place >= HELLO_MAX {
        return None;
    }
    let cookie = cookie(ctx);
    // SAFETY: a number, which only this socket's packets change.
    let end = *unsafe { HELLOS.get(cookie) }?;
    if place >= end as u32 {
        return None;
    }
    if place + segment.length >= end as u32 {
        let _ = HELLOS.remove(cookie);
    }
    if end & OF_REQUEST != 0 {
        return copy_short(ctx, full_socket(ctx)?, place);
    }
    copy(ctx, full_socket(ctx)?, PacketKind::Sent, place)
}

/// What a client of SOCKS 5 sends after its offer was answered: the request, and never a password, which begins with
/// another byte (RFC 1929).
#[inline(always)]
fn socks_request(ctx: &SkBuffContext, tcp: *const bpf_tcp_sock) -> Option<()> {
    let cookie = cookie(ctx);
    // SAFETY: a number, which only this socket's packets change.
    let end = *unsafe { HELLOS.get(cookie) }?;
    let segment = Segment::of(ctx, &Packet::of(ctx)?)?;
    let place = segment.place(tcp);
    if end == SOCKS_OFFERED {
        if load::<u8>(ctx, segment.payload)? != 5 {
            return None;
        }
        let _ = HELLOS.insert(cookie, u64::from(place + SOCKS_REQUEST_MAX), BPF_ANY as u64);
    } else if place >= end as u32 {
        return None;
    }
    copy_short(ctx, full_socket(ctx)?, place)
}

/// What a connection begins with.
enum Opening {
    /// A `ClientHello`, of so many bytes of the stream.
    Hello(u32),
    /// One line to an HTTP proxy, or all that a client of SOCKS 4 says.
    Request,
    /// The ways in which a client of SOCKS 5 can say who it is.
    SocksOffer,
}

/// What begins with this segment, if it is of interest.
#[inline(always)]
fn opening(ctx: &SkBuffContext, segment: &Segment) -> Option<Opening> {
    let start = segment.payload;
    if segment.length < 8 {
        return short_opening(ctx, segment);
    }
    let first: [u8; 8] = load(ctx, start)?;
    match first[0] {
        22 => {
            if first[1] != 3 || first[5] != 1 {
                return None;
            }
            // One that is cut before its length may be as long as any.
            let Some(last) = load::<u8>(ctx, start + 8) else { return Some(Opening::Hello(HELLO_MAX)) };
            let record = u32::from(first[3]) << 8 | u32::from(first[4]);
            let message = u32::from(first[6]) << 16 | u32::from(first[7]) << 8 | u32::from(last);
            // In several records there are more headers.
            let expected = if record >= message + 4 {
                message + HELLO_HEADERS
            } else {
                message + message / 8 + HELLO_MAX / 8
            };
            Some(Opening::Hello(if expected > HELLO_MAX { HELLO_MAX } else { expected }))
        }
        4 if first[1] == 1 => Some(Opening::Request),
        5 if u32::from(first[1]) + 2 == segment.length => Some(Opening::SocksOffer),
        // To an HTTP proxy: a method, then a whole address (RFC 9112, sections 3.2.2 and 3.2.3).
        b'C' if first == *b"CONNECT " => Some(Opening::Request),
        b'G' if first == *b"GET http" => Some(Opening::Request),
        b'P' if first == *b"POST htt" || first == *b"PUT http" || first == *b"PATCH ht" => {
            Some(Opening::Request)
        }
        b'H' if first == *b"HEAD htt" => Some(Opening::Request),
        b'D' if first == *b"DELETE h" => Some(Opening::Request),
        b'O' if first == *b"OPTIONS " => Some(Opening::Request),
        _ => None,
    }
}

/// The same of one that is cut so short that it may be anything; what it is shows when the rest is there.
#[inline(always)]
fn short_opening(ctx: &SkBuffContext, segment: &Segment) -> Option<Opening> {
    let first: u8 = load(ctx, segment.payload)?;
    if segment.length == 1 {
        // Some send the first byte alone, so that others do not see what it is.
        return match first {
            22 => Some(Opening::Hello(HELLO_MAX)),
            b'C' | b'G' | b'P' | b'H' | b'D' | b'O' | 4 => Some(Opening::Request),
            _ => None,
        };
    }
    let second: u8 = load(ctx, segment.payload + 1)?;
    match (first, second) {
        (22, 3) => Some(Opening::Hello(HELLO_MAX)),
        (5, methods) if u32::from(methods) + 2 == segment.length => Some(Opening::SocksOffer),
        (b'C', b'O') | (b'G', b'E') | (b'P', b'O' | b'U' | b'A') | (b'H', b'E') | (b'D', b'E') => {
            Some(Opening::Request)
        }
        (b'O', b'P') | (4, 1) => Some(Opening::Request),
        _ => None,
    }
}

#[inline(always)]
fn datagram(ctx: &SkBuffContext) -> Option<()> {
    let port = u32::from_be(ctx.skb.remote_port());
    // An Initial packet is made long (RFC 9000, section 14.1); of a socket that is connected the port is known.
    if port != DNS && port != 0 && ctx.len() < INITIAL_MIN {
        return None;
    }
    let packet = Packet::of(ctx)?;
    if packet.protocol != IPPROTO_UDP {
        return other(ctx, &packet);
    }
    if packet.destination_port() == DNS {
        return copy(ctx, full_socket(ctx)?, PacketKind::Sent, 0);
    }
    if ctx.len() < INITIAL_MIN {
        return None;
    }
    let first: [u8; 5] = load(ctx, packet.transport + UDP_HEADER)?;
    let initial = match u32::from_be_bytes([first[1], first[2], first[3], first[4]]) {
        1 => LONG_HEADER,
        0x6b33_43cf => LONG_HEADER | 0x10,
        _ => return None,
    };
    if first[0] & 0xf0 != initial {
        return None;
    }
    // SAFETY: nothing but the presence is looked at.
    unsafe { OWNERS.get(cookie(ctx)) }?;
    copy(ctx, full_socket(ctx)?, PacketKind::Sent, 0)
}

/// Of a socket that is neither TCP's nor UDP's: where it goes, which the call that sends does not say afterwards.
#[inline(always)]
fn other(ctx: &SkBuffContext, packet: &Packet) -> Option<()> {
    // An IPv4 header may be as long as one of IPv6.
    let version: u8 = load(ctx, 0)?;
    let remote: [u32; 4] =
        if version >> 4 == 6 { load(ctx, 24)? } else { [0, 0, 0xffff_u32.to_be(), load(ctx, 16)?] };
    let has_ports = packet.protocol == IPPROTO_SCTP || packet.protocol == IPPROTO_DCCP;
    let port = if has_ports { packet.destination_port() } else { 0 };
    let halves = |at: usize| u64::from(remote[at]) | u64::from(remote[at + 1]) << 32;
    let words = [halves(0), halves(2), u64::from(port)];
    let _ = DESTINATIONS.insert(cookie(ctx), words, BPF_ANY as u64);
    None
}

/// The socket a packet belongs to, of which little may be read.
#[inline(always)]
fn socket(ctx: &SkBuffContext) -> Option<*mut bpf_sock> {
    // SAFETY: the context is valid while the program runs; the verifier checks the access.
    let sk = unsafe { (*ctx.skb.skb).__bindgen_anon_2.sk };
    if sk.is_null() { None } else { Some(sk) }
}

/// `None` for requests of connections and the like.
#[inline(always)]
fn full_socket(ctx: &SkBuffContext) -> Option<*mut bpf_sock> {
    // SAFETY: it is a socket, or the verifier refuses.
    let sk = unsafe { bpf_sk_fullsock(socket(ctx)?) };
    if sk.is_null() { None } else { Some(sk) }
}

/// `None` for what is not a full socket of TCP.
#[inline(always)]
fn numbers(sk: *mut bpf_sock) -> Option<*const bpf_tcp_sock> {
    // SAFETY: the helper takes any socket.
    let tcp = unsafe { tcp_sock(sk) };
    if tcp.is_null() { None } else { Some(tcp) }
}

#[inline(always)]
fn cookie(ctx: &SkBuffContext) -> u64 {
    // SAFETY: the context is of a type this helper takes.
    unsafe { bpf_get_socket_cookie(ctx.as_ptr()) }
}

/// IPv4 without options and the beginning of the header behind it, or IPv6 up to there.
type Start = [u8; IPV4_HEADER + 4];

/// What counts of the header of IP, and the ports. A packet begins with its IP header here.
struct Packet {
    protocol: u8,
    /// Where the header behind IP begins.
    transport: u32,
    ports: [u8; 4],
}

impl Packet {
    /// `None` for fragments, and where the ports are missing.
    #[inline(always)]
    fn of(ctx: &SkBuffContext) -> Option<Self> {
        let start: Start = load(ctx, 0)?;
        let fragment = u16::from_be_bytes([start[6], start[7]]) & 0x3fff;
        let (protocol, transport, ports) = match start[0] {
            0x45 if fragment == 0 => {
                (start[9], IPV4_HEADER as u32, [start[20], start[21], start[22], start[23]])
            }
            0x46..=0x4f if fragment == 0 => {
                let transport = u32::from(start[0] & 0xf) * 4;
                (start[9], transport, load(ctx, transport)?)
            }
            0x60..=0x6f => (start[6], IPV6_HEADER, load(ctx, IPV6_HEADER)?),
            _ => return None,
        };
        Some(Self { protocol, transport, ports })
    }

    #[inline(always)]
    fn source_port(&self) -> u32 {
        u32::from(self.ports[0]) << 8 | u32::from(self.ports[1])
    }

    #[inline(always)]
    fn destination_port(&self) -> u32 {
        u32::from(self.ports[2]) << 8 | u32::from(self.ports[3])
    }
}

/// What counts of a TCP segment.
struct Segment {
    /// Of the first payload byte.
    sequence: u32,
    /// Where the payload begins.
    payload: u32,
    /// Bytes of payload, at least one.
    length: u32,
}

impl Segment {
    #[inline(always)]
    fn of(ctx: &SkBuffContext, packet: &Packet) -> Option<Self> {
        // From the sequence number to the flags.
        let header: [u8; 10] = load(ctx, packet.transport + 4)?;
        let sequence = u32::from_be_bytes([header[0], header[1], header[2], header[3]]);
        let payload = packet.transport + u32::from(header[8] >> 4) * 4;
        let total = ctx.len();
        let syn = u32::from(header[9] >> 1 & 1);
        if payload >= total {
            return None;
        }
        Some(Self { sequence: sequence.wrapping_add(syn), payload, length: total - payload })
    }

    /// In the stream that is sent, counted from zero.
    #[inline(always)]
    fn place(&self, tcp: *const bpf_tcp_sock) -> u32 {
        // SAFETY: the caller's pointer is to the socket's numbers, which the verifier checked.
        let (acknowledged, count) = unsafe { ((*tcp).snd_una, (*tcp).bytes_acked as u32) };
        // The SYN counts among the bytes that were acknowledged.
        self.sequence.wrapping_sub(acknowledged).wrapping_add(count).wrapping_sub(1)
    }
}

#[inline(always)]
fn load<T>(ctx: &SkBuffContext, offset: u32) -> Option<T> {
    ctx.load(offset as usize).ok()
}

/// Whether there is room in the ring for a packet of this socket.
#[inline(always)]
fn may_copy(ctx: &SkBuffContext) -> bool {
    // SAFETY: nothing but the flags is looked at.
    let owner = unsafe { OWNERS.get(cookie(ctx)) };
    let is_watched = owner.is_some_and(|owner| owner[owner_words::FLAGS] as u32 & flags::LIMITED == 0);
    let may = is_watched || has_room(Share::STRANGERS_PACKET);
    if !may {
        lost(Loss::PacketRecord);
    }
    may
}

/// No more than the first bytes: a request to a proxy stands there, and headers behind it.
#[inline(always)]
fn copy_short(ctx: &SkBuffContext, sk: *mut bpf_sock, place: u32) -> Option<()> {
    if !may_copy(ctx) {
        return None;
    }
    copy_sized::<{ PACKET_CLASSES[0] }>(ctx, sk, PacketKind::Sent, place)
}

#[inline(always)]
fn copy(ctx: &SkBuffContext, sk: *mut bpf_sock, kind: PacketKind, place: u32) -> Option<()> {
    if !may_copy(ctx) {
        return None;
    }
    const SMALL: usize = PACKET_CLASSES[0];
    const MIDDLE: usize = PACKET_CLASSES[1];
    const LARGE: usize = PACKET_CLASSES[2];
    let length = ctx.len();
    if length <= SMALL as u32 {
        copy_sized::<SMALL>(ctx, sk, kind, place)
    } else if length <= MIDDLE as u32 {
        copy_sized::<MIDDLE>(ctx, sk, kind, place)
    } else {
        copy_sized::<LARGE>(ctx, sk, kind, place)
    }
}

#[inline(always)]
fn copy_sized<const N: usize>(
    ctx: &SkBuffContext,
    sk: *mut bpf_sock,
    kind: PacketKind,
    place: u32,
) -> Option<()> {
    let Some(mut room) = reserve::<PacketBytes<N>>(Share::PACKET) else {
        lost(Loss::PacketRecord);
        return None;
    };
    let packet = room.as_mut_ptr();
    let length = ctx.len();
    let length = if length > N as u32 { N as u32 } else { length };
    // SAFETY: `packet` points to room for the record; each place is written before it is submitted, except for what is
    // behind the bytes that count. The helper writes at most `N` bytes. The verifier forbids arithmetic on the pointer
    // to the socket; one that has been through memory is a plain address to it.
    let copied = unsafe {
        let address = (&raw mut (*packet).packet.cookie).cast::<usize>();
        core::ptr::write_volatile(address.cast::<*mut bpf_sock>(), sk);
        let sk = core::ptr::read_volatile(address);
        let net: usize = read(sk, Offset::SockNet).unwrap_or(0);
        (*packet).packet = PacketRecord {
            header: Header { kind: kind as u32, size: size_of::<PacketBytes<N>>() as u32, at_ns: now() },
            cookie: cookie(ctx),
            netns: read(net, Offset::NetInode).unwrap_or(0),
            length,
            place,
            uid: read(sk, Offset::SockUid).unwrap_or(u32::MAX),
        };
        // The mask says again what the verifier may have lost sight of: between one and `N`.
        let length = (length.wrapping_sub(1) & (N as u32 - 1)) + 1;
        bpf_skb_load_bytes(ctx.skb.skb.cast(), 0, (&raw mut (*packet).bytes).cast(), length)
    };
    if copied != 0 {
        discard(room);
        return None;
    }
    submit(room);
    Some(())
}
