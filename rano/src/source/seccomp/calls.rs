//! What the supervisor told, put to use: processes go to the pipeline, calls become claims, and what the kernel's
//! tables tell of a socket is completed by who called.

use std::collections::HashSet;
use std::net::SocketAddr;

use super::child::Handle;
use super::claims::{Call, Claims, Seen};
use super::record::{Facts, Record, Way, Who};
use crate::event::{Moment, Protocol};
use crate::names::asking::Asker;
use crate::names::{Evidence, Party};
use crate::process::{Birth, Image, Occasion, ProcessChange, ProcessId, Surroundings, Verdict};
use crate::source::proc::processes::arguments;
use crate::source::{self, Closed, Intake, Open, Opened, SocketChange, SocketId, Stray};

/// How soon the kernel's tables are looked at after a call.
const LOOK_AFTER_NS: u64 = 50_000_000;
/// Processes that were told and that no look has met yet; more are not waited for.
const UNMET_MAX: usize = 1 << 14;
/// Programs of which it is said once that they get no privileges.
const PRIVILEGED_MAX: usize = 256;

/// What the calls told.
pub(super) struct Calls {
    pub(super) handle: Option<Handle>,
    pub(super) claims: Claims,
    pub(super) own_netns: u32,
    udp: bool,
    unattributed: bool,
    pub(super) asker: Option<Asker>,
    pub(super) unmet: Vec<ProcessId>,
    /// Of these the surroundings were not read yet.
    pub(super) to_look_around: Vec<ProcessId>,
    /// Boot clock: when a call makes a look worth while.
    pub(super) look_due_ns: Option<u64>,
    /// Somebody called in another network namespace.
    pub(super) is_elsewhere: bool,
    /// Connects there.
    pub(super) elsewhere: u64,
    pub(super) rings: HashSet<Who>,
    pub(super) unread: u64,
    /// Programs that would have got privileges.
    privileged: HashSet<Vec<u8>>,
    pub(super) privileged_seen: u64,
}

impl Calls {
    pub(super) fn new(own_netns: u32, udp: bool, unattributed: bool) -> Self {
        Self {
            handle: None,
            claims: Claims::new(),
            own_netns,
            udp,
            unattributed,
            asker: None,
            unmet: Vec::new(),
            to_look_around: Vec::new(),
            look_due_ns: None,
            is_elsewhere: false,
            elsewhere: 0,
            rings: HashSet::new(),
            unread: 0,
            privileged: HashSet::new(),
            privileged_seen: 0,
        }
    }

    /// An intake for what the kernel's tables tell.
    pub(super) fn fill<'a>(&'a mut self, intake: &'a mut dyn Intake) -> Fill<'a> {
        Fill { calls: self, intake }
    }

    /// What was told since the last time.
    pub(super) fn read(&mut self, intake: &mut dyn Intake) {
        let Some(handle) = &self.handle else { return };
        handle.bell().answer();
        let records = handle.take();
        let now = source::now();
        for record in records {
            self.take(record, now, intake);
        }
    }

    fn take(&mut self, record: Record, now: Moment, intake: &mut dyn Intake) {
        match record {
            Record::Process { who, parent, uid, has_changed, at_ns, comm, exe, cwd, arguments: bytes } => {
                let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
                let id = identity(who);
                let image = Image { comm: text(comm), exe: text(exe), argv: arguments(&bytes), uid };
                let occasion = if has_changed { Occasion::Executed } else { Occasion::Found };
                let birth = Birth { of_tracked: true, ..Birth::default() };
                let at = moment(at_ns, now);
                intake.process(ProcessChange::Seen { id, parent, image, at, birth, occasion });
                intake.newly_tracked();
                // What else its surroundings say is read where it lives long enough.
                let cwd = Some(text(cwd)).filter(|cwd| !cwd.is_empty());
                let surroundings = Surroundings { cwd, marks: None };
                intake.process(ProcessChange::Surroundings { id, surroundings });
                self.to_look_around.push(id);
                if !has_changed && self.unmet.len() < UNMET_MAX {
                    self.unmet.push(id);
                }
            }
            Record::Called { who, at_ns, way, socket, address } => {
                let Some(remote) = address else {
                    self.unread += 1;
                    return;
                };
                self.called(identity(who), moment(at_ns, now), way, socket, remote, intake);
            }
            Record::Question { at_ns, socket, server, message, .. } => {
                if let (Some(asker), Some((id, _))) = (&self.asker, self.socket(&socket)) {
                    asker.ask(server, &message, Party::Socket(id), moment(at_ns, now));
                }
            }
            Record::Unread { is_connect, .. } => self.unread += u64::from(is_connect || self.udp),
            Record::Ring { who } => {
                self.rings.insert(who);
            }
            Record::Exec { path, .. } => self.about_to_run(path),
            Record::Installed { .. }
            | Record::Started { .. }
            | Record::NotRun { .. }
            | Record::Stopped
            | Record::Ended { .. }
            | Record::Lost { .. } => {}
        }
    }

    /// A socket's identity as the tables have it, and its network namespace.
    fn socket(&self, socket: &Facts) -> Option<(SocketId, u32)> {
        match socket.netns {
            0 => Some((SocketId::Cookie { netns: self.own_netns, cookie: socket.cookie }, self.own_netns)),
            netns if socket.inode != 0 => Some((SocketId::Inode { netns, inode: socket.inode }, netns)),
            _ => None,
        }
    }

