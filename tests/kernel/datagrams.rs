//! Datagrams, each way in which they go and come: a connection is told with the first of them, its bytes are those of
//! all of them, and what sends nothing is nothing.

use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, Result, ensure};

use crate::support::actor::{Service, Transport};
use crate::support::scene::Scene;
use crate::support::trial::skip;
use crate::talker::{Exchanged, Talk, play};

crate::tests![
    connecting_alone_is_no_connection,
    a_name_with_six_addresses_is_one_connection,
    an_answer_from_this_host_counts_for_the_address_that_stands_for_it,
    an_answer_from_another_port_is_that_ports,
    who_only_receives_is_told,
    who_only_receives_from_nobody_knows_where_is_told,
    a_mapped_socket_is_one_flow_with_its_bytes,
    a_datagram_from_several_calls_is_counted_whole,
    a_socket_that_is_connected_again_is_two_connections,
];

const EBPF: [&str; 3] = ["--source", "ebpf", "--no-dns"];

/// Skips where no hook sees datagrams.
fn seen(scene: &Scene) -> Result<()> {
    let reason = scene.database()?.text("SELECT coalesce(source_reason, '') FROM sessions")?;
    if reason.contains("bytes of datagrams") { Err(skip(reason)) } else { Ok(()) }
}

fn told(scene: &Scene, event: &str, pid: u32) -> Result<Exchanged> {
    let query = format!(
        "SELECT json_group_array(json_array(remote_port, coalesce(bytes_sent, -1), coalesce(bytes_recv, -1))) \
         FROM events WHERE event = '{event}' AND proto = 'udp' AND pid = {pid} AND provider = 'anthropic'"
    );
    Ok(serde_json::from_str(&scene.database()?.text(&query)?)?)
}

/// Each exchange is told, with its bytes, and no other.
fn check(talk: Talk) -> Result<()> {
    let mut scene = crate::scene()?;
    let rano = scene.observe(&EBPF)?;
    let (pid, mut expected) = play(&scene.place, talk)?;
    scene.let_it_look(&rano)?;
    rano.interrupt()?.expect_code(0)?;
    seen(&scene)?;
    let connects = told(&scene, "connect", pid)?.len();
    let mut found = told(&scene, "close", pid)?;
    found.sort_unstable();
    expected.sort_unstable();
    ensure!(found == expected && connects == found.len(), "{connects}: {found:?}, not {expected:?}");
    Ok(())
}

fn connecting_alone_is_no_connection() -> Result<()> {
    check(Talk::Probe)
}

fn an_answer_from_this_host_counts_for_the_address_that_stands_for_it() -> Result<()> {
    check(Talk::ToAny)
}

fn an_answer_from_another_port_is_that_ports() -> Result<()> {
    check(Talk::OtherPort)
}

fn who_only_receives_is_told() -> Result<()> {
    check(Talk::Receive)
}

fn who_only_receives_from_nobody_knows_where_is_told() -> Result<()> {
    check(Talk::ReceiveNameless)
}

fn a_mapped_socket_is_one_flow_with_its_bytes() -> Result<()> {
    check(Talk::Mapped)
}

fn a_datagram_from_several_calls_is_counted_whole() -> Result<()> {
    check(Talk::Corked)?;
    check(Talk::CorkedConnected)
}

fn a_socket_that_is_connected_again_is_two_connections() -> Result<()> {
    check(Talk::Again)
}

/// The resolver sorts addresses by connecting a datagram socket to each; the programs that do so and are there.
fn a_name_with_six_addresses_is_one_connection() -> Result<()> {
    const PROGRAMS: [(&str, &str); 5] = [
        ("curl", "curl -s -m 20 -o /dev/null --noproxy '*' http://six.example:PORT/ || true"),
        ("python3", "python3 -c \"import socket; socket.create_connection(('six.example', PORT)).close()\""),
        (
            "node",
            "node -e \"require('net').connect({host:'six.example',port:PORT,family:4}).on('connect', function () { this.destroy() })\"",
        ),
        ("java", "java DIRECTORY/Six.java PORT"),
        ("go", "GO111MODULE=off GOCACHE=DIRECTORY/cache go run DIRECTORY/six.go PORT"),
    ];
    const SIX: &str = "public class Six { public static void main(String[] arguments) throws Exception { \
                       new java.net.Socket(\"six.example\", Integer.parseInt(arguments[0])).close(); } }";
    const SIX_IN_GO: &str = "package main\nimport (\"net\"; \"os\")\nfunc main() {\n\
                             connection, e := net.Dial(\"tcp\", \"six.example:\"+os.Args[1])\n\
                             if e != nil { panic(e) }\nconnection.Close()\n}\n";
    let mut scene = crate::scene()?;
    let server = scene.server.serve(Transport::Tcp, "0.0.0.0:0", Service::Answer)?;
    let hosts = scene.directory().join("hosts");
    let addresses = ["127.0.0.2", "127.0.0.3", "127.0.0.4", "2001:db8::2", "2001:db8::3", "2001:db8::4"];
    std::fs::write(&hosts, addresses.map(|address| format!("{address} six.example\n")).concat())?;
    std::fs::write(scene.directory().join("Six.java"), SIX)?;
    std::fs::write(scene.directory().join("six.go"), SIX_IN_GO)?;
    let there = |program: &str| ["/usr/bin", "/bin"].iter().any(|at| Path::new(at).join(program).exists());
    let mut played = Vec::new();
    let rano = scene.observe(&[&EBPF[..], &["--pattern", "six-client", "--pattern", "gemini"]].concat())?;
    for (program, line) in PROGRAMS.into_iter().filter(|(program, _)| there(program)) {
        let directory = scene.directory().display().to_string();
        let line = line.replace("PORT", &server.port().to_string()).replace("DIRECTORY", &directory);
        let mount = "mount --bind \"$0\" /etc/hosts && exec sh -c \"$1\" six-client";
        let mut command = Command::new("unshare");
        command.args(["-m", "sh", "-c", mount]).arg(&hosts).arg(&line);
        scene.place.apply(&mut command);
        let ran = command.output().with_context(|| format!("run {program}"))?;
        if ran.status.success() {
            played.push(program);
        } else {
            println!("not played: {program}: {}", String::from_utf8_lossy(&ran.stderr).trim());
        }
    }
    scene.let_it_look(&rano)?;
    rano.interrupt()?.expect_code(0)?;
    if played.is_empty() {
        return Err(skip("none of the programs is here"));
    }
    println!("played: {played:?}");
    seen(&scene)?;
    let query = format!(
        "SELECT coalesce(group_concat(event || ' ' || proto || ' ' || remote_port), '') FROM events \
         WHERE event IN ('connect', 'fail') AND ancestry_path LIKE '%sh:%' AND remote_port IN (0, {})",
        server.port()
    );
    let found = scene.database()?.text(&query).context("what was told")?;
    let one = format!("connect tcp {}", server.port());
    let connects = found.split(',').filter(|told| *told == one).count();
    let others = found.split(',').any(|told| told.contains("udp"));
    ensure!(connects == played.len() && !others, "{played:?}: {found}");
    Ok(())
}
