//! `rano report` against databases whose content the test knows, and against what SQL says of them.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use rano::internals::event::DomainSource;
use rano::internals::output::human::timestamp_millis;
use rano::internals::update::Counters;
use serde_json::Value;

use crate::support::actor::{Ending, Service, Totals, Transport, Tuple};
use crate::support::history::{Connection, End, History, START, every};
use crate::support::namespace::User;
use crate::support::scene::Scene;

crate::tests![
    the_sections_stand_in_their_order,
    the_latest_session_is_the_default,
    json_counts_what_sql_counts,
    a_range_counts_to_the_millisecond,
    a_range_lists_its_sessions,
    what_stays_on_the_machine_is_summed_apart,
    both_ends_of_a_connection_within_the_machine_count_once,
    a_killed_session_is_told_and_counted,
    a_running_session_is_consistent_while_it_is_written,
    reading_changes_nothing,
    a_read_only_directory_is_enough,
    a_database_without_sessions_has_an_empty_report,
    without_a_database_nothing_is_made,
    an_unknown_session_names_the_known_ones,
    times_that_are_none_are_refused,
    names_are_escaped,
    a_closed_pipe_is_no_error,
    the_list_is_as_long_as_asked,
    colour_follows_its_option,
    the_address_of_a_proxy_has_no_name_of_what_it_was_asked_for,
];

const HOUR: i64 = 3_600_000;

fn number(json: &Value, pointer: &str) -> Result<i64> {
    json.pointer(pointer).and_then(Value::as_i64).with_context(|| format!("no number at {pointer}: {json}"))
}

/// Two sessions of a few hours, several providers, domains and addresses, some without a name, some refused.
fn two_sessions() -> Result<History> {
    let history = History::new()?;
    let claude = Connection::default();
    let codex = Connection {
        provider: "openai",
        comm: "codex".into(),
        domain: Some("api.openai.com".into()),
        ip: "2001:db8::1",
        ..claude.clone()
    };
    let nameless = Connection { domain: None, ip: "198.51.100.9", ..claude.clone() };
    let refused = Connection { fails: true, ip: "192.0.2.1", ..claude.clone() };
    let mut first = every(50, START, 7 * 60_000, &claude);
    first.extend(every(9, START + 60_000, HOUR / 2, &nameless));
    history.write("first", START, &first, End::Clean)?;
    let mut second = every(30, START + 10 * HOUR, 11 * 60_000, &codex);
    second.extend(every(5, START + 10 * HOUR, HOUR, &refused));
    history.write("second", START + 10 * HOUR, &second, End::Clean)?;
    Ok(history)
}

fn the_sections_stand_in_their_order() -> Result<()> {
    let text = two_sessions()?.run(&["report"])?.stdout;
    let mut from = 0;
    for section in ["Session\n", "Summary\n", "Providers\n", "Top Domains\n", "Top IPs\n", "Completeness\n"] {
        let at = text[from..].find(section).with_context(|| format!("{section:?} is missing in\n{text}"))?;
        from += at;
    }
    for line in [
        "  second (1-1768714200000)  2026-01-18T05:30:00Z → ",
        ", clean\n",
        "  claude on box by ann, source proc\n",
        "  nothing missed (tcp, udp, ",
    ] {
        ensure!(text.contains(line), "{line:?} is missing in\n{text}");
    }
    ensure!(text.contains("api.openai.com") && text.contains("2001:db8::1"), "{text}");
    Ok(())
}

fn the_latest_session_is_the_default() -> Result<()> {
    let history = two_sessions()?;
    let latest = history.json(&["report", "--json"])?;
    ensure!(latest == history.json(&["report", "--latest", "--json"])?);
    ensure!(latest["session"]["name"] == "second", "{latest}");
    ensure!(number(&latest, "/summary/fails")? == 5 && number(&latest, "/summary/connects")? == 30);
    let run_id = format!("1-{START}");
    for name in [run_id.as_str(), "first"] {
        let first = history.json(&["report", "--run-id", name, "--json"])?;
        ensure!(first["session"]["run_id"] == run_id.as_str(), "{first}");
        ensure!(number(&first, "/summary/connects")? == 59, "{first}");
    }
    Ok(())
}

