//! Many short processes at once: each runs as an agent for a few milliseconds and connects a few times.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::process::{Command, ExitCode, Stdio};

use anyhow::{Context as _, Result, ensure};

use crate::cgroup::Corner;
use crate::support::actor::{Service, Transport};
use crate::support::rano::default_database;
use crate::support::scene::Scene;
use crate::support::stage;

crate::tests![every_connection_of_many_short_processes_is_seen];

/// Set in a process of the swarm; the value says which part it plays.
const MARKER: &str = "RANO_TEST_SWARM";
/// Starts one agent after the other.
const RUNNER: &str = "runner";
/// Connects and ends.
const AGENT: &str = "agent";

pub const RUNNERS: usize = 8;

/// How many processes, and what each does.
#[derive(Debug, Clone, Copy)]
pub struct Size {
    pub agents_a_runner: usize,
    pub connections_an_agent: usize,
}

/// 100,000 connections of 2,000 processes, as fast as they go: for a rano that was built to be used.
const FULL: Size = Size { agents_a_runner: 250, connections_an_agent: 50 };
/// An unoptimised rano cannot read so much so fast.
const UNOPTIMISED: Size = Size { agents_a_runner: 125, connections_an_agent: 4 };
/// What an emulated machine does in ten seconds.
const SMALL: Size = Size { agents_a_runner: 25, connections_an_agent: 20 };
/// `small` asks for [`SMALL`].
const SIZE: &str = "RANO_TEST_SIZE";

/// The machine is emulated.
pub fn is_small() -> bool {
    std::env::var_os(SIZE).is_some_and(|size| size == "small")
}

fn size() -> Size {
    if is_small() {
        SMALL
    } else if cfg!(debug_assertions) {
        UNOPTIMISED
    } else {
        FULL
    }
}

/// What an agent said of itself.
pub struct Agent {
    pid: u32,
    index: String,
    /// Its further arguments.
    rest: String,
    ports: Vec<u16>,
}

pub fn play_if_asked() -> Option<ExitCode> {
    let part = std::env::var_os(MARKER)?;
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let played = if part == RUNNER { run(&arguments) } else { be_agent(&arguments) };
    Some(match played {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("swarm: {error:?}");
            ExitCode::FAILURE
        }
    })
}

/// Arguments: server, the agent's program, first index, how many agents, connections of each.
fn run(arguments: &[String]) -> Result<()> {
    let [server, program, first, count, connections] = arguments else { anyhow::bail!("five arguments") };
    let first: usize = first.parse()?;
    for index in first..first + count.parse::<usize>()? {
        let status = Command::new(program)
            .args(["--agent", &index.to_string(), server, connections])
            .env(MARKER, AGENT)
            .status()
            .context("start an agent")?;
        ensure!(status.success(), "agent {index} ended with {status}");
    }
    Ok(())
}

/// Arguments: `--agent`, index, server, connections.
fn be_agent(arguments: &[String]) -> Result<()> {
    let [_, index, server, connections] = arguments else { anyhow::bail!("four arguments") };
    let server: SocketAddr = server.parse()?;
    let mut line = format!("{} {index}", std::process::id());
    for _ in 0..connections.parse::<usize>()? {
        let stream = TcpStream::connect(server)?;
        let _ = write!(line, " {}", stream.local_addr()?.port());
    }
    line.push('\n');
    // One write of less than PIPE_BUF: lines of several agents do not mix.
    std::io::stdout().write_all(line.as_bytes())?;
    Ok(())
}

