//! Who is observing now: a small private file for each running session, in a directory of its user, so that `rano
//! status` finds it from anywhere. Best effort: without such a directory, or where it may not be written, nothing is
//! registered. The session that began last is remembered in the user's state directory, so that its file is found after
//! its end.

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::os::fd::{AsFd as _, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::fs::{AtFlags, Dir, Mode, OFlags};
use serde::{Deserialize, Serialize};

use crate::config::Environment;
use crate::files::Files;
use crate::process::ProcessId;

/// An entry holds four short fields; a path is at most 4 KiB, and may be escaped.
const ENTRY_MAX: u64 = 32 * 1024;

/// Entries that are looked at: more than ever run at a time.
const ENTRIES_MAX: usize = 256;

const ENDING: &str = ".json";

/// The entry of the session that began last; it is none of those that run.
const LAST: &str = "last";

/// A session that is running.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    pub run_id: String,
    pub pid: u32,
    /// Ticks since boot, of the process: with the pid, its identity.
    pub start_time: u64,
    /// Absolute.
    pub database: PathBuf,
}

impl Entry {
    fn id(&self) -> ProcessId {
        ProcessId { pid: self.pid, start_time: self.start_time }
    }

    /// The second half of a run id.
    fn started_at(&self) -> i64 {
        self.run_id.rsplit_once('-').and_then(|(_, millis)| millis.parse().ok()).unwrap_or(0)
    }
}

/// An entry of this process; taken away when dropped.
#[derive(Debug)]
pub struct Registration {
    files: Files,
    directory: Arc<OwnedFd>,
    name: String,
}

impl Drop for Registration {
    fn drop(&mut self) {
        let (directory, name) = (Arc::clone(&self.directory), std::mem::take(&mut self.name));
        // What stays is recognised as stale.
        let _ = self.files.with_rights(move |_| rustix::fs::unlinkat(&*directory, &name, AtFlags::empty()));
    }
}

/// Enters a running session and takes stale entries away. `alive` tells the identity of a pid.
pub fn register(
    environment: &Environment,
    entry: &Entry,
    alive: impl Fn(u32) -> Option<ProcessId>,
) -> Option<Registration> {
    let files = &environment.files;
    let (bases, uid) = (bases(environment), owner(environment));
    let (directory, found) = files.with_rights(move |_| {
        let directory = writable_directory(bases, uid)?;
        let found = entries(&directory);
        Some((Arc::new(directory), found))
    })?;
    // Not with the user's rights, with which others' processes may be out of sight.
    let dead = found.into_iter().filter(|(_, found)| alive(found.pid) != Some(found.id()));
    let dead: Vec<String> = dead.map(|(name, _)| name).collect();
    let name = format!("{}{ENDING}", entry.run_id);
    let (within, file_name) = (Arc::clone(&directory), name.clone());
    let file = files.with_rights(move |_| {
        for name in dead {
            let _ = rustix::fs::unlinkat(&*within, &name, AtFlags::empty());
        }
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        rustix::fs::openat(&*within, &file_name, flags, Mode::RUSR | Mode::WUSR).ok()
    })?;
    // From here on, a failure takes the file away again.
    let registration = Registration { files: files.clone(), directory, name };
    let text = serde_json::to_vec(entry).ok()?;
    File::from(file).write_all(&text).ok()?;
    Some(registration)
}

/// The sessions of this user that are running, the one that started last first.
pub fn running(environment: &Environment, alive: impl Fn(u32) -> Option<ProcessId>) -> Vec<Entry> {
    let directories = directories(environment);
    let found = environment.files.with_rights(move |_| {
        let directories = directories.iter().filter_map(|path| open_directory(path));
        directories.flat_map(|directory| entries(&directory)).collect::<Vec<_>>()
    });
    let mut running: Vec<Entry> = found
        .into_iter()
        .map(|(_, entry)| entry)
        .filter(|entry| alive(entry.pid) == Some(entry.id()))
        .collect();
    running.sort_by_key(|entry| std::cmp::Reverse(entry.started_at()));
    running.dedup();
    running
}

/// Keeps an entry for questions after its session's end, in place of the one before.
pub fn remember(environment: &Environment, entry: &Entry) {
    let (bases, uid) = (state_bases(environment), owner(environment));
    let Ok(text) = serde_json::to_vec(entry) else { return };
    let name = format!("{LAST}-{}", entry.run_id);
    environment.files.with_rights(move |_| {
        let Some(directory) = writable_directory(bases, uid) else { return };
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let Ok(file) = rustix::fs::openat(&directory, &name, flags, Mode::RUSR | Mode::WUSR) else { return };
        // Whole or not at all: others may read it, or write it, at the same time.
        let is_written = File::from(file).write_all(&text).is_ok();
        let is_there = is_written && rustix::fs::renameat(&directory, &name, &directory, LAST).is_ok();
        if !is_there {
            let _ = rustix::fs::unlinkat(&directory, &name, AtFlags::empty());
        }
    });
}

