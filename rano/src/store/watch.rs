//! Whether the files that are written are still there, and whole. SQLite does not notice that its file was removed,
//! replaced or cut: it writes on, and what it wrote is gone or makes no sense. Who shares the directory may do any of
//! it.

use std::ffi::OsString;
use std::fmt;
use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};

use rusqlite::Connection;
use rusqlite::wal::CheckpointMode;
use rustix::fs::{Mode, OFlags, Stat};
use rustix::io::Errno;

use super::defence::Approval;
use super::schema::APPLICATION_ID;
use super::sigbus::Mappings;

/// Sizes of the log's header and of that of a frame (<https://www.sqlite.org/fileformat.html#the_write_ahead_log>).
const LOG_HEADER: u64 = 32;
const FRAME_HEADER: u64 = 24;

/// What others do to the log in good order, between two questions, is over at the next.
const TRIES: u32 = 3;

/// Device and inode.
type FileId = (u64, u64);

/// What happened to one of the files; the word is the end of its name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Loss {
    Removed(&'static str),
    Cut(&'static str),
    Overwritten(&'static str),
}

impl Loss {
    /// The end of the name of the file.
    pub(super) fn file(self) -> &'static str {
        match self {
            Self::Removed(file) | Self::Cut(file) | Self::Overwritten(file) => file,
        }
    }
}

impl fmt::Display for Loss {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Removed(_) => "was removed or replaced",
            Self::Cut(_) => "was cut short",
            Self::Overwritten(_) => "was overwritten",
        })
    }
}

/// The files of one open database.
#[derive(Debug)]
pub(super) struct Watch {
    /// Without symbolic links.
    path: PathBuf,
    page: u64,
    size: u64,
    cookie: Option<i64>,
    /// In journal mode there is neither.
    log: Option<Log>,
    index: Option<Seen>,
    mappings: Mappings,
}

#[derive(Debug, Clone, Copy)]
struct Seen {
    id: FileId,
    size: u64,
}

#[derive(Debug)]
struct Log {
    file: File,
    id: FileId,
    /// Frames in use when it was looked at last.
    frames: u64,
    /// What those frames have in common, and no older ones.
    salt: [u8; 8],
}

impl Watch {
    /// After the first transaction: SQLite made all its files.
    pub(super) fn new(
        connection: &Connection,
        file: &File,
        path: &Path,
        mappings: Mappings,
        approval: &Approval,
    ) -> rusqlite::Result<Self> {
        let path = path.canonicalize().unwrap_or_else(|_| path.to_owned());
        let page: i64 = connection.pragma_query_value(None, "page_size", |row| row.get(0))?;
        let log = Log::open(&beside(&path, "-wal"));
        Ok(Self {
            page: u64::try_from(page).unwrap_or(0),
            size: size_of(file),
            cookie: approval.cookie(),
            index: log.as_ref().and_then(|_| seen(&beside(&path, "-shm")).ok()),
            log,
            path,
            mappings,
        })
    }

    /// `None` where all is well. To be asked after each commit.
    pub(super) fn look(&mut self, connection: &Connection, file: &File, approval: &Approval) -> Option<Loss> {
        // What is in the files comes before where they are: what was only moved is whole.
        self.look_at_file(file, approval.cookie())
            .or_else(|| self.look_at_log(connection))
            .or_else(|| self.mappings.were_cut().then_some(Loss::Cut("-shm")))
            .or_else(|| self.look_at_names(file))
    }

    /// The same as far as it shows before anything is written, which would make up for the size.
    pub(super) fn look_ahead(&self, file: &File, approval: &Approval) -> Option<Loss> {
        (self.is_short(size_of(file), approval.cookie())).then_some(Loss::Cut(""))
    }

    /// Only VACUUM makes the file shorter, and that changes the cookie.
    fn is_short(&self, size: u64, cookie: Option<i64>) -> bool {
        self.log.is_some() && size < self.size && cookie == self.cookie
    }

