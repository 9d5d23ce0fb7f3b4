//! Sockets that are older than the kernel programs: found by looking, as without privileges, then followed by cookie.

use std::fs::File;
use std::net::IpAddr;
use std::os::fd::AsFd as _;
use std::os::unix::fs::MetadataExt as _;

use anyhow::{Context as _, Result};
use rano_common::{ListenerKey, Owner, SocketRecord, flags};
use rustc_hash::{FxHashMap, FxHashSet};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use super::load::Programs;
use super::processes::start_ns;
use super::sockets::{local, remote};
use crate::event::{Address, Protocol};
use crate::names::Evidence;
use crate::process::{ProcessChange, ProcessId, Verdict};
use crate::source::proc::inet::States;
use crate::source::proc::sock_diag::{Dumper, Info};
use crate::source::proc::{ProcSettings, ProcSource};
use crate::source::{self, Closed, Intake, Opened, Role, SocketChange, SocketId, Source as _};
use crate::stop::Stop;

/// What one look found.
pub struct OlderSockets {
    found: Vec<Opened>,
    /// By network namespace, cookies by inode; where text was all there was to be had.
    cookies: FxHashMap<u32, FxHashMap<u64, u64>>,
}

impl OlderSockets {
    /// Looks once. Processes that it meets go to `intake`; the sockets wait for [`Self::tell`].
    pub fn look(polling: ProcSettings, intake: &mut dyn Intake) -> Result<Self> {
        let mut held = Held { inner: intake, found: Vec::new() };
        let mut poll =
            ProcSource::start(ProcSettings { once: true, unix: polling.unix && polling.once, ..polling })
                .context("look for sockets")?;
        poll.pump(source::now(), &Stop::new()?, &mut held)?;
        let mut older = Self { found: held.found, cookies: FxHashMap::default() };
        for opened in &older.found {
            if let (SocketId::Inode { netns, .. }, Some(owner)) = (opened.id, opened.owner) {
                older.cookies.entry(netns).or_insert_with(|| cookies_beside(owner.pid).unwrap_or_default());
            }
        }
        Ok(older)
    }

    /// Passes on all but those that the programs have told of, whose end they were asked for.
    pub fn tell(mut self, told: &Told, programs: &mut Programs, intake: &mut dyn Intake) {
        for opened in &mut self.found {
            if let SocketId::Inode { netns, inode } = opened.id
                && let Some(&cookie) = self.cookies.get(&netns).and_then(|cookies| cookies.get(&inode))
            {
                opened.id = SocketId::Cookie { netns, cookie };
            }
        }
        self.found.retain(|opened| match opened.id {
            SocketId::Cookie { cookie, .. } => !told.holds(cookie, opened),
            SocketId::Inode { .. } | SocketId::Flow { .. } => true,
        });
        // All at once: passing on takes its time, and what ends meanwhile is to be told of.
        for opened in &self.found {
            follow(opened, programs);
        }
        let ended = self.ended();
        for opened in self.found {
            let id = opened.id;
            intake.socket(SocketChange::Opened(opened));
            // An entry that is still there will never be told of: the socket ended before it was made.
            if let SocketId::Cookie { cookie, .. } = id
                && ended.contains(&id)
                && programs.unfollow(cookie)
            {
                intake.socket(SocketChange::Closed(Closed {
                    id,
                    at: source::now(),
                    bytes: None,
                    error: None,
                    established: Some(true),
                    duration: None,
                }));
            }
        }
    }

    /// Those that nobody holds any more. Where a network namespace cannot be looked into again, none.
    fn ended(&self) -> FxHashSet<SocketId> {
        let own = std::fs::metadata("/proc/self/ns/net").map_or(0, |namespace| namespace.ino());
        let mut held: FxHashMap<u32, Option<FxHashSet<u64>>> = FxHashMap::default();
        let mut ended = FxHashSet::default();
        for opened in &self.found {
            let (SocketId::Cookie { netns, cookie }, Some(owner)) = (opened.id, opened.owner) else {
                continue;
            };
            let held = held.entry(netns).or_insert_with(|| {
                let dump = if u64::from(netns) == own { cookies() } else { cookies_beside(owner.pid) };
                // What was closed and only says goodbye has no inode.
                Some(
                    dump.ok()?
                        .into_iter()
                        .filter(|(inode, _)| *inode != 0)
                        .map(|(_, cookie)| cookie)
                        .collect(),
                )
            });
            if held.as_ref().is_some_and(|held| !held.contains(&cookie)) {
                ended.insert(opened.id);
            }
        }
        ended
    }
}

