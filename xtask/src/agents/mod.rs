//! Real agents from their packages, in a closed network, with rano beside them: does each row say whose it is? As root.
//! No part of the gate: the packages are large, and change.

mod world;

use std::ffi::OsString;
use std::fs;
use std::io::{BufRead as _, BufReader};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitCode, Stdio};

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::Value;

use crate::cargo;
use world::{World, done};

pub(crate) const USAGE: &str = "\
usage: cargo xtask agents [--rano FILE] [--keep] [NAME]...
  --rano FILE   this one, and not a fresh build
  --keep        leave the databases and what the agents printed where they are
  NAME          claude, codex, gemini, qwen, opencode; all unless one is named";

/// What every agent is told to run: a program that connects, in a shell.
const TOOL_HOST: &str = "tools.example";
const TOOL: &str = "curl -s -o /dev/null http://tools.example/of-the-tool-call";
const PROMPT: &str = "Run the command.";
/// Seconds until an agent is ended.
const PATIENCE: &str = "90";

/// An agent, and how it is made to run one command without asking.
struct Agent {
    name: &'static str,
    provider: &'static str,
    package: &'static str,
    /// What the package's installation runs, in its directory.
    install: &'static [&'static str],
    command: &'static [&'static str],
    variables: &'static [(&'static str, &'static str)],
    /// In its home.
    files: &'static [(&'static str, &'static str)],
    /// Where its model answers.
    model: &'static str,
}

const AGENTS: [Agent; 5] = [
    Agent {
        name: "claude",
        provider: "anthropic",
        package: "@anthropic-ai/claude-code",
        install: &["node", "install.cjs"],
        command: &["claude", "-p", PROMPT, "--dangerously-skip-permissions"],
        variables: &[("ANTHROPIC_API_KEY", "sk-ant-none")],
        files: &[],
        model: "api.anthropic.com",
    },
    Agent {
        name: "codex",
        provider: "openai",
        package: "@openai/codex",
        install: &[],
        command: &["codex", "exec", "--skip-git-repo-check", "--sandbox", "danger-full-access", PROMPT],
        variables: &[],
        files: &[(".codex/auth.json", "{\"OPENAI_API_KEY\":\"sk-none\",\"auth_mode\":\"apikey\"}")],
        model: "api.openai.com",
    },
    Agent {
        name: "gemini",
        provider: "google",
        package: "@google/gemini-cli",
        install: &[],
        command: &["gemini", "--yolo", "-p", PROMPT],
        variables: &[("GEMINI_API_KEY", "none"), ("GEMINI_CLI_TRUST_WORKSPACE", "true")],
        files: &[],
        model: "generativelanguage.googleapis.com",
    },
    Agent {
        name: "qwen",
        provider: "alibaba",
        package: "@qwen-code/qwen-code",
        install: &[],
        command: &["qwen", "--yolo", "-p", PROMPT],
        variables: &[
            ("OPENAI_API_KEY", "sk-none"),
            ("OPENAI_BASE_URL", "https://dashscope.aliyuncs.com/compatible-mode/v1"),
            ("OPENAI_MODEL", "qwen3-coder-plus"),
        ],
        files: &[],
        model: "dashscope.aliyuncs.com",
    },
    Agent {
        name: "opencode",
        provider: "opencode",
        package: "opencode-ai",
        install: &["node", "postinstall.mjs"],
        command: &["opencode", "run", "-m", "anthropic/claude-sonnet-4-5", PROMPT],
        variables: &[("ANTHROPIC_API_KEY", "sk-ant-none")],
        files: &[],
        model: "api.anthropic.com",
    },
];

/// How rano watches.
#[derive(Debug, Clone, Copy)]
enum Way {
    /// As root, with eBPF, from outside of the namespace.
    Beside,
    /// `rano run`, as the agent's user.
    Around,
}

