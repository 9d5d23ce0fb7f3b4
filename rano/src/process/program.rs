//! What a person calls a process: the script or package that an interpreter runs, else the executable. Never the name
//! of a thread: `MainThread` is what Node 24 calls its first.

use super::interpreter::{Name, basename};
use super::matching::Place;
use super::roster::Found;

/// Executables that are many programs; which one, `argv[0]` says.
const MULTI_CALL: [&str; 3] = ["busybox", "toybox", "coreutils"];

/// Names of scripts that say nothing without their directory.
const GENERIC: [&str; 10] =
    ["index", "main", "server", "cli", "app", "run", "start", "bin", "launch", "__main__"];

/// Directories that say nothing either.
const PLACES: [&str; 7] = ["dist", "build", "lib", "src", "bin", "out", "."];

/// What is known of an image, as it is written there.
pub(super) struct Parts<'a> {
    /// Last part of the executable's path, empty where it could not be read.
    pub(super) exe: &'a str,
    /// What an executable is called that is named after its version.
    pub(super) release: Option<&'a str>,
    /// `argv[0]`, and its last part.
    pub(super) argument: &'a str,
    pub(super) called: &'a str,
    /// What an interpreter runs.
    pub(super) runs: &'a [Name<'a>],
    pub(super) comm: &'a str,
}

/// `server.js (mcp)`, `@acme/helper`, `curl`.
pub(super) fn name(parts: &Parts<'_>) -> String {
    if let Some(run) = parts.runs.iter().rfind(|run| run.is_package || !is_descriptor(run.path)) {
        return if run.is_package { package(run.text).to_owned() } else { script(run.path) };
    }
    if MULTI_CALL.contains(&parts.exe) && !parts.called.is_empty() {
        return parts.called.to_owned();
    }
    let exe = parts.exe.strip_prefix("memfd:").unwrap_or(parts.exe);
    let exe = parts.release.unwrap_or(exe);
    if !exe.is_empty() {
        return exe.to_owned();
    }
    // `/proc/self/exe` names nothing.
    if parts.called.is_empty() || parts.argument.starts_with("/proc/") {
        return parts.comm.to_owned();
    }
    parts.called.to_owned()
}

/// `/proc/self/fd/3`, or the same below `/dev`: an open file, whose name nobody knows.
fn is_descriptor(path: &str) -> bool {
    let under = |directory| path.strip_prefix(directory);
    under("/dev/").is_some_and(|rest| rest.starts_with("fd/"))
        || under("/proc/").is_some_and(|rest| rest.contains("/fd/"))
}

/// The same where it is an agent: by the name that is listed, whatever the platform or file. What only calls itself so
/// is what it is.
pub(super) fn of_agent(found: &Found<'_>) -> Option<String> {
    let Found { agent, place, by, .. } = found;
    let is_it = *place == Place::Program || agent.is_told_by_path();
    let is_package =
        agent.packages.iter().any(|package| package == by) && !agent.names.iter().any(|name| name == by);
    is_it.then(|| if is_package { agent.name.clone() } else { (*by).to_owned() })
}

/// Without registry and version.
fn package(text: &str) -> &str {
    let bare = ["npm:", "jsr:"].iter().find_map(|prefix| text.strip_prefix(prefix)).unwrap_or(text);
    match bare.char_indices().skip(1).find(|(_, sign)| *sign == '@') {
        Some((at, _)) => &bare[..at],
        None => bare,
    }
}

fn script(path: &str) -> String {
    let file = basename(path);
    let stem = file.split_once('.').map_or(file, |(stem, _)| stem);
    let mut above = path.rsplit('/').skip(1);
    let directory = above.find(|directory| !directory.is_empty() && !PLACES.contains(directory));
    match directory.filter(|_| GENERIC.contains(&stem) || stem.is_empty()) {
        Some(directory) => format!("{file} ({directory})"),
        None => file.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use crate::process::Image;
    use crate::process::agents;
    use crate::process::matching::Subject;

    #[test]
    fn a_process_is_called_what_a_person_calls_it() {
        let roster = agents::built_in_roster();
        for (comm, exe, command, expected) in [
            ("curl", "/usr/bin/curl", "curl -s x", "curl"),
            ("MainThread", "/usr/bin/node", "node /usr/bin/gemini", "gemini"),
            (
                "MainThread",
                "/usr/bin/node",
                "node /x/node_modules/@google/gemini-cli/dist/index.js",
                "gemini",
            ),
            ("node", "/usr/bin/node", "node /x/node_modules/.bin/qwen", "qwen"),
            ("node", "/usr/bin/node", "node /home/u/mcp/server.js", "server.js (mcp)"),
            ("node", "/usr/bin/node", "node /home/u/mcp/dist/index.js", "index.js (mcp)"),
            ("node", "/usr/bin/node", "node server.js", "server.js"),
            ("node", "/usr/bin/node", "node /x/node_modules/@acme/helper/cli.js", "@acme/helper"),
            ("npx", "/usr/bin/npx", "npx -y @acme/helper@1.2", "@acme/helper"),
            ("node", "/usr/bin/node", "node -e 1", "node"),
            ("python3", "/usr/bin/python3.12", "python3 -m http.server", "http.server"),
            ("python3", "/usr/bin/python3.12", "python3 /srv/fetch.py", "fetch.py"),
            ("bash", "/bin/bash", "bash -c make", "bash"),
            ("3", "/bin/bash", "bash /dev/fd/3", "bash"),
            ("bash", "/bin/bash", "/bin/bash /proc/self/fd/63 x", "bash"),
            ("bash", "/bin/bash", "bash ./deploy.sh", "deploy.sh"),
            ("claude", "/home/u/.local/share/claude/versions/2.0.1", "claude", "claude"),
            ("codex", "/x/codex-x86_64-unknown-linux-musl", "codex exec", "codex"),
            ("codex-cli", "/x/codex-cli", "codex-cli", "codex-cli"),
            (".kilo", "/x/bin/.kilo", "/x/bin/.kilo run", "kilo"),
            ("opencode.exe", "/x/opencode.exe", "opencode.exe", "opencode"),
            ("wget", "/bin/busybox", "wget http://x", "wget"),
            ("curl", "/usr/bin/curl (deleted)", "curl", "curl"),
            ("curl", "/usr/bin/curl", "gemini x", "curl"),
            ("helper", "/memfd:helper (deleted)", "/proc/self/fd/3", "helper"),
            ("worker", "", "/proc/self/exe x", "worker"),
            ("x", "", "/usr/bin/wget x", "wget"),
            ("kworker/0:1", "", "", "kworker/0:1"),
            (
                "agent",
                "/s/cursor-agent/versions/1/node",
                "agent /s/cursor-agent/versions/1/index.js",
                "cursor-agent",
            ),
        ] {
            let argv: Vec<String> =
                command.split(' ').filter(|word| !word.is_empty()).map(str::to_owned).collect();
            let image = Image { comm: comm.into(), exe: exe.into(), argv, ..Image::default() };
            let subject = Subject::of(&image);
            assert_eq!(subject.program(roster.find(&subject).as_ref()), expected, "{exe} {command}");
        }
    }
}