/// Lets the swarm loose on the scene's server, in a cgroup of its own if there is one.
pub fn release(scene: &Scene, server: SocketAddr, size: Size, corner: Option<&Corner>) -> Result<Vec<Agent>> {
    let mut runners = Vec::new();
    for runner in 0..RUNNERS {
        let mut command = Command::new(stage::actor("runner")?);
        command.arg(server.to_string()).arg(stage::actor("claude")?);
        let agents = size.agents_a_runner;
        command.args([runner * agents, agents, size.connections_an_agent].map(|number| number.to_string()));
        command.env_clear().env(MARKER, RUNNER).stdin(Stdio::null()).stdout(Stdio::piped());
        scene.place.apply(&mut command);
        if let Some(corner) = corner {
            corner.apply(&mut command);
        }
        let mut child = command.spawn().context("start a runner")?;
        let output = child.stdout.take().context("standard output was piped")?;
        let lines = std::thread::spawn(move || BufReader::new(output).lines().collect::<Result<Vec<_>, _>>());
        runners.push((child, lines));
    }
    let mut found = Vec::new();
    for (mut child, lines) in runners {
        ensure!(child.wait()?.success(), "a runner failed");
        let lines = lines.join().map_err(|_| anyhow::anyhow!("the reader of a runner panicked"))??;
        for line in lines {
            let mut words = line.split(' ');
            let mut next = || words.next().context("a word is missing");
            let (pid, index) = (next()?.parse()?, next()?.to_owned());
            let ports = words.map(str::parse).collect::<Result<_, _>>()?;
            found.push(Agent { pid, index, rest: format!("{server} {}", size.connections_an_agent), ports });
        }
    }
    ensure!(found.len() == size.agents_a_runner * RUNNERS, "{} agents spoke", found.len());
    Ok(found)
}

fn every_connection_of_many_short_processes_is_seen() -> Result<()> {
    let mut scene = crate::scene()?;
    let server = scene.server.serve(Transport::Tcp, "127.0.0.1:0", Service::Drain)?;
    let rano = scene.observe(&["--source", "ebpf", "--db-queue-max", "1000000"])?;
    let agents = release(&scene, server, size(), None)?;
    scene.let_it_look(&rano)?;
    rano.interrupt()?.expect_code(0)?;
    check_complete(&scene, &agents)
}

/// Every connection of every agent has its connect and its close, fully attributed, there is nothing else, and nothing
/// was lost.
pub fn check_complete(scene: &Scene, agents: &[Agent]) -> Result<()> {
    let database = rusqlite::Connection::open(default_database(scene.directory()))?;
    let (dropped, unfollowed): (i64, i64) =
        database.query_row("SELECT kernel_dropped, kernel_unfollowed FROM sessions", [], |row| {
            Ok((row.get(0)?, row.get(1)?))
        })?;
    ensure!((dropped, unfollowed) == (0, 0), "dropped {dropped}, unfollowed {unfollowed}");
    let mut statement = database.prepare(
        "SELECT event, local_port, pid, comm, cmdline, ancestry_path, owner_quality FROM events \
         WHERE provider = 'anthropic' AND netns = (SELECT netns FROM events WHERE pid = ?1)",
    )?;
    // Agents of other tests, in namespaces of their own, are seen too.
    let mut rows = statement.query([agents[0].pid])?;
    let mut seen: HashMap<(String, String, u16), (u32, [String; 4])> = HashMap::new();
    let mut count = 0;
    while let Some(row) = rows.next()? {
        count += 1;
        let cmdline: String = row.get::<_, Option<String>>(4)?.unwrap_or_default();
        // Ports are used again within seconds, and pids within a minute.
        let index =
            cmdline.split(' ').skip_while(|word| *word != "--agent").nth(1).unwrap_or_default().to_owned();
        let [comm, ancestry, quality] = [row.get(3)?, row.get(5)?, row.get(6)?];
        seen.insert((row.get(0)?, index, row.get(1)?), (row.get(2)?, [comm, cmdline, ancestry, quality]));
    }
    for agent in agents {
        for &port in &agent.ports {
            for event in ["connect", "close"] {
                let pid = agent.pid;
                let found = seen.get(&(event.to_owned(), agent.index.clone(), port));
                let Some((owner, [comm, cmdline, ancestry, quality])) = found else {
                    anyhow::bail!("no {event} of agent {}, {pid}, on port {port}", agent.index)
                };
                ensure!(
                    *owner == pid && comm == "claude" && quality == "exact",
                    "{owner}, {comm}, {quality}"
                );
                ensure!(cmdline.ends_with(&format!("--agent {} {}", agent.index, agent.rest)), "{cmdline}");
                ensure!(ancestry.ends_with(&format!("claude:{pid}")), "{ancestry}");
                ensure!(ancestry.contains("runner:"), "{ancestry}");
            }
        }
    }
    let expected = agents.iter().map(|agent| agent.ports.len()).sum::<usize>() * 2;
    ensure!(count == expected, "{count} events, not {expected}");
    Ok(())
}
