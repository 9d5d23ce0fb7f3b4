//! Tool calls of an agent, as a test of either source plays them: who did what, and for whom.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Instant;

use anyhow::{Context as _, Result, ensure};

use super::PATIENCE;
use super::actor::{Actor, Transport};
use super::database::Database;
use super::program;
use super::scene::Scene;
use super::trial::skip;

const SESSION: &str = "5c0f7f2e-session";
const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
const SPAN: &str = "00f067aa0ba902b7";

/// What is asked of a row, with `-` for what is absent.
const ASKED: &str = "SELECT ifnull(agent, '-') || ' ' || ifnull(agent_pid, '-') || ' ' || ifnull(agent_session, '-') || ' '
     || program || ' ' || ifnull(cwd, '-') || ' ' || ifnull(tool_pid, '-') || ' ' || ifnull(trace_id, '-') || ' '
     || ifnull(span_id, '-') FROM events WHERE event = 'connect'";

/// An agent, its tool call, and what that started: each has its row, live and afterwards.
pub fn every_row_says_on_which_tool_call(scene: &mut Scene, source: &str) -> Result<()> {
    let rano = scene.observe(&["--source", source])?;
    let mut claude = Actor::start_prepared(&scene.place, "claude", &[], |command| {
        command.env("CLAUDE_CODE_SESSION_ID", SESSION).env("TRACEPARENT", format!("00-{TRACE}-{SPAN}-01"));
    })?;
    let (_, own) = claude.connect(Transport::Tcp, scene.tcp)?;
    rano.wait_for_event("connect", own)?;
    let tool = claude.spawn_with(
        &claude.myself(),
        "make",
        &["check", "--api-key", "sk-ant-0123456789abcdef0123"],
    )?;
    let child = claude.spawn(&tool, "fetch")?;
    let (_, of_child) = claude.connect_in(&child, Transport::Tcp, scene.tcp)?;
    let line = rano.wait_for_event("connect", of_child)?;
    ensure!(line.contains(&format!("claude({})", claude.pid())), "the agent is not in the line: {line}");
    // What the tool's process runs now is another program, of the same call.
    claude.exec(&tool, "curl")?;
    let (_, of_tool) = claude.connect_in(&tool, Transport::Tcp, scene.tcp)?;
    rano.wait_for_event("connect", of_tool)?;
    rano.interrupt()?.expect_code(0)?;

    let database = scene.database()?;
    let row =
        |pid: u32| database.text(&format!("{ASKED} AND pid = {pid} AND remote_port = {}", scene.tcp.port()));
    let agent = format!("claude {} {SESSION}", claude.pid());
    let trace = format!("{TRACE} {SPAN}");
    ensure!(row(claude.pid())? == format!("{agent} claude / - {trace}"), "{}", row(claude.pid())?);
    ensure!(row(child.pid)? == format!("{agent} fetch / {} {trace}", tool.pid), "{}", row(child.pid)?);
    ensure!(row(tool.pid)? == format!("{agent} curl / {} {trace}", tool.pid), "{}", row(tool.pid)?);
    let calls =
        database.count("SELECT count(DISTINCT tool || tool_started) FROM events WHERE agent = 'claude'")?;
    ensure!(calls == 1, "{calls} tool calls");
    let call = database.text("SELECT DISTINCT tool FROM events WHERE tool IS NOT NULL")?;
    ensure!(call.contains("make check --api-key ") && !call.contains("0123456789abcdef"), "{call}");
    by_tool(scene, &database, claude.pid(), tool.pid)
}

/// `rano report --by tool` and `--by agent` say the same.
fn by_tool(scene: &Scene, database: &Database, agent: u32, tool: u32) -> Result<()> {
    let report = |by: &str| -> Result<serde_json::Value> {
        let finished = scene.launch()?.args(["report", "--by", by, "--top", "100000", "--json"]).run()?;
        finished.expect_code(0)?;
        Ok(serde_json::from_str(&finished.stdout)?)
    };
    let tools = report("tool")?;
    let row = tools["tools"].as_array().and_then(|rows| rows.iter().find(|row| row["tool_pid"] == tool));
    let row = row.with_context(|| format!("no row of the tool call: {tools}"))?;
    ensure!(row["agent"] == "claude" && row["agent_pid"] == agent && row["connects"] == 2, "{row}");
    ensure!(row["agent_session"] == SESSION, "{row}");
    let started = database.text("SELECT DISTINCT tool_started FROM events WHERE tool IS NOT NULL")?;
    ensure!(row["tool_started"] == started.as_str(), "{row} {started}");
    let agents = report("agent")?;
    let row = agents["agents"].as_array().and_then(|rows| rows.iter().find(|row| row["agent_pid"] == agent));
    let row = row.with_context(|| format!("no row of the agent: {agents}"))?;
    ensure!(row["connects"] == 3 && row["tool_calls"] == 1, "{row}");
    Ok(())
}

