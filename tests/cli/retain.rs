//! `--retain`: old sessions go while rano observes, the others stay as they were.

use std::fs;

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;

use crate::support::history::{Connection, End, History, START, every};
use crate::support::wait_until;

crate::tests![
    old_sessions_go_and_reports_on_the_rest_stay,
    what_is_no_span_is_refused_everywhere,
    nothing_goes_by_itself,
];

const DAY_MS: i64 = 86_400_000;

fn with_old_sessions() -> Result<History> {
    let history = History::new()?;
    let claude = Connection::default();
    let codex =
        Connection { provider: "openai", domain: Some("api.openai.com".into()), ..Connection::default() };
    let now = i64::try_from(std::time::SystemTime::UNIX_EPOCH.elapsed()?.as_millis())?;
    history.write("ancient", START, &every(300, START, 1000, &claude), End::Killed)?;
    let month = now - 30 * DAY_MS;
    history.write("month", month, &every(200, month, 1000, &codex), End::Clean)?;
    let hour = now - 3_600_000;
    history.write("hour", hour, &every(50, hour, 1000, &codex), End::Clean)?;
    Ok(history)
}

fn sessions(history: &History) -> Result<Vec<String>> {
    let report = history.json(&["report", "--since", "2020-01-01", "--json"])?;
    let sessions = report["sessions"].as_array().cloned().unwrap_or_default();
    let name = |session: &Value| session["name"].as_str().unwrap_or("unnamed").to_owned();
    Ok(sessions.iter().map(name).collect())
}

fn old_sessions_go_and_reports_on_the_rest_stay() -> Result<()> {
    let history = with_old_sessions()?;
    let report = |name: &str| -> Result<serde_json::Value> {
        let mut json = history.json(&["report", "--run-id", name, "--json"])?;
        // What is new depends on the sessions that are there before it.
        let fields = json.as_object_mut().context("an object")?;
        fields.retain(|name, _| {
            !["look_at_these", "findings", "endpoints", "compared"].contains(&name.as_str())
        });
        Ok(json)
    };
    let (month, hour) = (report("month")?, report("hour")?);
    for (retain, left) in [("5w", &["month", "hour", "now"][..]), ("7d", &["hour", "now", "now"])] {
        let rano = history
            .launch(&[
                "--retain",
                retain,
                "--session-name",
                "now",
                "--interval-ms",
                "100",
                "--source",
                "proc",
            ])?
            .start()?;
        wait_until("the old sessions to go", || Ok(sessions(&history)? == left))?;
        let finished = rano.interrupt()?;
        finished.expect_code(0)?;
        ensure!(finished.stderr.contains("1 old session(s) are being removed"), "{}", finished.stderr);
        ensure!(report("hour")? == hour);
        if retain == "5w" {
            ensure!(report("month")? == month);
        }
    }
    let database = history.database()?;
    ensure!(database.integrity()? == "ok");
    ensure!(database.count("SELECT count(*) FROM events WHERE run_id LIKE '1-%'")? == 100);
    Ok(())
}

fn what_is_no_span_is_refused_everywhere() -> Result<()> {
    let history = History::new()?;
    for wrong in ["abc", "7", "0d", "-1d", "1y", "1.5d", "99999999999999999999w"] {
        let refused = history.launch(&[&format!("--retain={wrong}")])?.run()?;
        refused.expect_code(2)?;
        ensure!(refused.stderr.contains("must be a span of time above 0 (30m, 24h, 7d, 1w)"), "{refused:?}");
    }
    let file = history.directory().join("some.conf");
    fs::write(&file, "retain = soon\n")?;
    let refused = history.launch(&["--once", "--config", "some.conf"])?.run()?;
    refused.expect_code(2)?;
    let expected = "some.conf:1: 'retain' must be a span of time above 0 (30m, 24h, 7d, 1w), got 'soon'";
    ensure!(refused.stderr.contains(expected), "{refused:?}");
    ensure!(!history.path().exists());
    let shown = history.launch(&["config", "show"])?.env("RANO_RETAIN", "48h").run()?;
    ensure!(shown.stdout.contains("retain") && shown.stdout.contains("2d"), "{}", shown.stdout);
    Ok(())
}

fn nothing_goes_by_itself() -> Result<()> {
    let history = with_old_sessions()?;
    history.run(&["--once", "--source", "proc", "--sqlite", "observer.sqlite"])?;
    ensure!(sessions(&history)?.len() == 4);
    Ok(())
}
