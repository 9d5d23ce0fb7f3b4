//! What is older than it is to be kept goes, and nothing else does.

use super::processes::{Actor, file, tell, wait_for_parent};
use super::*;
use crate::store::read::History;

const DAY_MS: i64 = 86_400_000;

fn retaining(path: &Path, days: u64) -> StoreOptions {
    StoreOptions { retain: Some(Duration::from_hours(24 * days)), ..patient(path) }
}

fn session_at(run_id: &str, started_at: i64) -> Session {
    Session { run_id: run_id.to_owned(), started_at, ..session() }
}

/// A session of `pairs` connects and closes, each with a name that gave way to a better one.
fn write_session(path: &Path, run_id: &str, started_at: i64, pairs: u64, clean: bool) {
    let store = Store::start(&patient(path), &session_at(run_id, started_at)).expect("a database");
    for id in 1..=pairs {
        let at = Moment { boot_ns: 0, unix_ms: started_at + i64::try_from(id).expect("few") * 1000 };
        let mut process = process();
        process.key = id % 7;
        let connect = event(EventKind::Connect, id).with(|it| {
            it.process = Some(Arc::new(process));
            it.name = Some(named("first.example", DomainSource::Ptr));
        });
        let connect = Event { at, ..connect };
        store.push(&connect.clone().into());
        store.push(&renamed(
            id,
            Some(named(&format!("h{}.example", id % 50), DomainSource::Dns)),
            Class::Unknown,
        ));
        store.push(&Event { kind: EventKind::Close, ..connect }.into());
    }
    if clean {
        assert_stored(&store.finish(Counters::default(), started_at + 3_600_000), 2 * pairs);
    }
}

/// Every row of a session as it is shown.
fn shown(path: &Path, run_id: &str) -> Vec<String> {
    let mut rows = Vec::new();
    for sql in [
        "SELECT json_array(id, ts, event, provider, comm, domain, domain_source) FROM events WHERE run_id = ?1 ORDER BY id",
        "SELECT json_array(run_id, started_at, ended_at, connects, closes) FROM sessions WHERE run_id = ?1",
        "SELECT json_array(provider, connects, first_seen, last_seen) FROM session_summary WHERE run_id = ?1",
    ] {
        let connection = reader(path);
        let mut statement = connection.prepare(sql).expect("a view");
        let found = statement.query_map([run_id], |row| row.get(0)).expect("rows");
        rows.extend(found.map(|row: rusqlite::Result<String>| row.expect("a row")));
    }
    rows
}

fn wait_until_hidden(path: &Path) {
    wait_for("the old sessions to go", || {
        let sql = format!("SELECT count(*) FROM session WHERE started_at < {} AND id > 0", NOON - 5 * DAY_MS);
        one::<i64>(path, &sql) == 0
    });
}

fn wait_until_pruned(path: &Path) {
    wait_for("the end of the pruning", || one::<i64>(path, "SELECT count(*) FROM pruning") == 0);
}

fn prune(path: &Path, days: u64) {
    let store = Store::start(&retaining(path, days), &session_at("9-9", NOON)).expect("a database");
    wait_until_hidden(path);
    wait_until_pruned(path);
    assert_stored(&store.finish(Counters::default(), NOON), 0);
}

fn new_file() -> (tempfile::TempDir, std::path::PathBuf) {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("observer.sqlite");
    (directory, path)
}

#[test]
fn old_sessions_go_and_the_rest_is_as_before() {
    let (_directory, path) = new_file();
    write_session(&path, "clean", NOON - 20 * DAY_MS, 3000, true);
    write_session(&path, "kept", NOON - DAY_MS, 500, true);
    write_session(&path, "killed", NOON - 10 * DAY_MS, 300, false);
    write_session(&path, "empty", NOON - 9 * DAY_MS, 0, false);
    write_session(&path, "killed lately", NOON - 2 * DAY_MS, 20, false);
    let before = ["kept", "killed lately"].map(|run_id| shown(&path, run_id));
    prune(&path, 7);
    assert_eq!(["kept", "killed lately"].map(|run_id| shown(&path, run_id)), before);
    assert_intact(&path);
    assert_sums(&path);
    for (sql, expected) in [
        ("SELECT count(*) FROM sessions", 3),
        ("SELECT count(*) FROM event", 1040),
        ("SELECT count(*) FROM event_names", 520),
        ("SELECT count(*) FROM process", 14),
        ("SELECT count(*) FROM process WHERE session NOT IN (SELECT id FROM session)", 0),
        ("SELECT count(*) FROM traffic WHERE session NOT IN (SELECT id FROM session)", 0),
        ("SELECT count(*) FROM port_traffic WHERE session NOT IN (SELECT id FROM session)", 0),
        ("SELECT count(*) FROM process_traffic", 14),
        ("SELECT sum(connects) FROM provider_counts", 520),
    ] {
        assert_eq!(one::<i64>(&path, sql), expected, "{sql}");
    }
}

#[test]
fn without_it_nothing_goes() {
    let (_directory, path) = new_file();
    write_session(&path, "old", NOON - 1000 * DAY_MS, 10, true);
    write(&path, &[event(EventKind::Connect, 1)]);
    assert_eq!(one::<i64>(&path, "SELECT count(*) FROM events"), 21);
}

