//! What looking for names costs packets that hold none: a bulk TCP transfer between two namespaces, over a pair of
//! virtual Ethernet devices of MTU 1500 without offloads, so that every packet passes the kernel programs by itself.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};

use super::measure::{Observer, median};
use super::table::Table;
use crate::system::find_in_path;

/// Turns of each; a slow moment of the machine hits all.
const ROUNDS: usize = 9;
const SECONDS: u64 = 2;
const CLIENT: &str = "192.0.2.1";
const SERVER: &str = "192.0.2.2";

pub(crate) fn measure(rano: &Path) -> Result<Table> {
    let mut table = Table::new(&[
        "transfer",
        "Mbit/s",
        "to without names",
        "Mbit a CPU second",
        "to without names",
        "ns a program: sent",
        "received",
    ]);
    let missing: Vec<_> = ["ip", "ethtool", "iperf3", "unshare", "nsenter"]
        .into_iter()
        .filter(|program| find_in_path(program).is_none())
        .collect();
    if !missing.is_empty() || !rustix::process::geteuid().is_root() {
        table.skip(format!("it takes root and: ip ethtool iperf3 (missing: {})", missing.join(" ")));
        return Ok(table);
    }
    let scratch = tempfile::tempdir()?;
    let wire = Wire::new()?;
    let agent = scratch.path().join("claude");
    std::fs::copy(program("iperf3")?, &agent)?;
    let (mut nobody, mut plain, mut named) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        nobody.push(wire.transfer(&agent)?);
        for (mode, rates) in [("ptr", &mut plain), ("ebpf", &mut named)] {
            let _observer = Observer::start(rano, scratch.path(), &observe(mode))?;
            rates.push(wire.transfer(&agent)?);
        }
    }
    let [outwards, inwards] = {
        let _counting = Counting::start()?;
        let observer = Observer::start(rano, scratch.path(), &observe("ebpf"))?;
        wire.transfer(&agent)?;
        time_a_run(observer.pid())?
    };
    let dash = || "–".to_owned();
    let mut row = |what: &str, rates: &[Rate], times: [String; 2]| {
        let cost = median(rates.iter().map(|rate| rate.a_cpu_second).collect());
        let speed = median(rates.iter().map(|rate| rate.a_second).collect());
        let by_cpu = ratio(rates, &plain, |rate| rate.a_cpu_second);
        let by_clock = ratio(rates, &plain, |rate| rate.a_second);
        let [sent, received] = times;
        table.row(vec![what.into(), speed.to_string(), by_clock, cost.to_string(), by_cpu, sent, received]);
    };
    row("nobody observes", &nobody, [dash(), dash()]);
    row("rano without names", &plain, [dash(), dash()]);
    row("rano with names", &named, [outwards, inwards]);
    Ok(table)
}

/// The median over the rounds of what came of `rates`, divided by what came without names in the same round.
fn ratio(rates: &[Rate], without: &[Rate], of: impl Fn(&Rate) -> u64) -> String {
    let thousandths =
        rates.iter().zip(without).map(|(rate, without)| of(rate) * 1000 / of(without).max(1)).collect();
    let thousandths = median(thousandths);
    format!("{}.{:03}", thousandths / 1000, thousandths % 1000)
}

/// Megabits that arrived, by time and by the CPU time of both ends. The latter does not depend on who else wants the
/// CPUs.
#[derive(Clone, Copy)]
struct Rate {
    a_second: u64,
    a_cpu_second: u64,
}

fn observe(mode: &str) -> [&str; 6] {
    ["--source", "ebpf", "--domain-mode", mode, "--no-dns", "--no-sqlite"]
}

fn program(name: &str) -> Result<PathBuf> {
    find_in_path(name).with_context(|| format!("{name} is not installed"))
}

/// Two namespaces and what connects them; they end with their holders.
struct Wire {
    client: Child,
    server: Child,
    iperf: Child,
}

