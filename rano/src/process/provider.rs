//! On whose behalf a process acts: providers are names with patterns, matched in a process's names, comm and arguments.

use std::sync::Arc;

use super::matching::{Origin, Place, Subject, lowercase};

/// The providers known without any configuration. The patterns are case-insensitive substrings.
pub const DEFAULT_PROVIDERS: [(&str, &[&str]); 3] = [
    ("anthropic", &["claude", "anthropic"]),
    ("openai", &["codex", "openai"]),
    ("google", &["gemini", "google"]),
];

/// What a process gets that no pattern fits.
pub const UNKNOWN: &str = "unknown";

/// Patterns of one provider, all of one origin. A provider with patterns of both origins has two entries.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProviderEntry {
    pub name: String,
    pub patterns: Vec<String>,
    pub origin: Origin,
}

/// Index into [`Providers`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct ProviderIndex(u16);

/// A process's own match.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct OwnProvider {
    pub(super) provider: ProviderIndex,
    /// Found in what anybody can write there: `argv[0]`, comm, a script that belongs to no package, arguments. Below claude
    /// neither `curl https://api.openai.com` nor `exec -a gemini` acts for another provider. It counts where no tracked
    /// ancestor has one.
    pub(super) weak: bool,
}

#[derive(Debug, Clone)]
struct Pattern {
    text: String,
    provider: ProviderIndex,
    origin: Origin,
}

/// All providers, with their patterns.
#[derive(Debug, Clone)]
pub struct Providers {
    names: Vec<Arc<str>>,
    patterns: Vec<Pattern>,
    unknown: Arc<str>,
}

impl Default for Providers {
    fn default() -> Self {
        Self::new(DEFAULT_PROVIDERS.map(|(name, patterns)| ProviderEntry {
            name: name.to_owned(),
            patterns: patterns.iter().map(|&p| p.to_owned()).collect(),
            origin: Origin::Builtin,
        }))
    }
}

impl Providers {
    /// From the entries as configuration left them; entries of one name are one provider, and empty patterns match
    /// nothing. More than 65,536 providers are cut off there.
    pub fn new(entries: impl IntoIterator<Item = ProviderEntry>) -> Self {
        let mut names: Vec<Arc<str>> = Vec::new();
        let mut patterns = Vec::new();
        for entry in entries {
            let position = names.iter().position(|name| **name == *entry.name).unwrap_or(names.len());
            let Ok(index) = u16::try_from(position) else { break };
            if position == names.len() {
                names.push(entry.name.into());
            }
            let provider = ProviderIndex(index);
            let origin = entry.origin;
            patterns.extend(lowercase(entry.patterns).into_iter().map(|text| Pattern {
                text,
                provider,
                origin,
            }));
        }
        Self { names, patterns, unknown: UNKNOWN.into() }
    }

    /// In the order in which they were given.
    pub fn names(&self) -> impl Iterator<Item = &Arc<str>> {
        self.names.iter()
    }

    /// The name of a provider, `unknown` for none.
    pub(super) fn name(&self, provider: Option<ProviderIndex>) -> &Arc<str> {
        provider.and_then(|ProviderIndex(index)| self.names.get(usize::from(index))).unwrap_or(&self.unknown)
    }

    /// The provider of that name; `None` for `unknown`, unless somebody called a provider so.
    pub(super) fn index(&self, name: &str) -> Option<ProviderIndex> {
        let position = self.names.iter().position(|known| **known == *name)?;
        u16::try_from(position).ok().map(ProviderIndex)
    }

