//! Everything a person or a program reads from rano is shaped here. Names from outside are escaped here, once.

pub mod agents;
pub mod alert;
pub mod banner;
pub mod escape;
pub mod event_json;
pub mod event_line;
pub mod diff;
pub mod doctor;
pub mod export;
pub mod fold;
pub mod human;
pub mod json;
pub mod metrics;
pub mod page;
pub mod parquet;
pub mod calls;
pub mod report;
pub mod service;
pub mod style;
pub mod stats;
pub mod status;
pub mod stream;
pub mod summary;
#[cfg(test)]
mod wall;
pub mod table;
pub mod verify;
pub mod view;
