//! Names of connections of a client named claude, with servers and clients of someone else's making: dnsmasq, nscd,
//! OpenSSL, ngtcp2, tcpdump. The same in every mode: names by eBPF, by libpcap, and out of a capture file.

use std::path::PathBuf;
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, ensure};

use crate::support::actor::Transport;
use crate::support::database::Database;
use crate::support::dns;
use crate::support::lookups::{Service, dnsmasq, mounted, program};
use crate::support::rano::Rano;
use crate::support::scene::Scene;
use crate::support::trial::skip;

crate::tests![
    names_by_ebpf,
    names_by_libpcap,
    names_by_libpcap_of_polled_sockets,
    names_out_of_a_capture_file,
    answers_over_tcp_name_too,
    a_greeting_in_many_segments_is_read,
    a_quic_connection_is_named_by_its_first_packet,
    two_lookups_before_one_connection_name_nothing,
    answers_that_nobody_asked_for_name_nothing,
    an_answer_to_a_resolver_daemon_is_shared,
    what_is_only_pointed_at_is_ptr,
];

/// Everything the name server knows. One address has two names; a zero TTL is what it gives without being told.
const RECORDS: &str = "local-ttl=60\n\
    host-record=one.example,127.0.1.1\n\
    host-record=two.example,deux.example,127.0.1.3\n\
    host-record=target.example,127.0.1.4\n\
    cname=alias.example,middle.example\n\
    cname=middle.example,target.example\n\
    host-record=six.example,::1\n\
    host-record=quic.example,127.0.1.5\n";

/// What a client does, and by which name and source it is to be known.
struct Case {
    arguments: &'static [&'static str],
    name: &'static str,
    by: &'static str,
}

const NO_SNI: &str = "-noservername";

const CASES: [Case; 9] = [
    Case { arguments: &["-connect", "one.example:443", NO_SNI], name: "one.example", by: "dns" },
    Case {
        arguments: &["-connect", "127.0.1.2:443", "-servername", "sni.example"],
        name: "sni.example",
        by: "sni",
    },
    Case { arguments: &["-connect", "two.example:443"], name: "two.example", by: "sni" },
    Case { arguments: &["-connect", "deux.example:443"], name: "deux.example", by: "sni" },
    // Two names on one address, looked up and connected to by turns.
    Case { arguments: &["-connect", "two.example:443", NO_SNI], name: "two.example", by: "dns" },
    Case { arguments: &["-connect", "deux.example:443", NO_SNI], name: "deux.example", by: "dns" },
    Case { arguments: &["-connect", "alias.example:443", NO_SNI], name: "alias.example", by: "dns" },
    Case { arguments: &["-connect", "six.example:443", NO_SNI], name: "six.example", by: "dns" },
    Case {
        arguments: &["-connect", "[::1]:443", "-servername", "six-sni.example"],
        name: "six-sni.example",
        by: "sni",
    },
];

/// A scene with a name server and a TLS server.
struct Stand {
    scene: Scene,
    /// The OpenSSL program as `claude`.
    claude: PathBuf,
    resolv_conf: PathBuf,
    _services: Vec<Service>,
}

impl Stand {
    fn new() -> Result<Self> {
        let (openssl, _) = (program("openssl")?, program("dnsmasq")?);
        let scene = crate::scene()?;
        let directory = scene.directory().to_path_buf();
        let claude = directory.join("claude");
        crate::support::program::copy(&openssl, &claude)?;
        let resolv_conf = directory.join("resolv.conf");
        std::fs::write(&resolv_conf, "nameserver 127.0.0.1\n")?;
        let names = dnsmasq(&scene.place, &directory, "127.0.0.1", RECORDS)?;
        let mut make = Command::new(&openssl);
        make.current_dir(&directory).args(["req", "-x509", "-newkey", "ec", "-pkeyopt"]);
        make.args(["ec_paramgen_curve:prime256v1", "-nodes", "-subj", "/CN=test"]);
        make.args(["-keyout", "key.pem", "-out", "certificate.pem"]).stdin(Stdio::null());
        ensure!(make.output()?.status.success(), "no certificate");
        let mut serve = Command::new(&openssl);
        serve.current_dir(&directory).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
        serve.args(["s_server", "-accept", "443", "-key", "key.pem", "-cert", "certificate.pem"]);
        let mut tls = Service::spawn(&scene.place, serve)?;
        tls.wait_for("ACCEPT")?;
        Ok(Self { scene, claude, resolv_conf, _services: vec![names, tls] })
    }

