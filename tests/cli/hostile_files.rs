//! Files that somebody else made, exchanged or leads elsewhere, as a table: what is done × to which file × who runs
//! rano. No cell creates, changes or shows a file of root's, tells a stranger anything, hangs or crashes.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, chown, symlink};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, ensure};
use rustix::process::Signal;
use tempfile::TempDir;

use crate::support::actor::{Actor, Transport};
use crate::support::namespace::{Place, User};
use crate::support::rano::{Finished, Launch};
use crate::support::scene::{FAST, Scene};
use crate::support::stage;

crate::tests![root_is_led_nowhere, sudo_has_the_rights_of_the_user_only, an_ordinary_user_is_led_nowhere,];

/// In none of the output, whoever runs rano.
const SECRET: &str = "hunter2secret";
/// A user who is neither root nor the one who runs rano.
const STRANGER: u32 = 60_001;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Who {
    Root,
    /// The attacker is the invoking user: the agent runs as he does.
    Sudo,
    User,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Target {
    Sqlite,
    Wal,
    Shm,
    Journal,
    LogFile,
    LogDir,
    Config,
    Preset,
    Toml,
    /// Written with `--record`.
    Recording,
    /// Read with `--replay`.
    Replay,
}

impl Target {
    const ALL: [Self; 11] = [
        Self::Sqlite,
        Self::Wal,
        Self::Shm,
        Self::Journal,
        Self::LogFile,
        Self::LogDir,
        Self::Config,
        Self::Preset,
        Self::Toml,
        Self::Recording,
        Self::Replay,
    ];

    /// Where rano looks for it, below the directory in which it is started.
    fn path(self) -> &'static str {
        match self {
            Self::Sqlite => "sub/observer.sqlite",
            Self::Wal => "sub/observer.sqlite-wal",
            Self::Shm => "sub/observer.sqlite-shm",
            Self::Journal => "sub/observer.sqlite-journal",
            Self::LogFile => "sub/events.log",
            Self::LogDir => "sub/logs",
            Self::Config => ".config/rano/config.conf",
            Self::Preset => ".config/rano/presets/mine.conf",
            Self::Toml => ".config/rano/rano.toml",
            Self::Recording | Self::Replay => "sub/raw.jsonl",
        }
    }

    fn is_beside_a_database(self) -> bool {
        matches!(self, Self::Wal | Self::Shm | Self::Journal)
    }

    fn is_only_read(self) -> bool {
        matches!(self, Self::Config | Self::Preset | Self::Toml | Self::Replay)
    }

    /// The option that names it, where there is one.
    fn option(self) -> Option<(&'static str, &'static str)> {
        match self {
            Self::Sqlite | Self::Wal | Self::Shm | Self::Journal => Some(("sqlite", "sub/observer.sqlite")),
            Self::LogFile => Some(("log_file", "sub/events.log")),
            Self::LogDir => Some(("log_dir", "sub/logs")),
            Self::Preset => Some(("preset", "mine")),
            Self::Recording => Some(("record", "sub/raw.jsonl")),
            Self::Replay => Some(("replay", "sub/raw.jsonl")),
            Self::Config | Self::Toml => None,
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Attack {
    /// A link to a file of root's that does not exist.
    Create,
    /// A link to one that does, and is to be appended to or overwritten.
    Append,
    /// The same, and its content is to be shown.
    Read,
    /// A link to a stranger's file, which is to learn something.
    Link,
    /// Another name of a file of root's.
    HardLink,
    Fifo,
    /// An empty file that a stranger made and can write.
    Premade,
    /// Cut while rano runs.
    Truncated,
    /// Exchanged for a link to root's file while rano runs.
    Replaced,
    /// Its directory is a link to root's directory, from the beginning.
    DirectoryLink,
    /// Its directory becomes one while rano runs.
    DirectorySwapped,
}

impl Attack {
    const ALL: [Self; 11] = [
        Self::Create,
        Self::Append,
        Self::Read,
        Self::Link,
        Self::HardLink,
        Self::Fifo,
        Self::Premade,
        Self::Truncated,
        Self::Replaced,
        Self::DirectoryLink,
        Self::DirectorySwapped,
    ];

    fn comes_later(self) -> bool {
        matches!(self, Self::Truncated | Self::Replaced | Self::DirectorySwapped)
    }
}

/// Why a cell of the table is left out.
fn senseless(who: Who, target: Target, attack: Attack) -> Option<&'static str> {
    match (target, attack) {
        (Target::LogDir, Attack::HardLink) => Some("directories have no hard links"),
        (Target::LogDir, Attack::Truncated) => Some("a directory cannot be cut"),
        (Target::LogDir, Attack::Premade) => Some("what lies in it is made anew, and is private"),
        (target, attack) if target.is_only_read() && attack.comes_later() => Some("it is read once"),
        (target, Attack::Truncated) if target.is_beside_a_database() || target == Target::Sqlite => {
            Some("what is in a database is another table's matter")
        }
        (_, Attack::Truncated) if who != Who::Sudo => Some("nobody else may write it: it is 0600"),
        (_, Attack::HardLink) if who == Who::User => {
            Some("with his own rights he cannot write a file of root's under any name")
        }
        (Target::Config | Target::Preset | Target::Toml | Target::Replay, Attack::Premade)
            if who != Who::Root =>
        {
            Some("it is his own, or he named it")
        }
        (Target::Replay, Attack::Fifo) => Some("who names a pipe wants it to be waited for"),
        _ => None,
    }
}

/// Whether rano has to refuse to start; else it must only do no harm.
fn is_refused(who: Who, target: Target, attack: Attack) -> bool {
    match attack {
        Attack::Truncated | Attack::Replaced | Attack::DirectorySwapped => false,
        // A stranger's file that is only read tells nothing to him.
        Attack::Link | Attack::Create if target.is_only_read() => false,
        // An ordinary user's link to a directory leads where he may go himself.
        Attack::Link if target == Target::LogDir || target.is_beside_a_database() => false,
        // The index and the rollback journal of a database that nobody else has open may not be needed.
        _ if target.is_beside_a_database() => false,
        Attack::DirectoryLink if target.is_only_read() => false,
        // The config is said to be unreadable and nothing else.
        Attack::Fifo | Attack::HardLink | Attack::Premade if target == Target::Replay => false,
        Attack::HardLink => who != Who::User && !(who == Who::Sudo && target.is_only_read()),
        _ => true,
    }
}

/// Root's directory and a stranger's, and the one in which rano is started.
struct Stage {
    who: Who,
    /// Of who runs rano.
    place: Place,
    uid: u32,
    work: TempDir,
    roots: TempDir,
    strangers: TempDir,
    agent: Actor,
}

type Listing = BTreeMap<PathBuf, (u32, u32, Vec<u8>)>;

/// Owner, mode and content of everything in a directory.
fn listing(directory: &Path) -> Result<Listing> {
    let mut found = Listing::new();
    for entry in fs::read_dir(directory)? {
        let path = entry?.path();
        let metadata = path.symlink_metadata()?;
        let content = if metadata.is_file() { fs::read(&path)? } else { Vec::new() };
        found.insert(path, (metadata.uid(), metadata.mode(), content));
    }
    Ok(found)
}

impl Stage {
    fn new(scene: &Scene, who: Who) -> Result<Self> {
        let ordinary = scene.place.with_user(User::Ordinary);
        let root = scene.place.with_user(User::Root);
        let stage = Self {
            who,
            uid: ordinary.uid(),
            work: stage::directory(&root)?,
            roots: stage::directory(&root)?,
            strangers: stage::directory(&root)?,
            agent: Actor::start(if who == Who::User { &ordinary } else { &root }, "claude")?,
            place: if who == Who::User { ordinary } else { root },
        };
        fs::write(stage.roots.path().join("victim"), SECRET)?;
        fs::set_permissions(stage.roots.path().join("victim"), fs::Permissions::from_mode(0o600))?;
        fs::write(stage.strangers.path().join("file"), "")?;
        for path in [stage.strangers.path().to_owned(), stage.strangers.path().join("file")] {
            chown(&path, Some(STRANGER), Some(STRANGER))?;
            fs::set_permissions(&path, fs::Permissions::from_mode(0o777))?;
        }
        for directory in ["", "sub", ".config", ".config/rano", ".config/rano/presets"] {
            let path = stage.work.path().join(directory);
            fs::create_dir_all(&path)?;
            stage.give(&path, 0o777)?;
        }
        Ok(stage)
    }

    /// Gives a path to whom the directory belongs that rano works in: under sudo the user, else a stranger.
    fn give(&self, path: &Path, mode: u32) -> Result<()> {
        let uid = if self.who == Who::Sudo { self.uid } else { STRANGER };
        chown(path, Some(uid), Some(uid))?;
        Ok(fs::set_permissions(path, fs::Permissions::from_mode(mode))?)
    }

    fn launch(&self, target: Target, by_configuration: bool) -> Result<Launch> {
        let mut launch = Launch::new(&self.place, self.work.path())?.args(["--source", "proc"]);
        if self.who == Who::Sudo {
            let id = self.uid.to_string();
            launch = launch.env("SUDO_UID", &id).env("SUDO_GID", &id).env("SUDO_USER", "someone");
        }
        if !matches!(target, Target::Sqlite | Target::Wal | Target::Shm | Target::Journal) {
            launch = launch.args(["--no-sqlite"]);
        }
        Ok(match target.option() {
            Some((option, value)) if by_configuration => {
                launch.env(&format!("RANO_{}", option.to_uppercase()), value)
            }
            Some((option, value)) => launch.args([&format!("--{}", option.replace('_', "-")), value]),
            None => launch,
        })
    }

    fn prepare(&self, target: Target, attack: Attack) -> Result<()> {
        let path = self.work.path().join(target.path());
        let name = path.file_name().context("it has a name")?;
        if target.is_beside_a_database() {
            self.launch(target, false)?.args(["--once"]).run()?.expect_code(0)?;
        }
        match attack {
            Attack::Create => symlink(self.roots.path().join("new"), &path)?,
            Attack::Append | Attack::Read if target == Target::LogDir => symlink(self.roots.path(), &path)?,
            Attack::Append | Attack::Read => symlink(self.roots.path().join("victim"), &path)?,
            Attack::Link if target == Target::LogDir => symlink(self.strangers.path(), &path)?,
            Attack::Link => symlink(self.strangers.path().join("file"), &path)?,
            Attack::HardLink => fs::hard_link(self.roots.path().join("victim"), &path)?,
            Attack::Fifo => {
                let mode = rustix::fs::Mode::from_raw_mode(0o666);
                rustix::fs::mknodat(rustix::fs::CWD, &path, rustix::fs::FileType::Fifo, mode, 0)?;
                self.give(&path, 0o666)?;
            }
            Attack::Premade => {
                fs::write(&path, "")?;
                self.give(&path, 0o666)?;
            }
            Attack::DirectoryLink => {
                let directory = path.parent().context("it lies in one")?;
                if target.is_only_read() {
                    fs::rename(self.roots.path().join("victim"), self.roots.path().join(name))?;
                }
                fs::remove_dir_all(directory)?;
                symlink(self.roots.path(), directory)?;
            }
            Attack::Truncated | Attack::Replaced | Attack::DirectorySwapped => {}
        }
        Ok(())
    }

    /// While rano has the file open.
    fn strike(&self, target: Target, attack: Attack) -> Result<()> {
        let path = self.work.path().join(target.path());
        match attack {
            Attack::Truncated => fs::OpenOptions::new().write(true).open(&path)?.set_len(0)?,
            Attack::Replaced => {
                fs::rename(&path, path.with_extension("old")).or_else(|error| match error.kind() {
                    // A rollback journal comes and goes.
                    std::io::ErrorKind::NotFound => Ok(()),
                    _ => Err(error),
                })?;
                let leads_to = if target == Target::LogDir { "" } else { "victim" };
                symlink(self.roots.path().join(leads_to), &path)?;
            }
            Attack::DirectorySwapped => {
                let directory = path.parent().context("it lies in one")?;
                // What rano would remove in its own directory.
                fs::write(self.roots.path().join(path.file_name().context("a name")?), SECRET)?;
                fs::rename(directory, directory.with_extension("old"))?;
                symlink(self.roots.path(), directory)?;
            }
            _ => {}
        }
        Ok(())
    }
}

fn check(scene: &Scene, who: Who, target: Target, attack: Attack, by_configuration: bool) -> Result<()> {
    let mut stage = Stage::new(scene, who)?;
    stage.prepare(target, attack)?;
    let mut before = listing(stage.roots.path())?;
    let finished = if attack.comes_later() {
        let rano = stage.launch(target, by_configuration)?.args(FAST).start()?;
        let (_, first) = stage.agent.connect(Transport::Tcp, scene.tcp)?;
        rano.wait_for_event("connect", first)?;
        stage.strike(target, attack)?;
        before = listing(stage.roots.path())?;
        rano.signal(Signal::USR1)?;
        let (_, second) = stage.agent.connect(Transport::Tcp, scene.tcp)?;
        rano.wait_for_event("connect", second)?;
        rano.interrupt()?
    } else {
        stage.launch(target, by_configuration)?.args(["--once"]).run()?
    };
    ensure!(listing(stage.roots.path())? == before, "root's files are not what they were: {finished:#?}");
    let told = fs::read(stage.strangers.path().join("file"))?;
    ensure!(told.is_empty(), "a stranger learned {} bytes", told.len());
    ensure!(!finished.stdout.contains(SECRET) && !finished.stderr.contains(SECRET), "{finished:#?}");
    ensure!(!finished.stderr.contains("panicked"), "{finished:#?}");
    let premade = stage.work.path().join(target.path());
    if attack == Attack::Premade && !target.is_only_read() {
        // SQLite may have taken an empty file beside its database away and made its own.
        let metadata = premade.metadata();
        let is_private = metadata.is_ok_and(|file| file.mode() & 0o777 == 0o600);
        ensure!(
            is_private || fs::read(&premade).unwrap_or_default().is_empty(),
            "it was used: {finished:#?}"
        );
    }
    check_end(&finished, is_refused(who, target, attack))
}

fn check_end(finished: &Finished, is_refused: bool) -> Result<()> {
    let code = finished.status.code().context("it was killed")?;
    if is_refused {
        ensure!(code == 2 || code == 3, "not refused: {finished:#?}");
    }
    if code == 2 || code == 3 {
        let errors = finished.stderr.lines().filter(|line| line.starts_with("error: ")).count();
        let hints = finished.stderr.lines().filter(|line| line.starts_with("hint: ")).count();
        // What was opened and is lost while rano runs ends nothing; the code at the end says it.
        let while_it_runs = ["cannot write to", "again:", "; the history goes on in "];
        let is_counted =
            [&finished.stdout, &finished.stderr].iter().any(|text| text.contains("sqlite dropped"));
        let waits = finished.stderr.contains("; events wait in the queue") && is_counted;
        let warned = waits || while_it_runs.iter().any(|words| finished.stderr.contains(words));
        ensure!((errors, hints) == (1, 1) || warned, "one line, and the next step: {finished:#?}");
    }
    ensure!(code <= 3, "{finished:#?}");
    Ok(())
}

fn check_all(who: Who) -> Result<()> {
    let scene = Scene::new(User::Root)?;
    let (mut tried, mut wrong) = (0, Vec::new());
    for target in Target::ALL {
        for attack in Attack::ALL {
            if senseless(who, target, attack).is_some() {
                continue;
            }
            for by_configuration in [false, true] {
                tried += 1;
                if let Err(error) = check(&scene, who, target, attack, by_configuration) {
                    wrong.push(format!("{target:?} {attack:?} (configured: {by_configuration}): {error:?}"));
                }
            }
        }
    }
    ensure!(wrong.is_empty(), "{} of {tried} cells: {}", wrong.len(), wrong.join("\n\n"));
    Ok(())
}

fn root_is_led_nowhere() -> Result<()> {
    check_all(Who::Root)
}

fn sudo_has_the_rights_of_the_user_only() -> Result<()> {
    check_all(Who::Sudo)
}

fn an_ordinary_user_is_led_nowhere() -> Result<()> {
    check_all(Who::User)
}
