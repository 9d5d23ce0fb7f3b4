//! The live stats: what they count beside the totals, and who leads.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use rustc_hash::FxHashSet;

use super::agents::{AgentStanding, Agents};
use super::{Ranking, Totals};
use crate::connection::Connection;
use crate::event::{Address, Bytes};

/// What connects are counted by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum View {
    Provider,
    Domain,
    Port,
    Process,
    /// What each agent has open.
    Agent,
}

impl View {
    pub const ALL: [Self; 5] = [Self::Provider, Self::Domain, Self::Port, Self::Process, Self::Agent];

    /// Of all, in the same order.
    pub const NAMES: [&str; Self::ALL.len()] = {
        let mut names = [""; Self::ALL.len()];
        let mut at = 0;
        while at < names.len() {
            names[at] = Self::ALL[at].name();
            at += 1;
        }
        names
    };

    pub const fn name(self) -> &'static str {
        match self {
            Self::Provider => "provider",
            Self::Domain => "domain",
            Self::Port => "port",
            Self::Process => "process",
            Self::Agent => "agent",
        }
    }
}

/// Who leads in each view, at one moment.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Standings {
    pub active: u64,
    pub peak: u64,
    pub average_duration: Duration,
    /// In the order in which the views were asked for, each once.
    pub views: Vec<Standing>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Standing {
    /// `kinds`: how many providers there are, those that are not listed included.
    Providers { rows: Vec<ProviderStanding>, kinds: usize },
    /// Names and their connects, most first.
    Ranked { view: View, rows: Vec<(String, u64)>, kinds: usize },
    /// Those with most open connections first.
    Agents { rows: Vec<AgentStanding>, kinds: usize },
}

impl Standing {
    pub fn view(&self) -> View {
        match self {
            Self::Providers { .. } => View::Provider,
            Self::Ranked { view, .. } => *view,
            Self::Agents { .. } => View::Agent,
        }
    }
}

/// A provider's connects, and how many different names and addresses they went to: with `+` where there are more.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProviderStanding {
    pub name: Arc<str>,
    pub connects: u64,
    pub domains: String,
    pub ips: String,
}

/// What is counted for the views that are shown, and for no others.
#[derive(Debug, Clone, Default)]
pub(super) struct Tallies {
    views: Vec<View>,
    providers: BTreeMap<Arc<str>, ProviderTally>,
    ports: Ranking<u16>,
    processes: Ranking<String>,
    agents: Agents,
}

#[derive(Debug, Clone, Default)]
struct ProviderTally {
    connects: u64,
    domains: Distinct<Arc<str>>,
    ips: Distinct<IpAddr>,
}

impl Tallies {
    /// A view that is given twice counts once.
    pub(super) fn of(views: &[View]) -> Self {
        let mut once = Vec::new();
        for view in views {
            if !once.contains(view) {
                once.push(*view);
            }
        }
        Self { views: once, ..Self::default() }
    }

    pub(super) fn connected(&mut self, connection: &Connection) {
        for at in 0..self.views.len() {
            match self.views[at] {
                View::Provider => {
                    let tally = self.provider(&connection.provider);
                    tally.connects += 1;
                    if let Some(ip) = connection.remote.as_ref().and_then(Address::ip_addr) {
                        tally.ips.add(&ip);
                    }
                    if let Some(known) = &connection.name {
                        tally.domains.add(&known.name);
                    }
                }
                // The totals count names.
                View::Domain => {}
                View::Port => {
                    if let Some(Address::Ip(remote)) = connection.remote {
                        self.ports.count(&remote.port());
                    }
                }
                View::Process => match &connection.process {
                    Some(process) => self.processes.count(process.program.as_str()),
                    None => self.processes.count("unknown"),
                },
                View::Agent => self.agents.connected(connection),
            }
        }
    }

    fn counts_agents(&self) -> bool {
        self.views.contains(&View::Agent)
    }

