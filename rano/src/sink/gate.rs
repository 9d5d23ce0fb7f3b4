//! A policy at work: each connection of a command is judged as it becomes known, and all of them at the end.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};

use rustc_hash::{FxHashMap, FxHashSet};

use crate::connection::Connection;
use crate::event::{ConnectionId, EventKind, Role, SourceKind};
use crate::health::SourceHealth;
use crate::names::classes::Classes;
use crate::output::findings;
use crate::policy::{Contact, Finding, Gatherer, Judge, Kind, Lack, Observed, Policy, Remark, Verdict, Why};
use crate::sink::{Sink, SinkReport};
use crate::summary::Summary;
use crate::update::Update;

/// Ended connections whose names may still come.
const ENDED_MAX: usize = 1 << 12;
/// Open connections that are followed; further ones are judged as they begin.
const OPEN_MAX: usize = 1 << 16;
/// Findings that are told as they happen; all of them stand in the verdict.
const TOLD_MAX: usize = 1 << 10;
/// How long a connection may wait for a name before it is told that it has none, in milliseconds.
const PATIENCE_MS: i64 = 2000;

/// Called when a deny rule is broken for certain.
pub type OnDenied = Box<dyn FnMut() + Send>;

/// Where the verdict is put at the end.
pub type Outcome = Arc<Mutex<Option<Verdict>>>;

/// What a command is judged by.
pub struct GateSettings {
    pub policy: Arc<Policy>,
    pub classes: Classes,
    pub fail_on: Vec<Kind>,
    /// Unix milliseconds.
    pub started_at: i64,
    pub host: String,
    pub outcome: Outcome,
}

/// Judges what a command reaches.
pub struct Gate {
    settings: GateSettings,
    run_id: Arc<str>,
    on_denied: Option<OnDenied>,
    now: i64,
    open: FxHashMap<ConnectionId, Arc<Connection>>,
    ended: VecDeque<Arc<Connection>>,
    /// Those that wait for a name, in the order in which they began.
    nameless: VecDeque<(i64, ConnectionId)>,
    gatherer: Gatherer,
    told: FxHashSet<String>,
    notices: Vec<String>,
}

impl Gate {
    /// `health`: of the source that observes; what it cannot prove is told at once.
    pub fn new(
        settings: GateSettings,
        run_id: &str,
        health: &SourceHealth,
        on_denied: Option<OnDenied>,
    ) -> Self {
        let mut notices = Vec::new();
        let require = &settings.policy.require;
        if !require.sources.contains(&health.kind) {
            notices.push(findings::warning(&Lack::Source(health.kind.name().to_owned())));
        }
        if health.kind == SourceKind::Proc && settings.policy.needs_better_names_than_polling() {
            notices.push(findings::note(&Remark::NoNames));
        }
        Self {
            run_id: run_id.into(),
            on_denied,
            now: settings.started_at,
            open: FxHashMap::default(),
            ended: VecDeque::new(),
            nameless: VecDeque::new(),
            gatherer: Gatherer::default(),
            told: FxHashSet::default(),
            notices,
            settings,
        }
    }

    fn contact(&self, connection: &Connection) -> Option<Contact> {
        Contact::of(connection, &self.run_id).filter(|_| connection.role == Role::Connect)
    }

