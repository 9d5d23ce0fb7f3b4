//! `rano run`: a command under observation from its first instruction, as an ordinary user.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::fs;
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::process::ExitStatusExt as _;
use std::path::Path;

use anyhow::{Context as _, Result, ensure};
use rustix::process::Signal;

use crate::support::actor::{Actor, Service, Transport};
use crate::support::caller::{self, PAYLOAD};
use crate::support::database::Database;
use crate::support::dns::{self, Server, Zone};
use crate::support::namespace::{Place, User};
use crate::support::rano::{Finished, Launch, Rano, default_database};
use crate::support::terminal::watch_any;
use crate::support::{stage, wait_until};

crate::tests![
    the_exit_code_is_the_commands,
    what_cannot_be_run_is_told_as_a_shell_does,
    every_connect_of_many_processes_has_its_owner_and_bytes,
    threads_connect_as_their_process,
    a_refused_connect_is_a_fail_with_its_port,
    datagrams_are_told_by_receiver,
    what_is_not_seen_is_counted,
    a_command_goes_on_when_rano_is_killed,
    a_command_goes_on_while_rano_stands_still,
    a_command_goes_on_while_nobody_reads_what_rano_says,
    below_another_listener_it_polls_and_says_so,
    a_question_of_the_command_names_its_connection,
    what_is_left_is_told_and_holds_no_output,
    with_wait_it_goes_on_until_all_have_ended,
    an_interrupt_is_the_commands_and_a_wish_to_end_is_passed_on,
    others_are_told_when_watching_has_begun,
    events_go_to_a_file_and_not_to_standard_output,
    on_a_terminal_it_is_silent_while_the_command_runs,
    a_session_of_a_command_says_what_was_run,
];

struct Scene {
    place: Place,
    server: Actor,
    tcp: SocketAddr,
    directory: tempfile::TempDir,
}

impl Scene {
    fn new(user: User) -> Result<Self> {
        let place = Place::new(user)?;
        let mut server = Actor::start(&place, "server")?;
        let tcp = server.serve(Transport::Tcp, "127.0.0.1:0", Service::Drain)?;
        Ok(Self { server, tcp, directory: stage::directory(&place)?, place })
    }

    fn ordinary() -> Result<Self> {
        Self::new(User::Ordinary)
    }

    fn to(&self) -> String {
        self.tcp.to_string()
    }

    fn file(&self, name: &str) -> String {
        self.directory.path().join(name).display().to_string()
    }

    /// rano with `options`, and a command that plays a part.
    fn part(&self, options: &[&str], part: &[&str]) -> Result<Launch> {
        let program = stage::actor("mycommand")?;
        let words = [program.as_os_str()].into_iter().chain(part.iter().map(OsStr::new));
        Ok(self.command(options)?.args(words))
    }

    fn command(&self, options: &[&str]) -> Result<Launch> {
        let launch = Launch::new(&self.place, self.directory.path())?.env(caller::MARKER, "1");
        Ok(launch.args(["run"]).args(options).args(["--"]))
    }

    fn play(&self, options: &[&str], part: &[&str]) -> Result<Finished> {
        let finished = self.part(options, part)?.run()?;
        finished.expect_code(0)?;
        Ok(finished)
    }

    fn database(&self) -> Result<Database> {
        Database::open(&default_database(self.directory.path()))
    }
}

const BY_CALLS: [&str; 2] = ["--source", "seccomp"];

fn the_exit_code_is_the_commands() -> Result<()> {
    let scene = Scene::ordinary()?;
    for source in ["seccomp", "proc"] {
        for code in [0, 1, 2, 77, 255] {
            let script = format!("exit {code}");
            let launch = scene.command(&["--no-sqlite", "--source", source])?;
            launch.args(["sh", "-c", &script]).run()?.expect_code(code)?;
        }
        for (signal, code) in [("KILL", 137), ("SEGV", 139), ("TERM", 143)] {
            let script = format!("kill -{signal} $$");
            let launch = scene.command(&["--no-sqlite", "--source", source])?;
            launch.args(["sh", "-c", &script]).run()?.expect_code(code)?;
        }
    }
    Ok(())
}

