//! Endpoint classes: which names belong to which class, as the TOML files add to the built-in ones. Of two files that name
//! a class the later counts; the file in the working directory only adds to what is of no class.

use std::path::Path;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::file::{place, with_nearest};
use super::finding::{Finding, Severity};
use super::providers::{ProviderOrigin, Source, in_order};
use super::search::Trust;
use crate::event::Class;
use crate::glob::{Glob, folded_name};
use crate::names::classes::{Authority, ClassEntry, Classes};

/// Classes that are told by the address alone.
const NOT_BY_NAME: [Class; 2] = [Class::Ipc, Class::Unknown];

/// Names of one class that come from one place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EndpointEntry {
    pub class: Class,
    pub names: Vec<String>,
    pub origin: ProviderOrigin,
}

impl EndpointEntry {
    /// As the classes take it.
    pub fn entry(&self) -> ClassEntry {
        let authority = match self.origin {
            ProviderOrigin::Default => Authority::BuiltIn,
            ProviderOrigin::File { .. } => Authority::User,
            ProviderOrigin::AddOnly { .. } => Authority::AddOnly,
        };
        ClassEntry { class: self.class, names: self.names.clone(), authority }
    }
}

/// Everything the files say of endpoints.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct EndpointsConfig {
    pub entries: Vec<EndpointEntry>,
    /// For the banner: what a file was not allowed to do.
    pub notes: Vec<String>,
}

