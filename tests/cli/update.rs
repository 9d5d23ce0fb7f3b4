//! `rano update` against a server that plays the place where releases are.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;

use anyhow::{Context as _, Result, ensure};

use crate::support::namespace::is_root;
use crate::support::site::{Answer, Installed, Site, expect, fixtures, honest};
use crate::support::trial::skip;

crate::tests![
    a_newer_release_replaces_the_program,
    check_changes_nothing,
    an_older_release_is_only_installed_by_name,
    a_hostile_server_changes_nothing,
    a_release_that_is_wrong_itself_changes_nothing,
    wget_does_where_there_is_no_curl,
    a_directory_of_files_is_a_place_too,
    who_may_not_write_is_told_so,
    root_replaces_nothing_where_others_can_write,
    capabilities_are_kept,
    a_program_of_cargos_is_left_to_cargo,
];

const UID: u32 = 61_190;
const ARCH: &str = std::env::consts::ARCH;

fn version(installed: &Installed) -> Result<String> {
    let output = installed.command(installed.rano()).arg("--version").output()?;
    Ok(String::from_utf8(output.stdout)?.trim().to_owned())
}

fn a_newer_release_replaces_the_program() -> Result<()> {
    let site = Site::start(|path| honest("99.1.0", path))?;
    let installed = Installed::new(UID)?;
    let before = version(&installed)?;
    expect(&installed.update(&site.url, &[])?, 0, &["rano 99.1.0 replaces", "rano.old"])?;
    ensure!(installed.files()? == ["bin/rano", "bin/rano.old"], "{:?}", installed.files()?);
    ensure!(version(&installed)? == "rano 99.1.0");
    let old = installed.command(installed.home().join("bin/rano.old")).arg("--version").output()?;
    expect(&old, 0, &[&before])?;
    let mode = fs::metadata(installed.rano())?.permissions().mode() & 0o7777;
    ensure!(mode == 0o755, "{mode:o}");
    let archive = format!("/download/v99.1.0/rano-99.1.0-{ARCH}-linux.tar.gz");
    let expected = ["/latest/download/SHA256SUMS", "/latest/download/SHA256SUMS.minisig", &archive];
    ensure!(site.asked() == expected, "{:?}", site.asked());
    Ok(())
}

fn check_changes_nothing() -> Result<()> {
    let site = Site::start(|path| honest("99.1.0", path))?;
    let installed = Installed::new(UID)?;
    let inode = installed.inode()?;
    expect(&installed.update(&site.url, &["--check"])?, 0, &["rano 99.1.0 is there", "would replace"])?;
    let older = Site::start(|path| honest("0.0.1", path))?;
    expect(&installed.update(&older.url, &["--check"])?, 1, &["is older: 0.0.1", "--version v0.0.1"])?;
    let gone = older.url.clone();
    drop(older);
    let address = format!("{gone}/latest/download/SHA256SUMS");
    expect(&installed.update(&gone, &["--check"])?, 3, &["cannot ask", &address])?;
    ensure!(installed.inode()? == inode && installed.files()? == ["bin/rano"], "{:?}", installed.files()?);
    Ok(())
}

fn an_older_release_is_only_installed_by_name() -> Result<()> {
    let site = Site::start(|path| honest("0.0.1", path))?;
    let installed = Installed::new(UID)?;
    expect(&installed.update(&site.url, &[])?, 1, &["is older: 0.0.1"])?;
    ensure!(installed.files()? == ["bin/rano"]);
    expect(&installed.update(&site.url, &["--version", "v0.0.1"])?, 0, &["rano 0.0.1 replaces"])?;
    ensure!(version(&installed)? == "rano 0.0.1");
    Ok(())
}

