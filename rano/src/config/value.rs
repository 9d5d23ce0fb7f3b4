//! What an option can hold, and how text becomes it: the same for config files, the environment and flags.

use std::ffi::OsStr;
use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use crate::filter::{self, Filter, FilterError};
use crate::glob::Glob;
use crate::process::matching::COMMAND_LINE;
use crate::time_argument;

/// The shape of an option's value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Switch,
    Number,
    Text,
    /// A text that means something to leave out.
    Exclude,
    /// A pattern for names of hosts.
    Glob,
    Path,
    Span,
    /// Bytes.
    Size,
    Filter,
    Choice(&'static [&'static str]),
    List(&'static Kind),
}

/// A parsed value. It has the variant of the [`Kind`] that parsed it, or is `Absent`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Value {
    Absent,
    Switch(bool),
    Number(u64),
    Text(String),
    Path(PathBuf),
    Span(Duration),
    Size(ByteSize),
    Filter(Filter),
    Glob(Glob),
    Choice(&'static str),
    List(Vec<Value>),
}

/// A number of bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ByteSize(pub u64);

/// As it is read: in the largest unit that leaves nothing over.
impl fmt::Display for ByteSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let units = [(30, "G"), (20, "M"), (10, "K")];
        let fitting = units.into_iter().find(|(bits, _)| self.0 > 0 && self.0.is_multiple_of(1 << bits));
        match fitting {
            Some((bits, unit)) => write!(f, "{}{unit}", self.0 >> bits),
            None => write!(f, "{}", self.0),
        }
    }
}

/// A type that a field of `Settings` can have.
pub trait Setting: Sized {
    const KIND: Kind;
    /// `None` only if `value` was not parsed by `Self::KIND`, or is absent where that has no meaning.
    fn from_value(value: &Value) -> Option<Self>;
}

impl Setting for bool {
    const KIND: Kind = Kind::Switch;
    fn from_value(value: &Value) -> Option<Self> {
        if let Value::Switch(on) = value { Some(*on) } else { None }
    }
}

impl Setting for u64 {
    const KIND: Kind = Kind::Number;
    fn from_value(value: &Value) -> Option<Self> {
        if let Value::Number(number) = value { Some(*number) } else { None }
    }
}

impl Setting for u32 {
    const KIND: Kind = Kind::Number;
    fn from_value(value: &Value) -> Option<Self> {
        u64::from_value(value).and_then(|number| number.try_into().ok())
    }
}

impl Setting for usize {
    const KIND: Kind = Kind::Number;
    fn from_value(value: &Value) -> Option<Self> {
        u64::from_value(value).and_then(|number| number.try_into().ok())
    }
}

impl Setting for String {
    const KIND: Kind = Kind::Text;
    fn from_value(value: &Value) -> Option<Self> {
        if let Value::Text(text) = value { Some(text.clone()) } else { None }
    }
}

impl Setting for PathBuf {
    const KIND: Kind = Kind::Path;
    fn from_value(value: &Value) -> Option<Self> {
        if let Value::Path(path) = value { Some(path.clone()) } else { None }
    }
}

impl Setting for Duration {
    const KIND: Kind = Kind::Span;
    fn from_value(value: &Value) -> Option<Self> {
        if let Value::Span(span) = value { Some(*span) } else { None }
    }
}

impl Setting for ByteSize {
    const KIND: Kind = Kind::Size;
    fn from_value(value: &Value) -> Option<Self> {
        if let Value::Size(size) = value { Some(*size) } else { None }
    }
}

impl Setting for Filter {
    const KIND: Kind = Kind::Filter;
    fn from_value(value: &Value) -> Option<Self> {
        if let Value::Filter(filter) = value { Some(filter.clone()) } else { None }
    }
}

impl Setting for Glob {
    const KIND: Kind = Kind::Glob;
    fn from_value(value: &Value) -> Option<Self> {
        if let Value::Glob(glob) = value { Some(glob.clone()) } else { None }
    }
}

impl<T: Setting> Setting for Option<T> {
    const KIND: Kind = T::KIND;
    fn from_value(value: &Value) -> Option<Self> {
        if *value == Value::Absent { Some(None) } else { T::from_value(value).map(Some) }
    }
}

