//! A request to a proxy and the proxy's own connection for it are one: both are shown, and the second is linked to the
//! process that asked, and no second request in sums. Nothing but host, port and time says which belong together, so
//! that it does not matter what lies between them: sockets of any kind, other programs, network namespaces.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use rustc_hash::FxHashSet;

use crate::bounded::FastBounded;
use crate::connection::Connection;
use crate::event::{Address, Moment};
use crate::process::{Process, ProcessId};

/// How long after the request a proxy connects.
const PATIENCE: Duration = Duration::from_secs(2);
/// Connections and packets are stamped one after the other.
const SLACK: Duration = Duration::from_millis(5);
/// Requests whose relay is awaited; the oldest makes room, and its relay then counts by itself.
const REQUESTS_MAX: usize = 1024;
/// Processes that have accepted a connection.
const SERVERS_MAX: usize = 1024;

/// What a process asked a proxy for.
#[derive(Debug)]
struct Request {
    at_ns: u64,
    host: Arc<str>,
    port: u16,
    /// The proxy, in its network namespace.
    via: (u32, SocketAddr),
    by: ProcessId,
    tree: Option<ProcessId>,
    /// The proxy has connected.
    is_served: bool,
}

/// The requests of a moment ago.
#[derive(Debug)]
pub(super) struct Relays {
    requests: VecDeque<Request>,
    /// Start times by pid: what they fork serves too, and has only the parent's pid.
    servers: FastBounded<u32, u64>,
    /// Requests that made room before their time was over.
    pub(super) pushed_out: u64,
}

impl Default for Relays {
    fn default() -> Self {
        Self { requests: VecDeque::new(), servers: FastBounded::new(SERVERS_MAX), pushed_out: 0 }
    }
}

impl Relays {
    /// A process accepted a connection.
    pub(super) fn accepted(&mut self, by: ProcessId) {
        if self.servers.get(&by.pid) != Some(&by.start_time) {
            self.servers.insert(by.pid, by.start_time);
        }
    }

    /// Whom a connection that is established relays for, by what is known of it now. One that asks a proxy is
    /// remembered.
    pub(super) fn asked_by(&mut self, connection: &Connection, at: Moment) -> Option<u32> {
        let process = connection.process.as_deref()?;
        self.expire(at);
        match (connection.via(), &connection.name, connection.domain_port) {
            (Some(proxy), Some(known), Some(port)) => {
                let via = (connection.netns, proxy);
                let host = &known.name;
                let asker = self.requests.iter().find(|request| {
                    let is_same = request.host == *host && request.port == port;
                    is_same && request.via != via && self.may_relay(process, connection.tree, request)
                });
                if let Some(asker) = asker {
                    return Some(asker.by.pid);
                }
                if self.requests.len() >= REQUESTS_MAX {
                    self.requests.pop_front();
                    self.pushed_out += 1;
                }
                let (at_ns, host) = (at.boot_ns, Arc::clone(host));
                let (by, tree) = (process.id, connection.tree);
                self.requests.push_back(Request { at_ns, host, port, via, by, tree, is_served: false });
                None
            }
            _ => self.served_by(connection, process),
        }
    }

    fn served_by(&mut self, connection: &Connection, process: &Process) -> Option<u32> {
        let Some(Address::Ip(remote)) = &connection.remote else { return None };
        if self.requests.is_empty() {
            return None;
        }
        let names: FxHashSet<&str> = connection
            .name
            .iter()
            .chain(&connection.others)
            .filter(|known| !known.by.is_guess())
            .map(|known| &*known.name)
            .collect();
        let ip = remote.ip().to_string();
        let since_ns = connection.since.boot_ns;
        let place = self.requests.iter().position(|request| {
            let is_in_time = request.at_ns.saturating_sub(nanos(SLACK)) <= since_ns
                && since_ns <= request.at_ns.saturating_add(nanos(PATIENCE));
            let is_there = request.port == remote.port()
                && (names.contains(&*request.host) || *request.host == *ip)
                && request.via != (connection.netns, *remote);
            !request.is_served && is_in_time && is_there && self.may_relay(process, connection.tree, request)
        })?;
        let request = &mut self.requests[place];
        request.is_served = true;
        Some(request.by.pid)
    }

    /// A proxy accepts connections, or was forked by a process that does, or it ran in its client's tree before the
    /// client did. Another client that wants the same does not.
    fn may_relay(&self, process: &Process, tree: Option<ProcessId>, request: &Request) -> bool {
        if process.id == request.by {
            return false;
        }
        let is_older = process.id.start_time < request.by.start_time || is_forked(process);
        let started = process.id.start_time;
        let serves = self.servers.get(&process.id.pid) == Some(&started)
            || self.servers.get(&process.ppid).is_some_and(|parents| *parents <= started);
        serves || is_older && tree.is_some() && tree == request.tree
    }

    fn expire(&mut self, now: Moment) {
        let oldest_ns = now.boot_ns.saturating_sub(nanos(PATIENCE + PATIENCE));
        while self.requests.front().is_some_and(|request| request.at_ns < oldest_ns) {
            self.requests.pop_front();
        }
    }
}

/// It runs its parent's program.
fn is_forked(process: &Process) -> bool {
    let parent = process.ancestry.len().checked_sub(2).and_then(|at| process.ancestry.get(at));
    parent.is_some_and(|parent| parent.pid == process.ppid && *parent.comm == *process.comm)
}

fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}
