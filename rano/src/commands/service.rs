//! `rano service`: observe all users' agents as a service of the system, into a history that no agent can touch.

use std::fs;
use std::io::{self, Write as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _, chown};
use std::path::{Path, PathBuf};
use std::process::{Command as Program, ExitCode, Stdio};

use anyhow::{Context as _, Result};
use clap::{Arg, ArgMatches, Command, value_parser};

use super::{Context, print};
use crate::exit::{Code, Failure};
use crate::output::service::{self as output, State, Step};

const UNIT: &str = include_str!("rano.service");
const UNIT_FILE: &str = "etc/systemd/system/rano.service";
const DATABASE: &str = "var/lib/rano/observer.sqlite";
/// Its members may read the history.
const GROUP: &str = "rano";

pub fn command() -> Command {
    let root = || {
        Arg::new("root")
            .long("root")
            .value_name("DIR")
            .value_parser(value_parser!(PathBuf))
            .default_value("/")
            .hide(true)
            .help("Directory that stands for /; systemd and groups are left alone if it is another one")
    };
    Command::new("service")
        .about("Observe as a service of the system")
        .long_about(
            "Observe the agents of all users as a service of systemd. The history belongs to root and lies in \
             /var/lib/rano, where no agent can change it. Members of the group rano can read it.",
        )
        .subcommand_required(true)
        .args_override_self(true)
        .subcommand(
            Command::new("install")
                .about("Install and start the service")
                .arg(root())
                .arg(
                    Arg::new("seal_key")
                        .long("seal-key")
                        .value_name("FILE")
                        .value_parser(value_parser!(PathBuf))
                        .help("Seal the history with the key in this file, which only root may read"),
                )
                .after_help("Example:\n  sudo rano service install"),
        )
        .subcommand(Command::new("status").about("Say whether it is installed and runs").arg(root()))
        .subcommand(Command::new("uninstall").about("Stop and remove the service; the history stays").arg(root()))
}

pub fn run(matches: &ArgMatches, _: &Context) -> Result<ExitCode> {
    let (name, matches) = matches.subcommand().expect("clap asks for one");
    let root = matches.get_one::<PathBuf>("root").expect("it has a default");
    let place = Place { root, is_system: root == Path::new("/") };
    match name {
        "install" => place.install(matches.get_one::<PathBuf>("seal_key").map(PathBuf::as_path)),
        "status" => place.status(),
        "uninstall" => place.uninstall(),
        other => unreachable!("clap knows no command {other}"),
    }
}

/// Where the system is.
struct Place<'a> {
    root: &'a Path,
    is_system: bool,
}

impl Place<'_> {
    fn path(&self, relative: &str) -> PathBuf {
        self.root.join(relative)
    }

    fn install(&self, seal_key: Option<&Path>) -> Result<ExitCode> {
        self.check_root()?;
        let program = self.program()?;
        let key = seal_key.map(|key| fs::canonicalize(key).map_err(|error| cannot("open", key, error)));
        let unit = unit(&program, key.transpose()?.as_deref())?;
        let mut steps = vec![self.make_group()?];
        let group = group_id(&self.path("etc/group"));

        let database = self.path(DATABASE);
        let directory = database.parent().expect("the constant has one");
        fs::create_dir_all(directory).map_err(|error| cannot("make", directory, error))?;
        own(directory, 0o750, group)?;
        // SQLite gives the files beside it the mode and the group that it has.
        let made = fs::File::options().write(true).create_new(true).mode(0o640).open(&database);
        match made {
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            Err(error) => return Err(cannot("make", &database, error).into()),
        }
        own(&database, 0o640, group)?;
        steps.push(Step::Done(format!("history {} (mode 640, group {GROUP})", database.display())));

        let file = self.path(UNIT_FILE);
        write_unit(&file, &unit).map_err(|error| cannot("write", &file, error))?;
        steps.push(Step::Done(format!("unit {}", file.display())));
        steps.push(self.systemctl(&[&["daemon-reload"], &["enable", "--now", "rano.service"]]));
        let is_complete = steps.iter().all(|step| matches!(step, Step::Done(_)));
        print(&output::steps(&steps))?;
        Ok(if is_complete || !self.is_system { Code::Fine } else { Code::Findings }.into())
    }

    fn uninstall(&self) -> Result<ExitCode> {
        self.check_root()?;
        let file = self.path(UNIT_FILE);
        let mut steps = Vec::new();
        if file.exists() {
            steps.push(self.systemctl(&[&["disable", "--now", "rano.service"]]));
            fs::remove_file(&file).map_err(|error| cannot("remove", &file, error))?;
            steps.push(Step::Done(format!("removed {}", file.display())));
            let _ = self.systemctl(&[&["daemon-reload"]]);
        } else {
            steps.push(Step::Done("the service is not installed".to_owned()));
        }
        let database = self.path(DATABASE);
        if database.exists() {
            steps.push(Step::Done(format!("the history stays in {}", database.display())));
        }
        print(&output::steps(&steps))?;
        Ok(Code::Fine.into())
    }

    /// 0 if it runs, else 1.
    fn status(&self) -> Result<ExitCode> {
        let file = self.path(UNIT_FILE);
        let database = self.path(DATABASE);
        let is_installed = file.exists();
        let is_running = is_installed && self.is_running_here() && ask("is-active");
        let state = State {
            unit: is_installed.then(|| file.display().to_string()),
            has_systemd: self.is_running_here(),
            is_running,
            starts_at_boot: is_installed && self.is_running_here() && ask("is-enabled"),
            history: database.display().to_string(),
            readable: fs::File::open(&database).map(drop).map_err(|error| error.to_string()),
        };
        print(&output::state(&state))?;
        Ok(if is_running { Code::Fine } else { Code::Findings }.into())
    }

    fn check_root(&self) -> Result<()> {
        if self.is_system && !rustix::process::geteuid().is_root() {
            let failure = Failure::new(Code::NoPrivileges, "only root can install or remove a service");
            return Err(failure.hint("run it with sudo").into());
        }
        Ok(())
    }

    fn program(&self) -> Result<PathBuf> {
        if self.is_system {
            installed_program()
        } else {
            std::env::current_exe().context("find this program")
        }
    }

    fn make_group(&self) -> Result<Step> {
        if group_id(&self.path("etc/group")).is_some() {
            return Ok(Step::Done(format!("group {GROUP}")));
        }
        if !self.is_system {
            return Ok(Step::Left(format!("group {GROUP} is not made: --root is not this system")));
        }
        let made = Program::new("groupadd").args(["--system", GROUP]).stdin(Stdio::null()).status();
        match made {
            Ok(status) if status.success() => Ok(Step::Done(format!(
                "group {GROUP}; usermod -aG {GROUP} USER lets a user read the history"
            ))),
            Ok(status) => Err(failed("groupadd", &status.to_string())),
            Err(error) => Err(failed("groupadd", &error.to_string())),
        }
    }

    /// systemd is what this machine runs.
    fn is_running_here(&self) -> bool {
        self.is_system && Path::new("/run/systemd/system").is_dir()
    }

    fn systemctl(&self, commands: &[&[&str]]) -> Step {
        let words: Vec<String> =
            commands.iter().map(|command| format!("systemctl {}", command.join(" "))).collect();
        let words = words.join(" && ");
        if !self.is_running_here() {
            let why = if self.is_system { "systemd does not run here" } else { "--root is not this system" };
            return Step::Left(format!("not run ({why}): {words}"));
        }
        for command in commands {
            let status = Program::new("systemctl").args(*command).stdin(Stdio::null()).status();
            if !status.is_ok_and(|status| status.success()) {
                return Step::Left(format!("failed: {words}; `systemctl status rano` says more"));
            }
        }
        Step::Done(words)
    }
}

