//! Reading a policy: TOML, checked to the last key, errors with line and column, files that extend others.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use jiff::tz::TimeZone;
use serde::Deserialize;
use toml::{Spanned, Value};

use super::error::line_and_column;
use super::rule::{DomainPattern, Who, domain_problem, network_problem};
use super::{
    Defaults, EVIDENCE, Limits, Place, Policy, PolicyError, PolicyFile, Require, Resolvers, Rule, Unnamed,
    sha256,
};
use crate::filter::{self, Network};
use crate::glob::Glob;
use crate::time_argument;
use crate::words::{Class, SourceKind};

/// Files that may extend each other, one behind the other.
const DEPTH_MAX: usize = 8;
/// Rules of all files together.
const RULES_MAX: usize = 20_000;

/// A file as its reader found it.
#[derive(Debug, Clone)]
pub struct Loaded {
    /// By which it is recognised if another file names it again.
    pub canonical: PathBuf,
    pub text: String,
}

/// Reads the policy at `path`, with everything that it extends. `read` opens a file.
pub fn load<E: From<PolicyError>>(
    path: &Path,
    mut read: impl FnMut(&Path) -> Result<Loaded, E>,
) -> Result<Policy, E> {
    let mut reader = Reader { read: &mut read, open: Vec::new(), files: Vec::new(), rules: 0 };
    let loaded = (reader.read)(path)?;
    let parts = reader.file(path, loaded, Parts::default())?;
    Ok(Policy {
        path: path.to_owned(),
        require: parts.require,
        defaults: parts.defaults,
        limits: parts.limits,
        allow: parts.allow,
        deny: parts.deny,
        files: reader.files,
    })
}

