//! Alerts on real sockets.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;

use crate::support::actor::{Ending, Service, Transport, Tuple};
use crate::support::namespace::User;
use crate::support::rano::{Finished, Rano};
use crate::support::scene::{FAST, Scene};

crate::tests![
    too_many_connections_are_told_and_marked,
    too_many_connections_of_a_provider_are_told,
    a_long_connection_is_told_once_while_it_is_open,
    a_connection_that_ends_without_a_name_is_told_at_its_end,
    an_open_connection_without_a_name_is_told_after_two_seconds,
    a_single_look_tells_of_what_has_no_name,
    with_json_alerts_are_objects_on_standard_error,
    no_alerts_means_none,
    nothing_is_done_while_nothing_happens,
];

pub fn alerts(text: &str) -> Vec<&str> {
    text.lines().filter(|line| line.starts_with("[ALERT] ")).collect()
}

/// Severity, kind and message of each alert.
pub fn told(finished: &Finished) -> Vec<String> {
    let tail = |line: &str| line.split_once(" | ").unwrap_or_default().1.to_owned();
    let columns = |line: String| line.split(" | ").take(3).collect::<Vec<_>>().join(" | ");
    alerts(&finished.stderr).into_iter().map(|line| columns(tail(line))).collect()
}

fn wait_for_alert(rano: &Rano, what: &str) -> Result<String> {
    rano.stderr.wait_for(what, |line| line.starts_with("[ALERT] ") && line.contains(what))
}

/// `event` and `alert` of the rows of a connection.
fn marks(scene: &Scene, tuple: Tuple) -> Result<String> {
    let query = format!(
        "SELECT ifnull(group_concat(event || alert, ' '), '') FROM events WHERE local_port = {} AND remote_port = {}",
        tuple.local.port(),
        tuple.remote.port()
    );
    scene.database()?.text(&query)
}

/// An address of a server that nobody else connects to.
fn own_server(scene: &mut Scene) -> Result<SocketAddr> {
    scene.server.serve(Transport::Tcp, "127.0.0.1:0", Service::Answer)
}

fn too_many_connections_are_told_and_marked() -> Result<()> {
    let mut scene = Scene::new(User::Ordinary)?;
    // The scene's marker is the first.
    let rano = scene.observe(&["--alert-max-connections", "2"])?;
    let mut claude = scene.agent("claude")?;
    let (_, within) = claude.connect(Transport::Tcp, scene.tcp)?;
    rano.wait_for_event("connect", within)?;
    let (connection, above) = claude.connect(Transport::Tcp, scene.tcp)?;
    let line = wait_for_alert(&rano, "max_connections")?;
    ensure!(line.contains(" | WARNING | max_connections | 3/2 active connections | claude("), "{line}");
    claude.close(connection, Ending::InOrder)?;
    rano.wait_for_event("close", above)?;
    let finished = rano.interrupt()?;
    finished.expect_code(0)?;
    ensure!(finished.stdout.contains("\n  alerts   1\n"), "{}", finished.stdout);
    ensure!(marks(&scene, within)? == "connect0");
    ensure!(marks(&scene, above)? == "connect1 close1");
    ensure!(scene.database()?.count("SELECT alerts FROM sessions")? == 1);
    Ok(())
}

fn too_many_connections_of_a_provider_are_told() -> Result<()> {
    let mut scene = Scene::new(User::Ordinary)?;
    let rano = scene.observe(&["--alert-max-per-provider", "1"])?;
    let mut claude = scene.agent("claude")?;
    let (_, first) = claude.connect(Transport::Tcp, scene.tcp)?;
    rano.wait_for_event("connect", first)?;
    let (_, second) = claude.connect(Transport::Tcp, scene.tcp)?;
    let line = wait_for_alert(&rano, "max_per_provider")?;
    ensure!(
        line.contains(" | WARNING | max_per_provider | anthropic 2/1 active connections | claude("),
        "{line}"
    );
    let finished = rano.interrupt()?;
    ensure!(told(&finished).len() == 1, "{finished:#?}");
    ensure!(marks(&scene, first)? == "connect0" && marks(&scene, second)? == "connect1");
    Ok(())
}

fn a_long_connection_is_told_once_while_it_is_open() -> Result<()> {
    let scene = Scene::new(User::Ordinary)?;
    let mut claude = scene.agent("claude")?;
    let rano = scene.launch()?.args(FAST).args(["--alert-duration-ms", "150"]).start()?;
    let (connection, tuple) = claude.connect(Transport::Tcp, scene.tcp)?;
    let is_alert = |line: &str| line.contains(" | WARNING | long_duration | ");
    let line = rano.stderr.wait_for("long_duration", is_alert)?;
    ensure!(line.contains("ms > 150ms | claude("), "{line}");
    claude.close(connection, Ending::InOrder)?;
    rano.wait_for_event("close", tuple)?;
    let finished = rano.interrupt()?;
    ensure!(finished.stderr.lines().filter(|line| is_alert(line)).count() == 1, "{finished:#?}");
    ensure!(marks(&scene, tuple)? == "connect1 close1");
    Ok(())
}

