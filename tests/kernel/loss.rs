//! A ring buffer that is much too small: what finds no room is counted, and the counts add up. rano sees a cgroup of
//! the test's own and nobody else's connections.

use std::time::Duration;

use anyhow::{Result, ensure};
use rustix::process::Signal;

use crate::cgroup::Corner;
use crate::support::actor::{Actor, Service, Transport};
use crate::support::rano::{Finished, Rano};
use crate::support::scene::Scene;
use crate::swarm;

crate::tests![
    connections_of_a_known_process_add_up,
    connections_of_processes_that_were_lost_add_up,
    a_run_with_losses_is_not_complete,
    the_counts_are_the_same_wherever_they_are_shown,
];

/// Room for some thirty records.
const LITTLE_ROOM: [&str; 4] = ["--source", "ebpf", "--ring-bytes", "4096"];

const CONNECTIONS_AN_AGENT: usize = 4;

/// A rano that is confined to `corner`, after its first look.
fn observe(scene: &Scene, corner: &Corner, arguments: &[&str]) -> Result<(Rano, Actor)> {
    let mut marker = scene.agent("gemini")?;
    let (_, older) = marker.connect(Transport::Tcp, scene.tcp)?;
    let mut launch =
        scene.launch()?.args(["--stats-interval-ms", "0", "--db-queue-max", "1000000"]).args(arguments);
    corner.confine(launch.command());
    let rano = launch.start()?;
    rano.wait_for_event("connect", older)?;
    Ok((rano, marker))
}

/// While rano does not read, so that something is lost however slow the machine is; and while it does.
fn twice<T>(rano: &Rano, mut connect: impl FnMut() -> Result<T>) -> Result<(T, T)> {
    rano.signal(Signal::STOP)?;
    let unread = connect();
    rano.signal(Signal::CONT)?;
    Ok((unread?, connect()?))
}

/// What became of the connections that were made under observation.
#[derive(Debug)]
struct Account {
    shown: i64,
    unattributed: i64,
    unfollowed: i64,
    dropped: i64,
}

impl Account {
    fn of(scene: &Scene) -> Result<Self> {
        let database = scene.database()?;
        let session = |column| database.count(&format!("SELECT {column} FROM sessions"));
        Ok(Self {
            shown: database.count(
                "SELECT count(*) FROM events WHERE event IN ('connect', 'fail') AND NOT preexisting",
            )?,
            unattributed: session("unattributed")?,
            unfollowed: session("kernel_unfollowed")?,
            dropped: session("kernel_dropped")?,
        })
    }

    fn adds_up_to(&self, connections: usize) -> Result<()> {
        let sum = self.shown + self.unattributed + self.unfollowed;
        ensure!(
            sum == i64::try_from(connections)?,
            "{connections} connections were made, {sum} accounted for: {self:?}"
        );
        Ok(())
    }
}

fn connections_of_a_known_process_add_up() -> Result<()> {
    const COUNT: usize = 3000;
    let scene = crate::scene()?;
    let corner = Corner::new()?;
    let mut claude = scene.agent("claude")?;
    corner.take_in(claude.pid())?;
    let (rano, _marker) = observe(&scene, &corner, &LITTLE_ROOM)?;
    twice(&rano, || claude.short_connections(scene.tcp, COUNT / 2, Duration::ZERO))?;
    rano.interrupt()?.expect_code(0)?;
    let account = Account::of(&scene)?;
    ensure!(account.dropped > 0 && account.unfollowed > 0, "it was not too small: {account:?}");
    account.adds_up_to(COUNT)
}

fn connections_of_processes_that_were_lost_add_up() -> Result<()> {
    let lossy = Lossy::swarm(40)?;
    ensure!(lossy.account.dropped > 0, "it was not too small: {:?}", lossy.account);
    lossy.account.adds_up_to(lossy.agents.len() * CONNECTIONS_AN_AGENT)
}

fn a_run_with_losses_is_not_complete() -> Result<()> {
    let lossy = Lossy::swarm(20)?;
    let checked = swarm::check_complete(&lossy.scene, &lossy.agents);
    ensure!(checked.is_err(), "it passes the check of a run without losses: {:?}", lossy.account);
    Ok(())
}

fn the_counts_are_the_same_wherever_they_are_shown() -> Result<()> {
    let Lossy { scene, finished, account, .. } = Lossy::swarm(20)?;
    let report = scene.launch()?.args(["report", "--json"]).run()?;
    report.expect_code(0)?;
    let report: serde_json::Value = serde_json::from_str(&report.stdout)?;
    let text = scene.launch()?.args(["report"]).run()?.stdout;
    for (name, count) in [("kernel_dropped", account.dropped), ("kernel_unfollowed", account.unfollowed)] {
        let reported = &report["completeness"]["missed"][name];
        ensure!(reported.as_i64().unwrap_or(0) == count, "{name}: {count} stored, {reported} reported");
        let line = format!("{count} {}:", name.replace('_', " "));
        for shown in [&finished.stdout, &text] {
            // Thousands are set off by commas.
            ensure!(count == 0 || shown.replace(',', "").contains(&line), "no line with '{line}' in {shown}");
        }
    }
    Ok(())
}

/// What a rano with little room made of processes that lived for milliseconds.
struct Lossy {
    scene: Scene,
    finished: Finished,
    account: Account,
    agents: Vec<swarm::Agent>,
}

impl Lossy {
    fn swarm(agents_a_runner: usize) -> Result<Self> {
        let mut scene = crate::scene()?;
        let corner = Corner::new()?;
        let server = scene.server.serve(Transport::Tcp, "127.0.0.1:0", Service::Drain)?;
        let (rano, _marker) = observe(&scene, &corner, &LITTLE_ROOM)?;
        let size =
            swarm::Size { agents_a_runner: agents_a_runner / 2, connections_an_agent: CONNECTIONS_AN_AGENT };
        let (mut agents, more) = twice(&rano, || swarm::release(&scene, server, size, Some(&corner)))?;
        agents.extend(more);
        let finished = rano.interrupt()?;
        finished.expect_code(0)?;
        let account = Account::of(&scene)?;
        Ok(Self { scene, finished, account, agents })
    }
}
