//! How fast events become durable rows, on one core and all in: pushing, writing, the last checkpoint. Beside it, in
//! the same run, `sqlite3 .import` of the same data as CSV into a plain table.
//!
//! `cargo bench -p rano --bench store -- [--events N] [--batch N] [--dir DIR] [--runs N] [--keep]`

use std::error::Error;
use std::fs::File;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rano::internals::connection::{Connection, End};
use rano::internals::event::{
    Address, Bytes, Class, ConnectionId, DomainSource, Event, EventKind, KnownName, Moment, OwnerQuality,
    Protocol, SocketState, SourceKind,
};
use rano::internals::files::Rights;
use rano::internals::process::{Ancestor, Call, Process, ProcessId, Tool};
use rano::internals::source::Role;
use rano::internals::store::{Session, Store, StoreOptions};
use rano::internals::update::{Counters, Update};

const PROCESSES: u64 = 200;
const ENDPOINTS: u64 = 500;
/// Connections that are open at a time.
const OPEN: u64 = 64;
/// 2026-01-17T19:30:00Z.
const START: i64 = 1_768_678_200_000;

struct Options {
    events: u64,
    batch: usize,
    directory: PathBuf,
    runs: u32,
    keep: bool,
}

fn main() -> Result<(), Box<dyn Error>> {
    let options = options()?;
    let first = rustix::thread::sched_getaffinity(None)?;
    let cpu =
        (0..rustix::thread::CpuSet::MAX_CPU).find(|cpu| first.is_set(*cpu)).ok_or("no cpu to run on")?;
    let mut one = rustix::thread::CpuSet::new();
    one.set(cpu);
    rustix::thread::sched_setaffinity(None, &one)?;

    let events = realistic(options.events);
    println!(
        "store: {} events (connect and close pairs, {PROCESSES} processes, {ENDPOINTS} endpoints), one core, \
         batch {}, queue {}, WAL, synchronous=NORMAL, in {}",
        events.len(),
        options.batch,
        4 * options.batch,
        options.directory.display()
    );
    let database = options.directory.join("rano-bench.sqlite");
    let plain = options.directory.join("rano-bench-import.sqlite");
    let csv = options.directory.join("rano-bench.csv");
    for _ in 0..options.runs {
        remove(&database);
        let written = write(&events, &database, options.batch)?;
        let rate = per_second(events.len(), written);
        let size = std::fs::metadata(&database)?.len();
        #[expect(clippy::cast_precision_loss, reason = "a size on disk in a printed average")]
        let bytes = size as f64 / events.len() as f64;
        println!("rano     {rate:>9.0} events/s   {bytes:.1} bytes/event");
        match import(&database, &csv, &plain)? {
            Some(imported) => {
                let peer = per_second(events.len(), imported);
                println!(".import  {peer:>9.0} rows/s     rano/.import {:.2}", rate / peer);
            }
            None => println!(".import  skipped: no sqlite3 in PATH"),
        }
    }
    remove(&plain);
    remove(&csv);
    if !options.keep {
        remove(&database);
    }
    Ok(())
}

fn options() -> Result<Options, Box<dyn Error>> {
    let mut options =
        Options { events: 1_000_000, batch: 10_000, directory: std::env::temp_dir(), runs: 3, keep: false };
    // `cargo bench` adds this; `cargo test --all-targets` does not, and only wants to see it run.
    if !std::env::args().any(|argument| argument == "--bench") {
        options = Options { events: 1000, runs: 1, ..options };
    }
    let mut arguments = std::env::args().skip(1);
    while let Some(argument) = arguments.next() {
        let mut value = || arguments.next().ok_or_else(|| format!("{argument} needs a value"));
        match argument.as_str() {
            "--events" => options.events = value()?.parse()?,
            "--batch" => options.batch = value()?.parse()?,
            "--dir" => options.directory = value()?.into(),
            "--runs" => options.runs = value()?.parse()?,
            "--keep" => options.keep = true,
            "--bench" => {}
            other => return Err(format!("unknown argument {other}").into()),
        }
    }
    Ok(options)
}

