//! `rano export`, read by the programs that will read it.

use std::io::Write as _;
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};

use crate::support::history::{Connection, End, History, START, every};
use crate::support::trial::skip;

crate::tests![
    the_default_fields_stand_in_their_order,
    hostile_cells_come_back_through_python,
    json_lines_have_every_event_without_nulls,
    jq_counts_what_sql_counts,
    filters_hold_together,
    fields_are_chosen_and_checked,
    every_field_is_the_column_of_the_view,
    fields_are_added_to_the_default,
    a_row_for_each_connection,
];

const HEADER: &str = "ts,run_id,event,provider,pid,comm,cmdline,proto,local_ip,local_port,remote_ip,remote_port,domain,ancestry_path,duration_ms\r\n";

const NAMES: [&str; 8] =
    ["a,b", "say \"hi\"", "two\nlines", "=1+1", "🦀 crab", "-rf /", "-bash", "tab\tand\rreturn"];

fn hostile() -> Result<History> {
    let history = History::new()?;
    let connections: Vec<_> = NAMES
        .iter()
        .map(|name| Connection {
            comm: (*name).to_owned(),
            cmdline: format!("{name} x"),
            ..Connection::default()
        })
        .collect();
    history.write("hostile", START, &connections, End::Clean)?;
    Ok(history)
}

/// What `program` prints for `input`; skips where it is not installed.
fn through(program: &str, arguments: &[&str], input: &str) -> Result<String> {
    let mut command = Command::new(program);
    command.args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut child = command.spawn().map_err(|error| skip(format!("{program}: {error}")))?;
    child.stdin.take().context("a pipe")?.write_all(input.as_bytes())?;
    let output = child.wait_with_output()?;
    ensure!(output.status.success(), "{program}: {}", output.status);
    Ok(String::from_utf8(output.stdout)?)
}

fn the_default_fields_stand_in_their_order() -> Result<()> {
    let history = History::new()?;
    history.write("one", START, &[Connection::default()], End::Clean)?;
    let csv = history.run(&["export", "--format", "csv"])?.stdout;
    let expected = format!(
        "{HEADER}2026-01-17T19:30:00.000Z,1-{START},connect,anthropic,2000,claude,claude --verbose,tcp,192.168.1.23,443,\
         203.0.113.7,443,api.anthropic.com,,\r\n\
         2026-01-17T19:30:01.200Z,1-{START},close,anthropic,2000,claude,claude --verbose,tcp,192.168.1.23,443,\
         203.0.113.7,443,api.anthropic.com,,1200\r\n"
    );
    ensure!(csv == expected, "{csv}");
    ensure!(!history.run(&["export", "--format", "csv", "--no-header"])?.stdout.starts_with("ts"));
    Ok(())
}

fn hostile_cells_come_back_through_python() -> Result<()> {
    let history = hostile()?;
    let program = "import csv, io, json, sys\n\
                   text = io.TextIOWrapper(sys.stdin.buffer, encoding='utf-8', newline='')\n\
                   print(json.dumps([row['comm'] for row in csv.DictReader(text, strict=True) if row['event'] == 'connect']))";
    for (arguments, guard) in
        [(&["export", "--format", "csv"][..], "'"), (&["export", "--format", "csv", "--raw"], "")]
    {
        let csv = history.launch(arguments)?.command_output()?;
        let found: Vec<String> = serde_json::from_str(&through("python3", &["-c", program], &csv)?)?;
        let expected: Vec<_> = NAMES
            .iter()
            .map(|name| {
                if matches!(*name, "=1+1" | "-rf /") { format!("{guard}{name}") } else { (*name).to_owned() }
            })
            .collect();
        ensure!(found == expected, "{found:?}");
    }
    Ok(())
}

fn json_lines_have_every_event_without_nulls() -> Result<()> {
    let history = hostile()?;
    let text = history.launch(&["export", "--format", "jsonl"])?.command_output()?;
    ensure!(!text.contains("null") && !text.contains('\r'), "{text}");
    let rows = text.lines().map(serde_json::from_str::<Value>).collect::<Result<Vec<_>, _>>()?;
    ensure!(rows.len() == 2 * NAMES.len());
    let names: Vec<_> =
        rows.iter().filter(|row| row["event"] == "close").map(|row| row["comm"].clone()).collect();
    ensure!(names == NAMES.map(Value::from), "{names:?}");
    ensure!(rows[0].get("duration_ms").is_none() && rows[1]["duration_ms"] == json!(1200), "{text}");
    Ok(())
}

