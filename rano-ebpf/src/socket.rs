//! What is told of a socket, read from `struct sock` at the places that the running kernel's BTF gives.

use core::mem::MaybeUninit;

use aya_ebpf::bindings::bpf_sock;
use aya_ebpf::helpers;
use aya_ebpf::helpers::generated::{bpf_probe_read_kernel, bpf_skc_to_tcp_sock};
use aya_ebpf::maps::ring_buf::RingBufEntry;
use rano_common::{Header, ListenerKey, Loss, Offset, Owner, Setting, SocketKind, SocketRecord, flags};

use crate::emit::{Share, discard, now, reserve, submit};
use crate::log;
use crate::maps::{lost, offset, setting};
use crate::task::{field, read};

pub const AF_INET6: u16 = 10;
/// `1 << SOCK_DONE` (`enum sock_flags` in include/net/sock.h): `tcp_fin()` was here.
const SOCK_DONE: u64 = 1 << 1;
pub const IPPROTO_TCP: u8 = 6;
pub const IPPROTO_UDP: u8 = 17;
pub const IPPROTO_UDPLITE: u8 = 136;

/// Address and port; IPv4 as its mapped IPv6 address.
pub type Destination = ([u8; 16], u16);

/// What the hook knows of the socket besides what is in it.
#[derive(Clone, Copy)]
pub struct Told {
    pub kind: SocketKind,
    pub cookie: u64,
    pub owner: Owner,
    /// TCP state before `Closed`.
    pub state_before: u8,
    /// Else it is read from the socket.
    pub error: Option<u32>,
    /// Else it is read from the socket.
    pub remote: Option<Destination>,
}

impl Told {
    #[inline(always)]
    pub const fn new(kind: SocketKind, cookie: u64, owner: Owner) -> Self {
        Self { kind, cookie, owner, state_before: 0, error: None, remote: None }
    }

    #[inline(always)]
    fn share(&self) -> Share {
        let is_datagram = self.owner.flags & flags::DATAGRAM != 0;
        match self.kind {
            SocketKind::Closed => Share::END,
            SocketKind::Released | SocketKind::Failed if is_datagram => Share::DATAGRAM_END,
            SocketKind::Released | SocketKind::Failed => Share::END,
            SocketKind::Accepted => Share::ARRIVAL,
            SocketKind::Datagram | SocketKind::Bound => Share::DATAGRAM,
            SocketKind::Attempt | SocketKind::Established | SocketKind::Listening if is_datagram => {
                Share::DATAGRAM
            }
            SocketKind::Attempt | SocketKind::Established | SocketKind::Listening => Share::BEGINNING,
        }
    }
}

/// A record that is filled but not told yet.
pub struct Draft {
    room: RingBufEntry<SocketRecord>,
}

impl Draft {
    #[inline(always)]
    pub fn tell(self) {
        submit(self.room);
    }

    #[inline(always)]
    pub fn discard(self) {
        discard(self.room);
    }

    /// Where the socket is, as a listener.
    #[inline(always)]
    pub fn place(&mut self) -> ListenerKey {
        // SAFETY: every field was written.
        let record = unsafe { &*self.room.as_ptr() };
        ListenerKey {
            netns: record.netns,
            port: record.local_port,
            family: record.family,
            local: record.local,
        }
    }

    /// Gives it to another owner.
    #[inline(always)]
    pub fn give_to(&mut self, owner: Owner) {
        let record = self.room.as_mut_ptr();
        // SAFETY: it points to a filled record.
        unsafe {
            (*record).owner_start_ns = owner.start_ns;
            (*record).established_ns = owner.established_ns;
            (*record).pid = owner.pid;
            (*record).exec_id = owner.exec_id;
            (*record).flags = owner.flags;
        }
    }
}

/// A socket that a program is called with.
#[derive(Clone, Copy)]
pub enum Given {
    /// Where it is.
    Address(usize),
    /// The verifier knows its type: what is read of it takes no call.
    Typed(usize),
}

impl Given {
    #[inline(always)]
    pub fn address(self) -> usize {
        match self {
            Self::Address(sk) | Self::Typed(sk) => sk,
        }
    }

    #[inline(always)]
    pub fn get<T>(self, of: Offset) -> Option<T> {
        match self {
            Self::Address(sk) => read(sk, of),
            // SAFETY: the verifier knows the structure, and that the field is where it is.
            Self::Typed(sk) => Some(unsafe { field(sk as *const u8, of) }),
        }
    }

    /// Its address as a number. Linux 5.10 refuses to reckon with a pointer whose type it knows, wherever it lay
    /// meanwhile, but not with what was read.
    #[inline(always)]
    fn number(self) -> Option<u64> {
        match self {
            Self::Address(sk) => Some(sk as u64),
            // SAFETY: what is read is on this stack.
            Self::Typed(sk) => {
                unsafe { helpers::bpf_probe_read_kernel(&raw const sk) }.ok().map(|sk| sk as u64)
            }
        }
    }

