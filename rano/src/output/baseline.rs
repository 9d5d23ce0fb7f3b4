//! What `rano baseline` says of the policy that it wrote.

use std::fmt::Write as _;

use super::escape::Line;
use crate::policy::Written;

/// Names that are listed.
const LISTED: usize = 5;

/// The comment that a new policy begins with.
pub fn comment(written: &Written) -> String {
    format!(
        "# What the agents of this project may reach. `rano check` holds a session against it.\n\
         # Written by `rano baseline` {}.\n",
        seen(written)
    )
}

fn seen(written: &Written) -> String {
    let Written { runs, endpoints, once, .. } = written;
    let word = if *runs == 1 { "run" } else { "runs" };
    let were = if *once == 1 { "was" } else { "were" };
    let of = if *endpoints == 1 { "endpoint" } else { "endpoints" };
    format!("from {runs} {word}; {once} of {endpoints} {of} {were} seen once")
}

/// For the person at the terminal.
pub fn said(written: &Written) -> String {
    let mut out = String::new();
    write(&mut out, written).expect("writing into a String cannot fail");
    out
}

fn write(out: &mut String, written: &Written) -> std::fmt::Result {
    let Written { added, extended, denied, expired, .. } = written;
    writeln!(out, "{}", seen(written))?;
    let rules = if *added == 1 { "rule" } else { "rules" };
    write!(out, "{added} {rules} added")?;
    if *extended > 0 {
        write!(out, ", {extended} with further ports")?;
    }
    writeln!(out)?;
    if *denied > 0 {
        writeln!(out, "{denied} denied by a rule: no rule was written for them")?;
    }
    if *expired > 0 {
        writeln!(out, "{expired} whose rule has expired: renew the rule yourself if you want to allow them")?;
    }
    let unnamed = &written.unnamed;
    if !unnamed.is_empty() {
        let names: Vec<String> =
            unnamed.iter().take(LISTED).map(|reached| Line(&reached.endpoint()).to_string()).collect();
        let more = if unnamed.len() > LISTED { ", …" } else { "" };
        writeln!(
            out,
            "{} without a name that counts, so without a rule: {}{more}",
            unnamed.len(),
            names.join(", ")
        )?;
        writeln!(
            out,
            "hint: observe as root or with `rano run` to learn names, or write address rules: cidr = \"192.0.2.1/32\""
        )?;
    }
    for suggestion in &written.suggestions {
        let pattern = Line(&suggestion.pattern);
        let names: Vec<String> =
            suggestion.names.iter().take(LISTED).map(|name| Line(name).to_string()).collect();
        let more = if suggestion.names.len() > LISTED { ", …" } else { "" };
        if suggestion.is_refused {
            writeln!(
                out,
                "no wildcard for {}{more}: anybody can register a name below {}",
                names.join(", "),
                pattern.to_string().trim_start_matches("*.")
            )?;
        } else {
            writeln!(out, "suggestion: domain = \"{pattern}\" could stand for {}{more}", names.join(", "))?;
        }
    }
    Ok(())
}