    /// rano, when it has looked for the first time.
    fn observe(&mut self, arguments: &[&str]) -> Result<Rano> {
        let mut marker = self.scene.agent("gemini")?;
        let (_, older) = marker.connect(Transport::Tcp, self.scene.tcp)?;
        // Other tests have agents too.
        let own = self.scene.directory().file_name().context("a directory with a name")?.to_owned();
        let fixed = ["--json", "--interval-ms", "20", "--include-udp", "--pid", &marker.pid().to_string()]
            .map(str::to_owned);
        let mut launch = self.scene.launch()?.args(fixed).args(["--pattern".into(), own]).args(arguments);
        mounted(launch.command(), &self.resolv_conf, "/etc/resolv.conf")?;
        let rano = launch.start()?;
        rano.wait_for_event("connect", older)?;
        Ok(rano)
    }

    /// A client that stays connected until its input is closed.
    fn client(&self, arguments: &[&str]) -> Result<Service> {
        let mut command = Command::new(&self.claude);
        command.args(["s_client", "-no_ign_eof"]).args(arguments);
        command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
        mounted(&mut command, &self.resolv_conf, "/etc/resolv.conf")?;
        Service::spawn(&self.scene.place, command)
    }

    /// Runs every case and returns the clients' pids. `shown`: rano is to have shown the name before the client ends.
    fn play(&self, rano: &Rano, shown: impl Fn(&Case) -> bool) -> Result<Vec<u32>> {
        let mut pids = Vec::new();
        for case in &CASES {
            let shown = shown(case);
            let mut client = self.client(case.arguments)?;
            let pid = client.pid();
            pids.push(pid);
            let what = format!("{} of {}", case.name, case.arguments.join(" "));
            let told =
                |line: &str, what: &str| line.contains(&format!("\"pid\":{pid},")) && line.contains(what);
            rano.stdout.wait_for(&what, |line| {
                let named = !shown || line.contains(&format!("\"domain\":\"{}\"", case.name));
                told(line, "\"remote_port\":443") && named
            })?;
            drop(client.child().stdin.take());
            client.ended().with_context(|| what.clone())?;
            rano.stdout.wait_for(&format!("the end of {what}"), |line| {
                told(line, "\"event\":\"close\"") && line.contains("\"remote_port\":443")
            })?;
        }
        Ok(pids)
    }
}

impl Case {
    /// Which of the names of its address is meant is told by its look-up alone.
    fn needs_its_asker(&self) -> bool {
        self.by == "dns" && ["two.example", "deux.example"].contains(&self.name)
    }
}

/// The rows of every case: connect and close alike.
fn check(
    database: &Database,
    pids: &[u32],
    by_answer: &[&str],
    is_told: impl Fn(&Case) -> bool,
) -> Result<()> {
    for (case, pid) in CASES.iter().zip(pids) {
        let query = format!(
            "SELECT coalesce(group_concat(event || ' ' || coalesce(domain, '-') || ' ' || domain_source, ', '), '') \
             FROM (SELECT * FROM events WHERE pid = {pid} AND remote_port = 443 ORDER BY id)"
        );
        let found = database.text(&query)?;
        if !is_told(case) && found == "connect - none, close - none" {
            let query = format!(
                "SELECT count(*) FROM event_names JOIN events ON events.id = event_id \
                 WHERE pid = {pid} AND remote_port = 443 AND name = '{}'",
                case.name
            );
            ensure!(database.count(&query)? > 0, "{} is not among what it may be", case.name);
            continue;
        }
        let sources = if case.by == "dns" { by_answer } else { &[case.by][..] };
        let expected = |by: &&str| {
            let name = format!("{} {by}", case.name);
            found == format!("connect {name}, close {name}")
        };
        ensure!(
            sources.iter().any(expected),
            "{:?}: {found}, expected {} {sources:?}",
            case.arguments,
            case.name
        );
    }
    Ok(())
}

