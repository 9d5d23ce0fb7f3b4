//! `rano status`, as a prompt calls it.

use std::fs;

use anyhow::{Result, ensure};
use rustix::process::Signal;

use crate::support::actor::{Ending, Transport};
use crate::support::history::{Connection, End, History, START, every};
use crate::support::namespace::User;
use crate::support::rano::{Finished, Launch};
use crate::support::scene::Scene;
use crate::support::{stage, wait_until};

crate::tests![
    a_running_session_is_found_from_anywhere,
    a_killed_session_is_no_running_one,
    without_a_database_it_is_silent,
    templates_are_filled_in,
    a_provider_of_ones_own_is_a_variable,
    an_unknown_variable_names_the_known_ones,
];

/// From another directory, with the same home.
fn elsewhere(scene: &Scene) -> Result<Finished> {
    let directory = stage::directory(&scene.place)?;
    let launch = Launch::new(&scene.place, directory.path())?.env("HOME", scene.directory());
    let finished = launch.args(["status"]).run()?;
    ensure!(fs::read_dir(directory.path())?.count() == 0, "status made a file");
    Ok(finished)
}

fn a_running_session_is_found_from_anywhere() -> Result<()> {
    let mut scene = Scene::new(User::Ordinary)?;
    let rano = scene.observe(&["--db-flush-ms", "10"])?;
    let mut claude = scene.agent("claude")?;
    let (connection, tuple) = claude.connect(Transport::Tcp, scene.tcp)?;
    rano.wait_for_event("connect", tuple)?;
    let alive = scene.launch()?.args(["status", "--format", "{running}"]).run()?;
    ensure!(alive.stdout == "true\n", "{alive:?}");
    // The marker's connection is google's and open too.
    let wait_for = |line: &str| {
        wait_until(line, || {
            let finished = elsewhere(&scene)?;
            finished.expect_code(0)?;
            ensure!(finished.stderr.is_empty(), "{finished:?}");
            Ok(finished.stdout == line)
        })
    };
    wait_for("2 active | anthropic:1 openai:0\n")?;
    claude.close(connection, Ending::InOrder)?;
    wait_for("1 active | anthropic:0 openai:0\n")?;
    rano.interrupt()?.expect_code(0)?;
    let after = elsewhere(&scene)?;
    after.expect_code(1)?;
    ensure!(after.stdout.is_empty() && after.stderr.is_empty(), "{after:?}");
    Ok(())
}

fn a_killed_session_is_no_running_one() -> Result<()> {
    let mut scene = Scene::new(User::Ordinary)?;
    let rano = scene.observe(&["--db-flush-ms", "10"])?;
    elsewhere(&scene)?.expect_code(0)?;
    rano.signal(Signal::KILL)?;
    rano.wait()?;
    elsewhere(&scene)?.expect_code(1)?;
    // In its own directory it is the latest session, and nothing of it is open.
    let here = scene.launch()?.args(["status", "--format", "{active} of {total} {running}"]).run()?;
    here.expect_code(0)?;
    ensure!(here.stdout.starts_with("0 of ") && here.stdout.ends_with(" false\n"), "{here:?}");
    Ok(())
}

fn without_a_database_it_is_silent() -> Result<()> {
    let history = History::new()?;
    for arguments in [&["status"][..], &["status", "--sqlite", "no/such/directory/x.sqlite"]] {
        let finished = history.launch(arguments)?.run()?;
        finished.expect_code(1)?;
        ensure!(finished.stdout.is_empty() && finished.stderr.is_empty(), "{finished:?}");
        ensure!(history.files()?.is_empty());
    }
    Ok(())
}

fn templates_are_filled_in() -> Result<()> {
    let history = History::new()?;
    let other = Connection { provider: "unknown", ..Connection::default() };
    let connections = [every(3, START, 5, &Connection::default()), vec![other]].concat();
    history.write("my session", START, &connections, End::Clean)?;
    let format = "{{{active}}} {total} a{anthropic} o{openai} g{google} u{unknown} {session_name} {source}";
    let finished = history.run(&["status", "--format", format])?;
    ensure!(finished.stdout == "{0} 4 a0 o0 g0 u0 my session proc\n", "{finished:?}");
    let default = history.run(&["status"])?;
    ensure!(default.stdout == "0 active | anthropic:0 openai:0\n", "{default:?}");
    Ok(())
}

fn a_provider_of_ones_own_is_a_variable() -> Result<()> {
    let history = History::new()?;
    let own = Connection { provider: "local_llm", ..Connection::default() };
    history.write(
        "s",
        START,
        &[every(2, START, 5, &own), vec![Connection::default()]].concat(),
        End::Clean,
    )?;
    // Known by the history alone.
    let finished = history.run(&["status", "--format", "{local_llm}/{total}"])?;
    ensure!(finished.stdout == "0/3\n", "{finished:?}");
    // Known by a file, and not in the history.
    let agents = "[[agents]]\nname = 'y'\nprovider = 'corp'\n";
    fs::write(history.directory().join("acme.toml"), "[providers]\nacme = ['x']\n")?;
    fs::write(history.directory().join("both.toml"), format!("[providers]\nacme = ['x']\n{agents}"))?;
    let status = |file: &str, format: &str| {
        history.launch(&["status", "--format", format])?.env("RANO_CONFIG_TOML", file).run()
    };
    let finished = status("both.toml", "{acme} {corp} {google}")?;
    ensure!(finished.stdout == "0 0 0\n", "{finished:?}");
    let finished = status("acme.toml", "{corp}")?;
    finished.expect_code(2)?;
    let first = "unknown variable '{corp}' (known: {active} {total} {session_name} {source} {running} {anthropic} \
                 {openai} {google} ";
    for known in [first, " {acme} ", " {local_llm}"] {
        ensure!(finished.stderr.contains(known), "{known}: {finished:?}");
    }
    Ok(())
}

fn an_unknown_variable_names_the_known_ones() -> Result<()> {
    let finished = History::new()?.launch(&["status", "--format", "{actve}"])?.run()?;
    finished.expect_code(2)?;
    for word in ["{actve}", "{active}", "{session_name}", "{source}"] {
        ensure!(finished.stderr.contains(word), "{finished:?}");
    }
    Ok(())
}
