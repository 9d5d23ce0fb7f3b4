//! Transports beside TCP and UDP: that a watched process uses one is told, with where to, if that is known, and how
//! many bytes.

use anyhow::{Result, ensure};

use crate::support::namespace::User;
use crate::support::scene::Scene;
use crate::support::trial::skip;
use crate::support::{PATIENCE, wait_for_end};
use crate::talker::{Talk, play, stay};

crate::tests![
    icmp_is_told,
    raw_ip_is_told,
    udp_lite_is_told,
    frames_are_told,
    sctp_is_told,
    dccp_is_told,
    vsock_is_told,
    tipc_is_told,
    rds_is_told,
    other_transports_can_be_left_out,
    polling_shows_those_that_last,
];

const EBPF: [&str; 3] = ["--source", "ebpf", "--no-dns"];

/// Protocol, remote address and port, as far as there are any, bytes sent and received of one that ended.
type Told = (String, Option<String>, Option<u16>, i64, i64);
/// Bytes sent and received.
type Exchanged = Vec<(i64, i64)>;

fn told(talk: Talk, arguments: &[&str]) -> Result<(Vec<Told>, Exchanged)> {
    let mut scene = crate::scene()?;
    let rano = scene.observe(&[&EBPF[..], arguments].concat())?;
    let (pid, exchanged) = play(&scene.place, talk)?;
    scene.let_it_look(&rano)?;
    rano.interrupt()?.expect_code(0)?;
    seen(&scene)?;
    let query = format!(
        "SELECT json_group_array(json_array(proto, remote_ip, remote_port, coalesce(bytes_sent, -1), \
         coalesce(bytes_recv, -1))) FROM (SELECT * FROM events WHERE event = 'close' AND pid = {pid} ORDER BY id)"
    );
    let expected = exchanged.into_iter().map(|(_, sent, received)| (sent, received)).collect();
    Ok((serde_json::from_str(&scene.database()?.text(&query)?)?, expected))
}

/// Skips where no hook sees other transports.
fn seen(scene: &Scene) -> Result<()> {
    let reason = scene.database()?.text("SELECT coalesce(source_reason, '') FROM sessions")?;
    let is_unseen =
        reason.contains("transports beside TCP and UDP") && !reason.contains("left out: transports");
    if is_unseen { Err(skip(reason)) } else { Ok(()) }
}

/// It is one connection of that protocol, to that address, with its bytes.
fn check(talk: Talk, protocol: &str, remote: Option<&str>) -> Result<()> {
    let (told, expected) = told(talk, &[])?;
    let told: Vec<_> = told.into_iter().filter(|(_, _, _, sent, _)| *sent > 0).collect();
    let [(proto, ip, _, sent, received)] = &told[..] else { anyhow::bail!("{talk:?}: {told:?}") };
    ensure!(proto == protocol && ip.as_deref() == remote, "{told:?}");
    ensure!([(*sent, *received)] == expected[..], "{told:?}, not {expected:?}");
    Ok(())
}

fn icmp_is_told() -> Result<()> {
    check(Talk::IcmpRaw, "icmp", Some("127.0.0.1"))?;
    check(Talk::Ping, "icmp", Some("127.0.0.1"))
}

fn raw_ip_is_told() -> Result<()> {
    check(Talk::RawProtocol, "89", Some("127.0.0.9"))?;
    check(Talk::RawHeader, "raw", Some("127.0.0.9"))
}

fn udp_lite_is_told() -> Result<()> {
    check(Talk::UdpLite, "udplite", Some("127.0.0.1"))?;
    check(Talk::UdpLiteConnected, "udplite", Some("127.0.0.1"))
}

fn frames_are_told() -> Result<()> {
    check(Talk::Packet, "packet", None)
}

/// Among what both ends of an exchange with itself show is the end that asked, with its bytes.
fn check_exchange(talk: Talk, protocol: &str, remote: Option<&str>) -> Result<()> {
    let (told, expected) = told(talk, &[])?;
    ensure!(told.iter().all(|(proto, ..)| proto == protocol), "{talk:?}: {told:?}");
    let is_it = |(_, ip, _, sent, received): &Told| {
        (ip.is_none() || ip.as_deref() == remote) && [(*sent, *received)] == expected[..]
    };
    ensure!(told.iter().any(is_it), "{talk:?}: {told:?}, not {expected:?} with {remote:?}");
    Ok(())
}

fn sctp_is_told() -> Result<()> {
    check_exchange(Talk::Sctp, "sctp", Some("127.0.0.1"))?;
    check_exchange(Talk::SctpToMany, "sctp", Some("127.0.0.1"))
}

fn dccp_is_told() -> Result<()> {
    check_exchange(Talk::Dccp, "dccp", Some("127.0.0.1"))
}

fn vsock_is_told() -> Result<()> {
    check_exchange(Talk::Vsock, "vsock", None)
}

fn tipc_is_told() -> Result<()> {
    check_exchange(Talk::Tipc, "tipc", None)
}

fn rds_is_told() -> Result<()> {
    check_exchange(Talk::Rds, "rds", None)
}

fn other_transports_can_be_left_out() -> Result<()> {
    let (told, _) = told(Talk::Ping, &["--no-other"])?;
    ensure!(told.is_empty(), "{told:?}");
    Ok(())
}

/// What is in `/proc/net` while it lasts, and its end; of datagram sockets those that may send.
fn polling_shows_those_that_last() -> Result<()> {
    let mut scene = Scene::new(User::Root)?;
    let rano = scene.observe(&["--source", "proc", "--no-dns"])?;
    let mut player = stay(&scene.place, Talk::Hold)?;
    let pid = player.id();
    for (kind, protocol) in
        [("connect", "89"), ("connect", "packet"), ("connect", "udp"), ("close", "packet")]
    {
        if kind == "close" {
            drop(player.stdin.take());
        }
        let (kind, of, column) = (format!(" {kind} "), format!("| pid={pid} |"), format!("| {protocol} |"));
        let is_it = |line: &str| line.contains(&kind) && line.contains(&of) && line.contains(&column);
        rano.stdout.wait_for(&format!("{kind} of {protocol}"), is_it)?;
    }
    ensure!(wait_for_end(&player, PATIENCE)?, "the player does not end");
    player.wait()?;
    scene.let_it_look(&rano)?;
    rano.interrupt()?.expect_code(0)?;
    let query = format!("SELECT count(*) FROM events WHERE pid = {pid} AND event = 'connect'");
    ensure!(scene.database()?.count(&query)? == 3, "a socket that is connected to port 0 is nothing");
    Ok(())
}
