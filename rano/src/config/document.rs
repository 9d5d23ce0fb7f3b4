//! A `rano.toml`, parsed once; each of its tables is read by the module that is called like it.

use std::borrow::Cow;
use std::fmt;
use std::path::{Path, PathBuf};

use toml::Spanned;
use toml::de::{DeArray, DeString, DeTable, DeValue};

use super::file::{place, with_nearest};
use super::finding::{Finding, Severity};
use super::search::Trust;
use crate::process::matching;

/// What can stand at the top.
pub(super) const AGENTS: &str = "agents";
pub(super) const ENDPOINTS: &str = "endpoints";
pub(super) const PROVIDERS: &str = "providers";
const TABLES: [&str; 3] = [AGENTS, ENDPOINTS, PROVIDERS];

/// Who says so.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TomlOrigin {
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

impl TomlOrigin {
    /// What a pattern that stands there may do.
    pub fn authority(&self) -> matching::Origin {
        match self {
            Self::Default => matching::Origin::Builtin,
            Self::File { .. } => matching::Origin::User,
            Self::AddOnly { .. } => matching::Origin::Added,
        }
    }

    /// File and line, unless it is built in.
    pub fn place(&self) -> Option<String> {
        match self {
            Self::Default => None,
            Self::File { path, line } | Self::AddOnly { path, line } => {
                Some(format!("{}:{line}", path.display()))
            }
        }
    }
}

impl fmt::Display for TomlOrigin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.place() {
            None => f.write_str("default"),
            Some(place) => write!(f, "config file {place}"),
        }
    }
}

/// A file's text, taken apart.
pub(super) struct Document<'a> {
    pub(super) path: &'a Path,
    pub(super) trust: Trust,
    text: &'a str,
    root: DeTable<'a>,
}

/// A key and its value, with their places.
pub(super) type Item<'a, 'i> = (&'a Spanned<DeString<'i>>, &'a Spanned<DeValue<'i>>);

impl<'a> Document<'a> {
    /// `None` where it is no TOML. What is no table of rano's is told here, too.
    pub(super) fn read(
        path: &'a Path,
        text: &'a str,
        trust: Trust,
        findings: &mut Vec<Finding>,
    ) -> Option<Self> {
        let root = match DeTable::parse(text) {
            Ok(root) => root.into_inner(),
            Err(error) => {
                let (line, column) = place(text.as_bytes(), error.span().map_or(0, |span| span.start));
                let message = format!("TOML parse error: line {line}, column {column}: {}", error.message());
                findings.push(Finding::new(Severity::Error, path, line, one_line(&message)));
                return None;
            }
        };
        let document = Self { path, trust, text, root };
        for (key, _) in in_order(&document.root) {
            if !TABLES.contains(&key.get_ref().as_ref()) {
                let message = with_nearest(key.get_ref(), TABLES.into_iter());
                findings.push(document.finding(Severity::Warning, key.span().start, message));
            }
        }
        Some(document)
    }

    /// What stands in the table of that name.
    pub(super) fn table(&self, name: &str, findings: &mut Vec<Finding>) -> Vec<Item<'_, 'a>> {
        let Some((key, value)) = self.item(name) else { return Vec::new() };
        if let DeValue::Table(table) = value.get_ref() {
            return in_order(table);
        }
        let message = format!("{name} must be a table, got {}", value.get_ref().type_str());
        findings.push(self.finding(Severity::Error, key.span().start, message));
        Vec::new()
    }

    /// The tables `[[name]]`, each with its place.
    pub(super) fn tables(&self, name: &str, findings: &mut Vec<Finding>) -> Vec<(usize, Vec<Item<'_, 'a>>)> {
        let Some((key, value)) = self.item(name) else { return Vec::new() };
        let at = key.span().start;
        let wrong = |got: &str| {
            let message = format!("{name} must be tables, each under [[{name}]], got {got}");
            self.finding(Severity::Error, at, message)
        };
        let DeValue::Array(items) = value.get_ref() else {
            findings.push(wrong(value.get_ref().type_str()));
            return Vec::new();
        };
        let mut tables = Vec::new();
        for item in items {
            match item.get_ref() {
                DeValue::Table(table) => tables.push((item.span().start, in_order(table))),
                other => findings.push(wrong(&format!("an item of type {}", other.type_str()))),
            }
        }
        tables
    }

    /// The texts of an array, each with its place; `None` where it is none. `key` is its full name.
    pub(super) fn texts<'d>(
        &self,
        key: &str,
        value: &'d Spanned<DeValue<'_>>,
        findings: &mut Vec<Finding>,
    ) -> Option<Vec<(usize, &'d str)>> {
        let wrong = |at: usize, got: &str| {
            self.finding(Severity::Error, at, format!("{key} must be an array of strings, got {got}"))
        };
        let items: &DeArray<'_> = match value.get_ref() {
            DeValue::Array(items) => items,
            other => {
                findings.push(wrong(value.span().start, other.type_str()));
                return None;
            }
        };
        let mut texts = Vec::new();
        for item in items {
            match item.get_ref() {
                DeValue::String(text) => texts.push((item.span().start, text.as_ref())),
                other => {
                    let got = format!("an item of type {}", other.type_str());
                    findings.push(wrong(item.span().start, &got));
                }
            }
        }
        Some(texts)
    }

    /// About what stands at a byte of the text.
    pub(super) fn finding(&self, severity: Severity, at: usize, message: String) -> Finding {
        Finding::new(severity, self.path, self.line(at), message)
    }

    pub(super) fn origin(&self, at: usize) -> TomlOrigin {
        let (path, line) = (self.path.to_owned(), self.line(at));
        match self.trust {
            Trust::Full => TomlOrigin::File { path, line },
            Trust::AddOnly => TomlOrigin::AddOnly { path, line },
        }
    }

    fn item(&self, name: &str) -> Option<Item<'_, 'a>> {
        self.root.iter().find(|(key, _)| key.get_ref() == name)
    }

    fn line(&self, at: usize) -> usize {
        place(self.text.as_bytes(), at).0
    }
}

/// What a value is, as a message may say it: the file may be a link to somebody's secret.
pub(super) fn got(value: &DeValue<'_>) -> Cow<'static, str> {
    match value {
        DeValue::String(text) => {
            super::value::plain(text).map_or("another text".into(), |word| format!("'{word}'").into())
        }
        other => other.type_str().into(),
    }
}

/// As they stand in the file; the parser's table is sorted by key.
fn in_order<'a, 'i>(table: &'a DeTable<'i>) -> Vec<Item<'a, 'i>> {
    let mut items: Vec<_> = table.iter().collect();
    items.sort_by_key(|(key, _)| key.span().start);
    items
}

fn one_line(text: &str) -> String {
    text.lines().collect::<Vec<_>>().join(", ")
}
