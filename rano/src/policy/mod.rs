//! What an agent may reach: rules in a file (`rano.lock.toml`), what was reached, and what the rules say of it.
//!
//! An allow rule permits an endpoint, a deny rule forbids one and wins. A name satisfies a rule only by evidence that
//! the file accepts: the owner of an address chooses what a reverse look-up says, and another process's answer says
//! nothing of this one. Pure: callers read the files and hand over what was observed.

mod contact;
mod error;
mod parse;
mod rule;
mod judge;
mod gather;
mod finding;
mod verdict;
mod widen;
mod lock;
mod toml_text;

use std::path::PathBuf;
use std::sync::Arc;

use sha2::{Digest as _, Sha256};

use crate::words::{Class, SourceKind};

pub use contact::{Contact, Known, Seen};
pub use error::PolicyError;
pub use finding::{Finding, Kind, Lack, Reached, Why, default_fail_on, parse_kinds};
pub use gather::Gatherer;
pub use judge::Judge;
pub use lock::{Baseline, Written};
pub use parse::{Loaded, load};
pub use rule::Rule;
pub use verdict::{Observed, Remark, Verdict};

/// Evidence of a name that can be accepted, strongest first.
pub const EVIDENCE: [&str; 9] =
    ["proxy", "sni", "quic", "dns", "asked", "known", "ech_outer", "shared_dns", "ptr"];

/// What is accepted where a file does not say.
const ACCEPTED: [&str; 5] = ["proxy", "sni", "quic", "dns", "asked"];

/// A place in one of the files of a policy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    pub file: Arc<str>,
    /// From 1.
    pub line: usize,
}

/// One file, its `extends` included.
#[derive(Debug, Clone)]
pub struct Policy {
    /// As it was named.
    pub path: PathBuf,
    pub require: Require,
    pub defaults: Defaults,
    pub limits: Limits,
    pub allow: Vec<Rule>,
    pub deny: Vec<Rule>,
    /// The file itself first, then what it extends.
    pub files: Vec<PolicyFile>,
}

/// What was read of one file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PolicyFile {
    pub path: PathBuf,
    /// Of its bytes, in hexadecimal digits.
    pub sha256: String,
}

/// What must hold before anything is judged.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Require {
    pub sources: Vec<SourceKind>,
    /// Nothing may be missing.
    pub complete: bool,
    /// Evidence by which a name satisfies a domain: some of [`EVIDENCE`].
    pub names: Vec<String>,
    /// Of the table, where there is one.
    pub place: Option<Place>,
}

/// What to do with an endpoint of which no accepted name is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unnamed {
    Fail,
    Warn,
    Allow,
}

impl Unnamed {
    pub const ALL: [Self; 3] = [Self::Fail, Self::Warn, Self::Allow];

    pub const fn name(self) -> &'static str {
        match self {
            Self::Fail => "fail",
            Self::Warn => "warn",
            Self::Allow => "allow",
        }
    }
}

/// Whom an agent may ask for names without a rule.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Resolvers {
    /// Those that the machine is configured to ask.
    System,
    Nobody,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Defaults {
    pub unnamed: Unnamed,
    pub ignore_classes: Vec<Class>,
    pub resolvers: Resolvers,
}

/// Bytes that an endpoint may get or give.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Limits {
    pub sent_per_endpoint: Option<u64>,
    pub received_per_endpoint: Option<u64>,
    pub place: Option<Place>,
}

impl Limits {
    pub fn is_empty(&self) -> bool {
        self.sent_per_endpoint.is_none() && self.received_per_endpoint.is_none()
    }
}

impl Default for Require {
    fn default() -> Self {
        Self {
            sources: SourceKind::ALL.into_iter().filter(|source| *source != SourceKind::Proc).collect(),
            complete: true,
            names: ACCEPTED.map(str::to_owned).to_vec(),
            place: None,
        }
    }
}

impl Default for Defaults {
    fn default() -> Self {
        Self { unnamed: Unnamed::Warn, ignore_classes: vec![Class::Localhost], resolvers: Resolvers::System }
    }
}

impl Policy {
    /// SHA-256 of the file; where it extends others, of the hashes of all files in the order in which they were read.
    pub fn sha256(&self) -> String {
        match self.files.as_slice() {
            [only] => only.sha256.clone(),
            all => {
                let each: Vec<&str> = all.iter().map(|file| file.sha256.as_str()).collect();
                sha256(each.join("\n").as_bytes())
            }
        }
    }

    /// Whether a name by this evidence satisfies a rule.
    pub fn accepts(&self, evidence: &str) -> bool {
        self.require.names.iter().any(|accepted| accepted == evidence)
    }

    /// Only these names could be had by polling.
    pub fn needs_better_names_than_polling(&self) -> bool {
        !["known", "shared_dns", "ptr"].iter().any(|weak| self.accepts(weak))
            && self.allow.iter().any(|rule| rule.domain.is_some())
    }

    /// Where a rule that is added would stand.
    pub fn place(&self) -> Place {
        let file: Arc<str> = self.path.to_string_lossy().into();
        let last = self.allow.iter().rev().find(|rule| rule.place.file == file);
        Place { line: last.map_or(1, |rule| rule.place.line), file }
    }
}

/// In hexadecimal digits.
pub fn sha256(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().fold(String::with_capacity(64), |mut text, byte| {
        text.push(char::from_digit(u32::from(byte >> 4), 16).unwrap_or('0'));
        text.push(char::from_digit(u32::from(byte & 15), 16).unwrap_or('0'));
        text
    })
}

#[cfg(test)]
mod tests;
