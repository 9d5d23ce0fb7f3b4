//! `rano service`, as far as it goes without systemd: into a directory that stands for `/`.

use std::fs;
use std::os::unix::fs::MetadataExt as _;

use anyhow::{Result, ensure};

use crate::support::namespace::{Place, User};
use crate::support::rano::Launch;
use crate::support::stage;

crate::tests![
    it_is_installed_and_removed_and_the_history_stays,
    only_root_installs_it,
    root_does_not_run_as_a_service_what_others_can_change,
];

fn it_is_installed_and_removed_and_the_history_stays() -> Result<()> {
    let place = Place::new(User::Root)?;
    let root = stage::directory(&place)?;
    let path = |relative: &str| root.path().join(relative);
    let at = root.path().display().to_string();
    let run = |word: &str| Launch::new(&place, root.path())?.args(["service", word, "--root", &at]).run();
    let before = run("status")?;
    before.expect_code(1)?;
    ensure!(before.stdout.contains("not installed"), "{}", before.stdout);
    let installed = run("install")?;
    installed.expect_code(0)?;
    ensure!(installed.stdout.contains("not run (--root is not this system)"), "{}", installed.stdout);
    let unit = fs::read_to_string(path("etc/systemd/system/rano.service"))?;
    ensure!(unit.contains(" --sqlite /var/lib/rano/observer.sqlite ") && !unit.contains("@RANO@"), "{unit}");
    ensure!(!unit.contains("@DATABASE@") && !unit.contains("@OPTIONS@"), "{unit}");
    let mode = |relative: &str| Ok::<_, std::io::Error>(fs::metadata(path(relative))?.mode() & 0o7777);
    ensure!(mode("var/lib/rano")? == 0o750 && mode("var/lib/rano/observer.sqlite")? == 0o640);
    // Once more: nothing is lost.
    fs::write(path("var/lib/rano/observer.sqlite"), "history")?;
    run("install")?.expect_code(0)?;
    let removed = run("uninstall")?;
    removed.expect_code(0)?;
    ensure!(removed.stdout.contains("the history stays in"), "{}", removed.stdout);
    ensure!(!path("etc/systemd/system/rano.service").exists());
    ensure!(fs::read(path("var/lib/rano/observer.sqlite"))? == b"history");
    Ok(())
}

fn only_root_installs_it() -> Result<()> {
    let place = Place::new(User::Ordinary)?;
    let directory = stage::directory(&place)?;
    for word in ["install", "uninstall"] {
        let finished = Launch::new(&place, directory.path())?.args(["service", word]).run()?;
        finished.expect_code(4)?;
        ensure!(finished.stderr.contains("sudo"), "{}", finished.stderr);
    }
    Ok(())
}

/// The program of the tests lies below a directory of everybody's.
fn root_does_not_run_as_a_service_what_others_can_change() -> Result<()> {
    let place = Place::new(User::Root)?;
    let directory = stage::directory(&place)?;
    let finished = Launch::new(&place, directory.path())?.args(["service", "install"]).run()?;
    finished.expect_code(1)?;
    ensure!(finished.stderr.contains("the service would run it as root"), "{}", finished.stderr);
    Ok(())
}
