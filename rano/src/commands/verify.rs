//! `rano verify`: is the record what was written?

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Result;
use clap::{Arg, ArgMatches, Command, value_parser};

use super::{Context, history, load, print, seal_key};
use crate::config::Field;
use crate::exit::{Code, Failure};
use crate::files::NamedBy;
use crate::output::verify as output;
use crate::store::History;
use crate::store::query::verify::Question;

pub fn command() -> Command {
    Command::new("verify")
        .about("Check whether the history is what rano wrote")
        .long_about(
            "Check whether the history is what rano wrote. rano seals each batch of events: the seal covers the new rows \
             and the seal before. verify computes all seals again and says which session differs, and from where.",
        )
        .args_override_self(true)
        .arg(
            Arg::new("file")
                .value_name("FILE")
                .value_parser(value_parser!(PathBuf))
                .conflicts_with("sqlite")
                .help("Database to check; the same as --sqlite"),
        )
        .arg(
            Arg::new("head")
                .long("head")
                .value_name("SEAL")
                .value_parser(parse_head)
                .help("Seal that has to be in the history: the head that rano printed when a session ended"),
        )
        .args(seal_key::flag())
        .arg(history::json_flag())
        .args(history::database_flag())
        .after_help(
            "Exit code: 0 whole, 1 changed, cut or not sealed, 2 a key is missing, 3 cannot read.\n\n\
             Whoever can write the file can also make all seals anew. Keep the head elsewhere, or seal with a key.\n\n\
             Examples:\n  rano verify\n  rano verify --head 4f1c… /var/lib/rano/observer.sqlite",
        )
}

fn parse_head(text: &str) -> Result<String, String> {
    let head = text.trim().to_ascii_lowercase();
    if head.len() == 64 && head.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        Ok(head)
    } else {
        Err("a seal has 64 hexadecimal digits".to_owned())
    }
}

pub fn run(matches: &ArgMatches, context: &Context) -> Result<ExitCode> {
    let configuration = load(matches, context)?;
    let key = seal_key::read(&configuration, context)?;
    let (path, named_by) = match matches.get_one::<PathBuf>("file") {
        Some(path) => (path.clone(), NamedBy::CommandLine),
        None => (history::database(&configuration), configuration.origin(Field::sqlite).named_by()),
    };
    history::take_rights_to_read(&path, named_by, context)?;
    let head = matches.get_one::<String>("head").map(String::as_str);
    let question = Question { head, key: key.as_ref() };
    let verified = History::ask(&path, |history| history.verify(&question))
        .map_err(|error| history::cannot_open(&error))?;
    if verified.lacks_key {
        let failure =
            Failure::new(Code::Usage, "the seals were made with a key, and can only be checked with it");
        return Err(failure.hint("name the file of the key with --seal-key").into());
    }
    print(&if matches.get_flag("as_json") {
        output::json(&verified)
    } else {
        output::text(&verified, head.is_some() || key.is_some())
    })?;
    Ok(if verified.is_whole() { Code::Fine } else { Code::Findings }.into())
}
