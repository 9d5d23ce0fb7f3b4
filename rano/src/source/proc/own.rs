//! The sockets of the network namespace in which rano runs: netlink dumps when something can have changed, /proc text
//! where netlink is refused, and the notifications that come between two looks.

use std::net::SocketAddr;
use std::ops::RangeInclusive;
use std::os::fd::BorrowedFd;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result};

use super::ProcSettings;
use super::caught::{Claim, Claims};
use super::closing::{self, Ends, Side};
use super::destroy::{DestroyHealth, DestroyListener, DestroySettings, Destroyed};
use super::gate::{Activity, Gate, Missed, OWN_NAMESPACE};
use super::inet::{InetSocket, States, TcpState};
use super::net_text;
use super::sock_diag::{DiagError, Dumped, Dumper, Info};
use super::sockets::{self, Ended, OTHERS, Seen, SocketTable};
use super::throttle::RateLimits;
use super::unix::UnixSocket;
use super::unix_ends::UnixEnds;
use crate::event::{Address, Bytes, Moment, OwnerQuality, Protocol, SocketState};
use crate::source::counting::{self, By, QUESTIONS_MAX};
use crate::source::{Intake, Role, SocketChange, SocketId, Stray};

/// Who waits for every end waits this long for the notification of it: with it come the bytes.
const PATIENCE: Duration = Duration::from_secs(5);

/// Our own namespace.
pub struct OwnNamespace {
    settings: ProcSettings,
    pub table: SocketTable,
    /// `None` where netlink is refused.
    dumper: Option<Dumper>,
    gate: Option<Gate>,
    /// What the counters said before the last look; `None` if there was none or it cannot be relied on.
    before: Option<Activity>,
    /// A datagram socket ended since the last look. One that took its place may have moved no counter.
    udp_ended: bool,
    listener: Option<DestroyListener>,
    missed: Missed,
    /// Of the listener when it ended.
    last_health: DestroyHealth,
    ends: Ends,
    heard: Vec<Destroyed>,
    /// Whose sockets are that no table showed so far.
    pub(super) claims: Claims,
    /// Connections that were seen between polls, since the last one.
    pub(super) sighted: u64,
    /// Tables that the kernel refused or does not have over netlink, and that are read as text.
    as_text: Vec<Protocol>,
    /// Looks that failed, and sockets that were described in a way that was not understood.
    pub unread: u64,
    /// Why it is not better, for people.
    pub reason: Option<String>,
}

impl OwnNamespace {
    pub fn open(settings: ProcSettings, netns: u32, ephemeral: RangeInclusive<u16>) -> Self {
        let mut reasons = Vec::new();
        // Before the first look, so that nothing falls between the two.
        let listener = if settings.once || settings.only_unix {
            None
        } else {
            listen(settings)
                .inspect_err(|error| {
                    reasons
                        .push(format!("connections shorter than the interval are only counted ({error:#})"));
                })
                .ok()
        };
        let dumper = Dumper::open()
            .inspect_err(|error| reasons.push(format!("reading /proc/net as text ({error})")))
            .ok();
        let gate = Gate::open(Path::new(OWN_NAMESPACE)).ok();
        let mut table = SocketTable::new(netns, ephemeral, true);
        if settings.every_end {
            table.wait_for_notifications(PATIENCE);
        }
        Self {
            settings,
            table,
            dumper,
            gate,
            before: None,
            udp_ended: false,
            listener,
            missed: Missed::default(),
            last_health: DestroyHealth::default(),
            ends: Ends::default(),
            heard: Vec::new(),
            claims: Claims::default(),
            sighted: 0,
            as_text: Vec::new(),
            unread: 0,
            reason: (!reasons.is_empty()).then(|| reasons.join("; ")),
        }
    }

