//! rano in namespaces of its own: what it tells is right, and what it cannot see from there it says.

use std::io;
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use rustix::mount::{MountPropagationFlags, mount_change};
use rustix::process::{Pid, PidfdFlags, Signal, kill_process, pidfd_open};
use rustix::thread::{ThreadNameSpaceType, UnshareFlags, move_into_thread_name_spaces, unshare_unsafe};

use crate::cgroup::{self, Corner};
use crate::odd_client::{Client, Way};
use crate::support::actor::{Actor, Descendant, Ending, Transport, Tuple};
use crate::support::database::EventRow;
use crate::support::namespace::{User, write_file};
use crate::support::rano::{Finished, Launch, Rano};
use crate::support::scene::{FAST, Scene};
use crate::support::stage;
use crate::support::trial::skip;

crate::tests![
    in_a_pid_namespace_processes_go_by_its_numbers,
    in_a_pid_namespace_polling_sees_the_same,
    a_pid_that_was_asked_for_is_that_of_the_namespace,
    a_pid_of_the_namespace_is_excluded_with_what_it_forks,
    beyond_a_cgroup_namespace_everybody_is_seen,
    a_cgroup_namespace_without_a_way_out_is_said,
    in_a_time_namespace_times_are_its_own,
    doctor_says_in_which_namespaces_it_is,
    polling_sees_through_the_threads_that_are_left,
    polling_knows_an_agent_without_its_main_thread,
    polling_sees_what_a_thread_has_for_itself,
];

const EBPF: [&str; 2] = ["--source", "ebpf"];
const POLLING: [&str; 2] = ["--source", "proc"];
/// A day.
const AHEAD: &[u8] = b"boottime 86400 0\n";

/// A pid namespace. Its first process starts the others.
struct World {
    door: Actor,
    first: Descendant,
    pidfd: OwnedFd,
}

impl World {
    fn new(scene: &Scene) -> Result<Self> {
        let unshare = |command: &mut Command| {
            // SAFETY: CLONE_FILES is not among the flags, so descriptor tables stay as they are.
            let enter = || Ok(unsafe { unshare_unsafe(UnshareFlags::NEWPID) }?);
            // SAFETY: between fork and exec only system calls are made; nothing allocates or locks.
            unsafe { command.pre_exec(enter) };
        };
        let mut door = Actor::start_prepared(&scene.place, "door", &[], unshare)?;
        let first = door.spawn(&door.myself(), "first")?;
        // Of itself it knows the number that it has inside.
        let pidfd = pidfd_open(only_child(door.pid())?, PidfdFlags::empty())?;
        let mut world = Self { door, first, pidfd };
        // Numbers here are none that the outer namespace gives to the same processes.
        for _ in 0..3 {
            world.spawn("passer-by")?;
        }
        Ok(world)
    }

    fn spawn(&mut self, name: &str) -> Result<Descendant> {
        self.door.spawn(&self.first, name)
    }

