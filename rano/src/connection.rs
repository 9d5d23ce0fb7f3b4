//! A connection as it stands: who, where, since when, and how surely. It is shared as a snapshot: a holder sees no
//! later change.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use crate::moment::Moment;
use crate::process::{Process, ProcessId, provider};
use crate::words::{
    Address, Bytes, Class, ConnectionId, DomainSource, EventKind, KnownName, OwnerQuality, Protocol, Role,
    SocketState, SourceKind,
};

/// One socket's dealings with one other end; of a listener, the socket.
#[derive(Debug, Clone)]
pub struct Connection {
    /// Distinct within one observation.
    pub id: ConnectionId,
    /// Whether it reached out, was accepted, or listens.
    pub role: Role,
    /// `None` where the owner is not known.
    pub process: Option<Arc<Process>>,
    /// The outermost watched process it descends from, itself perhaps.
    pub tree: Option<ProcessId>,
    /// The provider on whose behalf it happens; `unknown` where there is none.
    pub provider: Arc<str>,
    /// Its transport.
    pub protocol: Protocol,
    /// The end on this machine.
    pub local: Option<Address>,
    /// The other end; `None` for listeners and unconnected datagram sockets.
    pub remote: Option<Address>,
    /// When it was established; while it is not, when it was first seen.
    pub since: Moment,
    /// Of the remote end: the best name, and how it is known.
    pub name: Option<KnownName>,
    /// Only other users' processes vouch for `name`: it neither classes the endpoint nor makes it known.
    pub is_hearsay: bool,
    /// Of a name that a proxy was asked for (`name` is by [`DomainSource::Proxy`]): the port that was asked for.
    /// `remote` is the proxy.
    pub domain_port: Option<u16>,
    /// It carries on what this watched process asked a proxy for, whose connection to the proxy stands for both.
    pub relay_for: Option<u32>,
    /// Other names it may go by: weaker ones, and those of which one is as likely as the other.
    pub others: Vec<KnownName>,
    /// What the remote end is.
    pub class: Class,
    /// So far; all of them once it has ended.
    pub bytes: Option<Bytes>,
    /// As last heard of; only TCP has one.
    pub state: Option<SocketState>,
    /// Which source told of it.
    pub source: SourceKind,
    /// How surely `process` is known.
    pub owner_quality: OwnerQuality,
    /// Its end will be noticed. There may be no room to follow one more.
    pub is_followed: bool,
    /// Older than the observation.
    pub preexisting: bool,
    /// Inode number of the network namespace.
    pub netns: u32,
    /// Who holds the other end of a unix socket, where that could be seen.
    pub peer_pid: Option<u32>,
    /// It gave reason for an alert.
    pub alert: bool,
    /// How it ended, if it has.
    pub ended: Option<End>,
}

/// How a connection ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct End {
    /// When, or when that was found out.
    pub at: Moment,
    /// From connect to close, where both are known.
    pub duration: Option<Duration>,
    /// The errno with which it failed or ended.
    pub error: Option<i32>,
    /// It was found out afterwards: `at` is when, and nothing is known of how.
    pub is_late: bool,
    /// It never was established.
    pub has_failed: bool,
}

impl Connection {
    /// One of which nothing else is known.
    pub fn new(id: ConnectionId, role: Role, protocol: Protocol, since: Moment) -> Self {
        Self {
            id,
            role,
            process: None,
            tree: None,
            provider: Arc::from(provider::UNKNOWN),
            protocol,
            local: None,
            remote: None,
            since,
            name: None,
            is_hearsay: false,
            domain_port: None,
            relay_for: None,
            others: Vec::new(),
            class: Class::Unknown,
            bytes: None,
            state: None,
            source: SourceKind::Proc,
            owner_quality: OwnerQuality::Unattributed,
            is_followed: true,
            preexisting: false,
            netns: 0,
            peer_pid: None,
            alert: false,
            ended: None,
        }
    }

    /// The kind of its first event: a failed attempt has only one.
    pub fn first_event(&self) -> EventKind {
        match self.role {
            Role::Connect if self.ended.is_some_and(|end| end.has_failed) => EventKind::Fail,
            Role::Connect => EventKind::Connect,
            Role::Accept => EventKind::Accept,
            Role::Listen => EventKind::Listen,
        }
    }

    /// The kind of its latest event.
    pub fn last_event(&self) -> EventKind {
        match self.first_event() {
            EventKind::Connect | EventKind::Accept if self.ended.is_some() => EventKind::Close,
            first => first,
        }
    }

    /// Both ends, of a connection between two ports.
    pub(crate) fn ends(&self) -> Option<(SocketAddr, SocketAddr)> {
        match (&self.local, &self.remote) {
            (Some(Address::Ip(local)), Some(Address::Ip(remote))) => Some((*local, *remote)),
            _ => None,
        }
    }

    /// The address of the other end, where it has one.
    pub fn remote_ip(&self) -> Option<IpAddr> {
        self.remote.as_ref()?.ip_addr()
    }

    /// The proxy through which it reaches what it is named after.
    pub fn via(&self) -> Option<SocketAddr> {
        match (&self.name, &self.remote) {
            (Some(known), Some(Address::Ip(remote))) if known.by == DomainSource::Proxy => Some(*remote),
            _ => None,
        }
    }

    /// From connect to close, where both are known.
    pub fn duration(&self) -> Option<Duration> {
        self.ended?.duration
    }

    /// Its duration is the least that it can have been: it began before the poll that found it.
    pub fn has_least_duration(&self) -> bool {
        self.source == SourceKind::Proc && self.duration().is_some()
    }

    /// The errno with which it failed or ended.
    pub fn error(&self) -> Option<i32> {
        self.ended?.error
    }

    /// Its end was found out afterwards.
    pub fn is_late(&self) -> bool {
        self.ended.is_some_and(|end| end.is_late)
    }
}
