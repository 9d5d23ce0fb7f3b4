//! What names mean to connections: the best one is shown and the others are kept, late ones reach what was written
//! already, and the class follows from the name. Nothing here waits.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use super::live::Entry;
use super::outlet::Outlet;
use crate::alerts::{Candidate, NAME_PATIENCE};
use crate::connection::Connection;
use crate::event::{Address, Class, DomainSource, EventKind, KnownName, Moment};
use crate::health::{Bound, Bounds};
use crate::names::book::{Book, Learned};
use crate::names::classes::{Classes, Reach, reach};
use crate::names::known::KnownNames;
use crate::names::lookups::Receiver;
use crate::names::pointers::{PointerName, Pointers};
use crate::names::unknown::{Endpoint, News, UnknownEndpoints, Waiting};
use crate::names::{Evidence, Party, Pointer};
use crate::source::{Closed, Opened, SocketId};
use crate::update::Update;

/// Other names that are kept of a connection.
const OTHERS_MAX: usize = 8;

/// Where names come from and what becomes of them.
pub struct Names {
    pub book: Book,
    /// Who tells them, in words.
    pub from: String,
    pub pointers: Pointers,
    /// The endpoints that agents are known to use.
    pub known: KnownNames,
    pub classes: Classes,
    /// `None`: unknown endpoints are nothing to talk about.
    pub unknown: Option<UnknownEndpoints>,
}

impl Names {
    /// What a recording holds.
    pub fn recorded(hold: Duration) -> Self {
        Self {
            book: Book::new(hold),
            from: "recording".to_owned(),
            pointers: Pointers::recorded(),
            known: KnownNames::none(),
            classes: Classes::new(&[]),
            unknown: None,
        }
    }

    /// Nothing is told of names but by the source of events itself.
    pub fn none() -> Self {
        Self {
            book: Book::closed_for_good(),
            from: "none".to_owned(),
            pointers: Pointers::none(),
            known: KnownNames::none(),
            classes: Classes::default(),
            unknown: None,
        }
    }
}

/// The notes of naming on one connection, kept with it.
#[derive(Debug, Default)]
pub(super) struct NamingNotes {
    /// Names besides the one that is shown that are to be judged with the first event: all of them, however few are
    /// kept.
    unjudged: Vec<Candidate>,
    /// A reverse look-up may give a name yet.
    awaits_pointer: bool,
    /// It counts as unresolved.
    is_unresolved: bool,
    /// It is to be told of unless its class becomes known.
    is_suspect: bool,
}

impl NamingNotes {
    /// What is to be judged with the first event, besides the name it is shown with.
    pub(super) fn take_unjudged(&mut self) -> Vec<Candidate> {
        std::mem::take(&mut self.unjudged)
    }
}

/// What a name that became known made of a connection.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Naming {
    /// It is shown with it from now on. As it was before: its name, its class.
    Better { before: Option<KnownName>, class_before: Class, shown_before: Option<Candidate> },
    /// It is kept beside the one that is shown.
    Another,
    /// There is no room to keep it.
    NotKept,
}

/// How a name compares with those that a connection has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Rank {
    Known,
    Better,
    Other,
}

fn rank(connection: &Connection, learned: &Learned) -> Rank {
    let KnownName { name, by } = &learned.name;
    let known = connection.name.as_ref();
    // Of two that say the same, one may be trusted.
    let is_surer = |known_by| *by == known_by && connection.is_hearsay && !learned.is_hearsay;
    if learned.is_certain && known.is_none_or(|known| *by < known.by || is_surer(known.by)) {
        return Rank::Better;
    }
    let mut names = known.into_iter().chain(&connection.others);
    if names.any(|known| known.name == *name) { Rank::Known } else { Rank::Other }
}

/// The better name takes the place of the one that was shown, which is kept.
fn give_better(connection: &mut Connection, learned: &Learned, not_kept: &mut u64) -> Option<KnownName> {
    let name = &learned.name.name;
    connection.is_hearsay = learned.is_hearsay;
    connection.domain_port = learned.port;
    let before = connection.name.replace(learned.name.clone());
    connection.others.retain(|other| other.name != *name);
    if let Some(before) = before.as_ref().filter(|before| before.name != *name) {
        keep(connection, before.clone(), not_kept);
    }
    before
}

