//! What rano may still do once its programs are attached, and how little it needs to attach them.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, ensure};
use rustix::fs::XattrFlags;

use crate::support::actor::{Actor, Ending, Transport};
use crate::support::namespace::User;
use crate::support::rano::Launch;
use crate::support::scene::Scene;
use crate::support::trial::skip;
use crate::support::{program, stage, wait_until};

crate::tests![
    once_attached_each_thread_keeps_what_it_needs,
    under_sudo_what_opens_the_users_files_has_his_rights,
    what_comes_after_is_known_as_well_as_before,
    the_write_ahead_log_of_another_users_database_is_taken_away,
    the_capabilities_that_are_asked_for_are_enough,
    with_fewer_capabilities_the_reason_is_said,
];

/// include/uapi/linux/capability.h
const CAP_DAC_READ_SEARCH: u64 = 1 << 2;
const CAP_NET_ADMIN: u64 = 1 << 12;
const CAP_SYS_PTRACE: u64 = 1 << 19;
const CAP_SYS_RESOURCE: u64 = 1 << 24;
const CAP_PERFMON: u64 = 1 << 38;
const CAP_BPF: u64 = 1 << 39;

/// A line of a thread's status.
fn status(task: &Path, key: &str) -> Result<String> {
    let text = fs::read_to_string(task.join("status"))?;
    let line = text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(":\t"));
    Ok(line.with_context(|| format!("no {key} in {text}"))?.to_owned())
}

fn sets(task: &Path) -> Result<[u64; 3]> {
    let set = |key| -> Result<u64> { Ok(u64::from_str_radix(&status(task, key)?, 16)?) };
    Ok([set("CapEff")?, set("CapPrm")?, set("CapBnd")?])
}

fn threads(pid: u32) -> Result<Vec<PathBuf>> {
    let tasks = fs::read_dir(format!("/proc/{pid}/task"))?;
    tasks.map(|task| Ok(task?.path())).collect()
}

fn once_attached_each_thread_keeps_what_it_needs() -> Result<()> {
    let mut scene = crate::scene()?;
    let rano = scene.observe(&["--source", "ebpf"])?;
    // What is told of afterwards was read afterwards.
    scene.let_it_look(&rano)?;
    let mut names = Vec::new();
    for task in threads(rano.pid())? {
        let name = status(&task, "Name")?;
        let allowed = match name.as_str() {
            "rano" => CAP_SYS_PTRACE | CAP_DAC_READ_SEARCH,
            _ => 0,
        };
        let found = sets(&task)?;
        // Where the kernel demands it for a look into a map, CAP_BPF stays.
        let found = if name == "rano" { found.map(|set| set & !CAP_BPF) } else { found };
        ensure!(found == [allowed; 3], "{name}: {found:x?}, not {allowed:x}");
        ensure!(status(&task, "NoNewPrivs")? == "1", "{name} could gain privileges");
        names.push(name);
    }
    ensure!(names.iter().any(|name| name == "rano-store"), "{names:?}");
    rano.interrupt()?.expect_code(0)?;
    Ok(())
}

/// And what reads others' /proc has root's identity, with which alone that is possible.
fn under_sudo_what_opens_the_users_files_has_his_rights() -> Result<()> {
    let scene = crate::scene()?;
    let ordinary = scene.place.with_user(User::Ordinary);
    let directory = stage::directory(&ordinary)?;
    let id = ordinary.uid().to_string();
    let launch = Launch::new(&scene.place, directory.path())?.args(["--source", "ebpf"]);
    let launch = launch.env("SUDO_UID", &id).env("SUDO_GID", &id).env("SUDO_USER", "someone");
    let mut claude = scene.agent("claude")?;
    let (_, older) = claude.connect(Transport::Tcp, scene.tcp)?;
    let rano = launch.start()?;
    rano.wait_for_event("connect", older)?;
    // One that comes after everything was given up.
    let (_, tuple) = claude.connect(Transport::Tcp, scene.tcp)?;
    rano.wait_for_event("connect", tuple)?;
    let mut users = 0;
    for task in threads(rano.pid())? {
        let (name, uids) = (status(&task, "Name")?, status(&task, "Uid")?);
        let is_his = uids.ends_with(&format!("\t{id}"));
        let allowed = if name == "rano" { CAP_SYS_PTRACE | CAP_DAC_READ_SEARCH | CAP_BPF } else { 0 };
        ensure!(is_his == matches!(&*name, "rano-files" | "rano-store"), "{name}: {uids}");
        ensure!(sets(&task)?.iter().all(|set| set & !allowed == 0), "{name}: {:x?}", sets(&task)?);
        ensure!(uids.starts_with("0\t0\t0\t"), "he could signal {name}: {uids}");
        users += usize::from(is_his);
    }
    ensure!(users == 2, "{users} threads have his rights");
    rano.interrupt()?.expect_code(0)?;
    Ok(())
}

fn what_comes_after_is_known_as_well_as_before() -> Result<()> {
    let mut scene = crate::scene()?;
    let rano = scene.observe(&["--source", "ebpf"])?;
    scene.let_it_look(&rano)?;
    // The kernel programs tell the path as it was typed, /proc what it leads to.
    let place = scene.place.with_user(User::Ordinary);
    let mut claude = Actor::start(&place, "./claude")?;
    let (connection, tuple) = claude.connect(Transport::Tcp, scene.tcp)?;
    let totals = claude.exchange(connection, 100, 200)?;
    claude.close(connection, Ending::InOrder)?;
    rano.wait_for_event("close", tuple)?;
    rano.interrupt()?.expect_code(0)?;
    let database = scene.database()?;
    let rows = database.events_of(Transport::Tcp, tuple)?;
    let [connect, close] = &rows[..] else { anyhow::bail!("{rows:#?}") };
    ensure!(connect.uid == Some(place.uid()) && connect.owner_quality == "exact", "{connect:#?}");
    ensure!(close.bytes_sent == Some(i64::try_from(totals.sent)?), "{close:#?}");
    let exe = database.text(&format!("SELECT exe FROM events WHERE pid = {}", claude.pid()))?;
    ensure!(exe.ends_with("/claude") && !exe.contains("/./"), "{exe}");
    Ok(())
}

