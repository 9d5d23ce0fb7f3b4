//! What is wrong with a policy, and where.

use std::fmt;
use std::path::{Path, PathBuf};

/// A file that is no policy. Text of the file may stand in it: escape it before showing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PolicyError {
    pub path: PathBuf,
    /// From 1, both of them.
    pub line: usize,
    pub column: usize,
    pub message: String,
}

impl PolicyError {
    /// `at`: bytes before the place.
    pub(super) fn at(path: &Path, text: &str, at: usize, message: impl Into<String>) -> Self {
        let (line, column) = line_and_column(text, at);
        Self { path: path.to_owned(), line, column, message: message.into() }
    }
}

impl fmt::Display for PolicyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}:{}: {}", self.path.display(), self.line, self.column, self.message)
    }
}

impl std::error::Error for PolicyError {}

/// Both from 1; columns are characters.
pub(super) fn line_and_column(text: &str, at: usize) -> (usize, usize) {
    let before = text.get(..at).unwrap_or(text);
    let line = before.matches('\n').count() + 1;
    let begin = before.rfind('\n').map_or(0, |end| end + 1);
    (line, before[begin..].chars().count() + 1)
}
