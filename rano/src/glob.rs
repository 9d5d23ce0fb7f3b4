//! The one kind of pattern, for alerts, filters, classes of endpoints and agents. It is SQLite's GLOB: `*` any text,
//! `?` any character, `[ab]` `[a-z]` `[^ab]` one character. The same pattern works here and, as text, in SQL. ASCII
//! upper and lower case are the same in both.
//!
//! rano stores names of hosts without a final dot, and with `xn--` for other scripts than ASCII. A pattern for them
//! ([`Glob::of_names`]) may be written in either spelling, with or without that dot.

use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;

/// What has a meaning in a pattern.
const SIGNS: [char; 4] = ['*', '?', '[', ']'];

/// A pattern, in ASCII lower case.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Glob {
    /// As somebody wrote it.
    written: Arc<str>,
    text: String,
    parts: Vec<Part>,
    shape: Shape,
    length: usize,
    /// It is compared with names as people read them.
    in_unicode: bool,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Part {
    Any,
    One,
    Exactly(char),
    Set { negated: bool, ranges: Vec<(char, char)> },
}

/// What most patterns are: these take no walk from part to part.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Shape {
    Is(Box<str>),
    BeginsWith(Box<str>),
    EndsWith(Box<str>),
    Contains(Box<str>),
    Mixed,
}

impl Glob {
    /// The error is the number of characters before a `[` that is not closed.
    pub fn parse(pattern: &str) -> Result<Self, usize> {
        let characters: Vec<char> = pattern.to_ascii_lowercase().chars().collect();
        let mut parts = Vec::new();
        let mut text = String::with_capacity(pattern.len());
        let mut at = 0;
        while let Some(&character) = characters.get(at) {
            at += 1;
            match character {
                // Several in a row mean the same as one, and take time.
                '*' => {
                    if parts.last() != Some(&Part::Any) {
                        parts.push(Part::Any);
                        text.push('*');
                    }
                }
                '?' => {
                    parts.push(Part::One);
                    text.push('?');
                }
                '[' => {
                    let (set, length) = set(&characters[at..]).ok_or(at - 1)?;
                    text.push('[');
                    // SQLite knows only this sign for a set that is turned round.
                    text.extend(characters[at..at + length].iter().enumerate().map(|(index, &character)| {
                        if index == 0 && character == '!' { '^' } else { character }
                    }));
                    at += length;
                    parts.push(set);
                }
                _ => {
                    parts.push(Part::Exactly(character));
                    text.push(character);
                }
            }
        }
        Ok(Self::of_parts(pattern, text, parts))
    }

    /// A pattern for names of hosts, in either spelling. The error is that of [`Glob::parse`].
    pub fn of_names(pattern: &str) -> Result<Self, usize> {
        // The place of what is wrong is that in the text as it was written.
        let as_written = Self::parse(pattern)?;
        let (text, in_unicode) = spelled(pattern);
        if !in_unicode && *text == *pattern {
            return Ok(as_written);
        }
        // A label that was respelled has no signs.
        let respelled = Self::parse(&text)?;
        Ok(Self { written: as_written.written, in_unicode, ..respelled })
    }

    /// A pattern that fits this text alone.
    pub fn literal(text: &str) -> Self {
        let lower = text.to_ascii_lowercase();
        let mut pattern = String::with_capacity(lower.len());
        for character in lower.chars() {
            if "*?[".contains(character) {
                pattern.extend(['[', character, ']']);
            } else {
                pattern.push(character);
            }
        }
        Self::of_parts(text, pattern, lower.chars().map(Part::Exactly).collect())
    }

    /// A pattern that fits every text with this one in it.
    pub fn containing(text: &str) -> Self {
        let literal = Self::literal(text);
        let parts = [vec![Part::Any], literal.parts, vec![Part::Any]].concat();
        Self::of_parts(text, format!("*{}*", literal.text), parts)
    }

    fn of_parts(written: &str, text: String, parts: Vec<Part>) -> Self {
        let length = parts.iter().filter(|part| matches!(part, Part::Exactly(_))).count();
        let (written, shape) = (written.into(), Shape::of(&parts));
        Self { written, text, parts, shape, length, in_unicode: false }
    }

