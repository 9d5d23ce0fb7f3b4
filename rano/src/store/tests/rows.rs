//! What goes in comes out, under the names of the contract.

use rusqlite::types::Value;

use super::*;
use crate::health::{Gap, Gaps};
use crate::process::LeftOut;

const EVENT_COLUMNS: &str = "id ts run_id event provider pid comm cmdline proto local_ip local_port remote_ip \
     remote_port domain ancestry_path duration_ms alert ppid uid exe endpoint_type bytes_sent bytes_recv error state \
     source owner_quality domain_source preexisting netns peer_pid agent agent_pid \
    agent_session program cwd tool tool_pid tool_started trace_id span_id via domain_port relay_for";

fn columns(path: &Path, view: &str) -> Vec<String> {
    let connection = reader(path);
    let mut statement = connection.prepare("SELECT name FROM pragma_table_info(?1)").expect("a pragma");
    let names = statement.query_map([view], |row| row.get(0)).expect("names");
    names.collect::<Result<_, _>>().expect("text")
}

fn row(path: &Path, sql: &str) -> Vec<Value> {
    let connection = reader(path);
    let mut statement = connection.prepare(sql).expect(sql);
    let count = statement.column_count();
    statement.query_row([], |row| (0..count).map(|index| row.get(index)).collect()).expect(sql)
}

fn text(text: &str) -> Value {
    Value::Text(text.to_owned())
}

#[test]
fn views_have_the_columns_of_the_contract() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("observer.sqlite");
    write(&path, &[]);
    assert_eq!(columns(&path, "events"), EVENT_COLUMNS.split_whitespace().collect::<Vec<_>>());
    let sessions = columns(&path, "sessions");
    let first = "run_id name started_at ended_at host user args patterns config_files source source_reason clean_exit";
    assert_eq!(sessions[..12], first.split_whitespace().collect::<Vec<_>>());
    for gap in Gap::ALL {
        assert!(sessions.iter().any(|column| column == gap.name()), "no column for {gap:?}");
    }
    assert_eq!(columns(&path, "event_names"), ["event_id", "name", "source"]);
    for (view, subject) in [
        ("provider_counts", "provider"),
        ("provider_domains", "domain"),
        ("provider_ips", "remote_ip"),
        ("provider_ports", "remote_port"),
        ("provider_processes", "comm"),
        ("provider_last_hour", "provider"),
        ("provider_hourly", "hour"),
        ("session_summary", "run_id"),
    ] {
        let columns = columns(&path, view);
        let counts = ["connects", "closes", "fails", "bytes_sent", "bytes_recv", "first_seen", "last_seen"];
        for column in [&["provider", subject][..], &counts[..]].concat() {
            assert!(columns.iter().any(|name| name == column), "{view} lacks {column}");
        }
    }
}

#[test]
fn every_field_of_an_event_comes_back() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("observer.sqlite");
    let close = close(1, 11, 22).with(|it| {
        it.name = Some(named("api.example.com", DomainSource::Sni));
        it.class = Class::LlmApi;
        it.peer_pid = Some(77);
        it.ended = it.ended.map(|end| End { error: Some(104), ..end });
        it.preexisting = true;
        it.alert = true;
    });
    write(&path, &[close]);
    let expected = [
        Value::Integer(1),
        text("2026-01-17T19:30:00.123Z"),
        text("77-1768678200123"),
        text("close"),
        text("anthropic"),
        Value::Integer(2000),
        text("claude"),
        text("claude --verbose"),
        text("tcp"),
        text("192.168.1.23"),
        Value::Integer(54012),
        text("203.0.113.7"),
        Value::Integer(443),
        text("api.example.com"),
        text("init:1,bash:1700,claude:2000"),
        Value::Integer(1200),
        Value::Integer(1),
        Value::Integer(1700),
        Value::Integer(1000),
        text("/usr/bin/claude"),
        text("llm_api"),
        Value::Integer(11),
        Value::Integer(22),
        text("ECONNRESET"),
        text("closed"),
        text("proc"),
        text("polled"),
        text("sni"),
        Value::Integer(1),
        Value::Integer(4_026_531_840),
        Value::Integer(77),
        text("codex"),
        Value::Integer(1900),
        text("s-1"),
        text("claude"),
        text("/srv/code"),
        text("bash -c 'curl x'"),
        Value::Integer(1999),
        text("2026-01-17T19:29:59.000Z"),
        text("4bf92f3577b34da6a3ce929d0e0e4736"),
        text("00f067aa0ba902b7"),
        Value::Null,
        Value::Null,
        Value::Null,
    ];
    assert_eq!(row(&path, "SELECT * FROM events"), expected);
}