fn a_hostile_server_changes_nothing() -> Result<()> {
    type Case = (&'static str, fn(&str) -> Answer, &'static [&'static str], i32, &'static str);
    let cases: [Case; 12] = [
        ("a list that is cut", |path| only(path, "SHA256SUMS", Answer::Cut), &[], 3, "cannot ask"),
        ("an archive that is cut", |path| only(path, ".gz", Answer::Cut), &[], 3, "cannot ask"),
        ("an archive that is changed", |path| only(path, ".gz", changed), &[], 1, "another checksum"),
        ("a list that is changed", |path| only(path, "SHA256SUMS", changed), &[], 1, "is not signed by"),
        ("a signature that is changed", |path| only(path, ".minisig", changed), &[], 1, "is not signed by"),
        ("no signature", |path| only(path, ".minisig", |_| Answer::Status(404)), &[], 3, "cannot ask"),
        (
            "an older release under the name of this",
            |path| honest("0.0.1", &path.replace("v99.1.0", "v0.0.1")),
            &["--version", "v99.1.0"],
            1,
            "is signed as 'rano 0.0.1', not as rano 99.1.0",
        ),
        (
            "the archive of an older release",
            |path| only(path, ".gz", |_| Answer::file(&format!("v0.0.1/rano-0.0.1-{ARCH}-linux.tar.gz"))),
            &[],
            1,
            "another checksum",
        ),
        ("an error", |_| Answer::Status(500), &[], 3, "500"),
        ("a way to a file", |_| Answer::Redirect("file:///etc/passwd".to_owned()), &[], 3, "cannot ask"),
        ("a way without TLS", |_| Answer::Redirect("http://127.0.0.1:9/x".to_owned()), &[], 3, "cannot ask"),
        ("too much", |_| Answer::Whole(vec![b'x'; 1 << 20]), &[], 3, "larger than a release can be"),
    ];
    let installed = Installed::new(UID)?;
    let inode = installed.inode()?;
    for (what, manners, arguments, code, text) in cases {
        let site = Site::start(manners)?;
        expect(&installed.update(&site.url, arguments)?, code, &[text]).context(what)?;
        ensure!(installed.inode()? == inode && installed.files()? == ["bin/rano"], "{what}");
    }
    let silent = Site::start(|_| Answer::Silence)?;
    let mut command = installed.command(installed.rano());
    command.arg("update").env("RANO_UPDATE_URL", &silent.url).env("RANO_UPDATE_TIMEOUT", "1");
    expect(&command.output()?, 3, &["says nothing for 1s"])?;
    ensure!(installed.inode()? == inode && installed.files()? == ["bin/rano"]);
    Ok(())
}

/// The release 99.1.0 as it is, but for files whose names end so.
fn only(path: &str, ending: &str, otherwise: fn(Vec<u8>) -> Answer) -> Answer {
    match honest("99.1.0", path) {
        Answer::Whole(bytes) if path.ends_with(ending) => otherwise(bytes),
        answer => answer,
    }
}

/// In the middle, where signatures and archives have what counts.
fn changed(mut bytes: Vec<u8>) -> Answer {
    let middle = bytes.len() / 2;
    bytes[middle] = if bytes[middle] == b'A' { b'B' } else { b'A' };
    Answer::Whole(bytes)
}

fn a_release_that_is_wrong_itself_changes_nothing() -> Result<()> {
    let installed = Installed::new(UID)?;
    let inode = installed.inode()?;
    let cases = [
        ("98.0.0", "is no regular file"),
        ("97.0.0", "does not start: exit status: 7"),
        ("95.0.0", "has no archive"),
        ("94.0.0", "is signed as 'timestamp:1"),
    ];
    for (latest, text) in cases {
        let site = Site::start(move |path| honest(latest, path))?;
        expect(&installed.update(&site.url, &[])?, 1, &[text]).context(latest)?;
        ensure!(installed.inode()? == inode && installed.files()? == ["bin/rano"], "{latest}");
    }
    Ok(())
}

fn wget_does_where_there_is_no_curl() -> Result<()> {
    let installed = Installed::new(UID)?;
    let Some(path) = installed.path_with(&["wget"])? else { return Err(skip("needs wget")) };
    let update = |url: &str| {
        let mut command = installed.command(installed.rano());
        command.arg("update").env("RANO_UPDATE_URL", url).env("PATH", &path);
        command.output()
    };
    let cut = Site::start(|path| only(path, ".gz", |_| Answer::Status(500)))?;
    expect(&update(&cut.url)?, 3, &["cannot ask"])?;
    let site = Site::start(|path| honest("99.1.0", path))?;
    // The new program is a script, and finds what it needs by its own path.
    expect(&update(&site.url)?, 0, &["rano 99.1.0 replaces"])?;
    fs::remove_file(path.join("wget"))?;
    fs::remove_file(installed.rano())?;
    fs::rename(installed.home().join("bin/rano.old"), installed.rano())?;
    expect(&update(&site.url)?, 3, &["neither curl nor wget is installed"])
}

fn a_directory_of_files_is_a_place_too() -> Result<()> {
    let installed = Installed::new(UID)?;
    let mirror = installed.home().join("mirror");
    for (from, to) in [("v99.1.0", "latest/download"), ("v99.1.0", "download/v99.1.0")] {
        fs::create_dir_all(mirror.join(to))?;
        for entry in fs::read_dir(fixtures().join(from))? {
            let entry = entry?;
            fs::write(mirror.join(to).join(entry.file_name()), fs::read(entry.path())?)?;
        }
    }
    let url = format!("file://{}", mirror.display());
    expect(&installed.update(&url, &[])?, 0, &["rano 99.1.0 replaces"])
}

fn who_may_not_write_is_told_so() -> Result<()> {
    if !is_root() {
        return Err(skip("needs root"));
    }
    let site = Site::start(|path| honest("99.1.0", path))?;
    let installed = Installed::new(0)?;
    let mut command = installed.command_as(installed.rano(), UID);
    command.arg("update").env("RANO_UPDATE_URL", &site.url);
    expect(&command.output()?, 3, &["cannot write to", "sudo"])?;
    command.arg("--check");
    expect(&command.output()?, 0, &["rano 99.1.0 is there", "rano update would fail: cannot write to"])?;
    ensure!(installed.files()? == ["bin/rano"]);
    Ok(())
}

fn root_replaces_nothing_where_others_can_write() -> Result<()> {
    if !is_root() {
        return Err(skip("needs root"));
    }
    let site = Site::start(|path| honest("99.1.0", path))?;
    let installed = Installed::new(UID)?;
    let mut command = installed.command_as(installed.rano(), 0);
    command.arg("update").env("RANO_UPDATE_URL", &site.url);
    expect(&command.output()?, 1, &["can be written by others than root", "without sudo"])?;
    ensure!(installed.files()? == ["bin/rano"] && site.asked().is_empty());
    Ok(())
}

fn capabilities_are_kept() -> Result<()> {
    if !is_root() {
        return Err(skip("needs root"));
    }
    // cap_net_raw=ep, `struct vfs_cap_data` of revision 2.
    let capabilities: Vec<u8> =
        [0x0200_0001_u32, 1 << 13, 0, 0, 0].iter().flat_map(|word| word.to_le_bytes()).collect();
    let name = "security.capability";
    let site = Site::start(|path| honest("99.1.0", path))?;
    let installed = Installed::new(0)?;
    // Of its own, because the stage's is every test's.
    fs::remove_file(installed.rano())?;
    crate::support::program::copy(&crate::support::stage::rano()?, &installed.rano())?;
    let flags = rustix::fs::XattrFlags::empty();
    if let Err(error) = rustix::fs::setxattr(installed.rano(), name, &capabilities, flags) {
        return Err(skip(format!("no file capabilities here ({error})")));
    }
    expect(&installed.update(&site.url, &[])?, 0, &["rano 99.1.0 replaces"])?;
    let mut kept = [0; 64];
    let length = rustix::fs::getxattr(installed.rano(), name, &mut kept)?;
    ensure!(kept[..length] == capabilities, "{:?}", &kept[..length]);
    Ok(())
}

fn a_program_of_cargos_is_left_to_cargo() -> Result<()> {
    let site = Site::start(|path| honest("99.1.0", path))?;
    let installed = Installed::new(UID)?;
    let list = "[v1]\n\"rano 0.1.0 (path+file:///x)\" = [\"rano\"]\n";
    fs::write(installed.home().join(".crates.toml"), list)?;
    expect(&installed.update(&site.url, &[])?, 1, &["belongs to a package manager", "cargo install"])?;
    expect(&installed.update(&site.url, &["--check"])?, 0, &["99.1.0 is there", "cargo install"])?;
    ensure!(installed.files()? == [".crates.toml", "bin/rano"]);
    Ok(())
}
