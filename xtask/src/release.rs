//! `cargo xtask release`: the version and the date of a release, in the files that have them, and what to do next.

use std::ffi::OsString;
use std::fs;
use std::process::{Command, ExitCode};

use anyhow::{Context as _, Result, bail, ensure};

use crate::cargo::workspace;

const USAGE: &str = "\
usage: cargo xtask release X.Y.Z [--dry-run]   set the version, date the change log, bring the locks up to date
       cargo xtask release --check vX.Y.Z      is the checkout that release?
       cargo xtask release --notes vX.Y.Z      what the change log says of it";

/// Other workspaces whose locks have rano's version.
const LOCKS: [&str; 3] = ["Cargo.toml", "fuzz/Cargo.toml", "tests/library/Cargo.toml"];
const UNRELEASED: &str = "## [Unreleased]\n";

pub(crate) fn run(arguments: &[OsString]) -> Result<ExitCode> {
    let words: Vec<_> = arguments.iter().map(|word| word.to_string_lossy().into_owned()).collect();
    match words.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["--check", version] => check(number(version)?),
        ["--notes", version] => {
            print!("{}", notes(&read("CHANGELOG.md")?, number(version)?)?);
            Ok(ExitCode::SUCCESS)
        }
        [version] => make(number(version)?, false),
        [version, "--dry-run"] | ["--dry-run", version] => make(number(version)?, true),
        _ => bail!("{USAGE}"),
    }
}

/// `X.Y.Z` of that or of `vX.Y.Z`.
fn number(text: &str) -> Result<&str> {
    let version = text.strip_prefix('v').unwrap_or(text);
    let is_number = |part: &str| part.parse::<u32>().is_ok_and(|number| number.to_string() == part);
    ensure!(
        version.split('.').count() == 3 && version.split('.').all(is_number),
        "'{text}' is no version X.Y.Z"
    );
    Ok(version)
}

fn read(name: &str) -> Result<String> {
    fs::read_to_string(workspace().join(name)).with_context(|| format!("read {name}"))
}

fn make(version: &str, dry: bool) -> Result<ExitCode> {
    let output = Command::new("date").args(["-u", "+%F"]).output().context("run date")?;
    let date = String::from_utf8(output.stdout).context("read the date")?;
    let manifest = with_version(&read("Cargo.toml")?, version)?;
    let changes = dated(&read("CHANGELOG.md")?, version, date.trim())?;
    println!("Cargo.toml: version {version}");
    println!("CHANGELOG.md: [{version}] - {}", date.trim());
    if dry {
        println!("nothing was written (--dry-run)");
    } else {
        fs::write(workspace().join("Cargo.toml"), manifest).context("write Cargo.toml")?;
        fs::write(workspace().join("CHANGELOG.md"), changes).context("write CHANGELOG.md")?;
        for manifest in LOCKS {
            let mut update = Command::new("cargo");
            update
                .args(["update", "--quiet", "--workspace", "--manifest-path"])
                .arg(workspace().join(manifest));
            ensure!(
                update.status().context("run cargo")?.success(),
                "the lock beside {manifest} is not up to date"
            );
        }
    }
    println!("next: .ci/run && cargo xtask dist --test");
    println!(
        "      git commit -am 'release {version}' && git tag -s v{version} && git push origin main v{version}"
    );
    Ok(ExitCode::SUCCESS)
}

/// The manifest of the workspace with another version: that of all packages, and of rano-common as a dependency.
fn with_version(manifest: &str, version: &str) -> Result<String> {
    let old = versions(manifest)?;
    let package = format!("[workspace.package]\nversion = \"{}\"", old[0]);
    let common = format!("rano-common = {{ path = \"rano-common\", version = \"{}\"", old[1]);
    Ok(manifest
        .replace(&package, &format!("[workspace.package]\nversion = \"{version}\""))
        .replace(&common, &format!("rano-common = {{ path = \"rano-common\", version = \"{version}\"")))
}

