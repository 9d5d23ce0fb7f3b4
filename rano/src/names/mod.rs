//! From addresses to names: what packets and look-ups tell, before it is joined with sockets and processes.

pub mod book;
pub mod classes;
pub mod evidence;
mod held;
pub mod lookups;
pub mod pointers;
pub mod resolver;
pub mod unknown;

pub use evidence::{Answer, Evidence, Greeting, Party, Pointer};
