//! The connections that are open, and those that ended a moment ago: each is in one place, with the notes that naming
//! and alerting keep about it. Bounded and counted.

use std::hash::BuildHasher as _;
use std::sync::Arc;
use std::time::Duration;

use hashbrown::HashTable;
use rustc_hash::{FxBuildHasher, FxHashSet};

use super::NamingNotes;
use crate::alerts::Notes;
use crate::bounded::FastBounded;
use crate::connection::Connection;
use crate::event::{ConnectionId, Moment, Protocol};
use crate::source::{Open, Role, SocketId};
use crate::totals::Summed;

/// More open connections than this are still shown, but their ends are not noticed. Those that are nobody's leave half
/// of the room to those of watched processes.
const OPEN_MAX: usize = 1 << 18;
const UNATTRIBUTED_MAX: usize = OPEN_MAX / 2;
/// How long a connection that has ended is kept for names that come late.
const LINGER: Duration = Duration::from_secs(5);
/// Ended connections that are kept; the oldest goes first.
const LINGERING_MAX: usize = 4096;

/// A connection, and what is noted of it.
#[derive(Debug)]
pub(super) struct Entry {
    pub(super) socket: SocketId,
    pub(super) connection: Arc<Connection>,
    /// A connect event was sent, so that a close will follow.
    pub(super) is_connected: bool,
    /// Its end will be noticed.
    pub(super) is_kept: bool,
    pub(super) naming: NamingNotes,
    pub(super) alerts: Notes,
    pub(super) summed: Summed,
}

impl Entry {
    /// The connection, to be changed: whoever holds the one before keeps it as it was.
    pub(super) fn change(&mut self) -> &mut Connection {
        Arc::make_mut(&mut self.connection)
    }

    /// An attempt of which it is not known yet what becomes of it.
    pub(super) fn is_pending(&self) -> bool {
        self.connection.role == Role::Connect && !self.is_connected
    }
}

/// One that has ended.
#[derive(Debug)]
struct Lingering {
    /// Boot clock.
    until_ns: u64,
    entry: Box<Entry>,
}

/// What had no room.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Overflow {
    /// Connections whose end will not be noticed, those of excluded processes included.
    pub(super) open: u64,
    /// Ended connections that made room before their time.
    pub(super) lingering: u64,
}

/// Every connection whose end, or whose name, may yet be told.
pub(super) struct LiveTable {
    /// By socket, which each has in itself.
    open: HashTable<Box<Entry>>,
    lingering: FastBounded<SocketId, Lingering>,
    /// Open connections of excluded processes, which were counted.
    excluded: FxHashSet<SocketId>,
    no_room: u64,
}

impl Default for LiveTable {
    fn default() -> Self {
        Self {
            open: HashTable::new(),
            lingering: FastBounded::new(LINGERING_MAX),
            excluded: FxHashSet::default(),
            no_room: 0,
        }
    }
}

fn hash(socket: SocketId) -> u64 {
    FxBuildHasher.hash_one(socket)
}

impl LiveTable {
    fn get(&self, socket: SocketId) -> Option<&Entry> {
        self.open.find(hash(socket), |entry| entry.socket == socket).map(|entry| &**entry)
    }

    pub(super) fn is_open(&self, socket: SocketId) -> bool {
        self.get(socket).is_some()
    }

    /// Whether one more could be kept; one that cannot is counted.
    pub(super) fn has_room(&mut self, is_attributed: bool) -> bool {
        let most = if is_attributed { OPEN_MAX } else { UNATTRIBUTED_MAX };
        let has_room = self.open.len() < most;
        self.no_room += u64::from(!has_room);
        has_room
    }

    /// In the place of an open one of the same socket, if there is one.
    pub(super) fn insert(&mut self, entry: Entry) {
        self.remove(entry.socket);
        let socket = entry.socket;
        self.open.insert_unique(hash(socket), Box::new(entry), |entry| hash(entry.socket));
    }

    pub(super) fn get_mut(&mut self, socket: SocketId) -> Option<&mut Entry> {
        self.open.find_mut(hash(socket), |entry| entry.socket == socket).map(|entry| &mut **entry)
    }

    /// Takes an open one out: it has ended.
    pub(super) fn remove(&mut self, socket: SocketId) -> Option<Box<Entry>> {
        let found = self.open.find_entry(hash(socket), |entry| entry.socket == socket);
        found.ok().map(|found| found.remove().0)
    }

    /// The open one, else the one that ended.
    pub(super) fn find(&self, socket: SocketId) -> Option<&Entry> {
        self.get(socket).or_else(|| Some(&self.lingering.get(&socket)?.entry))
    }

    /// The open one, else the one that ended.
    pub(super) fn find_mut(&mut self, socket: SocketId) -> Option<&mut Entry> {
        let Self { open, lingering, .. } = self;
        match open.find_mut(hash(socket), |entry| entry.socket == socket) {
            Some(entry) => Some(entry),
            None => Some(&mut lingering.get_mut(&socket)?.entry),
        }
    }

    /// The connection of that number, open or ended: its socket may have been opened again since.
    pub(super) fn numbered_mut(&mut self, socket: SocketId, id: ConnectionId) -> Option<&mut Entry> {
        let Self { open, lingering, .. } = self;
        let ended = lingering.get_mut(&socket).map(|lingering| &mut lingering.entry);
        let open = open.find_mut(hash(socket), |entry| entry.socket == socket);
        open.into_iter().chain(ended).map(|entry| &mut **entry).find(|entry| entry.connection.id == id)
    }

