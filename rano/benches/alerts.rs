//! What alerts and live stats add to the pipeline in CPU time: all kinds of alerts, all views; and what names add
//! that are joined from DNS answers. The same recording is played with and without them, in turn. The recordings are
//! made here and always the same: connections with a name, a few hundred open at a time, 200,000 events in each second
//! of their time.
//!
//! `cargo bench -p rano --bench alerts -- [--events N] [--runs N]`

use std::error::Error;
use std::io::Cursor;
use std::sync::Arc;
use std::time::Duration;

use rano::internals::alerts::{AlertRules, Judge};
use rano::internals::event::{
    Address, Class, DomainSource, Moment, OwnerQuality, Protocol, SocketState, SourceKind,
};
use rano::internals::glob::Glob;
use rano::internals::names::{Answer, Evidence, Party};
use rano::internals::output::human::Clock;
use rano::internals::output::stream::Stream;
use rano::internals::output::style::Styles;
use rano::internals::pipeline::{Names, Pipeline, Scope};
use rano::internals::process::matching::{Origin, Rules, Targets};
use rano::internals::process::provider::{ProviderEntry, Providers};
use rano::internals::process::redact::Redaction;
use rano::internals::process::tree::Tree;
use rano::internals::process::{Image, ProcessChange, ProcessId};
use rano::internals::sink::Sink;
use rano::internals::sink::shown::Shown;
use rano::internals::sink::stats::{LiveStats, Room, StatsSettings};
use rano::internals::sink::terminal::{Format, Terminal, TerminalSettings};
use rano::internals::source::replay::Replay;
use rano::internals::source::{Closed, Opened, RawEvent, Role, SocketChange, SocketId};
use rano::internals::stop::Stop;
use rano::internals::totals::View;

/// Connections that are open at a time.
const OPEN: u64 = 500;
const NAMES: u64 = 2_000;
const AGENTS: [&str; 3] = ["claude", "codex", "gemini"];
/// Between two events of the recording: 200,000 a second.
const STEP_NS: u64 = 5_000;

fn main() -> Result<(), Box<dyn Error>> {
    let (events, runs) = options()?;
    let answered: Arc<[u8]> = recording(events, Told::ByAnswers).into();
    let recording: Arc<[u8]> = recording(events, Told::Outright).into();
    println!(
        "alerts: {events} connects and closes and half as many names, {runs} runs each, {} MiB of recording",
        recording.len() >> 20
    );
    let mut plain = Vec::new();
    let mut watched = Vec::new();
    let mut added = Vec::new();
    let mut joined = Vec::new();
    for _ in 0..runs {
        let without = play(&recording, With::Nothing)?;
        let with = play(&recording, With::AlertsAndStats)?;
        plain.push(without);
        watched.push(with);
        added.push((with.as_secs_f64() / without.as_secs_f64() - 1.0) * 100.0);
        let without = play(&answered, With::Nothing)?;
        let with = play(&answered, With::Names)?;
        joined.push((with.as_secs_f64() / without.as_secs_f64() - 1.0) * 100.0);
    }
    added.sort_unstable_by(f64::total_cmp);
    joined.sort_unstable_by(f64::total_cmp);
    println!("without             {:>9.0} events/s", rate(events, median(plain)));
    println!("alerts and stats    {:>9.0} events/s", rate(events, median(watched)));
    println!("added               {:>8.1} % (median of pairs)", added[added.len() / 2]);
    println!(
        "added by names      {:>8.1} % (median of pairs; an answer and its join for each connection)",
        joined[joined.len() / 2]
    );
    Ok(())
}

fn options() -> Result<(u64, usize), Box<dyn Error>> {
    let (mut events, mut runs) = (400_000, 9);
    // `cargo bench` adds this; `cargo test --all-targets` does not, and only wants to see it run.
    if !std::env::args().any(|argument| argument == "--bench") {
        (events, runs) = (2_000, 1);
    }
    let mut arguments = std::env::args().skip(1);
    while let Some(argument) = arguments.next() {
        let mut value = || arguments.next().ok_or_else(|| format!("{argument} needs a value"));
        match argument.as_str() {
            "--events" => events = value()?.parse()?,
            "--runs" => runs = value()?.parse()?,
            "--bench" => {}
            other => return Err(format!("unknown argument {other}").into()),
        }
    }
    Ok((events, runs))
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum With {
    Nothing,
    AlertsAndStats,
    Names,
}

/// How the name of a connection is told.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Told {
    Outright,
    ByAnswers,
}

