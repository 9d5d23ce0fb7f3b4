//! What a finding says, in a sentence. Names from outside have their control characters written out.

use super::super::escape::Line;
use super::super::human::{Size, timestamp_seconds};
use crate::policy::{Finding, Kind, Lack, Reached, Remark, Verdict, Why};

/// Its subject: `evil.example:443`, `class telemetry`, `session 4711-1`.
pub(super) fn title(finding: &Finding) -> String {
    let session = || match &finding.run_id {
        Some(run_id) => format!("session {}", Line(run_id)),
        None => "the record".to_owned(),
    };
    match &finding.why {
        Why::NewClass { class, .. } => format!("class {}", class.name()),
        Why::RuleExpired { rule, .. } | Why::RuleUnused { rule } => format!("rule for {}", Line(rule)),
        Why::Lack(_) => session(),
        Why::Denied { .. }
        | Why::NotAllowed { .. }
        | Why::NoName { .. }
        | Why::OtherWho { .. }
        | Why::TooMuch { .. } => finding.reached.as_ref().map_or_else(session, endpoint),
    }
}

/// A name with its port, or an address that has it already.
pub(super) fn endpoint(reached: &Reached) -> String {
    match (&reached.name, reached.contact.port) {
        (Some(known), Some(port)) => format!("{}:{port}", Line(&known.name)),
        _ => Line(&reached.endpoint()).to_string(),
    }
}

pub(super) fn sentence(finding: &Finding) -> String {
    let who = finding.reached.as_ref().map(who).unwrap_or_default();
    let to = title(finding);
    let because = |expired: &Option<String>| {
        expired.as_ref().map(|rule| format!("; the rule for {} has expired", Line(rule))).unwrap_or_default()
    };
    match &finding.why {
        Why::Denied { rule, is_possible } => {
            let possibly = if *is_possible { ", by a name that it may have" } else { "" };
            format!("{who} reached {to}, which the rule for {} denies{possibly}", Line(rule))
        }
        Why::NotAllowed { expired } => {
            format!("{who} reached {to}, which no rule allows{}", because(expired))
        }
        Why::NoName { weak, expired } => {
            let weak = weak
                .as_ref()
                .map(|known| format!(" ({} is known by {} only)", Line(&known.name), Line(&known.by)));
            let weak = weak.unwrap_or_default();
            format!(
                "{who} reached {to}; no accepted name is known{weak}, and no rule allows the address{}",
                because(expired)
            )
        }
        Why::OtherWho { allowed } => {
            format!("{who} reached {to}, which is allowed for {} only", Line(allowed))
        }
        Why::NewClass { class, endpoints } => format!(
            "{who} reached an endpoint of class {}, and no rule allows this class ({endpoints} in all)",
            class.name()
        ),
        Why::TooMuch { is_sent, bytes, limit } => {
            let (was, to_or_from) = if *is_sent { ("were sent", "to") } else { ("were received", "from") };
            format!("{} {was} {to_or_from} {to}; the limit is {}", Size(*bytes), Size(*limit))
        }
        Why::Lack(lack) => lacks(lack),
        Why::RuleExpired { rule, at } => {
            format!("the rule for {} expired on {}", Line(rule), timestamp_seconds(*at))
        }
        Why::RuleUnused { rule } => format!("the rule for {} allowed nothing that was seen", Line(rule)),
    }
}

fn who(reached: &Reached) -> String {
    let contact = &reached.contact;
    match &contact.agent {
        Some(agent) if *agent != contact.program => {
            format!("{} (for {})", Line(&contact.program), Line(agent))
        }
        _ => Line(&contact.program).to_string(),
    }
}

pub(super) fn lacks(lack: &Lack) -> String {
    match lack {
        Lack::Source(source) => {
            format!("it was observed by {}, which the policy does not accept", Line(source))
        }
        Lack::Gap(gap, count) => format!("the record has gaps: {count} {}", gap.meaning()),
        Lack::Unclean => "the session has no end: rano was killed, or the machine stopped".to_owned(),
        Lack::Running => "the session is still running".to_owned(),
        Lack::Excluded(count) => {
            format!(
                "{count} {} left out by --exclude-pattern",
                plural(*count, "connection was", "connections were")
            )
        }
        Lack::LeftOut(what) => format!("{} was left out", Line(what)),
        Lack::Nothing => "nothing was observed, so nothing can be said".to_owned(),
        Lack::PolicyChanged => "the policy changed while the command ran".to_owned(),
        Lack::NoRoom(count) => format!("{count} connections found no room to be judged"),
    }
}

pub(super) fn plural(count: u64, one: &'static str, many: &'static str) -> &'static str {
    if count == 1 { one } else { many }
}

/// How the name is known; how often, how much.
pub(super) fn facts(reached: &Reached) -> String {
    let seen = &reached.contact.seen;
    let times = seen.count();
    let mut parts = vec![format!("{times} {}", plural(times, "connection", "connections"))];
    if seen.fails > 0 {
        parts.push(format!("{} failed", seen.fails));
    }
    if let Some(bytes) = seen.bytes {
        parts.push(format!("sent {}, received {}", Size(bytes.sent), Size(bytes.received)));
    }
    parts.push(match &reached.name {
        Some(known) => format!("name by {}", Line(&known.by)),
        None => "no name".to_owned(),
    });
    parts.push(format!("class {}", reached.class.name()));
    parts.join(", ")
}

pub(super) fn remark(remark: &Remark) -> String {
    match remark {
        Remark::NoNames => "polling cannot learn names that this policy accepts, so no domain rule can hold. Observe \
             with eBPF (as root), run the command with `rano run`, add address rules (cidr), or accept weaker names on \
             purpose: names = [\"dns\", \"known\"]"
            .to_owned(),
        Remark::BytesUnknown(count) => format!(
            "the bytes of {count} {} are not known; limits do not see them",
            plural(*count, "connection", "connections")
        ),
        Remark::More(count) => format!("{count} more findings are not listed"),
        Remark::LetPass(gap, count) => {
            format!("the policy lets gaps pass (complete = false): {count} {}", gap.meaning())
        }
        Remark::NoCost(gap, count) => {
            format!("{count} {}; with this source no connection is missing for it", gap.meaning())
        }
        Remark::NothingReached => "no connection was seen".to_owned(),
    }
}

/// The last line: how it went.
pub(super) fn outcome(verdict: &Verdict) -> String {
    let all = verdict.findings.len() as u64;
    let failing = verdict.failing().count() as u64;
    if all == 0 {
        return "no findings".to_owned();
    }
    let kinds: Vec<&str> = verdict.fail_on.iter().map(|kind| kind.name()).collect();
    let on = if kinds.is_empty() { "none".to_owned() } else { kinds.join(", ") };
    let findings = plural(all, "finding", "findings");
    format!("{all} {findings}, of which {failing} {} (fails on: {on})", plural(failing, "fails", "fail"))
}

pub(super) fn counts(verdict: &Verdict) -> String {
    let Verdict { endpoints, allowed, connections, ignored, .. } = verdict;
    let word = plural(*endpoints, "endpoint", "endpoints");
    let times = plural(*connections, "connection", "connections");
    format!("{endpoints} {word}, {allowed} allowed; {connections} {times}, {ignored} ignored")
}

/// `error`, `warning` and `note` of SARIF.
pub(super) fn level(finding: &Finding) -> &'static str {
    match finding.kind {
        _ if finding.fails => "error",
        Kind::Stale => "note",
        _ => "warning",
    }
}
