//! Single connections of every kind, each with what is to be seen of it.

use std::net::{Ipv6Addr, SocketAddr};
use std::process::Command;

use anyhow::{Result, ensure};

use crate::support::actor::{Actor, Ending, Service, Transport};
use crate::support::lookups::program;
use crate::support::rano::{RUNG, Rano};
use crate::support::scene::Scene;

crate::tests![
    bytes_and_owner_are_exact,
    a_refused_attempt_is_a_fail_with_its_reason,
    an_attempt_without_a_route_is_a_fail,
    ipv6_is_seen,
    a_link_local_end_has_its_zone,
    a_mapped_address_is_ipv4,
    a_client_in_another_network_namespace_is_seen,
    a_stranger_that_becomes_an_agent_is_seen_from_then_on,
    an_older_connection_gets_its_end,
    an_older_connection_in_another_network_namespace_gets_its_end,
    datagrams_make_flows,
];

const EBPF: [&str; 2] = ["--source", "ebpf"];

fn end(scene: &mut Scene, rano: Rano) -> Result<()> {
    scene.let_it_look(&rano)?;
    rano.interrupt()?.expect_code(0)?;
    Ok(())
}

fn bytes_and_owner_are_exact() -> Result<()> {
    let mut scene = crate::scene()?;
    let mut claude = scene.agent("claude")?;
    let rano = scene.observe(&EBPF)?;
    let (connection, tuple) = claude.connect(Transport::Tcp, scene.tcp)?;
    let totals = claude.exchange(connection, 3000, 70_000)?;
    claude.close(connection, Ending::InOrder)?;
    rano.wait_for_event("close", tuple)?;
    end(&mut scene, rano)?;
    let rows = scene.database()?.events_of(Transport::Tcp, tuple)?;
    let [connect, close] = &rows[..] else { anyhow::bail!("{rows:#?}") };
    ensure!((&*connect.event, &*close.event) == ("connect", "close"), "{rows:#?}");
    ensure!(connect.pid == Some(claude.pid()) && connect.owner_quality == "exact", "{rows:#?}");
    let rung = std::env::var(RUNG).unwrap_or_default();
    let is_taken = connect.source.strip_prefix("ebpf-").is_some_and(|taken| rung.is_empty() || rung == taken);
    ensure!(is_taken && !connect.preexisting, "{rows:#?}");
    let bytes = (close.bytes_sent, close.bytes_recv);
    ensure!(
        bytes == (Some(totals.sent.try_into()?), Some(totals.received.try_into()?)),
        "{rows:#?} {totals:?}"
    );
    Ok(())
}

fn a_refused_attempt_is_a_fail_with_its_reason() -> Result<()> {
    let mut scene = crate::scene()?;
    let mut claude = scene.agent("claude")?;
    let rano = scene.observe(&EBPF)?;
    ensure!(claude.connect(Transport::Tcp, "127.0.0.1:1".parse()?).is_err(), "nobody listens there");
    end(&mut scene, rano)?;
    let query = format!(
        "SELECT group_concat(event || ' ' || coalesce(error, '-')) FROM events WHERE remote_port = 1 AND pid = {}",
        claude.pid()
    );
    let found = scene.database()?.text(&query)?;
    ensure!(found == "fail ECONNREFUSED", "{found}");
    Ok(())
}

/// Nothing but loopback is there.
fn an_attempt_without_a_route_is_a_fail() -> Result<()> {
    let mut scene = crate::scene()?;
    let mut claude = scene.agent("claude")?;
    let rano = scene.observe(&EBPF)?;
    for to in ["192.0.2.1:7", "[2001:db8::1]:7"] {
        ensure!(claude.connect(Transport::Tcp, to.parse()?).is_err(), "{to} has no route");
    }
    end(&mut scene, rano)?;
    let query = format!(
        "SELECT group_concat(event || ' ' || remote_ip) FROM events WHERE remote_port = 7 AND pid = {}",
        claude.pid()
    );
    let found = scene.database()?.text(&query)?;
    ensure!(found == "fail 192.0.2.1,fail 2001:db8::1", "{found}");
    Ok(())
}

