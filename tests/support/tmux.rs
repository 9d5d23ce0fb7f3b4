//! A real terminal to type into and to read from: tmux, with a server of its own.

use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use anyhow::{Context as _, Result, ensure};
use tempfile::TempDir;

use super::trial::skip;
use super::wait_until;

const TMUX: &str = "/usr/bin/tmux";

/// One pane, with a shell in it.
pub struct Tmux {
    directory: TempDir,
}

impl Tmux {
    /// Skips where there is no tmux.
    pub fn start(columns: u16, rows: u16) -> Result<Self> {
        if !Path::new(TMUX).exists() {
            return Err(skip("no tmux installed"));
        }
        let tmux = Self { directory: tempfile::tempdir()? };
        let (width, height) = (columns.to_string(), rows.to_string());
        let size = ["-x", &width, "-y", &height];
        // Job control, and a prompt that is known.
        let shell = "exec env PS1='ready$ ' /bin/bash --norc --noprofile -i";
        tmux.run(&[&["-f", "/dev/null", "new-session", "-d"][..], &size, &[shell]].concat())?;
        tmux.run(&["set-option", "-s", "escape-time", "0"])?;
        tmux.wait_for("the prompt", |screen| screen.contains("ready$"))?;
        Ok(tmux)
    }

    pub fn directory(&self) -> &Path {
        self.directory.path()
    }

    fn command(&self, arguments: &[&str]) -> Result<Output> {
        let socket: PathBuf = self.directory.path().join("tmux");
        let mut command = Command::new(TMUX);
        command.env_clear().env("PATH", "/usr/bin:/bin").env("LANG", "C.UTF-8").env("TERM", "xterm-256color");
        command.env("HOME", self.directory.path()).env("XDG_RUNTIME_DIR", self.directory.path());
        command.arg("-u").arg("-S").arg(socket).args(arguments).stdin(Stdio::null());
        command.output().context("run tmux")
    }

    pub fn run(&self, arguments: &[&str]) -> Result<String> {
        let output = self.command(arguments)?;
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        ensure!(output.status.success(), "tmux {arguments:?}: {}", text(&output.stderr));
        Ok(text(&output.stdout))
    }

    /// Types a line for the shell.
    pub fn line(&self, text: &str) -> Result<()> {
        self.run(&["send-keys", "-l", text])?;
        self.keys(&["Enter"])
    }

    /// Presses keys by tmux's names.
    pub fn keys(&self, keys: &[&str]) -> Result<()> {
        self.run(&[&["send-keys"], keys].concat()).map(drop)
    }

    pub fn resize(&self, columns: u16, rows: u16) -> Result<()> {
        self.run(&["resize-window", "-x", &columns.to_string(), "-y", &rows.to_string()]).map(drop)
    }

    pub fn screen(&self) -> Result<String> {
        self.run(&["capture-pane", "-p"])
    }

    /// Whether a program has the alternate screen.
    pub fn is_alternate(&self) -> Result<bool> {
        Ok(self.run(&["display-message", "-p", "#{alternate_on}"])?.trim() == "1")
    }

    /// The screen, once it is as it should be.
    pub fn wait_for(&self, what: &str, is_there: impl Fn(&str) -> bool) -> Result<String> {
        let mut last = String::new();
        let is_so = wait_until(what, || {
            last = self.screen()?;
            Ok(is_there(&last))
        });
        is_so.with_context(|| format!("on the screen:\n{last}"))?;
        Ok(last)
    }
}

impl Drop for Tmux {
    fn drop(&mut self) {
        let _ = self.command(&["kill-server"]);
    }
}
