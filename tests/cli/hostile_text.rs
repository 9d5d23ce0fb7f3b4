//! Names, paths, arguments and messages that would move a cursor, hide themselves or be computed: none reaches a
//! terminal, a pretty log, JSON or a spreadsheet as it is.

use std::fs;

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;

use crate::support::actor::Transport;
use crate::support::history::{Connection, End, History, START};
use crate::support::home::Home;
use crate::support::namespace::User;
use crate::support::rano::Launch;
use crate::support::scene::Scene;
use crate::support::terminal;

crate::tests![
    arguments_reach_no_terminal_raw,
    configuration_reaches_no_terminal_raw,
    paths_reach_no_terminal_raw,
    the_message_of_a_trigger_reaches_no_terminal_raw,
    a_removed_database_is_named_escaped,
    what_processes_call_themselves_reaches_no_terminal_raw,
    stored_names_reach_no_terminal_raw,
    json_holds_nothing_that_moves_a_cursor_and_says_the_same,
    csv_is_safe_for_a_spreadsheet_and_on_a_terminal,
];

/// Sets a title, hides what follows, a control sequence in eight bits, text turned around, tags, a new line of its own.
const HOSTILE: &str = "\x1b]0;owned\x07\x1b[8m\u{9b}31m\u{202e}\u{2066}\u{200b}\u{e0041}\x7f\r\n[ALERT]";

