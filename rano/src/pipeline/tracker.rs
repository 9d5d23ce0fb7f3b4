//! From what a source delivers to what becomes of it: which sockets are connections to tell of, and what happens to
//! them.

use std::sync::Arc;

use super::Scope;
use super::alerting::Alerting;
use super::live::{Entry, LiveTable};
use super::naming::{Names, NamingRoom};
use super::outlet::Outlet;
use super::relays::Relays;
use super::rooms::Rooms;
use crate::alerts::{Due, Notes};
use crate::connection::{Connection, End};
use crate::event::{
    Address, Bytes, Class, ConnectionId, DomainSource, EventKind, KnownName, Moment, Protocol, SocketState,
};
use crate::health::{Bound, Bounds, Gap, Gaps};
use crate::names::book::Learned;
use crate::names::lookups::Receiver;
use crate::names::pointers::PointerName;
use crate::names::unknown::Waiting;
use crate::names::{Evidence, Party, Pointer};
use crate::process::tree::Tree;
use crate::process::{Process, ProcessChange, ProcessId, Verdict, provider};
use crate::sink::Sink;
use crate::source::{Closed, Intake, Open, Opened, Role, SocketChange, SocketId, Stray};
use crate::totals::{Summed, Totals};
use crate::update::{Counters, Update};

/// All that is known of processes and connections, fed by a source.
pub(super) struct Tracker {
    pub(super) tree: Tree,
    scope: Scope,
    pub(super) live: LiveTable,
    pub(super) rooms: Rooms,
    next_connection: u64,
    /// Provider of what nobody is known to own.
    unknown: Arc<str>,
    pub(super) unattributed: u64,
}

impl Tracker {
    pub(super) fn new(tree: Tree, scope: Scope, sinks: Vec<Box<dyn Sink>>) -> Self {
        Self {
            tree,
            scope,
            live: LiveTable::default(),
            rooms: Rooms {
                totals: Totals::default(),
                alerting: Alerting::default(),
                naming: NamingRoom::new(Names::none()),
                relays: Relays::default(),
                out: Outlet::new(sinks),
            },
            next_connection: 1,
            unknown: Arc::from(provider::UNKNOWN),
            unattributed: 0,
        }
    }

    pub(super) fn is_single_look(&self) -> bool {
        self.scope.pending
    }

    /// When there is something to do or to show without any event; boot clock.
    pub(super) fn next_due(&self) -> Option<u64> {
        let Rooms { alerting, naming, out, .. } = &self.rooms;
        out.next_tick().into_iter().chain(alerting.next_due()).chain(naming.next_due()).min()
    }

    /// `gaps` are the source's.
    pub(super) fn counters(&self, mut gaps: Gaps) -> Counters {
        gaps.add(Gap::Unattributed, self.unattributed);
        gaps.add(Gap::TableFull, self.live.overflow().open);
        gaps.add(Gap::Unresolved, self.rooms.naming.unresolved());
        gaps.add(Gap::NamesForgotten, self.rooms.naming.forgotten());
        let Totals { active, peak, bytes: away, loopback, mut left_out, .. } = self.rooms.totals;
        left_out.processes = self.tree.left_out();
        let alerts = self.rooms.alerting.told();
        Counters { active, peak_active: peak, alerts, away, loopback, left_out, gaps }
    }

    pub(super) fn add_bounds(&self, bounds: &mut Bounds) {
        let Rooms { totals, alerting, naming, relays, .. } = &self.rooms;
        naming.add_bounds(bounds);
        bounds.add(Bound::Relays, relays.pushed_out);
        bounds.add(Bound::LateNames, self.live.overflow().lingering);
        bounds.add(Bound::Cooldowns, alerting.without_cooldown());
        bounds.add(Bound::Rankings, totals.domains.others + totals.remote_ips.others);
    }

    /// Time has come this far. What answers to look-ups brought meanwhile.
    pub(super) fn passed(&mut self, now: Moment) -> Vec<Pointer> {
        let pointers = self.names_passed(now);
        self.look_at_overdue(now);
        pointers
    }

    /// Nothing will be told any more: what still waits is shown as what it is.
    pub(super) fn finish(&mut self, now: Moment) {
        self.show_pending(now);
        if self.scope.pending {
            while let Some(due) = self.rooms.alerting.take_nameless() {
                self.overdue(due, now);
            }
        }
        self.tell_of_suspects(now);
    }

