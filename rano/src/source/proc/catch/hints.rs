//! Files that a program opens just before it connects (inotify): it looks up a name, or reads whom to trust. Opening
//! the loader's cache says that a program begins.

use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::inotify::{self, CreateFlags, ReadFlags, WatchFlags};
use rustix::io::Errno;

const BEFORE_A_CONNECT: [&str; 9] = [
    "/etc/hosts",
    "/etc/resolv.conf",
    "/etc/nsswitch.conf",
    "/etc/gai.conf",
    "/etc/ssl/openssl.cnf",
    "/etc/pki/tls/openssl.cnf",
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/cert.pem",
];
const AT_THE_START: &str = "/etc/ld.so.cache";

/// What was opened since the last look.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Opened {
    pub(super) before_a_connect: bool,
    pub(super) at_the_start: bool,
}

#[derive(Debug)]
pub(super) struct Hints {
    inotify: OwnedFd,
    /// Of the loader's cache.
    start: Option<i32>,
}

impl Hints {
    /// `starts`: beginnings of programs are wanted too. Needs no rights but to read the files.
    pub(super) fn open(starts: bool) -> Result<Self, Errno> {
        let inotify = inotify::init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK)?;
        for path in BEFORE_A_CONNECT {
            // What is not there is not opened.
            let _ = inotify::add_watch(&inotify, path, WatchFlags::OPEN);
        }
        let start =
            if starts { inotify::add_watch(&inotify, AT_THE_START, WatchFlags::OPEN).ok() } else { None };
        Ok(Self { inotify, start })
    }

    /// Takes what has come.
    pub(super) fn read(&self) -> Opened {
        let mut opened = Opened::default();
        let mut buffer = [MaybeUninit::uninit(); 4096];
        let mut reader = inotify::Reader::new(&self.inotify, &mut buffer);
        while let Ok(event) = reader.next() {
            if Some(event.wd()) == self.start {
                opened.at_the_start = true;
            } else {
                // An overflow means that there was much.
                opened.before_a_connect |=
                    event.events().intersects(ReadFlags::OPEN | ReadFlags::QUEUE_OVERFLOW);
            }
        }
        opened
    }
}

impl AsFd for Hints {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.inotify.as_fd()
    }
}
