//! Which files are taken, and that the others are left alone.

use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, symlink};

use super::*;
use crate::files::Identity;
use crate::store::OpenProblem;
use crate::store::open::open;
use crate::store::schema;

/// The file is refused for that reason and not a byte of it changes, nor does anything appear beside it.
fn check_refused(path: &Path, problem: &OpenProblem) {
    let before = fs::read(path).ok();
    let neighbours = |path: &Path| fs::read_dir(path.parent().expect("a parent")).map(Iterator::count).ok();
    let count = neighbours(path);
    let error = open(path).expect_err("to be refused");
    assert_eq!(&error.problem, problem);
    assert!(error.to_string().contains(&path.display().to_string()), "{error}");
    assert!(!error.hint().is_empty());
    assert_eq!(fs::read(path).ok(), before);
    assert_eq!(neighbours(path), count, "something was left beside the file");
}

#[test]
fn a_new_file_is_private_and_has_a_log_that_is_private() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("observer.sqlite");
    let store = Store::start(&patient(&path), &session()).expect("a new database");
    for suffix in ["", "-wal", "-shm"] {
        let metadata = fs::metadata(format!("{}{suffix}", path.display())).expect(suffix);
        assert_eq!(metadata.permissions().mode() & 0o7777, 0o600, "{suffix}");
    }
    assert_stored(&store.finish(Counters::default(), NOON), 0);
    assert_eq!(fs::read_dir(directory.path()).expect("a directory").count(), 1, "the log stayed");
}

#[test]
fn under_sudo_all_three_files_belong_to_the_invoking_user() {
    if !rustix::process::geteuid().is_root() {
        println!("skipped: only root can give files away");
        return;
    }
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("observer.sqlite");
    // Nobody else may enter it, and root itself has no right to.
    std::os::unix::fs::chown(directory.path(), Some(61_234), Some(61_235)).expect("to be given away");
    let identity = Identity { uid: 61_234, gid: 61_235, groups: vec![61_235] };
    let options = StoreOptions { rights: Rights::User(identity), ..patient(&path) };
    let store = Store::start(&options, &session()).expect("a new database");
    for suffix in ["", "-wal", "-shm"] {
        let metadata = fs::metadata(format!("{}{suffix}", path.display())).expect(suffix);
        assert_eq!((metadata.uid(), metadata.gid()), (61_234, 61_235), "{suffix}");
    }
    drop(store);
}

#[test]
fn a_file_that_is_no_database_is_left_alone() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("notes.txt");
    for content in ["short", &"long enough for a header ".repeat(100)] {
        fs::write(&path, content).expect("a file");
        check_refused(&path, &OpenProblem::NotADatabase);
    }
}

#[test]
fn another_programs_database_is_left_alone() {
    let directory = tempfile::tempdir().expect("a directory");
    for (name, sql) in [
        ("tables.sqlite", "CREATE TABLE notes (text)"),
        ("marked.sqlite", "PRAGMA application_id = 7; CREATE TABLE notes (text)"),
        ("versioned.sqlite", "PRAGMA user_version = 3"),
    ] {
        let path = directory.path().join(name);
        Connection::open(&path).and_then(|connection| connection.execute_batch(sql)).expect("a database");
        check_refused(&path, &OpenProblem::Foreign);
    }
}

#[test]
fn another_programs_database_that_is_still_in_its_log_is_left_alone() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("observer.sqlite");
    let other = Connection::open(&path).expect("a database");
    other
        .execute_batch("PRAGMA journal_mode = wal; PRAGMA wal_autocheckpoint = 0; CREATE TABLE notes (text)")
        .expect("a table");
    // The file without its locks, as a crash leaves it.
    let crashed = directory.path().join("crashed");
    fs::create_dir(&crashed).expect("a directory");
    for suffix in ["", "-wal"] {
        let name = format!("observer.sqlite{suffix}");
        fs::copy(directory.path().join(&name), crashed.join(&name)).expect("a copy");
    }
    let path = crashed.join("observer.sqlite");
    let log = fs::read(crashed.join("observer.sqlite-wal")).expect("a log");
    assert_eq!(open(&path).expect_err("to be refused").problem, OpenProblem::Foreign);
    assert_eq!(fs::read(crashed.join("observer.sqlite-wal")).expect("a log"), log);
}

