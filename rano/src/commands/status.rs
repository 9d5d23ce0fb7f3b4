//! `rano status`: one line for a shell prompt. Silent where there is nothing to tell.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Result;
use clap::{Arg, ArgMatches, Command};

use super::{Context, history, print, refusal};
use crate::config::{self, Configuration, Field};
use crate::exit::{Code, Failure};
use crate::files::NamedBy;
use crate::output::status::{DEFAULT, Template};
use crate::process::agents;
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
        .after_help(help())
}

fn help() -> String {
    let built_in = agents::built_in_providers().into_iter().map(|(name, _)| format!("{{{name}}}"));
    let providers = built_in.collect::<Vec<_>>().join(", ");
    format!(
        "{{active}} is the number of open connections, {{total}} of all so far. {providers}, {{unknown}} and the \
         name of any provider of your own are the open connections of that provider. {{session_name}} and {{source}} \
         are the session's; {{running}} is true while it observes, else false, and then nothing is open.\n\
         Without --sqlite it is your running session, wherever it was started; with none, the latest one in the usual \
         database. Without a database nothing is printed and the exit code is 1.\n\n\
         Example:\n  PS1='$(rano status --format \"{{active}}↑ \")\\$ '"
    )
}

pub fn run(matches: &ArgMatches, context: &Context) -> Result<ExitCode> {
    // Warnings about the configuration do not belong in a prompt.
    let configuration = config::load(matches, &context.environment).map_err(|findings| refusal(&findings))?;
    let template = matches.get_one::<Template>("format").expect("it has a default");
    let running = history::running(context);
    let Target { path, named_by, run_id } = target(&configuration, &running);
    history::take_rights_to_read(&path, named_by, context)?;
    let status = match History::ask(&path, |history| history.status(run_id.as_deref())) {
        Ok(status) => status,
        Err(error) if matches!(error.problem, OpenProblem::Missing | OpenProblem::Empty) => None,
        Err(error) => return Err(history::cannot_open(&error).into()),
    };
    let configured = configuration.provider_names();
    let mut providers: Vec<&str> = configured.iter().map(String::as_str).collect();
    let recorded = status.iter().flat_map(|status| &status.providers).map(|(name, _)| name.as_str());
    providers.extend(recorded.filter(|name| !configured.iter().any(|known| known == name)));
    if let Err(message) = template.check(&providers) {
        return Err(Failure::new(Code::Usage, format!("--format: {message}")).into());
    }
    let Some(status) = status else { return Ok(Code::Findings.into()) };
    let is_running = running.iter().any(|entry| entry.run_id == status.run_id);
    print(&format!("{}\n", template.render(&status, is_running)))?;
    Ok(Code::Fine.into())
}

struct Target {
    path: PathBuf,
    named_by: NamedBy,
    /// Where it is a certain one.
    run_id: Option<String>,
}

fn target(configuration: &Configuration, running: &[Entry]) -> Target {
    let named_by = configuration.origin(Field::sqlite).named_by();
    if named_by == NamedBy::Configuration
        && let Some(entry) = running.first()
    {
        return Target { path: entry.database.clone(), named_by, run_id: Some(entry.run_id.clone()) };
    }
    Target { path: history::database(configuration), named_by, run_id: None }
}
