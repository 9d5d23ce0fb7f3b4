//! What is told of a socket, read from `struct sock` at the places that the running kernel's BTF gives.

use aya_ebpf::helpers::bpf_probe_read_kernel;
use rano_common::{Header, Loss, Offset, Owner, SocketKind, SocketRecord};

use crate::emit::{Batch, now};
use crate::maps::{lost, offset};
use crate::task::read;

const AF_INET6: u16 = 10;
pub const IPPROTO_TCP: u8 = 6;
pub const IPPROTO_UDP: u8 = 17;

/// What the hook knows of the socket besides what is in it.
#[derive(Clone, Copy)]
pub struct Told {
    pub kind: SocketKind,
    pub cookie: u64,
    pub owner: Owner,
    pub protocol: u8,
    /// TCP state before `Closed`.
    pub state_before: u8,
    /// Of the datagram; else it is read from the socket.
    pub remote: Option<([u8; 16], u16)>,
}

/// Tells of the socket to which the context has a pointer: `ctx.sk`, or a `bpf_sock` context itself. The verifier
/// forbids arithmetic on such a pointer; one that has been through memory is a plain address to it. Whether there was
/// room.
#[inline(always)]
pub fn tell<T>(socket: *const T, told: Told) -> bool {
    let batch = Batch::begin();
    let Some(mut room) = batch.reserve::<SocketRecord>() else {
        lost(Loss::SocketRecord);
        return false;
    };
    let record = room.as_mut_ptr();
    // SAFETY: `record` points to room for a record, of which every field is written before it is submitted.
    unsafe {
        let place = (&raw mut (*record).cookie).cast::<usize>();
        core::ptr::write_volatile(place.cast::<*const T>(), socket);
        let sk = core::ptr::read_volatile(place);
        fill(record, sk, &told);
    }
    batch.submit(room);
    true
}

/// # Safety
/// `record` points to room for a record.
#[inline(always)]
unsafe fn fill(record: *mut SocketRecord, sk: usize, told: &Told) {
    let family: u16 = read(sk, Offset::SockFamily).unwrap_or(0);
    let port: u16 = read(sk, Offset::SockRemotePort).unwrap_or(0);
    let tcp = told.protocol == IPPROTO_TCP;
    let net: usize = read(sk, Offset::SockNet).unwrap_or(0);
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
        (*record).netns = read(net, Offset::NetInode).unwrap_or(0);
        (*record).error = read(sk, Offset::SockError).unwrap_or(0);
        (*record).local_port = read(sk, Offset::SockLocalPort).unwrap_or(0);
        (*record).remote_port = u16::from_be(port);
        (*record).family = family;
        (*record).protocol = told.protocol;
        (*record).state_before = told.state_before;
        (*record).padding = 0;
        let counted = tcp && told.kind as u32 >= SocketKind::Closed as u32;
        let (sent, again, received): (u64, u64, u64) = if counted {
            (
                read(sk, Offset::TcpBytesSent).unwrap_or(0),
                read(sk, Offset::TcpBytesRetransmitted).unwrap_or(0),
                read(sk, Offset::TcpBytesReceived).unwrap_or(0),
            )
        } else {
            (0, 0, 0)
        };
        (*record).bytes_sent = sent.saturating_sub(again);
        (*record).bytes_received = received;
        (*record).local = address(sk, family, Offset::SockLocal4, Offset::SockLocal6);
        match told.remote {
            Some((remote, port)) => {
                (*record).remote = remote;
                (*record).remote_port = port;
            }
            None => (*record).remote = address(sk, family, Offset::SockRemote4, Offset::SockRemote6),
        }
    }
}

#[inline(always)]
fn address(sk: usize, family: u16, four: Offset, six: Offset) -> [u8; 16] {
    if family == AF_INET6 {
        return read(sk, six).unwrap_or([0; 16]);
    }
    // SAFETY: the helper checks the address.
    let four: [u8; 4] =
        unsafe { bpf_probe_read_kernel((sk + offset(four)) as *const [u8; 4]) }.unwrap_or([0; 4]);
    let mut all = [0; 16];
    all[0] = four[0];
    all[1] = four[1];
    all[2] = four[2];
    all[3] = four[3];
    all
}