/// `is_told`: which name is meant is known for sure.
fn live(arguments: &[&str], by_answer: &[&str], is_told: impl Fn(&Case) -> bool) -> Result<()> {
    let mut stand = Stand::new()?;
    let rano = stand.observe(arguments)?;
    let pids = stand.play(&rano, &is_told)?;
    let finished = rano.interrupt()?;
    finished.expect_code(0)?;
    ensure!(!finished.stderr.contains("names lost"), "{}", finished.stderr);
    check(&stand.scene.database()?, &pids, by_answer, is_told)
}

fn names_by_ebpf() -> Result<()> {
    live(&["--source", "ebpf", "--domain-mode", "ebpf"], &["dns"], |_| true)
}

/// A packet shows the port of the socket that asked, which is not known of a datagram socket when it is opened, and
/// a polled one is gone too soon: whose answer it was may stay open.
const OF_SOMEBODY: [&str; 2] = ["dns", "shared_dns"];

fn needs_libpcap() -> Result<()> {
    if cfg!(feature = "pcap") { Ok(()) } else { Err(skip("built without libpcap (--features pcap)")) }
}

fn names_by_libpcap() -> Result<()> {
    needs_libpcap()?;
    live(&["--source", "ebpf", "--pcap"], &["dns"], |_| true)
}

fn names_by_libpcap_of_polled_sockets() -> Result<()> {
    needs_libpcap()?;
    // Of two names for one address the wrong one is never said; the right one only if the socket that asked was seen.
    live(&["--source", "proc", "--pcap"], &OF_SOMEBODY, |case| !case.needs_its_asker())
}

fn names_out_of_a_capture_file() -> Result<()> {
    let tcpdump = program("tcpdump")?;
    let mut stand = Stand::new()?;
    let directory = stand.scene.directory().to_path_buf();
    let capture = directory.join("capture.pcap");
    let mut command = Command::new(tcpdump);
    command
        .args(["-i", "any", "--immediate-mode", "-U", "-Z", "root"])
        // By itself it has room for eight packets: each takes as much as the longest might.
        .args(["-s", "8192", "-B", "16384", "-w"])
        .arg(&capture)
        .stdin(Stdio::null())
        .stdout(Stdio::null());
    command.stderr(Stdio::piped());
    let mut dump = Service::spawn(&stand.scene.place, command)?;
    dump.wait_for("listening on")?;
    let recording = directory.join("recording.jsonl");
    let record = recording.to_str().context("a plain path")?.to_owned();
    let rano = stand.observe(&[
        "--source",
        "ebpf",
        "--domain-mode",
        "ptr",
        "--no-dns",
        "--no-sqlite",
        "--record",
        &record,
    ])?;
    let quic = program(QUIC).is_ok().then(|| Quic::new(&stand)).transpose()?;
    let quic = quic.map(|quic| quic.play(&stand, &rano)).transpose()?;
    let pids = stand.play(&rano, |_| false)?;
    rano.interrupt()?.expect_code(0)?;
    let last = CASES.last().map_or("", |case| case.name).as_bytes();
    crate::support::wait_until("the last hello in the capture", || {
        Ok(std::fs::read(&capture)?.windows(last.len()).any(|bytes| bytes == last))
    })?;
    rustix::process::kill_process(crate::support::pid_of(dump.child()), rustix::process::Signal::INT)?;
    dump.ended()?;
    let launch = stand.scene.launch()?.args(["--replay", &record, "--json"]).env("RANO_PCAP_FILE", &capture);
    launch.run()?.expect_code(0)?;
    if let Some((pid, _)) = quic {
        let query = format!(
            "SELECT DISTINCT domain || ' ' || domain_source FROM events WHERE pid = {pid} AND remote_port = 4433"
        );
        let found = stand.scene.database()?.text(&query)?;
        ensure!(found == "quic.example quic", "{found}");
    }
    check(&stand.scene.database()?, &pids, &["dns"], |_| true)
}

