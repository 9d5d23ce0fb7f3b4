//! `rano baseline`: a policy from what was observed.

use std::io::{Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Result;
use clap::{Arg, ArgAction, ArgMatches, Command, value_parser};

use super::{Context, history, load, policy, print, say};
use crate::config::{Configuration, Field};
use crate::exit::{Code, Failure};
use crate::files::{Existing, NamedBy, Reading};
use crate::output::baseline::{comment, said};
use crate::policy::{Baseline, Contact, Defaults, Judge, Limits, Policy, Require, Written};
use crate::store::History;
use crate::store::query::report::{Selection, Sessions};
use crate::store::query::sessions::StoredSession;

pub(super) fn command() -> Command {
    Command::new("baseline")
        .about("Write a policy from what was observed")
        .long_about(
            "Write a policy (rano.lock.toml) that allows what the given sessions reached: one rule for each endpoint, \
             sorted. It goes to standard output; --update adds what is missing to a file and keeps its comments, order and \
             reasons. No rule is ever wider than what was seen.",
        )
        .args_override_self(true)
        .arg(
            Arg::new("last")
                .long("last")
                .value_name("N")
                .value_parser(value_parser!(u32).range(1..=10_000))
                .conflicts_with_all(["run_id", "since"])
                .help("The N sessions that started last [default: 1]"),
        )
        .arg(
            Arg::new("run_id")
                .long("run-id")
                .value_name("RUN")
                .action(ArgAction::Append)
                .conflicts_with("since")
                .help("A session by its run id or name; can be repeated"),
        )
        .args(history::range_flags())
        .arg(
            Arg::new("update")
                .long("update")
                .value_name("FILE")
                .value_parser(value_parser!(PathBuf))
                .help("Add the missing rules to this policy; it is made if it does not exist"),
        )
        .args(history::database_flag())
        .after_help(
            "Examples:\n  rano baseline > rano.lock.toml\n  rano baseline --last 10 --update rano.lock.toml",
        )
}

pub(super) fn run(matches: &ArgMatches, context: &Context) -> Result<ExitCode> {
    let configuration = load(matches, context)?;
    let update = matches.get_one::<PathBuf>("update");
    let files = &context.environment.files;
    let existing = match update.filter(|path| files.exists(path)) {
        Some(path) => Some((policy::load(path, files)?, text_of(path, context)?)),
        None => None,
    };
    let (sessions, contacts) = ask(matches, &configuration, context)?;
    let empty = empty();
    let classes = policy::classes(&configuration);
    let judge = Judge {
        policy: existing.as_ref().map_or(&empty, |(policy, _)| policy),
        classes: &classes,
        now: jiff::Timestamp::now().as_millisecond(),
    };
    let baseline = Baseline { judge: &judge, contacts: &contacts, runs: sessions.len() };
    let written = match &existing {
        Some((_, text)) => baseline.update(text)?,
        None => baseline.fresh(comment),
    };
    match update {
        None => print(&written.text)?,
        Some(path) => rewrite(path, &written, existing.as_ref().map(|(_, text)| text.as_str()), context)?,
    }
    say(&said(&written));
    Ok(Code::Fine.into())
}

fn empty() -> Policy {
    Policy {
        path: PathBuf::new(),
        require: Require::default(),
        defaults: Defaults::default(),
        limits: Limits::default(),
        allow: Vec::new(),
        deny: Vec::new(),
        files: Vec::new(),
    }
}

/// What was reached in the sessions that were asked for.
fn ask(
    matches: &ArgMatches,
    configuration: &Configuration,
    context: &Context,
) -> Result<(Vec<StoredSession>, Vec<Contact>)> {
    let (since, until) = history::range(matches, configuration)?;
    let last = matches.get_one::<u32>("last").copied().unwrap_or(1);
    let named: Vec<&String> = matches.get_many::<String>("run_id").into_iter().flatten().collect();
    let path = history::database(configuration);
    let named_by = configuration.origin(Field::sqlite).named_by();
    let query = |history: &History| {
        let mut sessions = Vec::new();
        if !named.is_empty() {
            for name in &named {
                match history.session(name)? {
                    Some(session) => sessions.push(session),
                    None => return Ok(Err((*name).clone())),
                }
            }
        } else if (since, until) == (None, None) {
            sessions = history.sessions(last)?;
        } else {
            let selection = Selection { sessions: Sessions::All, since, until, filter: None };
            sessions = history.selected(&selection)?.unwrap_or_default();
        }
        let contacts = history.contacts(&sessions, since, until, None)?;
        Ok(Ok((sessions, contacts)))
    };
    // On a thread that can only read; the policy is written with the rights of whoever named it.
    let asked = std::thread::scope(|scope| {
        let asking = scope.spawn(|| -> Result<_> {
            history::take_rights_to_read(&path, named_by, context)?;
            Ok(History::ask(&path, query).map_err(|error| history::cannot_open(&error))?)
        });
        asking.join().unwrap_or_else(|_| Err(anyhow::anyhow!("a thread failed")))
    })?;
    let (sessions, contacts) = asked.map_err(|name| policy::no_session(&name, &path))?;
    if sessions.is_empty() {
        let failure = Failure::new(Code::CannotOpen, format!("no session in {}", path.display()));
        return Err(failure.hint("observe one first: rano run -- CMD").into());
    }
    Ok((sessions, contacts))
}

/// Its text as it is, which the policy was read from.
fn text_of(path: &Path, context: &Context) -> Result<String> {
    let reading = Reading::Instructions { pipe: false };
    let mut file = context.environment.files.open(path, NamedBy::CommandLine, reading)?;
    let mut text = String::new();
    file.read_to_string(&mut text)?;
    Ok(text)
}

/// Nothing is written where nothing changed.
fn rewrite(path: &Path, written: &Written, before: Option<&str>, context: &Context) -> Result<(), Failure> {
    if before == Some(&written.text) {
        return Ok(());
    }
    let failed = |error: anyhow::Error| {
        Failure::new(Code::CannotOpen, format!("write policy {}", path.display()))
            .because(error)
            .hint("name a file in a directory that you can write to")
    };
    let created = context.environment.files.create(path, NamedBy::CommandLine, Existing::Truncate);
    let (mut file, _) = created.map_err(|problem| failed(problem.into()))?;
    file.write_all(written.text.as_bytes()).map_err(|error| failed(error.into()))
}
