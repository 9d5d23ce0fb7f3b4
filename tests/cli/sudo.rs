//! Under sudo the files belong to the invoking user and stay usable without it; as root no symbolic link is followed.

use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, chown};

use std::path::Path;

use anyhow::{Context as _, Result, ensure};

use crate::support::actor::Transport;
use crate::support::namespace::User;
use crate::support::rano::{Launch, Rano};
use crate::support::scene::{FAST, Scene};
use crate::support::stage;

crate::tests![
    files_made_under_sudo_belong_to_the_invoking_user,
    a_database_made_under_sudo_is_usable_without,
    root_follows_no_link_when_it_creates_a_file,
    root_sees_the_agents_of_every_user,
    a_configured_path_in_roots_directory_is_refused,
    a_path_on_the_command_line_may_be_roots_where_only_root_can_write,
    a_history_of_roots_is_not_read_for_the_configuration,
    each_thread_has_either_the_users_rights_or_no_path_of_his,
    a_user_who_can_reach_a_directory_by_his_group_can_under_sudo,
    polling_root_keeps_nothing_but_the_sight_of_others,
];

/// As sudo starts it for the user with uid and gid `id`.
fn sudo(launch: Launch, id: u32) -> Launch {
    let id = id.to_string();
    launch.env("SUDO_UID", id.as_str()).env("SUDO_GID", id.as_str()).env("SUDO_USER", "someone")
}

/// A run as root that has seen a connection of `claude`.
fn observe_once(scene: &Scene, launch: Launch, arguments: &[&str]) -> Result<Rano> {
    let mut claude = scene.agent("claude")?;
    let (_, tuple) = claude.connect(Transport::Tcp, scene.tcp)?;
    let rano = launch.args(FAST).args(arguments).start()?;
    rano.wait_for_event("connect", tuple)?;
    Ok(rano)
}

fn files_made_under_sudo_belong_to_the_invoking_user() -> Result<()> {
    let scene = Scene::new(User::Root)?;
    let arguments = ["--log-file", "events.log", "--log-dir", "logs"];
    let user = scene.place.with_user(User::Ordinary);
    let directory = stage::directory(&user)?;
    let launch = sudo(Launch::new(&scene.place, directory.path())?, user.uid());
    let rano = observe_once(&scene, launch, &arguments)?;
    // While it runs there are the write-ahead log and its index too.
    for entry in fs::read_dir(directory.path())? {
        let entry = entry?;
        let metadata = entry.metadata()?;
        ensure!((metadata.uid(), metadata.gid()) == user.ids(), "{}", entry.path().display());
    }
    rano.interrupt()?.expect_code(0)?;
    ensure!(fs::metadata(directory.path().join("observer.sqlite"))?.uid() == user.uid());
    Ok(())
}

fn a_database_made_under_sudo_is_usable_without() -> Result<()> {
    let scene = Scene::new(User::Root)?;
    let ordinary = scene.place.with_user(User::Ordinary);
    let directory = stage::directory(&ordinary)?;
    let launch = sudo(Launch::new(&scene.place, directory.path())?, ordinary.uid());
    observe_once(&scene, launch, &[])?.interrupt()?.expect_code(0)?;
    let again = ["--once", "--sqlite", "observer.sqlite"];
    Launch::new(&ordinary, directory.path())?.args(again).run()?.expect_code(0)?;
    let database = crate::support::database::Database::open(&directory.path().join("observer.sqlite"))?;
    ensure!(database.count("SELECT count(*) FROM sessions WHERE clean_exit = 1")? == 2);
    Ok(())
}

fn root_follows_no_link_when_it_creates_a_file() -> Result<()> {
    let scene = Scene::new(User::Root)?;
    for (flag, link) in [("--sqlite", "trap.sqlite"), ("--log-file", "trap.log")] {
        let victim = scene.directory().join(format!("victim-of-{link}"));
        std::os::unix::fs::symlink(&victim, scene.directory().join(link))?;
        let finished = scene.launch()?.args(["--once", flag, link]).run()?;
        finished.expect_code(3)?;
        ensure!(finished.stderr.contains(link), "{finished:#?}");
        ensure!(!victim.exists(), "{flag} followed the link");
    }
    Ok(())
}

fn root_sees_the_agents_of_every_user() -> Result<()> {
    let scene = Scene::new(User::Root)?;
    let ordinary = scene.place.with_user(User::Ordinary);
    let mut claude = crate::support::actor::Actor::start(&ordinary, "claude")?;
    let (_, tuple) = claude.connect(Transport::Tcp, scene.tcp)?;
    let rano = scene.launch()?.args(FAST).start()?;
    rano.wait_for_event("connect", tuple)?;
    rano.interrupt()?.expect_code(0)?;
    let rows = scene.database()?.events_of_pid(claude.pid())?;
    ensure!(rows.len() == 1 && rows[0].uid == Some(ordinary.uid()), "{rows:#?}");
    Ok(())
}

