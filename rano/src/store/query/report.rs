//! The sums of sessions or of a range of time. Whole hours come from `traffic`; only the parts of an hour at the ends
//! of a range are counted event by event.

use std::ops::{Range, RangeInclusive};

use rusqlite::types::Value;
use rusqlite::{Row, params_from_iter};

use super::filter::Condition;
pub(super) use super::gathering::add;
use super::gathering::{Gathering, Pairs, named};
use super::groups::{Sort, ranking};
use super::sessions::{StoredSession, Ways, columns, count};
use crate::event::Bytes;
use crate::filter::Filter;
use crate::store::History;
use crate::store::rollup::{BYTES_MAX, HOUR_MS, WHOLE_SESSION};

/// What is reported on. Times are in Unix milliseconds; `since` is inside, `until` is not.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Selection {
    pub sessions: Sessions,
    pub since: Option<i64>,
    pub until: Option<i64>,
    /// Only events that it holds of.
    pub filter: Option<Filter>,
}

/// Whose events.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Sessions {
    Latest,
    /// A run id or a name.
    Named(String),
    /// Every session that overlaps the range.
    All,
}

impl Selection {
    fn is_range(&self) -> bool {
        self.since.is_some() || self.until.is_some()
    }
}

/// A filter as what is asked for understands it.
struct Conditions {
    /// `None` where the sums cannot tell.
    on_sums: Option<Condition>,
    on_events: Condition,
}

impl Conditions {
    fn of(filter: Option<&Filter>) -> Self {
        match filter {
            Some(filter) => Self { on_sums: Condition::on_sums(filter), on_events: Condition::of(filter) },
            None => Self { on_sums: Some(Condition::default()), on_events: Condition::default() },
        }
    }
}

/// Whose events are read one by one.
#[derive(Clone, Copy)]
enum Part {
    /// Sessions of which the sums tell more than what is asked for.
    NotWhole,
    EverySession,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    pub connects: u64,
    pub closes: u64,
    pub fails: u64,
    pub accepts: u64,
    pub listens: u64,
    pub bytes_sent: u64,
    pub bytes_received: u64,
}

impl Counts {
    pub fn events(&self) -> u64 {
        self.connects + self.closes + self.fails + self.accepts + self.listens
    }

    pub fn add(&mut self, other: &Self) {
        let Self { connects, closes, fails, accepts, listens, bytes_sent, bytes_received } = *other;
        for (to, sum) in [
            (&mut self.connects, connects),
            (&mut self.closes, closes),
            (&mut self.fails, fails),
            (&mut self.accepts, accepts),
            (&mut self.listens, listens),
            (&mut self.bytes_sent, bytes_sent),
            (&mut self.bytes_received, bytes_received),
        ] {
            *to = to.saturating_add(sum);
        }
    }

    /// In the order of the fields.
    pub(super) fn of(sums: [i64; 7]) -> Self {
        let [connects, closes, fails, accepts, listens, bytes_sent, bytes_received] =
            sums.map(|sum| u64::try_from(sum).unwrap_or(0));
        Self { connects, closes, fails, accepts, listens, bytes_sent, bytes_received }
    }

    /// From seven columns that begin at `first`.
    pub(super) fn from_row(row: &Row<'_>, first: usize) -> rusqlite::Result<Self> {
        Ok(Self {
            connects: count(row, first)?,
            closes: count(row, first + 1)?,
            fails: count(row, first + 2)?,
            accepts: count(row, first + 3)?,
            listens: count(row, first + 4)?,
            bytes_sent: count(row, first + 5)?,
            bytes_received: count(row, first + 6)?,
        })
    }
}

#[derive(Debug, Clone)]
pub struct DomainRow {
    pub domain: String,
    pub counts: Counts,
    pub providers: Vec<String>,
    /// Its endpoint class, where one is known.
    pub class: Option<String>,
    /// How the name became known: words of `domain_source`.
    pub known_by: Vec<String>,
}

#[derive(Debug, Clone)]
pub struct IpRow {
    pub ip: String,
    pub counts: Counts,
    /// The name most of its connections went by.
    pub name: Option<String>,
    /// That one is known by reverse look-ups alone.
    pub is_guess: bool,
}

