//! What a prompt line needs: a row of `session` and a few of `activity`.

use super::sessions::{StoredSession, count};
use crate::store::History;

/// The counts of one session.
#[derive(Debug, Clone)]
pub struct Status {
    pub session: StoredSession,
    /// Connects by provider.
    pub providers: Vec<(String, u64)>,
}

impl Status {
    /// Connects of all providers.
    pub fn total(&self) -> u64 {
        self.providers.iter().map(|(_, connects)| connects).sum()
    }

    pub fn connects_of(&self, provider: &str) -> u64 {
        self.providers.iter().find(|(name, _)| name == provider).map_or(0, |(_, connects)| *connects)
    }
}

impl History {
    /// Of the session `run_id`, else of the latest one; `None` where there is none.
    pub fn status(&self, run_id: Option<&str>) -> rusqlite::Result<Option<Status>> {
        let session = match run_id {
            Some(run_id) => self.session(run_id)?,
            None => self.latest_session()?,
        };
        let Some(session) = session else { return Ok(None) };
        let mut statement = self.connection.prepare(
            "SELECT provider, sum(connects) FROM activity WHERE session = ?1 GROUP BY provider ORDER BY provider",
        )?;
        let providers = statement.query_map([session.id], |row| Ok((row.get(0)?, count(row, 1)?)))?;
        let providers = providers.collect::<rusqlite::Result<_>>()?;
        Ok(Some(Status { session, providers }))
    }
}