impl Wire {
    fn new() -> Result<Self> {
        let hold = || {
            let mut command = Command::new("unshare");
            command.args(["--net", "--kill-child", "sleep", "3600"]).stdin(Stdio::null()).spawn()
        };
        let (client, server) = (hold()?, hold()?);
        // unshare says nothing when it is done: the namespace is another one then.
        let own = std::fs::read_link("/proc/self/ns/net")?;
        for child in [&client, &server] {
            while std::fs::read_link(format!("/proc/{}/ns/net", child.id()))? == own {
                std::thread::sleep(Duration::from_millis(5));
            }
        }
        let (a, b) = (client.id().to_string(), server.id().to_string());
        run(
            "ip",
            &["link", "add", "rano-a", "netns", &a, "type", "veth", "peer", "name", "rano-b", "netns", &b],
        )?;
        for (pid, device, address) in [(&a, "rano-a", CLIENT), (&b, "rano-b", SERVER)] {
            within(pid, &["ip", "address", "add", &format!("{address}/24"), "dev", device])?;
            within(pid, &["ip", "link", "set", device, "mtu", "1500", "up"])?;
            within(pid, &["ethtool", "-K", device, "tso", "off", "gso", "off", "gro", "off", "tx", "off"])?;
        }
        let mut command = Command::new("nsenter");
        command.args(["--net", "-t", &b, "iperf3", "-s"]).stdin(Stdio::null()).stdout(Stdio::null());
        let iperf = command.spawn().context("start iperf3")?;
        std::thread::sleep(Duration::from_millis(500));
        Ok(Self { client, server, iperf })
    }

    fn transfer(&self, agent: &Path) -> Result<Rate> {
        let mut command = Command::new("nsenter");
        command.args(["--net", "-t", &self.client.id().to_string()]).arg(agent);
        command.args(["-c", SERVER, "--json", "-t", &SECONDS.to_string()]).stdin(Stdio::null());
        let output = command.output().context("run iperf3")?;
        let said: serde_json::Value =
            serde_json::from_slice(&output.stdout).context("read what iperf3 says")?;
        let number = |part: &str, field: &str| {
            said["end"][part][field].as_f64().with_context(|| format!("iperf3 does not say {part}.{field}"))
        };
        let percent = number("cpu_utilization_percent", "host_total")?
            + number("cpu_utilization_percent", "remote_total")?;
        let rate = number("sum_received", "bits_per_second")? / 1e6;
        Ok(Rate { a_second: whole(rate), a_cpu_second: whole(rate * 100.0 / percent.max(1.0)) })
    }
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "megabits are neither many nor negative"
)]
fn whole(number: f64) -> u64 {
    number.round() as u64
}

impl Drop for Wire {
    fn drop(&mut self) {
        for child in [&mut self.iperf, &mut self.client, &mut self.server] {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

fn run(program: &str, arguments: &[&str]) -> Result<()> {
    let output = Command::new(program).args(arguments).stdin(Stdio::null()).output()?;
    ensure!(output.status.success(), "{program} {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    Ok(())
}

fn within(pid: &str, command: &[&str]) -> Result<()> {
    run("nsenter", &[&["--net", "-t", pid], command].concat())
}

/// While it lives, the kernel counts what its programs take (`Documentation/admin-guide/sysctl/kernel.rst`).
struct Counting;

const STATISTICS: &str = "/proc/sys/kernel/bpf_stats_enabled";

impl Counting {
    fn start() -> Result<Self> {
        std::fs::write(STATISTICS, "1").with_context(|| format!("write {STATISTICS}"))?;
        Ok(Self)
    }
}

impl Drop for Counting {
    fn drop(&mut self) {
        let _ = std::fs::write(STATISTICS, "0");
    }
}

/// Nanoseconds a run of the programs that see what is sent and what is received, counting included.
fn time_a_run(pid: u32) -> Result<[String; 2]> {
    /// `BPF_PROG_TYPE_CGROUP_SKB`
    const PACKETS: u64 = 8;
    let mut found = Vec::new();
    for entry in std::fs::read_dir(format!("/proc/{pid}/fdinfo"))? {
        let text = std::fs::read_to_string(entry?.path()).unwrap_or_default();
        let field = |name: &str| {
            let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
            line.and_then(|value| value.trim().parse::<u64>().ok())
        };
        if field("prog_type") == Some(PACKETS)
            && let (Some(id), Some(time), Some(count)) =
                (field("prog_id"), field("run_time_ns"), field("run_cnt"))
        {
            found.push((id, time / count.max(1)));
        }
    }
    found.sort_unstable();
    found.dedup();
    // In the order in which they are loaded.
    match found[..] {
        [(_, sent), (_, received)] => Ok([sent.to_string(), received.to_string()]),
        _ => bail!("rano has {} programs for packets", found.len()),
    }
}
