//! Opening what users name: with whose rights, on whose word, and what the opened file has to be.
//!
//! Under sudo every path of the invoking user is opened by one thread that has his identity on file systems and no
//! capability, from the first file on. Other threads only get descriptors. A path on the command line is tried with
//! root's rights too where his do not suffice, but only where nobody else can write.

mod check;
mod rights;
mod walk;

use std::ffi::OsString;
use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Sender, channel};

use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;

pub use check::{NAME_WHAT_EXISTS, Problem, Refusal};
pub(crate) use check::{Use, check_kind, check_opened};
pub use rights::{Identity, Rights};
pub(crate) use walk::{Last, Place, find};

/// On whose word a path is opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NamedBy {
    /// Whoever typed the command, and so the one who has root's rights.
    CommandLine,
    /// A file, a variable or a default: under sudo the invoking user, or whoever can write his files.
    Configuration,
}

/// What to do with what a file already holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Existing {
    Append,
    Truncate,
}

/// What is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reading {
    /// It says what rano does. It may be a pipe if somebody named it.
    Instructions { pipe: bool },
    /// It is shown, or played back.
    Data,
}

type Job = Box<dyn FnOnce() + Send>;

/// The thread that has the invoking user's rights.
#[derive(Debug, Clone)]
struct UserThread {
    identity: Identity,
    jobs: Sender<Job>,
}

/// The way to files. Cloning shares the thread.
#[derive(Debug, Clone, Default)]
pub struct Files {
    user: Option<UserThread>,
}

impl Files {
    /// Files of the invoking user, if there is one. Fails where his identity cannot be taken.
    pub fn of(user: Option<Identity>) -> io::Result<Self> {
        let Some(identity) = user else { return Ok(Self::default()) };
        let (jobs, asked) = channel::<Job>();
        let (ready, is_ready) = channel();
        let rights = Rights::User(identity.clone());
        std::thread::Builder::new().name("rano-files".to_owned()).spawn(move || {
            let outcome = rights.take();
            let failed = outcome.is_err();
            let _ = ready.send(outcome);
            if !failed {
                for job in asked {
                    job();
                }
            }
        })?;
        is_ready.recv().map_err(io::Error::other)??;
        Ok(Self { user: Some(UserThread { identity, jobs }) })
    }

    /// The rights that every path is tried with first.
    pub fn rights(&self) -> Rights {
        match &self.user {
            Some(user) => Rights::User(user.identity.clone()),
            None => Rights::here(),
        }
    }

    /// The rights to try if those do not suffice.
    pub fn other_rights(&self, named_by: NamedBy) -> Option<Rights> {
        (self.user.is_some() && named_by == NamedBy::CommandLine).then_some(Rights::RootAlone)
    }

