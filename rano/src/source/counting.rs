//! What TCP connections that are still open have sent and received, as the kernel counts it. Only rano's own network
//! namespace can be asked.

use std::net::SocketAddr;

use rustc_hash::FxHashMap;

use super::proc::inet::{InetSocket, States, TcpState};
use super::proc::sock_diag::{DiagError, Dumper, Info};
use super::{Open, SocketId};
use crate::words::Bytes;

/// Up to so many connections each is asked for by itself, beyond that all sockets are listed. A question takes 8 µs; a
/// list 4.6 µs a socket and as much as 2.5 ms for its hash table (Linux 6.18, 262,144 buckets, `measure_counting`).
pub(super) const QUESTIONS_MAX: usize = 512;

/// How a socket is recognised.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum By {
    Cookie,
    /// By its two ends: the source has numbers of its own for sockets.
    Ends,
}

/// Passes on what is known of the `open` connections in the network namespace `own`, which is that of `dumper`.
pub(super) fn tcp(
    dumper: &mut Dumper,
    own: u32,
    open: impl Iterator<Item = Open>,
    by: By,
    questions_max: usize,
    mut tell: impl FnMut(SocketId, Bytes),
) -> Result<(), DiagError> {
    let is_here = |open: &Open| matches!(open.id, SocketId::Cookie { netns, .. } if netns == own);
    let mut wanted: Vec<Open> = open.filter(|open| is_here(open) && !open.is_pending).collect();
    if wanted.len() <= questions_max {
        let mut missing = Vec::new();
        for open in wanted {
            match ask(dumper, &open, by)? {
                Some(bytes) => tell(open.id, bytes),
                None => missing.push(open),
            }
        }
        // Bound to a device, or closed a moment ago.
        wanted = missing;
    }
    if wanted.is_empty() {
        return Ok(());
    }
    let by_cookie: FxHashMap<u64, SocketId> =
        wanted.iter().filter_map(|open| Some((cookie(open.id)?, open.id))).collect();
    let by_ends: FxHashMap<(SocketAddr, SocketAddr), SocketId> = match by {
        By::Cookie => FxHashMap::default(),
        By::Ends => wanted.iter().filter_map(|open| Some((open.ends?, open.id))).collect(),
    };
    dumper.tcp(States::CONNECTIONS, Info::With, |socket| {
        let id = match by {
            By::Cookie => socket.cookie.and_then(|cookie| by_cookie.get(&cookie)),
            By::Ends => socket.remote.and_then(|remote| by_ends.get(&(socket.local, remote))),
        };
        if let (Some(id), Some(bytes)) = (id, so_far(socket)) {
            tell(*id, bytes);
        }
    })?;
    Ok(())
}

fn ask(dumper: &mut Dumper, open: &Open, by: By) -> Result<Option<Bytes>, DiagError> {
    let Some((local, remote)) = open.ends else { return Ok(None) };
    let scope = |end: SocketAddr| match end {
        SocketAddr::V4(_) => 0,
        SocketAddr::V6(end) => end.scope_id(),
    };
    let interface = scope(local).max(scope(remote));
    let found = dumper.find_tcp(local, remote, interface, Info::With)?;
    let is_it = |socket: &InetSocket| by == By::Ends || socket.cookie == cookie(open.id);
    Ok(found.filter(is_it).as_ref().and_then(so_far))
}

fn cookie(id: SocketId) -> Option<u64> {
    match id {
        SocketId::Cookie { cookie, .. } => Some(cookie),
        SocketId::Inode { .. } | SocketId::Flow { .. } => None,
    }
}

/// Payload: the other side's FIN is counted by the kernel as a byte.
fn so_far(socket: &InetSocket) -> Option<Bytes> {
    let counters = socket.counters?;
    let fin = matches!(socket.state, TcpState::CloseWait | TcpState::LastAck | TcpState::Closing);
    let received = counters.bytes_received.saturating_sub(u64::from(fin));
    Some(Bytes { sent: counters.sent(), received })
}
