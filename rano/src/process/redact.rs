//! A command line as it may be stored and shown: secrets taken out, bounded. What counts as a secret is data, in
//! `secrets.rs`; here is how the arguments are walked, in time linear in what is looked at.

use std::ops::Range;

use super::interpreter::basename;
use super::secrets::{self, Takes};

/// Longest command line that is kept, in bytes, the ellipsis included.
pub const MAX_COMMAND_LINE: usize = 4096;
/// What stands in for a secret.
pub const REDACTED: &str = "[redacted]";

/// So much of the arguments is looked at. More than is kept, since redaction shortens; a word that this bound cuts in
/// two is left out, because half a secret is not recognised as one.
const MAX_INPUT: usize = 16 * 1024;
const ELLIPSIS: char = '…';
/// How far the end of a quoted word or of a URL is looked for, so that many beginnings without an end stay cheap.
const LONGEST_WORD: usize = 4096;

/// Whether secrets are taken out of command lines.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Redaction {
    On,
    /// `--no-redact`
    Off,
}

/// The arguments joined by blanks, with secrets replaced by `[redacted]`, cut at 4 KiB on a character boundary with
/// `…`.
pub fn command_line(argv: &[String], redaction: Redaction) -> String {
    let mut line = String::new();
    let mut walk = Walk::default();
    let mut left = MAX_INPUT;
    let mut complete = true;
    for (at, argument) in argv.iter().enumerate() {
        if left == 0 || line.len() > MAX_COMMAND_LINE {
            complete = false;
            break;
        }
        let shown = bounded(argument, left);
        complete &= shown.len() == argument.len();
        left = if complete { left - shown.len() } else { 0 };
        if at > 0 {
            line.push(' ');
            left = left.saturating_sub(1);
        }
        match redaction {
            Redaction::Off => line.push_str(shown),
            Redaction::On => walk.append(&mut line, shown),
        }
    }
    cut(&mut line, complete);
    line
}

/// At most `limit` bytes of an argument, without the word that the limit would cut.
fn bounded(argument: &str, limit: usize) -> &str {
    if argument.len() <= limit {
        return argument;
    }
    let head = &argument[..argument.floor_char_boundary(limit)];
    &head[..head.rfind(char::is_whitespace).unwrap_or(0)]
}

fn cut(line: &mut String, complete: bool) {
    if complete && line.len() <= MAX_COMMAND_LINE {
        return;
    }
    line.truncate(line.floor_char_boundary(MAX_COMMAND_LINE - ELLIPSIS.len_utf8()));
    line.push(ELLIPSIS);
}

/// What is carried from one argument, or word of one, to the next.
#[derive(Default)]
struct Walk {
    /// The program whose options are being read: the last known one that was named.
    program: Option<&'static secrets::Program>,
    /// What the next word is to the option before it.
    next: Option<Takes>,
    /// The last argument said that a program text follows (`sh -c`).
    text_follows: bool,
}

/// What an argument is to the value of a key at its very beginning.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Form {
    /// The value is the rest of it: `env DB_PASSWORD=two words`.
    Single,
    /// More follows after a blank: `sh -c 'DB_PASSWORD=word run it'`.
    Text,
}

impl Walk {
    fn append(&mut self, line: &mut String, argument: &str) {
        let mut spans = Vec::new();
        let form = if self.text_follows { Form::Text } else { Form::Single };
        self.text_follows = argument.len() <= 4 && argument.starts_with('-') && argument.ends_with('c');
        self.words(argument, &mut spans);
        assignments(argument, form, &mut spans);
        tokens(argument, &mut spans);
        urls(argument, &mut spans);
        private_keys(argument, &mut spans);
        spans.sort_unstable_by_key(|span| (span.start, span.end));
        let mut done = 0;
        let mut redacted_to = None;
        for span in spans {
            if span.end <= done {
                continue;
            }
            if span.start > done {
                line.push_str(&argument[done..span.start]);
                redacted_to = None;
            }
            // Spans that overlap or touch are one secret.
            if redacted_to != Some(done) {
                line.push_str(REDACTED);
            }
            done = span.end;
            redacted_to = Some(done);
        }
        line.push_str(&argument[done..]);
    }

