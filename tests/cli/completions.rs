//! Completion scripts in the shells that they are for: what values they offer.

use std::path::Path;
use std::process::Command;

use anyhow::{Result, ensure};

use crate::support::history::{Connection, End, History, START};
use crate::support::trial::skip;

crate::tests![bash_offers_values, what_a_shell_would_run_is_not_offered];

/// What bash offers after `words`, of which the last one is being typed.
fn offered(history: &History, words: &[&str]) -> Result<Vec<String>> {
    let bin = tempfile::tempdir()?;
    std::os::unix::fs::symlink(env!("CARGO_BIN_EXE_rano"), bin.path().join("rano"))?;
    let quoted: Vec<String> = words.iter().map(|word| format!("'{word}'")).collect();
    let script = format!(
        "eval \"$(rano completions bash)\"; COMP_WORDS=({}); COMP_CWORD={}; COMPREPLY=(); \
         _rano rano '{}' '{}'; printf '%s\\n' \"${{COMPREPLY[@]}}\"",
        quoted.join(" "),
        words.len() - 1,
        words[words.len() - 1],
        words[words.len() - 2],
    );
    let mut bash = Command::new("bash");
    bash.args(["--norc", "--noprofile", "-c", &script]).current_dir(history.directory());
    let path = format!("{}:/usr/bin:/bin", bin.path().display());
    bash.env_clear().env("PATH", path).env("HOME", history.directory());
    let output = bash.output().map_err(|error| skip(format!("bash: {error}")))?;
    let text = String::from_utf8(output.stdout)?;
    Ok(text.lines().filter(|line| !line.is_empty()).map(str::to_owned).collect())
}

fn bash_offers_values() -> Result<()> {
    let history = History::new()?;
    history.write("night", START, &[Connection::default()], End::Clean)?;
    let run_id = format!("1-{START}");
    let check = |words: &[&str], expected: &[&str]| -> Result<()> {
        let found = offered(&history, words)?;
        ensure!(found == expected, "{words:?}: {found:?}");
        Ok(())
    };
    check(&["rano", "report", "--run-id", ""], &["night", &run_id])?;
    check(&["rano", "report", "--run-id", "n"], &["night"])?;
    check(&["rano", "diff", "--old", "1-"], &[&run_id])?;
    check(&["rano", "--preset", "a"], &["audit"])?;
    check(&["rano", "export", "--fields", "ts,span"], &["ts,span_id"])?;
    check(&["rano", "report", "--filter", "ag"], &["agent:"])?;
    check(&["rano", "report", "--by", "d"], &["domain"])?;
    Ok(())
}

/// A session is called as somebody chose, and bash expands what it is offered.
fn what_a_shell_would_run_is_not_offered() -> Result<()> {
    let history = History::new()?;
    for (number, name) in
        ["$(touch made)", "`touch made`", "a b", "*", "~", "{a,b}", "x;y"].into_iter().enumerate()
    {
        let at = START + i64::try_from(number)?;
        history.write(name, at, &[], End::Clean)?;
    }
    let found = offered(&history, &["rano", "report", "--run-id", ""])?;
    ensure!(found.len() == 7 && found.iter().all(|name| name.starts_with("1-")), "{found:?}");
    ensure!(!Path::new(history.directory()).join("made").exists());
    Ok(())
}
