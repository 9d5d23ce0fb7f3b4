//! Listeners, and what they accept. A connection comes to life in whatever context its last packet arrived; until
//! somebody accepts it, it is its listener's.

use aya_ebpf::bindings::BPF_NOEXIST;
use rano_common::{ListenerKey, ListenerWords, Loss, Offset, Owner, SocketKind, flags};

use crate::emit::now;
use crate::follow::{forget, mark, owned, owner_of, remember, tell_on};
use crate::maps::{ACCEPT_HOOKED, LISTENERS, lost};
use crate::socket::{Given, IPPROTO_TCP, Pointee, Told, draft};
use crate::task::caller;

/// Of a connection that was given to whoever accepts.
const ACCEPTED: u32 = flags::ACCEPTED | flags::TOLD | flags::LIMITED;
const NOWHERE: ([u8; 16], u16) = ([0; 16], 0);

/// TCP listens, or a datagram socket was bound; in the caller's context. `kind` is [`flags::DATAGRAM`] of the latter.
#[inline(always)]
pub fn listens<T: Pointee>(socket: *const T, key: u64, kind: u32) {
    let Some(identity) = caller() else { return };
    let owner = owned(identity, flags::LISTENER | kind, NOWHERE);
    remember(key, owner);
    let Some(mut draft) = draft(socket, Told::new(SocketKind::Listening, key, owner)) else { return };
    if kind == 0 {
        let place = draft.place();
        add(place, [key, owner.start_ns, u64::from(owner.pid) | u64::from(owner.exec_id) << 32]);
    }
    draft.tell();
    mark(key, flags::HEARD);
}

#[inline(always)]
fn add(place: ListenerKey, words: ListenerWords) {
    // SAFETY: several at one place (SO_REUSEPORT) are an ambiguity in whatever order they come.
    match unsafe { LISTENERS.get(place) } {
        Some(known) if known[1] == words[1] && known[2] == words[2] => {}
        Some(_) => {
            let _ = LISTENERS.insert(place, [0; 3], 0);
        }
        None => {
            if LISTENERS.insert(place, words, BPF_NOEXIST as u64).is_err() {
                lost(Loss::ListenersFull);
            }
        }
    }
}

/// A handshake that the other side began is done, in any context. Whether the socket is followed.
#[inline(always)]
pub fn arrived<T: Pointee>(socket: *const T, key: u64) -> bool {
    let nobody = Owner {
        start_ns: 0,
        established_ns: now(),
        pid: 0,
        exec_id: 0,
        flags: flags::ACCEPTED,
        remote: [0; 2],
        remote_port: 0,
        sent: 0,
        received: 0,
    };
    let Some(mut draft) = draft(socket, Told::new(SocketKind::Accepted, key, nobody)) else { return false };
    let place = draft.place();
    let any = ListenerKey { local: [0; 16], ..place };
    // SAFETY: a value is written once and read whole; one that is replaced meanwhile is of no socket.
    let found = unsafe { LISTENERS.get(place).or_else(|| LISTENERS.get(any)) };
    let Some(&[_, start_ns, who]) = found else {
        draft.discard();
        return false;
    };
    if who as u32 == 0 {
        lost(Loss::ListenersShared);
        draft.discard();
        return false;
    }
    let hooked = ACCEPT_HOOKED.get(0).is_some_and(|hooked| *hooked != 0);
    let told = if hooked { 0 } else { flags::TOLD };
    let owner = Owner {
        start_ns,
        pid: who as u32,
        exec_id: (who >> 32) as u32,
        flags: flags::ACCEPTED | flags::INHERITED | flags::LIMITED | told,
        ..nobody
    };
    remember(key, owner);
    if hooked {
        draft.discard();
    } else {
        draft.give_to(owner);
        draft.tell();
        mark(key, flags::HEARD);
    }
    true
}

/// A socket is given to whoever called `accept`, in their context.
#[inline(always)]
pub fn accepted(sk: Given) {
    if sk.address() == 0 || sk.get::<u16>(Offset::SockProtocol) != Some(u16::from(IPPROTO_TCP)) {
        return;
    }
    let Some(key) = sk.key() else { return };
    let before = owner_of(key);
    let Some(identity) = caller() else {
        if let Some(before) = before {
            forget(key, before);
        }
        return;
    };
    let established_ns = before.map_or_else(now, |before| before.established_ns);
    let owner = Owner { established_ns, ..owned(identity, ACCEPTED, NOWHERE) };
    remember(key, owner);
    let _ = tell_on(sk.address() as *const u8, Told::new(SocketKind::Accepted, key, owner));
}
