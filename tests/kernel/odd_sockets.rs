//! Connections that come about in unusual ways, each with what is seen of it.

use std::net::SocketAddr;
use std::process::Command;

use anyhow::{Result, ensure};

use crate::odd_client::{Client, Way};
use crate::support::actor::{Actor, Service, Transport};
use crate::support::database::EventRow;
use crate::support::rano::Rano;
use crate::support::scene::Scene;
use crate::support::trial::skip;
use crate::support::wait_until;

crate::tests![
    a_socket_that_does_not_wait_is_seen,
    a_refused_attempt_that_does_not_wait_fails_with_its_reason,
    an_attempt_that_nobody_answers_times_out,
    routes_that_lead_nowhere_are_fails,
    fast_open_is_one_connection,
    a_connection_made_by_the_first_write_is_one_connection,
    multipath_is_seen,
    io_uring_is_seen,
    what_sendfile_sends_is_counted,
    one_call_to_two_places_is_two_flows,
    an_inherited_socket_is_its_openers_and_ends_with_the_last_descriptor,
    a_passed_socket_is_its_openers,
    a_socket_that_a_stranger_opened_is_the_strangers,
    a_thread_goes_by_the_name_of_its_process,
    a_process_namespace_hides_nobody,
    a_child_of_posix_spawn_acts_for_its_agent,
    a_process_that_takes_an_agents_name_is_one_from_then_on,
    an_agent_that_a_shell_becomes_is_known_from_its_first_connection,
    connections_made_while_rano_starts_are_seen_once,
    a_pid_that_is_used_again_is_another_process,
];

const EBPF: [&str; 2] = ["--source", "ebpf"];

/// What was stored of a connection, once rano has ended.
fn rows_of(scene: &mut Scene, rano: Rano, client: Client) -> Result<Vec<EventRow>> {
    let tuple = client.tuple()?;
    client.end()?;
    rano.wait_for_event("close", tuple)?;
    scene.let_it_look(&rano)?;
    rano.interrupt()?.expect_code(0)?;
    scene.database()?.events_of(Transport::Tcp, tuple)
}

/// One connection, from `comm`, with an exact owner and exact bytes.
fn is_whole(rows: &[EventRow], client_pid: u32, comm: &str, bytes: (u64, u64)) -> Result<()> {
    let [connect, close] = rows else { anyhow::bail!("{rows:#?}") };
    ensure!((&*connect.event, &*close.event) == ("connect", "close"), "{rows:#?}");
    for row in rows {
        ensure!(row.pid == Some(client_pid) && row.comm.as_deref() == Some(comm), "{client_pid}: {row:#?}");
        ensure!(row.owner_quality == "exact" && row.provider == "anthropic", "{row:#?}");
        ensure!(row.source.starts_with("ebpf-") && !row.preexisting, "{row:#?}");
    }
    let expected = (Some(i64::try_from(bytes.0)?), Some(i64::try_from(bytes.1)?));
    ensure!((close.bytes_sent, close.bytes_recv) == expected, "{expected:?}: {close:#?}");
    Ok(())
}

fn whole(name: &str, way: Way) -> Result<Vec<EventRow>> {
    let mut scene = crate::scene()?;
    let rano = scene.observe(&EBPF)?;
    let client = Client::play(&scene.place, name, way, scene.tcp)?;
    let done = client.done.clone();
    let rows = rows_of(&mut scene, rano, client)?;
    is_whole(&rows, done.pid, "claude", (done.sent, done.received))?;
    Ok(rows)
}

fn a_socket_that_does_not_wait_is_seen() -> Result<()> {
    whole("claude", Way::NonBlocking).map(drop)
}

fn fast_open_is_one_connection() -> Result<()> {
    whole("claude", Way::FastOpen).map(drop)
}

fn a_connection_made_by_the_first_write_is_one_connection() -> Result<()> {
    whole("claude", Way::FastOpenConnect).map(drop)
}

