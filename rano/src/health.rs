//! What a source is, why it is not a better one, and what it may have missed.

use crate::words::SourceKind;

/// Each way in which something can stay unseen. Declared once: the summary, the `sessions` columns and the report
/// use the same names and words.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Gap {
    /// Connections seen only as they ended, and those that last but whose process may not be looked into.
    Unattributed,
    /// Destroy notifications that the kernel could not queue for us.
    NotificationsLost,
    /// Connections opened while the notifications were switched off because there were too many.
    OpenedUnwatched,
    /// Processes whose descriptors could not be read for lack of permission, and watched ones of which no socket is
    /// seen, because they are outside of the cgroups that the kernel programs are on.
    PermissionDenied,
    /// Processes that were gone before they could be read, or whose parent was, so that nobody knows whose they are.
    Vanished,
    /// Connections whose end will not be noticed, because too many are open at once.
    TableFull,
    /// Records that the kernel programs had no room for.
    KernelDropped,
    /// Sockets that the kernel programs could not follow, because their tables were full or a read failed: their
    /// attempts are told, if anything of them found room.
    KernelUnfollowed,
    /// Times that the kernel skipped one of its programs, or forgot what one had counted: others tell of the
    /// connection, without its bytes, its errno or who accepted it.
    KernelSkipped,
    /// Looks at a socket table or at a process's descriptors that failed, and entries that were not understood.
    Unread,
    /// Packets with names that found no room, came too fast or were not understood.
    NamesLost,
    /// Connections to public addresses whose name is not known.
    Unresolved,
    /// Answers, greetings and look-ups that found no room among those that wait to be joined with a connection.
    NamesForgotten,
    /// Events that SQLite did not get, because its queue was full or it failed.
    SqliteDropped,
}

impl Gap {
    /// Each of them.
    pub const ALL: [Self; 14] = [
        Self::Unattributed,
        Self::NotificationsLost,
        Self::OpenedUnwatched,
        Self::PermissionDenied,
        Self::Vanished,
        Self::TableFull,
        Self::KernelDropped,
        Self::KernelUnfollowed,
        Self::KernelSkipped,
        Self::Unread,
        Self::NamesLost,
        Self::Unresolved,
        Self::NamesForgotten,
        Self::SqliteDropped,
    ];

    /// Those that mean that a table was full: said when it happens first, not only at the end.
    pub const OF_ROOM: [Self; 4] =
        [Self::TableFull, Self::KernelDropped, Self::KernelUnfollowed, Self::NamesForgotten];

    /// Column in `sessions` and key in JSON.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Unattributed => "unattributed",
            Self::NotificationsLost => "notifications_lost",
            Self::OpenedUnwatched => "opened_unwatched",
            Self::PermissionDenied => "permission_denied",
            Self::Vanished => "vanished",
            Self::TableFull => "table_full",
            Self::KernelDropped => "kernel_dropped",
            Self::KernelUnfollowed => "kernel_unfollowed",
            Self::KernelSkipped => "kernel_skipped",
            Self::Unread => "unread",
            Self::NamesLost => "names_lost",
            Self::Unresolved => "unresolved",
            Self::NamesForgotten => "names_forgotten",
            Self::SqliteDropped => "sqlite_dropped",
        }
    }

    /// What the count counts, for people; reads on after the number.
    pub const fn meaning(self) -> &'static str {
        match self {
            Self::Unattributed => {
                "unattributed: connections whose process was not found: too short, or not to be looked into"
            }
            Self::NotificationsLost => {
                "notifications lost: ends of connections the kernel had no room to tell us"
            }
            Self::OpenedUnwatched => {
                "opened unwatched: connections opened while too many a second were ending"
            }
            Self::PermissionDenied => {
                "permission denied: processes of other users, or in cgroups out of reach, that were not looked into"
            }
            Self::Vanished => {
                "vanished: processes that were gone, or whose parent was, before they could be read"
            }
            Self::TableFull => "table full: connections whose end is not noticed, too many were open",
            Self::KernelDropped => {
                "kernel dropped: records of the kernel programs that found their buffer full"
            }
            Self::KernelUnfollowed => {
                "kernel unfollowed: sockets that the kernel programs had no room or no way to follow"
            }
            Self::KernelSkipped => {
                "kernel skipped: facts, not connections, that the kernel passed over one of its programs for"
            }
            Self::Unread => {
                "unread: looks that failed, for lack of descriptors or memory, or were not understood"
            }
            Self::NamesLost => "names lost: packets with names that found no room or were not understood",
            Self::Unresolved => "unresolved: connections to public addresses whose name is not known",
            Self::NamesForgotten => {
                "names forgotten: answers that found no room until their connection was seen"
            }
            Self::SqliteDropped => "sqlite dropped: events that are not in the database",
        }
    }
}