/// As `/etc/profile.d`, which everybody may enter and nobody but root may write.
fn a_configured_path_in_roots_directory_is_refused() -> Result<()> {
    let scene = Scene::new(User::Root)?;
    let user = scene.place.with_user(User::Ordinary);
    let (home, roots) = (stage::directory(&user)?, stage::directory(&scene.place)?);
    rustix::fs::chmod(roots.path(), rustix::fs::Mode::from_raw_mode(0o755))?;
    let victim = roots.path().join("victim");
    fs::write(&victim, "kept\n")?;
    let configuration = home.path().join(".config/rano");
    fs::create_dir_all(configuration.join("presets"))?;
    for (key, name) in [
        ("log_file", "new.sh"),
        ("log_file", "victim"),
        ("sqlite", "new.sqlite"),
        ("log_dir", "new"),
        ("log_dir", ""),
    ] {
        let line = format!("{key}={}\n", roots.path().join(name).display());
        for by_preset in [false, true] {
            let (config, preset) = if by_preset { ("", &*line) } else { (&*line, "") };
            fs::write(configuration.join("config.conf"), config)?;
            fs::write(configuration.join("presets/mine.conf"), preset)?;
            for source in ["proc", "auto"] {
                let launch = sudo(Launch::new(&scene.place, home.path())?, user.uid());
                let launch = launch.args(["--once", "--preset", "mine", "--source", source]);
                let finished = launch.run()?;
                finished.expect_code(3)?;
                ensure!(finished.stderr.to_lowercase().contains("permission denied"), "{finished:#?}");
                ensure!(
                    finished.stderr.contains("hint: what is not named on the command line"),
                    "{finished:#?}"
                );
                ensure!(fs::read_dir(roots.path())?.count() == 1, "{key} made {name}");
                ensure!(fs::read_to_string(&victim)? == "kept\n", "{key} wrote into it");
            }
        }
    }
    Ok(())
}

/// Not below the tests' own directories, which lie in one that all can write.
fn closed_directory() -> Result<tempfile::TempDir> {
    tempfile::tempdir_in("/root").context("a directory of root's")
}

fn a_path_on_the_command_line_may_be_roots_where_only_root_can_write() -> Result<()> {
    let scene = Scene::new(User::Root)?;
    let user = scene.place.with_user(User::Ordinary);
    let (home, closed) = (stage::directory(&user)?, closed_directory()?);
    let path = |name: &str| closed.path().join(name).display().to_string();
    let (database, log, logs) = (path("audit.sqlite"), path("audit.log"), path("logs"));
    let arguments = ["--sqlite", &database, "--log-file", &log, "--log-dir", &logs];
    let launch = sudo(Launch::new(&scene.place, home.path())?, user.uid());
    let rano = observe_once(&scene, launch, &arguments)?;
    for name in ["audit.sqlite", "audit.sqlite-wal", "audit.sqlite-shm", "audit.log", "logs"] {
        let metadata = fs::metadata(path(name)).context(name.to_owned())?;
        ensure!(metadata.uid() == 0, "{name}: {metadata:?}");
        ensure!([0o600, 0o700].contains(&(metadata.mode() & 0o777)), "{name}: {metadata:?}");
    }
    rano.interrupt()?.expect_code(0)?;
    for command in [&["report"][..], &["status"], &["export", "--format", "csv"]] {
        let launch = sudo(Launch::new(&scene.place, home.path())?, user.uid()).args(command);
        launch.args(["--sqlite", &database]).run()?.expect_code(0)?;
    }
    // Others can write where it lies.
    fs::set_permissions(closed.path(), fs::Permissions::from_mode(0o733))?;
    let launch = sudo(Launch::new(&scene.place, home.path())?, user.uid());
    let finished = launch.args(["--once", "--no-sqlite", "--log-file", &path("further.log")]).run()?;
    finished.expect_code(3)?;
    ensure!(!Path::new(&path("further.log")).exists());
    let said = finished.stderr.contains("others can write in a directory on its way");
    ensure!(said && finished.stderr.contains("\nhint: "), "{finished:#?}");
    Ok(())
}

