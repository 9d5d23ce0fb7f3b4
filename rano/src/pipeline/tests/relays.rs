//! A client asks a proxy; the proxy connects. What is told of it, and what is counted.

use super::*;
use crate::names::{Evidence, Greeting, Party};

const PROXY: &str = "127.0.0.1:3128";
const FAR: &str = "203.0.113.7:443";
const CURL: ProcessId = ProcessId { pid: 50, start_time: 20 };
const OTHER_CURL: ProcessId = ProcessId { pid: 51, start_time: 21 };
const SOCAT: ProcessId = ProcessId { pid: 52, start_time: 8 };

/// A pipeline that joins packets with sockets, in which claude has children.
struct Desk {
    pipeline: Tracker,
    kept: Arc<Mutex<Vec<Event>>>,
    next: u64,
}

impl Desk {
    fn new() -> Self {
        let kept = Arc::default();
        let mut pipeline = pipeline(EVERYTHING, Targets::default(), Box::new(Kept(Arc::clone(&kept))));
        pipeline.rooms.naming = NamingRoom::new(Names::recorded(Duration::from_secs(1)));
        for (id, comm) in [(CURL, "curl"), (OTHER_CURL, "curl"), (SOCAT, "socat")] {
            let image = Image { comm: comm.into(), argv: vec![comm.into()], ..Image::default() };
            pipeline.process(ProcessChange::found(id, CLAUDE.pid, image, at(0)));
        }
        Self { pipeline, kept, next: 1 }
    }

    fn connect(&mut self, by: ProcessId, to: &str, ms: u64) -> SocketId {
        let id = SocketId::Cookie { netns: 1, cookie: self.next };
        self.next += 1;
        let change = Opened {
            id,
            remote: Some(Address::ip(to.parse().expect("an address"))),
            quality: OwnerQuality::Exact,
            at: at(ms),
            ..opened(Role::Connect, SocketState::Established, Some(by))
        };
        self.pipeline.socket(SocketChange::Opened(change));
        id
    }

    fn greet(&mut self, from: SocketId, by: DomainSource, name: &str, port: Option<u16>, ms: u64) {
        let from = Party::Socket(from);
        self.pipeline.evidence(Evidence::Greeting(Greeting {
            at: at(ms),
            from,
            name: name.into(),
            by,
            port,
        }));
    }

    /// A request through the proxy.
    fn ask(&mut self, by: ProcessId, proxy: &str, ms: u64) -> SocketId {
        let id = self.connect(by, proxy, ms);
        self.greet(id, DomainSource::Proxy, "api.anthropic.com", Some(443), ms + 1);
        id
    }

    fn relay_for(&mut self, id: SocketId) -> Option<u32> {
        self.pipeline.live.find_mut(id).expect("it is open").connection.relay_for
    }

    fn api_connects(&self) -> u64 {
        let names = self.pipeline.rooms.totals.domains.top(9);
        names.into_iter().find(|(name, _)| &**name == "api.anthropic.com").map_or(0, |(_, count)| count)
    }
}

#[test]
fn a_request_goes_by_the_name_that_was_asked_for() {
    let mut desk = Desk::new();
    let id = desk.ask(CURL, PROXY, 100);
    let connection = Arc::clone(&desk.pipeline.live.find_mut(id).expect("it is open").connection);
    assert_eq!(connection.via(), Some(PROXY.parse().expect("an address")));
    assert_eq!((connection.domain_port, connection.class.name()), (Some(443), "llm_api"));
    assert_eq!(connection.remote, Some(Address::ip(PROXY.parse().expect("an address"))));
    let numbered = desk.connect(CURL, PROXY, 200);
    desk.greet(numbered, DomainSource::Proxy, "10.0.0.1", Some(443), 201);
    let connection = &desk.pipeline.live.find_mut(numbered).expect("it is open").connection;
    assert_eq!(connection.class.name(), "private");
}

