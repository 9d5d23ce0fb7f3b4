use super::*;
use crate::event::{SocketState, SourceKind};
use crate::process::ProcessId;

const CLAUDE: ProcessId = ProcessId { pid: 42, start_time: 7 };
const CURL: ProcessId = ProcessId { pid: 43, start_time: 8 };
const STRANGER: ProcessId = ProcessId { pid: 50, start_time: 9 };
/// A process of root's, of no tree that is watched.
const ROOT: ProcessId = ProcessId { pid: 51, start_time: 9 };
const WEB: &str = "203.0.113.7:443";

fn at(ms: u64) -> Moment {
    Moment { boot_ns: ms * 1_000_000, unix_ms: i64::try_from(ms).expect("a short test") }
}

fn cookie(cookie: u64) -> SocketId {
    SocketId::Cookie { netns: 1, cookie }
}

fn ends(text: &str) -> SocketAddr {
    text.parse().expect("an address")
}

fn tuple(port: u16, remote: &str) -> Party {
    Party::Flow {
        protocol: Protocol::Tcp,
        local: SocketAddr::from(([192, 0, 2, 1], port)),
        remote: ends(remote),
    }
}

/// A book, and what it taught.
struct Reader {
    book: Book,
    opened: u64,
}

impl Reader {
    fn new() -> Self {
        Self { book: Book::new(Duration::from_secs(3)), opened: 0 }
    }

    fn opened(id: SocketId, owner: Option<ProcessId>, remote: &str, ms: u64) -> Opened {
        let SocketId::Cookie { netns, cookie } = id else { panic!("a cookie") };
        let port = 40_000 + u16::try_from(cookie).expect("few sockets");
        Opened {
            id,
            role: Role::Connect,
            protocol: Protocol::Tcp,
            local: Some(Address::Ip(SocketAddr::from(([192, 0, 2, 1], port)))),
            remote: Some(Address::Ip(ends(remote))),
            state: Some(SocketState::Established),
            owner,
            quality: OwnerQuality::Exact,
            preexisting: false,
            at: at(ms),
            netns,
            peer_pid: None,
            source: SourceKind::Proc,
        }
    }

    fn open(&mut self, opened: &Opened) -> Vec<Learned> {
        let root = opened.owner.filter(|owner| ![STRANGER, ROOT].contains(owner)).map(|_| CLAUDE);
        let mut out = Vec::new();
        self.book.passed(opened.at);
        let uid = opened.owner.map(|owner| match owner {
            STRANGER => 2000,
            ROOT => 0,
            _ => 1000,
        });
        self.book.opened(opened, Receiver { process: opened.owner, root, uid }, &mut out);
        out
    }

    /// A new connection; what it goes by, and otherwise what it may go by, and how that is known.
    fn connect(&mut self, owner: ProcessId, ms: u64, remote: &str) -> String {
        self.opened += 1;
        let opened = Self::opened(cookie(self.opened), Some(owner), remote, ms);
        shown(&self.open(&opened))
    }

    /// As a poll finds it.
    fn find(&mut self, owner: ProcessId, ms: u64, remote: &str) -> String {
        self.opened += 1;
        let opened = Self::opened(cookie(self.opened), Some(owner), remote, ms);
        shown(&self.open(&Opened { quality: OwnerQuality::Polled, ..opened }))
    }

    fn close(&mut self, id: SocketId, ms: u64) {
        let end = Closed { id, at: at(ms), bytes: None, error: None, established: None, duration: None };
        self.book.passed(end.at);
        self.book.closed(&end);
    }

    fn tell(&mut self, evidence: Evidence) -> Vec<Learned> {
        let mut out = Vec::new();
        self.book.evidence(evidence, &mut out);
        out
    }

    /// An answer to a DNS socket of `to`, or to nobody who is known.
    fn answer(&mut self, to: Option<ProcessId>, ms: u64, name: &str, addresses: &[&str], ttl: u64) -> String {
        let party = match to {
            Some(owner) => {
                self.opened += 1;
                let id = cookie(self.opened);
                let opened = Self::opened(id, Some(owner), "192.0.2.53:53", ms);
                self.open(&Opened { protocol: Protocol::Udp, ..opened });
                Party::Socket(id)
            }
            None => tuple(9, "192.0.2.53:53"),
        };
        self.answer_to(party, ms, name, addresses, ttl)
    }

