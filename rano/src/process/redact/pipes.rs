//! Secrets that a program text feeds to the standard input of a program that reads one: `echo … | sudo -S`,
//! `sudo -S <<< …`, and here-documents.

use std::ops::Range;

use super::super::secrets;
use super::next_word;

pub(super) fn secrets_of(text: &str, spans: &mut Vec<Range<usize>>) {
    let is_fed =
        text.contains("<<") || (text.contains('|') && (text.contains("echo") || text.contains("print")));
    if !is_fed {
        return;
    }
    let mut before: Option<Range<usize>> = None;
    for (command, piped) in commands(text) {
        let shown = &text[command.clone()];
        if secrets::reads_secret(shown) {
            if let Some(writer) = before.filter(|_| piped) {
                spans.extend(written(text, &writer));
            }
            spans.extend(here(text, &command));
        }
        before = Some(command);
    }
}

/// The simple commands of a text, and whether each reads what the one before it writes. Quotes are respected.
fn commands(text: &str) -> Vec<(Range<usize>, bool)> {
    let bytes = text.as_bytes();
    let mut all = Vec::new();
    let (mut start, mut piped, mut quote, mut at) = (0, false, None, 0);
    while at < bytes.len() {
        let byte = bytes[at];
        match quote {
            Some(open) if byte == open => quote = None,
            Some(b'"') | None if byte == b'\\' => at += 1,
            None if matches!(byte, b'"' | b'\'') => quote = Some(byte),
            None if matches!(byte, b'|' | b';' | b'&' | b'\n') => {
                all.push((start..at, piped));
                let double = bytes.get(at + 1) == Some(&byte);
                piped = byte == b'|' && !double;
                // `|&` pipes too.
                at += usize::from(double || (piped && bytes.get(at + 1) == Some(&b'&')));
                start = at + 1;
            }
            Some(_) | None => {}
        }
        at += 1;
    }
    all.push((start.min(bytes.len())..bytes.len(), piped));
    all
}

/// The arguments of `echo` or `printf`.
fn written(text: &str, command: &Range<usize>) -> Option<Range<usize>> {
    let shown = &text[..command.end];
    let mut at = command.start;
    // What stands before the name: a brace, or a program text's quote.
    loop {
        let word = next_word(shown, at)?;
        at = word.end;
        let name = shown[word].rsplit('/').next().unwrap_or_default().trim_start_matches(['"', '\'', '(']);
        if matches!(name, "echo" | "printf" | "print") {
            break;
        }
    }
    let mut start = next_word(shown, at)?.start;
    // `-n`, and a format without a word of its own.
    while let Some(word) = next_word(shown, start) {
        let text = shown[word.clone()].trim_matches(['"', '\'']);
        let is_format = text.contains('%') && text.len() <= 6;
        if !(is_format || text.len() <= 3 && text.starts_with('-')) {
            break;
        }
        start = next_word(shown, word.end)?.start;
    }
    let written = shown[start..].trim_end();
    (!secrets::is_reference(written)).then_some(start..start + written.len())
}

/// The word behind `<<<`, or the lines of a here-document.
fn here(text: &str, command: &Range<usize>) -> Option<Range<usize>> {
    let shown = &text[command.clone()];
    if let Some(found) = shown.find("<<<") {
        let word = next_word(&text[..command.end], command.start + found + 3)?;
        return (!secrets::is_reference(&text[word.clone()])).then_some(word);
    }
    let found = command.start + shown.find("<<")? + 2;
    let word = next_word(text, found)?;
    let mark = text[word.clone()].trim_start_matches('-').trim_matches(['"', '\'']);
    let start = word.end + text[word.end..].find('\n')? + 1;
    let length = text[start..].find(&format!("\n{mark}")).unwrap_or(text.len() - start);
    (!mark.is_empty()).then_some(start..start + length)
}
