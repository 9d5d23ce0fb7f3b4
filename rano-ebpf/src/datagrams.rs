//! Datagrams: from whom, to whom, how many bytes. A flow begins with the first datagram in either direction. A connect
//! alone sends nothing, and is not told.

use aya_ebpf::bindings::{BPF_ANY, BPF_NOEXIST};
use rano_common::{FlowKey, LeftOut, Loss, Offset, Owner, OwnerWords, SocketKind, flags, owner_words};

use crate::follow::{
    add, flags_of, mark, owned, owner_of, remember, remember_new, settled, tell_on, words_of,
};
use crate::maps::{DATAGRAMS_HOOKED, FLOWS, LEFT_OUT_FLOWS, TALKS, left_out, lost};
use crate::socket::{
    Destination, Given, IPPROTO_UDP, IPPROTO_UDPLITE, Pointee, Told, bytes, destination, mapped,
};
use crate::task::{Identity, caller, caller_or, may_be_watched, thread, user};

/// `MSG_PEEK`: what is received stays to be received.
const PEEK: u32 = 2;
/// Nobody knows from where.
const NOWHERE: Destination = ([0; 16], 0);

/// Whether each datagram is seen. Otherwise a flow begins where a call says that one is to be sent.
#[inline(always)]
pub fn are_seen() -> bool {
    DATAGRAMS_HOOKED.get(0).is_some_and(|hooked| *hooked != 0)
}

#[inline(always)]
pub fn is_of_datagrams(protocol: u32) -> bool {
    protocol == u32::from(IPPROTO_UDP) || protocol == u32::from(IPPROTO_UDPLITE)
}

/// A datagram socket is bound, in the caller's context. It may only ever receive.
#[inline(always)]
pub fn bound(key: u64) {
    if owner_of(key).is_none()
        && let Some(identity) = caller()
        && !remember_new(key, owned(identity, flags::DATAGRAM, NOWHERE))
    {
        lost(Loss::OwnersFull);
    }
}

/// A datagram socket connects. What was told of it before has ended.
#[inline(always)]
pub fn datagrams_begin<T: Pointee>(socket: *const T, key: u64, identity: Identity, destination: Destination) {
    let destination = reached(destination);
    let before = owner_of(key);
    let kept =
        before.map_or(0, |before| before.flags & (flags::LISTENER | flags::PREEXISTING | flags::HEARD));
    let (sent, received) = before.map_or((0, 0), |before| (before.sent, before.received));
    let (sent, received) = (settled(sent), settled(received));
    let seen = if are_seen() { 0 } else { flags::TALKED };
    let owner = owned(identity, flags::DATAGRAM | flags::CONNECTED | kept | seen, destination);
    let is_followed = remember(key, owner);
    let flags = if is_followed { owner.flags } else { owner.flags | flags::UNFOLLOWED };
    if flags & (flags::HEARD | flags::PREEXISTING | flags::TALKED | flags::UNFOLLOWED) != 0 {
        let owner = Owner { flags, sent, received, ..owner };
        let told = Told { remote: Some(destination), ..Told::new(SocketKind::Attempt, key, owner) };
        let _ = tell_on(socket, told);
    }
}

/// A datagram is to go to a destination that the call names.
#[inline(always)]
pub fn datagram_goes<T: Pointee>(socket: *const T, key: u64, destination: Destination) {
    let destination = reached(destination);
    let flow = FlowKey { cookie: key, remote: destination.0, remote_port: u64::from(destination.1) };
    match owner_of(key) {
        // A connected socket, of which the call names the destination; of a mapped one the kernel does.
        Some(known) if known.flags & flags::CONNECTED != 0 && last(&known) == destination => return,
        Some(_) => {}
        None => {
            let Some(identity) = caller_or(|| datagrams_left_out(flow)) else { return };
            let owner = owned(identity, flags::DATAGRAM, destination);
            if !remember_new(key, owner) {
                lost(Loss::OwnersFull);
                return unfollowed(socket, key, owner, flow);
            }
        }
    }
    if !are_seen() && !begins(socket, key, flow, 0) {
        return;
    }
    aim(key, destination);
    let _ = TALKS.insert(thread(), flow, BPF_ANY as u64);
}

