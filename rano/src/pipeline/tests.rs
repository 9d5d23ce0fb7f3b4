use std::io::Cursor;
use std::sync::Mutex;
use std::time::Duration;

use EventKind::{Accept, Close, Connect, Fail};

use super::tracker::Tracker;
use super::*;
use crate::alerts::AlertRules;
use crate::event::{
    Address, Bytes, DomainSource, Event, EventKind, OwnerQuality, Protocol, SocketState, SourceKind,
};
use crate::process::matching::{Rules, Targets};
use crate::process::provider::Providers;
use crate::process::redact::Redaction;
use crate::process::{Image, ProcessChange, ProcessId};
use crate::sink::SinkReport;
use crate::source::reopening::Reopening;
use crate::source::replay::Replay;
use crate::source::{Closed, Intake as _, Open, Opened, RawEvent, Role, SocketChange, SocketId};
use crate::stop::ReopenLogs;

/// What was kept so far.
fn taken<T>(kept: &Mutex<Vec<T>>) -> Vec<T> {
    std::mem::take(&mut *kept.lock().expect("no panic"))
}

/// Keeps what it is given.
struct Kept(Arc<Mutex<Vec<Event>>>);

impl Sink for Kept {
    fn update(&mut self, update: &Update) {
        if let Update::Event(event) = update {
            self.0.lock().expect("no panic").push(event.clone());
        }
    }
    fn finish(&mut self, _summary: &Summary) -> SinkReport {
        SinkReport::default()
    }
}

const CLAUDE: ProcessId = ProcessId { pid: 42, start_time: 7 };
const ID: SocketId = SocketId::Cookie { netns: 1, cookie: 1 };
const EVERYTHING: Scope =
    Scope { udp: true, other: true, listening: true, unix: true, unattributed: true, pending: false };

fn at(ms: u64) -> Moment {
    Moment { boot_ns: ms * 1_000_000, unix_ms: i64::try_from(ms).unwrap() }
}

fn opened(role: Role, state: SocketState, owner: Option<ProcessId>) -> Opened {
    let address = |text: &str| Some(Address::ip(text.parse().unwrap()));
    Opened {
        id: ID,
        role,
        protocol: Protocol::Tcp,
        local: address("127.0.0.1:40000"),
        remote: address("127.0.0.1:443"),
        state: Some(state),
        owner,
        quality: OwnerQuality::Polled,
        preexisting: false,
        at: at(1),
        netns: 1,
        peer_pid: None,
        source: SourceKind::EbpfKprobe,
    }
}

fn connecting() -> SocketChange {
    SocketChange::Opened(opened(Role::Connect, SocketState::Connecting, Some(CLAUDE)))
}

fn established() -> SocketChange {
    SocketChange::Opened(opened(Role::Connect, SocketState::Established, Some(CLAUDE)))
}

fn closed(established: Option<bool>) -> SocketChange {
    let bytes = Some(Bytes { sent: 3, received: 4 });
    SocketChange::Closed(Closed { id: ID, at: at(9), bytes, error: None, established, duration: None })
}

/// That knows of a process named claude.
fn pipeline(scope: Scope, targets: Targets, sink: Box<dyn Sink>) -> Tracker {
    let tree = Tree::new(Rules::new(targets, Vec::new()), Providers::default(), Redaction::On);
    let mut pipeline = Tracker::new(tree, scope, vec![sink]);
    let image = Image { comm: "claude".into(), argv: vec!["claude".into()], ..Image::default() };
    pipeline.process(ProcessChange::found(CLAUDE, 1, image, at(0)));
    pipeline
}

/// The events that `changes` of a process named claude lead to, and the pipeline afterwards.
fn run(scope: Scope, changes: Vec<SocketChange>) -> (Vec<Event>, Tracker) {
    let kept = Arc::default();
    let mut pipeline = pipeline(scope, Targets::default(), Box::new(Kept(Arc::clone(&kept))));
    for change in changes {
        pipeline.socket(change);
    }
    (taken(&kept), pipeline)
}