/// Bounds that cost no connection where they are reached, but a detail or a convenience. Each is counted, for the
/// summary.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Bound {
    /// Arguments of processes that were longer than a record, and gone before they could be read elsewhere.
    Arguments,
    /// Names of a connection that has as many others already as are kept.
    OtherNames,
    /// Ended connections, and their sockets, that made room before their time was over.
    LateNames,
    /// Connections without a name for which no answer was awaited any more.
    AwaitedAnswers,
    /// Requests to proxies that made room before the proxy's own connection could be linked.
    Relays,
    /// Unknown endpoints that were told of without waiting for a name.
    UnknownEndpoints,
    /// Alerts whose cooldown was forgotten before it was over.
    Cooldowns,
    /// Connects to names and addresses that went from the rankings, because there were too many.
    Rankings,
    /// Transports that the kernel has and the source cannot see.
    Transports,
    /// Connects that led elsewhere than the caller said.
    AddressChanged,
    /// Datagram sockets that were connected and sent nothing that was seen.
    SilentDatagrams,
    /// Process events that the kernel had no room for, or we had none for what they led to: found by polling.
    ProcessEvents,
    /// Times that looks between polls were put off, to stay below a hundredth of a processor.
    QuickLooks,
}

impl Bound {
    pub const ALL: [Self; 13] = [
        Self::Arguments,
        Self::OtherNames,
        Self::LateNames,
        Self::AwaitedAnswers,
        Self::Relays,
        Self::UnknownEndpoints,
        Self::Cooldowns,
        Self::Rankings,
        Self::Transports,
        Self::AddressChanged,
        Self::SilentDatagrams,
        Self::ProcessEvents,
        Self::QuickLooks,
    ];

    /// Key in JSON.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Arguments => "arguments_cut",
            Self::OtherNames => "other_names",
            Self::LateNames => "late_names",
            Self::AwaitedAnswers => "awaited_answers",
            Self::Relays => "relays",
            Self::UnknownEndpoints => "unknown_endpoints",
            Self::Cooldowns => "cooldowns",
            Self::Rankings => "rankings",
            Self::Transports => "transports_unseen",
            Self::AddressChanged => "address_changed",
            Self::SilentDatagrams => "silent_datagrams",
            Self::ProcessEvents => "process_events_lost",
            Self::QuickLooks => "looks_put_off",
        }
    }

    /// What the count counts, for people; reads on after the number.
    pub const fn meaning(self) -> &'static str {
        match self {
            Self::Arguments => {
                "arguments cut: command lines of processes that ended before the rest was read"
            }
            Self::OtherNames => "other names: further names of connections that have eight already",
            Self::LateNames => "late names: ended connections that were not kept for names that come late",
            Self::AwaitedAnswers => {
                "awaited answers: connections for which no DNS answer was awaited any more"
            }
            Self::Relays => {
                "relays: requests to proxies, too many at once to link the proxies' own connections to them"
            }
            Self::UnknownEndpoints => "unknown endpoints: reported without waiting for their names",
            Self::Cooldowns => "cooldowns: alerts that may be repeated early, there were too many at once",
            Self::Transports => {
                "transports unseen: kinds of sockets that this kernel has and this source cannot see"
            }
            Self::AddressChanged => {
                "address changed: connects that led to another address than the program passed; shown is the kernel's"
            }
            Self::SilentDatagrams => {
                "silent datagrams: datagram sockets that were connected and closed with nothing seen to be sent"
            }
            Self::ProcessEvents => {
                "process events lost: forks and execs that the kernel had no room to report; polls found the rest"
            }
            Self::QuickLooks => {
                "looks put off: times that looking between polls would have cost more than 1 % of a processor"
            }
            Self::Rankings => "rankings: connects to rare names and addresses, which were too many to rank",
        }
    }

    /// What was seen of it is not all there was, and no [`Gap`] says so.
    pub const fn is_gap(self) -> bool {
        match self {
            Self::Arguments | Self::OtherNames | Self::Transports => true,
            Self::LateNames
            | Self::AwaitedAnswers
            | Self::Relays
            | Self::UnknownEndpoints
            | Self::Cooldowns
            | Self::Rankings
            | Self::AddressChanged
            | Self::SilentDatagrams
            | Self::ProcessEvents
            | Self::QuickLooks => false,
        }
    }
}

