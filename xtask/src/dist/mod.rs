//! `cargo xtask dist`: everything that a release has, in `target/dist/out`: per platform an archive, a .deb and an
//! .rpm, then a bill of materials, install.sh, checksums, and the signature over them. Two runs give the same bytes.
//!
//! What is needed: Rust's standard library for musl (`rustup target add x86_64-unknown-linux-musl`), or the sources of
//! a distribution's compiler (Debian: `apt install rustc-web cargo-web rust-web-src`), and minisign where something is
//! to be signed. Everything else is fetched into `target/tools`.

mod build;
mod materials;
mod packages;
mod texts;
mod tools;
mod trial;

use std::ffi::OsString;
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::time::Instant;

use anyhow::{Context as _, Result, bail, ensure};

use crate::cargo::{target_directory, workspace};
use crate::digest::sha256;

/// The most that a binary may have, bytes.
const LARGEST: u64 = 14 << 20;

pub(crate) const USAGE: &str = "\
usage: cargo xtask dist [--arch x86_64|aarch64]...   both unless told otherwise
                        [--secret-key FILE]          minisign's, to sign with; FILE.pub has the public key beside it
                        [--public-key FILE]          minisign's, built in: releases that `rano update` is to take
                        [--owner NAME --repo NAME]   built in: where on GitHub the releases are
                        [--twice]                    once more in another folder, and compare
                        [--test]                     try it in bare roots, with keys of its own; as root";

/// A platform that is shipped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Platform {
    /// As `uname -m` and install.sh have it.
    pub arch: &'static str,
    pub target: &'static str,
    /// What Debian calls it.
    pub deb: &'static str,
}

const PLATFORMS: [Platform; 2] = [
    Platform { arch: "x86_64", target: "x86_64-unknown-linux-musl", deb: "amd64" },
    Platform { arch: "aarch64", target: "aarch64-unknown-linux-musl", deb: "arm64" },
];

/// What was asked for.
#[derive(Debug, Default)]
pub(crate) struct Order {
    platforms: Vec<Platform>,
    secret_key: Option<PathBuf>,
    public_key: Option<PathBuf>,
    owner: Option<String>,
    repo: Option<String>,
    twice: bool,
    test: bool,
}

/// What a release is called, when it was made, and what is built into it.
pub(crate) struct Release {
    pub version: String,
    /// Seconds since 1970 of the last commit: the time that every file bears.
    pub epoch: String,
    /// The line of minisign's public key that is no comment.
    pub key: Option<String>,
    pub owner: Option<String>,
    pub repo: Option<String>,
}

impl Release {
    /// `rano-0.2.0-x86_64-linux`: the archive without its ending, and the folder in it.
    pub(crate) fn stem(&self, platform: Platform) -> String {
        format!("rano-{}-{}-linux", self.version, platform.arch)
    }
}

pub(crate) fn run(arguments: &[OsString]) -> Result<ExitCode> {
    if arguments.iter().any(|argument| argument == "--help") {
        println!("{USAGE}");
        return Ok(ExitCode::SUCCESS);
    }
    let mut order = parse(arguments)?;
    if order.test && order.secret_key.is_none() {
        throwaway_keys(&mut order)?;
    }
    let begun = Instant::now();
    let release = release(&order)?;
    let tools = tools::find()?;
    let out = fresh(&target_directory().join("dist/out"))?;
    // Texts are made by the binary itself, so one that runs here comes first.
    let mut built = Vec::new();
    for platform in &order.platforms {
        let binary = build::binary(*platform, &release, &tools)?;
        ensure!(fs::metadata(&binary)?.len() <= LARGEST, "{} is larger than 14 MiB", binary.display());
        built.push((*platform, binary));
    }
    let (_, native) = built
        .iter()
        .find(|(platform, _)| platform.arch == std::env::consts::ARCH)
        .context("build for this machine too: its binary prints manual page and completions")?;
    let shared = texts::make(native, &release)?;
    for (platform, binary) in &built {
        let folder = packages::lay_out(*platform, binary, &shared, &release)?;
        packages::archive(&folder, &out, &release)?;
        packages::deb(*platform, &tools, &out, &release)?;
        packages::rpm(*platform, &tools, &out, &release)?;
    }
    materials::write(&out.join(format!("rano-{}.cdx.json", release.version)), &release)?;
    texts::install_script(&out.join("install.sh"), &release)?;
    checksums(&out)?;
    sign(&order, &out, &release)?;
    list(&out)?;
    println!("in {} s", begun.elapsed().as_secs());
    if let (true, Some(key)) = (order.test, &order.secret_key) {
        let here = PLATFORMS.into_iter().find(|platform| platform.arch == std::env::consts::ARCH);
        trial::run(&out, key, here.context("this machine is a platform")?, &release)?;
    }
    if order.twice { once_more(arguments, order.public_key.as_deref(), &out) } else { Ok(ExitCode::SUCCESS) }
}

