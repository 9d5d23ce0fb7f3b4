//! The rules, and what breaks them.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::path::Path;

use regex_lite::Regex;

use super::{Breach, Source};

const PRODUCT: &str = "rano/src/";

/// Columns of comments and prose. rustfmt sees to code; a text, a table, an example, an address is as long as it is.
const COLUMNS: usize = 120;
/// Lines of a file of code, tests beside it included.
const LINES: usize = 620;

/// Rooms of the product and what each may name of the others, `crate::ROOM`. A room is a directory or a file of
/// `rano/src`. From the ground up: nobody names a room above.
const ROOMS: &[(&str, &[&str])] = &[
    ("bounded", &[]),
    ("errno", &[]),
    ("exit", &[]),
    ("glob", &[]),
    ("moment", &[]),
    ("privileges", &[]),
    ("releases", &[]),
    ("stop", &[]),
    ("time_argument", &[]),
    ("words", &[]),
    ("attention", &["words"]),
    ("files", &["privileges"]),
    ("health", &["words"]),
    ("process", &["bounded", "glob", "moment"]),
    ("change", &["moment", "process", "words"]),
    ("connection", &["moment", "process", "words"]),
    ("event", &["connection", "moment", "words"]),
    ("alerts", &["bounded", "change", "connection", "event", "glob", "process"]),
    ("filter", &["connection", "event", "glob", "process"]),
    ("names", &["bounded", "change", "event", "files", "glob", "moment", "privileges", "process", "stop"]),
    ("totals", &["bounded", "connection", "event", "process"]),
    (
        "source",
        &[
            "bounded",
            "change",
            "errno",
            "event",
            "exit",
            "health",
            "moment",
            "names",
            "privileges",
            "process",
            "stop",
            "words",
        ],
    ),
    ("policy", &["connection", "filter", "glob", "health", "names", "process", "time_argument", "words"]),
    ("update", &["alerts", "connection", "event", "health", "process", "totals"]),
    ("summary", &["health", "totals", "update"]),
    (
        "store",
        &[
            "attention",
            "connection",
            "errno",
            "event",
            "files",
            "filter",
            "glob",
            "health",
            "policy",
            "privileges",
            "process",
            "update",
        ],
    ),
    (
        "output",
        &[
            "alerts",
            "attention",
            "connection",
            "errno",
            "event",
            "filter",
            "health",
            "policy",
            "process",
            "source",
            "store",
            "summary",
            "totals",
            "update",
        ],
    ),
    (
        "config",
        &["event", "files", "filter", "glob", "names", "output", "process", "time_argument", "totals"],
    ),
    ("signals", &["output", "privileges", "stop"]),
    (
        "sink",
        &[
            "connection",
            "event",
            "files",
            "filter",
            "health",
            "names",
            "output",
            "policy",
            "connection",
            "event",
            "files",
            "filter",
            "health",
            "names",
            "output",
            "policy",
            "process",
            "stop",
            "store",
            "summary",
            "totals",
            "update",
            "stop",
            "store",
            "summary",
            "totals",
            "update",
        ],
    ),
    (
        "pipeline",
        &[
            "alerts",
            "bounded",
            "connection",
            "event",
            "health",
            "names",
            "process",
            "sink",
            "source",
            "stop",
            "summary",
            "totals",
            "update",
        ],
    ),
    (
        "monitor",
        &[
            "alerts",
            "connection",
            "event",
            "glob",
            "health",
            "moment",
            "names",
            "pipeline",
            "privileges",
            "process",
            "sink",
            "source",
            "stop",
            "summary",
            "totals",
            "update",
        ],
    ),
    ("registry", &["config", "files", "process"]),
    ("serve", &["files", "filter", "output", "privileges", "store", "time_argument"]),
    ("top", &["attention", "event", "filter", "output", "privileges", "stop", "store"]),
    (
        "commands",
        &[
            "alerts",
            "config",
            "event",
            "exit",
            "files",
            "filter",
            "glob",
            "health",
            "monitor",
            "names",
            "output",
            "pipeline",
            "policy",
            "privileges",
            "process",
            "registry",
            "releases",
            "serve",
            "signals",
            "sink",
            "source",
            "stop",
            "store",
            "time_argument",
            "top",
            "totals",
        ],
    ),
    ("lib", &[]),
    ("main", &[]),
];