/// A count for every [`Bound`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Bounds([u64; Bound::ALL.len()]);

impl Bounds {
    pub fn get(&self, bound: Bound) -> u64 {
        self.0[bound as usize]
    }

    pub fn add(&mut self, bound: Bound, count: u64) {
        self.0[bound as usize] += count;
    }

    /// In the order of [`Bound::ALL`], without the zeros.
    pub fn present(&self) -> impl Iterator<Item = (Bound, u64)> + '_ {
        Bound::ALL.into_iter().map(|bound| (bound, self.get(bound))).filter(|(_, count)| *count > 0)
    }
}

/// A count for every [`Gap`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Gaps([u64; Gap::ALL.len()]);

impl Gaps {
    /// How often it happened.
    pub fn get(&self, gap: Gap) -> u64 {
        self.0[gap as usize]
    }

    /// It happened so often more.
    pub fn add(&mut self, gap: Gap, count: u64) {
        self.0[gap as usize] += count;
    }

    /// It happened so often in all.
    pub fn set(&mut self, gap: Gap, count: u64) {
        self.0[gap as usize] = count;
    }

    /// In the order of [`Gap::ALL`], without the zeros.
    pub fn present(&self) -> impl Iterator<Item = (Gap, u64)> + '_ {
        Gap::ALL.into_iter().map(|gap| (gap, self.get(gap))).filter(|(_, count)| *count > 0)
    }
}

/// What was watched. That nothing was missed is said of this alone.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Watched {
    /// Words of transports.
    pub transports: Vec<&'static str>,
    /// Of those beside TCP and UDP, polls see what is open, and nothing tells of the others.
    pub only_open: bool,
    /// Transports that were asked for, and that the kernel has, but the source does not see: each is a gap.
    pub unseen: Vec<&'static str>,
    /// What the user did not ask for, for people.
    pub left_out: Vec<&'static str>,
    /// Whose processes, for people.
    pub views: Vec<String>,
}

/// Transports beside TCP and UDP, by the words of them that every look at `/proc/net` holds, and the rest.
const IN_PROC: [&str; 4] = ["icmp", "raw", "packet", "udplite"];
const OTHERS: [&str; 5] = ["sctp", "dccp", "vsock", "tipc", "rds"];
/// Frames that leave a process by no call, which no source sees.
const NEVER: &str = "but not frames by XDP or TUN";

/// The kernel tells of ends in rano's own network namespace alone.
const ELSEWHERE: &str = "in other network namespaces while open at a poll";

impl Watched {
    /// By a source of that kind. `sees_uses`: it sees sockets by their use. `present`: transports beside TCP and UDP
    /// that this kernel has.
    pub fn by(kind: SourceKind, udp: bool, other: bool, sees_uses: bool, present: &[&'static str]) -> Self {
        let mut transports = vec!["tcp"];
        transports.extend(udp.then_some("udp"));
        if other {
            match kind {
                SourceKind::Proc | SourceKind::Seccomp => transports.extend(IN_PROC),
                _ if sees_uses => transports.extend(IN_PROC.into_iter().chain(OTHERS)),
                _ => {}
            }
        }
        let is_unseen = |word: &&'static str| other && !transports.contains(word);
        let unseen = present.iter().copied().filter(is_unseen).collect();
        let left_out = [(udp, LEFT_OUT_UDP), (other, LEFT_OUT_OTHER)];
        let left_out =
            left_out.into_iter().filter(|(is_asked, _)| !is_asked).map(|(_, words)| words).collect();
        let only_open = other && matches!(kind, SourceKind::Proc | SourceKind::Seccomp);
        Self { transports, only_open, unseen, left_out, views: Vec::new() }
    }

    /// As a stored session says it was: by the reason that its source gave.
    pub fn recorded(kind: SourceKind, is_root: bool, reason: &str) -> Self {
        let [udp, other, sees_uses, is_all] =
            [LEFT_OUT_UDP, LEFT_OUT_OTHER, WITHOUT_USES, OUTSIDE].map(|part| !reason.contains(part));
        Self::by(kind, udp, other, sees_uses, &[]).of(kind, is_root, is_all)
    }

    /// The same, with whose processes they are. `is_all`: nothing lies outside of the source's view.
    #[must_use]
    pub fn of(mut self, kind: SourceKind, is_root: bool, is_all: bool) -> Self {
        let whose = match (is_root || kind != SourceKind::Proc, is_all) {
            _ if kind == SourceKind::Seccomp => "the command and all that it starts",
            (true, true) => "every process of this machine",
            (true, false) => "every process of these namespaces",
            (false, true) => "the processes of this user",
            (false, false) => "the processes of this user in these namespaces",
        };
        self.views.push(whose.to_owned());
        if kind == SourceKind::Proc {
            self.views.push(ELSEWHERE.to_owned());
        }
        self
    }

    /// What is to be said of the transports that are not seen, and of those that nobody asked for.
    pub fn reasons(&self) -> impl Iterator<Item = String> + '_ {
        let unseen = (!self.unseen.is_empty()).then(|| format!("{UNSEEN}{}", self.unseen.join(", ")));
        self.left_out.iter().map(|&words| words.to_owned()).chain(unseen)
    }
}

