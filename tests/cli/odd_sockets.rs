//! Sockets that are no plain connections: attempts that fail, datagrams without a peer, unix sockets, owners that
//! vanish.

use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;

use anyhow::{Context as _, Result, ensure};

use crate::support::actor::{Actor, Ending, Service, Transport};
use crate::support::namespace::User;
use crate::support::scene::{FAST, Scene};

crate::tests![
    a_refused_attempt_is_a_fail_and_nothing_else,
    an_attempt_that_is_never_answered_is_a_fail_of_its_process,
    a_datagram_without_a_peer_is_a_connection_without_a_remote_end,
    unix_sockets_are_shown_on_request_only,
    a_connection_that_was_reset_and_is_kept_open_is_not_counted_twice,
    a_killed_process_closes_what_it_had_open,
    connections_too_short_for_a_poll_are_counted_in_another_network_namespace_too,
    a_socket_as_standard_output_that_is_closed_ends_it,
];

/// Refused at once, so that no look can meet it: its end alone tells.
fn a_refused_attempt_is_a_fail_and_nothing_else() -> Result<()> {
    let mut scene = Scene::new(User::Ordinary)?;
    let refusing = {
        let mut server = Actor::start(&scene.place, "server")?;
        server.serve(Transport::Tcp, "127.0.0.1:0", Service::Answer)?
    };
    let mut claude = scene.agent("claude")?;
    let rano = scene.observe(&["--include-unattributed"])?;
    let (attempt, _) = claude.attempt(refusing)?;
    claude.close(attempt, Ending::Reset)?;
    let remote = format!("-> {}", refusing.ip());
    let line = rano.stdout.wait_for("a failure", |line| line.contains("! fail") && line.contains(&remote))?;
    ensure!(!line.contains("dur="), "{line}");
    scene.let_it_look(&rano)?;
    rano.interrupt()?.expect_code(0)?;
    let database = scene.database()?;
    ensure!(database.count("SELECT count(*) FROM events WHERE event = 'fail'")? == 1);
    ensure!(
        database.count("SELECT count(*) FROM events WHERE event <> 'fail' AND provider <> 'google'")? == 0
    );
    Ok(())
}

fn an_attempt_that_is_never_answered_is_a_fail_of_its_process() -> Result<()> {
    let mut scene = Scene::new(User::Ordinary)?;
    let silent = scene.server.serve_nobody()?;
    let mut claude = scene.agent("claude")?;
    let rano = scene.observe(&[])?;
    let (attempt, tuple) = claude.attempt(silent)?;
    scene.let_it_look(&rano)?;
    claude.close(attempt, Ending::Reset)?;
    let line = rano.wait_for_event("! fail", tuple)?;
    ensure!(line.contains(&format!("pid={}", claude.pid())) && !line.contains("dur="), "{line}");
    let finished = rano.interrupt()?;
    finished.expect_code(0)?;
    let rows = scene.database()?.events_of(Transport::Tcp, tuple)?;
    ensure!(rows.len() == 1 && rows[0].event == "fail" && rows[0].provider == "anthropic", "{rows:#?}");
    ensure!(finished.stdout.contains("\n  fails    1\n"), "{finished:#?}");
    Ok(())
}

fn a_datagram_without_a_peer_is_a_connection_without_a_remote_end() -> Result<()> {
    let mut scene = Scene::new(User::Ordinary)?;
    let server = scene.server.serve(Transport::Udp, "127.0.0.1:0", Service::Answer)?;
    let mut claude = scene.agent("claude")?;
    let rano = scene.observe(&[])?;
    let (connection, tuple) = claude.send_to(server)?;
    let line = rano.wait_for_event("connect", tuple)?;
    ensure!(line.contains("| udp | ") && line.contains(" -> *"), "{line}");
    claude.close(connection, Ending::InOrder)?;
    rano.wait_for_event("close", tuple)?;
    rano.interrupt()?.expect_code(0)?;
    let kinds = format!("FROM events WHERE pid = {} AND remote_ip IS NULL", claude.pid());
    ensure!(scene.database()?.text(&format!("SELECT group_concat(event) {kinds}"))? == "connect,close");
    Ok(())
}

