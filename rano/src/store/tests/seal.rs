//! Seals: whatever is changed in a file afterwards is found, and what rano itself does is none of it.

use super::*;
use crate::store::query::verify::{Fault, Question, Verified};
use crate::store::{History, SealKey};

fn verify(path: &Path) -> Verified {
    asked(path, &Question::default())
}

fn asked(path: &Path, question: &Question<'_>) -> Verified {
    History::ask(path, |history| history.verify(question)).expect("a database")
}

fn faults(path: &Path) -> Vec<Fault> {
    verify(path).findings.into_iter().map(|finding| finding.fault).collect()
}

fn key(text: &str) -> SealKey {
    SealKey::new(text.as_bytes()).expect("it is long enough")
}

/// With late names, alerts, other names, an open connection and several batches. Returns the head.
fn written(path: &Path, run_id: &str, options: &StoreOptions) -> String {
    let session = Session { run_id: run_id.to_owned(), ..session() };
    let store = Store::start(&StoreOptions { path: path.to_owned(), ..options.clone() }, &session)
        .expect("a new database");
    for number in 1..=8 {
        store.push(&event(EventKind::Connect, number).into());
        store.push(&renamed(number, Some(named("late.example", DomainSource::Dns)), Class::Unknown));
        store.push(&Update::OtherName {
            connection: ConnectionId(number),
            name: named("other.example", DomainSource::SharedDns),
        });
        if number % 2 == 0 {
            store.push(&Update::Marked(ConnectionId(number)));
            store.push(&renamed(number, Some(named("other.example", DomainSource::Sni)), Class::Unknown));
        }
        if number > 2 {
            let late = event(EventKind::Connect, number);
            let open = late.with(|it| it.bytes = Some(Bytes { sent: 40, received: 1 }));
            store.push(&Update::Changed(open.connection));
        }
        if number < 6 {
            store.push(&close(number, 100 + number, 7).into());
        }
    }
    let finished = store.finish(Counters { alerts: 4, ..Counters::default() }, NOON + 5000);
    assert_stored(&finished, 13);
    finished.head.expect("it was sealed")
}

fn options(batch_size: usize) -> StoreOptions {
    StoreOptions { batch_size, ..patient(Path::new("")) }
}

fn change(path: &Path, sql: &str) {
    let connection = Connection::open(path).expect("it is there");
    connection.pragma_update(None, "foreign_keys", false).expect("a switch");
    connection.execute_batch(sql).unwrap_or_else(|error| panic!("{sql}: {error}"));
}

#[test]
fn what_rano_writes_is_whole_whatever_the_batches_are() {
    let directory = tempfile::tempdir().expect("a directory");
    for batch in [1, 3, 1_000_000] {
        let path = directory.path().join(format!("{batch}.sqlite"));
        let first = written(&path, "1-1", &options(batch));
        let second = written(&path, "2-2", &options(batch));
        let verified = verify(&path);
        assert_eq!(verified.findings, [], "batches of {batch}");
        assert_eq!((verified.sessions, verified.events, verified.unended), (2, 26, 0));
        assert_eq!(verified.head.as_deref(), Some(&*second));
        for head in [&first, &second] {
            assert!(asked(&path, &Question { head: Some(head), key: None }).is_whole());
        }
        assert_sums(&path);
    }
}

