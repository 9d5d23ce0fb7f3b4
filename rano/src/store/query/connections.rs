//! Connections, put together from their events: the list under the map.

use rusqlite::params_from_iter;
use rusqlite::types::{FromSql, FromSqlResult, ValueRef};
use rustc_hash::FxHashMap;

use super::export::{ExportError, FIELDS, Filter};
use crate::store::History;

/// Events that are read for one answer, the latest ones.
const EVENTS_MAX: u64 = 40_000;

/// A value of an event, owned.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Owned {
    Null,
    Text(String),
    Integer(i64),
}

impl FromSql for Owned {
    fn column_result(value: ValueRef<'_>) -> FromSqlResult<Self> {
        Ok(match value {
            ValueRef::Null => Self::Null,
            ValueRef::Integer(number) => Self::Integer(number),
            ValueRef::Real(number) => Self::Text(number.to_string()),
            // Text in a file that somebody else wrote may be anything.
            ValueRef::Text(text) | ValueRef::Blob(text) => {
                Self::Text(String::from_utf8_lossy(text).into_owned())
            }
        })
    }
}

/// How a connection stands, as far as its stored events tell.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    Open,
    Closed,
    Failed,
    Listening,
}

impl Standing {
    pub const fn word(self) -> &'static str {
        match self {
            Self::Open => "open",
            Self::Closed => "closed",
            Self::Failed => "failed",
            Self::Listening => "listening",
        }
    }
}

#[derive(Debug, Clone)]
pub struct ConnectionRow {
    /// Of its last event, in the order of [`FIELDS`].
    pub cells: Vec<Owned>,
    pub standing: Standing,
    /// Unix milliseconds, of its connect or accept, where that was read.
    pub opened_at: Option<i64>,
    /// It was accepted here.
    pub accepted: bool,
    pub alert: bool,
}

/// The latest connections, the latest event first.
#[derive(Debug, Clone, Default)]
pub struct Connections {
    pub rows: Vec<ConnectionRow>,
    /// Where there are older ones: the id before which to go on.
    pub before: Option<i64>,
}

/// Process, local address and port, remote port, remote address.
type Key = (i64, Option<i64>, Option<i64>, Option<i64>, Option<String>);

impl History {
    /// At most `most` connections with an event that `filter` lets through.
    pub fn connections(&self, filter: &Filter, most: usize) -> Result<Connections, ExportError> {
        let filter = Filter { latest: Some(EVENTS_MAX), ..filter.clone() };
        let (sql, values) = self.statement_with(
            &filter,
            &FIELDS.iter().collect::<Vec<_>>(),
            ", event.process, event.local, kind.event, kind.alert, endpoint.remote",
        )?;
        let place = |name: &str| FIELDS.iter().position(|field| field.name == name);
        let (Some(id), Some(ts)) = (place("id"), place("ts")) else { return Ok(Connections::default()) };
        let (Some(local_port), Some(remote_port)) = (place("local_port"), place("remote_port")) else {
            return Ok(Connections::default());
        };
        let mut statement = self.connection.prepare(&sql)?;
        let mut rows = statement.query(params_from_iter(values))?;
        let mut found = Connections::default();
        // Connections of which an end was read and the beginning not yet.
        let mut ended: FxHashMap<Key, usize> = FxHashMap::default();
        let (mut read, mut last) = (0, None);
        while let Some(row) = rows.next()? {
            read += 1;
            let extra = FIELDS.len();
            let word: String = row.get(extra + 2)?;
            let alert: bool = row.get(extra + 3)?;
            let key: Key = (
                row.get(extra)?,
                row.get(extra + 1)?,
                row.get(local_port)?,
                row.get(remote_port)?,
                row.get(extra + 4)?,
            );
            let begins = matches!(word.as_str(), "connect" | "accept");
            if begins && let Some(known) = ended.remove(&key) {
                let known = &mut found.rows[known];
                known.opened_at = row.get(ts)?;
                known.accepted = word == "accept";
                known.alert |= alert;
                continue;
            }
            if found.rows.len() >= most {
                found.before = last;
                return Ok(found);
            }
            last = row.get(id)?;
            let standing = match word.as_str() {
                "close" => Standing::Closed,
                "fail" => Standing::Failed,
                "listen" => Standing::Listening,
                _ => Standing::Open,
            };
            let cells = (0..FIELDS.len()).map(|index| row.get(index)).collect::<rusqlite::Result<_>>()?;
            let opened_at = if begins { row.get(ts)? } else { None };
            if standing == Standing::Closed {
                ended.insert(key, found.rows.len());
            }
            let accepted = word == "accept";
            found.rows.push(ConnectionRow { cells, standing, opened_at, accepted, alert });
        }
        if read >= EVENTS_MAX {
            found.before = last;
        }
        Ok(found)
    }
}
