//! From word to word: options whose value is a secret, and words that are secrets behind others.

use std::ops::Range;

use super::super::interpreter::basename;
use super::super::secrets::{self, Command, MOST_COMMANDS, Positional, Takes};
use super::next_word;

/// What is carried from one argument, or word of one, to the next.
#[derive(Default)]
pub(super) struct Walk {
    /// The program whose options are being read: the last known one that was named.
    program: Option<&'static secrets::Program>,
    /// How far each of its commands has been named.
    commands: [Progress; MOST_COMMANDS],
    /// What the next word is to the one before it.
    next: Option<Takes>,
    /// The last word was an option: the next one may be its value and names no program.
    after_option: bool,
    /// The last argument said that a program text follows (`sh -c`).
    pub(super) text_follows: bool,
}

#[derive(Clone, Copy, Default)]
struct Progress {
    named: usize,
    /// Words behind it that are no options.
    words: u8,
}

impl Walk {
    /// Words of an argument that stands at `offset`: all of it where the last one asked for a value.
    pub(super) fn words(&mut self, argument: &str, offset: usize, spans: &mut Vec<Range<usize>>) {
        if let Some(takes) = self.next.take()
            && !looks_like_option(argument)
        {
            self.after_option = false;
            return spans.extend(secret_of(takes, argument, offset));
        }
        let mut at = 0;
        while let Some(word) = next_word(argument, at) {
            at = word.end;
            let text = argument[word.clone()].trim_matches(['"', '\'']);
            match self.next.take() {
                Some(takes) if !looks_like_option(text) => {
                    self.after_option = false;
                    spans.extend(secret_of(takes, &argument[word.clone()], offset + word.start));
                }
                _ => self.word(text, offset + word.start..offset + word.end, spans),
            }
        }
    }

    fn word(&mut self, text: &str, word: Range<usize>, spans: &mut Vec<Range<usize>>) {
        let is_option = text.starts_with('-') && text.len() > 1;
        let may_be_value = std::mem::replace(&mut self.after_option, is_option) && self.program.is_some();
        if matches!(text, ";" | "&&" | "||" | "|") {
            self.program = None;
        } else if !may_be_value && let Some(program) = secrets::program(basename(text)) {
            self.program = Some(program);
            self.commands = [Progress::default(); MOST_COMMANDS];
        } else if self.program.is_some_and(|program| self.command_word(program.commands, text, &word, spans))
        {
        } else if is_option && !text.contains(['=', ':']) && secrets::is_secret_key(text) {
            self.next = Some(if secrets::may_be_file(text) { Takes::SecretOrFile } else { Takes::Secret });
        }
    }

    /// Whether the word has a meaning in one of the commands.
    fn command_word(
        &mut self,
        commands: &'static [Command],
        text: &str,
        word: &Range<usize>,
        spans: &mut Vec<Range<usize>>,
    ) -> bool {
        // Quotes around it count as part of it only at its end.
        let begins = word.end - text.len();
        let mut used = false;
        for (command, progress) in commands.iter().zip(&mut self.commands) {
            if let Some(wanted) = command.words.get(progress.named) {
                progress.named += usize::from(*wanted == text);
                continue;
            }
            if let Some((option, at)) = command.option(text) {
                if at == text.len() {
                    self.next = option.separate.then_some(option.takes);
                } else {
                    spans.extend(secret_of(option.takes, &text[at..], begins + at));
                }
                return true;
            }
            if let Some(option) = command.clustered(text) {
                self.next = Some(option.takes);
                return true;
            }
            if text.starts_with('-') {
                continue;
            }
            progress.words = progress.words.saturating_add(1);
            let takes = match command.positional {
                Positional::None => None,
                Positional::Random(at) => (at == progress.words).then_some(Takes::Random),
                Positional::From(at) => (at <= progress.words).then_some(Takes::Secret),
                Positional::Pairs => text.contains('=').then_some(Takes::Pair),
                Positional::Named => {
                    if !text.contains('=') && secrets::is_secret_key(text) {
                        self.next = Some(Takes::Secret);
                    }
                    None
                }
                Positional::SlashAndAt => {
                    spans.extend(slash_and_at(text, begins));
                    None
                }
            };
            if let Some(takes) = takes {
                spans.extend(secret_of(takes, text, begins));
                used = true;
            }
        }
        used
    }
}

/// The part of a value that is secret.
fn secret_of(takes: Takes, value: &str, offset: usize) -> Option<Range<usize>> {
    let bare = value.trim_matches(['"', '\'']);
    if secrets::is_reference(value) {
        return None;
    }
    let start = match takes {
        Takes::Secret => 0,
        Takes::SecretOrFile => (!secrets::is_path(value)).then_some(0)?,
        Takes::UserAndSecret => match value.find([':', '%', ',']) {
            Some(at) => at + 1,
            None => (bare.len() >= 20 && secrets::looks_random(bare)).then_some(0)?,
        },
        Takes::Pair => value.rfind('=').filter(|at| at + 1 < value.len()).or_else(|| value.find('='))? + 1,
        Takes::Cookies => value.contains('=').then_some(0)?,
        Takes::Random => secrets::looks_random(bare).then_some(0)?,
        Takes::Pass => value.find("pass:")? + "pass:".len(),
    };
    (start < value.len()).then_some(offset + start..offset + value.len())
}

/// `password` of `user/password@place`.
pub(super) fn slash_and_at(text: &str, offset: usize) -> Option<Range<usize>> {
    let slash = text.find('/')?;
    let at = text.rfind('@').filter(|at| *at > slash + 1)?;
    Some(offset + slash + 1..offset + at)
}

/// `--flag` or `-x`, as opposed to a secret that happens to begin with a dash.
fn looks_like_option(word: &str) -> bool {
    word.starts_with("--") || (word.starts_with('-') && word.len() <= 2)
}
