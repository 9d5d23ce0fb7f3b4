//! `rano run` on the running kernel: by its programs as root, and by the command's calls as an ordinary user, also
//! under Yama, which lets nobody but ancestors look into a process (Documentation/admin-guide/LSM/Yama.rst).

use std::ffi::OsStr;
use std::fs;

use anyhow::{Context as _, Result, ensure};

use crate::support::actor::{Actor, Service, Transport};
use crate::support::caller;
use crate::support::database::Database;
use crate::support::namespace::{Place, User};
use crate::support::rano::{Launch, default_database};
use crate::support::stage;
use crate::support::trial::skip;

crate::tests![
    by_the_kernels_programs_a_commands_tree_is_watched_and_no_other,
    by_its_calls_every_connect_is_exact,
    by_its_calls_every_connect_is_exact_under_yama,
];

const YAMA: &str = "/proc/sys/kernel/yama/ptrace_scope";

/// Source, quality, connections and processes of what a command of ten processes did, each of which connects 20 times.
fn observed(user: User, source: &str) -> Result<String> {
    let place = Place::new(user)?;
    let mut server = Actor::start(&place, "server")?;
    let to = server.serve(Transport::Tcp, "127.0.0.1:0", Service::Drain)?.to_string();
    // It drains its clients one after the other.
    let elsewhere = server.serve(Transport::Tcp, "127.0.0.1:0", Service::Keep)?;
    let directory = stage::directory(&place)?;
    // An agent that nobody asked for.
    let mut stranger = Actor::start(&place, "claude")?;
    let program = stage::actor("mycommand")?;
    let words = ["processes", &to, "10", "20"].map(OsStr::new);
    let launch = Launch::new(&place, directory.path())?.env(caller::MARKER, "1");
    let launch = launch.args(["run", "--source", source, "--"]).args([program.as_os_str()]);
    let rano = launch.args(words).start()?;
    rano.stderr.wait_for("the line that watching has begun", |line| line == "watching")?;
    stranger.connect(Transport::Tcp, elsewhere)?;
    let finished = rano.wait()?;
    finished.expect_code(0)?;
    let database = Database::open(&default_database(directory.path()))?;
    let query = "SELECT group_concat(line, '; ') FROM (SELECT concat_ws(' ', event, owner_quality, count(*), \
                 count(DISTINCT pid), sum(bytes_sent)) AS line FROM events GROUP BY event ORDER BY event)";
    let source = database.text("SELECT group_concat(DISTINCT source) FROM events")?;
    Ok(format!("{}: {}", source.split('-').next().unwrap_or_default(), database.text(query)?))
}

const EXPECTED: &str = "close exact 200 10 2000; connect exact 200 10";

fn by_the_kernels_programs_a_commands_tree_is_watched_and_no_other() -> Result<()> {
    crate::scene()?;
    let found = observed(User::Root, "ebpf")?;
    ensure!(found.trim_end() == format!("ebpf: {EXPECTED}"), "{found}");
    Ok(())
}

fn by_its_calls_every_connect_is_exact() -> Result<()> {
    let found = observed(User::Ordinary, "seccomp")?;
    ensure!(found.trim_end() == format!("seccomp: {EXPECTED}"), "{found}");
    Ok(())
}

/// Puts a setting back.
struct Setting(String);

impl Drop for Setting {
    fn drop(&mut self) {
        let _ = fs::write(YAMA, &self.0);
    }
}

fn by_its_calls_every_connect_is_exact_under_yama() -> Result<()> {
    let Ok(before) = fs::read_to_string(YAMA) else { return Err(skip("this kernel has no Yama")) };
    let _setting = Setting(before);
    fs::write(YAMA, "1").context("set ptrace_scope, as root")?;
    let found = observed(User::Ordinary, "seccomp")?;
    ensure!(found.trim_end() == format!("seccomp: {EXPECTED}"), "{found}");
    Ok(())
}
