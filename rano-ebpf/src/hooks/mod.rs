//! The hooks, one family a file.

mod process;
mod sockets;
mod tcp;
