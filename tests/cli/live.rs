//! What a person sees while rano observes: a row an event on a terminal, in as many columns as there are.

use anyhow::{Context as _, Result, ensure};
use unicode_width::UnicodeWidthStr as _;

use crate::support::namespace::{Place, User};
use crate::support::rano::Launch;
use crate::support::recording::Recording;
use crate::support::scene::Scene;
use crate::support::stage;
use crate::support::terminal::{Screen, type_at, watch};

crate::tests![
    on_a_terminal_each_event_is_a_row,
    in_a_pipe_the_long_form_stays,
    a_log_file_has_the_long_form,
    the_name_that_comes_in_a_moment_is_in_the_row,
    a_look_up_has_no_row_if_its_connection_follows,
    a_look_up_alone_has_a_row,
    colours_go_by_class_and_none_is_needed,
    a_hostile_name_breaks_no_row,
    q_ends_it_and_enter_tears_nothing,
    the_summary_says_what_to_look_at_first,
    the_summary_says_what_is_new,
];

/// What is on a terminal in the end, of rano on `recording`.
fn screen(recording: &Recording, columns: u16, arguments: &[&str]) -> Result<Vec<String>> {
    let mut screen = Screen::new(columns, 24);
    screen.write(&written(recording, columns, arguments)?);
    Ok(screen.text())
}

fn written(recording: &Recording, columns: u16, arguments: &[&str]) -> Result<String> {
    replay(recording, arguments, |launch| watch(launch, columns, 24))
}

fn replay<T>(recording: &Recording, arguments: &[&str], run: impl FnOnce(Launch) -> Result<T>) -> Result<T> {
    let place = Place::new(User::Ordinary)?;
    let directory = stage::directory(&place)?;
    let path = recording.write(directory.path())?;
    let fixed = ["--no-sqlite", "--no-banner", "--no-alerts", "--stats-interval-ms", "0", "--replay"];
    run(Launch::new(&place, directory.path())?.args(fixed).args([path]).args(arguments))
}

/// The rows of events: they begin with a time.
fn rows(text: &[String]) -> Vec<&str> {
    text.iter().map(String::as_str).filter(|line| line.as_bytes().get(2) == Some(&b':')).collect()
}

fn worst() -> Recording {
    Recording::new()
        .process(43, "codex")
        .connect(1, 0, "[2001:db8:85a3:8d3:1319:8a2e:370:7348]:50443")
        .connect(2, 500, "203.0.113.7:443")
        .name(2, 520, "a-very-long-label-in-front.of-a.日本語.example.com", "dns")
        .connect_of(43, 3, 900, "192.0.2.9:22", "connecting")
        .fail(3, 1_000)
        .close(2, 9_000)
        .close(1, 3_700_000)
}

fn on_a_terminal_each_event_is_a_row() -> Result<()> {
    for columns in [40, 80, 120, 200] {
        let text = screen(&worst(), columns, &[])?;
        let rows = rows(&text);
        ensure!(rows.len() == 5, "{columns}: {text:#?}");
        ensure!(rows.iter().all(|row| row.width() <= usize::from(columns)), "{columns}: {rows:#?}");
        let signs: Vec<_> = rows.iter().filter_map(|row| row.chars().nth(9)).collect();
        ensure!(signs == ['+', '+', '×', '-', '-'], "{columns}: {rows:#?}");
        ensure!(rows[2].contains("codex") && rows[0].contains("claude"), "{columns}: {rows:#?}");
        ensure!(columns < 80 || rows[1].contains("example.com:443"), "{columns}: {rows:#?}");
        ensure!(columns < 80 || rows[2].contains("ECONNREFUSED"), "{columns}: {rows:#?}");
    }
    Ok(())
}

fn in_a_pipe_the_long_form_stays() -> Result<()> {
    let piped = |arguments: &[&str]| {
        replay(&worst(), arguments, |launch| Ok(launch.run()?.expect_code(0)?.stdout.clone()))
    };
    ensure!(piped(&[])?.contains("2026-01-17T19:30:00Z | + connect | anthropic | pid=42 | claude | tcp | "));
    let rows = piped(&["--format", "line"])?;
    ensure!(rows.starts_with("19:30:00 + "), "{rows}");
    let refused = replay(&worst(), &["--format", "lines"], Launch::run)?;
    refused.expect_code(2)?;
    Ok(())
}

fn a_log_file_has_the_long_form() -> Result<()> {
    let scene = Scene::new(User::Ordinary)?;
    let recording = worst().write(scene.directory())?;
    let launch =
        scene.launch()?.args(["--no-sqlite", "--log-file", "events.log", "--replay"]).args([recording]);
    watch(launch, 80, 24)?;
    let log = std::fs::read_to_string(scene.directory().join("events.log"))?;
    ensure!(log.starts_with("2026-01-17T19:30:00Z | + connect | anthropic | "), "{log}");
    Ok(())
}

