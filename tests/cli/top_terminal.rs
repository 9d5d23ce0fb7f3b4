//! `rano top` in a real terminal: it takes the screen, and gives it back whatever happens.

use std::os::unix::process::CommandExt as _;
use std::path::Path;

use anyhow::{Context as _, Result, ensure};

use crate::support::database::Database;
use crate::support::history::{Connection, End, History, START};
use crate::support::namespace::is_root;
use crate::support::rano::Launch;
use crate::support::recording::Recording;
use crate::support::tmux::Tmux;
use crate::support::trial::skip;
use crate::support::{terminal, wait_until};

crate::tests![
    a_recording_is_played_looked_at_and_left,
    a_history_is_shown_and_exported,
    a_running_session_is_found,
    a_suspended_view_comes_back,
    a_signal_leaves_the_terminal_as_it_was,
    a_closed_terminal_ends_the_view_and_the_observation,
    a_closed_terminal_ends_a_view_that_ignores_the_hangup,
    another_users_history_is_refused_before_the_screen_is_taken,
];

const SESSIONS: &str = "SELECT count(*) FROM sessions";

const RANO: &str = env!("CARGO_BIN_EXE_rano");

fn recording(directory: &Path) -> Result<()> {
    let recording = Recording::new()
        .exact(1, 1000, "203.0.113.7:443")
        .greeting(1, 1100, "api.anthropic.com", "sni")
        .exact(2, 2000, "198.51.100.9:8443")
        .close(2, 5000)
        .clock(9000);
    recording.write(directory).map(drop)
}

/// A terminal in which `rano top` plays a recording.
fn playing(columns: u16, rows: u16) -> Result<Tmux> {
    let tmux = Tmux::start(columns, rows)?;
    recording(tmux.directory())?;
    tmux.line(&format!("cd {}", tmux.directory().display()))?;
    tmux.line(&format!("{RANO} top --no-config --replay recording.jsonl --sqlite top.sqlite; echo code=$?"))?;
    tmux.wait_for("the end of the recording", |screen| screen.starts_with("rano  ○ ended"))?;
    ensure!(tmux.is_alternate()?, "not on the alternate screen");
    Ok(tmux)
}

fn has_usual_modes(tmux: &Tmux) -> Result<()> {
    tmux.line("clear; stty -a")?;
    let is_set = |screen: &str, mode: &str| screen.split_whitespace().any(|word| word == mode);
    let all = |screen: &str| ["echo", "icanon", "isig", "opost"].iter().all(|mode| is_set(screen, mode));
    tmux.wait_for("the modes of a shell", all).map(drop)
}

/// The shell has the terminal again, as it was before.
fn is_sane(tmux: &Tmux, code: u8) -> Result<()> {
    let code = format!("code={code}");
    let screen = tmux.wait_for("the end", |screen| screen.lines().any(|line| line == code))?;
    ensure!(!tmux.is_alternate()?, "still on the alternate screen:\n{screen}");
    has_usual_modes(tmux)
}

fn a_recording_is_played_looked_at_and_left() -> Result<()> {
    let tmux = playing(100, 30)?;
    let screen = tmux.wait_for("the tree", |screen| screen.contains("api.anthropic.com:443"))?;
    ensure!(screen.contains("claude (42)") && screen.contains("connects 2"), "{screen}");
    tmux.keys(&["3"])?;
    tmux.wait_for("connections", |screen| screen.contains("198.51.100.9:8443") && screen.contains("opened"))?;
    tmux.keys(&["Down", "Enter"])?;
    tmux.wait_for("a detail", |screen| screen.contains("command line"))?;
    tmux.resize(40, 10)?;
    tmux.wait_for("a small screen", |screen| screen.lines().all(|line| line.chars().count() <= 40))?;
    tmux.resize(160, 40)?;
    tmux.keys(&["Escape"])?;
    tmux.wait_for("a large screen", |screen| screen.contains("tool call") && screen.contains("q quit"))?;
    tmux.keys(&["q"])?;
    // What was said meanwhile, and the summary, stand where they can be read.
    tmux.wait_for("the summary", |screen| screen.contains("Summary") && screen.contains("connects 2"))?;
    is_sane(&tmux, 0)
}

fn a_history_is_shown_and_exported() -> Result<()> {
    let tmux = playing(100, 30)?;
    tmux.keys(&["q"])?;
    is_sane(&tmux, 0)?;
    tmux.line("clear")?;
    // A SQLite file is no recording: it is shown.
    tmux.line(&format!("{RANO} top --no-config --replay top.sqlite --filter port:8443; echo code=$?"))?;
    let screen = tmux
        .wait_for("the history", |screen| screen.starts_with("rano  ○ ended") && screen.contains("8443"))?;
    ensure!(screen.contains("198.51.100.9:8443") && !screen.contains("anthropic.com:443"), "{screen}");
    tmux.keys(&["e"])?;
    tmux.wait_for("a question", |screen| screen.contains("export to"))?;
    tmux.keys(&["Enter"])?;
    tmux.wait_for("an answer", |screen| screen.contains("wrote 1 connections"))?;
    tmux.keys(&["w"])?;
    tmux.wait_for("a question", |screen| screen.contains("write the report to"))?;
    tmux.keys(&["Enter"])?;
    tmux.wait_for("an answer", |screen| {
        screen.lines().last().is_some_and(|line| line.starts_with("wrote rano-"))
    })?;
    let file = |ending: &str| -> Result<String> {
        let entries = std::fs::read_dir(tmux.directory())?.filter_map(|entry| Some(entry.ok()?.path()));
        let mut found = entries.filter(|path| path.to_string_lossy().ends_with(ending));
        Ok(std::fs::read_to_string(found.next().context("no file")?)?)
    };
    let csv = file(".csv")?;
    ensure!(csv.lines().count() == 2 && csv.contains(",198.51.100.9,8443,"), "{csv}");
    ensure!(file(".html")?.contains("198.51.100.9"), "the report does not have it");
    tmux.keys(&["q"])?;
    is_sane(&tmux, 0)
}

