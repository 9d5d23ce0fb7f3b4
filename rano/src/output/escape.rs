//! Hostile names: what a process or a domain calls itself must not move the cursor, break a line, turn text around
//! or pass for a column of rano's own.

use std::borrow::Cow;
use std::fmt;

/// A name in a line of columns: everything dangerous is written out (`is_dangerous`), and so are the column separator
/// `|` and the backslash that begins an escape. Everything else, emoji and non-Latin scripts included, passes.
pub struct Escaped<'a>(pub &'a str);

/// A message of one line, such as an error of another program in a sentence of rano's. What was escaped before stays as
/// it is, and so do `|` and the backslash.
pub struct Line<'a>(pub &'a str);

impl fmt::Display for Escaped<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_out(f, self.0, |character| is_dangerous(character) || matches!(character, '|' | '\\'))
    }
}

impl fmt::Display for Line<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_out(f, self.0, is_dangerous)
    }
}

fn write_out(out: &mut impl fmt::Write, text: &str, is_written_out: impl Fn(char) -> bool) -> fmt::Result {
    let mut plain_from = 0;
    for (at, character) in text.char_indices() {
        if is_written_out(character) {
            out.write_str(&text[plain_from..at])?;
            plain_from = at + character.len_utf8();
            write_character(out, character)?;
        }
    }
    out.write_str(&text[plain_from..])
}

fn write_character(out: &mut impl fmt::Write, character: char) -> fmt::Result {
    match character {
        '\n' => out.write_str("\\n"),
        '\r' => out.write_str("\\r"),
        '\t' => out.write_str("\\t"),
        '\\' => out.write_str("\\\\"),
        '|' => out.write_str("\\|"),
        other if other.is_ascii() => write!(out, "\\x{:02x}", u32::from(other)),
        other => write!(out, "\\u{{{:x}}}", u32::from(other)),
    }
}

/// Whether a text may hold escape sequences of rano's own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Colors {
    Painted,
    Plain,
}

/// A finished text of several lines, as the last thing before a terminal or a pretty log: whatever was forgotten before
/// is written out here. Line feeds pass, and where it is painted the sequences that change colours.
pub fn screened(text: &str, colors: Colors) -> Cow<'_, str> {
    let is_plain = |character: char| character == '\n' || !is_dangerous(character);
    if text.chars().all(is_plain) {
        return Cow::Borrowed(text);
    }
    let mut safe = String::with_capacity(text.len() + 16);
    let mut rest = text;
    while let Some(character) = rest.chars().next() {
        let color = if colors == Colors::Painted { color_sequence(rest) } else { None };
        let length = color.unwrap_or(character.len_utf8());
        if color.is_some() || is_plain(character) {
            safe.push_str(&rest[..length]);
        } else {
            write_character(&mut safe, character).expect("writing into a String cannot fail");
        }
        rest = &rest[length..];
    }
    Cow::Owned(safe)
}

/// Length of the sequence that `text` begins with, if it is one of those that rano and clap paint with (ECMA-48 SGR):
/// bold, dim, underlined, inverted, a colour, and back. Concealed and blinking text are not among them.
fn color_sequence(text: &str) -> Option<usize> {
    let parameters = text.strip_prefix("\x1b[")?;
    // No longer than `38;5;255`.
    let end = parameters.bytes().take(9).position(|byte| byte == b'm')?;
    let parameters = &parameters[..end];
    let is_color = match parameters.strip_prefix("38;5;") {
        Some(number) => number.parse::<u8>().is_ok() && !number.starts_with('+'),
        None => {
            matches!(parameters.as_bytes(), [b'0' | b'1' | b'2' | b'4' | b'7'] | [b'3' | b'9', b'0'..=b'7'])
        }
    };
    is_color.then_some("\x1b[m".len() + end)
}

