use super::*;

const NOTIFIED: [Protocol; 2] = [Protocol::Tcp, Protocol::Udp];
const WATCHED: Holder =
    Holder { process: ProcessId { pid: 42, start_time: 7 }, quality: OwnerQuality::Polled };

fn at(ms: u64) -> Moment {
    Moment { boot_ns: ms * 1_000_000, unix_ms: i64::try_from(ms).expect("small") }
}

fn id(cookie: u64) -> SocketId {
    SocketId::Cookie { netns: 1, cookie }
}

fn address(text: &str) -> Option<Address> {
    (text != "*").then(|| Address::ip(text.parse().expect("an address")))
}

fn tcp(cookie: u64, local: &str, remote: &str, state: SocketState) -> Seen {
    Seen {
        id: id(cookie),
        protocol: Protocol::Tcp,
        local: address(local),
        remote: address(remote),
        state: Some(state),
        listening: false,
        peer: None,
        inode: cookie + 1000,
        uid: Some(5),
    }
}

fn udp(cookie: u64, local: &str, remote: &str) -> Seen {
    let base = tcp(cookie, local, remote, SocketState::Established);
    Seen { protocol: Protocol::Udp, state: None, ..base }
}

fn listener(cookie: u64, local: &str) -> Seen {
    Seen { state: None, listening: true, ..tcp(cookie, local, "*", SocketState::Closed) }
}

/// One look that holds `sockets`, every one of which a watched process has.
fn look(table: &mut SocketTable, sockets: &[Seen], now: Moment) -> Vec<SocketChange> {
    let mut out = Vec::new();
    table.begin_look();
    for seen in sockets {
        table.see(seen.clone(), now, &mut out);
    }
    table.end_look(&Protocol::ALL, &NOTIFIED, now, &mut out);
    let found = table.wanted(false).into_values().map(|id| (id, WATCHED)).collect();
    table.settle(&found, Some(now), &mut out);
    out
}

fn table() -> SocketTable {
    SocketTable::new(1, 32768..=60999, true)
}

fn roles(changes: &[SocketChange]) -> Vec<Role> {
    changes
        .iter()
        .map(|change| match change {
            SocketChange::Opened(opened) => opened.role,
            other => panic!("not an opening: {other:?}"),
        })
        .collect()
}

#[test]
fn a_socket_is_opened_once_and_only_the_first_look_is_older_than_the_observation() {
    let mut table = table();
    let first = tcp(1, "127.0.0.1:40000", "127.0.0.1:443", SocketState::Established);
    let second = tcp(2, "127.0.0.1:40001", "127.0.0.1:443", SocketState::Established);
    let changes = look(&mut table, std::slice::from_ref(&first), at(1));
    assert!(matches!(&changes[..], [SocketChange::Opened(Opened { preexisting: true, .. })]));
    let changes = look(&mut table, &[first.clone(), second.clone()], at(2));
    assert!(matches!(&changes[..], [SocketChange::Opened(Opened { preexisting: false, .. })]));
    assert_eq!(look(&mut table, &[first, second], at(3)), []);
}

#[test]
fn the_end_without_a_notification_comes_late_and_says_when_it_was_missed() {
    let mut table = table();
    look(&mut table, &[tcp(1, "127.0.0.1:40000", "127.0.0.1:443", SocketState::Established)], at(1));
    assert_eq!(look(&mut table, &[], at(2)), []);
    assert!(table.needs_look());
    assert_eq!(look(&mut table, &[], at(1002)), [closing(id(1), at(2), None, Some(true))]);
    assert!(table.is_empty() && !table.needs_look());
}

#[test]
fn a_notification_after_the_end_was_told_is_no_other_connection() {
    let mut table = table();
    look(&mut table, &[tcp(1, "127.0.0.1:40000", "127.0.0.1:443", SocketState::Established)], at(1));
    look(&mut table, &[], at(2));
    assert_eq!(look(&mut table, &[], at(1002)).len(), 1);
    assert_eq!(table.ended(id(1), at(60_000)), Ended::Other);
    assert_eq!(table.ended(id(2), at(60_000)), Ended::Unseen);
}

#[test]
fn a_notification_that_is_late_on_a_busy_machine_still_ends_its_socket() {
    let mut table = table();
    look(&mut table, &[tcp(1, "127.0.0.1:40000", "127.0.0.1:443", SocketState::Established)], at(1));
    for ms in [20, 40, 60, 400] {
        assert_eq!(look(&mut table, &[], at(ms)), []);
    }
    assert_eq!(table.ended(id(1), at(410)), Ended::Watched);
    assert_eq!(look(&mut table, &[], at(1000)), []);
    assert!(!table.needs_look());
}