    /// Runs `work` with the rights of [`Files::rights`] and waits for it.
    pub fn with_rights<T: Send + 'static>(&self, work: impl FnOnce(&Rights) -> T + Send + 'static) -> T {
        let Some(user) = &self.user else { return work(&Rights::here()) };
        let (done, result) = channel();
        let rights = self.rights();
        let job: Job = Box::new(move || {
            let _ = done.send(work(&rights));
        });
        // A job that panics ends the thread. What it was to do must not be done with more rights.
        user.jobs.send(job).expect("the thread for the user's files lives as long as this");
        result.recv().expect("the thread for the user's files answers each job")
    }

    /// With the user's rights, else with root's where that is allowed; and whose they were.
    fn attempt<T: Send + 'static>(
        &self,
        named_by: NamedBy,
        work: impl Fn(&Rights) -> Result<T, Problem> + Clone + Send + 'static,
    ) -> Result<(T, Rights), Problem> {
        let again = work.clone();
        let outcome = self.with_rights(move |rights| work(rights));
        match (outcome, self.other_rights(named_by)) {
            (Err(problem), Some(alone)) if problem.is_permission() => Ok((again(&alone)?, alone)),
            (outcome, _) => outcome.map(|done| (done, self.rights())),
        }
    }

    /// Opens a private file (0600) for writing; it is made if it is missing.
    pub fn create(
        &self,
        path: &Path,
        named_by: NamedBy,
        existing: Existing,
    ) -> Result<(File, Rights), Problem> {
        let path = path.to_owned();
        self.attempt(named_by, move |rights| create(&path, rights, existing))
    }

    /// Opens it again the same way, in whatever thread this is called.
    pub fn create_with(&self, path: &Path, rights: &Rights, existing: Existing) -> Result<File, Problem> {
        match rights {
            Rights::User(_) => {
                let path = path.to_owned();
                self.with_rights(move |rights| create(&path, rights, existing))
            }
            Rights::Own | Rights::Root | Rights::RootAlone => create(path, rights, existing),
        }
    }

    /// Device and inode of what is at `path` now.
    pub fn identity_of(&self, path: &Path, rights: &Rights) -> Result<(u64, u64), Problem> {
        match rights {
            Rights::User(_) => {
                let path = path.to_owned();
                self.with_rights(move |rights| identity_of(&path, rights))
            }
            Rights::Own | Rights::Root | Rights::RootAlone => identity_of(path, rights),
        }
    }

    pub fn open(&self, path: &Path, named_by: NamedBy, reading: Reading) -> Result<File, Problem> {
        let path = path.to_owned();
        self.attempt(named_by, move |rights| open(&path, rights, reading)).map(|(file, _)| file)
    }

    /// Makes a directory (0700) in one that exists, unless it is there.
    pub fn make_directory(&self, path: &Path, named_by: NamedBy) -> Result<(), Problem> {
        let path = path.to_owned();
        self.attempt(named_by, move |rights| make_directory(&path, rights)).map(drop)
    }

    /// Gives the calling thread for good the rights with which the database at `path` can be read.
    pub fn take_rights_to_read(&self, path: &Path, named_by: NamedBy) -> io::Result<()> {
        let path = path.to_owned();
        let tried = self.with_rights(move |rights| open_database(&path, rights).map(drop));
        match (tried, self.other_rights(named_by)) {
            (Err(problem), Some(alone)) if problem.is_permission() => alone.take(),
            _ => self.rights().take(),
        }
    }

    /// What kind of file is at `path`, links not followed.
    pub fn look(&self, path: &Path) -> io::Result<std::fs::Metadata> {
        let path = path.to_owned();
        self.with_rights(move |_| path.symlink_metadata())
    }

    /// What kind of file `path` leads to.
    pub fn look_through(&self, path: &Path) -> io::Result<std::fs::Metadata> {
        let path = path.to_owned();
        self.with_rights(move |_| path.metadata())
    }

    pub fn exists(&self, path: &Path) -> bool {
        self.look_through(path).is_ok()
    }

    pub fn canonical(&self, path: &Path) -> io::Result<PathBuf> {
        let path = path.to_owned();
        self.with_rights(move |_| path.canonicalize())
    }

    /// Names in a directory; none where it cannot be read.
    pub fn names(&self, directory: &Path) -> Vec<OsString> {
        let directory = directory.to_owned();
        self.with_rights(move |_| {
            let entries = std::fs::read_dir(directory).into_iter().flatten();
            entries.filter_map(|entry| Some(entry.ok()?.file_name())).collect()
        })
    }
}

/// Paths that mean a descriptor of this process. Whoever started rano opened it.
fn is_descriptor(path: &Path) -> bool {
    let numbered = |prefix| path.strip_prefix(prefix).is_ok_and(|rest| rest.to_str().is_some_and(is_number));
    ["/dev/stdin", "/dev/stdout", "/dev/stderr"].iter().any(|known| path == Path::new(known))
        || numbered("/dev/fd")
        || numbered("/proc/self/fd")
}

fn is_number(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit())
}

