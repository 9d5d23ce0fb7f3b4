//! `rano check`: sessions whose content the test knows, held against a policy.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;

use anyhow::{Context as _, Result, ensure};
use rano::internals::event::{DomainSource, SourceKind};
use serde_json::Value;

use crate::support::history::{Connection, End, History, START};
use crate::support::rano::Finished;

crate::tests![
    a_session_within_its_policy_passes,
    a_new_endpoint_fails_and_its_rule_permits_it,
    what_fails_is_what_was_named,
    a_weak_name_satisfies_nothing,
    a_record_with_gaps_never_passes,
    polling_says_what_would_help,
    a_range_and_a_filter_choose_what_is_judged,
    files_that_are_no_policy_are_told_apart,
    every_format_is_written,
    a_summary_is_appended,
];

const DAY: i64 = 86_400_000;

const POLICY: &str = "version = 1\n[[allow]]\ndomain = \"api.anthropic.com\"\nports = [443]\n";

fn to(domain: &str) -> Connection {
    Connection {
        domain: Some(domain.into()),
        call: Some(("claude", Some("sh -c fetch"))),
        ..Connection::default()
    }
}

/// One session by eBPF, with a policy beside it that allows api.anthropic.com.
pub fn scene(connections: &[Connection]) -> Result<History> {
    let mut history = History::new()?;
    history.source = SourceKind::EbpfFentry;
    history.write("night", START, connections, End::Clean)?;
    write_policy(&history, POLICY)?;
    Ok(history)
}

pub fn write_policy(history: &History, text: &str) -> Result<()> {
    let path = history.directory().join("rano.lock.toml");
    fs::write(&path, text)?;
    fs::set_permissions(&path, fs::Permissions::from_mode(0o644))?;
    let (uid, gid) = history.place.ids();
    std::os::unix::fs::chown(&path, Some(uid), Some(gid)).context("give the policy to its user")
}

fn check(history: &History, options: &[&str]) -> Result<Finished> {
    history.launch(&[&["check", "rano.lock.toml"], options].concat())?.run()
}

fn json(history: &History, options: &[&str]) -> Result<Value> {
    let finished = check(history, &[&["--format", "json"], options].concat())?;
    serde_json::from_str(&finished.stdout).with_context(|| format!("{finished:#?}"))
}

/// Kinds of the findings, with their subjects.
fn found(json: &Value) -> Vec<String> {
    let findings = json["findings"].as_array().cloned().unwrap_or_default();
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    findings
        .iter()
        .map(|finding| format!("{} {}", text(&finding["kind"]), text(&finding["subject"])))
        .collect()
}

fn a_session_within_its_policy_passes() -> Result<()> {
    let history = scene(&[to("api.anthropic.com")])?;
    let before = history.files()?;
    let finished = check(&history, &[])?;
    finished.expect_code(0)?;
    ensure!(finished.stdout.contains("1 endpoint, 1 allowed; 1 connection, 0 ignored"), "{finished:#?}");
    ensure!(finished.stdout.ends_with("no findings\n"), "{finished:#?}");
    ensure!(history.files()? == before, "check writes nothing");
    Ok(())
}

fn a_new_endpoint_fails_and_its_rule_permits_it() -> Result<()> {
    let evil = Connection { comm: "curl".into(), bytes: (2048, 10), ..to("evil.example") };
    let history = scene(&[to("api.anthropic.com"), evil.clone(), Connection { fails: true, ..evil }])?;
    let finished = check(&history, &[])?;
    finished.expect_code(1)?;
    for part in [
        "new-domain  evil.example:443",
        "curl (for claude) reached",
        "2 connections, 1 failed, sent 2.0 KiB",
        "sh -c fetch",
    ] {
        ensure!(finished.stdout.contains(part), "{part}: {finished:#?}");
    }
    let json = json(&history, &[])?;
    let finding = &json["findings"][0];
    ensure!(
        finding["domain_source"] == "dns" && finding["agent"] == "claude" && finding["count"] == 2,
        "{json:#}"
    );
    let allow = finding["allow"].as_str().context("a rule")?;
    write_policy(&history, &format!("{POLICY}{allow}\n"))?;
    check(&history, &[])?.expect_code(0)?;
    write_policy(&history, &format!("{POLICY}{allow}\n[[deny]]\ndomain = \".evil.example\"\n"))?;
    let denied = check(&history, &[])?;
    denied.expect_code(1)?;
    ensure!(denied.stdout.contains("denies") && denied.stdout.contains("rano.lock.toml:8"), "{denied:#?}");
    Ok(())
}