/// How names can be seen live here.
fn live_modes() -> Vec<&'static [&'static str]> {
    let mut modes: Vec<&[&str]> = vec![&["--source", "ebpf", "--domain-mode", "ebpf"]];
    if cfg!(feature = "pcap") {
        modes.push(&["--source", "ebpf", "--pcap"]);
    }
    modes
}

/// The first line of rano that names a connection of a client that does `arguments`.
fn first_name(stand: &mut Stand, mode: &[&str], arguments: &[&str]) -> Result<String> {
    let rano = stand.observe(mode)?;
    let client = stand.client(arguments)?;
    let pid = format!("\"pid\":{},", client.pid());
    let line = rano.stdout.wait_for("a name", |line| {
        line.contains(&pid) && line.contains("\"domain\":") && line.contains("\"remote_port\":443")
    })?;
    rano.interrupt()?.expect_code(0)?;
    Ok(line)
}

fn answers_over_tcp_name_too() -> Result<()> {
    let mut stand = Stand::new()?;
    std::fs::write(&stand.resolv_conf, "nameserver 127.0.0.1\noptions use-vc\n")?;
    for mode in live_modes() {
        let line = first_name(&mut stand, mode, &["-connect", "alias.example:443", NO_SNI])?;
        ensure!(line.contains("\"domain\":\"alias.example\""), "{mode:?} {line}");
        ensure!(line.contains("\"domain_source\":\"dns\""), "{mode:?} {line}");
    }
    Ok(())
}

/// A list of protocols makes it long, and a device that does not take large pieces makes many of it.
fn a_greeting_in_many_segments_is_read() -> Result<()> {
    let (ip, ethtool) = (program("ip")?, program("ethtool")?);
    let mut stand = Stand::new()?;
    for (tool, arguments) in [
        (&ip, &["link", "set", "lo", "mtu", "1280"][..]),
        (&ethtool, &["-K", "lo", "tso", "off", "gso", "off"]),
    ] {
        let mut command = Command::new(tool);
        command.args(arguments);
        Service::start(&stand.scene.place, command)?.ended()?;
    }
    let protocols: Vec<String> = (100..130).map(|number| format!("{number}{}", "p".repeat(150))).collect();
    let protocols = protocols.join(",");
    let arguments = ["-connect", "127.0.1.2:443", "-servername", "long.example", "-alpn", &protocols];
    for mode in live_modes() {
        let line = first_name(&mut stand, mode, &arguments)?;
        ensure!(line.contains("\"domain\":\"long.example\""), "{mode:?} {line}");
        ensure!(line.contains("\"domain_source\":\"sni\""), "{mode:?} {line}");
    }
    Ok(())
}

/// A server that speaks QUIC, and the client of the same making, as an agent.
struct Quic {
    claude: PathBuf,
    _server: Service,
}

const QUIC: &str = "gtlsclient";

impl Quic {
    fn new(stand: &Stand) -> Result<Self> {
        let (server, client) = (program("gtlsserver")?, program(QUIC)?);
        let directory = stand.scene.directory();
        let claude = directory.join("quic").join("claude");
        std::fs::create_dir(directory.join("quic"))?;
        crate::support::program::copy(&client, &claude)?;
        let mut command = Command::new(server);
        command.current_dir(directory).args(["-q", "127.0.1.5", "4433", "key.pem", "certificate.pem"]);
        let server = Service::start(&stand.scene.place, command)?;
        server.wait_for_port("udp", 4433)?;
        Ok(Self { claude, _server: server })
    }