/// There is no room to follow it: told once.
#[inline(always)]
fn unfollowed<T: Pointee>(socket: *const T, key: u64, owner: Owner, flow: FlowKey) {
    if FLOWS.insert(flow, [0; 2], BPF_NOEXIST as u64).is_ok() {
        let owner = Owner { flags: owner.flags | flags::UNFOLLOWED, ..owner };
        let remote = Some(last(&owner));
        if !tell_on(socket, Told { remote, ..Told::new(SocketKind::Datagram, key, owner) }) {
            let _ = FLOWS.remove(flow);
        }
    }
}

/// An excluded process sends from a socket to a destination. Counted once, as it would be told.
#[inline(always)]
pub fn datagrams_left_out(flow: FlowKey) {
    if LEFT_OUT_FLOWS.insert(flow, 0, BPF_NOEXIST as u64).is_ok() {
        left_out(LeftOut::Datagrams);
    }
}

/// A datagram came to a socket, whose caller asked from where.
#[inline(always)]
pub fn datagram_came(key: u64, (remote, port): Destination) {
    let Some(owner) = owner_of(key) else { return };
    if owner.flags & (flags::DATAGRAM | flags::CONNECTED) == flags::DATAGRAM {
        let flow = FlowKey { cookie: key, remote, remote_port: u64::from(port) };
        let _ = TALKS.insert(thread(), flow, BPF_ANY as u64);
    }
}

/// A call that sends returned.
#[inline(always)]
pub fn sent(sk: Given, returned: i32) {
    exchanged(sk, returned, owner_words::SENT, 0);
}

/// The same, where only the thread is known: what it sends to was remembered.
#[inline(always)]
pub fn sent_by(thread: u64, returned: i32) {
    // SAFETY: nobody else looks for this thread's entry.
    let Some(flow) = unsafe { TALKS.get(thread) }.copied() else { return };
    let _ = TALKS.remove(thread);
    if returned >= 0 {
        let _ = count(flow, 0, returned as u64);
    }
}

/// A call that receives returned.
#[inline(always)]
pub fn received(sk: Given, returned: i32, flags: u32) {
    exchanged(sk, returned, owner_words::RECEIVED, flags);
}

#[inline(always)]
fn exchanged(sk: Given, returned: i32, place: usize, call_flags: u32) {
    let protocol: u16 = sk.get(Offset::SockProtocol).unwrap_or(0);
    if is_of_datagrams(u32::from(protocol)) {
        exchanged_by(sk, returned, place, call_flags);
    }
}

/// The same, of a socket of datagrams.
#[inline(always)]
pub fn exchanged_by(sk: Given, returned: i32, place: usize, call_flags: u32) {
    let Some(key) = sk.key() else { return };
    if words_of(key).is_none() && may_be_watched() && returned >= 0 {
        adopt(sk, key);
    }
    let Some(words) = words_of(key) else { return };
    let thread = thread();
    // SAFETY: nobody else looks for this thread's entry.
    let talk = unsafe { TALKS.get(thread) }.copied();
    if talk.is_some() {
        let _ = TALKS.remove(thread);
    }
    if returned < 0 || call_flags & PEEK != 0 {
        return;
    }
    let bytes = returned as u64;
    // SAFETY: the kernel returned a pointer to the value, which is this socket's as long as the call lasts.
    let known = unsafe { &*words };
    let socket = sk.address() as *const u8;
    let to_words = flags_of(known) & (flags::CONNECTED | flags::PREEXISTING) != 0;
    let flow = match talk {
        Some(flow) if flow.cookie == key => flow,
        // The rest of a datagram that is put together from several calls (`MSG_MORE`).
        _ if place == owner_words::SENT && !to_words => to_last(key, known),
        _ => {
            // SAFETY: as above, and `place` is within it.
            add(unsafe { &raw mut (*words)[place] }, bytes);
            return first(socket, key, words);
        }
    };
    let at = place - owner_words::SENT;
    if !count(flow, at, bytes) && begins(socket, key, flow, 0) {
        let _ = count(flow, at, bytes);
    }
}

/// A watched process uses a socket that somebody else opened.
#[inline(always)]
fn adopt(sk: Given, key: u64) {
    let destination = destination(sk.address());
    let connected = if destination.1 == 0 { 0 } else { flags::CONNECTED };
    if let Some(identity) = user() {
        let flags = flags::DATAGRAM | flags::INHERITED | connected;
        let _ = remember_new(key, owned(identity, flags, destination));
    }
}

