//! The filter language where users meet it.

use anyhow::{Result, ensure};
use serde_json::Value;

use crate::support::database::Database;
use crate::support::history::{Connection, End, History, START};
use crate::support::namespace::{Place, User};
use crate::support::rano::{Finished, Launch, default_database};
use crate::support::recording::Recording;
use crate::support::stage;

crate::tests![
    live_lines_are_narrowed_and_the_history_keeps_everything,
    a_log_file_has_the_lines_that_are_shown,
    a_late_name_is_shown_where_the_filter_holds_of_it,
    export_report_and_diff_take_the_same_filter,
    a_report_says_when_it_had_to_read_events,
    a_mistake_is_told_with_its_column_and_what_was_meant,
    a_config_file_can_hold_a_filter,
];

/// What a run of a recording with two connections prints, and how many events its history has.
fn replay(recording: &Recording, arguments: &[&str]) -> Result<(Finished, i64)> {
    let place = Place::new(User::Ordinary)?;
    let directory = stage::directory(&place)?;
    let path = recording.write(directory.path())?;
    let finished = Launch::new(&place, directory.path())?
        .args(["--stats-interval-ms", "0", "--no-dns", "--replay"])
        .args([path])
        .args(arguments)
        .run()?;
    finished.expect_code(0)?;
    let stored = Database::open(&default_database(directory.path()))?.count("SELECT count(*) FROM events")?;
    Ok((finished, stored))
}

fn two_connections() -> Recording {
    Recording::new()
        .connect(1, 0, "203.0.113.7:443")
        .connect(2, 10, "203.0.113.8:80")
        .close(1, 1000)
        .close(2, 2000)
}

fn live_lines_are_narrowed_and_the_history_keeps_everything() -> Result<()> {
    for (format, extra) in [("pretty", &[][..]), ("json", &["--json"])] {
        let arguments = [&["--filter", "port:80 | duration:>10s"], extra].concat();
        let (finished, stored) = replay(&two_connections(), &arguments)?;
        let lines: Vec<_> = finished.stdout.lines().filter(|line| line.contains("203.0.113.")).collect();
        let shown = lines.iter().filter(|line| line.contains("203.0.113.8:80")).count();
        ensure!(shown == 2, "{format}: {finished:#?}");
        ensure!(!finished.stdout.contains("203.0.113.7:443"), "{format}: {finished:#?}");
        let summary = format!("{}{}", finished.stdout, finished.stderr);
        ensure!(summary.contains("connects 2") && stored == 4, "{format}: {finished:#?}");
        ensure!(
            summary.contains("hidden   2 events, not port:80 | duration:>10s"),
            "{format}: {finished:#?}"
        );
    }
    Ok(())
}

fn a_log_file_has_the_lines_that_are_shown() -> Result<()> {
    let place = Place::new(User::Ordinary)?;
    let directory = stage::directory(&place)?;
    let path = two_connections().write(directory.path())?;
    Launch::new(&place, directory.path())?
        .args([
            "--stats-interval-ms",
            "0",
            "--no-dns",
            "--log-file",
            "log",
            "--filter",
            "-port:443",
            "--replay",
        ])
        .args([path])
        .run()?
        .expect_code(0)?;
    let log = std::fs::read_to_string(directory.path().join("log"))?;
    ensure!(log.contains("203.0.113.8:80") && !log.contains("203.0.113.7:443"), "{log}");
    Ok(())
}

fn a_late_name_is_shown_where_the_filter_holds_of_it() -> Result<()> {
    let recording = Recording::new()
        .connect(1, 0, "203.0.113.7:443")
        .name(1, 500, "api.example.com", "dns")
        .close(1, 1000);
    let (finished, _) = replay(&recording, &["--json", "--filter", "domain:*.example.com"])?;
    let events: Vec<Value> =
        finished.stdout.lines().map(serde_json::from_str).collect::<std::result::Result<_, _>>()?;
    let kinds: Vec<_> = events.iter().map(|event| event["event"].as_str().unwrap_or_default()).collect();
    ensure!(kinds == ["name", "close"], "{kinds:?}");
    Ok(())
}

