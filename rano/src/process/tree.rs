//! The processes there are, which of them are tracked and why, and the one shared value by which events refer to each.
//! Fed in any order: a parent that becomes known after its children leads to the same verdicts. Only a pid's former
//! holder must be `Gone` before children of its next one are `Seen`.

mod node;
mod places;
mod calls;

use std::sync::Arc;

use rustc_hash::FxHashMap;

use super::matching::{Place, Rules, Subject};
use super::provider::{OwnProvider, ProviderIndex, Providers};
use super::redact::{Redaction, command_line};
use super::{Ancestor, Birth, Image, Occasion, Process, ProcessChange, ProcessId, Verdict};
use crate::moment::Moment;
use calls::{Beginning, has_bare_tool};
use node::{AgentMark, Dead, Detail, Link, Node, Standing, State, Who, effective, passed_on, renamed};

/// What the rules say of a process, and who it is.
struct Judgement {
    standing: Standing,
    own: Option<OwnProvider>,
    agent: Option<AgentMark>,
    program: String,
}

/// No real ancestry is deeper; keeps a recording with a parent cycle from being walked for ever.
const MAX_DEPTH: usize = 256;

/// All known processes. A tracked process stays tracked over exec, renaming and reparenting until it runs a program
/// that is excluded; its place is below the process that forked it, as far as that is known, else below the parent it
/// had when it was first seen. Of an untracked one neither arguments nor executable are kept.
#[derive(Debug)]
pub struct Tree {
    rules: Rules,
    providers: Providers,
    redaction: Redaction,
    live: FxHashMap<u32, Node>,
    dead: Dead,
    /// Pid of a parent not seen yet, with the pids of its children.
    waiting: FxHashMap<u32, Vec<u32>>,
    /// Pids that were asked for, with the start time of the process that had it when first seen.
    root_pids: FxHashMap<u32, Option<u64>>,
    newly_tracked: Vec<ProcessId>,
    next_key: u64,
    left_out: u64,
    has_tracked: bool,
    /// When a process was told of last.
    now: Moment,
    /// Somebody's tool call became known by its arguments, after those below it had it.
    has_late_call: bool,
}

impl Tree {
    pub fn new(rules: Rules, providers: Providers, redaction: Redaction) -> Self {
        let root_pids = rules.root_pids().iter().map(|&pid| (pid, None)).collect();
        Self {
            rules,
            providers,
            redaction,
            live: FxHashMap::default(),
            dead: Dead::default(),
            waiting: FxHashMap::default(),
            root_pids,
            newly_tracked: Vec::new(),
            next_key: 1,
            left_out: 0,
            has_tracked: false,
            now: Moment::default(),
            has_late_call: false,
        }
    }

    /// Takes note of a change and answers whether the process is tracked; for one that is gone, whether it was.
    pub fn apply(&mut self, change: ProcessChange) -> Verdict {
        match change {
            ProcessChange::Seen { id, parent, image, at, birth, occasion } => {
                self.now = at;
                self.seen(id, parent, birth, occasion, &image)
            }
            ProcessChange::Surroundings { id, surroundings } => {
                self.surrounded(id, surroundings);
                self.verdict(id)
            }
            ProcessChange::Gone { id, at: _ } => {
                if self.live.get(&id.pid).is_some_and(|node| node.start_time == id.start_time) {
                    self.bury(id.pid);
                }
                self.verdict(id)
            }
        }
    }

    /// `Ignored` for a process that is not known.
    pub fn verdict(&self, id: ProcessId) -> Verdict {
        match self.node(id).map(|node| node.state) {
            Some(State::Tracked) => Verdict::Tracked,
            Some(State::LeftOut | State::Below) => Verdict::Excluded,
            Some(State::Ignored) | None => Verdict::Ignored,
        }
    }

    /// Processes that were left out so far.
    pub fn left_out(&self) -> u64 {
        self.left_out
    }

    /// Whether any process was tracked so far.
    pub fn has_tracked(&self) -> bool {
        self.has_tracked
    }

