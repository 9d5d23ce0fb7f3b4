//! What was reached: one endpoint, by one program, for one agent, with the sums of all connections that are alike.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use crate::connection::Connection;
use crate::names::classes::{Reach, reach};
use crate::words::{Address, Bytes, DomainSource};

/// A name and the word for how it is known.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Known {
    pub name: Arc<str>,
    pub by: Arc<str>,
}

/// Connections that are alike. All texts are from outside: escape them before showing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Contact {
    pub run_id: Arc<str>,
    /// The word of its transport.
    pub protocol: Arc<str>,
    /// An IP address, or a unix socket's path. Of what a proxy on this machine was asked for: the address that it was
    /// asked for, `None` where it was a name.
    pub remote: Option<Arc<str>>,
    pub port: Option<u16>,
    pub name: Option<Known>,
    /// Further names that it may go by.
    pub others: Vec<Known>,
    /// The word of the class, as it was shown and stored.
    pub class: Arc<str>,
    pub provider: Arc<str>,
    /// What a person calls the process.
    pub program: Arc<str>,
    pub exe: Option<Arc<str>>,
    pub command: Option<Arc<str>>,
    pub agent: Option<Arc<str>>,
    /// Command line of the tool call.
    pub tool: Option<Arc<str>>,
    pub pid: Option<u32>,
    pub seen: Seen,
}

/// How often, how much, when.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Seen {
    pub connects: u64,
    pub fails: u64,
    /// Of connections whose bytes are known.
    pub bytes: Option<Bytes>,
    /// Unix milliseconds.
    pub first: i64,
    pub last: i64,
}

impl Seen {
    /// Attempts, failed ones included.
    pub fn count(&self) -> u64 {
        self.connects.saturating_add(self.fails)
    }

    pub fn add(&mut self, other: &Self) {
        self.connects = self.connects.saturating_add(other.connects);
        self.fails = self.fails.saturating_add(other.fails);
        self.bytes = match (self.bytes, other.bytes) {
            (Some(one), Some(other)) => Some(Bytes {
                sent: one.sent.saturating_add(other.sent),
                received: one.received.saturating_add(other.received),
            }),
            (one, other) => one.or(other),
        };
        self.first = if self.first == 0 { other.first } else { self.first.min(other.first) };
        self.last = self.last.max(other.last);
    }
}

impl Contact {
    pub fn ip(&self) -> Option<IpAddr> {
        // A link-local address may carry its zone.
        let text = self.remote.as_deref()?.split('%').next()?;
        text.parse().ok().map(|ip: IpAddr| ip.to_canonical())
    }

    /// As the classes of endpoints want it.
    pub(super) fn address(&self) -> Option<Address> {
        match (self.ip(), self.port) {
            (Some(ip), Some(port)) => Some(Address::Ip(SocketAddr::new(ip, port))),
            (Some(ip), None) => Some(Address::Host(ip)),
            (None, _) => self.remote.clone().map(Address::Path),
        }
    }

    /// Everything that tells kinds of connections apart.
    pub fn is_like(&self, other: &Self) -> bool {
        let Self { run_id, protocol, remote, port, name, others, class, .. } = self;
        let Self { provider, program, exe, command, agent, tool, .. } = self;
        *run_id == other.run_id
            && *protocol == other.protocol
            && *remote == other.remote
            && *port == other.port
            && *name == other.name
            && *others == other.others
            && *class == other.class
            && *provider == other.provider
            && *program == other.program
            && *exe == other.exe
            && *command == other.command
            && *agent == other.agent
            && *tool == other.tool
    }

    /// What a proxy on this machine was asked for, if it is one: with the port there. Anybody can serve elsewhere and
    /// be asked for any name, so that a proxy there keeps its address for the rules.
    #[must_use]
    pub fn behind_proxy(mut self, port: Option<u16>) -> Self {
        let is_here = self.ip().is_some_and(|ip| reach(ip) == Reach::Host);
        if let Some(asked) = self.name.clone().filter(|known| &*known.by == DomainSource::Proxy.name()) {
            let is_address = asked.name.parse::<IpAddr>().is_ok();
            self.name = self.name.filter(|_| !is_address);
            if is_here {
                self.port = port;
                self.remote = is_address.then_some(asked.name);
            }
        }
        self
    }

    /// Of one connection as it stands.
    pub fn of(connection: &Connection, run_id: &Arc<str>) -> Option<Self> {
        let process = connection.process.as_deref()?;
        let call = process.call.as_deref();
        let (remote, port) = match connection.remote.as_ref()? {
            Address::Ip(address) => (address.ip().to_string().into(), Some(address.port())),
            Address::Host(ip) => (ip.to_string().into(), None),
            Address::Path(path) => (Arc::clone(path), None),
        };
        let known = |known: &crate::words::KnownName| Known {
            name: Arc::clone(&known.name),
            by: known.by.name().into(),
        };
        let has_failed = connection.ended.is_some_and(|end| end.has_failed);
        let text = |text: &str| (!text.is_empty()).then(|| Arc::from(text));
        let contact = Self {
            run_id: Arc::clone(run_id),
            protocol: connection.protocol.name().into(),
            remote: Some(remote),
            port,
            name: connection.name.as_ref().map(known),
            others: connection.others.iter().map(known).collect(),
            class: connection.class.name().into(),
            provider: Arc::clone(&connection.provider),
            program: process.program.as_str().into(),
            exe: text(&process.exe),
            command: text(&process.cmdline),
            agent: call.map(|call| Arc::clone(&call.agent)),
            tool: call.and_then(|call| call.tool.as_ref()).map(|tool| tool.cmdline.as_str().into()),
            pid: Some(process.id.pid),
            seen: Seen {
                connects: u64::from(!has_failed),
                fails: u64::from(has_failed),
                bytes: connection.bytes,
                first: connection.since.unix_ms,
                last: connection.ended.map_or(connection.since.unix_ms, |end| end.at.unix_ms),
            },
        };
        Some(contact.behind_proxy(connection.domain_port))
    }
}