fn what_fails_is_what_was_named() -> Result<()> {
    let history =
        scene(&[to("api.anthropic.com"), Connection { domain: None, ip: "198.51.100.9", ..to("x") }])?;
    check(&history, &[])?.expect_code(0)?;
    check(&history, &["--fail-on", "unnamed"])?.expect_code(1)?;
    write_policy(&history, &format!("{POLICY}[defaults]\nunnamed = \"fail\"\n"))?;
    check(&history, &["--fail-on", "denied"])?.expect_code(1)?;
    write_policy(&history, &format!("{POLICY}[defaults]\nunnamed = \"allow\"\n"))?;
    check(&history, &[])?.expect_code(0)?;
    check(&history, &["--fail-on", "unnamed"])?.expect_code(1)?;
    let wrong = check(&history, &["--fail-on", "denied,nonsense"])?;
    wrong.expect_code(2)?;
    ensure!(wrong.stderr.contains("no such kind 'nonsense'"), "{wrong:#?}");
    let only_npm = "version = 1\n[[allow]]\ndomain = \"api.anthropic.com\"\nwho = \"npm\"\n[defaults]\nunnamed = \"allow\"\n";
    write_policy(&history, only_npm)?;
    check(&history, &["--fail-on", "denied,new-domain,new-who"])?.expect_code(1)?;
    Ok(())
}

fn a_weak_name_satisfies_nothing() -> Result<()> {
    for by in [DomainSource::Ptr, DomainSource::SharedDns] {
        let history = scene(&[Connection { by, ..to("api.anthropic.com") }])?;
        let json = json(&history, &["--fail-on", "unnamed"])?;
        ensure!(found(&json) == ["unnamed 203.0.113.7:443", "stale rule for api.anthropic.com"], "{json:#}");
        write_policy(&history, &format!("{POLICY}[require]\nnames = [\"{}\"]\n", by.name()))?;
        check(&history, &["--fail-on", "unnamed,new-domain"])?.expect_code(0)?;
    }
    Ok(())
}

fn a_record_with_gaps_never_passes() -> Result<()> {
    let history = scene(&[to("api.anthropic.com")])?;
    history.write("killed", START + DAY, &[to("api.anthropic.com")], End::Killed)?;
    let killed = check(&history, &[])?;
    killed.expect_code(1)?;
    ensure!(killed.stdout.contains("the session has no end"), "{killed:#?}");
    history.write("empty", START + 2 * DAY, &[], End::Clean)?;
    let empty = check(&history, &[])?;
    empty.expect_code(1)?;
    ensure!(empty.stdout.contains("nothing was observed"), "{empty:#?}");
    check(&history, &["--run-id", "night"])?.expect_code(0)?;
    check(&history, &["--since", "1h"])?.expect_code(1)?;
    let lax = format!("{POLICY}[require]\ncomplete = false\n");
    write_policy(&history, &lax)?;
    check(&history, &["--run-id", "killed"])?.expect_code(0)?;
    check(&history, &["--run-id", "empty"])?.expect_code(1)?;
    Ok(())
}

fn polling_says_what_would_help() -> Result<()> {
    let mut history = scene(&[])?;
    history.source = SourceKind::Proc;
    history.write(
        "polled",
        START + DAY,
        &[Connection { by: DomainSource::Ptr, ..to("api.anthropic.com") }],
        End::Clean,
    )?;
    let polled = check(&history, &[])?;
    polled.expect_code(1)?;
    for part in ["observed by proc, which the policy does not accept", "rano run", "cidr"] {
        ensure!(polled.stdout.contains(part), "{part}: {polled:#?}");
    }
    Ok(())
}