/// The session of this user that began last, as far as its directory remembers.
pub fn last(environment: &Environment) -> Option<Entry> {
    let (bases, uid) = (state_bases(environment), owner(environment));
    environment.files.with_rights(move |_| {
        bases.into_iter().find_map(|(base, below)| {
            let directory = open_directory(&base.join(below))?;
            let is_own = rustix::fs::fstat(&directory).is_ok_and(|metadata| metadata.st_uid == uid);
            is_own.then(|| entry(&directory, LAST, uid)).flatten()
        })
    })
}

/// Directories that outlive a login, and what is made below them.
fn state_bases(environment: &Environment) -> Vec<(PathBuf, &'static str)> {
    let mut bases = Vec::new();
    // Under sudo the environment is root's.
    if environment.invoking_user.is_none() {
        let state = environment.variable("XDG_STATE_HOME").map(PathBuf::from);
        bases.extend(state.filter(|path| path.is_absolute()).map(|path| (path, "rano")));
    }
    bases.extend(environment.home.clone().map(|home| (home, ".local/state/rano")));
    bases
}

/// Where entries may be: the user's runtime directory, which ends with the login, else his state directory.
fn directories(environment: &Environment) -> Vec<PathBuf> {
    bases(environment).into_iter().map(|(base, below)| base.join(below)).collect()
}

/// Directories that have to exist, and what is made below them.
fn bases(environment: &Environment) -> Vec<(PathBuf, &'static str)> {
    let absolute = |name| environment.variable(name).map(PathBuf::from).filter(|path| path.is_absolute());
    let mut bases = Vec::new();
    // Under sudo the environment is root's, and the directories are to be the user's.
    if let Some(user) = &environment.invoking_user {
        bases.push((PathBuf::from(format!("/run/user/{}", user.uid)), "rano"));
    } else {
        bases.extend(absolute("XDG_RUNTIME_DIR").map(|path| (path, "rano")));
        let uid = rustix::process::geteuid().as_raw();
        bases.push((PathBuf::from(format!("/run/user/{uid}")), "rano"));
    }
    bases.extend(state_bases(environment));
    bases
}

/// Of what is made.
fn owner(environment: &Environment) -> u32 {
    let own = || rustix::process::geteuid().as_raw();
    environment.invoking_user.as_ref().map_or_else(own, |user| user.uid)
}

fn writable_directory(bases: Vec<(PathBuf, &'static str)>, uid: u32) -> Option<OwnedFd> {
    bases.into_iter().find_map(|(base, below)| {
        let mut directory = open_directory(&base)?;
        // A step at a time and through no link: below the base, the user may have put anything there.
        for part in below.split('/') {
            let _ = rustix::fs::mkdirat(&directory, part, Mode::RWXU);
            let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            directory = rustix::fs::openat(&directory, part, flags, Mode::empty()).ok()?;
        }
        let metadata = rustix::fs::fstat(&directory).ok()?;
        let mine = metadata.st_uid == uid;
        (mine
            && rustix::fs::accessat(&directory, ".", rustix::fs::Access::WRITE_OK, AtFlags::EACCESS).is_ok())
        .then_some(directory)
    })
}

fn open_directory(path: &Path) -> Option<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    rustix::fs::open(path, flags, Mode::empty()).ok()
}

/// Names and contents of what can be read as an entry and belongs to the directory's owner or to root.
fn entries(directory: &OwnedFd) -> Vec<(String, Entry)> {
    let (Ok(listing), Ok(metadata)) = (Dir::read_from(directory), rustix::fs::fstat(directory)) else {
        return Vec::new();
    };
    let names = listing.filter_map(|entry| entry.ok()?.file_name().to_str().ok().map(str::to_owned));
    let names: Vec<_> = names.filter(|name| name.ends_with(ENDING)).take(ENTRIES_MAX).collect();
    let owner = metadata.st_uid;
    names.into_iter().filter_map(|name| entry(directory, &name, owner).map(|entry| (name, entry))).collect()
}

