//! What the kernel programs cost whoever connects, by what rano makes of him, beside `tcplife` of libbpf-tools on the
//! same kernel; and what rano itself does at full speed and when nothing happens.

use std::ffi::OsString;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStderr, ChildStdin, ChildStdout, Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use rustix::mount::MountFlags;
use rustix::process::{Pid, Signal, kill_process};
use rustix::time::{ClockId, clock_gettime};

use super::measure::{cpu_time, median, online_cpus, pin, pin_myself};
use super::table::Table;
use crate::system::find_in_path;

/// Role: connects to itself when told to.
pub(crate) const CLIENT: &str = "__client";
/// Role: measures one rung, in a guest.
pub(crate) const COSTS: &str = "__costs";

/// How much is measured.
#[derive(Clone, Copy)]
struct Size {
    rounds: usize,
    /// Connections of a client in a round; those of one that nobody reads about must fit into the ring buffer.
    connections: usize,
}

const HERE: Size = Size { rounds: 9, connections: 3000 };
const EMULATED: Size = Size { rounds: 3, connections: 4000 };
/// Connections of a client before they are measured.
const WARM_UP: usize = 50;
/// Of each of two clients at once.
const FULL_SPEED: usize = 14_000;
const IDLE: Duration = Duration::from_secs(5);
/// Time for programs to be attached.
const SETTLE: Duration = Duration::from_secs(1);
/// Time for the verdict on whoever connected for the first time to arrive; in a guest it takes its time.
const VERDICT: Duration = Duration::from_millis(400);
/// Looking for names in packets has a bench of its own.
const WITHOUT_NAMES: [&str; 3] = ["--no-sqlite", "--domain-mode", "ptr"];
const RUNGS: [&str; 3] = ["fentry", "kprobe", "tracepoint"];

pub(crate) fn measure(rano: &Path) -> Result<Table> {
    // Where tcplife looks for its tracepoint; in the mount namespace of this measurement.
    let tracefs =
        rustix::mount::mount("tracefs", "/sys/kernel/tracing", "tracefs", MountFlags::empty(), None);
    if let Err(errno) = tracefs {
        eprintln!("tracefs: {errno}");
    }
    let scratch = tempfile::tempdir()?;
    let bench = Bench::new(rano, scratch.path(), HERE)?;
    let mut table = Table::new(&HEADINGS);
    for rung in RUNGS {
        match bench.available(rung)? {
            None => bench.costs(rung, &mut table)?,
            Some(reason) => table.skip(format!("{rung}: {reason}")),
        }
    }
    bench.full_speed()?;
    bench.idle()?;
    Ok(table)
}

/// The guest's side of `cargo xtask vm --bench`: `RANO RUNG`.
pub(crate) fn measure_in_guest(arguments: &[OsString]) -> Result<ExitCode> {
    let [rano, rung] = arguments else { bail!("{COSTS} takes a program and a rung") };
    let scratch = tempfile::tempdir()?;
    let bench = Bench::new(Path::new(rano), scratch.path(), EMULATED)?;
    let mut table = Table::new(&HEADINGS);
    bench.costs(&rung.to_string_lossy(), &mut table)?;
    table.print();
    Ok(ExitCode::SUCCESS)
}

const HEADINGS: [&str; 8] =
    ["", "connect+close", "of tcplife", "both ends", "of tcplife", "its reader", "all of it", "of tcplife"];

/// Name of a client that is nobody's agent.
const STRANGER: &str = "stranger";
/// Name of one that is.
const AGENT: &str = "claude";

/// Medians of a round.
#[derive(Debug, Clone, Copy)]
struct Round {
    /// Of the client's connect and close.
    client: Duration,
    /// With the server's accept and close.
    both: Duration,
    /// All of it.
    took: Duration,
}

/// Of one process: with somebody watching, and with nobody.
struct Pair {
    with: Round,
    without: Round,
    /// CPU time of whoever watched, for each connection.
    reader: Duration,
}

/// Medians over the pairs of what is added to a connection, in microseconds.
#[derive(Clone, Copy)]
struct Added {
    client: f64,
    both: f64,
    reader: f64,
}

