//! Makes a database as months of work leave it, through the real writer: sessions of agents, the tools they start,
//! endpoints of which few are busy and many rare, failures, names that come late. The same seed gives the same rows.
//!
//! `cargo xtask bench db --events N --out FILE [--seed S]`

use std::error::Error;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rano::internals::connection::{Connection, End};
use rano::internals::event::{
    Address, Bytes, Class, ConnectionId, DomainSource, Event, EventKind, KnownName, Moment, OwnerQuality,
    Protocol, SocketState, SourceKind,
};
use rano::internals::files::Rights;
use rano::internals::health::{Gap, Gaps};
use rano::internals::process::{Ancestor, Call, Process, ProcessId, Tool};
use rano::internals::source::Role;
use rano::internals::store::{Session, Store, StoreOptions};
use rano::internals::update::{Counters, Renamed, Update};

/// 2026-01-17T19:30:00Z: when the first session starts.
const START: i64 = 1_768_678_200_000;
const DAY_MS: i64 = 86_400_000;
const ENDPOINTS: u64 = 2_000;
/// Connections that one session has open at a time.
const OPEN: usize = 64;
/// The usual one: some 14 MiB of events in memory.
const BATCH: usize = 10_000;

const AGENTS: [(&str, &str); 4] =
    [("anthropic", "claude"), ("openai", "codex"), ("google", "gemini"), ("anthropic", "claude")];
const TOOLS: [&str; 8] = ["git", "curl", "node", "npm", "python3", "pip", "cargo", "ssh"];

struct Options {
    events: u64,
    out: PathBuf,
    seed: u64,
}

fn main() -> Result<(), Box<dyn Error>> {
    let Some(options) = options()? else {
        println!("skipped: needs --out FILE");
        return Ok(());
    };
    if options.out.exists() {
        return Err(format!("{} exists already", options.out.display()).into());
    }
    let begin = Instant::now();
    let mut random = Random(options.seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
    let endpoints: Vec<Endpoint> = (0..ENDPOINTS).map(endpoint).collect();
    let sessions = (options.events / 50_000).clamp(1, 50);
    // The latest one has a fifth of everything, as a long run has.
    let last = if sessions == 1 { options.events } else { options.events / 5 };
    let mut left = options.events;
    for number in 0..sessions {
        let count = if number + 1 == sessions { left } else { (options.events - last) / (sessions - 1) };
        left -= count;
        Run::new(number, count, &endpoints, &mut random).write(&options, number + 1 == sessions)?;
    }
    let size = std::fs::metadata(&options.out)?.len();
    #[expect(clippy::cast_precision_loss, reason = "a size on disk in a printed average")]
    let bytes = size as f64 / options.events as f64;
    println!(
        "{}: {} events in {sessions} sessions, {bytes:.1} bytes/event, {:.1} s",
        options.out.display(),
        options.events,
        begin.elapsed().as_secs_f64()
    );
    Ok(())
}

/// `None` without `--out`: cargo runs every bench.
fn options() -> Result<Option<Options>, Box<dyn Error>> {
    let (mut events, mut out, mut seed) = (1_000_000, None, 1);
    let mut arguments = std::env::args().skip(1);
    while let Some(argument) = arguments.next() {
        let mut value = || arguments.next().ok_or_else(|| format!("{argument} needs a value"));
        match argument.as_str() {
            "--events" => events = value()?.parse()?,
            "--out" => out = Some(PathBuf::from(value()?)),
            "--seed" => seed = value()?.parse()?,
            "--bench" => {}
            other => return Err(format!("unknown argument {other}").into()),
        }
    }
    Ok(out.map(|out| Options { events, out, seed }))
}

struct Endpoint {
    remote: Address,
    /// One in five has none.
    name: Option<KnownName>,
    class: Class,
}

/// One session being made.
struct Run<'a> {
    number: u64,
    count: u64,
    endpoints: &'a [Endpoint],
    random: &'a mut Random,
    agents: Vec<Arc<Process>>,
    tool: Arc<Process>,
    processes: u64,
    connections: u64,
    open: Vec<Event>,
    at: Moment,
    totals: Counters,
}