    /// Any known process, the recently dead included. One that is not tracked, or became tracked through another's
    /// change and was not `Seen` again since, has neither command line nor executable.
    pub fn process(&mut self, id: ProcessId) -> Option<Arc<Process>> {
        let node = self.node(id)?;
        let process = match &node.detail {
            Some(detail) if !detail.stale => return Some(Arc::clone(&detail.process)),
            Some(detail) => {
                let provider = effective(node.own, detail.inherited);
                let (call, cwd) = (detail.call.clone(), detail.cwd.clone());
                let process =
                    Process { call, cwd, trace: detail.trace.clone(), ..Process::clone(&detail.process) };
                self.make(id, process, provider)
            }
            None => {
                let process = self.without_arguments(id, node);
                let provider = node.own.map(|own| own.provider);
                self.make(id, process, provider)
            }
        };
        let node = self.node_mut(id)?;
        match &mut node.detail {
            Some(detail) => {
                detail.process = Arc::clone(&process);
                detail.stale = false;
            }
            detail @ None => *detail = Some(Box::new(Detail::of(Arc::clone(&process)))),
        }
        Some(process)
    }

    /// Processes that became tracked, or left out, through another's change: an exec into an agent above them, or a
    /// parent that became known late. Whoever knows their arguments sends `Seen` for them again. Emptied by the call.
    pub fn newly_tracked(&mut self) -> Vec<ProcessId> {
        std::mem::take(&mut self.newly_tracked)
    }

    /// The living ones, in no particular order.
    pub fn tracked(&self) -> impl Iterator<Item = ProcessId> {
        self.live.iter().filter(|(_, node)| node.is_tracked()).map(|(&pid, node)| node.id(pid))
    }

    /// The outermost tracked process that a tracked one descends from: itself if it has no tracked ancestor.
    pub fn root(&self, id: ProcessId) -> Option<ProcessId> {
        let mut root = self.node(id).filter(|node| node.is_tracked()).map(|_| id)?;
        for _ in 0..MAX_DEPTH {
            let detail = self.node(root).and_then(|node| node.detail.as_ref());
            let Some(via) = detail.and_then(|detail| detail.via) else { break };
            root = via;
        }
        Some(root)
    }

    /// The user that any known process runs as.
    pub fn uid(&self, id: ProcessId) -> Option<u32> {
        self.node(id).map(|node| node.uid)
    }

    fn seen(
        &mut self,
        id: ProcessId,
        parent: u32,
        birth: Birth,
        occasion: Occasion,
        image: &Image,
    ) -> Verdict {
        let known = self.live.get(&id.pid).is_some_and(|node| node.start_time == id.start_time);
        let mut late_for = Vec::new();
        if !known {
            // Whoever had the pid is dead.
            self.bury(id.pid);
            self.insert(id, parent, birth);
            self.put_into_session(id, birth);
            late_for = self.settle_waiting(id);
        } else if let Some(forker) = birth.forker {
            self.move_below(id, forker);
        }
        let Judgement { standing, own, agent, program } =
            self.judge(id, &Subject::of(image), known, birth, occasion);
        let node = self.live.get_mut(&id.pid).expect("inserted above if it was not there");
        node.comm = image.comm.as_str().into();
        let agent = match node.agent() {
            // What it runs is as it was.
            Some(before) if occasion == Occasion::Renamed && before.is_it => Some(before.clone()),
            Some(_) | None => {
                let is_it = |agent: &AgentMark| agent.is_it && occasion != Occasion::Renamed;
                agent.map(|agent| AgentMark { is_it: is_it(&agent), ..agent })
            }
        };
        let program = (program != image.comm).then(|| program.into());
        let is_more = program.is_some() || agent.is_some();
        node.who = is_more.then(|| Box::new(Who { program, agent }));
        node.uid = image.uid;
        node.ppid = parent;
        if let Some(detail) =
            node.detail.as_mut().filter(|_| matches!(node.state, State::Tracked | State::LeftOut))
        {
            detail.inherited = passed_on(node.own, detail.inherited);
        }
        node.own = own;
        node.standing = standing;
        let before = node.state;
        let state = self.state(id, occasion, birth);
        self.enter(id, state, Some((image, occasion)));
        if !late_for.is_empty() {
            self.mark_longer_ancestries(&late_for);
        }
        let has_late_call = std::mem::take(&mut self.has_late_call);
        let may_matter_below = if known {
            state != before && state != State::Ignored || has_late_call
        } else {
            !late_for.is_empty() && (state != State::Ignored || self.nearest_tracked(id).is_some())
        };
        if may_matter_below {
            self.spread();
        }
        self.verdict(id)
    }

