//! Systems on which something that the kernel programs stand on is missing: rano observes with what is left and says why,
//! in one line. What can be taken away is taken away from rano alone; lockdown is the guests' of `cargo xtask vm`.

use std::ffi::CStr;
use std::fs;
use std::io;
use std::os::unix::process::CommandExt as _;
use std::process::Command;

use anyhow::{Result, ensure};
use rustix::mount::{MountFlags, MountPropagationFlags};
use rustix::thread::UnshareFlags;

use crate::support::namespace::User;
use crate::support::scene::Scene;
use crate::support::trial::skip;

crate::tests![
    where_bpf_is_refused_the_next_rung_is_taken,
    without_kernel_types_the_next_rung_is_taken,
    without_cgroups_it_is_said,
    without_tracefs_nothing_is_lost,
    lockdown_for_confidentiality_leaves_a_rung,
    lockdown_for_integrity_costs_nothing,
];

/// Source and reason of a session in which everything works but for what `prepare` takes away from rano.
fn session(prepare: impl FnOnce(&mut Command)) -> Result<(String, String)> {
    let mut scene = Scene::new(User::Root)?;
    let rano = scene.observe_prepared(&["--source", "auto"], prepare)?;
    // Whatever is left sees a connection that stays.
    scene.let_it_look(&rano)?;
    rano.interrupt()?.expect_code(0)?;
    let database = scene.database()?;
    let reason = database.text("SELECT coalesce(source_reason, '') FROM sessions")?;
    ensure!(!reason.contains('\n'), "one line: {reason}");
    Ok((database.text("SELECT source FROM sessions")?, reason))
}

/// Takes away from `command` what lies at `path`.
fn hide(command: &mut Command, path: &'static CStr) {
    in_mounts_of_its_own(command, move || {
        Ok(rustix::mount::mount(c"none", path, c"tmpfs", MountFlags::empty(), None)?)
    });
}

fn in_mounts_of_its_own(
    command: &mut Command,
    change: impl Fn() -> io::Result<()> + Send + Sync + 'static,
) {
    let prepare = move || -> io::Result<()> {
        // SAFETY: CLONE_FILES is not among the flags, so descriptor tables stay as they are.
        unsafe { rustix::thread::unshare_unsafe(UnshareFlags::NEWNS)? };
        rustix::mount::mount_change(c"/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC)?;
        change()
    };
    // SAFETY: between fork and exec only system calls are made; nothing allocates or locks.
    unsafe { command.pre_exec(prepare) };
}

fn where_bpf_is_refused_the_next_rung_is_taken() -> Result<()> {
    let (source, reason) = session(|command| {
        // SAFETY: between fork and exec only system calls are made; nothing allocates or locks.
        unsafe { command.pre_exec(refuse_bpf) };
    })?;
    ensure!(source == "proc" && reason.contains("not permitted"), "{source}: {reason}");
    Ok(())
}

/// As the default profile of containers does it: `bpf(2)` fails with EPERM.
fn refuse_bpf() -> io::Result<()> {
    const fn instruction(code: u32, yes: u8, no: u8, value: u32) -> libc::sock_filter {
        libc::sock_filter { code: code as u16, jt: yes, jf: no, k: value }
    }
    let mut filter = [
        // The number of the system call is the first word of `struct seccomp_data`.
        instruction(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0, 0, 0),
        instruction(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, 0, 1, libc::SYS_bpf as u32),
        instruction(libc::BPF_RET | libc::BPF_K, 0, 0, libc::SECCOMP_RET_ERRNO | libc::EPERM as u32),
        instruction(libc::BPF_RET | libc::BPF_K, 0, 0, libc::SECCOMP_RET_ALLOW),
    ];
    let program = libc::sock_fprog { len: filter.len() as u16, filter: filter.as_mut_ptr() };
    // SAFETY: the program and its instructions outlive the call, which copies them.
    let result = unsafe { libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, &raw const program) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

fn without_kernel_types_the_next_rung_is_taken() -> Result<()> {
    crate::scene()?;
    let (source, reason) = session(|command| hide(command, c"/sys/kernel/btf"))?;
    ensure!(source == "proc" && reason.contains("CONFIG_DEBUG_INFO_BTF"), "{source}: {reason}");
    Ok(())
}

fn without_cgroups_it_is_said() -> Result<()> {
    crate::scene()?;
    let Some(mount) = crate::cgroup::mounted() else { return Err(skip("no cgroup v2")) };
    let mount = std::ffi::CString::new(mount.into_os_string().into_encoded_bytes())?;
    let (source, reason) = session(|command| {
        in_mounts_of_its_own(command, move || {
            Ok(rustix::mount::unmount(&*mount, rustix::mount::UnmountFlags::DETACH)?)
        });
    })?;
    ensure!(reason.contains("cgroup v2"), "{source}: {reason}");
    Ok(())
}

fn without_tracefs_nothing_is_lost() -> Result<()> {
    crate::scene()?;
    let (usual, _) = session(|_| {})?;
    let (source, reason) = session(|command| {
        hide(command, c"/sys/kernel/tracing");
        hide(command, c"/sys/kernel/debug");
    })?;
    ensure!(source.starts_with("ebpf-") && source == usual, "{source}, not {usual}: {reason}");
    Ok(())
}

/// What `security/lockdown/` of securityfs has chosen.
fn lockdown() -> Option<String> {
    let text = fs::read_to_string("/sys/kernel/security/lockdown").ok()?;
    let chosen = text.split(' ').find_map(|word| word.trim().strip_prefix('[')?.strip_suffix(']'))?;
    Some(chosen.to_owned())
}

fn needs_lockdown(wanted: &str) -> Result<()> {
    match lockdown() {
        Some(found) if found == wanted => Ok(()),
        found => Err(skip(format!("needs lockdown={wanted}, this is {}", found.as_deref().unwrap_or("without")))),
    }
}

/// There programs may not read the kernel's memory.
fn lockdown_for_confidentiality_leaves_a_rung() -> Result<()> {
    needs_lockdown("confidentiality")?;
    let (source, reason) = session(|_| {})?;
    ensure!(source == "proc" && reason.contains("lockdown"), "{source}: {reason}");
    Ok(())
}

fn lockdown_for_integrity_costs_nothing() -> Result<()> {
    needs_lockdown("integrity")?;
    let (source, reason) = session(|_| {})?;
    ensure!(source.starts_with("ebpf-") && reason.is_empty(), "{source}: {reason}");
    Ok(())
}
