//! The bytes of open connections.

use std::collections::BTreeMap;

use super::*;

fn open(connection: u64, sent: u64) -> Update {
    let open = event(EventKind::Connect, connection).with(|it| it.bytes = Some(Bytes { sent, received: 1 }));
    Update::Changed(open.connection)
}

/// By event, what its rows have, and what the session and its sums have.
fn sent(path: &Path) -> (BTreeMap<String, Option<i64>>, [i64; 3]) {
    let rows: String = one(path, "SELECT json_group_object(event, bytes_sent) FROM events");
    let sums = ["sessions", "activity", "traffic WHERE hour < 0"]
        .map(|table| one(path, &format!("SELECT ifnull(sum(bytes_sent), 0) FROM {table}")));
    (serde_json::from_str(&rows).expect("an object"), sums)
}

#[test]
fn an_open_connection_has_its_bytes_at_once_and_a_closed_one_has_them_once() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("observer.sqlite");
    let store = Store::start(&patient(&path), &session()).expect("a new database");
    store.push(&event(EventKind::Connect, 1).into());
    // Not the hour that a batch waits for otherwise.
    store.push(&open(1, 40));
    wait_for("what was read first", || sent(&path).1 == [40; 3]);
    assert_sums(&path);
    store.push(&open(1, 100));
    wait_for("what was read then", || sent(&path).1 == [100; 3]);
    assert_eq!(sent(&path).0, BTreeMap::from([("connect".to_owned(), Some(100))]));
    assert_eq!(one::<i64>(&path, "SELECT bytes_sent FROM provider_last_hour UNION ALL SELECT 100"), 100);
    assert_sums(&path);
    store.push(&renamed(1, Some(named("late.example", DomainSource::Dns)), Class::Unknown));
    store.push(&open(1, 110));
    wait_for("its name", || {
        one::<Option<i64>>(&path, "SELECT max(bytes_sent) FROM provider_domains") == Some(110)
    });
    assert_sums(&path);
    store.push(&close(1, 130, 2).with(|it| it.name = Some(named("late.example", DomainSource::Dns))).into());
    // It comes too late.
    store.push(&open(1, 120));
    assert_stored(&store.finish(Counters::default(), NOON + 1000), 2);
    let rows = [("connect".to_owned(), None), ("close".to_owned(), Some(130))];
    assert_eq!(sent(&path), (BTreeMap::from(rows), [130; 3]));
    assert_sums(&path);
    assert_intact(&path);
}

#[test]
fn what_was_read_of_an_open_connection_survives_a_transaction_that_failed() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("observer.sqlite");
    let store = Store::start(&patient(&path), &session()).expect("a new database");
    store.push(&event(EventKind::Connect, 1).into());
    store.push(&open(1, 40));
    wait_for("what was read first", || sent(&path).1 == [40; 3]);
    let lock = Connection::open(&path).expect("it is there");
    lock.execute_batch("BEGIN IMMEDIATE").expect("nobody else writes");
    store.push(&open(1, 100));
    store.push(&event(EventKind::Connect, 2).into());
    store.push(&open(2, 7));
    wait_for("a failure", || !store.take_warnings().is_empty());
    lock.execute_batch("ROLLBACK").expect("it was begun");
    wait_for("the next try", || sent(&path).1 == [107; 3]);
    store.push(&close(1, 130, 2).into());
    assert_stored(&store.finish(Counters::default(), NOON + 1000), 3);
    assert_eq!(sent(&path).1, [137; 3]);
    assert_sums(&path);
}
