//! The agents that rano knows: the built-in table `agents.toml`, and how an agent of that table or of a user's file is
//! recognised in a process.

use std::collections::BTreeMap;
use std::sync::{Arc, LazyLock};

use serde::Deserialize;

use super::matching::{Place, Subject};
use super::roster::Roster;
use crate::glob::Glob;

/// The agents and providers that are built in.
pub const BUILT_IN: &str = include_str!("agents.toml");

/// An agent, as its table says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Agent {
    pub name: String,
    pub provider: Option<String>,
    /// In lower case; at least one.
    pub names: Vec<String>,
    pub extent: Extent,
    /// In lower case.
    pub packages: Vec<String>,
    /// The names are common words: a package, a path or an interpreter has to agree.
    pub common: bool,
    /// Of the executable or script. Where the names are no common words, one of them is enough.
    pub paths: Vec<Glob>,
    /// Interpreters that its script is run by: they agree with a name that is a common word.
    pub interpreters: Vec<String>,
    /// Variables that it sets for what it starts. Polling finds an orphan's agent by them.
    pub environment: Vec<String>,
    /// Variables by which it tells what it starts which of its sessions that belongs to.
    pub session: Vec<String>,
    /// Hosts that it is known to use, in lower case: looked up where nothing else tells names.
    pub endpoints: Vec<String>,
}

/// How much of what is shown a name has to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Extent {
    /// All, but for scope, version, ending and platform.
    #[default]
    Whole,
    Part,
}

impl Extent {
    pub const ALL: [Self; 2] = [Self::Whole, Self::Part];

    pub const fn name(self) -> &'static str {
        match self {
            Self::Whole => "whole",
            Self::Part => "part",
        }
    }

    pub fn parse(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|extent| extent.name() == word)
    }
}

/// What stands behind a name that is still whole: endings of programs and scripts, and the parts of a platform's name.
const BEHIND: [&str; 28] = [
    "exe",
    "wrapped",
    "js",
    "cjs",
    "mjs",
    "ts",
    "py",
    "bin",
    "appimage",
    "linux",
    "unknown",
    "gnu",
    "musl",
    "gnueabihf",
    "musleabihf",
    "static",
    "x86",
    "64",
    "x64",
    "amd64",
    "i686",
    "aarch64",
    "arm64",
    "armv7",
    "armv7l",
    "riscv64",
    "ppc64le",
    "s390x",
];

/// A comm has at most so many bytes (`TASK_COMM_LEN` of the kernel, less the zero).
pub(super) const COMM_MAX: usize = 15;

impl Agent {
    /// The best place where the process shows up as this agent, and the name, package or path that it has there. Only
    /// names count, never arguments.
    pub fn place_in(&self, subject: &Subject) -> Option<(Place, &str)> {
        let by_package = self.packages.iter().filter_map(|package| {
            let place = subject.packages().find(|(shown, _)| is_package(shown, package))?.1;
            Some((place, package.as_str()))
        });
        let by_path = self.paths.iter().filter(|_| self.is_told_by_path()).filter_map(|glob| {
            let is_there = subject.paths().any(|path| glob.matches(path));
            is_there.then_some((Place::Name, self.name.as_str()))
        });
        let is_meant = || !self.common || self.agrees(subject);
        let by_name = self.names.iter().filter_map(|name| {
            let place = match self.extent {
                Extent::Part => subject.place_in_names(name),
                Extent::Whole => subject.place_where(|shown, place| {
                    is_called(shown, name) || place == Place::Comm && is_cut_off(shown, name)
                }),
            };
            place.map(|place| (place, name.as_str()))
        });
        let best = |(place, by): &(Place, &str)| (*place, usize::MAX - by.len());
        let by_name = by_name.min_by_key(best).filter(|_| is_meant());
        by_package.chain(by_name).chain(by_path).min_by_key(best)
    }

    /// Whether the process goes by one of its names, not by its executable alone: `codex` runs itself as
    /// `codex-linux-sandbox`.
    pub(super) fn is_named(&self, subject: &Subject) -> bool {
        let is_its = |shown: &str| self.names.iter().any(|name| is_called(shown, name));
        is_its(subject.called()) || subject.scripts().any(is_its) || subject.packages().next().is_some()
    }

    /// One of its paths is enough.
    pub(super) fn is_told_by_path(&self) -> bool {
        !self.common && !self.paths.is_empty()
    }

    fn agrees(&self, subject: &Subject) -> bool {
        let runs_by = |interpreter: &String| {
            subject.is_run_by(interpreter)
                && self.names.iter().any(|name| subject.scripts().any(|script| is_called(script, name)))
        };
        self.packages.iter().any(|package| subject.packages().any(|(shown, _)| is_package(shown, package)))
            || self.paths.iter().any(|glob| subject.paths().any(|path| glob.matches(path)))
            || self.interpreters.iter().any(runs_by)
    }
}

