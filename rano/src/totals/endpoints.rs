//! Endpoints by agent, for what is worth a look at the end: what went there, by whom, and what was odd about it.

use std::sync::Arc;

use rustc_hash::FxHashMap;

use super::{add, take};
use crate::connection::Connection;
use crate::event::{Address, Bytes, Class, DomainSource, KnownName, Protocol, Role};
use crate::process::{Process, ProcessId};

/// Endpoints that are kept, a few hundred bytes each; further ones are counted.
const MOST: usize = 1 << 12;

/// Far end, transport, and the agent's name.
type Key = (Address, Protocol, Option<Arc<str>>);

/// One far end as one agent used it.
#[derive(Debug, Clone)]
pub struct EndpointTally {
    pub remote: Address,
    pub protocol: Protocol,
    /// Its latest one.
    pub name: Option<KnownName>,
    pub class: Class,
    pub connects: u64,
    pub fails: u64,
    /// The errno of the latest failure.
    pub error: Option<i32>,
    pub bytes: Bytes,
    /// A connection to it gave reason for an alert.
    pub alert: bool,
    /// No earlier session has it, as far as that was asked.
    pub is_new: bool,
    pub agent: Option<(Arc<str>, ProcessId)>,
    /// Whose connection sent most, with what was known of it then.
    pub process: Option<Arc<Process>>,
    most: u64,
}

impl EndpointTally {
    /// That somebody vouched for.
    pub fn sure_name(&self) -> Option<&str> {
        self.name.as_ref().filter(|known| known.by != DomainSource::Ptr).map(|known| &*known.name)
    }
}

#[derive(Debug, Clone, Default)]
pub struct Endpoints {
    tallies: FxHashMap<Key, EndpointTally>,
    /// Connects to others.
    pub others: u64,
}

impl Endpoints {
    /// Of what reached out: what came in has another far end each time.
    fn of(&mut self, connection: &Connection) -> Option<&mut EndpointTally> {
        if connection.role != Role::Connect {
            return None;
        }
        let remote = connection.remote.clone()?;
        let process = connection.process.as_ref()?;
        let call = process.call.as_ref();
        let key = (remote, connection.protocol, call.map(|call| Arc::clone(&call.agent)));
        if !self.tallies.contains_key(&key) && self.tallies.len() >= MOST {
            return None;
        }
        let tally = self.tallies.entry(key).or_insert_with_key(|(remote, protocol, _)| EndpointTally {
            remote: remote.clone(),
            protocol: *protocol,
            name: None,
            class: connection.class,
            connects: 0,
            fails: 0,
            error: None,
            bytes: Bytes::default(),
            alert: false,
            is_new: false,
            agent: call.map(|call| (Arc::clone(&call.agent), call.agent_id)),
            process: Some(Arc::clone(process)),
            most: 0,
        });
        if connection.name.is_some() {
            tally.name.clone_from(&connection.name);
        }
        tally.class = connection.class;
        tally.alert |= connection.alert;
        Some(tally)
    }

    pub(super) fn connected(&mut self, connection: &Connection) {
        match self.of(connection) {
            Some(tally) => tally.connects += 1,
            None => self.others += 1,
        }
    }

    pub(super) fn failed(&mut self, connection: &Connection) {
        if let Some(tally) = self.of(connection) {
            tally.fails += 1;
            tally.error = connection.error().or(tally.error);
        }
    }

    /// Its name, its class or its mark changed.
    pub(super) fn changed(&mut self, connection: &Connection) {
        let _ = self.of(connection);
    }

    pub(super) fn summed(&mut self, connection: &Connection, before: Bytes, bytes: Bytes) {
        if let Some(tally) = self.of(connection) {
            take(&mut tally.bytes, before);
            add(&mut tally.bytes, bytes);
            if bytes.sent > tally.most {
                tally.most = bytes.sent;
                tally.process.clone_from(&connection.process);
            }
        }
    }

    pub fn all(&self) -> impl Iterator<Item = &EndpointTally> {
        self.tallies.values()
    }

    /// Marks those that are new.
    pub fn mark_new(&mut self, is_new: impl Fn(&EndpointTally) -> bool) {
        for tally in self.tallies.values_mut() {
            tally.is_new = is_new(tally);
        }
    }
}
