//! Connections that only their end revealed: nobody's, so they are in no other sum.

use crate::connection::Connection;
use crate::event::{Address, Bytes, Protocol};

/// The port of resolvers.
const DOMAIN: u16 = 53;

/// What they were.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Strays {
    /// To port 53.
    pub look_ups: u64,
    /// Established.
    pub tcp: u64,
    /// Datagram sockets that led elsewhere.
    pub udp: u64,
    pub failed: u64,
    /// What they carried, as far as the kernel counts it.
    pub bytes: Bytes,
    /// The one that carried most: where it led, and what it carried.
    pub largest: Option<(Address, Bytes)>,
}

impl Strays {
    pub fn count(&mut self, connection: &Connection) {
        let to_resolver = matches!(&connection.remote, Some(Address::Ip(remote)) if remote.port() == DOMAIN);
        let has_failed = connection.ended.is_some_and(|end| end.has_failed);
        match connection.protocol {
            _ if has_failed => self.failed += 1,
            _ if to_resolver => self.look_ups += 1,
            Protocol::Tcp => self.tcp += 1,
            _ => self.udp += 1,
        }
        let Some(bytes) = connection.bytes else { return };
        self.bytes.sent = self.bytes.sent.saturating_add(bytes.sent);
        self.bytes.received = self.bytes.received.saturating_add(bytes.received);
        let size = |bytes: Bytes| bytes.sent.saturating_add(bytes.received);
        if size(bytes) > self.largest.as_ref().map_or(0, |(_, most)| size(*most))
            && let Some(remote) = &connection.remote
        {
            self.largest = Some((remote.clone(), bytes));
        }
    }

    pub fn total(&self) -> u64 {
        self.look_ups + self.tcp + self.udp + self.failed
    }
}