impl Added {
    fn of(pairs: &[Pair]) -> Self {
        let difference = |of: fn(&Round) -> Duration| {
            median_difference(pairs.iter().map(|pair| (of(&pair.with), of(&pair.without))))
        };
        Self {
            client: difference(|round| round.client),
            both: difference(|round| round.both),
            reader: median(pairs.iter().map(|pair| pair.reader).collect()).as_secs_f64() * 1e6,
        }
    }

    fn row(self, name: &str, peer: Option<Self>) -> Vec<String> {
        let all: fn(Self) -> f64 = |added| added.both + added.reader;
        let share = |of: fn(Self) -> f64| {
            peer.map_or_else(|| "–".to_owned(), |peer| format!("{:.2}", of(self) / of(peer)))
        };
        vec![
            name.to_owned(),
            format!("+{:.2} µs", self.client),
            share(|added| added.client),
            format!("+{:.2} µs", self.both),
            share(|added| added.both),
            format!("+{:.2} µs", self.reader),
            format!("+{:.2} µs", all(self)),
            share(all),
        ]
    }
}

struct Bench {
    rano: PathBuf,
    scratch: PathBuf,
    size: Size,
}

impl Bench {
    fn new(rano: &Path, scratch: &Path, size: Size) -> Result<Self> {
        for name in [STRANGER, AGENT] {
            std::fs::copy(std::env::current_exe()?, scratch.join(name)).context("copy the client")?;
        }
        Ok(Self { rano: rano.to_owned(), scratch: scratch.to_owned(), size })
    }

    /// Why a rung is not to be had here.
    fn available(&self, rung: &str) -> Result<Option<String>> {
        match self.observe(rung, &WITHOUT_NAMES) {
            Ok(observer) => observer.end().map(|_| None),
            Err(error) => Ok(Some(format!("{error:#}"))),
        }
    }

    /// The cost to a client that is ignored, one that is not judged yet, and one that is watched. What each does is
    /// measured twice, before and after whoever watches has gone: two processes that do the same differ by more than
    /// what is looked for.
    fn costs(&self, rung: &str, table: &mut Table) -> Result<()> {
        let tcplife = find_in_path("tcplife");
        if tcplife.is_none() {
            table.skip("tcplife: not installed");
        }
        let mut kinds: [Vec<Pair>; 5] = Default::default();
        let [of_peer, ignored, undecided, watched, with_names] = &mut kinds;
        for _ in 0..self.size.rounds {
            // Taking turns, so that a slow moment of the machine hits all.
            if let Some(tcplife) = &tcplife {
                let mut stranger = self.client(STRANGER)?;
                let peer = Peer::start(tcplife)?;
                let with = self.read_by(peer.0.id(), &mut stranger)?;
                drop(peer);
                of_peer.push(stranger.without(with)?);
            }
            let mut stranger = self.client(STRANGER)?;
            let observer = self.observe(rung, &["--no-sqlite", "--domain-mode", "ebpf"])?;
            let with = self.read_by(observer.pid(), &mut stranger)?;
            observer.end()?;
            with_names.push(stranger.without(with)?);

            let mut stranger = self.client(STRANGER)?;
            let mut agent = self.client(AGENT)?;
            let observer = self.observe(rung, &WITHOUT_NAMES)?;
            let of_stranger = self.read_by(observer.pid(), &mut stranger)?;
            let of_agent = self.read_by(observer.pid(), &mut agent)?;
            // Whom a stopped rano does not know stays undecided.
            observer.signal(Signal::STOP)?;
            let mut unknown = self.client(STRANGER)?;
            let of_unknown = (unknown.run()?, Duration::ZERO);
            observer.signal(Signal::CONT)?;
            observer.end()?;
            ignored.push(stranger.without(of_stranger)?);
            watched.push(agent.without(of_agent)?);
            undecided.push(unknown.without(of_unknown)?);
        }
        let nobody: Vec<Round> = kinds.iter().flatten().map(|pair| pair.without).collect();
        let of_nobody = |of: fn(&Round) -> Duration| microseconds(median(nobody.iter().map(of).collect()));
        let mut cells = vec!["nobody".to_owned(), of_nobody(|round| round.client), "–".to_owned()];
        cells.push(of_nobody(|round| round.both));
        cells.resize(HEADINGS.len(), "–".to_owned());
        table.row(cells);
        let names = [
            "tcplife".to_owned(),
            format!("rano, {rung}: ignored"),
            format!("rano, {rung}: undecided"),
            format!("rano, {rung}: watched"),
            format!("rano, {rung}: ignored, names too"),
        ];
        let peer = (!kinds[0].is_empty()).then(|| Added::of(&kinds[0]));
        for (kind, name) in names.iter().enumerate().filter(|(kind, _)| !kinds[*kind].is_empty()) {
            table.row(Added::of(&kinds[kind]).row(name, peer.filter(|_| kind > 0)));
        }
        Ok(())
    }

