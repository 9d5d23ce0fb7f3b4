//! Drives the built binary from outside: real sockets, real processes, a real database. The executable is also the
//! client program of its own tests (see `support::actor`).

#![expect(
    unreachable_pub,
    reason = "a test program has no outside: `pub` marks what a file offers the others"
)]
#[allow(dead_code, reason = "each test program uses a part of it")]
#[path = "../support/mod.rs"]
mod support;

mod agents;
mod alerts;
mod bad_input;
mod config_check;
mod diff;
mod exclude;
mod export;
mod filter;
mod harness;
mod hostile_database;
mod hostile_files;
mod hostile_text;
mod install;
mod layers;
mod log_files;
mod names;
mod observe;
mod open_bytes;
mod odd_sockets;
mod orphans;
mod output;
mod presets;
mod readers;
mod report;
mod retain;
mod reverse_names;
mod run;
#[cfg(feature = "serve")]
mod serve;
#[cfg(feature = "serve")]
mod serve_page;
#[cfg(feature = "serve")]
mod serve_stream;
mod short_connections;
mod shutdown;
mod stats;
mod status;
mod sudo;
mod tampering;
mod tool_calls;
mod trouble;
mod unknown_owners;
mod update;

use std::process::ExitCode;

fn main() -> ExitCode {
    let played = support::program::copy_if_asked().or_else(support::caller::play_if_asked);
    if let Some(ended) = played.or_else(support::actor::play_if_asked) {
        return ended;
    }
    let arguments = libtest_mimic::Arguments::from_args();
    let trials = [
        harness::all(),
        layers::all(),
        agents::all(),
        alerts::all(),
        names::all(),
        reverse_names::all(),
        observe::all(),
        open_bytes::all(),
        exclude::all(),
        odd_sockets::all(),
        short_connections::all(),
        shutdown::all(),
        bad_input::all(),
        hostile_text::all(),
        orphans::all(),
        output::all(),
        presets::all(),
        config_check::all(),
        stats::all(),
        sudo::all(),
        tampering::all(),
        tool_calls::all(),
        hostile_files::all(),
        log_files::all(),
        report::all(),
        retain::all(),
        run::all(),
        diff::all(),
        status::all(),
        #[cfg(feature = "serve")]
        serve::all(),
        #[cfg(feature = "serve")]
        serve_page::all(),
        #[cfg(feature = "serve")]
        serve_stream::all(),
        export::all(),
        hostile_database::all(),
        filter::all(),
        readers::all(),
        trouble::all(),
        unknown_owners::all(),
        install::all(),
        update::all(),
    ];
    let conclusion = libtest_mimic::run(&arguments, trials.into_iter().flatten().collect());
    support::stage::clear();
    conclusion.exit_code()
}
