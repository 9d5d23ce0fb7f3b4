//! Opening a database to read it: nothing is made or changed, neither the file nor what lies beside it, whether a
//! writer is at work, was killed, or the directory may only be read.

use std::fs::{File, Metadata};
use std::io::Read as _;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{FileExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use rusqlite::{Connection, OpenFlags};
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use sha2::{Digest as _, Sha256};

use super::defence::{self, Budget, Purpose};
use super::held;
use super::open::{OpenError, OpenProblem, check_file};
use super::schema;
use super::sigbus::Mappings;
use super::system::{self, Access};
use super::watch::{beside as name_beside, is_log};
use crate::files::{self, Problem, Rights};

/// How long a lock is waited for. Readers meet one only where the filesystem cannot do without.
const LOCK_PATIENCE: Duration = Duration::from_secs(2);

/// A log's beginning is written at once; who looks in between looks again.
const LOG_PAUSE: Duration = Duration::from_millis(2);

/// A reader that meets a starting writer begins again; twice in a row needs two of them.
const TRIES: usize = 3;

/// A database open for reading, in one snapshot.
#[derive(Debug)]
pub struct History {
    pub(super) connection: Connection,
    path: PathBuf,
    /// What the file looked like, where SQLite was told that nobody writes.
    unwatched: Option<Seen>,
    mappings: Mappings,
    /// Of the file, when it was opened.
    size: u64,
}

/// Size, modification time and whether there is a log: they change when a writer comes.
#[derive(Debug, PartialEq, Eq)]
struct Seen {
    size: u64,
    modified: (i64, i64),
    log: bool,
}

impl History {
    /// Opens `path`, asks it with `query`, and asks again if a writer came in between.
    pub fn ask<T>(path: &Path, query: impl Fn(&Self) -> rusqlite::Result<T>) -> Result<T, OpenError> {
        let failed = |problem| OpenError { path: path.to_owned(), problem };
        let mut tries = TRIES;
        let mut was_cut = false;
        loop {
            tries -= 1;
            let history = match Self::open(path) {
                Err(_) if was_cut => return Err(failed(OpenProblem::Cut)),
                opened => opened?,
            };
            let answer = query(&history);
            if tries > 0 && history.was_written() {
                was_cut |= history.was_cut();
                continue;
            }
            return history.checked(answer).map_err(failed);
        }
    }

    /// What was read, unless the file was cut meanwhile: then it says nothing, and an error says too little.
    pub fn checked<T>(&self, answer: rusqlite::Result<T>) -> Result<T, OpenProblem> {
        if self.was_cut() { Err(OpenProblem::Cut) } else { answer.map_err(Into::into) }
    }

    fn was_cut(&self) -> bool {
        let now = self.path.metadata().map_or(u64::MAX, |now| now.len());
        // VACUUM too makes it shorter, down to what this snapshot has.
        self.mappings.were_cut() || (now < self.size && self.pages().is_none_or(|size| now < size))
    }

    /// Bytes of all pages in the snapshot.
    fn pages(&self) -> Option<u64> {
        let number =
            |pragma| self.connection.pragma_query_value(None, pragma, |row| row.get::<_, i64>(0)).ok();
        u64::try_from(number("page_count")?.checked_mul(number("page_size")?)?).ok()
    }

    /// Opens `path`. Whoever uses more than one statement asks [`History::was_written`] in the end.
    pub fn open(path: &Path) -> Result<Self, OpenError> {
        open(path).map_err(|problem| OpenError { path: path.to_owned(), problem })
    }

    /// Whether what was read since the opening may contradict itself, because a writer came when there was none.
    pub fn was_written(&self) -> bool {
        self.unwatched.as_ref().is_some_and(|seen| Seen::of(&self.path).ok().as_ref() != Some(seen))
    }
}

impl History {
    /// SHA-256 of the file at `path` as it is now, and of the log beside it, which has what was written last.
    pub fn hash(path: &Path) -> Result<String, OpenError> {
        hash(path).map_err(|problem| OpenError { path: path.to_owned(), problem })
    }

    fn check_schema(&self) -> Result<(), OpenProblem> {
        let tables: i64 =
            self.connection.query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get(0))?;
        if tables == 0 {
            return Err(OpenProblem::Empty);
        }
        let version = schema::version(&self.connection)?;
        defence::check_schema(&self.connection, version, Purpose::Read)?;
        schema::stand_in(&self.connection, version)?;
        Ok(())
    }
}

fn hash(path: &Path) -> Result<String, OpenProblem> {
    let (path, file) = files::open_database(path, &Rights::here()).map_err(OpenProblem::from)?;
    check_file(&file)?;
    let (hash, size) = digest(file)?;
    let mut text = format!("SHA-256 of the database ({size} bytes): {hash}");
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::NOFOLLOW;
    if let Ok(log) = rustix::fs::open(name_beside(&path, "-wal"), flags, Mode::empty()) {
        let (hash, size) = digest(log.into())?;
        if size > 0 {
            text = format!("{text}; of its log ({size} bytes): {hash}");
        }
    }
    Ok(text)
}

