//! Which program an interpreter, package runner or loader really runs: `node /usr/bin/codex` is codex. The rules of
//! each command line are data, `launchers.toml`; only the first script, module or package counts, never its arguments.

use std::collections::HashMap;
use std::sync::LazyLock;

use serde::Deserialize;

/// How one family of interpreters or launchers reads its command line; `launchers.toml` says what each field is.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Launcher {
    /// Basenames, lower case, without a version (`python3.12` is `python`).
    names: Vec<String>,
    #[serde(default)]
    begins: Vec<String>,
    runs: Runs,
    #[serde(default)]
    values: Vec<String>,
    #[serde(default)]
    pairs: Vec<String>,
    #[serde(default)]
    text: Vec<String>,
    #[serde(default)]
    modules: Vec<String>,
    #[serde(default)]
    commands: Vec<String>,
    #[serde(default)]
    required: bool,
    #[serde(default)]
    words: usize,
    #[serde(default)]
    assignments: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Runs {
    /// A file: its basename and its package count, not the directories it lies in.
    Script,
    /// A package, `@scope/name@version`: all of it counts, unless it is a path.
    Package,
    /// A module, `package.module`.
    Module,
    /// A process of its own.
    Program,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Table {
    launchers: Vec<Launcher>,
}

static TABLE: LazyLock<Table> =
    LazyLock::new(|| toml::from_str(include_str!("launchers.toml")).expect("a test reads the launchers"));

static BY_NAME: LazyLock<HashMap<&'static str, &'static Launcher>> = LazyLock::new(|| {
    let named =
        |launcher: &'static Launcher| launcher.names.iter().map(move |name| (name.as_str(), launcher));
    TABLE.launchers.iter().flat_map(named).collect()
});

impl Launcher {
    fn has(list: &[String], word: &str) -> bool {
        list.iter().any(|listed| listed == word)
    }

    fn has_letter(list: &[String], letter: char) -> bool {
        let is_it = |option: &String| {
            option.strip_prefix('-').and_then(|rest| rest.strip_prefix(letter)).is_some_and(str::is_empty)
        };
        list.iter().any(is_it)
    }
}

/// Directories whose direct children are packages (`@scope/name` counts as one).
const PACKAGE_DIRECTORIES: &[&str] = &["node_modules", "site-packages", "dist-packages"];

/// An interpreter may run a runner that runs a script (`node /usr/bin/npx tsx x.ts`); more levels than this are not
/// real.
const MAX_LEVELS: usize = 4;

/// A name of what is run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Name<'a> {
    pub(super) text: &'a str,
    /// It is that of a package or module, not of a file.
    pub(super) is_package: bool,
    /// As it stands among the arguments.
    pub(super) path: &'a str,
}

/// The names of what `program` runs when called with `arguments`; none where it is no interpreter or runs no script.
pub(super) fn names<'a>(program: &str, arguments: &[&'a str]) -> Vec<Name<'a>> {
    let mut found = Vec::new();
    // What a launcher runs is a process of its own.
    let mut launcher = lookup(program).filter(|launcher| launcher.runs != Runs::Program);
    let mut rest = arguments;
    for _ in 0..MAX_LEVELS {
        let Some((runs, word, after)) = launcher.and_then(|launcher| target(launcher, rest)) else { break };
        found.extend(names_of(runs, word));
        launcher = lookup(basename(word));
        rest = after;
    }
    found
}

/// What follows the last `/`.
pub(super) fn basename(path: &str) -> &str {
    path.rsplit('/').next().unwrap_or(path)
}

fn lookup(program: &str) -> Option<&'static Launcher> {
    let name = program.to_ascii_lowercase();
    let unversioned = name.trim_end_matches(|c: char| c.is_ascii_digit() || c == '.' || c == '-');
    let begins = || {
        let is_it =
            |launcher: &&Launcher| launcher.begins.iter().any(|begin| name.starts_with(begin.as_str()));
        TABLE.launchers.iter().find(is_it)
    };
    BY_NAME.get(name.as_str()).or_else(|| BY_NAME.get(unversioned)).copied().or_else(begins)
}

