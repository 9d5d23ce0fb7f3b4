//! Agents: the built-in ones, and those that TOML files add. If two tables have one name, the later counts, so a user
//! can say more about an agent that rano knows. The file in the working directory adds none: the watched agent may have
//! written it, and does not decide what is watched.

use std::collections::HashSet;

use toml::Spanned;
use toml::de::DeValue;

use super::document::{self, Document, Item, TomlOrigin};
use super::file::with_nearest;
use super::finding::{Finding, Severity};
use super::providers::check_name;
use super::search::Trust;
use crate::glob::Glob;
use crate::process::agents::{self, Agent, Extent};

/// An agent and who says so.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AgentEntry {
    pub agent: Agent,
    pub origin: TomlOrigin,
}

/// All agents after all files, those that are built in first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AgentsConfig {
    pub entries: Vec<AgentEntry>,
    /// For the banner: what a file was not allowed to do.
    pub notes: Vec<String>,
}

impl AgentsConfig {
    pub fn agents(&self) -> Vec<Agent> {
        self.entries.iter().map(|entry| entry.agent.clone()).collect()
    }
}

/// Put the files together; what is wrong with them goes to `findings`.
pub(super) fn combine(documents: &[Document<'_>], findings: &mut Vec<Finding>) -> AgentsConfig {
    let built_in = agents::built_in().into_iter();
    let mut entries: Vec<_> =
        built_in.map(|agent| AgentEntry { agent, origin: TomlOrigin::Default }).collect();
    let mut notes = Vec::new();
    for document in documents {
        let read = Reader { document, findings }.read();
        match document.trust {
            Trust::AddOnly if read.is_empty() => {}
            Trust::AddOnly => notes.push(format!(
                "{} cannot add agents: name it with --config-toml to have them",
                document.path.display()
            )),
            Trust::Full => {
                for entry in read {
                    match entries.iter_mut().find(|earlier| earlier.agent.name == entry.agent.name) {
                        Some(earlier) => *earlier = entry,
                        None => entries.push(entry),
                    }
                }
            }
        }
    }
    AgentsConfig { entries, notes }
}

/// What can stand in a table.
const KEYS: [&str; 11] = [
    "name",
    "provider",
    "names",
    "match",
    "packages",
    "common",
    "paths",
    "interpreters",
    "environment",
    "session",
    "endpoints",
];

/// Reads one file, and records all that is wrong with it.
struct Reader<'d, 'a, 'f> {
    document: &'d Document<'a>,
    findings: &'f mut Vec<Finding>,
}

impl<'a> Reader<'_, 'a, '_> {
    /// A table with a mistake in it is left out.
    fn read(mut self) -> Vec<AgentEntry> {
        let mut entries = Vec::new();
        let mut names = HashSet::new();
        for (at, table) in self.document.tables(document::AGENTS, self.findings) {
            let before = self.findings.iter().filter(|finding| finding.is_error()).count();
            let agent = self.agent(at, &table);
            let is_wrong = self.findings.iter().filter(|finding| finding.is_error()).count() > before;
            let Some(agent) = agent.filter(|_| !is_wrong) else { continue };
            if !names.insert(agent.name.clone()) {
                self.error(at, format!("agents.{}: it is there twice", agent.name));
                continue;
            }
            entries.push(AgentEntry { agent, origin: self.document.origin(at) });
        }
        entries
    }

