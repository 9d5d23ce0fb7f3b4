//! What the commands that read the history have in common: which database, how to write, what a failure means.

use std::path::{Path, PathBuf};

use anyhow::Result;
use clap::{Arg, ArgAction, ArgMatches};
use jiff::tz::TimeZone;

use super::{Context, say};
use crate::config::{Configuration, Field, flags};
use crate::exit::{Code, Failure};
use crate::files::NamedBy;
use crate::filter::Filter;
use crate::output::escape::{Escaped, Line};
use crate::output::report::{Form, Look};
use crate::output::stream;
use crate::output::style::Styles;
use crate::process::ProcessId;
use crate::registry;
use crate::source;
use crate::source::proc::PROC;
use crate::source::proc::processes::ProcessScanner;
use crate::store::{History, OpenError, OpenProblem};
use crate::time_argument;

/// Text that goes to no terminal is not cut.
pub(super) const WIDE: usize = 100_000;

/// Where no history is named.
const DEFAULT_DATABASE: &str = "observer.sqlite";

/// `--sqlite`.
pub(super) fn database_flag() -> impl Iterator<Item = Arg> {
    flags::flags(|option| option.is(Field::sqlite))
        .filter(|arg| arg.get_id() == "sqlite")
        .map(|arg| arg.help("Database to read"))
}

/// `--color`, `--no-color`, `--theme`.
pub(super) fn color_flags() -> impl Iterator<Item = Arg> {
    flags::flags(|option| option.is(Field::color) || option.is(Field::theme))
}

pub(super) fn json_flag() -> Arg {
    Arg::new("as_json").long("json").action(ArgAction::SetTrue).help("Print JSON")
}

/// `--latest` and `--run-id`.
pub(super) fn session_flags() -> [Arg; 2] {
    [
        Arg::new("latest")
            .long("latest")
            .action(ArgAction::SetTrue)
            .conflicts_with("run_id")
            .help("The session that started last; the default without a range"),
        Arg::new("run_id").long("run-id").value_name("RUN").help("The session with this run id or name"),
    ]
}

/// `--read-only` and `--attach` of the views.
pub(super) fn view_flags() -> [Arg; 2] {
    [
        Arg::new("read_only")
            .long("read-only")
            .action(ArgAction::SetTrue)
            .help("Do not observe: show the history that --sqlite names"),
        Arg::new("attach")
            .long("attach")
            .value_name("RUN")
            .help("Do not observe: show the session with this run id, and follow it if it is running"),
    ]
}

/// `--since` and `--until`.
pub(super) fn range_flags() -> [Arg; 2] {
    let time = |name: &'static str, help: &'static str| {
        Arg::new(name).long(name).value_name("TIME").help(help).value_parser(|text: &str| {
            let now = source::now().unix_ms;
            let checked = time_argument::parse_moment(text, now, &TimeZone::UTC);
            checked.map(|_| text.to_owned()).map_err(|error| error.to_string())
        })
    };
    [
        time("since", "From this time on: 30m, 24h, 7d, 03:00, 2026-01-17 or RFC 3339"),
        time("until", "Up to this time, and not including it"),
    ]
}

/// `--local`.
pub(super) fn local_flag() -> impl Iterator<Item = Arg> {
    flags::flags(|option| option.is(Field::local))
}

/// In which times are read and shown.
pub(super) fn zone(configuration: &Configuration) -> TimeZone {
    if configuration.settings.local { TimeZone::system() } else { TimeZone::UTC }
}

/// `--filter`.
pub(super) fn filter_flag() -> Arg {
    Arg::new("filter")
        .long("filter")
        .value_name("EXPR")
        .value_parser(Filter::parse)
        .allow_hyphen_values(true)
        .help("Only what this holds of, as type:llm_api or 'process:curl sent:>1M'")
}

/// `since` and `until` in Unix milliseconds.
pub(super) fn range(
    matches: &ArgMatches,
    configuration: &Configuration,
) -> Result<(Option<i64>, Option<i64>)> {
    let (now, zone) = (source::now().unix_ms, zone(configuration));
    // Both were parsed before, to be refused with their option.
    let time = |name| time_argument::parse_moment(matches.get_one::<String>(name)?, now, &zone).ok();
    let (since, until) = (time("since"), time("until"));
    if let (Some(since), Some(until)) = (since, until)
        && since >= until
    {
        let message = "--since has to be before --until";
        return Err(Failure::new(Code::Usage, message).into());
    }
    Ok((since, until))
}

pub(super) fn database(configuration: &Configuration) -> PathBuf {
    configuration.settings.sqlite.clone().unwrap_or_else(|| DEFAULT_DATABASE.into())
}

