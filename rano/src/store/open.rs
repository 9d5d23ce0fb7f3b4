//! Opening the database file: made private, never through a symbolic link as root, and never somebody else's.

use std::fmt;
use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use rusqlite::config::DbConfig;
use rusqlite::{Connection, ErrorCode, OpenFlags, ffi};
use rustix::io::Errno;

use super::defence::{self, Budget};
use super::held::HeldFile;
use super::schema::{self, Identity};
use super::sigbus::Mappings;
use super::system::{self, Access};
use crate::files::{self, Problem, Refusal, Rights};

/// How long another program's lock is waited for at start.
const LOCK_PATIENCE: Duration = Duration::from_secs(2);

/// A database file that cannot be used, and why.
#[derive(Debug)]
pub struct OpenError {
    pub path: PathBuf,
    pub problem: OpenProblem,
}

/// Why a database file cannot be used. The file was left as it was.
#[derive(Debug, PartialEq, Eq)]
pub enum OpenProblem {
    /// There is no such file.
    Missing,
    /// Nothing was ever written to it.
    Empty,
    Directory,
    NotAFile,
    Symlink,
    /// It, or the file beside it whose name ends so, is not safe to use.
    Unsafe(&'static str, Refusal),
    ParentMissing,
    PermissionDenied,
    TooManyFiles,
    ReadOnlyFilesystem,
    DiskFull,
    /// A limit of file sizes (`RLIMIT_FSIZE`) does not let it grow.
    SizeLimit,
    /// Its filesystem has no shared mappings, by which those who read and those who write see each other.
    NoSharedMemory,
    NotADatabase,
    /// A SQLite database, but another program's.
    Foreign,
    /// Written by a newer version of rano.
    Newer {
        found: i32,
        known: i32,
    },
    /// Another program held its lock for two seconds.
    Locked,
    /// Parts of it contradict each other.
    Damaged,
    /// Its log is none of SQLite's.
    LogDamaged,
    /// This table of rano's is not as rano made it.
    Altered(String),
    /// An index that somebody added computes something, or may refuse rows.
    Index(String),
    /// Reading it takes more than a file of its size can hold.
    Endless,
    /// It became shorter while it was read.
    Cut,
    /// Something rarer, in SQLite's or the system's words.
    Other(String),
}

impl OpenError {
    /// The next step.
    pub fn hint(&self) -> &'static str {
        match self.problem {
            OpenProblem::Missing | OpenProblem::Empty => {
                "`rano` creates it while it observes; name another file with --sqlite"
            }
            OpenProblem::Directory | OpenProblem::NotAFile => "name a file with --sqlite",
            OpenProblem::Symlink => "name the file itself with --sqlite, or remove the link",
            OpenProblem::Unsafe("", refusal) => refusal.hint(),
            OpenProblem::Unsafe(..) => "remove the file beside it, or name another database with --sqlite",
            OpenProblem::TooManyFiles => "allow more open files (ulimit -n), and start it again",
            OpenProblem::ParentMissing => "make the directory, or name another file with --sqlite",
            OpenProblem::PermissionDenied | OpenProblem::ReadOnlyFilesystem => {
                "name a file in a directory you can write to with --sqlite, or use --no-sqlite"
            }
            OpenProblem::DiskFull => {
                "free some space, name a file elsewhere with --sqlite, or use --no-sqlite"
            }
            OpenProblem::SizeLimit => "raise the limit (ulimit -f, LimitFSIZE=), and start it again",
            OpenProblem::NoSharedMemory => {
                "name a file on a local filesystem with --sqlite, or use --no-sqlite"
            }
            OpenProblem::NotADatabase | OpenProblem::Foreign => {
                "name another file with --sqlite; this one was left as it is"
            }
            OpenProblem::Newer { .. } => "use that newer rano, or name another file with --sqlite",
            OpenProblem::Locked => "end the program that holds it, or name another file with --sqlite",
            OpenProblem::Damaged => {
                "name another file with --sqlite; `sqlite3 FILE .recover` prints what can be saved as SQL"
            }
            OpenProblem::LogDamaged => {
                "name another file with --sqlite; without the file that ends in -wal, what was written before it can be read"
            }
            OpenProblem::Altered(_) | OpenProblem::Endless => {
                "somebody changed it: name another file with --sqlite"
            }
            OpenProblem::Index(_) => "drop that index, or name another file with --sqlite",
            OpenProblem::Cut => "read it again; if it stays so, name another file with --sqlite",
            OpenProblem::Other(_) => "name another file with --sqlite, or use --no-sqlite",
        }
    }
}

