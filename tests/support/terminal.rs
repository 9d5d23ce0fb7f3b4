//! A terminal for rano: a pseudo-terminal, and as much of a screen as is needed to see what a person would.

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::os::fd::OwnedFd;
use std::os::unix::process::CommandExt as _;
use std::process::{Child, ExitStatus, Stdio};

use anyhow::{Context as _, Result};
use rustix::pty::{OpenptFlags, grantpt, openpt, unlockpt};
use rustix::termios::Winsize;
use unicode_width::UnicodeWidthChar as _;

use super::rano::Launch;
use super::{PATIENCE, wait_for_end};

/// Everything that was written to a terminal of `columns` by `rows`, from start to end, by a run that has to succeed.
pub fn watch(launch: Launch, columns: u16, rows: u16) -> Result<String> {
    let (status, written) = watch_any(launch, columns, rows)?;
    anyhow::ensure!(status.success(), "{status}: {written}");
    Ok(written)
}

/// The same with the end of the run, whatever it is.
pub fn watch_any(launch: Launch, columns: u16, rows: u16) -> Result<(ExitStatus, String)> {
    run(launch, columns, rows, None)
}

/// The same with a keyboard: the terminal is the run's own, and `keys` answers to all that was written so far with what
/// is typed then.
pub fn type_at(
    launch: Launch,
    (columns, rows): (u16, u16),
    keys: &mut dyn FnMut(&str) -> Option<&'static [u8]>,
) -> Result<(ExitStatus, String)> {
    run(launch, columns, rows, Some(keys))
}

type Keys<'a> = &'a mut dyn FnMut(&str) -> Option<&'static [u8]>;

/// In a terminal of its own that is closed once `words` were written to it; the run's end, which has to come.
pub fn hang_up(launch: Launch, columns: u16, rows: u16, words: &str) -> Result<ExitStatus> {
    let (mut child, mut master) = start(launch, columns, rows, true)?;
    let (mut written, mut chunk) = (Vec::new(), [0; 4096]);
    while !String::from_utf8_lossy(&written).contains(words) {
        let length = master.read(&mut chunk).unwrap_or(0);
        anyhow::ensure!(length > 0, "it ended early: {}", String::from_utf8_lossy(&written));
        written.extend_from_slice(&chunk[..length]);
    }
    drop(master);
    let has_ended = wait_for_end(&child, PATIENCE)?;
    if !has_ended {
        child.kill()?;
    }
    let status = child.wait()?;
    anyhow::ensure!(has_ended, "it goes on without its terminal");
    Ok(status)
}

fn run(launch: Launch, columns: u16, rows: u16, mut keys: Option<Keys<'_>>) -> Result<(ExitStatus, String)> {
    let (mut child, mut master) = start(launch, columns, rows, keys.is_some())?;
    let mut written = Vec::new();
    let mut chunk = [0; 4096];
    // Linux tells of a terminal that nobody has open any more by EIO.
    while let Ok(length @ 1..) = master.read(&mut chunk) {
        written.extend_from_slice(&chunk[..length]);
        if let Some(typed) = keys.as_mut().and_then(|keys| keys(&String::from_utf8_lossy(&written))) {
            master.write_all(typed)?;
        }
    }
    Ok((child.wait()?, String::from_utf8_lossy(&written).into_owned()))
}

/// `is_own`: the terminal is the run's own, and its keyboard too.
fn start(mut launch: Launch, columns: u16, rows: u16, is_own: bool) -> Result<(Child, File)> {
    let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC)?;
    grantpt(&master)?;
    unlockpt(&master)?;
    let name = rustix::pty::ptsname(&master, Vec::new())?;
    let slave = || -> Result<OwnedFd> {
        let flags = rustix::fs::OFlags::RDWR | rustix::fs::OFlags::NOCTTY;
        Ok(rustix::fs::open(&*name, flags, rustix::fs::Mode::empty())?)
    };
    let size = Winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
    rustix::termios::tcsetwinsize(&master, size)?;
    let command = launch.command();
    command.env("TERM", "xterm-256color").stdout(Stdio::from(slave()?)).stderr(Stdio::from(slave()?));
    if is_own {
        command.stdin(Stdio::from(slave()?));
        // SAFETY: between fork and exec only system calls are made.
        unsafe {
            command.pre_exec(|| {
                rustix::process::setsid()?;
                rustix::process::ioctl_tiocsctty(std::io::stdin())?;
                Ok(())
            });
        }
    }
    let child = command.spawn().context("start rano in a terminal")?;
    // Only the child holds the other side then, and its end is the end of the input.
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    Ok((child, File::from(master)))
}

/// What is on a screen, and what has scrolled off above it.
pub struct Screen {
    columns: usize,
    rows: usize,
    /// All lines from the first; the last `rows` of them are the screen.
    lines: Vec<Vec<char>>,
    row: usize,
    column: usize,
}

impl Screen {
    pub fn new(columns: u16, rows: u16) -> Self {
        Self { columns: columns.into(), rows: rows.into(), lines: vec![Vec::new()], row: 0, column: 0 }
    }

    /// Lines without the blanks at their ends.
    pub fn text(&self) -> Vec<String> {
        let text = |line: &Vec<char>| line.iter().filter(|c| **c != '\0').collect::<String>();
        self.lines.iter().map(|line| text(line).trim_end().to_owned()).collect()
    }

    pub fn write(&mut self, written: &str) {
        let mut characters = written.chars();
        while let Some(character) = characters.next() {
            match character {
                '\r' => self.column = 0,
                '\n' => self.next_line(),
                '\x1b' => {
                    // Parameters and a final byte after the bracket (ECMA-48 5.4).
                    let mut sequence = String::new();
                    for part in characters.by_ref().skip(1) {
                        sequence.push(part);
                        if ('@'..='~').contains(&part) {
                            break;
                        }
                    }
                    self.control(&sequence);
                }
                other => self.put(other),
            }
        }
    }

    fn control(&mut self, sequence: &str) {
        let top = self.lines.len().saturating_sub(self.rows);
        match sequence {
            "1A" => self.row = self.row.saturating_sub(1).max(top),
            "2K" => self.lines[self.row].clear(),
            other => assert!(other.ends_with('m'), "a sequence that no test has seen: {other}"),
        }
    }

    fn next_line(&mut self) {
        self.row += 1;
        if self.row == self.lines.len() {
            self.lines.push(Vec::new());
        }
    }

    fn put(&mut self, character: char) {
        let width = character.width().unwrap_or(0);
        if self.column + width > self.columns {
            self.next_line();
            self.column = 0;
        }
        let line = &mut self.lines[self.row];
        line.resize(line.len().max(self.column + width), ' ');
        if let Some(cell) = line.get_mut(self.column) {
            *cell = character;
        }
        // The other cells of a wide character hold nothing.
        line.iter_mut().skip(self.column + 1).take(width.saturating_sub(1)).for_each(|cell| *cell = '\0');
        self.column += width;
    }
}
