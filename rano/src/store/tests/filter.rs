//! A filter gives the same events from memory and from the database.

use std::time::Duration;

use tempfile::TempDir;

use super::*;
use crate::filter::{Facts, Filter};
use crate::store::History;
use crate::store::query::export::{self, Cell, FIELDS, Field, RowWriter};
use crate::store::query::report::{Counts, Selection, Sessions};

/// Numbers that follow from a seed, so that a failure can be had again.
struct Dice(u64);

impl Dice {
    /// Below `bound` (splitmix64, <https://prng.di.unimi.it/splitmix64.c>).
    fn below(&mut self, bound: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        usize::try_from((z ^ (z >> 31)) % bound as u64).expect("it is below a usize")
    }

    fn pick<T: Clone>(&mut self, of: &[T]) -> T {
        of[self.below(of.len())].clone()
    }

    fn maybe<T: Clone>(&mut self, of: &[T]) -> Option<T> {
        (self.below(4) > 0).then(|| self.pick(of))
    }
}

const NAMES: [&str; 5] =
    ["api.openai.com", "github.com", "xn--mnchen-3ya.de", "a[b].example", "x-y_z.example.com"];
const COMMANDS: [(&str, &str, &str); 4] = [
    ("claude", "/usr/bin/claude", "claude --verbose"),
    ("Curl", "/opt/Tools/CURL", "curl -s https://GITHUB.com"),
    ("node", "", "node /x/cli.js"),
    ("ééÉ", "/ü/É*", "ls [a-z]"),
];

fn any_event(dice: &mut Dice, number: u64) -> Event {
    let (comm, exe, cmdline) = dice.pick(&COMMANDS);
    let provider = dice.pick(&["anthropic", "openai", "unknown"]);
    let process = Process {
        key: number,
        id: ProcessId { pid: 1000 + u32::try_from(dice.below(4)).expect("small"), start_time: number },
        comm: comm.to_owned(),
        exe: exe.to_owned(),
        cmdline: cmdline.to_owned(),
        provider: provider.into(),
        ..process()
    };
    let process = (dice.below(5) > 0).then(|| Arc::new(process));
    let remotes = [
        "10.1.2.3:443",
        "192.0.2.7:80",
        "[2001:db8::7]:443",
        "[::1]:8080",
        "255.255.255.255:65535",
        "[fe80::1%3]:443",
    ];
    let (protocol, remote) = match dice.below(8) {
        0 => (Protocol::Unix, Some(Address::Path(dice.pick(&["/run/x.sock", "@abstract", ""]).into()))),
        1 => (Protocol::Tcp, None),
        sort => {
            let protocol = if sort % 2 == 0 { Protocol::Udp } else { Protocol::Tcp };
            (protocol, Some(Address::ip(dice.pick(&remotes).parse().expect("an address"))))
        }
    };
    let name = dice.maybe(&NAMES);
    let name = name.map(|name| KnownName { name: name.into(), by: dice.pick(&DomainSource::ALL) });
    let sizes = [0, 1, 1023, 1024, 1 << 20, 3 << 30];
    let kind = dice.pick(&EventKind::ALL);
    event(kind, number).with(|it| {
        it.provider =
            process.as_ref().map_or_else(|| "unknown".into(), |process| Arc::clone(&process.provider));
        it.process = process;
        it.protocol = protocol;
        it.remote = remote;
        it.name = name;
        it.class = dice.pick(&Class::ALL);
        let duration = dice.maybe(&[0, 1, 999, 30_000, 30_001]).map(Duration::from_millis);
        it.ended = Some(End { duration, ..ended() });
        let bytes = dice.maybe(&sizes).map(|sent| Bytes { sent, received: dice.pick(&sizes) });
        // A first event has none.
        it.bytes = bytes.filter(|_| matches!(kind, EventKind::Close | EventKind::Fail));
        it.state = dice.maybe(&SocketState::ALL);
        it.source = dice.pick(&SourceKind::ALL);
        it.owner_quality = dice.pick(&OwnerQuality::ALL);
        it.alert = dice.below(2) == 0;
    })
}

