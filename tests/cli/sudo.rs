//! Under sudo the files belong to the invoking user and stay usable without it; as root no symbolic link is followed.

use std::fs;
use std::os::unix::fs::MetadataExt as _;

use anyhow::{Result, ensure};

use crate::support::actor::Transport;
use crate::support::namespace::User;
use crate::support::rano::{Launch, Rano};
use crate::support::scene::{FAST, Scene};
use crate::support::stage;

crate::tests![
    files_made_under_sudo_belong_to_the_invoking_user,
    a_database_made_under_sudo_is_usable_without,
    root_follows_no_link_when_it_creates_a_file,
    root_sees_the_agents_of_every_user,
];

/// As sudo starts it for the user with uid and gid `id`.
fn sudo(launch: Launch, id: u32) -> Launch {
    let id = id.to_string();
    launch.env("SUDO_UID", id.as_str()).env("SUDO_GID", id.as_str()).env("SUDO_USER", "someone")
}

/// A run as root that has seen a connection of `claude`.
fn observe_once(scene: &Scene, launch: Launch, arguments: &[&str]) -> Result<Rano> {
    let mut claude = scene.agent("claude")?;
    let (_, tuple) = claude.connect(Transport::Tcp, scene.tcp)?;
    let rano = launch.args(FAST).args(arguments).start()?;
    rano.wait_for_event("connect", tuple)?;
    Ok(rano)
}

fn files_made_under_sudo_belong_to_the_invoking_user() -> Result<()> {
    let scene = Scene::new(User::Root)?;
    let arguments = ["--log-file", "events.log", "--log-dir", "logs"];
    let user = scene.place.with_user(User::Ordinary);
    let directory = stage::directory(&user)?;
    let launch = sudo(Launch::new(&scene.place, directory.path())?, user.uid());
    let rano = observe_once(&scene, launch, &arguments)?;
    // While it runs there are the write-ahead log and its index too.
    for entry in fs::read_dir(directory.path())? {
        let entry = entry?;
        let metadata = entry.metadata()?;
        ensure!((metadata.uid(), metadata.gid()) == user.ids(), "{}", entry.path().display());
    }
    rano.interrupt()?.expect_code(0)?;
    ensure!(fs::metadata(directory.path().join("observer.sqlite"))?.uid() == user.uid());
    Ok(())
}

fn a_database_made_under_sudo_is_usable_without() -> Result<()> {
    let scene = Scene::new(User::Root)?;
    let ordinary = scene.place.with_user(User::Ordinary);
    let directory = stage::directory(&ordinary)?;
    let launch = sudo(Launch::new(&scene.place, directory.path())?, ordinary.uid());
    observe_once(&scene, launch, &[])?.interrupt()?.expect_code(0)?;
    Launch::new(&ordinary, directory.path())?.args(["--once"]).run()?.expect_code(0)?;
    let database = crate::support::database::Database::open(&directory.path().join("observer.sqlite"))?;
    ensure!(database.count("SELECT count(*) FROM sessions WHERE clean_exit = 1")? == 2);
    Ok(())
}

fn root_follows_no_link_when_it_creates_a_file() -> Result<()> {
    let scene = Scene::new(User::Root)?;
    for (flag, link) in [("--sqlite", "trap.sqlite"), ("--log-file", "trap.log")] {
        let victim = scene.directory().join(format!("victim-of-{link}"));
        std::os::unix::fs::symlink(&victim, scene.directory().join(link))?;
        let finished = scene.launch()?.args(["--once", flag, link]).run()?;
        finished.expect_code(3)?;
        ensure!(finished.stderr.contains(link), "{finished:#?}");
        ensure!(!victim.exists(), "{flag} followed the link");
    }
    Ok(())
}

fn root_sees_the_agents_of_every_user() -> Result<()> {
    let scene = Scene::new(User::Root)?;
    let ordinary = scene.place.with_user(User::Ordinary);
    let mut claude = crate::support::actor::Actor::start(&ordinary, "claude")?;
    let (_, tuple) = claude.connect(Transport::Tcp, scene.tcp)?;
    let rano = scene.launch()?.args(FAST).start()?;
    rano.wait_for_event("connect", tuple)?;
    rano.interrupt()?.expect_code(0)?;
    let rows = scene.database()?.events_of_pid(claude.pid())?;
    ensure!(rows.len() == 1 && rows[0].uid == Some(ordinary.uid()), "{rows:#?}");
    Ok(())
}