impl<'a> Run<'a> {
    fn new(number: u64, count: u64, endpoints: &'a [Endpoint], random: &'a mut Random) -> Self {
        let agents: Vec<_> =
            (0..).zip(AGENTS).map(|(index, agent)| process(number, index, agent, None)).collect();
        let tool = Arc::clone(&agents[0]);
        // Two sessions a three days, some of them at the same time.
        let start = START + i64::try_from(number).expect("few sessions") * DAY_MS * 2 / 3;
        let mut gaps = Gaps::default();
        gaps.set(Gap::Unattributed, number % 7);
        Self {
            number,
            count,
            endpoints,
            random,
            agents,
            tool,
            processes: 4,
            connections: 0,
            open: Vec::new(),
            at: Moment { boot_ns: 0, unix_ms: start },
            totals: Counters { gaps, ..Counters::default() },
        }
    }

    fn write(mut self, options: &Options, is_last: bool) -> Result<(), Box<dyn Error>> {
        let start = self.at.unix_ms;
        let store = Store::start(
            &StoreOptions {
                path: options.out.clone(),
                rights: Rights::here(),
                batch_size: BATCH,
                flush_interval: Duration::from_secs(1),
                queue_max: 4 * BATCH,
                retain: None,
                seal_key: None,
            },
            &self.session(),
        )?;
        // Spread over twelve hours, the last one over thirty.
        let hours = if is_last { 30 } else { 12 };
        let step = (hours * 3_600_000_000 / self.count.max(1)).max(1);
        let mut dropped = 0;
        for index in 0..self.count {
            let micros = index * step;
            self.at = Moment {
                boot_ns: micros * 1_000,
                unix_ms: start + i64::try_from(micros / 1_000).expect("some hours"),
            };
            let event = self.next();
            let update = Update::Event(event);
            store.push(&update);
            // A full queue drops; here the event is pushed again when the writer has made room.
            while store.dropped() > dropped {
                dropped += 1;
                std::thread::sleep(Duration::from_micros(200));
                store.push(&update);
            }
            if self.random.below(100) == 0 {
                let name: Arc<str> = format!("late-{}.example.net", self.random.below(40)).into();
                let name = Some(KnownName { name, by: DomainSource::Ptr });
                let Update::Event(event) = update else { continue };
                let Event { at, connection, .. } = event.with(|it| it.name = name);
                store.push(&Update::Renamed(Renamed { at, connection, before: None }));
            }
        }
        self.totals.active = self.open.len() as u64;
        let finished = store.finish(self.totals, self.at.unix_ms);
        match finished.error {
            None => Ok(()),
            Some(error) => Err(error.into()),
        }
    }

    fn session(&self) -> Session {
        Session {
            run_id: format!("{}-{}", 4_000 + self.number, self.at.unix_ms),
            name: Some(format!("work-{}", self.number)),
            started_at: self.at.unix_ms,
            host: "workstation".to_owned(),
            user: "ann".to_owned(),
            args: vec!["rano".to_owned()],
            patterns: vec!["claude".to_owned(), "codex".to_owned(), "gemini".to_owned()],
            excludes: Vec::new(),
            config_files: Vec::new(),
            source: SourceKind::Proc,
            source_reason: Some("no privileges for the kernel hooks".to_owned()),
        }
    }

    fn next(&mut self) -> Event {
        if self.open.len() >= OPEN || (!self.open.is_empty() && self.random.below(2) == 0) {
            return self.close();
        }
        self.connections += 1;
        if self.random.below(60) == 0 {
            self.processes += 1;
            let tool = TOOLS[self.random.index(TOOLS.len())];
            let agent = Arc::clone(&self.agents[self.random.index(4)]);
            self.tool = process(self.number, self.processes, (&agent.provider, tool), Some(&agent));
        }
        let process = if self.random.below(3) == 0 {
            Arc::clone(&self.tool)
        } else {
            Arc::clone(&self.agents[self.random.index(4)])
        };
        let event = self.connect(&process);
        if self.random.below(33) == 0 {
            let error = Some(if self.random.below(2) == 0 { 111 } else { 110 });
            let end = End { at: event.at, duration: None, error, is_late: false, has_failed: true };
            return Event { kind: EventKind::Fail, ..event }.with(|it| {
                it.ended = Some(end);
                it.state = None;
            });
        }
        self.open.push(event.clone());
        self.totals.peak_active = self.totals.peak_active.max(self.open.len() as u64);
        event
    }