    fn answer_to(&mut self, to: Party, ms: u64, name: &str, addresses: &[&str], ttl: u64) -> String {
        let address = |text: &&str| (text.parse().expect("an address"), Duration::from_secs(ttl));
        let addresses = addresses.iter().map(address).collect();
        shown(&self.tell(Evidence::Answer(Answer {
            at: at(ms),
            to,
            uid: None,
            asked: name.into(),
            addresses,
        })))
    }

    fn greet(&mut self, from: Party, ms: u64, name: &str, by: DomainSource) -> String {
        shown(&self.tell(Evidence::Greeting(Greeting {
            at: at(ms),
            from,
            name: name.into(),
            by,
            port: None,
        })))
    }
}

fn shown(learned: &[Learned]) -> String {
    let one = |learned: &Learned| {
        let KnownName { name, by } = &learned.name;
        let certainty = if learned.is_certain { "" } else { "?" };
        format!("{certainty}{name}/{}{}", by.name(), if learned.is_hearsay { "/hearsay" } else { "" })
    };
    learned.iter().map(one).collect::<Vec<_>>().join(" ")
}

const IP: &[&str] = &["203.0.113.7"];

#[test]
fn an_answer_names_the_connection_of_the_process_that_asked() {
    let mut reader = Reader::new();
    reader.answer(Some(CLAUDE), 10, "api.example", &["203.0.113.7", "2001:db8::7"], 60);
    assert_eq!(reader.connect(CLAUDE, 20, WEB), "api.example/dns");
    assert_eq!(reader.connect(CLAUDE, 21, "[2001:db8::7]:443"), "api.example/dns");
    assert_eq!(reader.connect(CLAUDE, 22, "203.0.113.8:443"), "");
}

#[test]
fn a_polled_connection_is_named_surely_once_it_is_known_who_asked() {
    let mut reader = Reader::new();
    let asker = Party::Flow {
        protocol: Protocol::Udp,
        local: ends("192.0.2.1:40008"),
        remote: ends("192.0.2.53:53"),
    };
    reader.answer_to(asker, 10, "api.example", IP, 60);
    assert_eq!(reader.find(CLAUDE, 20, WEB), "api.example/shared_dns/hearsay");
    let socket = Reader::opened(cookie(8), Some(CLAUDE), "192.0.2.53:53", 30);
    let polled = Opened { protocol: Protocol::Udp, quality: OwnerQuality::Polled, ..socket };
    assert_eq!(shown(&reader.open(&polled)), "api.example/shared_dns");
}

#[test]
fn kin_is_as_good_as_oneself_and_a_stranger_is_not() {
    let mut reader = Reader::new();
    reader.answer(Some(CLAUDE), 10, "api.example", IP, 60);
    assert_eq!(reader.connect(CURL, 20, WEB), "api.example/dns", "of the same tree");
    assert_eq!(reader.connect(STRANGER, 20, WEB), "api.example/shared_dns/hearsay");

    let mut reader = Reader::new();
    reader.answer(Some(STRANGER), 10, "api.example", IP, 60);
    assert_eq!(reader.connect(CLAUDE, 20, WEB), "api.example/shared_dns/hearsay");
    let mut reader = Reader::new();
    reader.answer(None, 10, "api.example", IP, 60);
    assert_eq!(reader.connect(CLAUDE, 20, WEB), "api.example/shared_dns/hearsay");
}

#[test]
fn ones_own_answer_goes_before_what_others_asked() {
    let mut reader = Reader::new();
    reader.answer(None, 5, "front.example", IP, 60);
    reader.answer(Some(CLAUDE), 10, "api.example", IP, 60);
    reader.answer(None, 15, "other.example", IP, 60);
    let expected = "api.example/dns ?front.example/shared_dns ?other.example/shared_dns";
    assert_eq!(reader.connect(CLAUDE, 20, WEB), expected);
}

#[test]
fn an_answer_after_the_connect_names_nothing() {
    let mut reader = Reader::new();
    assert_eq!(reader.connect(CLAUDE, 20, WEB), "");
    assert_eq!(reader.answer(Some(CLAUDE), 30, "api.example", IP, 60), "");
    assert_eq!(reader.connect(CLAUDE, 40, WEB), "api.example/dns");
}

#[test]
fn an_answer_that_is_delivered_late_still_counts() {
    let mut reader = Reader::new();
    assert_eq!(reader.connect(CLAUDE, 20, WEB), "");
    assert_eq!(reader.answer(None, 10, "api.example", IP, 60), "api.example/shared_dns/hearsay");
    assert_eq!(reader.answer(None, 11, "late.example", IP, 60), "", "it is named already");
}

