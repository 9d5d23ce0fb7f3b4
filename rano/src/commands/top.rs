//! `rano top`: a full screen in the terminal that shows what is observed, or what was.

use std::any::Any;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::{Arc, Mutex};

use anyhow::{Context as _, Result};
use clap::parser::ValueSource;
use clap::{Arg, ArgMatches, Command};

use super::beside::{Begun, Talk};
use super::report::{self, Question};
use super::{Context, history, load, observe};
use crate::config::spec::Group;
use crate::config::{Configuration, Field, FormatChoice, flags};
use crate::exit::{Code, Failure};
use crate::files::{Existing, NamedBy, Reading};
use crate::filter::Filter;
use crate::output::stream;
use crate::signals;
use crate::stop::{ReopenLogs, Stop};
use crate::store::query::report::{Selection, Sessions};
use crate::top::{Database, Settings, Showing};

/// How long an event waits to be written where a view shows it, in milliseconds.
const FLUSH_MS: u64 = 50;

/// Lines of a ranking of a report.
const TOP: u32 = 20;

/// Options that mean nothing on a screen, by field.
const WITHOUT: [Field; 5] =
    [Field::once, Field::with_summary, Field::format, Field::local, Field::summary_only];

/// Options of the screen itself: with them alone, a session that is running is shown.
const OF_THE_SCREEN: [&str; 6] = ["color", "no_color", "theme", "filter", "config", "no_config"];

pub fn command(hidden: bool) -> Command {
    let observing = move |option: &crate::config::spec::OptionSpec| {
        let has_meaning = option.group != Group::Stats && !WITHOUT.iter().any(|field| option.is(*field));
        has_meaning && (hidden || !option.is_hidden() || option.is(Field::replay))
    };
    let named = |arg: Arg| match arg.get_id().as_str() {
        "replay" => arg
            .hide(false)
            .hide_short_help(false)
            .help("Do not observe: show a history again, or play a recording")
            .long_help(
                "Do not observe: show the sessions of a history (a SQLite file), or play a recording.",
            ),
        "filter" => arg.help("Begin with this filter, as '/' sets it"),
        _ => arg,
    };
    Command::new("top")
        .about("Show what is observed on the whole terminal")
        .long_about(
            "Show what is observed on the whole terminal: agents with their tool calls and processes, the endpoints that \
             they talk to, every connection, and what deserves a look. Without options it shows the session that you \
             are running already, if there is one; else it observes as rano does, with the same options, until 'q'. \
             '?' lists the keys.",
        )
        .args_override_self(true)
        .args(history::view_flags())
        .args(flags::flags(observing).map(named))
        .after_help(
            "Examples:\n  rano top\n  rano top --pattern aider\n  rano top --read-only --sqlite night.sqlite\n  \
             rano top --attach 4711-1768678200123\n  sudo rano top --filter type:unknown",
        )
}

pub fn run(matches: &ArgMatches, context: &Context) -> Result<ExitCode> {
    let mut configuration = load(matches, context)?;
    if !stream::stdout_is_terminal() || context.environment.is_dumb_terminal() {
        return Err(Failure::new(Code::Usage, "rano top needs a terminal on standard output")
            .hint("`rano` prints lines instead, and `rano serve` shows a page in a browser")
            .into());
    }
    let named_by = configuration.origin(Field::sqlite).named_by();
    if let Some(run) = matches.get_one::<String>("attach") {
        let running = history::running(context).into_iter().find(|entry| entry.run_id == *run);
        let path = match running {
            Some(entry) if named_by == NamedBy::Configuration => entry.database,
            _ => history::database(&configuration),
        };
        return alone(path, named_by, Some(run.clone()), &configuration, context);
    }
    if matches.get_flag("read_only") {
        return alone(history::database(&configuration), named_by, None, &configuration, context);
    }
    if let Some(path) = configuration.settings.replay.clone() {
        let named_by = configuration.origin(Field::replay).named_by();
        if is_history(&path, named_by, context) {
            return alone(path, named_by, None, &configuration, context);
        }
    } else if asks_for_nothing_else(matches)
        && let Some(entry) = history::running(context).into_iter().next()
    {
        return alone(entry.database, named_by, Some(entry.run_id), &configuration, context);
    }
    // A screen is no place for these, wherever they were set.
    configuration.settings.once = false;
    configuration.settings.format = FormatChoice::Auto;
    configuration.settings.stats_interval_ms = 0;
    if !configuration.is_given(Field::db_flush_ms) {
        configuration.settings.db_flush_ms = FLUSH_MS;
    }
    let stop = Stop::new()?;
    let shown = (configuration.clone(), stop.clone());
    let beside = move |begun: Begun| -> Result<Box<dyn Any>> {
        let Begun { run_id, database, rights } = begun;
        let Some(database) = database else {
            return Err(Failure::new(Code::Usage, "without a history there is nothing to show")
                .hint("leave out --no-sqlite, or name another file with --sqlite")
                .into());
        };
        let (configuration, stop) = shown;
        // Not by opening the file: that would end SQLite's locks on it, see `store/held.rs`.
        let take = Box::new(move || rights.take());
        let showing = Showing::start(settings(database, Some(run_id), take, &configuration, context, stop));
        Ok(Box::new(showing.context("take the terminal")?))
    };
    observe::observe(&configuration, context, &stop, Talk::AfterScreen, Box::new(beside))
}

