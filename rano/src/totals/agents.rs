//! What each agent has open, and how much it sends and receives.

use std::sync::Arc;

use rustc_hash::FxHashMap;

use super::{add, take};
use crate::connection::Connection;
use crate::event::{Address, Bytes};
use crate::process::ProcessId;

/// Agents that are counted; of a machine that runs more, the first ones.
const MOST: usize = 1 << 10;

/// An agent's process; `None` stands for whoever runs for none.
type Key = Option<ProcessId>;

#[derive(Debug, Clone, Default)]
pub(super) struct Agents {
    tallies: FxHashMap<Key, Tally>,
}

#[derive(Debug, Clone)]
struct Tally {
    name: Arc<str>,
    connects: u64,
    open: u64,
    bytes: Bytes,
    last: Option<Last>,
}

/// Where the latest connection went.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Last {
    /// As people are shown it: a guess has its sign.
    pub name: Option<Arc<str>>,
    pub remote: Option<Address>,
}

/// An agent at one moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AgentStanding {
    /// What it is called; empty for connections of no agent.
    pub name: Arc<str>,
    /// Of the agent's process.
    pub id: Option<ProcessId>,
    pub connects: u64,
    /// Connections without a close.
    pub open: u64,
    /// So far.
    pub bytes: Bytes,
    pub last: Option<Last>,
}

impl Agents {
    fn of(&mut self, connection: &Connection) -> Option<&mut Tally> {
        let call = connection.process.as_ref().and_then(|process| process.call.as_ref());
        let key = call.map(|call| call.agent_id);
        if !self.tallies.contains_key(&key) && self.tallies.len() >= MOST {
            return None;
        }
        let tally = self.tallies.entry(key).or_insert_with(|| Tally {
            name: call.map_or_else(|| Arc::from(""), |call| Arc::clone(&call.agent)),
            connects: 0,
            open: 0,
            bytes: Bytes::default(),
            last: None,
        });
        Some(tally)
    }

    pub(super) fn connected(&mut self, connection: &Connection) {
        if let Some(tally) = self.of(connection) {
            tally.connects += 1;
            tally.open += 1;
            tally.last = Some(last(connection));
        }
    }

    pub(super) fn closed(&mut self, connection: &Connection) {
        if let Some(tally) = self.of(connection) {
            tally.open = tally.open.saturating_sub(1);
        }
    }

    /// The latest connection may have got a name.
    pub(super) fn renamed(&mut self, connection: &Connection) {
        if let Some(tally) = self.of(connection)
            && tally.last.as_ref().is_some_and(|last| last.remote == connection.remote)
        {
            tally.last = Some(last(connection));
        }
    }

    pub(super) fn summed(&mut self, connection: &Connection, before: Bytes, bytes: Bytes) {
        if let Some(tally) = self.of(connection) {
            take(&mut tally.bytes, before);
            add(&mut tally.bytes, bytes);
        }
    }

    /// The ones with most open connections first, then those that made most; and how many there are.
    pub(super) fn top(&self, most: usize) -> (Vec<AgentStanding>, usize) {
        let standing = |(key, tally): (&Key, &Tally)| AgentStanding {
            name: Arc::clone(&tally.name),
            id: *key,
            connects: tally.connects,
            open: tally.open,
            bytes: tally.bytes,
            last: tally.last.clone(),
        };
        let mut rows: Vec<AgentStanding> = self.tallies.iter().map(standing).collect();
        rows.sort_by(|a, b| (b.open, b.connects).cmp(&(a.open, a.connects)).then_with(|| a.id.cmp(&b.id)));
        rows.truncate(most);
        (rows, self.tallies.len())
    }
}

fn last(connection: &Connection) -> Last {
    let name = connection.name.as_ref().map(crate::event::KnownName::shown);
    Last { name, remote: connection.remote.clone() }
}