    /// A shell outside of it, whose child in it becomes rano.
    fn launch(&self, scene: &Scene) -> Result<Launch> {
        let pidfd = self.pidfd.try_clone()?;
        let enter = move || -> io::Result<()> {
            move_into_thread_name_spaces(pidfd.as_fd(), ThreadNameSpaceType::PROCESS_ID)?;
            // SAFETY: CLONE_FILES is not among the flags, so descriptor tables stay as they are.
            unsafe { unshare_unsafe(UnshareFlags::NEWNS)? };
            mount_change(c"/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC)?;
            Ok(())
        };
        let inside = r#"(mount -t proc proc /proc && exec "$0" "$@"); exit $?"#;
        through_a_shell(scene, inside, enter)
    }
}

/// rano as the child of a shell that was prepared so.
fn through_a_shell(
    scene: &Scene,
    script: &str,
    prepare: impl FnMut() -> io::Result<()> + Send + Sync + 'static,
) -> Result<Launch> {
    let rano = stage::rano()?;
    let mut launch = Launch::of(Path::new("/bin/sh"), &scene.place, scene.directory());
    launch.command().arg("-c").arg(script).arg(rano);
    // SAFETY: between fork and exec only system calls are made; nothing allocates or locks.
    unsafe { launch.command().pre_exec(prepare) };
    Ok(launch.args(FAST))
}

/// Ends the shell's child, and so the shell.
fn end(rano: Rano) -> Result<Finished> {
    kill_process(only_child(rano.pid())?, Signal::INT)?;
    rano.wait()
}

fn only_child(pid: u32) -> Result<Pid> {
    let children = format!("/proc/{pid}/task/{pid}/children");
    let children = std::fs::read_to_string(&children).with_context(|| format!("read {children}"))?;
    let child = children.split_whitespace().next().and_then(|pid| pid.parse().ok()).and_then(Pid::from_raw);
    child.with_context(|| format!("{pid} has no child"))
}

fn one(actor: &mut Actor, who: &Descendant, scene: &Scene) -> Result<Tuple> {
    let (connection, tuple) = actor.connect_in(who, Transport::Tcp, scene.tcp)?;
    actor.exchange_in(who, connection, 300, 400)?;
    Ok((actor.close_in(who, connection, Ending::InOrder)?, tuple).1)
}

fn is_of(rows: &[EventRow], pid: u32, provider: &str) -> Result<()> {
    ensure!(!rows.is_empty() && rows.iter().all(|row| row.pid == Some(pid)), "not of {pid}: {rows:#?}");
    ensure!(rows.iter().all(|row| row.provider == provider), "not of {provider}: {rows:#?}");
    Ok(())
}

fn says_what_is_outside(finished: &Finished, what: &str) -> Result<()> {
    finished.expect_code(0)?;
    let said = finished.stderr.replace('\n', " ");
    let said = said.split_whitespace().collect::<Vec<_>>().join(" ");
    ensure!(said.matches(what).count() >= 2, "banner and summary do not say '{what}': {}", finished.stderr);
    Ok(())
}

fn within_a_pid_namespace(source: &[&str]) -> Result<()> {
    let scene = crate::scene()?;
    let mut world = World::new(&scene)?;
    let claude = world.spawn("claude")?;
    ensure!(claude.pid < 20, "a number of the new namespace: {}", claude.pid);
    let (_, older) = world.door.connect_in(&claude, Transport::Tcp, scene.tcp)?;
    let mut outsider = scene.agent("claude")?;
    let rano = world.launch(&scene)?.args(["--json"]).args(source).start()?;
    rano.wait_for_event("connect", older)?;
    let (_, unseen) = outsider.connect(Transport::Tcp, scene.tcp)?;
    let child = world.door.spawn(&claude, "helper")?;
    let (_, tuple) = world.door.connect_in(&child, Transport::Tcp, scene.tcp)?;
    rano.wait_for_event("connect", tuple)?;
    let stranger = world.spawn("bystander")?;
    world.door.connect_in(&stranger, Transport::Tcp, scene.tcp)?;
    let (_, last) = world.door.connect_in(&child, Transport::Tcp, scene.tcp)?;
    rano.wait_for_event("connect", last)?;
    says_what_is_outside(&end(rano)?, "processes outside of this pid namespace are not watched")?;
    let database = scene.database()?;
    is_of(&database.events_of(Transport::Tcp, tuple)?, child.pid, "anthropic")?;
    is_of(&database.events_of(Transport::Tcp, older)?, claude.pid, "anthropic")?;
    ensure!(database.events_of(Transport::Tcp, unseen)?.is_empty(), "the outsider has no number here");
    let others = format!("SELECT count(*) FROM events WHERE pid NOT IN ({}, {})", claude.pid, child.pid);
    ensure!(database.count(&others)? == 0, "somebody else's were told");
    let reason = database.text("SELECT source_reason FROM sessions")?;
    ensure!(reason.contains("outside of this pid namespace"), "{reason}");
    Ok(())
}

fn in_a_pid_namespace_processes_go_by_its_numbers() -> Result<()> {
    within_a_pid_namespace(&EBPF)
}

fn in_a_pid_namespace_polling_sees_the_same() -> Result<()> {
    within_a_pid_namespace(&POLLING)
}

fn a_pid_that_was_asked_for_is_that_of_the_namespace() -> Result<()> {
    for source in [EBPF, POLLING] {
        let scene = crate::scene()?;
        let mut world = World::new(&scene)?;
        let worker = world.spawn("worker")?;
        let (_, older) = world.door.connect_in(&worker, Transport::Tcp, scene.tcp)?;
        let pid = worker.pid.to_string();
        let rano = world.launch(&scene)?.args(["--json", "--pid", &pid]).args(source).start()?;
        rano.wait_for_event("connect", older)?;
        let (_, tuple) = world.door.connect_in(&worker, Transport::Tcp, scene.tcp)?;
        rano.wait_for_event("connect", tuple)?;
        let child = world.door.spawn(&worker, "helper")?;
        let (_, of_child) = world.door.connect_in(&child, Transport::Tcp, scene.tcp)?;
        rano.wait_for_event("connect", of_child)?;
        end(rano)?.expect_code(0)?;
        let database = scene.database()?;
        is_of(&database.events_of(Transport::Tcp, tuple)?, worker.pid, "unknown")?;
        is_of(&database.events_of(Transport::Tcp, of_child)?, child.pid, "unknown")?;
    }
    Ok(())
}

fn a_pid_of_the_namespace_is_excluded_with_what_it_forks() -> Result<()> {
    let scene = crate::scene()?;
    let mut world = World::new(&scene)?;
    let claude = world.spawn("claude")?;
    let (_, older) = world.door.connect_in(&claude, Transport::Tcp, scene.tcp)?;
    let rano = world.launch(&scene)?.args(["--json", "--exclude-pattern", "helper"]).args(EBPF).start()?;
    rano.wait_for_event("connect", older)?;
    let child = world.door.spawn(&claude, "helper")?;
    let excluded = one(&mut world.door, &child, &scene)?;
    let (_, last) = world.door.connect_in(&claude, Transport::Tcp, scene.tcp)?;
    rano.wait_for_event("connect", last)?;
    let finished = end(rano)?;
    finished.expect_code(0)?;
    ensure!(scene.database()?.events_of(Transport::Tcp, excluded)?.is_empty(), "it was excluded");
    ensure!(finished.stderr.contains("1 process, 1 connection"), "{}", finished.stderr);
    Ok(())
}

/// rano in a cgroup, with a cgroup namespace that begins there.
fn in_a_cgroup(scene: &Scene, corner: &Corner, confine: impl FnOnce(&Corner, &mut Command)) -> Result<Rano> {
    let mut launch = scene.launch()?.args(FAST).args(EBPF);
    confine(corner, launch.command());
    launch.start()
}

fn beyond_a_cgroup_namespace_everybody_is_seen() -> Result<()> {
    let scene = crate::scene()?;
    let mut claude = scene.agent("claude")?;
    let corner = Corner::new()?;
    let (_, older) = claude.connect(Transport::Tcp, scene.tcp)?;
    let rano = in_a_cgroup(&scene, &corner, |corner, command| cgroup::in_own_namespace(command, corner))?;
    rano.wait_for_event("connect", older)?;
    let (connection, tuple) = claude.connect(Transport::Tcp, scene.tcp)?;
    claude.close(connection, Ending::InOrder)?;
    rano.wait_for_event("close", tuple)?;
    let finished = rano.interrupt()?;
    finished.expect_code(0)?;
    ensure!(!finished.stderr.contains("outside of this cgroup namespace"), "{}", finished.stderr);
    let database = scene.database()?;
    ensure!(database.count("SELECT permission_denied FROM sessions")? == 0, "{}", finished.stderr);
    is_of(&database.events_of(Transport::Tcp, tuple)?, claude.pid(), "anthropic")
}

fn a_cgroup_namespace_without_a_way_out_is_said() -> Result<()> {
    let scene = crate::scene()?;
    let mut outside = scene.agent("claude")?;
    let mut inside = scene.agent("codex")?;
    let corner = Corner::new()?;
    corner.take_in(inside.pid())?;
    let (_, older) = inside.connect(Transport::Tcp, scene.tcp)?;
    let rano = in_a_cgroup(&scene, &corner, Corner::confine)?;
    rano.wait_for_event("connect", older)?;
    let (_, unseen) = outside.connect(Transport::Tcp, scene.tcp)?;
    let (_, tuple) = inside.connect(Transport::Tcp, scene.tcp)?;
    rano.wait_for_event("connect", tuple)?;
    let finished = rano.interrupt()?;
    finished.expect_code(0)?;
    let all = format!("{}{}", finished.stderr, finished.stdout);
    ensure!(!all.contains("nothing missed"), "{all}");
    ensure!(all.matches("outside of this cgroup").count() >= 1, "{all}");
    let database = scene.database()?;
    ensure!(database.count("SELECT permission_denied FROM sessions")? > 0, "{all}");
    let reason = database.text("SELECT source_reason FROM sessions")?;
    ensure!(reason.contains("outside of this cgroup namespace"), "{reason}");
    ensure!(database.events_of(Transport::Tcp, unseen)?.is_empty(), "it has no hook");
    Ok(())
}

fn in_a_time_namespace_times_are_its_own() -> Result<()> {
    if !Path::new("/proc/self/timens_offsets").exists() {
        return Err(skip("no time namespaces"));
    }
    for source in [EBPF, POLLING] {
        let scene = crate::scene()?;
        let mut claude = scene.agent("claude")?;
        let (before, older) = claude.connect(Transport::Tcp, scene.tcp)?;
        let enter = || -> io::Result<()> {
            // SAFETY: CLONE_FILES is not among the flags, so descriptor tables stay as they are.
            unsafe { unshare_unsafe(UnshareFlags::NEWTIME)? };
            write_file(c"/proc/self/timens_offsets", AHEAD)
        };
        let rano = through_a_shell(&scene, r#"("$0" "$@"); exit $?"#, enter)?
            .args(["--json"])
            .args(source)
            .start()?;
        rano.wait_for_event("connect", older)?;
        let child = claude.spawn(&claude.myself(), "helper")?;
        let (connection, tuple) = claude.connect_in(&child, Transport::Tcp, scene.tcp)?;
        rano.wait_for_event("connect", tuple)?;
        claude.close_in(&child, connection, Ending::InOrder)?;
        rano.wait_for_event("close", tuple)?;
        claude.close(before, Ending::InOrder)?;
        rano.wait_for_event("close", older)?;
        end(rano)?.expect_code(0)?;
        let database = scene.database()?;
        is_of(&database.events_of(Transport::Tcp, tuple)?, child.pid, "anthropic")?;
        is_of(&database.events_of(Transport::Tcp, older)?, claude.pid(), "anthropic")?;
        let odd = "SELECT count(*) FROM events WHERE duration_ms > 600000 \
                   OR abs(strftime('%s', ts) - strftime('%s', 'now')) > 600";
        ensure!(database.count(odd)? == 0, "{source:?}: a time of another namespace");
    }
    Ok(())
}

fn doctor_says_in_which_namespaces_it_is() -> Result<()> {
    let scene = crate::scene()?;
    let world = World::new(&scene)?;
    let inside = r#"(mount -t proc proc /proc && exec "$0" doctor); exit $?"#;
    let pidfd = world.pidfd.try_clone()?;
    let enter = move || -> io::Result<()> {
        move_into_thread_name_spaces(pidfd.as_fd(), ThreadNameSpaceType::PROCESS_ID)?;
        // SAFETY: CLONE_FILES is not among the flags, so descriptor tables stay as they are.
        unsafe { unshare_unsafe(UnshareFlags::NEWNS)? };
        Ok(mount_change(c"/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC)?)
    };
    let mut launch = Launch::of(Path::new("/bin/sh"), &scene.place, scene.directory());
    launch.command().arg("-c").arg(inside).arg(stage::rano()?);
    // SAFETY: as above.
    unsafe { launch.command().pre_exec(enter) };
    let said = launch.run()?.stdout;
    ensure!(said.contains("namespaces") && said.contains("rano is in others than the first: pid"), "{said}");
    let capture = "with its exact owner, but processes outside of this pid namespace are not watched";
    ensure!(said.contains(capture), "{said}");
    Ok(())
}

fn polling_sees_through_the_threads_that_are_left() -> Result<()> {
    let mut scene = Scene::new(User::Root)?;
    let rano = scene.observe(&POLLING)?;
    let client = Client::play(&scene.place, "claude", Way::WithoutMainThread, scene.tcp)?;
    rano.wait_for_event("connect", client.tuple()?)?;
    let (pid, tuple) = (client.done.pid, client.tuple()?);
    client.end()?;
    rano.wait_for_event("close", tuple)?;
    rano.interrupt()?.expect_code(0)?;
    let rows = scene.database()?.events_of(Transport::Tcp, tuple)?;
    is_of(&rows, pid, "anthropic")?;
    ensure!(rows.iter().all(|row| row.owner_quality == "polled"), "{rows:#?}");
    Ok(())
}

/// It is met when nothing but its name is left to the main thread.
fn polling_knows_an_agent_without_its_main_thread() -> Result<()> {
    let mut scene = Scene::new(User::Root)?;
    let client = Client::play(&scene.place, "claude", Way::WithoutMainThread, scene.tcp)?;
    let tuple = client.tuple()?;
    let rano = scene.observe(&POLLING)?;
    rano.wait_for_event("connect", tuple)?;
    scene.let_it_look(&rano)?;
    rano.interrupt()?.expect_code(0)?;
    let rows = scene.database()?.events_of(Transport::Tcp, tuple)?;
    is_of(&rows, client.done.pid, "anthropic")?;
    let cmdline = rows.iter().all(|row| row.cmdline.as_deref().unwrap_or_default().contains("claude"));
    ensure!(cmdline && rows.iter().all(|row| row.preexisting), "{rows:#?}");
    Ok(())
}

fn polling_sees_what_a_thread_has_for_itself() -> Result<()> {
    for way in [Way::OwnDescriptors, Way::OwnNetwork] {
        let mut scene = Scene::new(User::Root)?;
        let rano = scene.observe(&POLLING)?;
        let client = Client::play(&scene.place, "claude", way, scene.tcp)?;
        let tuple = client.tuple()?;
        rano.wait_for_event("connect", tuple)?;
        rano.interrupt()?.expect_code(0)?;
        is_of(&scene.database()?.events_of(Transport::Tcp, tuple)?, client.done.pid, "anthropic")?;
    }
    Ok(())
}
