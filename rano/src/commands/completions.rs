//! `rano completions SHELL`: a completion script, made from the command line itself.

use std::process::ExitCode;

use anyhow::Result;
use clap::{Arg, ArgMatches, Command, value_parser};
use clap_complete::Shell;

use crate::exit::Code;

pub fn command() -> Command {
    Command::new("completions")
        .about("Print a completion script for a shell")
        .arg(
            Arg::new("shell")
                .value_name("SHELL")
                .help("Shell to complete in")
                .required(true)
                .value_parser(value_parser!(Shell)),
        )
        .after_help("Example:\n  rano completions bash > ~/.local/share/bash-completion/completions/rano")
}

pub fn run(matches: &ArgMatches) -> Result<ExitCode> {
    let shell = *matches.get_one::<Shell>("shell").expect("it is required");
    super::print_own(&script(shell))?;
    Ok(Code::Fine.into())
}

fn script(shell: Shell) -> String {
    // Written to memory first: the generator panics where a write fails, and a closed pipe is no error.
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut super::documented(), "rano", &mut script);
    String::from_utf8_lossy(&script).into_owned()
}

#[cfg(test)]
mod tests {
    use clap::ValueEnum as _;

    use super::*;

    #[test]
    fn every_shell_completes_flags_and_leaves_out_hidden_ones() {
        for shell in Shell::value_variants() {
            let script = script(*shell);
            assert!(script.contains("exclude-pattern"), "{shell}");
            assert!(!script.contains("notify-buffer"), "{shell}");
        }
    }
}
