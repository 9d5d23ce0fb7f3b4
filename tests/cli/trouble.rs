//! A system that withholds something: netlink, descriptors, other people's processes, the clock, the database's file.

use std::fs;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use rustix::process::{Pid, Resource, Rlimit};
use serde_json::json;

use crate::support::actor::{Actor, Ending, Service, Transport};
use crate::support::database::Database;
use crate::support::namespace::{User, become_ordinary, is_root};
use crate::support::rano::Launch;
use crate::support::scene::{FAST, Scene};
use crate::support::trial::skip;

crate::tests![
    without_netlink_the_tables_are_read_as_text_and_the_banner_says_why,
    running_out_of_descriptors_for_a_while_ends_nothing_and_is_counted,
    a_limit_of_file_sizes_ends_nothing,
    a_limit_of_file_sizes_from_the_start_ends_nothing_and_leaves_no_file,
    a_full_disk_behind_standard_output_ends_nothing,
    a_filesystem_without_shared_mappings_is_named_and_keeps_no_file,
    a_database_that_vanishes_is_said_and_counted,
    where_proc_hides_others_ones_own_agents_are_seen_and_the_banner_says_so,
    a_clock_that_jumps_changes_no_duration,
    after_a_kill_nothing_older_than_the_flush_interval_is_missing,
    the_pid_of_an_ancestor_is_refused,
    a_datagram_socket_that_takes_the_place_of_another_and_says_nothing_is_seen,
];

/// Makes every netlink socket of the program fail with EPERM, as a container's seccomp profile can.
fn refuse_netlink(launch: &mut Launch) {
    // SAFETY: between fork and exec only system calls are made; nothing allocates or locks.
    unsafe {
        launch.command().pre_exec(|| {
            install_filter().map_err(|errno| std::io::Error::from_raw_os_error(errno.raw_os_error()))
        });
    }
}

#[expect(clippy::cast_possible_truncation, reason = "numbers of the kernel's interface, all small")]
fn install_filter() -> rustix::io::Result<()> {
    const LOAD: u16 = (libc::BPF_LD | libc::BPF_W | libc::BPF_ABS) as u16;
    const JUMP_IF_EQUAL: u16 = (libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K) as u16;
    const RETURN: u16 = (libc::BPF_RET | libc::BPF_K) as u16;
    const SOCKET: u32 = libc::SYS_socket as u32;
    const NETLINK: u32 = libc::AF_NETLINK as u32;
    const REFUSE: u32 = libc::SECCOMP_RET_ERRNO | libc::EPERM as u32;
    let step = |code, jt, jf, k| libc::sock_filter { code, jt, jf, k };
    // struct seccomp_data: the call's number at 0, the low half of its first argument at 16 (little endian).
    let mut steps = [
        step(LOAD, 0, 0, 0),
        step(JUMP_IF_EQUAL, 0, 3, SOCKET),
        step(LOAD, 0, 0, 16),
        step(JUMP_IF_EQUAL, 0, 1, NETLINK),
        step(RETURN, 0, 0, REFUSE),
        step(RETURN, 0, 0, libc::SECCOMP_RET_ALLOW),
    ];
    let program = libc::sock_fprog { len: 6, filter: steps.as_mut_ptr() };
    rustix::thread::set_no_new_privs(true)?;
    // SAFETY: the pointer is to a program that outlives the call.
    let result = unsafe { libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, &raw const program) };
    if result == 0 { Ok(()) } else { Err(rustix::io::Errno::PERM) }
}

fn without_netlink_the_tables_are_read_as_text_and_the_banner_says_why() -> Result<()> {
    let scene = Scene::new(User::Ordinary)?;
    let mut claude = scene.agent("claude")?;
    let (connection, tuple) = claude.connect(Transport::Tcp, scene.tcp)?;
    let mut launch = scene.launch()?.args(FAST);
    refuse_netlink(&mut launch);
    let rano = launch.start()?;
    rano.wait_for_event("connect", tuple)?;
    claude.close(connection, Ending::InOrder)?;
    rano.wait_for_event("close", tuple)?;
    let finished = rano.interrupt()?;
    finished.expect_code(0)?;
    let reason =
        |line: &str| line.contains("source") && line.contains("as text") && line.contains("permitted");
    ensure!(finished.stderr.lines().any(reason), "{}", finished.stderr);
    ensure!(finished.stdout.lines().any(reason), "{}", finished.stdout);
    let reason = scene.database()?.text("SELECT source_reason FROM sessions")?;
    ensure!(reason.contains("as text"), "{reason}");
    Ok(())
}

