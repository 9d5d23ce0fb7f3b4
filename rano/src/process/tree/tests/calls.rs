//! For whom a process runs.

use super::*;
use crate::process::{Marks, Surroundings, Trace};

/// `agent(pid) session › tool(pid)`, `-` for what is absent.
fn call(tree: &mut Tree, pid: u32) -> String {
    let process = tree.process(id(pid)).expect("known");
    let Some(call) = &process.call else { return "-".to_owned() };
    let session = call.session.as_deref().unwrap_or("-");
    let tool = call.tool.as_ref().map_or_else(|| "-".to_owned(), |t| format!("{}({})", t.cmdline, t.id.pid));
    format!("{}({}) {session} › {tool}", call.agent, call.agent_id.pid)
}

fn surrounded(tree: &mut Tree, pid: u32, cwd: Option<&str>, sessions: &[(&str, &str)], traced: bool) {
    let trace = traced.then(|| Trace { trace_id: "4".repeat(32), span_id: "0".repeat(15) + "7" });
    let sessions = sessions.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    let marks = Some(Marks { trace, sessions });
    let surroundings = Surroundings { cwd: cwd.map(str::to_owned), marks };
    tree.apply(ProcessChange::Surroundings { id: id(pid), surroundings });
}

#[test]
fn what_an_agent_starts_is_a_tool_call_with_all_below_it() {
    let mut tree = tree(Targets::default());
    see(&mut tree, 20, 1, "claude --continue");
    forked(&mut tree, 21, 20, 20, "claude --continue");
    assert_eq!(call(&mut tree, 21), "claude(20) - › -", "it runs what the agent runs");
    executed(&mut tree, 21, "bash -c make");
    see(&mut tree, 22, 21, "make");
    forked(&mut tree, 23, 22, 22, "make");
    executed(&mut tree, 23, "curl x");
    assert_eq!(call(&mut tree, 20), "claude(20) - › -");
    for pid in [21, 22, 23] {
        assert_eq!(call(&mut tree, pid), "claude(20) - › bash -c make(21)");
    }
    // The shell runs its last command in its own place: it is the same call.
    executed(&mut tree, 21, "wget y");
    assert_eq!(call(&mut tree, 21), "claude(20) - › bash -c make(21)");
    // A preparation in front of the command is none, nor is a script.
    see(&mut tree, 40, 20, "/proc/self/exe --setup bash -c x");
    executed(&mut tree, 40, "/usr/bin/bash -c export A=1; exec bash -lc make");
    executed(&mut tree, 40, "bash -lc make");
    executed(&mut tree, 40, "bash install.sh");
    executed(&mut tree, 40, "curl -c x");
    assert_eq!(call(&mut tree, 40), "claude(20) - › bash -lc make(40)");
    tree.apply(gone(21));
    see(&mut tree, 24, 22, "curl z");
    assert_eq!(call(&mut tree, 24), "claude(20) - › bash -c make(21)", "it is gone");
    see(&mut tree, 30, 20, "git fetch");
    assert_eq!(call(&mut tree, 30), "claude(20) - › git fetch(30)", "another one");
}

#[test]
fn wrappers_and_helpers_of_an_agent_are_the_agent() {
    let mut tree = tree(Targets::default());
    see(&mut tree, 20, 1, "node /usr/bin/codex exec");
    see(&mut tree, 21, 20, "codex exec");
    assert_eq!(call(&mut tree, 21), "codex(20) - › -");
    see(&mut tree, 22, 21, "bash -lc x");
    assert_eq!(call(&mut tree, 22), "codex(20) - › bash -lc x(22)");
    // As a sandbox it runs itself under another name, and then the command.
    let argv = vec!["codex-linux-sandbox".to_owned(), "bash".to_owned()];
    let sandbox = Image { argv, ..image("codex") };
    tree.apply(told(id(23), 21, sandbox.clone(), Birth::default(), Occasion::Found));
    assert_eq!(call(&mut tree, 23), "codex(20) - › -");
    executed(&mut tree, 23, "bash -lc y");
    assert_eq!(call(&mut tree, 23), "codex(20) - › bash -lc y(23)");
    see(&mut tree, 24, 21, "bwrap -- codex");
    tree.apply(told(id(25), 24, sandbox, Birth::default(), Occasion::Found));
    assert_eq!(call(&mut tree, 25), "codex(20) - › bwrap -- codex(24)");
}

