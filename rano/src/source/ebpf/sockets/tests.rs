use rano_common::Header;

use super::*;

pub(in crate::rooms::source::ebpf) fn record(kind: SocketKind, flags: u32) -> SocketRecord {
    let mut local = [0; 16];
    local[..4].copy_from_slice(&[127, 0, 0, 1]);
    SocketRecord {
        header: Header { kind: kind as u32, size: 120, at_ns: 9_000_000 },
        cookie: 7,
        owner_start_ns: 50_000_000,
        established_ns: 0,
        bytes_sent: 10,
        bytes_received: 21,
        pid: 42,
        exec_id: 1,
        flags,
        netns: 4,
        error: 0,
        local_port: 40_000,
        remote_port: 443,
        family: 2,
        protocol: 6,
        state_before: 0,
        interface: 0,
        local,
        remote: local,
    }
}

fn sockets() -> Sockets {
    Sockets::new(SourceKind::EbpfFentry, true, 32_768..=60_999)
}

fn changes(sockets: &mut Sockets, kind: SocketKind, record: &SocketRecord) -> Vec<SocketChange> {
    let mut out = Vec::new();
    let at = Moment { boot_ns: 9_000_000, unix_ms: 9 };
    sockets.changes(kind, record, at, &mut |_| Some([3, 4]), &mut out);
    out
}

fn last_closed(changes: &[SocketChange]) -> &Closed {
    match changes.last() {
        Some(SocketChange::Closed(closed)) => closed,
        other => panic!("no end: {other:?}"),
    }
}

#[test]
fn an_end_alone_is_a_whole_connection() {
    let last_ack = 9;
    let record = SocketRecord {
        established_ns: 4_000_000,
        state_before: last_ack,
        ..record(SocketKind::Closed, flags::ATTEMPTED | flags::FIN)
    };
    let changes = changes(&mut sockets(), SocketKind::Closed, &record);
    let SocketChange::Opened(opened) = &changes[0] else { panic!("{changes:?}") };
    assert_eq!(opened.owner, Some(crate::process::ProcessId { pid: 42, start_time: 5 }));
    assert_eq!(opened.state, Some(SocketState::Established));
    let closed = last_closed(&changes);
    assert_eq!(closed.bytes, Some(Bytes { sent: 10, received: 20 }), "the other side's FIN is no payload");
    assert_eq!((closed.established, closed.duration), (Some(true), Some(Duration::from_millis(5))));
}

#[test]
fn an_attempt_that_was_answered_with_a_reset_has_its_reason_and_no_bytes() {
    let refused = SocketRecord { error: 111, state_before: SYN_SENT, ..record(SocketKind::Closed, 0) };
    let changes = changes(&mut sockets(), SocketKind::Closed, &refused);
    let closed = last_closed(&changes);
    assert_eq!((closed.error, closed.established, closed.bytes), (Some(111), Some(false), None));
}

#[test]
fn one_that_found_no_room_is_an_attempt_of_which_nothing_is_kept() {
    let mut sockets = sockets();
    let stream = record(SocketKind::Attempt, flags::UNFOLLOWED);
    let told = changes(&mut sockets, SocketKind::Attempt, &stream);
    let [SocketChange::Attempted(opened)] = &told[..] else { panic!("{told:?}") };
    assert_eq!(opened.state, Some(SocketState::Connecting));
    let datagram = record(SocketKind::Datagram, flags::UNFOLLOWED | flags::DATAGRAM);
    let told = changes(&mut sockets, SocketKind::Datagram, &datagram);
    assert!(matches!(told[..], [SocketChange::Attempted(_)]), "{told:?}");
    assert_eq!(sockets.flow_count, 0);
}

#[test]
fn one_socket_does_not_take_all_the_room_for_flows() {
    let mut sockets = sockets();
    let first = record(SocketKind::Datagram, flags::DATAGRAM);
    for port in 1..=u16::try_from(FLOWS_OF_ONE).unwrap() + 10 {
        changes(&mut sockets, SocketKind::Datagram, &SocketRecord { remote_port: port, ..first });
    }
    assert_eq!((sockets.flow_count, sockets.flows_full), (FLOWS_OF_ONE, 10));
}

#[test]
fn datagrams_to_two_ends_are_two_flows_that_end_with_the_socket() {
    let mut sockets = sockets();
    let first = record(SocketKind::Datagram, flags::DATAGRAM);
    let second = SocketRecord { remote_port: 53, ..first };
    assert_eq!(changes(&mut sockets, SocketKind::Datagram, &first).len(), 1);
    assert_eq!(changes(&mut sockets, SocketKind::Datagram, &first), [], "known");
    assert_eq!(changes(&mut sockets, SocketKind::Datagram, &second).len(), 1);
    let end = SocketRecord { bytes_received: 0, ..first };
    assert_eq!(changes(&mut sockets, SocketKind::Released, &end).len(), 2);
    assert_eq!((sockets.flows.len(), sockets.flow_count), (0, 0));
}

