//! Alerts: what the judge finds is marked on the connection and told.

use std::sync::Arc;
use std::time::Duration;

use super::live::Entry;
use super::outlet::Outlet;
use crate::alerts::{Candidate, Due, Judge, Reason};
use crate::event::{EventKind, Moment, Role};
use crate::update::{Alert, Update};

/// Without a judge nothing is worth an alert.
#[derive(Debug, Default)]
pub(super) struct Alerting {
    judge: Option<Judge>,
    told: u64,
}

/// What an event gave reason for.
#[derive(Debug, Default)]
pub(super) struct Judgement {
    reasons: Vec<Reason>,
    /// The connection was not marked before.
    pub(super) is_first: bool,
}

impl Alerting {
    pub(super) fn new(judge: Judge) -> Self {
        Self { judge: Some(judge), told: 0 }
    }

    /// Alerts that were told.
    pub(super) fn told(&self) -> u64 {
        self.told
    }

    pub(super) fn held_back(&self) -> u64 {
        self.judge.as_ref().map_or(0, Judge::held_back)
    }

    /// Alerts whose cooldown was forgotten before it was over.
    pub(super) fn without_cooldown(&self) -> u64 {
        self.judge.as_ref().map_or(0, Judge::without_cooldown)
    }

    /// Of an event that no sink has seen yet, so that all of them know whether it gave reason for an alert. A cooldown
    /// keeps only the telling back: whoever asks the history for what matched is to find all of it.
    pub(super) fn judge(&mut self, kind: EventKind, at: Moment, active: u64, entry: &mut Entry) -> Judgement {
        let Some(judge) = &mut self.judge else { return Judgement::default() };
        let connection = &*entry.connection;
        let reasons = match kind {
            EventKind::Connect => {
                let socket = entry.is_kept.then_some(entry.socket);
                let others = entry.naming.take_unjudged();
                judge.connected(connection, at, active, socket, &others, &mut entry.alerts)
            }
            // What was accepted was not counted among the open ones.
            EventKind::Close if connection.role != Role::Connect => {
                judge.sent(connection, &mut entry.alerts).into_iter().collect()
            }
            EventKind::Close => judge.closed(connection, at, &mut entry.alerts),
            EventKind::Fail => judge.failed(connection, at, &entry.naming.take_unjudged(), &mut entry.alerts),
            EventKind::Accept | EventKind::Listen => Vec::new(),
        };
        Judgement { reasons, is_first: mark(entry) }
    }

    /// Tells what an event gave reason for, after it was sent.
    pub(super) fn tell(&mut self, judgement: Judgement, at: Moment, entry: &Entry, out: &mut Outlet) {
        for reason in judgement.reasons {
            self.told += 1;
            let alert = Alert { at, reason, connection: Arc::clone(&entry.connection) };
            out.send(&Update::Alert(Arc::new(alert)));
        }
    }

    /// A name of a connection became known. `is_written`: there are rows that are to be marked.
    pub(super) fn named(
        &mut self,
        candidate: &Candidate,
        at: Moment,
        entry: &mut Entry,
        is_written: bool,
        out: &mut Outlet,
    ) {
        let Some(judge) = &mut self.judge else { return };
        let reasons = judge.named(&entry.connection, at, candidate, &mut entry.alerts);
        self.between_events(reasons, at, entry, is_written, out);
    }

    /// Told as of the time at which it came, so that it does not matter how often the clock is looked at.
    pub(super) fn overdue(&mut self, due: Due, now: Moment, entry: &mut Entry, out: &mut Outlet) {
        let Some(judge) = &mut self.judge else { return };
        let late = Duration::from_nanos(now.boot_ns.saturating_sub(due.boot_ns));
        let late_ms = i64::try_from(late.as_millis()).unwrap_or(i64::MAX);
        let boot_ns = now.boot_ns.min(due.boot_ns);
        let now = Moment { boot_ns, unix_ms: now.unix_ms.saturating_sub(late_ms) };
        let reasons = judge.overdue(due.wait, &entry.connection, now, &mut entry.alerts);
        let is_written = entry.is_connected;
        self.between_events(reasons, now, entry, is_written, out);
    }

    /// It was read how many bytes an open connection has sent.
    pub(super) fn counted(&mut self, at: Moment, entry: &mut Entry, out: &mut Outlet) {
        let Some(judge) = &mut self.judge else { return };
        let reason = judge.sent(&entry.connection, &mut entry.alerts);
        let is_written = !entry.is_pending();
        self.between_events(reason.into_iter().collect(), at, entry, is_written, out);
    }

    /// How often that is to be read.
    pub(super) fn counts_every(&self) -> Option<Duration> {
        self.judge.as_ref().and_then(Judge::counts_every)
    }

    fn between_events(
        &mut self,
        reasons: Vec<Reason>,
        at: Moment,
        entry: &mut Entry,
        is_written: bool,
        out: &mut Outlet,
    ) {
        let judgement = Judgement { reasons, is_first: mark(entry) };
        let is_to_mark = judgement.is_first && is_written;
        self.tell(judgement, at, entry, out);
        if is_to_mark {
            out.send(&Update::Marked(entry.connection.id));
        }
    }

    /// When there is something to look at without any event; boot clock.
    pub(super) fn next_due(&self) -> Option<u64> {
        self.judge.as_ref().and_then(Judge::next_due)
    }

    /// A connection whose time has come; to be asked until there is none.
    pub(super) fn take_due(&mut self, now: Moment) -> Option<Due> {
        self.judge.as_mut()?.take_due(now.boot_ns)
    }

    /// A connection that waits for a name, at the end of a single look: none will come any more.
    pub(super) fn take_nameless(&mut self) -> Option<Due> {
        self.judge.as_mut()?.take_nameless()
    }
}

/// Whether the connection was not marked yet and is now.
fn mark(entry: &mut Entry) -> bool {
    let is_first = entry.alerts.alert && !entry.connection.alert;
    if is_first {
        entry.change().alert = true;
    }
    is_first
}