#[test]
fn a_change_is_found_in_its_session() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("observer.sqlite");
    written(&path, "1-1", &options(4));
    written(&path, "2-2", &options(4));
    // How many batches there are depends on how fast they were written.
    let first: i64 = Connection::open(&path)
        .and_then(|file| file.query_row("SELECT min(id) FROM seal WHERE session = 2", [], |row| row.get(0)))
        .expect("seals");
    let copy = directory.path().join("copy.sqlite");
    let second = "(SELECT process FROM event WHERE id = 20)";
    for (sql, expected) in [
        ("DELETE FROM event WHERE id = 20".to_owned(), Fault::Rows),
        ("UPDATE event SET ts = ts + 1 WHERE id = 20".to_owned(), Fault::Rows),
        ("UPDATE event SET remote_port = 80 WHERE id = 20".to_owned(), Fault::Rows),
        (format!("UPDATE process SET cmdline = 'cat' WHERE id = {second}"), Fault::Rows),
        ("UPDATE session SET user = 'eve' WHERE run_id = '2-2'".to_owned(), Fault::Rows),
        ("UPDATE session SET unresolved = 3 WHERE run_id = '2-2'".to_owned(), Fault::Rows),
        ("UPDATE endpoint SET remote = '192.0.2.1'".to_owned(), Fault::Shared),
        ("DELETE FROM endpoint WHERE id = (SELECT max(id) FROM endpoint)".to_owned(), Fault::Shared),
        ("UPDATE amendment SET before = before + 1 WHERE field = 0 AND session = 2".to_owned(), Fault::Rows),
        ("DELETE FROM event_names WHERE event_id > 13".to_owned(), Fault::Names(14)),
        ("UPDATE traffic SET bytes_sent = 0 WHERE session = 2".to_owned(), Fault::Sums("traffic")),
        ("DELETE FROM activity WHERE session = 2".to_owned(), Fault::Sums("activity")),
        ("DELETE FROM port_traffic WHERE session = 2".to_owned(), Fault::Sums("port_traffic")),
        (format!("DELETE FROM seal WHERE id = {first}"), Fault::SealsMissing(first)),
        ("UPDATE seal SET hash = zeroblob(32) WHERE session = 2".to_owned(), Fault::Link),
        ("UPDATE session SET state_seal = NULL WHERE id = 2".to_owned(), Fault::State),
        ("INSERT INTO event SELECT 99, ts, kind, process, endpoint, local, local_port, remote_port, duration_ms, \
          bytes_sent, bytes_recv FROM event WHERE id = 20".to_owned(), Fault::Unsealed(1)),
        ("DELETE FROM session WHERE id = 2".to_owned(), Fault::SessionMissing(2)),
    ] {
        std::fs::copy(&path, &copy).expect("a copy");
        change(&copy, &sql);
        let found = faults(&copy);
        assert!(found.contains(&expected), "{sql}: {found:?}");
        for finding in verify(&copy).findings {
            let run_id = finding.session.map(|session| session.run_id);
            assert!(expected == Fault::Shared || run_id.as_deref() != Some("1-1") || matches!(expected, Fault::SealsMissing(_)), "{sql}: {run_id:?}");
        }
    }
}

#[test]
fn a_last_session_that_was_cut_off_with_its_seals_is_missed_by_its_head() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("observer.sqlite");
    written(&path, "1-1", &options(4));
    let head = written(&path, "2-2", &options(4));
    change(
        &path,
        "DELETE FROM seal WHERE session = 2; DELETE FROM event WHERE id > 13; DELETE FROM process WHERE session = 2;
         DELETE FROM amendment WHERE session = 2; DELETE FROM session WHERE id = 2; DELETE FROM traffic WHERE session = 2;
         DELETE FROM event_names WHERE event_id > 13; DELETE FROM activity WHERE session = 2;
         DELETE FROM port_traffic WHERE session = 2; DELETE FROM process_traffic WHERE process > 1;
         DELETE FROM tool_call WHERE session = 2;",
    );
    assert_eq!(faults(&path), []);
    let verified = asked(&path, &Question { head: Some(&head), key: None });
    assert_eq!(
        verified.findings.iter().map(|finding| finding.fault).collect::<Vec<_>>(),
        [Fault::HeadMissing]
    );
}

