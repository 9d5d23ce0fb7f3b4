//! The one filter language: parsed here, with one meaning in live output and in questions to the history.
//!
//! A filter is a list of terms. A blank between two terms means that both must hold; `|` means that one is enough, and
//! binds weaker than a blank. `-` or `not` before a term turns it round; parentheses group. A term is `key:value`, with
//! `,` or `|` between several values of which one is enough, or a bare word that is looked for in name, address,
//! program and command line. Quotes keep blanks and signs together: `process:"my agent"`.
//!
//! What an event does not have matches no term: `port:443` and `port:>0` are both false of a unix socket, and so
//! `-port:443` is true of it. ASCII upper and lower case are the same.

mod key;
mod matching;
mod parse;
mod tree;
mod values;

use std::fmt;

pub use matching::Facts;
pub use tree::{Network, Node, NumberKey, Ordering, Range, Term, TextKey, WordKey};
#[cfg(feature = "cli")]
pub use values::size;

use crate::glob::Glob;

/// Terms in a filter, and values in them, at most: what is written by hand has a few.
const TERMS_MAX: usize = 256;
/// Parentheses within parentheses, at most.
const DEPTH_MAX: usize = 32;

/// A filter that was understood.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Filter {
    text: String,
    root: Node,
}

impl Filter {
    /// Reads `text`; an error says where and what.
    pub fn parse(text: &str) -> Result<Self, FilterError> {
        Ok(Self { text: text.to_owned(), root: parse::parse(text)? })
    }

    /// Whether it holds of what is known of an event.
    pub fn matches(&self, facts: &Facts<'_>) -> bool {
        self.root.holds(facts)
    }

    /// What was parsed; for those who say it in another language.
    pub fn root(&self) -> &Node {
        &self.root
    }

    /// As it was written.
    pub fn text(&self) -> &str {
        &self.text
    }
}

impl fmt::Display for Filter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl std::str::FromStr for Filter {
    type Err = FilterError;
    fn from_str(text: &str) -> Result<Self, FilterError> {
        Self::parse(text)
    }
}

/// A pattern for names of hosts.
pub fn domain(text: &str) -> Result<Glob, FilterError> {
    values::domain(text).map_err(|values::Wrong(at, message)| FilterError::new(at, message))
}

/// What a term that begins with `word` may go on as.
pub fn completions(word: &str) -> Vec<String> {
    let negation = if word.starts_with('-') { "-" } else { "" };
    let Some((name, values)) = word[negation.len()..].split_once(':') else {
        return key::KEYS.iter().map(|(name, _)| format!("{negation}{name}:")).collect();
    };
    let before = values.rfind([',', '|']).map_or("", |end| &values[..=end]);
    let words = match key::Key::named(name) {
        Some(key::Key::Word(key)) => key::words(key),
        Some(key::Key::Alert) => vec!["true", "false"],
        Some(key::Key::Text(_) | key::Key::Number(_) | key::Key::Ip) | None => Vec::new(),
    };
    words.into_iter().map(|word| format!("{negation}{name}:{before}{word}")).collect()
}

/// What is wrong with a filter, and where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FilterError {
    /// Characters before the place.
    at: usize,
    message: String,
}

impl FilterError {
    fn new(at: usize, message: impl Into<String>) -> Self {
        Self { at, message: message.into() }
    }

    /// Of the character that is meant, from 1.
    pub fn column(&self) -> usize {
        self.at + 1
    }
}

impl fmt::Display for FilterError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "column {}: {}", self.column(), self.message)
    }
}

impl std::error::Error for FilterError {}

#[cfg(test)]
mod tests;
