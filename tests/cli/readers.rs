//! What `rano export` writes, counted by the programs that people read it with, beside SQL's own count.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, ensure};
use serde::Deserialize;

use crate::support::history::{Connection, End, History, START, every};
use crate::support::trial::skip;

crate::tests![
    python_csv_reads_what_sql_counts,
    pandas_reads_what_sql_counts,
    duckdb_reads_what_sql_counts,
    pyarrow_reads_what_sql_counts,
    jq_reads_what_sql_counts,
    parquet_has_typed_columns,
    parquet_is_refused_where_it_makes_no_sense,
    parquet_of_many_rows_comes_in_groups,
    parquet_without_events_is_still_a_table,
];

const FIELDS: &str = "ts,event,comm,cmdline,domain,bytes_recv,alert";

/// What readers stumble over: separators, quotes, line ends, formulas, words that stand for nothing, blanks at the
/// ends.
const NAMES: [&str; 16] = [
    "claude",
    "a,b",
    "say \"hi\"",
    "two\nlines",
    "return\r\nand newline",
    "=1+1",
    "@SUM(A1)",
    "-rf /",
    "🦀 crab",
    "日本語",
    "tab\tbed",
    " blanks ",
    "NA",
    "null",
    "007",
    "back\\slash",
];

/// The same figures from every reader.
#[derive(Debug, Default, PartialEq, Deserialize)]
struct Counted {
    rows: i64,
    connects: i64,
    bytes: i64,
    without_domain: i64,
    alerts: i64,
    /// Unix milliseconds.
    first: i64,
    last: i64,
    names: BTreeMap<String, i64>,
    command_lines: BTreeMap<String, i64>,
}

fn hostile() -> Result<History> {
    let history = History::new()?;
    let mut connections: Vec<Connection> = Vec::new();
    for (index, name) in (1..).zip(NAMES) {
        let one = Connection {
            comm: name.to_owned(),
            cmdline: format!("{name} --say \"{name}\""),
            domain: (index % 3 != 0).then(|| format!("{index}.example.com")),
            ..Connection::default()
        };
        connections.extend(every(index, START + 7, 61_001, &one));
    }
    history.write("hostile", START, &connections, End::Clean)?;
    // What no program but SQLite itself lets in.
    let database = rusqlite::Connection::open(history.path())?;
    database.execute_batch(
        "UPDATE process SET cmdline = CAST(x'63c328ff00' AS TEXT) WHERE comm = 'claude';
         UPDATE kind SET alert = 1 WHERE event = 'connect';",
    )?;
    Ok(history)
}

fn expected(history: &History) -> Result<Counted> {
    let database = rusqlite::Connection::open(history.path())?;
    let mut counted = Counted::default();
    let mut statement = database.prepare(
        "SELECT CAST(round(unixepoch(ts, 'subsec') * 1000) AS INTEGER), event, comm, cmdline, domain, bytes_recv, alert FROM events",
    )?;
    let mut rows = statement.query([])?;
    counted.first = i64::MAX;
    while let Some(row) = rows.next()? {
        let ts: i64 = row.get(0)?;
        let text = |column| -> Result<String> {
            Ok(String::from_utf8_lossy(row.get_ref(column)?.as_bytes()?).into_owned())
        };
        counted.rows += 1;
        counted.connects += i64::from(text(1)? == "connect");
        *counted.names.entry(text(2)?).or_default() += 1;
        *counted.command_lines.entry(text(3)?).or_default() += 1;
        counted.without_domain += i64::from(row.get::<_, Option<String>>(4)?.is_none());
        counted.bytes += row.get::<_, Option<i64>>(5)?.unwrap_or(0);
        counted.alerts += row.get::<_, i64>(6)?;
        counted.first = counted.first.min(ts);
        counted.last = counted.last.max(ts);
    }
    Ok(counted)
}

/// Where `.ci/run` puts the libraries.
fn python() -> Command {
    let libraries = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/tools/python");
    let mut command = Command::new("python3");
    command.env("PYTHONPATH", libraries).env("PYTHONDONTWRITEBYTECODE", "1");
    command
}

/// Skips where the library is not installed.
fn needs(library: &str) -> Result<()> {
    let mut import = python();
    import.args(["-c", &format!("import {library}")]).stderr(Stdio::null());
    let found = import.status().is_ok_and(|status| status.success());
    if found {
        Ok(())
    } else {
        Err(skip(format!("Python's {library} is not installed: `.ci/run` fetches it")))
    }
}

fn export(history: &History, arguments: &[&str], to: &str) -> Result<String> {
    let mut launch = history.launch(&[&["export"], arguments].concat())?;
    let output = launch.command().output().context("start rano")?;
    ensure!(output.status.success(), "{output:?}");
    let path = history.directory().join(to);
    fs::write(&path, output.stdout)?;
    Ok(path.to_str().context("a path in UTF-8")?.to_owned())
}

