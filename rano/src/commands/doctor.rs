//! `rano doctor`: what this machine and these privileges allow, why not more, and what would help.

use std::process::ExitCode;

use anyhow::Result;
use clap::{ArgMatches, Command};

use super::{Context, history, load, print};
use crate::config::Configuration;
use crate::exit::Code;
use crate::names::{pcap, resolver};
use crate::output::doctor::{self, Diagnosis};
use crate::source::examine::{self, Check, Outcome};

pub fn command() -> Command {
    Command::new("doctor")
        .about("Say how well rano can observe here, and what would help")
        .long_about(
            "Say how well rano can observe on this machine with these privileges: each way is tried, and where one is refused, \
             why, and the command that would help. Nothing is changed.",
        )
        .args_override_self(true)
        .arg(history::json_flag())
        .args(history::color_flags())
        .after_help(
            "The exit code is 1 where something does not work at all, 0 where only something better could be had.\n\n\
             Examples:\n  rano doctor\n  sudo rano doctor --json",
        )
}

pub fn run(matches: &ArgMatches, context: &Context) -> Result<ExitCode> {
    let configuration = load(matches, context)?;
    let mut examination = examine::examine();
    examination.checks.extend([history_file(&configuration, context)]);
    examination.checks.extend(proxies(context));
    let diagnosis = Diagnosis { examination, names: names() };
    let text = if matches.get_flag("as_json") {
        doctor::json(&diagnosis)
    } else {
        doctor::text(&diagnosis, &history::stdout_styles(&configuration, context))
    };
    print(&text)?;
    Ok(if diagnosis.is_failed() { Code::Findings } else { Code::Fine }.into())
}

/// Where names of remote ends come from, beside the programs in the kernel.
fn names() -> Vec<Check> {
    let pcap = match pcap::open_live() {
        Ok(_) => Check::new("pcap", Outcome::Fine, "libpcap can watch the devices (--pcap)".to_owned()),
        Err(error) => Check::new("pcap", Outcome::Note, format!("{error:#}")),
    };
    let servers: Vec<String> = resolver::servers().iter().map(ToString::to_string).collect();
    let asked = format!("reverse look-ups ask {}", servers.join(", "));
    vec![pcap, Check::new("ptr", Outcome::Fine, asked)]
}

fn history_file(configuration: &Configuration, context: &Context) -> Check {
    let path = history::database(configuration);
    let shown = path.display().to_string();
    let place = path.clone();
    if context.environment.files.with_rights(move |_| examine::can_write(&place)) {
        return Check::new("history", Outcome::Fine, shown);
    }
    Check::new("history", Outcome::Failed, format!("{shown} cannot be written"))
        .fix(Some("name another file with --sqlite, or keep none with --no-sqlite".to_owned()))
}

/// Programs obey either spelling.
const PROXIES: [&str; 4] = ["HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"];

/// With a proxy, the proxy is where connections go.
fn proxies(context: &Context) -> Option<Check> {
    let set = PROXIES.into_iter().find(|name| context.environment.variable(name).is_some())?;
    let detail = format!(
        "{set} is set: of programs that obey it the proxy is the remote end; what they ask it for is read from packets, \
         as root, unless the proxy is reached over TLS"
    );
    Some(Check::new("proxy", Outcome::Note, detail))
}
