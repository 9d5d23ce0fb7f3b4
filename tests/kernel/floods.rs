//! Whoever fills a table blinds nobody but themselves, and it is counted: the sockets that are followed, answers and
//! questions of DNS, unknown endpoints. Each as an ordinary user and as root.

use std::net::{Ipv4Addr, SocketAddr};

use anyhow::{Context as _, Result, ensure};
use rustix::process::Signal;

use crate::cgroup::Corner;
use crate::flooder::{Flooder, NAME_SERVER, addresses};
use crate::support::actor::{Actor, Service, Transport};
use crate::support::dns::Server;
use crate::support::namespace::User;
use crate::support::rano::{Finished, Rano};
use crate::support::scene::Scene;
use crate::support::wait_until;

crate::tests![
    a_connect_that_finds_no_room_is_told_as_an_attempt,
    datagram_sockets_that_find_no_room_are_told,
    whoever_is_not_judged_yet_leaves_room,
    a_flood_of_answers_blinds_no_look_up,
    a_flood_of_questions_blinds_no_look_up,
    a_flood_of_names_for_one_address_blinds_no_look_up,
    what_another_user_looked_up_neither_classes_nor_silences,
    a_flood_of_endpoints_hides_no_later_one,
    a_flood_of_endpoints_hides_none_of_another_process,
    endpoints_of_many_processes_are_told_or_counted,
];

const USERS: [User; 2] = [User::Ordinary, User::Root];

/// Sockets that are followed in these tests: more than what other tests' agents have open when rano starts.
const ROOM: usize = 512;
/// More than that.
const TOO_MANY: usize = 700;

// ---- sockets that are followed ----

/// A rano that follows few sockets, after its first look.
fn observe_corner(scene: &Scene, corner: &Corner) -> Result<(Rano, Actor)> {
    let room = ROOM.to_string();
    // Sockets that are used are looked at wherever they are: those of other tests' agents would take the room.
    let only = ["--pattern", &corner.name, "--owners-max", &room, "--domain-mode", "ptr"];
    observe(scene, corner, &corner.name, &only)
}

/// A rano that sees nothing new but what is in `corner`.
fn observe(scene: &Scene, corner: &Corner, marker: &str, arguments: &[&str]) -> Result<(Rano, Actor)> {
    let mut marker = scene.agent(marker)?;
    let (_, older) = marker.connect(Transport::Tcp, scene.tcp)?;
    let fixed = ["--source", "ebpf", "--no-dns", "--stats-interval-ms", "0"];
    let mut launch = scene.launch()?.args(fixed).args(arguments);
    corner.confine(launch.command());
    let rano = launch.start()?;
    rano.wait_for_event("connect", older)?;
    Ok((rano, marker))
}

/// A server that accepts whatever comes.
fn keeper(scene: &mut Scene) -> Result<SocketAddr> {
    scene.server.serve(Transport::Tcp, "127.0.0.1:0", Service::Keep)
}

/// One whose verdict the kernel programs have.
fn known_agent(scene: &Scene, corner: &Corner, rano: &Rano, user: User) -> Result<Flooder> {
    let mut claude = Flooder::start(&scene.place.with_user(user), &corner.name, Some(corner))?;
    claude.connect(&[scene.tcp])?;
    let pid = format!(" | pid={} | ", claude.pid());
    rano.stdout.wait_for("the agent", |line| line.contains("+ connect") && line.contains(&pid))?;
    claude.close()?;
    rano.stdout.wait_for("the agent's close", |line| line.contains("- close") && line.contains(&pid))?;
    Ok(claude)
}

/// Connects of a process, and how many of them were told no more of than that.
fn connects(scene: &Scene, pid: u32, protocol: &str) -> Result<(i64, i64)> {
    let database = scene.database()?;
    let count = |and: &str| {
        database.count(&format!(
            "SELECT count(*) FROM events WHERE pid = {pid} AND proto = '{protocol}' AND event = 'connect' {and}"
        ))
    };
    Ok((count("")?, count("AND state = 'connecting'")?))
}

fn is_told_of_room(finished: &Finished, what: &str) -> Result<()> {
    let warning = format!("warning: no room left: {what}: ");
    let times = finished.stderr.lines().filter(|line| line.starts_with(&warning)).count();
    ensure!(times == 1, "{times} times '{warning}': {}", finished.stderr);
    ensure!(finished.stdout.contains(&format!(" {what}: ")), "it is not in the summary: {}", finished.stdout);
    Ok(())
}

