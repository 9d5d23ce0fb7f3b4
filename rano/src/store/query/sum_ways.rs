//! The ways of very many events, by their sums: light rows of numbers, of which only those that are shown get their
//! texts.

use std::cmp::Reverse;

use rustc_hash::FxHashMap;

use super::details::{EXTRA_MAX, FailureRow, Finding, Way, class, is_strange, name, run_id};
use super::groups::Sort;
use super::report::{Report, add};
use super::ways::{ProcessSum, Rows, counts};
use crate::attention::{Facts, causes, gravity};
use crate::event::Class;

/// An endpoint by its name, else its address.
struct Place {
    label: String,
    /// A row of `endpoint` with it.
    endpoint: i64,
    class: Class,
    is_new: bool,
    sums: [i64; 7],
    /// Rows that have it, and the one that sent most.
    ways: u64,
    largest: usize,
}

struct Light {
    actor: i64,
    place: usize,
    sums: [i64; 7],
}

/// The ways of a report, and who may have been behind them.
pub(super) struct SumWays<'a> {
    report: &'a Report,
    /// Provider and command name.
    actors: FxHashMap<i64, (String, Option<String>)>,
    places: Vec<Place>,
    /// Most bytes sent first.
    rows: Vec<Light>,
    /// Of each actor what its processes sent, and the one that sent most.
    culprits: FxHashMap<i64, (i64, ProcessSum)>,
    /// What alerts marked, read from events, by provider and endpoint.
    alerted: FxHashMap<(String, String), Way>,
}

impl<'a> SumWays<'a> {
    /// `is_new` of a label; `processes` and `alerted` as far as they are known.
    pub(super) fn new(
        report: &'a Report,
        rows: &mut Rows<'_>,
        actors: FxHashMap<i64, (String, Option<String>)>,
        is_new: impl Fn(&str) -> bool,
        processes: &[ProcessSum],
        alerted: Vec<Way>,
    ) -> rusqlite::Result<Self> {
        let mut places: Vec<Place> = Vec::new();
        let mut by_label: FxHashMap<String, usize> = FxHashMap::default();
        let mut by_endpoint: FxHashMap<i64, usize> = FxHashMap::default();
        let mut found: FxHashMap<(i64, usize), [i64; 7]> = FxHashMap::default();
        for ((actor, endpoint), sums) in &report.pairs.sums {
            if sums[..3].iter().all(|sum| *sum == 0) {
                continue;
            }
            let place = if let Some(place) = by_endpoint.get(endpoint) {
                *place
            } else {
                let of = rows.endpoint(*endpoint)?;
                if of.is_relay {
                    continue;
                }
                let place = *by_label.entry(of.name.clone()).or_insert_with(|| {
                    places.push(Place {
                        label: of.name.clone(),
                        endpoint: *endpoint,
                        class: class(&of.class),
                        is_new: is_new(&of.name),
                        sums: [0; 7],
                        ways: 0,
                        largest: 0,
                    });
                    places.len() - 1
                });
                by_endpoint.insert(*endpoint, place);
                place
            };
            add(
                found.entry((*actor, place)).or_insert([0; 7]),
                [sums[0], sums[1], sums[2], 0, 0, sums[5], sums[6]],
            );
        }
        let mut rows: Vec<Light> =
            found.into_iter().map(|((actor, place), sums)| Light { actor, place, sums }).collect();
        rows.sort_unstable_by(|a, b| {
            let key = |row: &Light| Reverse((row.sums[5], row.sums[0], row.sums[2]));
            (key(a), &places[a.place].label, a.actor).cmp(&(key(b), &places[b.place].label, b.actor))
        });
        for (at, row) in rows.iter().enumerate() {
            let place = &mut places[row.place];
            add(&mut place.sums, row.sums);
            place.ways += 1;
            let largest = &rows[place.largest].sums;
            if place.ways == 1 || (row.sums[5], row.sums[2]) > (largest[5], largest[2]) {
                place.largest = at;
            }
        }
        let mut culprits: FxHashMap<i64, (i64, ProcessSum)> = FxHashMap::default();
        for sum in processes {
            let (total, most) = culprits.entry(sum.actor).or_default();
            *total = total.saturating_add(sum.sums[5]);
            if sum.sums[5] > most.sums[5] {
                *most = *sum;
            }
        }
        let mut by_end: FxHashMap<(String, String), Way> = FxHashMap::default();
        for way in alerted {
            let key = (way.provider.clone(), way.endpoint.clone());
            match by_end.get_mut(&key) {
                Some(known) => known.alerts += way.alerts,
                None => drop(by_end.insert(key, way)),
            }
        }
        Ok(Self { report, actors, places, rows, culprits, alerted: by_end })
    }

    pub(super) fn count(&self) -> u64 {
        self.rows.len() as u64
    }

    pub(super) fn alerts(&self) -> u64 {
        self.alerted.values().map(|way| way.alerts).sum()
    }

    fn provider(&self, row: &Light) -> &str {
        self.actors.get(&row.actor).map_or("", |(provider, _)| provider.as_str())
    }

    fn alerted(&self, row: &Light) -> Option<&Way> {
        if self.alerted.is_empty() {
            return None;
        }
        self.alerted.get(&(self.provider(row).to_owned(), self.places[row.place].label.clone()))
    }

