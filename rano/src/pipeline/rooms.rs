//! What every event goes through, in a fixed order: it is counted, judged, sent and told, and its connection then waits
//! for names. Each room keeps its own state; what they do to one connection happens here.

use std::sync::Arc;

use super::alerting::Alerting;
use super::live::Entry;
use super::naming::{Naming, NamingRoom};
use super::outlet::Outlet;
use super::relays::Relays;
use crate::alerts::Due;
use crate::event::{Event, EventKind, Moment};
use crate::names::book::Learned;
use crate::totals::Totals;
use crate::update::{Renamed, Update};

pub(super) struct Rooms {
    pub(super) totals: Totals,
    pub(super) alerting: Alerting,
    pub(super) naming: NamingRoom,
    pub(super) relays: Relays,
    pub(super) out: Outlet,
}

impl Rooms {
    /// Something happened to a connection, which is as it is after it.
    pub(super) fn event(&mut self, kind: EventKind, at: Moment, entry: &mut Entry) {
        if kind == EventKind::Connect {
            self.relay(entry, at);
        }
        self.totals.count(kind, &entry.connection);
        if matches!(kind, EventKind::Close | EventKind::Fail) {
            self.totals.sum(&entry.connection, &mut entry.summed);
        }
        let judgement = self.alerting.judge(kind, at, self.totals.active, entry);
        let is_first = judgement.is_first;
        if is_first {
            self.totals.marked(&entry.connection);
        }
        self.out.send(&Update::Event(Event { kind, at, connection: Arc::clone(&entry.connection) }));
        self.alerting.tell(judgement, at, entry, &mut self.out);
        // The rows that were written before.
        if is_first && kind == EventKind::Close {
            self.out.send(&Update::Marked(entry.connection.id));
        }
        if kind == EventKind::Connect {
            self.naming.connected(entry, at, &mut self.out);
        }
    }

    /// Of a connection that nobody is shown, all at its end.
    pub(super) fn strayed(&mut self, at: Moment, entry: &mut Entry) {
        let kinds: &[EventKind] =
            if entry.is_connected { &[EventKind::Connect, EventKind::Close] } else { &[EventKind::Fail] };
        for &kind in kinds {
            let judgement = self.alerting.judge(kind, at, self.totals.active, entry);
            self.alerting.tell(judgement, at, entry, &mut self.out);
        }
        if entry.is_connected {
            self.naming.strayed(entry, at, &mut self.out);
        }
    }

    /// It was read how many bytes an open connection has sent and received.
    pub(super) fn counted(&mut self, at: Moment, entry: &mut Entry) {
        self.totals.sum(&entry.connection, &mut entry.summed);
        self.changed(entry);
        self.alerting.counted(at, entry, &mut self.out);
        self.totals.marked(&entry.connection);
    }

    /// What is known of an open connection changed, of which an event was sent.
    pub(super) fn changed(&mut self, entry: &Entry) {
        if !entry.is_pending() {
            self.out.send(&Update::Changed(Arc::clone(&entry.connection)));
        }
    }

    /// A name became known: the better one stays, the other is kept; every name is judged that the connection may go
    /// by.
    pub(super) fn named(&mut self, entry: &mut Entry, learned: &Learned, is_confirmed: bool) {
        let Some(naming) = self.naming.learn(entry, learned, is_confirmed) else { return };
        let is_written = entry.is_connected || entry.connection.ended.is_some();
        if let (true, Naming::Better { before, class_before, .. }) = (entry.is_connected, &naming) {
            self.totals.renamed(&entry.connection, before.as_ref(), *class_before);
        }
        let is_relay = entry.is_connected && self.relay(entry, learned.at);
        if is_relay {
            self.totals.relayed(&entry.connection);
        }
        match &naming {
            Naming::Better { before, .. } => {
                if is_written {
                    let connection = Arc::clone(&entry.connection);
                    let renamed = Renamed { at: learned.at, connection, before: before.clone() };
                    self.out.send(&Update::Renamed(renamed));
                }
            }
            Naming::Another if is_written => {
                let (connection, name) = (entry.connection.id, learned.name.clone());
                self.out.send(&Update::OtherName { connection, name });
                if is_relay {
                    let (connection, before) = (Arc::clone(&entry.connection), entry.connection.name.clone());
                    self.out.send(&Update::Renamed(Renamed { at: learned.at, connection, before }));
                }
                self.changed(entry);
            }
            Naming::Another | Naming::NotKept => {}
        }
        if let Some(candidate) = NamingRoom::to_judge(learned, naming, is_written) {
            self.alerting.named(&candidate, learned.at, entry, is_written, &mut self.out);
            self.totals.marked(&entry.connection);
        }
        self.naming.named(entry, learned.at, &mut self.out);
    }

    /// Whether it is known from now on that a connection carries on what a watched process asked a proxy for.
    fn relay(&mut self, entry: &mut Entry, at: Moment) -> bool {
        if !self.naming.is_on() || entry.connection.relay_for.is_some() {
            return false;
        }
        let asked_by = self.relays.asked_by(&entry.connection, at);
        if asked_by.is_some() {
            entry.change().relay_for = asked_by;
        }
        asked_by.is_some()
    }

    /// It was seen to be open too long, or without a name.
    pub(super) fn overdue(&mut self, due: Due, now: Moment, entry: &mut Entry) {
        self.alerting.overdue(due, now, entry, &mut self.out);
        self.totals.marked(&entry.connection);
    }

    /// Its name was waited for in vain.
    pub(super) fn unnamed(&mut self, entry: &mut Entry, at: Moment) {
        self.naming.unnamed(entry, at, &mut self.out);
    }
}
