//! Which processes are asked for, and which are left out: patterns against a process's names, its comm and its command
//! line.

use super::interpreter::{self, Name, basename};
use super::{Image, ProcessId};

/// What is watched when nothing else is asked for.
pub const DEFAULT_PATTERNS: [&str; 3] = ["claude", "codex", "gemini"];

/// Who wrote a pattern: a built-in one must not catch an editor on `claude.md`, a user's may mean just that.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Origin {
    Builtin,
    User,
}

/// What an exclude pattern begins with that means the whole command line: `cmd:--dry-run`.
pub const COMMAND_LINE: &str = "cmd:";

/// What the user asked to watch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Targets {
    /// Case-insensitive substrings; none given means the default ones, unless there are pids.
    pub patterns: Vec<String>,
    /// Case-insensitive substrings of executable, `argv[0]` or script; behind [`COMMAND_LINE`] of the command line.
    pub exclude_patterns: Vec<String>,
    /// Processes to watch whatever they are called.
    pub pids: Vec<u32>,
    /// Whether what a watched process starts is watched too.
    pub descendants: bool,
}

impl Default for Targets {
    fn default() -> Self {
        Self { patterns: Vec::new(), exclude_patterns: Vec::new(), pids: Vec::new(), descendants: true }
    }
}

/// The rules by which a process is a root, excluded, or neither.
#[derive(Debug, Clone)]
pub struct Rules {
    origin: Origin,
    patterns: Vec<String>,
    excluded: Vec<Exclude>,
    root_pids: Vec<u32>,
    descendants: bool,
    never: Vec<ProcessId>,
}

/// What is left out, in lower case.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Exclude {
    /// Stands in executable, `argv[0]` or script: in the name, or with a `/` in it anywhere in the path.
    Program(String),
    CommandLine(String),
}

impl Exclude {
    /// `None` for one that nothing is left of: it would leave out everybody.
    fn of(pattern: &str) -> Option<Self> {
        let pattern = pattern.to_lowercase();
        let exclude = match pattern.strip_prefix(COMMAND_LINE) {
            Some(text) => Self::CommandLine(text.to_owned()),
            None => Self::Program(pattern),
        };
        let (Self::Program(text) | Self::CommandLine(text)) = &exclude;
        (!text.is_empty()).then_some(exclude)
    }

    fn fits(&self, subject: &Subject) -> bool {
        match self {
            Self::Program(text) => {
                subject.names.iter().any(|name| name.contains(text))
                    || text.contains('/') && subject.paths.iter().any(|path| path.contains(text))
            }
            Self::CommandLine(text) => subject.command_line.contains(text),
        }
    }
}

impl Rules {
    /// `never` are the processes that are not tracked whatever they match and through which nothing else becomes
    /// tracked: rano itself and its ancestors (`sudo rano --pattern claude` must not catch sudo).
    ///
    /// Empty patterns match nothing.
    pub fn new(targets: Targets, never: Vec<ProcessId>) -> Self {
        let given = lowercase(targets.patterns);
        let (origin, patterns) = if given.is_empty() && targets.pids.is_empty() {
            (Origin::Builtin, DEFAULT_PATTERNS.map(String::from).into())
        } else {
            (Origin::User, given)
        };
        Self {
            origin,
            patterns,
            excluded: targets.exclude_patterns.iter().filter_map(|pattern| Exclude::of(pattern)).collect(),
            root_pids: targets.pids,
            descendants: targets.descendants,
            never,
        }
    }

    /// Whether a pattern asks for it. Default patterns match names only.
    pub fn wants(&self, subject: &Subject) -> bool {
        self.patterns.iter().any(|pattern| match subject.place_of(pattern) {
            Some(Place::Program | Place::Name | Place::Comm) => true,
            Some(Place::CommandLine) => self.origin == Origin::User,
            None => false,
        })
    }

    /// Whether it runs what is to be left out. Its comm does not count: every process can change its own.
    pub fn excludes(&self, subject: &Subject) -> bool {
        self.excluded.iter().any(|exclude| exclude.fits(subject))
    }

    /// The pids that were asked for. A pid means the process that has it when it is first seen.
    pub fn root_pids(&self) -> &[u32] {
        &self.root_pids
    }

    pub fn descendants(&self) -> bool {
        self.descendants
    }