impl fmt::Display for OpenError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "cannot use {} as database: {}", self.path.display(), self.problem)
    }
}

impl fmt::Display for OpenProblem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            OpenProblem::Missing => f.write_str("it does not exist"),
            OpenProblem::Empty => f.write_str("nothing was ever written to it"),
            OpenProblem::Directory => f.write_str("it is a directory"),
            OpenProblem::NotAFile => f.write_str("it is not a regular file"),
            OpenProblem::Symlink => f.write_str("it is a symbolic link, or behind one"),
            OpenProblem::Unsafe("", refusal) => refusal.fmt(f),
            OpenProblem::Unsafe(end, refusal) => {
                write!(f, "the file beside it that ends in {end}: {refusal}")
            }
            OpenProblem::TooManyFiles => f.write_str("too many open files"),
            OpenProblem::ParentMissing => f.write_str("its directory does not exist"),
            OpenProblem::PermissionDenied => f.write_str("permission denied"),
            OpenProblem::ReadOnlyFilesystem => f.write_str("the filesystem is read-only"),
            OpenProblem::DiskFull => f.write_str("no space left on the device"),
            OpenProblem::SizeLimit => f.write_str("a limit of file sizes does not let it grow"),
            OpenProblem::NoSharedMemory => f.write_str("its filesystem has no shared mappings (mmap)"),
            OpenProblem::NotADatabase => f.write_str("it is not a SQLite database"),
            OpenProblem::Foreign => f.write_str("it is another program's SQLite database"),
            OpenProblem::Newer { found, known } => {
                write!(f, "it was written by a newer rano (schema {found}, this one knows {known})")
            }
            OpenProblem::Locked => f.write_str("another program has it locked"),
            OpenProblem::Damaged => f.write_str("it is damaged"),
            OpenProblem::LogDamaged => f.write_str("its log (-wal) is not a log of SQLite"),
            OpenProblem::Altered(table) => write!(f, "its table '{table}' is not as rano made it"),
            OpenProblem::Index(name) => write!(f, "its index '{name}' does more than list columns"),
            OpenProblem::Endless => {
                f.write_str("it takes more steps to read than a file of its size can hold")
            }
            OpenProblem::Cut => f.write_str("it was cut short while it was read"),
            OpenProblem::Other(words) => f.write_str(words),
        }
    }
}

impl std::error::Error for OpenError {}

impl From<Errno> for OpenProblem {
    fn from(errno: Errno) -> Self {
        match errno {
            Errno::ISDIR => Self::Directory,
            Errno::LOOP => Self::Symlink,
            Errno::NOENT | Errno::NOTDIR => Self::ParentMissing,
            Errno::ACCESS | Errno::PERM => Self::PermissionDenied,
            Errno::ROFS => Self::ReadOnlyFilesystem,
            Errno::NOSPC | Errno::DQUOT => Self::DiskFull,
            Errno::FBIG => Self::SizeLimit,
            Errno::NXIO | Errno::NODEV => Self::NotAFile,
            Errno::MFILE | Errno::NFILE => Self::TooManyFiles,
            other => Self::Other(other.to_string()),
        }
    }
}