#[test]
fn a_datagram_socket_connected_elsewhere_ends_its_flows() {
    let mut sockets = sockets();
    let first = record(SocketKind::Bound, flags::DATAGRAM | flags::CONNECTED | flags::TALKED);
    changes(&mut sockets, SocketKind::Bound, &first);
    let elsewhere = record(SocketKind::Attempt, flags::DATAGRAM | flags::CONNECTED | flags::HEARD);
    let elsewhere = SocketRecord { remote_port: 53, ..elsewhere };
    let again = changes(&mut sockets, SocketKind::Attempt, &elsewhere);
    assert!(matches!(&again[..], [SocketChange::Closed(_)]), "nothing was sent there yet: {again:?}");
}

#[test]
fn where_datagrams_are_not_seen_a_connect_begins_a_flow_unless_its_port_is_0() {
    let mut sockets = sockets();
    let attempt = record(SocketKind::Attempt, flags::DATAGRAM | flags::CONNECTED | flags::TALKED);
    let probe = SocketRecord { remote_port: 0, ..attempt };
    assert_eq!(changes(&mut sockets, SocketKind::Attempt, &probe), []);
    let told = changes(&mut sockets, SocketKind::Attempt, &attempt);
    assert!(matches!(&told[..], [SocketChange::Opened(_)]), "{told:?}");
}

#[test]
fn what_came_from_nobody_knows_where_has_no_remote_end() {
    let mut sockets = sockets();
    let from_somebody = record(SocketKind::Datagram, flags::DATAGRAM | flags::TALKED);
    let nameless = SocketRecord { remote_port: 0, remote: [0; 16], ..from_somebody };
    let told = changes(&mut sockets, SocketKind::Datagram, &nameless);
    let [SocketChange::Opened(opened)] = &told[..] else { panic!("{told:?}") };
    assert_eq!(opened.remote, None);
    changes(&mut sockets, SocketKind::Datagram, &from_somebody);
    let end = record(SocketKind::Released, flags::DATAGRAM | flags::TALKED | flags::HEARD);
    let ended = changes(&mut sockets, SocketKind::Released, &end);
    let received = |change: &SocketChange| match change {
        SocketChange::Closed(closed) => closed.bytes.map(|bytes| bytes.received),
        other => panic!("{other:?}"),
    };
    // Of a flow the map says [3, 4]; the socket's record 21.
    let mut received: Vec<_> = ended.iter().map(received).collect();
    received.sort_unstable();
    assert_eq!(received, [Some(4), Some(21)]);
}

#[test]
fn what_came_from_one_of_several_is_a_flow_of_its_own() {
    let mut sockets = sockets();
    let first = record(SocketKind::Datagram, flags::DATAGRAM | flags::TALKED);
    changes(&mut sockets, SocketKind::Datagram, &first);
    changes(&mut sockets, SocketKind::Datagram, &SocketRecord { remote_port: 53, ..first });
    let end = record(SocketKind::Released, flags::DATAGRAM | flags::TALKED | flags::HEARD);
    let ended = changes(&mut sockets, SocketKind::Released, &end);
    assert_eq!(ended.len(), 4, "{ended:?}");
    assert_eq!(last_closed(&ended).bytes, Some(Bytes { sent: 0, received: 21 }));
}

#[test]
fn a_flow_that_the_programs_forgot_is_counted() {
    let mut sockets = sockets();
    changes(&mut sockets, SocketKind::Datagram, &record(SocketKind::Datagram, flags::DATAGRAM));
    let end = record(SocketKind::Released, flags::DATAGRAM | flags::TALKED | flags::HEARD);
    let mut out = Vec::new();
    let at = Moment { boot_ns: 9_000_000, unix_ms: 9 };
    sockets.changes(SocketKind::Released, &end, at, &mut |_| None, &mut out);
    assert_eq!((last_closed(&out).bytes, sockets.flows_forgotten), (None, 1));
}

#[test]
fn a_flow_of_which_only_the_end_arrived_is_told_without_a_duration() {
    let flags = flags::DATAGRAM | flags::CONNECTED;
    let told = changes(&mut sockets(), SocketKind::Released, &record(SocketKind::Released, flags));
    assert!(matches!(told[..], [SocketChange::Opened(_), SocketChange::Gone { .. }]), "{told:?}");
    let heard = record(SocketKind::Released, flags | flags::HEARD);
    assert_eq!(changes(&mut sockets(), SocketKind::Released, &heard), []);
}

#[test]
fn a_local_end_of_a_flow_that_nobody_heard_of_begins_it() {
    let mut sockets = sockets();
    let bound = record(SocketKind::Bound, flags::DATAGRAM | flags::CONNECTED);
    let told = changes(&mut sockets, SocketKind::Bound, &bound);
    assert!(matches!(told[..], [SocketChange::Opened(_)]), "{told:?}");
    let end = record(SocketKind::Released, flags::DATAGRAM | flags::CONNECTED | flags::HEARD);
    assert!(last_closed(&changes(&mut sockets, SocketKind::Released, &end)).bytes.is_some());
}

#[test]
fn a_flow_that_is_gone_is_kept_no_more() {
    let mut sockets = sockets();
    let first = record(SocketKind::Bound, flags::DATAGRAM | flags::CONNECTED);
    changes(&mut sockets, SocketKind::Bound, &first);
    let id = sockets.flows().next().expect("it is kept");
    assert!(sockets.knows(id) && sockets.is_connected(id));
    sockets.gone(id, &mut |_| None, &mut Vec::new());
    assert_eq!((sockets.flows().count(), sockets.flow_count), (0, 0));
}