/// A named pipe is never waited for, and a terminal never becomes ours.
const QUIETLY: OFlags = OFlags::CLOEXEC.union(OFlags::NONBLOCK).union(OFlags::NOCTTY);

const PRIVATE: Mode = Mode::RUSR.union(Mode::WUSR);

fn create(path: &Path, rights: &Rights, existing: Existing) -> Result<File, Problem> {
    let append = if existing == Existing::Append { OFlags::APPEND } else { OFlags::empty() };
    let flags = OFlags::WRONLY | append | QUIETLY;
    let file: File = if is_descriptor(path) {
        rustix::fs::open(path, flags, Mode::empty())?.into()
    } else {
        let (file, is_new, exposed) = make_or_open(path, rights, flags)?;
        if !is_new {
            check_opened(&file, rights, Use::Output { exposed })?;
        }
        file.into()
    };
    let is_regular = file.metadata().map_err(Problem::from)?.is_file();
    if existing == Existing::Truncate && is_regular {
        // Not before it is known to be ours.
        file.set_len(0).map_err(Problem::from)?;
    }
    // A pipe whose reader has stopped does not stop rano; everything else is as always.
    if !is_pipe(&file)? {
        rustix::fs::fcntl_setfl(&file, rustix::fs::fcntl_getfl(&file)? - OFlags::NONBLOCK)?;
    }
    Ok(file)
}

fn is_pipe(file: &File) -> Result<bool, Problem> {
    use std::os::unix::fs::FileTypeExt as _;
    Ok(file.metadata().map_err(Problem::from)?.file_type().is_fifo())
}

/// The file at `path`, whether it was made, and whether others can write where it lies.
fn make_or_open(path: &Path, rights: &Rights, flags: OFlags) -> Result<(OwnedFd, bool, bool), Problem> {
    if *rights == Rights::Own {
        let (file, is_new) = make_or_open_at(rustix::fs::CWD, path, flags, OFlags::empty())?;
        return Ok((file, is_new, false));
    }
    let Place { directory, name, exposed } = find(path, rights, Last::Keep)?;
    let (file, is_new) = make_or_open_at(&directory, Path::new(&name), flags, OFlags::NOFOLLOW)?;
    Ok((file, is_new, exposed))
}

fn make_or_open_at(
    directory: impl std::os::fd::AsFd,
    name: &Path,
    flags: OFlags,
    follow: OFlags,
) -> Result<(OwnedFd, bool), Problem> {
    let directory = directory.as_fd();
    let make = flags | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW;
    match rustix::fs::openat(directory, name, make, PRIVATE) {
        Ok(file) => Ok((file, true)),
        Err(Errno::EXIST) => match rustix::fs::openat(directory, name, flags | follow, Mode::empty()) {
            Ok(file) => Ok((file, false)),
            // It exists, but what it points to does not.
            Err(Errno::NOENT) => Err(Refusal::Link.into()),
            Err(errno) => Err(errno.into()),
        },
        Err(errno) => Err(errno.into()),
    }
}

/// The database at `path`, made if it is missing, the path that leads to it through no link, and whether
/// it was missing.
pub(crate) fn create_database(path: &Path, rights: &Rights) -> Result<(PathBuf, File, bool), Problem> {
    let flags = OFlags::RDWR | QUIETLY;
    if *rights == Rights::Own {
        let path = resolved(path)?;
        let (file, is_new) = make_or_open_at(rustix::fs::CWD, &path, flags, OFlags::empty())?;
        if !is_new {
            check_opened(&file, rights, Use::Database)?;
        }
        return Ok((path, file.into(), is_new));
    }
    let place = find(path, rights, Last::Keep)?;
    let (file, is_new) = make_or_open_at(&place.directory, Path::new(&place.name), flags, OFlags::NOFOLLOW)?;
    if !is_new {
        check_opened(&file, rights, Use::Database)?;
    }
    Ok((place.path()?, file.into(), is_new))
}

