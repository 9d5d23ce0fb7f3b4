//! Which processes are asked for, and which are left out: patterns against a process's names, its comm and its command
//! line.

use std::sync::Arc;

use super::agents;
use super::interpreter::{self, Name, basename};
use super::roster::{Found, Roster};
use super::{Image, ProcessId, program};

/// Who wrote a pattern: a built-in one must not catch an editor on `claude.md`, a user's may mean just that.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Origin {
    Builtin,
    User,
    /// Whoever can write to the working directory: it takes nobody's process from an agent.
    Added,
}

/// What an exclude pattern begins with that means the whole command line: `cmd:--dry-run`.
pub const COMMAND_LINE: &str = "cmd:";

/// What makes a process a root, beside its pid.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Wanted {
    /// It is one of these agents, unless there are pids: nobody said what else to watch.
    Agents(Arc<Roster>),
    /// One of these texts, whatever its case, stands in its names or its command line: somebody said so.
    Patterns(Vec<String>),
}

/// What the user asked to watch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Targets {
    pub wanted: Wanted,
    /// Case-insensitive substrings of executable, `argv[0]` or script; behind [`COMMAND_LINE`] of the command line.
    pub exclude_patterns: Vec<String>,
    /// Processes to watch whatever they are called.
    pub pids: Vec<u32>,
    /// Whether what a watched process starts is watched too.
    pub descendants: bool,
}

impl Default for Targets {
    fn default() -> Self {
        Self {
            wanted: Wanted::Agents(agents::built_in_roster()),
            exclude_patterns: Vec::new(),
            pids: Vec::new(),
            descendants: true,
        }
    }
}

