use std::sync::Arc;
use std::time::Duration;

use super::*;
use crate::connection::{Connection, End};
use crate::event::{
    Address, Bytes, Class, ConnectionId, DomainSource, Event, EventKind, KnownName, Moment, OwnerQuality,
    Protocol, SocketState, SourceKind,
};
use crate::process::{Process, ProcessId};
use crate::source::Role;

/// A close by curl, started by claude, of a connection to a model.
fn event() -> Event {
    let process = Process {
        key: 1,
        id: ProcessId { pid: 12_345, start_time: 1 },
        ppid: 1,
        uid: 1000,
        comm: "curl".to_owned(),
        cmdline: "curl -s https://api.openai.com/v1".to_owned(),
        exe: "/usr/bin/curl".to_owned(),
        provider: Arc::from("anthropic"),
        ancestry: Vec::new(),
        program: "curl".to_owned(),
        ..Process::unknown(ProcessId { pid: 12_345, start_time: 1 })
    };
    let at = Moment::default();
    let connection = Connection {
        process: Some(Arc::new(process)),
        provider: Arc::from("anthropic"),
        remote: Some(Address::ip("10.1.2.3:443".parse().expect("an address"))),
        name: Some(KnownName { name: Arc::from("api.openai.com"), by: DomainSource::Sni }),
        class: Class::LlmApi,
        bytes: Some(Bytes { sent: 3 << 20, received: 10 }),
        state: Some(SocketState::Closed),
        source: SourceKind::EbpfTracepoint,
        owner_quality: OwnerQuality::Exact,
        netns: 1,
        alert: true,
        ended: Some(End {
            at,
            duration: Some(Duration::from_secs(31)),
            error: None,
            is_late: false,
            has_failed: false,
        }),
        ..Connection::new(ConnectionId(1), Role::Connect, Protocol::Tcp, at)
    };
    Event { kind: EventKind::Close, at, connection: Arc::new(connection) }
}

fn holds(text: &str, event: &Event) -> bool {
    Filter::parse(text).unwrap_or_else(|error| panic!("{text}: {error}")).matches(&Facts::from(event))
}

#[test]
fn every_key_says_yes_and_no() {
    let event = event();
    for (yes, no) in [
        ("type:llm_api", "type:registry"),
        ("class:LLM_API,dns", "type:github"),
        ("protocol:tcp", "proto:udp"),
        ("state:closed", "state:established"),
        ("event:close", "event:fail"),
        ("source:ebpf", "source:proc"),
        ("source:*-tracepoint", "source:ebpf-kprobe"),
        ("quality:exact", "quality:polled"),
        ("domain:*.openai.com", "domain:openai.com"),
        ("domain:API.OpenAI.com.", "domain:*.anthropic.com"),
        ("process:curl", "process:cur"),
        ("process:/usr/bin/*", "process:bin"),
        ("provider:anthropic", "provider:openai"),
        ("pid:12345", "pid:1234"),
        ("port:443", "port:80,8080"),
        ("port:>442", "port:<443"),
        ("sent:>1M", "sent:>3M"),
        ("sent:>=3MiB", "recv:>1k"),
        ("sent:3145728", "sent:=3145727"),
        ("sent:>2.5M", "sent:>3.5M"),
        ("received:<=10", "received:<10"),
        ("duration:>30s", "duration:<0.5m"),
        ("ip:10.0.0.0/8", "ip:11.0.0.0/8"),
        ("ip:10.1.2.3", "ip:::/0"),
        ("ip:::ffff:10.1.0.0/112", "ip:10.1.2.4"),
        ("alert:true", "alert:false"),
        ("CURL", "wget"),
        ("openai", "\"open ai\""),
        ("10.1.2", "10.1.2.4"),
        ("\"-s https\"", "\"-s http:\""),
    ] {
        assert!(holds(yes, &event), "{yes}");
        assert!(!holds(no, &event), "{no}");
    }
}

#[test]
fn a_blank_binds_tighter_than_a_bar_and_no_blank_tighter_still() {
    let event = event();
    for (text, expected) in [
        ("wget wget | curl", true),
        ("curl wget | wget", false),
        ("wget wget|curl", false),
        ("curl wget|curl", true),
        ("wget port:443|port:80", false),
        ("curl port:80|port:443", true),
        ("port:80|443", true),
        ("port:80 | 443", true),
        ("-wget", true),
        ("not curl", false),
        ("NOT (wget | port:80)", true),
        ("--curl", true),
        ("-curl|wget", false),
        ("(curl) (port:443)", true),
        ("(curl)(port:80)", false),
        ("", true),
        ("  ", true),
        ("notcurl", false),
    ] {
        assert_eq!(holds(text, &event), expected, "{text}");
    }
}

