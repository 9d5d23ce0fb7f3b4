//! The flags, made from the table of options.

use clap::builder::{NonEmptyStringValueParser, PossibleValuesParser, TypedValueParser as _, ValueParser};
use clap::{Arg, ArgAction, ValueHint};

use super::layers;
use super::spec::{OptionSpec, Spelling, Visibility};
use super::value::Kind;

/// Columns of a default that is shown.
const DEFAULT_SHOWN: usize = 60;

/// The flags of the options that `wanted` picks.
pub fn flags(wanted: impl Fn(&OptionSpec) -> bool) -> impl Iterator<Item = Arg> {
    layers::keys().filter(move |(_, spec, _)| wanted(spec)).map(|(_, spec, spelling)| flag(spec, spelling))
}

fn flag(spec: &'static OptionSpec, spelling: &'static Spelling) -> Arg {
    let arg = Arg::new(spelling.key)
        .long(spelling.flag())
        .help(spelling.help)
        .help_heading(spec.group.title())
        .hide(spec.is_hidden())
        .hide_short_help(spec.visibility != Visibility::Everywhere);
    let arg = if spec.details.is_empty() || spelling.key != spec.spellings[0].key {
        arg
    } else {
        arg.long_help(format!("{}\n\n{}", spelling.help, spec.details))
    };
    if spelling.is_switch(spec) {
        return arg
            .action(ArgAction::Set)
            .num_args(0..=1)
            .require_equals(true)
            .default_missing_value("true")
            .value_name("BOOL")
            .value_parser(checked(spec, spelling));
    }
    let arg = arg.value_name(spec.value_name);
    let arg = match spec.default_text() {
        // A long one is said in the details.
        Some(default) => arg.default_value(default).hide_default_value(default.len() > DEFAULT_SHOWN),
        None => arg,
    };
    match spec.kind {
        Kind::List(item) => with_values(arg.action(ArgAction::Append), *item, spec, spelling),
        kind => with_values(arg.action(ArgAction::Set), kind, spec, spelling),
    }
}

fn with_values(arg: Arg, kind: Kind, spec: &'static OptionSpec, spelling: &'static Spelling) -> Arg {
    let is_list = matches!(spec.kind, Kind::List(_));
    match kind {
        Kind::Choice(words) => {
            let arg = arg.value_parser(PossibleValuesParser::new(words));
            if is_list { arg.value_delimiter(',') } else { arg }
        }
        Kind::Path => {
            let hint = if spec.value_name == "DIR" { ValueHint::DirPath } else { ValueHint::FilePath };
            arg.value_parser(clap::value_parser!(std::path::PathBuf)).value_hint(hint)
        }
        Kind::Number => {
            let arg = arg.value_parser(checked(spec, spelling)).allow_negative_numbers(true);
            if is_list { arg.value_delimiter(',') } else { arg }
        }
        // A filter may begin with a negation.
        Kind::Filter => arg.value_parser(checked(spec, spelling)).allow_hyphen_values(true),
        Kind::Text | Kind::Exclude | Kind::Glob | Kind::Switch | Kind::Span | Kind::Size | Kind::List(_) => {
            arg.value_parser(checked(spec, spelling))
        }
    }
}

/// What the config file accepts, the command line accepts, with the same words where it does not.
fn checked(spec: &'static OptionSpec, spelling: &'static Spelling) -> ValueParser {
    let check = move |text: String| match spec.parse_one(spelling, text.as_ref()) {
        Ok(_) => Ok(text),
        Err(rejection) => Err(rejection.to_string()),
    };
    NonEmptyStringValueParser::new().try_map(check).into()
}
