//! What is done for a socket, whichever hook it comes from: the owner is remembered where the call runs in the
//! process's own context, and what follows in any context finds it by the socket.

use core::intrinsics::{AtomicOrdering, atomic_xadd};

use aya_ebpf::bindings::{BPF_EXIST, BPF_NOEXIST};
use rano_common::{Loss, Owner, OwnerWords, Setting, SocketKind, flags, group, owner_words};

use crate::datagrams::are_seen;
use crate::emit::now;
use crate::log;
use crate::maps::{FOLLOWED, FOLLOWED_OLDER, LIMITED, LISTENERS, OWNERS, lost, setting};
use crate::socket::{Destination, Given, Pointee, Told, draft, tell};
use crate::task::Identity;

/// `EINPROGRESS`: neither success nor failure.
const IN_PROGRESS: i32 = -115;

#[inline(always)]
pub fn owned(identity: Identity, flags: u32, (remote, remote_port): Destination) -> Owner {
    let flags = if identity.is_undecided { flags | flags::LIMITED } else { flags };
    Owner {
        start_ns: identity.start_ns,
        established_ns: 0,
        pid: identity.pid,
        exec_id: identity.exec_id,
        flags,
        // SAFETY: both are sixteen bytes, of which any are valid.
        remote: unsafe { core::mem::transmute::<[u8; 16], [u64; 2]>(remote) },
        remote_port,
        sent: 0,
        received: 0,
    }
}

/// Whether it is followed from now on; otherwise there was no room, which is counted.
#[inline(always)]
pub fn remember(key: u64, owner: Owner) -> bool {
    if remember_new(key, owner) {
        return true;
    }
    if let Some(known) = OWNERS.get_ptr_mut(key) {
        // It stays counted among the others as it was.
        // SAFETY: the kernel returned a pointer to the value.
        let limited = unsafe { (*known)[owner_words::FLAGS] } as u32 & flags::LIMITED;
        let owner = Owner { flags: owner.flags & !flags::LIMITED | limited, ..owner };
        if OWNERS.insert(key, owner.to_words(), BPF_EXIST as u64).is_ok() {
            return true;
        }
    }
    lost(Loss::OwnersFull);
    false
}

/// Unless it has an owner, or there is no room.
#[inline(always)]
pub fn remember_new(key: u64, owner: Owner) -> bool {
    let is_limited = owner.flags & flags::LIMITED != 0;
    if is_limited && !has_room_for_limited() {
        return false;
    }
    // Before: whoever finds it counted may look in vain, the other way round it would be missed.
    count(key, 1);
    let is_new = OWNERS.insert(key, owner.to_words(), BPF_NOEXIST as u64).is_ok();
    if !is_new {
        count(key, u64::MAX);
    } else if is_limited {
        count_limited(1);
    }
    if is_new {
        log::owner(key, owner.pid, owner.flags);
    }
    is_new
}

/// Whoever is not judged yet may be anybody, and so may be whose packet opened a connection.
#[inline(always)]
fn has_room_for_limited() -> bool {
    LIMITED.get(0).is_some_and(|count| *count < u64::from(setting(Setting::LimitedMax)))
}

#[inline(always)]
fn count_limited(more: u64) {
    if let Some(count) = LIMITED.get_ptr_mut(0) {
        add(count, more);
    }
}

/// `owner` is who it was.
#[inline(always)]
pub fn forget(key: u64, owner: Owner) {
    if OWNERS.remove(key).is_ok() {
        count(key, u64::MAX);
        if owner.flags & flags::LIMITED != 0 {
            count_limited(u64::MAX);
        }
    }
}

#[inline(always)]
fn count(key: u64, more: u64) {
    if let Some(count) = FOLLOWED.get_ptr_mut(group(key)) {
        add(count, more);
    }
}

/// Whether to look for an owner: of most sockets there is none, and the look would be for memory that nobody touched
/// lately.
#[inline(always)]
fn may_have_owner(key: u64) -> bool {
    let group = group(key);
    FOLLOWED.get(group).is_some_and(|count| *count != 0)
        || FOLLOWED_OLDER.get(group).is_some_and(|mark| *mark != 0)
}

#[inline(always)]
pub fn has_owner(key: u64) -> bool {
    // SAFETY: nothing but the presence is looked at.
    may_have_owner(key) && unsafe { OWNERS.get(key) }.is_some()
}