fn jq_counts_what_sql_counts() -> Result<()> {
    let history = hostile()?;
    let text = history.run(&["export", "--format", "jsonl", "--fields", "event,bytes_recv"])?.stdout;
    let sum = through("jq", &["-s", "map(.bytes_recv // 0) | add"], &text)?;
    let expected = history.database()?.count("SELECT sum(bytes_recv) FROM events")?;
    ensure!(sum.trim() == expected.to_string(), "{sum}");
    Ok(())
}

fn filters_hold_together() -> Result<()> {
    let history = History::new()?;
    let claude = Connection::default();
    let codex = Connection { provider: "openai", domain: Some("API.openai.com".into()), ..claude.clone() };
    let nameless = Connection { domain: None, ..claude.clone() };
    let first = [every(10, START, 60_000, &claude), every(5, START, 60_000, &codex), vec![nameless]].concat();
    history.write("first", START, &first, End::Clean)?;
    history.write("second", START + 600_000, &every(7, START + 600_000, 1, &codex), End::Clean)?;
    let database = history.database()?;
    let since = "2026-01-17T19:33:00Z";
    for (arguments, sql) in [
        (&[][..], "true"),
        (&["--provider", "openai"], "provider = 'openai'"),
        (&["--run-id", "second"], "run_id LIKE '%600000' OR run_id = '1-1768678800000'"),
        (&["--domain", "*.openai.com"], "domain = 'API.openai.com'"),
        (&["--domain", "*.openai.com", "--domain", "api.anthropic.c?m"], "domain IS NOT NULL"),
        (&["--domain", "openai.com"], "false"),
        (&["--since", since], "ts >= '2026-01-17T19:33:00.000Z'"),
        (
            &["--until", since, "--provider", "anthropic"],
            "ts < '2026-01-17T19:33:00.000Z' AND provider = 'anthropic'",
        ),
        (
            &["--since", since, "--domain", "*openai*", "--run-id", "first"],
            "ts >= '2026-01-17T19:33:00.000Z' AND domain LIKE '%openai%' AND run_id = '1-1768678200000'",
        ),
        (&["--since", "2030-01-01"], "false"),
    ] {
        let all = [&["export", "--format", "jsonl"][..], arguments].concat();
        let lines = history.run(&all)?.stdout.lines().count();
        let expected = database.count(&format!("SELECT count(*) FROM events WHERE {sql}"))?;
        ensure!(i64::try_from(lines)? == expected, "{arguments:?}: {lines}, SQL has {expected}");
    }
    Ok(())
}

fn fields_are_chosen_and_checked() -> Result<()> {
    let history = hostile()?;
    let csv = history.run(&[
        "export",
        "--format",
        "csv",
        "--fields",
        "event,alert,domain_source",
        "--fields",
        "id",
    ])?;
    ensure!(csv.stdout.starts_with("event,alert,domain_source,id\r\nconnect,0,dns,1\r\n"), "{csv:?}");
    let unknown = history.launch(&["export", "--format", "csv", "--fields", "event,nope"])?.run()?;
    unknown.expect_code(2)?;
    ensure!(
        unknown.stderr.contains("no such field") && unknown.stderr.contains("ancestry_path"),
        "{unknown:?}"
    );
    history.launch(&["export", "--format", "xml"])?.run()?.expect_code(2)?;
    Ok(())
}

/// The two ways to the same rows must not drift apart.
fn every_field_is_the_column_of_the_view() -> Result<()> {
    let history = hostile()?;
    let connection = rusqlite::Connection::open(history.path())?;
    let mut statement = connection.prepare("SELECT * FROM events ORDER BY id")?;
    let columns: Vec<String> = statement.column_names().map(str::to_owned).collect();
    let text =
        history.launch(&["export", "--format", "jsonl", "--fields", &columns.join(",")])?.command_output()?;
    let mut rows = statement.query([])?;
    for line in text.lines() {
        let exported: Value = serde_json::from_str(line)?;
        let row = rows.next()?.context("a row")?;
        for (index, column) in columns.iter().enumerate() {
            let stored = match row.get(index)? {
                rusqlite::types::Value::Integer(number)
                    if matches!(column.as_str(), "alert" | "preexisting") =>
                {
                    json!(number != 0)
                }
                rusqlite::types::Value::Integer(number) => json!(number),
                rusqlite::types::Value::Text(text) => json!(text),
                _ => Value::Null,
            };
            ensure!(exported.get(column).cloned().unwrap_or_default() == stored, "{column}: {line}");
        }
    }
    ensure!(rows.next()?.is_none());
    Ok(())
}

