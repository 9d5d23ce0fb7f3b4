//! Each kind of socket and each unusual use of one, seen by each source: what is told, and with how many bytes. In a
//! guest each cell is a fact of docs/kernels.md.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};

use crate::odd_client::{Client, Way};
use crate::odd_sockets::neighbours;
use crate::support::actor::{Actor, Ending, Service, Transport};
use crate::support::namespace::{Place, User};
use crate::support::rano::Rano;
use crate::support::scene::Scene;
use crate::support::trial::{Skip, skip};
use crate::support::wait_until;
use crate::talker::{Talk, play};

crate::tests![by_the_kernel_programs, by_polling_as_root, by_polling_as_a_user];

/// Set in a guest: the rung that its programs take.
const RUNG: &str = "RANO_TEST_RUNG";
/// Of an interval's length, as it is without options.
const INTERVAL_MS: u32 = 1000;
/// Where no page is made of it.
const SHORT_INTERVAL_MS: u32 = 100;

/// Bytes sent and received of a connection.
type Bytes = (i64, i64);

/// What somebody did.
struct Played {
    pids: Vec<u32>,
    connections: Vec<Bytes>,
}

/// Where it is done.
struct Stage {
    scene: Scene,
    tcp6: SocketAddr,
    udp: SocketAddr,
    udp6: SocketAddr,
}

/// Does it, and ends it.
type Act = fn(&mut Stage) -> Result<Played>;

const MEGABYTE: usize = 1 << 20;

const ROWS: [(&str, Act); 37] = [
    ("TCP over IPv4, up", |stage| stage.tcp(stage.scene.tcp, MEGABYTE, 1)),
    ("TCP over IPv4, down", |stage| stage.tcp(stage.scene.tcp, 8, MEGABYTE)),
    ("TCP over IPv4, both ways", |stage| stage.tcp(stage.scene.tcp, MEGABYTE, MEGABYTE)),
    ("TCP over IPv6, up", |stage| stage.tcp(stage.tcp6, MEGABYTE, 1)),
    ("TCP over IPv6, down", |stage| stage.tcp(stage.tcp6, 8, MEGABYTE)),
    ("TCP over IPv6, both ways", |stage| stage.tcp(stage.tcp6, MEGABYTE, MEGABYTE)),
    ("UDP over IPv4, up", |stage| stage.udp(stage.udp, 20, (1200, 8))),
    ("UDP over IPv4, down", |stage| stage.udp(stage.udp, 20, (8, 1200))),
    ("UDP over IPv6, both ways", |stage| stage.udp(stage.udp6, 20, (1200, 1200))),
    ("UDP like QUIC", |stage| stage.udp(stage.udp, 100, (1350, 1350))),
    ("UDP like a look-up", |stage| stage.udp(stage.udp, 1, (40, 120))),
    ("a slow drip", Stage::drip),
    ("20 short processes", Stage::short_processes),
    ("200 short connections", Stage::short_connections),
    ("100 connections at once", Stage::many),
    ("sendfile", |stage| stage.odd("claude", Way::SendFile)),
    ("splice", |stage| stage.odd("claude", Way::Splice)),
    ("sendmmsg to two places", Stage::sendmmsg),
    ("recvmmsg", |stage| stage.odd_to(stage.udp, "claude", Way::ReceiveSeveral)),
    ("io_uring, both ways", |stage| stage.odd("claude", Way::IoUring)),
    ("TCP Fast Open", |stage| stage.odd("claude", Way::FastOpenConnect)),
    ("Multipath TCP", |stage| stage.odd("claude", Way::MultiPath)),
    ("a pid namespace", |stage| stage.odd("launcher", Way::PidNamespace)),
    ("another network namespace", Stage::elsewhere),
    ("ICMP, raw", |stage| stage.talk(Talk::IcmpRaw)),
    ("ICMP, ping socket", |stage| stage.talk(Talk::Ping)),
    ("another IP protocol", |stage| stage.talk(Talk::RawProtocol)),
    ("raw IP with its header", |stage| stage.talk(Talk::RawHeader)),
    ("packet socket", |stage| stage.talk(Talk::Packet)),
    ("UDP-Lite", |stage| stage.talk(Talk::UdpLite)),
    ("UDP-Lite, connected", |stage| stage.talk(Talk::UdpLiteConnected)),
    ("SCTP", |stage| stage.talk(Talk::Sctp)),
    ("SCTP, one to many", |stage| stage.talk(Talk::SctpToMany)),
    ("DCCP", |stage| stage.talk(Talk::Dccp)),
    ("vsock", |stage| stage.talk(Talk::Vsock)),
    ("TIPC", |stage| stage.talk(Talk::Tipc)),
    ("RDS", |stage| stage.talk(Talk::Rds)),
];