impl<T: Setting> Setting for Vec<T> {
    const KIND: Kind = Kind::List(&T::KIND);
    fn from_value(value: &Value) -> Option<Self> {
        if let Value::List(items) = value { items.iter().map(T::from_value).collect() } else { None }
    }
}

/// An enum whose variants are the words of a choice.
macro_rules! choices {
    ($(#[$meta:meta])* pub enum $name:ident { $($(#[$variant_meta:meta])* $variant:ident = $word:literal,)+ }) => {
        $(#[$meta])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum $name { $($(#[$variant_meta])* $variant,)+ }

        impl $crate::config::value::Setting for $name {
            const KIND: $crate::config::value::Kind = $crate::config::value::Kind::Choice(&[$($word),+]);
            fn from_value(value: &$crate::config::value::Value) -> Option<Self> {
                match value {
                    $($crate::config::value::Value::Choice($word) => Some(Self::$variant),)+
                    _ => None,
                }
            }
        }
    };
}
pub(crate) use choices;

/// Why a text is no value of an option.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Rejection {
    NotNumber,
    Below(u64),
    Above(u64),
    NotSwitch,
    NotOneOf(&'static [&'static str]),
    NotSpan,
    NotSize,
    NotFilter(FilterError),
    /// Characters before the `[` that is not closed.
    NotGlob(usize),
    Empty,
    NotUtf8,
    /// An item of a list.
    Item {
        text: String,
        reason: Box<Rejection>,
    },
}

/// What would have been right: `must be >= 1`.
impl fmt::Display for Rejection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotNumber => f.write_str("must be a non-negative integer"),
            Self::Below(min) => write!(f, "must be >= {min}"),
            Self::Above(max) => write!(f, "must be <= {max}"),
            Self::NotSwitch => f.write_str("must be a boolean (true/false/yes/no/1/0)"),
            Self::NotOneOf(words) => write!(f, "must be one of [{}]", words.join(", ")),
            Self::NotSpan => f.write_str("must be a span of time above 0 (30m, 24h, 7d, 1w)"),
            Self::NotSize => f.write_str("must be a size (500K, 10M, 1G)"),
            Self::NotFilter(error) => write!(f, "is no filter, {error}"),
            Self::NotGlob(at) => write!(f, "has a '[' without ']' at character {}", at + 1),
            Self::Empty => f.write_str("must not be empty"),
            Self::NotUtf8 => f.write_str("must be UTF-8 text"),
            Self::Item { text, reason } => {
                write!(f, "contains invalid value '{}'", quoted(text))?;
                match **reason {
                    Self::NotOneOf(_) => Ok(()),
                    ref other => write!(f, ", it {other}"),
                }
            }
        }
    }
}

impl Rejection {
    /// The same where `raw` comes out of a file, which may hold something else than a configuration: shown is what
    /// looks like a value.
    pub fn discreet_sentence(&self, key: &str, raw: &str) -> String {
        let other = "a value that is not shown here";
        match (self, plain(raw)) {
            (Self::Item { text, .. }, _) if plain(text).is_none() => format!("'{key}' contains {other}"),
            (Self::Item { .. } | Self::Empty, _) | (_, Some(_)) => self.sentence(key, OsStr::new(raw)),
            (_, None) if raw.is_empty() => self.sentence(key, OsStr::new(raw)),
            (_, None) => format!("'{key}' {self}, got {other}"),
        }
    }

    /// The whole sentence about `key`: `'db_batch_size' must be >= 1, got 0`.
    pub fn sentence(&self, key: &str, raw: &OsStr) -> String {
        let raw = raw.to_string_lossy();
        let raw = quoted(raw.trim());
        match self {
            Self::Below(_) | Self::Above(_) => format!("'{key}' {self}, got {raw}"),
            Self::Empty | Self::NotFilter(_) | Self::Item { .. } => format!("'{key}' {self}"),
            Self::NotNumber
            | Self::NotSwitch
            | Self::NotOneOf(_)
            | Self::NotSpan
            | Self::NotSize
            | Self::NotGlob(_)
            | Self::NotUtf8 => {
                format!("'{key}' {self}, got '{raw}'")
            }
        }
    }
}

/// A short word, number, name or path.
pub(super) fn plain(text: &str) -> Option<&str> {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"_-.,:/~*?%+".contains(&byte);
    ((1..=64).contains(&text.len()) && text.bytes().all(is_plain)).then_some(text)
}

