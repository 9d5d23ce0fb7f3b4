//! Coverage-guided fuzzing with libFuzzer of the targets in `fuzz/targets`, by the compiler that builds everything
//! else. A C++ compiler is needed. With cargo-fuzz and nightly, `cargo fuzz run` in `fuzz/` does the same.

use std::ffi::OsString;
use std::fs;
use std::process::{Command, ExitCode};

use anyhow::{Context as _, Result, bail, ensure};

use crate::cargo::{target_directory, workspace};

/// What libFuzzer learns from: blocks that ran, how often, and what was compared (Clang's `SanitizerCoverage`).
const COVERAGE: [&str; 7] = [
    "--cfg=fuzzing",
    "-Cpasses=sancov-module",
    "-Cllvm-args=-sanitizer-coverage-level=4",
    "-Cllvm-args=-sanitizer-coverage-inline-8bit-counters",
    "-Cllvm-args=-sanitizer-coverage-pc-table",
    "-Cllvm-args=-sanitizer-coverage-trace-compares",
    // Several units of one module would share the names of their counters.
    "-Ccodegen-units=1",
];
/// Each target unless told otherwise.
const SECONDS: u32 = 10;
/// Longest input that is tried, bytes: any record and any packet is shorter.
const LONGEST: u32 = 8192;

pub(crate) fn run(arguments: &[OsString]) -> Result<ExitCode> {
    let (mut wanted, mut seconds) = (Vec::new(), SECONDS);
    let mut arguments = arguments.iter().map(|argument| argument.to_string_lossy());
    while let Some(argument) = arguments.next() {
        match &*argument {
            "--seconds" => {
                let value = arguments.next().context("--seconds takes a number")?;
                seconds = value.parse().context("--seconds takes a number")?;
            }
            name => wanted.push(name.to_owned()),
        }
    }
    let targets = targets()?;
    if let Some(unknown) = wanted.iter().find(|name| !targets.contains(name)) {
        bail!("no fuzz target '{unknown}': {}", targets.join(" "));
    }
    if wanted.is_empty() {
        wanted = targets;
    }
    build()?;
    for target in &wanted {
        fuzz(target, seconds)?;
    }
    println!("{} targets, {seconds} s each, nothing found", wanted.len());
    Ok(ExitCode::SUCCESS)
}

/// One file a target.
fn targets() -> Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in fs::read_dir(workspace().join("fuzz/targets")).context("list fuzz/targets")? {
        let path = entry?.path();
        names.extend(path.file_stem().map(|stem| stem.to_string_lossy().into_owned()));
    }
    names.sort();
    Ok(names)
}

/// With a platform named, flags are for what is fuzzed and not for build scripts.
fn platform() -> String {
    format!("{}-unknown-linux-gnu", std::env::consts::ARCH)
}

fn build() -> Result<()> {
    let status = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))
        .args(["build", "--release", "--locked", "--bins", "--target", &platform()])
        .arg("--manifest-path")
        .arg(workspace().join("fuzz/Cargo.toml"))
        .arg("--target-dir")
        .arg(target_directory().join("fuzz"))
        .env("CARGO_ENCODED_RUSTFLAGS", COVERAGE.join("\u{1f}"))
        .status()
        .context("run cargo")?;
    ensure!(status.success(), "the fuzz targets do not build");
    Ok(())
}

/// What it learned is kept for the next time; what it found lies beside that.
fn fuzz(target: &str, seconds: u32) -> Result<()> {
    let directory = target_directory().join("fuzz");
    let corpus = directory.join("corpus").join(target);
    fs::create_dir_all(&corpus).with_context(|| format!("make {}", corpus.display()))?;
    let found = directory.join("found").join(format!("{target}-"));
    fs::create_dir_all(directory.join("found")).context("make a directory for what is found")?;
    let mut command = Command::new(directory.join(platform()).join("release").join(target));
    command.arg(format!("-max_total_time={seconds}")).arg(format!("-max_len={LONGEST}"));
    command.args(["-timeout=10", "-rss_limit_mb=2048", "-print_final_stats=1"]);
    command.arg(format!("-artifact_prefix={}", found.display())).arg(&corpus);
    let seeds = workspace().join("fuzz/seeds").join(target);
    if seeds.is_dir() {
        command.arg(seeds);
    }
    let output = command.output().with_context(|| format!("start {target}"))?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{said}\n{target} found something: {}*", found.display());
    let figure = |name: &str| {
        let line =
            said.lines().find_map(|line| line.strip_prefix("stat::")?.strip_prefix(name)?.strip_prefix(':'));
        line.unwrap_or("?").trim().to_owned()
    };
    println!(
        "{target}: {} inputs, {} MiB at most",
        figure("number_of_executed_units"),
        figure("peak_rss_mb")
    );
    Ok(())
}
