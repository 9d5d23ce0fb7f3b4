//! Hostile names: what a process or a domain calls itself must not move the cursor, break a line, turn text around
//! or pass for a column of rano's own.

use std::fmt;

/// Shows `0` with everything dangerous written out: control characters, line and paragraph separators, bidirectional
/// and zero-width marks (Unicode UAX #9, Trojan Source), the column separator `|` and the backslash that begins an
/// escape. Everything else, emoji and non-Latin scripts included, passes as it is.
pub struct Escaped<'a>(pub &'a str);

impl fmt::Display for Escaped<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut plain_from = 0;
        for (at, character) in self.0.char_indices() {
            if !is_dangerous(character) {
                continue;
            }
            f.write_str(&self.0[plain_from..at])?;
            plain_from = at + character.len_utf8();
            match character {
                '\n' => f.write_str("\\n")?,
                '\r' => f.write_str("\\r")?,
                '\t' => f.write_str("\\t")?,
                '\\' => f.write_str("\\\\")?,
                '|' => f.write_str("\\|")?,
                other if other.is_ascii() => write!(f, "\\x{:02x}", u32::from(other))?,
                other => write!(f, "\\u{{{:x}}}", u32::from(other))?,
            }
        }
        f.write_str(&self.0[plain_from..])
    }
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

fn is_dangerous(character: char) -> bool {
    matches!(character,
        '|' | '\\'
        | '\u{061c}' | '\u{200b}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'
        | '\u{2066}'..='\u{2069}' | '\u{feff}' | '\u{fff9}'..='\u{fffb}' | '\u{e0001}' | '\u{e0020}'..='\u{e007f}')
        || character.is_control()
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
    fn fitting_counts_columns_not_bytes() {
        assert_eq!(fit("日本語", 6), "日本語");
        assert_eq!(fit("日本語", 5), "日本…");
        assert_eq!(fit("abc", 0), "");
        assert_eq!(fit("\x1babc", 5), "\\x1b…");
    }
}
