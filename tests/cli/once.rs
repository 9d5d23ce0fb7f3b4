//! `--once`: a table of what is open now.

use std::os::unix::fs::PermissionsExt as _;

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;
use unicode_width::UnicodeWidthStr as _;

use crate::support::actor::Transport;
use crate::support::namespace::User;
use crate::support::scene::Scene;
use crate::support::terminal::{Screen, watch};

crate::tests![
    a_row_says_on_whose_behalf_what_is_open,
    it_keeps_no_history_and_prints_no_summary_unless_asked,
    it_works_where_nothing_can_be_written,
    its_objects_are_as_before,
    on_a_terminal_no_row_breaks,
    the_long_form_is_there_when_asked_for,
];

/// A curl that claude started, with one connection.
fn with_curl(scene: &Scene) -> Result<(crate::support::actor::Actor, u32)> {
    let mut claude = scene.agent("claude")?;
    let curl = claude.spawn(&claude.myself(), "curl")?;
    let (connection, _) = claude.connect_in(&curl, Transport::Tcp, scene.tcp)?;
    claude.exchange_in(&curl, connection, 2000, 300_000)?;
    Ok((claude, curl.pid))
}

fn a_row_says_on_whose_behalf_what_is_open() -> Result<()> {
    let scene = Scene::new(User::Ordinary)?;
    let (claude, curl) = with_curl(&scene)?;
    // Others may be watched on this machine.
    let finished = scene.launch()?.args(["--once", "--pid", &claude.pid().to_string()]).run()?;
    finished.expect_code(0)?;
    let mut lines = finished.stdout.lines();
    let heading: Vec<_> = lines.next().context("a heading")?.split_whitespace().collect();
    let columns = ["provider", "agent", "program", "remote", "class", "age", "sent", "received"];
    ensure!(heading == columns, "{finished:#?}");
    let row: Vec<_> =
        lines.next().context("a row")?.split("  ").map(str::trim).filter(|cell| !cell.is_empty()).collect();
    let agent = format!("claude({})", claude.pid());
    let (program, remote) = (format!("curl({curl})"), scene.tcp.to_string());
    ensure!(row[..5] == ["anthropic", &*agent, &*program, &*remote, "localhost"], "{row:?}");
    ensure!(row[5].starts_with('≤') && row[6..] == ["1.9 KiB", "292.9 KiB"], "{row:?}");
    ensure!(lines.next().is_none(), "{finished:#?}");
    Ok(())
}

fn it_keeps_no_history_and_prints_no_summary_unless_asked() -> Result<()> {
    let scene = Scene::new(User::Ordinary)?;
    let (claude, _) = with_curl(&scene)?;
    let pid = claude.pid().to_string();
    let plain = scene.launch()?.args(["--once"]).run()?;
    plain.expect_code(0)?;
    ensure!(!plain.stdout.contains("Summary") && !plain.stderr.contains("Live Stats"), "{plain:#?}");
    ensure!(!scene.directory().join("observer.sqlite").exists(), "a history");
    let asked =
        scene.launch()?.args(["--once", "--with-summary", "--sqlite", "look.sqlite", "--pid", &pid]).run()?;
    asked.expect_code(0)?;
    ensure!(asked.stdout.contains("anthropic") && asked.stdout.contains("\n  connects 1\n"), "{asked:#?}");
    ensure!(scene.directory().join("look.sqlite").exists(), "no history");
    Ok(())
}

fn it_works_where_nothing_can_be_written() -> Result<()> {
    let scene = Scene::new(User::Ordinary)?;
    let _curl = with_curl(&scene)?;
    std::fs::set_permissions(scene.directory(), std::fs::Permissions::from_mode(0o555))?;
    let finished = scene.launch()?.args(["--once"]).run()?;
    finished.expect_code(0)?;
    ensure!(finished.stdout.contains("anthropic"), "{finished:#?}");
    Ok(())
}

fn its_objects_are_as_before() -> Result<()> {
    let scene = Scene::new(User::Ordinary)?;
    let _curl = with_curl(&scene)?;
    let finished = scene.launch()?.args(["--once", "--json"]).run()?;
    finished.expect_code(0)?;
    let objects: Vec<Value> =
        finished.stdout.lines().map(serde_json::from_str).collect::<std::result::Result<_, _>>()?;
    ensure!(objects.iter().all(|object| object["event"] == "connect"), "{finished:#?}");
    ensure!(finished.stderr.contains("Summary\n"), "{finished:#?}");
    Ok(())
}

fn on_a_terminal_no_row_breaks() -> Result<()> {
    let scene = Scene::new(User::Ordinary)?;
    let mut claude = scene.agent("claude")?;
    let long = claude.spawn(&claude.myself(), "a-program-with-a-very-long-name")?;
    claude.connect_in(&long, Transport::Tcp, scene.tcp)?;
    for columns in [80, 120, 200] {
        let launch = scene.launch()?.args(["--once", "--no-banner", "--pid", &claude.pid().to_string()]);
        let mut screen = Screen::new(columns, 40);
        screen.write(&watch(launch, columns, 40)?);
        let text = screen.text();
        ensure!(
            text[1].contains("claude(") && text[1].width() <= usize::from(columns),
            "{columns}: {text:#?}"
        );
        ensure!(text.iter().filter(|line| !line.is_empty()).count() == 2, "{columns}: {text:#?}");
    }
    Ok(())
}

fn the_long_form_is_there_when_asked_for() -> Result<()> {
    let scene = Scene::new(User::Ordinary)?;
    let _curl = with_curl(&scene)?;
    let finished = scene.launch()?.args(["--once", "--format", "pretty"]).run()?;
    finished.expect_code(0)?;
    ensure!(finished.stdout.contains(" | + connect | anthropic | "), "{finished:#?}");
    Ok(())
}
