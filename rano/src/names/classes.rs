//! What an endpoint is: told by its name, as `endpoints.toml` and the user's files have it, else by its address. A name
//! that somebody may have written who is watched (`./rano.toml`) counts last.

use std::cell::{OnceCell, RefCell};
use std::collections::HashMap;
use std::hash::BuildHasher as _;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use rustc_hash::FxBuildHasher;
use serde::Deserialize;

use crate::event::{Address, Class};
use crate::glob::{Glob, folded_name};

pub use super::reach::{Reach, reach};

/// The classes and names that rano knows by itself.
pub const BUILT_IN: &str = include_str!("endpoints.toml");

/// Ports on which names are asked for: DNS, DNS over TLS and QUIC (RFC 7858, RFC 9250).
const DNS_PORTS: [u16; 2] = [53, 853];
/// Where a link is asked: multicast DNS (RFC 6762) and LLMNR (RFC 4795).
const LINK_WIDE: [(Ipv4Addr, Ipv6Addr, u16); 2] = [
    (Ipv4Addr::new(224, 0, 0, 251), Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 0xfb), 5353),
    (Ipv4Addr::new(224, 0, 0, 252), Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 1, 3), 5355),
];
/// The local stub of systemd-resolved, whether resolv.conf names it or not.
const STUBS: [Ipv4Addr; 2] = [Ipv4Addr::new(127, 0, 0, 53), Ipv4Addr::new(127, 0, 0, 54)];

/// How far the one is believed who says what a name is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Authority {
    /// A user's own file: goes before what is built in.
    User,
    BuiltIn,
    /// The file in the working directory: only what is of no class otherwise.
    AddOnly,
}

/// A class and the entries of one place that belong to it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClassEntry {
    pub class: Class,
    /// Domains, which stand for all below them too, or globs, whatever their case and spelling.
    pub names: Vec<String>,
    pub authority: Authority,
}

/// All entries, ready to be asked. The patterns are compiled once, the built-in ones with the first name.
#[derive(Debug, Default)]
pub struct Classes {
    user: Names,
    built_in: OnceCell<Names>,
    add_only: Names,
    asked: RefCell<Asked>,
    /// The machine's.
    resolvers: Vec<IpAddr>,
}

impl Classes {
    /// What is built in, and what the user's files say; of two that say the same the later counts.
    pub fn new(entries: &[ClassEntry]) -> Self {
        let by = |authority| Names::of(entries.iter().filter(|entry| entry.authority == authority));
        Self { user: by(Authority::User), add_only: by(Authority::AddOnly), ..Self::default() }
    }

    /// Who asks these for a name asks this machine's resolvers. Nobody else's port 53 is one: a tunnel has it too.
    #[must_use]
    pub fn with_resolvers(mut self, resolvers: impl IntoIterator<Item = IpAddr>) -> Self {
        self.resolvers = resolvers.into_iter().map(|ip| ip.to_canonical()).collect();
        self
    }

    fn by_address(&self, remote: &Address) -> Option<Class> {
        let ip = match remote {
            Address::Path(_) => return Some(Class::Ipc),
            Address::Host(ip) => ip.to_canonical(),
            Address::Ip(remote) => {
                let ip = remote.ip().to_canonical();
                if self.answers_for_names(ip, remote.port()) {
                    return Some(Class::Dns);
                }
                ip
            }
        };
        match reach(ip) {
            Reach::Host => Some(Class::Localhost),
            Reach::Site => Some(Class::Private),
            Reach::World => None,
        }
    }

    fn answers_for_names(&self, ip: IpAddr, port: u16) -> bool {
        let is_stub = || STUBS.iter().any(|stub| ip == *stub);
        let is_link_wide = |(v4, v6, of): &(Ipv4Addr, Ipv6Addr, u16)| port == *of && (ip == *v4 || ip == *v6);
        (DNS_PORTS.contains(&port) && (self.resolvers.contains(&ip) || is_stub()))
            || LINK_WIDE.iter().any(is_link_wide)
    }

