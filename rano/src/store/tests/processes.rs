//! Several processes at one file, and processes that are killed. The other processes are this test binary again,
//! because within one process SQLite's file locks do not count.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::path::PathBuf;
use std::process::{Child, ChildStdin, Command, Stdio};

use super::*;

/// Tells the test binary that it is to play a part, and on which file.
const FILE: &str = "RANO_STORE_TEST_FILE";

/// Another process that plays the part of the test `part`; ended when dropped.
pub(super) struct Actor {
    child: Child,
    input: ChildStdin,
    output: BufReader<std::process::ChildStdout>,
}

impl Actor {
    pub(super) fn start(part: &str, path: &Path) -> Self {
        let mut child = Command::new(std::env::current_exe().expect("this program"))
            .args(["--exact", &format!("rooms::store::tests::{part}"), "--ignored", "--nocapture"])
            .env(FILE, path)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("a child");
        let input = child.stdin.take().expect("a pipe");
        let output = BufReader::new(child.stdout.take().expect("a pipe"));
        Self { child, input, output }
    }

    /// The next number told. The test harness writes to the same pipe, and with one thread it begins the line.
    pub(super) fn number(&mut self) -> u64 {
        loop {
            let mut line = String::new();
            assert_ne!(self.output.read_line(&mut line).expect("a line"), 0, "the child ended");
            if let Some((_, number)) = line.split_once("told ") {
                return number.trim().parse().expect("a number");
            }
        }
    }

    pub(super) fn go_on(&mut self) {
        self.input.write_all(b"\n").expect("the child to listen");
    }

    pub(super) fn has_ended(&mut self) -> bool {
        self.child.try_wait().expect("a child").is_some()
    }

    /// Kills it. Returns its pid and the last number it told, or 0.
    pub(super) fn kill(&mut self) -> (u32, u64) {
        // It may have ended by itself, with a failure that the next assertion shows.
        let _ = self.child.kill();
        self.child.wait().expect("a child");
        let mut told = String::new();
        self.output.read_to_string(&mut told).expect("what it wrote");
        // The kill may have cut the last line.
        let whole = told.rsplit_once('\n').map_or("", |(whole, _)| whole);
        let last = whole.rsplit("told ").next().and_then(|number| number.trim().parse().ok());
        (self.child.id(), last.unwrap_or(0))
    }

    pub(super) fn end(mut self) {
        assert!(self.child.wait().expect("a child").success());
    }
}

impl Drop for Actor {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A write lock on the file, held by another process until this is dropped.
pub(super) fn lock(path: &Path) -> Actor {
    let mut actor = Actor::start("processes::holds_a_lock", path);
    actor.number();
    actor
}

pub(super) fn tell(number: u64) {
    println!("told {number}");
    std::io::stdout().flush().expect("a parent that listens");
}

pub(super) fn wait_for_parent() {
    std::io::stdin().read_line(&mut String::new()).expect("a parent");
}

pub(super) fn file() -> PathBuf {
    std::env::var_os(FILE).expect("to be started by another test").into()
}

#[test]
#[ignore = "a part that other tests start as a process"]
fn holds_a_lock() {
    let connection = Connection::open(file()).expect("a database");
    connection.execute_batch("BEGIN IMMEDIATE").expect("the lock");
    tell(0);
    wait_for_parent();
}

#[test]
#[ignore = "a part that other tests start as a process"]
fn writes_a_thousand_pairs() {
    let run_id = format!("{}-1", std::process::id());
    let options =
        StoreOptions { batch_size: 20, flush_interval: Duration::from_millis(5), ..patient(&file()) };
    let store = Store::start(&options, &Session { run_id, ..session() }).expect("a database");
    tell(0);
    wait_for_parent();
    for id in 1..=1000 {
        let host = format!("h{}.example.com", id % 100);
        store.push(
            &event(EventKind::Connect, id).with(|it| it.name = Some(named(&host, DomainSource::Dns))).into(),
        );
        store.push(&close(id, 1, 2).into());
    }
    assert_stored(&store.finish(Counters::default(), NOON), 2000);
}

#[test]
fn two_writers_share_a_file() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("observer.sqlite");
    // Both make the file at the same time, and write at the same time.
    let mut actors = [0, 1].map(|_| Actor::start("processes::writes_a_thousand_pairs", &path));
    for actor in &mut actors {
        actor.number();
    }
    for actor in &mut actors {
        actor.go_on();
    }
    for actor in actors {
        actor.end();
    }
    assert_intact(&path);
    assert_sums(&path);
    assert_eq!(one::<i64>(&path, "SELECT count(*) FROM events"), 4000);
    assert_eq!(one::<i64>(&path, "SELECT count(*) FROM sessions WHERE clean_exit AND connects = 1000"), 2);
    // 100 names and the nameless one.
    assert_eq!(one::<i64>(&path, "SELECT count(*) FROM endpoint"), 101);
    let sql = "SELECT count(*) FROM events WHERE event = 'connect' AND domain IS NULL";
    assert_eq!(one::<i64>(&path, sql), 0);
}
