//! `rano sessions`, and how the commands that read find the database from any directory.

use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result, ensure};

use crate::support::actor::Transport;
use crate::support::history::{Connection, End, History, START, every};
use crate::support::namespace::{Place, User};
use crate::support::rano::{Finished, Launch};
use crate::support::scene::Scene;
use crate::support::stage;

crate::tests![
    sessions_are_listed_with_what_they_were,
    the_history_is_found_from_any_directory,
    what_is_named_or_lies_here_comes_first,
    a_remembered_file_that_is_gone_is_told,
    the_sessions_of_several_files_are_one_list,
];

fn sessions_are_listed_with_what_they_were() -> Result<()> {
    let history = History::new()?;
    let codex = Connection { call: Some(("codex", Some("cargo fetch"))), ..Connection::default() };
    history.write("first", START, &every(3, START, 1000, &Connection::default()), End::Clean)?;
    history.write("second", START + 1000, &every(2, START + 1000, 1000, &codex), End::Killed)?;
    let json = history.json(&["sessions", "--json"])?;
    let rows = json["sessions"].as_array().context("a list")?;
    ensure!(rows.len() == 2 && json["all"] == 2, "{json}");
    let (second, first) = (&rows[0], &rows[1]);
    ensure!(first["run_id"] == format!("1-{START}") && first["name"] == "first", "{json}");
    ensure!(first["agents"] == serde_json::json!(["anthropic"]) && first["connects"] == 3, "{json}");
    ensure!(
        first["bytes_sent"] == 300 && first["complete"] == true && first["record"] == "complete",
        "{json}"
    );
    ensure!(second["agents"] == serde_json::json!(["codex"]) && second["complete"] == false, "{json}");
    ensure!(second["record"] == "not clean" && second["running"] == false, "{json}");
    ensure!(first["file"] == "observer.sqlite", "{json}");
    let text = history.run(&["sessions"])?.stdout;
    let lines: Vec<&str> = text.lines().collect();
    ensure!(
        lines[0] == "Sessions" && lines[2].starts_with("  second ") && lines[3].contains(" complete "),
        "{text}"
    );
    let one = history.run(&["sessions", "--top", "1"])?.stdout;
    ensure!(one.starts_with("Sessions (1 of 2)\n") && one.lines().count() == 3, "{one}");
    Ok(())
}

/// From another directory, with `home` as home.
fn elsewhere(place: &Place, home: &Path, arguments: &[&str]) -> Result<Finished> {
    let directory = stage::directory(place)?;
    let finished = Launch::new(place, directory.path())?.env("HOME", home).args(arguments).run()?;
    ensure!(fs::read_dir(directory.path())?.count() == 0, "{arguments:?} made a file");
    Ok(finished)
}

fn the_history_is_found_from_any_directory() -> Result<()> {
    let mut scene = Scene::new(User::Ordinary)?;
    let rano = scene.observe(&["--db-flush-ms", "10", "--session-name", "here"])?;
    let mut claude = scene.agent("claude")?;
    let (_, tuple) = claude.connect(Transport::Tcp, scene.tcp)?;
    rano.wait_for_event("connect", tuple)?;
    scene.let_it_look(&rano)?;
    let file = scene.directory().join("observer.sqlite").display().to_string();
    let ask = |arguments: &[&str], why: &str| -> Result<String> {
        let finished = elsewhere(&scene.place, scene.directory(), arguments)?;
        finished.expect_code(0)?;
        ensure!(
            finished.stderr == format!("reading {file} ({why}; --sqlite names another)\n"),
            "{finished:?}"
        );
        Ok(finished.stdout)
    };
    let running = ask(&["report"], "the session that is running")?;
    ensure!(running.contains("  here (") && running.contains("still running"), "{running}");
    let sessions = ask(&["sessions", "--json"], "the session that is running")?;
    ensure!(sessions.contains("\"running\":true") && sessions.contains(&file), "{sessions}");
    rano.interrupt()?.expect_code(0)?;
    let why = "the last session";
    ensure!(ask(&["report"], why)?.contains(", clean"));
    ensure!(ask(&["export", "--format", "jsonl"], why)?.contains("\"claude\""));
    ensure!(ask(&["diff", "--old", "here", "--new", "here"], why)?.contains("No differences"));
    ensure!(ask(&["sessions"], why)?.contains(" here "));
    let page = scene.directory().join("page.html").display().to_string();
    let finished = elsewhere(&scene.place, scene.directory(), &["report", "--html", &page])?;
    finished.expect_code(0)?;
    ensure!(finished.stderr.contains(&file) && finished.stderr.contains("wrote "), "{finished:?}");
    Ok(())
}

/// A directory of the same user with a history of its own, the session `here`.
fn another(place: &Place) -> Result<tempfile::TempDir> {
    let history = History::new()?;
    history.write("here", START, &[Connection::default()], End::Clean)?;
    let directory = stage::directory(place)?;
    let file = directory.path().join("observer.sqlite");
    fs::copy(history.path(), &file)?;
    let (uid, gid) = place.ids();
    std::os::unix::fs::chown(&file, Some(uid), Some(gid))?;
    Ok(directory)
}

fn what_is_named_or_lies_here_comes_first() -> Result<()> {
    let mut scene = Scene::new(User::Ordinary)?;
    scene.observe(&["--session-name", "remembered"])?.interrupt()?.expect_code(0)?;
    let directory = another(&scene.place)?;
    let ask = |arguments: &[&str]| -> Result<Finished> {
        let launch = Launch::new(&scene.place, directory.path())?.env("HOME", scene.directory());
        let finished = launch.args(arguments).run()?;
        ensure!(!finished.stderr.contains("reading"), "{finished:?}");
        Ok(finished)
    };
    let here = ask(&["report"])?;
    ensure!(here.expect_code(0)?.stdout.contains("  here ("), "{here:?}");
    // What is named is not replaced by something else.
    ask(&["report", "--sqlite", "none.sqlite"])?.expect_code(3)?;
    Ok(())
}

fn a_remembered_file_that_is_gone_is_told() -> Result<()> {
    let mut scene = Scene::new(User::Ordinary)?;
    scene.observe(&[])?.interrupt()?.expect_code(0)?;
    fs::remove_file(scene.directory().join("observer.sqlite"))?;
    let finished = elsewhere(&scene.place, scene.directory(), &["report"])?;
    finished.expect_code(3)?;
    ensure!(
        finished.stderr.contains("(the last session;") && finished.stderr.contains("does not exist"),
        "{finished:?}"
    );
    Ok(())
}

fn the_sessions_of_several_files_are_one_list() -> Result<()> {
    let mut scene = Scene::new(User::Ordinary)?;
    scene.observe(&["--session-name", "there"])?.interrupt()?.expect_code(0)?;
    let directory = another(&scene.place)?;
    let launch = Launch::new(&scene.place, directory.path())?.env("HOME", scene.directory());
    let finished = launch.args(["sessions", "--json"]).run()?;
    finished.expect_code(0)?;
    let json: serde_json::Value = serde_json::from_str(&finished.stdout)?;
    let names: Vec<_> =
        json["sessions"].as_array().context("a list")?.iter().map(|row| &row["name"]).collect();
    ensure!(names == ["there", "here"], "{json}");
    Ok(())
}
