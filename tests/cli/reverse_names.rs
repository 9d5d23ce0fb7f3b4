//! Reverse look-ups on real sockets, with a DNS server of the test's own.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;

use crate::support::actor::{Actor, Ending, Service, Transport};
use crate::support::dns::{self, Server, Zone};
use crate::support::namespace::User;
use crate::support::rano::Launch;
use crate::support::scene::{FAST, Scene};

crate::tests![
    a_reverse_name_comes_late_and_raises_its_alert,
    a_recording_holds_what_reverse_lookups_said,
    nobody_is_asked_for_addresses_of_this_machine_or_with_no_dns,
    a_resolver_that_never_answers_delays_nothing,
    an_endpoint_that_an_agent_is_known_to_use_is_named_by_its_address,
];

fn zone() -> Zone {
    let address = |text: &str| text.parse::<IpAddr>().expect("an address");
    Zone {
        names: HashMap::from([
            (address("127.0.0.9"), "evil.malicious.com."),
            (address("127.0.0.10"), "lb.github.com."),
        ]),
        addresses: HashMap::from([("lb.github.com", address("127.0.0.10"))]),
        is_mute: false,
    }
}

/// A rano that polls, and sees nobody else: root sees the agents of other tests, who have the same addresses.
fn only(scene: &Scene, agent: &Actor) -> Result<Launch> {
    Ok(scene.launch()?.args(FAST).args(["--source", "proc", "--pid", &agent.pid().to_string()]))
}

fn a_reverse_name_comes_late_and_raises_its_alert() -> Result<()> {
    let mut scene = Scene::new(User::Root)?;
    let dns = Server::start(&scene.place, zone())?;
    let evil: SocketAddr = scene.server.serve(Transport::Tcp, "127.0.0.9:0", Service::Answer)?;
    let github: SocketAddr = scene.server.serve(Transport::Tcp, "127.0.0.10:0", Service::Answer)?;
    let mut claude = scene.agent("claude")?;
    let arguments = ["--json", "--ptr-private", "--alert-domain", "*.malicious.com"];
    let rano = dns::ask_here(only(&scene, &claude)?.args(arguments), scene.directory())?.start()?;
    let (connection, tuple) = claude.connect(Transport::Tcp, evil)?;
    let connect: Value = serde_json::from_str(&rano.wait_for_event("\"connect\"", tuple)?)?;
    ensure!(connect.get("domain").is_none(), "{connect}");
    let name: Value = serde_json::from_str(&rano.wait_for_event("\"name\"", tuple)?)?;
    ensure!(name["domain"] == "evil.malicious.com" && name["domain_source"] == "ptr", "{name}");
    rano.stderr.wait_for("an alert", |line| line.contains("\"domain_match\""))?;
    claude.close(connection, Ending::InOrder)?;
    let close: Value = serde_json::from_str(&rano.wait_for_event("\"close\"", tuple)?)?;
    ensure!(close["domain"] == "evil.malicious.com" && close["alert"] == true, "{close}");
    // Known by now, and confirmed by the name's own address.
    let (_, tuple) = claude.connect(Transport::Tcp, github)?;
    let name: Value = serde_json::from_str(&rano.wait_for_event("\"name\"", tuple)?)?;
    ensure!(name["domain"] == "lb.github.com" && name["endpoint_type"] == "code_host", "{name}");
    let (_, tuple) = claude.connect(Transport::Tcp, github)?;
    let connect: Value = serde_json::from_str(&rano.wait_for_event("\"connect\"", tuple)?)?;
    ensure!(connect["domain"] == "lb.github.com", "{connect}");
    let finished = rano.interrupt()?;
    finished.expect_code(0)?;
    let asked = dns.asked().iter().filter(|question| question.starts_with("10.0.0.127.")).count();
    ensure!(asked == 1, "an address is asked for once: {:?}", dns.asked());
    let query = "SELECT group_concat(concat_ws(' ', event, domain, domain_source, alert), '; ') FROM events \
                 WHERE remote_ip = '127.0.0.9'";
    let found = scene.database()?.text(query)?;
    ensure!(found == "connect evil.malicious.com ptr 1; close evil.malicious.com ptr 1", "{found}");
    Ok(())
}

fn a_recording_holds_what_reverse_lookups_said() -> Result<()> {
    let mut scene = Scene::new(User::Root)?;
    let _dns = Server::start(&scene.place, zone())?;
    let evil: SocketAddr = scene.server.serve(Transport::Tcp, "127.0.0.9:0", Service::Answer)?;
    let recording = scene.directory().join("recording.jsonl");
    let recording = recording.to_str().context("a plain path")?;
    let mut claude = scene.agent("claude")?;
    let arguments = ["--json", "--ptr-private", "--no-sqlite", "--record", recording];
    let rano = dns::ask_here(only(&scene, &claude)?.args(arguments), scene.directory())?.start()?;
    let (connection, tuple) = claude.connect(Transport::Tcp, evil)?;
    rano.wait_for_event("\"name\"", tuple)?;
    claude.close(connection, Ending::InOrder)?;
    rano.wait_for_event("\"close\"", tuple)?;
    rano.interrupt()?.expect_code(0)?;
    scene.launch()?.args(["--replay", recording]).run()?.expect_code(0)?;
    let query = format!(
        "SELECT group_concat(concat_ws(' ', event, domain, domain_source), '; ') FROM events \
         WHERE remote_ip = '127.0.0.9' AND remote_port = {}",
        evil.port()
    );
    let found = scene.database()?.text(&query)?;
    ensure!(found == "connect evil.malicious.com ptr; close evil.malicious.com ptr", "{found}");
    Ok(())
}

