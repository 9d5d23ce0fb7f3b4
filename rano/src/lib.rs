//! rano watches the network connections of AI command-line agents. ARCHITECTURE.md holds the map.

pub mod errno;
pub mod event;
pub mod process;
pub mod source;
pub mod stop;
