//! `rano baseline`: a policy from sessions whose content the test knows.

use std::fs;

use anyhow::{Result, ensure};
use rano::internals::event::DomainSource;

use super::check::{scene, write_policy};
use crate::support::history::{Connection, End, START};

crate::tests![
    the_union_of_sessions_is_one_sorted_rule_an_endpoint,
    what_was_observed_passes_its_baseline,
    an_update_keeps_what_somebody_wrote,
    nothing_is_widened_and_weak_names_get_no_rule,
];

const DAY: i64 = 86_400_000;

fn to(domain: &str) -> Connection {
    Connection { domain: Some(domain.into()), ..Connection::default() }
}

fn the_union_of_sessions_is_one_sorted_rule_an_endpoint() -> Result<()> {
    let history = scene(&[to("b.example"), to("b.example")])?;
    let other = Connection { port: 8443, ..to("b.example") };
    history.write("second", START + DAY, &[other, to("a.example")], End::Clean)?;
    history.write("third", START + 2 * DAY, &[to("b.example")], End::Clean)?;
    let rules = |options: &[&str]| -> Result<(String, String)> {
        let finished = history.run(&[&["baseline"], options].concat())?;
        let at = finished.stdout.find("[[allow]]").unwrap_or(finished.stdout.len());
        Ok((finished.stdout[at..].to_owned(), finished.stderr))
    };
    let b = "[[allow]]\ndomain = \"b.example\"\nports = [443]\n";
    ensure!(rules(&[])?.0 == b);
    let (all, said) = rules(&["--last", "3"])?;
    let expected = "[[allow]]\ndomain = \"a.example\"\nports = [443]\n\n[[allow]]\ndomain = \"b.example\"\nports = [443, 8443]\n";
    ensure!(all == expected, "{all}");
    ensure!(said.contains("from 3 runs; 1 of 2 endpoints was seen once"), "{said}");
    ensure!(rules(&["--run-id", "night", "--run-id", "third"])?.0 == b);
    ensure!(rules(&["--since", "2026-01-17"])?.0 == expected);
    history.launch(&["baseline", "--run-id", "nobody"])?.run()?.expect_code(3)?;
    history.launch(&["baseline", "--last", "0"])?.run()?.expect_code(2)?;
    Ok(())
}

fn what_was_observed_passes_its_baseline() -> Result<()> {
    let address = Connection { domain: None, ip: "10.1.2.3", port: 5432, ..to("x") };
    let history = scene(&[to("b.example"), to("a.example"), address])?;
    history.run(&["baseline", "--update", "new.toml"])?;
    let all = "denied,new-domain,incomplete,new-who,new-class,unnamed,bytes,expired,stale";
    let fits = history.launch(&["check", "new.toml", "--fail-on", all])?.run()?;
    fits.expect_code(0)?;
    ensure!(fits.stdout.ends_with("no findings\n"), "{fits:#?}");
    history.write("later", START + DAY, &[to("c.example")], End::Clean)?;
    history.launch(&["check", "new.toml"])?.run()?.expect_code(1)?;
    Ok(())
}

fn an_update_keeps_what_somebody_wrote() -> Result<()> {
    let history = scene(&[to("a.example"), to("z.example")])?;
    let written = "version = 1 # ours\n\n[[allow]] # first\ndomain = \"z.example\"\nports = [443]\nreason = \"needed\"\n";
    write_policy(&history, written)?;
    let finished = history.run(&["baseline", "--update", "rano.lock.toml"])?;
    ensure!(finished.stdout.is_empty() && finished.stderr.contains("1 rule added"), "{finished:#?}");
    let text = fs::read_to_string(history.directory().join("rano.lock.toml"))?;
    ensure!(text == format!("{written}\n[[allow]]\ndomain = \"a.example\"\nports = [443]\n"), "{text}");
    history.run(&["baseline", "--update", "rano.lock.toml"])?;
    ensure!(fs::read_to_string(history.directory().join("rano.lock.toml"))? == text);
    write_policy(&history, "version = 1\n[[allow]]\ndomain = \"*\"\n")?;
    history.launch(&["baseline", "--update", "rano.lock.toml"])?.run()?.expect_code(2)?;
    Ok(())
}

fn nothing_is_widened_and_weak_names_get_no_rule() -> Result<()> {
    let names = [
        "a.x.example.com",
        "b.x.example.com",
        "c.x.example.com",
        "a.github.io",
        "b.github.io",
        "c.github.io",
    ];
    let weak = Connection { by: DomainSource::Ptr, ..to("weak.example") };
    let connections: Vec<Connection> = names.iter().map(|name| to(name)).chain([weak]).collect();
    let history = scene(&connections)?;
    let finished = history.run(&["baseline"])?;
    ensure!(
        finished.stdout.matches("[[allow]]").count() == 6 && !finished.stdout.contains('*'),
        "{finished:#?}"
    );
    for part in [
        "suggestion: domain = \"*.x.example.com\"",
        "no wildcard for a.github.io, b.github.io, c.github.io",
        "1 without a name that counts, so without a rule: 203.0.113.7:443",
    ] {
        ensure!(finished.stderr.contains(part), "{part}: {finished:#?}");
    }
    Ok(())
}
