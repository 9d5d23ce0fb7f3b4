//! The fixed order every event takes: track → enrich → sinks. One loop, one owner of all state; it runs on recorded
//! events as on live ones and never reads a clock.

mod names;

use std::sync::Arc;
use std::time::Duration;

use anyhow::Result;
use rustc_hash::{FxHashMap, FxHashSet};

use crate::event::{
    Address, Bytes, ConnectionId, Event, EventKind, KnownName, Moment, Protocol, SocketState, SourceKind,
};
use crate::names::book::Learned;
use crate::names::{Evidence, Party};
use crate::output::summary::Summary;
use crate::process::tree::Tree;
use crate::process::{Process, ProcessChange, ProcessId, Verdict, provider};
use crate::sink::alerts::{Alert, Due, Judge, Notes, Reason};
use crate::sink::{Frame, Sink};
use crate::source::health::{Gap, Gaps};
use crate::source::{Closed, Intake, Open, Opened, Pumped, Role, SocketChange, SocketId, Source};
use crate::stop::Stop;
use crate::totals::Totals;

pub use names::Names;
use names::{Ended, Known};

/// What is shown and stored, of what a source delivers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Scope {
    pub udp: bool,
    /// Accepts and listeners.
    pub listening: bool,
    pub unix: bool,
    /// Connections whose owner is not known become events; they are counted in any case.
    pub unattributed: bool,
    /// Attempts that are not established yet are shown at once and not when they succeed: a single look.
    pub pending: bool,
}

/// More open connections than this are still shown, but their ends are not noticed. Those that are nobody's leave half of the
/// room to those of watched processes.
const LIVE_MAX: usize = 1 << 18;
const UNATTRIBUTED_MAX: usize = LIVE_MAX / 2;

/// All state between a source and the sinks.
pub struct Pipeline {
    tree: Tree,
    scope: Scope,
    source: SourceKind,
    sinks: Vec<Box<dyn Sink>>,
    judge: Option<Judge>,
    live: FxHashMap<SocketId, Live>,
    /// Open connections of excluded processes that were counted.
    left_out: FxHashSet<SocketId>,
    names: Names,
    ended: Ended,
    next_connection: u64,
    totals: Totals,
    /// Provider of what nobody is known to own.
    unknown: Arc<str>,
    unattributed: u64,
    table_full: u64,
    /// Connections to public addresses that have no name.
    unresolved: u64,
    /// Bounds of which it was said that they were reached.
    full: Vec<Gap>,
    /// What is excluded, as the summary says it.
    excludes: Vec<String>,
    /// Said once if the first look finds nobody to watch.
    idle_notice: Option<String>,
    /// Said first.
    warnings: Vec<String>,
}

/// A socket that is open.
struct Live {
    connection: ConnectionId,
    opened: Opened,
    process: Option<Arc<Process>>,
    /// The outermost watched process it descends from.
    tree: Option<ProcessId>,
    /// A connect event was sent, so that a close will follow.
    connected: bool,
    /// Its end will be noticed.
    is_kept: bool,
    known: Known,
    notes: Notes,
}

impl Pipeline {
    /// `sinks` in the order in which they see an event; the last one shows notices.
    pub fn new(tree: Tree, scope: Scope, source: SourceKind, sinks: Vec<Box<dyn Sink>>) -> Self {
        Self {
            tree,
            scope,
            source,
            sinks,
            judge: None,
            live: FxHashMap::default(),
            left_out: FxHashSet::default(),
            names: Names::none(),
            ended: Ended::default(),
            next_connection: 1,
            totals: Totals::default(),
            unknown: Arc::from(provider::UNKNOWN),
            unattributed: 0,
            table_full: 0,
            unresolved: 0,
            full: Vec::new(),
            excludes: Vec::new(),
            idle_notice: None,
            warnings: Vec::new(),
        }
    }

    /// What to say before anything else.
    #[must_use]
    pub fn with_warnings(mut self, warnings: Vec<String>) -> Self {
        self.warnings = warnings;
        self
    }

    /// What the summary is to say is excluded.
    #[must_use]
    pub fn with_excludes(mut self, excludes: Vec<String>) -> Self {
        self.excludes = excludes;
        self
    }

    /// What to say if the first look finds nobody to watch.
    #[must_use]
    pub fn with_idle_notice(mut self, notice: String) -> Self {
        self.idle_notice = Some(notice);
        self
    }

