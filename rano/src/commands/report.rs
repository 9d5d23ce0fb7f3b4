//! `rano report`: what a session did, or all of them in a range of time.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Result;
use clap::builder::PossibleValuesParser;
use clap::parser::ValueSource;
use clap::{Arg, ArgAction, ArgMatches, Command, value_parser};

use super::{Context, history, load, print, say};
use crate::config::Configuration;
use crate::exit::{Code, Failure};
use crate::files::{Existing, NamedBy};
use crate::filter::Filter;
use crate::output::escape::Line;
use crate::output::human::Size;
use crate::output::report::{Form, Look};
use crate::output::style::Styles;
use crate::output::{self, calls, groups, report, report_json, view};
use crate::store::History;
use crate::store::query::calls::CallRow;
use crate::store::query::details::Details;
use crate::store::query::export;
use crate::store::query::groups::{Group, GroupRow, Sort};
use crate::store::query::report::{Selection, Sessions, Top};

pub fn command() -> Command {
    Command::new("report")
        .about("Report on a session or a range of time")
        .long_about(
            "Report on a session or a range of time: what deserves a look, who sent what where, totals, and what may have been \
             missed. Without options it is the session that started last. It reads the database and changes nothing; a \
             session that is running can be reported on.",
        )
        .args_override_self(true)
        .args(history::session_flags())
        .args(history::range_flags())
        .arg(history::filter_flag())
        .arg(
            Arg::new("top")
                .long("top")
                .value_name("N")
                .default_value("10")
                .value_parser(value_parser!(u32).range(0..=100_000))
                .help("Length of each list"),
        )
        .arg(
            Arg::new("by")
                .long("by")
                .value_name("WHAT")
                .value_parser(PossibleValuesParser::new(By::ALL.map(By::name)))
                .help("One table instead, with a row for each of these"),
        )
        .arg(
            Arg::new("sort")
                .long("sort")
                .value_name("ORDER")
                .value_parser(PossibleValuesParser::new(Sort::ALL.map(Sort::name)))
                .help("Order of the lists; with --by it is sent, and of hours first, unless you say so"),
        )
        .arg(
            Arg::new("markdown")
                .long("markdown")
                .action(ArgAction::SetTrue)
                .conflicts_with_all(["as_json", "html"])
                .help("Write the report as Markdown, for an issue or a chat"),
        )
        .args(history::local_flag())
        .arg(history::json_flag())
        .arg(
            Arg::new("html")
                .long("html")
                .value_name("FILE")
                .value_parser(value_parser!(PathBuf))
                .conflicts_with("as_json")
                .help("Write the report as one HTML file, for a browser"),
        )
        .args(history::database_flag())
        .args(history::color_flags())
        .after_help(
            "Counts are connections; bytes are those of connections that ended. In a range, connections that were open \
             before it count by their close only.\n\n\
             Examples:\n  rano report\n  rano report --since 03:00 --local\n  rano report --since 2026-01-17 --until 2026-01-18 --json\n  \
             rano report --since 1h --filter agent:claude --by domain\n  \
             rano report --since 1h --filter agent:claude --by tool\n  \
             rano report --filter 'type:unknown sent:>1M'\n  rano report --html night.html",
        )
}

