//! Where a program of a test runs: a network namespace that the test made, as root or as an ordinary user.

use std::io;
use std::net::{Ipv4Addr, UdpSocket};
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::os::unix::process::CommandExt as _;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use anyhow::{Context as _, Result};
use rustix::fs::{Mode, OFlags};
use rustix::process::{Gid, PidfdFlags, Resource, Rlimit, Signal, Uid};
use rustix::thread::{ThreadNameSpaceType, UnshareFlags};

use super::trial::skip;
use super::{actor, pid_of, stage, wait_for_end};

/// Users and groups that tests drop to begin here; they have no entry in passwd. Each place has its own, so that
/// tests which run at the same time cannot look into one another's processes.
const FIRST_ORDINARY_ID: u32 = 61_234;
static PLACES: AtomicU32 = AtomicU32::new(0);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum User {
    Root,
    Ordinary,
}

pub fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// A network namespace with nothing but `lo`, up. Lives as long as its holder process.
struct Namespace {
    holder: Child,
    /// The holder's; every process of the test enters the namespaces of this one.
    pidfd: OwnedFd,
}

impl Drop for Namespace {
    fn drop(&mut self) {
        // It ends when its standard input does.
        drop(self.holder.stdin.take());
        if !wait_for_end(&self.holder, super::PATIENCE).unwrap_or(false) {
            let _ = self.holder.kill();
        }
        let _ = self.holder.wait();
    }
}

/// A namespace and a user.
pub struct Place {
    namespace: Arc<Namespace>,
    user: User,
    ordinary_id: u32,
    /// Programs stay in the network that the test itself is in.
    beside: bool,
}

impl Place {
    /// Skips where the machine refuses the namespace, or root was asked for and we are not.
    pub fn new(user: User) -> Result<Self> {
        if user == User::Root && !is_root() {
            return Err(skip("needs root"));
        }
        let ordinary_id = FIRST_ORDINARY_ID + PLACES.fetch_add(1, Ordering::Relaxed);
        Ok(Self { namespace: Arc::new(hold_namespace(None)?), user, ordinary_id, beside: false })
    }

    /// The same namespace, as another user.
    pub fn with_user(&self, user: User) -> Self {
        Self {
            namespace: Arc::clone(&self.namespace),
            user,
            ordinary_id: self.ordinary_id,
            beside: self.beside,
        }
    }

    /// The same user in the network that the test itself is in, which the test can reach. Nothing observes there.
    pub fn beside_the_test(&self) -> Self {
        Self { beside: true, ..self.with_user(self.user) }
    }

    /// The same namespace, as the ordinary user of another place. As root only.
    pub fn as_ordinary(&self, ordinary_id: u32) -> Self {
        Self { namespace: Arc::clone(&self.namespace), user: User::Ordinary, ordinary_id, beside: false }
    }

    /// Makes all addresses of the class A network `ip` this machine's own, in this namespace. As root only.
    pub fn own_network(&self, ip: Ipv4Addr) -> Result<()> {
        let namespace = Arc::clone(&self.namespace);
        let set = std::thread::spawn(move || -> Result<()> {
            enter(namespace.pidfd.as_fd())?;
            add_to_loopback(Ipv4Addr::from(u32::from(ip) + 1)).context("add an address to lo")
        });
        set.join().map_err(|_| anyhow::anyhow!("the thread that adds an address failed"))?
    }

    /// Another network namespace for the same user.
    pub fn elsewhere(&self) -> Result<Self> {
        let namespace = Arc::new(hold_namespace(Some(Arc::clone(&self.namespace)))?);
        Ok(Self { namespace, user: self.user, ordinary_id: self.ordinary_id, beside: false })
    }

    /// Uid and gid of the processes that run here.
    pub fn ids(&self) -> (u32, u32) {
        match self.user {
            User::Root => (0, 0),
            User::Ordinary if is_root() => (self.ordinary_id, self.ordinary_id),
            User::Ordinary => (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw()),
        }
    }

