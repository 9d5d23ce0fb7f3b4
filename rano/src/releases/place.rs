//! Putting another program in the place of this one: who owns the file, who may write it, and how it is replaced so
//! that a program which starts is there at every moment.

use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{self, Write as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use rustix::fs::{Access, XattrFlags, access, getxattr, setxattr};

/// A package manager: how it is asked whose a file is, and how it updates rano.
struct Manager {
    program: &'static str,
    arguments: &'static [&'static str],
    command: &'static str,
}

/// Each exits with 0 if a package of its own has the file.
const MANAGERS: [Manager; 4] = [
    Manager {
        program: "dpkg-query",
        arguments: &["-S"],
        command: "sudo apt-get install --only-upgrade rano, or dpkg -i with a newer .deb",
    },
    Manager {
        program: "rpm",
        arguments: &["-qf"],
        command: "sudo dnf upgrade rano, or rpm -U with a newer .rpm",
    },
    Manager { program: "pacman", arguments: &["-Qo"], command: "sudo pacman -Syu rano" },
    Manager { program: "apk", arguments: &["info", "--who-owns"], command: "sudo apk upgrade rano" },
];

/// The command that updates the file at `path`, where that is a package manager's work.
pub fn managers_command(path: &Path) -> Option<&'static str> {
    if path.starts_with("/nix/store") || path.starts_with("/gnu/store") {
        return Some("the command that installed it: this directory is never changed");
    }
    if installed_by_cargo(path) {
        return Some("cargo install rano --locked");
    }
    // No package has a file of a user's; and rpm makes a database of its own where there is none.
    if !["/usr", "/bin", "/sbin", "/opt"].iter().any(|system| path.starts_with(system)) {
        return None;
    }
    let owns = |manager: &&Manager| {
        let mut command = Command::new(manager.program);
        command.args(manager.arguments).arg(path);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        command.status().is_ok_and(|status| status.success())
    };
    MANAGERS.iter().find(owns).map(|manager| manager.command)
}

/// Cargo notes beside its `bin` what it installed.
fn installed_by_cargo(path: &Path) -> bool {
    let Some(root) = path.parent().filter(|bin| bin.ends_with("bin")).and_then(Path::parent) else {
        return false;
    };
    fs::read_to_string(root.join(".crates.toml")).is_ok_and(|list| list.contains("\"rano "))
}

/// Why the file at a path cannot or must not be replaced.
#[derive(Debug, thiserror::Error)]
pub enum Problem {
    #[error("cannot write to {0}")]
    NotWritable(PathBuf),
    #[error("{0} can be written by others than root")]
    NotRoots(PathBuf),
    #[error("write {path}")]
    Write {
        path: PathBuf,
        #[source]
        error: io::Error,
    },
    #[error("the new program does not start: {0}")]
    DoesNotStart(String),
    #[error("the new program did not start in its place, and the old one is back: {0}")]
    RolledBack(String),
}

/// Whether the file at `path` may be replaced by whoever runs this.
pub fn check(path: &Path) -> Result<(), Problem> {
    let directory = directory(path);
    let metadata = fs::metadata(directory).map_err(|_| Problem::NotWritable(directory.to_owned()))?;
    if rustix::process::geteuid().is_root() {
        // Somebody else could put his program in the place of the one that root starts to see if it does.
        if metadata.uid() != 0 || metadata.mode() & 0o002 != 0 {
            return Err(Problem::NotRoots(directory.to_owned()));
        }
        return Ok(());
    }
    access(directory, Access::WRITE_OK).map_err(|_| Problem::NotWritable(directory.to_owned()))
}

fn directory(path: &Path) -> &Path {
    path.parent().unwrap_or(Path::new("/"))
}

/// What became of the file.
#[derive(Debug)]
pub struct Replaced {
    /// Where the old program is now; `None` where there was none.
    pub old: Option<PathBuf>,
    /// The old program had file capabilities, and the new one could not be given them.
    pub lost_capabilities: bool,
}

const CAPABILITIES: &str = "security.capability";

/// Writes `program` beside `path`, sees if it starts as `expected`, keeps what is there as `….old`, and renames. If
/// anything fails, what was at `path` still is.
pub fn replace(path: &Path, program: &[u8], expected: &str) -> Result<Replaced, Problem> {
    check(path)?;
    let new = beside(path, &format!(".new.{}", std::process::id()));
    let outcome = written(&new, path, program)
        .map_err(|error| Problem::Write { path: new.clone(), error })
        .and_then(|lost| exchange(path, &new, expected, lost));
    if outcome.is_err() {
        let _ = fs::remove_file(&new);
    }
    outcome
}

fn beside(path: &Path, ending: &str) -> PathBuf {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(ending);
    path.with_file_name(name)
}

/// Whether capabilities of the old program are lost.
fn written(new: &Path, old: &Path, program: &[u8]) -> io::Result<bool> {
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o700).open(new)?;
    file.write_all(program)?;
    let mode = fs::metadata(old).map_or(0o755, |metadata| metadata.permissions().mode() & 0o777 | 0o500);
    file.set_permissions(Permissions::from_mode(mode))?;
    file.sync_all()?;
    drop(file);
    let mut capabilities = [0; 64];
    let Ok(length) = getxattr(old, CAPABILITIES, &mut capabilities) else { return Ok(false) };
    Ok(setxattr(new, CAPABILITIES, &capabilities[..length], XattrFlags::CREATE).is_err())
}