#[test]
fn a_request_to_a_proxy_and_its_relay_come_back() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("observer.sqlite");
    let asked = |remote: &str| {
        event(EventKind::Connect, 1).with(|it| {
            it.remote = Some(Address::ip(remote.parse().expect("an address")));
            it.name = Some(named("api.example.com", DomainSource::Proxy));
            it.domain_port = Some(8443);
        })
    };
    let relay = event(EventKind::Connect, 2).with(|it| {
        it.name = Some(named("api.example.com", DomainSource::Sni));
        it.relay_for = Some(2000);
    });
    write(&path, &[asked("127.0.0.1:3128"), asked("[::1]:3128"), relay]);
    let told =
        |id: u32| row(&path, &format!("SELECT via, domain_port, relay_for FROM events WHERE id = {id}"));
    assert_eq!(told(1), [text("127.0.0.1:3128"), Value::Integer(8443), Value::Null]);
    assert_eq!(told(2), [text("[::1]:3128"), Value::Integer(8443), Value::Null]);
    assert_eq!(told(3), [Value::Null, Value::Null, Value::Integer(2000)]);
}

#[test]
fn what_is_not_known_is_null_or_says_so() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("observer.sqlite");
    let stranger = event(EventKind::Connect, 1).with(|it| {
        it.process = None;
        it.provider = "unknown".into();
        it.local = None;
        it.remote = None;
        it.owner_quality = OwnerQuality::Unattributed;
    });
    write(&path, &[stranger]);
    let columns = "provider, comm, owner_quality, domain_source, endpoint_type, alert, preexisting";
    assert_eq!(
        row(&path, &format!("SELECT {columns} FROM events")),
        [
            text("unknown"),
            text("unknown"),
            text("unattributed"),
            text("none"),
            text("unknown"),
            Value::Integer(0),
            Value::Integer(0)
        ]
    );
    let absent = "pid, ppid, uid, cmdline, exe, ancestry_path, local_ip, local_port, remote_ip, remote_port, domain, \
                  duration_ms, bytes_sent, bytes_recv, error, state";
    assert!(row(&path, &format!("SELECT {absent} FROM events")).iter().all(|value| *value == Value::Null));
}

#[test]
fn every_word_of_every_enumeration_is_stored() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("observer.sqlite");
    let base = || event(EventKind::Connect, 1);
    let mut events = Vec::new();
    events.extend(EventKind::ALL.map(|kind| Event { kind, ..base() }));
    events.extend(Protocol::ALL.map(|protocol| base().with(|it| it.protocol = protocol)));
    events.extend(SourceKind::ALL.map(|source| base().with(|it| it.source = source)));
    events.extend(OwnerQuality::ALL.map(|quality| base().with(|it| it.owner_quality = quality)));
    events.extend(SocketState::ALL.map(|state| base().with(|it| it.state = Some(state))));
    events.extend(
        [111, 12345].map(|errno| base().with(|it| it.ended = Some(End { error: Some(errno), ..ended() }))),
    );
    events.extend(DomainSource::ALL.map(|by| base().with(|it| it.name = Some(named("n", by)))));
    write(&path, &events);
    let connection = reader(&path);
    let mut statement = connection
        .prepare("SELECT event, proto, source, owner_quality, ifnull(state, ''), domain_source FROM events ORDER BY id")
        .expect("a view");
    let stored: Vec<[String; 6]> = statement
        .query_map([], |row| {
            Ok([row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?, row.get(4)?, row.get(5)?])
        })
        .expect("rows")
        .collect::<Result<_, _>>()
        .expect("text");
    let expected: Vec<[&str; 6]> = events
        .iter()
        .map(|event| {
            let it = &event.connection;
            let by = it.name.as_ref().map_or("none", |known| known.by.name());
            let state = it.state.map_or("", SocketState::name);
            [event.kind.name(), it.protocol.name(), it.source.name(), it.owner_quality.name(), state, by]
        })
        .collect();
    assert_eq!(stored, expected);
    let errors = "SELECT group_concat(error, ', ') FROM events WHERE error IS NOT NULL";
    assert_eq!(one::<String>(&path, errors), "ECONNREFUSED, errno 12345");
}

