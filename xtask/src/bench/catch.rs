//! How many short connections of an agent's children get their process without privileges, by how long they are held,
//! beside `ss -tnp` in a loop that costs as much. As an ordinary user, in the first namespaces, where the kernel tells
//! of processes; all traffic is on loopback.

use std::collections::HashSet;
use std::fs::File;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};

use super::measure::cpu_time;
use super::table::Table;
use crate::system::find_in_path;

/// Whoever observes and is observed, where root measures.
const NOBODY: u32 = 65_534;
/// Programs that an ordinary user can run.
const PATH: &str = "/usr/local/bin:/usr/bin:/bin";
const HELD_MS: [u64; 3] = [90, 20, 5];
const CALLS: usize = 30;
const FETCH: &str = "import sys, urllib.request; urllib.request.urlopen(sys.argv[1]).read()";
/// The agent: after a line on its standard input, one call after the other.
const AGENT: &str =
    "read -r go; n=$1; shift; for i in $(seq $n); do \"$@\" >/dev/null 2>&1; sleep 0.05; done; exit 0";

pub(crate) fn measure(rano: &Path) -> Result<Table> {
    let mut table = Table::new(&["child", "held", "rano", "rano's CPU", "ss -tnp in a loop", "its CPU"]);
    let scratch = tempfile::tempdir()?;
    let program = scratch.path().join("rano");
    std::fs::copy(rano, &program).context("copy rano to where everybody can run it")?;
    let everybody = <std::fs::Permissions as std::os::unix::fs::PermissionsExt>::from_mode(0o755);
    std::fs::set_permissions(scratch.path(), everybody)?;
    let ss = find_in_path("ss");
    if ss.is_none() {
        table.skip("ss: not installed");
    }
    for held in HELD_MS {
        let port = serve(Duration::from_millis(held))?;
        let (name, address) = (format!("http://localhost:{port}/"), format!("http://127.0.0.1:{port}/"));
        let calls: [(&str, &str, Vec<&str>); 3] = [
            ("curl, by name", "curl", vec!["curl", "-s", &name]),
            ("curl, by address", "curl", vec!["curl", "-s", &address]),
            ("python, by name", "python3", vec!["python3", "-c", FETCH, &name]),
        ];
        for (what, comm, call) in calls {
            if find_in_path(comm).is_none() {
                table.skip(format!("{comm}: not installed"));
                continue;
            }
            let (caught, share) = with_rano(&program, &call, port, comm)?;
            let beside = match &ss {
                Some(ss) => Some(with_ss(ss, &call, port, comm, share)?),
                None => None,
            };
            let of = |count: usize| format!("{count} of {CALLS}");
            let percent = |share: f64| format!("{:.2} %", share * 100.0);
            table.row(vec![
                what.into(),
                format!("{held} ms"),
                of(caught),
                percent(share),
                beside.map_or_else(String::new, |(caught, _)| of(caught)),
                beside.map_or_else(String::new, |(_, share)| percent(share)),
            ]);
        }
    }
    Ok(table)
}

/// Answers each request on a port of its own after that time.
fn serve(held: Duration) -> Result<u16> {
    let listener = TcpListener::bind("127.0.0.1:0").context("listen")?;
    let port = listener.local_addr()?.port();
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            std::thread::spawn(move || answer(stream, held));
        }
    });
    Ok(port)
}

fn answer(mut stream: TcpStream, held: Duration) {
    let _ = stream.read(&mut [0; 4096]);
    std::thread::sleep(held);
    let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok");
}

fn as_ordinary_user(command: &mut Command) -> &mut Command {
    command.env("PATH", PATH).env("HOME", "/nonexistent").current_dir("/");
    if rustix::process::geteuid().is_root() {
        command.uid(NOBODY).gid(NOBODY);
    }
    command
}

fn agent(call: &[&str]) -> Result<Child> {
    let mut command = Command::new("bash");
    command.arg0("claude").args(["-c", AGENT, "claude"]).arg(CALLS.to_string()).args(call);
    command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
    as_ordinary_user(&mut command).spawn().context("start the agent")
}

fn release(agent: &mut Child) -> Result<()> {
    let mut go = agent.stdin.take().context("its standard input was piped")?;
    Ok(go.write_all(b"go\n")?)
}