/// JSON as it may be written to a terminal, from byte `from` on: what JSON leaves to the writer is written as `\u…`
/// too. The value stays the same, because such characters stand in strings only.
pub fn screen_json(json: &mut Vec<u8>, from: usize) {
    // Nearly always there is nothing, and without a way out a loop looks at many bytes at once.
    let largest = json[from..].iter().fold(0, |largest, byte| largest.max(*byte));
    if largest < 0x7f {
        return;
    }
    let Some(first) = json[from..].iter().position(|byte| *byte >= 0x7f) else { return };
    let tail = String::from_utf8_lossy(&json[from + first..]).into_owned();
    if !tail.chars().any(is_dangerous_in_json) {
        return;
    }
    json.truncate(from + first);
    let mut bytes = [0; 4];
    for character in tail.chars() {
        if is_dangerous_in_json(character) {
            for unit in character.encode_utf16(&mut [0; 2]) {
                json.extend_from_slice(format!("\\u{unit:04x}").as_bytes());
            }
        } else {
            json.extend_from_slice(character.encode_utf8(&mut bytes).as_bytes());
        }
    }
}

/// JSON itself has the other control characters escaped in strings, and line feeds between its parts.
fn is_dangerous_in_json(character: char) -> bool {
    character > '\x1f' && is_dangerous(character)
}

/// What moves the cursor, ends a line, turns text around or is not to be seen: control characters (C0, DEL, C1), line
/// and paragraph separators, and all code points that are ignored where they are not supported (Unicode 17,
/// `Default_Ignorable_Code_Point`: bidirectional marks, joiners, fillers, variation selectors, tags), with the
/// interlinear marks.
pub(super) fn is_dangerous(character: char) -> bool {
    if character.is_ascii() {
        return character.is_ascii_control();
    }
    matches!(character,
        '\u{80}'..='\u{9f}' | '\u{ad}' | '\u{34f}' | '\u{61c}' | '\u{115f}'..='\u{1160}' | '\u{17b4}'..='\u{17b5}'
        | '\u{180b}'..='\u{180f}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}'
        | '\u{3164}' | '\u{fe00}'..='\u{fe0f}' | '\u{feff}' | '\u{ffa0}' | '\u{fff0}'..='\u{fffb}'
        | '\u{1bca0}'..='\u{1bca3}' | '\u{1d173}'..='\u{1d17a}' | '\u{e0000}'..='\u{e0fff}')
}

/// An owned, escaped copy, cut to `columns` terminal columns (an ellipsis takes the last one).
pub fn fit(text: &str, columns: usize) -> String {
    cut(&Escaped(text).to_string(), columns)
}

