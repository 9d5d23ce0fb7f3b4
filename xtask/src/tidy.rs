//! `cargo xtask tidy`: what holds between the rooms of the code, and no lint knows. ARCHITECTURE.md says why.

mod rules;

use std::ffi::OsString;
use std::fs;
use std::path::Path;
use std::process::{Command, ExitCode};

use anyhow::{Context as _, Result, bail, ensure};

/// A file of the checkout, by its path from the root.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Source {
    path: String,
    text: String,
}

/// A rule that does not hold somewhere.
#[derive(Debug, PartialEq, Eq)]
struct Breach {
    path: String,
    /// From 1; 0 where it is about the file as a whole.
    line: usize,
    what: String,
}

pub(crate) fn run(arguments: &[OsString]) -> Result<ExitCode> {
    ensure!(arguments.is_empty(), "cargo xtask tidy takes no arguments");
    let sources = sources()?;
    let breaches = rules::check(&sources);
    for Breach { path, line, what } in &breaches {
        match line {
            0 => eprintln!("{path}: {what}"),
            line => eprintln!("{path}:{line}: {what}"),
        }
    }
    println!("tidy: {} files, {} breaches", sources.len(), breaches.len());
    Ok(if breaches.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// What is written by hand, of the files that git knows or would add.
fn sources() -> Result<Vec<Source>> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().context("the workspace")?;
    let mut git = Command::new("git");
    git.current_dir(root).args(["ls-files", "--cached", "--others", "--exclude-standard", "-z"]);
    let listed = git.output().context("git")?;
    if !listed.status.success() {
        bail!("git ls-files: {}", String::from_utf8_lossy(&listed.stderr).trim());
    }
    let listed = String::from_utf8(listed.stdout).context("names of files")?;
    let mut sources = Vec::new();
    for path in listed.split('\0').filter(|path| is_ours(path)) {
        match fs::read_to_string(root.join(path)) {
            Ok(text) => sources.push(Source { path: path.to_owned(), text }),
            // Removed, and not told to git yet.
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            Err(error) => return Err(error).context(path.to_owned()),
        }
    }
    Ok(sources)
}

fn is_ours(path: &str) -> bool {
    path == ".ci/run" || ["rs", "toml", "sql", "md"].contains(&rules::extension(path))
}

#[cfg(test)]
mod tests;
