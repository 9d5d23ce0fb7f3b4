//! Rules, and what they say of what was reached.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use super::judge::Ruling;
use super::*;
use crate::health::Gaps;
use crate::names::classes::{Authority, ClassEntry, Classes};
use crate::words::Bytes;

const NOW: i64 = 1_800_000_000_000;

/// Reads the first of these files, which may extend the others.
fn read(files: &[(&str, &str)]) -> Result<Policy, PolicyError> {
    let files: BTreeMap<&str, &str> = files.iter().copied().collect();
    let first = "a.toml";
    load(Path::new(first), |path| {
        let name = path.to_str().unwrap_or_default();
        match files.get(name) {
            Some(text) => Ok(Loaded { canonical: path.to_owned(), text: (*text).to_owned() }),
            None => Err(PolicyError { path: path.into(), line: 0, column: 0, message: "missing".into() }),
        }
    })
}

fn policy(rules: &str) -> Policy {
    read(&[("a.toml", &format!("version = 1\n{rules}"))]).unwrap_or_else(|error| panic!("{error}"))
}

fn refused(text: &str) -> String {
    read(&[("a.toml", text)]).map_or_else(|error| error.to_string(), |_| String::new())
}

fn contact(name: &str, by: &str, remote: &str, port: u16) -> Contact {
    let known = Known { name: name.into(), by: by.into() };
    Contact {
        run_id: "1-1".into(),
        protocol: "tcp".into(),
        remote: Some(remote.into()),
        port: Some(port),
        name: (!name.is_empty()).then_some(known),
        others: Vec::new(),
        class: "unknown".into(),
        provider: "anthropic".into(),
        program: "curl".into(),
        exe: Some("/usr/bin/curl".into()),
        command: Some("curl -s".into()),
        agent: Some("claude".into()),
        tool: Some("sh -c curl".into()),
        pid: Some(7),
        seen: Seen {
            connects: 1,
            fails: 0,
            bytes: Some(Bytes { sent: 10, received: 20 }),
            first: 1,
            last: 2,
        },
    }
}

fn to(name: &str) -> Contact {
    contact(name, "sni", "203.0.113.7", 443)
}

fn session() -> Observed {
    Observed {
        run_id: "1-1".into(),
        name: None,
        host: "box".to_owned(),
        started_at: 0,
        ended_at: Some(1),
        source: "ebpf-fentry".to_owned(),
        source_reason: None,
        clean_exit: true,
        is_running: false,
        excluded: 0,
        gaps: Gaps::default(),
        is_command: false,
    }
}

fn verdict_on(policy: &Policy, contacts: &[Contact], session: Observed, fail_on: &[Kind]) -> Verdict {
    let classes = Classes::new(&[]);
    let judge = Judge { policy, classes: &classes, now: NOW };
    judge.verdict(contacts.to_vec(), vec![session], fail_on)
}

fn verdict(rules: &str, contacts: &[Contact]) -> Verdict {
    verdict_on(&policy(rules), contacts, session(), &default_fail_on())
}

/// `kind endpoint` of each finding but of rules that were not used; failing ones with a `!`.
fn told(verdict: &Verdict) -> Vec<String> {
    let findings = verdict.findings.iter().filter(|finding| finding.kind != Kind::Stale);
    let line = |finding: &Finding| {
        let endpoint = finding.reached.as_ref().map(Reached::endpoint).unwrap_or_default();
        let mark = if finding.fails { "!" } else { "" };
        format!("{mark}{} {endpoint}", finding.kind.name()).trim_end().to_owned()
    };
    findings.map(line).collect()
}

fn check(rules: &str, contact: Contact, expected: &[&str]) {
    let found = verdict(rules, &[contact]);
    assert_eq!(told(&found), expected, "{rules} {found:?}");
}

fn allow(rule: &str) -> String {
    format!("[[allow]]\n{rule}\n")
}