fn io_uring_is_seen() -> Result<()> {
    whole("claude", Way::IoUring).map(drop)
}

fn what_sendfile_sends_is_counted() -> Result<()> {
    whole("claude", Way::SendFile).map(drop)
}

fn a_thread_goes_by_the_name_of_its_process() -> Result<()> {
    whole("claude", Way::Thread).map(drop)
}

fn a_process_namespace_hides_nobody() -> Result<()> {
    whole("launcher", Way::PidNamespace).map(drop)
}

fn an_agent_that_a_shell_becomes_is_known_from_its_first_connection() -> Result<()> {
    let rows = whole("claude", Way::BecomeByShell)?;
    ensure!(
        rows.iter().all(|row| row.cmdline.as_deref().unwrap_or_default().contains("claude")),
        "{rows:#?}"
    );
    Ok(())
}

fn an_inherited_socket_is_its_openers_and_ends_with_the_last_descriptor() -> Result<()> {
    // The opener has closed its own when the child uses it, and that is no end.
    whole("claude", Way::Inherit).map(drop)
}

fn a_passed_socket_is_its_openers() -> Result<()> {
    whole("claude", Way::Pass).map(drop)
}

fn a_process_that_takes_an_agents_name_is_one_from_then_on() -> Result<()> {
    whole("stranger", Way::Rename).map(drop)
}

/// What the agent makes of a socket that somebody else opened is not the agent's connection: the opener's is what the
/// kernel programs know.
fn a_socket_that_a_stranger_opened_is_the_strangers() -> Result<()> {
    let mut scene = crate::scene()?;
    let rano = scene.observe(&EBPF)?;
    let client = Client::play(&scene.place, "stranger", Way::Pass, scene.tcp)?;
    let tuple = client.tuple()?;
    client.end()?;
    scene.let_it_look(&rano)?;
    rano.interrupt()?.expect_code(0)?;
    let rows = scene.database()?.events_of(Transport::Tcp, tuple)?;
    ensure!(rows.is_empty(), "{rows:#?}");
    Ok(())
}

fn multipath_is_seen() -> Result<()> {
    let mut scene = crate::scene()?;
    let rano = scene.observe(&EBPF)?;
    let client = Client::play(&scene.place, "claude", Way::MultiPath, scene.tcp)?;
    let pid = client.done.pid;
    let rows = rows_of(&mut scene, rano, client)?;
    let [connect, close] = &rows[..] else { anyhow::bail!("{rows:#?}") };
    ensure!((&*connect.event, &*close.event) == ("connect", "close"), "{rows:#?}");
    ensure!(rows.iter().all(|row| row.pid == Some(pid) && row.owner_quality == "exact"), "{rows:#?}");
    Ok(())
}

fn a_child_of_posix_spawn_acts_for_its_agent() -> Result<()> {
    let mut scene = crate::scene()?;
    let rano = scene.observe(&EBPF)?;
    let client = Client::play(&scene.place, "claude", Way::Spawn, scene.tcp)?;
    let done = client.done.clone();
    let rows = rows_of(&mut scene, rano, client)?;
    is_whole(&rows, done.pid, "fetch", (done.sent, done.received))?;
    let ancestry = rows[0].ancestry_path.as_deref().unwrap_or_default();
    let parent = ancestry.split(',').rev().nth(1).unwrap_or_default();
    ensure!(
        parent.starts_with("claude:") && ancestry.ends_with(&format!("fetch:{}", done.pid)),
        "{ancestry}"
    );
    Ok(())
}

/// Events of a pid, each with its reason, in order.
fn fails_of(scene: &Scene, pid: u32) -> Result<String> {
    scene.database()?.text(&format!(
        "SELECT coalesce(group_concat(event || ' ' || remote_ip || ' ' || coalesce(error, '-')), '') \
         FROM (SELECT * FROM events WHERE pid = {pid} ORDER BY id)"
    ))
}

