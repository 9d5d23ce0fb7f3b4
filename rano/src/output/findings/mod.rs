//! Findings of a policy, one file a format.

mod github;
mod gitlab;
mod in_toto;
mod json;
mod junit;
mod markdown;
mod sarif;
mod text;
mod words;

use super::report::Look;
use crate::policy::Verdict;

pub use markdown::markdown;
pub use text::{KILLED, ending, live, note, text, warning};

/// Shapes in which findings are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    Text,
    Json,
    Markdown,
    Sarif,
    Junit,
    Github,
    Gitlab,
    InToto,
}

impl Format {
    pub const ALL: [Self; 8] = [
        Self::Text,
        Self::Json,
        Self::Markdown,
        Self::Sarif,
        Self::Junit,
        Self::Github,
        Self::Gitlab,
        Self::InToto,
    ];

    pub const fn name(self) -> &'static str {
        match self {
            Self::Text => "text",
            Self::Json => "json",
            Self::Markdown => "markdown",
            Self::Sarif => "sarif",
            Self::Junit => "junit",
            Self::Github => "github",
            Self::Gitlab => "gitlab",
            Self::InToto => "in-toto",
        }
    }

    pub fn parse(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|format| format.name() == word)
    }
}

/// `database`: hash of the history that was judged.
pub fn render(format: Format, verdict: &Verdict, database: &str, look: &Look<'_>) -> String {
    match format {
        Format::Text => text(verdict, look),
        Format::Json => json::json(verdict),
        Format::Markdown => markdown(verdict),
        Format::Sarif => sarif::sarif(verdict),
        Format::Junit => junit::junit(verdict),
        Format::Github => github::github(verdict),
        Format::Gitlab => gitlab::gitlab(verdict),
        Format::InToto => in_toto::statement(verdict, database),
    }
}

/// A path as a URI reference (RFC 3986).
fn uri(path: &str) -> String {
    let mut uri = String::with_capacity(path.len());
    for byte in path.trim_start_matches("./").bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~/".contains(&byte) {
            uri.push(char::from(byte));
        } else {
            uri.push('%');
            uri.extend(
                [byte >> 4, byte & 15]
                    .map(|digit| char::from_digit(u32::from(digit), 16).unwrap_or('0').to_ascii_uppercase()),
            );
        }
    }
    uri
}

#[cfg(test)]
mod tests;
