//! What happens, as it happens, for whoever wants to follow it.

use std::fmt;
use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use futures_core::Stream;
use tokio::sync::broadcast::Receiver;
use tokio::sync::broadcast::error::{RecvError, TryRecvError};

use super::answer::block_on;
use crate::connection::Connection;
use crate::event::KnownName;

/// What happened to a connection, which is as it was after it.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum ConnectionEvent {
    /// It was established, accepted, or began to listen ([`Connection::role`] says which); on a polling source it was
    /// found.
    New(Arc<Connection>),
    /// One that was established ended. Accepted ones and listeners end without an event.
    Closed(Arc<Connection>),
    /// An attempt ended that never was established: there was no `New`.
    Failed(Arc<Connection>),
    /// A name became known after the first event, or a better one. It may come after the end, too.
    Named {
        /// With its new name.
        connection: Arc<Connection>,
        /// The name that was shown before.
        before: Option<KnownName>,
    },
    /// The reader was too slow: so many events were dropped for this reader. What is open now is what
    /// [`Monitor::connections`](crate::Monitor::connections) says.
    Missed(u64),
}

impl ConnectionEvent {
    /// The connection that it is about, if it is about one.
    pub fn connection(&self) -> Option<&Arc<Connection>> {
        match self {
            Self::New(connection)
            | Self::Closed(connection)
            | Self::Failed(connection)
            | Self::Named { connection, .. } => Some(connection),
            Self::Missed(_) => None,
        }
    }
}

/// The events from the moment of [`Monitor::watch`](crate::Monitor::watch) on. It ends when the observation does.
///
/// It is a [`Stream`], and an iterator that blocks (`for event in watch`). Several may watch; each has its own place.
pub struct Watch(State);

type Received = (Result<ConnectionEvent, RecvError>, Receiver<ConnectionEvent>);

enum State {
    Idle(Receiver<ConnectionEvent>),
    Waiting(Pin<Box<dyn Future<Output = Received> + Send>>),
    Over,
}

impl Watch {
    pub(super) fn new(receiver: Receiver<ConnectionEvent>) -> Self {
        Self(State::Idle(receiver))
    }

    /// The next event, `None` at the end. Nothing is lost if the future is dropped.
    pub async fn next(&mut self) -> Option<ConnectionEvent> {
        poll_fn(|context| Pin::new(&mut *self).poll_next(context)).await
    }

    /// The same, blocking the thread until there is one.
    pub fn wait(&mut self) -> Option<ConnectionEvent> {
        block_on(self.next())
    }

    /// What is there already, without waiting.
    pub fn ready(&mut self) -> Option<ConnectionEvent> {
        match Pin::new(self).poll_next(&mut Context::from_waker(std::task::Waker::noop())) {
            Poll::Ready(event) => event,
            Poll::Pending => None,
        }
    }
}

impl Stream for Watch {
    type Item = ConnectionEvent;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<ConnectionEvent>> {
        loop {
            match std::mem::replace(&mut self.0, State::Over) {
                State::Over => return Poll::Ready(None),
                State::Idle(mut receiver) => {
                    let event = match receiver.try_recv() {
                        Ok(event) => event,
                        Err(TryRecvError::Lagged(count)) => ConnectionEvent::Missed(count),
                        Err(TryRecvError::Closed) => return Poll::Ready(None),
                        Err(TryRecvError::Empty) => {
                            let waiting = async move { (receiver.recv().await, receiver) };
                            self.0 = State::Waiting(Box::pin(waiting));
                            continue;
                        }
                    };
                    self.0 = State::Idle(receiver);
                    return Poll::Ready(Some(event));
                }
                State::Waiting(mut waiting) => {
                    let Poll::Ready((event, receiver)) = waiting.as_mut().poll(context) else {
                        self.0 = State::Waiting(waiting);
                        return Poll::Pending;
                    };
                    let event = match event {
                        Ok(event) => event,
                        Err(RecvError::Lagged(count)) => ConnectionEvent::Missed(count),
                        Err(RecvError::Closed) => return Poll::Ready(None),
                    };
                    self.0 = State::Idle(receiver);
                    return Poll::Ready(Some(event));
                }
            }
        }
    }
}

impl IntoIterator for Watch {
    type Item = ConnectionEvent;
    type IntoIter = Blocking;

    fn into_iter(self) -> Blocking {
        Blocking(self)
    }
}

/// The events as an iterator that blocks until there is one.
#[derive(Debug)]
pub struct Blocking(Watch);

impl Iterator for Blocking {
    type Item = ConnectionEvent;

    fn next(&mut self) -> Option<ConnectionEvent> {
        self.0.wait()
    }
}

impl fmt::Debug for Watch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let is_over = matches!(self.0, State::Over);
        f.debug_struct("Watch").field("is_over", &is_over).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use tokio::sync::broadcast;

    use super::*;
    use crate::event::{ConnectionId, Moment, Protocol, Role};

    fn new(number: u64) -> ConnectionEvent {
        let connection =
            Connection::new(ConnectionId(number), Role::Connect, Protocol::Tcp, Moment::default());
        ConnectionEvent::New(Arc::new(connection))
    }

    fn number(event: Option<ConnectionEvent>) -> Option<u64> {
        Some(event?.connection()?.id.0)
    }

    #[test]
    fn a_reader_that_lags_is_told_how_much_it_missed_and_goes_on() {
        let (sender, receiver) = broadcast::channel(2);
        let mut watch = Watch::new(receiver);
        for event in 1..=5 {
            sender.send(new(event)).expect("somebody watches");
        }
        assert!(matches!(watch.wait(), Some(ConnectionEvent::Missed(3))));
        assert_eq!([number(watch.wait()), number(watch.wait())], [Some(4), Some(5)]);
        assert!(watch.ready().is_none());
        sender.send(new(6)).expect("somebody watches");
        assert_eq!(number(watch.wait()), Some(6));
    }

    #[test]
    fn a_reader_that_waits_is_woken_by_an_event_and_by_the_end() {
        let (sender, receiver) = broadcast::channel(2);
        let mut watch = Watch::new(receiver);
        // It waits already.
        assert!(watch.ready().is_none());
        let reader = std::thread::spawn(move || {
            watch.into_iter().map(|event| number(Some(event))).collect::<Vec<_>>()
        });
        sender.send(new(1)).expect("somebody watches");
        drop(sender);
        assert_eq!(reader.join().expect("no panic"), [Some(1)]);
    }
}