fn check(changes: Vec<SocketChange>, expected: &[EventKind]) -> Vec<Event> {
    let (events, _) = run(EVERYTHING, changes);
    let kinds: Vec<EventKind> = events.iter().map(|event| event.kind).collect();
    assert_eq!(kinds, expected);
    events
}

#[test]
fn a_connection_is_a_connect_and_a_close_with_duration_and_bytes() {
    let events = check(vec![established(), closed(Some(true))], &[Connect, Close]);
    let [connect, close] = [&events[0].connection, &events[1].connection];
    assert_eq!((connect.provider.as_ref(), connect.source), ("anthropic", SourceKind::EbpfKprobe));
    assert_eq!(close.duration(), Some(Duration::from_millis(8)));
    assert_eq!(close.bytes, Some(Bytes { sent: 3, received: 4 }));
    assert_eq!(connect.id, close.id);
    assert_eq!((connect.ended, connect.bytes, connect.state), (None, None, Some(SocketState::Established)));
}

#[test]
fn what_an_excluded_process_opens_is_counted_once_and_not_shown() {
    let kept: Arc<Mutex<Vec<Event>>> = Arc::default();
    let targets = Targets { exclude_patterns: vec!["claude".into()], ..Targets::default() };
    let mut pipeline = pipeline(EVERYTHING, targets, Box::new(Kept(Arc::clone(&kept))));
    for change in [connecting(), established(), closed(Some(true)), connecting()] {
        pipeline.socket(change);
    }
    let listener = opened(Role::Listen, SocketState::Established, Some(CLAUDE));
    pipeline.socket(SocketChange::Opened(Opened { id: SocketId::Inode { netns: 1, inode: 9 }, ..listener }));
    pipeline.left_out(40);
    assert!(taken(&kept).is_empty());
    assert_eq!(pipeline.rooms.totals.left_out.connections, 42);
    assert_eq!(pipeline.tree.left_out(), 1);
}

#[test]
fn a_connection_that_is_older_than_the_observation_has_no_duration() {
    let mut older = opened(Role::Connect, SocketState::Established, Some(CLAUDE));
    older.preexisting = true;
    let events = check(vec![SocketChange::Opened(older), closed(None)], &[Connect, Close]);
    assert_eq!(events[1].connection.duration(), None);
}

#[test]
fn an_attempt_is_a_fail_alone_or_a_connect_once_it_succeeds() {
    let succeeds = SocketChange::State { id: ID, state: SocketState::Established, at: at(5) };
    check(vec![connecting(), closed(Some(false))], &[Fail]);
    check(vec![connecting(), closed(None)], &[Fail]);
    let events = check(vec![connecting(), succeeds, closed(None)], &[Connect, Close]);
    assert_eq!(events[1].connection.duration(), Some(Duration::from_millis(4)));
    // It succeeded and ended between two looks.
    check(vec![connecting(), closed(Some(true))], &[Connect, Close]);
}

#[test]
fn close_without_open_is_ignored_and_nothing_is_opened_twice() {
    check(vec![closed(None)], &[]);
    check(vec![established(), established(), closed(None), closed(None)], &[Connect, Close]);
}

#[test]
fn the_serving_end_counts_as_neither_connect_nor_close() {
    let served = SocketChange::Opened(opened(Role::Accept, SocketState::Established, Some(CLAUDE)));
    let (events, pipeline) = run(EVERYTHING, vec![served, closed(None)]);
    assert_eq!(events.iter().map(|event| event.kind).collect::<Vec<_>>(), [Accept, Close]);
    let totals = &pipeline.rooms.totals;
    assert_eq!((totals.connects, totals.closes, totals.active, totals.accepts), (0, 0, 0, 1));
}

#[test]
fn what_nobody_owns_is_counted_always_and_shown_on_request() {
    let nobodys = || SocketChange::Opened(opened(Role::Connect, SocketState::Established, None));
    let events = check(vec![nobodys(), closed(Some(true))], &[Connect, Close]);
    assert!(
        events
            .iter()
            .all(|event| event.connection.process.is_none() && &*event.connection.provider == "unknown")
    );
    // Only its end was seen: a duration would be made up.
    assert_eq!(events[1].connection.duration(), None);
    let (events, pipeline) = run(Scope { unattributed: false, ..EVERYTHING }, vec![nobodys()]);
    assert_eq!((events.len(), pipeline.unattributed), (0, 1));
}

