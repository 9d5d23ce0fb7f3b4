//! Agents, their tool calls, and processes: who the connections belong to.

use std::cmp::Reverse;

use rustc_hash::FxHashMap;

use super::connections::Connection;
use super::event::{StoredEvent, Text};
use super::sums::Sums;

/// Of a node, for as long as the view is open.
pub type NodeId = u32;

/// What tells two nodes apart.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum NodeKey {
    /// An agent, or all of a provider's processes that no agent is known of.
    Agent {
        name: Option<Text>,
        pid: Option<i64>,
        provider: Text,
    },
    Call {
        agent: NodeId,
        tool: Text,
        pid: Option<i64>,
        started: Option<i64>,
    },
    Process {
        parent: NodeId,
        pid: Option<i64>,
        name: Text,
    },
    Provider {
        name: Text,
    },
    /// All processes of a name.
    Program {
        provider: NodeId,
        name: Text,
    },
}

impl NodeKey {
    fn parent(&self) -> Option<NodeId> {
        match self {
            Self::Agent { .. } | Self::Provider { .. } => None,
            Self::Call { agent: parent, .. }
            | Self::Process { parent, .. }
            | Self::Program { provider: parent, .. } => Some(*parent),
        }
    }

    /// In words; names in it are as they came.
    pub fn label(&self) -> String {
        let with = |name: &str, pid: Option<i64>| match pid {
            Some(pid) => format!("{name} ({pid})"),
            None => name.to_owned(),
        };
        match self {
            Self::Agent { name: Some(name), pid, .. } | Self::Process { name, pid, .. } => with(name, *pid),
            Self::Agent { name: None, provider, .. } | Self::Provider { name: provider } => {
                provider.to_string()
            }
            Self::Call { tool, pid, .. } => with(tool, *pid),
            Self::Program { name, .. } => name.to_string(),
        }
    }
}

/// What the tree is made by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum TreeBy {
    #[default]
    Agent,
    Provider,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TreeOrder {
    /// Bytes a second, on average over the last 16 seconds; then the open ones.
    Recent,
    Open,
    Sent,
    Name,
}

impl TreeOrder {
    pub const ALL: [Self; 4] = [Self::Recent, Self::Open, Self::Sent, Self::Name];

    pub const fn word(self) -> &'static str {
        match self {
            Self::Recent => "recent",
            Self::Open => "open",
            Self::Sent => "sent",
            Self::Name => "name",
        }
    }
}

#[derive(Debug)]
pub struct Node {
    pub key: NodeKey,
    pub is_folded: bool,
    pub sums: Sums,
    children: Vec<NodeId>,
}

impl Node {
    pub fn has_children(&self) -> bool {
        !self.children.is_empty()
    }
}

/// A row of the tree.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TreeLine {
    pub node: NodeId,
    pub depth: usize,
}

#[derive(Debug, Default)]
pub struct Tree {
    nodes: Vec<Node>,
    ids: FxHashMap<NodeKey, NodeId>,
    roots: Vec<NodeId>,
}

impl Tree {
    pub fn node(&self, id: NodeId) -> Option<&Node> {
        self.nodes.get(id as usize)
    }

    pub fn node_mut(&mut self, id: NodeId) -> Option<&mut Node> {
        self.nodes.get_mut(id as usize)
    }

    pub fn parent(&self, id: NodeId) -> Option<NodeId> {
        self.node(id)?.key.parent()
    }

    fn id(&mut self, key: NodeKey) -> NodeId {
        if let Some(id) = self.ids.get(&key) {
            return *id;
        }
        let id = NodeId::try_from(self.nodes.len()).unwrap_or(NodeId::MAX);
        self.ids.insert(key.clone(), id);
        self.nodes.push(Node { key, is_folded: false, sums: Sums::default(), children: Vec::new() });
        id
    }

    /// The process of an event.
    fn leaf(&mut self, event: &StoredEvent, by: TreeBy) -> NodeId {
        let name = event.process_name().clone();
        if by == TreeBy::Provider {
            let provider = self.id(NodeKey::Provider { name: event.provider.clone() });
            return self.id(NodeKey::Program { provider, name });
        }
        let mut parent = self.id(NodeKey::Agent {
            name: event.agent.clone(),
            pid: event.agent_pid,
            provider: event.provider.clone(),
        });
        if let Some(tool) = &event.tool {
            let key = NodeKey::Call {
                agent: parent,
                tool: tool.clone(),
                pid: event.tool_pid,
                started: event.tool_started,
            };
            parent = self.id(key);
        }
        self.id(NodeKey::Process { parent, pid: event.pid, name })
    }