/// The best of a ranking, and how many there are in all.
#[derive(Debug, Clone)]
pub struct Top<T> {
    pub rows: Vec<T>,
    pub all: u64,
}

impl<T> Default for Top<T> {
    fn default() -> Self {
        Self { rows: Vec::new(), all: 0 }
    }
}

#[derive(Debug, Clone)]
pub struct Report {
    pub selection: Selection,
    /// Oldest first.
    pub sessions: Vec<StoredSession>,
    pub totals: Counts,
    /// Of these, what left the machine or came to it, what stayed on it, and the look-ups at its resolvers. Whole
    /// sessions say which way their bytes went; elsewhere the address of the other end decides.
    pub away: Counts,
    pub loopback: Counts,
    pub lookups: Counts,
    /// Connections without a close: of whole sessions as they said it, in a range the connects without a close in it.
    pub active: u64,
    /// The sums could not answer the filter: all events in the range were read.
    pub read_events: bool,
    pub providers: Vec<(String, Counts)>,
    pub domains: Top<DomainRow>,
    pub ips: Top<IpRow>,
    pub(super) pairs: Pairs,
}

/// Addresses of this machine for itself.
const LOOPBACK: &str = "endpoint.remote LIKE '127.%' OR endpoint.remote IN ('::1', '0.0.0.0', '::')";

const SUMS: &str =
    "sum(connects), sum(closes), sum(fails), sum(accepts), sum(listens), sum(bytes_sent), sum(bytes_recv)";

impl History {
    /// The sessions that are selected, oldest first; `None` where one was named that is not there.
    pub fn selected(&self, selection: &Selection) -> rusqlite::Result<Option<Vec<StoredSession>>> {
        Ok(match &selection.sessions {
            Sessions::Latest => Some(self.latest_session()?.into_iter().collect()),
            Sessions::Named(name) => self.session(name)?.map(|session| vec![session]),
            Sessions::All => Some(self.sessions_between(selection)?),
        })
    }

    /// `None` where a session was named that is not there.
    pub fn report(&self, selection: &Selection, top: u32) -> rusqlite::Result<Option<Report>> {
        self.report_with(selection, top, None, Pairs::default())
    }

    /// The same with its lists in another order, and with what [`History::details`] and [`History::groups`] need.
    pub fn report_by(
        &self,
        selection: &Selection,
        top: u32,
        sort: Option<Sort>,
    ) -> rusqlite::Result<Option<Report>> {
        self.report_with(selection, top, sort, Pairs { are_kept: true, ..Pairs::default() })
    }

    fn report_with(
        &self,
        selection: &Selection,
        top: u32,
        sort: Option<Sort>,
        pairs: Pairs,
    ) -> rusqlite::Result<Option<Report>> {
        let Some(sessions) = self.selected(selection)? else { return Ok(None) };
        let filter = Conditions::of(selection.filter.as_ref());
        if selection.filter.is_some() {
            Condition::prepare(&self.connection)?;
        }
        let mut providers = self.gather(selection, &filter, &sessions, pairs)?;
        let totals = providers.total();
        let active = if selection.is_range() || selection.filter.is_some() {
            totals.connects.saturating_sub(totals.closes)
        } else {
            sessions.iter().map(|session| session.active).sum()
        };
        let (away, loopback) = ways(selection, &sessions, totals, self.sums_where(LOOPBACK)?);
        Ok(Some(Report {
            selection: selection.clone(),
            totals,
            away,
            loopback,
            active,
            read_events: filter.on_sums.is_none(),
            lookups: self.sums_where("endpoint.type = 'dns'")?,
            domains: self.domains(top, sort, &providers.names)?,
            ips: self.ips(top, sort)?,
            pairs: std::mem::take(&mut providers.pairs),
            providers: providers.ranked(),
            sessions,
        }))
    }

    fn sessions_between(&self, selection: &Selection) -> rusqlite::Result<Vec<StoredSession>> {
        let since = selection.since.unwrap_or(i64::MIN);
        let until = selection.until.unwrap_or(i64::MAX);
        let sql = format!(
            "SELECT {} FROM session
             WHERE (started_at < ?2 AND ifnull(ended_at, started_at) >= ?1)
                OR id IN (SELECT session FROM activity
                          WHERE ifnull(last_seen, (hour + 1) * {HOUR_MS} - 1) >= ?1 AND ifnull(first_seen, hour * {HOUR_MS}) < ?2)
             ORDER BY started_at, id",
            columns(&self.connection)?
        );
        let mut statement = self.connection.prepare(&sql)?;
        let rows = statement.query_map([since, until], StoredSession::from_row)?;
        rows.collect()
    }