fn json_counts_what_sql_counts() -> Result<()> {
    let history = two_sessions()?;
    let report = history.json(&["report", "--since", "2026-01-01", "--json"])?;
    let database = history.database()?;
    for (pointer, sql) in [
        ("/summary/events", "SELECT count(*) FROM events"),
        ("/summary/bytes_sent", "SELECT sum(bytes_sent) FROM events WHERE event = 'close'"),
        ("/providers/0/connections", "SELECT connects FROM provider_counts WHERE provider = 'anthropic'"),
        ("/providers/1/connections", "SELECT connects FROM provider_counts WHERE provider = 'openai'"),
        (
            "/top_domains/0/count",
            "SELECT count(*) FROM events WHERE domain = 'api.anthropic.com' AND event = 'connect'",
        ),
        ("/top_ips/0/bytes_recv", "SELECT bytes_recv FROM provider_ips WHERE remote_ip = '203.0.113.7'"),
        ("/ips", "SELECT count(DISTINCT remote_ip) FROM events"),
        ("/domains", "SELECT count(DISTINCT domain) FROM events"),
    ] {
        ensure!(number(&report, pointer)? == database.count(sql)?, "{pointer}: {report}");
    }
    ensure!(report["top_ips"][0]["domain"] == "api.anthropic.com", "{report}");
    ensure!(report["top_domains"][0]["domain_sources"] == serde_json::json!(["dns"]), "{report}");
    Ok(())
}

fn a_range_counts_to_the_millisecond() -> Result<()> {
    let history = two_sessions()?;
    let database = history.database()?;
    let first_close = START + 1200;
    for (since, until) in [
        (START, START + 1),
        (START + 1, START + HOUR),
        (first_close, first_close + 1),
        (START - HOUR, START + 2 * HOUR + 17),
        (START + HOUR / 2, START + 3 * HOUR / 2),
        (START + 5 * HOUR + 3, START + 12 * HOUR + 420_001),
        (0, 4_000_000_000_000),
    ] {
        let (since, until) = (timestamp_millis(since), timestamp_millis(until));
        let report = history.json(&["report", "--since", &since, "--until", &until, "--json"])?;
        for (pointer, what) in [
            ("/summary/events", "count(*)"),
            ("/summary/connects", "sum(event = 'connect')"),
            ("/summary/closes", "sum(event = 'close')"),
            ("/summary/bytes_recv", "sum(CASE WHEN event = 'close' THEN bytes_recv ELSE 0 END)"),
        ] {
            let sql =
                format!("SELECT ifnull({what}, 0) FROM events WHERE ts >= '{since}' AND ts < '{until}'");
            ensure!(
                number(&report, pointer)? == database.count(&sql)?,
                "{pointer} {since} {until}: {report}"
            );
        }
    }
    Ok(())
}

fn what_stays_on_the_machine_is_summed_apart() -> Result<()> {
    let history = History::new()?;
    let away = Connection::default();
    let here = Connection { domain: None, ip: "127.0.0.1", ..away.clone() };
    history.write(
        "s",
        START,
        &[every(3, START, 10, &away), every(2, START, 10, &here)].concat(),
        End::Clean,
    )?;
    let json = history.json(&["report", "--json"])?;
    let sent = |path: &str| number(&json, path);
    let all = sent("/summary/bytes_sent")?;
    ensure!(sent("/summary/loopback/bytes_sent")? * 3 == all * 2 && all > 0, "{json}");
    ensure!(
        number(&json, "/summary/loopback/connects")? == 2 && number(&json, "/summary/lookups/connects")? == 0
    );
    let text = history.run(&["report"])?.stdout;
    ensure!(text.contains("  loopback  sent "), "{text}");
    Ok(())
}

fn a_range_lists_its_sessions() -> Result<()> {
    let history = two_sessions()?;
    let both = history.run(&["report", "--since", "2026-01-17"])?.stdout;
    ensure!(both.contains("Sessions\n") && both.contains("first") && both.contains("second"), "{both}");
    let one = history.json(&["report", "--since", "2026-01-18T05:00:00Z", "--json"])?;
    ensure!(one["sessions"].as_array().is_some_and(|sessions| sessions.len() == 1), "{one}");
    ensure!(one["sessions"][0]["name"] == "second", "{one}");
    let none = history.json(&["report", "--since", "2030-01-01", "--json"])?;
    ensure!(none["sessions"] == serde_json::json!([]) && number(&none, "/summary/events")? == 0, "{none}");
    Ok(())
}

