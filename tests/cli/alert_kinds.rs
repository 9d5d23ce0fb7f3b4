//! Alerts on what goes where: bytes, endpoints that are new, classes. And whom an alert is about.

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;

use crate::support::actor::{Ending, Transport};
use crate::support::namespace::{Place, User};
use crate::support::rano::{Finished, Launch};
use crate::support::recording::Recording;
use crate::support::scene::Scene;
use crate::support::stage;

crate::tests![
    an_alert_says_which_program_of_which_agent_with_what_command_line,
    forty_megabytes_are_told_while_their_connection_is_open,
    what_a_short_connection_sent_is_told_at_its_end,
    an_endpoint_that_the_history_lacks_is_told_once,
    with_an_empty_history_nothing_is_new,
    without_a_history_nothing_is_new,
    a_class_is_told_and_the_unknown_one_waits_for_a_name,
    a_late_name_may_be_of_a_class_that_is_told,
    look_ups_to_configured_resolvers_need_no_name,
    the_new_kinds_are_objects_with_json,
];

fn alerts(text: &str) -> Vec<&str> {
    text.lines().filter(|line| line.starts_with("[ALERT] ")).collect()
}

/// Kind and message of each alert.
fn told(finished: &Finished) -> Vec<String> {
    let columns = |line: &str| line.split(" | ").skip(2).take(2).collect::<Vec<_>>().join(" | ");
    alerts(&finished.stderr).into_iter().map(columns).collect()
}

fn an_alert_says_which_program_of_which_agent_with_what_command_line() -> Result<()> {
    let mut scene = Scene::new(User::Ordinary)?;
    let rano = scene.observe(&["--alert-max-connections", "1"])?;
    let mut claude = scene.agent("claude")?;
    let curl = claude.spawn(&claude.myself(), "curl")?;
    let pids = (claude.pid(), curl.pid);
    claude.connect_in(&curl, Transport::Tcp, scene.tcp)?;
    let line = rano.stderr.wait_for("an alert", |line| line.starts_with("[ALERT] "))?;
    let who = format!(" | 2/1 active connections | curl({}) ← claude({}) | ", pids.1, pids.0);
    ensure!(line.contains(&who), "{line}\nexpected: {who}");
    let command = line.rsplit(" | ").next().unwrap_or_default();
    ensure!(command.contains("curl"), "{line}");
    // The agent's own: once is enough.
    let (_, own) = claude.connect(Transport::Tcp, scene.tcp)?;
    rano.wait_for_event("connect", own)?;
    rano.interrupt()?.expect_code(0)?;
    Ok(())
}

/// On a real connection that stays open, with nobody else who asks for its bytes.
fn forty_megabytes_are_told_while_their_connection_is_open() -> Result<()> {
    let mut scene = Scene::new(User::Ordinary)?;
    let rano = scene.observe(&["--alert-sent", "30M", "--no-sqlite"])?;
    let mut claude = scene.agent("claude")?;
    let (connection, tuple) = claude.connect(Transport::Tcp, scene.tcp)?;
    rano.wait_for_event("connect", tuple)?;
    claude.exchange(connection, 1_000_000, 10)?;
    claude.exchange(connection, 39_000_000, 10)?;
    let line = rano.stderr.wait_for("sent", |line| line.contains(" | WARNING | sent | "))?;
    let message = format!(" > 30.0 MiB sent to {} | claude({}) | ", scene.tcp, claude.pid());
    ensure!(line.contains(&message), "{line}\nexpected: {message}");
    ensure!(!rano.stdout.text().contains("- close"), "it was open");
    claude.exchange(connection, 1_000_000, 10)?;
    claude.close(connection, Ending::InOrder)?;
    rano.wait_for_event("close", tuple)?;
    let finished = rano.interrupt()?;
    ensure!(alerts(&finished.stderr).len() == 1, "once a connection: {finished:#?}");
    Ok(())
}

fn what_a_short_connection_sent_is_told_at_its_end() -> Result<()> {
    let mut scene = Scene::new(User::Ordinary)?;
    let rano = scene.observe(&["--alert-sent", "1K"])?;
    let mut claude = scene.agent("claude")?;
    for size in [1024, 1025] {
        let (connection, tuple) = claude.connect(Transport::Tcp, scene.tcp)?;
        rano.wait_for_event("connect", tuple)?;
        claude.exchange(connection, size, 10)?;
        claude.close(connection, Ending::InOrder)?;
        rano.wait_for_event("close", tuple)?;
    }
    let finished = rano.interrupt()?;
    ensure!(told(&finished) == [format!("sent | 1.0 KiB > 1.0 KiB sent to {}", scene.tcp)], "{finished:#?}");
    let marked = "SELECT count(*) FROM events WHERE alert = 1";
    ensure!(scene.database()?.count(marked)? == 2, "its connect and its close");
    Ok(())
}

/// Plays one recording after the other into the same history.
fn replays(recordings: &[Recording], arguments: &[&str]) -> Result<Vec<Finished>> {
    let place = Place::new(User::Ordinary)?;
    let directory = stage::directory(&place)?;
    let mut all = Vec::new();
    for recording in recordings {
        let path = recording.write(directory.path())?;
        let launch = Launch::new(&place, directory.path())?.args(["--replay"]).args([path]);
        let finished = launch.args(["--stats-interval-ms", "0", "--no-banner"]).args(arguments).run()?;
        finished.expect_code(0)?;
        all.push(finished);
    }
    Ok(all)
}