/// A database to read, and how it came to be that one.
#[derive(Debug, Clone)]
pub(super) struct Found {
    pub(super) path: PathBuf,
    pub(super) named_by: NamedBy,
    how: How,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum How {
    /// By flag, variable or configuration, or because it lies here, or because nothing better is known.
    Expected,
    Running,
    Last,
}

/// The database to read: what `--sqlite` names, else the one in this directory, else that of the session that is
/// running, else that of the last one. A path from the registry is a path from the user's files: under sudo it is
/// opened with the user's rights alone.
pub(super) fn find(configuration: &Configuration, context: &Context) -> Found {
    let path = database(configuration);
    let named_by = configuration.origin(Field::sqlite).named_by();
    let found = |path, how| Found { path, named_by, how };
    if configuration.is_given(Field::sqlite) || context.environment.files.exists(&path) {
        return found(path, How::Expected);
    }
    if let Some(entry) = running(context).into_iter().next() {
        return found(entry.database, How::Running);
    }
    match registry::last(&context.environment) {
        Some(entry) => found(entry.database, How::Last),
        None => found(path, How::Expected),
    }
}

impl Found {
    /// Says which one it is, where that is no matter of course.
    pub(super) fn announce(&self) {
        let why = match self.how {
            How::Expected => return,
            How::Running => "the session that is running",
            How::Last => "the last session",
        };
        say(&format!("reading {} ({why}; --sqlite names another)\n", Line(&self.path.display().to_string())));
    }
}

/// The databases that sessions are known to be in: the one that is named, else each that [`find`] would look for.
pub(super) fn find_all(configuration: &Configuration, context: &Context) -> Vec<Found> {
    let first = find(configuration, context);
    let mut all = vec![first.clone()];
    if configuration.is_given(Field::sqlite) {
        return all;
    }
    let others = running(context).into_iter().chain(registry::last(&context.environment));
    let others = others.map(|entry| Found { path: entry.database, how: How::Running, ..first.clone() });
    let identity =
        |path: &Path| context.environment.files.canonical(path).unwrap_or_else(|_| path.to_owned());
    for other in others {
        if all.iter().all(|known| identity(&known.path) != identity(&other.path)) {
            all.push(other);
        }
    }
    all
}

/// The database, to be read in this thread: from now on it has only the rights to do so.
pub(super) fn database_to_read(configuration: &Configuration, context: &Context) -> Result<PathBuf> {
    let found = find(configuration, context);
    found.announce();
    take_rights_to_read(&found.path, found.named_by, context)?;
    Ok(found.path)
}

pub(super) fn take_rights_to_read(path: &Path, named_by: NamedBy, context: &Context) -> Result<()> {
    Ok(context.environment.files.take_rights_to_read(path, named_by)?)
}

pub(super) fn cannot_open(error: &OpenError) -> Failure {
    let hint = match error.problem {
        // The usual hints are for a writer.
        OpenProblem::PermissionDenied => "run it as the owner of the file, or name another one with --sqlite",
        OpenProblem::ReadOnlyFilesystem | OpenProblem::ParentMissing | OpenProblem::Other(_) => {
            "name another file with --sqlite"
        }
        _ => error.hint(),
    };
    Failure::new(Code::CannotOpen, error.to_string()).hint(hint)
}

/// With what could have been meant.
pub(super) fn no_session(name: &str, path: &Path) -> Failure {
    let known = History::ask(path, |history| history.latest_names(3)).unwrap_or_default();
    let failure = Failure::new(Code::Findings, format!("no session '{name}' in {}", path.display()));
    if known.is_empty() {
        return failure;
    }
    let known: Vec<_> = known
        .into_iter()
        .map(|(run_id, name)| match name {
            Some(name) => format!("{} ({})", Escaped(&run_id), Escaped(&name)),
            None => Escaped(&run_id).to_string(),
        })
        .collect();
    failure.hint(format!("the latest sessions are {}", known.join(", ")))
}

/// That there is something to show, on a thread whose rights nobody needs later.
pub(super) fn check(
    path: &Path,
    named_by: NamedBy,
    following: Option<&str>,
    context: &Context,
) -> Result<()> {
    std::thread::scope(|scope| {
        let looking = scope.spawn(|| -> Result<()> {
            take_rights_to_read(path, named_by, context)?;
            let found = History::ask(path, |history| match following {
                Some(run) => Ok(history.session(run)?.is_some()),
                None => Ok(true),
            });
            match found {
                Ok(true) => Ok(()),
                Ok(false) => Err(no_session(following.unwrap_or_default(), path).into()),
                Err(error) => Err(cannot_open(&error).into()),
            }
        });
        looking.join().unwrap_or_else(|_| Err(anyhow::anyhow!("a thread failed")))
    })
}

/// Run ids of this user's sessions that are going on.
pub(super) fn running(context: &Context) -> Vec<registry::Entry> {
    let Ok(processes) = ProcessScanner::new(Path::new(PROC)) else { return Vec::new() };
    registry::running(&context.environment, |pid| processes.identify(pid))
}

pub(super) fn running_ids(context: &Context) -> Vec<String> {
    running(context).into_iter().map(|entry| entry.run_id).collect()
}

/// Enters a session as running for as long as the answer is kept.
pub(super) fn register(context: &Context, run_id: &str, database: &Path) -> Option<registry::Registration> {
    let processes = ProcessScanner::new(Path::new(PROC)).ok()?;
    let ProcessId { pid, start_time } = processes.identify(std::process::id())?;
    let database = context.environment.files.canonical(database).ok()?;
    let entry = registry::Entry { run_id: run_id.to_owned(), pid, start_time, database };
    registry::remember(&context.environment, &entry);
    registry::register(&context.environment, &entry, |pid| processes.identify(pid))
}

pub(super) fn look(styles: &Styles, top: usize) -> Look<'_> {
    static UTC: TimeZone = TimeZone::UTC;
    Look { styles, width: stream::stdout_columns().unwrap_or(WIDE), top, zone: &UTC, form: Form::Terminal }
}

/// The colours of standard output.
pub(super) fn stdout_styles(configuration: &Configuration, context: &Context) -> Styles {
    super::styles(configuration, &context.environment, stream::stdout_is_terminal())
}
