//! What an endpoint is and how much goes there: alerts on classes, on endpoints that are new, on bytes.

use super::seen::Reached;
use super::{Judge, Notes, Reason, Subject};
use crate::connection::Connection;
use crate::event::{Address, Class, DomainSource, Moment};

impl Judge {
    /// Whether anything is asked about endpoints that a name may change.
    pub(super) fn asks_for_endpoints(&self) -> bool {
        !self.rules.classes.is_empty() || self.rules.seen.is_some()
    }

    /// `is_settled`: no better name is waited for.
    pub(super) fn endpoint(
        &mut self,
        connection: &Connection,
        at: Moment,
        is_settled: bool,
        notes: &mut Notes,
    ) -> Vec<Reason> {
        let class = self.class(connection, at, is_settled, notes);
        let new = if is_settled { self.new_endpoint(connection, notes) } else { None };
        class.into_iter().chain(new).collect()
    }

    fn class(
        &mut self,
        connection: &Connection,
        at: Moment,
        is_settled: bool,
        notes: &mut Notes,
    ) -> Option<Reason> {
        let class = connection.class;
        let is_meant = self.rules.classes.contains(&class) && (class != Class::Unknown || is_settled);
        if !is_meant || notes.class == Some(class) {
            return None;
        }
        notes.class = Some(class);
        notes.alert = true;
        let name = connection.name.as_ref().map(|known| known.name.clone());
        let remote = connection.remote.clone().filter(|_| name.is_none());
        let subject = Subject::Class { class, name, remote, tree: connection.tree };
        self.cooldowns.allows(subject, at).then_some(Reason::Class { class })
    }

    /// Said once: from then on it is known. Whom this machine asks for names is of no interest.
    fn new_endpoint(&mut self, connection: &Connection, notes: &mut Notes) -> Option<Reason> {
        let seen = self.rules.seen.as_mut().filter(|_| !notes.is_compared)?;
        notes.is_compared = true;
        let reached = Reached::by(connection).filter(|_| connection.class != Class::Dns)?;
        if seen.has(reached) {
            return None;
        }
        let agent = reached.agent.into();
        seen.add(reached);
        notes.alert = true;
        Some(Reason::NewEndpoint { agent })
    }

    /// Said once a connection.
    pub fn sent(&mut self, connection: &Connection, notes: &mut Notes) -> Option<Reason> {
        let (limit, sent) = (self.rules.sent?, connection.bytes?.sent);
        if sent <= limit || notes.sent {
            return None;
        }
        (notes.sent, notes.alert) = (true, true);
        Some(Reason::Sent { sent, limit })
    }
}

/// Whether no better name will come: somebody vouches for the one there is, or there is nothing to have one.
pub(super) fn is_settled(connection: &Connection) -> bool {
    let is_ip = matches!(connection.remote, Some(Address::Ip(_)));
    let name = connection.name.as_ref().filter(|_| !connection.is_hearsay);
    !is_ip || name.is_some_and(|known| known.by != DomainSource::Ptr)
}
