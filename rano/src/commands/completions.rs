//! `rano completions SHELL`: a completion script, made from the command line itself. While somebody types, the script
//! asks rano for what only this machine knows (runs, presets) and what is too much for a script (fields, filters).

use std::process::ExitCode;

use anyhow::Result;
use clap::builder::PossibleValuesParser;
use clap::{Arg, ArgMatches, Command, value_parser};
use clap_complete::Shell;

use super::{Context, history};
use crate::config::{self, presets};
use crate::exit::Code;
use crate::filter;
use crate::store::History;
use crate::store::query::export::FIELDS;

/// What values are of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Values {
    Runs,
    Presets,
    Fields,
    Filter,
}

impl Values {
    const ALL: [Self; 4] = [Self::Runs, Self::Presets, Self::Fields, Self::Filter];

    const fn name(self) -> &'static str {
        match self {
            Self::Runs => "runs",
            Self::Presets => "presets",
            Self::Fields => "fields",
            Self::Filter => "filter",
        }
    }
}

/// The options whose values are asked for.
const ASKED: [(&str, Values); 7] = [
    ("run-id", Values::Runs),
    ("attach", Values::Runs),
    ("old", Values::Runs),
    ("new", Values::Runs),
    ("preset", Values::Presets),
    ("fields", Values::Fields),
    ("filter", Values::Filter),
];

/// Sessions that are offered, the latest.
const RUNS: u32 = 100;

pub fn command() -> Command {
    Command::new("completions")
        .about("Print a completion script for a shell")
        .arg(
            Arg::new("shell")
                .value_name("SHELL")
                .help("Shell to complete in")
                .required_unless_present("values")
                .value_parser(value_parser!(Shell)),
        )
        .arg(
            Arg::new("values")
                .long("values")
                .value_name("WHAT")
                .hide(true)
                .value_parser(PossibleValuesParser::new(Values::ALL.map(Values::name))),
        )
        .arg(Arg::new("word").long("word").hide(true).default_value("").allow_hyphen_values(true))
        .after_help("Example:\n  rano completions bash > ~/.local/share/bash-completion/completions/rano")
}

pub fn run(matches: &ArgMatches, context: &Context) -> Result<ExitCode> {
    let asked = matches.get_one::<String>("values");
    let asked = asked.and_then(|word| Values::ALL.into_iter().find(|values| values.name() == word));
    if let Some(asked) = asked {
        let word = matches.get_one::<String>("word").map_or("", String::as_str);
        super::print(&offered(asked, word, context))?;
    } else if let Some(shell) = matches.get_one::<Shell>("shell") {
        super::print_own(&script(*shell))?;
    }
    Ok(Code::Fine.into())
}

/// One a line. A shell may expand what it is offered: what has a meaning to one is not.
fn offered(values: Values, word: &str, context: &Context) -> String {
    let all = match values {
        Values::Runs => runs(context),
        Values::Presets => in_list(
            word,
            "",
            presets::all(&context.environment).into_iter().map(|preset| preset.name).collect(),
        ),
        Values::Fields => {
            let last = word.rsplit(',').next().unwrap_or_default();
            let names = FIELDS.iter().map(|field| field.name).chain(["class"]);
            let names: Vec<String> = names.map(str::to_owned).collect();
            let plus = if last.starts_with('+') { "+" } else { "" };
            let mut names = in_list(word, plus, names);
            if word.is_empty() {
                names.push("all".to_owned());
            }
            names
        }
        Values::Filter => filter::completions(word),
    };
    let is_plain = |text: &String| {
        !text.is_empty()
            && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._-+:,@".contains(&byte))
    };
    let plain = all.into_iter().filter(is_plain).filter(|text| text.starts_with(word));
    plain.fold(String::new(), |text, value| text + &value + "\n")
}

/// Behind the items that the word has already.
fn in_list(word: &str, before: &str, names: Vec<String>) -> Vec<String> {
    let done = word.rfind(',').map_or("", |comma| &word[..=comma]);
    names.into_iter().map(|name| format!("{done}{before}{name}")).collect()
}

/// Names and run ids of the latest sessions; none where the history cannot be read.
fn runs(context: &Context) -> Vec<String> {
    let matches = super::sessions::command().get_matches_from(["sessions"]);
    let Ok(configuration) = config::load(&matches, &context.environment) else { return Vec::new() };
    let found = history::find(&configuration, context);
    if history::take_rights_to_read(&found.path, found.named_by, context).is_err() {
        return Vec::new();
    }
    let known = History::ask(&found.path, |history| history.latest_names(RUNS)).unwrap_or_default();
    let mut names: Vec<String> =
        known.into_iter().flat_map(|(run, name)| name.into_iter().chain([run])).collect();
    let mut seen = rustc_hash::FxHashSet::default();
    names.retain(|name| seen.insert(name.clone()));
    names
}

fn script(shell: Shell) -> String {
    // Written to memory first: the generator panics where a write fails, and a closed pipe is no error.
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut super::documented(), "rano", &mut script);
    let script = String::from_utf8_lossy(&script).into_owned();
    match shell {
        Shell::Bash => asking_bash(&script),
        Shell::Zsh => asking_zsh(&script),
        Shell::Fish => asking_fish(&script),
        _ => script,
    }
}

