//! What names mean to connections: the best one is shown and the others are kept, late ones reach what was written
//! already, and the class follows from the name. Nothing here waits.

use std::collections::VecDeque;
use std::collections::hash_map::Entry;
use std::net::SocketAddr;
use std::time::Duration;

use rustc_hash::FxHashMap;

use super::{Live, Pipeline};
use crate::event::{Address, Bytes, Class, Domain, DomainSource, Event, EventKind, KnownName, Moment};
use crate::names::book::{Book, Learned};
use crate::names::classes::{Classes, Reach, reach};
use crate::names::lookups::Receiver;
use crate::names::pointers::{PointerName, Pointers};
use crate::names::unknown::{News, UnknownEndpoints, Waiting};
use crate::names::{Evidence, Pointer};
use crate::output::alert::{more_unknown_endpoints, unknown_endpoint};
use crate::sink::alerts::{Candidate, NAME_PATIENCE};
use crate::source::{Opened, SocketId};

/// How long a connection that has ended is kept for names that come late.
const LINGER: Duration = Duration::from_secs(5);
/// Ended connections that are kept; the oldest goes first.
const ENDED_MAX: usize = 4096;
/// Other names that are kept of a connection.
const OTHERS_MAX: usize = 8;

/// Where names come from and what becomes of them.
pub struct Names {
    pub book: Book,
    /// Who tells them, in words.
    pub from: String,
    pub pointers: Pointers,
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
            classes: Classes::default(),
            unknown: None,
        }
    }
}

/// The names of one connection, kept with it.
#[derive(Debug, Default)]
pub(super) struct Known {
    pub(super) domain: Domain,
    pub(super) others: Vec<KnownName>,
    /// Only other users' processes say that `domain` is its name.
    pub(super) is_hearsay: bool,
    /// Names besides `domain` that are to be judged with the first event, all of them, however few are kept.
    unjudged: Vec<Candidate>,
    pub(super) class: Class,
    /// What the class was told by.
    classified_by: Option<KnownName>,
    /// A reverse look-up may give a name yet.
    awaits_pointer: bool,
    /// Payload that was told with its end.
    bytes: Option<Bytes>,
    /// It counts as unresolved.
    is_unresolved: bool,
    /// It is to be told of unless its class becomes known.
    is_suspect: bool,
}

/// What naming made of it.
#[derive(Debug, PartialEq, Eq)]
enum Naming {
    /// It was known.
    Nothing,
    Better,
    Another,
    /// There is no room to keep it.
    NotKept,
}

impl Known {
    fn add(&mut self, learned: &Learned) -> Naming {
        let KnownName { name, by } = &learned.name;
        let known = match &self.domain {
            Domain::Observed { name, by } => Some((name, *by)),
            Domain::Unknown => None,
        };
        // Of two that say the same, one may be trusted.
        let is_surer = |known_by| *by == known_by && self.is_hearsay && !learned.is_hearsay;
        let is_better = known.is_none_or(|(_, known_by)| *by < known_by || is_surer(known_by));
        if learned.is_certain && is_better {
            self.is_hearsay = learned.is_hearsay;
            let former =
                std::mem::replace(&mut self.domain, Domain::Observed { name: name.clone(), by: *by });
            self.others.retain(|other| other.name != *name);
            if let Domain::Observed { name: former, by } = former
                && former != *name
            {
                self.keep(KnownName { name: former, by });
            }
            return Naming::Better;
        }
        let is_shown = known.is_some_and(|(known, _)| known == name);
        if is_shown || self.others.iter().any(|other| other.name == *name) {
            return Naming::Nothing;
        }
        if self.keep(learned.name.clone()) { Naming::Another } else { Naming::NotKept }
    }

    /// Takes in a name before the first event.
    fn add_first(&mut self, learned: &Learned) {
        let before = self.candidate();
        match self.add(learned) {
            Naming::Nothing => {}
            Naming::Better => self.unjudged.extend(before),
            Naming::Another | Naming::NotKept => self.unjudged.push(candidate(learned)),
        }
    }

    /// What it is shown with.
    fn candidate(&self) -> Option<Candidate> {
        match &self.domain {
            Domain::Observed { name, .. } => {
                Some(Candidate { name: name.clone(), is_possible: self.is_hearsay })
            }
            Domain::Unknown => None,
        }
    }

    /// What is to be judged with the first event, besides the name it is shown with.
    pub(super) fn take_unjudged(&mut self) -> Vec<Candidate> {
        std::mem::take(&mut self.unjudged)
    }

    /// Something vouches for its name: the process itself, a greeting, a resolver.
    fn is_surely_named(&self) -> bool {
        match &self.domain {
            Domain::Observed { by, .. } => *by != DomainSource::Ptr && !self.is_hearsay,
            Domain::Unknown => false,
        }
    }

