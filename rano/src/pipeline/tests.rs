use std::cell::RefCell;
use std::rc::Rc;

use EventKind::{Accept, Close, Connect, Fail};

use super::*;
use crate::event::{Address, OwnerQuality};
use crate::process::Image;
use crate::process::matching::{Rules, Targets};
use crate::process::provider::Providers;
use crate::process::redact::Redaction;

/// Keeps what it is given.
struct Kept(Rc<RefCell<Vec<Event>>>);

impl Sink for Kept {
    fn event(&mut self, event: &Event) {
        self.0.borrow_mut().push(event.clone());
    }
    fn tick(&mut self, _frame: &Frame<'_>) {}
    fn finish(&mut self, _summary: &mut Summary) {}
}

const CLAUDE: ProcessId = ProcessId { pid: 42, start_time: 7 };
const ID: SocketId = SocketId::Cookie { netns: 1, cookie: 1 };
const EVERYTHING: Scope =
    Scope { udp: true, listening: true, unix: true, unattributed: true, pending: false };

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
fn pipeline(scope: Scope, targets: Targets, sink: Box<dyn Sink>) -> Pipeline {
    let tree = Tree::new(Rules::new(targets, Vec::new()), Providers::default(), Redaction::On);
    let mut pipeline = Pipeline::new(tree, scope, SourceKind::Proc, vec![sink]);
    let image = Image { comm: "claude".into(), argv: vec!["claude".into()], ..Image::default() };
    pipeline.process(ProcessChange::found(CLAUDE, 1, image, at(0)));
    pipeline
}

/// The events that `changes` of a process named claude lead to, and the pipeline afterwards.
fn run(scope: Scope, changes: Vec<SocketChange>) -> (Vec<Event>, Pipeline) {
    let kept = Rc::default();
    let mut pipeline = pipeline(scope, Targets::default(), Box::new(Kept(Rc::clone(&kept))));
    for change in changes {
        pipeline.socket(change);
    }
    (kept.take(), pipeline)
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
    assert_eq!(events[0].provider.as_ref(), "anthropic");
    assert_eq!(events[1].duration, Some(Duration::from_millis(8)));
    assert_eq!(events[1].bytes, Some(Bytes { sent: 3, received: 4 }));
    assert_eq!(events[0].connection, events[1].connection);
}

#[test]
fn what_an_excluded_process_opens_is_counted_once_and_not_shown() {
    let kept: Rc<RefCell<Vec<Event>>> = Rc::default();
    let targets = Targets { exclude_patterns: vec!["claude".into()], ..Targets::default() };
    let mut pipeline = pipeline(EVERYTHING, targets, Box::new(Kept(Rc::clone(&kept))));
    for change in [connecting(), established(), closed(Some(true)), connecting()] {
        pipeline.socket(change);
    }
    let listener = opened(Role::Listen, SocketState::Established, Some(CLAUDE));
    pipeline.socket(SocketChange::Opened(Opened { id: SocketId::Inode { netns: 1, inode: 9 }, ..listener }));
    pipeline.left_out(40);
    assert!(kept.take().is_empty());
    assert_eq!(pipeline.totals.left_out.connections, 42);
    assert_eq!(pipeline.tree.left_out(), 1);
}

#[test]
fn a_connection_that_is_older_than_the_observation_has_no_duration() {
    let mut older = opened(Role::Connect, SocketState::Established, Some(CLAUDE));
    older.preexisting = true;
    let events = check(vec![SocketChange::Opened(older), closed(None)], &[Connect, Close]);
    assert_eq!(events[1].duration, None);
}

#[test]
fn an_attempt_is_a_fail_alone_or_a_connect_once_it_succeeds() {
    let succeeds = SocketChange::State { id: ID, state: SocketState::Established, at: at(5) };
    check(vec![connecting(), closed(Some(false))], &[Fail]);
    check(vec![connecting(), closed(None)], &[Fail]);
    let events = check(vec![connecting(), succeeds, closed(None)], &[Connect, Close]);
    assert_eq!(events[1].duration, Some(Duration::from_millis(4)));
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
    assert_eq!(events.iter().map(|event| event.kind).collect::<Vec<_>>(), [Accept]);
    assert_eq!((pipeline.totals.connects, pipeline.totals.active), (0, 0));
}

#[test]
fn what_nobody_owns_is_counted_always_and_shown_on_request() {
    let nobodys = || SocketChange::Opened(opened(Role::Connect, SocketState::Established, None));
    let events = check(vec![nobodys(), closed(Some(true))], &[Connect, Close]);
    assert!(events.iter().all(|event| event.process.is_none() && &*event.provider == "unknown"));
    // Only its end was seen: a duration would be made up.
    assert_eq!(events[1].duration, None);
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
    assert_eq!((connect.kind, connect.late, close.kind, close.late), (Connect, false, Close, true));
    assert_eq!(
        (close.duration, close.bytes, close.at, close.connection),
        (None, None, at(9), connect.connection)
    );
    assert_eq!((pipeline.totals.active, pipeline.live.len()), (0, 0));
}

#[test]
fn an_attempt_that_was_gone_when_somebody_looked_is_no_fail() {
    let gone = SocketChange::Gone { id: ID, at: at(9) };
    let events = check(vec![connecting(), gone], &[Connect, Close]);
    assert_eq!((events[0].state, events[1].late), (Some(SocketState::Connecting), true));
}

#[test]
fn what_is_open_is_listed_by_protocol() {
    let (_, pipeline) = run(EVERYTHING, vec![connecting()]);
    assert_eq!(pipeline.open(Protocol::Tcp), [Open { id: ID, is_pending: true }]);
    assert_eq!(pipeline.open(Protocol::Udp), []);
    let (_, pipeline) = run(EVERYTHING, vec![established()]);
    assert_eq!(pipeline.open(Protocol::Tcp), [Open { id: ID, is_pending: false }]);
}

#[test]
fn an_attempt_under_way_at_the_end_is_shown_as_such() {
    let (events, mut pipeline) = run(EVERYTHING, vec![connecting()]);
    assert!(events.is_empty());
    pipeline.show_pending(at(20));
    assert_eq!(pipeline.totals.connects, 1);
}

#[test]
fn an_end_that_was_told_during_the_look_that_found_the_beginning_is_not_dated_before_it() {
    let mut found = opened(Role::Connect, SocketState::Established, Some(CLAUDE));
    found.at = at(12);
    let events = check(vec![SocketChange::Opened(found), closed(Some(true))], &[Connect, Close]);
    assert_eq!((events[1].at, events[1].duration), (at(12), Some(Duration::ZERO)));
}
