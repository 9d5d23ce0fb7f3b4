//! `rano report`: what a session did, or all of them in a range of time.

use std::process::ExitCode;

use anyhow::Result;
use clap::builder::PossibleValuesParser;
use clap::{Arg, ArgAction, ArgMatches, Command, value_parser};

use super::{Context, history, load, print};
use crate::exit::Code;
use crate::output::{calls, report};
use crate::store::History;
use crate::store::query::calls::By;
use crate::store::query::report::{Selection, Sessions};

pub fn command() -> Command {
    Command::new("report")
        .about("Report on a session or a range of time")
        .long_about(
            "Report on a session or a range of time: sums, providers, top domains and addresses, and what may have been \
             missed. Without options it is the session that started last. It reads the database and changes nothing; a \
             session that is running can be reported on.",
        )
        .args_override_self(true)
        .arg(
            Arg::new("latest")
                .long("latest")
                .action(ArgAction::SetTrue)
                .conflicts_with("run_id")
                .help("The session that started last; the default without a range"),
        )
        .arg(Arg::new("run_id").long("run-id").value_name("RUN").help("The session with this run id or name"))
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
                .help("One row for each of these instead, by bytes sent: which tool call did it"),
        )
        .arg(history::json_flag())
        .args(history::database_flag())
        .args(history::color_flags())
        .after_help(
            "Counts are connections; bytes are those of connections that ended. In a range, connections that were open \
             before it count by their close only.\n\n\
             Examples:\n  rano report\n  rano report --since 24h\n  rano report --since 2026-01-17 --until 2026-01-18 --json\n  \
             rano report --filter 'type:unknown sent:>1M'\n  rano report --by tool --since 1h",
        )
}

pub fn run(matches: &ArgMatches, context: &Context) -> Result<ExitCode> {
    let configuration = load(matches, context)?;
    let (since, until) = history::range(matches)?;
    let named = matches.get_one::<String>("run_id");
    let sessions = match named {
        Some(name) => Sessions::Named(name.clone()),
        None if matches.get_flag("latest") || (since, until) == (None, None) => Sessions::Latest,
        None => Sessions::All,
    };
    let selection = Selection { sessions, since, until, filter: matches.get_one("filter").cloned() };
    let top = *matches.get_one::<u32>("top").expect("it has a default");
    let running = history::running_ids(context);
    let path = history::database_to_read(&configuration, context)?;
    let by = matches.get_one::<String>("by").and_then(|word| By::parse(word));
    let asked = History::ask(&path, |history| {
        let report = history.report(&selection, top)?;
        let calls = match (&report, by) {
            (Some(report), Some(by)) => Some((by, history.calls(&selection, &report.sessions, by, top)?)),
            _ => None,
        };
        Ok(report.map(|report| (report, calls)))
    });
    let asked = asked.map_err(|error| history::cannot_open(&error))?;
    let Some((mut found, calls)) = asked else {
        return Err(history::no_session(named.map_or("", String::as_str), &path).into());
    };
    let now = jiff::Timestamp::now().as_millisecond();
    for session in found.sessions.iter_mut().filter(|session| running.contains(&session.run_id)) {
        session.running_at = Some(now);
    }
    let styles = history::stdout_styles(&configuration, context);
    let look = history::look(&styles, usize::try_from(top)?);
    let text = match (calls, matches.get_flag("as_json")) {
        (None, true) => report::json(&found, &running),
        (None, false) => report::text(&found, &running, &look),
        (Some((by, calls)), true) => calls::json(&found, &running, by, &calls),
        (Some((by, calls)), false) => calls::text(&found, &running, by, &calls, &look),
    };
    print(&text)?;
    Ok(Code::Fine.into())
}