    fn keep(&mut self, name: KnownName) -> bool {
        let has_room = self.others.len() < OTHERS_MAX;
        if has_room {
            self.others.push(name);
        }
        has_room
    }
}

fn candidate(learned: &Learned) -> Candidate {
    Candidate { name: learned.name.name.clone(), is_possible: !learned.is_certain || learned.is_hearsay }
}

/// Connections that ended and may still get a name.
#[derive(Default)]
pub(super) struct Ended {
    by_socket: FxHashMap<SocketId, (u64, Box<Live>)>,
    order: VecDeque<(u64, SocketId)>,
}

impl Ended {
    /// Those that had to make room.
    fn keep(&mut self, live: Box<Live>, now_ns: u64) -> Vec<Live> {
        let until_ns = now_ns.saturating_add(nanos(LINGER));
        self.order.push_back((until_ns, live.opened.id));
        let before = self.by_socket.insert(live.opened.id, (until_ns, live));
        let first = (self.order.len() > ENDED_MAX).then(|| self.drop_first()).flatten();
        before.map(|(_, live)| live).into_iter().chain(first).map(|live| *live).collect()
    }

    fn passed(&mut self, now_ns: u64) {
        while self.order.front().is_some_and(|(until_ns, _)| *until_ns < now_ns) {
            self.drop_first();
        }
    }

    fn drop_first(&mut self) -> Option<Box<Live>> {
        let (until_ns, id) = self.order.pop_front()?;
        let Entry::Occupied(place) = self.by_socket.entry(id) else { return None };
        if place.get().0 == until_ns { Some(place.remove().1) } else { None }
    }
}

impl Pipeline {
    /// How names become known.
    #[must_use]
    pub fn with_names(mut self, names: Names) -> Self {
        self.names = names;
        self
    }

    /// What is known of a socket's names as it is opened, and of others' through it.
    pub(super) fn look_up(&mut self, opened: &Opened, is_followed: bool) -> Vec<Learned> {
        let mut learned = Vec::new();
        if self.names.book.is_on() {
            let by = self.receiver(opened);
            if is_followed {
                self.names.book.opened(opened, by, &mut learned);
            } else {
                self.names.book.attempted(opened, by, &mut learned);
            }
        }
        learned
    }

    /// Whose socket it is.
    pub(super) fn receiver(&self, opened: &Opened) -> Receiver {
        Receiver {
            process: opened.owner,
            root: opened.owner.and_then(|owner| self.tree.root(owner)),
            uid: opened.owner.and_then(|owner| self.tree.uid(owner)),
        }
    }

    /// The same when its local end becomes known.
    pub(super) fn look_up_again(&mut self, id: SocketId, local: &Address) {
        let mut learned = Vec::new();
        self.names.book.local(id, local, &mut learned);
        for learned in learned {
            self.learned(&learned);
        }
    }

    /// The names of a connection that is seen for the first time.
    pub(super) fn first_names(&mut self, opened: &Opened, learned: Vec<Learned>) -> Known {
        let mut known = Known::default();
        for learned in learned {
            if learned.socket == opened.id {
                known.add_first(&learned);
            } else {
                self.learned(&learned);
            }
        }
        let remote = opened.remote.as_ref().and_then(Address::ip_addr);
        let mut confirmed = false;
        if let Some(PointerName { name, confirmed: is_confirmed }) =
            remote.and_then(|ip| self.names.pointers.known(ip))
        {
            confirmed = *is_confirmed;
            let name = KnownName { name: name.clone(), by: DomainSource::Ptr };
            let (socket, at) = (opened.id, opened.at);
            known.add_first(&Learned { socket, name, is_certain: true, is_hearsay: false, at });
        }
        self.classify(&mut known, opened.remote.as_ref(), confirmed);
        known
    }

    /// By the name, if it is one that neither the address's owner nor another user can just make up.
    fn classify(&self, known: &mut Known, remote: Option<&Address>, confirmed: bool) {
        let name = match &known.domain {
            Domain::Observed { name, by }
                if known.is_surely_named() || *by == DomainSource::Ptr && confirmed =>
            {
                Some(KnownName { name: name.clone(), by: *by })
            }
            Domain::Observed { .. } | Domain::Unknown => None,
        };
        known.class = self.names.classes.of(name.as_ref().map(|known| &*known.name), remote);
        known.classified_by = name;
    }

    /// After a connect was sent.
    pub(super) fn await_names(&mut self, event: &Event, live: &mut Live) {
        let Some(Address::Ip(remote)) = event.remote else { return };
        if event.domain == Domain::Unknown || event.is_hearsay {
            let known = &mut live.known;
            known.is_unresolved = reach(remote.ip()) == Reach::World && known.class == Class::Unknown;
            self.unresolved += u64::from(known.is_unresolved);
        }
        if event.domain == Domain::Unknown {
            let known = &mut live.known;
            known.awaits_pointer = self.names.pointers.want(remote.ip(), live.opened.id, event.at);
        }
        self.suspect(event, remote, live);
    }

