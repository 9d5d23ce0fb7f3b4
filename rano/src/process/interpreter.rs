//! Which program an interpreter or package runner really runs: `node /usr/bin/codex` is codex. The rules of each
//! interpreter's command line are data; only the first script, module or package counts, never its arguments.

/// How one family of interpreters reads its command line, as far as it takes to find the script.
struct Interpreter {
    /// Basenames, lower case, without a version (`python3.12` is `python`).
    names: &'static [&'static str],
    /// Words between the interpreter and the script.
    subcommands: &'static [&'static str],
    /// Without one of the subcommands nothing is run.
    subcommand_required: bool,
    /// One-letter options that take a value, attached or in the next argument.
    short_values: &'static str,
    /// Long options whose value may be the next argument.
    long_values: &'static [&'static str],
    /// One-letter options after which the program is text, not a script.
    inline_short: &'static str,
    /// Long options and subcommands of the same meaning.
    inline_words: &'static [&'static str],
    /// One-letter options that name a module.
    module_short: &'static str,
    /// What the first word that is no option names.
    runs: Runs,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Runs {
    /// A file: its basename and its package count, not the directories it lies in.
    Script,
    /// A package, `@scope/name@version`: all of it counts, unless it is a path.
    Package,
    /// A module, `package.module`.
    Module,
}

const NONE: Interpreter = Interpreter {
    names: &[],
    subcommands: &[],
    subcommand_required: false,
    short_values: "",
    long_values: &[],
    inline_short: "",
    inline_words: &[],
    module_short: "",
    runs: Runs::Script,
};

const NODE_VALUES: &[&str] = &[
    "--require",
    "--import",
    "--loader",
    "--experimental-loader",
    "--conditions",
    "--input-type",
    "--env-file",
    "--env-file-if-exists",
    "--title",
    "--watch-path",
    "--icu-data-dir",
    "--openssl-config",
    "--redirect-warnings",
    "--disable-warning",
    "--diagnostic-dir",
    "--dns-result-order",
    "--unhandled-rejections",
    "--test-name-pattern",
    "--test-reporter",
    "--test-reporter-destination",
    "--trace-event-categories",
    "--tsconfig",
    "--project",
    "--compiler-options",
    "--compiler",
    "--ignore",
];

const INTERPRETERS: &[Interpreter] = &[
    Interpreter {
        names: &["node", "nodejs", "tsx", "ts-node", "ts-node-esm", "electron"],
        subcommands: &["inspect", "watch"],
        short_values: "rCOP",
        long_values: NODE_VALUES,
        inline_short: "ep",
        inline_words: &["--eval", "--print", "--run"],
        ..NONE
    },
    Interpreter {
        names: &["bun"],
        subcommands: &["run", "x"],
        short_values: "rcdlF",
        long_values: &[
            "--cwd",
            "--config",
            "--env-file",
            "--preload",
            "--require",
            "--import",
            "--define",
            "--loader",
            "--port",
            "--conditions",
            "--filter",
            "--tsconfig-override",
        ],
        inline_short: "ep",
        inline_words: &["--eval", "--print", "exec"],
        ..NONE
    },
    Interpreter {
        names: &["deno"],
        subcommands: &["run", "serve", "x"],
        short_values: "cL",
        long_values: &["--config", "--import-map", "--cert", "--location", "--seed", "--log-level", "--ext"],
        inline_words: &["eval", "task", "repl", "fmt", "lint"],
        runs: Runs::Package,
        ..NONE
    },
    Interpreter {
        names: &["python", "pypy", "pythonw", "graalpy"],
        short_values: "WXQ",
        long_values: &["--check-hash-based-pycs"],
        inline_short: "c",
        module_short: "m",
        ..NONE
    },
    Interpreter {
        names: &["ruby", "jruby", "truffleruby"],
        short_values: "IrCEKWFT",
        long_values: &["--encoding", "--external-encoding", "--internal-encoding"],
        inline_short: "e",
        ..NONE
    },
    Interpreter { names: &["perl"], short_values: "ICFMmDxlV0", inline_short: "eE", ..NONE },
    Interpreter {
        names: &["sh", "bash", "dash", "ash", "zsh", "ksh", "mksh", "yash", "rbash"],
        short_values: "oO",
        long_values: &["--rcfile", "--init-file", "--emulate"],
        inline_short: "cs",
        ..NONE
    },
    Interpreter {
        names: &["fish"],
        short_values: "CdDfo",
        long_values: &["--init-command", "--debug", "--debug-output", "--features", "--profile"],
        inline_short: "c",
        inline_words: &["--command"],
        ..NONE
    },
    Interpreter {
        names: &["npx", "bunx", "pnpx"],
        short_values: "pw",
        long_values: &["--package", "--registry", "--workspace", "--prefix", "--cache"],
        inline_short: "c",
        inline_words: &["--call"],
        runs: Runs::Package,
        ..NONE
    },
    Interpreter {
        names: &["npm", "pnpm", "yarn"],
        subcommands: &["exec", "x", "dlx"],
        subcommand_required: true,
        short_values: "pwC",
        long_values: &["--package", "--registry", "--workspace", "--prefix", "--cache", "--dir", "--cwd"],
        inline_short: "c",
        inline_words: &["--call"],
        runs: Runs::Package,
        ..NONE
    },
    Interpreter {
        names: &["uvx"],
        short_values: "pwic",
        long_values: UV_VALUES,
        runs: Runs::Package,
        ..NONE
    },
    Interpreter {
        names: &["uv", "pipx"],
        subcommands: &["run", "tool"],
        subcommand_required: true,
        short_values: "pwic",
        long_values: UV_VALUES,
        module_short: "m",
        runs: Runs::Package,
        ..NONE
    },
];

