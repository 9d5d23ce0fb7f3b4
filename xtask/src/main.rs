//! What a developer or CI runs: `cargo xtask run|test|bench`.
fn main() {}
