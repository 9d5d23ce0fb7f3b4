//! What happens to connections. An event is neither the kernel ABI, nor a row, nor JSON: each sink makes its own shape
//! of it.

use std::sync::Arc;

use crate::connection::Connection;

pub use crate::moment::Moment;
pub use crate::words::{
    Address, Bytes, Class, ConnectionId, DomainSource, EventKind, KnownName, OwnerQuality, Protocol, Role,
    SocketState, Source, SourceKind,
};
#[cfg(feature = "cli")]
pub use crate::words::{host_text, with_port};

/// An understood event, with its connection as it stood then.
#[derive(Debug, Clone)]
pub struct Event {
    pub kind: EventKind,
    pub at: Moment,
    pub connection: Arc<Connection>,
}

impl Event {
    /// The same event of a connection that differs.
    #[must_use]
    pub fn with(mut self, change: impl FnOnce(&mut Connection)) -> Self {
        change(Arc::make_mut(&mut self.connection));
        self
    }
}