fn ipv6_is_seen() -> Result<()> {
    let mut scene = crate::scene()?;
    let server = scene.server.serve(Transport::Tcp, "[::1]:0", Service::Answer)?;
    let mut claude = scene.agent("claude")?;
    let rano = scene.observe(&EBPF)?;
    let (connection, tuple) = claude.connect(Transport::Tcp, server)?;
    claude.close(connection, Ending::Reset)?;
    rano.wait_for_event("close", tuple)?;
    end(&mut scene, rano)?;
    let rows = scene.database()?.events_of(Transport::Tcp, tuple)?;
    ensure!(rows.len() == 2 && rows.iter().all(|row| row.pid == Some(claude.pid())), "{rows:#?}");
    Ok(())
}

/// Both ends, as the number of the interface.
fn a_link_local_end_has_its_zone() -> Result<()> {
    let mut scene = crate::scene()?;
    let mut command = Command::new(program("ip")?);
    command.args(["-6", "address", "add", "fe80::99/64", "dev", "lo", "nodad"]);
    scene.place.apply(&mut command);
    ensure!(command.status()?.success(), "ip");
    let server = scene.server.serve(Transport::Tcp, "[fe80::99%1]:0", Service::Answer)?;
    let mut claude = scene.agent("claude")?;
    let rano = scene.observe(&EBPF)?;
    let (connection, tuple) = claude.connect(Transport::Tcp, server)?;
    ensure!(tuple.remote.to_string().starts_with("[fe80::99%1]:"), "{tuple:?}");
    rano.wait_for_event("connect", tuple)?;
    claude.close(connection, Ending::InOrder)?;
    rano.wait_for_event("close", tuple)?;
    end(&mut scene, rano)?;
    let stored = "SELECT count(*) FROM events WHERE local_ip = 'fe80::99%1' AND remote_ip = 'fe80::99%1'";
    ensure!(scene.database()?.count(stored)? == 2, "the store's rows have it too");
    Ok(())
}

fn a_mapped_address_is_ipv4() -> Result<()> {
    let mut scene = crate::scene()?;
    let mut claude = scene.agent("claude")?;
    let rano = scene.observe(&EBPF)?;
    let mapped = SocketAddr::from((Ipv6Addr::from(0xffff_7f00_0001_u128), scene.tcp.port()));
    let (connection, tuple) = claude.connect(Transport::Tcp, mapped)?;
    claude.close(connection, Ending::InOrder)?;
    end(&mut scene, rano)?;
    let query = format!(
        "SELECT count(*) FROM events \
         WHERE local_ip = '127.0.0.1' AND remote_ip = '127.0.0.1' AND local_port = {} AND pid = {}",
        tuple.local.port(),
        claude.pid()
    );
    ensure!(scene.database()?.count(&query)? == 2, "{tuple:?}");
    Ok(())
}

fn a_client_in_another_network_namespace_is_seen() -> Result<()> {
    let mut scene = crate::scene()?;
    let elsewhere = scene.place.elsewhere()?;
    let mut server = Actor::start(&elsewhere, "server")?;
    let address = server.serve(Transport::Tcp, "127.0.0.1:0", Service::Answer)?;
    let mut claude = Actor::start(&elsewhere, "claude")?;
    let rano = scene.observe(&EBPF)?;
    let (connection, tuple) = claude.connect(Transport::Tcp, address)?;
    claude.close(connection, Ending::InOrder)?;
    rano.wait_for_event("close", tuple)?;
    end(&mut scene, rano)?;
    let database = scene.database()?;
    let rows = database.events_of(Transport::Tcp, tuple)?;
    ensure!(rows.len() == 2 && rows.iter().all(|row| row.pid == Some(claude.pid())), "{rows:#?}");
    let namespace = std::fs::read_link(format!("/proc/{}/ns/net", claude.pid()))?;
    let query = format!("SELECT DISTINCT netns FROM events WHERE pid = {}", claude.pid());
    let expected = format!("net:[{}]", database.count(&query)?);
    ensure!(namespace.to_string_lossy() == expected, "{} {expected}", namespace.display());
    Ok(())
}