#[test]
fn hostile_strings_come_back_as_they_were() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("observer.sqlite");
    let hostile = "'; DROP TABLE event; --\u{1b}[2J\n\u{202e}\"%s\u{0}x";
    let process = Process {
        comm: "a,b:c%\n\u{9b}é".to_owned(),
        cmdline: hostile.to_owned(),
        exe: hostile.to_owned(),
        ancestry: vec![Ancestor { comm: "a,b:c%\n\u{9b}é".to_owned(), pid: 7, program: String::new() }],
        ..process()
    };
    let unix = event(EventKind::Connect, 1).with(|it| {
        it.process = Some(Arc::new(process));
        it.provider = hostile.into();
        it.protocol = Protocol::Unix;
        it.local = Some(Address::Path("".into()));
        it.remote = Some(Address::Path(hostile.into()));
        it.name = Some(named(hostile, DomainSource::Dns));
    });
    write(&path, &[unix]);
    let columns = "comm, cmdline, exe, provider, remote_ip, domain, ancestry_path, local_ip, remote_port";
    let same = text(hostile);
    assert_eq!(
        row(&path, &format!("SELECT {columns} FROM events")),
        [
            text("a,b:c%\n\u{9b}é"),
            same.clone(),
            same.clone(),
            same.clone(),
            same.clone(),
            same,
            text("a%2Cb%3Ac%25%0A%C2%9Bé:7"),
            Value::Null,
            Value::Null
        ]
    );
}

#[test]
fn extreme_numbers_are_stored_at_their_limits() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("observer.sqlite");
    let at = |unix_ms| Event {
        at: Moment { boot_ns: 0, unix_ms },
        ..close(1, u64::MAX, u64::MAX)
            .with(|it| it.ended = Some(End { duration: Some(Duration::MAX), ..ended() }))
    };
    write(&path, &[at(i64::MIN), at(0), at(i64::MAX)]);
    let sql = "SELECT group_concat(ts), max(bytes_sent), max(duration_ms) FROM events";
    let times = "1970-01-01T00:00:00.000Z,1970-01-01T00:00:00.000Z,9999-12-31T23:59:59.999Z";
    assert_eq!(row(&path, sql), [text(times), Value::Integer(i64::MAX), Value::Integer(i64::MAX)]);
}

#[test]
fn repeated_things_are_stored_once() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("observer.sqlite");
    let events: Vec<Event> =
        (1..=100).flat_map(|id| [event(EventKind::Connect, id), close(id, 1, 1)]).collect();
    write(&path, &events);
    let counts = "SELECT (SELECT count(*) FROM process), (SELECT count(*) FROM kind), (SELECT count(*) FROM endpoint), \
                  (SELECT count(*) FROM address), (SELECT count(*) FROM events)";
    assert_eq!(row(&path, counts), [1, 2, 1, 1, 200].map(Value::Integer));
}

#[test]
fn a_second_session_shares_endpoints_but_not_processes() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("observer.sqlite");
    write(&path, &[event(EventKind::Connect, 1)]);
    let store = Store::start(&patient(&path), &Session { run_id: "78-1".to_owned(), ..session() })
        .expect("the same file");
    store.push(&event(EventKind::Connect, 1).into());
    assert_stored(&store.finish(Counters::default(), NOON), 1);
    assert_eq!(one::<i64>(&path, "SELECT count(*) FROM endpoint"), 1);
    assert_eq!(one::<String>(&path, "SELECT group_concat(run_id) FROM events"), "77-1768678200123,78-1");
}

