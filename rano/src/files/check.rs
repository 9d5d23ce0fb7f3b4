//! What a file has to be that was opened. Asked of the descriptor, so that nobody can exchange the file afterwards.

use std::fmt;
use std::io;
use std::os::fd::AsFd;

use rustix::fs::{FileType, Stat};
use rustix::io::Errno;

use super::rights::Rights;

/// Write permission of the group and of everybody.
const OTHERS_WRITE: u32 = 0o022;

/// The next step where what was to be read is not there, or is no such file.
pub const NAME_WHAT_EXISTS: &str = "name a file that exists and that you can read";

/// Why a path is not used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Problem {
    System(Errno),
    Refused(Refusal),
}

/// What is wrong with a file that could be opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    Link,
    /// Others can write in a directory on the way.
    OthersDirectory,
    OthersCanWrite,
    OwnedBy(u32),
    HardLinks,
    NotRegular,
    Directory,
    NotDirectory,
    /// A named pipe without a reader.
    Unread,
}

/// What a file is opened for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Use {
    /// A database that is written, or a file beside one.
    Database,
    /// What is written and never read: it may be a pipe or a device. `exposed`: others can write where it lies.
    Output {
        exposed: bool,
    },
    Instructions {
        pipe: bool,
        exposed: bool,
    },
    Data {
        exposed: bool,
    },
}

impl Problem {
    pub fn is_permission(self) -> bool {
        matches!(self, Self::System(Errno::ACCESS | Errno::PERM))
    }

    pub fn is_missing(self) -> bool {
        matches!(self, Self::System(Errno::NOENT))
    }

    /// The next step, of a file that was to be written.
    pub fn hint(self) -> &'static str {
        self.hint_or("name a file in a directory that exists and that you can write to")
    }

    /// The next step, of a file that was to be read.
    pub fn reading_hint(self) -> &'static str {
        self.hint_or(NAME_WHAT_EXISTS)
    }

    fn hint_or(self, usual: &'static str) -> &'static str {
        match self {
            Self::System(Errno::MFILE | Errno::NFILE) => {
                "allow more open files (ulimit -n), and start it again"
            }
            Self::System(_) => usual,
            Self::Refused(refusal) => refusal.hint(),
        }
    }
}

impl Refusal {
    /// The next step.
    pub fn hint(self) -> &'static str {
        match self {
            Self::Link => "name what the link leads to, or remove the link",
            Self::OthersDirectory => {
                "root uses only directories in which nobody else can write: name a file below /var/lib or /root"
            }
            Self::OthersCanWrite => "take that right away with `chmod go-w`, or name another file",
            Self::OwnedBy(_) => "name a file of your own, or remove this one",
            Self::HardLinks => "name a file that has one name only, or remove this one",
            Self::NotRegular | Self::Directory => "name a file",
            Self::NotDirectory => "name a directory; it is made if the one that it lies in exists",
            Self::Unread => "start what reads the pipe first, or name a file",
        }
    }
}

impl From<Errno> for Problem {
    fn from(errno: Errno) -> Self {
        match errno {
            Errno::LOOP => Refusal::Link.into(),
            Errno::ISDIR => Refusal::Directory.into(),
            // What opening a named pipe without a reader, or a socket, fails with (open(2)).
            Errno::NXIO => Refusal::Unread.into(),
            errno => Self::System(errno),
        }
    }
}

impl From<Refusal> for Problem {
    fn from(refusal: Refusal) -> Self {
        Self::Refused(refusal)
    }
}

impl From<io::Error> for Problem {
    fn from(error: io::Error) -> Self {
        Errno::from_io_error(&error).unwrap_or(Errno::IO).into()
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::System(Errno::MFILE | Errno::NFILE) => f.write_str("too many open files"),
            Self::System(errno) => io::Error::from(*errno).fmt(f),
            Self::Refused(refusal) => refusal.fmt(f),
        }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Link => f.write_str("it is a symbolic link, or behind one"),
            Self::OthersDirectory => f.write_str("others can write in a directory on its way"),
            Self::OthersCanWrite => f.write_str("others can write to it"),
            Self::OwnedBy(uid) => write!(f, "it belongs to another user (uid {uid})"),
            Self::HardLinks => f.write_str("it has further names (hard links)"),
            Self::NotRegular => f.write_str("it is not a regular file"),
            Self::Directory => f.write_str("it is a directory"),
            Self::NotDirectory => f.write_str("it is not a directory"),
            Self::Unread => f.write_str("it is a pipe that nobody reads"),
        }
    }
}

impl std::error::Error for Problem {}

/// A regular file it has to be.
pub(crate) fn check_kind(stat: &Stat) -> Result<(), Refusal> {
    match FileType::from_raw_mode(stat.st_mode) {
        FileType::RegularFile => Ok(()),
        FileType::Directory => Err(Refusal::Directory),
        _ => Err(Refusal::NotRegular),
    }
}

pub(crate) fn check_opened(file: impl AsFd, rights: &Rights, used: Use) -> Result<(), Problem> {
    Ok(check(&rustix::fs::fstat(file)?, rights, used)?)
}

fn check(stat: &Stat, rights: &Rights, used: Use) -> Result<(), Refusal> {
    let kind = FileType::from_raw_mode(stat.st_mode);
    let (pipe, device) = match used {
        Use::Database => (false, false),
        Use::Output { exposed } | Use::Data { exposed } => (true, !exposed),
        Use::Instructions { pipe, exposed } => (pipe, pipe && !exposed),
    };
    match kind {
        FileType::RegularFile => {}
        FileType::Fifo if pipe => {}
        // The system made it: nobody but root can make one, and nobody else can put it there.
        FileType::CharacterDevice if device => return Ok(()),
        // A directory that is read says so itself.
        FileType::Directory if matches!(used, Use::Instructions { .. }) => return Ok(()),
        _ => check_kind(stat)?,
    }
    match (used, rights) {
        // What is only shown may be anybody's.
        (Use::Data { .. }, _) => Ok(()),
        // Whoever opens the other end of his own pipe is his own affair.
        (_, Rights::Own) if kind == FileType::Fifo || rights.trust(stat.st_uid) => Ok(()),
        _ if !rights.trust(stat.st_uid) => Err(Refusal::OwnedBy(stat.st_uid)),
        _ if stat.st_mode & OTHERS_WRITE != 0 => Err(Refusal::OthersCanWrite),
        _ if stat.st_nlink > 1 => Err(Refusal::HardLinks),
        _ => Ok(()),
    }
}

/// Whether somebody who is not trusted can put something into a directory, or could allow himself to.
pub(super) fn others_can_write(directory: &Stat, rights: &Rights) -> bool {
    !rights.trust(directory.st_uid) || directory.st_mode & OTHERS_WRITE != 0
}
