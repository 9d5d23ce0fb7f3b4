use std::time::Duration;

use super::*;
use crate::connection::End;
use crate::event::{DomainSource, Event, EventKind, KnownName, Protocol};
use crate::source::Role;

fn at(ms: u64) -> Moment {
    Moment { boot_ns: ms * 1_000_000, unix_ms: i64::try_from(ms).unwrap() }
}

fn socket(connection: u64) -> SocketId {
    SocketId::Cookie { netns: 1, cookie: connection }
}

fn connection(number: u64) -> Connection {
    Connection {
        provider: "anthropic".into(),
        remote: Some(Address::ip("203.0.113.7:443".parse().unwrap())),
        ..Connection::new(ConnectionId(number), Role::Connect, Protocol::Tcp, at(0))
    }
}

fn event(kind: EventKind, number: u64, ms: u64) -> Event {
    Event { kind, at: at(ms), connection: Arc::new(Connection { since: at(ms), ..connection(number) }) }
}

fn named(connection: u64, ms: u64, name: &str) -> Event {
    let known = KnownName { name: name.into(), by: DomainSource::Dns };
    event(EventKind::Connect, connection, ms).with(|it| it.name = Some(known))
}

/// A close of one that was open for five seconds.
fn close_of_long(connection: u64) -> Event {
    let duration = Some(Duration::from_secs(5));
    let end = End { at: at(5_000), duration, error: None, is_late: false, has_failed: false };
    event(EventKind::Close, connection, 5_000).with(|it| it.ended = Some(end))
}

fn connect(judge: &mut Judge, event: &Event, active: u64) -> Vec<&'static str> {
    let socket = Some(socket(event.connection.id.0));
    let reasons = judge.connected(&event.connection, event.at, active, socket, &[], &mut Notes::default());
    reasons.iter().map(Reason::kind).collect()
}

fn begun(
    judge: &mut Judge,
    event: &Event,
    active: u64,
    socket: Option<SocketId>,
    others: &[Candidate],
    notes: &mut Notes,
) -> Vec<Reason> {
    judge.connected(&event.connection, event.at, active, socket, others, notes)
}

fn ended(judge: &mut Judge, event: &Event, notes: &mut Notes) -> Vec<Reason> {
    judge.closed(&event.connection, event.at, notes)
}

fn learned(judge: &mut Judge, event: &Event, candidate: &Candidate, notes: &mut Notes) -> Vec<Reason> {
    judge.named(&event.connection, event.at, candidate, notes)
}

fn rules() -> AlertRules {
    AlertRules { cooldown: Duration::from_secs(10), ..AlertRules::default() }
}

#[test]
fn a_glob_matches_the_whole_name_whatever_its_case() {
    let matches = |glob: &str, name: &str| {
        let mut judge = Judge::new(AlertRules { domains: vec![glob.into()], ..rules() });
        connect(&mut judge, &named(1, 0, name), 1) == ["domain_match"]
    };
    assert!(matches("*.malicious.com", "evil.malicious.com"));
    assert!(matches("*.malicious.com", "a.b.Malicious.COM."));
    assert!(!matches("*.malicious.com", "malicious.com"));
    assert!(!matches("*.malicious.com", "evil.malicious.com.example"));
    assert!(matches("API.example.?om", "api.example.com"));
    assert!(!matches("example.com", "xexample.com"));
    assert!(matches("a[b]c", "abc") && !matches("a[b]c", "acc"));
    assert!(!matches(&"*a".repeat(40), &"a".repeat(39)), "and no pattern takes for ever");
}

#[test]
fn one_name_is_one_alert_with_the_first_glob_that_matches() {
    let mut judge = Judge::new(AlertRules { domains: vec!["x.*".into(), "*.y".into()], ..rules() });
    let reasons = begun(&mut judge, &named(1, 0, "x.y"), 1, None, &[], &mut Notes::default());
    assert_eq!(
        reasons,
        [Reason::DomainMatch { pattern: "x.*".into(), domain: "x.y".into(), is_possible: false }]
    );
}

#[test]
fn a_limit_is_exceeded_and_not_reached() {
    let mut judge = Judge::new(AlertRules {
        max_connections: Some(2),
        max_per_provider: Some(1),
        cooldown: Duration::ZERO,
        ..rules()
    });
    assert_eq!(connect(&mut judge, &event(EventKind::Connect, 1, 0), 2), [""; 0]);
    let openai = event(EventKind::Connect, 2, 0).with(|it| it.provider = "openai".into());
    assert_eq!(connect(&mut judge, &openai, 3), ["max_connections"]);
    assert_eq!(connect(&mut judge, &openai, 3), ["max_connections", "max_per_provider"]);
    judge.closed(&openai.connection, openai.at, &mut Notes::default());
    judge.closed(&openai.connection, openai.at, &mut Notes::default());
    assert_eq!(connect(&mut judge, &openai, 1), [""; 0], "closed ones no longer count");
}