    /// Gets a page, and returns its process id and the line of the connection's end.
    fn play(&self, stand: &Stand, rano: &Rano) -> Result<(u32, String)> {
        let mut command = Command::new(&self.claude);
        command.args(["-q", "--exit-on-all-streams-close", "quic.example", "4433"]);
        command.arg("https://quic.example:4433/");
        mounted(&mut command, &stand.resolv_conf, "/etc/resolv.conf")?;
        let mut client = Service::start(&stand.scene.place, command)?;
        let pid = client.pid();
        client.ended()?;
        let what = format!("\"pid\":{pid},");
        let close = rano.stdout.wait_for("the end of the QUIC connection", |line| {
            line.contains(&what) && line.contains("\"event\":\"close\"") && line.contains(":4433\"")
        })?;
        Ok((pid, close))
    }
}

fn a_quic_connection_is_named_by_its_first_packet() -> Result<()> {
    let mut stand = Stand::new()?;
    let quic = Quic::new(&stand)?;
    for mode in live_modes() {
        let rano = stand.observe(mode)?;
        let (_, close) = quic.play(&stand, &rano)?;
        ensure!(close.contains("\"domain\":\"quic.example\""), "{mode:?} {close}");
        ensure!(close.contains("\"domain_source\":\"quic\""), "{mode:?} {close}");
        rano.interrupt()?.expect_code(0)?;
    }
    Ok(())
}

/// Everything that is known of the names of the connections of a process, shown or not.
fn all_names(database: &Database, pid: u32) -> Result<String> {
    database.text(&format!(
        "SELECT group_concat(concat_ws(' ', event, domain, domain_source, \
         (SELECT group_concat(name || '/' || source, ' ') FROM \
         (SELECT name, source FROM event_names WHERE event_id = events.id ORDER BY name))), ', ') \
         FROM events WHERE pid = {pid} AND remote_port = 443"
    ))
}

impl Stand {
    /// What becomes known of a connection that an agent makes after `before`, which a shell does; the agent becomes the
    /// client.
    fn names_after(&mut self, mode: &[&str], before: &str, arguments: &str) -> Result<String> {
        let rano = self.observe(mode)?;
        let mut command = Command::new("/bin/sh");
        let claude = self.claude.display();
        command.args(["-c", &format!("{before}; exec {claude} s_client -no_ign_eof {arguments}")]);
        command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
        mounted(&mut command, &self.resolv_conf, "/etc/resolv.conf")?;
        let mut client = Service::spawn(&self.scene.place, command)?;
        let pid = client.pid();
        let told = |event: &'static str| {
            rano.stdout.wait_for(event, |line| {
                let of_client = line.contains(&format!("\"pid\":{pid},")) && line.contains(event);
                of_client && line.contains("\"remote_port\":443")
            })
        };
        told("\"event\":\"connect\"")?;
        drop(client.child().stdin.take());
        client.ended()?;
        told("\"event\":\"close\"")?;
        rano.interrupt()?.expect_code(0)?;
        all_names(&self.scene.database()?, pid)
    }
}

fn two_lookups_before_one_connection_name_nothing() -> Result<()> {
    let getent = program("getent")?;
    let getent = getent.display();
    let mut stand = Stand::new()?;
    let both = format!("{getent} hosts two.example; {getent} hosts deux.example");
    for mode in live_modes() {
        let found = stand.names_after(mode, &both, "-connect 127.0.1.3:443 -noservername")?;
        let names = "none deux.example/dns two.example/dns";
        ensure!(found == format!("connect {names}, close {names}"), "{mode:?} {found}");
        // The last one alone, once more: the connection goes by it.
        let again = format!("{both}; {getent} hosts one.example");
        let found = stand.names_after(mode, &again, "-connect 127.0.1.1:443 -noservername")?;
        ensure!(found == "connect one.example dns, close one.example dns", "{mode:?} {found}");
    }
    Ok(())
}