    /// By what a socket is known. `None`: nothing gave it a cookie, and so nobody follows it.
    #[inline(always)]
    pub fn key(self) -> Option<u64> {
        if setting(Setting::Alone) != 0 {
            return self.number();
        }
        self.get::<u64>(Offset::SockCookie).filter(|&cookie| cookie != 0)
    }
}

/// Tells of the socket to which the context has a pointer: `ctx.sk`, a `bpf_sock` context itself, or a plain address.
/// Whether there was room.
#[inline(always)]
pub fn tell<T: Pointee>(socket: *const T, told: Told) -> bool {
    match draft(socket, told) {
        Some(draft) => {
            draft.tell();
            log::told(told.cookie, told.kind);
            true
        }
        None => false,
    }
}

/// The verifier forbids arithmetic on a pointer from a context; one that has been through memory is a plain address
/// to it.
#[inline(always)]
pub fn draft<T: Pointee>(socket: *const T, told: Told) -> Option<Draft> {
    let Some(mut room) = reserve::<SocketRecord>(told.share()) else {
        lost(Loss::SocketRecord);
        return None;
    };
    let record = room.as_mut_ptr();
    if setting(Setting::TypedSocket) != 0 && T::IS_FULL && !socket.is_null() {
        // SAFETY: it is a socket, or the verifier refuses.
        let typed = unsafe { bpf_skc_to_tcp_sock(socket.cast_mut().cast()) }.cast_const();
        if !typed.is_null() {
            // SAFETY: `record` points to room for a record, of which every field is written before it is submitted.
            unsafe { fill_from_typed(record, typed.cast(), &told) };
            return Some(Draft { room });
        }
    }
    // SAFETY: as above.
    unsafe {
        let place = (&raw mut (*record).cookie).cast::<usize>();
        core::ptr::write_volatile(place.cast::<*const T>(), socket);
        let sk = core::ptr::read_volatile(place);
        fill_from_memory(record, sk, &told);
    }
    Some(Draft { room })
}

/// A pointer from a context as a plain address, which it is to the verifier once it has been through memory.
#[inline(always)]
pub fn address<T>(socket: *const T) -> usize {
    let mut place = 0_usize;
    // SAFETY: a pointer has the size of a number.
    unsafe {
        core::ptr::write_volatile((&raw mut place).cast::<*const T>(), socket);
        core::ptr::read_volatile(&raw const place)
    }
}

/// What a pointer to a socket points to, as the verifier has it.
pub trait Pointee {
    /// Always a TCP socket in full, of a context that lets it be had with its type.
    const IS_FULL: bool;
}

/// What `sock_ops` is about.
pub struct Full;

impl Pointee for Full {
    const IS_FULL: bool = true;
}

impl Pointee for bpf_sock {
    const IS_FULL: bool = false;
}

impl Pointee for u8 {
    const IS_FULL: bool = false;
}

/// Where fields of a socket are read.
trait Fields {
    fn get<T: Default>(&self, field: Offset) -> T;
    fn four_words(&self, field: Offset) -> [u32; 4];
    fn netns(&self) -> u32;
}

/// Memory of the kernel at an address. Addresses of IPv4, ports and the like lie side by side there, and are read at
/// once.
struct Memory {
    sk: usize,
    head: MaybeUninit<[u64; HEAD_WORDS]>,
}

/// Up to `skc_net`. What is behind that, or is in another kernel, is read by itself.
const HEAD_WORDS: usize = 7;

impl Memory {
    #[inline(always)]
    fn of(sk: usize) -> Self {
        let mut memory = Self { sk, head: MaybeUninit::uninit() };
        let length = size_of_val(&memory.head) as u32;
        // SAFETY: there is room for as many bytes; the helper checks the address, and leaves zeros where it is none.
        unsafe { bpf_probe_read_kernel(memory.head.as_mut_ptr().cast(), length, sk as *const _) };
        memory
    }
}

impl Fields for Memory {
    #[inline(always)]
    fn get<T: Default>(&self, field: Offset) -> T {
        let place = offset(field);
        if place + size_of::<T>() > size_of::<[u64; HEAD_WORDS]>() {
            return read(self.sk, field).unwrap_or_default();
        }
        // SAFETY: it lies within, as was just seen, all of which the helper wrote, and the kernel's fields are aligned;
        // every `T` here is a plain number or an array of them.
        unsafe { self.head.as_ptr().cast::<u8>().add(place).cast::<T>().read() }
    }

    #[inline(always)]
    fn four_words(&self, field: Offset) -> [u32; 4] {
        self.get(field)
    }

    #[inline(always)]
    fn netns(&self) -> u32 {
        read(self.get(Offset::SockNet), Offset::NetInode).unwrap_or(0)
    }
}

/// A `struct tcp_sock` of which the verifier knows the type: each field is one load.
struct Typed(*const u8);

impl Fields for Typed {
    #[inline(always)]
    fn get<T: Default>(&self, of: Offset) -> T {
        // SAFETY: the verifier knows the structure, and that the field is where it is.
        unsafe { field(self.0, of) }
    }