/// Whether the flow was told before.
#[inline(always)]
pub fn count(flow: FlowKey, at: usize, bytes: u64) -> bool {
    let Some(counted) = FLOWS.get_ptr_mut(flow) else { return false };
    // SAFETY: the kernel returned a pointer to two words, and `at` is one of them.
    add(unsafe { &raw mut (*counted)[at & 1] }, bytes);
    true
}

/// The first datagram of an unconnected socket to or from there: it is the caller's, who may have the socket from
/// somebody else. Whether it is told.
#[inline(always)]
pub fn begins<T: Pointee>(socket: *const T, key: u64, flow: FlowKey, kind: u32) -> bool {
    // SAFETY: nothing but the presence is looked at.
    if unsafe { FLOWS.get(flow) }.is_some() {
        return true;
    }
    let Some(identity) = caller_or(|| datagrams_left_out(flow)) else { return false };
    let destination = (flow.remote, flow.remote_port as u16);
    let heard = owner_of(key).map_or(0, |known| known.flags & flags::HEARD);
    let owner = owned(identity, flags::DATAGRAM | flags::TALKED | kind | heard, destination);
    let told = Told { remote: Some(destination), ..Told::new(SocketKind::Datagram, key, owner) };
    // Otherwise it is told with its next datagram.
    let is_told = tell_on(socket, told);
    if is_told {
        mark(key, flags::TALKED);
        let _ = FLOWS.insert(flow, [0; 2], BPF_NOEXIST as u64);
    }
    is_told
}

/// The first datagram of a connected socket, or the first that came from nobody knows where; told once.
#[inline(always)]
fn first<T: Pointee>(socket: *const T, key: u64, words: *mut OwnerWords) {
    // SAFETY: the kernel returned a pointer to the value.
    let words = unsafe { &mut *words };
    let flags = flags_of(words);
    if flags & flags::TALKED != 0 || flags & (flags::CONNECTED | flags::PREEXISTING) == flags::PREEXISTING {
        return;
    }
    words[owner_words::FLAGS] |= u64::from(flags::TALKED);
    let owner = Owner::from_words(*words);
    let told = if flags & flags::CONNECTED != 0 {
        Told::new(SocketKind::Bound, key, owner)
    } else {
        Told { remote: Some(NOWHERE), ..Told::new(SocketKind::Datagram, key, owner) }
    };
    let _ = tell_on(socket, told);
}

/// What an unspecified destination stands for.
#[inline(always)]
fn reached((remote, port): Destination) -> Destination {
    if remote == mapped(0) {
        (mapped(u32::from_be_bytes([127, 0, 0, 1]).to_be()), port)
    } else if remote == [0; 16] {
        (bytes([0, 0, 0, 1_u32.to_be()]), port)
    } else {
        (remote, port)
    }
}

/// Where a socket is connected, or sent to last.
#[inline(always)]
pub fn last(owner: &Owner) -> Destination {
    // SAFETY: both are sixteen bytes, of which any are valid.
    (unsafe { core::mem::transmute::<[u64; 2], [u8; 16]>(owner.remote) }, owner.remote_port)
}

#[inline(always)]
fn to_last(key: u64, words: &OwnerWords) -> FlowKey {
    let (remote, port) = last(&Owner::from_words(*words));
    FlowKey { cookie: key, remote, remote_port: u64::from(port) }
}

/// Remembers where an unconnected socket sends to.
#[inline(always)]
pub fn aim(key: u64, (remote, port): Destination) {
    let Some(words) = words_of(key) else { return };
    // SAFETY: the kernel returned a pointer to the value; the remote end is two words of it, and the port the third
    // quarter of the one with the flags, which others change beside it.
    unsafe {
        if flags_of(&*words) & flags::CONNECTED == 0 {
            let remote = core::mem::transmute::<[u8; 16], [u64; 2]>(remote);
            (*words)[owner_words::REMOTE] = remote[0];
            (*words)[owner_words::REMOTE + 1] = remote[1];
            (&raw mut (*words)[owner_words::FLAGS]).cast::<u16>().add(2).write(port);
        }
    }
}