const UV_VALUES: &[&str] = &[
    "--with",
    "--with-editable",
    "--with-requirements",
    "--from",
    "--spec",
    "--python",
    "--project",
    "--directory",
    "--index",
    "--index-url",
    "--default-index",
    "--extra-index-url",
    "--find-links",
    "--extra",
    "--group",
    "--env-file",
    "--cache-dir",
    "--config-file",
    "--constraints",
    "--pip-args",
];

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
    let mut interpreter = lookup(program);
    let mut rest = arguments;
    for _ in 0..MAX_LEVELS {
        let Some((runs, word, after)) = interpreter.and_then(|i| target(i, rest)) else { break };
        found.extend(names_of(runs, word));
        interpreter = lookup(basename(word));
        rest = after;
    }
    found
}

/// What follows the last `/`.
pub(super) fn basename(path: &str) -> &str {
    path.rsplit('/').next().unwrap_or(path)
}

fn lookup(program: &str) -> Option<&'static Interpreter> {
    let name = program.to_ascii_lowercase();
    let unversioned = name.trim_end_matches(|c: char| c.is_ascii_digit() || c == '.' || c == '-');
    INTERPRETERS.iter().find(|i| i.names.contains(&name.as_str()) || i.names.contains(&unversioned))
}

/// The word that names what is run, and the arguments after it.
fn target<'a, 'b>(
    interpreter: &Interpreter,
    arguments: &'b [&'a str],
) -> Option<(Runs, &'a str, &'b [&'a str])> {
    let mut at = 0;
    let mut wants_subcommand = interpreter.subcommand_required;
    while let Some(&word) = arguments.get(at) {
        at += 1;
        if word == "--" {
            let script = *arguments.get(at)?;
            return (!wants_subcommand).then_some((interpreter.runs, script, &arguments[at + 1..]));
        }
        if word == "-" {
            return None;
        }
        let option = word.split('=').next().unwrap_or(word);
        if interpreter.inline_words.contains(&option) {
            return None;
        }
        if word.starts_with("--") {
            if option == word && interpreter.long_values.contains(&word) {
                at += 1;
            }
        } else if word.starts_with(['-', '+']) && word.len() > 1 {
            match short_options(interpreter, &word[1..]) {
                Short::Inline => return None,
                Short::Alone => {}
                Short::TakesNext => at += 1,
                Short::Module(attached) => {
                    let (module, after) =
                        if attached.is_empty() { (*arguments.get(at)?, at + 1) } else { (attached, at) };
                    return Some((Runs::Module, module, arguments.get(after..).unwrap_or(&[])));
                }
            }
        } else if interpreter.subcommands.contains(&word) {
            wants_subcommand = false;
        } else {
            return (!wants_subcommand).then_some((interpreter.runs, word, &arguments[at..]));
        }
    }
    None
}

enum Short<'a> {
    Alone,
    TakesNext,
    Inline,
    Module(&'a str),
}

/// A cluster such as `-lc` or `-uWignore`, without its dash.
fn short_options<'a>(interpreter: &Interpreter, cluster: &'a str) -> Short<'a> {
    for (at, letter) in cluster.char_indices() {
        let attached = &cluster[at + letter.len_utf8()..];
        if interpreter.inline_short.contains(letter) {
            return Short::Inline;
        }
        if interpreter.module_short.contains(letter) {
            return Short::Module(attached);
        }
        if interpreter.short_values.contains(letter) {
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
    fn other_programs_run_nothing() {
        for command in ["vim claude.md", "grep claude", "tail -f /var/log/claude.log", "pythonista claude"] {
            check(command, &[]);
        }
    }
}
