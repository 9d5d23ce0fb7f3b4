//! What is wrong gets one clear line that names it, and the right exit code; what is merely odd is handled.

use std::ffi::OsStr;
use std::fs;
use std::io::Read as _;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::Path;

use anyhow::{Context as _, Result, ensure};
use rustix::process::{Resource, Rlimit, setrlimit};

use crate::support::actor::{Actor, Service, Transport, invalid_utf8};
use crate::support::namespace::{Place, User, is_root};
use crate::support::rano::{Finished, Launch};
use crate::support::recording::Recording;
use crate::support::scene::{FAST, Scene};
use crate::support::stage;
use crate::support::trial::skip;

crate::tests![
    a_file_that_is_no_database_is_refused_and_kept,
    a_newer_database_is_refused_and_kept,
    a_directory_as_database_is_refused,
    a_database_in_a_missing_directory_is_refused,
    a_lock_that_is_given_up_costs_no_event,
    a_full_disk_is_said_and_counted,
    a_log_directory_that_cannot_be_written_is_refused,
    a_file_as_log_directory_is_refused,
    a_directory_as_config_file_is_refused,
    a_log_file_that_takes_nothing_is_said_and_ends_with_code_3,
    a_log_file_that_is_a_pipe_is_never_waited_for,
    a_recording_without_line_ends_is_refused,
    what_is_no_recording_is_not_shown,
    too_many_open_files_are_not_called_a_lack_of_permission,
    an_empty_pattern_is_refused,
    an_unknown_flag_gets_a_suggestion,
    a_program_as_command_gets_the_flag_to_watch_it,
    a_value_that_is_no_number_is_refused,
    pid_zero_is_refused,
    a_pid_that_is_gone_is_said,
    ones_own_pid_is_refused,
    a_name_with_control_characters_reaches_no_terminal_raw,
    a_command_line_of_128_kib_is_cut,
    secrets_in_a_command_line_are_redacted,
    secrets_in_ranos_own_arguments_are_not_stored,
    twenty_thousand_sockets_opened_at_once_are_all_seen,
];

/// Runs once, in an empty directory.
fn attempt(arguments: &[&str]) -> Result<Finished> {
    let place = Place::new(User::Ordinary)?;
    let directory = stage::directory(&place)?;
    Launch::new(&place, directory.path())?.args(["--once"]).args(arguments).run()
}

/// The exit code, and a line on standard error that begins with `error` and names `what`.
fn expect_refusal(finished: &Finished, code: i32, what: &str) -> Result<()> {
    finished.expect_code(code)?;
    let line = finished.stderr.lines().find(|line| line.starts_with("error"));
    ensure!(line.is_some_and(|line| line.contains(what)), "expected {what:?}: {finished:#?}");
    ensure!(!finished.stderr.contains("panicked"), "{finished:#?}");
    Ok(())
}

fn a_file_that_is_no_database_is_refused_and_kept() -> Result<()> {
    let place = Place::new(User::Ordinary)?;
    let directory = stage::directory(&place)?;
    let file = directory.path().join("notes.txt");
    let text = "remember the milk\n".repeat(100);
    fs::write(&file, &text)?;
    fs::set_permissions(&file, fs::Permissions::from_mode(0o666))?;
    let finished = Launch::new(&place, directory.path())?.args(["--once", "--sqlite", "notes.txt"]).run()?;
    expect_refusal(&finished, 3, "notes.txt")?;
    ensure!(fs::read_to_string(&file)? == text);
    Ok(())
}

fn a_newer_database_is_refused_and_kept() -> Result<()> {
    let place = Place::new(User::Ordinary)?;
    let directory = stage::directory(&place)?;
    let path = directory.path().join("newer.sqlite");
    let once = || Launch::new(&place, directory.path())?.args(["--once", "--sqlite", "newer.sqlite"]).run();
    once()?.expect_code(0)?;
    rusqlite::Connection::open(&path)?.execute_batch("PRAGMA user_version = 9999; CREATE TABLE kept(a)")?;
    let finished = once()?;
    expect_refusal(&finished, 3, "newer.sqlite")?;
    ensure!(finished.stderr.contains("newer") && finished.stderr.contains("9999"), "{finished:#?}");
    rusqlite::Connection::open(&path)?.execute_batch("SELECT a FROM kept")?;
    Ok(())
}