fn what_cannot_be_run_is_told_as_a_shell_does() -> Result<()> {
    let scene = Scene::ordinary()?;
    let text = scene.file("text");
    fs::write(&text, "no program")?;
    fs::set_permissions(&text, fs::Permissions::from_mode(0o644))?;
    for (command, code) in [("no-such-program", 127), ("/no/such/program", 127), (&*text, 126), ("/", 126)] {
        let finished = scene.command(&["--no-sqlite"])?.args([command]).run()?;
        finished.expect_code(code)?;
        ensure!(finished.stderr.contains(&format!("cannot run '{command}'")), "{finished:#?}");
    }
    scene.command(&[])?.run()?.expect_code(2)?;
    Ok(())
}

fn every_connect_of_many_processes_has_its_owner_and_bytes() -> Result<()> {
    let scene = Scene::ordinary()?;
    let finished = scene.play(&BY_CALLS, &["processes", &scene.to(), "50", "20"])?;
    let database = scene.database()?;
    let told = "SELECT group_concat(line, '; ') FROM (SELECT concat_ws(' ', event, source, owner_quality, count(*), \
                count(DISTINCT pid), sum(cmdline LIKE '%mycommand connect %'), \
                sum(ancestry_path LIKE '%mycommand:%,mycommand:%'), sum(bytes_sent)) AS line \
                FROM events GROUP BY event, source, owner_quality ORDER BY event)";
    let bytes = 1000 * PAYLOAD.len();
    let expected =
        format!("close seccomp exact 1000 50 1000 1000 {bytes}; connect seccomp exact 1000 50 1000 1000");
    let found = database.text(told)?;
    ensure!(found.trim_end() == expected, "{found}\n{finished:#?}");
    ensure!(database.count("SELECT unattributed + kernel_dropped + notifications_lost FROM sessions")? == 0);
    Ok(())
}

fn threads_connect_as_their_process() -> Result<()> {
    let scene = Scene::ordinary()?;
    scene.play(&BY_CALLS, &["threads", &scene.to(), "8", "25"])?;
    let query = "SELECT count(*) || ' ' || count(DISTINCT pid) || ' ' || sum(bytes_sent) FROM events \
                 WHERE event = 'close' AND owner_quality = 'exact' AND comm = 'mycommand'";
    let found = scene.database()?.text(query)?;
    ensure!(found == format!("200 1 {}", 200 * PAYLOAD.len()), "{found}");
    Ok(())
}

fn a_refused_connect_is_a_fail_with_its_port() -> Result<()> {
    let mut scene = Scene::ordinary()?;
    // A port that was somebody's a moment ago.
    let gone = Actor::start(&scene.place, "gone")?;
    let closed = { gone }.serve(Transport::Tcp, "127.0.0.1:0", Service::Drain)?;
    scene.server.serve(Transport::Tcp, "127.0.0.1:0", Service::Drain)?;
    scene.play(&BY_CALLS, &["refused", &closed.to_string()])?;
    let query = "SELECT group_concat(concat_ws(' ', event, source, owner_quality, remote_ip, remote_port), '; ') FROM events";
    let found = scene.database()?.text(query)?;
    ensure!(found == format!("fail seccomp exact 127.0.0.1 {}", closed.port()), "{found}");
    Ok(())
}

fn datagrams_are_told_by_receiver() -> Result<()> {
    let mut scene = Scene::ordinary()?;
    let to = scene.server.serve(Transport::Udp, "127.0.0.1:0", Service::Answer)?;
    scene.play(&BY_CALLS, &["datagrams", &to.to_string(), "5"])?;
    let query =
        "SELECT group_concat(concat_ws(' ', event, proto, owner_quality, remote_port), '; ') FROM events";
    let (found, port) = (scene.database()?.text(query)?, to.port());
    ensure!(found == format!("connect udp exact {port}; close udp exact {port}"), "{found}");
    scene.play(
        &["--source", "seccomp", "--no-udp", "--sqlite", "other.sqlite"],
        &["datagrams", &to.to_string(), "5"],
    )?;
    let other = Database::open(&scene.directory.path().join("other.sqlite"))?;
    ensure!(other.count("SELECT count(*) FROM events")? == 0);
    Ok(())
}

