//! `rano check`: a session held against a policy.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Result;
use clap::builder::PossibleValuesParser;
use clap::{Arg, ArgMatches, Command, value_parser};

use super::{Context, history, load, policy, print, say};
use crate::config::{Configuration, Field};
use crate::exit::Code;
use crate::filter::Filter;
use crate::output::findings::{self, Format};
use crate::policy::{Judge, Verdict};
use crate::store::History;
use crate::store::query::report::{Selection, Sessions};

pub(super) fn command() -> Command {
    Command::new("check")
        .about("Check a session against a policy")
        .long_about(
            "Check what a session reached against a policy (rano.lock.toml). It prints each finding with the rule that \
             would permit it. The exit code is 1 if a finding of a kind in --fail-on is among them, 2 if the policy is no \
             policy, 3 if something cannot be read. Without options it is the session that started last.",
        )
        .args_override_self(true)
        .arg(
            Arg::new("policy")
                .value_name("FILE")
                .required(true)
                .value_parser(value_parser!(PathBuf))
                .help("The policy, as `rano baseline` writes it"),
        )
        .args(history::session_flags())
        .args(history::range_flags())
        .arg(history::filter_flag())
        .arg(policy::fail_on_flag())
        .arg(
            Arg::new("format")
                .long("format")
                .value_name("FORMAT")
                .default_value("text")
                .value_parser(PossibleValuesParser::new(Format::ALL.map(Format::name)))
                .help("Shape of the findings"),
        )
        .arg(policy::summary_flag())
        .args(history::database_flag())
        .args(history::color_flags())
        .after_help(
            "Kinds of findings: denied, new-domain, incomplete, new-who, new-class, unnamed, bytes, expired, stale.\n\n\
             Examples:\n  rano check rano.lock.toml\n  rano check rano.lock.toml --since 1h --fail-on denied,new-domain\n  \
             rano check rano.lock.toml --format sarif > rano.sarif",
        )
}

pub(super) fn run(matches: &ArgMatches, context: &Context) -> Result<ExitCode> {
    let configuration = load(matches, context)?;
    let (since, until) = history::range(matches, &configuration)?;
    let named = matches.get_one::<String>("run_id");
    let sessions = match named {
        Some(name) => Sessions::Named(name.clone()),
        None if matches.get_flag("latest") || (since, until) == (None, None) => Sessions::Latest,
        None => Sessions::All,
    };
    let selection =
        Selection { sessions, since, until, filter: matches.get_one::<Filter>("filter").cloned() };
    let files = &context.environment.files;
    let policy = policy::load(matches.get_one::<PathBuf>("policy").expect("it is required"), files)?;
    let classes = policy::classes(&configuration);
    let judge = Judge { policy: &policy, classes: &classes, now: jiff::Timestamp::now().as_millisecond() };
    let (verdict, database) = ask(&judge, &selection, matches, &configuration, context)?;
    let word = matches.get_one::<String>("format").map_or("text", String::as_str);
    let format = Format::parse(word).unwrap_or(Format::Text);
    let styles = history::stdout_styles(&configuration, context);
    print(&findings::render(format, &verdict, &database, &history::look(&styles, 0)))?;
    if format != Format::Text && verdict.fails() {
        say(&findings::ending(&verdict));
    }
    if let Some(summary) = matches.get_one::<PathBuf>("summary") {
        policy::append(summary, &findings::markdown(&verdict), files)?;
    }
    Ok(if verdict.fails() { Code::Findings } else { Code::Fine }.into())
}

/// What the history says, asked on a thread that can only read; with the hash of the history.
fn ask(
    judge: &Judge<'_>,
    selection: &Selection,
    matches: &ArgMatches,
    configuration: &Configuration,
    context: &Context,
) -> Result<(Verdict, String)> {
    let path = history::database(configuration);
    let named_by = configuration.origin(Field::sqlite).named_by();
    let running = history::running_ids(context);
    let wants_hash = matches.get_one::<String>("format").is_some_and(|word| word == Format::InToto.name());
    let asked = std::thread::scope(|scope| {
        let asking = scope.spawn(|| -> Result<_> {
            history::take_rights_to_read(&path, named_by, context)?;
            let asked = History::ask(&path, |history| {
                let Some(sessions) = history.selected(selection)? else { return Ok(None) };
                let Selection { since, until, filter, .. } = selection;
                let contacts = history.contacts(&sessions, *since, *until, filter.as_ref())?;
                let observed = sessions.iter().map(|session| {
                    let is_running = running.contains(&session.run_id);
                    Ok(session.observed(is_running, history.is_of_command(session)?))
                });
                Ok(Some((observed.collect::<rusqlite::Result<Vec<_>>>()?, contacts)))
            });
            let found = asked.map_err(|error| history::cannot_open(&error))?;
            let hash = if wants_hash { History::hash(&path) } else { Ok(String::new()) };
            Ok((found, hash.map_err(|error| history::cannot_open(&error))?))
        });
        asking.join().unwrap_or_else(|_| Err(anyhow::anyhow!("a thread failed")))
    })?;
    let (Some((observed, contacts)), hash) = asked else {
        let name = match &selection.sessions {
            Sessions::Named(name) => name.as_str(),
            Sessions::Latest | Sessions::All => "",
        };
        return Err(policy::no_session(name, &path).into());
    };
    Ok((judge.verdict(contacts, observed, &policy::fail_on(matches)), hash))
}
