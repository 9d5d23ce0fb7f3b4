//! Two sessions side by side.

use std::collections::BTreeMap;

use rusqlite::params_from_iter;
use rusqlite::types::Value;

use super::filter::Condition;
use super::sessions::{StoredSession, count};
use crate::filter::Filter;
use crate::store::History;
use crate::store::rollup::WHOLE_SESSION;

/// The least difference in connections that counts as a change.
pub const LEAST_CHANGE: u64 = 5;

/// What a session did, by name.
#[derive(Debug, Clone)]
pub struct Snapshot {
    pub session: StoredSession,
    pub domains: BTreeMap<String, Traffic>,
    pub providers: BTreeMap<String, Traffic>,
    /// By comm; those of nobody are left out.
    pub processes: BTreeMap<String, Traffic>,
    /// The sums could not answer the filter: all events of the session were read.
    pub read_events: bool,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Traffic {
    pub connects: u64,
    pub fails: u64,
    pub bytes: u64,
}

/// A name in both sessions, or in one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    pub name: String,
    pub old: Traffic,
    pub new: Traffic,
}

impl Change {
    /// Of connections, in percent of the old ones; `None` where there were none.
    pub fn percent(&self) -> Option<f64> {
        #[expect(clippy::cast_precision_loss, reason = "a percentage that is shown in whole numbers")]
        let (old, new) = (self.old.connects as f64, self.new.connects as f64);
        (self.old.connects > 0).then(|| (new - old) * 100.0 / old)
    }
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Changes {
    pub new_domains: Vec<Change>,
    pub removed_domains: Vec<Change>,
    pub changed_domains: Vec<Change>,
    pub new_processes: Vec<Change>,
    /// Providers that came, went or changed.
    pub providers: Vec<Change>,
}

impl Changes {
    pub fn is_empty(&self) -> bool {
        let Self { new_domains, removed_domains, changed_domains, new_processes, providers } = self;
        [new_domains, removed_domains, changed_domains, new_processes, providers]
            .iter()
            .all(|list| list.is_empty())
    }
}

impl History {
    /// What `filter` holds of, or everything. `None` where there is no such session.
    pub fn snapshot(
        &self,
        run_id_or_name: &str,
        filter: Option<&Filter>,
    ) -> rusqlite::Result<Option<Snapshot>> {
        let Some(session) = self.session(run_id_or_name)? else { return Ok(None) };
        if filter.is_some() {
            Condition::prepare(&self.connection)?;
        }
        let (traffic, values) = traffic(session.id, filter);
        let by = |name: &str, join: &str| -> rusqlite::Result<BTreeMap<String, Traffic>> {
            let mut statement = self.connection.prepare(&format!(
                "SELECT {name}, sum(connects), sum(fails), sum(bytes_sent) + sum(bytes_recv)
                 FROM (SELECT {join} AS key, sum(connects) AS connects, sum(closes) AS closes, sum(fails) AS fails,
                              sum(bytes_sent) AS bytes_sent, sum(bytes_recv) AS bytes_recv
                       FROM ({traffic}) GROUP BY {join}) AS traffic
                 CROSS JOIN {join} ON {join}.id = traffic.key
                 WHERE {name} IS NOT NULL AND connects + closes + fails > 0
                 GROUP BY {name}"
            ))?;
            let rows = statement.query_map(params_from_iter(&values), |row| {
                let traffic =
                    Traffic { connects: count(row, 1)?, fails: count(row, 2)?, bytes: count(row, 3)? };
                Ok((row.get(0)?, traffic))
            })?;
            rows.collect()
        };
        Ok(Some(Snapshot {
            domains: by("domain", "endpoint")?,
            providers: by("provider", "actor")?,
            processes: by("comm", "actor")?,
            read_events: filter.is_some_and(|filter| Condition::on_sums(filter).is_none()),
            session,
        }))
    }
}

/// A statement for sums by actor and endpoint of a session, and what its question marks stand for.
fn traffic(session: i64, filter: Option<&Filter>) -> (String, Vec<Value>) {
    let sums = "connects, closes, fails, bytes_sent, bytes_recv";
    let Some(filter) = filter else {
        let sql = format!(
            "SELECT actor, endpoint, {sums} FROM traffic WHERE session = ? AND hour = {WHOLE_SESSION}"
        );
        return (sql, vec![session.into()]);
    };
    if let Some(condition) = Condition::on_sums(filter) {
        let sql = format!(
            "SELECT traffic.actor AS actor, traffic.endpoint AS endpoint, {sums} FROM traffic
             CROSS JOIN actor ON actor.id = traffic.actor CROSS JOIN endpoint ON endpoint.id = traffic.endpoint
             WHERE traffic.session = ? AND hour = {WHOLE_SESSION} AND ({})",
            condition.sql
        );
        return (sql, [Value::from(session)].into_iter().chain(condition.values).collect());
    }
    let condition = Condition::of(filter);
    let ids = |id: &str| format!("(SELECT {id} FROM activity WHERE session = ?)");
    let sql = format!(
        "SELECT process.actor AS actor, event.endpoint AS endpoint, kind.event = 'connect' AS connects,
                kind.event = 'close' AS closes, kind.event = 'fail' AS fails,
                CASE WHEN kind.event IN ('close', 'fail') THEN ifnull(event.bytes_sent, 0) ELSE 0 END AS bytes_sent,
                CASE WHEN kind.event IN ('close', 'fail') THEN ifnull(event.bytes_recv, 0) ELSE 0 END AS bytes_recv
         FROM event
         CROSS JOIN process ON process.id = event.process
         CROSS JOIN kind ON kind.id = event.kind
         CROSS JOIN endpoint ON endpoint.id = event.endpoint
         WHERE event.id BETWEEN {} AND {} AND process.session = ? AND ({})",
        ids("min(first_event)"),
        ids("max(last_event)"),
        condition.sql
    );
    let session = Value::from(session);
    (sql, [session.clone(), session.clone(), session].into_iter().chain(condition.values).collect())
}

/// A name that both have is changed if its connections differ by at least `threshold` percent of the old ones and by at
/// least [`LEAST_CHANGE`]. Largest difference first.
pub fn compare(old: &Snapshot, new: &Snapshot, threshold: u64) -> Changes {
    let domains = changes(&old.domains, &new.domains);
    let (new_domains, domains) =
        domains.into_iter().partition::<Vec<_>, _>(|change| is_new(change, &old.domains));
    let (removed_domains, domains) =
        domains.into_iter().partition::<Vec<_>, _>(|change| is_new(change, &new.domains));
    let mut providers = changes(&old.providers, &new.providers);
    providers.retain(|change| {
        is_new(change, &old.providers) || is_new(change, &new.providers) || is_significant(change, threshold)
    });
    let mut new_processes = changes(&old.processes, &new.processes);
    new_processes.retain(|change| is_new(change, &old.processes));
    Changes {
        new_domains,
        removed_domains,
        changed_domains: domains.into_iter().filter(|change| is_significant(change, threshold)).collect(),
        new_processes,
        providers,
    }
}

fn is_new(change: &Change, before: &BTreeMap<String, Traffic>) -> bool {
    !before.contains_key(&change.name)
}

fn is_significant(change: &Change, threshold: u64) -> bool {
    let (old, new) = (change.old.connects, change.new.connects);
    let difference = old.abs_diff(new);
    difference >= LEAST_CHANGE && u128::from(difference) * 100 >= u128::from(old) * u128::from(threshold)
}

fn changes(old: &BTreeMap<String, Traffic>, new: &BTreeMap<String, Traffic>) -> Vec<Change> {
    let gone = old.iter().filter(|(name, _)| !new.contains_key(*name));
    let gone = gone.map(|(name, old)| Change { name: name.clone(), old: *old, new: Traffic::default() });
    let here = new.iter().map(|(name, new)| Change {
        name: name.clone(),
        old: old.get(name).copied().unwrap_or_default(),
        new: *new,
    });
    let mut all: Vec<_> = gone.chain(here).collect();
    all.sort_by_key(|change| {
        (std::cmp::Reverse(change.old.connects.abs_diff(change.new.connects)), change.name.clone())
    });
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    fn change(old: u64, new: u64) -> Change {
        let traffic = |connects| Traffic { connects, ..Traffic::default() };
        Change { name: "a".into(), old: traffic(old), new: traffic(new) }
    }

    #[test]
    fn a_change_needs_the_threshold_and_five() {
        for (old, new, threshold, expected) in [
            (10, 15, 50, true),
            (10, 14, 50, false),
            (4, 8, 50, false),
            (100, 149, 50, false),
            (100, 150, 50, true),
            (100, 50, 50, true),
            (100, 51, 50, false),
            (0, 5, 50, true),
            (1000, 1005, 0, true),
            (u64::MAX, 0, 100, true),
        ] {
            assert_eq!(is_significant(&change(old, new), threshold), expected, "{old} {new} {threshold}");
        }
    }

    #[test]
    fn percent_of_nothing_is_none() {
        assert_eq!(change(0, 5).percent(), None);
        assert_eq!(change(10, 15).percent(), Some(50.0));
        assert_eq!(change(10, 0).percent(), Some(-100.0));
    }
}
