//! The kernel programs on the running kernel, as root: what they see, exactly. What this machine cannot run is skipped,
//! with the reason.

#![expect(
    unreachable_pub,
    reason = "a test program has no outside: `pub` marks what a file offers the others"
)]
#[allow(dead_code, reason = "each test program uses a part of it")]
#[path = "../support/mod.rs"]
mod support;

mod connections;
mod facts;
mod ladder;
mod swarm;

use std::process::ExitCode;

fn main() -> ExitCode {
    if let Some(ended) = swarm::play_if_asked().or_else(support::actor::play_if_asked) {
        return ended;
    }
    let arguments = libtest_mimic::Arguments::from_args();
    let trials = [swarm::all(), connections::all(), facts::all(), ladder::all()];
    let conclusion = libtest_mimic::run(&arguments, trials.into_iter().flatten().collect());
    support::stage::clear();
    conclusion.exit_code()
}

/// A scene in which rano can load its programs; skips where it cannot.
fn scene() -> anyhow::Result<support::scene::Scene> {
    let scene = support::scene::Scene::new(support::namespace::User::Root)?;
    let finished = scene.launch()?.args(["--once", "--source", "ebpf", "--no-sqlite"]).run()?;
    if finished.status.code() == Some(4) {
        return Err(support::trial::skip(format!("no eBPF here: {}", finished.stderr.trim())));
    }
    finished.expect_code(0)?;
    Ok(scene)
}
