//! Who was talked to.

use std::cmp::Reverse;
use std::hash::BuildHasher as _;

use rustc_hash::{FxBuildHasher, FxHashMap, FxHashSet};

use super::connections::Connection;
use super::event::Text;
use super::sums::Sums;
use crate::attention::{self, Cause, Facts};
use crate::event::Class;
use crate::event::with_port;
use crate::store::query::connections::Standing;

/// What tells two endpoints apart.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct EndpointKey {
    /// Name, address, or word of a class.
    pub name: Text,
    pub port: Option<i64>,
    pub class: Class,
}

/// What connections are put together by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum EndpointBy {
    #[default]
    Name,
    Address,
    Class,
}

impl EndpointBy {
    pub const ALL: [Self; 3] = [Self::Name, Self::Address, Self::Class];

    pub const fn word(self) -> &'static str {
        match self {
            Self::Name => "name",
            Self::Address => "address",
            Self::Class => "class",
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EndpointOrder {
    /// Bytes a second, on average over the last 16 seconds; then the open ones, then the latest.
    Recent,
    Sent,
    Received,
    Total,
    Name,
}

impl EndpointOrder {
    pub const ALL: [Self; 5] = [Self::Recent, Self::Sent, Self::Received, Self::Total, Self::Name];

    pub const fn word(self) -> &'static str {
        match self {
            Self::Recent => "recent",
            Self::Sent => "sent",
            Self::Received => "received",
            Self::Total => "total",
            Self::Name => "name",
        }
    }
}

#[derive(Debug, Clone)]
pub struct Endpoint {
    pub key: EndpointKey,
    /// Its name is a guess.
    pub is_guess: bool,
    pub is_named: bool,
    /// It is only known from where, not to whom.
    pub has_peer: bool,
    /// No earlier session of this history has it.
    pub is_new: bool,
    pub sums: Sums,
    /// The process that talked to it last.
    pub last_by: Text,
}

impl Endpoint {
    pub fn label(&self) -> String {
        let mark = if self.is_guess { "~" } else { "" };
        format!("{mark}{}", with_port(&self.key.name, self.key.port))
    }

    /// Why it deserves a look. What is new has a mark of its own, and so have alerts.
    pub fn causes(&self) -> Vec<Cause> {
        if !self.has_peer {
            return Vec::new();
        }
        attention::causes(&Facts {
            class: self.key.class,
            connects: self.sums.total.saturating_sub(self.sums.fails),
            fails: self.sums.fails,
            bytes_sent: self.sums.sent,
            ..Facts::default()
        })
    }
}

/// Names and addresses that earlier sessions of the history talked to.
#[derive(Debug, Clone, Default)]
pub enum Earlier {
    /// There are too many to tell.
    #[default]
    Unknown,
    Known(FxHashSet<u64>),
}

impl Earlier {
    pub fn of<'a>(names: impl Iterator<Item = &'a str>) -> Self {
        Self::Known(names.map(|name| FxBuildHasher.hash_one(name)).collect())
    }

    pub fn is_new(&self, name: &str) -> bool {
        match self {
            Self::Unknown => false,
            Self::Known(names) => !names.contains(&FxBuildHasher.hash_one(name)),
        }
    }
}

/// A datagram socket may have sent to anybody.
fn has_peer(row: &Connection) -> bool {
    row.event.remote.0.is_some() || row.event.domain.is_some() || &*row.event.protocol == "unix"
}

/// What stands for a peer that is not known.
const NO_PEER: &str = "(no peer known)";

/// What a connection is counted under.
pub fn key(row: &Connection, by: EndpointBy) -> EndpointKey {
    let event = &row.event;
    let class = event.class.unwrap_or(Class::Unknown);
    let (address, port) = &event.remote;
    let address = || match address {
        Some(address) => address.clone(),
        None if has_peer(row) => event.local.0.clone().unwrap_or_default(),
        None => NO_PEER.into(),
    };
    match by {
        EndpointBy::Name => {
            let port = event.domain_port.or(*port);
            EndpointKey { name: event.domain.clone().unwrap_or_else(address), port, class }
        }
        EndpointBy::Address => EndpointKey { name: address(), port: *port, class },
        EndpointBy::Class => EndpointKey { name: class.name().into(), port: None, class },
    }
}

/// Sums by endpoint. What was accepted or is listened for is none.
pub fn endpoints<'a>(
    rows: impl Iterator<Item = &'a Connection>,
    by: EndpointBy,
    earlier: &Earlier,
    now: i64,
) -> Vec<Endpoint> {
    let mut places: FxHashMap<EndpointKey, usize> = FxHashMap::default();
    let mut found: Vec<Endpoint> = Vec::new();
    for row in rows.filter(|row| !row.accepted && row.standing != Standing::Listening) {
        let key = key(row, by);
        let index = *places.entry(key.clone()).or_insert_with(|| {
            let is_named = by == EndpointBy::Name && row.event.domain.is_some();
            found.push(Endpoint {
                is_guess: is_named && row.event.is_guess(),
                is_named,
                has_peer: has_peer(row),
                is_new: by != EndpointBy::Class && has_peer(row) && earlier.is_new(&key.name),
                key,
                sums: Sums::default(),
                last_by: Text::default(),
            });
            found.len() - 1
        });
        let endpoint = &mut found[index];
        // One that knows is enough.
        endpoint.is_guess &= row.event.is_guess();
        endpoint.sums.add(row, now);
        endpoint.last_by = row.event.process_name().clone();
    }
    found
}

pub fn sort(endpoints: &mut [Endpoint], order: EndpointOrder, is_reversed: bool, now: i64) {
    match order {
        EndpointOrder::Recent => endpoints.sort_by_cached_key(|it| {
            Reverse((it.sums.recent.per_second(now), it.sums.open, it.sums.last_at))
        }),
        EndpointOrder::Sent => endpoints.sort_by_key(|it| Reverse(it.sums.sent)),
        EndpointOrder::Received => endpoints.sort_by_key(|it| Reverse(it.sums.received)),
        EndpointOrder::Total => endpoints.sort_by_key(|it| Reverse(it.sums.total)),
        EndpointOrder::Name => endpoints.sort_by(|one, other| one.key.cmp(&other.key)),
    }
    if is_reversed {
        endpoints.reverse();
    }
}