#[test]
fn a_domain_is_exact_or_below_or_both() {
    let new = |name| format!("!new-domain {name}");
    for (pattern, fits, fits_not) in [
        (
            "api.example.com",
            vec!["api.example.com"],
            vec!["x.api.example.com", "example.com", "api.example.co"],
        ),
        ("*.example.com", vec!["a.example.com", "a.b.example.com"], vec!["example.com", "badexample.com"]),
        (
            ".example.com",
            vec!["example.com", "a.example.com"],
            vec!["badexample.com", "example.com.evil.net"],
        ),
        ("API.Example.com.", vec!["api.example.com"], vec![]),
        ("bücher.example", vec!["xn--bcher-kva.example"], vec!["bucher.example"]),
        ("api-*.example.com", vec!["api-1.example.com"], vec!["api.example.com"]),
    ] {
        let rules = allow(&format!("domain = \"{pattern}\""));
        for name in fits {
            check(&rules, to(name), &[]);
        }
        for name in fits_not {
            check(&rules, to(name), &[&new(name)]);
        }
    }
}

#[test]
fn a_name_counts_by_accepted_evidence_only() {
    let rules = allow("domain = \"api.example.com\"");
    for by in ["proxy", "sni", "quic", "dns", "asked"] {
        check(&rules, contact("api.example.com", by, "203.0.113.7", 443), &[]);
    }
    for by in ["ptr", "known", "shared_dns", "ech_outer", "none"] {
        let contact = contact("api.example.com", by, "203.0.113.7", 443);
        check(&rules, contact.clone(), &["unnamed 203.0.113.7:443"]);
        if by != "none" {
            check(&format!("[require]\nnames = [\"{by}\"]\n{rules}"), contact, &[]);
        }
    }
    // Nor does a class that such a name gives.
    let by_class = allow("class = \"llm_api\"");
    check(&by_class, contact("api.anthropic.com", "sni", "203.0.113.7", 443), &[]);
    check(&by_class, contact("api.anthropic.com", "ptr", "203.0.113.7", 443), &["unnamed 203.0.113.7:443"]);
    // What the history says of a class is the word of whoever could write ./rano.toml.
    let claimed = Contact { class: "llm_api".into(), ..to("evil.example") };
    check(&by_class, claimed, &["!new-domain evil.example"]);
}

#[test]
fn a_class_of_the_users_own_files_counts() {
    let policy = policy(&allow("class = \"llm_api\""));
    let entry = ClassEntry {
        class: crate::words::Class::LlmApi,
        names: vec!["*.corp.example".into()],
        authority: Authority::User,
    };
    let classes = Classes::new(&[entry]);
    let judge = Judge { policy: &policy, classes: &classes, now: NOW };
    assert_eq!(judge.rule(&to("llm.corp.example")), Ruling::Allowed(0));
}

#[test]
fn a_deny_rule_wins_and_a_possible_name_is_enough_for_it() {
    let rules = format!("{}[[deny]]\ndomain = \"*.ngrok.io\"\n", allow("domain = \"x.ngrok.io\""));
    check(&rules, to("x.ngrok.io"), &["!denied x.ngrok.io"]);
    for by in ["ptr", "shared_dns"] {
        let weak = contact("x.ngrok.io", by, "203.0.113.7", 443);
        let found = verdict(&rules, &[weak]);
        assert_eq!(told(&found), ["!denied x.ngrok.io"]);
        assert!(matches!(&found.findings[0].why, Why::Denied { is_possible: true, .. }), "{found:?}");
    }
    let other = Known { name: "a.ngrok.io".into(), by: "dns".into() };
    let several = Contact { others: vec![other], ..to("fine.example") };
    check(&rules, several, &["!denied a.ngrok.io"]);
    check("[[deny]]\ncidr = \"127.0.0.9/32\"\n", contact("", "", "127.0.0.9", 80), &["!denied 127.0.0.9:80"]);
}

