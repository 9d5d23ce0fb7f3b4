//! What a text says by itself: names with their values, headers, and tokens that are known by their shape.

use std::ops::Range;

use super::super::secrets;
use super::{Form, LONGEST_WORD, closing_quote, next_word};

/// `api_key=…`, `"token": "…"`, `?access_token=…&`, `Authorization: Bearer …`, `headers["X-Api-Key"] = "…"`.
pub(super) fn assignments(text: &str, form: Form, spans: &mut Vec<Range<usize>>) {
    let bytes = text.as_bytes();
    let mut at = 0;
    while let Some(found) = text[at..].find([':', '=']) {
        let separator = at + found;
        at = separator + 1;
        let Some(key) = Key::before(text, separator) else { continue };
        let name = &text[key.name.clone()];
        let before = key.name.start.checked_sub(1).map(|at| bytes[at]);
        let by_name = secrets::is_secret_key(name)
            || secrets::is_header_list(name)
            || (name.eq_ignore_ascii_case("pwd") && before == Some(b';'));
        let in_query = bytes[separator] == b'=' && matches!(before, Some(b'?' | b'&' | b'#'));
        if !by_name && !in_query {
            continue;
        }
        let value = value_of(text, &key, separator, form);
        let shown = &text[value.clone()];
        let is_secret = if by_name {
            let is_file = secrets::may_be_file(name) && secrets::is_path(shown);
            !is_file && !secrets::is_reference(credentials(shown))
        } else {
            secrets::is_query_key(name, shown)
        };
        if is_secret && !value.is_empty() {
            at = value.end;
            spans.push(value);
        }
    }
}

/// A name that a value follows.
struct Key {
    name: Range<usize>,
    /// Quotes stand around the name alone.
    quoted: bool,
    /// Blanks stand before the separator.
    apart: bool,
}

impl Key {
    /// The name before a separator, with or without quotes, a bracket and blanks. Names longer than 64 bytes are none.
    fn before(text: &str, separator: usize) -> Option<Self> {
        let bytes = text.as_bytes();
        let head = &bytes[..separator];
        let blanks = head.iter().rev().take(4).take_while(|b| **b == b' ').count();
        let mut end = separator - blanks;
        if end > 0 && bytes[end - 1] == b']' {
            end -= 1;
        }
        let quoted = end > 0 && matches!(bytes[end - 1], b'"' | b'\'');
        if quoted {
            end -= 1;
            end -= bytes[..end].iter().rev().take(7).take_while(|b| **b == b'\\').count();
        }
        let is_part = |b: &&u8| b.is_ascii_alphanumeric() || b"_-.".contains(b);
        let length = bytes[..end].iter().rev().take(65).take_while(is_part).count();
        (1..=64).contains(&length).then(|| Self { name: end - length..end, quoted, apart: blanks > 0 })
    }
}

/// What stands before a key and so decides how far its value goes.
#[derive(Clone, Copy)]
enum Opening {
    Quote(char),
    Argument,
    Other,
}

fn opening(text: &str, key: &Key, form: Form, is_header: bool) -> Opening {
    let before = key.name.start.checked_sub(1).map(|at| text.as_bytes()[at]);
    match before {
        Some(quote @ (b'"' | b'\'')) if !key.quoted => Opening::Quote(char::from(quote)),
        None if form == Form::Single => Opening::Argument,
        // `--header=Cookie: …`
        Some(b'=') if is_header && form == Form::Single && is_one_option(&text[..key.name.start]) => {
            Opening::Argument
        }
        None | Some(_) => Opening::Other,
    }
}

fn is_one_option(text: &str) -> bool {
    text.starts_with('-') && !text.contains(char::is_whitespace)
}

/// Where the value of a key stands, with its quotes.
fn value_of(text: &str, key: &Key, separator: usize, form: Form) -> Range<usize> {
    let bytes = text.as_bytes();
    let colon = bytes[separator] == b':';
    let mut start = separator + 1;
    // `==`, `=>`, `:=`
    if matches!(bytes.get(start), Some(b'=' | b'>')) && (colon || key.apart) {
        start += 1;
    }
    if colon || key.apart {
        start += bytes[start..].iter().take_while(|b| **b == b' ').count();
    }
    let rest = &text[start..];
    if let Some(quoted) = quoted(rest) {
        return start + quoted.start..start + quoted.end;
    }
    let name = &text[key.name.clone()];
    let is_header = secrets::is_header(name) && (colon || !key.quoted);
    let opening = opening(text, key, form, is_header);
    let length = if is_header { header_length(rest, opening) } else { value_length(rest, opening) };
    start..start + length
}

/// A value in quotes, which may be escaped ones (JSON within JSON) or have a prefix (`f"…"`).
fn quoted(rest: &str) -> Option<Range<usize>> {
    let prefix = rest.bytes().take(2).take_while(|b| b"fFrRbBuU".contains(b)).count();
    let escapes = rest[prefix..].bytes().take(7).take_while(|b| *b == b'\\').count();
    let inner = prefix + escapes;
    if !rest[inner..].starts_with(['"', '\'']) {
        return None;
    }
    if escapes == 0 {
        return Some(inner..closing_quote(&rest[inner..]).map_or(rest.len(), |length| inner + length));
    }
    let quote = &rest[prefix..=inner];
    let mut at = inner + 1;
    while let Some(found) = rest[at..].find(quote) {
        let end = at + found;
        at = end + quote.len();
        if !rest[..end].ends_with('\\') {
            return Some(prefix..at);
        }
    }
    Some(prefix..rest.len())
}

/// A value ends with the quotes that it stands in, else at the next character that cannot be part of it.
fn value_length(rest: &str, opening: Opening) -> usize {
    let length = match opening {
        Opening::Argument => None,
        Opening::Quote(quote) => rest.find(quote),
        Opening::Other => rest
            .find(|c: char| c.is_whitespace() || matches!(c, '"' | '\'' | '&' | ',' | ';' | '}' | ']' | ')')),
    };
    length.unwrap_or(rest.len())
}

/// A header that is an argument of its own, or in quotes, ends with it; in a text the scheme and one word are taken.
fn header_length(rest: &str, opening: Opening) -> usize {
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
    length.unwrap_or(rest.len())
}

/// What follows the scheme in a header's value, else all of it.
fn credentials(value: &str) -> &str {
    let bare = value.trim_start_matches(['"', '\'', '\\']);
    match bare.split_once(' ') {
        Some((scheme, rest)) if secrets::is_scheme(scheme) => rest,
        _ => bare,
    }
}

/// `Bearer` and a token, under whatever name.
pub(super) fn bearers(text: &str, spans: &mut Vec<Range<usize>>) {
    const WORD: &str = "earer";
    let mut at = 0;
    while let Some(found) = text[at..].find(WORD) {
        at += found + WORD.len();
        let rest = &text[at..];
        let blank = if rest.starts_with(' ') {
            1
        } else if rest.starts_with("%20") {
            3
        } else {
            continue;
        };
        let is_part = |b: &u8| b.is_ascii_alphanumeric() || b"-_.~+/=".contains(b);
        let token = &rest[blank..];
        let token = &token[..token.bytes().take(LONGEST_WORD).take_while(is_part).count()];
        if token.len() >= 8 && token.bytes().any(|b| b.is_ascii_digit()) {
            spans.push(at + blank..at + blank + token.len());
        }
    }
}

/// Words that show by their shape that they are secrets.
pub(super) fn tokens(text: &str, spans: &mut Vec<Range<usize>>) {
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
