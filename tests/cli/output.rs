//! What a user reads: pretty lines, JSON lines, the summary, the log files.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;

use crate::support::actor::{Ending, Transport};
use crate::support::namespace::User;
use crate::support::rano::Finished;
use crate::support::recording::Recording;
use crate::support::scene::Scene;

crate::tests![
    pretty_lines_have_the_documented_columns,
    json_lines_have_the_documented_fields,
    an_end_that_was_found_out_is_marked,
    a_recording_says_which_source_made_it,
    the_summary_counts_what_was_seen,
    the_summary_goes_to_standard_error_with_json,
    summary_only_prints_no_events,
    a_log_file_is_appended_to,
    a_log_directory_gets_a_file_a_run,
    the_log_format_is_independent_of_standard_output,
    colour_is_off_in_a_pipe_and_can_be_forced,
    files_are_private,
    the_views_agree_with_the_events,
    a_user_without_a_name_is_stored_by_number,
    the_sqlite_shell_reads_the_columns_of_the_contract,
];

/// One connection of `claude`, opened and closed under observation.
fn one_connection(scene: &mut Scene, arguments: &[&str]) -> Result<(Finished, String, String)> {
    let rano = scene.observe(arguments)?;
    let mut claude = scene.agent("claude")?;
    let (connection, tuple) = claude.connect(Transport::Tcp, scene.tcp)?;
    claude.exchange(connection, 100, 200)?;
    let connect = rano.wait_for_event("connect", tuple)?;
    claude.close(connection, Ending::InOrder)?;
    let close = rano.wait_for_event("close", tuple)?;
    let finished = rano.interrupt()?;
    finished.expect_code(0)?;
    Ok((finished, connect, close))
}

fn pretty_lines_have_the_documented_columns() -> Result<()> {
    let mut scene = Scene::new(User::Ordinary)?;
    let (_, connect, close) = one_connection(&mut scene, &[])?;
    for (line, kind) in [(&connect, "+ connect"), (&close, "- close  ")] {
        let columns: Vec<_> = line.split(" | ").collect();
        let [time, event, provider, pid, comm, protocol, ends, ..] = columns[..] else {
            anyhow::bail!("too few columns: {line}");
        };
        ensure!(time.len() == "2026-01-17T19:30:00Z".len() && time.ends_with('Z'), "{line}");
        ensure!((event, provider, comm, protocol) == (kind, "anthropic", "claude", "tcp"), "{line}");
        ensure!(pid.starts_with("pid=") && ends.ends_with(&format!(" -> {}", scene.tcp)), "{line}");
    }
    // A poll found it: it began a little before.
    ensure!(close.contains(" | dur≥") && close.contains("ms"), "{close}");
    Ok(())
}

fn json_lines_have_the_documented_fields() -> Result<()> {
    let mut scene = Scene::new(User::Ordinary)?;
    let (finished, _, close) = one_connection(&mut scene, &["--json"])?;
    for line in finished.stdout.lines() {
        serde_json::from_str::<Value>(line).with_context(|| line.to_owned())?;
    }
    let close: Value = serde_json::from_str(&close)?;
    let expected = [
        ("v", Value::from(1)),
        ("event", "close".into()),
        ("comm", "claude".into()),
        ("provider", "anthropic".into()),
        ("proto", "tcp".into()),
        ("remote", scene.tcp.to_string().into()),
        ("remote_ip", "127.0.0.1".into()),
        ("remote_port", scene.tcp.port().into()),
        ("bytes_sent", 100.into()),
        ("bytes_recv", 200.into()),
        ("source", "proc".into()),
        ("owner_quality", "polled".into()),
    ];
    for (key, value) in expected {
        ensure!(close[key] == value, "{key}: {close}");
    }
    for key in
        ["ts", "run_id", "pid", "cmdline", "local", "duration_ms", "ppid", "uid", "exe", "ancestry_path"]
    {
        ensure!(!close[key].is_null(), "{key}: {close}");
    }
    let time = close["ts"].as_str().context("ts is text")?;
    ensure!(time.len() == "2026-01-17T19:30:00.000Z".len() && time.ends_with('Z'), "{time}");
    Ok(())
}

/// The scene's own connection, of google, and claude's.
fn expect_summary(text: &str) -> Result<()> {
    let start = text.find("Summary\n").context("no summary")?;
    let summary = &text[start..];
    for line in ["  connects 2\n", "  closes   1\n", "  Providers\n", "    1 anthropic\n", "    1 google\n"] {
        ensure!(summary.contains(line), "{line:?} is missing in\n{summary}");
    }
    ensure!(summary.contains("  active   1 (peak "), "{summary}");
    ensure!(summary.contains("Completeness"), "{summary}");
    Ok(())
}

