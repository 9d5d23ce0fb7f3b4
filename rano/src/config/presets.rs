//! Presets: named sets of options. Four are built in; a file `presets/NAME.conf` beside the config file is a user's own
//! and, under the name of a built-in one, takes its place.

use std::io::{ErrorKind, Read as _};
use std::path::{Path, PathBuf};

use super::environment::Environment;
use super::file;
use super::finding::{ENVIRONMENT, Finding, Severity};
use super::layers::{Assignment, Origin, Resolved};
use super::value::{Value, quoted};
use crate::files::{Files, NamedBy, Reading};

/// Name, description, content.
const BUILT_IN: [(&str, &str, &str); 4] = [
    (
        "audit",
        "Keep everything, show the summary only",
        "stats_interval_ms=0\ninclude_udp=true\nsummary_only=true\n",
    ),
    ("live", "Stats twice a second, ten lines of them", "stats_interval_ms=500\nstats_top=10\n"),
    ("quiet", "Say nothing but the summary", "stats_interval_ms=0\nno_banner=true\nsummary_only=true\n"),
    (
        "verbose",
        "Show listeners and accepted connections too",
        "include_udp=true\ninclude_listening=true\nstats_interval_ms=1000\n",
    ),
];

const DESCRIPTION: &str = "# Description:";

/// A preset that can be asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Preset {
    pub name: String,
    /// Empty where the file has none. Raw: escape before showing.
    pub description: String,
    /// `None` for a built-in one.
    pub path: Option<PathBuf>,
}

/// All there are, by name.
pub fn all(environment: &Environment) -> Vec<Preset> {
    let mut presets: Vec<Preset> = own(environment)
        .into_iter()
        .map(|(name, path)| Preset {
            name,
            description: description(&environment.files, &path),
            path: Some(path),
        })
        .collect();
    for (name, description, _) in BUILT_IN {
        if !presets.iter().any(|preset| preset.name == name) {
            presets.push(Preset { name: name.into(), description: description.into(), path: None });
        }
    }
    presets.sort_by(|a, b| a.name.cmp(&b.name));
    presets
}

/// Where a user's own presets lie.
pub fn directory(environment: &Environment) -> Option<PathBuf> {
    Some(environment.config_directory()?.join("presets"))
}

/// Name and file of each of a user's own. A directory that cannot be read holds none that could be used.
fn own(environment: &Environment) -> Vec<(String, PathBuf)> {
    let Some(directory) = directory(environment) else { return Vec::new() };
    environment
        .files
        .names(&directory)
        .iter()
        .filter_map(|file| {
            let name = file.to_str()?.strip_suffix(".conf")?;
            is_name(name).then(|| (name.to_owned(), directory.join(file)))
        })
        .collect()
}

/// It becomes part of a path, and of a list that is read.
fn is_name(name: &str) -> bool {
    !name.is_empty()
        && !name.starts_with('.')
        && name.chars().all(|c| c != '/' && c != ',' && !c.is_control() && !c.is_whitespace())
}

/// What follows `# Description:` in the first line of at most 512 bytes.
fn description(files: &Files, path: &Path) -> String {
    let mut begin = Vec::new();
    let opened = files.open(path, NamedBy::Configuration, Reading::Instructions { pipe: false });
    let read = opened.map(|file| file.take(512).read_to_end(&mut begin));
    let text = String::from_utf8_lossy(&begin);
    let first = text.trim_start_matches('\u{feff}').lines().next().unwrap_or_default();
    match (read, first.strip_prefix(DESCRIPTION)) {
        (Ok(Ok(_)), Some(description)) => description.trim().to_owned(),
        _ => String::new(),
    }
}

/// The assignments of the presets that `chosen` names, in its order, and the files that were read.
pub(super) fn load(
    chosen: &Resolved,
    environment: &Environment,
    findings: &mut Vec<Finding>,
) -> (Vec<Assignment>, Vec<PathBuf>) {
    let mut assignments = Vec::new();
    let mut files = Vec::new();
    let Value::List(names) = chosen.value() else { return (assignments, files) };
    for name in names.iter().map(Value::to_string) {
        let path = directory(environment)
            .filter(|_| is_name(&name))
            .map(|directory| directory.join(format!("{name}.conf")))
            .filter(
                |path| !matches!(environment.files.look(path), Err(error) if error.kind() == ErrorKind::NotFound),
            );
        if let Some(path) = path {
            assignments.extend(read(&name, &path, environment, findings));
            files.push(path);
        } else if let Some((_, _, text)) = BUILT_IN.iter().find(|(known, ..)| *known == name) {
            let origin = |_| Origin::Preset { name: name.clone(), place: None };
            assignments.extend(file::parse(text, Path::new(&name), environment, origin, findings));
        } else {
            let available: Vec<_> = all(environment).into_iter().map(|preset| preset.name).collect();
            let message = format!("Unknown preset '{}'. Available: {}", quoted(&name), available.join(", "));
            let place = if *chosen.origin() == Origin::Flag { "--preset" } else { ENVIRONMENT };
            findings.push(Finding::new(Severity::Usage, Path::new(place), None, message));
        }
    }
    (assignments, files)
}

/// Reads every preset of the user's own for what is wrong with it, but those in `already`; the files.
pub(super) fn check(
    environment: &Environment,
    already: &[PathBuf],
    findings: &mut Vec<Finding>,
) -> Vec<PathBuf> {
    let mut files = Vec::new();
    let mut presets = own(environment);
    presets.sort();
    for (name, path) in presets {
        if !already.contains(&path) {
            read(&name, &path, environment, findings);
            files.push(path);
        }
    }
    files
}

fn read(name: &str, path: &Path, environment: &Environment, findings: &mut Vec<Finding>) -> Vec<Assignment> {
    match file::read(&environment.files, path, &Origin::Default) {
        Ok(text) => {
            let origin =
                |line| Origin::Preset { name: name.to_owned(), place: Some((path.to_owned(), line)) };
            file::parse(&text, path, environment, origin, findings)
        }
        Err(finding) => {
            findings.push(finding);
            Vec::new()
        }
    }
}