fn a_connect_that_finds_no_room_is_told_as_an_attempt() -> Result<()> {
    for user in USERS {
        let mut scene = crate::scene()?;
        let to = keeper(&mut scene)?;
        let corner = Corner::new()?;
        let (rano, _marker) = observe_corner(&scene, &corner)?;
        let mut claude = known_agent(&scene, &corner, &rano, user)?;
        claude.connect(&vec![to; TOO_MANY])?;
        claude.close()?;
        // There is room again.
        claude.connect(&[scene.tcp; 3])?;
        let pid = claude.pid();
        drop(claude);
        let finished = rano.interrupt()?;
        finished.expect_code(0)?;
        let (told, attempts) = connects(&scene, pid, "tcp")?;
        let most = i64::try_from(ROOM)?;
        let all = i64::try_from(TOO_MANY)?;
        ensure!(told == 1 + all + 3, "{user:?}: {told} of {} connects were told", 1 + all + 3);
        ensure!(attempts >= all - most && attempts < all, "{user:?}: {attempts} attempts");
        let unfollowed = scene.database()?.count("SELECT kernel_unfollowed FROM sessions")?;
        ensure!(unfollowed >= attempts, "{user:?}: {unfollowed} counted, {attempts} attempts");
        is_told_of_room(&finished, "kernel unfollowed")?;
    }
    Ok(())
}

fn datagram_sockets_that_find_no_room_are_told() -> Result<()> {
    for user in USERS {
        let scene = crate::scene()?;
        let corner = Corner::new()?;
        let (rano, _marker) = observe_corner(&scene, &corner)?;
        let mut claude = known_agent(&scene, &corner, &rano, user)?;
        claude.send_datagrams(&addresses([127, 1, 0, 1], u32::try_from(TOO_MANY)?, 9))?;
        let pid = claude.pid();
        drop(claude);
        let finished = rano.interrupt()?;
        finished.expect_code(0)?;
        let (told, _) = connects(&scene, pid, "udp")?;
        ensure!(told == i64::try_from(TOO_MANY)?, "{user:?}: {told} of {TOO_MANY} sockets were told");
        is_told_of_room(&finished, "kernel unfollowed")?;
    }
    Ok(())
}

fn whoever_is_not_judged_yet_leaves_room() -> Result<()> {
    const HELD: usize = 32;
    for user in USERS {
        let mut scene = crate::scene()?;
        let to = keeper(&mut scene)?;
        let corner = Corner::new()?;
        let (rano, _marker) = observe_corner(&scene, &corner)?;
        let mut claude = known_agent(&scene, &corner, &rano, User::Ordinary)?;
        // No verdict arrives while rano stands still.
        rano.signal(Signal::STOP)?;
        let mut stranger = Flooder::start(&scene.place.with_user(user), "stranger", Some(&corner))?;
        let flooded = stranger.connect(&vec![to; TOO_MANY]);
        let connected = flooded.and_then(|()| claude.connect(&[scene.tcp; HELD]));
        rano.signal(Signal::CONT)?;
        connected?;
        let pid = claude.pid();
        claude.close()?;
        let its = format!(" | pid={pid} | ");
        wait_until("every close", || {
            let text = rano.stdout.text();
            let closes = text.lines().filter(|line| line.contains("- close") && line.contains(&its));
            Ok(closes.count() == 1 + HELD)
        })?;
        drop(claude);
        rano.interrupt()?.expect_code(0)?;
        let (told, attempts) = connects(&scene, pid, "tcp")?;
        let held = i64::try_from(HELD)?;
        ensure!((told, attempts) == (1 + held, 0), "{user:?}: {told} told, {attempts} only as attempts");
        drop(stranger);
    }
    Ok(())
}

// ---- names ----

/// `flood<N>.example` has 150 addresses of its own, `same<N>.example` and `api.anthropic.com` have one.
const ONE: Ipv4Addr = Ipv4Addr::new(127, 7, 7, 7);

fn resolve(name: &str) -> Vec<Ipv4Addr> {
    let number = |prefix: &str| -> Option<u32> { name.strip_prefix(prefix)?.split('.').next()?.parse().ok() };
    match number("flood") {
        Some(number) => (0..150).map(|n| Ipv4Addr::from(0x0b00_0000 + number * 150 + n)).collect(),
        None => vec![ONE],
    }
}

fn names(prefix: &str, count: u32) -> Vec<String> {
    (0..count).map(|number| format!("{prefix}{number}.example")).collect()
}