    /// As somebody wrote it.
    pub fn written(&self) -> &Arc<str> {
        &self.written
    }

    /// For SQLite's GLOB, on a text in ASCII lower case.
    pub fn as_sql(&self) -> &str {
        &self.text
    }

    /// Names have to be given to SQL as [`readable`] spells them.
    pub fn is_in_unicode(&self) -> bool {
        self.in_unicode
    }

    /// Characters that stand for themselves: of several patterns that fit, the one with most says most.
    pub fn length(&self) -> usize {
        self.length
    }

    /// Whether the whole of `text` fits.
    pub fn matches(&self, text: &str) -> bool {
        let bytes = text.as_bytes();
        match &self.shape {
            // UTF-8 of whole characters begins and ends where characters do.
            Shape::Is(this) => text.eq_ignore_ascii_case(this),
            Shape::BeginsWith(this) => {
                bytes.get(..this.len()).is_some_and(|begin| begin.eq_ignore_ascii_case(this.as_bytes()))
            }
            Shape::EndsWith(this) => bytes
                .len()
                .checked_sub(this.len())
                .is_some_and(|at| bytes[at..].eq_ignore_ascii_case(this.as_bytes())),
            Shape::Contains(this) => {
                let this = this.as_bytes();
                bytes
                    .windows(this.len())
                    .any(|part| part[0].to_ascii_lowercase() == this[0] && part.eq_ignore_ascii_case(this))
            }
            Shape::Mixed if text.is_ascii() => {
                self.fits(bytes.iter().map(|byte| char::from(byte.to_ascii_lowercase())))
            }
            Shape::Mixed => self.fits(text.chars().map(|character| character.to_ascii_lowercase())),
        }
    }

    /// Whether the name of a host fits, which has no final dot, as all have that are known.
    pub fn matches_name(&self, name: &str) -> bool {
        if self.in_unicode { self.matches(&readable(name)) } else { self.matches(name) }
    }

    /// A path as it is, or what follows one of its slashes.
    pub fn matches_path(&self, path: &str) -> bool {
        self.matches(path) || path.match_indices('/').any(|(at, _)| self.matches(&path[at + 1..]))
    }

    /// Goes back to the last `*` only: what an earlier one could take besides, the last one can take too.
    fn fits(&self, mut text: impl Iterator<Item = char> + Clone) -> bool {
        let mut part = 0;
        let mut retry = None;
        loop {
            let rest = text.clone();
            match (self.parts.get(part), text.next()) {
                (Some(Part::Any), _) => {
                    text = rest.clone();
                    part += 1;
                    retry = Some((part, rest));
                }
                (None, None) => return true,
                (Some(expected), Some(character)) if expected.is(character) => part += 1,
                (_, next) => {
                    // Without more text no longer stretch for the `*` can help.
                    let Some((after, from)) = retry.as_mut().filter(|_| next.is_some()) else { return false };
                    from.next();
                    part = *after;
                    text = from.clone();
                }
            }
        }
    }
}

impl Shape {
    fn of(parts: &[Part]) -> Self {
        let text = |parts: &[Part]| {
            let character = |part: &Part| match part {
                Part::Exactly(character) => Some(*character),
                Part::Any | Part::One | Part::Set { .. } => None,
            };
            parts.iter().map(character).collect::<Option<String>>().map(String::into_boxed_str)
        };
        let shape = match parts {
            [Part::Any, rest @ .., Part::Any] if !rest.is_empty() => text(rest).map(Self::Contains),
            [Part::Any, rest @ ..] => text(rest).map(Self::EndsWith),
            [rest @ .., Part::Any] => text(rest).map(Self::BeginsWith),
            all => text(all).map(Self::Is),
        };
        shape.unwrap_or(Self::Mixed)
    }
}

/// A host's name as names are compared: in lower case, without a final dot, with `xn--` for other scripts than ASCII.
/// Most names are so already. A label with signs of a pattern keeps its script.
pub fn folded_name(name: &str) -> Cow<'_, str> {
    let name = name.trim_end_matches('.');
    if name.bytes().all(|byte| byte.is_ascii() && !byte.is_ascii_uppercase()) {
        return Cow::Borrowed(name);
    }
    let labels = name.split('.').map(|label| match ascii(label) {
        Some(label) => label,
        None => label.to_lowercase(),
    });
    Cow::Owned(labels.collect::<Vec<_>>().join("."))
}