pub(crate) fn run(arguments: &[OsString]) -> Result<ExitCode> {
    let mut names = Vec::new();
    let (mut rano, mut keep) = (None, false);
    let mut arguments = arguments.iter().map(|argument| argument.to_string_lossy().into_owned());
    while let Some(argument) = arguments.next() {
        match argument.as_str() {
            "--rano" => rano = Some(PathBuf::from(arguments.next().context(USAGE)?)),
            "--keep" => keep = true,
            name if AGENTS.iter().any(|agent| agent.name == name) => names.push(argument),
            _ => bail!("{USAGE}"),
        }
    }
    ensure!(rustix::process::geteuid().is_root(), "this takes root: namespaces, eBPF");
    let rano = match rano {
        Some(rano) => rano.canonicalize().with_context(|| format!("find {}", rano.display()))?,
        None => cargo::build_rano(cargo::RELEASE)?,
    };
    let chosen: Vec<&Agent> = AGENTS
        .iter()
        .filter(|agent| names.is_empty() || names.iter().any(|name| name == agent.name))
        .collect();
    let modules = install(&chosen)?;
    // Not below /tmp, which some agents refuse as a home.
    let directory =
        tempfile::Builder::new().prefix("rano-agents-").disable_cleanup(keep).tempdir_in("/var/tmp")?;
    fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o755))?;
    let program = directory.path().join("rano");
    fs::copy(&rano, &program).context("copy rano")?;
    let mut hosts: Vec<&str> = AGENTS.iter().map(|agent| agent.model).chain([TOOL_HOST]).collect();
    hosts.sort_unstable();
    hosts.dedup();
    let world = World::make(directory.path(), &hosts, TOOL)?;
    let mut faults = 0;
    for agent in chosen {
        for way in [Way::Beside, Way::Around] {
            let play = Play { agent, way, world: &world, rano: &program, modules: &modules };
            let found = play.run().with_context(|| format!("{} {way:?}", agent.name))?;
            faults += found.len();
            println!(
                "{:<10} {way:<8?} {}",
                agent.name,
                if found.is_empty() { "right".into() } else { found.join("; ") }
            );
        }
    }
    if keep {
        println!("kept: {}", directory.path().display());
    }
    println!("{faults} faults");
    Ok(if faults == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// The directory of the packages' programs. What is there is not fetched again.
fn install(agents: &[&Agent]) -> Result<PathBuf> {
    let directory = cargo::target_directory().join("tools/agents");
    fs::create_dir_all(&directory)?;
    for agent in agents {
        let package = directory.join("node_modules").join(agent.package);
        if package.join("package.json").exists() {
            continue;
        }
        println!("fetching {}", agent.package);
        let quiet = ["--no-audit", "--no-fund", "--ignore-scripts", "--silent"];
        done(
            Command::new("npm").arg("install").args(quiet).arg("--prefix").arg(&directory).arg(agent.package),
        )?;
        if let [program, arguments @ ..] = agent.install {
            // It has nothing to fetch: npm did.
            let mut command = Command::new("unshare");
            command.args(["--net", program]).args(arguments).current_dir(&package);
            done(command.stdout(Stdio::null()))?;
        }
    }
    Ok(directory.join("node_modules/.bin"))
}

struct Play<'a> {
    agent: &'a Agent,
    way: Way,
    world: &'a World,
    rano: &'a Path,
    modules: &'a Path,
}

