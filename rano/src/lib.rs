#![doc = include_str!("../library.md")]
// What is printed goes through `output::stream`; `output/wall.rs` looks for what no lint knows. Tests may say why they
// are skipped.
#![cfg_attr(
    not(test),
    deny(clippy::print_stdout, clippy::print_stderr, clippy::dbg_macro, clippy::disallowed_methods)
)]
#![cfg_attr(
    not(feature = "internals"),
    allow(
        dead_code,
        unreachable_pub,
        reason = "a room offers its tests and benches more than the library needs"
    )
)]
#![cfg_attr(not(feature = "internals"), warn(missing_docs))]

/// Where the code is. Each room is `crate::ROOM`.
#[path = "."]
mod rooms {
    pub mod words;
    pub mod moment;
    pub mod event;
    pub mod change;
    pub mod health;
    pub mod connection;
    pub mod update;
    pub mod bounded;
    pub mod glob;
    pub mod source;
    pub mod names;
    pub mod process;
    pub mod alerts;
    pub mod pipeline;
    pub mod monitor;
    pub mod sink;
    pub mod errno;
    pub mod privileges;
    pub mod stop;
    pub mod summary;
    pub mod totals;
    #[cfg(feature = "cli")]
    pub mod attention;
    #[cfg(feature = "cli")]
    pub mod filter;
    #[cfg(feature = "cli")]
    pub mod policy;
    #[cfg(feature = "cli")]
    pub mod store;
    #[cfg(feature = "cli")]
    pub mod output;
    #[cfg(feature = "cli")]
    pub mod commands;
    #[cfg(feature = "cli")]
    pub mod config;
    #[cfg(feature = "cli")]
    pub mod exit;
    #[cfg(feature = "cli")]
    pub mod files;
    #[cfg(feature = "cli")]
    pub mod registry;
    #[cfg(feature = "serve")]
    pub mod serve;
    #[cfg(feature = "top")]
    pub mod top;
    #[cfg(feature = "cli")]
    pub mod releases;
    #[cfg(feature = "cli")]
    pub mod signals;
    #[cfg(feature = "cli")]
    pub mod time_argument;
}
#[allow(clippy::wildcard_imports, reason = "that is what they are for")]
use rooms::*;

pub use connection::{Connection, End};
pub use health::{Gap, Gaps};
pub use moment::Moment;
pub use monitor::{
    Answer, Blocking, Builder, Cause, ConnectionEvent, Error, Monitor, Snapshot, Totals, Watch,
};
pub use process::{Ancestor, LeftOut, Process, ProcessId};
pub use words::{
    Address, Bytes, Class, ConnectionId, DomainSource, KnownName, OwnerQuality, Protocol, Role, SocketState,
    Source, SourceKind,
};

#[cfg(feature = "cli")]
#[doc(hidden)]
pub use commands::run;

/// For rano's own tests, benches and fuzz targets. Nothing here is kept compatible.
#[cfg(feature = "internals")]
#[doc(hidden)]
pub mod internals {
    pub use crate::rooms::*;
}
