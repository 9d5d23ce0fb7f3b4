//! Unix sockets as connections: each end carries only its own path, so the two are put together by inode.

use rustc_hash::FxHashMap;

use super::inet::TcpState;
use super::sockets::Seen;
use super::unix::UnixSocket;
use crate::event::{Address, Protocol};
use crate::source::SocketId;

/// Unix sockets that one look holds; more are left out and counted. A desktop has some thousands.
const MOST: usize = 1 << 16;

/// What one look showed.
#[derive(Default)]
pub struct UnixEnds {
    sockets: Vec<UnixSocket>,
    pub left_out: u64,
}

impl UnixEnds {
    pub fn add(&mut self, socket: &UnixSocket) {
        if self.sockets.len() < MOST {
            self.sockets.push(socket.clone());
        } else {
            self.left_out += 1;
        }
    }

    /// Listeners and connected sockets with a path at either end; a pair without any (`socketpair`) reaches nobody
    /// outside.
    pub fn into_seen(self, netns: u32) -> Vec<Seen> {
        let paths: FxHashMap<u64, &str> =
            self.sockets.iter().filter_map(|socket| Some((socket.inode, socket.path.as_deref()?))).collect();
        let path = |path: &str| Address::Path(path.into());
        let seen = |socket: &UnixSocket| {
            let listening = socket.state == TcpState::Listen;
            let connected = socket.state == TcpState::Established || socket.peer.is_some();
            let local = socket.path.as_deref();
            let remote = socket.peer.and_then(|peer| paths.get(&peer).copied());
            let id = match socket.cookie {
                Some(cookie) => SocketId::Cookie { netns, cookie },
                None => SocketId::Inode { netns, inode: socket.inode },
            };
            let shown = listening || connected && (local.is_some() || remote.is_some());
            shown.then(|| Seen {
                id,
                protocol: Protocol::Unix,
                local: local.map(path),
                remote: remote.map(path),
                state: None,
                listening,
                peer: socket.peer,
                inode: socket.inode,
                uid: None,
            })
        };
        self.sockets.iter().filter_map(seen).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::super::unix::UnixKind;
    use super::*;

    fn socket(inode: u64, path: Option<&str>, peer: Option<u64>, state: TcpState) -> UnixSocket {
        let path = path.map(str::to_owned);
        UnixSocket { kind: UnixKind::Stream, state, inode, peer, path, cookie: Some(inode) }
    }

    #[test]
    fn a_client_is_told_where_it_is_connected_by_the_other_ends_path() {
        let mut ends = UnixEnds::default();
        ends.add(&socket(1, Some("/run/server"), None, TcpState::Listen));
        ends.add(&socket(2, Some("/run/server"), Some(3), TcpState::Established));
        ends.add(&socket(3, None, Some(2), TcpState::Established));
        ends.add(&socket(4, None, Some(5), TcpState::Established));
        ends.add(&socket(5, None, Some(4), TcpState::Established));
        let path = || Some(Address::Path("/run/server".into()));
        let seen = ends.into_seen(1);
        let ends: Vec<_> =
            seen.iter().map(|seen| (seen.inode, seen.local.clone(), seen.remote.clone())).collect();
        assert_eq!(ends, [(1, path(), None), (2, path(), None), (3, None, path())]);
        assert!(seen[0].listening && !seen[1].listening);
    }
}
