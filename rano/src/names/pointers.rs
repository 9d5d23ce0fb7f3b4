//! Reverse look-ups: what is asked, for whom, and what was answered. An address is asked for once, however many
//! connections wait for it, and not again while the answer holds; nobody waits for the asking itself.

use std::collections::{HashMap, VecDeque};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use crate::bounded::Bounded;
use crate::change::SocketId;
use crate::event::Moment;
use crate::names::Pointer;
use crate::names::classes::{Reach, reach};
use crate::names::resolver::Resolver;

/// Addresses whose answer is kept, about a hundred bytes each; the oldest makes room and is asked for again.
const KNOWN_MAX: usize = 1 << 13;
/// Addresses that are waited for at a time.
const ADDRESSES_MAX: usize = 1 << 12;
/// Connections that wait for one address.
const WAITING_MAX: usize = 256;
/// Connections that wait before it is asked.
const DUE_MAX: usize = 1 << 12;
/// Bounds of how long an answer is kept.
const SHORTEST: Duration = Duration::from_mins(1);
const LONGEST: Duration = Duration::from_hours(1);
/// How long look-ups may be left without looking whether they were answered.
const LOOK: Duration = Duration::from_millis(25);

/// A name that only the address's owner vouches for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PointerName {
    pub name: Arc<str>,
    pub confirmed: bool,
}

#[derive(Debug)]
struct Known {
    name: Option<PointerName>,
    until_ns: u64,
}

/// Who answers.
#[derive(Debug)]
enum Answers {
    /// Nobody.
    Never,
    /// A recording, if it holds any.
    Recorded,
    From(Resolver),
}

/// What to ask for, and when.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PointerSettings {
    /// Packets may tell a better name in this time.
    pub patience: Duration,
    /// Private addresses and those of this machine, too.
    pub private: bool,
}

/// The reverse look-ups of an observation.
#[derive(Debug)]
pub struct Pointers {
    answers: Answers,
    settings: PointerSettings,
    known: Bounded<IpAddr, Known>,
    waiting: HashMap<IpAddr, Vec<SocketId>>,
    /// Connections for which it is not asked yet, by time.
    due: VecDeque<(u64, IpAddr, SocketId)>,
    now_ns: u64,
    /// Connections for which there was no room to ask.
    pub forgotten: u64,
}

impl Pointers {
    fn with(answers: Answers, settings: PointerSettings) -> Self {
        Self {
            answers,
            settings,
            known: Bounded::new(KNOWN_MAX),
            waiting: HashMap::new(),
            due: VecDeque::new(),
            now_ns: 0,
            forgotten: 0,
        }
    }

    /// No look-ups.
    pub fn none() -> Self {
        Self::with(Answers::Never, PointerSettings { patience: Duration::ZERO, private: false })
    }

    /// Those of a recording.
    pub fn recorded() -> Self {
        Self::with(Answers::Recorded, PointerSettings { patience: Duration::ZERO, private: true })
    }

    pub fn asking(resolver: Resolver, settings: PointerSettings) -> Self {
        Self::with(Answers::From(resolver), settings)
    }

    /// Of an address that was asked for before.
    pub fn known(&self, address: IpAddr) -> Option<&PointerName> {
        let known = self.known.get(&address)?;
        known.name.as_ref().filter(|_| known.until_ns >= self.now_ns)
    }

    /// A connection has no name. Whether one may come.
    pub fn want(&mut self, address: IpAddr, socket: SocketId, at: Moment) -> bool {
        if !self.may_ask(address) || self.is_known_to_have_none(address) {
            return false;
        }
        if self.due.len() >= DUE_MAX {
            self.no_room();
            return false;
        }
        let due_ns = at.boot_ns.saturating_add(nanos(self.settings.patience));
        self.due.push_back((due_ns, address, socket));
        true
    }

    /// A connection that was wanted has ended: a better name is not to be waited for.
    pub fn want_now(&mut self, address: IpAddr, socket: SocketId) {
        if self.may_ask(address) && !self.is_known_to_have_none(address) {
            self.ask(address, socket);
        }
    }

    /// A recording holds what it holds.
    fn no_room(&mut self) {
        self.forgotten += u64::from(matches!(self.answers, Answers::From(_)));
    }

    fn may_ask(&self, address: IpAddr) -> bool {
        match self.answers {
            Answers::Never => false,
            Answers::Recorded => true,
            Answers::From(_) => match reach(address) {
                Reach::World | Reach::Site => true,
                Reach::Host => self.settings.private,
            },
        }
    }

    fn is_known_to_have_none(&self, address: IpAddr) -> bool {
        self.known.get(&address).is_some_and(|known| known.until_ns >= self.now_ns && known.name.is_none())
    }

    fn ask(&mut self, address: IpAddr, socket: SocketId) {
        let is_new = !self.waiting.contains_key(&address);
        if is_new && self.waiting.len() >= ADDRESSES_MAX {
            self.no_room();
            return;
        }
        let waiting = self.waiting.entry(address).or_default();
        if waiting.contains(&socket) {
            return;
        }
        if waiting.len() >= WAITING_MAX {
            self.no_room();
            return;
        }
        waiting.push(socket);
        if let Answers::From(resolver) = &self.answers
            && is_new
        {
            // A private address is looked up in /etc/hosts in any case.
            let hosts_only = reach(address) != Reach::World && !self.settings.private;
            if !resolver.ask(address, hosts_only) {
                self.forgotten += 1;
                self.waiting.remove(&address);
            }
        }
    }

    /// Time has come this far: asks what is due and still wanted; what was answered goes to `out`.
    pub fn passed(&mut self, now: Moment, still_wants: impl Fn(SocketId) -> bool, out: &mut Vec<Pointer>) {
        self.now_ns = self.now_ns.max(now.boot_ns);
        while let Some((due_ns, address, socket)) = self.due.front().copied()
            && due_ns <= now.boot_ns
        {
            self.due.pop_front();
            if still_wants(socket) {
                self.ask(address, socket);
            }
        }
        if let Answers::From(resolver) = &self.answers {
            out.extend(resolver.take(now));
        }
    }

    /// Whether a resolver is asked, or about to be.
    pub fn is_asking(&self) -> bool {
        matches!(self.answers, Answers::From(_)) && !(self.waiting.is_empty() && self.due.is_empty())
    }

    /// When to look again.
    pub fn next_due(&self) -> Option<u64> {
        let due = self.due.front().map(|(due_ns, ..)| *due_ns);
        let is_asked = matches!(self.answers, Answers::From(_)) && !self.waiting.is_empty();
        let look = is_asked.then(|| self.now_ns.saturating_add(nanos(LOOK)));
        due.into_iter().chain(look).min()
    }

    /// Takes note of an answer, and tells who waited for it.
    pub fn answered(&mut self, pointer: &Pointer) -> (Option<PointerName>, Vec<SocketId>) {
        let name = pointer
            .name
            .as_ref()
            .map(|name| PointerName { name: Arc::clone(name), confirmed: pointer.confirmed });
        let lasts = pointer.lasts.clamp(SHORTEST, LONGEST);
        let until_ns = pointer.at.boot_ns.saturating_add(nanos(lasts));
        self.known.insert(pointer.address, Known { name: name.clone(), until_ns });
        (name, self.waiting.remove(&pointer.address).unwrap_or_default())
    }
}

fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}