/// At most 100 characters of what was given: a message stays a line.
pub(super) fn quoted(text: &str) -> String {
    match text.char_indices().nth(100) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}

impl Kind {
    /// Parse one text, or for a list one item after the other between commas. Blanks around it do not count.
    pub fn parse(self, raw: &OsStr, range: (u64, u64)) -> Result<Value, Rejection> {
        let Self::List(item) = self else {
            return self.parse_one(raw, range);
        };
        let text = raw.to_str().ok_or(Rejection::NotUtf8)?;
        let items: Result<Vec<_>, _> = text
            .split(',')
            .map(str::trim)
            .filter(|text| !text.is_empty())
            .map(|text| {
                item.parse_one(OsStr::new(text), range)
                    .map_err(|reason| Rejection::Item { text: text.to_owned(), reason: Box::new(reason) })
            })
            .collect();
        match items? {
            items if items.is_empty() => Err(Rejection::Empty),
            items => Ok(Value::List(items)),
        }
    }

    /// Parse one text; for a list one item, in which a comma is nothing special.
    pub fn parse_one(self, raw: &OsStr, range: (u64, u64)) -> Result<Value, Rejection> {
        if let Self::Path = self {
            return if raw.is_empty() { Err(Rejection::Empty) } else { Ok(Value::Path(raw.into())) };
        }
        let text = raw.to_str().ok_or(Rejection::NotUtf8)?.trim();
        match self {
            Self::Switch => parse_switch(text).map(Value::Switch),
            Self::Number => parse_number(text, range).map(Value::Number),
            Self::Span => match time_argument::parse_span(text) {
                Ok(span) if !span.is_zero() => Ok(Value::Span(span)),
                Ok(_) | Err(_) => Err(Rejection::NotSpan),
            },
            Self::Size => {
                filter::size(text).map(|size| Value::Size(ByteSize(size))).ok_or(Rejection::NotSize)
            }
            Self::Filter => Filter::parse(text).map(Value::Filter).map_err(Rejection::NotFilter),
            Self::Choice(words) => words
                .iter()
                .find(|word| **word == text)
                .map(|word| Value::Choice(word))
                .ok_or(Rejection::NotOneOf(words)),
            Self::Text | Self::Exclude | Self::Glob | Self::Path if text.is_empty() => Err(Rejection::Empty),
            Self::Glob => Glob::of_names(text).map(Value::Glob).map_err(Rejection::NotGlob),
            // Nothing of everybody's command line is everybody.
            Self::Exclude if text.strip_prefix(COMMAND_LINE).is_some_and(|text| text.trim().is_empty()) => {
                Err(Rejection::Empty)
            }
            Self::Text | Self::Exclude | Self::Path => Ok(Value::Text(text.to_owned())),
            Self::List(item) => item.parse_one(raw, range),
        }
    }
}

/// The words for yes and no, in any case.
pub fn parse_switch(text: &str) -> Result<bool, Rejection> {
    match text.to_ascii_lowercase().as_str() {
        "true" | "yes" | "1" => Ok(true),
        "false" | "no" | "0" => Ok(false),
        _ => Err(Rejection::NotSwitch),
    }
}

fn parse_number(text: &str, (min, max): (u64, u64)) -> Result<u64, Rejection> {
    if text.is_empty() || !text.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(Rejection::NotNumber);
    }
    // All digits, so the only way to fail is to be too large.
    match text.parse() {
        Ok(number) if number < min => Err(Rejection::Below(min)),
        Ok(number) if number <= max => Ok(number),
        _ => Err(Rejection::Above(max)),
    }
}

/// As a config file would say it; a list's items joined by commas, nothing for `Absent`.
impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Absent => Ok(()),
            Self::Switch(on) => write!(f, "{on}"),
            Self::Number(number) => write!(f, "{number}"),
            Self::Text(text) => f.write_str(text),
            Self::Path(path) => write!(f, "{}", path.display()),
            Self::Span(span) => f.write_str(&time_argument::span(*span)),
            Self::Size(size) => size.fmt(f),
            Self::Filter(filter) => filter.fmt(f),
            Self::Glob(glob) => f.write_str(glob.written()),
            Self::Choice(word) => f.write_str(word),
            Self::List(items) => {
                for (position, item) in items.iter().enumerate() {
                    if position > 0 {
                        f.write_str(",")?;
                    }
                    item.fmt(f)?;
                }
                Ok(())
            }
        }
    }
}

