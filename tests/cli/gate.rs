//! `rano run --policy`: a command judged while it runs, as an ordinary user.

use std::ffi::OsStr;
use std::fs;
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use anyhow::{Context as _, Result, ensure};

use crate::support::actor::{Actor, Service, Transport};
use crate::support::caller;
use crate::support::database::Database;
use crate::support::dns::{self, Server, Zone};
use crate::support::namespace::{Place, User};
use crate::support::rano::{Launch, default_database};
use crate::support::{stage, wait_until};

crate::tests![
    the_code_is_the_commands_else_that_of_the_policy,
    a_bad_policy_is_told_before_the_command_runs,
    a_finding_is_told_when_it_happens,
    what_is_denied_ends_the_command_if_asked,
    a_policy_that_changes_meanwhile_is_a_finding,
    the_session_keeps_the_hash_and_can_be_checked_again,
    a_name_that_was_asked_for_satisfies_its_rule,
    what_polling_cannot_prove_is_told_at_once,
    a_baseline_of_the_run_makes_the_next_one_pass,
    what_was_left_out_never_passes,
];

struct Scene {
    place: Place,
    server: Actor,
    tcp: SocketAddr,
    directory: tempfile::TempDir,
}

/// Loopback is not ignored: it is all that the test has.
const HEAD: &str =
    "version = 1\n[require]\nsource = [\"ebpf\", \"seccomp\"]\n[defaults]\nignore_classes = []\n";

impl Scene {
    fn new(user: User) -> Result<Self> {
        let place = Place::new(user)?;
        let mut server = Actor::start(&place, "server")?;
        let tcp = server.serve(Transport::Tcp, "127.0.0.1:0", Service::Drain)?;
        let scene = Self { server, tcp, directory: stage::directory(&place)?, place };
        Ok(scene)
    }

    fn file(&self, name: &str) -> String {
        self.directory.path().join(name).display().to_string()
    }

    fn policy(&self, rules: &str) -> Result<()> {
        let path = self.file("rano.lock.toml");
        fs::write(&path, format!("{HEAD}{rules}"))?;
        fs::set_permissions(&path, fs::Permissions::from_mode(0o644))?;
        let (uid, gid) = self.place.ids();
        std::os::unix::fs::chown(&path, Some(uid), Some(gid)).context("give the policy to its user")
    }

    fn launch(&self, arguments: &[&str]) -> Result<Launch> {
        let launch = Launch::new(&self.place, self.directory.path())?;
        Ok(launch.env(caller::MARKER, "1").args(arguments))
    }

    /// By its calls, under the policy.
    fn run(&self, options: &[&str]) -> Result<Launch> {
        let always = ["run", "--source", "seccomp", "--policy", "rano.lock.toml"];
        Ok(self.launch(&always)?.args(options).args(["--"]))
    }

    fn part(&self, options: &[&str], part: &[&str]) -> Result<Launch> {
        let program = stage::actor("mycommand")?;
        let words = [program.as_os_str()].into_iter().chain(part.iter().map(OsStr::new));
        Ok(self.run(options)?.args(words))
    }

    fn to(&self) -> String {
        self.tcp.to_string()
    }
}

const ALLOW: &str = "[[allow]]\ncidr = \"127.0.0.1/32\"\n";
const DENY: &str = "[[deny]]\ncidr = \"127.0.0.1/32\"\n";