impl From<Problem> for OpenProblem {
    fn from(problem: Problem) -> Self {
        match problem {
            Problem::System(errno) => errno.into(),
            Problem::Refused(Refusal::Directory) => Self::Directory,
            Problem::Refused(Refusal::NotRegular | Refusal::Unread) => Self::NotAFile,
            Problem::Refused(Refusal::Link) => Self::Symlink,
            Problem::Refused(refusal) => Self::Unsafe("", refusal),
        }
    }
}

impl From<std::io::Error> for OpenProblem {
    fn from(error: std::io::Error) -> Self {
        match Errno::from_io_error(&error) {
            Some(errno) => errno.into(),
            None => Self::Other(error.to_string()),
        }
    }
}

impl From<rusqlite::Error> for OpenProblem {
    fn from(error: rusqlite::Error) -> Self {
        match error.sqlite_error_code() {
            Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => Self::Locked,
            Some(ErrorCode::NotADatabase) => Self::NotADatabase,
            // Also a value that is longer than any that rano writes.
            Some(ErrorCode::DatabaseCorrupt | ErrorCode::TooBig) => Self::Damaged,
            Some(ErrorCode::OperationInterrupted) => Self::Endless,
            Some(ErrorCode::DiskFull) => Self::DiskFull,
            Some(ErrorCode::SystemIoFailure) if lacks_shared_memory(&error) => Self::NoSharedMemory,
            Some(ErrorCode::SystemIoFailure) if is_size_limit(&error) => Self::SizeLimit,
            // The file itself was opened for writing before: what SQLite lacks are its neighbours -wal and -shm.
            Some(ErrorCode::ReadOnly | ErrorCode::CannotOpen | ErrorCode::PermissionDenied) => {
                match system::refused() {
                    Some((Problem::Refused(refusal), end)) if !end.is_empty() => Self::Unsafe(end, refusal),
                    Some((problem, _)) => problem.into(),
                    None => Self::PermissionDenied,
                }
            }
            _ => match error {
                // With the statement, which is rano's own, it would be several lines.
                rusqlite::Error::SqlInputError { msg, .. } => Self::Other(msg),
                error => Self::Other(error.to_string()),
            },
        }
    }
}

fn lacks_shared_memory(error: &rusqlite::Error) -> bool {
    let codes = [ffi::SQLITE_IOERR_SHMMAP, ffi::SQLITE_IOERR_SHMSIZE, ffi::SQLITE_IOERR_SHMOPEN];
    error.sqlite_error().is_some_and(|error| codes.contains(&error.extended_code)) && !is_size_limit(error)
}

/// SQLite does not say which error of the system a failed write was: where there is a limit, it is taken to be that.
pub(super) fn is_size_limit(error: &rusqlite::Error) -> bool {
    let codes = [ffi::SQLITE_IOERR_WRITE, ffi::SQLITE_IOERR_TRUNCATE, ffi::SQLITE_IOERR_SHMSIZE];
    let is_write = error.sqlite_error().is_some_and(|error| codes.contains(&error.extended_code));
    is_write && rustix::process::getrlimit(rustix::process::Resource::Fsize).current.is_some()
}

/// A database that may be written to.
#[derive(Debug)]
pub(super) struct Opened {
    pub(super) connection: Connection,
    /// The same file. To be closed after the connection: POSIX takes away all of a process's locks on a file when it
    /// closes any descriptor of it.
    pub(super) file: HeldFile,
    pub(super) mappings: Mappings,
    pub(super) budget: Budget,
    /// Where it lies, if it was made for this.
    pub(super) made: Option<PathBuf>,
}

/// Opens `path` for writing, brings its schema up to date and makes it if it does not exist, with mode 0600. The
/// calling thread's rights count, also for what lies beside the file.
///
/// Not while this process has the same file open, see [`Opened::file`].
pub(super) fn open(path: &Path) -> Result<Opened, OpenError> {
    open_file(path).map_err(|problem| OpenError { path: path.to_owned(), problem })
}