fn what_is_not_seen_is_counted() -> Result<()> {
    let scene = Scene::ordinary()?;
    let hidden = scene.play(&BY_CALLS, &["secretly", &scene.to()])?;
    ensure!(
        hidden.stderr.contains("not exact: 1 calls of processes that may not be looked into"),
        "{hidden:#?}"
    );
    let ring = scene.play(&BY_CALLS, &["ring"])?;
    ensure!(ring.stderr.contains("not exact: 1 processes with an io_uring"), "{ring:#?}");
    let stored =
        "SELECT group_concat(concat_ws(' ', permission_denied, kernel_unfollowed), '; ') FROM sessions";
    let stored = scene.database()?.text(stored)?;
    ensure!(stored == "1 0; 0 1", "{stored}");
    Ok(())
}

/// Runs a command that connects until it is told to end, lets `happen` come over rano, and checks that every connect of
/// the command worked.
fn goes_on(options: &[&str], happen: impl FnOnce(&Rano) -> Result<()>) -> Result<()> {
    let scene = Scene::ordinary()?;
    let (begun, end) = (scene.file("begun"), scene.file("end"));
    let rano = scene.part(options, &["until", &scene.to(), &begun, &end])?.start()?;
    wait_until("the command connects", || Ok(Path::new(&begun).exists()))?;
    happen(&rano)?;
    // So many more at least that whoever holds them up would be seen.
    wait_until_more_are_accepted(&scene)?;
    fs::write(&end, b"")?;
    wait_until("the command ends well", || Ok(!fs::read_to_string(&begun)?.is_empty()))
}

fn wait_until_more_are_accepted(scene: &Scene) -> Result<()> {
    let opened = || -> Result<u64> {
        let table = fs::read_to_string(format!("/proc/{}/net/snmp", scene.server.pid()))?;
        let mut lines = table.lines().filter_map(|line| line.strip_prefix("Tcp: "));
        let (names, values) = (lines.next().context("names")?, lines.next().context("values")?);
        let columns: HashMap<_, _> = names.split(' ').zip(values.split(' ')).collect();
        Ok(columns.get("PassiveOpens").context("a column")?.parse()?)
    };
    let before = opened()?;
    wait_until("200 more connections", || Ok(opened()? >= before + 200))
}

fn a_command_goes_on_when_rano_is_killed() -> Result<()> {
    goes_on(&BY_CALLS, |rano| rano.signal(Signal::KILL))
}

fn a_command_goes_on_while_rano_stands_still() -> Result<()> {
    goes_on(&BY_CALLS, Rano::stop)
}

fn a_command_goes_on_while_nobody_reads_what_rano_says() -> Result<()> {
    let scene = Scene::ordinary()?;
    let (begun, end) = (scene.file("begun"), scene.file("end"));
    let fifo = scene.file("log");
    rustix::fs::mknodat(
        rustix::fs::CWD,
        &*fifo,
        rustix::fs::FileType::Fifo,
        rustix::fs::Mode::from_raw_mode(0o666),
        0,
    )?;
    let (uid, gid) = scene.place.ids();
    std::os::unix::fs::chown(&fifo, Some(uid), Some(gid))?;
    // Held open, and never read.
    let _reader = fs::OpenOptions::new().read(true).write(true).open(&fifo)?;
    let options = ["--source", "seccomp", "--json", "--log-file", &fifo];
    let _rano = scene.part(&options, &["until", &scene.to(), &begun, &end])?.start()?;
    wait_until("the command connects", || Ok(Path::new(&begun).exists()))?;
    // More than a pipe holds.
    for _ in 0..3 {
        wait_until_more_are_accepted(&scene)?;
    }
    fs::write(&end, b"")?;
    wait_until("the command ends well", || Ok(!fs::read_to_string(&begun)?.is_empty()))
}