/// Both versions in the manifest of the workspace.
fn versions(manifest: &str) -> Result<[&str; 2]> {
    let after = |start: &str| {
        let rest = manifest.split_once(start).map(|(_, rest)| rest);
        rest.and_then(|rest| rest.split('"').next()).with_context(|| format!("Cargo.toml has no {start}"))
    };
    Ok([
        after("[workspace.package]\nversion = \"")?,
        after("rano-common = { path = \"rano-common\", version = \"")?,
    ])
}

/// The change log with what is unreleased as a release of `date`.
fn dated(changes: &str, version: &str, date: &str) -> Result<String> {
    ensure!(!changes.contains(&format!("## [{version}]")), "CHANGELOG.md has a [{version}] already");
    let (before, rest) = changes.split_once(UNRELEASED).context("CHANGELOG.md has no [Unreleased]")?;
    let body = rest.split("\n## [").next().unwrap_or_default();
    ensure!(body.lines().any(|line| line.starts_with("- ")), "nothing in CHANGELOG.md is unreleased");
    Ok(format!("{before}{UNRELEASED}\n## [{version}] - {date}\n{rest}"))
}

/// What the change log says of a release, without its heading.
fn notes(changes: &str, version: &str) -> Result<String> {
    let heading = format!("## [{version}] - ");
    let (_, rest) =
        changes.split_once(&heading).with_context(|| format!("CHANGELOG.md has no dated [{version}]"))?;
    let (_, body) = rest.split_once('\n').unwrap_or_default();
    let body = body.split("\n## [").next().unwrap_or_default();
    Ok(format!("{}\n", body.trim()))
}

fn check(version: &str) -> Result<ExitCode> {
    let manifest = read("Cargo.toml")?;
    for found in versions(&manifest)? {
        ensure!(found == version, "Cargo.toml says {found}, not {version}");
    }
    notes(&read("CHANGELOG.md")?, version)?;
    for manifest in LOCKS {
        let lock = read(&manifest.replace(".toml", ".lock"))?;
        let entry = format!("name = \"rano\"\nversion = \"{version}\"\n");
        ensure!(lock.contains(&entry), "the lock beside {manifest} has another version of rano");
    }
    println!("this is rano {version}");
    Ok(ExitCode::SUCCESS)
}

#[cfg(test)]
mod tests {
    use super::*;

    const CHANGES: &str = "# Changelog\n\n## [Unreleased]\n\n- more\n\n## [0.1.0] - 2026-01-01\n\n- first\n";

    #[test]
    fn what_is_unreleased_gets_the_version_and_the_date() {
        let dated = dated(CHANGES, "0.2.0", "2026-02-03").unwrap();
        assert!(
            dated.contains("## [Unreleased]\n\n## [0.2.0] - 2026-02-03\n\n- more\n\n## [0.1.0]"),
            "{dated}"
        );
        assert_eq!(notes(&dated, "0.2.0").unwrap(), "- more\n");
        assert_eq!(notes(&dated, "0.1.0").unwrap(), "- first\n");
        assert!(notes(&dated, "0.3.0").is_err());
    }

    #[test]
    fn a_release_is_made_once_and_of_something() {
        assert!(super::dated(CHANGES, "0.1.0", "2026-02-03").is_err());
        let nothing = super::dated(CHANGES, "0.2.0", "2026-02-03").unwrap();
        assert!(super::dated(&nothing, "0.3.0", "2026-02-04").is_err());
    }

    #[test]
    fn the_version_is_set_wherever_the_manifest_has_it() {
        let manifest = read("Cargo.toml").unwrap();
        let set = with_version(&manifest, "9.8.7").unwrap();
        assert_eq!(versions(&set).unwrap(), ["9.8.7", "9.8.7"]);
        assert_eq!(set.lines().filter(|line| !manifest.lines().any(|old| old == *line)).count(), 2);
    }

    #[test]
    fn a_version_is_three_numbers() {
        assert_eq!(number("v1.20.3").unwrap(), "1.20.3");
        for text in ["1", "1.2", "1.2.3.4", "1.02.3", "1.2.x", "vv1.2.3", ""] {
            assert!(number(text).is_err(), "{text}");
        }
    }
}
