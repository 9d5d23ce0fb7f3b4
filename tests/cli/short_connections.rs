//! Connections that are over before a poll could see them: counted by the client's tuple, never given to a wrong
//! process.

use std::collections::HashSet;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use rustix::process::Signal;

use crate::support::PATIENCE;
use crate::support::actor::{Actor, Ending, Service, Transport};
use crate::support::namespace::User;
use crate::support::scene::Scene;
use crate::support::wait_until;

crate::tests![
    two_hundred_of_five_milliseconds_are_accounted_for,
    unattributed_ones_are_counted_but_not_shown_unasked,
    five_thousand_closed_at_once_are_seen_or_counted_as_lost,
    five_thousand_observed_ones_all_get_their_close,
    ends_whose_notification_was_lost_are_found_by_polling,
];

fn two_hundred_of_five_milliseconds_are_accounted_for() -> Result<()> {
    let mut scene = Scene::new(User::Ordinary)?;
    let mut claude = scene.agent("claude")?;
    let rano = scene.observe_every(1000, &["--include-unattributed"])?;
    let tuples = claude.short_connections(scene.tcp, 200, Duration::from_millis(5))?;
    scene.let_it_look(&rano)?;
    rano.interrupt()?.expect_code(0)?;

    let database = scene.database()?;
    let mut seen = 0;
    for &tuple in &tuples {
        let rows = database.events_of(Transport::Tcp, tuple)?;
        seen += usize::from(!rows.is_empty());
        ensure!(rows.len() <= 2, "{tuple:?} more than once: {rows:#?}");
        ensure!(rows.iter().all(|row| row.pid.is_none_or(|pid| pid == claude.pid())), "{rows:#?}");
    }
    ensure!(seen * 100 >= tuples.len() * 99, "only {seen} of {} seen", tuples.len());
    Ok(())
}

fn unattributed_ones_are_counted_but_not_shown_unasked() -> Result<()> {
    let mut scene = Scene::new(User::Ordinary)?;
    let mut stranger = scene.agent("stranger")?;
    let rano = scene.observe_every(1000, &[])?;
    stranger.short_connections(scene.tcp, 20, Duration::from_millis(1))?;
    scene.let_it_look(&rano)?;
    let finished = rano.interrupt()?;
    finished.expect_code(0)?;
    let database = scene.database()?;
    ensure!(database.count("SELECT count(*) FROM events WHERE pid IS NULL")? == 0);
    // A poll may have met one of them.
    ensure!(database.count("SELECT unattributed FROM sessions")? >= 19, "{finished:#?}");
    Ok(())
}

/// Waits until no socket in the namespace of `pid` is on its way to its end: a last segment that the machine dropped in
/// the rush is sent again only a fifth of a second later.
fn all_destroyed(pid: u32) -> Result<()> {
    // FIN_WAIT1, LAST_ACK and CLOSING (include/net/tcp_states.h); mini-sockets are not waited for.
    const ENDING: [&str; 3] = ["04", "09", "0B"];
    let deadline = Instant::now() + PATIENCE;
    loop {
        let table = std::fs::read_to_string(format!("/proc/{pid}/net/tcp"))?;
        let states = table.lines().filter_map(|line| line.split_ascii_whitespace().nth(3));
        if states.filter(|state| ENDING.contains(state)).count() == 0 {
            return Ok(());
        }
        ensure!(Instant::now() < deadline, "sockets do not end");
        std::thread::yield_now();
    }
}

