//! What the kernel programs are attached to: facts, each with the ways to learn it, best first. A way is taken when all
//! its programs attach; a fact for which none does is gone without, and that is said.

use self::Attach::{
    CgroupAddress, CgroupPacket, CgroupSocket, Entry, Exit, ExitOf, Probe, RawTracepoint, SockOps,
};
use crate::event::SourceKind;
use crate::health::WITHOUT_USES;
use crate::source::views;

/// One program, and where it goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Attach {
    CgroupAddress(&'static str),
    CgroupSocket(&'static str),
    SockOps(&'static str),
    /// Every packet of a direction.
    CgroupPacket(&'static str, PacketWay),
    /// Program and tracepoint.
    RawTracepoint(&'static str, &'static str),
    /// Program and function: the first of the names that the kernel knows.
    Entry(&'static str, &'static [&'static str]),
    /// The same, with the number of arguments behind which the program finds what is returned.
    Exit(&'static str, &'static [&'static str], usize),
    /// Of several the one for the function's number of arguments.
    ExitOf(&'static [(&'static str, usize)], &'static [&'static str]),
    /// A kprobe or a kretprobe, as the object says.
    Probe(&'static str, &'static [&'static str]),
}

impl Attach {
    /// The programs of which one is attached.
    pub fn programs(&self) -> Vec<&'static str> {
        match self {
            Self::ExitOf(programs, _) => programs.iter().map(|(program, _)| *program).collect(),
            Self::CgroupAddress(program)
            | Self::CgroupSocket(program)
            | Self::SockOps(program)
            | Self::CgroupPacket(program, _)
            | Self::RawTracepoint(program, _)
            | Self::Entry(program, _)
            | Self::Exit(program, _, _)
            | Self::Probe(program, _) => vec![program],
        }
    }
}

/// Every function of the kernel that a program may be put on.
pub fn functions() -> impl Iterator<Item = &'static str> {
    FACTS
        .iter()
        .chain([&CONNECT])
        .flat_map(|fact| fact.ways)
        .flat_map(|(_, programs)| *programs)
        .flat_map(|attach| match attach {
            Entry(_, functions) | Exit(_, functions, _) | ExitOf(_, functions) | Probe(_, functions) => {
                *functions
            }
            CgroupAddress(_) | CgroupSocket(_) | SockOps(_) | CgroupPacket(..) | RawTracepoint(..) => &[],
        })
        .copied()
}

/// Direction of packets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PacketWay {
    Sent,
    Received,
}

/// How programs get to run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    Cgroup,
    RawTracepoint,
    Trampoline,
    Probe,
}

impl Way {
    /// In the kernel's words.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Cgroup => "cgroup",
            Self::RawTracepoint => "raw tracepoint",
            Self::Trampoline => "fentry",
            Self::Probe => "kprobe",
        }
    }

    /// The rung of which it is the mark.
    pub const fn rung(self) -> Option<SourceKind> {
        match self {
            Self::Trampoline => Some(SourceKind::EbpfFentry),
            Self::Probe => Some(SourceKind::EbpfKprobe),
            Self::Cgroup | Self::RawTracepoint => None,
        }
    }
}

/// When a fact is wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum When {
    Always,
    /// Listeners and what they accept are to be told.
    Listening,
    /// There are hooks of cgroups.
    WithCgroups,
    /// There are none.
    Alone,
    /// Names are to come from packets.
    Names,
    /// What is found by its use.
    Uses,
}

/// Something to learn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fact {
    /// Name of the hook, as reports have it.
    pub name: &'static str,
    pub when: When,
    /// What is not known without it, for people; empty where that is nothing.
    pub without: &'static str,
    pub ways: &'static [(Way, &'static [Attach])],
}

type Ways = &'static [(Way, &'static [Attach])];

const fn fact(name: &'static str, when: When, without: &'static str, ways: Ways) -> Fact {
    Fact { name, when, without, ways }
}

/// Without these there is nothing to observe.
pub const PROCESSES: Fact = fact(
    "sched",
    When::Always,
    "",
    &[(
        Way::RawTracepoint,
        &[
            RawTracepoint("process_fork", "sched_process_fork"),
            RawTracepoint("process_exec", "sched_process_exec"),
            RawTracepoint("process_exit", "sched_process_exit"),
        ],
    )],
);

/// The base: in the caller's context or with the socket's cookie, and never skipped.
pub const CGROUPS: Fact = fact(
    "cgroup",
    When::Always,
    "the ends of older sockets",
    &[(
        Way::Cgroup,
        &[
            SockOps("tcp_events"),
            CgroupSocket("socket_release"),
            CgroupAddress("socket_connect4"),
            CgroupAddress("socket_connect6"),
        ],
    )],
);

/// The mark of a rung.
pub const CONNECT: Fact = fact(
    "tcp_connect",
    When::Always,
    "",
    &[
        (Way::Trampoline, &[Entry("fentry_tcp_connect", &["tcp_connect"])]),
        (Way::Probe, &[Probe("kprobe_tcp_connect", &["tcp_connect"])]),
    ],
);