fn unix_sockets_are_shown_on_request_only() -> Result<()> {
    let mut scene = Scene::new(User::Ordinary)?;
    let path = scene.directory().join("server.sock");
    scene.server.serve_unix(&path)?;
    let mut claude = scene.agent("claude")?;
    claude.connect_unix(&path)?;
    for (flag, expected) in [("--no-banner", 0), ("--include-unix", 1)] {
        let finished = scene.launch()?.args(["--once", "--format", "pretty", flag]).run()?;
        finished.expect_code(0)?;
        let shown = format!("| unix | * -> {}", path.display());
        let pid = format!("pid={} ", claude.pid());
        let lines = finished.stdout.lines().filter(|line| line.contains(&shown) && line.contains(&pid));
        ensure!(lines.count() == expected, "{finished:#?}");
    }
    let rano = scene.observe(&["--include-unix"])?;
    let shown = path.display().to_string();
    let line = rano.stdout.wait_for("a connect", |line| line.contains("connect") && line.contains(&shown))?;
    let other_end = format!(" | peer={} | class=ipc", scene.server.pid());
    ensure!(line.contains(&other_end), "{line}");
    claude.end()?;
    rano.stdout.wait_for("a close", |line| line.contains("close") && line.contains(&shown))?;
    rano.interrupt()?.expect_code(0)?;
    Ok(())
}

/// In no table of the kernel any more, but its process has not closed it.
fn a_connection_that_was_reset_and_is_kept_open_is_not_counted_twice() -> Result<()> {
    let mut scene = Scene::new(User::Ordinary)?;
    let mut claude = scene.agent("claude")?;
    let mut server = Actor::start(&scene.place, "server")?;
    let address = server.serve(Transport::Tcp, "127.0.0.1:0", Service::Keep)?;
    let rano = scene.observe(&["--include-unattributed"])?;
    let (connection, tuple) = claude.connect(Transport::Tcp, address)?;
    rano.wait_for_event("connect", tuple)?;
    // A server that ends with something unread resets.
    claude.exchange(connection, 100, 0)?;
    server.drop_accepted(1)?;
    rano.wait_for_event("close", tuple)?;
    claude.close(connection, Ending::Reset)?;
    scene.let_it_look(&rano)?;
    rano.interrupt()?.expect_code(0)?;
    let database = scene.database()?;
    let of_it = format!("FROM events WHERE local_port = {}", tuple.local.port());
    ensure!(database.text(&format!("SELECT group_concat(event) {of_it}"))? == "connect,close");
    Ok(())
}

fn a_killed_process_closes_what_it_had_open() -> Result<()> {
    let mut scene = Scene::new(User::Ordinary)?;
    let mut claude = scene.agent("claude")?;
    let rano = scene.observe(&[])?;
    let (connection, tuple) = claude.connect(Transport::Tcp, scene.tcp)?;
    claude.exchange(connection, 20, 30)?;
    rano.wait_for_event("connect", tuple)?;
    let pid = claude.pid();
    claude.kill()?;
    rano.wait_for_event("close", tuple)?;
    rano.interrupt()?.expect_code(0)?;
    let rows = scene.database()?.events_of(Transport::Tcp, tuple)?;
    ensure!(rows.len() == 2 && rows.iter().all(|row| row.pid == Some(pid)), "{rows:#?}");
    ensure!((rows[1].bytes_sent, rows[1].bytes_recv) == (Some(20), Some(30)), "{rows:#?}");
    Ok(())
}

/// No notification comes from there.
fn connections_too_short_for_a_poll_are_counted_in_another_network_namespace_too() -> Result<()> {
    let mut scene = Scene::new(User::Ordinary)?;
    let elsewhere = scene.place.elsewhere()?;
    let mut server = Actor::start(&elsewhere, "server")?;
    let address = server.serve(Transport::Tcp, "127.0.0.1:0", Service::Answer)?;
    let mut claude = Actor::start(&elsewhere, "claude")?;
    let rano = scene.observe_every(500, &[])?;
    let (_, tuple) = claude.connect(Transport::Tcp, address)?;
    rano.wait_for_event("connect", tuple)?;
    claude.short_connections(address, 20, std::time::Duration::from_millis(1))?;
    scene.let_it_look(&rano)?;
    rano.interrupt()?.expect_code(0)?;
    let database = scene.database()?;
    let counted = database.count("SELECT unattributed FROM sessions")?;
    let shown = database
        .count(&format!("SELECT count(*) FROM events WHERE event = 'connect' AND pid = {}", claude.pid()))?;
    // One that a look met just before its end counts as a stranger's: no notification tells that it was not.
    ensure!((19..=21).contains(&(counted + shown)), "{counted} counted and {shown} shown");
    Ok(())
}

/// Of a pipe the kernel says POLLERR, of a socket POLLHUP.
fn a_socket_as_standard_output_that_is_closed_ends_it() -> Result<()> {
    let scene = Scene::new(User::Ordinary)?;
    let (ours, theirs) = UnixStream::pair()?;
    let mut launch = scene.launch()?.args(FAST);
    launch.command().stdout(OwnedFd::from(theirs));
    let rano = launch.start()?;
    rano.stderr.wait_for("the banner", |line| line.contains("history")).context("it starts")?;
    drop(ours);
    rano.wait()?.expect_code(0)?;
    ensure!(scene.database()?.count("SELECT clean_exit FROM sessions")? == 1);
    Ok(())
}
