//! Sockets that are older than the kernel programs: found by looking, as without privileges, then followed by cookie.

use std::fs::File;
use std::net::IpAddr;
use std::os::fd::AsFd as _;
use std::os::unix::fs::MetadataExt as _;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use procfs::process::FDTarget;
use rano_common::{ListenerKey, Owner, SocketRecord, flags};
use rustc_hash::{FxHashMap, FxHashSet};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use super::compare::Comparison;
use super::load::{Following, Programs};
use super::processes::start_ns;
use super::sockets::{local, remote};
use crate::event::{Address, Protocol};
use crate::names::{Evidence, Party};
use crate::process::{ProcessChange, ProcessId, Verdict};
use crate::source::proc::inet::States;
use crate::source::proc::sock_diag::{Dumper, Info};
use crate::source::proc::{ProcSettings, ProcSource};
use crate::source::{self, Closed, Intake, Open, Opened, Role, SocketChange, SocketId, Source as _, Stray};
use crate::stop::Stop;

/// So long it is waited for a socket that is being closed; one that was passed on does not end.
const CLOSING: Duration = Duration::from_secs(1);
const LOOK_AGAIN: Duration = Duration::from_millis(10);

/// Sockets that somebody holds, with their inodes where these are known.
type Held = FxHashMap<SocketId, Option<u64>>;

/// What one look found.
pub struct OlderSockets {
    found: Vec<Opened>,
    /// By network namespace, cookies by inode; where text was all there was to be had.
    cookies: FxHashMap<u32, FxHashMap<u64, u64>>,
}

impl OlderSockets {
    /// Looks once. Processes that it meets go to `intake`; the sockets wait for [`Self::tell`].
    pub fn look(polling: ProcSettings, intake: &mut dyn Intake) -> Result<Self> {
        let mut gathering = Gathering { inner: intake, found: Vec::new() };
        let mut poll = ProcSource::start(ProcSettings {
            once: true,
            unix: polling.unix && polling.once,
            other: polling.other && polling.once,
            ..polling
        })
        .context("look for sockets")?;
        poll.pump(source::now(), &Stop::new()?, &mut gathering)?;
        let mut older = Self { found: gathering.found, cookies: FxHashMap::default() };
        for opened in &older.found {
            if let (SocketId::Inode { netns, .. }, Some(owner)) = (opened.id, opened.owner) {
                older.cookies.entry(netns).or_insert_with(|| cookies_beside(owner.pid).unwrap_or_default());
            }
        }
        Ok(older)
    }