fn below_another_listener_it_polls_and_says_so() -> Result<()> {
    let scene = Scene::ordinary()?;
    let rano = stage::rano()?;
    let inner = [rano.as_os_str(), OsStr::new("run"), OsStr::new("--no-sqlite"), OsStr::new("true")];
    let finished = scene.command(&BY_CALLS)?.args(inner).run()?;
    finished.expect_code(0)?;
    ensure!(finished.stderr.contains("proc (no eBPF"), "{finished:#?}");
    ensure!(finished.stderr.contains("already answers for these processes"), "{finished:#?}");
    let only = [rano.as_os_str(), OsStr::new("run"), OsStr::new("--source=seccomp"), OsStr::new("true")];
    scene.command(&BY_CALLS)?.args(only).run()?.expect_code(4)?;
    Ok(())
}

fn a_question_of_the_command_names_its_connection() -> Result<()> {
    let mut scene = Scene::new(User::Root)?;
    let address = "127.0.0.7".parse()?;
    let zone = Zone { addresses: HashMap::from([("api.example.test", address)]), ..Zone::default() };
    let _dns = Server::start(&scene.place, zone)?;
    let at: SocketAddr = scene.server.serve(Transport::Tcp, "127.0.0.7:0", Service::Drain)?;
    let part = ["named", &format!("api.example.test:{}", at.port())];
    let launch = scene.part(&["--source", "seccomp", "--ptr-private"], &part)?;
    dns::ask_here(launch, scene.directory.path())?.run()?.expect_code(0)?;
    let query = "SELECT concat_ws(' ', event, domain, domain_source, owner_quality) FROM events \
                 WHERE event = 'close' AND remote_ip = '127.0.0.7'";
    let found = scene.database()?.text(query)?;
    ensure!(found == "close api.example.test asked exact", "{found}");
    // Only those that somebody may believe are asked.
    let unasked = ["--source", "seccomp", "--no-dns", "--sqlite", "other.sqlite"];
    let launch = scene.part(&unasked, &part)?;
    dns::ask_here(launch, scene.directory.path())?.run()?.expect_code(0)?;
    let other = Database::open(&scene.directory.path().join("other.sqlite"))?;
    ensure!(other.count("SELECT count(domain) FROM events")? == 0);
    Ok(())
}

/// The output is read to its end, which comes only when nobody holds it.
fn what_is_left_is_told_and_holds_no_output() -> Result<()> {
    let scene = Scene::ordinary()?;
    let end = scene.file("end");
    let program = stage::actor("mycommand")?;
    let script = format!("{} wait {end} </dev/null >/dev/null 2>&1 & exit 3", program.display());
    let finished = scene.command(&BY_CALLS)?.args(["sh", "-c", &script]).run();
    fs::write(&end, b"")?;
    let finished = finished?;
    finished.expect_code(3)?;
    ensure!(finished.stderr.contains("1 process of the command still running"), "{finished:#?}");
    Ok(())
}

fn with_wait_it_goes_on_until_all_have_ended() -> Result<()> {
    let scene = Scene::ordinary()?;
    scene.play(&["--source", "seccomp", "--wait"], &["leave", "leave", "connect", &scene.to(), "20"])?;
    let query = "SELECT count(*) FROM events WHERE event = 'close' AND bytes_sent = 10";
    let found = scene.database()?.count(query)?;
    ensure!(found == 20, "{found}");
    Ok(())
}