    /// What the rules say of it, and the provider it matches. Whether it is excluded was decided when it began to run
    /// its program: what a process writes over its name and arguments later neither excludes it nor takes that back.
    fn judge(
        &mut self,
        id: ProcessId,
        subject: &Subject,
        known: bool,
        birth: Birth,
        occasion: Occasion,
    ) -> Judgement {
        let asked_for = self
            .root_pids
            .get_mut(&id.pid)
            .is_some_and(|start_time| *start_time.get_or_insert(id.start_time) == id.start_time);
        let root = asked_for || self.rules.wants(subject);
        let found = self.providers.agent(subject);
        let own = self.providers.own_match(subject, found.as_ref());
        let judgement = |standing, own| Judgement {
            standing,
            own,
            agent: found.as_ref().map(|found| AgentMark {
                name: found.agent.name.as_str().into(),
                is_it: found.place == Place::Program,
                is_named: found.agent.is_named(subject),
            }),
            program: subject.program(found.as_ref()),
        };
        if self.rules.never(id) {
            return judgement(Standing::Never, own);
        }
        let same_program = match occasion {
            Occasion::Renamed if known => self.node(id),
            Occasion::Forked => birth.forker.and_then(|forker| self.node(forker)),
            Occasion::Found | Occasion::Executed | Occasion::Renamed => None,
        };
        let Some(same) = same_program else {
            let excluded = self.rules.excludes(subject);
            return match (excluded, root) {
                (true, root) => judgement(Standing::Excluded { root }, own),
                (false, true) => judgement(Standing::Root, own),
                (false, false) => judgement(Standing::Plain, own),
            };
        };
        let standing = match same.standing {
            Standing::Excluded { root: was_root } => Standing::Excluded { root: root || was_root },
            Standing::Root if occasion == Occasion::Renamed => Standing::Root,
            Standing::Root | Standing::Plain | Standing::Never if root => Standing::Root,
            Standing::Root | Standing::Plain | Standing::Never => Standing::Plain,
        };
        judgement(standing, if occasion == Occasion::Renamed { renamed(same.own, own) } else { own })
    }

    fn state(&self, id: ProcessId, occasion: Occasion, birth: Birth) -> State {
        let Some(node) = self.node(id) else { return State::Ignored };
        let was_tracked =
            node.detail.as_ref().filter(|_| matches!(node.state, State::Tracked | State::LeftOut));
        // Without descendants a child that runs another program is no agent any more; a name alone changes nothing.
        let stays = was_tracked.is_some_and(|detail| detail.sticky || occasion == Occasion::Renamed);
        let lineage = || {
            let nobody_knows = birth.forker.is_none_or(|forker| self.node(forker).is_none());
            if birth.of_tracked && nobody_knows && self.rules.descendants() {
                State::Tracked
            } else {
                self.lineage(id)
            }
        };
        match node.standing {
            Standing::Never => State::Ignored,
            Standing::Root => State::Tracked,
            Standing::Plain if stays => State::Tracked,
            Standing::Plain if node.state == State::Below && occasion == Occasion::Renamed => State::Below,
            Standing::Plain => lineage(),
            Standing::Excluded { root } if root || stays || node.state == State::LeftOut => State::LeftOut,
            Standing::Excluded { .. } => match lineage() {
                State::Tracked => State::LeftOut,
                other => other,
            },
        }
    }

    fn enter(&mut self, id: ProcessId, state: State, image: Option<(&Image, Occasion)>) {
        let Some(node) = self.live.get_mut(&id.pid) else { return };
        match state {
            State::Tracked => {
                let bare = (String::new(), String::new(), Occasion::Found);
                let (exe, cmdline, occasion) = image.map_or(bare, |(image, occasion)| {
                    (image.exe.clone(), command_line(&image.argv, self.redaction), occasion)
                });
                let ppid = node.ppid;
                return self.track(id, ppid, (exe, cmdline), occasion);
            }
            // On whose behalf it acted counts again once it runs something else.
            State::LeftOut => {}
            State::Below | State::Ignored => node.detail = None,
        }
        if state != State::Ignored && !node.is_counted {
            node.is_counted = true;
            self.left_out += 1;
        }
        node.state = state;
    }

