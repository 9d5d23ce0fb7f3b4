//! An observation, held by a handle: for other programs, and what the command is built on.

mod answer;
mod builder;
mod error;
mod names;
mod setup;
mod state;
mod watch;

use std::fmt;
use std::io;
use std::sync::Arc;
use std::thread::JoinHandle;

use tokio::sync::oneshot;

use crate::connection::Connection;
use crate::process::Process;
use crate::stop::Stop;
use error::cause;
use state::{Begun, Mirror, Shared};

pub use answer::Answer;
pub use builder::Builder;
pub use error::{Cause, Error};
#[cfg(feature = "cli")]
pub(crate) use names::{NameMode, NameSettings};
#[cfg(feature = "cli")]
pub(crate) use setup::CommandSetup;
pub(crate) use setup::{NotOpened, Opened, Outputs, Setup};
pub use state::{Snapshot, Totals};
pub use watch::{Blocking, ConnectionEvent, Watch};

/// Observes until it is stopped or dropped.
///
/// Reading takes no time: a thread named `rano-monitor` observes and keeps the state, and each answer is a copy of
/// pointers to it. Each of `start`, `connections`, … is answered with an [`Answer`], to be awaited on any runtime or
/// waited for without one. A `Monitor` can be shared between threads; to drop it stops the observation and waits until
/// it has ended.
#[must_use = "an observation ends when its monitor is dropped"]
pub struct Monitor {
    shared: Arc<Shared>,
    thread: Thread,
}

impl Monitor {
    /// Says what to observe.
    pub fn builder() -> Builder {
        Builder::default()
    }

    fn begin(builder: Builder) -> io::Result<Answer<Self>> {
        let Builder { setup, capacity, .. } = builder;
        let shared = Arc::new(Shared::new(capacity));
        let stop = Stop::new().map_err(io::Error::other)?;
        let (ready, began) = oneshot::channel();
        let (done, over) = oneshot::channel();
        let (at_thread, stopped) = (Arc::clone(&shared), stop.clone());
        let run = move || {
            let mut ending = Ending { shared: at_thread, why: Error::Panicked };
            ending.why = run(setup, &ending.shared, ready, &stopped).err().unwrap_or(Error::Over);
            drop(ending);
            // Whoever began it may have gone away.
            let _ = done.send(Ok(()));
        };
        let handle = std::thread::Builder::new().name("rano-monitor".to_owned()).spawn(run)?;
        let monitor = Self { shared, thread: Thread { stop, handle: Some(handle), over: Some(over) } };
        Ok(Answer::after(began, move |began| match began {
            Ok(()) => Ok(monitor),
            Err(Error::Over) => Err(monitor.shared.totals().err().unwrap_or(Error::Over)),
            Err(error) => Err(error),
        }))
    }

    /// What is open now, in the order in which it was first seen. An attempt is not listed before it succeeds.
    pub fn connections(&self) -> Answer<Vec<Arc<Connection>>> {
        Answer::ready(self.shared.connections(|_| true))
    }

    /// What a process has open: the one that has the number now or had it last.
    #[doc(alias = "get_connections_for_pid")]
    pub fn connections_of(&self, pid: u32) -> Answer<Vec<Arc<Connection>>> {
        let is_its = |connection: &Connection| {
            connection.process.as_ref().is_some_and(|process| process.id.pid == pid)
        };
        Answer::ready(self.shared.connections(is_its))
    }

    /// The processes that are watched now, by pid.
    pub fn processes(&self) -> Answer<Vec<Arc<Process>>> {
        Answer::ready(self.shared.processes())
    }

    /// All of it at one moment, with the sums, and what may have been missed.
    pub fn snapshot(&self) -> Answer<Snapshot> {
        Answer::ready(self.shared.snapshot())
    }

    /// What happens from now on. Whatever [`connections`](Self::connections) says afterwards, of what it does not say
    /// an event follows.
    #[doc(alias = "watch_connections")]
    pub fn watch(&self) -> Answer<Watch> {
        Answer::ready(self.shared.watch())
    }

    /// Ends the observation, after a last look, and tells what it came to. An error says why it had ended before.
    pub fn stop(mut self) -> Answer<Totals> {
        self.thread.stop.raise();
        let Some(over) = self.thread.over.take() else { return Answer::ready(self.shared.totals()) };
        Answer::after(over, move |_| {
            self.thread.join();
            self.shared.totals()
        })
    }
}

impl fmt::Debug for Monitor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Monitor").finish_non_exhaustive()
    }
}

/// The observing thread, which ends with this.
struct Thread {
    stop: Stop,
    handle: Option<JoinHandle<()>>,
    /// Told when it has ended.
    over: Option<oneshot::Receiver<Result<(), Error>>>,
}

impl Thread {
    fn join(&mut self) {
        if let Some(handle) = self.handle.take() {
            // What a panic left is said by the state.
            let _ = handle.join();
        }
    }
}

impl Drop for Thread {
    fn drop(&mut self) {
        self.stop.raise();
        self.join();
    }
}

/// Says that it is over, and why, also where the thread does not come that far.
struct Ending {
    shared: Arc<Shared>,
    why: Error,
}

impl Drop for Ending {
    fn drop(&mut self) {
        self.shared.end(self.why.clone());
    }
}

/// On the observing thread.
fn run(
    setup: Setup,
    shared: &Arc<Shared>,
    ready: oneshot::Sender<Result<(), Error>>,
    stop: &Stop,
) -> Result<(), Error> {
    let at = crate::moment::now();
    let opened = match open(setup) {
        Ok(opened) => opened,
        Err(error) => {
            let _ = ready.send(Err(error.clone()));
            return Err(error);
        }
    };
    let health = opened.health();
    shared.begin(Begun {
        at,
        source: health.kind,
        source_reason: health.reason,
        names: opened.names_from().to_owned(),
        warnings: Vec::new(),
    });
    let mirror = Mirror::new(Arc::clone(shared), ready);
    let outputs = Outputs { sinks: vec![Box::new(mirror)], ..Outputs::default() };
    opened.observe(outputs, stop).map(drop).map_err(|error| Error::Failed(cause(error)))
}

fn open(setup: Setup) -> Result<Opened, Error> {
    let start = |error| Error::Start(cause(error));
    if let Some(pid) = setup.missing_pid().map_err(start)? {
        return Err(Error::NoSuchProcess(pid));
    }
    let rules = setup.rules().map_err(start)?;
    setup.open(rules).map_err(|error| match error {
        NotOpened::Ebpf(error) => Error::Ebpf(cause(error)),
        NotOpened::Seccomp(why) => Error::Start(cause(anyhow::Error::msg(why))),
        NotOpened::Other(error) => Error::Start(cause(error)),
    })
}

#[cfg(test)]
mod tests;
