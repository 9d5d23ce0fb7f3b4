//! Alerts: on real sockets, and by recordings where names and clocks matter.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;
use tempfile::TempDir;

use crate::support::actor::{Ending, Service, Transport, Tuple};
use crate::support::database::Database;
use crate::support::namespace::{Place, User, is_root};
use crate::support::rano::{Finished, Launch, Rano, default_database};
use crate::support::recording::Recording;
use crate::support::scene::{FAST, Scene};
use crate::support::stage;

crate::tests![
    too_many_connections_are_told_and_marked,
    too_many_connections_of_a_provider_are_told,
    a_long_connection_is_told_once_while_it_is_open,
    a_connection_that_ends_without_a_name_is_told_at_its_end,
    an_open_connection_without_a_name_is_told_after_two_seconds,
    a_single_look_tells_of_what_has_no_name,
    with_json_alerts_are_objects_on_standard_error,
    no_alerts_means_none,
    the_bell_rings_with_an_alert,
    without_rules_nothing_is_an_alert,
    nothing_is_done_while_nothing_happens,
    a_name_that_arrives_late_is_judged_and_reaches_line_row_and_json,
    a_name_by_reverse_look_up_is_a_guess_wherever_people_read_it,
    a_name_that_arrives_after_the_end_raises_an_alert_of_that_end,
    a_name_that_is_known_at_the_connect_is_judged_there,
    every_name_is_judged_and_the_best_is_shown,
    names_match_in_either_spelling_whatever_their_final_dot,
    an_alert_that_is_no_pattern_stops_the_start,
    two_look_ups_for_one_address_silence_nothing,
    a_cooldown_is_by_kind_and_subject,
    an_alert_of_one_agent_holds_back_none_of_another_one,
    the_cooldown_goes_by_the_boot_clock,
    what_a_cooldown_holds_back_is_marked_in_the_history,
    durations_are_told_as_of_the_time_at_which_they_became_too_long,
    a_name_within_two_seconds_is_no_alert,
    a_hostile_name_reaches_no_terminal_raw,
];

fn alerts(text: &str) -> Vec<&str> {
    text.lines().filter(|line| line.starts_with("[ALERT] ")).collect()
}