/// A name as people read it: `bücher.example` of `xn--bcher-kva.example`.
pub fn readable(name: &str) -> Cow<'_, str> {
    if name.is_ascii() && !name.contains("xn--") && !name.contains("XN--") {
        return Cow::Borrowed(name);
    }
    Cow::Owned(idna::domain_to_unicode(name).0)
}

/// A pattern in the spelling of stored names, or else in the one that people read, and which of the two. A label with
/// both signs and letters of other scripts exists in the second only.
fn spelled(pattern: &str) -> (Cow<'_, str>, bool) {
    let pattern = pattern.trim_end_matches('.');
    if pattern.is_ascii() {
        return (Cow::Borrowed(pattern), false);
    }
    let in_unicode = pattern.split('.').any(|label| !label.is_ascii() && label.contains(SIGNS));
    let labels = pattern.split('.').map(|label| {
        if label.contains(SIGNS) {
            return label.to_lowercase();
        }
        let ascii = ascii(label).unwrap_or_else(|| label.to_owned());
        if in_unicode { readable(&ascii).into_owned() } else { ascii }
    });
    (Cow::Owned(labels.collect::<Vec<_>>().join(".")), in_unicode)
}

/// `None` where it has signs of a pattern, or can be no label.
fn ascii(label: &str) -> Option<String> {
    if label.is_ascii() {
        return Some(label.to_ascii_lowercase());
    }
    if label.contains(SIGNS) { None } else { idna::domain_to_ascii(label).ok() }
}

impl Part {
    fn is(&self, character: char) -> bool {
        match self {
            Self::Any => false,
            Self::One => true,
            Self::Exactly(expected) => *expected == character,
            Self::Set { negated, ranges } => {
                ranges.iter().any(|&(low, high)| (low..=high).contains(&character)) != *negated
            }
        }
    }
}

/// The set that follows a `[`, and how many characters it takes with its `]`. A `]` that comes first is one of the set.
fn set(characters: &[char]) -> Option<(Part, usize)> {
    let negated = matches!(characters.first(), Some('^' | '!'));
    let mut at = usize::from(negated);
    let mut ranges = Vec::new();
    if characters.get(at) == Some(&']') {
        ranges.push((']', ']'));
        at += 1;
    }
    loop {
        let low = *characters.get(at)?;
        at += 1;
        if low == ']' {
            return Some((Part::Set { negated, ranges }, at));
        }
        // A `-` at the end is one of the set, and so is one at the beginning.
        match (characters.get(at), characters.get(at + 1)) {
            (Some('-'), Some(&high)) if high != ']' => {
                ranges.push((low, high));
                at += 2;
            }
            _ => ranges.push((low, low)),
        }
    }
}

/// For tests, which write patterns as texts.
#[cfg(test)]
impl From<&str> for Glob {
    fn from(pattern: &str) -> Self {
        Self::of_names(pattern).expect("a pattern")
    }
}

