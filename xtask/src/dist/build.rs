//! The static binary: musl, everything in it, and nothing in it that says where it was built.

use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context as _, Result, ensure};

use super::tools::{self, Tools};
use super::{Platform, Release};
use crate::cargo::{target_directory, workspace};

/// The profile of Cargo.toml.
pub(super) const PROFILE: &str = "dist";

/// Where cargo builds for `dist`: another compiler than that of the checkout's own target directory.
pub(super) fn directory() -> PathBuf {
    target_directory().join("dist")
}

pub(super) fn binary(platform: Platform, release: &Release, tools: &Tools) -> Result<PathBuf> {
    println!("building rano {} for {}", release.version, platform.target);
    let mut command = Command::new(&tools.zigbuild);
    command.arg("zigbuild");
    let mut flags = Vec::new();
    if let Some(compiler) = &tools.compiler {
        command.env("CARGO", &compiler.cargo).env("RUSTC", &compiler.rustc).env("RUSTC_BOOTSTRAP", "1");
        command.args(["-Z", "build-std=std,panic_abort"]).env_remove("RUSTUP_TOOLCHAIN");
        // Such a compiler brings no start-up files of musl's; zig has them.
        flags.extend(["-C", "link-self-contained=no"].map(str::to_owned));
    }
    flags.extend(["-C", "relocation-model=static"].map(str::to_owned));
    // The bytes must not depend on where the checkout and cargo's home lie.
    flags.push(format!("--remap-path-prefix={}=rano", workspace().display()));
    flags.push(format!("--remap-path-prefix={}=cargo", cargo_home()?));
    command.args(["--profile", PROFILE, "--locked", "--package", "rano", "--target", platform.target]);
    command.arg("--manifest-path").arg(workspace().join("Cargo.toml"));
    command.arg("--target-dir").arg(directory());
    command.env("CARGO_ZIGBUILD_ZIG_PATH", &tools.zig).env_remove("RUSTFLAGS");
    command.env("CARGO_ENCODED_RUSTFLAGS", flags.join("\u{1f}")).env("CARGO_PROFILE_DIST_STRIP", "symbols");
    // What cc builds is built again if this changes, and no source has a date in it.
    command.env_remove("SOURCE_DATE_EPOCH");
    let built_in = [
        ("RANO_RELEASE_KEY", &release.key),
        ("RANO_RELEASE_OWNER", &release.owner),
        ("RANO_RELEASE_REPO", &release.repo),
    ];
    for (variable, value) in built_in {
        match value {
            Some(value) => command.env(variable, value),
            None => command.env_remove(variable),
        };
    }
    tools::succeed(&mut command)?;
    let path = directory().join(platform.target).join(PROFILE).join("rano");
    ensure!(path.is_file(), "{} was not built", path.display());
    Ok(path)
}

fn cargo_home() -> Result<String> {
    std::env::var("CARGO_HOME")
        .or_else(|_| std::env::var("HOME").map(|home| format!("{home}/.cargo")))
        .context("find cargo's home")
}
