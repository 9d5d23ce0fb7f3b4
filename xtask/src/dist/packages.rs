//! Archive, .deb and .rpm from one folder. What goes where in the packages stands in rano/Cargo.toml.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result};

use super::tools::{Tools, succeed};
use super::{Platform, Release, build, fresh};
use crate::cargo::workspace;

/// Whoever makes the packages.
pub(super) const MAINTAINER: &str = "The rano authors <rano@packages.invalid>";

/// The folder beside the binary that archive and packages are made from.
const FOLDER: &str = "package";

/// Lays out everything below the directory of the binary, where cargo-deb and cargo-generate-rpm look for it.
pub(super) fn lay_out(platform: Platform, binary: &Path, texts: &Path, release: &Release) -> Result<PathBuf> {
    let folder = fresh(&build::directory().join(platform.target).join(build::PROFILE).join(FOLDER))?;
    succeed(Command::new("cp").arg("-R").arg(texts.join(".")).arg(&folder))?;
    succeed(Command::new("install").args(["-m", "755"]).arg(binary).arg(folder.join("rano")))?;
    let packages = folder.join("packages");
    for text in ["rano.1", "CHANGELOG.md"] {
        fs::copy(folder.join(text), packages.join(text)).context("copy a text")?;
    }
    for text in ["rano.1", "CHANGELOG.md", "changelog.Debian"] {
        succeed(Command::new("gzip").args(["-n", "-9"]).arg(packages.join(text)))?;
    }
    // Modes are the same whatever the umask, times whatever the clock.
    succeed(Command::new("chmod").args(["-R", "u=rwX,go=rX"]).arg(&folder))?;
    let mut touch = Command::new("find");
    touch
        .arg(&folder)
        .args(["-exec", "touch", "-h", "-d"])
        .arg(format!("@{}", release.epoch))
        .args(["{}", "+"]);
    succeed(&mut touch)?;
    Ok(folder)
}

pub(super) fn archive(folder: &Path, out: &Path, release: &Release) -> Result<()> {
    let platform = super::PLATFORMS
        .into_iter()
        .find(|platform| folder.components().any(|part| part.as_os_str() == platform.target));
    let stem = release.stem(platform.context("a folder of a platform")?);
    let tar = out.join(format!("{stem}.tar"));
    let mut command = Command::new("tar");
    command.args(["--create", "--format=ustar", "--sort=name", "--owner=0", "--group=0", "--numeric-owner"]);
    command.arg(format!("--mtime=@{}", release.epoch)).arg(format!("--exclude={FOLDER}/packages"));
    command.arg(format!("--transform=s,^{FOLDER},{stem},"));
    command.arg("-f").arg(&tar).arg("-C").arg(folder.parent().unwrap_or(folder)).arg(FOLDER);
    succeed(&mut command)?;
    succeed(Command::new("gzip").args(["-n", "-9"]).arg(&tar))
}

pub(super) fn deb(platform: Platform, tools: &Tools, out: &Path, release: &Release) -> Result<()> {
    let name = format!("rano_{}_{}.deb", release.version, platform.deb);
    let mut command = Command::new(&tools.cargo_deb);
    command.args(["--no-build", "--no-strip", "--quiet", "--locked", "--profile", build::PROFILE]);
    command.args(["--target", platform.target, "--maintainer", MAINTAINER]);
    command
        .arg("--manifest-path")
        .arg(workspace().join("rano/Cargo.toml"))
        .arg("--output")
        .arg(out.join(name));
    package(&mut command, release)
}

pub(super) fn rpm(platform: Platform, tools: &Tools, out: &Path, release: &Release) -> Result<()> {
    let name = format!("rano-{}.{}.rpm", release.version, platform.arch);
    let mut command = Command::new(&tools.cargo_generate_rpm);
    command.args(["--package", "rano", "--profile", build::PROFILE, "--target", platform.target]);
    command.args(["--auto-req", "disabled", "--payload-compress", "gzip"]);
    command.arg("--target-dir").arg(build::directory()).arg("--source-date").arg(&release.epoch);
    command.arg("--output").arg(out.join(name)).current_dir(workspace());
    package(&mut command, release)
}

fn package(command: &mut Command, release: &Release) -> Result<()> {
    command.env("CARGO_TARGET_DIR", build::directory()).env("SOURCE_DATE_EPOCH", &release.epoch);
    succeed(command)
}
