//! The program under test as a user has it: started with arguments in a directory, read line by line, signalled, waited
//! for.

use std::ffi::{OsStr, OsString};
use std::fmt::Write as _;
use std::io::{BufRead as _, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use rustix::process::{Signal, WaitId, WaitIdOptions, waitid};

use super::actor::Tuple;
use super::namespace::Place;
use super::{PATIENCE, pid_of, stage, wait_for_end};

/// The one way of attaching that rano is to try, where the kernel tests are to show it.
pub const RUNG: &str = "RANO_TEST_RUNG";

/// How to start rano. But for [`RUNG`], nothing of the test's own environment reaches it.
pub struct Launch {
    command: Command,
    lines_taken: Option<usize>,
}

impl Launch {
    /// In `directory`, which is also its home.
    pub fn new(place: &Place, directory: &Path) -> Result<Self> {
        Ok(Self::of(&stage::rano()?, place, directory))
    }

    /// A program that becomes rano, such as a shell.
    pub fn of(program: &Path, place: &Place, directory: &Path) -> Self {
        let mut command = Command::new(program);
        command.env_clear().env("PATH", "/usr/bin:/bin").env("HOME", directory).env("LANG", "C.UTF-8");
        if let Some(rung) = std::env::var_os(RUNG) {
            command.env("RANO_RUNG", rung);
        }
        command.current_dir(directory);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        place.apply(&mut command);
        Self { command, lines_taken: None }
    }

    pub fn args<T: AsRef<OsStr>>(mut self, arguments: impl IntoIterator<Item = T>) -> Self {
        self.command.args(arguments);
        self
    }

    pub fn env(mut self, key: &str, value: impl Into<OsString>) -> Self {
        self.command.env(key, value.into());
        self
    }

    /// Closes its standard output after so many lines, as `head -n` does.
    pub fn stdout_closed_after(mut self, lines: usize) -> Self {
        self.lines_taken = Some(lines);
        self
    }

    /// For what only a test of one kind needs, such as a mount.
    pub fn command(&mut self) -> &mut Command {
        &mut self.command
    }

    pub fn start(mut self) -> Result<Rano> {
        let mut process = self.command.spawn().context("start rano")?;
        let stderr = process.stderr.take().context("standard error was piped")?;
        // A test may have put something else in the pipe's place.
        let stdout = match process.stdout.take() {
            Some(stdout) => Lines::read(stdout, self.lines_taken),
            None => Lines::read(std::io::empty(), None),
        };
        Ok(Rano { process, stdout, stderr: Lines::read(stderr, None) })
    }

    /// Standard output byte by byte, of a run that has to succeed.
    pub fn command_output(mut self) -> Result<String> {
        let output = self.command.output().context("start rano")?;
        if !output.status.success() {
            bail!("rano ended with {}: {}", output.status, String::from_utf8_lossy(&output.stderr));
        }
        Ok(String::from_utf8(output.stdout)?)
    }

    /// Starts it and waits for its own end.
    pub fn run(self) -> Result<Finished> {
        self.start()?.wait()
    }
}

/// A running rano; killed when dropped.
pub struct Rano {
    process: Child,
    pub stdout: Lines,
    pub stderr: Lines,
}

impl Rano {
    pub fn pid(&self) -> u32 {
        self.process.id()
    }

    pub fn signal(&self, signal: Signal) -> Result<()> {
        // Not yet waited for, so the pid is still its own.
        rustix::process::kill_process(pid_of(&self.process), signal)
            .with_context(|| format!("signal rano {}", self.process.id()))
    }

    /// Returns when no thread of it runs any more, until `SIGCONT`.
    pub fn stop(&self) -> Result<()> {
        self.signal(Signal::STOP)?;
        let options = WaitIdOptions::STOPPED | WaitIdOptions::NOWAIT;
        waitid(WaitId::Pid(pid_of(&self.process)), options).context("wait for rano to stand still")?;
        Ok(())
    }

    /// The line of standard output, pretty or JSON, that tells of `event` (`connect`, `close` …) of a connection,
    /// be it there already or not.
    pub fn wait_for_event(&self, event: &str, tuple: Tuple) -> Result<String> {
        let local = tuple.local.to_string();
        self.stdout
            .wait_for(&format!("{event} of {local}"), |line| line.contains(event) && mentions(line, &local))
            .with_context(|| format!("rano's errors: {}", self.stderr.text()))
    }

    /// SIGINT, then its end.
    pub fn interrupt(self) -> Result<Finished> {
        self.signal(Signal::INT)?;
        self.wait()
    }

    pub fn wait(mut self) -> Result<Finished> {
        if !wait_for_end(&self.process, PATIENCE)? {
            bail!("rano does not end; stdout: {} stderr: {}", self.stdout.text(), self.stderr.text());
        }
        let status = self.process.wait()?;
        Ok(Finished { status, stdout: self.stdout.to_end()?, stderr: self.stderr.to_end()? })
    }
}

impl Drop for Rano {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// What rano left.
#[derive(Debug)]
pub struct Finished {
    pub status: ExitStatus,
    pub stdout: String,
    pub stderr: String,
}

impl Finished {
    /// Fails with everything it said unless the exit code is `code`.
    pub fn expect_code(&self, code: i32) -> Result<&Self> {
        if self.status.code() == Some(code) {
            return Ok(self);
        }
        let mut message = format!("rano ended with {}, expected exit code {code}", self.status);
        let _ = write!(message, "\nstdout: {}\nstderr: {}", self.stdout, self.stderr);
        bail!(message)
    }
}

/// What came through a pipe so far; a thread reads it.
pub struct Lines {
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    seen: Mutex<Seen>,
    changed: Condvar,
}

#[derive(Default)]
struct Seen {
    lines: Vec<String>,
    ended: bool,
}

impl Lines {
    fn read(pipe: impl Read + Send + 'static, at_most: Option<usize>) -> Self {
        let shared = Arc::new(Shared::default());
        let writer = Arc::clone(&shared);
        std::thread::spawn(move || {
            let mut reader = BufReader::new(pipe);
            let mut line = Vec::new();
            let mut taken = 0;
            while at_most.is_none_or(|most| taken < most)
                && reader.read_until(b'\n', &mut line).is_ok_and(|length| length > 0)
            {
                taken += 1;
                let text = String::from_utf8_lossy(&line).trim_end_matches('\n').to_owned();
                line.clear();
                writer.seen.lock().unwrap_or_else(PoisonError::into_inner).lines.push(text);
                writer.changed.notify_all();
            }
            drop(reader);
            writer.seen.lock().unwrap_or_else(PoisonError::into_inner).ended = true;
            writer.changed.notify_all();
        });
        Self { shared }
    }

    /// Everything so far.
    pub fn text(&self) -> String {
        self.shared.seen.lock().unwrap_or_else(PoisonError::into_inner).lines.join("\n")
    }

    /// The first line that is `wanted`, waiting for it as long as the pipe is open and patience lasts.
    pub fn wait_for(&self, what: &str, wanted: impl Fn(&str) -> bool) -> Result<String> {
        let deadline = Instant::now() + PATIENCE;
        let mut seen = self.shared.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let mut looked_at = 0;
        loop {
            let fresh = seen.lines.get(looked_at..).unwrap_or_default();
            if let Some(line) = fresh.iter().find(|line| wanted(line)) {
                return Ok(line.clone());
            }
            looked_at = seen.lines.len();
            let left = deadline.saturating_duration_since(Instant::now());
            if seen.ended || left.is_zero() {
                let how = if seen.ended { "the output ended" } else { "patience ran out" };
                bail!("no line with {what}: {how} after:\n{}", seen.lines.join("\n"));
            }
            seen = self.wait_a_little(seen, left);
        }
    }

    fn to_end(&self) -> Result<String> {
        let deadline = Instant::now() + PATIENCE;
        let mut seen = self.shared.seen.lock().unwrap_or_else(PoisonError::into_inner);
        while !seen.ended {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                bail!("rano has ended, but something keeps its output open");
            }
            seen = self.wait_a_little(seen, left);
        }
        let mut text = seen.lines.join("\n");
        if !text.is_empty() {
            text.push('\n');
        }
        Ok(text)
    }

    fn wait_a_little<'a>(
        &self,
        seen: std::sync::MutexGuard<'a, Seen>,
        left: Duration,
    ) -> std::sync::MutexGuard<'a, Seen> {
        self.shared.changed.wait_timeout(seen, left).unwrap_or_else(PoisonError::into_inner).0
    }
}

/// Whether `line` has `address`, and not one whose port merely begins with the same digits.
pub fn mentions(line: &str, address: &str) -> bool {
    line.match_indices(address)
        .any(|(at, _)| !line[at + address.len()..].starts_with(|next: char| next.is_ascii_digit()))
}

/// Path of the database in a directory where rano was started without `--sqlite`.
pub fn default_database(directory: &Path) -> PathBuf {
    directory.join("observer.sqlite")
}
