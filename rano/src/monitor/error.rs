//! What can go wrong for whoever uses the library.

use std::sync::Arc;

/// What lies below an error; its own `source()` leads further down.
pub type Cause = Arc<dyn std::error::Error + Send + Sync + 'static>;

/// Why there is no answer.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A process that was asked for is not there.
    #[error("there is no process {0}")]
    NoSuchProcess(u32),
    /// [`Source::Ebpf`](crate::Source::Ebpf) was asked for and cannot run here.
    #[error("cannot observe with eBPF")]
    Ebpf(#[source] Cause),
    /// The observation could not be set up: descriptors, threads or `/proc` are not to be had.
    #[error("cannot observe")]
    Start(#[source] Cause),
    /// The observation ended by itself, and why.
    #[error("the observation failed")]
    Failed(#[source] Cause),
    /// A fault in rano: the thread that observed panicked.
    #[error("the observing thread panicked")]
    Panicked,
    /// The observation is over: it was stopped.
    #[error("the observation is over")]
    Over,
}

pub(crate) fn cause(error: anyhow::Error) -> Cause {
    Arc::from(Box::<dyn std::error::Error + Send + Sync + 'static>::from(error))
}

#[cfg(test)]
mod tests {
    use std::error::Error as _;

    use super::*;

    #[test]
    fn an_error_can_be_sent_and_kept_and_leads_down_to_its_cause() {
        fn is_error<T: std::error::Error + Send + Sync + Clone + 'static>() {}
        is_error::<Error>();
        let below = anyhow::Error::from(std::io::Error::other("no room")).context("open a socket");
        let error = Error::Start(cause(below));
        let first = error.source().expect("a cause");
        let texts = [first.to_string(), first.source().expect("the one below").to_string()];
        assert_eq!(texts, ["open a socket", "no room"]);
    }
}
