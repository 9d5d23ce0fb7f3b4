//! Children that the C library has no call for.

use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU32, Ordering};

use anyhow::{Result, bail};

use super::{Said, connect, end_after, say};

/// What a child with the same memory does, by system calls alone.
extern "C" fn connect_in_shared_memory(argument: *mut libc::c_void) -> libc::c_int {
    // SAFETY: it is the value below, which outlives the child.
    let shared = unsafe { &*argument.cast::<Shared>() };
    let mut own = shared.to;
    let mut length = SOCKADDR_IN;
    // SAFETY: it takes numbers.
    let socket = unsafe { libc::socket(libc::AF_INET, libc::SOCK_STREAM, 0) };
    // SAFETY: the address outlives the call, which is told its length.
    let connected = unsafe { libc::connect(socket, (&raw const shared.to).cast(), length) };
    // SAFETY: as above, for both.
    let known = unsafe { libc::getsockname(socket, (&raw mut own).cast(), &raw mut length) };
    if (connected, known) != (0, 0) {
        return 1;
    }
    shared.port.store(u16::from_be(own.sin_port).into(), Ordering::Release);
    let mut byte = 0_u8;
    // SAFETY: there is room for one byte.
    while unsafe { libc::read(0, (&raw mut byte).cast(), 1) } > 0 {}
    0
}

#[expect(clippy::cast_possible_truncation, reason = "it is 16")]
const SOCKADDR_IN: libc::socklen_t = size_of::<libc::sockaddr_in>() as libc::socklen_t;

struct Shared {
    to: libc::sockaddr_in,
    port: AtomicU32,
}

pub(super) fn shared_memory(to: SocketAddr) -> Result<()> {
    let SocketAddr::V4(to) = to else { bail!("an IPv4 address") };
    let to = libc::sockaddr_in {
        sin_family: libc::sa_family_t::try_from(libc::AF_INET)?,
        sin_port: to.port().to_be(),
        sin_addr: libc::in_addr { s_addr: u32::from_ne_bytes(to.ip().octets()) },
        sin_zero: [0; 8],
    };
    // Both outlive the child, which ends before this process does.
    let shared: &'static Shared = Box::leak(Box::new(Shared { to, port: AtomicU32::new(0) }));
    let stack: &'static mut [u8] = Box::leak(vec![0; 64 * 1024].into_boxed_slice());
    let top = stack.as_mut_ptr_range().end;
    let flags = libc::CLONE_VM | libc::SIGCHLD;
    let argument = std::ptr::from_ref(shared).cast_mut().cast();
    // SAFETY: the child has a stack of its own, aligned by the C library, and makes only system calls.
    let child = unsafe { libc::clone(connect_in_shared_memory, top.cast(), flags, argument) };
    let pid = u32::try_from(child).map_err(|_| io::Error::last_os_error())?;
    while shared.port.load(Ordering::Acquire) == 0 {
        std::thread::yield_now();
    }
    let port = u16::try_from(shared.port.load(Ordering::Acquire))?;
    say(&Said::Connected { pid, port });
    say(&Said::Done);
    Ok(())
}

/// `struct clone_args` of clone3(2), up to what is used.
#[repr(C)]
#[derive(Default)]
struct CloneArguments {
    flags: u64,
    pidfd: u64,
    child_tid: u64,
    parent_tid: u64,
    exit_signal: u64,
    stack: u64,
    stack_size: u64,
    tls: u64,
    set_tid: u64,
    set_tid_size: u64,
}

pub(super) fn chosen_pid(to: SocketAddr) -> Result<()> {
    // Far from those that are handed out next.
    for wanted in (2000..30_000).rev().step_by(997) {
        let wanted: libc::pid_t = wanted;
        let arguments = CloneArguments {
            flags: u64::try_from(libc::CLONE_PARENT)?,
            // With CLONE_PARENT it is the forker's.
            exit_signal: 0,
            set_tid: (&raw const wanted) as u64,
            set_tid_size: 1,
            ..CloneArguments::default()
        };
        // SAFETY: as fork(2); the arguments outlive the call, which is told their length.
        let child =
            unsafe { libc::syscall(libc::SYS_clone3, &raw const arguments, size_of::<CloneArguments>()) };
        match child {
            0 => end_after(move || connect(to)),
            -1 => match io::Error::last_os_error().raw_os_error() {
                Some(libc::EEXIST) => {}
                Some(libc::EPERM | libc::ENOSYS | libc::E2BIG | libc::EINVAL) => {
                    say(&Said::Refused("no pid may be chosen".to_owned()));
                    return Ok(());
                }
                _ => return Err(io::Error::last_os_error().into()),
            },
            _ => return Ok(()),
        }
    }
    say(&Said::Refused("no pid was free".to_owned()));
    Ok(())
}