fn the_name_that_comes_in_a_moment_is_in_the_row() -> Result<()> {
    let recording = Recording::new()
        .connect(1, 0, "203.0.113.7:443")
        .name(1, 40, "soon.example", "ptr")
        .connect(2, 100, "203.0.113.8:443")
        .name(2, 200, "late.example", "ptr")
        .close(1, 300)
        .close(2, 400);
    let text = screen(&recording, 80, &[])?;
    let rows = rows(&text);
    ensure!(rows[0].contains(" + ") && rows[0].contains(" ~soon.example:443"), "{rows:#?}");
    ensure!(rows[1].contains(" + ") && rows[1].contains("203.0.113.8:443"), "{rows:#?}");
    ensure!(rows[3].contains(" - ") && rows[3].contains(" ~late.example:443"), "{rows:#?}");
    Ok(())
}

fn a_look_up_has_no_row_if_its_connection_follows() -> Result<()> {
    let recording = Recording::new()
        .datagrams(1, 0, "127.0.0.53:53")
        .close(1, 20)
        .connect(2, 30, "203.0.113.7:443")
        .close(2, 5_000);
    let text = screen(&recording, 80, &[])?;
    let rows = rows(&text);
    ensure!(rows.len() == 2 && rows.iter().all(|row| row.contains("203.0.113.7:443")), "{text:#?}");
    // It is counted all the same, and kept wherever everything is.
    ensure!(text.iter().any(|line| line.contains("connects 2")), "{text:#?}");
    let long = screen(&recording, 200, &["--format", "pretty"])?;
    ensure!(long.iter().any(|line| line.contains("127.0.0.53:53")), "{long:#?}");
    Ok(())
}

fn a_look_up_alone_has_a_row() -> Result<()> {
    let recording = Recording::new()
        .process(43, "codex")
        .datagrams(1, 0, "127.0.0.53:53")
        .connect_of(43, 2, 30, "203.0.113.7:443", "established")
        .clock(5_000);
    let text = screen(&recording, 80, &[])?;
    let alone: Vec<_> = rows(&text).into_iter().filter(|row| row.contains("127.0.0.53:53/udp")).collect();
    ensure!(alone.len() == 1 && alone[0].starts_with("19:30:00 + claude(42)"), "{text:#?}");
    Ok(())
}

fn colours_go_by_class_and_none_is_needed() -> Result<()> {
    let recording = Recording::new()
        .connect(1, 0, "203.0.113.7:443")
        .name(1, 10, "api.anthropic.com", "dns")
        .connect(2, 100, "198.51.100.66:443")
        .clock(1_000);
    let painted = written(&recording, 80, &[])?;
    ensure!(painted.contains("\x1b[38;5;68mapi.anthropic.com:443"), "blue: {painted:?}");
    ensure!(painted.contains("\x1b[38;5;160m198.51.100.66:443"), "red: {painted:?}");
    let plain = replay(&recording, &[], |launch| watch(launch.env("NO_COLOR", "1"), 80, 24))?;
    ensure!(!plain.contains("\x1b[38"), "{plain:?}");
    let text = |written: &str| {
        let mut screen = Screen::new(80, 24);
        screen.write(written);
        screen.text()
    };
    ensure!(text(&painted) == text(&plain), "colour says something that the text does not");
    Ok(())
}

fn a_hostile_name_breaks_no_row() -> Result<()> {
    let recording = Recording::new()
        .process(43, "codex\x1b[2J\n")
        .connect_of(43, 1, 0, "203.0.113.7:443", "established")
        .name(1, 10, "a\x1b]0;x\x07\n\u{202e}.example", "dns")
        .close(1, 500);
    for columns in [40, 80, 200] {
        let written = written(&recording, columns, &["--pattern", "codex", "--color=never"])?;
        let before = written.split("Summary").next().context("rows")?;
        ensure!(!before.contains(['\x1b', '\x07', '\u{202e}']), "{before:?}");
        ensure!(before.lines().filter(|line| line.contains(':')).count() == 2, "{before:?}");
    }
    Ok(())
}

