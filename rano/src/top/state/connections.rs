//! The latest connections, put together from stored events.

use rustc_hash::FxHashMap;

use super::event::{Key, StoredEvent};
use super::recent::Recent;
use crate::event::EventKind;
use crate::store::query::connections::Standing;

/// Connections that are kept; of more, those that ended first go.
pub const CONNECTIONS_MAX: usize = 20_000;

#[derive(Debug, Clone)]
pub struct Connection {
    /// Of the first event that was read of it.
    pub id: i64,
    /// The latest one.
    pub event: StoredEvent,
    /// Unix milliseconds.
    pub opened_at: i64,
    pub ended_at: Option<i64>,
    pub standing: Standing,
    pub accepted: bool,
    pub alert: bool,
    pub recent: Recent,
}

impl Connection {
    fn new(event: StoredEvent, kind: EventKind) -> Self {
        let standing = match kind {
            EventKind::Connect | EventKind::Accept => Standing::Open,
            EventKind::Listen => Standing::Listening,
            EventKind::Close => Standing::Closed,
            EventKind::Fail => Standing::Failed,
        };
        let has_ended = matches!(standing, Standing::Closed | Standing::Failed);
        Self {
            id: event.id,
            opened_at: event.at.saturating_sub(event.duration.unwrap_or(0)),
            ended_at: has_ended.then_some(event.at),
            standing,
            accepted: kind == EventKind::Accept,
            alert: event.alert,
            recent: Recent::default(),
            event,
        }
    }

    pub fn is_open(&self) -> bool {
        self.standing == Standing::Open
    }

    /// Returns what it sent and received since.
    fn update(&mut self, event: StoredEvent, before: (u64, u64), at: i64) -> (u64, u64) {
        let bytes = event.bytes();
        let more = (bytes.0.saturating_sub(before.0), bytes.1.saturating_sub(before.1));
        self.recent.add(at, more.0.saturating_add(more.1));
        self.alert |= event.alert;
        self.event = event;
        more
    }

    /// How long it is or was open, in milliseconds.
    pub fn duration(&self, now: i64) -> i64 {
        let end = self.ended_at.unwrap_or(now);
        self.event.duration.unwrap_or(end.saturating_sub(self.opened_at)).max(0)
    }
}

#[derive(Debug, Default)]
pub struct Connections {
    rows: Vec<Connection>,
    open: FxHashMap<Key, usize>,
    by_event: FxHashMap<i64, usize>,
    sent: Recent,
    received: Recent,
    /// Connections that are not kept any more.
    pub left_out: u64,
}

impl Connections {
    pub fn rows(&self) -> &[Connection] {
        &self.rows
    }

    pub fn by_id(&self, id: i64) -> Option<&Connection> {
        // Ids grow with the rows, but for ends whose beginning was not read: look at each.
        self.rows.iter().find(|row| row.id == id)
    }

    /// A new event.
    pub fn apply(&mut self, event: StoredEvent) {
        let Some(kind) = event.kind else { return };
        let (id, at) = (event.id, event.at);
        let known = if kind == EventKind::Close { self.open.remove(&event.key()) } else { None };
        let index = if let Some(index) = known {
            let row = &mut self.rows[index];
            self.by_event.remove(&row.event.id);
            let before = row.event.bytes();
            let (sent, received) = row.update(event, before, at);
            self.sent.add(at, sent);
            self.received.add(at, received);
            row.standing = Standing::Closed;
            row.ended_at = Some(at);
            index
        } else {
            let mut row = Connection::new(event.clone(), kind);
            let (sent, received) = row.update(event, (0, 0), at);
            self.sent.add(at, sent);
            self.received.add(at, received);
            if row.is_open() {
                self.open.insert(row.event.key(), self.rows.len());
            }
            self.rows.push(row);
            self.rows.len() - 1
        };
        self.by_event.insert(id, index);
        if self.rows.len() > CONNECTIONS_MAX + CONNECTIONS_MAX / 8 {
            self.forget();
        }
    }

    /// An event that was read again: its bytes so far, its name.
    pub fn refresh(&mut self, event: StoredEvent, now: i64) {
        if let Some(row) = self.by_event.get(&event.id).and_then(|index| self.rows.get_mut(*index)) {
            let before = row.event.bytes();
            let (sent, received) = row.update(event, before, now);
            self.sent.add(now, sent);
            self.received.add(now, received);
        }
    }

    /// Bytes a second that are sent and received, on average over the last seconds.
    pub fn rates(&self, now: i64) -> (u64, u64) {
        (self.sent.per_second(now), self.received.per_second(now))
    }

    fn forget(&mut self) {
        let mut surplus = self.rows.len() - CONNECTIONS_MAX;
        let before = self.rows.len();
        self.rows.retain(|row| {
            let goes = surplus > 0 && !row.is_open();
            surplus -= usize::from(goes);
            !goes
        });
        // All of them are open: the oldest go.
        self.rows.drain(..surplus);
        self.left_out += (before - self.rows.len()) as u64;
        self.open.clear();
        self.by_event.clear();
        for (index, row) in self.rows.iter().enumerate() {
            self.by_event.insert(row.event.id, index);
            if row.is_open() {
                self.open.insert(row.event.key(), index);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(id: i64, kind: EventKind, port: i64, sent: i64) -> StoredEvent {
        StoredEvent {
            id,
            at: 1000 * id,
            kind: Some(kind),
            pid: Some(7),
            local: (Some("10.0.0.1".into()), Some(port)),
            remote: (Some("192.0.2.1".into()), Some(443)),
            sent: Some(sent),
            ..StoredEvent::default()
        }
    }

    #[test]
    fn an_end_finds_its_beginning() {
        let mut connections = Connections::default();
        connections.apply(event(1, EventKind::Connect, 1, 0));
        connections.apply(event(2, EventKind::Connect, 2, 0));
        connections.refresh(event(1, EventKind::Connect, 1, 320), 2500);
        connections.apply(event(3, EventKind::Close, 1, 480));
        // Its beginning was before what was read.
        connections.apply(StoredEvent { duration: Some(2500), ..event(4, EventKind::Close, 9, 5) });
        connections.apply(event(5, EventKind::Fail, 3, 0));
        let standing: Vec<_> =
            connections.rows().iter().map(|row| (row.id, row.standing.word(), row.duration(9000))).collect();
        assert_eq!(standing, [(1, "closed", 2000), (2, "open", 7000), (4, "closed", 2500), (5, "failed", 0)]);
        assert_eq!(connections.rows()[0].recent.per_second(4000), 30);
    }

    #[test]
    fn those_that_ended_first_go_first() {
        let mut connections = Connections::default();
        connections.apply(event(1, EventKind::Connect, 1, 0));
        for id in 2..30_000 {
            connections.apply(event(id, EventKind::Fail, 2, 0));
        }
        assert!(connections.rows().len() <= CONNECTIONS_MAX + CONNECTIONS_MAX / 8);
        assert_eq!(connections.left_out + connections.rows().len() as u64, 29_999);
        assert_eq!(connections.rows()[0].id, 1, "an open one stays");
        connections.apply(event(30_000, EventKind::Close, 1, 0));
        assert_eq!(connections.rows()[0].standing, Standing::Closed);
    }
}
