//! Files that are cut, removed or changed while they are written: the history goes on in a fresh file, and what is lost
//! is counted.

use std::fs;
use std::os::unix::fs::FileExt as _;
use std::path::PathBuf;

use super::*;

fn beside(path: &Path, suffix: &str) -> PathBuf {
    format!("{}{suffix}", path.display()).into()
}

fn cut(path: &Path, suffix: &str, length: u64) {
    let file = fs::OpenOptions::new().write(true).open(beside(path, suffix)).expect("a file");
    file.set_len(length).expect("a shorter file");
}

fn overwrite(path: &Path, suffix: &str, with: &[u8]) {
    let file = fs::OpenOptions::new().write(true).open(beside(path, suffix)).expect("a file");
    file.write_all_at(with, 0).expect("written");
}

/// As another program would, that may do with the file what it likes.
fn execute(path: &Path, sql: &str) {
    let connection = Connection::open(path).expect("a database");
    connection.busy_timeout(DEADLINE).expect("a timeout");
    connection.execute_batch(sql).unwrap_or_else(|error| panic!("{sql}: {error}"));
}

/// Three events are in the file when `spoil` is done to it; two come after. `says` is what the user is told, `kept` how
/// many of the three can still be read.
fn check(says: &str, kept: u64, spoil: impl FnOnce(&Path)) {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("observer.sqlite");
    let options = StoreOptions { batch_size: 1, ..patient(&path) };
    let store = Store::start(&options, &session()).expect("a new database");
    for id in 1..=3 {
        store.push(&event(EventKind::Connect, id).into());
    }
    wait_for("three events", || one::<i64>(&path, "SELECT count(*) FROM events") == 3);
    // Committed is not done: the writer looks at its files before it lets the batch go.
    wait_for("the batch to be done", || store.shared.waiting() == 0);
    assert_eq!(store.path(), path);
    spoil(&path);
    store.push(&close(3, 10, 20).into());
    let fresh = directory.path().join("observer-2.sqlite");
    let mut told = Vec::new();
    wait_for(says, || {
        told.extend(store.take_warnings());
        told.iter().any(|line| line.contains("goes on in"))
    });
    assert!(told.iter().any(|line| line.contains(says)), "{says}: {told:?}");
    assert_eq!(store.path(), fresh);
    store.push(&event(EventKind::Connect, 4).into());
    let finished = store.finish(Counters::default(), NOON);
    let expected = Finished {
        stored: kept + 2,
        dropped: 3 - kept,
        names_dropped: 0,
        error: None,
        warnings: finished.warnings.clone(),
        moved_to: Some(fresh.clone()),
        head: finished.head.clone(),
    };
    assert_eq!(finished, expected, "{says}: {told:?}");
    assert_intact(&fresh);
    assert_sums(&fresh);
    assert_eq!(one::<String>(&fresh, "SELECT group_concat(event) FROM events"), "close,connect");
    let row = "SELECT run_id || ' ' || clean_exit || ' ' || sqlite_dropped FROM sessions";
    assert_eq!(one::<String>(&fresh, row), format!("77-{NOON} 1 {}", 3 - kept));
}

#[test]
fn an_index_that_is_cut_while_it_is_mapped_costs_nothing_that_was_written() {
    check("-shm was cut short", 3, |path| cut(path, "-shm", 0));
    check("-shm was cut short", 3, |path| cut(path, "-shm", 4096));
}

#[test]
fn a_log_that_is_cut_is_noticed_with_the_next_batch() {
    check("-wal was cut short", 0, |path| cut(path, "-wal", 0));
    check("-wal was cut short", 0, |path| cut(path, "-wal", 32));
    // A frame and a half of the first transaction.
    check("-wal was cut short", 0, |path| cut(path, "-wal", 32 + 6180));
}

#[test]
fn a_log_that_is_overwritten_is_noticed_with_the_next_batch() {
    check("-wal was overwritten", 0, |path| overwrite(path, "-wal", &[7; 4096]));
}

#[test]
fn a_database_that_is_cut_or_overwritten_is_noticed_with_the_next_batch() {
    check("observer.sqlite was cut short", 0, |path| cut(path, "", 0));
    check("observer.sqlite was cut short", 0, |path| cut(path, "", 8192));
    check("observer.sqlite was overwritten", 0, |path| overwrite(path, "", &[0; 4096]));
}

#[test]
fn files_that_are_removed_lose_only_what_had_no_other_name() {
    check("observer.sqlite was removed or replaced", 0, |path| fs::remove_file(path).expect("removed"));
    check("-wal was removed or replaced", 3, |path| fs::remove_file(beside(path, "-wal")).expect("removed"));
    check("-shm was removed or replaced", 3, |path| fs::remove_file(beside(path, "-shm")).expect("removed"));
    check("observer.sqlite was removed or replaced", 3, |path| {
        fs::rename(path, path.with_file_name("kept.sqlite")).expect("renamed");
        fs::write(path, "something else").expect("written");
    });
}