    fn connect(&mut self, process: &Arc<Process>) -> Event {
        // Few endpoints are busy: the square of an even choice is far from even.
        // A tool knows a few of them: an agent's web searches go anywhere.
        let is_tool = TOOLS.contains(&process.comm.as_str());
        let reach = if is_tool { 100 } else { ENDPOINTS };
        let choice = self.random.below(reach);
        let skewed = choice * choice / reach;
        let endpoint = &self.endpoints[usize::try_from(skewed).expect("an index")];
        let port = u16::try_from(32_768 + self.random.below(28_232)).expect("a port");
        let local = match &endpoint.remote {
            Address::Ip(SocketAddr::V6(_)) => IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 0x23)),
            Address::Ip(SocketAddr::V4(_)) | Address::Host(_) | Address::Path(_) => {
                IpAddr::V4(Ipv4Addr::new(192, 168, 1, 23))
            }
        };
        let protocol = if skewed.is_multiple_of(20) { Protocol::Udp } else { Protocol::Tcp };
        let connection = Connection {
            provider: Arc::clone(&process.provider),
            process: Some(Arc::clone(process)),
            local: Some(Address::Ip(SocketAddr::new(local, port))),
            remote: Some(endpoint.remote.clone()),
            name: endpoint.name.clone(),
            class: endpoint.class,
            state: Some(SocketState::Established),
            owner_quality: OwnerQuality::Polled,
            netns: 4_026_531_840,
            ..Connection::new(ConnectionId(self.connections), Role::Connect, protocol, self.at)
        };
        Event { kind: EventKind::Connect, at: self.at, connection: Arc::new(connection) }
    }

    fn close(&mut self) -> Event {
        let which = self.random.index(self.open.len());
        let connect = self.open.swap_remove(which);
        let (at, duration) = (self.at, Some(self.at.since(connect.at)));
        let bytes =
            Bytes { sent: 200 + self.random.below(20_000), received: 1_000 + self.random.below(500_000) };
        Event { kind: EventKind::Close, at, ..connect }.with(|it| {
            it.ended = Some(End { at, duration, error: None, is_late: false, has_failed: false });
            it.bytes = Some(bytes);
            it.state = Some(SocketState::Closed);
        })
    }
}

fn process(
    session: u64,
    number: u64,
    (provider, comm): (&str, &str),
    parent: Option<&Process>,
) -> Arc<Process> {
    let pid = u32::try_from(2_000 + number % 4_000_000).expect("below the most pids");
    let ancestor = |comm: &str, pid| Ancestor { comm: comm.to_owned(), pid, program: comm.to_owned() };
    let mut ancestry = vec![ancestor("systemd", 1), ancestor("bash", 1_700)];
    ancestry.extend(parent.map(|parent| ancestor(&parent.comm, parent.id.pid)));
    ancestry.push(ancestor(comm, pid));
    Arc::new(Process {
        key: number,
        id: ProcessId { pid, start_time: 100_000 + number },
        ppid: parent.map_or(1_700, |parent| parent.id.pid),
        uid: 1_000,
        comm: comm.to_owned(),
        cmdline: format!("{comm} --quiet --session {session} /srv/code/project-{number}"),
        exe: format!("/usr/bin/{comm}"),
        provider: provider.into(),
        ancestry,
        program: comm.to_owned(),
        cwd: Some(format!("/srv/code/project-{}", number % 16).into()),
        call: parent.map(|parent| {
            let tool = Tool {
                cmdline: format!("bash -c 'cd /srv/code/project-{number} && {comm} --quiet'"),
                id: ProcessId { pid: pid - 1, start_time: 99_999 + number },
                started_ms: START,
            };
            Arc::new(Call {
                agent: parent.comm.as_str().into(),
                agent_id: parent.id,
                session: Some(format!("session-{session}").into()),
                tool: Some(tool),
            })
        }),
        trace: None,
    })
}

fn endpoint(number: u64) -> Endpoint {
    let low = u8::try_from(number % 250).expect("below 250");
    let high = u8::try_from(number / 250).expect("few nets");
    let ip = if number % 4 == 3 {
        IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0xff, high.into(), 0, 0, 0, low.into()))
    } else {
        IpAddr::V4(Ipv4Addr::new(203, high, 113, low))
    };
    // Several addresses share a name.
    let name = if number.is_multiple_of(5) {
        None
    } else {
        Some(KnownName {
            name: format!("api-{}.service.example.com", number / 3).into(),
            by: DomainSource::Dns,
        })
    };
    let classes = [Class::LlmApi, Class::CodeHost, Class::Registry, Class::Telemetry, Class::Unknown];
    let class = classes[usize::try_from(number % 5).expect("below five")];
    Endpoint { remote: Address::Ip(SocketAddr::new(ip, 443)), name, class }
}

/// xorshift64, so that each run is the same.
struct Random(u64);

impl Random {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % limit
    }

    fn index(&mut self, length: usize) -> usize {
        usize::try_from(self.below(length as u64)).expect("below a length")
    }
}