/// Whether what shows up as `shown` is called `name`. Both in lower case.
pub(super) fn is_called(shown: &str, name: &str) -> bool {
    let shown = shown.rsplit('/').next().unwrap_or(shown);
    // `.codex-wrapped`, `.kilo`: a script of the name stands where the program was.
    let shown = shown.strip_prefix('.').unwrap_or(shown);
    let Some(rest) = shown.strip_prefix(name) else { return false };
    let Some(behind) = rest.strip_prefix(['.', '-', '_']) else {
        return rest.is_empty() || rest.starts_with('@');
    };
    let is_number = |word: &str| {
        let digits = word.strip_prefix('v').unwrap_or(word);
        !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit())
    };
    behind.split(['.', '-', '_']).all(|word| BEHIND.contains(&word) || is_number(word))
}

/// Whether a comm is the beginning of a name that is too long for one.
fn is_cut_off(comm: &str, name: &str) -> bool {
    comm.len() == COMM_MAX && name.starts_with(comm)
}

/// Whether what is run is this package, of whatever version and registry: `npm:@scope/name@1`, `module.main`.
pub(super) fn is_package(shown: &str, package: &str) -> bool {
    let shown = ["npm:", "jsr:"].iter().find_map(|prefix| shown.strip_prefix(prefix)).unwrap_or(shown);
    shown.strip_prefix(package).is_some_and(|rest| rest.is_empty() || rest.starts_with(['@', '.']))
}

/// The table of the file, in its words.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Table {
    providers: BTreeMap<String, Vec<String>>,
    agents: Vec<Row>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Row {
    name: String,
    provider: Option<String>,
    #[serde(default)]
    names: Vec<String>,
    r#match: Option<String>,
    #[serde(default)]
    packages: Vec<String>,
    #[serde(default)]
    common: bool,
    #[serde(default)]
    paths: Vec<String>,
    #[serde(default)]
    interpreters: Vec<String>,
    #[serde(default)]
    environment: Vec<String>,
    #[serde(default)]
    session: Vec<String>,
    #[serde(default)]
    endpoints: Vec<String>,
}

const READ: &str = "a test reads the built-in agents";

static TABLE: LazyLock<Table> = LazyLock::new(|| toml::from_str(BUILT_IN).expect(READ));

/// Those that are built in.
pub fn built_in() -> Vec<Agent> {
    let agent = |row: &Row| Agent {
        name: row.name.clone(),
        provider: row.provider.clone(),
        names: if row.names.is_empty() { vec![row.name.clone()] } else { row.names.clone() },
        extent: row.r#match.as_deref().map(|word| Extent::parse(word).expect(READ)).unwrap_or_default(),
        packages: row.packages.clone(),
        common: row.common,
        paths: row.paths.iter().map(|path| Glob::parse(path).expect(READ)).collect(),
        interpreters: row.interpreters.clone(),
        environment: row.environment.clone(),
        session: row.session.clone(),
        endpoints: row.endpoints.clone(),
    };
    TABLE.agents.iter().map(agent).collect()
}

/// The same, to look them up.
pub fn built_in_roster() -> Arc<Roster> {
    static ROSTER: LazyLock<Arc<Roster>> = LazyLock::new(|| Arc::new(Roster::new(built_in())));
    Arc::clone(&ROSTER)
}

/// The names of those that are built in, joined by commas.
pub fn names() -> &'static str {
    static NAMES: LazyLock<String> = LazyLock::new(|| {
        let names: Vec<_> = TABLE.agents.iter().map(|row| row.name.as_str()).collect();
        names.join(",")
    });
    &NAMES
}