    fn apply_and_tell(&mut self, change: ProcessChange) -> Verdict {
        let (id, is_gone) = match &change {
            ProcessChange::Seen { id, .. } | ProcessChange::Surroundings { id, .. } => (*id, false),
            ProcessChange::Gone { id, .. } => (*id, true),
        };
        let was_watched = self.tree.verdict(id) == Verdict::Tracked;
        let verdict = self.tree.apply(change);
        let is_watched = verdict == Verdict::Tracked && !is_gone;
        if is_watched {
            if let Some(process) = self.tree.process(id) {
                self.rooms.out.send(&Update::Watched(process));
            }
        } else if was_watched {
            self.rooms.out.send(&Update::Unwatched(id));
        }
        verdict
    }

    /// `is_followed`: more will be told of it, its end at last.
    fn opened(&mut self, opened: Opened, is_followed: bool) {
        let is_known = self.live.is_open(opened.id);
        if opened.owner.is_none() && opened.role == Role::Connect && !is_known {
            self.unattributed += 1;
        }
        if let (Role::Accept, Some(owner)) = (opened.role, opened.owner) {
            self.rooms.relays.accepted(owner);
        }
        let by = self.rooms.naming.is_on().then(|| self.receiver(opened.owner));
        let learned = by.map_or_else(Vec::new, |by| self.rooms.naming.opened(&opened, by, is_followed));
        if is_known || !self.in_scope(&opened) {
            return self.learned(&learned);
        }
        let process = match opened.owner {
            Some(owner) => match self.tree.verdict(owner) {
                Verdict::Tracked => self.tree.process(owner),
                Verdict::Excluded => return self.leave_out(&opened),
                Verdict::Ignored => return,
            },
            None => None,
        };
        let (own, others): (Vec<_>, Vec<_>) =
            learned.into_iter().partition(|learned| learned.socket == opened.id);
        self.learned(&others);
        // One that is not followed is counted by its source.
        let is_kept = is_followed && self.live.has_room(opened.owner.is_some());
        // An attempt whose success would not be noticed is shown as what it is.
        let is_pending = is_kept && opened.state == Some(SocketState::Connecting) && !self.scope.pending;
        let is_connected = opened.role == Role::Connect && !is_pending;
        let (socket, at) = (opened.id, opened.at);
        let root = by.map_or_else(|| self.root(opened.owner), |by| by.root);
        let mut connection = self.connection(opened, process, root);
        connection.is_followed = is_kept;
        let naming = self.rooms.naming.first_names(&mut connection, socket, &own);
        if is_look_up_by_rano(&connection) {
            connection.provider = Arc::clone(&self.unknown);
        }
        let connection = Arc::new(connection);
        let mut entry = Entry {
            socket,
            connection,
            is_connected,
            is_kept,
            naming,
            alerts: Notes::default(),
            summed: Summed::default(),
        };
        if !is_pending {
            let kind = entry.connection.first_event();
            self.rooms.event(kind, at, &mut entry);
        }
        if is_kept {
            self.live.insert(entry);
        }
    }

    /// Only its end was seen. It may be a watched process's, or not: it is summed up apart, and judged by itself.
    fn strayed(&mut self, Stray { opened, closed }: Stray) {
        self.unattributed += 1;
        let (socket, at) = (opened.id, closed.at);
        let learned = if self.rooms.naming.is_on() {
            let by = self.receiver(None);
            let learned = self.rooms.naming.opened(&opened, by, true);
            self.rooms.naming.closed(&closed);
            learned
        } else {
            Vec::new()
        };
        let own: Vec<_> = learned.into_iter().filter(|learned| learned.socket == socket).collect();
        let mut connection = self.connection(opened, None, None);
        let has_failed = closed.established == Some(false);
        connection.bytes = closed.bytes;
        connection.ended = Some(End { at, duration: None, error: closed.error, is_late: false, has_failed });
        let naming = self.rooms.naming.first_names(&mut connection, socket, &own);
        self.rooms.totals.strays.count(&connection);
        if !self.tree.has_tracked() {
            return;
        }
        let mut entry = Entry {
            socket,
            connection: Arc::new(connection),
            is_connected: !has_failed,
            is_kept: false,
            naming,
            alerts: Notes::default(),
            summed: Summed::default(),
        };
        self.rooms.strayed(at, &mut entry);
    }