pub fn run(matches: &ArgMatches, context: &Context) -> Result<ExitCode> {
    let configuration = load(matches, context)?;
    let (since, until) = history::range(matches, &configuration)?;
    let named = matches.get_one::<String>("run_id");
    let sessions = match named {
        Some(name) => Sessions::Named(name.clone()),
        None if matches.get_flag("latest") || (since, until) == (None, None) => Sessions::Latest,
        None => Sessions::All,
    };
    let selection = Selection { sessions, since, until, filter: matches.get_one("filter").cloned() };
    let top = *matches.get_one::<u32>("top").expect("it has a default");
    let running = history::running_ids(context);
    if let Some(file) = matches.get_one::<PathBuf>("html") {
        let question = Question { selection: &selection, top, running: &running };
        return page(&question, file, &configuration, context);
    }
    let path = history::database_to_read(&configuration, context)?;
    let by = matches.get_one::<String>("by").and_then(|word| By::parse(word));
    let sort = matches.get_one::<String>("sort").and_then(|word| Sort::parse(word));
    let is_given = matches.value_source("top") != Some(ValueSource::DefaultValue);
    let findings = FINDINGS.max(usize::try_from(top)?);
    let asked = History::ask(&path, |history| {
        let Some(report) = history.report_by(&selection, top, sort)? else { return Ok(None) };
        let answer = match by {
            None => Answer::Report(history.details(&report, (top, sort.unwrap_or_default()), findings)?),
            Some(By::Calls(by)) => {
                let order = (top, sort.unwrap_or_default());
                Answer::Calls(by, history.calls(&selection, &report.sessions, by, order)?)
            }
            Some(By::Group(group)) => {
                let order = match group {
                    // A week has 168.
                    Group::Hour if !is_given => (HOURS, sort.unwrap_or(Sort::First)),
                    Group::Hour => (top, sort.unwrap_or(Sort::First)),
                    Group::Domain | Group::Endpoint | Group::Process | Group::Class => {
                        (top, sort.unwrap_or_default())
                    }
                };
                Answer::Group(group, history.groups(&report, group, order)?)
            }
        };
        Ok(Some((report, answer)))
    });
    let asked = asked.map_err(|error| history::cannot_open(&error))?;
    let Some((mut found, answer)) = asked else {
        return Err(history::no_session(named.map_or("", String::as_str), &path).into());
    };
    let now = jiff::Timestamp::now().as_millisecond();
    for session in found.sessions.iter_mut().filter(|session| running.contains(&session.run_id)) {
        session.running_at = Some(now);
    }
    let (zone, is_markdown) = (history::zone(&configuration), matches.get_flag("markdown"));
    let styles = if is_markdown { Styles::PLAIN } else { history::stdout_styles(&configuration, context) };
    let look = history::look(&styles, usize::try_from(top)?);
    let form = if is_markdown { Form::Markdown } else { Form::Terminal };
    let look = Look { zone: &zone, form, ..look };
    let text = match (&answer, matches.get_flag("as_json")) {
        (Answer::Report(details), true) => report_json::json(&found, details, &running),
        (Answer::Report(details), false) => report::text(&found, details, &running, &look),
        (Answer::Calls(by, calls), true) => calls::json(&found, &running, *by, calls),
        (Answer::Calls(by, calls), false) => calls::text(&found, &running, *by, calls, &look),
        (Answer::Group(group, rows), true) => groups::json(&found, &running, *group, rows),
        (Answer::Group(group, rows), false) => groups::text(&found, &running, *group, rows, &look),
    };
    print(&text)?;
    Ok(Code::Fine.into())
}

/// Length of the list of hours, unless it is given.
const HOURS: u32 = 1000;

/// Endpoints that deserve a look, in a report, however short its lists are to be.
const FINDINGS: usize = 8;

/// What the rows of the one table stand for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum By {
    Group(Group),
    Calls(calls::By),
}

impl By {
    const ALL: [Self; 7] = [
        Self::Group(Group::Domain),
        Self::Group(Group::Endpoint),
        Self::Group(Group::Process),
        Self::Calls(calls::By::Tool),
        Self::Calls(calls::By::Agent),
        Self::Group(Group::Class),
        Self::Group(Group::Hour),
    ];

    const fn name(self) -> &'static str {
        match self {
            Self::Group(group) => groups::word(group),
            Self::Calls(calls::By::Tool) => "tool",
            Self::Calls(calls::By::Agent) => "agent",
        }
    }

    fn parse(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|by| by.name() == word)
    }
}

/// What was found out, in the shape that was asked for.
enum Answer {
    Report(Details),
    Calls(calls::By, Top<CallRow>),
    Group(Group, Top<GroupRow>),
}

/// What a page is asked for.
pub(super) struct Question<'a> {
    pub(super) selection: &'a Selection,
    pub(super) top: u32,
    pub(super) running: &'a [String],
}

