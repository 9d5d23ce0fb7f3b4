//! Which of the known agents a process is, by a look-up of its names instead of a walk through all agents: every
//! process that is seen passes here.

use rustc_hash::FxHashMap;

use super::agents::{Agent, COMM_MAX, Extent};
use super::matching::{Place, Subject};

/// The agents, and where their names and packages lead.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Roster {
    agents: Vec<Agent>,
    names: FxHashMap<String, Vec<u16>>,
    /// The first bytes of names that do not fit into a comm.
    cut_names: FxHashMap<String, Vec<u16>>,
    packages: FxHashMap<String, Vec<u16>>,
    /// Agents of which no look-up tells: a part of a name is enough, or a path alone.
    others: Vec<u16>,
    /// Bytes of the longest name or package. Longer beginnings of a text are not looked up.
    longest: usize,
}

/// An agent that a process shows up as.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Found<'a> {
    pub agent: &'a Agent,
    pub place: Place,
    /// Bytes of the name or package that it has there: the longer says more.
    pub length: usize,
    /// The listed name or package.
    pub by: &'a str,
}

impl Roster {
    /// More than 65,536 agents are cut off there.
    pub fn new(agents: Vec<Agent>) -> Self {
        let mut roster = Self::default();
        for (place, agent) in agents.iter().enumerate() {
            let Ok(index) = u16::try_from(place) else { break };
            for package in &agent.packages {
                roster.packages.entry(package.clone()).or_default().push(index);
                roster.longest = roster.longest.max(package.len());
            }
            if agent.extent == Extent::Part || agent.is_told_by_path() {
                roster.others.push(index);
            }
            if agent.extent == Extent::Whole {
                for name in &agent.names {
                    roster.names.entry(name.clone()).or_default().push(index);
                    roster.longest = roster.longest.max(name.len());
                    if let Some(cut) = name.get(..COMM_MAX).filter(|cut| cut.len() < name.len()) {
                        roster.cut_names.entry(cut.to_owned()).or_default().push(index);
                    }
                }
            }
        }
        roster.agents = agents;
        roster
    }

    pub fn agents(&self) -> &[Agent] {
        &self.agents
    }

    /// The agent that the process is: by the best place, then the longest name, then the first of the table.
    pub fn find(&self, subject: &Subject) -> Option<Found<'_>> {
        let mut candidates = self.others.clone();
        subject.each_name(|name| self.called(name, &mut candidates));
        if let Some(indexes) = self.cut_names.get(subject.comm()) {
            candidates.extend(indexes);
        }
        for (package, _) in subject.packages() {
            self.packaged(package, &mut candidates);
        }
        candidates.sort_unstable();
        candidates.dedup();
        let found = candidates.into_iter().filter_map(|index| {
            let agent = &self.agents[usize::from(index)];
            agent.place_in(subject).map(|(place, by)| Found { agent, place, length: by.len(), by })
        });
        found.min_by_key(|found| (found.place, usize::MAX - found.length))
    }

    /// Agents that a name may be of: all that it is a name of are among them.
    fn called(&self, shown: &str, candidates: &mut Vec<u16>) {
        let shown = shown.rsplit('/').next().unwrap_or(shown);
        let bare = shown.strip_prefix('.').unwrap_or(shown);
        for text in [shown, bare] {
            beginnings(text, &['.', '-', '_', '@'], self.longest, |beginning| {
                if let Some(indexes) = self.names.get(beginning) {
                    candidates.extend(indexes);
                }
            });
        }
    }

    /// The same of a package.
    fn packaged(&self, shown: &str, candidates: &mut Vec<u16>) {
        let bare = ["npm:", "jsr:"].iter().find_map(|prefix| shown.strip_prefix(prefix)).unwrap_or(shown);
        beginnings(bare, &['.', '@'], self.longest, |beginning| {
            if let Some(indexes) = self.packages.get(beginning) {
                candidates.extend(indexes);
            }
        });
    }
}

/// Calls `each` with the text and with what stands before each of the signs in it, as far as that is not too long.
fn beginnings(text: &str, signs: &[char], longest: usize, mut each: impl FnMut(&str)) {
    if text.len() <= longest {
        each(text);
    }
    let ends = text.char_indices().take_while(|(at, _)| *at <= longest);
    for (at, _) in ends.filter(|(at, sign)| *at > 0 && signs.contains(sign)) {
        each(&text[..at]);
    }
}

#[cfg(test)]
#[path = "roster/tests.rs"]
mod tests;