    /// Warns of what `judge` finds.
    #[must_use]
    pub fn with_judge(mut self, judge: Judge) -> Self {
        self.judge = Some(judge);
        self
    }

    /// Observes until the source is exhausted or `stop` is raised. `intake` stands between source and pipeline where
    /// a recording is made.
    pub fn run(mut self, source: &mut dyn Source, stop: &Stop, top: usize) -> Result<Summary> {
        let mut outcome = Ok(());
        self.names_passed(source.now());
        for warning in std::mem::take(&mut self.warnings) {
            self.say(&warning);
        }
        while !stop.is_raised() {
            let until = self.next_tick();
            match source.pump(until, stop, &mut self) {
                Ok(pumped) => {
                    self.say_if_idle();
                    self.tick(source);
                    if pumped == Pumped::Exhausted {
                        break;
                    }
                }
                Err(error) => {
                    outcome = Err(error);
                    break;
                }
            }
        }
        if outcome.is_ok() {
            outcome = source.finish(&mut self);
        }
        self.show_pending(source.now());
        if self.scope.pending {
            while let Some(due) = self.judge.as_mut().and_then(Judge::take_nameless) {
                self.overdue(due, source.now());
            }
        }
        self.tell_of_suspects(source.now());
        self.tick(source);
        let summary = self.finish(source, top);
        outcome.map(|()| summary)
    }

    fn next_tick(&self) -> Moment {
        let ticks = self.sinks.iter().filter_map(|sink| sink.next_tick()).map(|at| at.boot_ns);
        let due = self.judge.as_ref().and_then(Judge::next_due);
        Moment {
            boot_ns: ticks.chain(due).chain(self.names_due()).min().unwrap_or(u64::MAX),
            unix_ms: i64::MAX,
        }
    }

    fn tick(&mut self, source: &mut dyn Source) {
        for pointer in self.names_passed(source.now()) {
            source.learned(&Evidence::Pointer(pointer));
        }
        self.look_at_overdue(source.now());
        self.totals.left_out.processes = self.tree.left_out();
        let health = self.health(source);
        self.say_what_is_full(&health.gaps);
        let frame = Frame { now: source.now(), totals: &self.totals, health: &health };
        for sink in &mut self.sinks {
            sink.tick(&frame);
        }
        self.pass_notices();
    }

    fn finish(&mut self, source: &dyn Source, top: usize) -> Summary {
        let mut summary = Summary {
            totals: self.totals.clone(),
            health: self.health(source),
            excludes: self.excludes.clone(),
            names: self.names.from.clone(),
            hidden: None,
            top,
            log_lost: 0,
            history_moved: None,
            output_failed: false,
        };
        for at in 0..self.sinks.len() {
            // Earlier sinks' last words come before the summary.
            self.pass_notices();
            self.sinks[at].finish(&mut summary);
        }
        self.pass_notices();
        summary
    }

    fn health(&self, source: &dyn Source) -> crate::source::SourceHealth {
        let mut health = source.health();
        health.gaps.add(Gap::Unattributed, self.unattributed);
        health.gaps.add(Gap::TableFull, self.table_full);
        health.gaps.add(Gap::Unresolved, self.unresolved);
        health.gaps.add(Gap::NamesForgotten, self.names.book.forgotten() + self.names.pointers.forgotten);
        health
    }

    fn say_if_idle(&mut self) {
        if let Some(notice) = self.idle_notice.take()
            && self.tree.tracked().next().is_none()
        {
            self.say(&notice);
        }
    }

    /// Once for each bound; how much it cost in the end is in the summary.
    fn say_what_is_full(&mut self, gaps: &Gaps) {
        for gap in Gap::OF_ROOM {
            if gaps.get(gap) > 0 && !self.full.contains(&gap) {
                self.full.push(gap);
                self.say(&format!("warning: no room left: {}; counted in the summary", gap.meaning()));
            }
        }
    }

    fn pass_notices(&mut self) {
        let notices: Vec<String> = self.sinks.iter_mut().flat_map(|sink| sink.take_notices()).collect();
        for notice in notices {
            self.say(&notice);
        }
    }

    fn say(&mut self, notice: &str) {
        for sink in &mut self.sinks {
            sink.notice(notice);
        }
    }