impl fmt::Debug for Glob {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Glob({:?})", self.written)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(pattern: &str, fitting: &[&str], others: &[&str]) {
        let glob = Glob::parse(pattern).expect("a pattern");
        for text in fitting {
            assert!(glob.matches(text), "{pattern} fits {text}");
        }
        for text in others {
            assert!(!glob.matches(text), "{pattern} does not fit {text}");
        }
    }

    #[test]
    fn stars_marks_and_sets() {
        check(
            "*.example.com",
            &["a.example.com", "A.B.EXAMPLE.com", ".example.com"],
            &["example.com", "x.example.org"],
        );
        check("a?c", &["abc", "a*c", "aéc"], &["ac", "abbc"]);
        check("[ab]x", &["ax", "BX"], &["cx", "x", "[x"]);
        check("[a-c]*[^0-9]", &["bz", "c0a"], &["dz", "a0", "a"]);
        check("[!a]", &["b"], &["a"]);
        check("[]a]", &["]", "a"], &["b", ""]);
        check("[a-]", &["a", "-"], &["b"]);
        check("*a*b*", &["ab", "xaxbx", "aab"], &["bca", "a"]);
        check("", &[""], &["a"]);
        check("***", &["", "anything"], &[]);
    }

    #[test]
    fn an_open_set_is_an_error_with_its_place() {
        assert_eq!(Glob::parse("ab[cd"), Err(2));
        assert_eq!(Glob::parse("[]"), Err(0));
        assert_eq!(Glob::parse("é["), Err(1));
    }

    #[test]
    fn a_literal_fits_itself_alone() {
        let glob = Glob::literal("A*[?");
        assert!(glob.matches("a*[?"));
        assert!(!glob.matches("ab[c"));
        assert_eq!(glob.as_sql(), "a[*][[][?]");
        let read = Glob::parse(glob.as_sql()).expect("a pattern");
        assert!(read.matches("a*[?") && !read.matches("ab[c"));
    }

    #[test]
    fn many_stars_take_no_time() {
        let glob = Glob::parse(&"*a".repeat(200)).expect("a pattern");
        assert!(!glob.matches(&"a".repeat(199)));
        assert!(!glob.matches(&("a".repeat(5000) + "b")));
    }

    #[test]
    fn a_path_is_known_by_its_last_part() {
        let glob = Glob::parse("node").expect("a pattern");
        assert!(glob.matches_path("node") && glob.matches_path("/usr/bin/node"));
        assert!(!glob.matches_path("/usr/node/x"));
    }

    #[test]
    fn every_shape_of_a_pattern_means_the_same() {
        // The last of each is of no simple shape, and fits the same.
        for same in [
            ["*b*", "*[b]*"],
            ["*é*", "*[é]*"],
            ["a.b", "a[.]b"],
            ["*.b", "*[.]b"],
            ["a.*", "a[.]*"],
            ["é*", "[é]*"],
            ["*é", "*[é]"],
        ] {
            let [simple, mixed] = same.map(|pattern| Glob::parse(pattern).expect("a pattern"));
            assert!(simple.shape != Shape::Mixed && mixed.shape == Shape::Mixed, "{same:?}");
            for text in ["a.b", "A.B", "a.bc", "xa.b", "", ".b", "a.", "é", "éa", "aé", "É", "\u{129}a", "ab"]
            {
                assert_eq!(simple.matches(text), mixed.matches(text), "{same:?} {text}");
            }
        }
    }

    #[test]
    fn a_name_is_the_same_in_either_spelling_with_and_without_a_final_dot() {
        let known = ["www.xn--bcher-kva.example", "xn--bcher-kva.example", "www.example"];
        for (pattern, fitting) in [
            ("*.bücher.example", &known[..1]),
            ("*.BÜCHER.example.", &known[..1]),
            ("*.xn--bcher-kva.example.", &known[..1]),
            ("bu\u{308}cher.example", &known[1..2]),
            ("www.example.", &known[2..]),
            // No label with a sign in it can be written in ASCII.
            ("*bü*.example", &known[..2]),
            ("www.[bü]ü*.example", &known[..1]),
            ("?üche[a-r].example", &known[1..2]),
            ("*ü*.xn--bcher-kva.example", &known[..0]),
        ] {
            let glob = Glob::of_names(pattern).expect("a pattern");
            let found: Vec<_> = known.into_iter().filter(|name| glob.matches_name(name)).collect();
            assert_eq!(found, fitting, "{pattern}");
            assert_eq!(**glob.written(), *pattern);
        }
        assert_eq!(Glob::of_names("ü.[a"), Err(2));
    }

    #[test]
    fn names_are_folded() {
        for (name, expected) in [
            ("a.example", "a.example"),
            ("A.Example.", "a.example"),
            ("BÜCHER.example.", "xn--bcher-kva.example"),
            ("*.Bücher.example", "*.xn--bcher-kva.example"),
            ("*Ü.example", "*ü.example"),
            (".", ""),
        ] {
            assert_eq!(folded_name(name), expected, "{name}");
        }
    }
}
