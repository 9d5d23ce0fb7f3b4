//! Sums kept beside the rows, in the transaction that writes them, so that a report never scans what was counted
//! already: by hour and provider (`activity`), by actor and endpoint for each hour and for the whole session
//! (`traffic`), by port (`port_traffic`) and by process (`process_traffic`).

use std::sync::Arc;

use rusqlite::{Connection, params};
use rustc_hash::FxHashMap;

use super::intern::{Moved, References, integer};
use super::so_far::{Change, Place};
use crate::event::{Address, Bytes, Event, EventKind};

/// Rows are summed up by the hour of the Unix clock.
pub(super) const HOUR_MS: i64 = 3_600_000;

/// Stands for the hour where `traffic` sums up the whole session. No event has it: stored times begin with 1970.
pub(super) const WHOLE_SESSION: i64 = -1;

/// Bytes of one event that count in a sum: 2^53, so that a thousand absurd ones still do not overflow.
pub(super) const BYTES_MAX: i64 = 1 << 53;

#[derive(Debug, Clone, Copy, Default)]
struct Counts {
    connects: i64,
    closes: i64,
    fails: i64,
    accepts: i64,
    listens: i64,
    bytes_sent: i64,
    bytes_received: i64,
}

impl Counts {
    /// `sign` is 1, or -1 to take the event out again. Of an open connection the row of its first event has the bytes
    /// so far, then that of its end.
    fn add(&mut self, kind: EventKind, bytes: (i64, i64), sign: i64) {
        match kind {
            EventKind::Connect => self.connects += sign,
            EventKind::Close => self.closes += sign,
            EventKind::Fail => self.fails += sign,
            EventKind::Accept => self.accepts += sign,
            EventKind::Listen => self.listens += sign,
        }
        self.add_bytes((sign * bytes.0.clamp(0, BYTES_MAX), sign * bytes.1.clamp(0, BYTES_MAX)));
    }

    fn add_bytes(&mut self, (sent, received): Change) {
        self.bytes_sent += sent;
        self.bytes_received += received;
    }
}

/// The bytes in the row of an event: a first event has none yet.
pub(super) fn stored_bytes(event: &Event) -> Option<Bytes> {
    event.connection.bytes.filter(|_| matches!(event.kind, EventKind::Close | EventKind::Fail))
}

/// The first and the last time of connects, closes and fails.
#[derive(Debug, Clone, Copy, Default)]
struct Seen(Option<(i64, i64)>);

impl Seen {
    fn add(&mut self, kind: EventKind, ts: i64) {
        if is_of_connection(kind) {
            let (first, last) = self.0.unwrap_or((ts, ts));
            self.0 = Some((first.min(ts), last.max(ts)));
        }
    }
}

/// Not of the serving side.
fn is_of_connection(kind: EventKind) -> bool {
    matches!(kind, EventKind::Connect | EventKind::Close | EventKind::Fail)
}

#[derive(Debug, Clone, Copy, Default)]
struct Activity {
    first_event: i64,
    last_event: i64,
    seen: Seen,
    counts: Counts,
}

/// What the open transaction has added so far. In the measure of its batch.
#[derive(Debug, Default)]
pub(super) struct Rollup {
    /// By hour and provider.
    activity: FxHashMap<(i64, Arc<str>), Activity>,
    /// By hour, actor and endpoint.
    traffic: FxHashMap<(i64, i64, i64), (Counts, Seen)>,
    /// By provider and remote port.
    ports: FxHashMap<(Arc<str>, u16), (Counts, Seen)>,
    processes: FxHashMap<i64, (Counts, Seen)>,
}

impl Rollup {
    /// Forgets what a failed transaction had added.
    pub(super) fn clear(&mut self) {
        self.activity.clear();
        self.traffic.clear();
        self.ports.clear();
        self.processes.clear();
    }