/// A shell under an agent's name that runs `bash -c` in the background, which starts another process and ends. That
/// one connects when it is told to.
struct Shell {
    process: Child,
    directory: PathBuf,
}

impl Shell {
    fn start(scene: &Scene, to: SocketAddr) -> Result<Self> {
        let directory = scene.directory().to_owned();
        let agent = directory.join("codex");
        if !Path::new("/bin/bash").exists() {
            return Err(skip("bash is not installed"));
        }
        program::copy(Path::new("/bin/bash"), &agent)?;
        for name in ["leave", "go", "end"] {
            let path = directory.join(name);
            let mode = rustix::fs::Mode::from_bits_truncate(0o666);
            rustix::fs::mknodat(rustix::fs::CWD, &path, rustix::fs::FileType::Fifo, mode, 0)?;
            fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o666))?;
        }
        let script = format!(
            "cd {0}; CODEX_THREAD_ID=thread-7 bash -c '(read x <go; exec 3<>/dev/tcp/{1}/{2}; echo $BASHPID >connected; \
             read y <end; :) & echo $! >child; read z <leave; :' & echo $! >tool; wait",
            directory.display(),
            to.ip(),
            to.port()
        );
        let mut command = Command::new(&agent);
        command.args(["-c", &script]).env_clear().env("PATH", "/usr/bin:/bin").current_dir("/");
        command.stdin(Stdio::null());
        scene.place.apply(&mut command);
        Ok(Self { process: command.spawn().context("start the shell")?, directory })
    }

    /// A pid that the script wrote.
    fn pid(&self, file: &str) -> Result<u32> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            // It may be there and still empty.
            let text = fs::read_to_string(self.directory.join(file)).unwrap_or_default();
            if let Ok(pid) = text.trim().parse() {
                return Ok(pid);
            }
            ensure!(Instant::now() < deadline, "the shell does not write {file}");
            std::thread::yield_now();
        }
    }

    fn tell(&self, fifo: &str) -> Result<()> {
        fs::write(self.directory.join(fifo), "x\n").context("tell the shell")
    }
}

impl Drop for Shell {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// The process that the agent started is gone before its child connects.
pub fn a_tool_call_that_is_gone_is_kept(scene: &mut Scene, source: &str) -> Result<()> {
    let rano = scene.observe(&["--source", source])?;
    let shell = Shell::start(scene, scene.tcp)?;
    let (tool, child) = (shell.pid("tool")?, shell.pid("child")?);
    scene.let_it_look(&rano)?;
    shell.tell("leave")?;
    let deadline = Instant::now() + PATIENCE;
    while Path::new(&format!("/proc/{tool}/exe")).read_link().is_ok() {
        ensure!(Instant::now() < deadline, "the tool does not end");
        std::thread::yield_now();
    }
    scene.let_it_look(&rano)?;
    shell.tell("go")?;
    shell.pid("connected")?;
    scene.let_it_look(&rano)?;
    shell.tell("end")?;
    rano.interrupt()?.expect_code(0)?;
    let database = scene.database()?;
    let asked = format!("{ASKED} AND pid = {child}");
    let (agent, directory) = (shell.process.id(), shell.directory.display());
    let expected = format!("codex {agent} thread-7 bash {directory} {tool} - -");
    ensure!(database.text(&asked)? == expected, "{} is not {expected}", database.text(&asked)?);
    let call = database.text(&format!("SELECT tool FROM events WHERE pid = {child}"))?;
    ensure!(call.starts_with("bash -c (read x"), "{call}");
    Ok(())
}
