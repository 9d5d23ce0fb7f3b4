//! From addresses to names: what packets and look-ups tell, before it is joined with sockets and processes.

pub mod bounded;
pub mod capture_file;
pub mod dns;
pub mod evidence;
pub mod feed;
pub mod host_name;
pub mod packet;
pub mod pcap;
pub mod quic;
pub mod reader;
pub mod stream;
pub mod tls;

pub use evidence::{Answer, Evidence, Greeting, Party, Pointer};
