//! Looks between polls: short connections of children get their process, or are counted, and never another's.

use std::time::Duration;

use anyhow::{Result, ensure};

use crate::support::actor::{Actor, Birth, Transport, Tuple};
use crate::support::namespace::{Place, User, is_root};
use crate::support::scene::Scene;
use crate::support::trial::skip;

crate::tests![
    short_connections_of_children_are_told_with_their_process_or_counted,
    with_two_agents_and_strangers_no_owner_is_wrong,
    children_are_found_by_process_events,
    a_child_that_its_forker_left_behind_is_its_agents,
    what_only_its_end_revealed_is_summed_up,
];

/// Much longer than a test needs for one round, so that polls find next to nothing.
const RARELY_MS: u32 = 2_000;
const SHORT: Duration = Duration::from_millis(20);
const COUNT: usize = 20;

/// How many of these were told, each with its process.
fn told(scene: &Scene, expected: &[(u32, Tuple)]) -> Result<usize> {
    let database = scene.database()?;
    let mut told = 0;
    for &(pid, tuple) in expected {
        let mut rows = database.events_of(Transport::Tcp, tuple)?;
        // A marker's connection may have got the port of one that had ended.
        rows.retain(|row| row.provider != "google");
        ensure!(rows.iter().all(|row| row.pid == Some(pid)), "{rows:#?}");
        told += usize::from(!rows.is_empty());
    }
    Ok(told)
}

fn children(scene: &Scene, agent: &mut Actor) -> Result<Vec<(u32, Tuple)>> {
    let mut expected = Vec::new();
    for _ in 0..COUNT {
        let child = agent.spawn(&agent.myself(), "helper")?;
        expected.push((child.pid, agent.short_connection_in(&child, scene.tcp, SHORT)?));
    }
    Ok(expected)
}

fn check_children(mut scene: Scene) -> Result<String> {
    let mut claude = scene.agent("claude")?;
    let rano = scene.observe_every(RARELY_MS, &["--source", "proc"])?;
    let expected = children(&scene, &mut claude)?;
    scene.let_it_look(&rano)?;
    let finished = rano.interrupt()?;
    finished.expect_code(0)?;
    let told = told(&scene, &expected)?;
    let counted = scene.database()?.count("SELECT unattributed FROM sessions")?;
    ensure!(told > 0, "none of {COUNT} was told: {finished:#?}");
    ensure!(i64::try_from(told)? + counted >= i64::try_from(COUNT)?, "told {told}, counted {counted}");
    Ok(finished.stderr)
}

fn short_connections_of_children_are_told_with_their_process_or_counted() -> Result<()> {
    check_children(Scene::new(User::Ordinary)?).map(drop)
}

fn with_two_agents_and_strangers_no_owner_is_wrong() -> Result<()> {
    let mut scene = Scene::new(User::Ordinary)?;
    let mut agents = [scene.agent("claude")?, scene.agent("codex")?];
    let mut stranger = scene.agent("stranger")?;
    let rano = scene.observe_every(RARELY_MS, &["--source", "proc"])?;
    let (mut expected, mut strangers) = (Vec::new(), Vec::new());
    for _ in 0..COUNT {
        for agent in &mut agents {
            let child = agent.spawn(&agent.myself(), "helper")?;
            expected.push((child.pid, agent.short_connection_in(&child, scene.tcp, SHORT)?));
        }
        let child = stranger.spawn(&stranger.myself(), "helper")?;
        strangers.push(stranger.short_connection_in(&child, scene.tcp, SHORT)?);
    }
    scene.let_it_look(&rano)?;
    rano.interrupt()?.expect_code(0)?;
    ensure!(told(&scene, &expected)? > 0, "none was told");
    let database = scene.database()?;
    for tuple in strangers {
        let rows = database.events_of(Transport::Tcp, tuple)?;
        ensure!(rows.is_empty(), "a stranger's: {rows:#?}");
    }
    Ok(())
}

/// The kernel tells of processes in the first namespaces only, so this runs beside the test.
fn among_the_first() -> Result<Scene> {
    if !is_root() {
        return Err(skip("an ordinary user other than the test's own takes root"));
    }
    Scene::at(Place::new(User::Ordinary)?.beside_the_test())
}

fn skip_without_events(stderr: &str) -> Result<()> {
    match stderr.lines().find(|line| line.contains("process events")) {
        Some(line) => Err(skip(line.trim().to_owned())),
        None => Ok(()),
    }
}

fn children_are_found_by_process_events() -> Result<()> {
    let stderr = check_children(among_the_first()?)?;
    skip_without_events(&stderr)
}

/// Neither its parent nor a mark in its environment says whose it is: only the kernel told who forked it.
fn a_child_that_its_forker_left_behind_is_its_agents() -> Result<()> {
    let mut scene = among_the_first()?;
    let mut claude = scene.agent("claude")?;
    let rano = scene.observe_every(RARELY_MS, &["--source", "proc"])?;
    let mut expected = Vec::new();
    for birth in [Birth::Child, Birth::Leader, Birth::Orphan, Birth::Orphan] {
        let child = claude.bear(&claude.myself(), "download", birth)?;
        expected.push((child.pid, claude.connect_in(&child, Transport::Tcp, scene.tcp)?.1));
    }
    scene.let_it_look(&rano)?;
    let finished = rano.interrupt()?;
    finished.expect_code(0)?;
    skip_without_events(&finished.stderr)?;
    ensure!(told(&scene, &expected)? == expected.len(), "{finished:#?}");
    let database = scene.database()?;
    let ancestor = format!("claude:{}", claude.pid());
    for (_, tuple) in expected {
        let rows = database.events_of(Transport::Tcp, tuple)?;
        let is_its = |path: &String| path.contains(&ancestor);
        ensure!(rows.iter().all(|row| row.ancestry_path.as_ref().is_some_and(is_its)), "{rows:#?}");
    }
    Ok(())
}

fn what_only_its_end_revealed_is_summed_up() -> Result<()> {
    let mut scene = Scene::new(User::Ordinary)?;
    let mut stranger = scene.agent("stranger")?;
    let rano = scene.observe_every(60_000, &["--source", "proc"])?;
    let tuples = stranger.short_connections(scene.tcp, 5, Duration::ZERO)?;
    let finished = rano.interrupt()?;
    finished.expect_code(0)?;
    let line = finished.stdout.lines().find(|line| line.contains("not attributed:"));
    let line = line.unwrap_or_default();
    ensure!(line.contains(" 5 not attributed: 5 tcp"), "{line:?} of {tuples:?}: {finished:#?}");
    Ok(())
}
