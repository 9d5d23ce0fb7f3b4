//! Names, classes and unknown endpoints, by recordings: it matters when what came.

use std::fs;

use anyhow::{Result, ensure};
use serde_json::Value;
use tempfile::TempDir;

use crate::support::database::Database;
use crate::support::namespace::{Place, User};
use crate::support::rano::{Finished, Launch, default_database};
use crate::support::recording::Recording;
use crate::support::scene::{FAST, Scene};
use crate::support::stage;

crate::tests![
    an_answer_to_the_same_process_names_a_connection_everywhere,
    an_answer_in_a_packet_is_its_askers_once_its_local_end_is_known,
    what_an_address_was_called_before_is_not_its_name,
    a_greeting_goes_before_an_answer_and_both_are_kept,
    names_that_fit_equally_well_are_kept_and_none_is_shown,
    another_users_look_up_neither_classes_nor_silences,
    a_flood_of_unknown_endpoints_is_counted_and_blinds_nothing,
    a_strangers_flood_of_answers_blinds_no_look_up,
    a_name_after_the_close_reaches_rows_json_and_alerts,
    a_failed_attempt_is_named_too,
    names_that_are_not_kept_are_counted,
    a_reverse_name_classifies_only_if_it_leads_back,
    an_unknown_endpoint_is_told_once_when_names_had_their_time,
    an_unknown_endpoint_that_is_closed_waits_for_its_reverse_name,
    what_is_known_is_no_unknown_endpoint,
    classes_of_ones_own_count_and_those_of_the_working_directory_only_add,
    the_summary_sums_up_names_and_classes,
    names_without_udp_being_shown,
    a_mode_that_cannot_run_says_why_and_gives_way,
    a_capture_file_that_is_not_there_is_an_error,
];

const WEB: &str = "203.0.113.7:443";

fn replay(recording: &Recording, arguments: &[&str]) -> Result<(Finished, TempDir)> {
    replay_with(recording, arguments, &[])
}

/// With files in the home directory, which is also the working directory.
fn replay_with(
    recording: &Recording,
    arguments: &[&str],
    files: &[(&str, &str)],
) -> Result<(Finished, TempDir)> {
    replay_at(&Place::new(User::Ordinary)?, recording, arguments, files)
}

fn replay_at(
    place: &Place,
    recording: &Recording,
    arguments: &[&str],
    files: &[(&str, &str)],
) -> Result<(Finished, TempDir)> {
    let directory = stage::directory(place)?;
    for (name, text) in files {
        fs::write(directory.path().join(name), text)?;
    }
    let path = recording.write(directory.path())?;
    let fixed = ["--stats-interval-ms", "0", "--replay"];
    let finished = Launch::new(place, directory.path())?.args(fixed).args([path]).args(arguments).run()?;
    finished.expect_code(0)?;
    Ok((finished, directory))
}

fn text(directory: &TempDir, query: &str) -> Result<String> {
    Database::open(&default_database(directory.path()))?.text(query)
}

const EVENTS: &str = "SELECT ifnull(group_concat(concat_ws(' ', event, domain, domain_source, endpoint_type), '; '), '') \
                      FROM events WHERE remote_port = 443";
const OTHERS: &str = "SELECT ifnull(group_concat(concat_ws(' ', event, name, event_names.source), '; '), '') \
                      FROM event_names JOIN events ON events.id = event_id";

fn lines(finished: &Finished) -> Result<Vec<Value>> {
    finished.stdout.lines().map(|line| Ok(serde_json::from_str(line)?)).collect()
}

fn unknown_endpoints(finished: &Finished) -> Vec<&str> {
    finished.stderr.lines().filter_map(|line| line.strip_prefix("⚠ Unknown endpoint: ")).collect()
}

