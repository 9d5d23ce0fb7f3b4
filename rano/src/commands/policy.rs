//! What the commands that judge by a policy have in common: read its files, know the classes of endpoints.

use std::io::{Read as _, Write as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError};

use clap::{Arg, ArgMatches, value_parser};

use crate::config::{Configuration, EndpointEntry};
use crate::exit::{Code, Failure};
use crate::files::{Existing, Files, NAME_WHAT_EXISTS, NamedBy, Reading, Refusal};
use crate::health::SourceHealth;
use crate::names::classes::{Authority, Classes};
use crate::output::escape::{Escaped, Line};
use crate::policy::{self, Kind, Lack, Loaded, Policy, PolicyError, PolicyFile, Verdict};
use crate::sink::Sink;
use crate::sink::gate::{Gate, GateSettings, OnDenied, Outcome};
use crate::source;
use crate::source::seccomp::child::Handle;

/// A policy is written by hand, or by `rano baseline`.
const LARGEST: u64 = 4 << 20;

/// Write permission of everybody, and of the group.
const OTHERS_WRITE: u32 = 0o002;
const GROUP_WRITES: u32 = 0o020;

/// `--fail-on`.
pub(super) fn fail_on_flag() -> Arg {
    let parse = |text: &str| {
        policy::parse_kinds(text).map_err(|word| {
            let known = Kind::ALL.map(Kind::name).join(", ");
            format!("no such kind '{word}'; known are {known}, and none")
        })
    };
    Arg::new("fail_on")
        .long("fail-on")
        .value_name("KINDS")
        .value_parser(parse)
        .help("Kinds of findings that fail, with commas [default: denied,new-domain,incomplete]")
}

/// `--summary`.
pub(super) fn summary_flag() -> Arg {
    Arg::new("summary")
        .long("summary")
        .value_name("FILE")
        .value_parser(value_parser!(PathBuf))
        .help("Append a summary in Markdown to a file, such as $GITHUB_STEP_SUMMARY")
}

pub(super) fn fail_on(matches: &ArgMatches) -> Vec<Kind> {
    matches.get_one::<Vec<Kind>>("fail_on").cloned().unwrap_or_else(policy::default_fail_on)
}

/// Reads a policy with all that it extends.
pub(super) fn load(path: &Path, files: &Files) -> Result<Policy, Failure> {
    // What the file itself names is not what somebody typed.
    let mut named_by = NamedBy::CommandLine;
    policy::load(path, |path| read(path, std::mem::replace(&mut named_by, NamedBy::Configuration), files))
}

/// One file of a policy. Whoever else can write it could allow himself what he likes.
fn read(path: &Path, named_by: NamedBy, files: &Files) -> Result<Loaded, Failure> {
    let shown = Escaped(&path.display().to_string()).to_string();
    let cannot = || Failure::new(Code::CannotOpen, format!("read policy {shown}"));
    let refused = |refusal: Refusal| {
        let failure = Failure::new(Code::Usage, format!("policy {shown} is not used"));
        failure.because(crate::files::Problem::Refused(refusal)).hint(refusal.hint())
    };
    let file = match files.open(path, named_by, Reading::Instructions { pipe: false }) {
        Ok(file) => file,
        Err(crate::files::Problem::Refused(refusal @ (Refusal::OthersCanWrite | Refusal::OwnedBy(_)))) => {
            return Err(refused(refusal));
        }
        Err(problem) => return Err(cannot().because(problem).hint(problem.reading_hint())),
    };
    let metadata = file.metadata().map_err(|error| cannot().because(error).hint(NAME_WHAT_EXISTS))?;
    // Many systems give each user a group of his own, of the same number.
    let is_groups = metadata.mode() & GROUP_WRITES != 0 && metadata.gid() != metadata.uid();
    if metadata.mode() & OTHERS_WRITE != 0 || is_groups {
        return Err(refused(Refusal::OthersCanWrite));
    }
    let mut text = String::new();
    file.take(LARGEST + 1)
        .read_to_string(&mut text)
        .map_err(|error| cannot().because(error).hint("a policy is a TOML file"))?;
    if text.len() as u64 > LARGEST {
        return Err(Failure::new(Code::Usage, format!("policy {shown} is larger than 4 MiB")));
    }
    let canonical = files.canonical(path).unwrap_or_else(|_| path.to_owned());
    Ok(Loaded { canonical, text })
}