/// The patterns of the providers that are built in, in the order of their agents.
pub fn built_in_providers() -> Vec<(String, Vec<String>)> {
    // The parser sorts them by name.
    let position = |name: &str| TABLE.agents.iter().position(|row| row.provider.as_deref() == Some(name));
    let mut all: Vec<_> = TABLE.providers.clone().into_iter().collect();
    all.sort_by_key(|(name, _)| position(name));
    all
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::process::Image;

    fn agent(name: &str) -> Agent {
        Agent {
            name: name.to_owned(),
            provider: None,
            names: vec![name.to_owned()],
            extent: Extent::Whole,
            packages: Vec::new(),
            common: false,
            paths: Vec::new(),
            interpreters: Vec::new(),
            environment: Vec::new(),
            session: Vec::new(),
            endpoints: Vec::new(),
        }
    }

    /// `command` is split at blanks; executable and comm follow from its first word.
    fn place(agent: &Agent, command: &str) -> Option<Place> {
        let argv: Vec<String> = command.split(' ').map(str::to_owned).collect();
        let base = argv[0].rsplit('/').next().unwrap_or_default();
        let exe = if argv[0].starts_with('/') { argv[0].clone() } else { format!("/usr/bin/{base}") };
        let comm = base[..base.len().min(COMM_MAX)].to_owned();
        agent.place_in(&Subject::of(&Image { comm, exe, argv, ..Image::default() })).map(|(place, _)| place)
    }

    #[test]
    fn the_built_in_table_is_sound() {
        let agents = built_in();
        assert_eq!(names(), agents.iter().map(|agent| agent.name.as_str()).collect::<Vec<_>>().join(","));
        assert!(names().starts_with("claude,codex,gemini,opencode,"), "{}", names());
        let is_lower = |text: &String| !text.is_empty() && *text == text.to_lowercase();
        for agent in &agents {
            let texts = agent.names.iter().chain(&agent.packages).chain(&agent.interpreters);
            assert!(texts.into_iter().all(is_lower), "{agent:?}");
            assert!(agent.paths.iter().all(|path| is_lower(&path.written().to_string())), "{agent:?}");
            let has_help =
                !agent.packages.is_empty() || !agent.paths.is_empty() || !agent.interpreters.is_empty();
            assert!(!agent.common || has_help, "{agent:?}");
            assert_eq!(agents.iter().filter(|other| other.name == agent.name).count(), 1, "{agent:?}");
        }
        let expected = [
            ("anthropic", ["claude", "anthropic"]),
            ("openai", ["codex", "openai"]),
            ("google", ["gemini", "google"]),
        ];
        assert_eq!(
            built_in_providers(),
            expected.map(|(name, patterns)| (name.to_owned(), patterns.map(str::to_owned).into()))
        );
    }

    #[test]
    fn a_whole_name_may_have_scope_version_ending_and_platform() {
        let codex = agent("codex");
        for command in [
            "codex exec",
            "Codex.exe",
            "codex-x86_64-unknown-linux-musl",
            "codex-linux-arm64",
            "codex-1.2.3",
            "node /usr/bin/codex",
            "node /x/codex.js",
            "npx @openai/codex@latest",
            "node /x/node_modules/@openai/codex/bin/run.js",
            "/nix/store/x/.codex-wrapped",
            "/lib64/ld-linux-x86-64.so.2 --library-path /x ./codex",
        ] {
            assert_eq!(place(&codex, command), Some(Place::Program), "{command}");
        }
        for command in [
            "codexctl",
            "codex.sh",
            "codex-helper",
            "my-codex",
            "node test_codex_api.js",
            "vim codex",
            "codex-",
            "sh -c codex",
            "node /codex/server.js",
        ] {
            assert_eq!(place(&codex, command), None, "{command}");
        }
    }

    #[test]
    fn variants_are_listed_and_a_long_name_is_cut_off_in_comm() {
        let variants =
            Agent { names: vec!["codex-cli".into(), "a-rather-long-agent".into()], ..agent("codex") };
        assert_eq!(place(&variants, "codex-cli"), Some(Place::Program));
        assert_eq!(place(&variants, "codex"), None);
        let image = |comm: &str| Image { comm: comm.into(), ..Image::default() };
        let place = |comm| variants.place_in(&Subject::of(&image(comm))).map(|(place, _)| place);
        assert_eq!(place("a-rather-long-a"), Some(Place::Comm));
        assert_eq!(place("a-rather"), None);
    }

    #[test]
    fn a_common_word_needs_a_package_or_a_path_that_agrees() {
        let goose = Agent {
            common: true,
            packages: vec!["goose-ai".into()],
            paths: vec!["*/.local/bin/goose".into()],
            ..agent("goose")
        };
        assert_eq!(place(&goose, "goose up"), None, "a database migrator");
        assert_eq!(place(&goose, "/home/u/.local/bin/goose run"), Some(Place::Program));
        assert_eq!(place(&goose, "python3 /v/site-packages/goose_ai/x.py"), None);
        assert_eq!(place(&goose, "python3 /v/site-packages/goose-ai/x.py"), Some(Place::Program));
        assert_eq!(place(&goose, "uvx goose-ai@1.2 session"), Some(Place::Program));
        assert_eq!(place(&Agent { common: false, ..goose }, "goose up"), Some(Place::Program));
    }

    #[test]
    fn a_part_is_enough_where_the_table_says_so_and_arguments_never_are() {
        let part = Agent { extent: Extent::Part, ..agent("codex") };
        assert_eq!(place(&part, "my-codex-helper"), Some(Place::Program));
        assert_eq!(place(&part, "node /src/fix-codex-bug.js"), Some(Place::Name));
        assert_eq!(place(&part, "vim codex.md"), None);
    }
}