#[test]
fn what_one_run_hides_the_next_one_removes() {
    let (_directory, path) = new_file();
    write_session(&path, "old", NOON - 20 * DAY_MS, 30_000, true);
    write_session(&path, "kept", NOON - DAY_MS, 100, true);
    let before = shown(&path, "kept");
    // It ends at once, and has hidden it.
    let store = Store::start(&retaining(&path, 7), &session_at("8-8", NOON)).expect("a database");
    assert_stored(&store.finish(Counters::default(), NOON), 0);
    let left = one::<i64>(&path, "SELECT count(*) FROM event");
    assert!(left > 200, "all of it was removed before the end: {left}");
    for view in ["events", "connection_events"] {
        assert_eq!(one::<i64>(&path, &format!("SELECT count(*) FROM {view}")), 200, "{view}");
    }
    assert_eq!(one::<i64>(&path, "SELECT sum(connects + closes) FROM provider_ips"), 200);
    let history = History::open(&path).expect("a database");
    let mut exported = Rows(0);
    let ts = &crate::store::query::export::FIELDS[0];
    let filter = crate::store::query::export::Filter::default();
    history.export(&filter, &[ts], &mut exported, |_| ()).expect("an export");
    assert_eq!(exported.0, 200);
    drop(history);

    // A session without the option, whose id is none that is still in use, goes on with it.
    let id = "SELECT max(id) FROM session";
    let store = Store::start(&patient(&path), &session_at("9-9", NOON)).expect("a database");
    assert!(one::<i64>(&path, id) > one::<i64>(&path, "SELECT ifnull(max(session), 0) FROM pruning"));
    wait_until_pruned(&path);
    assert_stored(&store.finish(Counters::default(), NOON), 0);
    assert_eq!(one::<i64>(&path, "SELECT count(*) FROM event"), 200);
    assert_eq!(shown(&path, "kept"), before);
    assert_intact(&path);
    assert_sums(&path);
}

struct Rows(u64);

impl crate::store::query::export::RowWriter for Rows {
    fn cell(
        &mut self,
        _: &crate::store::query::export::Field,
        _: crate::store::query::export::Cell<'_>,
    ) -> std::io::Result<()> {
        Ok(())
    }

    fn end_row(&mut self) -> std::io::Result<()> {
        self.0 += 1;
        Ok(())
    }
}

#[test]
#[ignore = "a part that other tests start as a process"]
fn goes_on_for_long() {
    let store = Store::start(&patient(&file()), &session_at("live", NOON - 30 * DAY_MS)).expect("a database");
    tell(0);
    wait_for_parent();
    for id in 1..=100 {
        store.push(&event(EventKind::Connect, id).into());
    }
    assert_stored(&store.finish(Counters::default(), NOON - 29 * DAY_MS), 100);
}

#[test]
fn a_session_that_goes_on_stays_until_it_ends() {
    let (_directory, path) = new_file();
    let mut live = Actor::start("prune::goes_on_for_long", &path);
    live.number();
    write_session(&path, "old", NOON - 20 * DAY_MS, 100, true);
    let prune_old = || {
        let store = Store::start(&retaining(&path, 7), &session_at(&format!("{:?}", Instant::now()), NOON))
            .expect("a database");
        wait_for("the old session to go", || {
            one::<i64>(&path, "SELECT count(*) FROM session WHERE run_id = 'old'") == 0
        });
        wait_until_pruned(&path);
        assert_stored(&store.finish(Counters::default(), NOON), 0);
    };
    prune_old();
    live.go_on();
    live.end();
    assert_eq!(one::<i64>(&path, "SELECT count(*) FROM events WHERE run_id = 'live'"), 100);
    assert_sums(&path);
    prune(&path, 7);
    assert_eq!(one::<i64>(&path, "SELECT count(*) FROM event"), 0);
    assert_intact(&path);
}

#[test]
#[ignore = "a part that other tests start as a process"]
fn prunes_and_writes() {
    let run_id = format!("{}-1", std::process::id());
    let options =
        StoreOptions { batch_size: 20, flush_interval: Duration::from_millis(5), ..retaining(&file(), 7) };
    tell(0);
    wait_for_parent();
    let store = Store::start(&options, &session_at(&run_id, NOON)).expect("a database");
    for id in 1..=1000 {
        let host = format!("h{}.example", id % 100);
        store.push(
            &event(EventKind::Connect, id).with(|it| it.name = Some(named(&host, DomainSource::Dns))).into(),
        );
        store.push(&close(id, 1, 2).into());
    }
    wait_until_hidden(&file());
    wait_until_pruned(&file());
    assert_stored(&store.finish(Counters::default(), NOON), 2000);
}

#[test]
fn two_writers_prune_at_once() {
    let (_directory, path) = new_file();
    for number in 0..5 {
        write_session(&path, &format!("old {number}"), NOON - (20 - number) * DAY_MS, 2000, number % 2 == 0);
    }
    write_session(&path, "kept", NOON - DAY_MS, 500, true);
    let before = shown(&path, "kept");
    let mut actors = [0, 1].map(|_| Actor::start("prune::prunes_and_writes", &path));
    for actor in &mut actors {
        actor.number();
        actor.go_on();
    }
    for actor in actors {
        actor.end();
    }
    assert_eq!(one::<i64>(&path, "SELECT count(*) FROM event"), 5000);
    assert_eq!(one::<i64>(&path, "SELECT count(*) FROM events"), 5000);
    assert_eq!(shown(&path, "kept"), before);
    assert_intact(&path);
    assert_sums(&path);
}

#[test]
fn the_room_is_used_again() {
    let (_directory, path) = new_file();
    let size = || std::fs::metadata(&path).expect("a file").len();
    write_session(&path, "old", NOON - 20 * DAY_MS, 5000, true);
    let before = size();
    prune(&path, 7);
    write_session(&path, "new", NOON, 5000, true);
    assert!(size() < before + before / 10, "{before} bytes became {}", size());
}
