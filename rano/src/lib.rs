//! rano watches the network connections of AI command-line agents: which process, on behalf of which agent, talks to whom,
//! since when, how many bytes, and how surely that is known. Metadata only: it never looks at what is sent.
//!
//! This is the library. The command `rano` is built on it.
//!
//! ```
//! use std::net::{TcpListener, TcpStream};
//! use std::time::Duration;
//!
//! use rano::{ConnectionEvent, Monitor, Source};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! // Mostly a pattern: `Monitor::builder().pattern("claude")`. Here it is this process, seen without privileges.
//! let builder = Monitor::builder().pid(std::process::id()).source(Source::Proc);
//! let monitor = builder.interval(Duration::from_millis(20)).start().wait()?;
//! let events = monitor.watch().wait()?;
//!
//! let server = TcpListener::bind("127.0.0.1:0")?;
//! let client = TcpStream::connect(server.local_addr()?)?;
//! for event in events {
//!     match event {
//!         ConnectionEvent::New(connection) if connection.remote_ip() == Some([127, 0, 0, 1].into()) => break,
//!         ConnectionEvent::Missed(count) => eprintln!("{count} events came too fast"),
//!         _ => {}
//!     }
//! }
//! let mine = monitor.connections_of(std::process::id()).wait()?;
//! assert!(!mine.is_empty());
//! let totals = monitor.stop().wait()?;
//! assert!(totals.connects >= 1);
//! # drop(client);
//! # Ok(())
//! # }
//! ```
//!
//! # Asynchronous code, and code that blocks
//!
//! Every answer is an [`Answer`]: `.await` it on any runtime, or `.wait()` for it without one. What reads state is answered at
//! once, from memory; nothing is asked of the kernel then. Events are a [`Watch`], which is a `Stream`, has a `next` to await,
//! and is an iterator that blocks.
//!
//! ```no_run
//! use rano::{ConnectionEvent, Monitor};
//!
//! # async fn watch() -> Result<(), rano::Error> {
//! let monitor = Monitor::builder().pattern("claude").start().await?;
//! let connections = monitor.connections_of(1234).await?;
//! println!("{} open", connections.len());
//! let mut events = monitor.watch().await?;
//! while let Some(event) = events.next().await {
//!     match event {
//!         ConnectionEvent::New(connection) => println!("+ {:?}", connection.remote),
//!         ConnectionEvent::Closed(connection) => println!("- {:?} {:?}", connection.remote, connection.bytes),
//!         ConnectionEvent::Missed(count) => println!("{count} events came too fast"),
//!         _ => {}
//!     }
//! }
//! # Ok(())
//! # }
//! ```
//!
//! By other names: `get_connections_for_pid` is [`Monitor::connections_of`], `watch_connections` is [`Monitor::watch`], and
//! `ConnectionEvent::{New, Closed}` are called so here too.
//!
//! # What runs in your program
//!
//! - A thread named `rano-monitor` observes, and starts others that help it: for look-ups, for notifications. They give up the
//!   privileges they do not need; your threads keep theirs. See [`Builder::keep_privileges`], also for the one limit that
//!   is the whole process's.
//! - As root, programs in the kernel tell of each connection as it is made, however short. Otherwise tables of the kernel are
//!   read at an [interval](Builder::interval), and what is shorter may be counted only. [`Snapshot::source`] says which
//!   it is, [`Snapshot::source_reason`] why, and [`Snapshot::missed`] what may have been missed.
//! - Nothing waits for you: a reader that is too slow loses the oldest events and is told how many
//!   ([`ConnectionEvent::Missed`]).
//! - Names come from outside. Escape them before you show them on a terminal or a page. Secrets in command lines are
//!   redacted already.
//!
//! # Features
//!
//! `cli`, on by default, is the command with its database and terminal: turn the default features off for the library alone.

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
    pub mod filter;
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
    Answer, Blocking, Builder, Cause, ConnectionEvent, Error, Monitor, Snapshot, Source, Totals, Watch,
};
pub use process::{Ancestor, LeftOut, Process, ProcessId};
pub use words::{
    Address, Bytes, Class, ConnectionId, DomainSource, KnownName, OwnerQuality, Protocol, Role, SocketState,
    SourceKind,
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