    /// Lets a client connect, and whoever watches read of it.
    fn read_by(&self, pid: u32, client: &mut Client) -> Result<(Round, Duration)> {
        let before = cpu_time(pid)?;
        let round = client.run()?;
        std::thread::sleep(SETTLE);
        let used = cpu_time(pid)?.saturating_sub(before);
        Ok((round, used / u32::try_from(self.size.connections + WARM_UP)?))
    }

    /// Two agents that connect as fast as they can: what is lost, and what each event costs rano.
    fn full_speed(&self) -> Result<()> {
        let database = self.scratch.join("full-speed.sqlite");
        let database = database.to_string_lossy();
        let observer = self.observe("any", &["--sqlite", &database, "--db-queue-max", "1000000"])?;
        let clients = [self.client_on(AGENT, FULL_SPEED, 0)?, self.client_on(AGENT, FULL_SPEED, 1)?];
        std::thread::sleep(SETTLE);
        let before = cpu_time(observer.pid())?;
        let runs = clients.map(|mut client| std::thread::spawn(move || client.run()));
        let mut took = Duration::ZERO;
        for run in runs {
            let round = run.join().map_err(|_| anyhow::anyhow!("a client's thread panicked"))??;
            took = took.max(round.took);
        }
        // What is under way still is read.
        std::thread::sleep(SETTLE);
        let cpu = cpu_time(observer.pid())?.saturating_sub(before);
        let summary = observer.end()?;
        let events = 2 * 2 * FULL_SPEED;
        let count = |key: &str| {
            let line = summary.lines().find_map(|line| line.trim().strip_prefix(key)).unwrap_or("?");
            line.trim().to_owned()
        };
        let lost =
            summary.lines().find(|line| line.contains("kernel dropped")).unwrap_or("    0 kernel dropped");
        println!(
            "full speed: {} connects a second by two agents, {} connects and {} closes seen, {}; {:.0} ns of CPU an event, {:.0} events a CPU second",
            per_second(2 * FULL_SPEED, took),
            count("connects"),
            count("closes"),
            lost.trim().split(':').next().unwrap_or_default(),
            cpu.as_secs_f64() * 1e9 / events_as_float(events),
            events_as_float(events) / cpu.as_secs_f64(),
        );
        Ok(())
    }

    /// How often rano wakes up by itself. Other people's processes that start and end are told of, and wake it.
    fn idle(&self) -> Result<()> {
        let observer = self.observe("any", &WITHOUT_NAMES)?;
        std::thread::sleep(SETTLE);
        let (woken, started) = (wake_ups(observer.pid())?, processes_started()?);
        std::thread::sleep(IDLE);
        let (woken, started) =
            (wake_ups(observer.pid())? - woken, processes_started()?.saturating_sub(started));
        observer.end()?;
        println!(
            "idle: {woken} wake-ups in {} s, in which {started} processes and threads were started on the machine\n",
            IDLE.as_secs()
        );
        Ok(())
    }

