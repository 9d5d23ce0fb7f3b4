//! The hooks, one family a file.

mod names;
mod process;
mod sockets;
mod tcp;