    /// Makes a process tracked, or renews what is known of one that is.
    fn track(&mut self, id: ProcessId, ppid: u32, (exe, cmdline): (String, String), occasion: Occasion) {
        let nearest = self.nearest_tracked(id);
        let beginning = self.beginning(id, &exe, &cmdline, occasion);
        let Some(node) = self.live.get_mut(&id.pid) else { return };
        let was_tracked = matches!(node.state, State::Tracked | State::LeftOut);
        let before = node.detail.take().filter(|_| was_tracked);
        node.state = State::Tracked;
        self.has_tracked = true;
        let (own, uid, comm) = (node.own, node.uid, node.comm.to_string());
        let program = node.program().to_owned();
        let Beginning { call, cwd, trace } = beginning;
        self.has_late_call |= before.as_ref().is_some_and(|before| has_bare_tool(before, id));
        let (inherited, via, sticky) = match &before {
            Some(before) => (
                before.inherited.or(nearest.and_then(|(_, provider)| provider)),
                before.via.or(nearest.map(|(id, _)| id)),
                before.sticky,
            ),
            None => (
                nearest.and_then(|(_, provider)| provider),
                nearest.map(|(id, _)| id),
                self.rules.descendants() || nearest.is_none(),
            ),
        };
        let provider = effective(own, inherited);
        let (key, ancestry) =
            before.as_ref().map_or((0, Vec::new()), |b| (b.process.key, b.process.ancestry.clone()));
        let name = Arc::clone(self.providers.name(provider));
        let process = Process {
            key,
            id,
            ppid,
            uid,
            comm,
            cmdline,
            exe,
            provider: name,
            ancestry,
            program,
            cwd: cwd.clone(),
            call: call.clone(),
            trace: trace.clone(),
        };
        let (process, stale) = match before {
            Some(before) if *before.process == process => (before.process, before.stale),
            Some(_) | None => (self.make(id, process, provider), false),
        };
        if let Some(node) = self.live.get_mut(&id.pid) {
            let detail = Detail { process, stale, inherited, via, call, cwd, trace, sticky };
            node.detail = Some(Box::new(detail));
        }
    }

    /// From the outermost ancestor down to itself. Where one above was forgotten, the last that is known tells of those
    /// above as they were.
    fn ancestry(&self, id: ProcessId, comm: &str) -> Vec<Ancestor> {
        let above: Vec<_> = self.ancestors(id).collect();
        let told = above.last().and_then(|(_, node)| node.detail.as_ref());
        let mut ancestry = told.map(|detail| detail.process.ancestry.clone()).unwrap_or_default();
        let program = self.node(id).map_or(comm, Node::program).to_owned();
        // Its own name may have changed since.
        ancestry.pop();
        let above = above.iter().rev().map(|(id, node)| Ancestor {
            comm: node.comm.to_string(),
            pid: id.pid,
            program: node.program().to_owned(),
        });
        ancestry.extend(above);
        ancestry.push(Ancestor { comm: comm.to_owned(), pid: id.pid, program });
        if ancestry.len() > MAX_DEPTH {
            // Of a longer one both ends say most.
            let end = ancestry.len() - MAX_DEPTH / 2;
            ancestry.drain(MAX_DEPTH / 2..end);
        }
        ancestry
    }

    /// A value of its own for an image: new key, the provider's name, and the ancestry as it is now. Where ancestors
    /// were forgotten, the longer ancestry of the previous image stays.
    fn make(&mut self, id: ProcessId, process: Process, provider: Option<ProviderIndex>) -> Arc<Process> {
        let mut ancestry = self.ancestry(id, &process.comm);
        if process.ancestry.len() > ancestry.len() {
            let itself = ancestry.pop();
            ancestry = process.ancestry;
            ancestry.pop();
            ancestry.extend(itself);
        }
        let key = self.next_key;
        self.next_key += 1;
        let provider = Arc::clone(self.providers.name(provider));
        Arc::new(Process { key, provider, ancestry, ..process })
    }

