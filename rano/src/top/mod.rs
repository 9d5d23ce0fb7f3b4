//! `rano top`: a full screen in the terminal. Like the page of `serve` it is answered from the history: it looks the
//! same whoever observes, and no view holds an observation up.

pub mod state;
pub mod draw;
pub mod feed;
pub mod keys;
mod terminal;

use std::io;
use std::path::PathBuf;
use std::sync::mpsc::{Receiver, Sender, TryRecvError, channel, sync_channel};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crossterm::event::{Event, KeyCode, KeyModifiers};
use rustix::thread::CapabilitySet;

pub use feed::{Create, WriteReport};

use crate::filter::Filter;
use crate::output::stream;
use crate::output::style::Styles;
use crate::privileges;
use crate::stop::Stop;
use feed::{Feed, News, Request};
use keys::Wish;
use state::State;
use terminal::{Screen, Waited};

/// The file that is read; it may be another one later, where a history that was lost goes on elsewhere.
pub type Database = Arc<Mutex<PathBuf>>;

/// Between two frames at least: no more than ten a second.
const FRAME: Duration = Duration::from_millis(100);

/// crossterm looks at nothing if it gets no time to.
const AT_ONCE: Duration = Duration::from_millis(1);

/// While anything was sent or received a moment ago, averages and bars change with time alone.
const TICK: Duration = Duration::from_secs(1);

/// Ages and the time that it has been up change so often, to the eye.
const IDLE_TICK: Duration = Duration::from_mins(1);

/// Messages that wait for a view that is paused; then nothing is read until it goes on.
const WAITING: usize = 2;

/// What is shown, and by whose word.
pub struct Settings {
    pub database: Database,
    /// The run that is shown. Else it is the latest.
    pub following: Option<String>,
    /// Run ids of sessions that go on.
    pub running: Box<dyn Fn() -> Vec<String> + Send>,
    /// Gives the thread that reads the rights to do so, for good.
    pub take_rights: Box<dyn FnOnce() -> io::Result<()> + Send>,
    pub create: Create,
    pub write_report: WriteReport,
    pub filter: Option<Filter>,
    pub styles: Styles,
    /// Ends the view, and is raised when it ends.
    pub stop: Stop,
}

/// A view that is shown until the user or `stop` ends it.
#[derive(Debug)]
pub struct Showing {
    thread: Option<JoinHandle<io::Result<()>>>,
}

impl Showing {
    /// Takes the terminal, on threads of its own.
    pub fn start(settings: Settings) -> io::Result<Self> {
        let (asking, requests) = channel();
        let (telling, news) = sync_channel(WAITING);
        let feed = Feed {
            database: settings.database,
            following: settings.following,
            running: settings.running,
            create: settings.create,
            write_report: settings.write_report,
            filter: settings.filter.clone(),
        };
        feed::start(feed, settings.take_rights, requests, telling)?;
        let screen = Screen::take()?;
        let state = State { filter: settings.filter, ..State::default() };
        let mut view =
            Showed { state, screen, asking, news, styles: settings.styles, stop: settings.stop.clone() };
        let end = RaiseAtEnd(settings.stop);
        let work = move || {
            let _end = end;
            privileges::keep_only(CapabilitySet::empty());
            let ended = view.run();
            // The terminal first: what is said at the end belongs below what was there before.
            drop(view);
            ended
        };
        let thread = std::thread::Builder::new().name("rano-top".to_owned()).spawn(work)?;
        Ok(Self { thread: Some(thread) })
    }

    /// Until the view ends.
    pub fn wait(mut self) -> io::Result<()> {
        self.join()
    }

    fn join(&mut self) -> io::Result<()> {
        let Some(thread) = self.thread.take() else { return Ok(()) };
        thread.join().unwrap_or_else(|_| Err(io::Error::other("the view failed")))
    }
}

impl Drop for Showing {
    /// An observation that ended by itself, such as a recording, can still be looked at.
    fn drop(&mut self) {
        let _ = self.join();
    }
}

/// Without its view an observation would go on unseen, so a fault of the view ends it too.
struct RaiseAtEnd(Stop);

impl Drop for RaiseAtEnd {
    fn drop(&mut self) {
        self.0.raise();
    }
}

struct Showed {
    state: State,
    screen: Screen,
    asking: Sender<Request>,
    news: Receiver<News>,
    styles: Styles,
    stop: Stop,
}

impl Showed {
    fn run(&mut self) -> io::Result<()> {
        let mut is_dirty = true;
        let mut drawn = Instant::now().checked_sub(FRAME).unwrap_or_else(Instant::now);
        while !self.stop.is_raised() {
            let wait = if is_dirty { FRAME.saturating_sub(drawn.elapsed()) } else { FRAME };
            if terminal::wait(wait)? == Waited::HungUp {
                return Ok(());
            }
            if crossterm::event::poll(AT_ONCE)? {
                if !self.take_keys()? {
                    return Ok(());
                }
                is_dirty = true;
            }
            is_dirty |= self.screen.has_continued()?;
            is_dirty |= self.take_news();
            let tick = if self.state.recent.is_quiet(self.state.now) { IDLE_TICK } else { TICK };
            if !is_dirty && !self.state.is_paused && drawn.elapsed() >= tick {
                self.state.tick(clock());
                self.state.refresh();
                is_dirty = true;
            }
            if is_dirty && drawn.elapsed() >= FRAME {
                let (state, styles) = (&mut self.state, self.styles);
                self.screen.terminal.draw(|frame| draw::draw(state, frame.buffer_mut(), styles))?;
                (is_dirty, drawn) = (false, Instant::now());
            }
        }
        Ok(())
    }

    /// What was typed until now; whether the view goes on.
    fn take_keys(&mut self) -> io::Result<bool> {
        loop {
            match crossterm::event::read()? {
                Event::Key(key)
                    if key.modifiers.contains(KeyModifiers::CONTROL) && key.code == KeyCode::Char('l') =>
                {
                    self.screen.clear()?;
                }
                Event::Key(key) => match keys::press(&mut self.state, key) {
                    Some(Wish::Quit) => return Ok(false),
                    Some(Wish::Suspend) => self.screen.suspend()?,
                    Some(Wish::Copy(text)) => stream::copy(&text)?,
                    Some(Wish::Filter(filter)) => self.ask(Request::Filter(filter)),
                    Some(Wish::Export(path, ids)) => self.ask(Request::Export(path, ids)),
                    Some(Wish::Report(path)) => self.ask(Request::Report(path)),
                    None => {}
                },
                Event::Paste(text) => keys::paste(&mut self.state, &text),
                Event::Resize(..) | Event::FocusGained | Event::FocusLost | Event::Mouse(_) => {}
            }
            if !crossterm::event::poll(AT_ONCE)? {
                return Ok(true);
            }
        }
    }

    fn ask(&mut self, request: Request) {
        // A pause is of what happens, not of answers.
        self.state.is_paused = false;
        if self.asking.send(request).is_err() {
            self.state.message = Some("the history is not read any more".to_owned());
        }
    }

    /// Whether there were any.
    fn take_news(&mut self) -> bool {
        let mut has_news = false;
        while !self.state.is_paused {
            match self.news.try_recv() {
                Ok(News::Batch(batch)) => self.state.apply(*batch, clock()),
                Ok(News::Done(message)) => self.state.message = Some(message),
                Err(TryRecvError::Empty | TryRecvError::Disconnected) => break,
            }
            has_news = true;
        }
        has_news
    }
}

/// Unix milliseconds.
fn clock() -> i64 {
    jiff::Timestamp::now().as_millisecond()
}
