//! Long lines, broken between words for those who read them on a terminal.

use std::os::fd::AsFd;

use textwrap::{Options, WordSeparator, WordSplitter, WrapAlgorithm};

/// Columns of the terminal that `to` is; `None` where it is none.
pub fn columns(to: impl AsFd) -> Option<usize> {
    let size = rustix::termios::tcgetwinsize(to).ok()?;
    // One that does not know its own size says 0.
    Some(if size.ws_col == 0 { 80 } else { usize::from(size.ws_col) })
}

/// Lines of at most `width` columns; a longer word has a line of its own. Colours take no room.
pub fn wrapped(text: &str, width: usize) -> Vec<String> {
    textwrap::wrap(text, options(width)).into_iter().map(Into::into).collect()
}

/// The same for each line of a text that is for `width` columns, if there is a limit; what does not fit stands under
/// it, `indent` columns from the left.
pub fn folded(text: String, width: Option<usize>, indent: usize) -> String {
    let Some(width) = width else { return text };
    let spaces = " ".repeat(indent);
    let options = options(width).subsequent_indent(&spaces);
    text.lines()
        .flat_map(|line| textwrap::wrap(line, &options))
        .fold(String::new(), |text, line| text + &line + "\n")
}

fn options<'a>(width: usize) -> Options<'a> {
    Options::new(width)
        .break_words(false)
        .word_separator(WordSeparator::AsciiSpace)
        .word_splitter(WordSplitter::NoHyphenation)
        .wrap_algorithm(WrapAlgorithm::FirstFit)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_kept_whole_where_they_fit() {
        for (text, width, expected) in [
            ("short", 10, &["short"][..]),
            ("some words that wrap", 10, &["some words", "that wrap"]),
            ("averylongwordindeed and so", 10, &["averylongwordindeed", "and so"]),
            ("\x1b[1msome\x1b[0m words", 10, &["\x1b[1msome\x1b[0m words"]),
            ("", 10, &[""]),
        ] {
            assert_eq!(wrapped(text, width), expected, "{text}");
        }
    }

    #[test]
    fn each_line_of_a_text_keeps_its_place() {
        let text = "Summary\n  source   proc: a long reason\n\n  names    ptr\n";
        let expected = "Summary\n  source   proc: a\n           long\n           reason\n\n  names    ptr\n";
        assert_eq!(folded(text.to_owned(), Some(18), 11), expected);
        assert_eq!(folded(text.to_owned(), None, 11), text);
    }
}