    fn without_arguments(&self, id: ProcessId, node: &Node) -> Process {
        Process {
            key: 0,
            id,
            ppid: node.ppid,
            uid: node.uid,
            comm: node.comm.to_string(),
            cmdline: String::new(),
            exe: String::new(),
            provider: Arc::clone(self.providers.name(None)),
            ancestry: Vec::new(),
            program: node.program().to_owned(),
            cwd: None,
            call: None,
            trace: None,
        }
    }

    /// Carries what a late or changed process means to those below it, until nothing changes any more. Walks every
    /// process, which is affordable because an agent above processes that are already known is rare.
    fn spread(&mut self) {
        let pids: Vec<u32> = self.live.keys().copied().collect();
        for _ in 0..MAX_DEPTH {
            let mut changed = false;
            for &pid in &pids {
                changed |= self.look_up_again(pid);
            }
            if !changed {
                break;
            }
        }
    }

    fn look_up_again(&mut self, pid: u32) -> bool {
        let Some(node) = self.live.get(&pid) else { return false };
        let id = node.id(pid);
        if node.is_tracked() {
            let nearest = self.nearest_tracked(id);
            let Some((via, provider)) = nearest else { return false };
            let Some(detail) = self.live.get_mut(&pid).and_then(|node| node.detail.as_mut()) else {
                return false;
            };
            let changed = detail.via.is_none() || (detail.inherited.is_none() && provider.is_some());
            detail.via.get_or_insert(via);
            detail.inherited = detail.inherited.or(provider);
            detail.stale |= changed;
            return self.call_changed(id) | changed;
        }
        let state = match (node.state, node.standing) {
            (State::Ignored, Standing::Plain) => self.lineage(id),
            (State::Ignored, Standing::Excluded { .. }) => match self.lineage(id) {
                State::Tracked => State::LeftOut,
                other => other,
            },
            _ => return false,
        };
        if state == State::Ignored {
            return false;
        }
        self.enter(id, state, None);
        self.newly_tracked.push(id);
        true
    }

    /// Processes whose ancestry began with one of these children have more ancestors now.
    fn mark_longer_ancestries(&mut self, children: &[u32]) {
        for detail in self.live.values_mut().filter_map(|node| node.detail.as_mut()) {
            if detail.process.ancestry.first().is_some_and(|first| children.contains(&first.pid)) {
                detail.stale = true;
            }
        }
    }

    /// What it comes to by its ancestors: the first that is tracked or stands in the way decides.
    fn lineage(&self, id: ProcessId) -> State {
        if !self.rules.descendants() {
            return State::Ignored;
        }
        let decides = |node: &Node| {
            node.state != State::Ignored
                || matches!(node.standing, Standing::Excluded { .. } | Standing::Never)
        };
        match self.ancestors(id).find(|(_, node)| decides(node)).map(|(_, node)| node.state) {
            Some(State::Tracked) => State::Tracked,
            Some(State::LeftOut | State::Below) => State::Below,
            Some(State::Ignored) | None => State::Ignored,
        }
    }

    fn nearest_tracked(&self, id: ProcessId) -> Option<(ProcessId, Option<ProviderIndex>)> {
        let (id, node) = self.ancestors(id).find(|(_, node)| node.is_tracked())?;
        let inherited = node.detail.as_ref().and_then(|detail| detail.inherited);
        Some((id, passed_on(node.own, inherited)))
    }

    /// From whom it stands below up, as far as it is known.
    fn ancestors(&self, id: ProcessId) -> impl Iterator<Item = (ProcessId, &Node)> {
        let above = |node: &Node| match node.place.link {
            Link::Known => self.node(node.place.id()).map(|above| (node.place.id(), above)),
            Link::None | Link::Waiting | Link::WaitingFor => None,
        };
        std::iter::successors(self.node(id).and_then(above), move |(_, node)| above(node)).take(MAX_DEPTH)
    }

    fn node(&self, id: ProcessId) -> Option<&Node> {
        let live = self.live.get(&id.pid).filter(|node| node.start_time == id.start_time);
        live.or_else(|| self.dead.get(&id))
    }

    fn node_mut(&mut self, id: ProcessId) -> Option<&mut Node> {
        let live = self.live.get_mut(&id.pid).filter(|node| node.start_time == id.start_time);
        live.or_else(|| self.dead.get_mut(&id))
    }
}

#[cfg(test)]
mod tests;
