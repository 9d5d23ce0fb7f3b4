//! What is opened with whose rights. As root: only root can have others', and is in danger.

use std::fs;
use std::io::{Read as _, Write as _};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, chown, symlink};

use rustix::thread::{CapabilitySet, capabilities};
use tempfile::TempDir;

use super::*;

const USER: u32 = 61_234;
const STRANGER: u32 = 61_999;

fn is_root() -> bool {
    let is_root = rustix::process::geteuid().is_root();
    if !is_root {
        println!("skipped: only root can open files as another user");
    }
    is_root
}

/// Where everybody may look.
fn directory() -> TempDir {
    let directory = tempfile::tempdir().expect("a directory");
    fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o755)).expect("a mode");
    directory
}

fn user() -> Identity {
    Identity { uid: USER, gid: USER, groups: vec![USER] }
}

fn of_user() -> Files {
    Files::of(Some(user())).expect("root can take the rights of others")
}

fn owned(path: &Path, uid: u32, mode: u32) {
    chown(path, Some(uid), Some(uid)).expect("to be given away");
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).expect("a mode");
}

fn problem<T>(outcome: Result<T, Problem>) -> Option<Problem> {
    outcome.err()
}

#[test]
fn the_users_thread_has_his_identity_and_no_capability_and_the_others_keep_theirs() {
    if !is_root() {
        return;
    }
    let before = capabilities(None).expect("capget");
    let (status, left) = of_user().with_rights(|_| {
        let status = fs::read_to_string("/proc/thread-self/status").expect("a status");
        (status, capabilities(None).expect("capget"))
    });
    // Real, effective, saved, file system.
    assert!(status.contains(&format!("Uid:\t0\t0\t0\t{USER}\n")), "{status}");
    assert!(status.contains(&format!("Gid:\t0\t0\t0\t{USER}\n")), "{status}");
    assert!(status.contains(&format!("Groups:\t{USER} \n")), "{status}");
    assert_eq!((left.effective, left.permitted), (CapabilitySet::empty(), CapabilitySet::empty()));
    assert_eq!(capabilities(None).expect("capget"), before);
    let own = fs::read_to_string("/proc/thread-self/status").expect("a status");
    assert!(own.contains("Uid:\t0\t0\t0\t0\n"), "{own}");
}

#[test]
fn what_the_configuration_names_is_opened_with_the_users_rights_only() {
    if !is_root() {
        return;
    }
    let (roots, his) = (directory(), directory());
    chown(his.path(), Some(USER), Some(USER)).expect("to be given away");
    let secret = roots.path().join("secret");
    fs::write(&secret, "hunter2").expect("a file");
    owned(&secret, 0, 0o600);
    let files = of_user();
    let reading = Reading::Instructions { pipe: false };
    for path in [secret.clone(), his.path().join("link")] {
        let _ = symlink(&secret, his.path().join("link"));
        let refused = problem(files.open(&path, NamedBy::Configuration, reading));
        assert_eq!(refused, Some(Problem::System(Errno::ACCESS)), "{}", path.display());
    }
    let new = roots.path().join("new");
    let refused = problem(files.create(&new, NamedBy::Configuration, Existing::Append));
    assert_eq!(refused, Some(Problem::System(Errno::ACCESS)));
    assert!(!new.exists());
    let (_, rights) =
        files.create(&his.path().join("new"), NamedBy::CommandLine, Existing::Append).expect("his own");
    assert_eq!(rights, Rights::User(user()));
    let made = fs::metadata(his.path().join("new")).expect("a file");
    assert_eq!((made.uid(), made.gid(), made.mode() & 0o7777), (USER, USER, 0o600));
}

/// `/tmp`, in which the tests' directories lie, can be written by all: root alone goes elsewhere.
#[test]
fn what_the_command_line_names_is_roots_where_only_root_can_write() {
    if !is_root() {
        return;
    }
    let closed = tempfile::tempdir_in("/root").expect("a directory");
    let files = of_user();
    let path = closed.path().join("audit.log");
    let (_, rights) = files.create(&path, NamedBy::CommandLine, Existing::Append).expect("root's");
    assert_eq!(rights, Rights::RootAlone);
    assert_eq!(fs::metadata(&path).expect("a file").uid(), 0);
    let open = directory();
    let refused = problem(files.create(&open.path().join("x"), NamedBy::CommandLine, Existing::Append));
    assert_eq!(refused, Some(Refusal::OthersDirectory.into()));
    for mode in [0o620, 0o602] {
        owned(&path, 0, mode);
        let refused = problem(files.create(&path, NamedBy::CommandLine, Existing::Append));
        assert_eq!(refused, Some(Refusal::OthersCanWrite.into()), "{mode:o}");
    }
}

