//! The system calls for which no safe wrapper exists, each behind one. None of them allocates or panics.

use std::ffi::{CString, c_int, c_long, c_void};
use std::os::fd::{AsRawFd as _, BorrowedFd, FromRawFd as _, OwnedFd};

use libc::{seccomp_notif, seccomp_notif_resp, sock_filter, sock_fprog};
use rustix::io::Errno;

/// `SECCOMP_IOCTL_NOTIF_*` (include/uapi/linux/seccomp.h).
const RECEIVE: u32 = 0xc050_2100;
const SEND: u32 = 0xc018_2101;
const ID_VALID: u32 = 0x4008_2102;
const SET_FLAGS: u32 = 0x4008_2104;
/// `SECCOMP_USER_NOTIF_FD_SYNC_WAKE_UP`
const SYNC_WAKE_UP: u64 = 1;
/// `SECCOMP_FILTER_FLAG_NEW_LISTENER`
const NEW_LISTENER: u32 = 1 << 3;
/// `SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV`, from Linux 5.19 on.
const WAIT_KILLABLE: u64 = 1 << 5;
/// `SO_NETNS_COOKIE`, from Linux 5.14 on.
const NETNS_COOKIE: c_int = 71;
/// Signals are numbered up to this.
const LAST_SIGNAL: c_int = 64;

#[allow(
    clippy::cast_lossless,
    clippy::cast_possible_wrap,
    reason = "the C libraries do not agree on the type of a request"
)]
fn request(number: u32) -> libc::Ioctl {
    number as libc::Ioctl
}

fn errno() -> Errno {
    Errno::from_io_error(&std::io::Error::last_os_error()).unwrap_or(Errno::IO)
}

fn check(result: c_long) -> Result<c_long, Errno> {
    if result == -1 { Err(errno()) } else { Ok(result) }
}

/// Puts the filter on this process and what it forks from now on. What it asks about is read from the answer. Without
/// `CAP_SYS_ADMIN` that takes `no_new_privs`, which is then set; the second answer is whether.
pub(super) fn install(program: &[sock_filter]) -> Result<(OwnedFd, bool), Errno> {
    if program.is_empty() {
        return Err(Errno::OPNOTSUPP);
    }
    match install_as_is(program) {
        Err(Errno::ACCESS) => {
            rustix::thread::set_no_new_privs(true)?;
            install_as_is(program).map(|listener| (listener, true))
        }
        installed => installed.map(|listener| (listener, false)),
    }
}

fn install_as_is(program: &[sock_filter]) -> Result<OwnedFd, Errno> {
    let flags = u64::from(NEW_LISTENER);
    match install_with(program, flags | WAIT_KILLABLE) {
        Err(Errno::INVAL) => install_with(program, flags),
        installed => installed,
    }
}

fn install_with(program: &[sock_filter], flags: u64) -> Result<OwnedFd, Errno> {
    let length = u16::try_from(program.len()).map_err(|_| Errno::TOOBIG)?;
    let program = sock_fprog { len: length, filter: program.as_ptr().cast_mut() };
    let mode = libc::SECCOMP_SET_MODE_FILTER;
    // SAFETY: the kernel reads the program, which is alive and as long as it says, and writes nothing.
    let result = unsafe { libc::syscall(libc::SYS_seccomp, mode, flags, &raw const program) };
    let descriptor = c_int::try_from(check(result)?).map_err(|_| Errno::BADF)?;
    // SAFETY: with NEW_LISTENER the call returns a new descriptor, which nobody else knows.
    Ok(unsafe { OwnedFd::from_raw_fd(descriptor) })
}

/// Whoever waits and whoever answers change places on one CPU, which saves most of the cost. From Linux 6.6 on.
pub(super) fn wake_up_in_place(listener: BorrowedFd<'_>) {
    // SAFETY: the argument is a number.
    let _ = unsafe { libc::ioctl(listener.as_raw_fd(), request(SET_FLAGS), SYNC_WAKE_UP) };
}

/// The next call that waits.
pub(super) fn receive(listener: BorrowedFd<'_>) -> Result<seccomp_notif, Errno> {
    // SAFETY: plain integers, of which the kernel demands that all are zero.
    let mut notification: seccomp_notif = unsafe { std::mem::zeroed() };
    // SAFETY: the kernel writes one `seccomp_notif`, whose size the request holds.
    let result = unsafe { libc::ioctl(listener.as_raw_fd(), request(RECEIVE), &raw mut notification) };
    check(c_long::from(result)).map(|_| notification)
}