    fn agent(&mut self, at: usize, table: &[Item<'_, 'a>]) -> Option<Agent> {
        for (key, _) in table.iter().filter(|(key, _)| !KEYS.contains(&key.get_ref().as_ref())) {
            let message = with_nearest(key.get_ref(), KEYS.into_iter());
            self.findings.push(self.document.finding(Severity::Warning, key.span().start, message));
        }
        let value =
            |wanted: &str| table.iter().find(|(key, _)| key.get_ref() == wanted).map(|(_, value)| *value);
        let Some(name) = value("name") else {
            self.error(at, "an agent needs a name".to_owned());
            return None;
        };
        let name = self.word("name", name)?;
        let provider = value("provider").and_then(|value| self.word("provider", value));
        let extent = value("match").and_then(|value| self.extent(value)).unwrap_or_default();
        let common = value("common").and_then(|value| self.switch(value)).unwrap_or_default();
        let names = value("names").map(|value| self.texts("names", value));
        let packages = value("packages").map(|value| self.texts("packages", value)).unwrap_or_default();
        let paths = value("paths").map(|value| self.paths(value)).unwrap_or_default();
        let interpreters =
            value("interpreters").map(|value| self.texts("interpreters", value)).unwrap_or_default();
        let session = value("session").map(|value| self.texts("session", value)).unwrap_or_default();
        let endpoints = value("endpoints").map(|value| self.texts("endpoints", value)).unwrap_or_default();
        let environment =
            value("environment").map(|value| self.texts("environment", value)).unwrap_or_default();
        if common && packages.is_empty() && paths.is_empty() && interpreters.is_empty() {
            self.error(
                at,
                format!("agents.{name}: a common word needs packages, paths or interpreters that agree"),
            );
        }
        let lower = |texts: Vec<String>| texts.into_iter().map(|text| text.to_lowercase()).collect();
        Some(Agent {
            names: lower(names.filter(|names| !names.is_empty()).unwrap_or_else(|| vec![name.clone()])),
            name,
            provider,
            extent,
            packages: lower(packages),
            common,
            paths,
            interpreters: lower(interpreters),
            environment,
            session,
            endpoints: lower(endpoints),
        })
    }

    fn word(&mut self, key: &str, value: &Spanned<DeValue<'_>>) -> Option<String> {
        let Some(word) = value.get_ref().as_str() else {
            let got = value.get_ref().type_str();
            self.error(value.span().start, format!("agents.{key} must be a string, got {got}"));
            return None;
        };
        if check_name(word).is_ok() {
            return Some(word.to_owned());
        }
        let message = format!("agents.{key} must be 1 to 64 bytes without blanks, and not 'unknown'");
        self.error(value.span().start, message);
        None
    }

    fn extent(&mut self, value: &Spanned<DeValue<'_>>) -> Option<Extent> {
        let extent = value.get_ref().as_str().and_then(Extent::parse);
        if extent.is_none() {
            let (words, got) = (Extent::ALL.map(Extent::name).join(", "), document::got(value.get_ref()));
            self.error(value.span().start, format!("agents.match must be one of [{words}], got {got}"));
        }
        extent
    }

    fn switch(&mut self, value: &Spanned<DeValue<'_>>) -> Option<bool> {
        let switch = value.get_ref().as_bool();
        if switch.is_none() {
            let got = document::got(value.get_ref());
            self.error(value.span().start, format!("agents.common must be true or false, got {got}"));
        }
        switch
    }

    fn texts(&mut self, key: &str, value: &Spanned<DeValue<'a>>) -> Vec<String> {
        let key = format!("{}.{key}", document::AGENTS);
        let mut texts = Vec::new();
        for (at, text) in self.document.texts(&key, value, self.findings).unwrap_or_default() {
            if text.trim().is_empty() {
                self.error(at, format!("{key} contains an empty text, which is in everything"));
            } else {
                texts.push(text.to_owned());
            }
        }
        texts
    }

    fn paths(&mut self, value: &Spanned<DeValue<'a>>) -> Vec<Glob> {
        let mut globs = Vec::new();
        for (at, text) in self.document.texts("agents.paths", value, self.findings).unwrap_or_default() {
            // Paths are compared in lower case.
            match Glob::parse(&text.to_lowercase()) {
                Ok(glob) => globs.push(glob),
                Err(_) => self.error(at, "agents.paths contains a '[' without ']'".to_owned()),
            }
        }
        globs
    }

