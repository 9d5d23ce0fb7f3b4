//! Providers: which texts in a process's name or command line say whose agent it is. Built-in ones, and what the
//! TOML files make of them.
//!
//! A file in the working directory may have been written by the very agent that is watched. It can add patterns
//! for a provider and add providers; it cannot set the mode, take anything away, or give a process that a trusted
//! pattern claims to somebody else: a pattern of its that contains a trusted pattern of another provider, or is
//! contained in one, is left out, and its patterns are marked so that they count only where no other matches.

use std::path::{Path, PathBuf};

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::file::{place, with_nearest};
use super::finding::{Finding, Severity};
use super::search::Trust;
use crate::process::{agents, provider};

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

/// Who says so.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ProviderOrigin {
    Default,
    File {
        path: PathBuf,
        line: usize,
    },
    /// The file in the working directory.
    AddOnly {
        path: PathBuf,
        line: usize,
    },
}

impl std::fmt::Display for ProviderOrigin {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Default => f.write_str("default"),
            Self::File { path, line } | Self::AddOnly { path, line } => {
                write!(f, "config file {}:{line}", path.display())
            }
        }
    }
}

/// Patterns of one provider that come from one place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProviderEntry {
    pub name: String,
    /// Case-insensitive substrings; at least one.
    pub patterns: Vec<String>,
    pub origin: ProviderOrigin,
}

impl ProviderEntry {
    /// A user whose word counts said so: not built in, and not from a file that can only add.
    pub fn is_user(&self) -> bool {
        match self.origin {
            ProviderOrigin::File { .. } => true,
            ProviderOrigin::Default | ProviderOrigin::AddOnly { .. } => false,
        }
    }
}

/// Everything about providers after all files. A provider with patterns from several places has several entries.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProvidersConfig {
    pub mode: Mode,
    pub mode_origin: ProviderOrigin,
    pub entries: Vec<ProviderEntry>,
    /// For the banner: what a file was not allowed to do.
    pub notes: Vec<String>,
}

/// A TOML file's text, to be read in order.
pub(super) struct Source<'a> {
    pub(super) path: &'a Path,
    pub(super) text: &'a str,
    pub(super) trust: Trust,
}