fn an_endpoint_that_the_history_lacks_is_told_once() -> Result<()> {
    let first = Recording::new()
        .process(43, "codex")
        .connect(1, 0, "203.0.113.7:443")
        .name(1, 10, "api.anthropic.com", "dns")
        .connect(2, 0, "198.51.100.66:443")
        .connect_of(43, 3, 0, "192.0.2.9:22", "established")
        .close(1, 100);
    let second = Recording::new()
        .connect(1, 0, "203.0.113.99:443")
        .name(1, 10, "api.anthropic.com", "dns")
        .connect(2, 20, "198.51.100.66:443")
        // The same address, another port; twice.
        .connect(3, 40, "198.51.100.66:8443")
        .connect(4, 60, "198.51.100.66:8443")
        // Another agent knows it.
        .connect(5, 80, "192.0.2.9:22")
        // A new name, which comes late.
        .connect(6, 100, "203.0.113.7:443")
        .name(6, 900, "drop.evil.example", "dns")
        .clock(5_000);
    let runs = replays(&[first, second], &["--alert-new"])?;
    ensure!(told(&runs[0]).is_empty(), "{:#?}", runs[0]);
    let expected = [
        "new_endpoint | drop.evil.example:443 was never reached by claude before",
        "new_endpoint | 198.51.100.66:8443 was never reached by claude before",
        "new_endpoint | 192.0.2.9:22 was never reached by claude before",
    ];
    ensure!(told(&runs[1]) == expected, "{:#?}", runs[1]);
    Ok(())
}

fn with_an_empty_history_nothing_is_new() -> Result<()> {
    let recording = Recording::new().connect(1, 0, "203.0.113.7:443").close(1, 100);
    let runs = replays(&[recording], &["--alert-new"])?;
    ensure!(told(&runs[0]).is_empty(), "{:#?}", runs[0]);
    let said = runs[0].stderr.matches("--alert-new: the history is empty").count();
    ensure!(said == 1, "{:#?}", runs[0]);
    Ok(())
}

fn without_a_history_nothing_is_new() -> Result<()> {
    let recording = Recording::new().connect(1, 0, "203.0.113.7:443").close(1, 100);
    let runs = replays(&[recording], &["--alert-new", "--no-sqlite"])?;
    ensure!(told(&runs[0]).is_empty(), "{:#?}", runs[0]);
    ensure!(runs[0].stderr.contains("--alert-new: there is no history"), "{:#?}", runs[0]);
    Ok(())
}

fn a_class_is_told_and_the_unknown_one_waits_for_a_name() -> Result<()> {
    let recording = || {
        Recording::new()
            .connect(1, 0, "203.0.113.7:443")
            .connect(2, 0, "198.51.100.66:443")
            .connect(3, 0, "10.0.0.7:5432")
            .name(1, 1_000, "github.com", "dns")
            .clock(5_000)
    };
    let unknown = replays(&[recording()], &["--alert-class", "unknown"])?;
    ensure!(told(&unknown[0]) == ["class | 198.51.100.66:443 is of class unknown"], "{:#?}", unknown[0]);
    let at = "[ALERT] 2026-01-17T19:30:02Z | WARNING | ";
    ensure!(unknown[0].stderr.contains(at), "two seconds for a name: {:#?}", unknown[0]);
    let others = replays(&[recording()], &["--alert-class", "github", "--alert-class", "private"])?;
    let expected =
        ["class | 10.0.0.7:5432 is of class private", "class | github.com:443 is of class code_host"];
    ensure!(told(&others[0]) == expected, "{:#?}", others[0]);
    let typo = Place::new(User::Ordinary)?;
    let directory = stage::directory(&typo)?;
    let refused = Launch::new(&typo, directory.path())?.args(["--once", "--alert-class", "githab"]).run()?;
    refused.expect_code(2)?;
    ensure!(refused.stderr.contains("code_host"), "it lists the classes: {refused:#?}");
    Ok(())
}

fn a_late_name_may_be_of_a_class_that_is_told() -> Result<()> {
    let recording = Recording::new()
        .connect(1, 0, "203.0.113.7:443")
        .close(1, 100)
        .name(1, 1_500, "registry.npmjs.org", "dns")
        .clock(3_000);
    let runs = replays(&[recording], &["--alert-class", "registry"])?;
    ensure!(told(&runs[0]) == ["class | registry.npmjs.org:443 is of class registry"], "{:#?}", runs[0]);
    Ok(())
}

/// The stub of systemd-resolved counts as one wherever a recording was made.
fn look_ups_to_configured_resolvers_need_no_name() -> Result<()> {
    let recording =
        Recording::new().datagrams(1, 0, "127.0.0.53:53").datagrams(2, 0, "198.51.100.53:53").clock(5_000);
    let runs = replays(&[recording], &["--alert-unknown-domain"])?;
    ensure!(told(&runs[0]) == ["unknown_domain | 198.51.100.53:53 has no name"], "{:#?}", runs[0]);
    Ok(())
}

fn the_new_kinds_are_objects_with_json() -> Result<()> {
    let recording = Recording::new().connect(1, 0, "10.0.0.7:5432").close(1, 100);
    let runs = replays(&[recording], &["--json", "--alert-class", "private", "--alert-sent", "1"])?;
    let objects: Vec<Value> = runs[0]
        .stderr
        .lines()
        .filter(|line| line.starts_with("{\"type\":\"alert\""))
        .map(serde_json::from_str)
        .collect::<std::result::Result<_, _>>()?;
    let class = objects.iter().find(|object| object["kind"] == "class").context("no alert")?;
    for (key, value) in [
        ("severity", "warning"),
        ("endpoint_type", "private"),
        ("agent", "claude"),
        ("program", "claude"),
        ("cmdline", "claude"),
        ("remote", "10.0.0.7:5432"),
    ] {
        ensure!(class[key] == value, "{key}: {class}");
    }
    ensure!(class["agent_pid"] == 42, "{class}");
    Ok(())
}
