//! Locks that last, full queues and full disks: nobody waits, nothing is lost uncounted.

use std::fs;

use rustix::mount::{MountFlags, MountPropagationFlags, UnmountFlags, mount, mount_change, unmount};
use rustix::thread::{UnshareFlags, unshare_unsafe};

use super::*;
use crate::alerts::Reason;
use crate::update::Alert;

fn stored(path: &Path) -> i64 {
    one(path, "SELECT count(*) FROM events")
}

#[test]
fn a_full_batch_is_committed_and_a_part_of_one_waits() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("observer.sqlite");
    let options = StoreOptions { batch_size: 3, ..patient(&path) };
    let store = Store::start(&options, &session()).expect("a new database");
    for id in 1..=3 {
        store.push(&event(EventKind::Connect, id).into());
    }
    wait_for("the full batch", || stored(&path) == 3);
    store.push(&event(EventKind::Connect, 4).into());
    assert_eq!(stored(&path), 3);
    assert_stored(&store.finish(Counters::default(), NOON), 4);
}

#[test]
fn a_part_of_a_batch_is_committed_when_the_interval_has_passed() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("observer.sqlite");
    let options = StoreOptions { flush_interval: Duration::from_millis(300), ..patient(&path) };
    let store = Store::start(&options, &session()).expect("a new database");
    let start = Instant::now();
    store.push(&event(EventKind::Connect, 1).into());
    wait_for("the interval", || stored(&path) == 1);
    assert!(start.elapsed() >= Duration::from_millis(300), "committed after {:?}", start.elapsed());
    // Counters alone are written too.
    let counters = Counters { peak_active: 9, ..Counters::default() };
    let now = Moment::default();
    store.push(&Update::Progress(Arc::new(Progress { now, counters, standings: None })));
    wait_for("the progress", || one::<i64>(&path, "SELECT peak_active FROM sessions") == 9);
    assert_stored(&store.finish(Counters::default(), NOON), 1);
}

#[test]
fn what_does_not_fit_the_queue_is_counted_and_said_once() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("observer.sqlite");
    let options = StoreOptions {
        batch_size: 4,
        queue_max: 10,
        flush_interval: Duration::from_millis(50),
        ..patient(&path)
    };
    let store = Store::start(&options, &session()).expect("a new database");
    let lock = processes::lock(&path);
    let start = Instant::now();
    for id in 1..=15 {
        store.push(&event(EventKind::Connect, id).into());
    }
    assert!(start.elapsed() < Duration::from_secs(1), "pushing waited for the lock");
    assert_eq!(store.dropped(), 5);
    let warnings = store.take_warnings();
    assert!(warnings.iter().any(|warning| warning.contains("sqlite queue full")), "{warnings:?}");
    store.push(&event(EventKind::Connect, 16).into());
    let again = store.take_warnings();
    assert!(!again.iter().any(|warning| warning.contains("sqlite queue full")), "{again:?}");
    drop(lock);
    wait_for("the batch", || stored(&path) == 10);
    wait_for("the count", || one::<i64>(&path, "SELECT sqlite_dropped FROM sessions") == 6);
    store.push(&event(EventKind::Connect, 17).into());
    let finished = store.finish(Counters::default(), NOON);
    assert_eq!(
        finished,
        Finished {
            stored: 11,
            dropped: 6,
            names_dropped: 0,
            error: None,
            warnings: finished.warnings.clone(),
            moved_to: None,
            head: finished.head.clone()
        }
    );
    assert_eq!(stored(&path), 11);
}

#[test]
fn a_lock_that_lasts_is_told_and_loses_nothing() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("observer.sqlite");
    let options = StoreOptions { batch_size: 1, ..patient(&path) };
    let store = Store::start(&options, &session()).expect("a new database");
    let lock = processes::lock(&path);
    store.push(&event(EventKind::Connect, 1).into());
    let mut told = Vec::new();
    wait_for("a warning", || {
        told.extend(store.take_warnings());
        !told.is_empty()
    });
    assert!(told[0].contains("locked") && told[0].contains("observer.sqlite"), "{told:?}");
    store.push(&event(EventKind::Connect, 2).into());
    drop(lock);
    wait_for("both events", || stored(&path) == 2);
    assert_stored(&store.finish(Counters::default(), NOON), 2);
}

#[test]
fn an_end_that_cannot_be_written_counts_what_it_loses() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("observer.sqlite");
    let store = Store::start(&patient(&path), &session()).expect("a new database");
    store.push(&event(EventKind::Connect, 1).into());
    store.push(&close(1, 1, 1).into());
    let lock = processes::lock(&path);
    let finished = store.finish(Counters::default(), NOON);
    assert_eq!((finished.stored, finished.dropped), (0, 2));
    assert!(finished.error.is_some_and(|error| error.contains("observer.sqlite")));
    drop(lock);
    assert_eq!(one::<i64>(&path, "SELECT clean_exit FROM sessions"), 0);
}

