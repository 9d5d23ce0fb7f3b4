//! Databases that somebody made to hang, to mislead or to end rano, or spoils while it runs: one line, the right exit
//! code, and the observation goes on.

use std::collections::BTreeMap;
use std::fs;
use std::io::Read as _;
use std::os::unix::fs::chown;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use rano::internals::update::Counters;
use rustix::process::Signal;
use serde_json::Value;

use crate::support::actor::Transport;
use crate::support::database::Database;
use crate::support::history::{Connection, End, History, START, every};
use crate::support::namespace::User;
use crate::support::rano::{Finished, Rano};
use crate::support::scene::Scene;
use crate::support::{PATIENCE, wait_until};

crate::tests![
    a_view_in_place_of_a_table_is_refused_by_every_command,
    tables_that_compute_are_refused_by_every_command,
    triggers_delete_nothing_and_hang_nobody,
    what_a_file_says_reaches_no_terminal_raw,
    who_keeps_the_lock_delays_the_end_and_no_more,
    a_second_signal_ends_a_writer_that_waits,
    a_log_of_nonsense_is_told_in_no_time,
    an_index_that_is_cut_ends_nothing,
    a_log_that_is_cut_ends_nothing,
    a_database_that_is_cut_ends_nothing,
    a_session_that_moved_is_found_where_it_is,
    a_reader_whose_index_is_cut_says_so,
];

const ENDLESS: &str = "WITH RECURSIVE n(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM n) SELECT x FROM n";

const READERS: [&[&str]; 7] = [
    &["report"],
    &["report", "--since", "2026-01-01", "--json"],
    &["diff", "--old", "first", "--new", "first"],
    &["status"],
    &["export", "--format", "csv"],
    &["check", "rano.lock.toml"],
    &["baseline"],
];

/// Long for an answer, and much shorter than SQLite's own patience.
const SOON: Duration = Duration::from_secs(5);

/// Two events, and what `sql` made of the file.
fn spoilt(sql: &str) -> Result<History> {
    let history = History::new()?;
    history.write("first", START, &[Connection::default()], End::Clean)?;
    let policy = "version = 1\n[require]\nsource = [\"proc\"]\n[[allow]]\ndomain = \"api.anthropic.com\"\n";
    super::check::write_policy(&history, policy)?;
    let connection = rusqlite::Connection::open(history.path())?;
    connection
        .execute_batch(&format!("PRAGMA foreign_keys = off; PRAGMA writable_schema = on; {sql}"))
        .with_context(|| sql.to_owned())?;
    drop(connection);
    Ok(history)
}

/// As SQLite leaves it beside the database.
fn beside(history: &History, suffix: &str, content: &[u8]) -> Result<()> {
    let path = PathBuf::from(format!("{}{suffix}", history.path().display()));
    fs::write(&path, content)?;
    let (uid, gid) = history.place.ids();
    chown(&path, Some(uid), Some(gid))?;
    Ok(())
}

/// Code 3, one line and a hint, nothing on standard output.
fn expect_refusal(finished: &Finished, words: &str) -> Result<()> {
    finished.expect_code(3)?;
    let lines: Vec<&str> = finished.stderr.lines().collect();
    ensure!(lines.len() == 2 && lines[1].starts_with("hint: "), "{finished:#?}");
    ensure!(lines[0].starts_with("error: cannot use ") && lines[0].contains(words), "{finished:#?}");
    ensure!(finished.stdout.is_empty(), "{finished:#?}");
    Ok(())
}

fn check_readers_refuse(history: &History, words: &str) -> Result<()> {
    let before = history.files()?;
    for arguments in READERS {
        let begin = Instant::now();
        let finished = history.launch(arguments)?.run()?;
        expect_refusal(&finished, words).with_context(|| format!("{arguments:?}"))?;
        ensure!(begin.elapsed() < SOON, "{arguments:?} took {:?}", begin.elapsed());
        ensure!(history.files()? == before, "{arguments:?} changed something");
    }
    Ok(())
}

