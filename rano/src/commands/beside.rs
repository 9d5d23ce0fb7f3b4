//! What goes on beside an observation, such as a page that shows it.

use std::any::Any;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use anyhow::Result;

use crate::files::Rights;

/// Where what is for a person goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Talk {
    /// Events and the summary on standard output, the rest on standard error.
    OnStdout,
    /// No events, and the rest on standard error: standard output says something else.
    OnStderr,
    /// The same, and nothing while a full-screen view has the terminal.
    AfterScreen,
}

/// A run that is about to observe, for what goes on beside.
pub(super) struct Begun {
    pub(super) run_id: String,
    /// The file that is written, now and after it was lost; `None` without a history.
    pub(super) database: Option<Arc<Mutex<PathBuf>>>,
    /// With which it was opened.
    pub(super) rights: Rights,
}

/// What goes on beside an observation: begun with it, and dropped after its end.
pub(super) type Beside<'a> = Box<dyn FnOnce(Begun) -> Result<Box<dyn Any>> + 'a>;

pub(super) fn nothing_beside() -> Beside<'static> {
    Box::new(|_| Ok(Box::new(())))
}