/// Both ends of each connection are in the namespace, and the kernel tells of each: what was told, plus what could not
/// be told, is all there was.
fn five_thousand_closed_at_once_are_seen_or_counted_as_lost() -> Result<()> {
    const COUNT: usize = 5000;
    let mut scene = Scene::new(User::Ordinary)?;
    let mut server = Actor::start(&scene.place, "server")?;
    let address = server.serve(Transport::Tcp, "127.0.0.1:0", Service::Keep)?;
    let mut stranger = scene.agent("stranger")?;
    // Polls only at the beginning and at the end, so that all is known by notification.
    let rano = scene.observe_every(
        600_000,
        &[
            "--include-unattributed",
            "--include-listening",
            "--notify-buffer",
            "0",
            "--db-queue-max",
            "100000",
        ],
    )?;
    let tuples = stranger.hold(address, COUNT)?;
    stranger.close_held()?;
    server.drop_accepted(COUNT)?;
    all_destroyed(server.pid())?;
    rano.interrupt()?.expect_code(0)?;

    let database = scene.database()?;
    let ports: HashSet<_> = tuples.iter().map(|tuple| tuple.local.port()).collect();
    let listed = ports.iter().map(u16::to_string).collect::<Vec<_>>().join(",");
    let told = database.count(&format!(
        "SELECT count(*) FROM events WHERE event = 'close' AND pid IS NULL \
         AND (local_port IN ({listed}) OR remote_port IN ({listed}))"
    ))?;
    let lost = database.count("SELECT notifications_lost + opened_unwatched FROM sessions")?;
    let kinds = database.text(
        "SELECT group_concat(counted) FROM \
         (SELECT event || ' ' || coalesce(pid, '-') || ' ' || count(*) AS counted FROM events GROUP BY event, pid)",
    )?;
    ensure!(
        told + lost == i64::try_from(2 * COUNT)?,
        "told of {told} ({kinds}), lost {lost}, of {}",
        2 * COUNT
    );
    Ok(())
}

fn five_thousand_observed_ones_all_get_their_close() -> Result<()> {
    const COUNT: usize = 5000;
    let mut scene = Scene::new(User::Ordinary)?;
    let mut server = Actor::start(&scene.place, "server")?;
    let address = server.serve(Transport::Tcp, "127.0.0.1:0", Service::Keep)?;
    let mut claude = scene.agent("claude")?;
    claude.hold(address, COUNT)?;
    let rano = scene.observe(&[])?;
    scene.let_it_look(&rano)?;
    claude.close_held()?;
    server.drop_accepted(COUNT)?;
    scene.let_it_look(&rano)?;
    rano.interrupt()?.expect_code(0)?;
    let database = scene.database()?;
    for kind in ["connect", "close"] {
        let query = format!("SELECT count(*) FROM events WHERE event = '{kind}' AND pid = {}", claude.pid());
        ensure!(database.count(&query)? == i64::try_from(COUNT)?, "{kind}: {}", database.count(&query)?);
    }
    Ok(())
}

/// Messages that found no room in the netlink sockets of a process's first thread.
fn netlink_drops(pid: u32) -> Result<u64> {
    let table = std::fs::read_to_string(format!("/proc/{pid}/net/netlink"))?;
    let fields = table.lines().map(|line| line.split_ascii_whitespace().collect::<Vec<_>>());
    let own = fields.filter(|fields| fields.get(2) == Some(&pid.to_string().as_str()));
    own.map(|fields| Ok(fields.get(8).context("no column of drops")?.parse::<u64>()?)).sum()
}

/// While rano does not read, more end than the kernel can keep notifications of; what is open is right afterwards.
fn ends_whose_notification_was_lost_are_found_by_polling() -> Result<()> {
    let mut scene = Scene::new(User::Ordinary)?;
    let datagrams = scene.server.serve(Transport::Udp, "127.0.0.1:0", Service::Answer)?;
    let mut claude = scene.agent("claude")?;
    let mut stranger = scene.agent("stranger")?;
    let rano = scene.observe(&["--notify-buffer", "0"])?;
    let mut held = Vec::new();
    for (transport, to) in [(Transport::Tcp, scene.tcp), (Transport::Udp, datagrams)] {
        for _ in 0..10 {
            held.push(claude.connect(transport, to)?);
        }
    }
    for &(_, tuple) in &held {
        rano.wait_for_event("connect", tuple)?;
    }
    rano.stop()?;
    stranger.short_connections(scene.tcp, 1000, Duration::ZERO)?;
    // The kernel makes them on a workqueue.
    wait_until("notifications find no room", || Ok(netlink_drops(rano.pid())? > 0))?;
    for &(connection, _) in &held {
        claude.close(connection, Ending::Reset)?;
    }
    rano.signal(Signal::CONT)?;
    for &(_, tuple) in &held {
        rano.wait_for_event("close", tuple)?;
    }
    rano.interrupt()?.expect_code(0)?;
    ensure!(scene.database()?.count("SELECT notifications_lost FROM sessions")? > 0, "all were told");
    let open = format!(
        "SELECT sum(event = 'connect') - sum(event = 'close') FROM events WHERE pid = {}",
        claude.pid()
    );
    ensure!(scene.database()?.count(&open)? == 0, "something is left open");
    Ok(())
}
