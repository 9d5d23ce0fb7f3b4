//! Events that wait a moment before they become rows: a connect for its name, a look-up for the connection that it was
//! made for. Such a look-up gets no row of its own.

use std::collections::VecDeque;
use std::sync::Arc;

use rustc_hash::FxHashSet;

use crate::connection::Connection;
use crate::event::{Address, Class, ConnectionId, Event, EventKind, Role};
use crate::process::ProcessId;
use crate::update::Renamed;

/// How long a connect waits for its name; a person does not notice it.
const NAME_NS: u64 = 50_000_000;
/// How long a look-up waits for its connection, and how much older than the look-up that may be: a poll finds both at
/// a time.
const USE_NS: u64 = 1_000_000_000;
/// Look-ups that one connection explains; a program that asks for more asks for something else.
const FOLDED_MAX: u32 = 4;
/// Bytes that a look-up of a name may send. Who sends more sends something else.
const SENT_MAX: u64 = 1024;
/// Events that wait; the oldest is shown before its time.
const WAITING_MAX: usize = 1024;
/// Look-ups without a row whose end is still to come, and connections that a look-up may belong to.
const NOTED_MAX: usize = 4096;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum For {
    Name,
    /// What a look-up is made for.
    Use(ProcessId),
}

#[derive(Debug)]
struct Waiting {
    event: Event,
    /// Its end has come too.
    close: Option<Event>,
    what: For,
    /// Boot clock.
    due_ns: u64,
}

/// A connection that look-ups may belong to.
#[derive(Debug)]
struct Recent {
    process: ProcessId,
    boot_ns: u64,
    /// Look-ups that it may explain.
    left: u32,
}

/// What waits. Each call adds to `out` what is to be shown now.
#[derive(Debug, Default)]
pub struct Held {
    waits_for_names: bool,
    waiting: VecDeque<Waiting>,
    folded: FxHashSet<ConnectionId>,
    recent: VecDeque<Recent>,
}

impl Held {
    /// `waits_for_names`: a person looks on.
    pub fn new(waits_for_names: bool) -> Self {
        Self { waits_for_names, ..Self::default() }
    }

    pub fn take(&mut self, event: &Event, out: &mut Vec<Event>) {
        self.passed(event.at.boot_ns, out);
        let connection = &*event.connection;
        match event.kind {
            EventKind::Close => return self.closed(event, out),
            EventKind::Accept | EventKind::Listen => return out.push(event.clone()),
            EventKind::Connect | EventKind::Fail => {}
        }
        let process = connection.process.as_ref().map(|process| process.id);
        if connection.class == Class::Dns {
            return match process.filter(|_| event.kind == EventKind::Connect && !connection.alert) {
                Some(process) => self.look_up(event, process, out),
                None => out.push(event.clone()),
            };
        }
        if let Some(process) = process {
            self.explain(process, event.at.boot_ns);
        }
        if self.waits_for_names && event.kind == EventKind::Connect && may_get_name(connection) {
            self.hold(event, For::Name, NAME_NS, out);
        } else {
            out.push(event.clone());
        }
    }

    /// A name became known.
    pub fn renamed(&mut self, renamed: &Renamed, out: &mut Vec<Event>) {
        let Renamed { at, connection, .. } = renamed;
        self.passed(at.boot_ns, out);
        if let Some(at) = self.place(connection.id) {
            let waiting = &mut self.waiting[at];
            waiting.event.connection = Arc::clone(connection);
            if waiting.what == For::Name {
                self.release(at, out);
            }
        }
    }

    /// Something is said of a connection: its event comes first.
    pub fn release_of(&mut self, id: ConnectionId, out: &mut Vec<Event>) {
        if let Some(at) = self.place(id) {
            self.release(at, out);
        }
    }

    /// Time has come this far; boot clock.
    pub fn passed(&mut self, now_ns: u64, out: &mut Vec<Event>) {
        let mut at = 0;
        while at < self.waiting.len() {
            if self.waiting[at].due_ns <= now_ns {
                self.release(at, out);
            } else {
                at += 1;
            }
        }
    }

    /// Nothing more will come.
    pub fn finish(&mut self, out: &mut Vec<Event>) {
        self.passed(u64::MAX, out);
    }