    /// Fills `temp.scope` with the sums by endpoint of everything that is selected, and sums up by provider.
    fn gather(
        &self,
        selection: &Selection,
        filter: &Conditions,
        sessions: &[StoredSession],
        pairs: Pairs,
    ) -> rusqlite::Result<Gathering> {
        self.connection.execute_batch(
            "CREATE TEMP TABLE selected (id INTEGER PRIMARY KEY, is_whole);
             CREATE TEMP TABLE scope (endpoint, providers, connects, closes, fails, accepts, listens, bytes_sent, bytes_recv);",
        )?;
        // Hours in full, from the first that begins in the range to the one before that in which it ends.
        let ceiling = |ms: i64| ms.div_euclid(HOUR_MS) + i64::from(ms.rem_euclid(HOUR_MS) > 0);
        let first = selection.since.map_or(i64::MIN, ceiling);
        let end = selection.until.map_or(i64::MAX, |until| until.div_euclid(HOUR_MS));
        let mut select = self.connection.prepare(
            "INSERT INTO temp.selected
             SELECT ?1, NOT EXISTS (SELECT 1 FROM activity WHERE session = ?1 AND NOT (hour >= ?2 AND hour < ?3))",
        )?;
        for session in sessions {
            select.execute([session.id, first, end])?;
        }
        let mut gathering = Gathering::new(&self.connection, pairs)?;
        let (since, until) = (selection.since.unwrap_or(i64::MIN), selection.until.unwrap_or(i64::MAX));
        let mut part = |hours: RangeInclusive<i64>, of: Part| {
            self.gather_events(&mut gathering, &filter.on_events, &hours, since..until, of)
        };
        match &filter.on_sums {
            None => {
                let hours = since.div_euclid(HOUR_MS)..=until.div_euclid(HOUR_MS);
                part(hours, Part::EverySession)?;
            }
            Some(_) if first > end => part(end..=end, Part::NotWhole)?,
            Some(on_sums) => {
                if selection.since.is_some() && since.rem_euclid(HOUR_MS) > 0 {
                    part(first - 1..=first - 1, Part::NotWhole)?;
                }
                if selection.until.is_some() && until.rem_euclid(HOUR_MS) > 0 {
                    part(end..=end, Part::NotWhole)?;
                }
                self.gather_sums(&mut gathering, on_sums, first, end)?;
            }
        }
        gathering.put(&self.connection)?;
        Ok(gathering)
    }

    /// The sums that are kept: of sessions that are selected as a whole, and of the hours from `first` to before `end`
    /// of the others.
    fn gather_sums(
        &self,
        gathering: &mut Gathering,
        filter: &Condition,
        first: i64,
        end: i64,
    ) -> rusqlite::Result<()> {
        let columns = "traffic.actor, traffic.endpoint, connects, closes, fails, accepts, listens, bytes_sent, bytes_recv";
        // Without a filter neither is looked at.
        let (tables, condition) = if filter.sql.is_empty() {
            ("", String::new())
        } else {
            let tables = " CROSS JOIN actor ON actor.id = traffic.actor CROSS JOIN endpoint ON endpoint.id = traffic.endpoint";
            (tables, format!(" AND ({})", filter.sql))
        };
        let mut rows = self.connection.prepare(&format!(
            "SELECT {columns} FROM temp.selected CROSS JOIN traffic ON traffic.session = selected.id{tables}
             WHERE is_whole AND hour = {WHOLE_SESSION}{condition}
             UNION ALL
             SELECT {columns} FROM temp.selected CROSS JOIN traffic ON traffic.session = selected.id{tables}
             WHERE NOT is_whole AND hour > {WHOLE_SESSION} AND hour >= ? AND hour < ?{condition}"
        ))?;
        let mut values = filter.values.clone();
        values.extend([first.into(), end.into()]);
        values.extend(filter.values.iter().cloned());
        let mut rows = rows.query(params_from_iter(values))?;
        while let Some(row) = rows.next()? {
            let mut sums = [0; 7];
            for (index, sum) in sums.iter_mut().enumerate() {
                *sum = row.get(2 + index)?;
            }
            gathering.add(&self.connection, row.get(0)?, row.get(1)?, sums)?;
        }
        Ok(())
    }