fn exchange(path: &Path, new: &Path, expected: &str, lost: bool) -> Result<Replaced, Problem> {
    starts(new, expected).map_err(Problem::DoesNotStart)?;
    let failed = |path: &Path| {
        let path = path.to_owned();
        move |error| Problem::Write { path, error }
    };
    let old = beside(path, ".old");
    let had_one = path.exists();
    if had_one {
        match fs::remove_file(&old) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(failed(&old)(error)),
            _ => {}
        }
        fs::hard_link(path, &old).or_else(|_| copy(path, &old)).map_err(failed(&old))?;
    }
    fs::rename(new, path).map_err(failed(path))?;
    if let Err(why) = starts(path, expected) {
        if had_one {
            fs::rename(&old, path).map_err(failed(path))?;
        } else {
            fs::remove_file(path).map_err(failed(path))?;
        }
        return Err(Problem::RolledBack(why));
    }
    if let Ok(directory) = File::open(directory(path)) {
        // Some file systems sync no directories, and the rename has happened anyhow.
        let _ = directory.sync_all();
    }
    Ok(Replaced { old: had_one.then_some(old), lost_capabilities: lost })
}

fn copy(from: &Path, to: &Path) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o755).open(to)?;
    io::copy(&mut File::open(from)?, &mut file).map(drop)
}

/// Whether the program at `path` prints a version that begins with `expected`, else what it did.
fn starts(path: &Path, expected: &str) -> Result<(), String> {
    let run = || Command::new(path).arg("--version").stdin(Stdio::null()).output();
    let mut output = run();
    // A process that was forked while the file was written holds it open until its own exec.
    for _ in 0..100 {
        if !matches!(&output, Err(error) if error.kind() == io::ErrorKind::ExecutableFileBusy) {
            break;
        }
        std::thread::sleep(Duration::from_millis(20));
        output = run();
    }
    let output = output.map_err(|error| error.to_string())?;
    let said = String::from_utf8_lossy(&output.stdout).trim().to_owned();
    if !output.status.success() {
        let error = String::from_utf8_lossy(&output.stderr);
        let error = error.lines().next().unwrap_or_default();
        return Err(format!("{} {error}", output.status).trim().to_owned());
    }
    if said == expected || expected.ends_with(' ') && said.starts_with(expected) {
        return Ok(());
    }
    Err(format!("it says '{said}' instead of '{}'", expected.trim()))
}

#[cfg(test)]
mod tests {
    use super::*;

    const RUNS: &[u8] = b"#!/bin/sh\necho rano 9.9.9\n";

    fn names(directory: &Path) -> Vec<String> {
        let entries = fs::read_dir(directory).unwrap();
        let mut names: Vec<_> =
            entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    fn place() -> (tempfile::TempDir, PathBuf) {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("rano");
        fs::write(&path, "old").unwrap();
        (directory, path)
    }

    #[test]
    fn the_old_program_is_kept_beside_the_new_one() {
        let (directory, path) = place();
        let replaced = replace(&path, RUNS, "rano 9.9.9").unwrap();
        assert_eq!(fs::read(&path).unwrap(), RUNS);
        assert_eq!(fs::read_to_string(replaced.old.unwrap()).unwrap(), "old");
        assert_eq!(names(directory.path()), ["rano", "rano.old"]);
        assert!(!replaced.lost_capabilities);
    }

    #[test]
    fn what_does_not_start_replaces_nothing() {
        for program in [&b"#!/bin/sh\nexit 3\n"[..], b"#!/bin/sh\necho rano 9.9.8\n", b"\x7fELF", b""] {
            let (directory, path) = place();
            let outcome = replace(&path, program, "rano 9.9.9");
            assert!(matches!(outcome, Err(Problem::DoesNotStart(_))), "{outcome:?}");
            assert_eq!(fs::read_to_string(&path).unwrap(), "old");
            assert_eq!(names(directory.path()), ["rano"]);
        }
    }

    #[test]
    fn what_starts_only_beside_its_place_is_rolled_back() {
        let (directory, path) = place();
        let picky = b"#!/bin/sh\ncase $0 in *.new.*) echo rano 9.9.9;; *) exit 1;; esac\n";
        let outcome = replace(&path, picky, "rano 9.9.9");
        assert!(matches!(outcome, Err(Problem::RolledBack(_))), "{outcome:?}");
        assert_eq!(fs::read_to_string(&path).unwrap(), "old");
        assert_eq!(names(directory.path()), ["rano"]);
    }

    #[test]
    fn what_cargo_installed_is_cargos() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("bin/rano");
        assert_eq!(managers_command(&path), None);
        let list = "[v1]\n\"rano 0.1.0 (path+file:///x/rano)\" = [\"rano\"]\n";
        fs::write(root.path().join(".crates.toml"), list).unwrap();
        assert_eq!(managers_command(&path), Some("cargo install rano --locked"));
    }
}
