//! What looking for names costs packets that hold none: a bulk TCP transfer between two namespaces, over a pair of virtual
//! Ethernet devices of MTU 1500 without offloads, so that every packet passes the kernel programs by itself.

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
    let mut table = Table::new(&["transfer", "Mbit/s", "to without names", "ns a packet: sent", "received"]);
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
    let mut ratios = Vec::new();
    for _ in 0..ROUNDS {
        nobody.push(wire.transfer(&agent)?);
        let rate_before = {
            let _observer = Observer::start(rano, scratch.path(), &observe("ptr"))?;
            wire.transfer(&agent)?
        };
        let rate = {
            let _observer = Observer::start(rano, scratch.path(), &observe("ebpf"))?;
            wire.transfer(&agent)?
        };
        plain.push(rate_before);
        named.push(rate);
        ratios.push(rate * 1000 / rate_before.max(1));
    }
    let [outwards, inwards] = {
        let _counting = Counting::start()?;
        let observer = Observer::start(rano, scratch.path(), &observe("ebpf"))?;
        wire.transfer(&agent)?;
        time_a_packet(observer.pid())?
    };
    let dash = || "–".to_owned();

    table.row(vec!["nobody observes".into(), median(nobody).to_string(), dash(), dash(), dash()]);
    table.row(vec!["rano without names".into(), median(plain).to_string(), "1.00".into(), dash(), dash()]);
    let ratio = median(ratios);
    let ratio = format!("{}.{:02}", ratio / 1000, ratio % 1000 / 10);
    table.row(vec!["rano with names".into(), median(named).to_string(), ratio, outwards, inwards]);
    Ok(table)
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

    /// Megabits a second that arrive.
    fn transfer(&self, agent: &Path) -> Result<u64> {
        let mut command = Command::new("nsenter");
        command.args(["--net", "-t", &self.client.id().to_string()]).arg(agent);
        command.args(["-c", SERVER, "-f", "m", "-t", &SECONDS.to_string()]).stdin(Stdio::null());
        let output = command.output().context("run iperf3")?;
        let text = String::from_utf8_lossy(&output.stdout);
        let line =
            text.lines().find(|line| line.trim_end().ends_with("receiver")).context("iperf3 said nothing")?;
        let words: Vec<_> = line.split_whitespace().collect();
        let unit = words.iter().position(|word| *word == "Mbits/sec").context("no rate")?;
        Ok(words[unit - 1].parse()?)
    }
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
fn time_a_packet(pid: u32) -> Result<[String; 2]> {
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
