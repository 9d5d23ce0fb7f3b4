//! An export with a row for each connection: its end, with the time of its beginning. Memory grows with the connections
//! that are open at a time, up to a bound, and not with the table.

use std::collections::VecDeque;

use rusqlite::types::Value;
use rusqlite::{Row, params_from_iter};
use rustc_hash::FxHashMap;

use super::connections::Owned;
use super::export::{Cell, ExportError, Field, Filter, Kind, RowWriter};
use super::filter::Condition;
use crate::store::History;

/// Connections whose end is waited for; beyond it the oldest is written as open.
const OPEN_MAX: usize = 100_000;

/// Process, local address and port, remote port, remote address.
type Key = (i64, Option<i64>, Option<i64>, Option<i64>, Option<String>);

/// A connection that has begun.
struct Open {
    id: i64,
    cells: Vec<Owned>,
    ts: i64,
    is_alerted: bool,
    /// The filter holds of what is known so far.
    is_wanted: bool,
}

/// The columns after those that were asked for.
const FURTHER: &str =
    ", event.process, event.local, event.local_port, event.remote_port, endpoint.remote, kind.event,
    kind.alert, event.ts, event.duration_ms, event.id, ";

impl History {
    /// Gives every connection whose last event `filter` lets through to `writer`; `progress` hears of each event that
    /// is read. Returns how many connections there were.
    pub fn export_connections(
        &self,
        filter: &Filter,
        fields: &[&Field],
        writer: &mut impl RowWriter,
        mut progress: impl FnMut(u64),
    ) -> Result<u64, ExportError> {
        // Judged beside the row and not before it: a filter that holds of the end alone must not hide the beginning.
        let condition = filter.matching.as_ref().map(Condition::of).unwrap_or_default();
        let judged = if condition.sql.is_empty() { "1" } else { condition.sql.as_str() };
        Condition::prepare(&self.connection)?;
        let unjudged = Filter { matching: None, ..filter.clone() };
        let (sql, further) = self.statement_with(&unjudged, fields, &format!("{FURTHER}({judged})"))?;
        let mut values: Vec<Value> = condition.values;
        values.extend(further);
        let mut statement = self.connection.prepare(&sql)?;
        let mut rows = statement.query(params_from_iter(values))?;
        let mut out = Out { fields, writer, count: 0 };
        let mut open: FxHashMap<Key, Open> = FxHashMap::default();
        let mut order: VecDeque<(i64, Key)> = VecDeque::new();
        let mut read = 0;
        while let Some(row) = rows.next()? {
            read += 1;
            progress(read);
            let at = fields.len();
            let event: String = row.get(at + 5)?;
            let key: Key =
                (row.get(at)?, row.get(at + 1)?, row.get(at + 2)?, row.get(at + 3)?, row.get(at + 4)?);
            let (id, ts): (i64, i64) = (row.get(at + 9)?, row.get(at + 7)?);
            let is_alerted: bool = row.get(at + 6)?;
            let is_wanted: bool = row.get(at + 10)?;
            match event.as_str() {
                "connect" | "accept" => {
                    let now = Open { id, cells: cells(row, at)?, ts, is_alerted, is_wanted };
                    if let Some(before) = open.insert(key.clone(), now) {
                        out.write(&before.cells, before.ts, before.is_alerted, before.is_wanted)?;
                    }
                    order.push_back((id, key));
                    while open.len() > OPEN_MAX
                        && let Some((id, key)) = order.pop_front()
                    {
                        if open.get(&key).is_some_and(|open| open.id == id)
                            && let Some(oldest) = open.remove(&key)
                        {
                            out.write(&oldest.cells, oldest.ts, oldest.is_alerted, oldest.is_wanted)?;
                        }
                    }
                    // What has ended is in the order still.
                    if order.len() > 2 * OPEN_MAX {
                        order.retain(|(id, key)| open.get(key).is_some_and(|open| open.id == *id));
                    }
                }
                "close" | "fail" => {
                    let began = open.remove(&key);
                    let lasted: Option<i64> = row.get(at + 8)?;
                    let ts = began.as_ref().map_or(ts.saturating_sub(lasted.unwrap_or(0)), |began| began.ts);
                    let is_alerted = is_alerted || began.is_some_and(|began| began.is_alerted);
                    out.write(&cells(row, at)?, ts, is_alerted, is_wanted)?;
                }
                // A listener is no connection.
                _ => {}
            }
        }
        let mut left: Vec<Open> = open.into_values().collect();
        left.sort_unstable_by_key(|open| open.id);
        for open in left {
            out.write(&open.cells, open.ts, open.is_alerted, open.is_wanted)?;
        }
        Ok(out.count)
    }
}

fn cells(row: &Row<'_>, count: usize) -> rusqlite::Result<Vec<Owned>> {
    (0..count).map(|index| row.get(index)).collect()
}

struct Out<'a, W> {
    fields: &'a [&'a Field],
    writer: &'a mut W,
    count: u64,
}

impl<W: RowWriter> Out<'_, W> {
    fn write(
        &mut self,
        cells: &[Owned],
        ts: i64,
        is_alerted: bool,
        is_wanted: bool,
    ) -> Result<(), ExportError> {
        if !is_wanted {
            return Ok(());
        }
        for (field, cell) in self.fields.iter().zip(cells) {
            let cell = match (cell, field.kind) {
                (_, Kind::Time) if field.name == "ts" => Cell::Time(ts),
                (_, Kind::Truth) if field.name == "alert" => Cell::Truth(is_alerted),
                (Owned::Null, _) => Cell::Null,
                (Owned::Integer(number), Kind::Time) => Cell::Time(*number),
                (Owned::Integer(number), Kind::Truth) => Cell::Truth(*number != 0),
                (Owned::Integer(number), _) => Cell::Integer(*number),
                (Owned::Text(text), _) => Cell::Text(text),
            };
            self.writer.cell(field, cell)?;
        }
        self.writer.end_row()?;
        self.count += 1;
        Ok(())
    }
}