    pub fn never(&self, id: ProcessId) -> bool {
        self.never.contains(&id)
    }
}

pub(super) fn lowercase(patterns: Vec<String>) -> Vec<String> {
    patterns.into_iter().filter(|p| !p.is_empty()).map(|p| p.to_lowercase()).collect()
}

/// Where a pattern was found, best first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Place {
    /// The executable, or the package that an interpreter runs a script of: what a process cannot merely claim to be.
    Program,
    /// `argv[0]`, or an interpreter's script.
    Name,
    Comm,
    CommandLine,
}

/// A process as patterns see it, in lower case.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Subject {
    /// What it runs.
    programs: Vec<String>,
    /// Scripts without their ending: programs where the whole of one is the pattern (`node /usr/bin/codex`).
    scripts: Vec<String>,
    /// These and what it calls itself.
    names: Vec<String>,
    /// The same where they are paths, in full.
    paths: Vec<String>,
    comm: String,
    command_line: String,
}

impl Subject {
    pub fn of(image: &Image) -> Self {
        let path = image.exe.strip_suffix(" (deleted)").unwrap_or(&image.exe);
        let exe = basename(path);
        let argv = words(&image.argv);
        let (program, arguments) = argv.split_first().map_or(("", &[][..]), |(first, rest)| (*first, rest));
        let called = program_name(program);
        // argv[0] is what the caller of exec made up; the executable decides what is run by which rules.
        let runs = interpreter::names(exe, arguments);
        let claims = interpreter::names(called, arguments);
        let of_package = |name: &&Name<'_>| name.is_package;
        let programs = [exe].into_iter().chain(release(path));
        let programs: Vec<&str> =
            programs.chain(runs.iter().filter(of_package).map(|name| name.text)).collect();
        let scripts = runs.iter().filter(|name| !name.is_package).map(|name| stem(name.text));
        let all = runs.iter().chain(&claims);
        let names = programs.iter().copied().chain([called]).chain(all.clone().map(|name| name.text));
        let paths = [path, program].into_iter().chain(all.map(|name| name.path));
        Self {
            scripts: lower(scripts),
            names: lower(names),
            paths: lower(paths),
            programs: lower(programs.iter().copied()),
            comm: image.comm.to_lowercase(),
            command_line: image.argv.join(" ").to_lowercase(),
        }
    }

    /// The best place where `pattern`, in lower case, stands.
    pub fn place_of(&self, pattern: &str) -> Option<Place> {
        let stands_in = |names: &[String]| names.iter().any(|name| name.contains(pattern));
        if stands_in(&self.programs) || self.scripts.iter().any(|script| script == pattern) {
            Some(Place::Program)
        } else if stands_in(&self.names) {
            Some(Place::Name)
        } else if self.comm.contains(pattern) {
            Some(Place::Comm)
        } else if self.command_line.contains(pattern) {
            Some(Place::CommandLine)
        } else {
            None
        }
    }
}

/// In lower case, without empty ones and repetitions.
fn lower<'a>(names: impl Iterator<Item = &'a str>) -> Vec<String> {
    let mut all: Vec<String> = Vec::new();
    for name in names.filter(|name| !name.is_empty()).map(str::to_lowercase) {
        if !all.contains(&name) {
            all.push(name);
        }
    }
    all
}

/// `claude` of `/home/u/.local/share/claude/versions/2.0.1`: an executable that is named after its version.
fn release(path: &str) -> Option<&str> {
    let (directory, version) = path.rsplit_once('/')?;
    let digits = version.strip_prefix('v').unwrap_or(version);
    if !digits.starts_with(|c: char| c.is_ascii_digit())
        || digits.contains(|c: char| !c.is_ascii_digit() && c != '.')
    {
        return None;
    }
    let directory = directory.strip_suffix("/versions").unwrap_or(directory);
    Some(basename(directory))
}

/// `codex` of `codex.js`.
fn stem(file: &str) -> &str {
    file.split_once('.').map_or(file, |(stem, _)| stem)
}

/// The arguments as words. A process that rewrote its title shows one argument with blanks in it
/// (`npm exec @openai/codex`, `sshd: claude [priv]`): its words are taken apart, so that only the first is a name.
fn words(argv: &[String]) -> Vec<&str> {
    match argv {
        [title] if title.contains(' ') && !title.starts_with('/') => title.split(' ').collect(),
        _ => argv.iter().map(String::as_str).collect(),
    }
}

