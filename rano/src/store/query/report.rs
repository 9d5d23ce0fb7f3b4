//! The sums of sessions or of a range of time. Whole hours come from `traffic`; only the parts of an hour at the ends of a
//! range are counted event by event.

use rusqlite::{Row, params};
use rustc_hash::FxHashMap;

use super::sessions::{StoredSession, columns, count};
use crate::store::History;
use crate::store::rollup::{HOUR_MS, WHOLE_SESSION};

/// What is reported on. Times are in Unix milliseconds; `since` is inside, `until` is not.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Selection {
    pub sessions: Sessions,
    pub since: Option<i64>,
    pub until: Option<i64>,
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

    /// From seven columns that begin at `first`.
    fn from_row(row: &Row<'_>, first: usize) -> rusqlite::Result<Self> {
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
}

/// The best of a ranking, and how many there are in all.
#[derive(Debug, Clone)]
pub struct Top<T> {
    pub rows: Vec<T>,
    pub all: u64,
}

#[derive(Debug, Clone)]
pub struct Report {
    pub selection: Selection,
    /// Oldest first.
    pub sessions: Vec<StoredSession>,
    pub totals: Counts,
    /// Connections without a close: of whole sessions as they said it, in a range the connects without a close in it.
    pub active: u64,
    pub providers: Vec<(String, Counts)>,
    pub domains: Top<DomainRow>,
    pub ips: Top<IpRow>,
}

const SUMS: &str =
    "sum(connects), sum(closes), sum(fails), sum(accepts), sum(listens), sum(bytes_sent), sum(bytes_recv)";

/// Sums that are held in memory at a time; some 15 MiB.
const SUMS_MAX: usize = 1 << 17;

/// Most connections first, then most attempts, most bytes, by name.
const RANKING: &str = "sum(connects) DESC, sum(fails) DESC, sum(bytes_sent) + sum(bytes_recv) DESC";

