//! How SQLite opens and removes files: `-wal`, `-shm` and `-journal` it reaches by path, whenever it needs them. With
//! these in the place of its own system calls the rights and checks of `files` hold for them too, at each opening.

use std::cell::{Cell, RefCell};
use std::ffi::{CStr, OsStr, c_char, c_int};
use std::os::fd::{AsFd as _, BorrowedFd, IntoRawFd as _, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;
use std::sync::Once;

use rusqlite::ffi;
use rustix::fs::{AtFlags, CWD, Mode, OFlags};
use rustix::io::Errno;

use crate::files::{Last, Place, Problem, Refusal, Rights, Use, check_kind, check_opened, find};

/// What a connection of the calling thread does with its files.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Access {
    Write,
    Read,
}

thread_local! {
    /// `None` where it has no connection of the store's: the process may have others, which are none of its business.
    static ACCESS: Cell<Option<Access>> = const { Cell::new(None) };
    /// What the last file that could not be opened lacked, and the end of its name.
    static REFUSED: RefCell<Option<(Problem, &'static str)>> = const { RefCell::new(None) };
}

/// SQLite's own files beside a database.
const BESIDE: [&str; 3] = ["-wal", "-shm", "-journal"];

/// To be called before a connection is opened: the calling thread's connections open files with its rights.
pub(super) fn install(access: Access) {
    static INSTALLED: Once = Once::new();
    INSTALLED.call_once(put_in_place);
    ACCESS.set(Some(access));
    REFUSED.take();
}

/// Why the calling thread's connection last could not open a file, and which one beside the database it was.
pub(super) fn refused() -> Option<(Problem, &'static str)> {
    REFUSED.take()
}

fn put_in_place() {
    type Function = unsafe extern "C" fn();
    type Open = extern "C" fn(*const c_char, c_int, c_int) -> c_int;
    type Unlink = extern "C" fn(*const c_char) -> c_int;
    // SAFETY: a pointer to a function like any other; os_unix.c casts it back before it calls it.
    let open = unsafe { std::mem::transmute::<Open, Function>(open) };
    // SAFETY: as above.
    let unlink = unsafe { std::mem::transmute::<Unlink, Function>(unlink) };
    // SAFETY: it takes no name, for the default.
    let vfs = unsafe { ffi::sqlite3_vfs_find(std::ptr::null()) };
    // SAFETY: null, or a VFS that is never taken away.
    let Some(set) = (unsafe { vfs.as_ref() }).and_then(|vfs| vfs.xSetSystemCall) else { return };
    for (name, call) in [(c"open", open), (c"unlink", unlink)] {
        // SAFETY: it is the function of this VFS, called once, and before the first connection of the store.
        unsafe { set(vfs, name.as_ptr(), Some(call)) };
    }
}

/// open(2) for SQLite.
extern "C" fn open(path: *const c_char, flags: c_int, mode: c_int) -> c_int {
    // SAFETY: SQLite passes a string.
    let path = Path::new(OsStr::from_bytes(unsafe { CStr::from_ptr(path) }.to_bytes()));
    let flags = OFlags::from_bits_retain(flags.cast_unsigned());
    let mode = Mode::from_raw_mode(mode.cast_unsigned());
    match open_by(path, flags, mode) {
        Ok(file) => file.into_raw_fd(),
        Err(problem) => {
            let name = path.as_os_str().as_bytes();
            let end = BESIDE.into_iter().find(|end| name.ends_with(end.as_bytes())).unwrap_or_default();
            // What is missing is made, or done without.
            if !problem.is_missing() {
                REFUSED.set(Some((problem, end)));
            }
            fail(problem)
        }
    }
}

/// unlink(2) for SQLite.
extern "C" fn unlink(path: *const c_char) -> c_int {
    // SAFETY: SQLite passes a string.
    let path = Path::new(OsStr::from_bytes(unsafe { CStr::from_ptr(path) }.to_bytes()));
    unlink_by(path).map_or_else(fail, |()| 0)
}

fn unlink_by(path: &Path) -> Result<(), Problem> {
    let rights = Rights::here();
    if ACCESS.get().is_none() || rights == Rights::Own {
        return Ok(rustix::fs::unlink(path)?);
    }
    let Place { directory, name, .. } = find(path, &rights, Last::Keep)?;
    Ok(rustix::fs::unlinkat(&directory, &name, AtFlags::empty())?)
}

/// The answer that stands for a failed call.
fn fail(problem: Problem) -> c_int {
    let errno = match problem {
        Problem::System(errno) => errno,
        Problem::Refused(Refusal::Link) => Errno::LOOP,
        Problem::Refused(_) => Errno::ACCESS,
    };
    nix::errno::Errno::set_raw(errno.raw_os_error());
    -1
}

fn open_by(path: &Path, flags: OFlags, mode: Mode) -> Result<OwnedFd, Problem> {
    let Some(access) = ACCESS.get() else { return open_at(CWD, path, flags, mode) };
    let is_new = flags.contains(OFlags::CREATE | OFlags::EXCL);
    let rights = match Rights::here() {
        // What is temporary lies where anybody can write, under a name of its own.
        Rights::RootAlone if is_new => Rights::Root,
        rights => rights,
    };
    // On a named pipe a plain open would wait for ever.
    let flags = flags | OFlags::NONBLOCK | OFlags::NOCTTY;
    let may_follow = rights == Rights::Own || (access == Access::Read && matches!(rights, Rights::User(_)));
    let (file, exposed) = if may_follow {
        (open_at(CWD, path, flags, mode)?, false)
    } else {
        let Place { directory, name, exposed } = find(path, &rights, Last::Keep)?;
        (open_at(directory.as_fd(), Path::new(&name), flags | OFlags::NOFOLLOW, mode)?, exposed)
    };
    if is_new {
        return Ok(file);
    }
    match check_kind(&rustix::fs::fstat(&file)?) {
        // It is made durable.
        Err(Refusal::Directory) if !writes(flags) => {}
        // Random numbers, and what keeps the standard descriptors taken.
        Err(_) if !writes(flags) && !exposed && path.starts_with("/dev") => {}
        Err(refusal) => return Err(refusal.into()),
        Ok(()) if access == Access::Read => {}
        Ok(()) => check_opened(&file, &rights, Use::Database)?,
    }
    Ok(file)
}

fn writes(flags: OFlags) -> bool {
    flags.intersects(OFlags::WRONLY | OFlags::RDWR)
}

fn open_at(directory: BorrowedFd<'_>, path: &Path, flags: OFlags, mode: Mode) -> Result<OwnedFd, Problem> {
    Ok(rustix::fs::openat(directory, path, flags | OFlags::CLOEXEC, mode)?)
}