fn a_directory_as_database_is_refused() -> Result<()> {
    expect_refusal(&attempt(&["--sqlite", "/usr"])?, 3, "/usr")
}

fn a_database_in_a_missing_directory_is_refused() -> Result<()> {
    let finished = attempt(&["--sqlite", "/nonexistent/x.sqlite"])?;
    expect_refusal(&finished, 3, "/nonexistent/x.sqlite")
}

/// Live output goes on while another program holds the lock, and nothing is missing afterwards.
fn a_lock_that_is_given_up_costs_no_event() -> Result<()> {
    let mut scene = Scene::new(User::Ordinary)?;
    let rano = scene.observe(&["--db-flush-ms", "20"])?;
    let lock = rusqlite::Connection::open(scene.directory().join("observer.sqlite"))?;
    lock.execute_batch("BEGIN EXCLUSIVE")?;
    let mut claude = scene.agent("claude")?;
    let (_, tuple) = claude.connect(Transport::Tcp, scene.tcp)?;
    rano.wait_for_event("connect", tuple)?;
    lock.execute_batch("ROLLBACK")?;
    rano.interrupt()?.expect_code(0)?;
    ensure!(!scene.database()?.events_of(Transport::Tcp, tuple)?.is_empty());
    Ok(())
}

fn a_full_disk_is_said_and_counted() -> Result<()> {
    if !is_root() {
        return Err(skip("a small file system needs root to be mounted"));
    }
    let mut scene = Scene::new(User::Root)?;
    let mut server = Actor::start(&scene.place, "server")?;
    let address = server.serve(Transport::Tcp, "127.0.0.1:0", Service::Keep)?;
    let mut claude = scene.agent("claude")?;
    let full = scene.directory().join("full");
    fs::create_dir(&full)?;
    let mount_point = std::ffi::CString::new(full.as_os_str().as_encoded_bytes())?;
    let mut launch =
        scene.launch()?.args(FAST).args(["--sqlite", "full/observer.sqlite", "--db-flush-ms", "20"]);
    // SAFETY: between fork and exec only system calls are made; nothing allocates or locks.
    unsafe {
        launch.command().pre_exec(move || Ok(mount_small(&mount_point)?));
    }
    let rano = launch.start()?;
    scene.let_it_look(&rano)?;
    // Each connection is a row of its own, and together they are more than 256 KiB.
    claude.hold(address, 10_000)?;
    scene.let_it_look(&rano)?;
    let finished = rano.interrupt()?;
    ensure!(finished.status.code() != Some(101), "{finished:#?}");
    ensure!(finished.stderr.contains("observer.sqlite"), "nothing names the file: {}", finished.stderr);
    ensure!(finished.stdout.contains("SQLite") || finished.stdout.contains("sqlite"), "not in the summary");
    Ok(())
}

