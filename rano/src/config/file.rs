//! `config.conf`: one `key=value` a line. A `#` at the beginning of a line or after a blank begins a comment.

use std::ffi::OsStr;
use std::fs::{File, OpenOptions};
use std::io::{self, Read as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use super::finding::{Finding, Severity};
use super::layers::{self, Assignment, Origin};
use super::spec::{OptionSpec, Spelling};
use super::value::{Value, quoted};

/// Far more than anybody writes by hand.
const LARGEST: u64 = 1 << 20;

/// How a file came to be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Named {
    /// It lies where rano looks by itself.
    No,
    /// The user named it; it may be a pipe.
    Yes,
}

/// Text of a file of at most 1 MiB.
pub(super) fn read(path: &Path, named: Named) -> Result<String, Finding> {
    let bytes = read_bytes(path, named).map_err(|error| {
        // It can be opened all right: it is the wrong thing to name.
        let is_directory = error.kind() == io::ErrorKind::IsADirectory;
        let severity =
            if named == Named::Yes && !is_directory { Severity::CannotOpen } else { Severity::Error };
        let reason = if is_directory { "is a directory".into() } else { format!("cannot be read: {error}") };
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
fn read_bytes(path: &Path, named: Named) -> io::Result<Vec<u8>> {
    let file = match named {
        Named::Yes => File::open(path)?,
        Named::No => open_regular(path)?,
    };
    let mut bytes = Vec::new();
    file.take(LARGEST + 1).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// Somebody else may have put a pipe there on which a plain open would wait for ever.
pub(super) fn open_regular(path: &Path) -> io::Result<File> {
    let nonblocking = rustix::fs::OFlags::NONBLOCK.bits().cast_signed();
    let file = OpenOptions::new().read(true).custom_flags(nonblocking).open(path)?;
    let kind = file.metadata()?.file_type();
    if kind.is_file() {
        Ok(file)
    } else if kind.is_dir() {
        Err(io::Error::from(io::ErrorKind::IsADirectory))
    } else {
        Err(io::Error::other("not a regular file"))
    }
}

/// The assignments of a config file's text, each with the origin that its line has. A value that begins with `~/` is a
/// path under `home`.
pub(super) fn parse(
    text: &str,
    path: &Path,
    home: Option<&Path>,
    origin: impl Fn(usize) -> Origin,
    findings: &mut Vec<Finding>,
) -> Vec<Assignment> {
    let mut assignments = Vec::new();
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    for (line, content) in (1..).zip(text.lines()) {
        let content = without_comment(content).trim();
        if content.is_empty() {
            continue;
        }
        match parse_line(content, home) {
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

type Rejected = (Severity, String);

fn parse_line(content: &str, home: Option<&Path>) -> Result<(usize, &'static Spelling, Value), Rejected> {
    let error = |message: String| (Severity::Error, message);
    let (key, raw) = content
        .split_once('=')
        .ok_or_else(|| error(format!("expected key=value, got '{}'", quoted(content))))?;
    let (key, raw) = (key.trim(), raw.trim());
    let Some((option, spec, spelling)) = layers::keys().find(|(_, _, spelling)| spelling.key == key) else {
        return Err((Severity::Warning, unknown_key(key)));
    };
    if !spec.in_file {
        return Err(error(format!("'{key}' cannot be set in a config file")));
    }
    if raw.is_empty() && spec.default.is_none() && !spelling.is_switch(spec) {
        return Ok((option, spelling, spec.absent()));
    }
    let value = spec
        .parse(spelling, OsStr::new(raw))
        .map_err(|rejection| error(rejection.sentence(key, OsStr::new(raw))))?;
    let value = under_home(value, home);
    check_parent(spec, &value).map_err(error)?;
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
pub(super) fn check_parent(spec: &OptionSpec, value: &Value) -> Result<(), String> {
    let Value::Path(path) = value else { return Ok(()) };
    match path.parent() {
        Some(parent) if spec.needs_parent && !parent.as_os_str().is_empty() && !parent.exists() => {
            Err(format!("{} parent directory '{}' does not exist", spec.name, parent.display()))
        }
        _ => Ok(()),
    }
}

/// `unknown key 'intervall_ms' (possible typo?)` and the nearest key, if there is one that is near.
fn unknown_key(key: &str) -> String {
    let known = layers::keys().filter(|(_, spec, _)| spec.in_file && !spec.is_hidden());
    with_nearest(key, known.map(|(_, _, spelling)| spelling.key))
}

pub(super) fn with_nearest<'a>(key: &str, known: impl Iterator<Item = &'a str>) -> String {
    // Comparing takes time in proportion to the length.
    let key = quoted(key);
    let nearest = known
        .map(|candidate| (strsim::damerau_levenshtein(&key, candidate), candidate))
        .filter(|(distance, candidate)| *distance <= 1 + candidate.len() / 3)
        .min();
    match nearest {
        Some((_, candidate)) => format!("unknown key '{key}' (possible typo?): the nearest is '{candidate}'"),
        None => format!("unknown key '{key}' (possible typo?)"),
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
