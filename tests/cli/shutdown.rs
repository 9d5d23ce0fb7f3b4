//! Every way to end: what was seen is written and summed up; after a kill the database is whole.

use std::os::unix::process::CommandExt as _;

use anyhow::{Result, ensure};
use rustix::process::Signal;

use crate::support::actor::{Transport, Tuple};
use crate::support::namespace::{User, hear_hangups};
use crate::support::rano::Rano;
use crate::support::scene::Scene;

crate::tests![
    an_interrupt_writes_everything_and_sums_up,
    a_termination_writes_everything_and_sums_up,
    a_hangup_writes_everything_and_sums_up,
    a_hangup_that_was_ignored_at_the_start_stays_ignored,
    a_quit_writes_everything_and_sums_up,
    signals_that_mean_nothing_end_nothing,
    a_closed_output_writes_everything_and_is_no_error,
    a_second_interrupt_is_no_crash,
    a_killed_run_leaves_a_whole_database,
    the_database_can_be_read_while_it_is_written,
    two_at_once_write_their_own_sessions,
];

/// A run that has seen a connection, none of which need be on disk yet.
fn observed(scene: &mut Scene, arguments: &[&str]) -> Result<(Rano, Tuple)> {
    let rano = scene.observe(arguments)?;
    let mut claude = scene.agent("claude")?;
    let (_, tuple) = claude.connect(Transport::Tcp, scene.tcp)?;
    rano.wait_for_event("connect", tuple)?;
    Ok((rano, tuple))
}

fn check_signal(signal: Signal) -> Result<()> {
    let mut scene = Scene::new(User::Ordinary)?;
    let (rano, tuple) = observed(&mut scene, &["--db-flush-ms", "60000"])?;
    rano.signal(signal)?;
    let finished = rano.wait()?;
    finished.expect_code(0)?;
    ensure!(finished.stdout.contains("\nSummary\n"), "{finished:#?}");
    let database = scene.database()?;
    ensure!(!database.events_of(Transport::Tcp, tuple)?.is_empty());
    ensure!(database.count("SELECT clean_exit FROM sessions")? == 1);
    ensure!(database.count("SELECT count(*) FROM sessions WHERE ended_at >= started_at")? == 1);
    Ok(())
}

fn an_interrupt_writes_everything_and_sums_up() -> Result<()> {
    check_signal(Signal::INT)
}

fn a_termination_writes_everything_and_sums_up() -> Result<()> {
    check_signal(Signal::TERM)
}

fn a_hangup_writes_everything_and_sums_up() -> Result<()> {
    check_signal(Signal::HUP)
}

fn a_quit_writes_everything_and_sums_up() -> Result<()> {
    check_signal(Signal::QUIT)
}

/// Each of them would end a program that says nothing of it.
fn signals_that_mean_nothing_end_nothing() -> Result<()> {
    let mut scene = Scene::new(User::Ordinary)?;
    let (rano, _) = observed(&mut scene, &[])?;
    let signals = [
        libc::SIGUSR2,
        libc::SIGALRM,
        libc::SIGVTALRM,
        libc::SIGPROF,
        libc::SIGIO,
        libc::SIGSTKFLT,
        libc::SIGXFSZ,
    ];
    for signal in signals.into_iter().chain([34, 40, 64]) {
        // SAFETY: a system call with two numbers.
        ensure!(unsafe { libc::kill(rano.pid().cast_signed(), signal) } == 0, "{signal}");
    }
    let mut claude = scene.agent("claude")?;
    let (_, tuple) = claude.connect(Transport::Tcp, scene.tcp)?;
    rano.wait_for_event("connect", tuple)?;
    let finished = rano.interrupt()?;
    finished.expect_code(0)?;
    ensure!(finished.stdout.contains("\nSummary\n"), "{finished:#?}");
    Ok(())
}

/// As `nohup` starts it.
fn a_hangup_that_was_ignored_at_the_start_stays_ignored() -> Result<()> {
    let scene = Scene::new(User::Ordinary)?;
    let mut claude = scene.agent("claude")?;
    let (_, first) = claude.connect(Transport::Tcp, scene.tcp)?;
    let mut launch = scene.launch()?.args(["--interval-ms", "20", "--stats-interval-ms", "0"]);
    // SAFETY: between fork and exec only a system call is made.
    unsafe {
        launch.command().pre_exec(|| {
            hear_hangups(libc::SIG_IGN);
            Ok(())
        });
    }
    let rano = launch.start()?;
    rano.wait_for_event("connect", first)?;
    rano.signal(Signal::HUP)?;
    let (_, second) = claude.connect(Transport::Tcp, scene.tcp)?;
    rano.wait_for_event("connect", second)?;
    rano.interrupt()?.expect_code(0)?;
    Ok(())
}

