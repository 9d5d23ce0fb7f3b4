//! What rano is told: every option declared once, five layers that set it, files that are checked before anything
//! starts. Nothing else reads the environment.

pub mod agents;
mod document;
pub mod endpoints;
pub mod environment;
pub mod file;
pub mod finding;
pub mod flags;
pub mod layers;
pub mod options;
pub mod presets;
pub mod providers;
pub mod sample;
pub mod search;
pub mod spec;
pub mod value;

#[cfg(test)]
pub(crate) mod tests;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use clap::ArgMatches;

pub use agents::{AgentEntry, AgentsConfig};
pub use document::TomlOrigin;
pub use endpoints::{EndpointEntry, EndpointsConfig};
pub use environment::Environment;
pub use finding::{Finding, Severity};
pub use layers::{Origin, Resolved};
pub use options::{
    ColorChoice, DomainMode, Exclude, Field, FormatChoice, LogFormat, OPTIONS, RungChoice, Settings,
};
pub use providers::{Mode, ProviderEntry, ProvidersConfig};
pub use search::Candidate;

use crate::files::Files;
use crate::process::agents::Agent;
use crate::process::matching::Wanted;
use crate::process::provider::{self, Providers};
use crate::process::roster::Roster;
use document::Document;
use layers::Assignment;
use search::{Content, Status};
pub use value::ByteSize;
use value::Value;

/// A configuration without errors.
#[derive(Debug, Clone)]
pub struct Configuration {
    pub settings: Settings,
    /// Every option with its origin, in the order of [`OPTIONS`].
    pub options: Vec<Resolved>,
    pub providers: ProvidersConfig,
    pub endpoints: EndpointsConfig,
    pub agents: AgentsConfig,
    /// The files that were read, lowest first.
    pub files_used: Vec<PathBuf>,
    /// For the banner.
    pub notes: Vec<String>,
    pub warnings: Vec<Finding>,
}

impl Configuration {
    /// Who set an option.
    pub fn origin(&self, field: Field) -> &Origin {
        self.options[field as usize].origin()
    }

    /// Whether anybody set it.
    pub fn is_given(&self, field: Field) -> bool {
        *self.origin(field) != Origin::Default
    }

    /// What is watched, beside pids: the one place where given patterns are told from none.
    pub fn wanted(&self) -> Wanted {
        if self.is_given(Field::pattern) {
            Wanted::Patterns(self.settings.pattern.clone())
        } else {
            Wanted::Agents(Arc::new(Roster::new(self.agents.agents())))
        }
    }

    /// All providers that a connection can have, those that are built in first, and `unknown`.
    pub fn provider_names(&self) -> Vec<String> {
        let built_in = crate::process::agents::built_in_providers().into_iter().map(|(name, _)| name);
        let mut names: Vec<String> = built_in.chain([provider::UNKNOWN.to_owned()]).collect();
        for name in self.providers().names() {
            if !names.iter().any(|known| **known == **name) {
                names.push(name.to_string());
            }
        }
        names
    }

    /// Who acts on whose behalf. Agents that are built in go with the providers that are.
    pub fn providers(&self) -> Providers {
        let entry = |entry: &ProviderEntry| provider::ProviderEntry {
            name: entry.name.clone(),
            patterns: entry.patterns.clone(),
            origin: entry.origin.authority(),
        };
        let counts =
            |entry: &AgentEntry| entry.origin != TomlOrigin::Default || self.providers.mode == Mode::Merge;
        let agents = self.agents.entries.iter().map(|entry| {
            let provider = entry.agent.provider.clone().filter(|_| counts(entry));
            Agent { provider, ..entry.agent.clone() }
        });
        Providers::new(self.providers.entries.iter().map(entry)).with_agents(agents)
    }
}

/// What all layers say, right or wrong.
struct Gathered {
    /// Lowest layer first.
    assignments: Vec<Assignment>,
    providers: ProvidersConfig,
    endpoints: EndpointsConfig,
    agents: AgentsConfig,
    candidates: Vec<Candidate>,
    files_used: Vec<PathBuf>,
    findings: Vec<Finding>,
}

/// Put the layers together: built-in defaults, config file, presets, environment, flags, each stronger than the one
/// before. `Err` holds everything that was found, warnings too, if anything is an error.
pub fn load(matches: &ArgMatches, environment: &Environment) -> Result<Configuration, Vec<Finding>> {
    let mut gathered = gather(matches, environment);
    go_on_without(&gathered.candidates, &mut gathered.findings);
    if gathered.findings.iter().any(Finding::is_error) {
        return Err(gathered.findings);
    }
    let notes = gathered.notes(environment);
    let mut options = layers::resolve(gathered.assignments);
    let agents = gathered.agents.entries.iter().map(|entry| Value::Text(entry.agent.name.clone()));
    options[Field::pattern as usize].set_default(Value::List(agents.collect()));
    Ok(Configuration {
        settings: layers::settings(&options),
        options,
        providers: gathered.providers,
        endpoints: gathered.endpoints,
        agents: gathered.agents,
        files_used: gathered.files_used,
        notes,
        warnings: gathered.findings,
    })
}