/// `program` prints its counts as JSON; it finds the path in `sys.argv[1]`.
fn count(program: &str, path: &str) -> Result<Counted> {
    let output = python().args(["-c", program, path]).output()?;
    ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout)
        .with_context(|| String::from_utf8_lossy(&output.stdout).into_owned())
}

fn check(program: &str, format: &str) -> Result<()> {
    let history = hostile()?;
    let mut arguments = vec!["--format", format, "--fields", FIELDS];
    if format == "csv" {
        arguments.push("--raw");
    }
    let path = export(&history, &arguments, &format!("events.{format}"))?;
    let found = count(program, &path)?;
    let expected = expected(&history)?;
    ensure!(found == expected, "{format}: {found:#?}\nSQL: {expected:#?}");
    Ok(())
}

fn python_csv_reads_what_sql_counts() -> Result<()> {
    check(
        "import csv, sys, json, collections as c, datetime as d\n\
         rows = list(csv.DictReader(open(sys.argv[1], encoding='utf-8', newline=''), strict=True))\n\
         ms = [round(d.datetime.fromisoformat(r['ts'].replace('Z', '+00:00')).timestamp() * 1000) for r in rows]\n\
         print(json.dumps(dict(rows=len(rows), connects=sum(r['event'] == 'connect' for r in rows),\n\
             bytes=sum(int(r['bytes_recv'] or 0) for r in rows), without_domain=sum(not r['domain'] for r in rows),\n\
             alerts=sum(int(r['alert']) for r in rows), first=min(ms), last=max(ms),\n\
             names=c.Counter(r['comm'] for r in rows), command_lines=c.Counter(r['cmdline'] for r in rows))))",
        "csv",
    )
}

fn pandas_reads_what_sql_counts() -> Result<()> {
    needs("pandas, pyarrow")?;
    let counts = "ms = lambda t: round(t.timestamp() * 1000)\n\
         t = pd.to_datetime(f['ts'])\n\
         n = lambda s: {k: int(v) for k, v in s.value_counts().items()}\n\
         print(json.dumps(dict(rows=len(f), connects=int((f['event'] == 'connect').sum()),\n\
             bytes=int(f['bytes_recv'].sum()), without_domain=int(f['domain'].isna().sum()),\n\
             alerts=int(f['alert'].sum()), first=ms(t.min()), last=ms(t.max()),\n\
             names=n(f['comm']), command_lines=n(f['cmdline']))))";
    // Left to itself pandas takes 'NA' for nothing and '007' for a number.
    for (format, read) in [
        (
            "csv",
            "pd.read_csv(sys.argv[1], keep_default_na=False, na_values={'domain': '', 'bytes_recv': ''}, dtype={'comm': str})",
        ),
        ("jsonl", "pd.read_json(sys.argv[1], lines=True, dtype={'comm': str}, convert_dates=False)"),
        ("parquet", "pd.read_parquet(sys.argv[1])"),
    ] {
        check(&format!("import json, sys, pandas as pd\nf = {read}\n{counts}"), format)?;
    }
    Ok(())
}

fn duckdb_reads_what_sql_counts() -> Result<()> {
    needs("duckdb")?;
    // In CSV nobody can tell what '007' is but the reader; that the text has all of UTF-8 is found out by DuckDB
    // itself.
    for (format, read) in [
        ("csv", "read_csv(?, header=true, delim=',', quote='\"', escape='\"', types={'comm': 'VARCHAR'})"),
        (
            "jsonl",
            "read_json(?, format='newline_delimited', columns={ts: 'TIMESTAMPTZ', event: 'VARCHAR', comm: 'VARCHAR', cmdline: 'VARCHAR', domain: 'VARCHAR', bytes_recv: 'BIGINT', alert: 'BOOLEAN'})",
        ),
        ("parquet", "read_parquet(?)"),
    ] {
        let program = format!(
            "import json, sys, duckdb\n\
             d = duckdb.connect()\n\
             d.execute(\"CREATE TABLE e AS SELECT * FROM {}\", [sys.argv[1]])\n\
             q = lambda s: d.execute(s).fetchall()\n\
             r = q(\"SELECT count(*), count(*) FILTER (event = 'connect'), sum(bytes_recv), count(*) - count(domain), \
                 sum(alert::INT), epoch_ms(min(ts)), epoch_ms(max(ts)) FROM e\")[0]\n\
             k = ['rows', 'connects', 'bytes', 'without_domain', 'alerts', 'first', 'last']\n\
             n = lambda c: dict(q(f'SELECT {{c}}, count(*) FROM e GROUP BY 1'))\n\
             print(json.dumps(dict(zip(k, map(int, r))) | dict(names=n('comm'), command_lines=n('cmdline'))))",
            read.replace('"', "\\\"")
        );
        check(&program, format)?;
    }
    Ok(())
}

