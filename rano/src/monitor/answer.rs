//! One shape of answer for code that awaits and for code that blocks.

use std::fmt;
use std::future::Future;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};
use std::thread::Thread;

use tokio::sync::oneshot;

use super::error::Error;

type Then<T> = Box<dyn FnOnce(Result<(), Error>) -> Result<T, Error> + Send>;

/// An answer: `answer.await?` in asynchronous code, on any runtime, and `answer.wait()?` elsewhere.
///
/// What reads state ([`connections`](crate::Monitor::connections) and the like) is answered when it is returned, so
/// that neither ever waits. What begins and ends an observation takes the time that takes.
#[must_use = "it does nothing until it is awaited or waited for"]
pub struct Answer<T>(State<T>);

enum State<T> {
    /// Taken by whoever asks first.
    Ready(Option<Result<T, Error>>),
    Waits {
        for_: oneshot::Receiver<Result<(), Error>>,
        then: Option<Then<T>>,
    },
}

impl<T> Answer<T> {
    pub(super) fn ready(answer: Result<T, Error>) -> Self {
        Self(State::Ready(Some(answer)))
    }

    /// What `then` makes of a message that is still to come; its sender is gone with [`Error::Over`].
    pub(super) fn after(
        message: oneshot::Receiver<Result<(), Error>>,
        then: impl FnOnce(Result<(), Error>) -> Result<T, Error> + Send + 'static,
    ) -> Self {
        Self(State::Waits { for_: message, then: Some(Box::new(then)) })
    }

    /// Blocks the thread until the answer is there. Not for asynchronous code, whose other tasks would wait too.
    pub fn wait(self) -> Result<T, Error> {
        block_on(self)
    }
}

impl<T> Unpin for Answer<T> {}

impl<T> Future for Answer<T> {
    type Output = Result<T, Error>;

    /// # Panics
    ///
    /// Once it was ready.
    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        match &mut self.0 {
            State::Ready(answer) => Poll::Ready(answer.take().expect("polled once it was ready")),
            State::Waits { for_, then } => {
                let Poll::Ready(message) = Pin::new(for_).poll(context) else { return Poll::Pending };
                let then = then.take().expect("polled once it was ready");
                Poll::Ready(then(message.unwrap_or(Err(Error::Over))))
            }
        }
    }
}

impl<T> fmt::Debug for Answer<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let is_there = matches!(self.0, State::Ready(_));
        f.debug_struct("Answer").field("is_there", &is_there).finish_non_exhaustive()
    }
}

struct Parked(Thread);

impl Wake for Parked {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

/// Runs a future on this thread, which sleeps in between.
pub(super) fn block_on<F: Future>(future: F) -> F::Output {
    let waker = Waker::from(Arc::new(Parked(std::thread::current())));
    let mut context = Context::from_waker(&waker);
    let mut future = pin!(future);
    loop {
        match future.as_mut().poll(&mut context) {
            Poll::Ready(output) => return output,
            Poll::Pending => std::thread::park(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_that_is_there_does_not_wait_and_one_that_comes_is_waited_for() {
        assert_eq!(Answer::ready(Ok(7)).wait().expect("an answer"), 7);
        let (sender, receiver) = oneshot::channel();
        let asked = std::thread::spawn(|| Answer::after(receiver, |came| came.map(|()| 8)).wait());
        sender.send(Ok(())).expect("somebody waits");
        assert_eq!(asked.join().expect("no panic").expect("an answer"), 8);
    }

    #[test]
    fn whose_sender_is_gone_is_over() {
        let (sender, receiver) = oneshot::channel();
        drop(sender);
        assert!(matches!(Answer::after(receiver, |came| came).wait(), Err(Error::Over)));
    }
}
