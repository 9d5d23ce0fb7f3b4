//! The tools of the other tests, tested themselves.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};

use crate::support::actor::{Actor, Ending, Service, Totals, Transport, invalid_utf8};
use crate::support::namespace::{Place, User};
use crate::support::program;
use crate::support::rano::mentions;

crate::tests![
    a_client_reports_its_tuple_and_counts_its_bytes,
    a_datagram_client_counts_its_bytes,
    a_place_has_a_network_of_its_own,
    a_place_elsewhere_has_another_network_for_the_same_user,
    an_ordinary_place_has_no_privileges,
    children_are_told_through_their_parents,
    exec_keeps_the_pid_and_changes_the_name,
    arguments_and_names_may_be_any_bytes,
    held_and_short_connections_are_all_reported,
    a_longer_port_is_another_address,
    a_copied_program_runs_while_other_tests_start_theirs,
    no_test_writes_a_program_itself,
];

fn status_line(pid: u32, key: &str) -> Result<String> {
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status.lines().find(|line| line.starts_with(key)).context("no such line")?;
    Ok(line.to_owned())
}

fn a_client_reports_its_tuple_and_counts_its_bytes() -> Result<()> {
    let place = Place::new(User::Ordinary)?;
    let mut server = Actor::start(&place, "server")?;
    for at in ["127.0.0.1:0", "[::1]:0"] {
        let address = server.serve(Transport::Tcp, at, Service::Answer)?;
        let mut client = Actor::start(&place, "claude")?;
        let (connection, tuple) = client.connect(Transport::Tcp, address)?;
        ensure!(tuple.remote == address && tuple.local.ip() == address.ip());
        client.exchange(connection, 1000, 70_000)?;
        let totals = client.exchange(connection, 8, 1)?;
        ensure!(totals == Totals { sent: 1008, received: 70_001 }, "{totals:?}");
        client.close(connection, Ending::InOrder)?;
        client.end()?;
    }
    Ok(())
}

fn a_datagram_client_counts_its_bytes() -> Result<()> {
    let place = Place::new(User::Ordinary)?;
    let mut server = Actor::start(&place, "server")?;
    for at in ["127.0.0.1:0", "[::1]:0"] {
        let address = server.serve(Transport::Udp, at, Service::Answer)?;
        let mut client = Actor::start(&place, "claude")?;
        let (connection, tuple) = client.connect(Transport::Udp, address)?;
        ensure!(tuple.remote == address && tuple.local.ip() == address.ip());
        let totals = client.exchange(connection, 100, 2000)?;
        ensure!(totals == Totals { sent: 100, received: 2000 }, "{totals:?}");
    }
    Ok(())
}

fn a_place_has_a_network_of_its_own() -> Result<()> {
    let (here, there) = (Place::new(User::Ordinary)?, Place::new(User::Ordinary)?);
    let mut server = Actor::start(&here, "server")?;
    let address = server.serve(Transport::Tcp, "127.0.0.1:0", Service::Answer)?;
    let refused = Actor::start(&there, "claude")?.connect(Transport::Tcp, address);
    ensure!(format!("{:#}", refused.err().context("connected across namespaces")?).contains("refused"));
    Actor::start(&here, "claude")?.connect(Transport::Tcp, address)?;
    Ok(())
}

fn a_place_elsewhere_has_another_network_for_the_same_user() -> Result<()> {
    let here = Place::new(User::Ordinary)?;
    let elsewhere = here.elsewhere()?;
    let mut one = Actor::start(&here, "claude")?;
    let mut other = Actor::start(&elsewhere, "claude")?;
    ensure!(status_line(one.pid(), "Uid:")? == status_line(other.pid(), "Uid:")?);
    let address = one.serve(Transport::Tcp, "127.0.0.1:0", Service::Answer)?;
    ensure!(other.connect(Transport::Tcp, address).is_err(), "connected across namespaces");
    Ok(())
}

fn an_ordinary_place_has_no_privileges() -> Result<()> {
    let place = Place::new(User::Ordinary)?;
    let actor = Actor::start(&place, "claude")?;
    let capabilities = status_line(actor.pid(), "CapEff:")?;
    ensure!(capabilities.ends_with("\t0000000000000000"), "{capabilities}");
    let uids = status_line(actor.pid(), "Uid:")?;
    ensure!(place.uid() != 0 && uids.contains(&place.uid().to_string()), "{uids}");
    Ok(())
}

