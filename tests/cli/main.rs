//! Drives the built binary from outside: real sockets, real processes, a real database. The executable is also the
//! client program of its own tests (see `support::actor`).

#![expect(
    unreachable_pub,
    reason = "a test program has no outside: `pub` marks what a file offers the others"
)]
#[allow(dead_code, reason = "each test program uses a part of it")]
#[path = "../support/mod.rs"]
mod support;

mod action;
mod agents;
mod alert_kinds;
mod alerts;
mod bad_input;
mod baseline;
mod check;
mod completions;
mod config_check;
mod diff;
mod exclude;
mod export;
mod filter;
mod gate;
mod harness;
mod hostile_database;
mod hostile_files;
mod hostile_text;
mod install;
mod layers;
mod log_files;
mod live;
mod names;
mod night;
mod observe;
mod open_bytes;
mod odd_sockets;
mod once;
mod orphans;
mod output;
mod presets;
mod quick_looks;
mod readers;
mod recorded_alerts;
mod report;
mod retain;
mod reverse_names;
mod run;
mod schemas;
#[cfg(feature = "serve")]
mod serve;
#[cfg(feature = "serve")]
mod serve_page;
#[cfg(feature = "serve")]
mod serve_stream;
mod service;
mod sessions;
mod short_connections;
mod shutdown;
mod stats;
mod status;
mod sudo;
mod tampering;
mod tool_calls;
#[cfg(feature = "top")]
mod top;
#[cfg(feature = "top")]
mod top_terminal;
mod trouble;
mod unknown_owners;
mod update;
mod upgrades;

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
        alert_kinds::all(),
        alerts::all(),
        live::all(),
        once::all(),
        names::all(),
        night::all(),
        reverse_names::all(),
        observe::all(),
        open_bytes::all(),
        exclude::all(),
        odd_sockets::all(),
        service::all(),
        sessions::all(),
        short_connections::all(),
        shutdown::all(),
        bad_input::all(),
        hostile_text::all(),
        orphans::all(),
        output::all(),
        presets::all(),
        quick_looks::all(),
        completions::all(),
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
        gate::all(),
        action::all(),
        schemas::all(),
        diff::all(),
        check::all(),
        baseline::all(),
        status::all(),
        #[cfg(feature = "serve")]
        serve::all(),
        #[cfg(feature = "serve")]
        serve_page::all(),
        #[cfg(feature = "serve")]
        serve_stream::all(),
        #[cfg(feature = "top")]
        top::all(),
        #[cfg(feature = "top")]
        top_terminal::all(),
        export::all(),
        hostile_database::all(),
        filter::all(),
        readers::all(),
        recorded_alerts::all(),
        trouble::all(),
        unknown_owners::all(),
        install::all(),
        update::all(),
        upgrades::all(),
    ];
    let conclusion = libtest_mimic::run(&arguments, trials.into_iter().flatten().collect());
    support::stage::clear();
    conclusion.exit_code()
}