impl Stage {
    fn new(mut scene: Scene) -> Result<Self> {
        let server = &mut scene.server;
        let tcp6 = server.serve(Transport::Tcp, "[::1]:0", Service::Answer)?;
        let udp = server.serve(Transport::Udp, "127.0.0.1:0", Service::Answer)?;
        let udp6 = server.serve(Transport::Udp, "[::1]:0", Service::Answer)?;
        Ok(Self { scene, tcp6, udp, udp6 })
    }

    fn tcp(&self, to: SocketAddr, send: usize, receive: usize) -> Result<Played> {
        exchange(self.scene.agent("claude")?, Transport::Tcp, to, 1, (send, receive))
    }

    fn udp(&self, to: SocketAddr, times: usize, each: (usize, usize)) -> Result<Played> {
        exchange(self.scene.agent("claude")?, Transport::Udp, to, times, each)
    }

    /// A few bytes at a time, over a second and a half.
    fn drip(&mut self) -> Result<Played> {
        let mut agent = self.scene.agent("claude")?;
        let (connection, _) = agent.connect(Transport::Tcp, self.scene.tcp)?;
        for _ in 0..15 {
            agent.exchange(connection, 9, 1)?;
            std::thread::sleep(Duration::from_millis(100));
        }
        ended(agent, connection, (15 * 9, 15))
    }

    fn short_processes(&mut self) -> Result<Played> {
        let mut all = Played { pids: Vec::new(), connections: Vec::new() };
        for _ in 0..20 {
            let one = self.odd("claude", Way::Plain)?;
            all.pids.extend(one.pids);
            all.connections.extend(one.connections);
        }
        Ok(all)
    }

    fn short_connections(&mut self) -> Result<Played> {
        let mut agent = self.scene.agent("claude")?;
        let tuples = agent.short_connections(self.scene.tcp, 200, Duration::ZERO)?;
        let pids = vec![agent.pid()];
        agent.end()?;
        Ok(Played { pids, connections: vec![(0, 0); tuples.len()] })
    }

    fn many(&mut self) -> Result<Played> {
        let mut agent = self.scene.agent("claude")?;
        let tuples = agent.hold(self.scene.tcp, 100)?;
        agent.close_held()?;
        let pids = vec![agent.pid()];
        agent.end()?;
        Ok(Played { pids, connections: vec![(0, 0); tuples.len()] })
    }

    fn odd(&self, name: &str, way: Way) -> Result<Played> {
        self.odd_to(self.scene.tcp, name, way)
    }

    fn odd_to(&self, to: SocketAddr, name: &str, way: Way) -> Result<Played> {
        let done = Client::play(&self.scene.place, name, way, to)?.end()?;
        // The first of two fast openings gets the cookie, with the same bytes.
        let times = if way == Way::FastOpenConnect { 2 } else { 1 };
        let bytes = (i64::try_from(done.sent)?, i64::try_from(done.received)?);
        Ok(Played { pids: vec![done.pid], connections: vec![bytes; times] })
    }

    fn sendmmsg(&mut self) -> Result<Played> {
        let (first, _) = neighbours(&mut self.scene.server)?;
        let played = self.odd_to(first, "claude", Way::SendSeveral)?;
        Ok(Played { connections: vec![(200, 0), (100, 0)], ..played })
    }