#[test]
fn a_removed_file_is_told() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("observer.sqlite");
    let options = StoreOptions { batch_size: 1, ..patient(&path) };
    let store = Store::start(&options, &session()).expect("a new database");
    fs::remove_file(&path).expect("removed");
    store.push(&event(EventKind::Connect, 1).into());
    let mut told = Vec::new();
    wait_for("a warning", || {
        told.extend(store.take_warnings());
        !told.is_empty()
    });
    assert!(told[0].contains("removed"), "{told:?}");
    store.finish(Counters::default(), NOON);
}

/// Runs `test` in a directory that is a filesystem of half a mebibyte and that only this thread, and those it starts,
/// can see.
fn on_a_small_disk(test: impl FnOnce(&Path) + Send + 'static) {
    let run = move || {
        let directory = tempfile::tempdir().expect("a directory");
        if let Err(reason) = mount_small_disk(directory.path()) {
            println!("skipped: a filesystem of the test's own: {reason}");
            return;
        }
        test(directory.path());
        unmount(directory.path(), UnmountFlags::DETACH).expect("what was mounted above");
    };
    thread::spawn(run).join().expect("the test's thread");
}

fn mount_small_disk(at: &Path) -> rustix::io::Result<()> {
    // SAFETY: this thread gets a mount table of its own; no file descriptors are affected.
    unsafe { unshare_unsafe(UnshareFlags::NEWNS) }?;
    mount_change("/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC)?;
    mount("tmpfs", at, "tmpfs", MountFlags::empty(), c"size=512k")
}

#[test]
fn a_full_disk_is_told_survived_and_counted() {
    on_a_small_disk(|directory| {
        let path = directory.join("observer.sqlite");
        let options = StoreOptions { batch_size: 10, queue_max: 50, ..patient(&path) };
        let store = Store::start(&options, &session()).expect("a new database");
        let mut pushed = 0;
        let mut push = |count| {
            for _ in 0..count {
                pushed += 1;
                store.push(&event(EventKind::Connect, pushed).into());
            }
            pushed
        };
        push(10);
        wait_for("the first batch", || stored(&path) == 10);
        // SQLite needs the log's shared memory in place before the disk fills up; it has it now.
        let filler = directory.join("filler");
        let _ = fs::write(&filler, vec![1; 1 << 20]);
        let mut told = Vec::new();
        while told.is_empty() {
            assert!(push(10) < 1_000_000, "the disk never was full");
            told.extend(
                store.take_warnings().into_iter().filter(|warning| warning.contains("no space left")),
            );
            thread::yield_now();
        }
        let pushed = push(1000);
        assert!(store.dropped() > 0);
        fs::remove_file(&filler).expect("some space");
        wait_for("word that it goes on", || {
            store.take_warnings().iter().any(|warning| warning.contains("written again"))
        });
        let finished = store.finish(Counters::default(), NOON);
        assert_eq!(finished.error, None);
        assert_eq!(finished.stored + finished.dropped, pushed);
        assert_eq!(stored(&path), i64::try_from(finished.stored).expect("few"));
        let sql = "SELECT sqlite_dropped FROM sessions WHERE clean_exit";
        assert_eq!(one::<i64>(&path, sql), i64::try_from(finished.dropped).expect("few"));
        assert_intact(&path);
    });
}

#[test]
fn a_disk_that_is_full_from_the_start_is_a_clear_error() {
    on_a_small_disk(|directory| {
        let _ = fs::write(directory.join("filler"), vec![1; 1 << 20]);
        let path = directory.join("observer.sqlite");
        let error = Store::start(&patient(&path), &session()).expect_err("no space");
        assert_eq!(error.problem, crate::store::OpenProblem::DiskFull, "{error}");
    });
}

#[test]
fn only_what_is_written_is_queued() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("observer.sqlite");
    let store = Store::start(&patient(&path), &session()).expect("a new database");
    let Event { at, connection, .. } = event(EventKind::Connect, 1);
    let reason = Reason::MaxConnections { active: 2, limit: 1 };
    store.push(&Update::Alert(Arc::new(Alert { at, reason, connection })));
    store.push(&Update::Notice("said to a person".into()));
    assert_eq!(store.shared.waiting(), 0);
    store.push(&renamed(1, None, Class::Unknown));
    store.push(&Update::Marked(ConnectionId(1)));
    assert_eq!(store.shared.waiting(), 2);
}
