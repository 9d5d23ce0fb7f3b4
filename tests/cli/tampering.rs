//! Ways in which somebody who can write the history may try to change or hide what it says, and `rano verify`.
//! SECURITY.md has the table.

use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::Path;

use anyhow::{Context as _, Result, ensure};
use rusqlite::Connection as Sqlite;

use crate::support::actor::Transport;
use crate::support::history::{Connection, End, History, START, every};
use crate::support::namespace::User;
use crate::support::rano::Finished;
use crate::support::scene::{FAST, Scene};

crate::tests![
    every_change_to_the_file_is_found,
    an_observation_prints_a_head_that_verify_finds,
    a_key_that_others_can_read_is_refused,
];

/// What is done to a history of two sessions.
enum Act {
    Sql(&'static str),
    /// To the file at the first path; an older copy of it lies at the second one.
    File(fn(&Path, &Path) -> std::io::Result<()>),
}

/// Beside each: a part of what verify says, and whether it takes the head that was printed to find it.
const ACTS: [(&str, Act, &str, bool); 45] = [
    // Delete.
    ("delete an event", Act::Sql("DELETE FROM event WHERE id = 9"), "not as they were written", false),
    ("delete the last event", Act::Sql("DELETE FROM event WHERE id = 12"), "not as they were written", false),
    ("delete all events", Act::Sql("DELETE FROM event"), "not as they were written", false),
    ("delete one endpoint's events", Act::Sql("DELETE FROM event WHERE endpoint = 2"), "not as they", false),
    ("delete a session", Act::Sql("DELETE FROM session WHERE id = 2"), "has seals and is gone", false),
    ("delete a process", Act::Sql("DELETE FROM process WHERE id = 7"), "not as they were written", false),
    ("delete an endpoint", Act::Sql("DELETE FROM endpoint WHERE id = 2"), "endpoints, addresses", false),
    ("delete an address", Act::Sql("DELETE FROM address"), "endpoints, addresses", false),
    ("delete a tool call", Act::Sql("DELETE FROM tool_call"), "not as they were written", false),
    ("delete sums", Act::Sql("DELETE FROM traffic"), "sums in 'traffic'", false),
    ("delete an hour", Act::Sql("DELETE FROM activity WHERE session = 2"), "sums in 'activity'", false),
    ("delete ports", Act::Sql("DELETE FROM port_traffic"), "sums in 'port_traffic'", false),
    // Update.
    ("change a time", Act::Sql("UPDATE event SET ts = ts - 60000 WHERE id = 9"), "not as they", false),
    ("change a port", Act::Sql("UPDATE event SET remote_port = 22 WHERE id = 9"), "not as they", false),
    ("change bytes", Act::Sql("UPDATE event SET bytes_sent = 1 WHERE id = 10"), "not as they", false),
    ("change a duration", Act::Sql("UPDATE event SET duration_ms = 1 WHERE id = 10"), "not as they", false),
    (
        "give an event to another process",
        Act::Sql("UPDATE event SET process = 1 WHERE id = 9"),
        "not as they",
        false,
    ),
    (
        "give an event another endpoint",
        Act::Sql("UPDATE event SET endpoint = 1 WHERE id = 9"),
        "not as they",
        false,
    ),
    ("take away an alert", Act::Sql("UPDATE kind SET alert = 1 - alert"), "endpoints, addresses", false),
    (
        "change a name",
        Act::Sql("UPDATE endpoint SET domain = 'github.com' WHERE id = 2"),
        "endpoints, addr",
        false,
    ),
    (
        "change an address",
        Act::Sql("UPDATE endpoint SET remote = '192.0.2.1' WHERE id = 2"),
        "endpoints, a",
        false,
    ),
    ("change a class", Act::Sql("UPDATE endpoint SET type = 'llm_api'"), "endpoints, addresses", false),
    (
        "change a command line",
        Act::Sql("UPDATE process SET cmdline = 'ls' WHERE id = 7"),
        "not as they",
        false,
    ),
    ("change a user", Act::Sql("UPDATE process SET uid = 0 WHERE id = 7"), "not as they were written", false),
    ("change a provider", Act::Sql("UPDATE actor SET provider = 'x'"), "endpoints, addresses", false),
    ("change what was watched", Act::Sql("UPDATE session SET patterns = '[]'"), "not as they were", false),
    (
        "hide a loss",
        Act::Sql("UPDATE session SET sqlite_dropped = 7 WHERE id = 2"),
        "not as they were",
        false,
    ),
    ("change counters", Act::Sql("UPDATE session SET connects = 0 WHERE id = 2"), "not as they were", false),
    ("hide a kill", Act::Sql("UPDATE session SET clean_exit = 1 WHERE id = 3"), "no seal says so", false),
    ("change the end", Act::Sql("UPDATE session SET ended_at = 5 WHERE id = 2"), "not as they were", false),
    // Insert.
    (
        "add an event",
        Act::Sql(
            "INSERT INTO event (ts, kind, process, endpoint) SELECT ts, kind, process, endpoint FROM event LIMIT 1",
        ),
        "have no seal",
        false,
    ),
    (
        "add a session",
        Act::Sql(
            "INSERT INTO session (run_id, started_at, host, user, args, patterns, config_files, source)
             VALUES ('9-9', 1, '', '', '[]', '[]', '[]', 'proc')",
        ),
        "it has no seal",
        false,
    ),
    (
        "say that a session was pruned",
        Act::Sql("DELETE FROM session WHERE id = 2; INSERT INTO stub VALUES (2, '1-1', 1, 2, 3, 4, 99)"),
        "no seal covers its removal",
        false,
    ),
    // The seals themselves.
    ("delete a seal", Act::Sql("DELETE FROM seal WHERE id = 3"), "are missing", false),
    ("delete the last seals", Act::Sql("DELETE FROM seal WHERE session = 3"), "it has no seal", false),
    ("delete all seals", Act::Sql("DELETE FROM seal"), "no session in it has seals", false),
    ("change a seal", Act::Sql("UPDATE seal SET rows = zeroblob(32) WHERE id = 4"), "not follow", false),
    ("change the seal of counters", Act::Sql("UPDATE session SET state_seal = NULL"), "its counters", false),
    ("drop the seals' table", Act::Sql("DROP TABLE seal"), "is not as rano made it", false),
    // The file.
    (
        "put an older copy in its place",
        Act::File(|path, older| fs::copy(older, path).map(drop)),
        "head",
        true,
    ),
    ("remove it", Act::File(|path, _| fs::remove_file(path)), "does not exist", false),
    ("empty it", Act::File(|path, _| fs::write(path, "")), "nothing was ever written", false),
    ("cut it", Act::File(|path, _| truncate(path)), "cannot use", false),
    ("write something else", Act::File(|path, _| fs::write(path, [b'x'; 9000])), "not a SQLite", false),
    ("put a link in its place", Act::File(link), "cannot use", false),
];

fn truncate(path: &Path) -> std::io::Result<()> {
    fs::File::options().write(true).open(path)?.set_len(8192)
}

fn link(path: &Path, _: &Path) -> std::io::Result<()> {
    fs::remove_file(path)?;
    symlink("/nowhere/observer.sqlite", path)
}

fn verify(history: &History, arguments: &[&str]) -> Result<Finished> {
    history.launch(&["verify"])?.args(arguments).run()
}

fn head(history: &History) -> Result<String> {
    let finished = verify(history, &["--json"])?;
    let json: serde_json::Value = serde_json::from_str(&finished.stdout)?;
    Ok(json["head"].as_str().context("no head")?.to_owned())
}

fn every_change_to_the_file_is_found() -> Result<()> {
    let history = History::new()?;
    let claude = Connection { call: Some(("claude", Some("bash -c x"))), ..Connection::default() };
    let other = Connection { domain: Some("evil.example".into()), ip: "203.0.113.9", ..claude.clone() };
    history.write("first", START, &every(3, START, 1000, &claude), End::Clean)?;
    let older = history.directory().join("older");
    fs::copy(history.path(), &older)?;
    history.write("second", START + 1, &every(3, START + 1, 1000, &other), End::Clean)?;
    history.write("third", START + 2, &every(1, START + 2, 1000, &other), End::Killed)?;
    let whole = verify(&history, &[])?;
    whole.expect_code(0)?;
    ensure!(whole.stdout.starts_with("whole:") && whole.stdout.contains("no sealed end"), "{}", whole.stdout);
    let head = head(&history)?;
    verify(&history, &["--head", &head])?.expect_code(0)?;
    let original = history.directory().join("original");
    fs::copy(history.path(), &original)?;
    let mode = fs::metadata(history.path())?.permissions();
    let owner = history.place.ids();
    for (what, act, says, takes_head) in ACTS {
        for end in ["", "-wal", "-shm"] {
            let mut path = history.path().into_os_string();
            path.push(end);
            let _ = fs::remove_file(path);
        }
        fs::copy(&original, history.path())?;
        fs::set_permissions(history.path(), mode.clone())?;
        std::os::unix::fs::chown(history.path(), Some(owner.0), Some(owner.1))?;
        match act {
            Act::Sql(sql) => {
                let sqlite = Sqlite::open(history.path())?;
                sqlite.pragma_update(None, "foreign_keys", false)?;
                sqlite.execute_batch(sql).with_context(|| what.to_owned())?;
                sqlite.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()))?;
            }
            Act::File(act) => act(&history.path(), &older).context(what)?,
        }
        let without = verify(&history, &[])?;
        let with = verify(&history, &["--head", &head])?;
        let found = if takes_head { &with } else { &without };
        let code = found.status.code();
        ensure!(code == Some(1) || code == Some(3), "{what}: {code:?}\n{}{}", found.stdout, found.stderr);
        let said = format!("{}{}", found.stdout, found.stderr);
        ensure!(said.contains(says), "{what}: expected '{says}' in\n{said}");
        ensure!(with.status.code() != Some(0), "{what}: the head is not missed\n{}", with.stdout);
        if takes_head {
            without.expect_code(0)?;
        }
    }
    Ok(())
}