    /// A new one, without a name yet.
    fn connection(
        &mut self,
        opened: Opened,
        process: Option<Arc<Process>>,
        tree: Option<ProcessId>,
    ) -> Connection {
        let id = ConnectionId(self.next_connection);
        self.next_connection += 1;
        Connection {
            id,
            role: opened.role,
            provider: Arc::clone(process.as_ref().map_or(&self.unknown, |process| &process.provider)),
            process,
            tree,
            protocol: opened.protocol,
            local: opened.local,
            remote: opened.remote,
            since: opened.at,
            name: None,
            is_hearsay: false,
            domain_port: None,
            relay_for: None,
            others: Vec::new(),
            class: Class::Unknown,
            bytes: None,
            state: opened.state,
            source: opened.source,
            owner_quality: opened.quality,
            is_followed: true,
            preexisting: opened.preexisting,
            netns: opened.netns,
            peer_pid: opened.peer_pid,
            alert: false,
            ended: None,
        }
    }

    /// Of an excluded process: counted once, however often it is told.
    fn leave_out(&mut self, opened: &Opened) {
        if opened.role == Role::Connect && self.live.is_newly_excluded(opened.id) {
            self.rooms.totals.left_out.connections += 1;
        }
    }

    fn in_scope(&self, opened: &Opened) -> bool {
        let protocol = match opened.protocol {
            Protocol::Tcp => true,
            Protocol::Udp => self.scope.udp,
            Protocol::Unix => self.scope.unix,
            Protocol::Ip(_)
            | Protocol::UdpLite
            | Protocol::Sctp
            | Protocol::Dccp
            | Protocol::Packet
            | Protocol::Vsock
            | Protocol::Tipc
            | Protocol::Rds
            | Protocol::Xdp => self.scope.other,
        };
        let role = match opened.role {
            Role::Connect => true,
            Role::Accept | Role::Listen => self.scope.listening,
        };
        protocol && role && (opened.owner.is_some() || self.scope.unattributed)
    }

    /// Whose socket it is.
    fn receiver(&self, owner: Option<ProcessId>) -> Receiver {
        let uid = owner.and_then(|owner| self.tree.uid(owner));
        Receiver { process: owner, root: self.root(owner), uid }
    }

    fn root(&self, owner: Option<ProcessId>) -> Option<ProcessId> {
        owner.and_then(|owner| self.tree.root(owner))
    }

    fn state(&mut self, id: SocketId, state: SocketState, at: Moment) {
        let Some(entry) = self.live.get_mut(id) else { return };
        entry.change().state = Some(state);
        let is_established = matches!(state, SocketState::Established | SocketState::CloseWait);
        if is_established && entry.is_pending() {
            entry.is_connected = true;
            entry.change().since = at;
            self.rooms.event(EventKind::Connect, at, entry);
        } else {
            self.rooms.changed(entry);
        }
    }

    fn local(&mut self, id: SocketId, local: Address) {
        let learned = self.rooms.naming.local(id, &local);
        self.learned(&learned);
        if let Some(entry) = self.live.get_mut(id) {
            entry.change().local = Some(local);
            self.rooms.changed(entry);
        }
    }

    /// So far.
    fn bytes(&mut self, id: SocketId, bytes: Bytes, at: Moment) {
        let Some(entry) = self.live.get_mut(id) else { return };
        let is_open = !entry.is_pending() && entry.connection.role != Role::Listen;
        if is_open && entry.connection.bytes != Some(bytes) {
            entry.change().bytes = Some(bytes);
            self.rooms.counted(at, entry);
        }
    }