/// The word that names what is run, and the arguments after it.
fn target<'a, 'b>(launcher: &Launcher, arguments: &'b [&'a str]) -> Option<(Runs, &'a str, &'b [&'a str])> {
    let mut at = 0;
    let mut wants_command = launcher.required;
    let mut words = launcher.words;
    let mut only_words = false;
    while let Some(&word) = arguments.get(at) {
        at += 1;
        if only_words || !word.starts_with(['-', '+']) || word.len() < 2 {
            if word == "-" {
                return None;
            }
            if !only_words && Launcher::has(&launcher.text, word) {
                return None;
            }
            if !only_words && Launcher::has(&launcher.commands, word) {
                wants_command = false;
            } else if launcher.assignments && word.contains('=') {
            } else if words > 0 {
                words -= 1;
            } else {
                return (!wants_command).then_some((launcher.runs, word, &arguments[at..]));
            }
            continue;
        }
        if word == "--" {
            only_words = true;
            continue;
        }
        let option = word.split('=').next().unwrap_or(word);
        if Launcher::has(&launcher.text, option) {
            return None;
        }
        if Launcher::has(&launcher.pairs, option) {
            at += 2;
        } else if Launcher::has(&launcher.values, option) {
            at += usize::from(option == word);
        } else if !word.starts_with("--") {
            match short_options(launcher, &word[1..]) {
                Short::Text => return None,
                Short::Alone => {}
                Short::TakesNext => at += 1,
                Short::Module(attached) => {
                    let (module, after) =
                        if attached.is_empty() { (*arguments.get(at)?, at + 1) } else { (attached, at) };
                    return Some((Runs::Module, module, arguments.get(after..).unwrap_or(&[])));
                }
            }
        }
    }
    None
}

enum Short<'a> {
    Alone,
    TakesNext,
    Text,
    Module(&'a str),
}

/// A cluster such as `-lc` or `-uWignore`, without its dash.
fn short_options<'a>(launcher: &Launcher, cluster: &'a str) -> Short<'a> {
    for (at, letter) in cluster.char_indices() {
        let attached = &cluster[at + letter.len_utf8()..];
        if Launcher::has_letter(&launcher.text, letter) {
            return Short::Text;
        }
        if Launcher::has_letter(&launcher.modules, letter) {
            return Short::Module(attached);
        }
        if Launcher::has_letter(&launcher.values, letter) {
            return if attached.is_empty() { Short::TakesNext } else { Short::Alone };
        }
    }
    Short::Alone
}

fn names_of(runs: Runs, path: &str) -> impl Iterator<Item = Name<'_>> {
    let is_path = path.starts_with(['/', '.', '~']) || path.starts_with("file:");
    let whole = (runs == Runs::Module || (runs == Runs::Package && !is_path)).then_some(path);
    let (file, package) = if whole.is_none() { (Some(basename(path)), package(path)) } else { (None, None) };
    let file = file.map(|text| Name { text, is_package: false, path });
    let packages = whole.into_iter().chain(package).map(move |text| Name { text, is_package: true, path });
    file.into_iter().chain(packages)
}

