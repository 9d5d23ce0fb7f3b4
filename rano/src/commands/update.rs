//! `rano update`: another release of rano in the place of the one that runs, or of the system's.

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command as Program, ExitCode, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result};
use clap::{Arg, ArgAction, ArgMatches, Command};

use super::{Context, print, say};
use crate::exit::{Code, Failure};
use crate::releases::place::{self, Problem, Replaced};
use crate::releases::{self, Refusal, Site, Version, current};

/// Where `install.sh --system` puts it.
const SYSTEM: &str = "/usr/local/bin/rano";
/// How long a server may say nothing, unless `RANO_UPDATE_TIMEOUT` says otherwise.
const PATIENCE: Duration = Duration::from_secs(30);

pub fn command() -> Command {
    let value = |name: &'static str, value: &'static str| Arg::new(name).long(name).value_name(value);
    Command::new("update")
        .about("Replace rano by a newer release, once its signature is verified")
        .long_about(
            "Replace the rano that runs by the latest release. The release must be signed by the key that this program \
             has built in. The new program must start; the old one stays beside it as rano.old. If anything fails, \
             nothing changes. An older release is only installed if you name it with --version.",
        )
        .args_override_self(true)
        .arg(
            value("version", "VERSION")
                .help("Install this release, which may be older: v1.2.3")
                .value_parser(|text: &str| text.parse::<Version>()),
        )
        .arg(
            Arg::new("system").long("system").action(ArgAction::SetTrue).help("Replace /usr/local/bin/rano instead"),
        )
        .arg(
            Arg::new("check")
                .long("check")
                .action(ArgAction::SetTrue)
                .help("Say whether there is a newer release and what would be done; change nothing"),
        )
        .arg(value("owner", "NAME").help("Releases of this owner's repository on GitHub (RANO_OWNER)"))
        .arg(value("repo", "NAME").help("Releases of this repository on GitHub (RANO_REPO)"))
        .arg(
            value("branch", "NAME")
                .help("Build this branch or tag with cargo instead, without a signature (RANO_BRANCH)")
                .conflicts_with_all(["version", "check"]),
        )
        .after_help(
            "Releases are fetched with curl or wget. RANO_UPDATE_URL names another place that has them: \
             URL/latest/download/SHA256SUMS and so on. RANO_UPDATE_TIMEOUT is for how many seconds a server may be \
             silent (30).\n\n\
             The exit code is 0 if rano is up to date, and also if --check finds a newer release; 3 if releases \
             cannot be asked for or the file cannot be written.\n\n\
             Examples:\n  rano update --check\n  sudo rano update --system\n  rano update --version v0.2.0",
        )
}

pub fn run(matches: &ArgMatches, context: &Context) -> Result<ExitCode> {
    let text = |name: &str, variable: &str| {
        let given = matches.get_one::<String>(name).cloned();
        given.or_else(|| Some(context.environment.variable(variable)?.to_string_lossy().into_owned()))
    };
    let path = replaced_path(matches.get_flag("system"))?;
    let owner = text("owner", "RANO_OWNER").or(releases::OWNER.map(str::to_owned));
    let repo = text("repo", "RANO_REPO").or(releases::REPO.map(str::to_owned));
    let wanted = matches.get_one::<Version>("version").copied();
    let only_check = matches.get_flag("check");
    let branch = matches.get_one::<String>("branch").cloned();
    let branch = branch.or_else(|| {
        let named = context.environment.variable("RANO_BRANCH")?.to_string_lossy().into_owned();
        (wanted.is_none() && !only_check).then_some(named)
    });
    if !only_check {
        may_replace(&path)?;
    }
    if let Some(branch) = branch {
        let (Some(owner), Some(repo)) = (owner, repo) else { return Err(nowhere().into()) };
        return from_source(&format!("https://github.com/{owner}/{repo}"), &branch, &path, context);
    }
    let Some(key) = releases::key() else {
        let failure =
            Failure::new(Code::Findings, "this build has no key to verify releases with: it cannot update");
        return Err(failure.hint("replace it as it was installed, or run install.sh of a release").into());
    };
    let base = match (context.environment.variable("RANO_UPDATE_URL"), owner, repo) {
        (Some(url), ..) => url.to_string_lossy().trim_end_matches('/').to_owned(),
        (None, Some(owner), Some(repo)) => format!("https://github.com/{owner}/{repo}/releases"),
        _ => return Err(nowhere().into()),
    };
    let site = Site { base, patience: patience(context) };
    let release = site.release(wanted, &key).map_err(refused)?;
    let version = release.version;
    if version == current() {
        print(&format!("rano {version} is {}\n", if wanted.is_some() { "what runs" } else { "up to date" }))?;
        return Ok(Code::Fine.into());
    }
    if wanted.is_none() && version < current() {
        let said =
            format!("rano {} is installed, and the latest release there is older: {version}", current());
        return Err(Failure::new(Code::Findings, said)
            .hint(format!("to go back to it: rano update --version v{version}"))
            .into());
    }
    if only_check {
        return checked(version, &path);
    }
    let program = site.program(&release).map_err(refused)?;
    let replaced = place::replace(&path, &program, &format!("rano {version}")).map_err(not_replaced)?;
    tell(&format!("rano {version} replaces {}", current()), &path, &replaced)
}

