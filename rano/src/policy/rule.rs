//! One rule, and whether it speaks of what was reached.

use std::net::IpAddr;

use super::{Contact, Place};
use crate::filter::Network;
use crate::glob::{Glob, folded_name};
use crate::names::classes::{Reach, reach};
use crate::words::Class;

/// An `[[allow]]` or a `[[deny]]`. What is absent holds of everything.
#[derive(Debug, Clone)]
pub struct Rule {
    pub place: Place,
    pub domain: Option<DomainPattern>,
    pub class: Option<Class>,
    pub cidr: Option<Network>,
    pub ports: Vec<u16>,
    /// On whose behalf.
    pub provider: Option<Glob>,
    pub who: Option<Who>,
    pub agent: Option<Glob>,
    /// Unix milliseconds: from then on the rule allows nothing.
    pub expires: Option<i64>,
    /// Bytes that may be sent to each of its endpoints, in place of the limit of all.
    pub sent: Option<u64>,
    pub reason: Option<String>,
}

/// `api.example.com`, `*.example.com` (what is below it), `.example.com` (both).
#[derive(Debug, Clone)]
pub struct DomainPattern {
    pub written: String,
    glob: Glob,
    /// Of `.example.com`: the domain itself.
    itself: Option<Glob>,
}

impl DomainPattern {
    /// The error is in words for a person.
    pub fn parse(text: &str) -> Result<Self, String> {
        let unclosed = |_| format!("'{text}': '[' without ']'");
        let (pattern, itself) = match text.strip_prefix('.') {
            Some(rest) => (format!("*.{rest}"), Some(Glob::literal(&folded_name(rest)))),
            None => (text.to_owned(), None),
        };
        let labels = pattern.trim_end_matches('.');
        if labels.is_empty() || labels.split('.').any(str::is_empty) || pattern.contains(['/', ':', ' ']) {
            return Err(format!("'{text}' is no name of a host, as api.example.com or *.example.com"));
        }
        Ok(Self { written: text.to_owned(), glob: Glob::of_names(&pattern).map_err(unclosed)?, itself })
    }

    pub fn matches(&self, name: &str) -> bool {
        self.glob.matches_name(name) || self.itself.as_ref().is_some_and(|glob| glob.matches_name(name))
    }

    /// The one name that it stands for, as names are stored.
    pub fn literal(&self) -> Option<String> {
        let is_one = self.itself.is_none() && !self.written.contains(['*', '?', '[']);
        is_one.then(|| folded_name(&self.written).into_owned())
    }
}

/// A program by its name, or an executable by its path.
#[derive(Debug, Clone)]
pub struct Who {
    pub written: String,
    glob: Glob,
}

impl Who {
    pub fn parse(text: &str) -> Result<Self, String> {
        let glob = Glob::parse(text).map_err(|_| format!("'{text}': '[' without ']'"))?;
        Ok(Self { written: text.to_owned(), glob })
    }

    fn matches(&self, contact: &Contact) -> bool {
        if self.written.starts_with('/') {
            contact.exe.as_deref().is_some_and(|exe| self.glob.matches(exe))
        } else {
            self.glob.matches(&contact.program)
        }
    }
}

impl Rule {
    /// Whether it speaks of the endpoint, whoever reached it. `name`: the one that counts; `class`: what it is by
    /// that name or by its address.
    pub(super) fn covers(&self, name: Option<&str>, class: Class, contact: &Contact) -> bool {
        let by_name = |domain: &DomainPattern| name.is_some_and(|name| domain.matches(name));
        self.domain.as_ref().is_none_or(by_name)
            && self.class.is_none_or(|wanted| wanted == class)
            && self.cidr.is_none_or(|network| contact.ip().is_some_and(|ip| network.contains(ip)))
            && self.covers_port(contact)
    }

    pub(super) fn covers_port(&self, contact: &Contact) -> bool {
        self.ports.is_empty() || contact.port.is_some_and(|port| self.ports.contains(&port))
    }