#[test]
fn an_expired_answer_names_nothing() {
    let grace_ms = 10_000;
    for (connect_ms, expected) in [(10 + 5_000 + grace_ms, "api.example/dns"), (11 + 5_000 + grace_ms, "")] {
        let mut reader = Reader::new();
        reader.answer(Some(CLAUDE), 10, "api.example", IP, 5);
        assert_eq!(reader.connect(CLAUDE, connect_ms, WEB), expected, "{connect_ms}");
    }
    // Whatever the server says, not for ever.
    let mut reader = Reader::new();
    reader.answer(Some(CLAUDE), 10, "api.example", IP, u64::from(u32::MAX));
    assert_eq!(reader.connect(CLAUDE, 3_600_000 + 10_011, WEB), "");
}

#[test]
fn an_address_that_was_given_to_another_name_is_that_names() {
    let mut reader = Reader::new();
    reader.answer(Some(CLAUDE), 10, "old.example", IP, 1);
    assert_eq!(reader.connect(CLAUDE, 20, WEB), "old.example/dns");
    reader.answer(Some(CLAUDE), 20_000, "new.example", IP, 60);
    assert_eq!(reader.connect(CLAUDE, 20_010, WEB), "new.example/dns");
    assert_eq!(reader.connect(CLAUDE, 20_020, WEB), "new.example/dns");
}

#[test]
fn two_names_on_one_address_are_told_apart_while_lookups_and_connects_alternate() {
    let mut reader = Reader::new();
    for (round, name) in [(0, "a.example"), (1, "b.example"), (2, "a.example"), (3, "b.example")] {
        reader.answer(Some(CLAUDE), 100 * round + 10, name, IP, 60);
        let other = ["?b.example/dns", "?a.example/dns"][usize::from(name == "b.example")];
        let expected = if round == 0 { format!("{name}/dns") } else { format!("{name}/dns {other}") };
        let mut expected: Vec<_> = expected.split(' ').collect();
        let found = reader.connect(CLAUDE, 100 * round + 20, WEB);
        let mut found: Vec<_> = found.split(' ').collect();
        expected.sort_unstable();
        found.sort_unstable();
        assert_eq!(found, expected);
    }
}

#[test]
fn two_names_that_were_looked_up_together_are_ambiguous_and_kept() {
    let mut reader = Reader::new();
    reader.answer(Some(CLAUDE), 10, "a.example", IP, 60);
    reader.answer(Some(CLAUDE), 11, "b.example", IP, 60);
    let both = "?a.example/dns ?b.example/dns";
    assert_eq!(reader.connect(CLAUDE, 20, WEB), both);
    assert_eq!(reader.connect(CLAUDE, 21, WEB), both);
    reader.answer(Some(CLAUDE), 30, "b.example", IP, 60);
    assert_eq!(reader.connect(CLAUDE, 40, WEB), both, "a connection to a may be under way");
    // Another process of the tree has asked for one of them only.
    reader.answer(Some(CURL), 50, "b.example", IP, 60);
    assert_eq!(reader.connect(CURL, 60, WEB), "b.example/dns ?a.example/dns");
}

#[test]
fn a_late_answer_decides_between_two_names() {
    let mut reader = Reader::new();
    for (ms, name) in [(10, "a.example"), (20, "b.example")] {
        let expected = format!("{name}/shared_dns");
        assert!(reader.answer(Some(ROOT), ms, name, IP, 60).is_empty());
        assert!(reader.connect(CLAUDE, ms + 5, WEB).starts_with(&expected));
    }
    assert_eq!(reader.find(CLAUDE, 40, WEB), "?a.example/shared_dns ?b.example/shared_dns");
    let late = reader.answer(Some(ROOT), 30, "b.example", IP, 60);
    assert_eq!(late, "b.example/shared_dns ?a.example/shared_dns");
}

#[test]
fn what_nobody_known_looked_up_may_be_ones_own() {
    let mut reader = Reader::new();
    reader.answer(Some(ROOT), 10, "a.example", IP, 60);
    assert_eq!(reader.find(CLAUDE, 20, WEB), "a.example/shared_dns");
    // By a socket that no look caught.
    reader.answer(None, 30, "b.example", IP, 60);
    assert_eq!(reader.find(CLAUDE, 40, WEB), "b.example/shared_dns/hearsay ?a.example/shared_dns");
    // Whose connection the next one is, nothing tells.
    reader.answer(Some(ROOT), 50, "a.example", IP, 60);
    reader.answer(None, 51, "b.example", IP, 60);
    assert_eq!(reader.find(CLAUDE, 60, WEB), "?a.example/shared_dns ?b.example/shared_dns");
}