#[inline(always)]
pub fn owner_of(key: u64) -> Option<Owner> {
    if !may_have_owner(key) {
        return None;
    }
    // SAFETY: an entry belongs to one socket, whose calls come one after another.
    unsafe { OWNERS.get(key) }.map(|words| Owner::from_words(*words))
}

#[inline(always)]
pub fn words_of(key: u64) -> Option<*mut OwnerWords> {
    if may_have_owner(key) { OWNERS.get_ptr_mut(key) } else { None }
}

/// Sets flags of a socket that is followed.
#[inline(always)]
pub fn mark(key: u64, flags: u32) {
    if let Some(words) = words_of(key) {
        // SAFETY: the kernel returned a pointer to the value.
        unsafe { (*words)[owner_words::FLAGS] |= u64::from(flags) };
    }
}

/// Tells of a socket that is followed, and remembers that somebody heard of it.
#[inline(always)]
pub fn tell_on<T: Pointee>(socket: *const T, told: Told) -> bool {
    let is_told = tell(socket, told);
    if is_told && told.owner.flags & flags::HEARD == 0 {
        mark(told.cookie, flags::HEARD);
    }
    is_told
}

/// Tells the last of a socket. Before it is forgotten: whoever finds that nobody follows it any more knows that its
/// last record is in the ring, or counted as lost.
#[inline(always)]
fn tell_end<T: Pointee>(socket: *const T, told: Told) {
    if !tell(socket, told) {
        unheard(told.owner);
    }
}

/// The last of a socket could not be told.
#[inline(always)]
fn unheard(owner: Owner) {
    if owner.flags & (flags::HEARD | flags::PREEXISTING | flags::LISTENER | flags::ADOPTED) == 0 {
        lost(Loss::Unheard);
    }
}

/// TCP is about to connect, and how the call ends is not known yet.
#[inline(always)]
pub fn stream_begins<T: Pointee>(socket: *const T, key: u64, identity: Identity, destination: Destination) {
    if let Some(before) = owner_of(key)
        && before.flags & (flags::ATTEMPTED | flags::DATAGRAM | flags::PREEXISTING | flags::LISTENER) == 0
    {
        // The same socket tried before and got nowhere.
        tell_end(
            socket,
            Told {
                error: Some(0),
                remote: Some(tried(before)),
                ..Told::new(SocketKind::Failed, key, before)
            },
        );
    }
    begin(socket, key, identity, destination);
}

/// Follows a socket that connects. That it was opened is told at once if there is no room for more.
#[inline(always)]
pub fn begin<T: Pointee>(socket: *const T, key: u64, identity: Identity, destination: Destination) {
    let owner = owned(identity, 0, destination);
    if !remember(key, owner) {
        let owner = Owner { flags: owner.flags | flags::UNFOLLOWED, ..owner };
        tell(socket, Told { remote: Some(destination), ..Told::new(SocketKind::Attempt, key, owner) });
    }
}

#[inline(always)]
pub fn add(to: *mut u64, bytes: u64) {
    // SAFETY: it points to an aligned word of a map; several CPUs may add at once. What it was before is not asked for:
    // kernels before 5.12 cannot say.
    unsafe { atomic_xadd::<u64, u64, { AtomicOrdering::Relaxed }>(to, bytes) };
}

/// Without reading the rest of it.
#[inline(always)]
pub fn flags_of(words: &OwnerWords) -> u32 {
    words[owner_words::FLAGS] as u32
}

/// Where an attempt went, of which the socket itself does not know.
#[inline(always)]
fn tried(owner: Owner) -> Destination {
    // SAFETY: both are sixteen bytes, of which any are valid.
    (unsafe { core::mem::transmute::<[u64; 2], [u8; 16]>(owner.remote) }, owner.remote_port)
}

/// A call that connects returned. Whether the socket is followed.
#[inline(always)]
pub fn connect_returned(sk: Given, key: u64, returned: i32) -> bool {
    let Some(words) = words_of(key) else { return false };
    if returned == 0 {
        return true;
    }
    // SAFETY: the kernel returned a pointer to the value, which is this socket's as long as the call lasts.
    let words = unsafe { &mut *words };
    if flags_of(words) & flags::DATAGRAM != 0 && are_seen() {
        // Nothing was sent, and nothing was told.
        words[owner_words::FLAGS] &= !u64::from(flags::CONNECTED);
        return true;
    }
    let words = *words;
    if flags_of(&words) & flags::ATTEMPTED == 0 {
        // What was attempted tells of its end itself.
        connect_failed(sk, key, Owner::from_words(words), returned);
    }
    true
}

