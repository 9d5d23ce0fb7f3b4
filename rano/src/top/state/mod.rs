//! What the view knows and shows, without a terminal: made from what the history says, changed by keys, drawn by
//! `draw`. It has no clock of its own.

pub mod connections;
pub mod cursor;
pub mod endpoints;
pub mod event;
pub mod recent;
pub mod rule;
pub mod sums;
pub mod tree;

use std::cmp::Reverse;
use std::collections::VecDeque;

use crate::attention::Cause;
use crate::event::{Class, EventKind};
use crate::filter::Filter;
use crate::store::query::connections::Standing;
use crate::store::query::report::Counts;
use crate::store::query::sessions::StoredSession;
use connections::{Connection, Connections};
use cursor::Cursor;
use endpoints::{Earlier, Endpoint, EndpointBy, EndpointKey, EndpointOrder, endpoints};
use event::StoredEvent;
use recent::Recent;
use tree::{NodeId, Tree, TreeBy, TreeLine, TreeOrder};

/// Events that can be scrolled back to.
const EVENTS_MAX: usize = 1000;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum View {
    #[default]
    Tree,
    Endpoints,
    Connections,
    Alerts,
}

impl View {
    pub const ALL: [Self; 4] = [Self::Tree, Self::Endpoints, Self::Connections, Self::Alerts];

    pub const fn title(self) -> &'static str {
        match self {
            Self::Tree => "Tree",
            Self::Endpoints => "Endpoints",
            Self::Connections => "Connections",
            Self::Alerts => "Alerts",
        }
    }
}

/// What the keys move in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Focus {
    #[default]
    Main,
    /// Endpoints beside the tree.
    Beside,
    Events,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ConnectionOrder {
    Latest,
    Sent,
    Received,
    Duration,
    Process,
    Endpoint,
    State,
}

impl ConnectionOrder {
    pub const ALL: [Self; 7] = [
        Self::Latest,
        Self::Sent,
        Self::Received,
        Self::Duration,
        Self::Process,
        Self::Endpoint,
        Self::State,
    ];

    pub const fn word(self) -> &'static str {
        match self {
            Self::Latest => "latest",
            Self::Sent => "sent",
            Self::Received => "received",
            Self::Duration => "duration",
            Self::Process => "process",
            Self::Endpoint => "endpoint",
            Self::State => "state",
        }
    }
}

/// The session that is shown, as it stands.
#[derive(Debug, Clone)]
pub struct Session {
    pub stored: StoredSession,
    pub counts: Counts,
    pub is_running: bool,
}

/// News of the history.
#[derive(Debug, Default)]
pub struct Batch {
    /// What was known before is void.
    pub reset: bool,
    pub events: Vec<StoredEvent>,
    /// Events that were told before, as they are now.
    pub again: Vec<StoredEvent>,
    pub session: Option<Session>,
    /// With a reset: what earlier sessions talked to.
    pub earlier: Option<Earlier>,
    /// Earlier events of the session are not among those told.
    pub is_cut: bool,
    /// Why there are no news.
    pub trouble: Option<String>,
}

/// A line that is typed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Input {
    pub purpose: Purpose,
    pub text: String,
    /// What is wrong with it.
    pub error: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
    Filter,
    Export,
    Report,
}

/// What covers the view.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Popup {
    Help,
    /// Of a connection, by id.
    Detail(i64),
    /// Something to be copied.
    Rule(String),
}

