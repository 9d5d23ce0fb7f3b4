//! What one poll costs, beside `ss` listing the same sockets with and without their processes.

use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::Result;

use super::load::{self, Load};
use super::measure::{Observer, cpu_time, median_cost, milliseconds, ratio};
use super::table::Table;
use crate::system::find_in_path;

const SOCKETS: [usize; 3] = [0, 1_000, 20_000];
const PROCESSES: [usize; 2] = [50, 5_000];
/// Of the sockets, held by a process that is watched.
const WATCHED: usize = 10;
const INTERVAL: Duration = Duration::from_millis(200);
/// Several times the ten polls in which every process has its turn.
const POLLS: u32 = 40;
const PEER_RUNS: usize = 15;

pub(crate) fn measure(rano: &Path) -> Result<Table> {
    let mut table =
        Table::new(&["sockets", "processes", "still", "stirred", "ss -tnp", "ratio", "ss -tn", "ratio"]);
    let ss = find_in_path("ss");
    if ss.is_none() {
        table.skip("ss: not installed");
    }
    let scratch = tempfile::tempdir()?;
    let server = load::keeping_server()?;
    for processes in PROCESSES {
        let mut load = Load::default();
        load.sleepers(processes)?;
        for sockets in SOCKETS {
            let mut sockets_load = Load::default();
            let watched = WATCHED.min(sockets);
            sockets_load.agent(scratch.path(), server, watched)?;
            // The server's ends of the watched ones count too.
            sockets_load.sockets(sockets - 2 * watched)?;
            let (there, running) = (load::established()?, load::processes()?);
            let still = cost_of_a_poll(rano, scratch.path(), None)?;
            let stirred = cost_of_a_poll(rano, scratch.path(), Some(server))?;
            let mut cells =
                vec![there.to_string(), running.to_string(), milliseconds(still), milliseconds(stirred)];
            for option in ["-tnp", "-tn"] {
                let Some(ss) = &ss else {
                    cells.extend(["–".into(), "–".into()]);
                    continue;
                };
                let peer = median_cost(PEER_RUNS, || {
                    let mut command = Command::new(ss);
                    command.arg(option);
                    command
                })?;
                let ratios = format!("{} / {}", ratio(still, peer.cpu), ratio(stirred, peer.cpu));
                cells.extend([milliseconds(peer.cpu), ratios]);
            }
            table.row(cells);
        }
    }
    Ok(table)
}

/// CPU time of rano in steady state, divided by the polls in it. With `stir`, a stranger opens a connection there
/// before each poll and closes the one before, so that each finds the counters moved, a new socket and one that is
/// gone.
fn cost_of_a_poll(rano: &Path, directory: &Path, stir: Option<SocketAddr>) -> Result<Duration> {
    let interval = INTERVAL.as_millis().to_string();
    let arguments = ["--source", "proc", "--no-sqlite", "--interval-ms", &interval];
    let observer = Observer::start(rano, directory, &arguments)?;
    let before = cpu_time(observer.pid())?;
    let mut open = None;
    for _ in 0..POLLS {
        open = stir.map(TcpStream::connect).transpose()?;
        std::thread::sleep(INTERVAL);
    }
    drop(open);
    Ok(cpu_time(observer.pid())?.saturating_sub(before) / POLLS)
}
