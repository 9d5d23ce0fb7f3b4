//! `action.yml`: its steps, run one after the other with a stand-in of the runner's variables.

use std::collections::BTreeMap;
use std::fs;
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, ensure};

use crate::support::actor::{Actor, Service, Transport};
use crate::support::caller;
use crate::support::namespace::{Place, User};
use crate::support::rano::{Finished, Launch};
use crate::support::stage;

crate::tests![a_job_is_green_within_its_policy_and_red_outside, what_the_action_needs_is_told];

struct Job {
    place: Place,
    _server: Actor,
    to: SocketAddr,
    directory: tempfile::TempDir,
}

/// One step of the action: its id, its variables, its script.
#[derive(Debug, Default)]
struct Step {
    id: String,
    env: BTreeMap<String, String>,
    run: String,
}

fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// Defaults of the inputs, and the steps. It understands the YAML of this one file.
fn action() -> Result<(BTreeMap<String, String>, Vec<Step>)> {
    let text = fs::read_to_string(repository().join("action.yml"))?;
    let (inputs, rest) = text.split_once("\noutputs:").context("inputs stand before outputs")?;
    let (_, steps) = rest.split_once("  steps:\n").context("steps")?;
    let mut defaults = BTreeMap::new();
    let mut name = String::new();
    for line in inputs.lines() {
        match (line.strip_prefix("    "), line.strip_prefix("  ")) {
            (Some(key), _) if key.starts_with("default: ") => {
                let value = key.trim_start_matches("default: ").trim_matches('"');
                defaults.insert(name.clone(), value.to_owned());
            }
            (None, Some(key)) => key.trim_end_matches(':').clone_into(&mut name),
            _ => {}
        }
    }
    let mut found: Vec<Step> = Vec::new();
    for line in steps.lines() {
        let line = line.trim_start_matches(' ');
        if let Some(id) = line.strip_prefix("- id: ") {
            found.push(Step { id: id.to_owned(), ..Step::default() });
        } else if let (Some(step), Some((key, value))) = (found.last_mut(), line.split_once(": ")) {
            match key {
                "run" => value.clone_into(&mut step.run),
                "shell" => ensure!(value == "bash", "{line}"),
                _ => drop(step.env.insert(key.to_owned(), value.to_owned())),
            }
        }
    }
    ensure!(found.len() == 2 && found.iter().all(|step| !step.run.is_empty()), "{found:?}");
    Ok((defaults, found))
}

impl Job {
    fn new() -> Result<Self> {
        let place = Place::new(User::Ordinary)?;
        let mut server = Actor::start(&place, "server")?;
        let to = server.serve(Transport::Tcp, "127.0.0.1:0", Service::Drain)?;
        let job = Self { _server: server, to, directory: stage::directory(&place)?, place };
        for name in ["install.sh", "run.sh"] {
            job.file(&format!("action/{name}"), &fs::read(repository().join("action").join(name))?)?;
        }
        Ok(job)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn file(&self, name: &str, content: &[u8]) -> Result<()> {
        let path = self.path(name);
        fs::create_dir_all(path.parent().context("a directory")?)?;
        fs::write(&path, content)?;
        fs::set_permissions(&path, fs::Permissions::from_mode(0o644))?;
        let (uid, gid) = self.place.ids();
        Ok(std::os::unix::fs::chown(&path, Some(uid), Some(gid))?)
    }

    fn policy(&self, rules: &str) -> Result<()> {
        let head = "version = 1\n[defaults]\nignore_classes = []\nunnamed = \"fail\"\n";
        self.file("rano.lock.toml", format!("{head}{rules}").as_bytes())
    }

    /// All steps, as long as they succeed.
    fn steps(&self, inputs: &[(&str, &str)]) -> Result<Finished> {
        let (mut values, steps) = action()?;
        values.extend(inputs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())));
        let mut outputs: BTreeMap<String, String> = BTreeMap::new();
        let mut last = None;
        for step in steps {
            self.file("output", b"")?;
            let mut launch = Launch::of(Path::new("/bin/bash"), &self.place, self.directory.path())
                .args(["--noprofile", "--norc", "-eo", "pipefail", "-c", &step.run])
                .env(caller::MARKER, "1");
            for (variable, file) in [
                ("GITHUB_ACTION_PATH", ""),
                ("GITHUB_OUTPUT", "output"),
                ("GITHUB_STEP_SUMMARY", "summary.md"),
                ("RUNNER_TEMP", ""),
            ] {
                launch = launch.env(variable, self.path(file));
            }
            for (key, value) in &step.env {
                let name = value.trim_start_matches("${{ ").trim_end_matches(" }}");
                let value = match name.split_once('.') {
                    Some(("inputs", input)) => values.get(input).with_context(|| name.to_owned())?.clone(),
                    Some(("steps", output)) => outputs.get(output).with_context(|| name.to_owned())?.clone(),
                    _ => String::new(),
                };
                launch = launch.env(key, value);
            }
            let finished = launch.run()?;
            for line in fs::read_to_string(self.path("output"))?.lines() {
                let (name, value) = line.split_once('=').context("an output")?;
                outputs.insert(format!("{}.outputs.{name}", step.id), value.to_owned());
            }
            let succeeded = finished.status.success();
            last = Some(finished);
            if !succeeded {
                break;
            }
        }
        last.context("steps")
    }

    fn run(&self, script: &str) -> Result<Finished> {
        let rano = stage::rano()?.display().to_string();
        self.steps(&[("rano", &rano), ("run", script), ("sudo", "false")])
    }
}

fn a_job_is_green_within_its_policy_and_red_outside() -> Result<()> {
    let job = Job::new()?;
    let script = format!("{} connect {} 2", stage::actor("mycommand")?.display(), job.to);
    let fits = format!("[[allow]]\ncidr = \"127.0.0.1/32\"\nports = [{}]\n", job.to.port());
    job.policy(&fits)?;
    let green = job.run(&script)?;
    green.expect_code(0)?;
    ensure!(!green.stdout.contains("::error"), "{green:#?}");
    job.policy("")?;
    let red = job.run(&script)?;
    red.expect_code(1)?;
    ensure!(
        red.stdout.contains("::error file=rano.lock.toml,line=1,title=rano unnamed%3A 127.0.0.1"),
        "{red:#?}"
    );
    let summary = fs::read_to_string(job.path("summary.md"))?;
    ensure!(summary.contains("✅ rano: no findings") && summary.contains("| ❌ | unnamed |"), "{summary}");
    let sarif: serde_json::Value = serde_json::from_str(&fs::read_to_string(job.path("rano.sarif"))?)?;
    ensure!(sarif["runs"][0]["results"][0]["ruleId"] == "unnamed", "{sarif:#}");
    ensure!(fs::read_to_string(job.path("output"))?.contains("exit-code=1\n"));
    job.policy(&fits)?;
    job.run("exit 5")?.expect_code(5)?;
    Ok(())
}

fn what_the_action_needs_is_told() -> Result<()> {
    let job = Job::new()?;
    let missing = job.run("touch ran")?;
    missing.expect_code(3)?;
    ensure!(missing.stderr.contains("rano.lock.toml") && !job.path("ran").exists(), "{missing:#?}");
    let nowhere = job.steps(&[("rano", "/no/such/rano"), ("run", "true"), ("sudo", "false")])?;
    ensure!(!nowhere.status.success(), "{nowhere:#?}");
    Ok(())
}
