//! What is new in the history, asked on a thread of its own: the view waits for no disk, and the observation for no
//! view.

use std::fs::File;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::sync::PoisonError;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender};
use std::time::{Duration, Instant};

use rustc_hash::FxHashMap;

use super::Database;
use super::state::endpoints::Earlier;
use super::state::event::{Collector, Key, StoredEvent};
use super::state::{Batch, Session};
use crate::event::EventKind;
use crate::filter::Filter;
use crate::output::escape::Line;
use crate::output::export::{Csv, Guard, JsonLines};
use crate::store::query::export::{self, DEFAULT_FIELDS, ExportError, FIELDS};
use crate::store::query::report::{Selection, Sessions};
use crate::store::{History, Written};

/// How often it is looked whether the file was written.
const PULSE: Duration = Duration::from_millis(100);

/// However much a look takes.
const SLOW_PULSE: Duration = Duration::from_secs(1);

/// A session that goes on is looked at so often, whether something was written or not.
const HEARTBEAT: Duration = Duration::from_secs(2);

/// Open connections and nameless ones are read again so often.
const AGAIN: Duration = Duration::from_secs(1);

/// How long a name of what ended is waited for.
const NAME_PATIENCE: Duration = Duration::from_secs(6);

/// Events that a view begins with, the latest.
const FIRST_EVENTS: u64 = 40_000;

/// Events of one message.
const EVENTS_MAX: u64 = 10_000;

/// Events that are read again at a time.
const AGAIN_MAX: usize = 2000;

/// Earlier sessions that are asked what they talked to, and endpoints of them.
const EARLIER_SESSIONS: u32 = 100;
const EARLIER_MAX: usize = 20_000;

/// What the view asks for.
#[derive(Debug)]
pub(super) enum Request {
    Filter(Option<Filter>),
    Export(PathBuf, Vec<i64>),
    Report(PathBuf),
}

/// What it is told.
#[derive(Debug)]
pub(super) enum News {
    Batch(Box<Batch>),
    /// How a request ended.
    Done(String),
}

/// How files are made, by whoever knows the rights.
pub type Create = Box<dyn Fn(&Path) -> anyhow::Result<File> + Send>;
/// Writes the session of a run id in a database as HTML; returns what to say.
pub type WriteReport = Box<dyn Fn(&Path, &Path, &str, Option<&Filter>) -> anyhow::Result<String> + Send>;

pub(super) struct Feed {
    pub(super) database: Database,
    /// Else the latest session.
    pub(super) following: Option<String>,
    pub(super) running: Box<dyn Fn() -> Vec<String> + Send>,
    pub(super) create: Create,
    pub(super) write_report: WriteReport,
    pub(super) filter: Option<Filter>,
}

/// How far it has read.
struct Place {
    run_id: Option<String>,
    last: i64,
    /// The last events of connections that are open, and the events of others that have no name, until when.
    open: FxHashMap<Key, i64>,
    nameless: Vec<(i64, Instant)>,
    again_at: Instant,
    was_running: bool,
}

impl Place {
    fn new() -> Self {
        Self {
            run_id: None,
            last: 0,
            open: FxHashMap::default(),
            nameless: Vec::new(),
            again_at: Instant::now(),
            was_running: true,
        }
    }

    fn note(&mut self, event: &StoredEvent) {
        self.last = self.last.max(event.id);
        let ends = match event.kind {
            Some(EventKind::Connect | EventKind::Accept) => {
                self.open.insert(event.key(), event.id);
                return;
            }
            Some(EventKind::Close) => {
                self.open.remove(&event.key());
                true
            }
            Some(EventKind::Fail) => true,
            Some(EventKind::Listen) | None => false,
        };
        if ends && event.domain.is_none() && self.nameless.len() < AGAIN_MAX {
            self.nameless.push((event.id, Instant::now() + NAME_PATIENCE));
        }
    }

    fn again(&mut self) -> Vec<i64> {
        let now = Instant::now();
        self.nameless.retain(|(_, until)| *until > now);
        self.again_at = now + AGAIN;
        let nameless = self.nameless.iter().map(|(id, _)| *id);
        self.open.values().copied().chain(nameless).take(AGAIN_MAX).collect()
    }
}