    /// One that was counted ended.
    pub(super) fn closed(&mut self, connection: &Connection) {
        if self.counts_agents() {
            self.agents.closed(connection);
        }
    }

    /// It has sent and received so much, and not what was summed up of it before.
    pub(super) fn summed(&mut self, connection: &Connection, before: Bytes, bytes: Bytes) {
        if self.counts_agents() {
            self.agents.summed(connection, before, bytes);
        }
    }

    /// A connect that was counted got a name.
    pub(super) fn renamed(&mut self, connection: &Connection) {
        if self.counts_agents() {
            self.agents.renamed(connection);
        }
        if let Some(known) = &connection.name
            && self.views.contains(&View::Provider)
        {
            self.provider(&connection.provider).domains.add(&known.name);
        }
    }

    fn provider(&mut self, name: &Arc<str>) -> &mut ProviderTally {
        if !self.providers.contains_key(name) {
            self.providers.insert(Arc::clone(name), ProviderTally::default());
        }
        self.providers.get_mut(name).expect("it is there by now")
    }

    pub(super) fn standings(&self, totals: &Totals, top: usize) -> Standings {
        Standings {
            active: totals.active,
            peak: totals.peak,
            average_duration: totals.average_duration(),
            views: self.views.iter().map(|view| self.standing(*view, totals, top)).collect(),
        }
    }

    fn standing(&self, view: View, totals: &Totals, top: usize) -> Standing {
        match view {
            View::Provider => self.provider_standing(top),
            View::Domain => {
                let mut rows = named(totals.domains.top(top));
                let mut kinds = totals.domains.len();
                if totals.nameless > 0 {
                    // No name can hold a blank: it is nobody's.
                    rows.push(("(no name)".to_owned(), totals.nameless));
                    rows.sort_by(|(_, a), (_, b)| b.cmp(a));
                    rows.truncate(top);
                    kinds += 1;
                }
                Standing::Ranked { view, rows, kinds }
            }
            View::Port => {
                Standing::Ranked { view, rows: named(self.ports.top(top)), kinds: self.ports.len() }
            }
            View::Process => {
                Standing::Ranked { view, rows: self.processes.top(top), kinds: self.processes.len() }
            }
            View::Agent => {
                let (rows, kinds) = self.agents.top(top);
                Standing::Agents { rows, kinds }
            }
        }
    }

    fn provider_standing(&self, top: usize) -> Standing {
        let mut providers: Vec<(&Arc<str>, &ProviderTally)> = self.providers.iter().collect();
        providers
            .sort_by(|(a_name, a), (b_name, b)| b.connects.cmp(&a.connects).then_with(|| a_name.cmp(b_name)));
        let row = |(name, tally): (&Arc<str>, &ProviderTally)| ProviderStanding {
            name: Arc::clone(name),
            connects: tally.connects,
            domains: tally.domains.count(),
            ips: tally.ips.count(),
        };
        let rows = providers.into_iter().take(top).map(row).collect();
        Standing::Providers { rows, kinds: self.providers.len() }
    }
}

fn named<K: ToString>(rows: Vec<(K, u64)>) -> Vec<(String, u64)> {
    rows.into_iter().map(|(name, count)| (name.to_string(), count)).collect()
}

/// How many different values there were, up to a bound above which it says `4096+`.
#[derive(Debug, Clone)]
struct Distinct<K>(FxHashSet<K>);

impl<K> Default for Distinct<K> {
    fn default() -> Self {
        Self(FxHashSet::default())
    }
}

impl<K: Eq + std::hash::Hash + Clone> Distinct<K> {
    const MAX: usize = 4096;

    fn add(&mut self, key: &K) {
        if self.0.len() < Self::MAX && !self.0.contains(key) {
            self.0.insert(key.clone());
        }
    }

    fn count(&self) -> String {
        let more = if self.0.len() == Self::MAX { "+" } else { "" };
        format!("{}{more}", self.0.len())
    }
}