fn write(events: &[Event], path: &Path, batch_size: usize) -> Result<Duration, Box<dyn Error>> {
    let options = StoreOptions {
        path: path.to_owned(),
        rights: Rights::here(),
        batch_size,
        flush_interval: Duration::from_secs(1),
        queue_max: 4 * batch_size,
        retain: None,
        seal_key: None,
    };
    let session = Session {
        run_id: "1-1768678200000".to_owned(),
        name: Some("bench".to_owned()),
        started_at: START,
        host: "host".to_owned(),
        user: "user".to_owned(),
        args: Vec::new(),
        patterns: Vec::new(),
        excludes: Vec::new(),
        config_files: Vec::new(),
        source: SourceKind::Proc,
        source_reason: None,
    };
    let start = Instant::now();
    let store = Store::start(&options, &session)?;
    let mut dropped = 0;
    for event in events {
        let update = Update::Event(event.clone());
        store.push(&update);
        // A full queue drops; here the event is pushed again when the writer has made room.
        while store.dropped() > dropped {
            dropped += 1;
            std::thread::sleep(Duration::from_micros(100));
            store.push(&update);
        }
    }
    let finished = store.finish(Counters::default(), START);
    let elapsed = start.elapsed();
    if finished.stored != events.len() as u64 || finished.error.is_some() {
        return Err(format!("not everything was stored: {finished:?}").into());
    }
    Ok(elapsed)
}

/// `None` without a `sqlite3`.
fn import(database: &Path, csv: &Path, plain: &Path) -> Result<Option<Duration>, Box<dyn Error>> {
    if Command::new("sqlite3").arg("--version").stdout(Stdio::null()).status().is_err() {
        return Ok(None);
    }
    remove(plain);
    sqlite3(
        Command::new("sqlite3")
            .args(["-csv", "-header"])
            .arg(database)
            .arg("SELECT * FROM events")
            .stdout(File::create(csv)?),
    )?;
    sqlite3(
        Command::new("sqlite3")
            .arg(plain)
            .arg("PRAGMA journal_mode=WAL; PRAGMA synchronous=NORMAL;")
            .stdout(Stdio::null()),
    )?;
    let start = Instant::now();
    sqlite3(
        Command::new("sqlite3")
            .arg(plain)
            .arg("PRAGMA synchronous=NORMAL;")
            .arg(format!(".import --csv {} events", csv.display())),
    )?;
    Ok(Some(start.elapsed()))
}

fn sqlite3(command: &mut Command) -> Result<(), Box<dyn Error>> {
    let status = command.status()?;
    if status.success() { Ok(()) } else { Err(format!("{command:?}: {status}").into()) }
}

fn remove(path: &Path) {
    for suffix in ["", "-wal", "-shm"] {
        let mut path = path.as_os_str().to_owned();
        path.push(suffix);
        // It need not be there.
        let _ = std::fs::remove_file(path);
    }
}

#[expect(clippy::cast_precision_loss, reason = "a count in a printed rate")]
fn per_second(count: usize, elapsed: Duration) -> f64 {
    count as f64 / elapsed.as_secs_f64()
}

