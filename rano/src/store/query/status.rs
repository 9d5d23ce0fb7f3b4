//! What a prompt line needs: a row of `session` and a few of `activity`.

use std::collections::BTreeMap;

use rusqlite::{OptionalExtension as _, Row};

use super::sessions::{count, session_columns as columns};
use crate::store::History;

/// The counts of one session.
#[derive(Debug, Clone)]
pub struct Status {
    pub run_id: String,
    pub session_name: Option<String>,
    pub source: String,
    /// Connections without a close, when it was last written.
    pub active: u64,
    /// Connects by provider.
    pub providers: Vec<(String, u64)>,
    /// Connections without a close by provider, when it was last written.
    pub active_providers: BTreeMap<String, u64>,
}

impl Status {
    /// Connects of all providers.
    pub fn total(&self) -> u64 {
        self.providers.iter().map(|(_, connects)| connects).sum()
    }

    /// Connections of a provider without a close, when it was last written.
    pub fn active_of(&self, provider: &str) -> u64 {
        self.active_providers.get(provider).copied().unwrap_or(0)
    }
}

impl History {
    /// Of the session `run_id`, else of the latest one; `None` where there is none.
    pub fn status(&self, run_id: Option<&str>) -> rusqlite::Result<Option<Status>> {
        // A file may be older than the column.
        let has_providers = columns(&self.connection)?.contains("active_providers");
        let by_provider = if has_providers { "active_providers" } else { "'{}'" };
        let select = format!("SELECT id, run_id, name, source, active, {by_provider} FROM session");
        let read = |row: &Row<'_>| {
            let status = Status {
                run_id: row.get(1)?,
                session_name: row.get(2)?,
                source: row.get(3)?,
                active: count(row, 4)?,
                providers: Vec::new(),
                active_providers: serde_json::from_str(&row.get::<_, String>(5)?).unwrap_or_default(),
            };
            Ok((row.get::<_, i64>(0)?, status))
        };
        let found = if let Some(run_id) = run_id {
            self.connection.query_row(&format!("{select} WHERE run_id = ?1"), [run_id], read)
        } else {
            let latest = format!("{select} ORDER BY started_at DESC, id DESC LIMIT 1");
            self.connection.query_row(&latest, [], read)
        };
        let Some((session, mut status)) = found.optional()? else { return Ok(None) };
        let mut statement = self.connection.prepare(
            "SELECT provider, sum(connects) FROM activity WHERE session = ?1 GROUP BY provider ORDER BY provider",
        )?;
        let providers = statement.query_map([session], |row| Ok((row.get(0)?, count(row, 1)?)))?;
        status.providers = providers.collect::<rusqlite::Result<_>>()?;
        Ok(Some(status))
    }
}
