//! From a connect to its line, while a resolver is asked that never answers, and while nobody is asked: nothing waits
//! for names.

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{TcpListener, UdpSocket};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};

use super::load;
use super::measure::{median, milliseconds};
use super::table::Table;

/// Each to an address of its own, so that each is to be looked up.
const CONNECTS: u8 = 100;

pub(crate) fn measure(rano: &Path) -> Result<Table> {
    let mut table = Table::new(&["source", "reverse look-ups", "connect to line, median", "slowest"]);
    let scratch = tempfile::tempdir()?;
    let resolv_conf = scratch.path().join("resolv.conf");
    std::fs::write(&resolv_conf, "nameserver 127.0.0.1\n")?;
    let target = std::fs::canonicalize("/etc/resolv.conf").context("find /etc/resolv.conf")?;
    // The mount namespace is this measurement's own.
    rustix::mount::mount_bind(&resolv_conf, &target).context("put a resolv.conf over the machine's")?;
    let mute = UdpSocket::bind("127.0.0.1:53").context("bind the port of DNS")?;
    let listener = TcpListener::bind("0.0.0.0:0")?;
    let port = listener.local_addr()?.port();
    std::thread::spawn(move || {
        let mut kept = Vec::new();
        kept.extend(listener.incoming().map_while(Result::ok));
    });
    for source in ["proc", "ebpf"] {
        if source == "ebpf" && !rustix::process::geteuid().is_root() {
            table.skip("ebpf: needs root");
            continue;
        }
        for (what, argument) in [("none", "--no-dns"), ("never answered", "--ptr-private")] {
            let times = times(rano, scratch.path(), port, &["--source", source, argument])?;
            let slowest = times.iter().max().copied().unwrap_or_default();
            table.row(vec![source.into(), what.into(), milliseconds(median(times)), milliseconds(slowest)]);
        }
    }
    let mut question = [0; 512];
    mute.set_nonblocking(true)?;
    ensure!(mute.recv(&mut question).is_ok(), "the resolver was never asked");
    Ok(table)
}

fn times(rano: &Path, scratch: &Path, port: u16, arguments: &[&str]) -> Result<Vec<Duration>> {
    let mut agent = Agent::start(scratch)?;
    let mut observer = Lines::of(rano, scratch, arguments)?;
    agent.connect(&format!("127.1.0.1:{port}"))?;
    observer.wait_for("127.1.0.1")?;
    let mut times = Vec::new();
    for last in 0..CONNECTS {
        let address = format!("127.2.0.{last}");
        let begin = Instant::now();
        agent.connect(&format!("{address}:{port}"))?;
        observer.wait_for(&address)?;
        times.push(begin.elapsed());
    }
    Ok(times)
}

/// A process that rano takes for Claude Code; it connects where it is told to.
struct Agent {
    child: Child,
    told: ChildStdin,
}

impl Agent {
    fn start(directory: &Path) -> Result<Self> {
        let program = directory.join("claude");
        if !program.exists() {
            std::fs::copy(std::env::current_exe()?, &program).context("copy the agent's program")?;
        }
        let mut command = Command::new(program);
        command.arg(load::CONNECT_TO).stdin(Stdio::piped()).stdout(Stdio::null());
        let mut child = command.spawn().context("start the agent")?;
        let told = child.stdin.take().context("standard input was piped")?;
        Ok(Self { child, told })
    }

    fn connect(&mut self, to: &str) -> Result<()> {
        writeln!(self.told, "{to}").context("tell the agent")
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// What a rano says.
struct Lines {
    child: Child,
    said: BufReader<ChildStdout>,
}

impl Lines {
    fn of(rano: &Path, directory: &Path, arguments: &[&str]) -> Result<Self> {
        let mut command = Command::new(rano);
        command.args(["--no-config", "--json", "--no-sqlite", "--interval-ms", "20", "--domain-mode", "ptr"]);
        command.args(arguments).current_dir(directory);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut child = command.spawn().context("start rano")?;
        let said = BufReader::new(child.stdout.take().context("standard output was piped")?);
        Ok(Self { child, said })
    }

    /// The line of a connect to `address`.
    fn wait_for(&mut self, address: &str) -> Result<()> {
        let remote = format!("\"remote_ip\":\"{address}\"");
        let mut line = String::new();
        while !(line.contains("\"connect\"") && line.contains(&remote)) {
            line.clear();
            ensure!(self.said.read_line(&mut line)? > 0, "rano ended before it told of {address}");
        }
        Ok(())
    }
}

impl Drop for Lines {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
