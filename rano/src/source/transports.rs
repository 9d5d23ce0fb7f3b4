//! Which transports the running kernel has, and what a source therefore watches.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::health::{Bound, Bounds, Watched};
use crate::words::SourceKind;

/// How long an answer of the kernel's holds.
const AGAIN: Duration = Duration::from_secs(1);

/// By the kernel's names, with the words for them. A module that is loaded later is seen when this is asked again.
const KNOWN: [(&str, &str); 9] = [
    ("PING", "icmp"),
    ("RAW", "raw"),
    ("PACKET", "packet"),
    ("UDP-Lite", "udplite"),
    ("SCTP", "sctp"),
    ("DCCP", "dccp"),
    ("AF_VSOCK", "vsock"),
    ("TIPC", "tipc"),
    ("RDS", "rds"),
];

/// Transports beside TCP and UDP that the kernel has, asked again after a while.
fn present() -> Vec<&'static str> {
    static PRESENT: Mutex<Option<(Instant, Vec<&'static str>)>> = Mutex::new(None);
    let mut present = PRESENT.lock().unwrap_or_else(PoisonError::into_inner);
    match &*present {
        Some((asked, transports)) if asked.elapsed() < AGAIN => transports.clone(),
        _ => present.insert((Instant::now(), ask())).1.clone(),
    }
}

fn ask() -> Vec<&'static str> {
    let listed = std::fs::read_to_string("/proc/self/net/protocols").unwrap_or_default();
    let names: Vec<&str> = listed.lines().filter_map(|line| line.split_whitespace().next()).collect();
    KNOWN.into_iter().filter(|(name, _)| names.contains(name)).map(|(_, word)| word).collect()
}

/// What a source of that kind watches; what it cannot see goes to `bounds` and to its `reason`. `is_all`: nothing lies
/// outside of its view.
pub(super) fn watched(
    (kind, sees_uses, is_all): (SourceKind, bool, bool),
    (udp, other): (bool, bool),
    bounds: &mut Bounds,
    reason: &mut Option<String>,
) -> Watched {
    let is_root = rustix::process::geteuid().is_root();
    let watched = Watched::by(kind, udp, other, sees_uses, &present()).of(kind, is_root, is_all);
    bounds.add(Bound::Transports, watched.unseen.len() as u64);
    let reasons: Vec<String> = reason.take().into_iter().chain(watched.reasons()).collect();
    *reason = (!reasons.is_empty()).then(|| reasons.join("; "));
    watched
}
