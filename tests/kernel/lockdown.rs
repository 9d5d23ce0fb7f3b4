//! A kernel that is locked down (`kernel_lockdown(7)`): only guests of `cargo xtask vm` are booted like that.

use std::fs;

use anyhow::{Result, ensure};

use crate::support::namespace::User;
use crate::support::scene::Scene;
use crate::support::trial::skip;

crate::tests![for_confidentiality_it_polls_and_says_why, for_integrity_it_costs_nothing];

/// Skips where the kernel is locked down otherwise.
fn needs(wanted: &str) -> Result<()> {
    let text = fs::read_to_string("/sys/kernel/security/lockdown").unwrap_or_default();
    let found = text.split_whitespace().find_map(|word| word.strip_prefix('[')?.strip_suffix(']'));
    if found == Some(wanted) {
        return Ok(());
    }
    Err(skip(format!("needs lockdown={wanted}, this is {}", found.unwrap_or("unknown"))))
}

/// Source and reason of an observation in which a connection was seen.
fn session() -> Result<(String, String)> {
    let mut scene = Scene::new(User::Root)?;
    let rano = scene.observe(&[])?;
    scene.let_it_look(&rano)?;
    rano.interrupt()?.expect_code(0)?;
    let database = scene.database()?;
    let reason = database.text("SELECT coalesce(source_reason, '') FROM sessions")?;
    Ok((database.text("SELECT source FROM sessions")?, reason))
}

/// Programs may not read the kernel's memory then.
fn for_confidentiality_it_polls_and_says_why() -> Result<()> {
    needs("confidentiality")?;
    let (source, reason) = session()?;
    ensure!(source == "proc" && reason.contains("lockdown") && !reason.contains('\n'), "{source}: {reason}");
    Ok(())
}

fn for_integrity_it_costs_nothing() -> Result<()> {
    needs("integrity")?;
    let (source, reason) = session()?;
    ensure!(source.starts_with("ebpf-") && reason.is_empty(), "{source}: {reason}");
    Ok(())
}
