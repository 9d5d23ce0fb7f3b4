//! The hooks, one family a file.

mod functions;
mod lengths;
mod names;
mod process;
mod sockets;
mod states;
mod tcp;