#[test]
fn a_socket_of_a_process_that_is_not_watched_is_nothing() {
    let stranger = Some(ProcessId { pid: 43, start_time: 7 });
    let opened = SocketChange::Opened(opened(Role::Connect, SocketState::Established, stranger));
    check(vec![opened, closed(None)], &[]);
}

#[test]
fn an_end_that_was_found_out_claims_nothing_but_that_it_is_over() {
    let gone = || SocketChange::Gone { id: ID, at: at(9) };
    let (events, pipeline) = run(EVERYTHING, vec![established(), gone(), gone(), closed(None)]);
    let [connect, close] = &events[..] else { panic!("{events:?}") };
    let (began, ended) = (&connect.connection, &close.connection);
    assert_eq!((connect.kind, began.is_late(), close.kind, ended.is_late()), (Connect, false, Close, true));
    assert_eq!((ended.duration(), ended.bytes, close.at, ended.id), (None, None, at(9), began.id));
    assert_eq!((pipeline.rooms.totals.active, pipeline.open(Protocol::Tcp).len()), (0, 0));
}

#[test]
fn an_attempt_that_was_gone_when_somebody_looked_is_no_fail() {
    let gone = SocketChange::Gone { id: ID, at: at(9) };
    let events = check(vec![connecting(), gone], &[Connect, Close]);
    assert_eq!(
        (events[0].connection.state, events[1].connection.is_late()),
        (Some(SocketState::Connecting), true)
    );
}

#[test]
fn what_is_open_is_listed_by_protocol() {
    let (_, pipeline) = run(EVERYTHING, vec![connecting()]);
    let ends = Some(("127.0.0.1:40000".parse().unwrap(), "127.0.0.1:443".parse().unwrap()));
    assert_eq!(pipeline.open(Protocol::Tcp), [Open { id: ID, is_pending: true, ends }]);
    assert_eq!(pipeline.open(Protocol::Udp), []);
    let (_, pipeline) = run(EVERYTHING, vec![established()]);
    assert_eq!(pipeline.open(Protocol::Tcp), [Open { id: ID, is_pending: false, ends }]);
}

#[test]
fn an_attempt_under_way_at_the_end_is_shown_as_such() {
    let (events, mut pipeline) = run(EVERYTHING, vec![connecting()]);
    assert!(events.is_empty());
    pipeline.finish(at(20));
    assert_eq!(pipeline.rooms.totals.connects, 1);
}

#[test]
fn an_end_that_was_told_during_the_look_that_found_the_beginning_is_not_dated_before_it() {
    let mut found = opened(Role::Connect, SocketState::Established, Some(CLAUDE));
    found.at = at(12);
    let events = check(vec![SocketChange::Opened(found), closed(Some(true))], &[Connect, Close]);
    assert_eq!((events[1].at, events[1].connection.duration()), (at(12), Some(Duration::ZERO)));
}

/// Notes what it is told of progress, and what the summary holds when it ends.
struct Ticking {
    due: Option<Moment>,
    /// Milliseconds, and whether there were standings.
    progress: Arc<Mutex<Vec<(u64, bool)>>>,
    report: SinkReport,
    log_lost: Arc<Mutex<Vec<u64>>>,
}

impl Sink for Ticking {
    fn update(&mut self, update: &Update) {
        if let Update::Progress(progress) = update {
            let has_standings = progress.standings.is_some();
            self.progress.lock().expect("no panic").push((progress.now.boot_ns / 1_000_000, has_standings));
            self.due = self.due.filter(|_| !has_standings);
        }
    }
    fn next_tick(&self) -> Option<Moment> {
        self.due
    }
    fn finish(&mut self, summary: &Summary) -> SinkReport {
        self.log_lost.lock().expect("no panic").push(summary.log_lost);
        self.report.clone()
    }
}