#[test]
fn a_newer_file_is_left_alone() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("observer.sqlite");
    write(&path, &[]);
    Connection::open(&path)
        .and_then(|connection| {
            connection.execute_batch("PRAGMA journal_mode = delete; PRAGMA user_version = 99")
        })
        .expect("a newer database");
    check_refused(&path, &OpenProblem::Newer { found: 99, known: schema::VERSION });
}

#[test]
fn an_empty_file_and_an_empty_database_are_taken() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("empty");
    fs::write(&path, "").expect("a file");
    write(&path, &[event(EventKind::Connect, 1)]);
    let path = directory.path().join("vacuumed");
    Connection::open(&path).and_then(|connection| connection.execute_batch("VACUUM")).expect("a database");
    write(&path, &[event(EventKind::Connect, 1)]);
}

#[test]
fn what_is_no_file_is_refused() {
    let directory = tempfile::tempdir().expect("a directory");
    let inside = |name: &str| directory.path().join(name);
    std::fs::create_dir(inside("directory")).expect("a directory in it");
    check_refused(&inside("directory"), &OpenProblem::Directory);
    check_refused(&inside("missing/observer.sqlite"), &OpenProblem::ParentMissing);
    rustix::fs::mknodat(
        rustix::fs::CWD,
        inside("pipe"),
        rustix::fs::FileType::Fifo,
        rustix::fs::Mode::RUSR | rustix::fs::Mode::WUSR,
        0,
    )
    .expect("a pipe");
    assert_eq!(open(&inside("pipe")).expect_err("to be refused").problem, OpenProblem::NotAFile);
    symlink(inside("nowhere"), inside("dangling")).expect("a link");
    assert_eq!(open(&inside("dangling")).expect_err("to be refused").problem, OpenProblem::Symlink);
    assert!(!inside("nowhere").exists());
}

#[test]
fn root_follows_no_link() {
    if !rustix::process::geteuid().is_root() {
        println!("skipped: others may follow their own links");
        return;
    }
    let directory = tempfile::tempdir().expect("a directory");
    let target = directory.path().join("target.sqlite");
    write(&target, &[]);
    symlink(&target, directory.path().join("link.sqlite")).expect("a link");
    check_refused(&directory.path().join("link.sqlite"), &OpenProblem::Symlink);
}

#[test]
fn a_database_that_stays_locked_is_refused_after_two_seconds() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("observer.sqlite");
    write(&path, &[]);
    let lock = processes::lock(&path);
    let start = Instant::now();
    let error = Store::start(&patient(&path), &session()).expect_err("to be refused");
    assert_eq!(error.problem, OpenProblem::Locked);
    assert!(start.elapsed() < Duration::from_secs(10), "{:?}", start.elapsed());
    drop(lock);
}

#[test]
fn a_name_that_sqlite_gives_a_meaning_is_only_a_name() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("file::memory:?mode=ro");
    write(&path, &[event(EventKind::Connect, 1)]);
    assert!(path.exists());
}

#[test]
fn a_directory_without_permission_is_named_as_such() {
    if !rustix::process::geteuid().is_root() {
        println!("skipped: needs root to become somebody else");
        return;
    }
    let directory = tempfile::tempdir().expect("a directory");
    fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o555)).expect("a mode");
    let path = directory.path().join("observer.sqlite");
    // Only this thread gives up its privileges.
    let problem = thread::spawn(move || {
        rustix::thread::set_thread_res_gid(
            rustix::fs::Gid::from_raw(61_234),
            rustix::fs::Gid::from_raw(61_234),
            rustix::fs::Gid::from_raw(61_234),
        )
        .expect("another group");
        rustix::thread::set_thread_res_uid(
            rustix::fs::Uid::from_raw(61_234),
            rustix::fs::Uid::from_raw(61_234),
            rustix::fs::Uid::from_raw(61_234),
        )
        .expect("another user");
        open(&path).expect_err("to be refused").problem
    })
    .join()
    .expect("a thread");
    assert_eq!(problem, OpenProblem::PermissionDenied);
}
