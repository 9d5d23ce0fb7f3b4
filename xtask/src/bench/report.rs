//! Questions to a history of ten million events, beside `sqlite3` where it can answer the same one. The database is
//! made once and kept in cargo's target directory.

use std::ffi::OsString;
use std::path::Path;
use std::process::{Command, ExitCode, Stdio};

use anyhow::{Result, ensure};

use super::measure::{Cost, median_cost, milliseconds, ratio};
use super::table::Table;
use crate::cargo;

const EVENTS: u32 = 10_000_000;
const TIMES: usize = 3;
/// Of what takes a quarter of a minute.
const LONG_TIMES: usize = 1;

/// What the generator's last session is called, and the one before it.
const SESSIONS: [&str; 2] = ["work-48", "work-49"];

/// The default fields of an export.
const FIELDS: &str = "ts, run_id, event, provider, pid, comm, cmdline, proto, local_ip, local_port, remote_ip, \
                      remote_port, domain, ancestry_path, duration_ms";

pub(crate) fn measure(rano: &Path) -> Result<Table> {
    let database = cargo::target_directory().join(format!("history-{EVENTS}.sqlite"));
    if !database.exists() {
        let arguments = ["--events", &EVENTS.to_string(), "--out"].map(OsString::from);
        let ended = cargo::bench("database", arguments.into_iter().chain([database.clone().into()]))?;
        ensure!(ended == ExitCode::SUCCESS, "the database was not made");
    }
    let mut table = Table::new(&["question", "wall", "peak RSS"]);
    let mut ask = |name: &str, times: usize, arguments: &[&str]| -> Result<Cost> {
        let cost = median_cost(times, || {
            let mut command = Command::new(rano);
            command.args(arguments).arg("--sqlite").arg(&database);
            command
        })?;
        table.row(vec![name.to_owned(), milliseconds(cost.wall), mebibytes(cost.peak_kib)]);
        Ok(cost)
    };
    ask("report --latest", TIMES, &["report", "--latest"])?;
    // The last session is thirty hours long and begins on 2026-02-19; no event is later than its end.
    ask("report --since, the last 24 hours", TIMES, &["report", "--since", "2026-02-19T17:29:59Z"])?;
    ask("report, all of it", TIMES, &["report", "--since", "2026-01-01"])?;
    ask("diff", TIMES, &["diff", "--old", SESSIONS[0], "--new", SESSIONS[1]])?;
    ask("status", TIMES, &["status"])?;
    let csv = ask("export --format csv", LONG_TIMES, &["export", "--format", "csv"])?;
    ask("export --format jsonl", LONG_TIMES, &["export", "--format", "jsonl"])?;
    if Command::new("sqlite3").arg("--version").stdout(Stdio::null()).status().is_err() {
        table.skip("sqlite3 -csv: not installed");
    } else {
        let peer = median_cost(LONG_TIMES, || {
            let mut command = Command::new("sqlite3");
            command.arg("-csv").arg(&database).arg(format!("SELECT {FIELDS} FROM events"));
            command
        })?;
        table.row(vec![
            "sqlite3 -csv, the same fields".into(),
            milliseconds(peer.wall),
            mebibytes(peer.peak_kib),
        ]);
        table.row(vec!["rate of export over sqlite3".into(), ratio(peer.wall, csv.wall), String::new()]);
    }
    let size = database.metadata()?.len();
    let tenths = size * 10 / u64::from(EVENTS);
    table.row(vec!["bytes an event".into(), format!("{}.{}", tenths / 10, tenths % 10), String::new()]);
    Ok(table)
}

fn mebibytes(kib: u64) -> String {
    format!("{}.{} MiB", kib / 1024, kib % 1024 * 10 / 1024)
}
