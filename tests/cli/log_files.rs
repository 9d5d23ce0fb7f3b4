//! Log files that somebody rotates, moves or removes while rano writes them.

use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::Path;

use anyhow::{Result, ensure};
use rustix::process::Signal;

use crate::support::actor::Transport;
use crate::support::namespace::User;
use crate::support::rano::{Launch, Rano};
use crate::support::scene::{FAST, Scene};
use crate::support::{stage, wait_until};

crate::tests![
    a_signal_opens_the_log_again_also_where_nothing_happens,
    a_log_that_is_moved_goes_on_in_a_new_file,
    a_log_that_is_removed_goes_on_in_a_new_file,
    a_log_that_is_cut_goes_on_at_its_beginning,
    a_log_that_cannot_be_opened_again_goes_on_where_it_was,
    under_sudo_the_new_file_is_the_users_too,
];

fn read(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_default()
}

/// A connection of a new agent; where its line is.
fn connect(scene: &Scene, rano: &Rano, log: &Path) -> Result<String> {
    let mut claude = scene.agent("claude")?;
    let (_, tuple) = claude.connect(Transport::Tcp, scene.tcp)?;
    rano.wait_for_event("connect", tuple)?;
    let local = tuple.local.to_string();
    wait_until("the line is in the log", || Ok(read(log).contains(&local)))?;
    Ok(local)
}

const LOG: [&str; 3] = ["--no-sqlite", "--log-file", "events.log"];

fn a_signal_opens_the_log_again_also_where_nothing_happens() -> Result<()> {
    let mut scene = Scene::new(User::Ordinary)?;
    let log = scene.directory().join("events.log");
    let rotated = scene.directory().join("events.log.1");
    // Polling so seldom that nothing but the signal wakes it.
    let rano = scene.observe_every(3_000_000, &LOG)?;
    let before = read(&log);
    fs::rename(&log, &rotated)?;
    rano.signal(Signal::USR1)?;
    wait_until("there is a new log", || Ok(log.exists()))?;
    let finished = rano.interrupt()?;
    finished.expect_code(0)?;
    ensure!(read(&rotated).starts_with(&before) && !read(&rotated).contains("Summary"));
    ensure!(read(&log).contains("Summary"), "{finished:#?}");
    ensure!(fs::metadata(&log)?.permissions().mode() & 0o7777 == 0o600);
    ensure!(!finished.stderr.contains("moved or removed"), "it was asked for: {finished:#?}");
    Ok(())
}

/// Nobody tells rano.
fn check_lost(lose: impl FnOnce(&Path) -> Result<()>) -> Result<()> {
    let mut scene = Scene::new(User::Ordinary)?;
    let log = scene.directory().join("events.log");
    let rano = scene.observe(&LOG)?;
    let first = connect(&scene, &rano, &log)?;
    lose(&log)?;
    let second = connect(&scene, &rano, &log)?;
    let finished = rano.interrupt()?;
    finished.expect_code(0)?;
    let text = read(&log);
    let connected = |local: &str| text.lines().any(|line| line.contains("+ connect") && line.contains(local));
    ensure!(connected(&second) && !connected(&first) && text.contains("Summary"), "{text}");
    let said = |line: &&str| line.contains("events.log was moved or removed");
    ensure!(finished.stderr.lines().filter(said).count() == 1, "{finished:#?}");
    Ok(())
}

fn a_log_that_is_moved_goes_on_in_a_new_file() -> Result<()> {
    check_lost(|log| Ok(fs::rename(log, log.with_extension("old"))?))
}

fn a_log_that_is_removed_goes_on_in_a_new_file() -> Result<()> {
    check_lost(|log| Ok(fs::remove_file(log)?))
}

/// `copytruncate`.
fn a_log_that_is_cut_goes_on_at_its_beginning() -> Result<()> {
    let mut scene = Scene::new(User::Ordinary)?;
    let log = scene.directory().join("events.log");
    let rano = scene.observe(&LOG)?;
    connect(&scene, &rano, &log)?;
    fs::OpenOptions::new().write(true).open(&log)?.set_len(0)?;
    connect(&scene, &rano, &log)?;
    rano.interrupt()?.expect_code(0)?;
    ensure!(!read(&log).contains('\0'), "there is a hole in it");
    Ok(())
}

fn a_log_that_cannot_be_opened_again_goes_on_where_it_was() -> Result<()> {
    let mut scene = Scene::new(User::Ordinary)?;
    let log = scene.directory().join("events.log");
    let old = scene.directory().join("events.old");
    let rano = scene.observe(&LOG)?;
    fs::rename(&log, &old)?;
    fs::create_dir(&log)?;
    let first = connect(&scene, &rano, &old)?;
    let second = connect(&scene, &rano, &old)?;
    // Nobody tells rano.
    fs::remove_dir(&log)?;
    let third = connect(&scene, &rano, &log)?;
    let finished = rano.interrupt()?;
    finished.expect_code(0)?;
    ensure!(read(&old).contains(&first) && read(&old).contains(&second) && read(&log).contains(&third));
    let said = |line: &&str| line.contains("cannot open events.log again: it is a directory");
    ensure!(finished.stderr.lines().filter(said).count() == 1, "{finished:#?}");
    Ok(())
}

fn under_sudo_the_new_file_is_the_users_too() -> Result<()> {
    let scene = Scene::new(User::Root)?;
    let user = scene.place.with_user(User::Ordinary);
    let directory = stage::directory(&user)?;
    let log = directory.path().join("events.log");
    let id = user.uid().to_string();
    // Both sources, whose threads give up what they do not need at different times.
    for source in ["proc", "auto"] {
        let launch = Launch::new(&scene.place, directory.path())?;
        let launch = launch.env("SUDO_UID", &id).env("SUDO_GID", &id).args(FAST).args(LOG);
        let mut claude = scene.agent("claude")?;
        let (_, older) = claude.connect(Transport::Tcp, scene.tcp)?;
        let rano = launch.args(["--source", source]).start()?;
        rano.wait_for_event("connect", older)?;
        connect(&scene, &rano, &log)?;
        fs::remove_file(&log)?;
        connect(&scene, &rano, &log)?;
        ensure!(fs::metadata(&log)?.uid() == user.uid());
        fs::rename(&log, log.with_extension("old"))?;
        rano.signal(Signal::USR1)?;
        wait_until("there is a new log", || Ok(log.exists()))?;
        ensure!(fs::metadata(&log)?.uid() == user.uid());
        rano.interrupt()?.expect_code(0)?;
    }
    Ok(())
}
