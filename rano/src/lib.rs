//! rano watches the network connections of AI command-line agents. ARCHITECTURE.md holds the map.

pub mod event;
pub mod source;
pub mod names;
pub mod process;
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