    fn error(&mut self, at: usize, message: String) {
        self.findings.push(self.document.finding(Severity::Error, at, message));
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    fn read(files: &[(Trust, &'static str)]) -> (AgentsConfig, Vec<String>) {
        let mut findings = Vec::new();
        let path = Path::new("/x/rano.toml");
        let read = |&(trust, text): &(Trust, &'static str)| Document::read(path, text, trust, &mut findings);
        let documents: Vec<Document<'_>> = files.iter().filter_map(read).collect();
        let config = combine(&documents, &mut findings);
        (config, findings.iter().map(ToString::to_string).collect())
    }

    fn names(config: &AgentsConfig) -> Vec<&str> {
        config.entries.iter().map(|entry| entry.agent.name.as_str()).collect()
    }

    #[test]
    fn a_users_file_reads_the_built_in_table_as_rano_does() {
        let (config, findings) = read(&[(Trust::Full, agents::BUILT_IN)]);
        assert_eq!(findings, [""; 0]);
        assert_eq!(config.agents(), agents::built_in());
        assert!(config.entries.iter().all(|entry| entry.origin != TomlOrigin::Default));
    }

    #[test]
    fn a_file_adds_agents_and_the_later_table_of_a_name_counts() {
        let (config, findings) = read(&[
            (
                Trust::Full,
                "[[agents]]\nname = 'helper'\nnames = ['Helper', 'helper-cli']\n[[agents]]\nname = 'ai'\n",
            ),
            (
                Trust::Full,
                "[[agents]]\nname = 'codex'\nprovider = 'corp'\n[[agents]]\nname = 'ai'\nmatch = 'part'\n",
            ),
        ]);
        assert_eq!(findings, [""; 0]);
        let built_in = agents::built_in().len();
        assert_eq!(names(&config)[built_in..], ["helper", "ai"]);
        let (codex, helper) = (&config.entries[1], &config.entries[built_in]);
        let ai = &config.entries[built_in + 1];
        assert_eq!((codex.agent.provider.as_deref(), codex.agent.extent), (Some("corp"), Extent::Whole));
        assert_eq!(helper.agent.names, ["helper", "helper-cli"]);
        assert_eq!((&*ai.agent.names[0], ai.agent.extent), ("ai", Extent::Part));
        assert_eq!(ai.origin.to_string(), "config file /x/rano.toml:4");
    }

    #[test]
    fn the_file_in_the_working_directory_adds_no_agents() {
        let (config, findings) = read(&[(Trust::AddOnly, "[[agents]]\nname = 'bash'\n")]);
        assert_eq!(findings, [""; 0]);
        assert_eq!(names(&config).len(), agents::built_in().len());
        assert_eq!(config.notes.len(), 1);
        assert!(config.notes[0].contains("cannot add agents") && config.notes[0].contains("--config-toml"));
    }

    #[test]
    fn what_is_wrong_is_told_with_its_place() {
        let check = |text: &'static str, expected: &[&str]| {
            let (config, findings) = read(&[(Trust::Full, text)]);
            assert_eq!(findings, expected, "{text}");
            config
        };
        check("agents = 1", &["✗ /x/rano.toml:1: agents must be tables, each under [[agents]], got integer"]);
        check(
            "[agents]\nname = 'x'",
            &["✗ /x/rano.toml:1: agents must be tables, each under [[agents]], got table"],
        );
        check("\n[[agents]]\nprovider = 'x'", &["✗ /x/rano.toml:2: an agent needs a name"]);
        check(
            "[[agents]]\nname = 'a b'",
            &["✗ /x/rano.toml:2: agents.name must be 1 to 64 bytes without blanks, and not 'unknown'"],
        );
        check(
            "[[agents]]\nname = 'a'\n[[agents]]\nname = 'a'",
            &["✗ /x/rano.toml:3: agents.a: it is there twice"],
        );
        check(
            "[[agents]]\nname = 'a'\nmatch = 'all'\ncommon = 'x'\nnames = 'a'\npackages = ['']\npaths = ['[']",
            &[
                "✗ /x/rano.toml:3: agents.match must be one of [whole, part], got 'all'",
                "✗ /x/rano.toml:4: agents.common must be true or false, got 'x'",
                "✗ /x/rano.toml:5: agents.names must be an array of strings, got string",
                "✗ /x/rano.toml:6: agents.packages contains an empty text, which is in everything",
                "✗ /x/rano.toml:7: agents.paths contains a '[' without ']'",
            ],
        );
        check(
            "[[agents]]\nname = 'goose'\ncommon = true",
            &[
                "✗ /x/rano.toml:1: agents.goose: a common word needs packages, paths or interpreters that agree",
            ],
        );
        let config = check(
            "[[agents]]\nname = 'a'\npackges = ['b']\nenvironment = ['A']",
            &["⚠ /x/rano.toml:3: unknown key 'packges' (possible typo?): the nearest is 'packages'"],
        );
        assert_eq!(names(&config).last(), Some(&"a"), "a warning takes nothing away");
    }
}
