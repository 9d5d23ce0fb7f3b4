//! Builds the kernel programs and puts the object where `cargo build` embeds it, with a note of what it was made from.
//!
//! What is needed: a compiler with the sources of its core library (nightly with rust-src, or a distribution's, named
//! by `RUSTC` and `CARGO_BPF`), and bpf-linker. On Debian 12: `apt install rustc-web cargo-web rust-web-src llvm-22
//! llvm-22-dev libzstd-dev zlib1g-dev`, then `LLVM_PREFIX=/usr/lib/llvm-22 cargo install bpf-linker --version 0.13.0
//! --no-default-features --features llvm-22`.

use std::ffi::{OsStr, OsString};
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use anyhow::{Context as _, Result, bail, ensure};

use crate::cargo::workspace;
use crate::digest::sha256;
use crate::system::find_in_path;

const OBJECT: &str = "rano/src/source/ebpf/rano.bpf.o";
/// With the feature `kernel-log`; not committed.
const LOG_OBJECT: &str = "rano/src/source/ebpf/rano.log.bpf.o";
const NOTE: &str = "rano/src/source/ebpf/rano.bpf.txt";
const TARGET: &str = "bpfel-unknown-none";
/// What the object depends on.
const SOURCES: [&str; 4] =
    ["rano-ebpf/src", "rano-ebpf/Cargo.toml", "rano-common/src", "rano-common/Cargo.toml"];

pub(crate) fn run(arguments: &[OsString]) -> Result<ExitCode> {
    match arguments {
        [] => build(),
        [log] if log == "--log" => build_with_lines(),
        [check] if check == "--check" => check_note(),
        _ => bail!("usage: cargo xtask ebpf [--check | --log]"),
    }
}

fn build() -> Result<ExitCode> {
    let root = workspace();
    let rustc = compile(&root, "bpf", &[], OBJECT)?;
    fs::write(root.join(NOTE), note(&root, &first_line(&rustc, "-V")?)?)
        .with_context(|| format!("write {NOTE}"))?;
    println!("{OBJECT}: {} bytes", fs::metadata(root.join(OBJECT))?.len());
    Ok(ExitCode::SUCCESS)
}

/// For a rano that says what its kernel programs decide.
fn build_with_lines() -> Result<ExitCode> {
    compile(&workspace(), "bpf-log", &["--features", "kernel-log"], LOG_OBJECT)?;
    println!("{LOG_OBJECT}: now cargo build --features kernel-log");
    Ok(ExitCode::SUCCESS)
}

/// Returns the compiler. `place`: a directory below `target`.
fn compile(root: &Path, place: &str, more: &[&str], object: &str) -> Result<PathBuf> {
    let rustc = tool("RUSTC", "/usr/bin/rustc");
    let cargo = tool("CARGO_BPF", "/usr/bin/cargo");
    ensure!(find_in_path("bpf-linker").is_some(), "bpf-linker is not in PATH (see xtask/src/ebpf.rs)");
    let target = root.join("target").join(place);
    let home = std::env::var("CARGO_HOME")
        .or_else(|_| std::env::var("HOME").map(|home| format!("{home}/.cargo")))
        .context("find cargo's home")?;
    // The bytes must not depend on where the checkout lies.
    let flags = [
        "-Clinker=bpf-linker".to_owned(),
        "-Clink-arg=--btf".to_owned(),
        "-Cdebuginfo=2".to_owned(),
        format!("--remap-path-prefix={}=rano", root.display()),
        format!("--remap-path-prefix={home}=cargo"),
    ];
    let status = Command::new(&cargo)
        .args(["build", "--locked", "--release", "-Zbuild-std=core", "--target", TARGET])
        .arg("--manifest-path")
        .arg(root.join("rano-ebpf/Cargo.toml"))
        .arg("--target-dir")
        .arg(&target)
        .args(more)
        .env("RUSTC", &rustc)
        .env("RUSTC_BOOTSTRAP", "1")
        .env("CARGO_ENCODED_RUSTFLAGS", flags.join("\u{1f}"))
        .env_remove("RUSTUP_TOOLCHAIN")
        .status()
        .with_context(|| format!("run {}", cargo.display()))?;
    ensure!(status.success(), "the kernel programs do not build");
    let built = target.join(TARGET).join("release/rano-ebpf");
    strip(&built, &root.join(object))?;
    Ok(rustc)
}

/// Without DWARF, which is five times as large as the rest; BTF stays.
fn strip(built: &Path, object: &Path) -> Result<()> {
    let prefix = std::env::var_os("LLVM_PREFIX").unwrap_or_else(|| "/usr/lib/llvm-22".into());
    let strip = Path::new(&prefix).join("bin/llvm-strip");
    let mut command = Command::new(&strip);
    let status = command.arg("--strip-debug").arg("-o").arg(object).arg(built).status();
    ensure!(
        status.with_context(|| format!("run {}", strip.display()))?.success(),
        "the object cannot be stripped"
    );
    Ok(())
}

/// Fails where the sources or the object are others than when the note was made.
fn check_note() -> Result<ExitCode> {
    let root = workspace();
    let recorded = fs::read_to_string(root.join(NOTE)).with_context(|| format!("read {NOTE}"))?;
    let compiler = recorded.lines().find_map(|line| line.strip_prefix("compiler ")).unwrap_or_default();
    let now = note(&root, compiler)?;
    let differing: Vec<&str> = now.lines().filter(|line| !recorded.lines().any(|old| old == *line)).collect();
    if differing.is_empty() {
        return Ok(ExitCode::SUCCESS);
    }
    eprintln!("error: {OBJECT} was not made from these sources; now it is");
    for line in differing {
        eprintln!("  {line}");
    }
    eprintln!("hint: cargo xtask ebpf");
    Ok(ExitCode::FAILURE)
}

fn note(root: &Path, compiler: &str) -> Result<String> {
    let mut text = String::from("Made by `cargo xtask ebpf`.\n");
    let _ = writeln!(text, "object {}", sha256(&[root.join(OBJECT)])?);
    let mut files = Vec::new();
    for source in SOURCES {
        collect(&root.join(source), &mut files)?;
    }
    files.sort();
    let _ = writeln!(text, "sources {}", sha256(&files)?);
    let _ = writeln!(text, "compiler {compiler}");
    Ok(text)
}

fn collect(path: &Path, files: &mut Vec<PathBuf>) -> Result<()> {
    if !path.is_dir() {
        files.push(path.to_path_buf());
        return Ok(());
    }
    for entry in fs::read_dir(path).with_context(|| format!("list {}", path.display()))? {
        collect(&entry?.path(), files)?;
    }
    Ok(())
}

fn first_line(program: &Path, argument: &str) -> Result<String> {
    let output =
        Command::new(program).arg(argument).output().with_context(|| format!("run {}", program.display()))?;
    Ok(String::from_utf8_lossy(&output.stdout).lines().next().unwrap_or_default().to_owned())
}

fn tool(variable: &str, usual: impl AsRef<OsStr>) -> PathBuf {
    std::env::var_os(variable).unwrap_or_else(|| usual.as_ref().to_owned()).into()
}
