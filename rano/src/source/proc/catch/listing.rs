//! Sockets that could not be copied, because the kernel refuses that, in one list of all sockets.

use super::watcher::Watcher;
use super::{Caught, Sighting};
use crate::source::proc::destroy::moment;
use crate::source::proc::inet::{InetSocket, States};
use crate::source::proc::sock_diag::{Dumper, Info};

/// Between two lists of all sockets, and of how many lists each may be the reason.
pub(super) const LIST_NS: u64 = 2_000_000;
const LISTS_MAX: u8 = 4;

impl Watcher {
    /// Where descriptors cannot be copied, one list of all sockets says what those are that were seen.
    pub(super) fn list(&mut self, at: u64) {
        self.listed_ns = at;
        if self.dumper.is_none() {
            self.dumper = Dumper::open().ok();
        }
        let Some(dumper) = &mut self.dumper else { return self.unlisted.clear() };
        let mut sightings = Vec::new();
        let unlisted = &self.unlisted;
        let mut each = |socket: &InetSocket| {
            if let (Some((process, _)), Some(cookie)) = (unlisted.get(&socket.inode), socket.cookie) {
                sightings.push(Sighting {
                    process: *process,
                    protocol: socket.protocol,
                    inode: socket.inode,
                    cookie,
                    ends: socket.remote.map(|remote| (socket.local, remote)),
                    lasts: false,
                    at: moment(),
                });
            }
        };
        let _ = dumper.tcp(States::CONNECTIONS, Info::Without, &mut each);
        if self.udp {
            let _ = dumper.udp(States::ALL, &mut each);
        }
        for sighting in sightings {
            self.unlisted.remove(&sighting.inode);
            if let Some(young) = self.young.get_mut(&sighting.process.pid) {
                young.settle(sighting.inode);
            }
            self.tell(Caught::Socket(sighting));
        }
        let mut given_up = Vec::new();
        self.unlisted.retain(|&inode, (process, lists)| {
            *lists += 1;
            let again = *lists < LISTS_MAX;
            if !again {
                given_up.push((process.pid, inode));
            }
            again
        });
        for (pid, inode) in given_up {
            if let Some(young) = self.young.get_mut(&pid) {
                young.settle(inode);
            }
        }
    }
}