    fn suspect(&mut self, event: &Event, remote: SocketAddr, live: &mut Live) {
        let Some(unknown) = &mut self.names.unknown else { return };
        let concerns = event.class == Class::Unknown && event.process.is_some() && !unknown.was_told(&remote);
        if !concerns {
            return;
        }
        let is_named = live.known.is_surely_named();
        let due_ns = event.at.boot_ns.saturating_add(nanos(NAME_PATIENCE));
        let waiting = Waiting { due_ns, socket: live.opened.id, connection: live.connection };
        live.known.is_suspect = !is_named && unknown.wait(waiting);
        if !live.known.is_suspect {
            self.tell_of_unknown(event, remote);
        }
    }

    /// Once an endpoint.
    fn tell_of_unknown(&mut self, event: &Event, remote: SocketAddr) {
        self.tell_of_counted(event.at.boot_ns);
        let who = event.process.as_ref().map(|process| process.id);
        let news = self.names.unknown.as_mut().map(|unknown| unknown.news(remote, who, event.at.boot_ns));
        if news == Some(News::Line) {
            self.say(&unknown_endpoint(event, remote));
        }
    }

    /// Those that were too many to be told one by one.
    fn tell_of_counted(&mut self, now_ns: u64) {
        if let Some(count) = self.names.unknown.as_mut().and_then(|unknown| unknown.take_counted(now_ns)) {
            self.say(&more_unknown_endpoints(count));
        }
    }

    /// A connection ended, and was sent; it may be kept for names that come late.
    pub(super) fn await_late_names(&mut self, event: &Event, mut live: Live) {
        let may_be_pointed_at = live.known.awaits_pointer && event.domain == Domain::Unknown;
        if let (true, Some(Address::Ip(remote))) =
            (live.known.is_suspect && !may_be_pointed_at, &event.remote)
        {
            live.known.is_suspect = false;
            self.tell_of_unknown(event, *remote);
        }
        let Some(remote) = live.opened.remote.as_ref().and_then(Address::ip_addr) else { return };
        if event.domain == Domain::Unknown {
            self.names.pointers.want_now(remote, live.opened.id);
        }
        let may_get_better = match &event.domain {
            Domain::Unknown => {
                live.known.awaits_pointer || event.kind == EventKind::Fail || self.names.book.is_on()
            }
            Domain::Observed { by, .. } => self.names.book.is_on() && *by > DomainSource::Quic,
        };
        if may_get_better {
            live.known.bytes = event.bytes;
            for gone in self.ended.keep(Box::new(live), event.at.boot_ns) {
                self.tell_of_suspect(&gone, event.at);
            }
        }
    }

    /// It was waited for in vain.
    fn tell_of_suspect(&mut self, live: &Live, at: Moment) {
        let event = self.enrich(live, EventKind::Connect, at);
        if let (true, Some(Address::Ip(remote))) = (live.known.is_suspect, &event.remote) {
            self.tell_of_unknown(&event, *remote);
        }
    }

    pub(super) fn told(&mut self, evidence: Evidence) {
        match evidence {
            Evidence::Pointer(pointer) => {
                // Whoever waits for it asks first.
                self.names_passed(pointer.at);
                self.pointer(&pointer);
            }
            evidence @ (Evidence::Answer(_) | Evidence::Greeting(_)) => {
                let mut learned = Vec::new();
                self.names.book.evidence(evidence, &mut learned);
                for learned in learned {
                    self.learned(&learned);
                }
            }
        }
    }

    fn pointer(&mut self, pointer: &Pointer) {
        let (name, sockets) = self.names.pointers.answered(pointer);
        for socket in sockets {
            if let Some(live) = self.live.get_mut(&socket) {
                live.known.awaits_pointer = false;
            }
            let Some(PointerName { name, confirmed }) = name.clone() else { continue };
            let name = KnownName { name, by: DomainSource::Ptr };
            let learned = Learned { socket, name, is_certain: true, is_hearsay: false, at: pointer.at };
            self.name_connection(&learned, confirmed);
        }
    }

    pub(super) fn learned(&mut self, learned: &Learned) {
        self.name_connection(learned, true);
    }

    /// The better name stays, the other is kept; every name is judged that the connection surely goes by.
    fn name_connection(&mut self, learned: &Learned, confirmed: bool) {
        let id = learned.socket;
        if let Some(mut live) = self.live.remove(&id) {
            self.name_live(learned, confirmed, &mut live, false);
            self.live.insert(id, live);
        } else if let Some((until_ns, mut live)) = self.ended.by_socket.remove(&id) {
            self.name_live(learned, confirmed, &mut live, true);
            self.ended.by_socket.insert(id, (until_ns, live));
        }
    }