/// What is safe to show already, cut in the same way.
pub fn cut(text: &str, columns: usize) -> String {
    use unicode_width::{UnicodeWidthChar as _, UnicodeWidthStr as _};
    if text.width() <= columns {
        return text.to_owned();
    }
    let mut fitted = String::new();
    let mut used = 0;
    for character in text.chars() {
        let width = character.width().unwrap_or(0);
        if used + width + 1 > columns {
            break;
        }
        used += width;
        fitted.push(character);
    }
    if columns > 0 {
        fitted.push('…');
    }
    fitted
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, expected: &str) {
        assert_eq!(Escaped(text).to_string(), expected, "{text:?}");
    }

    #[test]
    fn nothing_reaches_a_terminal_raw() {
        check("codex-cli", "codex-cli");
        check("a\nb\r\tc", "a\\nb\\r\\tc");
        check("\x1b[31mred\x07", "\\x1b[31mred\\x07");
        check("\u{9b}31m", "\\u{9b}31m");
        check("ab\u{202e}cd", "ab\\u{202e}cd");
        check("zero\u{200b}width", "zero\\u{200b}width");
        check("x | domain=evil.example", "x \\| domain=evil.example");
        check("back\\slash", "back\\\\slash");
        check("日本語 🦀 é", "日本語 🦀 é");
    }

    #[test]
    fn what_is_not_to_be_seen_is_written_out() {
        for character in [
            '\0',
            '\x07',
            '\x1b',
            '\x7f',
            '\u{80}',
            '\u{85}',
            '\u{9b}',
            '\u{9f}',
            '\u{ad}',
            '\u{61c}',
            '\u{200d}',
            '\u{200e}',
            '\u{200f}',
            '\u{2028}',
            '\u{2029}',
            '\u{202a}',
            '\u{202e}',
            '\u{2066}',
            '\u{2069}',
            '\u{206f}',
            '\u{fe0f}',
            '\u{feff}',
            '\u{fff9}',
            '\u{e0001}',
            '\u{e0061}',
            '\u{e01ef}',
        ] {
            let text = format!("a{character}b");
            for shown in [Escaped(&text).to_string(), Line(&text).to_string()] {
                assert!(shown.starts_with("a\\") && !shown.contains(character), "{text:?}: {shown}");
            }
            let screened = screened(&text, Colors::Painted).into_owned();
            assert!(!screened.contains(character), "{text:?}: {screened}");
            let mut json = serde_json::to_vec(&text).expect("JSON");
            screen_json(&mut json, 0);
            assert!(json.iter().all(|byte| (0x20..0x7f).contains(byte)), "{text:?}: {json:?}");
            assert_eq!(serde_json::from_slice::<String>(&json).expect("JSON"), text);
        }
        // What cannot be a character became one long before.
        check(&String::from_utf8_lossy(b"a\xff\xed\xa0\x80"), "a\u{fffd}\u{fffd}\u{fffd}\u{fffd}");
    }

    #[test]
    fn a_message_stays_in_its_line_and_is_not_escaped_twice() {
        let message = r"open a\x1b[31m\nb | c";
        assert_eq!(Line(message).to_string(), message);
        assert_eq!(Line("near \"\x1b]0;x\x07\n\": syntax").to_string(), "near \"\\x1b]0;x\\x07\\n\": syntax");
    }

    #[test]
    fn only_lines_and_colours_of_our_own_get_through() {
        use crate::output::style::{Styles, Theme};
        for theme in [Theme::Vivid, Theme::Mono, Theme::Colorblind] {
            let styles = Styles::new(theme);
            for style in
                [styles.connect, styles.fail, styles.dim, styles.heading, styles.critical, styles.bar]
            {
                let painted = format!("{style}text{style:#}\n");
                assert_eq!(screened(&painted, Colors::Painted), painted);
                assert!(painted == "text\n" || screened(&painted, Colors::Plain).contains("\\x1b["));
            }
        }
        for (text, expected) in [
            ("a\nb", "a\nb"),
            ("\x1b[1mbold\x1b[0m \x1b[33mx", "\x1b[1mbold\x1b[0m \x1b[33mx"),
            ("\x1b[8mhidden", "\\x1b[8mhidden"),
            ("\x1b[5m", "\\x1b[5m"),
            ("\x1b[m", "\\x1b[m"),
            ("\x1b[2K", "\\x1b[2K"),
            ("\x1b[38;5;256m", "\\x1b[38;5;256m"),
            ("\x1b[38;5;+1m", "\\x1b[38;5;+1m"),
            ("\x1b[38;5;m", "\\x1b[38;5;m"),
            ("\x1b[31", "\\x1b[31"),
            ("\x1b", "\\x1b"),
            ("\x1b[é", "\\x1b[é"),
            ("\x1b]0;x\x07", "\\x1b]0;x\\x07"),
            ("a\r\tb", "a\\r\\tb"),
            ("⚠ █░ → 日本語 🦀", "⚠ █░ → 日本語 🦀"),
        ] {
            assert_eq!(screened(text, Colors::Painted), expected, "{text:?}");
        }
    }

    #[test]
    fn json_stays_the_same_value() {
        let value = serde_json::json!({ "é\u{202e}": ["🦀\u{e0041}", "\u{7f}\u{9b}\x1b\n", 1] });
        for mut json in [value.to_string(), format!("{value:#}")].map(String::into_bytes) {
            screen_json(&mut json, 0);
            let text = String::from_utf8(json).expect("UTF-8");
            assert!(text.contains("é\\u202e") && text.contains("🦀\\udb40\\udc41"), "{text}");
            assert!(text.chars().all(|character| character == '\n' || !is_dangerous(character)), "{text}");
            assert_eq!(serde_json::from_str::<serde_json::Value>(&text).expect("JSON"), value);
        }
    }

    #[test]
    fn fitting_counts_columns_not_bytes() {
        assert_eq!(fit("日本語", 6), "日本語");
        assert_eq!(fit("日本語", 5), "日本…");
        assert_eq!(fit("abc", 0), "");
        assert_eq!(fit("\x1babc", 5), "\\x1b…");
    }
}
