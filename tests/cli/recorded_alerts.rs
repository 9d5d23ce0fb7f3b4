//! Alerts on recordings: where names and clocks matter.

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;
use tempfile::TempDir;

use super::alerts::{alerts, told};
use crate::support::database::Database;
use crate::support::namespace::{Place, User, is_root};
use crate::support::rano::{Finished, Launch, default_database};
use crate::support::recording::Recording;
use crate::support::stage;

crate::tests![
    without_rules_nothing_is_an_alert,
    the_bell_rings_with_an_alert,
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