fn any_term(dice: &mut Dice) -> String {
    let terms = [
        "type:llm_api",
        "type:github,unknown",
        "class:*",
        "protocol:tcp",
        "proto:u*",
        "state:closed|established",
        "event:connect,close",
        "event:fail",
        "source:ebpf",
        "source:proc",
        "quality:exact|polled",
        "domain:*.openai.com",
        "domain:github.com.",
        "domain:MÜNCHEN.de",
        "domain:*[x]*",
        "domain:\"a[b].example\"",
        "domain:*ünch*",
        "domain:[a-ü]ünche?.DE.",
        "domain:\"MÜNCHEN.de.\"",
        "domain:*",
        "domain:?[!i]*",
        "process:claude",
        "process:curl",
        "process:C?RL|node",
        "process:/opt/*",
        "process:unknown",
        "process:É*",
        "process:\"É*\"",
        "process:tools",
        "provider:anthropic",
        "provider:un*",
        "pid:1000",
        "pid:>1001,1000",
        "port:443",
        "port:<=443",
        "port:=0",
        "sent:>1K",
        "sent:0",
        "recv:>=1M|<1",
        "duration:<1s",
        "duration:>30s",
        "duration:>=30s",
        "ip:10.0.0.0/8",
        "ip:0.0.0.0/0",
        "ip:::/0",
        "ip:2001:db8::/32,::1",
        "ip:fe80::1",
        "fe80::1%3",
        "ip:255.255.255.255",
        "alert:true",
        "alert:no",
        "github",
        "GITHUB.com",
        "10.1.2.3:443",
        "]:443",
        "x.sock",
        "\"ls [\"",
        "é",
        "curl,claude",
        "/run|@",
    ];
    dice.pick(&terms).to_owned()
}

fn any_filter(dice: &mut Dice, depth: usize) -> String {
    let parts: Vec<String> = (0..=dice.below(3))
        .map(|_| {
            let sign = dice.pick(&["", "", "-", "not "]);
            let part = if depth > 0 && dice.below(3) == 0 {
                format!("({})", any_filter(dice, depth - 1))
            } else {
                any_term(dice)
            };
            format!("{sign}{part}")
        })
        .collect();
    parts.join(dice.pick(&[" ", " | "]))
}

fn sums<'a>(events: impl Iterator<Item = &'a Event>) -> Counts {
    let mut counts = Counts::default();
    for event in events {
        let count = match event.kind {
            EventKind::Connect => &mut counts.connects,
            EventKind::Close => &mut counts.closes,
            EventKind::Fail => &mut counts.fails,
            EventKind::Accept => &mut counts.accepts,
            EventKind::Listen => &mut counts.listens,
        };
        *count += 1;
        if let (EventKind::Close | EventKind::Fail, Some(bytes)) = (event.kind, event.connection.bytes) {
            counts.bytes_sent += bytes.sent;
            counts.bytes_received += bytes.received;
        }
    }
    counts
}

/// From the sums where they tell, else from events.
fn report(path: &Path, filter: &str) -> Counts {
    let filter = Some(Filter::parse(filter).expect("a filter"));
    let selection = Selection { sessions: Sessions::Latest, since: None, until: None, filter };
    let history = History::open(path).expect("a history");
    history.report(&selection, 10).expect("an answer").expect("a session").totals
}

#[derive(Default)]
struct Ids(Vec<i64>);

impl RowWriter for Ids {
    fn cell(&mut self, _field: &Field, cell: Cell<'_>) -> std::io::Result<()> {
        if let Cell::Integer(id) = cell {
            self.0.push(id);
        }
        Ok(())
    }
    fn end_row(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[test]
fn any_filter_gives_the_same_events_from_memory_and_from_sql() {
    let home = TempDir::new().expect("a directory");
    let path = home.path().join("history.sqlite");
    let mut dice = Dice(1);
    let events: Vec<Event> = (1..=300).map(|number| any_event(&mut dice, number)).collect();
    let store = Store::start(&patient(&path), &session()).expect("a store");
    for event in &events {
        store.push(&event.clone().into());
    }
    let finished = store.finish(Counters::default(), NOON);
    assert_eq!((finished.stored, finished.error), (300, None));
    let history = History::open(&path).expect("a history");
    let id = FIELDS.iter().find(|field| field.name == "id").expect("a field");
    let mut matched = 0;
    for round in 0..2000 {
        let text = any_filter(&mut dice, 2);
        let filter = Filter::parse(&text).unwrap_or_else(|error| panic!("{text}: {error}"));
        let in_memory: Vec<i64> = (1..)
            .zip(&events)
            .filter(|(_, event)| filter.matches(&Facts::from(*event)))
            .map(|(id, _)| id)
            .collect();
        let mut stored = Ids::default();
        let wanted = export::Filter { matching: Some(filter), ..export::Filter::default() };
        history.export(&wanted, &[id], &mut stored, |_| ()).unwrap_or_else(|error| panic!("{text}: {error}"));
        assert_eq!(stored.0, in_memory, "round {round}: {text}");
        matched += in_memory.len();
        let chosen = in_memory.iter().map(|id| &events[usize::try_from(id - 1).expect("an index")]);
        assert_eq!(report(&path, &text), sums(chosen), "round {round}: {text}");
    }
    // Neither all nor nothing.
    assert!((60_000..540_000).contains(&matched), "{matched}");
}