/// The line after `--run-id)` offers files; it offers values instead.
fn asking_bash(script: &str) -> String {
    let mut out = String::with_capacity(script.len() + 4096);
    let mut asked = None;
    for line in script.lines() {
        let option = line.trim().strip_prefix("--").and_then(|rest| rest.strip_suffix(')'));
        match (asked.take(), option) {
            (Some(values), _) if line.contains("compgen -f") => {
                let indent = &line[..line.len() - line.trim_start().len()];
                let nospace = if matches!(values, Values::Fields | Values::Filter) {
                    format!("{indent}compopt -o nospace 2>/dev/null\n")
                } else {
                    String::new()
                };
                let ask =
                    format!("rano completions --values {} --word=\"${{cur}}\" 2>/dev/null", values.name());
                let reply = format!("COMPREPLY=($(compgen -W \"$({ask})\" -- \"${{cur}}\"))\n");
                out.extend([nospace.as_str(), indent, &reply]);
            }
            (_, option) => {
                asked = option.and_then(values_of);
                out.push_str(line);
                out.push('\n');
            }
        }
    }
    out
}

fn values_of(option: &str) -> Option<Values> {
    ASKED.iter().find(|(name, _)| *name == option).map(|(_, values)| *values)
}

const ZSH: &str = r#"
_rano_values() {
    local -a values
    values=(${(f)"$(rano completions --values ${@[-1]} --word="${PREFIX}" 2>/dev/null)"})
    compadd -S '' -a values
}
"#;

/// An action of its own at the end of the option's line.
fn asking_zsh(script: &str) -> String {
    let mut out = String::with_capacity(script.len() + 4096);
    for line in script.lines() {
        let asked = ASKED.iter().find(|(name, _)| line.contains(&format!("--{name}=[")));
        if let (Some((_, values)), Some(begin)) = (asked, line.strip_suffix(":_default' \\")) {
            out.extend([begin, ":_rano_values ", values.name(), "' \\\n"]);
        } else {
            out.extend([line, "\n"]);
        }
        if line.starts_with("autoload ") {
            out.push_str(ZSH);
        }
    }
    out
}

fn asking_fish(script: &str) -> String {
    let mut out = String::with_capacity(script.len() + 4096);
    for line in script.lines() {
        out.push_str(line);
        let asked = ASKED.iter().find(|(name, _)| line.contains(&format!(" -l {name} ")));
        if let Some((_, values)) = asked.filter(|_| line.ends_with(" -r")) {
            let word = "(commandline -ct | string replace -r \"^--[a-z-]+=\" \"\")";
            let ask = format!("rano completions --values {} --word={word} 2>/dev/null", values.name());
            out.extend([" -f -a '(", &ask, ")'"]);
        }
        out.push('\n');
    }
    out
}

#[cfg(test)]
mod tests {
    use clap::ValueEnum as _;

    use super::*;
    use crate::config::Environment;

    #[test]
    fn every_shell_completes_flags_and_leaves_out_hidden_ones() {
        for shell in Shell::value_variants() {
            let script = script(*shell);
            assert!(script.contains("exclude-pattern"), "{shell}");
            assert!(!script.contains("notify-buffer"), "{shell}");
        }
    }

    #[test]
    fn each_option_with_such_values_asks_for_them_in_each_shell_that_can() {
        for shell in [Shell::Bash, Shell::Zsh, Shell::Fish] {
            let script = script(shell);
            for values in Values::ALL {
                let asks = ["--values ", "_rano_values "].map(|how| format!("{how}{}", values.name()));
                assert!(asks.iter().any(|ask| script.contains(ask)), "{shell} {values:?}");
            }
        }
        let bash = script(Shell::Bash);
        assert_eq!(
            bash.matches("--values runs").count(),
            8,
            "report, export, diff twice, check, baseline, serve, top"
        );
    }

    fn check(values: Values, word: &str, expected: &[&str]) {
        let home = tempfile::tempdir().expect("a directory");
        let presets = home.path().join(".config/rano/presets");
        std::fs::create_dir_all(&presets).expect("a directory");
        std::fs::write(presets.join("$(touch x).conf"), "").expect("a file");
        std::fs::write(presets.join("mine.conf"), "").expect("a file");
        let context = Context { environment: Environment::of(home.path(), &[]), arguments: Vec::new() };
        let text = offered(values, word, &context);
        assert_eq!(text.lines().collect::<Vec<_>>(), expected, "{values:?} {word}");
    }

    #[test]
    fn values_continue_the_word() {
        check(Values::Presets, "", &["audit", "live", "mine", "quiet", "verbose"]);
        check(Values::Presets, "m", &["mine"]);
        check(Values::Fields, "span", &["span_id"]);
        check(Values::Fields, "ts,+bytes_s", &["ts,+bytes_sent"]);
        check(Values::Fields, "+cl", &["+class"]);
        check(Values::Filter, "pro", &["protocol:", "proto:", "process:", "program:", "provider:"]);
        check(Values::Filter, "-type:l", &["-type:llm_api", "-type:localhost"]);
        check(Values::Filter, "event:connect,f", &["event:connect,fail"]);
        check(Values::Filter, "alert:", &["alert:true", "alert:false"]);
        check(Values::Filter, "nothing:", &[]);
    }
}
