//! Presets, built in and a user's own: what they set, in which order, and how they are listed.

use anyhow::{Result, ensure};
use serde_json::Value;

use crate::support::home::Home;
use crate::support::rano::Finished;

crate::tests![
    a_built_in_preset_sets_what_it_is_for,
    later_presets_win_over_earlier_ones_and_over_the_file,
    variables_and_flags_win_over_presets,
    a_preset_of_ones_own_is_used_and_named,
    presets_are_listed_with_their_descriptions,
    an_unknown_preset_is_refused_with_the_names_there_are,
    a_mistake_in_a_chosen_preset_stops_the_start,
    the_quiet_preset_is_quiet,
];

/// `key=value from origin` of some keys.
fn shown(finished: &Finished, keys: &[&str]) -> Result<Vec<String>> {
    finished.expect_code(0)?;
    let json: Value = serde_json::from_str(&finished.stdout)?;
    let row = |key: &&str| {
        format!("{key}={} from {}", json[*key]["value"], json[*key]["origin"].as_str().unwrap_or_default())
    };
    Ok(keys.iter().map(row).collect())
}

fn a_built_in_preset_sets_what_it_is_for() -> Result<()> {
    let home = Home::configured(&[])?;
    for (preset, expected) in [
        ("audit", &["stats_interval_ms=0", "include_udp=true", "summary_only=true"]),
        ("quiet", &["stats_interval_ms=0", "no_banner=true", "summary_only=true"]),
        ("live", &["stats_interval_ms=500", "stats_top=10", ""]),
        ("verbose", &["include_udp=true", "include_listening=true", "stats_interval_ms=1000"]),
    ] {
        let finished = home.run(&["config", "show", "--json", "--preset", preset])?;
        for row in expected.iter().filter(|row| !row.is_empty()) {
            let key = row.split('=').next().unwrap_or_default();
            ensure!(shown(&finished, &[key])? == [format!("{row} from preset {preset}")], "{finished:#?}");
        }
    }
    Ok(())
}

fn later_presets_win_over_earlier_ones_and_over_the_file() -> Result<()> {
    let home =
        Home::configured(&[("config.conf", "stats_interval_ms=7000\nstats_top=3\ninterval_ms=250\n")])?;
    let keys = ["stats_interval_ms", "stats_top", "summary_only"];
    let finished = home.run(&["config", "show", "--json", "--preset", "audit", "--preset", "live"])?;
    let expected = [
        "stats_interval_ms=500 from preset live",
        "stats_top=10 from preset live",
        "summary_only=true from preset audit",
    ];
    ensure!(shown(&finished, &keys)? == expected, "{finished:#?}");
    let finished = home.run(&["config", "show", "--json", "--preset", "live", "--preset", "audit"])?;
    ensure!(shown(&finished, &keys[..1])? == ["stats_interval_ms=0 from preset audit"]);
    Ok(())
}

fn variables_and_flags_win_over_presets() -> Result<()> {
    let home = Home::configured(&[])?;
    let arguments = ["config", "show", "--json", "--preset", "live", "--stats-top", "2"];
    let finished = home.launch(&arguments)?.env("RANO_STATS_INTERVAL_MS", "900").run()?;
    let expected = ["stats_interval_ms=900 from environment RANO_STATS_INTERVAL_MS", "stats_top=2 from flag"];
    ensure!(shown(&finished, &["stats_interval_ms", "stats_top"])? == expected, "{finished:#?}");
    let finished = home.launch(&["config", "show", "--json"])?.env("RANO_PRESET", "audit,live").run()?;
    ensure!(shown(&finished, &["stats_interval_ms"])? == ["stats_interval_ms=500 from preset live"]);
    Ok(())
}

fn a_preset_of_ones_own_is_used_and_named() -> Result<()> {
    let home = Home::configured(&[
        ("presets/mine.conf", "# Description: x\n\ninterval_ms = 50\n"),
        ("presets/live.conf", "stats_top=99\n"),
    ])?;
    let finished = home.run(&["config", "show", "--json", "--preset", "mine", "--preset", "live"])?;
    let file = |name: &str| home.path().join(".config/rano/presets").join(name).display().to_string();
    let expected = [
        format!("interval_ms=50 from preset mine {}:3", file("mine.conf")),
        format!("stats_top=99 from preset live {}:1", file("live.conf")),
        "stats_interval_ms=2000 from default".to_owned(),
    ];
    ensure!(
        shown(&finished, &["interval_ms", "stats_top", "stats_interval_ms"])? == expected,
        "{finished:#?}"
    );
    let finished = home.run(&["--once", "--preset", "mine"])?;
    ensure!(finished.stderr.contains(&file("mine.conf")), "not in the banner: {finished:#?}");
    Ok(())
}

fn presets_are_listed_with_their_descriptions() -> Result<()> {
    let home = Home::configured(&[
        ("presets/zoo.conf", "# Description: All \u{1b}[31manimals\nstats_top=7\n"),
        ("presets/bare.conf", "stats_top=7\n"),
        ("presets/notes.txt", "no preset"),
    ])?;
    let finished = home.run(&["--list-presets"])?;
    finished.expect_code(0)?;
    let lines: Vec<_> = finished.stdout.lines().collect();
    let names: Vec<_> = lines.iter().filter_map(|line| line.split_whitespace().next()).collect();
    ensure!(names == ["audit", "bare", "live", "quiet", "verbose", "zoo"], "{lines:?}");
    ensure!(lines[5].starts_with("zoo      All \\x1b[31manimals (") && lines[5].ends_with("zoo.conf)"));
    ensure!(lines.iter().all(|line| line.len() > 12), "{lines:?}");
    Ok(())
}

fn an_unknown_preset_is_refused_with_the_names_there_are() -> Result<()> {
    let home = Home::configured(&[("presets/mine.conf", "")])?;
    for name in ["x", "../config", ".", "a/b"] {
        let finished = home.run(&["--once", "--preset", name])?;
        finished.expect_code(2)?;
        let expected =
            format!("error: Unknown preset '{name}'. Available: audit, live, mine, quiet, verbose");
        ensure!(finished.stderr.lines().next() == Some(&expected), "{finished:#?}");
    }
    Ok(())
}

fn a_mistake_in_a_chosen_preset_stops_the_start() -> Result<()> {
    let home = Home::configured(&[
        ("presets/mine.conf", "stats_top=many\n"),
        ("presets/deep.conf", "preset=live\n"),
    ])?;
    for (name, message) in [
        ("mine", "1: 'stats_top' must be a non-negative integer, got 'many'"),
        ("deep", "1: 'preset' cannot be set in a config file"),
    ] {
        let finished = home.run(&["--once", "--preset", name])?;
        finished.expect_code(2)?;
        ensure!(finished.stderr.contains(&format!("presets/{name}.conf:{message}")), "{finished:#?}");
    }
    Ok(())
}

fn the_quiet_preset_is_quiet() -> Result<()> {
    let finished = Home::configured(&[])?.run(&["--once", "--no-sqlite", "--preset", "quiet"])?;
    finished.expect_code(0)?;
    ensure!(!finished.stderr.contains("watching"), "a banner: {finished:#?}");
    ensure!(finished.stdout.starts_with("Summary\n"), "{finished:#?}");
    Ok(())
}