fn keep(connection: &mut Connection, name: KnownName, not_kept: &mut u64) -> bool {
    let has_room = connection.others.len() < OTHERS_MAX;
    if has_room {
        connection.others.push(name);
    }
    *not_kept += u64::from(!has_room);
    has_room
}

/// Nothing that the watched process could not have written says what it is.
fn is_unknown(names: &Names, connection: &Connection) -> bool {
    let name = connection.name.as_ref().map(|known| &*known.name);
    // Addresses are shared: what a name was looked up for says nothing of who else uses its address.
    let is_guess = connection.name.as_ref().is_some_and(|known| known.by == DomainSource::Known);
    // The address is that of a proxy, of which is not the question.
    let remote = connection.remote.as_ref().filter(|_| connection.via().is_none());
    connection.class == Class::Unknown || is_guess || names.classes.is_only_claimed(name, remote)
}

/// Something vouches for its name: the process itself, a greeting, a resolver.
fn is_surely_named(connection: &Connection) -> bool {
    let by = connection.name.as_ref().map(|known| known.by);
    by.is_some_and(|by| !by.is_guess()) && !connection.is_hearsay
}

fn endpoint(connection: &Connection, remote: SocketAddr) -> Endpoint {
    let asked = connection.name.as_ref().filter(|_| connection.via().is_some());
    (remote, asked.map(|known| Arc::clone(&known.name)))
}

fn known(socket: SocketId, name: Arc<str>, at: Moment) -> Learned {
    let name = KnownName { name, by: DomainSource::Known };
    Learned { socket, name, port: None, is_certain: true, is_hearsay: false, at }
}

fn candidate(learned: &Learned) -> Candidate {
    let is_possible = !learned.is_certain || learned.is_hearsay || learned.name.by == DomainSource::Known;
    Candidate { name: Arc::clone(&learned.name.name), is_possible }
}

/// The room where names are given.
pub(super) struct NamingRoom {
    names: Names,
    /// Connections to public addresses that have no name.
    unresolved: u64,
    /// Names that are not kept because their connection has too many.
    not_kept: u64,
}

impl NamingRoom {
    pub(super) fn new(names: Names) -> Self {
        Self { names, unresolved: 0, not_kept: 0 }
    }

    /// Who tells names, in words.
    pub(super) fn from(&self) -> &str {
        &self.names.from
    }

    pub(super) fn unresolved(&self) -> u64 {
        self.unresolved
    }

    /// Answers, greetings and look-ups that found no room.
    pub(super) fn forgotten(&self) -> u64 {
        self.names.book.forgotten() + self.names.pointers.forgotten
    }

    pub(super) fn add_bounds(&self, bounds: &mut Bounds) {
        bounds.add(Bound::OtherNames, self.not_kept);
        bounds.add(Bound::LateNames, self.names.book.ended_full);
        bounds.add(Bound::AwaitedAnswers, self.names.book.nameless_full);
        bounds.add(
            Bound::UnknownEndpoints,
            self.names.unknown.as_ref().map_or(0, |unknown| unknown.not_awaited),
        );
    }

    pub(super) fn watches(&self, party: Party) -> bool {
        self.names.book.watches(party)
    }

    /// Time has come this far.
    pub(super) fn at(&mut self, now: Moment) {
        self.names.book.passed(now);
    }

    /// A socket is opened: what is known of its names, and of others' through it. `is_followed`: its end will be told.
    pub(super) fn opened(&mut self, opened: &Opened, by: Receiver, is_followed: bool) -> Vec<Learned> {
        let mut learned = Vec::new();
        if is_followed {
            self.names.book.opened(opened, by, &mut learned);
        } else {
            self.names.book.attempted(opened, by, &mut learned);
        }
        learned
    }

    /// Whether answers to look-ups are on their way.
    pub(super) fn is_asking(&self) -> bool {
        self.names.pointers.is_asking()
    }