    /// The events of these hours that lie in `range`.
    fn gather_events(
        &self,
        gathering: &mut Gathering,
        filter: &Condition,
        hours: &RangeInclusive<i64>,
        range: Range<i64>,
        of: Part,
    ) -> rusqlite::Result<()> {
        let ids: (Option<i64>, Option<i64>) = self.connection.query_row(
            "SELECT min(first_event), max(last_event)
             FROM temp.selected CROSS JOIN activity ON activity.session = selected.id WHERE hour BETWEEN ?1 AND ?2",
            [hours.start(), hours.end()],
            |row| Ok((row.get(0)?, row.get(1)?)),
        )?;
        let (Some(first), Some(last)) = ids else { return Ok(()) };
        let since = range.start.max(hours.start().saturating_mul(HOUR_MS));
        let until = range.end.min(hours.end().saturating_add(1).saturating_mul(HOUR_MS));
        let sessions = match of {
            Part::NotWhole => " WHERE NOT is_whole",
            Part::EverySession => "",
        };
        let (tables, condition) = if filter.sql.is_empty() {
            ("", String::new())
        } else {
            (
                " CROSS JOIN endpoint ON endpoint.id = event.endpoint
                 LEFT JOIN tool_call ON tool_call.id = process.call",
                format!(" AND ({})", filter.sql),
            )
        };
        let mut rows = self.connection.prepare(&format!(
            "SELECT process.actor, event.endpoint, kind.event = 'connect', kind.event = 'close', kind.event = 'fail',
                    kind.event = 'accept', kind.event = 'listen',
                    ifnull(event.bytes_sent, 0),
                    ifnull(event.bytes_recv, 0)
             FROM event
             CROSS JOIN process ON process.id = event.process
             CROSS JOIN kind ON kind.id = event.kind{tables}
             WHERE event.id BETWEEN ? AND ? AND event.ts >= ? AND event.ts < ?
               AND process.session IN (SELECT id FROM temp.selected{sessions}){condition}",
        ))?;
        let mut values: Vec<Value> = vec![first.into(), last.into(), since.into(), until.into()];
        values.extend(filter.values.iter().cloned());
        let mut rows = rows.query(params_from_iter(values))?;
        while let Some(row) = rows.next()? {
            let mut sums = [0; 7];
            for (index, sum) in sums.iter_mut().enumerate() {
                *sum = row.get(2 + index)?;
            }
            // As the sums that are kept, see rollup.rs.
            sums[5] = sums[5].clamp(0, BYTES_MAX);
            sums[6] = sums[6].clamp(0, BYTES_MAX);
            gathering.add(&self.connection, row.get(0)?, row.get(1)?, sums)?;
        }
        Ok(())
    }

    /// The sums of the endpoints of which `condition` holds.
    fn sums_where(&self, condition: &str) -> rusqlite::Result<Counts> {
        let sql = format!(
            "SELECT {SUMS} FROM temp.scope CROSS JOIN endpoint ON endpoint.id = scope.endpoint WHERE {condition}"
        );
        self.connection.query_row(&sql, [], |row| {
            // Without rows the sums are NULL.
            let mut sums = [0; 7];
            for (index, sum) in sums.iter_mut().enumerate() {
                *sum = row.get::<_, Option<i64>>(index)?.unwrap_or(0);
            }
            Ok(Counts::of(sums))
        })
    }