fn q_ends_it_and_enter_tears_nothing() -> Result<()> {
    let scene = Scene::new(User::Ordinary)?;
    let mut claude = scene.agent("claude")?;
    claude.connect(crate::support::actor::Transport::Tcp, scene.tcp)?;
    let flags = ["--interval-ms", "20", "--stats-interval-ms", "20", "--no-sqlite", "--no-banner"];
    let launch = scene.launch()?.args(flags);
    let (mut has_entered, mut blocks) = (false, 0);
    // A second connection moves the numbers, and so the block is drawn again.
    let mut keys = |written: &str| -> Option<&'static [u8]> {
        let drawn = written.matches("Live Stats").count();
        if !has_entered && drawn > 0 {
            (has_entered, blocks) = (true, drawn);
            claude.connect(crate::support::actor::Transport::Tcp, scene.tcp).ok()?;
            return Some(b"\n\nxyz\n");
        }
        (has_entered && drawn > blocks && written.contains("active=2")).then_some(b"q")
    };
    let (status, written) = type_at(launch, (80, 24), &mut keys)?;
    ensure!(status.success(), "{status}: {written}");
    let mut screen = Screen::new(80, 24);
    screen.write(&written);
    let text = screen.text();
    let blocks = text.iter().filter(|line| line.contains("Live Stats")).count();
    ensure!(blocks == 1 && !text.iter().any(|line| line.contains("xyz")), "{text:#?}");
    ensure!(text.iter().any(|line| line == "Summary"), "it ended in order: {text:#?}");
    Ok(())
}

/// Of a summary, the lines below `title`.
fn below<'a>(text: &'a str, title: &str) -> Vec<&'a str> {
    let lines = text.lines().skip_while(|line| *line != format!("  {title}")).skip(1);
    lines.take_while(|line| line.starts_with("    ")).map(str::trim).collect()
}

fn odd_night() -> Recording {
    let mut recording = Recording::new()
        .connect(1, 0, "203.0.113.7:443")
        .name(1, 10, "api.anthropic.com", "dns")
        .connect(2, 20, "198.51.100.66:443")
        .connect(3, 30, "203.0.113.8:443")
        .name(3, 40, "registry.npmjs.org", "dns")
        .bytes(2, 900, 40 << 20, 2_765)
        .close(3, 950);
    for attempt in 4..8 {
        let ms = 1_000 + u64::from(attempt) * 10;
        recording = recording.connect_of(42, attempt, ms, "10.0.0.7:22", "connecting").fail(attempt, ms + 5);
    }
    recording.clock(4_000)
}

fn the_summary_says_what_to_look_at_first() -> Result<()> {
    let piped = |arguments: &[&str]| {
        replay(&odd_night(), arguments, |launch| Ok(launch.run()?.expect_code(0)?.stdout.clone()))
    };
    let text = piped(&[])?;
    let expected = [
        "198.51.100.66:443  claude(42)  ↑40.0 MiB ↓2.7 KiB  large upload, unknown endpoint",
        "10.0.0.7:22        claude(42)                      never connected",
    ];
    ensure!(below(&text, "Look at these") == expected, "{text}");
    ensure!(below(&text, "Failures") == ["4 ECONNREFUSED  10.0.0.7:22"], "{text}");
    let endpoints = [
        "1 llm_api    sent      0 B   received      0 B",
        "1 registry   sent      5 B   received      6 B",
        "1 unknown    sent 40.0 MiB   received  2.7 KiB",
    ];
    ensure!(below(&text, "Endpoints") == endpoints, "{text}");
    let order = [
        "Summary\n",
        "  Providers\n",
        "  Look at these\n",
        "  Top Domains\n",
        "  Endpoints\n",
        "  Failures\n",
    ];
    let places: Vec<_> = order.iter().map(|title| text.find(title)).collect();
    ensure!(places.is_sorted() && places[0].is_some(), "{places:?}: {text}");
    for columns in [40, 80] {
        let shown = screen(&odd_night(), columns, &[])?.join("\n");
        let rows = below(&shown, "Look at these");
        ensure!(columns < 80 || rows[0].ends_with("large upload, unknown endpoint"), "{columns}: {shown}");
        ensure!(shown.lines().all(|line| line.width() <= usize::from(columns)), "{columns}: {shown}");
    }
    Ok(())
}

fn the_summary_says_what_is_new() -> Result<()> {
    let place = Place::new(User::Ordinary)?;
    let directory = stage::directory(&place)?;
    let run = |recording: &Recording| -> Result<String> {
        let path = recording.write(directory.path())?;
        let launch = Launch::new(&place, directory.path())?.args(["--no-banner", "--replay"]).args([path]);
        Ok(launch.run()?.expect_code(0)?.stdout.clone())
    };
    let known = || {
        Recording::new()
            .connect(1, 0, "203.0.113.7:443")
            .name(1, 10, "api.anthropic.com", "dns")
            .close(1, 100)
    };
    let first = run(&known())?;
    ensure!(below(&first, "Look at these").is_empty(), "everything is new, so nothing is: {first}");
    let second =
        run(&known().connect(2, 200, "203.0.113.9:443").name(2, 210, "files.pythonhosted.org", "dns"))?;
    let expected = ["files.pythonhosted.org:443  claude(42)    never seen before"];
    ensure!(below(&second, "Look at these") == expected, "{second}");
    Ok(())
}
