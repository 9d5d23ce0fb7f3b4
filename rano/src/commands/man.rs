//! `rano man`: the manual page, made from the command line itself.

use std::io::Write as _;
use std::process::ExitCode;

use anyhow::{Context as _, Result};
use clap::Command;
use clap_mangen::Man;
use clap_mangen::roff::{Roff, bold, roman};

use crate::config::OPTIONS;
use crate::config::spec::Effect;
use crate::exit::Code;

const FILES: [(&str, &str); 6] = [
    ("~/.config/rano/config.conf", "Options, one key=value a line."),
    ("~/.rano.toml", "Providers, classes of endpoints, agents."),
    ("~/.config/rano/rano.toml", "The same; wins over the one above, key by key."),
    ("./rano.toml", "More providers and endpoints. It can only add, and root does not read it."),
    ("$RANO_CONFIG_TOML", "The same; wins over all above, and --config-toml over this."),
    ("observer.sqlite", "The history, in the directory where rano was started."),
];

const EXIT_STATUS: [(&str, &str); 5] = [
    ("0", "Fine; also after a signal, and where the reader of the output went away."),
    ("1", "Findings, or a failure."),
    ("2", "Bad usage or configuration."),
    ("3", "What was named cannot be opened or written."),
    ("4", "Privileges were asked for that are not there."),
];

pub fn command() -> Command {
    Command::new("man")
        .about("Print the manual page")
        .after_help("Example:\n  rano man > rano.1 && man ./rano.1")
}

pub fn run() -> Result<ExitCode> {
    super::print_own(&page().context("render the manual page")?)?;
    Ok(Code::Fine.into())
}

fn page() -> std::io::Result<String> {
    let command = super::documented().override_usage("rano [OPTIONS]\nrano COMMAND");
    let subcommands: Vec<_> = command.get_subcommands().map(about).collect();
    let man = Man::new(command).source(format!("rano {}", env!("CARGO_PKG_VERSION")));
    // Tables are for a program that man(1) runs first if a page says so.
    let mut page = b"'\\\" t\n".to_vec();
    man.render_title(&mut page)?;
    man.render_name_section(&mut page)?;
    man.render_synopsis_section(&mut page)?;
    man.render_description_section(&mut page)?;
    table(&mut page)?;
    man.render_options_section(&mut page)?;
    section("COMMANDS", &subcommands, &mut page)?;
    section("FILES", &FILES, &mut page)?;
    section("ENVIRONMENT", &variables(), &mut page)?;
    section("EXIT STATUS", &EXIT_STATUS, &mut page)?;
    section("EXAMPLES", &super::EXAMPLES, &mut page)?;
    Ok(String::from_utf8_lossy(&page).into_owned())
}

fn about(command: &Command) -> (String, String) {
    let about = command.get_about().map(ToString::to_string).unwrap_or_default();
    (command.get_name().to_owned(), about)
}

fn variables() -> Vec<(String, String)> {
    let mut variables = vec![("NO_COLOR".to_owned(), "If not empty: no colours.".to_owned())];
    for spelling in OPTIONS.iter().filter(|option| !option.is_hidden()).flat_map(|option| option.spellings) {
        variables.push((spelling.variable(), format!("As --{}.", spelling.flag())));
    }
    variables
}

/// Each option in a line: what it is called, what it is by default, what it does. The next section says more.
fn table(page: &mut Vec<u8>) -> std::io::Result<()> {
    writeln!(page, ".SH OVERVIEW\n.TS\nlB lB lB\nl l lx.\nOption\tDefault\tMeaning")?;
    for option in OPTIONS.iter().filter(|option| !option.is_hidden()) {
        for spelling in option.spellings {
            let value =
                if spelling.is_switch(option) { String::new() } else { format!(" {}", option.value_name) };
            let is_its_own = spelling.effect == Effect::Set && spelling.key == option.spellings[0].key;
            let default = option.default_text().filter(|_| is_its_own).unwrap_or_default();
            // A long list is in the next section.
            let default = if default.len() > DEFAULT_SHOWN { "see below" } else { default };
            let flag = cell(&format!("--{}{value}", spelling.flag()));
            writeln!(page, "{flag}\t{}\tT{{\n{}\nT}}", cell(default), cell(spelling.help))?;
        }
    }
    writeln!(page, ".TE")
}

/// Columns of a default that is shown.
const DEFAULT_SHOWN: usize = 20;

/// Text that means itself, also at the beginning of a line.
fn cell(text: &str) -> String {
    let text = text.replace('\\', "\\e").replace('-', "\\-");
    if text.starts_with(['.', '\'']) { format!("\\&{text}") } else { text }
}

fn section(
    title: &str,
    items: &[(impl AsRef<str>, impl AsRef<str>)],
    page: &mut Vec<u8>,
) -> std::io::Result<()> {
    let mut roff = Roff::default();
    roff.control("SH", [title]);
    for (term, meaning) in items {
        roff.control("TP", []);
        roff.text([bold(term.as_ref())]);
        roff.text([roman(meaning.as_ref())]);
    }
    roff.to_writer(page)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_has_every_documented_option_and_variable() {
        let page = page().unwrap();
        for spelling in
            OPTIONS.iter().filter(|option| !option.is_hidden()).flat_map(|option| option.spellings)
        {
            let flag = format!("\\-\\-{}", spelling.flag().replace('-', "\\-"));
            assert!(page.contains(&flag), "{flag}");
            assert!(page.contains(&spelling.variable()), "{}", spelling.key);
        }
        assert!(!page.contains("notify"), "hidden options stay hidden");
    }

    #[test]
    fn the_table_has_a_row_for_each_option() {
        let page = page().unwrap();
        assert!(page.starts_with("'\\\" t\n"), "the table is announced");
        let table = page.split(".TS\n").nth(1).and_then(|rest| rest.split(".TE\n").next()).expect("a table");
        let spellings =
            OPTIONS.iter().filter(|option| !option.is_hidden()).flat_map(|option| option.spellings);
        assert_eq!(table.matches("\tT{\n").count(), spellings.count());
        assert!(
            table.contains("\\-\\-no\\-banner\t\tT{\n"),
            "the opposite has no default of its own: {table}"
        );
        let row = "\\-\\-db\\-batch\\-size N\t200\tT{\n";
        assert!(table.contains(row), "{table}");
    }
}
