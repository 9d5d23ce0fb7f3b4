//! `rano agents`: which agents are known, and how each is told from other programs.

use std::process::ExitCode;

use anyhow::Result;
use clap::{ArgMatches, Command};

use super::{Context, history, load, print};
use crate::config::flags;
use crate::config::spec::Group;
use crate::exit::Code;
use crate::output::agents::{self, Row};
use crate::output::stream;

pub fn command() -> Command {
    Command::new("agents")
        .about("List the agents that rano knows, and how it recognises each")
        .long_about(
            "List the agents that rano knows: whose each is, how it is recognised, and which file says so. Without \
             --pattern and --pid rano watches all of them. A rano.toml of your own adds to them: `rano config sample` \
             has an example.",
        )
        .args_override_self(true)
        .arg(history::json_flag())
        .args(flags::flags(|option| option.group == Group::Configuration))
        .args(history::color_flags())
        .after_help("Examples:\n  rano agents\n  rano agents --json | jq -r '.[].name'")
}

pub fn run(matches: &ArgMatches, context: &Context) -> Result<ExitCode> {
    let configuration = load(matches, context)?;
    let entries = configuration.agents.entries.iter();
    let rows: Vec<Row<'_>> =
        entries.map(|entry| Row { agent: &entry.agent, file: entry.origin.place() }).collect();
    let text = if matches.get_flag("as_json") {
        agents::json(&rows)
    } else {
        let width = stream::stdout_columns().unwrap_or(history::WIDE);
        agents::text(&rows, width, &history::stdout_styles(&configuration, context))
    };
    print(&text)?;
    Ok(Code::Fine.into())
}
