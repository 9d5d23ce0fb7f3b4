//! What stands after the colon.

use super::key::{alias, words};
use super::tree::{Network, NetworkError, NumberKey, Ordering, Range, TextKey, WordKey};
use crate::glob::{self, Glob};

/// The history holds no larger numbers.
const LARGEST: u64 = i64::MAX as u64;

/// A value as it was written, without its quotes.
pub(super) struct Written<'a> {
    pub(super) text: &'a str,
    /// Signs in it mean themselves.
    pub(super) quoted: bool,
}

/// What is wrong, and how many characters into the value.
pub(super) struct Wrong(pub(super) usize, pub(super) String);

impl Wrong {
    fn all(message: String) -> Self {
        Self(0, message)
    }
}

pub(super) fn pattern(key: TextKey, value: &Written<'_>) -> Result<Glob, Wrong> {
    match (key, value.quoted) {
        (TextKey::Domain, true) => Ok(Glob::literal(&glob::folded_name(value.text))),
        (TextKey::Domain, false) => domain(value.text),
        // The whole of a command line is more than anybody types.
        (TextKey::Tool, is_quoted) if is_quoted || !value.text.contains(['*', '?', '[']) => {
            Ok(Glob::containing(value.text))
        }
        (TextKey::Process | TextKey::Program | TextKey::Provider | TextKey::Agent | TextKey::Tool, true) => {
            Ok(Glob::literal(value.text))
        }
        (TextKey::Process | TextKey::Program | TextKey::Provider | TextKey::Agent | TextKey::Tool, false) => {
            pattern_of(Glob::parse(value.text))
        }
    }
}

fn pattern_of(parsed: Result<Glob, usize>) -> Result<Glob, Wrong> {
    parsed.map_err(|at| Wrong(at, "'[' without ']'".to_owned()))
}

pub(super) fn domain(text: &str) -> Result<Glob, Wrong> {
    pattern_of(Glob::of_names(text))
}

pub(super) fn word(key: WordKey, value: &Written<'_>) -> Result<Vec<&'static str>, Wrong> {
    let lower = value.text.to_ascii_lowercase();
    let text = alias(key, &lower).unwrap_or(&lower);
    let glob = pattern_of(Glob::parse(text))?;
    let known = words(key);
    let meant: Vec<_> = known.iter().copied().filter(|word| glob.matches(word)).collect();
    if meant.is_empty() {
        let nearest = nearest(&lower, known.iter().copied());
        let hint = nearest.map_or_else(
            || format!("it is one of {}", known.join(", ")),
            |near| format!("the nearest is '{near}'"),
        );
        return Err(Wrong::all(format!("no such value '{}'; {hint}", value.text)));
    }
    Ok(meant)
}

pub(super) fn number(key: NumberKey, value: &Written<'_>) -> Result<Range, Wrong> {
    let signs = [
        (">=", Ordering::AtLeast),
        ("<=", Ordering::AtMost),
        (">", Ordering::Above),
        ("<", Ordering::Below),
        ("=", Ordering::Equal),
    ];
    let sign = signs.into_iter().find(|(sign, _)| value.text.starts_with(sign));
    let (skipped, ordering) = sign.map_or((0, Ordering::Equal), |(sign, ordering)| (sign.len(), ordering));
    let text = &value.text[skipped..];
    let than = match key {
        NumberKey::Pid => plain(text, u64::from(u32::MAX)).ok_or("a process id is a number, as pid:4711"),
        NumberKey::Port => plain(text, 65_535).ok_or("a port is a number from 0 to 65535"),
        NumberKey::Sent | NumberKey::Received => {
            size(text).ok_or("a size is a number, with K, M or G for powers of 1024, as >1M")
        }
        NumberKey::Duration => duration(text).ok_or("a duration is a number with ms, s, m, h or d, as >30s"),
    };
    than.map(|than| Range { ordering, than }).map_err(|message| Wrong(skipped, message.to_owned()))
}

fn plain(text: &str, largest: u64) -> Option<u64> {
    let is_number = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    text.parse().ok().filter(|number| is_number && *number <= largest)
}

/// Bytes; K, KiB, M, MiB, G and GiB are powers of 1024.
pub fn size(text: &str) -> Option<u64> {
    let units = [
        ("", 1),
        ("b", 1),
        ("k", 1 << 10),
        ("kib", 1 << 10),
        ("m", 1 << 20),
        ("mib", 1 << 20),
        ("g", 1 << 30),
        ("gib", 1 << 30),
    ];
    with_unit(text, &units)
}

/// Milliseconds.
fn duration(text: &str) -> Option<u64> {
    let units = [("ms", 1), ("s", 1000), ("m", 60_000), ("h", 3_600_000), ("d", 86_400_000)];
    with_unit(text, &units)
}

/// Whole numbers and decimals, as 1.5M; what is left of a unit of 1 is cut off.
fn with_unit(text: &str, units: &[(&str, u64)]) -> Option<u64> {
    let lower = text.to_ascii_lowercase();
    let end =
        lower.find(|character: char| !character.is_ascii_digit() && character != '.').unwrap_or(lower.len());
    let (number, unit) = lower.split_at(end);
    let (_, factor) = units.iter().find(|(name, _)| *name == unit.trim_start())?;
    let (whole, part) = number.split_once('.').unwrap_or((number, "0"));
    let whole = plain(whole, LARGEST)?.checked_mul(*factor)?;
    // More digits than these make no difference to a number of bytes or milliseconds.
    let part = &part[..part.len().min(9)];
    let scale = 10_u64.pow(u32::try_from(part.len()).ok()?);
    let part = u128::from(plain(part, LARGEST)?) * u128::from(*factor) / u128::from(scale);
    whole.checked_add(u64::try_from(part).ok()?).filter(|number| *number <= LARGEST)
}

pub(super) fn network(value: &Written<'_>) -> Result<Network, Wrong> {
    value.text.parse().map_err(|error: NetworkError| Wrong::all(error.to_string()))
}

pub(super) fn truth(value: &Written<'_>) -> Result<bool, Wrong> {
    match value.text.to_ascii_lowercase().as_str() {
        "true" | "yes" | "1" => Ok(true),
        "false" | "no" | "0" => Ok(false),
        other => Err(Wrong::all(format!("it is true or false, not '{other}'"))),
    }
}

/// What was probably meant.
pub(super) fn nearest<'a>(text: &str, known: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    // Comparing takes time in proportion to the length.
    let text: String = text.chars().take(40).collect();
    known
        .map(|candidate| (strsim::damerau_levenshtein(&text, candidate), candidate))
        .filter(|(distance, candidate)| *distance <= 1 + candidate.len() / 3)
        .min()
        .map(|(_, candidate)| candidate)
}
