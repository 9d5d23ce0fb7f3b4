//! The kernel programs on the running kernel, as root: what they see, exactly. What this machine cannot run is skipped,
//! with the reason.

#![expect(
    unreachable_pub,
    reason = "a test program has no outside: `pub` marks what a file offers the others"
)]
#[allow(dead_code, reason = "each test program uses a part of it")]
#[path = "../support/mod.rs"]
mod support;

mod cgroup;
mod connections;
mod datagrams;
mod facts;
mod families;
mod far_sockets;
mod flood;
mod flooder;
mod floods;
mod greetings;
mod ladder;
mod lockdown;
mod loss;
mod matrix;
mod multipath;
mod names;
mod odd_calls;
mod odd_client;
mod odd_sockets;
mod open_bytes;
mod privileges;
mod proxies;
mod run;
mod swarm;
mod taken_away;
mod talker;
mod tool_calls;
mod tricks;
mod trickster;
mod verifier;
mod views;

use std::process::ExitCode;
use std::sync::OnceLock;

use support::namespace::User;
use support::scene::Scene;

fn main() -> ExitCode {
    if let Some(ended) = played() {
        return ended;
    }
    let arguments = libtest_mimic::Arguments::from_args();
    let trials = [
        connections::all(),
        datagrams::all(),
        facts::all(),
        families::all(),
        floods::all(),
        flood::all(),
        greetings::all(),
        ladder::all(),
        lockdown::all(),
        loss::all(),
        matrix::all(),
        multipath::all(),
        names::all(),
        odd_sockets::all(),
        open_bytes::all(),
        privileges::all(),
        proxies::all(),
        run::all(),
        swarm::all(),
        taken_away::all(),
        tool_calls::all(),
        tricks::all(),
        verifier::all(),
        views::all(),
    ];
    let conclusion = libtest_mimic::run(&arguments, trials.into_iter().flatten().collect());
    support::stage::clear();
    conclusion.exit_code()
}

/// The end of a process that plays a part in a test.
fn played() -> Option<ExitCode> {
    support::program::copy_if_asked()
        .or_else(support::caller::play_if_asked)
        .or_else(swarm::play_if_asked)
        .or_else(odd_client::play_if_asked)
        .or_else(flooder::play_if_asked)
        .or_else(greetings::play_if_asked)
        .or_else(proxies::play_if_asked)
        .or_else(multipath::play_if_asked)
        .or_else(trickster::play_if_asked)
        .or_else(talker::play_if_asked)
        .or_else(verifier::play_if_asked)
        .or_else(support::actor::play_if_asked)
}

/// A scene in which rano can load its programs; skips where it cannot.
fn scene() -> anyhow::Result<Scene> {
    static REFUSED: OnceLock<Option<String>> = OnceLock::new();
    let scene = Scene::new(User::Root)?;
    // Loading is slow in an emulated machine, so it is tried once.
    let refused = if let Some(refused) = REFUSED.get() {
        refused
    } else {
        let refused = try_loading(&scene)?;
        REFUSED.get_or_init(|| refused)
    };
    match refused {
        Some(reason) => Err(support::trial::skip(reason.as_str())),
        None => Ok(scene),
    }
}

/// Why it cannot.
fn try_loading(scene: &Scene) -> anyhow::Result<Option<String>> {
    let finished = scene.launch()?.args(["--once", "--source", "ebpf", "--no-sqlite"]).run()?;
    if finished.status.code() == Some(4) {
        let said: Vec<_> = finished.stderr.lines().take_while(|line| !line.starts_with("hint")).collect();
        return Ok(Some(format!("no eBPF here: {}", said.join(" "))));
    }
    finished.expect_code(0)?;
    Ok(None)
}
