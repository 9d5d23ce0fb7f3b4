//! From text to tree.
//!
//! ```text
//! filter  = both { " | " both }
//! both    = { negated }
//! negated = ( "-" | "not" ) negated | either
//! either  = primary { "|" primary }                with no blank on either side
//! primary = "(" filter ")" | key ":" values | values
//! values  = value { ( "," | "|" ) value }
//! ```

use super::key::{KEYS, Key};
use super::tree::{Node, Term};
use super::values::{self, Written, Wrong, nearest};
use super::{DEPTH_MAX, FilterError, TERMS_MAX};

pub(super) fn parse(text: &str) -> Result<Node, FilterError> {
    let mut parser = Parser { text: text.chars().collect(), at: 0, depth: 0, terms: 0 };
    let node = parser.filter()?;
    match parser.peek() {
        None => Ok(node),
        Some(_) => Err(FilterError::new(parser.at, "')' without '('")),
    }
}

struct Parser {
    text: Vec<char>,
    /// Characters that are read.
    at: usize,
    depth: usize,
    terms: usize,
}

/// A value with its place.
struct Value {
    at: usize,
    text: String,
    quoted: bool,
}

impl Parser {
    fn peek(&self) -> Option<char> {
        self.text.get(self.at).copied()
    }

    fn skip_blanks(&mut self) {
        while self.peek().is_some_and(char::is_whitespace) {
            self.at += 1;
        }
    }

    fn filter(&mut self) -> Result<Node, FilterError> {
        self.skip_blanks();
        let begin = self.at;
        let mut any = vec![self.both()?];
        while self.peek() == Some('|') {
            let bar = self.at;
            self.at += 1;
            self.skip_blanks();
            if any.last().is_some_and(is_empty) {
                return Err(FilterError::new(bar, "nothing stands before '|'"));
            }
            let next = self.both()?;
            if is_empty(&next) {
                return Err(FilterError::new(bar, "nothing stands after '|'"));
            }
            any.push(next);
        }
        if self.depth > 0 && any.len() == 1 && any.last().is_some_and(is_empty) {
            return Err(FilterError::new(begin, "nothing stands between the parentheses"));
        }
        Ok(one_or(any, Node::Any))
    }

    fn both(&mut self) -> Result<Node, FilterError> {
        let mut all = Vec::new();
        while !matches!(self.peek(), None | Some('|' | ')')) {
            all.push(self.negated()?);
            self.skip_blanks();
        }
        Ok(one_or(all, Node::All))
    }

    fn negated(&mut self) -> Result<Node, FilterError> {
        let begin = self.at;
        let mut turned = false;
        loop {
            if self.peek() == Some('-') {
                self.at += 1;
            } else if self.is_not() {
                self.at += 3;
                self.skip_blanks();
            } else {
                break;
            }
            turned = !turned;
            if self.peek().is_none_or(|next| next.is_whitespace() || ")|".contains(next)) {
                return Err(FilterError::new(begin, "nothing follows that could be negated"));
            }
        }
        let node = self.either()?;
        Ok(if turned { Node::Not(Box::new(node)) } else { node })
    }

    /// The word itself: what follows it is no part of a longer one.
    fn is_not(&self) -> bool {
        let word: String = self.text.iter().skip(self.at).take(3).collect();
        let ends = self.text.get(self.at + 3).is_none_or(|next| next.is_whitespace() || *next == '(');
        word.eq_ignore_ascii_case("not") && ends
    }

    fn either(&mut self) -> Result<Node, FilterError> {
        let mut any = vec![self.primary()?];
        while self.is_tight_bar() {
            self.at += 1;
            any.push(self.primary()?);
        }
        Ok(one_or(any, Node::Any))
    }

    /// A `|` between two parts without a blank.
    fn is_tight_bar(&self) -> bool {
        let follows = self.text.get(self.at + 1);
        self.peek() == Some('|') && follows.is_some_and(|next| !next.is_whitespace() && !")|".contains(*next))
    }

    fn primary(&mut self) -> Result<Node, FilterError> {
        if self.peek() == Some('(') {
            return self.parentheses();
        }
        self.count()?;
        let begin = self.at;
        if let Some(key) = self.key()? {
            let values = self.values(begin)?;
            return term(key, &values).map(Node::Term);
        }
        let anywhere = |value: Value| Node::Term(Term::Anywhere(value.text.to_ascii_lowercase()));
        let terms = self.values(begin)?.into_iter().map(anywhere).collect();
        Ok(one_or(terms, Node::Any))
    }

    /// SQLite takes expressions up to a size.
    fn count(&mut self) -> Result<(), FilterError> {
        self.terms += 1;
        if self.terms > TERMS_MAX {
            return Err(FilterError::new(self.at, format!("more than {TERMS_MAX} terms and values")));
        }
        Ok(())
    }