#[test]
fn a_cooldown_is_by_kind_and_subject_and_counts_what_it_holds_back() {
    let mut judge = Judge::new(AlertRules { domains: vec!["*".into()], max_connections: Some(0), ..rules() });
    assert_eq!(connect(&mut judge, &named(1, 0, "a.b"), 1), ["domain_match", "max_connections"]);
    assert_eq!(connect(&mut judge, &named(2, 9_999, "A.B"), 1), [""; 0]);
    assert_eq!(judge.held_back(), 2);
    assert_eq!(connect(&mut judge, &named(3, 9_999, "c.d"), 1), ["domain_match"], "another subject");
    assert_eq!(connect(&mut judge, &named(4, 10_000, "a.b"), 1), ["domain_match", "max_connections"]);
    assert_eq!(
        connect(&mut judge, &named(5, 19_999, "a.b"), 1),
        [""; 0],
        "counted from the one that was said"
    );
}

#[test]
fn cooldowns_of_endless_subjects_stay_bounded_and_lose_no_alert() {
    let mut judge = Judge::new(AlertRules { domains: vec!["*".into()], ..rules() });
    for n in 0..40_000 {
        assert_eq!(connect(&mut judge, &named(n, n / 10, &format!("{n}.example")), 1), ["domain_match"]);
    }
    assert_eq!(judge.cooldowns.last.len(), COOLDOWNS_MAX);
    assert_eq!(judge.without_cooldown(), 40_000 - COOLDOWNS_MAX as u64);
    assert_eq!(connect(&mut judge, &named(1, 60_000, "new.example"), 1), ["domain_match"]);
    assert_eq!(judge.cooldowns.last.len(), 1, "those that are over make room");
}

#[test]
fn a_long_duration_is_told_once_while_open_and_never_of_a_short_one() {
    let mut judge = Judge::new(AlertRules { duration: Some(Duration::from_millis(100)), ..rules() });
    let mut notes = Notes::default();
    let (long, short) = (event(EventKind::Connect, 1, 0), event(EventKind::Connect, 2, 0));
    judge.connected(&long.connection, long.at, 1, Some(socket(1)), &[], &mut notes);
    let mut short_notes = Notes::default();
    judge.connected(&short.connection, short.at, 2, Some(socket(2)), &[], &mut short_notes);
    assert!(ended(&mut judge, &event(EventKind::Close, 2, 100), &mut short_notes).is_empty());
    assert_eq!(judge.take_due(100_000_000), None, "exactly as long is not longer");
    let due = judge.take_due(101_000_000).unwrap();
    assert_eq!((due.connection, due.wait), (ConnectionId(1), Wait::Duration));
    let elapsed = Duration::from_millis(101);
    let reason = judge.overdue(due.wait, &long.connection, at(101), &mut notes);
    let limit = Duration::from_millis(100);
    assert_eq!(reason, [Reason::LongDuration { elapsed, limit }]);
    assert_eq!(judge.next_due(), None);
    let close = close_of_long(1);
    assert!(judge.closed(&close.connection, close.at, &mut notes).is_empty());
}

#[test]
fn a_duration_that_only_the_end_reveals_is_told_then() {
    let mut judge = Judge::new(AlertRules { duration: Some(Duration::from_millis(100)), ..rules() });
    let mut notes = Notes::default();
    begun(&mut judge, &event(EventKind::Connect, 1, 5_000), 1, Some(socket(1)), &[], &mut notes);
    let close = close_of_long(1);
    assert_eq!(judge.closed(&close.connection, close.at, &mut notes)[0].kind(), "long_duration");
}

#[test]
fn a_name_is_waited_for_two_seconds_or_until_the_close() {
    let judge = || Judge::new(AlertRules { unknown_domain: true, cooldown: Duration::ZERO, ..rules() });
    let begin = event(EventKind::Connect, 1, 0);
    let connected = |judge: &mut Judge| {
        let mut notes = Notes::default();
        assert!(judge.connected(&begin.connection, begin.at, 1, Some(socket(1)), &[], &mut notes).is_empty());
        notes
    };
    let mut waits = judge();
    let mut notes = connected(&mut waits);
    assert_eq!(waits.take_due(1_999_999_999), None);
    let due = waits.take_due(2_000_000_000).unwrap();
    let reason = waits.overdue(due.wait, &begin.connection, at(2_000), &mut notes);
    assert_eq!(
        reason,
        [Reason::UnknownDomain { remote: "203.0.113.7:443".parse().unwrap(), possible: Vec::new() }]
    );
    assert!(ended(&mut waits, &event(EventKind::Close, 1, 3_000), &mut notes).is_empty(), "said once");

    let mut closes = judge();
    let mut notes = connected(&mut closes);
    assert_eq!(ended(&mut closes, &event(EventKind::Close, 1, 10), &mut notes)[0].kind(), "unknown_domain");

    let mut learns = judge();
    let mut notes = connected(&mut learns);
    let name = Candidate { name: "a.example".into(), is_possible: false };
    assert!(learned(&mut learns, &named(1, 1_000, "a.example"), &name, &mut notes).is_empty());
    assert_eq!(learns.next_due(), None);
}

