use std::fs;
use std::io::{BufRead as _, BufReader, Write as _};
use std::os::unix::fs::symlink;
use std::os::unix::process::CommandExt as _;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use tempfile::TempDir;

use super::*;
use crate::event::Protocol;
use crate::names::{Evidence, Party};
use crate::process::matching::{Rules, Targets};
use crate::process::provider::Providers;
use crate::process::redact::Redaction;
use crate::process::tree::Tree;
use crate::source::proc::image::{LONGEST_COMMAND_LINE, MOST_ARGUMENTS};
use crate::source::{Open, SocketChange};

/// Notes what it is told and asks a real tree.
struct Watch {
    tree: Tree,
    log: Vec<String>,
}

impl Watch {
    fn new() -> Self {
        let rules = Rules::new(Targets::default(), Vec::new());
        Self { tree: Tree::new(rules, Providers::default(), Redaction::On), log: Vec::new() }
    }

    fn take(&mut self) -> Vec<String> {
        std::mem::take(&mut self.log)
    }
}

impl Intake for Watch {
    fn process(&mut self, change: ProcessChange) -> Verdict {
        self.log.push(match &change {
            ProcessChange::Seen { id, parent, image, .. } => {
                format!("seen {} < {parent} {}", id.pid, image.argv.join(" "))
            }
            // Of the test's own processes, where their numbers are there.
            ProcessChange::Surroundings { .. } => return self.tree.apply(change),
            ProcessChange::Gone { id, .. } => format!("gone {}", id.pid),
        });
        self.tree.apply(change)
    }

    fn socket(&mut self, _: SocketChange) {}

    fn evidence(&mut self, _: Evidence) {}

    fn unattributed(&mut self, _: u64) {}

    fn stray(&mut self, _: crate::source::Stray) {}

    fn left_out(&mut self, _: u64) {}

    fn newly_tracked(&mut self) -> Vec<ProcessId> {
        self.tree.newly_tracked()
    }

    fn verdict(&self, id: ProcessId) -> Verdict {
        self.tree.verdict(id)
    }

    fn watches(&self, _: Party) -> bool {
        false
    }

    fn open(&self, _: Protocol) -> Vec<Open> {
        Vec::new()
    }
}

/// A directory that looks like /proc.
struct Fixture(TempDir);

