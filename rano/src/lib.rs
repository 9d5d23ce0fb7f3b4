//! rano watches the network connections of AI command-line agents. See ARCHITECTURE.md for the map.

pub mod event;
pub mod process;
pub mod source;
pub mod stop;
