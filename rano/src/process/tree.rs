//! The processes there are, which of them are tracked and why, and the one shared value by which events refer to each.
//! Fed in any order: a parent that becomes known after its children leads to the same verdicts. Only a pid's former
//! holder must be `Gone` before children of its next one are `Seen`.

use std::collections::VecDeque;
use std::sync::Arc;

use rustc_hash::FxHashMap;

use super::matching::{Rules, Subject};
use super::provider::{OwnProvider, ProviderIndex, Providers};
use super::redact::{Redaction, command_line};
use super::{Ancestor, Image, Process, ProcessChange, ProcessId, Verdict};

/// Dead tracked processes that are remembered for sockets that close late, oldest forgotten first.
const DEAD_TRACKED: usize = 2048;
/// Other dead processes that are remembered as links between the living and their ancestors.
const DEAD_OTHERS: usize = 1024;
/// No real ancestry is deeper; keeps a recording with a parent cycle from being walked for ever.
const MAX_DEPTH: usize = 256;

/// All known processes. A tracked process stays tracked over exec and reparenting until it is excluded itself; its
/// parent is the one it had when it was first seen. Of an untracked one neither arguments nor executable are kept.
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
}

#[derive(Debug)]
struct Node {
    start_time: u64,
    parent: Parent,
    comm: Box<str>,
    detail: Option<Box<Detail>>,
    uid: u32,
    own: Option<OwnProvider>,
    standing: Standing,
    tracked: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Parent {
    None,
    /// Not seen yet.
    Waiting(u32),
    Known(ProcessId),
}

/// What the rules say of the process itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Standing {
    Plain,
    Root,
    Excluded,
    /// rano or an ancestor of it.
    Never,
}