    /// Whether anybody joins packets with sockets.
    pub(super) fn is_on(&self) -> bool {
        self.names.book.is_on()
    }

    /// The same when its local end becomes known.
    pub(super) fn local(&mut self, id: SocketId, local: &Address) -> Vec<Learned> {
        let mut learned = Vec::new();
        self.names.book.local(id, local, &mut learned);
        learned
    }

    pub(super) fn closed(&mut self, closed: &Closed) {
        self.names.book.closed(closed);
    }

    /// Packets or a resolver told something: what follows for sockets.
    pub(super) fn evidence(&mut self, evidence: Evidence) -> Vec<Learned> {
        let mut learned = Vec::new();
        self.names.book.evidence(evidence, &mut learned);
        learned
    }

    /// Names a connection that is seen for the first time.
    pub(super) fn first_names(
        &mut self,
        connection: &mut Connection,
        socket: SocketId,
        learned: &[Learned],
    ) -> NamingNotes {
        let mut notes = NamingNotes::default();
        for learned in learned {
            self.add_first(connection, learned, &mut notes);
        }
        let remote = connection.remote.as_ref().and_then(Address::ip_addr);
        if let (Some(ip), Some(process)) =
            (remote.filter(|ip| reach(*ip) == Reach::World), &connection.process)
        {
            if let Some(call) = &process.call {
                self.names.known.wants(&call.agent, connection.since);
            }
            if let Some(name) = self.names.known.name_of(ip) {
                let learned = known(socket, name, connection.since);
                self.add_first(connection, &learned, &mut notes);
            }
        }
        let pointer = remote.and_then(|ip| self.names.pointers.known(ip)).cloned();
        let is_confirmed = pointer.as_ref().is_some_and(|pointer| pointer.confirmed);
        if let Some(PointerName { name, .. }) = pointer {
            let name = KnownName { name, by: DomainSource::Ptr };
            let at = connection.since;
            let learned = Learned { socket, name, port: None, is_certain: true, is_hearsay: false, at };
            self.add_first(connection, &learned, &mut notes);
        }
        self.classify(connection, is_confirmed);
        notes
    }

    fn add_first(&mut self, connection: &mut Connection, learned: &Learned, notes: &mut NamingNotes) {
        match rank(connection, learned) {
            Rank::Known => {}
            Rank::Better => {
                notes.unjudged.extend(Candidate::shown(connection));
                give_better(connection, learned, &mut self.not_kept);
            }
            Rank::Other => {
                notes.unjudged.push(candidate(learned));
                keep(connection, learned.name.clone(), &mut self.not_kept);
            }
        }
    }

    /// By the name, if it is one that neither the address's owner nor another user can just make up.
    fn classify(&self, connection: &mut Connection, is_confirmed: bool) {
        let is_sure = is_surely_named(connection);
        let name = connection.name.as_ref();
        if let (Some(_), Some(asked)) = (connection.via(), name) {
            let port = connection.domain_port.unwrap_or_default();
            connection.class = self.names.classes.behind_proxy(&asked.name, port);
            return;
        }
        let leads_there = |by| by == DomainSource::Ptr && is_confirmed || by == DomainSource::Known;
        let name = name.filter(|known| is_sure || leads_there(known.by));
        connection.class = self.names.classes.of(name.map(|known| &*known.name), connection.remote.as_ref());
    }

    /// A name of a connection became known. `is_confirmed`: of a reverse look-up, the name leads back to the address.
    /// `None` where the name was known.
    pub(super) fn learn(
        &mut self,
        entry: &mut Entry,
        learned: &Learned,
        is_confirmed: bool,
    ) -> Option<Naming> {
        match rank(&entry.connection, learned) {
            Rank::Known => None,
            Rank::Better => {
                let shown_before = Candidate::shown(&entry.connection);
                let class_before = entry.connection.class;
                let connection = entry.change();
                let before = give_better(connection, learned, &mut self.not_kept);
                self.classify(connection, is_confirmed);
                if entry.naming.is_unresolved && !entry.connection.is_hearsay {
                    entry.naming.is_unresolved = false;
                    self.unresolved = self.unresolved.saturating_sub(1);
                }
                Some(Naming::Better { before, class_before, shown_before })
            }
            Rank::Other => {
                let is_kept = keep(entry.change(), learned.name.clone(), &mut self.not_kept);
                Some(if is_kept { Naming::Another } else { Naming::NotKept })
            }
        }
    }