fn a_killed_session_is_told_and_counted() -> Result<()> {
    let history = History::new()?;
    history.write("killed", START, &every(20, START, 1000, &Connection::default()), End::Killed)?;
    let text = history.run(&["report"])?.stdout;
    ensure!(text.contains("not clean") && text.contains("(its last event)"), "{text}");
    let json = history.json(&["report", "--json"])?;
    ensure!(json["session"]["clean_exit"] == false && json["session"].get("ended_at").is_none(), "{json}");
    ensure!(number(&json, "/session/duration_ms")? == 20_200, "{json}");
    ensure!(number(&json, "/summary/events")? == 40, "{json}");
    Ok(())
}

fn a_running_session_is_consistent_while_it_is_written() -> Result<()> {
    let history = History::new()?;
    let store = history.begin("now", START)?;
    let mut written = 0;
    let mut seen = 0;
    for round in 0..20u64 {
        // Some thousand events are in the queue or being written while the report is made.
        for number in 0..1500 {
            let connection = Connection {
                at: START + i64::try_from(round * 60_000 + number)?,
                domain: Some(format!("host-{}.example", number % 50)),
                ..Connection::default()
            };
            for event in connection.events(round * 1500 + number) {
                store.push(&event.into());
                written += 1;
            }
        }
        let report = history.json(&["report", "--json", "--top", "100"])?;
        let events = number(&report, "/summary/events")?;
        let providers: i64 = report["providers"]
            .as_array()
            .context("a list")?
            .iter()
            .filter_map(|provider| provider["events"].as_i64())
            .sum();
        let domains: i64 = report["top_domains"]
            .as_array()
            .context("a list")?
            .iter()
            .filter_map(|domain| Some(domain["connects"].as_i64()? + domain["closes"].as_i64()?))
            .sum();
        ensure!(events == providers && events == domains, "{events} {providers} {domains}");
        ensure!(events >= seen && events <= written, "{seen} {events} {written}");
        seen = events;
    }
    let finished = store.finish(Counters::default(), START);
    ensure!(finished.dropped == 0 && finished.error.is_none(), "{finished:?}");
    ensure!(number(&history.json(&["report", "--json"])?, "/summary/events")? == written);
    ensure!(history.database()?.integrity()? == "ok");
    Ok(())
}

const READERS: [&[&str]; 5] = [
    &["report"],
    &["report", "--since", "2026-01-01", "--json"],
    &["diff", "--old", "first", "--new", "second"],
    &["status"],
    &["export", "--format", "csv"],
];

fn reading_changes_nothing() -> Result<()> {
    let history = two_sessions()?;
    let before = history.files()?;
    for arguments in READERS {
        history.run(arguments)?;
        ensure!(history.files()? == before, "{arguments:?} left {:?}", history.files()?.keys());
    }
    // The same beside a writer: its files are there, and only it changes them.
    let store = history.begin("third", START + 40 * HOUR)?;
    let names: Vec<_> = history.files()?.into_keys().collect();
    for arguments in READERS {
        history.run(arguments)?;
        ensure!(history.files()?.into_keys().eq(names.iter().cloned()), "{arguments:?}");
    }
    drop(store);
    Ok(())
}

fn a_read_only_directory_is_enough() -> Result<()> {
    let history = two_sessions()?;
    fs::set_permissions(history.path(), fs::Permissions::from_mode(0o400))?;
    fs::set_permissions(history.directory(), fs::Permissions::from_mode(0o500))?;
    for arguments in READERS {
        history.run(arguments).with_context(|| format!("{arguments:?}"))?;
    }
    fs::set_permissions(history.directory(), fs::Permissions::from_mode(0o700))?;
    Ok(())
}