fn a_history_of_roots_is_not_read_for_the_configuration() -> Result<()> {
    let scene = Scene::new(User::Root)?;
    let user = scene.place.with_user(User::Ordinary);
    let (home, closed) = (stage::directory(&user)?, closed_directory()?);
    let database = closed.path().join("roots.sqlite");
    let launch = Launch::new(&scene.place, home.path())?.args(["--once", "--sqlite"]);
    launch.args([&database]).run()?.expect_code(0)?;
    for command in [&["report"][..], &["status"], &["export", "--format", "csv"]] {
        let launch = sudo(Launch::new(&scene.place, home.path())?, user.uid()).args(command);
        let finished = launch.env("RANO_SQLITE", &database).run()?;
        finished.expect_code(3)?;
        ensure!(finished.stderr.contains("permission denied") && finished.stdout.is_empty(), "{finished:#?}");
    }
    // The file that remembers the last session is the user's, and so whatever the agent writes into it.
    let state = home.path().join(".local/state/rano");
    fs::create_dir_all(&state)?;
    let entry =
        serde_json::json!({ "run_id": "1-1\u{1b}[2J", "pid": 1, "start_time": 1, "database": database });
    fs::write(state.join("last"), entry.to_string())?;
    for path in
        [state.join("last"), state.clone(), home.path().join(".local/state"), home.path().join(".local")]
    {
        chown(&path, Some(user.uid()), Some(user.uid()))?;
    }
    for command in [&["report"][..], &["sessions"], &["export", "--format", "csv"]] {
        let launch = sudo(Launch::new(&scene.place, home.path())?, user.uid()).args(command);
        let finished = launch.env("SUDO_HOME", home.path()).run()?;
        finished.expect_code(3)?;
        let said =
            finished.stderr.contains("(the last session;") && finished.stderr.contains("permission denied");
        ensure!(said && finished.stdout.is_empty(), "{finished:#?}");
    }
    Ok(())
}

/// Name, file system uid and permitted capabilities of each thread.
fn threads(rano: &Rano) -> Result<Vec<(String, u32, u64)>> {
    let tasks = fs::read_dir(format!("/proc/{}/task", rano.pid()))?;
    tasks
        .map(|task| {
            let status = fs::read_to_string(task?.path().join("status"))?;
            let line = |key: &str| {
                let line = status.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(":\t"));
                line.with_context(|| format!("no {key}"))
            };
            let uid = line("Uid")?.rsplit('\t').next().context("four ids")?.parse()?;
            Ok((line("Name")?.to_owned(), uid, u64::from_str_radix(line("CapPrm")?, 16)?))
        })
        .collect()
}

/// `CAP_SYS_PTRACE` and `CAP_DAC_READ_SEARCH`.
const SIGHT: u64 = 1 << 19 | 1 << 2;

fn each_thread_has_either_the_users_rights_or_no_path_of_his() -> Result<()> {
    let scene = Scene::new(User::Root)?;
    let user = scene.place.with_user(User::Ordinary);
    let home = stage::directory(&user)?;
    let launch = sudo(Launch::new(&scene.place, home.path())?, user.uid());
    let rano = observe_once(&scene, launch, &["--source", "proc", "--log-file", "events.log"])?;
    let threads = threads(&rano)?;
    let of = |name: &str| threads.iter().find(|thread| thread.0 == name).map(|thread| (thread.1, thread.2));
    ensure!(of("rano") == Some((0, SIGHT)), "{threads:?}");
    for name in ["rano-files", "rano-store"] {
        ensure!(of(name) == Some((user.uid(), 0)), "{name}: {threads:?}");
    }
    ensure!(threads.iter().all(|(name, _, left)| *left == allowed(name)), "{threads:?}");
    // With ids of root's he cannot end it.
    let status = fs::read_to_string(format!("/proc/{}/status", rano.pid()))?;
    ensure!(status.contains("Uid:\t0\t0\t0\t"), "{status}");
    rano.interrupt()?.expect_code(0)?;
    Ok(())
}

/// What a thread of polling root may have: two read what others' processes are and hold.
fn allowed(thread: &str) -> u64 {
    if ["rano", "young"].contains(&thread) { SIGHT } else { 0 }
}

/// Of the group database nothing is known of the tests' users: the group is sudo's.
fn a_user_who_can_reach_a_directory_by_his_group_can_under_sudo() -> Result<()> {
    let scene = Scene::new(User::Root)?;
    let user = scene.place.with_user(User::Ordinary);
    let (home, shared) = (stage::directory(&user)?, stage::directory(&scene.place)?);
    chown(shared.path(), None, Some(user.uid()))?;
    fs::set_permissions(shared.path(), fs::Permissions::from_mode(0o770))?;
    let log = shared.path().join("events.log");
    let launch = sudo(Launch::new(&scene.place, home.path())?, user.uid());
    launch.env("RANO_LOG_FILE", &log).args(["--once", "--no-sqlite"]).run()?.expect_code(0)?;
    ensure!(fs::metadata(&log)?.uid() == user.uid());
    Ok(())
}

fn polling_root_keeps_nothing_but_the_sight_of_others() -> Result<()> {
    let scene = Scene::new(User::Root)?;
    let rano = observe_once(&scene, scene.launch()?, &["--source", "proc", "--log-file", "events.log"])?;
    let threads = threads(&rano)?;
    for (name, uid, left) in &threads {
        ensure!((*uid, *left) == (0, allowed(name)), "{name}: {threads:?}");
    }
    ensure!(threads.iter().any(|(name, ..)| name == "rano-store"), "{threads:?}");
    rano.interrupt()?.expect_code(0)?;
    Ok(())
}
