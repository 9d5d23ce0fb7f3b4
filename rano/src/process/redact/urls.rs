//! Secrets in addresses: passwords, tokens in place of a user, paths that are secrets; and in data sources that look
//! like addresses.

use std::ops::Range;

use super::super::secrets::{self, Part};
use super::LONGEST_WORD;
use super::walk::slash_and_at;

pub(super) fn secrets_of(text: &str, spans: &mut Vec<Range<usize>>) {
    if text.contains("://") {
        passwords(text, spans);
        paths(text, spans);
    }
    if text.contains(':') {
        bots(text, spans);
        data_sources(text, spans);
    }
}

/// `scheme://user:password@host`, and `scheme://token@host` where the token is too long for a user.
fn passwords(text: &str, spans: &mut Vec<Range<usize>>) {
    const LONGEST_USER: usize = 19;
    let mut at = 0;
    while let Some(found) = text[at..].find("://") {
        let start = at + found + 3;
        let word = word_of(&text[start..]);
        // Another address may follow in the same word, after a comma or in a query.
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
        let is_reference = secrets::is_reference(&user_info[secret..]);
        if secret < user_info.len() && !is_reference {
            spans.push(start + secret..start + user_info.len());
        }
        at = start + user_info.len();
    }
}

/// The beginning of a text up to a blank or a quote.
fn word_of(text: &str) -> &str {
    let near = &text[..text.floor_char_boundary(LONGEST_WORD)];
    &near[..near.find(|c: char| c.is_whitespace() || matches!(c, '"' | '\'')).unwrap_or(near.len())]
}

/// Addresses whose path is the secret.
fn paths(text: &str, spans: &mut Vec<Range<usize>>) {
    for marker in secrets::MARKERS {
        let mut at = 0;
        while let Some(found) = text[at..].find(marker.text) {
            let start = at + found + marker.text.len();
            at = start;
            let word = word_of(&text[start..]);
            let path =
                &word[..word.find(['?', '#', ')', '>', '<', '`', ',', ';', '\\']).unwrap_or(word.len())];
            let secret = match marker.part {
                Part::Rest => Some(0),
                Part::Random => first_random(path),
            };
            if let Some(secret) = secret
                && secret < path.len()
                && !secrets::is_reference(&path[secret..])
            {
                spans.push(start + secret..start + path.len());
            }
            at += path.len();
        }
    }
}

/// Where the first part of a path begins that is a key: long, of letters and digits.
fn first_random(path: &str) -> Option<usize> {
    let mut start = 0;
    for part in path.split('/') {
        let has = |wanted: fn(&u8) -> bool| part.bytes().any(|b| wanted(&b));
        if part.len() >= 16
            && has(u8::is_ascii_digit)
            && has(u8::is_ascii_alphabetic)
            && secrets::looks_random(part)
        {
            return Some(start);
        }
        start += part.len() + 1;
    }
    None
}

/// `/bot123456:token/method`
fn bots(text: &str, spans: &mut Vec<Range<usize>>) {
    let mut at = 0;
    while let Some(found) = text[at..].find(secrets::BOT) {
        let start = at + found + secrets::BOT.len();
        at = start;
        let digits = text[start..].bytes().take_while(u8::is_ascii_digit).count();
        let rest = &text[start + digits..];
        if digits > 0
            && let Some(token) = rest.strip_prefix(':')
        {
            let token = word_of(token);
            let length = token.find(['/', '?', '#']).unwrap_or(token.len());
            spans.push(start + digits + 1..start + digits + 1 + length);
            at = start + digits + 1 + length;
        }
    }
}

/// `user:password@tcp(host)/db` and `jdbc:oracle:thin:user/password@place`.
fn data_sources(text: &str, spans: &mut Vec<Range<usize>>) {
    let places: &[&str] = if text.contains('@') { &["@tcp(", "@unix("] } else { &[] };
    for place in places {
        for (end, _) in text.match_indices(place) {
            let from = text.floor_char_boundary(end.saturating_sub(256));
            let head = &text[from..end];
            let word = head
                .rfind(|c: char| c.is_whitespace() || matches!(c, '"' | '\'' | '='))
                .map_or(0, |at| at + 1);
            if let Some(colon) = head[word..].find(':') {
                spans.push(from + word + colon + 1..end);
            }
        }
    }
    for (at, thin) in text.match_indices(":thin:") {
        let start = at + thin.len();
        spans.extend(slash_and_at(word_of(&text[start..]), start));
    }
}