/// Events, session and summary say what was recorded, not that it is played.
fn a_recording_says_which_source_made_it() -> Result<()> {
    let connect = || Recording::new().connect(1, 100, "192.0.2.1:443");
    for (recording, expected) in [
        (connect(), "proc"),
        (Recording::new().made_by("ebpf_kprobe").connect(1, 100, "192.0.2.1:443"), "ebpf-kprobe"),
    ] {
        let scene = Scene::new(User::Ordinary)?;
        let replay = recording.write(scene.directory())?;
        let finished =
            scene.launch()?.args([OsStr::new("--json"), OsStr::new("--replay"), replay.as_os_str()]).run()?;
        finished.expect_code(0)?;
        let line = finished.stdout.lines().next().context("no line")?;
        let line: Value = serde_json::from_str(line)?;
        ensure!(line["source"] == expected, "{line}");
        let rows = "SELECT events.source || ' ' || sessions.source FROM events JOIN sessions USING (run_id)";
        let rows = scene.database()?.text(rows)?;
        ensure!(rows == format!("{expected} {expected}"), "{rows}");
        let summary = format!("source {expected} (a recording)");
        ensure!(finished.stderr.contains(&summary), "{}", finished.stderr);
    }
    Ok(())
}

fn an_end_that_was_found_out_is_marked() -> Result<()> {
    let scene = Scene::new(User::Ordinary)?;
    let recording = Recording::new().connect(1, 100, "192.0.2.1:443").gone(1, 2000);
    let replay = recording.write(scene.directory())?;
    let run = |format: &str| {
        scene.launch()?.args([OsStr::new("--replay"), replay.as_os_str(), OsStr::new(format)]).run()
    };
    let json = run("--json")?;
    json.expect_code(0)?;
    let close = json.stdout.lines().last().context("no line")?;
    let close: Value = serde_json::from_str(close)?;
    ensure!(close["event"] == "close" && close["late"] == true, "{close}");
    for field in ["duration_ms", "bytes_sent", "bytes_recv", "error"] {
        ensure!(close.get(field).is_none(), "{field}: {close}");
    }
    let pretty = run("--no-sqlite")?;
    ensure!(pretty.stdout.contains(" | late=true") && !pretty.stdout.contains("dur="), "{}", pretty.stdout);
    let kept =
        "SELECT count(*) FROM events WHERE event = 'close' AND duration_ms IS NULL AND bytes_sent IS NULL";
    ensure!(scene.database()?.count(kept)? == 1, "the row says more");
    Ok(())
}

fn the_summary_counts_what_was_seen() -> Result<()> {
    let mut scene = Scene::new(User::Ordinary)?;
    expect_summary(&one_connection(&mut scene, &[])?.0.stdout)
}

fn the_summary_goes_to_standard_error_with_json() -> Result<()> {
    let mut scene = Scene::new(User::Ordinary)?;
    let (finished, ..) = one_connection(&mut scene, &["--json"])?;
    ensure!(!finished.stdout.contains("Summary"));
    expect_summary(&finished.stderr)
}

fn summary_only_prints_no_events() -> Result<()> {
    let scene = Scene::new(User::Ordinary)?;
    // Standard output has no events to wait for, so this one goes by `--once`.
    let mut claude = scene.agent("claude")?;
    claude.connect(Transport::Tcp, scene.tcp)?;
    let finished = scene.launch()?.args(["--once", "--summary-only", "--sqlite", "observer.sqlite"]).run()?;
    finished.expect_code(0)?;
    ensure!(finished.stdout.starts_with("Summary\n"), "{finished:#?}");
    let database = scene.database()?;
    ensure!(database.count("SELECT count(*) FROM events WHERE provider = 'anthropic'")? == 1);
    Ok(())
}

fn a_log_file_is_appended_to() -> Result<()> {
    let mut scene = Scene::new(User::Ordinary)?;
    for _ in 0..2 {
        one_connection(&mut scene, &["--log-file", "events.log"])?;
    }
    let log = fs::read_to_string(scene.directory().join("events.log"))?;
    ensure!(log.matches("| anthropic |").count() == 4, "{log}");
    ensure!(log.matches("Summary\n").count() == 2, "{log}");
    Ok(())
}

fn a_log_directory_gets_a_file_a_run() -> Result<()> {
    let mut scene = Scene::new(User::Ordinary)?;
    for _ in 0..2 {
        one_connection(&mut scene, &["--log-dir", "logs"])?;
    }
    let files = fs::read_dir(scene.directory().join("logs"))?.collect::<std::io::Result<Vec<_>>>()?;
    ensure!(files.len() == 2, "{files:?}");
    for file in files {
        ensure!(fs::read_to_string(file.path())?.matches("| anthropic |").count() == 2);
    }
    Ok(())
}