fn check_refused(sql: &str, words: &str) -> Result<()> {
    let history = spoilt(sql)?;
    check_readers_refuse(&history, words)?;
    let writer = history.launch(&["--once", "--no-banner", "--sqlite", "observer.sqlite"])?.run()?;
    expect_refusal(&writer, words)
}

fn a_view_in_place_of_a_table_is_refused_by_every_command() -> Result<()> {
    for table in ["session", "event", "activity", "traffic", "endpoint", "pruning"] {
        let sql = format!("DROP TABLE {table}; CREATE VIEW {table} AS {ENDLESS}");
        check_refused(&sql, &format!("its table '{table}' is not as rano made it"))?;
    }
    Ok(())
}

fn tables_that_compute_are_refused_by_every_command() -> Result<()> {
    check_refused(
        "ALTER TABLE session ADD COLUMN slow AS (length(hex(zeroblob(1000000000))))",
        "its table 'session' is not as rano made it",
    )?;
    check_refused(
        "DROP TABLE pruning; CREATE VIRTUAL TABLE pruning USING fts5 (session)",
        "its table 'pruning' is not as rano made it",
    )
}

fn triggers_delete_nothing_and_hang_nobody() -> Result<()> {
    let mut scene = Scene::new(User::Ordinary)?;
    scene.observe(&[])?.interrupt()?.expect_code(0)?;
    let sql = format!(
        "CREATE TRIGGER vanish AFTER INSERT ON event BEGIN DELETE FROM event; DELETE FROM session; END;
         CREATE TRIGGER shout BEFORE INSERT ON process BEGIN SELECT raise(ABORT, 'loud'); END;
         CREATE TRIGGER hang AFTER UPDATE ON session BEGIN INSERT INTO address SELECT x, x FROM ({ENDLESS}); END;"
    );
    let path = scene.directory().join("observer.sqlite");
    rusqlite::Connection::open(&path)?.execute_batch(&sql)?;
    let rano = scene.observe(&["--db-flush-ms", "20"])?;
    let mut claude = scene.agent("claude")?;
    let (_, tuple) = claude.connect(Transport::Tcp, scene.tcp)?;
    rano.wait_for_event("connect", tuple)?;
    let finished = rano.interrupt()?;
    finished.expect_code(0)?;
    ensure!(finished.stderr.contains("3 trigger(s)"), "{}", finished.stderr);
    let database = scene.database()?;
    ensure!(database.events_of(Transport::Tcp, tuple)?.len() == 1);
    ensure!(database.count("SELECT count(*) FROM sessions WHERE clean_exit")? == 2);
    Ok(())
}

fn what_a_file_says_reaches_no_terminal_raw() -> Result<()> {
    // An error of SQLite's that quotes the file, and a name that rano quotes.
    for sql in [
        "UPDATE sqlite_schema SET sql = 'CREATE VIEW \x1b[2J' || char(10) || 'loud AS' WHERE name = 'events'",
        "CREATE INDEX \"loud\x1b[2J\n\u{202e}\" ON event (abs(ts))",
        "CREATE TABLE pragma_user_version (\"loud\x1b[2J\n\")",
    ] {
        let history = spoilt(sql)?;
        for arguments in [&READERS[..], &[&["--once", "--no-banner", "--sqlite", "observer.sqlite"]]].concat()
        {
            let finished = history.launch(arguments)?.run()?;
            let code = finished.status.code();
            ensure!(code == Some(3) || (code == Some(0) && sql.contains("INDEX")), "{finished:#?}");
            ensure!(!finished.stderr.contains(['\x1b', '\u{202e}']), "{finished:#?}");
            ensure!(finished.stderr.lines().count() <= 2, "{finished:#?}");
        }
    }
    Ok(())
}