/// What a history says now, for who needs no news of it. Nothing is held to be running.
pub fn read(database: &Path, following: Option<String>, filter: Option<Filter>) -> Result<Batch, String> {
    let feed = Feed {
        database: Database::default(),
        following,
        running: Box::new(Vec::new),
        create: Box::new(|_| anyhow::bail!("nothing is made")),
        write_report: Box::new(|_, _, _, _| anyhow::bail!("nothing is made")),
        filter,
    };
    feed.look(database, &mut Place::new())
}

impl Feed {
    /// Until the view is gone.
    pub(super) fn run(mut self, requests: &Receiver<Request>, news: &SyncSender<News>) {
        let mut place = Place::new();
        let (mut seen, mut looked) = (Written::default(), None::<Instant>);
        let mut pulse = Duration::ZERO;
        loop {
            match requests.recv_timeout(pulse) {
                Ok(Request::Filter(filter)) => {
                    self.filter = filter;
                    (place, looked) = (Place::new(), None);
                }
                Ok(request) => {
                    if news.send(News::Done(self.answer(request, &place))).is_err() {
                        return;
                    }
                }
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return,
            }
            let path = self.path();
            let written = Written::of(&path);
            let is_due = looked.is_none_or(|looked| place.was_running && looked.elapsed() >= HEARTBEAT);
            if written == seen && !is_due {
                pulse = PULSE;
                continue;
            }
            let begun = Instant::now();
            let batch = match self.look(&path, &mut place) {
                Ok(batch) => batch,
                Err(why) => Batch { trouble: Some(why), ..Batch::default() },
            };
            let is_full = batch.events.len() as u64 >= EVENTS_MAX && !batch.reset;
            // What is left is read at once.
            seen = if is_full { Written::default() } else { written };
            looked = Some(Instant::now());
            // At most a tenth of a processor.
            pulse = PULSE.max(begun.elapsed() * 9).min(SLOW_PULSE);
            if news.send(News::Batch(Box::new(batch))).is_err() {
                return;
            }
        }
    }