#[test]
fn a_failed_attempt_at_a_name_is_told() {
    let mut judge = Judge::new(AlertRules { domains: vec!["*.bad".into()], ..rules() });
    let fail = Event { kind: EventKind::Fail, ..named(1, 0, "x.bad") };
    assert_eq!(judge.failed(&fail.connection, fail.at, &[], &mut Notes::default())[0].kind(), "domain_match");
}

#[test]
fn what_is_waited_for_goes_with_its_connection() {
    let duration = Some(Duration::from_hours(1));
    let mut judge = Judge::new(AlertRules { duration, unknown_domain: true, ..rules() });
    for n in 0..1000 {
        let mut notes = Notes::default();
        begun(&mut judge, &event(EventKind::Connect, n, n), 1, Some(socket(n)), &[], &mut notes);
        ended(&mut judge, &event(EventKind::Close, n, n + 1), &mut notes);
    }
    assert_eq!(judge.next_due(), None);
}

fn judge_of(glob: &str) -> Judge {
    Judge::new(AlertRules { domains: vec![glob.into()], ..rules() })
}

fn candidate(name: &str, is_possible: bool) -> Candidate {
    Candidate { name: name.into(), is_possible }
}

#[test]
fn every_candidate_counts_and_is_only_possible() {
    let mut judge = judge_of("*.bad");
    let others = [candidate("good.example", true), candidate("evil.bad", true)];
    let mut notes = Notes::default();
    let reasons = begun(&mut judge, &event(EventKind::Connect, 1, 0), 1, None, &others, &mut notes);
    let expected =
        Reason::DomainMatch { pattern: "*.bad".into(), domain: "evil.bad".into(), is_possible: true };
    assert_eq!((reasons, notes.alert), (vec![expected], true));
    let hearsay = named(2, 0, "other.bad").with(|it| it.is_hearsay = true);
    let reasons = judge.connected(&hearsay.connection, hearsay.at, 1, None, &[], &mut Notes::default());
    assert!(matches!(reasons[..], [Reason::DomainMatch { is_possible: true, .. }]), "{reasons:?}");
}

#[test]
fn what_is_possible_holds_back_nothing_that_is_certain() {
    let mut judge = judge_of("*.bad");
    let event = event(EventKind::Connect, 1, 0);
    let mut told = |is_possible| {
        judge
            .named(&event.connection, event.at, &candidate("evil.bad", is_possible), &mut Notes::default())
            .len()
    };
    assert_eq!((told(true), told(true), told(false), told(false)), (1, 0, 1, 0));
}

#[test]
fn one_tree_holds_back_nothing_of_another_one() {
    let mut judge = Judge::new(AlertRules { domains: vec!["*.bad".into()], unknown_domain: true, ..rules() });
    let of = |pid, event: Event| event.with(|it| it.tree = Some(ProcessId { pid, start_time: 1 }));
    assert_eq!(connect(&mut judge, &of(1, named(1, 0, "evil.bad")), 1), ["domain_match"]);
    assert_eq!(connect(&mut judge, &of(1, named(2, 1, "evil.bad")), 1), [""; 0]);
    assert_eq!(connect(&mut judge, &of(2, named(3, 2, "evil.bad")), 1), ["domain_match"]);
    let mut nameless = |pid, connection| {
        let event = of(pid, event(EventKind::Connect, connection, 10));
        !judge.overdue(Wait::Name, &event.connection, event.at, &mut Notes::default()).is_empty()
    };
    assert_eq!((nameless(1, 4), nameless(1, 5), nameless(2, 6)), (true, false, true));
}

#[test]
fn candidates_and_hearsay_are_no_name() {
    let other = KnownName { name: "a.example".into(), by: DomainSource::Dns };
    let several = event(EventKind::Connect, 1, 0).with(|it| it.others = vec![other]);
    let hearsay = named(2, 0, "b.example").with(|it| it.is_hearsay = true);
    for (event, name) in [(several, "a.example"), (hearsay, "b.example")] {
        let mut judge = Judge::new(AlertRules { unknown_domain: true, ..rules() });
        let mut notes = Notes::default();
        judge.connected(&event.connection, event.at, 1, Some(socket(event.connection.id.0)), &[], &mut notes);
        judge.named(&event.connection, event.at, &candidate(name, true), &mut notes);
        let due = judge.take_due(2_000_000_000).expect("it still waits");
        match &judge.overdue(due.wait, &event.connection, at(2_000), &mut notes)[..] {
            [Reason::UnknownDomain { possible, .. }] => assert_eq!(*possible, [name.into()]),
            other => panic!("{name}: {other:?}"),
        }
    }
}