fn ask(question: &str) -> bool {
    let status = Program::new("systemctl")
        .args(["--quiet", question, "rano.service"])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .status();
    status.is_ok_and(|status| status.success())
}

/// This program, if nobody but root can put another one in its place.
fn installed_program() -> Result<PathBuf> {
    let program = std::env::current_exe().context("find this program")?;
    let is_roots = |path: &Path| {
        fs::metadata(path).is_ok_and(|metadata| metadata.uid() == 0 && metadata.mode() & 0o022 == 0)
    };
    if let Some(other) = program.ancestors().find(|path| !is_roots(path)) {
        let message =
            format!("others than root can change {}, and the service would run it as root", other.display());
        let hint = "install rano for all users first: sudo rano update --system, or install.sh --system";
        return Err(Failure::new(Code::Findings, message).hint(hint).into());
    }
    Ok(program)
}

fn unit(program: &Path, key: Option<&Path>) -> Result<String> {
    let options = match key {
        Some(key) => format!(" --seal-key {}", word(key)?),
        None => String::new(),
    };
    Ok(UNIT
        .replace("@RANO@", &word(program)?)
        .replace("@DATABASE@", &format!("/{DATABASE}"))
        .replace("@OPTIONS@", &options))
}

/// A path that systemd takes as it is.
fn word(path: &Path) -> Result<String> {
    let text = path.to_str().unwrap_or_default();
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"/-_.+".contains(&byte);
    if !text.is_empty() && text.bytes().all(is_plain) {
        return Ok(text.to_owned());
    }
    let message = format!("{} has characters that a unit cannot hold", path.display());
    Err(Failure::new(Code::Usage, message).hint("move it to a path of letters, digits, / - _ and .").into())
}

/// From a new file, so that systemd never reads half of it, and no link is followed.
fn write_unit(file: &Path, unit: &str) -> io::Result<()> {
    let directory = file.parent().expect("the constant has one");
    fs::create_dir_all(directory)?;
    let new = file.with_extension("service.new");
    match fs::remove_file(&new) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        Ok(()) | Err(_) => {}
    }
    let mut written = fs::File::options().write(true).create_new(true).mode(0o644).open(&new)?;
    written.write_all(unit.as_bytes())?;
    written.sync_all()?;
    fs::set_permissions(&new, fs::Permissions::from_mode(0o644))?;
    fs::rename(new, file)
}

/// Root's, and the group's as far as `mode` says.
fn own(path: &Path, mode: u32, group: Option<u32>) -> Result<()> {
    let owned = fs::symlink_metadata(path).and_then(|metadata| {
        if metadata.is_symlink() {
            return Err(io::Error::other("it is a symbolic link"));
        }
        let owner = rustix::process::geteuid().is_root().then_some(0);
        chown(path, owner, group.filter(|_| owner.is_some()))?;
        fs::set_permissions(path, fs::Permissions::from_mode(mode))
    });
    owned.map_err(|error| cannot("change", path, error).into())
}

/// Of [`GROUP`], as `group(5)` says.
fn group_id(file: &Path) -> Option<u32> {
    let groups = fs::read_to_string(file).ok()?;
    let line = groups.lines().find(|line| line.split(':').next() == Some(GROUP))?;
    line.split(':').nth(2)?.parse().ok()
}

fn cannot(what: &str, path: &Path, error: io::Error) -> Failure {
    Failure::new(Code::CannotOpen, format!("cannot {what} {}", path.display())).because(error)
}

fn failed(program: &str, how: &str) -> anyhow::Error {
    Failure::new(Code::Findings, format!("{program} failed: {how}")).into()
}
