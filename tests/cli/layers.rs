//! Where options and providers come from, and which place wins: files, variables, flags.

use anyhow::{Result, ensure};

use crate::support::home::Home;
use crate::support::recording::Recording;

crate::tests![
    a_later_file_of_providers_wins_key_by_key,
    replacing_drops_the_providers_that_are_built_in,
    the_file_in_the_working_directory_can_only_add,
    providers_of_a_file_name_the_connections_of_processes,
    a_config_home_of_ones_own_is_honoured,
    without_config_no_file_is_read,
    a_mode_for_names_that_is_none_is_told_in_the_words_of_the_others,
];

/// The line about a provider in `config show`: its patterns, and the last of what says where it comes from.
fn provider(shown: &str, name: &str) -> String {
    let line = shown.lines().find(|line| line.starts_with(&format!("# {name} = ")));
    let words = line.and_then(|line| line.split_once("= ")).map_or("none", |(_, words)| words);
    let (patterns, origin) = words.split_once(" # ").unwrap_or((words, ""));
    format!("{} {}", patterns.trim(), origin.rsplit(' ').next().unwrap_or_default())
}

fn a_later_file_of_providers_wins_key_by_key() -> Result<()> {
    let home = Home::new(&[
        (".rano.toml", "[providers]\na = ['a1']\nb = ['b1']\nc = ['c1']\nd = ['d1']\n"),
        (".config/rano/rano.toml", "[providers]\nb = ['b2']\nc = ['c2']\nd = ['d2']\n"),
        ("variable.toml", "[providers]\nc = ['c3']\nd = ['d3']\n"),
        ("flag.toml", "[providers]\nd = ['d4']\n"),
    ])?;
    let launch = home.launch(&["config", "show", "--config-toml", "flag.toml"])?;
    let shown = home.said(&launch.env("RANO_CONFIG_TOML", "variable.toml").run()?, 0)?;
    for (name, expected) in [
        ("a", r#"["a1"] .rano.toml:2"#),
        ("b", r#"["b2"] .config/rano/rano.toml:2"#),
        ("c", r#"["c3"] variable.toml:2"#),
        ("d", r#"["d4"] flag.toml:2"#),
        ("anthropic", r#"["claude","anthropic"] default"#),
    ] {
        ensure!(provider(&shown, name) == expected, "{name}: {} in {shown}", provider(&shown, name));
    }
    Ok(())
}

fn replacing_drops_the_providers_that_are_built_in() -> Result<()> {
    let home = Home::new(&[(".rano.toml", "[providers]\nmode = \"replace\"\nlocal = ['ollama']\n")])?;
    let shown = home.said(&home.launch(&["config", "show"])?.run()?, 0)?;
    ensure!(
        !shown.contains("# openai = ") && provider(&shown, "local").starts_with("[\"ollama\"]"),
        "{shown}"
    );
    Ok(())
}

fn the_file_in_the_working_directory_can_only_add() -> Result<()> {
    let text = "[providers]\nmode = 'replace'\nopenai = ['claude']\nevil = ['codex', 'other']\n";
    let home = Home::new(&[("rano.toml", text)])?;
    let recording = Recording::new().connect(1, 0, "203.0.113.7:443").write(home.path())?;
    let launch = home.launch(&["--no-sqlite", "--pattern", "claude", "--replay"])?.args([recording]);
    let said = home.said(&launch.run()?, 0)?;
    ensure!(said.contains("+ connect | anthropic |"), "{said}");
    ensure!(said.contains("rano.toml") && said.contains("can only add providers"), "{said}");
    let checked = home.said(&home.launch(&["config", "check"])?.run()?, 0)?;
    for note in [
        "its mode is not obeyed",
        "pattern 'claude' of openai is left out",
        "pattern 'codex' of evil is left out",
    ] {
        ensure!(checked.contains(note), "{note}: {checked}");
    }
    Ok(())
}

fn providers_of_a_file_name_the_connections_of_processes() -> Result<()> {
    let home = Home::new(&[(".config/rano/rano.toml", "[providers]\nlocal_llm = ['OLLAMA']\n")])?;
    let recording = Recording::new().process(43, "ollama");
    let recording = recording.connect_of(43, 1, 0, "203.0.113.7:443", "established");
    let path = recording.write(home.path())?;
    let launch = home.launch(&["--no-sqlite", "--pattern", "ollama", "--replay"])?.args([path]);
    let said = home.said(&launch.run()?, 0)?;
    ensure!(said.contains("+ connect | local_llm | pid=43 | ollama"), "{said}");
    ensure!(said.contains(".config/rano/rano.toml"), "the banner names the file: {said}");
    Ok(())
}

fn a_config_home_of_ones_own_is_honoured() -> Result<()> {
    let home = Home::new(&[
        (".config/rano/config.conf", "stats_top=1\n"),
        ("elsewhere/rano/config.conf", "stats_top=2\n"),
        ("elsewhere/rano/presets/mine.conf", "stats_width=7\n"),
    ])?;
    let elsewhere = home.path().join("elsewhere");
    let run = |arguments: &[&str]| -> Result<String> {
        home.said(&home.launch(arguments)?.env("XDG_CONFIG_HOME", &elsewhere).run()?, 0)
    };
    let shown = run(&["config", "show", "--preset", "mine"])?;
    ensure!(shown.contains("stats_top = 2 ") && shown.contains("stats_width = 7 "), "{shown}");
    let paths = run(&["config", "paths"])?;
    ensure!(paths.contains("elsewhere/rano/config.conf") && !paths.contains(".config"), "{paths}");
    Ok(())
}

fn without_config_no_file_is_read() -> Result<()> {
    let home = Home::new(&[
        (".config/rano/config.conf", "stats_top=1\n"),
        (".rano.toml", "[providers]\nmine = ['x']\n"),
        ("named.conf", "stats_width = 9\n"),
    ])?;
    let shown = home.said(&home.launch(&["config", "show", "--no-config"])?.run()?, 0)?;
    ensure!(shown.contains("stats_top = 5 ") && !shown.contains("mine"), "{shown}");
    let shown = home.said(&home.launch(&["config", "show", "--config", "named.conf"])?.run()?, 0)?;
    ensure!(shown.contains("stats_top = 5 ") && shown.contains("stats_width = 9 "), "{shown}");
    Ok(())
}

fn a_mode_for_names_that_is_none_is_told_in_the_words_of_the_others() -> Result<()> {
    let home = Home::new(&[(".config/rano/config.conf", "domain_mode = invalid\n")])?;
    let finished = home.launch(&["config", "check"])?.run()?;
    finished.expect_code(1)?;
    let expected = "config.conf:1: 'domain_mode' must be one of [auto, ptr, pcap, ebpf], got 'invalid'";
    ensure!(finished.stdout.contains(expected), "{finished:?}");
    Ok(())
}