/// Severity, kind and message of each alert.
fn told(finished: &Finished) -> Vec<String> {
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

fn the_bell_rings_with_an_alert() -> Result<()> {
    let bells = |arguments: &[&str]| -> Result<usize> {
        let recording = Recording::new().connect(1, 0, "203.0.113.7:443");
        let arguments = [&["--alert-max-connections", "0"], arguments].concat();
        Ok(replay(&recording, &arguments)?.0.stderr.matches('\x07').count())
    };
    ensure!(bells(&["--alert-bell"])? == 1);
    ensure!(bells(&[])? == 0);
    Ok(())
}

fn without_rules_nothing_is_an_alert() -> Result<()> {
    let recording = Recording::new().connect(1, 0, "203.0.113.7:443").close(1, 3_600_000);
    ensure!(told(&replay(&recording, &[])?.0).is_empty());
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

// ---- recordings ----

/// Plays `recording`; the database lies in the directory.
fn replay(recording: &Recording, arguments: &[&str]) -> Result<(Finished, TempDir)> {
    let place = Place::new(User::Ordinary)?;
    let directory = stage::directory(&place)?;
    let path = recording.write(directory.path())?;
    let finished = Launch::new(&place, directory.path())?
        .args(["--replay"])
        .args([path])
        .args(["--stats-interval-ms", "0"])
        .args(arguments)
        .run()?;
    finished.expect_code(0)?;
    Ok((finished, directory))
}

fn a_name_by_reverse_look_up_is_a_guess_wherever_people_read_it() -> Result<()> {
    let recording = Recording::new()
        .connect(1, 0, "203.0.113.7:443")
        .name(1, 1500, "evil.malicious.com", "ptr")
        .close(1, 3000);
    let (finished, directory) = replay(&recording, &["--alert-domain", "*.malicious.com"])?;
    let [alert] = alerts(&finished.stderr)[..] else { anyhow::bail!("{finished:#?}") };
    ensure!(alert.contains("| ~evil.malicious.com matched "), "{alert}");
    ensure!(finished.stdout.contains(" | domain=~evil.malicious.com | "), "{finished:#?}");
    ensure!(finished.stdout.contains("    1 ~evil.malicious.com\n"), "{finished:#?}");
    let report = |arguments: &[&str]| {
        // Each place of an ordinary user has a user of its own.
        let place = Place::new(if is_root() { User::Root } else { User::Ordinary })?;
        let finished = Launch::new(&place, directory.path())?.args(["report"]).args(arguments).run()?;
        finished.expect_code(0)?;
        anyhow::Ok(finished)
    };
    let text = report(&[])?.stdout;
    let (names, guesses) = ("evil.malicious.com", "~evil.malicious.com");
    ensure!(
        text.matches(names).count() >= 2 && text.matches(names).count() == text.matches(guesses).count(),
        "{text}"
    );
    // What programs read says it beside the name.
    let json = report(&["--json"])?.stdout;
    ensure!(json.contains("\"evil.malicious.com\"") && !json.contains('~'), "{json}");
    Ok(())
}

fn a_name_that_arrives_late_is_judged_and_reaches_line_row_and_json() -> Result<()> {
    let recording = Recording::new()
        .connect(1, 0, "203.0.113.7:443")
        .name(1, 1500, "evil.malicious.com", "dns")
        .close(1, 3000);
    let (finished, directory) = replay(&recording, &["--alert-domain", "*.malicious.com"])?;
    let expected = "[ALERT] 2026-01-17T19:30:01Z | CRITICAL | domain_match | \
                    evil.malicious.com matched *.malicious.com";
    let [alert] = alerts(&finished.stderr)[..] else { anyhow::bail!("{finished:#?}") };
    ensure!(alert.starts_with(expected), "{alert}");
    let close = finished.stdout.lines().find(|line| line.contains("- close")).context("a close")?;
    ensure!(close.contains(" | domain=evil.malicious.com | "), "{close}");
    let database = Database::open(&default_database(directory.path()))?;
    let rows =
        database.text("SELECT group_concat(event || alert || domain || domain_source, ' ') FROM events")?;
    ensure!(rows == "connect1evil.malicious.comdns close1evil.malicious.comdns", "{rows}");

    let (finished, _) = replay(&recording, &["--json", "--alert-domain", "*.malicious.com"])?;
    let lines: Vec<Value> =
        finished.stdout.lines().map(serde_json::from_str).collect::<std::result::Result<_, _>>()?;
    let events: Vec<_> = lines.iter().map(|line| line["event"].as_str().unwrap_or_default()).collect();
    ensure!(events == ["connect", "name", "close"], "{events:?}");
    ensure!(lines[0].get("domain").is_none() && lines[1]["domain"] == "evil.malicious.com", "{lines:?}");
    ensure!(lines[1]["ts"] == "2026-01-17T19:30:01.500Z" && lines[1]["domain_source"] == "dns");
    ensure!(lines[2]["domain"] == "evil.malicious.com" && lines[2]["alert"] == true);
    let alert = finished.stderr.lines().find(|line| line.starts_with('{')).context("an alert")?;
    let start = "{\"type\":\"alert\",\"ts\":\"2026-01-17T19:30:01.500Z\",\"kind\":\"domain_match\",\
                 \"severity\":\"critical\",\"pattern\":\"*.malicious.com\",\"domain\":\"evil.malicious.com\"";
    ensure!(alert.starts_with(start), "{alert}");
    Ok(())
}

/// What the alert says happened is what standard output said last.
fn a_name_that_arrives_after_the_end_raises_an_alert_of_that_end() -> Result<()> {
    let refused = Recording::new().connect_of(42, 1, 0, "203.0.113.7:443", "connecting").fail(1, 20).name(
        1,
        1500,
        "evil.malicious.com",
        "dns",
    );
    let closed = Recording::new().connect(1, 0, "203.0.113.7:443").close(1, 20).name(
        1,
        1500,
        "evil.malicious.com",
        "dns",
    );
    for (recording, expected) in [(refused, &["fail", "name"][..]), (closed, &["connect", "close", "name"])] {
        let (finished, directory) = replay(&recording, &["--json", "--alert-domain", "*.malicious.com"])?;
        let lines: Vec<Value> =
            finished.stdout.lines().map(serde_json::from_str).collect::<std::result::Result<_, _>>()?;
        let events: Vec<_> = lines.iter().map(|line| line["event"].as_str().unwrap_or_default()).collect();
        ensure!(events == expected, "{events:?}");
        // How it ended was said in its own line.
        let name = lines.last().context("no line")?;
        for field in ["duration_ms", "bytes_sent", "error"] {
            ensure!(name.get(field).is_none(), "{field}: {name}");
        }
        let alert = finished.stderr.lines().find(|line| line.starts_with('{')).context("an alert")?;
        let alert: Value = serde_json::from_str(alert)?;
        ensure!(alert["event"] == expected[expected.len() - 2], "{alert}");
        let database = Database::open(&default_database(directory.path()))?;
        let unmarked = database.count("SELECT count(*) FROM events WHERE alert = 0")?;
        ensure!(unmarked == 0, "{unmarked}");
    }
    Ok(())
}

fn a_name_that_is_known_at_the_connect_is_judged_there() -> Result<()> {
    let recording = Recording::new()
        .connect_of(42, 1, 0, "203.0.113.7:443", "connecting")
        .name(1, 10, "Evil.Example", "dns")
        .established(1, 20);
    let (finished, _) = replay(&recording, &["--json", "--alert-domain", "evil.*"])?;
    let connect: Value = serde_json::from_str(finished.stdout.lines().next().context("a line")?)?;
    ensure!(connect["event"] == "connect" && connect["domain"] == "Evil.Example", "{connect}");
    ensure!(connect["alert"] == true && finished.stdout.lines().count() == 1, "{}", finished.stdout);
    Ok(())
}

fn every_name_is_judged_and_the_best_is_shown() -> Result<()> {
    let recording = Recording::new()
        .connect(1, 0, "203.0.113.7:443")
        .name(1, 100, "front.example", "sni")
        .name(1, 200, "hidden.malicious.com", "ptr")
        .close(1, 300);
    let (finished, _) = replay(&recording, &["--alert-domain", "*.malicious.com"])?;
    ensure!(told(&finished) == ["CRITICAL | domain_match | ~hidden.malicious.com matched *.malicious.com"]);
    ensure!(finished.stdout.contains(" | domain=front.example | "), "{}", finished.stdout);

    // Both before it is established; the better one comes second.
    let recording = Recording::new()
        .connect_of(42, 1, 0, "203.0.113.7:443", "connecting")
        .name(1, 100, "hidden.malicious.com", "ptr")
        .name(1, 200, "front.example", "dns")
        .established(1, 300);
    let (finished, directory) = replay(&recording, &["--alert-domain", "*.malicious.com"])?;
    ensure!(told(&finished).len() == 1, "{finished:#?}");
    let row =
        Database::open(&default_database(directory.path()))?.text("SELECT domain || alert FROM events")?;
    ensure!(row == "front.example1", "{row}");
    Ok(())
}

/// A name at each of the given milliseconds; the seconds of the alerts and how many were held back.
fn cooldown(recording: &Recording, arguments: &[&str]) -> Result<(Vec<String>, bool)> {
    let arguments = [&["--alert-domain", "*.malicious.com"], arguments].concat();
    let (finished, _) = replay(recording, &arguments)?;
    let alerts = alerts(&finished.stderr).into_iter();
    let told =
        alerts.map(|line| format!("{} {}", &line[25..27], line.split(" | ").nth(3).unwrap_or_default()));
    Ok((told.collect(), finished.stdout.contains("held back)")))
}

fn named_at(recording: Recording, connection: u16, ms: u64, name: &str) -> Recording {
    recording.connect(connection, ms, "203.0.113.7:443").name(connection, ms, name, "dns")
}

fn a_cooldown_is_by_kind_and_subject() -> Result<()> {
    let mut recording = named_at(Recording::new(), 1, 0, "a.malicious.com");
    recording = named_at(recording, 2, 9_999, "a.malicious.com");
    recording = named_at(recording, 3, 9_999, "b.malicious.com");
    recording = named_at(recording, 4, 10_000, "a.malicious.com");
    let path = |second: &str, name: &str| format!("{second} {name}.malicious.com matched *.malicious.com");
    let (told, held_back) = cooldown(&recording, &[])?;
    ensure!(told == [path("00", "a"), path("09", "b"), path("10", "a")] && held_back, "{told:?}");

    let recording = named_at(named_at(Recording::new(), 1, 0, "a.malicious.com"), 2, 1, "a.malicious.com");
    let (told, held_back) = cooldown(&recording, &["--alert-cooldown-ms", "0"])?;
    ensure!(told.len() == 2 && !held_back, "{told:?}");
    Ok(())
}

fn names_match_in_either_spelling_whatever_their_final_dot() -> Result<()> {
    let recording = Recording::new()
        .connect(1, 0, "203.0.113.7:443")
        .name(1, 10, "www.xn--bcher-kva.example", "sni")
        .connect(2, 20, "203.0.113.8:443")
        .name(2, 30, "evil.example", "sni")
        .close(1, 40)
        .close(2, 50);
    let rules = ["*.bücher.example", "evil.example."];
    let place = Place::new(User::Ordinary)?;
    let directory = stage::directory(&place)?;
    let path = recording.write(directory.path())?;
    let launch = Launch::new(&place, directory.path())?.args(["--no-dns", "--replay"]).args([path]);
    let finished = launch.args(rules.map(|rule| ["--alert-domain", rule]).concat()).run()?;
    finished.expect_code(0)?;
    let expected = [
        "CRITICAL | domain_match | www.xn--bcher-kva.example matched *.bücher.example",
        "CRITICAL | domain_match | evil.example matched evil.example.",
    ];
    ensure!(told(&finished) == expected, "{finished:#?}");
    // The same patterns mean the same of the history.
    for (pattern, name) in [
        ("*.bücher.example", "www.xn--bcher-kva.example"),
        ("*.BÜCHER.example.", "www.xn--bcher-kva.example"),
        ("*üch*", "www.xn--bcher-kva.example"),
        ("*.xn--bcher-kv[ab].example", "www.xn--bcher-kva.example"),
        ("evil.example.", "evil.example"),
        ("evil.example", "evil.example"),
    ] {
        let filter = format!("domain:{pattern}");
        for narrowed in [["--domain", pattern], ["--filter", &filter]] {
            let exported = Launch::new(&place, directory.path())?
                .args(["export", "--format", "csv", "--no-header", "--fields", "event,domain"])
                .args(narrowed)
                .run()?;
            ensure!(
                exported.stdout == format!("connect,{name}\r\nclose,{name}\r\n"),
                "{narrowed:?}: {exported:?}"
            );
        }
        let (finished, _) = replay(&recording, &["--alert-domain", pattern])?;
        ensure!(told(&finished).len() == 1, "{pattern}: {finished:#?}");
    }
    Ok(())
}

fn an_alert_that_is_no_pattern_stops_the_start() -> Result<()> {
    let place = Place::new(User::Ordinary)?;
    let directory = stage::directory(&place)?;
    let finished = Launch::new(&place, directory.path())?.args(["--alert-domain", "*.ex[ample"]).run()?;
    finished.expect_code(2)?;
    ensure!(finished.stderr.contains("has a '[' without ']' at character 5"), "{finished:?}");
    Ok(())
}

/// The evil name is one of twenty candidates, of which no more than a few are kept.
fn two_look_ups_for_one_address_silence_nothing() -> Result<()> {
    for more in [1, 19] {
        let mut recording = Recording::new().datagrams(1, 0, "10.0.0.53:53");
        for number in 0..more {
            let name = format!("front{number}.example");
            recording = recording.answer(Some(1), 10, &name, "203.0.113.7", 60);
        }
        recording = recording.answer(Some(1), 11, "evil.malicious.com", "203.0.113.7", 60);
        let recording = recording.exact(2, 20, "203.0.113.7:443").clock(3_000).close(2, 4_000);
        let arguments = ["--alert-domain", "*.malicious.com", "--alert-unknown-domain"];
        let (finished, directory) = replay(&recording, &arguments)?;
        let told = told(&finished);
        let expected = "CRITICAL | domain_match | evil.malicious.com matched *.malicious.com (possible)";
        ensure!(told.iter().filter(|line| *line == expected).count() == 1, "{told:?}");
        let nameless = "WARNING | unknown_domain | 203.0.113.7:443 has no name (possible: ";
        ensure!(told.iter().any(|line| line.starts_with(nameless)), "{told:?}");
        let rows = Database::open(&default_database(directory.path()))?
            .text("SELECT group_concat(event || alert, ' ') FROM events WHERE remote_port = 443")?;
        ensure!(rows == "connect1 close1", "{rows}");
        let (finished, _) = replay(&recording, &["--json", "--alert-domain", "*.malicious.com"])?;
        let alert = finished.stderr.lines().find(|line| line.starts_with('{')).context("an alert")?;
        let alert: Value = serde_json::from_str(alert)?;
        ensure!(alert["possible"] == true && alert["domain"] == "evil.malicious.com", "{alert}");
    }
    Ok(())
}

fn an_alert_of_one_agent_holds_back_none_of_another_one() -> Result<()> {
    let recording = named_at(Recording::new().process(43, "codex"), 1, 0, "a.malicious.com")
        .connect_of(43, 2, 10, "203.0.113.7:443", "established")
        .name(2, 11, "a.malicious.com", "dns");
    let recording = named_at(recording, 3, 20, "a.malicious.com");
    let (told, held_back) = cooldown(&recording, &[])?;
    ensure!(told.len() == 2 && held_back, "{told:?}");
    Ok(())
}

fn the_cooldown_goes_by_the_boot_clock() -> Result<()> {
    let recording = named_at(Recording::new(), 1, 0, "a.malicious.com").wall_clock_jumps(3_600_000);
    let recording = named_at(recording, 2, 5_000, "a.malicious.com").wall_clock_jumps(-7_200_000);
    let recording = named_at(recording, 3, 11_000, "a.malicious.com");
    let (told, held_back) = cooldown(&recording, &[])?;
    ensure!(told.len() == 2 && told[1].starts_with("11") && held_back, "{told:?}");
    Ok(())
}

/// The cooldown is for who reads along; the history has every connection that matched.
fn what_a_cooldown_holds_back_is_marked_in_the_history() -> Result<()> {
    let mut recording = Recording::new().connect(9, 0, "203.0.113.9:443").name(9, 0, "good.example", "dns");
    for connection in 1..=3 {
        let ms = u64::from(connection) * 100;
        recording = named_at(recording, connection, ms, "a.malicious.com").close(connection, ms + 50);
    }
    let (finished, directory) = replay(&recording, &["--alert-domain", "*.malicious.com", "--json"])?;
    let told = finished.stderr.lines().filter(|line| line.contains("domain_match")).count();
    ensure!(told == 1, "{finished:#?}");
    let database = Database::open(&default_database(directory.path()))?;
    for (sql, expected) in [
        ("SELECT count(*) FROM events WHERE alert AND domain = 'a.malicious.com'", 6),
        ("SELECT count(*) FROM events WHERE alert AND domain IS NOT 'a.malicious.com'", 0),
        ("SELECT alerts FROM sessions", 1),
    ] {
        ensure!(database.count(sql)? == expected, "{sql}: {}", database.count(sql)?);
    }
    let closes = finished.stdout.lines().filter(|line| line.contains("\"alert\":true")).count();
    ensure!(closes == 3, "{}", finished.stdout);
    Ok(())
}

fn durations_are_told_as_of_the_time_at_which_they_became_too_long() -> Result<()> {
    let recording = Recording::new()
        .connect(1, 0, "203.0.113.7:443")
        .connect(2, 1_000, "203.0.113.7:443")
        .close(2, 30_000)
        .connect(3, 40_000, "203.0.113.7:443")
        .close(1, 45_000)
        .clock(69_000);
    let (finished, _) = replay(&recording, &["--alert-duration-ms", "30000"])?;
    let [alert] = alerts(&finished.stderr)[..] else { anyhow::bail!("{finished:#?}") };
    let expected =
        "[ALERT] 2026-01-17T19:30:30Z | WARNING | long_duration | 30001ms > 30000ms | claude(42) | claude";
    ensure!(alert == expected, "{alert}");
    Ok(())
}

fn a_name_within_two_seconds_is_no_alert() -> Result<()> {
    let recording = Recording::new()
        .connect(1, 0, "203.0.113.7:443")
        .connect(2, 0, "203.0.113.8:443")
        .name(1, 1_999, "a.example", "ptr")
        .name(2, 2_001, "b.example", "ptr")
        .close(1, 5_000)
        .connect(3, 5_000, "203.0.113.9:443")
        .clock(6_000);
    let (finished, _) = replay(&recording, &["--alert-unknown-domain"])?;
    ensure!(told(&finished) == ["WARNING | unknown_domain | 203.0.113.8:443 has no name"], "{finished:#?}");
    Ok(())
}

fn a_hostile_name_reaches_no_terminal_raw() -> Result<()> {
    let name = "a\u{1b}[31m\n\u{202e}|.bad";
    let recording = Recording::new().connect(1, 0, "203.0.113.7:443").name(1, 10, name, "dns").close(1, 20);
    let arguments = ["--alert-domain", "*.bad", "--stats-interval-ms", "5", "--stats-view", "domain"];
    let (finished, _) = replay(&recording, &arguments)?;
    for text in [&finished.stdout, &finished.stderr] {
        ensure!(!text.chars().any(|c| (c.is_control() && c != '\n') || c == '\u{202e}'), "{text:?}");
    }
    ensure!(told(&finished) == ["CRITICAL | domain_match | a\\x1b[31m\\n\\u{202e}\\|.bad matched *.bad"]);
    Ok(())
}