    /// `is_followed`: more will be told of it, its end at last.
    fn opened(&mut self, opened: Opened, is_followed: bool) {
        let is_known = self.live.contains_key(&opened.id);
        if opened.owner.is_none() && opened.role == Role::Connect && !is_known {
            self.unattributed += 1;
        }
        let learned = self.look_up(&opened, is_followed);
        if is_known || !self.in_scope(&opened) {
            for learned in learned {
                self.learned(&learned);
            }
            return;
        }
        let process = match opened.owner {
            Some(owner) => match self.tree.verdict(owner) {
                Verdict::Tracked => self.tree.process(owner),
                Verdict::Excluded => return self.leave_out(&opened),
                Verdict::Ignored => return,
            },
            None => None,
        };
        let connection = ConnectionId(self.next_connection);
        self.next_connection += 1;
        let most = if opened.owner.is_some() { LIVE_MAX } else { UNATTRIBUTED_MAX };
        let has_room = self.live.len() < most;
        let is_kept = is_followed && has_room;
        // An attempt whose success would not be noticed is shown as what it is.
        let pending = is_kept && opened.state == Some(SocketState::Connecting) && !self.scope.pending;
        let connected = opened.role == Role::Connect && !pending;
        let known = self.first_names(&opened, learned);
        let tree = opened.owner.and_then(|owner| self.tree.root(owner));
        let notes = Notes::default();
        let mut live = Live { connection, opened, process, tree, connected, is_kept, known, notes };
        if !pending {
            let kind = match live.opened.role {
                Role::Connect => EventKind::Connect,
                Role::Accept => EventKind::Accept,
                Role::Listen => EventKind::Listen,
            };
            let event = self.enrich(&live, kind, live.opened.at);
            self.send(event, &mut live);
        }
        if is_kept {
            self.live.insert(live.opened.id, live);
        }
        // One that is not followed is counted by its source.
        self.table_full += u64::from(is_followed && !has_room);
    }

    /// Of an excluded process: counted once, however often it is told.
    fn leave_out(&mut self, opened: &Opened) {
        let is_new = !self.left_out.contains(&opened.id);
        if is_new && opened.role == Role::Connect {
            self.totals.left_out.connections += 1;
            if self.left_out.len() < LIVE_MAX {
                self.left_out.insert(opened.id);
            }
        }
    }

    fn in_scope(&self, opened: &Opened) -> bool {
        let protocol = match opened.protocol {
            Protocol::Tcp => true,
            Protocol::Udp => self.scope.udp,
            Protocol::Unix => self.scope.unix,
        };
        let role = match opened.role {
            Role::Connect => true,
            Role::Accept | Role::Listen => self.scope.listening,
        };
        protocol && role && (opened.owner.is_some() || self.scope.unattributed)
    }

    fn state(&mut self, id: SocketId, state: SocketState, at: Moment) {
        let Some(live) = self.live.get_mut(&id) else { return };
        live.opened.state = Some(state);
        let established = matches!(state, SocketState::Established | SocketState::CloseWait);
        if established && !live.connected && live.opened.role == Role::Connect {
            live.connected = true;
            live.opened.at = at;
            let mut live = self.live.remove(&id).expect("it was found just now");
            let event = self.enrich(&live, EventKind::Connect, at);
            self.send(event, &mut live);
            self.live.insert(id, live);
        }
    }

    fn local(&mut self, id: SocketId, local: Address) {
        self.look_up_again(id, &local);
        if let Some(live) = self.live.get_mut(&id) {
            live.opened.local = Some(local);
        }
    }