/// Sets how many descriptors `pid` may have; returns what it was.
fn limit_descriptors(pid: u32, most: u64) -> Result<u64> {
    let inherited = rustix::process::getrlimit(Resource::Nofile);
    let limit = Rlimit { current: Some(most), ..inherited };
    let before = rustix::process::prlimit(Pid::from_raw(pid.cast_signed()), Resource::Nofile, limit)?;
    before.current.context("there is a limit")
}

fn running_out_of_descriptors_for_a_while_ends_nothing_and_is_counted() -> Result<()> {
    // Root's limits may be set by root without CAP_SYS_RESOURCE.
    let mut scene = Scene::new(if is_root() { User::Root } else { User::Ordinary })?;
    let mut claude = scene.agent("claude")?;
    let (_, older) = claude.connect(Transport::Tcp, scene.tcp)?;
    // As text, each look at the tables has to open a file.
    let mut launch = scene.launch()?.args(FAST).args(["--source", "proc"]);
    refuse_netlink(&mut launch);
    let rano = launch.start()?;
    rano.wait_for_event("connect", older)?;
    let before = limit_descriptors(rano.pid(), 3)?;
    let (_, tuple) = claude.connect(Transport::Tcp, scene.tcp)?;
    let counted = || scene.database()?.count("SELECT unread FROM sessions");
    crate::support::wait_until("failed looks are counted", || Ok(counted()? > 0))?;
    limit_descriptors(rano.pid(), before)?;
    rano.wait_for_event("connect", tuple)?;
    scene.let_it_look(&rano)?;
    rano.interrupt()?.expect_code(0)?;
    let rows = scene.database()?.events_of(Transport::Tcp, older)?;
    ensure!(rows.len() == 1, "a connection that was open all the time: {rows:#?}");
    Ok(())
}

/// No counter of the kernel tells the two looks apart: one socket in use before and after, and no datagram.
fn a_datagram_socket_that_takes_the_place_of_another_and_says_nothing_is_seen() -> Result<()> {
    let mut scene = Scene::new(User::Ordinary)?;
    let server = scene.server.serve(Transport::Udp, "127.0.0.1:0", Service::Answer)?;
    let mut claude = scene.agent("claude")?;
    let (mut connection, first) = claude.connect(Transport::Udp, server)?;
    let rano = scene.launch()?.args(["--interval-ms", "300", "--stats-interval-ms", "0"]).start()?;
    rano.wait_for_event("connect", first)?;
    for _ in 0..5 {
        claude.close(connection, Ending::InOrder)?;
        let (next, tuple) = claude.connect(Transport::Udp, server)?;
        rano.wait_for_event("connect", tuple)?;
        connection = next;
    }
    rano.interrupt()?.expect_code(0)?;
    Ok(())
}

/// For the program that the calling process becomes.
fn write_to_a_full_disk() -> std::io::Result<()> {
    let full = rustix::fs::open(c"/dev/full", rustix::fs::OFlags::WRONLY, rustix::fs::Mode::empty())?;
    // SAFETY: both are open descriptors.
    match unsafe { libc::dup2(std::os::fd::AsRawFd::as_raw_fd(&full), libc::STDOUT_FILENO) } {
        -1 => Err(std::io::Error::last_os_error()),
        _ => Ok(()),
    }
}

fn a_full_disk_behind_standard_output_ends_nothing() -> Result<()> {
    let scene = Scene::new(User::Ordinary)?;
    let mut launch = scene.launch()?.args(FAST).args(["--db-flush-ms", "20"]);
    // SAFETY: between fork and exec only system calls are made.
    unsafe {
        launch.command().pre_exec(write_to_a_full_disk);
    }
    let rano = launch.start()?;
    let mut claude = scene.agent("claude")?;
    for _ in 0..2 {
        let (_, tuple) = claude.connect(Transport::Tcp, scene.tcp)?;
        let is_stored = || {
            let rows = scene.database().and_then(|database| database.events_of(Transport::Tcp, tuple));
            rows.is_ok_and(|rows| !rows.is_empty())
        };
        crate::support::wait_until("it is in the history", || Ok(is_stored()))?;
    }
    let finished = rano.interrupt()?;
    finished.expect_code(3)?;
    ensure!(
        finished.stderr.contains("standard output") && finished.stderr.contains("going on"),
        "{finished:#?}"
    );
    ensure!(finished.stderr.contains("  connects 2\n"), "{finished:#?}");
    Ok(())
}

