//! What is read beside a busy writer, and what is left when it is killed. More of both on demand:
//! `RANO_TEST_SECONDS=30`, `RANO_TEST_KILLS=100`.

use std::collections::BTreeMap;

use super::processes::{Actor, file, tell, wait_for_parent};
use super::*;
use crate::store::query::export::{Cell, FIELDS, Field, Filter, RowWriter};
use crate::store::query::report::{Report, Selection, Sessions};
use crate::store::read::History;

const EVENTS_A_SECOND: u64 = 50_000;

/// Events that are written between two looks at the clock.
const STEP: u64 = 500;

const PROVIDERS: [&str; 3] = ["anthropic", "openai", "unknown"];

fn asked_for(variable: &str, usual: u64) -> u64 {
    std::env::var(variable).map_or(usual, |text| text.parse().expect("a number"))
}

/// Every third connection fails, every fifth gets its name late, a hundred of them make four seconds.
fn write_some(store: &Store, ids: std::ops::Range<u64>) {
    for id in ids {
        let provider = PROVIDERS[usize::try_from(id % 3).expect("small")];
        let mut process = process();
        process.key = id % 40;
        process.provider = provider.into();
        let unix_ms = NOON + i64::try_from(id).expect("few") * 40;
        let name = format!("h{}.example", id % 300);
        let connect = event(EventKind::Connect, id).with(|it| {
            it.provider = provider.into();
            it.process = Some(Arc::new(process));
            it.remote = Some(ip(&format!("203.0.113.{}:443", id % 200)));
            it.name = if id % 5 == 0 { None } else { Some(named(&name, DomainSource::Dns)) };
        });
        let connect = Event { at: Moment { boot_ns: 0, unix_ms }, ..connect };
        let bytes = Some(Bytes { sent: id % 1000, received: id % 7000 });
        if id % 3 == 0 {
            store.push(&Event { kind: EventKind::Fail, ..connect }.with(|it| it.bytes = bytes).into());
        } else {
            store.push(&connect.clone().into());
            store.push(&Event { kind: EventKind::Close, ..connect }.with(|it| it.bytes = bytes).into());
        }
        if id % 5 == 0 {
            store.push(&renamed(id, Some(named(&name, DomainSource::Dns)), Class::Unknown));
        }
    }
}

#[test]
#[ignore = "a part that other tests start as a process"]
fn writes_at_a_rate() {
    let options =
        StoreOptions { batch_size: 200, flush_interval: Duration::from_millis(50), ..patient(&file()) };
    let store = Store::start(&options, &session()).expect("a database");
    tell(0);
    wait_for_parent();
    let begin = Instant::now();
    let seconds = asked_for("RANO_TEST_SECONDS", 2);
    let mut id = 0;
    let mut events = 0;
    while events < seconds * EVENTS_A_SECOND {
        let due = begin + Duration::from_secs(1) * u32::try_from(events / STEP).expect("few") / 100;
        thread::sleep(due.saturating_duration_since(Instant::now()));
        write_some(&store, id + 1..id + 301);
        id += 300;
        events += 500;
    }
    let took = begin.elapsed();
    assert_stored(&store.finish(Counters::default(), NOON), events);
    println!("{events} events in {took:?}");
}

/// Sums of rows one by one.
#[derive(Default)]
struct Sums {
    row: (String, String, Option<String>, u64, u64),
    providers: BTreeMap<String, [u64; 5]>,
    domains: BTreeMap<String, [u64; 5]>,
}

impl RowWriter for Sums {
    fn cell(&mut self, field: &Field, cell: Cell<'_>) -> std::io::Result<()> {
        let number = || if let Cell::Integer(number) = cell { u64::try_from(number).unwrap_or(0) } else { 0 };
        let text = || if let Cell::Text(text) = cell { Some(text.to_owned()) } else { None };
        match field.name {
            "event" => self.row.0 = text().unwrap_or_default(),
            "provider" => self.row.1 = text().unwrap_or_default(),
            "domain" => self.row.2 = text(),
            "bytes_sent" => self.row.3 = number(),
            "bytes_recv" => self.row.4 = number(),
            _ => {}
        }
        Ok(())
    }

    fn end_row(&mut self) -> std::io::Result<()> {
        let (event, provider, domain, sent, received) = std::mem::take(&mut self.row);
        let ended = u64::from(event != "connect");
        let [connect, close, fail] = ["connect", "close", "fail"].map(|kind| u64::from(event == kind));
        let sums = [connect, close, fail, ended * sent, ended * received];
        let add = |to: &mut [u64; 5]| to.iter_mut().zip(sums).for_each(|(sum, more)| *sum += more);
        add(self.providers.entry(provider).or_default());
        if let Some(domain) = domain {
            add(self.domains.entry(domain).or_default());
        }
        Ok(())
    }
}