#[test]
fn rules_ask_for_ports_networks_programs_and_agents() {
    check(&allow("domain = \"a.example\"\nports = [443]"), to("a.example"), &[]);
    check(&allow("domain = \"a.example\"\nports = [80, 8443]"), to("a.example"), &["!new-domain a.example"]);
    check(&allow("cidr = \"203.0.113.0/24\""), contact("", "", "203.0.113.7", 443), &[]);
    check(
        &allow("cidr = \"203.0.113.0/24\""),
        contact("", "", "203.0.114.7", 443),
        &["unnamed 203.0.114.7:443"],
    );
    check(&allow("cidr = \"2001:db8::/32\""), contact("", "", "2001:db8::7", 443), &[]);
    for (narrow, is_for) in [
        ("who = \"curl\"", true),
        ("who = \"/usr/bin/curl\"", true),
        ("who = \"/usr/bin/*\"", true),
        ("who = \"npm\"", false),
        ("who = \"/usr/local/bin/curl\"", false),
        ("agent = \"claude\"", true),
        ("agent = \"codex\"", false),
        ("provider = \"anthropic\"", true),
        ("provider = \"openai\"", false),
    ] {
        let expected: &[&str] = if is_for { &[] } else { &["new-who a.example"] };
        check(&allow(&format!("domain = \"a.example\"\n{narrow}")), to("a.example"), expected);
    }
}

#[test]
fn localhost_is_ignored_but_not_a_proxy_there() {
    check("", contact("", "", "127.0.0.1", 8080), &[]);
    check("", contact("evil.example", "proxy", "127.0.0.1", 8080), &["!new-domain evil.example"]);
    check(&allow("domain = \"api.example\""), contact("api.example", "proxy", "127.0.0.1", 8080), &[]);
    let through = |host| contact(host, "proxy", "127.0.0.1", 8080).behind_proxy(Some(443));
    check(&allow("domain = \"api.example\"\nports = [443]"), through("api.example"), &[]);
    check(
        &allow("domain = \"api.example\"\nports = [8080]"),
        through("api.example"),
        &["!new-domain api.example"],
    );
    check(&allow("cidr = \"127.0.0.0/8\""), through("evil.example"), &["!new-domain evil.example"]);
    check(&allow("cidr = \"203.0.113.0/24\""), through("203.0.113.7"), &[]);
    check("", through("203.0.113.7"), &["unnamed 203.0.113.7:443"]);
    check("[require]\nnames = [\"sni\"]\n", through("api.example"), &["unnamed api.example:443"]);
    let elsewhere = contact("api.example", "proxy", "198.51.100.66", 3128).behind_proxy(Some(443));
    let deny = "[[deny]]\ncidr = \"198.51.100.0/24\"\n";
    check(&[&allow("domain = \"api.example\""), deny].concat(), elsewhere.clone(), &["!denied api.example"]);
    check("[require]\nnames = [\"sni\"]\n", elsewhere, &["unnamed 198.51.100.66:3128"]);
    let elsewhere = contact("203.0.113.7", "proxy", "198.51.100.66", 3128).behind_proxy(Some(443));
    check(&allow("cidr = \"203.0.113.0/24\""), elsewhere, &["unnamed 198.51.100.66:3128"]);
    check(
        "[defaults]\nignore_classes = []\n",
        contact("", "", "127.0.0.1", 80),
        &["new-class 127.0.0.1:80", "unnamed 127.0.0.1:80"],
    );
}

#[test]
fn only_the_machines_resolvers_may_be_asked() {
    let dns = |name, remote, port| Contact { class: "dns".into(), ..contact(name, "dns", remote, port) };
    check("", dns("", "9.9.9.9", 53), &[]);
    check("", contact("", "", "9.9.9.9", 53), &["unnamed 9.9.9.9:53"]);
    check(
        "[defaults]\nresolvers = \"none\"\n",
        dns("", "9.9.9.9", 53),
        &["new-class 9.9.9.9:53", "unnamed 9.9.9.9:53"],
    );
    // A class that a name was given, not an address.
    check("", dns("evil.example", "203.0.113.9", 53), &["!new-domain evil.example"]);
    check("", dns("", "203.0.113.9", 443), &["unnamed 203.0.113.9:443"]);
}