#[test]
fn a_late_name_reaches_both_rows_and_the_name_before_it_is_kept() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("observer.sqlite");
    let store = Store::start(&patient(&path), &session()).expect("a new database");
    store.push(&event(EventKind::Connect, 1).into());
    store.push(&event(EventKind::Connect, 2).into());
    store.push(&renamed(1, Some(named("host-7.example.net", DomainSource::Ptr)), Class::Unknown));
    store.push(
        &close(1, 1, 1).with(|it| it.name = Some(named("host-7.example.net", DomainSource::Ptr))).into(),
    );
    store.push(&Update::OtherName {
        connection: ConnectionId(1),
        name: named("api.example.com", DomainSource::SharedDns),
    });
    store.push(&Update::OtherName {
        connection: ConnectionId(2),
        name: named("other.example", DomainSource::SharedDns),
    });
    store.push(&renamed(1, Some(named("api.example.com", DomainSource::Sni)), Class::LlmApi));
    store.push(&renamed(1, None, Class::Unknown));
    store.push(&renamed(9, Some(named("nobody.example", DomainSource::Ptr)), Class::Unknown));
    let finished = store.finish(Counters::default(), NOON);
    assert_eq!(
        finished,
        Finished {
            stored: 3,
            dropped: 0,
            names_dropped: 1,
            error: None,
            warnings: Vec::new(),
            moved_to: None,
            head: finished.head.clone()
        }
    );
    let sql = "SELECT group_concat(concat_ws(' ', event, ifnull(domain, '-'), domain_source, endpoint_type), ';') FROM events";
    assert_eq!(
        one::<String>(&path, sql),
        "connect api.example.com sni llm_api;connect - none unknown;close api.example.com sni llm_api"
    );
    let sql = "SELECT group_concat(event_id || ' ' || name || ' ' || source, ';') FROM event_names";
    assert_eq!(
        one::<String>(&path, sql),
        "1 host-7.example.net ptr;2 other.example shared_dns;3 host-7.example.net ptr"
    );
    assert_sums(&path);
}

#[test]
fn a_name_for_a_connection_long_gone_touches_nobody_elses_row() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("observer.sqlite");
    let store = Store::start(&patient(&path), &session()).expect("a new database");
    store.push(&event(EventKind::Connect, 5).into());
    store.push(&event(EventKind::Connect, 5 + (1 << 16)).into());
    store.push(&close(5, 1, 1).into());
    store.push(&renamed(5, Some(named("late.example", DomainSource::Ptr)), Class::Unknown));
    assert_eq!(store.finish(Counters::default(), NOON).names_dropped, 1);
    assert_eq!(one::<i64>(&path, "SELECT count(*) FROM events WHERE domain IS NOT NULL"), 0);
}

#[test]
fn a_late_alert_marks_the_rows_of_its_connection_and_no_others() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("observer.sqlite");
    let store = Store::start(&patient(&path), &session()).expect("a new database");
    for event in [event(EventKind::Connect, 1), event(EventKind::Connect, 2), close(1, 1, 1), close(2, 1, 1)]
    {
        store.push(&event.into());
    }
    store.push(&event(EventKind::Connect, 3).with(|it| it.alert = true).into());
    store.push(&Update::Marked(ConnectionId(2)));
    store.push(&Update::Marked(ConnectionId(2)));
    store.push(&Update::Marked(ConnectionId(3)));
    store.push(&Update::Marked(ConnectionId(9)));
    assert_eq!(store.finish(Counters::default(), NOON).names_dropped, 1);
    let sql = "SELECT group_concat(event || alert, ' ') FROM events";
    assert_eq!(one::<String>(&path, sql), "connect0 connect1 close0 close1 connect1");
    // Kinds stay single: connect and close, each with and without.
    assert_eq!(one::<i64>(&path, "SELECT count(*) FROM kind"), 4);
}

#[test]
fn the_session_tells_its_counts_and_its_end() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("observer.sqlite");
    let store = Store::start(&patient(&path), &session()).expect("a new database");
    assert_eq!(one::<i64>(&path, "SELECT clean_exit FROM sessions WHERE ended_at IS NULL"), 0);
    for event in [
        event(EventKind::Connect, 1),
        event(EventKind::Connect, 2),
        close(1, 10, 20),
        event(EventKind::Fail, 3).with(|it| it.bytes = Some(Bytes { sent: 1, received: 2 })),
        event(EventKind::Accept, 4),
        event(EventKind::Listen, 5),
    ] {
        store.push(&event.into());
    }
    let mut gaps = Gaps::default();
    gaps.set(Gap::Unattributed, 7);
    gaps.set(Gap::Vanished, 8);
    gaps.set(Gap::SqliteDropped, 1000);
    let left_out = LeftOut { processes: 5, connections: 6 };
    let counters = Counters { active: 1, peak_active: 2, alerts: 3, left_out, gaps, ..Counters::default() };
    store.finish(counters, NOON + 5000);
    let sql = "SELECT name, started_at, ended_at, args, patterns, excludes, config_files, source, source_reason FROM sessions";
    let told = [
        "nightly",
        "2026-01-17T19:30:00.123Z",
        "2026-01-17T19:30:05.123Z",
        r#"["--pattern","a,\"b\""]"#,
        r#"["claude","codex"]"#,
        r#"["git"]"#,
        "[]",
        "proc",
        "no privileges",
    ];
    assert_eq!(row(&path, sql), told.map(text));
    let sql = "SELECT clean_exit, connects, closes, fails, accepts, listens, active, peak_active, bytes_sent, bytes_recv, \
               alerts, unattributed, notifications_lost, vanished, sqlite_dropped, excluded_processes, excluded_connections FROM sessions";
    assert_eq!(row(&path, sql), [1, 2, 1, 1, 1, 1, 1, 2, 11, 22, 3, 7, 0, 8, 0, 5, 6].map(Value::Integer));
}

