//! Connections that last, of processes into whose descriptors an ordinary user may not look.

use std::os::unix::fs::PermissionsExt as _;

use anyhow::{Result, ensure};

use crate::support::actor::{Actor, Ending, Transport};
use crate::support::namespace::{User, is_root};
use crate::support::scene::Scene;
use crate::support::trial::skip;
use crate::support::{program, stage};

crate::tests![
    a_lasting_connection_of_another_user_is_counted,
    a_lasting_connection_of_another_user_is_shown_on_request,
    a_child_that_may_not_be_looked_into_is_counted,
    a_strangers_connection_of_the_same_user_is_not_counted,
];

const POLLING: [&str; 2] = ["--source", "proc"];

fn another_user(scene: &Scene) -> Result<Actor> {
    if !is_root() {
        return Err(skip("needs root to run another user's process"));
    }
    Actor::start(&scene.place.with_user(User::Root), "service")
}

fn a_lasting_connection_of_another_user_is_counted() -> Result<()> {
    let mut scene = Scene::new(User::Ordinary)?;
    let mut service = another_user(&scene)?;
    service.connect(Transport::Tcp, scene.tcp)?;
    let rano = scene.observe(&POLLING)?;
    let (connection, _) = service.connect(Transport::Tcp, scene.tcp)?;
    scene.let_it_look(&rano)?;
    service.close(connection, Ending::InOrder)?;
    scene.let_it_look(&rano)?;
    rano.interrupt()?.expect_code(0)?;
    let counted = scene.database()?.count("SELECT unattributed FROM sessions")?;
    // The one before the observation is none of it.
    ensure!(counted == 1, "{counted}");
    Ok(())
}

fn a_lasting_connection_of_another_user_is_shown_on_request() -> Result<()> {
    let mut scene = Scene::new(User::Ordinary)?;
    let mut service = another_user(&scene)?;
    let rano = scene.observe(&["--source", "proc", "--include-unattributed"])?;
    let (connection, tuple) = service.connect(Transport::Tcp, scene.tcp)?;
    rano.wait_for_event("connect", tuple)?;
    service.close(connection, Ending::InOrder)?;
    rano.wait_for_event("close", tuple)?;
    rano.interrupt()?.expect_code(0)?;
    let rows = scene.database()?.events_of(Transport::Tcp, tuple)?;
    let is_nobodys = rows.iter().all(|row| row.pid.is_none() && row.owner_quality == "unattributed");
    ensure!(rows.len() == 2 && is_nobodys, "{rows:#?}");
    Ok(())
}

/// Whoever may not read a program may not look into a process that runs it (`would_dump()` in fs/exec.c).
fn a_child_that_may_not_be_looked_into_is_counted() -> Result<()> {
    let mut scene = Scene::new(User::Ordinary)?;
    if !is_root() {
        return Err(skip("needs root for a program that its user cannot read"));
    }
    // The others share one file.
    let secretive = stage::actor("secretive")?;
    std::fs::remove_file(&secretive)?;
    program::copy(&stage::actor("server")?, &secretive)?;
    std::fs::set_permissions(&secretive, std::fs::Permissions::from_mode(0o711))?;
    let mut claude = scene.agent("claude")?;
    let rano = scene.observe(&POLLING)?;
    let child = claude.spawn(&claude.myself(), "secretive")?;
    let (_, tuple) = claude.connect_in(&child, Transport::Tcp, scene.tcp)?;
    scene.let_it_look(&rano)?;
    rano.interrupt()?.expect_code(0)?;
    let database = scene.database()?;
    ensure!(database.events_of(Transport::Tcp, tuple)?.is_empty(), "its descriptors are not to be read");
    let counted = database.count("SELECT unattributed FROM sessions")?;
    ensure!(counted == 1, "{counted}");
    ensure!(database.count("SELECT permission_denied FROM sessions")? > 0, "it was refused");
    Ok(())
}

fn a_strangers_connection_of_the_same_user_is_not_counted() -> Result<()> {
    let mut scene = Scene::new(User::Ordinary)?;
    let mut stranger = scene.agent("stranger")?;
    let rano = scene.observe(&POLLING)?;
    let (connection, _) = stranger.connect(Transport::Tcp, scene.tcp)?;
    scene.let_it_look(&rano)?;
    stranger.close(connection, Ending::InOrder)?;
    scene.let_it_look(&rano)?;
    rano.interrupt()?.expect_code(0)?;
    let counted = scene.database()?.count("SELECT unattributed FROM sessions")?;
    ensure!(counted == 0, "{counted}");
    Ok(())
}
