//! What the rules say of one endpoint as somebody reached it.

use super::{Contact, Known, Policy, Resolvers};
use crate::names::classes::{Classes, Reach, reach};
use crate::words::{Class, DomainSource};

/// Ports on which names are asked for, with those of the link's own (docs/names.md).
const LOOK_UP_PORTS: [u16; 4] = [53, 853, 5353, 5355];

/// What the rules say. Numbers are places in [`Policy::allow`] and [`Policy::deny`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ruling {
    /// Its class is ignored, or it is a look-up at the machine's resolvers.
    Ignored,
    Allowed(usize),
    /// `by` is the name for which it is; `is_possible`: that name does not count as evidence.
    Denied {
        rule: usize,
        by: Option<Known>,
        is_possible: bool,
    },
    /// The endpoint is allowed, but not to this program or agent.
    NewWho(usize),
    /// It has a name that counts, and no rule. `expired`: a rule that is over.
    NewDomain {
        expired: Option<usize>,
    },
    /// It has neither.
    Unnamed {
        expired: Option<usize>,
    },
}

/// A policy with what it takes to judge by it.
pub struct Judge<'a> {
    pub policy: &'a Policy,
    /// Built-in, and of the user's own files; not of a file that the watched one could write.
    pub classes: &'a Classes,
    /// Unix milliseconds.
    pub now: i64,
}

impl Judge<'_> {
    /// The name that counts.
    pub fn name<'c>(&self, contact: &'c Contact) -> Option<&'c Known> {
        contact.name.as_ref().filter(|known| self.policy.accepts(&known.by))
    }

    /// What it is, by the name that counts and by its address.
    pub fn class(&self, contact: &Contact) -> Class {
        self.class_by(self.name(contact), contact)
    }

    fn class_by(&self, known: Option<&Known>, contact: &Contact) -> Class {
        let address = contact.address();
        if let Some(known) = known
            && &*known.by == DomainSource::Proxy.name()
        {
            // If there is an address, it is the proxy's.
            return self.classes.of(Some(&known.name), None);
        }
        if is_look_up(known, contact) {
            return Class::Dns;
        }
        self.classes.of(known.map(|known| &*known.name), address.as_ref())
    }

    pub fn rule(&self, contact: &Contact) -> Ruling {
        if let Some(denied) = self.denied(contact) {
            return denied;
        }
        let known = self.name(contact);
        let class = self.class_by(known, contact);
        let defaults = &self.policy.defaults;
        let asks_resolver = class == Class::Dns && defaults.resolvers == Resolvers::System;
        if asks_resolver || defaults.ignore_classes.contains(&class) {
            return Ruling::Ignored;
        }
        let (mut other_who, mut expired) = (None, None);
        for (index, rule) in self.policy.allow.iter().enumerate() {
            if !rule.covers(known.map(|known| &*known.name), class, contact) {
                continue;
            }
            if rule.has_expired(self.now) {
                expired.get_or_insert(index);
            } else if rule.is_for(contact) {
                return Ruling::Allowed(index);
            } else {
                other_who.get_or_insert(index);
            }
        }
        match (other_who, known) {
            (Some(rule), _) => Ruling::NewWho(rule),
            (None, Some(_)) => Ruling::NewDomain { expired },
            (None, None) => Ruling::Unnamed { expired },
        }
    }

    /// A name that may be the right one is enough to forbid: only to permit takes evidence.
    fn denied(&self, contact: &Contact) -> Option<Ruling> {
        let counted = self.name(contact);
        let possible = contact.name.iter().chain(&contact.others).map(Some);
        let candidates = [counted].into_iter().chain(possible);
        for known in candidates {
            let class = self.class_by(known, contact);
            let denies = |rule: &super::Rule| {
                rule.covers(known.map(|known| &*known.name), class, contact) && rule.is_for(contact)
            };
            if let Some(rule) = self.policy.deny.iter().position(denies) {
                let by = known.filter(|_| self.policy.deny[rule].domain.is_some());
                let is_possible = by.is_some() && by != counted;
                return Some(Ruling::Denied { rule, by: by.cloned(), is_possible });
            }
        }
        None
    }
}

/// Whether it asks one of the resolvers that the machine had when it was observed. Who observed knew them, but said so
/// by a class, which a file of the watched one may have given to a name of its own.
fn is_look_up(known: Option<&Known>, contact: &Contact) -> bool {
    let is_port = contact.port.is_some_and(|port| LOOK_UP_PORTS.contains(&port));
    let is_near = contact.ip().is_some_and(|ip| reach(ip) != Reach::World);
    &*contact.class == Class::Dns.name() && is_port && (known.is_none() || is_near)
}