/// What a terminal must never get, but for the colours of rano's own (ECMA-48 SGR).
fn expect_harmless(what: &str, written: &str) -> Result<()> {
    ensure!(!written.is_empty(), "{what}: nothing was written");
    // A terminal adds a return to each line feed, and CSV ends its rows with one.
    let mut rest = written.replace("\r\r\n", "\n").replace("\r\n", "\n");
    for parameters in ["0", "1", "2", "4", "7", "31", "32", "33"] {
        rest = rest.replace(&format!("\x1b[{parameters}m"), "");
    }
    for number in 16..=255 {
        rest = rest.replace(&format!("\x1b[38;5;{number}m"), "");
    }
    let is_wrong = |character: char| {
        (character.is_control() && character != '\n')
            || matches!(character, '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
            || matches!(character, '\u{e0000}'..='\u{e0fff}')
    };
    ensure!(!rest.contains(is_wrong), "{what}: {rest:?}");
    ensure!(!rest.lines().any(|line| line.starts_with("[ALERT]")), "{what}: a line of another's: {rest}");
    Ok(())
}

/// On a terminal and into a pipe: both are read by people.
fn expect_harmless_run(what: &str, launch: impl Fn() -> Result<Launch>) -> Result<()> {
    let (_, written) = terminal::watch_any(launch()?, 100, 50)?;
    expect_harmless(what, &written)?;
    let finished = launch()?.run()?;
    expect_harmless(what, &(finished.stdout + &finished.stderr))
}

fn arguments_reach_no_terminal_raw() -> Result<()> {
    let home = Home::new(&[])?;
    let hostile = HOSTILE;
    let glued = |flag: &str| format!("{flag}{hostile}");
    for arguments in [
        vec![hostile.to_owned()],
        vec![glued("--")],
        vec![glued("--interval-ms=")],
        vec![glued("--pid=")],
        vec![glued("--preset=")],
        vec![glued("--color=")],
        vec!["--once".to_owned(), "--no-sqlite".to_owned(), glued("--alert-domain=")],
        vec!["--once".to_owned(), glued("--config=/nonexistent/")],
        vec!["--once".to_owned(), glued("--config-toml=/nonexistent/")],
        vec!["--once".to_owned(), glued("--log-file=/nonexistent/")],
        vec!["--once".to_owned(), glued("--log-dir=/nonexistent/")],
        vec!["--once".to_owned(), glued("--replay=/nonexistent/")],
        vec!["--once".to_owned(), glued("--pcap-file=/nonexistent/")],
        vec!["--once".to_owned(), "--no-sqlite".to_owned(), glued("--pattern=")],
        vec!["config".to_owned(), hostile.to_owned()],
        vec!["config".to_owned(), "show".to_owned(), glued("--pattern=")],
        vec!["report".to_owned(), glued("--since=")],
        vec!["report".to_owned(), glued("--run-id=")],
        vec!["diff".to_owned(), glued("--old="), glued("--new=")],
        vec!["export".to_owned(), glued("--format=")],
        vec!["check".to_owned(), hostile.to_owned()],
        vec!["check".to_owned(), "rano.lock.toml".to_owned(), glued("--fail-on=")],
        vec!["run".to_owned(), glued("--policy=/nonexistent/"), "true".to_owned()],
        vec!["baseline".to_owned(), glued("--run-id=")],
        vec!["export".to_owned(), "--format=csv".to_owned(), glued("--fields=")],
        vec!["status".to_owned(), glued("--format={"), "--sqlite=/nonexistent/x".to_owned()],
        vec!["completions".to_owned(), hostile.to_owned()],
    ] {
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        expect_harmless_run(&format!("{arguments:?}"), || home.launch(&arguments))?;
    }
    Ok(())
}

fn configuration_reaches_no_terminal_raw() -> Result<()> {
    let one_line = HOSTILE.replace(['\r', '\n'], "");
    let options = format!("interval_ms={one_line}\n{one_line}=1\nlog_file=/nonexistent/{one_line}/x\n");
    let providers = format!("[providers]\n\"a{}\" = [\"b\"]\nmode = \"{one_line}\"\n", "\u{202e}");
    for (file, text) in [
        ("config.conf", options.as_str()),
        ("rano.toml", &providers),
        ("rano.toml", &format!("[providers\n{one_line}")),
        ("presets/p.conf", &format!("# Description: {one_line}\nstats_top={one_line}\n")),
    ] {
        let home = Home::configured(&[(file, text)])?;
        let named = Home::configured(&[(&format!("presets/{one_line}.conf"), text)])?;
        for home in [&home, &named] {
            for arguments in [
                &["config", "check"][..],
                &["config", "paths"],
                &["config", "show"],
                &["--list-presets"],
                &["--once", "--no-sqlite"],
                &["--once", "--no-sqlite", "--preset=p"],
            ] {
                expect_harmless_run(&format!("{file}, {arguments:?}"), || home.launch(arguments))?;
            }
        }
    }
    let home = Home::new(&[])?;
    for variable in ["RANO_INTERVAL_MS", "RANO_PRESET", "RANO_CONFIG_TOML", "HTTPS_PROXY"] {
        for arguments in [&["--once", "--no-sqlite"][..], &["config", "check"]] {
            let launch = || Ok(home.launch(arguments)?.env(variable, HOSTILE));
            expect_harmless_run(&format!("{variable}, {arguments:?}"), launch)?;
        }
    }
    Ok(())
}

fn paths_reach_no_terminal_raw() -> Result<()> {
    let home =
        Home::new(&[(&format!("{HOSTILE}/notes.txt"), "remember the milk, all of it, whatever happens\n")])?;
    let directory = home.path().join(HOSTILE);
    let (uid, gid) = home.ids();
    std::os::unix::fs::chown(&directory, Some(uid), Some(gid))?;
    let inside = |name: &str| format!("{HOSTILE}/{name}");
    let (database, notes, log) = (inside("new.sqlite"), inside("notes.txt"), inside("log.txt"));
    for arguments in [
        vec!["--once", "--sqlite", &database, "--log-file", &log],
        vec!["--once", "--sqlite", &notes],
        vec!["--once", "--no-sqlite", "--replay", &notes],
        vec!["--once", "--no-sqlite", "--pcap-file", &notes],
        vec!["--once", "--no-sqlite", "--config", &notes],
        vec!["--once", "--no-sqlite", "--log-dir", &notes],
        vec!["report", "--sqlite", &database],
        vec!["report", "--sqlite", &notes],
        vec!["report", "--sqlite", &database, "--run-id", "none"],
        vec!["export", "--format", "csv", "--sqlite", &notes],
        vec!["diff", "--old", "a", "--new", "b", "--sqlite", &database],
        vec!["doctor"],
    ] {
        let launch = || Ok(home.launch(&arguments)?.env("HOME", directory.as_os_str()));
        expect_harmless_run(&format!("{arguments:?}"), launch)?;
    }
    let written = fs::read_to_string(directory.join("log.txt"))?;
    expect_harmless("the log", &written)
}

/// SQLite passes on what whoever wrote the database had it say (`RAISE`), be it at the start or at the first event.
fn the_message_of_a_trigger_reaches_no_terminal_raw() -> Result<()> {
    let scene = Scene::new(User::Ordinary)?;
    let mut claude = scene.agent("claude")?;
    claude.connect(Transport::Tcp, scene.tcp)?;
    for table in ["session", "event"] {
        let name = format!("{table}.sqlite");
        scene.launch()?.args(["--once", "--sqlite", &name]).run()?.expect_code(0)?;
        rusqlite::Connection::open(scene.directory().join(&name))?.execute_batch(&format!(
            "CREATE TRIGGER hostile BEFORE INSERT ON {table} BEGIN SELECT RAISE(ABORT, '{HOSTILE}'); END"
        ))?;
        expect_harmless_run(table, || Ok(scene.launch()?.args(["--once", "--sqlite", &name])))?;
    }
    Ok(())
}

fn a_removed_database_is_named_escaped() -> Result<()> {
    let mut scene = Scene::new(User::Ordinary)?;
    let name = format!("{HOSTILE}.sqlite");
    let rano = scene.observe(&["--sqlite", &name, "--db-flush-ms", "20"])?;
    let mut claude = scene.agent("claude")?;
    fs::remove_file(scene.directory().join(&name))?;
    let (_, tuple) = claude.connect(Transport::Tcp, scene.tcp)?;
    rano.wait_for_event("connect", tuple)?;
    let finished = rano.interrupt()?;
    let notice = finished.stderr.lines().find(|line| line.contains("was removed"));
    let notice = notice.with_context(|| format!("no notice: {finished:#?}"))?;
    ensure!(notice.contains("\\x1b]0;owned\\x07") && notice.contains("\\r\\n[ALERT]"), "{notice}");
    expect_harmless("standard error", &finished.stderr)
}

/// A client whose name and arguments are hostile, on a terminal: banner, event, stats, summary.
fn what_processes_call_themselves_reaches_no_terminal_raw() -> Result<()> {
    let scene = Scene::new(User::Ordinary)?;
    // Lines show the program's name, which nobody can change while it runs; the rest shows what can be.
    let name = "\x1b[8m\u{9b}31m\u{202e}x";
    let mut claude = crate::support::actor::Actor::start_with(&scene.place, name, &[HOSTILE.as_ref()])?;
    claude.rename(name.as_bytes())?;
    claude.connect(Transport::Tcp, scene.tcp)?;
    for color in ["always", "never"] {
        let launch = || {
            let arguments = ["--once", "--color", color, "--log-file", "log.txt", "--session-name", HOSTILE];
            Ok(scene.launch()?.args(arguments).args(["--pattern", HOSTILE, "--pattern", "claude"]))
        };
        expect_harmless_run(color, launch)?;
    }
    let log = fs::read_to_string(scene.directory().join("log.txt"))?;
    ensure!(log.contains("\\u{9b}31m"), "{log}");
    ensure!(!log.contains('\x1b'), "{log:?}");
    expect_harmless("the log", &log)
}

fn hostile_history() -> Result<History> {
    let history = History::new()?;
    let connection = Connection {
        comm: HOSTILE.to_owned(),
        cmdline: format!("claude {HOSTILE}"),
        domain: Some(HOSTILE.to_owned()),
        ..Connection::default()
    };
    let plain = Connection::default();
    history.write(HOSTILE, START, &[connection], End::Clean)?;
    history.write("plain", START + 60_000, &[plain], End::Clean)?;
    Ok(history)
}

const HOSTILE_RUN: &str = "1-1768678200000";
const PLAIN_RUN: &str = "1-1768678260000";

fn stored_names_reach_no_terminal_raw() -> Result<()> {
    let history = hostile_history()?;
    for arguments in [
        &["report", "--run-id", HOSTILE_RUN][..],
        &["report", "--since", "2026-01-01"],
        &["report", "--since", "2026-01-01", "--color", "always"],
        &["report", "--run-id", "no such session"],
        &["diff", "--old", PLAIN_RUN, "--new", HOSTILE_RUN],
        &["diff", "--old", HOSTILE_RUN, "--new", PLAIN_RUN, "--color", "always"],
        &["status", "--format", "{session_name}|{source}"],
    ] {
        expect_harmless_run(&format!("{arguments:?}"), || history.launch(arguments))?;
    }
    Ok(())
}

fn json_holds_nothing_that_moves_a_cursor_and_says_the_same() -> Result<()> {
    let expect = |what: &str, text: &str| -> Result<()> {
        let is_wrong = |character: char| character == '\x7f' || !(character.is_ascii() || character == '…');
        ensure!(
            !text.replace('\n', "").contains(|c: char| c.is_control() || is_wrong(c)),
            "{what}: {text:?}"
        );
        Ok(())
    };
    let history = hostile_history()?;
    for (arguments, pointer) in [
        (&["report", "--run-id", HOSTILE_RUN, "--json"][..], "/session/name"),
        (&["diff", "--old", PLAIN_RUN, "--new", HOSTILE_RUN, "--json"], "/new/name"),
        (&["export", "--format", "jsonl", "--run-id", HOSTILE_RUN], "/comm"),
        (&["config", "show", "--json", "--session-name", HOSTILE], "/session_name/value"),
    ] {
        let text = history.run(arguments)?.stdout;
        expect(&format!("{arguments:?}"), &text)?;
        let first = if arguments[0] == "export" { text.lines().next().unwrap_or_default() } else { &text };
        let value: Value = serde_json::from_str(first).with_context(|| text.clone())?;
        ensure!(value.pointer(pointer).and_then(Value::as_str) == Some(HOSTILE), "{arguments:?}: {value}");
        expect(
            &format!("{arguments:?}"),
            &terminal::watch(history.launch(arguments)?, 100, 50)?.replace('\r', ""),
        )?;
    }
    let mut scene = Scene::new(User::Ordinary)?;
    let name = "\x1b[\u{9b}\u{202e}\x7f\u{2066}x";
    let mut claude = scene.agent("claude")?;
    claude.rename(name.as_bytes())?;
    let rano = scene.observe(&["--json", "--log-file", "log.jsonl", "--alert-max-connections", "1"])?;
    let (_, tuple) = claude.connect(Transport::Tcp, scene.tcp)?;
    let event: Value = serde_json::from_str(&rano.wait_for_event("connect", tuple)?)?;
    ensure!(event["comm"] == name, "{event}");
    let finished = rano.interrupt()?;
    expect("events", &finished.stdout)?;
    expect("the log", &fs::read_to_string(scene.directory().join("log.jsonl"))?)?;
    let alert = finished.stderr.lines().find(|line| line.starts_with("{\"type\":\"alert\""));
    expect("the alert", alert.with_context(|| format!("no alert: {finished:#?}"))?)
}

fn csv_is_safe_for_a_spreadsheet_and_on_a_terminal() -> Result<()> {
    let history = History::new()?;
    let texts = ["\r=1", "\n=1", " =1", "\u{a0}＝1", "＋1", "－1", "＠SUM(A1)", "\u{feff}@x", HOSTILE];
    let connections: Vec<Connection> = texts
        .iter()
        .map(|text| Connection { cmdline: (*text).to_owned(), fails: true, ..Connection::default() })
        .collect();
    history.write("csv", START, &connections, End::Clean)?;
    let export = ["export", "--format", "csv", "--fields", "cmdline", "--no-header"];
    let cells = |raw: bool| -> Result<Vec<String>> {
        let text = history.launch(&export)?.args(raw.then_some("--raw")).command_output()?;
        let mut reader = csv::ReaderBuilder::new().has_headers(false).from_reader(text.as_bytes());
        Ok(reader.deserialize().collect::<Result<_, _>>()?)
    };
    ensure!(cells(true)? == texts, "{:?}", cells(true)?);
    let guarded: Vec<String> = texts.iter().map(|text| format!("'{text}")).collect();
    let found = cells(false)?;
    // The last begins with an escape, which is no sign that anything computes.
    ensure!(found[..8] == guarded[..8] && found[8] == HOSTILE, "{found:?}");
    for raw in [false, true] {
        let launch = history.launch(&export)?.args(raw.then_some("--raw"));
        expect_harmless("CSV", &terminal::watch(launch, 100, 50)?)?;
    }
    Ok(())
}