#[test]
fn an_expired_rule_allows_nothing_and_is_told_of() {
    let rules = |expires| allow(&format!("domain = \"a.example\"\nexpires = {expires}"));
    check(&rules("2099-01-01"), to("a.example"), &[]);
    check(&rules("2020-01-01"), to("a.example"), &["!new-domain a.example", "expired"]);
    check(&rules("\"2020-01-01T00:00:00Z\""), to("a.example"), &["!new-domain a.example", "expired"]);
    // The day itself is over when it begins.
    let at = policy(&rules("1970-01-02")).allow[0].expires;
    assert_eq!(at, Some(86_400_000));
}

#[test]
fn limits_are_for_all_of_an_endpoint() {
    let sent = |sent| Contact {
        seen: Seen { connects: 1, bytes: Some(Bytes { sent, received: 0 }), ..Seen::default() },
        program: sent.to_string().into(),
        ..to("a.example")
    };
    let limit = "[limits]\nsent_per_endpoint = \"1 KiB\"\n";
    let rules = format!("{limit}{}", allow("domain = \"a.example\""));
    assert_eq!(told(&verdict(&rules, &[sent(600), sent(424)])), Vec::<String>::new());
    let found = verdict(&rules, &[sent(600), sent(425)]);
    assert_eq!(told(&found), ["bytes a.example"]);
    assert_eq!(found.findings[0].why, Why::TooMuch { is_sent: true, bytes: 1025, limit: 1024 });
    let own = format!("{limit}{}", allow("domain = \"a.example\"\nsent = 2048"));
    assert_eq!(told(&verdict(&own, &[sent(600), sent(425)])), Vec::<String>::new());
    let unknown = Contact { seen: Seen { bytes: None, ..to("a.example").seen }, ..to("a.example") };
    assert!(verdict(&rules, &[unknown]).remarks.contains(&Remark::BytesUnknown(1)));
}

#[test]
fn kinds_that_fail_are_those_that_were_named() {
    let unnamed = contact("", "", "203.0.113.7", 443);
    let on = |rules: &str, kinds: &str| {
        told(&verdict_on(
            &policy(rules),
            std::slice::from_ref(&unnamed),
            session(),
            &parse_kinds(kinds).expect("kinds"),
        ))
    };
    assert_eq!(on("", "denied"), ["unnamed 203.0.113.7:443"]);
    assert_eq!(on("", "unnamed,bytes"), ["!unnamed 203.0.113.7:443"]);
    assert_eq!(on("[defaults]\nunnamed = \"fail\"\n", "none"), ["!unnamed 203.0.113.7:443"]);
    assert_eq!(on("[defaults]\nunnamed = \"allow\"\n", "denied"), Vec::<String>::new());
    assert_eq!(on("[defaults]\nunnamed = \"allow\"\n", "unnamed"), ["!unnamed 203.0.113.7:443"]);
    assert_eq!(parse_kinds("denied,nonsense"), Err("nonsense".to_owned()));
}

#[test]
fn new_classes_are_told_once() {
    let contacts = [to("o1.ingest.us.sentry.io"), to("statsig.anthropic.com"), to("api.anthropic.com")];
    let rules = allow("domain = \"api.anthropic.com\"");
    let found = verdict(&rules, &contacts);
    let classes: Vec<_> = found.findings.iter().filter(|finding| finding.kind == Kind::NewClass).collect();
    assert_eq!(classes.len(), 1, "{found:?}");
    assert_eq!(classes[0].allow.as_deref(), Some("[[allow]]\nclass = \"telemetry\""));
    assert!(matches!(classes[0].why, Why::NewClass { endpoints: 2, .. }), "{found:?}");
}