#[test]
fn what_is_absent_matches_nothing() {
    let event = event().with(|it| {
        it.process = None;
        it.remote = Some(Address::Path("/run/x.sock".into()));
        it.name = None;
        it.bytes = None;
        it.ended = None;
        it.state = None;
    });
    for text in [
        "domain:*",
        "pid:>=0",
        "port:>=0",
        "sent:>=0",
        "duration:>=0s",
        "ip:0.0.0.0/0",
        "ip:::/0",
        "state:closed",
    ] {
        assert!(!holds(text, &event), "{text}");
        assert!(holds(&format!("-{text}"), &event), "-{text}");
    }
    assert!(holds("process:unknown", &event) && holds("x.sock", &event));
}

#[test]
fn names_in_other_scripts_match_in_either_spelling() {
    let name = KnownName { name: "www.xn--mnchen-3ya.de".into(), by: DomainSource::Sni };
    let event = event().with(|it| it.name = Some(name));
    for text in ["domain:*.münchen.de", "domain:*.MÜNCHEN.de.", "domain:*.xn--mnchen-3ya.de"] {
        assert!(holds(text, &event), "{text}");
    }
}

#[test]
fn quotes_keep_signs_from_meaning_anything() {
    let event = event();
    assert!(!holds("process:\"cur*\"", &event));
    assert!(holds("process:cur*", &event));
    assert_eq!(
        Filter::parse("\"a \\\"b\\\" \\\\\"").expect("a filter").root(),
        &Node::Term(Term::Anywhere("a \"b\" \\".into()))
    );
}

#[test]
fn errors_say_where_and_what() {
    for (text, column, message) in [
        ("domian:x", 1, "unknown key 'domian'; the nearest is 'domain'"),
        ("a https://x", 3, "unknown key 'https'; keys are type, class"),
        ("type:llm", 6, "no such value 'llm'; it is one of llm_api, code_host"),
        ("type:llm_ap", 6, "no such value 'llm_ap'; the nearest is 'llm_api'"),
        ("port:80,x", 9, "a port is a number from 0 to 65535"),
        ("port:65536", 6, "a port is a number from 0 to 65535"),
        ("sent:>1Q", 7, "a size is a number, with K, M or G for powers of 1024"),
        ("duration:>30", 11, "a duration is a number with ms, s, m, h or d"),
        ("ip:10.0.0/8", 4, "not an address"),
        ("ip:10.0.0.0/33", 4, "an address like this has 32 bits"),
        ("alert:maybe", 7, "it is true or false, not 'maybe'"),
        ("domain:a[b", 9, "'[' without ']'"),
        ("domain:", 1, "a value is missing"),
        ("port:80,", 9, "a value is missing"),
        ("a (b", 3, "'(' without ')'"),
        ("a b)", 4, "')' without '('"),
        ("()", 2, "nothing stands between the parentheses"),
        ("| a", 1, "nothing stands before '|'"),
        ("a | ", 3, "nothing stands after '|'"),
        ("a | | b", 3, "nothing stands after '|'"),
        ("a -", 3, "nothing follows that could be negated"),
        ("not", 1, "nothing follows that could be negated"),
        ("é \"x", 3, "a quote that is not closed"),
    ] {
        let error = Filter::parse(text).expect_err(text);
        assert_eq!(error.column(), column, "{text}: {error}");
        assert!(error.to_string().contains(message), "{text}: {error}");
    }
}

#[test]
fn size_and_depth_are_bounded() {
    assert!(Filter::parse(&"a ".repeat(TERMS_MAX)).is_ok());
    assert!(Filter::parse(&"a ".repeat(TERMS_MAX + 1)).is_err());
    assert!(Filter::parse(&format!("port:{}", vec!["1"; TERMS_MAX + 1].join(","))).is_err());
    let nested = |depth: usize| "(".repeat(depth) + "a" + &")".repeat(depth);
    assert!(Filter::parse(&nested(DEPTH_MAX)).is_ok());
    assert!(Filter::parse(&nested(100_000)).is_err());
    assert!(Filter::parse(&("-".repeat(100_000) + "a")).is_ok());
}
