//! Connections and bytes over time, by class of endpoint: the strip above the map.

use std::collections::BTreeMap;

use rusqlite::params_from_iter;
use rusqlite::types::Value;

use super::filter::Condition;
use super::report::Selection;
use super::sessions::StoredSession;
use crate::store::History;
use crate::store::rollup::{BYTES_MAX, HOUR_MS, WHOLE_SESSION};

/// Events that are counted one by one for a finer picture; where there are more, the sums of hours are drawn.
const EVENTS_MAX: i64 = 400_000;

/// The narrowest bar, in milliseconds.
const NARROWEST: i64 = 1000;

/// What began and how many bytes passed in each part of a time.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Timeline {
    /// Unix milliseconds at which the first part begins.
    pub from: i64,
    /// Milliseconds of a part.
    pub step: i64,
    /// How many parts.
    pub parts: usize,
    /// Connections that began or failed, and bytes of those that ended, by class and part.
    pub classes: BTreeMap<String, Vec<(u64, u64)>>,
}

impl History {
    /// Of `sessions`, in at most about `parts` parts of the selected range, else of the time they took up to `now`.
    pub fn timeline(
        &self,
        sessions: &[StoredSession],
        selection: &Selection,
        parts: u32,
        now: i64,
    ) -> rusqlite::Result<Timeline> {
        let started =
            sessions.iter().map(|session| session.started_at).chain(self.first_seen(sessions)?).min();
        let ended = sessions.iter().filter_map(StoredSession::end).max();
        let (Some(from), Some(until)) = (selection.since.or(started), selection.until.or(ended)) else {
            return Ok(Timeline::default());
        };
        let until = until.min(now).max(from.saturating_add(1)).saturating_add(1);
        let filter = selection.filter.as_ref();
        if filter.is_some() {
            Condition::prepare(&self.connection)?;
        }
        let on_sums = filter.map_or_else(|| Some(Condition::default()), Condition::on_sums);
        let events = self.events_in(sessions, from, until)?;
        let by_hours = events > EVENTS_MAX && on_sums.is_some();
        let step = round_step((until - from) / i64::from(parts.max(1)));
        let step = if by_hours { step.div_euclid(HOUR_MS).max(1) * HOUR_MS } else { step };
        let from = from.div_euclid(step) * step;
        let count = usize::try_from((until - from).div_euclid(step) + 1).unwrap_or(1).min(100_000);
        let mut timeline = Timeline { from, step, parts: count, classes: BTreeMap::new() };
        for session in sessions {
            let (condition, sums) = match &on_sums {
                Some(condition) if by_hours => (condition.sql.clone(), condition.values.clone()),
                _ => filter.map(Condition::of).map_or_else(Default::default, |of| (of.sql, of.values)),
            };
            let and = if condition.is_empty() { String::new() } else { format!(" AND ({condition})") };
            let (sql, mut values) = if by_hours {
                hours(session.id, from, until, step)
            } else {
                events_one_by_one(session.id, from, until, step)
            };
            values.extend(sums);
            let mut statement = self.connection.prepare(&format!("{sql}{and} GROUP BY 1, 2"))?;
            let mut rows = statement.query(params_from_iter(values))?;
            while let Some(row) = rows.next()? {
                let part: i64 = row.get(0)?;
                let Some(part) = usize::try_from(part).ok().filter(|part| *part < count) else { continue };
                let sums = timeline.classes.entry(row.get(1)?).or_insert_with(|| vec![(0, 0); count]);
                sums[part].0 += super::sessions::count(row, 2)?;
                sums[part].1 += super::sessions::count(row, 3)?;
            }
        }
        Ok(timeline)
    }

    /// A recording, or a clock that was set, has events from before the session.
    fn first_seen(&self, sessions: &[StoredSession]) -> rusqlite::Result<Option<i64>> {
        let mut statement =
            self.connection.prepare("SELECT min(first_seen) FROM activity WHERE session = ?1")?;
        let mut first: Option<i64> = None;
        for session in sessions {
            let seen: Option<i64> = statement.query_row([session.id], |row| row.get(0))?;
            first = first.into_iter().chain(seen).min();
        }
        Ok(first)
    }

