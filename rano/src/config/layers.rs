//! Who set what: assignments from all layers, applied from the lowest to the highest.

use std::ffi::OsStr;
use std::fmt;
use std::path::{Path, PathBuf};

use clap::ArgMatches;
use clap::parser::ValueSource;

use super::environment::Environment;
use super::file;
use super::finding::{self, Finding, Severity};
use super::options::{Field, OPTIONS, Settings};
use super::spec::{Effect, OptionSpec, Spelling};
use super::value::{Kind, Value};
use crate::files::NamedBy;

/// Where a value comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    Default,
    File {
        path: PathBuf,
        line: usize,
    },
    Preset {
        name: String,
        /// File and line, unless it is built in.
        place: Option<(PathBuf, usize)>,
    },
    Environment {
        variable: String,
    },
    Flag,
}

impl Origin {
    /// On whose word a path is opened that stands there.
    pub fn named_by(&self) -> NamedBy {
        if *self == Self::Flag { NamedBy::CommandLine } else { NamedBy::Configuration }
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => f.write_str("default"),
            Self::File { path, line } => write!(f, "config file {}:{line}", path.display()),
            Self::Preset { name, place: None } => write!(f, "preset {name}"),
            Self::Preset { name, place: Some((path, line)) } => {
                write!(f, "preset {name} {}:{line}", path.display())
            }
            Self::Environment { variable } => write!(f, "environment {variable}"),
            Self::Flag => f.write_str("flag"),
        }
    }
}

/// A key was given a value.
#[derive(Debug, Clone, PartialEq)]
pub struct Assignment {
    pub(super) option: Field,
    pub(super) effect: Effect,
    pub(super) value: Value,
    pub(super) origin: Origin,
}

/// An option after all layers.
#[derive(Debug, Clone)]
pub struct Resolved {
    pub spec: &'static OptionSpec,
    value: Value,
    origin: Origin,
    /// The `Override` that stands beside it, whether it holds, and who said so.
    overridden: (bool, Origin),
}

impl Resolved {
    fn new(spec: &'static OptionSpec) -> Self {
        Self {
            spec,
            value: spec.default_value(),
            origin: Origin::Default,
            overridden: (false, Origin::Default),
        }
    }

    /// What holds where nobody said anything, if that is known only now.
    pub(super) fn set_default(&mut self, value: Value) {
        if self.origin == Origin::Default {
            self.value = value;
        }
    }

    fn apply(&mut self, assignment: Assignment) {
        let Assignment { effect, value, origin, .. } = assignment;
        match (effect, value) {
            (Effect::Set, value) => {
                self.value = value;
                self.overridden = (false, origin.clone());
                self.origin = origin;
            }
            (Effect::Invert, value) => {
                self.value = invert(value);
                self.origin = origin;
            }
            (Effect::Override(_), value) => self.overridden = (value == Value::Switch(true), origin),
        }
    }

    /// The value that counts.
    pub fn value(&self) -> Value {
        let word = self.spec.spellings.iter().find_map(|spelling| match spelling.effect {
            Effect::Override(word) if self.overridden.0 => Some(word),
            Effect::Override(_) | Effect::Set | Effect::Invert => None,
        });
        match word {
            Some("") => Value::Absent,
            Some(word) => Value::Choice(word),
            None => self.value.clone(),
        }
    }

    /// Who set the value that counts.
    pub fn origin(&self) -> &Origin {
        if self.overridden.0 { &self.overridden.1 } else { &self.origin }
    }

    /// The lines of a config file that say the same: key, value, and who set it. An override has a line of its own,
    /// beside the value that it hides.
    pub fn lines(&self) -> Vec<(&'static str, Value, &Origin)> {
        let mut lines = Vec::new();
        for (position, spelling) in self.spec.spellings.iter().enumerate() {
            match spelling.effect {
                Effect::Set if position == 0 => lines.push((spelling.key, self.value.clone(), &self.origin)),
                Effect::Invert if position == 0 => {
                    lines.push((spelling.key, invert(self.value.clone()), &self.origin));
                }
                Effect::Override(_) => {
                    lines.push((spelling.key, Value::Switch(self.overridden.0), &self.overridden.1));
                }
                Effect::Set | Effect::Invert => {}
            }
        }
        lines
    }
}

fn invert(value: Value) -> Value {
    if let Value::Switch(on) = value { Value::Switch(!on) } else { value }
}