    /// The process's own match: what it runs before what it calls itself before comm before arguments, in the arguments the
    /// user's patterns before built-in ones, then the longest pattern, then the first given.
    pub(super) fn own_match(&self, subject: &Subject) -> Option<OwnProvider> {
        let mut best: Option<((Place, bool, usize), OwnProvider)> = None;
        for pattern in &self.patterns {
            let Some(place) = subject.place_of(&pattern.text) else { continue };
            let weak = place != Place::Program;
            let is_last = place == Place::CommandLine && pattern.origin == Origin::Builtin;
            let rank = (place, is_last, usize::MAX - pattern.text.len());
            if best.is_none_or(|(best, _)| rank < best) {
                best = Some((rank, OwnProvider { provider: pattern.provider, weak }));
            }
        }
        best.map(|(_, own)| own)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::process::Image;

    fn user(name: &str, patterns: &[&str]) -> ProviderEntry {
        ProviderEntry {
            name: name.into(),
            patterns: patterns.iter().map(|&p| p.to_owned()).collect(),
            origin: Origin::User,
        }
    }

    /// Name and weakness of the match of a command that is split at blanks.
    fn own(providers: &Providers, line: &str) -> Option<(String, bool)> {
        let argv: Vec<String> = line.split(' ').map(String::from).collect();
        let image = Image { comm: argv[0].clone(), exe: format!("/bin/{}", argv[0]), argv, uid: 0 };
        let own = providers.own_match(&Subject::of(&image))?;
        Some((providers.name(Some(own.provider)).to_string(), own.weak))
    }

    fn check(providers: &Providers, line: &str, expected: Option<(&str, bool)>) {
        assert_eq!(own(providers, line), expected.map(|(name, weak)| (name.to_owned(), weak)), "{line}");
    }

    #[test]
    fn names_go_before_arguments() {
        let providers = Providers::default();
        check(&providers, "claude --model openai-compatible", Some(("anthropic", false)));
        check(&providers, "node /usr/bin/codex --not-claude", Some(("openai", false)));
        check(&providers, "python3 -m gemini_cli", Some(("google", false)));
        check(&providers, "ls", None);
    }

    #[test]
    fn whatever_stands_in_the_arguments_is_weak_and_users_patterns_go_first() {
        check(&Providers::default(), "curl https://api.openai.com", Some(("openai", true)));
        let providers = Providers::new([
            ProviderEntry { origin: Origin::Builtin, ..user("openai", &["api.openai.com"]) },
            user("acme", &["curl https"]),
            user("openai", &["acme-gateway"]),
        ]);
        check(&providers, "x https://api.openai.com acme-gateway", Some(("openai", true)));
        check(&providers, "x curl https://api.openai.com", Some(("acme", true)));
        assert_eq!(providers.names().count(), 2, "entries of one name are one provider");
    }

    #[test]
    fn a_name_that_anybody_can_take_is_weak() {
        let providers = Providers::default();
        let own = |comm: &str, exe: &str, argv: &[&str]| {
            let argv = argv.iter().map(|&word| word.to_owned()).collect();
            let image = Image { comm: comm.into(), exe: exe.into(), argv, uid: 0 };
            let own = providers.own_match(&Subject::of(&image))?;
            Some((providers.name(Some(own.provider)).to_string(), own.weak))
        };
        let google = |weak| Some(("google".to_owned(), weak));
        assert_eq!(own("x", "/bin/curl", &["gemini"]), google(true), "exec -a");
        assert_eq!(own("gemini", "/bin/curl", &["curl"]), google(true), "a new name");
        assert_eq!(own("x", "/bin/python3", &["python3", "google_search.py"]), google(true), "any script");
        assert_eq!(own("x", "/bin/gemini", &["x"]), google(false));
        assert_eq!(own("x", "/bin/node", &["x", "/usr/bin/gemini"]), google(false));
        let mixed = own("claude", "/bin/gemini", &["codex"]);
        assert_eq!(mixed, google(false), "what it is goes before what it calls itself");
    }

    #[test]
    fn the_longest_pattern_wins_a_tie_then_the_first() {
        let providers = Providers::new([
            user("short", &["agent"]),
            user("long", &["AGENT-X"]),
            user("same", &["gent-xy"]),
            user("empty", &[""]),
        ]);
        check(&providers, "my-agent-xy", Some(("long", false)));
        check(&providers, "agent", Some(("short", false)));
        check(&providers, "other", None);
    }
}