    /// Boot clock.
    pub fn next_due(&self) -> Option<u64> {
        self.waiting.iter().map(|waiting| waiting.due_ns).min()
    }

    fn place(&self, id: ConnectionId) -> Option<usize> {
        self.waiting.iter().position(|waiting| waiting.event.connection.id == id)
    }

    fn hold(&mut self, event: &Event, what: For, wait_ns: u64, out: &mut Vec<Event>) {
        if self.waiting.len() >= WAITING_MAX {
            self.release(0, out);
        }
        let due_ns = event.at.boot_ns.saturating_add(wait_ns);
        self.waiting.push_back(Waiting { event: event.clone(), close: None, what, due_ns });
    }

    fn release(&mut self, at: usize, out: &mut Vec<Event>) {
        if let Some(waiting) = self.waiting.remove(at) {
            out.push(waiting.event);
            out.extend(waiting.close);
        }
    }

    fn look_up(&mut self, event: &Event, process: ProcessId, out: &mut Vec<Event>) {
        let since = event.at.boot_ns.saturating_sub(USE_NS);
        let recent = self.recent.iter_mut().rev();
        let explains =
            |recent: &&mut Recent| recent.process == process && recent.boot_ns >= since && recent.left > 0;
        let explained = recent.take_while(|recent| recent.boot_ns >= since).find(explains);
        match explained {
            Some(recent) if self.folded.len() < NOTED_MAX => {
                recent.left -= 1;
                self.folded.insert(event.connection.id);
            }
            Some(_) | None => self.hold(event, For::Use(process), USE_NS, out),
        }
    }

    /// A connection of `process` began.
    fn explain(&mut self, process: ProcessId, boot_ns: u64) {
        let mut left = FOLDED_MAX;
        let mut at = 0;
        while left > 0 && at < self.waiting.len() && self.folded.len() < NOTED_MAX {
            let is_its = self.waiting[at].what == For::Use(process);
            match is_its.then(|| self.waiting.remove(at)).flatten() {
                Some(waiting) => {
                    left -= 1;
                    if waiting.close.is_none() {
                        self.folded.insert(waiting.event.connection.id);
                    }
                }
                None => at += 1,
            }
        }
        if self.recent.len() >= NOTED_MAX {
            self.recent.pop_front();
        }
        self.recent.push_back(Recent { process, boot_ns, left });
    }

    fn closed(&mut self, event: &Event, out: &mut Vec<Event>) {
        let connection = &*event.connection;
        let is_small = connection.bytes.is_none_or(|bytes| bytes.sent <= SENT_MAX) && !connection.alert;
        if let Some(at) = self.place(connection.id) {
            let waiting = &mut self.waiting[at];
            waiting.close = Some(event.clone());
            if waiting.what == For::Name {
                // What is known of it by now.
                let (name, class) = (connection.name.clone(), connection.class);
                waiting.event =
                    waiting.event.clone().with(|before| (before.name, before.class) = (name, class));
            }
            if waiting.what == For::Name || !is_small {
                self.release(at, out);
            }
            return;
        }
        let is_folded = self.folded.remove(&connection.id);
        if !is_folded || !is_small {
            out.push(event.clone());
        }
    }
}