/// rano with a connection that it cannot write, because somebody else has begun to.
fn locked_out() -> Result<(Scene, Rano, rusqlite::Connection)> {
    let mut scene = Scene::new(User::Ordinary)?;
    let rano = scene.observe(&["--db-flush-ms", "20"])?;
    let lock = rusqlite::Connection::open(scene.directory().join("observer.sqlite"))?;
    lock.busy_timeout(PATIENCE)?;
    lock.execute_batch("BEGIN IMMEDIATE")?;
    let mut claude = scene.agent("claude")?;
    let (_, tuple) = claude.connect(Transport::Tcp, scene.tcp)?;
    rano.wait_for_event("connect", tuple)?;
    Ok((scene, rano, lock))
}

fn who_keeps_the_lock_delays_the_end_and_no_more() -> Result<()> {
    let (_scene, rano, lock) = locked_out()?;
    let finished = rano.interrupt()?;
    finished.expect_code(3)?;
    ensure!(finished.stdout.contains("sqlite dropped"), "{}", finished.stdout);
    ensure!(finished.stderr.contains("the end of the history was not written"), "{}", finished.stderr);
    drop(lock);
    Ok(())
}

fn a_second_signal_ends_a_writer_that_waits() -> Result<()> {
    let (scene, rano, lock) = locked_out()?;
    // Two that come together are one.
    let status = format!("/proc/{}/status", rano.pid());
    wait_until("the end", || {
        rano.signal(Signal::INT)?;
        Ok(fs::read_to_string(&status)?.contains("State:\tZ"))
    })?;
    rano.wait()?.expect_code(130)?;
    drop(lock);
    ensure!(scene.database()?.integrity()? == "ok");
    Ok(())
}

fn a_log_of_nonsense_is_told_in_no_time() -> Result<()> {
    let history = spoilt("SELECT 1")?;
    for index in [None, Some(vec![0; 32_768])] {
        beside(&history, "-wal", &[7; 12_345])?;
        if let Some(index) = &index {
            beside(&history, "-shm", index)?;
        }
        check_readers_refuse(&history, "its log (-wal) is not a log of SQLite")?;
    }
    // A writer takes it for empty, as SQLite does.
    let writer = history.launch(&["--once", "--no-banner", "--sqlite", "observer.sqlite"])?.run()?;
    writer.expect_code(0)?;
    history.run(&["report"])?;
    Ok(())
}

/// Cut by somebody who may, as by a descriptor that was kept.
fn cut(path: &Path, suffix: &str, length: u64) -> Result<()> {
    let name = format!("{}{suffix}", path.display());
    let file = fs::OpenOptions::new().write(true).open(&name).context(name)?;
    Ok(file.set_len(length)?)
}

/// rano goes on after `spoil`, in a file beside, and says so.
fn check_goes_on(says: &str, spoil: impl FnOnce(&Path) -> Result<()>) -> Result<()> {
    let mut scene = Scene::new(User::Ordinary)?;
    let rano = scene.observe(&["--db-flush-ms", "20"])?;
    let mut claude = scene.agent("claude")?;
    let (_, first) = claude.connect(Transport::Tcp, scene.tcp)?;
    rano.wait_for_event("connect", first)?;
    wait_until("the first connection is stored", || {
        Ok(!scene.database()?.events_of(Transport::Tcp, first)?.is_empty())
    })?;
    let path = scene.directory().join("observer.sqlite");
    spoil(&path)?;
    let (_, second) = claude.connect(Transport::Tcp, scene.tcp)?;
    rano.wait_for_event("connect", second)?;
    let line = rano.stderr.wait_for("word of it", |line| line.contains("goes on in observer-2.sqlite"))?;
    ensure!(line.contains(says), "{says}: {line}");
    let (_, third) = claude.connect(Transport::Tcp, scene.tcp)?;
    rano.wait_for_event("connect", third)?;
    let finished = rano.interrupt()?;
    finished.expect_code(3)?;
    ensure!(finished.stdout.contains("history goes on in observer-2.sqlite"), "{}", finished.stdout);
    let fresh = Database::open(&path.with_file_name("observer-2.sqlite"))?;
    ensure!(fresh.integrity()? == "ok");
    for tuple in [second, third] {
        ensure!(fresh.events_of(Transport::Tcp, tuple)?.len() == 1, "{tuple:?}");
    }
    ensure!(fresh.count("SELECT count(*) FROM sessions WHERE clean_exit")? == 1);
    // What is not in it, is counted in it.
    let lost = fresh.count("SELECT sqlite_dropped FROM sessions")?;
    ensure!((lost > 0) == finished.stdout.contains("sqlite dropped"), "{lost} {}", finished.stdout);
    Ok(())
}