fn a_database_without_sessions_has_an_empty_report() -> Result<()> {
    let history = History::new()?;
    drop(history.begin("first", START)?);
    let connection = rusqlite::Connection::open(history.path())?;
    connection.execute("DELETE FROM session", [])?;
    drop(connection);
    let json = history.json(&["report", "--json"])?;
    ensure!(json["sessions"] == serde_json::json!([]) && number(&json, "/summary/events")? == 0, "{json}");
    ensure!(history.run(&["report"])?.stdout.contains("Session\n  none\n"));
    history.launch(&["status"])?.run()?.expect_code(1)?;
    ensure!(history.run(&["export", "--format", "jsonl"])?.stdout.is_empty());
    Ok(())
}

fn without_a_database_nothing_is_made() -> Result<()> {
    let history = History::new()?;
    for arguments in [&["report"][..], &["diff", "--old", "a", "--new", "b"], &["export", "--format", "csv"]]
    {
        let finished = history.launch(arguments)?.run()?;
        finished.expect_code(3)?;
        ensure!(finished.stdout.is_empty() && finished.stderr.contains("does not exist"), "{finished:?}");
    }
    fs::write(history.path(), "")?;
    fs::set_permissions(history.path(), fs::Permissions::from_mode(0o644))?;
    let finished = history.launch(&["report"])?.run()?;
    finished.expect_code(3)?;
    ensure!(history.files()?.len() == 1);
    Ok(())
}

fn an_unknown_session_names_the_known_ones() -> Result<()> {
    let history = two_sessions()?;
    let finished = history.launch(&["report", "--run-id", "third"])?.run()?;
    finished.expect_code(1)?;
    ensure!(
        finished.stderr.contains("no session 'third'") && finished.stderr.contains("(second)"),
        "{finished:?}"
    );
    Ok(())
}

fn times_that_are_none_are_refused() -> Result<()> {
    let history = two_sessions()?;
    for (arguments, words) in [
        (&["report", "--since", "yesterday"][..], "is no time"),
        (&["report", "--since", "2026-02-29"], "no such day"),
        (&["report", "--until", "5x"], "unknown unit"),
        (&["report", "--since", "2026-01-18", "--until", "2026-01-17"], "--since has to be before --until"),
        (
            &["export", "--format", "csv", "--since", "1h", "--until", "2h"],
            "--since has to be before --until",
        ),
        (&["report", "--latest", "--run-id", "x"], "cannot be used with"),
        (&["export"], "--format"),
    ] {
        let finished = history.launch(arguments)?.run()?;
        finished.expect_code(2)?;
        ensure!(finished.stderr.contains(words), "{arguments:?}: {finished:?}");
    }
    history.run(&["report", "--since", "2024-02-29", "--until", "9999-12-31"])?;
    Ok(())
}

fn names_are_escaped() -> Result<()> {
    let history = History::new()?;
    let hostile = "evil\x1b[2J\n| domain\u{202e}";
    let connection =
        Connection { comm: hostile.into(), domain: Some(hostile.into()), ..Connection::default() };
    history.write(hostile, START, &[connection], End::Clean)?;
    history.write("plain", START - HOUR, &[], End::Clean)?;
    for arguments in [
        &["report"][..],
        &["report", "--since", "2026-01-01"],
        &["diff", "--old", "plain", "--new", hostile],
        &["status", "--format", "{session_name}"],
    ] {
        let text = history.run(arguments)?.stdout;
        ensure!(text.contains("evil\\x1b[2J\\n\\| domain\\u{202e}"), "{text}");
        ensure!(!text.contains('\x1b') && !text.contains('\u{202e}'), "{text}");
    }
    Ok(())
}

fn a_closed_pipe_is_no_error() -> Result<()> {
    let history = History::new()?;
    history.write("long", START, &every(20_000, START, 1, &Connection::default()), End::Clean)?;
    for arguments in [&["export", "--format", "csv"][..], &["export", "--format", "jsonl"], &["report"]] {
        let finished = history.launch(arguments)?.stdout_closed_after(1).run()?;
        finished.expect_code(0)?;
        ensure!(finished.stderr.is_empty(), "{finished:?}");
    }
    Ok(())
}

