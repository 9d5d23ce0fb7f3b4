//! What is wrong with a configuration, as it is shown.

use std::fmt;
use std::path::{Path, PathBuf};

use crate::output::escape::Escaped;

/// The path of what is wrong with a variable.
pub(super) const ENVIRONMENT: &str = "environment";

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Severity {
    /// Stops the start.
    Error,
    /// A file that was named cannot be read; stops the start.
    CannotOpen,
    /// Something was asked for that there is not; stops the start and is said alone.
    Usage,
    Warning,
}

/// One thing that is wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    pub severity: Severity,
    /// A file, `environment`, or a flag.
    pub path: PathBuf,
    /// From 1; `None` where it is about the whole.
    pub line: Option<usize>,
    pub message: String,
}

impl Finding {
    pub(super) fn new(
        severity: Severity,
        path: &Path,
        line: impl Into<Option<usize>>,
        message: String,
    ) -> Self {
        Self { severity, path: path.to_owned(), line: line.into(), message }
    }

    /// It is about a file, not about a variable.
    pub fn is_in_file(&self) -> bool {
        self.path != Path::new(ENVIRONMENT)
    }

    pub fn is_error(&self) -> bool {
        match self.severity {
            Severity::Error | Severity::CannotOpen | Severity::Usage => true,
            Severity::Warning => false,
        }
    }
}

/// `✗ path:line: message`, on one line whatever the file holds.
impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let sign = if self.is_error() { '✗' } else { '⚠' };
        write!(f, "{sign} {}", Escaped(&self.path.to_string_lossy()))?;
        if let Some(line) = self.line {
            write!(f, ":{line}")?;
        }
        write!(f, ": {}", Escaped(&self.message))
    }
}
