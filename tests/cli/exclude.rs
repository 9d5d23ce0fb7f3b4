//! What is left out, by whom, and that it is said and counted; what a process calls itself changes neither that nor on
//! whose behalf it acts. Agents of other tests are seen too, so that what is excluded has names that only these have.

use anyhow::{Context as _, Result, ensure};

use crate::support::actor::{Actor, Descendant, Transport, Tuple};
use crate::support::database::Database;
use crate::support::namespace::User;
use crate::support::rano::Rano;
use crate::support::scene::{FAST, Scene};

crate::tests![
    another_name_or_argument_excludes_nobody,
    another_name_does_not_bring_back_what_is_excluded,
    what_is_left_out_is_said_and_counted,
    an_exclude_in_a_file_stands_in_the_banner,
    an_exclude_may_mean_the_command_line,
    a_detour_over_an_excluded_program_hides_nobody,
    a_name_that_anybody_can_take_does_not_move_the_bill,
];

/// The provider of a connection's connect, once it is shown.
fn provider_of(rano: &Rano, scene: &Scene, tuple: Tuple) -> Result<String> {
    rano.wait_for_event("connect", tuple)?;
    // Shown before it is stored.
    let mut provider = String::new();
    crate::support::wait_until("the row", || {
        let rows = scene.database()?.events_of(Transport::Tcp, tuple)?;
        provider = rows.first().map(|row| row.provider.clone()).unwrap_or_default();
        Ok(!provider.is_empty())
    })?;
    Ok(provider)
}

/// Ends rano after it has seen everything that is open; what it wrote, and said at the end.
fn end(scene: &mut Scene, rano: Rano) -> Result<(Database, String)> {
    scene.let_it_look(&rano)?;
    let finished = rano.interrupt()?;
    finished.expect_code(0)?;
    Ok((scene.database()?, finished.stdout + &finished.stderr))
}

fn connect(agent: &mut Actor, who: &Descendant, scene: &Scene) -> Result<Tuple> {
    Ok(agent.connect_in(who, Transport::Tcp, scene.tcp)?.1)
}

fn another_name_or_argument_excludes_nobody() -> Result<()> {
    let mut scene = Scene::new(User::Ordinary)?;
    let rano = scene.observe(&["--exclude-pattern", "spare"])?;
    let mut claude = scene.agent("claude")?;
    let curl = claude.spawn_with(&claude.myself(), "curl", &["--repository", "x.spare", "spare"])?;
    scene.let_it_look(&rano)?;
    claude.rename(b"sparex")?;
    claude.rename_in(&curl, b"spare")?;
    scene.let_it_look(&rano)?;
    let myself = claude.myself();
    for who in [&myself, &curl] {
        let tuple = connect(&mut claude, who, &scene)?;
        ensure!(provider_of(&rano, &scene, tuple)? == "anthropic");
    }
    let (database, _) = end(&mut scene, rano)?;
    ensure!(database.count("SELECT excluded_processes FROM sessions")? == 0);
    Ok(())
}

fn another_name_does_not_bring_back_what_is_excluded() -> Result<()> {
    let mut scene = Scene::new(User::Ordinary)?;
    let rano = scene.observe(&["--exclude-pattern", "refuse"])?;
    let mut claude = scene.agent("claude")?;
    let omitted = claude.spawn(&claude.myself(), "refuse")?;
    scene.let_it_look(&rano)?;
    claude.rename_in(&omitted, b"claude")?;
    scene.let_it_look(&rano)?;
    let tuple = connect(&mut claude, &omitted, &scene)?;
    let (database, _) = end(&mut scene, rano)?;
    ensure!(database.events_of(Transport::Tcp, tuple)?.is_empty());
    Ok(())
}

