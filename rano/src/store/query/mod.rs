//! Questions to the stored history. Each answer is plain data; `output/` gives it its shape.

pub mod calls;
mod connection_rows;
pub mod connections;
pub mod contacts;
pub mod details;
pub mod diff;
pub mod export;
mod filter;
mod gathering;
pub mod groups;
pub mod paths;
pub mod reached;
pub mod report;
pub mod sessions;
pub mod status;
mod sum_ways;
pub mod timeline;
mod ways;
pub mod verify;
