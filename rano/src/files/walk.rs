//! The way to a file, a directory at a time. A link counts where only root could have put it (`/var/run`, a home that
//! is one); from the first directory on in which others can write, none does.

use std::collections::VecDeque;
use std::ffi::{OsStr, OsString};
use std::os::fd::{AsFd, AsRawFd as _, OwnedFd};
use std::os::unix::ffi::OsStringExt as _;
use std::path::{Component, Path, PathBuf};

use rustix::fs::{AtFlags, CWD, FileType, Mode, OFlags, ResolveFlags, Stat};
use rustix::io::Errno;

use super::check::{Problem, Refusal, others_can_write};
use super::rights::Rights;

/// As many links as the kernel follows (`path_resolution(7)`).
const LINKS_MAX: u32 = 40;

/// What to do where the last name is a link.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Last {
    Follow,
    Keep,
}

/// A directory, and a name in it.
#[derive(Debug)]
pub(crate) struct Place {
    pub(crate) directory: OwnedFd,
    pub(crate) name: OsString,
    /// Others can write in it, or above it.
    pub(crate) exposed: bool,
}

impl Place {
    /// The same through no link.
    pub(crate) fn path(&self) -> Result<PathBuf, Problem> {
        let link = format!("/proc/self/fd/{}", self.directory.as_raw_fd());
        let directory = rustix::fs::readlink(link, Vec::new())?;
        Ok(PathBuf::from(OsString::from_vec(directory.into_bytes())).join(&self.name))
    }
}

/// Where `path` leads, for who has `rights`.
pub(crate) fn find(path: &Path, rights: &Rights, last: Last) -> Result<Place, Problem> {
    Walk { rights, last, whole: true }.find(path)
}

/// The same a directory at a time, or all at once where that is possible.
#[cfg(test)]
pub(super) fn find_by(path: &Path, rights: &Rights, whole: bool) -> Result<Place, Problem> {
    Walk { rights, last: Last::Keep, whole }.find(path)
}

pub(super) fn is_link(directory: impl AsFd, name: &OsStr) -> bool {
    rustix::fs::statat(directory, name, AtFlags::SYMLINK_NOFOLLOW)
        .is_ok_and(|stat| FileType::from_raw_mode(stat.st_mode) == FileType::Symlink)
}

struct Walk<'a> {
    rights: &'a Rights,
    last: Last,
    /// `openat2` may walk the rest at once, where the kernel has it (Linux 5.6).
    whole: bool,
}

/// A directory on the way.
struct Step {
    directory: OwnedFd,
    exposed: bool,
}

enum Next {
    Directory(OwnedFd, Stat),
    Link(OsString),
}

const ONLY_TO_WALK: OFlags = OFlags::PATH.union(OFlags::CLOEXEC);

impl Walk<'_> {
    fn find(&self, path: &Path) -> Result<Place, Problem> {
        path.file_name().ok_or(Refusal::Directory)?;
        let mut rest = VecDeque::new();
        let mut at = self.prepend(path, &mut rest)?.map_or_else(|| self.begin("."), Ok)?;
        let mut links = 0;
        while let Some(name) = rest.pop_front() {
            let is_last = rest.is_empty();
            if is_last && (self.last == Last::Keep || at.exposed || !is_link(&at.directory, &name)) {
                return Ok(Place { directory: at.directory, name, exposed: at.exposed });
            }
            if at.exposed && self.whole && rest.len() > 1 {
                let mut directories = PathBuf::from(&name);
                directories.extend(rest.iter().take(rest.len() - 1));
                match self.all_at_once(&at, &directories) {
                    // No such call, or a sandbox that does not know it.
                    Err(Problem::System(Errno::NOSYS | Errno::PERM)) => {}
                    step => {
                        at = step?;
                        rest.drain(..rest.len() - 1);
                        continue;
                    }
                }
            }
            match next(&at, &name)? {
                Next::Directory(directory, stat) => at = self.step(directory, &stat, at.exposed)?,
                Next::Link(_) if at.exposed => return Err(Refusal::Link.into()),
                Next::Link(target) => {
                    links += 1;
                    if links > LINKS_MAX {
                        return Err(Refusal::Link.into());
                    }
                    if let Some(root) = self.prepend(Path::new(&target), &mut rest)? {
                        at = root;
                    }
                }
            }
        }
        Err(Refusal::Directory.into())
    }

    /// Puts the names in `path` before the rest; where it begins, if that is the root.
    fn prepend(&self, path: &Path, rest: &mut VecDeque<OsString>) -> Result<Option<Step>, Problem> {
        let mut begin = None;
        for component in path.components().rev() {
            match component {
                Component::Normal(name) => rest.push_front(name.to_owned()),
                Component::ParentDir => rest.push_front("..".into()),
                Component::CurDir | Component::Prefix(_) => {}
                Component::RootDir => begin = Some(self.begin("/")?),
            }
        }
        Ok(begin)
    }

    fn begin(&self, path: &str) -> Result<Step, Problem> {
        let directory = rustix::fs::openat(CWD, path, ONLY_TO_WALK | OFlags::DIRECTORY, Mode::empty())?;
        let stat = rustix::fs::fstat(&directory)?;
        self.step(directory, &stat, false)
    }

    fn step(&self, directory: OwnedFd, stat: &Stat, exposed: bool) -> Result<Step, Problem> {
        let exposed = exposed || others_can_write(stat, self.rights);
        if exposed && *self.rights == Rights::RootAlone {
            return Err(Refusal::OthersDirectory.into());
        }
        Ok(Step { directory, exposed })
    }

    fn all_at_once(&self, at: &Step, directories: &Path) -> Result<Step, Problem> {
        let no_links = ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
        let flags = ONLY_TO_WALK | OFlags::DIRECTORY;
        let directory = rustix::fs::openat2(&at.directory, directories, flags, Mode::empty(), no_links)?;
        let stat = rustix::fs::fstat(&directory)?;
        self.step(directory, &stat, true)
    }
}

fn next(at: &Step, name: &OsStr) -> Result<Next, Problem> {
    // As a directory at first: only so the kernel mounts what is mounted on demand.
    let flags = ONLY_TO_WALK | OFlags::NOFOLLOW;
    match rustix::fs::openat(&at.directory, name, flags | OFlags::DIRECTORY, Mode::empty()) {
        Ok(directory) => {
            let stat = rustix::fs::fstat(&directory)?;
            Ok(Next::Directory(directory, stat))
        }
        Err(Errno::NOTDIR | Errno::LOOP) => {
            let link = rustix::fs::openat(&at.directory, name, flags, Mode::empty())?;
            // Of the descriptor: what it reads was there when it was opened.
            match rustix::fs::readlinkat(&link, "", Vec::new()) {
                Ok(target) => Ok(Next::Link(OsString::from_vec(target.into_bytes()))),
                Err(_) => Err(Errno::NOTDIR.into()),
            }
        }
        Err(errno) => Err(errno.into()),
    }
}