    /// Passes on all but those that the programs have told of, whose end they were asked for.
    pub fn tell(
        mut self,
        told: &Told,
        programs: &mut Programs,
        comparison: &mut Comparison,
        intake: &mut dyn Intake,
    ) {
        for opened in &mut self.found {
            // The programs tell what becomes of it.
            opened.source = programs.hooks.rung;
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
        // All at once: passing on takes its time, and what ends meanwhile is to be told of. A record of one that is
        // followed already is still to be read.
        self.found.retain(|opened| {
            if opened.owner.is_some_and(|owner| intake.verdict(owner) == Verdict::Excluded) {
                return true;
            }
            let following = follow(opened, programs);
            if following != Following::Already {
                comparison.add_older(opened.id, following == Following::Begun);
            }
            following != Following::Already
        });
        let ended = self.ended(programs);
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

    /// Those that are not held any more.
    fn ended(&self, programs: &Programs) -> FxHashSet<SocketId> {
        let begun = Instant::now();
        let mut held = self.held();
        // Of one that is being closed the hook may have passed before it was followed, and it is there for a moment
        // yet.
        let closing: Vec<SocketId> = self.being_closed(&held);
        let is_open = |held: &Held, id: &SocketId| match id {
            SocketId::Cookie { cookie, .. } => held.contains_key(id) && programs.follows(*cookie),
            SocketId::Inode { .. } | SocketId::Flow { .. } => false,
        };
        while closing.iter().any(|id| is_open(&held, id)) && begun.elapsed() < CLOSING {
            std::thread::sleep(LOOK_AGAIN);
            held = self.held();
        }
        self.found.iter().map(|opened| opened.id).filter(|id| !held.contains_key(id)).collect()
    }

    /// Those that somebody holds, with their inodes; without one where the network namespace cannot be looked into
    /// again.
    fn held(&self) -> Held {
        let own = std::fs::metadata("/proc/self/ns/net").map_or(0, |namespace| namespace.ino());
        let mut dumps: FxHashMap<u32, Option<FxHashMap<u64, u64>>> = FxHashMap::default();
        let mut held = Held::default();
        for opened in &self.found {
            let (SocketId::Cookie { netns, cookie }, Some(owner)) = (opened.id, opened.owner) else {
                continue;
            };
            let inodes = dumps.entry(netns).or_insert_with(|| {
                let dump = if u64::from(netns) == own { cookies() } else { cookies_beside(owner.pid) };
                // What was closed and only says goodbye has no inode.
                let held = dump.ok()?.into_iter().filter(|(inode, _)| *inode != 0);
                Some(held.map(|(inode, cookie)| (cookie, inode)).collect())
            });
            match inodes.as_ref().map(|inodes| inodes.get(&cookie)) {
                Some(Some(&inode)) => held.insert(opened.id, Some(inode)),
                Some(None) => continue,
                None => held.insert(opened.id, None),
            };
        }
        held
    }

    /// Those of which their owner has no descriptor: it closes them, or has passed them on.
    fn being_closed(&self, held: &Held) -> Vec<SocketId> {
        let mut descriptors: FxHashMap<u32, Option<FxHashSet<u64>>> = FxHashMap::default();
        let is_without_descriptor = |opened: &&Opened| {
            let (Some(owner), Some(&Some(inode))) = (opened.owner, held.get(&opened.id)) else {
                return false;
            };
            let inodes = descriptors.entry(owner.pid).or_insert_with(|| sockets_of(owner.pid).ok());
            inodes.as_ref().is_some_and(|inodes| !inodes.contains(&inode))
        };
        self.found.iter().filter(is_without_descriptor).map(|opened| opened.id).collect()
    }
}

/// Inodes of the sockets of which a process has a descriptor.
pub fn sockets_of(pid: u32) -> Result<FxHashSet<u64>> {
    let process = procfs::process::Process::new(i32::try_from(pid)?)?;
    let mut inodes = FxHashSet::default();
    for descriptor in process.fd()? {
        // One that was closed meanwhile.
        let Ok(descriptor) = descriptor else { continue };
        if let FDTarget::Socket(inode) = descriptor.target {
            inodes.insert(inode);
        }
    }
    Ok(inodes)
}

/// Asks the programs for the end of a socket.
fn follow(opened: &Opened, programs: &mut Programs) -> Following {
    let (SocketId::Cookie { cookie, .. }, Some(id)) = (opened.id, opened.owner) else {
        return Following::Refused;
    };
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
    let following = programs.follow(cookie, owner);
    if let Some(place) = place(opened).filter(|_| datagram == 0 && listener != 0)
        && following != Following::Already
    {
        programs.listen(place, cookie, owner);
    }
    following
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
struct Gathering<'a> {
    inner: &'a mut dyn Intake,
    found: Vec<Opened>,
}

impl Intake for Gathering<'_> {
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

    fn stray(&mut self, stray: Stray) {
        self.inner.stray(stray);
    }

    fn left_out(&mut self, connections: u64) {
        self.inner.left_out(connections);
    }

    fn newly_tracked(&mut self) -> Vec<ProcessId> {
        self.inner.newly_tracked()
    }

    fn verdict(&self, id: ProcessId) -> Verdict {
        self.inner.verdict(id)
    }

    fn watches(&self, party: Party) -> bool {
        self.inner.watches(party)
    }

    fn open(&self, protocol: Protocol) -> Vec<Open> {
        self.inner.open(protocol)
    }
}