/// The rules by which a process is a root, excluded, or neither.
#[derive(Debug, Clone)]
pub struct Rules {
    wanted: Wanted,
    /// In words.
    watching: Vec<String>,
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
        let pids = targets.pids.iter().map(|pid| format!("pid {pid}"));
        let (wanted, watching) = match targets.wanted {
            Wanted::Agents(_) if !targets.pids.is_empty() => (Wanted::Patterns(Vec::new()), pids.collect()),
            Wanted::Agents(roster) => {
                let names = roster.agents().iter().map(|agent| agent.name.clone()).collect();
                (Wanted::Agents(roster), names)
            }
            Wanted::Patterns(patterns) => {
                let watching = patterns.iter().cloned().chain(pids).collect();
                (Wanted::Patterns(lowercase(patterns)), watching)
            }
        };
        Self {
            wanted,
            watching,
            excluded: targets.exclude_patterns.iter().filter_map(|pattern| Exclude::of(pattern)).collect(),
            root_pids: targets.pids,
            descendants: targets.descendants,
            never,
        }
    }

    /// Whether it is an agent, or a pattern asks for it.
    pub fn wants(&self, subject: &Subject) -> bool {
        match &self.wanted {
            Wanted::Agents(roster) => roster.find(subject).is_some(),
            Wanted::Patterns(patterns) => patterns.iter().any(|pattern| {
                // Another rano that is asked for the same says so in its command line, and is no agent for that. Below
                // an agent it is what any other program is.
                let place = subject.place_of(pattern);
                place.is_some_and(|place| place != Place::CommandLine || !subject.is_rano())
            }),
        }
    }

    /// What is watched, in words: agents or patterns, and pids.
    pub fn watching(&self) -> &[String] {
        &self.watching
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
    /// Scripts: programs where the whole of one, without its ending, is the pattern (`node /usr/bin/codex`).
    scripts: Vec<String>,
    /// These and what it calls itself.
    names: Vec<String>,
    /// The same where they are paths, in full.
    paths: Vec<String>,
    /// What an interpreter runs, where it is a package or a module: of the executable, else of what it calls itself.
    packages: Vec<(String, Place)>,
    /// What a person calls it, as it is written.
    program: String,
    /// Last part of `argv[0]`.
    called: String,
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
        let scripts = runs.iter().filter(|name| !name.is_package).map(|name| name.text);
        let all = runs.iter().chain(&claims);
        let names = programs.iter().copied().chain([called]).chain(all.clone().map(|name| name.text));
        let paths = [path, program].into_iter().chain(all.map(|name| name.path));
        let placed = |names: &[Name<'_>], place| {
            let packages = names.iter().filter(of_package).map(|name| (name.text.to_lowercase(), place));
            packages.collect::<Vec<_>>()
        };
        let parts = program::Parts {
            exe,
            release: release(path),
            argument: program,
            called,
            runs: &runs,
            comm: &image.comm,
        };
        Self {
            program: program::name(&parts),
            called: called.to_lowercase(),
            packages: [placed(&runs, Place::Program), placed(&claims, Place::Name)].concat(),
            scripts: lower(scripts),
            names: lower(names),
            paths: lower(paths),
            programs: lower(programs.iter().copied()),
            comm: image.comm.to_lowercase(),
            command_line: image.argv.join(" ").to_lowercase(),
        }
    }

    fn is_rano(&self) -> bool {
        self.programs.iter().any(|program| program == env!("CARGO_PKG_NAME"))
    }

    /// The best place where `pattern`, in lower case, stands.
    pub fn place_of(&self, pattern: &str) -> Option<Place> {
        let in_arguments = || self.command_line.contains(pattern).then_some(Place::CommandLine);
        self.place_in_names(pattern).or_else(in_arguments)
    }

    /// The same but for the command line.
    pub(super) fn place_in_names(&self, pattern: &str) -> Option<Place> {
        let stands_in = |names: &[String]| names.iter().any(|name| name.contains(pattern));
        if stands_in(&self.programs) || self.scripts.iter().any(|script| stem(script) == pattern) {
            Some(Place::Program)
        } else if stands_in(&self.names) {
            Some(Place::Name)
        } else if self.comm.contains(pattern) {
            Some(Place::Comm)
        } else {
            None
        }
    }

    /// The best place of which `fits` holds, but for the command line: asked about each name with its place.
    pub(super) fn place_where(&self, fits: impl Fn(&str, Place) -> bool) -> Option<Place> {
        let any = |names: &[String], place| names.iter().any(|name| fits(name, place)).then_some(place);
        any(&self.programs, Place::Program)
            .or_else(|| any(&self.scripts, Place::Program))
            .or_else(|| any(&self.names, Place::Name))
            .or_else(|| any(std::slice::from_ref(&self.comm), Place::Comm))
    }

    /// Calls `each` with every name, and with comm.
    pub(super) fn each_name(&self, mut each: impl FnMut(&str)) {
        self.programs.iter().chain(&self.scripts).for_each(|name| each(name));
        let others = self.names.iter().filter(|name| !self.programs.contains(name));
        others.filter(|name| !self.scripts.contains(name)).for_each(|name| each(name));
        if !self.names.contains(&self.comm) {
            each(&self.comm);
        }
    }

    pub(super) fn comm(&self) -> &str {
        &self.comm
    }

    /// What a person calls it; `agent` is the one that it is.
    pub fn program(&self, agent: Option<&Found<'_>>) -> String {
        agent.and_then(program::of_agent).unwrap_or_else(|| self.program.clone())
    }

    /// Last part of `argv[0]`.
    pub(super) fn called(&self) -> &str {
        &self.called
    }

    /// Files that an interpreter runs.
    pub(super) fn scripts(&self) -> impl Iterator<Item = &str> {
        self.scripts.iter().map(String::as_str)
    }

    /// Whether its executable is that interpreter, of whatever version.
    pub(super) fn is_run_by(&self, interpreter: &str) -> bool {
        self.programs.first().is_some_and(|program| {
            program.strip_prefix(interpreter).is_some_and(|rest| {
                rest.bytes().all(|byte| byte.is_ascii_digit() || matches!(byte, b'.' | b'-'))
            })
        })
    }

    /// Packages and modules that an interpreter runs, best first.
    pub(super) fn packages(&self) -> impl Iterator<Item = (&str, Place)> {
        self.packages.iter().map(|(name, place)| (name.as_str(), *place))
    }

    /// Of the executable, `argv[0]` and scripts.
    pub(super) fn paths(&self) -> impl Iterator<Item = &str> {
        self.paths.iter().map(String::as_str)
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
mod tests;