    /// Reads what can have changed since the last look. `thorough`: datagram sockets whatever the counters say, because
    /// a bound one that connects moves none. Returns how many connections came and went between two looks, where no
    /// notification tells of them.
    pub fn look(&mut self, thorough: bool, now: Moment, out: &mut Vec<SocketChange>) -> u64 {
        if self.settings.only_unix {
            self.table.begin_look();
            if self.read(Protocol::Unix, now, out) {
                self.table.end_look(&[Protocol::Unix], &[], now, out);
            }
            return 0;
        }
        self.bury_listener();
        let activity = self.gate.as_mut().and_then(|gate| gate.read().ok());
        let reliable = self.is_notified() && self.as_text.is_empty() && !self.table.needs_look();
        let unchanged = |before: &Activity, now: &Activity| {
            // An accept moves no counter when it comes after the handshake.
            let tcp = before.tcp == now.tcp && !self.settings.listening;
            (tcp, before.udp == now.udp && !self.udp_ended && !thorough)
        };
        let (tcp_unchanged, udp_unchanged) = match (&self.before, &activity) {
            (Some(before), Some(activity)) if reliable => unchanged(before, activity),
            _ => (false, false),
        };
        self.before = activity;
        self.udp_ended = false;
        let mut looked_at = Vec::with_capacity(3);
        if !tcp_unchanged {
            looked_at.push(Protocol::Tcp);
        }
        if self.settings.udp && !udp_unchanged {
            looked_at.push(Protocol::Udp);
        }
        if self.settings.unix {
            looked_at.push(Protocol::Unix);
        }
        // No counter tells of these.
        if self.settings.other && (thorough || !looked_at.is_empty()) {
            looked_at.push(OTHERS);
        }
        if looked_at.is_empty() {
            return 0;
        }
        self.table.begin_look();
        let wanted = looked_at.len();
        looked_at.retain(|&protocol| self.read(protocol, now, out));
        if looked_at.len() < wanted {
            // The next poll tries again, whatever the counters say.
            self.before = None;
        }
        let mut notified = vec![Protocol::Tcp, Protocol::Udp];
        notified.retain(|protocol| self.is_notified() && !self.as_text.contains(protocol));
        self.table.end_look(&looked_at, &notified, now, out);
        let untold = self.listener.is_none() || self.as_text.contains(&Protocol::Tcp);
        match activity.filter(|_| untold && looked_at.contains(&Protocol::Tcp)) {
            Some(activity) => {
                let told = self.table.new_connects(now) + std::mem::take(&mut self.sighted);
                self.missed.count(activity.tcp.active_opens, told)
            }
            None => 0,
        }
    }

    /// Whether the table was read to its end. One that netlink does not give is read as text from now on.
    fn read(&mut self, protocol: Protocol, now: Moment, out: &mut Vec<SocketChange>) -> bool {
        let mut outcome = self.dump(protocol, now, out);
        if let Err(error) = &outcome
            && let Some(DiagError::Refused(_) | DiagError::Missing(_)) = error.downcast_ref()
        {
            let table = protocol.name();
            let reason =
                format!("short {table} connections are not seen: reading /proc/net as text ({error})");
            self.give_reason(&reason);
            self.as_text.push(protocol);
            outcome = self.dump(protocol, now, out);
        }
        match outcome {
            Ok(dumped) => self.unread += dumped.skipped,
            Err(_) => self.unread += 1,
        }
        outcome.is_ok()
    }

    /// Why it is not better, beside what is known already.
    pub fn give_reason(&mut self, reason: &str) {
        match &mut self.reason {
            Some(reasons) => {
                reasons.push_str("; ");
                reasons.push_str(reason);
            }
            None => self.reason = Some(reason.to_owned()),
        }
    }