/// Nothing was said on the command line of what is to be observed.
fn asks_for_nothing_else(matches: &ArgMatches) -> bool {
    let given =
        matches.ids().filter(|id| matches.value_source(id.as_str()) == Some(ValueSource::CommandLine));
    given.map(clap::Id::as_str).all(|id| OF_THE_SCREEN.contains(&id))
}

/// Whether a file begins as SQLite's do (sqlite.org/fileformat.html, 1.3.1). A pipe is not looked into.
fn is_history(path: &Path, named_by: NamedBy, context: &Context) -> bool {
    let files = &context.environment.files;
    if !files.look_through(path).is_ok_and(|metadata| metadata.is_file()) {
        return false;
    }
    let mut begin = [0; 16];
    files
        .open(path, named_by, Reading::Data)
        .is_ok_and(|mut file| file.read_exact(&mut begin).is_ok() && begin == *b"SQLite format 3\0")
}

/// Shows without observing.
fn alone(
    path: PathBuf,
    named_by: NamedBy,
    following: Option<String>,
    configuration: &Configuration,
    context: &Context,
) -> Result<ExitCode> {
    let stop = Stop::new()?;
    signals::raise_on_signals(&stop, &ReopenLogs::new()?, None)?;
    history::check(&path, named_by, following.as_deref(), context)?;
    let (readers, named) = (context.clone(), path.clone());
    let take = Box::new(move || readers.environment.files.take_rights_to_read(&named, named_by));
    let database = Arc::new(Mutex::new(path));
    let showing = Showing::start(settings(database, following, take, configuration, context, stop));
    showing.context("take the terminal")?.wait().context("show it on the terminal")?;
    Ok(Code::Fine.into())
}

fn settings(
    database: Database,
    following: Option<String>,
    take_rights: Box<dyn FnOnce() -> io::Result<()> + Send>,
    configuration: &Configuration,
    context: &Context,
    stop: Stop,
) -> Settings {
    let [lookers, makers, writers] = [context, context, context].map(Clone::clone);
    Settings {
        database,
        following,
        running: Box::new(move || history::running_ids(&lookers)),
        take_rights,
        create: Box::new(move |path| {
            let created = makers.environment.files.create(path, NamedBy::CommandLine, Existing::Truncate);
            Ok(created.with_context(|| format!("write {}", path.display()))?.0)
        }),
        write_report: Box::new(move |database, file, run_id, filter| {
            write_report(database, file, run_id, filter, &writers)
        }),
        filter: configuration.settings.filter.clone(),
        styles: history::stdout_styles(configuration, context),
        stop,
    }
}

/// The session as one file, with what the filter lets through.
fn write_report(
    database: &Path,
    file: &Path,
    run_id: &str,
    filter: Option<&Filter>,
    context: &Context,
) -> Result<String> {
    let selection = Selection {
        sessions: Sessions::Named(run_id.to_owned()),
        since: None,
        until: None,
        filter: filter.cloned(),
    };
    let running = history::running_ids(context);
    let data = report::data(&Question { selection: &selection, top: TOP, running: &running }, database)?;
    report::write_page(&data, file, context)
}
