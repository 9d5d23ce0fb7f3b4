//! The commands, the command line they are picked from, and how a run ends.

pub mod agents;
mod baseline;
mod beside;
mod check;
pub mod completions;
pub mod config;
pub mod diff;
pub mod doctor;
pub mod export;
mod history;
#[cfg(feature = "kernel-log")]
mod kernel_log;
pub mod man;
pub mod observe;
mod pids;
mod policy;
mod ready;
pub mod report;
mod run;
mod seal_key;
#[cfg(feature = "serve")]
pub mod serve;
pub mod sessions;
pub mod service;
pub mod status;
#[cfg(feature = "top")]
pub mod top;
pub mod update;
mod usage;
pub mod verify;

use std::ffi::OsString;
use std::fmt::Write as _;
use std::io;
use std::process::ExitCode;

use anyhow::Result;
use clap::{Arg, ArgAction, ArgMatches, Command};

use crate::config::spec::Group;
use crate::config::{
    self as configuration, ColorChoice, Configuration, Environment, Field, Finding, Severity, flags,
};
use crate::exit::{self, Code, Failure};
use crate::output::escape::{Escaped, Line};
use crate::output::stream;
use crate::output::style::Styles;

/// What a command may know of the world around it.
#[derive(Debug, Clone)]
pub struct Context {
    pub environment: Environment,
    /// Of the process, its own name first.
    pub arguments: Vec<OsString>,
}

const ABOUT: &str = "See which process of which AI agent talks to whom";

const LONG_ABOUT: &str = "\
rano shows which process of an AI command-line agent opens which network connection: for which agent, to which name \
and address, for how long, with how many bytes. Without a command it observes until Ctrl-C and then prints a summary. \
It keeps the history in a SQLite database. It never stores content.";

const EXAMPLES: [(&str, &str); 13] = [
    ("rano", "watch every agent that rano knows until Ctrl-C"),
    ("rano --pattern aider --no-sqlite", "watch another agent, keep nothing"),
    ("rano --pid 4711 --json", "watch one process and its children, print JSON lines"),
    ("rano --once", "show what is open now"),
    ("rano agents", "list the agents that rano knows"),
    ("rano report --since 24h", "report on the last day"),
    ("rano baseline > rano.lock.toml", "write a policy that allows what the latest session reached"),
    ("rano sessions", "list the sessions of the history"),
    ("rano top", "show it live on the whole terminal"),
    ("rano serve", "show it live on a page in your browser"),
    ("rano export --format csv", "write the history for other programs"),
    ("rano config show", "show every setting and its origin"),
    ("rano completions bash", "print a completion script for the shell"),
];

/// The whole command line. Help, man page and completions are made from it too.
pub fn command() -> Command {
    command_with(true)
}

/// As it is documented: without what is hidden.
fn documented() -> Command {
    command_with(false)
}

fn command_with(hidden: bool) -> Command {
    let rano = Command::new("rano")
        .version(env!("CARGO_PKG_VERSION"))
        .about(ABOUT)
        .long_about(LONG_ABOUT)
        .args(flags::flags(move |option| hidden || !option.is_hidden()))
        .arg(
            Arg::new("list_presets")
                .long("list-presets")
                .action(ArgAction::SetTrue)
                .help("List all presets")
                .help_heading(Group::Configuration.title()),
        )
        .args_override_self(true)
        .args_conflicts_with_subcommands(true)
        .subcommand(run::command(hidden))
        .subcommand(report::command())
        .subcommand(sessions::command())
        .subcommand(diff::command())
        .subcommand(baseline::command())
        .subcommand(check::command())
        .subcommand(status::command())
        .subcommand(export::command())
        .subcommand(verify::command())
        .subcommand(service::command())
        .subcommand(config::command(hidden))
        .subcommand(doctor::command())
        .subcommand(agents::command())
        .subcommand(update::command())
        .subcommand(completions::command())
        .subcommand(man::command())
        .max_term_width(110)
        .after_help(after_help());
    #[cfg(feature = "serve")]
    let rano = rano.subcommand(serve::command(hidden));
    #[cfg(feature = "top")]
    let rano = rano.subcommand(top::command(hidden));
    rano
}

fn after_help() -> String {
    format!(
        "Examples:\n{}\n\
         A flag that takes [=<BOOL>] can be turned off too: --json=false\n\
         Every option can stand in the config file and in a variable: interval_ms=500, RANO_INTERVAL_MS=500",
        examples()
    )
}

fn examples() -> String {
    let width = EXAMPLES.iter().map(|(command, _)| command.len()).max().unwrap_or(0);
    EXAMPLES
        .iter()
        .fold(String::new(), |text, (command, meaning)| format!("{text}  {command:width$}  {meaning}\n"))
}

/// Run the process's command line to its exit code.
pub fn run() -> ExitCode {
    say_panics();
    let environment = match Environment::read() {
        Ok(environment) => environment,
        Err(error) => return failed(&not_the_user(error)),
    };
    let context = Context { environment, arguments: std::env::args_os().collect() };
    let matches = match command().try_get_matches_from(&context.arguments) {
        Ok(matches) => matches,
        Err(error) => return usage::refused(error, &context),
    };
    match dispatch(&matches, &context) {
        Ok(code) => code,
        Err(error) => failed(&error),
    }
}

