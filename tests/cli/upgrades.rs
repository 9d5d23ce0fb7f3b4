//! Databases of other versions of rano: older ones are read as they are and migrated by the next observation, newer
//! ones are refused and never written.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, ensure};
use rusqlite::Connection as Sqlite;

use super::check;
use crate::support::actor::Transport;
use crate::support::database::Database;
use crate::support::history::{Connection, End, History, START};
use crate::support::namespace::User;
use crate::support::scene::Scene;
use crate::support::{PATIENCE, terminal, wait_until};

crate::tests![
    every_schema_that_was_ever_written_has_its_fixture,
    an_older_database_answers_alike_before_and_after_its_migration,
    two_observations_may_migrate_one_file_at_once,
    a_newer_database_is_refused_by_every_command_and_never_written,
    an_observation_leaves_a_file_that_a_newer_rano_migrates,
];

/// Questions about the one session that a fixture has: a further session does not change their answers.
const SAME: [&[&str]; 11] = [
    &["report", "--run-id", RUN],
    &["report", "--run-id", RUN, "--json"],
    &["report", "--run-id", RUN, "--markdown"],
    &["report", "--run-id", RUN, "--by", "tool"],
    &["report", "--run-id", RUN, "--filter", "port:443", "--json"],
    &["report", "--since", "2026-01-17", "--until", "2026-01-20", "--json"],
    &["diff", "--old", RUN, "--new", RUN, "--json"],
    &["export", "--format", "csv", "--run-id", RUN],
    &["export", "--format", "jsonl", "--run-id", RUN],
    &["export", "--format", "csv", "--run-id", RUN, "--fields", "ts,agent,tool,program,cwd"],
    &["baseline", "--run-id", RUN],
];

/// Questions about the file.
const ANY: [&[&str]; 7] = [
    &["report"],
    &["report", "--latest", "--html", "report.html"],
    &["sessions"],
    &["sessions", "--json"],
    &["status"],
    &["check", "rano.lock.toml"],
    &["verify"],
];

const POLICY: &str = "version = 1\n[[allow]]\ndomain = \"api.anthropic.com\"\n";

/// The fixtures' session.
const RUN: &str = "4000-1768678200000";

/// What the latest migration says.
fn schema_of(path: &Path) -> Result<i64> {
    let database = Sqlite::open_with_flags(path, rusqlite::OpenFlags::SQLITE_OPEN_READ_ONLY)?;
    Ok(database.pragma_query_value(None, "user_version", |row| row.get(0))?)
}

fn fixtures() -> Result<BTreeMap<i64, PathBuf>> {
    let directory = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/fixtures/databases");
    let mut found = BTreeMap::new();
    for entry in fs::read_dir(directory)? {
        let path = entry?.path();
        if path.extension().is_some_and(|ending| ending == "sqlite") {
            let stem = path.file_stem().context("a name")?.to_string_lossy().into_owned();
            let version = stem.strip_prefix("schema-").context("a schema")?.parse()?;
            found.insert(version, path);
        }
    }
    Ok(found)
}

fn copy_of(fixture: &Path) -> Result<History> {
    let history = History::new()?;
    fs::copy(fixture, history.path())?;
    let (uid, gid) = history.place.ids();
    std::os::unix::fs::chown(history.path(), Some(uid), Some(gid))?;
    Ok(history)
}

fn every_schema_that_was_ever_written_has_its_fixture() -> Result<()> {
    let history = History::new()?;
    history.write("now", START, &[Connection::default()], End::Clean)?;
    let latest = schema_of(&history.path())?;
    let fixtures = fixtures()?;
    ensure!(fixtures.keys().copied().eq(1..=latest), "schema {latest}, but {fixtures:?}");
    for (version, fixture) in fixtures {
        let copy = copy_of(&fixture)?;
        ensure!(schema_of(&copy.path())? == version, "{} is of another schema", fixture.display());
    }
    Ok(())
}

/// Standard output of each of [`SAME`]; the others have to end well.
fn answers(history: &History) -> Result<Vec<(String, String)>> {
    check::write_policy(history, POLICY)?;
    for arguments in ANY {
        let finished = history.launch(arguments)?.run()?;
        // A policy finds something in a session whose record has gaps, and old sessions have no seals.
        let may_find = arguments[0] == "check" || finished.stdout.starts_with("not sealed: ");
        ensure!(
            finished.status.code().is_some_and(|code| code == 0 || (code == 1 && may_find)),
            "{arguments:?}: {finished:#?}"
        );
    }
    let ask = |arguments: &&[&str]| {
        let question = arguments.join(" ");
        let finished = history.run(arguments).with_context(|| question.clone())?;
        Ok((question, finished.stdout))
    };
    SAME.iter().map(ask).collect()
}

fn an_older_database_answers_alike_before_and_after_its_migration() -> Result<()> {
    let fixtures = fixtures()?;
    for (version, fixture) in &fixtures {
        let history = copy_of(fixture)?;
        let bytes = fs::read(history.path())?;
        let before = answers(&history).with_context(|| format!("schema {version}"))?;
        ensure!(fs::read(history.path())? == bytes, "schema {version}: a reader wrote to it");
        let events = history.run(&["export", "--format", "jsonl", "--run-id", RUN])?.stdout.lines().count();
        ensure!(events == 400, "schema {version}: {events} events");
        history.run(&["--once", "--no-banner", "--no-config", "--sqlite", "observer.sqlite"])?;
        ensure!(schema_of(&history.path())? == i64::try_from(fixtures.len())?, "schema {version} stays");
        let sessions = history.json(&["sessions", "--json"])?;
        ensure!(sessions["all"] == 2, "schema {version}: {sessions}");
        for ((question, before), (_, after)) in before.iter().zip(answers(&history)?) {
            ensure!(*before == after, "{question}, schema {version}:\n{before}\n{after}");
        }
        ensure!(history.database()?.integrity()? == "ok", "schema {version}");
    }
    Ok(())
}

