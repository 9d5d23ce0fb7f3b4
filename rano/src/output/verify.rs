//! What `rano verify` says: whole, changed or cut, and from where.

use std::fmt::Write as _;

use serde_json::{Value as Json, json};

use super::escape::Escaped;
use super::human::timestamp_millis as time;
use super::json;
use crate::store::query::verify::{Fault, Finding, Named, Place, Verified};

/// How the record is, in one word.
fn verdict(verified: &Verified) -> &'static str {
    let mut faults = verified.findings.iter().map(|finding| finding.fault);
    match verified.findings.first() {
        None if verified.lacks_key => "unknown",
        None => "whole",
        Some(Finding { fault: Fault::NoSeals, .. }) => "not sealed",
        Some(_) if faults.all(Fault::is_cut) => "cut",
        Some(_) => "changed",
    }
}

/// Lines for people. `is_anchored`: a head or a key was given.
pub fn text(verified: &Verified, is_anchored: bool) -> String {
    let mut out = String::new();
    write(&mut out, verified, is_anchored).expect("writing into a String cannot fail");
    out
}

fn write(out: &mut String, verified: &Verified, is_anchored: bool) -> std::fmt::Result {
    writeln!(
        out,
        "{}: {} seal(s), {} session(s), {} event(s)",
        verdict(verified),
        verified.seals,
        verified.sessions,
        verified.events
    )?;
    for finding in &verified.findings {
        writeln!(out, "  {}", sentence(finding))?;
    }
    if verified.more > 0 {
        writeln!(out, "  … and {} more", verified.more)?;
    }
    if let Some(head) = &verified.head {
        writeln!(out, "head {}{head}", if verified.is_keyed { "(with a key) " } else { "" })?;
    }
    for (count, meaning) in [
        (verified.unended, "session(s) have no sealed end: they are running, or were killed"),
        (verified.pruned, "session(s) were removed by --retain; their seals are still in the chain"),
        (verified.older, "session(s) are older than the seals in this file; nothing covers them"),
    ] {
        if count > 0 {
            writeln!(out, "note: {count} {meaning}")?;
        }
    }
    if verified.is_whole() && !is_anchored {
        writeln!(
            out,
            "note: whoever can write the file can also make all seals anew; to exclude that, compare with a head that you \
             kept elsewhere (--head), or seal with a key (--seal-key)"
        )?;
    }
    Ok(())
}

/// Where it is, and what.
fn sentence(finding: &Finding) -> String {
    let session = match &finding.session {
        Some(Named { run_id, name: Some(name) }) => {
            format!("session {} ({}): ", Escaped(run_id), Escaped(name))
        }
        Some(Named { run_id, name: None }) => format!("session {}: ", Escaped(run_id)),
        None => String::new(),
    };
    let from = match finding.from {
        Some(Place { seal, event: Some((event, ts)) }) => {
            format!("from seal {seal} (event {event}, {}): ", time(ts))
        }
        Some(Place { seal, event: None }) => format!("from seal {seal}: "),
        None => String::new(),
    };
    session + &from + &fault_text(finding.fault)
}

fn fault_text(fault: Fault) -> String {
    match fault {
        Fault::NoSeals => "no session in it has seals".into(),
        Fault::SealsMissing(to) => format!("the seals before it, up to {to}, are missing"),
        Fault::HeadMissing => {
            "the head that you named is not in it: its end was cut off, or all of it was written anew".into()
        }
        Fault::Link => "the seal does not follow from the one before it".into(),
        Fault::Unkeyed => "sealed without the key".into(),
        Fault::Rows => "events, processes or the session are not as they were written".into(),
        Fault::Shared => "endpoints, addresses, directories or kinds are not as they were written".into(),
        Fault::Amended(event) => format!("the name or the alert of event {event} is not what was sealed"),
        Fault::Names(event) => format!("the other names of event {event} are not those that were sealed"),
        Fault::SessionMissing(number) => format!("session number {number} has seals and is gone"),
        Fault::Stub => "the session is gone, and no seal covers its removal".into(),
        Fault::NotSealed => "it has no seal, unlike the sessions around it".into(),
        Fault::Unsealed(count) if count > 0 => format!("{count} event(s) have no seal"),
        Fault::Unsealed(count) => format!("{} sealed event(s) are gone", count.unsigned_abs()),
        Fault::State => "its counters, or the bytes of open connections, are not as they were written".into(),
        Fault::End => "it says that it ended in order, and no seal says so".into(),
        Fault::Sums(table) => format!("the sums in '{table}' are not those of its events"),
    }
}

fn fault_name(fault: Fault) -> &'static str {
    match fault {
        Fault::NoSeals => "no_seals",
        Fault::SealsMissing(_) => "seals_missing",
        Fault::HeadMissing => "head_missing",
        Fault::Link => "link",
        Fault::Unkeyed => "unkeyed",
        Fault::Rows => "rows",
        Fault::Shared => "shared",
        Fault::Amended(_) => "amended",
        Fault::Names(_) => "names",
        Fault::SessionMissing(_) => "session_missing",
        Fault::Stub => "stub",
        Fault::NotSealed => "not_sealed",
        Fault::Unsealed(_) => "unsealed",
        Fault::State => "state",
        Fault::End => "end",
        Fault::Sums(_) => "sums",
    }
}

/// The same as one JSON object.
pub fn json(verified: &Verified) -> String {
    let finding = |finding: &Finding| -> Json {
        json!({
            "kind": fault_name(finding.fault),
            "run_id": finding.session.as_ref().map(|session| &session.run_id),
            "session": finding.session.as_ref().and_then(|session| session.name.as_ref()),
            "seal": finding.from.map(|place| place.seal),
            "event": finding.from.and_then(|place| place.event).map(|(event, _)| event),
            "ts": finding.from.and_then(|place| place.event).map(|(_, ts)| time(ts)),
            "message": sentence(finding),
        })
    };
    json::text(&json!({
        "verdict": verdict(verified),
        "seals": verified.seals,
        "sessions": verified.sessions,
        "events": verified.events,
        "head": verified.head,
        "keyed": verified.is_keyed,
        "without_end": verified.unended,
        "pruned": verified.pruned,
        "older": verified.older,
        "findings": verified.findings.iter().map(finding).collect::<Vec<_>>(),
        "more": verified.more,
    })) + "\n"
}