impl Fixture {
    fn new() -> Self {
        let fixture = Self(TempDir::new().expect("a temporary directory"));
        fs::create_dir(fixture.path("self")).expect("create");
        fs::write(fixture.path("self/status"), "Name:\tx\nNSpid:\t77\n").expect("write");
        fixture.last_pid(0);
        fixture
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn last_pid(&self, pid: u32) {
        fs::write(self.path("loadavg"), format!("0.00 0.01 0.05 1/100 {pid}\n")).expect("write");
    }

    fn process(&self, pid: u32, parent: u32, start_time: u64, command: &str) {
        let comm = command.split(' ').next().unwrap_or_default();
        self.stat(pid, parent, start_time, comm, "S", "17");
        fs::write(self.path(&format!("{pid}/cmdline")), command.replace(' ', "\0") + "\0").expect("write");
        let exe = self.path(&format!("{pid}/exe"));
        let _ = fs::remove_file(&exe);
        symlink(format!("/bin/{comm}"), exe).expect("link");
    }

    fn stat(&self, pid: u32, parent: u32, start_time: u64, comm: &str, state: &str, exit_signal: &str) {
        fs::create_dir_all(self.path(&pid.to_string())).expect("create");
        let mut fields = ["0"; 50].map(String::from);
        let known = [
            (3, state),
            (4, &parent.to_string()),
            (20, "1"),
            (22, &start_time.to_string()),
            (38, exit_signal),
        ];
        for (number, value) in known {
            value.clone_into(&mut fields[number - 3]);
        }
        let fields = fields.join(" ");
        fs::write(self.path(&format!("{pid}/stat")), format!("{pid} ({comm}) {fields}\n")).expect("write");
    }

    fn remove(&self, pid: u32) {
        fs::remove_dir_all(self.path(&pid.to_string())).expect("remove");
    }

    fn scanner(&self) -> ProcessScanner {
        ProcessScanner::new(self.0.path()).expect("it is a directory")
    }
}

fn scan(scanner: &mut ProcessScanner, watch: &mut Watch) -> Vec<String> {
    scanner.scan(Moment::default(), watch);
    watch.take()
}

fn tracked(scanner: &ProcessScanner) -> Vec<u32> {
    scanner.tracked().map(|id| id.pid).collect()
}

#[test]
fn new_and_vanished_processes_are_told_once() {
    let fixture = Fixture::new();
    let (mut scanner, mut watch) = (fixture.scanner(), Watch::new());
    fixture.process(1, 0, 1, "init");
    fixture.process(20, 1, 5, "claude");
    fixture.last_pid(20);
    assert_eq!(scan(&mut scanner, &mut watch), ["seen 1 < 0 init", "seen 20 < 1 claude"]);
    assert_eq!(tracked(&scanner), [20]);
    for _ in 0..25 {
        assert_eq!(scan(&mut scanner, &mut watch), [""; 0]);
    }
    fixture.process(21, 20, 6, "git fetch");
    fixture.last_pid(21);
    assert_eq!(scan(&mut scanner, &mut watch), ["seen 21 < 20 git fetch"]);
    fixture.remove(21);
    assert_eq!(scan(&mut scanner, &mut watch), ["gone 21"]);
    assert_eq!((scanner.vanished(), scanner.permission_denied()), (0, 0));
}

#[test]
fn a_process_that_becomes_visible_after_its_pid_was_handed_out_is_found() {
    let fixture = Fixture::new();
    let (mut scanner, mut watch) = (fixture.scanner(), Watch::new());
    fixture.process(1, 0, 1, "init");
    fixture.last_pid(20);
    for _ in 0..3 {
        scan(&mut scanner, &mut watch);
    }
    fixture.last_pid(21);
    assert_eq!(scan(&mut scanner, &mut watch), [""; 0]);
    fixture.process(21, 1, 6, "git");
    assert_eq!(scan(&mut scanner, &mut watch), ["seen 21 < 1 git"]);
}

#[test]
fn what_the_gate_misses_is_listed_within_ten_scans() {
    let fixture = Fixture::new();
    let (mut scanner, mut watch) = (fixture.scanner(), Watch::new());
    for _ in 0..3 {
        scan(&mut scanner, &mut watch);
    }
    fixture.process(500, 1, 6, "chosen");
    let told: Vec<String> = (0..10).flat_map(|_| scan(&mut scanner, &mut watch)).collect();
    assert_eq!(told, ["seen 500 < 1 chosen"]);
}

#[test]
fn without_a_gate_every_scan_lists() {
    for hide in ["loadavg", "self/status"] {
        let fixture = Fixture::new();
        fs::remove_file(fixture.path(hide)).expect("it was there");
        let (mut scanner, mut watch) = (fixture.scanner(), Watch::new());
        for pid in 2..20 {
            fixture.process(pid, 1, 6, "x");
            assert_eq!(scan(&mut scanner, &mut watch).len(), 1, "{hide}");
        }
    }
    let fixture = Fixture::new();
    fs::write(fixture.path("self/status"), "NSpid:\t77\t3\n").expect("write");
    assert_eq!(fixture.scanner().new_pids.search(0), Search::Everywhere, "an outer namespace's /proc");
}

#[test]
fn execs_and_renames_of_tracked_and_young_processes_are_told_at_once() {
    let fixture = Fixture::new();
    let (mut scanner, mut watch) = (fixture.scanner(), Watch::new());
    fixture.process(20, 1, 5, "sh -c x");
    scan(&mut scanner, &mut watch);
    fixture.process(20, 1, 5, "claude --continue");
    assert_eq!(scan(&mut scanner, &mut watch), ["seen 20 < 1 claude --continue"]);
    for _ in 0..30 {
        assert_eq!(scan(&mut scanner, &mut watch), [""; 0]);
    }
    fixture.process(20, 1, 5, "bash");
    assert_eq!(scan(&mut scanner, &mut watch), ["seen 20 < 1 bash"]);
}

#[test]
fn the_exec_and_the_end_of_settled_processes_are_noticed_in_turn() {
    let fixture = Fixture::new();
    let (mut scanner, mut watch) = (fixture.scanner(), Watch::new());
    for pid in 10..30 {
        fixture.process(pid, 1, 5, "sh");
    }
    let later = Moment { boot_ns: 3_600_000_000_000, unix_ms: 0 };
    scanner.scan(later, &mut watch);
    watch.take();
    for pid in 10..20 {
        fixture.process(pid, 1, 5, "claude");
        fixture.remove(pid + 10);
    }
    let per_scan: Vec<Vec<String>> = (0..10)
        .map(|_| {
            scanner.scan(later, &mut watch);
            watch.take()
        })
        .collect();
    assert_eq!(per_scan.concat().len(), 20, "{per_scan:?}");
    assert_eq!(tracked(&scanner), (10..20).collect::<Vec<u32>>());
    // Without waiting for their turn:
    fixture.process(40, 1, 5, "sh");
    scanner.scan_all(later, &mut watch);
    fixture.remove(40);
    watch.take();
    scanner.scan_all(later, &mut watch);
    assert_eq!(watch.take(), ["gone 40"]);
}

#[test]
fn a_reused_pid_is_told_as_another_process_before_its_children() {
    let fixture = Fixture::new();
    let (mut scanner, mut watch) = (fixture.scanner(), Watch::new());
    fixture.process(20, 1, 5, "claude");
    fixture.last_pid(30);
    for _ in 0..3 {
        scan(&mut scanner, &mut watch);
    }
    fixture.process(20, 1, 50, "make");
    fixture.process(15, 20, 51, "cc");
    fixture.last_pid(20);
    assert_eq!(scan(&mut scanner, &mut watch), ["gone 20", "seen 20 < 1 make", "seen 15 < 20 cc"]);
    assert_eq!(tracked(&scanner), [] as [u32; 0]);
}

#[test]
fn a_settled_parents_successor_is_noticed_before_its_child_is_told() {
    let fixture = Fixture::new();
    let (mut scanner, mut watch) = (fixture.scanner(), Watch::new());
    fixture.process(20, 1, 5, "sh");
    let later = Moment { boot_ns: 3_600_000_000_000, unix_ms: 0 };
    scanner.scan(later, &mut watch);
    watch.take();
    fixture.process(20, 1, 50, "make");
    fixture.process(15, 20, 51, "cc");
    while watch.log.is_empty() {
        scanner.scan(later, &mut watch);
    }
    assert_eq!(watch.take(), ["gone 20", "seen 20 < 1 make", "seen 15 < 20 cc"]);
}

#[test]
fn children_of_what_becomes_an_agent_are_read_again() {
    let fixture = Fixture::new();
    let (mut scanner, mut watch) = (fixture.scanner(), Watch::new());
    fixture.process(20, 1, 5, "sh");
    fixture.process(21, 20, 6, "git fetch");
    scan(&mut scanner, &mut watch);
    fixture.process(20, 1, 5, "claude");
    let became: Vec<u32> = scanner.scan(Moment::default(), &mut watch).iter().map(|id| id.pid).collect();
    assert_eq!(became, [20, 21]);
    assert_eq!(watch.take(), ["seen 20 < 1 claude", "seen 21 < 20 git fetch"]);
    let child = ProcessId { pid: 21, start_time: 6 };
    assert_eq!(watch.tree.process(child).expect("known").cmdline, "git fetch");
    assert!(scanner.scan(Moment::default(), &mut watch).is_empty());
}

#[test]
fn threads_zombies_and_broken_entries_are_not_processes() {
    let fixture = Fixture::new();
    let (mut scanner, mut watch) = (fixture.scanner(), Watch::new());
    fixture.stat(30, 1, 5, "thread", "S", "-1");
    fixture.stat(31, 1, 5, "zombie", "Z", "17");
    fixture.process(32, 1, 5, "dies");
    fs::create_dir(fixture.path("33")).expect("create");
    fs::create_dir(fixture.path("34")).expect("create");
    fs::write(fixture.path("34/stat"), "34 nonsense").expect("write");
    fs::write(fixture.path("35"), "no directory").expect("write");
    fs::create_dir(fixture.path("36x")).expect("create");
    assert_eq!(scan(&mut scanner, &mut watch), ["seen 32 < 1 dies"]);
    assert_eq!(scanner.vanished(), 2, "33 has no stat, 35 is no directory");
    fixture.stat(32, 1, 5, "dies", "Z", "17");
    assert_eq!(scan(&mut scanner, &mut watch), ["gone 32"]);
    for _ in 0..12 {
        assert_eq!(scan(&mut scanner, &mut watch), [""; 0]);
    }
}

#[test]
fn hostile_names_and_command_lines_are_taken_as_they_are() {
    let fixture = Fixture::new();
    let (mut scanner, mut watch) = (fixture.scanner(), Watch::new());
    fixture.stat(20, 1, 5, "a) S 9\n(b", "S", "17");
    fs::write(fixture.path("20/cmdline"), b"\xff\xfe\0\x1b[31m\0\0x\0\0\0").expect("write");
    fixture.process(21, 1, 5, "x");
    fs::write(fixture.path("21/cmdline"), vec![0; 100_000]).expect("write");
    fixture.process(22, 1, 5, "y");
    fs::write(fixture.path("22/cmdline"), "a\0".repeat(200_000)).expect("write");
    let told = scan(&mut scanner, &mut watch);
    assert_eq!(told[0], "seen 20 < 1 \u{fffd}\u{fffd} \u{1b}[31m  x");
    assert_eq!(told[1], "seen 21 < 1 ");
    assert_eq!(told[2].len(), "seen 22 < 1 ".len() + LONGEST_COMMAND_LINE - 1);
    assert_eq!(arguments("a\0".repeat(MOST_ARGUMENTS + 1).as_bytes()).len(), MOST_ARGUMENTS);
    assert!(scanner.bytes.capacity() <= 64 * 1024);
}

#[test]
fn descriptors_and_namespace_belong_to_the_process_that_was_meant() {
    let fixture = Fixture::new();
    let mut scanner = fixture.scanner();
    fixture.process(20, 1, 5, "claude");
    for directory in ["20/fd", "20/ns"] {
        fs::create_dir(fixture.path(directory)).expect("create");
    }
    for (name, target) in [
        ("0", "/dev/null"),
        ("3", "socket:[4711]"),
        ("4", "socket:[x]"),
        ("17", "socket:[18446744073709551615]"),
    ] {
        symlink(target, fixture.path("20/fd").join(name)).expect("link");
    }
    symlink("net:[4026531840]", fixture.path("20/ns/net")).expect("link");
    let id = ProcessId { pid: 20, start_time: 5 };
    let mut found = Vec::new();
    assert_eq!(scanner.fds(id, |fd, inode| found.push((fd, inode))), Walk::Complete);
    found.sort_unstable();
    assert_eq!(found, [(3, 4711), (17, u64::MAX)]);
    assert_eq!(scanner.netns(id), Some(4_026_531_840));
    assert_eq!(scanner.identify(20), Some(id));
    let former = ProcessId { pid: 20, start_time: 4 };
    assert_eq!(scanner.fds(former, |_, _| panic!("another process's")), Walk::Gone);
    assert_eq!(scanner.netns(former), None);
    assert_eq!(scanner.identify(21), None);
}

/// Ends a child when a test does.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn real() -> ProcessScanner {
    ProcessScanner::new("/proc".as_ref()).expect("/proc is mounted")
}

