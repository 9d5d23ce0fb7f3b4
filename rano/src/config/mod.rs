//! What rano is told: every option declared once, five layers that set it, files that are checked before anything
//! starts. Nothing else reads the environment.

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

use clap::ArgMatches;

pub use endpoints::{EndpointEntry, EndpointsConfig};
pub use environment::Environment;
pub use finding::{Finding, Severity};
pub use layers::{Origin, Resolved};
pub use options::{ColorChoice, DomainMode, Exclude, LogFormat, OPTIONS, RungChoice, Settings, SourceChoice};
pub use providers::ProvidersConfig;
pub use search::Candidate;

use crate::files::Files;
use layers::Assignment;
use search::{Content, Status};

/// A configuration without errors.
#[derive(Debug, Clone)]
pub struct Configuration {
    pub settings: Settings,
    /// Every option with its origin, in the order of [`OPTIONS`].
    pub options: Vec<Resolved>,
    pub providers: ProvidersConfig,
    pub endpoints: EndpointsConfig,
    /// The files that were read, lowest first.
    pub files_used: Vec<PathBuf>,
    /// For the banner.
    pub notes: Vec<String>,
    pub warnings: Vec<Finding>,
}

impl Configuration {
    /// Who set the option that is the field `name` of [`Settings`].
    pub fn origin(&self, name: &str) -> Option<&Origin> {
        self.options.iter().find(|option| option.spec.name == name).map(Resolved::origin)
    }
}

/// What all layers say, right or wrong.
struct Gathered {
    /// Lowest layer first.
    assignments: Vec<Assignment>,
    providers: ProvidersConfig,
    endpoints: EndpointsConfig,
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
    let options = layers::resolve(gathered.assignments);
    let mut notes = ignored_notes(&environment.files, &gathered.candidates);
    notes.extend(gathered.providers.notes.iter().cloned());
    notes.extend(gathered.endpoints.notes.iter().cloned());
    Ok(Configuration {
        settings: layers::settings(&options),
        options,
        providers: gathered.providers,
        endpoints: gathered.endpoints,
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

/// Everything that is wrong, in presets that were not chosen too, and the files that were read.
pub fn check(matches: &ArgMatches, environment: &Environment) -> (Vec<Finding>, Vec<PathBuf>) {
    let Gathered { mut findings, mut files_used, .. } = gather(matches, environment);
    files_used.extend(presets::check(environment, &files_used, &mut findings));
    (findings, files_used)
}

fn gather(matches: &ArgMatches, environment: &Environment) -> Gathered {
    let mut findings = Vec::new();
    let above = above_files(matches, environment, &mut findings);
    let candidates = search::candidates(environment, &above, &named_option(&above, "config"));

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
    let sources: Vec<_> = provider_files
        .iter()
        .map(|(candidate, text)| providers::Source { path: &candidate.path, text, trust: candidate.trust })
        .collect();
    let providers = providers::combine(&sources, &mut findings);
    let endpoints = endpoints::combine(&sources, &mut findings);
    let chosen = named_option(&above, "preset");
    let (from_presets, preset_files) = presets::load(&chosen, environment, &mut findings);
    assignments.extend(from_presets);
    assignments.extend(above);
    files_used.extend(preset_files);
    Gathered { assignments, providers, endpoints, candidates, files_used, findings }
}

/// Every place where a file is looked for, in the order in which they count. Reads no file.
pub fn paths(matches: &ArgMatches, environment: &Environment) -> Vec<Candidate> {
    // What is wrong with the environment does not change where files are.
    let above = above_files(matches, environment, &mut Vec::new());
    search::candidates(environment, &above, &named_option(&above, "config"))
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
fn named_option(above: &[Assignment], name: &str) -> Resolved {
    layers::resolve(above.iter().cloned())
        .into_iter()
        .find(|option| option.spec.name == name)
        .expect("it is in the table")
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
