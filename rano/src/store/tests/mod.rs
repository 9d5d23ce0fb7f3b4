//! What all tests of the store need: a session, an event to vary, a second pair of eyes on the file.

mod beside;
mod filter;
mod hostile;
mod lost;
mod open;
mod processes;
mod prune;
mod rows;
mod seal;
mod so_far;
mod trouble;

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use rusqlite::types::FromSql;
use rusqlite::{Connection, OpenFlags};

use super::{Finished, Session, Store, StoreOptions};
use crate::connection::{Connection as Observed, End};
use crate::event::{
    Address, Bytes, Class, ConnectionId, DomainSource, Event, EventKind, KnownName, Moment, OwnerQuality,
    Protocol, SocketState, SourceKind,
};
use crate::files::Rights;
use crate::process::{Ancestor, Call, Process, ProcessId, Tool, Trace};
use crate::source::Role;
use crate::update::{Counters, Progress, Renamed, Update};

/// 2026-01-17T19:30:00.123Z.
const NOON: i64 = 1_768_678_200_123;

/// Long enough for a busy machine, short enough to see a test that hangs.
const DEADLINE: Duration = Duration::from_secs(90);

/// A store that commits only when told to, by a full batch of its own or by the end.
fn patient(path: &Path) -> StoreOptions {
    StoreOptions {
        path: path.to_owned(),
        rights: Rights::here(),
        batch_size: 1_000_000,
        flush_interval: Duration::from_hours(1),
        queue_max: 1_000_000,
        retain: None,
        seal_key: None,
    }
}

fn session() -> Session {
    Session {
        run_id: format!("77-{NOON}"),
        name: Some("nightly".to_owned()),
        started_at: NOON,
        host: "box".to_owned(),
        user: "ann".to_owned(),
        args: vec!["--pattern".to_owned(), "a,\"b\"".to_owned()],
        patterns: vec!["claude".to_owned(), "codex".to_owned()],
        excludes: vec!["git".to_owned()],
        config_files: Vec::new(),
        source: SourceKind::Proc,
        source_reason: Some("no privileges".to_owned()),
    }
}

fn process() -> Process {
    let ancestor = |comm: &str, pid| Ancestor { comm: comm.to_owned(), pid, program: comm.to_owned() };
    Process {
        key: 1,
        id: ProcessId { pid: 2000, start_time: 99 },
        ppid: 1700,
        uid: 1000,
        comm: "claude".to_owned(),
        cmdline: "claude --verbose".to_owned(),
        exe: "/usr/bin/claude".to_owned(),
        provider: "anthropic".into(),
        ancestry: vec![ancestor("init", 1), ancestor("bash", 1700), ancestor("claude", 2000)],
        program: "claude".to_owned(),
        cwd: Some("/srv/code".into()),
        call: Some(Arc::new(call())),
        trace: Some(Trace {
            trace_id: "4bf92f3577b34da6a3ce929d0e0e4736".into(),
            span_id: "00f067aa0ba902b7".into(),
        }),
    }
}

fn call() -> Call {
    let tool = Tool {
        cmdline: "bash -c 'curl x'".to_owned(),
        id: ProcessId { pid: 1999, start_time: 98 },
        started_ms: NOON - 1_123,
    };
    Call {
        agent: "codex".into(),
        agent_id: ProcessId { pid: 1900, start_time: 90 },
        session: Some("s-1".into()),
        tool: Some(tool),
    }
}

fn event(kind: EventKind, connection: u64) -> Event {
    let at = Moment { boot_ns: 5, unix_ms: NOON };
    let connection = Observed {
        process: Some(Arc::new(process())),
        provider: "anthropic".into(),
        local: Some(ip("192.168.1.23:54012")),
        remote: Some(ip("203.0.113.7:443")),
        owner_quality: OwnerQuality::Polled,
        netns: 4_026_531_840,
        ..Observed::new(ConnectionId(connection), Role::Connect, Protocol::Tcp, at)
    };
    Event { kind, at, connection: Arc::new(connection) }
}

fn close(connection: u64, sent: u64, received: u64) -> Event {
    event(EventKind::Close, connection).with(|it| {
        it.ended = Some(End { duration: Some(Duration::from_millis(1200)), ..ended() });
        it.bytes = Some(Bytes { sent, received });
        it.state = Some(SocketState::Closed);
    })
}

/// An end of which nothing else is known.
fn ended() -> End {
    let at = Moment { boot_ns: 5, unix_ms: NOON };
    End { at, duration: None, error: None, is_late: false, has_failed: false }
}

/// A connection got another name after it was pushed.
fn renamed(connection: u64, name: Option<KnownName>, class: Class) -> Update {
    let event = event(EventKind::Connect, connection).with(|it| {
        it.name = name;
        it.class = class;
    });
    Update::Renamed(Renamed { at: event.at, connection: event.connection, before: None })
}

fn ip(text: &str) -> Address {
    Address::Ip(text.parse::<SocketAddr>().expect("a socket address"))
}

fn named(name: &str, by: DomainSource) -> KnownName {
    KnownName { name: name.into(), by }
}

