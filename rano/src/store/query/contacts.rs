//! What was reached in a session, with everything that a policy asks of it: connections that are alike, and their sums.

use std::sync::Arc;

use rusqlite::types::ValueRef;
use rusqlite::{Row, params_from_iter};
use rustc_hash::FxHashMap;

use super::export::{ExportError, FIELDS, Field, Filter};
use super::sessions::StoredSession;
use crate::event::{Bytes, SourceKind};
use crate::filter;
use crate::policy::{Contact, Known, Observed, Seen};
use crate::store::History;

/// What is read of an event, in this order.
const READ: [&str; 15] = [
    "ts",
    "bytes_sent",
    "bytes_recv",
    "proto",
    "remote_ip",
    "remote_port",
    "domain",
    "domain_source",
    "endpoint_type",
    "provider",
    "program",
    "exe",
    "cmdline",
    "agent",
    "domain_port",
];

/// What tells kinds of contacts apart: process, endpoint, port.
type Key = (i64, i64, Option<i64>);

/// Contacts while they are put together. A connection that is open has its connect alone.
#[derive(Default)]
struct Sums {
    places: FxHashMap<Key, usize>,
    contacts: Vec<Contact>,
    /// Closes of each contact: of a connection that began before the range there is no more.
    closes: Vec<u64>,
}

impl History {
    /// Whom the processes of these sessions reached or tried to, in the range. Accepted connections are the work of
    /// others, and so are those of which nobody knows whose they are.
    pub fn contacts(
        &self,
        sessions: &[StoredSession],
        since: Option<i64>,
        until: Option<i64>,
        matching: Option<&filter::Filter>,
    ) -> rusqlite::Result<Vec<Contact>> {
        let mut found = Vec::new();
        for session in sessions {
            let filter = Filter {
                run: Some(session.run_id.clone()),
                since,
                until,
                matching: matching.cloned(),
                ..Filter::default()
            };
            let contacts = self.contacts_of(&filter, &session.run_id);
            found.extend(contacts.map_err(ExportError::into_database)?);
        }
        Ok(found)
    }

    fn contacts_of(&self, filter: &Filter, run_id: &str) -> Result<Vec<Contact>, ExportError> {
        let fields: Vec<&Field> =
            READ.iter().filter_map(|name| FIELDS.iter().find(|field| field.name == *name)).collect();
        let further =
            ", tool_call.tool, process.pid, kind.event, event.process, event.endpoint, event.remote_port";
        let (sql, values) = self.statement_with(filter, &fields, further)?;
        let mut statement = self.connection.prepare(&sql)?;
        let mut rows = statement.query(params_from_iter(values))?;
        let run_id: Arc<str> = run_id.into();
        let mut sums = Sums::default();
        while let Some(row) = rows.next()? {
            sums.add(row, &run_id)?;
        }
        drop(rows);
        self.other_names(filter, &mut sums)?;
        for (contact, closes) in sums.contacts.iter_mut().zip(&sums.closes) {
            contact.seen.connects = contact.seen.connects.max(*closes);
        }
        Ok(sums.contacts)
    }

    /// Names that were not chosen.
    fn other_names(&self, filter: &Filter, sums: &mut Sums) -> Result<(), ExportError> {
        let further =
            ", event.process, event.endpoint, event.remote_port, event_names.name, event_names.source";
        let (sql, values) =
            self.statement_with(filter, &FIELDS.iter().take(1).collect::<Vec<_>>(), further)?;
        let sql =
            sql.replacen(" WHERE ", " CROSS JOIN event_names ON event_names.event_id = event.id WHERE ", 1);
        let mut statement = self.connection.prepare(&sql)?;
        let mut rows = statement.query(params_from_iter(values))?;
        while let Some(row) = rows.next()? {
            let key: Key = (row.get(1)?, row.get(2)?, row.get(3)?);
            let Some(contact) = sums.places.get(&key).and_then(|place| sums.contacts.get_mut(*place)) else {
                continue;
            };
            if let (Some(name), Some(by)) = (text(row, 4)?, text(row, 5)?) {
                let known = Known { name, by };
                if contact.others.len() < OTHERS_MAX && !contact.others.contains(&known) {
                    contact.others.push(known);
                }
            }
        }
        Ok(())
    }
}