/// Put the files together; what is wrong with them goes to `findings`.
pub(super) fn combine(sources: &[Source<'_>], findings: &mut Vec<Finding>) -> ProvidersConfig {
    let mut mode = (Mode::default(), ProviderOrigin::Default);
    let mut trusted: Vec<ProviderEntry> = Vec::new();
    let mut additions: Vec<ProviderEntry> = Vec::new();
    let mut notes = Vec::new();
    for source in sources {
        let Parsed { mode: given, entries } = parse(source, findings);
        match source.trust {
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
                        source.path.display()
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
            ProviderEntry { name, patterns, origin: ProviderOrigin::Default }
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

#[derive(Default)]
struct Parsed {
    mode: Option<(Mode, ProviderOrigin)>,
    entries: Vec<ProviderEntry>,
}

/// Reads one file, and records all that is wrong with it.
struct Reader<'a> {
    source: &'a Source<'a>,
    findings: &'a mut Vec<Finding>,
}

fn parse(source: &Source<'_>, findings: &mut Vec<Finding>) -> Parsed {
    let document = match DeTable::parse(source.text) {
        Ok(document) => document,
        Err(error) => {
            let (line, column) = place(source.text.as_bytes(), error.span().map_or(0, |span| span.start));
            let message = format!("TOML parse error: line {line}, column {column}: {}", error.message());
            findings.push(Finding::new(Severity::Error, source.path, line, one_line(&message)));
            return Parsed::default();
        }
    };
    let mut reader = Reader { source, findings };
    let mut parsed = Parsed::default();
    for (key, value) in in_order(document.get_ref()) {
        if key.get_ref() == "endpoints" {
            // Read in endpoints.rs.
        } else if key.get_ref() != "providers" {
            let message = with_nearest(key.get_ref(), ["endpoints", "providers"].into_iter());
            reader.report(Severity::Warning, key.span().start, message);
        } else if let DeValue::Table(table) = value.get_ref() {
            reader.providers(table, &mut parsed);
        } else {
            let kind = value.get_ref().type_str();
            reader.report(
                Severity::Error,
                key.span().start,
                format!("providers must be a table, got {kind}"),
            );
        }
    }
    parsed
}

impl Reader<'_> {
    fn report(&mut self, severity: Severity, at: usize, message: String) {
        let (line, _) = place(self.source.text.as_bytes(), at);
        self.findings.push(Finding::new(severity, self.source.path, line, message));
    }

    fn origin(&self, at: usize) -> ProviderOrigin {
        let (line, _) = place(self.source.text.as_bytes(), at);
        let path = self.source.path.to_owned();
        match self.source.trust {
            Trust::Full => ProviderOrigin::File { path, line },
            Trust::AddOnly => ProviderOrigin::AddOnly { path, line },
        }
    }

    fn providers(&mut self, table: &DeTable<'_>, parsed: &mut Parsed) {
        for (key, value) in in_order(table) {
            let at = key.span().start;
            if key.get_ref() == "mode" {
                parsed.mode = self.mode(value).map(|mode| (mode, self.origin(at)));
                continue;
            }
            if let Err(message) = check_name(key.get_ref()) {
                self.report(Severity::Error, at, message);
                continue;
            }
            if let Some(patterns) = self.patterns(key.get_ref(), value) {
                let name = key.get_ref().to_string();
                parsed.entries.push(ProviderEntry { name, patterns, origin: self.origin(at) });
            }
        }
    }

    fn mode(&mut self, value: &Spanned<DeValue<'_>>) -> Option<Mode> {
        let got = match value.get_ref() {
            DeValue::String(text) => match text.as_ref() {
                "merge" => return Some(Mode::Merge),
                "replace" => return Some(Mode::Replace),
                other => super::value::plain(other)
                    .map_or_else(|| "another text".to_owned(), |word| format!("'{word}'")),
            },
            other => other.type_str().to_owned(),
        };
        let message = format!("providers.mode must be one of [merge, replace], got {got}");
        self.report(Severity::Error, value.span().start, message);
        None
    }

    fn patterns(&mut self, name: &str, value: &Spanned<DeValue<'_>>) -> Option<Vec<String>> {
        let wrong = |got: &str| format!("providers.{name} must be an array of strings, got {got}");
        let DeValue::Array(items) = value.get_ref() else {
            self.report(Severity::Error, value.span().start, wrong(value.get_ref().type_str()));
            return None;
        };
        let mut patterns = Vec::new();
        for item in items {
            match item.get_ref() {
                DeValue::String(text) if text.trim().is_empty() => {
                    let message =
                        format!("providers.{name} contains an empty pattern, which matches everything");
                    self.report(Severity::Error, item.span().start, message);
                }
                DeValue::String(text) => patterns.push(text.to_string()),
                other => {
                    let message = wrong(&format!("an item of type {}", other.type_str()));
                    self.report(Severity::Error, item.span().start, message);
                }
            }
        }
        Some(patterns)
    }
}

fn check_name(name: &str) -> Result<(), String> {
    if name == provider::UNKNOWN {
        return Err("providers.unknown is the word for no provider".into());
    }
    if !provider::is_name(name) {
        return Err("provider name must be 1 to 64 bytes without blanks".into());
    }
    Ok(())
}

/// As they stand in the file; the parser's table is sorted by key.
pub(super) fn in_order<'a, 'i>(
    table: &'a DeTable<'i>,
) -> Vec<(&'a Spanned<toml::de::DeString<'i>>, &'a Spanned<DeValue<'i>>)> {
    let mut items: Vec<_> = table.iter().collect();
    items.sort_by_key(|(key, _)| key.span().start);
    items
}

fn one_line(text: &str) -> String {
    text.lines().collect::<Vec<_>>().join(", ")
}
