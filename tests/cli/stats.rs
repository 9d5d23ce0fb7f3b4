//! Live stats: what a block says, when it comes, and how it keeps its place on a terminal.

use anyhow::{Context as _, Result, ensure};
use unicode_width::UnicodeWidthStr as _;

use crate::support::namespace::{Place, User};
use crate::support::rano::Launch;
use crate::support::recording::Recording;
use crate::support::stage;
use crate::support::terminal::{Screen, watch};

crate::tests![
    the_provider_view_counts_connections_domains_and_addresses,
    the_other_views_rank_by_count,
    the_agent_view_says_what_is_open_how_fast_and_where,
    bars_have_the_width_that_was_asked_for,
    only_so_many_lines_are_shown,
    a_late_name_moves_its_connection_in_the_domain_view,
    views_take_turns,
    without_a_view_all_take_turns,
    a_block_comes_at_each_interval_but_not_without_news,
    stats_are_off_with_json_and_with_an_interval_of_zero,
    wide_and_hostile_names_keep_the_columns,
    on_a_terminal_there_is_one_block_and_events_stand_above_it,
    a_narrow_terminal_gets_no_line_that_breaks,
    themes_differ_in_colours_only,
];

/// rano on `recording`, in a directory of its own that lives as long as `run`.
fn with_replay<T>(
    recording: &Recording,
    arguments: &[&str],
    run: impl FnOnce(Launch) -> Result<T>,
) -> Result<T> {
    let place = Place::new(User::Ordinary)?;
    let directory = stage::directory(&place)?;
    let path = recording.write(directory.path())?;
    let fixed = ["--no-sqlite", "--no-banner", "--replay"];
    run(Launch::new(&place, directory.path())?.args(fixed).args([path]).args(arguments))
}

/// Standard error: nothing but blocks.
fn blocks(recording: &Recording, arguments: &[&str]) -> Result<String> {
    with_replay(recording, arguments, |launch| {
        let finished = launch.run()?;
        finished.expect_code(0)?;
        Ok(finished.stderr)
    })
}

/// Three of claude, to two addresses and one name, and one of codex.
fn four_connections() -> Recording {
    Recording::new()
        .process(43, "codex")
        .connect(1, 0, "203.0.113.7:443")
        .name(1, 10, "api.anthropic.com", "dns")
        .connect(2, 20, "203.0.113.7:443")
        .name(2, 30, "api.anthropic.com", "dns")
        .connect(3, 40, "203.0.113.8:80")
        .connect_of(43, 4, 50, "203.0.113.9:443", "established")
        .close(1, 100)
        .close(2, 320)
        .clock(1_000)
}

const ONE_BLOCK: [&str; 5] = ["--stats-interval-ms", "900", "--stats-width", "6", "--no-alerts"];

fn the_provider_view_counts_connections_domains_and_addresses() -> Result<()> {
    let expected = "\
Live Stats [provider]
anthropic ██████ 3 (domains=1, ips=2)
openai    ██░░░░ 1 (domains=0, ips=1)
active=2 peak=4 avg_dur=200ms
";
    let said = blocks(&four_connections(), &ONE_BLOCK)?;
    ensure!(said == expected, "{said}");
    Ok(())
}

fn the_other_views_rank_by_count() -> Result<()> {
    let expected = "\
Live Stats [domain]
2 ██████ api.anthropic.com
2 ██████ (no name)
Live Stats [port]
3 ██████ 443
1 ██░░░░ 80
Live Stats [process]
3 ██████ claude
1 ██░░░░ codex
";
    let views = ["--stats-view", "domain", "--stats-view", "port,process"];
    let said = blocks(&four_connections(), &[&ONE_BLOCK[..], &views].concat())?;
    ensure!(said == expected, "{said}");
    Ok(())
}

fn the_agent_view_says_what_is_open_how_fast_and_where() -> Result<()> {
    let recording = Recording::new()
        .process(43, "codex")
        .connect(1, 0, "203.0.113.7:443")
        .connect_of(43, 2, 10, "192.0.2.9:22", "established")
        .bytes(1, 500, 1_000, 2_000)
        .clock(1_500)
        .bytes(1, 2_000, 41_944_040, 5_000)
        .name(1, 2_100, "api.anthropic.com", "dns")
        .close(2, 2_200)
        .clock(2_600)
        .close(1, 3_000)
        .clock(3_700);
    let view = ["--stats-interval-ms", "1000", "--stats-view", "agent", "--no-alerts"];
    let said = blocks(&recording, &view)?;
    let expected = "\
Live Stats [agent]
claude(42)  1 open      ↑0B/s     ↓0B/s  203.0.113.7:443
codex(43)   1 open      ↑0B/s     ↓0B/s  192.0.2.9:22
Live Stats [agent]
claude(42)  1 open     ↑40M/s   ↓2.9K/s  203.0.113.7:443
codex(43)   1 open      ↑0B/s     ↓0B/s  192.0.2.9:22
Live Stats [agent]
idle: nothing is open
claude(42)    idle      ↑0B/s     ↓0B/s  api.anthropic.com:443
";
    ensure!(said.starts_with(expected), "{said}");
    Ok(())
}