    /// What of a name that was learned is to be judged. The best name of an attempt is judged when it succeeds or
    /// fails.
    pub(super) fn to_judge(learned: &Learned, naming: Naming, is_written: bool) -> Option<Candidate> {
        match naming {
            Naming::Better { shown_before, .. } if !is_written => shown_before,
            Naming::Better { .. } | Naming::Another | Naming::NotKept => Some(candidate(learned)),
        }
    }

    /// After a connect was sent.
    pub(super) fn connected(&mut self, entry: &mut Entry, at: Moment, out: &mut Outlet) {
        let Entry { connection, naming, .. } = entry;
        let Some(Address::Ip(remote)) = connection.remote else { return };
        let is_nameless = connection.name.is_none();
        if is_nameless || connection.is_hearsay {
            naming.is_unresolved = reach(remote.ip()) == Reach::World && is_unknown(&self.names, connection);
            self.unresolved += u64::from(naming.is_unresolved);
        }
        if is_nameless {
            if connection.process.is_some() {
                self.names.known.wait(remote.ip(), entry.socket);
            }
            naming.awaits_pointer = self.names.pointers.want(remote.ip(), entry.socket, at);
        }
        self.suspect(entry, remote, at, out);
    }

    fn suspect(&mut self, entry: &mut Entry, remote: SocketAddr, at: Moment, out: &mut Outlet) {
        let connection = &entry.connection;
        let is_unknown = is_unknown(&self.names, connection);
        let Some(unknown) = &mut self.names.unknown else { return };
        let is_wanted = connection.process.is_some() && connection.relay_for.is_none();
        let concerns = is_unknown && is_wanted && !unknown.was_told(&endpoint(connection, remote));
        if !concerns {
            return;
        }
        let due_ns = at.boot_ns.saturating_add(nanos(NAME_PATIENCE));
        let waiting = Waiting { due_ns, socket: entry.socket, connection: connection.id };
        entry.naming.is_suspect = !is_surely_named(connection) && unknown.wait(waiting);
        if !entry.naming.is_suspect {
            self.tell_of_unknown(connection, remote, at, out);
        }
    }

    /// Of a connection that only its end revealed no name will come: of its endpoint is told where names come with
    /// packets.
    pub(super) fn strayed(&mut self, entry: &Entry, at: Moment, out: &mut Outlet) {
        let connection = &entry.connection;
        let Some(Address::Ip(remote)) = connection.remote else { return };
        let may_be_known = is_surely_named(connection) || self.is_on();
        if may_be_known && reach(remote.ip()) == Reach::World && is_unknown(&self.names, connection) {
            self.tell_of_unknown(connection, remote, at, out);
        }
    }

    /// Once an endpoint.
    fn tell_of_unknown(
        &mut self,
        connection: &Arc<Connection>,
        remote: SocketAddr,
        at: Moment,
        out: &mut Outlet,
    ) {
        // Where nobody reads packets, that a resolver has no name for an address says nothing of the endpoint.
        let has_none = connection.name.as_ref().is_none_or(|known| known.by == DomainSource::Known);
        if has_none && !self.is_on() {
            return;
        }
        self.tell_of_counted(at.boot_ns, out);
        let who = connection.process.as_ref().map(|process| process.id);
        let news = self
            .names
            .unknown
            .as_mut()
            .map(|unknown| unknown.news(endpoint(connection, remote), who, at.boot_ns));
        if news == Some(News::Line) {
            out.send(&Update::UnknownEndpoint { connection: Arc::clone(connection), remote });
        }
    }