fn a_refused_attempt_that_does_not_wait_fails_with_its_reason() -> Result<()> {
    let mut scene = crate::scene()?;
    let rano = scene.observe(&EBPF)?;
    let client = Client::play(&scene.place, "claude", Way::NonBlocking, "127.0.0.1:1".parse()?)?;
    ensure!(client.done.errno == Some(libc::ECONNREFUSED), "{:?}", client.done);
    let pid = client.end()?.pid;
    scene.let_it_look(&rano)?;
    rano.interrupt()?.expect_code(0)?;
    let found = fails_of(&scene, pid)?;
    ensure!(found == "fail 127.0.0.1 ECONNREFUSED", "{found}");
    Ok(())
}

fn an_attempt_that_nobody_answers_times_out() -> Result<()> {
    let mut scene = crate::scene()?;
    let nobody = scene.server.serve_nobody()?;
    let rano = scene.observe(&EBPF)?;
    let client = Client::play(&scene.place, "claude", Way::Impatient, nobody)?;
    ensure!(client.done.errno == Some(libc::ETIMEDOUT), "{:?}", client.done);
    let pid = client.end()?.pid;
    scene.let_it_look(&rano)?;
    rano.interrupt()?.expect_code(0)?;
    let found = fails_of(&scene, pid)?;
    ensure!(found == "fail 127.0.0.1 ETIMEDOUT", "{found}");
    Ok(())
}

/// Network, kind of route, what `connect` says.
const NOWHERE: [(&str, &str, &str); 3] = [
    ("192.0.2.1", "unreachable", "EHOSTUNREACH"),
    ("198.51.100.1", "prohibit", "EACCES"),
    ("203.0.113.1", "blackhole", "EINVAL"),
];

fn routes_that_lead_nowhere_are_fails() -> Result<()> {
    let mut scene = crate::scene()?;
    for (to, kind, _) in NOWHERE {
        let mut route = Command::new("ip");
        route.args(["route", "add", kind, to]);
        scene.place.apply(&mut route);
        match route.status() {
            Ok(status) => ensure!(status.success(), "ip route add {kind} {to}"),
            Err(error) => return Err(skip(format!("ip: {error}"))),
        }
    }
    let mut claude = scene.agent("claude")?;
    let rano = scene.observe(&EBPF)?;
    for (to, ..) in NOWHERE {
        let to = SocketAddr::new(to.parse()?, 9);
        ensure!(claude.connect(Transport::Tcp, to).is_err(), "{to} cannot be reached");
    }
    scene.let_it_look(&rano)?;
    rano.interrupt()?.expect_code(0)?;
    let found = fails_of(&scene, claude.pid())?;
    let fails: Vec<&str> = found.split(',').collect();
    ensure!(fails.len() == NOWHERE.len(), "{found}");
    for ((to, _, errno), fail) in NOWHERE.into_iter().zip(fails) {
        // No hook of the lowest rung sees what the call returns.
        let known = [format!("fail {to} {errno}"), format!("fail {to} -")];
        ensure!(known.iter().any(|known| known == fail), "{fail}, not {}", known[0]);
    }
    Ok(())
}

fn one_call_to_two_places_is_two_flows() -> Result<()> {
    let mut scene = crate::scene()?;
    let (first, _second) = neighbours(&mut scene.server)?;
    let rano = scene.observe(&EBPF)?;
    let client = Client::play(&scene.place, "claude", Way::SendSeveral, first)?;
    let (pid, local) = (client.done.pid, client.tuple()?.local.port());
    client.end()?;
    scene.let_it_look(&rano)?;
    rano.interrupt()?.expect_code(0)?;
    let found = scene.database()?.text(&format!(
        "SELECT group_concat(event || (remote_port - {})) FROM (SELECT * FROM events \
         WHERE pid = {pid} AND proto = 'udp' AND local_port = {local} ORDER BY event DESC, remote_port)",
        first.port()
    ))?;
    ensure!(found == "connect0,connect1,close0,close1", "{found}");
    Ok(())
}

