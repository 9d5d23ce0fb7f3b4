//! Questions to the stored history. Each answer is plain data; `output/` gives it its shape.

pub mod calls;
pub mod connections;
pub mod diff;
pub mod export;
mod filter;
pub mod paths;
pub mod report;
pub mod sessions;
pub mod status;
pub mod timeline;
pub mod verify;