#[test]
fn root_refuses_what_others_made_or_can_change() {
    if !is_root() {
        return;
    }
    let directory = directory();
    let path = directory.path().join("events.log");
    let check = |expected: Option<Refusal>| {
        for existing in [Existing::Append, Existing::Truncate] {
            let refused = problem(create(&path, &Rights::Root, existing));
            assert_eq!(refused, expected.map(Problem::Refused));
        }
        if expected.is_some() {
            assert_eq!(fs::read_to_string(&path).unwrap_or_default(), "kept");
        }
    };
    fs::write(&path, "kept").expect("a file");
    for (uid, mode, expected) in [
        (STRANGER, 0o600, Refusal::OwnedBy(STRANGER)),
        (0, 0o620, Refusal::OthersCanWrite),
        (0, 0o602, Refusal::OthersCanWrite),
    ] {
        owned(&path, uid, mode);
        check(Some(expected));
    }
    owned(&path, 0, 0o600);
    fs::hard_link(&path, directory.path().join("other name")).expect("a link");
    check(Some(Refusal::HardLinks));
    fs::remove_file(&path).expect("removed");
    symlink(directory.path().join("other name"), &path).expect("a link");
    check(Some(Refusal::Link));
    fs::remove_file(&path).expect("removed");
    check(None);
}

#[test]
fn links_count_only_in_directories_that_root_alone_can_write() {
    if !is_root() {
        return;
    }
    let closed = tempfile::tempdir_in("/root").expect("a directory");
    let (real, link) = (closed.path().join("real"), closed.path().join("link"));
    fs::create_dir_all(real.join("below/further")).expect("a directory");
    symlink("real", &link).expect("a link");
    let rights = &Rights::Root;
    let file = link.join("below/further/events.log");
    create(&file, rights, Existing::Append).expect("root made the link");
    assert!(real.join("below/further/events.log").exists());
    fs::set_permissions(closed.path(), fs::Permissions::from_mode(0o777)).expect("a mode");
    assert_eq!(problem(create(&file, rights, Existing::Append)), Some(Refusal::Link.into()));
    // Below it there is no link that counts either.
    symlink("below", real.join("deeper")).expect("a link");
    let file = real.join("deeper/further/events.log");
    assert_eq!(problem(create(&file, rights, Existing::Append)), Some(Refusal::Link.into()));
    assert_eq!(problem(make_directory(&link, rights)), Some(Refusal::Link.into()));
    assert_eq!(problem(make_directory(&real.join("deeper/logs"), rights)), Some(Refusal::Link.into()));
}

/// Both ways of walking say the same: at once (Linux 5.6) and a directory at a time.
#[test]
fn without_openat2_the_way_is_the_same() {
    let directory = directory();
    fs::create_dir_all(directory.path().join("a/b/c")).expect("a directory");
    symlink("b", directory.path().join("a/link")).expect("a link");
    for (path, expected) in [
        ("a/b/c/file", Ok("a/b/c/file")),
        ("a/b/../b/c/file", Ok("a/b/c/file")),
        ("a/link/c/file", Err(Problem::Refused(Refusal::Link))),
        ("a/none/c/file", Err(Problem::System(Errno::NOENT))),
    ] {
        for whole in [true, false] {
            let path = directory.path().join(path);
            let found = walk::find_by(&path, &Rights::Root, whole).and_then(|place| place.path());
            let root = directory.path().canonicalize().expect("a path");
            assert_eq!(found, expected.map(|path| root.join(path)), "{} {whole}", path.display());
        }
    }
}

#[test]
fn links_that_go_in_circles_end() {
    if !is_root() {
        return;
    }
    let closed = tempfile::tempdir_in("/root").expect("a directory");
    symlink("two", closed.path().join("one")).expect("a link");
    symlink("one", closed.path().join("two")).expect("a link");
    let refused = problem(create(&closed.path().join("one/x"), &Rights::Root, Existing::Append));
    assert_eq!(refused, Some(Refusal::Link.into()));
}

