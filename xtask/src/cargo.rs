//! The calls of cargo. Where a task ends with one, it becomes that process, so that Ctrl-C and the exit code are its
//! own.

use std::ffi::OsString;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use anyhow::{Context as _, Result, bail};

pub(crate) fn workspace() -> PathBuf {
    // Cargo sets it for what it runs; the one of the build would be wrong after the checkout was moved.
    let manifest = std::env::var_os("CARGO_MANIFEST_DIR")
        .map_or_else(|| env!("CARGO_MANIFEST_DIR").into(), PathBuf::from);
    manifest.parent().map_or_else(|| PathBuf::from("."), Path::to_path_buf)
}

fn cargo(arguments: &[&str]) -> Command {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.args(arguments).arg("--locked").arg("--manifest-path").arg(workspace().join("Cargo.toml"));
    command
}

/// What rano is built with here beyond what every build has.
fn features() -> &'static [&'static str] {
    if crate::system::has_libpcap() { &["--features", "rano/pcap"] } else { &[] }
}

/// Profiles of Cargo.toml: for who builds it to use it, and as it is shipped.
pub(crate) const RELEASE: &str = "release";
pub(crate) const DIST: &str = "dist";

/// Builds rano and returns where it lies.
pub(crate) fn build_rano(profile: &str) -> Result<PathBuf> {
    let mut command = cargo(&["build", "--profile", profile, "--package", "rano"]);
    if !command.args(features()).status().context("run cargo")?.success() {
        bail!("rano does not build");
    }
    let path = target_directory().join(profile).join("rano");
    path.canonicalize().with_context(|| format!("find the built {}", path.display()))
}

/// A test program of rano's, and the rano that it starts.
pub(crate) struct Built {
    pub test: PathBuf,
    pub rano: PathBuf,
}

/// Builds what `cargo test --profile PROFILE --test NAME` would run.
pub(crate) fn build_test(name: &str, profile: &str) -> Result<Built> {
    let mut command = cargo(&["test", "--no-run", "--profile", profile, "--package", "rano", "--test", name]);
    let output = command
        .args(["--message-format", "json-render-diagnostics"])
        .stderr(std::process::Stdio::inherit())
        .output()
        .context("run cargo")?;
    if !output.status.success() {
        bail!("the test {name} does not build");
    }
    let text = String::from_utf8_lossy(&output.stdout);
    let executable = |kind: &str, name: &str| {
        let built = text.lines().filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok());
        let mut built =
            built.filter(|message| message["target"]["kind"][0] == kind && message["target"]["name"] == name);
        let path = built.find_map(|message| message["executable"].as_str().map(PathBuf::from));
        path.with_context(|| format!("cargo does not say where {name} lies"))
    };
    Ok(Built { test: executable("test", name)?, rano: executable("bin", "rano")? })
}

/// Where cargo builds.
pub(crate) fn target_directory() -> PathBuf {
    std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| workspace().join("target"), PathBuf::from)
}

/// Becomes rano; returns only what went wrong.
pub(crate) fn run(arguments: &[OsString]) -> Result<ExitCode> {
    let rano = build_rano(RELEASE)?;
    Err(Command::new(&rano).args(arguments).exec()).with_context(|| format!("start {}", rano.display()))
}

/// Becomes `cargo test`; returns only what went wrong.
pub(crate) fn test(arguments: &[OsString]) -> Result<ExitCode> {
    Err(cargo(&["test"]).args(features()).args(arguments).exec()).context("start cargo test")
}

/// Runs `cargo bench` of one bench of rano, with `arguments` for it; returns its exit code.
pub(crate) fn bench(name: &str, arguments: impl IntoIterator<Item = OsString>) -> Result<ExitCode> {
    let mut command = cargo(&["bench", "--package", "rano", "--bench", name]);
    let status = command.arg("--").args(arguments).status().context("run cargo bench")?;
    Ok(if status.success() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