fn the_code_is_the_commands_else_that_of_the_policy() -> Result<()> {
    let scene = Scene::new(User::Ordinary)?;
    let connect = |options: &[&str]| scene.part(options, &["connect", &scene.to(), "3"])?.run();
    scene.policy(ALLOW)?;
    let fine = connect(&[])?;
    fine.expect_code(0)?;
    ensure!(fine.stderr.ends_with("\nno findings\n"), "{fine:#?}");
    ensure!(fine.stderr.contains("1 endpoint, 1 allowed; 3 connections, 0 ignored"), "{fine:#?}");
    scene.policy("")?;
    connect(&[])?.expect_code(0)?;
    let unnamed = connect(&["--fail-on", "unnamed", "--summary", "summary.md"])?;
    unnamed.expect_code(1)?;
    ensure!(unnamed.stderr.contains(&format!("✗ unnamed  {}", scene.to())), "{unnamed:#?}");
    ensure!(fs::read_to_string(scene.file("summary.md"))?.contains("| ❌ | unnamed |"));
    scene.policy(DENY)?;
    connect(&[])?.expect_code(1)?;
    let code = scene.run(&[])?.args(["sh", "-c", "exit 7"]).run()?;
    code.expect_code(7)?;
    let quiet = scene.run(&[])?.args(["true"]).run()?;
    quiet.expect_code(0)?;
    ensure!(quiet.stderr.contains("note: no connection was seen"), "{quiet:#?}");
    scene.launch(&["run", "--kill", "--", "true"])?.run()?.expect_code(2)?;
    Ok(())
}

fn a_bad_policy_is_told_before_the_command_runs() -> Result<()> {
    let scene = Scene::new(User::Ordinary)?;
    let refused = |code| -> Result<()> {
        let finished = scene.run(&[])?.args(["sh", "-c", "touch ran"]).run()?;
        finished.expect_code(code)?;
        ensure!(finished.stderr.contains("rano.lock.toml"), "{finished:#?}");
        ensure!(!Path::new(&scene.file("ran")).exists(), "the command ran");
        Ok(())
    };
    refused(3)?;
    scene.policy("[[allow]]\ndomain = \"*\"\n")?;
    refused(2)?;
    scene.policy(ALLOW)?;
    fs::set_permissions(scene.file("rano.lock.toml"), fs::Permissions::from_mode(0o666))?;
    refused(2)
}

fn a_finding_is_told_when_it_happens() -> Result<()> {
    let scene = Scene::new(User::Ordinary)?;
    scene.policy(DENY)?;
    let (begun, end) = (scene.file("begun"), scene.file("end"));
    let rano = scene.part(&[], &["until", &scene.to(), &begun, &end])?.start()?;
    rano.stderr.wait_for("the finding", |line| {
        line.starts_with("policy: denied: mycommand") && line.contains(&scene.to())
    })?;
    fs::write(&end, b"")?;
    let finished = rano.wait()?;
    finished.expect_code(1)?;
    ensure!(finished.stderr.matches("policy: denied:").count() == 1, "{finished:#?}");
    Ok(())
}

fn what_is_denied_ends_the_command_if_asked() -> Result<()> {
    let scene = Scene::new(User::Ordinary)?;
    scene.policy(DENY)?;
    let (begun, never) = (scene.file("begun"), scene.file("never"));
    let program = stage::actor("mycommand")?;
    let script = format!("{} until {} {begun} {never} & wait; true", program.display(), scene.to());
    let finished = scene.run(&["--kill", "--wait"])?.args(["sh", "-c", &script]).run()?;
    finished.expect_code(137)?;
    ensure!(finished.stderr.contains("killed the command and all that it started"), "{finished:#?}");
    ensure!(!finished.stderr.contains("still running"), "{finished:#?}");
    Ok(())
}

fn a_policy_that_changes_meanwhile_is_a_finding() -> Result<()> {
    let scene = Scene::new(User::Ordinary)?;
    scene.policy(ALLOW)?;
    let finished = scene.run(&[])?.args(["sh", "-c", "echo '# mine' >> rano.lock.toml"]).run()?;
    finished.expect_code(1)?;
    ensure!(finished.stderr.contains("the policy changed while the command ran"), "{finished:#?}");
    scene.policy(ALLOW)?;
    scene.run(&[])?.args(["sh", "-c", "rm rano.lock.toml"]).run()?.expect_code(1)?;
    Ok(())
}

