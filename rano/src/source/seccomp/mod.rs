//! A command that rano runs, and the source that sees each of its calls before the kernel acts on it: seccomp user
//! notifications, which take no privileges. The calls say who and what was asked for; sock_diag and its notifications
//! say by cookie what became of it, with the means of the polling source.

mod caller;
pub mod child;
mod claims;
mod cursor;
mod filter;
mod message;
mod record;
mod supervisor;
mod sys;

use std::collections::HashSet;

use anyhow::Result;
use rustix::io::Errno;

use crate::event::{Moment, Protocol, SourceKind};
use crate::health::{Bound, Gap};
use crate::names::Party;
use crate::names::asking::Asker;
use crate::process::{Birth, Image, Occasion, ProcessChange, ProcessId};
use crate::source::proc::processes::arguments;
use crate::source::proc::{ProcSettings, ProcSource};
use crate::source::{self, Intake, Pumped, SocketId, Source, SourceHealth};
use crate::stop::Stop;

use child::{Child, Handle};
use claims::{Claims, Fate};
use record::{Facts, Record, Way, Who};

/// How soon the kernel's tables are looked at after a call.
const LOOK_AFTER_NS: u64 = 50_000_000;
/// Between two such looks, so many times as long as one takes.
const IDLE_PARTS: u64 = 20;
/// Processes that were told and that no look has met yet; more are not waited for.
const UNMET_MAX: usize = 1 << 14;

/// Why the filter cannot be had, for people.
pub fn refusal(errno: Errno) -> String {
    match errno {
        Errno::BUSY => {
            "no seccomp: something above, such as a sandbox, already answers for these processes, and \
                        the kernel allows one (EBUSY)"
                .to_owned()
        }
        Errno::NOSYS | Errno::INVAL => {
            "no seccomp: the kernel has no user notifications (Linux 5.5)".to_owned()
        }
        Errno::OPNOTSUPP => "no seccomp: not for this architecture".to_owned(),
        other => format!("no seccomp: {other}"),
    }
}

/// Sees the calls of one command's processes.
pub struct SeccompSource {
    inner: ProcSource,
    handle: Option<Handle>,
    claims: Claims,
    own_netns: u32,
    udp: bool,
    unattributed: bool,
    either: Option<Stop>,
    asker: Option<Asker>,
    unmet: Vec<ProcessId>,
    /// Boot clock: not before this is another look made because of a call.
    look_not_before_ns: u64,
    rings: HashSet<Who>,
    unread: u64,
    /// Programs that would have got privileges.
    privileged: HashSet<Vec<u8>>,
    privileged_seen: u64,
}

impl SeccompSource {
    /// Puts the filter on what `child` is going to run; an error says why that is not possible here.
    /// `refused`: why it is no better one.
    pub fn start(child: &mut Child, settings: ProcSettings, refused: Option<String>) -> Result<Self, String> {
        child.install(settings.udp).map_err(refusal)?;
        let inner = ProcSource::start(ProcSettings { unattributed: true, every_end: true, ..settings })
            .map_err(|error| format!("no seccomp: {error:#}"))?
            .instead_of(refused);
        Ok(Self {
            own_netns: inner.own_netns(),
            inner,
            handle: None,
            claims: Claims::new(),
            udp: settings.udp,
            unattributed: settings.unattributed,
            either: None,
            asker: None,
            unmet: Vec::new(),
            look_not_before_ns: 0,
            rings: HashSet::new(),
            unread: 0,
            privileged: HashSet::new(),
            privileged_seen: 0,
        })
    }

    /// Who asks what the command's processes ask.
    pub fn ask_with(&mut self, asker: Option<Asker>) {
        self.asker = asker;
    }

    /// Where the calls are told.
    pub fn listen_to(&mut self, handle: Handle) {
        self.handle = Some(handle);
    }

    /// The stop never changes while the source is pumped.
    fn either(&mut self, stop: &Stop) -> Result<Stop> {
        if let Some(either) = &self.either {
            return Ok(either.clone());
        }
        let either = match &self.handle {
            Some(handle) => stop.or_bell(handle.bell())?,
            None => stop.clone(),
        };
        Ok(self.either.insert(either).clone())
    }