    fn name_live(&mut self, learned: &Learned, confirmed: bool, live: &mut Live, has_ended: bool) {
        let (before, class_before) = (live.known.domain.clone(), live.known.class);
        let shown_before = live.known.candidate();
        let naming = live.known.add(learned);
        if naming == Naming::Nothing {
            return;
        }
        let is_written = live.connected || has_ended;
        if naming == Naming::Better {
            let remote = live.opened.remote.clone();
            self.classify(&mut live.known, remote.as_ref(), confirmed);
            if live.known.is_unresolved && !live.known.is_hearsay {
                live.known.is_unresolved = false;
                self.unresolved = self.unresolved.saturating_sub(1);
            }
        }
        let event = self.enrich(live, EventKind::Connect, learned.at);
        if live.connected && naming == Naming::Better {
            self.totals.renamed(&event, live.known.bytes, &before, class_before);
        }
        if is_written {
            for sink in &mut self.sinks {
                match naming {
                    Naming::Better => sink.named(&event, &before),
                    Naming::Another => sink.also_named(event.connection, &learned.name),
                    Naming::NotKept | Naming::Nothing => {}
                }
            }
        }
        // The best name of an attempt is judged when it succeeds or fails.
        let to_judge =
            if is_written || naming != Naming::Better { Some(candidate(learned)) } else { shown_before };
        if let Some(to_judge) = to_judge {
            self.judge_name(&to_judge, &event, live, is_written);
        }
        if let (true, Some(Address::Ip(remote))) = (live.known.is_suspect, &event.remote) {
            let is_named = live.known.is_surely_named();
            let is_told = is_named && event.class == Class::Unknown;
            live.known.is_suspect = !is_named && event.class == Class::Unknown;
            if is_told {
                self.tell_of_unknown(&event, *remote);
            }
        }
    }

    fn judge_name(&mut self, candidate: &Candidate, event: &Event, live: &mut Live, is_written: bool) {
        if let Some(judge) = &mut self.judge {
            let was_marked = live.notes.alert;
            let reasons = judge.named(event, candidate, &mut live.notes);
            self.warn_late(event, &reasons, is_written && live.notes.alert && !was_marked);
        }
    }

    /// What time alone brings: answers to look-ups, which are returned, and the end of patience.
    pub(super) fn names_passed(&mut self, now: Moment) -> Vec<Pointer> {
        self.names.book.passed(now);
        let mut pointers = Vec::new();
        let nameless = |live: &Live| live.known.domain == Domain::Unknown;
        let (live, ended) = (&self.live, &self.ended.by_socket);
        let wants = |id: SocketId| {
            live.get(&id).is_some_and(nameless) || ended.get(&id).is_some_and(|(_, live)| nameless(live))
        };
        self.names.pointers.passed(now, wants, &mut pointers);
        for pointer in &pointers {
            self.pointer(pointer);
        }
        while let Some(waiting) =
            self.names.unknown.as_mut().and_then(|unknown| unknown.take_due(now.boot_ns))
        {
            self.suspect_is_due(waiting, now);
        }
        self.tell_of_counted(now.boot_ns);
        self.ended.passed(now.boot_ns);
        pointers
    }

    /// At the end no name will come any more. Of a single look that concerns all that still wait, else those that have
    /// ended.
    pub(super) fn tell_of_suspects(&mut self, now: Moment) {
        while let Some(waiting) = self.names.unknown.as_mut().and_then(|unknown| unknown.take_due(u64::MAX)) {
            if self.scope.pending || self.ended.by_socket.contains_key(&waiting.socket) {
                self.suspect_is_due(waiting, now);
            }
        }
        self.tell_of_counted(u64::MAX);
    }

    /// Told as of the time at which it was due.
    fn suspect_is_due(&mut self, waiting: Waiting, now: Moment) {
        let now = Moment { boot_ns: now.boot_ns.min(waiting.due_ns), ..now };
        let is_it = |live: &Live| live.connection == waiting.connection;
        if let Some(mut live) = self.live.remove(&waiting.socket) {
            if is_it(&live) {
                self.tell_of_suspect(&live, now);
                live.known.is_suspect = false;
            }
            self.live.insert(waiting.socket, live);
        }
        if let Some((until_ns, mut live)) = self.ended.by_socket.remove(&waiting.socket) {
            if is_it(&live) {
                self.tell_of_suspect(&live, now);
                live.known.is_suspect = false;
            }
            self.ended.by_socket.insert(waiting.socket, (until_ns, live));
        }
    }

    pub(super) fn names_due(&self) -> impl Iterator<Item = u64> {
        let unknown = self.names.unknown.as_ref().and_then(UnknownEndpoints::next_due);
        unknown.into_iter().chain(self.names.pointers.next_due())
    }
}

fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}