#[test]
fn a_record_that_lacks_something_fails() {
    let rules = allow("domain = \"a.example\"");
    let lacks = |session: Observed, contacts: &[Contact]| -> Vec<Lack> {
        let found = verdict_on(&policy(&rules), contacts, session, &default_fail_on());
        let lacks = found.findings.iter().filter_map(|finding| match &finding.why {
            Why::Lack(lack) => Some(lack.clone()),
            _ => None,
        });
        lacks.collect()
    };
    let seen = [to("a.example")];
    assert_eq!(lacks(session(), &seen), []);
    assert_eq!(lacks(session(), &[]), [Lack::Nothing]);
    assert_eq!(lacks(Observed { is_command: true, ..session() }, &[]), []);
    assert_eq!(lacks(Observed { clean_exit: false, ..session() }, &seen), [Lack::Unclean]);
    assert_eq!(lacks(Observed { clean_exit: false, is_running: true, ..session() }, &seen), [Lack::Running]);
    assert_eq!(lacks(Observed { source: "proc".into(), ..session() }, &seen), [Lack::Source("proc".into())]);
    assert_eq!(lacks(Observed { excluded: 3, ..session() }, &seen), [Lack::Excluded(3)]);
    let reason = Some("no root; left out: udp".to_owned());
    assert_eq!(lacks(Observed { source_reason: reason, ..session() }, &seen), [Lack::LeftOut("udp".into())]);
    let mut gaps = Gaps::default();
    gaps.add(crate::health::Gap::SqliteDropped, 2);
    gaps.add(crate::health::Gap::Unresolved, 5);
    let lossy = Observed { gaps, ..session() };
    assert_eq!(lacks(lossy.clone(), &seen), [Lack::Gap(crate::health::Gap::SqliteDropped, 2)]);
    let lax = policy(&format!("[require]\ncomplete = false\n{rules}"));
    let found = verdict_on(&lax, &seen, lossy, &default_fail_on());
    assert!(!found.fails(), "{found:?}");
    assert!(found.remarks.contains(&Remark::LetPass(crate::health::Gap::SqliteDropped, 2)), "{found:?}");
    let mut gaps = Gaps::default();
    gaps.add(crate::health::Gap::Vanished, 1);
    gaps.add(crate::health::Gap::KernelSkipped, 1);
    let costless = Observed { gaps, source: "seccomp".into(), ..session() };
    assert_eq!(lacks(costless.clone(), &seen), []);
    let polled = Observed { source: "proc".into(), ..costless };
    let gap = Lack::Gap(crate::health::Gap::Vanished, 1);
    assert_eq!(lacks(polled, &seen), [Lack::Source("proc".into()), gap]);
    let none = Judge { policy: &policy(&rules), classes: &Classes::new(&[]), now: NOW };
    assert!(none.verdict(Vec::new(), Vec::new(), &default_fail_on()).fails(), "no session");
}

#[test]
fn each_finding_shows_the_rule_that_would_permit_it() {
    let found = verdict("", &[to("a.example"), contact("", "", "2001:db8::7", 8443)]);
    let rules: Vec<_> = found.findings.iter().filter_map(|finding| finding.allow.clone()).collect();
    assert_eq!(rules[0], "[[allow]]\ndomain = \"a.example\"\nports = [443]");
    assert_eq!(rules[1], "[[allow]]\ncidr = \"2001:db8::7/128\"\nports = [8443]");
    // And each of them does.
    let both = policy(&rules.join("\n"));
    let after = verdict_on(&both, &[to("a.example"), contact("", "", "2001:db8::7", 8443)], session(), &[]);
    assert!(after.findings.is_empty(), "{after:?}");
    let hostile = verdict("", &[contact("a\"\n[[allow]]\nclass=\"x", "sni", "203.0.113.7", 443)]);
    let rule = hostile.findings[0].allow.clone().unwrap_or_default();
    assert_eq!(rule.matches("\n[[allow]]").count(), 0, "{rule}");
}

#[test]
fn fingerprints_are_of_what_and_not_of_how_often() {
    let identities = |contacts: &[Contact]| -> Vec<String> {
        verdict("", contacts).findings.iter().map(Finding::identity).collect()
    };
    let once = identities(&[to("a.example"), to("b.example")]);
    let later =
        Contact { run_id: "2-2".into(), pid: Some(99), command: Some("other".into()), ..to("a.example") };
    let again = identities(&[to("b.example"), to("a.example"), later]);
    let sorted = |mut list: Vec<String>| {
        list.retain(|line| !line.is_empty());
        list.sort();
        list
    };
    assert_eq!(sorted(once), sorted(again));
}