fn a_running_session_is_found() -> Result<()> {
    let tmux = Tmux::start(100, 30)?;
    tmux.line(&format!("cd {}", tmux.directory().display()))?;
    tmux.line(&format!(
        "{RANO} --no-config --source proc --pattern nobody-at-all --no-banner --session-name beside \
         >beside.log 2>&1 & echo $! > pid"
    ))?;
    let database = tmux.directory().join("observer.sqlite");
    wait_until("a session", || {
        Ok(Database::open(&database).is_ok_and(|it| it.count(SESSIONS).is_ok_and(|count| count == 1)))
    })?;
    let run = Database::open(&database)?.text("SELECT run_id FROM sessions")?;
    // From anywhere: where its history is, the session itself says.
    tmux.line("clear; mkdir elsewhere; cd elsewhere")?;
    tmux.line(&format!("{RANO} top --no-config --attach {run}; echo code=$?"))?;
    tmux.wait_for("the session", |screen| screen.starts_with("rano  ● live") && screen.contains("beside"))?;
    let pid = std::fs::read_to_string(tmux.directory().join("pid"))?;
    let observer = rustix::process::Pid::from_raw(pid.trim().parse()?).context("a pid")?;
    rustix::process::kill_process(observer, rustix::process::Signal::INT)?;
    tmux.wait_for("its end", |screen| screen.starts_with("rano  ○ ended"))?;
    ensure!(!tmux.directory().join("elsewhere/observer.sqlite").exists(), "it observed itself");
    tmux.keys(&["q"])?;
    is_sane(&tmux, 0)
}

fn a_suspended_view_comes_back() -> Result<()> {
    let tmux = playing(80, 24)?;
    tmux.keys(&["2"])?;
    tmux.wait_for("endpoints", |screen| screen.contains("endpoint   "))?;
    tmux.keys(&["C-z"])?;
    // What was said until now can be read.
    tmux.wait_for("the shell", |screen| screen.contains("Stopped") && screen.contains("Completeness"))?;
    ensure!(!tmux.is_alternate()?, "still on the alternate screen");
    has_usual_modes(&tmux)?;
    tmux.line("fg")?;
    tmux.wait_for("the view", |screen| {
        screen.starts_with("rano  ○ ended") && screen.contains("endpoint   ")
    })?;
    tmux.keys(&["q"])?;
    wait_until("the end", || Ok(!tmux.is_alternate()?))?;
    has_usual_modes(&tmux)
}

fn a_signal_leaves_the_terminal_as_it_was() -> Result<()> {
    let tmux = playing(80, 24)?;
    let pid = tmux.run(&["display-message", "-p", "#{pane_pid}"])?;
    let shell: u32 = pid.trim().parse()?;
    // The shell's only child.
    let children = std::fs::read_to_string(format!("/proc/{shell}/task/{shell}/children"))?;
    let child = children.split_whitespace().next().context("a child")?.parse()?;
    let child = rustix::process::Pid::from_raw(child).context("a pid")?;
    rustix::process::kill_process(child, rustix::process::Signal::TERM)?;
    is_sane(&tmux, 0)
}

const OWN: [&str; 5] = ["top", "--no-config", "--source", "proc", "--no-dns"];

fn a_closed_terminal_ends_the_view_and_the_observation() -> Result<()> {
    check_hang_up(|_| ())
}

/// As under `nohup`.
fn a_closed_terminal_ends_a_view_that_ignores_the_hangup() -> Result<()> {
    let ignore = || {
        // SAFETY: it has no handler, and says so between fork and exec.
        let before = unsafe { libc::signal(libc::SIGHUP, libc::SIG_IGN) };
        if before == libc::SIG_ERR { Err(std::io::Error::last_os_error()) } else { Ok(()) }
    };
    check_hang_up(|launch| {
        // SAFETY: only a system call is made.
        unsafe { launch.command().pre_exec(ignore) };
    })
}

fn check_hang_up(prepare: impl Fn(&mut Launch)) -> Result<()> {
    let history = History::new()?;
    let mut launch = history.launch(&OWN)?;
    prepare(&mut launch);
    terminal::hang_up(launch, 80, 24, "Connections")?;
    let clean = history.database()?.count("SELECT clean_exit FROM sessions")?;
    ensure!(clean == 1, "the session was not ended in order");
    let mut launch = history.launch(&["top", "--no-config", "--read-only"])?;
    prepare(&mut launch);
    terminal::hang_up(launch, 80, 24, "Connections").map(drop)
}

fn another_users_history_is_refused_before_the_screen_is_taken() -> Result<()> {
    if !is_root() {
        return Err(skip("it takes root to give a file to another user"));
    }
    let history = History::new()?;
    history.write("theirs", START, &[Connection::default()], End::Clean)?;
    std::os::unix::fs::chown(history.path(), Some(0), Some(0))?;
    for arguments in [&["top", "--no-config"][..], &["top", "--no-config", "--read-only"]] {
        let (status, written) = terminal::watch_any(history.launch(arguments)?, 120, 24)?;
        ensure!(status.code() == Some(3), "{arguments:?}: {status}: {written}");
        ensure!(written.contains("as database: permission denied\r\nhint: "), "{arguments:?}: {written}");
        ensure!(!written.contains("\x1b[?1049h"), "{arguments:?} took the screen: {written}");
    }
    Ok(())
}
