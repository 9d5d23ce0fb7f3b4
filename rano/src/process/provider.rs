//! On whose behalf a process acts: providers are names with patterns, matched in a process's names, comm and arguments.

use std::sync::Arc;

use super::agents::{self, Agent};
use super::matching::{Origin, Place, Subject, lowercase};

/// What a process gets that no pattern fits.
pub const UNKNOWN: &str = "unknown";

/// Whether a provider can be called so: names stand in tables, formats and queries. 1 to 64 bytes without blanks.
pub fn is_name(text: &str) -> bool {
    (1..=64).contains(&text.len()) && !text.chars().any(|c| c.is_control() || c.is_whitespace())
}

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
    /// Found in what anybody can write there: `argv[0]`, comm, a script that belongs to no package, arguments. Below
    /// claude neither `curl https://api.openai.com` nor `exec -a gemini` acts for another provider. Likewise what a
    /// pattern finds that the watched agent may have written. It counts where no tracked ancestor has one.
    pub(super) weak: bool,
    /// A built-in text, or one that was only added, in what anybody can write there: it is told of this process while
    /// it runs this program, and of no other.
    pub(super) guess: bool,
}

#[derive(Debug, Clone)]
struct Pattern {
    what: What,
    provider: ProviderIndex,
}

#[derive(Debug, Clone)]
enum What {
    /// In lower case, and who says so.
    Text(String, Origin),
    Agent(Agent),
}

impl What {
    fn is_added(&self) -> bool {
        matches!(self, Self::Text(_, Origin::Added))
    }

    /// Whether nobody said that this text means the provider, wherever it stands.
    fn is_guessed(&self) -> bool {
        matches!(self, Self::Text(_, Origin::Builtin | Origin::Added))
    }

    /// The best place where it stands, whether that is to count last, and how long it is.
    fn rank(&self, subject: &Subject) -> Option<(Place, bool, usize)> {
        match self {
            Self::Text(text, origin) => {
                let place = subject.place_of(text)?;
                Some((place, place == Place::CommandLine && *origin != Origin::User, text.len()))
            }
            Self::Agent(agent) => agent.place_in(subject).map(|(place, length)| (place, false, length)),
        }
    }
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
        let entry = |(name, patterns)| ProviderEntry { name, patterns, origin: Origin::Builtin };
        Self::new(agents::built_in_providers().into_iter().map(entry)).with_agents(agents::built_in())
    }
}

impl Providers {
    /// From the entries as configuration left them; entries of one name are one provider, and empty patterns match
    /// nothing. More than 65,536 providers are cut off there.
    pub fn new(entries: impl IntoIterator<Item = ProviderEntry>) -> Self {
        let mut providers = Self { names: Vec::new(), patterns: Vec::new(), unknown: UNKNOWN.into() };
        for entry in entries {
            let Some(provider) = providers.enter(&entry.name) else { break };
            let whats = lowercase(entry.patterns).into_iter().map(|text| What::Text(text, entry.origin));
            providers.patterns.extend(whats.map(|what| Pattern { what, provider }));
        }
        providers
    }

    /// Adds agents: each is its provider's. An agent counts before a text of the same length in the same place.
    #[must_use]
    pub fn with_agents(mut self, agents: impl IntoIterator<Item = Agent>) -> Self {
        let mut patterns = Vec::new();
        for agent in agents {
            let Some(name) = &agent.provider else { continue };
            let Some(provider) = self.enter(name) else { break };
            patterns.push(Pattern { what: What::Agent(agent), provider });
        }
        patterns.append(&mut self.patterns);
        self.patterns = patterns;
        self
    }

    /// The provider of that name, a new one if there is none yet; `None` where there are too many.
    fn enter(&mut self, name: &str) -> Option<ProviderIndex> {
        let position = self.names.iter().position(|known| **known == *name).unwrap_or(self.names.len());
        let index = u16::try_from(position).ok()?;
        if position == self.names.len() {
            self.names.push(name.into());
        }
        Some(ProviderIndex(index))
    }

    /// In the order in which they were given.
    pub fn names(&self) -> impl Iterator<Item = &Arc<str>> {
        self.names.iter()
    }

    /// The name of a provider, `unknown` for none.
    pub(super) fn name(&self, provider: Option<ProviderIndex>) -> &Arc<str> {
        provider.and_then(|ProviderIndex(index)| self.names.get(usize::from(index))).unwrap_or(&self.unknown)
    }

    /// The process's own match: what it runs before what it calls itself before comm before arguments, in the arguments
    /// the user's patterns before built-in ones, then the longest pattern, then the first given.
    pub(super) fn own_match(&self, subject: &Subject) -> Option<OwnProvider> {
        let mut best: Option<((Place, bool, usize), OwnProvider)> = None;
        for pattern in &self.patterns {
            let Some((place, is_last, length)) = pattern.what.rank(subject) else { continue };
            let weak = place != Place::Program || pattern.what.is_added();
            let guess = place != Place::Program && pattern.what.is_guessed();
            let rank = (place, is_last, usize::MAX - length);
            if best.is_none_or(|(best, _)| rank < best) {
                best = Some((rank, OwnProvider { provider: pattern.provider, weak, guess }));
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
    fn a_pattern_that_was_only_added_takes_no_process_from_an_agent() {
        let providers = Providers::new([ProviderEntry { origin: Origin::Added, ..user("evil", &["curl"]) }]);
        check(&providers, "curl https://example.com", Some(("evil", true)));
        check(&Providers::new([user("corp", &["curl"])]), "curl", Some(("corp", false)));
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
    fn an_agent_is_its_providers_by_name_alone() {
        let mut agent = agents::built_in().swap_remove(0);
        (agent.names, agent.provider) = (vec!["aider".into()], Some("acme".into()));
        let providers = Providers::default().with_agents([agent.clone()]);
        check(&providers, "aider --model openai/x", Some(("acme", false)));
        check(&providers, "x aider", None);
        check(&providers, "codex", Some(("openai", false)));
        // Whose a known agent is, its own table says better than a text.
        (agent.names, agent.provider) = (vec!["claude".into()], Some("corp".into()));
        check(&Providers::default().with_agents([agent]), "claude", Some(("corp", false)));
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
