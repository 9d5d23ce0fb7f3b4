//! For which agent and tool call a tracked process runs. Whoever is below an agent and runs another program is a tool
//! call of it, with all that stands below; the agent's wrappers, helpers and forks are the agent.

use std::sync::Arc;

use super::Tree;
use super::node::{Detail, Node, Standing};
use crate::process::{Call, Occasion, ProcessId, Surroundings, Tool, Trace};

/// What a process has from where it stands and from what it was.
#[derive(Debug, Default)]
pub(super) struct Beginning {
    pub(super) call: Option<Arc<Call>>,
    pub(super) cwd: Option<Arc<str>>,
    pub(super) trace: Option<Trace>,
}

impl Tree {
    /// Of a process that is to be tracked, while it still has what it had before.
    pub(super) fn beginning(&self, id: ProcessId, exe: &str, cmdline: &str, occasion: Occasion) -> Beginning {
        let Some(node) = self.node(id) else { return Beginning::default() };
        let before = node.detail.as_deref();
        let above = self.detail_above(id);
        let call = self.call(id, node, above, before, (exe, cmdline));
        let is_same = |detail: &&Detail| detail.process.exe == exe && detail.process.cmdline == cmdline;
        let kept = before.filter(|before| occasion == Occasion::Renamed || is_same(before));
        if let Some(kept) = kept {
            return Beginning { call, cwd: kept.cwd.clone(), trace: kept.trace.clone() };
        }
        // An environment is passed on; a directory may have been left since, but for a fork that runs the same program.
        let forked = above.filter(|_| occasion == Occasion::Forked);
        Beginning {
            call,
            cwd: forked.and_then(|above| above.cwd.clone()),
            trace: above.and_then(|above| above.trace.clone()),
        }
    }

    fn detail_above(&self, id: ProcessId) -> Option<&Detail> {
        self.ancestors(id).find(|(_, node)| node.is_tracked()).and_then(|(_, node)| node.detail.as_deref())
    }

    fn call(
        &self,
        id: ProcessId,
        node: &Node,
        above: Option<&Detail>,
        before: Option<&Detail>,
        (exe, cmdline): (&str, &str),
    ) -> Option<Arc<Call>> {
        let before = before.and_then(|before| before.call.as_ref());
        let Some((above, call)) = above.and_then(|above| Some((above, above.call.as_ref()?))) else {
            let is_top = node.agent().is_some() || node.standing == Standing::Root;
            return match before {
                // Those above were forgotten.
                Some(before) if before.agent_id != id => Some(Arc::clone(before)),
                Some(before) if node.agent().is_none() => Some(Arc::clone(before)),
                _ => is_top.then(|| agent(id, node, before)),
            };
        };
        if let Some(mark) = node.agent().filter(|mark| mark.is_it) {
            let is_part = mark.name == call.agent && (call.tool.is_none() || !mark.is_named);
            return Some(if is_part { Arc::clone(call) } else { agent(id, node, before) });
        }
        let is_fork = above.process.exe == exe && above.process.cmdline == cmdline && !cmdline.is_empty();
        if call.tool.is_some() || is_fork {
            return Some(Arc::clone(call));
        }
        let of_itself = |before: &&Arc<Call>| {
            let began = before.tool.as_ref().is_some_and(|tool| tool.id == id && !tool.cmdline.is_empty());
            began && before.agent_id == call.agent_id
        };
        if let Some(before) = before.filter(of_itself) {
            let Some(tool) = before.tool.as_ref().and_then(|tool| tool.as_shell(cmdline)) else {
                return Some(Arc::clone(before));
            };
            return Some(Arc::new(Call { tool: Some(tool), ..Call::clone(before) }));
        }
        let tool = Tool::new(id, cmdline.to_owned(), self.now);
        Some(Arc::new(Call { tool: Some(tool), ..Call::clone(call) }))
    }

    /// Whether what it runs for is another since those above it changed.
    pub(super) fn call_changed(&mut self, id: ProcessId) -> bool {
        let Some(detail) = self.node(id).and_then(|node| node.detail.as_ref()) else { return false };
        let process = Arc::clone(&detail.process);
        let call = self.beginning(id, &process.exe, &process.cmdline, Occasion::Renamed).call;
        let Some(detail) = self.node_mut(id).and_then(|node| node.detail.as_mut()) else { return false };
        if detail.call == call {
            return false;
        }
        detail.call = call;
        detail.stale = true;
        true
    }

    /// Takes in where a process began. What its agent calls its session holds for the agent too.
    pub(super) fn surrounded(&mut self, id: ProcessId, surroundings: Surroundings) {
        let is_below = self.detail_above(id).is_some();
        let Some(detail) = self.live_detail(id) else { return };
        let Surroundings { cwd, marks } = surroundings;
        let cwd = cwd.map(Arc::from);
        let trace = marks.as_ref().map_or_else(|| detail.trace.clone(), |marks| marks.trace.clone());
        let mut call = detail.call.clone();
        let mut agents_session = None;
        if let (Some(known), Some(marks)) = (&call, &marks)
            && let Some(session) = self.session_of(&known.agent, &marks.sessions)
            // An agent below another has that one's.
            && (known.agent_id != id || !is_below)
            && known.session.as_deref() != Some(&*session)
        {
            let is_tool = known.tool.as_ref().is_some_and(|tool| tool.id == id);
            agents_session = is_tool.then(|| (known.agent_id, Arc::clone(&session)));
            call = Some(Arc::new(Call { session: Some(session), ..Call::clone(known) }));
        }
        if let Some(detail) = self.live.get_mut(&id.pid).and_then(|node| node.detail.as_mut()) {
            detail.stale |= detail.cwd != cwd || detail.trace != trace || detail.call != call;
            (detail.cwd, detail.trace, detail.call) = (cwd, trace, call);
        }
        if let Some((agent, session)) = agents_session
            && let Some(detail) = self.node_mut(agent).and_then(|node| node.detail.as_mut())
            && let Some(call) = detail.call.as_ref().filter(|call| call.agent_id == agent)
        {
            detail.call = Some(Arc::new(Call { session: Some(session), ..Call::clone(call) }));
            detail.stale = true;
        }
    }

    fn live_detail(&self, id: ProcessId) -> Option<&Detail> {
        let node = self.live.get(&id.pid).filter(|node| node.start_time == id.start_time)?;
        node.detail.as_deref().filter(|_| node.is_tracked())
    }

    fn session_of(&self, agent: &str, said: &[(String, String)]) -> Option<Arc<str>> {
        let variables = self.providers.session_variables(agent)?;
        let (_, session) = said.iter().find(|(name, _)| variables.contains(name))?;
        Some(session.as_str().into())
    }
}

/// Whether it became a tool call before its arguments were known.
pub(super) fn has_bare_tool(before: &Detail, id: ProcessId) -> bool {
    let tool = before.call.as_ref().and_then(|call| call.tool.as_ref());
    tool.is_some_and(|tool| tool.id == id && tool.cmdline.is_empty())
}

/// The call of an agent itself.
fn agent(id: ProcessId, node: &Node, before: Option<&Arc<Call>>) -> Arc<Call> {
    let before = before.filter(|before| before.agent_id == id);
    let name = node.agent().map_or_else(|| Arc::from(node.program()), |mark| Arc::clone(&mark.name));
    match before {
        Some(before) if before.agent == name => Arc::clone(before),
        _ => Arc::new(Call { agent: name, agent_id: id, session: None, tool: None }),
    }
}
