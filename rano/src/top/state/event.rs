//! A stored event with names for its columns. Texts are shared: they repeat.

use std::io;
use std::sync::Arc;

use rustc_hash::FxHashSet;

use crate::event::{Class, EventKind, with_port};
use crate::store::query::export::{Cell, Field, RowWriter};

pub type Text = Arc<str>;

/// Texts that are kept to be shared, at most.
const TEXTS_MAX: usize = 50_000;

/// Times are Unix milliseconds; absent is what is not known.
#[derive(Debug, Clone, Default)]
pub struct StoredEvent {
    pub id: i64,
    pub at: i64,
    pub kind: Option<EventKind>,
    pub provider: Text,
    pub pid: Option<i64>,
    pub ppid: Option<i64>,
    pub uid: Option<i64>,
    pub comm: Text,
    pub program: Option<Text>,
    pub cmdline: Option<Text>,
    pub exe: Option<Text>,
    pub cwd: Option<Text>,
    pub ancestry: Option<Text>,
    pub protocol: Text,
    pub local: (Option<Text>, Option<i64>),
    pub remote: (Option<Text>, Option<i64>),
    pub domain: Option<Text>,
    pub domain_source: Option<Text>,
    pub class: Option<Class>,
    pub duration: Option<i64>,
    pub sent: Option<i64>,
    pub received: Option<i64>,
    pub error: Option<Text>,
    pub state: Option<Text>,
    pub source: Option<Text>,
    pub quality: Option<Text>,
    pub preexisting: bool,
    pub alert: bool,
    pub netns: Option<i64>,
    pub agent: Option<Text>,
    pub agent_pid: Option<i64>,
    pub agent_session: Option<Text>,
    pub tool: Option<Text>,
    pub tool_pid: Option<i64>,
    pub tool_started: Option<i64>,
    /// A proxy that was asked for `domain` and this port.
    pub via: Option<Text>,
    pub domain_port: Option<i64>,
    pub relay_for: Option<i64>,
}

/// What an end has in common with its beginning.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Key {
    pid: Option<i64>,
    protocol: Text,
    local: (Option<Text>, Option<i64>),
    remote: (Option<Text>, Option<i64>),
}

impl StoredEvent {
    pub fn key(&self) -> Key {
        Key {
            pid: self.pid,
            protocol: Arc::clone(&self.protocol),
            local: self.local.clone(),
            remote: self.remote.clone(),
        }
    }

    /// What runs, by the name that people know.
    pub fn process_name(&self) -> &Text {
        self.program.as_ref().unwrap_or(&self.comm)
    }

    /// The name is a guess: a reverse look-up, or another process's question.
    pub fn is_guess(&self) -> bool {
        matches!(self.domain_source.as_deref(), Some("ptr" | "shared_dns"))
    }

    pub fn bytes(&self) -> (u64, u64) {
        let count = |bytes: Option<i64>| bytes.and_then(|bytes| u64::try_from(bytes).ok()).unwrap_or(0);
        (count(self.sent), count(self.received))
    }

    /// Name, else address, with port. The mark `~` says that the name is a guess.
    pub fn endpoint(&self) -> String {
        let (address, port) = &self.remote;
        match (&self.domain, address) {
            (Some(name), _) => {
                let mark = if self.is_guess() { "~" } else { "" };
                format!("{mark}{}", with_port(name, self.domain_port.or(*port)))
            }
            (None, Some(address)) => with_port(address, *port),
            // A unix socket's path, or a socket that no peer is known of.
            (None, None) if &*self.protocol == "unix" => self.local.0.as_deref().unwrap_or("?").to_owned(),
            (None, None) => {
                format!("(from {})", with_port(self.local.0.as_deref().unwrap_or("?"), self.local.1))
            }
        }
    }
}

/// Makes events of exported rows.
#[derive(Debug, Default)]
pub struct Collector {
    pub events: Vec<StoredEvent>,
    next: StoredEvent,
    texts: FxHashSet<Text>,
}

impl Collector {
    fn text(&mut self, text: &str) -> Text {
        if let Some(known) = self.texts.get(text) {
            return Arc::clone(known);
        }
        if self.texts.len() >= TEXTS_MAX {
            self.texts.clear();
        }
        let shared: Text = text.into();
        self.texts.insert(Arc::clone(&shared));
        shared
    }
}

impl RowWriter for Collector {
    fn cell(&mut self, field: &Field, cell: Cell<'_>) -> io::Result<()> {
        let (text, number) = match cell {
            Cell::Null => return Ok(()),
            Cell::Text(text) => (Some(self.text(text)), None),
            Cell::Integer(number) | Cell::Time(number) => (None, Some(number)),
            Cell::Truth(truth) => (None, Some(i64::from(truth))),
        };
        let next = &mut self.next;
        match field.name {
            "id" => next.id = number.unwrap_or(0),
            "ts" => next.at = number.unwrap_or(0),
            "event" => next.kind = text.and_then(|word| kind(&word)),
            "provider" => next.provider = text.unwrap_or_default(),
            "pid" => next.pid = number,
            "ppid" => next.ppid = number,
            "uid" => next.uid = number,
            "comm" => next.comm = text.unwrap_or_default(),
            "program" => next.program = text,
            "cmdline" => next.cmdline = text,
            "exe" => next.exe = text,
            "cwd" => next.cwd = text,
            "ancestry_path" => next.ancestry = text,
            "proto" => next.protocol = text.unwrap_or_default(),
            "local_ip" => next.local.0 = text,
            "local_port" => next.local.1 = number,
            "remote_ip" => next.remote.0 = text,
            "remote_port" => next.remote.1 = number,
            "domain" => next.domain = text,
            "domain_source" => next.domain_source = text,
            "endpoint_type" => next.class = text.and_then(|word| Class::parse(&word)),
            "duration_ms" => next.duration = number,
            "bytes_sent" => next.sent = number,
            "bytes_recv" => next.received = number,
            "error" => next.error = text,
            "state" => next.state = text,
            "source" => next.source = text,
            "owner_quality" => next.quality = text,
            "preexisting" => next.preexisting = number == Some(1),
            "alert" => next.alert = number == Some(1),
            "netns" => next.netns = number,
            "agent" => next.agent = text,
            "agent_pid" => next.agent_pid = number,
            "agent_session" => next.agent_session = text,
            "tool" => next.tool = text,
            "tool_pid" => next.tool_pid = number,
            "tool_started" => next.tool_started = number,
            "via" => next.via = text,
            "domain_port" => next.domain_port = number,
            "relay_for" => next.relay_for = number,
            // Not shown here: the run is the same for all, and later columns need a place first.
            _ => {}
        }
        Ok(())
    }

    fn end_row(&mut self) -> io::Result<()> {
        self.events.push(std::mem::take(&mut self.next));
        Ok(())
    }
}

fn kind(word: &str) -> Option<EventKind> {
    use EventKind::{Accept, Close, Connect, Fail, Listen};
    [Connect, Close, Fail, Accept, Listen].into_iter().find(|kind| kind.name() == word)
}