fn children_are_told_through_their_parents() -> Result<()> {
    let place = Place::new(User::Ordinary)?;
    let mut server = Actor::start(&place, "server")?;
    let address = server.serve(Transport::Tcp, "127.0.0.1:0", Service::Answer)?;
    let mut claude = Actor::start(&place, "claude")?;
    let shell = claude.spawn(&claude.myself(), "bash")?;
    let curl = claude.spawn(&shell, "curl")?;
    ensure!(status_line(curl.pid, "PPid:")?.ends_with(&format!("\t{}", shell.pid)));
    let (connection, _) = claude.connect_in(&curl, Transport::Tcp, address)?;
    ensure!(claude.exchange_in(&curl, connection, 10, 20)? == Totals { sent: 10, received: 20 });
    claude.close_in(&curl, connection, Ending::InOrder)
}

fn exec_keeps_the_pid_and_changes_the_name() -> Result<()> {
    let place = Place::new(User::Ordinary)?;
    let mut actor = Actor::start(&place, "bash")?;
    let pid = actor.pid();
    let myself = actor.myself();
    actor.exec(&myself, "codex")?;
    ensure!(fs::read_to_string(format!("/proc/{pid}/comm"))? == "codex\n");
    Ok(())
}

fn arguments_and_names_may_be_any_bytes() -> Result<()> {
    let place = Place::new(User::Ordinary)?;
    let long = "x".repeat(100_000);
    let mut actor = Actor::start_with(&place, "claude", &[invalid_utf8(), OsStr::new(&long)])?;
    let cmdline = fs::read(format!("/proc/{}/cmdline", actor.pid()))?;
    ensure!(cmdline.ends_with(format!("\0{long}\0").as_bytes()));
    ensure!(cmdline.windows(3).any(|bytes| bytes == invalid_utf8().as_bytes()));
    actor.rename(b"a\n\x1b[31m\xff")?;
    ensure!(fs::read(format!("/proc/{}/comm", actor.pid()))? == b"a\n\x1b[31m\xff\n");
    Ok(())
}

fn held_and_short_connections_are_all_reported() -> Result<()> {
    let place = Place::new(User::Ordinary)?;
    let mut server = Actor::start(&place, "server")?;
    let address = server.serve(Transport::Tcp, "127.0.0.1:0", Service::Keep)?;
    let mut client = Actor::start(&place, "claude")?;
    let held = client.hold(address, 300)?;
    let short = client.short_connections(address, 20, Duration::from_millis(1))?;
    let distinct: std::collections::HashSet<_> = held.iter().chain(&short).collect();
    ensure!(distinct.len() == 320);
    client.close_held()?;
    server.drop_accepted(320)
}

fn a_longer_port_is_another_address() -> Result<()> {
    ensure!(mentions("127.0.0.1:54012 -> 1.2.3.4:443", "127.0.0.1:54012"));
    ensure!(!mentions("127.0.0.1:54012 -> 1.2.3.4:443", "127.0.0.1:5401"));
    Ok(())
}

/// A child that is forked while a program is being written holds it open until its own exec (ETXTBSY).
fn a_copied_program_runs_while_other_tests_start_theirs() -> Result<()> {
    let directory = tempfile::tempdir()?;
    let from = Path::new("/bin/true").canonicalize()?;
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                while !done.load(Ordering::Relaxed) {
                    let mut command = Command::new(&from);
                    // SAFETY: the closure does nothing; with it a child is forked, as the tests' are.
                    unsafe { command.pre_exec(|| Ok(())) };
                    let _ = command.status();
                }
            });
        }
        let copies = (0..100).try_for_each(|number| {
            let program = directory.path().join(number.to_string());
            program::copy(&from, &program)?;
            let status = Command::new(&program).status().with_context(|| format!("copy {number}"))?;
            ensure!(status.success(), "{status}");
            Ok(())
        });
        done.store(true, Ordering::Relaxed);
        copies
    })
}

/// All of them go through `program::copy`.
fn no_test_writes_a_program_itself() -> Result<()> {
    let mut found = Vec::new();
    for directory in ["cli", "kernel", "support", "support/actor"] {
        for entry in fs::read_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests").join(directory))? {
            let path = entry?.path();
            if path.is_dir() || path.ends_with("support/program.rs") || path.ends_with("cli/harness.rs") {
                continue;
            }
            for (number, line) in fs::read_to_string(&path)?.lines().enumerate() {
                // These copy databases.
                let may = ["cli/report.rs", "cli/sessions.rs", "cli/tampering.rs", "cli/upgrades.rs"];
                let copies = line.contains("fs::copy(") && !may.iter().any(|file| path.ends_with(file));
                if copies || line.contains("from_mode(0o755)") && !line.contains("directory") {
                    found.push(format!("{}:{}: {}", path.display(), number + 1, line.trim()));
                }
            }
        }
    }
    ensure!(found.is_empty(), "use support::program::copy: {found:#?}");
    Ok(())
}