/// A scene with a name server and a server at [`ONE`], rano that watches, and an agent.
struct Stand {
    scene: Scene,
    rano: Rano,
    claude: Flooder,
    remote: SocketAddr,
    _names: Server,
}

impl Stand {
    fn new(agent: User) -> Result<Self> {
        let mut scene = crate::scene()?;
        let names = Server::start_with(&scene.place, NAME_SERVER, resolve)?;
        let remote = scene.server.serve(Transport::Tcp, &format!("{ONE}:0"), Service::Drain)?;
        let rano = scene.observe(&["--source", "ebpf", "--no-dns", "--json", "--db-queue-max", "1000000"])?;
        let claude = Flooder::start(&scene.place.with_user(agent), "claude", None)?;
        Ok(Self { scene, rano, claude, remote, _names: names })
    }

    fn stranger(&self, user: User) -> Result<Flooder> {
        Flooder::start(&self.scene.place.with_user(user), "stranger", None)
    }

    /// The agent looks up, `then` something happens, and the agent connects: how the connection is named.
    fn named(mut self, name: &str, then: impl FnOnce(&Self) -> Result<Vec<Flooder>>) -> Result<String> {
        self.claude.look_up(&[name.to_owned()])?;
        let strangers = then(&self)?;
        self.claude.connect(&[self.remote])?;
        let pid = self.claude.pid();
        drop((self.claude, strangers));
        self.rano.interrupt()?.expect_code(0)?;
        let port = self.remote.port();
        self.scene.database()?.text(&format!(
            "SELECT coalesce(max(concat_ws(' ', domain, domain_source)), 'nothing') FROM events \
             WHERE pid = {pid} AND remote_port = {port} AND event = 'connect'"
        ))
    }
}

const NAMED: &str = "api.anthropic.com dns";

fn a_flood_of_answers_blinds_no_look_up() -> Result<()> {
    for user in USERS {
        let named = Stand::new(User::Ordinary)?.named("api.anthropic.com", |stand| {
            let mut stranger = stand.stranger(user)?;
            // 22,500 addresses.
            stranger.look_up(&names("flood", 150))?;
            Ok(vec![stranger])
        })?;
        ensure!(named == NAMED, "{user:?}: {named}");
    }
    Ok(())
}

fn a_flood_of_questions_blinds_no_look_up() -> Result<()> {
    for user in USERS {
        let named = Stand::new(User::Ordinary)?.named("api.anthropic.com", |stand| {
            let mut stranger = stand.stranger(user)?;
            stranger.ask(&names("question", 10_000))?;
            Ok(vec![stranger])
        })?;
        ensure!(named == NAMED, "{user:?}: {named}");
    }
    Ok(())
}

fn a_flood_of_names_for_one_address_blinds_no_look_up() -> Result<()> {
    for user in USERS {
        let named = Stand::new(User::Ordinary)?.named("api.anthropic.com", |stand| {
            let mut stranger = stand.stranger(user)?;
            stranger.look_up(&names("same", 200))?;
            Ok(vec![stranger])
        })?;
        ensure!(named == NAMED, "{user:?}: {named}");
    }
    Ok(())
}

/// An address of the world that is this machine's, so that it has no class by itself.
const WORLD: [u8; 4] = [11, 0, 0, 0];

/// The scene's server at all addresses of [`WORLD`], and the endpoint at one of them.
fn world(scene: &mut Scene) -> Result<u16> {
    scene.place.own_network(Ipv4Addr::from(WORLD))?;
    Ok(scene.server.serve(Transport::Tcp, "0.0.0.0:0", Service::Drain)?.port())
}

fn what_another_user_looked_up_neither_classes_nor_silences() -> Result<()> {
    for (user, class) in [(User::Ordinary, "unknown"), (User::Root, "llm_api")] {
        let mut scene = crate::scene()?;
        let port = world(&mut scene)?;
        let address = Ipv4Addr::new(11, 1, 2, 3);
        let _names = Server::start_with(&scene.place, NAME_SERVER, move |_| vec![address])?;
        let rano = scene.observe(&["--source", "ebpf", "--no-dns", "--alert-unknown-domain"])?;
        // The agent is somebody else: root's own look-ups would be its own user's.
        let other = crate::support::namespace::Place::new(User::Ordinary)?;
        let (mut stranger, agent) =
            (Flooder::start(&scene.place.with_user(user), "stranger", None)?, other.ids());
        stranger.look_up(&["api.anthropic.com".to_owned()])?;
        let mut claude = Flooder::start(&scene.place.as_ordinary(agent.0), "claude", None)?;
        let remote = SocketAddr::from((address, port));
        claude.connect(&[remote])?;
        let pid = claude.pid();
        drop((claude, stranger));
        let closed = format!(" | pid={pid} | ");
        rano.stdout.wait_for("the close", |line| line.contains("- close") && line.contains(&closed))?;
        let finished = rano.interrupt()?;
        finished.expect_code(0)?;
        let found = scene.database()?.text(&format!(
            "SELECT concat_ws(' ', domain, domain_source, endpoint_type) FROM events WHERE pid = {pid} LIMIT 1"
        ))?;
        ensure!(found == format!("api.anthropic.com shared_dns {class}"), "{user:?}: {found}");
        let silenced = !finished.stderr.contains(&format!("⚠ Unknown endpoint: {remote} | claude ({pid})"));
        let no_alert = !finished.stderr.contains(&format!("unknown_domain | {remote} has no name"));
        let expected = class != "unknown";
        ensure!((silenced, no_alert) == (expected, expected), "{user:?}: {}", finished.stderr);
    }
    Ok(())
}

