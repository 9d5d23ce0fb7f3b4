//! `rano diff`: what changed between two sessions.

use std::process::ExitCode;

use anyhow::Result;
use clap::{Arg, ArgAction, ArgMatches, Command, value_parser};

use super::{Context, history, load, print};
use crate::exit::Code;
use crate::filter::Filter;
use crate::output::diff as output;
use crate::store::History;
use crate::store::query::diff::compare;

/// Names in each list of the text.
const SHOWN: usize = 50;

pub fn command() -> Command {
    let session = |name: &'static str, help: &'static str| {
        Arg::new(name).long(name).value_name("RUN").required(true).help(help)
    };
    Command::new("diff")
        .about("Show what changed between two sessions")
        .args_override_self(true)
        .arg(session("old", "Session to compare with: a run id or a name"))
        .arg(session("new", "Session that is compared: a run id or a name"))
        .arg(
            Arg::new("threshold")
                .long("threshold")
                .value_name("PERCENT")
                .default_value("50")
                .value_parser(value_parser!(u64))
                .help("Least change in connections that is shown, in percent of the old number"),
        )
        .arg(
            Arg::new("exit_code")
                .long("exit-code")
                .action(ArgAction::SetTrue)
                .help("Exit with 1 if anything differs"),
        )
        .arg(history::filter_flag())
        .arg(history::json_flag())
        .args(history::database_flag())
        .args(history::color_flags())
        .after_help(
            "A domain or a provider that both sessions have is shown if its connections differ by the threshold and by at \
             least 5; one that only one of them has is always shown. A name stands for the latest session of that name.\n\n\
             Example:\n  rano diff --old before --new after --threshold 20",
        )
}

pub fn run(matches: &ArgMatches, context: &Context) -> Result<ExitCode> {
    let configuration = load(matches, context)?;
    let name = |which: &str| matches.get_one::<String>(which).expect("it is required").as_str();
    let threshold = *matches.get_one::<u64>("threshold").expect("it has a default");
    let path = history::database_to_read(&configuration, context)?;
    let filter = matches.get_one::<Filter>("filter");
    let snapshots = |history: &History| {
        Ok((history.snapshot(name("old"), filter)?, history.snapshot(name("new"), filter)?))
    };
    let (old, new) = History::ask(&path, snapshots).map_err(|error| history::cannot_open(&error))?;
    let old = old.ok_or_else(|| history::no_session(name("old"), &path))?;
    let new = new.ok_or_else(|| history::no_session(name("new"), &path))?;
    let changes = compare(&old, &new, threshold);
    let question = output::Question { threshold, filter };
    let text = if matches.get_flag("as_json") {
        output::json(&old, &new, &changes, &question)
    } else {
        let styles = history::stdout_styles(&configuration, context);
        output::text(&old, &new, &changes, &question, &history::look(&styles, SHOWN))
    };
    print(&text)?;
    let differs = matches.get_flag("exit_code") && !changes.is_empty();
    Ok(if differs { Code::Findings } else { Code::Fine }.into())
}
