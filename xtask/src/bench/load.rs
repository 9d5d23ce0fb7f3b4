//! The workload: processes that sleep and processes that hold connections.

use std::ffi::OsString;
use std::fs;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Child, Command, ExitCode, Stdio};

use anyhow::{Context as _, Result, bail};

/// Role: holds both ends of so many connections.
pub(crate) const HOLD: &str = "__hold";
/// Role: holds so many connections to an address.
pub(crate) const CONNECT: &str = "__connect";
/// Role: connects to each address that it is told, a line each, and holds the connections.
pub(crate) const CONNECT_TO: &str = "__connect_to";

/// Sockets of one holder; below the usual limit of open files.
const SOCKETS_A_HOLDER: usize = 800;

/// Processes that end when this is dropped.
#[derive(Default)]
pub(crate) struct Load {
    children: Vec<Child>,
}

impl Load {
    /// `count` processes that do nothing.
    pub(crate) fn sleepers(&mut self, count: usize) -> Result<()> {
        for _ in 0..count {
            // As long as any sleep takes; `infinity` is GNU's alone.
            let sleeper =
                Command::new("sleep").arg("2147483647").stdin(Stdio::null()).stdout(Stdio::null()).spawn();
            self.children.push(sleeper.context("start sleep")?);
        }
        Ok(())
    }

    /// About `count` established sockets, half of them each other's ends, in processes that are no agents.
    pub(crate) fn sockets(&mut self, count: usize) -> Result<()> {
        let mut left = count / 2 * 2;
        while left > 0 {
            let now = left.min(SOCKETS_A_HOLDER);
            let mut command = Command::new(std::env::current_exe()?);
            command.arg0("holder").arg(HOLD).arg((now / 2).to_string());
            self.ready(command)?;
            left -= now;
        }
        Ok(())
    }

    /// A process that rano takes for Claude Code, with `count` connections to `to`. Its program is put into
    /// `directory`.
    pub(crate) fn agent(&mut self, directory: &Path, to: SocketAddr, count: usize) -> Result<()> {
        let program = directory.join("claude");
        if !program.exists() {
            fs::copy(std::env::current_exe()?, &program).context("copy the agent's program")?;
        }
        let mut command = Command::new(program);
        command.arg(CONNECT).arg(to.to_string()).arg(count.to_string());
        self.ready(command)
    }

    /// Starts it and waits for its line that all is there.
    fn ready(&mut self, mut command: Command) -> Result<()> {
        let mut child =
            command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().context("start a holder")?;
        let output = child.stdout.take().context("standard output was piped")?;
        self.children.push(child);
        let mut line = String::new();
        BufReader::new(output).read_line(&mut line)?;
        if line != "ready\n" {
            bail!("a holder said '{}'", line.trim_end());
        }
        Ok(())
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        for child in &mut self.children {
            let _ = child.kill();
        }
        for child in &mut self.children {
            let _ = child.wait();
        }
    }
}

/// Accepts and keeps everything, until the process ends.
pub(crate) fn keeping_server() -> Result<SocketAddr> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    rustix::net::listen(&listener, 4096)?;
    let address = listener.local_addr()?;
    std::thread::spawn(move || {
        let mut kept = Vec::new();
        kept.extend(listener.incoming().map_while(Result::ok));
    });
    Ok(address)
}

/// Sockets of IPv4 that are established, in this network namespace.
pub(crate) fn established() -> Result<usize> {
    // The fourth column is the state; 01 is established (include/net/tcp_states.h).
    let table = fs::read_to_string("/proc/net/tcp")?;
    Ok(table.lines().filter(|line| line.split_whitespace().nth(3) == Some("01")).count())
}

/// Processes that /proc shows.
pub(crate) fn processes() -> Result<usize> {
    let entries = fs::read_dir("/proc")?.filter_map(Result::ok);
    Ok(entries.filter(|entry| entry.file_name().as_encoded_bytes().iter().all(u8::is_ascii_digit)).count())
}

pub(crate) fn hold(arguments: &[OsString]) -> Result<ExitCode> {
    let [count] = arguments else { bail!("{HOLD} takes a count") };
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let mut ends = Vec::new();
    for _ in 0..count.to_string_lossy().parse::<usize>()? {
        ends.push(TcpStream::connect(listener.local_addr()?)?);
        ends.push(listener.accept()?.0);
    }
    drop(listener);
    until_told(ends)
}

pub(crate) fn connect(arguments: &[OsString]) -> Result<ExitCode> {
    let [to, count] = arguments else { bail!("{CONNECT} takes an address and a count") };
    let limits = rustix::process::getrlimit(rustix::process::Resource::Nofile);
    let raised = rustix::process::Rlimit { current: limits.maximum, ..limits };
    rustix::process::setrlimit(rustix::process::Resource::Nofile, raised)?;
    let to: SocketAddr = to.to_string_lossy().parse()?;
    let count: usize = count.to_string_lossy().parse()?;
    let ends = (0..count).map(|_| TcpStream::connect(to)).collect::<std::io::Result<Vec<_>>>()?;
    until_told(ends)
}

pub(crate) fn connect_to() -> Result<ExitCode> {
    let mut ends = Vec::new();
    for address in std::io::stdin().lines() {
        ends.push(TcpStream::connect(address?)?);
    }
    drop(ends);
    Ok(ExitCode::SUCCESS)
}

/// Keeps `ends` open until standard input ends.
fn until_told(ends: Vec<TcpStream>) -> Result<ExitCode> {
    println!("ready");
    std::io::stdout().flush()?;
    std::io::stdin().read_to_end(&mut Vec::new())?;
    drop(ends);
    Ok(ExitCode::SUCCESS)
}
