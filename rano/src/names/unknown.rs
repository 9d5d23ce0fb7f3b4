//! Endpoints of which nobody knows what they are: each is told of once, when its name has had its time to become known.

use std::collections::{HashSet, VecDeque};
use std::net::SocketAddr;

use crate::event::ConnectionId;
use crate::source::SocketId;

/// Endpoints that are remembered to have been told of; after that none is told of any more.
const TOLD_MAX: usize = 1 << 14;
/// Connections that wait for a name at a time; beyond that nothing is waited for.
const WAITING_MAX: usize = 1 << 14;

/// A connection that waits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Waiting {
    pub due_ns: u64,
    pub socket: SocketId,
    pub connection: ConnectionId,
}

/// What was told, and what waits.
#[derive(Debug, Default)]
pub struct UnknownEndpoints {
    told: HashSet<SocketAddr>,
    /// All wait equally long.
    waiting: VecDeque<Waiting>,
}

impl UnknownEndpoints {
    /// Whether the connection waits now; otherwise it is to be told at once, if [`Self::is_news`].
    pub fn wait(&mut self, waiting: Waiting) -> bool {
        let has_room = self.waiting.len() < WAITING_MAX;
        if has_room {
            self.waiting.push_back(waiting);
        }
        has_room
    }

    pub fn was_told(&self, endpoint: &SocketAddr) -> bool {
        self.told.contains(endpoint) || self.told.len() >= TOLD_MAX
    }

    /// Whether it is to be told; the next time it is not.
    pub fn is_news(&mut self, endpoint: SocketAddr) -> bool {
        self.told.len() < TOLD_MAX && self.told.insert(endpoint)
    }

    pub fn next_due(&self) -> Option<u64> {
        self.waiting.front().map(|waiting| waiting.due_ns)
    }

    pub fn take_due(&mut self, now_ns: u64) -> Option<Waiting> {
        self.waiting.pop_front_if(|waiting| waiting.due_ns <= now_ns)
    }
}