    /// Options whose value is the next argument or, within a `sh -c` text, the next word.
    fn words(&mut self, argument: &str, spans: &mut Vec<Range<usize>>) {
        if let Some(takes) = self.next.take()
            && !looks_like_option(argument)
        {
            return spans.extend(secret_of(takes, argument, 0));
        }
        let mut at = 0;
        while let Some(word) = next_word(argument, at) {
            at = word.end;
            let text = argument[word.clone()].trim_matches(['"', '\'']);
            match self.next.take() {
                Some(takes) if !looks_like_option(text) => {
                    spans.extend(secret_of(takes, &argument[word.clone()], word.start));
                }
                _ => self.word(text, word, spans),
            }
        }
    }

    fn word(&mut self, text: &str, word: Range<usize>, spans: &mut Vec<Range<usize>>) {
        if let Some(program) = secrets::program(basename(text)) {
            self.program = Some(program);
        } else if let Some(option) = self.program.and_then(|program| program.option(text)) {
            let attached = text.len() - option.name.len();
            if attached == 0 {
                self.next = option.separate.then_some(option.takes);
            } else if option.attached {
                spans.extend(secret_of(option.takes, &text[option.name.len()..], word.end - attached));
            }
        } else if text.starts_with('-') && !text.contains(['=', ':']) && secrets::is_secret_key(text) {
            self.next = Some(Takes::Secret);
        }
    }
}

/// The part of an option's value that is secret.
fn secret_of(takes: Takes, value: &str, offset: usize) -> Option<Range<usize>> {
    let start = match takes {
        Takes::Secret => 0,
        Takes::UserAndSecret => value.find([':', '%'])? + 1,
    };
    (start < value.len()).then_some(offset + start..offset + value.len())
}

/// `--flag` or `-x`, as opposed to a secret that happens to begin with a dash.
fn looks_like_option(word: &str) -> bool {
    word.starts_with("--") || (word.starts_with('-') && word.len() <= 2)
}

/// The next run of non-blanks from `from` on; one that begins with a quote ends with the same quote.
fn next_word(text: &str, from: usize) -> Option<Range<usize>> {
    let start = from + text[from..].find(|c: char| !c.is_whitespace())?;
    let rest = &text[start..];
    let near = &rest[..rest.floor_char_boundary(LONGEST_WORD)];
    let quoted = rest.starts_with(['"', '\'']).then(|| closing_quote(near)).flatten();
    let length = quoted.unwrap_or_else(|| rest.find(char::is_whitespace).unwrap_or(rest.len()));
    Some(start..start + length)
}

/// Length of `rest`, which begins with a quote, up to and including the closing one.
fn closing_quote(rest: &str) -> Option<usize> {
    let quote = rest.as_bytes()[0];
    let mut escaped = false;
    for (at, byte) in rest.bytes().enumerate().skip(1) {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if quote == b'"' => escaped = true,
            _ if byte == quote => return Some(at + 1),
            _ => {}
        }
    }
    None
}

/// `api_key=…`, `"token": "…"`, `?access_token=…&`, `Authorization: Bearer …`.
fn assignments(text: &str, form: Form, spans: &mut Vec<Range<usize>>) {
    let bytes = text.as_bytes();
    let mut at = 0;
    while let Some(found) = text[at..].find([':', '=']) {
        let separator = at + found;
        at = separator + 1;
        let Some(key) = key_before(text, separator) else { continue };
        if !secrets::is_secret_key(&text[key.clone()]) {
            continue;
        }
        let blanks = text[at..].bytes().take_while(|&b| b == b' ' && bytes[separator] == b':').count();
        let start = at + blanks;
        let end = if secrets::is_header(&text[key.clone()]) && bytes[separator] == b':' {
            header_end(text, opening(text, &key, form), start)
        } else {
            value_end(text, opening(text, &key, form), start)
        };
        if end > start {
            spans.push(start..end);
            at = end;
        }
    }
}

/// The name before a separator, with or without quotes around it. Names longer than 64 bytes are none.
fn key_before(text: &str, separator: usize) -> Option<Range<usize>> {
    let bytes = text.as_bytes();
    let end =
        if separator > 0 && matches!(bytes[separator - 1], b'"' | b'\'') { separator - 1 } else { separator };
    let length = bytes[..end]
        .iter()
        .rev()
        .take(65)
        .take_while(|b| b.is_ascii_alphanumeric() || b"_-.".contains(b))
        .count();
    (1..=64).contains(&length).then(|| end - length..end)
}