/// Under sudo, in a directory that nobody but the invoking user may enter.
fn the_write_ahead_log_of_another_users_database_is_taken_away() -> Result<()> {
    let scene = crate::scene()?;
    let ordinary = scene.place.with_user(User::Ordinary);
    let directory = stage::directory(&ordinary)?;
    fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o700))?;
    let id = ordinary.uid().to_string();
    let launch = Launch::new(&scene.place, directory.path())?.args(["--source", "ebpf"]);
    let launch = launch.env("SUDO_UID", &id).env("SUDO_GID", &id).env("SUDO_USER", "someone");
    let mut marker = scene.agent("gemini")?;
    let (_, older) = marker.connect(Transport::Tcp, scene.tcp)?;
    let rano = launch.start()?;
    rano.wait_for_event("connect", older)?;
    let log = directory.path().join("observer.sqlite-wal");
    wait_until("the log is there", || Ok(log.exists()))?;
    rano.interrupt()?.expect_code(0)?;
    ensure!(!log.exists(), "{} is left", log.display());
    Ok(())
}

/// A copy of rano that gives who runs it these capabilities (`struct vfs_cap_data`, revision 2, effective at once).
fn rano_with(directory: &Path, capabilities: u64) -> Result<PathBuf> {
    let program = directory.join("rano-with-capabilities");
    program::copy(&stage::rano()?, &program)?;
    let [low, high] = [capabilities & u64::from(u32::MAX), capabilities >> 32];
    let words = [0x0200_0001, low, 0, high, 0];
    let bytes: Vec<u8> =
        words.iter().flat_map(|word| u32::try_from(*word).unwrap_or(0).to_le_bytes()).collect();
    rustix::fs::setxattr(&program, "security.capability", &bytes, XattrFlags::empty())
        .context("give the program capabilities")?;
    Ok(program)
}

/// Before Linux 5.11 what the kernel keeps for its programs counts against a limit, which it takes one more to lift.
fn asked_for() -> u64 {
    let release = rustix::system::uname().release().to_string_lossy().into_owned();
    let mut numbers = release.split(['.', '-']).map_while(|number| number.parse::<u32>().ok());
    let is_old = (numbers.next(), numbers.next()) < (Some(5), Some(11));
    CAP_BPF | CAP_PERFMON | CAP_NET_ADMIN | if is_old { CAP_SYS_RESOURCE } else { 0 }
}

/// A patch of Debian's: at 3 and above no capability but `CAP_SYS_ADMIN` opens the way to probes.
fn root_alone_has_probes() -> bool {
    let level = fs::read_to_string("/proc/sys/kernel/perf_event_paranoid").unwrap_or_default();
    level.trim().parse::<i32>().is_ok_and(|level| level >= 3)
}

fn the_capabilities_that_are_asked_for_are_enough() -> Result<()> {
    crate::scene()?;
    if root_alone_has_probes() && std::env::var_os("RANO_TEST_RUNG").is_some_and(|rung| rung == "kprobe") {
        return Err(skip("kernel.perf_event_paranoid keeps probes for root"));
    }
    let scene = Scene::new(User::Ordinary)?;
    let directory = tempfile::tempdir_in(scene.directory().parent().context("the stage")?)?;
    fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o755))?;
    let program = rano_with(directory.path(), asked_for())?;
    let mut claude = scene.agent("claude")?;
    let (_, older) = claude.connect(Transport::Tcp, scene.tcp)?;
    let rano = Launch::of(&program, &scene.place, scene.directory()).args(["--source", "ebpf"]).start()?;
    rano.wait_for_event("connect", older)?;
    let (connection, tuple) = claude.connect(Transport::Tcp, scene.tcp)?;
    claude.close(connection, Ending::InOrder)?;
    rano.wait_for_event("close", tuple)?;
    for task in threads(rano.pid())? {
        let [effective, permitted, _] = sets(&task)?.map(|set| set & !CAP_BPF);
        ensure!((effective, permitted) == (0, 0), "{effective:x} {permitted:x} are left");
    }
    rano.interrupt()?.expect_code(0)?;
    let rows = scene.database()?.events_of(Transport::Tcp, tuple)?;
    ensure!(
        rows.iter().all(|row| row.pid == Some(claude.pid()) && row.owner_quality == "exact"),
        "{rows:#?}"
    );
    Ok(())
}

fn with_fewer_capabilities_the_reason_is_said() -> Result<()> {
    let scene = Scene::new(User::Ordinary)?;
    crate::scene()?;
    let directory = tempfile::tempdir_in(scene.directory().parent().context("the stage")?)?;
    fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o755))?;
    let program = rano_with(directory.path(), CAP_PERFMON | CAP_NET_ADMIN)?;
    let run = Launch::of(&program, &scene.place, scene.directory()).args(["--source", "ebpf"]).run()?;
    run.expect_code(4)?;
    ensure!(run.stderr.contains("not permitted"), "{}", run.stderr);
    Ok(())
}
