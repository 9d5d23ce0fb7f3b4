//! Writing a policy from what was observed: one rule for each endpoint that has none, everything else as it stands.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use toml_edit::{Array, ArrayOfTables, DocumentMut, Item, Value};

use super::finding::Reached;
use super::judge::{Judge, Ruling};
use super::toml_text::Sketch;
use super::verdict::by_address;
use super::widen::{Suggestion, suggestions};
use super::{Contact, Rule};
use crate::names::classes::{Reach, reach};

/// What was observed, for a policy that is to allow it.
pub struct Baseline<'a> {
    /// By the file that is updated; for a new one by an empty policy.
    pub judge: &'a Judge<'a>,
    pub contacts: &'a [Contact],
    pub runs: usize,
}

/// A policy, and what is to be said of it.
#[derive(Debug, Clone)]
pub struct Written {
    pub text: String,
    pub runs: usize,
    /// Different endpoints; not those that are ignored.
    pub endpoints: u64,
    /// Of those the ones seen in one run only, or of a single run the ones with a single connection.
    pub once: u64,
    /// Rules that were added, and those to which a port was.
    pub added: u64,
    pub extended: u64,
    /// Endpoints without a name that counts, which got no rule.
    pub unnamed: Vec<Reached>,
    /// Endpoints that a deny rule forbids, and those whose rule has expired: they got none either.
    pub denied: u64,
    pub expired: u64,
    pub suggestions: Vec<Suggestion>,
}

/// What an endpoint came to, over all runs.
#[derive(Default)]
struct Endpoint {
    runs: BTreeSet<Arc<str>>,
    count: u64,
}

/// Rules that are missing.
#[derive(Default)]
struct Missing {
    /// Ports by domain.
    domains: BTreeMap<String, BTreeSet<u16>>,
    /// Ports by address.
    addresses: BTreeMap<String, BTreeSet<u16>>,
    /// For a program that no rule is for.
    programs: BTreeSet<Sketch>,
    unnamed: BTreeMap<String, Reached>,
    denied: BTreeSet<String>,
    expired: BTreeSet<String>,
    endpoints: BTreeMap<String, Endpoint>,
}

impl Baseline<'_> {
    /// A new file; `comment` stands above it, each line a comment already.
    pub fn fresh(&self, comment: impl FnOnce(&Written) -> String) -> Written {
        let missing = self.missing();
        let names: Vec<String> = missing.domains.keys().cloned().collect();
        let sketches = missing.sketches();
        let mut written = self.written(&missing, sketches.len(), 0, names.iter().map(String::as_str));
        let rules: Vec<String> = sketches.iter().map(Sketch::text).collect();
        written.text = format!("{}{}\n\n{}\n", comment(&written), HEAD.trim_end(), rules.join("\n\n"));
        if rules.is_empty() {
            written.text.truncate(written.text.trim_end().len());
            written.text.push('\n');
        }
        written
    }

    /// `text` with the rules that it lacks; comments, order and reasons stay. It is the text of the judge's policy.
    pub fn update(&self, text: &str) -> Result<Written, toml_edit::TomlError> {
        let mut document: DocumentMut = text.parse()?;
        let mut missing = self.missing();
        let policy = self.judge.policy;
        let own: Arc<str> = policy.path.to_string_lossy().into();
        let mut extended = 0;
        if let Some(rules) = document.get_mut("allow").and_then(Item::as_array_of_tables_mut) {
            let of_file = policy.allow.iter().filter(|rule| rule.place.file == own);
            for (table, rule) in rules.iter_mut().zip(of_file) {
                let Some(name) = plain_name(rule) else { continue };
                let ports = table.get_mut("ports").and_then(Item::as_array_mut);
                if let Some(ports) = ports
                    && let Some(further) = missing.domains.remove(&name)
                {
                    add_ports(ports, &further);
                    extended += 1;
                }
            }
        }
        let sketches = missing.sketches();
        if !sketches.is_empty() {
            let rules = document.entry("allow").or_insert(Item::ArrayOfTables(ArrayOfTables::new()));
            if let Some(rules) = rules.as_array_of_tables_mut() {
                for sketch in &sketches {
                    let mut table = sketch.table();
                    table.decor_mut().set_prefix("\n");
                    rules.push(table);
                }
            }
        }
        let here = policy.allow.iter().filter_map(|rule| rule.domain.as_ref()?.literal());
        let names: Vec<String> = here.chain(missing.domains.keys().cloned()).collect();
        let mut written = self.written(&missing, sketches.len(), extended, names.iter().map(String::as_str));
        written.text = document.to_string();
        Ok(written)
    }

    fn written<'a>(
        &self,
        missing: &Missing,
        added: usize,
        extended: u64,
        names: impl Iterator<Item = &'a str>,
    ) -> Written {
        let is_once =
            |endpoint: &&Endpoint| if self.runs > 1 { endpoint.runs.len() == 1 } else { endpoint.count == 1 };
        Written {
            text: String::new(),
            runs: self.runs,
            endpoints: missing.endpoints.len() as u64,
            once: missing.endpoints.values().filter(is_once).count() as u64,
            added: added as u64,
            extended,
            unnamed: missing.unnamed.values().cloned().collect(),
            denied: missing.denied.len() as u64,
            expired: missing.expired.len() as u64,
            suggestions: suggestions(names),
        }
    }

    fn missing(&self) -> Missing {
        let mut missing = Missing::default();
        for contact in self.contacts {
            let ruling = self.judge.rule(contact);
            if ruling == Ruling::Ignored {
                continue;
            }
            let name = self.judge.name(contact).cloned();
            let reached =
                Reached { class: self.judge.class(contact), name, contact: contact.clone(), more: 0 };
            let endpoint = missing.endpoints.entry(reached.endpoint()).or_default();
            endpoint.runs.insert(Arc::clone(&contact.run_id));
            endpoint.count += contact.seen.count();
            missing.add(&reached, &ruling, &self.judge.policy.allow);
        }
        missing
    }
}

