//! Which source is taken, and what is said where a better one was not to be had.

use anyhow::{Result, ensure};

use crate::support::namespace::User;
use crate::support::scene::Scene;

crate::tests![
    without_privileges_ebpf_is_refused_with_the_next_step,
    without_privileges_auto_falls_back_and_says_why,
    with_privileges_auto_takes_ebpf,
];

fn without_privileges_ebpf_is_refused_with_the_next_step() -> Result<()> {
    let scene = Scene::new(User::Ordinary)?;
    let finished = scene.launch()?.args(["--source", "ebpf"]).run()?;
    finished.expect_code(4)?;
    ensure!(finished.stderr.contains("sudo rano --source ebpf"), "{}", finished.stderr);
    ensure!(finished.stderr.lines().count() <= 4, "{}", finished.stderr);
    Ok(())
}

fn without_privileges_auto_falls_back_and_says_why() -> Result<()> {
    let mut scene = Scene::new(User::Ordinary)?;
    let rano = scene.observe(&[])?;
    rano.interrupt()?.expect_code(0)?;
    let found = scene.database()?.text("SELECT source || ': ' || source_reason FROM sessions")?;
    ensure!(found.starts_with("proc: no eBPF: not permitted (it takes root, or CAP_BPF"), "{found}");
    Ok(())
}

fn with_privileges_auto_takes_ebpf() -> Result<()> {
    let mut scene = crate::scene()?;
    let rano = scene.observe(&[])?;
    rano.interrupt()?.expect_code(0)?;
    let found = scene.database()?.text("SELECT source FROM sessions")?;
    ensure!(found.starts_with("ebpf-"), "{found}");
    Ok(())
}