    /// `row` is the event's id, `ts` its time as stored.
    pub(super) fn count(&mut self, event: &Event, references: &References, row: i64, ts: i64) {
        let hour = ts.div_euclid(HOUR_MS);
        let observed = &*event.connection;
        let bytes = stored_bytes(event);
        let bytes = bytes.map_or((0, 0), |bytes| (integer(bytes.sent), integer(bytes.received)));
        let activity = self.activity.entry((hour, Arc::clone(&observed.provider))).or_insert(Activity {
            first_event: row,
            last_event: row,
            seen: Seen::default(),
            counts: Counts::default(),
        });
        activity.first_event = activity.first_event.min(row);
        activity.last_event = row;
        activity.seen.add(event.kind, ts);
        activity.counts.add(event.kind, bytes, 1);
        let hourly = self.traffic.entry((hour, references.actor, references.endpoint)).or_default();
        hourly.0.add(event.kind, bytes, 1);
        let (counts, seen) =
            self.traffic.entry((WHOLE_SESSION, references.actor, references.endpoint)).or_default();
        counts.add(event.kind, bytes, 1);
        seen.add(event.kind, ts);
        if !is_of_connection(event.kind) {
            return;
        }
        let (counts, seen) = self.processes.entry(references.process).or_default();
        counts.add(event.kind, bytes, 1);
        seen.add(event.kind, ts);
        if let Some(Address::Ip(remote)) = &observed.remote {
            let (counts, seen) =
                self.ports.entry((Arc::clone(&observed.provider), remote.port())).or_default();
            counts.add(event.kind, bytes, 1);
            seen.add(event.kind, ts);
        }
    }

    /// The row of a first event, which was counted, got other bytes.
    pub(super) fn add_bytes(&mut self, place: &Place<'_>, change: Change) {
        let Place { ts, provider, process, actor, endpoint, port, is_accepted } = *place;
        let hour = ts.div_euclid(HOUR_MS);
        let provider: Arc<str> = provider.into();
        // The row is there: these are the limits of what has no events.
        let nothing = Activity { first_event: i64::MAX, last_event: 0, ..Activity::default() };
        self.activity.entry((hour, Arc::clone(&provider))).or_insert(nothing).counts.add_bytes(change);
        for hour in [hour, WHOLE_SESSION] {
            self.traffic.entry((hour, actor, endpoint)).or_default().0.add_bytes(change);
        }
        if is_accepted {
            return;
        }
        let seen = Seen(Some((ts, ts)));
        let (counts, _) = self.processes.entry(process).or_insert((Counts::default(), seen));
        counts.add_bytes(change);
        if let Some(port) = port {
            let (counts, _) = self.ports.entry((provider, port)).or_insert((Counts::default(), seen));
            counts.add_bytes(change);
        }
    }

    /// An event's endpoint got another name.
    pub(super) fn rename(&mut self, moved: &Moved) {
        let hour = moved.ts.div_euclid(HOUR_MS);
        for (endpoint, sign) in [(moved.from, -1), (moved.to, 1)] {
            for hour in [hour, WHOLE_SESSION] {
                let (counts, seen) = self.traffic.entry((hour, moved.actor, endpoint)).or_default();
                counts.add(moved.kind, moved.bytes, sign);
                if hour == WHOLE_SESSION && sign > 0 {
                    seen.add(moved.kind, moved.ts);
                }
            }
        }
    }

    /// Adds everything to the tables and starts anew.
    pub(super) fn write(&mut self, connection: &Connection, session: i64) -> rusqlite::Result<()> {
        let mut upsert = connection.prepare_cached(UPSERT_ACTIVITY)?;
        for ((hour, provider), activity) in self.activity.drain() {
            let Activity { first_event, last_event, seen, counts } = activity;
            let (first_seen, last_seen) = seen.0.unzip();
            upsert.execute(params![
                session,
                hour,
                provider,
                first_event,
                last_event,
                first_seen,
                last_seen,
                counts.connects,
                counts.closes,
                counts.fails,
                counts.accepts,
                counts.listens,
                counts.bytes_sent,
                counts.bytes_received,
            ])?;
        }
        let mut upsert = connection.prepare_cached(UPSERT_TRAFFIC)?;
        // In the order of the table's key: neighbours share a page.
        let mut traffic: Vec<_> = self.traffic.drain().collect();
        traffic.sort_unstable_by_key(|(key, _)| *key);
        for ((hour, actor, endpoint), (counts, seen)) in traffic {
            let (first_seen, last_seen) = seen.0.unzip();
            upsert.execute(params![
                session,
                hour,
                actor,
                endpoint,
                counts.connects,
                counts.closes,
                counts.fails,
                counts.accepts,
                counts.listens,
                counts.bytes_sent,
                counts.bytes_received,
                first_seen,
                last_seen,
            ])?;
        }
        let mut upsert = connection.prepare_cached(UPSERT_PORT)?;
        for ((provider, port), (counts, seen)) in self.ports.drain() {
            let (first_seen, last_seen) = seen.0.unzip();
            upsert.execute(params![
                session,
                provider,
                port,
                counts.connects,
                counts.closes,
                counts.fails,
                counts.bytes_sent,
                counts.bytes_received,
                first_seen,
                last_seen,
            ])?;
        }
        let mut upsert = connection.prepare_cached(UPSERT_PROCESS)?;
        let mut processes: Vec<_> = self.processes.drain().collect();
        processes.sort_unstable_by_key(|(process, _)| *process);
        for (process, (counts, seen)) in processes {
            let (first_seen, last_seen) = seen.0.unzip();
            upsert.execute(params![
                process,
                counts.connects,
                counts.closes,
                counts.fails,
                counts.bytes_sent,
                counts.bytes_received,
                first_seen,
                last_seen,
            ])?;
        }
        Ok(())
    }
}

