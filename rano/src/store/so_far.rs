//! The bytes of connections that are still open stand in the row of their first event, and in the sums, until the row
//! of their end has all of them. So a session that is killed has what was read last.

use rusqlite::{Connection, params};
use rustc_hash::FxHashMap;

use super::intern::integer;
use super::open_sum::OpenSum;
use super::rollup::Rollup;
use crate::connection::Connection as Observed;
use crate::event::{Address, Bytes, ConnectionId, Event, EventKind, Role};

/// Where an open connection's first event is, and which bytes stand there.
#[derive(Debug, Clone, Copy)]
struct Open {
    row: i64,
    written: Option<Bytes>,
}

/// The open connections whose end will be written. Bounded by those that are followed.
#[derive(Debug, Default)]
pub(super) struct SoFar {
    open: FxHashMap<ConnectionId, Open>,
    /// As they were before the open transaction; the first entry of a connection counts.
    before: Vec<(ConnectionId, Option<Open>)>,
    /// Of the bytes that are written, and what it was before the open transaction.
    sum: OpenSum,
    sum_before: OpenSum,
}

/// What a sum changes by: sent and received.
pub(super) type Change = (i64, i64);

/// Whose sums change with an open connection's bytes.
#[derive(Debug)]
pub(super) struct Place<'a> {
    pub(super) ts: i64,
    pub(super) provider: &'a str,
    pub(super) process: i64,
    pub(super) actor: i64,
    pub(super) endpoint: i64,
    /// The remote port, where the sums by port and process have the connection.
    pub(super) port: Option<u16>,
    pub(super) is_accepted: bool,
}

impl SoFar {
    /// What the rows of open connections have.
    pub(super) fn sum(&self) -> &OpenSum {
        &self.sum
    }

    pub(super) fn committed(&mut self) {
        self.before.clear();
        self.sum_before.clone_from(&self.sum);
    }

    pub(super) fn rolled_back(&mut self) {
        self.sum.clone_from(&self.sum_before);
        for (id, open) in self.before.drain(..).rev() {
            match open {
                Some(open) => self.open.insert(id, open),
                None => self.open.remove(&id),
            };
        }
    }

    /// A first event was written.
    pub(super) fn opened(&mut self, event: &Event, row: i64) {
        let is_open = matches!(event.kind, EventKind::Connect | EventKind::Accept);
        if is_open && event.connection.is_followed {
            let before = self.open.insert(event.connection.id, Open { row, written: None });
            self.before.push((event.connection.id, before));
        }
    }

    /// What the sums change by with the bytes of an open connection, once its row has them.
    pub(super) fn read(
        &mut self,
        connection: &Connection,
        observed: &Observed,
        rollup: &mut Rollup,
    ) -> rusqlite::Result<Change> {
        let Some(bytes) = observed.bytes else { return Ok((0, 0)) };
        self.set(connection, observed, Some(bytes), rollup)
    }

    /// The same where the end of the connection is written: they count there.
    pub(super) fn ended(
        &mut self,
        connection: &Connection,
        observed: &Observed,
        rollup: &mut Rollup,
    ) -> rusqlite::Result<Change> {
        let change = self.set(connection, observed, None, rollup)?;
        if let Some(open) = self.open.remove(&observed.id) {
            self.before.push((observed.id, Some(open)));
        }
        Ok(change)
    }

    fn set(
        &mut self,
        connection: &Connection,
        observed: &Observed,
        bytes: Option<Bytes>,
        rollup: &mut Rollup,
    ) -> rusqlite::Result<Change> {
        let Some(open) = self.open.get_mut(&observed.id).filter(|open| open.written != bytes) else {
            return Ok((0, 0));
        };
        self.before.push((observed.id, Some(*open)));
        let row = open.row;
        let amount = |bytes: Option<Bytes>| {
            bytes.map_or((0, 0), |bytes| (integer(bytes.sent), integer(bytes.received)))
        };
        let (old, new) = (amount(open.written), amount(bytes));
        if open.written.is_some() {
            self.sum.remove(row, old);
        }
        if bytes.is_some() {
            self.sum.add(row, new);
        }
        open.written = bytes;
        connection
            .prepare_cached("UPDATE event SET bytes_sent = ?2, bytes_recv = ?3 WHERE id = ?1")?
            .execute(params![
                row,
                bytes.map(|bytes| integer(bytes.sent)),
                bytes.map(|bytes| integer(bytes.received))
            ])?;
        let change = (new.0 - old.0, new.1 - old.1);
        let mut find = connection.prepare_cached(
            "SELECT event.ts, event.process, process.actor, event.endpoint
             FROM event JOIN process ON process.id = event.process WHERE event.id = ?1",
        )?;
        let mut rows = find.query([row])?;
        let Some(found) = rows.next()? else { return Ok((0, 0)) };
        let place = Place {
            ts: found.get(0)?,
            provider: &observed.provider,
            process: found.get(1)?,
            actor: found.get(2)?,
            endpoint: found.get(3)?,
            port: match &observed.remote {
                Some(Address::Ip(remote)) => Some(remote.port()),
                Some(Address::Host(_) | Address::Path(_)) | None => None,
            },
            is_accepted: observed.role == Role::Accept,
        };
        rollup.add_bytes(&place, change);
        Ok(change)
    }
}
