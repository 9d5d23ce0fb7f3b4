//! Endpoints by agent, for what is worth a look at the end: what went there, by whom, and what was odd about it.

use std::sync::Arc;

use rustc_hash::FxHashMap;

use super::{add, take};
use crate::connection::Connection;
use crate::event::{Address, Bytes, Class, DomainSource, KnownName, Protocol, Role};
use crate::process::{Process, ProcessId};

/// Endpoints that are kept, a few hundred bytes each; further ones are counted.
const MOST: usize = 1 << 12;

/// Far end, transport, the agent's name, and what a proxy at that end was asked for.
type Key = (Address, Protocol, Option<Arc<str>>, Option<(Arc<str>, u16)>);

/// One far end as one agent used it.
#[derive(Debug, Clone)]
pub struct EndpointTally {
    pub remote: Address,
    pub protocol: Protocol,
    /// Its latest one.
    pub name: Option<KnownName>,
    /// Of one behind a proxy; `remote` is the proxy.
    pub domain_port: Option<u16>,
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

/// Of what reached out: what came in has another far end each time.
fn key(connection: &Connection, asked: Option<(Arc<str>, u16)>) -> Option<Key> {
    if connection.role != Role::Connect {
        return None;
    }
    let remote = connection.remote.clone()?;
    let call = connection.process.as_ref()?.call.as_ref();
    Some((remote, connection.protocol, call.map(|call| Arc::clone(&call.agent)), asked))
}

#[derive(Debug, Clone, Default)]
pub struct Endpoints {
    tallies: FxHashMap<Key, EndpointTally>,
    /// Connects to others.
    pub others: u64,
}

impl Endpoints {
    fn of(&mut self, connection: &Connection) -> Option<&mut EndpointTally> {
        let process = connection.process.as_ref()?;
        let call = process.call.as_ref();
        let asked = || Some((Arc::clone(&connection.name.as_ref()?.name), connection.domain_port?));
        let key = key(connection, asked())?;
        if !self.tallies.contains_key(&key) && self.tallies.len() >= MOST {
            return None;
        }
        let tally = self.tallies.entry(key).or_insert_with_key(|(remote, protocol, ..)| EndpointTally {
            remote: remote.clone(),
            protocol: *protocol,
            name: None,
            domain_port: connection.domain_port,
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

    /// It was counted as one to the proxy, before it said what it wants there.
    pub(super) fn is_behind_proxy(&mut self, connection: &Connection) {
        let Some(proxy) = key(connection, None) else { return };
        let bytes = connection.bytes.unwrap_or_default();
        self.discount(&proxy, bytes);
        if let Some(tally) = self.of(connection) {
            tally.connects += 1;
            add(&mut tally.bytes, bytes);
        }
    }

    /// It was counted, and stands for no request of its own.
    pub(super) fn relayed(&mut self, connection: &Connection) {
        let asked = connection.name.as_ref().map(|known| Arc::clone(&known.name)).zip(connection.domain_port);
        if let Some(key) = key(connection, asked) {
            self.discount(&key, connection.bytes.unwrap_or_default());
        }
    }

    fn discount(&mut self, key: &Key, bytes: Bytes) {
        let Some(tally) = self.tallies.get_mut(key) else {
            self.others = self.others.saturating_sub(1);
            return;
        };
        tally.connects = tally.connects.saturating_sub(1);
        take(&mut tally.bytes, bytes);
        if tally.connects == 0 && tally.fails == 0 {
            self.tallies.remove(key);
        }
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
