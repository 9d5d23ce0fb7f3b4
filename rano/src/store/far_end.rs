//! The far end of a connection as a row of `endpoint`.

use std::sync::Arc;

use rusqlite::{Connection, params};

use super::intern::{Host, find_or_insert};
use crate::event::{Class, DomainSource, Protocol};

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct EndpointKey {
    pub(super) protocol: Protocol,
    pub(super) remote: Option<Host>,
    pub(super) domain: Option<(Arc<str>, DomainSource)>,
    pub(super) class: Class,
    pub(super) peer_pid: Option<u32>,
    pub(super) domain_port: Option<u16>,
    pub(super) relay_for: Option<u32>,
}

impl EndpointKey {
    /// The id of its row, which is made if it is new.
    pub(super) fn row(&self, connection: &Connection) -> rusqlite::Result<i64> {
        let remote = self.remote.as_ref().map(Host::text);
        let far = FarEnd {
            protocol: self.protocol.name(),
            remote: remote.as_deref(),
            domain: self.domain.as_ref().map(|(name, by)| (name.as_ref(), by.name())),
            class: self.class,
            peer_pid: self.peer_pid,
            domain_port: self.domain_port,
            relay_for: self.relay_for,
        };
        endpoint(connection, &far)
    }
}

/// A row of `endpoint`.
pub(super) struct FarEnd<'a> {
    pub(super) protocol: &'a str,
    pub(super) remote: Option<&'a str>,
    /// A name and the word for how it became known.
    pub(super) domain: Option<(&'a str, &'a str)>,
    pub(super) class: Class,
    pub(super) peer_pid: Option<u32>,
    pub(super) domain_port: Option<u16>,
    pub(super) relay_for: Option<u32>,
}

pub(super) fn endpoint(connection: &Connection, far: &FarEnd<'_>) -> rusqlite::Result<i64> {
    find_or_insert(
        connection,
        "SELECT id FROM endpoint WHERE ifnull(remote, '') = ifnull(?2, '') AND protocol = ?1
             AND ifnull(domain, '') = ifnull(?3, '') AND ifnull(domain_source, '') = ifnull(?4, '')
             AND ifnull(type, '') = ?5 AND ifnull(peer_pid, 0) = ifnull(?6, 0)
             AND ifnull(domain_port, 0) = ifnull(?7, 0) AND ifnull(relay_for, 0) = ifnull(?8, 0)",
        "INSERT INTO endpoint (protocol, remote, domain, domain_source, type, peer_pid, domain_port, relay_for)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)",
        params![
            far.protocol,
            far.remote,
            far.domain.map(|(name, _)| name),
            far.domain.map(|(_, by)| by),
            far.class.name(),
            far.peer_pid,
            far.domain_port,
            far.relay_for
        ],
    )
}