    fn observe(&self, rung: &str, arguments: &[&str]) -> Result<Observer> {
        let mut command = Command::new(&self.rano);
        command.args(["--no-config", "--summary-only", "--stats-interval-ms", "0", "--source", "ebpf"]);
        command.args(arguments).env("RANO_RUNG", rung).current_dir(&self.scratch);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        pin(&mut command);
        let mut child = command.spawn().context("start rano")?;
        let mut talk = BufReader::new(child.stderr.take().context("standard error was piped")?);
        // The banner comes when everything is attached.
        let mut line = String::new();
        while !line.trim_start().starts_with("source") {
            line.clear();
            ensure!(talk.read_line(&mut line)? > 0, "rano ended early");
            if let Some(refused) = line.strip_prefix("error: ") {
                bail!("{}", refused.trim_end());
            }
        }
        std::thread::sleep(SETTLE);
        Ok(Observer { child, talk })
    }

    fn client(&self, name: &str) -> Result<Client> {
        self.client_on(name, self.size.connections, 0)
    }

    /// On a CPU of its own, and ready to run.
    fn client_on(&self, name: &str, connections: usize, cpu: usize) -> Result<Client> {
        let mut command = Command::new(self.scratch.join(name));
        command.arg(CLIENT).arg(connections.to_string()).arg(cpu.to_string());
        let mut child =
            command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().context("start a client")?;
        let orders = child.stdin.take().context("standard input was piped")?;
        let mut answers = BufReader::new(child.stdout.take().context("standard output was piped")?);
        let mut line = String::new();
        answers.read_line(&mut line)?;
        ensure!(line == "ready\n", "a client said '{}'", line.trim_end());
        Ok(Client { child, orders, answers })
    }
}

#[expect(clippy::cast_precision_loss, reason = "some ten thousands")]
fn events_as_float(events: usize) -> f64 {
    events as f64
}

fn per_second(count: usize, took: Duration) -> String {
    format!("{:.0}", events_as_float(count) / took.as_secs_f64())
}

struct Observer {
    child: Child,
    talk: BufReader<ChildStderr>,
}

impl Observer {
    fn pid(&self) -> u32 {
        self.child.id()
    }

    fn signal(&self, signal: Signal) -> Result<()> {
        // Not yet waited for, so the pid is still its own.
        Ok(kill_process(Pid::from_child(&self.child), signal)?)
    }

    /// SIGINT, then everything it said.
    fn end(mut self) -> Result<String> {
        let _ = self.signal(Signal::INT);
        let mut said = String::new();
        if let Some(mut output) = self.child.stdout.take() {
            output.read_to_string(&mut said)?;
        }
        self.talk.read_to_string(&mut said)?;
        self.child.wait()?;
        Ok(said)
    }
}

/// `tcplife`, which follows TCP states by a tracepoint and tells of every connection on the machine.
struct Peer(Child);

