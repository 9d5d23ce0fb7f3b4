//! `JUnit`'s XML as Jenkins and GitLab read it: a test case for each finding, and one for each kind without any.

use std::fmt::Write as _;

use super::super::human::timestamp_seconds;
use super::words::{facts, remark, sentence, title};
use crate::policy::{Finding, Kind, Verdict};

pub(super) fn junit(verdict: &Verdict) -> String {
    let mut out = String::new();
    write(&mut out, verdict).expect("writing into a String cannot fail");
    out
}

fn write(out: &mut String, verdict: &Verdict) -> std::fmt::Result {
    let clean = Kind::ALL.into_iter().filter(|kind| verdict.findings.iter().all(|found| found.kind != *kind));
    let clean: Vec<Kind> = clean.collect();
    let first = verdict.observed.first();
    let host = first.map_or("localhost", |session| session.host.as_str());
    let start = timestamp_seconds(first.map_or(0, |session| session.started_at));
    writeln!(out, r#"<?xml version="1.0" encoding="UTF-8"?>"#)?;
    writeln!(out, "<testsuites>")?;
    writeln!(
        out,
        r#"  <testsuite name="rano check" package="rano" id="0" tests="{}" failures="{}" errors="0" time="0" timestamp="{}" hostname="{}">"#,
        verdict.findings.len() + clean.len(),
        verdict.failing().count(),
        start.trim_end_matches('Z'),
        xml(host)
    )?;
    writeln!(out, "    <properties>")?;
    for (name, value) in [("policy", &verdict.path), ("sha256", &verdict.sha256)] {
        writeln!(out, r#"      <property name="{name}" value="{}"/>"#, xml(value))?;
    }
    writeln!(out, "    </properties>")?;
    for kind in clean {
        writeln!(out, r#"    <testcase classname="rano.{0}" name="no {0} finding" time="0"/>"#, kind.name())?;
    }
    for finding in &verdict.findings {
        case(out, finding)?;
    }
    let warnings = verdict.findings.iter().filter(|finding| !finding.fails).map(sentence);
    let said = warnings.chain(verdict.remarks.iter().map(remark));
    writeln!(out, "    <system-out>{}</system-out>", lines(said))?;
    writeln!(out, "    <system-err></system-err>")?;
    writeln!(out, "  </testsuite>")?;
    writeln!(out, "</testsuites>")
}

fn case(out: &mut String, finding: &Finding) -> std::fmt::Result {
    let kind = finding.kind.name();
    let program = finding.reached.as_ref().map(|reached| format!(" by {}", reached.contact.program));
    let name = title(finding) + &program.unwrap_or_default();
    write!(out, r#"    <testcase classname="rano.{kind}" name="{}" time="0""#, xml(&name))?;
    if !finding.fails {
        return writeln!(out, "/>");
    }
    let message = sentence(finding);
    let mut body = vec![format!("{}:{}", finding.place.file, finding.place.line)];
    body.extend(finding.reached.as_ref().map(facts));
    let contact = finding.reached.as_ref().map(|reached| &reached.contact);
    body.extend(contact.and_then(|contact| contact.tool.as_ref()).map(|tool| format!("tool: {tool}")));
    body.extend(contact.and_then(|contact| contact.command.as_ref()).map(|line| format!("command: {line}")));
    let allow = finding.allow.as_ref();
    body.extend(allow.map(|_| "to permit it:".to_owned()));
    body.extend(allow.into_iter().flat_map(|allow| allow.lines().map(str::to_owned)));
    writeln!(
        out,
        r#"><failure message="{}" type="{kind}">{}</failure></testcase>"#,
        xml(&message),
        lines(body)
    )
}

/// On one line. Characters that XML 1.0 does not have are written out.
fn xml(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    for character in super::super::escape::Line(text).to_string().chars() {
        match character {
            '&' => safe.push_str("&amp;"),
            '<' => safe.push_str("&lt;"),
            '>' => safe.push_str("&gt;"),
            '"' => safe.push_str("&quot;"),
            '\'' => safe.push_str("&apos;"),
            '\u{fffe}' | '\u{ffff}' => safe.push('\u{fffd}'),
            other => safe.push(other),
        }
    }
    safe
}

fn lines(lines: impl IntoIterator<Item = String>) -> String {
    lines.into_iter().map(|line| xml(&line)).collect::<Vec<_>>().join("\n")
}