/// `bash` of `-bash`, `/usr/bin/bash` and `/usr/bin/bash: a title`.
fn program_name(argument: &str) -> &str {
    let path = argument.split(": ").next().unwrap_or(argument);
    let name = basename(path);
    name.strip_prefix('-').unwrap_or(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn image(comm: &str, exe: &str, argv: &[&str]) -> Image {
        Image {
            comm: comm.into(),
            exe: exe.into(),
            argv: argv.iter().map(|&a| a.to_owned()).collect(),
            uid: 1000,
        }
    }

    /// `command` is split at blanks; comm and executable follow from its first word.
    fn command(line: &str) -> Image {
        let argv: Vec<&str> = line.split(' ').collect();
        let base = basename(argv[0]);
        image(&base[..base.len().min(15)], &format!("/usr/bin/{base}"), &argv)
    }

    fn rules(targets: Targets) -> Rules {
        Rules::new(targets, Vec::new())
    }

    fn user(pattern: &str) -> Rules {
        rules(Targets { patterns: vec![pattern.into()], ..Targets::default() })
    }

    fn wanted(rules: &Rules, image: &Image) -> bool {
        rules.wants(&Subject::of(image))
    }

    #[test]
    fn default_patterns_match_names() {
        let rules = rules(Targets::default());
        for line in [
            "claude --continue",
            "/home/u/.local/bin/Claude",
            "node /usr/bin/codex",
            "node --require x.js /usr/bin/codex",
            "node /usr/lib/node_modules/@anthropic-ai/claude-code/cli.js",
            "node /usr/lib/node_modules/@google/gemini-cli/dist/index.js",
            "python3 -m gemini_cli",
            "bun run /opt/bin/claude",
            "sh /usr/local/bin/gemini",
            "npx @openai/codex",
            "codex-x86_64-unknown-linux-musl",
        ] {
            assert!(wanted(&rules, &command(line)), "{line}");
        }
    }

    #[test]
    fn default_patterns_do_not_match_arguments_and_directories() {
        let rules = rules(Targets::default());
        for line in [
            "vim claude.md",
            "grep claude",
            "tail -f /var/log/claude.log",
            "node /home/u/claude/server.js",
            "/home/u/codex/target/debug/server",
            "sh -c claude",
            "bash -c cd /claude && make",
            "curl https://gemini.google.com",
            "sudo claude",
            "tmux new-session claude",
            "npm install @anthropic-ai/claude-code",
        ] {
            assert!(!wanted(&rules, &command(line)), "{line}");
        }
    }

    #[test]
    fn any_one_of_the_names_is_enough() {
        let rules = rules(Targets::default());
        // The native build lies in a file named after its version.
        assert!(wanted(&rules, &image("x", "/home/u/.local/share/claude/versions/2.0.1", &["claude"])));
        assert!(wanted(&rules, &image("claude", "/v/2.0.1", &["/v/2.0.1"])));
        assert!(wanted(&rules, &image("x", "/usr/bin/codex (deleted)", &["x"])));
        assert!(wanted(&rules, &image("MainThread", "/usr/bin/node", &["x", "/usr/bin/gemini"])));
        assert!(!wanted(&rules, &Image::default()));
    }

    #[test]
    fn a_rewritten_title_is_read_as_words() {
        let rules = rules(Targets::default());
        assert!(wanted(&rules, &image("npm exec", "/usr/bin/node", &["npm exec @openai/codex"])));
        assert!(!wanted(&rules, &image("sshd-session", "/usr/sbin/sshd", &["sshd: claude [priv]"])));
        assert!(!wanted(&rules, &image("nginx", "/usr/sbin/nginx", &["/usr/sbin/nginx: claude pool"])));
        assert!(wanted(&rules, &image("x", "/opt/Claude App/claude", &["/opt/Claude App/claude"])));
    }

    #[test]
    fn user_patterns_match_anywhere_whatever_their_case() {
        assert!(wanted(&user("CLAUDE.md"), &command("vim claude.MD")));
        assert!(wanted(&user("server.js --port"), &command("node server.js --port 1")));
        assert!(wanted(&user("École"), &command("ls ÉCOLE")));
        assert!(!wanted(&user("other"), &command("claude")), "given patterns replace the default ones");
        assert!(wanted(&user(""), &command("claude")), "an empty pattern is none");
    }

    #[test]
    fn pids_replace_default_patterns_but_not_given_ones() {
        let pids = rules(Targets { pids: vec![7], ..Targets::default() });
        assert!(!wanted(&pids, &command("claude")));
        let both = rules(Targets { pids: vec![7], patterns: vec!["claude".into()], ..Targets::default() });
        assert!(wanted(&both, &command("claude")));
    }

    fn excluded(pattern: &str, image: &Image) -> bool {
        let rules = rules(Targets { exclude_patterns: vec![pattern.into()], ..Targets::default() });
        rules.excludes(&Subject::of(image))
    }

    #[test]
    fn exclusion_goes_by_executable_argv_0_and_script() {
        for excluded_ones in [
            image("x", "/usr/bin/Helper-2", &["x"]),
            image("x", "/usr/bin/helper (deleted)", &["x"]),
            image("x", "/usr/bin/x", &["/opt/helper", "y"]),
            image("node", "/usr/bin/node", &["node", "-r", "x.js", "/opt/helper.js"]),
            image("node", "/usr/bin/node", &["node", "/opt/node_modules/@acme/helper/cli.js"]),
            image("x", "/usr/bin/python3.12", &["x", "-m", "helper.main"]),
            image("x", "", &["node", "/opt/helper"]),
        ] {
            assert!(excluded("Helper", &excluded_ones), "{excluded_ones:?}");
        }
        for others in [
            image("helper", "/usr/bin/x", &["x"]),
            command("claude --helper helper"),
            image("x", "/helper/x", &["/helper/x", "/helper"]),
            image("node", "/usr/bin/node", &["node", "/helper/x.js", "helper"]),
            Image::default(),
        ] {
            assert!(!excluded("helper", &others), "{others:?}");
        }
    }

    #[test]
    fn an_exclude_with_a_slash_means_a_path() {
        let it = image("node", "/opt/tools/bin/node", &["node", "/srv/app/x.js", "/home/u"]);
        assert!(excluded("/opt/tools/", &it) && excluded("/APP/x", &it));
        assert!(!excluded("/home/u", &it), "an argument");
        assert!(!excluded("tools", &it), "a directory");
    }

    #[test]
    fn an_exclude_of_the_command_line_says_so() {
        let it = command("claude --Helper x");
        assert!(excluded("cmd:--helper X", &it) && excluded("cmd:claude", &it));
        assert!(!excluded("cmd:other", &it));
        assert!(!excluded("cmd:", &it) && !excluded("", &it), "nothing is in everything");
    }

    #[test]
    fn what_a_process_is_and_what_it_claims_to_be_are_two_places() {
        let place = |image: &Image, pattern: &str| Subject::of(image).place_of(pattern);
        let renamed = image("x", "/usr/bin/curl", &["gemini", "x"]);
        assert_eq!(place(&renamed, "gemini"), Some(Place::Name));
        assert_eq!(place(&renamed, "curl"), Some(Place::Program));
        // argv[0] says that it is an interpreter of a package.
        let posing = image("x", "/tmp/evil", &["node", "/x/node_modules/@google/gemini-cli/x.js"]);
        assert_eq!(place(&posing, "gemini"), Some(Place::Name));
        let package = image("x", "/usr/bin/node", &["x", "/x/node_modules/@google/gemini-cli/x.js"]);
        assert_eq!(place(&package, "gemini"), Some(Place::Program));
        let script = |name| image("node", "/usr/bin/node", &["node", name]);
        assert_eq!(place(&script("/usr/bin/codex"), "codex"), Some(Place::Program));
        assert_eq!(place(&script("codex.js"), "codex"), Some(Place::Program));
        assert_eq!(place(&script("/src/fix-codex-bug.js"), "codex"), Some(Place::Name));
        let released = image("x", "/home/u/.local/share/claude/versions/2.0.1", &["x"]);
        assert_eq!(place(&released, "claude"), Some(Place::Program));
        assert_eq!(place(&image("x", "/claude/bin/2to3", &["x"]), "claude"), None);
    }
}
