//! rano watches the network connections of AI command-line agents. ARCHITECTURE.md holds the map.

pub mod commands;
pub mod config;
pub mod errno;
pub mod event;
pub mod exit;
pub mod output {
    pub mod escape;
    pub mod style;
}
pub mod process;
pub mod source;
pub mod stop;

pub use commands::run;
