//! `rano diff` between sessions whose content the test knows.

use anyhow::{Result, ensure};
use serde_json::{Value, json};

use crate::support::history::{Connection, End, History, START, every};

crate::tests![
    every_section_has_what_belongs_there,
    an_endpoint_without_a_name_goes_by_its_address,
    the_threshold_decides,
    the_exit_code_tells_on_request,
    sessions_go_by_name_and_the_latest_of_a_name_counts,
];

const DAY: i64 = 86_400_000;

fn to(domain: &str, count: usize) -> Vec<Connection> {
    every(count, START, 10, &Connection { domain: Some(domain.into()), ..Connection::default() })
}

/// api: 10 → 16, steady: 10 → 14; old.example only before, new.example only after, with a new process of a new
/// provider.
fn before_and_after() -> Result<History> {
    let history = History::new()?;
    let before = [to("api.example", 10), to("steady.example", 10), to("old.example", 1)].concat();
    history.write("before", START, &before, End::Clean)?;
    let codex = Connection {
        provider: "openai",
        comm: "codex".into(),
        domain: Some("new.example".into()),
        ..Connection::default()
    };
    let after = [to("api.example", 16), to("steady.example", 14), vec![codex]].concat();
    history.write("after", START + DAY, &after, End::Clean)?;
    Ok(history)
}

fn names(diff: &Value, list: &str) -> Vec<String> {
    let items = diff[list].as_array().cloned().unwrap_or_default();
    items.iter().filter_map(|item| item["name"].as_str().map(str::to_owned)).collect()
}

fn every_section_has_what_belongs_there() -> Result<()> {
    let history = before_and_after()?;
    let diff = history.json(&["diff", "--old", "before", "--new", "after", "--json"])?;
    for (list, expected) in [
        ("new_domains", &["new.example"][..]),
        ("removed_domains", &["old.example"]),
        ("changed_domains", &["api.example"]),
        ("new_processes", &["codex"]),
        ("provider_changes", &["openai"]),
    ] {
        ensure!(names(&diff, list) == expected, "{list}: {diff}");
    }
    let changed = &diff["changed_domains"][0];
    ensure!(
        (&changed["old"], &changed["new"], &changed["percent"]) == (&json!(10), &json!(16), &json!(60.0)),
        "{diff}"
    );
    let text = history.run(&["diff", "--old", "before", "--new", "after"])?.stdout;
    for section in [
        "New domains (1)",
        "Removed domains (1)",
        "Changed domains",
        "New processes (1)",
        "Provider changes (1)",
    ] {
        ensure!(text.contains(section), "{section} is missing in\n{text}");
    }
    Ok(())
}

fn an_endpoint_without_a_name_goes_by_its_address() -> Result<()> {
    let history = History::new()?;
    history.write("before", START, &to("api.example", 3), End::Clean)?;
    let nameless = |ip| Connection { domain: None, ip, ..Connection::default() };
    let after = [to("api.example", 3), vec![nameless("198.51.100.9"), nameless("2001:db8::9")]].concat();
    history.write("after", START + DAY, &after, End::Clean)?;
    let addresses = ["198.51.100.9:443", "[2001:db8::9]:443"];
    for (old, new, list) in [("before", "after", "new_domains"), ("after", "before", "removed_domains")] {
        let diff = history.json(&["diff", "--old", old, "--new", new, "--json"])?;
        ensure!(names(&diff, list) == addresses && diff["differs"] == true, "{diff}");
        ensure!(diff[list][0]["new_bytes"] != diff[list][0]["old_bytes"], "{diff}");
    }
    let filter = ["diff", "--old", "before", "--new", "after", "--json", "--filter", "ip:198.51.100.0/24"];
    ensure!(names(&history.json(&filter)?, "new_domains") == addresses[..1]);
    history.launch(&["diff", "--old", "before", "--new", "after", "--exit-code"])?.run()?.expect_code(1)?;
    Ok(())
}

fn the_threshold_decides() -> Result<()> {
    let history = before_and_after()?;
    for (threshold, expected) in [("0", &["api.example"][..]), ("60", &["api.example"]), ("61", &[])] {
        let diff = history.json(&[
            "diff",
            "--old",
            "before",
            "--new",
            "after",
            "--json",
            "--threshold",
            threshold,
        ])?;
        // Four more is never enough, whatever the percentage.
        ensure!(names(&diff, "changed_domains") == expected, "{threshold}: {diff}");
    }
    Ok(())
}

fn the_exit_code_tells_on_request() -> Result<()> {
    let history = before_and_after()?;
    history.launch(&["diff", "--old", "before", "--new", "after", "--exit-code"])?.run()?.expect_code(1)?;
    let same = history.run(&["diff", "--old", "before", "--new", "before", "--exit-code"])?;
    ensure!(same.stdout.contains("No differences"), "{same:?}");
    let unknown = history.launch(&["diff", "--old", "before", "--new", "nowhere"])?.run()?;
    unknown.expect_code(1)?;
    ensure!(unknown.stderr.contains("no session 'nowhere'"), "{unknown:?}");
    history.launch(&["diff", "--old", "before"])?.run()?.expect_code(2)?;
    Ok(())
}

fn sessions_go_by_name_and_the_latest_of_a_name_counts() -> Result<()> {
    let history = before_and_after()?;
    history.write("after", START + 2 * DAY, &to("latest.example", 1), End::Killed)?;
    let diff = history.json(&["diff", "--old", &format!("1-{START}"), "--new", "after", "--json"])?;
    ensure!(names(&diff, "new_domains") == ["latest.example"], "{diff}");
    Ok(())
}