#[test]
fn without_a_new_lookup_two_names_are_ambiguous() {
    let mut reader = Reader::new();
    reader.answer(Some(CLAUDE), 10, "a.example", IP, 60);
    reader.connect(CLAUDE, 20, WEB);
    reader.answer(Some(CLAUDE), 30, "b.example", IP, 60);
    reader.connect(CLAUDE, 40, WEB);
    assert_eq!(reader.connect(CLAUDE, 50, WEB), "?a.example/dns ?b.example/dns");
}

#[test]
fn what_a_greeting_settled_is_not_ambiguous_any_more() {
    let mut reader = Reader::new();
    reader.answer(Some(CLAUDE), 10, "a.example", IP, 60);
    reader.answer(Some(CLAUDE), 11, "b.example", IP, 60);
    reader.connect(CLAUDE, 20, WEB);
    let id = cookie(reader.opened);
    assert_eq!(reader.greet(Party::Socket(id), 21, "a.example", DomainSource::Sni), "a.example/sni");
    assert_eq!(reader.connect(CLAUDE, 30, WEB), "b.example/dns ?a.example/dns");
}

#[test]
fn a_probe_over_udp_does_not_take_the_name_from_the_connection() {
    let mut reader = Reader::new();
    for (ms, name) in [(100, "a.example"), (200, "b.example")] {
        reader.answer(Some(CLAUDE), ms, name, IP, 60);
        // As getaddrinfo() does, to learn which address is nearer.
        reader.opened += 1;
        let opened = Reader::opened(cookie(reader.opened), Some(CLAUDE), WEB, ms + 1);
        reader.open(&Opened { protocol: Protocol::Udp, ..opened });
        let found = reader.connect(CLAUDE, ms + 2, WEB);
        assert!(found.split(' ').any(|found| found == format!("{name}/dns")), "{found}");
    }
}

#[test]
fn of_a_polled_connection_an_answer_is_not_known_to_be_older() {
    let mut reader = Reader::new();
    reader.answer(Some(CLAUDE), 500, "api.example", IP, 60);
    assert_eq!(reader.find(CLAUDE, 1_000, WEB), "api.example/shared_dns");
}

#[test]
fn more_names_on_one_address_than_are_kept_are_ambiguous() {
    let mut reader = Reader::new();
    for number in 0..40 {
        reader.answer(Some(CLAUDE), 10 + number, &format!("n{number}.example"), IP, 60);
    }
    reader.answer(Some(CURL), 100, "one.example", IP, 60);
    let named = reader.connect(CURL, 110, WEB);
    assert!(named.starts_with("?one.example/dns ?"), "{named}");
    assert!(reader.book.forgotten() > 0);
}

#[test]
fn a_greeting_belongs_to_the_socket_that_sent_it() {
    let mut reader = Reader::new();
    reader.connect(CLAUDE, 10, WEB);
    let first = cookie(reader.opened);
    reader.connect(CLAUDE, 10, WEB);
    let learned = reader.tell(Evidence::Greeting(Greeting {
        at: at(20),
        from: tuple(40_001, WEB),
        name: "api.example".into(),
        by: DomainSource::Sni,
        port: None,
    }));
    assert_eq!(learned.len(), 1);
    assert_eq!(learned[0].socket, first);
    assert_eq!(reader.greet(tuple(39_999, WEB), 20, "nat.example", DomainSource::Sni), "", "nobody's");
}

#[test]
fn a_greeting_before_the_poll_is_held_and_forgotten_in_time() {
    let mut reader = Reader::new();
    assert_eq!(reader.greet(tuple(40_001, WEB), 100, "api.example", DomainSource::Sni), "");
    assert_eq!(reader.find(CLAUDE, 1_000, WEB), "api.example/sni");
    assert_eq!(reader.greet(tuple(40_002, WEB), 1_100, "old.example", DomainSource::Sni), "");
    assert_eq!(
        reader.find(CLAUDE, 4_200, WEB),
        "",
        "more than three seconds later it is another connection's"
    );
}

