//! Which processes are asked for: patterns against a process's names, its comm and its command line.

use super::interpreter::{self, basename};
use super::{Image, ProcessId};

/// What is watched when nothing else is asked for.
pub const DEFAULT_PATTERNS: [&str; 3] = ["claude", "codex", "gemini"];

/// Who wrote a pattern: a built-in one must not catch an editor on `claude.md`, a user's may mean just that.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Origin {
    Builtin,
    User,
}

/// What the user asked to watch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Targets {
    /// Case-insensitive substrings; none given means the default ones, unless there are pids.
    pub patterns: Vec<String>,
    /// Case-insensitive substrings of comm and command line.
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
    excluded: Vec<String>,
    root_pids: Vec<u32>,
    descendants: bool,
    never: Vec<ProcessId>,
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
            excluded: lowercase(targets.exclude_patterns),
            root_pids: targets.pids,
            descendants: targets.descendants,
            never,
        }
    }

    /// Whether a pattern asks for it. Default patterns match names only.
    pub fn wants(&self, subject: &Subject) -> bool {
        self.patterns.iter().any(|pattern| match subject.place_of(pattern) {
            Some(Place::Name | Place::Comm) => true,
            Some(Place::CommandLine) => self.origin == Origin::User,
            None => false,
        })
    }

    /// Whether an exclude pattern stands anywhere in its comm or command line.
    pub fn excludes(&self, subject: &Subject) -> bool {
        self.excluded
            .iter()
            .any(|pattern| subject.comm.contains(pattern) || subject.command_line.contains(pattern))
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
    /// Executable, `argv[0]`, or an interpreter's script, module or package.
    Name,
    Comm,
    CommandLine,
}

/// A process as patterns see it, in lower case.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Subject {
    names: Vec<String>,
    comm: String,
    command_line: String,
}

impl Subject {
    pub fn of(image: &Image) -> Self {
        let exe = basename(image.exe.strip_suffix(" (deleted)").unwrap_or(&image.exe));
        let argv = words(&image.argv);
        let mut names = vec![exe];
        if let Some((&program, arguments)) = argv.split_first() {
            let program = program_name(program);
            names.push(program);
            let run = interpreter::names(program, arguments);
            // `exec -a claude node x.js`: argv[0] hides the interpreter that the executable shows.
            let run = if run.is_empty() { interpreter::names(exe, arguments) } else { run };
            names.extend(run);
        }
        Self {
            names: names.into_iter().filter(|name| !name.is_empty()).map(str::to_lowercase).collect(),
            comm: image.comm.to_lowercase(),
            command_line: image.argv.join(" ").to_lowercase(),
        }
    }

    /// The best place where `pattern`, in lower case, stands.
    pub fn place_of(&self, pattern: &str) -> Option<Place> {
        if self.names.iter().any(|name| name.contains(pattern)) {
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

    #[test]
    fn exclusion_looks_at_comm_and_command_line() {
        let rules = rules(Targets { exclude_patterns: vec!["Helper".into()], ..Targets::default() });
        assert!(rules.excludes(&Subject::of(&command("claude --helper"))));
        assert!(rules.excludes(&Subject::of(&image("helper", "/x", &["x"]))));
        assert!(!rules.excludes(&Subject::of(&image("x", "/helper/x", &["x"]))));
    }
}