fn the_session_keeps_the_hash_and_can_be_checked_again() -> Result<()> {
    let scene = Scene::new(User::Ordinary)?;
    scene.policy(ALLOW)?;
    scene.part(&[], &["connect", &scene.to(), "3"])?.run()?.expect_code(0)?;
    let database = Database::open(&default_database(scene.directory.path()))?;
    let kept = database.text("SELECT config_files FROM sessions")?;
    let hash = rano::internals::policy::sha256(&fs::read(scene.file("rano.lock.toml"))?);
    ensure!(kept.contains(&format!("rano.lock.toml (sha256 {hash})")), "{kept}");
    let check = |code| -> Result<()> {
        let finished =
            scene.launch(&["check", "rano.lock.toml", "--fail-on", "unnamed,incomplete"])?.run()?;
        finished.expect_code(code)?;
        Ok(())
    };
    check(0)?;
    scene.policy("")?;
    check(1)
}

fn a_name_that_was_asked_for_satisfies_its_rule() -> Result<()> {
    let mut scene = Scene::new(User::Root)?;
    let address = "127.0.0.7".parse()?;
    let names = ["api.example.test", "evil.example.test"];
    let zone = Zone { addresses: names.map(|name| (name, address)).into(), ..Zone::default() };
    let _dns = Server::start(&scene.place, zone)?;
    let at = scene.server.serve(Transport::Tcp, "127.0.0.7:0", Service::Drain)?;
    scene.policy("[[allow]]\ndomain = \"api.example.test\"\n")?;
    for (name, code) in [("api.example.test", 0), ("evil.example.test", 1)] {
        let launch = scene.part(&["--ptr-private"], &["named", &format!("{name}:{}", at.port())])?;
        let finished = dns::ask_here(launch, scene.directory.path())?.run()?;
        finished.expect_code(code)?;
        let is_told = finished.stderr.contains(&format!("✗ new-domain  {name}:{}", at.port()));
        ensure!(is_told == (code == 1), "{finished:#?}");
    }
    Ok(())
}

fn what_polling_cannot_prove_is_told_at_once() -> Result<()> {
    let scene = Scene::new(User::Ordinary)?;
    scene.policy("[[allow]]\ndomain = \"api.example.test\"\n")?;
    let (begun, end) = (scene.file("begun"), scene.file("end"));
    let program = stage::actor("mycommand")?;
    let launch = scene.launch(&["run", "--source", "proc", "--policy", "rano.lock.toml", "--"])?;
    let launch = launch.args([program.as_os_str()]).args(["until", &scene.to(), &begun, &end]);
    let rano = launch.start()?;
    rano.stderr.wait_for("the warning", |line| line.contains("which the policy does not accept"))?;
    rano.stderr.wait_for("the ways out", |line| line.contains("polling cannot learn names"))?;
    wait_until("the command connects", || Ok(Path::new(&begun).exists()))?;
    fs::write(&end, b"")?;
    rano.wait()?.expect_code(1)?;
    Ok(())
}

fn a_baseline_of_the_run_makes_the_next_one_pass() -> Result<()> {
    let scene = Scene::new(User::Ordinary)?;
    scene.policy("")?;
    let options = ["--fail-on", "unnamed,incomplete,new-class"];
    scene.part(&options, &["connect", &scene.to(), "3"])?.run()?.expect_code(1)?;
    scene.launch(&["baseline", "--update", "rano.lock.toml"])?.run()?.expect_code(0)?;
    scene.part(&options, &["connect", &scene.to(), "3"])?.run()?.expect_code(0)?;
    Ok(())
}

fn what_was_left_out_never_passes() -> Result<()> {
    let scene = Scene::new(User::Ordinary)?;
    scene.policy(ALLOW)?;
    for (option, words) in
        [("--exclude-pattern=mycommand", "left out by --exclude-pattern"), ("--no-udp", "udp was left out")]
    {
        let finished = scene.part(&[option], &["connect", &scene.to(), "3"])?.run()?;
        finished.expect_code(1)?;
        ensure!(finished.stderr.contains("✗ incomplete") && finished.stderr.contains(words), "{finished:#?}");
        // The history says the same afterwards.
        let check = scene.launch(&["check", "rano.lock.toml"])?.run()?;
        check.expect_code(1)?;
        ensure!(check.stdout.contains(words), "{check:#?}");
    }
    Ok(())
}