impl History {
    /// `None` where a session was named that is not there.
    pub fn report(&self, selection: &Selection, top: u32) -> rusqlite::Result<Option<Report>> {
        let sessions = match &selection.sessions {
            Sessions::Latest => self.latest_session()?.into_iter().collect(),
            Sessions::Named(name) => match self.session(name)? {
                Some(session) => vec![session],
                None => return Ok(None),
            },
            Sessions::All => self.sessions_between(selection)?,
        };
        self.gather(selection, &sessions)?;
        let totals = self
            .connection
            .query_row(&format!("SELECT {SUMS} FROM temp.scope"), [], |row| Counts::from_row(row, 0))?;
        let active = if selection.is_range() {
            totals.connects.saturating_sub(totals.closes)
        } else {
            sessions.iter().map(|session| session.active).sum()
        };
        Ok(Some(Report {
            selection: selection.clone(),
            totals,
            active,
            providers: self.providers()?,
            domains: self.domains(top)?,
            ips: self.ips(top)?,
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
            columns()
        );
        let mut statement = self.connection.prepare(&sql)?;
        let rows = statement.query_map([since, until], StoredSession::from_row)?;
        rows.collect()
    }

    /// Fills `temp.scope` with the sums by actor and endpoint of everything that is selected.
    fn gather(&self, selection: &Selection, sessions: &[StoredSession]) -> rusqlite::Result<()> {
        self.connection.execute_batch(
            "CREATE TEMP TABLE selected (id INTEGER PRIMARY KEY, is_whole);
             CREATE TEMP TABLE scope (actor, endpoint, connects, closes, fails, accepts, listens, bytes_sent, bytes_recv);",
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
        self.sum_up(first, end)?;
        let (since, until) = (selection.since.unwrap_or(i64::MIN), selection.until.unwrap_or(i64::MAX));
        if first > end {
            return self.gather_part(end, since, until);
        }
        if selection.since.is_some() && since.rem_euclid(HOUR_MS) > 0 {
            self.gather_part(first - 1, since, until)?;
        }
        if selection.until.is_some() && until.rem_euclid(HOUR_MS) > 0 {
            self.gather_part(end, since, until)?;
        }
        Ok(())
    }

    /// Adds the sums that are kept: of sessions that are selected as a whole, and of the hours from `first` to before `end`
    /// of the others. Done here because SQLite would sort all rows to group them, which takes twice as long.
    fn sum_up(&self, first: i64, end: i64) -> rusqlite::Result<()> {
        let mut rows = self.connection.prepare(&format!(
            "SELECT traffic.* FROM temp.selected CROSS JOIN traffic ON traffic.session = selected.id
             WHERE is_whole AND hour = {WHOLE_SESSION}
             UNION ALL
             SELECT traffic.* FROM temp.selected CROSS JOIN traffic ON traffic.session = selected.id
             WHERE NOT is_whole AND hour > {WHOLE_SESSION} AND hour >= ?1 AND hour < ?2"
        ))?;
        let mut rows = rows.query([first, end])?;
        let mut sums: FxHashMap<(i64, i64), [i64; 7]> = FxHashMap::default();
        while let Some(row) = rows.next()? {
            let sum = sums.entry((row.get(2)?, row.get(3)?)).or_default();
            for (index, sum) in sum.iter_mut().enumerate() {
                *sum = sum.saturating_add(row.get(4 + index)?);
            }
            // What is found twice in `scope` is added up later.
            if sums.len() >= SUMS_MAX {
                self.put(&mut sums)?;
            }
        }
        self.put(&mut sums)
    }

    fn put(&self, sums: &mut FxHashMap<(i64, i64), [i64; 7]>) -> rusqlite::Result<()> {
        let mut insert = self
            .connection
            .prepare_cached("INSERT INTO temp.scope VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)")?;
        for ((actor, endpoint), [connects, closes, fails, accepts, listens, sent, received]) in sums.drain() {
            insert.execute([actor, endpoint, connects, closes, fails, accepts, listens, sent, received])?;
        }
        Ok(())
    }

    /// Adds the events of one hour that lie between `since` and `until`.
    fn gather_part(&self, hour: i64, since: i64, until: i64) -> rusqlite::Result<()> {
        let range: (Option<i64>, Option<i64>) = self.connection.query_row(
            "SELECT min(first_event), max(last_event)
             FROM temp.selected CROSS JOIN activity ON activity.session = selected.id WHERE hour = ?1",
            [hour],
            |row| Ok((row.get(0)?, row.get(1)?)),
        )?;
        let (Some(first), Some(last)) = range else { return Ok(()) };
        let since = since.max(hour.saturating_mul(HOUR_MS));
        let until = until.min((hour + 1).saturating_mul(HOUR_MS));
        // The bound is the one of the sums that are kept, see rollup.rs.
        self.connection.execute(
            "INSERT INTO temp.scope
             SELECT actor, endpoint, sum(event = 'connect'), sum(event = 'close'), sum(event = 'fail'),
                    sum(event = 'accept'), sum(event = 'listen'),
                    sum(CASE WHEN event IN ('close', 'fail') THEN min(ifnull(bytes_sent, 0), 1 << 53) ELSE 0 END),
                    sum(CASE WHEN event IN ('close', 'fail') THEN min(ifnull(bytes_recv, 0), 1 << 53) ELSE 0 END)
             FROM (SELECT process.actor, event.endpoint, kind.event, event.bytes_sent, event.bytes_recv
                   FROM event
                   CROSS JOIN process ON process.id = event.process
                   CROSS JOIN kind ON kind.id = event.kind
                   WHERE event.id BETWEEN ?1 AND ?2 AND event.ts >= ?3 AND event.ts < ?4
                     AND process.session IN (SELECT id FROM temp.selected WHERE NOT is_whole))
             GROUP BY actor, endpoint",
            params![first, last, since, until],
        )?;
        Ok(())
    }

    fn providers(&self) -> rusqlite::Result<Vec<(String, Counts)>> {
        let mut statement = self.connection.prepare(&format!(
            "SELECT provider, {SUMS} FROM temp.scope JOIN actor ON actor.id = scope.actor
             GROUP BY provider ORDER BY {RANKING}, provider"
        ))?;
        let rows = statement.query_map([], |row| Ok((row.get(0)?, Counts::from_row(row, 1)?)))?;
        rows.collect()
    }

    fn domains(&self, top: u32) -> rusqlite::Result<Top<DomainRow>> {
        let all = self.connection.query_row(
            "SELECT count(DISTINCT domain) FROM temp.scope JOIN endpoint ON endpoint.id = scope.endpoint
             WHERE connects + closes + fails > 0",
            [],
            |row| count(row, 0),
        )?;
        let mut statement = self.connection.prepare(&format!(
            "SELECT domain, {SUMS}, json_group_array(DISTINCT provider), json_group_array(DISTINCT domain_source), max(type)
             FROM temp.scope
             CROSS JOIN endpoint ON endpoint.id = scope.endpoint
             CROSS JOIN actor ON actor.id = scope.actor
             WHERE domain IS NOT NULL AND connects + closes + fails > 0
             GROUP BY domain ORDER BY {RANKING}, domain LIMIT ?1"
        ))?;
        let rows = statement.query_map([top], |row| {
            Ok(DomainRow {
                domain: row.get(0)?,
                counts: Counts::from_row(row, 1)?,
                providers: list(&row.get::<_, String>(8)?),
                known_by: list(&row.get::<_, String>(9)?),
                class: row.get(10)?,
            })
        })?;
        Ok(Top { rows: rows.collect::<rusqlite::Result<_>>()?, all })
    }

    fn ips(&self, top: u32) -> rusqlite::Result<Top<IpRow>> {
        let all = self.connection.query_row(
            "SELECT count(DISTINCT remote) FROM temp.scope JOIN endpoint ON endpoint.id = scope.endpoint
             WHERE protocol <> 'unix' AND connects + closes + fails > 0",
            [],
            |row| count(row, 0),
        )?;
        // Beside a single max(), SQLite takes the other columns from the row that has the maximum
        // (sqlite.org/lang_select.html#bare_columns_in_an_aggregate_query).
        let mut statement = self.connection.prepare(&format!(
            "SELECT remote, {SUMS}, domain, max(CASE WHEN domain IS NULL THEN -1 ELSE connects + fails END)
             FROM (SELECT remote, domain, sum(connects) AS connects, sum(closes) AS closes, sum(fails) AS fails,
                          sum(accepts) AS accepts, sum(listens) AS listens,
                          sum(bytes_sent) AS bytes_sent, sum(bytes_recv) AS bytes_recv
                   FROM temp.scope CROSS JOIN endpoint ON endpoint.id = scope.endpoint
                   WHERE protocol <> 'unix' AND remote IS NOT NULL AND connects + closes + fails > 0
                   GROUP BY remote, domain)
             GROUP BY remote ORDER BY {RANKING}, remote LIMIT ?1"
        ))?;
        let rows = statement.query_map([top], |row| {
            Ok(IpRow { ip: row.get(0)?, counts: Counts::from_row(row, 1)?, name: row.get(8)? })
        })?;
        Ok(Top { rows: rows.collect::<rusqlite::Result<_>>()?, all })
    }
}

/// A JSON array that SQLite made, in the order of its words.
fn list(json: &str) -> Vec<String> {
    let mut words: Vec<Option<String>> = serde_json::from_str(json).unwrap_or_default();
    words.sort();
    words.into_iter().flatten().collect()
}