#[test]
fn errors_have_line_and_column() {
    for (text, expected) in [
        ("version = 2\n", "a.toml:1:11: this rano reads version 1, not 2"),
        ("version = 1\nallow = 1\n", "a.toml:2:9: invalid type"),
        ("version = 1\n[[allow]]\ndomian = \"x.example\"\n", "a.toml:3:1: unknown field `domian`"),
        ("version = 1\n[[allow]]\nports = [443]\n", "a.toml:2:1: a rule needs"),
        ("version = 1\n[[allow]]\ndomain = \"x.example\"\nports = [70000]\n", "a.toml:4:10: a port is"),
        ("version = 1\n[[allow]]\nclass = \"llm\"\n", "a.toml:3:9: no such class 'llm'"),
        ("version = 1\n[[allow]]\nclass = \"unknown\"\n", "a.toml:3:9: class unknown"),
        ("version = 1\n[[allow]]\ncidr = \"10.0.0.0/33\"\n", "a.toml:3:8: not an address"),
        ("version = 1\n[require]\nnames = [\"dns\", \"rumour\"]\n", "a.toml:3:17: no such evidence 'rumour'"),
        ("version = 1\n[require]\nsource = [\"bpf\"]\n", "a.toml:3:11: no such source 'bpf'"),
        ("version = 1\n[limits]\nsent_per_endpoint = \"much\"\n", "a.toml:3:21: a size is"),
        ("version = 1\n[[allow]]\ndomain = \"a.example\"\nexpires = \"30d\"\n", "a.toml:4:11: 'expires' is"),
        ("version = 1\n[[deny]]\ndomain = \"a.example\"\nexpires = 2030-01-01\n", "a.toml:4:11: a deny rule"),
        ("version = 1\n[[allow]\n", "a.toml:2:9: "),
        ("", "a.toml:1:1: missing field `version`"),
    ] {
        let found = refused(text);
        assert!(found.starts_with(expected), "{text:?}: {found}");
    }
}

#[test]
fn rules_that_let_everybody_in_are_refused() {
    for pattern in
        ["*", "*.com", "*.co.uk", "*.github.io", ".com", "*example.com", "a.*", "*.s3.amazonaws.com"]
    {
        let found = refused(&format!("version = 1\n[[allow]]\ndomain = \"{pattern}\"\n"));
        assert!(found.contains("anybody can register"), "{pattern}: {found}");
        assert_eq!(refused(&format!("version = 1\n[[deny]]\ndomain = \"{pattern}\"\n")), "", "{pattern}");
    }
    for pattern in ["*.example.com", ".example.co.uk", "me.github.io", "*.me.github.io", "com", "localhost"] {
        assert_eq!(refused(&format!("version = 1\n[[allow]]\ndomain = \"{pattern}\"\n")), "", "{pattern}");
    }
    for (network, is_fine) in [
        ("0.0.0.0/0", false),
        ("8.0.0.0/8", false),
        ("10.0.0.0/7", false),
        ("::/0", false),
        ("2001::/16", false),
        ("10.0.0.0/8", true),
        ("fd00::/8", true),
        ("172.16.0.0/12", true),
        ("140.82.0.0/16", true),
        ("2606:4700::/32", true),
    ] {
        let found = refused(&format!("version = 1\n[[allow]]\ncidr = \"{network}\"\n"));
        assert_eq!(found.is_empty(), is_fine, "{network}: {found}");
    }
}