/// How many were told with their process, and the share of a processor that took.
fn with_rano(rano: &Path, call: &[&str], port: u16, comm: &str) -> Result<(usize, f64)> {
    let mut agent = agent(call)?;
    let told = tempfile::tempfile()?;
    let mut command = Command::new(rano);
    command.args(["--no-config", "--no-sqlite", "--source", "proc", "--json", "--no-dns", "--pid"]);
    command.arg(agent.id().to_string()).stdin(Stdio::null()).stdout(told.try_clone()?).stderr(Stdio::piped());
    let mut observer = as_ordinary_user(&mut command).spawn().context("start rano")?;
    let mut said = BufReader::new(observer.stderr.take().context("its standard error was piped")?).lines();
    ensure!(
        said.by_ref().map_while(Result::ok).any(|line| line == "watching"),
        "rano ended before it watched"
    );
    std::thread::spawn(move || said.count());
    let (begin, before) = (Instant::now(), cpu_time(observer.id())?);
    release(&mut agent)?;
    agent.wait()?;
    let cpu = cpu_time(observer.id())?.saturating_sub(before);
    let share = cpu.as_secs_f64() / begin.elapsed().as_secs_f64();
    let id = rustix::process::Pid::from_child(&observer);
    rustix::process::kill_process(id, rustix::process::Signal::INT)?;
    observer.wait()?;
    Ok((told_of(told, port, comm)?, share))
}

fn told_of(mut told: File, port: u16, comm: &str) -> Result<usize> {
    std::io::Seek::rewind(&mut told)?;
    let (remote, comm) = (format!("\"remote\":\"127.0.0.1:{port}\""), format!("\"comm\":\"{comm}"));
    let lines = BufReader::new(told).lines().map_while(Result::ok);
    let connects = lines.filter(|line| {
        line.contains("\"event\":\"connect\"") && line.contains(&remote) && line.contains(&comm)
    });
    Ok(connects.count())
}

/// The same by `ss`, run again and again with a pause, so that it takes that `share` of a processor.
fn with_ss(ss: &Path, call: &[&str], port: u16, comm: &str, share: f64) -> Result<(usize, f64)> {
    let mut agent = agent(call)?;
    let mut ports = HashSet::new();
    let begin = Instant::now();
    let before = of_children()?;
    release(&mut agent)?;
    let mut spent = Duration::ZERO;
    while agent.try_wait()?.is_none() {
        let mut command = Command::new(ss);
        let output = as_ordinary_user(command.args(["-tnpH"])).output().context("run ss")?;
        let text = String::from_utf8_lossy(&output.stdout);
        let is_its = |line: &&str| line.contains(&format!("127.0.0.1:{port} ")) && line.contains(comm);
        ports.extend(
            text.lines().filter(is_its).filter_map(|line| line.split_whitespace().nth(3).map(str::to_owned)),
        );
        // What it took so far is to be that share of the time.
        spent = of_children()?.saturating_sub(before);
        let due = Duration::from_secs_f64(spent.as_secs_f64() / share.max(0.000_1));
        while begin.elapsed() < due && agent.try_wait()?.is_none() {
            std::thread::sleep(Duration::from_millis(1));
        }
    }
    Ok((ports.len(), spent.as_secs_f64() / begin.elapsed().as_secs_f64()))
}

/// Processor time of children that ended and were waited for; the agent, which also is one, is not waited for before
/// the end.
fn of_children() -> Result<Duration> {
    let mut usage = std::mem::MaybeUninit::<libc::rusage>::zeroed();
    // SAFETY: the pointer leads to a whole `rusage`, which the kernel fills.
    let result = unsafe { libc::getrusage(libc::RUSAGE_CHILDREN, usage.as_mut_ptr()) };
    ensure!(result == 0, "getrusage");
    // SAFETY: zeros are a value of it, and the kernel has filled it.
    let usage = unsafe { usage.assume_init() };
    let time = |time: libc::timeval| -> Result<Duration> {
        Ok(Duration::from_secs(time.tv_sec.try_into()?) + Duration::from_micros(time.tv_usec.try_into()?))
    };
    Ok(time(usage.ru_utime)? + time(usage.ru_stime)?)
}