const UPSERT_ACTIVITY: &str =
    "INSERT INTO activity (session, hour, provider, first_event, last_event, first_seen, last_seen,
                           connects, closes, fails, accepts, listens, bytes_sent, bytes_recv)
     VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14)
     ON CONFLICT DO UPDATE SET
         first_event = min(first_event, excluded.first_event),
         last_event  = max(last_event, excluded.last_event),
         first_seen  = ifnull(min(first_seen, excluded.first_seen), ifnull(first_seen, excluded.first_seen)),
         last_seen   = ifnull(max(last_seen, excluded.last_seen), ifnull(last_seen, excluded.last_seen)),
         connects    = connects + excluded.connects,
         closes      = closes + excluded.closes,
         fails       = fails + excluded.fails,
         accepts     = accepts + excluded.accepts,
         listens     = listens + excluded.listens,
         bytes_sent  = bytes_sent + excluded.bytes_sent,
         bytes_recv  = bytes_recv + excluded.bytes_recv";

const UPSERT_TRAFFIC: &str =
    "INSERT INTO traffic (session, hour, actor, endpoint, connects, closes, fails, accepts, listens, bytes_sent, bytes_recv,
                          first_seen, last_seen)
     VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13)
     ON CONFLICT DO UPDATE SET
         connects   = connects + excluded.connects,
         closes     = closes + excluded.closes,
         fails      = fails + excluded.fails,
         accepts    = accepts + excluded.accepts,
         listens    = listens + excluded.listens,
         bytes_sent = bytes_sent + excluded.bytes_sent,
         bytes_recv = bytes_recv + excluded.bytes_recv,
         first_seen = ifnull(min(first_seen, excluded.first_seen), ifnull(first_seen, excluded.first_seen)),
         last_seen  = ifnull(max(last_seen, excluded.last_seen), ifnull(last_seen, excluded.last_seen))";

const UPSERT_PORT: &str =
    "INSERT INTO port_traffic (session, provider, port, connects, closes, fails, bytes_sent, bytes_recv, first_seen, last_seen)
     VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10)
     ON CONFLICT DO UPDATE SET
         connects   = connects + excluded.connects,
         closes     = closes + excluded.closes,
         fails      = fails + excluded.fails,
         bytes_sent = bytes_sent + excluded.bytes_sent,
         bytes_recv = bytes_recv + excluded.bytes_recv,
         first_seen = min(first_seen, excluded.first_seen),
         last_seen  = max(last_seen, excluded.last_seen)";

const UPSERT_PROCESS: &str =
    "INSERT INTO process_traffic (process, connects, closes, fails, bytes_sent, bytes_recv, first_seen, last_seen)
     VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)
     ON CONFLICT DO UPDATE SET
         connects   = connects + excluded.connects,
         closes     = closes + excluded.closes,
         fails      = fails + excluded.fails,
         bytes_sent = bytes_sent + excluded.bytes_sent,
         bytes_recv = bytes_recv + excluded.bytes_recv,
         first_seen = min(first_seen, excluded.first_seen),
         last_seen  = max(last_seen, excluded.last_seen)";