/// Further names of a kind of contact.
const OTHERS_MAX: usize = 64;

impl Sums {
    fn add(&mut self, row: &Row<'_>, run_id: &Arc<str>) -> rusqlite::Result<()> {
        let at = READ.len();
        let kind = text(row, at + 2)?.unwrap_or_default();
        let (connects, closes, fails) = match &*kind {
            "connect" => (1, 0, 0),
            "close" => (0, 1, 0),
            "fail" => (0, 0, 1),
            _ => return Ok(()),
        };
        let Some(pid) = row.get::<_, Option<u32>>(at + 1)? else { return Ok(()) };
        let number = |index: usize| -> rusqlite::Result<Option<u64>> {
            Ok(row.get::<_, Option<i64>>(index)?.and_then(|number| u64::try_from(number).ok()))
        };
        let (sent, received) = (number(1)?, number(2)?);
        let bytes = (sent.is_some() || received.is_some())
            .then(|| Bytes { sent: sent.unwrap_or(0), received: received.unwrap_or(0) });
        let ts: i64 = row.get(0)?;
        let seen = Seen { connects, fails, bytes, first: ts, last: ts };
        let key: Key = (row.get(at + 3)?, row.get(at + 4)?, row.get(at + 5)?);
        if let Some(&place) = self.places.get(&key) {
            if let (Some(contact), Some(count)) = (self.contacts.get_mut(place), self.closes.get_mut(place)) {
                contact.seen.add(&seen);
                *count += closes;
            }
            return Ok(());
        }
        let word = |index| text(row, index).map(Option::unwrap_or_default);
        let name = text(row, 6)?;
        let by = word(7)?;
        self.places.insert(key, self.contacts.len());
        self.closes.push(closes);
        let port = |index| -> rusqlite::Result<_> {
            Ok(row.get::<_, Option<i64>>(index)?.and_then(|port| u16::try_from(port).ok()))
        };
        let contact = Contact {
            run_id: Arc::clone(run_id),
            protocol: word(3)?,
            remote: text(row, 4)?,
            port: port(5)?,
            name: name.map(|name| Known { name, by }),
            others: Vec::new(),
            class: word(8)?,
            provider: word(9)?,
            program: word(10)?,
            exe: text(row, 11)?,
            command: text(row, 12)?,
            agent: text(row, 13)?,
            tool: text(row, at)?,
            pid: Some(pid),
            seen,
        };
        self.contacts.push(contact.behind_proxy(port(14)?));
        Ok(())
    }
}

/// Text in a file that somebody else wrote may be anything.
fn text(row: &Row<'_>, index: usize) -> rusqlite::Result<Option<Arc<str>>> {
    Ok(match row.get_ref(index)? {
        ValueRef::Text(text) | ValueRef::Blob(text) => Some(String::from_utf8_lossy(text).into()),
        ValueRef::Integer(number) => Some(number.to_string().into()),
        ValueRef::Null | ValueRef::Real(_) => None,
    })
}

impl History {
    /// Whether a session is that of a command which rano ran: what it was started with says so.
    pub fn is_of_command(&self, session: &StoredSession) -> rusqlite::Result<bool> {
        let sql = "SELECT args FROM session WHERE id = ?1";
        let args: String = self.connection.query_row(sql, [session.id], |row| row.get(0))?;
        let args: Vec<String> = serde_json::from_str(&args).unwrap_or_default();
        Ok(args.get(1).is_some_and(|word| word == "run") || session.source == SourceKind::Seccomp.name())
    }
}

impl StoredSession {
    /// As a policy looks at it. `is_running`: it goes on; `is_command`: rano ran what it watched.
    pub fn observed(&self, is_running: bool, is_command: bool) -> Observed {
        Observed {
            run_id: self.run_id.as_str().into(),
            name: self.name.clone(),
            host: self.host.clone(),
            started_at: self.started_at,
            ended_at: self.end(),
            source: self.source.clone(),
            source_reason: self.source_reason.clone(),
            clean_exit: self.clean_exit,
            is_running,
            excluded: self.left_out.connections,
            gaps: self.gaps,
            is_command,
        }
    }
}