/// The database at `path` to read, and the path that leads to it through no link.
pub(crate) fn open_database(path: &Path, rights: &Rights) -> Result<(PathBuf, File), Problem> {
    let flags = OFlags::RDONLY | QUIETLY;
    if matches!(rights, Rights::Own | Rights::User(_)) {
        let path = path.canonicalize().map_err(Problem::from)?;
        let file = rustix::fs::open(&path, flags, Mode::empty())?;
        return Ok((path, file.into()));
    }
    let place = find(path, rights, Last::Follow)?;
    let file = rustix::fs::openat(&place.directory, &place.name, flags | OFlags::NOFOLLOW, Mode::empty())?;
    check_opened(&file, rights, Use::Data { exposed: place.exposed })?;
    Ok((place.path()?, file.into()))
}

/// The directory is resolved once, which also keeps SQLite from reading a meaning into names like `:memory:`.
fn resolved(path: &Path) -> Result<PathBuf, Problem> {
    let name = path.file_name().ok_or(Refusal::Directory)?;
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    Ok(parent.canonicalize().map_err(Problem::from)?.join(name))
}

fn open(path: &Path, rights: &Rights, reading: Reading) -> Result<File, Problem> {
    let pipe = matches!(reading, Reading::Instructions { pipe: true } | Reading::Data);
    let wait = if pipe { OFlags::NONBLOCK } else { OFlags::empty() };
    let flags = (OFlags::RDONLY | QUIETLY) - wait;
    // With his own rights a user may follow his own links.
    if is_descriptor(path) || matches!(rights, Rights::Own | Rights::User(_)) {
        let file: File = rustix::fs::open(path, flags, Mode::empty())?.into();
        if !pipe {
            check_kind(&rustix::fs::fstat(&file)?)?;
        }
        return Ok(file);
    }
    let place = find(path, rights, Last::Follow)?;
    let open = |flags| rustix::fs::openat(&place.directory, &place.name, flags, Mode::empty());
    let file: File = open(flags | OFlags::NOFOLLOW)?.into();
    let exposed = place.exposed;
    check_opened(
        &file,
        rights,
        match reading {
            Reading::Instructions { pipe } => Use::Instructions { pipe, exposed },
            Reading::Data => Use::Data { exposed },
        },
    )?;
    Ok(file)
}

fn make_directory(path: &Path, rights: &Rights) -> Result<(), Problem> {
    if *rights == Rights::Own {
        return match rustix::fs::mkdir(path, Mode::RWXU) {
            Err(Errno::EXIST) if path.is_dir() => Ok(()),
            Err(Errno::EXIST) => Err(Refusal::NotDirectory.into()),
            made => made.map_err(Problem::from),
        };
    }
    let Place { directory, name, .. } = find(path, rights, Last::Follow)?;
    match rustix::fs::mkdirat(&directory, &name, Mode::RWXU) {
        Ok(()) | Err(Errno::EXIST) => {}
        Err(errno) => return Err(errno.into()),
    }
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    match rustix::fs::openat(&directory, &name, flags, Mode::empty()) {
        Ok(_) => Ok(()),
        Err(Errno::NOTDIR | Errno::LOOP) if walk::is_link(&directory, &name) => Err(Refusal::Link.into()),
        Err(Errno::NOTDIR | Errno::LOOP) => Err(Refusal::NotDirectory.into()),
        Err(errno) => Err(errno.into()),
    }
}

fn identity_of(path: &Path, rights: &Rights) -> Result<(u64, u64), Problem> {
    let stat = if *rights == Rights::Own {
        rustix::fs::stat(path)?
    } else {
        let Place { directory, name, .. } = find(path, rights, Last::Keep)?;
        rustix::fs::statat(&directory, &name, rustix::fs::AtFlags::SYMLINK_NOFOLLOW)?
    };
    Ok((stat.st_dev, stat.st_ino))
}

#[cfg(test)]
mod tests;