fn open_file(path: &Path) -> Result<Opened, OpenProblem> {
    let rights = Rights::here();
    let (path, file, is_new) = files::create_database(path, &rights)?;
    let opened = check_file(&file)
        .and_then(|()| HeldFile::new(file).map_err(Into::into))
        .and_then(|file| open_checked(&path, file, &rights));
    if is_new && opened.is_err() {
        remove_half_made(&path);
    }
    opened.map(|opened| Opened { made: is_new.then_some(path), ..opened })
}

/// What was made a moment ago and cannot be used, and what lies beside it: nobody else has anything in it.
pub(super) fn remove_half_made(path: &Path) {
    for end in ["", "-wal", "-shm", "-journal"] {
        let mut beside = path.as_os_str().to_owned();
        beside.push(end);
        // What cannot be removed either is left.
        let _ = std::fs::remove_file(beside);
    }
}

fn open_checked(path: &Path, file: HeldFile, rights: &Rights) -> Result<Opened, OpenProblem> {
    system::install(Access::Write);
    let mut flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    if *rights != Rights::Own {
        flags |= OpenFlags::SQLITE_OPEN_NOFOLLOW;
    }
    let mappings = Mappings::watch();
    let mut connection = Connection::open_with_flags(path, flags)?;
    defence::harden(&connection)?;
    let budget = Budget::default();
    budget.bind(&mut connection)?;
    budget.grant(defence::bytes_on_disk(path));
    connection.busy_timeout(LOCK_PATIENCE)?;
    // Until the file is known to be ours, closing must not tidy up its log.
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true)?;
    schema::migrate(&connection)?;
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, false)?;
    configure(&connection)?;
    Ok(Opened { connection, file, mappings, budget, made: None })
}

/// Looks at the header before SQLite does, because SQLite may already write to a file it opens: it plays back journals.
/// The offsets are those of <https://www.sqlite.org/fileformat.html#the_database_header>.
pub(super) fn check_file(file: &File) -> Result<(), OpenProblem> {
    let metadata = file.metadata()?;
    if metadata.is_dir() {
        return Err(OpenProblem::Directory);
    }
    if !metadata.is_file() {
        return Err(OpenProblem::NotAFile);
    }
    if metadata.len() == 0 {
        return Ok(());
    }
    let mut header = [0; 108];
    if let Err(error) = file.read_exact_at(&mut header, 0) {
        return Err(match error.kind() {
            std::io::ErrorKind::UnexpectedEof => OpenProblem::NotADatabase,
            _ => error.into(),
        });
    }
    if !header.starts_with(b"SQLite format 3\0") {
        return Err(OpenProblem::NotADatabase);
    }
    let field = |at: usize| i32::from_be_bytes([header[at], header[at + 1], header[at + 2], header[at + 3]]);
    // The table of tables begins on page 1 after the header: a leaf (type 13) without cells is empty.
    let empty = header[100] == 13 && header[103..105] == [0, 0];
    let identity = Identity { application_id: field(68), user_version: field(60), empty };
    identity.judge().map(drop)
}

fn configure(connection: &Connection) -> Result<(), OpenProblem> {
    // Where the filesystem cannot do it (no shared memory), SQLite stays with its journal: slower, readers may wait.
    // SQLite does not wait for a lock here by itself.
    let deadline = Instant::now() + LOCK_PATIENCE;
    loop {
        match connection.pragma_update_and_check(None, "journal_mode", "wal", |_| Ok(())) {
            Ok(()) => break,
            Err(error) => match OpenProblem::from(error) {
                OpenProblem::Locked if Instant::now() < deadline => thread::sleep(Duration::from_millis(20)),
                problem => return Err(problem),
            },
        }
    }
    connection.pragma_update(None, "synchronous", "normal")?;
    // 16 MiB of log before it is copied into the file: pages that fill up over several batches are copied once.
    connection.pragma_update(None, "wal_autocheckpoint", 4096)?;
    connection.pragma_update_and_check(None, "journal_size_limit", 16 << 20, |_| Ok(()))?;
    Ok(())
}