    fn called(
        &mut self,
        owner: ProcessId,
        at: Moment,
        way: Way,
        socket: Facts,
        remote: SocketAddr,
        intake: &mut dyn Intake,
    ) {
        let Some((id, netns)) = self.socket(&socket) else { return };
        let Some(protocol) = protocol(socket.protocol) else { return };
        if netns != self.own_netns {
            self.is_elsewhere = true;
            self.elsewhere += 1;
        }
        let call = Call { owner, at, protocol, remote, netns };
        match way {
            Way::Connect if protocol == Protocol::Tcp || self.udp => {
                self.claims.connect(id, call, source::now().boot_ns);
                if protocol == Protocol::Tcp && self.look_due_ns.is_none() {
                    self.look_due_ns = Some(at.boot_ns + LOOK_AFTER_NS);
                }
            }
            Way::Send if self.udp => {
                let ends = (socket.local, socket.peer);
                self.claims.send(id, call, ends, intake);
            }
            Way::Connect | Way::Send => {}
        }
    }

    /// Under `no_new_privs` nobody gets another's rights by running his program.
    fn about_to_run(&mut self, path: Vec<u8>) {
        if rustix::process::geteuid().is_root()
            || self.privileged.contains(&path)
            || self.privileged.len() >= PRIVILEGED_MAX
        {
            return;
        }
        let gives_privileges = rustix::fs::stat(path.as_slice()).is_ok_and(|stat| stat.st_mode & 0o6000 != 0)
            || rustix::fs::getxattr(path.as_slice(), c"security.capability", &mut [0u8; 64][..]).is_ok();
        if gives_privileges {
            self.privileged.insert(path);
            self.privileged_seen += 1;
        }
    }
}

/// What sources call a transport.
fn protocol(number: u16) -> Option<Protocol> {
    match i32::from(number) {
        libc::IPPROTO_TCP | libc::IPPROTO_MPTCP => Some(Protocol::Tcp),
        libc::IPPROTO_UDP => Some(Protocol::Udp),
        // Of others the looks tell.
        _ => None,
    }
}

fn identity(who: Who) -> ProcessId {
    ProcessId { pid: who.pid, start_time: who.start_time }
}

/// When a call was made, on both clocks.
fn moment(at_ns: u64, now: Moment) -> Moment {
    let age_ms = i64::try_from(now.boot_ns.saturating_sub(at_ns) / 1_000_000).unwrap_or(i64::MAX);
    Moment { boot_ns: at_ns, unix_ms: now.unix_ms.saturating_sub(age_ms) }
}

/// An intake that knows whose the sockets are. Those of others are not passed on.
pub(super) struct Fill<'a> {
    calls: &'a mut Calls,
    intake: &'a mut dyn Intake,
}

impl Fill<'_> {
    pub(super) fn awaits_names(&self) -> bool {
        self.calls.asker.as_ref().is_some_and(Asker::is_waiting)
    }

    pub(super) fn owed(&self, are_there: impl Fn(SocketId) -> bool) -> bool {
        self.calls.claims.owed(self.calls.own_netns, are_there)
    }

    /// A call is told before its socket is in any table: what is not claimed now is not the command's.
    fn catch_up(&mut self, id: SocketId) {
        if !self.calls.claims.knows(id) {
            self.calls.read(self.intake);
        }
    }

    fn opened(&mut self, opened: Opened) {
        self.catch_up(opened.id);
        let at = opened.at;
        match self.calls.claims.opened(opened) {
            Seen::Claimed(opened) => self.intake.socket(SocketChange::Opened(opened)),
            Seen::Unclaimed(opened) if opened.owner.is_some() || self.calls.unattributed => {
                self.intake.socket(SocketChange::Opened(opened));
            }
            Seen::Bound(flows, local) => {
                for id in flows {
                    self.intake.socket(SocketChange::Local { id, local: local.clone(), at });
                }
            }
            Seen::Unclaimed(_) | Seen::Told => {}
        }
    }

    fn closed(&mut self, closed: Closed) {
        self.catch_up(closed.id);
        self.calls.claims.closed(closed, self.intake);
    }
}

impl Intake for Fill<'_> {
    fn process(&mut self, change: ProcessChange) -> Verdict {
        self.intake.process(change)
    }

    fn socket(&mut self, change: SocketChange) {
        match change {
            SocketChange::Opened(opened) => self.opened(opened),
            SocketChange::Closed(closed) => self.closed(closed),
            SocketChange::Attempted(_)
            | SocketChange::State { .. }
            | SocketChange::Local { .. }
            | SocketChange::Bytes { .. }
            | SocketChange::Named { .. }
            | SocketChange::Gone { .. } => self.intake.socket(change),
        }
    }

    fn evidence(&mut self, evidence: Evidence) {
        self.intake.evidence(evidence);
    }

    /// What nobody claimed is none of the command's.
    fn unattributed(&mut self, _count: u64) {}

    fn stray(&mut self, _stray: Stray) {}

    fn left_out(&mut self, connections: u64) {
        self.intake.left_out(connections);
    }

    fn newly_tracked(&mut self) -> Vec<ProcessId> {
        self.intake.newly_tracked()
    }

    fn verdict(&self, id: ProcessId) -> Verdict {
        self.intake.verdict(id)
    }

    fn watches(&self, party: Party) -> bool {
        self.intake.watches(party)
    }

    fn open(&self, protocol: Protocol) -> Vec<Open> {
        self.intake.open(protocol)
    }
}