/// A file system of 256 KiB at `point`, in a mount namespace of the calling process's own.
fn mount_small(point: &std::ffi::CStr) -> rustix::io::Result<()> {
    use rustix::mount::{MountFlags, MountPropagationFlags, mount, mount_change};
    // SAFETY: CLONE_FILES is not among the flags, so descriptor tables stay as they are.
    unsafe { rustix::thread::unshare_unsafe(rustix::thread::UnshareFlags::NEWNS)? };
    mount_change(c"/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC)?;
    mount(c"tmpfs", point, c"tmpfs", MountFlags::empty(), Some(c"size=256k"))
}

fn a_log_directory_that_cannot_be_written_is_refused() -> Result<()> {
    let finished = attempt(&["--no-sqlite", "--log-dir", "/proc/1"])?;
    expect_refusal(&finished, 3, "/proc/1")
}

fn a_file_as_log_directory_is_refused() -> Result<()> {
    let finished = attempt(&["--no-sqlite", "--log-dir", "/etc/passwd"])?;
    expect_refusal(&finished, 3, "/etc/passwd: it is not a directory")?;
    ensure!(finished.stderr.contains("hint: name a directory"), "{finished:#?}");
    Ok(())
}

fn a_directory_as_config_file_is_refused() -> Result<()> {
    let finished = attempt(&["--no-sqlite", "--config", "/usr"])?;
    finished.expect_code(2)?;
    ensure!(finished.stderr.contains("✗ /usr: is a directory"), "{finished:#?}");
    Ok(())
}

fn a_log_file_that_takes_nothing_is_said_and_ends_with_code_3() -> Result<()> {
    let finished = attempt(&["--no-sqlite", "--log-file", "/dev/full"])?;
    finished.expect_code(3)?;
    ensure!(finished.stderr.contains("cannot write to /dev/full"), "{finished:#?}");
    Ok(())
}

fn a_log_file_that_is_a_pipe_is_never_waited_for() -> Result<()> {
    let place = Place::new(User::Ordinary)?;
    let directory = stage::directory(&place)?;
    let pipe = directory.path().join("pipe");
    let made = std::process::Command::new("mkfifo").args(["-m", "666"]).arg(&pipe).status()?;
    ensure!(made.success());
    let mut recording = Recording::new();
    for connection in 1..=3000 {
        recording = recording.connect(connection, u64::from(connection), "203.0.113.7:443");
    }
    let recording = recording.write(directory.path())?;
    let run = || -> Result<Finished> {
        let launch =
            Launch::new(&place, directory.path())?.args(["--no-sqlite", "--log-file", "pipe", "--replay"]);
        launch.args([&recording]).run()
    };
    expect_refusal(&run()?, 3, "it is a pipe that nobody reads")?;

    // Opened by somebody who does not read it.
    let mut reader = fs::OpenOptions::new().read(true).write(true).open(&pipe)?;
    let finished = run()?;
    finished.expect_code(3)?;
    ensure!(
        finished.stderr.contains("cannot write to pipe") && finished.stdout.contains("log lost:"),
        "{finished:#?}"
    );
    let mut lines = vec![0; 1 << 16];
    let length = reader.read(&mut lines)?;
    let text = String::from_utf8_lossy(&lines[..length]).into_owned();
    let whole =
        text.lines().take(100).all(|line| line.contains(" | + connect | ") && line.contains("claude"));
    ensure!(whole && text.lines().count() > 100, "{text}");
    Ok(())
}

fn a_recording_without_line_ends_is_refused() -> Result<()> {
    let place = Place::new(User::Ordinary)?;
    let directory = stage::directory(&place)?;
    let recording = directory.path().join("recording.jsonl");
    fs::write(&recording, vec![b' '; 3 << 20])?;
    let launch = Launch::new(&place, directory.path())?.args(["--no-sqlite", "--replay"]);
    expect_refusal(&launch.args([&recording]).run()?, 1, "the line is too long for a recording")
}

fn what_is_no_recording_is_not_shown() -> Result<()> {
    let place = Place::new(User::Ordinary)?;
    let directory = stage::directory(&place)?;
    let recording = directory.path().join("recording.jsonl");
    for text in ["\"hunter2\"", "{\"hunter2\": 1}", "hunter2"] {
        fs::write(&recording, text)?;
        let launch = Launch::new(&place, directory.path())?.args(["--no-sqlite", "--replay"]);
        let finished = launch.args([&recording]).run()?;
        expect_refusal(&finished, 1, "recording.jsonl:1: this is no line of a recording")?;
        ensure!(
            !finished.stderr.contains("hunter2") && !finished.stdout.contains("hunter2"),
            "{finished:#?}"
        );
    }
    Ok(())
}

fn too_many_open_files_are_not_called_a_lack_of_permission() -> Result<()> {
    let place = Place::new(User::Ordinary)?;
    let directory = stage::directory(&place)?;
    let (mut refused, mut databases) = (0, 0);
    // Wherever it is that the last one is missing.
    for limit in 4..40 {
        let mut launch = Launch::new(&place, directory.path())?
            .args(["--once", "--log-file", "events.log"])
            .args(["--sqlite", "observer.sqlite"]);
        // SAFETY: between fork and exec only a system call is made.
        unsafe {
            launch.command().pre_exec(move || {
                let limit = Rlimit { current: Some(limit), maximum: Some(limit) };
                Ok(setrlimit(Resource::Nofile, limit)?)
            });
        }
        let finished = launch.run()?;
        let said = finished.stderr.to_lowercase();
        ensure!(!said.contains("permission denied") && !said.contains("panicked"), "{limit}: {finished:#?}");
        if finished.status.code() != Some(0) {
            // What does not say why is the loader's, or a look at /proc that finds nothing.
            refused += usize::from(said.contains("too many open files"));
            databases += usize::from(said.contains("as database: too many open files\nhint: allow more"));
        }
    }
    ensure!(refused > 0 && databases > 0, "{refused} refused, {databases} of them for the database");
    Ok(())
}

fn an_empty_pattern_is_refused() -> Result<()> {
    expect_refusal(&attempt(&["--no-sqlite", "--pattern", ""])?, 2, "pattern")
}

fn an_unknown_flag_gets_a_suggestion() -> Result<()> {
    let finished = attempt(&["--intervall-ms", "5"])?;
    expect_refusal(&finished, 2, "--intervall-ms")?;
    ensure!(finished.stderr.contains("--interval-ms"), "{finished:#?}");
    Ok(())
}

/// `rano aider` is what somebody types who wants to watch aider.
fn a_program_as_command_gets_the_flag_to_watch_it() -> Result<()> {
    let place = Place::new(User::Ordinary)?;
    let directory = stage::directory(&place)?;
    for (arguments, is_program) in
        [(vec!["aider"], true), (vec!["confg"], false), (vec!["config", "x"], false)]
    {
        let finished = Launch::new(&place, directory.path())?.args(&arguments).run()?;
        expect_refusal(&finished, 2, arguments[arguments.len() - 1])?;
        ensure!(finished.stderr.contains("rano --pattern aider") == is_program, "{finished:#?}");
        ensure!(finished.stderr.contains("--pattern") == is_program, "{finished:#?}");
    }
    Ok(())
}

fn a_value_that_is_no_number_is_refused() -> Result<()> {
    expect_refusal(&attempt(&["--interval-ms", "abc"])?, 2, "--interval-ms")
}

fn pid_zero_is_refused() -> Result<()> {
    expect_refusal(&attempt(&["--no-sqlite", "--pid", "0"])?, 2, "0")
}

fn a_pid_that_is_gone_is_said() -> Result<()> {
    let place = Place::new(User::Ordinary)?;
    let actor = Actor::start(&place, "claude")?;
    let pid = actor.pid().to_string();
    actor.end()?;
    let directory = stage::directory(&place)?;
    let finished =
        Launch::new(&place, directory.path())?.args(["--once", "--no-sqlite", "--pid", &pid]).run()?;
    ensure!(finished.stderr.lines().any(|line| line.contains(&pid)), "{finished:#?}");
    ensure!(finished.status.code().is_some_and(|code| code <= 3), "{finished:#?}");
    Ok(())
}

fn ones_own_pid_is_refused() -> Result<()> {
    let place = Place::new(User::Ordinary)?;
    let directory = stage::directory(&place)?;
    let rano = stage::rano()?;
    let line = format!("exec {} --once --no-sqlite --pid $$", rano.display());
    let finished = Launch::of(Path::new("/bin/sh"), &place, directory.path()).args(["-c", &line]).run()?;
    expect_refusal(&finished, 2, "rano itself")
}

fn a_name_with_control_characters_reaches_no_terminal_raw() -> Result<()> {
    let mut scene = Scene::new(User::Ordinary)?;
    let mut claude =
        Actor::start_with(&scene.place, "claude", &[invalid_utf8(), OsStr::new("\x1b]0;x\x07")])?;
    claude.rename(b"ev\nil\x1b[31m\xff")?;
    let rano = scene.observe(&["--log-file", "log.txt", "--color", "never"])?;
    let (_, tuple) = claude.connect(Transport::Tcp, scene.tcp)?;
    let line = rano.wait_for_event("connect", tuple)?;
    ensure!(
        line.contains(&format!("pid={}", claude.pid())) && line.contains("| tcp |"),
        "cut in two: {line:?}"
    );
    let finished = rano.interrupt()?;
    finished.expect_code(0)?;
    let log = fs::read_to_string(scene.directory().join("log.txt"))?;
    for text in [&finished.stdout, &finished.stderr, &log] {
        ensure!(!text.chars().any(|c| c.is_control() && c != '\n'), "{text:?}");
    }
    Ok(())
}

fn a_command_line_of_128_kib_is_cut() -> Result<()> {
    let mut scene = Scene::new(User::Ordinary)?;
    // The kernel takes 128 KiB an argument, its terminating zero included.
    let long = "x".repeat(128 * 1024 - 1);
    let mut claude = Actor::start_with(&scene.place, "claude", &[long.as_ref()])?;
    let rano = scene.observe(&[])?;
    let (_, tuple) = claude.connect(Transport::Tcp, scene.tcp)?;
    rano.wait_for_event("connect", tuple)?;
    rano.interrupt()?.expect_code(0)?;
    let [row] = scene.database()?.events_of(Transport::Tcp, tuple)?.try_into().ok().context("one row")?;
    let stored = row.cmdline.unwrap_or_default();
    ensure!(stored.ends_with('…') && stored.len() <= 4096 + '…'.len_utf8(), "{} bytes", stored.len());
    Ok(())
}

fn secrets_in_a_command_line_are_redacted() -> Result<()> {
    let mut scene = Scene::new(User::Ordinary)?;
    let secret = "sk-ant-api03-0123456789abcdefghij";
    let mut claude = Actor::start_with(&scene.place, "claude", &["--api-key".as_ref(), secret.as_ref()])?;
    let rano = scene.observe(&["--json", "--log-file", "log.txt"])?;
    let (_, tuple) = claude.connect(Transport::Tcp, scene.tcp)?;
    rano.wait_for_event("connect", tuple)?;
    let finished = rano.interrupt()?;
    finished.expect_code(0)?;
    ensure!(!finished.stdout.contains(secret) && !finished.stderr.contains(secret), "{finished:#?}");
    for entry in fs::read_dir(scene.directory())? {
        let entry = entry?;
        // Below `.local` are only the entries of running sessions.
        if entry.file_type()?.is_dir() {
            continue;
        }
        let content = fs::read(entry.path())?;
        ensure!(!content.windows(secret.len()).any(|bytes| bytes == secret.as_bytes()));
    }
    let [row] = scene.database()?.events_of(Transport::Tcp, tuple)?.try_into().ok().context("one row")?;
    ensure!(row.cmdline.is_some_and(|cmdline| cmdline.contains("--api-key")));
    Ok(())
}

fn secrets_in_ranos_own_arguments_are_not_stored() -> Result<()> {
    let scene = Scene::new(User::Ordinary)?;
    let secret = "sk-ant-api03-0123456789abcdefghij";
    scene
        .launch()?
        .args(["--once", "--sqlite", "observer.sqlite", "--pattern", secret])
        .run()?
        .expect_code(0)?;
    let stored = scene.database()?.text("SELECT args || patterns FROM sessions")?;
    ensure!(stored.contains("--pattern") && !stored.contains(secret), "{stored}");
    Ok(())
}

fn twenty_thousand_sockets_opened_at_once_are_all_seen() -> Result<()> {
    const AGENTS: usize = 4;
    let mut scene = Scene::new(User::Ordinary)?;
    // One process may have so many descriptors open here, some of which it has already.
    let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile).maximum;
    let each = limit.map_or(5000, |limit| usize::try_from(limit - 100).unwrap_or(5000).min(5000));
    let rano = scene.observe(&["--db-queue-max", "100000"])?;
    let mut actors = Vec::new();
    for _ in 0..AGENTS {
        let mut server = Actor::start(&scene.place, "server")?;
        let address = server.serve(Transport::Tcp, "127.0.0.1:0", Service::Keep)?;
        let mut claude = scene.agent("claude")?;
        let tuples = claude.hold(address, each)?;
        rano.wait_for_event("connect", *tuples.last().context("there are some")?)?;
        actors.push((server, claude));
    }
    scene.let_it_look(&rano)?;
    rano.interrupt()?.expect_code(0)?;
    let database = scene.database()?;
    for (_, claude) in &actors {
        let connects = format!("FROM events WHERE event = 'connect' AND pid = {}", claude.pid());
        let seen = database.count(&format!("SELECT count(DISTINCT local_port) {connects}"))?;
        ensure!(seen == i64::try_from(each)?, "{seen} of {each}");
        ensure!(seen == database.count(&format!("SELECT count(*) {connects}"))?, "some twice");
    }
    Ok(())
}
