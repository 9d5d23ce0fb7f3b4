//! A command line as it may be stored and shown: secrets taken out, bounded. What counts as a secret is data, in
//! `secrets.rs`; here is how the arguments are walked, in time linear in what is looked at.

use std::ops::Range;

mod lists;
mod pipes;
mod texts;
mod urls;
mod walk;

use walk::Walk;

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
    if redaction == Redaction::On {
        line = without_private_keys(line);
    }
    cut(&mut line, complete);
    line
}

/// Each argument by itself, with secrets replaced; what is longer than 16 KiB is cut.
pub fn arguments(argv: &[String], redaction: Redaction) -> Vec<String> {
    let mut walk = Walk::default();
    let redacted = |argument: &String| {
        let shown = bounded(argument, MAX_INPUT);
        let mut text = String::new();
        match redaction {
            Redaction::Off => text.push_str(shown),
            Redaction::On => walk.append(&mut text, shown),
        }
        text
    };
    argv.iter().map(redacted).collect()
}

/// A private key may stand in many arguments, one a word.
fn without_private_keys(line: String) -> String {
    let mut spans = Vec::new();
    private_keys(&line, &mut spans);
    if spans.is_empty() {
        return line;
    }
    let mut without = String::new();
    replace(&line, spans, &mut without);
    without
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

impl Walk {
    fn append(&mut self, line: &mut String, argument: &str) {
        let mut spans = Vec::new();
        let form = if self.text_follows { Form::Text } else { Form::Single };
        self.text_follows = argument.len() <= 4 && argument.starts_with('-') && argument.ends_with('c');
        self.words(argument, 0, &mut spans);
        texts::tokens(argument, &mut spans);
        // Most arguments are a word: what follows asks for a separator.
        if argument.bytes().any(|b| b":=\"'<|".contains(&b) || b.is_ascii_whitespace()) {
            texts::assignments(argument, form, &mut spans);
            texts::bearers(argument, &mut spans);
            urls::secrets_of(argument, &mut spans);
            pipes::secrets_of(argument, &mut spans);
            lists::secrets_of(argument, &mut spans);
            private_keys(argument, &mut spans);
        }
        replace(argument, spans, line);
    }
}

/// Appends `text` with a mark for each span; spans that overlap or touch are one secret.
fn replace(text: &str, mut spans: Vec<Range<usize>>, line: &mut String) {
    spans.sort_unstable_by_key(|span| (span.start, span.end));
    let mut done = 0;
    let mut redacted_to = None;
    for span in spans {
        if span.end <= done {
            continue;
        }
        if span.start > done {
            line.push_str(&text[done..span.start]);
            redacted_to = None;
        }
        if redacted_to != Some(done) {
            line.push_str(REDACTED);
        }
        done = span.end;
        redacted_to = Some(done);
    }
    line.push_str(&text[done..]);
}

/// What an argument is to the value of a key at its very beginning.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Form {
    /// The value is the rest of it: `env DB_PASSWORD=two words`.
    Single,
    /// More follows after a blank: `sh -c 'DB_PASSWORD=word run it'`.
    Text,
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

/// A PEM private key, to its end or the text's.
fn private_keys(text: &str, spans: &mut Vec<Range<usize>>) {
    const BEGIN: &str = "-----BEGIN";
    const END: &str = "-----END";
    let mut at = 0;
    while let Some(found) = text[at..].find(BEGIN) {
        let start = at + found;
        let title = &text[start + BEGIN.len()..];
        let title = &title[..title.find("-----").unwrap_or(title.len())];
        let end = text[start..].find(END).map_or(text.len(), |end| start + end);
        if title.contains("PRIVATE KEY") {
            spans.push(start..end);
        }
        at = end.max(start + END.len());
    }
}

#[cfg(test)]
mod tests;
