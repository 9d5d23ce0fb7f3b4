//! Two sessions side by side.

use std::collections::BTreeMap;

use rusqlite::params_from_iter;
use rusqlite::types::Value;

use super::filter::Condition;
use super::sessions::{StoredSession, count};
use crate::filter::Filter;
use crate::store::History;
use crate::store::rollup::WHOLE_SESSION;

/// The least difference in connections, and in failures, that counts as a change.
pub const LEAST_CHANGE: u64 = 5;
/// The same in bytes.
pub const LEAST_BYTES: u64 = 1 << 20;

/// What a session did, by name.
#[derive(Debug, Clone)]
pub struct Snapshot {
    pub session: StoredSession,
    /// Endpoints by name, those without one by address and port.
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
        let read_events = filter.is_some_and(|filter| Condition::on_sums(filter).is_none());
        // What was only accepted has closes. A filter may hold of nothing but closes: `duration:>1s`.
        let closes = if read_events { "closes" } else { "0" };
        let by = |name: &str, join: &str| -> rusqlite::Result<BTreeMap<String, Traffic>> {
            let mut statement = self.connection.prepare(&format!(
                "SELECT {name}, sum(connects), sum(fails), sum(bytes_sent) + sum(bytes_recv)
                 FROM (SELECT {join} AS key, sum(connects) AS connects, sum(closes) AS closes, sum(fails) AS fails,
                              sum(bytes_sent) AS bytes_sent, sum(bytes_recv) AS bytes_recv
                       FROM ({traffic}) GROUP BY {join}) AS traffic
                 CROSS JOIN {join} ON {join}.id = traffic.key
                 WHERE {name} IS NOT NULL AND connects + fails + {closes} > 0
                 GROUP BY {name}"
            ))?;
            let rows = statement.query_map(params_from_iter(&values), |row| {
                let traffic =
                    Traffic { connects: count(row, 1)?, fails: count(row, 2)?, bytes: count(row, 3)? };
                Ok((row.get(0)?, traffic))
            })?;
            rows.collect()
        };
        let mut domains = by("domain", "endpoint")?;
        domains.extend(self.nameless(session.id, filter)?);
        Ok(Some(Snapshot {
            domains,
            providers: by("provider", "actor")?,
            processes: by("comm", "actor")?,
            read_events,
            session,
        }))
    }
}

impl History {
    /// Endpoints without a name, as `address:port`. The sums know no ports: the events of these are read.
    fn nameless(&self, session: i64, filter: Option<&Filter>) -> rusqlite::Result<BTreeMap<String, Traffic>> {
        let condition = filter.map(Condition::of);
        let (condition, values) = match condition {
            Some(condition) => (condition.sql, condition.values),
            None => ("1".to_owned(), Vec::new()),
        };
        let ids = |id: &str| format!("(SELECT {id} FROM activity WHERE session = ?)");
        let least = if filter.is_some() { "1" } else { "sum(kind.event <> 'close') > 0" };
        let mut statement = self.connection.prepare(&format!(
            "SELECT CASE WHEN instr(endpoint.remote, ':') THEN '[' || endpoint.remote || ']' ELSE endpoint.remote END
                        || ':' || event.remote_port AS address,
                    sum(kind.event = 'connect'), sum(kind.event = 'fail'),
                    sum(ifnull(event.bytes_sent, 0) + ifnull(event.bytes_recv, 0))
             FROM event
             CROSS JOIN endpoint ON endpoint.id = event.endpoint
             CROSS JOIN process ON process.id = event.process
             CROSS JOIN kind ON kind.id = event.kind
             LEFT JOIN tool_call ON tool_call.id = process.call
             WHERE event.id BETWEEN {} AND {} AND endpoint.domain IS NULL AND event.remote_port > 0
                   AND process.session = ? AND kind.event IN ('connect', 'close', 'fail') AND ({condition})
             GROUP BY address HAVING {least}",
            ids("min(first_event)"),
            ids("max(last_event)"),
        ))?;
        let session = Value::from(session);
        let values = [session.clone(), session.clone(), session].into_iter().chain(values);
        let rows = statement.query_map(params_from_iter(values), |row| {
            Ok((
                row.get(0)?,
                Traffic { connects: count(row, 1)?, fails: count(row, 2)?, bytes: count(row, 3)? },
            ))
        })?;
        rows.collect()
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
                ifnull(event.bytes_sent, 0) AS bytes_sent,
                ifnull(event.bytes_recv, 0) AS bytes_recv
         FROM event
         CROSS JOIN process ON process.id = event.process
         CROSS JOIN kind ON kind.id = event.kind
         CROSS JOIN endpoint ON endpoint.id = event.endpoint
         LEFT JOIN tool_call ON tool_call.id = process.call
         WHERE event.id BETWEEN {} AND {} AND process.session = ? AND ({})",
        ids("min(first_event)"),
        ids("max(last_event)"),
        condition.sql
    );
    let session = Value::from(session);
    (sql, [session.clone(), session.clone(), session].into_iter().chain(condition.values).collect())
}

/// An endpoint that both have is changed if its connections, failures or bytes differ by at least `threshold` percent
/// of the old ones, and by at least [`LEAST_CHANGE`] or [`LEAST_BYTES`]. Largest difference first.
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

/// In connections, failures or bytes.
fn is_significant(change: &Change, threshold: u64) -> bool {
    let Change { old, new, .. } = change;
    let differs = |old: u64, new: u64, least: u64| {
        let difference = old.abs_diff(new);
        difference >= least && u128::from(difference) * 100 >= u128::from(old) * u128::from(threshold)
    };
    differs(old.connects, new.connects, LEAST_CHANGE)
        || differs(old.fails, new.fails, LEAST_CHANGE)
        || differs(old.bytes, new.bytes, LEAST_BYTES)
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
        let by = |of: fn(&Traffic) -> u64| std::cmp::Reverse(of(&change.old).abs_diff(of(&change.new)));
        (by(|traffic| traffic.connects), by(|traffic| traffic.bytes), change.name.clone())
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
    fn bytes_and_failures_count_as_well() {
        let traffic = |fails, bytes| Traffic { connects: 10, fails, bytes };
        for (old, new, expected) in [
            ((0, 0), (0, LEAST_BYTES), true),
            ((0, 0), (0, LEAST_BYTES - 1), false),
            ((0, 10 << 20), (0, 14 << 20), false),
            ((0, 10 << 20), (0, 50 << 20), true),
            ((0, 50 << 20), (0, 10 << 20), true),
            ((0, 0), (5, 0), true),
            ((0, 0), (4, 0), false),
            ((100, 0), (120, 0), false),
        ] {
            let change = Change { name: "a".into(), old: traffic(old.0, old.1), new: traffic(new.0, new.1) };
            assert_eq!(is_significant(&change, 50), expected, "{old:?} {new:?}");
        }
    }

    #[test]
    fn percent_of_nothing_is_none() {
        assert_eq!(change(0, 5).percent(), None);
        assert_eq!(change(10, 15).percent(), Some(50.0));
        assert_eq!(change(10, 0).percent(), Some(-100.0));
    }
}