    /// `name` in lower case, without the final dot; `None` where none is known that may be relied on.
    pub fn of(&self, name: Option<&str>, remote: Option<&Address>) -> Class {
        let found = name.map(|name| self.asked.borrow_mut().of(name, || self.find(name))).unwrap_or_default();
        found
            .trusted
            .or_else(|| remote.and_then(|remote| self.by_address(remote)))
            .or(found.added)
            .unwrap_or(Class::Unknown)
    }

    /// Of what a proxy was asked for: a name, or an address as text.
    pub fn behind_proxy(&self, host: &str, port: u16) -> Class {
        match host.parse() {
            Ok(ip) => self.of(None, Some(&Address::Ip(SocketAddr::new(ip, port)))),
            Err(_) => self.of(Some(host), None),
        }
    }

    /// Whether the class is the word of those alone who can only add. It is shown; that the endpoint is known it does
    /// not mean.
    pub fn is_only_claimed(&self, name: Option<&str>, remote: Option<&Address>) -> bool {
        let found =
            name.filter(|_| !self.add_only.is_empty()).map(|name| self.find(name)).unwrap_or_default();
        found.added.is_some()
            && found.trusted.or_else(|| remote.and_then(|remote| self.by_address(remote))).is_none()
    }

    fn find(&self, name: &str) -> Found {
        let built_in = || self.built_in.get_or_init(|| Names::of(built_in_entries().iter()));
        Found {
            trusted: self.user.find(name).or_else(|| built_in().find(name)),
            added: self.add_only.find(name),
        }
    }
}

/// What the entries say of a name.
#[derive(Debug, Clone, Copy, Default)]
struct Found {
    trusted: Option<Class>,
    /// By those who can only add.
    added: Option<Class>,
}

/// Names that were asked for lately. Each has one place, which the next one takes that comes there.
#[derive(Debug, Default)]
struct Asked {
    places: Vec<Option<(Box<str>, Found)>>,
}

/// About a hundred bytes each.
const ASKED_MAX: u32 = 1 << 13;

impl Asked {
    fn of(&mut self, name: &str, find: impl FnOnce() -> Found) -> Found {
        // Whoever chooses names so that they come to one place only makes them cost as much as without this.
        let place = FxBuildHasher.hash_one(name) % u64::from(ASKED_MAX);
        let place = usize::try_from(place).expect("there are few places");
        if self.places.is_empty() {
            self.places.resize_with(ASKED_MAX as usize, || None);
        }
        match &mut self.places[place] {
            Some((asked, found)) if **asked == *name => *found,
            other => {
                let found = find();
                *other = Some((name.into(), found));
                found
            }
        }
    }
}

/// The entries of `endpoints.toml`.
pub fn built_in_entries() -> Vec<ClassEntry> {
    #[derive(Deserialize)]
    struct File {
        endpoints: HashMap<String, Vec<String>>,
    }
    let file: File = toml::from_str(BUILT_IN).expect("a test reads the built-in endpoints");
    let entry = |(word, names): (String, Vec<String>)| ClassEntry {
        class: Class::parse(&word).expect("a test reads the built-in endpoints"),
        names,
        authority: Authority::BuiltIn,
    };
    file.endpoints.into_iter().map(entry).collect()
}

/// Entries of one authority.
#[derive(Debug, Default)]
struct Names {
    domains: HashMap<Box<str>, Domain>,
    globs: Vec<(Glob, Class)>,
}

/// A class for the domain and all below it, and one for what is below it alone.
#[derive(Debug, Clone, Copy, Default)]
struct Domain {
    with_itself: Option<Class>,
    below: Option<Class>,
}

impl Names {
    fn is_empty(&self) -> bool {
        self.domains.is_empty() && self.globs.is_empty()
    }