/// A shell that says that it runs and then waits for a line.
fn shell(script: &str, uid: Option<u32>) -> Running {
    let mut command = Command::new("sh");
    command
        .args(["-c", &format!("echo up; read line; {script}")])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped());
    if let Some(uid) = uid {
        command.uid(uid);
    }
    let mut child = Running(command.spawn().expect("sh is installed"));
    let mut line = String::new();
    let stdout = child.0.stdout.as_mut().expect("piped");
    BufReader::new(stdout).read_line(&mut line).expect("it says so");
    child
}

fn release(child: &mut Running) {
    child.0.stdin.as_mut().expect("piped").write_all(b"\n").expect("it reads");
}

fn wait_until(what: &str, mut done: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(20);
    while !done() {
        assert!(Instant::now() < deadline, "waited for {what}");
        std::thread::yield_now();
    }
}

#[test]
fn a_real_exec_under_the_same_name_is_noticed() {
    let (mut scanner, mut watch) = (real(), Watch::new());
    let mut child = shell("exec sh -c 'read again; :' claude", None);
    let pid = child.0.id();
    scanner.scan(Moment::default(), &mut watch);
    let id = scanner.identify(pid).expect("it waits");
    assert_eq!(scanner.self_and_ancestors()[0].pid, std::process::id());
    watch.take();
    release(&mut child);
    wait_until("the exec", || {
        scanner.scan(Moment::default(), &mut watch);
        watch.log.iter().any(|line| line.contains(&format!("seen {pid} ")) && line.ends_with("claude"))
    });
    child.0.kill().expect("it runs");
    // Not reaped yet: a zombie has nothing open any more.
    wait_until("its end", || {
        scanner.scan(Moment::default(), &mut watch);
        watch.log.contains(&format!("gone {pid}"))
    });
    // Without privileges a zombie may not be asked.
    let walk = scanner.fds(id, |_, _| panic!("it has none"));
    assert!(matches!(walk, Walk::Complete | Walk::Denied), "{walk:?}");
}

