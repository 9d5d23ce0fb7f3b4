//! What a page hears of what goes on, and that hearing disturbs nobody.

use std::fs;
use std::io::Write as _;
use std::net::TcpStream;
use std::os::unix::fs::MetadataExt as _;

use anyhow::{Context as _, Result, ensure};
use rustix::process::Signal;
use serde_json::Value;

use super::serve::{ROUTES, history, list, site};
use crate::support::actor::{Actor, Ending, Service, Transport};
use crate::support::history::{Connection, START};
use crate::support::namespace::{Place, User};
use crate::support::rano::Launch;
use crate::support::web::Site;
use crate::support::{stage, wait_until};

crate::tests![
    what_is_stored_comes_through_the_stream,
    a_stream_goes_on_where_it_was_left,
    who_does_not_read_holds_up_nobody,
    two_hundred_listen_at_a_time,
    an_observation_is_shown_as_it_goes,
    reading_beside_the_writer_keeps_its_locks,
];

fn what_is_stored_comes_through_the_stream() -> Result<()> {
    let history = history()?;
    let store = history.begin("third", START + 40 * 3_600_000)?;
    let site = Site::start(history.launch_beside(&["serve", "--attach", "third"])?)?;
    let mut stream = site.stream("", None)?;
    let mut filtered = site.stream("?filter=domain:other.example", None)?;
    let one = Connection { at: START + 40 * 3_600_000, ..Connection::default() };
    let other = Connection { domain: Some("other.example".into()), ..one.clone() };
    for (number, connection) in [(1, &one), (2, &other)] {
        for event in connection.events(number) {
            store.push(&event.into());
        }
    }
    let close = stream.wait_for(|event| event["event"] == "close" && event["domain"] == "other.example")?;
    ensure!(close["bytes_sent"] == 100 && close["run_id"] == "1-1768822200000", "{close}");
    let first = filtered.wait_for(|_| true)?;
    ensure!(first["domain"] == "other.example", "{first}");
    Ok(())
}

fn a_stream_goes_on_where_it_was_left() -> Result<()> {
    let history = history()?;
    let site = site(&history)?;
    let events = site.json("/api/events?run=second")?;
    let ids: Vec<i64> = list(&events, "/events")?.iter().filter_map(|event| event["id"].as_i64()).collect();
    let left = ids[ids.len() - 4];
    let message = site.stream("?run=second", Some(left))?.next()?;
    let again: Vec<i64> =
        list(&message.data, "/events")?.iter().filter_map(|event| event["id"].as_i64()).collect();
    ensure!(again == ids[ids.len() - 3..], "{again:?} after {left}");
    ensure!(message.id == ids[ids.len() - 1] && message.data["reset"] == false, "{message:?}");
    // A history that was lost, or another one.
    let message = site.stream("?run=second", Some(1_000_000))?.next()?;
    ensure!(message.data["reset"] == true, "{message:?}");
    Ok(())
}

fn who_does_not_read_holds_up_nobody() -> Result<()> {
    let history = history()?;
    let begin = START + 40 * 3_600_000;
    let store = history.begin("third", begin)?;
    let site = Site::start(history.launch_beside(&["serve", "--attach", "third"])?)?;
    let mut reading = site.stream("", None)?;
    let mut idle = Vec::new();
    for _ in 0..20 {
        let mut stream = TcpStream::connect(site.address()?)?;
        rustix::net::sockopt::set_socket_recv_buffer_size(&stream, 4096)?;
        stream.write_all(site.head("/api/stream", &site.bearer()).as_bytes())?;
        idle.push(stream);
    }
    let before = resident(site.rano.pid())?;
    let long = Connection { cmdline: "x".repeat(4000), at: begin, ..Connection::default() };
    let mut last = 0;
    for round in 0..40 {
        for number in 0..50 {
            for event in long.events(round * 50 + number) {
                store.push(&event.into());
            }
        }
        let message = loop {
            let message = reading.next()?;
            if message.id >= (i64::try_from(round)? + 1) * 100 {
                break message;
            }
        };
        ensure!(message.kind == "events", "{message:?}");
        last = message.id;
    }
    ensure!(last >= 4000, "{last}");
    let grown = resident(site.rano.pid())?.saturating_sub(before);
    ensure!(grown < 64 << 10, "{grown} KiB more");
    ensure!(site.get("/api/sessions")?.code == 200);
    drop(idle);
    Ok(())
}