fn history() -> Result<History> {
    let history = History::new()?;
    let curl = Connection {
        comm: "curl".into(),
        cmdline: "curl https://b.example".into(),
        domain: Some("b.example".into()),
        ip: "198.51.100.9",
        ..Connection::default()
    };
    let failed = Connection { fails: true, domain: None, ip: "198.51.100.10", ..curl.clone() };
    history.write("one", START, &[Connection::default()], End::Clean)?;
    history.write("two", START + 1, &[Connection::default(), curl, failed], End::Clean)?;
    Ok(history)
}

fn export_report_and_diff_take_the_same_filter() -> Result<()> {
    let history = history()?;
    for (filter, events, domains) in [
        ("domain:B.EXAMPLE.", 2, &["b.example"][..]),
        ("process:curl", 3, &["b.example"]),
        ("ip:198.51.100.0/24 event:fail", 1, &[]),
        ("sent:>=100 recv:<1M duration:>1s provider:anthropic", 2, &["api.anthropic.com", "b.example"]),
        ("nothing", 0, &[]),
    ] {
        let export = history.run(&[
            "export",
            "--format",
            "csv",
            "--no-header",
            "--run-id",
            "two",
            "--filter",
            filter,
        ])?;
        ensure!(export.stdout.lines().count() == events, "{filter}: {export:#?}");
        let report = history.json(&["report", "--run-id", "two", "--filter", filter, "--json"])?;
        ensure!(report["summary"]["events"] == events, "{filter}: {report}");
        let top = report["top_domains"].as_array().cloned().unwrap_or_default();
        let mut names: Vec<_> = top.iter().filter_map(|row| row["domain"].as_str()).collect();
        names.sort_unstable();
        ensure!(names == domains, "{filter}: {report}");
        let diff = history.json(&["diff", "--old", "one", "--new", "two", "--filter", filter, "--json"])?;
        let is_new = diff["new_domains"]
            .as_array()
            .is_some_and(|list| list.iter().any(|row| row["name"] == "b.example"));
        ensure!(is_new == domains.contains(&"b.example"), "{filter}: {diff}");
    }
    Ok(())
}

fn a_report_says_when_it_had_to_read_events() -> Result<()> {
    let history = history()?;
    for (filter, reads) in [("domain:b.* -ip:10.0.0.0/8", false), ("domain:b.* port:443", true)] {
        let report = history.json(&["report", "--filter", filter, "--json"])?;
        ensure!(report["filter"]["read_events"] == reads, "{report}");
        for command in [&["report"][..], &["diff", "--old", "one", "--new", "two"]] {
            let text = history.run(&[command, &["--filter", filter]].concat())?.stdout;
            ensure!(text.contains(&format!("only      {filter}")), "{text}");
            ensure!(text.contains("event by event") == reads, "{text}");
        }
    }
    Ok(())
}

fn a_mistake_is_told_with_its_column_and_what_was_meant() -> Result<()> {
    let history = history()?;
    for command in
        [&["report"][..], &["export", "--format", "csv"], &["diff", "--old", "one", "--new", "two"], &[]]
    {
        let arguments = [command, &["--filter", "port:443 domian:x"]].concat();
        let refused = history.launch(&arguments)?.run()?;
        refused.expect_code(2)?;
        ensure!(
            refused.stderr.contains("column 10: unknown key 'domian'; the nearest is 'domain'"),
            "{refused:#?}"
        );
    }
    Ok(())
}

fn a_config_file_can_hold_a_filter() -> Result<()> {
    let history = history()?;
    let config = history.directory().join("a.conf");
    std::fs::write(&config, "filter = type:llm_api | port:80\n")?;
    let config = config.to_str().expect("a path in UTF-8");
    let shown = history.run(&["config", "show", "--config", config])?.stdout;
    ensure!(shown.contains("type:llm_api | port:80"), "{shown}");
    std::fs::write(config, "filter = typ:llm_api\n")?;
    let refused = history.launch(&["config", "check", "--config", config])?.run()?;
    refused.expect_code(1)?;
    let told = format!("{}{}", refused.stdout, refused.stderr);
    ensure!(
        told.contains("'filter' is no filter, column 1: unknown key 'typ'; the nearest is 'type'"),
        "{told}"
    );
    Ok(())
}
