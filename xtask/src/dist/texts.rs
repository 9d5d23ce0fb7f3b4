//! What a release has beside the binary: manual page, completions, sample configuration, licences, change log.

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, ensure};

use super::{Release, build, fresh, materials, tools};
use crate::cargo::workspace;

/// What `rano` prints into which file.
const PRINTED: [(&[&str], &str); 5] = [
    (&["man"], "rano.1"),
    (&["config", "sample"], "config.conf"),
    (&["completions", "bash"], "completions/rano.bash"),
    (&["completions", "zsh"], "completions/_rano"),
    (&["completions", "fish"], "completions/rano.fish"),
];
const COPIED: [&str; 5] = ["README.md", "CHANGELOG.md", "SECURITY.md", "LICENSE-APACHE", "LICENSE-MIT"];
/// What is meant to be otherwise than in Debian's own packages.
const LINTIAN_OVERRIDES: &str = "\
# One binary for every system, whatever C library it has.
rano: statically-linked-binary [usr/bin/rano]
rano: empty-field Depends
# Not made for Debian's archive.
rano: initial-upload-closes-no-bugs [usr/share/doc/rano/changelog.Debian.gz:1]
";
/// Files of a crate's that hold its licence or name its authors.
const LICENCES: [&str; 5] = ["license", "licence", "copying", "notice", "unlicense"];

/// Makes the texts that all platforms share; returns the directory.
pub(super) fn make(rano: &Path, release: &Release) -> Result<PathBuf> {
    let folder = fresh(&build::directory().join("texts"))?;
    fs::create_dir(folder.join("completions")).context("make a directory")?;
    fs::create_dir(folder.join("packages")).context("make a directory")?;
    for (arguments, name) in PRINTED {
        let output = Command::new(rano).args(arguments).env_clear().output().context("run the built rano")?;
        ensure!(output.status.success() && !output.stdout.is_empty(), "rano {} failed", arguments.join(" "));
        fs::write(folder.join(name), output.stdout).with_context(|| format!("write {name}"))?;
    }
    for name in COPIED {
        fs::copy(workspace().join(name), folder.join(name)).with_context(|| format!("copy {name}"))?;
    }
    fs::write(folder.join("LICENSES-THIRD-PARTY"), third_parties()?).context("write licences")?;
    fs::write(folder.join("packages/changelog.Debian"), debian_changelog(release)?)
        .context("write a change log")?;
    fs::write(folder.join("packages/copyright"), debian_copyright(release)?).context("write copyright")?;
    fs::write(folder.join("packages/lintian-overrides"), LINTIAN_OVERRIDES).context("write overrides")?;
    Ok(folder)
}

/// The texts of the licences of all that the binary is built from, each text once.
fn third_parties() -> Result<String> {
    let mut texts: Vec<(String, Vec<String>)> = Vec::new();
    let mut without = Vec::new();
    for package in materials::shipped()? {
        let name = format!("{} {}", package.name, package.version);
        let mut has_text = false;
        for file in super::names(&package.directory)? {
            let lower = file.to_lowercase();
            let path = package.directory.join(&file);
            if !LICENCES.iter().any(|start| lower.starts_with(start)) || !path.is_file() {
                continue;
            }
            let text = fs::read_to_string(&path).with_context(|| format!("read {}", path.display()))?;
            has_text = true;
            match texts.iter_mut().find(|(known, _)| *known == text) {
                Some((_, names)) if names.contains(&name) => {}
                Some((_, names)) => names.push(name.clone()),
                None => texts.push((text, vec![name.clone()])),
            }
        }
        if !has_text {
            without.push(format!("{name}: {}", package.licence));
        }
    }
    let mut all = String::from("rano is built from these packages. Their licences follow.\n");
    for (text, names) in texts {
        let _ = write!(all, "\n{}\n{}\n\n{}\n", "=".repeat(80), names.join(", "), text.trim());
    }
    if !without.is_empty() {
        let _ = write!(all, "\n{}\nWithout a text of their own:\n{}\n", "=".repeat(80), without.join("\n"));
    }
    Ok(all)
}

/// Debian's form of it; the changes themselves are in CHANGELOG.md.
fn debian_changelog(release: &Release) -> Result<String> {
    let mut date = Command::new("date");
    date.args(["-u", "-R", "-d"]).arg(format!("@{}", release.epoch)).env("LC_ALL", "C");
    let date = tools::said(&mut date)?;
    Ok(format!(
        "rano ({}-1) unstable; urgency=medium\n\n  * Release {}: see /usr/share/doc/rano/changelog.gz.\n\n -- {}  {date}\n",
        release.version,
        release.version,
        super::packages::MAINTAINER,
    ))
}

/// Debian's machine-readable form. The text of the Apache licence is on every Debian system.
fn debian_copyright(release: &Release) -> Result<String> {
    let mut year = Command::new("date");
    let year = tools::said(year.args(["-u", "+%Y", "-d"]).arg(format!("@{}", release.epoch)))?;
    let mit = fs::read_to_string(workspace().join("LICENSE-MIT")).context("read LICENSE-MIT")?;
    let mut text = format!(
        "Format: https://www.debian.org/doc/packaging-manuals/copyright-format/1.0/\nUpstream-Name: rano\n\n\
         Files: *\nCopyright: {year} the rano authors\nLicense: Expat or Apache-2.0\nComment:\n \
         What rano is built from: /usr/share/doc/rano/LICENSES-THIRD-PARTY\n\n\
         License: Apache-2.0\n On Debian systems: /usr/share/common-licenses/Apache-2.0\n\nLicense: Expat\n"
    );
    for line in mit.lines().skip_while(|line| line.starts_with("Copyright") || line.is_empty()) {
        let _ = writeln!(text, " {}", if line.is_empty() { "." } else { line });
    }
    Ok(text)
}

/// install.sh as this release has it: it knows where its releases are, and by which key.
pub(super) fn install_script(to: &Path, release: &Release) -> Result<()> {
    let mut text = fs::read_to_string(workspace().join("install.sh")).context("read install.sh")?;
    let built_in = [("KEY", &release.key), ("OWNER", &release.owner), ("REPO", &release.repo)];
    for (name, value) in built_in {
        let empty = format!("\n{name}=''\n");
        ensure!(text.contains(&empty), "install.sh has no line {name}=''");
        if let Some(value) = value {
            text = text.replace(&empty, &format!("\n{name}='{value}'\n"));
        }
    }
    fs::write(to, text).context("write install.sh")?;
    tools::succeed(Command::new("chmod").arg("755").arg(to))
}