    fn dump(&mut self, protocol: Protocol, now: Moment, out: &mut Vec<SocketChange>) -> Result<Dumped> {
        let Self { table, dumper, as_text, .. } = self;
        let dumper = dumper.as_mut().filter(|_| !as_text.contains(&protocol));
        let netns = table.netns();
        let net = Path::new(OWN_NAMESPACE);
        let each = |socket: &InetSocket| {
            if let Some(seen) = seen(netns, socket) {
                table.see(seen, now, out);
            }
        };
        Ok(match (protocol, dumper) {
            (Protocol::Tcp, Some(dumper)) => dumper.tcp(States::SOCKETS, Info::Without, each)?,
            (Protocol::Udp, Some(dumper)) => dumper.udp(States::ALL, each)?,
            (Protocol::Tcp, None) => net_text::tcp(net, each).context("read /proc/net/tcp")?,
            (Protocol::Udp, None) => net_text::udp(net, each).context("read /proc/net/udp")?,
            (other, _) if other.is_other() => {
                let mut found = Vec::new();
                let found_too = std::cell::RefCell::new(&mut found);
                let held = net_text::others(
                    net,
                    |socket| found_too.borrow_mut().extend(seen(netns, socket)),
                    |inode| found_too.borrow_mut().push(packet_socket(netns, inode)),
                );
                let held = held.context("read /proc/net/raw and others")?;
                for seen in found {
                    table.see(seen, now, out);
                }
                held
            }
            (_, dumper) => {
                let mut ends = UnixEnds::default();
                let add = |socket: &UnixSocket| ends.add(socket);
                let mut held = match dumper {
                    Some(dumper) => dumper.unix(add)?,
                    None => net_text::unix(net, add).context("read /proc/net/unix")?,
                };
                held.skipped += ends.left_out;
                for seen in ends.into_seen(netns) {
                    table.see(seen, now, out);
                }
                held
            }
        })
    }

    /// A listener that ended by itself leaves what it heard, and from now on the kernel's counter has to do.
    fn bury_listener(&mut self) {
        let failed = |listener: &DestroyListener| listener.health().failed;
        let Some(errno) = self.listener.as_ref().and_then(failed) else { return };
        if let Some(listener) = self.listener.take() {
            self.last_health = listener.stop(&mut self.heard);
        }
        self.give_reason(&format!("connections shorter than the interval are only counted ({errno})"));
    }

    fn is_notified(&self) -> bool {
        self.dumper.is_some() && self.listener.as_ref().is_some_and(|listener| listener.health().listening)
    }