/// KiB.
fn resident(pid: u32) -> Result<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).context("no VmRSS")?;
    Ok(line.split_whitespace().nth(1).context("a number")?.parse()?)
}

fn two_hundred_listen_at_a_time() -> Result<()> {
    let history = history()?;
    let begin = START + 40 * 3_600_000;
    let store = history.begin("third", begin)?;
    let site = Site::start(history.launch_beside(&["serve", "--attach", "third"])?)?;
    let streams = (0..200).map(|_| site.stream("", None)).collect::<Result<Vec<_>>>()?;
    let connection = Connection { at: begin, ..Connection::default() };
    for event in connection.events(7) {
        store.push(&event.into());
    }
    for mut stream in streams {
        stream.wait_for(|event| event["event"] == "close")?;
    }
    ensure!(site.get("/api/sessions")?.code == 200);
    Ok(())
}

fn an_observation_is_shown_as_it_goes() -> Result<()> {
    let place = Place::new(User::Ordinary)?;
    let directory = stage::directory(&place)?;
    let launch = Launch::new(&place, directory.path())?;
    let site = Site::start(launch.args([
        "serve",
        "--source",
        "proc",
        "--interval-ms",
        "20",
        "--no-dns",
        "--listen",
        "unix:page.sock",
    ]))?;
    let following = site.json("/api/sessions")?["following"].as_str().context("a run")?.to_owned();
    let mut stream = site.stream("", None)?;
    let mut server = Actor::start(&place, "server")?;
    let address = server.serve(Transport::Tcp, "127.0.0.1:0", Service::Answer)?;
    let mut claude = Actor::start(&place, "claude")?;
    let (connection, tuple) = claude.connect(Transport::Tcp, address)?;
    let port = tuple.local.port();
    let is_it = |event: &Value, word: &str| event["event"] == word && event["local_port"] == port;
    let connect = stream.wait_for(|event| is_it(event, "connect"))?;
    ensure!(connect["comm"] == "claude" && connect["run_id"] == following.as_str(), "{connect}");
    let open = site.json("/api/connections")?;
    ensure!(list(&open, "/connections")?.iter().any(|row| row["standing"] == "open"), "{open}");
    ensure!(site.json("/api/snapshot")?["report"]["session"]["running"] == true);
    claude.close(connection, Ending::InOrder)?;
    stream.wait_for(|event| is_it(event, "close"))?;
    let finished = site.rano.interrupt()?;
    finished.expect_code(0)?;
    ensure!(finished.stdout.lines().count() == 1, "{}", finished.stdout);
    ensure!(finished.stderr.contains("connects 1"), "{}", finished.stderr);
    Ok(())
}

/// POSIX takes away all locks of a process on a file when it closes any descriptor of it.
fn reading_beside_the_writer_keeps_its_locks() -> Result<()> {
    let place = Place::new(User::Ordinary)?;
    let directory = stage::directory(&place)?;
    let launch = Launch::new(&place, directory.path())?;
    let site = Site::start(launch.args([
        "serve",
        "--source",
        "proc",
        "--no-dns",
        "--sqlite",
        "a.sqlite",
        "--listen",
        "unix:page.sock",
    ]))?;
    let inode = fs::metadata(directory.path().join("a.sqlite"))?.ino();
    let pid = site.rano.pid();
    let holds = || -> Result<bool> {
        let locks = fs::read_to_string("/proc/locks")?;
        Ok(locks.lines().any(|line| {
            let words: Vec<_> = line.split_whitespace().collect();
            words.contains(&"POSIX")
                && words.contains(&pid.to_string().as_str())
                && line.contains(&format!(":{inode} "))
        }))
    };
    wait_until("the writer holds a lock", holds)?;
    for path in ROUTES.iter().filter(|path| !path.ends_with("stream")) {
        ensure!(site.get(path)?.code == 200, "{path}");
        ensure!(holds()?, "{path} took the writer's lock away");
    }
    site.stream("", None)?.next()?;
    ensure!(holds()?, "the stream took the writer's lock away");
    site.rano.signal(Signal::INT)?;
    site.rano.wait()?.expect_code(0)?;
    Ok(())
}