/// What `--check` found: `version` is there, and is not this one.
fn checked(version: Version, path: &Path) -> Result<ExitCode> {
    let mut text = format!("rano {version} is there and its signature is right; this is {}\n", current());
    match (place::managers_command(path), place::check(path)) {
        (Some(command), _) => writeln!(text, "{} belongs to a package manager: {command}", path.display()),
        (None, Err(problem)) => writeln!(text, "rano update would fail: {problem}"),
        (None, Ok(())) => writeln!(text, "rano update would replace {}", path.display()),
    }
    .expect("writing into a String cannot fail");
    print(&text)?;
    Ok(Code::Fine.into())
}

fn replaced_path(system: bool) -> Result<PathBuf> {
    if system {
        let path = PathBuf::from(SYSTEM);
        return Ok(fs::canonicalize(&path).unwrap_or(path));
    }
    let path = std::env::current_exe().context("find the program that runs")?;
    if !path.exists() {
        return Err(Failure::new(Code::CannotOpen, format!("{} has been replaced already", path.display()))
            .hint("start the new one")
            .into());
    }
    Ok(path)
}

fn may_replace(path: &Path) -> Result<()> {
    if let Some(command) = place::managers_command(path) {
        let said = format!("{} belongs to a package manager", path.display());
        return Err(Failure::new(Code::Findings, said).hint(command).into());
    }
    place::check(path).map_err(not_replaced)
}

fn nowhere() -> Failure {
    Failure::new(Code::Usage, "this build does not know where releases are")
        .hint("name the repository with --owner and --repo, or set RANO_UPDATE_URL")
}

fn patience(context: &Context) -> Duration {
    let given = context.environment.variable("RANO_UPDATE_TIMEOUT");
    let seconds =
        given.and_then(|text| text.to_str()?.parse().ok()).filter(|seconds| (1..=3600).contains(seconds));
    seconds.map_or(PATIENCE, Duration::from_secs)
}

fn refused(refusal: Refusal) -> anyhow::Error {
    let code = if matches!(refusal, Refusal::CannotAsk { .. }) { Code::CannotOpen } else { Code::Findings };
    let said =
        if code == Code::Findings { format!("{refusal}: nothing was changed") } else { refusal.to_string() };
    let failure = Failure::new(code, said);
    match refusal {
        Refusal::CannotAsk { trouble, .. } => failure.because(trouble).into(),
        _ => failure.into(),
    }
}

fn not_replaced(problem: Problem) -> anyhow::Error {
    let code = match problem {
        Problem::NotWritable(_) | Problem::Write { .. } => Code::CannotOpen,
        Problem::NotRoots(_) | Problem::DoesNotStart(_) | Problem::RolledBack(_) => Code::Findings,
    };
    let failure = Failure::new(code, problem.to_string());
    match problem {
        Problem::NotWritable(_) => failure.hint("run it as its owner, or with sudo").into(),
        Problem::NotRoots(_) => failure.hint("run it without sudo, as the owner of the directory").into(),
        Problem::Write { error, .. } => failure.because(error).into(),
        Problem::DoesNotStart(_) | Problem::RolledBack(_) => failure.into(),
    }
}

fn tell(what: &str, path: &Path, replaced: &Replaced) -> Result<ExitCode> {
    let mut text = format!("{what}: {}\n", path.display());
    if let Some(old) = &replaced.old {
        let _ = writeln!(text, "the old program is {}", old.display());
    }
    print(&text)?;
    if replaced.lost_capabilities {
        say("warning: the old program had capabilities, and only root can give them to the new one: \
             `rano doctor` prints the setcap command\n");
    }
    Ok(Code::Fine.into())
}

/// Clones and builds, and installs what came of it: whoever asks for a branch trusts who writes it.
fn from_source(address: &str, branch: &str, path: &Path, context: &Context) -> Result<ExitCode> {
    if context.environment.invoking_user.is_some() {
        return Err(Failure::new(Code::Usage, "a branch is not built as root")
            .hint("run it without sudo, then copy what was built")
            .into());
    }
    let parent = context.environment.variable("TMPDIR").map_or_else(|| PathBuf::from("/tmp"), PathBuf::from);
    let directory = nix::unistd::mkdtemp(&parent.join("rano-update.XXXXXX"))
        .with_context(|| format!("make a directory in {}", parent.display()))?;
    let outcome = built(address, branch, &directory);
    let outcome = outcome.and_then(|program| place::replace(path, &program, "rano ").map_err(not_replaced));
    let _ = fs::remove_dir_all(&directory);
    tell(
        &format!("{branch} of {address}, built here and not signed, replaces rano {}", current()),
        path,
        &outcome?,
    )
}

fn built(address: &str, branch: &str, directory: &Path) -> Result<Vec<u8>> {
    let checkout = directory.join("rano");
    let mut git = Program::new("git");
    git.args(["clone", "--quiet", "--depth", "1", "--branch", branch, "--", address]).arg(&checkout);
    ended_well(&mut git)?;
    let mut cargo = Program::new("cargo");
    cargo.args(["build", "--release", "--locked", "--package", "rano"]).current_dir(&checkout);
    ended_well(cargo.arg("--target-dir").arg(directory.join("target")))?;
    let program = directory.join("target/release/rano");
    fs::read(&program).with_context(|| format!("read {}", program.display()))
}

/// What it says goes where rano's own errors go.
fn ended_well(command: &mut Program) -> Result<()> {
    let name = command.get_program().to_string_lossy().into_owned();
    let failed = |why: &str| Failure::new(Code::CannotOpen, format!("{name} {why}"));
    match command.stdin(Stdio::null()).status() {
        Ok(status) if status.success() => Ok(()),
        Ok(status) => Err(failed(&format!("ended with {status}")).into()),
        Err(error) => Err(failed("cannot be started").because(error).into()),
    }
}
