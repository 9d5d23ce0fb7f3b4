//! Recordings of raw events: a source that plays one, and the wrapper around any source that makes one. Everything
//! above a source runs on a recording as on the live system, without privileges and as fast as it can.

use std::fs::File;
use std::io::{BufRead, BufWriter, Read as _, Write as _};
use std::time::Duration;

use anyhow::{Context as _, Result, anyhow, ensure};

use crate::event::{Moment, Protocol, SourceKind};
use crate::health::{Bounds, Gaps, Watched};
use crate::names::{Evidence, Party};
use crate::process::{ProcessChange, ProcessId, Verdict};
use crate::source::{Intake, Open, Pumped, RawEvent, SocketChange, Source, SourceHealth, Stray};
use crate::stop::Stop;

/// Longest line of a recording; one with the longest command line and ancestry is far shorter.
const LINE_MAX: u64 = 1 << 20;

/// Plays a recording; time is the recording's.
pub struct Replay {
    lines: Box<dyn BufRead + Send>,
    name: String,
    line: String,
    line_number: u64,
    /// Read, but later than the deadline of the pump that read it.
    next: Option<RawEvent>,
    now: Moment,
    source: SourceKind,
}

impl Replay {
    /// `name` is what errors call the recording.
    pub fn new(lines: Box<dyn BufRead + Send>, name: String) -> Self {
        let now = Moment::default();
        let source = SourceKind::default();
        let mut replay = Self { lines, name, line: String::new(), line_number: 0, next: None, now, source };
        if let Ok(Some(source)) = replay.header() {
            replay.source = source;
        }
        replay
    }

    /// What the first line says that was recorded, if it says so: it is looked at, and read again with the others.
    fn header(&mut self) -> std::io::Result<Option<SourceKind>> {
        let buffer = self.lines.fill_buf()?;
        let line = buffer.split(|byte| *byte == b'\n').next().unwrap_or_default();
        Ok(match serde_json::from_slice(line) {
            Ok(RawEvent::Recorded { source }) => Some(source),
            Ok(_) | Err(_) => None,
        })
    }

    fn read(&mut self) -> Result<Option<RawEvent>> {
        loop {
            self.line.clear();
            self.line_number += 1;
            let place = || format!("{}:{}", self.name, self.line_number);
            let mut line = (&mut self.lines).take(LINE_MAX);
            if line.read_line(&mut self.line).with_context(place)? == 0 {
                return Ok(None);
            }
            ensure!(line.limit() > 0, "{}: the line is too long for a recording", place());
            let text = self.line.trim();
            if !text.is_empty() {
                return serde_json::from_str(text).map(Some).map_err(unreadable).with_context(place);
            }
        }
    }
}

/// Where the line is no recording's. The parser's own words quote it, and it may be of any file.
#[expect(clippy::needless_pass_by_value, reason = "it is what map_err passes")]
fn unreadable(error: serde_json::Error) -> anyhow::Error {
    anyhow!("this is no line of a recording (column {})", error.column())
}

/// When a raw event happened, where it says so.
fn moment(event: &RawEvent) -> Option<Moment> {
    match event {
        RawEvent::Process(ProcessChange::Seen { at, .. } | ProcessChange::Gone { at, .. })
        | RawEvent::Clock(at) => Some(*at),
        RawEvent::Socket(change) => Some(change.at()),
        RawEvent::Evidence(evidence) => Some(evidence.at()),
        RawEvent::Stray(stray) => Some(stray.closed.at),
        RawEvent::Process(ProcessChange::Surroundings { .. })
        | RawEvent::Recorded { .. }
        | RawEvent::Unattributed { .. }
        | RawEvent::LeftOut { .. } => None,
    }
}

impl Source for Replay {
    fn kind(&self) -> SourceKind {
        self.source
    }

    fn pump(&mut self, until: Moment, stop: &Stop, intake: &mut dyn Intake) -> Result<Pumped> {
        while !stop.is_raised() {
            let event = match self.next.take() {
                Some(event) => event,
                None => match self.read()? {
                    Some(event) => event,
                    None => return Ok(Pumped::Exhausted),
                },
            };
            if let Some(at) = moment(&event) {
                let pause_ns = until.boot_ns.max(self.now.boot_ns);
                if at.boot_ns > pause_ns && self.now != Moment::default() {
                    // What people read is as far from the event to come as the boot clock is.
                    let ahead = Duration::from_nanos(at.boot_ns - pause_ns).as_millis();
                    let unix_ms = at.unix_ms.saturating_sub(i64::try_from(ahead).unwrap_or(i64::MAX));
                    self.now = Moment { boot_ns: pause_ns, unix_ms };
                    self.next = Some(event);
                    return Ok(Pumped::More);
                }
                self.now = at;
            }
            match event {
                RawEvent::Process(change) => {
                    intake.process(change);
                    intake.newly_tracked();
                }
                RawEvent::Socket(change) => intake.socket(change),
                RawEvent::Evidence(evidence) => intake.evidence(evidence),
                RawEvent::Unattributed { count } => intake.unattributed(count),
                RawEvent::Stray(stray) => intake.stray(stray),
                RawEvent::LeftOut { connections } => intake.left_out(connections),
                RawEvent::Recorded { .. } | RawEvent::Clock(_) => {}
            }
        }
        Ok(Pumped::More)
    }

