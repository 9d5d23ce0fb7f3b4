//! Providers: which texts in a process's name or command line say whose agent it is. Built-in ones, and what the
//! TOML files make of them.
//!
//! A file in the working directory may have been written by the very agent that is watched. It can add patterns
//! for a provider and add providers; it cannot set the mode, take anything away, or give a process that a trusted
//! pattern claims to somebody else: a pattern of its that contains a trusted pattern of another provider, or is
//! contained in one, is left out, and its patterns are marked so that they count only where no other matches.

use toml::Spanned;
use toml::de::DeValue;

use super::document::{self, Document, TomlOrigin};
use super::finding::{Finding, Severity};
use super::search::Trust;
use crate::process::agents;
use crate::process::provider::{self, UNKNOWN};

/// What becomes of the built-in patterns.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Mode {
    #[default]
    Merge,
    Replace,
}

impl Mode {
    pub const fn name(self) -> &'static str {
        match self {
            Self::Merge => "merge",
            Self::Replace => "replace",
        }
    }
}

/// Patterns of one provider that come from one place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProviderEntry {
    pub name: String,
    /// Case-insensitive substrings; at least one.
    pub patterns: Vec<String>,
    pub origin: TomlOrigin,
}

impl ProviderEntry {
    /// A user whose word counts said so: not built in, and not from a file that can only add.
    pub fn is_user(&self) -> bool {
        match self.origin {
            TomlOrigin::File { .. } => true,
            TomlOrigin::Default | TomlOrigin::AddOnly { .. } => false,
        }
    }
}

/// Everything about providers after all files. A provider with patterns from several places has several entries.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProvidersConfig {
    pub mode: Mode,
    pub mode_origin: TomlOrigin,
    pub entries: Vec<ProviderEntry>,
    /// For the banner: what a file was not allowed to do.
    pub notes: Vec<String>,
}

/// Put the files together; what is wrong with them goes to `findings`.
pub(super) fn combine(documents: &[Document<'_>], findings: &mut Vec<Finding>) -> ProvidersConfig {
    let mut mode = (Mode::default(), TomlOrigin::Default);
    let mut trusted: Vec<ProviderEntry> = Vec::new();
    let mut additions: Vec<ProviderEntry> = Vec::new();
    let mut notes = Vec::new();
    for document in documents {
        let Said { mode: given, entries } = Reader { document, findings }.read();
        match document.trust {
            Trust::Full => {
                mode = given.unwrap_or(mode);
                for entry in entries {
                    // Later ones win key by key.
                    trusted.retain(|earlier| earlier.name != entry.name);
                    additions.retain(|earlier| earlier.name != entry.name);
                    trusted.push(entry);
                }
            }
            Trust::AddOnly => {
                if let Some((Mode::Replace, _)) = given {
                    notes.push(format!(
                        "{} can only add providers: its mode is not obeyed",
                        document.path.display()
                    ));
                }
                additions.extend(entries);
            }
        }
    }
    let mut entries = match mode.0 {
        Mode::Merge => merged_with_built_in(trusted),
        Mode::Replace => trusted,
    };
    add_what_is_allowed(&mut entries, additions, &mut notes);
    entries.retain(|entry| !entry.patterns.is_empty());
    ProvidersConfig { mode: mode.0, mode_origin: mode.1, entries, notes }
}

/// The built-in patterns first; one that a file names too is the file's.
fn merged_with_built_in(trusted: Vec<ProviderEntry>) -> Vec<ProviderEntry> {
    let mut entries: Vec<_> = agents::built_in_providers()
        .into_iter()
        .map(|(name, mut patterns)| {
            let named = |pattern: &str| {
                let same = trusted.iter().filter(|entry| entry.name == name);
                same.flat_map(|entry| &entry.patterns).any(|other| fold(other) == pattern)
            };
            patterns.retain(|pattern| !named(pattern));
            ProviderEntry { name, patterns, origin: TomlOrigin::Default }
        })
        .collect();
    entries.extend(trusted);
    entries
}

fn add_what_is_allowed(
    entries: &mut Vec<ProviderEntry>,
    additions: Vec<ProviderEntry>,
    notes: &mut Vec<String>,
) {
    let trusted = entries.clone();
    for mut addition in additions {
        let (name, origin) = (addition.name.clone(), addition.origin.clone());
        addition.patterns.retain(|pattern| {
            let claimed = trusted.iter().find(|entry| entry.name != name && overlaps(entry, pattern));
            if let Some(entry) = claimed {
                notes.push(format!(
                    "{origin} can only add providers: pattern '{pattern}' of {name} is left out, because it would \
                     take processes from {}",
                    entry.name
                ));
            }
            claimed.is_none()
        });
        let already_there = |pattern: &String| {
            trusted.iter().any(|entry| {
                entry.name == name && entry.patterns.iter().any(|other| fold(other) == fold(pattern))
            })
        };
        addition.patterns.retain(|pattern| !already_there(pattern));
        entries.push(addition);
    }
}

fn overlaps(entry: &ProviderEntry, pattern: &str) -> bool {
    let pattern = fold(pattern);
    entry.patterns.iter().any(|other| {
        let other = fold(other);
        other.contains(&pattern) || pattern.contains(&other)
    })
}

fn fold(text: &str) -> String {
    text.to_lowercase()
}

/// What one file says.
struct Said {
    mode: Option<(Mode, TomlOrigin)>,
    entries: Vec<ProviderEntry>,
}

/// Reads one file, and records all that is wrong with it.
struct Reader<'d, 'a, 'f> {
    document: &'d Document<'a>,
    findings: &'f mut Vec<Finding>,
}

