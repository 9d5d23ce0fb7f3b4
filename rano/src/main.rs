//! The command line of rano.
fn main() {}