    /// Those that were too many to be told one by one.
    pub(super) fn tell_of_counted(&mut self, now_ns: u64, out: &mut Outlet) {
        if let Some(count) = self.names.unknown.as_mut().and_then(|unknown| unknown.take_counted(now_ns)) {
            out.send(&Update::MoreUnknownEndpoints(count));
        }
    }

    /// Its end was sent. Whether it is to be kept for names that come late.
    pub(super) fn ended(&mut self, entry: &mut Entry, kind: EventKind, at: Moment, out: &mut Outlet) -> bool {
        let connection = &entry.connection;
        let may_be_pointed_at = entry.naming.awaits_pointer && connection.name.is_none();
        if let (true, Some(Address::Ip(remote))) =
            (entry.naming.is_suspect && !may_be_pointed_at, &connection.remote)
        {
            entry.naming.is_suspect = false;
            self.tell_of_unknown(connection, *remote, at, out);
        }
        let Some(remote) = connection.remote.as_ref().and_then(Address::ip_addr) else { return false };
        match &connection.name {
            None => {
                self.names.pointers.want_now(remote, entry.socket);
                entry.naming.awaits_pointer || kind == EventKind::Fail || self.is_on()
            }
            Some(known) => self.is_on() && known.by > DomainSource::Proxy,
        }
    }

    /// A name was given, and told.
    pub(super) fn named(&mut self, entry: &mut Entry, at: Moment, out: &mut Outlet) {
        let connection = &entry.connection;
        let is_asked = connection.via().is_some() && entry.is_connected;
        entry.naming.is_suspect &= connection.relay_for.is_none();
        if let (true, Some(Address::Ip(remote))) = (is_asked, &connection.remote) {
            entry.naming.is_suspect = false;
            return self.suspect(entry, *remote, at, out);
        }
        if let (true, Some(Address::Ip(remote))) = (entry.naming.is_suspect, &connection.remote) {
            let is_named = is_surely_named(connection);
            let is_unknown = is_unknown(&self.names, connection);
            entry.naming.is_suspect = !is_named && is_unknown;
            if is_named && is_unknown {
                self.tell_of_unknown(connection, *remote, at, out);
            }
        }
    }

    /// Its name was waited for in vain.
    pub(super) fn unnamed(&mut self, entry: &mut Entry, at: Moment, out: &mut Outlet) {
        if let (true, Some(Address::Ip(remote))) = (entry.naming.is_suspect, &entry.connection.remote) {
            self.tell_of_unknown(&entry.connection, *remote, at, out);
        }
        entry.naming.is_suspect = false;
    }

    /// An answer to a reverse look-up: which sockets it names, and whether the name leads back.
    pub(super) fn pointer(&mut self, pointer: &Pointer) -> (Option<PointerName>, Vec<SocketId>) {
        self.names.pointers.answered(pointer)
    }

    /// No answer will come for it any more.
    pub(super) fn answered(entry: &mut Entry) {
        entry.naming.awaits_pointer = false;
    }

    /// What time alone brings: answers to look-ups. `still_wants`: a connection has no name yet.
    pub(super) fn passed(&mut self, now: Moment, still_wants: impl Fn(SocketId) -> bool) -> Vec<Pointer> {
        self.names.book.passed(now);
        let mut pointers = Vec::new();
        self.names.pointers.passed(now, still_wants, &mut pointers);
        pointers
    }

    /// Endpoints that agents are known to use were looked up: what names that gives.
    pub(super) fn known_passed(&mut self, now: Moment) -> Vec<Learned> {
        let named = self.names.known.passed(now);
        named.into_iter().map(|(socket, name)| known(socket, name, now)).collect()
    }

    /// A connection that waited for a name long enough; boot clock.
    pub(super) fn take_due(&mut self, now_ns: u64) -> Option<Waiting> {
        self.names.unknown.as_mut()?.take_due(now_ns)
    }

    /// Boot clock.
    pub(super) fn next_due(&self) -> Option<u64> {
        let unknown = self.names.unknown.as_ref().and_then(UnknownEndpoints::next_due);
        unknown.into_iter().chain(self.names.pointers.next_due()).chain(self.names.known.next_due()).min()
    }
}

fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}
