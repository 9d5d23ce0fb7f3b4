//! A log file: events and the summary, appended.

use std::fs::File;
use std::io::{BufWriter, Write as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::PathBuf;

use crate::event::Event;
use crate::files::{Existing, Files, NamedBy, Problem, Rights};
use crate::output::escape::{Colors, screened};
use crate::output::style::Styles;
use crate::output::{event_json, event_line};
use crate::sink::shown::Shown;
use crate::sink::terminal::{Format, WIDE};
use crate::sink::{Sink, SinkReport};
use crate::stop::ReopenLogs;
use crate::summary::Summary;
use crate::update::{Renamed, Update};

/// Room for lines that wait to be written.
const WAITING_MAX: usize = 32 * 1024;

/// A log file, and the way to open it again.
pub struct OpenLog {
    files: Files,
    path: PathBuf,
    rights: Rights,
    file: BufWriter<File>,
    /// Device and inode, of a regular file: another one at its path means that this one was rotated or lost.
    identity: Option<(u64, u64)>,
}

impl OpenLog {
    pub fn open(files: &Files, path: PathBuf, named_by: NamedBy) -> Result<Self, Problem> {
        let (file, rights) = files.create(&path, named_by, Existing::Append)?;
        let identity = identity(&file);
        let file = BufWriter::with_capacity(WAITING_MAX, file);
        Ok(Self { files: files.clone(), path, rights, file, identity })
    }

    fn is_lost(&self) -> bool {
        self.identity.is_some() && self.files.identity_of(&self.path, &self.rights).ok() != self.identity
    }

    /// Lines that wait go to the new file.
    fn reopen(&mut self) -> Result<(), Problem> {
        let file = self.files.create_with(&self.path, &self.rights, Existing::Append)?;
        self.identity = identity(&file);
        let old = std::mem::replace(&mut self.file, BufWriter::with_capacity(WAITING_MAX, file));
        let (_, waiting) = old.into_parts();
        // They fit into the room of the new one, which is as large.
        self.file.write_all(&waiting.unwrap_or_default())?;
        Ok(())
    }
}

fn identity(file: &File) -> Option<(u64, u64)> {
    let metadata = file.metadata().ok().filter(std::fs::Metadata::is_file)?;
    Some((metadata.dev(), metadata.ino()))
}

/// An open log file.
pub struct LogFile {
    log: OpenLog,
    format: Format,
    shown: Shown,
    run_id: String,
    line: String,
    bytes: Vec<u8>,
    /// Lines that could not be written.
    lost: u64,
    notices: Vec<String>,
    reopen: ReopenLogs,
    /// Wishes to open it again that were fulfilled.
    reopened: u64,
    /// It is gone and could not be opened again.
    is_lost: bool,
}

impl LogFile {
    pub fn new(log: OpenLog, format: Format, shown: Shown, run_id: String, reopen: ReopenLogs) -> Self {
        Self {
            log,
            reopened: reopen.times(),
            reopen,
            is_lost: false,
            format,
            shown,
            run_id,
            line: String::new(),
            bytes: Vec::new(),
            lost: 0,
            notices: Vec::new(),
        }
    }

    fn write(&mut self) {
        if let Err(error) = self.log.file.write_all(&self.bytes) {
            self.failed(&error);
        }
    }

    /// Before lines are written: the file may have been rotated away, by who then asks for a new one or does not.
    fn look_after(&mut self) {
        let wishes = self.reopen.times();
        let is_asked = wishes != self.reopened;
        self.reopened = wishes;
        let is_lost = !self.log.file.buffer().is_empty() && self.log.is_lost();
        if !is_asked && !is_lost {
            return;
        }
        let path = self.log.path.display().to_string();
        match self.log.reopen() {
            Ok(()) => {
                if !is_asked {
                    self.notices.push(format!("{path} was moved or removed: events go on in a new one"));
                }
                self.is_lost = false;
            }
            // What comes goes where it went before. It is tried again with the next lines, and said once.
            Err(problem) => {
                if is_asked || !self.is_lost {
                    self.notices.push(format!(
                        "warning: cannot open {path} again: {problem}; until that is possible events go on into the \
                         file that was there before (hint: {})",
                        problem.hint()
                    ));
                }
                self.is_lost = true;
            }
        }
    }

    fn failed(&mut self, error: &std::io::Error) {
        if self.lost == 0 {
            self.notices.push(format!(
                "warning: cannot write to {}: {error}; events are missing there from now on",
                self.log.path.display()
            ));
        }
        self.lost += 1;
    }

    fn event(&mut self, event: &Event) {
        if !self.shown.takes(event) {
            return;
        }
        self.bytes.clear();
        match self.format {
            Format::Line | Format::Pretty | Format::Table => {
                self.line.clear();
                event_line::write(&mut self.line, event, &Styles::PLAIN);
                self.bytes.extend_from_slice(screened(&self.line, Colors::Plain).as_bytes());
            }
            Format::Json => event_json::write(&mut self.bytes, event, &self.run_id),
        }
        self.write();
    }

    fn renamed(&mut self, renamed: &Renamed) {
        if self.format == Format::Json && self.shown.takes_name(renamed) {
            self.bytes.clear();
            event_json::write_name(&mut self.bytes, renamed, &self.run_id);
            self.write();
        }
    }

    fn flush(&mut self) {
        self.look_after();
        match self.log.file.flush() {
            // A full pipe: what waits is not lost yet.
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {}
            Err(error) => self.failed(&error),
            Ok(()) => {}
        }
    }
}

impl Sink for LogFile {
    fn update(&mut self, update: &Update) {
        match update {
            Update::Event(event) => self.event(event),
            Update::Renamed(renamed) => self.renamed(renamed),
            Update::Progress(_) => self.flush(),
            Update::OtherName { .. }
            | Update::Marked(_)
            | Update::Alert(_)
            | Update::Changed(_)
            | Update::Left(_)
            | Update::Watched(_)
            | Update::Unwatched(_)
            | Update::UnknownEndpoint { .. }
            | Update::MoreUnknownEndpoints(_)
            | Update::Notice(_) => {}
        }
    }

    fn finish(&mut self, summary: &Summary) -> SinkReport {
        let text = match self.format {
            Format::Line | Format::Pretty | Format::Table => {
                let hidden = self.shown.hidden();
                screened(&summary.render(&Styles::PLAIN, hidden.as_ref(), WIDE), Colors::Plain).into_owned()
            }
            Format::Json => summary.json(&self.run_id) + "\n",
        };
        self.look_after();
        if let Err(error) = self.log.file.write_all(text.as_bytes()).and_then(|()| self.log.file.flush()) {
            self.failed(&error);
        }
        SinkReport { log_lost: self.lost, has_failed: self.lost > 0, ..SinkReport::default() }
    }

    fn take_notices(&mut self) -> Vec<String> {
        std::mem::take(&mut self.notices)
    }
}
