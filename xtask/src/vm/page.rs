//! What the guests showed, as the tables of docs/kernels.md.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result};

use super::plan::RUNGS;
use super::results::{Outcome, Results};

const PAGE: &str = "docs/kernels.md";
const BEGIN: &str = "<!-- cargo xtask vm --write: begin -->\n";
const END: &str = "<!-- end -->\n";

/// Files of tests that show what rano sees, and what the reader is told they are about.
const SUBJECTS: [(&str, &str); 12] = [
    ("connections", "Connections"),
    ("facts", "More about them"),
    ("odd_sockets", "Unusual sockets"),
    ("multipath", "Multipath TCP"),
    ("datagrams", "Datagrams"),
    ("families", "Other transports"),
    ("greetings", "Greetings"),
    ("proxies", "Proxies"),
    ("names", "Names"),
    ("swarm", "Many at once"),
    ("loss", "Losses"),
    ("privileges", "Privileges"),
];

/// What a guest was, and what it showed.
pub(crate) struct Shown {
    pub series: &'static str,
    pub release: String,
    pub rung: Option<&'static str>,
    pub results: Results,
}

/// Replaces the tables of the page.
pub(crate) fn write(workspace: &Path, shown: &[Shown]) -> Result<()> {
    let path = workspace.join(PAGE);
    let page = fs::read_to_string(&path).with_context(|| format!("read {PAGE}"))?;
    let (before, rest) = page.split_once(BEGIN).with_context(|| format!("find the tables of {PAGE}"))?;
    let (_, after) = rest.split_once(END).with_context(|| format!("find the end of the tables of {PAGE}"))?;
    fs::write(&path, [before, BEGIN, &tables(shown), END, after].concat())
        .with_context(|| format!("write {PAGE}"))
}

fn tables(shown: &[Shown]) -> String {
    let mut kernels: Vec<(&str, &str)> = Vec::new();
    for guest in shown {
        if !kernels.contains(&(guest.series, &guest.release)) {
            kernels.push((guest.series, &guest.release));
        }
    }
    kernels.sort_by_key(|(series, _)| {
        series.split('.').map(|number| number.parse().unwrap_or(0)).collect::<Vec<u32>>()
    });
    let mut text = String::new();
    let releases: Vec<_> = kernels.iter().map(|(_, release)| format!("`{release}`")).collect();
    let _ = writeln!(text, "\nTried: {}.\n", releases.join(", "));
    let series: Vec<&str> = kernels.iter().map(|(series, _)| *series).collect();
    for (file, subject) in SUBJECTS {
        let rows = seen(shown, &series, file);
        if !rows.is_empty() {
            let _ = writeln!(text, "### {subject}\n\n{}", table("what is seen", &series, &rows));
        }
    }
    let (newest, rows) = sockets(shown);
    if let Some(newest) = newest {
        let columns = SOURCES.map(|(_, column)| column);
        let _ = writeln!(text, "### Sockets\n\nOn Linux {newest}.\n\n{}", table("socket", &columns, &rows));
    }
    let rows = instructions(shown, &series);
    let _ = writeln!(
        text,
        "### Instructions that the verifier processes\n\n{}",
        table("program", &series, &rows)
    );
    text
}

/// Sources in the facts of `tests/kernel/matrix.rs`, and the columns of them.
const SOURCES: [(&str, &str); 5] = [
    ("fentry", "fentry"),
    ("kprobe", "kprobe"),
    ("tracepoint", "tracepoint"),
    ("polling, root", "polling, as root"),
    ("polling, user", "polling, as a user"),
];

/// By the newest kernel that showed any: for each socket and source, what was told.
fn sockets(shown: &[Shown]) -> (Option<&'static str>, Vec<Vec<String>>) {
    let facts = |guest: &Shown| -> Vec<(String, String, String)> {
        let of = |(key, cell): &(String, String)| {
            let (source, socket) = key.strip_prefix("socket ")?.split_once(": ")?;
            Some((source.to_owned(), socket.trim_end_matches(':').to_owned(), cell.replace('_', " ")))
        };
        guest.results.facts.iter().filter_map(of).collect()
    };
    let number = |guest: &&Shown| -> Vec<u32> {
        guest.series.split('.').map(|number| number.parse().unwrap_or(0)).collect()
    };
    let newest = shown.iter().filter(|guest| !facts(guest).is_empty()).max_by_key(number);
    let Some(newest) = newest.map(|guest| guest.series) else { return (None, Vec::new()) };
    let all: Vec<_> = shown.iter().filter(|guest| guest.series == newest).flat_map(facts).collect();
    let mut names: Vec<&String> = Vec::new();
    for (_, socket, _) in &all {
        if !names.contains(&socket) {
            names.push(socket);
        }
    }
    let row = |name: &String| {
        let cells = SOURCES.iter().map(|(source, _)| {
            let told = all.iter().find(|(by, socket, _)| by == source && socket == name);
            told.map_or_else(|| "-".to_owned(), |(_, _, cell)| cell.clone())
        });
        std::iter::once(name.clone()).chain(cells).collect()
    };
    (Some(newest), names.into_iter().map(row).collect())
}