    /// Readable when notifications have come.
    pub fn wake_fd(&self) -> Option<BorrowedFd<'_>> {
        self.listener.as_ref().map(DestroyListener::wake_fd)
    }

    pub fn health(&self) -> DestroyHealth {
        self.listener.as_ref().map_or(self.last_health, DestroyListener::health)
    }

    /// Takes the ends that notifications have told.
    pub fn hear(&mut self) {
        if let Some(listener) = &self.listener {
            listener.drain(&mut self.heard);
        }
    }

    /// Passes on what was heard.
    pub fn pass_on_heard(&mut self, intake: &mut dyn Intake) {
        let mut heard = std::mem::take(&mut self.heard);
        self.pass_on(&heard, intake);
        heard.clear();
        self.heard = heard;
    }

    /// Hears the last notifications; none come afterwards.
    pub fn stop_listening(&mut self) {
        if let Some(listener) = self.listener.take() {
            self.last_health = listener.stop(&mut self.heard);
        }
    }

    /// That table is read as text, where sockets have no cookies.
    pub(super) fn is_text(&self, protocol: Protocol) -> bool {
        self.dumper.is_none() || self.as_text.contains(&protocol)
    }

    fn pass_on(&mut self, heard: &[Destroyed], intake: &mut dyn Intake) {
        // The two ends of a connection on this host come in either order, and each tells of the other.
        for destroyed in heard {
            self.ends.note(destroyed);
            self.udp_ended |= destroyed.protocol == Protocol::Udp;
        }
        // What is read as text is known by its inode, of which a notification does not tell.
        for destroyed in heard {
            if self.as_text.contains(&destroyed.protocol) {
                continue;
            }
            let id = SocketId::Cookie { netns: self.table.netns(), cookie: destroyed.cookie };
            let every_end = self.settings.every_end;
            let claim = self.claims.take(id, destroyed.protocol, destroyed.remote.map(Address::ip).as_ref());
            let is_held_back = self.table.is_held_back(id);
            let orphan = match self.table.ended(id, destroyed.at) {
                Ended::Watched if !is_held_back || claim.is_none() => {
                    intake.socket(self.closing(id, destroyed));
                    continue;
                }
                Ended::Other if !every_end && claim.is_none() => continue,
                Ended::Orphan(seen) => Some(seen),
                Ended::Unseen | Ended::Other | Ended::Watched => self.unseen(id, destroyed),
            };
            let Some(orphan) = orphan else {
                if every_end {
                    intake.socket(self.closing(id, destroyed));
                }
                continue;
            };
            let role = self.role(&orphan, destroyed);
            if let Some(Claim { process, at, .. }) = claim {
                let netns = self.table.netns();
                let mut opened = sockets::unattributed(&orphan, role, at, netns);
                opened.owner = Some(process);
                opened.quality = OwnerQuality::Polled;
                intake.socket(SocketChange::Opened(opened));
                intake.socket(self.closing(id, destroyed));
            } else if self.settings.unattributed {
                let netns = self.table.netns();
                let opened = sockets::unattributed(&orphan, role, destroyed.at, netns);
                intake.socket(SocketChange::Opened(opened));
                intake.socket(self.closing(id, destroyed));
            } else if role == Role::Connect {
                let netns = self.table.netns();
                let opened = sockets::unattributed(&orphan, role, destroyed.at, netns);
                if let SocketChange::Closed(closed) = self.closing(id, destroyed) {
                    intake.stray(Stray { opened, closed });
                }
            }
        }
    }

    fn closing(&mut self, id: SocketId, destroyed: &Destroyed) -> SocketChange {
        let bytes = self.bytes(destroyed);
        let established = !closing::never_established(destroyed);
        sockets::closing(id, destroyed.at, bytes, Some(established))
    }

    fn bytes(&mut self, destroyed: &Destroyed) -> Option<Bytes> {
        let dumper = self.dumper.as_mut()?;
        let side = closing::side(destroyed);
        self.ends.payload(destroyed, side, dumper).map(closing::Payload::bytes)
    }

    /// Tells what open connections have sent and received so far. Of UDP the kernel counts nothing.
    pub fn count(&mut self, intake: &mut dyn Intake) {
        let Some(dumper) = &mut self.dumper else { return };
        let open = intake.open(Protocol::Tcp);
        if open.is_empty() {
            return;
        }
        let at = crate::source::now();
        let mut changes = Vec::new();
        let tell = |id, bytes| changes.push(SocketChange::Bytes { id, bytes, at });
        self.unread += u64::from(
            counting::tcp(dumper, self.table.netns(), open.into_iter(), By::Cookie, QUESTIONS_MAX, tell)
                .is_err(),
        );
        for change in changes {
            intake.socket(change);
        }
    }

    /// A socket that no look held; `None` if it was no connection.
    fn unseen(&self, id: SocketId, destroyed: &Destroyed) -> Option<Seen> {
        // Of a connection that was disconnected before its end only the other address is left.
        let remote = destroyed.remote.or_else(|| Some(SocketAddr::new(destroyed.disconnected_from?, 0)));
        let is_nothing = match remote {
            Some(remote) if destroyed.protocol == Protocol::Udp => !self.settings.udp || remote.port() == 0,
            Some(_) => false,
            None => true,
        };
        // Who asks for every end knows more.
        if is_nothing && !(self.settings.every_end && destroyed.protocol == Protocol::Udp) {
            return None;
        }
        let state = match destroyed.protocol {
            Protocol::Tcp if closing::never_established(destroyed) => Some(SocketState::Connecting),
            Protocol::Tcp => Some(SocketState::Established),
            _ => None,
        };
        Some(Seen {
            id,
            protocol: destroyed.protocol,
            local: Some(Address::ip(destroyed.local)),
            remote: remote.filter(|_| !is_nothing).map(Address::ip),
            state,
            listening: false,
            peer: None,
            inode: 0,
            uid: None,
        })
    }

    fn role(&self, seen: &Seen, destroyed: &Destroyed) -> Role {
        match closing::side(destroyed) {
            Side::Connecting => Role::Connect,
            Side::Accepting => Role::Accept,
            Side::Unknown if self.table.role(seen) == Role::Accept => Role::Accept,
            Side::Unknown => match closing::side_by_ports(destroyed, self.table.ephemeral()) {
                Side::Accepting => Role::Accept,
                Side::Connecting | Side::Unknown => Role::Connect,
            },
        }
    }

    /// Whether a connection that a look held is there no more, or nobody has it open any more.
    pub fn is_gone(&mut self, seen: &Seen) -> bool {
        let (Protocol::Tcp, Some(Address::Ip(local)), Some(Address::Ip(remote))) =
            (seen.protocol, &seen.local, &seen.remote)
        else {
            return false;
        };
        let Some(dumper) = &mut self.dumper else { return false };
        match dumper.find_tcp(*local, *remote, 0, Info::Without) {
            Ok(Some(socket)) => socket.inode != seen.inode,
            Ok(None) => true,
            Err(_) => false,
        }
    }

    /// Marks a watched socket that came from a listener which is gone: only the connecting side's SYN is counted as
    /// acknowledged (`tcp_snd_una_update()`).
    pub fn check_side(&mut self, id: SocketId) {
        let Some(seen) = self.table.seen(id) else { return };
        let (Some(Address::Ip(local)), Some(Address::Ip(remote))) = (&seen.local, &seen.remote) else {
            return;
        };
        let is_doubtful = seen.protocol == Protocol::Tcp
            && seen.state == Some(SocketState::Established)
            && self.table.role(seen) == Role::Connect;
        if !is_doubtful {
            return;
        }
        let Some(dumper) = &mut self.dumper else { return };
        let Ok(Some(socket)) = dumper.find_tcp(*local, *remote, 0, Info::With) else { return };
        if let Some(counters) = socket.counters
            && socket.send_queue == 0
            && counters.bytes_acked == counters.sent()
        {
            self.table.mark_served(id);
        }
    }
}