    fn closed(&mut self, closed: &Closed) {
        let Some(mut entry) = self.take_out(closed) else { return };
        if entry.is_pending() && closed.established == Some(true) {
            entry.is_connected = true;
            entry.change().state = Some(SocketState::Established);
            let since = entry.connection.since;
            self.rooms.event(EventKind::Connect, since, &mut entry);
        }
        let was_open = entry.is_connected || entry.connection.role == Role::Accept;
        let kind = if was_open { EventKind::Close } else { EventKind::Fail };
        let connection = entry.change();
        // Else as they were read last.
        let so_far = connection.bytes;
        let last = closed.bytes.filter(|bytes| kind == EventKind::Close || *bytes != Bytes::default());
        connection.bytes = last.or(so_far);
        let duration = closed.duration.or_else(|| {
            // What only its end revealed has no beginning.
            let was_seen_open = connection.process.is_some() && !connection.preexisting;
            let is_known = kind == EventKind::Close && was_seen_open;
            is_known.then(|| closed.at.since(connection.since))
        });
        // A look dates what it found by its own end, and the end of that may have been told meanwhile.
        let since = connection.since;
        let at = if closed.at.boot_ns < since.boot_ns { since } else { closed.at };
        let has_failed = kind == EventKind::Fail;
        let end = End { at, duration, error: closed.error, is_late: false, has_failed };
        self.ended(entry, kind, end);
    }

    /// It was gone by `at`. Whether an attempt ever succeeded is then not known, and it is shown as what it is.
    fn gone(&mut self, id: SocketId, at: Moment) {
        let unknown = Closed { id, at, bytes: None, error: None, established: None, duration: None };
        let Some(mut entry) = self.take_out(&unknown) else { return };
        if !entry.is_connected && entry.connection.role == Role::Connect {
            entry.is_connected = true;
            let since = entry.connection.since;
            self.rooms.event(EventKind::Connect, since, &mut entry);
        }
        let end = End { at, duration: None, error: None, is_late: true, has_failed: false };
        self.ended(entry, EventKind::Close, end);
    }

    /// A socket is gone. Its connection, if there is an end to tell.
    fn take_out(&mut self, closed: &Closed) -> Option<Box<Entry>> {
        self.rooms.naming.closed(closed);
        self.live.forget_excluded(closed.id);
        let entry = self.live.remove(closed.id)?;
        if entry.connection.role == Role::Listen {
            self.rooms.out.send(&Update::Left(entry.connection.id));
            return None;
        }
        Some(entry)
    }

    fn ended(&mut self, mut entry: Box<Entry>, kind: EventKind, end: End) {
        let connection = entry.change();
        connection.state = Some(SocketState::Closed).filter(|_| connection.protocol == Protocol::Tcp);
        connection.ended = Some(end);
        self.rooms.event(kind, end.at, &mut entry);
        if entry.connection.role != Role::Connect {
            return;
        }
        let Rooms { naming, out, .. } = &mut self.rooms;
        if naming.ended(&mut entry, kind, end.at, out) {
            for mut gone in self.live.linger(entry, end.at) {
                self.rooms.unnamed(&mut gone, end.at);
            }
        }
    }

    /// What time alone makes worth an alert.
    fn look_at_overdue(&mut self, now: Moment) {
        while let Some(due) = self.rooms.alerting.take_due(now) {
            self.overdue(due, now);
        }
    }

    fn overdue(&mut self, due: Due, now: Moment) {
        let entry = self.live.get_mut(due.socket).filter(|entry| entry.connection.id == due.connection);
        if let Some(entry) = entry {
            self.rooms.overdue(due, now, entry);
        }
    }

    fn learned(&mut self, learned: &[Learned]) {
        for learned in learned {
            if let Some(entry) = self.live.find_mut(learned.socket) {
                self.rooms.named(entry, learned, true);
            }
        }
    }

    fn told(&mut self, evidence: Evidence) {
        match evidence {
            Evidence::Pointer(pointer) => {
                // Whoever waits for it asks first.
                self.names_passed(pointer.at);
                self.pointer(&pointer);
            }
            evidence @ (Evidence::Answer(_) | Evidence::Greeting(_)) => {
                let learned = self.rooms.naming.evidence(evidence);
                self.learned(&learned);
            }
        }
    }

    fn pointer(&mut self, pointer: &Pointer) {
        let (answer, sockets) = self.rooms.naming.pointer(pointer);
        for socket in sockets {
            if let Some(entry) = self.live.get_mut(socket) {
                NamingRoom::answered(entry);
            }
            let Some(PointerName { name, confirmed }) = answer.clone() else { continue };
            let name = KnownName { name, by: DomainSource::Ptr };
            let learned =
                Learned { socket, name, port: None, is_certain: true, is_hearsay: false, at: pointer.at };
            if let Some(entry) = self.live.find_mut(socket) {
                self.rooms.named(entry, &learned, confirmed);
            }
        }
    }