#[test]
fn files_extend_others_and_never_in_a_circle() {
    let base = "version = 1\n[defaults]\nunnamed = \"fail\"\nignore_classes = []\n[[allow]]\ndomain = \"base.example\"\n";
    let own = "version = 1\nextends = \"b.toml\"\n[defaults]\nunnamed = \"warn\"\n[[allow]]\ndomain = \"own.example\"\n";
    let policy = read(&[("a.toml", own), ("b.toml", base)]).expect("a policy");
    assert_eq!((policy.allow.len(), policy.defaults.unnamed), (2, Unnamed::Warn));
    assert!(policy.defaults.ignore_classes.is_empty(), "key by key: {policy:?}");
    assert_eq!(&*policy.allow[0].place.file, "b.toml");
    assert_eq!(policy.allow[1].place.line, 5);
    let alone = read(&[("a.toml", base)]).expect("a policy");
    assert_eq!(alone.sha256(), sha256(base.as_bytes()));
    assert_ne!(
        policy.sha256(),
        read(&[("a.toml", own), ("b.toml", "version = 1\n")]).expect("a policy").sha256()
    );
    for (files, expected) in [
        (
            vec![("a.toml", "version = 1\nextends = \"a.toml\"\n")],
            "a.toml:2:11: 'a.toml' extends this file: a circle",
        ),
        (
            vec![
                ("a.toml", "version = 1\nextends = [\"b.toml\"]\n"),
                ("b.toml", "version = 1\nextends = \"a.toml\"\n"),
            ],
            "b.toml:2:11: 'a.toml' extends this file: a circle",
        ),
        (
            vec![("a.toml", "version = 1\nextends = 7\n")],
            "a.toml:2:11: 'extends' is a file or a list of files",
        ),
    ] {
        assert_eq!(read(&files).map(|_| ()).map_err(|error| error.to_string()), Err(expected.to_owned()));
    }
}

fn baseline(rules: &str, contacts: &[Contact], runs: usize) -> Written {
    let (policy, classes) = (policy(rules), Classes::new(&[]));
    let judge = Judge { policy: &policy, classes: &classes, now: NOW };
    let baseline = Baseline { judge: &judge, contacts, runs };
    baseline.update(&format!("version = 1\n{rules}")).expect("TOML")
}

#[test]
fn a_baseline_is_one_sorted_rule_an_endpoint_and_passes() {
    let of = |run: &str, contact: Contact| Contact { run_id: run.into(), ..contact };
    let contacts = [
        of("1-1", to("z.example")),
        of("2-2", to("z.example")),
        of("2-2", contact("z.example", "dns", "203.0.113.8", 80)),
        of("2-2", to("a.example")),
        of("1-1", contact("", "", "10.0.0.5", 5432)),
        of("1-1", contact("", "", "203.0.113.9", 443)),
        of("1-1", contact("", "", "127.0.0.1", 443)),
    ];
    let (policy, classes) = (policy(""), Classes::new(&[]));
    let judge = Judge { policy: &policy, classes: &classes, now: NOW };
    let written =
        Baseline { judge: &judge, contacts: &contacts, runs: 2 }.fresh(|_| "# comment\n".to_owned());
    let rules = written.text.split_once("[[allow]]").map(|(_, rules)| rules).unwrap_or_default();
    assert_eq!(
        rules,
        "\ndomain = \"a.example\"\nports = [443]\n\n[[allow]]\ndomain = \"z.example\"\nports = [80, 443]\n\n\
         [[allow]]\ncidr = \"10.0.0.5/32\"\nports = [5432]\n"
    );
    assert_eq!((written.endpoints, written.once, written.added), (4, 3, 3), "{written:?}");
    assert_eq!(written.unnamed.len(), 1);
    let read = read(&[("a.toml", &written.text)]).unwrap_or_else(|error| panic!("{error}"));
    let after = verdict_on(&read, &contacts, session(), &default_fail_on());
    assert_eq!(told(&after), ["unnamed 203.0.113.9:443"]);
    let again = Baseline { judge: &judge, contacts: &contacts, runs: 2 }.fresh(|_| "# comment\n".to_owned());
    assert_eq!(written.text, again.text);
}