fn an_answer_to_the_same_process_names_a_connection_everywhere() -> Result<()> {
    let recording = Recording::new()
        .datagrams(1, 0, "10.0.0.53:53")
        .answer(Some(1), 10, "api.anthropic.com", "203.0.113.7", 60)
        .exact(2, 20, WEB)
        .close(2, 30);
    let place = Place::new(User::Ordinary)?;
    let (finished, directory) = replay_at(&place, &recording, &[], &[])?;
    let shown = " -> 203.0.113.7:443 | domain=api.anthropic.com | ";
    let shown: Vec<&str> = finished.stdout.lines().filter(|line| line.contains(shown)).collect();
    ensure!(
        shown.len() == 2 && shown.iter().all(|line| line.contains(" | class=llm_api")),
        "{}",
        finished.stdout
    );
    ensure!(unknown_endpoints(&finished).is_empty(), "{}", finished.stderr);
    let row = "api.anthropic.com dns llm_api";
    let found = text(&directory, EVENTS)?;
    ensure!(found == format!("connect {row}; close {row}"), "{found}");
    let (finished, _) = replay(&recording, &["--json"])?;
    let connect = &lines(&finished)?[1];
    ensure!(connect["domain_source"] == "dns" && connect["endpoint_type"] == "llm_api", "{connect}");
    let report = Launch::new(&place, directory.path())?.args(["report"]).run()?;
    let mut rows = report.stdout.lines().filter(|line| line.contains("api.anthropic.com"));
    ensure!(rows.any(|row| row.contains("llm_api") && row.contains("dns")), "{}", report.stdout);
    let domains = text(&directory, "SELECT domain || connects FROM provider_domains")?;
    ensure!(domains == "api.anthropic.com1", "{domains}");
    Ok(())
}