    fn domains(
        &self,
        top: u32,
        sort: Option<Sort>,
        providers: &[String],
    ) -> rusqlite::Result<Top<DomainRow>> {
        let all = self.connection.query_row(
            "SELECT count(DISTINCT domain) FROM temp.scope JOIN endpoint ON endpoint.id = scope.endpoint
             WHERE connects + closes + fails > 0 AND relay_for IS NULL",
            [],
            |row| count(row, 0),
        )?;
        let mut statement = self.connection.prepare(&format!(
            "SELECT domain, {SUMS}, json_group_array(DISTINCT providers), json_group_array(DISTINCT domain_source), max(type)
             FROM temp.scope CROSS JOIN endpoint ON endpoint.id = scope.endpoint
             WHERE domain IS NOT NULL AND connects + closes + fails > 0 AND relay_for IS NULL
             GROUP BY domain ORDER BY {}, domain LIMIT ?1",
            ranking(sort, "domain")
        ))?;
        let rows = statement.query_map([top], |row| {
            Ok(DomainRow {
                domain: row.get(0)?,
                counts: Counts::from_row(row, 1)?,
                providers: named(&row.get::<_, String>(8)?, providers),
                known_by: list(&row.get::<_, String>(9)?),
                class: row.get(10)?,
            })
        })?;
        Ok(Top { rows: rows.collect::<rusqlite::Result<_>>()?, all })
    }

    fn ips(&self, top: u32, sort: Option<Sort>) -> rusqlite::Result<Top<IpRow>> {
        let all = self.connection.query_row(
            "SELECT count(DISTINCT remote) FROM temp.scope JOIN endpoint ON endpoint.id = scope.endpoint
             WHERE protocol <> 'unix' AND connects + closes + fails > 0",
            [],
            |row| count(row, 0),
        )?;
        // What a proxy was asked for is no name of the proxy's address.
        // Beside a single max(), SQLite takes the other columns from the row that has the maximum
        // (sqlite.org/lang_select.html#bare_columns_in_an_aggregate_query).
        let mut statement = self.connection.prepare(&format!(
            "SELECT remote, {SUMS}, domain, guess, max(CASE WHEN domain IS NULL THEN -1 ELSE connects + fails END)
             FROM (SELECT remote, CASE WHEN domain_source <> 'proxy' THEN domain END AS domain, min(domain_source IN ('ptr', 'known')) AS guess, sum(connects) AS connects, sum(closes) AS closes, sum(fails) AS fails,
                          sum(accepts) AS accepts, sum(listens) AS listens,
                          sum(bytes_sent) AS bytes_sent, sum(bytes_recv) AS bytes_recv
                   FROM temp.scope CROSS JOIN endpoint ON endpoint.id = scope.endpoint
                   WHERE protocol <> 'unix' AND remote IS NOT NULL AND connects + closes + fails > 0
                   GROUP BY 1, 2)
             GROUP BY remote ORDER BY {}, remote LIMIT ?1",
            ranking(sort, "remote")
        ))?;
        let rows = statement.query_map([top], |row| {
            Ok(IpRow {
                ip: row.get(0)?,
                counts: Counts::from_row(row, 1)?,
                name: row.get(8)?,
                is_guess: row.get::<_, Option<bool>>(9)?.unwrap_or(false),
            })
        })?;
        Ok(Top { rows: rows.collect::<rusqlite::Result<_>>()?, all })
    }
}

/// What went away and what stayed, where `within` stayed by its address.
fn ways(
    selection: &Selection,
    sessions: &[StoredSession],
    totals: Counts,
    within: Counts,
) -> (Counts, Counts) {
    let is_whole = !selection.is_range() && selection.filter.is_none();
    let told: Option<Vec<Ways>> = sessions.iter().map(|session| session.ways).collect();
    let Some(told) = told.filter(|_| is_whole) else {
        let bytes_sent = totals.bytes_sent.saturating_sub(within.bytes_sent);
        let bytes_received = totals.bytes_received.saturating_sub(within.bytes_received);
        return (Counts { bytes_sent, bytes_received, ..totals }, within);
    };
    let sum = |of: fn(&Ways) -> Bytes| {
        let bytes = told.iter().map(of);
        bytes.fold((0_u64, 0_u64), |sum, bytes| {
            (sum.0.saturating_add(bytes.sent), sum.1.saturating_add(bytes.received))
        })
    };
    let with = |(bytes_sent, bytes_received), counts| Counts { bytes_sent, bytes_received, ..counts };
    (with(sum(|ways| ways.away), totals), with(sum(|ways| ways.loopback), within))
}

/// A JSON array that SQLite made, in the order of its words.
fn list(json: &str) -> Vec<String> {
    let mut words: Vec<Option<String>> = serde_json::from_str(json).unwrap_or_default();
    words.sort();
    words.into_iter().flatten().collect()
}
