//! install.sh against a server that plays the place where releases are, in every shell that is here.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use anyhow::{Context as _, Result, ensure};

use crate::support::site::{Answer, Installed, Site, expect, fixtures, honest, said};
use crate::support::trial::skip;

crate::tests![
    it_installs_replaces_and_uninstalls,
    paths_of_shells_are_set_once,
    a_hostile_server_installs_nothing,
    signatures_are_verified_where_minisign_is,
    an_older_release_is_only_installed_by_name,
    a_dry_run_does_and_asks_nothing,
    wget_does_where_there_is_no_curl,
    what_cannot_be_written_is_one_line,
    a_release_without_an_address_is_one_line,
    other_systems_get_a_sentence,
    in_a_checkout_it_builds_from_source,
];

const UID: u32 = 61_191;
const ARCH: &str = std::env::consts::ARCH;
/// What it installs, below the prefix.
const FILES: [&str; 5] = [
    "bin/rano",
    "share/bash-completion/completions/rano",
    "share/fish/vendor_completions.d/rano.fish",
    "share/man/man1/rano.1",
    "share/zsh/site-functions/_rano",
];

fn script() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../install.sh")
}

/// The script as a release has it, with the key of the tests.
fn stamped() -> Result<String> {
    let key = fs::read_to_string(fixtures().join("key.pub"))?;
    let text = fs::read_to_string(script())?;
    ensure!(text.contains("\nKEY=''\n"), "a release has no place for its key");
    Ok(text.replace("\nKEY=''\n", &format!("\nKEY='{}'\n", key.trim())))
}

/// A shell that reads the script from its standard input, as `curl … | sh` does.
fn piped(mut command: Command, arguments: &[&str]) -> Result<Output> {
    let input = tempfile::NamedTempFile::new()?;
    fs::write(input.path(), stamped()?)?;
    command.arg("-s").arg("--").args(arguments).stdin(Stdio::from(fs::File::open(input.path())?));
    command.output().context("start a shell")
}

fn install(user: &Installed, url: &str, arguments: &[&str]) -> Result<Output> {
    let mut command = user.command("sh");
    command.env("RANO_UPDATE_URL", url);
    piped(command, arguments)
}

fn below(prefix: &str, files: &[&str]) -> Vec<String> {
    files.iter().map(|file| format!("{prefix}/{file}")).collect()
}

fn it_installs_replaces_and_uninstalls() -> Result<()> {
    for shell in [&["sh"][..], &["bash"], &["dash"], &["busybox", "sh"], &["zsh"]] {
        let user = Installed::empty(UID)?;
        if user.path_with(&shell[..1])?.is_none() {
            continue;
        }
        fs::remove_dir_all(user.home().join("path"))?;
        let run = |url: &str, arguments: &[&str]| {
            let mut command = user.command(shell[0]);
            command.args(&shell[1..]).env("RANO_UPDATE_URL", url);
            piped(command, arguments)
        };
        let older = Site::start(|path| honest("0.0.1", path))?;
        expect(&run(&older.url, &[])?, 0, &["installed rano 0.0.1", "export PATH="]).context(shell[0])?;
        ensure!(user.files()? == below(".local", &FILES), "{shell:?}: {:?}", user.files()?);
        let newer = Site::start(|path| honest("99.1.0", path))?;
        expect(&run(&newer.url, &[])?, 0, &["installed rano 99.1.0"])?;
        let old = user.command(user.home().join(".local/bin/rano.old")).output()?;
        expect(&old, 0, &["rano 0.0.1"])?;
        expect(&run(&newer.url, &["--uninstall"])?, 0, &["removed", "stay"])?;
        ensure!(user.files()?.is_empty(), "{shell:?}: {:?}", user.files()?);
    }
    Ok(())
}

fn paths_of_shells_are_set_once() -> Result<()> {
    let site = Site::start(|path| honest("99.1.0", path))?;
    let user = Installed::empty(UID)?;
    // Without an end of its last line.
    let bashrc = user.home().join(".bashrc");
    fs::write(&bashrc, "alias l=ls\n# mine")?;
    std::os::unix::fs::chown(&bashrc, Some(fs_uid(&user)?), None)?;
    for _ in 0..2 {
        expect(&install(&user, &site.url, &["--easy-mode"])?, 0, &["installed rano 99.1.0"])?;
    }
    let text = fs::read_to_string(&bashrc)?;
    ensure!(text.starts_with("alias l=ls\n# mine\n") && text.lines().count() == 3, "{text}");
    let mut bash = user.command("bash");
    bash.args(["--rcfile", ".bashrc", "-i", "-c", "rano; rano; echo \"$PATH\""]);
    let output = bash.output()?;
    expect(&output, 0, &["rano 99.1.0\nrano 99.1.0\n"])?;
    expect(&install(&user, &site.url, &["--uninstall"])?, 0, &["removed"])?;
    let text = fs::read_to_string(&bashrc)?;
    ensure!(text == "alias l=ls\n# mine\n", "{text}");
    Ok(())
}