/// What becomes of connections where there are no hooks of cgroups.
pub const STATES: Fact = fact(
    "inet_sock_set_state",
    When::Alone,
    "",
    &[(Way::RawTracepoint, &[RawTracepoint("tcp_states", "inet_sock_set_state")])],
);

/// Packets with names. An answer without its question is none, so it is both directions or neither.
const NAMES: Fact = fact(
    "names",
    When::Names,
    "",
    &[(
        Way::Cgroup,
        &[CgroupPacket("names_sent", PacketWay::Sent), CgroupPacket("names_received", PacketWay::Received)],
    )],
);

/// What else there is to know; each may be missing.
pub const FACTS: &[Fact] = &[
    NAMES,
    fact(
        "task_rename",
        When::Always,
        "agents by a name that a process gives itself",
        &[(Way::RawTracepoint, &[RawTracepoint("process_rename", "task_rename")])],
    ),
    fact(
        "sendmsg4",
        When::WithCgroups,
        "datagrams over IPv4",
        &[(Way::Cgroup, &[CgroupAddress("socket_sendmsg4")])],
    ),
    fact(
        "sendmsg6",
        When::WithCgroups,
        "datagrams over IPv6",
        &[(Way::Cgroup, &[CgroupAddress("socket_sendmsg6")])],
    ),
    fact(
        "recvmsg",
        When::WithCgroups,
        "which of several ends datagrams came from",
        &[(Way::Cgroup, &[CgroupAddress("socket_recvmsg4"), CgroupAddress("socket_recvmsg6")])],
    ),
    fact(
        "post_bind",
        When::WithCgroups,
        "datagram sockets that only receive",
        &[(Way::Cgroup, &[CgroupSocket("socket_bind4"), CgroupSocket("socket_bind6")])],
    ),
    fact(
        "tcp_close",
        When::Always,
        "",
        &[
            (Way::Trampoline, &[Entry("fentry_tcp_close", &["tcp_close"])]),
            (Way::Probe, &[Probe("kprobe_tcp_close", &["tcp_close"])]),
        ],
    ),
    fact(
        "tcp_v4_connect",
        When::Always,
        "why a connect that found no route failed",
        &[
            (
                Way::Trampoline,
                &[
                    Exit("fexit_tcp_connect4", &["tcp_v4_connect"], 3),
                    Exit("fexit_tcp_connect6", &["tcp_v6_connect"], 3),
                ],
            ),
            (
                Way::Probe,
                &[
                    Probe("enter_tcp_connect4", &["tcp_v4_connect"]),
                    Probe("leave_tcp_connect4", &["tcp_v4_connect"]),
                    Probe("enter_tcp_connect6", &["tcp_v6_connect"]),
                    Probe("leave_tcp_connect6", &["tcp_v6_connect"]),
                ],
            ),
        ],
    ),
    fact(
        "udp_connect",
        When::WithCgroups,
        "",
        &[
            (
                Way::Trampoline,
                &[Exit("fexit_udp_connect4", UDP_CONNECT4, 3), Exit("fexit_udp_connect6", UDP_CONNECT6, 3)],
            ),
            (
                Way::Probe,
                &[
                    Probe("enter_udp_connect4", UDP_CONNECT4),
                    Probe("leave_udp_connect4", UDP_CONNECT4),
                    Probe("enter_udp_connect6", UDP_CONNECT6),
                    Probe("leave_udp_connect6", UDP_CONNECT6),
                ],
            ),
        ],
    ),
    fact(
        "udp_sendmsg",
        When::Alone,
        "datagrams",
        &[
            (
                Way::Trampoline,
                &[
                    Entry("fentry_udp_send4", &["udp_sendmsg"]),
                    Entry("fentry_udp_send6", &["udpv6_sendmsg"]),
                    Entry("fentry_udp_destroy4", &["udp_destroy_sock"]),
                    Entry("fentry_udp_destroy6", &["udpv6_destroy_sock"]),
                ],
            ),
            (
                Way::Probe,
                &[
                    Probe("kprobe_udp_send4", &["udp_sendmsg"]),
                    Probe("kprobe_udp_send6", &["udpv6_sendmsg"]),
                    Probe("kprobe_udp_destroy4", &["udp_destroy_sock"]),
                    Probe("kprobe_udp_destroy6", &["udpv6_destroy_sock"]),
                ],
            ),
        ],
    ),
    // Kretprobes last: they run out of slots in bursts.
    fact(
        DATAGRAM_BYTES,
        When::Always,
        "the bytes of datagrams",
        &[
            (
                Way::Trampoline,
                &[
                    Exit("fexit_udp_send4", &["udp_sendmsg"], 3),
                    Exit("fexit_udp_send6", &["udpv6_sendmsg"], 3),
                    Entry("fentry_udp_consume", &["skb_consume_udp"]),
                ],
            ),
            (
                Way::RawTracepoint,
                &[
                    RawTracepoint("socket_sent", "sock_send_length"),
                    RawTracepoint("socket_received", "sock_recv_length"),
                ],
            ),
            (
                Way::Probe,
                &[
                    Probe("enter_udp_send4", &["udp_sendmsg"]),
                    Probe("leave_udp_send4", &["udp_sendmsg"]),
                    Probe("enter_udp_send6", &["udpv6_sendmsg"]),
                    Probe("leave_udp_send6", &["udpv6_sendmsg"]),
                    Probe("kprobe_udp_consume", &["skb_consume_udp"]),
                ],
            ),
        ],
    ),
    fact(
        USES,
        When::Uses,
        WITHOUT_USES,
        &[(
            Way::RawTracepoint,
            &[
                RawTracepoint("other_sent", "sock_send_length"),
                RawTracepoint("other_received", "sock_recv_length"),
            ],
        )],
    ),
    fact(
        ACCEPT,
        When::Listening,
        "who accepts (it is taken to be who listens)",
        &[
            (Way::Trampoline, &[Entry("fentry_tcp_accept", &["security_sock_graft"])]),
            (Way::Probe, &[Probe("kprobe_tcp_accept", &["security_sock_graft"])]),
            (
                Way::Trampoline,
                &[ExitOf(&[("fexit_tcp_accept_of2", 2), ("fexit_tcp_accept_of4", 4)], &["inet_csk_accept"])],
            ),
        ],
    ),
];

