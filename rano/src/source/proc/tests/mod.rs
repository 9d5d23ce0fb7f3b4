//! Real sockets in network namespaces that the tests make, and every malformed message.

mod closing;
mod destroy;
mod dumps;
mod gate;
mod malformed;
mod measure;

use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

/// Runs `test` on a thread in a network namespace of its own, its loopback up. Needs root; says so if it cannot.
fn in_namespace(test: impl FnOnce() + Send) {
    std::thread::scope(|scope| {
        let worker = scope.spawn(|| {
            // SAFETY: a network namespace of its own changes nothing that other code of this thread relies on.
            let made = unsafe { rustix::thread::unshare_unsafe(rustix::thread::UnshareFlags::NEWNET) };
            if let Err(error) = made {
                println!("not run: a network namespace cannot be made here: {error}");
                return;
            }
            loopback_up();
            test();
        });
        worker.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
    });
}

fn loopback_up() {
    // Any socket will do; the end of one that is not IP is not told of.
    let socket = std::os::unix::net::UnixDatagram::unbound().unwrap();
    // SAFETY: all zeros is a valid `ifreq`, a struct of plain integers and arrays.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    for (to, from) in request.ifr_name.iter_mut().zip(b"lo") {
        *to = libc::c_char::try_from(*from).unwrap();
    }
    request.ifr_ifru.ifru_flags = libc::c_short::try_from(libc::IFF_UP).unwrap();
    let fd = std::os::fd::AsRawFd::as_raw_fd(&socket);
    // SAFETY: SIOCSIFFLAGS reads a whole `ifreq`, which the pointer leads to.
    let result = unsafe { libc::ioctl(fd, libc::SIOCSIFFLAGS, &raw const request) };
    assert_eq!(result, 0, "bring lo up: {}", std::io::Error::last_os_error());
}

/// Asks again and again until there is an answer; panics after 50 seconds, which only a machine with much else to do
/// comes near, and which is less than the kernel keeps a half-closed connection of nobody (`tcp_fin_timeout`, 60 s).
fn wait_for<T>(what: &str, mut ask: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + Duration::from_secs(50);
    loop {
        if let Some(answer) = ask() {
            return answer;
        }
        assert!(Instant::now() < deadline, "waited in vain for {what}");
        std::thread::yield_now();
    }
}

/// Makes the calling thread, and those it starts, an ordinary user's.
fn become_ordinary_user() {
    rustix::thread::set_thread_uid(rustix::process::Uid::from_raw(61_234)).unwrap();
}

/// The two ends of a new connection: connecting, accepting.
fn pair(listener: &TcpListener) -> (TcpStream, TcpStream) {
    let connecting = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let (accepting, _) = listener.accept().unwrap();
    (connecting, accepting)
}

/// `request` bytes one way, then `response` bytes back.
fn exchange_once(one: &mut TcpStream, other: &mut TcpStream, request: usize, response: usize) {
    std::thread::scope(|scope| {
        let reader = scope.spawn(|| {
            other.read_exact(&mut vec![0; request]).unwrap();
            other.write_all(&vec![1; response]).unwrap();
        });
        one.write_all(&vec![2; request]).unwrap();
        one.read_exact(&mut vec![0; response]).unwrap();
        reader.join().unwrap();
    });
}

fn inode(socket: &impl AsFd) -> u64 {
    rustix::fs::fstat(socket).unwrap().st_ino
}

/// Enough for 20,000 sockets, as far as it is allowed.
fn raise_descriptor_limit() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let enough = Some(1 << 16);
    let limit = getrlimit(Resource::Nofile);
    let _ = setrlimit(Resource::Nofile, Rlimit { current: enough, maximum: limit.maximum.max(enough) })
        .or_else(|_| setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit }));
}