    pub fn uid(&self) -> u32 {
        self.ids().0
    }

    /// A socket in the namespace for the test itself; as root only, because a thread cannot change its user namespace.
    pub fn udp_socket(&self, at: &str) -> Result<UdpSocket> {
        let (namespace, at) = (Arc::clone(&self.namespace), at.to_owned());
        let bound = std::thread::spawn(move || -> Result<UdpSocket> {
            enter(namespace.pidfd.as_fd())?;
            UdpSocket::bind(&at).with_context(|| format!("bind {at}"))
        });
        bound.join().map_err(|_| anyhow::anyhow!("the thread that binds a socket failed"))?
    }

    /// Makes `command` start here. It is killed if the test that started it dies, and hears of a hangup even where the
    /// tests do not.
    pub fn apply(&self, command: &mut Command) {
        let namespace = (!self.beside).then(|| Arc::clone(&self.namespace));
        let drop_to = (self.user == User::Ordinary && is_root()).then_some(self.ordinary_id);
        // SAFETY: between fork and exec only system calls are made; nothing allocates or locks.
        unsafe {
            command.pre_exec(move || {
                if let Some(namespace) = &namespace {
                    enter(namespace.pidfd.as_fd())?;
                }
                if let Some(id) = drop_to {
                    become_ordinary(id)?;
                }
                rustix::process::set_parent_process_death_signal(Some(Signal::KILL))?;
                hear_hangups(libc::SIG_DFL);
                Ok(())
            });
        }
    }
}

/// `SIG_DFL` or `SIG_IGN`, for what comes after.
pub fn hear_hangups(how: libc::sighandler_t) {
    // SAFETY: neither is a function of ours.
    unsafe { libc::signal(libc::SIGHUP, how) };
}

/// As an ordinary user in a user namespace of its own too, or in that of `beside`.
fn hold_namespace(beside: Option<Arc<Namespace>>) -> Result<Namespace> {
    let mut command = Command::new(stage::actor("namespace")?);
    command.env_clear().env(actor::MARKER, actor::HOLD_STILL).stdin(Stdio::piped());
    let maps = if is_root() || beside.is_some() { None } else { Some(own_identity_maps()) };
    // SAFETY: between fork and exec only system calls are made; nothing allocates or locks.
    unsafe {
        command.pre_exec(move || {
            if let Some(beside) = &beside {
                enter(beside.pidfd.as_fd())?;
            }
            make_namespace(maps.as_ref())?;
            rustix::process::set_parent_process_death_signal(Some(Signal::KILL))?;
            Ok(())
        });
    }
    // Spawning reports what pre_exec said, so afterwards the namespace exists.
    let holder = match command.spawn() {
        Ok(holder) => holder,
        Err(error)
            if matches!(error.kind(), io::ErrorKind::PermissionDenied | io::ErrorKind::StorageFull) =>
        {
            return Err(skip(format!("no network namespace of one's own here ({error})")));
        }
        Err(error) => return Err(error).context("make a network namespace"),
    };
    let pidfd = rustix::process::pidfd_open(pid_of(&holder), PidfdFlags::empty())?;
    Ok(Namespace { holder, pidfd })
}

/// What to write to `uid_map` and `gid_map` so that one stays who one is (`user_namespaces(7)`).
pub fn own_identity_maps() -> (String, String) {
    let uid = rustix::process::geteuid().as_raw();
    let gid = rustix::process::getegid().as_raw();
    (format!("{uid} {uid} 1"), format!("{gid} {gid} 1"))
}

fn make_namespace(maps: Option<&(String, String)>) -> io::Result<()> {
    let mut flags = UnshareFlags::NEWNET;
    flags.set(UnshareFlags::NEWUSER, maps.is_some());
    // SAFETY: CLONE_FILES is not among the flags, so descriptor tables stay as they are.
    unsafe { rustix::thread::unshare_unsafe(flags)? };
    if let Some((uid_map, gid_map)) = maps {
        write_file(c"/proc/self/setgroups", b"deny")?;
        write_file(c"/proc/self/uid_map", uid_map.as_bytes())?;
        write_file(c"/proc/self/gid_map", gid_map.as_bytes())?;
    }
    bring_loopback_up()
}

