//! Floods: a ring buffer that is too small, and processes that fill it with one kind of record. What the others tell is
//! told all the same or counted, and what is open is right afterwards. Where the cgroup hooks matter rano sees a cgroup
//! of the test's own.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use rustix::process::Signal;

use crate::cgroup::Corner;
use crate::support::actor::{Actor, Ending, Flood, Service, Transport, Tuple};
use crate::support::namespace::User;
use crate::support::rano::Rano;
use crate::support::scene::Scene;
use crate::support::wait_until;
use crate::swarm;

crate::tests![
    ends_that_were_lost_are_found_out,
    ends_of_flows_that_were_lost_are_found_out,
    connections_whose_beginning_was_lost_are_found_out,
    a_beginning_in_another_namespace_gets_its_local_end_with_its_own,
    a_lost_end_does_not_count_against_the_limit,
    a_socket_that_connects_again_ends_its_connection_before,
    datagrams_to_many_destinations_leave_room,
    many_datagram_sockets_leave_room,
    a_datagram_socket_that_connects_without_end_leaves_room,
    more_destinations_than_are_kept_end_with_their_socket,
    every_flood_is_accounted_for,
];

/// Room for some thirty records.
const TINY: &str = "4096";
/// Room for some five hundred.
const SMALL: &str = "65536";

/// Room for all that a test does.
const ROOMY: &str = "16777216";

/// Numbers for names of agents: each test watches its own, whatever else runs on the machine.
static AGENTS: AtomicU32 = AtomicU32::new(0);

/// rano after its first look, and the one agent it watches.
struct Watch {
    scene: Scene,
    /// A server of each kind.
    servers: Servers,
    agent: Actor,
    rano: Rano,
    /// Takes part in nothing; its one connection is older than the observation.
    _older: Actor,
    corner: Corner,
    name: String,
}

#[derive(Clone, Copy)]
struct Servers {
    tcp: SocketAddr,
    udp: SocketAddr,
    /// For connections that come in great number, one after the other.
    drain: SocketAddr,
}

impl Watch {
    /// As `user`; servers are at an address of loopback.
    fn start((user, at): (User, &str), ring: &str, arguments: &[&str]) -> Result<Self> {
        let mut scene = crate::scene()?;
        let servers = Servers {
            tcp: scene.server.serve(Transport::Tcp, at, Service::Answer)?,
            udp: scene.server.serve(Transport::Udp, at, Service::Answer)?,
            drain: scene.server.serve(Transport::Tcp, at, Service::Drain)?,
        };
        // Other runs of these tests may go on beside this one.
        let number = AGENTS.fetch_add(1, Ordering::Relaxed);
        let name = format!("f{}-{number}-", std::process::id());
        let agent = Actor::start(&scene.place.with_user(user), &name)?;
        let mut older = scene.agent(&name)?;
        let corner = Corner::new()?;
        corner.take_in(agent.pid())?;
        let (_, tuple) = older.connect(Transport::Tcp, servers.tcp)?;
        let fixed = ["--source", "ebpf", "--stats-interval-ms", "0", "--db-queue-max", "1000000"];
        let mut launch = scene.launch()?.args(fixed).args(["--ring-bytes", ring, "--pattern", &name]);
        launch = launch.args(arguments);
        corner.confine(launch.command());
        let rano = launch.start()?;
        rano.wait_for_event("connect", tuple)?;
        Ok(Self { scene, servers, agent, rano, _older: older, corner, name })
    }

    /// While rano does not read, so that what finds no room is lost however fast it is.
    fn unread<T>(&mut self, act: impl FnOnce(&mut Actor) -> Result<T>) -> Result<T> {
        self.rano.stop()?;
        let done = act(&mut self.agent);
        self.rano.signal(Signal::CONT)?;
        done
    }

    /// Fills the ring, then acts unheard.
    fn unheard<T>(&mut self, act: impl FnOnce(&mut Actor) -> Result<T>) -> Result<T> {
        let drain = self.servers.drain;
        self.unread(|agent| {
            agent.flood(Flood::Connections, drain, 300)?;
            act(agent)
        })
    }

    /// Waits until as many of the agent's connections count as open.
    fn wait_for_active(&self, expected: i64) -> Result<()> {
        let active = || self.scene.database()?.count("SELECT active FROM sessions");
        // One is older.
        wait_until(&format!("{expected} active"), || Ok(active()? == expected + 1))
            .with_context(|| format!("{:?} are, with the older one", active()))
    }