#[test]
fn comments_order_and_reasons_survive_an_update() {
    let rules = "# Ours.\n[[allow]]\nreason = \"install\"   # why\ndomain = \"z.example\"\nports = [443]\n\n\
                 [[allow]] # odd\ndomain = \"b.example\"\nwho = \"npm\"\n\n[[deny]]\ndomain = \"*.ngrok.io\"\n# The end.\n";
    let contacts = [
        to("z.example"),
        contact("z.example", "dns", "203.0.113.8", 80),
        to("a.example"),
        to("b.example"),
        to("x.ngrok.io"),
    ];
    let written = baseline(rules, &contacts, 1);
    let expected = "version = 1\n# Ours.\n[[allow]]\nreason = \"install\"   # why\ndomain = \"z.example\"\nports = [80, 443]\n\n\
                    [[allow]] # odd\ndomain = \"b.example\"\nwho = \"npm\"\n\n[[allow]]\ndomain = \"a.example\"\nports = [443]\n\n\
                    [[allow]]\ndomain = \"b.example\"\nwho = \"curl\"\n\n[[deny]]\ndomain = \"*.ngrok.io\"\n# The end.\n";
    assert_eq!(written.text, expected);
    assert_eq!((written.added, written.extended, written.denied), (2, 1, 1));
    let read = read(&[("a.toml", &written.text)]).unwrap_or_else(|error| panic!("{error}"));
    assert_eq!(told(&verdict_on(&read, &contacts, session(), &[])), ["denied x.ngrok.io"]);
    let nothing = baseline(rules, &[to("z.example")], 1);
    assert_eq!(nothing.text, format!("version = 1\n{rules}"));
    let expired = allow("domain = \"a.example\"\nexpires = 2020-01-01");
    assert_eq!(baseline(&expired, &[to("a.example")], 1).expired, 1);
}

#[test]
fn siblings_are_suggested_and_suffixes_refused() {
    let of = |names: &[&str]| -> Vec<(String, bool)> {
        let contacts: Vec<_> = names.iter().map(|name| to(name)).collect();
        let found = baseline("", &contacts, 1).suggestions;
        found.into_iter().map(|found| (found.pattern, found.is_refused)).collect()
    };
    assert_eq!(of(&["a.x.example.com", "b.x.example.com"]), []);
    let fine = |pattern: &str| vec![(pattern.to_owned(), false)];
    assert_eq!(of(&["a.x.example.com", "b.x.example.com", "c.x.example.com"]), fine("*.x.example.com"));
    assert_eq!(of(&["node-1.example.com", "node-22.example.com"]), fine("*.example.com"));
    let refused = vec![("*.github.io".to_owned(), true)];
    assert_eq!(of(&["a.github.io", "b.github.io", "c.github.io"]), refused);
    assert_eq!(of(&["a.com", "b.com", "c.com"]), vec![("*.com".to_owned(), true)]);
}

#[test]
fn contacts_that_are_alike_are_put_together() {
    let mut gatherer = Gatherer::default();
    for _ in 0..3 {
        gatherer.add(to("a.example"));
    }
    gatherer.add(to("b.example"));
    let (mut contacts, left_out) = gatherer.finish();
    contacts.sort_by_key(|contact| contact.seen.connects);
    let counts: Vec<_> = contacts.iter().map(|contact| contact.seen.connects).collect();
    assert_eq!((counts, left_out), (vec![1, 3], 0));
    assert_eq!(contacts[1].seen.bytes, Some(Bytes { sent: 30, received: 60 }));
    let _: Arc<str> = Arc::clone(&contacts[0].program);
}

#[test]
fn the_example_of_the_documentation_is_a_policy() {
    let page = include_str!("../../../docs/ci.md");
    let (_, rest) = page.split_once("```toml\n").expect("an example");
    let (example, _) = rest.split_once("```").expect("its end");
    let policy = read(&[("a.toml", example), ("base.lock.toml", "version = 1\n")]);
    let policy = policy.unwrap_or_else(|error| panic!("{error}"));
    assert_eq!((policy.allow.len(), policy.deny.len()), (3, 1));
    for kind in Kind::ALL {
        assert!(page.contains(&format!("| `{}` |", kind.name())), "{kind:?}");
    }
}