    /// Whether it speaks of who reached it.
    pub(super) fn is_for(&self, contact: &Contact) -> bool {
        self.who.as_ref().is_none_or(|who| who.matches(contact))
            && self
                .agent
                .as_ref()
                .is_none_or(|glob| contact.agent.as_deref().is_some_and(|agent| glob.matches(agent)))
            && self.provider.as_ref().is_none_or(|glob| glob.matches(&contact.provider))
    }

    pub fn has_expired(&self, now: i64) -> bool {
        self.expires.is_some_and(|expires| now >= expires)
    }

    /// What it is about, as it was written: `*.example.com`, `class llm_api`, `10.0.0.0/8`.
    pub fn subject(&self) -> String {
        let parts = [
            self.domain.as_ref().map(|domain| domain.written.clone()),
            self.class.map(|class| format!("class {}", class.name())),
            self.cidr.map(|network| network.to_string()),
        ];
        parts.into_iter().flatten().collect::<Vec<_>>().join(", ")
    }

    /// Whom it is for, where it is not for everybody.
    pub fn audience(&self) -> Option<String> {
        let parts = [
            self.who.as_ref().map(|who| who.written.clone()),
            self.agent.as_ref().map(|agent| format!("agent {}", agent.written())),
            self.provider.as_ref().map(|provider| format!("provider {}", provider.written())),
        ];
        let parts: Vec<String> = parts.into_iter().flatten().collect();
        (!parts.is_empty()).then(|| parts.join(", "))
    }
}

/// Why a pattern of an allow rule lets in what nobody meant: everything, or what any stranger can register.
pub(super) fn domain_problem(pattern: &str) -> Option<String> {
    let Some(last) = pattern.trim_start_matches('.').rfind(['*', '?', ']']) else {
        let rest = pattern.strip_prefix('.')?;
        return is_public_suffix(rest).then(|| open_to_all(pattern));
    };
    let pattern = pattern.trim_start_matches('.');
    // What follows the first dot behind the last sign is fixed.
    let fixed = pattern[last..].split_once('.').map(|(_, fixed)| fixed).unwrap_or_default();
    let is_open = fixed.is_empty() || is_public_suffix(fixed) || fixed.contains('[');
    is_open.then(|| open_to_all(pattern))
}

fn open_to_all(pattern: &str) -> String {
    format!("'{pattern}' also matches names that anybody can register; name the domain in it")
}

/// Below which strangers register names: `com`, `co.uk`, `github.io`.
pub(super) fn is_public_suffix(name: &str) -> bool {
    let name = folded_name(name);
    psl::suffix(name.as_bytes()).is_none_or(|suffix| suffix.as_bytes().len() >= name.len())
}

/// Why a network of an allow rule is too large. Addresses that the Internet does not route may be as many as they are.
pub(super) fn network_problem(network: &Network) -> Option<String> {
    let (address, prefix) = (network.address(), network.prefix());
    let least = if address.is_ipv4() { 16 } else { 32 };
    (prefix < least && !is_inside(address, prefix)).then(|| {
        format!("'{network}' is too large for one rule: a public network is /{least} at most, or smaller")
    })
}

/// Whether the whole network is of one site.
fn is_inside(address: IpAddr, prefix: u8) -> bool {
    let sites: [(&str, u8); 6] = [
        ("10.0.0.0", 8),
        ("127.0.0.0", 8),
        ("100.64.0.0", 10),
        ("172.16.0.0", 12),
        ("fc00::", 7),
        ("fe80::", 10),
    ];
    sites.iter().any(|(site, length)| {
        let site: Option<IpAddr> = site.parse().ok();
        prefix >= *length
            && site
                .and_then(|site| Network::new(site, *length))
                .is_some_and(|network| network.contains(address))
    }) && reach(address) != Reach::World
}