fn parse(arguments: &[OsString]) -> Result<Order> {
    let mut order = Order::default();
    let mut arguments = arguments.iter().map(|argument| argument.to_string_lossy().into_owned());
    while let Some(argument) = arguments.next() {
        let mut value = || arguments.next().with_context(|| format!("{argument} takes a value\n{USAGE}"));
        match argument.as_str() {
            "--arch" => {
                let arch = value()?;
                let platform = PLATFORMS.into_iter().find(|platform| platform.arch == arch);
                order.platforms.push(platform.with_context(|| format!("no platform '{arch}'\n{USAGE}"))?);
            }
            "--secret-key" => order.secret_key = Some(value()?.into()),
            "--public-key" => order.public_key = Some(value()?.into()),
            "--owner" => order.owner = Some(value()?),
            "--repo" => order.repo = Some(value()?),
            "--twice" => order.twice = true,
            "--test" => order.test = true,
            _ => bail!("{USAGE}"),
        }
    }
    if order.platforms.is_empty() {
        order.platforms.extend(PLATFORMS);
    }
    Ok(order)
}

/// For a trial. A release that anybody else gets is signed by a key that is kept.
fn throwaway_keys(order: &mut Order) -> Result<()> {
    let directory = fresh(&target_directory().join("dist/keys"))?;
    let (public, secret) = (directory.join("trial.pub"), directory.join("trial.key"));
    let mut command = Command::new("minisign");
    command.args(["-G", "-W", "-p"]).arg(&public).arg("-s").arg(&secret).stdout(std::process::Stdio::null());
    tools::succeed(&mut command)?;
    (order.public_key, order.secret_key) = (Some(public), Some(secret));
    Ok(())
}

fn release(order: &Order) -> Result<Release> {
    let epoch = match std::env::var("SOURCE_DATE_EPOCH") {
        Ok(epoch) => epoch,
        Err(_) => {
            tools::said(Command::new("git").arg("-C").arg(workspace()).args(["log", "-1", "--format=%ct"]))?
        }
    };
    let key = order.public_key.as_deref().map(public_key).transpose()?;
    Ok(Release {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        epoch,
        key,
        owner: order.owner.clone(),
        repo: order.repo.clone(),
    })
}

/// The key in a file of minisign's: its last line.
fn public_key(path: &Path) -> Result<String> {
    let text = fs::read_to_string(path).with_context(|| format!("read {}", path.display()))?;
    let key = text.lines().map(str::trim).rfind(|line| !line.is_empty()).unwrap_or_default();
    ensure!(key.len() == 56 && key.starts_with("RW"), "{} has no public key of minisign's", path.display());
    Ok(key.to_owned())
}

/// An empty directory at `path`.
fn fresh(path: &Path) -> Result<PathBuf> {
    if path.exists() {
        fs::remove_dir_all(path).with_context(|| format!("empty {}", path.display()))?;
    }
    fs::create_dir_all(path).with_context(|| format!("make {}", path.display()))?;
    Ok(path.to_owned())
}

/// Names of the files in `directory`, in order.
fn names(directory: &Path) -> Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in fs::read_dir(directory).with_context(|| format!("list {}", directory.display()))? {
        names.push(entry?.file_name().to_string_lossy().into_owned());
    }
    names.sort();
    Ok(names)
}

