//! A corner of the cgroup v2 hierarchy: a rano that is started in it takes it for all there is, so its cgroup hooks
//! tell of nobody but the processes that a test put there.

use std::fs;
use std::io;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::PathBuf;
use std::process::Command;

use std::ffi::CString;
use std::sync::atomic::{AtomicU32, Ordering};

use anyhow::{Context as _, Result};
use rustix::fs::{Mode, OFlags};
use rustix::mount::{MountFlags, MountPropagationFlags};
use rustix::thread::UnshareFlags;

use crate::support::trial::skip;

static CORNERS: AtomicU32 = AtomicU32::new(0);

/// A cgroup of the test's own; removed when dropped, if those in it have ended.
pub struct Corner {
    /// Of agents that nobody else has.
    pub name: String,
    path: PathBuf,
    mount: CString,
    procs: CString,
}

/// Where cgroup v2 is mounted.
pub fn mounted() -> Option<PathBuf> {
    let mounts = fs::read_to_string("/proc/self/mounts").ok()?;
    let mut fields = mounts.lines().map(|line| line.split(' ').collect::<Vec<_>>());
    fields.find(|fields| fields.get(2) == Some(&"cgroup2")).map(|fields| PathBuf::from(fields[1]))
}

impl Corner {
    /// Skips where there is no cgroup v2.
    pub fn new() -> Result<Self> {
        let Some(mount) = mounted() else { return Err(skip("no cgroup v2")) };
        let number = CORNERS.fetch_add(1, Ordering::Relaxed);
        let path = mount.join(format!("rano-test-{}-{number}", std::process::id()));
        fs::create_dir(&path).with_context(|| format!("make {}", path.display()))?;
        let mount = CString::new(mount.as_os_str().as_bytes())?;
        let procs = CString::new(path.join("cgroup.procs").as_os_str().as_bytes())?;
        Ok(Self { name: format!("c{}-{number}-", std::process::id()), path, mount, procs })
    }

    /// Makes `command` start in it, or moves into it what was started.
    pub fn apply(&self, command: &mut Command) {
        let procs = self.procs.clone();
        // SAFETY: between fork and exec only system calls are made; nothing allocates or locks.
        unsafe { command.pre_exec(move || join(&procs)) };
    }

    pub fn take_in(&self, pid: u32) -> Result<()> {
        Ok(fs::write(self.path.join("cgroup.procs"), pid.to_string())?)
    }

    /// As [`Self::apply`], and shows `command` nothing beyond it, nor a way there.
    pub fn confine(&self, command: &mut Command) {
        self.apply(command);
        let mount = self.mount.clone();
        let confine = move || -> io::Result<()> {
            show_own_namespace(&mount)?;
            refuse_to_enter_cgroups()
        };
        // SAFETY: as above.
        unsafe { command.pre_exec(confine) };
    }
}

/// As [`Corner::confine`], but it may leave for another cgroup namespace.
pub fn in_own_namespace(command: &mut Command, corner: &Corner) {
    corner.apply(command);
    let mount = corner.mount.clone();
    // SAFETY: between fork and exec only system calls are made; nothing allocates or locks.
    unsafe { command.pre_exec(move || show_own_namespace(&mount)) };
}

/// A seccomp filter that answers `setns(_, CLONE_NEWCGROUP)` with EPERM.
fn refuse_to_enter_cgroups() -> io::Result<()> {
    const LOAD: u16 = 0x20; // BPF_LD | BPF_W | BPF_ABS
    const EQUAL: u16 = 0x15; // BPF_JMP | BPF_JEQ | BPF_K
    const ANSWER: u16 = 0x06; // BPF_RET | BPF_K
    const ALLOW: u32 = libc::SECCOMP_RET_ALLOW;
    const REFUSE: u32 = libc::SECCOMP_RET_ERRNO | libc::EPERM.cast_unsigned();
    let step = |code, jt, jf, k| libc::sock_filter { code, jt, jf, k };
    // struct seccomp_data: the number of the call at 0, its second argument at 24, here the low half.
    let call = u32::try_from(libc::SYS_setns).map_err(io::Error::other)?;
    let mut steps = [
        step(LOAD, 0, 0, 0),
        step(EQUAL, 0, 2, call),
        step(LOAD, 0, 0, 24),
        step(EQUAL, 1, 0, libc::CLONE_NEWCGROUP.cast_unsigned()),
        step(ANSWER, 0, 0, ALLOW),
        step(ANSWER, 0, 0, REFUSE),
    ];
    let filter = libc::sock_fprog { len: 6, filter: steps.as_mut_ptr() };
    // SAFETY: the program and its steps outlive the call (seccomp(2)).
    let done =
        unsafe { libc::syscall(libc::SYS_seccomp, libc::SECCOMP_SET_MODE_FILTER, 0, &raw const filter) };
    if done == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

impl Drop for Corner {
    fn drop(&mut self) {
        let _ = fs::remove_dir(&self.path);
    }
}

/// A cgroup namespace that begins where the caller is, and nothing else of the hierarchy.
fn show_own_namespace(mount: &CString) -> io::Result<()> {
    // SAFETY: CLONE_FILES is not among the flags, so descriptor tables stay as they are.
    unsafe { rustix::thread::unshare_unsafe(UnshareFlags::NEWNS | UnshareFlags::NEWCGROUP)? };
    rustix::mount::mount_change(c"/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC)?;
    rustix::mount::unmount(&**mount, rustix::mount::UnmountFlags::DETACH)?;
    rustix::mount::mount(c"cgroup2", &**mount, c"cgroup2", MountFlags::empty(), None)?;
    Ok(())
}

fn join(procs: &CString) -> io::Result<()> {
    let file = rustix::fs::open(&**procs, OFlags::WRONLY | OFlags::CLOEXEC, Mode::empty())?;
    // A zero is the writer itself.
    rustix::io::write(&file, b"0")?;
    Ok(())
}
