//! `rano serve`: a page on this machine, and what it asks for. Everything is answered from the history; a running
//! observation is followed by what it writes there, so that no view holds it up. docs/api.md is the contract.

mod answer;
mod feed;
mod gate;
mod guard;
mod listen;
mod routes;

use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rustix::thread::CapabilitySet;
use tokio::sync::{Notify, Semaphore};

pub use guard::Token;
pub use listen::{Bound, Listen};

use crate::privileges;
use feed::Feeds;
use guard::Hosts;

/// The file that is read; it may be another one later, where a history that was lost goes on elsewhere.
pub type Database = Arc<Mutex<PathBuf>>;

/// What is shown, and by whose word.
pub struct Settings {
    pub database: Database,
    /// The run that is shown first: the one that observes beside, or that was asked for. Else it is the latest.
    pub following: Option<String>,
    /// Run ids of sessions that go on.
    pub running: Box<dyn Fn() -> Vec<String> + Send + Sync>,
    /// Gives the thread that serves the rights to read the database, for good.
    pub take_rights: Box<dyn FnOnce() -> io::Result<()> + Send>,
    pub token: Token,
}

/// What the routes have in common.
struct Shared {
    database: Database,
    following: Option<String>,
    running: Box<dyn Fn() -> Vec<String> + Send + Sync>,
    /// What it said last.
    known: Mutex<Option<(Instant, Vec<String>)>>,
    token: Token,
    hosts: Hosts,
    feeds: Feeds,
    /// Questions to the database that are answered at a time.
    questions: Semaphore,
}

impl Shared {
    /// Run ids of sessions that go on, as of a moment ago.
    fn running(&self) -> Vec<String> {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        match &*known {
            Some((at, running)) if at.elapsed() < RUNNING_FOR => running.clone(),
            _ => {
                let running = (self.running)();
                *known = Some((Instant::now(), running.clone()));
                running
            }
        }
    }

    fn database(&self) -> PathBuf {
        self.database.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// How long it is believed which sessions go on.
const RUNNING_FOR: Duration = Duration::from_millis(500);

/// Questions that are answered at a time: the observation beside needs the machine more.
const QUESTIONS: usize = 2;

/// Threads that ask the database.
const THREADS: usize = 4;

/// A page that is served until this is dropped.
#[derive(Debug)]
pub struct Serving {
    stop: Arc<Notify>,
    thread: Option<JoinHandle<()>>,
}

impl Serving {
    /// Serves on a thread of its own, which keeps no privilege but to read.
    pub fn start(bound: Bound, settings: Settings) -> io::Result<Self> {
        let stop = Arc::new(Notify::new());
        let ended = Arc::clone(&stop);
        let (started, outcome) = std::sync::mpsc::sync_channel(1);
        let thread = std::thread::Builder::new().name("rano-serve".to_owned()).spawn(move || {
            let begin = || {
                (settings.take_rights)()?;
                privileges::keep_only(CapabilitySet::DAC_READ_SEARCH);
                // Its threads for questions are started by this one, and have its rights.
                tokio::runtime::Builder::new_current_thread()
                    .enable_io()
                    .enable_time()
                    .max_blocking_threads(THREADS)
                    .thread_name("rano-question")
                    .build()
            };
            let runtime = match begin() {
                Ok(runtime) => runtime,
                Err(error) => return drop(started.send(Err(error))),
            };
            let shared = Arc::new(Shared {
                database: settings.database,
                following: settings.following,
                running: settings.running,
                known: Mutex::new(None),
                token: settings.token,
                hosts: bound.hosts(),
                feeds: Feeds::default(),
                questions: Semaphore::new(QUESTIONS),
            });
            let _ = started.send(Ok(()));
            runtime.block_on(async {
                let router = routes::router(shared);
                tokio::select! {
                    () = bound.serve(router) => {}
                    () = ended.notified() => {}
                }
            });
            // A question that is being answered is not waited for.
            runtime.shutdown_background();
        })?;
        outcome.recv().map_err(io::Error::other)??;
        Ok(Self { stop, thread: Some(thread) })
    }

    /// Until the process is told to end.
    pub fn wait(mut self) {
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

impl Drop for Serving {
    fn drop(&mut self) {
        self.stop.notify_one();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}