    fn of<'a>(entries: impl Iterator<Item = &'a ClassEntry>) -> Self {
        let mut names = Self::default();
        for entry in entries {
            for name in &entry.names {
                names.add(name, entry.class);
            }
        }
        names
    }

    fn add(&mut self, name: &str, class: Class) {
        let name = folded_name(name.trim_start_matches('.'));
        let has_wildcard = |text: &str| text.contains(['*', '?', '[']);
        let domains = &mut self.domains;
        match name.strip_prefix("*.") {
            Some(domain) if !has_wildcard(domain) => {
                domains.entry(domain.into()).or_default().below = Some(class);
            }
            _ if has_wildcard(&name) => {
                // The configuration takes none that is no glob, and a test reads the built-in ones.
                self.globs.extend(Glob::of_names(&name).ok().map(|glob| (glob, class)));
            }
            _ => domains.entry(name.as_ref().into()).or_default().with_itself = Some(class),
        }
    }

    /// By the longest entry; of two as long, by the later one, a glob before a domain.
    fn find(&self, name: &str) -> Option<Class> {
        let by_domain = self.domain(name);
        let longest = by_domain.map_or(0, |(length, _)| length);
        let globs = self.globs.iter().filter(|(glob, _)| glob.length() >= longest && glob.matches_name(name));
        let glob = globs.max_by_key(|(glob, _)| glob.length());
        glob.map(|(_, class)| *class).or(by_domain.map(|(_, class)| class))
    }

    fn domain(&self, name: &str) -> Option<(usize, Class)> {
        let mut rest = name;
        loop {
            if let Some(domain) = self.domains.get(rest) {
                let class = if rest.len() == name.len() {
                    domain.with_itself
                } else {
                    domain.below.or(domain.with_itself)
                };
                if let Some(class) = class {
                    return Some((rest.len(), class));
                }
            }
            rest = rest.split_once('.')?.1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(classes: &Classes, name: &str, remote: &str, expected: Class) {
        let name = Some(name).filter(|name| !name.is_empty());
        let remote = match remote {
            path if path.starts_with('/') => Address::Path(path.into()),
            remote => Address::ip(remote.parse().expect("an address")),
        };
        assert_eq!(classes.of(name, Some(&remote)), expected, "{name:?} {remote:?}");
    }

    #[test]
    fn a_name_tells_more_than_an_address() {
        let classes = Classes::new(&[]);
        for (name, expected) in [
            ("api.anthropic.com", Class::LlmApi),
            ("api.openai.com", Class::LlmApi),
            ("generativelanguage.googleapis.com", Class::LlmApi),
            ("europe-west4-aiplatform.googleapis.com", Class::LlmApi),
            ("bedrock-runtime.eu-west-1.amazonaws.com", Class::LlmApi),
            ("api.cursor.sh", Class::LlmApi),
            ("api.continue.dev", Class::LlmApi),
            ("github.com", Class::CodeHost),
            ("api.github.com", Class::CodeHost),
            ("raw.githubusercontent.com", Class::CodeHost),
            ("bitbucket.org", Class::CodeHost),
            ("registry.npmjs.org", Class::Registry),
            ("files.pythonhosted.org", Class::Registry),
            ("index.crates.io", Class::Registry),
            ("proxy.golang.org", Class::Registry),
            ("deb.debian.org", Class::Registry),
            ("ghcr.io", Class::Registry),
            ("o1.ingest.us.sentry.io", Class::Telemetry),
            ("statsig.anthropic.com", Class::Telemetry),
            ("browser-intake-us5-datadoghq.com", Class::Telemetry),
            ("downloads.claude.ai", Class::Registry),
            ("metrics.cursor.sh", Class::Telemetry),
            ("copilot-telemetry-service.githubusercontent.com", Class::Telemetry),
            ("runtime.us-east-1.kiro.dev", Class::LlmApi),
            ("octocorp.ghe.com", Class::CodeHost),
            ("evil-github.com", Class::Unknown),
            ("github.com.evil.example", Class::Unknown),
            ("com", Class::Unknown),
            ("", Class::Unknown),
        ] {
            check(&classes, name, "203.0.113.7:443", expected);
        }
        check(&classes, "api.anthropic.com", "127.0.0.1:443", Class::LlmApi);
    }

    #[test]
    fn an_address_tells_what_no_name_does() {
        let resolvers = ["9.9.9.9", "2001:db8::53"].map(|ip| ip.parse().expect("an address"));
        let classes = Classes::new(&[]).with_resolvers(resolvers);
        for (remote, expected) in [
            ("127.0.0.1:443", Class::Localhost),
            ("[::1]:443", Class::Localhost),
            ("[::ffff:127.0.0.1]:443", Class::Localhost),
            ("10.1.2.3:443", Class::Private),
            ("172.31.0.1:443", Class::Private),
            ("100.64.0.1:443", Class::Private),
            ("169.254.169.254:80", Class::Private),
            ("[fd00::1]:443", Class::Private),
            ("[fe80::1]:443", Class::Private),
            ("239.255.255.250:1900", Class::Private),
            ("9.9.9.9:53", Class::Dns),
            ("127.0.0.53:53", Class::Dns),
            ("9.9.9.9:853", Class::Dns),
            ("[2001:db8::53]:53", Class::Dns),
            ("224.0.0.251:5353", Class::Dns),
            ("[ff02::fb]:5353", Class::Dns),
            ("9.9.9.9:443", Class::Unknown),
            ("9.9.9.10:53", Class::Unknown),
            ("9.9.9.10:5353", Class::Unknown),
            ("10.0.0.1:53", Class::Private),
            ("/run/docker.sock", Class::Ipc),
            ("203.0.113.7:443", Class::Unknown),
            ("100.128.0.1:443", Class::Unknown),
            ("[2001:db8::1]:443", Class::Unknown),
        ] {
            check(&classes, "", remote, expected);
        }
    }

    fn entry(class: Class, names: &[&str], authority: Authority) -> ClassEntry {
        ClassEntry { class, names: names.iter().map(|&name| name.into()).collect(), authority }
    }

    #[test]
    fn a_user_adds_and_overrides_and_the_longest_entry_counts() {
        let classes = Classes::new(&[
            entry(Class::LlmApi, &["*.Corp.example", "?pi.lab.example"], Authority::User),
            entry(Class::Telemetry, &["api.anthropic.com", "log.*"], Authority::User),
            entry(Class::CodeHost, &["git.corp.example"], Authority::User),
        ]);
        for (name, expected) in [
            ("llm.corp.example", Class::LlmApi),
            ("a.b.corp.example", Class::LlmApi),
            ("corp.example", Class::Unknown),
            ("git.corp.example", Class::CodeHost),
            ("x.git.corp.example", Class::CodeHost),
            ("api.lab.example", Class::LlmApi),
            ("log.example", Class::Telemetry),
            ("api.anthropic.com", Class::Telemetry),
            ("claude.ai", Class::LlmApi),
        ] {
            check(&classes, name, "203.0.113.7:443", expected);
        }
    }

    #[test]
    fn who_can_only_add_reclassifies_nothing() {
        let resolver = "9.9.9.9".parse().expect("an address");
        let classes = Classes::new(&[entry(
            Class::LlmApi,
            &["evil.example", "*.github.com", "deep.o1.ingest.sentry.io", "*"],
            Authority::AddOnly,
        )])
        .with_resolvers([resolver]);
        for (name, remote, expected) in [
            ("evil.example", "203.0.113.7:443", Class::LlmApi),
            ("api.github.com", "203.0.113.7:443", Class::CodeHost),
            ("deep.o1.ingest.sentry.io", "203.0.113.7:443", Class::Telemetry),
            ("x.example", "10.0.0.1:443", Class::Private),
            ("x.example", "9.9.9.9:53", Class::Dns),
        ] {
            check(&classes, name, remote, expected);
        }
    }

    #[test]
    fn no_built_in_entry_is_there_twice() {
        let mut all: Vec<String> = built_in_entries().into_iter().flat_map(|entry| entry.names).collect();
        all.sort();
        let twice: Vec<_> = all.windows(2).filter(|pair| pair[0] == pair[1]).collect();
        assert!(twice.is_empty(), "{twice:?}");
        assert!(all.iter().all(|name| *name == name.to_lowercase() && !name.starts_with('.')));
    }
}
