//! What is wrong with a configuration, told by path and line: by `config check`, and by a start.

use anyhow::{Result, ensure};
use serde_json::Value;

use crate::support::home::Home;

crate::tests![
    every_mistake_in_a_config_file_is_told_by_line,
    every_mistake_in_a_providers_file_is_told_by_line,
    a_warning_is_no_error_and_does_not_stop_the_start,
    presets_that_nobody_chose_are_checked_too,
    a_start_says_the_same_and_fails,
    variables_are_checked,
    a_named_file_that_is_missing_is_told,
    what_is_right_is_told_and_nothing_is_fine,
    findings_are_objects_with_json,
    the_sample_is_a_config_file_without_findings_that_changes_nothing,
    show_names_the_origin_of_every_value,
    a_broken_file_that_the_agent_can_write_stops_no_observation,
];

/// What `config check` says.
fn check(home: &Home, code: i32) -> Result<String> {
    home.said(&home.run(&["config", "check"])?, code)
}

const CONFIG: &str = ".config/rano/config.conf";

fn every_mistake_in_a_config_file_is_told_by_line() -> Result<()> {
    let home = Home::new(&[(
        CONFIG,
        "# rano\nintervall_ms=5\ninterval_ms=abc\njson = maybe\nsource=invalid\ndb_batch_size=0\n\
         stats_view=provider,invalid\nlog_file=/nonexistent/x.log\nnonsense\nalert_max_connections=-1\n",
    )])?;
    let expected = "\
8 error(s) found:
  ✗ .config/rano/config.conf:3: 'interval_ms' must be a non-negative integer, got 'abc'
  ✗ .config/rano/config.conf:4: 'json' must be a boolean (true/false/yes/no/1/0), got 'maybe'
  ✗ .config/rano/config.conf:5: 'source' must be one of [auto, ";
    let rest = "
  ✗ .config/rano/config.conf:6: 'db_batch_size' must be >= 1, got 0
  ✗ .config/rano/config.conf:7: 'stats_view' contains invalid value 'invalid'
  ✗ .config/rano/config.conf:8: log_file parent directory '/nonexistent' does not exist
  ✗ .config/rano/config.conf:9: expected key=value, got 'nonsense'
  ✗ .config/rano/config.conf:10: 'alert_max_connections' must be a non-negative integer, got '-1'
1 warning(s) found:
  ⚠ .config/rano/config.conf:2: unknown key 'intervall_ms' (possible typo?): the nearest is 'interval_ms'
";
    let said = check(&home, 1)?;
    ensure!(said.starts_with(expected) && said.ends_with(rest), "{said}");
    Ok(())
}

fn every_mistake_in_a_providers_file_is_told_by_line() -> Result<()> {
    let home = Home::new(&[
        (".rano.toml", "[providers]\nmode = \"bad\"\n"),
        (".config/rano/rano.toml", "[providers]\nopenai = [\"codex\" oops]\n"),
    ])?;
    let said = check(&home, 1)?;
    let mode = "  ✗ .rano.toml:2: providers.mode must be one of [merge, replace], got 'bad'\n";
    let parse = "  ✗ .config/rano/rano.toml:2: TOML parse error: line 2, column ";
    ensure!(said.starts_with("2 error(s) found:\n") && said.contains(mode) && said.contains(parse), "{said}");
    Ok(())
}

fn a_warning_is_no_error_and_does_not_stop_the_start() -> Result<()> {
    let home = Home::new(&[(CONFIG, "interval_m=5\nqqqqqqqqqqq=1\n")])?;
    let expected = "\
2 warning(s) found:
  ⚠ .config/rano/config.conf:1: unknown key 'interval_m' (possible typo?): the nearest is 'interval_ms'
  ⚠ .config/rano/config.conf:2: unknown key 'qqqqqqqqqqq' (possible typo?)
";
    ensure!(check(&home, 0)? == expected);
    let finished = home.run(&["--once", "--with-summary"])?;
    finished.expect_code(0)?;
    ensure!(finished.stderr.contains("2 warning(s) found:") && finished.stdout.contains("Summary"));
    Ok(())
}

fn presets_that_nobody_chose_are_checked_too() -> Result<()> {
    let home = Home::new(&[(".config/rano/presets/night.conf", "\ncolor=purple\n")])?;
    let said = check(&home, 1)?;
    let expected = "1 error(s) found:\n  ✗ .config/rano/presets/night.conf:2: \
                    'color' must be one of [auto, always, never], got 'purple'\n";
    ensure!(said == expected, "{said}");
    home.run(&["--once", "--no-sqlite"])?.expect_code(0)?;
    Ok(())
}

fn a_start_says_the_same_and_fails() -> Result<()> {
    let home = Home::new(&[(CONFIG, "interval_ms=abc\nintervall_ms=1\n")])?;
    let checked = home.run(&["config", "check"])?;
    let started = home.run(&["--once"])?;
    started.expect_code(2)?;
    ensure!(started.stderr.starts_with("error: 1 error(s) found:\n"), "{started:#?}");
    for line in checked.stdout.lines().filter(|line| line.starts_with("  ")) {
        ensure!(started.stderr.contains(line), "{line}: {started:#?}");
    }
    ensure!(!home.path().join("observer.sqlite").exists(), "it started");
    Ok(())
}

fn variables_are_checked() -> Result<()> {
    let home = Home::new(&[])?;
    let finished = home.launch(&["config", "check"])?.env("RANO_STATS_TOP", "x").run()?;
    finished.expect_code(1)?;
    let expected = "  ✗ environment: 'RANO_STATS_TOP' must be a non-negative integer, got 'x'\n";
    ensure!(finished.stdout.contains(expected), "{finished:#?}");
    Ok(())
}

fn a_named_file_that_is_missing_is_told() -> Result<()> {
    let finished = Home::new(&[])?.run(&["config", "check", "--config", "/nonexistent.conf"])?;
    finished.expect_code(1)?;
    ensure!(finished.stdout.contains("  ✗ /nonexistent.conf: cannot be read: "), "{finished:#?}");
    Ok(())
}

fn what_is_right_is_told_and_nothing_is_fine() -> Result<()> {
    let said = check(&Home::new(&[])?, 0)?;
    ensure!(said.starts_with("no files to check"), "{said}");
    let home =
        Home::new(&[(CONFIG, "interval_ms=500\n"), (".config/rano/presets/mine.conf", "json=true\n")])?;
    ensure!(check(&home, 0)? == "  ✓ .config/rano/config.conf\n  ✓ .config/rano/presets/mine.conf\n");
    Ok(())
}

fn findings_are_objects_with_json() -> Result<()> {
    let home = Home::new(&[(CONFIG, "x=1\ninterval_ms=abc\n")])?;
    let finished = home.run(&["config", "check", "--json"])?;
    finished.expect_code(1)?;
    let json: Value = serde_json::from_str(&finished.stdout)?;
    ensure!(json["errors"] == 1 && json["warnings"] == 1, "{json}");
    let error = &json["findings"][1];
    ensure!(error["severity"] == "error" && error["line"] == 2, "{json}");
    ensure!(error["path"] == home.path().join(CONFIG).display().to_string(), "{json}");
    Ok(())
}

fn the_sample_is_a_config_file_without_findings_that_changes_nothing() -> Result<()> {
    let sample = Home::new(&[])?.run(&["config", "sample"])?;
    sample.expect_code(0)?;
    let is_key = |line: &str| line.starts_with('#') && !line.starts_with("# ");
    let keys = sample.stdout.lines().filter(|line| is_key(line)).map(|line| &line[1..]);
    let every_key = keys.collect::<Vec<_>>().join("\n");
    ensure!(every_key.lines().count() > 30, "{every_key}");
    let home = Home::new(&[(CONFIG, &every_key)])?;
    ensure!(check(&home, 0)? == "  ✓ .config/rano/config.conf\n");
    let values = |arguments: &[&str]| -> Result<Vec<Value>> {
        let finished = home.run(&[&["config", "show", "--json"], arguments].concat())?;
        let json: Value = serde_json::from_str(&finished.stdout)?;
        let rows = json.as_object().map(|rows| rows.values().map(|row| row["value"].clone()).collect());
        Ok(rows.unwrap_or_default())
    };
    ensure!(values(&[])? == values(&["--no-config"])?);
    Ok(())
}

fn show_names_the_origin_of_every_value() -> Result<()> {
    let home = Home::new(&[(CONFIG, "interval_ms=500\n")])?;
    let arguments = ["config", "show", "--preset", "live", "--theme", "mono"];
    let finished = home.launch(&arguments)?.env("RANO_STATS_WIDTH", "20").run()?;
    finished.expect_code(0)?;
    let config = home.path().join(CONFIG);
    for (row, origin) in [
        ("interval_ms = 500", format!("config file {}:1", config.display())),
        ("stats_top = 10", "preset live".to_owned()),
        ("stats_width = 20", "environment RANO_STATS_WIDTH".to_owned()),
        ("theme = mono", "flag".to_owned()),
        ("alert_cooldown_ms = 10000", "default".to_owned()),
    ] {
        let line = finished.stdout.lines().find(|line| line.starts_with(row));
        ensure!(
            line.is_some_and(|line| line.ends_with(&format!("# {origin}"))),
            "{row}: {}",
            finished.stdout
        );
    }
    Ok(())
}

fn a_broken_file_that_the_agent_can_write_stops_no_observation() -> Result<()> {
    for text in ["[providers\nsecret hunter2", "[providers]\nmode = \"bad\"\n", "[endpoints]\ndns = 7\n"] {
        let home = Home::new(&[("rano.toml", text)])?;
        let said = home.said(&home.run(&["--once", "--with-summary"])?, 0)?;
        ensure!(said.contains("1 warning(s) found:\n  ⚠ rano.toml:") && said.contains("Summary"), "{said}");
        ensure!(!said.contains("hunter2"), "{said}");
        let said = check(&home, 1)?;
        ensure!(said.starts_with("1 error(s) found:\n  ✗ rano.toml:"), "{said}");
        // Where somebody names it, it is his word.
        home.run(&["--once", "--no-sqlite", "--config-toml", "rano.toml"])?.expect_code(2)?;
    }
    Ok(())
}