/// What a file says, and what those say that it extends.
#[derive(Default)]
struct Parts {
    require: Require,
    defaults: Defaults,
    limits: Limits,
    allow: Vec<Rule>,
    deny: Vec<Rule>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawFile {
    version: Spanned<i64>,
    extends: Option<Spanned<Value>>,
    require: Option<Spanned<RawRequire>>,
    defaults: Option<RawDefaults>,
    #[serde(default)]
    allow: Vec<Spanned<RawRule>>,
    #[serde(default)]
    deny: Vec<Spanned<RawRule>>,
    limits: Option<Spanned<RawLimits>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawRequire {
    source: Option<Vec<Spanned<String>>>,
    complete: Option<bool>,
    names: Option<Vec<Spanned<String>>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawDefaults {
    unnamed: Option<Spanned<String>>,
    ignore_classes: Option<Vec<Spanned<String>>>,
    resolvers: Option<Spanned<String>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawLimits {
    sent_per_endpoint: Option<Spanned<Value>>,
    received_per_endpoint: Option<Spanned<Value>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawRule {
    domain: Option<Spanned<String>>,
    class: Option<Spanned<String>>,
    cidr: Option<Spanned<String>>,
    ports: Option<Vec<Spanned<i64>>>,
    provider: Option<Spanned<String>>,
    who: Option<Spanned<String>>,
    agent: Option<Spanned<String>>,
    reason: Option<String>,
    expires: Option<Spanned<Value>>,
    sent: Option<Spanned<Value>>,
}

struct Reader<'a, E> {
    read: &'a mut dyn FnMut(&Path) -> Result<Loaded, E>,
    /// Files that are being read, by their canonical paths: each extends the next.
    open: Vec<PathBuf>,
    files: Vec<PolicyFile>,
    rules: usize,
}

impl<E: From<PolicyError>> Reader<'_, E> {
    /// What `loaded` says goes before `parts`, which other files said, key by key.
    fn file(&mut self, path: &Path, loaded: Loaded, mut parts: Parts) -> Result<Parts, E> {
        let Loaded { canonical, text } = loaded;
        self.files.push(PolicyFile { path: path.to_owned(), sha256: sha256(text.as_bytes()) });
        let here = Here { path, text: &text, file: path.to_string_lossy().into() };
        let raw: RawFile = toml::from_str(&text).map_err(|error| here.toml(&error))?;
        if *raw.version.get_ref() != 1 {
            let message = format!("this rano reads version 1, not {}", raw.version.get_ref());
            return Err(here.error(&raw.version, message).into());
        }
        self.open.push(canonical);
        for (at, name) in raw.extends.iter().flat_map(names_in) {
            let Some(name) = name else {
                return Err(here.at(at, "'extends' is a file or a list of files").into());
            };
            parts = self.extended(&here, at, &name, parts)?;
        }
        self.open.pop();
        self.rules += raw.allow.len() + raw.deny.len();
        if self.rules > RULES_MAX {
            return Err(here.at(0, format!("more than {RULES_MAX} rules")).into());
        }
        Ok(here.parts(raw, parts)?)
    }

    fn extended(&mut self, here: &Here<'_>, at: usize, name: &str, parts: Parts) -> Result<Parts, E> {
        if self.open.len() >= DEPTH_MAX {
            let message = format!("more than {DEPTH_MAX} files that extend each other");
            return Err(here.at(at, message).into());
        }
        let beside = here.path.parent().unwrap_or(Path::new("")).join(name);
        let loaded = (self.read)(&beside)?;
        if self.open.contains(&loaded.canonical) {
            return Err(here.at(at, format!("'{name}' extends this file: a circle")).into());
        }
        self.file(&beside, loaded, parts)
    }
}

/// The names that a value gives, and where it stands; `None` for what is no name.
fn names_in(value: &Spanned<Value>) -> Vec<(usize, Option<String>)> {
    let at = value.span().start;
    match value.get_ref() {
        Value::String(name) => vec![(at, Some(name.clone()))],
        Value::Array(list) => list.iter().map(|name| (at, name.as_str().map(str::to_owned))).collect(),
        _ => vec![(at, None)],
    }
}

/// Where an error is told of.
struct Here<'a> {
    path: &'a Path,
    text: &'a str,
    file: Arc<str>,
}

type Checked<T> = Result<T, PolicyError>;

impl Here<'_> {
    fn at(&self, at: usize, message: impl Into<String>) -> PolicyError {
        PolicyError::at(self.path, self.text, at, message)
    }

    fn error<T>(&self, value: &Spanned<T>, message: impl Into<String>) -> PolicyError {
        self.at(value.span().start, message)
    }

    fn toml(&self, error: &toml::de::Error) -> PolicyError {
        let message = error.message().trim().replace('\n', ", ");
        self.at(error.span().map_or(0, |span| span.start), message)
    }

    fn place<T>(&self, value: &Spanned<T>) -> Place {
        Place { file: Arc::clone(&self.file), line: line_and_column(self.text, value.span().start).0 }
    }

    fn parts(&self, raw: RawFile, mut parts: Parts) -> Checked<Parts> {
        for rule in raw.allow {
            parts.allow.push(self.allow(rule)?);
        }
        for rule in raw.deny {
            parts.deny.push(self.deny(rule)?);
        }
        if let Some(require) = raw.require {
            parts.require = self.require(require, parts.require)?;
        }
        if let Some(defaults) = raw.defaults {
            parts.defaults = self.defaults(defaults, parts.defaults)?;
        }
        if let Some(limits) = raw.limits {
            parts.limits = self.limits(limits, &parts.limits)?;
        }
        Ok(parts)
    }

    fn require(&self, raw: Spanned<RawRequire>, usual: Require) -> Checked<Require> {
        let place = Some(self.place(&raw));
        let RawRequire { source, complete, names } = raw.into_inner();
        let sources = source.map(|words| {
            let each = words.iter().map(|word| self.sources(word)).collect::<Checked<Vec<_>>>();
            each.map(|each| each.concat())
        });
        let names = names.map(|words| {
            let known = |word: &Spanned<String>| {
                let text = word.get_ref().as_str();
                EVIDENCE.contains(&text).then(|| text.to_owned()).ok_or_else(|| {
                    self.error(
                        word,
                        format!("no such evidence '{text}'; it is one of {}", EVIDENCE.join(", ")),
                    )
                })
            };
            words.iter().map(known).collect::<Checked<Vec<_>>>()
        });
        Ok(Require {
            sources: sources.transpose()?.unwrap_or(usual.sources),
            complete: complete.unwrap_or(usual.complete),
            names: names.transpose()?.unwrap_or(usual.names),
            place,
        })
    }

    /// `ebpf` is every rung of it.
    fn sources(&self, word: &Spanned<String>) -> Checked<Vec<SourceKind>> {
        let text = word.get_ref().as_str();
        let is_meant = |kind: &SourceKind| {
            kind.name() == text || kind.name().split_once('-').is_some_and(|(family, _)| family == text)
        };
        let found: Vec<SourceKind> = SourceKind::ALL.into_iter().filter(is_meant).collect();
        if found.is_empty() {
            let known = SourceKind::ALL.map(SourceKind::name).join(", ");
            return Err(self.error(word, format!("no such source '{text}'; it is one of ebpf, {known}")));
        }
        Ok(found)
    }

    fn defaults(&self, raw: RawDefaults, usual: Defaults) -> Checked<Defaults> {
        let unnamed = raw.unnamed.map(|word| {
            let found = Unnamed::ALL.into_iter().find(|unnamed| unnamed.name() == word.get_ref());
            found.ok_or_else(|| self.error(&word, "'unnamed' is fail, warn or allow"))
        });
        let classes = raw
            .ignore_classes
            .map(|words| words.iter().map(|word| self.class(word)).collect::<Checked<Vec<_>>>());
        let resolvers = raw.resolvers.map(|word| match word.get_ref().as_str() {
            "system" => Ok(Resolvers::System),
            "none" => Ok(Resolvers::Nobody),
            _ => Err(self.error(&word, "'resolvers' is system or none")),
        });
        Ok(Defaults {
            unnamed: unnamed.transpose()?.unwrap_or(usual.unnamed),
            ignore_classes: classes.transpose()?.unwrap_or(usual.ignore_classes),
            resolvers: resolvers.transpose()?.unwrap_or(usual.resolvers),
        })
    }

    fn limits(&self, raw: Spanned<RawLimits>, usual: &Limits) -> Checked<Limits> {
        let place = Some(self.place(&raw));
        let RawLimits { sent_per_endpoint, received_per_endpoint } = raw.into_inner();
        let sent = sent_per_endpoint.map(|size| self.size(&size)).transpose()?;
        let received = received_per_endpoint.map(|size| self.size(&size)).transpose()?;
        Ok(Limits {
            sent_per_endpoint: sent.or(usual.sent_per_endpoint),
            received_per_endpoint: received.or(usual.received_per_endpoint),
            place,
        })
    }

    fn size(&self, value: &Spanned<Value>) -> Checked<u64> {
        let size = match value.get_ref() {
            Value::Integer(number) => u64::try_from(*number).ok(),
            Value::String(text) => filter::size(text),
            _ => None,
        };
        size.ok_or_else(|| self.error(value, "a size is a number of bytes, or text as \"50 MiB\""))
    }

    fn class(&self, word: &Spanned<String>) -> Checked<Class> {
        Class::parse(word.get_ref()).ok_or_else(|| {
            let known = Class::ALL.map(Class::name).join(", ");
            self.error(word, format!("no such class '{}'; it is one of {known}", word.get_ref()))
        })
    }

    fn allow(&self, raw: Spanned<RawRule>) -> Checked<Rule> {
        let (domain, cidr) = (raw.get_ref().domain.clone(), raw.get_ref().cidr.clone());
        let class = raw.get_ref().class.clone();
        let rule = self.rule(raw)?;
        if let (Some(word), Some(Class::Unknown)) = (&class, rule.class) {
            return Err(self.error(word, "class unknown is everything that nobody knows; name it"));
        }
        if let Some(domain) = &domain
            && let Some(problem) = domain_problem(domain.get_ref())
        {
            return Err(self.error(domain, problem));
        }
        if let (Some(written), Some(network)) = (&cidr, &rule.cidr)
            && let Some(problem) = network_problem(network)
        {
            return Err(self.error(written, problem));
        }
        Ok(rule)
    }

    fn deny(&self, raw: Spanned<RawRule>) -> Checked<Rule> {
        if let Some(expires) = &raw.get_ref().expires {
            return Err(self.error(expires, "a deny rule does not expire; remove it when it is over"));
        }
        if let Some(sent) = &raw.get_ref().sent {
            return Err(self.error(sent, "a deny rule has no limit: it permits nothing"));
        }
        self.rule(raw)
    }

    fn rule(&self, raw: Spanned<RawRule>) -> Checked<Rule> {
        let place = self.place(&raw);
        let at = raw.span().start;
        let raw = raw.into_inner();
        if raw.domain.is_none() && raw.class.is_none() && raw.cidr.is_none() {
            return Err(self.at(at, "a rule needs a domain, a class or a cidr"));
        }
        let glob = |text: Spanned<String>| {
            Glob::parse(text.get_ref()).map_err(|_| self.error(&text, "'[' without ']'"))
        };
        let domain = raw
            .domain
            .map(|text| DomainPattern::parse(text.get_ref()).map_err(|message| self.error(&text, message)));
        let cidr = raw.cidr.map(|text| {
            let parsed: Result<Network, _> = text.get_ref().parse();
            let message = "not an address; as \"192.0.2.1\", \"10.0.0.0/8\" or \"2001:db8::/32\"";
            parsed.map_err(|_| self.error(&text, message))
        });
        let who =
            raw.who.map(|text| Who::parse(text.get_ref()).map_err(|message| self.error(&text, message)));
        let ports = raw.ports.unwrap_or_default().into_iter().map(|port| {
            let number = u16::try_from(*port.get_ref()).ok();
            number.ok_or_else(|| self.error(&port, "a port is a number from 0 to 65535"))
        });
        Ok(Rule {
            place,
            domain: domain.transpose()?,
            class: raw.class.map(|word| self.class(&word)).transpose()?,
            cidr: cidr.transpose()?,
            ports: ports.collect::<Checked<_>>()?,
            provider: raw.provider.map(glob).transpose()?,
            who: who.transpose()?,
            agent: raw.agent.map(glob).transpose()?,
            expires: raw.expires.map(|value| self.moment(&value)).transpose()?,
            sent: raw.sent.map(|value| self.size(&value)).transpose()?,
            reason: raw.reason,
        })
    }

    /// Unix milliseconds; of a date the midnight with which it begins, in UTC.
    fn moment(&self, value: &Spanned<Value>) -> Checked<i64> {
        let text = match value.get_ref() {
            Value::Datetime(moment) => moment.to_string(),
            Value::String(text) => text.clone(),
            _ => String::new(),
        };
        let is_absolute = text.get(4..5) == Some("-");
        let moment = time_argument::parse_moment(&text, 0, &TimeZone::UTC).ok().filter(|_| is_absolute);
        moment.ok_or_else(|| {
            self.error(value, "'expires' is a date, as 2026-12-31, or a time with an offset (RFC 3339)")
        })
    }
}