fn fields_are_added_to_the_default() -> Result<()> {
    let history = History::new()?;
    history.write("one", START, &[Connection::default()], End::Clean)?;
    let header = |fields: &[&str]| -> Result<String> {
        let csv = history.run(&[&["export", "--format", "csv"], fields].concat())?.stdout;
        Ok(csv.lines().next().unwrap_or_default().to_owned())
    };
    let default = HEADER.trim_end();
    ensure!(header(&["--fields", "+bytes_sent,+class"])? == format!("{default},bytes_sent,class"));
    ensure!(header(&["--fields", "+ts", "--fields", "+alert"])? == format!("{default},alert"));
    ensure!(header(&["--fields", "pid,+agent"])? == "pid,agent");
    let all = header(&["--fields", "all"])?;
    ensure!(
        all.starts_with(default)
            && all.ends_with(",via,domain_port,relay_for")
            && all.split(',').count() == 45,
        "{all}"
    );
    let csv = history.run(&["export", "--format", "csv", "--fields", "class,endpoint_type"])?.stdout;
    ensure!(csv.lines().nth(1) == Some("unknown,unknown"), "{csv}");
    let refused = history.launch(&["export", "--format", "csv", "--fields", "+nothing"])?.run()?;
    refused.expect_code(2)?;
    Ok(())
}

fn a_row_for_each_connection() -> Result<()> {
    let history = History::new()?;
    let call = Some(("claude", Some("git fetch")));
    let ended = Connection { call, bytes: (40, 50), ..Connection::default() };
    let failed =
        Connection { fails: true, at: START + 5, ip: "192.0.2.1", domain: None, ..Connection::default() };
    let open = Connection { stays_open: true, at: START + 9, ip: "192.0.2.2", ..Connection::default() };
    history.write("one", START, &[ended.clone(), failed, open], End::Clean)?;
    let rows = |arguments: &[&str]| -> Result<Vec<Value>> {
        let all = [&["export", "--format", "jsonl", "--rows", "connections"], arguments].concat();
        history.run(&all)?.stdout.lines().map(|line| Ok(serde_json::from_str(line)?)).collect()
    };
    let all = rows(&[])?;
    let events: Vec<_> = all.iter().map(|row| row["event"].as_str().unwrap_or_default()).collect();
    ensure!(events == ["close", "fail", "connect"], "{all:?}");
    let expected = json!({
        "ts": "2026-01-17T19:30:00.000Z", "run_id": format!("1-{START}"), "event": "close", "provider": "anthropic",
        "agent": "claude", "tool": "git fetch", "pid": 2000, "program": "claude", "proto": "tcp",
        "local_ip": "192.168.1.23", "local_port": 443, "remote_ip": "203.0.113.7", "remote_port": 443,
        "domain": "api.anthropic.com", "class": "unknown", "duration_ms": 1200, "bytes_sent": 40, "bytes_recv": 50,
        "alert": false,
    });
    ensure!(all[0] == expected, "{}", all[0]);
    ensure!(all[1]["error"] == "ECONNREFUSED" && all[2]["ts"] == "2026-01-17T19:30:00.009Z", "{all:?}");
    // A filter holds of the last event: what has ended is not open.
    ensure!(rows(&["--filter", "event:connect"])?.len() == 1);
    ensure!(rows(&["--filter", "sent:>10"])? == [all[0].clone()]);
    ensure!(rows(&["--filter", "-duration:>1s"])?.len() == 2);
    // Of what began before the range its end tells when.
    let late = rows(&["--since", "2026-01-17T19:30:01Z"])?;
    ensure!(late == [all[0].clone()], "{late:?}");
    let csv =
        history.run(&["export", "--format", "csv", "--rows", "connections", "--fields", "pid,class"])?.stdout;
    ensure!(csv == "pid,class\r\n2000,unknown\r\n2001,unknown\r\n2002,unknown\r\n", "{csv}");
    let mut launch = history.launch(&["export", "--format", "parquet", "--rows", "connections"])?;
    let parquet = launch.command().output()?.stdout;
    ensure!(parquet.starts_with(b"PAR1") && parquet.ends_with(b"PAR1"), "{} bytes", parquet.len());
    Ok(())
}
