//! `config.conf`: one `key=value` a line. A `#` at the beginning of a line or after a blank begins a comment.

use std::ffi::OsStr;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};

use super::environment::Environment;
use super::finding::{Finding, Severity};
use super::layers::{self, Assignment, Origin};
use super::options::Field;
use super::spec::{OptionSpec, Spelling};
use super::value::{Value, plain, quoted};
use crate::files::{Files, Problem, Reading, Refusal};

/// Far more than anybody writes by hand.
const LARGEST: u64 = 1 << 20;

/// Text of a file of at most 1 MiB, which `named_by` led to. One that somebody named may be a pipe.
pub(super) fn read(files: &Files, path: &Path, named_by: &Origin) -> Result<String, Finding> {
    let is_named = *named_by != Origin::Default;
    let bytes = read_bytes(files, path, named_by, is_named).map_err(|problem| {
        // It can be opened all right: it is the wrong thing to name.
        let is_directory = problem == Problem::Refused(Refusal::Directory);
        let severity = if is_named && !is_directory { Severity::CannotOpen } else { Severity::Error };
        let reason = match problem {
            Problem::Refused(Refusal::Directory) => "is a directory".into(),
            Problem::Refused(Refusal::NotRegular) => "cannot be read: not a regular file".into(),
            Problem::Refused(refusal) => format!("cannot be read: {refusal}; {}", refusal.hint()),
            Problem::System(_) => format!("cannot be read: {problem}"),
        };
        Finding::new(severity, path, None, reason)
    })?;
    if bytes.len() as u64 > LARGEST {
        let message = format!("is larger than {} KiB", LARGEST / 1024);
        return Err(Finding::new(Severity::Error, path, None, message));
    }
    String::from_utf8(bytes).map_err(|error| {
        let (line, _) = place(error.as_bytes(), error.utf8_error().valid_up_to());
        Finding::new(Severity::Error, path, line, "is not UTF-8 text".into())
    })
}

/// At most one byte more than [`LARGEST`].
fn read_bytes(files: &Files, path: &Path, origin: &Origin, is_named: bool) -> Result<Vec<u8>, Problem> {
    let reading = Reading::Instructions { pipe: is_named };
    let file = files.open(path, origin.named_by(), reading)?;
    let mut bytes = Vec::new();
    file.take(LARGEST + 1).read_to_end(&mut bytes).map_err(|error: io::Error| Problem::from(error))?;
    Ok(bytes)
}

/// The assignments of a config file's text, each with the origin that its line has. A value that begins with `~/` is a
/// path under the home of `environment`.
pub(super) fn parse(
    text: &str,
    path: &Path,
    environment: &Environment,
    origin: impl Fn(usize) -> Origin,
    findings: &mut Vec<Finding>,
) -> Vec<Assignment> {
    let mut assignments = Vec::new();
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let is_config = text.lines().any(sets_a_known_key);
    for (line, content) in (1..).zip(text.lines()) {
        let content = without_comment(content).trim();
        if content.is_empty() {
            continue;
        }
        match parse_line(content, environment, is_config) {
            Ok((option, spelling, value)) => {
                let origin = origin(line);
                assignments.push(Assignment { option, effect: spelling.effect, value, origin });
            }
            Err((severity, message)) => findings.push(Finding::new(severity, path, line, message)),
        }
    }
    assignments
}

fn without_comment(line: &str) -> &str {
    let begins_comment = |at: usize| line[..at].chars().next_back().is_none_or(char::is_whitespace);
    match line.match_indices('#').find(|(at, _)| begins_comment(*at)) {
        Some((at, _)) => &line[..at],
        None => line,
    }
}

/// What sets this apart from any other file that somebody put in its place.
fn sets_a_known_key(line: &str) -> bool {
    line.split_once('=').is_some_and(|(key, _)| layers::keys().any(|(_, _, known)| known.key == key.trim()))
}

type Rejected = (Severity, String);