fn fs_uid(user: &Installed) -> Result<u32> {
    use std::os::unix::fs::MetadataExt as _;
    Ok(fs::metadata(user.home())?.uid())
}

fn a_hostile_server_installs_nothing() -> Result<()> {
    type Case = (&'static str, fn(&str) -> Answer, &'static [&'static str], &'static str);
    let cases: [Case; 9] = [
        ("an archive that is cut", |path| only(path, ".gz", Answer::Cut), &[], "broke off"),
        ("a list that is cut", |path| only(path, "SUMS", Answer::Cut), &[], "broke off"),
        ("an archive that is changed", |path| only(path, ".gz", changed), &[], "another checksum"),
        (
            "an older release under the name of this",
            |path| honest("0.0.1", &path.replace("v99.1.0", "v0.0.1")),
            &["--version", "v99.1.0"],
            "asked for v99.1.0, and the server has v0.0.1",
        ),
        ("an error", |_| Answer::Status(500), &[], "is not there"),
        ("a way to a file", |_| Answer::Redirect("file:///etc/passwd".to_owned()), &[], "cannot fetch"),
        ("no list", |_| Answer::Whole(b"<html>".to_vec()), &[], "has nothing for"),
        ("a link", |path| honest("98.0.0", path), &[], "holds no program"),
        ("what does not start", |path| honest("97.0.0", path), &[], "does not run here"),
    ];
    let user = Installed::empty(UID)?;
    for (what, manners, arguments, text) in cases {
        let site = Site::start(manners)?;
        let output = install(&user, &site.url, arguments)?;
        expect(&output, 1, &[text]).context(what)?;
        let errors = said(&output).lines().filter(|line| line.starts_with("error: ")).count();
        ensure!(errors == 1, "{what}: {}", said(&output));
        ensure!(user.files()?.is_empty(), "{what}: {:?}", user.files()?);
    }
    Ok(())
}

/// The release 99.1.0 as it is, but for files whose names end so.
fn only(path: &str, ending: &str, otherwise: fn(Vec<u8>) -> Answer) -> Answer {
    match honest("99.1.0", path) {
        Answer::Whole(bytes) if path.ends_with(ending) => otherwise(bytes),
        answer => answer,
    }
}

fn changed(mut bytes: Vec<u8>) -> Answer {
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    Answer::Whole(bytes)
}

fn signatures_are_verified_where_minisign_is() -> Result<()> {
    type Case = (fn(&str) -> Answer, &'static str);
    let user = Installed::empty(UID)?;
    let honest_site = Site::start(|path| honest("99.1.0", path))?;
    if user.path_with(&["minisign"])?.is_none() {
        let output = install(&user, &honest_site.url, &[])?;
        expect(
            &output,
            0,
            &["only the checksum is checked: minisign is not installed", "By hand: minisign -V"],
        )?;
        return Err(skip("needs minisign"));
    }
    fs::remove_dir_all(user.home().join("path"))?;
    // The archive's checksum is right in each of these lists.
    let cases: [Case; 3] = [
        (
            |path| only(path, ".minisig", |_| Answer::file("v0.0.1/SHA256SUMS.minisig")),
            "signature of SHA256SUMS is wrong",
        ),
        (|path| only(path, ".minisig", |_| Answer::Status(404)), "is not there"),
        (|path| honest("95.0.0", path), "that of rano 99.1.0, and not of rano 95.0.0"),
    ];
    for (manners, text) in cases {
        let site = Site::start(manners)?;
        expect(&install(&user, &site.url, &[])?, 1, &[text])?;
        ensure!(user.files()?.is_empty(), "{:?}", user.files()?);
    }
    expect(&install(&user, &honest_site.url, &[])?, 0, &["the signature is right: rano 99.1.0"])
}

fn an_older_release_is_only_installed_by_name() -> Result<()> {
    let user = Installed::empty(UID)?;
    let newer = Site::start(|path| honest("99.1.0", path))?;
    expect(&install(&user, &newer.url, &[])?, 0, &["installed rano 99.1.0"])?;
    let older = Site::start(|path| honest("0.0.1", path))?;
    expect(&install(&user, &older.url, &[])?, 1, &["the latest release there is 0.0.1"])?;
    expect(&install(&user, &older.url, &["--version", "0.0.1"])?, 0, &["installed rano 0.0.1"])
}

fn a_dry_run_does_and_asks_nothing() -> Result<()> {
    let user = Installed::empty(UID)?;
    let site = Site::start(|path| honest("99.1.0", path))?;
    let output = install(&user, &site.url, &["--dry-run", "--easy-mode", "--prefix", "/opt/x"])?;
    let list = format!("would fetch {}/latest/download/SHA256SUMS", site.url);
    expect(&output, 0, &[&list, "would install /opt/x/bin/rano", "PATH"])?;
    ensure!(user.files()?.is_empty() && site.asked().is_empty(), "{:?}", site.asked());
    Ok(())
}

fn wget_does_where_there_is_no_curl() -> Result<()> {
    let tools = [
        "sh",
        "wget",
        "uname",
        "mktemp",
        "rm",
        "awk",
        "sha256sum",
        "cut",
        "tar",
        "gzip",
        "id",
        "mkdir",
        "cp",
        "chmod",
        "ln",
        "mv",
        "dirname",
        "cat",
    ];
    let user = Installed::empty(UID)?;
    let Some(path) = user.path_with(&tools)? else { return Err(skip("needs wget")) };
    let site = Site::start(|path| honest("99.1.0", path))?;
    let run = || {
        let mut command = user.command("/bin/sh");
        command.env("RANO_UPDATE_URL", &site.url).env("PATH", &path);
        piped(command, &[])
    };
    expect(&run()?, 0, &["installed rano 99.1.0"])?;
    fs::remove_file(path.join("wget"))?;
    expect(&run()?, 1, &["install curl or wget first"])
}

fn what_cannot_be_written_is_one_line() -> Result<()> {
    let user = Installed::empty(UID)?;
    let site = Site::start(|path| honest("99.1.0", path))?;
    // A limit on the size of files stands for a full disk.
    let mut command = user.command("sh");
    command.env("RANO_UPDATE_URL", &site.url);
    command.args(["-c", "trap '' XFSZ; ulimit -f 0; exec sh \"$@\"", "sh"]);
    let full = piped(command, &[])?;
    expect(&full, 1, &["is the disk full?"])?;
    ensure!(user.files()?.is_empty(), "{:?}", user.files()?);
    if fs_uid(&user)? != 0 {
        let output = install(&user, &site.url, &["--prefix", "/"])?;
        expect(&output, 1, &["cannot write to //bin: run it as root"])?;
    }
    Ok(())
}

fn a_release_without_an_address_is_one_line() -> Result<()> {
    let user = Installed::empty(UID)?;
    expect(&piped(user.command("sh"), &[])?, 2, &["does not know where releases are", "--owner"])?;
    for url in ["http://192.0.2.1/x", "ftp://127.0.0.1/x"] {
        expect(&install(&user, url, &[])?, 2, &["releases come by https"])?;
    }
    let output = piped(user.command("sh"), &["--dry-run", "--owner", "o", "--repo", "r"])?;
    expect(&output, 0, &["https://github.com/o/r/releases/latest/download/SHA256SUMS"])?;
    for arguments in [&["--nonsense"][..], &["--version"], &["--version", "../../x"], &["--prefix", ""]] {
        expect(&piped(user.command("sh"), arguments)?, 2, &["error: "])?;
    }
    Ok(())
}

fn other_systems_get_a_sentence() -> Result<()> {
    let user = Installed::empty(UID)?;
    let path = user.home().join("path");
    fs::create_dir(&path)?;
    let cases = [
        ("Darwin", "arm64", "macOS has neither"),
        ("MINGW64_NT-10.0", "x86_64", "https://learn.microsoft.com/windows/wsl/install"),
        ("Linux", "riscv64", "use --from-source"),
    ];
    for (system, machine, text) in cases {
        let uname = format!("#!/bin/sh\nif [ \"$1\" = -m ]; then echo {machine}; else echo {system}; fi\n");
        let written = user.home().join("uname");
        fs::write(&written, uname)?;
        crate::support::program::copy(&written, &path.join("uname"))?;
        let mut command = user.command("sh");
        command.env("PATH", format!("{}:/usr/bin:/bin", path.display()));
        expect(&piped(command, &["--dry-run", "--owner", "o", "--repo", "r"])?, 1, &[text])?;
    }
    // As the archive for this machine is called.
    ensure!(["x86_64", "aarch64"].contains(&ARCH));
    Ok(())
}

fn in_a_checkout_it_builds_from_source() -> Result<()> {
    let user = Installed::empty(UID)?;
    // The checkout may lie where this user cannot go.
    let checkout = user.home().join("checkout");
    fs::create_dir_all(checkout.join("rano"))?;
    fs::write(checkout.join("Cargo.toml"), "")?;
    fs::write(checkout.join("rano/Cargo.toml"), "")?;
    fs::write(checkout.join("install.sh"), fs::read(script())?)?;
    let mut command = user.command("sh");
    command.arg(checkout.join("install.sh")).arg("--dry-run");
    let text = format!("would build rano from {}", checkout.display());
    expect(&command.output()?, 0, &[&text, "would install"])?;
    let mut command = user.command("sh");
    command.arg(checkout.join("install.sh")).env("PATH", "/bin:/usr/bin");
    if user.path_with(&["cargo"])?.is_none() {
        expect(&command.output()?, 1, &["needs Rust 1.95 or later"])?;
    }
    Ok(())
}
