//! Opening a database to read it: nothing is made or changed, neither the file nor what lies beside it, whether a writer
//! is at work, was killed, or the directory may only be read.

use std::ffi::OsString;
use std::fs::Metadata;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{FileExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rusqlite::{Connection, OpenFlags};

use super::open::{OpenError, OpenProblem, check_file};
use super::system::{self, Access};
use crate::files::{self, Problem, Rights};

/// How long a lock is waited for. Readers meet one only where the filesystem cannot do without.
const LOCK_PATIENCE: Duration = Duration::from_secs(2);

/// A reader that meets a starting writer begins again; twice in a row needs two of them.
const TRIES: usize = 3;

/// A database open for reading, in one snapshot.
#[derive(Debug)]
pub struct History {
    pub(super) connection: Connection,
    path: PathBuf,
    /// What the file looked like, where SQLite was told that nobody writes.
    unwatched: Option<Seen>,
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
        loop {
            tries -= 1;
            let history = Self::open(path)?;
            let answer = query(&history);
            if tries > 0 && history.was_written() {
                continue;
            }
            return answer.map_err(|error| failed(error.into()));
        }
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
    let missing = |problem: Problem| if problem.is_missing() { OpenProblem::Missing } else { problem.into() };
    let (path, file) = files::open_database(path, &Rights::here()).map_err(missing)?;
    check_file(&file)?;
    if file.metadata()?.len() == 0 {
        return Err(OpenProblem::Empty);
    }
    // "File format read version", offset 19: 2 is WAL (sqlite.org/fileformat.html#file_format_version_numbers).
    let mut version = [0];
    file.read_exact_at(&mut version, 19)?;
    drop(file);

    let seen = Seen::of(&path)?;
    let log = beside(&path, "-wal");
    let (parameter, unwatched) = if version != [2] {
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
    let connection = Connection::open_with_flags(uri(&path, parameter), flags)?;
    connection.busy_timeout(LOCK_PATIENCE)?;
    // Rows of a report's temporary tables are small; what does not fit goes to a file that has no name.
    connection.pragma_update(None, "cache_size", -8192)?;
    // One snapshot for all that is asked: it begins with the first statement.
    connection.execute_batch("BEGIN")?;
    let tables: i64 = connection.query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get(0))?;
    if tables == 0 {
        return Err(OpenProblem::Empty);
    }
    Ok(History { connection, path, unwatched })
}

fn beside(path: &Path, suffix: &str) -> Option<Metadata> {
    let mut name = OsString::from(path);
    name.push(suffix);
    std::fs::metadata(name).ok()
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