/// What only a process needs that events refer to.
#[derive(Debug)]
struct Detail {
    process: Arc<Process>,
    /// Ancestry or provider became better known since `process` was made.
    stale: bool,
    /// Provider it acts for unless its own match is strong; what it had before an exec counts as inherited.
    inherited: Option<ProviderIndex>,
    /// Nearest tracked ancestor.
    via: Option<ProcessId>,
    /// Stays tracked over an exec. Without descendants a child must not: until its exec it only looks like its parent.
    sticky: bool,
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
        }
    }

    /// Takes note of a change and answers whether the process is tracked; for one that is gone, whether it was.
    pub fn apply(&mut self, change: ProcessChange) -> Verdict {
        match change {
            ProcessChange::Seen { id, parent, image, at: _ } => self.seen(id, parent, &image),
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
        match self.node(id) {
            Some(node) if node.tracked => Verdict::Tracked,
            Some(_) | None => Verdict::Ignored,
        }
    }

    /// Any known process, the recently dead included. One that is not tracked, or became tracked through another's
    /// change and was not `Seen` again since, has neither command line nor executable.
    pub fn process(&mut self, id: ProcessId) -> Option<Arc<Process>> {
        let node = self.node(id)?;
        let process = match &node.detail {
            Some(detail) if !detail.stale => return Some(Arc::clone(&detail.process)),
            Some(detail) => {
                let provider = effective(node.own, detail.inherited);
                let process = Process::clone(&detail.process);
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

    /// Processes that became tracked through another's change: an exec into an agent above them, or a parent that
    /// became known late. Whoever knows their arguments sends `Seen` for them again. Emptied by the call.
    pub fn newly_tracked(&mut self) -> Vec<ProcessId> {
        std::mem::take(&mut self.newly_tracked)
    }

    /// The living ones, in no particular order.
    pub fn tracked(&self) -> impl Iterator<Item = ProcessId> {
        self.live.iter().filter(|(_, node)| node.tracked).map(|(&pid, node)| node.id(pid))
    }

    /// The outermost tracked process that a tracked one descends from: itself if it has no tracked ancestor.
    pub fn root(&self, id: ProcessId) -> Option<ProcessId> {
        let mut root = self.node(id).filter(|node| node.tracked).map(|_| id)?;
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

    fn seen(&mut self, id: ProcessId, parent: u32, image: &Image) -> Verdict {
        let subject = Subject::of(image);
        let standing = self.standing(id, &subject);
        let own = self.providers.own_match(&subject);
        let known = self.live.get(&id.pid).is_some_and(|node| node.start_time == id.start_time);
        let mut late_for = Vec::new();
        if !known {
            // Whoever had the pid is dead.
            self.bury(id.pid);
            self.insert(id, parent);
            late_for = self.settle_waiting(id);
        }
        let node = self.live.get_mut(&id.pid).expect("inserted above if it was not there");
        node.comm = image.comm.as_str().into();
        node.uid = image.uid;
        node.own = own;
        node.standing = standing;
        let was_tracked = node.tracked;
        let stays = was_tracked && node.detail.as_ref().is_some_and(|detail| detail.sticky);
        let tracked = match standing {
            Standing::Never | Standing::Excluded => false,
            Standing::Root => true,
            Standing::Plain => stays || self.descends_from_tracked(id),
        };
        if tracked {
            let cmdline = command_line(&image.argv, self.redaction);
            self.track(id, parent, image.exe.clone(), cmdline);
        } else if let Some(node) = self.live.get_mut(&id.pid) {
            node.tracked = false;
            node.detail = None;
        }
        if !late_for.is_empty() {
            self.mark_longer_ancestries(&late_for);
        }
        let may_matter_below = if known {
            tracked && !was_tracked
        } else {
            !late_for.is_empty() && (tracked || self.nearest_tracked(id).is_some())
        };
        if may_matter_below {
            self.spread();
        }
        self.verdict(id)
    }

    fn standing(&mut self, id: ProcessId, subject: &Subject) -> Standing {
        let asked_for = self
            .root_pids
            .get_mut(&id.pid)
            .is_some_and(|start_time| *start_time.get_or_insert(id.start_time) == id.start_time);
        if self.rules.never(id) {
            Standing::Never
        } else if self.rules.excludes(subject) {
            Standing::Excluded
        } else if asked_for || self.rules.wants(subject) {
            Standing::Root
        } else {
            Standing::Plain
        }
    }

    fn insert(&mut self, id: ProcessId, parent: u32) {
        let parent = match self.live.get(&parent) {
            _ if parent == 0 || parent == id.pid => Parent::None,
            Some(node) if node.start_time <= id.start_time => Parent::Known(node.id(parent)),
            // The pid was given to a younger process: the parent is dead and was never seen.
            Some(_) => Parent::None,
            None => {
                self.waiting.entry(parent).or_default().push(id.pid);
                Parent::Waiting(parent)
            }
        };
        let node = Node {
            start_time: id.start_time,
            parent,
            comm: Box::default(),
            detail: None,
            uid: 0,
            own: None,
            standing: Standing::Plain,
            tracked: false,
        };
        self.live.insert(id.pid, node);
    }

    /// The children that waited for this parent.
    fn settle_waiting(&mut self, id: ProcessId) -> Vec<u32> {
        let mut children = self.waiting.remove(&id.pid).unwrap_or_default();
        children.retain(|child| {
            let Some(node) = self.live.get_mut(child) else { return false };
            let born_later = node.start_time >= id.start_time;
            node.parent = if born_later { Parent::Known(id) } else { Parent::None };
            born_later
        });
        children
    }

    fn bury(&mut self, pid: u32) {
        let Some(node) = self.live.remove(&pid) else { return };
        if let Parent::Waiting(parent) = node.parent
            && let Some(children) = self.waiting.get_mut(&parent)
        {
            children.retain(|&child| child != pid);
            if children.is_empty() {
                self.waiting.remove(&parent);
            }
        }
        self.dead.insert(node.id(pid), node);
    }

    /// Makes a process tracked, or renews what is known of one that is.
    fn track(&mut self, id: ProcessId, ppid: u32, exe: String, cmdline: String) {
        let nearest = self.nearest_tracked(id);
        let Some(node) = self.live.get_mut(&id.pid) else { return };
        let before = node.detail.take().filter(|_| node.tracked);
        node.tracked = true;
        let (own, uid, comm) = (node.own, node.uid, node.comm.to_string());
        let (inherited, via, sticky) = match &before {
            Some(before) => {
                let provider = self.providers.index(&before.process.provider);
                (
                    provider.or(nearest.and_then(|(_, p)| p)),
                    before.via.or(nearest.map(|(id, _)| id)),
                    before.sticky,
                )
            }
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
        let process = Process { key, id, ppid, uid, comm, cmdline, exe, provider: name, ancestry };
        let (process, stale) = match before {
            Some(before) if *before.process == process => (before.process, before.stale),
            Some(_) | None => (self.make(id, process, provider), false),
        };
        if let Some(node) = self.live.get_mut(&id.pid) {
            node.detail = Some(Box::new(Detail { process, stale, inherited, via, sticky }));
        }
    }

    /// A value of its own for an image: new key, the provider's name, and the ancestry as it is now. Where ancestors
    /// were forgotten, the longer ancestry of the previous image stays.
    fn make(&mut self, id: ProcessId, process: Process, provider: Option<ProviderIndex>) -> Arc<Process> {
        let mut ancestry = vec![Ancestor { comm: process.comm.clone(), pid: id.pid }];
        ancestry.extend(
            self.ancestors(id).map(|(id, node)| Ancestor { comm: node.comm.to_string(), pid: id.pid }),
        );
        ancestry.reverse();
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
        let ppid = match node.parent {
            Parent::None => 0,
            Parent::Waiting(pid) | Parent::Known(ProcessId { pid, .. }) => pid,
        };
        Process {
            key: 0,
            id,
            ppid,
            uid: node.uid,
            comm: node.comm.to_string(),
            cmdline: String::new(),
            exe: String::new(),
            provider: Arc::clone(self.providers.name(None)),
            ancestry: Vec::new(),
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
        if node.tracked {
            let nearest = self.nearest_tracked(id);
            let Some((via, provider)) = nearest else { return false };
            let Some(detail) = self.live.get_mut(&pid).and_then(|node| node.detail.as_mut()) else {
                return false;
            };
            let changed = detail.via.is_none() || (detail.inherited.is_none() && provider.is_some());
            detail.via.get_or_insert(via);
            detail.inherited = detail.inherited.or(provider);
            detail.stale |= changed;
            return changed;
        }
        if node.standing != Standing::Plain || !self.descends_from_tracked(id) {
            return false;
        }
        let bare = self.without_arguments(id, node);
        self.track(id, bare.ppid, bare.exe, bare.cmdline);
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

    /// The first ancestor that is tracked or stands in the way decides.
    fn descends_from_tracked(&self, id: ProcessId) -> bool {
        self.rules.descendants()
            && self
                .ancestors(id)
                .find(|(_, node)| {
                    node.tracked || matches!(node.standing, Standing::Excluded | Standing::Never)
                })
                .is_some_and(|(_, node)| node.tracked)
    }

    fn nearest_tracked(&self, id: ProcessId) -> Option<(ProcessId, Option<ProviderIndex>)> {
        let (id, node) = self.ancestors(id).find(|(_, node)| node.tracked)?;
        let inherited = node.detail.as_ref().and_then(|detail| detail.inherited);
        Some((id, effective(node.own, inherited)))
    }

    /// From the parent up, as far as it is known.
    fn ancestors(&self, id: ProcessId) -> impl Iterator<Item = (ProcessId, &Node)> {
        let parent = |node: &Node| match node.parent {
            Parent::Known(parent) => self.node(parent).map(|node| (parent, node)),
            Parent::None | Parent::Waiting(_) => None,
        };
        std::iter::successors(self.node(id).and_then(parent), move |(_, node)| parent(node)).take(MAX_DEPTH)
    }

    fn node(&self, id: ProcessId) -> Option<&Node> {
        let live = self.live.get(&id.pid).filter(|node| node.start_time == id.start_time);
        live.or_else(|| self.dead.nodes.get(&id))
    }

    fn node_mut(&mut self, id: ProcessId) -> Option<&mut Node> {
        let live = self.live.get_mut(&id.pid).filter(|node| node.start_time == id.start_time);
        live.or_else(|| self.dead.nodes.get_mut(&id))
    }
}

impl Node {
    fn id(&self, pid: u32) -> ProcessId {
        ProcessId { pid, start_time: self.start_time }
    }
}

impl Detail {
    /// For a process that is not tracked.
    fn of(process: Arc<Process>) -> Self {
        Self { process, stale: false, inherited: None, via: None, sticky: false }
    }
}

/// The provider a tracked process acts for.
fn effective(own: Option<OwnProvider>, inherited: Option<ProviderIndex>) -> Option<ProviderIndex> {
    match own {
        Some(own) if !own.weak => Some(own.provider),
        Some(own) => Some(inherited.unwrap_or(own.provider)),
        None => inherited,
    }
}

/// Those who died recently.
#[derive(Debug, Default)]
struct Dead {
    nodes: FxHashMap<ProcessId, Node>,
    tracked: VecDeque<ProcessId>,
    others: VecDeque<ProcessId>,
}

impl Dead {
    fn insert(&mut self, id: ProcessId, node: Node) {
        let (queue, limit) =
            if node.tracked { (&mut self.tracked, DEAD_TRACKED) } else { (&mut self.others, DEAD_OTHERS) };
        queue.push_back(id);
        let forgotten = if queue.len() > limit { queue.pop_front() } else { None };
        self.nodes.insert(id, node);
        if let Some(id) = forgotten {
            self.nodes.remove(&id);
        }
    }
}

#[cfg(test)]
mod tests;