fn what_is_left_out_is_said_and_counted() -> Result<()> {
    let mut scene = Scene::new(User::Ordinary)?;
    let rano = scene.observe(&["--exclude-pattern", "omit", "--exclude-pattern", "drop"])?;
    let mut claude = scene.agent("claude")?;
    let curl = claude.spawn(&claude.myself(), "drop-7")?;
    let below = claude.spawn(&curl, "wget")?;
    // Nobody's, so that it is not left out of anything.
    let mut other = scene.agent("drop-8")?;
    other.connect(Transport::Tcp, scene.tcp)?;
    let mut left_out = Vec::new();
    for who in [&curl, &below, &below] {
        left_out.push(connect(&mut claude, who, &scene)?);
    }
    let (database, said) = end(&mut scene, rano)?;
    for tuple in left_out {
        ensure!(database.events_of(Transport::Tcp, tuple)?.is_empty());
    }
    let stored = "SELECT excludes || ' ' || excluded_processes || ' ' || excluded_connections FROM sessions";
    ensure!(database.text(stored)? == r#"["omit","drop"] 2 3"#, "{}", database.text(stored)?);
    ensure!(said.contains("  excluded omit, drop\n"), "the banner: {said}");
    let sum = "left out 2 processes, 3 connections (excluded: omit, drop)";
    ensure!(said.contains(sum), "the summary: {said}");
    let report = scene.launch()?.args(["report"]).run()?.stdout;
    ensure!(report.contains("2 processes, 3 connections (excluded: drop, omit)"), "{report}");
    let json = scene.launch()?.args(["report", "--json"]).run()?.stdout;
    let json: serde_json::Value = serde_json::from_str(&json)?;
    let session = &json["session"];
    ensure!(session["excludes"] == serde_json::json!(["omit", "drop"]), "{session}");
    ensure!((&session["excluded_processes"], &session["excluded_connections"]) == (&2.into(), &3.into()));
    Ok(())
}

fn an_exclude_in_a_file_stands_in_the_banner() -> Result<()> {
    let scene = Scene::new(User::Ordinary)?;
    let directory = scene.directory().join(".config/rano");
    std::fs::create_dir_all(&directory)?;
    std::fs::write(directory.join("config.conf"), "exclude_pattern=claude\n")?;
    let rano = scene.launch()?.args(FAST).args(["--pattern", "claude"]).start()?;
    let banner = rano.stderr.wait_for("what is excluded", |line| line.contains("excluded claude"))?;
    ensure!(banner.contains("config.conf"), "{banner}");
    rano.stderr.wait_for("a notice", |line| line.contains("nothing matches yet: claude, without claude"))?;
    rano.interrupt()?.expect_code(0)?;
    Ok(())
}

fn an_exclude_may_mean_the_command_line() -> Result<()> {
    let mut scene = Scene::new(User::Ordinary)?;
    let rano = scene.observe(&["--exclude-pattern", "cmd:--Omitted job"])?;
    let mut claude = scene.agent("claude")?;
    let job = claude.spawn_with(&claude.myself(), "curl", &["--omitted", "job"])?;
    let other = claude.spawn_with(&claude.myself(), "curl", &["job", "--omitted"])?;
    let left_out = connect(&mut claude, &job, &scene)?;
    let shown = connect(&mut claude, &other, &scene)?;
    rano.wait_for_event("connect", shown)?;
    let (database, said) = end(&mut scene, rano)?;
    ensure!(database.events_of(Transport::Tcp, left_out)?.is_empty());
    ensure!(said.contains("left out 1 process, 1 connection (excluded: cmd:--Omitted job)"), "{said}");
    Ok(())
}

fn a_detour_over_an_excluded_program_hides_nobody() -> Result<()> {
    let mut scene = Scene::new(User::Ordinary)?;
    let rano = scene.observe(&["--exclude-pattern", "detour"])?;
    let mut claude = scene.agent("claude")?;
    let myself = claude.myself();
    for program in ["detour", "curl"] {
        scene.let_it_look(&rano)?;
        claude.exec(&myself, program)?;
    }
    scene.let_it_look(&rano)?;
    let tuple = connect(&mut claude, &myself, &scene)?;
    ensure!(provider_of(&rano, &scene, tuple)? == "anthropic");
    rano.interrupt()?.expect_code(0)?;
    Ok(())
}

fn a_name_that_anybody_can_take_does_not_move_the_bill() -> Result<()> {
    let mut scene = Scene::new(User::Ordinary)?;
    let rano = scene.observe(&[])?;
    let mut claude = scene.agent("claude")?;
    let myself = claude.myself();
    let posing = claude.spawn_called(&myself, "curl", Some("gemini"), &["codex"])?;
    let renamed = claude.spawn(&myself, "wget")?;
    claude.rename_in(&renamed, b"codex")?;
    let codex = claude.spawn(&myself, "codex")?;
    let below = claude.spawn_called(&codex, "curl", Some("claude"), &[])?;
    scene.let_it_look(&rano)?;
    let expected = [(&posing, "anthropic"), (&renamed, "anthropic"), (&codex, "openai"), (&below, "openai")];
    for (who, provider) in expected {
        let tuple = connect(&mut claude, who, &scene)?;
        let found = provider_of(&rano, &scene, tuple).with_context(|| format!("pid {}", who.pid))?;
        ensure!(found == provider, "{who:?}: {found}, not {provider}");
    }
    rano.interrupt()?.expect_code(0)?;
    Ok(())
}