#[test]
fn a_tuple_that_is_used_again_does_not_inherit_a_name() {
    let mut reader = Reader::new();
    let first = Reader::opened(cookie(1), Some(CLAUDE), WEB, 100);
    reader.open(&first);
    reader.close(cookie(1), 200);
    let second = Opened { id: cookie(2), at: at(300), ..first };
    reader.open(&second);
    let late = |reader: &mut Reader, ms, name: &str| {
        let greeting = Greeting {
            at: at(ms),
            from: tuple(40_001, WEB),
            name: name.into(),
            by: DomainSource::Sni,
            port: None,
        };
        reader
            .tell(Evidence::Greeting(greeting))
            .into_iter()
            .map(|learned| learned.socket)
            .collect::<Vec<_>>()
    };
    assert_eq!(late(&mut reader, 150, "first.example"), [cookie(1)], "told late");
    assert_eq!(late(&mut reader, 250, "nobody.example"), [], "between the two");
    assert_eq!(late(&mut reader, 350, "second.example"), [cookie(2)]);
}

#[test]
fn what_was_said_before_an_exact_beginning_was_said_by_another_socket() {
    let mut reader = Reader::new();
    reader.greet(tuple(40_001, WEB), 900, "old.example", DomainSource::Sni);
    assert_eq!(reader.connect(CLAUDE, 1_000, WEB), "");
    // A poll cannot know.
    reader.greet(tuple(40_002, WEB), 1_100, "own.example", DomainSource::Sni);
    assert_eq!(reader.find(CLAUDE, 2_000, WEB), "own.example/sni");
}

#[test]
fn one_tuple_in_two_namespaces_is_nobodys() {
    let mut reader = Reader::new();
    let first = Reader::opened(cookie(1), Some(CLAUDE), WEB, 10);
    reader.open(&first);
    reader.open(&Opened { id: SocketId::Cookie { netns: 2, cookie: 1 }, netns: 2, ..first });
    assert_eq!(reader.greet(tuple(40_001, WEB), 20, "api.example", DomainSource::Sni), "");
}

#[test]
fn a_local_end_may_become_known_later() {
    let mut reader = Reader::new();
    let complete = Reader::opened(cookie(1), Some(CLAUDE), WEB, 10);
    reader.open(&Opened { local: None, ..complete.clone() });
    reader.greet(tuple(40_001, WEB), 20, "api.example", DomainSource::Sni);
    assert_eq!(shown(&reader.open(&complete)), "api.example/sni");
}

/// What a packet shows of an answer to the port 40,005.
const ASKED_FROM: Party = Party::Flow {
    protocol: Protocol::Udp,
    local: SocketAddr::new(IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1)), 40_005),
    remote: SocketAddr::new(IpAddr::V4(Ipv4Addr::new(192, 0, 2, 53)), 53),
};

/// A DNS socket whose local end is not known yet.
fn asker(owner: ProcessId, ms: u64) -> Opened {
    let opened = Reader::opened(cookie(5), Some(owner), "192.0.2.53:53", ms);
    Opened { protocol: Protocol::Udp, local: None, ..opened }
}

fn bound_to(reader: &mut Reader, local: &str) -> String {
    let mut out = Vec::new();
    reader.book.local(cookie(5), &Address::Ip(ends(local)), &mut out);
    shown(&out)
}

#[test]
fn an_answer_is_its_askers_once_the_askers_local_end_is_known() {
    let mut reader = Reader::new();
    reader.open(&asker(CLAUDE, 10));
    reader.answer_to(ASKED_FROM, 20, "api.example", IP, 60);
    assert_eq!(bound_to(&mut reader, "192.0.2.1:40005"), "");
    assert_eq!(reader.connect(CLAUDE, 30, WEB), "api.example/dns");
}

#[test]
fn a_connection_that_was_named_meanwhile_is_named_better() {
    let mut reader = Reader::new();
    reader.open(&asker(CLAUDE, 10));
    reader.answer_to(ASKED_FROM, 20, "api.example", IP, 60);
    assert_eq!(
        reader.connect(CLAUDE, 30, WEB),
        "api.example/shared_dns/hearsay",
        "whose it is is not known yet"
    );
    assert_eq!(bound_to(&mut reader, "192.0.2.1:40005"), "api.example/dns");
    assert_eq!(bound_to(&mut reader, "192.0.2.1:40006"), "", "once");
}