impl Missing {
    fn add(&mut self, reached: &Reached, ruling: &Ruling, allow: &[Rule]) {
        let port = reached.contact.port;
        match ruling {
            Ruling::Ignored | Ruling::Allowed(_) => {}
            Ruling::Denied { .. } => {
                self.denied.insert(reached.endpoint());
            }
            Ruling::NewDomain { expired: Some(_) } | Ruling::Unnamed { expired: Some(_) } => {
                self.expired.insert(reached.endpoint());
            }
            Ruling::NewWho(rule) => {
                self.programs.insert(Sketch::beside(&allow[*rule], &reached.contact.program));
            }
            Ruling::NewDomain { expired: None } => {
                let ports = self.domains.entry(reached.endpoint()).or_default();
                ports.extend(port);
            }
            // An address that the Internet routes is somebody else's tomorrow.
            Ruling::Unnamed { expired: None } => match by_address(reached).cidr {
                Some(cidr) if reached.contact.ip().is_some_and(|ip| reach(ip) != Reach::World) => {
                    self.addresses.entry(cidr).or_default().extend(port);
                }
                _ => {
                    self.unnamed.entry(reached.endpoint()).or_insert_with(|| reached.clone());
                }
            },
        }
    }

    /// Sorted: domains, then addresses.
    fn sketches(&self) -> Vec<Sketch> {
        let by_domain = self.domains.iter().map(|(domain, ports)| Sketch {
            domain: Some(domain.clone()),
            ports: ports.iter().copied().collect(),
            ..Sketch::default()
        });
        let by_address = self.addresses.iter().map(|(cidr, ports)| Sketch {
            cidr: Some(cidr.clone()),
            ports: ports.iter().copied().collect(),
            ..Sketch::default()
        });
        by_domain.chain(by_address).chain(self.programs.iter().cloned()).collect()
    }
}

/// The one name that a rule is for, whoever reaches it.
fn plain_name(rule: &Rule) -> Option<String> {
    let is_plain = rule.audience().is_none() && rule.class.is_none() && rule.cidr.is_none();
    rule.domain.as_ref().filter(|_| is_plain && rule.expires.is_none())?.literal()
}

fn add_ports(ports: &mut Array, further: &BTreeSet<u16>) {
    for port in further {
        let port = i64::from(*port);
        let at = ports.iter().position(|known| known.as_integer().is_some_and(|known| known > port));
        match at {
            Some(at) => ports.insert(at, Value::from(port)),
            None => ports.push(port),
        }
    }
    ports.fmt();
}

/// What every new file says.
const HEAD: &str = r#"version = 1

[require]                                   # what must hold before anything is judged
source   = ["ebpf", "seccomp"]              # polling cannot prove that nothing else was reached
complete = true                             # a loss, an unclean end
names    = ["proxy", "sni", "quic", "dns", "asked"]  # how a name has to be known

[defaults]
unnamed = "warn"                            # an endpoint without such a name: fail, warn or allow
ignore_classes = ["localhost"]
resolvers = "system"                        # look-ups to this machine's resolvers are allowed
"#;

#[cfg(test)]
mod tests {
    use super::super::*;
    use super::HEAD;

    #[test]
    fn a_new_file_says_what_holds_without_one() {
        let read = |_: &std::path::Path| {
            Ok::<_, PolicyError>(Loaded { canonical: "x".into(), text: HEAD.to_owned() })
        };
        let policy = load(std::path::Path::new("x"), read).expect("a policy");
        assert_eq!(policy.defaults, Defaults::default());
        let Require { sources, complete, names, place: _ } = policy.require;
        let usual = Require::default();
        assert_eq!((sources, complete, names), (usual.sources, usual.complete, usual.names));
    }
}