fn bars_have_the_width_that_was_asked_for() -> Result<()> {
    for (arguments, width) in [(&[][..], 40), (&["--stats-width", "1"], 1), (&["--stats-width", "100"], 100)]
    {
        let said = blocks(&four_connections(), arguments)?;
        let bars = said.lines().filter(|line| line.contains('█'));
        let widths: Vec<_> = bars.map(|line| line.matches(['█', '░']).count()).collect();
        ensure!(widths == [width, width], "{said}");
    }
    Ok(())
}

fn only_so_many_lines_are_shown() -> Result<()> {
    let mut recording = Recording::new();
    for connection in 0..20 {
        // Port 1020 once, 1019 twice …
        for copy in 0..=connection {
            let remote = format!("203.0.113.7:{}", 1020 - connection);
            recording = recording.connect(100 * connection + copy, 0, &remote);
        }
    }
    let recording = recording.clock(1_000);
    let arguments = [&ONE_BLOCK[..], &["--stats-view", "port", "--stats-top", "2"]].concat();
    let expected = "\
Live Stats [port]
20 ██████ 1001
19 ██████ 1002
… and 18 more
";
    let said = blocks(&recording, &arguments)?;
    ensure!(said == expected, "{said}");
    Ok(())
}

fn a_late_name_moves_its_connection_in_the_domain_view() -> Result<()> {
    let recording = Recording::new()
        .connect(1, 0, "203.0.113.7:443")
        .clock(1_000)
        .name(1, 1_500, "a.example", "ptr")
        .clock(3_000);
    let said = blocks(&recording, &[&ONE_BLOCK[..], &["--stats-view", "domain"]].concat())?;
    let expected = "\
Live Stats [domain]
1 ██████ (no name)
Live Stats [domain]
1 ██████ ~a.example
";
    ensure!(said == expected, "{said}");
    Ok(())
}

fn headings(said: &str) -> Vec<&str> {
    said.lines().filter_map(|line| line.strip_prefix("Live Stats [")?.strip_suffix(']')).collect()
}

fn views_take_turns() -> Result<()> {
    let recording = (1..=6).fold(Recording::new(), |recording, n| {
        recording.connect(n, u64::from(n) * 1_000 - 1, "203.0.113.7:443")
    });
    let cycle = ["--stats-interval-ms", "1000", "--stats-cycle-ms", "2000", "--stats-view", "port,process"];
    let said = blocks(&recording.clock(6_500), &cycle)?;
    let expected = ["port", "process", "process", "port", "port", "process"];
    ensure!(headings(&said) == expected, "{said}");
    Ok(())
}

fn without_a_view_all_take_turns() -> Result<()> {
    let recording = Recording::new().connect(1, 0, "203.0.113.7:443").clock(3_500);
    let said = blocks(&recording, &["--stats-interval-ms", "1000", "--stats-cycle-ms", "1000"])?;
    ensure!(headings(&said) == ["domain", "port", "process"], "{said}");
    Ok(())
}

fn a_block_comes_at_each_interval_but_not_without_news() -> Result<()> {
    let recording = Recording::new()
        .connect(1, 0, "203.0.113.7:443")
        .clock(10_000)
        .connect(2, 10_100, "203.0.113.7:443")
        .clock(20_000);
    let said = blocks(&recording, &["--stats-interval-ms", "2000"])?;
    ensure!(headings(&said).len() == 2, "{said}");
    Ok(())
}

fn stats_are_off_with_json_and_with_an_interval_of_zero() -> Result<()> {
    for arguments in [&["--json"][..], &["--stats-interval-ms", "0"]] {
        let said = blocks(&four_connections(), arguments)?;
        ensure!(!said.contains("Live Stats"), "{arguments:?}: {said}");
    }
    Ok(())
}

fn wide_and_hostile_names_keep_the_columns() -> Result<()> {
    let names = ["日本語.example", "a\u{1b}[2J\n", "🦀🦀🦀", &"x".repeat(300), "ab\u{202e}cd"];
    let mut recording = Recording::new();
    for (connection, name) in (1..).zip(names) {
        recording = recording.connect(connection, 0, "203.0.113.7:443").name(connection, 1, name, "dns");
    }
    let arguments = [&ONE_BLOCK[..], &["--stats-view", "domain"]].concat();
    let said = blocks(&recording.clock(1_000), &arguments)?;
    ensure!(said.lines().count() == 6, "{said}");
    for line in said.lines().skip(1) {
        ensure!(line.starts_with("1 ██████ ") && line.width() <= 9 + 120, "{line}");
        ensure!(!line.chars().any(|c| c.is_control() || c == '\u{202e}'), "{line:?}");
    }
    Ok(())
}

