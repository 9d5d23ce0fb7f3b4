//! From addresses to names: what packets and look-ups tell, before it is joined with sockets and processes.

pub mod evidence;

pub use evidence::{Answer, Evidence, Greeting, Party, Pointer};