impl Seen {
    fn of(path: &Path) -> std::io::Result<Self> {
        let metadata = path.metadata()?;
        Ok(Self {
            size: metadata.len(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
            log: beside(path, "-wal").is_some_and(|log| log.len() > 0),
        })
    }
}

fn open(path: &Path) -> Result<History, OpenProblem> {
    system::install(Access::Read);
    let (path, version) = if held::is_held(path) {
        // What it writes it has checked.
        (path.canonicalize()?, WAL)
    } else {
        checked(path)?
    };

    let seen = Seen::of(&path)?;
    let size = seen.size;
    let log = beside(&path, "-wal");
    if version == WAL {
        check_log(&path)?;
    }
    let (parameter, unwatched) = if version != WAL {
        ("", None)
    } else if log.is_some() && beside(&path, "-shm").is_some() {
        // A writer's, or what a killed one left. The index is read and not rebuilt.
        ("?readonly_shm=1", None)
    } else if log.is_none_or(|log| log.len() == 0) {
        // SQLite would make both files, and a reader cannot take them away again.
        ("?immutable=1", Some(seen))
    } else {
        // A log whose index is lost: only SQLite can read it, and makes a new index.
        ("", None)
    };
    let flags =
        OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_URI | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let mappings = Mappings::watch();
    let mut connection = Connection::open_with_flags(uri(&path, parameter), flags)?;
    defence::harden(&connection)?;
    let budget = Budget::default();
    budget.bind(&mut connection)?;
    budget.grant(defence::bytes_on_disk(&path));
    connection.busy_timeout(LOCK_PATIENCE)?;
    // Rows of a report's temporary tables are small; what does not fit goes to a file that has no name.
    connection.pragma_update(None, "cache_size", -8192)?;
    // One snapshot for all that is asked: it begins with the first statement.
    connection.execute_batch("BEGIN")?;
    let history = History { connection, path, unwatched, mappings, size };
    history.check_schema().or_else(|problem| history.checked(Ok(())).and(Err(problem)))?;
    Ok(history)
}

/// "File format read version" (<https://www.sqlite.org/fileformat.html#file_format_version_numbers>).
const WAL: u8 = 2;

/// The way to a database without links, and its version.
fn checked(path: &Path) -> Result<(PathBuf, u8), OpenProblem> {
    let missing = |problem: Problem| if problem.is_missing() { OpenProblem::Missing } else { problem.into() };
    let (path, file) = files::open_database(path, &Rights::here()).map_err(missing)?;
    check_file(&file)?;
    if file.metadata()?.len() == 0 {
        return Err(OpenProblem::Empty);
    }
    let mut version = [0];
    file.read_exact_at(&mut version, 19)?;
    Ok((path, version[0]))
}

/// A log that does not begin as one holds nothing, and SQLite would look for its beginning for ten seconds. It may just
/// be being made.
fn check_log(database: &Path) -> Result<(), OpenProblem> {
    for _ in 0..TRIES {
        let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK | OFlags::NOCTTY;
        // SQLite holds no lock on it that closing this descriptor could take away.
        let log: File = match rustix::fs::open(name_beside(database, "-wal"), flags, Mode::empty()) {
            Ok(log) => log.into(),
            Err(Errno::NOENT) => return Ok(()),
            Err(errno) => return Err(errno.into()),
        };
        let mut header = [0; 32];
        match log.read_exact_at(&mut header, 0) {
            Ok(()) if is_log(&header) => return Ok(()),
            Err(_) if log.metadata()?.len() == 0 => return Ok(()),
            Ok(()) | Err(_) => thread::sleep(LOG_PAUSE),
        }
    }
    Err(OpenProblem::LogDamaged)
}

/// And how many bytes it was of.
fn digest(mut file: File) -> std::io::Result<(String, u64)> {
    let mut digest = Sha256::new();
    let mut bytes = vec![0; 1 << 18];
    let mut size = 0;
    loop {
        let count = file.read(&mut bytes)?;
        if count == 0 {
            let hash = digest.finalize().iter().fold(String::new(), |text, byte| format!("{text}{byte:02x}"));
            return Ok((hash, size));
        }
        digest.update(&bytes[..count]);
        size += count as u64;
    }
}

fn beside(path: &Path, suffix: &str) -> Option<Metadata> {
    std::fs::metadata(name_beside(path, suffix)).ok()
}

/// As SQLite reads it (sqlite.org/uri.html): every byte with a meaning is percent-encoded.
fn uri(path: &Path, parameter: &str) -> String {
    use std::fmt::Write as _;
    let mut uri = String::from("file:");
    for &byte in path.as_os_str().as_bytes() {
        if byte.is_ascii_alphanumeric() || b"/-_.~".contains(&byte) {
            uri.push(char::from(byte));
        } else {
            write!(uri, "%{byte:02X}").expect("writing into a String cannot fail");
        }
    }
    uri + parameter
}