    fn judge(&self) -> Judge<'_> {
        let GateSettings { policy, classes, .. } = &self.settings;
        Judge { policy, classes, now: self.now }
    }

    /// Tells what is wrong with a connection, unless it only waits for its name.
    fn look(&mut self, connection: &Connection, waits_for_name: bool) {
        let Some(contact) = self.contact(connection) else { return };
        let Some(finding) = self.judge().finding(contact, &self.settings.fail_on) else { return };
        if waits_for_name && finding.kind == Kind::Unnamed {
            return;
        }
        let is_certain = matches!(finding.why, Why::Denied { is_possible: false, .. });
        self.tell(&finding);
        if is_certain && let Some(mut end) = self.on_denied.take() {
            end();
            self.notices.push(findings::KILLED.to_owned());
        }
    }

    fn tell(&mut self, finding: &Finding) {
        let identity = finding.identity();
        if self.told.len() < TOLD_MAX && self.told.insert(identity) {
            self.notices.push(findings::live(finding));
        }
    }

    fn began(&mut self, connection: &Arc<Connection>) {
        if self.open.len() >= OPEN_MAX {
            return self.ended(connection);
        }
        self.open.insert(connection.id, Arc::clone(connection));
        if connection.name.is_none() {
            self.nameless.push_back((connection.since.unix_ms, connection.id));
        }
        self.look(connection, true);
    }

    fn ended(&mut self, connection: &Arc<Connection>) {
        self.open.remove(&connection.id);
        self.look(connection, true);
        self.ended.push_back(Arc::clone(connection));
        if self.ended.len() > ENDED_MAX
            && let Some(oldest) = self.ended.pop_front()
        {
            self.gather(&oldest);
        }
    }

    fn changed(&mut self, connection: &Arc<Connection>) {
        if let Some(known) = self.open.get_mut(&connection.id) {
            *known = Arc::clone(connection);
        } else if let Some(known) = self.ended.iter_mut().rev().find(|known| known.id == connection.id) {
            *known = Arc::clone(connection);
        }
    }

    fn gather(&mut self, connection: &Connection) {
        if let Some(contact) = self.contact(connection) {
            self.gatherer.add(contact);
        }
    }

    fn without_names(&mut self) {
        while let Some((since, id)) = self.nameless.front().copied()
            && self.now.saturating_sub(since) >= PATIENCE_MS
        {
            self.nameless.pop_front();
            if let Some(connection) = self.open.get(&id).cloned() {
                self.look(&connection, false);
            }
        }
    }

    fn observed(&self, summary: &Summary) -> Observed {
        Observed {
            run_id: Arc::clone(&self.run_id),
            name: None,
            host: self.settings.host.clone(),
            started_at: self.settings.started_at,
            ended_at: Some(self.now),
            source: summary.health.kind.name().to_owned(),
            source_reason: summary.health.reason.clone(),
            clean_exit: true,
            is_running: false,
            excluded: summary.totals.left_out.connections,
            gaps: summary.health.gaps,
            is_command: true,
        }
    }
}

impl Sink for Gate {
    fn update(&mut self, update: &Update) {
        match update {
            Update::Event(event) if event.connection.role == Role::Connect => match event.kind {
                EventKind::Connect => self.began(&event.connection),
                EventKind::Fail | EventKind::Close => self.ended(&event.connection),
                EventKind::Accept | EventKind::Listen => {}
            },
            Update::Renamed(renamed) => {
                self.changed(&renamed.connection);
                self.look(&renamed.connection, true);
            }
            Update::OtherName { connection, name } => {
                if let Some(known) = self.open.get_mut(connection) {
                    let changed = Arc::make_mut(known);
                    if !changed.others.contains(name) {
                        changed.others.push(name.clone());
                    }
                    let changed = Arc::clone(known);
                    self.look(&changed, true);
                }
            }
            Update::Changed(connection) => self.changed(connection),
            Update::Progress(progress) => {
                self.now = progress.now.unix_ms;
                self.without_names();
            }
            Update::Event(_)
            | Update::Marked(_)
            | Update::Alert(_)
            | Update::Left(_)
            | Update::Watched(_)
            | Update::Unwatched(_)
            | Update::UnknownEndpoint { .. }
            | Update::MoreUnknownEndpoints(_)
            | Update::Notice(_) => {}
        }
    }

    fn take_notices(&mut self) -> Vec<String> {
        std::mem::take(&mut self.notices)
    }

    fn finish(&mut self, summary: &Summary) -> SinkReport {
        for connection in std::mem::take(&mut self.ended) {
            self.gather(&connection);
        }
        for connection in std::mem::take(&mut self.open).into_values() {
            self.gather(&connection);
        }
        let (contacts, left_out) = std::mem::take(&mut self.gatherer).finish();
        let observed = self.observed(summary);
        let mut verdict = self.judge().verdict(contacts, vec![observed], &self.settings.fail_on);
        if left_out > 0 {
            verdict.add_lack(Lack::NoRoom(left_out), self.settings.policy.place());
        }
        *self.settings.outcome.lock().unwrap_or_else(PoisonError::into_inner) = Some(verdict);
        SinkReport::default()
    }
}
