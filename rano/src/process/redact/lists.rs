//! Lists of arguments within an argument: `{"args": ["--token", "…"]}`, `subprocess.run(["curl", "-u", "…"])`.

use std::ops::Range;

use super::closing_quote;
use super::walk::Walk;

pub(super) fn secrets_of(text: &str, spans: &mut Vec<Range<usize>>) {
    let mut at = 0;
    while let Some(found) = text[at..].find('[') {
        at += found + 1;
        at = list(text, at, spans);
    }
}

/// Walks the strings of the list that begins at `at`, up to what is none; where that is.
fn list(text: &str, mut at: usize, spans: &mut Vec<Range<usize>>) -> usize {
    let mut walk = Walk::default();
    loop {
        at += blanks(&text[at..]);
        let escapes = text[at..].bytes().take(7).take_while(|b| *b == b'\\').count();
        let quote = &text[at..];
        if !quote[escapes..].starts_with(['"', '\'']) {
            return at;
        }
        let quote = &quote[..=escapes];
        let start = at + quote.len();
        let end = if escapes == 0 {
            closing_quote(&text[at..]).map(|length| at + length - 1)
        } else {
            text[start..].find(quote).map(|length| start + length)
        };
        let Some(end) = end else { return text.len() };
        walk.words(&text[start..end], start, spans);
        at = end + quote.len();
        at += blanks(&text[at..]);
        if !text[at..].starts_with(',') {
            return at;
        }
        at += 1;
    }
}

fn blanks(text: &str) -> usize {
    text.bytes().take_while(u8::is_ascii_whitespace).count()
}
