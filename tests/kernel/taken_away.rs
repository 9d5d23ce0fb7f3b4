//! Every means that kernel programs take, taken away: rano runs on the next rung, and says why in one line; doctor says
//! what would help.

use std::io;
use std::os::unix::process::CommandExt as _;
use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use rustix::mount::{MountFlags, MountPropagationFlags, UnmountFlags};
use rustix::thread::{CapabilitySet, CapabilitySets, UnshareFlags};
use serde_json::Value as Json;

use crate::support::actor::{Ending, Transport};
use crate::support::namespace::User;
use crate::support::rano::Rano;
use crate::support::scene::{FAST, Scene};

crate::tests![
    without_the_bpf_call_it_polls,
    without_kernel_types_it_polls,
    root_without_capabilities_polls,
    without_a_mount_of_cgroups_nothing_is_missing,
    without_cgroups_it_says_what_is_missing,
    without_tracefs_nothing_is_missing,
    an_ordinary_user_is_told_the_command_that_helps,
];

/// Makes what is in its way happen between fork and exec of rano.
fn before(command: &mut Command, take_away: impl Fn() -> io::Result<()> + Send + Sync + 'static) {
    // SAFETY: between fork and exec only system calls are made; nothing allocates or locks.
    unsafe { command.pre_exec(take_away) };
}