/// What stands before a key and so decides how far its value goes.
#[derive(Clone, Copy)]
enum Opening {
    Quote(char),
    Argument,
    Other,
}

fn opening(text: &str, key: &Range<usize>, form: Form) -> Opening {
    match key.start.checked_sub(1).map(|at| text.as_bytes()[at]) {
        Some(quote @ (b'"' | b'\'')) => Opening::Quote(char::from(quote)),
        None if form == Form::Single => Opening::Argument,
        None | Some(_) => Opening::Other,
    }
}

/// A value in quotes ends with them, any other at the next character that cannot be part of it.
fn value_end(text: &str, opening: Opening, start: usize) -> usize {
    let rest = &text[start..];
    if rest.starts_with(['"', '\'']) {
        return start + closing_quote(rest).unwrap_or(rest.len());
    }
    let length = match opening {
        Opening::Argument => None,
        Opening::Quote(quote) => rest.find(quote),
        Opening::Other => rest
            .find(|c: char| c.is_whitespace() || matches!(c, '"' | '\'' | '&' | ',' | ';' | '}' | ']' | ')')),
    };
    start + length.unwrap_or(rest.len())
}

/// A header that is an argument of its own, or in quotes, ends with it; in a text the scheme and one word are taken.
fn header_end(text: &str, opening: Opening, start: usize) -> usize {
    let rest = &text[start..];
    let length = match opening {
        Opening::Quote(quote) => rest.find([quote, '\n']),
        Opening::Argument => rest.find('\n'),
        Opening::Other => {
            let first = next_word(rest, 0).unwrap_or(0..0);
            if secrets::is_scheme(&rest[first.clone()]) {
                next_word(rest, first.end).map(|second| second.end)
            } else {
                Some(first.end)
            }
        }
    };
    start + length.unwrap_or(rest.len())
}

/// Words that show by their shape that they are secrets.
fn tokens(text: &str, spans: &mut Vec<Range<usize>>) {
    let bytes = text.as_bytes();
    let mut at = 0;
    while at < bytes.len() {
        if at > 0 && is_token_byte(bytes[at - 1]) {
            at += 1;
            continue;
        }
        match secrets::token_length(&bytes[at..]) {
            Some(length) => {
                spans.push(at..at + length);
                at += length;
            }
            None => at += 1,
        }
    }
}

fn is_token_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-'
}

/// `scheme://user:password@host`, and `scheme://token@host` where the token is too long for a user.
fn urls(text: &str, spans: &mut Vec<Range<usize>>) {
    const LONGEST_USER: usize = 19;
    let mut at = 0;
    while let Some(found) = text[at..].find("://") {
        let start = at + found + 3;
        let rest = &text[start..];
        let rest = &rest[..rest.floor_char_boundary(LONGEST_WORD)];
        let word =
            &rest[..rest.find(|c: char| c.is_whitespace() || matches!(c, '"' | '\'')).unwrap_or(rest.len())];
        // Another URL may follow in the same word, after a comma or in a query.
        at = start;
        let authority = &word[..word.find(['/', '?', '#']).unwrap_or(word.len())];
        let user_info = match (authority.rfind('@'), authority.split_once(':')) {
            (Some(end), _) => &authority[..end],
            // An unescaped slash in the password: what follows the colon is no port.
            (None, Some((_, port))) if !port.bytes().all(|b| b.is_ascii_digit()) => {
                &word[..word.rfind('@').unwrap_or(0)]
            }
            (None, _) => continue,
        };
        let secret = match user_info.find(':') {
            Some(colon) => colon + 1,
            None if user_info.len() > LONGEST_USER => 0,
            None => user_info.len(),
        };
        if secret < user_info.len() {
            spans.push(start + secret..start + user_info.len());
        }
        at = start + user_info.len();
    }
}

/// A PEM private key, to its end or the argument's.
fn private_keys(text: &str, spans: &mut Vec<Range<usize>>) {
    const END: &str = "-----END";
    let mut at = 0;
    while let Some(found) = text[at..].find("-----BEGIN") {
        let start = at + found;
        let header = text[start..].lines().next().unwrap_or_default();
        let end = text[start..].find(END).map_or(text.len(), |end| start + end);
        if header.contains("PRIVATE KEY") {
            spans.push(start..end);
        }
        at = end.max(start + END.len());
    }
}

#[cfg(test)]
mod tests;