    fn elsewhere(&mut self) -> Result<Played> {
        let place = self.scene.place.elsewhere()?;
        let mut server = Actor::start(&place, "server")?;
        let to = server.serve(Transport::Tcp, "127.0.0.1:0", Service::Answer)?;
        exchange(Actor::start(&place, "claude")?, Transport::Tcp, to, 1, (5000, 7000))
    }

    fn talk(&self, talk: Talk) -> Result<Played> {
        let (pid, exchanged) = play(&self.scene.place, talk)?;
        let connections = exchanged.into_iter().map(|(_, sent, received)| (sent, received)).collect();
        Ok(Played { pids: vec![pid], connections })
    }
}

/// `times` requests and answers over one connection.
fn exchange(
    mut agent: Actor,
    transport: Transport,
    to: SocketAddr,
    times: usize,
    (send, receive): (usize, usize),
) -> Result<Played> {
    let (connection, _) = agent.connect(transport, to)?;
    let mut totals = agent.exchange(connection, send, receive)?;
    for _ in 1..times {
        totals = agent.exchange(connection, send, receive)?;
    }
    ended(agent, connection, (i64::try_from(totals.sent)?, i64::try_from(totals.received)?))
}

fn ended(mut agent: Actor, connection: usize, bytes: Bytes) -> Result<Played> {
    agent.close(connection, Ending::InOrder)?;
    let pids = vec![agent.pid()];
    agent.end()?;
    Ok(Played { pids, connections: vec![bytes] })
}

/// What of a row was told. Each word is what docs/kernels.md has in a cell.
fn cell(stage: &Stage, played: &Played, were_counted: bool) -> Result<String> {
    let pids = played.pids.iter().map(u32::to_string).collect::<Vec<_>>().join(", ");
    let query = |what: &str| format!("SELECT {what} FROM events WHERE pid IN ({pids}) AND event ");
    let database = stage.scene.database()?;
    let connects = database.count(&(query("count(*)") + "= 'connect'"))?;
    let closes: Vec<(Option<i64>, Option<i64>)> = serde_json::from_str(
        &database.text(&(query("json_group_array(json_array(bytes_sent, bytes_recv))") + "= 'close'"))?,
    )?;
    let wanted = played.connections.len();
    let told = usize::try_from(connects)?.max(closes.len());
    let rest = if were_counted { ", the rest counted" } else { "" };
    Ok(match told {
        0 if were_counted => "counted".to_owned(),
        0 => "no".to_owned(),
        told if told < wanted => format!("{told} of {wanted}{rest}"),
        _ if matches(&closes, &played.connections, |told, done| told == done) => "exact".to_owned(),
        _ if matches(&closes, &played.connections, is_near) => "within 1 %".to_owned(),
        _ if closes.iter().all(|(sent, received)| sent.is_none() && received.is_none()) => {
            "told, no bytes".to_owned()
        }
        _ => "told, other bytes".to_owned(),
    })
}

/// Whether for each of `done` there is another one that was told.
fn matches(told: &[(Option<i64>, Option<i64>)], done: &[Bytes], is: fn(i64, i64) -> bool) -> bool {
    let mut told: Vec<Bytes> =
        told.iter().filter_map(|(sent, received)| Some(((*sent)?, (*received)?))).collect();
    done.iter().all(|(sent, received)| {
        let found = told
            .iter()
            .position(|(told_sent, told_received)| is(*told_sent, *sent) && is(*told_received, *received));
        found.map(|at| told.swap_remove(at)).is_some()
    })
}

fn is_near(told: i64, done: i64) -> bool {
    (told - done).abs() * 100 <= done
}

/// What the source says that it may have missed, without names.
fn counted(stage: &Stage) -> Result<i64> {
    stage.scene.database()?.count(
        "SELECT unattributed + notifications_lost + opened_unwatched + permission_denied + vanished \
         + table_full + kernel_dropped + kernel_unfollowed + unread FROM sessions",
    )
}

/// The markers by which rano shows how far it has come, as far as they are stored.
fn markers(stage: &Stage) -> Result<i64> {
    stage
        .scene
        .database()?
        .count("SELECT count(*) FROM events WHERE provider = 'google' AND event = 'connect'")
}

