//! The source that needs no privileges: socket tables by netlink (or `/proc` text), and what the kernel tells
//! everybody about sockets as they end.

pub mod closing;
pub mod destroy;
pub mod gate;
pub mod inet;
pub mod net_text;
pub mod netlink;
pub mod sock_diag;
pub mod throttle;
pub mod unix;

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test that cannot go on ends there")]
mod tests;