impl From<PolicyError> for Failure {
    fn from(error: PolicyError) -> Self {
        Self::new(Code::Usage, Line(&error.to_string()).to_string())
            .hint("the page docs/ci.md describes each key")
    }
}

/// What is built in, and what the user's own files say: a file that the watched one may have written classes nothing.
pub(super) fn classes(configuration: &Configuration) -> Classes {
    let entries = configuration.endpoints.entries.iter().map(EndpointEntry::entry);
    let entries: Vec<_> = entries.filter(|entry| entry.authority != Authority::AddOnly).collect();
    Classes::new(&entries)
}

/// A session that is not there cannot be judged, which is no finding.
pub(super) fn no_session(name: &str, history: &Path) -> Failure {
    let mut failure = super::history::no_session(name, history);
    failure.code = Code::CannotOpen;
    failure
}

/// What a command is judged by, until it is observed.
pub(super) struct Gating {
    policy: Arc<Policy>,
    path: PathBuf,
    classes: Classes,
    fail_on: Vec<Kind>,
    kills: bool,
    outcome: Outcome,
}

/// What is left of it for the end.
pub(super) struct Awaited {
    policy: Arc<Policy>,
    path: PathBuf,
    outcome: Outcome,
}

impl Gating {
    /// Reads the policy that `--policy` names.
    pub(super) fn of(
        matches: &ArgMatches,
        configuration: &Configuration,
        files: &Files,
    ) -> Result<Option<Self>, Failure> {
        let Some(path) = matches.get_one::<PathBuf>("policy") else { return Ok(None) };
        Ok(Some(Self {
            policy: Arc::new(load(path, files)?),
            path: path.clone(),
            classes: classes(configuration),
            fail_on: fail_on(matches),
            kills: matches.get_flag("kill"),
            outcome: Outcome::default(),
        }))
    }

    pub(super) fn awaited(&self) -> Awaited {
        let (policy, outcome) = (Arc::clone(&self.policy), Arc::clone(&self.outcome));
        Awaited { policy, path: self.path.clone(), outcome }
    }

    /// Its files, as the session names what it was told by.
    pub(super) fn files(&self) -> Vec<String> {
        let line = |file: &PolicyFile| format!("{} (sha256 {})", file.path.display(), file.sha256);
        self.policy.files.iter().map(line).collect()
    }

    pub(super) fn sink(self, run_id: &str, health: &SourceHealth, command: Handle) -> Box<dyn Sink> {
        let on_denied = self.kills.then(|| Box::new(move || command.kill()) as OnDenied);
        let settings = GateSettings {
            policy: self.policy,
            classes: self.classes,
            fail_on: self.fail_on,
            started_at: source::now().unix_ms,
            host: rustix::system::uname().nodename().to_string_lossy().into_owned(),
            outcome: self.outcome,
        };
        Box::new(Gate::new(settings, run_id, health, on_denied))
    }
}

impl Awaited {
    /// What was found; a policy that is not what it was is a finding too.
    pub(super) fn verdict(self, files: &Files) -> Option<Verdict> {
        let mut verdict = self.outcome.lock().unwrap_or_else(PoisonError::into_inner).take()?;
        let is_same = load(&self.path, files).is_ok_and(|now| now.sha256() == self.policy.sha256());
        if !is_same {
            verdict.add_lack(Lack::PolicyChanged, self.policy.place());
        }
        Some(verdict)
    }
}

/// Appends a summary to the file that was named on the command line.
pub(super) fn append(path: &Path, text: &str, files: &Files) -> Result<(), Failure> {
    let failed = |error: anyhow::Error| {
        Failure::new(Code::CannotOpen, format!("write summary {}", path.display()))
            .because(error)
            .hint("name a file in a directory that you can write to")
    };
    let (mut file, _) = files
        .create(path, NamedBy::CommandLine, Existing::Append)
        .map_err(|problem| failed(problem.into()))?;
    file.write_all(text.as_bytes()).map_err(|error| failed(error.into()))
}