    fn look_at_file(&mut self, file: &File, cookie: Option<i64>) -> Option<Loss> {
        let size = size_of(file);
        if self.is_short(size, cookie) {
            return Some(Loss::Cut(""));
        }
        self.size = size;
        self.cookie = cookie;
        let mut header = [0; 72];
        match file.read_exact_at(&mut header, 0) {
            Err(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => Some(Loss::Cut("")),
            // What the disk says is not about who wrote to it.
            Err(_) => None,
            Ok(()) => {
                let is_ours = header.starts_with(b"SQLite format 3\0")
                    && header[68..72] == APPLICATION_ID.to_be_bytes();
                (!is_ours).then_some(Loss::Overwritten(""))
            }
        }
    }

    fn look_at_log(&mut self, connection: &Connection) -> Option<Loss> {
        let log = self.log.as_mut()?;
        for _ in 0..TRIES {
            let before = frames(connection)?;
            let loss = log.look(before, self.page)?;
            // Others may have begun the log anew in between.
            if frames(connection) == Some(before) {
                return Some(loss);
            }
        }
        None
    }

    fn look_at_names(&mut self, file: &File) -> Option<Loss> {
        let stat = rustix::fs::fstat(file).ok()?;
        if is_elsewhere(&self.path, id(&stat)) {
            return Some(Loss::Removed(""));
        }
        let log = self.log.as_ref()?;
        if is_elsewhere(&beside(&self.path, "-wal"), log.id) {
            return Some(Loss::Removed("-wal"));
        }
        let index = self.index.as_mut()?;
        match seen(&beside(&self.path, "-shm")) {
            Ok(now) if now.id != index.id => Some(Loss::Removed("-shm")),
            Ok(now) if now.size < index.size => Some(Loss::Cut("-shm")),
            Ok(now) => {
                *index = now;
                None
            }
            Err(errno) => is_absence(errno).then_some(Loss::Removed("-shm")),
        }
    }
}

impl Log {
    fn open(path: &Path) -> Option<Self> {
        let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NOFOLLOW | OFlags::NONBLOCK;
        // SQLite holds no lock on it that closing this descriptor could take away.
        let file: File = rustix::fs::open(path, flags, Mode::empty()).ok()?.into();
        let stat = rustix::fs::fstat(&file).ok()?;
        Some(Self { id: id(&stat), file, frames: 0, salt: [0; 8] })
    }

    /// `frames` are in use, by the index.
    fn look(&mut self, frames: u64, page: u64) -> Option<Loss> {
        if frames == 0 {
            self.frames = 0;
            return None;
        }
        let frame = FRAME_HEADER + page;
        if size_of(&self.file) < LOG_HEADER + frames * frame {
            return Some(Loss::Cut("-wal"));
        }
        let mut header = [0; 32];
        if self.file.read_exact_at(&mut header, 0).is_err() {
            return Some(Loss::Cut("-wal"));
        }
        if header == [0; 32] {
            return Some(Loss::Cut("-wal"));
        }
        if !is_log(&header) {
            return Some(Loss::Overwritten("-wal"));
        }
        let salt = [16, 17, 18, 19, 20, 21, 22, 23].map(|at| header[at]);
        // A log that was cut and has grown again since has a hole where its last frame was.
        if salt == self.salt && (1..=frames).contains(&self.frames) {
            let mut last = [0; 24];
            let at = LOG_HEADER + (self.frames - 1) * frame;
            if self.file.read_exact_at(&mut last, at).is_err() || last[8..16] != salt {
                return Some(Loss::Cut("-wal"));
            }
        }
        self.salt = salt;
        self.frames = frames;
        None
    }
}

/// Whether a log begins like this. What follows a valid beginning is read as far as it is valid, as after a crash.
pub(super) fn is_log(header: &[u8; 32]) -> bool {
    let word = |at: usize| u32::from_be_bytes([header[at], header[at + 1], header[at + 2], header[at + 3]]);
    // The lowest bit is the byte order of the checksums.
    let is_big_endian = match word(0) {
        0x377f_0682 => false,
        0x377f_0683 => true,
        _ => return false,
    };
    let page = word(8);
    if word(4) != 3_007_000 || !page.is_power_of_two() || !(512..=65_536).contains(&page) {
        return false;
    }
    let (mut first, mut second) = (0_u32, 0_u32);
    for pair in header[..24].chunks_exact(8) {
        let word = |at: usize| {
            let bytes = [pair[at], pair[at + 1], pair[at + 2], pair[at + 3]];
            if is_big_endian { u32::from_be_bytes(bytes) } else { u32::from_le_bytes(bytes) }
        };
        first = first.wrapping_add(word(0)).wrapping_add(second);
        second = second.wrapping_add(word(4)).wrapping_add(first);
    }
    (first, second) == (word(24), word(28))
}

/// Frames of the log that the index knows. `None` where nobody can tell now.
fn frames(connection: &Connection) -> Option<u64> {
    let (frames, _) = connection.wal_checkpoint_v2(Some("main"), CheckpointMode::NOOP).ok()?;
    u64::try_from(frames).ok()
}

/// The name is another file's or nobody's.
fn is_elsewhere(path: &Path, known: FileId) -> bool {
    match seen(path) {
        Ok(now) => now.id != known,
        Err(errno) => is_absence(errno),
    }
}

fn is_absence(errno: Errno) -> bool {
    matches!(errno, Errno::NOENT | Errno::NOTDIR | Errno::LOOP)
}

fn seen(path: &Path) -> rustix::io::Result<Seen> {
    let stat = rustix::fs::lstat(path)?;
    Ok(Seen { id: id(&stat), size: u64::try_from(stat.st_size).unwrap_or(0) })
}

fn id(stat: &Stat) -> FileId {
    (stat.st_dev, stat.st_ino)
}

fn size_of(file: &File) -> u64 {
    rustix::fs::fstat(file).map_or(u64::MAX, |stat| u64::try_from(stat.st_size).unwrap_or(0))
}

/// The name of a file that SQLite keeps beside a database.
pub(super) fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = OsString::from(path);
    name.push(suffix);
    name.into()
}