/// One to another machine that has none.
fn may_get_name(connection: &Connection) -> bool {
    connection.role == Role::Connect
        && connection.name.is_none()
        && connection.class != Class::Localhost
        && matches!(connection.remote, Some(Address::Ip(_)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::{Bytes, DomainSource, KnownName, Moment, Protocol};
    use crate::process::Process;

    const DNS: &str = "10.0.0.53:53";
    const WEB: &str = "203.0.113.7:443";

    fn event(kind: EventKind, id: u64, pid: u32, remote: &str, ms: u64) -> Event {
        let at = Moment { boot_ns: ms * 1_000_000, unix_ms: 0 };
        let mut connection = Connection::new(ConnectionId(id), Role::Connect, Protocol::Tcp, at);
        connection.remote = Some(Address::ip(remote.parse().expect("an address")));
        connection.class = if remote == DNS { Class::Dns } else { Class::Unknown };
        connection.process = Some(Arc::new(Process::unknown(ProcessId { pid, start_time: 1 })));
        Event { kind, at, connection: Arc::new(connection) }
    }

    fn connect(id: u64, pid: u32, remote: &str, ms: u64) -> Event {
        event(EventKind::Connect, id, pid, remote, ms)
    }

    fn close(id: u64, remote: &str, ms: u64) -> Event {
        event(EventKind::Close, id, 1, remote, ms)
    }

    /// Numbers of the connections whose events are shown, after the last of `events` and `later` ms.
    fn shown(held: &mut Held, events: &[Event], later: u64) -> Vec<u64> {
        let mut out = Vec::new();
        for event in events {
            held.take(event, &mut out);
        }
        held.passed(later * 1_000_000, &mut out);
        out.iter().map(|event| event.connection.id.0).collect()
    }

    #[test]
    fn a_look_up_gets_no_row_if_its_connection_follows() {
        let mut held = Held::default();
        let events = [connect(1, 1, DNS, 0), close(1, DNS, 5), connect(2, 1, WEB, 9), close(2, WEB, 20)];
        assert_eq!(shown(&mut held, &events, 5_000), [2, 2]);
        let open = [connect(3, 1, DNS, 6_000), connect(4, 1, WEB, 6_010), close(3, DNS, 6_020)];
        assert_eq!(shown(&mut held, &open, 9_000), [4], "its end comes later");
        let same_poll = [connect(5, 1, WEB, 10_000), connect(6, 1, DNS, 10_000), close(6, DNS, 10_900)];
        assert_eq!(shown(&mut held, &same_poll, 12_000), [5], "a poll told of the connection first");
    }

    #[test]
    fn a_look_up_alone_is_shown() {
        let mut held = Held::default();
        let alone = [connect(1, 1, DNS, 0), close(1, DNS, 5), connect(2, 2, WEB, 9)];
        assert_eq!(shown(&mut held, &alone, 999), [2], "another process's connection explains nothing");
        assert_eq!(held.next_due(), Some(1_000_000_000));
        assert_eq!(shown(&mut held, &[], 1_000), [1, 1]);
    }

    #[test]
    fn look_ups_that_are_more_than_that_are_shown() {
        let mut held = Held::default();
        let many: Vec<Event> =
            (1..=6).map(|id| connect(id, 1, DNS, 0)).chain([connect(7, 1, WEB, 1)]).collect();
        assert_eq!(shown(&mut held, &many, 2_000), [7, 5, 6], "one connection explains four");
        let mut large = connect(8, 1, DNS, 3_000);
        let mut end = close(8, DNS, 3_010);
        large = large.with(|connection| {
            connection.process = Some(Arc::new(Process::unknown(ProcessId { pid: 9, start_time: 1 })));
        });
        end = end.with(|connection| connection.bytes = Some(Bytes { sent: 2_000, received: 0 }));
        assert_eq!(shown(&mut held, &[large, end], 3_011), [8, 8], "it sent more than a question");
        let marked = connect(10, 1, DNS, 4_000).with(|connection| connection.alert = true);
        assert_eq!(shown(&mut held, &[marked], 4_000), [10]);
    }

    #[test]
    fn a_connect_waits_for_its_name_but_not_long() {
        let mut held = Held::new(true);
        assert_eq!(shown(&mut held, &[connect(1, 1, WEB, 0)], 49), [0; 0]);
        assert_eq!(shown(&mut held, &[], 50), [1]);
        let mut out = Vec::new();
        let second = connect(2, 1, WEB, 100);
        held.take(&second, &mut out);
        let name = KnownName { name: "a.example".into(), by: DomainSource::Ptr };
        let named = second.with(|connection| connection.name = Some(name.clone()));
        let renamed = Renamed { at: named.at, connection: named.connection, before: None };
        held.renamed(&renamed, &mut out);
        assert_eq!(out.iter().map(|event| event.connection.name.clone()).collect::<Vec<_>>(), [Some(name)]);
        let ended = [connect(3, 1, WEB, 200), close(3, WEB, 210)];
        assert_eq!(shown(&mut held, &ended, 210), [3, 3], "its end shows it");
        assert_eq!(shown(&mut Held::default(), &[connect(4, 1, WEB, 300)], 300), [4], "nobody looks on");
    }
}