/// Numbers as numbers, lists as arrays, `null` for `Absent`; a path that is not UTF-8 is shown lossily.
impl From<&Value> for serde_json::Value {
    fn from(value: &Value) -> Self {
        match value {
            Value::Absent => Self::Null,
            Value::Switch(on) => Self::Bool(*on),
            Value::Number(number) => Self::from(*number),
            Value::Text(text) => Self::from(text.as_str()),
            Value::Path(path) => Self::from(path.to_string_lossy()),
            Value::Span(span) => Self::from(time_argument::span(*span)),
            Value::Size(ByteSize(size)) => Self::from(*size),
            Value::Filter(filter) => Self::from(filter.text()),
            Value::Glob(glob) => Self::from(&**glob.written()),
            Value::Choice(word) => Self::from(*word),
            Value::List(items) => Self::Array(items.iter().map(Self::from).collect()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const COLORS: Kind = Kind::Choice(&["auto", "always", "never"]);

    fn sentence(kind: Kind, raw: &str) -> String {
        match kind.parse(OsStr::new(raw), (1, 100)) {
            Ok(value) => format!("{value:?}"),
            Err(rejection) => rejection.sentence("key", OsStr::new(raw)),
        }
    }

    #[test]
    fn what_is_wrong_is_said_in_the_words_of_the_contract() {
        for (kind, raw, expected) in [
            (Kind::Number, "abc", "'key' must be a non-negative integer, got 'abc'"),
            (Kind::Number, "-1", "'key' must be a non-negative integer, got '-1'"),
            (Kind::Number, "", "'key' must be a non-negative integer, got ''"),
            (Kind::Number, "1.5", "'key' must be a non-negative integer, got '1.5'"),
            (Kind::Number, "0", "'key' must be >= 1, got 0"),
            (Kind::Number, "101", "'key' must be <= 100, got 101"),
            (Kind::Number, "99999999999999999999999", "'key' must be <= 100, got 99999999999999999999999"),
            (Kind::Switch, "maybe", "'key' must be a boolean (true/false/yes/no/1/0), got 'maybe'"),
            (COLORS, "red", "'key' must be one of [auto, always, never], got 'red'"),
            (Kind::List(&Kind::Text), " , ", "'key' must not be empty"),
            (Kind::List(&Kind::Number), "7,0", "'key' contains invalid value '0', it must be >= 1"),
            (Kind::List(&COLORS), "auto,x", "'key' contains invalid value 'x'"),
            (Kind::Text, "  ", "'key' must not be empty"),
            (Kind::Span, "abc", "'key' must be a span of time above 0 (30m, 24h, 7d, 1w), got 'abc'"),
            (Kind::Span, "0d", "'key' must be a span of time above 0 (30m, 24h, 7d, 1w), got '0d'"),
            (Kind::Glob, "a[b", "'key' has a '[' without ']' at character 2, got 'a[b'"),
            (Kind::Span, "7", "'key' must be a span of time above 0 (30m, 24h, 7d, 1w), got '7'"),
        ] {
            assert_eq!(sentence(kind, raw), expected);
        }
    }

    #[test]
    fn every_word_for_yes_and_no_is_understood() {
        for (text, on) in
            [("true", true), ("YES", true), ("1", true), ("False", false), ("no", false), ("0", false)]
        {
            assert_eq!(parse_switch(text), Ok(on), "{text}");
        }
    }

    #[test]
    fn a_huge_value_is_quoted_in_part() {
        let raw = "é".repeat(100_000);
        assert!(sentence(Kind::Number, &raw).len() < 300);
    }

    #[test]
    fn a_path_need_not_be_utf8_and_text_must() {
        use std::os::unix::ffi::OsStrExt as _;
        let raw = OsStr::from_bytes(b"/tmp/\xff");
        assert_eq!(Kind::Path.parse(raw, (0, 0)), Ok(Value::Path(raw.into())));
        assert_eq!(Kind::Text.parse(raw, (0, 0)), Err(Rejection::NotUtf8));
    }
}
