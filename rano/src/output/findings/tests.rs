//! Every format, of names that a hostile process chose.

use jiff::tz::TimeZone;

use super::super::report::Form;
use super::super::style::Styles;
use super::*;
use crate::health::{Gap, Gaps};
use crate::names::classes::Classes;
use crate::policy::{Contact, Judge, Known, Loaded, Observed, Policy, PolicyError, Seen, load};
use crate::words::Bytes;

const HOSTILE: &str = "a\u{1b}[31m\n::error::x|`<b>&\"'\u{202e}]]>\u{0}@octocat";

fn policy() -> Policy {
    let text = "version = 1\n[[allow]]\ndomain = \"fine.example\"\n[[deny]]\ndomain = \"*.ngrok.io\"\n";
    let read =
        |_: &std::path::Path| Ok::<_, PolicyError>(Loaded { canonical: "x".into(), text: text.to_owned() });
    load(std::path::Path::new("./lock file.toml"), read).expect("a policy")
}

fn verdict(hostile: bool) -> Verdict {
    let odd = |plain: &str| if hostile { format!("{plain}{HOSTILE}") } else { plain.to_owned() };
    let contact = |name: &str| Contact {
        run_id: "1-1".into(),
        protocol: "tcp".into(),
        remote: Some("203.0.113.7".into()),
        port: Some(443),
        name: Some(Known { name: name.into(), by: "sni".into() }),
        others: Vec::new(),
        class: "unknown".into(),
        provider: "anthropic".into(),
        program: odd("curl").into(),
        exe: None,
        command: Some(odd("curl -s").into()),
        agent: Some(odd("claude").into()),
        tool: Some(odd("sh -c").into()),
        pid: Some(7),
        seen: Seen {
            connects: 2,
            fails: 1,
            bytes: Some(Bytes { sent: 2048, received: 1 }),
            first: 1,
            last: 2,
        },
    };
    let mut gaps = Gaps::default();
    gaps.add(Gap::KernelDropped, 3);
    let observed = Observed {
        run_id: odd("1-1").into(),
        name: Some(odd("night")),
        host: odd("box"),
        started_at: 1_768_678_200_000,
        ended_at: Some(1_768_678_260_000),
        source: "ebpf-fentry".to_owned(),
        source_reason: None,
        clean_exit: true,
        is_running: false,
        excluded: 0,
        gaps,
        is_command: true,
    };
    let contacts = vec![contact("x.ngrok.io"), contact(&odd("evil.example")), contact("fine.example")];
    let (policy, classes) = (policy(), Classes::new(&[]));
    let judge = Judge { policy: &policy, classes: &classes, now: 0 };
    judge.verdict(contacts, vec![observed], &crate::policy::default_fail_on())
}

fn rendered(format: Format, hostile: bool) -> String {
    let look =
        Look { styles: &Styles::PLAIN, width: 100, top: 0, zone: &TimeZone::UTC, form: Form::Terminal };
    render(format, &verdict(hostile), &"ab".repeat(32), &look)
}

#[test]
fn no_format_passes_on_what_moves_a_cursor() {
    for format in Format::ALL {
        let text = rendered(format, true);
        let bad = text
            .chars()
            .find(|&character| character != '\n' && super::super::escape::is_dangerous(character));
        assert_eq!(bad, None, "{format:?}: {text}");
        assert!(!text.contains("\n::error::x"), "{format:?}: {text}");
    }
}

#[test]
fn the_text_names_everything_of_a_finding() {
    let text = rendered(Format::Text, false);
    for part in [
        "✗ denied  x.ngrok.io:443\n    curl (for claude) reached x.ngrok.io:443, which the rule for *.ngrok.io denies\n",
        "    3 connections, 1 failed, sent 2.0 KiB, received 1 B, name by sni, class unknown\n",
        "    tool    sh -c\n    command curl -s\n    ./lock file.toml:4\n",
        "✗ new-domain  evil.example:443",
        "    to permit it:\n      [[allow]]\n      domain = \"evil.example\"\n      ports = [443]\n",
        "✗ incomplete  session 1-1\n    the record has gaps: 3 kernel dropped",
        "\n3 findings, of which 3 fail (fails on: denied, new-domain, incomplete)\n",
        "3 endpoints, 1 allowed; 9 connections, 0 ignored",
    ] {
        assert!(text.contains(part), "{part:?} is missing in\n{text}");
    }
}

#[test]
fn objects_are_whole_whatever_the_names_are() {
    for hostile in [false, true] {
        for format in [Format::Json, Format::Sarif, Format::Gitlab, Format::InToto] {
            let text = rendered(format, hostile);
            let json: serde_json::Value =
                serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}"));
            let findings = match format {
                Format::Json => &json["findings"],
                Format::Sarif => &json["runs"][0]["results"],
                Format::InToto => &json["predicate"]["monitor"]["tracePolicy"]["findings"],
                _ => &json,
            };
            assert_eq!(findings.as_array().map(Vec::len), Some(3), "{format:?}: {json:#}");
        }
    }
    let sarif: serde_json::Value = serde_json::from_str(&rendered(Format::Sarif, false)).expect("JSON");
    let result = &sarif["runs"][0]["results"][0];
    assert_eq!(result["locations"][0]["physicalLocation"]["artifactLocation"]["uri"], "lock%20file.toml");
    assert_eq!(result["locations"][0]["physicalLocation"]["region"]["startLine"], 4);
    let statement: serde_json::Value = serde_json::from_str(&rendered(Format::InToto, false)).expect("JSON");
    let network = &statement["predicate"]["monitorLog"]["network"];
    assert_eq!(network.as_array().map(Vec::len), Some(3), "allowed ones too: {statement:#}");
    assert_eq!(network[2]["hostname"], "fine.example");
}

#[test]
fn annotations_are_ten_at_most_and_escaped() {
    let text = rendered(Format::Github, false);
    assert!(
        text.starts_with("::error file=lock file.toml,line=4,title=rano denied%3A x.ngrok.io%3A443::curl"),
        "{text}"
    );
    assert!(text.contains("%0A[[allow]]%0Adomain = "), "{text}");
    let mut many = verdict(false);
    many.findings = many.findings.iter().cycle().take(40).cloned().collect();
    let look =
        Look { styles: &Styles::PLAIN, width: 100, top: 0, zone: &TimeZone::UTC, form: Form::Terminal };
    let text = render(Format::Github, &many, "", &look);
    assert_eq!(text.lines().filter(|line| line.starts_with("::")).count(), 10, "{text}");
}

#[test]
fn tables_have_as_many_cells_as_columns() {
    let text = rendered(Format::Markdown, true);
    let rows: Vec<_> = text.lines().filter(|line| line.starts_with("| ")).collect();
    assert_eq!(rows.len(), 4, "{text}");
    for row in rows {
        assert_eq!(row.replace("\\|", "").matches('|').count(), 8, "{row}");
    }
}