/// Connections that open and close in an interleaved order, each with a local port and byte counts of its own.
fn realistic(count: u64) -> Vec<Event> {
    let processes: Vec<Arc<Process>> = (0..PROCESSES).map(process).collect();
    let endpoints: Vec<(Address, Option<KnownName>)> = (0..ENDPOINTS).map(endpoint).collect();
    let mut random = Random(42);
    let mut events = Vec::new();
    let mut open: Vec<Event> = Vec::new();
    let mut at = Moment { boot_ns: 0, unix_ms: START };
    let mut number = 0;
    for _ in 0..count {
        let step = random.below(20);
        at = Moment {
            boot_ns: at.boot_ns + step * 1_000_000,
            unix_ms: at.unix_ms + i64::try_from(step).expect("a small step"),
        };
        if open.len() as u64 >= OPEN || (!open.is_empty() && random.below(2) == 0) {
            let which = random.below(open.len() as u64);
            let connect = open.swap_remove(usize::try_from(which).expect("an index"));
            let duration = Some(at.since(connect.at));
            let bytes = Bytes { sent: 200 + random.below(20_000), received: 1_000 + random.below(500_000) };
            events.push(Event { kind: EventKind::Close, at, ..connect }.with(|it| {
                it.ended = Some(End { at, duration, error: None, is_late: false, has_failed: false });
                it.bytes = Some(bytes);
                it.state = Some(SocketState::Closed);
            }));
            continue;
        }
        number += 1;
        let process = &processes[usize::try_from(random.below(PROCESSES)).expect("an index")];
        let (remote, name) = endpoints[usize::try_from(random.below(ENDPOINTS)).expect("an index")].clone();
        let port = u16::try_from(32_768 + random.below(28_232)).expect("a port");
        let connection = Connection {
            provider: Arc::clone(&process.provider),
            process: Some(Arc::clone(process)),
            local: Some(Address::Ip(SocketAddr::new(IpAddr::V4(Ipv4Addr::new(192, 168, 1, 23)), port))),
            remote: Some(remote),
            name,
            class: Class::LlmApi,
            state: Some(SocketState::Established),
            owner_quality: OwnerQuality::Polled,
            netns: 4_026_531_840,
            ..Connection::new(ConnectionId(number), Role::Connect, Protocol::Tcp, at)
        };
        let event = Event { kind: EventKind::Connect, at, connection: Arc::new(connection) };
        open.push(event.clone());
        events.push(event);
    }
    events
}

fn process(number: u64) -> Arc<Process> {
    let pid = 2_000 + u32::try_from(number).expect("few processes");
    let (provider, comm) = match number % 4 {
        0 => ("anthropic", "claude"),
        1 => ("openai", "codex"),
        2 => ("google", "gemini"),
        _ => ("anthropic", "curl"),
    };
    let ancestor = |comm: &str, pid| Ancestor { comm: comm.to_owned(), pid, program: comm.to_owned() };
    Arc::new(Process {
        key: number,
        id: ProcessId { pid, start_time: 100_000 + number },
        ppid: 1_700,
        uid: 1_000,
        comm: comm.to_owned(),
        cmdline: format!(
            "{comm} --model large --session {number} --output-format json /srv/code/project-{number}"
        ),
        exe: format!("/home/user/.local/share/{comm}/bin/{comm}"),
        provider: provider.into(),
        ancestry: vec![ancestor("systemd", 1), ancestor("bash", 1_700), ancestor(comm, pid)],
        program: format!("{comm}-cli"),
        cwd: Some(format!("/srv/code/project-{}", number % 16).into()),
        call: Some(Arc::new(Call {
            agent: comm.into(),
            agent_id: ProcessId { pid: 1_900, start_time: 90_000 },
            session: Some("0d0dc0de-5c3f-4a52-9d1c-6a1e0f7b2c11".into()),
            tool: Some(Tool {
                cmdline: format!("bash -c 'make -j4 check && {comm} --quiet /srv/code/project-{number}'"),
                id: ProcessId { pid: pid - 1, start_time: 99_999 + number },
                started_ms: START,
            }),
        })),
        trace: None,
    })
}

fn endpoint(number: u64) -> (Address, Option<KnownName>) {
    let host = u8::try_from(number % 250).expect("below 250");
    let net = u8::try_from(number / 250).expect("few nets");
    let remote = Address::Ip(SocketAddr::new(IpAddr::V4(Ipv4Addr::new(203, net, 113, host)), 443));
    // One in five has no name.
    let name = if number.is_multiple_of(5) {
        None
    } else {
        Some(KnownName { name: format!("api-{number}.service.example.com").into(), by: DomainSource::Dns })
    };
    (remote, name)
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
}