/// As coreutils has it: `sha256sum -c SHA256SUMS` checks.
fn checksums(out: &Path) -> Result<()> {
    let mut text = String::new();
    for name in names(out)? {
        let _ = writeln!(text, "{}  {name}", sha256(&[out.join(&name)])?);
    }
    fs::write(out.join("SHA256SUMS"), text).context("write SHA256SUMS")
}

/// The trusted comment says which release it is, so that another's cannot stand in for it.
fn sign(order: &Order, out: &Path, release: &Release) -> Result<()> {
    if let Some(key) = &order.secret_key {
        return signed(key, &out.join("SHA256SUMS"), &release.version);
    }
    println!("not signed: no --secret-key");
    Ok(())
}

fn signed(key: &Path, list: &Path, version: &str) -> Result<()> {
    let comment = format!("rano {version}");
    let mut command = Command::new("minisign");
    command.arg("-S").arg("-s").arg(key).args(["-t", &comment, "-c", "signature of a release of rano"]);
    command.arg("-m").arg(list).stdout(std::process::Stdio::null());
    tools::succeed(&mut command)
}

fn list(out: &Path) -> Result<()> {
    for name in names(out)? {
        let size = fs::metadata(out.join(&name))?.len();
        println!("{size:>10}  {name}");
    }
    Ok(())
}

/// What git knows of the checkout, copied to a folder of another name and length, gives the same checksums.
fn once_more(arguments: &[OsString], key: Option<&Path>, out: &Path) -> Result<ExitCode> {
    let copy = fresh(&target_directory().join("dist/elsewhere/in-a-folder-of-another-name"))?;
    let listed = tools::said(Command::new("git").arg("-C").arg(workspace()).args(["ls-files"]))?;
    for path in listed.lines() {
        let to = copy.join(path);
        fs::create_dir_all(to.parent().unwrap_or(&copy))?;
        fs::copy(workspace().join(path), &to).with_context(|| format!("copy {path}"))?;
    }
    fs::create_dir_all(copy.join("target"))?;
    std::os::unix::fs::symlink(tools::directory(), copy.join("target/tools"))?;
    let mut command = Command::new(std::env::current_exe().context("find xtask")?);
    let once = |argument: &&OsString| *argument != "--twice" && *argument != "--test";
    command.arg("dist").args(arguments.iter().filter(once));
    if let Some(key) = key {
        command.arg("--public-key").arg(key);
    }
    command.env("CARGO_MANIFEST_DIR", copy.join("xtask")).env_remove("CARGO_TARGET_DIR");
    command.env("SOURCE_DATE_EPOCH", release(&Order::default())?.epoch);
    tools::succeed(&mut command)?;
    let other = copy.join("target/dist/out");
    let (first, second) =
        (fs::read_to_string(out.join("SHA256SUMS"))?, fs::read_to_string(other.join("SHA256SUMS"))?);
    if first == second {
        println!("the same bytes from two folders");
        return Ok(ExitCode::SUCCESS);
    }
    for line in second.lines().filter(|line| !first.contains(*line)) {
        eprintln!("differs: {line}");
    }
    Ok(ExitCode::FAILURE)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(text: &str) -> Vec<OsString> {
        text.split_whitespace().map(OsString::from).collect()
    }

    #[test]
    fn both_platforms_are_built_unless_one_is_named() {
        assert_eq!(parse(&[]).unwrap().platforms, PLATFORMS);
        assert_eq!(parse(&words("--arch aarch64")).unwrap().platforms, [PLATFORMS[1]]);
    }

    #[test]
    fn unknown_words_and_missing_values_are_refused() {
        for text in ["--arch", "--arch vax", "--owner", "now"] {
            assert!(parse(&words(text)).is_err(), "{text}");
        }
    }

    #[test]
    fn a_public_key_is_the_line_that_is_no_comment() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let key = "RWQf6LRCGA9i53mlYecO4IzT51TGPpvWucNSCh1CBM0QTaLn73Y7GFO3";
        fs::write(file.path(), format!("untrusted comment: minisign public key\n{key}\n")).unwrap();
        assert_eq!(public_key(file.path()).unwrap(), key);
        fs::write(file.path(), "untrusted comment: minisign public key\n").unwrap();
        assert!(public_key(file.path()).is_err());
    }
}