/// What can be read as an entry and belongs to `owner` or to root.
fn entry(directory: &OwnedFd, name: &str, owner: u32) -> Option<Entry> {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let file = rustix::fs::openat(directory.as_fd(), name, flags, Mode::empty()).ok()?;
    let of = rustix::fs::fstat(&file).ok()?.st_uid;
    if of != owner && of != 0 {
        return None;
    }
    let mut text = Vec::new();
    File::from(file).take(ENTRY_MAX).read_to_end(&mut text).ok()?;
    serde_json::from_slice(&text).ok()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    fn entry(pid: u32, started_at: i64) -> Entry {
        let run_id = format!("{pid}-{started_at}");
        Entry { run_id, pid, start_time: u64::from(pid) * 10, database: "/tmp/a b.sqlite".into() }
    }

    fn alive(pid: u32) -> Option<ProcessId> {
        (pid < 100).then_some(ProcessId { pid, start_time: u64::from(pid) * 10 })
    }

    #[test]
    fn what_is_registered_is_found_until_it_is_dropped() {
        let home = tempfile::tempdir().expect("a directory");
        let runtime = home.path().to_str().expect("UTF-8");
        let environment = Environment::of(home.path(), &[("XDG_RUNTIME_DIR", runtime)]);
        assert!(running(&environment, alive).is_empty());
        let older = register(&environment, &entry(7, 1000), alive).expect("registered");
        let newer = register(&environment, &entry(6, 2000), alive).expect("registered");
        assert_eq!(running(&environment, alive), [entry(6, 2000), entry(7, 1000)]);
        let file = home.path().join("rano/7-1000.json");
        assert_eq!(file.metadata().expect("a file").permissions().mode() & 0o777, 0o600);
        drop(newer);
        assert_eq!(running(&environment, alive), [entry(7, 1000)]);
        drop(older);
        assert!(!file.exists());
    }

    #[test]
    fn the_last_session_is_remembered_beyond_its_end() {
        let home = tempfile::tempdir().expect("a directory");
        let state = home.path().join("state");
        std::fs::create_dir(&state).expect("a directory");
        let environment = Environment::of(home.path(), &[("XDG_STATE_HOME", state.to_str().expect("UTF-8"))]);
        assert_eq!(last(&environment), None);
        remember(&environment, &entry(7, 1000));
        remember(&environment, &entry(200, 2000));
        assert_eq!(last(&environment), Some(entry(200, 2000)));
        assert!(running(&environment, alive).is_empty(), "what is remembered does not run");
        let left = std::fs::read_dir(state.join("rano")).expect("a directory").count();
        assert_eq!(left, 1);
        let file = state.join("rano/last");
        assert_eq!(file.metadata().expect("a file").permissions().mode() & 0o777, 0o600);
        // Registering clears the dead away, and keeps this.
        let _registered = register(&environment, &entry(6, 3000), alive).expect("registered");
        assert_eq!(last(&environment), Some(entry(200, 2000)));
        std::fs::remove_file(&file).expect("removed");
        std::os::unix::fs::symlink("/dev/zero", &file).expect("a link");
        assert_eq!(last(&environment), None);
        // Without the variable it is in the home.
        let environment = Environment::of(home.path(), &[]);
        remember(&environment, &entry(7, 1000));
        assert!(home.path().join(".local/state/rano/last").exists());
        assert_eq!(last(&environment), Some(entry(7, 1000)));
    }

    #[test]
    fn the_dead_are_not_found_and_are_cleared_away() {
        let home = tempfile::tempdir().expect("a directory");
        let runtime = home.path().to_str().expect("UTF-8");
        let environment = Environment::of(home.path(), &[("XDG_RUNTIME_DIR", runtime)]);
        let dead = register(&environment, &entry(200, 1000), alive).expect("registered");
        std::mem::forget(dead);
        let reused = Entry { start_time: 1, ..entry(8, 1000) };
        std::mem::forget(register(&environment, &reused, alive).expect("registered"));
        assert!(running(&environment, alive).is_empty());
        let _mine = register(&environment, &entry(7, 3000), alive).expect("registered");
        let left = std::fs::read_dir(home.path().join("rano")).expect("a directory").count();
        assert_eq!(left, 1);
    }

    #[test]
    fn nonsense_in_the_directory_is_passed_over() {
        let home = tempfile::tempdir().expect("a directory");
        let runtime = home.path().to_str().expect("UTF-8");
        let environment = Environment::of(home.path(), &[("XDG_RUNTIME_DIR", runtime)]);
        let directory = home.path().join("rano");
        std::fs::create_dir(&directory).expect("a directory");
        std::fs::write(directory.join("a.json"), b"\xff{").expect("a file");
        std::fs::create_dir(directory.join("b.json")).expect("a directory");
        std::os::unix::fs::symlink("/dev/zero", directory.join("c.json")).expect("a link");
        assert!(running(&environment, alive).is_empty());
    }
}