fn listen(settings: ProcSettings) -> Result<DestroyListener> {
    let usual = DestroySettings {
        udp: settings.udp,
        receive_buffer: settings.receive_buffer,
        net: PathBuf::from(OWN_NAMESPACE),
        ..DestroySettings::default()
    };
    DestroyListener::start(if settings.every_end {
        // For as long as a command runs, each of its connections is worth what it costs.
        let rate = RateLimits { per_second: 50_000, burst: 500_000, ..usual.rate };
        DestroySettings { queue: 1 << 17, rate, ..usual }
    } else {
        usual
    })
}

/// One of frames of a device; where they go is not known.
pub fn packet_socket(netns: u32, inode: u64) -> Seen {
    Seen {
        id: SocketId::Inode { netns, inode },
        protocol: Protocol::Packet,
        local: None,
        remote: None,
        state: None,
        listening: false,
        peer: None,
        inode,
        uid: None,
    }
}

/// A socket as the table keeps it; `None` for what is no socket of a process.
pub fn seen(netns: u32, socket: &InetSocket) -> Option<Seen> {
    let id = match socket.cookie {
        Some(cookie) => SocketId::Cookie { netns, cookie },
        None if socket.inode != 0 => SocketId::Inode { netns, inode: socket.inode },
        None => return None,
    };
    let tcp = socket.protocol == Protocol::Tcp;
    let has_ports = socket.protocol.has_ports();
    let address =
        |end: SocketAddr| if has_ports { Address::ip(end) } else { Address::Host(end.ip().to_canonical()) };
    let state = match socket.state {
        TcpState::Listen => None,
        TcpState::SynSent | TcpState::SynRecv | TcpState::NewSynRecv => Some(SocketState::Connecting),
        TcpState::Established => Some(SocketState::Established),
        TcpState::CloseWait => Some(SocketState::CloseWait),
        TcpState::FinWait1 | TcpState::FinWait2 | TcpState::Closing | TcpState::TimeWait => {
            Some(SocketState::TimeWait)
        }
        TcpState::LastAck | TcpState::Close | TcpState::BoundInactive => Some(SocketState::Closed),
    };
    Some(Seen {
        id,
        protocol: socket.protocol,
        local: Some(address(socket.local)),
        remote: socket.remote.map(address),
        state: state.filter(|_| tcp),
        listening: tcp && socket.state == TcpState::Listen,
        peer: None,
        inode: socket.inode,
        uid: Some(socket.uid),
    })
}