    /// What was told since the last time.
    fn read(&mut self, intake: &mut dyn Intake) {
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
            Record::Process { who, parent, uid, has_changed, at_ns, comm, exe, arguments: bytes } => {
                let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
                let id = identity(who);
                let image = Image { comm: text(comm), exe: text(exe), argv: arguments(&bytes), uid };
                let occasion = if has_changed { Occasion::Executed } else { Occasion::Found };
                let birth = Birth { of_tracked: true, ..Birth::default() };
                let at = moment(at_ns, now);
                intake.process(ProcessChange::Seen { id, parent, image, at, birth, occasion });
                intake.newly_tracked();
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
        remote: std::net::SocketAddr,
        intake: &mut dyn Intake,
    ) {
        let Some((id, netns)) = self.socket(&socket) else { return };
        let Some(protocol) = protocol(socket.protocol) else { return };
        match way {
            Way::Connect if protocol == Protocol::Tcp || self.udp => {
                self.claims.connect(id, owner, at, protocol, remote, netns);
                if protocol == Protocol::Tcp {
                    self.inner.look_by(self.look_not_before_ns.max(at.boot_ns + LOOK_AFTER_NS));
                }
            }
            Way::Send if self.udp => {
                let ends = (socket.local, socket.peer);
                self.claims.send((id, netns), owner, at, protocol, remote, ends, intake);
            }
            Way::Connect | Way::Send => {}
        }
    }

    /// Under `no_new_privs` nobody gets another's rights by running his program.
    fn about_to_run(&mut self, path: Vec<u8>) {
        if rustix::process::geteuid().is_root()
            || self.privileged.contains(&path)
            || self.privileged.len() >= 256
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

    /// Tells the ends of processes that came and went between two looks, and of sockets that no table has shown.
    fn settle(&mut self, is_end: bool, intake: &mut dyn Intake) {
        let now = source::now();
        let scanner = self.inner.processes();
        self.unmet.retain(|&id| {
            if scanner.has_met(id) {
                return false;
            }
            if scanner.is_gone(id) {
                intake.process(ProcessChange::Gone { id, at: now });
                return false;
            }
            true
        });
        for id in self.claims.overdue(if is_end { u64::MAX } else { now.boot_ns }) {
            let is_own = matches!(id, SocketId::Cookie { netns, .. } if netns == self.own_netns);
            let fate = if self.inner.holds(id) {
                Fate::Open
            } else if is_own
                && self.inner.heard_every_end()
                && self.claims.protocol(id) == Some(Protocol::Tcp)
            {
                Fate::Failed
            } else {
                Fate::Unknown
            };
            self.claims.tell(id, fate, now, intake);
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

impl Source for SeccompSource {
    fn kind(&self) -> SourceKind {
        SourceKind::Seccomp
    }

    fn pump(&mut self, until: Moment, stop: &Stop, intake: &mut dyn Intake) -> Result<Pumped> {
        let either = self.either(stop)?;
        self.read(intake);
        let until =
            Moment { boot_ns: self.claims.next_due().unwrap_or(u64::MAX).min(until.boot_ns), ..until };
        let looks = self.inner.looks().0;
        let pumped = self.inner.pump(until, &either, &mut self.claims.fill(intake, self.unattributed));
        let (looks_now, took_ns) = self.inner.looks();
        if looks_now != looks {
            self.look_not_before_ns = source::now().boot_ns + IDLE_PARTS * took_ns;
        }
        self.read(intake);
        self.settle(false, intake);
        pumped
    }

    fn finish(&mut self, intake: &mut dyn Intake) -> Result<()> {
        self.read(intake);
        self.inner.finish(&mut self.claims.fill(intake, self.unattributed))?;
        self.settle(true, intake);
        Ok(())
    }

    fn health(&self) -> SourceHealth {
        let mut health = self.inner.health();
        health.kind = self.kind();
        let lost = self.handle.as_ref().map_or(0, Handle::lost) + self.claims.forgotten();
        let rings = self.rings.len() as u64;
        health.gaps.add(Gap::KernelDropped, lost);
        health.gaps.add(Gap::KernelUnfollowed, rings);
        health.gaps.add(Gap::PermissionDenied, self.unread);
        health.bounds.add(Bound::AddressChanged, self.claims.address_changed);
        health.bounds.add(Bound::SilentDatagrams, self.claims.silent);
        let notes = [
            (rings, "processes with an io_uring, whose connects are not seen"),
            (self.unread, "calls of processes that may not be looked into (not dumpable)"),
            (
                self.privileged_seen,
                "programs run without the rights they should have got: no_new_privs; use --source proc",
            ),
        ];
        for (count, note) in notes.into_iter().filter(|(count, _)| *count > 0) {
            let note = format!("not exact: {count} {note}");
            health.reason = Some(health.reason.map_or(note.clone(), |reason| format!("{reason}; {note}")));
        }
        health
    }

    fn now(&self) -> Moment {
        source::now()
    }
}
