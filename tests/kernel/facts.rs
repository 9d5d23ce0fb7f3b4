//! What is told besides that there was a connection: bytes and local ends of datagrams, listeners and accepts, why a
//! connect got nowhere. On a rung that cannot know, that it is left out.

use std::net::SocketAddr;

use anyhow::{Result, ensure};

use crate::support::actor::{Actor, Ending, Service, Transport, Tuple};
use crate::support::database::EventRow;
use crate::support::rano::Rano;
use crate::support::scene::Scene;

crate::tests![
    a_connected_datagram_socket_has_its_bytes_and_its_local_end,
    an_unconnected_datagram_socket_has_the_bytes_of_each_flow,
    listeners_and_accepts_are_told_when_asked_for,
    an_older_listener_is_known,
    without_being_asked_accepts_are_not_told,
    a_connect_that_found_no_route_has_its_reason_where_functions_are_hooked,
    unix_sockets_are_found_beside_the_kernel_programs,
];

fn observe(scene: &mut Scene, more: &[&str]) -> Result<Rano> {
    let arguments: Vec<&str> = ["--source", "ebpf"].iter().chain(more).copied().collect();
    scene.observe(&arguments)
}

fn end(scene: &mut Scene, rano: Rano) -> Result<()> {
    scene.let_it_look(&rano)?;
    rano.interrupt()?.expect_code(0)?;
    Ok(())
}

/// What the session says it did without.
fn reason(scene: &Scene) -> Result<String> {
    scene.database()?.text("SELECT coalesce(source_reason, '') FROM sessions")
}

fn bytes(row: &EventRow) -> (Option<i64>, Option<i64>) {
    (row.bytes_sent, row.bytes_recv)
}

fn a_connected_datagram_socket_has_its_bytes_and_its_local_end() -> Result<()> {
    let mut scene = crate::scene()?;
    let server = scene.server.serve(Transport::Udp, "127.0.0.1:0", Service::Answer)?;
    let mut claude = scene.agent("claude")?;
    let rano = observe(&mut scene, &[])?;
    let (connection, tuple) = claude.connect(Transport::Udp, server)?;
    let totals = claude.exchange(connection, 300, 200)?;
    claude.close(connection, Ending::InOrder)?;
    rano.wait_for_event("close", tuple)?;
    end(&mut scene, rano)?;
    // The connect may have been told before the first datagram, without its local end.
    let rows = scene.database()?.events_of_pid(claude.pid())?;
    let [connect, close] = &rows[..] else { anyhow::bail!("{rows:#?}") };
    ensure!((&*connect.event, &*close.event) == ("connect", "close"), "{rows:#?}");
    let expected = if reason(&scene)?.contains("the bytes of datagrams") {
        (None, None)
    } else {
        (Some(totals.sent.try_into()?), Some(totals.received.try_into()?))
    };
    ensure!(bytes(close) == expected, "{rows:#?} {totals:?}");
    Ok(())
}

fn an_unconnected_datagram_socket_has_the_bytes_of_each_flow() -> Result<()> {
    let mut scene = crate::scene()?;
    let server = scene.server.serve(Transport::Udp, "127.0.0.1:0", Service::Answer)?;
    let mut claude = scene.agent("claude")?;
    let rano = observe(&mut scene, &[])?;
    let (connection, tuple) = claude.send_to(server)?;
    claude.close(connection, Ending::InOrder)?;
    end(&mut scene, rano)?;
    let database = scene.database()?;
    let rows = database.events_of_pid(claude.pid())?;
    let [connect, close] = &rows[..] else { anyhow::bail!("{rows:#?} {tuple:?}") };
    ensure!((&*connect.event, &*close.event) == ("connect", "close"), "{rows:#?}");
    let ports = format!("SELECT count(*) FROM events WHERE pid = {} AND local_port > 0", claude.pid());
    ensure!(database.count(&ports)? == 2, "the port is known from the first datagram on");
    if !reason(&scene)?.contains("the bytes of datagrams") {
        ensure!(close.bytes_sent.is_some_and(|sent| sent > 0), "{rows:#?}");
    }
    Ok(())
}