#[test]
fn the_own_connection_of_a_proxy_is_linked_and_counts_once() {
    let mut desk = Desk::new();
    let leaf = desk.ask(CURL, PROXY, 100);
    let onward = desk.connect(CLAUDE, FAR, 110);
    assert_eq!((desk.relay_for(onward), desk.pipeline.rooms.totals.domains.len()), (None, 1));
    desk.greet(onward, DomainSource::Sni, "api.anthropic.com", None, 115);
    assert_eq!((desk.relay_for(leaf), desk.relay_for(onward)), (None, Some(CURL.pid)));
    assert_eq!(desk.api_connects(), 1);
    let totals = &desk.pipeline.rooms.totals;
    let class = totals.classes.iter().find(|(class, _)| class.name() == "llm_api");
    assert_eq!((totals.connects, class.map(|(_, totals)| totals.connects)), (2, Some(1)));
    let tallies: Vec<u64> = totals.endpoints.all().map(|tally| tally.connects).collect();
    assert_eq!(tallies, [1]);
    // Another one to the same place is the proxy's own business.
    let own = desk.connect(CLAUDE, FAR, 120);
    desk.greet(own, DomainSource::Sni, "api.anthropic.com", None, 121);
    assert_eq!((desk.relay_for(own), desk.api_connects()), (None, 2));
    assert!(taken(&desk.kept).iter().all(|event| event.kind == Connect));
}

#[test]
fn a_chain_of_relays_is_one_request() {
    let mut desk = Desk::new();
    let leaf = desk.ask(CURL, PROXY, 100);
    let hop = desk.ask(SOCAT, "127.0.0.1:4000", 105);
    let onward = desk.connect(CLAUDE, FAR, 110);
    desk.greet(onward, DomainSource::Sni, "api.anthropic.com", None, 115);
    let linked = [leaf, hop, onward].map(|id| desk.relay_for(id));
    assert_eq!(linked, [None, Some(CURL.pid), Some(CURL.pid)]);
    assert_eq!(desk.api_connects(), 1);
}

#[test]
fn an_older_client_of_another_agent_is_no_relay() {
    const GEMINI: ProcessId = ProcessId { pid: 60, start_time: 5 };
    let mut desk = Desk::new();
    let image = Image { comm: "gemini".into(), argv: vec!["gemini".into()], ..Image::default() };
    desk.pipeline.process(ProcessChange::found(GEMINI, 1, image, at(0)));
    desk.ask(CURL, PROXY, 100);
    let other = desk.ask(GEMINI, "127.0.0.1:4000", 110);
    let direct = desk.connect(GEMINI, FAR, 120);
    desk.greet(direct, DomainSource::Sni, "api.anthropic.com", None, 121);
    assert_eq!([other, direct].map(|id| desk.relay_for(id)), [None; 2]);
    // It would be if it served.
    let accepted = Opened {
        id: SocketId::Cookie { netns: 1, cookie: 999 },
        ..opened(Role::Accept, SocketState::Established, Some(GEMINI))
    };
    desk.pipeline.socket(SocketChange::Opened(accepted));
    let relay = desk.ask(GEMINI, "127.0.0.1:4001", 130);
    assert_eq!(desk.relay_for(relay), Some(CURL.pid));
}

#[test]
fn what_only_looks_alike_is_not_linked() {
    let mut desk = Desk::new();
    desk.ask(CURL, PROXY, 100);
    let sibling = desk.ask(OTHER_CURL, PROXY, 101);
    let younger = desk.connect(OTHER_CURL, FAR, 110);
    desk.greet(younger, DomainSource::Sni, "api.anthropic.com", None, 111);
    let other_port = desk.connect(CLAUDE, "203.0.113.7:8443", 112);
    desk.greet(other_port, DomainSource::Sni, "api.anthropic.com", None, 113);
    let other_name = desk.connect(CLAUDE, FAR, 114);
    desk.greet(other_name, DomainSource::Sni, "example.com", None, 115);
    let late = desk.connect(CLAUDE, FAR, 2200);
    desk.greet(late, DomainSource::Sni, "api.anthropic.com", None, 2201);
    let linked = [sibling, younger, other_port, other_name, late].map(|id| desk.relay_for(id));
    assert_eq!(linked, [None; 5]);
}

#[test]
fn the_oldest_of_too_many_requests_makes_room_and_is_counted() {
    let mut desk = Desk::new();
    for _ in 0..1030 {
        desk.ask(CURL, PROXY, 100);
    }
    assert_eq!(desk.pipeline.rooms.relays.pushed_out, 6);
}