/// Put the files together; what is wrong with them goes to `findings`, except for what is no TOML at all.
pub(super) fn combine(sources: &[Source<'_>], findings: &mut Vec<Finding>) -> EndpointsConfig {
    let mut entries: Vec<EndpointEntry> = Vec::new();
    let mut additions: Vec<EndpointEntry> = Vec::new();
    for source in sources {
        let read = Reader { source, findings }.read();
        match source.trust {
            Trust::Full => {
                for entry in read {
                    entries.retain(|earlier| earlier.class != entry.class);
                    entries.push(entry);
                }
            }
            Trust::AddOnly => additions.extend(read),
        }
    }
    let mut notes = Vec::new();
    if !additions.is_empty() {
        let trusted: Vec<ClassEntry> = entries.iter().map(EndpointEntry::entry).collect();
        let classes = Classes::new(&trusted);
        for addition in &mut additions {
            leave_out_classified(addition, &classes, &mut notes);
        }
        entries.extend(additions.into_iter().filter(|addition| !addition.names.is_empty()));
    }
    EndpointsConfig { entries, notes }
}

fn leave_out_classified(addition: &mut EndpointEntry, classes: &Classes, notes: &mut Vec<String>) {
    let EndpointEntry { class, names, origin } = addition;
    names.retain(|name| {
        let found = classes.of(Some(&folded_name(name)), None);
        if found != Class::Unknown && found != *class {
            notes.push(format!(
                "{origin} can only add endpoints: '{name}' is {} and not {}",
                found.name(),
                class.name()
            ));
        }
        found == Class::Unknown
    });
}

struct Reader<'a, 'f> {
    source: &'a Source<'a>,
    findings: &'f mut Vec<Finding>,
}

impl Reader<'_, '_> {
    fn read(&mut self) -> Vec<EndpointEntry> {
        let mut entries = Vec::new();
        let Ok(document) = DeTable::parse(self.source.text) else { return entries };
        for (key, value) in in_order(document.get_ref()) {
            if key.get_ref() != "endpoints" {
                continue;
            }
            if let DeValue::Table(table) = value.get_ref() {
                self.classes(table, &mut entries);
            } else {
                let kind = value.get_ref().type_str();
                let message = format!("endpoints must be a table, got {kind}");
                self.report(Severity::Error, key.span().start, message);
            }
        }
        entries
    }

    fn classes(&mut self, table: &DeTable<'_>, entries: &mut Vec<EndpointEntry>) {
        for (key, value) in in_order(table) {
            let at = key.span().start;
            let word = key.get_ref();
            let Some(class) = Class::parse(word) else {
                let known = Class::ALL.iter().filter(|class| !NOT_BY_NAME.contains(class));
                let message = with_nearest(word, known.map(|class| class.name()));
                self.report(Severity::Warning, at, message);
                continue;
            };
            if NOT_BY_NAME.contains(&class) {
                let message = format!("endpoints.{word} is told by the address, not by a name");
                self.report(Severity::Error, at, message);
                continue;
            }
            if let Some(names) = self.names(word, value) {
                entries.push(EndpointEntry { class, names, origin: self.origin(at) });
            }
        }
    }

    fn names(&mut self, word: &str, value: &Spanned<DeValue<'_>>) -> Option<Vec<String>> {
        let wrong = |got: &str| format!("endpoints.{word} must be an array of strings, got {got}");
        let DeValue::Array(items) = value.get_ref() else {
            self.report(Severity::Error, value.span().start, wrong(value.get_ref().type_str()));
            return None;
        };
        let mut names = Vec::new();
        for item in items {
            let message = match item.get_ref() {
                DeValue::String(text) => match check_name(text) {
                    Ok(()) => {
                        names.push(text.to_string());
                        continue;
                    }
                    Err(why) => match super::value::plain(text) {
                        Some(text) => format!("endpoints.{word}: '{text}' {why}"),
                        None => format!("endpoints.{word}: a name {why}"),
                    },
                },
                other => wrong(&format!("an item of type {}", other.type_str())),
            };
            self.report(Severity::Error, item.span().start, message);
        }
        Some(names)
    }

    fn report(&mut self, severity: Severity, at: usize, message: String) {
        let (line, _) = place(self.source.text.as_bytes(), at);
        self.findings.push(Finding::new(severity, self.source.path, line, message));
    }

    fn origin(&self, at: usize) -> ProviderOrigin {
        let (line, _) = place(self.source.text.as_bytes(), at);
        origin(self.source.path, line, self.source.trust)
    }
}

fn origin(path: &Path, line: usize, trust: Trust) -> ProviderOrigin {
    let path = path.to_owned();
    match trust {
        Trust::Full => ProviderOrigin::File { path, line },
        Trust::AddOnly => ProviderOrigin::AddOnly { path, line },
    }
}

/// A domain or a glob over one, in either spelling.
fn check_name(name: &str) -> Result<(), &'static str> {
    let fits = |c: char| c.is_alphanumeric() || ".-_*?[]!^".contains(c);
    if name.is_empty() || name.len() > 253 || !name.chars().all(fits) || Glob::of_names(name).is_err() {
        return Err("is no domain and no glob of one");
    }
    if name.chars().all(|c| matches!(c, '*' | '?' | '.')) {
        return Err("matches everything");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(files: &[(Trust, &str)]) -> (EndpointsConfig, Vec<String>) {
        let path = Path::new("/x/rano.toml");
        let sources: Vec<Source<'_>> =
            files.iter().map(|&(trust, text)| Source { path, text, trust }).collect();
        let mut findings = Vec::new();
        let config = combine(&sources, &mut findings);
        (config, findings.iter().map(ToString::to_string).collect())
    }

    fn names(config: &EndpointsConfig) -> Vec<(&'static str, Vec<String>)> {
        config.entries.iter().map(|entry| (entry.class.name(), entry.names.clone())).collect()
    }

    #[test]
    fn later_files_win_class_by_class_and_github_is_a_code_host() {
        let (config, findings) = read(&[
            (Trust::Full, "[endpoints]\nllm_api = [\"a.example\"]\ngithub = [\"git.example\"]\n"),
            (Trust::Full, "[endpoints]\nllm_api = [\"*.b.example\"]\n"),
        ]);
        assert!(findings.is_empty(), "{findings:?}");
        let expected = [("code_host", vec!["git.example".into()]), ("llm_api", vec!["*.b.example".into()])];
        assert_eq!(names(&config), expected);
    }

    #[test]
    fn a_file_in_the_working_directory_reclassifies_nothing() {
        let (config, _) = read(&[
            (Trust::Full, "[endpoints]\ntelemetry = [\"t.corp.example\"]\n"),
            (
                Trust::AddOnly,
                "[endpoints]\nllm_api = [\"x.t.corp.example\", \"new.example\", \"github.com\"]\n",
            ),
        ]);
        assert_eq!(names(&config)[1], ("llm_api", vec!["new.example".into()]));
        assert_eq!(config.notes.len(), 2);
        assert!(
            config.notes[0].ends_with("'x.t.corp.example' is telemetry and not llm_api"),
            "{:?}",
            config.notes
        );
    }

    #[test]
    fn what_is_wrong_is_said_with_its_place() {
        let text = "[endpoints]\nlm_api = []\nipc = [\"x\"]\ndns = \"x\"\nregistry = [1, \"\", \"*\", \"a b\", \"ok.example\"]\n";
        let (config, findings) = read(&[(Trust::Full, text)]);
        let expected = [
            "⚠ /x/rano.toml:2: unknown key 'lm_api' (possible typo?) did you mean 'llm_api'?",
            "✗ /x/rano.toml:3: endpoints.ipc is told by the address, not by a name",
            "✗ /x/rano.toml:4: endpoints.dns must be an array of strings, got string",
            "✗ /x/rano.toml:5: endpoints.registry must be an array of strings, got an item of type integer",
        ];
        assert_eq!(&findings[1..4], &expected[1..], "{findings:#?}");
        assert!(
            findings[0].contains("unknown key 'lm_api'") && findings[0].contains("llm_api"),
            "{findings:?}"
        );
        assert_eq!(findings.len(), 7);
        assert_eq!(names(&config), [("registry", vec!["ok.example".into()])]);
        let (_, findings) = read(&[(Trust::Full, "endpoints = 1\n")]);
        assert_eq!(findings, ["✗ /x/rano.toml:1: endpoints must be a table, got integer"]);
    }
}