/// The report says what the events say, in one snapshot. Returns how many they are.
fn check_report(path: &Path, since: Option<i64>, until: Option<i64>) -> u64 {
    let history = History::open(path).expect("a database");
    let selection = Selection { sessions: Sessions::All, since, until, filter: None };
    let report: Report = history.report(&selection, 100_000).expect("an answer").expect("a session");
    let fields: Vec<&Field> = FIELDS.iter().collect();
    let mut sums = Sums::default();
    let filter = Filter { since, until, ..Filter::default() };
    let count = history.export(&filter, &fields, &mut sums, |_| ()).expect("an export");
    let of = |counts: &crate::store::query::report::Counts| {
        [counts.connects, counts.closes, counts.fails, counts.bytes_sent, counts.bytes_received]
    };
    let providers = report.providers.iter().map(|(name, counts)| (name.clone(), of(counts)));
    assert_eq!(providers.collect::<BTreeMap<_, _>>(), sums.providers);
    let domains = report.domains.rows.iter().map(|row| (row.domain.clone(), of(&row.counts)));
    assert_eq!(domains.collect::<BTreeMap<_, _>>(), sums.domains);
    assert_eq!(report.totals.events(), count);
    count
}

#[test]
fn a_report_beside_a_busy_writer_says_what_the_events_say() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("observer.sqlite");
    let mut writer = Actor::start("beside::writes_at_a_rate", &path);
    writer.number();
    writer.go_on();
    let mut counts = Vec::new();
    let mut longest = Duration::ZERO;
    while !writer.has_ended() {
        let begin = Instant::now();
        counts.push(check_report(&path, None, None));
        let hour = 3_600_000;
        check_report(&path, Some(NOON + hour / 7), Some(NOON + hour + hour / 3));
        longest = longest.max(begin.elapsed());
    }
    let all = check_report(&path, None, None);
    assert_eq!(all, EVENTS_A_SECOND * asked_for("RANO_TEST_SECONDS", 2));
    println!("{} reports beside {all} events, the longest with its check {longest:?}", counts.len());
    assert!(counts.is_sorted(), "{counts:?}");
    // At least one of them was taken half way.
    assert!(counts.iter().any(|count| (1..all).contains(count)), "{counts:?}");
    writer.end();
}

#[test]
#[ignore = "a part that other tests start as a process"]
fn writes_and_tells() {
    let path = file();
    let run_id = format!("{}-{NOON}", std::process::id());
    let options = StoreOptions {
        batch_size: 100,
        flush_interval: Duration::from_millis(5),
        retain: Some(Duration::from_hours(24)),
        ..patient(&path)
    };
    let store = Store::start(&options, &Session { run_id: run_id.clone(), ..session() }).expect("a database");
    let own = format!("SELECT connects + closes + fails FROM sessions WHERE run_id = '{run_id}'");
    for step in 0.. {
        write_some(&store, step * 60 + 1..step * 60 + 61);
        // Written by another connection, and so committed.
        if step % 16 == 0 {
            tell(u64::try_from(one::<i64>(&path, &own)).expect("a count"));
        }
    }
}

/// A history with an old session that every writer goes on removing.
fn with_an_old_session(path: &Path) {
    let old = Session { run_id: "old".to_owned(), started_at: NOON - 100_000_000_000, ..session() };
    let store = Store::start(&patient(path), &old).expect("a database");
    write_some(&store, 1..20_001);
    drop(store);
    let old = "UPDATE event SET ts = ts - 100000000000; UPDATE activity SET hour = hour - 27777, \
               first_seen = first_seen - 100000000000, last_seen = last_seen - 100000000000";
    Connection::open(path).and_then(|connection| connection.execute_batch(old)).expect("an older session");
}

#[test]
fn a_writer_killed_at_any_moment_leaves_a_sound_file_and_what_was_committed() {
    let directory = tempfile::tempdir().expect("a directory");
    // xorshift64, so that each run kills after the same times.
    let mut random: u64 = 0x9e37_79b9_7f4a_7c15;
    let kills = asked_for("RANO_TEST_KILLS", 8);
    let (mut most, mut in_pruning) = (0, 0);
    let mut path = directory.path().join("0.sqlite");
    for round in 0..kills {
        if round % 10 == 0 {
            path = directory.path().join(format!("{round}.sqlite"));
            with_an_old_session(&path);
        }
        let mut writer = Actor::start("beside::writes_and_tells", &path);
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        thread::sleep(Duration::from_millis(random % 1000));
        let (pid, told) = writer.kill();
        assert_intact(&path);
        let written: i64 = one(&path, &format!("SELECT count(*) FROM events WHERE run_id = '{pid}-{NOON}'"));
        assert!(written >= i64::try_from(told).expect("few"), "{written} of {told} that were committed");
        most = most.max(written);
        let counted = "SELECT ifnull(sum(connects + closes + fails), 0) FROM sessions";
        assert_eq!(one::<i64>(&path, "SELECT count(*) FROM events"), one::<i64>(&path, counted));
        assert_eq!(one::<i64>(&path, "SELECT count(*) FROM sessions WHERE clean_exit"), 0);
        in_pruning += one::<i64>(&path, "SELECT count(*) FROM pruning");
        if one::<i64>(&path, "SELECT count(*) FROM sessions") > 0 {
            check_report(&path, None, None);
        }
        if round % 10 == 9 || round + 1 == kills {
            let store = Store::start(&patient(&path), &session()).expect("a database");
            wait_for("the end of the pruning", || one::<i64>(&path, "SELECT count(*) FROM pruning") == 0);
            assert_stored(&store.finish(Counters::default(), NOON), 0);
            assert_intact(&path);
            assert_sums(&path);
        }
    }
    println!(
        "{kills} kills, {in_pruning} of them while an old session was removed, at most {most} events before one"
    );
}