#[test]
fn real_sockets_user_and_namespace_are_found() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("loopback is up");
    let (mut scanner, mut watch) = (real(), Watch::new());
    let me = scanner.identify(std::process::id()).expect("we run");
    let link = fs::read_link(format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&listener)));
    let mut links = Vec::new();
    assert_eq!(scanner.fds(me, |_, inode| links.push(format!("socket:[{inode}]"))), Walk::Complete);
    assert!(links.contains(&link.expect("it is open").to_string_lossy().into_owned()));
    let namespace = fs::read_link("/proc/self/ns/net").expect("our own");
    assert_eq!(format!("net:[{}]", scanner.netns(me).expect("our own")), namespace.to_string_lossy());

    if !rustix::process::geteuid().is_root() {
        return println!("not root: another user's process was not tried");
    }
    let child = shell("read line", Some(61234));
    scanner.scan(Moment::default(), &mut watch);
    let id = scanner.identify(child.0.id()).expect("it waits");
    assert_eq!(watch.tree.process(id).expect("just seen").uid, 61234);
}

#[test]
fn real_threads_are_not_taken_for_processes() {
    let (mut scanner, mut watch) = (real(), Watch::new());
    for _ in 0..3 {
        scanner.scan(Moment::default(), &mut watch);
    }
    watch.take();
    let (tell, told) = std::sync::mpsc::channel();
    let (end, ended) = std::sync::mpsc::channel::<()>();
    let thread = std::thread::spawn(move || {
        tell.send(rustix::thread::gettid().as_raw_nonzero().get().cast_unsigned()).expect("it is awaited");
        let _ = ended.recv();
    });
    let tid = told.recv().expect("it starts");
    assert!(scanner.files.process(tid).is_ok(), "a thread's directory can be opened");
    assert_eq!(scanner.identify(tid), None);
    scanner.meet(tid, true, Moment::default(), &mut watch);
    assert_eq!(watch.take(), [""; 0]);
    drop(end);
    thread.join().expect("it ends");
}
