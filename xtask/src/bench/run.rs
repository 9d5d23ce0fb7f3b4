//! What `rano run` adds to a connection of the command, beside nothing and beside `strace -f -e trace=network`.

use std::io::Read as _;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};

use super::measure::median;
use super::table::Table;
use crate::system::find_in_path;

/// Role: connects so many times to an address and prints how many nanoseconds that took.
pub(crate) const CONNECT_OFTEN: &str = "__connect_often";

const RUNS: usize = 5;
const CONNECTS: u32 = 2000;

pub(crate) fn measure(rano: &Path) -> Result<Table> {
    let mut table = Table::new(&["connect + close, one thread", "µs each", "beside none"]);
    let scratch = tempfile::tempdir()?;
    let listener = TcpListener::bind("127.0.0.1:0").context("listen")?;
    let address = listener.local_addr()?;
    std::thread::spawn(move || {
        // Whoever connects closes.
        for stream in listener.incoming().flatten() {
            std::thread::spawn(move || {
                let _ = (&stream).read(&mut [0; 16]);
            });
        }
    });
    let strace = find_in_path("strace");
    if strace.is_none() {
        table.skip("strace: not installed");
    }
    let run = |source: &'static str| vec!["run", "--no-config", "--no-sqlite", "--source", source, "--"];
    let ways: [(&str, Option<&Path>, Vec<&str>); 4] = [
        ("none", None, Vec::new()),
        ("rano run --source seccomp", Some(rano), run("seccomp")),
        ("rano run --source proc", Some(rano), run("proc")),
        (
            "strace -f -e trace=network",
            strace.as_deref(),
            vec!["-f", "-q", "-e", "trace=network", "-o", "/dev/null"],
        ),
    ];
    let mut none = None;
    for (name, program, arguments) in ways {
        if program.is_none() && name != "none" {
            continue;
        }
        let times: Result<Vec<Duration>> =
            (0..RUNS).map(|_| once(program, &arguments, address, scratch.path())).collect();
        let each = median(times?).as_secs_f64() * 1e6 / f64::from(CONNECTS);
        let none = *none.get_or_insert(each);
        table.row(vec![name.into(), format!("{each:.1}"), format!("{:.2}", each / none)]);
    }
    Ok(table)
}

fn once(program: Option<&Path>, arguments: &[&str], to: SocketAddr, directory: &Path) -> Result<Duration> {
    let own = std::env::current_exe()?;
    let mut command = Command::new(program.unwrap_or(&own));
    if program.is_some() {
        command.args(arguments).arg(&own);
    }
    command.arg(CONNECT_OFTEN).arg(to.to_string()).current_dir(directory);
    let output = command.stdin(Stdio::null()).stderr(Stdio::null()).output().context("start it")?;
    ensure!(output.status.success(), "it ended with {}", output.status);
    let printed = String::from_utf8(output.stdout)?;
    Ok(Duration::from_nanos(printed.trim().parse().context("what it printed")?))
}

/// Plays the role.
pub(crate) fn connect_often(to: &str) -> Result<ExitCode> {
    let begin = Instant::now();
    for _ in 0..CONNECTS {
        drop(TcpStream::connect(to)?);
    }
    println!("{}", begin.elapsed().as_nanos());
    Ok(ExitCode::SUCCESS)
}
