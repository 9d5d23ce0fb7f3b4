//! Endpoint classes: which names belong to which class, as the TOML files add to the built-in ones. Of two files that
//! name a class the later counts; the file in the working directory only adds to what is of no class.

use toml::Spanned;
use toml::de::DeValue;

use super::document::{self, Document, TomlOrigin};
use super::file::with_nearest;
use super::finding::{Finding, Severity};
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
    pub origin: TomlOrigin,
}

impl EndpointEntry {
    /// As the classes take it.
    pub fn entry(&self) -> ClassEntry {
        let authority = match self.origin {
            TomlOrigin::Default => Authority::BuiltIn,
            TomlOrigin::File { .. } => Authority::User,
            TomlOrigin::AddOnly { .. } => Authority::AddOnly,
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

/// Put the files together; what is wrong with them goes to `findings`.
pub(super) fn combine(documents: &[Document<'_>], findings: &mut Vec<Finding>) -> EndpointsConfig {
    let mut entries: Vec<EndpointEntry> = Vec::new();
    let mut additions: Vec<EndpointEntry> = Vec::new();
    for document in documents {
        let read = Reader { document, findings }.read();
        match document.trust {
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

struct Reader<'d, 'a, 'f> {
    document: &'d Document<'a>,
    findings: &'f mut Vec<Finding>,
}

impl Reader<'_, '_, '_> {
    fn read(mut self) -> Vec<EndpointEntry> {
        let mut entries = Vec::new();
        for (key, value) in self.document.table(document::ENDPOINTS, self.findings) {
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
                entries.push(EndpointEntry { class, names, origin: self.document.origin(at) });
            }
        }
        entries
    }

    fn names(&mut self, word: &str, value: &Spanned<DeValue<'_>>) -> Option<Vec<String>> {
        let key = format!("{}.{word}", document::ENDPOINTS);
        let mut names = Vec::new();
        for (at, text) in self.document.texts(&key, value, self.findings)? {
            match check_name(text) {
                Ok(()) => names.push(text.to_owned()),
                Err(why) => {
                    let message = match super::value::plain(text) {
                        Some(text) => format!("{key}: '{text}' {why}"),
                        None => format!("{key}: a name {why}"),
                    };
                    self.report(Severity::Error, at, message);
                }
            }
        }
        Some(names)
    }

    fn report(&mut self, severity: Severity, at: usize, message: String) {
        self.findings.push(self.document.finding(severity, at, message));
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
    use std::path::Path;

    use super::*;

    fn read(files: &[(Trust, &'static str)]) -> (EndpointsConfig, Vec<String>) {
        let path = Path::new("/x/rano.toml");
        let mut findings = Vec::new();
        let read = |&(trust, text): &(Trust, &'static str)| Document::read(path, text, trust, &mut findings);
        let documents: Vec<Document<'_>> = files.iter().filter_map(read).collect();
        let config = combine(&documents, &mut findings);
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