fn a_range_and_a_filter_choose_what_is_judged() -> Result<()> {
    let history = scene(&[to("api.anthropic.com"), to("evil.example")])?;
    let later = Connection { at: START + DAY, ..to("other.example") };
    history.write("later", START + DAY, &[later], End::Clean)?;
    let judged = |options: &[&str]| -> Result<Vec<String>> { Ok(found(&json(&history, options)?)) };
    let stale = "stale rule for api.anthropic.com";
    ensure!(judged(&[])? == ["new-domain other.example:443", stale]);
    ensure!(judged(&["--run-id", "night"])? == ["new-domain evil.example:443"]);
    let both = judged(&["--since", "2026-01-17"])?;
    ensure!(both == ["new-domain evil.example:443", "new-domain other.example:443"], "{both:?}");
    ensure!(judged(&["--since", "2026-01-18"])? == ["new-domain other.example:443", stale]);
    ensure!(judged(&["--run-id", "night", "--filter", "domain:api.*"])?.is_empty());
    Ok(())
}

fn files_that_are_no_policy_are_told_apart() -> Result<()> {
    let history = scene(&[to("api.anthropic.com")])?;
    let refused = |code: i32, words: &str| -> Result<()> {
        let finished = check(&history, &[])?;
        finished.expect_code(code)?;
        ensure!(finished.stderr.contains(words) && finished.stdout.is_empty(), "{words}: {finished:#?}");
        Ok(())
    };
    write_policy(&history, "version = 1\n[[allow]]\ndomian = \"x\"\n")?;
    refused(2, "rano.lock.toml:3:1: unknown field `domian`")?;
    write_policy(&history, "version = 1\nextends = \"rano.lock.toml\"\n")?;
    refused(2, "a circle")?;
    write_policy(&history, "version = 1\nextends = \"missing.toml\"\n")?;
    refused(3, "missing.toml")?;
    write_policy(&history, POLICY)?;
    let path = history.directory().join("rano.lock.toml");
    fs::set_permissions(&path, fs::Permissions::from_mode(0o646))?;
    refused(2, "others can write to it")?;
    fs::write(&path, b"version = 1\n# \xff\n")?;
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600))?;
    refused(3, "rano.lock.toml")?;
    fs::remove_file(&path)?;
    refused(3, "rano.lock.toml")?;
    write_policy(&history, POLICY)?;
    check(&history, &["--run-id", "nobody"])?.expect_code(3)?;
    check(&history, &["--sqlite", "missing.sqlite"])?.expect_code(3)?;
    Ok(())
}

fn every_format_is_written() -> Result<()> {
    let history = scene(&[to("api.anthropic.com"), to("evil.example")])?;
    for (format, part) in [
        ("text", "✗ new-domain"),
        ("json", "\"type\":\"check\""),
        ("markdown", "| ❌ | new-domain |"),
        ("sarif", "\"version\":\"2.1.0\""),
        ("junit", "<failure message="),
        ("github", "::error file=rano.lock.toml,line=2,"),
        ("gitlab", "\"check_name\":\"rano-new-domain\""),
        ("in-toto", "https://in-toto.io/attestation/runtime-trace/"),
    ] {
        let finished = check(&history, &["--format", format])?;
        finished.expect_code(1)?;
        ensure!(finished.stdout.contains(part), "{format}: {finished:#?}");
    }
    check(&history, &["--format", "yaml"])?.expect_code(2)?;
    Ok(())
}

fn a_summary_is_appended() -> Result<()> {
    let history = scene(&[to("api.anthropic.com")])?;
    for _ in 0..2 {
        check(&history, &["--summary", "summary.md"])?.expect_code(0)?;
    }
    let text = fs::read_to_string(history.directory().join("summary.md"))?;
    ensure!(text.matches("### ✅ rano: no findings").count() == 2, "{text}");
    check(&history, &["--summary", "no/such/summary.md"])?.expect_code(3)?;
    Ok(())
}