/// Makes shared mappings of files that may be written to fail with ENODEV, as some filesystems do.
fn refuse_shared_mappings(launch: &mut Launch) {
    // SAFETY: between fork and exec only system calls are made; nothing allocates or locks.
    unsafe {
        launch.command().pre_exec(|| {
            install_filter_of_mappings()
                .map_err(|errno| std::io::Error::from_raw_os_error(errno.raw_os_error()))
        });
    }
}

#[expect(clippy::cast_possible_truncation, reason = "numbers of the kernel's interface, all small")]
fn install_filter_of_mappings() -> rustix::io::Result<()> {
    const LOAD: u16 = (libc::BPF_LD | libc::BPF_W | libc::BPF_ABS) as u16;
    const JUMP_IF_EQUAL: u16 = (libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K) as u16;
    const RETURN: u16 = (libc::BPF_RET | libc::BPF_K) as u16;
    const REFUSE: u32 = libc::SECCOMP_RET_ERRNO | libc::ENODEV as u32;
    let step = |code, jt, jf, k| libc::sock_filter { code, jt, jf, k };
    // struct seccomp_data: the call's number at 0, the low halves of its third and fourth argument at 32 and 40.
    let mut steps = [
        step(LOAD, 0, 0, 0),
        step(JUMP_IF_EQUAL, 0, 5, libc::SYS_mmap as u32),
        step(LOAD, 0, 0, 32),
        step(JUMP_IF_EQUAL, 0, 3, (libc::PROT_READ | libc::PROT_WRITE) as u32),
        step(LOAD, 0, 0, 40),
        step(JUMP_IF_EQUAL, 0, 1, libc::MAP_SHARED as u32),
        step(RETURN, 0, 0, REFUSE),
        step(RETURN, 0, 0, libc::SECCOMP_RET_ALLOW),
    ];
    let program = libc::sock_fprog { len: 8, filter: steps.as_mut_ptr() };
    rustix::thread::set_no_new_privs(true)?;
    // SAFETY: the pointer is to a program that outlives the call.
    match unsafe { libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, &raw const program) } {
        0 => Ok(()),
        _ => Err(rustix::io::Errno::from_raw_os_error(
            std::io::Error::last_os_error().raw_os_error().unwrap_or(0),
        )),
    }
}

fn a_filesystem_without_shared_mappings_is_named_and_keeps_no_file() -> Result<()> {
    let scene = Scene::new(User::Ordinary)?;
    let mut launch = scene.launch()?.args(FAST).args(["--source", "proc"]);
    refuse_shared_mappings(&mut launch);
    let finished = launch.run()?;
    finished.expect_code(3)?;
    ensure!(finished.stderr.contains("no shared mappings"), "{}", finished.stderr);
    ensure!(finished.stderr.contains("hint: name a file on a local filesystem"), "{}", finished.stderr);
    ensure_no_file(&scene)
}

/// No history was left behind, not even a half-made one.
fn ensure_no_file(scene: &Scene) -> Result<()> {
    for entry in fs::read_dir(scene.directory())? {
        let name = entry?.file_name();
        ensure!(!name.to_string_lossy().contains("sqlite"), "{} was left", name.display());
    }
    Ok(())
}

fn a_limit_of_file_sizes_ends_nothing() -> Result<()> {
    let mut scene = Scene::new(if is_root() { User::Root } else { User::Ordinary })?;
    let rano = scene.observe(&["--db-flush-ms", "20"])?;
    let limit = Rlimit { current: Some(4096), ..rustix::process::getrlimit(Resource::Fsize) };
    rustix::process::prlimit(Pid::from_raw(rano.pid().cast_signed()), Resource::Fsize, limit)?;
    let mut claude = scene.agent("claude")?;
    let (_, tuple) = claude.connect(Transport::Tcp, scene.tcp)?;
    rano.wait_for_event("connect", tuple)?;
    let finished = rano.interrupt()?;
    finished.expect_code(3)?;
    ensure!(finished.stderr.contains("limit of file sizes"), "{}", finished.stderr);
    ensure!(finished.stdout.contains("\nSummary\n"), "{}", finished.stdout);
    ensure!(finished.stdout.contains("sqlite dropped"), "{}", finished.stdout);
    Ok(())
}