#[test]
fn an_agent_on_a_tool_call_of_another_has_its_own_and_a_claim_makes_no_agent() {
    let mut tree = tree(Targets::default());
    see(&mut tree, 20, 1, "claude");
    see(&mut tree, 21, 20, "bash -c gemini");
    see(&mut tree, 22, 21, "gemini -p x");
    see(&mut tree, 23, 22, "curl");
    assert_eq!(call(&mut tree, 23), "gemini(22) - › curl(23)");
    see(&mut tree, 24, 21, "claude -p x");
    see(&mut tree, 25, 24, "curl");
    assert_eq!(call(&mut tree, 25), "claude(24) - › curl(25)");
    let posing = Image { argv: vec!["gemini".into()], ..image("curl") };
    tree.apply(told(id(26), 20, posing, Birth::default(), Occasion::Found));
    assert_eq!(call(&mut tree, 26), "claude(20) - › gemini(26)", "it is called so, and runs curl");
}

#[test]
fn who_was_asked_for_by_pid_or_pattern_is_the_agent() {
    let wanted = Wanted::Patterns(vec!["worker".into()]);
    let mut tree = tree(Targets { wanted, ..Targets::default() });
    see(&mut tree, 20, 1, "worker --all");
    see(&mut tree, 21, 20, "sh -c worker");
    see(&mut tree, 22, 21, "claude");
    assert_eq!(call(&mut tree, 20), "worker(20) - › -");
    assert_eq!(call(&mut tree, 21), "worker(20) - › sh -c worker(21)", "a text in its arguments");
    assert_eq!(call(&mut tree, 22), "claude(22) - › -");
}

#[test]
fn an_agent_tells_its_session_to_what_it_starts() {
    let mut tree = tree(Targets::default());
    see(&mut tree, 20, 1, "claude");
    see(&mut tree, 21, 20, "bash -c x");
    surrounded(
        &mut tree,
        21,
        Some("/srv"),
        &[("CLAUDE_CODE_SESSION_ID", "s-1"), ("CODEX_THREAD_ID", "t-1")],
        true,
    );
    see(&mut tree, 22, 21, "curl");
    assert_eq!(call(&mut tree, 22), "claude(20) s-1 › bash -c x(21)");
    assert_eq!(call(&mut tree, 20), "claude(20) s-1 › -", "the agent learns what it is called");
    let (tool, child) = (tree.process(id(21)).expect("known"), tree.process(id(22)).expect("known"));
    assert_eq!((tool.cwd.as_deref(), child.cwd.as_deref()), (Some("/srv"), None));
    assert_eq!(child.trace, tool.trace, "an environment is passed on");
    // Another agent on its call has its environment, and is of no session of it.
    see(&mut tree, 30, 21, "codex");
    surrounded(&mut tree, 30, None, &[("CLAUDE_CODE_SESSION_ID", "s-1"), ("CODEX_THREAD_ID", "t-0")], false);
    assert_eq!(call(&mut tree, 30), "codex(30) - › -");
    assert_eq!(tree.process(id(30)).expect("known").trace, None);
    // An exec begins elsewhere; a new name does not.
    renamed(&mut tree, 21, "bash -c x", "title", "bash: title");
    assert_eq!(tree.process(id(21)).expect("known").cwd.as_deref(), Some("/srv"));
    executed(&mut tree, 21, "wget");
    assert_eq!(tree.process(id(21)).expect("known").cwd, None);
}

#[test]
fn a_child_that_was_known_before_its_agent_gets_its_call() {
    let mut tree = tree(Targets::default());
    see(&mut tree, 22, 21, "curl");
    see(&mut tree, 21, 20, "bash -c x");
    see(&mut tree, 20, 1, "claude");
    for again in tree.newly_tracked() {
        let command = if again.pid == 21 { "bash -c x" } else { "curl" };
        let parent = again.pid - 1;
        tree.apply(told(again, parent, image(command), Birth::default(), Occasion::Renamed));
    }
    assert_eq!(call(&mut tree, 22), "claude(20) - › bash -c x(21)");
    assert_eq!(call(&mut tree, 21), "claude(20) - › bash -c x(21)");
}
