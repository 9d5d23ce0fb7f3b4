//! The unprivileged source: what /proc shows to anybody.

mod files;
mod new_pids;
pub mod processes;
mod stat;