impl Peer {
    fn start(tcplife: &Path) -> Result<Self> {
        let mut command = Command::new(tcplife);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        pin(&mut command);
        let mut child = command.spawn().context("start tcplife")?;
        std::thread::sleep(SETTLE);
        if let Some(status) = child.try_wait()? {
            bail!("tcplife ended early: {status}");
        }
        Ok(Self(child))
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

struct Client {
    child: Child,
    orders: ChildStdin,
    answers: BufReader<ChildStdout>,
}

impl Client {
    /// Lets it connect.
    fn run(&mut self) -> Result<Round> {
        self.orders.write_all(b"go\n")?;
        let mut line = String::new();
        self.answers.read_line(&mut line)?;
        let mut numbers = line.split_whitespace().map(|word| word.parse().map(Duration::from_nanos));
        let mut next = || numbers.next().with_context(|| format!("a client said '{}'", line.trim_end()));
        Ok(Round { client: next()??, both: next()??, took: next()?? })
    }

    /// The same again, now that nobody watches any more.
    fn without(mut self, (with, reader): (Round, Duration)) -> Result<Pair> {
        Ok(Pair { with, without: self.run()?, reader })
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The client's own life: `CONNECTIONS CPU`. Both ends are in one thread, so that all the kernel does for a connection
/// is in its time.
pub(crate) fn be_client(arguments: &[OsString]) -> Result<ExitCode> {
    let [count, cpu] = arguments else { bail!("{CLIENT} takes a count and a CPU") };
    let count: usize = count.to_string_lossy().parse()?;
    pin_myself(cpu.to_string_lossy().parse()?);
    let listener = TcpListener::bind("0.0.0.0:0")?;
    // A destination of its own has ephemeral ports of its own.
    let [.., high, low] = std::process::id().to_be_bytes();
    let to = SocketAddr::from((Ipv4Addr::new(127, 1, high, low), listener.local_addr()?.port()));
    println!("ready");
    // Whoever reads has the other CPU; where there is none, his time is not the client's.
    let clock = if online_cpus() > 1 { ClockId::Monotonic } else { ClockId::ThreadCPUTime };
    for order in std::io::stdin().lines() {
        order?;
        // Caches are warm, and a verdict is asked for.
        for _ in 0..WARM_UP {
            connect_once(&listener, to, clock)?;
        }
        std::thread::sleep(VERDICT);
        let (mut client, mut both) = (Vec::with_capacity(count), Vec::with_capacity(count));
        let begin = Instant::now();
        for _ in 0..count {
            let (of_client, of_both) = connect_once(&listener, to, clock)?;
            client.push(of_client);
            both.push(of_both);
        }
        let took = begin.elapsed();
        println!("{} {} {}", median(client).as_nanos(), median(both).as_nanos(), took.as_nanos());
    }
    Ok(ExitCode::SUCCESS)
}

fn connect_once(listener: &TcpListener, to: SocketAddr, clock: ClockId) -> Result<(Duration, Duration)> {
    let begin = now(clock)?;
    let client = TcpStream::connect(to)?;
    let connected = now(clock)?;
    let server = listener.accept()?;
    let accepted = now(clock)?;
    drop(client);
    let closed = now(clock)?;
    drop(server);
    let end = now(clock)?;
    let of_client = connected.saturating_sub(begin) + closed.saturating_sub(accepted);
    Ok((of_client, end.saturating_sub(begin)))
}

fn now(clock: ClockId) -> Result<Duration> {
    Ok(Duration::try_from(clock_gettime(clock))?)
}

/// Times that threads of a process gave up a CPU by themselves, which is as often as they were woken.
fn wake_ups(pid: u32) -> Result<u64> {
    let mut count = 0;
    for task in std::fs::read_dir(format!("/proc/{pid}/task"))? {
        let status = std::fs::read_to_string(task?.path().join("status"))?;
        let line = status.lines().find_map(|line| line.strip_prefix("voluntary_ctxt_switches:"));
        count += line.context("no voluntary_ctxt_switches")?.trim().parse::<u64>()?;
    }
    Ok(count)
}

/// Of the whole machine, since it booted.
fn processes_started() -> Result<u64> {
    let stat = std::fs::read_to_string("/proc/stat")?;
    let line = stat.lines().find_map(|line| line.strip_prefix("processes "));
    Ok(line.context("no processes in /proc/stat")?.trim().parse()?)
}

/// In microseconds; may be less than nothing.
fn median_difference(pairs: impl Iterator<Item = (Duration, Duration)>) -> f64 {
    let mut differences: Vec<f64> =
        pairs.map(|(with, without)| (with.as_secs_f64() - without.as_secs_f64()) * 1e6).collect();
    differences.sort_by(f64::total_cmp);
    differences.get(differences.len() / 2).copied().unwrap_or(0.0)
}

fn microseconds(duration: Duration) -> String {
    format!("{:.2} µs", duration.as_secs_f64() * 1e6)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_difference_is_that_of_the_same_round() {
        let of = |micros: u64| Duration::from_micros(micros);
        let pairs = [(of(12), of(10)), (of(53), of(50)), (of(9), of(10))];
        assert!((median_difference(pairs.into_iter()) - 2.0).abs() < 1e-9);
    }

    #[test]
    fn this_process_has_been_woken() {
        std::thread::sleep(Duration::from_millis(1));
        assert!(wake_ups(std::process::id()).expect("status") > 0);
        assert!(processes_started().expect("stat") > 0);
    }
}