impl Reader<'_, '_, '_> {
    fn read(mut self) -> Said {
        let mut said = Said { mode: None, entries: Vec::new() };
        for (key, value) in self.document.table(document::PROVIDERS, self.findings) {
            let at = key.span().start;
            if key.get_ref() == "mode" {
                said.mode = self.mode(value).map(|mode| (mode, self.document.origin(at)));
                continue;
            }
            if let Err(message) = check_name(key.get_ref()) {
                self.report(at, message);
                continue;
            }
            if let Some(patterns) = self.patterns(key.get_ref(), value) {
                let (name, origin) = (key.get_ref().to_string(), self.document.origin(at));
                said.entries.push(ProviderEntry { name, patterns, origin });
            }
        }
        said
    }

    fn mode(&mut self, value: &Spanned<DeValue<'_>>) -> Option<Mode> {
        match value.get_ref().as_str() {
            Some("merge") => return Some(Mode::Merge),
            Some("replace") => return Some(Mode::Replace),
            Some(_) | None => {}
        }
        let got = document::got(value.get_ref());
        self.report(value.span().start, format!("providers.mode must be one of [merge, replace], got {got}"));
        None
    }

    fn patterns(&mut self, name: &str, value: &Spanned<DeValue<'_>>) -> Option<Vec<String>> {
        let key = format!("{}.{name}", document::PROVIDERS);
        let mut patterns = Vec::new();
        for (at, text) in self.document.texts(&key, value, self.findings)? {
            if text.trim().is_empty() {
                self.report(at, format!("{key} contains an empty pattern, which matches everything"));
            } else {
                patterns.push(text.to_owned());
            }
        }
        Some(patterns)
    }

    fn report(&mut self, at: usize, message: String) {
        self.findings.push(self.document.finding(Severity::Error, at, message));
    }
}

pub(super) fn check_name(name: &str) -> Result<(), String> {
    if name == UNKNOWN {
        return Err("providers.unknown is the word for no provider".into());
    }
    if !provider::is_name(name) {
        return Err("provider name must be 1 to 64 bytes without blanks".into());
    }
    Ok(())
}
