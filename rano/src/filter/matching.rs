//! Whether a filter holds of an event in memory. The store's translation gives the same answer from its columns.

use std::net::IpAddr;

use super::tree::{Node, NumberKey, Term, TextKey, WordKey};
use crate::connection::Connection;
use crate::event::{Address, Event, EventKind, SocketState};
use crate::process::{Call, Process};

/// What a filter can ask of an event; absent is `None`.
#[derive(Debug, Clone, Copy)]
pub struct Facts<'a> {
    kind: EventKind,
    connection: &'a Connection,
    process: Option<&'a Process>,
}

/// What stands for the command's name of a process that is not known, here as in every other place.
const NOBODY: &str = "unknown";

impl<'a> From<&'a Event> for Facts<'a> {
    fn from(event: &'a Event) -> Self {
        Self::of(event.kind, &event.connection)
    }
}

impl<'a> Facts<'a> {
    /// Of a connection, as an event of that kind tells of it.
    pub fn of(kind: EventKind, connection: &'a Connection) -> Self {
        Self { kind, connection, process: connection.process.as_deref() }
    }

    fn domain(&self) -> Option<&str> {
        self.connection.name.as_ref().map(|known| &*known.name)
    }

    fn comm(&self) -> &str {
        self.process.map_or(NOBODY, |process| &process.comm)
    }

    fn program(&self) -> &str {
        self.process.map_or(NOBODY, |process| &process.program)
    }

    fn call(&self) -> Option<&Call> {
        self.process?.call.as_deref()
    }

    fn word(&self, key: WordKey) -> Option<&'static str> {
        let connection = self.connection;
        Some(match key {
            WordKey::Type => connection.class.name(),
            WordKey::Protocol => connection.protocol.name(),
            WordKey::State => return connection.state.map(SocketState::name),
            WordKey::Event => self.kind.name(),
            WordKey::Source => connection.source.name(),
            WordKey::Quality => connection.owner_quality.name(),
        })
    }

    fn number(&self, key: NumberKey) -> Option<u64> {
        match key {
            NumberKey::Pid => self.process.map(|process| u64::from(process.id.pid)),
            NumberKey::Port => match self.connection.remote.as_ref()? {
                Address::Ip(address) => Some(u64::from(address.port())),
                Address::Host(_) | Address::Path(_) => None,
            },
            NumberKey::Sent => self.connection.bytes.map(|bytes| bytes.sent),
            NumberKey::Received => self.connection.bytes.map(|bytes| bytes.received),
            NumberKey::Duration => self
                .connection
                .duration()
                .map(|duration| u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)),
        }
    }

    fn ip(&self) -> Option<IpAddr> {
        self.connection.remote.as_ref().and_then(Address::ip_addr)
    }

    /// `text` is in ASCII lower case.
    fn has_anywhere(&self, text: &str) -> bool {
        let holds = |place: &str| place.to_ascii_lowercase().contains(text);
        self.domain().is_some_and(holds)
            || holds(self.comm())
            || holds(self.program())
            || self.process.is_some_and(|process| holds(&process.exe) || holds(&process.cmdline))
            || match &self.connection.remote {
                Some(Address::Ip(address)) => holds(&address.to_string()),
                Some(Address::Host(ip)) => holds(&ip.to_string()),
                Some(Address::Path(path)) => holds(path),
                None => false,
            }
    }
}

impl Node {
    pub(super) fn holds(&self, facts: &Facts<'_>) -> bool {
        match self {
            Self::All(nodes) => nodes.iter().all(|node| node.holds(facts)),
            Self::Any(nodes) => nodes.iter().any(|node| node.holds(facts)),
            Self::Not(node) => !node.holds(facts),
            Self::Term(term) => term.holds(facts),
        }
    }
}

impl Term {
    fn holds(&self, facts: &Facts<'_>) -> bool {
        match self {
            Self::Text(TextKey::Domain, globs) => {
                facts.domain().is_some_and(|name| globs.iter().any(|glob| glob.matches_name(name)))
            }
            Self::Text(TextKey::Provider, globs) => {
                globs.iter().any(|glob| glob.matches(&facts.connection.provider))
            }
            Self::Text(TextKey::Process, globs) => globs.iter().any(|glob| {
                glob.matches(facts.comm())
                    || glob.matches(facts.program())
                    || facts.process.is_some_and(|process| glob.matches_path(&process.exe))
            }),
            Self::Text(TextKey::Program, globs) => globs.iter().any(|glob| glob.matches(facts.program())),
            Self::Text(TextKey::Agent, globs) => {
                facts.call().is_some_and(|call| globs.iter().any(|glob| glob.matches(&call.agent)))
            }
            Self::Text(TextKey::Tool, globs) => {
                let tool = facts.call().and_then(|call| call.tool.as_ref());
                tool.is_some_and(|tool| globs.iter().any(|glob| glob.matches(&tool.cmdline)))
            }
            Self::Word(key, words) => facts.word(*key).is_some_and(|word| words.contains(&word)),
            Self::Number(key, ranges) => {
                facts.number(*key).is_some_and(|number| ranges.iter().any(|range| range.contains(number)))
            }
            Self::Ip(networks) => {
                facts.ip().is_some_and(|ip| networks.iter().any(|network| network.contains(ip)))
            }
            Self::Alert(alert) => facts.connection.alert == *alert,
            Self::Anywhere(text) => facts.has_anywhere(text),
        }
    }
}
