//! For a summary of a CI job.

use std::fmt::Write as _;

use super::super::human::Size;
use super::text::observed;
use super::words::{counts, outcome, remark, sentence, title};
use crate::policy::{Finding, Verdict};

/// Findings in the table.
const ROWS: usize = 50;

pub fn markdown(verdict: &Verdict) -> String {
    let mut out = String::new();
    write(&mut out, verdict).expect("writing into a String cannot fail");
    out
}

fn write(out: &mut String, verdict: &Verdict) -> std::fmt::Result {
    let sign = if verdict.fails() { "❌" } else { "✅" };
    writeln!(out, "### {sign} rano: {}\n", plain(&outcome(verdict)))?;
    writeln!(out, "{}. Policy {} (sha256 `{:.12}`).", counts(verdict), code(&verdict.path), verdict.sha256)?;
    for session in verdict.observed.iter().take(5) {
        writeln!(out, "<br>{}", plain(&observed(session)))?;
    }
    if !verdict.findings.is_empty() {
        writeln!(out, "\n| | finding | endpoint | program | tool | connections | sent |")?;
        writeln!(out, "|---|---|---|---|---|--:|--:|")?;
        for finding in verdict.findings.iter().take(ROWS) {
            row(out, finding)?;
        }
    }
    if verdict.findings.len() > ROWS {
        writeln!(out, "\n… and {} more findings.", verdict.findings.len() - ROWS)?;
    }
    let allowing: Vec<&str> = verdict.failing().filter_map(|finding| finding.allow.as_deref()).collect();
    if !allowing.is_empty() {
        writeln!(out, "\n<details><summary>Rules that would permit them</summary>\n\n````toml")?;
        for line in allowing.iter().take(ROWS).flat_map(|rule| rule.lines().chain([""])) {
            writeln!(out, "{}", super::super::escape::Line(line))?;
        }
        writeln!(out, "````\n\n</details>")?;
    }
    for said in &verdict.remarks {
        writeln!(out, "\n> {}", plain(&remark(said)))?;
    }
    writeln!(out)
}

fn row(out: &mut String, finding: &Finding) -> std::fmt::Result {
    let sign = if finding.fails { "❌" } else { "⚠️" };
    let Some(reached) = &finding.reached else {
        return writeln!(
            out,
            "| {sign} | {} | {}: {} | | | | |",
            finding.kind.name(),
            plain(&title(finding)),
            plain(&sentence(finding))
        );
    };
    let contact = &reached.contact;
    let text = |text: &Option<std::sync::Arc<str>>| text.as_deref().map(code).unwrap_or_default();
    let by = reached.name.as_ref().map(|known| format!(" ({})", plain(&known.by))).unwrap_or_default();
    let sent = contact.seen.bytes.map(|bytes| Size(bytes.sent).to_string()).unwrap_or_default();
    writeln!(
        out,
        "| {sign} | {} | {}{by} | {} | {} | {} | {sent} |",
        finding.kind.name(),
        code(&title(finding)),
        code(&contact.program),
        text(&contact.tool),
        contact.seen.count()
    )
}

/// In a span of code, on one line of a table.
fn code(text: &str) -> String {
    const LONGEST: usize = 100;
    let mut safe: String = super::super::escape::Line(text).to_string().replace('`', "'").replace('|', "\\|");
    if safe.chars().count() > LONGEST {
        safe = safe.chars().take(LONGEST).chain(['…']).collect();
        // Half of an escaped sign would end the cell.
        safe = safe.replace("\\…", "…");
    }
    format!("`{}`", safe.trim())
}

/// Text without any markup.
fn plain(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    for character in super::super::escape::Line(text).to_string().chars() {
        match character {
            '<' => safe.push_str("&lt;"),
            '>' => safe.push_str("&gt;"),
            '&' => safe.push_str("&amp;"),
            '|' | '*' | '_' | '`' | '[' | ']' | '\\' | '#' | '~' => safe.extend(['\\', character]),
            // A user or an issue of some other project.
            '@' => safe.push_str("&#64;"),
            other => safe.push(other),
        }
    }
    safe
}