/// `@anthropic-ai/claude-code` of `/usr/lib/node_modules/@anthropic-ai/claude-code/cli.js`.
fn package(path: &str) -> Option<&str> {
    let mut start = None;
    let mut offset = 0;
    for component in path.split('/') {
        let end = offset + component.len();
        if PACKAGE_DIRECTORIES.contains(&component) && end < path.len() {
            start = Some(end + 1);
        }
        offset = end + 1;
    }
    let rest = &path[start?..];
    let levels = if rest.starts_with('@') { 2 } else { 1 };
    let end = rest.match_indices('/').nth(levels - 1).map_or(rest.len(), |(at, _)| at);
    Some(&rest[..end])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(command: &str, expected: &[&str]) {
        let words: Vec<&str> = command.split_whitespace().collect();
        let names: Vec<&str> = names(basename(words[0]), &words[1..]).iter().map(|name| name.text).collect();
        assert_eq!(names, expected, "{command}");
    }

    #[test]
    fn the_script_is_found_behind_options_with_values() {
        check("node /usr/bin/codex", &["codex"]);
        check("node --require x.js /usr/bin/codex exec", &["codex"]);
        check("node --require=x.js -r y.js --no-warnings /usr/bin/codex", &["codex"]);
        check("node -- /usr/bin/codex", &["codex"]);
        check("python3.12 -u -W ignore -Xdev app.py claude", &["app.py"]);
        check("bash --rcfile claude.rc -euo pipefail ./gemini.sh", &["gemini.sh"]);
        check("/bin/sh +x -e run.sh", &["run.sh"]);
        check("ruby -I lib -r claude bin/tool", &["tool"]);
        check("deno run --allow-net -A npm:@google/gemini-cli", &["npm:@google/gemini-cli"]);
        check("bun run --cwd /tmp/codex ./node_modules/.bin/claude", &["claude", ".bin"]);
    }

    #[test]
    fn a_module_is_a_name() {
        check("python3 -m gemini_cli --help", &["gemini_cli"]);
        check("python -um gemini_cli.main x", &["gemini_cli.main"]);
        check("python -mgemini_cli", &["gemini_cli"]);
    }

    #[test]
    fn text_given_as_the_program_is_no_script() {
        for command in [
            "sh -c claude",
            "bash -lc claude",
            "python3 -c claude",
            "node -e claude",
            "node --eval=1 claude",
            "node -pe claude",
            "perl -ne claude",
            "deno eval claude",
            "npx -c claude",
            "bash -s claude",
            "python3 - claude",
            "node",
            "node --require",
            "python3 -m",
            "bash --",
        ] {
            check(command, &[]);
        }
    }

    #[test]
    fn runners_name_packages_and_what_those_run() {
        check("npx -y @anthropic-ai/claude-code@latest", &["@anthropic-ai/claude-code@latest"]);
        check("npm exec --yes -- @openai/codex", &["@openai/codex"]);
        check("npm install @anthropic-ai/claude-code", &[]);
        check("uvx --from git+x gemini", &["gemini"]);
        check("uv tool run --with codex other", &["other"]);
        check("uv run python -m gemini_cli", &["python", "gemini_cli"]);
        check("node /usr/bin/npx tsx --import claude.mjs src/codex.ts", &["npx", "tsx", "codex.ts"]);
    }

    #[test]
    fn only_the_package_of_a_path_counts() {
        check(
            "node /home/claude/x/node_modules/a/node_modules/@anthropic-ai/claude-code/cli.js",
            &["cli.js", "@anthropic-ai/claude-code"],
        );
        check("node /srv/claude/node_modules/vite/gemini/bin/x.js", &["x.js", "vite"]);
        check("python3 /v/lib/python3/site-packages/gemini_cli/__main__.py", &["__main__.py", "gemini_cli"]);
        check("node /x/node_modules", &["node_modules"]);
        check("node /x/node_modules/@a", &["@a", "@a"]);
        check("node /home/claude/gemini/server.js", &["server.js"]);
        check("npx ./claude/tool.js", &["tool.js"]);
    }

    #[test]
    fn the_loader_and_what_runs_other_machines_programs_show_what_they_run() {
        check("/lib64/ld-linux-x86-64.so.2 ./claude hold.py", &["claude"]);
        check("/lib64/ld-linux-x86-64.so.2 --library-path /lib/claude ./codex x", &["codex"]);
        check("/lib/ld-linux-aarch64.so.1 --argv0 gemini --inhibit-cache ./x", &["x"]);
        check("/lib/ld-musl-x86_64.so.1 --preload=y ./claude", &["claude"]);
        check("/lib64/ld-linux-x86-64.so.2 /usr/bin/node --import x.js /usr/bin/codex", &["node", "codex"]);
        check("/lib64/ld-linux-x86-64.so.2 --list ./claude", &[]);
        check("qemu-aarch64-static -L /r -cpu max ./claude", &["claude"]);
    }

    #[test]
    fn options_with_a_value_are_known() {
        check("node --cpu-prof-dir claude --title gemini --report-signal x app.js", &["app.js"]);
        check("bun --define codex:1 --port 80 run app.ts", &["app.ts"]);
        check("deno run --cert claude.pem --port 1 main.ts", &["main.ts"]);
        check("ruby --disable gems --encoding utf-8 x.rb", &["x.rb"]);
        check("uv run --only-group claude --no-sync app", &["app"]);
    }

    #[test]
    fn a_launcher_runs_a_process_of_its_own_but_shows_what_it_runs_behind_another() {
        for command in
            ["sudo -u claude ./codex", "timeout -k 5 90 claude", "env -u X A=1 claude", "gdb --args ./claude"]
        {
            check(command, &[]);
        }
        let loader = "/lib64/ld-linux-x86-64.so.2 /usr/bin/";
        for (command, expected) in [
            ("sudo -u gemini A=b ./codex", "codex"),
            ("timeout -k 5 --signal INT 90 ./claude x", "claude"),
            ("env -u gemini -C /codex A=1 claude", "claude"),
            ("nice -n 5 claude", "claude"),
            ("stdbuf -oL -e 0 claude", "claude"),
            ("xvfb-run -a -s gemini claude", "claude"),
            ("doas -u gemini claude", "claude"),
            ("proot -r /codex -b /a:/b claude", "claude"),
            ("gdb -q -ex run --args ./claude x", "claude"),
            ("bwrap --bind codex gemini --dev /dev claude", "claude"),
        ] {
            let launcher = command.split(' ').next().expect("one");
            check(&format!("{loader}{command}"), &[launcher, expected]);
        }
    }

    #[test]
    fn other_programs_run_nothing() {
        for command in ["vim claude.md", "grep claude", "tail -f /var/log/claude.log", "pythonista claude"] {
            check(command, &[]);
        }
    }
}