pub const DATAGRAM_BYTES: &str = "udp_length";
pub const USES: &str = "sock_length";
pub const ACCEPT: &str = "accept";

/// The former from Linux 6.13 on.
const UDP_CONNECT4: &[&str] = &["udp_connect", "ip4_datagram_connect"];
const UDP_CONNECT6: &[&str] = &["udpv6_connect", "ip6_datagram_connect"];

/// What came of it: which hooks there are, and why not others.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hooks {
    pub rung: SourceKind,
    /// Whether there are hooks of cgroups.
    pub cgroups: bool,
    /// They are not on the root of the hierarchy, so they run for those below only.
    pub subtree: bool,
    /// Name of each fact that is learned, and the way.
    pub attached: Vec<(&'static str, Way)>,
    pub refused: Vec<Refused>,
}

/// A way that was tried and did not work.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refused {
    /// Name of the fact.
    pub hook: &'static str,
    pub way: Way,
    /// Empty where the rung is not one that has this way.
    pub reason: String,
    /// What is not known for it; `None` where nothing is, or where it is learned in another way.
    pub without: Option<&'static str>,
}

impl Hooks {
    /// Nothing yet: the lowest rung.
    pub const fn none() -> Self {
        Self {
            rung: SourceKind::EbpfTracepoint,
            cgroups: false,
            subtree: false,
            attached: Vec::new(),
            refused: Vec::new(),
        }
    }

    pub fn has(&self, name: &str) -> bool {
        self.attached.iter().any(|(attached, _)| *attached == name)
    }

    /// The way in which a fact is learned.
    pub fn way(&self, name: &str) -> Option<Way> {
        self.attached.iter().find(|(attached, _)| *attached == name).map(|(_, way)| *way)
    }

    /// Why the rung is not a better one, by rung from the best.
    pub fn why_not(&self, rung: SourceKind) -> Option<&str> {
        let of_rung = |refused: &&Refused| refused.hook == CONNECT.name && refused.way.rung() == Some(rung);
        self.refused.iter().find(of_rung).map(|refused| &*refused.reason)
    }

    /// Why no packets with names are told of; `None` where they are.
    pub fn why_no_names(&self) -> Option<&str> {
        if self.has(NAMES.name) {
            return None;
        }
        let refused = self.refused.iter().find(|refused| refused.hook == NAMES.name);
        Some(refused.map_or("not tried", |refused| &*refused.reason))
    }

    /// What lies outside of what is seen, for people.
    pub fn outside(&self) -> Option<String> {
        let group =
            self.subtree.then_some("connections of processes outside of this cgroup namespace are not seen");
        let outside: Vec<&str> = views::own().outside().into_iter().chain(group).collect();
        (!outside.is_empty()).then(|| outside.join("; "))
    }

    /// Why it is not better, in one line for people; `None` where it could not be.
    pub fn reason(&self) -> Option<String> {
        let mut reasons = Vec::new();
        let mut without = Vec::new();
        for refused in &self.refused {
            if refused.hook == CONNECT.name {
                reasons.push(format!("no {} ({})", refused.way.name(), refused.reason));
            } else if let Some(fact) = refused.without {
                let because = Some(&refused.reason).filter(|reason| !reason.is_empty());
                without.push(because.map_or(fact.to_owned(), |because| format!("{fact} ({because})")));
            }
        }
        if !without.is_empty() {
            reasons.push(format!("unknown: {}", without.join(", ")));
        }
        reasons.extend(self.outside());
        (!reasons.is_empty()).then(|| reasons.join("; "))
    }
}