    pub(super) fn is_lingering(&self, socket: SocketId) -> bool {
        self.lingering.get(&socket).is_some()
    }

    /// Keeps one that ended for a while. Returns those that had to make room.
    pub(super) fn linger(
        &mut self,
        entry: Box<Entry>,
        now: Moment,
    ) -> impl Iterator<Item = Box<Entry>> + use<> {
        let until_ns = now.boot_ns.saturating_add(u64::try_from(LINGER.as_nanos()).unwrap_or(u64::MAX));
        let before = self.lingering.remove(&entry.socket);
        let gone = self.lingering.insert(entry.socket, Lingering { until_ns, entry });
        before.into_iter().chain(gone).map(|lingering| lingering.entry)
    }

    /// Lets those go that were kept long enough.
    pub(super) fn passed(&mut self, now: Moment) {
        while self.lingering.take_oldest_if(|lingering| lingering.until_ns < now.boot_ns).is_some() {}
    }

    /// Whether an open connection of an excluded process is new. One that finds no room may be so again, and is
    /// counted.
    pub(super) fn is_newly_excluded(&mut self, socket: SocketId) -> bool {
        let is_new = !self.excluded.contains(&socket);
        if is_new {
            let has_room = self.excluded.len() < OPEN_MAX;
            self.no_room += u64::from(!has_room);
            if has_room {
                self.excluded.insert(socket);
            }
        }
        is_new
    }

    pub(super) fn forget_excluded(&mut self, socket: SocketId) {
        self.excluded.remove(&socket);
    }

    /// The open ones of a protocol.
    pub(super) fn of(&self, protocol: Protocol) -> Vec<Open> {
        let of_protocol = self.open.iter().filter(|entry| entry.connection.protocol == protocol);
        of_protocol
            .map(|entry| Open {
                id: entry.socket,
                is_pending: entry.is_pending(),
                ends: entry.connection.ends(),
            })
            .collect()
    }

    /// Attempts that are under way, in the order in which they began.
    pub(super) fn pending(&self) -> Vec<SocketId> {
        let mut pending: Vec<&Entry> =
            self.open.iter().map(|entry| &**entry).filter(|entry| entry.is_pending()).collect();
        pending.sort_unstable_by_key(|entry| entry.connection.id);
        pending.into_iter().map(|entry| entry.socket).collect()
    }

    /// Whether any connection is open.
    pub(super) fn is_empty(&self) -> bool {
        self.open.is_empty()
    }

    /// Connections that are open and of which it is not known how many bytes they have sent and received.
    pub(super) fn uncounted(&self) -> u64 {
        self.open.iter().filter(|entry| entry.is_connected && entry.connection.bytes.is_none()).count() as u64
    }

    pub(super) fn overflow(&self) -> Overflow {
        Overflow { open: self.no_room, lingering: self.lingering.pushed_out() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> Moment {
        Moment { boot_ns: seconds * 1_000_000_000, unix_ms: 0 }
    }

    fn entry(number: u64) -> Entry {
        let connection = Connection::new(ConnectionId(number), Role::Connect, Protocol::Tcp, at(0));
        Entry {
            socket: SocketId::Cookie { netns: 1, cookie: number % 10_000 },
            connection: Arc::new(connection),
            is_connected: true,
            is_kept: true,
            naming: NamingNotes::default(),
            alerts: Notes::default(),
            summed: Summed::default(),
        }
    }

    fn boxed(number: u64) -> Box<Entry> {
        Box::new(entry(number))
    }

    #[test]
    fn an_ended_connection_is_found_for_five_seconds() {
        let mut table = LiveTable::default();
        let socket = entry(1).socket;
        assert_eq!(table.linger(boxed(1), at(10)).count(), 0);
        table.passed(at(15));
        assert!(table.find(socket).is_some() && table.is_lingering(socket) && !table.is_open(socket));
        table.passed(at(16));
        assert!(table.find(socket).is_none());
        assert_eq!(table.overflow(), Overflow::default());
    }

    #[test]
    fn of_a_socket_that_was_opened_again_both_connections_are_known_by_number() {
        let mut table = LiveTable::default();
        let (socket, again) = (entry(1).socket, 10_001);
        let _ = table.linger(boxed(1), at(1));
        table.insert(entry(again));
        let mut number = |id| table.numbered_mut(socket, ConnectionId(id)).map(|entry| entry.connection.id.0);
        assert_eq!((number(1), number(again), number(2)), (Some(1), Some(again), None));
        assert_eq!(table.find(socket).map(|entry| entry.connection.id.0), Some(again));
    }

    #[test]
    fn a_flood_of_ends_pushes_out_the_oldest_which_is_counted() {
        let mut table = LiveTable::default();
        let gone: Vec<u64> = (0..5_000)
            .flat_map(|number| table.linger(boxed(number), at(1)))
            .map(|entry| entry.connection.id.0)
            .collect();
        assert_eq!(gone, (0..5_000 - LINGERING_MAX as u64).collect::<Vec<_>>());
        assert_eq!(table.overflow().lingering, gone.len() as u64);
        let twice = table.linger(boxed(14_999), at(1)).map(|entry| entry.connection.id.0);
        assert_eq!(twice.collect::<Vec<_>>(), [4_999], "of the same socket");
    }

    #[test]
    fn a_holder_keeps_the_connection_as_it_was() {
        let mut entry = entry(1);
        let held = Arc::clone(&entry.connection);
        entry.change().alert = true;
        assert!(entry.connection.alert && !held.alert);
    }
}