fn listeners_and_accepts_are_told_when_asked_for() -> Result<()> {
    let mut scene = crate::scene()?;
    let mut claude = scene.agent("claude")?;
    let rano = observe(&mut scene, &["--include-listening"])?;
    let address = claude.serve(Transport::Tcp, "127.0.0.1:0", Service::Answer)?;
    let mut client = scene.agent("client")?;
    let (connection, tuple) = client.connect(Transport::Tcp, address)?;
    let served = Tuple { local: tuple.remote, remote: tuple.local };
    rano.wait_for_event("accept", served)?;
    let totals = client.exchange(connection, 3000, 7000)?;
    client.close(connection, Ending::InOrder)?;
    rano.wait_for_event("close", served)?;
    end(&mut scene, rano)?;
    let database = scene.database()?;
    let rows = database.events_of(Transport::Tcp, served)?;
    let [accept, close] = &rows[..] else { anyhow::bail!("{rows:#?}") };
    ensure!((&*accept.event, &*close.event) == ("accept", "close"), "{rows:#?}");
    let bytes = (Some(totals.received.try_into()?), Some(totals.sent.try_into()?));
    ensure!((close.bytes_sent, close.bytes_recv) == bytes && close.duration_ms.is_some(), "{rows:#?}");
    ensure!(accept.pid == Some(claude.pid()), "{rows:#?}");
    let inherited = reason(&scene)?.contains("who accepts");
    ensure!(accept.owner_quality == if inherited { "inherited" } else { "exact" }, "{rows:#?}");
    let query = format!(
        "SELECT count(*) FROM events \
         WHERE event = 'listen' AND owner_quality = 'exact' AND local_port = {} AND pid = {}",
        address.port(),
        claude.pid()
    );
    ensure!(database.count(&query)? == 1, "the listener");
    Ok(())
}

fn an_older_listener_is_known() -> Result<()> {
    let mut scene = crate::scene()?;
    let mut claude = scene.agent("claude")?;
    let address = claude.serve(Transport::Tcp, "127.0.0.1:0", Service::Answer)?;
    let rano = observe(&mut scene, &["--include-listening"])?;
    let mut client = scene.agent("client")?;
    scene.let_it_look(&rano)?;
    let (connection, tuple) = client.connect(Transport::Tcp, address)?;
    client.close(connection, Ending::InOrder)?;
    rano.wait_for_event("accept", Tuple { local: tuple.remote, remote: tuple.local })?;
    end(&mut scene, rano)
}

fn without_being_asked_accepts_are_not_told() -> Result<()> {
    let mut scene = crate::scene()?;
    let mut claude = scene.agent("claude")?;
    let rano = observe(&mut scene, &[])?;
    let address = claude.serve(Transport::Tcp, "127.0.0.1:0", Service::Answer)?;
    let mut client = scene.agent("client")?;
    client.connect(Transport::Tcp, address)?;
    end(&mut scene, rano)?;
    let query = format!("SELECT count(*) FROM events WHERE pid = {}", claude.pid());
    ensure!(scene.database()?.count(&query)? == 0);
    Ok(())
}

/// Nothing but loopback is there.
fn a_connect_that_found_no_route_has_its_reason_where_functions_are_hooked() -> Result<()> {
    let mut scene = crate::scene()?;
    let mut claude = scene.agent("claude")?;
    let rano = observe(&mut scene, &[])?;
    for to in ["192.0.2.1:7", "[2001:db8::1]:7", "[::ffff:192.0.2.1]:7"] {
        let to: SocketAddr = to.parse()?;
        ensure!(claude.connect(Transport::Tcp, to).is_err(), "{to} has no route");
    }
    end(&mut scene, rano)?;
    let query = format!(
        "SELECT group_concat(event || ' ' || remote_ip || ' ' || coalesce(error, '-')) FROM events \
         WHERE remote_port = 7 AND pid = {}",
        claude.pid()
    );
    let found = scene.database()?.text(&query)?;
    let error = if reason(&scene)?.contains("found no route") { "-" } else { "ENETUNREACH" };
    let expected = format!("fail 192.0.2.1 {error},fail 2001:db8::1 {error},fail 192.0.2.1 {error}");
    ensure!(found == expected, "{found}");
    Ok(())
}

fn unix_sockets_are_found_beside_the_kernel_programs() -> Result<()> {
    let mut scene = crate::scene()?;
    let path = scene.directory().join("a.sock");
    let mut server = Actor::start(&scene.place, "server")?;
    server.serve_unix(&path)?;
    let mut claude = scene.agent("claude")?;
    let rano = observe(&mut scene, &["--include-unix"])?;
    claude.connect_unix(&path)?;
    scene.let_it_look(&rano)?;
    end(&mut scene, rano)?;
    let query = format!(
        "SELECT count(*) FROM events WHERE proto = 'unix' AND event = 'connect' AND pid = {}",
        claude.pid()
    );
    ensure!(scene.database()?.count(&query)? == 1);
    Ok(())
}