    fn path(&self) -> PathBuf {
        self.database.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn look(&self, path: &Path, place: &mut Place) -> Result<Batch, String> {
        let run_id = place.run_id.clone().or_else(|| self.following.clone());
        let again = if Instant::now() >= place.again_at { place.again() } else { Vec::new() };
        let after = place.last;
        let is_first = place.run_id.is_none();
        let running = (self.running)();
        let found = History::ask(path, |history| {
            let stored = match &run_id {
                Some(run_id) => history.session(run_id)?,
                None => history.latest_session()?,
            };
            let Some(stored) = stored else { return Ok(Batch::default()) };
            let counts = history.session_counts(&stored.run_id)?.unwrap_or_default();
            let mut batch = Batch { reset: is_first, ..Batch::default() };
            let run = Some(stored.run_id.clone());
            let matching = self.filter.clone();
            if is_first {
                let latest = Some(FIRST_EVENTS);
                let first = export::Filter { run, matching, latest, ..export::Filter::default() };
                batch.events = events(history, &first)?;
                batch.events.reverse();
                batch.is_cut = batch.events.len() as u64 >= FIRST_EVENTS;
                batch.earlier = Some(earlier(history, stored.started_at)?);
            } else {
                let (after, most) = (Some(after), Some(EVENTS_MAX));
                let next = export::Filter { run, matching, after, most, ..export::Filter::default() };
                batch.events = events(history, &next)?;
            }
            if !again.is_empty() {
                batch.again =
                    events(history, &export::Filter { ids: again.clone(), ..export::Filter::default() })?;
            }
            let is_running = running.contains(&stored.run_id);
            batch.session = Some(Session { stored, counts, is_running });
            Ok(batch)
        });
        let batch = found.map_err(|error| error.to_string())?;
        if let Some(session) = &batch.session {
            place.run_id = Some(session.stored.run_id.clone());
            // Its end is written after the last look that found it running.
            place.was_running = session.is_running || session.stored.ended_at.is_none();
        }
        for event in &batch.events {
            place.note(event);
        }
        place
            .nameless
            .retain(|(id, _)| !batch.again.iter().any(|event| event.id == *id && event.domain.is_some()));
        Ok(batch)
    }

    fn answer(&self, request: Request, place: &Place) -> String {
        let done = match request {
            Request::Filter(_) => return String::new(),
            Request::Export(file, ids) => self.export(&file, &ids),
            Request::Report(file) => match &place.run_id {
                Some(run_id) => (self.write_report)(&self.path(), &file, run_id, self.filter.as_ref()),
                None => Err(anyhow::anyhow!("no session yet")),
            },
        };
        done.unwrap_or_else(|error| format!("{error:#}"))
    }

    /// Connections by their latest events, in the form that the file's name ends with.
    fn export(&self, file: &Path, ids: &[i64]) -> anyhow::Result<String> {
        let is_csv = match file.extension().and_then(|ending| ending.to_str()) {
            Some("csv") => true,
            Some("jsonl") => false,
            _ => anyhow::bail!("name a file that ends in .csv or .jsonl"),
        };
        anyhow::ensure!(!ids.is_empty(), "there is nothing to export");
        let bytes = History::ask(&self.path(), |history| {
            let mut bytes = Vec::new();
            let wanted = export::Filter { ids: ids.to_vec(), ..export::Filter::default() };
            let fields: Vec<_> =
                FIELDS.iter().take(if is_csv { DEFAULT_FIELDS } else { FIELDS.len() }).collect();
            let written: Result<(), ExportError> = (|| {
                if is_csv {
                    let mut csv = Csv::new(&mut bytes, Guard { formulas: true, terminal: false });
                    csv.header(&fields)?;
                    history.export(&wanted, &fields, &mut csv, |_| {})?;
                    csv.finish()?;
                } else {
                    let mut lines = JsonLines::new(&mut bytes);
                    history.export(&wanted, &fields, &mut lines, |_| {})?;
                    lines.finish()?;
                }
                Ok(())
            })();
            written.map_err(ExportError::into_database)?;
            Ok(bytes)
        })?;
        (self.create)(file)?.write_all(&bytes)?;
        Ok(format!("wrote {} connections to {}", ids.len(), Line(&file.display().to_string())))
    }
}

fn events(history: &History, filter: &export::Filter) -> rusqlite::Result<Vec<StoredEvent>> {
    let fields: Vec<_> = FIELDS.iter().collect();
    let mut collector = Collector::default();
    history.export(filter, &fields, &mut collector, |_| {}).map_err(ExportError::into_database)?;
    Ok(collector.events)
}

/// What sessions before `started_at` talked to.
fn earlier(history: &History, started_at: i64) -> rusqlite::Result<Earlier> {
    let mut sessions = history.sessions(EARLIER_SESSIONS)?;
    if sessions.len() as u64 >= u64::from(EARLIER_SESSIONS) {
        return Ok(Earlier::Unknown);
    }
    sessions.retain(|session| session.started_at < started_at);
    if sessions.is_empty() {
        return Ok(Earlier::of(std::iter::empty()));
    }
    let selection = Selection { sessions: Sessions::All, since: None, until: Some(started_at), filter: None };
    let paths = history.paths(&sessions, &selection, EARLIER_MAX)?;
    if paths.all > EARLIER_MAX as u64 {
        return Ok(Earlier::Unknown);
    }
    Ok(Earlier::of(paths.rows.iter().map(|path| path.endpoint.as_str())))
}

/// Starts it; the thread has the rights that `take` gives it, and no others.
pub(super) fn start(
    feed: Feed,
    take: Box<dyn FnOnce() -> io::Result<()> + Send>,
    requests: Receiver<Request>,
    news: SyncSender<News>,
) -> io::Result<()> {
    let (started, outcome) = std::sync::mpsc::sync_channel(1);
    let work = move || {
        let begun = take();
        crate::privileges::keep_only(rustix::thread::CapabilitySet::DAC_READ_SEARCH);
        let is_begun = begun.is_ok();
        let _ = started.send(begun);
        if is_begun {
            feed.run(&requests, &news);
        }
    };
    std::thread::Builder::new().name("rano-top-feed".to_owned()).spawn(work)?;
    outcome.recv().map_err(io::Error::other)?
}