#[test]
fn a_strangers_answer_stays_shared_when_it_is_known_whose_it_is() {
    let mut reader = Reader::new();
    reader.open(&asker(STRANGER, 10));
    reader.answer_to(ASKED_FROM, 20, "api.example", IP, 60);
    reader.connect(CLAUDE, 30, WEB);
    assert_eq!(bound_to(&mut reader, "192.0.2.1:40005"), "");
    assert_eq!(reader.connect(CLAUDE, 40, WEB), "api.example/shared_dns/hearsay");
}

#[test]
fn a_datagram_socket_need_not_be_bound_to_the_address_of_its_packets() {
    for (local, expected) in [
        ("0.0.0.0:40005", "api.example/dns"),
        ("[::]:40005", "api.example/dns"),
        ("192.0.2.1:40005", "api.example/dns"),
        ("192.0.2.9:40005", "api.example/shared_dns/hearsay"),
        ("0.0.0.0:40006", "api.example/shared_dns/hearsay"),
    ] {
        for is_first in [true, false] {
            let mut reader = Reader::new();
            let asker = Opened { local: Some(Address::Ip(ends(local))), ..asker(CLAUDE, 10) };
            if is_first {
                reader.open(&asker);
            }
            reader.answer_to(ASKED_FROM, 20, "api.example", IP, 60);
            reader.open(&asker);
            assert_eq!(reader.connect(CLAUDE, 30, WEB), expected, "{local} {is_first}");
        }
    }
}

#[test]
fn a_datagram_sockets_flows_share_its_cookie() {
    let mut reader = Reader::new();
    let flow = |remote: &str| SocketId::Flow { netns: 1, cookie: 5, remote: ends(remote) };
    let base = Reader::opened(cookie(1), Some(CLAUDE), "192.0.2.53:53", 10);
    let dns = Opened { id: flow("192.0.2.53:53"), protocol: Protocol::Udp, ..base };
    reader.open(&dns);
    let whole = Party::Socket(cookie(5));
    reader.answer_to(whole, 20, "api.example", IP, 60);
    assert_eq!(reader.connect(CLAUDE, 30, WEB), "api.example/dns", "by the cookie alone");
    assert_eq!(
        reader.greet(whole, 30, "quic.example", DomainSource::Quic),
        "quic.example/quic",
        "its only flow"
    );
    reader.open(&Opened { id: flow(WEB), remote: Some(Address::Ip(ends(WEB))), ..dns });
    assert_eq!(reader.greet(whole, 40, "quic.example", DomainSource::Quic), "", "one of two flows");
    let one = Party::Socket(flow(WEB));
    assert_eq!(reader.greet(one, 40, "quic.example", DomainSource::Quic), "quic.example/quic");
}

#[test]
fn what_an_older_connection_said_is_taken_from_a_file() {
    let mut reader = Reader::new();
    reader.book.passed(at(100_000));
    reader.greet(tuple(40_001, WEB), 5_000, "api.example", DomainSource::Sni);
    let opened = Reader::opened(cookie(1), Some(CLAUDE), WEB, 100_100);
    let found = reader.open(&Opened { preexisting: true, quality: OwnerQuality::Polled, ..opened });
    assert_eq!(shown(&found), "api.example/sni");
}

#[test]
fn nothing_grows_without_bounds() {
    let mut reader = Reader::new();
    for number in 0..40_000_u32 {
        let ip = IpAddr::from(number.to_be_bytes());
        let ms = u64::from(number / 100);
        let to = Party::Flow {
            protocol: Protocol::Udp,
            local: SocketAddr::new(ip, 1),
            remote: SocketAddr::new(ip, 53),
        };
        let answer = Answer {
            at: at(ms),
            to,
            uid: None,
            asked: format!("n{number}.example").into(),
            addresses: vec![(ip, Duration::from_mins(1))],
        };
        reader.tell(Evidence::Answer(answer));
        let id = SocketId::Cookie { netns: 1, cookie: u64::from(number) };
        let mut opened = Reader::opened(cookie(1), Some(CLAUDE), WEB, ms);
        opened.id = id;
        opened.remote = Some(Address::Ip(SocketAddr::new(ip, 443)));
        reader.open(&opened);
        reader.close(id, ms);
    }
    assert!(reader.book.sockets.len() <= ENDED_MAX + 1, "{}", reader.book.sockets.len());
    assert!(reader.book.flows.len() <= ENDED_MAX + 1);
    assert!(reader.book.nameless.len() <= NAMELESS_MAX);
    assert!(reader.book.forgotten() > 0);
}