fn the_list_is_as_long_as_asked() -> Result<()> {
    let history = History::new()?;
    let hosts = (0..30).map(|host| Connection {
        domain: Some(format!("host-{host}.example")),
        open_for: Duration::from_millis(1),
        ..Connection::default()
    });
    history.write("wide", START, &hosts.collect::<Vec<_>>(), End::Clean)?;
    let length = |json: &Value| json["top_domains"].as_array().map(Vec::len);
    ensure!(length(&history.json(&["report", "--json"])?) == Some(10));
    let report = history.json(&["report", "--json", "--top", "20"])?;
    ensure!(length(&report) == Some(20) && number(&report, "/domains")? == 30, "{report}");
    ensure!(history.run(&["report"])?.stdout.contains("Top Domains (10 of 30)\n"));
    history.run(&["report", "--top", "0"])?;
    Ok(())
}

fn colour_follows_its_option() -> Result<()> {
    let history = two_sessions()?;
    ensure!(!history.run(&["report"])?.stdout.contains('\x1b'));
    ensure!(history.run(&["report", "--color", "always"])?.stdout.contains('\x1b'));
    ensure!(!history.run(&["report", "--color", "always", "--json"])?.stdout.contains('\x1b'));
    Ok(())
}

/// An agent that talks to a server of its own, in two sessions.
fn both_ends_of_a_connection_within_the_machine_count_once() -> Result<()> {
    let mut scene = Scene::new(User::Ordinary)?;
    let mut claude = scene.agent("claude")?;
    let proxy = claude.serve(Transport::Tcp, "127.0.0.1:0", Service::Answer)?;
    for name in ["old", "new"] {
        let rano = scene.observe(&[
            "--no-dns",
            "--include-listening",
            "--session-name",
            name,
            "--db-flush-ms",
            "50",
        ])?;
        let (connection, tuple) = claude.connect(Transport::Tcp, proxy)?;
        rano.wait_for_event("+ connect", tuple)?;
        let totals = claude.exchange(connection, 5_000, 70_000)?;
        ensure!(totals == Totals { sent: 5_000, received: 70_000 });
        claude.close(connection, Ending::InOrder)?;
        rano.wait_for_event("- close", tuple)?;
        let accepted = Tuple { local: tuple.remote, remote: tuple.local };
        rano.wait_for_event("- close", accepted)?;
        scene.let_it_look(&rano)?;
        let summary = rano.interrupt()?.expect_code(0)?.stdout.clone();
        ensure!(summary.contains("loopback 4.8 KiB   received 68.3 KiB"), "{summary}");
        let rows = scene
            .database()?
            .count("SELECT count(*) FROM events WHERE event = 'close' AND bytes_sent > 0")?;
        ensure!(rows >= 2, "both ends are told: {rows}");
        let report = scene.launch()?.args(["report", "--json", "--run-id", name]).run()?;
        let report: Value = serde_json::from_str(&report.stdout)?;
        let sums = ["/summary/bytes_sent", "/summary/loopback/bytes_sent", "/summary/loopback/bytes_recv"];
        let sums = sums.map(|pointer| number(&report, pointer).unwrap_or(-1));
        ensure!(sums == [0, 5_000, 70_000], "{sums:?}: {report}");
    }
    let diff = scene.launch()?.args(["diff", "--old", "old", "--new", "new", "--json"]).run()?;
    let diff: Value = serde_json::from_str(&diff.stdout)?;
    // The port of the end that reached out is another one each time, and no endpoint.
    let new: Vec<&str> =
        diff["new_domains"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    ensure!(new.is_empty(), "{diff}");
    Ok(())
}

fn the_address_of_a_proxy_has_no_name_of_what_it_was_asked_for() -> Result<()> {
    let history = History::new()?;
    let asked = Connection { by: DomainSource::Proxy, ip: "127.0.0.1", port: 3128, ..Connection::default() };
    history.write("proxied", START, &[asked, Connection::default()], End::Clean)?;
    let report = history.json(&["report", "--json"])?;
    let rows = report["top_ips"].as_array().context("addresses")?;
    let names: Vec<_> = rows.iter().map(|row| (row["ip"].as_str(), row["domain"].as_str())).collect();
    ensure!(names.contains(&(Some("127.0.0.1"), None)), "{names:?}");
    ensure!(names.contains(&(Some("203.0.113.7"), Some("api.anthropic.com"))), "{names:?}");
    Ok(())
}