    /// Its address may not have been known: that a datagram socket has only from its first datagram on.
    fn wait_for_close(&self, protocol: &str, tuple: Tuple) -> Result<String> {
        let (protocol, from) = (format!("| {protocol} |"), format!(":{} -> ", tuple.local.port()));
        let is_it = |line: &str| line.contains("close") && line.contains(&protocol) && line.contains(&from);
        self.rano.stdout.wait_for(&format!("close of {:?}", tuple.local), is_it)
    }

    /// Ends rano, of whose agent so many connections are open.
    fn end(self, open: i64) -> Result<Scene> {
        let (scene, is_so) = self.finish(open)?;
        ensure!(is_so, "the summary does not say that {open} are active beside the older one");
        Ok(scene)
    }

    /// Ends rano, and whether so many are open then. The kernel may still be closing some, which rano had not heard of
    /// when the history said so: whoever floods does not wait for it.
    fn finish(self, open: i64) -> Result<(Scene, bool)> {
        let finished = self.rano.interrupt()?;
        finished.expect_code(0)?;
        let is_so = finished.stdout.contains(&format!("  active   {} (", open + 1));
        Ok((self.scene, is_so))
    }
}

fn ensure_lost(scene: &Scene) -> Result<()> {
    ensure!(scene.database()?.count("SELECT kernel_dropped FROM sessions")? > 0, "nothing was lost");
    Ok(())
}

/// An end that was found out afterwards. Bytes are those that were counted while it was open.
fn ensure_late(line: &str) -> Result<()> {
    ensure!(line.contains("late=true") && !line.contains("dur="), "{line}");
    Ok(())
}

/// Users and addresses of loopback, each with each.
const EVERYBODY: [(User, &str); 4] = [
    (User::Ordinary, "127.0.0.1:0"),
    (User::Root, "[::1]:0"),
    (User::Ordinary, "[::1]:0"),
    (User::Root, "127.0.0.1:0"),
];

/// An emulated machine takes its time for each.
fn everybody() -> &'static [(User, &'static str)] {
    if swarm::is_small() { &EVERYBODY[..2] } else { &EVERYBODY }
}

fn connections(agent: &mut Actor, to: SocketAddr, count: usize) -> Result<Vec<(usize, Tuple)>> {
    (0..count).map(|_| agent.connect(Transport::Tcp, to)).collect()
}

/// Ends connections without waiting for the other side.
fn reset(agent: &mut Actor, connections: &[(usize, Tuple)]) -> Result<()> {
    connections.iter().try_for_each(|&(connection, _)| agent.close(connection, Ending::Reset))
}

fn ends_that_were_lost_are_found_out() -> Result<()> {
    for &place in everybody() {
        let mut watch = Watch::start(place, TINY, &[])?;
        let server = watch.servers.tcp;
        let held = connections(&mut watch.agent, server, 10)?;
        watch.wait_for_active(10)?;
        watch.unheard(|agent| reset(agent, &held))?;
        let lines = held.iter().map(|(_, tuple)| watch.rano.wait_for_event("close", *tuple));
        let lines = lines.collect::<Result<Vec<_>>>()?;
        // The last eighth of the ring is for ends, and the flood's need the server, which may take its time.
        let late: Vec<_> = lines.iter().filter(|line| line.contains("late=true")).collect();
        ensure!(late.len() >= 5, "{place:?}: {lines:#?}");
        for line in late {
            ensure_late(line)?;
        }
        watch.wait_for_active(0)?;
        ensure_lost(&watch.end(0)?)?;
    }
    Ok(())
}

/// A connected flow and one that is not, both told. Who else starts programs on a busy machine may fill the tiny ring
/// before, and then it is tried again.
fn two_flows(place: (User, &str)) -> Result<(Watch, usize, Tuple, usize)> {
    for _ in 0..10 {
        let mut watch = Watch::start(place, TINY, &[])?;
        let server = watch.servers.udp;
        let (connected, tuple) = watch.agent.connect(Transport::Udp, server)?;
        watch.agent.exchange(connected, 100, 100)?;
        let (unconnected, _) = watch.agent.send_to(server)?;
        let database = watch.scene.database()?;
        let is = |what: &str| Ok(database.count(&format!("SELECT {what} FROM sessions"))? == 1);
        wait_until("two flows, or a loss", || is("active = 3 OR kernel_dropped > 0"))?;
        if is("active = 3")? {
            return Ok((watch, connected, tuple, unconnected));
        }
    }
    bail!("the ring is always full")
}

