//! Telling others that watching has begun: a line on a descriptor, in a file, and on standard error.

use std::os::fd::{BorrowedFd, FromRawFd as _, OwnedFd};
use std::path::PathBuf;

use anyhow::Result;
use rustix::io::{Errno, FdFlags};

use super::{Context, say};
use crate::config::{Configuration, Field};
use crate::exit::{Code, Failure};
use crate::files::{Existing, Files, NamedBy};

/// What is written when it is so.
const LINE: &[u8] = b"ready\n";

/// Who is to be told.
pub(super) struct Ready {
    descriptor: Option<OwnedFd>,
    file: Option<(PathBuf, NamedBy, Files)>,
    is_said: bool,
}

impl Ready {
    pub(super) fn of(configuration: &Configuration, context: &Context) -> Result<Self> {
        let settings = &configuration.settings;
        let named_by = configuration.origin(Field::ready_file).named_by();
        let file =
            settings.ready_file.clone().map(|path| (path, named_by, context.environment.files.clone()));
        let descriptor = settings.ready_fd.map(|number| take(number).map_err(|errno| refused(number, errno)));
        let is_said = settings.banner && !settings.once && settings.replay.is_none();
        Ok(Self { descriptor: descriptor.transpose()?, file, is_said })
    }

    pub(super) fn tell(self) {
        if let Some(descriptor) = self.descriptor {
            // Whoever wanted to know may be gone.
            let _ = rustix::io::retry_on_intr(|| rustix::io::write(&descriptor, LINE));
        }
        if let Some((path, named_by, files)) = self.file {
            let written =
                files.create(&path, named_by, Existing::Truncate).map_err(|problem| problem.to_string());
            let written = written.and_then(|(mut file, _)| {
                std::io::Write::write_all(&mut file, LINE).map_err(|error| error.to_string())
            });
            if let Err(problem) = written {
                say(&crate::output::escape::Escaped(&format!(
                    "warning: cannot write {}: {problem}\n",
                    path.display()
                ))
                .to_string());
            }
        }
        if self.is_said {
            say("watching\n");
        }
    }
}

fn refused(number: u32, errno: Errno) -> anyhow::Error {
    Failure::new(Code::Usage, format!("--ready-fd {number}: {}", std::io::Error::from(errno)))
        .hint("open it in the shell: rano --ready-fd 3 3>FILE")
        .into()
}

/// Takes over a descriptor that rano was started with; what it starts does not get it.
fn take(number: u32) -> Result<OwnedFd, Errno> {
    let number = i32::try_from(number).map_err(|_| Errno::BADF)?;
    // SAFETY: it is used for this call only, which fails if it is not open.
    let given = unsafe { BorrowedFd::borrow_raw(number) };
    if number <= 2 {
        return rustix::io::fcntl_dupfd_cloexec(given, 3);
    }
    let flags = rustix::io::fcntl_getfd(given)?;
    // What rano opens itself has the flag; only what came over exec has not.
    if flags.contains(FdFlags::CLOEXEC) {
        return Err(Errno::BADF);
    }
    rustix::io::fcntl_setfd(given, flags | FdFlags::CLOEXEC)?;
    // SAFETY: it came over exec and nothing in this process knows it; it was open a moment ago.
    Ok(unsafe { OwnedFd::from_raw_fd(number) })
}