fn on_a_terminal_there_is_one_block_and_events_stand_above_it() -> Result<()> {
    let mut recording = Recording::new();
    for connection in 1..=30 {
        let ms = u64::from(connection) * 500;
        recording = recording.connect(connection, ms, "203.0.113.7:443").close(connection, ms + 100);
    }
    let (columns, rows) = (120, 12);
    let arguments =
        ["--stats-interval-ms", "1000", "--stats-view", "provider,port", "--alert-max-connections", "0"];
    let arguments = [&arguments[..], &["--format", "pretty"]].concat();
    let written = with_replay(&recording, &arguments, |launch| watch(launch, columns, rows))?;
    ensure!(written.matches("Live Stats [provider]").count() > 5, "never redrawn: {written:?}");
    let mut screen = Screen::new(columns, rows);
    screen.write(&written);
    let text = screen.text();
    let is_block =
        |line: &&String| line.contains("Live Stats") || line.contains('█') || line.contains("active=");
    let summary = text.iter().position(|line| line == "Summary").context("a summary")?;
    ensure!(text.iter().filter(is_block).count() == 5, "{text:#?}");
    ensure!(text[summary - 6] == "Live Stats [provider]" && text[summary - 1].is_empty(), "{text:#?}");
    let above = &text[..summary - 6];
    ensure!(above.iter().filter(|line| line.contains("| + connect |")).count() == 30, "{text:#?}");
    ensure!(above.iter().filter(|line| line.contains("| - close ")).count() == 30, "{text:#?}");
    let alerts = above.iter().filter(|line| line.starts_with("[ALERT] ")).count();
    ensure!(alerts == 2, "{alerts}: {text:#?}");
    ensure!(above.iter().all(|line| line.contains(" | ")), "half a line: {text:#?}");
    Ok(())
}

fn a_narrow_terminal_gets_no_line_that_breaks() -> Result<()> {
    let mut recording = Recording::new();
    for connection in 1..=9 {
        let name = format!("a-long-name-of-a-host-{connection}.日本語.example");
        recording = recording
            .connect(connection, 0, &format!("203.0.113.{connection}:{}", 50_000 + u32::from(connection)))
            .name(connection, 1, &name, "dns");
    }
    let recording = recording.clock(4_000);
    for (columns, rows) in [(40, 10), (20, 5), (200, 50), (7, 3), (1, 1)] {
        for view in ["provider", "domain", "port", "process", "agent", "provider,domain,port,process,agent"] {
            let arguments = [
                "--stats-interval-ms",
                "1000",
                "--stats-view",
                view,
                "--stats-top",
                "8",
                "--color=never",
                "--no-alerts",
            ];
            let arguments = [&arguments[..], &["--summary-only"]].concat();
            let written = with_replay(&recording, &arguments, |launch| watch(launch, columns, rows))?;
            let block = written.split("Summary").next().unwrap_or_default();
            let plain = block.replace("\x1b[1A", "").replace("\x1b[2K", "").replace('\r', "");
            let lines: Vec<_> = plain.trim_end().lines().collect();
            ensure!(lines.iter().all(|line| line.width() <= columns.into()), "{columns}: {lines:#?}");
            ensure!(lines.len() < usize::from(rows).max(2), "{columns}x{rows} {view}: {lines:#?}");
        }
    }
    Ok(())
}

fn themes_differ_in_colours_only() -> Result<()> {
    let recording = four_connections();
    let mut texts = Vec::new();
    for theme in ["vivid", "mono", "colorblind"] {
        let arguments = ["--color", "always", "--theme", theme, "--alert-max-connections", "1"];
        let written = with_replay(&recording, &arguments, |launch| watch(launch, 200, 50))?;
        let colours = written.contains("\x1b[38;5;");
        ensure!(colours == (theme != "mono"), "{theme}: {written:?}");
        let red_or_green = ["\x1b[38;5;160m", "\x1b[38;5;28m"].iter().any(|code| written.contains(code));
        ensure!(red_or_green == (theme == "vivid"), "{theme}: {written:?}");
        let mut screen = Screen::new(200, 50);
        screen.write(&written);
        texts.push(screen.text());
    }
    ensure!(texts[0] == texts[1] && texts[1] == texts[2], "{texts:#?}");
    let alert = texts[0].iter().any(|line| line.contains(" | WARNING | max_connections | 2/1 "));
    ensure!(alert, "{:#?}", texts[0]);
    Ok(())
}
