//! Workflow commands of GitHub Actions: annotations beside the rules. The service shows ten of a step.

use std::fmt::Write as _;

use super::super::escape::Line;
use super::words::{counts, outcome, remark, sentence, title};
use crate::policy::Verdict;

const ANNOTATIONS: usize = 10;

pub(super) fn github(verdict: &Verdict) -> String {
    let mut out = String::new();
    for finding in verdict.findings.iter().take(ANNOTATIONS) {
        let command = if finding.fails { "error" } else { "warning" };
        let subject = format!("rano {}: {}", finding.kind.name(), title(finding));
        let said = match &finding.allow {
            Some(allow) => format!("{}\nto permit it:\n{allow}", sentence(finding)),
            None => sentence(finding),
        };
        writeln!(
            out,
            "::{command} file={},line={},title={}::{}",
            property(finding.place.file.trim_start_matches("./")),
            finding.place.line,
            property(&subject),
            data(&said)
        )
        .expect("writing into a String cannot fail");
    }
    let lines = verdict.remarks.iter().map(remark).chain([counts(verdict), outcome(verdict)]);
    for line in lines {
        // A line of its own that begins with `::` would be a command.
        writeln!(out, "rano: {}", Line(&line)).expect("writing into a String cannot fail");
    }
    out
}

fn data(text: &str) -> String {
    let text = text.replace('%', "%25").replace('\r', "%0D").replace('\n', "%0A");
    Line(&text).to_string()
}

fn property(text: &str) -> String {
    data(text).replace(':', "%3A").replace(',', "%2C")
}
