//! What open connections wait for, in the order in which it is due. All wait equally long, so a newcomer belongs at the
//! end but for a few that are told late; most leave before their time. Both are a matter of a few links.

use crate::change::SocketId;
use crate::event::ConnectionId;

const NONE: u32 = u32::MAX;

#[derive(Debug)]
struct Node {
    due: u64,
    connection: ConnectionId,
    socket: SocketId,
    before: u32,
    after: u32,
}

/// A place in [`Waits`], for as long as the connection waits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Place(u32);

/// As many places as there ever were at once.
#[derive(Debug)]
pub(super) struct Waits {
    nodes: Vec<Node>,
    free: Vec<u32>,
    first: u32,
    last: u32,
}

impl Waits {
    pub(super) const fn new() -> Self {
        Self { nodes: Vec::new(), free: Vec::new(), first: NONE, last: NONE }
    }

    /// `None` where there are as many as numbers.
    pub(super) fn insert(&mut self, due: u64, connection: ConnectionId, socket: SocketId) -> Option<Place> {
        let mut before = self.last;
        while before != NONE && self.node(before).due > due {
            before = self.node(before).before;
        }
        let after = if before == NONE { self.first } else { self.node(before).after };
        let node = Node { due, connection, socket, before, after };
        let place = if let Some(place) = self.free.pop() {
            *self.node(place) = node;
            place
        } else {
            let place = u32::try_from(self.nodes.len()).ok().filter(|place| *place != NONE)?;
            self.nodes.push(node);
            place
        };
        self.link(before, place, after);
        Some(Place(place))
    }

    pub(super) fn remove(&mut self, Place(place): Place) {
        let Node { before, after, .. } = *self.node(place);
        if before == NONE {
            self.first = after;
        } else {
            self.node(before).after = after;
        }
        if after == NONE {
            self.last = before;
        } else {
            self.node(after).before = before;
        }
        self.free.push(place);
    }

    /// When the next one is due.
    pub(super) fn next_due(&self) -> Option<u64> {
        self.nodes.get(self.first as usize).map(|node| node.due)
    }

    /// Takes the first one out.
    pub(super) fn take_first(&mut self) -> Option<(u64, ConnectionId, SocketId)> {
        let node = self.nodes.get(self.first as usize)?;
        let taken = (node.due, node.connection, node.socket);
        self.remove(Place(self.first));
        Some(taken)
    }

    fn link(&mut self, before: u32, place: u32, after: u32) {
        if before == NONE {
            self.first = place;
        } else {
            self.node(before).after = place;
        }
        if after == NONE {
            self.last = place;
        } else {
            self.node(after).before = place;
        }
    }

    fn node(&mut self, place: u32) -> &mut Node {
        &mut self.nodes[place as usize]
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn it_is_an_ordered_set_that_forgets() {
        let mut waits = Waits::new();
        let mut expected = BTreeSet::new();
        let mut places = Vec::new();
        let mut random = 1u32;
        for connection in 0..2_000u64 {
            random = random.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            let due = connection * 10 + u64::from(random >> 24);
            let socket = SocketId::Cookie { netns: 1, cookie: connection };
            places.push((waits.insert(due, ConnectionId(connection), socket).unwrap(), due, connection));
            expected.insert((due, connection));
            if random & 3 != 0 {
                let (place, due, connection) = places.swap_remove((random >> 8) as usize % places.len());
                waits.remove(place);
                expected.remove(&(due, connection));
            }
        }
        assert!(waits.nodes.len() < 1_000, "places are used again");
        let mut dues = Vec::new();
        while let Some(due) = waits.next_due() {
            let (taken, connection, _) = waits.take_first().unwrap();
            assert_eq!(taken, due);
            assert!(expected.remove(&(due, connection.0)));
            dues.push(due);
        }
        assert!(dues.is_sorted() && expected.is_empty() && !dues.is_empty());
    }
}