// ---- unknown endpoints ----

/// Agents connect to so many addresses of the world each; what rano said of each agent's, and how many it only counted.
fn endpoints(user: User, agents: &[(&str, u32)], then: Option<&str>) -> Result<(Vec<Vec<String>>, u64)> {
    let mut scene = crate::scene()?;
    let port = world(&mut scene)?;
    let corner = Corner::new()?;
    let (rano, _marker) = observe(&scene, &corner, "gemini", &[])?;
    let place = scene.place.with_user(user);
    let mut pids = Vec::new();
    let mut first = u32::from(Ipv4Addr::from(WORLD)) + 256;
    let mut play = |name: &str, count: u32| -> Result<u32> {
        let mut agent = Flooder::start(&place, name, Some(&corner))?;
        let to = addresses(first.to_be_bytes(), count, port);
        first += count;
        for some in to.chunks(50) {
            agent.connect(some)?;
            agent.close()?;
        }
        let pid = agent.pid();
        drop(agent);
        let last = to.last().context("some")?.to_string();
        rano.stdout.wait_for("the last close", |line| line.contains("- close") && line.contains(&last))?;
        Ok(pid)
    };
    for (name, count) in agents {
        pids.push(play(name, *count)?);
    }
    if let Some(name) = then {
        // What was only counted is said when its time is over.
        rano.stderr.wait_for("how many there were", |line| line.starts_with("⚠ Unknown endpoints: "))?;
        pids.push(play(name, 1)?);
    }
    let finished = rano.interrupt()?;
    finished.expect_code(0)?;
    let lines = |pid: &u32| {
        let whose = format!(" ({pid})");
        let its = finished.stderr.lines().filter(|line| line.starts_with("⚠ Unknown endpoint: "));
        its.filter(|line| line.ends_with(&whose)).map(str::to_owned).collect()
    };
    let counted = finished.stderr.lines().filter_map(|line| line.strip_prefix("⚠ Unknown endpoints: "));
    let counted = counted.filter_map(|line| line.split(' ').next()?.parse::<u64>().ok()).sum();
    Ok((pids.iter().map(lines).collect(), counted))
}

fn a_flood_of_endpoints_hides_no_later_one() -> Result<()> {
    for user in USERS {
        let (told, counted) = endpoints(user, &[("claude", 3_000)], Some("codex"))?;
        ensure!(!told[0].is_empty() && told[0].len() < 100, "{user:?}: {} lines", told[0].len());
        // Other tests have agents too, whose older sockets may count.
        ensure!(told[0].len() as u64 + counted >= 3_000, "{user:?}: {} and {counted}", told[0].len());
        ensure!(told[1].len() == 1, "{user:?}: {told:?}");
    }
    Ok(())
}

fn a_flood_of_endpoints_hides_none_of_another_process() -> Result<()> {
    for user in USERS {
        let (told, counted) = endpoints(user, &[("claude", 500), ("codex", 1)], None)?;
        ensure!(told[1].len() == 1, "{user:?}: {told:?}");
        ensure!(told[0].len() as u64 + counted >= 500, "{user:?}: {} and {counted}", told[0].len());
    }
    Ok(())
}

fn endpoints_of_many_processes_are_told_or_counted() -> Result<()> {
    for user in USERS {
        let (told, counted) = endpoints(user, &[("claude", 30); 12], None)?;
        let lines: usize = told.iter().map(Vec::len).sum();
        ensure!(lines as u64 + counted >= 12 * 30, "{user:?}: {lines} and {counted}");
    }
    Ok(())
}