impl Play<'_> {
    /// What is wrong with the rows.
    fn run(&self) -> Result<Vec<String>> {
        let home = self.world.directory.join(format!("{}-{:?}", self.agent.name, self.way).to_lowercase());
        fs::create_dir(&home)?;
        for (path, text) in self.agent.files {
            let path = home.join(path);
            fs::create_dir_all(path.parent().unwrap_or(&home))?;
            fs::write(path, text)?;
        }
        done(Command::new("chown").args(["-R", "nobody:nogroup"]).arg(&home))?;
        let database =
            self.world.directory.join(format!("{}.sqlite", home.file_name().unwrap_or_default().display()));
        let database = if matches!(self.way, Way::Around) { home.join("history.sqlite") } else { database };
        let printed =
            fs::File::create(self.world.directory.join(format!("{}-{:?}.log", self.agent.name, self.way)))?;
        let beside = match self.way {
            Way::Beside => Some(self.beside(&database)?),
            Way::Around => None,
        };
        let path =
            format!("{}:/usr/local/sbin:/usr/local/bin:/usr/bin:/bin:{}", self.modules.display(), node()?);
        let mut command = self.world.as_user(&home, self.agent.variables, &path);
        command.args(["timeout", PATIENCE]);
        if beside.is_none() {
            command.arg(self.rano).args(["run", "--no-config", "--sqlite"]).arg(&database).arg("--");
        }
        command.args(self.agent.command).stdin(Stdio::null());
        command.stdout(printed.try_clone()?).stderr(printed);
        let status = command.status().context("run the agent")?;
        if let Some(mut rano) = beside {
            rustix::process::kill_process(
                rustix::process::Pid::from_child(&rano),
                rustix::process::Signal::INT,
            )?;
            ensure!(rano.wait()?.success(), "rano failed");
        }
        let mut faults = self.judge(&rows(&database, world::namespace()?)?);
        if !status.success() {
            faults.insert(0, format!("the agent ended with {status}"));
        }
        Ok(faults)
    }

    /// Returns once it watches.
    fn beside(&self, database: &Path) -> Result<Child> {
        let mut command = Command::new(self.rano);
        command.args(["--no-config", "--source", "ebpf", "--sqlite"]).arg(database);
        let mut child = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().context("start rano")?;
        let mut lines = BufReader::new(child.stderr.take().context("standard error was piped")?).lines();
        let watches = lines.by_ref().any(|line| line.is_ok_and(|line| line == "watching"));
        ensure!(watches, "rano did not begin to watch");
        // What it says later is not of interest, but must find a reader.
        std::thread::spawn(move || lines.count());
        Ok(child)
    }

    fn judge(&self, rows: &[Value]) -> Vec<String> {
        let text = |row: &Value, key: &str| row[key].as_str().unwrap_or_default().to_owned();
        let mut faults = Vec::new();
        let model = rows.iter().find(|row| text(row, "domain") == self.agent.model);
        match model {
            None => faults.push(format!("no connection to {}", self.agent.model)),
            Some(row) => {
                if text(row, "endpoint_type") != "llm_api" {
                    faults.push(format!("{} is {}", self.agent.model, text(row, "endpoint_type")));
                }
                if !row["tool"].is_null() {
                    faults.push(format!("the model was asked by a tool call: {}", text(row, "tool")));
                }
            }
        }
        let tool = rows.iter().find(|row| text(row, "program") == "curl");
        match tool {
            None => faults.push("no connection of the tool call".to_owned()),
            Some(row) => {
                if text(row, "domain") != TOOL_HOST {
                    faults.push(format!("the tool call's name is '{}'", text(row, "domain")));
                }
                if !text(row, "tool").contains("of-the-tool-call") {
                    faults.push(format!("the tool call is '{}'", text(row, "tool")));
                }
            }
        }
        for row in rows {
            let who = (text(row, "agent"), text(row, "provider"));
            if who != (self.agent.name.to_owned(), self.agent.provider.to_owned()) {
                faults.push(format!(
                    "{} {} is of {} ({})",
                    text(row, "program"),
                    text(row, "domain"),
                    who.0,
                    who.1
                ));
            }
            if text(row, "program").contains("MainThread") {
                faults.push("a program is called MainThread".to_owned());
            }
        }
        faults.sort();
        faults.dedup();
        faults
    }
}

/// Connects and failures in this network namespace, but for look-ups: other agents may be at work on this machine.
fn rows(database: &Path, netns: u64) -> Result<Vec<Value>> {
    let query = format!(
        "SELECT event, program, comm, agent, provider, tool, domain, domain_source, endpoint_type, remote_ip, \
         remote_port FROM events WHERE event IN ('connect', 'fail') AND proto <> 'unix' AND remote_port <> 53 \
         AND netns = {netns}"
    );
    let output =
        Command::new("sqlite3").args(["-readonly", "-safe", "-json"]).arg(database).arg(query).output()?;
    ensure!(output.status.success(), "sqlite3: {}", String::from_utf8_lossy(&output.stderr));
    if output.stdout.is_empty() {
        return Ok(Vec::new());
    }
    serde_json::from_slice(&output.stdout).context("read what sqlite3 printed")
}

/// The directory of node, which need not be where the system's programs are.
fn node() -> Result<String> {
    let node = crate::system::find_in_path("node").context("node is not installed")?;
    Ok(node.parent().map(|directory| directory.display().to_string()).unwrap_or_default())
}