fn an_observation_prints_a_head_that_verify_finds() -> Result<()> {
    let scene = Scene::new(User::Ordinary)?;
    let mut claude = scene.agent("claude")?;
    let (_, tuple) = claude.connect(Transport::Tcp, scene.tcp)?;
    let key = scene.directory().join("key");
    fs::write(&key, "0123456789abcdef0123456789abcdef\n")?;
    fs::set_permissions(&key, fs::Permissions::from_mode(0o600))?;
    let owner = scene.place.ids();
    std::os::unix::fs::chown(&key, Some(owner.0), Some(owner.1))?;
    let rano = scene.launch()?.args(FAST).args(["--seal-key", "key"]).start()?;
    rano.wait_for_event("connect", tuple)?;
    let finished = rano.interrupt()?;
    finished.expect_code(0)?;
    let said = format!("{}{}", finished.stdout, finished.stderr);
    let line = said.lines().find_map(|line| line.trim().strip_prefix("sealed: "));
    let head = line.with_context(|| said.clone())?.to_owned();
    let run = |arguments: &[&str]| scene.launch()?.args(["verify"]).args(arguments).run();
    run(&["--head", &head, "--seal-key", "key"])?.expect_code(0)?;
    run(&["--head", &head])?.expect_code(2)?;
    let other = head.replace(|digit: char| digit != '0', "0");
    run(&["--head", &other, "--seal-key", "key"])?.expect_code(1)?;
    Ok(())
}

fn a_key_that_others_can_read_is_refused() -> Result<()> {
    let history = History::new()?;
    history.write("first", START, &every(1, START, 1000, &Connection::default()), End::Clean)?;
    let key = history.directory().join("key");
    fs::write(&key, "0123456789abcdef0123456789abcdef\n")?;
    let owner = history.place.ids();
    std::os::unix::fs::chown(&key, Some(owner.0), Some(owner.1))?;
    for (mode, text, code, says) in [
        (0o644, None, 2, "chmod 600"),
        (0o600, None, 1, "sealed without the key"),
        (0o600, Some("short"), 2, "has no key"),
    ] {
        if let Some(text) = text {
            fs::write(&key, text)?;
        }
        fs::set_permissions(&key, fs::Permissions::from_mode(mode))?;
        let finished = verify(&history, &["--seal-key", "key"])?;
        finished.expect_code(code)?;
        let said = format!("{}{}", finished.stdout, finished.stderr);
        ensure!(said.contains(says), "{said}");
    }
    Ok(())
}