fn two_observations_may_migrate_one_file_at_once() -> Result<()> {
    let oldest = fixtures()?.into_values().next().context("no fixture")?;
    let history = copy_of(&oldest)?;
    let once = ["--once", "--no-banner", "--no-config", "--sqlite", "observer.sqlite"];
    let started = (0..4).map(|_| history.launch(&once)?.start()).collect::<Result<Vec<_>>>()?;
    for rano in started {
        rano.wait()?.expect_code(0)?;
    }
    ensure!(history.json(&["sessions", "--json"])?["all"] == 5);
    ensure!(history.database()?.integrity()? == "ok");
    history.run(&["verify"])?;
    Ok(())
}

/// What a newer rano might have made of it.
fn migrate_further(path: &Path) -> Result<i64> {
    let next = schema_of(path)? + 1;
    let database = Sqlite::open(path)?;
    database.busy_timeout(PATIENCE)?;
    database.execute_batch(&format!(
        "BEGIN IMMEDIATE; CREATE TABLE later (id INTEGER PRIMARY KEY); PRAGMA user_version = {next}; COMMIT"
    ))?;
    Ok(next)
}

fn a_newer_database_is_refused_by_every_command_and_never_written() -> Result<()> {
    let history = History::new()?;
    history.write("now", START, &[Connection::default()], End::Clean)?;
    check::write_policy(&history, POLICY)?;
    let next = migrate_further(&history.path())?;
    let words = format!("it was written by a newer rano (schema {next}, this one knows {})", next - 1);
    let before = history.files()?;
    let writers: [&[&str]; 4] = [
        &["--no-banner", "--no-config"],
        &["--once", "--no-config", "--sqlite", "observer.sqlite"],
        &["run", "--no-config", "--", "/bin/true"],
        #[cfg(feature = "serve")]
        &["serve", "--no-config"],
        #[cfg(not(feature = "serve"))]
        &["--no-config"],
    ];
    for arguments in SAME.iter().chain(&ANY).chain(&writers) {
        let finished = history.launch(arguments)?.run()?;
        finished.expect_code(3).with_context(|| format!("{arguments:?}"))?;
        let lines: Vec<&str> = finished.stderr.lines().collect();
        ensure!(
            matches!(lines[..], [error, hint] if error.starts_with("error: ") && error.ends_with(&words) && hint.starts_with("hint: ")),
            "{arguments:?}: {finished:#?}"
        );
        ensure!(finished.stdout.is_empty(), "{arguments:?}: {finished:#?}");
        ensure!(history.files()? == before, "{arguments:?} changed something");
    }
    let screens: [&[&str]; 3] = [
        &["top", "--no-config"],
        &["top", "--no-config", "--read-only"],
        &["top", "--no-config", "--replay", "observer.sqlite"],
    ];
    for arguments in if cfg!(feature = "top") { &screens[..] } else { &[] } {
        let (status, written) = terminal::watch_any(history.launch(arguments)?, 200, 24)?;
        ensure!(status.code() == Some(3) && written.contains(&words), "{arguments:?}: {status}: {written}");
        ensure!(!written.contains("\x1b[?1049h"), "{arguments:?} took the screen: {written}");
        ensure!(history.files()? == before, "{arguments:?} changed something");
    }
    Ok(())
}

/// What it wrote before stays in that file, what comes later is in a fresh one, and it says so.
fn an_observation_leaves_a_file_that_a_newer_rano_migrates() -> Result<()> {
    let mut scene = Scene::new(User::Ordinary)?;
    let rano = scene.observe(&["--no-dns", "--db-flush-ms", "20", "--db-batch-size", "1"])?;
    let mut claude = scene.agent("claude")?;
    let (_, first) = claude.connect(Transport::Tcp, scene.tcp)?;
    rano.wait_for_event("+ connect", first)?;
    wait_until("the first row", || Ok(!scene.database()?.events_of(Transport::Tcp, first)?.is_empty()))?;
    let path = scene.directory().join("observer.sqlite");
    let next = migrate_further(&path)?;
    let (_, second) = claude.connect(Transport::Tcp, scene.tcp)?;
    rano.wait_for_event("+ connect", second)?;
    let finished = rano.interrupt()?;
    finished.expect_code(3)?;
    let sentence = format!(
        "observer.sqlite cannot be written any more: it was written by a newer rano (schema {next}, this one knows {}); \
         the history goes on in ",
        next - 1
    );
    ensure!(finished.stderr.contains(&sentence), "{finished:#?}");
    ensure!(!finished.stderr.contains("are lost with it"), "{finished:#?}");
    let fresh = Database::open(&scene.directory().join("observer-2.sqlite"))?;
    for (tuple, old, new) in [(first, 1, 0), (second, 0, 1)] {
        let in_old = scene.database()?.events_of(Transport::Tcp, tuple)?.len();
        let in_new = fresh.events_of(Transport::Tcp, tuple)?.len();
        ensure!((in_old, in_new) == (old, new), "{in_old} and {in_new} rows of {tuple:?}");
    }
    ensure!(scene.database()?.integrity()? == "ok" && fresh.integrity()? == "ok");
    Ok(())
}