    fn finish(&mut self, _intake: &mut dyn Intake) -> Result<()> {
        Ok(())
    }

    fn health(&self) -> SourceHealth {
        let reason = Some("a recording".to_owned());
        SourceHealth {
            kind: self.kind(),
            reason,
            gaps: Gaps::default(),
            bounds: Bounds::default(),
            watched: Watched::default(),
        }
    }

    fn now(&self) -> Moment {
        self.now
    }
}

/// Passes everything on and writes it down.
pub struct Recorder {
    inner: Box<dyn Source>,
    file: BufWriter<File>,
    /// Of what was written between two pumps.
    outcome: std::io::Result<()>,
}

impl Recorder {
    /// `file` is open for writing.
    pub fn new(inner: Box<dyn Source>, file: File) -> Self {
        let mut file = BufWriter::new(file);
        let outcome = write(&mut file, &RawEvent::Recorded { source: inner.kind() });
        Self { inner, file, outcome }
    }
}

struct Tee<'a> {
    intake: &'a mut dyn Intake,
    file: &'a mut BufWriter<File>,
    outcome: std::io::Result<()>,
}

impl Tee<'_> {
    fn write(&mut self, event: &RawEvent) {
        if self.outcome.is_ok() {
            self.outcome = write(self.file, event);
        }
    }
}

fn write(file: &mut BufWriter<File>, event: &RawEvent) -> std::io::Result<()> {
    let mut line = serde_json::to_vec(event).expect("raw events always serialize");
    line.push(b'\n');
    file.write_all(&line)
}

impl Intake for Tee<'_> {
    fn process(&mut self, change: ProcessChange) -> Verdict {
        self.write(&RawEvent::Process(change.clone()));
        self.intake.process(change)
    }

    fn socket(&mut self, change: SocketChange) {
        self.write(&RawEvent::Socket(change.clone()));
        self.intake.socket(change);
    }

    fn evidence(&mut self, evidence: Evidence) {
        self.write(&RawEvent::Evidence(evidence.clone()));
        self.intake.evidence(evidence);
    }

    fn unattributed(&mut self, count: u64) {
        self.write(&RawEvent::Unattributed { count });
        self.intake.unattributed(count);
    }

    fn stray(&mut self, stray: Stray) {
        self.write(&RawEvent::Stray(stray.clone()));
        self.intake.stray(stray);
    }

    fn left_out(&mut self, connections: u64) {
        self.write(&RawEvent::LeftOut { connections });
        self.intake.left_out(connections);
    }

    fn newly_tracked(&mut self) -> Vec<ProcessId> {
        self.intake.newly_tracked()
    }

    fn verdict(&self, id: ProcessId) -> Verdict {
        self.intake.verdict(id)
    }

    fn watches(&self, party: Party) -> bool {
        self.intake.watches(party)
    }

    fn open(&self, protocol: Protocol) -> Vec<Open> {
        self.intake.open(protocol)
    }
}

impl Source for Recorder {
    fn kind(&self) -> SourceKind {
        self.inner.kind()
    }

    fn pump(&mut self, until: Moment, stop: &Stop, intake: &mut dyn Intake) -> Result<Pumped> {
        let outcome = std::mem::replace(&mut self.outcome, Ok(()));
        let mut tee = Tee { intake, file: &mut self.file, outcome };
        let pumped = self.inner.pump(until, stop, &mut tee)?;
        let now = self.inner.now();
        tee.write(&RawEvent::Clock(now));
        let outcome = tee.outcome;
        outcome.and_then(|()| self.file.flush()).context("write the recording")?;
        Ok(pumped)
    }

    fn finish(&mut self, intake: &mut dyn Intake) -> Result<()> {
        let mut tee = Tee { intake, file: &mut self.file, outcome: Ok(()) };
        self.inner.finish(&mut tee)?;
        let outcome = tee.outcome;
        outcome.and_then(|()| self.file.flush()).context("write the recording")
    }

    fn count(&mut self, intake: &mut dyn Intake) {
        let outcome = std::mem::replace(&mut self.outcome, Ok(()));
        let mut tee = Tee { intake, file: &mut self.file, outcome };
        self.inner.count(&mut tee);
        self.outcome = tee.outcome;
    }

    fn learned(&mut self, evidence: &Evidence) {
        if self.outcome.is_ok() {
            self.outcome = write(&mut self.file, &RawEvent::Evidence(evidence.clone()));
        }
    }

    fn health(&self) -> SourceHealth {
        self.inner.health()
    }

    fn now(&self) -> Moment {
        self.inner.now()
    }
}
