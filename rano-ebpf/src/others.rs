//! Sockets that are neither TCP's nor UDP's, and connections that a watched process has from somebody else: each is
//! found by its use. A socket of these kinds is known by its inode, because nothing gives most of them a cookie.

use rano_common::{
    DestinationWords, FlowKey, Offset, Owner, OwnerWords, SocketKind, Verdict, flags, owner_words,
};

use crate::datagrams::{aim, begins, count, last};
use crate::follow::{flags_of, owned, remember, remember_new, tell_on, words_of};
use crate::maps::DESTINATIONS;
use crate::socket::{AF_INET6, Destination, Given, IPPROTO_TCP, Told, mapped};
use crate::task::{Identity, caller, read, read_at, user};

/// `MSG_PEEK`
const PEEK: u32 = 2;
const AF_INET: u16 = 2;
/// The families that leave a process's hands: packet, RDS, TIPC, vsock, XDP.
const BEYOND_IP: [u16; 5] = [17, 21, 30, 40, 44];
const IPPROTO_MPTCP: u16 = 262;
/// Of a key that is an inode.
const INODE: u64 = 1 << 63;

/// A call of a process that may be watched sent or received `returned` bytes, through a socket other than UDP's.
#[inline(always)]
pub fn used(sk: Given, protocol: u16, place: usize, returned: i32, call_flags: u32) {
    if returned < 0 || call_flags & PEEK != 0 {
        return;
    }
    let family: u16 = sk.get(Offset::SockFamily).unwrap_or(0);
    let is_ip = family == AF_INET || family == AF_INET6;
    if is_ip && (protocol == u16::from(IPPROTO_TCP) || protocol == IPPROTO_MPTCP) {
        if protocol == u16::from(IPPROTO_TCP) {
            adopt(sk);
        }
        return;
    }
    if !is_ip && !BEYOND_IP.contains(&family) {
        return;
    }
    let Some(key) = inode(sk.address()) else { return };
    if words_of(key).is_none() {
        let Some(identity) = caller() else { return };
        let nowhere = (mapped(0), 0);
        if !remember_new(key, owned(identity, flags::DATAGRAM | flags::OTHER, nowhere)) {
            return crate::maps::lost(rano_common::Loss::OwnersFull);
        }
    }
    let Some(words) = words_of(key) else { return };
    if place == owner_words::SENT
        && is_ip
        && let Some(destination) = sent_to(sk, family)
    {
        aim(key, destination);
    }
    // SAFETY: the kernel returned a pointer to the value.
    let (remote, port) = last(&Owner::from_words(unsafe { *words }));
    let flow = FlowKey { cookie: key, remote, remote_port: u64::from(port) };
    let at = place - owner_words::SENT;
    if !count(flow, at, returned as u64) && begins(sk.address() as *const u8, key, flow, flags::OTHER) {
        let _ = count(flow, at, returned as u64);
    }
}

/// Where it is connected, else where its last packet went.
#[inline(always)]
fn sent_to(sk: Given, family: u16) -> Option<Destination> {
    let port: u16 = sk.get(Offset::SockRemotePort).unwrap_or(0);
    let remote: [u8; 16] = if family == AF_INET6 {
        sk.get(Offset::SockRemote6).unwrap_or([0; 16])
    } else {
        mapped(sk.get(Offset::SockRemote4).unwrap_or(0))
    };
    if remote != [0; 16] && remote != mapped(0) {
        return Some((remote, u16::from_be(port)));
    }
    let cookie: u64 = sk.get(Offset::SockCookie).unwrap_or(0);
    // SAFETY: a value that is replaced meanwhile is torn at worst.
    let words: DestinationWords = unsafe { *DESTINATIONS.get(cookie)? };
    // SAFETY: both are sixteen bytes, of which any are valid.
    Some((unsafe { core::mem::transmute::<[u64; 2], [u8; 16]>([words[0], words[1]]) }, words[2] as u16))
}

/// The key of the socket at that address: the inode of its file, which it may have no more.
#[inline(always)]
pub fn inode(sk: usize) -> Option<u64> {
    let socket: usize = read(sk, Offset::SockSocket)?;
    if socket == 0 {
        return None;
    }
    let number: u64 = read_at(socket + crate::maps::offset(Offset::SocketInode))?;
    Some(number | INODE)
}

/// A connection that nobody follows, or that is followed for somebody whose verdict was awaited: by its use it is the
/// caller's, if they are watched.
#[inline(always)]
fn adopt(sk: Given) {
    let Some(key) = sk.key() else { return };
    match words_of(key) {
        // SAFETY: the kernel returned a pointer to the value.
        Some(words) => adopt_known(sk, key, unsafe { &*words }),
        None => adopt_new(sk, key),
    }
}

#[inline(always)]
fn adopt_known(sk: Given, key: u64, words: &OwnerWords) {
    if flags_of(words) & (flags::LIMITED | flags::ACCEPTED | flags::PREEXISTING) != flags::LIMITED {
        return;
    }
    let known = Owner::from_words(*words);
    let Some(identity) = user() else { return };
    let is_same = known.pid == identity.pid && known.start_ns == identity.start_ns;
    // The same process runs another program by now; or it was found that nobody watches its opener.
    let is_new = if is_same {
        !identity.is_undecided && known.exec_id != identity.exec_id
    } else {
        is_ignored(&known)
    };
    if !is_new {
        return;
    }
    let flags = known.flags | flags::INHERITED;
    let (pid, exec_id, start_ns) = (identity.pid, identity.exec_id, identity.start_ns);
    let owner = Owner { pid, exec_id, start_ns, flags, ..known };
    if remember(key, owner) {
        let _ = tell_on(sk.address() as *const u8, Told::new(SocketKind::Established, key, owner));
    }
}

#[inline(always)]
fn is_ignored(owner: &Owner) -> bool {
    let (pid, exec_id, start_ns) = (owner.pid, owner.exec_id, owner.start_ns);
    let opener = Identity { pid, exec_id, start_ns, is_undecided: false };
    matches!(opener.verdict(), Some(Verdict::Ignored))
}

#[inline(always)]
fn adopt_new(sk: Given, key: u64) {
    let Some(identity) = user() else { return };
    if !reached_out(sk) {
        return;
    }
    let adopted = flags::ADOPTED | flags::INHERITED;
    let owner = owned(identity, adopted, ([0; 16], 0));
    if remember_new(key, owner) {
        let _ = tell_on(sk.address() as *const u8, Told::new(SocketKind::Established, key, owner));
    }
}

/// Whether it is the side of a connection that began it: of that one the kernel counts the SYN among the bytes that
/// were acknowledged (`tcp_snd_una_update()`).
#[inline(always)]
fn reached_out(sk: Given) -> bool {
    let sk = sk.address();
    let bytes = |of| read::<u64>(sk, of).unwrap_or(0);
    let sequence = |of| read::<u32>(sk, of).unwrap_or(0);
    let under_way = sequence(Offset::TcpSendNext).wrapping_sub(sequence(Offset::TcpSendFirst));
    let acknowledged = bytes(Offset::TcpBytesAcknowledged) + u64::from(under_way);
    acknowledged == (bytes(Offset::TcpBytesSent) - bytes(Offset::TcpBytesRetransmitted)) + 1
}