#[inline(always)]
pub fn connect_failed(sk: Given, key: u64, owner: Owner, returned: i32) {
    if returned >= 0 || returned == IN_PROGRESS {
        return;
    }
    let error = Some(returned.unsigned_abs());
    tell_end(
        sk.address() as *const u8,
        Told { error, remote: Some(tried(owner)), ..Told::new(SocketKind::Failed, key, owner) },
    );
    if owner.flags & flags::LISTENER == 0 {
        forget(key, owner);
    }
}

/// The SYN is about to be sent, in the caller's context. Whether the socket is followed.
#[inline(always)]
pub fn attempted<T: Pointee>(socket: *const T, key: u64) -> bool {
    let Some(words) = words_of(key) else {
        log::skipped(key);
        return false;
    };
    // SAFETY: the kernel returned a pointer to the value, which is this socket's as long as the call lasts.
    let words = unsafe { &mut *words };
    if flags_of(words) & flags::ATTEMPTED == 0 {
        words[owner_words::FLAGS] |= u64::from(flags::ATTEMPTED);
        let owner = Owner::from_words(*words);
        if tell(socket, Told::new(SocketKind::Attempt, key, owner)) {
            words[owner_words::FLAGS] |= u64::from(flags::HEARD);
        }
    }
    true
}

#[inline(always)]
pub fn established<T: Pointee>(socket: *const T, key: u64) {
    let Some(words) = words_of(key) else { return };
    // SAFETY: the kernel returned a pointer to the value.
    let owner = unsafe {
        (*words)[owner_words::ESTABLISHED] = now();
        Owner::from_words(*words)
    };
    let _ = tell_on(socket, Told::new(SocketKind::Established, key, owner));
}

/// The state became `CLOSE`.
#[inline(always)]
pub fn closed<T: Pointee>(socket: *const T, key: u64, state_before: u8) {
    let Some(owner) = owner_of(key) else { return };
    tell_end(socket, Told { state_before, ..Told::new(SocketKind::Closed, key, owner) });
    forget(key, owner);
}

/// The last descriptor is closed; the protocol's own close comes after. What was attempted will tell of its end itself.
#[inline(always)]
pub fn released<T: Pointee>(socket: *const T, key: u64) {
    let Some(words) = words_of(key) else { return };
    // SAFETY: the kernel returned a pointer to the value.
    let words = unsafe { &*words };
    if flags_of(words) & flags::ATTEMPTED != 0 {
        return;
    }
    let owner = Owner::from_words(*words);
    let told = flags::HEARD | flags::TALKED | flags::PREEXISTING | flags::LISTENER;
    if owner.flags & (flags::DATAGRAM | told) != flags::DATAGRAM {
        tell_release(socket, key, owner);
    }
    forget(key, owner);
}

#[inline(always)]
fn tell_release<T: Pointee>(socket: *const T, key: u64, owner: Owner) {
    let is_attempt =
        owner.flags & (flags::DATAGRAM | flags::PREEXISTING | flags::ACCEPTED | flags::LISTENER) == 0;
    // Nobody heard of the first destination, and it may have been the only one.
    let told = flags::CONNECTED | flags::HEARD | flags::PREEXISTING | flags::LISTENER;
    let is_unheard_flow = owner.flags & (flags::DATAGRAM | told) == flags::DATAGRAM;
    let remote = if is_attempt || is_unheard_flow { Some(tried(owner)) } else { None };
    let Some(mut draft) = draft(socket, Told { remote, ..Told::new(SocketKind::Released, key, owner) })
    else {
        return unheard(owner);
    };
    if owner.flags & (flags::LISTENER | flags::DATAGRAM) == flags::LISTENER {
        let place = draft.place();
        // SAFETY: nothing but the cookie is looked at.
        if unsafe { LISTENERS.get(place) }.is_some_and(|words| words[0] == key) {
            let _ = LISTENERS.remove(place);
        }
    }
    draft.tell();
}

/// A number that is there on every way that leads here. Otherwise the compiler may keep it in a place on the stack that
/// was not written where nobody needs it, and read that place before it decides; the verifier before 5.18 refuses that.
#[inline(always)]
pub fn settled(number: u64) -> u64 {
    // SAFETY: it is a number on the stack.
    unsafe { core::ptr::read_volatile(&raw const number) }
}