fn play(clock: &[u64], sinks: Vec<Box<dyn Sink>>) -> Summary {
    play_with(clock, sinks, |replay| Box::new(replay))
}

fn play_with(
    clock: &[u64],
    sinks: Vec<Box<dyn Sink>>,
    around: impl FnOnce(Replay) -> Box<dyn Source>,
) -> Summary {
    let lines = clock.iter().map(|ms| serde_json::to_string(&RawEvent::Clock(at(*ms))).unwrap() + "\n");
    let lines = Box::new(Cursor::new(lines.collect::<String>()));
    let tree = Tree::new(Rules::new(Targets::default(), Vec::new()), Providers::default(), Redaction::On);
    let mut source = around(Replay::new(lines, "clock".to_owned()));
    Pipeline::new(tree, EVERYTHING, sinks).run(&mut *source, &Stop::new().unwrap(), 5).unwrap()
}

#[test]
fn a_wish_for_new_logs_that_comes_between_two_pumps_is_seen_before_anybody_waits() {
    let progress = Arc::default();
    let ticking = Ticking {
        due: None,
        progress: Arc::clone(&progress),
        report: SinkReport::default(),
        log_lost: Arc::default(),
    };
    let reopen = ReopenLogs::new().unwrap();
    reopen.ask();
    play_with(&[1], vec![Box::new(ticking)], |replay| Box::new(Reopening::new(Box::new(replay), reopen)));
    assert_eq!(taken(&progress), [(0, false), (1, false), (1, false)]);
}

#[test]
fn standings_are_made_only_for_a_tick_that_is_due() {
    let progress = Arc::default();
    let ticking = |due| Ticking {
        due,
        progress: Arc::clone(&progress),
        report: SinkReport::default(),
        log_lost: Arc::default(),
    };
    play(&[1, 50, 200], vec![Box::new(ticking(Some(at(100))))]);
    assert_eq!(taken(&progress), [(100, true), (200, false), (200, false)]);
    play(&[1, 50, 200], vec![Box::new(ticking(None))]);
    assert_eq!(taken(&progress), [(200, false), (200, false)]);
}

#[test]
fn a_sink_sees_what_those_before_it_report_and_the_last_one_sees_all() {
    let log_lost: Arc<Mutex<Vec<u64>>> = Arc::default();
    let losing = |lost| {
        Box::new(Ticking {
            due: None,
            progress: Arc::default(),
            report: SinkReport { log_lost: lost, has_failed: lost > 1, ..SinkReport::default() },
            log_lost: Arc::clone(&log_lost),
        })
    };
    let summary = play(&[1], vec![losing(1), losing(2), losing(0)]);
    assert_eq!(taken(&log_lost), [0, 1, 3]);
    assert_eq!((summary.log_lost, summary.output_failed), (3, true));
}

#[test]
fn a_late_name_of_a_failed_attempt_is_taken_from_no_connection() {
    let other = SocketId::Cookie { netns: 1, cookie: 2 };
    let attempt = Opened { id: other, ..opened(Role::Connect, SocketState::Connecting, Some(CLAUDE)) };
    let SocketChange::Closed(refused) = closed(Some(false)) else { unreachable!("it is a close") };
    let named =
        |id| SocketChange::Named { id, name: "late.example".into(), by: DomainSource::Dns, at: at(10) };
    let changes = vec![
        established(),
        SocketChange::Opened(attempt),
        SocketChange::Closed(Closed { id: other, ..refused }),
        named(other),
    ];
    let (events, mut pipeline) = run(EVERYTHING, changes);
    assert_eq!(events.iter().map(|event| event.kind).collect::<Vec<_>>(), [Connect, Fail]);
    assert_eq!((pipeline.rooms.totals.nameless, pipeline.rooms.totals.domains.len()), (1, 0));
    pipeline.socket(named(ID));
    assert_eq!((pipeline.rooms.totals.nameless, pipeline.rooms.totals.domains.len()), (0, 1));
}