    /// How many events there are in the hours of this time.
    pub(super) fn events_in(
        &self,
        sessions: &[StoredSession],
        from: i64,
        until: i64,
    ) -> rusqlite::Result<i64> {
        let mut statement = self.connection.prepare(
            "SELECT ifnull(sum(connects + closes + fails + accepts + listens), 0) FROM activity
             WHERE session = ?1 AND hour >= ?2 AND hour <= ?3",
        )?;
        let (first, last) = (from.div_euclid(HOUR_MS), until.div_euclid(HOUR_MS));
        sessions.iter().try_fold(0i64, |sum, session| {
            let one: i64 = statement.query_row([session.id, first, last], |row| row.get(0))?;
            Ok(sum.saturating_add(one))
        })
    }
}

fn hours(session: i64, from: i64, until: i64, step: i64) -> (String, Vec<Value>) {
    let sql = format!(
        "SELECT (hour * {HOUR_MS} - {from}) / {step}, ifnull(endpoint.type, 'unknown'),
                sum(connects + fails), sum(bytes_sent + bytes_recv)
         FROM traffic CROSS JOIN actor ON actor.id = traffic.actor
         CROSS JOIN endpoint ON endpoint.id = traffic.endpoint
         WHERE endpoint.relay_for IS NULL AND traffic.session = ? AND hour > {WHOLE_SESSION} AND hour >= ? AND hour <= ?"
    );
    (sql, vec![session.into(), from.div_euclid(HOUR_MS).into(), until.div_euclid(HOUR_MS).into()])
}

fn events_one_by_one(session: i64, from: i64, until: i64, step: i64) -> (String, Vec<Value>) {
    let hours = "activity WHERE session = ? AND hour >= ? AND hour <= ?";
    let sql = format!(
        "SELECT (event.ts - {from}) / {step}, ifnull(endpoint.type, 'unknown'),
                sum(kind.event IN ('connect', 'fail')),
                sum(min(max(ifnull(event.bytes_sent, 0), 0) + max(ifnull(event.bytes_recv, 0), 0), {BYTES_MAX}))
         FROM event CROSS JOIN process ON process.id = event.process CROSS JOIN kind ON kind.id = event.kind
         CROSS JOIN endpoint ON endpoint.id = event.endpoint LEFT JOIN tool_call ON tool_call.id = process.call
         WHERE event.id BETWEEN (SELECT min(first_event) FROM {hours}) AND (SELECT max(last_event) FROM {hours})
               AND process.session = ? AND event.ts >= ? AND event.ts < ? AND endpoint.relay_for IS NULL"
    );
    let hours: [Value; 3] =
        [session.into(), from.div_euclid(HOUR_MS).into(), until.div_euclid(HOUR_MS).into()];
    let mut values: Vec<Value> = hours.iter().chain(&hours).cloned().collect();
    values.extend([session.into(), from.into(), until.into()]);
    (sql, values)
}

/// The next longer step that people count in.
fn round_step(step: i64) -> i64 {
    const SECONDS: [i64; 17] =
        [1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 10_800, 21_600, 43_200];
    let day = 86_400_000;
    let rounded = SECONDS.into_iter().map(|seconds| seconds * 1000).find(|round| *round >= step);
    rounded.unwrap_or_else(|| (step + day - 1).div_euclid(day) * day).max(NARROWEST)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_are_those_people_count_in() {
        for (asked, expected) in [
            (0, 1000),
            (999, 1000),
            (1001, 2000),
            (61_000, 120_000),
            (50_000_000, 86_400_000),
            (90_000_000, 172_800_000),
        ] {
            assert_eq!(round_step(asked), expected, "{asked}");
        }
    }
}