    /// Sums up anew.
    pub fn fill<'a>(&mut self, rows: impl Iterator<Item = &'a Connection>, by: TreeBy, now: i64) {
        for node in &mut self.nodes {
            node.sums = Sums::default();
            node.children.clear();
        }
        self.roots.clear();
        for row in rows {
            let mut at = self.leaf(&row.event, by);
            loop {
                let node = &mut self.nodes[at as usize];
                let is_first = node.sums.total == 0;
                node.sums.add(row, now);
                let parent = node.key.parent();
                if is_first {
                    match parent {
                        Some(parent) => self.nodes[parent as usize].children.push(at),
                        None => self.roots.push(at),
                    }
                }
                match parent {
                    Some(parent) => at = parent,
                    None => break,
                }
            }
        }
        // An agent that does everything itself is one row.
        for root in &self.roots {
            if let [only] = self.nodes[*root as usize].children[..]
                && self.is_agent_itself(only)
            {
                self.nodes[*root as usize].children.clear();
            }
        }
    }

    fn is_agent_itself(&self, id: NodeId) -> bool {
        let Some(NodeKey::Process { parent, pid: Some(pid), .. }) = self.node(id).map(|node| &node.key)
        else {
            return false;
        };
        matches!(self.node(*parent).map(|node| &node.key),
            Some(NodeKey::Agent { pid: Some(agent), name: Some(_), .. }) if agent == pid)
    }

    /// In words; names in it are as they came.
    pub fn label(&self, id: NodeId) -> String {
        match self.node(id) {
            Some(_) if self.is_agent_itself(id) => "itself".to_owned(),
            Some(node) => node.key.label(),
            None => String::new(),
        }
    }

    /// Whether what an event tells of lies at or below `node`.
    pub fn contains(&self, node: NodeId, event: &StoredEvent) -> bool {
        let Some(found) = self.node(node) else { return false };
        match &found.key {
            NodeKey::Agent { name, pid, provider } => {
                *name == event.agent && *pid == event.agent_pid && *provider == event.provider
            }
            NodeKey::Call { agent, tool, pid, started } => {
                event.tool.as_ref() == Some(tool)
                    && *pid == event.tool_pid
                    && *started == event.tool_started
                    && self.contains(*agent, event)
            }
            NodeKey::Process { parent, pid, name } => {
                // What the agent did itself is no part of a tool call of its own name.
                let is_direct = matches!(self.node(*parent), Some(Node { key: NodeKey::Agent { .. }, .. }));
                *pid == event.pid
                    && name == event.process_name()
                    && is_direct == event.tool.is_none()
                    && self.contains(*parent, event)
            }
            NodeKey::Provider { name } => *name == event.provider,
            NodeKey::Program { provider, name } => {
                name == event.process_name() && self.contains(*provider, event)
            }
        }
    }

    /// The rows that can be seen.
    pub fn lines(&self, order: TreeOrder, is_reversed: bool, now: i64) -> Vec<TreeLine> {
        let mut lines = Vec::new();
        self.list(&self.roots, 0, (order, is_reversed, now), &mut lines);
        lines
    }

    fn list(&self, nodes: &[NodeId], depth: usize, how: (TreeOrder, bool, i64), lines: &mut Vec<TreeLine>) {
        let (order, is_reversed, now) = how;
        let mut nodes = nodes.to_vec();
        // What is equal stays in the order of its first connection.
        nodes.sort_unstable();
        match order {
            TreeOrder::Recent => nodes.sort_by_cached_key(|id| {
                let sums = &self.nodes[*id as usize].sums;
                Reverse((sums.recent.per_second(now), sums.open))
            }),
            TreeOrder::Open => nodes.sort_by_key(|id| Reverse(self.nodes[*id as usize].sums.open)),
            TreeOrder::Sent => nodes.sort_by_key(|id| Reverse(self.nodes[*id as usize].sums.sent)),
            TreeOrder::Name => nodes.sort_by_cached_key(|id| self.nodes[*id as usize].key.label()),
        }
        if is_reversed {
            nodes.reverse();
        }
        for id in nodes {
            let node = &self.nodes[id as usize];
            lines.push(TreeLine { node: id, depth });
            if !node.is_folded {
                self.list(&node.children, depth + 1, how, lines);
            }
        }
    }
}