fn nobody_is_asked_for_addresses_of_this_machine_or_with_no_dns() -> Result<()> {
    let mut scene = Scene::new(User::Root)?;
    let dns = Server::start(&scene.place, zone())?;
    let evil = scene.server.serve(Transport::Tcp, "127.0.0.9:0", Service::Answer)?;
    let mut claude = scene.agent("claude")?;
    for arguments in [&[][..], &["--ptr-private", "--no-dns"]] {
        let launch = only(&scene, &claude)?.args(arguments);
        let rano = dns::ask_here(launch, scene.directory())?.start()?;
        let (connection, tuple) = claude.connect(Transport::Tcp, evil)?;
        rano.wait_for_event("connect", tuple)?;
        claude.close(connection, Ending::InOrder)?;
        let close = rano.wait_for_event("close", tuple)?;
        ensure!(!close.contains("domain="), "{close}");
        rano.interrupt()?.expect_code(0)?;
    }
    ensure!(dns.asked().is_empty(), "{:?}", dns.asked());
    Ok(())
}

fn a_resolver_that_never_answers_delays_nothing() -> Result<()> {
    let mut scene = Scene::new(User::Root)?;
    let dns = Server::start(&scene.place, Zone { is_mute: true, ..Zone::default() })?;
    let servers: Vec<SocketAddr> = (10..40)
        .map(|last| scene.server.serve(Transport::Tcp, &format!("127.0.0.{last}:0"), Service::Answer))
        .collect::<Result<_>>()?;
    let mut claude = scene.agent("claude")?;
    // A look-up that was waited for would take a second and a half.
    let patience = Duration::from_millis(1_200);
    for names in ["--no-dns", "--ptr-private"] {
        let launch = only(&scene, &claude)?.args([names]);
        let rano = dns::ask_here(launch, scene.directory())?.start()?;
        let (_, first) = claude.connect(Transport::Tcp, servers[0])?;
        rano.wait_for_event("connect", first)?;
        let mut times = Vec::new();
        for &server in &servers[1..] {
            let begin = Instant::now();
            let (_, tuple) = claude.connect(Transport::Tcp, server)?;
            rano.wait_for_event("connect", tuple)?;
            times.push(begin.elapsed());
        }
        times.sort_unstable();
        let (median, slowest) = (times[times.len() / 2], times[times.len() - 1]);
        println!(
            "{names}, a mute resolver, {} connects: median {median:?}, slowest {slowest:?}",
            times.len()
        );
        ensure!(median < patience, "{median:?}");
        ensure!(dns.asked().is_empty() == (names == "--no-dns"), "{:?}", dns.asked());
        let begin = Instant::now();
        rano.interrupt()?.expect_code(0)?;
        ensure!(begin.elapsed() < patience, "the end waits for no answer: {:?}", begin.elapsed());
    }
    Ok(())
}

fn an_endpoint_that_an_agent_is_known_to_use_is_named_by_its_address() -> Result<()> {
    let mut scene = Scene::new(User::Root)?;
    let network = Ipv4Addr::new(44, 0, 0, 0);
    scene.place.own_network(network)?;
    let dns = Server::start_with(&scene.place, "127.0.0.1:53", |name| match name {
        "api.anthropic.com" => vec![Ipv4Addr::new(44, 0, 0, 7)],
        "claude.ai" | "platform.claude.com" => vec![Ipv4Addr::new(44, 0, 0, 8)],
        _ => Vec::new(),
    })?;
    let own = scene.server.serve(Transport::Tcp, "44.0.0.7:0", Service::Answer)?;
    let shared = scene.server.serve(Transport::Tcp, "44.0.0.8:0", Service::Answer)?;
    let mut claude = scene.agent("claude")?;
    let rano = dns::ask_here(only(&scene, &claude)?.args(["--json"]), scene.directory())?.start()?;
    let (_, tuple) = claude.connect(Transport::Tcp, own)?;
    let name: Value = serde_json::from_str(&rano.wait_for_event("\"name\"", tuple)?)?;
    ensure!(name["domain"] == "api.anthropic.com" && name["domain_source"] == "known", "{name}");
    ensure!(name["endpoint_type"] == "llm_api", "{name}");
    // All answers are there now.
    let (_, tuple) = claude.connect(Transport::Tcp, own)?;
    let connect: Value = serde_json::from_str(&rano.wait_for_event("\"connect\"", tuple)?)?;
    ensure!(connect["domain"] == "api.anthropic.com", "{connect}");
    let (_, tuple) = claude.connect(Transport::Tcp, shared)?;
    let connect: Value = serde_json::from_str(&rano.wait_for_event("\"connect\"", tuple)?)?;
    ensure!(connect.get("domain").is_none(), "two names have this address: {connect}");
    let finished = rano.interrupt()?;
    finished.expect_code(0)?;
    ensure!(finished.stderr.contains("~api.anthropic.com"), "{}", finished.stderr);
    ensure!(!finished.stderr.contains("Unknown endpoint"), "{}", finished.stderr);
    ensure!(dns.asked().iter().any(|name| name.starts_with("api.anthropic.com")), "{:?}", dns.asked());
    Ok(())
}
