//! The agents that are known: by themselves, and by a user's file.

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;

use crate::support::home::Home;
use crate::support::recording::Recording;

crate::tests![
    the_agents_that_are_built_in_are_listed,
    an_agent_of_a_users_file_is_listed_watched_and_named_by_its_provider,
    patterns_and_pids_replace_agents,
    the_file_in_the_working_directory_adds_no_agent,
    what_is_wrong_with_an_agent_is_told_by_line,
];

const FILE: &str = ".config/rano/rano.toml";
const HELPER: &str = "\n[[agents]]\nname = 'helper'\nprovider = 'acme'\nnames = ['helper', 'helper-cli']\n";

/// Cells of a line of the list, apart by two blanks.
fn cells(line: &str) -> Vec<&str> {
    line.split("  ").map(str::trim).filter(|cell| !cell.is_empty()).collect()
}

fn the_agents_that_are_built_in_are_listed() -> Result<()> {
    let home = Home::new(&[])?;
    let listed = home.said(&home.run(&["agents"])?, 0)?;
    let rows: Vec<_> = listed.lines().skip(1).map(cells).collect();
    let row = |name, provider, how| vec![name, provider, how, "built in"];
    let expected = [
        row(
            "claude",
            "anthropic",
            "the name claude or claude-code or claude-cli or claude-code-acp or claude-agent-sdk, or package \
             @anthropic-ai/claude-code or package @anthropic-ai/claude-agent-sdk",
        ),
        row(
            "codex",
            "openai",
            "the name codex or codex-cli or codex-exec or codex-tui or codex-acp or codex-app-server, or package \
             @openai/codex or package @openai/codex-sdk",
        ),
        row(
            "gemini",
            "google",
            "the name gemini or gemini-cli or gemini_cli, or package @google/gemini-cli or package gemini_cli",
        ),
    ];
    ensure!(rows.len() > 20 && rows.starts_with(&expected), "{listed}");
    let amp = "the name amp, with package @sourcegraph/amp or package @ampcode/cli or path */.amp/* or path */@ampcode/* \
               or path */@sourcegraph/amp* or as a script of node or as a script of bun";
    ensure!(rows.contains(&row("amp", "amp", amp)), "{listed}");
    let help = home.said(&home.run(&["--help"])?, 0)?;
    ensure!(!help.contains("opencode") && help.contains("`rano agents` lists"), "{help}");
    Ok(())
}

fn an_agent_of_a_users_file_is_listed_watched_and_named_by_its_provider() -> Result<()> {
    let home = Home::new(&[(FILE, HELPER)])?;
    let listed: Value = serde_json::from_str(&home.said(&home.run(&["agents", "--json"])?, 0)?)?;
    let last = listed.as_array().and_then(|agents| agents.last()).context("no agents")?;
    ensure!(last["name"] == "helper" && last["provider"] == "acme", "{listed}");
    ensure!(last["match"] == "whole" && last["names"][1] == "helper-cli", "{listed}");
    ensure!(last["origin"] == format!("{FILE}:2") && listed[0]["origin"] == "built in", "{listed}");

    let recording = Recording::new()
        .process(43, "helper-cli")
        .process(44, "helpers")
        .connect(1, 0, "203.0.113.7:443")
        .connect_of(43, 2, 0, "203.0.113.8:443", "established")
        .connect_of(44, 3, 0, "203.0.113.9:443", "established");
    let path = recording.write(home.path())?;
    let said = home.said(&home.launch(&["--no-sqlite", "--replay"])?.args([path]).run()?, 0)?;
    ensure!(said.contains("+ connect | acme | pid=43 | helper-cli"), "{said}");
    ensure!(said.contains("+ connect | anthropic | pid=42 | claude"), "{said}");
    ensure!(!said.contains("pid=44"), "a whole name: {said}");
    ensure!(said.contains("claude, codex, gemini and 22 more\n"), "the banner says so: {said}");
    let shown = home.said(&home.run(&["config", "show"])?, 0)?;
    ensure!(shown.contains("pattern = claude,codex,gemini,") && shown.contains(",jules,helper "), "{shown}");
    Ok(())
}

fn patterns_and_pids_replace_agents() -> Result<()> {
    let home = Home::new(&[(FILE, HELPER)])?;
    let recording = Recording::new().process(43, "helper").connect(1, 0, "203.0.113.7:443").connect_of(
        43,
        2,
        0,
        "203.0.113.8:443",
        "established",
    );
    let path = recording.write(home.path())?;
    let launch = home.launch(&["--no-sqlite", "--pattern", "claude", "--replay"])?.args([&path]);
    let said = home.said(&launch.run()?, 0)?;
    ensure!(said.contains("pid=42") && !said.contains("pid=43"), "{said}");
    // Nobody's pattern, and the pid of the one who runs this test.
    let pid = std::process::id().to_string();
    let launch = home.launch(&["--once", "--no-sqlite", "--pid", &pid])?;
    let said = home.said(&launch.run()?, 2)?;
    ensure!(said.contains("was started from it"), "{said}");
    Ok(())
}

fn the_file_in_the_working_directory_adds_no_agent() -> Result<()> {
    let home = Home::new(&[("rano.toml", "[[agents]]\nname = 'other'\nprovider = 'evil'\n")])?;
    let recording =
        Recording::new().process(43, "other").connect_of(43, 1, 0, "203.0.113.7:443", "established");
    let path = recording.write(home.path())?;
    let said = home.said(&home.launch(&["--no-sqlite", "--replay"])?.args([&path]).run()?, 0)?;
    ensure!(!said.contains("pid=43") && said.contains("rano.toml cannot add agents"), "{said}");
    let launch = home.launch(&["--no-sqlite", "--config-toml", "rano.toml", "--replay"])?.args([&path]);
    let said = home.said(&launch.run()?, 0)?;
    ensure!(said.contains("+ connect | evil | pid=43 | other"), "{said}");
    Ok(())
}

fn what_is_wrong_with_an_agent_is_told_by_line() -> Result<()> {
    let text = "[[agents]]\nname = 'goose'\ncommon = true\n\n[[agents]]\nname = 'x'\nmatch = 'some'\npackges = ['y']\n";
    let home = Home::new(&[(FILE, text)])?;
    let said = home.said(&home.run(&["config", "check"])?, 1)?;
    let errors = format!(
        "2 error(s) found:\n  ✗ {FILE}:1: agents.goose: a common word needs packages, paths or interpreters that agree\n  \
         ✗ {FILE}:7: agents.match must be one of [whole, part], got 'some'\n"
    );
    let warning =
        format!("  ⚠ {FILE}:8: unknown key 'packges' (possible typo?): the nearest is 'packages'\n");
    ensure!(said.starts_with(&errors) && said.contains(&warning), "{said}");
    home.run(&["--once", "--no-sqlite"])?.expect_code(2)?;
    Ok(())
}
