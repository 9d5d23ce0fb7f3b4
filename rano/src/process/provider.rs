//! On whose behalf a process acts: providers are names with patterns, matched in a process's names, comm and arguments.

use std::sync::Arc;

use super::agents::{self, Agent};
use super::matching::{Origin, Place, Subject, lowercase};
use super::roster::{Found, Roster};

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

/// A text, in lower case, that says on whose behalf a process acts, and who says so.
#[derive(Debug, Clone)]
struct Pattern {
    text: String,
    origin: Origin,
    provider: ProviderIndex,
}

impl Pattern {
    fn is_added(&self) -> bool {
        self.origin == Origin::Added
    }

    /// Whether nobody said that this text means the provider, wherever it stands.
    fn is_guessed(&self) -> bool {
        matches!(self.origin, Origin::Builtin | Origin::Added)
    }

    /// The best place where it stands, whether that is to count last, and how long it is.
    fn rank(&self, subject: &Subject) -> Option<(Place, bool, usize)> {
        let place = subject.place_of(&self.text)?;
        Some((place, place == Place::CommandLine && self.origin != Origin::User, self.text.len()))
    }
}

/// All providers, with their patterns and agents.
#[derive(Debug, Clone)]
pub struct Providers {
    names: Vec<Arc<str>>,
    patterns: Vec<Pattern>,
    agents: Roster,
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
        let mut providers = Self {
            names: Vec::new(),
            patterns: Vec::new(),
            agents: Roster::default(),
            unknown: UNKNOWN.into(),
        };
        for entry in entries {
            let Some(provider) = providers.enter(&entry.name) else { break };
            let origin = entry.origin;
            let patterns = lowercase(entry.patterns).into_iter();
            providers.patterns.extend(patterns.map(|text| Pattern { text, origin, provider }));
        }
        providers
    }

    /// Adds agents before those that are there: each is its provider's, or nobody's. An agent counts before a text of
    /// the same length in the same place.
    #[must_use]
    pub fn with_agents(mut self, agents: impl IntoIterator<Item = Agent>) -> Self {
        let mut all: Vec<Agent> = agents.into_iter().collect();
        for name in all.iter().filter_map(|agent| agent.provider.as_deref()) {
            if self.enter(name).is_none() {
                break;
            }
        }
        all.extend(self.agents.agents().iter().cloned());
        self.agents = Roster::new(all);
        self
    }

    /// The known agent that a process is.
    pub(super) fn agent(&self, subject: &Subject) -> Option<Found<'_>> {
        self.agents.find(subject)
    }

    /// By which an agent of that name names its sessions.
    pub(super) fn session_variables(&self, agent: &str) -> Option<&[String]> {
        let agent = self.agents.agents().iter().find(|known| known.name == agent)?;
        Some(&agent.session)
    }

    fn index(&self, name: &str) -> Option<ProviderIndex> {
        let position = self.names.iter().position(|known| **known == *name)?;
        u16::try_from(position).ok().map(ProviderIndex)
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
    /// the user's patterns before built-in ones, then the longest pattern, then the first given. `agent` is what it is.
    pub(super) fn own_match(&self, subject: &Subject, agent: Option<&Found<'_>>) -> Option<OwnProvider> {
        let of_agent = agent.and_then(|found| {
            let provider = self.index(found.agent.provider.as_deref()?)?;
            let weak = found.place != Place::Program;
            let rank = (found.place, false, usize::MAX - found.length);
            Some((rank, OwnProvider { provider, weak, guess: false }))
        });
        let mut best: Option<((Place, bool, usize), OwnProvider)> = of_agent;
        for pattern in &self.patterns {
            let Some((place, is_last, length)) = pattern.rank(subject) else { continue };
            let weak = place != Place::Program || pattern.is_added();
            let guess = place != Place::Program && pattern.is_guessed();
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
        let own = own_of(providers, &image)?;
        Some((providers.name(Some(own.provider)).to_string(), own.weak))
    }

    fn own_of(providers: &Providers, image: &Image) -> Option<OwnProvider> {
        let subject = Subject::of(image);
        providers.own_match(&subject, providers.agent(&subject).as_ref())
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
            let own = own_of(&providers, &image)?;
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
