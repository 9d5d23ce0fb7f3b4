//! What `rano service` says.

use std::fmt::Write as _;

use super::escape::Escaped;

/// Something that was to be done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    Done(String),
    /// What was not done, and why.
    Left(String),
}

/// How the service is.
#[derive(Debug, Clone)]
pub struct State {
    /// Its file, if it is installed.
    pub unit: Option<String>,
    pub has_systemd: bool,
    pub is_running: bool,
    pub starts_at_boot: bool,
    pub history: String,
    /// Whether whoever asks may read the history.
    pub readable: Result<(), String>,
}

/// A line each.
pub fn steps(steps: &[Step]) -> String {
    steps.iter().fold(String::new(), |mut text, step| {
        let (mark, what) = match step {
            Step::Done(what) => ("✓", what),
            Step::Left(what) => ("⚠", what),
        };
        let _ = writeln!(text, "{mark} {}", Escaped(what));
        text
    })
}

pub fn state(state: &State) -> String {
    let unit = state.unit.as_deref().unwrap_or("not installed (sudo rano service install)");
    let running = match (state.has_systemd, state.is_running) {
        (false, _) => "no: systemd does not run here",
        (true, true) => "yes",
        (true, false) => "no (systemctl status rano)",
    };
    let boot = if state.starts_at_boot { "yes" } else { "no" };
    let history = match &state.readable {
        Ok(()) => state.history.clone(),
        Err(error) => format!("{} (you cannot read it: {error})", state.history),
    };
    format!(
        "unit     {}\nrunning  {running}\nat boot  {boot}\nhistory  {}\n",
        Escaped(unit),
        Escaped(&history)
    )
}
