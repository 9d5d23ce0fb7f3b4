//! The hooks, one family a file.

mod functions;
mod lengths;
mod process;
mod sockets;
mod states;
mod tcp;