/// Each row that this machine can do, with its cell.
fn each_row(source: &str, mut stage: Stage, rano: Rano) -> Result<Vec<(&'static str, String)>> {
    let mut rows = Vec::new();
    for (name, act) in ROWS {
        let before = counted(&stage)?;
        let played = match act(&mut stage) {
            Ok(played) => played,
            Err(error) if error.is::<Skip>() => {
                println!("not played: {name}: {error}");
                continue;
            }
            Err(error) => return Err(error).with_context(|| name),
        };
        let shown = markers(&stage)?;
        stage.scene.let_it_look(&rano)?;
        wait_until("what it saw is stored", || Ok(markers(&stage)? > shown + 1))?;
        rows.push((name, played, counted(&stage)? > before));
    }
    rano.interrupt()?.expect_code(0)?;
    let mut cells = Vec::new();
    for (name, played, were_counted) in rows {
        let cell = cell(&stage, &played, were_counted)?;
        println!("fact: socket {source}: {name}: {}", cell.replace(' ', "_"));
        cells.push((name, cell));
    }
    Ok(cells)
}

fn by_the_kernel_programs() -> Result<()> {
    let mut scene = crate::scene()?;
    let rano = scene.observe(&["--source", "ebpf", "--no-dns", "--db-flush-ms", "0"])?;
    let source = std::env::var(RUNG).unwrap_or_else(|_| "ebpf".to_owned());
    let stage = Stage::new(scene)?;
    let reason = stage.scene.database()?.text("SELECT coalesce(source_reason, '') FROM sessions")?;
    let is_limited = reason.contains("transports beside TCP and UDP");
    let cells = each_row(&source, stage, rano)?;
    let worse: Vec<_> = cells
        .iter()
        .filter(|(name, cell)| {
            let is_right = ["exact", "within 1 %"].contains(&cell.as_str());
            !(is_right || is_limited && is_other(name))
        })
        .collect();
    ensure!(worse.is_empty(), "{worse:?}");
    ensure!(cells.len() > 20, "{cells:?}");
    Ok(())
}

/// Transports beside TCP and UDP: which hook sees them depends on the kernel.
fn is_other(name: &str) -> bool {
    ["ICMP", "IP", "packet", "UDP-Lite", "SCTP", "DCCP", "vsock", "TIPC", "RDS"]
        .into_iter()
        .any(|word| name.split([' ', ',']).any(|part| part == word) && !name.contains("over"))
}

fn polled(user: User) -> Result<Vec<(&'static str, String)>> {
    let place = Place::new(user)?;
    // The kernel tells of processes in its first network namespace only, where in a guest nobody else is.
    let (mut scene, interval) = if std::env::var_os(RUNG).is_some() {
        (Scene::at(place.beside_the_test())?, INTERVAL_MS)
    } else {
        (Scene::at(place)?, SHORT_INTERVAL_MS)
    };
    let rano = scene.observe_every(interval, &["--source", "proc", "--no-dns", "--db-flush-ms", "0"])?;
    let source = if matches!(user, User::Root) { "polling, root" } else { "polling, user" };
    each_row(source, Stage::new(scene)?, rano)
}

/// What lasts has a process; the rest is counted.
fn judge(cells: &[(&'static str, String)]) -> Result<()> {
    let of = |name: &str| cells.iter().find(|(row, _)| *row == name).map(|(_, cell)| cell.as_str());
    ensure!(of("a slow drip") == Some("exact"), "{cells:?}");
    let silent: Vec<_> = cells
        .iter()
        .filter(|(name, cell)| {
            name.starts_with("TCP over") && (cell == "no" || cell.ends_with(|c: char| c.is_ascii_digit()))
        })
        .collect();
    ensure!(silent.is_empty(), "{silent:?}");
    Ok(())
}

fn by_polling_as_root() -> Result<()> {
    if !crate::support::namespace::is_root() {
        return Err(skip("not root"));
    }
    judge(&polled(User::Root)?)
}

fn by_polling_as_a_user() -> Result<()> {
    judge(&polled(User::Ordinary)?)
}