fn dispatch(matches: &ArgMatches, context: &Context) -> Result<ExitCode> {
    match matches.subcommand() {
        Some(("run", matches)) => run::run(matches, context),
        Some(("report", matches)) => report::run(matches, context),
        Some(("sessions", matches)) => sessions::run(matches, context),
        Some(("diff", matches)) => diff::run(matches, context),
        #[cfg(feature = "serve")]
        Some(("serve", matches)) => serve::run(matches, context),
        Some(("baseline", matches)) => baseline::run(matches, context),
        Some(("check", matches)) => check::run(matches, context),
        #[cfg(feature = "top")]
        Some(("top", matches)) => top::run(matches, context),
        Some(("status", matches)) => status::run(matches, context),
        Some(("export", matches)) => export::run(matches, context),
        Some(("verify", matches)) => verify::run(matches, context),
        Some(("service", matches)) => service::run(matches, context),
        Some(("config", matches)) => config::run(matches, context),
        Some(("doctor", matches)) => doctor::run(matches, context),
        Some(("agents", matches)) => agents::run(matches, context),
        Some(("update", matches)) => update::run(matches, context),
        Some(("completions", matches)) => completions::run(matches, context),
        Some(("man", _)) => man::run(),
        Some((other, _)) => unreachable!("clap knows no command {other}"),
        None if matches.get_flag("list_presets") => config::list_presets(context),
        None => observe::run(&load(matches, context)?, context),
    }
}

/// With more than his rights, nothing of his may be opened.
fn not_the_user(error: io::Error) -> anyhow::Error {
    Failure::new(Code::NoPrivileges, "cannot take the rights of the user who invoked sudo")
        .because(error)
        .hint("run it without sudo, or as root with SUDO_UID unset: env -u SUDO_UID rano")
        .into()
}

/// What a fault in rano says may hold names from outside, and the standard library writes it as it is.
fn say_panics() {
    std::panic::set_hook(Box::new(|panic| {
        let thread = std::thread::current();
        let mut text = format!("thread '{}' {panic}\n", Line(thread.name().unwrap_or("unnamed")));
        let backtrace = std::backtrace::Backtrace::capture();
        if backtrace.status() == std::backtrace::BacktraceStatus::Captured {
            let _ = writeln!(text, "{backtrace}");
        }
        say(&text);
    }));
}

fn failed(error: &anyhow::Error) -> ExitCode {
    if exit::is_broken_pipe(error) {
        return Code::Fine.into();
    }
    let failure = exit::failure(error);
    let mut text = format!("error: {}\n", Escaped(&format!("{error:#}")));
    for line in failure.map(|failure| failure.details.as_slice()).unwrap_or_default() {
        let _ = writeln!(text, "{}", Line(line));
    }
    let hint = failure.and_then(|failure| failure.hint.as_deref()).or_else(|| exit::hint(error));
    if let Some(hint) = hint {
        let _ = writeln!(text, "hint: {}", Line(hint));
    }
    say(&text);
    failure.map_or(Code::Findings, |failure| failure.code).into()
}

/// The configuration that `matches` and the world around give. Warnings are said, errors are the failure.
fn load(matches: &ArgMatches, context: &Context) -> Result<Configuration> {
    let configuration =
        configuration::load(matches, &context.environment).map_err(|findings| refusal(&findings))?;
    if !configuration.warnings.is_empty() {
        let count = configuration.warnings.len();
        say(&format!("{count} warning(s) found:\n{}", list(&configuration.warnings)));
    }
    Ok(configuration)
}

/// What to paint with on an output.
fn styles(configuration: &Configuration, environment: &Environment, is_terminal: bool) -> Styles {
    let asked = configuration.is_given(Field::color);
    let capable = is_terminal && !environment.is_dumb_terminal();
    let colored = match configuration.settings.color {
        ColorChoice::Always => true,
        ColorChoice::Never => false,
        ColorChoice::Auto => capable && (asked || !environment.no_color()),
    };
    if colored { Styles::new(configuration.settings.theme) } else { Styles::PLAIN }
}

fn refusal(findings: &[Finding]) -> Failure {
    if let Some(finding) = findings.iter().find(|finding| finding.severity == Severity::Usage) {
        return Failure::new(Code::Usage, &finding.message).hint("`rano --list-presets` says what they do");
    }
    let errors = findings.iter().filter(|finding| finding.is_error());
    let content_is_wrong = findings.iter().any(|finding| finding.severity == Severity::Error);
    let code = if content_is_wrong { Code::Usage } else { Code::CannotOpen };
    let in_files = errors.clone().any(Finding::is_in_file);
    let mut failure = Failure::new(code, format!("{} error(s) found:", errors.count()));
    if in_files {
        failure = failure.hint("`rano config paths` lists every file that is looked for");
    }
    failure.details = list(findings).lines().map(str::to_owned).collect();
    failure
}

fn list(findings: &[Finding]) -> String {
    findings.iter().fold(String::new(), |text, finding| format!("{text}  {finding}\n"))
}

/// What was asked for, to stdout.
fn print(text: &str) -> Result<()> {
    stream::print(text).map_err(not_printed)
}

/// Scripts and pages that were made from rano's own texts.
fn print_own(text: &str) -> Result<()> {
    stream::print_own(text).map_err(not_printed)
}

/// A reader that went away is told apart where the run ends.
fn not_printed(error: io::Error) -> anyhow::Error {
    Failure::new(Code::CannotOpen, "write standard output").because(error).into()
}

/// Talk, to stderr. Where that is closed there is nobody to tell.
fn say(text: &str) {
    stream::say(text);
}
