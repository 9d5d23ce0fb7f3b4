//! Network namespaces of watched processes that are not our own: `/proc/<pid>/net` shows their sockets as text. No
//! notification comes from there.

use std::io;
use std::ops::RangeInclusive;
use std::path::Path;

use rustc_hash::FxHashMap;
use rustix::io::Errno;

use super::gate::{self, Missed};
use super::net_text;
use super::own::{packet_socket, seen};
use super::processes::ProcessScanner;
use super::sockets::{OTHERS, SocketTable};
use crate::event::{Moment, Protocol};
use crate::process::ProcessId;
use crate::source::SocketChange;

/// Namespaces that can be looked into at once; the processes of further ones are counted as refused.
const MOST: usize = 256;

/// All namespaces but our own in which watched processes live.
pub struct OtherNamespaces {
    own: u32,
    ephemeral: RangeInclusive<u16>,
    udp: bool,
    /// Of each process the namespaces of its threads, each with a thread that is there.
    homes: FxHashMap<ProcessId, Vec<(u32, u32)>>,
    pub tables: FxHashMap<u32, SocketTable>,
    missed: FxHashMap<u32, Missed>,
    /// Some other namespace was looked into.
    has_looked: bool,
    /// Looks that failed: namespace's processes gone or not ours to look at.
    pub refused: u64,
    /// Looks for which rano had too few descriptors or too little memory.
    pub unread: u64,
}

impl OtherNamespaces {
    pub fn new(own: u32, ephemeral: RangeInclusive<u16>, udp: bool) -> Self {
        Self {
            own,
            ephemeral,
            udp,
            homes: FxHashMap::default(),
            tables: FxHashMap::default(),
            missed: FxHashMap::default(),
            has_looked: false,
            refused: 0,
            unread: 0,
        }
    }

    /// What is not known of what was seen, for people.
    pub fn without(&self) -> Option<&'static str> {
        self.has_looked
            .then_some("in other network namespaces no bytes and no owners of short connections are seen")
    }

    /// Looks into the namespace of each watched process. `recheck`: a process may have moved since it was last asked
    /// (setns, unshare). Returns how many connections came and went between two looks.
    pub fn look(
        &mut self,
        scanner: &mut ProcessScanner,
        watched: &[ProcessId],
        recheck: bool,
        is_first: bool,
        now: Moment,
        out: &mut Vec<SocketChange>,
    ) -> u64 {
        let mut representatives: FxHashMap<u32, (ProcessId, u32)> = FxHashMap::default();
        let mut homes = FxHashMap::default();
        for &process in watched {
            let known = self.homes.remove(&process).filter(|known| !recheck && !known.is_empty());
            let known = known.unwrap_or_else(|| scanner.network_namespaces(process));
            for &(netns, thread) in &known {
                representatives.entry(netns).or_insert((process, thread));
            }
            homes.insert(process, known);
        }
        self.homes = homes;
        representatives.remove(&self.own);
        self.tables.retain(|netns, table| {
            let inhabited = representatives.contains_key(netns);
            if !inhabited {
                table.close_all(now, out);
            }
            inhabited
        });
        self.missed.retain(|netns, _| representatives.contains_key(netns));
        let mut missed = 0;
        self.has_looked |= !representatives.is_empty();
        for (netns, (process, thread)) in representatives {
            if self.tables.len() >= MOST && !self.tables.contains_key(&netns) {
                self.refused += 1;
                continue;
            }
            let table = self
                .tables
                .entry(netns)
                .or_insert_with(|| SocketTable::new(netns, self.ephemeral.clone(), is_first));
            let net = format!("/proc/{}/task/{thread}/net", process.pid);
            let opens = gate::active_opens(Path::new(&net));
            if let Err(error) = read(table, Path::new(&net), self.udp, now, out) {
                // The thread may have ended, and another be there.
                self.homes.remove(&process);
                match Errno::from_io_error(&error) {
                    Some(Errno::MFILE | Errno::NFILE | Errno::NOMEM) => self.unread += 1,
                    _ => self.refused += 1,
                }
            } else if let Ok(opens) = opens {
                missed += self.missed.entry(netns).or_default().count(opens, table.new_connects(now));
            }
        }
        missed
    }
}

/// Fails where not all of it could be read.
fn read(
    table: &mut SocketTable,
    net: &Path,
    udp: bool,
    now: Moment,
    out: &mut Vec<SocketChange>,
) -> io::Result<()> {
    let netns = table.netns();
    table.begin_look();
    let mut looked_at = Vec::with_capacity(2);
    let mut each = |socket: &super::inet::InetSocket| {
        if let Some(seen) = seen(netns, socket) {
            table.see(seen, now, out);
        }
    };
    let tcp = net_text::tcp(net, &mut each).map(|_| looked_at.push(Protocol::Tcp));
    let udp = if udp { net_text::udp(net, &mut each).map(|_| looked_at.push(Protocol::Udp)) } else { Ok(()) };
    let mut found = Vec::new();
    let found_too = std::cell::RefCell::new(&mut found);
    let others = net_text::others(
        net,
        |socket| found_too.borrow_mut().extend(seen(netns, socket)),
        |inode| found_too.borrow_mut().push(packet_socket(netns, inode)),
    );
    let others = others.map(|_| looked_at.push(OTHERS));
    for seen in found {
        table.see(seen, now, out);
    }
    table.end_look(&looked_at, &[], now, out);
    tcp.and(udp).and(others)
}
