//! A log file: events and the summary, appended.

use std::fs::File;
use std::io::{BufWriter, Write as _};
use std::path::PathBuf;

use crate::event::{Domain, Event};
use crate::output::escape::{Colors, screened};
use crate::output::style::Styles;
use crate::output::summary::Summary;
use crate::output::{event_json, event_line};
use crate::sink::terminal::Format;
use crate::sink::{Frame, Sink};

/// An open log file.
pub struct LogFile {
    path: PathBuf,
    file: BufWriter<File>,
    format: Format,
    run_id: String,
    line: String,
    bytes: Vec<u8>,
    /// Lines that could not be written.
    lost: u64,
    notices: Vec<String>,
}

impl LogFile {
    /// `file` has been opened for appending by the caller; `path` is for messages.
    pub fn new(path: PathBuf, file: File, format: Format, run_id: String) -> Self {
        Self {
            path,
            file: BufWriter::with_capacity(32 * 1024, file),
            format,
            run_id,
            line: String::new(),
            bytes: Vec::new(),
            lost: 0,
            notices: Vec::new(),
        }
    }

    fn write(&mut self) {
        if let Err(error) = self.file.write_all(&self.bytes) {
            self.failed(&error);
        }
    }

    fn failed(&mut self, error: &std::io::Error) {
        if self.lost == 0 {
            self.notices.push(format!(
                "warning: cannot write to {}: {error}; events are missing there from now on",
                self.path.display()
            ));
        }
        self.lost += 1;
    }
}

impl Sink for LogFile {
    fn event(&mut self, event: &Event) {
        self.bytes.clear();
        match self.format {
            Format::Pretty => {
                self.line.clear();
                event_line::write(&mut self.line, event, &Styles::PLAIN);
                self.bytes.extend_from_slice(screened(&self.line, Colors::Plain).as_bytes());
            }
            Format::Json => event_json::write(&mut self.bytes, event, &self.run_id),
        }
        self.write();
    }

    fn named(&mut self, event: &Event, _before: &Domain) {
        if self.format == Format::Json {
            self.bytes.clear();
            event_json::write_name(&mut self.bytes, event, &self.run_id);
            self.write();
        }
    }

    fn tick(&mut self, _frame: &Frame<'_>) {
        match self.file.flush() {
            // A full pipe: what waits is not lost yet.
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {}
            Err(error) => self.failed(&error),
            Ok(()) => {}
        }
    }

    fn finish(&mut self, summary: &mut Summary) {
        let text = match self.format {
            Format::Pretty => screened(&summary.render(&Styles::PLAIN), Colors::Plain).into_owned(),
            Format::Json => summary.json(&self.run_id) + "\n",
        };
        if let Err(error) = self.file.write_all(text.as_bytes()).and_then(|()| self.file.flush()) {
            self.failed(&error);
        }
        summary.log_lost += self.lost;
        summary.output_failed |= self.lost > 0;
    }

    fn take_notices(&mut self) -> Vec<String> {
        std::mem::take(&mut self.notices)
    }
}