    fn closed(&mut self, closed: &Closed) {
        self.names.book.closed(closed);
        self.left_out.remove(&closed.id);
        let Some(mut live) = self.live.remove(&closed.id) else { return };
        if live.opened.role != Role::Connect {
            return;
        }
        if !live.connected && closed.established == Some(true) {
            live.connected = true;
            live.opened.state = Some(SocketState::Established);
            let event = self.enrich(&live, EventKind::Connect, live.opened.at);
            self.send(event, &mut live);
        }
        let kind = if live.connected { EventKind::Close } else { EventKind::Fail };
        // A look dates what it found by its own end, and the end of that may have been told meanwhile.
        let opened = live.opened.at;
        let at = if closed.at.boot_ns < opened.boot_ns { opened } else { closed.at };
        let mut event = self.enrich(&live, kind, at);
        event.error = closed.error;
        event.state = Some(SocketState::Closed).filter(|_| live.opened.protocol == Protocol::Tcp);
        event.bytes = closed.bytes.filter(|bytes| kind == EventKind::Close || *bytes != Bytes::default());
        event.duration = closed.duration.or_else(|| {
            // What only its end revealed has no beginning.
            let seen_open = live.opened.owner.is_some() && !live.opened.preexisting;
            let known = kind == EventKind::Close && seen_open;
            known.then(|| closed.at.since(live.opened.at))
        });
        let event = self.send(event, &mut live);
        self.await_late_names(&event, live);
    }

    /// It was gone by `at`. Whether an attempt ever succeeded is then not known, and it is shown as what it is.
    fn gone(&mut self, id: SocketId, at: Moment) {
        let unknown = Closed { id, at, bytes: None, error: None, established: None, duration: None };
        self.names.book.closed(&unknown);
        let Some(mut live) = self.live.remove(&id) else { return };
        if live.opened.role != Role::Connect {
            return;
        }
        if !live.connected {
            live.connected = true;
            let event = self.enrich(&live, EventKind::Connect, live.opened.at);
            self.send(event, &mut live);
        }
        let mut event = self.enrich(&live, EventKind::Close, at);
        event.late = true;
        event.state = Some(SocketState::Closed).filter(|_| live.opened.protocol == Protocol::Tcp);
        let event = self.send(event, &mut live);
        self.await_late_names(&event, live);
    }

    /// What time alone makes worth an alert.
    fn look_at_overdue(&mut self, now: Moment) {
        while let Some(due) = self.judge.as_mut().and_then(|judge| judge.take_due(now.boot_ns)) {
            self.overdue(due, now);
        }
    }

    /// Told as of the time at which it came, so that it does not matter how often the clock is looked at.
    fn overdue(&mut self, due: Due, now: Moment) {
        let late = Duration::from_nanos(now.boot_ns.saturating_sub(due.boot_ns));
        let late_ms = i64::try_from(late.as_millis()).unwrap_or(i64::MAX);
        let now =
            Moment { boot_ns: now.boot_ns.min(due.boot_ns), unix_ms: now.unix_ms.saturating_sub(late_ms) };
        let Some(mut live) = self.live.remove(&due.socket) else { return };
        if live.connection == due.connection {
            let event = self.enrich(&live, EventKind::Connect, now);
            let open_for = now.since(live.opened.at);
            let was_marked = live.notes.alert;
            let judge = self.judge.as_mut();
            let reason = judge.and_then(|judge| judge.overdue(due.wait, &event, open_for, &mut live.notes));
            let is_new = live.notes.alert && !was_marked;
            self.warn_late(&event, reason.as_slice(), is_new && live.connected);
        }
        self.live.insert(due.socket, live);
    }

    /// Attempts still under way at the end are shown as what they are, rather than passed over.
    fn show_pending(&mut self, now: Moment) {
        let waits = |live: &Live| !live.connected && live.opened.role == Role::Connect;
        let mut pending: Vec<SocketId> =
            self.live.iter().filter(|(_, live)| waits(live)).map(|(id, _)| *id).collect();
        pending.sort_unstable_by_key(|id| self.live[id].connection);
        for id in pending {
            let mut live = self.live.remove(&id).expect("it was listed just now");
            let event = self.enrich(&live, EventKind::Connect, now);
            self.send(event, &mut live);
        }
    }

    fn enrich(&self, live: &Live, kind: EventKind, at: Moment) -> Event {
        let provider = match &live.process {
            Some(process) => Arc::clone(&process.provider),
            None => Arc::clone(&self.unknown),
        };
        Event {
            kind,
            at,
            connection: live.connection,
            process: live.process.clone(),
            tree: live.tree,
            provider,
            protocol: live.opened.protocol,
            local: live.opened.local.clone(),
            remote: live.opened.remote.clone(),
            domain: live.known.domain.clone(),
            is_hearsay: live.known.is_hearsay,
            others: live.known.others.clone(),
            class: live.known.class,
            duration: None,
            bytes: None,
            error: None,
            state: live.opened.state,
            source: self.source,
            owner_quality: live.opened.quality,
            preexisting: live.opened.preexisting,
            late: false,
            netns: live.opened.netns,
            peer_pid: live.opened.peer_pid,
            alert: live.notes.alert,
        }
    }

