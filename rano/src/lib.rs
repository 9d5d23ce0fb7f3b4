//! rano watches the network connections of AI command-line agents. ARCHITECTURE.md holds the map.

// What is printed goes through `output::stream`; `output/wall.rs` looks for what no lint knows. Tests may say why they
// are skipped.
#![cfg_attr(
    not(test),
    deny(clippy::print_stdout, clippy::print_stderr, clippy::dbg_macro, clippy::disallowed_methods)
)]

pub mod words;
pub mod moment;
pub mod event;
pub mod change;
pub mod health;
pub mod connection;
pub mod update;
pub mod bounded;
pub mod glob;
pub mod filter;
pub mod source;
pub mod names;
pub mod process;
pub mod alerts;
pub mod pipeline;
pub mod sink;
pub mod store;
pub mod output;
pub mod commands;
pub mod config;
pub mod errno;
pub mod exit;
pub mod files;
pub mod privileges;
pub mod registry;
pub mod signals;
pub mod stop;
pub mod time_argument;
pub mod totals;

pub use commands::run;
