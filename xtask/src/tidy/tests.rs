use super::rules::check;
use super::*;

fn file(path: &str, text: &str) -> Source {
    Source { path: path.to_owned(), text: text.to_owned() }
}

/// What breaks in one file, as `LINE: WHAT`.
fn breaches(path: &str, text: &str) -> Vec<String> {
    let own = |breach: &Breach| breach.path == path;
    let shown = |breach: Breach| format!("{}: {}", breach.line, breach.what);
    check(&[file(path, text)]).into_iter().filter(own).map(shown).collect()
}

#[test]
fn the_sources_are_tidy() {
    assert_eq!(check(&sources().expect("a checkout")), []);
}

#[test]
fn rooms_name_only_what_is_below() {
    let uses = "use crate::output::json;\nuse crate::moment::Moment;\n// crate::output\nfn f() { crate::store::open() }\n";
    let expected = ["1: 'process' may not name 'output'", "4: 'process' may not name 'store'"];
    assert_eq!(breaches("rano/src/process/tree.rs", uses), expected);
    assert_eq!(breaches("rano/src/process.rs", "use crate::process::tree::Tree;\n"), [""; 0]);
    assert_eq!(
        breaches("rano/src/process/tree.rs", "#[cfg(test)]\nmod tests { use crate::output; }\n"),
        [""; 0]
    );
    assert_eq!(breaches("rano/src/event.rs", "use crate::{errno, output};\n"), ["1: a `use` for each room"]);
    assert_eq!(breaches("rano/src/attic/mod.rs", ""), ["0: the room 'attic' is not in the list of rooms"]);
}

#[test]
fn what_is_kept_in_one_room_is_found_in_another() {
    let cases = [
        ("SELECT count(*) FROM event", "SQL outside of store/"),
        ("INSERT OR IGNORE INTO event VALUES (1)", "SQL outside of store/"),
        ("PRAGMA integrity_check", "SQL outside of store/"),
        ("/proc/net/tcp", "/proc outside of source/"),
        ("\\x1b[2J", "text for a terminal outside of output/"),
    ];
    for (text, what) in cases {
        let line = format!("const TEXT: &str = \"{text}\";\n");
        assert_eq!(breaches("rano/src/pipeline.rs", &line), [format!("1: {what}")]);
    }
    let environment = "fn f() { std::env::var(\"HOME\") }\n";
    let expected = ["1: the environment outside of config/"];
    assert_eq!(breaches("rano/src/commands/run.rs", environment), expected);
    assert_eq!(breaches("rano/src/config/environment.rs", environment), [""; 0]);
    let programs = "use aya::Ebpf;\n";
    assert_eq!(
        breaches("rano/src/names/book.rs", programs),
        ["1: the kernel's programs outside of source/ebpf/"]
    );
    assert_eq!(breaches("rano/src/source/ebpf/load.rs", programs), [""; 0]);
}

#[test]
fn lines_and_files_have_an_end() {
    let long = format!("// {}\n", "é".repeat(118));
    assert_eq!(breaches("rano/src/exit.rs", &long), ["1: 121 columns, at most 120"]);
    assert_eq!(
        breaches("docs/names.md", &format!("a {}\n", "b".repeat(120))),
        ["1: 122 columns, at most 120"]
    );
    let table_and_address = format!("| {} |\n<https://example.com/{}>\n", "c".repeat(200), "d".repeat(200));
    assert_eq!(breaches("docs/names.md", &table_and_address), [""; 0]);
    assert_eq!(breaches("rano/src/exit.rs", &"\n".repeat(621)), ["0: 621 lines, at most 620"]);
}

#[test]
fn what_the_kernel_runs_stands_alone() {
    assert_eq!(breaches("rano-common/src/lib.rs", "pub mod words;\n"), ["0: needs #![no_std]"]);
    assert_eq!(breaches("rano-ebpf/src/main.rs", "#![no_std]\n"), [""; 0]);
    let manifest = "[dependencies]\nrano-common.workspace = true\nrano.workspace = true\n";
    assert_eq!(breaches("rano-ebpf/Cargo.toml", manifest), ["3: rano-ebpf may not depend on rano"]);
}

#[test]
fn a_gap_is_counted_stored_and_explained() {
    let health = "pub enum Gap {\n    /// One.\n    Vanished,\n    Unread,\n    Lost,\n}\n\
                  impl Gap { fn name() { Self::Vanished => \"vanished\", Self::Unread => \"unread\" } }\n";
    let sources = [
        file("rano/src/health.rs", health),
        file("rano/src/source/proc/mod.rs", "fn f() { gaps.add(Gap::Vanished, 1) }\n"),
        file("rano/src/source/proc/tests.rs", "fn f() { gaps.add(Gap::Unread, 1) }\n"),
        file("rano/src/store/migrations/0001.sql", "vanished"),
        file("docs/missed.md", "`unread` `vanished`"),
    ];
    let found: Vec<String> = check(&sources).into_iter().map(|breach| breach.what).collect();
    let expected =
        ["Gap::Unread is counted nowhere", "Gap::Unread has no column in sessions", "Gap::Lost has no name"];
    assert!(expected.iter().all(|what| found.iter().any(|found| found == what)), "{found:?}");
    assert_eq!(found.iter().filter(|what| what.starts_with("Gap::")).count(), 3, "{found:?}");
}