/// For each test of a file and each kernel: by which rungs it passed.
fn seen(shown: &[Shown], series: &[&str], file: &str) -> Vec<Vec<String>> {
    let mut names = Vec::new();
    for guest in shown {
        for (name, _) in &guest.results.tests {
            if name.strip_prefix(file).is_some_and(|rest| rest.starts_with("::")) && !names.contains(name) {
                names.push(name.clone());
            }
        }
    }
    names.sort();
    let row = |name: &String| {
        let title = name.rsplit("::").next().unwrap_or_default().replace('_', " ");
        let cells = series.iter().map(|series| {
            let rungs = |wanted: fn(&Outcome) -> bool| -> BTreeSet<&str> {
                let guests = shown.iter().filter(|guest| guest.series == *series);
                guests
                    .filter(|guest| guest.results.any(name, wanted))
                    .filter_map(|guest| guest.rung)
                    .collect()
            };
            let passed = rungs(|outcome| *outcome == Outcome::Passed);
            let failed = !rungs(|outcome| *outcome == Outcome::Failed).is_empty();
            by(&passed, failed, &rungs(|_| true))
        });
        std::iter::once(title).chain(cells).collect()
    };
    names.iter().map(row).collect()
}

/// `yes`: on every rung that was tried. What was skipped on all of them is not known.
fn by(passed: &BTreeSet<&str>, failed: bool, tried: &BTreeSet<&str>) -> String {
    match passed.len() {
        0 if failed => "no".to_owned(),
        0 => "-".to_owned(),
        _ if passed == tried => "yes".to_owned(),
        _ => RUNGS.into_iter().filter(|rung| passed.contains(rung)).collect::<Vec<_>>().join(", "),
    }
}

/// The most that any guest with that kernel said.
fn instructions(shown: &[Shown], series: &[&str]) -> Vec<Vec<String>> {
    let mut programs: BTreeMap<&str, BTreeMap<&str, u64>> = BTreeMap::new();
    for guest in shown {
        for (key, value) in &guest.results.facts {
            if let Some(program) = key.strip_prefix("instructions ") {
                let most = programs.entry(program).or_default().entry(guest.series).or_default();
                *most = value.parse().unwrap_or(0).max(*most);
            }
        }
    }
    let rows = programs.iter().map(|(program, counts)| {
        let cells =
            series.iter().map(|series| counts.get(series).map_or_else(|| "-".to_owned(), u64::to_string));
        std::iter::once(format!("`{program}`")).chain(cells).collect()
    });
    rows.collect()
}

fn table(first: &str, series: &[&str], rows: &[Vec<String>]) -> String {
    let heading: Vec<String> =
        std::iter::once(first).chain(series.iter().copied()).map(str::to_owned).collect();
    let lines = || std::iter::once(&heading).chain(rows);
    let width =
        |column: usize| lines().filter_map(|line| line.get(column)).map(String::len).max().unwrap_or(0);
    let widths: Vec<_> = (0..heading.len()).map(width).collect();
    let mut text = String::new();
    for (number, line) in lines().enumerate() {
        text.push('|');
        for (cell, width) in line.iter().zip(&widths) {
            let _ = write!(text, " {cell:<width$} |");
        }
        text.push('\n');
        if number == 0 {
            text.push('|');
            for width in &widths {
                let _ = write!(text, "{}|", "-".repeat(width + 2));
            }
            text.push('\n');
        }
    }
    text
}

impl Results {
    fn any(&self, name: &str, wanted: impl Fn(&Outcome) -> bool) -> bool {
        self.tests.iter().any(|(test, outcome)| test == name && wanted(outcome))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_say_which_rungs_see_what() {
        let guest = |series, rung, output: &str| Shown {
            series,
            release: format!("{series}.1"),
            rung: Some(rung),
            results: Results::parse(output),
        };
        let ok =
            "test connections::ipv6_is_seen ... ok\nfact: instructions tcp_events 1638\ntest result: ok.\n";
        let no = "test connections::ipv6_is_seen ... FAILED\ntest result: FAILED.\n";
        let mut shown: Vec<_> = RUNGS.iter().map(|rung| guest("6.12", *rung, ok)).collect();
        shown.extend([guest("5.10", "fentry", no), guest("5.10", "kprobe", ok)]);
        let told =
            "fact: socket kprobe: TCP over IPv4, up: within_1_%\nfact: socket polling, user: vsock: no\n";
        shown.push(guest("6.12", "kprobe", told));
        let text = tables(&shown);
        assert!(text.contains("On Linux 6.12."), "{text}");
        assert!(text.contains("| TCP over IPv4, up | -      | within 1 % | -          | -"), "{text}");
        assert!(text.contains("| vsock             | -      | -          | -          | -"), "{text}");
        assert!(text.contains("Tried: `5.10.1`, `6.12.1`."), "{text}");
        assert!(text.contains("| ipv6 is seen | kprobe | yes  |"), "{text}");
        assert!(text.contains("| `tcp_events` | 1638 | 1638 |"), "{text}");
    }
}
