//! `rano status`: one line for a shell prompt. Silent where there is nothing to tell.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Result;
use clap::{Arg, ArgMatches, Command};

use super::{Context, history, print, refusal};
use crate::config::{self, Configuration, Origin};
use crate::exit::Code;
use crate::output::status::{DEFAULT, Template};
use crate::registry::Entry;
use crate::store::{History, OpenProblem};

pub fn command() -> Command {
    Command::new("status")
        .about("Print one line for a shell prompt")
        .args_override_self(true)
        .arg(
            Arg::new("format")
                .long("format")
                .value_name("TEMPLATE")
                .default_value(DEFAULT)
                .help("The line; names in braces are replaced")
                .value_parser(|text: &str| Template::parse(text)),
        )
        .args(history::database_flag())
        .after_help(
            "{active} is the number of open connections, {total} of all so far; {anthropic}, {openai}, {google} and \
             {unknown} are those of a provider. {session_name} and {source} are the session's.\n\
             Without --sqlite it is your running session, wherever it was started; with none, the latest one in the usual \
             database. Without a database nothing is printed and the exit code is 1.\n\n\
             Example:\n  PS1='$(rano status --format \"{active}↑ \")\\$ '",
        )
}

pub fn run(matches: &ArgMatches, context: &Context) -> Result<ExitCode> {
    // Warnings about the configuration do not belong in a prompt.
    let configuration = config::load(matches, &context.environment).map_err(|findings| refusal(&findings))?;
    let template = matches.get_one::<Template>("format").expect("it has a default");
    let running = history::running(context);
    let (path, run_id) = target(&configuration, &running);
    let status = match History::ask(&path, |history| history.status(run_id.as_deref())) {
        Ok(status) => status,
        Err(error) if matches!(error.problem, OpenProblem::Missing | OpenProblem::Empty) => None,
        Err(error) => return Err(history::cannot_open(&error).into()),
    };
    let Some(status) = status else { return Ok(Code::Findings.into()) };
    let is_running = running.iter().any(|entry| entry.run_id == status.run_id);
    print(&format!("{}\n", template.render(&status, is_running)))?;
    Ok(Code::Fine.into())
}

/// The database, and the session in it where it is a certain one.
fn target(configuration: &Configuration, running: &[Entry]) -> (PathBuf, Option<String>) {
    if configuration.origin("sqlite") != Some(&Origin::Flag)
        && let Some(entry) = running.first()
    {
        return (entry.database.clone(), Some(entry.run_id.clone()));
    }
    (history::database(configuration), None)
}