/// A server that answers each question with what was not asked, and with what is broken.
fn answers_that_nobody_asked_for_name_nothing() -> Result<()> {
    let getent = program("getent")?;
    let mut stand = Stand::new()?;
    std::fs::write(&stand.resolv_conf, "nameserver 127.0.0.3\noptions attempts:1 timeout:1\n")?;
    let hostile =
        dns::Server::start_hostile(&stand.scene.place, "127.0.0.3:53", "bank.example", [127, 0, 1, 2])?;
    let before = format!("{} hosts lost.example", getent.display());
    for mode in live_modes() {
        let found = stand.names_after(mode, &before, "-connect 127.0.1.2:443 -noservername")?;
        ensure!(found == "connect none, close none", "{mode:?} {found}");
    }
    ensure!(hostile.asked().iter().any(|name| name.starts_with("lost.example")), "{:?}", hostile.asked());
    Ok(())
}

/// nscd asks for everybody, over a socket of its own; who asked it does so through a unix socket.
fn an_answer_to_a_resolver_daemon_is_shared() -> Result<()> {
    let nscd = program("nscd")?;
    let mut stand = Stand::new()?;
    // Both see this directory as /run, where they meet.
    let run = stand.scene.directory().join("run");
    std::fs::create_dir_all(run.join("nscd"))?;
    let settings = stand.scene.directory().join("nscd.conf");
    std::fs::write(&settings, "enable-cache hosts yes\npersistent hosts no\nshared hosts no\n")?;
    let mut command = Command::new(nscd);
    command.args(["-F", "-f"]).arg(settings);
    mounted(&mut command, &stand.resolv_conf, "/etc/resolv.conf")?;
    mounted(&mut command, &run, "/run")?;
    let _daemon = Service::start(&stand.scene.place, command)?;
    crate::support::wait_until("nscd's socket", || Ok(run.join("nscd/socket").exists()))?;
    for (mode, name) in live_modes().into_iter().zip(["one.example", "two.example"]) {
        let rano = stand.observe(mode)?;
        let mut command = Command::new(&stand.claude);
        command.args(["s_client", "-no_ign_eof", "-connect", &format!("{name}:443"), NO_SNI]);
        command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
        mounted(&mut command, &run, "/run")?;
        let client = Service::spawn(&stand.scene.place, command)?;
        let pid = format!("\"pid\":{},", client.pid());
        let line =
            rano.stdout.wait_for("the name", |line| line.contains(&pid) && line.contains("\"domain\":"))?;
        ensure!(line.contains(&format!("\"domain\":\"{name}\"")), "{mode:?} {line}");
        ensure!(line.contains("\"domain_source\":\"shared_dns\""), "{mode:?} {line}");
        rano.interrupt()?.expect_code(0)?;
    }
    Ok(())
}

fn what_is_only_pointed_at_is_ptr() -> Result<()> {
    let ip = program("ip")?;
    let mut stand = Stand::new()?;
    let mut add = Command::new(ip);
    add.args(["address", "add", "203.0.113.9/32", "dev", "lo"]);
    Service::start(&stand.scene.place, add)?.ended()?;
    let directory = stand.scene.directory().to_path_buf();
    let records = "ptr-record=9.113.0.203.in-addr.arpa,pointed.example\n";
    let _names = dnsmasq(&stand.scene.place, &directory, "127.0.0.2", records)?;
    std::fs::write(&stand.resolv_conf, "nameserver 127.0.0.2\n")?;
    for mode in live_modes() {
        let line = first_name(&mut stand, mode, &["-connect", "203.0.113.9:443", NO_SNI])?;
        ensure!(line.contains("\"domain\":\"pointed.example\""), "{mode:?} {line}");
        ensure!(line.contains("\"domain_source\":\"ptr\""), "{mode:?} {line}");
    }
    Ok(())
}