/// A mount namespace of its own, so that nobody else misses what is taken away.
fn own_mounts() -> io::Result<()> {
    // SAFETY: CLONE_FILES is not among the flags, so descriptor tables stay as they are.
    unsafe { rustix::thread::unshare_unsafe(UnshareFlags::NEWNS)? };
    Ok(rustix::mount::mount_change(c"/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC)?)
}

fn hide(directory: &std::ffi::CStr) -> io::Result<()> {
    Ok(rustix::mount::mount(c"tmpfs", directory, c"tmpfs", MountFlags::empty(), None)?)
}

/// `bpf(2)` answers EPERM, as in a container (seccomp(2), mode 2).
fn refuse_bpf() -> io::Result<()> {
    // include/uapi/linux/bpf_common.h: LD W ABS, JMP JEQ K, RET K.
    const LOAD_NUMBER: u16 = 0x20;
    const IF_EQUAL: u16 = 0x15;
    const RETURN: u16 = 0x06;
    let word = |code, k, jt, jf| libc::sock_filter { code, jt, jf, k };
    let bpf = u32::try_from(libc::SYS_bpf).unwrap_or(0);
    let refusal = libc::SECCOMP_RET_ERRNO | libc::EPERM.cast_unsigned();
    let mut filter = [
        word(LOAD_NUMBER, 0, 0, 0),
        word(IF_EQUAL, bpf, 0, 1),
        word(RETURN, refusal, 0, 0),
        word(RETURN, libc::SECCOMP_RET_ALLOW, 0, 0),
    ];
    let program = libc::sock_fprog { len: 4, filter: filter.as_mut_ptr() };
    rustix::thread::set_no_new_privs(true)?;
    // SAFETY: the program and its filter outlive the call, which copies them.
    let result = unsafe { libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, &raw const program) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

fn no_capabilities() -> io::Result<()> {
    for bit in 0..u64::BITS {
        let one = CapabilitySet::from_bits_retain(1 << bit);
        if rustix::thread::remove_capability_from_bounding_set(one).is_err() {
            break;
        }
    }
    let none = CapabilitySet::empty();
    Ok(rustix::thread::set_capabilities(
        None,
        CapabilitySets { effective: none, permitted: none, inheritable: none },
    )?)
}

/// What rano made of it.
struct Left {
    source: String,
    reason: String,
    doctor: Json,
}

/// Observes a connection without what `take_away` takes away.
fn without(take_away: impl Fn() -> io::Result<()> + Copy + Send + Sync + 'static) -> Result<Left> {
    let scene = Scene::new(User::Root)?;
    let mut claude = scene.agent("claude")?;
    let (_, older) = claude.connect(Transport::Tcp, scene.tcp)?;
    let mut launch = scene.launch()?.args(FAST);
    before(launch.command(), take_away);
    let rano = launch.start()?;
    rano.wait_for_event("connect", older)?;
    let (connection, tuple) = claude.connect(Transport::Tcp, scene.tcp)?;
    rano.wait_for_event("connect", tuple)?;
    claude.close(connection, Ending::InOrder)?;
    rano.wait_for_event("close", tuple)?;
    Left::of(&scene, rano, take_away)
}

impl Left {
    fn of(
        scene: &Scene,
        rano: Rano,
        take_away: impl Fn() -> io::Result<()> + Send + Sync + 'static,
    ) -> Result<Self> {
        let finished = rano.interrupt()?;
        finished.expect_code(0)?;
        let database = scene.database()?;
        let source = database.text("SELECT source FROM sessions")?;
        let reason = database.text("SELECT coalesce(source_reason, '') FROM sessions")?;
        ensure!(!reason.contains('\n'), "more than one line: {reason}");
        let is_said = |line: &str| line.contains(&source) && line.contains(&reason);
        ensure!(finished.stderr.lines().any(is_said), "not in the banner: {}", finished.stderr);
        let mut launch = scene.launch()?.args(["doctor", "--json"]);
        before(launch.command(), take_away);
        let doctor = launch.run()?;
        doctor.expect_code(0)?;
        let doctor = serde_json::from_str(&doctor.stdout).with_context(|| doctor.stdout.clone())?;
        Ok(Self { source, reason, doctor })
    }

    /// rano polls, and both it and doctor say so and why, doctor with what would help.
    fn polls_because(&self, why: &str, fix: &str) -> Result<()> {
        let Self { source, reason, doctor } = self;
        ensure!(source == "proc" && reason.contains(why), "{source}: {reason}");
        ensure!(doctor["in_use"] == "proc", "{doctor:#}");
        let rungs = doctor["rungs"].as_array().context("rungs")?;
        let says = |rung: &Json| {
            let text = |key: &str| rung[key].as_str().unwrap_or_default().to_owned();
            text("reason").contains(why) && text("fix").contains(fix)
        };
        ensure!(rungs.iter().any(says), "{doctor:#}");
        Ok(())
    }
}

fn without_the_bpf_call_it_polls() -> Result<()> {
    without(refuse_bpf)?.polls_because("not permitted", "outside of the container or sandbox")
}

fn without_kernel_types_it_polls() -> Result<()> {
    crate::scene()?;
    let take_away = || own_mounts().and_then(|()| hide(c"/sys/kernel/btf"));
    without(take_away)?.polls_because("/sys/kernel/btf/vmlinux", "CONFIG_DEBUG_INFO_BTF=y")
}

fn root_without_capabilities_polls() -> Result<()> {
    // Nor may it look at other processes, so there is nothing to be seen.
    let scene = Scene::new(User::Root)?;
    let mut launch = scene.launch()?.args(FAST);
    before(launch.command(), no_capabilities);
    let rano = launch.start()?;
    rano.stderr.wait_for("the source", |line| line.contains("source"))?;
    let left = Left::of(&scene, rano, no_capabilities)?;
    left.polls_because("not permitted", "cap_bpf,cap_perfmon,cap_net_admin")
}

/// rano mounts the hierarchy for itself.
fn without_a_mount_of_cgroups_nothing_is_missing() -> Result<()> {
    crate::scene()?;
    let left = without(unmount_cgroups)?;
    ensure!(left.source.starts_with("ebpf-"), "{}: {}", left.source, left.reason);
    ensure!(!left.reason.contains("cgroup"), "{}", left.reason);
    Ok(())
}

/// Nor may it mount.
fn without_cgroups_it_says_what_is_missing() -> Result<()> {
    crate::scene()?;
    let take_away = || unmount_cgroups().and_then(|()| without_capability(CapabilitySet::SYS_ADMIN));
    without(take_away).and_then(|left| check_cgroups(&left))
}

fn unmount_cgroups() -> io::Result<()> {
    own_mounts()?;
    // In the second place where the first has the older hierarchies.
    unmount(c"/sys/fs/cgroup/unified").or_else(|_| unmount(c"/sys/fs/cgroup"))
}

fn without_capability(capability: CapabilitySet) -> io::Result<()> {
    rustix::thread::remove_capability_from_bounding_set(capability)?;
    let sets = rustix::thread::capabilities(None)?;
    Ok(rustix::thread::set_capabilities(
        None,
        CapabilitySets {
            effective: sets.effective.difference(capability),
            permitted: sets.permitted.difference(capability),
            inheritable: sets.inheritable.difference(capability),
        },
    )?)
}

fn unmount(place: &std::ffi::CStr) -> io::Result<()> {
    Ok(rustix::mount::unmount(place, UnmountFlags::DETACH)?)
}

fn check_cgroups(left: &Left) -> Result<()> {
    // Debian's kernels keep probes for those who may do everything.
    let is_observed = left.source.starts_with("ebpf-") || left.reason.contains("no kprobe (EACCES)");
    ensure!(is_observed && left.reason.contains("cgroup"), "{}: {}", left.source, left.reason);
    let checks = left.doctor["checks"].as_array().context("checks")?;
    let fixed = |check: &Json| {
        check["name"] == "cgroup v2"
            && check["fix"].as_str().is_some_and(|fix| fix.contains("mount -t cgroup2"))
    };
    ensure!(checks.iter().any(fixed), "{:#}", left.doctor);
    Ok(())
}

/// Raw tracepoints need no files.
fn without_tracefs_nothing_is_missing() -> Result<()> {
    crate::scene()?;
    let take_away = || -> io::Result<()> {
        own_mounts()?;
        for place in [c"/sys/kernel/tracing", c"/sys/kernel/debug"] {
            // Not every kernel has them.
            let _ = hide(place);
        }
        Ok(())
    };
    let left = without(take_away)?;
    ensure!(left.source.starts_with("ebpf-"), "{}: {}", left.source, left.reason);
    Ok(())
}

fn an_ordinary_user_is_told_the_command_that_helps() -> Result<()> {
    let scene = Scene::new(User::Ordinary)?;
    let doctor = scene.launch()?.args(["doctor"]).run()?;
    doctor.expect_code(0)?;
    let fix = doctor.stdout.lines().find_map(|line| line.trim().strip_prefix("fix: "));
    let fix = fix.with_context(|| format!("no fix in {}", doctor.stdout))?;
    ensure!(fix == "sudo rano" || fix.starts_with("sudo setcap cap_bpf,cap_perfmon,cap_net_admin"), "{fix}");
    ensure!(doctor.stdout.contains("proc") && doctor.stdout.contains("(in use)"), "{}", doctor.stdout);
    Ok(())
}