    /// The first `top`, then those that are new or alerted; and how many of these are too many.
    pub(super) fn shown(
        &self,
        top: usize,
        sort: Sort,
        rows: &mut Rows<'_>,
    ) -> rusqlite::Result<(Vec<Way>, u64)> {
        let mut order: Vec<usize> = (0..self.rows.len()).collect();
        let of = |at: &usize| &self.rows[*at].sums;
        match sort {
            // Times are not in the sums.
            Sort::Sent | Sort::First | Sort::Last => {}
            Sort::Received => order.sort_by_key(|at| Reverse(of(at)[6])),
            Sort::Connections => order.sort_by_key(|at| Reverse(of(at)[0])),
            Sort::Fails => order.sort_by_key(|at| Reverse(of(at)[2])),
            Sort::Name => order.sort_by(|a, b| {
                let label = |at: usize| &self.places[self.rows[at].place].label;
                label(*a).cmp(label(*b))
            }),
        }
        let (mut ways, mut extra, mut hidden) = (Vec::new(), 0, 0);
        for (number, at) in order.into_iter().enumerate() {
            let row = &self.rows[at];
            let place = &self.places[row.place];
            let deserves = is_strange(place.is_new, place.class) || self.alerted(row).is_some();
            if number >= top {
                extra += usize::from(deserves);
                let is_hidden = deserves && extra > EXTRA_MAX;
                hidden += u64::from(is_hidden);
                if !deserves || is_hidden {
                    continue;
                }
            }
            ways.push(self.way(at, rows)?);
        }
        Ok((ways, hidden))
    }

    /// Each of them, most bytes sent first.
    pub(super) fn all(&self, rows: &mut Rows<'_>) -> rusqlite::Result<Vec<Way>> {
        (0..self.rows.len()).map(|at| self.way(at, rows)).collect()
    }

    /// What deserves a look, the gravest first, and how many there are.
    pub(super) fn findings(&self, most: usize, rows: &mut Rows<'_>) -> rusqlite::Result<(Vec<Finding>, u64)> {
        let mut alerts: FxHashMap<&str, u64> = FxHashMap::default();
        for ((_, label), way) in &self.alerted {
            *alerts.entry(label).or_default() += way.alerts;
        }
        let mut found = Vec::new();
        for place in &self.places {
            let alerts = alerts.get(place.label.as_str()).copied().unwrap_or(0);
            let counts = counts(place.sums);
            let facts = Facts {
                class: place.class,
                is_new: place.is_new,
                is_alerted: alerts > 0,
                connects: counts.connects,
                fails: counts.fails,
                bytes_sent: counts.bytes_sent,
            };
            let causes = causes(&facts);
            if !causes.is_empty() {
                found.push((Reverse(gravity(&causes, &facts)), place, causes, counts, alerts));
            }
        }
        found.sort_by(|a, b| (a.0, &a.1.label).cmp(&(b.0, &b.1.label)));
        let all = found.len() as u64;
        let findings = found.into_iter().take(most).map(|(_, place, causes, counts, alerts)| {
            let way = self.way(place.largest, rows)?;
            Ok(Finding { causes, counts, alerts, way, ways: place.ways })
        });
        Ok((findings.collect::<rusqlite::Result<_>>()?, all))
    }

    /// Without the reasons.
    pub(super) fn failures(&self) -> Vec<FailureRow> {
        let failed = self.places.iter().filter(|place| place.sums[2] > 0);
        failed
            .map(|place| FailureRow {
                error: None,
                endpoint: place.label.clone(),
                port: None,
                class: place.class,
                count: counts(place.sums).fails,
                last_seen: None,
            })
            .collect()
    }

    fn way(&self, at: usize, rows: &mut Rows<'_>) -> rusqlite::Result<Way> {
        let row = &self.rows[at];
        let place = &self.places[row.place];
        let endpoint = rows.endpoint(place.endpoint)?.clone();
        let (provider, program) = self.actors.get(&row.actor).cloned().unwrap_or_default();
        let run_id = match self.report.sessions.as_slice() {
            [session] => Some(session.run_id.clone()),
            _ => None,
        };
        let mut way = Way {
            run_id,
            provider,
            program,
            endpoint: endpoint.name,
            is_named: endpoint.is_named,
            known_by: endpoint.known_by,
            ip: endpoint.remote.filter(|_| !endpoint.is_named),
            protocol: endpoint.protocol,
            class: place.class,
            is_new: place.is_new,
            counts: counts(row.sums),
            ..Way::default()
        };
        self.attribute(&mut way, row, rows)?;
        if let Some(alerted) = self.alerted(row) {
            way.alerts = alerted.alerts;
            if !way.is_inferred {
                point_to(&mut way, alerted);
            }
        }
        Ok(way)
    }

    /// A command name's bytes to an endpoint are of all its processes together. If one process has sent so much that
    /// the others together cannot have sent half of them, most of them are of that one.
    fn attribute(&self, way: &mut Way, row: &Light, rows: &mut Rows<'_>) -> rusqlite::Result<()> {
        let Some((total, most)) = self.culprits.get(&row.actor) else { return Ok(()) };
        let others = total.saturating_sub(most.sums[5]);
        if others.saturating_mul(2) >= row.sums[5] {
            return Ok(());
        }
        let who = rows.who(most.process)?;
        name(way, who);
        way.run_id = Some(run_id(self.report, who.session));
        (way.first_seen, way.last_seen) = (Some(most.first_seen), Some(most.last_seen));
        (way.at, way.is_inferred) = (way.first_seen, true);
        Ok(())
    }
}

/// Whose the alerted connection was; the others may be somebody else's.
fn point_to(way: &mut Way, alerted: &Way) {
    (way.port, way.is_inferred) = (alerted.port, true);
    (way.at, way.first_seen, way.last_seen) = (alerted.at, alerted.first_seen, alerted.last_seen);
    (way.agent, way.agent_pid) = (alerted.agent.clone(), alerted.agent_pid);
    (way.tool, way.tool_pid, way.tool_started) =
        (alerted.tool.clone(), alerted.tool_pid, alerted.tool_started);
    (way.program, way.pid, way.cmdline) = (alerted.program.clone(), alerted.pid, alerted.cmdline.clone());
}