    /// Judged before any sink sees it, so that all of them know whether it gave reason for an alert. A cooldown keeps only
    /// the telling back: whoever asks the history for what matched is to find all of it.
    fn send(&mut self, mut event: Event, live: &mut Live) -> Event {
        self.totals.count(&event);
        let was_marked = live.notes.alert;
        let reasons = self.judged(&event, live);
        event.alert = live.notes.alert;
        for sink in &mut self.sinks {
            sink.event(&event);
        }
        self.warn(&event, &reasons);
        if event.kind == EventKind::Close && live.notes.alert && !was_marked {
            self.mark(event.connection);
        }
        if event.kind == EventKind::Connect {
            self.await_names(&event, live);
        }
        event
    }

    fn judged(&mut self, event: &Event, live: &mut Live) -> Vec<Reason> {
        let Some(judge) = &mut self.judge else { return Vec::new() };
        match event.kind {
            EventKind::Connect => {
                let socket = live.is_kept.then_some(live.opened.id);
                let others = live.known.take_unjudged();
                judge.connected(event, self.totals.active, socket, &others, &mut live.notes)
            }
            EventKind::Close => judge.closed(event, &mut live.notes),
            EventKind::Fail => judge.failed(event, &live.known.take_unjudged(), &mut live.notes),
            EventKind::Accept | EventKind::Listen => Vec::new(),
        }
    }

    /// An alert between the events of a connection, or after them. `is_to_mark`: it is the first one, and rows are written.
    fn warn_late(&mut self, event: &Event, reasons: &[Reason], is_to_mark: bool) {
        self.warn(event, reasons);
        if is_to_mark {
            self.mark(event.connection);
        }
    }

    fn warn(&mut self, event: &Event, reasons: &[Reason]) {
        self.totals.alerts_held_back = self.judge.as_ref().map_or(0, Judge::held_back);
        for reason in reasons {
            self.totals.alerts += 1;
            for sink in &mut self.sinks {
                sink.alert(&Alert { at: event.at, reason, event });
            }
        }
    }

    fn mark(&mut self, connection: ConnectionId) {
        for sink in &mut self.sinks {
            sink.alerted(connection);
        }
    }
}

impl Intake for Pipeline {
    fn process(&mut self, change: ProcessChange) -> Verdict {
        self.tree.apply(change)
    }

    fn socket(&mut self, change: SocketChange) {
        self.look_at_overdue(change.at());
        self.names.book.passed(change.at());
        match change {
            SocketChange::Opened(opened) => self.opened(opened, true),
            SocketChange::Attempted(opened) => self.opened(opened, false),
            SocketChange::State { id, state, at } => self.state(id, state, at),
            SocketChange::Local { id, local, .. } => self.local(id, local),
            SocketChange::Named { id, name, by, at } => {
                let name = KnownName { name, by };
                let learned = Learned { socket: id, name, is_certain: true, is_hearsay: false, at };
                self.learned(&learned);
            }
            SocketChange::Closed(closed) => self.closed(&closed),
            SocketChange::Gone { id, at } => self.gone(id, at),
        }
    }

    fn evidence(&mut self, evidence: Evidence) {
        self.look_at_overdue(evidence.at());
        self.told(evidence);
    }

    fn unattributed(&mut self, count: u64) {
        self.unattributed += count;
    }

    fn left_out(&mut self, connections: u64) {
        self.totals.left_out.connections += connections;
    }

    fn newly_tracked(&mut self) -> Vec<ProcessId> {
        self.tree.newly_tracked()
    }

    fn verdict(&self, id: ProcessId) -> Verdict {
        self.tree.verdict(id)
    }

    fn watches(&self, party: Party) -> bool {
        self.names.book.watches(party)
    }

    fn open(&self, protocol: Protocol) -> Vec<Open> {
        let of_protocol = self.live.iter().filter(|(_, live)| live.opened.protocol == protocol);
        of_protocol
            .map(|(id, live)| Open {
                id: *id,
                is_pending: live.opened.role == Role::Connect && !live.connected,
            })
            .collect()
    }
}

#[cfg(test)]
mod tests;
