//! Endpoints that agents have reached, over all sessions.

use std::net::{IpAddr, SocketAddr};

use rustc_hash::{FxHashMap, FxHashSet};

use crate::store::History;

/// An endpoint that an agent reached, once however often.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReachedRow {
    /// Empty where it was not noted.
    pub agent: String,
    /// That is more than what a reverse look-up says.
    pub name: Option<String>,
    pub remote: Option<SocketAddr>,
}

/// Name, address.
type End = (Option<String>, Option<IpAddr>);

impl History {
    /// Takes a time that grows with the number of events: a third of a microsecond each.
    pub fn endpoints_reached(&self) -> rusqlite::Result<Vec<ReachedRow>> {
        let agents = self.agents_of_processes()?;
        let ends = self.ends()?;
        let mut statement = self.connection.prepare(
            "SELECT process, endpoint, remote_port FROM event
             WHERE kind IN (SELECT id FROM kind WHERE event IN ('connect', 'close', 'fail'))",
        )?;
        let mut rows = statement.query([])?;
        let mut known: FxHashSet<(&str, i64, Option<u16>)> = FxHashSet::default();
        let mut reached = Vec::new();
        while let Some(row) = rows.next()? {
            let (process, endpoint, port): (i64, i64, Option<u16>) = (row.get(0)?, row.get(1)?, row.get(2)?);
            let (Some(agent), Some((name, ip))) = (agents.get(&process), ends.get(&endpoint)) else {
                continue;
            };
            if known.insert((agent, endpoint, port)) {
                let remote = ip.zip(port).map(|(ip, port)| SocketAddr::new(ip, port));
                reached.push(ReachedRow { agent: agent.clone(), name: name.clone(), remote });
            }
        }
        Ok(reached)
    }

    fn agents_of_processes(&self) -> rusqlite::Result<FxHashMap<i64, String>> {
        let mut statement = self.connection.prepare(
            "SELECT process.id, ifnull(tool_call.agent, '')
             FROM process LEFT JOIN tool_call ON tool_call.id = process.call
             WHERE process.pid IS NOT NULL",
        )?;
        let rows = statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?;
        rows.collect()
    }

    fn ends(&self) -> rusqlite::Result<FxHashMap<i64, End>> {
        let mut statement = self
            .connection
            .prepare("SELECT id, CASE WHEN domain_source <> 'ptr' THEN domain END, remote FROM endpoint")?;
        let rows = statement.query_map([], |row| {
            let remote: Option<String> = row.get(2)?;
            Ok((row.get(0)?, (row.get(1)?, remote.and_then(|remote| remote.parse().ok()))))
        })?;
        rows.collect()
    }
}