/// Lets a call go on as it is.
pub(super) fn go_on(listener: BorrowedFd<'_>, id: u64) -> Result<(), Errno> {
    let flags = 1; // SECCOMP_USER_NOTIF_FLAG_CONTINUE
    let mut response = seccomp_notif_resp { id, val: 0, error: 0, flags };
    // SAFETY: the kernel reads one `seccomp_notif_resp`, whose size the request holds.
    let result = unsafe { libc::ioctl(listener.as_raw_fd(), request(SEND), &raw mut response) };
    check(c_long::from(result)).map(drop)
}

/// Whether the caller still waits: then its thread is the one that was asked about, and what was read was its own.
pub(super) fn still_waits(listener: BorrowedFd<'_>, id: u64) -> bool {
    // SAFETY: the kernel reads one integer of the size that the request holds.
    let result = unsafe { libc::ioctl(listener.as_raw_fd(), request(ID_VALID), &raw const id) };
    result == 0
}

/// Fills `into` from the memory of a thread's process, as far as that may be read; how many bytes.
pub(super) fn read_memory(thread: u32, address: u64, into: &mut [u8]) -> Result<usize, Errno> {
    let Ok(address) = usize::try_from(address) else { return Err(Errno::FAULT) };
    let local = libc::iovec { iov_base: into.as_mut_ptr().cast(), iov_len: into.len() };
    let remote = libc::iovec { iov_base: address as *mut c_void, iov_len: into.len() };
    let thread = libc::pid_t::try_from(thread).map_err(|_| Errno::SRCH)?;
    // SAFETY: the kernel writes at most as many bytes as `into` has; the other address is none of this process's.
    let read = unsafe { libc::process_vm_readv(thread, &raw const local, 1, &raw const remote, 1, 0) };
    usize::try_from(read).map_err(|_| errno())
}

/// What tells the network namespace of a socket from others.
pub(super) fn netns_cookie(socket: BorrowedFd<'_>) -> Result<u64, Errno> {
    let mut cookie = 0u64;
    let mut length: libc::socklen_t = 8;
    // SAFETY: the kernel writes at most `length` bytes, the size of the integer.
    let result = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            NETNS_COOKIE,
            (&raw mut cookie).cast(),
            &raw mut length,
        )
    };
    check(c_long::from(result)).map(|_| cookie)
}

/// A copy of this process; `None` in the copy. To be called while there is one thread only.
pub(super) fn fork() -> Result<Option<u32>, Errno> {
    // SAFETY: with one thread nobody holds a lock that the copy would wait for.
    let pid = unsafe { libc::fork() };
    match u32::try_from(pid) {
        Err(_) => Err(errno()),
        Ok(0) => Ok(None),
        Ok(pid) => Ok(Some(pid)),
    }
}

/// Ends this process at once, without what is left to be done for its parent.
pub(super) fn exit(code: c_int) -> ! {
    // SAFETY: it takes a number and does not return.
    unsafe { libc::_exit(code) }
}

/// The arguments of a program in the form that the kernel wants, its own name first.
pub(super) struct Arguments {
    /// What the pointers point to.
    _texts: Vec<CString>,
    pointers: Vec<*const libc::c_char>,
}

impl Arguments {
    pub(super) fn new(texts: Vec<CString>) -> Self {
        let pointers = texts.iter().map(|text| text.as_ptr()).chain([std::ptr::null()]).collect();
        Self { _texts: texts, pointers }
    }

    /// Becomes the program, which is looked for in `PATH`; returns why it does not.
    pub(super) fn execute(&self) -> Errno {
        let Some(&name) = self.pointers.first().filter(|name| !name.is_null()) else { return Errno::NOENT };
        // SAFETY: texts that end with NUL, and a null pointer behind the last; all are alive.
        unsafe { libc::execvp(name, self.pointers.as_ptr()) };
        errno()
    }
}

/// A program gets SIGPIPE as its parent would have given it: the standard library ignores it for itself.
pub(super) fn default_sigpipe() {
    // SAFETY: the default action is no function of ours.
    let _ = unsafe { libc::signal(libc::SIGPIPE, libc::SIG_DFL) };
}

/// Whatever can be ignored is, but for what tells of children.
pub(super) fn ignore_signals() {
    for signal in (1..=LAST_SIGNAL).filter(|&signal| signal != libc::SIGCHLD) {
        // SAFETY: ignoring is no function of ours. What cannot be ignored stays as it is.
        let _ = unsafe { libc::signal(signal, libc::SIG_IGN) };
    }
}