/// What is wrong with a file that the watched agent may have written must not keep rano from observing.
fn go_on_without(candidates: &[Candidate], findings: &mut [Finding]) {
    let add_only = |path: &Path| {
        let mut known = candidates.iter().filter(|candidate| candidate.path == path);
        known.any(|candidate| candidate.trust == search::Trust::AddOnly && candidate.is_wanted())
    };
    for finding in findings.iter_mut().filter(|finding| finding.is_error() && add_only(&finding.path)) {
        finding.severity = Severity::Warning;
        finding.message.push_str("; left out");
    }
}

/// What there is to say of all files.
#[derive(Debug)]
pub struct Checked {
    /// Everything that is wrong, in presets that were not chosen too.
    pub findings: Vec<Finding>,
    /// What a file was not allowed to do.
    pub notes: Vec<String>,
    /// Those that were read.
    pub files: Vec<PathBuf>,
}

pub fn check(matches: &ArgMatches, environment: &Environment) -> Checked {
    let mut gathered = gather(matches, environment);
    let notes = gathered.notes(environment);
    let Gathered { mut findings, files_used: mut files, .. } = gathered;
    files.extend(presets::check(environment, &files, &mut findings));
    Checked { findings, notes, files }
}

impl Gathered {
    /// What the files were not allowed to do.
    fn notes(&mut self, environment: &Environment) -> Vec<String> {
        let mut notes = ignored_notes(&environment.files, &self.candidates);
        notes.append(&mut self.providers.notes);
        notes.append(&mut self.endpoints.notes);
        notes.append(&mut self.agents.notes);
        notes
    }
}

fn gather(matches: &ArgMatches, environment: &Environment) -> Gathered {
    let mut findings = Vec::new();
    let above = above_files(matches, environment, &mut findings);
    let candidates = search::candidates(environment, &above, &named_option(&above, Field::config));

    findings.extend(candidates.iter().filter(|candidate| candidate.status == Status::OutOfReach).map(
        |candidate| {
            let message = "is left out: its directory may not be entered";
            Finding::new(Severity::Warning, &candidate.path, None, message.into())
        },
    ));
    let mut assignments: Vec<Assignment> = Vec::new();
    let mut provider_files = Vec::new();
    let mut files_used = Vec::new();
    for candidate in candidates.iter().filter(|candidate| candidate.is_wanted()) {
        let text = match file::read(&environment.files, &candidate.path, &candidate.named_by) {
            Ok(text) => text,
            Err(finding) => {
                findings.push(finding);
                continue;
            }
        };
        files_used.push(candidate.path.clone());
        match candidate.content {
            Content::Options => {
                let origin = |line| Origin::File { path: candidate.path.clone(), line };
                assignments.extend(file::parse(&text, &candidate.path, environment, origin, &mut findings));
            }
            Content::Providers => provider_files.push((candidate, text)),
        }
    }
    let documents: Vec<Document<'_>> = provider_files
        .iter()
        .filter_map(|(candidate, text)| Document::read(&candidate.path, text, candidate.trust, &mut findings))
        .collect();
    let providers = providers::combine(&documents, &mut findings);
    let endpoints = endpoints::combine(&documents, &mut findings);
    let agents = agents::combine(&documents, &mut findings);
    let chosen = named_option(&above, Field::preset);
    let (from_presets, preset_files) = presets::load(&chosen, environment, &mut findings);
    assignments.extend(from_presets);
    assignments.extend(above);
    files_used.extend(preset_files);
    Gathered { assignments, providers, endpoints, agents, candidates, files_used, findings }
}

/// Every place where a file is looked for, in the order in which they count. Reads no file.
pub fn paths(matches: &ArgMatches, environment: &Environment) -> Vec<Candidate> {
    // What is wrong with the environment does not change where files are.
    let above = above_files(matches, environment, &mut Vec::new());
    search::candidates(environment, &above, &named_option(&above, Field::config))
}

/// The layers that also say which files to read.
fn above_files(
    matches: &ArgMatches,
    environment: &Environment,
    findings: &mut Vec<Finding>,
) -> Vec<Assignment> {
    let mut above = layers::from_environment(environment, findings);
    above.extend(layers::from_flags(matches));
    above
}

/// One of the options that say which files to read.
fn named_option(above: &[Assignment], field: Field) -> Resolved {
    layers::resolve(above.iter().cloned()).swap_remove(field as usize)
}

/// A file in the working directory that somebody put there and that is not read is worth a line.
fn ignored_notes(files: &Files, candidates: &[Candidate]) -> Vec<String> {
    candidates
        .iter()
        .filter(|candidate| candidate.trust == search::Trust::AddOnly)
        .filter_map(|candidate| match candidate.status {
            Status::Ignored(reason) if files.look(&candidate.path).is_ok() => {
                Some(format!("{} is not read: {reason}", candidate.path.display()))
            }
            Status::Ignored(_) | Status::Missing | Status::OutOfReach => None,
            Status::Found => {
                Some(format!("{} can only add providers and endpoints", candidate.path.display()))
            }
        })
        .collect()
}