fn ends_of_flows_that_were_lost_are_found_out() -> Result<()> {
    for &place in everybody() {
        let (mut watch, connected, tuple, unconnected) = two_flows(place)?;
        watch.unheard(|agent| {
            agent.close(connected, Ending::InOrder)?;
            agent.close(unconnected, Ending::InOrder)
        })?;
        ensure_late(&watch.wait_for_close("udp", tuple)?)?;
        watch.wait_for_active(0)?;
        ensure_lost(&watch.end(0)?)?;
    }
    Ok(())
}

fn connections_whose_beginning_was_lost_are_found_out() -> Result<()> {
    for &place in everybody() {
        let mut watch = Watch::start(place, TINY, &[])?;
        let Servers { tcp, udp, .. } = watch.servers;
        let (held, connected) = watch.unheard(|agent| {
            let connected = agent.connect(Transport::Udp, udp)?;
            agent.exchange(connected.0, 20, 20)?;
            Ok((agent.hold(tcp, 5)?, connected))
        })?;
        for &tuple in held.iter().chain([&connected.1]) {
            watch.rano.wait_for_event("connect", tuple)?;
        }
        watch.wait_for_active(6)?;
        watch.agent.close_held()?;
        watch.agent.close(connected.0, Ending::InOrder)?;
        watch.wait_for_active(0)?;
        let scene = watch.end(0)?;
        ensure_lost(&scene)?;
        let database = scene.database()?;
        for tuple in held {
            let rows = database.events_of(Transport::Tcp, tuple)?;
            let [connect, close] = &rows[..] else { anyhow::bail!("{rows:#?}") };
            let is_whole = close.duration_ms.is_some() && close.bytes_sent == Some(0);
            ensure!(is_whole && connect.owner_quality == "exact" && !connect.preexisting, "{rows:#?}");
        }
    }
    Ok(())
}

/// rano may not look into that namespace once it has given up its privileges.
fn a_beginning_in_another_namespace_gets_its_local_end_with_its_own() -> Result<()> {
    let watch_and = |watch: &mut Watch| -> Result<()> {
        let elsewhere = watch.scene.place.elsewhere()?;
        let mut server = Actor::start(&elsewhere, "server")?;
        let at = server.serve(Transport::Tcp, "127.0.0.1:0", Service::Answer)?;
        let name = format!("{}-elsewhere", watch.name);
        let mut agent = Actor::start(&elsewhere, &name)?;
        watch.corner.take_in(agent.pid())?;
        let held = watch.unheard(|_| agent.hold(at, 2))?;
        watch.wait_for_active(2)?;
        agent.close_held()?;
        for tuple in held {
            let line = watch.rano.wait_for_event("close", tuple)?;
            ensure!(line.contains("dur="), "{line}");
        }
        watch.wait_for_active(0)
    };
    let mut watch = Watch::start(EVERYBODY[0], TINY, &[])?;
    watch_and(&mut watch)?;
    ensure_lost(&watch.end(0)?)
}

/// The flood itself adds the few that find room.
fn a_lost_end_does_not_count_against_the_limit() -> Result<()> {
    let limits = ["--alert-max-connections", "60", "--alert-max-per-provider", "60"];
    let mut watch = Watch::start(EVERYBODY[0], TINY, &limits)?;
    let server = watch.servers.tcp;
    let held = connections(&mut watch.agent, server, 40)?;
    watch.wait_for_active(40)?;
    watch.unheard(|agent| reset(agent, &held))?;
    watch.wait_for_active(0)?;
    watch.agent.hold(server, 40)?;
    watch.wait_for_active(40)?;
    let said = watch.rano.stderr.text();
    ensure!(!said.contains("active connections"), "{said}");
    ensure_lost(&watch.end(40)?)
}

/// Of a socket that is older than the observation the programs hear no more than the last close.
fn a_socket_that_connects_again_ends_its_connection_before() -> Result<()> {
    let mut scene = crate::scene()?;
    let other = scene.server.serve(Transport::Tcp, "127.0.0.1:0", Service::Answer)?;
    let mut claude = scene.agent("claude")?;
    let (connection, before) = claude.connect(Transport::Tcp, scene.tcp)?;
    let rano = scene.observe(&["--source", "ebpf"])?;
    rano.wait_for_event("connect", before)?;
    let after = claude.connect_again(connection, other)?;
    rano.wait_for_event("close", before)?;
    rano.wait_for_event("connect", after)?;
    claude.close(connection, Ending::InOrder)?;
    rano.wait_for_event("close", after)?;
    rano.interrupt()?.expect_code(0)?;
    Ok(())
}

