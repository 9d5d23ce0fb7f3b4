//! From start to end of the shortest runs, beside `ss -tn`.

use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};

use super::load::Load;
use super::measure::{cpu_time, median, median_cost, milliseconds, pin};
use super::table::Table;
use crate::system::find_in_path;

const RUNS: usize = 31;
const PROCESSES: usize = 50;

pub(crate) fn measure(rano: &Path) -> Result<Table> {
    let mut table = Table::new(&["command", "wall", "CPU"]);
    let scratch = tempfile::tempdir()?;
    let mut load = Load::default();
    load.sleepers(PROCESSES)?;
    let ss = find_in_path("ss");
    if ss.is_none() {
        table.skip("ss: not installed");
    }
    let runs = [
        ("rano --version", Some(rano), &["--version"][..]),
        ("rano --once --no-sqlite", Some(rano), &["--once", "--no-sqlite", "--no-config"]),
        ("ss -tn", ss.as_deref(), &["-tn"]),
    ];
    for (name, program, arguments) in runs {
        let Some(program) = program else { continue };
        let cost = median_cost(RUNS, || {
            let mut command = Command::new(program);
            command.args(arguments).current_dir(scratch.path());
            command
        })?;
        table.row(vec![name.into(), milliseconds(cost.wall), milliseconds(cost.cpu)]);
    }
    if !rustix::process::geteuid().is_root() {
        table.skip("ebpf: needs root");
        return Ok(table);
    }
    for (name, mode) in [("with names", "ebpf"), ("without", "ptr")] {
        let times: Vec<_> =
            (0..RUNS).map(|_| until_it_observes(rano, scratch.path(), mode)).collect::<Result<_>>()?;
        let wall = median(times.iter().map(|(wall, _)| *wall).collect());
        let cpu = median(times.iter().map(|(_, cpu)| *cpu).collect());
        let name = format!("rano --source ebpf, {name}, until it observes");
        table.row(vec![name, milliseconds(wall), milliseconds(cpu)]);
    }
    Ok(table)
}

/// Wall and CPU time from its start to its banner, which comes when everything is attached.
fn until_it_observes(rano: &Path, directory: &Path, mode: &str) -> Result<(Duration, Duration)> {
    let mut command = Command::new(rano);
    command.args(["--no-config", "--no-sqlite", "--source", "ebpf", "--no-dns", "--domain-mode", mode]);
    command.current_dir(directory).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
    pin(&mut command);
    let begin = Instant::now();
    let mut child = command.spawn().context("start rano")?;
    let said = BufReader::new(child.stderr.take().context("standard error was piped")?);
    let is_banner = |line: &String| line.starts_with("  names ");
    let found = said.lines().map_while(Result::ok).any(|line| is_banner(&line));
    let (wall, cpu) = (begin.elapsed(), cpu_time(child.id()));
    child.kill()?;
    child.wait()?;
    ensure!(found, "rano ended before it observed");
    Ok((wall, cpu?))
}