fn play(recording: &Arc<[u8]>, with: With) -> Result<Duration, Box<dyn Error>> {
    let entry = |(name, pattern): (&str, &str)| ProviderEntry {
        name: name.to_owned(),
        patterns: vec![pattern.to_owned()],
        origin: Origin::Builtin,
    };
    let providers = [("anthropic", "claude"), ("openai", "codex"), ("google", "gemini")].map(entry);
    let rules = Rules::new(Targets { descendants: true, ..Targets::default() }, Vec::new());
    let tree = Tree::new(rules, Providers::new(providers), Redaction::On);
    let scope =
        Scope { udp: true, other: true, listening: false, unix: false, unattributed: false, pending: false };
    let settings = StatsSettings {
        interval: Duration::from_secs(2),
        width: 40,
        top: 5,
        views: View::ALL.into(),
        cycle: Duration::ZERO,
    };
    let stop = Stop::new()?;
    let terminal = TerminalSettings {
        format: Format::Pretty,
        show_events: false,
        show_summary: true,
        shown: Shown::default(),
        run_id: "bench".to_owned(),
        stats: (with == With::AlertsAndStats).then(|| LiveStats::new(settings)),
        bell: false,
        room: || Room::ENDLESS,
        columns: || 80,
        clock: Clock::Utc,
        is_quiet: false,
    };
    let nowhere = || Stream::new(Box::new(std::io::sink()), false, Styles::default());
    let terminal: Box<dyn Sink> = Box::new(Terminal::new(nowhere(), nowhere(), terminal, stop.clone()));
    let names = if with == With::Names { Names::recorded(Duration::from_secs(3)) } else { Names::none() };
    let mut pipeline = Pipeline::new(tree, scope, vec![terminal]).with_names(names);
    if with == With::AlertsAndStats {
        pipeline = pipeline.with_views(&View::ALL);
        pipeline = pipeline.with_judge(Judge::new(AlertRules {
            domains: ["*.malicious.com", "host-7.*", "*tracker*"]
                .map(|glob| Glob::of_names(glob).expect("a glob"))
                .into(),
            max_connections: Some(OPEN * 2),
            max_per_provider: Some(OPEN),
            duration: Some(Duration::from_secs(30)),
            unknown_domain: true,
            sent: Some(1 << 20),
            classes: vec![Class::Telemetry],
            seen: None,
            cooldown: Duration::from_secs(10),
        }));
    }
    let mut replay = Replay::new(Box::new(Cursor::new(Arc::clone(recording))), "recording".to_owned());
    let begin = cpu_time();
    let summary = pipeline.run(&mut replay, &stop, 5)?;
    let took = cpu_time().saturating_sub(begin);
    let alerted = summary.totals.alerts > 0;
    if alerted != (with == With::AlertsAndStats) || summary.totals.connects == 0 {
        return Err("the recording did not do what it is for".into());
    }
    Ok(took)
}

/// Of this thread, which does all the work: what else the machine does counts little.
fn cpu_time() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    Duration::try_from(time).expect("no CPU time is negative")
}

/// `events` connects and closes, each connection with a name between the two.
fn recording(events: u64, told: Told) -> Vec<u8> {
    let mut lines = Vec::new();
    let mut write = |event: &RawEvent| {
        serde_json::to_writer(&mut lines, event).expect("raw events always serialize");
        lines.push(b'\n');
    };
    let at = |step: u64| Moment {
        boot_ns: 1_000_000_000_000 + step * STEP_NS,
        unix_ms: 1_768_678_200_000 + i64::try_from(step * STEP_NS / 1_000_000).unwrap_or(0),
    };
    let owner = |agent: u64| ProcessId {
        pid: 1000 + u32::try_from(agent).expect("an index of three"),
        start_time: 1,
    };
    for (agent, name) in (0..).zip(AGENTS) {
        let exe = format!("/usr/bin/{name}");
        let image = Image { comm: name.to_owned(), exe, argv: vec![name.to_owned()], uid: 1000 };
        write(&RawEvent::Process(ProcessChange::found(owner(agent), 1, image, at(0))));
    }
    let id = |connection: u64| SocketId::Cookie { netns: 1, cookie: connection };
    let connections = events / 2;
    for connection in 0..connections + OPEN {
        let step = connection * 2;
        if connection < connections {
            let random = mixed(connection);
            let name = random % NAMES;
            let local = format!("10.0.0.1:{}", 1024 + connection % 60_000);
            let remote = format!(
                "203.0.{}.{}:{}",
                name / 250,
                name % 250,
                if random & 8 == 0 { 443 } else { 80 + (random >> 4 & 3) }
            );
            let address = |text: String| Some(Address::ip(text.parse().expect("an address")));
            let host: Arc<str> = format!("host-{name}.region-{}.example.com", name % 7).into();
            if told == Told::ByAnswers {
                let ip = remote.split(':').next().unwrap_or_default().parse().expect("an address");
                write(&RawEvent::Evidence(Evidence::Answer(Answer {
                    at: at(step),
                    to: Party::Socket(id(u64::MAX)),
                    uid: None,
                    asked: Arc::clone(&host),
                    addresses: vec![(ip, Duration::from_mins(1))],
                })));
            }
            write(&RawEvent::Socket(SocketChange::Opened(Opened {
                id: id(connection),
                role: Role::Connect,
                protocol: Protocol::Tcp,
                local: address(local),
                remote: address(remote),
                state: Some(SocketState::Established),
                owner: Some(owner(random >> 16 & 1)),
                quality: OwnerQuality::Polled,
                preexisting: false,
                at: at(step),
                netns: 1,
                peer_pid: None,
                source: SourceKind::Proc,
            })));
            if told == Told::Outright {
                write(&RawEvent::Socket(SocketChange::Named {
                    id: id(connection),
                    name: host,
                    by: DomainSource::Dns,
                    at: at(step),
                }));
            }
        }
        if connection >= OPEN {
            write(&RawEvent::Socket(SocketChange::Closed(Closed {
                id: id(connection - OPEN),
                at: at(step + 1),
                bytes: None,
                error: None,
                established: Some(true),
                duration: None,
            })));
        }
    }
    lines
}

/// The same for the same number, and nothing alike for its neighbour (splitmix64).
fn mixed(number: u64) -> u64 {
    let mut mixed = number.wrapping_add(0x9e37_79b9_7f4a_7c15);
    mixed = (mixed ^ mixed >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ mixed >> 31
}

fn median(mut times: Vec<Duration>) -> Duration {
    times.sort_unstable();
    times[times.len() / 2]
}

#[expect(clippy::cast_precision_loss, reason = "a printed rate")]
fn rate(events: u64, took: Duration) -> f64 {
    events as f64 / took.as_secs_f64()
}