fn pyarrow_reads_what_sql_counts() -> Result<()> {
    needs("pyarrow.parquet")?;
    check(
        "import json, sys, collections as c, pyarrow.parquet as pq\n\
         rows = pq.read_table(sys.argv[1]).to_pylist()\n\
         ms = [round(r['ts'].timestamp() * 1000) for r in rows]\n\
         print(json.dumps(dict(rows=len(rows), connects=sum(r['event'] == 'connect' for r in rows),\n\
             bytes=sum(r['bytes_recv'] or 0 for r in rows), without_domain=sum(r['domain'] is None for r in rows),\n\
             alerts=sum(r['alert'] for r in rows), first=min(ms), last=max(ms),\n\
             names=c.Counter(r['comm'] for r in rows), command_lines=c.Counter(r['cmdline'] for r in rows))))",
        "parquet",
    )
}

fn jq_reads_what_sql_counts() -> Result<()> {
    let history = hostile()?;
    let path = export(&history, &["--format", "jsonl", "--fields", FIELDS], "events.jsonl")?;
    let program = "def ms: (.[:19] + \"Z\" | fromdate) * 1000 + (.[20:23] | tonumber);
        def counts: group_by(.) | map({key: .[0], value: length}) | from_entries;
        {rows: length, connects: map(select(.event == \"connect\")) | length, bytes: map(.bytes_recv // 0) | add,
         without_domain: map(select(has(\"domain\") | not)) | length, alerts: map(select(.alert)) | length,
         first: map(.ts | ms) | min, last: map(.ts | ms) | max,
         names: map(.comm) | counts, command_lines: map(.cmdline) | counts}";
    let output = Command::new("jq").args(["-s", program, &path]).output();
    let output = output.map_err(|error| skip(format!("jq: {error}")))?;
    ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let found: Counted = serde_json::from_slice(&output.stdout)?;
    let expected = expected(&history)?;
    ensure!(found == expected, "{found:#?}\nSQL: {expected:#?}");
    Ok(())
}

/// The schema, one `name type` a line.
fn schema(path: &str) -> Result<String> {
    let program = "import sys, pyarrow.parquet as pq\n\
                   for f in pq.read_schema(sys.argv[1]): print(f.name, f.type)";
    let output = python().args(["-c", program, path]).output()?;
    ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    Ok(String::from_utf8(output.stdout)?)
}

fn parquet_has_typed_columns() -> Result<()> {
    needs("pyarrow.parquet")?;
    let history = hostile()?;
    let path = export(&history, &["--format", "parquet"], "default.parquet")?;
    let text =
        |names: &str| names.split(' ').fold(String::new(), |all, name| format!("{all}{name} string\n"));
    let expected = [
        "ts timestamp[ms, tz=UTC]\n",
        &text("run_id event provider"),
        "pid int64\n",
        &text("comm cmdline proto local_ip"),
        "local_port int64\n",
        &text("remote_ip"),
        "remote_port int64\n",
        &text("domain ancestry_path"),
        "duration_ms int64\n",
    ]
    .concat();
    let found = schema(&path)?;
    ensure!(found == expected, "{found}");
    let path = export(&history, &["--format", "parquet", "--fields", "preexisting,netns,id"], "few.parquet")?;
    ensure!(schema(&path)? == "preexisting bool\nnetns int64\nid int64\n");
    Ok(())
}

fn parquet_is_refused_where_it_makes_no_sense() -> Result<()> {
    let history = hostile()?;
    for (arguments, says) in [
        (&["--no-header"][..], "--no-header is for CSV"),
        (&["--raw"], "--raw is for CSV"),
        (&["--fields", "ts,event,ts"], "'ts' is named twice"),
    ] {
        let refused = history.launch(&[&["export", "--format", "parquet"], arguments].concat())?.run()?;
        refused.expect_code(2)?;
        ensure!(refused.stdout.is_empty() && refused.stderr.contains(says), "{refused:?}");
    }
    Ok(())
}

fn parquet_of_many_rows_comes_in_groups() -> Result<()> {
    needs("pyarrow.parquet")?;
    let history = History::new()?;
    history.write("many", START, &every(70_000, START, 13, &Connection::default()), End::Clean)?;
    let path = export(&history, &["--format", "parquet", "--fields", "id,ts,comm"], "many.parquet")?;
    let program = "import sys, pyarrow.parquet as pq, pyarrow.compute as pc\n\
                   f = pq.ParquetFile(sys.argv[1]); t = f.read()\n\
                   print(f.num_row_groups, t.num_rows, pc.sum(t['id']), pc.count_distinct(t['comm']))";
    let output = python().args(["-c", program, &path]).output()?;
    let found = String::from_utf8(output.stdout)?;
    let sum = history.database()?.count("SELECT sum(id) FROM events")?;
    ensure!(found.trim() == format!("3 140000 {sum} 1"), "{found}");
    Ok(())
}

fn parquet_without_events_is_still_a_table() -> Result<()> {
    needs("pyarrow.parquet")?;
    let history = hostile()?;
    let path = export(&history, &["--format", "parquet", "--since", "2030-01-01"], "none.parquet")?;
    ensure!(schema(&path)?.lines().count() == 15);
    Ok(())
}