/// What is wrong with a line, without what stands in it: the file may be a link to somebody's secret. Shown are a
/// single word that could be a key, and a short plain value of a key that there is.
fn parse_line(
    content: &str,
    environment: &Environment,
    is_config: bool,
) -> Result<(Field, &'static Spelling, Value), Rejected> {
    let error = |message: String| (Severity::Error, message);
    let (key, raw) = content.split_once('=').ok_or_else(|| {
        error(match content {
            word if is_config && looks_like_key(word) => format!("expected key=value, got '{word}'"),
            _ => "expected key=value".to_owned(),
        })
    })?;
    let (key, raw) = (key.trim(), raw.trim());
    let Some((option, spec, spelling)) = layers::keys().find(|(_, _, spelling)| spelling.key == key) else {
        return Err((Severity::Warning, unknown_key(key)));
    };
    if !spec.in_file {
        return Err(error(format!("'{key}' cannot be set in a config file")));
    }
    if raw.is_empty() && spec.default_text().is_none() && !spelling.is_switch(spec) {
        return Ok((option, spelling, spec.absent()));
    }
    let value = spec
        .parse(spelling, OsStr::new(raw))
        .map_err(|rejection| error(rejection.discreet_sentence(key, raw)))?;
    let value = under_home(value, environment.home.as_deref());
    check_parent(&environment.files, spec, &value).map_err(error)?;
    Ok((option, spelling, value))
}

fn under_home(value: Value, home: Option<&Path>) -> Value {
    match (value, home) {
        (Value::Path(path), Some(home)) => {
            Value::Path(path.strip_prefix("~").map(|rest| home.join(rest)).unwrap_or(path))
        }
        (value, _) => value,
    }
}

/// `log_file parent directory '/nonexistent' does not exist`.
pub(super) fn check_parent(files: &Files, spec: &OptionSpec, value: &Value) -> Result<(), String> {
    let Value::Path(path) = value else { return Ok(()) };
    match path.parent() {
        Some(parent) if spec.needs_parent && !parent.as_os_str().is_empty() && !files.exists(parent) => {
            let parent = parent.to_string_lossy();
            Err(match plain(&parent) {
                Some(parent) => format!("{} parent directory '{parent}' does not exist", spec.name),
                None => format!("{} parent directory does not exist", spec.name),
            })
        }
        _ => Ok(()),
    }
}

/// `unknown key 'intervall_ms' (possible typo?)` and the nearest key, if there is one that is near.
fn unknown_key(key: &str) -> String {
    let known = layers::keys().filter(|(_, spec, _)| spec.in_file && !spec.is_hidden());
    with_nearest(key, known.map(|(_, _, spelling)| spelling.key))
}

/// A word that could be meant as one. Anything else may be what should not be shown.
pub(super) fn looks_like_key(text: &str) -> bool {
    text.len() <= 40 && text.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_')
}

pub(super) fn with_nearest<'a>(key: &str, known: impl Iterator<Item = &'a str>) -> String {
    let shown = if looks_like_key(key) { format!("unknown key '{key}'") } else { "unknown key".to_owned() };
    // Comparing takes time in proportion to the length.
    let key = quoted(key);
    let nearest = known
        .map(|candidate| (strsim::damerau_levenshtein(&key, candidate), candidate))
        .filter(|(distance, candidate)| *distance <= 1 + candidate.len() / 3)
        .min();
    match nearest {
        Some((_, candidate)) => format!("{shown} (possible typo?): the nearest is '{candidate}'"),
        None => format!("{shown} (possible typo?)"),
    }
}

/// Line and column of the byte at `at`, both from 1; a column is a character.
pub(super) fn place(text: &[u8], at: usize) -> (usize, usize) {
    let lines = text[..at.min(text.len())].split(|byte| *byte == b'\n');
    lines
        .enumerate()
        .last()
        .map_or((1, 1), |(before, line)| (before + 1, String::from_utf8_lossy(line).chars().count() + 1))
}

/// The path as it is shown and stored: absolute if the working directory is known.
pub(super) fn absolute(path: &Path, working_directory: Option<&Path>) -> PathBuf {
    working_directory.map_or_else(|| path.to_owned(), |directory| directory.join(path))
}
