//! Processes whose parent was gone before rano looked: whose they are, and what is said where nobody knows.

use std::process::Command;

use anyhow::{Result, ensure};
use rustix::process::Signal;

use crate::support::actor::{Actor, Birth, Transport};
use crate::support::namespace::User;
use crate::support::rano::Rano;
use crate::support::scene::Scene;
use crate::support::trial::skip;

crate::tests![
    an_orphan_is_its_agents_by_the_mark_in_its_environment,
    an_orphan_that_was_there_before_is_too,
    an_orphan_without_a_mark_is_counted,
    a_mark_of_a_users_own_agent_counts,
    an_orphan_of_either_of_two_agents_is_not_guessed,
    orphans_in_a_session_that_began_outside_are_no_others,
];

/// What the agent sets for all that it starts.
const MARK: &str = "CLAUDECODE";

fn marked(scene: &Scene) -> Result<Actor> {
    Actor::start_prepared(&scene.place, "claude", &[], |command| {
        command.env(MARK, "1");
    })
}

fn an_orphan_is_its_agents_by_the_mark_in_its_environment() -> Result<()> {
    let mut scene = Scene::new(User::Ordinary)?;
    let mut claude = marked(&scene)?;
    let rano = scene.observe(&["--source", "proc"])?;
    let orphan = claude.bear(&claude.myself(), "download", Birth::Orphan)?;
    let (_, tuple) = claude.connect_in(&orphan, Transport::Tcp, scene.tcp)?;
    rano.wait_for_event("connect", tuple)?;
    // And what it starts.
    let child = claude.spawn(&orphan, "helper")?;
    let (_, of_child) = claude.connect_in(&child, Transport::Tcp, scene.tcp)?;
    rano.wait_for_event("connect", of_child)?;
    rano.interrupt()?.expect_code(0)?;
    let rows = scene.database()?.events_of(Transport::Tcp, tuple)?;
    let is_its = |row: &crate::support::database::EventRow| {
        let ancestry = format!("claude:{}", claude.pid());
        row.pid == Some(orphan.pid)
            && row.provider == "anthropic"
            && row.ancestry_path.as_deref().is_some_and(|path| path.contains(&ancestry))
    };
    ensure!(!rows.is_empty() && rows.iter().all(is_its), "{rows:#?}");
    Ok(())
}

fn an_orphan_that_was_there_before_is_too() -> Result<()> {
    let mut scene = Scene::new(User::Ordinary)?;
    let mut claude = marked(&scene)?;
    let orphan = claude.bear(&claude.myself(), "download", Birth::Orphan)?;
    let (_, tuple) = claude.connect_in(&orphan, Transport::Tcp, scene.tcp)?;
    let rano = scene.observe(&["--source", "proc"])?;
    rano.wait_for_event("connect", tuple)?;
    rano.interrupt()?.expect_code(0)?;
    Ok(())
}

fn an_orphan_without_a_mark_is_counted() -> Result<()> {
    let mut scene = Scene::new(User::Ordinary)?;
    let mut claude = scene.agent("claude")?;
    let rano = scene.observe(&["--source", "proc"])?;
    ensure_counted_only(&mut scene, &mut claude, rano)
}

fn a_mark_of_a_users_own_agent_counts() -> Result<()> {
    let mut scene = Scene::new(User::Ordinary)?;
    let file = scene.directory().join("own.toml");
    std::fs::write(&file, "[[agents]]\nname = 'helper'\nprovider = 'acme'\nenvironment = ['HELPER_RUNS']\n")?;
    let mut helper = Actor::start_prepared(&scene.place, "helper", &[], |command| {
        command.env("HELPER_RUNS", "1");
    })?;
    let path = file.display().to_string();
    let rano = scene.observe(&["--source", "proc", "--config-toml", &path])?;
    // A look while its forker is there would know whose it is.
    rano.stop()?;
    let orphan = helper.bear(&helper.myself(), "download", Birth::Orphan)?;
    rano.signal(Signal::CONT)?;
    let (_, tuple) = helper.connect_in(&orphan, Transport::Tcp, scene.tcp)?;
    rano.wait_for_event("connect", tuple)?;
    rano.interrupt()?.expect_code(0)?;
    let rows = scene.database()?.events_of(Transport::Tcp, tuple)?;
    ensure!(!rows.is_empty() && rows.iter().all(|row| row.provider == "acme"), "{rows:#?}");
    Ok(())
}

fn an_orphan_of_either_of_two_agents_is_not_guessed() -> Result<()> {
    let mut scene = Scene::new(User::Ordinary)?;
    let mut claude = marked(&scene)?;
    let _other = marked(&scene)?;
    let rano = scene.observe(&["--source", "proc"])?;
    ensure_counted_only(&mut scene, &mut claude, rano)
}

/// Where no setsid(2) came before, as below a container's entry point, everybody's session reads 0. The tests above,
/// once more in a pid namespace of their own.
fn orphans_in_a_session_that_began_outside_are_no_others() -> Result<()> {
    if !rustix::process::geteuid().is_root() {
        return Err(skip("a pid namespace of one's own takes root".to_owned()));
    }
    let output = Command::new("unshare")
        .args(["--pid", "--fork", "--kill-child", "--mount-proc"])
        .arg(std::env::current_exe()?)
        .args(["orphans::an_orphan_is_its_agents_by_the_mark_in_its_environment", "--exact"])
        .output()?;
    let text = String::from_utf8_lossy(&output.stdout);
    ensure!(output.status.success() && text.contains("1 passed"), "{text}");
    Ok(())
}

/// An orphan of `claude` connects: nobody is told to have done so, and it is counted.
fn ensure_counted_only(scene: &mut Scene, claude: &mut Actor, rano: Rano) -> Result<()> {
    // A look while its forker is there would know whose it is.
    rano.stop()?;
    let orphan = claude.bear(&claude.myself(), "download", Birth::Orphan)?;
    rano.signal(Signal::CONT)?;
    let (_, tuple) = claude.connect_in(&orphan, Transport::Tcp, scene.tcp)?;
    scene.let_it_look(&rano)?;
    let finished = rano.interrupt()?;
    finished.expect_code(0)?;
    let database = scene.database()?;
    ensure!(database.events_of(Transport::Tcp, tuple)?.is_empty(), "it is somebody's");
    ensure!(database.count("SELECT vanished FROM sessions")? > 0, "{finished:#?}");
    Ok(())
}
