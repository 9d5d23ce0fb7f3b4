//! Patterns as SQLite's GLOB has them: `*` any text, `?` any character, `[ab]` `[a-z]` `[^ab]` one character. The
//! same pattern works here and, as text, in SQL; ASCII upper and lower case are the same in both.

use std::fmt;

/// A pattern, in ASCII lower case.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Glob {
    text: String,
    parts: Vec<Part>,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Part {
    Any,
    One,
    Exactly(char),
    Set { negated: bool, ranges: Vec<(char, char)> },
}

impl Glob {
    /// The error is the number of characters before a `[` that is not closed.
    pub fn parse(pattern: &str) -> Result<Self, usize> {
        let pattern = pattern.to_ascii_lowercase();
        let characters: Vec<char> = pattern.chars().collect();
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
        Ok(Self { text, parts })
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
        Self { text: pattern, parts: lower.chars().map(Part::Exactly).collect() }
    }

    /// For SQLite's GLOB, on a text in ASCII lower case.
    pub fn as_sql(&self) -> &str {
        &self.text
    }

    /// Whether the whole of `text` fits.
    pub fn matches(&self, text: &str) -> bool {
        self.fits(text.chars().map(|character| character.to_ascii_lowercase()))
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

impl fmt::Debug for Glob {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Glob({:?})", self.text)
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
}