#[test]
fn a_store_that_is_dropped_keeps_its_events_without_a_clean_exit() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("observer.sqlite");
    let store = Store::start(&patient(&path), &session()).expect("a new database");
    store.push(&event(EventKind::Connect, 1).into());
    drop(store);
    assert_eq!(
        row(&path, "SELECT connects, clean_exit, ended_at FROM sessions"),
        [Value::Integer(1), Value::Integer(0), Value::Null]
    );
}

#[test]
fn views_count_connections_and_their_bytes_once() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("observer.sqlite");
    let hour_later = |event| Event { at: Moment { boot_ns: 0, unix_ms: NOON + 3_600_000 }, ..event };
    let bytes = Some(Bytes { sent: 10, received: 20 });
    let name = Some(named("api.example.com", DomainSource::Dns));
    write(
        &path,
        &[
            event(EventKind::Connect, 1).with(|it| {
                it.bytes = bytes;
                it.name.clone_from(&name);
            }),
            hour_later(close(1, 10, 20).with(|it| it.name = name.clone())),
            event(EventKind::Fail, 2).with(|it| it.ended = Some(End { error: Some(111), ..ended() })),
            event(EventKind::Accept, 3),
            event(EventKind::Listen, 4),
            event(EventKind::Connect, 5).with(|it| it.provider = "openai".into()),
        ],
    );
    let check = |sql: &str, expected: &str| assert_eq!(one::<String>(&path, sql), expected, "{sql}");
    let counts = "connects || ' ' || closes || ' ' || fails || ' ' || bytes_sent || ' ' || bytes_recv";
    check(
        &format!("SELECT group_concat(provider || ' ' || {counts}, ';') FROM provider_counts"),
        "anthropic 1 1 1 10 20;openai 1 0 0 0 0",
    );
    check(
        "SELECT first_seen || ' ' || last_seen FROM provider_counts WHERE provider = 'anthropic'",
        "2026-01-17T19:30:00.123Z 2026-01-17T20:30:00.123Z",
    );
    check(&format!("SELECT domain || ' ' || {counts} FROM provider_domains"), "api.example.com 1 1 0 10 20");
    check(
        &format!("SELECT group_concat(remote_ip || ' ' || {counts}, ';') FROM provider_ips"),
        "203.0.113.7 1 1 1 10 20;203.0.113.7 1 0 0 0 0",
    );
    check(
        &format!("SELECT remote_port || ' ' || {counts} FROM provider_ports WHERE provider = 'anthropic'"),
        "443 1 1 1 10 20",
    );
    check(
        &format!(
            "SELECT comm || ' ' || pid || ' ' || {counts} FROM provider_processes WHERE provider = 'anthropic'"
        ),
        "claude 2000 1 1 1 10 20",
    );
    check(
        "SELECT group_concat(hour || ' ' || connects || closes || fails, ';') FROM provider_hourly \
         WHERE provider = 'anthropic'",
        "2026-01-17T19:00:00Z 101;2026-01-17T20:00:00Z 010",
    );
    check(
        &format!(
            "SELECT run_id || ' ' || name || ' ' || {counts} FROM session_summary WHERE provider = 'anthropic'"
        ),
        "77-1768678200123 nightly 1 1 1 10 20",
    );
    assert_eq!(one::<i64>(&path, "SELECT count(*) FROM provider_last_hour"), 0);
}

#[test]
fn the_last_hour_holds_what_happened_just_now() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("observer.sqlite");
    let now: i64 = Connection::open_in_memory()
        .expect("memory")
        .query_row("SELECT strftime('%s', 'now') * 1000", [], |row| row.get(0))
        .expect("a clock");
    let at = |unix_ms| Event { at: Moment { boot_ns: 0, unix_ms }, ..event(EventKind::Connect, 1) };
    write(&path, &[at(now - 1000), at(now - 7_200_000)]);
    assert_eq!(one::<i64>(&path, "SELECT connects FROM provider_last_hour"), 1);
}
