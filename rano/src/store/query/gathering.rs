//! Sums by endpoint and by provider, as a report gathers them.

use std::cmp::Reverse;

use rusqlite::Connection;
use rustc_hash::FxHashMap;

use super::report::Counts;

/// Endpoints whose sums are held in memory at a time; some 15 MiB.
const ENDPOINTS_MAX: usize = 1 << 17;

/// Providers that are told apart in the list beside a domain.
const PROVIDERS_MAX: usize = 62;

/// The sums of each actor with each endpoint, for what goes beyond rankings.
#[derive(Debug, Clone, Default)]
pub(super) struct Pairs {
    pub(super) sums: FxHashMap<(i64, i64), [i64; 7]>,
    /// Whether they are kept at all.
    pub(super) are_kept: bool,
    /// How often there was no room for one.
    pub(super) unlisted: u64,
}

/// Some 30 MiB.
const PAIRS_MAX: usize = 1 << 18;

impl Pairs {
    fn add(&mut self, actor: i64, endpoint: i64, sums: [i64; 7]) {
        if !self.are_kept {
            return;
        }
        if self.sums.len() >= PAIRS_MAX && !self.sums.contains_key(&(actor, endpoint)) {
            self.unlisted += 1;
            return;
        }
        add(self.sums.entry((actor, endpoint)).or_insert([0; 7]), sums);
    }
}

/// Sums as they come in. SQLite would sort all rows to group them, which takes several times as long.
pub(super) struct Gathering {
    /// Place in `names` of each actor's provider.
    provider_of: FxHashMap<i64, usize>,
    pub(super) names: Vec<String>,
    /// In the order of `names`.
    by_provider: Vec<[i64; 7]>,
    /// With a bit for each provider that had to do with the endpoint.
    by_endpoint: FxHashMap<i64, (i64, [i64; 7])>,
    pub(super) pairs: Pairs,
}

impl Gathering {
    pub(super) fn new(connection: &Connection, pairs: Pairs) -> rusqlite::Result<Self> {
        let mut names: Vec<String> = Vec::new();
        let mut provider_of = FxHashMap::default();
        let mut statement = connection.prepare("SELECT id, provider FROM actor")?;
        let mut rows = statement.query([])?;
        while let Some(row) = rows.next()? {
            let provider: String = row.get(1)?;
            let place = names.iter().position(|name| *name == provider).unwrap_or_else(|| {
                names.push(provider);
                names.len() - 1
            });
            provider_of.insert(row.get(0)?, place);
        }
        let by_provider = vec![[0; 7]; names.len()];
        Ok(Self { provider_of, names, by_provider, by_endpoint: FxHashMap::default(), pairs })
    }

    pub(super) fn add(
        &mut self,
        connection: &Connection,
        actor: i64,
        endpoint: i64,
        sums: [i64; 7],
    ) -> rusqlite::Result<()> {
        self.pairs.add(actor, endpoint, sums);
        let place = self.provider_of.get(&actor).copied();
        if let Some(provider) = place.and_then(|place| self.by_provider.get_mut(place)) {
            add(provider, sums);
        }
        let (providers, endpoint) = self.by_endpoint.entry(endpoint).or_default();
        // Sums that a late name emptied are nobody's.
        if sums.iter().any(|sum| *sum != 0) {
            *providers |= place.map_or(0, |place| 1 << place.min(PROVIDERS_MAX));
        }
        add(endpoint, sums);
        // What is found twice in `scope` is added up later.
        if self.by_endpoint.len() >= ENDPOINTS_MAX { self.put(connection) } else { Ok(()) }
    }

    pub(super) fn put(&mut self, connection: &Connection) -> rusqlite::Result<()> {
        let mut insert = connection
            .prepare_cached("INSERT INTO temp.scope VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)")?;
        for (endpoint, (providers, [connects, closes, fails, accepts, listens, sent, received])) in
            self.by_endpoint.drain()
        {
            insert
                .execute([endpoint, providers, connects, closes, fails, accepts, listens, sent, received])?;
        }
        Ok(())
    }

    pub(super) fn total(&self) -> Counts {
        let mut total = [0; 7];
        for sums in &self.by_provider {
            add(&mut total, *sums);
        }
        Counts::of(total)
    }

    /// In the order of a ranking; without those that did nothing.
    pub(super) fn ranked(self) -> Vec<(String, Counts)> {
        let rows = self.names.into_iter().zip(self.by_provider.into_iter().map(Counts::of));
        let mut rows: Vec<_> = rows.filter(|(_, counts)| counts.events() > 0).collect();
        rows.sort_by_cached_key(|(name, counts)| {
            let Counts { connects, fails, bytes_sent, bytes_received, .. } = *counts;
            (Reverse((connects, fails, bytes_sent.saturating_add(bytes_received))), name.clone())
        });
        rows
    }
}

pub(super) fn add(to: &mut [i64; 7], sums: [i64; 7]) {
    for (to, sum) in to.iter_mut().zip(sums) {
        *to = to.saturating_add(sum);
    }
}

/// The providers whose bits are set in any of the numbers of a JSON array.
pub(super) fn named(masks: &str, providers: &[String]) -> Vec<String> {
    let masks: Vec<i64> = serde_json::from_str(masks).unwrap_or_default();
    let all = masks.into_iter().fold(0, |all, mask| all | mask);
    let mut names: Vec<_> = providers
        .iter()
        .enumerate()
        .filter(|(place, _)| all >> (*place).min(PROVIDERS_MAX) & 1 == 1)
        .collect();
    // The last bit stands for all that have none of their own.
    names.truncate(PROVIDERS_MAX);
    let mut names: Vec<String> = names.into_iter().map(|(_, name)| name.clone()).collect();
    names.sort();
    names
}
