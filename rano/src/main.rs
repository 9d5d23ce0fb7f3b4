//! The command line of rano.
fn main() -> std::process::ExitCode {
    rano::run()
}