fn a_limit_of_file_sizes_from_the_start_ends_nothing_and_leaves_no_file() -> Result<()> {
    let scene = Scene::new(User::Ordinary)?;
    let mut launch = scene.launch()?.args(FAST);
    let limit = Rlimit { current: Some(4096), ..rustix::process::getrlimit(Resource::Fsize) };
    // SAFETY: between fork and exec only a system call is made.
    unsafe {
        launch.command().pre_exec(move || Ok(rustix::process::setrlimit(Resource::Fsize, limit)?));
    }
    let rano = launch.start()?;
    let mut claude = scene.agent("claude")?;
    let (_, tuple) = claude.connect(Transport::Tcp, scene.tcp)?;
    rano.wait_for_event("connect", tuple)?;
    let finished = rano.interrupt()?;
    finished.expect_code(3)?;
    ensure!(finished.stderr.contains("limit of file sizes"), "{}", finished.stderr);
    ensure!(finished.stdout.contains("1 sqlite dropped"), "{}", finished.stdout);
    ensure_no_file(&scene)
}

/// Noticed with the next batch, even if that is the last one; the batch is written again.
fn a_database_that_vanishes_is_said_and_counted() -> Result<()> {
    for flush_ms in ["20", "60000"] {
        check_vanished_database(flush_ms)?;
    }
    Ok(())
}

fn check_vanished_database(flush_ms: &str) -> Result<()> {
    let mut scene = Scene::new(User::Ordinary)?;
    let rano = scene.observe(&["--db-flush-ms", flush_ms])?;
    let mut claude = scene.agent("claude")?;
    let path = scene.directory().join("observer.sqlite");
    fs::remove_file(&path)?;
    let (_, tuple) = claude.connect(Transport::Tcp, scene.tcp)?;
    rano.wait_for_event("connect", tuple)?;
    let finished = rano.interrupt()?;
    finished.expect_code(3)?;
    let said =
        |line: &str| line.contains("observer.sqlite was removed") && line.contains("observer-2.sqlite");
    ensure!(finished.stderr.lines().any(said), "{}", finished.stderr);
    ensure!(finished.stdout.contains("history goes on in observer-2.sqlite"), "{}", finished.stdout);
    let fresh = Database::open(&scene.directory().join("observer-2.sqlite"))?;
    ensure!(fresh.events_of(Transport::Tcp, tuple)?.len() == 1);
    // Every event is in the fresh file or counted there.
    let all = "SELECT connects + sqlite_dropped FROM sessions WHERE clean_exit";
    ensure!(fresh.count(all)? == 2, "{finished:#?}");
    let lost = fresh.count("SELECT sqlite_dropped FROM sessions")?;
    ensure!((lost > 0) == finished.stdout.contains("sqlite dropped"), "{lost} {}", finished.stdout);
    Ok(())
}