/// Writes the events as one session into `path`.
fn write(path: &Path, events: &[Event]) {
    let store = Store::start(&patient(path), &session()).expect("a new database");
    for event in events {
        store.push(&event.clone().into());
    }
    assert_stored(&store.finish(Counters::default(), NOON + 1000), events.len() as u64);
}

fn assert_stored(finished: &Finished, events: u64) {
    assert_eq!(
        finished,
        &Finished {
            stored: events,
            dropped: 0,
            names_dropped: 0,
            error: None,
            warnings: finished.warnings.clone(),
            moved_to: None,
            head: finished.head.clone()
        }
    );
}

fn reader(path: &Path) -> Connection {
    let connection =
        Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_ONLY).expect("an existing database");
    connection.busy_timeout(DEADLINE).expect("a timeout");
    connection
}

fn one<T: FromSql>(path: &Path, sql: &str) -> T {
    reader(path).query_row(sql, [], |row| row.get(0)).unwrap_or_else(|error| panic!("{sql}: {error}"))
}

fn assert_intact(path: &Path) {
    assert_eq!(one::<String>(path, "PRAGMA integrity_check"), "ok");
}

/// The sums that are kept are those of the rows.
fn assert_sums(path: &Path) {
    let counted = "SELECT process.session, event.ts / 3600000, process.actor, event.endpoint, kind.event,
                          ifnull(event.bytes_sent, 0) AS sent
                   FROM event JOIN process ON process.id = event.process JOIN kind ON kind.id = event.kind";
    let kept = "sum(connects), sum(closes), sum(fails), sum(accepts), sum(listens), sum(bytes_sent)";
    let rows = "sum(event = 'connect'), sum(event = 'close'), sum(event = 'fail'), sum(event = 'accept'),
                sum(event = 'listen'), sum(sent)";
    for (kept_by, where_kept, counted_by) in [
        ("session, hour, actor, endpoint", "traffic WHERE hour >= 0", "session, 2, actor, endpoint"),
        ("session, actor, endpoint", "traffic WHERE hour < 0", "session, actor, endpoint"),
    ] {
        let counted_by = counted_by.replace(" 2,", " \"event.ts / 3600000\",");
        let kept = format!(
            "SELECT {kept_by}, {kept} FROM {where_kept} GROUP BY {kept_by}
             HAVING sum(connects + closes + fails + accepts + listens) > 0"
        );
        let counted = format!("SELECT {counted_by}, {rows} FROM ({counted}) GROUP BY {counted_by}");
        assert_same(path, &kept, &counted);
    }
    let counts =
        "sum(connects), sum(closes), sum(fails), ifnull(sum(bytes_sent), 0), ifnull(sum(bytes_recv), 0)";
    let shown = counts.replace("sum(", "(");
    for (view, by, condition) in [
        ("provider_domains", "domain", "true"),
        ("provider_ips", "remote_ip", "remote_port IS NOT NULL"),
        ("provider_ports", "remote_port", "true"),
    ] {
        let shown = format!("SELECT provider, {by}, {shown} FROM {view}");
        let counted = format!(
            "SELECT provider, {by}, {counts} FROM connection_events
             WHERE {by} IS NOT NULL AND {condition} GROUP BY provider, {by}"
        );
        assert_same(path, &shown, &counted);
    }
    assert_same(
        path,
        &format!("SELECT provider, comm, pid, {shown} FROM provider_processes"),
        &format!(
            "SELECT provider, ifnull(comm, 'unknown'), pid, {counts} FROM connection_events
             GROUP BY provider, session, pid, start_time, comm"
        ),
    );
    let seen = "SELECT count(*) FROM provider_ips
                JOIN (SELECT provider, remote_ip, min(ts) AS first, max(ts) AS last FROM events
                      WHERE event IN ('connect', 'close', 'fail') AND proto <> 'unix' GROUP BY provider, remote_ip)
                USING (provider, remote_ip)
                WHERE (first_seen, last_seen) IS NOT (first, last)";
    assert_eq!(one::<i64>(path, seen), 0);
    let activity = "SELECT ifnull(sum(connects + closes + fails + accepts + listens), 0) FROM activity";
    assert_eq!(one::<i64>(path, activity), one::<i64>(path, "SELECT count(*) FROM event"));
    let outside = "SELECT count(*) FROM event JOIN process ON process.id = event.process
                   WHERE NOT EXISTS (SELECT 1 FROM activity
                                     WHERE activity.session = process.session AND activity.provider = process.provider
                                       AND hour = event.ts / 3600000
                                       AND event.id BETWEEN first_event AND last_event)";
    assert_eq!(one::<i64>(path, outside), 0);
}

fn assert_same(path: &Path, one_way: &str, other_way: &str) {
    for sql in [format!("{one_way} EXCEPT {other_way}"), format!("{other_way} EXCEPT {one_way}")] {
        assert_eq!(one::<i64>(path, &format!("SELECT count(*) FROM ({sql})")), 0, "{sql}");
    }
}

fn wait_for(what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + DEADLINE;
    while !condition() {
        assert!(Instant::now() < deadline, "{what}: not within {DEADLINE:?}");
        thread::sleep(Duration::from_millis(2));
    }
}