    /// What time alone brings: answers to look-ups, which are returned, and the end of patience.
    fn names_passed(&mut self, now: Moment) -> Vec<Pointer> {
        let live = &self.live;
        let is_nameless = |id| live.find(id).is_some_and(|entry| entry.connection.name.is_none());
        let pointers = self.rooms.naming.passed(now, is_nameless);
        for pointer in &pointers {
            self.pointer(pointer);
        }
        let known = self.rooms.naming.known_passed(now);
        self.learned(&known);
        while let Some(waiting) = self.rooms.naming.take_due(now.boot_ns) {
            self.suspect_is_due(waiting, now);
        }
        let Rooms { naming, out, .. } = &mut self.rooms;
        naming.tell_of_counted(now.boot_ns, out);
        self.live.passed(now);
        pointers
    }

    /// At the end no name will come any more. Of a single look that concerns all that still wait, else those that have
    /// ended.
    fn tell_of_suspects(&mut self, now: Moment) {
        while let Some(waiting) = self.rooms.naming.take_due(u64::MAX) {
            if self.scope.pending || self.live.is_lingering(waiting.socket) {
                self.suspect_is_due(waiting, now);
            }
        }
        let Rooms { naming, out, .. } = &mut self.rooms;
        naming.tell_of_counted(u64::MAX, out);
    }

    /// Told as of the time at which it was due.
    fn suspect_is_due(&mut self, waiting: Waiting, now: Moment) {
        let now = Moment { boot_ns: now.boot_ns.min(waiting.due_ns), ..now };
        if let Some(entry) = self.live.numbered_mut(waiting.socket, waiting.connection) {
            self.rooms.unnamed(entry, now);
        }
    }

    /// Attempts still under way at the end are shown as what they are, rather than passed over.
    fn show_pending(&mut self, now: Moment) {
        for socket in self.live.pending() {
            if let Some(mut entry) = self.live.remove(socket) {
                self.rooms.event(EventKind::Connect, now, &mut entry);
            }
        }
    }
}

/// Names for what an agent reaches are no agent's business, also where the agent started this or another rano. Told by
/// the executable's name: it is shown all the same.
fn is_look_up_by_rano(connection: &Connection) -> bool {
    let runs = connection.process.as_deref().map_or("", |process| process.program_file());
    connection.class == Class::Dns && runs == env!("CARGO_PKG_NAME")
}

impl Intake for Tracker {
    fn process(&mut self, change: ProcessChange) -> Verdict {
        if self.rooms.out.wants_processes() { self.apply_and_tell(change) } else { self.tree.apply(change) }
    }

    fn socket(&mut self, change: SocketChange) {
        self.look_at_overdue(change.at());
        self.rooms.naming.at(change.at());
        match change {
            SocketChange::Opened(opened) => self.opened(opened, true),
            SocketChange::Attempted(opened) => self.opened(opened, false),
            SocketChange::State { id, state, at } => self.state(id, state, at),
            SocketChange::Local { id, local, .. } => self.local(id, local),
            SocketChange::Bytes { id, bytes, at } => self.bytes(id, bytes, at),
            SocketChange::Named { id, name, by, at } => {
                let name = KnownName { name, by };
                self.learned(&[Learned {
                    socket: id,
                    name,
                    port: None,
                    is_certain: true,
                    is_hearsay: false,
                    at,
                }]);
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

    fn stray(&mut self, stray: Stray) {
        self.look_at_overdue(stray.closed.at);
        self.rooms.naming.at(stray.closed.at);
        self.strayed(stray);
    }

    fn left_out(&mut self, connections: u64) {
        self.rooms.totals.left_out.connections += connections;
    }

    fn newly_tracked(&mut self) -> Vec<ProcessId> {
        self.tree.newly_tracked()
    }

    fn verdict(&self, id: ProcessId) -> Verdict {
        self.tree.verdict(id)
    }

    fn watches(&self, party: Party) -> bool {
        self.rooms.naming.watches(party)
    }

    fn open(&self, protocol: Protocol) -> Vec<Open> {
        self.live.of(protocol)
    }
}