/// Mounts a /proc that shows a user his own processes only, in a mount namespace of the calling process's own.
fn hide_others() -> rustix::io::Result<()> {
    use rustix::mount::{MountFlags, MountPropagationFlags, mount, mount_change};
    // SAFETY: CLONE_FILES is not among the flags, so descriptor tables stay as they are.
    unsafe { rustix::thread::unshare_unsafe(rustix::thread::UnshareFlags::NEWNS)? };
    mount_change(c"/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC)?;
    mount(c"proc", c"/proc", c"proc", MountFlags::empty(), Some(c"hidepid=2"))
}

fn where_proc_hides_others_ones_own_agents_are_seen_and_the_banner_says_so() -> Result<()> {
    if !is_root() {
        return Err(skip("mounting /proc needs root"));
    }
    let mut scene = Scene::new(User::Ordinary)?;
    let mut roots = Actor::start(&scene.place.with_user(User::Root), "claude")?;
    let (_, hidden) = roots.connect(Transport::Tcp, scene.tcp)?;
    let mut claude = scene.agent("claude")?;
    let (_, tuple) = claude.connect(Transport::Tcp, scene.tcp)?;
    let id = scene.place.uid();
    let mut launch = Launch::new(&scene.place.with_user(User::Root), scene.directory())?.args(FAST);
    // SAFETY: between fork and exec only system calls are made; nothing allocates or locks.
    unsafe {
        launch.command().pre_exec(move || {
            hide_others()?;
            become_ordinary(id)
        });
    }
    let rano = launch.start()?;
    rano.wait_for_event("connect", tuple)?;
    scene.let_it_look(&rano)?;
    let finished = rano.interrupt()?;
    finished.expect_code(0)?;
    let said = |line: &str| line.contains("source") && line.contains("hidepid");
    ensure!(finished.stderr.lines().any(said), "{finished:#?}");
    ensure!(scene.database()?.events_of(Transport::Tcp, hidden)?.is_empty());
    Ok(())
}

/// Connections of 1, 2 and 3 seconds, while the wall clock goes back an hour, forward a day, and before 1970.
fn a_clock_that_jumps_changes_no_duration() -> Result<()> {
    const HOUR_MS: i64 = 3_600_000;
    let scene = Scene::new(User::Ordinary)?;
    let start_ms = 1_768_678_200_000;
    let moment = |boot_ms: u64, unix_ms: i64| json!({"boot_ns": boot_ms * 1_000_000, "unix_ms": unix_ms});
    let id = json!({"pid": 4242, "start_time": 7});
    let mut lines = vec![json!({"process": {"seen": {
        "id": id, "parent": 1, "at": moment(1_000, start_ms),
        "image": {"comm": "claude", "exe": "/usr/bin/claude", "argv": ["claude"], "uid": 1000},
    }}})];
    for (cookie, closed_at) in [(1, start_ms - HOUR_MS), (2, start_ms + 24 * HOUR_MS), (3, -HOUR_MS)] {
        let socket = json!({"cookie": {"netns": 1, "cookie": cookie}});
        lines.push(json!({"socket": {"opened": {
            "id": socket, "role": "connect", "protocol": "tcp", "state": "established", "owner": id,
            "local": {"ip": format!("127.0.0.1:{}", 40_000 + cookie)}, "remote": {"ip": "127.0.0.1:443"},
            "quality": "polled", "preexisting": false, "at": moment(2_000, start_ms), "netns": 1,
        }}}));
        let at = moment(2_000 + cookie * 1_000, closed_at);
        lines.push(json!({"socket": {"closed": {"id": socket, "at": at}}}));
    }
    let lines: Vec<String> = lines.iter().map(ToString::to_string).collect();
    fs::write(scene.directory().join("recording.jsonl"), lines.join("\n"))?;
    let arguments = ["--replay", "recording.jsonl", "--stats-interval-ms", "10"];
    scene.launch()?.args(arguments).run()?.expect_code(0)?;
    let durations = "SELECT group_concat(duration_ms) FROM events WHERE event = 'close'";
    ensure!(scene.database()?.text(durations)? == "1000,2000,3000");
    ensure!(scene.database()?.count("SELECT clean_exit FROM sessions")? == 1);
    Ok(())
}

fn after_a_kill_nothing_older_than_the_flush_interval_is_missing() -> Result<()> {
    const FLUSH_MS: u64 = 1_000;
    let mut scene = Scene::new(User::Ordinary)?;
    let rano = scene.observe(&["--db-flush-ms", &FLUSH_MS.to_string()])?;
    let mut claude = scene.agent("claude")?;
    let begun = Instant::now();
    let mut shown = Vec::new();
    // Events all the time, so that none is written merely because nothing follows it.
    while begun.elapsed() < Duration::from_millis(3 * FLUSH_MS) {
        let (connection, tuple) = claude.connect(Transport::Tcp, scene.tcp)?;
        rano.wait_for_event("connect", tuple)?;
        shown.push((Instant::now(), tuple));
        claude.close(connection, Ending::InOrder)?;
    }
    let killed = Instant::now();
    rano.signal(rustix::process::Signal::KILL)?;
    rano.wait()?;
    // Recovery of the write-ahead log needs a writer.
    let path = scene.directory().join("observer.sqlite");
    let check = "PRAGMA integrity_check";
    let integrity: String = rusqlite::Connection::open(path)?.query_row(check, [], |row| row.get(0))?;
    ensure!(integrity == "ok", "{integrity}");
    let database = scene.database()?;
    // The commit itself takes its time on a busy machine.
    let due = Duration::from_millis(FLUSH_MS + FLUSH_MS / 2);
    let old: Vec<_> = shown.iter().filter(|(at, _)| killed - *at > due).collect();
    ensure!(!old.is_empty(), "all of it happened at once");
    for (_, tuple) in old {
        ensure!(!database.events_of(Transport::Tcp, *tuple)?.is_empty(), "{tuple:?} is missing");
    }
    ensure!(database.count("SELECT clean_exit FROM sessions")? == 0);
    Ok(())
}

fn the_pid_of_an_ancestor_is_refused() -> Result<()> {
    let scene = Scene::new(User::Ordinary)?;
    let line = format!("{} --once --no-sqlite --pid $$; exit $?", crate::support::stage::rano()?.display());
    let shell = Launch::of(Path::new("/bin/sh"), &scene.place, scene.directory());
    let finished = shell.args(["-c", &line]).run()?;
    finished.expect_code(2)?;
    let said = |line: &str| line.starts_with("error: --pid") && line.contains("started from");
    ensure!(finished.stderr.lines().any(said), "{finished:#?}");
    Ok(())
}