#[test]
fn a_file_that_was_moved_is_whole_where_it_is_now() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("observer.sqlite");
    let store =
        Store::start(&StoreOptions { batch_size: 1, ..patient(&path) }, &session()).expect("a new database");
    store.push(&event(EventKind::Connect, 1).into());
    wait_for("an event", || one::<i64>(&path, "SELECT count(*) FROM events") == 1);
    let kept = directory.path().join("kept.sqlite");
    fs::rename(&path, &kept).expect("renamed");
    store.push(&event(EventKind::Connect, 2).into());
    let finished = store.finish(Counters::default(), NOON);
    assert!(finished.stored >= 2 && finished.dropped == 0, "{finished:?}");
    assert_intact(&kept);
    assert!(one::<i64>(&kept, "SELECT count(*) FROM events") >= 1);
}

#[test]
fn tables_that_are_changed_while_they_are_written_are_left() {
    check("its table 'event' is not as rano made it", 0, |path| {
        execute(path, "DROP VIEW events; DROP TABLE event; CREATE VIEW event AS SELECT 1 AS id");
    });
    check("does more than list columns", 3, |path| {
        execute(path, "CREATE INDEX slow ON event (abs(ts))");
    });
    check("does more than list columns", 3, |path| {
        execute(path, "CREATE UNIQUE INDEX once ON process (session)");
    });
}

#[test]
fn what_others_do_in_good_order_is_no_loss() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("observer.sqlite");
    // Much that is removed, so that VACUUM makes the file shorter.
    write(&path, &(1..=3000).map(|id| event(EventKind::Connect, id)).collect::<Vec<_>>());
    execute(&path, "DELETE FROM event WHERE id > 10");
    let size = || fs::metadata(&path).expect("a file").len();
    let before = size();
    let options = StoreOptions { batch_size: 1, ..patient(&path) };
    let session = Session { run_id: "78-1".to_owned(), ..session() };
    let store = Store::start(&options, &session).expect("a database");
    let mut pushed = 0;
    let mut push_one = || {
        pushed += 1;
        store.push(&event(EventKind::Connect, 10_000 + pushed).into());
        let own = "SELECT connects FROM sessions WHERE run_id = '78-1'";
        wait_for("an event", || one::<i64>(&path, own) == i64::try_from(pushed).expect("few"));
    };
    push_one();
    for sql in [
        "PRAGMA wal_checkpoint(TRUNCATE)",
        "VACUUM; PRAGMA wal_checkpoint(TRUNCATE)",
        "PRAGMA wal_checkpoint(RESTART)",
        "CREATE INDEX mine ON event (ts)",
        "CREATE VIEW mine_too AS SELECT count(*) AS n FROM events",
        "CREATE TABLE others (x); INSERT INTO others VALUES (1)",
        "ANALYZE",
    ] {
        execute(&path, sql);
        push_one();
        push_one();
    }
    assert!(size() < before, "VACUUM made nothing shorter");
    let finished = store.finish(Counters::default(), NOON);
    assert_stored(&finished, pushed);
    assert_intact(&path);
}

#[test]
fn a_fresh_file_takes_no_name_that_is_taken() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("observer.sqlite");
    fs::write(directory.path().join("observer-2.sqlite"), "mine").expect("written");
    fs::write(directory.path().join("observer-3.sqlite-wal"), "mine").expect("written");
    let store =
        Store::start(&StoreOptions { batch_size: 1, ..patient(&path) }, &session()).expect("a new database");
    fs::remove_file(&path).expect("removed");
    store.push(&event(EventKind::Connect, 1).into());
    let finished = store.finish(Counters::default(), NOON);
    assert_eq!(finished.moved_to, Some(directory.path().join("observer-4.sqlite")), "{finished:?}");
    assert_eq!((finished.stored, finished.dropped), (1, 0));
    assert_eq!(fs::read(directory.path().join("observer-2.sqlite")).expect("kept"), b"mine");
}

#[test]
fn where_no_fresh_file_can_be_made_everything_is_counted() {
    let directory = tempfile::tempdir().expect("a directory");
    let inside = directory.path().join("inside");
    fs::create_dir(&inside).expect("a directory");
    let path = inside.join("observer.sqlite");
    let store =
        Store::start(&StoreOptions { batch_size: 1, ..patient(&path) }, &session()).expect("a new database");
    store.push(&event(EventKind::Connect, 1).into());
    wait_for("an event", || one::<i64>(&path, "SELECT count(*) FROM events") == 1);
    fs::remove_dir_all(&inside).expect("removed");
    store.push(&event(EventKind::Connect, 2).into());
    let mut told = Vec::new();
    wait_for("a warning", || {
        told.extend(store.take_warnings());
        told.iter().any(|line| line.contains("directory does not exist"))
    });
    let finished = store.finish(Counters::default(), NOON);
    assert_eq!((finished.stored, finished.dropped), (0, 2), "{finished:?} {told:?}");
    assert!(finished.error.is_some());
}

/// Also where it left the tables that this one knows as they are.
#[test]
fn a_file_that_a_newer_rano_migrated_is_left_to_it() {
    check("it was written by a newer rano (schema 99, this one knows", 3, |path| {
        execute(path, "CREATE TABLE later (id INTEGER PRIMARY KEY); PRAGMA user_version = 99");
    });
    check("it was written by a newer rano (schema 99, this one knows", 3, |path| {
        execute(path, "PRAGMA user_version = 99");
    });
}
