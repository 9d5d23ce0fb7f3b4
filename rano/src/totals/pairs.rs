//! Connections that stay on the machine, both ends of which may be watched: an agent that talks to a proxy of its own.

use std::net::{IpAddr, SocketAddr};

use crate::bounded::FastBounded;
use crate::connection::Connection;
use crate::event::{Address, EventKind, Role};

/// Connections whose other end may still be told of; the oldest is forgotten, and then counts by itself.
const ENDS_MAX: usize = 4096;

/// Network namespace, the end that reached out, and the other.
type Tuple = (u32, SocketAddr, SocketAddr);

/// Which way a connection's bytes went.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Path {
    /// To another machine.
    Away,
    Within,
    /// It is the accepting end of a connection that counts already.
    Twin,
}

/// The ends that reached out, of connections within the machine.
#[derive(Debug, Clone)]
pub(super) struct Pairs {
    ends: FastBounded<Tuple, ()>,
}

impl Default for Pairs {
    fn default() -> Self {
        Self { ends: FastBounded::new(ENDS_MAX) }
    }
}

impl Pairs {
    pub(super) fn note(&mut self, kind: EventKind, connection: &Connection) {
        if kind == EventKind::Connect
            && connection.role == Role::Connect
            && stays(connection)
            && let Some((local, remote)) = tuple(connection)
        {
            self.ends.insert((connection.netns, local, remote), ());
        }
    }

    /// Of a connection, as far as is known: its other end may yet be told of.
    pub(super) fn path(&mut self, connection: &Connection) -> Path {
        if !stays(connection) {
            return Path::Away;
        }
        let is_twin = connection.role == Role::Accept
            && tuple(connection)
                .is_some_and(|(local, remote)| self.ends.contains(&(connection.netns, remote, local)));
        if is_twin { Path::Twin } else { Path::Within }
    }
}

fn tuple(connection: &Connection) -> Option<(SocketAddr, SocketAddr)> {
    match (&connection.local, &connection.remote) {
        (Some(Address::Ip(local)), Some(Address::Ip(remote))) => Some((*local, *remote)),
        _ => None,
    }
}

/// Whether it does not leave the machine. Of a socket that is bound to no address, the other end says so.
fn stays(connection: &Connection) -> bool {
    let Some(remote) = connection.remote_ip() else { return false };
    let local = connection.local.as_ref().and_then(Address::ip_addr);
    let is_host = |ip: IpAddr| ip.is_loopback() || ip.is_unspecified();
    is_host(remote.to_canonical()) || local == Some(remote)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::connection::End;
    use crate::event::{Bytes, ConnectionId, Moment, Protocol};
    use crate::totals::{Summed, Totals};

    fn connection(
        role: Role,
        local: &str,
        remote: &str,
        netns: u32,
        (sent, received): (u64, u64),
    ) -> Connection {
        let mut connection = Connection::new(ConnectionId(1), role, Protocol::Tcp, Moment::default());
        let address = |text: &str| Some(Address::ip(text.parse().expect("an address")));
        (connection.local, connection.remote, connection.netns) = (address(local), address(remote), netns);
        connection.bytes = Some(Bytes { sent, received });
        let at = Moment::default();
        connection.ended = Some(End { at, duration: None, error: None, is_late: false, has_failed: false });
        connection
    }

    #[test]
    fn what_stays_on_the_machine_is_summed_apart_and_once() {
        let away = connection(Role::Connect, "10.0.0.1:9", "203.0.113.7:443", 1, (1000, 1));
        let client = connection(Role::Connect, "127.0.0.1:9", "127.0.0.1:80", 1, (7, 30));
        let server = connection(Role::Accept, "127.0.0.1:80", "127.0.0.1:9", 1, (30, 7));
        let elsewhere = connection(Role::Accept, "127.0.0.1:80", "127.0.0.1:9", 2, (100, 0));
        let own = connection(Role::Connect, "10.0.0.1:8", "10.0.0.1:80", 1, (500, 0));
        let mut ping = connection(Role::Connect, "0.0.0.0:1", "127.0.0.1:1", 1, (0, 4));
        (ping.local, ping.remote) = (None, Some(Address::Host(IpAddr::from([127, 0, 0, 1]))));
        for ends in [[&client, &server], [&server, &client]] {
            let mut totals = Totals::default();
            for connection in [&away, &client, &elsewhere, &own] {
                let kind =
                    if connection.role == Role::Accept { EventKind::Accept } else { EventKind::Connect };
                totals.count(kind, connection);
            }
            totals.count(EventKind::Accept, &server);
            for connection in [&ping, &away, &elsewhere, &own].into_iter().chain(ends) {
                totals.count(EventKind::Close, connection);
                totals.sum(connection, &mut Summed::default());
            }
            assert_eq!(totals.bytes, Bytes { sent: 1000, received: 1 });
            assert_eq!(totals.loopback, Bytes { sent: 607, received: 34 });
        }
    }
}
