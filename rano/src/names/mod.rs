//! From addresses to names: what packets and look-ups tell, before it is joined with sockets and processes.

pub mod accounts;
#[cfg(feature = "cli")]
pub mod asking;
pub mod book;
#[cfg(feature = "cli")]
pub mod capture_file;
pub mod classes;
pub mod dns;
pub mod evidence;
#[cfg(feature = "cli")]
pub mod feed;
mod held;
pub mod known;
pub mod host_name;
mod ledger;
pub mod lookups;
pub mod packet;
#[cfg(feature = "cli")]
pub mod pcap;
pub mod pointers;
pub mod proxy;
pub mod quic;
mod reach;
pub mod reader;
pub mod resolver;
pub mod stream;
pub mod tls;
pub mod unknown;
mod tunnels;
mod wrapping;

pub use evidence::{Answer, Evidence, Greeting, Party, Pointer};