fn an_index_that_is_cut_ends_nothing() -> Result<()> {
    check_goes_on("observer.sqlite-shm was cut short", |path| cut(path, "-shm", 0))
}

fn a_log_that_is_cut_ends_nothing() -> Result<()> {
    check_goes_on("observer.sqlite-wal was cut short", |path| cut(path, "-wal", 0))?;
    check_goes_on("observer.sqlite-wal was cut short", |path| cut(path, "-wal", 5000))
}

fn a_database_that_is_cut_ends_nothing() -> Result<()> {
    check_goes_on("observer.sqlite was cut short", |path| cut(path, "", 0))?;
    check_goes_on("observer.sqlite was cut short", |path| cut(path, "", 4096))
}

/// Without `--sqlite` status asks the file that the running session writes.
fn a_session_that_moved_is_found_where_it_is() -> Result<()> {
    let mut scene = Scene::new(User::Ordinary)?;
    let rano = scene.observe(&["--db-flush-ms", "20", "--session-name", "moving"])?;
    fs::remove_file(scene.directory().join("observer.sqlite"))?;
    let mut claude = scene.agent("claude")?;
    let (_, tuple) = claude.connect(Transport::Tcp, scene.tcp)?;
    rano.wait_for_event("connect", tuple)?;
    rano.stderr.wait_for("word of it", |line| line.contains("goes on in observer-2.sqlite"))?;
    let format = "{session_name} {anthropic}";
    let mut said = String::new();
    wait_until("status finds the session", || {
        let status = scene.launch()?.args(["status", "--format", format]).run()?;
        said = format!("{status:?}");
        Ok(status.stdout == "moving 1\n")
    })
    .with_context(|| said.clone())?;
    let moved = Rano::interrupt(rano)?;
    moved.expect_code(3)?;
    Ok(())
}

/// The test holds the index open as a writer, and cuts it while the reader waits for room in its pipe.
fn a_reader_whose_index_is_cut_says_so() -> Result<()> {
    let history = History::new()?;
    let store = history.begin("first", START)?;
    for (number, connection) in every(20_000, START, 10, &Connection::default()).iter().enumerate() {
        for event in connection.events(number as u64) {
            store.push(&event.into());
        }
    }
    wait_until("all of it is stored", || {
        let status: BTreeMap<String, Value> =
            serde_json::from_value(history.json(&["report", "--json"])?["summary"].clone())?;
        Ok(status["events"] == 40_000)
    })?;
    let mut launch = history.launch(&["export", "--format", "csv"])?;
    let mut child = launch.command().stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
    let mut stdout = child.stdout.take().context("a pipe")?;
    stdout.read_exact(&mut [0])?;
    cut(&history.path(), "-shm", 0)?;
    std::io::copy(&mut stdout, &mut std::io::sink())?;
    let output = child.wait_with_output()?;
    let stderr = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.code() == Some(3), "{output:?}");
    ensure!(
        stderr.lines().next().is_some_and(|line| line.contains("cut short while it was read")),
        "{stderr}"
    );
    let finished = store.finish(Counters::default(), START);
    ensure!(finished.dropped == 0 && finished.error.is_none(), "{finished:?}");
    Ok(())
}
