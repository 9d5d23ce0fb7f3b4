//! Findings: what was found, about what, and what would permit it.

use std::sync::Arc;

use super::{Contact, Known, Place};
use crate::health::Gap;
use crate::words::{Class, with_port};

/// What kind of finding.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    Denied,
    NewDomain,
    Incomplete,
    NewWho,
    NewClass,
    Unnamed,
    Bytes,
    Expired,
    Stale,
}

impl Kind {
    pub const ALL: [Self; 9] = [
        Self::Denied,
        Self::NewDomain,
        Self::Incomplete,
        Self::NewWho,
        Self::NewClass,
        Self::Unnamed,
        Self::Bytes,
        Self::Expired,
        Self::Stale,
    ];

    pub const fn name(self) -> &'static str {
        match self {
            Self::Denied => "denied",
            Self::NewDomain => "new-domain",
            Self::Incomplete => "incomplete",
            Self::NewWho => "new-who",
            Self::NewClass => "new-class",
            Self::Unnamed => "unnamed",
            Self::Bytes => "bytes",
            Self::Expired => "expired",
            Self::Stale => "stale",
        }
    }

    /// For a list of what there is.
    pub const fn meaning(self) -> &'static str {
        match self {
            Self::Denied => "A deny rule forbids the endpoint",
            Self::NewDomain => "No rule allows the endpoint",
            Self::Incomplete => "The record is not complete",
            Self::NewWho => "The endpoint is allowed, but not to this program or agent",
            Self::NewClass => "No allowed endpoint is of this class",
            Self::Unnamed => "No accepted name of the endpoint is known, and no rule allows its address",
            Self::Bytes => "More bytes than the limit",
            Self::Expired => "A rule has expired",
            Self::Stale => "A rule allowed nothing",
        }
    }
}

/// What fails where nobody says otherwise.
pub fn default_fail_on() -> Vec<Kind> {
    vec![Kind::Denied, Kind::NewDomain, Kind::Incomplete]
}

/// A list of kinds with commas; `none` is no kind. The error is the word that is none.
pub fn parse_kinds(text: &str) -> Result<Vec<Kind>, String> {
    let words = text.split(',').map(str::trim).filter(|word| !word.is_empty() && *word != "none");
    words
        .map(|word| Kind::ALL.into_iter().find(|kind| kind.name() == word).ok_or_else(|| word.to_owned()))
        .collect()
}

/// What a record lacks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Lack {
    /// It was observed by a source that the policy does not accept.
    Source(String),
    Gap(Gap, u64),
    /// The session has no end: rano was killed.
    Unclean,
    Running,
    /// So many connections were excluded.
    Excluded(u64),
    /// What the user left out, in words.
    LeftOut(String),
    /// Nothing was observed at all.
    Nothing,
    /// The policy was another one at the end.
    PolicyChanged,
    /// So many endpoints found no room.
    NoRoom(u64),
}

/// Why there is a finding.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Why {
    /// `rule`: what it is about; `is_possible`: by a name that may be another.
    Denied {
        rule: String,
        is_possible: bool,
    },
    NotAllowed {
        expired: Option<String>,
    },
    /// A name that does not count is `weak`.
    NoName {
        weak: Option<Known>,
        expired: Option<String>,
    },
    /// It is allowed for `allowed` only.
    OtherWho {
        allowed: String,
    },
    NewClass {
        class: Class,
        endpoints: u64,
    },
    TooMuch {
        is_sent: bool,
        bytes: u64,
        limit: u64,
    },
    Lack(Lack),
    /// A rule about this has expired at that time (Unix milliseconds).
    RuleExpired {
        rule: String,
        at: i64,
    },
    RuleUnused {
        rule: String,
    },
}

/// An endpoint, and who reached it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reached {
    pub contact: Contact,
    /// The name that it is called by: the one that counts, or the one that a deny rule is about.
    pub name: Option<Known>,
    pub class: Class,
    /// Tool calls and commands beside the first.
    pub more: u64,
}

impl Reached {
    /// A name, else the address with its port.
    pub fn endpoint(&self) -> String {
        match &self.name {
            Some(known) => known.name.to_string(),
            None => address(&self.contact),
        }
    }
}

fn address(contact: &Contact) -> String {
    // Of what a proxy was asked for no address is known.
    let name = || contact.name.as_ref().map(|known| &*known.name);
    let remote = contact.remote.as_deref().or_else(name).unwrap_or("unknown");
    with_port(remote, contact.port)
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    pub kind: Kind,
    /// It fails the check.
    pub fails: bool,
    pub why: Why,
    /// Of findings about an endpoint.
    pub reached: Option<Reached>,
    /// Of findings about a session.
    pub run_id: Option<Arc<str>>,
    /// The rule's, or where one would stand.
    pub place: Place,
    /// TOML that would permit it.
    pub allow: Option<String>,
}

impl Finding {
    /// The same for the same thing in another run: it has neither counts nor times nor places in it.
    pub fn identity(&self) -> String {
        let reached = self.reached.as_ref().map(|reached| {
            let contact = &reached.contact;
            let port = contact.port.map(|port| port.to_string()).unwrap_or_default();
            let agent = contact.agent.as_deref().unwrap_or_default();
            [&reached.endpoint(), &port, &*contact.program, agent].join("\n")
        });
        let what = match &self.why {
            Why::RuleExpired { rule, .. } | Why::RuleUnused { rule } => rule.clone(),
            Why::NewClass { class, .. } => class.name().to_owned(),
            Why::Lack(Lack::Gap(gap, _)) => gap.name().to_owned(),
            Why::Lack(lack) => format!("{:?}", std::mem::discriminant(lack)),
            Why::TooMuch { is_sent, .. } => is_sent.to_string(),
            Why::Denied { .. } | Why::NotAllowed { .. } | Why::NoName { .. } | Why::OtherWho { .. } => {
                String::new()
            }
        };
        super::sha256([self.kind.name(), &what, &reached.unwrap_or_default()].join("\n").as_bytes())
    }
}