/// Connections of each kind in a page: the latest, and those of findings.
const CONNECTIONS: usize = 1500;

/// Ways of a page's map, and columns of its time strip.
const PATHS: usize = 400;
const PARTS: u32 = 240;

/// One file with everything in it.
fn page(
    question: &Question<'_>,
    file: &Path,
    configuration: &Configuration,
    context: &Context,
) -> Result<ExitCode> {
    let found = history::find(configuration, context);
    found.announce();
    let history::Found { path, named_by, .. } = found;
    // On a thread that has the rights to read and no others; the file is written with those of whoever named it.
    let data = std::thread::scope(|scope| {
        let asking = scope.spawn(|| {
            history::take_rights_to_read(&path, named_by, context)?;
            data(question, &path)
        });
        asking.join().unwrap_or_else(|_| Err(anyhow::anyhow!("a thread failed")))
    })?;
    say(&(write_page(&data, file, context)? + "\n"));
    Ok(Code::Fine.into())
}

/// Returns what to say.
pub(super) fn write_page(data: &serde_json::Value, file: &Path, context: &Context) -> Result<String> {
    let html = output::page::html(data, "rano report");
    let failed = |error: anyhow::Error| {
        Failure::new(Code::CannotOpen, format!("write report {}", Line(&file.display().to_string())))
            .because(error)
            .hint("name a file in a directory that you can write to")
    };
    let created = context.environment.files.create(file, NamedBy::CommandLine, Existing::Truncate);
    let (mut out, _) = created.map_err(|problem| failed(problem.into()))?;
    out.write_all(html.as_bytes()).map_err(|error| failed(error.into()))?;
    Ok(format!("wrote {} ({})", Line(&file.display().to_string()), Size(html.len() as u64)))
}

pub(super) fn data(question: &Question<'_>, path: &Path) -> Result<serde_json::Value> {
    let Question { selection, top, running } = *question;
    let now = jiff::Timestamp::now().as_millisecond();
    let lengths = view::Lengths { top: top.min(1000), paths: PATHS, parts: PARTS };
    let found = History::ask(path, |history| {
        let Some(snapshot) = view::snapshot(history, selection, running, &lengths, now)? else {
            return Ok(None);
        };
        let mut list = Vec::new();
        let sessions = history.selected(selection)?.unwrap_or_default();
        // Those of findings first: they stay where the list is cut.
        for only in [Some("alert:true"), Some("type:unknown"), None] {
            for session in sessions.iter().rev().take(SESSIONS) {
                if only == Some("alert:true") && session.alerts == 0 {
                    continue;
                }
                let filter = export::Filter {
                    run: Some(session.run_id.clone()),
                    since: selection.since,
                    until: selection.until,
                    matching: both(selection.filter.as_ref(), only),
                    ..export::Filter::default()
                };
                list.push(
                    history.connections(&filter, CONNECTIONS).map_err(export::ExportError::into_database)?,
                );
            }
        }
        Ok(Some((snapshot, list)))
    });
    let found = found.map_err(|error| history::cannot_open(&error))?;
    let Some((snapshot, list)) = found else {
        let name = match &selection.sessions {
            Sessions::Named(name) => name.as_str(),
            Sessions::Latest | Sessions::All => "",
        };
        return Err(history::no_session(name, path).into());
    };
    let hash = History::hash(path).map_err(|error| history::cannot_open(&error))?;
    Ok(view::report_page(snapshot, &list, &hash))
}

/// Sessions whose connections are listed one by one, the latest.
const SESSIONS: usize = 4;

/// Both hold.
fn both(filter: Option<&Filter>, only: Option<&str>) -> Option<Filter> {
    match (filter, only) {
        (Some(filter), Some(only)) => Filter::parse(&format!("({}) {only}", filter.text())).ok(),
        (Some(filter), None) => Some(filter.clone()),
        (None, only) => only.and_then(|only| Filter::parse(only).ok()),
    }
}