/// Two datagram servers on ports next to each other.
pub fn neighbours(server: &mut Actor) -> Result<(SocketAddr, SocketAddr)> {
    for _ in 0..100 {
        let first = server.serve(Transport::Udp, "127.0.0.1:0", Service::Answer)?;
        let Some(port) = first.port().checked_add(1) else { continue };
        let next = format!("127.0.0.1:{port}");
        if let Ok(second) = server.serve(Transport::Udp, &next, Service::Answer) {
            return Ok((first, second));
        }
    }
    anyhow::bail!("no two ports next to each other are free")
}

/// Seeding: what is older is found by looking, what is younger is told, and what is both is one.
fn connections_made_while_rano_starts_are_seen_once() -> Result<()> {
    let scene = crate::scene()?;
    let mut claude = scene.agent("claude")?;
    let mut tuples = claude.hold(scene.tcp, 20)?;
    let settings = ["--stats-interval-ms", "0", "--db-queue-max", "1000000"];
    let rano = scene.launch()?.args(EBPF).args(settings).start()?;
    // Until it has told of what was there before.
    while !rano.stdout.text().contains("connect") {
        tuples.extend(claude.hold(scene.tcp, 2)?);
        ensure!(tuples.len() < 20_000, "nothing is told: {}", rano.stderr.text());
    }
    tuples.extend(claude.hold(scene.tcp, 20)?);
    claude.close_held()?;
    let told = |event: &str| {
        let text = rano.stdout.text();
        text.lines().filter(|line| line.contains(event)).count()
    };
    let closes = wait_until("every close is told", || Ok(told("- close") >= tuples.len()));
    rano.interrupt()?.expect_code(0)?;
    let unended = scene.database()?.text(&format!(
        "SELECT coalesce(group_concat(line), 'none') FROM (SELECT local_port || ' ' || preexisting || ' ' || owner_quality AS line \
         FROM events WHERE pid = {0} AND event = 'connect' \
         AND local_port NOT IN (SELECT local_port FROM events WHERE event = 'close' AND pid = {0}) LIMIT 20)",
        claude.pid()
    ))?;
    ensure!(
        closes.is_ok() && unended == "none",
        "of {}, without an end: {unended}; {closes:?}",
        tuples.len()
    );
    let connects = scene.database()?.text(&format!(
        "SELECT count(*) || ' ' || count(DISTINCT local_port) FROM events WHERE pid = {} AND event = 'connect'",
        claude.pid()
    ))?;
    ensure!(connects == format!("{0} {0}", tuples.len()), "{connects}, not {} twice", tuples.len());
    Ok(())
}

/// Once an agent's, then a stranger's: the kernel is told which pid to give next.
fn a_pid_that_is_used_again_is_another_process() -> Result<()> {
    const NEXT: &str = "/proc/sys/kernel/ns_last_pid";
    let mut scene = crate::scene()?;
    let rano = scene.observe(&EBPF)?;
    let client = Client::play(&scene.place, "claude", Way::Plain, scene.tcp)?;
    let (pid, first) = (client.done.pid, client.tuple()?);
    client.end()?;
    rano.wait_for_event("close", first)?;
    for _ in 0..200 {
        if let Err(error) = std::fs::write(NEXT, (pid - 1).to_string()) {
            return Err(skip(format!("{NEXT}: {error}")));
        }
        let client = Client::play(&scene.place, "stranger", Way::Plain, scene.tcp)?;
        let (again, second) = (client.done.pid, client.tuple()?);
        client.end()?;
        if again == pid {
            scene.let_it_look(&rano)?;
            rano.interrupt()?.expect_code(0)?;
            let database = scene.database()?;
            ensure!(database.events_of(Transport::Tcp, first)?.len() == 2, "the agent's is there");
            let rows = database.events_of(Transport::Tcp, second)?;
            ensure!(rows.is_empty(), "{rows:#?}");
            return Ok(());
        }
    }
    Err(skip("somebody else is always given the pid"))
}