fn a_closed_output_writes_everything_and_is_no_error() -> Result<()> {
    let scene = Scene::new(User::Ordinary)?;
    let mut claude = scene.agent("claude")?;
    let (_, first) = claude.connect(Transport::Tcp, scene.tcp)?;
    let arguments = ["--interval-ms", "20", "--db-flush-ms", "60000", "--no-banner"];
    let rano = scene.launch()?.args(arguments).stdout_closed_after(1).start()?;
    rano.wait_for_event("connect", first)?;
    // Nothing more has to happen for it to notice.
    rano.wait()?.expect_code(0)?;
    let database = scene.database()?;
    ensure!(!database.events_of(Transport::Tcp, first)?.is_empty());
    ensure!(database.count("SELECT clean_exit FROM sessions")? == 1);
    Ok(())
}

fn a_second_interrupt_is_no_crash() -> Result<()> {
    let mut scene = Scene::new(User::Ordinary)?;
    let (rano, _) = observed(&mut scene, &[])?;
    rano.signal(Signal::INT)?;
    rano.signal(Signal::INT)?;
    rano.wait()?;
    let database = scene.database()?;
    ensure!(database.integrity()? == "ok");
    Ok(())
}

fn a_killed_run_leaves_a_whole_database() -> Result<()> {
    let mut scene = Scene::new(User::Ordinary)?;
    let (rano, tuple) = observed(&mut scene, &["--db-flush-ms", "50"])?;
    let path = scene.directory().join("observer.sqlite");
    // From the outside a flush shows as the row being there; it is due within 50 ms.
    let deadline = std::time::Instant::now() + crate::support::PATIENCE;
    while scene.database()?.events_of(Transport::Tcp, tuple)?.is_empty() {
        ensure!(std::time::Instant::now() < deadline, "the flush interval is over, and no row");
        std::thread::yield_now();
    }
    rano.signal(Signal::KILL)?;
    ensure!(rano.wait()?.status.code().is_none());

    // Recovery of the write-ahead log needs a writer.
    let recovered = rusqlite::Connection::open(&path)?;
    let integrity: String = recovered.query_row("PRAGMA integrity_check", [], |row| row.get(0))?;
    ensure!(integrity == "ok", "{integrity}");
    drop(recovered);
    let database = scene.database()?;
    ensure!(!database.events_of(Transport::Tcp, tuple)?.is_empty());
    ensure!(database.count("SELECT clean_exit FROM sessions")? == 0);

    // The next run goes on in the same file.
    let (rano, _) = observed(&mut scene, &[])?;
    rano.interrupt()?.expect_code(0)?;
    ensure!(scene.database()?.count("SELECT count(*) FROM sessions")? == 2);
    Ok(())
}

fn the_database_can_be_read_while_it_is_written() -> Result<()> {
    let mut scene = Scene::new(User::Ordinary)?;
    let (rano, tuple) = observed(&mut scene, &["--db-flush-ms", "20"])?;
    let deadline = std::time::Instant::now() + crate::support::PATIENCE;
    while scene.database()?.events_of(Transport::Tcp, tuple)?.is_empty() {
        ensure!(std::time::Instant::now() < deadline, "no row appeared");
        std::thread::yield_now();
    }
    // A session that goes on lasts until now, also where nothing happens.
    let duration = || -> Result<i64> {
        let report = scene.launch()?.args(["report", "--json"]).run()?;
        let report: serde_json::Value = serde_json::from_str(&report.stdout)?;
        Ok(report["session"]["duration_ms"].as_i64().unwrap_or_default())
    };
    let before = duration()?;
    crate::support::wait_until("it lasts longer", || Ok(duration()? > before + 50))?;
    rano.interrupt()?.expect_code(0)?;
    Ok(())
}

fn two_at_once_write_their_own_sessions() -> Result<()> {
    let mut scene = Scene::new(User::Ordinary)?;
    let first = scene.observe(&["--session-name", "first"])?;
    let second = scene.observe(&["--session-name", "second"])?;
    let mut claude = scene.agent("claude")?;
    let (_, tuple) = claude.connect(Transport::Tcp, scene.tcp)?;
    first.wait_for_event("connect", tuple)?;
    second.wait_for_event("connect", tuple)?;
    first.interrupt()?.expect_code(0)?;
    second.interrupt()?.expect_code(0)?;
    let database = scene.database()?;
    ensure!(database.count("SELECT count(*) FROM sessions WHERE clean_exit = 1")? == 2);
    let runs = database.count("SELECT count(DISTINCT run_id) FROM events WHERE provider = 'anthropic'")?;
    ensure!(runs == 2, "{runs}");
    Ok(())
}