fn the_log_format_is_independent_of_standard_output() -> Result<()> {
    let mut scene = Scene::new(User::Ordinary)?;
    one_connection(&mut scene, &["--log-file", "events.log", "--log-format", "json"])?;
    let log = fs::read_to_string(scene.directory().join("events.log"))?;
    let events = log.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    ensure!(events.filter(|event| event["provider"] == "anthropic").count() == 2, "{log}");
    Ok(())
}

fn colour_is_off_in_a_pipe_and_can_be_forced() -> Result<()> {
    let scene = Scene::new(User::Ordinary)?;
    for (arguments, no_color, coloured) in [
        (&[][..], false, false),
        (&["--color", "always"], false, true),
        (&["--no-color"], false, false),
        (&[], true, false),
    ] {
        let mut claude = scene.agent("claude")?;
        claude.connect(Transport::Tcp, scene.tcp)?;
        let mut launch = scene.launch()?.args(["--once", "--no-sqlite"]).args(arguments);
        if no_color {
            launch = launch.env("NO_COLOR", "1");
        }
        let finished = launch.run()?;
        finished.expect_code(0)?;
        ensure!(finished.stdout.contains('\x1b') == coloured, "{arguments:?}: {finished:#?}");
    }
    Ok(())
}

fn files_are_private() -> Result<()> {
    let mut scene = Scene::new(User::Ordinary)?;
    one_connection(&mut scene, &["--log-file", "events.log", "--log-dir", "logs"])?;
    for (name, expected) in [("observer.sqlite", 0o600), ("events.log", 0o600), ("logs", 0o700)] {
        let mode = fs::metadata(scene.directory().join(name))?.permissions().mode() & 0o777;
        ensure!(mode == expected, "{name} is {mode:o}");
    }
    Ok(())
}

fn the_views_agree_with_the_events() -> Result<()> {
    let mut scene = Scene::new(User::Ordinary)?;
    one_connection(&mut scene, &[])?;
    let database = scene.database()?;
    for view in [
        "provider_counts",
        "provider_ips",
        "provider_ports",
        "provider_processes",
        "provider_last_hour",
        "provider_hourly",
        "session_summary",
    ] {
        let query = format!("SELECT sum(connects) FROM {view} WHERE provider = 'anthropic'");
        let connects = database.count(&query)?;
        let events = database.text("SELECT json_group_array(event || ts || local_port) FROM events")?;
        ensure!(connects == 1, "{view}: {connects} of {events}");
    }
    ensure!(database.count("SELECT user_version > 0 FROM pragma_user_version")? == 1);
    ensure!(database.text("PRAGMA journal_mode")? == "wal");
    Ok(())
}

fn a_user_without_a_name_is_stored_by_number() -> Result<()> {
    let scene = Scene::new(User::Ordinary)?;
    let uid = scene.place.uid();
    let named = nix::unistd::User::from_uid(uid.into())?.map(|user| user.name);
    scene.launch()?.args(["--once", "--sqlite", "observer.sqlite"]).run()?.expect_code(0)?;
    let stored = scene.database()?.text("SELECT user FROM sessions")?;
    ensure!(stored == named.unwrap_or_else(|| uid.to_string()), "{stored}");
    Ok(())
}

fn the_sqlite_shell_reads_the_columns_of_the_contract() -> Result<()> {
    let mut scene = Scene::new(User::Ordinary)?;
    one_connection(&mut scene, &[])?;
    let output = std::process::Command::new("sqlite3")
        .arg(scene.directory().join("observer.sqlite"))
        .arg(
            "SELECT id, ts, run_id, event, provider, pid, comm, cmdline, proto, local_ip, local_port, remote_ip, \
             remote_port, domain, ancestry_path, duration_ms, alert, ppid, uid, exe, endpoint_type, bytes_sent, \
             bytes_recv, error, state, source, owner_quality, domain_source, preexisting, netns FROM events; \
             SELECT run_id, name, started_at, ended_at, host, user, args, patterns, config_files, source, \
             source_reason, clean_exit FROM sessions;",
        )
        .output();
    let output = match output {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            return Err(crate::support::trial::skip("sqlite3 is not installed"));
        }
        output => output?,
    };
    let text = String::from_utf8_lossy(&output.stdout);
    ensure!(output.status.success() && text.contains("|close|anthropic|"), "{output:?}");
    Ok(())
}