/// Something that deserves a look.
#[derive(Debug, Clone, PartialEq)]
pub struct Finding {
    pub kind: &'static str,
    pub at: i64,
    pub class: Class,
    pub what: String,
    pub who: String,
    pub id: FindingId,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FindingId {
    Connection(i64),
    Endpoint(&'static str, EndpointKey),
}

#[derive(Debug, Default)]
pub struct State {
    /// Unix milliseconds; of a session that ended, its end.
    pub now: i64,
    pub session: Option<Session>,
    pub connections: Connections,
    pub tree: Tree,
    pub earlier: Earlier,
    pub is_cut: bool,
    pub trouble: Option<String>,
    /// The latest events, numbered from `events_before` on.
    pub events: VecDeque<StoredEvent>,
    pub events_before: u64,
    /// The number of the event at the bottom, where it does not follow.
    pub held_at: Option<u64>,

    pub view: View,
    pub focus: Focus,
    pub tree_by: TreeBy,
    pub endpoint_by: EndpointBy,
    /// Places in the lists of orders, by view.
    pub orders: [usize; 4],
    pub is_reversed: [bool; 4],
    pub only_new: bool,
    pub is_paused: bool,
    pub filter: Option<Filter>,
    /// The endpoint that the list of connections is narrowed to.
    pub scope: Option<EndpointKey>,
    pub input: Option<Input>,
    pub popup: Option<Popup>,
    pub popup_offset: usize,
    pub message: Option<String>,

    pub tree_lines: Vec<TreeLine>,
    pub endpoints: Vec<Endpoint>,
    /// Indices of rows.
    pub listed: Vec<usize>,
    pub findings: Vec<Finding>,
    pub recent: Recent,
    pub tree_cursor: Cursor<NodeId>,
    pub endpoint_cursor: Cursor<EndpointKey>,
    pub connection_cursor: Cursor<i64>,
    pub finding_cursor: Cursor<FindingId>,
}

impl State {
    /// Takes in what is new; `clock`: Unix milliseconds.
    pub fn apply(&mut self, batch: Batch, clock: i64) {
        if batch.reset {
            self.connections = Connections::default();
            self.events.clear();
            (self.events_before, self.held_at) = (0, None);
        }
        self.trouble = batch.trouble;
        if batch.session.is_some() {
            self.session = batch.session;
        }
        if let Some(earlier) = batch.earlier {
            self.earlier = earlier;
        }
        self.is_cut |= batch.is_cut;
        self.tick(clock);
        for event in batch.events {
            self.events.push_back(event.clone());
            if self.events.len() > EVENTS_MAX {
                self.events.pop_front();
                self.events_before += 1;
            }
            self.connections.apply(event);
        }
        for event in batch.again {
            if let Some(known) = self.events.iter_mut().rev().find(|known| known.id == event.id) {
                known.clone_from(&event);
            }
            self.connections.refresh(event, self.now);
        }
        self.refresh();
    }

    /// Time goes on while the session does.
    pub fn tick(&mut self, clock: i64) {
        self.now = match &self.session {
            Some(Session { stored, is_running: false, .. }) => stored.end().unwrap_or(stored.started_at),
            Some(_) | None => clock,
        };
    }

    /// Makes what is shown anew, after what it is made of has changed.
    pub fn refresh(&mut self) {
        let now = self.now;
        self.recent = Recent::default();
        for row in self.connections.rows() {
            self.recent.merge(&row.recent, now);
        }
        let all = endpoints(self.connections.rows().iter(), EndpointBy::Name, &self.earlier, now);
        self.findings = findings(self.connections.rows(), &all);
        let rows: Vec<&Connection> =
            self.connections.rows().iter().filter(|row| !self.only_new || self.is_new(row)).collect();
        self.tree.fill(rows.iter().copied(), self.tree_by, now);
        self.tree_lines = self.tree.lines(self.tree_order(), self.is_reversed[0], now);

        let selected = self.tree_cursor.selected;
        // The node that is selected narrows what stands beside it, and the list of connections.
        let is_within = |row: &&Connection| selected.is_none_or(|node| self.tree.contains(node, &row.event));
        let within: Vec<&Connection> = rows.iter().copied().filter(is_within).collect();
        let shown = if self.view == View::Endpoints { &rows } else { &within };
        let (by, order) = (self.endpoint_by, self.endpoint_order());
        self.endpoints = endpoints(shown.iter().copied(), by, &self.earlier, now);
        endpoints::sort(&mut self.endpoints, order, self.is_reversed[1], now);

        let mut listed: Vec<usize> = (0..self.connections.rows().len())
            .filter(|index| {
                let row = &self.connections.rows()[*index];
                (!self.only_new || self.is_new(row))
                    && self.scope.as_ref().is_none_or(|scope| endpoints::key(row, by) == *scope)
                    && is_within(&row)
            })
            .collect();
        sort(&mut listed, self.connections.rows(), self.connection_order(), now);
        if self.is_reversed[2] {
            listed.reverse();
        }
        self.listed = listed;
    }

    fn is_new(&self, row: &Connection) -> bool {
        let name = row.event.domain.as_ref().or(row.event.remote.0.as_ref());
        name.is_some_and(|name| self.earlier.is_new(name))
    }

    /// Of the list in front.
    pub fn order_index(&self) -> usize {
        if self.view == View::Tree && self.focus == Focus::Beside { 1 } else { self.view as usize }
    }

    pub fn tree_order(&self) -> TreeOrder {
        TreeOrder::ALL[self.orders[0] % TreeOrder::ALL.len()]
    }

    pub fn endpoint_order(&self) -> EndpointOrder {
        EndpointOrder::ALL[self.orders[1] % EndpointOrder::ALL.len()]
    }

    pub fn connection_order(&self) -> ConnectionOrder {
        ConnectionOrder::ALL[self.orders[2] % ConnectionOrder::ALL.len()]
    }

    /// What the list in front is sorted by.
    pub fn order_word(&self) -> &'static str {
        match self.order_index() {
            0 => self.tree_order().word(),
            1 => self.endpoint_order().word(),
            2 => self.connection_order().word(),
            _ => "time",
        }
    }

    pub fn next_order(&mut self) {
        self.orders[self.order_index()] += 1;
        self.is_reversed[self.order_index()] = false;
    }

    pub fn reverse_order(&mut self) {
        let index = self.order_index();
        self.is_reversed[index] ^= true;
    }

    /// The connections that are listed, by id.
    pub fn listed_ids(&self) -> Vec<i64> {
        self.listed.iter().map(|index| self.connections.rows()[*index].id).collect()
    }

    /// Ids of the latest event of each connection that is shown, for an export.
    pub fn shown_events(&self) -> Vec<i64> {
        self.listed.iter().map(|index| self.connections.rows()[*index].event.id).collect()
    }

    /// Of the connections that are shown: how many, and why not all.
    pub fn is_partial(&self) -> bool {
        self.is_cut || self.connections.left_out > 0
    }

    /// The number behind the last event.
    pub fn events_end(&self) -> u64 {
        self.events_before + self.events.len() as u64
    }
}

fn sort(listed: &mut [usize], rows: &[Connection], order: ConnectionOrder, now: i64) {
    let row = |index: &usize| &rows[*index];
    match order {
        ConnectionOrder::Latest => listed.sort_by_key(|index| Reverse((row(index).opened_at, *index))),
        ConnectionOrder::Sent => listed.sort_by_key(|index| Reverse(row(index).event.bytes().0)),
        ConnectionOrder::Received => listed.sort_by_key(|index| Reverse(row(index).event.bytes().1)),
        ConnectionOrder::Duration => listed.sort_by_key(|index| Reverse(row(index).duration(now))),
        ConnectionOrder::Process => {
            listed.sort_by_key(|index| (row(index).event.process_name().clone(), row(index).event.pid));
        }
        ConnectionOrder::Endpoint => listed.sort_by_cached_key(|index| row(index).event.endpoint()),
        ConnectionOrder::State => listed.sort_by_key(|index| match row(index).standing {
            Standing::Open => 0,
            Standing::Failed => 1,
            Standing::Listening => 2,
            Standing::Closed => 3,
        }),
    }
}

/// Alerts, then endpoints with large uploads, unknown ones, and those that never connected; each the latest first.
fn findings(rows: &[Connection], endpoints: &[Endpoint]) -> Vec<Finding> {
    let mut found: Vec<Finding> = rows
        .iter()
        .rev()
        .filter(|row| row.alert)
        .map(|row| Finding {
            kind: "alert",
            at: row.event.at,
            class: row.event.class.unwrap_or(Class::Unknown),
            what: row.event.endpoint(),
            who: process(&row.event),
            id: FindingId::Connection(row.id),
        })
        .collect();
    let mut of = |kind: &'static str, wanted: &dyn Fn(&Endpoint) -> bool| {
        let mut some: Vec<&Endpoint> = endpoints.iter().filter(|endpoint| wanted(endpoint)).collect();
        some.sort_by_key(|endpoint| Reverse(endpoint.sums.last_at));
        found.extend(some.into_iter().map(|endpoint| Finding {
            kind,
            at: endpoint.sums.last_at,
            class: endpoint.key.class,
            what: endpoint.label(),
            who: endpoint.last_by.to_string(),
            id: FindingId::Endpoint(kind, endpoint.key.clone()),
        }));
    };
    for cause in [Cause::Sent, Cause::Unknown, Cause::Failing] {
        of(cause.name(), &|endpoint| endpoint.causes().contains(&cause));
    }
    found
}

/// `curl (2311)`.
pub fn process(event: &StoredEvent) -> String {
    match event.pid {
        Some(pid) => format!("{} ({pid})", event.process_name()),
        None => event.process_name().to_string(),
    }
}

/// The sign and the word of an event, as in lines.
pub const fn event_sign(kind: EventKind) -> (&'static str, &'static str) {
    let sign = match kind {
        EventKind::Connect => "+",
        EventKind::Close => "-",
        EventKind::Fail => "!",
        EventKind::Accept => "<",
        EventKind::Listen => "~",
    };
    (sign, kind.name())
}
