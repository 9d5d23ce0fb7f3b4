//! Endpoints that agents have reached before, as the history tells.

use std::collections::HashSet;
use std::hash::{BuildHasher as _, RandomState};
use std::net::SocketAddr;

use crate::connection::Connection;
use crate::event::{Address, DomainSource};

/// About 16 bytes each. Of a history that has more, what is left out counts as new.
const MOST: usize = 1 << 21;

/// One of them, as a history or a connection has it.
#[derive(Debug, Clone, Copy)]
pub struct Reached<'a> {
    /// Empty where it was not noted: then it counts for every agent.
    pub agent: &'a str,
    /// That somebody vouched for; what a reverse look-up says is none.
    pub name: Option<&'a str>,
    /// `None` where that is no address with a port.
    pub remote: Option<SocketAddr>,
}

impl<'a> Reached<'a> {
    /// `None` where no agent reached it.
    pub fn by(connection: &'a Connection) -> Option<Self> {
        let call = connection.process.as_ref()?.call.as_ref()?;
        let name = connection.name.as_ref().filter(|known| known.by != DomainSource::Ptr);
        let name = name.filter(|_| !connection.is_hearsay).map(|known| &*known.name);
        let remote = match connection.remote {
            Some(Address::Ip(remote)) => Some(remote),
            Some(Address::Host(_) | Address::Path(_)) | None => None,
        };
        (name.is_some() || remote.is_some()).then_some(Self { agent: &call.agent, name, remote })
    }

    /// What is kept of it.
    fn marks(self) -> impl Iterator<Item = Mark<'a>> {
        let named = self.name.map(Mark::Name);
        let bare = self.remote.filter(|_| self.name.is_none()).map(Mark::Bare);
        named.into_iter().chain(bare).chain(self.remote.map(Mark::Any))
    }

    /// One of these says that it was reached before: its name, or its address while it had none.
    fn evidence(self) -> [Option<Mark<'a>>; 2] {
        match self.name {
            Some(name) => [Some(Mark::Name(name)), self.remote.map(Mark::Bare)],
            None => [self.remote.map(Mark::Any), None],
        }
    }
}

#[derive(Debug, Clone, Copy, Hash)]
enum Mark<'a> {
    Name(&'a str),
    /// An address that had no name then.
    Bare(SocketAddr),
    Any(SocketAddr),
}

/// The set of them, by hash: keyed, so that nobody can make up a name that passes for another.
#[derive(Debug, Clone, Default)]
pub struct SeenEndpoints {
    marks: HashSet<u64>,
    hasher: RandomState,
}

impl SeenEndpoints {
    pub fn is_empty(&self) -> bool {
        self.marks.is_empty()
    }

    pub fn add(&mut self, reached: Reached<'_>) {
        for mark in reached.marks() {
            if self.marks.len() < MOST {
                self.marks.insert(self.hasher.hash_one((reached.agent, mark)));
            }
        }
    }

    pub fn has(&self, reached: Reached<'_>) -> bool {
        let of = |agent: &str, mark: Mark<'_>| self.marks.contains(&self.hasher.hash_one((agent, mark)));
        reached.evidence().into_iter().flatten().any(|mark| of(reached.agent, mark) || of("", mark))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reached<'a>(agent: &'a str, name: &'a str, remote: &str) -> Reached<'a> {
        let name = Some(name).filter(|name| !name.is_empty());
        Reached { agent, name, remote: remote.parse().ok() }
    }

    #[test]
    fn an_endpoint_is_its_name_or_address_and_port_for_one_agent() {
        let mut seen = SeenEndpoints::default();
        assert!(seen.is_empty());
        seen.add(reached("claude", "api.example.com", "192.0.2.1:443"));
        seen.add(reached("claude", "", "192.0.2.9:443"));
        seen.add(reached("", "old.example", "192.0.2.5:443"));
        for (agent, name, remote, expected) in [
            ("claude", "api.example.com", "192.0.2.2:443", true),
            ("codex", "api.example.com", "192.0.2.1:443", false),
            ("claude", "other.example", "192.0.2.1:443", false),
            // Nobody knows its name today.
            ("claude", "", "192.0.2.1:443", true),
            ("claude", "", "192.0.2.1:8443", false),
            // Nobody knew its name then.
            ("claude", "named.example", "192.0.2.9:443", true),
            ("codex", "old.example", "192.0.2.6:443", true),
        ] {
            assert_eq!(seen.has(reached(agent, name, remote)), expected, "{agent} {name} {remote}");
        }
    }
}
