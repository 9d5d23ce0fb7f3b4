//! For people.

use std::fmt::Write as _;

use super::super::escape::{Escaped, Line, cut};
use super::super::fold::folded;
use super::super::human::timestamp_seconds;
use super::super::report::Look;
use super::super::style::Styles;
use super::words::{counts, facts, lacks, outcome, remark, sentence, title};
use crate::policy::{Finding, Lack, Observed, Remark, Verdict};

/// Sessions that are listed.
const SESSIONS: usize = 8;

pub fn text(verdict: &Verdict, look: &Look<'_>) -> String {
    let mut out = String::new();
    head(&mut out, verdict, look).expect("writing into a String cannot fail");
    for finding in &verdict.findings {
        out.push('\n');
        one(&mut out, finding, look).expect("writing into a String cannot fail");
    }
    for said in &verdict.remarks {
        out.push('\n');
        out.push_str(&folded(format!("note: {}\n", remark(said)), Some(look.width), 6));
    }
    let paint = if verdict.fails() { look.styles.critical } else { look.styles.heading };
    writeln!(out, "\n{paint}{}{paint:#}", outcome(verdict)).expect("writing into a String cannot fail");
    out
}

fn head(out: &mut String, verdict: &Verdict, look: &Look<'_>) -> std::fmt::Result {
    let paint = look.styles.heading;
    writeln!(out, "{paint}Policy{paint:#}")?;
    writeln!(out, "  {} (sha256 {})", Line(&verdict.path), verdict.sha256)?;
    for session in verdict.observed.iter().take(SESSIONS) {
        writeln!(out, "  {}", observed(session))?;
    }
    if verdict.observed.len() > SESSIONS {
        writeln!(out, "  … and {} more sessions", verdict.observed.len() - SESSIONS)?;
    }
    writeln!(out, "  {}", counts(verdict))
}

pub(super) fn observed(session: &Observed) -> String {
    let name = session.name.as_deref().map(|name| format!(" {}", Escaped(name))).unwrap_or_default();
    let start = timestamp_seconds(session.started_at);
    format!("session {}{name}, {}, started {start}", Escaped(&session.run_id), Line(&session.source))
}

fn one(out: &mut String, finding: &Finding, look: &Look<'_>) -> std::fmt::Result {
    let Styles { critical, warning, .. } = *look.styles;
    let (sign, paint) = if finding.fails { ('✗', critical) } else { ('⚠', warning) };
    writeln!(out, "{paint}{sign} {}{paint:#}  {}", finding.kind.name(), title(finding))?;
    out.push_str(&folded(format!("    {}\n", sentence(finding)), Some(look.width), 4));
    if let Some(reached) = &finding.reached {
        out.push_str(&folded(format!("    {}\n", facts(reached)), Some(look.width), 4));
        let contact = &reached.contact;
        for (word, text) in [("tool", &contact.tool), ("command", &contact.command)] {
            if let Some(text) = text {
                writeln!(
                    out,
                    "    {word:<8}{}",
                    cut(&Line(text).to_string(), look.width.saturating_sub(12))
                )?;
            }
        }
        if reached.more > 0 {
            writeln!(out, "    and {} more calls or programs", reached.more)?;
        }
    }
    writeln!(out, "    {}:{}", Line(&finding.place.file), finding.place.line)?;
    if let Some(allow) = &finding.allow {
        writeln!(out, "    to permit it:")?;
        for line in allow.lines() {
            writeln!(out, "      {}", Line(line))?;
        }
    }
    Ok(())
}

/// How it went, in a line.
pub fn ending(verdict: &Verdict) -> String {
    format!("policy: {}\n", outcome(verdict))
}

/// A finding in one line, as it happens.
pub fn live(finding: &Finding) -> String {
    let word = if finding.fails { "policy" } else { "policy warning" };
    format!("{word}: {}: {}", finding.kind.name(), sentence(finding))
}

/// What is known to be lacking before anything was reached.
pub fn warning(lack: &Lack) -> String {
    format!("policy warning: incomplete: {}", lacks(lack))
}

pub fn note(said: &Remark) -> String {
    format!("policy: {}", remark(said))
}

/// What `--kill` did, and what it cannot undo.
pub const KILLED: &str = "policy: killed the command and all that it started (--kill). The connection was already made: \
     what was sent before cannot be taken back, and processes that were not the command's are untouched";
