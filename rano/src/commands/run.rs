//! `rano run`: start a command under observation from its first instruction, and pass its exit code on.

use std::ffi::OsString;
use std::io;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Result;
use clap::{Arg, ArgAction, ArgMatches, Command, ValueHint, value_parser};
use rustix::io::Errno;

use super::policy::Gating;
use super::ready::Ready;
use super::{Context, history, load, observe, policy, say};
use crate::config::{Configuration, Field, Origin, flags};
use crate::exit::{Code, Failure};
use crate::output::escape::Escaped;
use crate::output::report::Look;
use crate::output::{findings, stream};
use crate::source::seccomp::child::{Child, Outcome};

/// Options that say whom or for how long to watch: here that is the command.
const WITHOUT: [&str; 5] = ["pattern", "pid", "descendants", "once", "replay"];

const LONG_ABOUT: &str = "\
Start a command and watch it, and everything that it starts, from its first instruction. No privileges are needed. \
Standard input, output and error and the terminal are the command's: rano writes nothing while it runs on a terminal, \
and its summary to standard error at the end. The exit code is the command's, 128+N if signal N ended it, 126 if it \
cannot be run, 127 if it is not there. With --policy it is 1 if the command's is 0 and the policy fails.";

pub(super) fn command(hidden: bool) -> Command {
    Command::new("run")
        .about("Run a command and watch what it and all that it starts talk to")
        .long_about(LONG_ABOUT)
        .args(flags::flags(move |option| (hidden || !option.is_hidden()) && !WITHOUT.contains(&option.name)))
        .arg(
            Arg::new("wait")
                .long("wait")
                .action(ArgAction::SetTrue)
                .help("Go on until everything that the command started has ended"),
        )
        .next_help_heading("Policy")
        .arg(
            Arg::new("policy")
                .long("policy")
                .value_name("FILE")
                .value_parser(value_parser!(PathBuf))
                .help("Judge what the command reaches by this policy (rano.lock.toml); see `rano check`"),
        )
        .arg(policy::fail_on_flag().requires("policy"))
        .arg(policy::summary_flag().requires("policy"))
        .arg(
            Arg::new("kill")
                .long("kill")
                .action(ArgAction::SetTrue)
                .requires("policy")
                .help("Kill the command and all that it started once it reached what a deny rule forbids")
                .long_help(
                    "Kill the command and all that it started once it reached what a deny rule forbids. The connection is \
                     already made by then: this ends what would follow, and takes nothing back. To prevent a connection, \
                     use a firewall or a proxy.",
                ),
        )
        .arg(
            Arg::new("command")
                .value_name("CMD")
                .help("The command and its arguments")
                .required(true)
                .num_args(1..)
                .trailing_var_arg(true)
                .allow_hyphen_values(true)
                .value_hint(ValueHint::CommandWithArguments)
                .value_parser(clap::value_parser!(OsString)),
        )
        .args_override_self(true)
}

pub(super) fn run(matches: &ArgMatches, context: &Context) -> Result<ExitCode> {
    let words: Vec<OsString> =
        matches.get_many::<OsString>("command").into_iter().flatten().cloned().collect();
    let mut configuration = load(matches, context)?;
    own_the_output(&mut configuration)?;
    let ready = Ready::of(&configuration, context)?;
    let name = words.first().cloned().unwrap_or_default();
    if let Err(errno) = find(&name, context) {
        return Ok(not_run(&name, errno));
    }
    let files = &context.environment.files;
    let gating = Gating::of(matches, &configuration, files)?;
    let awaited = gating.as_ref().map(Gating::awaited);
    // Before there is a second thread.
    let child = Child::prepare(&words)?;
    let command = observe::Command { child, words, waits: matches.get_flag("wait"), gating };
    let handle = observe::observe_command(&configuration, context, command, ready)?;
    let is_judged = awaited.is_some();
    let verdict = awaited.and_then(|awaited| awaited.verdict(files));
    if let Some(verdict) = &verdict {
        let styles = super::styles(&configuration, &context.environment, stream::stderr_is_terminal());
        let width = stream::stderr_columns().unwrap_or(history::WIDE);
        let look = Look { width, ..history::look(&styles, 0) };
        say(&format!("\n{}", findings::text(verdict, &look)));
        if let Some(summary) = matches.get_one::<PathBuf>("summary") {
            policy::append(summary, &findings::markdown(verdict), files)?;
        }
    }
    // Without a verdict nothing was proved.
    let fails = is_judged && verdict.is_none_or(|verdict| verdict.fails());
    Ok(match handle.outcome() {
        Some(Outcome::NotRun(errno)) => not_run(&name, errno),
        outcome => {
            let survivors = handle.survivors();
            if survivors > 0 {
                let (are, they) =
                    if survivors == 1 { ("process", "it is") } else { ("processes", "they are") };
                say(&format!(
                    "{survivors} {are} of the command still running; {they} no longer watched (--wait waits for the end)\n"
                ));
            }
            match outcome {
                Some(Outcome::Exited(0)) if fails => Code::Findings.into(),
                Some(outcome) => outcome.code().into(),
                None => Code::Findings.into(),
            }
        }
    })
}

/// Standard output is the command's.
fn own_the_output(configuration: &mut Configuration) -> Result<()> {
    let settings = &configuration.settings;
    let has_log = settings.log_file.is_some() || settings.log_dir.is_some();
    if settings.is_json() && !has_log && matches!(configuration.origin(Field::format), Origin::Flag) {
        let failure = Failure::new(Code::Usage, "--json has nowhere to go: standard output is the command's");
        return Err(failure.hint("name a file for the events: --json --log-file FILE").into());
    }
    Ok(())
}

fn not_run(name: &OsString, errno: Errno) -> ExitCode {
    let text = format!("error: cannot run '{}': {}", name.display(), io::Error::from(errno));
    say(&format!("{}\n", Escaped(&text)));
    Outcome::NotRun(errno).code().into()
}

/// Whether there is such a program, as a shell looks for it: directories that may not be searched have none.
fn find(name: &OsString, context: &Context) -> Result<(), Errno> {
    if name.as_bytes().contains(&b'/') {
        return is_program(Path::new(name));
    }
    let paths = context.environment.variable("PATH").map_or("/bin:/usr/bin".into(), OsString::from);
    let mut refusal = Errno::NOENT;
    for directory in std::env::split_paths(&paths) {
        let directory = if directory.as_os_str().is_empty() { PathBuf::from(".") } else { directory };
        let path = directory.join(name);
        match is_program(&path) {
            Ok(()) => return Ok(()),
            Err(Errno::ACCESS) if rustix::fs::stat(&path).is_ok() => refusal = Errno::ACCESS,
            Err(_) => {}
        }
    }
    Err(refusal)
}

fn is_program(path: &Path) -> Result<(), Errno> {
    let stat = rustix::fs::stat(path)?;
    if rustix::fs::FileType::from_raw_mode(stat.st_mode) == rustix::fs::FileType::Directory {
        return Err(Errno::ACCESS);
    }
    rustix::fs::access(path, rustix::fs::Access::EXEC_OK)
}