/// While rano does not read, somebody floods it, then an agent connects a few times over TCP: all of that is told.
fn leaves_room(flood: impl Fn(&mut Watch) -> Result<()>) -> Result<()> {
    for &place in everybody() {
        let mut watch = Watch::start(place, SMALL, &[])?;
        let drain = watch.servers.drain;
        watch.rano.stop()?;
        flood(&mut watch)?;
        let tuples = watch.agent.short_connections(drain, 5, Duration::ZERO)?;
        watch.rano.signal(Signal::CONT)?;
        for &tuple in &tuples {
            let line = watch.wait_for_close("tcp", tuple)?;
            ensure!(!line.contains("late=true") && line.contains("dur="), "{place:?}: {line}");
        }
        watch.wait_for_active(0)?;
        ensure_lost(&watch.end(0)?)?;
    }
    Ok(())
}

fn datagrams_to_many_destinations_leave_room() -> Result<()> {
    leaves_room(|watch| watch.agent.flood(Flood::Destinations, watch.servers.udp, 2000))
}

fn many_datagram_sockets_leave_room() -> Result<()> {
    leaves_room(|watch| watch.agent.flood(Flood::Sockets, watch.servers.udp, 2000))
}

fn a_datagram_socket_that_connects_without_end_leaves_room() -> Result<()> {
    leaves_room(|watch| watch.agent.flood(Flood::Reconnects, watch.servers.udp, 2000))
}

/// Of more than rano keeps the flows of, the end is not told with that of their socket.
fn more_destinations_than_are_kept_end_with_their_socket() -> Result<()> {
    const KEPT: usize = 1 << 14;
    let mut watch = Watch::start(EVERYBODY[0], ROOMY, &[])?;
    watch.agent.flood(Flood::Destinations, "127.0.0.1:1024".parse()?, KEPT + 500)?;
    watch.wait_for_active(0)?;
    let shown = "SELECT count(*) FROM events WHERE event = 'connect' AND proto = 'udp'";
    let shown = watch.end(0)?.database()?.count(shown)?;
    ensure!(shown > KEPT.try_into()?, "only {shown} were shown");
    Ok(())
}

fn every_flood_is_accounted_for() -> Result<()> {
    for &place in everybody() {
        for flood in [Flood::Connections, Flood::Sockets, Flood::Destinations, Flood::Reconnects] {
            // What others' processes begin to use while nobody judges them counts too, if there is no room for it.
            let is_exact =
                (0..4).try_fold(
                    false,
                    |is_exact, _| {
                        if is_exact { Ok(true) } else { is_accounted_for(flood, place) }
                    },
                );
            ensure!(is_exact?, "{flood:?} {place:?}: more was counted each time");
        }
    }
    Ok(())
}

/// Whether it adds up exactly; an error where something is missing.
fn is_accounted_for(flood: Flood, place: (User, &str)) -> Result<bool> {
    const HALF: i64 = 1000;
    let mut watch = Watch::start(place, TINY, &[])?;
    let Servers { drain, udp, .. } = watch.servers;
    let (to, half) = (if flood == Flood::Connections { drain } else { udp }, HALF.try_into()?);
    watch.unread(|agent| agent.flood(flood, to, half))?;
    watch.agent.flood(flood, to, half)?;
    watch.wait_for_active(0)?;
    let (scene, is_over) = watch.finish(0)?;
    ensure_lost(&scene)?;
    let database = scene.database()?;
    let shown = "SELECT count(*) FROM events WHERE event IN ('connect', 'fail') AND NOT preexisting";
    let shown = database.count(shown)?;
    let counted = database.count("SELECT unattributed + kernel_unfollowed FROM sessions")?;
    let dropped = database.count("SELECT kernel_dropped FROM sessions")?;
    let (known, is_exact) = match flood {
        // Each has a socket of its own, which is told or counted.
        Flood::Connections | Flood::Sockets => (shown + counted, shown + counted == 2 * HALF),
        // One socket has them all, and each record that was lost is one of them.
        Flood::Destinations | Flood::Reconnects | Flood::Renames | Flood::Disguises | Flood::Processes => {
            (shown + dropped, true)
        }
    };
    ensure!(
        known >= 2 * HALF,
        "{flood:?} {place:?}: {shown} shown, {counted} counted, {dropped} records were lost"
    );
    Ok(is_exact && is_over)
}