/// What only some rooms may do: what it is, how it is recognised, and below which paths it may stand.
const KEPT: &[(&str, &str, &[&str])] = &[
    (
        "SQL outside of store/",
        r#""\s*(SELECT|INSERT (OR \w+ )?INTO|UPDATE \w+ SET|DELETE FROM|CREATE (TEMP )?(TABLE|VIEW|INDEX)|PRAGMA)\b"#,
        &["rano/src/store/"],
    ),
    (
        "/proc outside of source/",
        r#""/proc(/|\b)"#,
        // Its own descriptors, by which a path is opened again; the beginning of an argument.
        &["rano/src/source/", "rano/src/files/", "rano/src/process/program.rs"],
    ),
    (
        "the environment outside of config/",
        r"\benv::(var|var_os|vars|vars_os|home_dir|temp_dir)\b",
        &["rano/src/config/"],
    ),
    ("text for a terminal outside of output/", r"\banstyle\b|\\x1b|\\u\{1b\}|\x1b", &["rano/src/output/"]),
    ("a full screen outside of top/", r"\b(ratatui_core|ratatui_crossterm|crossterm)::", &["rano/src/top/"]),
    // What is written into cells was escaped: names from outside keep their columns.
    (
        "text for the screen past top/draw/paint.rs",
        r"\b(set_stringn?|set_line|set_span|set_symbol|set_char|render_widget|Span::(raw|styled)|Text::(raw|from))\b",
        &["rano/src/top/draw/paint.rs"],
    ),
    ("the kernel's programs outside of source/ebpf/", r"\baya(_obj)?::", &["rano/src/source/ebpf/"]),
];

/// Crates that the kernel's programs are made of.
const FREESTANDING: [&str; 2] = ["rano-common", "rano-ebpf"];

const HEALTH: &str = "rano/src/health.rs";

pub(super) fn check(sources: &[Source]) -> Vec<Breach> {
    let mut breaches = Vec::new();
    for source in sources {
        lengths(source, &mut breaches);
        if let Some(inside) = source.path.strip_prefix(PRODUCT).filter(|inside| extension(inside) == "rs")
            && !is_test(&source.path)
        {
            names_of_rooms(source, inside, &mut breaches);
            kept(source, &mut breaches);
        }
    }
    circles(&mut breaches);
    freestanding(sources, &mut breaches);
    gaps(sources, &mut breaches);
    breaches
}

pub(super) fn extension(path: &str) -> &str {
    Path::new(path).extension().and_then(OsStr::to_str).unwrap_or_default()
}

fn is_test(path: &str) -> bool {
    path.split('/').any(|part| matches!(part, "tests" | "tests.rs" | "wall.rs"))
}

fn breach(path: &str, line: usize, what: impl Into<String>) -> Breach {
    Breach { path: path.to_owned(), line, what: what.into() }
}

fn lengths(source: &Source, breaches: &mut Vec<Breach>) {
    let Source { path, text } = source;
    for (number, line) in (1..).zip(text.lines()) {
        let trimmed = line.trim_start();
        let can_break = match extension(path) {
            "md" => {
                is_item(trimmed)
                    || !line.starts_with('|') && !line.starts_with("    ") && trimmed.contains(' ')
            }
            "rs" => trimmed.starts_with("//"),
            // A migration stays as it was when it was released.
            "sql" => false,
            _ => trimmed.starts_with('#'),
        };
        let columns = line.chars().count();
        if can_break && columns > COLUMNS {
            breaches.push(breach(path, number, format!("{columns} columns, at most {COLUMNS}")));
        }
    }
    let lines = text.lines().count();
    if extension(path) == "rs" && lines > LINES {
        breaches.push(breach(path, 0, format!("{lines} lines, at most {LINES}")));
    }
}

fn is_item(trimmed: &str) -> bool {
    let number = trimmed.trim_start_matches(|sign: char| sign.is_ascii_digit());
    trimmed.starts_with("- ") || number.len() < trimmed.len() && number.starts_with(". ")
}

/// Code without the tests at its end and without comments, each line in its place.
fn code(text: &str) -> impl Iterator<Item = (usize, &str)> {
    let lines = text.lines().take_while(|line| *line != "#[cfg(test)]");
    (1..).zip(lines).filter(|(_, line)| !line.trim_start().starts_with("//"))
}