fn a_connection_that_ends_without_a_name_is_told_at_its_end() -> Result<()> {
    let mut scene = Scene::new(User::Ordinary)?;
    let server = own_server(&mut scene)?;
    let rano = scene.observe(&["--alert-unknown-domain"])?;
    let mut claude = scene.agent("claude")?;
    let (connection, tuple) = claude.connect(Transport::Tcp, server)?;
    rano.wait_for_event("connect", tuple)?;
    claude.close(connection, Ending::InOrder)?;
    wait_for_alert(&rano, &format!("| WARNING | unknown_domain | {server} has no name"))?;
    rano.interrupt()?.expect_code(0)?;
    ensure!(marks(&scene, tuple)? == "connect1 close1");
    Ok(())
}

fn an_open_connection_without_a_name_is_told_after_two_seconds() -> Result<()> {
    let mut scene = Scene::new(User::Ordinary)?;
    let server = own_server(&mut scene)?;
    let rano = scene.observe(&["--alert-unknown-domain"])?;
    let mut claude = scene.agent("claude")?;
    let (_, tuple) = claude.connect(Transport::Tcp, server)?;
    let connected = Instant::now();
    wait_for_alert(&rano, &format!("{server} has no name"))?;
    ensure!(connected.elapsed() >= Duration::from_millis(1900), "{:?}", connected.elapsed());
    rano.interrupt()?.expect_code(0)?;
    ensure!(marks(&scene, tuple)? == "connect1");
    Ok(())
}

fn a_single_look_tells_of_what_has_no_name() -> Result<()> {
    let scene = Scene::new(User::Ordinary)?;
    let mut claude = scene.agent("claude")?;
    claude.connect(Transport::Tcp, scene.tcp)?;
    let finished = scene.launch()?.args(["--once", "--alert-unknown-domain"]).run()?;
    finished.expect_code(0)?;
    ensure!(told(&finished) == [format!("WARNING | unknown_domain | {} has no name", scene.tcp)]);
    Ok(())
}

fn with_json_alerts_are_objects_on_standard_error() -> Result<()> {
    let mut scene = Scene::new(User::Ordinary)?;
    let rano = scene.observe(&["--json", "--alert-max-connections", "1", "--alert-bell"])?;
    let mut claude = scene.agent("claude")?;
    let (_, tuple) = claude.connect(Transport::Tcp, scene.tcp)?;
    let connect = rano.wait_for_event("connect", tuple)?;
    let line = rano.stderr.wait_for("an alert", |line| line.contains("\"alert\""))?;
    let alert: Value = serde_json::from_str(&line)?;
    let expected = [
        ("type", Value::from("alert")),
        ("kind", "max_connections".into()),
        ("severity", "warning".into()),
        ("active", 2.into()),
        ("limit", 1.into()),
        ("pid", claude.pid().into()),
        ("local", tuple.local.to_string().into()),
    ];
    for (key, value) in expected {
        ensure!(alert[key] == value, "{key}: {line}");
    }
    ensure!(alert["ts"].as_str().is_some_and(|ts| ts.len() == "2026-01-20T10:00:00.000Z".len()), "{line}");
    ensure!(serde_json::from_str::<Value>(&connect)?["alert"] == true, "{connect}");
    Ok(())
}

fn no_alerts_means_none() -> Result<()> {
    let mut scene = Scene::new(User::Ordinary)?;
    let rules = ["--alert-max-connections", "0", "--alert-unknown-domain", "--alert-duration-ms", "0"];
    let rano = scene.observe(&[&rules[..], &["--no-alerts"]].concat())?;
    scene.let_it_look(&rano)?;
    let finished = rano.interrupt()?;
    ensure!(!finished.stderr.contains("ALERT") && !finished.stdout.contains("alerts"), "{finished:#?}");
    ensure!(scene.database()?.count("SELECT alerts + (SELECT sum(alert) FROM events) FROM sessions")? == 0);
    Ok(())
}

fn nothing_is_done_while_nothing_happens() -> Result<()> {
    let mut scene = Scene::new(User::Ordinary)?;
    let mut claude = scene.agent("claude")?;
    claude.connect(Transport::Tcp, scene.tcp)?;
    let rules = ["--alert-max-connections", "9", "--alert-duration-ms", "3600000", "--alert-domain", "*.x"];
    // The history asks for the bytes of what is open at each flush.
    let rare = ["--alert-unknown-domain", "--db-flush-ms", "3600000"];
    let rano = scene.observe_every(3_600_000, &[&rules[..], &rare].concat())?;
    // The last thing that time alone brings about.
    wait_for_alert(&rano, "unknown_domain")?;
    let run_id = rano.stderr.wait_for("the run", |line| line.contains("(run "))?;
    let pid = run_id.split("(run ").nth(1).and_then(|id| id.split('-').next()).context("a pid")?;
    let switches = || -> Result<u64> {
        let mut sum = 0;
        for task in std::fs::read_dir(format!("/proc/{pid}/task"))? {
            let status = std::fs::read_to_string(task?.path().join("status"))?;
            // It hears of the processes of everybody, the other tests' included.
            if status.starts_with("Name:\tyoung\n") {
                continue;
            }
            let line = status.lines().find_map(|line| line.strip_prefix("voluntary_ctxt_switches:"));
            sum += line.context("no such line")?.trim().parse::<u64>()?;
        }
        Ok(sum)
    };
    let deadline = Instant::now() + crate::support::PATIENCE;
    loop {
        let before = switches()?;
        std::thread::sleep(Duration::from_millis(1200));
        if switches()? == before {
            return Ok(());
        }
        ensure!(Instant::now() < deadline, "it wakes up again and again");
    }
}