    #[inline(always)]
    fn four_words(&self, of: Offset) -> [u32; 4] {
        // SAFETY: as above, four times.
        [0, 4, 8, 12].map(|at| unsafe { field(self.0.add(at), of) })
    }

    #[inline(always)]
    fn netns(&self) -> u32 {
        // SAFETY: as above; the verifier knows to what the field points.
        unsafe { field(field::<*const u8>(self.0, Offset::SockNet), Offset::NetInode) }
    }
}

/// A program of its own: it is long, and called from many.
///
/// # Safety
/// `record` points to room for a record.
#[inline(never)]
unsafe fn fill_from_memory(record: *mut SocketRecord, sk: usize, told: &Told) {
    // SAFETY: the caller's promise.
    unsafe { fill(record, &Memory::of(sk), told) };
}

/// The same.
///
/// # Safety
/// `record` points to room for a record.
#[inline(never)]
unsafe fn fill_from_typed(record: *mut SocketRecord, sk: *const u8, told: &Told) {
    // SAFETY: the caller's promise.
    unsafe { fill(record, &Typed(sk), told) };
}

/// # Safety
/// `record` points to room for a record.
#[inline(always)]
unsafe fn fill(record: *mut SocketRecord, socket: &impl Fields, told: &Told) {
    let family: u16 = socket.get(Offset::SockFamily);
    let port: u16 = socket.get(Offset::SockRemotePort);
    let is_datagram = told.owner.flags & flags::DATAGRAM != 0;
    let address = |four, six| {
        bytes(if family == AF_INET6 { socket.four_words(six) } else { [socket.get(four), 0, 0, 0] })
    };
    // SAFETY: the caller's promise; each helper call checks the address it reads.
    unsafe {
        (*record).header =
            Header { kind: told.kind as u32, size: size_of::<SocketRecord>() as u32, at_ns: now() };
        (*record).cookie = told.cookie;
        (*record).owner_start_ns = told.owner.start_ns;
        (*record).established_ns = told.owner.established_ns;
        (*record).pid = told.owner.pid;
        (*record).exec_id = told.owner.exec_id;
        (*record).flags = told.owner.flags;
        (*record).netns = socket.netns();
        (*record).error = match told.error {
            Some(error) => error,
            None => socket.get(Offset::SockError),
        };
        (*record).local_port = socket.get(Offset::SockLocalPort);
        (*record).remote_port = u16::from_be(port);
        (*record).family = family;
        (*record).protocol =
            if is_datagram { socket.get::<u16>(Offset::SockProtocol) as u8 } else { IPPROTO_TCP };
        (*record).state_before = told.state_before;
        (*record).interface = if family == AF_INET6 { socket.get(Offset::SockInterface) } else { 0 };
        let kind = told.kind as u32;
        let is_end = kind == SocketKind::Closed as u32 || kind == SocketKind::Released as u32;
        let (sent, again, received): (u64, u64, u64) = if is_datagram {
            (told.owner.sent, 0, told.owner.received)
        } else if is_end {
            let state: u64 = socket.get(Offset::SockFlags);
            if state & SOCK_DONE != 0 {
                (*record).flags |= flags::FIN;
            }
            (
                socket.get(Offset::TcpBytesSent),
                socket.get(Offset::TcpBytesRetransmitted),
                socket.get(Offset::TcpBytesReceived),
            )
        } else {
            (0, 0, 0)
        };
        (*record).bytes_sent = sent.saturating_sub(again);
        (*record).bytes_received = received;
        (*record).local = address(Offset::SockLocal4, Offset::SockLocal6);
        match told.remote {
            Some((remote, port)) => {
                let four = words(remote)[3];
                (*record).remote = if family == AF_INET6 { remote } else { bytes([four, 0, 0, 0]) };
                (*record).remote_port = port;
            }
            None => (*record).remote = address(Offset::SockRemote4, Offset::SockRemote6),
        }
    }
}

/// The destination of a connected socket.
#[inline(always)]
pub fn destination(sk: usize) -> Destination {
    let family: u16 = read(sk, Offset::SockFamily).unwrap_or(0);
    let port: u16 = read(sk, Offset::SockRemotePort).unwrap_or(0);
    let remote = if family == AF_INET6 {
        read(sk, Offset::SockRemote6).unwrap_or([0; 16])
    } else {
        mapped(read(sk, Offset::SockRemote4).unwrap_or(0))
    };
    (remote, u16::from_be(port))
}

/// An IPv4 address in network byte order, as IPv6.
#[inline(always)]
pub fn mapped(four: u32) -> [u8; 16] {
    bytes([0, 0, 0xffff_u32.to_be(), four])
}

/// An address of words in network byte order.
#[inline(always)]
pub fn bytes(words: [u32; 4]) -> [u8; 16] {
    // SAFETY: both are sixteen bytes, of which any are valid.
    unsafe { core::mem::transmute::<[u32; 4], [u8; 16]>(words) }
}

#[inline(always)]
fn words(bytes: [u8; 16]) -> [u32; 4] {
    // SAFETY: as above.
    unsafe { core::mem::transmute::<[u8; 16], [u32; 4]>(bytes) }
}