fn names_of_rooms(source: &Source, inside: &str, breaches: &mut Vec<Breach>) {
    let own = inside.split(['/', '.']).next().unwrap_or_default();
    let Some((_, allowed)) = ROOMS.iter().find(|(room, _)| *room == own) else {
        return breaches.push(breach(
            &source.path,
            0,
            format!("the room '{own}' is not in the list of rooms"),
        ));
    };
    let named = Regex::new(r"\bcrate::(\w+|\{)").expect("a pattern");
    for (number, line) in code(&source.text) {
        for found in named.captures_iter(line) {
            let room = &found[1];
            if room == "{" {
                breaches.push(breach(&source.path, number, "a `use` for each room"));
            } else if ROOMS.iter().any(|(known, _)| known == &room) && room != own && !allowed.contains(&room)
            {
                breaches.push(breach(&source.path, number, format!("'{own}' may not name '{room}'")));
            }
        }
    }
}

fn kept(source: &Source, breaches: &mut Vec<Breach>) {
    for (what, pattern, places) in KEPT {
        if places.iter().any(|place| source.path.starts_with(place)) {
            continue;
        }
        let pattern = Regex::new(pattern).expect("a pattern");
        for (number, line) in code(&source.text) {
            if pattern.is_match(line) {
                breaches.push(breach(&source.path, number, *what));
            }
        }
    }
}

/// The list of rooms goes from the ground up.
fn circles(breaches: &mut Vec<Breach>) {
    let mut below = BTreeSet::new();
    for (room, allowed) in ROOMS {
        below.insert(*room);
        for above in allowed.iter().filter(|named| !below.contains(*named)) {
            breaches.push(breach("xtask/src/tidy/rules.rs", 0, format!("'{room}' is below '{above}'")));
        }
    }
}

fn freestanding(sources: &[Source], breaches: &mut Vec<Breach>) {
    for name in FREESTANDING {
        let roots = [format!("{name}/src/lib.rs"), format!("{name}/src/main.rs")];
        for Source { path, text } in sources.iter().filter(|source| roots.contains(&source.path)) {
            if !text.contains("no_std") {
                breaches.push(breach(path, 0, "needs #![no_std]"));
            }
        }
        let manifest = format!("{name}/Cargo.toml");
        for Source { path, text } in sources.iter().filter(|source| source.path == manifest) {
            let depends = |line: &str| line.starts_with("rano ") || line.starts_with("rano.");
            if let Some((number, _)) = (1..).zip(text.lines()).find(|(_, line)| depends(line)) {
                breaches.push(breach(path, number, format!("{name} may not depend on rano")));
            }
        }
    }
}

/// Every way to miss something is counted somewhere, has a column and is explained.
fn gaps(sources: &[Source], breaches: &mut Vec<Breach>) {
    let Some(health) = sources.iter().find(|source| source.path == HEALTH) else { return };
    let body = |head: &str| {
        let text = health.text.split_once(head).map_or("", |(_, rest)| rest);
        text.split_once("\n}").map_or(text, |(body, _)| body).to_owned()
    };
    let variant = Regex::new(r"(?m)^    ([A-Z]\w+),$").expect("a pattern");
    let declared = body("pub enum Gap {");
    for found in variant.captures_iter(&declared) {
        let gap = &found[1];
        let mut lacks = |what: &str| breaches.push(breach(HEALTH, 0, format!("Gap::{gap} {what}")));
        let name = Regex::new(&format!(r#"Self::{gap} => "(\w+)""#)).expect("a pattern");
        let Some(name) = name.captures(&health.text).map(|found| found[1].to_owned()) else {
            lacks("has no name");
            continue;
        };
        let uses = format!("Gap::{gap}");
        let is_counted = |source: &&Source| {
            source.path.starts_with(PRODUCT) && source.path != HEALTH && !is_test(&source.path)
        };
        if !sources.iter().filter(is_counted).any(|source| source.text.contains(&uses)) {
            lacks("is counted nowhere");
        }
        let has = |start: &str, end: &str| {
            let of_kind = |source: &&Source| source.path.starts_with(start) && source.path.ends_with(end);
            sources.iter().filter(of_kind).any(|source| source.text.contains(&name))
        };
        if !has("rano/src/store/migrations/", ".sql") {
            lacks("has no column in sessions");
        }
        if !has("docs/", ".md") {
            lacks("is explained in no document");
        }
    }
}