fn an_interrupt_is_the_commands_and_a_wish_to_end_is_passed_on() -> Result<()> {
    let scene = Scene::ordinary()?;
    for source in ["seccomp", "proc"] {
        let (begun, end) = (scene.file("begun"), scene.file("never"));
        let options = ["--no-sqlite", "--source", source];
        let rano = scene.part(&options, &["until", &scene.to(), &begun, &end])?.start()?;
        wait_until("the command connects", || Ok(Path::new(&begun).exists()))?;
        rano.signal(Signal::INT)?;
        rano.signal(Signal::QUIT)?;
        wait_until_more_are_accepted(&scene)?;
        rano.signal(Signal::TERM)?;
        let finished = rano.wait()?;
        finished.expect_code(143)?;
        ensure!(finished.stderr.contains("Summary"), "{finished:#?}");
        fs::remove_file(&begun)?;
    }
    Ok(())
}

fn others_are_told_when_watching_has_begun() -> Result<()> {
    let scene = Scene::ordinary()?;
    let file = scene.file("ready");
    let script = format!("test \"$(cat {file})\" = ready");
    let launch = scene.command(&["--no-sqlite", "--ready-file", &file])?;
    let finished = launch.args(["sh", "-c", &script]).run()?;
    finished.expect_code(0)?;
    ensure!(finished.stderr.contains("\nwatching\n"), "{finished:#?}");
    // A descriptor, in the way of a shell; the command does not have it.
    let rano = stage::rano()?;
    let script = format!(
        "{} run --no-sqlite --ready-fd 7 sh -c 'test ! -e /dev/fd/7' 7>told && test \"$(cat told)\" = ready",
        rano.display()
    );
    let shell = Launch::of(Path::new("/bin/sh"), &scene.place, scene.directory.path());
    shell.args(["-c", &script]).run()?.expect_code(0)?;
    scene.command(&["--no-sqlite", "--ready-fd", "77"])?.args(["true"]).run()?.expect_code(2)?;
    // And without a command.
    let plain = scene.file("plain");
    let launch =
        Launch::new(&scene.place, scene.directory.path())?.args(["--no-sqlite", "--ready-file", &plain]);
    let rano = launch.start()?;
    rano.stderr.wait_for("the line", |line| line == "watching")?;
    ensure!(fs::read_to_string(&plain)? == "ready\n");
    rano.interrupt()?.expect_code(0)?;
    Ok(())
}

fn events_go_to_a_file_and_not_to_standard_output() -> Result<()> {
    let scene = Scene::ordinary()?;
    let finished = scene.part(&["--json"], &["connect", &scene.to(), "1"])?.run()?;
    finished.expect_code(2)?;
    ensure!(finished.stderr.contains("--log-file"), "{finished:#?}");
    let log = scene.file("events");
    let options = ["--source", "seccomp", "--json", "--log-file", &log];
    let finished = scene.play(&options, &["connect", &scene.to(), "1"])?;
    ensure!(finished.stdout.is_empty(), "{finished:#?}");
    let lines = fs::read_to_string(&log)?;
    let close = lines.lines().find(|line| line.contains("\"close\"")).context("a close line")?;
    let close: serde_json::Value = serde_json::from_str(close)?;
    ensure!(close["source"] == "seccomp" && close["bytes_sent"] == PAYLOAD.len(), "{close}");
    Ok(())
}

fn on_a_terminal_it_is_silent_while_the_command_runs() -> Result<()> {
    let scene = Scene::ordinary()?;
    let launch =
        scene.command(&["--no-sqlite"])?.args(["sh", "-c", "echo one; test -t 1 && echo two; exit 9"]);
    let (status, written) = watch_any(launch, 80, 24)?;
    ensure!(status.code() == Some(9) && status.signal().is_none(), "{status}");
    ensure!(
        written.contains("watching\r\none\r\ntwo\r\n") && written.matches("Summary").count() == 1,
        "{written}"
    );
    Ok(())
}

fn a_session_of_a_command_says_what_was_run() -> Result<()> {
    let scene = Scene::ordinary()?;
    scene.play(&BY_CALLS, &["connect", &scene.to(), "1"])?;
    let found = scene.database()?.text("SELECT patterns || ' ' || source FROM sessions")?;
    ensure!(found.contains("mycommand connect") && found.ends_with("seccomp"), "{found}");
    Ok(())
}