/// What the kernel's programs do not see where they cannot see sockets by their use.
pub const WITHOUT_USES: &str = "transports beside TCP and UDP, sockets that came from somebody else";
/// What the user left out.
const LEFT_OUT_UDP: &str = "left out: udp";
const LEFT_OUT_OTHER: &str = "left out: transports beside TCP and UDP";
/// In what a source says of processes that are beyond its view.
pub const OUTSIDE: &str = "outside of this";
/// Before the list of what a source cannot see.
pub const UNSEEN: &str = "not seen: ";

impl std::fmt::Display for Watched {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (others, always): (Vec<&str>, Vec<&str>) =
            self.transports.iter().partition(|word| self.only_open && IN_PROC.contains(word));
        f.write_str(&always.join(", "))?;
        if !others.is_empty() {
            write!(f, ", {} while open at a poll", others.join(", "))?;
        }
        if self.transports.contains(&"packet") {
            write!(f, ", {NEVER}")?;
        }
        if !self.views.is_empty() {
            write!(f, "; {}", self.views.join(", "))?;
        }
        Ok(())
    }
}

/// What is known of a source's trustworthiness.
#[derive(Debug, Clone)]
pub struct SourceHealth {
    pub kind: SourceKind,
    /// Why it is not a better one, and what would help.
    pub reason: Option<String>,
    pub gaps: Gaps,
    pub bounds: Bounds,
    pub watched: Watched,
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every transport of the kernel is in the list, is a gap, or was left out on purpose.
    #[test]
    fn what_is_not_watched_is_a_gap() {
        let present: Vec<&str> = IN_PROC.into_iter().chain(OTHERS).collect();
        for kind in SourceKind::ALL {
            for sees_uses in [false, true] {
                let watched = Watched::by(kind, true, true, sees_uses, &present);
                for word in &present {
                    let is_listed = watched.transports.contains(word);
                    assert!(is_listed != watched.unseen.contains(word), "{kind:?} {sees_uses} {word}");
                }
            }
            // What only a poll can find is not said to be watched like the rest.
            let polls = matches!(kind, SourceKind::Proc | SourceKind::Seccomp);
            let watched = Watched::by(kind, true, true, true, &present).to_string();
            assert_eq!(watched.contains("udplite while open at a poll"), polls, "{watched}");
            let views = Watched::by(kind, true, true, true, &[]).of(kind, true, true).to_string();
            assert_eq!(views.contains(ELSEWHERE), kind == SourceKind::Proc, "{views}");
            let left_out = Watched::by(kind, false, false, true, &present);
            assert_eq!((left_out.to_string().as_str(), left_out.unseen.len()), ("tcp", 0));
        }
    }

    /// Whoever reads a stored session is told what that session was told.
    #[test]
    fn what_was_watched_is_known_from_the_reason() {
        for kind in SourceKind::ALL {
            for (udp, other, is_root) in [(true, true, true), (false, true, false), (true, false, true)] {
                let watched = Watched::by(kind, udp, other, true, &[]).of(kind, is_root, true);
                let reason = watched.reasons().collect::<Vec<_>>().join("; ");
                assert_eq!(Watched::recorded(kind, is_root, &reason), watched, "{reason}");
            }
        }
        let inside = Watched::recorded(SourceKind::EbpfFentry, true, &format!("processes {OUTSIDE} cgroup"));
        assert!(!inside.to_string().contains("machine"), "{inside}");
    }
}