#[test]
fn an_open_connection_has_its_bytes_so_far_and_they_count_once() {
    let so_far = |sent| SocketChange::Bytes { id: ID, bytes: Bytes { sent, received: 1 }, at: at(5) };
    let (events, mut pipeline) = run(EVERYTHING, vec![connecting(), so_far(1)]);
    assert!(events.is_empty() && pipeline.rooms.totals.loopback == Bytes::default(), "an attempt has none");
    let (events, mut established) = run(EVERYTHING, vec![established()]);
    assert_eq!(events[0].connection.bytes, None);
    assert_eq!(established.live.uncounted(), 1);
    for sent in [40, 41] {
        established.socket(so_far(sent));
        let open = established.live.find(ID).expect("it is open");
        assert_eq!(open.connection.bytes, Some(Bytes { sent, received: 1 }));
        assert_eq!(established.rooms.totals.loopback, Bytes { sent, received: 1 });
        let class = &established.rooms.totals.classes[&open.connection.class];
        assert_eq!(class.bytes.sent, sent);
    }
    assert_eq!(established.live.uncounted(), 0);
    established.socket(closed(Some(true)));
    assert_eq!(established.rooms.totals.loopback, Bytes { sent: 3, received: 4 });
    // Where its end is found out afterwards, they are what was read last.
    pipeline.socket(SocketChange::State { id: ID, state: SocketState::Established, at: at(6) });
    pipeline.socket(so_far(50));
    pipeline.socket(SocketChange::Gone { id: ID, at: at(9) });
    assert_eq!(pipeline.rooms.totals.loopback, Bytes { sent: 50, received: 1 });
}

#[test]
fn an_alert_on_an_open_connection_has_its_bytes_so_far() {
    struct Alerts(Arc<Mutex<Vec<Option<Bytes>>>>);
    impl Sink for Alerts {
        fn update(&mut self, update: &Update) {
            if let Update::Alert(alert) = update {
                self.0.lock().expect("no panic").push(alert.connection.bytes);
            }
        }
        fn finish(&mut self, _summary: &Summary) -> SinkReport {
            SinkReport::default()
        }
    }
    let told = Arc::default();
    let mut pipeline = pipeline(EVERYTHING, Targets::default(), Box::new(Alerts(Arc::clone(&told))));
    let rules = AlertRules { duration: Some(Duration::from_millis(100)), ..AlertRules::default() };
    pipeline.rooms.alerting = Alerting::new(Judge::new(rules));
    let bytes = Bytes { sent: 40_000_000, received: 1 };
    pipeline.socket(established());
    pipeline.socket(SocketChange::Bytes { id: ID, bytes, at: at(50) });
    pipeline.passed(at(200));
    assert_eq!(taken(&told), [Some(bytes)]);
}

#[test]
fn look_ups_by_rano_are_no_agents() {
    let kept: Arc<Mutex<Vec<Event>>> = Arc::default();
    let mut pipeline = pipeline(EVERYTHING, Targets::default(), Box::new(Kept(Arc::clone(&kept))));
    let mut below = |pid, exe: &str, remote: &str| {
        let id = ProcessId { pid, start_time: 8 };
        let image = Image { comm: "x".into(), argv: vec!["x".into()], exe: exe.into(), uid: 0 };
        pipeline.process(ProcessChange::found(id, CLAUDE.pid, image, at(1)));
        pipeline.socket(SocketChange::Opened(Opened {
            id: SocketId::Cookie { netns: 1, cookie: pid.into() },
            remote: Some(Address::ip(remote.parse().unwrap())),
            ..opened(Role::Connect, SocketState::Established, Some(id))
        }));
    };
    below(100, "/usr/bin/rano", "127.0.0.53:53");
    below(101, "/usr/bin/rano", "203.0.113.7:443");
    below(102, "/usr/bin/dig", "127.0.0.53:53");
    let events = taken(&kept);
    let providers: Vec<&str> = events.iter().map(|event| &*event.connection.provider).collect();
    assert_eq!(providers, ["unknown", "anthropic", "anthropic"]);
    assert!(events.iter().all(|event| event.connection.process.is_some()), "they are shown all the same");
}

mod relays;
