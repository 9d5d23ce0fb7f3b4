//! For what a process runs: the agent, the agent's session, the tool call, the trace.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::{ProcessId, interpreter};
use crate::moment::Moment;

/// Clock ticks a second in /proc: a constant of the kernel's interface (`USER_HZ`), not its timer frequency.
const TICK_MS: u64 = 10;

/// What agents run commands with.
const SHELLS: [&str; 8] = ["sh", "bash", "dash", "ash", "zsh", "ksh", "mksh", "fish"];

/// The agent that a process runs for, and the tool call it is part of.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Call {
    /// What the agent is called; of a process that was asked for otherwise, its program.
    pub agent: Arc<str>,
    /// The agent's process; the first where a wrapper runs the agent proper.
    pub agent_id: ProcessId,
    /// As the agent tells it to what it starts; unescaped.
    pub session: Option<Arc<str>>,
    /// `None` for what the agent itself does.
    pub tool: Option<Tool>,
}

/// The process that an agent started, on the way to another one or that one itself.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Tool {
    /// As it was first, or when it last became a shell with a command: some agents put a preparation in front of that
    /// which is longer than what is kept. Redacted, cut, unescaped like that of a [`Process`](super::Process).
    pub cmdline: String,
    /// It may have ended.
    pub id: ProcessId,
    /// Unix milliseconds, to the hundredth of a second.
    pub started_ms: i64,
}

impl Tool {
    /// Of a process that is there at `now`.
    pub(super) fn new(id: ProcessId, cmdline: String, now: Moment) -> Self {
        let (boot_ms, start_ms) = (now.boot_ns / 1_000_000, id.start_time.saturating_mul(TICK_MS));
        let age = i64::try_from(boot_ms.saturating_sub(start_ms)).unwrap_or(0);
        Self { cmdline, id, started_ms: now.unix_ms.saturating_sub(age) }
    }

    /// The same once its process runs `cmdline`, where that is another command of a shell.
    pub(super) fn as_shell(&self, cmdline: &str) -> Option<Self> {
        let mut words = cmdline.split(' ');
        let is_shell = words.next().is_some_and(|word| SHELLS.contains(&interpreter::basename(word)));
        // `-c`, `-lc`
        let is_command = words
            .next()
            .is_some_and(|word| word.starts_with('-') && !word.starts_with("--") && word.ends_with('c'));
        (is_shell && is_command && self.cmdline != cmdline)
            .then(|| Self { cmdline: cmdline.to_owned(), ..self.clone() })
    }
}

/// Where in a distributed trace a process began.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Trace {
    /// 32 hexadecimal digits in lower case.
    pub trace_id: String,
    /// 16 of them.
    pub span_id: String,
}

impl Trace {
    /// Of a `traceparent`, `00-<trace id>-<span id>-<flags>` (W3C Trace Context, section 3.2); a later version may have
    /// more behind it.
    pub fn parse(text: &str) -> Option<Self> {
        let mut parts = text.trim().split('-');
        let (version, trace_id, span_id, flags) =
            (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
        let is_hex = |text: &str, length: usize| {
            text.len() == length && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
        };
        let is_some = |text: &str| text.bytes().any(|b| b != b'0');
        let is_sound = is_hex(version, 2)
            && version != "ff"
            && (version != "00" || parts.next().is_none())
            && is_hex(trace_id, 32)
            && is_hex(span_id, 16)
            && is_hex(flags, 2)
            && is_some(trace_id)
            && is_some(span_id);
        is_sound.then(|| Self { trace_id: trace_id.to_owned(), span_id: span_id.to_owned() })
    }
}

/// In what a process began to run its program.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Surroundings {
    /// Its directory, lossy UTF-8, unescaped; `None` where it could not be read.
    #[serde(default)]
    pub cwd: Option<String>,
    /// `None` where the environment could not be read.
    #[serde(default)]
    pub marks: Option<Marks>,
}

/// What is kept of an environment.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Marks {
    #[serde(default)]
    pub trace: Option<Trace>,
    /// Variables that name an agent's session, with what they say.
    #[serde(default)]
    pub sessions: Vec<(String, String)>,
}

/// The longest name of a session.
const SESSION_MAX: usize = 128;

impl Marks {
    /// Of an environment, `NAME=value` with a NUL behind each; of the sessions those that `wanted` names. Values that
    /// can be no names of sessions are left out.
    pub fn of(environment: &[u8], wanted: &[String]) -> Self {
        let mut marks = Self::default();
        for entry in environment.split(|&b| b == 0) {
            let Some(at) = entry.iter().position(|&b| b == b'=') else { continue };
            let (name, value) = (&entry[..at], &entry[at + 1..]);
            if name == b"TRACEPARENT" {
                marks.trace = std::str::from_utf8(value).ok().and_then(Trace::parse);
            } else if let Some(name) = wanted.iter().find(|wanted| wanted.as_bytes() == name)
                && (1..=SESSION_MAX).contains(&value.len())
                && value.iter().all(u8::is_ascii_graphic)
            {
                marks.sessions.push((name.clone(), String::from_utf8_lossy(value).into_owned()));
            }
        }
        marks
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_trace_is_read_as_the_standard_has_it() {
        let (trace, span) = ("4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7");
        let check = |text: &str, expected: bool| {
            let found = Trace::parse(text).map(|found| (found.trace_id, found.span_id));
            assert_eq!(found, expected.then(|| (trace.to_owned(), span.to_owned())), "{text}");
        };
        check(&format!("00-{trace}-{span}-01"), true);
        check(&format!("cc-{trace}-{span}-01-what-the-future-will-bring"), true);
        check(&format!("00-{trace}-{span}-01-more"), false);
        check(&format!("ff-{trace}-{span}-01"), false);
        check(&format!("00-{trace}-{span}"), false);
        check(&format!("00-{}-{span}-01", trace.to_uppercase()), false);
        check(&format!("00-{}-{span}-01", "0".repeat(32)), false);
        check(&format!("00-{trace}-{}-01", "0".repeat(16)), false);
        check("", false);
    }

    #[test]
    fn of_an_environment_only_the_marks_are_kept() {
        let wanted = ["A_SESSION".to_owned(), "B_SESSION".to_owned()];
        let of = |text: &[u8]| Marks::of(text, &wanted);
        let marks = of(b"SECRET=x\0A_SESSION=s-1\0MY_A_SESSION=no\0B_SESSION=\0NOTHING\0");
        assert_eq!(marks.sessions, [("A_SESSION".to_owned(), "s-1".to_owned())]);
        assert_eq!(marks.trace, None);
        assert_eq!(of(b"A_SESSION=a b\0B_SESSION=\x1b[31m"), Marks::default(), "no name of a session");
        assert!(of(format!("A_SESSION={}", "x".repeat(SESSION_MAX + 1)).as_bytes()).sessions.is_empty());
        let trace = of(b"TRACEPARENT=00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01\0").trace;
        assert_eq!(trace.map(|trace| trace.span_id).as_deref(), Some("00f067aa0ba902b7"));
    }

    #[test]
    fn a_tool_began_when_its_process_did() {
        let now = Moment { boot_ns: 5_000_000_000, unix_ms: 100_000 };
        let started = |start_time| Tool::new(ProcessId { pid: 1, start_time }, String::new(), now).started_ms;
        assert_eq!(started(400), 99_000);
        assert_eq!(started(501), 100_000, "no later than it was seen");
    }
}
