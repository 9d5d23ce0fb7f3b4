//! What clap says about a command line, which holds the arguments as they were typed, or as a script put them together.

use std::process::ExitCode;

use clap::builder::StyledStr;
use clap::error::{ContextKind, ContextValue, ErrorKind};

use super::{Context, failed, not_printed, say};
use crate::exit::Code;
use crate::output::escape::{Colors, Line, screened};
use crate::output::stream;

/// Help and version are asked for in the form of an error.
pub(super) fn refused(error: clap::Error, context: &Context) -> ExitCode {
    let environment = &context.environment;
    let colored = |is_terminal| is_terminal && !environment.no_color() && !environment.is_dumb_terminal();
    if !error.use_stderr() {
        return match stream::print(&rendered(error, colored(stream::stdout_is_terminal()))) {
            Ok(()) => Code::Fine.into(),
            Err(error) => failed(&not_printed(error)),
        };
    }
    let hint = program_hint(&error, context);
    say(&rendered(error, colored(stream::stderr_is_terminal())));
    if let Some(hint) = hint {
        say(&hint);
    }
    Code::Usage.into()
}

/// The text with every argument escaped; what clap itself paints is let through where it is printed.
fn rendered(mut error: clap::Error, colored: bool) -> String {
    let escaped: Vec<(ContextKind, ContextValue)> =
        error.context().filter_map(|(kind, value)| Some((kind, escaped(value)?))).collect();
    for (kind, value) in escaped {
        error.insert(kind, value);
    }
    let shown = |text: StyledStr| if colored { text.ansi().to_string() } else { text.to_string() };
    let text = shown(error.render());
    // What a parser of ours found wrong with a value, which it may repeat; clap passes it on as it is.
    let Some(reason) = std::error::Error::source(&error).map(ToString::to_string) else { return text };
    let (safe, as_shown) = (Line(&reason).to_string(), shown(StyledStr::from(reason.clone())));
    if safe == reason || as_shown.is_empty() { text } else { text.replace(&as_shown, &safe) }
}

/// `None` where nothing from outside can be in it. Suggestions are painted around what was typed.
fn escaped(value: &ContextValue) -> Option<ContextValue> {
    let line = |text: &String| Line(text).to_string();
    match value {
        ContextValue::String(text) => Some(ContextValue::String(line(text))),
        ContextValue::Strings(texts) => Some(ContextValue::Strings(texts.iter().map(line).collect())),
        ContextValue::StyledStrs(texts) => {
            let one_line =
                |text: &StyledStr| screened(&text.ansi().to_string(), Colors::Painted).replace('\n', "\\n");
            Some(ContextValue::StyledStrs(texts.iter().map(|text| one_line(text).into()).collect()))
        }
        _ => None,
    }
}

/// For who types the program that is to be watched: `rano aider`.
fn program_hint(error: &clap::Error, context: &Context) -> Option<String> {
    // An unknown command of a command, or one with arguments, is no program's name.
    let [_, only] = context.arguments.as_slice() else { return None };
    let word = only.to_str()?;
    let is_unknown = error.kind() == ErrorKind::InvalidSubcommand;
    let is_like_command = error.get(ContextKind::SuggestedSubcommand).is_some();
    let needs_no_quotes = word.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte));
    (is_unknown && !is_like_command && needs_no_quotes)
        .then(|| format!("hint: to watch a program: rano --pattern {word}\n"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::commands::command;

    #[test]
    fn arguments_are_escaped_wherever_clap_repeats_them() {
        let hostile = "x\x1b]0;owned\x07\n\u{202e}\u{9b}31m";
        for arguments in [
            vec![hostile.to_owned()],
            vec![format!("--{hostile}")],
            vec![format!("--interval-ms={hostile}")],
            vec![format!("--pid={hostile}")],
            vec!["--once".to_owned(), hostile.to_owned()],
            vec!["config".to_owned(), hostile.to_owned()],
            vec!["completions".to_owned(), hostile.to_owned()],
            vec!["report".to_owned(), format!("--since={hostile}")],
            vec!["report".to_owned(), format!("--{hostile}=1")],
            vec!["report".to_owned(), hostile.to_owned()],
            vec!["export".to_owned(), format!("--format={hostile}")],
            vec!["export".to_owned(), "--format=csv".to_owned(), format!("--fields={hostile}")],
            vec!["status".to_owned(), format!("--format={{{hostile}}}")],
        ] {
            let all = std::iter::once("rano".to_owned()).chain(arguments.clone());
            for (colored, colors) in [(false, Colors::Plain), (true, Colors::Painted)] {
                let error = command().try_get_matches_from(all.clone()).expect_err("nonsense");
                let shown = screened(&rendered(error, colored), colors).into_owned();
                assert!(!shown.contains(['\x07', '\u{202e}', '\u{9b}']), "{arguments:?}: {shown}");
                assert!(!shown.contains("\n\\u{202e}"), "{arguments:?}: {shown}");
                assert!(shown.contains("\\x1b]0;owned\\x07\\n\\u{202e}"), "{arguments:?}: {shown}");
            }
        }
    }
}