#[test]
fn devices_descriptors_and_pipes_stay_allowed_as_logs() {
    let rights = Rights::here();
    for path in ["/dev/null", "/dev/full"] {
        create(Path::new(path), &rights, Existing::Append).expect(path);
    }
    let directory = directory();
    let pipe = directory.path().join("pipe");
    rustix::fs::mknodat(rustix::fs::CWD, &pipe, rustix::fs::FileType::Fifo, PRIVATE, 0).expect("a pipe");
    assert_eq!(problem(create(&pipe, &rights, Existing::Append)), Some(Refusal::Unread.into()));
    let _reader = fs::OpenOptions::new().read(true).write(true).open(&pipe).expect("both ends");
    create(&pipe, &rights, Existing::Append).expect("it is read");
    // Whoever passed the descriptor opened the file.
    let others = directory.path().join("redirected");
    let file = fs::File::create(&others).expect("a file");
    fs::set_permissions(&others, fs::Permissions::from_mode(0o666)).expect("a mode");
    let number = std::os::fd::AsRawFd::as_raw_fd(&file);
    for path in [format!("/dev/fd/{number}"), format!("/proc/self/fd/{number}")] {
        let mut again = create(Path::new(&path), &rights, Existing::Append).expect("a descriptor");
        again.write_all(b"x").expect("written");
    }
    assert_eq!(fs::read_to_string(&others).expect("a file"), "xx");
}

#[test]
fn an_ordinary_user_follows_his_links_and_uses_nobody_elses_file() {
    if !is_root() {
        return;
    }
    let directory = directory();
    chown(directory.path(), Some(USER), Some(USER)).expect("to be given away");
    let (his, strangers) = (directory.path().join("his"), directory.path().join("strangers"));
    for path in [&his, &strangers] {
        fs::write(path, "").expect("a file");
    }
    owned(&his, USER, 0o664);
    owned(&strangers, STRANGER, 0o666);
    symlink(&his, directory.path().join("link")).expect("a link");
    let link = directory.path().join("link");
    let outcomes = std::thread::spawn(move || {
        let (uid, gid) = (rustix::fs::Uid::from_raw(USER), rustix::fs::Gid::from_raw(USER));
        rustix::thread::set_thread_res_gid(gid, gid, gid).expect("another group");
        rustix::thread::set_thread_res_uid(uid, uid, uid).expect("another user");
        [link, strangers].map(|path| problem(create(&path, &Rights::here(), Existing::Append)))
    });
    let [link, strangers] = outcomes.join().expect("a thread");
    assert_eq!((link, strangers), (None, Some(Refusal::OwnedBy(STRANGER).into())));
}

#[test]
fn a_pipe_in_the_place_of_instructions_is_never_waited_for() {
    let directory = directory();
    let pipe = directory.path().join("config.conf");
    rustix::fs::mknodat(rustix::fs::CWD, &pipe, rustix::fs::FileType::Fifo, PRIVATE, 0).expect("a pipe");
    let reading = Reading::Instructions { pipe: false };
    let refused = problem(open(&pipe, &Rights::here(), reading));
    assert_eq!(refused, Some(Refusal::NotRegular.into()));
    fs::remove_file(&pipe).expect("removed");
    fs::write(&pipe, "json=true").expect("a file");
    let mut text = String::new();
    open(&pipe, &Rights::here(), reading).expect("a file").read_to_string(&mut text).expect("read");
    assert_eq!(text, "json=true");
}

#[test]
fn root_obeys_no_instructions_that_others_can_write() {
    if !is_root() {
        return;
    }
    let directory = directory();
    let path = directory.path().join("config.conf");
    fs::write(&path, "json=true").expect("a file");
    let reading = Reading::Instructions { pipe: true };
    for (uid, mode, expected) in [
        (0, 0o644, None),
        (0, 0o664, Some(Refusal::OthersCanWrite)),
        (STRANGER, 0o600, Some(Refusal::OwnedBy(STRANGER))),
    ] {
        owned(&path, uid, mode);
        let refused = problem(open(&path, &Rights::Root, reading));
        assert_eq!(refused, expected.map(Problem::Refused), "{uid} {mode:o}");
    }
}