#[test]
fn a_notification_ends_a_socket_that_a_look_missed() {
    let mut table = table();
    look(&mut table, &[tcp(1, "127.0.0.1:40000", "127.0.0.1:443", SocketState::Established)], at(1));
    look(&mut table, &[], at(2));
    assert_eq!(table.ended(id(1), at(3)), Ended::Watched);
    assert_eq!(look(&mut table, &[], at(4)), []);
    assert_eq!(table.ended(id(9), at(5)), Ended::Unseen);
}

#[test]
fn a_socket_gone_before_its_descriptors_were_searched_is_an_orphan_and_not_a_strangers() {
    let seen = tcp(1, "127.0.0.1:40000", "127.0.0.1:443", SocketState::Established);
    for (ended_at, expected) in [(at(4), Ended::Orphan(seen.clone())), (at(6), Ended::Other)] {
        let mut table = table();
        table.begin_look();
        table.see(seen.clone(), at(1), &mut Vec::new());
        table.settle(&FxHashMap::default(), Some(at(5)), &mut Vec::new());
        assert_eq!(table.ended(id(1), ended_at), expected);
    }
}

#[test]
fn a_search_that_was_broken_off_is_repeated_and_makes_nobody_a_stranger() {
    let seen = tcp(1, "127.0.0.1:40000", "127.0.0.1:443", SocketState::Established);
    let mut table = table();
    table.begin_look();
    table.see(seen.clone(), at(1), &mut Vec::new());
    table.settle(&FxHashMap::default(), None, &mut Vec::new());
    assert_eq!(table.wanted(false).len(), 1);
    assert_eq!(table.ended(id(1), at(6)), Ended::Orphan(seen));
    table.settle(&FxHashMap::default(), None, &mut Vec::new());
    assert_eq!(table.wanted(false).len(), 0);
}

#[test]
fn the_end_that_listens_is_the_serving_end() {
    let mut table = table();
    let changes = look(
        &mut table,
        &[
            tcp(2, "127.0.0.1:8080", "127.0.0.1:40000", SocketState::Established),
            tcp(3, "127.0.0.1:40000", "127.0.0.1:8080", SocketState::Established),
            listener(4, "0.0.0.0:8080"),
        ],
        at(1),
    );
    assert_eq!(roles(&changes), [Role::Listen, Role::Accept, Role::Connect]);
}

#[test]
fn unconnected_datagram_sockets_are_told_apart_by_their_port() {
    let mut table = table();
    let changes = look(
        &mut table,
        &[udp(1, "0.0.0.0:40000", "*"), udp(2, "0.0.0.0:53", "*"), udp(3, "127.0.0.1:5353", "127.0.0.1:53")],
        at(1),
    );
    assert_eq!(roles(&changes), [Role::Connect, Role::Listen, Role::Connect]);
}

#[test]
fn a_datagram_socket_connected_elsewhere_is_another_connection() {
    let mut table = table();
    look(&mut table, &[udp(1, "127.0.0.1:40000", "127.0.0.1:53")], at(1));
    let elsewhere = [udp(1, "127.0.0.1:40000", "127.0.0.1:443")];
    let mut changes = look(&mut table, &elsewhere, at(2));
    changes.extend(look(&mut table, &elsewhere, at(3)));
    assert!(matches!(&changes[..], [SocketChange::Closed(_), SocketChange::Opened(_)]), "{changes:?}");
}

#[test]
fn whether_an_attempt_that_vanishes_was_established_is_not_known() {
    let mut table = table();
    look(&mut table, &[tcp(1, "127.0.0.1:40000", "127.0.0.1:443", SocketState::Connecting)], at(1));
    look(&mut table, &[], at(2));
    assert_eq!(look(&mut table, &[], at(1003)), [closing(id(1), at(2), None, None)]);
}

#[test]
fn a_look_at_one_protocol_says_nothing_about_another() {
    let mut table = table();
    look(&mut table, &[tcp(1, "127.0.0.1:40000", "127.0.0.1:443", SocketState::Established)], at(1));
    let mut out = Vec::new();
    for ms in 2..5 {
        table.begin_look();
        table.end_look(&[Protocol::Udp], &NOTIFIED, at(ms), &mut out);
    }
    assert_eq!(out, []);
}

#[test]
fn a_connected_datagram_socket_is_shown_once_a_second_look_holds_it() {
    let mut table = table();
    look(&mut table, &[], at(1));
    let lasting = udp(1, "127.0.0.1:40000", "127.0.0.1:53");
    let probe = udp(2, "127.0.0.1:40001", "127.0.0.1:0");
    let brief = udp(3, "127.0.0.1:40002", "127.0.0.1:443");
    assert_eq!(look(&mut table, &[lasting.clone(), probe.clone(), brief], at(2)), []);
    assert!(table.needs_look());
    let changes = look(&mut table, &[lasting.clone(), probe.clone()], at(3));
    let [SocketChange::Opened(opened)] = &changes[..] else { panic!("{changes:?}") };
    assert_eq!((opened.id, opened.at), (id(1), at(2)));
    assert_eq!(look(&mut table, &[lasting, probe], at(4)), []);
}
