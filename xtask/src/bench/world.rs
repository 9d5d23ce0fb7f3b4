//! The world of a measurement: fresh network, process and mount namespaces, as root or through a user namespace. The
//! first process in it measures; when it ends, the kernel ends everything else in it.

use std::ffi::OsString;
use std::io;
use std::os::fd::AsRawFd as _;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Command, ExitCode, ExitStatus};

use anyhow::{Context as _, Result};
use rustix::mount::{MountFlags, MountPropagationFlags};
use rustix::process::Signal;
use rustix::thread::UnshareFlags;

/// Role: in the new namespaces, but for the process namespace, which only children enter.
pub(crate) const OUTSIDE: &str = "__outside";
/// Role: process 1 of the world.
pub(crate) const INSIDE: &str = "__inside";

/// Runs the bench `name` in a world of its own.
pub(crate) fn enter(name: &str, rano: &Path) -> Result<ExitCode> {
    let mut flags = UnshareFlags::NEWNET | UnshareFlags::NEWNS | UnshareFlags::NEWPID;
    let (uid, gid) = (rustix::process::geteuid(), rustix::process::getegid());
    flags.set(UnshareFlags::NEWUSER, !uid.is_root());
    let maps = (format!("0 {} 1", uid.as_raw()), format!("0 {} 1", gid.as_raw()));
    let mut command = Command::new(std::env::current_exe()?);
    command.arg(OUTSIDE).arg(name).arg(rano);
    let become_outside = move || {
        // SAFETY: CLONE_FILES is not among the flags, so descriptor tables stay as they are.
        unsafe { rustix::thread::unshare_unsafe(flags)? };
        if flags.contains(UnshareFlags::NEWUSER) {
            write_file(c"/proc/self/setgroups", b"deny")?;
            write_file(c"/proc/self/uid_map", maps.0.as_bytes())?;
            write_file(c"/proc/self/gid_map", maps.1.as_bytes())?;
        }
        die_with_parent()
    };
    // SAFETY: between fork and exec only system calls are made; nothing allocates or locks.
    unsafe { command.pre_exec(become_outside) };
    let status =
        command.status().context("make namespaces of the measurement's own (root or user namespaces)")?;
    Ok(code_of(status))
}

pub(crate) fn outside(arguments: &[OsString]) -> Result<ExitCode> {
    let mut command = Command::new(std::env::current_exe()?);
    command.arg(INSIDE).args(arguments);
    // SAFETY: between fork and exec only a system call is made; nothing allocates or locks.
    unsafe { command.pre_exec(die_with_parent) };
    Ok(code_of(command.status().context("start the world's first process")?))
}

pub(crate) fn inside(arguments: &[OsString]) -> Result<ExitCode> {
    let [name, rano] = arguments else { anyhow::bail!("{INSIDE} takes a bench and a program") };
    rustix::mount::mount_change("/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC)?;
    let hardening = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
    rustix::mount::mount("proc", "/proc", "proc", hardening, None).context("mount /proc")?;
    bring_loopback_up().context("bring lo up")?;
    super::measure_one(&name.to_string_lossy(), Path::new(rano))?;
    Ok(ExitCode::SUCCESS)
}

fn code_of(status: ExitStatus) -> ExitCode {
    if status.success() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn die_with_parent() -> io::Result<()> {
    Ok(rustix::process::set_parent_process_death_signal(Some(Signal::KILL))?)
}

fn write_file(path: &std::ffi::CStr, content: &[u8]) -> io::Result<()> {
    use rustix::fs::{Mode, OFlags};
    let file = rustix::fs::open(path, OFlags::WRONLY | OFlags::CLOEXEC, Mode::empty())?;
    rustix::io::write(&file, content)?;
    Ok(())
}

/// The field is a short, the constants of the C library are not.
#[expect(clippy::cast_possible_truncation, reason = "the flags are 0x41")]
const UP_AND_RUNNING: libc::c_short = (libc::IFF_UP | libc::IFF_RUNNING) as libc::c_short;

fn bring_loopback_up() -> io::Result<()> {
    let control = std::net::UdpSocket::bind("0.0.0.0:0")?;
    // SAFETY: ifreq is plain data for which zeros are a value.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    request.ifr_name[0] = b'l'.cast_signed();
    request.ifr_name[1] = b'o'.cast_signed();
    request.ifr_ifru.ifru_flags = UP_AND_RUNNING;
    // SAFETY: the descriptor is open and the request outlives the call (netdevice(7)).
    let result = unsafe { libc::ioctl(control.as_raw_fd(), libc::SIOCSIFFLAGS, &raw const request) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