fn a_stranger_that_becomes_an_agent_is_seen_from_then_on() -> Result<()> {
    let mut scene = crate::scene()?;
    let mut stranger = scene.agent("stranger")?;
    let rano = scene.observe(&EBPF)?;
    let (_, before) = stranger.connect(Transport::Tcp, scene.tcp)?;
    // By now its verdict is known to be that it is ignored.
    scene.let_it_look(&rano)?;
    let (_, ignored) = stranger.connect(Transport::Tcp, scene.tcp)?;
    stranger.exec(&stranger.myself(), "claude")?;
    let (_, after) = stranger.connect(Transport::Tcp, scene.tcp)?;
    end(&mut scene, rano)?;
    let database = scene.database()?;
    ensure!(database.events_of(Transport::Tcp, before)?.is_empty());
    ensure!(database.events_of(Transport::Tcp, ignored)?.is_empty());
    let rows = database.events_of(Transport::Tcp, after)?;
    let [connect] = &rows[..] else { anyhow::bail!("{rows:#?}") };
    ensure!(connect.pid == Some(stranger.pid()) && connect.comm.as_deref() == Some("claude"), "{rows:#?}");
    Ok(())
}

fn an_older_connection_gets_its_end() -> Result<()> {
    let mut scene = crate::scene()?;
    let mut claude = scene.agent("claude")?;
    let (connection, tuple) = claude.connect(Transport::Tcp, scene.tcp)?;
    let rano = scene.observe(&EBPF)?;
    rano.wait_for_event("connect", tuple)?;
    let totals = claude.exchange(connection, 200, 300)?;
    claude.close(connection, Ending::InOrder)?;
    rano.wait_for_event("close", tuple)?;
    end(&mut scene, rano)?;
    let rows = scene.database()?.events_of(Transport::Tcp, tuple)?;
    let [connect, close] = &rows[..] else { anyhow::bail!("{rows:#?}") };
    ensure!(connect.preexisting && close.preexisting && close.duration_ms.is_none(), "{rows:#?}");
    ensure!(close.bytes_sent == Some(totals.sent.try_into()?), "{rows:#?} {totals:?}");
    Ok(())
}

fn an_older_connection_in_another_network_namespace_gets_its_end() -> Result<()> {
    let mut scene = crate::scene()?;
    let elsewhere = scene.place.elsewhere()?;
    let mut server = Actor::start(&elsewhere, "server")?;
    let address = server.serve(Transport::Tcp, "127.0.0.1:0", Service::Answer)?;
    let mut claude = Actor::start(&elsewhere, "claude")?;
    let (connection, tuple) = claude.connect(Transport::Tcp, address)?;
    let rano = scene.observe(&EBPF)?;
    rano.wait_for_event("connect", tuple)?;
    claude.close(connection, Ending::InOrder)?;
    rano.wait_for_event("close", tuple)?;
    end(&mut scene, rano)
}

fn datagrams_make_flows() -> Result<()> {
    let mut scene = crate::scene()?;
    let server = scene.server.serve(Transport::Udp, "127.0.0.1:0", Service::Answer)?;
    let mut claude = scene.agent("claude")?;
    let rano = scene.observe(&EBPF)?;
    let (connection, _) = claude.connect(Transport::Udp, server)?;
    claude.exchange(connection, 100, 100)?;
    claude.close(connection, Ending::InOrder)?;
    end(&mut scene, rano)?;
    let query = format!(
        "SELECT group_concat(event) FROM events WHERE proto = 'udp' AND remote_port = {} AND pid = {}",
        server.port(),
        claude.pid()
    );
    let found = scene.database()?.text(&query)?;
    ensure!(found == "connect,close", "{found}");
    Ok(())
}