/// Stops this process, until somebody lets it go on: the calling thread does not get any further before.
pub(super) fn stand_still() {
    // SAFETY: the signal has no handler; it is sent to the calling thread.
    let _ = unsafe { libc::raise(libc::SIGSTOP) };
}

/// Signals that were blocked.
pub(super) struct Mask(libc::sigset_t);

/// Holds back SIGCHLD from now on.
pub(super) fn block_sigchld() -> Mask {
    // SAFETY: a set of signals is plain integers.
    let (mut set, mut before): (libc::sigset_t, libc::sigset_t) = unsafe { std::mem::zeroed() };
    // SAFETY: the set is alive.
    let _ = unsafe { libc::sigemptyset(&raw mut set) };
    // SAFETY: the set is alive, and the signal exists.
    let _ = unsafe { libc::sigaddset(&raw mut set, libc::SIGCHLD) };
    // SAFETY: both sets are alive.
    let _ = unsafe { libc::sigprocmask(libc::SIG_BLOCK, &raw const set, &raw mut before) };
    Mask(before)
}

impl Mask {
    /// As it was.
    pub(super) fn restore(&self) {
        // SAFETY: the set is alive, and the former one is not asked for.
        let _ = unsafe { libc::sigprocmask(libc::SIG_SETMASK, &raw const self.0, std::ptr::null_mut()) };
    }
}

/// Readable when a child has ended or stopped.
pub(super) fn sigchld_descriptor() -> Result<OwnedFd, Errno> {
    // SAFETY: a set of signals is plain integers.
    let mut set: libc::sigset_t = unsafe { std::mem::zeroed() };
    // SAFETY: the set is alive.
    let _ = unsafe { libc::sigemptyset(&raw mut set) };
    // SAFETY: the set is alive, and the signal exists.
    let _ = unsafe { libc::sigaddset(&raw mut set, libc::SIGCHLD) };
    // SAFETY: the set is alive; a new descriptor is asked for.
    let descriptor = unsafe { libc::signalfd(-1, &raw const set, libc::SFD_CLOEXEC | libc::SFD_NONBLOCK) };
    check(c_long::from(descriptor))?;
    // SAFETY: it is new, and nobody else knows it.
    Ok(unsafe { OwnedFd::from_raw_fd(descriptor) })
}

/// A child that ended, stopped or goes on, with its wait status; `None` while all go on. `ECHILD`: there is none.
pub(super) fn next_child() -> Result<Option<(u32, c_int)>, Errno> {
    let mut status = 0;
    // SAFETY: the kernel writes one integer.
    let pid =
        unsafe { libc::waitpid(-1, &raw mut status, libc::WNOHANG | libc::WUNTRACED | libc::WCONTINUED) };
    match u32::try_from(pid) {
        Err(_) => Err(errno()),
        Ok(0) => Ok(None),
        Ok(pid) => Ok(Some((pid, status))),
    }
}

/// Puts `/dev/null` in the place of standard input, output and error, and closes every other descriptor but those in
/// `kept`, which are ascending.
pub(super) fn let_go_of_descriptors(kept: &[BorrowedFd<'_>]) {
    if let Ok(nothing) = rustix::fs::open(c"/dev/null", rustix::fs::OFlags::RDWR, rustix::fs::Mode::empty()) {
        for standard in 0..3 {
            // SAFETY: what these numbers stood for is not used by this process from here on.
            let _ = unsafe { libc::dup2(nothing.as_raw_fd(), standard) };
        }
        if nothing.as_raw_fd() < 3 {
            std::mem::forget(nothing);
        }
    }
    let mut first = 3u32;
    for descriptor in kept.iter().filter_map(|kept| u32::try_from(kept.as_raw_fd()).ok()) {
        if first < descriptor {
            close_range(first, descriptor - 1);
        }
        first = first.max(descriptor.saturating_add(1));
    }
    close_range(first, u32::MAX);
}

fn close_range(first: u32, last: u32) {
    // SAFETY: nobody in this process uses what lies in between.
    let closed = unsafe { libc::syscall(libc::SYS_close_range, first, last, 0) };
    if closed == -1 {
        // Before Linux 5.9, or refused by a sandbox.
        for descriptor in first..=last.min(1024) {
            let Ok(descriptor) = c_int::try_from(descriptor) else { break };
            // SAFETY: as above.
            let _ = unsafe { libc::close(descriptor) };
        }
    }
}