/// Apply `assignments`, lowest layer first, to the built-in defaults. In the order of [`OPTIONS`].
pub fn resolve(assignments: impl IntoIterator<Item = Assignment>) -> Vec<Resolved> {
    let mut resolved: Vec<_> = OPTIONS.iter().map(Resolved::new).collect();
    for assignment in assignments {
        resolved[assignment.option as usize].apply(assignment);
    }
    resolved
}

pub(super) fn settings(resolved: &[Resolved]) -> Settings {
    Settings::collect(|field| resolved[field as usize].value())
}

/// Every key there is, with its option.
pub(super) fn keys() -> impl Iterator<Item = (Field, &'static OptionSpec, &'static Spelling)> {
    let options = Field::ALL.iter().zip(OPTIONS);
    options.flat_map(|(field, spec)| spec.spellings.iter().map(move |spelling| (*field, spec, spelling)))
}

/// What the variables `RANO_<KEY>` say. Where both of an opposing pair are set, the `no_` one wins. `NO_COLOR` is one
/// of them, and weaker than `RANO_COLOR`.
pub(super) fn from_environment(environment: &Environment, findings: &mut Vec<Finding>) -> Vec<Assignment> {
    let mut assignments = Vec::new();
    for (option, spec, spelling) in keys() {
        if option == Field::color && spelling.effect == Effect::Set && environment.no_color() {
            let never = OsStr::new("never");
            if let Ok(value) = spec.parse(spelling, never) {
                let origin = Origin::Environment { variable: "NO_COLOR".into() };
                assignments.push(Assignment { option, effect: spelling.effect, value, origin });
            }
        }
        let variable = spelling.variable();
        let Some(raw) = environment.variable(&variable) else { continue };
        let value = spec.parse(spelling, raw).map_err(|rejection| rejection.sentence(&variable, raw));
        match value.and_then(|value| file::check_parent(&environment.files, spec, &value).map(|()| value)) {
            Ok(value) => {
                let origin = Origin::Environment { variable };
                assignments.push(Assignment { option, effect: spelling.effect, value, origin });
            }
            Err(message) => {
                findings.push(Finding::new(Severity::Error, Path::new(finding::ENVIRONMENT), None, message));
            }
        }
    }
    let unknown = environment.names().filter_map(misspelt);
    findings.extend(
        unknown.map(|text| Finding::new(Severity::Warning, Path::new(finding::ENVIRONMENT), None, text)),
    );
    assignments
}

/// What to say about a variable that is nearly one of an option. Another `RANO_…` may be another program's.
fn misspelt(name: &str) -> Option<String> {
    // Comparing takes time in proportion to the length.
    if !name.starts_with("RANO_") || name.len() > 64 {
        return None;
    }
    let variables = || keys().map(|(_, _, spelling)| spelling.variable());
    if variables().any(|variable| variable == name) {
        return None;
    }
    let near = |variable: String| {
        let distance = strsim::damerau_levenshtein(name, &variable);
        (distance <= 2).then_some((distance, variable))
    };
    let (_, nearest) = variables().filter_map(near).min()?;
    Some(format!("unknown variable '{name}' (possible typo?): the nearest is '{nearest}'"))
}

/// What the flags say, in the order in which they were given. Of a flag given twice the last one counts; a list takes
/// all of them.
pub(super) fn from_flags(matches: &ArgMatches) -> Vec<Assignment> {
    let mut assignments = Vec::new();
    for (option, spec, spelling) in keys() {
        // A subcommand takes only some of the options.
        if !matches!(matches.try_contains_id(spelling.key), Ok(true))
            || matches.value_source(spelling.key) != Some(ValueSource::CommandLine)
        {
            continue;
        }
        let position = matches.indices_of(spelling.key).and_then(Iterator::last).unwrap_or(0);
        let mut values: Vec<_> = matches
            .get_raw(spelling.key)
            .into_iter()
            .flatten()
            .filter_map(|raw| spec.parse_one(spelling, raw).ok())
            .collect();
        let value = if matches!(spec.kind, Kind::List(_)) && !spelling.is_switch(spec) {
            Value::List(values)
        } else {
            let Some(last) = values.pop() else { continue };
            last
        };
        let origin = Origin::Flag;
        assignments.push((position, Assignment { option, effect: spelling.effect, value, origin }));
    }
    assignments.sort_by_key(|(position, _)| *position);
    assignments.into_iter().map(|(_, assignment)| assignment).collect()
}