fn an_answer_in_a_packet_is_its_askers_once_its_local_end_is_known() -> Result<()> {
    let recording = Recording::new()
        .datagrams(1, 0, "10.0.0.53:53")
        .answer(None, 10, "api.example", "203.0.113.7", 60)
        .exact(2, 20, WEB)
        .local(1, 30, "10.0.0.1:9")
        .close(2, 40);
    let (finished, directory) = replay(&recording, &["--json", "--no-udp"])?;
    let sources: Vec<String> =
        lines(&finished)?.iter().map(|line| format!("{} {}", line["event"], line["domain_source"])).collect();
    let expected = [r#""connect" "shared_dns""#, r#""name" "dns""#, r#""close" "dns""#];
    ensure!(sources == expected, "{sources:?}");
    let found = text(&directory, EVENTS)?;
    ensure!(found == "connect api.example dns unknown; close api.example dns unknown", "{found}");
    ensure!(text(&directory, OTHERS)?.is_empty(), "it has one name");
    Ok(())
}

fn what_an_address_was_called_before_is_not_its_name() -> Result<()> {
    // An answer of a second, and ten more in which a program may come to it.
    let expired = Recording::new()
        .datagrams(1, 0, "10.0.0.53:53")
        .answer(Some(1), 10, "old.example", "203.0.113.7", 1)
        .exact(2, 11_011, WEB)
        .close(2, 11_020);
    let (_, directory) = replay(&expired, &["--no-udp"])?;
    let found = text(&directory, EVENTS)?;
    ensure!(found == "connect none unknown; close none unknown", "{found}");
    ensure!(text(&directory, OTHERS)?.is_empty(), "not among the others either");
    // The address goes to somebody else, while the first answer still holds.
    let given_away = Recording::new()
        .datagrams(1, 0, "10.0.0.53:53")
        .answer(Some(1), 10, "old.example", "203.0.113.7", 600)
        .exact(2, 20, WEB)
        .close(2, 30)
        .answer(Some(1), 40, "new.example", "203.0.113.7", 600)
        .exact(3, 50, WEB)
        .close(3, 60);
    let (_, directory) = replay(&given_away, &["--no-udp"])?;
    let found = text(&directory, "SELECT group_concat(domain || ' ' || domain_source, ', ') FROM events")?;
    ensure!(found == "old.example dns, old.example dns, new.example dns, new.example dns", "{found}");
    // The same ends again: what is heard late was said by the one that has ended.
    let again = Recording::new()
        .exact(1, 0, WEB)
        .close(1, 20)
        .exact(2, 30, WEB)
        .greeting(1, 10, "first.example", "sni")
        .close(2, 40);
    let (_, directory) = replay(&again, &[])?;
    let found = text(&directory, EVENTS)?;
    let first = "connect first.example sni unknown; close first.example sni unknown";
    ensure!(found == format!("{first}; connect none unknown; close none unknown"), "{found}");
    Ok(())
}

fn a_greeting_goes_before_an_answer_and_both_are_kept() -> Result<()> {
    let recording = Recording::new()
        .answer(None, 10, "front.example", "203.0.113.7", 60)
        .exact(1, 20, WEB)
        .greeting(1, 30, "api.example", "sni")
        .greeting(1, 40, "late.example", "ech_outer")
        .close(1, 50);
    let (finished, directory) = replay(&recording, &["--json"])?;
    let shown: Vec<String> = lines(&finished)?
        .iter()
        .map(|line| {
            format!("{} {} {}", line["event"], line["domain"], line["domain_source"]).replace('"', "")
        })
        .collect();
    let expected = ["connect front.example shared_dns", "name api.example sni", "close api.example sni"];
    ensure!(shown == expected, "{shown:?}");
    let found = text(&directory, EVENTS)?;
    ensure!(found == "connect api.example sni unknown; close api.example sni unknown", "{found}");
    let mut others: Vec<String> = text(&directory, OTHERS)?.split("; ").map(str::to_owned).collect();
    others.sort();
    let expected = [
        "close front.example shared_dns",
        "close late.example ech_outer",
        "connect front.example shared_dns",
        "connect late.example ech_outer",
    ];
    ensure!(others == expected, "{others:?}");
    Ok(())
}

fn names_that_fit_equally_well_are_kept_and_none_is_shown() -> Result<()> {
    let recording = Recording::new()
        .datagrams(1, 0, "10.0.0.53:53")
        .answer(Some(1), 10, "a.example", "203.0.113.7", 60)
        .answer(Some(1), 11, "b.example", "203.0.113.7", 60)
        .exact(2, 20, WEB)
        .close(2, 30);
    let (finished, directory) = replay(&recording, &["--alert-domain", "*.example"])?;
    ensure!(!finished.stdout.contains("domain="), "{}", finished.stdout);
    let alerts = finished
        .stderr
        .lines()
        .filter(|line| line.contains(".example matched *.example (possible) | claude("));
    ensure!(alerts.count() == 2, "either may be its name: {}", finished.stderr);
    ensure!(finished.stdout.contains("1 unresolved: "), "{}", finished.stdout);
    let found = text(&directory, EVENTS)?;
    ensure!(found == "connect none unknown; close none unknown", "{found}");
    let others = text(&directory, OTHERS)?;
    ensure!(others.matches("a.example dns").count() == 2 && others.matches("b.example dns").count() == 2);
    Ok(())
}

fn a_name_after_the_close_reaches_rows_json_and_alerts() -> Result<()> {
    let recording = Recording::new()
        .exact(1, 0, WEB)
        .close(1, 20)
        .greeting(1, 15, "evil.malicious.com", "sni")
        .clock(6_000)
        .greeting(1, 6_001, "too.late.example", "sni");
    let arguments = ["--json", "--alert-domain", "*.malicious.com"];
    let (finished, directory) = replay(&recording, &arguments)?;
    let lines = lines(&finished)?;
    let events: Vec<&str> = lines.iter().filter_map(|line| line["event"].as_str()).collect();
    ensure!(events == ["connect", "close", "name"], "{events:?}");
    ensure!(lines[2]["domain"] == "evil.malicious.com" && lines[2]["domain_source"] == "sni");
    ensure!(finished.stderr.matches("\"kind\":\"domain_match\"").count() == 1, "{}", finished.stderr);
    let query = "SELECT group_concat(concat_ws(' ', event, domain, alert), '; ') FROM events";
    let found = text(&directory, query)?;
    ensure!(found == "connect evil.malicious.com 1; close evil.malicious.com 1", "{found}");
    ensure!(!finished.stderr.contains("unresolved"), "{}", finished.stderr);
    Ok(())
}

/// Claude's connection, which a process of user `uid` looked up; what rano says, and rows and names.
fn looked_up_by(uid: u32) -> Result<(Finished, String)> {
    let recording = Recording::new()
        .process_of(50, "getent", uid)
        .datagrams_of(50, 1, 0, "10.0.0.53:53")
        .answer(Some(1), 10, "api.anthropic.com", "203.0.113.7", 60)
        .exact(2, 20, WEB)
        .clock(3_000)
        .close(2, 4_000);
    let (finished, directory) = replay(&recording, &["--alert-unknown-domain"])?;
    Ok((finished, text(&directory, EVENTS)?))
}

fn another_users_look_up_neither_classes_nor_silences() -> Result<()> {
    let (finished, rows) = looked_up_by(2000)?;
    let name = "api.anthropic.com shared_dns unknown";
    ensure!(rows == format!("connect {name}; close {name}"), "{rows}");
    let told = format!("unknown_domain | {WEB} has no name (possible: api.anthropic.com)");
    ensure!(finished.stderr.contains(&told), "{}", finished.stderr);
    let unknown = unknown_endpoints(&finished);
    ensure!(unknown.len() == 1 && unknown[0].starts_with(WEB), "{unknown:?}");
    // The same user, and root, of whom a user must believe it.
    for uid in [1000, 0] {
        let (finished, rows) = looked_up_by(uid)?;
        ensure!(rows.starts_with("connect api.anthropic.com shared_dns llm_api; close "), "{uid}: {rows}");
        ensure!(!finished.stderr.contains("unknown_domain"), "{uid}: {}", finished.stderr);
        ensure!(unknown_endpoints(&finished).is_empty(), "{uid}: {}", finished.stderr);
    }
    Ok(())
}

fn a_flood_of_unknown_endpoints_is_counted_and_blinds_nothing() -> Result<()> {
    let mut recording = Recording::new().process(43, "codex");
    for connection in 1..=500_u16 {
        let [high, low] = connection.to_be_bytes();
        let remote = format!("203.0.{}.{low}:443", 113 + high);
        recording = recording.exact(connection, u64::from(connection), &remote).close(connection, 600);
    }
    // Another process, and later the same one.
    recording = recording.connect_of(43, 600, 700, "198.51.100.1:443", "established").close(600, 710);
    recording =
        recording.clock(3_000).clock(20_000).exact(601, 20_001, "198.51.100.2:443").close(601, 20_002);
    let (finished, _) = replay(&recording, &[])?;
    let told = unknown_endpoints(&finished);
    ensure!(told.iter().any(|line| line.starts_with("198.51.100.1:443 | codex")), "{told:?}");
    ensure!(told.iter().any(|line| line.starts_with("198.51.100.2:443 | claude")), "{}", finished.stderr);
    ensure!(told.len() == 22, "{told:?}");
    let counted = "⚠ Unknown endpoints: 480 more, ";
    ensure!(finished.stderr.matches(counted).count() == 1, "{}", finished.stderr);
    Ok(())
}

/// Ninety questions with as many addresses as a message holds, of a process that nobody watches.
fn a_strangers_flood_of_answers_blinds_no_look_up() -> Result<()> {
    let mut recording = Recording::new().process_of(50, "flood", 2000);
    recording = recording.datagrams_of(50, 1, 0, "10.0.0.53:53").datagrams(2, 0, "10.0.0.53:53");
    for question in 0..120_u32 {
        let address = |n: u32| std::net::Ipv4Addr::from(0x0b00_0000 + question * 182 + n).to_string();
        let addresses: Vec<String> = (0..182).map(address).collect();
        recording = recording.answers(Some(1), 10, &format!("q{question}.example"), &addresses, 3600);
    }
    recording = recording
        .answer(Some(2), 20, "api.example", "203.0.113.7", 60)
        .exact(3, 30, WEB)
        .clock(600_000)
        .answer(Some(2), 600_010, "later.example", "203.0.113.8", 60)
        .exact(4, 600_020, "203.0.113.8:443");
    let (finished, directory) = replay(&recording, &[])?;
    let rows = text(&directory, EVENTS)?;
    ensure!(rows == "connect api.example dns unknown; connect later.example dns unknown", "{rows}");
    ensure!(finished.stdout.contains("names forgotten: "), "{}", finished.stdout);
    ensure!(finished.stderr.matches("no room left: names forgotten").count() == 1, "{}", finished.stderr);
    Ok(())
}

fn a_failed_attempt_is_named_too() -> Result<()> {
    let recording = Recording::new().connect_of(42, 1, 0, WEB, "connecting").fail(1, 20).answer(
        None,
        0,
        "late.example",
        "203.0.113.7",
        60,
    );
    let (_, directory) = replay(&recording, &[])?;
    let found = text(&directory, EVENTS)?;
    ensure!(found == "fail late.example shared_dns unknown", "{found}");
    Ok(())
}

fn names_that_are_not_kept_are_counted() -> Result<()> {
    let mut recording = Recording::new().connect(1, 0, WEB).name(1, 1, "best.example", "sni");
    for number in 0..11 {
        recording = recording.name(1, 2, &format!("other-{number}.example"), "dns");
    }
    let (finished, directory) = replay(&recording, &[])?;
    ensure!(finished.stdout.contains("\n    3 other names: "), "{}", finished.stdout);
    ensure!(!finished.stdout.contains("nothing missed"), "{}", finished.stdout);
    let kept = text(&directory, "SELECT count(*) || '' FROM event_names")?;
    ensure!(kept == "8", "{kept}");
    Ok(())
}

fn a_reverse_name_classifies_only_if_it_leads_back() -> Result<()> {
    let recording = Recording::new()
        .pointer(0, "203.0.113.7", "api.anthropic.com", false)
        .pointer(0, "203.0.113.8", "lb-1.github.com", true)
        .exact(1, 10, WEB)
        .exact(2, 10, "203.0.113.8:443");
    let (_, directory) = replay(&recording, &[])?;
    let found = text(&directory, EVENTS)?;
    let expected = "connect api.anthropic.com ptr unknown; connect lb-1.github.com ptr code_host";
    ensure!(found == expected, "{found}");
    Ok(())
}

fn an_unknown_endpoint_is_told_once_when_names_had_their_time() -> Result<()> {
    let recording = Recording::new()
        .exact(1, 0, WEB)
        .exact(2, 100, WEB)
        .exact(3, 200, "203.0.113.8:443")
        .close(3, 300)
        .exact(4, 1_000, "203.0.113.9:443")
        .greeting(4, 1_100, "evil.example", "sni")
        .clock(1_900)
        .exact(5, 2_500, "203.0.113.10:443")
        .clock(5_000);
    let (finished, _) = replay(&recording, &[])?;
    let expected = [
        "203.0.113.9:443 | claude (42) | domain=evil.example",
        "203.0.113.7:443 | claude (42)",
        "203.0.113.8:443 | claude (42)",
        "203.0.113.10:443 | claude (42)",
    ];
    ensure!(unknown_endpoints(&finished) == expected, "{}", finished.stderr);
    ensure!(!finished.stdout.contains("alerts"), "it is no alert: {}", finished.stdout);
    let (finished, _) = replay(&recording, &["--no-alerts"])?;
    ensure!(unknown_endpoints(&finished).is_empty(), "{}", finished.stderr);
    Ok(())
}

fn an_unknown_endpoint_that_is_closed_waits_for_its_reverse_name() -> Result<()> {
    let recording = Recording::new()
        .exact(1, 0, WEB)
        .close(1, 100)
        .exact(2, 0, "203.0.113.8:443")
        .close(2, 100)
        .exact(3, 0, "203.0.113.9:443")
        .close(3, 100)
        .pointer(500, "203.0.113.7", "lb-1.github.com", true)
        .pointer(600, "203.0.113.8", "lb-2.github.com", false)
        .clock(700);
    let (finished, directory) = replay(&recording, &[])?;
    // The second one's name is only what its owner calls it, the third has none; the end of the recording waits no
    // longer.
    let expected =
        ["203.0.113.8:443 | claude (42) | domain=~lb-2.github.com", "203.0.113.9:443 | claude (42)"];
    ensure!(unknown_endpoints(&finished) == expected, "{}", finished.stderr);
    let classes =
        text(&directory, "SELECT group_concat(endpoint_type, ' ') FROM events WHERE event = 'close'")?;
    ensure!(classes == "code_host unknown unknown", "{classes}");
    Ok(())
}

fn what_is_known_is_no_unknown_endpoint() -> Result<()> {
    let recording = Recording::new()
        .exact(1, 0, WEB)
        .greeting(1, 1_900, "github.com", "sni")
        .exact(2, 0, "10.0.0.7:443")
        .exact(3, 0, "127.0.0.53:53")
        .exact(4, 0, "[::1]:443")
        .close(4, 10)
        .exact(5, 0, "203.0.113.53:53")
        .clock(5_000);
    let (finished, _) = replay(&recording, &[])?;
    // Its port makes nobody a resolver of this machine.
    ensure!(unknown_endpoints(&finished) == ["203.0.113.53:53 | claude (42)"], "{}", finished.stderr);
    Ok(())
}

fn classes_of_ones_own_count_and_those_of_the_working_directory_only_add() -> Result<()> {
    let recording = Recording::new()
        .exact(1, 0, WEB)
        .greeting(1, 10, "llm.corp.example", "sni")
        .exact(2, 0, "203.0.113.8:443")
        .greeting(2, 10, "github.com", "sni")
        .exact(3, 0, "203.0.113.9:443")
        .greeting(3, 10, "added.example", "sni");
    let files = [
        (".rano.toml", "[endpoints]\nllm_api = [\"*.corp.example\"]\n"),
        ("rano.toml", "[endpoints]\ntelemetry = [\"github.com\", \"added.example\", \"llm.corp.example\"]\n"),
    ];
    let (finished, directory) = replay_with(&recording, &[], &files)?;
    let found = text(&directory, "SELECT group_concat(endpoint_type, ' ') FROM events")?;
    ensure!(found == "llm_api code_host telemetry", "{found}");
    // What whoever is watched may have written makes an endpoint no better known.
    let warned = unknown_endpoints(&finished);
    ensure!(warned.len() == 1 && warned[0].contains("203.0.113.9:443"), "{}", finished.stderr);
    for expected in ["can only add providers and endpoints", "'github.com' is code_host and not telemetry"] {
        ensure!(finished.stderr.contains(expected), "{}", finished.stderr);
    }
    Ok(())
}

fn the_summary_sums_up_names_and_classes() -> Result<()> {
    let recording = Recording::new()
        .exact(1, 0, WEB)
        .exact(2, 0, WEB)
        .close(2, 10)
        .greeting(1, 20, "api.openai.com", "sni")
        .greeting(2, 20, "api.openai.com", "quic")
        .exact(3, 30, "203.0.113.8:443");
    let (finished, _) = replay(&recording, &["--summary-only"])?;
    for expected in [
        "  Top Domains\n    2 api.openai.com\n",
        "  Endpoints\n    2 llm_api   sent 5 B   received 6 B\n    1 unknown   sent 0 B   received 0 B\n",
        "    names recording\n    1 unresolved: connections to public addresses whose name is not known\n",
    ] {
        ensure!(finished.stdout.contains(expected), "{expected}: {}", finished.stdout);
    }
    Ok(())
}

fn names_without_udp_being_shown() -> Result<()> {
    let recording = Recording::new()
        .datagrams(1, 0, "10.0.0.53:53")
        .answer(Some(1), 10, "api.example", "203.0.113.7", 60)
        .exact(2, 20, WEB);
    let (finished, directory) = replay(&recording, &["--no-udp"])?;
    ensure!(!finished.stdout.contains("| udp |"), "{}", finished.stdout);
    ensure!(text(&directory, EVENTS)? == "connect api.example dns unknown");
    Ok(())
}

fn a_mode_that_cannot_run_says_why_and_gives_way() -> Result<()> {
    let scene = Scene::new(User::Ordinary)?;
    let run = |arguments: &[&str]| -> Result<Finished> {
        let rano = scene.launch()?.args(FAST).args(arguments).start()?;
        rano.stderr.wait_for("the banner", |line| line.contains(", names "))?;
        rano.interrupt()
    };
    let finished = run(&["--source", "proc", "--domain-mode", "ebpf"])?;
    let warning = "warning: no names by eBPF: --source proc was asked for; ";
    ensure!(finished.stderr.contains(warning), "{}", finished.stderr);
    let finished = run(&["--pcap"])?;
    let warned = finished.stderr.contains("warning: no names with libpcap: ");
    let uses = finished.stderr.contains(", names pcap");
    ensure!(warned != uses, "{}", finished.stderr);
    ensure!(uses || finished.stderr.contains("; names come from reverse look-ups"), "{}", finished.stderr);
    let finished = run(&["--domain-mode", "ptr", "--no-dns"])?;
    ensure!(finished.stderr.contains(", names none"), "{}", finished.stderr);
    ensure!(finished.stdout.contains("    names none\n"), "{}", finished.stdout);
    Ok(())
}

fn a_capture_file_that_is_not_there_is_an_error() -> Result<()> {
    let scene = Scene::new(User::Ordinary)?;
    let expected = "\
error: open capture file /nonexistent/x.pcap: No such file or directory (os error 2)
hint: name a file that exists and that you can read
";
    let finished = scene.launch()?.env("RANO_PCAP_FILE", "/nonexistent/x.pcap").run()?;
    finished.expect_code(3)?;
    ensure!(finished.stderr == expected, "{}", finished.stderr);
    let finished = scene.launch()?.args(["--replay", "/nonexistent/x.pcap"]).run()?;
    finished.expect_code(3)?;
    ensure!(finished.stderr == expected.replace("capture file", "recording"), "{}", finished.stderr);
    let finished = scene.launch()?.env("RANO_PCAP_FILE", "/proc/self/cmdline").run()?;
    finished.expect_code(3)?;
    let message = "error: open capture file /proc/self/cmdline: it is no capture file (pcap or pcapng)\n";
    ensure!(finished.stderr.starts_with(message), "{}", finished.stderr);
    Ok(())
}

// ---- real sockets ----