/// Asks the programs for the end of a socket.
fn follow(opened: &Opened, programs: &mut Programs) {
    let (SocketId::Cookie { cookie, .. }, Some(id)) = (opened.id, opened.owner) else { return };
    let datagram = if opened.protocol == Protocol::Udp { flags::DATAGRAM } else { 0 };
    let listener = if opened.role == Role::Listen { flags::LISTENER } else { 0 };
    let owner = Owner {
        start_ns: start_ns(id),
        established_ns: 0,
        pid: id.pid,
        exec_id: 0,
        flags: flags::PREEXISTING | datagram | listener,
        remote: [0; 2],
        remote_port: 0,
        sent: 0,
        received: 0,
    };
    programs.follow(cookie, owner);
    if let Some(place) = place(opened).filter(|_| datagram == 0 && listener != 0) {
        programs.listen(place, cookie, owner);
    }
}

/// Where a listener waits. One for any IPv4 address may be of either family: it is taken for IPv4.
fn place(opened: &Opened) -> Option<ListenerKey> {
    let Some(Address::Ip(local)) = opened.local else { return None };
    let mut bytes = [0; 16];
    let family = match local.ip() {
        IpAddr::V4(ip) => {
            bytes[..4].copy_from_slice(&ip.octets());
            libc::AF_INET
        }
        IpAddr::V6(ip) => {
            bytes = ip.octets();
            libc::AF_INET6
        }
    };
    let family = u16::try_from(family).ok()?;
    Some(ListenerKey { netns: opened.netns, port: local.port(), family, local: bytes })
}

/// The sockets that records told of before the older ones were passed on.
#[derive(Default)]
pub struct Told {
    cookies: FxHashSet<u64>,
    /// Local and remote ends: without hooks of cgroups the programs do not know a socket by its cookie.
    ends: FxHashSet<(Option<Address>, Option<Address>)>,
}

impl Told {
    pub fn add(&mut self, record: &SocketRecord) {
        self.cookies.insert(record.cookie);
        self.ends.insert((local(record), remote(record).map(Address::ip)));
    }

    fn holds(&self, cookie: u64, opened: &Opened) -> bool {
        self.cookies.contains(&cookie)
            || opened.remote.is_some() && self.ends.contains(&(opened.local.clone(), opened.remote.clone()))
    }
}

/// The sockets in the network namespace of a process, cookies by inode. On a thread of its own, which enters it.
fn cookies_beside(pid: u32) -> Result<FxHashMap<u64, u64>> {
    let namespace = File::open(format!("/proc/{pid}/ns/net"))?;
    let look = move || -> Result<FxHashMap<u64, u64>> {
        move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Network))?;
        cookies()
    };
    let thread = std::thread::Builder::new().name("namespace".to_owned()).spawn(look)?;
    thread.join().unwrap_or_else(|_| Ok(FxHashMap::default()))
}

/// The same in the network namespace of this thread.
fn cookies() -> Result<FxHashMap<u64, u64>> {
    let mut cookies = FxHashMap::default();
    let mut dumper = Dumper::open()?;
    dumper.tcp(States::SOCKETS, Info::Without, |socket| {
        cookies.extend(socket.cookie.map(|cookie| (socket.inode, cookie)));
    })?;
    dumper.udp(States::ALL, |socket| {
        cookies.extend(socket.cookie.map(|cookie| (socket.inode, cookie)));
    })?;
    Ok(cookies)
}

/// Holds sockets back.
struct Held<'a> {
    inner: &'a mut dyn Intake,
    found: Vec<Opened>,
}

impl Intake for Held<'_> {
    fn process(&mut self, change: ProcessChange) -> Verdict {
        self.inner.process(change)
    }

    fn socket(&mut self, change: SocketChange) {
        if let SocketChange::Opened(opened) = change {
            self.found.push(opened);
        }
    }

    fn evidence(&mut self, evidence: Evidence) {
        self.inner.evidence(evidence);
    }

    fn unattributed(&mut self, count: u64) {
        self.inner.unattributed(count);
    }

    fn newly_tracked(&mut self) -> Vec<ProcessId> {
        self.inner.newly_tracked()
    }

    fn verdict(&self, id: ProcessId) -> Verdict {
        self.inner.verdict(id)
    }
}