pub fn write_file(path: &std::ffi::CStr, content: &[u8]) -> io::Result<()> {
    let file = rustix::fs::open(path, OFlags::WRONLY | OFlags::CLOEXEC, Mode::empty())?;
    rustix::io::write(&file, content)?;
    Ok(())
}

/// The field is a short, the constants of the C library are not.
#[expect(clippy::cast_possible_truncation, reason = "the flags are 0x41")]
const UP_AND_RUNNING: libc::c_short = (libc::IFF_UP | libc::IFF_RUNNING) as libc::c_short;

pub fn bring_loopback_up() -> io::Result<()> {
    use rustix::net::{AddressFamily, SocketType, socket};
    use std::os::fd::AsRawFd as _;
    let control = socket(AddressFamily::INET, SocketType::DGRAM, None)?;
    // SAFETY: ifreq is plain data for which zeros are a value.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    request.ifr_name[0] = b'l'.cast_signed();
    request.ifr_name[1] = b'o'.cast_signed();
    request.ifr_ifru.ifru_flags = UP_AND_RUNNING;
    // SAFETY: the descriptor is open and the request outlives the call (netdevice(7)).
    let result = unsafe { libc::ioctl(control.as_raw_fd(), libc::SIOCSIFFLAGS, &raw const request) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// A loopback device has the whole network of an address (`netdevice(7)`; the mask is that of the address's class).
fn add_to_loopback(ip: Ipv4Addr) -> io::Result<()> {
    use rustix::net::{AddressFamily, SocketType, socket};
    use std::os::fd::AsRawFd as _;
    let control = socket(AddressFamily::INET, SocketType::DGRAM, None)?;
    // SAFETY: ifreq is plain data for which zeros are a value.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    for (place, byte) in request.ifr_name.iter_mut().zip(b"lo:1") {
        *place = byte.cast_signed();
    }
    // As in `struct sockaddr_in`: the port, then the address.
    let mut data: [libc::c_char; 14] = [0; 14];
    for (place, byte) in data[2..].iter_mut().zip(ip.octets()) {
        *place = byte.cast_signed();
    }
    let family = libc::sa_family_t::try_from(libc::AF_INET).map_err(io::Error::other)?;
    request.ifr_ifru.ifru_addr = libc::sockaddr { sa_family: family, sa_data: data };
    // SAFETY: the descriptor is open and the request outlives the call.
    let result = unsafe { libc::ioctl(control.as_raw_fd(), libc::SIOCSIFADDR, &raw const request) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

fn enter(holder: BorrowedFd<'_>) -> io::Result<()> {
    let mut spaces = ThreadNameSpaceType::NETWORK;
    if !rustix::process::geteuid().is_root() {
        spaces |= ThreadNameSpaceType::USER;
    }
    Ok(rustix::thread::move_into_thread_name_spaces(holder, spaces)?)
}

/// Gives up root in a freshly forked child, which has a single thread.
pub fn become_ordinary(id: u32) -> io::Result<()> {
    // Actors with thousands of sockets need more descriptors than an ordinary user may ask for.
    let open_files = rustix::process::getrlimit(Resource::Nofile);
    let _ = rustix::process::setrlimit(
        Resource::Nofile,
        Rlimit { current: open_files.current, maximum: open_files.maximum.map(|now| now.max(50_000)) },
    );
    let (uid, gid) = (Uid::from_raw(id), Gid::from_raw(id));
    rustix::thread::set_thread_groups(&[])?;
    rustix::thread::set_thread_res_gid(gid, gid, gid)?;
    rustix::thread::set_thread_res_uid(uid, uid, uid)?;
    Ok(())
}