#[test]
fn a_chain_that_was_made_anew_is_found_with_the_key() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("observer.sqlite");
    let secret = key("a secret of root's, and long");
    let keyed = StoreOptions { seal_key: Some(secret.clone()), ..options(4) };
    written(&path, "1-1", &keyed);
    assert!(verify(&path).lacks_key && !verify(&path).is_whole());
    let with_key = Question { head: None, key: Some(&secret) };
    assert!(asked(&path, &with_key).is_whole());
    let other = key("another secret that is no shorter");
    let found = asked(&path, &Question { head: None, key: Some(&other) });
    assert!(found.findings.iter().all(|finding| matches!(finding.fault, Fault::Link | Fault::State)));
    assert!(!found.is_whole());
    // Somebody without the key goes on.
    written(&path, "2-2", &options(4));
    let found = asked(&path, &with_key);
    assert!(found.findings.iter().any(|finding| finding.fault == Fault::Unkeyed));
    // Somebody without the key begins again.
    let anew = directory.path().join("anew.sqlite");
    written(&anew, "1-1", &options(4));
    let found = asked(&anew, &with_key);
    assert_eq!(found.findings.iter().map(|finding| finding.fault).collect::<Vec<_>>(), [Fault::Unkeyed]);
}

#[test]
fn what_is_pruned_leaves_a_stub_and_the_rest_whole() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("observer.sqlite");
    written(&path, "1-1", &options(4));
    let retain = StoreOptions { retain: Some(Duration::from_hours(24)), ..options(4) };
    let later = Session { run_id: "3-3".to_owned(), started_at: NOON + 2 * 86_400_000, ..session() };
    let store = Store::start(&StoreOptions { path: path.clone(), ..retain }, &later).expect("a database");
    store.push(&event(EventKind::Connect, 1).into());
    wait_for("the old session to go", || {
        // Both in one snapshot: before it is hidden, nothing of it is left to remove either.
        one::<i64>(&path, "SELECT (SELECT count(*) FROM stub) = 1 AND NOT EXISTS (SELECT 1 FROM pruning)")
            == 1
    });
    assert_stored(&store.finish(Counters::default(), NOON + 3 * 86_400_000), 1);
    let verified = verify(&path);
    assert_eq!(verified.findings, []);
    assert_eq!((verified.sessions, verified.pruned, verified.events), (1, 1, 1));
    assert_eq!(one::<i64>(&path, "SELECT count(*) FROM amendment"), 0);
    change(&path, "DELETE FROM stub");
    assert!(faults(&path).contains(&Fault::SessionMissing(1)));
}

#[test]
fn a_session_that_was_killed_or_runs_is_whole_so_far() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("observer.sqlite");
    let store =
        Store::start(&StoreOptions { batch_size: 1, ..patient(&path) }, &session()).expect("a database");
    assert_eq!(verify(&path).findings, []);
    store.push(&event(EventKind::Connect, 1).into());
    wait_for("its row", || one::<i64>(&path, "SELECT count(*) FROM event") == 1);
    assert_eq!((verify(&path).findings, verify(&path).unended), (vec![], 1));
    drop(store);
    assert_eq!((verify(&path).findings, verify(&path).unended), (vec![], 1));
    change(&path, "UPDATE session SET clean_exit = 1, ended_at = started_at");
    assert_eq!(faults(&path), [Fault::End]);
}

/// A file that was sealed before requests to proxies had columns is whole afterwards, and those columns are sealed too.
#[test]
fn columns_that_came_later_change_no_older_seal() {
    use crate::store::{schema, seal};
    let sealed =
        |connection: &Connection| seal::shared_hash(connection, [0; 5], [0, 9, 0, 0, 0]).expect("it reads");
    let connection = Connection::open_in_memory().expect("a database");
    schema::build(&connection, 5).expect("the tables of version 5");
    let row = "INSERT INTO endpoint (protocol, remote, domain) VALUES ('tcp', '127.0.0.1', 'a.example')";
    connection.execute_batch(row).expect("a row");
    let before = sealed(&connection);
    connection.execute_batch(include_str!("../migrations/0006_proxies.sql")).expect("a migration");
    assert_eq!(sealed(&connection), before);
    for column in ["domain_port", "relay_for"] {
        connection.execute_batch(&format!("UPDATE endpoint SET {column} = 443")).expect("a change");
        assert_ne!(sealed(&connection), before, "{column}");
        connection.execute_batch(&format!("UPDATE endpoint SET {column} = NULL")).expect("a change");
        assert_eq!(sealed(&connection), before, "{column}");
    }
}
