//! What some connections come to.

use super::connections::Connection;
use super::recent::Recent;
use crate::store::query::connections::Standing;

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Sums {
    pub open: u64,
    pub total: u64,
    pub fails: u64,
    pub alerts: u64,
    pub sent: u64,
    pub received: u64,
    /// Somebody counted the bytes.
    pub has_bytes: bool,
    pub recent: Recent,
    /// Unix milliseconds.
    pub first_at: i64,
    pub last_at: i64,
}

impl Sums {
    pub fn add(&mut self, row: &Connection, now: i64) {
        let (sent, received) = row.event.bytes();
        self.first_at = if self.total == 0 { row.opened_at } else { self.first_at.min(row.opened_at) };
        self.last_at = self.last_at.max(row.event.at);
        self.total += 1;
        self.open += u64::from(row.is_open());
        self.fails += u64::from(row.standing == Standing::Failed);
        self.alerts += u64::from(row.alert);
        self.has_bytes |= row.event.sent.is_some() || row.event.received.is_some();
        self.sent = self.sent.saturating_add(sent);
        self.received = self.received.saturating_add(received);
        self.recent.merge(&row.recent, now);
    }
}