    fn parentheses(&mut self) -> Result<Node, FilterError> {
        let begin = self.at;
        self.at += 1;
        self.depth += 1;
        if self.depth > DEPTH_MAX {
            return Err(FilterError::new(begin, format!("more than {DEPTH_MAX} parentheses in one another")));
        }
        let node = self.filter()?;
        self.depth -= 1;
        if self.peek() != Some(')') {
            return Err(FilterError::new(begin, "'(' without ')'"));
        }
        self.at += 1;
        Ok(node)
    }

    /// A key with its colon, if one comes next. A word that could be one and is none is an error: its colon would be
    /// looked for in vain.
    fn key(&mut self) -> Result<Option<Key>, FilterError> {
        let Some(name) = self.name() else { return Ok(None) };
        if let Some(key) = Key::named(&name) {
            self.at += name.len() + 1;
            return Ok(Some(key));
        }
        // An IPv6 address.
        if self.text.get(self.at + name.len() + 1) == Some(&':') {
            return Ok(None);
        }
        let hint = nearest(&name.to_ascii_lowercase(), KEYS.iter().map(|(known, _)| *known));
        let hint = hint.map_or_else(
            || format!("keys are {}; text with a colon stands in quotes", names()),
            |near| format!("the nearest is '{near}'"),
        );
        Err(FilterError::new(self.at, format!("unknown key '{name}'; {hint}")))
    }

    /// Letters up to a colon.
    fn name(&self) -> Option<String> {
        let rest = &self.text[self.at..];
        let end = rest.iter().position(|character| !character.is_ascii_alphabetic() && *character != '_')?;
        let name: String = rest[..end].iter().collect();
        (rest[end] == ':' && !name.is_empty()).then_some(name)
    }

    fn values(&mut self, begin: usize) -> Result<Vec<Value>, FilterError> {
        let mut values = vec![self.value(begin)?];
        loop {
            let is_comma = self.peek() == Some(',');
            if !is_comma && !self.is_tight_bar() {
                return Ok(values);
            }
            if !is_comma {
                // Another term begins behind it.
                let bar = self.at;
                self.at += 1;
                let is_term =
                    self.peek() == Some('(') || self.name().is_some_and(|name| Key::named(&name).is_some());
                if is_term {
                    self.at = bar;
                    return Ok(values);
                }
                self.at = bar;
            }
            self.at += 1;
            self.count()?;
            values.push(self.value(self.at)?);
        }
    }

    fn value(&mut self, begin: usize) -> Result<Value, FilterError> {
        let at = self.at;
        let mut value = Value { at, text: String::new(), quoted: false };
        while let Some(character) = self.peek() {
            if character == '"' {
                value.quoted = true;
                self.quoted(&mut value.text)?;
            } else if character.is_whitespace() || "(),|".contains(character) {
                break;
            } else {
                value.text.push(character);
                self.at += 1;
            }
        }
        // Nothing is asked for by nothing, unless it is said.
        if value.text.is_empty() {
            return Err(FilterError::new(begin, "a value is missing"));
        }
        Ok(value)
    }

    fn quoted(&mut self, text: &mut String) -> Result<(), FilterError> {
        let begin = self.at;
        self.at += 1;
        loop {
            let Some(character) = self.peek() else {
                return Err(FilterError::new(begin, "a quote that is not closed"));
            };
            self.at += 1;
            match character {
                '"' => return Ok(()),
                '\\' if matches!(self.peek(), Some('"' | '\\')) => {
                    text.extend(self.peek());
                    self.at += 1;
                }
                _ => text.push(character),
            }
        }
    }
}

fn is_empty(node: &Node) -> bool {
    matches!(node, Node::All(nodes) if nodes.is_empty())
}

fn one_or(mut nodes: Vec<Node>, many: fn(Vec<Node>) -> Node) -> Node {
    match nodes.len() {
        0 => Node::All(Vec::new()),
        1 => nodes.remove(0),
        _ => many(nodes),
    }
}

fn names() -> String {
    KEYS.iter().map(|(name, _)| *name).collect::<Vec<_>>().join(", ")
}

fn term(key: Key, values: &[Value]) -> Result<Term, FilterError> {
    fn each<T>(
        values: &[Value],
        read: impl Fn(&Written<'_>) -> Result<T, Wrong>,
    ) -> Result<Vec<T>, FilterError> {
        let read = |value: &Value| {
            let written = Written { text: &value.text, quoted: value.quoted };
            read(&written).map_err(|Wrong(at, message)| {
                let quote = usize::from(value.quoted);
                FilterError::new(value.at + quote + at, message)
            })
        };
        values.iter().map(read).collect()
    }
    Ok(match key {
        Key::Text(key) => Term::Text(key, each(values, |value| values::pattern(key, value))?),
        Key::Word(key) => {
            let mut words = each(values, |value| values::word(key, value))?.concat();
            words.sort_unstable();
            words.dedup();
            Term::Word(key, words)
        }
        Key::Number(key) => Term::Number(key, each(values, |value| values::number(key, value))?),
        Key::Ip => Term::Ip(each(values, values::network)?),
        Key::Alert => match *each(values, values::truth)? {
            [alert] => Term::Alert(alert),
            _ => return Err(FilterError::new(values[0].at, "it is true or false, not both")),
        },
    })
}
