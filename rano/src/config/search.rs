//! Which files are looked for, in the order in which they count, and why one is left out.

use std::io::ErrorKind;
use std::path::PathBuf;

use super::environment::Environment;
use super::file;
use super::layers::{Assignment, Origin, Resolved};
use super::options::Field;
use super::value::Value;

/// What is in a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Content {
    /// `key=value` lines.
    Options,
    /// Providers, endpoints and agents, TOML.
    Providers,
}

/// How far a file is believed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Trust {
    Full,
    /// It lies where the watched agent works, who may have written it: it may add, and nothing else.
    AddOnly,
}

/// What became of a place where a file may be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Status {
    Found,
    Missing,
    /// It is not looked at.
    Ignored(&'static str),
    /// Its directory may not be entered: whether it is there cannot be known.
    OutOfReach,
}

/// A place where a file may be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Candidate {
    pub path: PathBuf,
    pub content: Content,
    pub trust: Trust,
    /// Who named it; `Default` for the usual places.
    pub named_by: Origin,
    pub status: Status,
}

impl Candidate {
    /// Has to be read: it is there, or it was named and has to be there.
    pub(super) fn is_wanted(&self) -> bool {
        match self.status {
            Status::Found => true,
            Status::Missing => self.named_by != Origin::Default,
            Status::Ignored(_) | Status::OutOfReach => false,
        }
    }
}

/// All places, lowest first. `assignments` are those of environment and flags, `config` the option of that name after
/// them.
pub(super) fn candidates(
    environment: &Environment,
    assignments: &[Assignment],
    config: &Resolved,
) -> Vec<Candidate> {
    let mut candidates = Vec::new();
    let named = match config.value() {
        Value::Path(path) => Some(path),
        _ => None,
    };
    // `config` is absent by default too; only the switch has an origin then.
    let no_files = named.is_none() && *config.origin() != Origin::Default;
    let mut add = |path: PathBuf, content, trust, named_by: Origin, ignored: Option<&'static str>| {
        let path = file::absolute(&path, environment.working_directory.as_deref());
        let status = match ignored {
            Some(reason) => Status::Ignored(reason),
            None => match environment.files.look(&path).map_err(|error| error.kind()) {
                Err(ErrorKind::NotFound | ErrorKind::NotADirectory) => Status::Missing,
                Err(ErrorKind::PermissionDenied) if named_by == Origin::Default => Status::OutOfReach,
                // Whatever else is wrong with it, reading it says so.
                Ok(_) | Err(_) => Status::Found,
            },
        };
        candidates.push(Candidate { path, content, trust, named_by, status });
    };
    let not_wanted = no_files.then_some("--no-config was given");
    let config_directory = environment.config_directory();

    if let Some(directory) = &config_directory {
        let reason = not_wanted.or(named.is_some().then_some("another config file was named"));
        add(directory.join("config.conf"), Content::Options, Trust::Full, Origin::Default, reason);
    }
    if let Some(path) = named {
        add(path, Content::Options, Trust::Full, config.origin().clone(), None);
    }
    if let Some(home) = &environment.home {
        add(home.join(".rano.toml"), Content::Providers, Trust::Full, Origin::Default, not_wanted);
    }
    if let Some(directory) = &config_directory {
        add(directory.join("rano.toml"), Content::Providers, Trust::Full, Origin::Default, not_wanted);
    }
    if environment.working_directory.is_some() {
        let as_root = environment.is_root.then_some("root does not read what an agent may have written");
        let reason = not_wanted.or(as_root);
        add("rano.toml".into(), Content::Providers, Trust::AddOnly, Origin::Default, reason);
    }
    for assignment in assignments.iter().filter(|assignment| assignment.option == Field::config_toml) {
        if let Value::Path(path) = &assignment.value {
            add(path.clone(), Content::Providers, Trust::Full, assignment.origin.clone(), None);
        }
    }
    leave_out_twins(&mut candidates);
    candidates
}

/// Started in `~/.config/rano`, the working directory's file is one that is read anyway, and trusted.
fn leave_out_twins(candidates: &mut [Candidate]) {
    let trusted: Vec<_> = candidates
        .iter()
        .filter(|candidate| candidate.trust == Trust::Full && candidate.status == Status::Found)
        .map(|candidate| candidate.path.clone())
        .collect();
    for candidate in candidates.iter_mut().filter(|candidate| candidate.trust == Trust::AddOnly) {
        if candidate.status == Status::Found && trusted.contains(&candidate.path) {
            candidate.status = Status::Ignored("it is read under another name");
        }
    }
}
