//! How a run ends: the exit codes, and an error that knows its code and the next step.

use std::error::Error;
use std::fmt;
use std::process::ExitCode;

use rustix::io::Errno;

/// What the exit code of `rano` says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Code {
    Fine = 0,
    /// Findings, a failed check, or any failure that has no code of its own.
    Findings = 1,
    /// Bad usage or configuration.
    Usage = 2,
    /// What was named cannot be opened or written.
    CannotOpen = 3,
    /// Privileges were asked for that are not there, and no fallback was allowed.
    NoPrivileges = 4,
}

impl From<Code> for ExitCode {
    fn from(code: Code) -> Self {
        Self::from(code as u8)
    }
}

/// An error that decides the exit code. Wrap it in `anyhow::Error`; it is found under any context.
#[derive(Debug)]
pub struct Failure {
    pub code: Code,
    pub message: String,
    /// Lines under the message, safe to show.
    pub details: Vec<String>,
    /// A command or a step that was tried and works.
    pub hint: Option<String>,
    source: Option<Box<dyn Error + Send + Sync>>,
}

impl Failure {
    pub fn new(code: Code, message: impl Into<String>) -> Self {
        Self { code, message: message.into(), details: Vec::new(), hint: None, source: None }
    }

    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// The error underneath; it is shown after the message.
    #[must_use]
    pub fn because(mut self, source: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        self.source = Some(source.into());
        self
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl Error for Failure {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.source.as_ref().map(|source| &**source as &(dyn Error + 'static))
    }
}

/// The failure that decides, wherever it stands in the chain.
pub fn failure(error: &anyhow::Error) -> Option<&Failure> {
    error.chain().find_map(|cause| cause.downcast_ref())
}

/// A reader that went away is not an error: `rano … | head -1`.
pub fn is_broken_pipe(error: &anyhow::Error) -> bool {
    error.chain().any(|cause| {
        cause
            .downcast_ref::<std::io::Error>()
            .is_some_and(|error| error.kind() == std::io::ErrorKind::BrokenPipe)
    })
}

/// The next step after an error that brings none along.
pub fn hint(error: &anyhow::Error) -> Option<&'static str> {
    let is_out_of_files = error.chain().any(|cause| {
        let error = cause.downcast_ref::<std::io::Error>().and_then(std::io::Error::raw_os_error);
        let errno = cause.downcast_ref::<Errno>().map(|errno| errno.raw_os_error());
        error
            .or(errno)
            .is_some_and(|code| [Errno::MFILE, Errno::NFILE].map(Errno::raw_os_error).contains(&code))
    });
    is_out_of_files.then_some("allow more open files (ulimit -n), and start it again")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_keeps_its_code_under_context() {
        let inner =
            Failure::new(Code::CannotOpen, "open database x").because(std::io::Error::other("locked"));
        let error = anyhow::Error::new(inner).context("start history");
        assert_eq!(failure(&error).map(|found| found.code), Some(Code::CannotOpen));
        assert_eq!(format!("{error:#}"), "start history: open database x: locked");
    }

    #[test]
    fn a_broken_pipe_is_found_under_context() {
        let pipe = std::io::Error::from(std::io::ErrorKind::BrokenPipe);
        assert!(is_broken_pipe(&anyhow::Error::new(pipe).context("write standard output")));
        assert!(!is_broken_pipe(&anyhow::Error::new(std::io::Error::other("full"))));
    }
}
