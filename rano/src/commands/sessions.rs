//! `rano sessions`: which sessions there are, the latest first.

use std::process::ExitCode;

use anyhow::Result;
use clap::{Arg, ArgMatches, Command, value_parser};

use super::{Context, history, load, print, say};
use crate::exit::{Code, Failure};
use crate::output::report::Look;
use crate::output::sessions::{self, Listed};
use crate::store::{History, OpenError};

pub fn command() -> Command {
    Command::new("sessions")
        .about("List the sessions in the history")
        .long_about(
            "List the sessions in the history, the latest first. Without --sqlite these are the sessions in \
             ./observer.sqlite, those that are running, and those in the file of the last one.",
        )
        .args_override_self(true)
        .arg(
            Arg::new("top")
                .long("top")
                .value_name("N")
                .default_value("50")
                .value_parser(value_parser!(u32).range(1..=100_000))
                .help("So many at most"),
        )
        .arg(history::json_flag())
        .args(history::local_flag())
        .args(history::database_flag())
        .args(history::color_flags())
        .after_help(
            "A session is complete if it ended cleanly and nothing that rano knows of was missed.\n\n\
             Examples:\n  rano sessions\n  rano sessions --json | jq -r '.sessions[].run_id'\n  rano report --run-id NAME",
        )
}

pub fn run(matches: &ArgMatches, context: &Context) -> Result<ExitCode> {
    let configuration = load(matches, context)?;
    let top = *matches.get_one::<u32>("top").expect("it has a default");
    let running = history::running_ids(context);
    let mut listed = Vec::new();
    let mut all = 0;
    let mut failures: Vec<Failure> = Vec::new();
    let files = history::find_all(&configuration, context);
    let is_one = files.len() == 1;
    if is_one {
        files.iter().for_each(history::Found::announce);
    }
    for found in files {
        // Each on a thread of its own, which has the rights to read that one and no others.
        let asked = std::thread::scope(|scope| {
            let asking = scope.spawn(|| -> Result<Result<(Vec<Listed>, u64), OpenError>> {
                history::take_rights_to_read(&found.path, found.named_by, context)?;
                Ok(History::ask(&found.path, |history| {
                    let listed = history.sessions(top)?.into_iter().map(|session| {
                        Ok(Listed {
                            counts: history.session_counts(&session.run_id)?.unwrap_or_default(),
                            agents: history.agents_of(&session)?,
                            file: found.path.clone(),
                            session,
                        })
                    });
                    Ok((listed.collect::<rusqlite::Result<Vec<_>>>()?, history.count_sessions()?))
                }))
            });
            asking.join().unwrap_or_else(|_| Err(anyhow::anyhow!("a thread failed")))
        })?;
        match asked {
            Ok((some, count)) => {
                listed.extend(some);
                all += count;
            }
            Err(error) => failures.push(history::cannot_open(&error)),
        }
    }
    if is_one && let Some(failure) = failures.pop() {
        return Err(failure.into());
    }
    for failure in failures {
        say(&format!("warning: {failure}\n"));
    }
    listed.sort_by_key(|listed| std::cmp::Reverse(listed.session.started_at));
    listed.truncate(usize::try_from(top)?);
    let now = jiff::Timestamp::now().as_millisecond();
    for listed in listed.iter_mut().filter(|listed| running.contains(&listed.session.run_id)) {
        listed.session.running_at = Some(now);
    }
    let zone = history::zone(&configuration);
    let text = if matches.get_flag("as_json") {
        sessions::json(&listed, all, &running)
    } else {
        let styles = history::stdout_styles(&configuration, context);
        let look = history::look(&styles, usize::try_from(top)?);
        sessions::text(&listed, all, &running, &Look { zone: &zone, ..look })
    };
    print(&text)?;
    Ok(Code::Fine.into())
}
