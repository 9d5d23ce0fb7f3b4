//! Which transports the running kernel has, and what a source therefore watches.

use crate::health::{Bound, Bounds, Watched};
use crate::words::SourceKind;

/// By the kernel's names, with the words for them. A module that is loaded later is seen when this is asked again.
const KNOWN: [(&str, &str); 10] = [
    ("PING", "icmp"),
    ("RAW", "raw"),
    ("PACKET", "packet"),
    ("UDP-Lite", "udplite"),
    ("SCTP", "sctp"),
    ("DCCP", "dccp"),
    ("AF_VSOCK", "vsock"),
    ("TIPC", "tipc"),
    ("RDS", "rds"),
    ("XDP", "xdp"),
];

/// Transports beside TCP and UDP that the kernel has.
fn present() -> Vec<&'static str> {
    let listed = std::fs::read_to_string("/proc/self/net/protocols").unwrap_or_default();
    let names: Vec<&str> = listed.lines().filter_map(|line| line.split_whitespace().next()).collect();
    KNOWN.into_iter().filter(|(name, _)| names.contains(name)).map(|(_, word)| word).collect()
}

/// What a source of that kind watches; what it cannot see goes to `bounds` and to its `reason`.
pub(super) fn watched(
    (kind, sees_uses): (SourceKind, bool),
    (udp, other): (bool, bool),
    bounds: &mut Bounds,
    reason: &mut Option<String>,
) -> Watched {
    let mut watched = Watched::by(kind, udp, other, sees_uses, &present());
    let whose = if rustix::process::geteuid().is_root() || kind != SourceKind::Proc {
        "every process of this machine"
    } else {
        "the processes of this user"
    };
    watched.views.push(whose.to_owned());
    bounds.add(Bound::Transports, watched.unseen.len() as u64);
    if let Some(unseen) = watched.reason() {
        *reason = Some(reason.take().map_or(unseen.clone(), |reason| format!("{reason}; {unseen}")));
    }
    watched
}
